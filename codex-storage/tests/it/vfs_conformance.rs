//! One suite for every directory of the vfs: the simulated disks must behave like a real one.

use std::io::ErrorKind;
use std::sync::Arc;

use codex_storage::vfs::{Dir, File, Kind, LockKind, Mode, Open};

/// Runs each named function on each kind of directory, as a separate test.
macro_rules! conformance {
    ($($test:ident),* $(,)?) => {
        mod os {
            $(#[test] fn $test() {
                let dir = tempfile::tempdir().unwrap();
                super::$test(&codex_storage::vfs::OsDir::open(dir.path()).unwrap());
            })*
        }
        mod mem {
            $(#[test] fn $test() {
                super::$test(&codex_storage::vfs::MemDir::new());
            })*
        }
        mod fault {
            $(#[test] fn $test() {
                super::$test(&codex_storage::vfs::fault::FaultDir::new());
            })*
        }
        mod bounded_fault {
            $(#[test] fn $test() {
                let dir = codex_storage::vfs::fault::FaultDir::new();
                dir.set_space(codex_storage::vfs::fault::Space::AtOnce(1 << 20));
                super::$test(&dir);
            })*
        }
        mod observed {
            $(#[test] fn $test() {
                let dir = std::sync::Arc::new(codex_storage::vfs::MemDir::new());
                super::$test(&codex_storage::vfs::Observed::new(dir, |_| ()));
            })*
        }
    };
}

conformance!(
    a_new_file_is_empty_and_its_name_taken,
    a_missing_file_is_not_found,
    bytes_are_read_where_they_were_written,
    writing_beyond_the_end_leaves_zeros,
    reading_beyond_the_end_is_unexpected_eof,
    an_empty_write_changes_nothing,
    a_shortened_and_regrown_file_reads_zeros,
    allocation_grows_and_keeps_what_is_there,
    a_wild_offset_is_an_error,
    a_reading_handle_refuses_to_change,
    a_frozen_file_is_writable_only_by_its_creator,
    rename_replaces_and_keeps_handles,
    rename_to_its_own_name_keeps_the_file,
    rename_of_a_missing_file_changes_nothing,
    a_reflink_to_a_taken_name_is_refused,
    a_reflink_is_a_copy_or_leaves_nothing,
    a_removed_file_lives_on_in_its_handles,
    the_list_names_every_file,
    metadata_tells_identity_and_length,
    names_that_are_no_plain_names_are_refused,
    a_writer_excludes_everybody_and_readers_share,
    a_lock_belongs_to_the_file_and_not_to_its_name,
    a_lock_file_is_created_once_and_stays,
    a_lock_of_an_existing_file_goes_along_when_that_is_renamed,
    a_file_inherits_whether_it_may_be_written,
    sync_works_through_a_reading_handle,
);

fn a_new_file_is_empty_and_its_name_taken(dir: &dyn Dir) {
    let file = create(dir, "a");
    assert_eq!(file.len().unwrap(), 0);
    assert!(file.is_empty().unwrap());
    let again = dir.open("a", Open::CreateNew(Mode::Private)).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
}

fn a_missing_file_is_not_found(dir: &dyn Dir) {
    assert_eq!(dir.open("a", Open::Read).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(dir.open("a", Open::Write).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(dir.remove("a").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(dir.metadata("a").unwrap(), None);
    assert!(dir.list().unwrap().is_empty());
}

fn bytes_are_read_where_they_were_written(dir: &dyn Dir) {
    let file = create(dir, "a");
    let long: Vec<u8> = (0..10_000_u32).map(|i| i.to_le_bytes()[0] ^ 0x5A).collect();
    file.write_all_at(&long, 0).unwrap();
    file.write_all_at(b"middle", 4_093).unwrap();
    let other = dir.open("a", Open::Read).unwrap();
    let found = contents(&*other);
    assert_eq!(found.len(), 10_000);
    assert_eq!(&found[4_093..4_099], b"middle");
    assert_eq!(found[..4_093], long[..4_093]);
    assert_eq!(found[4_099..], long[4_099..]);
    let mut part = [0; 8];
    other.read_exact_at(&mut part, 4_092).unwrap();
    assert_eq!(&part[1..7], b"middle");
}

fn writing_beyond_the_end_leaves_zeros(dir: &dyn Dir) {
    let file = create(dir, "a");
    file.write_all_at(b"x", 0).unwrap();
    file.write_all_at(b"y", 9_000).unwrap();
    let found = contents(&*file);
    assert_eq!(found.len(), 9_001);
    assert_eq!((found[0], found[9_000]), (b'x', b'y'));
    assert!(found[1..9_000].iter().all(|byte| *byte == 0));
}

fn reading_beyond_the_end_is_unexpected_eof(dir: &dyn Dir) {
    let file = create(dir, "a");
    file.write_all_at(b"abc", 0).unwrap();
    let mut buf = [0; 4];
    let beyond = file.read_exact_at(&mut buf, 0).unwrap_err();
    assert_eq!(beyond.kind(), ErrorKind::UnexpectedEof);
    assert!(file.read_exact_at(&mut buf, 1 << 40).is_err());
    file.read_exact_at(&mut [], 3).unwrap();
}

fn an_empty_write_changes_nothing(dir: &dyn Dir) {
    let file = create(dir, "a");
    file.write_all_at(&[], 100).unwrap();
    file.allocate(100, 0).unwrap();
    assert_eq!(file.len().unwrap(), 0);
}

fn a_shortened_and_regrown_file_reads_zeros(dir: &dyn Dir) {
    let file = create(dir, "a");
    file.write_all_at(&[7; 10_000], 0).unwrap();
    file.set_len(4_100).unwrap();
    assert_eq!(contents(&*file), [7; 4_100]);
    file.set_len(10_000).unwrap();
    let found = contents(&*file);
    assert!(found[..4_100].iter().all(|byte| *byte == 7));
    assert!(found[4_100..].iter().all(|byte| *byte == 0));
}

fn allocation_grows_and_keeps_what_is_there(dir: &dyn Dir) {
    let file = create(dir, "a");
    file.write_all_at(&[7; 100], 0).unwrap();
    file.allocate(0, 50).unwrap();
    assert_eq!(contents(&*file), [7; 100]);
    file.allocate(50, 100_000).unwrap();
    let found = contents(&*file);
    assert_eq!(found.len(), 100_050);
    assert!(found[..100].iter().all(|byte| *byte == 7));
    assert!(found[100..].iter().all(|byte| *byte == 0));
}

fn a_wild_offset_is_an_error(dir: &dyn Dir) {
    let file = create(dir, "a");
    assert!(file.write_all_at(b"x", u64::MAX).is_err());
    assert!(file.write_all_at(b"x", u64::MAX / 2 + 1).is_err());
    assert!(file.set_len(u64::MAX).is_err());
    assert!(file.allocate(u64::MAX, 2).is_err());
    assert!(file.allocate(0, u64::MAX / 2 + 1).is_err());
    assert!(file.read_exact_at(&mut [0], u64::MAX).is_err());
    assert_eq!(file.len().unwrap(), 0);
}

fn a_reading_handle_refuses_to_change(dir: &dyn Dir) {
    create(dir, "a").write_all_at(b"abc", 0).unwrap();
    let file = dir.open("a", Open::Read).unwrap();
    assert!(file.write_all_at(b"x", 0).is_err());
    assert!(file.set_len(0).is_err());
    assert!(file.allocate(0, 10).is_err());
    assert_eq!(contents(&*file), b"abc");
}

fn a_frozen_file_is_writable_only_by_its_creator(dir: &dyn Dir) {
    let file = dir.open("a", Open::CreateNew(Mode::Frozen)).unwrap();
    file.write_all_at(b"abc", 0).unwrap();
    let refused = dir.open("a", Open::Write).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    assert_eq!(contents(&*dir.open("a", Open::Read).unwrap()), b"abc");
}

fn rename_replaces_and_keeps_handles(dir: &dyn Dir) {
    let a = create(dir, "a");
    let b = create(dir, "b");
    a.write_all_at(b"of a", 0).unwrap();
    b.write_all_at(b"of b", 0).unwrap();
    dir.rename("a", "b").unwrap();
    assert_eq!(dir.list().unwrap(), ["b"]);
    assert_eq!(contents(&*dir.open("b", Open::Read).unwrap()), b"of a");
    a.write_all_at(b"OF", 0).unwrap();
    assert_eq!(contents(&*dir.open("b", Open::Read).unwrap()), b"OF a");
    assert_eq!(contents(&*b), b"of b");
}

fn rename_to_its_own_name_keeps_the_file(dir: &dyn Dir) {
    create(dir, "a").write_all_at(b"kept", 0).unwrap();
    dir.rename("a", "a").unwrap();
    assert_eq!(contents(&*dir.open("a", Open::Read).unwrap()), b"kept");
}

fn rename_of_a_missing_file_changes_nothing(dir: &dyn Dir) {
    create(dir, "b").write_all_at(b"kept", 0).unwrap();
    assert_eq!(dir.rename("a", "b").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(contents(&*dir.open("b", Open::Read).unwrap()), b"kept");
}

fn a_reflink_to_a_taken_name_is_refused(dir: &dyn Dir) {
    let a = create(dir, "a");
    create(dir, "b").write_all_at(b"kept", 0).unwrap();
    let refused = dir.reflink(&a, "b", Mode::Private).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
    assert_eq!(contents(&*dir.open("b", Open::Read).unwrap()), b"kept");
}

fn a_reflink_is_a_copy_or_leaves_nothing(dir: &dyn Dir) {
    let a = create(dir, "a");
    a.write_all_at(b"before", 0).unwrap();
    // Another file has the name: the copy is of the open one.
    dir.remove("a").unwrap();
    create(dir, "a").write_all_at(b"another", 0).unwrap();
    match dir.reflink(&a, "b", Mode::Frozen) {
        Ok(()) => {
            a.write_all_at(b"after!", 0).unwrap();
            assert_eq!(contents(&*dir.open("b", Open::Read).unwrap()), b"before");
            assert!(dir.open("b", Open::Write).is_err());
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert_eq!(dir.list().unwrap(), ["a"]);
        }
    }
}

fn a_removed_file_lives_on_in_its_handles(dir: &dyn Dir) {
    let old = create(dir, "a");
    old.write_all_at(b"old", 0).unwrap();
    dir.remove("a").unwrap();
    create(dir, "a").write_all_at(b"new!", 0).unwrap();
    assert_eq!(contents(&*old), b"old");
    assert_eq!(contents(&*dir.open("a", Open::Read).unwrap()), b"new!");
}

fn the_list_names_every_file(dir: &dyn Dir) {
    create(dir, "a");
    create(dir, "app.db.wal.00000000000000000001");
    create(dir, "\u{fc}");
    drop(dir.try_lock("lock", LockKind::Shared).unwrap().unwrap());
    assert_eq!(sorted(dir), ["a", "app.db.wal.00000000000000000001", "lock", "\u{fc}"]);
    assert!(dir.path("a").ends_with("a"));
    assert!(dir.available_bytes().unwrap().is_none_or(|available| available > 0));
    dir.sync().unwrap();
}

fn metadata_tells_identity_and_length(dir: &dyn Dir) {
    create(dir, "a").write_all_at(&[1; 4_321], 0).unwrap();
    create(dir, "c");
    let [a, c] = ["a", "c"].map(|name| dir.metadata(name).unwrap().unwrap());
    assert_eq!((a.kind, a.len), (Kind::File, 4_321));
    dir.rename("a", "b").unwrap();
    assert_eq!(dir.metadata("b").unwrap().unwrap().identity, a.identity);
    assert_ne!(a.identity, c.identity);
    let year_2000_us = 946_684_800_000_000;
    assert!(a.modified_us > year_2000_us);
}

fn names_that_are_no_plain_names_are_refused(dir: &dyn Dir) {
    let long = "x".repeat(256);
    for name in ["", ".", "..", "a/b", "/a", "a\0b", long.as_str()] {
        let refused = [
            dir.open(name, Open::CreateNew(Mode::Private)).map(drop),
            dir.try_lock(name, LockKind::Shared).map(drop),
            dir.metadata(name).map(drop),
            dir.remove(name),
        ];
        for refused in refused {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidFilename, "{name:?}");
        }
    }
    create(dir, "ok");
    assert!(dir.rename("ok", "../ok").is_err());
    assert_eq!(dir.list().unwrap(), ["ok"]);
    let longest = "x".repeat(255);
    dir.rename("ok", &longest).unwrap();
    assert_eq!(dir.list().unwrap(), [longest]);
}

fn a_writer_excludes_everybody_and_readers_share(dir: &dyn Dir) {
    let reader = dir.try_lock("lock", LockKind::Shared).unwrap().unwrap();
    let other = dir.try_lock("lock", LockKind::Shared).unwrap().unwrap();
    assert!(dir.try_lock("lock", LockKind::Exclusive).unwrap().is_none());
    drop(reader);
    assert!(dir.try_lock("lock", LockKind::Exclusive).unwrap().is_none());
    drop(other);
    let writer = dir.try_lock("lock", LockKind::Exclusive).unwrap().unwrap();
    assert!(dir.try_lock("lock", LockKind::Exclusive).unwrap().is_none());
    assert!(dir.try_lock("lock", LockKind::Shared).unwrap().is_none());
    assert!(dir.try_lock("another", LockKind::Exclusive).unwrap().is_some());
    drop(writer);
    assert!(dir.try_lock("lock", LockKind::Shared).unwrap().is_some());
}

/// A lock on a file that was renamed away protects nothing. The directory must report that.
fn a_lock_belongs_to_the_file_and_not_to_its_name(dir: &dyn Dir) {
    create(dir, "lock");
    create(dir, "new");
    let held = dir.try_lock("lock", LockKind::Exclusive).unwrap().unwrap();
    dir.rename("new", "lock").unwrap();
    assert!(dir.try_lock("lock", LockKind::Exclusive).unwrap().is_some());
    drop(held);
}

fn a_lock_file_is_created_once_and_stays(dir: &dyn Dir) {
    drop(dir.try_lock("lock", LockKind::Exclusive).unwrap().unwrap());
    let before = dir.metadata("lock").unwrap().unwrap();
    drop(dir.try_lock("lock", LockKind::Exclusive).unwrap().unwrap());
    assert_eq!(dir.metadata("lock").unwrap().unwrap().identity, before.identity);
    assert_eq!(dir.list().unwrap(), ["lock"]);
}

fn a_lock_of_an_existing_file_goes_along_when_that_is_renamed(dir: &dyn Dir) {
    let missing = dir.lock_existing("a", LockKind::Shared).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    dir.open("a", Open::CreateNew(Mode::Frozen)).unwrap();
    let held = dir.lock_existing("a", LockKind::Exclusive).unwrap().unwrap();
    assert_eq!(held.identity(), dir.metadata("a").unwrap().unwrap().identity);
    held.abandon();
    dir.rename("a", "b").unwrap();
    assert!(dir.lock_existing("b", LockKind::Shared).unwrap().is_none());
    drop(held);
    let _one = dir.lock_existing("b", LockKind::Shared).unwrap().unwrap();
    let _two = dir.lock_existing("b", LockKind::Shared).unwrap().unwrap();
    assert!(dir.lock_existing("b", LockKind::Exclusive).unwrap().is_none());
    assert_eq!(sorted(dir), ["b"]);
}

fn a_file_inherits_whether_it_may_be_written(dir: &dyn Dir) {
    dir.open("frozen", Open::CreateNew(Mode::Frozen)).unwrap();
    create(dir, "new");
    let missing = dir.inherit("none", "new", None).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let missing = dir.inherit("new", "none", None).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let writable = || dir.open("new", Open::Write).is_ok();
    for (from, mode, expected) in [
        ("frozen", None, false),
        ("frozen", Some(Mode::Private), true),
        ("new", Some(Mode::Frozen), false),
        ("frozen", Some(Mode::Private), true),
        ("new", None, true),
    ] {
        dir.inherit(from, "new", mode).unwrap();
        assert_eq!(writable(), expected, "{from} {mode:?}");
    }
}

fn sync_works_through_a_reading_handle(dir: &dyn Dir) {
    create(dir, "a").write_all_at(b"abc", 0).unwrap();
    dir.open("a", Open::Read).unwrap().sync().unwrap();
    dir.sync().unwrap();
}

#[cfg(unix)]
mod unix {
    //! The parts that only a real directory has: permissions, links, FIFOs.

    use std::ffi::OsStr;
    use std::io::ErrorKind;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    use std::os::unix::process::CommandExt;
    use std::process::Command;
    use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

    use codex_storage::vfs::{
        Clock, Dir, Entropy, Kind, LockKind, Mode, Open, OsClock, OsDir, OsEntropy,
    };

    /// A process has one umask, so a child process makes the files.
    #[test]
    fn modes_are_exact_whatever_the_umask() {
        if let Ok(path) = std::env::var(CHILD_DIR) {
            make_one_of_each(&OsDir::open(path).unwrap());
            return;
        }
        let temp = tempfile::tempdir().unwrap();
        let child = Command::new("sh")
            .args(["-c", "umask 0777 && exec \"$0\" --exact \"$1\""])
            .arg(std::env::current_exe().unwrap())
            .arg("vfs_conformance::unix::modes_are_exact_whatever_the_umask")
            .env(CHILD_DIR, temp.path())
            .output()
            .unwrap();
        assert!(child.status.success(), "{child:?}");
        for (name, mode) in [("private", 0o600), ("frozen", 0o400), ("lock", 0o600)] {
            let found = std::fs::metadata(temp.path().join(name)).unwrap().permissions().mode();
            assert_eq!(found & 0o7777, mode, "{name}");
        }
    }

    const CHILD_DIR: &str = "CODEX_TEST_CHILD_DIR";

    fn make_one_of_each(dir: &OsDir) {
        dir.open("private", Open::CreateNew(Mode::Private)).unwrap();
        dir.open("frozen", Open::CreateNew(Mode::Frozen)).unwrap();
        dir.try_lock("lock", LockKind::Exclusive).unwrap().unwrap();
    }

    #[test]
    fn a_file_inherits_the_permissions_and_only_changes_the_right_to_write() {
        let (temp, dir) = world();
        let mode = |name: &str| {
            std::fs::metadata(temp.path().join(name)).unwrap().permissions().mode() & 0o7777
        };
        for name in ["from", "to"] {
            dir.open(name, Open::CreateNew(Mode::Private)).unwrap();
        }
        for (from, how, to) in [
            (0o440, None, 0o440),
            (0o400, None, 0o400),
            (0o664, None, 0o664),
            (0o440, Some(Mode::Private), 0o640),
            (0o400, Some(Mode::Private), 0o600),
            (0o664, Some(Mode::Frozen), 0o444),
            (0o600, Some(Mode::Frozen), 0o400),
        ] {
            let permissions = std::fs::Permissions::from_mode(from);
            std::fs::set_permissions(temp.path().join("from"), permissions).unwrap();
            dir.inherit("from", "to", how).unwrap();
            assert_eq!(mode("to"), to, "{from:o} {how:?}");
        }
    }

    #[test]
    fn a_symbolic_link_is_told_and_never_followed() {
        let (temp, dir) = world();
        dir.open("real", Open::CreateNew(Mode::Private)).unwrap();
        std::os::unix::fs::symlink(temp.path().join("real"), temp.path().join("link")).unwrap();
        assert_eq!(dir.metadata("link").unwrap().unwrap().kind, Kind::Symlink);
        dir.open("link", Open::Read).unwrap_err();
        dir.open("link", Open::Write).unwrap_err();
        dir.open("link", Open::CreateNew(Mode::Private)).unwrap_err();
        dir.try_lock("link", LockKind::Exclusive).unwrap_err();
    }

    #[test]
    fn a_fifo_and_a_directory_are_refused_without_waiting() {
        let (temp, dir) = world();
        let made = Command::new("mkfifo").arg(temp.path().join("fifo")).status().unwrap();
        assert!(made.success());
        std::fs::create_dir(temp.path().join("sub")).unwrap();
        assert_eq!(dir.metadata("fifo").unwrap().unwrap().kind, Kind::Other);
        assert_eq!(dir.metadata("sub").unwrap().unwrap().kind, Kind::Dir);
        for how in [Open::Read, Open::Write] {
            assert_eq!(dir.open("fifo", how).unwrap_err().kind(), ErrorKind::InvalidInput);
            assert_eq!(dir.open("sub", how).unwrap_err().kind(), ErrorKind::IsADirectory);
        }
        dir.try_lock("fifo", LockKind::Exclusive).unwrap_err();
        dir.try_lock("sub", LockKind::Exclusive).unwrap_err();
    }

    #[test]
    fn a_missing_directory_and_a_file_in_its_place_are_errors() {
        let (temp, dir) = world();
        dir.open("file", Open::CreateNew(Mode::Private)).unwrap();
        let missing = OsDir::open(temp.path().join("missing")).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        let file = OsDir::open(temp.path().join("file")).unwrap_err();
        assert_eq!(file.kind(), ErrorKind::NotADirectory);
    }

    #[test]
    fn a_handle_stays_with_its_directory_when_that_is_renamed() {
        let (temp, _) = world();
        std::fs::create_dir(temp.path().join("before")).unwrap();
        let dir = OsDir::open(temp.path().join("before")).unwrap();
        std::fs::rename(temp.path().join("before"), temp.path().join("after")).unwrap();
        std::fs::create_dir(temp.path().join("before")).unwrap();
        dir.open("a", Open::CreateNew(Mode::Private)).unwrap();
        assert!(temp.path().join("after/a").exists());
        assert!(!temp.path().join("before/a").exists());
    }

    #[test]
    fn a_device_is_refused() {
        let dir = OsDir::open("/dev").unwrap();
        let refused = dir.open("full", Open::Write).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    }

    /// If the system refuses a call, the caller receives the error. A call that did nothing would
    /// succeed. The files of procfs can be neither synced nor allocated, renamed nor removed, even
    /// by the superuser.
    #[cfg(target_os = "linux")]
    #[test]
    fn what_the_system_refuses_is_an_error_of_every_call() {
        let dir = OsDir::open("/proc/self").unwrap();
        let told = |what: &str, done: std::io::Result<()>| {
            let error = done.expect_err(what);
            assert!(error.raw_os_error().is_some(), "{what}: {error}");
        };
        told("sync of a folder", dir.sync());
        told("create", dir.open("new", Open::CreateNew(Mode::Private)).map(drop));
        told("rename", dir.rename("comm", "new"));
        told("remove", dir.remove("comm"));
        told("lock", dir.try_lock("new", LockKind::Exclusive).map(drop));
        told("permissions", dir.inherit("comm", "cmdline", Some(Mode::Private)));
        let file = dir.open("oom_score_adj", Open::Write).unwrap();
        told("sync of a file", file.sync());
        told("allocate", file.allocate(0, 10));
        told("write", file.write_all_at(b"no number", 0));
        told("read", dir.open("mem", Open::Read).unwrap().read_exact_at(&mut [0], 0));
        told("length", dir.open("stat", Open::Read).unwrap().set_len(1));
    }

    /// A limit on the length of files makes the system write a part and report its length. The
    /// limit is that of a process, so a child process writes.
    #[test]
    fn a_write_of_which_the_system_takes_a_part_is_an_error() {
        if let Ok(path) = std::env::var(CHILD_DIR) {
            let file = OsDir::open(path).unwrap().open("a", Open::CreateNew(Mode::Private));
            let file = file.unwrap();
            let error = file.write_all_at(&vec![1; 64 << 10], 0).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::FileTooLarge);
            assert!((1..64 << 10).contains(&file.len().unwrap()), "a part is written");
            return;
        }
        let temp = tempfile::tempdir().unwrap();
        let child = Command::new("sh")
            .args(["-c", "trap '' XFSZ && ulimit -f 8 && exec \"$0\" --exact \"$1\""])
            .arg(std::env::current_exe().unwrap())
            .arg("vfs_conformance::unix::a_write_of_which_the_system_takes_a_part_is_an_error")
            .env(CHILD_DIR, temp.path())
            .output()
            .unwrap();
        assert!(child.status.success(), "{child:?}");
        assert!(temp.path().join("a").exists(), "the child has run");
    }

    #[test]
    fn a_file_tells_the_time_of_its_last_change_in_microseconds() {
        let (temp, dir) = world();
        dir.open("a", Open::CreateNew(Mode::Private)).unwrap();
        let file = std::fs::File::options().write(true).open(temp.path().join("a")).unwrap();
        for (at, expected) in [
            (Duration::new(1_234_567_890, 123_456_000), 1_234_567_890_123_456),
            (Duration::new(7, 0), 7_000_000),
            (Duration::from_micros(999_999), 999_999),
        ] {
            file.set_modified(UNIX_EPOCH + at).unwrap();
            assert_eq!(dir.metadata("a").unwrap().unwrap().modified_us, expected);
        }
    }

    /// A rename replaces a file in one step. An observer finds the old file or the new one. This
    /// test can only fail if there is a gap, but it may miss one.
    #[test]
    fn a_name_that_is_replaced_is_there_at_every_moment() {
        let (temp, dir) = world();
        dir.open("a", Open::CreateNew(Mode::Private)).unwrap();
        let looker = OsDir::open(temp.path()).unwrap();
        std::thread::scope(|scope| {
            let renames = scope.spawn(|| {
                for _ in 0..5_000 {
                    dir.open("b", Open::CreateNew(Mode::Private)).unwrap();
                    dir.rename("b", "a").unwrap();
                }
            });
            while !renames.is_finished() {
                assert!(looker.metadata("a").unwrap().is_some(), "the name was gone");
            }
        });
    }

    /// If no space were reserved, only the length would be set.
    #[test]
    fn what_is_allocated_has_space_holes_included() {
        let (temp, dir) = world();
        let file = dir.open("a", Open::CreateNew(Mode::Private)).unwrap();
        let space = || std::fs::metadata(temp.path().join("a")).unwrap().blocks() * 512;
        file.set_len(3 << 20).unwrap();
        assert!(space() < 1 << 20, "a hole takes no space here");
        file.allocate(1 << 20, 1 << 20).unwrap();
        assert!((1 << 20..2 << 20).contains(&space()), "{}", space());
        file.allocate(3 << 20, 1 << 20).unwrap();
        assert!((2 << 20..3 << 20).contains(&space()), "{}", space());
        assert_eq!(file.len().unwrap(), 4 << 20);
        file.set_len(0).unwrap();
        assert!(space() < 1 << 20, "{}", space());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_space_that_is_available_is_what_the_system_tells() {
        let (temp, dir) = world();
        let told = || {
            let stat = Command::new("stat").args(["-f", "-c", "%a %S"]).arg(temp.path()).output();
            let text = String::from_utf8(stat.unwrap().stdout).unwrap();
            let [blocks, size] =
                [0, 1].map(|n| text.split_whitespace().nth(n).unwrap().parse::<u64>().unwrap());
            blocks * size
        };
        let found = dir.available_bytes().unwrap().unwrap();
        // Other programs write to this disk too.
        assert!(found.abs_diff(told()) < 1 << 30, "{found} and {}", told());
        // A file system without blocks reports no free space.
        assert_eq!(OsDir::open("/proc").unwrap().available_bytes().unwrap(), None);
    }

    #[test]
    fn a_list_leaves_out_names_that_are_no_text_and_begins_at_the_start_each_time() {
        let (temp, dir) = world();
        let unreadable = temp.path().join(OsStr::from_bytes(b"name \xFF"));
        if std::fs::write(unreadable, "").is_err() {
            println!("skipped in part: this file system has no names that are not UTF-8");
        }
        for name in ["a", "b"] {
            dir.open(name, Open::CreateNew(Mode::Private)).unwrap();
        }
        for _ in 0..2 {
            let mut names = dir.list().unwrap();
            names.sort();
            assert_eq!(names, ["a", "b"]);
        }
    }

    /// The superuser takes over owner and group. Any other user keeps those that it may not assign,
    /// and gives no permissions to a group that had none.
    #[test]
    fn a_file_inherits_the_owner_and_the_group_that_may_be_given() {
        const NOBODY: u32 = 65_534;
        if let Ok(path) = std::env::var(CHILD_DIR) {
            return OsDir::open(path).unwrap().inherit("from", "to", None).unwrap();
        }
        let (temp, dir) = world();
        let at = |name: &str| temp.path().join(name);
        for name in ["from", "to", "theirs"] {
            dir.open(name, Open::CreateNew(Mode::Private)).unwrap();
        }
        std::fs::set_permissions(at("from"), PermissionsExt::from_mode(0o664)).unwrap();
        let told = |name: &str| {
            let found = std::fs::metadata(at(name)).unwrap();
            (found.uid(), found.gid(), found.mode() & 0o7777)
        };
        if chown(at("from"), Some(4_321), Some(1_234)).is_err() {
            dir.inherit("from", "to", None).unwrap();
            assert_eq!(told("to"), told("from"));
            println!("skipped in part: only the superuser gives files to others");
            return;
        }
        dir.inherit("from", "to", None).unwrap();
        assert_eq!(told("to"), (4_321, 1_234, 0o664));
        // The user `nobody` owns one of the files, and takes over the mode of a file of another
        // user.
        chown(at("to"), Some(NOBODY), Some(NOBODY)).unwrap();
        chown(temp.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact"])
            .arg("vfs_conformance::unix::a_file_inherits_the_owner_and_the_group_that_may_be_given")
            .env(CHILD_DIR, temp.path())
            .current_dir("/")
            .uid(NOBODY)
            .gid(NOBODY)
            .output();
        let child = match child {
            Err(e) if e.kind() == ErrorKind::PermissionDenied => {
                println!("skipped in part: nobody may run this program where it is");
                return;
            }
            child => child.unwrap(),
        };
        assert!(child.status.success(), "{child:?}");
        assert_eq!(told("to"), (NOBODY, NOBODY, 0o604), "the group is another one");
    }

    /// A child with a copy of a descriptor would keep files and locks open.
    #[cfg(target_os = "linux")]
    #[test]
    fn no_descriptor_is_inherited_by_a_child() {
        let (temp, dir) = world();
        let _file = dir.open("a", Open::CreateNew(Mode::Private)).unwrap();
        let _again = dir.open("a", Open::Read).unwrap();
        let _lock = dir.try_lock("lock", LockKind::Exclusive).unwrap().unwrap();
        let _other = dir.lock_existing("a", LockKind::Shared).unwrap().unwrap();
        let listed = Command::new("ls").args(["-l", "/proc/self/fd"]).output().unwrap();
        let text = String::from_utf8(listed.stdout).unwrap();
        assert!(
            text.lines().count() > 3 && !text.contains(temp.path().to_str().unwrap()),
            "{text}"
        );
    }

    #[test]
    fn the_clock_of_the_system_counts_microseconds_since_1970_and_waits() {
        let clock = OsClock::new();
        let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_micros();
        let before = since(SystemTime::now());
        let now = u128::try_from(clock.now_us()).unwrap();
        let after = since(SystemTime::now());
        assert!((before..=after).contains(&now), "{now} is not in {before}..={after}");
        // The measured time is between two measurements of another clock.
        let (outer, start) = (Instant::now(), clock.monotonic());
        let inner = Instant::now();
        clock.sleep(Duration::from_millis(2));
        assert!(inner.elapsed() >= Duration::from_millis(2), "it waits no shorter");
        let least = inner.elapsed();
        let passed = clock.monotonic().saturating_sub(start);
        assert!((least..=outer.elapsed()).contains(&passed), "{passed:?} is not {least:?}");
    }

    #[test]
    fn the_entropy_of_the_system_fills_all_that_it_is_given() {
        let mut bytes = [0; 256];
        OsEntropy.fill(&mut bytes).unwrap();
        // One of 2^64 pieces is zero.
        assert!(bytes.chunks(8).all(|piece| piece != [0; 8]), "{bytes:?}");
    }

    fn world() -> (tempfile::TempDir, OsDir) {
        let temp = tempfile::tempdir().unwrap();
        let dir = OsDir::open(temp.path()).unwrap();
        (temp, dir)
    }
}

fn create(dir: &dyn Dir, name: &str) -> Arc<dyn File> {
    dir.open(name, Open::CreateNew(Mode::Private)).unwrap()
}

fn contents(file: &dyn File) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn sorted(dir: &dyn Dir) -> Vec<String> {
    let mut names = dir.list().unwrap();
    names.sort();
    names
}
