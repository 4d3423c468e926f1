//! `backup`: making, listing, verifying, restoring and pruning.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::common::{Folder, field};

/// Returns a folder with a store and two backups, of the commits 1 and 2. The store has commit 3.
fn folder() -> Folder {
    let folder = Folder::with_store();
    for value in ["1", "2"] {
        folder.ok(&["set", "app.db", "a", value]);
        folder.ok(&["backup", "create", "app.db"]);
    }
    folder.ok(&["set", "app.db", "a", "3"]);
    folder
}

#[test]
fn backups_are_made_listed_and_verified() {
    let folder = folder();
    let list = folder.ok(&["backup", "list", "app.db"]);
    let commits: Vec<Vec<&str>> =
        list.lines().map(|line| line.split_whitespace().take(2).collect()).collect();
    assert_eq!(commits, [["number", "commit"], ["1", "2"], ["2", "1"]]);
    let json = folder.ok(&["backup", "list", "app.db", "--json"]);
    assert!(json.lines().all(|line| line.ends_with(",\"state\":\"whole\"}")), "{json}");
    let verified = folder.ok(&["backup", "verify", "app.db", "2"]);
    assert_eq!((field(&verified, "result"), field(&verified, "commit")), ("intact", "1"));
    folder.fails(&["backup", "verify", "app.db", "3"], 4, "next: `codexdb backup list STORE`");
    // A backup is read like a store, and not written.
    assert_eq!(folder.ok(&["get", "app.db.bak.2", "a"]), "1\n");
    folder.fails(&["set", "app.db.bak.2", "a", "9"], 3, "is a backup");
}

#[test]
fn a_backup_is_restored_and_the_replaced_files_are_kept() {
    let folder = folder();
    let restored = folder.ok(&["backup", "restore", "app.db", "2"]);
    assert_eq!(field(&restored, "commit"), "1");
    let kept = field(&restored, "replaced files are kept as");
    assert!(kept.starts_with("app.db.replaced.1"), "{kept}");
    assert_eq!(folder.ok(&["get", "app.db", "a"]), "1\n");
    assert_eq!(folder.ok(&["get", "app.db.replaced.1", "a"]), "3\n");
    folder.fails(&["backup", "restore", "app.db", "9"], 4, "app.db.bak.9");
    folder.fails(&["backup", "restore", "app.db"], 2, "<NUMBER>");
}

#[test]
fn a_store_that_is_open_is_not_restored() {
    let folder = folder();
    let store = folder.open("app.db");
    folder.fails(&["backup", "restore", "app.db", "1"], 5, "is open");
    drop(store);
}

#[test]
fn a_ledger_is_put_back_to_a_commit() {
    let folder = Folder::new();
    folder.ok(&["init", "app.db", "--form", "ledger"]);
    for value in ["1", "2", "3"] {
        folder.ok(&["set", "app.db", "a", value]);
    }
    let restored = folder.ok(&["backup", "restore", "app.db", "--commit", "2"]);
    assert_eq!(field(&restored, "commit"), "2");
    assert_eq!(folder.ok(&["get", "app.db", "a"]), "2\n");
    folder.fails(&["backup", "restore", "app.db", "--commit", "9"], 2, "0..=2");
}

#[test]
fn old_backups_are_removed() {
    let folder = folder();
    assert_eq!(folder.ok(&["backup", "prune", "app.db", "--keep", "1"]), "removed  app.db.bak.2\n");
    let run = folder.run(&["backup", "prune", "app.db", "--keep", "1"]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), "removed  none\n"));
    let made = folder.ok(&["backup", "create", "app.db", "--keep", "1"]);
    assert_eq!((field(&made, "commit"), field(&made, "new")), ("3", "yes"), "{made}");
    assert!(!folder.path("app.db.bak.2").exists());
    folder.fails(&["backup", "prune", "app.db", "--keep", "0"], 2, "0 is not in");
}

#[test]
fn a_damaged_backup_is_told() {
    let folder = folder();
    let path = folder.path("app.db.bak.1");
    let mut bytes = fs::read(&path).unwrap();
    // The last header of the image.
    let at = bytes.len() - 100;
    bytes[at] ^= 1;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, &bytes).unwrap();
    folder.fails(&["backup", "verify", "app.db", "1"], 7, "app.db.bak.1");
    folder.fails(&["backup", "restore", "app.db", "1"], 7, "app.db.bak.1");
    assert_eq!(folder.ok(&["get", "app.db", "a"]), "3\n");
}

#[test]
fn a_copy_is_made_at_another_place() {
    let folder = folder();
    let made = folder.ok(&["backup", "create", "app.db", "--to", "copy.db"]);
    assert_eq!((field(&made, "commit"), field(&made, "path")), ("3", "copy.db"));
    assert_eq!(folder.ok(&["get", "copy.db", "a"]), "3\n");
    folder.fails(&["backup", "create", "app.db", "--to", "copy.db"], 3, "copy.db");
}

#[test]
fn a_lost_store_with_backups_is_not_made_anew() {
    let folder = folder();
    for entry in fs::read_dir(folder.path(".")).unwrap() {
        let path = entry.unwrap().path();
        if !path.to_str().unwrap().contains(".bak.") {
            fs::remove_file(path).unwrap();
        }
    }
    folder.fails(&["set", "app.db", "a", "1", "--create"], 4, "`codexdb backup restore`");
    folder.ok(&["backup", "restore", "app.db", "1"]);
    assert_eq!(folder.ok(&["get", "app.db", "a"]), "2\n");
}
