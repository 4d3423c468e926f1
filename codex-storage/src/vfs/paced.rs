//! Fills a long file without making the other syncs of the file system wait.

use std::fmt;
use std::io;

use super::File;
use crate::sync::thread;

/// Writes to a file beside threads that are waited for: syncs it every 512 KiB, and lets whoever
/// waits for a processor go first.
///
/// Bytes that are not synced gather in memory, and the sync that a file needs in the end writes
/// them all: every other sync of the file system waits behind it, such as those of a log beside
/// which an image or a backup is written. The last bytes are for the caller to sync.
pub struct Paced<'a> {
    file: &'a dyn File,
    sync_every_bytes: u64,
    unsynced: u64,
}

impl<'a> Paced<'a> {
    /// Writes to `file`.
    pub fn new(file: &'a dyn File) -> Self {
        Self { file, sync_every_bytes: SYNC_EVERY_BYTES, unsynced: 0 }
    }

    /// Writes to `file` without syncing: nobody is to be spared.
    pub fn hurried(file: &'a dyn File) -> Self {
        Self { sync_every_bytes: u64::MAX, ..Self::new(file) }
    }

    /// As [`File::write_all_at`].
    ///
    /// # Errors
    /// Of the write, or of the sync of what was written before.
    pub fn write_all_at(&mut self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(buf, offset)?;
        self.unsynced = self.unsynced.saturating_add(u64::try_from(buf.len()).unwrap_or(u64::MAX));
        if self.unsynced >= self.sync_every_bytes && !cfg!(codex_mutant = "unpaced") {
            self.unsynced = 0;
            self.file.sync()?;
        }
        if self.sync_every_bytes < u64::MAX {
            thread::yield_now();
        }
        Ok(())
    }
}

impl fmt::Debug for Paced<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Paced").field("unsynced", &self.unsynced).finish_non_exhaustive()
    }
}

/// Bytes written between two syncs: of most disks about what they write in the time that a sync of
/// nothing takes them, so that who waits behind it waits about twice as long as otherwise.
const SYNC_EVERY_BYTES: u64 = 512 << 10;

#[cfg(all(test, feature = "fault"))]
mod tests {
    use super::super::fault::FaultDir;
    use super::super::{CallKind, Mode, Open};
    use super::*;

    #[test]
    fn a_long_file_is_synced_every_512_kibibytes_unless_it_is_hurried() {
        for (hurried, syncs) in [(false, vec![8, 17]), (true, vec![])] {
            let disk = FaultDir::new();
            let vfs = disk.vfs(1);
            let file = vfs.dir.open("a", Open::CreateNew(Mode::Private)).unwrap();
            disk.record_trace(true);
            let mut paced = if hurried { Paced::hurried(&*file) } else { Paced::new(&*file) };
            let chunk = vec![7; 64 << 10];
            for at in 0..20 {
                paced.write_all_at(&chunk, at * 65_536).unwrap();
            }
            let written: Vec<_> = disk.trace().iter().map(|call| call.kind).collect();
            let mut expected = vec![CallKind::Write; 20 + syncs.len()];
            for at in syncs {
                expected[at] = CallKind::Sync;
            }
            assert_eq!(written, expected);
            assert_eq!(file.len().unwrap(), 20 << 16);
        }
    }
}
