//! Tests of paths and locks: which paths lead to a store, which handles may have it open, and which
//! have to wait.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::{FORMS, closed, disk, fill, killed, open, options, storage};
use codex_core::Store;
use codex_core::vfs::{
    Clock, Dir, File, LockGuard, LockKind, MemDir, Metadata, Mode, Open, OsDir, SimClock, Vfs,
};
use codex_storage::Error as E;

/// Returns the error of opening the path.
fn refused_path(path: &Path) -> E {
    storage(Store::open(path).unwrap_err())
}

#[test]
fn a_second_writer_is_refused_until_the_first_is_gone() {
    for form in FORMS {
        let vfs = Vfs::mem(crate::common::seed());
        let first = fill(&open(&vfs, form));
        let error = storage(options(form).open_in(&vfs, "a.db").unwrap_err());
        assert!(matches!(error, E::Locked { waited_ms: 0, .. }), "{error}");
        let reader = Store::options().read_only(true);
        let error = storage(reader.open_in(&vfs, "a.db").unwrap_err());
        assert!(matches!(error, E::Locked { .. }), "{error}");
        first.close().unwrap();
        // The close releases the lock, although a handle still exists.
        let second = open(&vfs, form);
        second.set("d", "fourth").unwrap();
        assert!(first.set("e", "fifth").unwrap_err().is_closed());
        assert_eq!((first.len(), second.len()), (3, 4));
    }
}

#[test]
fn many_readers_share_a_store_that_no_writer_has_open() {
    for form in FORMS {
        for files in [closed(form), killed(form)] {
            let vfs = disk(&files);
            let reader = Store::options().read_only(true);
            let one = reader.open_in(&vfs, "a.db").unwrap();
            let two = reader.open_in(&vfs, "a.db").unwrap();
            assert_eq!((one.len(), two.len()), (3, 3));
            let error = storage(options(form).open_in(&vfs, "a.db").unwrap_err());
            assert!(matches!(error, E::Locked { .. }), "{error}");
            let refused = [
                one.set("d", "no").unwrap_err(),
                one.remove("a").unwrap_err(),
                one.clear().unwrap_err(),
                one.update("a", |a: Option<String>| a).unwrap_err(),
                one.flush().unwrap_err(),
                one.checkpoint().unwrap_err(),
            ];
            for error in refused {
                assert!(matches!(storage(error), E::ReadOnly { .. }));
            }
            one.close().unwrap();
            drop(two);
            assert_eq!(crate::common::files(&vfs), files, "a reader changes nothing");
            drop(open(&vfs, form));
        }
    }
}

/// A clock on which the first handle of a store is dropped at the third sleep of the next one.
#[derive(Debug)]
struct Releasing {
    clock: SimClock,
    first: Mutex<Option<Store>>,
    sleeps: AtomicUsize,
}

impl Clock for Releasing {
    fn now_us(&self) -> i64 {
        self.clock.now_us()
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }

    fn sleep(&self, duration: Duration) {
        self.clock.sleep(duration);
        if self.sleeps.fetch_add(1, Ordering::Relaxed) == 2 {
            drop(self.first.lock().unwrap().take());
        }
    }
}

#[test]
fn the_lock_of_another_handle_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    for dir in
        [Arc::new(MemDir::new()) as Arc<dyn Dir>, Arc::new(OsDir::open(folder.path()).unwrap())]
    {
        let vfs = Vfs { dir, ..Vfs::mem(crate::common::seed()) };
        let first = Store::options().open_in(&vfs, "a.db").unwrap();
        let wait = |vfs: &Vfs, ms| {
            let options = Store::options().lock_timeout(Duration::from_millis(ms));
            options.open_in(vfs, "a.db")
        };
        let error = storage(wait(&vfs, 50).unwrap_err());
        assert!(matches!(error, E::Locked { waited_ms: 50, .. }), "{error}");
        let (clock, sleeps) = (SimClock::new(), AtomicUsize::new(0));
        let clock = Arc::new(Releasing { clock, first: Mutex::new(Some(first)), sleeps });
        let second = wait(&Vfs { clock: clock.clone(), ..vfs }, 3_600_000).unwrap();
        assert_eq!(clock.sleeps.load(Ordering::Relaxed), 3);
        second.set("k", &1).unwrap();
    }
}

#[test]
fn a_failed_open_lets_go_of_its_lock() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    std::fs::write(&path, "garbage").unwrap();
    assert!(matches!(refused_path(&path), E::NotADatabase { .. }));
    std::fs::remove_file(&path).unwrap();
    Store::open(&path).unwrap().set("k", &1).unwrap();
}

#[test]
fn a_folder_a_fifo_and_a_device_are_no_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    std::fs::create_dir(&path).unwrap();
    assert!(matches!(refused_path(&path), E::NotAFile { .. }));
    std::fs::remove_dir(&path).unwrap();
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let error = refused_path(&path);
    assert!(matches!(error, E::NotAFile { .. }), "{error}");
    assert!(matches!(refused_path(Path::new("/dev/null")), E::NotAFile { .. }));
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "no lock file beside what is no store: {left:?}");
}

#[test]
fn a_missing_folder_and_an_unwritable_one_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let error = refused_path(&folder.path().join("missing/a.db"));
    assert!(matches!(error, E::NoFolder { .. }), "{error}");
    assert!(error.to_string().contains("create the folder first"), "{error}");
    std::fs::write(folder.path().join("file"), "").unwrap();
    let error = refused_path(&folder.path().join("file/a.db"));
    assert!(matches!(error, E::BadPath { .. }), "{error}");
    // No user, not even the superuser, creates files there.
    let error = refused_path(Path::new("/proc/a.db"));
    assert!(matches!(error, E::Io { .. }), "{error}");
    assert!(error.to_string().contains("/proc/a.db"), "{error}");
}

#[test]
fn paths_that_cannot_name_a_file_are_refused_before_anything_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let in_folder = |name: &str| folder.path().join(name);
    let mut bad = vec!["".into(), "/".into(), in_folder(".."), in_folder("a.db/")];
    bad.push(in_folder("a.db/."));
    bad.push(in_folder(&"n".repeat(250)));
    bad.push(folder.path().join(std::ffi::OsStr::from_bytes(b"\xFF.db")));
    for path in bad {
        let error = refused_path(&path);
        assert!(matches!(error, E::BadPath { .. }), "{}: {error}", path.display());
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_relative_path_and_a_symbolic_link_lead_to_the_same_lock() {
    let folder = tempfile::tempdir().unwrap();
    let (real, link) = (folder.path().join("real"), folder.path().join("link"));
    std::fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(real.join("a.db"), &link).unwrap();
    // The target of the link does not exist yet.
    let error = refused_path(&link);
    assert!(matches!(error, E::NotAFile { .. }), "{error}");
    assert!(error.to_string().contains("whose target does not exist"), "{error}");

    let store = Store::open(real.join("a.db")).unwrap();
    store.set("k", &1).unwrap();
    assert!(matches!(refused_path(&link), E::Locked { .. }));
    let detour = real.join("../real/a.db");
    assert!(matches!(refused_path(&detour), E::Locked { .. }));
    drop(store);

    let store = Store::open(&link).unwrap();
    assert_eq!(store.path(), real.canonicalize().unwrap().join("a.db"));
    store.set("k", &2).unwrap();
    store.checkpoint().unwrap();
    store.close().unwrap();
    assert!(link.is_symlink(), "the link is still a link");
    assert_eq!(Store::open(real.join("a.db")).unwrap().get("k").unwrap(), Some(2));
    let mut names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    names.retain(|name| name.as_ref().unwrap().file_name() != "real");
    assert_eq!(names.len(), 1, "nothing is created beside the link");
}

#[test]
fn a_reader_in_an_unwritable_folder_locks_the_main_file_alone_or_nothing_and_says_so() {
    for (form, lockable) in FORMS.into_iter().flat_map(|form| [(form, true), (form, false)]) {
        let vfs = disk(&killed(form));
        let dir = Arc::new(ReadOnlyDir { dir: Arc::clone(&vfs.dir), lockable });
        let unwritable = Vfs { dir, ..vfs.clone() };
        let store = Store::options().read_only(true).open_in(&unwritable, "a.db").unwrap();
        assert_eq!(store.len(), 3);
        assert_eq!(store.recovered().locked, lockable, "{form}");
        assert!(Store::options().read_only(true).open_in(&vfs, "a.db").unwrap().recovered().locked);
        let error = storage(Store::options().open_in(&unwritable, "a.db").unwrap_err());
        assert!(matches!(error, E::Io { .. }), "{error}");
        let writer = Store::options().open_in(&vfs, "a.db");
        if lockable {
            assert!(matches!(storage(writer.unwrap_err()), E::Locked { .. }), "{form}");
        } else {
            writer.unwrap();
        }
    }
}

/// A simulated directory without write permission. A real one would not restrict the superuser.
#[derive(Debug)]
struct ReadOnlyDir {
    dir: Arc<dyn Dir>,
    /// Whether its files can be locked.
    lockable: bool,
}

fn denied<T>() -> io::Result<T> {
    Err(io::ErrorKind::PermissionDenied.into())
}

impl Dir for ReadOnlyDir {
    fn open(&self, name: &str, how: Open) -> io::Result<Arc<dyn File>> {
        if how == Open::Read { self.dir.open(name, how) } else { denied() }
    }
    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        denied()
    }
    fn reflink(&self, _: &Arc<dyn File>, _: &str, _: Mode) -> io::Result<()> {
        denied()
    }
    fn remove(&self, _: &str) -> io::Result<()> {
        denied()
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.dir.list()
    }
    fn metadata(&self, name: &str) -> io::Result<Option<Metadata>> {
        self.dir.metadata(name)
    }
    fn sync(&self) -> io::Result<()> {
        self.dir.sync()
    }
    fn try_lock(&self, _: &str, _: LockKind) -> io::Result<Option<Box<dyn LockGuard>>> {
        denied()
    }
    fn lock_existing(&self, name: &str, kind: LockKind) -> io::Result<Option<Box<dyn LockGuard>>> {
        if self.lockable {
            return self.dir.lock_existing(name, kind);
        }
        Err(io::ErrorKind::Unsupported.into())
    }
    fn inherit(&self, _: &str, _: &str, _: Option<Mode>) -> io::Result<()> {
        denied()
    }
    fn available_bytes(&self) -> io::Result<Option<u64>> {
        self.dir.available_bytes()
    }
    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path(name)
    }
}

#[test]
fn a_backup_copied_by_hand_says_that_it_is_read_only() {
    for form in FORMS {
        let vfs = Vfs::mem(1);
        let store = open(&vfs, form);
        store.set("k", &1).unwrap();
        store.back_up().unwrap();
        store.close().unwrap();
        let backup = crate::common::files(&vfs).remove("a.db.bak.1").unwrap();
        // The same as by `cp`: with the mode of the copied file.
        let file = vfs.dir.open("new.db", Open::CreateNew(Mode::Frozen)).unwrap();
        file.write_all_at(&backup, 0).unwrap();
        drop(file);
        match options(form).open_in(&vfs, "new.db") {
            // An image is only replaced, never changed, so a copy of it can be used.
            Ok(store) => {
                assert_ne!(form, codex_core::Form::Ledger);
                assert_eq!(store.get("k").unwrap(), Some(1));
                store.set("k", &2).unwrap();
            }
            Err(error) => {
                assert_eq!(form, codex_core::Form::Ledger);
                let error = storage(error);
                assert!(matches!(error, E::FileReadOnly { .. }), "{error}");
                assert!(error.to_string().contains("chmod u+w"), "{error}");
            }
        }
    }
}
