//! Images: the whole state in one file, entries in key order, every byte covered by a checksum.

mod format;
mod read;
mod write;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::batch::{Op, record_len};
use crate::codec::u64_of;
use crate::error::{Error, Result};
use crate::header::Header;
use crate::lock::StoreLock;
use crate::names::{Names, Temporary};
use crate::seal::{Seal, TAG_LEN};
use crate::storage::State;
use crate::vfs::{Open, Vfs};

use format::{BLOCK_HEAD_LEN, BLOCKS_START, FOOTER_LEN};
pub(crate) use read::ImageReader;
pub(crate) use write::ImageSpec;

/// Where the files of an open store are, and under which key.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) vfs: Vfs,
    pub(crate) names: Names,
    pub(crate) seal: Option<Arc<dyn Seal>>,
    /// Held as long as the store is open; a backup has none.
    pub(crate) lock: Option<StoreLock>,
}

impl Place {
    /// An image to write that will take the store's own name.
    pub(crate) fn image(&self, header: Header) -> ImageSpec {
        ImageSpec {
            vfs: self.vfs.clone(),
            temporary: self.names.temporary(Temporary::Image),
            header,
            seal: self.seal.clone(),
            beside_writers: false,
        }
    }

    /// The path of the store.
    pub(crate) fn path(&self) -> PathBuf {
        self.vfs.dir.path(self.names.main())
    }

    /// Whether a file with this header is sealed and there is no key to open it.
    pub(crate) fn is_blind(&self, header: &Header) -> bool {
        header.cipher != 0 && self.seal.is_none()
    }

    /// Whether the lock on the store is held.
    pub(crate) fn is_locked(&self) -> bool {
        self.lock.as_ref().is_some_and(StoreLock::is_held)
    }

    /// Gives a written image the store's own name and makes that durable. After an error either
    /// image may have the name, now and after a power cut: nothing may be written any more.
    pub(crate) fn install(&self, temporary: &str) -> io::Result<()> {
        self.vfs.dir.rename(temporary, self.names.main())?;
        if cfg!(codex_mutant = "rename_before_sync") {
            self.vfs.dir.open(self.names.main(), Open::Read)?.sync()?;
        }
        if cfg!(codex_mutant = "skip_dir_sync") {
            return Ok(());
        }
        self.vfs.dir.sync()
    }
}

/// The number of the file behind the one with this generation.
///
/// # Errors
/// `Damaged` where there is none: nobody counts up to 2^64.
pub(crate) fn following(generation: u64, path: &Path) -> Result<u64> {
    let what = "the generation is the last that there can be";
    let damaged = || Error::Damaged { path: path.to_owned(), offset: 0, what };
    generation.checked_add(1).ok_or_else(damaged)
}

/// Whether the image of `state` would have at most `len_max` bytes, or about that.
pub(crate) fn is_at_most(state: &dyn State, len_max: u64) -> bool {
    let mut len = BLOCKS_START + u64_of(FOOTER_LEN) + u64_of(BLOCK_HEAD_LEN + TAG_LEN);
    if state.len() > len_max {
        return false;
    }
    let counted = state.for_each(&mut |key, value| {
        len += u64_of(record_len(Op::Set { key, value }));
        if len <= len_max { Ok(()) } else { Err(Error::Contradiction("it is longer")) }
    });
    counted.is_ok() && len <= len_max
}
