//! Failures: each has an exit code, and tells the next step on stderr.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::common::Folder;

#[test]
fn usage_is_told_on_stderr_and_help_on_stdout() {
    let folder = Folder::new();
    folder.fails(&[], 2, "Usage: codexdb");
    folder.fails(&["frobnicate"], 2, "unrecognized subcommand");
    folder.fails(&["get", "app.db"], 2, "<KEY>");
    let help = folder.ok(&["--help"]);
    assert!(help.contains("Exit codes:\n    0  yes, or done\n    1  no"), "{help}");
    assert!(folder.ok(&["--version"]).starts_with("codexdb 0."));
}

#[test]
fn a_store_that_is_open_elsewhere_is_named_with_its_holder() {
    let folder = Folder::with_store();
    let store = folder.open("app.db");
    let holder = format!("is open in another process (id {}", std::process::id());
    for args in [["verify", "app.db"].as_slice(), &["set", "app.db", "a", "1"]] {
        let run = folder.fails(args, 5, &holder);
        assert!(run.stderr.contains("next: wait for it with `--wait SECONDS`"), "{}", run.stderr);
    }
    let run = folder.fails(&["verify", "app.db", "--wait", "1"], 5, &holder);
    // A slow machine waits longer, so only the least is known.
    let waited = run.stderr.split_once("(waited ").and_then(|(_, ms)| ms.split_once(" ms)"));
    let waited = waited.and_then(|(ms, _)| ms.parse::<u64>().ok());
    assert!(waited.is_some_and(|ms| ms >= 1000), "{}", run.stderr);
    drop(store);
    assert_eq!(folder.ok(&["count", "app.db"]), "0\n");
}

#[test]
fn a_store_is_read_beside_its_writer() {
    let folder = Folder::with_store();
    let store = folder.open("app.db");
    store.set("a", "one").unwrap();
    for n in 2..4 {
        store.set("b", &n).unwrap();
        let commands =
            [["get", "app.db", "a"].as_slice(), &["count", "app.db"], &["scan", "app.db"]];
        for args in commands {
            let run = folder.run(args);
            assert_eq!(run.code, Some(0), "{args:?}: {run:?}");
            assert!(run.stderr.contains("another process has the store open"), "{}", run.stderr);
        }
        let count = folder.run(&["count", "app.db"]).stdout;
        assert_eq!(count, "2\n", "beside commit {n}");
    }
    // A snapshot has nothing that could be read on.
    let snapshot = codex_core::Store::options().form(codex_core::Form::Snapshot);
    let _snapshot = snapshot.open(folder.path("s.db")).unwrap();
    folder.fails(&["count", "s.db"], 5, "is open in another process");
}

#[test]
fn readers_share_a_store() {
    let folder = Folder::with_store();
    let reader = codex_core::Store::options().read_only(true).open(folder.path("app.db")).unwrap();
    assert_eq!(folder.ok(&["count", "app.db"]), "0\n");
    folder.fails(&["set", "app.db", "a", "1"], 5, "is open");
    drop(reader);
}

#[test]
fn a_file_that_is_no_store_is_left_as_it_is() {
    let folder = Folder::new();
    fs::write(folder.path("a.txt"), "a text").unwrap();
    fs::write(folder.path("empty"), "").unwrap();
    fs::create_dir(folder.path("folder")).unwrap();
    for args in [["get", "a.txt", "a"].as_slice(), &["set", "a.txt", "a", "1", "--create"]] {
        folder.fails(args, 7, "is not a CodexDB file");
    }
    folder.fails(&["count", "empty"], 7, "is empty");
    folder.fails(&["count", "folder"], 3, "not a regular file");
    folder.fails(&["count", "none/app.db"], 4, "its folder does not exist");
    assert_eq!(fs::read(folder.path("a.txt")).unwrap(), b"a text");
}

#[test]
fn damage_is_told_with_its_place_and_the_backups() {
    let folder = Folder::with_store();
    folder.ok(&["set", "app.db", "a", "\"a text of some length\""]);
    folder.ok(&["checkpoint", "app.db"]);
    let path = folder.path("app.db");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(6).position(|part| part == b"a text").unwrap();
    bytes[at] ^= 1;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, &bytes).unwrap();
    for args in [
        ["get", "app.db", "a"].as_slice(),
        &["verify", "app.db"],
        &["set", "app.db", "b", "1"],
        &["export", "app.db"],
    ] {
        let run = folder.fails(args, 7, "damage at offset");
        assert!(run.stderr.contains("next: `codexdb backup list STORE`"), "{}", run.stderr);
    }
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn an_unfinished_write_is_told_and_its_end_is_cut() {
    let folder = Folder::with_store();
    folder.ok(&["set", "app.db", "a", "1"]);
    let store = folder.open("app.db");
    store.set("b", &2).unwrap();
    // The files as a killed process leaves them, with half of the last frame.
    let copy = Folder::new();
    for entry in fs::read_dir(folder.path(".")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path(entry.file_name().to_str().unwrap())).unwrap();
    }
    let is_log = |entry: &fs::DirEntry| entry.file_name().to_str().unwrap().contains(".wal.");
    let logs = fs::read_dir(copy.path(".")).unwrap().map(Result::unwrap).filter(is_log);
    let log = logs.last().expect("there is a log").path();
    let mut bytes = fs::read(&log).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end - 4..=end].fill(0);
    fs::write(&log, &bytes).unwrap();
    let run = copy.run(&["count", "app.db"]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), "1\n"), "{run:?}");
    assert!(run.stderr.contains("is not read: "), "{}", run.stderr);
    let run = copy.run(&["set", "app.db", "c", "1"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stderr.contains("was cut off: "), "{}", run.stderr);
    assert_eq!(copy.ok(&["keys", "app.db"]), "a\nc\n");
}
