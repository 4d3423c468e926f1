//! Tests of each method of the store, as a user calls it.

use std::ops::Bound;
use std::time::Duration;

use crate::common::contents;
use codex_core::vfs::Vfs;
use codex_core::{
    Anchor, Batch, CheckpointPolicy, Codec, Durability, Error, Form, OnDamage, Readable, Result,
    Store,
};
use codex_storage::RecordError;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Note {
    title: String,
    stars: u32,
}

fn note(title: &str, stars: u32) -> Note {
    Note { title: title.into(), stars }
}

fn store_of(keys: &[&str]) -> Store {
    let store = Store::in_memory().unwrap();
    for key in keys {
        store.set(key, key).unwrap();
    }
    store
}

fn keys(entries: impl Iterator<Item = codex_core::Entry>) -> Vec<String> {
    entries.map(|entry| String::from_utf8(entry.key().to_vec()).unwrap()).collect()
}

#[test]
fn a_value_is_there_after_it_was_set_and_gone_after_it_was_removed() {
    let store = Store::in_memory().unwrap();
    assert_eq!(store.get::<Note>("n").unwrap(), None);
    store.set("n", &note("Locks", 2)).unwrap();
    assert_eq!(store.get("n").unwrap(), Some(note("Locks", 2)));
    assert!(store.contains_key("n") && store.len() == 1 && !store.is_empty());
    store.set("n", &note("Logs", 3)).unwrap();
    assert_eq!(store.get("n").unwrap(), Some(note("Logs", 3)));
    assert!(store.remove("n").unwrap());
    assert!(!store.remove("n").unwrap());
    assert_eq!(store.get::<Note>("n").unwrap(), None);
    assert!(!store.contains_key("n") && store.is_empty());
}

#[test]
fn any_bytes_are_a_key_the_empty_one_included() {
    let store = Store::in_memory().unwrap();
    // Read as text, those from the third to the fifth would all be the replacement character.
    let keys: [&[u8]; 7] =
        [b"", &[0], b"\xFF", b"\xFE", "\u{FFFD}".as_bytes(), b"\xC3\x28", "ключ".as_bytes()];
    for (n, key) in keys.iter().enumerate() {
        store.set(key, &n).unwrap();
    }
    for (n, key) in keys.iter().enumerate() {
        assert_eq!(store.get(key).unwrap(), Some(n));
    }
    assert_eq!(store.get::<usize>(String::from("ключ")).unwrap(), Some(6));
    assert_eq!(store.len(), keys.len());
}

#[test]
fn unsized_values_are_stored_as_what_they_own() {
    let store = Store::in_memory().unwrap();
    store.set("text", "hello").unwrap();
    store.set("list", &[1_u16, 2][..]).unwrap();
    assert_eq!(store.get::<String>("text").unwrap().as_deref(), Some("hello"));
    assert_eq!(store.get::<Vec<u16>>("list").unwrap(), Some(vec![1, 2]));
}

#[test]
fn bytes_come_back_as_they_went_and_as_a_handle_that_outlives_the_change() {
    let store = Store::in_memory().unwrap();
    store.set_bytes("b", [0, 1, 2]).unwrap();
    let before = store.get_bytes("b").unwrap();
    store.set_bytes("b", []).unwrap();
    assert_eq!(&*before, [0, 1, 2]);
    assert_eq!(before.codec(), None);
    assert!(store.get_bytes("b").unwrap().is_empty());
    store.remove("b").unwrap();
    assert_eq!(before.as_ref(), [0, 1, 2]);
    assert!(store.get_bytes("b").is_none());
}

#[test]
fn raw_bytes_read_as_a_type_are_an_error_that_names_both_and_quotes_neither() {
    let store = Store::in_memory().unwrap();
    store.set_bytes("secret key", "secret value").unwrap();
    let error = store.get::<Note>("secret key").unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(matches!(error, Error::RawValue { key_len: 10, .. }), "{error}");
    assert!(text.contains("raw bytes") && text.contains("Note"), "{text}");
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn a_value_of_another_type_is_an_error_and_the_value_stays() {
    let store = Store::in_memory().unwrap();
    store.set("n", &7_u64).unwrap();
    assert!(matches!(store.get::<Note>("n"), Err(Error::Decode { .. })));
    assert!(matches!(store.take::<Note>("n"), Err(Error::Decode { .. })));
    let updated = store.update("n", |_: Option<Note>| panic!("there is no note to change"));
    assert!(matches!(updated, Err(Error::Decode { .. })));
    assert_eq!(store.get("n").unwrap(), Some(7_u64));
}

#[test]
fn take_removes_and_returns() {
    let store = Store::in_memory().unwrap();
    store.set("n", &note("Locks", 2)).unwrap();
    assert_eq!(store.take("n").unwrap(), Some(note("Locks", 2)));
    assert_eq!(store.take::<Note>("n").unwrap(), None);
    assert!(store.is_empty());
}

#[cfg(feature = "json")]
#[test]
fn values_written_with_another_codec_stay_readable() {
    let vfs = Vfs::mem(1);
    let json = Store::options().codec(Codec::Json).in_memory().unwrap();
    json.set("n", &note("Locks", 2)).unwrap();
    assert_eq!(&*json.get_bytes("n").unwrap(), br#"{"title":"Locks","stars":2}"#);
    assert_eq!(json.get_bytes("n").unwrap().codec(), Some(Codec::Json));
    assert_eq!(json.get("n").unwrap(), Some(note("Locks", 2)));

    let store =
        Store::options().form(Form::Snapshot).codec(Codec::Json).open_in(&vfs, "a.db").unwrap();
    store.set("n", &note("Locks", 2)).unwrap();
    store.close().unwrap();
    drop(store);
    let store = Store::options().open_in(&vfs, "a.db").unwrap();
    assert_eq!(store.get("n").unwrap(), Some(note("Locks", 2)));
    store.update("n", |n: Option<Note>| n).unwrap();
    assert_eq!(store.get_bytes("n").unwrap().codec(), Some(Codec::Bincode));
    assert_eq!(store.get("n").unwrap(), Some(note("Locks", 2)));
}

#[test]
fn update_makes_changes_and_removes() {
    let store = Store::in_memory().unwrap();
    let add = |n: Option<u32>| Some(n.unwrap_or(0) + 1);
    assert_eq!(store.update("n", add).unwrap(), Some(1));
    assert_eq!(store.update("n", add).unwrap(), Some(2));
    assert_eq!(store.update("n", |_: Option<u32>| None).unwrap(), None);
    assert!(!store.contains_key("n"));
    assert_eq!(store.update("n", |n: Option<u32>| n).unwrap(), None);
    assert!(store.is_empty());
}

#[test]
fn try_update_writes_nothing_when_the_closure_refuses() {
    #[derive(Debug)]
    enum Refused {
        TooPoor,
        Store(Error),
    }
    impl From<Error> for Refused {
        fn from(error: Error) -> Self {
            Self::Store(error)
        }
    }
    let withdraw = |store: &Store, amount: u64| {
        store.try_update("balance", |balance: Option<u64>| {
            balance.unwrap_or(0).checked_sub(amount).map(Some).ok_or(Refused::TooPoor)
        })
    };
    let store = Store::in_memory().unwrap();
    store.set("balance", &10_u64).unwrap();
    assert_eq!(withdraw(&store, 4).unwrap(), Some(6));
    assert!(matches!(withdraw(&store, 7), Err(Refused::TooPoor)));
    assert_eq!(store.get("balance").unwrap(), Some(6_u64));
    store.set_bytes("balance", "?").unwrap();
    let refused = withdraw(&store, 1);
    assert!(matches!(refused, Err(Refused::Store(Error::RawValue { .. }))), "{refused:?}");
}

#[test]
fn compare_exchange_compares_encoded_bytes() {
    let store = Store::in_memory().unwrap();
    assert!(!store.compare_exchange("n", Some(&1), Some(&2)).unwrap());
    assert!(store.compare_exchange("n", None, Some(&1)).unwrap());
    assert!(!store.compare_exchange("n", None, Some(&2)).unwrap());
    assert!(!store.compare_exchange("n", Some(&2), Some(&3)).unwrap());
    assert!(store.compare_exchange("n", Some(&1), Some(&2)).unwrap());
    assert_eq!(store.get("n").unwrap(), Some(2));
    assert!(store.compare_exchange("n", Some(&2), None).unwrap());
    assert!(store.compare_exchange::<i32>("n", None, None).unwrap());
    assert!(store.is_empty());

    store.set("f", &f64::NAN).unwrap();
    assert!(store.compare_exchange("f", Some(&f64::NAN), Some(&0.0)).unwrap());
    assert!(!store.compare_exchange("f", Some(&-0.0), Some(&1.0)).unwrap());
    store.set_bytes("b", [7]).unwrap();
    assert!(!store.compare_exchange("b", Some(&7_u8), Some(&8)).unwrap());
}

#[test]
fn a_batch_is_one_commit_in_which_the_last_change_of_a_key_counts() {
    let store = store_of(&["gone", "kept"]);
    let before = store.snapshot().seq();
    let mut batch = store.batch();
    batch.set("a", &1_u8).unwrap().set_bytes("b", [2]).unwrap().remove("gone").unwrap();
    batch.set("a", &3_u8).unwrap().remove("absent").unwrap();
    assert_eq!(batch.len(), 5);
    assert_eq!(keys(store.iter()), ["gone", "kept"], "nothing shows before the commit");
    assert_eq!(batch.commit().unwrap(), before + 1);
    assert_eq!(keys(store.iter()), ["a", "b", "kept"]);
    assert_eq!(store.get("a").unwrap(), Some(3_u8));
}

#[test]
fn clearing_in_a_batch_removes_what_came_before_and_keeps_what_follows() {
    let store = store_of(&["old"]);
    let mut batch = store.batch();
    batch.set("early", &1).unwrap().clear().set("late", &2).unwrap();
    batch.commit().unwrap();
    assert_eq!(keys(store.iter()), ["late"]);
}

#[test]
fn a_batch_without_effect_returns_the_last_commit() {
    let store = store_of(&["k"]);
    let before = store.snapshot().seq();
    assert_eq!(store.batch().commit().unwrap(), before);
    let mut batch = store.batch();
    batch.remove("absent").unwrap();
    assert_eq!(batch.commit().unwrap(), before);
    {
        let mut dropped = store.batch();
        dropped.set("k2", &1).unwrap();
    }
    assert!(!store.contains_key("k2"), "a dropped batch changes nothing");
}

/// Returns the error of a record. Checks that its text has both numbers, or the limit.
fn record(error: &Error) -> &RecordError {
    let Error::Storage(codex_storage::Error::Record { source, .. }) = error else {
        panic!("not an error of a record: {error}")
    };
    let text = error.to_string();
    let numbers = match source {
        RecordError::KeyTooLong { len, limit } => vec![len, limit],
        RecordError::BatchTooLarge { limit } => vec![limit],
        other => panic!("{other}"),
    };
    assert!(numbers.iter().all(|number| text.contains(&number.to_string())), "{text}");
    assert!(error.is_too_large(), "{text}");
    source
}

#[test]
fn a_key_of_65_535_bytes_is_taken_by_every_call_and_a_longer_one_by_none() {
    let store = Store::in_memory().unwrap();
    let batched = |key: &[u8], change: fn(&mut Batch, &[u8]) -> Result<()>| {
        let mut batch = store.batch();
        batch.set("before", &1_u8)?;
        let changed = change(&mut batch, key);
        assert_eq!(batch.len(), 1 + usize::from(changed.is_ok()), "as before a refused change");
        changed.and(batch.commit().map(|_| ()))
    };
    let every = |key: &[u8]| {
        [
            store.set(key, &1_u8),
            store.update(key, |n: Option<u8>| Some(n.unwrap_or(0) + 1)).map(|_| ()),
            store.try_update(key, |_| Ok::<_, Error>(Some(3_u8))).map(|_| ()),
            store.compare_exchange(key, Some(&3_u8), Some(&4_u8)).map(|_| ()),
            store.compare_exchange(key, Some(&4_u8), None).map(|_| ()),
            store.set_bytes(key, "bytes"),
            store.remove(key).map(|_| ()),
            batched(key, |batch, key| batch.set(key, &5_u8).map(|_| ())),
            batched(key, |batch, key| batch.set_bytes(key, "bytes").map(|_| ())),
            batched(key, |batch, key| batch.remove(key).map(|_| ())),
        ]
    };
    let longest = vec![b'k'; 65_535];
    for (call, done) in every(&longest).into_iter().enumerate() {
        done.unwrap_or_else(|error| panic!("call {call}: {error}"));
    }
    store.set(&longest, &1_u8).unwrap();
    let before = contents(&store);
    assert!(store.remove("before").unwrap());
    let too_long = vec![b'k'; 65_536];
    for (call, done) in every(&too_long).into_iter().enumerate() {
        let refused = done.expect_err("a key of 65,536 bytes");
        let expected = RecordError::KeyTooLong { len: 65_536, limit: 65_535 };
        assert_eq!(*record(&refused), expected, "call {call}");
    }
    // No key of this length can exist, so a lookup is not an error.
    assert_eq!(store.take::<u8>(&too_long).unwrap(), None);
    assert_eq!(store.get::<u8>(&too_long).unwrap(), None);
    assert_eq!(store.remove_prefix(&too_long).unwrap(), 0);
    assert_eq!(store.remove_range(too_long.as_slice()..).unwrap(), 0);
    assert_eq!(contents(&store), before, "each batch has the change before the refused one");
    assert_eq!(store.remove_range("c"..).unwrap(), 1);
}

/// The maximum length of the records of a commit, and the lengths of records without key and value.
const RECORDS_LEN_MAX: usize = 256 << 20;
const RECORD_LEN: usize = 8;

#[test]
fn the_records_of_a_commit_take_256_mib_and_not_a_byte_more() {
    let store = Store::in_memory().unwrap();
    let too_large = RecordError::BatchTooLarge { limit: RECORDS_LEN_MAX };
    // A value is stored with one byte for its codec.
    let mut value = vec![0; RECORDS_LEN_MAX - RECORD_LEN - "k".len() - 1];
    store.set_bytes("k", &value).unwrap();
    value.push(0);
    assert_eq!(*record(&store.set_bytes("k", &value).unwrap_err()), too_large);
    assert_eq!(store.get_bytes("k").unwrap().len(), value.len() - 1, "the value before");
    drop(value);
    let key = vec![b'k'; 65_536 - RECORD_LEN];
    let mut batch = store.batch();
    for _ in 0..RECORDS_LEN_MAX / 65_536 {
        batch.remove(&key).unwrap();
    }
    assert_eq!(*record(&batch.remove("").map(|_| ()).unwrap_err()), too_large);
    assert_eq!(*record(&batch.set_bytes("", []).map(|_| ()).unwrap_err()), too_large);
    assert_eq!(batch.len(), 4_096, "the batch is as before the refused changes");
}

/// The removal of a range is one commit, with one record for each key.
#[test]
fn the_removal_of_a_range_takes_256_mib_in_keys_and_not_a_byte_more() {
    const KEY_LEN: usize = 65_536 - RECORD_LEN;
    let store = Store::in_memory().unwrap();
    let keys: u64 = 4_096;
    for half in [0..keys / 2, keys / 2..keys] {
        let mut batch = store.batch();
        for n in half {
            let mut key = vec![0; KEY_LEN];
            key[..8].copy_from_slice(&n.to_le_bytes());
            batch.set_bytes(key, []).unwrap();
        }
        batch.commit().unwrap();
    }
    store.set_bytes("", []).unwrap();
    let before = store.snapshot().seq();
    let refused = store.remove_prefix("").unwrap_err();
    assert_eq!(*record(&refused), RecordError::BatchTooLarge { limit: RECORDS_LEN_MAX });
    assert_eq!((store.len() as u64, store.snapshot().seq()), (keys + 1, before));
    assert_eq!(store.remove_range([0].as_slice()..).unwrap(), keys);
    assert_eq!((store.len(), store.snapshot().seq()), (1, before + 1));
}

#[test]
fn ordered_reads_go_by_bytes_from_either_end() {
    let store = store_of(&["b", "a", "ab", "c", "B"]);
    assert_eq!(keys(store.iter()), ["B", "a", "ab", "b", "c"]);
    assert_eq!(keys(store.iter().rev()), ["c", "b", "ab", "a", "B"]);
    assert_eq!(keys(store.range("a".."b")), ["a", "ab"]);
    assert_eq!(keys(store.range("a"..="b")), ["a", "ab", "b"]);
    assert_eq!(keys(store.range("ab"..)), ["ab", "b", "c"]);
    assert_eq!(keys(store.range(.."ab")), ["B", "a"]);
    assert_eq!(keys(store.range(..)).len(), 5);
    let open = (Bound::Excluded(&b"a"[..]), Bound::Excluded(&b"c"[..]));
    assert_eq!(keys(store.range(open)), ["ab", "b"]);
    assert_eq!(keys(store.range("c".."a")), [""; 0], "crossed bounds are empty, not a panic");
    assert_eq!(keys(store.prefix("a")), ["a", "ab"]);
    assert_eq!(store.keys().map(|key| key.len()).sum::<usize>(), 6);
    assert_eq!(store.iter().next().unwrap().value::<String>().unwrap(), "B");
    assert_eq!(store.iter().next().unwrap().bytes(), store.get_bytes("B").unwrap().as_ref());
}

#[test]
fn bulk_removals_say_how_many_and_remove_exactly_these() {
    let store = store_of(&["a", "user/1", "user/2", "user0", "z"]);
    assert_eq!(store.remove_prefix("user/").unwrap(), 2);
    assert_eq!(store.remove_prefix("user/").unwrap(), 0);
    assert_eq!(keys(store.iter()), ["a", "user0", "z"]);
    assert_eq!(store.remove_range("b".."z").unwrap(), 1);
    assert_eq!(store.remove_range("z".."b").unwrap(), 0);
    assert_eq!(store.remove_range(..).unwrap(), 2);
    assert!(store.is_empty());
}

#[test]
fn clear_removes_everything_in_one_commit() {
    let store = store_of(&["a", "b"]);
    let before = store.snapshot().seq();
    store.clear().unwrap();
    assert!(store.is_empty());
    assert_eq!(store.snapshot().seq(), before + 1);
    store.set("c", &1).unwrap();
    assert_eq!(keys(store.iter()), ["c"]);
}

#[test]
fn snapshots_and_cursors_show_the_store_as_it_was() {
    let store = store_of(&["a", "b"]);
    let snapshot = store.snapshot();
    let mut cursor = store.iter();
    store.set("a", "changed").unwrap();
    store.remove("b").unwrap();
    store.set("c", &1).unwrap();
    assert_eq!(keys(snapshot.iter()), ["a", "b"]);
    assert_eq!(snapshot.get::<String>("a").unwrap().as_deref(), Some("a"));
    assert_eq!(cursor.next().unwrap().value::<String>().unwrap(), "a");
    assert_eq!(keys(cursor), ["b"]);
    assert_eq!((snapshot.len(), store.len()), (2, 2));
    store.close().unwrap();
    drop(store);
    assert!(snapshot.contains_key("b") && !snapshot.contains_key("c"));
}

#[test]
fn a_store_and_its_snapshot_read_alike() {
    fn sum(source: &impl Readable) -> u32 {
        source.iter().map(|entry| entry.value::<u32>().unwrap()).sum::<u32>()
            + source.get::<u32>("a").unwrap().unwrap()
            + u32::try_from(source.keys().count() + source.len()).unwrap()
            + source.range("a".."b").map(|entry| entry.value::<u32>().unwrap()).sum::<u32>()
            + u32::from(source.is_empty())
            + u32::from(source.contains_key("b"))
    }
    let store = Store::in_memory().unwrap();
    store.set("a", &1_u32).unwrap();
    store.set("b", &10_u32).unwrap();
    assert_eq!((sum(&store), sum(&store.snapshot())), (18, 18));
}

#[test]
fn a_closed_store_refuses_writes_and_serves_reads_from_memory() {
    let store = store_of(&["k"]);
    let other = store.clone();
    other.close().unwrap();
    other.close().unwrap();
    assert!(store.set("k", &1).unwrap_err().is_closed());
    assert!(store.remove("k").unwrap_err().is_closed());
    assert!(store.update("k", |k: Option<String>| k).unwrap_err().is_closed());
    assert!(store.batch().set("k", &1).unwrap().len() == 1);
    assert_eq!(store.get::<String>("k").unwrap().as_deref(), Some("k"));
}

#[test]
fn handles_are_send_sync_clone_and_owned() {
    fn owned<T: Send + Sync + 'static>() {}
    fn cloned<T: Clone + Send + Sync + 'static>() {}
    cloned::<Store>();
    cloned::<codex_core::Snapshot>();
    cloned::<codex_core::ValueRef>();
    cloned::<codex_core::Entry>();
    cloned::<codex_core::Iter>();
    cloned::<codex_core::Keys>();
    cloned::<Error>();
    owned::<codex_core::Batch>();
}

#[test]
fn debug_of_no_handle_shows_keys_or_values() {
    let store = Store::in_memory().unwrap();
    store.set("secret", "secret").unwrap();
    let mut batch = store.batch();
    batch.set("secret", "secret").unwrap();
    let mut watch = store.watch("secret").unwrap();
    store.batch().set("secret", "secret").unwrap().remove("secret").unwrap().commit().unwrap();
    store.set("secret", "secret").unwrap();
    let text = format!(
        "{store:?} {batch:?} {watch:?} {:?} {:?} {:?} {:?} {:?} {watch:?}",
        watch.next(),
        store.snapshot(),
        store.get_bytes("secret"),
        store.iter().next(),
        store.keys().next(),
    );
    assert!(!text.contains("secret") && !text.contains("115"), "{text}");
}

#[test]
fn options_that_contradict_each_other_are_errors() {
    let anchor = Anchor::new([0; 16], 1, [0; 32]);
    let policy = CheckpointPolicy::default();
    let options = Store::options;
    let files = [
        options().read_only(true).create_new(true),
        options().read_only(true).create(true),
        options().create(false).create_new(true),
        options().read_only(true).durability(Durability::Os),
        options().read_only(true).checkpoint(policy),
        options().form(Form::Snapshot).durability(Durability::Os),
        options().durability(Durability::Interval(Duration::ZERO)),
        options().form(Form::Ledger).checkpoint(policy),
        options().form(Form::Snapshot).checkpoint(policy),
        options().checkpoint(policy.ratio(f64::NAN)),
        options().checkpoint(policy.ratio(0.0)),
        options().anchor(anchor).create_new(true),
        options().accept_unknown_anchor(true),
    ];
    for options in files {
        let error = options.open_in(&Vfs::mem(1), "a.db").unwrap_err();
        let contradiction =
            matches!(&error, Error::Storage(codex_storage::Error::Contradiction(_)));
        assert!(contradiction, "{options:?}: {error}");
        let error = options.open("/nonexistent/a.db").unwrap_err();
        assert!(matches!(error, Error::Storage(codex_storage::Error::Contradiction(_))));
    }
    let in_memory = [
        options().create(true),
        options().create_new(true),
        options().read_only(true),
        options().form(Form::Wal),
        options().durability(Durability::Sync),
        options().on_damage(OnDamage::CutTail),
        options().lock_timeout(Duration::ZERO),
        options().checkpoint(policy),
        options().anchor(anchor),
    ];
    for options in in_memory {
        let error = options.in_memory().unwrap_err();
        assert!(error.to_string().contains("in memory"), "{options:?}: {error}");
    }
}

#[test]
fn a_batch_is_synced_if_it_asks_for_more_than_the_level_of_the_store() {
    let short = Durability::Interval(Duration::from_secs(3_600));
    let long = Durability::Interval(Duration::from_secs(7_200));
    let levels = [Durability::Os, long, short, Durability::Sync];
    for (at, level) in levels.into_iter().enumerate() {
        for (asked, wanted) in levels.into_iter().enumerate() {
            let options = Store::options().durability(level);
            let store = options.open_in(&Vfs::mem(crate::common::seed()), "a.db").unwrap();
            store.set("a", &1).unwrap();
            store.batch().durability(wanted).set("b", &2).unwrap().commit().unwrap();
            let durable = store.stats().storage.durable;
            let synced = if asked > at || level == Durability::Sync { 2 } else { 0 };
            assert_eq!(durable, synced, "{level:?}, {wanted:?}");
            // The next batch has the level of the store again.
            let seq = store.batch().set("c", &3).unwrap().commit().unwrap();
            let synced = if level == Durability::Sync { 3 } else { synced };
            assert_eq!((seq, store.stats().storage.durable), (3, synced), "{level:?}");
        }
    }
}

#[test]
fn a_batch_chains_into_its_commit_and_may_be_filled_again() {
    let store = store_of(&["a", "b/1", "b/2", "c"]);
    let seq = store.snapshot().seq();
    let chained = store.batch().remove("a").unwrap().remove_prefix("b/").unwrap().commit();
    assert_eq!(chained.unwrap(), seq + 1);
    let mut batch = store.batch();
    for key in ["b/3", "b/4"] {
        batch.set(key, &1).unwrap();
    }
    assert_eq!(batch.remove_range("b/4"..="b/9").unwrap().len(), 3);
    assert_eq!(batch.commit().unwrap(), seq + 2);
    assert!(batch.is_empty());
    assert_eq!(keys(store.iter()), ["b/3", "c"]);
    assert_eq!(batch.clear().commit().unwrap(), seq + 3);
    assert_eq!(batch.remove_range("z".."a").unwrap().commit().unwrap(), seq + 3);
    assert!(store.is_empty());
}
