//! Images of a store on a shared log: nodes begin with them, and the log before them is removed.

use std::sync::Arc;
use std::time::Duration;

use codex_core::internals::without_threads;
use codex_core::remote::{Folder, Memory as Place};
use codex_core::shared::{Client, Memory, Position, RecordName, SharedError, SharedLog};
use codex_core::{CheckpointPolicy, Error, OpenOptions, StorageError, Store};

const LONG: Duration = Duration::from_secs(60);

/// Returns the options of a store, with a key if these tests are those of encrypted stores.
fn options() -> OpenOptions {
    let options = Store::options().write_timeout(LONG);
    #[cfg(feature = "crypto")]
    if module_path!().ends_with("sealed") {
        return options.key(codex_core::crypto::Key::raw(&[7; 32]).unwrap());
    }
    options
}

fn by_hand() -> OpenOptions {
    without_threads(options())
}

fn shared(error: Error) -> SharedError {
    match error {
        Error::Storage(StorageError::Shared(error)) => error,
        error => panic!("{error}"),
    }
}

fn fill(store: &Store, from: u64, to: u64) {
    for n in from..to {
        store.set(format!("key/{:03}", n % 50), &n).unwrap();
        if n % 7 == 0 {
            store.remove(format!("key/{:03}", (n + 3) % 50)).unwrap();
        }
    }
}

/// The states are the same, and so are the histories.
fn agree(one: &Store, other: &Store) {
    let all = |store: &Store| {
        store.read_latest(LONG).unwrap();
        let entries: Vec<_> =
            store.iter().map(|entry| (entry.key().to_vec(), entry.bytes().to_vec())).collect();
        (store.anchor().unwrap(), entries)
    };
    assert_eq!(all(one), all(other));
}

#[test]
fn a_node_begins_with_the_image_and_reads_the_log_behind_it() {
    let log = Memory::new();
    let one = by_hand().shared(log.client()).unwrap();
    fill(&one, 0, 100);
    one.checkpoint().unwrap();
    let seq = one.anchor().unwrap().seq;
    assert_eq!(one.lag().unwrap().image_seq, Some(seq));
    fill(&one, 100, 150);
    let imaged = log.end();
    one.checkpoint().unwrap();
    // The log is kept from the first image on.
    let kept = log.slots().len();
    fill(&one, 150, 160);
    let two = by_hand().shared(log.client()).unwrap();
    agree(&one, &two);
    assert!(two.lag().unwrap().image_seq > Some(seq));
    one.checkpoint().unwrap();
    assert!(log.slots().len() < kept, "the log up to {imaged:?} is removed");
    // Both write on, and decide alike.
    let three = by_hand().shared(log.client()).unwrap();
    for n in 0..20_u64 {
        assert!(three.compare_exchange("n", n.checked_sub(1).as_ref(), Some(&n)).unwrap());
        assert!(!two.compare_exchange("n", n.checked_sub(1).as_ref(), Some(&n)).unwrap());
    }
    agree(&one, &two);
    agree(&three, &two);
}

#[test]
fn a_node_that_is_behind_reads_on_until_the_log_was_removed_under_it() {
    let log = Memory::new();
    let (one, other) = (log.client(), log.client());
    let (one, behind) = (by_hand().shared(one).unwrap(), by_hand().shared(other.clone()).unwrap());
    fill(&one, 0, 30);
    one.checkpoint().unwrap();
    fill(&one, 30, 60);
    behind.read_latest(LONG).unwrap();
    one.checkpoint().unwrap();
    fill(&one, 60, 90);
    agree(&one, &behind);
    fill(&one, 90, 120);
    one.checkpoint().unwrap();
    fill(&one, 120, 130);
    one.checkpoint().unwrap();
    fill(&one, 130, 140);
    one.checkpoint().unwrap();
    let error = shared(behind.read_latest(LONG).unwrap_err());
    assert!(matches!(error, SharedError::Trimmed { .. }), "{error}");
    let again = by_hand().shared(other).unwrap();
    agree(&one, &again);
}

#[test]
fn the_node_whose_frame_makes_the_log_long_enough_writes_the_image_by_itself() {
    let log = Memory::new();
    let policy = CheckpointPolicy::default().floor_bytes(4_000).ratio(1.0);
    let one = options().checkpoint(policy).shared(log.client()).unwrap();
    let two = options().checkpoint(policy).shared(log.client()).unwrap();
    let mut n = 0;
    while one.lag().unwrap().image_seq.is_none() {
        one.set(format!("key/{n:05}"), &n).unwrap();
        n += 1;
        assert!(n < 10_000, "{:?}", one.stats().image_error);
    }
    assert_eq!(two.lag().unwrap().image_seq, None, "the other one has written nothing");
    one.close().unwrap();
    let three = options().shared(log.client()).unwrap();
    agree(&two, &three);
}

#[test]
fn images_at_another_place_are_whole_stores_under_the_same_key() {
    let folder = tempfile::tempdir().unwrap();
    let log = Memory::new();
    let key = || codex_core::crypto::Key::raw(&[7; 32]).unwrap();
    let open = || {
        let place = Arc::new(Folder::open(folder.path()).unwrap());
        by_hand().key(key()).images(place).shared(log.client()).unwrap()
    };
    let one = open();
    fill(&one, 0, 40);
    one.checkpoint().unwrap();
    fill(&one, 40, 50);
    agree(&one, &open());
    let files = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path());
    let is_image = |path: &std::path::PathBuf| {
        path.file_name().unwrap().to_string_lossy().starts_with("image.")
    };
    let images: Vec<_> = files.filter(is_image).collect();
    let copy = folder.path().join("copy.db");
    std::fs::copy(&images[0], &copy).unwrap();
    assert!(Store::open(&copy).is_err(), "it is encrypted");
    let copy = Store::options().key(key()).open(&copy).unwrap();
    assert_eq!(copy.get::<u64>("key/001").unwrap(), Some(1));
    // A copy of the present state.
    let path = folder.path().join("now.db");
    one.backup_to(&path).unwrap();
    let now = Store::options().key(key()).open(&path).unwrap();
    assert_eq!(now.len(), one.len());
}

#[test]
fn an_image_that_is_too_large_for_the_log_or_lost_is_told() {
    let log = Memory::new();
    let place = Arc::new(Place::new());
    let one = by_hand().images(place).shared(log.client()).unwrap();
    fill(&one, 0, 10);
    one.checkpoint().unwrap();
    // Another place.
    let error = by_hand().shared(log.client()).unwrap_err();
    assert!(error.to_string().contains("missing at its place"), "{error}");
    let elsewhere = Arc::new(Place::new());
    assert!(by_hand().images(elsewhere).shared(log.client()).is_err());
    // The record of another store.
    let client = log.client();
    let record = client.record(RecordName::Image, LONG).unwrap().unwrap();
    let mut bytes = record.bytes;
    bytes[9] ^= 1;
    assert!(client.set_record(RecordName::Image, Some(record.version), &bytes, LONG).unwrap());
    let error = by_hand().shared(log.client()).unwrap_err();
    let is_named =
        ["checksum", "authentication"].iter().any(|what| error.to_string().contains(what));
    assert!(is_named, "{error}");
}

#[test]
fn a_late_append_to_a_slot_that_was_removed_changes_nothing() {
    let log = Memory::new();
    let one = by_hand().shared(log.client()).unwrap();
    let late: Client = log.client();
    let two = by_hand().shared(late.clone()).unwrap();
    fill(&two, 0, 10);
    let (slot, _) = log.slots()[0];
    let mut part = Vec::new();
    late.read(Position(0), &mut |entry| {
        if entry.slot == slot {
            part = entry.part.to_vec();
        }
        Ok(())
    })
    .unwrap();
    two.checkpoint().unwrap();
    fill(&one, 10, 20);
    one.checkpoint().unwrap();
    fill(&one, 20, 30);
    two.read_latest(LONG).unwrap();
    one.checkpoint().unwrap();
    assert!(log.slots().iter().all(|(kept, _)| *kept != slot));
    // The request was sent again, and comes after the slot was removed.
    late.append(slot, &part, LONG).unwrap();
    let three = by_hand().shared(log.client()).unwrap();
    fill(&two, 30, 40);
    agree(&one, &two);
    agree(&one, &three);
}

#[test]
fn a_log_that_is_full_takes_an_image_and_has_room_again() {
    let log = Memory::new();
    let one = by_hand().shared(log.client()).unwrap();
    fill(&one, 0, 40);
    one.checkpoint().unwrap();
    log.set_quota(log.client().usage(LONG).unwrap().used + 2_000);
    let mut n = 40;
    let error = loop {
        match one.set(format!("key/{:03}", n % 50), &n) {
            Ok(()) => n += 1,
            Err(error) => break shared(error),
        }
    };
    assert!(matches!(error, SharedError::Full { .. }), "{error}");
    // The first image after it is trimmed up to the one before, the second one up to this one.
    one.checkpoint().unwrap();
    for n in 0..5 {
        one.set("again", &n).unwrap();
    }
    agree(&one, &by_hand().shared(log.client()).unwrap());
}
