//! A header that was read from a file: checked in the order of the format, then authenticated.

// The numbers in this module come from files.
#![warn(clippy::arithmetic_side_effects, clippy::expect_used)]

use std::path::Path;
use std::sync::Arc;

use super::keyed::{STATE_FIELD, masked, stray_input};
use super::{
    CRC_OFFSET, FileKind, HEADER_LEN, Header, NAMED_FIELD, SIGNATURE, TAG_OFFSET, VERSION, covered,
    parse_fields, seal_error,
};
use crate::batch::Seq;
use crate::codec::{Fields, put, u64_of};
use crate::error::{Error, Result};
use crate::pack::Compression;
use crate::seal::{ENVELOPE_LEN, HEADER_TAG_LEN, Keys, Seal};
use crate::vfs::File;

/// A header that was read and is not authenticated yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// The fields. The base digest of an encrypted store is still masked.
    pub(crate) header: Header,
    bytes: Box<[u8; HEADER_LEN]>,
}

impl Found {
    /// Reads the header at the start of `file`.
    ///
    /// # Errors
    /// - `EmptyFile`, `NotADatabase`, `NewerVersion`, `Damaged` and `Unsupported`, in this order.
    /// - `Damaged` with the next step if the first header of an image is not valid and the second
    ///   one is intact.
    /// - `Io` if reading fails, with the next step if the second header can be read. A later
    ///   attempt may succeed.
    pub(crate) fn read(file: &dyn File, path: &Path) -> Result<Self> {
        Self::first(file, path).map_err(|error| {
            let has_second = || Self::second(file, path).is_ok();
            // An intact second header shows that the file is an image with a damaged first header.
            let path = path.to_owned();
            match error {
                Error::NotADatabase { .. } | Error::NewerVersion { .. } | Error::Damaged { .. }
                    if has_second() =>
                {
                    Error::Damaged { path, offset: 0, what: ONLY_SECOND }
                }
                Error::Io { source, .. } if has_second() => {
                    Error::Io { action: READ_ONLY_SECOND, path, source }
                }
                error => error,
            }
        })
    }

    /// Like [`read`](Self::read), without looking at the end of the file. `BadPath` if no file has
    /// such a header.
    pub(crate) fn first(file: &dyn File, path: &Path) -> Result<Self> {
        let len = file_len(file, path)?.min(u64_of(HEADER_LEN));
        let found = Self::parse(&read_slot(file, 0, len, path)?, path)?;
        if found.header.kind == FileKind::Meta {
            let why = "this is the record `meta` of a shared log; open that log with `shared`";
            return Err(Error::BadPath { path: path.to_owned(), why });
        }
        Ok(found)
    }

    /// Reads the second header of an image, at the end of `file`.
    ///
    /// # Errors
    /// The errors of [`first`](Self::first), and `Damaged` if the file has no second header.
    pub(crate) fn second(file: &dyn File, path: &Path) -> Result<Self> {
        let len = u64_of(HEADER_LEN);
        let offset = file_len(file, path)?.saturating_sub(len);
        let found = Self::parse(&read_slot(file, offset, len, path)?, path)?;
        // A short file has the same bytes at its start and at its end, and a log has no second
        // header.
        if offset < len || found.header.kind != FileKind::Image {
            let what = "there is no second header at the end of the file";
            return Err(Error::Damaged { path: path.to_owned(), offset, what });
        }
        Ok(found)
    }

    /// Returns the bytes of the header as they were read.
    pub(crate) fn bytes(&self) -> &[u8; HEADER_LEN] {
        &self.bytes
    }

    /// Returns the bytes of the header of this image without the link to its log, which the tag
    /// does not cover.
    pub(crate) fn without_link(&self) -> Vec<u8> {
        with_checksum(covered(&self.header, &*self.bytes))
    }

    /// Returns the bytes of the header of this ledger for a copy that ends with commit `seq` and
    /// has no name yet. The tag does not cover that number.
    pub(crate) fn for_copy_upto(&self, seq: Seq) -> Vec<u8> {
        let mut bytes = self.bytes.to_vec();
        put(&mut bytes, NAMED_FIELD.start, seq.to_le_bytes());
        with_checksum(bytes)
    }

    /// Returns bytes that differ between images of different states with the same last commit, for
    /// readers without the key: the history digest, or its tag in an encrypted store.
    #[expect(clippy::indexing_slicing, reason = "the field lies in the header")]
    pub(crate) fn state(&self) -> &[u8] {
        match (self.header.kind, self.header.cipher) {
            (FileKind::Image, 1..) => &self.bytes[STATE_FIELD],
            _ => &self.header.base_digest,
        }
    }

    /// Parses the bytes of a header, in the order of the format.
    pub(crate) fn parse(bytes: &[u8], path: &Path) -> Result<Self> {
        if bytes.is_empty() {
            return Err(Error::EmptyFile { path: path.to_owned() });
        }
        if !bytes.starts_with(&SIGNATURE) {
            return Err(Error::NotADatabase { path: path.to_owned() });
        }
        let damaged = |what| Error::Damaged { path: path.to_owned(), offset: 0, what };
        let mut fields = Fields::new(bytes);
        let (_signature, version) = (fields.u64(), fields.u16());
        // Order: the version before length and checksum, which a newer version may define in
        // another way.
        if bytes.len() >= VERSION_END && version > VERSION {
            let path = path.to_owned();
            return Err(Error::NewerVersion { path, found: version, supported: VERSION });
        }
        let whole = <&[u8; HEADER_LEN]>::try_from(bytes);
        let whole = whole.map_err(|_| damaged("the file ends within its header"))?;
        let (covered, crc) = whole.split_last_chunk::<4>().ok_or(damaged("a header is empty"))?;
        if crc32c::crc32c(covered) != u32::from_le_bytes(*crc) {
            return Err(damaged("the header's checksum does not match"));
        }
        // Order: after the checksum, so that a damaged byte is not reported as an unknown feature.
        if version != VERSION {
            return Err(damaged("the header has version 0"));
        }
        if let Some(what) = unsupported(bytes) {
            return Err(Error::Unsupported { path: path.to_owned(), what });
        }
        let header = parse_fields(&mut fields).map_err(damaged)?;
        Ok(Self { header, bytes: Box::new(*whole) })
    }

    /// Opens the envelope in this header with the key of the user, and authenticates the header.
    /// Returns no seal for a plain store.
    ///
    /// # Errors
    /// - `KeyRequired` if the store is encrypted and no key was given, `NotEncrypted` in the
    ///   opposite case.
    /// - `WrongKey` if the key does not open the envelope.
    /// - `Tampered` or `Seal` if header or envelope were changed.
    pub(crate) fn unlock(
        self,
        keys: Option<&dyn Keys>,
        path: &Path,
    ) -> Result<(Header, Option<Arc<dyn Seal>>)> {
        let keys = match (self.header.cipher, keys) {
            (0, None) => {
                return Ok((self.authenticate(None, path)?, None));
            }
            (0, Some(_)) => return Err(Error::NotEncrypted { path: path.to_owned() }),
            (_, None) => return Err(Error::KeyRequired { path: path.to_owned() }),
            (_, Some(keys)) => keys,
        };
        let none = [0; ENVELOPE_LEN];
        // An encrypted file without an envelope is a segment, which cannot be opened alone.
        let envelope = self.header.envelope.as_deref().unwrap_or(&none);
        let seal =
            keys.unlock(&self.header.store_id, envelope).map_err(|e| seal_error(path, 0, e))?;
        Ok((self.authenticate(Some(&*seal), path)?, Some(seal)))
    }

    /// Returns whether this segment was made by a rekey of the store with the root key `seal`,
    /// under a root key that was not installed.
    pub(crate) fn is_stray_of(&self, seal: &dyn Seal) -> bool {
        self.header.root_id != seal.root_id()
            && seal.verify_header(&stray_input(&self.bytes), &self.header.stray_proof).is_ok()
    }

    /// Checks the tag of the header with the `seal` of the store (`None` for a plain store), and
    /// returns the header with the true base digest.
    ///
    /// # Errors
    /// `Tampered` if the tag or the root key does not match, or if the file is plain and the store
    /// encrypted, or the reverse.
    #[expect(clippy::indexing_slicing, reason = "the tag lies in the header")]
    pub(crate) fn authenticate(self, seal: Option<&dyn Seal>, path: &Path) -> Result<Header> {
        let tampered = || Error::Tampered { path: path.to_owned(), offset: 0 };
        let mut tail = Fields::new(&self.bytes[TAG_OFFSET..]);
        let tag = tail.array::<HEADER_TAG_LEN>();
        let Some(seal) = seal else {
            let plain = self.header.cipher == 0 && tag == [0; HEADER_TAG_LEN];
            return if plain { Ok(self.header) } else { Err(tampered()) };
        };
        if self.header.cipher != seal.cipher_id() || self.header.root_id != seal.root_id() {
            return Err(tampered());
        }
        // Order: the tag is verified before the mask of the digest is removed and the fields are
        // returned.
        let covered = covered(&self.header, &self.bytes[..TAG_OFFSET]);
        seal.verify_header(&covered, &tag).map_err(|e| seal_error(path, 0, e))?;
        let mut header = self.header;
        header.base_digest = masked(&header.base_digest, Some(seal), &header.file_id);
        Ok(header)
    }
}

/// Returns the feature of a newer version that the header with these bytes uses, if there is one.
fn unsupported(bytes: &[u8]) -> Option<&'static str> {
    match bytes.get(CIPHER_OFFSET..=COMPRESSION_OFFSET) {
        Some([CIPHER_AES_GCM_SIV, ..]) => Some("the cipher AES-256-GCM-SIV"),
        Some([_, FLAG_PADDED, _]) => Some("padded lengths"),
        Some([_, flags, _]) if *flags != 0 => Some("a flag in its header"),
        Some([.., number]) if Compression::from_number(*number).is_none() => Some("a compression"),
        _ => None,
    }
}

/// Returns the bytes of a header with their checksum computed again.
fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(CRC_OFFSET);
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

/// Reads `len` bytes of a header at `offset`.
fn read_slot(file: &dyn File, offset: u64, len: u64, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(HEADER_LEN)];
    let read = file.read_exact_at(&mut bytes, offset);
    read.map(|()| bytes).map_err(|e| Error::io("read the header of", path, e))
}

/// Returns the length of the file in bytes.
fn file_len(file: &dyn File, path: &Path) -> Result<u64> {
    file.len().map_err(|e| Error::io("read the header of", path, e))
}

/// The offset of the cipher.
const CIPHER_OFFSET: usize = 12;
/// Reserved for AES-256-GCM-SIV.
const CIPHER_AES_GCM_SIV: u8 = 3;
/// The offset of the compression, after that of the flags.
const COMPRESSION_OFFSET: usize = 14;
/// Reserved: lengths are padded.
const FLAG_PADDED: u8 = 1;
/// The action in the error if only the second header can be read.
const READ_ONLY_SECOND: &str = "read the header (if it is a bad sector, `repair_header` writes the \
                                file again under the second header) of";
const ONLY_SECOND: &str = "the header cannot be read, but the second one at the end of the file \
                           is intact: `repair_header` writes the file again under that";
/// The end of the version field.
const VERSION_END: usize = 10;
