//! A header as it is read: checked in the order of the format, then authenticated.

use std::path::Path;
use std::sync::Arc;

use super::{
    CRC_OFFSET, FileKind, HEADER_LEN, Header, NAMED_FIELD, SIGNATURE, STATE_FIELD, TAG_OFFSET,
    VERSION, covered, masked, parse_fields, seal_error, stray_input,
};
use crate::batch::Seq;
use crate::codec::{Fields, u64_of};
use crate::error::{Error, Result};
use crate::seal::{ENVELOPE_LEN, HEADER_TAG_LEN, Keys, Seal};
use crate::vfs::File;

/// A header as it was read, not yet authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// The base digest of an encrypted store is masked in it.
    pub(crate) header: Header,
    bytes: Vec<u8>,
}

impl Found {
    /// Reads the header at the start of `file`.
    ///
    /// # Errors
    /// `EmptyFile`, `NotADatabase`, `NewerVersion`, `Damaged`, in this order.
    pub(crate) fn read(file: &dyn File, path: &Path) -> Result<Self> {
        Self::parse(&read_slot(file, path)?, path)
    }

    /// The bytes of this image's header without the link to its log; the tag does not cover that.
    pub(crate) fn without_link(&self) -> Vec<u8> {
        with_checksum(covered(&self.header, &self.bytes))
    }

    /// The bytes of this ledger's header for a copy that ends with commit `seq` and has no name
    /// yet; the tag does not cover that number.
    pub(crate) fn for_copy_upto(&self, seq: Seq) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        if let Some(field) = bytes.get_mut(NAMED_FIELD) {
            field.copy_from_slice(&seq.to_le_bytes());
        }
        with_checksum(bytes)
    }

    /// Tells the states of one image from those of others with the same last commit, without the
    /// key: the history digest, or the tag that stands for it in an encrypted store.
    pub(crate) fn state(&self) -> &[u8] {
        match (self.header.kind, self.header.cipher) {
            (FileKind::Image, 1..) => self.bytes.get(STATE_FIELD).unwrap_or_default(),
            _ => &self.header.base_digest,
        }
    }

    /// Checks the bytes of a header.
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
        if bytes.len() >= SIGNATURE.len() + 2 && version > VERSION {
            let path = path.to_owned();
            return Err(Error::NewerVersion { path, found: version, supported: VERSION });
        }
        let whole = bytes.split_last_chunk::<4>().filter(|_| bytes.len() == HEADER_LEN);
        let (covered, crc) = whole.ok_or(damaged("the file ends within its header"))?;
        if crc32c::crc32c(covered) != u32::from_le_bytes(*crc) {
            return Err(damaged("the header's checksum does not match"));
        }
        if version != VERSION {
            return Err(damaged("the header has version 0"));
        }
        let header = parse_fields(&mut fields).map_err(damaged)?;
        Ok(Self { header, bytes: bytes.to_vec() })
    }

    /// Opens the envelope in this header with the key that the user brought, and authenticates
    /// the header; `None` for a plain store.
    ///
    /// # Errors
    /// `KeyRequired`, `NotEncrypted`, `WrongKey`, `Tampered`, `Seal`.
    pub(crate) fn unlock(
        self,
        keys: Option<&dyn Keys>,
        path: &Path,
    ) -> Result<(Header, Option<Arc<dyn Seal>>)> {
        let keys = match (self.header.cipher, keys) {
            (0, None) => {
                return Ok((self.authenticate(None, path)?, None));
            }
            #[cfg(codex_mutant = "plain_accepted")]
            (0, Some(_)) => return Ok((self.header, None)),
            (0, Some(_)) => return Err(Error::NotEncrypted { path: path.to_owned() }),
            (_, None) => return Err(Error::KeyRequired { path: path.to_owned() }),
            (_, Some(keys)) => keys,
        };
        let none = [0; ENVELOPE_LEN];
        let envelope = self.header.envelope.as_deref().unwrap_or(&none);
        let seal =
            keys.unlock(&self.header.store_id, envelope).map_err(|e| seal_error(path, 0, e))?;
        Ok((self.authenticate(Some(&*seal), path)?, Some(seal)))
    }

    /// Whether a rekey of the store whose root key is `seal` has made this segment, under a root
    /// key that it did not put in place.
    pub(crate) fn is_stray_of(&self, seal: &dyn Seal) -> bool {
        self.header.root_id != seal.root_id()
            && (cfg!(codex_mutant = "stray_unproven")
                || seal.verify_header(&stray_input(&self.bytes), &self.header.stray_proof).is_ok())
    }

    /// Checks the header's tag under the store's `seal` (`None`: a plain store), and returns the
    /// header with its true base digest.
    ///
    /// # Errors
    /// `Tampered` for a tag or a root key that does not match, and for a plain file in an
    /// encrypted store or the other way round.
    pub(crate) fn authenticate(self, seal: Option<&dyn Seal>, path: &Path) -> Result<Header> {
        let tampered = || Error::Tampered { path: path.to_owned(), offset: 0 };
        let mut tail = Fields::new(self.bytes.get(TAG_OFFSET..).unwrap_or_default());
        let tag = tail.array::<HEADER_TAG_LEN>();
        let Some(seal) = seal else {
            let plain = self.header.cipher == 0 && tag == [0; HEADER_TAG_LEN];
            return if plain { Ok(self.header) } else { Err(tampered()) };
        };
        if self.header.cipher != seal.cipher_id() || self.header.root_id != seal.root_id() {
            return Err(tampered());
        }
        if !cfg!(codex_mutant = "header_unverified") {
            let covered = covered(&self.header, self.bytes.get(..TAG_OFFSET).unwrap_or_default());
            seal.verify_header(&covered, &tag).map_err(|e| seal_error(path, 0, e))?;
        }
        let mut header = self.header;
        header.base_digest = masked(&header.base_digest, Some(seal), &header.file_id);
        Ok(header)
    }
}

fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(CRC_OFFSET);
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

/// The bytes of the header, fewer where the file ends before.
fn read_slot(file: &dyn File, path: &Path) -> Result<Vec<u8>> {
    let read = || {
        let left = file.len()?.min(u64_of(HEADER_LEN));
        let mut bytes = vec![0; usize::try_from(left).unwrap_or(HEADER_LEN)];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    };
    read().map_err(|e| Error::io("read the header of", path, e))
}
