//! The layers around the text of a file of the Go program: encryption, and compression inside it.

use std::borrow::Cow;
use std::io::{self, Read as _};

use aes_gcm::aead::Aead as _;
use aes_gcm::aead::consts::U12;
use aes_gcm::aes::Aes192;
use aes_gcm::{Aes128Gcm, Aes256Gcm, AesGcm, KeyInit as _, Nonce};
use flate2::read::MultiGzDecoder;
use ruzstd::decoding::StreamingDecoder;

use super::Fault;

/// The compression of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
    Snappy,
}

impl Compression {
    /// Returns the compression of these bytes and the offset of the compressed stream, or `None`
    /// if they begin neither like JSON nor like a compressed text.
    fn of(bytes: &[u8]) -> Option<(Self, usize)> {
        // A header of two bytes precedes the stream: the algorithm and the level, which does not
        // matter.
        match bytes {
            [b'{', ..] => Some((Self::None, 0)),
            [1, _, 0x1F, 0x8B, ..] => Some((Self::Gzip, 2)),
            [2, _, 0x28, 0xB5, 0x2F, 0xFD, ..] => Some((Self::Zstd, 2)),
            [3, _, _, ..] => Some((Self::Snappy, 2)),
            _ => None,
        }
    }

    /// Returns the name of the compression, or `None` if there is none.
    pub(super) fn name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
            Self::Snappy => Some("snappy"),
        }
    }
}

/// The bytes that may still be unpacked, decrypted and searched for one file. A file that needs
/// more is made to fill the memory or to take forever.
#[derive(Debug)]
pub(super) struct Budget(u64);

impl Budget {
    /// Returns the budget of a file with this length.
    pub(super) fn of(file_len: usize) -> Self {
        Self(u64_of(file_len).saturating_mul(RATIO_MAX).max(UNPACKED_MIN))
    }

    #[cfg(test)]
    pub(super) fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Takes `len` bytes out of the budget.
    pub(super) fn take(&mut self, len: usize) -> Result<(), Fault> {
        self.0 = self.0.checked_sub(u64_of(len)).ok_or(Fault::TooLarge)?;
        Ok(())
    }
}

/// A text, and the compression in which it was stored.
pub(super) type Text<'a> = (Compression, Cow<'a, [u8]>);

/// Returns the text in `bytes` with its compression, or `None` if no text begins like these bytes.
///
/// # Errors
/// `Damaged` if the stream is not intact, `TooLarge` if the text is larger than the budget.
pub(super) fn unpack<'a>(bytes: &'a [u8], budget: &mut Budget) -> Result<Option<Text<'a>>, Fault> {
    let Some((compression, start)) = Compression::of(bytes) else { return Ok(None) };
    let stream = bytes.get(start..).unwrap_or_default();
    let text = match compression {
        Compression::None => return Ok(Some((compression, bytes.into()))),
        Compression::Gzip => inflated(stream, budget.0),
        Compression::Zstd => zstd(stream, budget.0),
        Compression::Snappy => snappy(stream),
    };
    let text = text.map_err(|error| {
        let name = compression.name().unwrap_or_default();
        Fault::Damaged(format!("the {name} stream is not intact: {error}"))
    })?;
    budget.take(text.len())?;
    Ok(Some((compression, text.into())))
}

/// Returns the text of a gzip stream, or the first `max` bytes and one more.
fn inflated(stream: &[u8], max: u64) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    MultiGzDecoder::new(stream).take(max.saturating_add(1)).read_to_end(&mut text)?;
    Ok(text)
}

/// Returns the text of a zstd frame, or the first `max` bytes and one more.
fn zstd(stream: &[u8], max: u64) -> io::Result<Vec<u8>> {
    let mut decoder = StreamingDecoder::new(stream).map_err(io::Error::other)?;
    let mut text = Vec::new();
    (&mut decoder).take(max.saturating_add(1)).read_to_end(&mut text)?;
    let (rest, frame) = decoder.into_parts();
    if u64_of(text.len()) > max {
        return Ok(text);
    }
    // The decoder computes the checksum of the frame, and leaves the comparison to its caller.
    let named = frame.get_checksum_from_data();
    if named.is_some() && named != frame.get_calculated_checksum() {
        return Err(io::Error::other("its checksum does not match"));
    }
    if !rest.is_empty() {
        return Err(io::Error::other("other bytes follow it"));
    }
    Ok(text)
}

/// Returns the text of a snappy block, which is at most 22 times as long.
fn snappy(stream: &[u8]) -> io::Result<Vec<u8>> {
    let len = snap::raw::decompress_len(stream).map_err(io::Error::other)?;
    // Order: the length is checked before memory is allocated for it. Three bytes of a stream make
    // at most 64 of the text.
    if len > stream.len().saturating_mul(22) {
        return Err(io::Error::other("it is shorter than the text that it declares"));
    }
    snap::raw::Decoder::new().decompress_vec(stream).map_err(io::Error::other)
}

/// The cipher of an encrypted file: AES-GCM with a key of 16, 24 or 32 bytes.
pub(super) enum Cipher {
    Aes128(Box<Aes128Gcm>),
    Aes192(Box<AesGcm<Aes192, U12>>),
    Aes256(Box<Aes256Gcm>),
}

impl Cipher {
    /// Returns the cipher under `key`, or `None` if the key has another length.
    pub(super) fn new(key: &[u8]) -> Option<Self> {
        Some(match key.len() {
            16 => Self::Aes128(Box::new(Aes128Gcm::new_from_slice(key).ok()?)),
            24 => Self::Aes192(Box::new(AesGcm::new_from_slice(key).ok()?)),
            32 => Self::Aes256(Box::new(Aes256Gcm::new_from_slice(key).ok()?)),
            _ => return None,
        })
    }

    /// Decrypts a nonce, the encrypted bytes and a tag. Returns `None` if they are not authentic.
    pub(super) fn open(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LEN>()?;
        let nonce = Nonce::from(*nonce);
        match self {
            Self::Aes128(aead) => aead.decrypt(&nonce, sealed),
            Self::Aes192(aead) => aead.decrypt(&nonce, sealed),
            Self::Aes256(aead) => aead.decrypt(&nonce, sealed),
        }
        .ok()
    }
}

fn u64_of(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

const NONCE_LEN: usize = 12;
/// The number of bytes that each byte of a file may make.
const RATIO_MAX: u64 = 64;
/// The number of bytes that a small file may make.
const UNPACKED_MIN: u64 = 256 << 20;
