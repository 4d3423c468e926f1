//! Tests that need access to private items: fallbacks, and a lock file that is removed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

use std::process::{Child, Command, Stdio};

use super::lock::{OsLock, Tried};
use super::*;
use crate::sync::Mutex;

#[test]
fn a_lock_on_a_file_that_lost_its_name_is_none() {
    let temp = tempfile::tempdir().unwrap();
    let dir = OsDir::open(temp.path()).unwrap();
    let opened = dir.open_lock("lock", LockKind::Exclusive).unwrap();
    dir.remove("lock").unwrap();
    let tried = dir.lock_opened("lock", opened, LockKind::Exclusive).unwrap();
    assert!(matches!(tried, Tried::Renamed), "{tried:?}");

    let opened = dir.open_lock("lock", LockKind::Exclusive).unwrap();
    dir.remove("lock").unwrap();
    let held = dir.try_lock("lock", LockKind::Exclusive).unwrap().unwrap();
    let tried = dir.lock_opened("lock", opened, LockKind::Exclusive).unwrap();
    assert!(matches!(tried, Tried::Renamed), "{tried:?}");
    drop(held);
}

/// Returns a lock with a copy of its descriptor, like the one of a forked child: another descriptor
/// of the same open file, in a process that did not take the lock.
fn forked(dir: &OsDir) -> (OsLock, OsLock) {
    let opened = dir.open_lock("lock", LockKind::Exclusive).unwrap();
    let copy = opened.try_clone().unwrap();
    let Tried::Locked(held) = dir.lock_opened("lock", opened, LockKind::Exclusive).unwrap() else {
        panic!("the lock is free");
    };
    let (identity, taken_by) = (held.identity, held.taken_by + 1);
    (held, OsLock { file: Mutex::new(Some(copy)), identity, taken_by })
}

/// A process that has `file` open as its standard input until the test ends it.
fn idle(file: StdFile) -> Child {
    Command::new("sleep").arg("600").stdin(Stdio::from(file)).spawn().unwrap()
}

fn is_free(dir: &OsDir) -> bool {
    dir.try_lock("lock", LockKind::Exclusive).unwrap().is_some()
}

#[test]
fn a_lock_is_free_after_its_drop_though_another_process_has_the_file_open() {
    let temp = tempfile::tempdir().unwrap();
    let dir = OsDir::open(temp.path()).unwrap();
    let (held, copy) = forked(&dir);
    let mut child = idle(copy.file.lock().take().unwrap());
    assert!(!is_free(&dir));
    drop(held);
    assert!(is_free(&dir), "the copy of a child keeps the lock");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_copy_that_a_child_closes_neither_frees_the_lock_nor_keeps_it() {
    for abandons in [false, true] {
        let temp = tempfile::tempdir().unwrap();
        let dir = OsDir::open(temp.path()).unwrap();
        let (held, copy) = forked(&dir);
        if abandons {
            copy.abandon();
            assert!(copy.file.lock().is_none());
            held.abandon();
        } else {
            drop(copy);
        }
        assert!(!is_free(&dir), "closing the copy frees the lock of the parent");
        drop(held);
        assert!(is_free(&dir));

        // The parent is killed: its copies are closed, and no lock is released explicitly.
        let (mut held, copy) = forked(&dir);
        held.taken_by = copy.taken_by;
        drop(held);
        assert!(!is_free(&dir), "the copy of a child that uses the store still counts");
        drop(copy);
        assert!(is_free(&dir));
    }
}

#[test]
fn zeros_stand_in_where_space_cannot_be_reserved() {
    let temp = tempfile::tempdir().unwrap();
    let dir = OsDir::open(temp.path()).unwrap();
    let file = OsFile { file: dir.create("a", Mode::Private).unwrap() };
    file.write_all_at(&[7; 100], 0).unwrap();
    let refused = |_: &StdFile, _, _, _| Err(ErrorKind::Unsupported.into());
    file.allocate_by(refused, 10, 50).unwrap();
    assert_eq!(file.len().unwrap(), 100);
    file.allocate_by(refused, 300_000, 100_000).unwrap();
    assert_eq!(file.len().unwrap(), 400_000);
    let allocated = file.file.metadata().unwrap().blocks() * 512;
    assert!(allocated >= 400_000, "{allocated} bytes have space");
    let mut found = vec![1; 400_000];
    file.read_exact_at(&mut found, 0).unwrap();
    assert!(found.iter().take(100).all(|byte| *byte == 7));
    assert!(found.iter().skip(100).all(|byte| *byte == 0));
}

/// A limit on file sizes replaces a full disk. It applies to a whole process, so the test has its
/// own.
#[test]
fn an_allocation_that_fails_half_way_leaves_the_length() {
    const CHILD: &str = "CODEX_TEST_CHILD_DIR";
    if let Ok(path) = std::env::var(CHILD) {
        return allocate_beyond_the_limit(&OsDir::open(path).unwrap());
    }
    let temp = tempfile::tempdir().unwrap();
    let child = Command::new("sh")
        .args(["-c", "trap '' XFSZ && ulimit -f 256 && exec \"$0\" --exact \"$1\""])
        .arg(std::env::current_exe().unwrap())
        .arg("vfs::os::tests::an_allocation_that_fails_half_way_leaves_the_length")
        .env(CHILD, temp.path())
        .output()
        .unwrap();
    assert!(child.status.success(), "{child:?}");
    let told = String::from_utf8(child.stdout).unwrap();
    assert!(told.contains("1 passed"), "{told}");
}

fn allocate_beyond_the_limit(dir: &OsDir) {
    let file = OsFile { file: dir.create("a", Mode::Private).unwrap() };
    file.write_all_at(&[7; 100], 0).unwrap();
    file.allocate(0, 1 << 24).unwrap_err();
    assert_eq!(file.len().unwrap(), 100);
    let refused = |_: &StdFile, _, _, _| Err(ErrorKind::Unsupported.into());
    file.allocate_by(refused, 0, 1 << 24).unwrap_err();
    assert_eq!(file.len().unwrap(), 100);
}
