//! Commands about paths and keys that are not what a newcomer takes them for: each answer tells
//! what is there, and the next step.

use std::fs;

use serde_json::Value;

use crate::common::{Folder, field};

#[test]
fn info_about_a_folder_names_the_stores_in_it() {
    let folder = Folder::with_store();
    folder.ok(&["backup", "create", "app.db"]);
    folder.ok(&["init", "other.db", "--form", "ledger"]);
    fs::write(folder.path("text"), "no store").unwrap();
    fs::create_dir(folder.path("empty")).unwrap();
    let info = folder.ok(&["info", "."]);
    assert_eq!(
        (field(&info, "is"), field(&info, "stores in it")),
        ("a folder", "app.db, other.db")
    );
    assert_eq!(field(&info, "next"), "codexdb info ./app.db");
    let empty = folder.run(&["info", "empty"]);
    assert_eq!((empty.code, field(&empty.stdout, "stores in it")), (Some(1), "none"));
}

#[test]
fn what_is_no_store_is_told_in_the_words_of_the_program() {
    let folder = Folder::with_store();
    folder.ok(&["backup", "create", "app.db"]);
    fs::write(folder.path("text"), "no store").unwrap();
    let missing = folder.fails(&["keys", "none.db"], 4, "/none.db: there is no store\n");
    assert!(missing.stderr.contains("codexdb init"), "{missing:?}");
    // The doctor examines stores, and nothing else.
    folder.fails(&["doctor", "text"], 7, "next: check the path: the file is of another program");
    folder.fails(&["doctor", "."], 2, "name a file");
    folder.fails(&["doctor", "app.db.bak.1"], 3, "next: `codexdb verify` checks a backup");
    let past = "next: only a ledger keeps its past; `codexdb convert STORE --form ledger`";
    for args in
        [&["log", "app.db"][..], &["history", "app.db", "a"], &["get", "app.db", "a", "--at", "1"]]
    {
        folder.fails(args, 3, past);
    }
    folder.ok(&["init", "ledger.db", "--form", "ledger"]);
    folder.fails(&["history", "ledger.db", "a"], 1, "no commit has set the key a");
    fs::write(folder.path("pass"), "correct horse").unwrap();
    folder.ok(&["init", "secret.db", "--passphrase", "file:pass"]);
    assert!(field(&folder.ok(&["info", "secret.db"]), "next").contains("--passphrase"));
}

#[test]
fn each_command_that_looks_prints_json_alone() {
    let folder = Folder::with_store();
    folder.ok(&["init", "ledger.db", "--form", "ledger"]);
    for store in ["app.db", "ledger.db"] {
        folder.ok(&["set", store, "a/b", "1"]);
        folder.ok(&["backup", "create", store]);
        folder.ok(&["set", store, "c", "2"]);
    }
    for args in [
        &["info", "."][..],
        &["info", "app.db"],
        &["info", "app.db.bak.1"],
        &["get", "app.db", "c"],
        &["get", "ledger.db", "a/b", "--at", "1"],
        &["keys", "app.db"],
        &["scan", "app.db"],
        &["count", "app.db"],
        &["du", "app.db"],
        &["stats", "app.db"],
        &["verify", "app.db"],
        &["log", "ledger.db"],
        &["history", "ledger.db", "c"],
        &["diff", "app.db", "app.db.bak.1"],
        &["diff", "ledger.db", "--at", "1"],
        &["doctor", "app.db"],
        &["backup", "list", "app.db"],
        &["backup", "verify", "app.db", "1"],
        &["export", "app.db"],
    ] {
        let run = folder.run(&[args, &["--json"]].concat());
        assert!(run.stderr.is_empty() && !run.stdout.is_empty(), "{args:?}: {run:?}");
        for line in run.stdout.lines() {
            let found = serde_json::from_str::<Value>(line);
            assert!(found.is_ok_and(|found| found.is_object()), "{args:?}: {line}");
        }
    }
}
