//! The header of every file: its identity, its predecessor, and the envelope of its root key.
//!
//! The layout and the order of the checks are in `docs/FORMAT.md`, section "Header".

mod found;
mod fresh;
mod key;
mod keyed;

use std::fmt;
use std::ops::Range;
use std::path::Path;

pub(crate) use found::Found;
pub(crate) use fresh::{fill, fresh_id};
use keyed::{STATE_TAG_LEN, masked};

use crate::batch::Seq;
use crate::codec::{Fields, is_zero};
use crate::error::{Error, Result};
use crate::pack::Compression;
use crate::seal::{ENVELOPE_LEN, Envelope, HEADER_TAG_LEN, Seal, SealError, TAG_LEN};
use crate::storage::Form;

/// The fields of a header.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: FileKind,
    pub(crate) form: Form,
    /// Zero in a plain store.
    pub(crate) cipher: u8,
    /// The compression of the frames or blocks after this header.
    pub(crate) compression: Compression,
    pub(crate) store_id: [u8; 16],
    pub(crate) file_id: [u8; 16],
    pub(crate) generation: u64,
    pub(crate) base_seq: Seq,
    pub(crate) created_us: i64,
    /// Zero in a ledger.
    pub(crate) next_generation: u64,
    /// The last commit in a ledger when it got its name. The field is at the offset where other
    /// kinds have the next generation.
    pub(crate) named_seq: Seq,
    /// The number of times that the header was written.
    pub(crate) slot_counter: u64,
    pub(crate) base_chain: u64,
    /// In the file of an encrypted store this value is masked: see [`Found::authenticate`].
    pub(crate) base_digest: [u8; 32],
    pub(crate) neighbour: [u8; 16],
    /// Zero in a plain store, like all fields after it.
    pub(crate) root_id: [u8; 16],
    pub(crate) image_salt: [u8; 32],
    pub(crate) base_tag: [u8; TAG_LEN],
    /// The first commit of a ledger after which it can show a state of the store.
    pub(crate) oldest_seq: Seq,
    /// `None` also in segments.
    pub(crate) envelope: Option<Envelope>,
    /// The proof, under the former root key, that a rekey has made this segment. Zero in other
    /// files.
    pub(crate) stray_proof: [u8; HEADER_TAG_LEN],
}

/// The contents after a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// An image: blocks of entries in key order.
    Image,
    /// A log: frames.
    Log,
    /// Nothing: the header is the record `meta` of a shared log, and not that of a file.
    Meta,
}

impl Header {
    /// Returns the bytes of the header, with the tag of `seal` if the store is encrypted.
    ///
    /// # Panics
    /// If the fields do not have the length of a header in total.
    pub(crate) fn encode(&self, seal: Option<&dyn Seal>) -> [u8; HEADER_LEN] {
        let mut out = Vec::with_capacity(HEADER_LEN);
        out.extend_from_slice(&SIGNATURE);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[kind_number(self.kind), form_number(self.form), self.cipher]);
        // The flags, the compression, and a reserved byte that is zero.
        out.extend_from_slice(&[0, self.compression.number(), 0]);
        out.extend_from_slice(&self.store_id);
        out.extend_from_slice(&self.file_id);
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.base_seq.to_le_bytes());
        out.extend_from_slice(&self.created_us.to_le_bytes());
        // A ledger and the other kinds use the same eight bytes for different numbers.
        let shared = if self.is_ledger() { self.named_seq } else { self.next_generation };
        out.extend_from_slice(&shared.to_le_bytes());
        out.extend_from_slice(&self.slot_counter.to_le_bytes());
        out.extend_from_slice(&self.base_chain.to_le_bytes());
        out.extend_from_slice(&masked(&self.base_digest, seal, &self.file_id));
        out.extend_from_slice(&self.neighbour);
        out.extend_from_slice(&self.root_id);
        out.extend_from_slice(&self.image_salt);
        out.extend_from_slice(&self.base_tag);
        out.extend_from_slice(&self.oldest_seq.to_le_bytes());
        out.extend_from_slice(&self.state_tag(seal));
        // Segments have no envelope. The space has the proof of a rekey instead.
        if let Some(envelope) = &self.envelope {
            out.extend_from_slice(envelope.as_slice());
        } else {
            out.extend_from_slice(&self.stray_proof);
            out.resize(TAG_OFFSET, 0);
        }
        // Order: the tag covers all fields before it, and the checksum covers the tag too.
        let tag = seal.map_or([0; HEADER_TAG_LEN], |seal| seal.header_tag(&covered(self, &out)));
        out.extend_from_slice(&tag);
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out.try_into().expect("the fields of a header add up to its length")
    }

    /// Returns whether this is the header of a segment.
    fn is_segment(&self) -> bool {
        self.kind == FileKind::Log && self.form == Form::Wal
    }

    /// Returns whether this is the header of a ledger.
    pub(crate) fn is_ledger(&self) -> bool {
        self.kind == FileKind::Log && self.form == Form::Ledger
    }

    /// Returns an error text if a number is larger than [`NUMBER_MAX`].
    fn excess(&self) -> Option<&'static str> {
        let numbers = [
            self.generation,
            self.base_seq,
            self.next_generation,
            self.named_seq,
            self.oldest_seq,
            self.slot_counter,
        ];
        let what = "a number in the header is larger than the format allows";
        numbers.iter().any(|&number| number > NUMBER_MAX).then_some(what)
    }

    /// Returns an error text if the fields contradict each other.
    fn contradiction(&self) -> Option<&'static str> {
        // Each check covers fields that a given kind or form must not have. A header that passes
        // has only fields of its own kind.
        let segment = self.is_segment();
        let continued = self.next_generation != 0;
        let known = matches!(
            (self.kind, self.form),
            (FileKind::Image, Form::Wal | Form::Snapshot)
                | (FileKind::Log, Form::Wal | Form::Ledger)
                | (FileKind::Meta, Form::Wal)
        );
        if !known {
            return Some("the header's kind and form contradict each other");
        }
        if self.slot_counter == 0 || self.kind == FileKind::Log && self.generation == 0 {
            return Some("a number in the header that begins at 1 is 0");
        }
        let is_ordered = self.base_seq <= self.oldest_seq && self.oldest_seq <= self.named_seq;
        if self.is_ledger() && !is_ordered || !self.is_ledger() && self.oldest_seq != 0 {
            return Some("the commits that the header names are not in their order");
        }
        if continued && (self.kind, self.form) != (FileKind::Image, Form::Wal) {
            return Some("the header names a next generation, which only an image of a wal has");
        }
        if self.neighbour != [0; 16] && !continued && !segment {
            return Some("the header names a neighbour that it cannot have");
        }
        if self.kind != FileKind::Log && !continued && self.base_chain != 0 {
            return Some("the header of a whole image names a chain value");
        }
        if self.kind != FileKind::Image && self.image_salt != [0; 32]
            || self.kind != FileKind::Log && self.base_tag != [0; TAG_LEN]
            || self.kind == FileKind::Meta && (self.generation, self.base_seq) != (0, 0)
            || segment && self.envelope.is_some()
        {
            return Some("the header has a field that belongs to another kind of file");
        }
        let sealed = self.root_id != [0; 16]
            || self.image_salt != [0; 32]
            || self.base_tag != [0; TAG_LEN]
            || self.envelope.is_some()
            || self.stray_proof != [0; HEADER_TAG_LEN];
        if self.cipher == 0 && sealed {
            return Some("the header of a plain store has a field of an encrypted one");
        }
        None
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Header")
            .field("kind", &self.kind)
            .field("form", &self.form)
            .field("generation", &self.generation)
            .field("base_seq", &self.base_seq)
            .finish_non_exhaustive()
    }
}

/// Returns the bytes that the tag of the header covers: all bytes before it, with zeros for the
/// fields that a copy changes without the key. In an image these are the link to the log that
/// continues it, because that segment is authenticated by its own tag. In a ledger it is the last
/// commit when the file got its name.
#[expect(clippy::indexing_slicing, reason = "the bytes are those of a header up to its tag")]
fn covered(header: &Header, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let ranges: &[Range<usize>] = match header.kind {
        FileKind::Image => &LINK_FIELDS,
        _ if header.is_ledger() => &[NAMED_FIELD],
        FileKind::Log | FileKind::Meta => &[],
    };
    for range in ranges {
        bytes[range.clone()].fill(0);
    }
    bytes
}

/// Returns the generation or the slot counter after `number`.
///
/// # Errors
/// `Damaged` if `number` is the largest one. No store reaches it by counting.
pub(crate) fn following(number: u64, path: &Path) -> Result<u64> {
    let what = "a number in the header has reached its limit";
    let damaged = || Error::Damaged { path: path.to_owned(), offset: 0, what };
    if number < NUMBER_MAX { Ok(number + 1) } else { Err(damaged()) }
}

/// Returns the error for the bytes at `offset` that the seal has refused.
pub(crate) fn seal_error(path: &Path, offset: u64, source: SealError) -> Error {
    let path = path.to_owned();
    match source {
        SealError::WrongKey => Error::WrongKey { path },
        SealError::Tampered => Error::Tampered { path, offset },
        SealError::Envelope(_) | SealError::Refused(_) | SealError::TooManyEnvelopes { .. } => {
            Error::Seal { path, source }
        }
    }
}

/// Parses the fields after the version.
fn parse_fields(fields: &mut Fields<'_>) -> Result<Header, &'static str> {
    let [kind, form, cipher] = fields.array();
    let kind = match kind {
        1 => FileKind::Image,
        2 => FileKind::Log,
        3 => FileKind::Meta,
        _ => return Err("the header names an unknown kind of file"),
    };
    let form = match form {
        1 => Form::Wal,
        2 => Form::Snapshot,
        3 => Form::Ledger,
        _ => return Err("the header names an unknown form"),
    };
    if cipher > CIPHER_MAX {
        return Err("the header names an unknown cipher");
    }
    let [flags, compression, reserved] = fields.array();
    let mut zero = flags == 0 && reserved == 0;
    let Some(compression) = Compression::from_number(compression) else {
        return Err("the header names an unknown compression");
    };
    let mut header = Header {
        kind,
        form,
        cipher,
        compression,
        store_id: fields.array(),
        file_id: fields.array(),
        generation: fields.u64(),
        base_seq: fields.u64(),
        created_us: fields.i64(),
        next_generation: fields.u64(),
        named_seq: 0,
        slot_counter: fields.u64(),
        base_chain: fields.u64(),
        base_digest: fields.array(),
        neighbour: fields.array(),
        root_id: fields.array(),
        image_salt: fields.array(),
        base_tag: fields.array(),
        oldest_seq: fields.u64(),
        envelope: None,
        stray_proof: [0; HEADER_TAG_LEN],
    };
    // A ledger has another number in these bytes.
    if header.is_ledger() {
        header.named_seq = std::mem::take(&mut header.next_generation);
    }
    // Only an encrypted image has a state tag.
    let is_tagged = cipher != 0 && kind == FileKind::Image;
    zero &= fields.array() == [0; STATE_TAG_LEN] || is_tagged;
    let envelope = fields.array::<ENVELOPE_LEN>();
    // A segment has its proof in the first bytes of the envelope, and zeros after it.
    match envelope.split_first_chunk() {
        Some((proof, rest)) if header.is_segment() && is_zero(rest) => header.stray_proof = *proof,
        _ => header.envelope = (!is_zero(&envelope)).then(|| Box::new(envelope)),
    }
    let tag = fields.array::<HEADER_TAG_LEN>();
    if !zero || cipher == 0 && tag != [0; HEADER_TAG_LEN] {
        return Err("a field of the header that must be zero is not");
    }
    header.excess().or(header.contradiction()).map_or(Ok(header), Err)
}

/// Returns the number of a kind in the format.
fn kind_number(kind: FileKind) -> u8 {
    match kind {
        FileKind::Image => 1,
        FileKind::Log => 2,
        FileKind::Meta => 3,
    }
}

/// Returns the number of a form in the format.
fn form_number(form: Form) -> u8 {
    match form {
        Form::Wal => 1,
        Form::Snapshot => 2,
        Form::Ledger => 3,
    }
}

/// Next generation, base chain and neighbour of an image.
const LINK_FIELDS: [Range<usize>; 3] = [72..80, 88..96, 128..144];
/// The named seq of a ledger.
const NAMED_FIELD: Range<usize> = 72..80;
/// The length of a header in bytes: one sector.
pub(crate) const HEADER_LEN: usize = 512;
/// The offset of the first frame or block.
pub(crate) const BODY_OFFSET: u64 = 512;
/// The largest commit number, generation or counter. No store reaches it by counting, and the sum
/// of two such numbers does not overflow.
pub(crate) const NUMBER_MAX: u64 = 1 << 62;
/// The newest version that this build reads, and the version that it writes.
pub(crate) const VERSION: u16 = 1;
/// Like the signature of PNG: the first byte is not ASCII, and a transfer that converts line ends
/// destroys the others.
pub(crate) const SIGNATURE: [u8; 8] = *b"\x89CDXDB\r\n";
/// The offset of the tag.
const TAG_OFFSET: usize = 480;
/// The offset of the checksum.
const CRC_OFFSET: usize = 508;
/// The largest number of a cipher that this build knows.
const CIPHER_MAX: u8 = 2;

#[cfg(test)]
#[cfg(feature = "fault")]
mod tests;
