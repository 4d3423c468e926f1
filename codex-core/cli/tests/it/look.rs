//! Looking into a store: `info`, `get`, `keys`, `scan`, `count`, `du`, `stats`, `verify`, and the
//! past of a ledger.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use codex_core::{Codec, Store};

use crate::common::{Folder, field};

/// Returns a folder with a store that has a value of each kind.
fn folder() -> Folder {
    let folder = Folder::with_store();
    let store = Store::options().codec(Codec::Json).open(folder.path("app.db")).unwrap();
    let texts = ["Ada", "Bob"];
    for (n, name) in texts.iter().enumerate() {
        store.set(format!("users/{n}"), name).unwrap();
    }
    store.set_bytes("raw", [0, 0xff]).unwrap();
    store.close().unwrap();
    drop(store);
    let store = folder.open("app.db");
    store.set(b"bin/\xff\n", &7_u16).unwrap();
    store.close().unwrap();
    folder
}

#[test]
fn values_are_printed_as_json_and_others_as_hex_digits() {
    let folder = folder();
    assert_eq!(folder.ok(&["get", "app.db", "users/0"]), "\"Ada\"\n");
    assert_eq!(folder.ok(&["get", "app.db", "users/0", "--raw"]), "\"Ada\"");
    assert_eq!(folder.ok(&["get", "app.db", "users/0", "--hex"]), "2241646122\n");
    let run = folder.run(&["get", "app.db", r"bin/\xff\x0a"]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), "7\n"));
    let note = "note: stored as bincode, which names no type; a guess: `--as 'u16'`\n";
    assert_eq!(run.stderr, note);
    let json = folder.ok(&["get", "app.db", "users/0", "--json"]);
    assert_eq!(json, "{\"key\":\"users/0\",\"codec\":\"json\",\"value\":\"Ada\"}\n");
    let raw = folder.ok(&["get", "--json", "app.db", "raw"]);
    assert_eq!(raw, "{\"key\":\"raw\",\"codec\":\"raw\",\"hex\":\"00ff\"}\n");
}

#[test]
fn a_missing_key_is_the_answer_no() {
    let folder = folder();
    folder.fails(&["get", "app.db", "nobody"], 1, "no such key: nobody");
    folder.fails(&["get", "app.db", "a\\n"], 2, "a backslash begins");
}

#[test]
fn ranges_are_in_order_and_keys_are_escaped() {
    let folder = folder();
    let keys = |args: &[&str]| {
        let all: Vec<&str> = ["keys", "app.db"].iter().chain(args).copied().collect();
        folder.ok(&all).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(keys(&[]), [r"bin/\xff\x0a", "raw", "users/0", "users/1"]);
    assert_eq!(keys(&["--prefix", "users/"]), ["users/0", "users/1"]);
    assert_eq!(keys(&["--from", "raw", "--to", "users/1"]), ["raw", "users/0"]);
    assert_eq!(keys(&["--reverse", "--limit", "2"]), ["users/1", "users/0"]);
    assert_eq!(keys(&["--prefix", r"bin/\xff"]), [r"bin/\xff\x0a"]);
    let scan = folder.ok(&["scan", "app.db"]);
    let lines = [
        "bin/\\xff\\x0a\t7 (guess: u16)",
        "raw\t00ff (raw)",
        "users/0\t\"Ada\"",
        "users/1\t\"Bob\"",
    ];
    assert_eq!(scan.lines().collect::<Vec<_>>(), lines);
    let json = folder.ok(&["scan", "app.db", "--json", "--limit", "1"]);
    let expected = "{\"key\":\"bin/\\\\xff\\\\x0a\",\"codec\":\"bincode\",\"hex\":\"0700\",\
                    \"guess\":{\"type\":\"u16\",\"value\":7}}\n";
    assert_eq!(json, expected);
    assert_eq!(folder.ok(&["count", "app.db"]), "4\n");
    assert_eq!(folder.ok(&["count", "app.db", "--prefix", "users/", "--json"]), "{\"keys\":2}\n");
}

#[test]
fn each_key_that_is_printed_can_be_typed_back() {
    let folder = Folder::with_store();
    let store = folder.open("app.db");
    for byte in 0..=u8::MAX {
        store.set_bytes([b'k', byte, b' '], [byte]).unwrap();
    }
    store.close().unwrap();
    drop(store);
    let keys = folder.ok(&["keys", "app.db"]);
    assert_eq!(keys.lines().count(), 256);
    // Some of them, because each takes a run of the program.
    for (byte, key) in keys.lines().enumerate().step_by(15) {
        assert_eq!(folder.ok(&["get", "app.db", key, "--hex"]), format!("{byte:02x}\n"), "{key}");
    }
}

#[test]
fn du_sums_keys_by_prefix_the_largest_first() {
    let folder = Folder::with_store();
    let store = folder.open("app.db");
    store.set_bytes("a/1", [0; 97]).unwrap();
    store.set_bytes("a/2", [0; 97]).unwrap();
    store.set_bytes("b/1/x", [0; 45]).unwrap();
    store.set_bytes("top", [0; 7]).unwrap();
    store.close().unwrap();
    drop(store);
    let lines = [
        "bytes  keys  share                 prefix",
        "200 B     2  ###############       a/",
        " 50 B     1  ###                   b/",
        " 10 B     1                        (1 more)",
        "260 B     4  ####################  (all)",
    ];
    let du = folder.ok(&["du", "app.db", "--top", "2"]);
    assert_eq!(du.lines().collect::<Vec<_>>(), lines);
    let json = folder.ok(&["du", "app.db", "--depth", "2", "--json"]);
    let lines: Vec<&str> = json.lines().collect();
    assert_eq!(lines[1], "{\"bytes\":50,\"keys\":1,\"prefix\":\"b/1/\"}");
    assert_eq!(lines[2], "{\"bytes\":10,\"keys\":1,\"prefix\":\"\"}");
}

#[test]
fn stats_and_verify_count_what_is_there() {
    let folder = folder();
    let stats = folder.ok(&["stats", "app.db"]);
    assert_eq!((field(&stats, "keys"), field(&stats, "commits")), ("4", "4"));
    assert_eq!(field(&stats, "bytes of values"), "14 B");
    let verified = folder.ok(&["verify", "app.db"]);
    assert_eq!((field(&verified, "result"), field(&verified, "last commit")), ("intact", "4"));
    let json = folder.ok(&["verify", "app.db", "--json"]);
    assert!(
        json.starts_with("{\"result\":\"intact\",\"form\":\"wal\",\"last_commit\":4,"),
        "{json}"
    );
}

#[test]
fn info_tells_stores_backups_and_foreign_files_apart() {
    let folder = folder();
    folder.ok(&["backup", "create", "app.db"]);
    let info = folder.ok(&["info", "app.db"]);
    for (name, value) in [
        ("is", "a store"),
        ("form", "wal"),
        ("encrypted", "no"),
        ("commits", "4"),
        ("keys", "4"),
        ("closed cleanly", "yes"),
        ("open for writing", "no"),
        ("backups", "1"),
        ("newest backup at commit", "4"),
    ] {
        assert_eq!(field(&info, name), value, "{info}");
    }
    let backup = folder.ok(&["info", "app.db.bak.1"]);
    assert_eq!(field(&backup, "is"), "backup 1 of the store app.db");
    assert_eq!(field(&backup, "keys"), "4");
    let lock = folder.ok(&["info", "app.db.lock", "--json"]);
    let expected = "{\"path\":\"app.db.lock\",\"is\":\"a lock file of the store app.db\",\
                    \"next\":\"codexdb info app.db\"}\n";
    assert_eq!(lock, expected);
    fs::write(folder.path("other.db"), b"SQLite format 3\0and more").unwrap();
    let run = folder.run(&["info", "other.db"]);
    assert_eq!(run.code, Some(7), "{run:?}");
    assert_eq!(field(&run.stdout, "is"), "an SQLite database, not a CodexDB file");
    let segment = "log.db.wal.00000000000000000001";
    fs::write(folder.path(segment), b"").unwrap();
    let info = folder.ok(&["info", segment]);
    assert_eq!(field(&info, "is"), "log segment 1 of the store log.db");
}

#[test]
fn info_names_the_process_that_has_the_store_open() {
    let folder = folder();
    let store = folder.open("app.db");
    let held = format!("yes, in another process (id {}", std::process::id());
    let info = folder.ok(&["info", "app.db"]);
    assert!(field(&info, "open for writing").starts_with(&held), "{info}");
    assert_eq!(field(&info, "not read"), "it is open elsewhere");
    drop(store);
}

#[test]
fn a_store_is_read_without_the_right_to_write() {
    let folder = folder();
    let of = |mode| fs::set_permissions(folder.path("."), fs::Permissions::from_mode(mode));
    fs::remove_file(folder.path("app.db.lock")).unwrap();
    of(0o500).unwrap();
    let before: Vec<_> = names(&folder);
    assert_eq!(folder.ok(&["get", "app.db", "users/1"]), "\"Bob\"\n");
    assert_eq!(folder.ok(&["count", "app.db"]), "4\n");
    folder.ok(&["info", "app.db"]);
    // The superuser may write nevertheless, and then a lock file is made.
    let after = names(&folder).into_iter().filter(|name| !name.ends_with(".lock"));
    assert_eq!(after.collect::<Vec<_>>(), before);
    of(0o700).unwrap();
}

fn names(folder: &Folder) -> Vec<String> {
    let entries = fs::read_dir(folder.path(".")).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_ledger_shows_its_past() {
    let folder = Folder::new();
    folder.ok(&["init", "audit.db", "--form", "ledger"]);
    folder.ok(&["set", "audit.db", "door", "\"open\""]);
    folder.ok(&["set", "audit.db", "lamp", "1"]);
    folder.ok(&["set", "audit.db", "door", "\"shut\""]);
    folder.ok(&["remove", "audit.db", "door"]);
    folder.ok(&["clear", "audit.db", "--yes"]);
    let log = folder.ok(&["log", "audit.db", "--json"]);
    let counts: Vec<&str> = log.lines().map(|line| line.split_once("Z\",").unwrap().1).collect();
    let set = "\"set\":1,\"removed\":0,\"cleared\":false}";
    let removed = "\"set\":0,\"removed\":1,\"cleared\":false}";
    let cleared = "\"set\":0,\"removed\":0,\"cleared\":true}";
    assert_eq!(counts, [set, set, set, removed, cleared]);
    assert!(log.starts_with("{\"commit\":1,\"time\":\"20"), "{log}");
    let last = folder.ok(&["log", "audit.db", "--limit", "1", "--json"]);
    assert!(last.starts_with("{\"commit\":5,"), "{last}");
    let history = folder.ok(&["history", "audit.db", "door"]);
    let values: Vec<&str> =
        history.lines().map(|line| line.split_whitespace().last().unwrap()).collect();
    assert_eq!(values, ["value", "\"open\"", "\"shut\"", "(removed)"]);
    let at = |commit: &str| folder.run(&["get", "audit.db", "door", "--at", commit]);
    assert_eq!(at("2").stdout, "\"open\"\n");
    assert_eq!(at("3").stdout, "\"shut\"\n");
    assert_eq!((at("0").code, at("4").code, at("5").code), (Some(1), Some(1), Some(1)));
    assert_eq!(at("6").code, Some(2));
    // A clear removes it.
    let lamp = folder.ok(&["history", "audit.db", "lamp", "--json"]);
    assert!(lamp.lines().nth(1).is_some_and(|line| line.ends_with(",\"removed\":true}")), "{lamp}");
    assert_eq!(folder.ok(&["get", "audit.db", "lamp", "--at", "4"]), "1\n");
    assert_eq!(folder.run(&["get", "audit.db", "lamp", "--at", "5"]).code, Some(1));
    assert_eq!(folder.run(&["history", "audit.db", "nobody"]).code, Some(1));
}

#[test]
fn only_a_ledger_has_a_past() {
    let folder = folder();
    for args in [
        ["log", "app.db"].as_slice(),
        &["history", "app.db", "users/0"],
        &["get", "app.db", "users/0", "--at", "1"],
    ] {
        folder.fails(args, 3, "has the form wal, not ledger");
    }
}

#[test]
fn a_reader_that_closes_early_ends_the_program_quietly() {
    let folder = Folder::with_store();
    let store = folder.open("app.db");
    let mut batch = store.batch();
    for n in 0..20_000 {
        batch.set_bytes(format!("key/{n:06}"), [b'x'; 20]).unwrap();
    }
    batch.commit().unwrap();
    store.close().unwrap();
    drop(store);
    // Much more than a pipe holds.
    let mut command = folder.command(&["scan", "app.db"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert!(line.starts_with("key/000000\t"), "{line}");
    assert_eq!((output.status.code(), output.stderr), (Some(141), Vec::new()));
}

#[test]
fn no_colours_are_printed_into_a_pipe() {
    let folder = folder();
    for args in [["info", "app.db"].as_slice(), &["du", "app.db"], &["--help"]] {
        assert!(!folder.ok(args).contains('\x1b'), "{args:?}");
    }
}

#[test]
fn values_of_applications_are_read_as_a_type_or_by_a_guess() {
    let folder = Folder::with_store();
    let store = folder.open("app.db");
    store.set("ada", &("Ada", 5_u32)).unwrap();
    store.set("count", &1_000_u64).unwrap();
    store.set_bytes("note", "two words\n").unwrap();
    store.set_bytes("raw", 7_u16.to_le_bytes()).unwrap();
    store.close().unwrap();
    drop(store);
    let run = folder.run(&["get", "app.db", "ada"]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), "[\"Ada\",5]\n"));
    assert!(run.stderr.contains("a guess: `--as '(str, u32)'`"), "{}", run.stderr);
    let user = ["get", "app.db", "ada", "--as", "{name: str, stars: u32}"];
    assert_eq!(folder.ok(&user), "{\"name\":\"Ada\",\"stars\":5}\n");
    assert_eq!(folder.ok(&["get", "app.db", "raw", "--as", "u16"]), "7\n");
    assert_eq!(folder.ok(&["get", "app.db", "note"]), "two words\n\n");
    folder.fails(&["get", "app.db", "ada", "--as", "u64"], 2, "is no u64: 7 of 15 bytes are left");
    folder.fails(&["get", "app.db", "ada", "--as", "u63"], 2, "a type is expected at byte 0");
    let lines = [
        "ada\t[\"Ada\",5] (guess: (str, u32))",
        "count\t1000 (guess: u64)",
        "note\t\"two words\\n\" (raw)",
        "raw\t0700 (raw)",
    ];
    assert_eq!(folder.ok(&["scan", "app.db"]).lines().collect::<Vec<_>>(), lines);
    let scan = folder.ok(&["scan", "app.db", "--as", "u64"]);
    let lines: Vec<&str> = scan.lines().collect();
    assert_eq!(lines[0], "ada\t030000000000000041646105000000 (bincode, not u64)");
    assert_eq!(lines[1], "count\t1000");
    let json = folder.ok(&["get", "app.db", "count", "--json"]);
    assert!(json.ends_with("00\",\"guess\":{\"type\":\"u64\",\"value\":1000}}\n"), "{json}");
    let json = folder.ok(&["get", "app.db", "count", "--json", "--as", "i64"]);
    assert!(json.ends_with("00\",\"as\":{\"type\":\"i64\",\"value\":1000}}\n"), "{json}");
}

#[test]
fn a_value_expires_and_its_past_shows_when() {
    let folder = Folder::new();
    folder.ok(&["init", "audit.db", "--form", "ledger"]);
    let at = "2999-01-02T03:04:05Z";
    folder.ok(&["set", "audit.db", "door", "1", "--expires-at", at]);
    let run = folder.run(&["get", "audit.db", "door", "-v"]);
    assert_eq!(run.stdout, "1\n");
    assert_eq!(run.stderr, format!("note: codec json, 1 B, expires {at}\n"));
    let json = folder.ok(&["scan", "audit.db", "--json"]);
    assert!(json.contains("\"expires_us\":32472241445000000"), "{json}");
    assert_eq!(field(&folder.ok(&["info", "audit.db"]), "keys that expire"), "1");
    // A value that has expired already, as one that was set before.
    let store = folder.open("audit.db");
    let past = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
    store.set_with_expiry("door", &2, past).unwrap();
    store.clear().unwrap();
    store.set("door", &3).unwrap();
    store.close().unwrap();
    drop(store);
    let log = folder.ok(&["log", "audit.db", "--json"]);
    let time = |commit: usize| {
        let line = log.lines().nth(commit - 1).unwrap();
        line.split("\"time\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
    };
    let at = |moment: &str| {
        let run = folder.run(&["get", "audit.db", "door", "--at", moment]);
        (run.code, run.stdout)
    };
    let last = log.lines().count();
    let shown = |text: &str| (Some(0), text.to_owned());
    let missing = (Some(1), String::new());
    assert_eq!(at("1"), shown("1\n"));
    assert_eq!(at("2"), missing);
    assert_eq!(at(&time(1)), shown("1\n"));
    assert_eq!(at(&time(last)), shown("3\n"));
    assert_eq!(at("0s"), shown("3\n"));
    assert_eq!(at("1d ago").0, Some(2), "there was no ledger");
    assert_eq!(at("yesterday").0, Some(2));
    let history = folder.ok(&["history", "audit.db", "door"]);
    let values: Vec<&str> = history.lines().map(|line| line.rsplit("  ").next().unwrap()).collect();
    assert_eq!(values[0..2], ["value", "1, expires 2999-01-02T03:04:05Z"]);
    assert_eq!(
        values[2..],
        ["2 (guess: u32), expires 1970-01-01T00:00:01Z", "(expired)", "3 (guess: u32)"]
    );
    folder.fails(&["set", "audit.db", "a", "1", "--expires-at", "2020-01-01"], 2, "has passed");
    folder.fails(&["set", "audit.db", "a", "1", "--expires-in", "soon"], 2, "such as 90s");
    let day = std::time::Duration::from_secs(86_400);
    let earliest = std::time::SystemTime::now() + day - std::time::Duration::from_millis(1);
    folder.ok(&["set", "audit.db", "a", "--raw", "x", "--expires-in", "1d"]);
    let latest = std::time::SystemTime::now() + day;
    let expires = folder.open("audit.db").expires_at("a").unwrap();
    assert!((earliest..=latest).contains(&expires), "{expires:?}");
}

#[test]
fn the_past_is_not_read_beside_a_writer() {
    let folder = Folder::new();
    folder.ok(&["init", "audit.db", "--form", "ledger"]);
    let store = folder.open("audit.db");
    for args in [["log", "audit.db"].as_slice(), &["get", "audit.db", "a", "--at", "0"]] {
        folder.fails(args, 5, &format!("another process (id {}", std::process::id()));
    }
    drop(store);
    folder.ok(&["log", "audit.db"]);
    folder.ok(&["backup", "create", "audit.db"]);
    folder.ok(&["log", "audit.db.bak.1"]);
}
