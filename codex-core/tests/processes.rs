//! Tests of several processes on one path: openers, started programs, a removed lock file, other
//! names. This is a program of its own, because a new process holds the locks of its parent until
//! it runs its own program.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::indexing_slicing,
    reason = "a program of its own"
)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use codex_core::vfs::LockHolder;
use codex_core::{Error, Form, StorageError, Store};

const FORMS: [Form; 3] = [Form::Wal, Form::Snapshot, Form::Ledger];

/// The role of the child, in the test that starts it.
const ROLE: &str = "CODEX_TEST_CHILD_ROLE";
const PATH: &str = "CODEX_TEST_CHILD_PATH";

/// Starts this program again, to run the test `test` as `role` on the store at `path`.
fn start(test: &str, role: &str, path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ROLE, role)
        .env(PATH, path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Returns the role and the path of a child.
fn role() -> Option<(String, std::path::PathBuf)> {
    Some((std::env::var(ROLE).ok()?, std::env::var_os(PATH)?.into()))
}

fn open(path: &Path) -> Result<Store, Error> {
    Store::options().create(false).lock_timeout(Duration::ZERO).open(path)
}

fn is_locked(result: &Result<Store, Error>) -> bool {
    matches!(result, Err(Error::Storage(StorageError::Locked { .. })))
}

#[test]
fn a_store_is_opened_and_closed_beside_a_thread_that_starts_programs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    Store::open(&path).unwrap().close().unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                assert!(Command::new("true").status().unwrap().success());
            }
        });
        let refused = (0..300).map(|_| open(&path).map(|store| store.close().unwrap()));
        let refused: Vec<_> = refused.filter_map(Result::err).collect();
        done.store(true, Ordering::Relaxed);
        assert!(refused.is_empty(), "refused {} times of 300: {}", refused.len(), refused[0]);
    });
}

#[test]
fn an_open_store_is_locked_whatever_became_of_its_lock_file_and_by_every_name() {
    const TEST: &str = "an_open_store_is_locked_whatever_became_of_its_lock_file_and_by_every_name";
    if let Some((role, path)) = role() {
        let reader = Store::options().read_only(true).open(&path);
        let writer = open(&path);
        let locked = is_locked(&reader) && is_locked(&writer);
        assert_eq!(role == "refused", locked, "{reader:?} {writer:?}");
        assert_eq!(role == "admitted", reader.is_ok() && writer.is_err(), "{reader:?} {writer:?}");
        return;
    }
    let check = |role: &str, path: &Path, when: &str| {
        let output = start(TEST, role, path).wait_with_output().unwrap();
        assert!(output.status.success(), "{when}: {}", String::from_utf8_lossy(&output.stdout));
    };
    for form in FORMS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let store = Store::options().form(form).open(&path).unwrap();
        store.set("k", &1_u64).unwrap();
        check("refused", &path, "the same path");
        std::fs::remove_file(folder.path().join("a.db.lock")).unwrap();
        check("refused", &path, "after the lock file was removed");
        store.set("k", &2_u64).unwrap();
        store.checkpoint().unwrap();
        std::fs::remove_file(folder.path().join("a.db.lock")).unwrap();
        check("refused", &path, "after another file took the name");
        std::fs::hard_link(&path, folder.path().join("b.db")).unwrap();
        check("refused", &folder.path().join("b.db"), "by a hard link");
        std::os::unix::fs::symlink("a.db", folder.path().join("c.db")).unwrap();
        check("refused", &folder.path().join("c.db"), "by a symbolic link");
        store.set("k", &3_u64).unwrap();
        store.close().unwrap();
        check("admitted", &path, "after the close");
        assert_eq!(open(&path).unwrap().get::<u64>("k").unwrap(), Some(3), "{form}");
    }
}

#[test]
fn readers_share_the_store_and_keep_writers_out_whatever_became_of_the_lock_file() {
    for form in FORMS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        Store::options().form(form).open(&path).unwrap().close().unwrap();
        let read = || Store::options().read_only(true).open(&path);
        let reader = read().unwrap();
        std::fs::remove_file(folder.path().join("a.db.lock")).unwrap();
        let another = read().unwrap();
        assert!(is_locked(&open(&path)), "{form}");
        drop((reader, another));
        open(&path).unwrap();
    }
}

/// Each of four processes opens the store repeatedly and increments a count, while their parent
/// removes the lock file. No increment is lost.
#[test]
fn processes_that_take_turns_lose_nothing_while_the_lock_file_is_removed() {
    const TEST: &str = "processes_that_take_turns_lose_nothing_while_the_lock_file_is_removed";
    const ROUNDS: u64 = 25;
    if let Some((_, path)) = role() {
        for _ in 0..ROUNDS {
            let options = Store::options().create(false).lock_timeout(Duration::from_secs(300));
            let store = options.open(&path).unwrap();
            store.update("n", |n: Option<u64>| Some(n.unwrap_or(0) + 1)).unwrap();
            store.close().unwrap();
        }
        return;
    }
    for form in FORMS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        Store::options().form(form).open(&path).unwrap().close().unwrap();
        let mut children = [0; 4].map(|_| start(TEST, "count", &path));
        let mut removed = 0;
        while children.iter_mut().any(|child| child.try_wait().unwrap().is_none()) {
            removed += u64::from(std::fs::remove_file(folder.path().join("a.db.lock")).is_ok());
            std::thread::yield_now();
        }
        for child in children {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        }
        assert!(removed > 0);
        let store = open(&path).unwrap();
        assert_eq!(store.get::<u64>("n").unwrap(), Some(4 * ROUNDS), "{form}");
    }
}

#[test]
fn a_killed_process_leaves_the_store_free() {
    use std::io::Read as _;

    const TEST: &str = "a_killed_process_leaves_the_store_free";
    if let Some((_, path)) = role() {
        let store = open(&path).unwrap();
        store.set("k", &7_u64).unwrap();
        println!("open");
        // Runs until the parent kills this process.
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    Store::open(&path).unwrap().close().unwrap();
    let mut child = start(TEST, "hold", &path);
    let mut told = child.stdout.take().unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"open\n") {
        let mut byte = [0];
        told.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    assert_eq!(holder(&path), LockHolder::Process(child.id()));
    let id = child.id();
    child.kill().unwrap();
    child.wait().unwrap();
    // The killed process has left its id in the lock file, and holds nothing any more.
    let reader = Store::options().read_only(true).open(&path).unwrap();
    assert_eq!(signer(&path)[..4], id.to_le_bytes());
    assert_eq!(holder(&path), LockHolder::Readers);
    drop(reader);
    let store = open(&path).unwrap();
    assert_eq!(store.get::<u64>("k").unwrap(), Some(7));
    assert_eq!(holder(&path), LockHolder::ThisProcess);
    assert_eq!(signer(&path)[..4], std::process::id().to_le_bytes());
    store.close().unwrap();
    assert_eq!(signer(&path), [0; 12], "a close removes the id");
}

/// Each container has a process 1. A process with the id of this one is not this one.
#[test]
fn another_process_with_the_same_id_is_another_process() {
    use std::os::unix::fs::FileExt;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let _store = Store::open(&path).unwrap();
    let lock = std::fs::OpenOptions::new().write(true).open(path.with_extension("db.lock"));
    lock.unwrap().write_all_at(&[7; 8], 20).unwrap();
    assert_eq!(holder(&path), LockHolder::Process(std::process::id()));
}

#[test]
fn a_snapshot_keeps_its_note_beside_the_id_of_its_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let note = || std::fs::read(path.with_extension("db.lock")).unwrap()[..16].to_vec();
    let store = Store::options().form(Form::Snapshot).open(&path).unwrap();
    store.set("k", &7_u64).unwrap();
    store.close().unwrap();
    let noted = note();
    assert_ne!(noted, [0; 16]);
    let _store = open(&path).unwrap();
    assert_eq!(note(), noted);
}

/// A writer is killed again and again beside a follower, which lives on. Each commit sets a count
/// and a key to the same number.
#[test]
fn no_commit_that_a_follower_showed_is_missing_after_its_writer_was_killed() {
    const TEST: &str = "no_commit_that_a_follower_showed_is_missing_after_its_writer_was_killed";
    const KEYS: u64 = 50;
    let key = |n: u64| format!("key/{}", n % KEYS);
    if let Some((role, path)) = role() {
        let options = Store::options().create(false).durability(role.parse().unwrap());
        // Small logs, so that checkpoints and kills meet.
        let small = codex_core::CheckpointPolicy::default().floor_bytes(20_000).ratio(0.1);
        let is_wal = path.ends_with("wal.db");
        let store = if is_wal { options.checkpoint(small) } else { options }.open(&path).unwrap();
        let from: u64 = store.get("n").unwrap().unwrap_or(0);
        for n in from + 1.. {
            let value = vec![n; usize::try_from(n % 60).unwrap()];
            let mut batch = store.batch();
            batch.set(key(n), &(n, value)).unwrap().set("n", &n).unwrap();
            batch.commit().unwrap();
        }
    }
    let seed: u64 = std::env::var("CODEX_SEED").map_or(1, |seed| seed.parse().unwrap());
    let scale: f64 = std::env::var("CODEX_SCALE").map_or(1.0, |scale| scale.parse().unwrap());
    let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        ("wal.db", Form::Wal, "sync"),
        ("ledger.db", Form::Ledger, "sync"),
        ("wal.db", Form::Wal, "os"),
    ];
    let (mut kills, mut shown_last) = (0_u64, 0);
    for (name, form, level) in cases {
        let path = folder.path().join(level).join(name);
        let options = Store::options().form(form).create_folder(true);
        options.open(&path).unwrap().close().unwrap();
        let follower = Store::options().follow(true).open(&path).unwrap();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        for _ in 0..((2.0 * scale) as u32).max(1) {
            let mut child = start(TEST, level, &path);
            // Killed after a random number of commits was shown, and some steps of the loop more.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let until = follower.stats().storage.seq + 1 + (random >> 33) % 300;
            let mut shown = 0;
            while follower.stats().storage.seq < until {
                follower.refresh().unwrap();
                shown = whole(&follower.snapshot(), key);
            }
            child.kill().unwrap();
            child.wait().unwrap();
            follower.refresh().unwrap();
            shown = shown.max(whole(&follower.snapshot(), key));
            let store = open(&path).unwrap();
            let recovered = store.get::<u64>("n").unwrap().unwrap_or(0);
            assert!(recovered >= shown, "{form} {level}: {shown} was shown, {recovered} is there");
            assert_eq!(whole(&store.snapshot(), key), recovered);
            assert_eq!(follower.refresh().unwrap(), store.stats().storage.seq);
            assert_eq!(whole(&follower.snapshot(), key), recovered);
            store.close().unwrap();
            (kills, shown_last) = (kills + 1, shown);
        }
        println!("{form} {level}: {} reloads", follower.stats().follow.unwrap().reloads);
    }
    println!("{kills} kills, {shown_last} shown at the last");
}

/// Returns the count in the snapshot, whose last commits are whole.
fn whole(snapshot: &codex_core::Snapshot, key: impl Fn(u64) -> String) -> u64 {
    let last = snapshot.get::<u64>("n").unwrap().unwrap_or(0);
    for n in last.saturating_sub(40).max(1)..=last {
        let (count, value): (u64, Vec<u64>) = snapshot.get(key(n)).unwrap().unwrap();
        assert_eq!((count, value.len()), (n, usize::try_from(n % 60).unwrap()), "of {last}");
    }
    last
}

/// Returns the holder that the refusal of a writer names.
fn holder(path: &Path) -> LockHolder {
    match open(path) {
        Err(Error::Storage(StorageError::Locked { holder, .. })) => holder,
        other => panic!("{other:?}"),
    }
}

/// Returns the signature in the lock file.
fn signer(path: &Path) -> Vec<u8> {
    std::fs::read(path.with_extension("db.lock")).unwrap()[16..28].to_vec()
}

/// A thread starts when there is work for it, so that a program may open many stores.
#[cfg(target_os = "linux")]
#[test]
fn a_store_that_only_waits_has_no_thread() {
    const TEST: &str = "a_store_that_only_waits_has_no_thread";
    let tasks = || std::fs::read_dir("/proc/self/task").unwrap().count();
    if let Some((_, path)) = role() {
        let before = tasks();
        let threads = || tasks() - before;
        let interval = codex_core::Durability::Interval(Duration::from_secs(3600));
        let small = codex_core::CheckpointPolicy::default().floor_bytes(0);
        let lazy = || Store::options().durability(interval);
        let stores: Vec<_> = FORMS
            .into_iter()
            .flat_map(|form| [Store::options().form(form), lazy().form(form)])
            .enumerate()
            .map(|(n, options)| options.open(path.with_extension(n.to_string())).unwrap())
            .collect();
        assert_eq!(threads(), 0, "after opening");
        for store in &stores {
            store.set("k", &1_u64).unwrap();
            assert_eq!(store.get::<u64>("k").unwrap(), Some(1));
        }
        assert_eq!(threads(), 3, "one for each store whose commits are to be synced");
        let store = Store::options().checkpoint(small).open(path.with_extension("small")).unwrap();
        store.set("k", &[0_u8; 4_096].as_slice()).unwrap();
        assert_eq!(threads(), 4, "one for the log that has outgrown its image");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let output = start(TEST, "count", &folder.path().join("a.db")).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
