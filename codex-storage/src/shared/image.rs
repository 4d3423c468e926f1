//! The record `image` of a shared log: the newest image, from which a node begins.
//!
//! The layout is in `docs/FORMAT.md`, section "Shared log".

use super::{Mark, Meta, Position, SharedError};
use crate::batch::Seq;
use crate::codec::{Fields, u64_of};
use crate::error::{Error, Result};
use crate::header::seal_error;
use crate::seal::HEADER_TAG_LEN;

/// The newest image of a store on a shared log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRecord {
    /// The last commit in the image.
    pub seq: Seq,
    /// The position after which a node that begins with the image reads the log.
    pub after: Position,
    /// The same of the image before it. The log is kept from there on.
    pub kept_after: Position,
    /// The name of the image at its place.
    pub name: String,
    /// The [place](super::Follower::place) of the node that wrote the image.
    pub place: Vec<u8>,
}

impl ImageRecord {
    /// Returns what is greater for a later image.
    pub fn age(&self) -> (Seq, Position) {
        (self.seq, self.after)
    }

    /// Returns whether the place is one after the state `mark`.
    pub fn is_after(&self, mark: Mark) -> bool {
        let found = self.place.get(8..32);
        found == Some([mark.seq.to_le_bytes().as_slice(), &mark.digest].concat().as_slice())
    }

    /// Returns the bytes of the record, which are authenticated if the store is encrypted.
    pub fn encode(&self, meta: &Meta) -> Vec<u8> {
        let mut to = Vec::new();
        to.extend_from_slice(MAGIC);
        to.extend_from_slice(&VERSION.to_le_bytes());
        to.extend_from_slice(&[0; 2]);
        to.extend_from_slice(&self.seq.to_le_bytes());
        to.extend_from_slice(&self.after.0.to_le_bytes());
        to.extend_from_slice(&self.kept_after.0.to_le_bytes());
        for bytes in [self.name.as_bytes(), &self.place] {
            to.extend_from_slice(&u64_of(bytes.len()).to_le_bytes());
            to.extend_from_slice(bytes);
        }
        let crc = crc32c::crc32c(&to);
        to.extend_from_slice(&crc.to_le_bytes());
        if let Some(seal) = meta.seal() {
            let tag = seal.header_tag(&bound(meta, &to));
            to.extend_from_slice(&tag);
        }
        to
    }

    /// Reads the record of the store `meta`.
    ///
    /// # Errors
    /// `Unsupported` if it is of a newer version; `Damaged`; `Tampered` if the store is encrypted
    /// and the record was not made with its key.
    pub fn decode(bytes: &[u8], meta: &Meta) -> Result<Self> {
        let damaged = |what| Error::Damaged { path: PATH.into(), offset: 0, what };
        let mut bytes = bytes;
        if let Some(seal) = meta.seal() {
            let short = "the record of the image is shorter than its tag";
            let (signed, tag) =
                bytes.split_last_chunk::<HEADER_TAG_LEN>().ok_or_else(|| damaged(short))?;
            let verified = seal.verify_header(&bound(meta, signed), tag);
            verified.map_err(|error| seal_error(PATH.as_ref(), 0, error))?;
            bytes = signed;
        }
        let short = "the record of the image is too short";
        let (rest, crc) = bytes.split_last_chunk().ok_or_else(|| damaged(short))?;
        if u32::from_le_bytes(*crc) != crc32c::crc32c(rest) {
            return Err(damaged("the checksum of the record of the image is wrong"));
        }
        let (head, mut tail) =
            rest.split_first_chunk::<HEAD_LEN>().ok_or_else(|| damaged(short))?;
        let mut fields = Fields::new(head);
        if fields.array() != *MAGIC {
            return Err(damaged("the record does not begin with the signature of an image's"));
        }
        let version = fields.u16();
        if version != VERSION {
            let newer = "the record of its image is of a newer version";
            return Err(SharedError::Newer { what: newer }.into());
        }
        fields.u16();
        let (seq, after, kept_after) =
            (fields.u64(), Position(fields.u64()), Position(fields.u64()));
        let mut next = || {
            let (len, rest) = tail.split_first_chunk()?;
            let (bytes, rest) = rest.split_at_checked(u64::from_le_bytes(*len).try_into().ok()?)?;
            tail = rest;
            Some(bytes.to_vec())
        };
        let (name, place) = (next(), next());
        let name = name.and_then(|name| String::from_utf8(name).ok());
        let (name, place) = name.zip(place).ok_or_else(|| damaged(short))?;
        Ok(Self { seq, after, kept_after, name, place })
    }
}

/// Returns the bytes that the tag covers: the record of one store is none of another.
fn bound(meta: &Meta, record: &[u8]) -> Vec<u8> {
    [CONTEXT, meta.store_id().as_slice(), record].concat()
}

const MAGIC: &[u8; 4] = b"CDXI";
const VERSION: u16 = 1;
/// The length of the fields before the name.
const HEAD_LEN: usize = 32;
const CONTEXT: &[u8] = b"codexdb image record 1";
/// The record, in errors.
const PATH: &str = "the record `image` of the shared log";
