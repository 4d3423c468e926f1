//! Writing a long file without delaying the other syncs of the file system.

use std::fmt;
use std::io;
use std::time::Duration;

use super::{Clock, File};
use crate::sync::thread;

/// Writes to a file beside threads that must not wait for it. Syncs the file every 128 KiB, pauses
/// after each sync for twice as long as it took, and yields the processor.
///
/// Without these syncs, unsynced bytes would collect in memory until the final sync writes them
/// all. Every other sync of the file system, such as that of a log beside which an image or a
/// backup is written, would wait for it. The caller syncs the last bytes.
pub struct Paced<'a> {
    file: &'a dyn File,
    /// The clock of the pauses, or `None` if no other thread needs to be spared.
    clock: Option<&'a dyn Clock>,
    unsynced: u64,
}

impl<'a> Paced<'a> {
    /// Returns a writer to `file` with pauses by `clock`.
    pub fn new(file: &'a dyn File, clock: &'a dyn Clock) -> Self {
        Self { file, clock: Some(clock), unsynced: 0 }
    }

    /// Returns a writer to `file` without syncs and pauses.
    pub fn hurried(file: &'a dyn File) -> Self {
        Self { file, clock: None, unsynced: 0 }
    }

    /// Like [`File::write_all_at`].
    ///
    /// # Errors
    /// The error of the write, or of a sync of earlier bytes.
    pub fn write_all_at(&mut self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(buf, offset)?;
        let Some(clock) = self.clock else { return Ok(()) };
        self.unsynced = self.unsynced.saturating_add(u64::try_from(buf.len()).unwrap_or(u64::MAX));
        if self.unsynced >= SYNC_EVERY_BYTES {
            self.unsynced = 0;
            let from = clock.monotonic();
            self.file.sync()?;
            let took = clock.monotonic().saturating_sub(from);
            // Other threads have the disk for two thirds of the time.
            clock.sleep((2 * took).min(PAUSE_MAX));
        }
        thread::yield_now();
        Ok(())
    }
}

impl fmt::Debug for Paced<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Paced").field("unsynced", &self.unsynced).finish_non_exhaustive()
    }
}

/// The number of bytes between two syncs. Most disks write more than this during the time of an
/// empty sync, so a sync that waits for one of these takes about twice as long as otherwise.
const SYNC_EVERY_BYTES: u64 = 128 << 10;
/// The longest pause. If a disk hangs, the file is slow enough without longer ones.
const PAUSE_MAX: Duration = Duration::from_millis(50);

#[cfg(test)]
#[cfg(feature = "fault")]
mod tests {
    use super::super::fault::FaultDir;
    use super::super::{CallKind, Mode, Open};
    use super::*;
    use crate::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn a_long_file_is_synced_every_128_kibibytes_with_pauses_unless_it_is_hurried() {
        for (hurried, syncs) in [(false, (0..10).map(|n| 2 + 3 * n).collect()), (true, vec![])] {
            let disk = FaultDir::new();
            let vfs = disk.vfs(1);
            let file = vfs.dir.open("a", Open::CreateNew(Mode::Private)).unwrap();
            disk.record_trace(true);
            let clock = SlowClock::default();
            let mut paced =
                if hurried { Paced::hurried(&*file) } else { Paced::new(&*file, &clock) };
            let chunk = vec![7; 64 << 10];
            for at in 0..20 {
                paced.write_all_at(&chunk, at * 65_536).unwrap();
            }
            let written: Vec<_> = disk.trace().iter().map(|call| call.kind).collect();
            let mut expected = vec![CallKind::Write; 20 + syncs.len()];
            for &at in &syncs {
                expected[at] = CallKind::Sync;
            }
            assert_eq!(written, expected);
            assert_eq!(file.len().unwrap(), 20 << 16);
            let slept = clock.slept_ms.load(Ordering::SeqCst);
            assert_eq!(slept, 10 * syncs.len() as u64, "twice the 5 ms of each sync");
        }
    }

    /// A clock by which everything takes 5 ms.
    #[derive(Debug, Default)]
    struct SlowClock {
        looks: AtomicU64,
        slept_ms: AtomicU64,
    }

    impl Clock for SlowClock {
        fn now_us(&self) -> i64 {
            0
        }

        fn monotonic(&self) -> Duration {
            Duration::from_millis(5 * self.looks.fetch_add(1, Ordering::SeqCst))
        }

        fn sleep(&self, duration: Duration) {
            let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
            self.slept_ms.fetch_add(ms, Ordering::SeqCst);
        }
    }
}
