//! The header of every file: who it is, what precedes it, and the envelope of its root key.
//!
//! The layout and the order of the checks are `docs/FORMAT.md`, section "Header".

mod found;
mod key;
mod keyed;

use std::fmt;
use std::ops::Range;
use std::path::Path;

pub(crate) use found::Found;
use keyed::{STATE_TAG_LEN, masked};

use crate::batch::Seq;
use crate::codec::{Fields, is_zero};
use crate::error::{Error, Result};
use crate::seal::{ENVELOPE_LEN, Envelope, HEADER_TAG_LEN, Seal, SealError, TAG_LEN};
use crate::storage::Form;
use crate::vfs::Vfs;

/// The fields of a header.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: FileKind,
    pub(crate) form: Form,
    /// 0 in a plain store.
    pub(crate) cipher: u8,
    pub(crate) store_id: [u8; 16],
    pub(crate) file_id: [u8; 16],
    pub(crate) generation: u64,
    pub(crate) base_seq: Seq,
    pub(crate) created_us: i64,
    /// 0 in a ledger.
    pub(crate) next_generation: u64,
    /// Of a ledger: the last commit that was in the file when it got its name. Stands where other
    /// kinds have the next generation.
    pub(crate) named_seq: Seq,
    /// Counts how often the header was written again.
    pub(crate) slot_counter: u64,
    pub(crate) base_chain: u64,
    /// In an encrypted store it stands masked in the file: see [`Found::authenticate`].
    pub(crate) base_digest: [u8; 32],
    pub(crate) neighbour: [u8; 16],
    /// Zero in a plain store, like all that follows.
    pub(crate) root_id: [u8; 16],
    pub(crate) image_salt: [u8; 32],
    pub(crate) base_tag: [u8; TAG_LEN],
    /// Of a ledger: the first commit after which it can show the state that the store had.
    pub(crate) oldest_seq: Seq,
    /// `None` in segments too.
    pub(crate) envelope: Option<Envelope>,
    /// Of a segment that a rekey has made: shows those who have the root key before that a rekey
    /// made it. Else zero.
    pub(crate) stray_proof: [u8; HEADER_TAG_LEN],
}

/// What follows a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// Blocks of entries in key order.
    Image,
    /// Frames.
    Log,
}

impl Header {
    /// The header of the first file of a new plain store: random ids and a random base digest,
    /// created now, slot counter 1, everything else 0.
    pub(crate) fn new(vfs: &Vfs, path: &Path, kind: FileKind, form: Form) -> Result<Self> {
        let mut base_digest = [0; 32];
        let (store_id, file_id) = (fresh_id(vfs, path)?, fresh_id(vfs, path)?);
        fill(vfs, path, &mut base_digest)?;
        Ok(Self {
            kind,
            form,
            cipher: 0,
            store_id,
            file_id,
            generation: 0,
            base_seq: 0,
            created_us: vfs.clock.now_us(),
            next_generation: 0,
            named_seq: 0,
            slot_counter: 1,
            base_chain: 0,
            base_digest,
            neighbour: [0; 16],
            root_id: [0; 16],
            image_salt: [0; 32],
            base_tag: [0; TAG_LEN],
            oldest_seq: 0,
            envelope: None,
            stray_proof: [0; HEADER_TAG_LEN],
        })
    }

    /// The bytes of the header, with the tag of `seal` where the store is encrypted.
    ///
    /// # Panics
    /// If the fields do not add up to the length of a header.
    pub(crate) fn encode(&self, seal: Option<&dyn Seal>) -> [u8; HEADER_LEN] {
        let mut out = Vec::with_capacity(HEADER_LEN);
        out.extend_from_slice(&SIGNATURE);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[kind_number(self.kind), form_number(self.form), self.cipher]);
        // The flags, and two bytes that are zero.
        out.extend_from_slice(&[0; 3]);
        out.extend_from_slice(&self.store_id);
        out.extend_from_slice(&self.file_id);
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.base_seq.to_le_bytes());
        out.extend_from_slice(&self.created_us.to_le_bytes());
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
        if let Some(envelope) = &self.envelope {
            out.extend_from_slice(envelope.as_slice());
        } else {
            out.extend_from_slice(&self.stray_proof);
            out.resize(TAG_OFFSET, 0);
        }
        let tag = seal.map_or([0; HEADER_TAG_LEN], |seal| seal.header_tag(&covered(self, &out)));
        out.extend_from_slice(&tag);
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out.try_into().expect("the fields of a header add up to its length")
    }

    /// Whether this is the header of a segment.
    fn is_segment(&self) -> bool {
        self.kind == FileKind::Log && self.form == Form::Wal
    }

    /// Whether this is the header of a ledger.
    pub(crate) fn is_ledger(&self) -> bool {
        self.kind == FileKind::Log && self.form == Form::Ledger
    }

    /// The first number that is larger than any that is counted to.
    fn excess(&self) -> Option<&'static str> {
        let numbers = [
            self.generation,
            self.base_seq,
            self.next_generation,
            self.named_seq,
            self.oldest_seq,
            self.slot_counter,
        ];
        let what = "a number in the header is larger than any that is counted to";
        numbers.iter().any(|&number| number > NUMBER_MAX).then_some(what)
    }

    /// What is wrong with the small fields, if anything.
    fn contradiction(&self) -> Option<&'static str> {
        let segment = self.is_segment();
        let continued = self.next_generation != 0;
        let known = matches!(
            (self.kind, self.form),
            (FileKind::Image, Form::Wal | Form::Snapshot)
                | (FileKind::Log, Form::Wal | Form::Ledger)
        );
        if !known {
            return Some("the header's kind and form do not go together");
        }
        if self.slot_counter == 0 || self.kind == FileKind::Log && self.generation == 0 {
            return Some("a number in the header that begins at 1 is 0");
        }
        let is_ordered = self.base_seq <= self.oldest_seq && self.oldest_seq <= self.named_seq;
        if self.is_ledger() && !is_ordered || !self.is_ledger() && self.oldest_seq != 0 {
            return Some("the commits that the header names are not in their order");
        }
        if continued && (self.form != Form::Wal || segment) {
            return Some("the header names a next generation, which only an image of a wal has");
        }
        if self.neighbour != [0; 16] && !continued && !segment {
            return Some("the header names a neighbour that it can not have");
        }
        if self.kind == FileKind::Image && !continued && self.base_chain != 0 {
            return Some("the header of a whole image names a chain value");
        }
        if self.kind == FileKind::Log && self.image_salt != [0; 32]
            || self.kind == FileKind::Image && self.base_tag != [0; TAG_LEN]
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

/// The bytes that the header's tag covers: all that precedes it, with zeros for the fields that a
/// copy changes without the key. In an image that is the link to the log that continues it; the
/// segment at its other end is authenticated by a tag of its own. In a ledger it is the commit
/// that was the last when the file got its name.
#[expect(clippy::indexing_slicing, reason = "the bytes are those of a header up to its tag")]
fn covered(header: &Header, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let ranges: &[Range<usize>] = match header.kind {
        FileKind::Image => &LINK_FIELDS,
        FileKind::Log if header.is_ledger() => &[NAMED_FIELD],
        FileKind::Log => &[],
    };
    for range in ranges {
        bytes[range.clone()].fill(0);
    }
    bytes
}

/// The generation or the slot counter after this one.
///
/// # Errors
/// `Damaged` if there is none: nobody counts that far.
pub(crate) fn following(number: u64, path: &Path) -> Result<u64> {
    let what = "a number in the header is the last that there can be";
    let damaged = || Error::Damaged { path: path.to_owned(), offset: 0, what };
    if number < NUMBER_MAX { Ok(number + 1) } else { Err(damaged()) }
}

/// A fresh id of a store or a file.
pub(crate) fn fresh_id(vfs: &Vfs, path: &Path) -> Result<[u8; 16]> {
    let mut id = [0; 16];
    fill(vfs, path, &mut id)?;
    Ok(id)
}

/// Random bytes for the file at `path`.
pub(crate) fn fill(vfs: &Vfs, path: &Path, buf: &mut [u8]) -> Result<()> {
    vfs.entropy.fill(buf).map_err(|e| Error::io("draw random bytes for", path, e))
}

/// What a refusal of the seal means for the bytes at `offset`.
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

/// The fields behind the version.
fn parse_fields(fields: &mut Fields<'_>) -> Result<Header, &'static str> {
    let [kind, form, cipher] = fields.array();
    let kind = match kind {
        1 => FileKind::Image,
        2 => FileKind::Log,
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
    let mut zero = fields.array::<3>() == [0; 3];
    let mut header = Header {
        kind,
        form,
        cipher,
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
    if header.is_ledger() {
        header.named_seq = std::mem::take(&mut header.next_generation);
    }
    let is_tagged = cipher != 0 && kind == FileKind::Image;
    zero &= fields.array() == [0; STATE_TAG_LEN] || is_tagged;
    let envelope = fields.array::<ENVELOPE_LEN>();
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

fn kind_number(kind: FileKind) -> u8 {
    match kind {
        FileKind::Image => 1,
        FileKind::Log => 2,
    }
}

fn form_number(form: Form) -> u8 {
    match form {
        Form::Wal => 1,
        Form::Snapshot => 2,
        Form::Ledger => 3,
    }
}

/// Next generation, base chain and neighbour.
const LINK_FIELDS: [Range<usize>; 3] = [72..80, 88..96, 128..144];
/// The named seq of a ledger.
const NAMED_FIELD: Range<usize> = 72..80;
/// One sector.
pub(crate) const HEADER_LEN: usize = 512;
/// Where frames or blocks begin.
pub(crate) const BODY_OFFSET: u64 = 512;
/// The largest commit number, generation or counter. Nobody counts that far, and a sum of two such
/// numbers does not overflow.
pub(crate) const NUMBER_MAX: u64 = 1 << 62;
/// The newest version that this build reads, and the one that it writes.
pub(crate) const VERSION: u16 = 1;
/// As of PNG: the first byte is no ASCII, and a transfer that changes line ends destroys it.
pub(crate) const SIGNATURE: [u8; 8] = *b"\x89CDXDB\r\n";
const TAG_OFFSET: usize = 480;
/// Where its checksum stands.
const CRC_OFFSET: usize = 508;
const CIPHER_MAX: u8 = 2;

#[cfg(test)]
mod tests;
