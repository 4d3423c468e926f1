//! Fills a long file without making the other syncs of the file system wait.

use std::fmt;
use std::io;

use super::File;

/// Writes to a file, and syncs it every 8 MiB.
///
/// Bytes that are not synced gather in memory, and the sync that a file needs in the end writes
/// them all: every other sync of the file system waits behind it, such as those of a log beside
/// which an image or a backup is written. The last bytes are for the caller to sync.
pub struct Paced<'a> {
    file: &'a dyn File,
    unsynced: u64,
}

impl<'a> Paced<'a> {
    /// Writes to `file`.
    pub fn new(file: &'a dyn File) -> Self {
        Self { file, unsynced: 0 }
    }

    /// As [`File::write_all_at`].
    ///
    /// # Errors
    /// Of the write, or of the sync of what was written before.
    pub fn write_all_at(&mut self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(buf, offset)?;
        self.unsynced = self.unsynced.saturating_add(u64::try_from(buf.len()).unwrap_or(u64::MAX));
        if self.unsynced >= SYNC_EVERY_BYTES && !cfg!(codex_mutant = "unpaced") {
            self.unsynced = 0;
            self.file.sync()?;
        }
        Ok(())
    }
}

impl fmt::Debug for Paced<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Paced").field("unsynced", &self.unsynced).finish_non_exhaustive()
    }
}

/// Bytes written between two syncs: some 10 to 50 ms of a disk.
const SYNC_EVERY_BYTES: u64 = 8 << 20;

#[cfg(all(test, feature = "fault"))]
mod tests {
    use super::super::fault::FaultDir;
    use super::super::{CallKind, Mode, Open};
    use super::*;

    #[test]
    fn a_long_file_is_synced_every_eight_mebibytes_and_a_short_one_never() {
        let disk = FaultDir::new();
        let vfs = disk.vfs(1);
        let file = vfs.dir.open("a", Open::CreateNew(Mode::Private)).unwrap();
        disk.record_trace(true);
        let mut paced = Paced::new(&*file);
        let chunk = vec![7; 1 << 20];
        for at in 0..20 {
            paced.write_all_at(&chunk, at << 20).unwrap();
        }
        let written: Vec<_> = disk.trace().iter().map(|call| call.kind).collect();
        let mut expected = vec![CallKind::Write; 22];
        expected[8] = CallKind::Sync;
        expected[17] = CallKind::Sync;
        assert_eq!(written, expected);
        assert_eq!(file.len().unwrap(), 20 << 20);
    }
}
