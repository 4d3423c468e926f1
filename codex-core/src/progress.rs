//! Reports of the progress of a call that reads or writes whole files.

use std::path::Path;
use std::sync::Arc;

use codex_storage::sync::atomic::{AtomicU64, Ordering};
use codex_storage::sync::channel::{Sender, channel};
use codex_storage::sync::{Mutex, thread};
use codex_storage::vfs::{CallKind, Observed, Vfs};
use codex_storage::{Error as StorageError, FileRole};

use crate::callback::Callback;
use crate::error::Result;
use crate::options::OpenOptions;

/// The progress of long calls.
impl OpenOptions {
    /// Sets a function that is called with `(done, total)`, in bytes, during the calls of the store
    /// that read or write whole files: the opening, [`verify`](crate::Store::verify) and
    /// [`rekey`](crate::Store::rekey). Default: none.
    /// [`backup_to_watched`](crate::Store::backup_to_watched) takes a function of its own.
    ///
    /// The first report of a call is 0. The reports never decrease, and there are at most about
    /// 200. `total` is an estimate that stays the same during a call; it is reported as done when
    /// the call succeeds, and only then. A call that fails makes no further report, and a call that
    /// finds no bytes makes none at all.
    ///
    /// The function runs while no lock of the store is held, on the thread of the call or on one
    /// that reads for it, one call at a time. If it panics, the panic is printed and has no other
    /// effect.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// # Store::open(&path)?.set("a", &1)?;
    /// let options = Store::options().on_progress(|done, total| {
    ///     eprint!("\r{:3} %", 100 * done / total);
    /// });
    /// let store = options.open(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_progress(mut self, f: impl Fn(u64, u64) + Send + Sync + 'static) -> Self {
        self.on_progress = Some(callback(f));
        self
    }
}

/// The function that receives the reports: `(done, total)`, in bytes.
pub(crate) type OnProgress = Callback<dyn Fn(u64, u64) + Send + Sync>;

/// Returns the callback of a function.
pub(crate) fn callback(f: impl Fn(u64, u64) + Send + Sync + 'static) -> OnProgress {
    Callback::new(Arc::new(f))
}

/// The reports of one call. They never decrease. The first is 0, and the total is reported only by
/// [`end`](Self::end).
pub(crate) struct Reports {
    on: OnProgress,
    total: u64,
    /// The next number of bytes to report, or `None` after the end.
    next: Option<u64>,
}

impl Reports {
    /// Begins the reports of a call that reads and writes about `total` bytes. If that is zero,
    /// there are no reports.
    pub(crate) fn begin(on: OnProgress, total: u64) -> Self {
        let mut reports = Self { on, total, next: (total > 0).then_some(0) };
        reports.reach(0);
        reports
    }

    /// Reports `done` bytes, unless the last report was short of it by little.
    pub(crate) fn reach(&mut self, done: u64) {
        // The total is an estimate, so it may be reached before the end.
        let done = done.min(self.total.saturating_sub(1));
        if self.next.is_some_and(|next| done >= next) {
            self.next = Some(done + (self.total / REPORTS_MAX).max(1));
            self.on.run(|on| on(done, self.total));
        }
    }

    /// Reports the share `done` of `of` of the total.
    #[cfg(feature = "crypto")]
    pub(crate) fn reach_share(&mut self, done: u64, of: u64) {
        let share = u128::from(self.total) * u128::from(done) / u128::from(of.max(1));
        self.reach(u64::try_from(share).unwrap_or(u64::MAX));
    }

    /// Ends the reports: with the total if the call has succeeded.
    pub(crate) fn end(&mut self, succeeded: bool) {
        if self.next.take().is_some() && succeeded {
            self.on.run(|on| on(self.total, self.total));
        }
    }
}

/// Calls `work` with a directory whose reads and writes are reported to `on`, which are about
/// `total` bytes. The caller holds no lock of a store.
pub(crate) fn metered<R, E>(
    on: Option<&OnProgress>,
    vfs: &Vfs,
    total: impl FnOnce() -> u64,
    work: impl FnOnce(&Vfs) -> Result<R, E>,
) -> Result<R, E> {
    let Some(on) = on else { return work(vfs) };
    let meter = Arc::new(Meter::begin(on.clone(), total()));
    let result = work(&meter.watch(vfs));
    // Later calls through a file that is still open are not reported.
    meter.reports.lock().end(result.is_ok());
    result
}

/// Reports the bytes that go through a directory.
struct Meter {
    done: AtomicU64,
    reports: Mutex<Reports>,
}

impl Meter {
    fn begin(on: OnProgress, total: u64) -> Self {
        Self { done: AtomicU64::new(0), reports: Mutex::new(Reports::begin(on, total)) }
    }

    /// Returns `vfs` with a directory whose reads and writes are reported.
    fn watch(self: &Arc<Self>, vfs: &Vfs) -> Vfs {
        let meter = Arc::clone(self);
        Observed::vfs(vfs, move |call| {
            if matches!(call.kind, CallKind::Read | CallKind::Write) {
                meter.add(call.len);
            }
        })
    }

    fn add(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // Another thread that is reporting is not waited for.
        if let Some(mut reports) = self.reports.try_lock() {
            reports.reach(done);
        }
    }
}

/// Returns the total length of the files of the store, or 0 if they cannot be listed.
pub(crate) fn bytes_of(vfs: &Vfs, name: &str) -> u64 {
    let files = codex_storage::files(vfs, name).unwrap_or_default();
    files.iter().filter(|file| file.role == FileRole::Store).map(|file| file.bytes).sum()
}

/// Calls `work` on another thread, and `on` with its reports on this thread, which holds no lock
/// meanwhile. Without `on`, calls `work` on this thread.
pub(crate) fn beside_locks<R: Send + 'static>(
    on: Option<&OnProgress>,
    path: &Path,
    work: impl FnOnce(Option<&OnProgress>) -> Result<R> + Send + 'static,
) -> Result<R> {
    let Some(on) = on else { return work(None) };
    let mut tell = |(done, total)| {
        on.run(|on| on(done, total));
        true
    };
    let work = move |to: Sender<(u64, u64)>| {
        work(Some(&callback(move |done, total| {
            let _ = to.send((done, total));
        })))
    };
    on_thread(path, work, &mut tell).and_then(|done| done)
}

/// Calls `work` on another thread, and `take` with each of its reports on this thread, until
/// `take` returns false. Then the sender of the reports is disconnected.
///
/// # Errors
/// `Io` if the thread cannot be started.
pub(crate) fn on_thread<T: Send + 'static, R: Send + 'static>(
    path: &Path,
    work: impl FnOnce(Sender<T>) -> R + Send + 'static,
    take: &mut dyn FnMut(T) -> bool,
) -> Result<R> {
    let (report, reports) = channel();
    let worker = thread::spawn("codexdb-work", move || work(report));
    let worker = worker.map_err(|source| StorageError::Io {
        action: "start a thread for",
        path: path.to_owned(),
        source: Arc::new(source),
    })?;
    // If `take` panics, the receiver is dropped, too.
    let _ = reports.into_iter().all(take);
    Ok(worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

/// The maximum number of reports of one call, without the first and the last.
const REPORTS_MAX: u64 = 200;

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;

    use codex_storage::sync::Mutex;

    use super::{Reports, callback};

    #[test]
    fn many_small_steps_make_few_reports() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&seen);
        let mut reports = Reports::begin(callback(move |done, _| to.lock().push(done)), 100_000);
        (0..100_000).for_each(|done| reports.reach(done));
        // The total was estimated too low.
        reports.reach(200_000);
        reports.end(true);
        reports.reach(200_001);
        let seen = seen.lock();
        assert!((190..=203).contains(&seen.len()), "{} reports", seen.len());
        assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
        assert_eq!((seen[0], seen.last()), (0, Some(&100_000)));
    }
}
