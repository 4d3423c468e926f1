//! `import-go`: the samples of the Go program, their keys, their locks and their damage.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;

use crate::common::{Folder, field};

const SAMPLES: [&str; 11] = [
    "led.enc",
    "led.gzip",
    "led.plain",
    "led.snappy.enc",
    "snap.enc",
    "snap.gzip0",
    "snap.gzip6",
    "snap.plain",
    "snap.snappy",
    "snap.zstd",
    "snap.zstd.enc",
];

/// Returns a folder with all samples and their key.
fn folder() -> Folder {
    let folder = Folder::new();
    let samples = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/go");
    for name in SAMPLES {
        fs::copy(format!("{samples}/{name}"), folder.path(name)).unwrap();
    }
    fs::write(folder.path("key"), [7; 32]).unwrap();
    fs::write(folder.path("wrong"), [8; 32]).unwrap();
    folder
}

/// Imports `name` into a new store and returns the lines of its export.
fn exported(folder: &Folder, name: &str) -> Vec<String> {
    let store = format!("{name}.db");
    let mut args = vec!["import-go", name, &store, "--create"];
    if name.ends_with(".enc") {
        args.extend(["--source-key", "file:key"]);
    }
    let imported = folder.ok(&args);
    assert_eq!(field(&imported, "lost bytes"), "none");
    folder.ok(&["export", &store]).lines().map(str::to_owned).collect()
}

#[test]
fn each_sample_is_imported_and_not_changed() {
    let folder = folder();
    let usual = [
        r#"{"key":"","codec":"json","value":5}"#,
        r#"{"key":"a","codec":"json","value":"v"}"#,
        r#"{"key":"b<k>","codec":"json","value":{"a":1,"h":"x\u003cy\u003e\u0026z\u2028é"}}"#,
        r#"{"key":"n","codec":"json","value":null}"#,
    ];
    for name in SAMPLES {
        let (bytes, times) = (fs::read(folder.path(name)).unwrap(), times(&folder, name));
        match name {
            "led.plain" => {
                let after = [r#"{"key":"after","codec":"json","value":"AQID"}"#];
                assert_eq!(exported(&folder, name), after);
            }
            _ => assert_eq!(exported(&folder, name), usual, "{name}"),
        }
        assert_eq!(fs::read(folder.path(name)).unwrap(), bytes, "{name}");
        assert_eq!(self::times(&folder, name), times, "{name}");
        assert!(!folder.path(&format!("{name}.lock")).exists(), "{name}");
    }
}

fn times(folder: &Folder, name: &str) -> (i64, i64, i64, i64) {
    let of = fs::metadata(folder.path(name)).unwrap();
    (of.mtime(), of.mtime_nsec(), of.ctime(), of.ctime_nsec())
}

#[test]
fn a_wrong_or_missing_key_makes_no_store() {
    let folder = folder();
    for name in SAMPLES.iter().filter(|name| name.ends_with(".enc")) {
        folder.fails(&["import-go", name, "app.db", "--create"], 6, "`--source-key`");
        let args = ["import-go", name, "app.db", "--create", "--source-key", "file:wrong"];
        folder.fails(&args, 6, "does not open with this key");
        folder.fails(&[&args[..], &["--salvage"]].concat(), 6, "does not open with this key");
    }
    let args = ["import-go", "led.gzip", "app.db", "--create", "--source-key", "file:key"];
    folder.fails(&args, 6, "leave out `--source-key`");
    fs::write(folder.path("short"), [7; 20]).unwrap();
    let args = ["import-go", "led.enc", "app.db", "--create", "--source-key", "file:short"];
    folder.fails(&args, 6, "16, 24 or 32 bytes");
    assert!(!folder.path("app.db").exists());
}

#[test]
fn the_key_of_the_source_and_that_of_the_store_are_two() {
    let folder = folder();
    let mut command = folder.command(&["import-go", "snap.enc", "app.db", "--create"]);
    command.args(["--source-key", "env:GO_KEY", "--passphrase", "env:PASS"]);
    let status = command.env("GO_KEY", "07".repeat(32)).env("PASS", "a phrase").output().unwrap();
    assert!(status.status.success(), "{status:?}");
    folder.fails(&["get", "app.db", "a"], 6, "--passphrase");
    let mut command = folder.command(&["get", "app.db", "a", "--passphrase", "env:PASS"]);
    let output = command.env("PASS", "a phrase").output().unwrap();
    assert_eq!(output.stdout, b"\"v\"\n");
}

#[test]
fn a_store_is_made_only_if_asked_and_other_keys_stay() {
    let folder = folder();
    folder.fails(&["import-go", "snap.plain", "app.db"], 4, "app.db");
    folder.ok(&["init", "app.db"]);
    folder.ok(&["set", "app.db", "mine", "1"]);
    folder.ok(&["set", "app.db", "a", "2"]);
    folder.ok(&["import-go", "snap.plain", "app.db"]);
    assert_eq!(folder.ok(&["get", "app.db", "mine"]), "1\n");
    assert_eq!(folder.ok(&["get", "app.db", "a"]), "\"v\"\n");
    folder.fails(&["import-go", "app.db", "other.db"], 2, "`codexdb export`");
    folder.fails(&["import-go", "nothing", "other.db"], 4, "nothing");
}

#[test]
fn the_locks_of_the_go_program_are_taken() {
    let folder = folder();
    let args = ["import-go", "led.plain", "app.db", "--create"];
    for lock in ["led.plain", "led.plain.lock"] {
        let held = File::options().create(true).append(true).open(folder.path(lock)).unwrap();
        held.try_lock().unwrap();
        folder.fails(&args, 5, "led.plain is open in another process");
    }
    // It is waited for, and then taken.
    let held = File::open(folder.path("led.plain")).unwrap();
    held.try_lock().unwrap();
    let mut command = folder.command(&[&args[..], &["--wait", "1000"]].concat());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let open = PathBuf::from(format!("/proc/{}/fd", child.id()));
    let has_it_open = || {
        let mut names = fs::read_dir(&open).unwrap();
        names.any(|name| {
            fs::read_link(name.unwrap().path()).is_ok_and(|path| path.ends_with("led.plain"))
        })
    };
    while child.try_wait().unwrap().is_none() && !has_it_open() {
        thread::yield_now();
    }
    drop(held);
    assert!(child.wait_with_output().unwrap().status.success());
    assert_eq!(folder.ok(&["get", "app.db", "after"]), "\"AQID\"\n");
}

#[test]
fn damage_is_an_error_and_what_is_behind_it_is_salvaged() {
    let folder = folder();
    let mut bytes = fs::read(folder.path("led.gzip")).unwrap();
    // Within the second frame, which sets `a`.
    let second = 4 + usize::from(bytes[3]);
    bytes[second + 50] ^= 1;
    fs::write(folder.path("damaged"), &bytes).unwrap();
    let args = ["import-go", "damaged", "app.db", "--create"];
    let text = format!("after 1 intact operations, the bytes from offset {second} on");
    folder.fails(&args, 7, &text);
    assert!(!folder.path("app.db").exists());
    let salvaged = folder.ok(&[&args[..], &["--salvage"]].concat());
    let end = second + 4 + usize::from(bytes[second + 3]);
    for (name, value) in [
        ("source", "a ledger of the Go program CodexDB, version 2, gzip"),
        ("imported keys", "3"),
        ("operations  ", "5"),
        ("operations behind damage", "4"),
        ("lost bytes", &format!("{second}..{end}")),
    ] {
        assert_eq!(field(&salvaged, name), value, "{salvaged}");
    }
    assert_eq!(folder.ok(&["keys", "app.db"]), "\nb<k>\nn\n");
    // Nothing at all is intact.
    fs::write(folder.path("zeros"), [0; 1000]).unwrap();
    folder.fails(&["import-go", "zeros", "new.db", "--create", "--salvage"], 6, "zeros");
    fs::write(folder.path("empty"), []).unwrap();
    folder.fails(&["import-go", "empty", "new.db", "--create", "--salvage"], 7, "empty");
    assert!(!folder.path("new.db").exists());
}

#[test]
fn the_history_of_a_ledger_becomes_commits() {
    let folder = folder();
    let operations = [
        r#"{"op":0,"key":"a","value":1}"#,
        r#"{"op":0,"key":"b","value":"x"}"#,
        r#"{"op":0,"key":"a","value":2}"#,
        r#"{"op":1,"key":"a"}"#,
        r#"{"op":2}"#,
        r#"{"op":0,"key":"a","value":[3]}"#,
    ];
    #[expect(clippy::big_endian_bytes, reason = "the format of the Go program")]
    let frame = |text: &&str| {
        let len = u32::try_from(text.len()).unwrap();
        [&len.to_be_bytes()[..], text.as_bytes()].concat()
    };
    fs::write(folder.path("led"), operations.iter().flat_map(frame).collect::<Vec<u8>>()).unwrap();
    let args = ["import-go", "led", "app.db", "--create", "--history"];
    assert_eq!(field(&folder.ok(&args), "operations  "), "6");
    let values = |key: &str| {
        let history = folder.ok(&["history", "app.db", key]);
        let last = |line: &str| line.split_whitespace().last().unwrap().to_owned();
        history.lines().skip(1).map(last).collect::<Vec<_>>()
    };
    assert_eq!(values("a"), ["1", "2", "(removed)", "[3]"]);
    assert_eq!(values("b"), ["\"x\"", "(removed)"]);
    assert_eq!(folder.ok(&["get", "app.db", "a", "--at", "3"]), "2\n");
    assert_eq!(folder.ok(&["keys", "app.db"]), "a\n");
    // Only a ledger has a history, here and there.
    let args = ["import-go", "snap.plain", "new.db", "--create", "--history"];
    folder.fails(&args, 2, "snap.plain has no history");
    assert!(!folder.path("new.db").exists());
    folder.ok(&["init", "wal.db"]);
    folder.fails(&["import-go", "led", "wal.db", "--history"], 3, "form wal");
}

#[test]
fn values_that_cannot_be_read_back_are_told() {
    let folder = folder();
    let value = "eyJhIjoxLCJhIjoyfQ==";
    fs::write(folder.path("old"), format!(r#"{{"twice":"{value}","n":null,"a":"MQ=="}}"#)).unwrap();
    let args = ["import-go", "old", "app.db", "--create"];
    folder.fails(&args, 7, "the value of twice is no JSON that can be read back");
    let run = folder.run(&[&args[..], &["--salvage"]].concat());
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(
        run.stderr,
        "note: old: n has no value and is left out\n\
         note: old: the value of twice is stored as text without a codec\n"
    );
    assert_eq!(folder.ok(&["get", "app.db", "twice", "--raw"]), "{\"a\":1,\"a\":2}");
}

#[test]
fn info_names_a_file_of_the_go_program() {
    let folder = folder();
    let info = folder.ok(&["info", "snap.snappy"]);
    assert_eq!(field(&info, "is"), "a snapshot of the Go program CodexDB, snappy");
    assert_eq!(field(&info, "next"), "codexdb import-go snap.snappy STORE");
    assert_eq!(
        field(&folder.ok(&["info", "led.enc"]), "is"),
        "perhaps an encrypted ledger of the Go program CodexDB"
    );
}
