//! Comparing and examining: `diff` and `doctor`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::common::Folder;

#[test]
fn a_store_is_compared_with_its_backup() {
    let folder = Folder::with_store();
    for (key, value) in [("a", "1"), ("b", "2"), ("c", "3")] {
        folder.ok(&["set", "app.db", key, value]);
    }
    folder.ok(&["backup", "create", "app.db"]);
    assert_eq!(folder.ok(&["diff", "app.db", "app.db.bak.1"]), "");
    folder.ok(&["set", "app.db", "b", "20"]);
    folder.ok(&["remove", "app.db", "a"]);
    folder.ok(&["set", "app.db", "d", "4", "--as", "u16"]);
    let run = folder.run(&["diff", "app.db", "app.db.bak.1"]);
    let lines =
        ["+ a\t1", "- b\t20", "+ b\t2", "- d\t4 (guess: u16)", "1 removed, 1 added, 1 changed"];
    assert_eq!((run.code, run.stdout.lines().collect::<Vec<_>>()), (Some(1), lines.to_vec()));
    let json = folder.run(&["diff", "app.db", "app.db.bak.1", "--json"]).stdout;
    let lines: Vec<&str> = json.lines().collect();
    let json = |value: u8| format!("{{\"codec\":\"json\",\"value\":{value}}}");
    assert_eq!(lines[0], format!("{{\"key\":\"a\",\"before\":null,\"after\":{}}}", json(1)));
    assert_eq!(
        lines[1],
        format!("{{\"key\":\"b\",\"before\":{},\"after\":{}}}", json(20), json(2))
    );
    assert_eq!(lines.len(), 3);
    // The same bytes under another expiry, or another codec, are another value.
    folder.ok(&["init", "one.db"]);
    folder.ok(&["init", "two.db"]);
    folder.ok(&["set", "one.db", "a", "1"]);
    folder.ok(&["set", "two.db", "a", "1", "--expires-at", "2999-01-01"]);
    let run = folder.run(&["diff", "one.db", "two.db"]);
    assert!(run.stdout.contains("+ a\t1, expires 2999-01-01T00:00:00Z\n"), "{}", run.stdout);
    folder.ok(&["set", "two.db", "a", "1", "--raw"]);
    assert_eq!(folder.run(&["diff", "one.db", "two.db"]).code, Some(1));
}

#[test]
fn two_moments_of_a_ledger_are_compared() {
    let folder = Folder::new();
    folder.ok(&["init", "audit.db", "--form", "ledger"]);
    folder.ok(&["set", "audit.db", "a", "1"]);
    folder.ok(&["set", "audit.db", "b", "2"]);
    folder.ok(&["remove", "audit.db", "a"]);
    let diff = |args: &[&str]| {
        let all: Vec<&str> = ["diff", "audit.db"].iter().chain(args).copied().collect();
        folder.run(&all).stdout
    };
    assert_eq!(diff(&["--at", "1", "--to", "2"]), "+ b\t2\n0 removed, 1 added, 0 changed\n");
    assert_eq!(diff(&["--at", "1"]), "- a\t1\n+ b\t2\n1 removed, 1 added, 0 changed\n");
    assert_eq!(diff(&["--at", "3"]), "");
    assert_eq!(diff(&["--at", "0", "--to", "0s"]), "+ b\t2\n0 removed, 1 added, 0 changed\n");
    folder.fails(&["diff", "audit.db", "--at", "9"], 2, "");
    folder.fails(&["diff", "audit.db"], 2, "OTHER");
}

/// Returns the lines of `doctor` of which the check is not good.
fn ills(folder: &Folder, code: i32) -> Vec<String> {
    let run = folder.run(&["doctor", "app.db", "--json"]);
    assert_eq!(run.code, Some(code), "{run:?}");
    let ills = run.stdout.lines().filter(|line| line.contains("\"good\":false"));
    ills.map(str::to_owned).collect()
}

#[test]
fn the_doctor_tells_the_next_step() {
    let folder = Folder::with_store();
    folder.ok(&["set", "app.db", "a", "\"a text of some length\""]);
    let found = ills(&folder, 1);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("\"next\":\"`codexdb backup create app.db`\""), "{found:?}");
    folder.ok(&["backup", "create", "app.db"]);
    assert_eq!(ills(&folder, 0), Vec::<String>::new());
    let text = folder.ok(&["doctor", "app.db"]);
    assert!(text.starts_with("check        good  found "), "{text}");
    // Others may read it.
    let mode = |mode| fs::Permissions::from_mode(mode);
    fs::set_permissions(folder.path("app.db"), mode(0o444)).unwrap();
    let found = ills(&folder, 1);
    assert!(found[0].contains("chmod go= ") && found[0].contains("app.db"), "{found:?}");
    fs::set_permissions(folder.path("app.db"), mode(0o400)).unwrap();
    // Another process has it open.
    let store = folder.open("app.db");
    let found = ills(&folder, 1);
    let holder = format!(
        "\"check\":\"lock\",\"good\":false,\"found\":\"open in another process (id {}",
        std::process::id()
    );
    assert!(found[0].contains(&holder), "{found:?}");
    drop(store);
    // Damage.
    folder.ok(&["checkpoint", "app.db"]);
    let path = folder.path("app.db");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(6).position(|part| part == b"a text").unwrap();
    bytes[at] ^= 1;
    fs::set_permissions(&path, mode(0o600)).unwrap();
    fs::write(&path, &bytes).unwrap();
    let found = ills(&folder, 1);
    assert!(found[0].contains("\"check\":\"contents\"") && found[0].contains("damage at offset"));
    assert!(found[0].contains("codexdb backup list"), "{found:?}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}
