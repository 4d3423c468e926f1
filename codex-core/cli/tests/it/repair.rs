//! Damaged stores: `verify` tells what is wrong and what is intact, and `repair` writes that to a
//! new store.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use codex_core::vfs::Vfs;
use codex_core::{CheckpointPolicy, Form, OpenOptions, Store};
use codex_storage::batch::{Item, Op, TableId};
use codex_storage::{Access, Config, Create};

use crate::common::{Folder, field};

/// The number of entries, which make several blocks of an image.
const ENTRIES: u32 = 3000;
/// The options of the commands, for a plain store and an encrypted one.
const KEYS: [&[&str]; 2] = [&[], &["--key", "file:key"]];

fn key(n: u32) -> String {
    format!("key/{n:06}")
}

fn options(with_key: bool) -> OpenOptions {
    if with_key {
        return Store::options().key(codex_core::crypto::Key::raw(&[7; 32]).unwrap());
    }
    Store::options()
}

/// Opens the store `app.db` for writing. A Wal keeps its log when it is closed.
fn open(folder: &Folder, form: Form, with_key: bool) -> Store {
    let options = options(with_key).form(form);
    let policy = CheckpointPolicy::default().close_into_image_bytes_max(0);
    let options = if form == Form::Wal { options.checkpoint(policy) } else { options };
    options.open(folder.path("app.db")).unwrap()
}

/// Returns a folder with the store `app.db`, which has entries in its image and a log of `later`
/// commits, each of which sets one key.
fn folder(form: Form, with_key: bool, later: u32) -> Folder {
    let folder = Folder::new();
    fs::write(folder.path("key"), [7; 32]).unwrap();
    let store = open(&folder, form, with_key);
    let mut batch = store.batch();
    for n in 0..ENTRIES {
        batch.set_bytes(key(n), [b'a'; 100]).unwrap();
    }
    batch.commit().unwrap();
    if form != Form::Ledger {
        store.checkpoint().unwrap();
    }
    for n in 0..later {
        store.set_bytes(format!("later/{n}"), [b'b'; 600]).unwrap();
    }
    store.close().unwrap();
    folder
}

/// Flips a bit of the file at this offset.
fn damage(folder: &Folder, name: &str, at: usize) {
    let path = folder.path(name);
    let mut bytes = fs::read(&path).unwrap();
    bytes[at] ^= 1;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, bytes).unwrap();
}

/// Runs a command on the damaged store, which must change none of its files.
#[track_caller]
fn run(folder: &Folder, args: &[&str], more: &[&str], code: i32) -> String {
    let before = files(folder);
    let run = folder.run(&[args, more].concat());
    assert_eq!(run.code, Some(code), "{args:?}: {run:?}");
    assert_eq!(files(folder), before, "{args:?}");
    run.stdout
}

type Files = BTreeMap<String, (Vec<u8>, i64, i64, u32)>;

/// Returns the files of the store with their bytes, times and modes.
fn files(folder: &Folder) -> Files {
    let entries = fs::read_dir(folder.path(".")).unwrap().map(Result::unwrap);
    let ours = entries.filter(|entry| {
        let name = entry.file_name().into_string().unwrap();
        name.starts_with("app.db") && !name.ends_with(".lock")
    });
    ours.map(|entry| {
        let of = entry.metadata().unwrap();
        let bytes = fs::read(entry.path()).unwrap();
        let name = entry.file_name().into_string().unwrap();
        (name, (bytes, of.mtime(), of.mtime_nsec(), of.mode()))
    })
    .collect()
}

/// Returns the keys of a store, and the first byte of each value.
fn contents(folder: &Folder, name: &str, with_key: bool) -> BTreeMap<String, u8> {
    let store = options(with_key).read_only(true).open(folder.path(name)).unwrap();
    let text = |key: &[u8]| String::from_utf8(key.to_vec()).unwrap();
    store.iter().map(|entry| (text(entry.key()), entry.bytes()[0])).collect()
}

#[test]
fn the_intact_blocks_of_an_image_survive_and_its_backup_has_the_others() {
    for form in [Form::Wal, Form::Snapshot] {
        for (with_key, more) in [(false, KEYS[0]), (true, KEYS[1])] {
            let folder = folder(form, with_key, 0);
            let all = contents(&folder, "app.db", with_key);
            folder.ok(&[&["backup", "create", "app.db"], more].concat());
            let len = fs::read(folder.path("app.db")).unwrap().len();
            damage(&folder, "app.db", len / 2);
            let verified = run(&folder, &["verify", "app.db"], more, 7);
            assert_eq!(field(&verified, "result"), "damaged");
            assert!(field(&verified, "damage").contains("app.db: "), "{verified}");
            let repaired = run(&folder, &["repair", "app.db", "whole.db"], more, 0);
            // The backup has exactly the lost entries.
            assert_eq!(field(&repaired, "state of that commit"), "yes", "{repaired}");
            assert!(repaired.contains(" entries of app.db.bak.1"), "{repaired}");
            assert_eq!(contents(&folder, "whole.db", with_key), all);
            folder.ok(&[&["verify", "whole.db"], more].concat());

            fs::remove_file(folder.path("app.db.bak.1")).unwrap();
            let repaired = run(&folder, &["repair", "app.db", "part.db"], more, 0);
            assert_eq!(field(&repaired, "state of that commit"), "no", "{repaired}");
            let lost: usize = field(&repaired, "lost entries").parse().unwrap();
            let part = contents(&folder, "part.db", with_key);
            assert!(lost > 0 && part.len() == all.len() - lost, "{repaired}");
            assert!(part.iter().all(|(key, value)| all.get(key) == Some(value)));
            // The range that is told is the one that is missing.
            let missing: Vec<&String> = all.keys().filter(|key| !part.contains_key(*key)).collect();
            let number = |key: &str| key.strip_prefix("key/").unwrap().parse::<u32>().unwrap();
            let (first, last) = (number(missing[0]), number(missing[lost - 1]));
            let range = format!("between {} and {}", key(first - 1), key(last + 1));
            assert_eq!(field(&repaired, "lost keys"), range);
        }
    }
}

#[test]
fn entries_of_an_older_backup_fill_only_what_is_lost() {
    let folder = folder(Form::Wal, false, 0);
    folder.ok(&["backup", "create", "app.db"]);
    let store = open(&folder, Form::Wal, false);
    let mut batch = store.batch();
    for n in 0..ENTRIES {
        batch.set_bytes(key(n), [b'c'; 100]).unwrap();
    }
    batch.remove(key(0)).unwrap();
    batch.commit().unwrap();
    store.checkpoint().unwrap();
    // The log has a newer value of each key.
    store.set_bytes(key(ENTRIES / 2), [b'd'; 100]).unwrap();
    store.close().unwrap();
    drop(store);
    let len = fs::read(folder.path("app.db")).unwrap().len();
    damage(&folder, "app.db", len / 2);
    let repaired = run(&folder, &["repair", "app.db", "new.db"], &[], 0);
    assert_eq!(field(&repaired, "state of that commit"), "no", "{repaired}");
    let new = contents(&folder, "new.db", false);
    let lost: usize = field(&repaired, "lost entries").parse().unwrap();
    let older = new.values().filter(|value| **value == b'a').count();
    // One of the lost keys is in the log.
    assert_eq!((older, new.len()), (lost - 1, ENTRIES as usize - 1), "{repaired}");
    assert_eq!(new.get(&key(ENTRIES / 2)), Some(&b'd'));
    assert_eq!(new.get(&key(0)), None, "an entry that was removed is not brought back");
}

#[test]
fn the_commits_before_damage_of_a_log_survive() {
    for (with_key, more) in [(false, KEYS[0]), (true, KEYS[1])] {
        let folder = folder(Form::Wal, with_key, 9);
        let segment = "app.db.wal.00000000000000000001";
        let names: Vec<String> = files(&folder).into_keys().collect();
        let segment = names.iter().find(|name| name.contains(".wal.")).map_or(segment, |it| it);
        let len = fs::read(folder.path(segment)).unwrap().len();
        damage(&folder, segment, len / 2);
        let verified = run(&folder, &["verify", "app.db"], more, 7);
        let repaired = run(&folder, &["repair", "app.db", "new.db"], more, 0);
        assert_eq!(field(&repaired, "last commit"), field(&verified, "last commit"));
        assert_eq!(field(&repaired, "state of that commit"), "yes", "{repaired}");
        let commits: u32 = field(&repaired, "last commit").parse().unwrap();
        assert!((2..10).contains(&commits), "{repaired}");
        // The first commit has the entries of the image.
        let new = contents(&folder, "new.db", with_key);
        let later: Vec<&String> = new.keys().filter(|key| key.starts_with("later/")).collect();
        assert_eq!(later.len(), commits as usize - 1);
        assert_eq!(new.len(), ENTRIES as usize + later.len());
    }
}

#[test]
fn a_lost_main_file_is_replaced_by_its_backup_and_the_log_goes_on() {
    for loss in ["header", "file", "garbage"] {
        let folder = folder(Form::Wal, false, 0);
        folder.ok(&["backup", "create", "app.db"]);
        let store = open(&folder, Form::Wal, false);
        store.set_bytes("last", b"z").unwrap();
        store.close().unwrap();
        drop(store);
        let all = contents(&folder, "app.db", false);
        match loss {
            "file" => fs::remove_file(folder.path("app.db")).unwrap(),
            // The second header is intact.
            "header" => damage(&folder, "app.db", 20),
            _ => {
                fs::remove_file(folder.path("app.db")).unwrap();
                fs::write(folder.path("app.db"), [0x55; 5000]).unwrap();
            }
        }
        let repaired = run(&folder, &["repair", "app.db", "new.db"], &[], 0);
        assert_eq!(contents(&folder, "new.db", false), all, "{loss}: {repaired}");
        assert_eq!(field(&repaired, "state of that commit"), "yes", "{loss}: {repaired}");
    }
}

#[test]
fn a_ledger_keeps_its_history_up_to_the_damage() {
    for (with_key, more) in [(false, KEYS[0]), (true, KEYS[1])] {
        let folder = folder(Form::Ledger, with_key, 9);
        let log = |name| folder.ok(&[&["log", name, "--json"], more].concat());
        let before = log("app.db");
        folder.ok(&[&["backup", "create", "app.db"], more].concat());
        // In the last commits, which are of 600 bytes.
        let bytes = fs::read(folder.path("app.db")).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        damage(&folder, "app.db", end - 3000);
        let repaired = run(&folder, &["repair", "app.db", "backup.db"], more, 0);
        // The backup has more than the intact part.
        assert!(repaired.contains("10 commits of app.db.bak.1"), "{repaired}");
        assert_eq!(log("backup.db"), before);
        fs::remove_file(folder.path("app.db.bak.1")).unwrap();
        run(&folder, &["repair", "app.db", "new.db"], more, 0);
        let after = log("new.db");
        assert!(before.starts_with(&after) && after.lines().count() > 1, "{after}");
        assert!(after.len() < before.len(), "{after}");
        // The copy is a store that can be written to.
        folder.ok(&[&["set", "new.db", "more", "1"], more].concat());
    }
}

#[test]
fn what_needs_no_repair_is_left_alone() {
    let folder = folder(Form::Wal, true, 1);
    let before = folder.run(&["repair", "app.db", "new.db", "--key", "file:key"]);
    assert_eq!((before.code, before.stdout.as_str()), (Some(1), ""), "{before:?}");
    assert!(before.stderr.contains("nothing to repair"), "{before:?}");
    fs::write(folder.path("wrong"), [8; 32]).unwrap();
    damage(&folder, "app.db", 100_000);
    folder.fails(&["repair", "app.db", "new.db"], 6, "--passphrase");
    folder.fails(&["repair", "app.db", "new.db", "--key", "file:wrong"], 6, "does not open");
    folder.fails(&["repair", "nothing.db", "new.db"], 4, "nothing.db");
    assert!(!folder.path("new.db").exists());
    // A store that is there is not replaced.
    folder.ok(&["init", "new.db"]);
    folder.ok(&["set", "new.db", "mine", "1"]);
    folder.fails(&["repair", "app.db", "new.db", "--key", "file:key"], 3, "already exists");
    assert_eq!(folder.ok(&["get", "new.db", "mine"]), "1\n");
    // Nothing is intact.
    fs::write(folder.path("bad.db"), [0x55; 5000]).unwrap();
    folder.fails(&["repair", "bad.db", "more.db"], 7, "bad.db");
    assert!(!folder.path("more.db").exists());
}

/// Returns the table, the key and the expiry of each entry of a store that was never changed.
fn entries(folder: &Folder, name: &str) -> BTreeSet<(u32, Vec<u8>, Option<i64>)> {
    let config = Config::new(Vfs::os(folder.path("")).unwrap(), name);
    let config = Config { access: Access::ReadOnly, create: Create::Never, ..config };
    let mut entries = BTreeSet::new();
    let mut add = |op: Op<'_>| {
        let Op::Set(Item { table, key, expires_us, .. }) = op else { panic!("no entry is set") };
        entries.insert((table.map_or(0, TableId::get), key.to_vec(), expires_us));
        Ok(())
    };
    codex_storage::open(&config, &mut add).unwrap();
    entries
}

#[test]
fn entries_of_tables_and_those_that_expire_survive_with_both() {
    let folder = Folder::new();
    let config = Config::new(Vfs::os(folder.path("")).unwrap(), "app.db");
    let (mut storage, _) = codex_storage::open(&config, &mut |_| Ok(())).unwrap();
    let value = [&[0][..], &vec![b'v'; 20_000]].concat();
    let mut group = storage.group();
    for id in [0, 16, 17] {
        for n in 0..10 {
            let expires_us = (n % 2 == 0).then_some(32_503_680_000_000_000 + i64::from(n));
            let (table, key, value) = (TableId::new(id), &[b'k', n][..], &value[..]);
            group.push(Op::Set(Item { table, key, value, expires_us })).unwrap();
        }
    }
    group.finish();
    storage.commit(&mut group, None).unwrap();
    drop(storage);
    folder.ok(&["checkpoint", "app.db"]);
    let all = entries(&folder, "app.db");
    assert_eq!(all.len(), 30);
    // Within the second table. A block has three or four entries.
    let len = fs::read(folder.path("app.db")).unwrap().len();
    damage(&folder, "app.db", len / 2);
    let repaired = run(&folder, &["repair", "app.db", "new.db"], &[], 0);
    let left = entries(&folder, "new.db");
    assert!((26..30).contains(&left.len()) && left.is_subset(&all), "{left:?}");
    assert_eq!(field(&repaired, "keys  "), left.len().to_string());
    assert_eq!(field(&repaired, "lost entries"), (30 - left.len()).to_string());
    let lost = field(&repaired, "lost keys");
    assert!(lost.starts_with("between k") && lost.ends_with(" of table 16"), "{lost}");
    let doctor = folder.run(&["doctor", "app.db"]);
    assert_eq!(doctor.code, Some(1), "{doctor:?}");
    folder.ok(&["backup", "create", "new.db"]);
    assert_eq!(folder.run(&["doctor", "new.db"]).code, Some(0));
}
