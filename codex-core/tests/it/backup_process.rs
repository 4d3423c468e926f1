//! Tests of stores of several processes in one directory, with names that are prefixes of each
//! other. This is a program of its own, because a new process holds the locks of its parent until
//! it runs its own program.

use std::path::Path;
use std::process::Command;

use codex_core::{BackupPolicy, Backups, Error, Store};

fn is_foreign(error: &Error) -> bool {
    matches!(error, Error::Backup(error) if matches!(**error, codex_backup::Error::Foreign { .. }))
}

const CHILD_FOLDER: &str = "CODEX_TEST_CHILD_FOLDER";
const CHILD_NAME: &str = "CODEX_TEST_CHILD_NAME";

/// Writes to and rotates the store that the environment names.
fn write_and_rotate(folder: &Path, name: &str) {
    let policy = BackupPolicy::keep(2).every_commits(3);
    let store = Store::options().backups(policy).open(folder.join(name)).unwrap();
    for n in 1..=60_u64 {
        store.set("whose", &name.to_owned()).unwrap();
        store.set("n", &n).unwrap();
        if n % 5 == 0 {
            store.back_up().unwrap();
        }
    }
    store.back_up().unwrap();
    store.close().unwrap();
}

#[test]
fn two_processes_with_stores_whose_names_are_prefixes_leave_each_others_backups_alone() {
    if let (Some(folder), Ok(name)) = (std::env::var_os(CHILD_FOLDER), std::env::var(CHILD_NAME)) {
        // This is the child.
        return write_and_rotate(Path::new(&folder), &name);
    }
    let folder = tempfile::tempdir().unwrap();
    // A foreign store with the name of a backup, and a link to another store.
    let store = Store::open(folder.path().join("x.db")).unwrap();
    store.set("n", &1_u64).unwrap();
    store.close().unwrap();
    drop(store);
    let ours = Store::open(folder.path().join("b.db")).unwrap();
    std::fs::copy(folder.path().join("x.db"), folder.path().join("b.db.bak.1")).unwrap();
    let theirs = std::fs::read(folder.path().join("b.db.bak.1")).unwrap();

    let this_test = "backup_process::two_processes_with_stores_whose_names_are_prefixes_\
         leave_each_others_backups_alone";
    let names = ["a.db", "a.db.backup", "a", "a.db2"];
    let children = names.map(|name| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", this_test])
            .env(CHILD_FOLDER, folder.path())
            .env(CHILD_NAME, name)
            .spawn()
            .unwrap()
    });
    // This process has the foreign backup open.
    ours.set("n", &1_u64).unwrap();
    for _ in 0..5 {
        let error = ours.back_up().unwrap_err();
        assert!(is_foreign(&error), "{error}");
    }
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(std::fs::read(folder.path().join("b.db.bak.1")).unwrap(), theirs);
    for name in names {
        let backups = Backups::of(folder.path().join(name)).unwrap();
        let listed = backups.list().unwrap();
        assert_eq!(listed.len(), 2, "{name}");
        for entry in listed {
            backups.verify(entry.index).unwrap();
            let store = Store::options().read_only(true).open(&entry.path).unwrap();
            assert_eq!(store.get::<String>("whose").unwrap().as_deref(), Some(name));
        }
        assert_eq!(backups.verify(1).unwrap().facts.seq, 120, "{name}");
    }
}
