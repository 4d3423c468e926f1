//! The earlier states of a ledger, and the changes between them.

use codex_core::crypto::Key;
use codex_core::{Form, Store};
use codexdb::view::View;
use serde_json::Value;

use crate::common::Folder;
use crate::view::{Shown, entries};

/// A folder with a ledger of five commits: three sets, one batch, and a clear with a set after it.
fn ledger() -> Folder {
    let folder = Folder::new();
    folder.ok(&["init", "app.db", "--form", "ledger"]);
    for (key, value) in [("a", "1"), ("b", "2"), ("a", "3")] {
        folder.ok(&["set", "app.db", key, value]);
    }
    let store = folder.open("app.db");
    let mut batch = store.batch();
    batch.remove("b").unwrap().set_bytes("c", b"4").unwrap().set_bytes("a", b"5").unwrap();
    batch.commit().unwrap();
    let mut batch = store.batch();
    batch.clear().set_bytes("d", b"6").unwrap();
    batch.commit().unwrap();
    store.close().unwrap();
    drop(store);
    folder
}

#[test]
fn the_slider_shows_every_earlier_state() {
    let folder = ledger();
    let shown = Shown::enter(&folder, &["app.db"]);
    let times = shown.json("time");
    assert_eq!((&times["oldest"], &times["last"]), (&0.into(), &5.into()));
    assert_eq!(times["buckets"].as_array().unwrap().len(), 5);
    assert_eq!(times["buckets"][3]["changes"], 3);
    let states: [&[(&str, &str)]; 6] = [
        &[],
        &[("a", "1")],
        &[("a", "1"), ("b", "2")],
        &[("a", "3"), ("b", "2")],
        &[("a", "5"), ("c", "4")],
        &[("d", "6")],
    ];
    // Forward, back, and over commits.
    for at in [0, 1, 2, 3, 4, 5, 2, 4, 0, 3] {
        let expected: Vec<_> =
            states[at].iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert_eq!(entries(&shown, &format!("at={at}")), expected, "after commit {at}");
    }
    assert_eq!(shown.json("value?key=a&at=1")["text"], "1");
    assert_eq!(shown.json("value?key=a&at=4")["codec"], "raw");
    assert_eq!(shown.json("value?key=a&at=3")["codec"], "json");
    assert_eq!(shown.json("value?key=a"), Value::Null);
    assert_eq!(shown.json("tree?at=2")["keys"], 2);
    for call in ["list?at=6", "value?key=a&at=6", "moment?at=6", "list?at=x"] {
        assert_eq!(shown.api(call).status, 400, "{call}");
    }
}

#[test]
fn the_changes_of_a_commit_and_since_it_are_shown() {
    let folder = ledger();
    let shown = Shown::enter(&folder, &["app.db"]);
    let changes = |found: &Value| {
        let rows = found["rows"].as_array().unwrap().clone();
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let row = |row: &Value| ["key", "change", "before", "after"].map(|name| text(&row[name]));
        rows.iter().map(|found| row(found).join(" ")).collect::<Vec<_>>()
    };
    let first = shown.json("moment?at=1");
    assert_eq!(changes(&first), ["a added - 1"]);
    let batch = shown.json("moment?at=4");
    assert_eq!(changes(&batch), ["a changed 3 5", "b removed 2 -", "c added - 4"]);
    assert_eq!((&batch["added"], &batch["changed"]), (&1.into(), &1.into()));
    assert!(batch["time_us"].as_i64().unwrap() >= first["time_us"].as_i64().unwrap());
    let clear = shown.json("moment?at=5");
    assert_eq!(changes(&clear), ["a removed 5 -", "c removed 4 -", "d added - 6"]);
    assert_eq!((&clear["cleared"], &batch["cleared"]), (&true.into(), &false.into()));
    assert_eq!(shown.json("moment?at=0")["time_us"], Value::Null);
    let since = shown.json("diff?at=3");
    assert_eq!(changes(&since), ["a removed 3 -", "b removed 2 -", "d added - 6"]);
    assert_eq!((&since["removed"], &since["upto"]), (&2.into(), &5.into()));
    assert_eq!(changes(&shown.json("diff?at=3&after=a")), ["b removed 2 -", "d added - 6"]);
    assert_eq!(changes(&shown.json("diff?at=5")), [""; 0]);
    let history = shown.json("history?key=a");
    let row = |row: &Value| format!("{} {}", row["seq"], row["preview"].as_str().unwrap_or("-"));
    let rows = history["rows"].as_array().unwrap();
    assert_eq!(rows.iter().map(row).collect::<Vec<_>>(), ["1 1", "3 3", "4 5", "5 -"]);
    assert_eq!(shown.json("history?key=none")["total"], 0);
    // Those since a commit, at which the key was there.
    let later = shown.json("history?key=b&after=3");
    assert_eq!((&later["total"], &later["upto"]), (&1.into(), &5.into()));
    assert_eq!(later["rows"][0]["removed"], true);
    assert_eq!(shown.json("history?key=b&after=4")["total"], 0, "the clear finds none");
    assert_eq!(shown.api("history?key=b&after=6").status, 400);
    let later = shown.json("history?key=a&after=1");
    assert_eq!((&later["total"], &later["rows"][0]["seq"]), (&3.into(), &3.into()));
}

#[test]
fn many_changes_are_shown_in_parts() {
    let folder = Folder::new();
    folder.ok(&["init", "app.db", "--form", "ledger"]);
    let store = folder.open("app.db");
    let mut batch = store.batch();
    for number in 0..500 {
        batch.set_bytes(format!("{number:03}"), b"v").unwrap();
    }
    batch.commit().unwrap();
    store.close().unwrap();
    drop(store);
    let shown = Shown::enter(&folder, &["app.db"]);
    let (mut keys, mut after) = (Vec::new(), String::new());
    loop {
        let part = shown.json(&format!("diff?at=0&after={after}"));
        keys.extend(part["rows"].as_array().unwrap().iter().map(|row| row["key"].clone()));
        if after.is_empty() {
            assert_eq!(part["added"], 500);
        }
        let Some(next) = part["next"].as_str() else { break };
        next.clone_into(&mut after);
    }
    assert_eq!(
        keys,
        (0..500).map(|number| Value::from(format!("{number:03}"))).collect::<Vec<_>>()
    );
}

#[test]
fn an_expired_entry_is_in_the_states_before_its_time() {
    let folder = Folder::new();
    folder.ok(&["init", "app.db", "--form", "ledger"]);
    // The second one is over when it is set. Its removal may be a third commit.
    for (key, expires_us) in [("b", 4_000_000_000_000_000_i64), ("a", 1)] {
        let line =
            format!(r#"{{"key":"{key}","codec":"json","value":2,"expires_us":{expires_us}}}"#);
        folder.run_with(&["import", "app.db"], line.as_bytes());
    }
    let shown = Shown::enter(&folder, &["app.db"]);
    assert_eq!(shown.json("history?key=a")["rows"][0]["seq"], 2);
    assert_eq!(entries(&shown, "at=2"), [("b".to_owned(), "2".to_owned())]);
    assert_eq!(shown.json("value?key=b&at=2")["expires_us"], 4_000_000_000_000_000_i64);
}

#[test]
fn the_past_of_an_encrypted_ledger_is_read_with_its_key() {
    let folder = Folder::new();
    std::fs::write(folder.path("pass"), "correct horse").unwrap();
    let key = ["--passphrase", "file:pass"];
    folder.ok(&[&["init", "app.db", "--form", "ledger"], &key[..]].concat());
    for value in ["\"first secret\"", "\"second secret\""] {
        folder.ok(&[&["set", "app.db", "user", value], &key[..]].concat());
    }
    let shown = Shown::enter(&folder, &[&["app.db"], &key[..]].concat());
    for call in ["moment?at=1", "diff?at=1", "history?key=user", "value?key=user&at=1"] {
        let reply = shown.api(call);
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(!reply.body.contains("secret"), "{call}: {}", reply.body);
    }
    drop(shown);
    let shown = Shown::enter(&folder, &[&["app.db", "--show-values"], &key[..]].concat());
    assert_eq!(shown.json("value?key=user&at=1")["text"], "\"first secret\"");
}

#[test]
fn a_rekey_of_the_open_ledger_hides_no_commit() {
    let folder = Folder::new();
    let key = || Key::raw(&[7; 32]).unwrap();
    let options = Store::options().form(Form::Ledger).key(key());
    let store = options.open(folder.path("app.db")).unwrap();
    store.set_bytes("a", "1").unwrap();
    let server = View::new(&store).key(key()).show_values(true).serve().unwrap();
    let shown = Shown::of(&server);
    assert_eq!(shown.json("value?key=a&at=1")["text"], "1");
    store.rekey(key()).unwrap();
    for value in 2..=3 {
        store.set_bytes("a", value.to_string()).unwrap();
        let found = shown.json(&format!("value?key=a&at={value}"));
        assert_eq!(found["text"], value.to_string());
    }
    assert_eq!(shown.json("value?key=a&at=1")["text"], "1");
    assert_eq!(shown.json("history?key=a")["total"], 3);
}

#[test]
fn a_store_that_is_no_ledger_has_no_past() {
    let folder = Folder::with_store();
    let shown = Shown::enter(&folder, &["app.db"]);
    assert_eq!(shown.json("store")["ledger"], false);
    for call in ["time", "moment?at=0", "diff?at=0", "history?key=a", "list?at=0"] {
        assert_eq!(shown.api(call).status, 404, "{call}");
    }
}
