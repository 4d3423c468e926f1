//! The engine over the storage that keeps nothing, and over one that keeps a log and can fail.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use codex_storage::storage::Durability;
use codex_storage::vfs::Clock;

use super::{Engine, EngineOptions};
use crate::commit::{Change, Check, Commit, Outcome};
use crate::entry::Entry;
use crate::map::Map;

#[derive(Debug)]
struct StoppedClock;

impl Clock for StoppedClock {
    fn now_us(&self) -> i64 {
        0
    }
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
    fn sleep(&self, _duration: Duration) {}
}

fn options() -> EngineOptions {
    EngineOptions {
        path: "test.db".into(),
        durability: Durability::Sync,
        clock: Arc::new(StoppedClock),
        background: false,
    }
}

fn in_memory() -> Arc<Engine> {
    Engine::start(codex_storage::null(), Map::new(), options()).unwrap()
}

fn put(key: &str, value: &str) -> Change {
    Change::Put(Entry::new(key.as_bytes(), value.as_bytes()))
}

fn remove(key: &str) -> Change {
    Change::Remove(key.as_bytes().into())
}

fn batch(changes: Vec<Change>) -> Commit {
    Commit { changes: changes.into(), ..Commit::default() }
}

fn done(engine: &Engine, commit: Commit) -> (Option<u64>, u64, Option<String>) {
    match engine.submit(commit).unwrap() {
        Outcome::Done { seq, removed, previous } => {
            let previous = previous.map(|entry| String::from_utf8_lossy(entry.value()).into());
            (seq, removed, previous)
        }
        Outcome::Conflict => panic!("a conflict"),
    }
}

fn contents(engine: &Engine) -> BTreeMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    engine.view().ordered.iter().map(|e| (text(e.key()), text(e.value()))).collect()
}

fn model<const N: usize>(entries: [(&str, &str); N]) -> BTreeMap<String, String> {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[test]
fn a_change_tells_its_number_and_what_it_replaced() {
    let engine = in_memory();
    assert_eq!(done(&engine, Commit::one(put("a", "1"))), (Some(1), 0, None));
    assert_eq!(done(&engine, Commit::one(put("a", "2"))), (Some(2), 0, Some("1".into())));
    assert_eq!(done(&engine, Commit::one(remove("a"))), (Some(3), 1, Some("2".into())));
    assert_eq!(contents(&engine), model([]));
    assert_eq!(engine.view().seq, 3);
}

#[test]
fn what_changes_nothing_writes_nothing() {
    let engine = in_memory();
    assert_eq!(done(&engine, Commit::one(remove("a"))), (None, 0, None));
    assert_eq!(done(&engine, Commit::one(Change::Clear)), (None, 0, None));
    let all = || Change::RemoveRange(Bound::Unbounded, Bound::Unbounded);
    assert_eq!(done(&engine, Commit::one(all())), (None, 0, None));
    assert_eq!(done(&engine, batch(vec![])), (None, 0, None));
    assert_eq!(engine.stats().storage.groups, 0);
}

#[test]
fn later_changes_of_a_batch_see_the_earlier_ones() {
    let engine = in_memory();
    done(&engine, batch(vec![put("a", "1"), put("b", "1"), put("c", "1")]));
    let range =
        Change::RemoveRange(Bound::Excluded(b"a"[..].into()), Bound::Included(b"d"[..].into()));
    let changes =
        vec![remove("b"), put("d", "2"), range, put("c", "3"), put("e", "4"), remove("e")];
    assert_eq!(done(&engine, batch(changes)).1, 4, "b, then c and d, then e");
    assert_eq!(contents(&engine), model([("a", "1"), ("c", "3")]));
    let changes = vec![put("x", "1"), Change::Clear, put("y", "1"), remove("a"), remove("x")];
    assert_eq!(done(&engine, batch(changes)).1, 3, "a, c and x by the clear");
    assert_eq!(contents(&engine), model([("y", "1")]));
    assert!(engine.read(|map| map.get(b"a").is_none() && map.get(b"y").is_some()));
}

#[test]
fn crossed_and_empty_ranges_hold_nothing() {
    let engine = in_memory();
    done(&engine, batch(vec![put("a", "1"), put("b", "1")]));
    for (lower, upper) in [
        (Bound::Included("b"), Bound::Included("a")),
        (Bound::Excluded("a"), Bound::Excluded("a")),
        (Bound::Excluded("a"), Bound::Excluded("b")),
        (Bound::Included("c"), Bound::Unbounded),
    ] {
        let [lower, upper] = [lower, upper].map(|bound| bound.map(|key| key.as_bytes().into()));
        assert_eq!(done(&engine, Commit::one(Change::RemoveRange(lower, upper))).0, None);
    }
}

#[test]
fn checks_hold_for_the_very_entry_and_conflict_otherwise() {
    let engine = in_memory();
    done(&engine, Commit::one(put("a", "1")));
    let seen = engine.read(|map| map.get(b"a"));
    let same = |seen: &Option<Entry>| Check::Same { key: b"a"[..].into(), seen: seen.clone() };
    done(&engine, Commit::checked(same(&seen), put("a", "1")));
    let conflict = |check| {
        let outcome = engine.submit(Commit::checked(check, put("a", "9"))).unwrap();
        matches!(outcome, Outcome::Conflict)
    };
    assert!(conflict(same(&seen)), "an equal value, but another entry");
    assert!(conflict(same(&None)));
    let equals = |value: Option<&str>| Check::Equals {
        key: b"a"[..].into(),
        value: value.map(|value| value.as_bytes().into()),
    };
    assert!(conflict(equals(Some("2"))) && conflict(equals(None)));
    let range = |seen| Check::Unchanged { lower: Bound::Unbounded, upper: Bound::Unbounded, seen };
    assert!(conflict(range(vec![])) && conflict(range(vec![seen.unwrap()])));
    done(&engine, Commit::checked(equals(Some("1")), put("a", "2")));
    let now = engine.view().ordered.iter().cloned().collect();
    done(&engine, Commit::checked(range(now), remove("a")));
    done(&engine, Commit::checked(same(&None), put("a", "3")));
    assert_eq!(contents(&engine), model([("a", "3")]));
}

#[test]
fn a_closed_engine_refuses_writes_and_serves_reads() {
    let engine = in_memory();
    done(&engine, Commit::one(put("a", "1")));
    engine.close().unwrap();
    engine.close().unwrap();
    let refused = engine.submit(Commit::one(put("a", "2")));
    assert!(matches!(refused, Err(codex_storage::Error::Closed { .. })));
    assert!(engine.flush().is_err() && engine.checkpoint().is_err());
    assert_eq!(contents(&engine), model([("a", "1")]));
}
