//! The source of a copy of the store: its open main file, or the state in memory.

use std::sync::Arc;

use codex_storage::seal::Seal;
use codex_storage::storage::Form;
use codex_storage::sync::atomic::Ordering;
use codex_storage::vfs::Vfs;
use codex_storage::{FileFacts, MainFile, Result, SeparateImage};

use super::Engine;
use super::commit::Disk;
use super::queue::Admission;
use crate::locks::PersistGuard;
use crate::map::{Image, Map};

/// The source of a copy of the store, and the root key that the copy is under.
pub(crate) struct CopySource {
    pub(crate) bytes: CopyBytes,
    pub(crate) seal: Option<Arc<dyn Seal>>,
}

impl CopySource {
    /// Returns the facts of the copy, except its length if the bytes are not written yet.
    ///
    /// # Errors
    /// As [`MainFile::facts`].
    pub(crate) fn facts(&self) -> Result<FileFacts> {
        match &self.bytes {
            CopyBytes::Main(main) => main.facts(&mut |_| true),
            CopyBytes::Memory { image, .. } => image.facts(),
        }
    }
}

/// The bytes of a copy of the store.
pub(crate) enum CopyBytes {
    /// Those of the open main file. It is the source even if another file takes its name.
    Main(MainFile),
    /// Those of an image of the state in memory, which is not written yet.
    Memory {
        image: SeparateImage,
        state: Image,
        /// The approximate length of the image.
        size: u64,
    },
}

impl Engine {
    /// Returns the source of a copy that has all earlier commits, for the name `name` in the
    /// directory of `to`. Of a Wal whose image does not have all commits, the source is the state
    /// in memory: a new image would be one pass more over all entries.
    ///
    /// Returns `None` if the state in memory is not durable, because the log has lost its name. A
    /// [`flush`](Self::flush) then writes an image.
    ///
    /// # Errors
    /// As [`Storage::main_file`](codex_storage::storage::Storage::main_file); the errors of a sync.
    pub(crate) fn copy_source(&self, to: &Vfs, name: &str) -> Result<Option<CopySource>> {
        let (source, point, seq) = self.exclusive(Admission::WhileOpen, |disk| {
            let is_wal = disk.storage().form() == Form::Wal;
            // Order: before the main file is opened, because this notices that its name is lost.
            let point = if is_wal { disk.storage().sync_point()? } else { None };
            let (main, seal) = (disk.storage().main_file()?, disk.storage().seal());
            let seq = disk.storage().stats().seq;
            if !is_wal || main.image_seq() == Some(seq) {
                return Ok((CopySource { bytes: CopyBytes::Main(main), seal }, point, 0));
            }
            Ok((memory_of(disk, to, name)?, point, seq))
        })?;
        // Order: synced before the copy can have its name. After a crash, another commit could have
        // the number of one that was not durable, and the copy would be of another history.
        self.finish_sync(point)?;
        Ok((self.stats().storage.durable >= seq).then_some(source))
    }

    /// Returns the state in memory as the source of a copy, even if the store is poisoned or its
    /// own directory is gone.
    ///
    /// # Errors
    /// `Closed`; `BadPath` if no store may have the name.
    pub(crate) fn memory_source(&self, to: &Vfs, name: &str) -> Result<CopySource> {
        let mut disk = self.locks.persist();
        if disk.storage.is_none() {
            return Err(self.closed());
        }
        memory_of(&mut disk, to, name)
    }

    /// Returns whether the store closes, so that a copy is given up.
    pub(crate) fn is_closing(&self) -> bool {
        self.abandon.load(Ordering::Relaxed)
    }
}

/// Returns the state in memory as the source of a copy. The store must be open.
fn memory_of(disk: &mut PersistGuard<'_, Disk>, to: &Vfs, name: &str) -> Result<CopySource> {
    let storage = disk.storage.as_mut().expect("the caller has checked that the store is open");
    let (stats, seal) = (storage.stats(), storage.seal());
    // Order: read the state while the disk is locked. It contains exactly the commits that the
    // header of the image counts (promise 3).
    let (image, state) = (storage.image_elsewhere(to, name)?, Image(disk.read(Map::ordered)));
    let size = stats.image_bytes.saturating_add(stats.log_bytes);
    Ok(CopySource { bytes: CopyBytes::Memory { image, state, size }, seal })
}
