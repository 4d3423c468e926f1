//! Changing a store: `init`, `set`, `remove`, `clear`, `checkpoint` and `convert`.

use std::fs;

use crate::common::{Folder, field};

#[test]
fn a_typo_in_a_path_makes_no_store() {
    let folder = Folder::new();
    for args in [
        ["get", "ap.db", "a"].as_slice(),
        &["info", "ap.db"],
        &["set", "ap.db", "a", "1"],
        &["remove", "ap.db", "a"],
        &["clear", "ap.db", "--yes"],
        &["checkpoint", "ap.db"],
        &["export", "ap.db"],
        &["import", "ap.db"],
        &["backup", "create", "ap.db"],
        &["convert", "ap.db", "--form", "ledger"],
    ] {
        folder.fails(args, 4, "ap.db");
    }
    assert_eq!(fs::read_dir(folder.path(".")).unwrap().filter(is_store).count(), 0);
    folder.ok(&["set", "ap.db", "a", "1", "--create"]);
    assert_eq!(folder.ok(&["get", "ap.db", "a"]), "1\n");
    // A value that is refused makes none either.
    folder.fails(&["set", "new.db", "a", "hello", "--create"], 2, "not JSON");
    assert!(!folder.path("new.db").exists());
}

/// Returns whether a file is one of a store. The lock file of an opening that failed may stay.
fn is_store(entry: &std::io::Result<fs::DirEntry>) -> bool {
    let name = entry.as_ref().unwrap().file_name();
    !name.to_str().unwrap().ends_with(".lock")
}

#[test]
fn init_makes_a_store_once_in_the_form_that_is_asked_for() {
    let folder = Folder::new();
    folder.fails(&["init", "a/b/app.db"], 4, "--create-folder");
    folder.ok(&["init", "a/b/app.db", "--create-folder", "--form", "snapshot"]);
    folder.fails(&["init", "a/b/app.db"], 3, "already exists");
    assert_eq!(field(&folder.ok(&["info", "a/b/app.db"]), "form"), "snapshot");
    folder.fails(&["init", "x.db", "--form", "tree"], 2, "wal, snapshot, ledger");
}

#[test]
fn values_keep_their_digits_and_spaces() {
    let folder = Folder::with_store();
    folder.ok(&["set", "app.db", "a", " { \"x y\" : [1.10, 123456789012345678901, \" b \"] } "]);
    assert_eq!(
        folder.ok(&["get", "app.db", "a"]),
        "{\"x y\":[1.10,123456789012345678901,\" b \"]}\n"
    );
    let store = folder.open("app.db");
    // A type of an application reads it.
    let value: serde_json::Value = store.get("a").unwrap().unwrap();
    assert_eq!(value["x y"][2], " b ");
    drop(store);
    folder.ok(&["set", "app.db", "n", "-7"]);
    assert_eq!(folder.open("app.db").get::<i32>("n").unwrap(), Some(-7));
    for refused in ["hello", "{\"a\":1,\"a\":2}", "1 2", ""] {
        folder.fails(&["set", "app.db", "a", refused], 2, "'\"hello\"'");
    }
}

#[test]
fn a_value_is_stored_as_the_type_of_an_application() {
    let folder = Folder::with_store();
    folder.ok(&["set", "app.db", "n", "18446744073709551615", "--as", "u64"]);
    let user = "{\"stars\": 5, \"name\": \"Ada B\"}";
    folder.ok(&["set", "app.db", "ada", user, "--as", "{name: str, stars: u32}"]);
    folder.fails(&["set", "app.db", "n", "-1", "--as", "u64"], 2, "`-1` is no u64");
    let store = folder.open("app.db");
    assert_eq!(store.get::<u64>("n").unwrap(), Some(u64::MAX));
    let ada: (String, u32) = store.get("ada").unwrap().unwrap();
    assert_eq!(ada, ("Ada B".to_owned(), 5));
}

#[test]
fn any_bytes_are_set_from_hex_digits_files_and_stdin() {
    let folder = Folder::with_store();
    folder.ok(&["set", "app.db", "hex", "--hex", "00ff"]);
    folder.ok(&["set", "app.db", "raw", "--raw", "not JSON"]);
    fs::write(folder.path("value"), [0, 1, 0xfe]).unwrap();
    folder.ok(&["set", "app.db", "file", "--raw", "--file", "value"]);
    // Longer than an argument may be.
    let long = format!("[{}1]", "1,".repeat(100_000));
    let run = folder.run_with(&["set", "app.db", "stdin", "--file", "-"], long.as_bytes());
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    let store = folder.open("app.db");
    assert_eq!(store.get_bytes("hex").unwrap(), [0, 0xff]);
    assert_eq!(store.get_bytes("raw").unwrap(), "not JSON");
    assert_eq!(store.get_bytes("file").unwrap(), [0, 1, 0xfe]);
    assert_eq!(store.get_bytes("stdin").unwrap(), long);
    drop(store);
    folder.fails(&["set", "app.db", "a", "--hex", "0"], 2, "hex digits");
    folder.fails(&["set", "app.db", "a"], 2, "<VALUE>");
    folder.fails(&["set", "app.db", "a", "--file", "value"], 2, "--raw");
    folder.fails(&["set", "app.db", "a", "--file", "none"], 3, "none: No such file");
}

#[test]
fn keys_are_removed_in_one_commit() {
    let folder = Folder::with_store();
    let store = folder.open("app.db");
    for key in ["a", "b", "c/1", "c/2"] {
        store.set(key, &1).unwrap();
    }
    let before = store.snapshot().seq();
    store.close().unwrap();
    drop(store);
    assert_eq!(folder.ok(&["remove", "app.db", "a", "b", "nobody"]), "removed 2 keys\n");
    assert_eq!(folder.open("app.db").snapshot().seq(), before + 1);
    assert_eq!(folder.ok(&["keys", "app.db"]), "c/1\nc/2\n");
    let run = folder.run(&["remove", "app.db", "nobody"]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), "removed 0 keys\n"));
    let json = folder.ok(&["remove", "app.db", "--prefix", "c/", "--json"]);
    assert_eq!(json, "{\"removed\":2}\n");
}

#[test]
fn clear_wants_a_yes() {
    let folder = Folder::with_store();
    folder.ok(&["set", "app.db", "a", "1"]);
    folder.fails(&["clear", "app.db"], 2, "--yes");
    assert_eq!(folder.ok(&["count", "app.db"]), "1\n");
    assert_eq!(folder.ok(&["clear", "app.db", "--yes"]), "removed 1 key\n");
    assert_eq!(folder.ok(&["count", "app.db"]), "0\n");
}

#[test]
fn a_checkpoint_leaves_an_image_and_no_log() {
    let folder = Folder::with_store();
    folder.ok(&["set", "app.db", "a", "1"]);
    folder.ok(&["checkpoint", "app.db"]);
    assert_eq!(field(&folder.ok(&["stats", "app.db"]), "log"), "0 B");
    assert_eq!(folder.ok(&["get", "app.db", "a"]), "1\n");
}

#[test]
fn a_store_is_converted_to_each_form() {
    let folder = Folder::with_store();
    folder.ok(&["set", "app.db", "a", "1"]);
    for form in ["snapshot", "ledger", "wal"] {
        let done = folder.ok(&["convert", "app.db", "--form", form]);
        assert_eq!(field(&done, "form"), form);
        assert_eq!(field(&folder.ok(&["info", "app.db"]), "form"), form);
        assert_eq!(folder.ok(&["get", "app.db", "a"]), "1\n");
    }
    folder.fails(&["convert", "app.db"], 2, "--form");
}

#[test]
fn compact_tells_how_much_space_is_free_again() {
    let folder = Folder::with_store();
    let store = folder.open("app.db");
    store.set_bytes("a", vec![7; 100_000]).unwrap();
    store.remove("a").unwrap();
    // The files as a killed process leaves them: a close would compact a small store.
    let copy = Folder::new();
    for entry in fs::read_dir(folder.path(".")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path(entry.file_name().to_str().unwrap())).unwrap();
    }
    let done = copy.ok(&["compact", "app.db", "--json"]);
    let sizes: Vec<u64> =
        done.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect();
    assert!(sizes[0] > 100_000 && sizes[1] < 10_000, "{done}");
    folder.ok(&["init", "audit.db", "--form", "ledger"]);
    folder.fails(&["compact", "audit.db"], 2, "a ledger keeps every commit");
}
