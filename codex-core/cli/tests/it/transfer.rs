//! `export` and `import`: the same bytes, keys and codecs in another store.

use std::fs;
use std::time::{Duration, UNIX_EPOCH};

use codex_core::{Codec, Store};

use crate::common::Folder;

/// Fills `app.db` with `count` entries of all codecs, under keys with all bytes.
fn fill(folder: &Folder, count: u64) {
    for codec in [Codec::Json, Codec::Bincode] {
        let store = Store::options().codec(codec).open(folder.path("app.db")).unwrap();
        let mut batch = store.batch();
        for n in 0..count {
            let mut key = n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes().to_vec();
            key.push(u8::from(codec == Codec::Json));
            let text = format!("\u{9b} \"{n}\" \n\\ {}", n % 7);
            let expires = UNIX_EPOCH + Duration::from_micros(4_102_444_800_000_000 + n);
            match n % 5 {
                3 => batch.set_with_expiry(&key, &text, expires).unwrap(),
                4 => batch.set_bytes_with_expiry(&key, text, expires).unwrap(),
                0 => batch.set(&key, &(n, text, f64::from(u32::MAX) / 3.0)).unwrap(),
                1 => batch.set_bytes(&key, text).unwrap(),
                _ => batch.set_bytes(&key, n.to_le_bytes()).unwrap(),
            };
        }
        batch.commit().unwrap();
        store.close().unwrap();
    }
}

#[test]
fn an_export_of_an_import_is_the_same_export() {
    let folder = Folder::with_store();
    // All in the continuous integration, a tenth otherwise.
    let count = if std::env::var_os("CODEX_WHOLE").is_some() { 100_000 } else { 10_000 };
    fill(&folder, count / 2);
    folder.ok(&["export", "app.db", "first.jsonl"]);
    assert_eq!(
        folder.ok(&["import", "copy.db", "first.jsonl", "--create"]),
        format!("imported {count} keys\n")
    );
    folder.ok(&["export", "copy.db", "second.jsonl"]);
    let first = fs::read(folder.path("first.jsonl")).unwrap();
    assert!(first == fs::read(folder.path("second.jsonl")).unwrap(), "the exports differ");
    // The stores agree too, byte by byte.
    let (from, to) = (folder.open("app.db"), folder.open("copy.db"));
    assert_eq!(from.len(), to.len());
    for (from, to) in from.iter().zip(&to) {
        assert_eq!(from.expires_at(), to.expires_at());
        let (from, to) = (from.into_parts(), to.into_parts());
        assert_eq!((&from.0[..], &from.1[..]), (&to.0[..], &to.1[..]));
        assert_eq!(from.1.codec(), to.1.codec());
    }
}

#[test]
fn a_pipe_moves_a_store_to_another_form() {
    let folder = Folder::with_store();
    folder.ok(&["set", "app.db", "a", "{\"n\":1.10}"]);
    folder.ok(&["init", "other.db", "--form", "ledger"]);
    let lines = folder.ok(&["export", "app.db"]);
    assert_eq!(lines, "{\"key\":\"a\",\"codec\":\"json\",\"value\":{\"n\":1.10}}\n");
    let run = folder.run_with(&["import", "other.db", "--json"], lines.as_bytes());
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), "{\"imported\":1}\n"));
    assert_eq!(folder.ok(&["get", "other.db", "a"]), "{\"n\":1.10}\n");
}

#[test]
fn json_with_line_breaks_keeps_them() {
    let folder = Folder::with_store();
    let store = folder.open("app.db");
    let text = "[1,\n 2]";
    store.batch().set_encoded("a", Codec::Json, text, None).unwrap().commit().unwrap();
    store.close().unwrap();
    drop(store);
    let lines = folder.ok(&["export", "app.db"]);
    assert_eq!(lines, "{\"key\":\"a\",\"codec\":\"json\",\"text\":\"[1,\\n 2]\"}\n");
    folder.run_with(&["import", "copy.db", "--create"], lines.as_bytes());
    assert_eq!(folder.open("copy.db").get_bytes("a").unwrap(), text);
    assert_eq!(folder.ok(&["scan", "app.db"]), "a\t[1,2]\n");
}

#[test]
fn a_null_is_a_value() {
    let folder = Folder::with_store();
    folder.ok(&["set", "app.db", "nothing", "null"]);
    folder.ok(&["export", "app.db", "first.jsonl"]);
    folder.ok(&["import", "--create", "new.db", "first.jsonl"]);
    assert_eq!(folder.ok(&["get", "new.db", "nothing"]), "null\n");
}

#[test]
fn a_line_that_cannot_be_imported_is_named() {
    let folder = Folder::with_store();
    let good = "{\"key\":\"a\",\"codec\":\"raw\",\"hex\":\"00\"}\n";
    for (line, why) in [
        ("{\"key\":\"b\"", "EOF"),
        ("{\"key\":\"b\",\"codec\":\"raw\",\"hex\":\"0\"}", "hex digits"),
        ("{\"key\":\"\\\\n\",\"codec\":\"raw\",\"hex\":\"00\"}", "backslash"),
        ("{\"key\":\"b\",\"codec\":\"xml\",\"text\":\"\"}", "\"xml\" is not known"),
        ("{\"key\":\"b\",\"codec\":\"json\",\"text\":\"hello\"}", "expected"),
        ("{\"key\":\"b\",\"codec\":\"json\",\"value\":{\"a\":1,\"a\":2}}", "occurs twice"),
        ("{\"key\":\"b\",\"codec\":\"bincode\",\"value\":1}", "give one of"),
        ("{\"key\":\"b\",\"codec\":\"raw\",\"hex\":\"00\",\"text\":\"\"}", "give one of"),
        ("{\"key\":\"b\",\"codec\":\"raw\",\"hex\":\"00\",\"later\":1}", "unknown field `later`"),
    ] {
        let text = format!("{good}\n{line}\n{good}");
        let run = folder.run_with(&["import", "app.db"], text.as_bytes());
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{line}: {run:?}");
        assert!(run.stderr.contains("-, line 3: "), "{}", run.stderr);
        assert!(run.stderr.contains(why), "{why}: {}", run.stderr);
        assert_eq!(folder.ok(&["count", "app.db"]), "0\n");
    }
}

#[test]
fn an_export_replaces_no_file() {
    let folder = Folder::with_store();
    fs::write(folder.path("out"), "mine").unwrap();
    folder.fails(&["export", "app.db", "out"], 3, "File exists");
    assert_eq!(fs::read(folder.path("out")).unwrap(), b"mine");
    folder.fails(&["import", "new.db", "none", "--create"], 3, "cannot read none");
    assert!(!folder.path("new.db").exists());
}
