//! A directory that calls an observer before each call.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::call::open_kind;
use super::{
    Call, CallKind, Dir, File, LockGuard, LockHolder, LockKind, Metadata, Mode, Open, Vfs,
    same_system,
};
use crate::sync::{Mutex, MutexGuard};

/// A wrapper around a directory that calls an observer before each call, in the thread of the call.
/// It serves reports of the progress of a long call, and tests that check locks, audit the written
/// bytes, or inspect a disk between calls.
///
/// No lock of this type is held while the observer runs, so the observer may call the inner
/// directory. A panic of the observer unwinds through the call.
#[derive(Clone)]
pub struct Observed {
    dir: Arc<dyn Dir>,
    watch: Arc<Watch>,
}

impl Observed {
    /// Wraps `dir`. Each call to `dir` and its files is passed to `observer`.
    pub fn new(dir: Arc<dyn Dir>, observer: impl Fn(&Call) + Send + Sync + 'static) -> Self {
        Self::with_bytes(dir, move |call, _| observer(call))
    }

    /// Like [`new`](Self::new), but also passes the bytes of a write (no bytes for other calls).
    pub fn with_bytes(
        dir: Arc<dyn Dir>,
        observer: impl Fn(&Call, &[u8]) + Send + Sync + 'static,
    ) -> Self {
        let watch = Watch {
            calls: AtomicU64::new(0),
            observer: Box::new(observer),
            labels: Mutex::new(BTreeMap::new()),
        };
        Self { dir, watch: Arc::new(watch) }
    }

    /// Returns `world` with its directory observed.
    pub fn vfs(world: &Vfs, observer: impl Fn(&Call) + Send + Sync + 'static) -> Vfs {
        let dir = Arc::new(Self::new(Arc::clone(&world.dir), observer));
        Vfs { dir, ..world.clone() }
    }

    fn see(&self, kind: CallKind, name: &str) {
        self.watch.see(kind, name.into(), None, 0, &[], 0);
    }

    fn see_pair(&self, kind: CallKind, from: &str, to: &str) {
        self.watch.see(kind, from.into(), Some(to.into()), 0, &[], 0);
    }
}

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Observed").field(&self.dir).finish()
    }
}

impl Dir for Observed {
    fn open(&self, name: &str, how: Open) -> io::Result<Arc<dyn File>> {
        self.see(open_kind(how), name);
        let file = self.dir.open(name, how)?;
        let label = Arc::clone(
            self.watch.labels().entry(name.to_owned()).or_insert_with(|| new_label(name)),
        );
        Ok(Arc::new(ObservedFile { file, label, watch: Arc::clone(&self.watch) }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.see_pair(CallKind::Rename, from, to);
        self.dir.rename(from, to)?;
        // Open handles of the file share the label, so later calls to them have the new name.
        let mut labels = self.watch.labels();
        if let Some(label) = labels.remove(from) {
            *label.lock() = to.into();
            labels.insert(to.to_owned(), label);
        }
        Ok(())
    }

    fn reflink(&self, from: &Arc<dyn File>, to: &str, mode: Mode) -> io::Result<()> {
        let from: &ObservedFile = same_system(from)?;
        let name = Arc::clone(&from.label.lock());
        self.see_pair(CallKind::Reflink, &name, to);
        self.dir.reflink(&from.file, to, mode)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.see(CallKind::Remove, name);
        self.dir.remove(name)?;
        self.watch.labels().remove(name);
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.see(CallKind::List, "");
        self.dir.list()
    }

    fn metadata(&self, name: &str) -> io::Result<Option<Metadata>> {
        self.see(CallKind::Metadata, name);
        self.dir.metadata(name)
    }

    fn sync(&self) -> io::Result<()> {
        self.see(CallKind::SyncDir, "");
        self.dir.sync()
    }

    fn try_lock(&self, name: &str, kind: LockKind) -> io::Result<Option<Box<dyn LockGuard>>> {
        self.see(CallKind::TryLock, name);
        self.dir.try_lock(name, kind)
    }

    fn lock_existing(&self, name: &str, kind: LockKind) -> io::Result<Option<Box<dyn LockGuard>>> {
        self.see(CallKind::LockExisting, name);
        self.dir.lock_existing(name, kind)
    }

    // Not passed to the observer: the record serves error texts, and no promise depends on it.
    fn sign_lock(&self, name: &str, is_held: bool) {
        self.dir.sign_lock(name, is_held);
    }

    fn lock_signer(&self, name: &str) -> Option<LockHolder> {
        self.dir.lock_signer(name)
    }

    fn inherit(&self, from: &str, to: &str, mode: Option<Mode>) -> io::Result<()> {
        self.see_pair(CallKind::Inherit, from, to);
        self.dir.inherit(from, to, mode)
    }

    fn available_bytes(&self) -> io::Result<Option<u64>> {
        self.see(CallKind::AvailableBytes, "");
        self.dir.available_bytes()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path(name)
    }
}

struct Watch {
    calls: AtomicU64,
    observer: Box<Observer>,
    /// The current names of the files that were opened.
    labels: Mutex<BTreeMap<String, Label>>,
}

type Observer = dyn Fn(&Call, &[u8]) + Send + Sync;
type Label = Arc<Mutex<Arc<str>>>;

impl Watch {
    fn see(
        &self,
        kind: CallKind,
        name: Arc<str>,
        to: Option<Arc<str>>,
        offset: u64,
        bytes: &[u8],
        len: u64,
    ) {
        let index = self.calls.fetch_add(1, Ordering::SeqCst);
        (self.observer)(&Call { index, kind, name, to, offset, len }, bytes);
    }

    fn labels(&self) -> MutexGuard<'_, BTreeMap<String, Label>> {
        self.labels.lock()
    }
}

struct ObservedFile {
    file: Arc<dyn File>,
    label: Label,
    watch: Arc<Watch>,
}

impl ObservedFile {
    fn see(&self, kind: CallKind, offset: u64, bytes: &[u8], len: u64) {
        let name = Arc::clone(&self.label.lock());
        self.watch.see(kind, name, None, offset, bytes, len);
    }
}

impl fmt::Debug for ObservedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ObservedFile").field(&self.file).finish()
    }
}

impl File for ObservedFile {
    fn len(&self) -> io::Result<u64> {
        self.see(CallKind::Len, 0, &[], 0);
        self.file.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.see(CallKind::Read, offset, &[], width(buf));
        self.file.read_exact_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.see(CallKind::Write, offset, buf, width(buf));
        self.file.write_all_at(buf, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.see(CallKind::SetLen, 0, &[], len);
        self.file.set_len(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.see(CallKind::Allocate, offset, &[], len);
        self.file.allocate(offset, len)
    }

    fn sync(&self) -> io::Result<()> {
        self.see(CallKind::Sync, 0, &[], 0);
        self.file.sync()
    }

    fn inner(&self) -> Option<&Arc<dyn File>> {
        Some(&self.file)
    }
}

fn new_label(name: &str) -> Label {
    Arc::new(Mutex::new(name.into()))
}

fn width(buf: &[u8]) -> u64 {
    u64::try_from(buf.len()).unwrap_or(u64::MAX)
}
