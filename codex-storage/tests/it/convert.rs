//! Conversions that a power cut interrupts: the remaining files, and whether the next one works.

use crate::common::store::Store;
use crate::common::{NAME, bytes, keys, put};
use codex_storage::storage::Form;
use codex_storage::vfs::fault::{Calls, CrashChoice, Fault, FaultDir, Lasting, Side};
use codex_storage::vfs::{CallKind, Vfs};
use codex_storage::{Config, Conversion, Converted, Error, Result, convert};

fn config(vfs: Vfs, passphrase: Option<&str>) -> Config {
    let mut config = Config::new(vfs, NAME);
    config.keys = passphrase.map(keys);
    config.checkpoint.close_into_image_bytes_max = 0;
    config
}

fn to(form: Form, passphrase: &str) -> Conversion {
    Conversion { form: Some(form), keys: Some(keys(passphrase)), compression: None }
}

fn convert_on(
    disk: &FaultDir,
    from: Option<&str>,
    form: Form,
    passphrase: &str,
) -> Result<Converted> {
    convert(config(disk.vfs(2), from), &to(form, passphrase))
}

/// A closed plain Wal with an image and two segments, or one.
fn plain_wal() -> FaultDir {
    let disk = FaultDir::new();
    let mut store = Store::open(config(disk.vfs(1), None)).unwrap();
    for n in 0..3 {
        store.set(&format!("key {n}"), "in plain text").unwrap();
    }
    store.checkpoint().unwrap();
    store.set("key 3", "in plain text").unwrap();
    store.close().unwrap();
    disk
}

fn contains_plain_text(vfs: &Vfs, name: &str) -> bool {
    bytes(vfs, name).windows(13).any(|window| window == b"in plain text")
}

/// Returns whether the store is encrypted now. Checks that it has all entries and takes a commit,
/// and that after this no file beside an encrypted store has values in plain text.
fn is_converted(image: &FaultDir, place: &str) -> bool {
    let vfs = image.vfs(3);
    let (mut store, converted) = match Store::open(config(vfs.clone(), None)) {
        Ok(store) => (store, false),
        Err(Error::KeyRequired { .. }) => {
            let opened = Store::open(config(vfs.clone(), Some("new")));
            (opened.unwrap_or_else(|e| panic!("{place}: {e}")), true)
        }
        Err(e) => panic!("{place}: {e}"),
    };
    let kept = (0..4).filter(|n| store.map.0.contains_key(format!("key {n}").as_bytes()));
    assert_eq!(kept.count(), 4, "{place}");
    store.set("after", "the cut").unwrap();
    store.close().unwrap();
    if converted {
        for name in vfs.dir.list().unwrap() {
            assert!(!contains_plain_text(&vfs, &name), "{place}: {name} is in plain text");
        }
    }
    converted
}

#[test]
fn a_power_cut_in_a_conversion_leaves_no_plain_segment_and_the_next_conversion_works() {
    let mut counts = [0; 2];
    for form in [Form::Wal, Form::Snapshot, Form::Ledger] {
        let disk = plain_wal();
        let probe = disk.duplicate();
        convert_on(&probe, None, form, "new").unwrap();
        for call in 0..probe.calls() {
            for side in [Side::Before, Side::After] {
                let cut = disk.duplicate();
                cut.cut_power_at(call, side);
                drop(convert_on(&cut, None, form, "new"));
                let choice = CrashChoice { images_max: 48, samples: 16, ..CrashChoice::default() };
                for image in cut.crash_images(&choice) {
                    let place = format!("{form}, call {call} {side:?}");
                    let again = image.duplicate();
                    let converted = is_converted(&image, &place);
                    counts[usize::from(converted)] += 1;
                    // The next conversions work with all the files that may remain.
                    let from = converted.then_some("new");
                    convert_on(&again, from, Form::Ledger, "new")
                        .unwrap_or_else(|e| panic!("{place}, again: {e}"));
                    assert!(is_converted(&again, &place));
                    convert_on(&again, Some("new"), Form::Wal, "new").unwrap();
                    assert!(is_converted(&again, &place));
                }
            }
        }
    }
    println!("plain and converted: {counts:?}");
    assert!(counts.iter().all(|&count| count > 10), "{counts:?}");
}

#[test]
fn a_leftover_segment_is_removed_by_the_next_conversion_and_a_foreign_one_is_named() {
    let segment = format!("{NAME}.wal.{:020}", 2);
    let disk = plain_wal();
    let vfs = disk.vfs(2);
    let stale = bytes(&vfs, &segment);
    convert_on(&disk, None, Form::Snapshot, "new").unwrap();
    put(&vfs, &segment, &stale);
    convert_on(&disk, Some("new"), Form::Snapshot, "newer").unwrap();
    assert!(vfs.dir.metadata(&segment).unwrap().is_none());

    let mut foreign = stale;
    foreign[16] ^= 1;
    put(&vfs, &segment, &foreign);
    let refused = convert_on(&disk, Some("newer"), Form::Wal, "new").unwrap_err();
    assert!(matches!(&refused, Error::ForeignLog { path } if path.ends_with(&segment)));
    assert!(Store::open(config(vfs, Some("newer"))).is_ok(), "the store is as it was");
}

#[test]
fn a_backup_that_cannot_be_read_is_reported_as_plain() {
    let disk = plain_wal();
    let backup = format!("{NAME}.bak.1");
    let image = bytes(&disk.vfs(2), NAME);
    put(&disk.vfs(2), &backup, &image);
    for unreadable in [false, true] {
        let disk = disk.duplicate();
        if unreadable {
            let reads = Calls::of(CallKind::Read).on(&backup);
            disk.fail_on(reads, 1, Fault::Eio, Lasting::Sticky, Side::Before);
        }
        let converted = convert_on(&disk, None, Form::Ledger, "new").unwrap();
        let plain: Vec<_> = converted.plain.iter().filter_map(|path| path.file_name()).collect();
        assert_eq!(plain, [&*backup], "unreadable: {unreadable}");
    }
}

/// The report has the files of the store and those that a restore has replaced, and no other file
/// in the directory with a similar name.
#[test]
fn the_report_of_a_conversion_names_the_files_of_its_store_and_no_others() {
    let disk = plain_wal();
    let vfs = disk.vfs(2);
    let image = bytes(&vfs, NAME);
    // Another store, plain or encrypted under its own key, with a log.
    let other = |name: &str, passphrase: Option<&str>| {
        let mut store = Store::open(Config {
            name: name.to_owned(),
            keys: passphrase.map(keys),
            ..config(disk.vfs(name.len() as u64), None)
        });
        store.as_mut().unwrap().set("theirs", "value").unwrap();
    };
    for name in ["app", "app.db2", "other.db", "app.db.archive"] {
        other(name, None);
    }
    for name in ["app.db3", "app.db.secret"] {
        other(name, Some("theirs"));
    }
    put(&vfs, "app.db.notes", b"a text of the user");
    // Copies to which the user has given other names.
    put(&vfs, "copy.db", &image);
    put(&vfs, "app.db-copy", &image);
    put(&vfs, "app.db.bak.x", b"another text");
    let ours = [
        // Files that belong to this store by their headers.
        "app.db.bak.1",
        "app.db.bak.12",
        "app.db.bak.new",
        "app.db.replaced.1",
        "app.db.old",
        // Files that belong to it by their names, with any contents.
        "app.db.bak.2",
        "app.db.replaced.1.wal.00000000000000000001",
    ];
    for name in ours {
        let by_name = name.ends_with('2') && name.len() == 12 || name.contains(".wal.");
        put(&vfs, name, if by_name { b"no header" } else { &image });
    }
    // A store that a restore has replaced may be another store.
    let theirs = bytes(&vfs, "other.db");
    put(&vfs, "app.db.replaced.2", &theirs);
    put(&vfs, "app.dbx.bak.1", &theirs);
    let names = |paths: &[std::path::PathBuf]| -> Vec<String> {
        paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    };
    let converted = convert_on(&disk, None, Form::Snapshot, "new").unwrap();
    let mut expected = Vec::from(ours.map(str::to_owned));
    expected.push("app.db.replaced.2".to_owned());
    expected.sort();
    assert_eq!(names(&converted.plain), expected);
    assert!(converted.under_other_keys.is_empty(), "{converted:?}");

    // After the next change of key, the files that the former key still opens.
    let former = bytes(&vfs, NAME);
    put(&vfs, "app.db.bak.1", &former);
    put(&vfs, "app.db.kept", &former);
    let converted = convert_on(&disk, Some("new"), Form::Snapshot, "newer").unwrap();
    assert_eq!(names(&converted.under_other_keys), ["app.db.bak.1", "app.db.kept"]);
    expected.retain(|name| name != "app.db.bak.1");
    assert_eq!(names(&converted.plain), expected);
}
