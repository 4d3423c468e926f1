//! Writing a long file without delaying the other syncs of the file system.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{File, Vfs};
use crate::sync::thread;

/// Counts the writes for which commits wait. Clones share the count.
///
/// A log counts each of its writes. An image or a backup that is written at the same time is paced
/// while the count advances, and written at full speed while it does not.
#[derive(Debug, Clone, Default)]
pub struct WaitedFor(Arc<AtomicU64>);

impl WaitedFor {
    /// Counts a write that is about to be made.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of writes so far.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Writes to a file beside threads that must not wait for it. While commits are made, syncs the
/// file every 128 KiB, pauses after each sync for twice as long as it took, and yields the
/// processor. Otherwise syncs it every 1 MiB, without pauses.
///
/// Without these syncs, unsynced bytes would collect in memory until the final sync writes them
/// all. Every other sync of the file system, such as that of a log beside which an image or a
/// backup is written, would wait for it. The caller syncs the last bytes.
pub struct Paced<'a> {
    file: &'a dyn File,
    /// The environment of the commits, or `None` if no other thread needs to be spared.
    beside: Option<&'a Vfs>,
    /// The number of writes of commits at the last sync.
    seen: u64,
    unsynced: u64,
}

impl<'a> Paced<'a> {
    /// Returns a writer to `file`, which the commits to the store in `beside` pace.
    pub fn new(file: &'a dyn File, beside: &'a Vfs) -> Self {
        Self { file, beside: Some(beside), seen: beside.waited_for.count(), unsynced: 0 }
    }

    /// Returns a writer to `file` without syncs and pauses.
    pub fn hurried(file: &'a dyn File) -> Self {
        Self { file, beside: None, seen: 0, unsynced: 0 }
    }

    /// Like [`File::write_all_at`].
    ///
    /// # Errors
    /// The error of the write, or of a sync of earlier bytes.
    pub fn write_all_at(&mut self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(buf, offset)?;
        let Some(Vfs { clock, waited_for, .. }) = self.beside else { return Ok(()) };
        self.unsynced = self.unsynced.saturating_add(u64::try_from(buf.len()).unwrap_or(u64::MAX));
        let is_alone = waited_for.count() == self.seen;
        let limit = if is_alone { SYNC_EVERY_ALONE } else { SYNC_EVERY };
        if self.unsynced < limit {
            return Ok(());
        }
        self.unsynced = 0;
        self.seen = waited_for.count();
        let from = clock.monotonic();
        self.file.sync()?;
        let took = clock.monotonic().saturating_sub(from);
        if !is_alone {
            // Other threads have the disk for two thirds of the time.
            clock.sleep((2 * took).min(PAUSE_MAX));
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

/// The number of bytes between two syncs while commits are made. Most disks write more than this
/// during the time of an empty sync, so a sync that waits for one of these takes about twice as
/// long as otherwise.
const SYNC_EVERY: u64 = 128 << 10;
/// The number of bytes between two syncs while no commits are made. The first commit that is made
/// again may wait for them.
const SYNC_EVERY_ALONE: u64 = 1 << 20;
/// The longest pause. If a disk hangs, the file is slow enough without longer ones.
const PAUSE_MAX: Duration = Duration::from_millis(50);

#[cfg(test)]
#[cfg(feature = "fault")]
mod tests {
    use super::super::fault::FaultDir;
    use super::super::{CallKind, Clock, Mode, Open};
    use super::*;

    /// Writes 20 times 64 KiB, and returns the kinds of the calls to the disk and the sum of the
    /// pauses, in ms. `commit` is called before each write.
    fn write(hurried: bool, mut commit: impl FnMut(usize, &WaitedFor)) -> (Vec<CallKind>, u64) {
        let disk = FaultDir::new();
        let clock = Arc::new(SlowClock::default());
        let vfs = Vfs { clock: Arc::clone(&clock) as _, ..disk.vfs(1) };
        let file = vfs.dir.open("a", Open::CreateNew(Mode::Private)).unwrap();
        disk.record_trace(true);
        let mut paced = if hurried { Paced::hurried(&*file) } else { Paced::new(&*file, &vfs) };
        let chunk = vec![7; 64 << 10];
        for at in 0..20 {
            commit(at, &vfs.waited_for);
            paced.write_all_at(&chunk, at as u64 * 65_536).unwrap();
        }
        let calls = disk.trace().iter().map(|call| call.kind).collect();
        assert_eq!(file.len().unwrap(), 20 << 16);
        (calls, clock.slept_ms.load(Ordering::SeqCst))
    }

    /// Returns the calls of 20 writes with a sync after each of the writes `syncs`.
    fn calls(syncs: impl Iterator<Item = usize>) -> Vec<CallKind> {
        let mut calls = vec![CallKind::Write; 20];
        for (earlier, write) in syncs.enumerate() {
            calls.insert(write + earlier, CallKind::Sync);
        }
        calls
    }

    #[test]
    fn a_long_file_is_synced_every_128_kibibytes_with_pauses_while_commits_are_made() {
        let (made, slept) = write(false, |_, commits| commits.add());
        assert_eq!(
            (made, slept),
            (calls((2..=20).step_by(2)), 10 * 10),
            "twice the 5 ms of a sync"
        );
    }

    #[test]
    fn a_long_file_is_synced_every_mebibyte_without_pauses_while_no_commits_are_made() {
        assert_eq!(write(false, |_, _| {}), (calls([16].into_iter()), 0));
        assert_eq!(write(true, |_, commits| commits.add()), (calls([].into_iter()), 0));
    }

    #[test]
    fn a_commit_ends_the_full_speed_at_the_next_write_and_its_end_restores_it() {
        // The commit comes before the tenth write, when 576 KiB are not synced.
        let (made, slept) = write(false, |at, commits| {
            if at == 9 {
                commits.add();
            }
        });
        assert_eq!((made, slept), (calls([10].into_iter()), 10));
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
