//! Headers of new stores, and the random ids of new files.

use std::path::Path;

use super::{FileKind, Header};
use crate::error::{Error, Result};
use crate::pack::Compression;
use crate::seal::{HEADER_TAG_LEN, TAG_LEN};
use crate::storage::Form;
use crate::vfs::{Entropy, Vfs};

impl Header {
    /// Returns the header of the first file of a new plain store. Ids and base digest are random,
    /// the slot counter is 1, and all other numbers are 0.
    pub(crate) fn new(vfs: &Vfs, path: &Path, kind: FileKind, form: Form) -> Result<Self> {
        Self::drawn(&*vfs.entropy, vfs.clock.now_us(), path, kind, form)
    }

    /// Does the same with this source of random bytes and this time of creation.
    pub(crate) fn drawn(
        entropy: &dyn Entropy,
        created_us: i64,
        path: &Path,
        kind: FileKind,
        form: Form,
    ) -> Result<Self> {
        let (mut store_id, mut file_id, mut base_digest) = ([0; 16], [0; 16], [0; 32]);
        for buf in [&mut store_id[..], &mut file_id, &mut base_digest] {
            fill(entropy, path, buf)?;
        }
        Ok(Self {
            kind,
            form,
            cipher: 0,
            compression: Compression::None,
            store_id,
            file_id,
            generation: 0,
            base_seq: 0,
            created_us,
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
}

/// Returns a random id for a store or a file.
pub(crate) fn fresh_id(vfs: &Vfs, path: &Path) -> Result<[u8; 16]> {
    let mut id = [0; 16];
    fill(&*vfs.entropy, path, &mut id).map(|()| id)
}

/// Fills `buf` with random bytes for the file at `path`.
pub(crate) fn fill(entropy: &dyn Entropy, path: &Path, buf: &mut [u8]) -> Result<()> {
    entropy.fill(buf).map_err(|e| Error::io("draw random bytes for", path, e))
}
