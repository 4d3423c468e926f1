//! Writing a long file without delaying the other syncs of the file system.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{File, Vfs};
use crate::codec::u64_of;
use crate::sync::thread::{self, JoinHandle};

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
/// file every 64 KiB, pauses after each sync for as long as it took, and yields the processor.
/// Otherwise syncs it every 1 MiB on a second thread, without pauses, while it is
/// written on.
///
/// Without these syncs, unsynced bytes would collect in memory until the final sync writes them
/// all. Every other sync of the file system, such as that of a log beside which an image or a
/// backup is written, would wait for it.
pub struct Paced<'a> {
    file: Arc<dyn File>,
    /// The environment of the commits, or `None` if no other thread needs to be spared.
    beside: Option<&'a Vfs>,
    /// The number of writes of commits at the last sync.
    seen: u64,
    unsynced: usize,
    /// The sync that a second thread is making.
    ahead: Option<JoinHandle<io::Result<()>>>,
}

impl<'a> Paced<'a> {
    /// Returns a writer to `file`, which the commits to the store in `beside` pace.
    pub fn new(file: Arc<dyn File>, beside: &'a Vfs) -> Self {
        let seen = beside.waited_for.count();
        Self { file, beside: Some(beside), seen, unsynced: 0, ahead: None }
    }

    /// Returns a writer to `file` without pauses, which syncs nothing before [`sync`](Self::sync).
    pub fn hurried(file: Arc<dyn File>) -> Self {
        Self { file, beside: None, seen: 0, unsynced: 0, ahead: None }
    }

    /// Like [`File::write_all_at`].
    ///
    /// # Errors
    /// The error of the write, or of a sync of earlier bytes.
    pub fn write_all_at(&mut self, buf: &[u8], offset: u64) -> io::Result<()> {
        let Some(vfs) = self.beside else { return self.file.write_all_at(buf, offset) };
        let (mut left, mut at) = (buf, offset);
        while !left.is_empty() {
            // A caller may write more at once than commits should wait for.
            let is_long = !self.is_alone(vfs) && left.len() >= 2 * SYNC_EVERY;
            let (piece, rest) = left.split_at(if is_long { SYNC_EVERY } else { left.len() });
            self.write_piece(vfs, piece, at)?;
            (left, at) = (rest, at + u64_of(piece.len()));
        }
        Ok(())
    }

    /// Writes a piece, and syncs the file if enough was written.
    fn write_piece(&mut self, vfs: &Vfs, piece: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(piece, offset)?;
        self.unsynced += piece.len();
        let is_alone = self.is_alone(vfs);
        let limit = if is_alone { SYNC_EVERY_ALONE } else { SYNC_EVERY };
        if self.unsynced < limit {
            return Ok(());
        }
        self.unsynced = 0;
        self.seen = vfs.waited_for.count();
        // One sync at a time, so that at most twice the limit is not synced.
        self.join()?;
        if is_alone {
            return self.sync_ahead();
        }
        let from = vfs.clock.monotonic();
        self.file.sync()?;
        let took = vfs.clock.monotonic().saturating_sub(from);
        // Other threads have the disk for half of the time.
        vfs.clock.sleep(took.min(PAUSE_MAX));
        thread::yield_now();
        Ok(())
    }

    /// Returns true if no commit was made since the last sync.
    fn is_alone(&self, vfs: &Vfs) -> bool {
        vfs.waited_for.count() == self.seen
    }

    /// Syncs all bytes that were written.
    ///
    /// # Errors
    /// The error of this sync, or of an earlier one.
    pub fn sync(&mut self) -> io::Result<()> {
        // Order: the earlier sync first. The system reports a lost write to one of the two only.
        self.join()?;
        self.file.sync()
    }

    /// Starts a sync on a second thread.
    fn sync_ahead(&mut self) -> io::Result<()> {
        let file = Arc::clone(&self.file);
        match thread::spawn("codexdb-sync", move || file.sync()) {
            Ok(thread) => self.ahead = Some(thread),
            // Without a second thread, this one syncs.
            Err(_) => self.file.sync()?,
        }
        Ok(())
    }

    /// Waits for the sync of the second thread.
    fn join(&mut self) -> io::Result<()> {
        let Some(thread) = self.ahead.take() else { return Ok(()) };
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that syncs panicked")))
    }
}

impl Drop for Paced<'_> {
    fn drop(&mut self) {
        // No call to the file is made after the writer is gone. The caller of a writer that is
        // dropped without a sync has an error of its own.
        let _ = self.join();
    }
}

impl fmt::Debug for Paced<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Paced").field("unsynced", &self.unsynced).finish_non_exhaustive()
    }
}

/// The number of bytes between two syncs while commits are made. Most disks write more than this
/// during the time of an empty sync, so the sync of a commit that waits for one of these takes
/// about twice as long as otherwise.
const SYNC_EVERY: usize = 64 << 10;
/// The number of bytes between two syncs while no commits are made. The first commit that is made
/// again may wait for them.
const SYNC_EVERY_ALONE: usize = 1 << 20;
/// The longest pause. If a disk hangs, the file is slow enough without longer ones.
const PAUSE_MAX: Duration = Duration::from_millis(50);

#[cfg(test)]
#[cfg(feature = "fault")]
mod tests {
    use super::super::fault::{Calls, Fault, FaultDir, Lasting, Side};
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
        let mut paced =
            if hurried { Paced::hurried(file.clone()) } else { Paced::new(file.clone(), &vfs) };
        let chunk = vec![7; 64 << 10];
        for at in 0..20 {
            commit(at, &vfs.waited_for);
            paced.write_all_at(&chunk, at as u64 * 65_536).unwrap();
        }
        // Waits for the thread that syncs.
        drop(paced);
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
    fn a_long_file_is_synced_every_64_kibibytes_with_pauses_while_commits_are_made() {
        let (made, slept) = write(false, |_, commits| commits.add());
        assert_eq!((made, slept), (calls(1..=20), 20 * 5), "as long as the 5 ms of a sync");
    }

    #[test]
    fn a_long_write_is_made_in_pieces_while_commits_are_made() {
        let bytes: Vec<u8> = (0..500_u32 << 10).map(|at| (at % 251) as u8).collect();
        for (busy, pieces) in [(false, 1), (true, 7)] {
            let disk = FaultDir::new();
            let waited_for = WaitedFor::default();
            let clock = SlowClock { commits: busy.then(|| waited_for.clone()), ..<_>::default() };
            let vfs = Vfs { clock: Arc::new(clock), waited_for, ..disk.vfs(1) };
            let file = vfs.dir.open("a", Open::CreateNew(Mode::Private)).unwrap();
            let mut paced = Paced::new(file.clone(), &vfs);
            if busy {
                vfs.waited_for.add();
            }
            disk.record_trace(true);
            paced.write_all_at(&bytes, 3).unwrap();
            let writes = disk.trace().iter().filter(|call| call.kind == CallKind::Write).count();
            assert_eq!(writes, pieces);
            let mut read = vec![0; bytes.len()];
            file.read_exact_at(&mut read, 3).unwrap();
            assert!(read == bytes, "a piece lies elsewhere");
        }
    }

    #[test]
    fn a_long_file_is_synced_every_mebibyte_without_pauses_while_no_commits_are_made() {
        let (made, slept) = write(false, |_, _| {});
        let (before, after) = made.split_at(16);
        assert_eq!(before, [CallKind::Write; 16]);
        // The second thread syncs before, between or after the last writes.
        let syncs = after.iter().filter(|kind| **kind == CallKind::Sync).count();
        assert_eq!((syncs, after.len(), slept), (1, 5, 0));
        assert_eq!(write(true, |_, commits| commits.add()), (calls([].into_iter()), 0));
    }

    #[test]
    fn the_file_is_written_on_while_the_second_thread_syncs() {
        let disk = FaultDir::new();
        let vfs = disk.vfs(1);
        let file = vfs.dir.open("a", Open::CreateNew(Mode::Private)).unwrap();
        let gate = disk.hold(Calls::of(CallKind::Sync));
        let mut paced = Paced::new(file, &vfs);
        let mebibyte = vec![7; 1 << 20];
        paced.write_all_at(&mebibyte, 0).unwrap();
        gate.wait_for(1);
        paced.write_all_at(&mebibyte[1..], 1 << 20).unwrap();
        drop(gate);
        paced.sync().unwrap();
    }

    #[test]
    fn an_error_of_the_second_thread_is_returned_by_the_next_sync() {
        for more in [0, 1 << 20] {
            let disk = FaultDir::new();
            let vfs = disk.vfs(1);
            let file = vfs.dir.open("a", Open::CreateNew(Mode::Private)).unwrap();
            let syncs = Calls::of(CallKind::Sync);
            disk.fail_on(syncs, 1, Fault::Eio, Lasting::Once, Side::Before);
            let mut paced = Paced::new(file, &vfs);
            paced.write_all_at(&vec![7; 1 << 20], 0).unwrap();
            let written = paced.write_all_at(&vec![7; more], 1 << 20);
            let failed = written.and_then(|()| paced.sync()).unwrap_err();
            assert_eq!(failed.raw_os_error(), Some(5), "{more} bytes later: {failed}");
            paced.sync().unwrap();
        }
    }

    #[test]
    fn a_commit_ends_the_full_speed_at_the_next_write_and_its_end_restores_it() {
        // The commit comes before the tenth write, when 576 KiB are not synced.
        let (made, slept) = write(false, |at, commits| {
            if at == 9 {
                commits.add();
            }
        });
        assert_eq!((made, slept), (calls([10].into_iter()), 5));
    }

    /// A clock by which everything takes 5 ms, and after each look at which a commit is made, if
    /// there are commits.
    #[derive(Debug, Default)]
    struct SlowClock {
        looks: AtomicU64,
        slept_ms: AtomicU64,
        commits: Option<WaitedFor>,
    }

    impl Clock for SlowClock {
        fn now_us(&self) -> i64 {
            0
        }

        fn monotonic(&self) -> Duration {
            self.commits.iter().for_each(WaitedFor::add);
            Duration::from_millis(5 * self.looks.fetch_add(1, Ordering::SeqCst))
        }

        fn sleep(&self, duration: Duration) {
            let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
            self.slept_ms.fetch_add(ms, Ordering::SeqCst);
        }
    }
}
