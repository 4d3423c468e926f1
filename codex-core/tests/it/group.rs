//! What the members of one commit group have to do with each other: an error of one is its own;
//! and what commits that wait for an image have to do with those that come later.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::double::{
    Fault, Owner, Probe, absent, batch, engine, engine_at, memory, put, remove, value,
};
use codex_core::internals::{Change, Commit, Outcome};
use codex_storage::Error;
use codex_storage::batch::{GROUP_LEN_TARGET, KEY_LEN_MAX};
use codex_storage::storage::{Durability, Form};
use codex_storage::vfs::{Clock, SimClock};

/// Submits `commits` so that they wait together in this order, behind a first commit that has the
/// disk: all but that one make one group. Returns their outcomes.
fn together(
    engine: &Arc<Owner>,
    probe: &Probe,
    commits: Vec<Commit>,
) -> Vec<Result<Outcome, Error>> {
    together_until(engine, probe, commits, || {})
}

/// As [`together`], and calls `last` while all of them wait.
fn together_until(
    engine: &Arc<Owner>,
    probe: &Probe,
    commits: Vec<Commit>,
    last: impl FnOnce(),
) -> Vec<Result<Outcome, Error>> {
    thread::scope(|scope| {
        let handed = probe.handed();
        let disk = probe.disk();
        let submit = |commit| scope.spawn(|| engine.submit(commit));
        // This one leads a group of its own, which waits for the disk of the double.
        let first = submit(Commit::one(put("first", "1")));
        while probe.handed() == handed {
            thread::yield_now();
        }
        let mut waiting = Vec::new();
        for commit in commits {
            let before = engine.waiting();
            waiting.push(submit(commit));
            while engine.waiting() == before {
                thread::yield_now();
            }
        }
        last();
        drop(disk);
        first.join().unwrap().unwrap();
        waiting.into_iter().map(|waiting| waiting.join().unwrap()).collect()
    })
}

fn is_done(outcome: &Result<Outcome, Error>) -> bool {
    matches!(outcome, Ok(Outcome::Done { .. }))
}

fn is_full(outcome: &Result<Outcome, Error>) -> bool {
    matches!(outcome, Err(Error::NoSpace { .. }))
}

fn wal() -> (Arc<Owner>, Probe) {
    engine(Form::Wal, Durability::Sync, false)
}

#[test]
fn on_a_full_disk_removals_do_not_fail_with_the_sets_they_wait_with() {
    for form in [Form::Wal, Form::Snapshot, Form::Ledger] {
        let (engine, probe) = engine(form, Durability::Sync, false);
        let entries = ["a", "b", "c", "d"].map(|key| put(key, "1"));
        engine.submit(batch(entries.into())).unwrap();
        probe.fail_next(Fault::NoSpaceForLarge);
        let all = |key: &[u8]| Change::RemoveRange(Bound::Included(key.into()), Bound::Unbounded);
        let outcomes = together(
            &engine,
            &probe,
            vec![
                Commit::one(put("large 1", "1")),
                Commit::one(remove("a")),
                // Rests on a member that fails.
                Commit::one(remove("large 1")),
                Commit::one(all(b"large")),
                batch(vec![remove("b"), put("large 2", "1")]),
                Commit::one(Change::RemoveRange(
                    Bound::Included(b"c"[..].into()),
                    Bound::Excluded(b"d"[..].into()),
                )),
                Commit::one(put("large 3", "1")),
            ],
        );
        let full: Vec<bool> = outcomes.iter().map(is_full).collect();
        assert_eq!(full, [true, false, false, false, true, false, true], "{form}");
        for (at, writes) in [(1, true), (2, false), (3, false), (5, true)] {
            let Ok(Outcome::Done { seq, .. }) = &outcomes[at] else { panic!("{:?}", outcomes[at]) };
            assert_eq!(seq.is_some(), writes, "{form}: member {at}");
        }
        let keys: Vec<_> = memory(&engine).into_keys().collect();
        assert_eq!(keys, [&b"b"[..], b"d", b"first"], "{form}");
        assert_eq!(memory(&engine), probe.disk().durable_state(), "{form}");
        assert_eq!(engine.stats().poisoned, None);
    }
}

#[test]
fn on_a_full_disk_a_small_commit_does_not_fail_with_large_ones() {
    let (engine, probe) = wal();
    probe.fail_next(Fault::NoSpaceForLarge);
    let outcomes = together(
        &engine,
        &probe,
        vec![
            Commit::one(put("large", "1")),
            Commit::one(put("small", "1")),
            Commit::checked(absent("large"), put("rests on it", "1")),
            Commit::checked(absent("small"), put("conflicts", "1")),
            Commit::one(put("small", "2")),
        ],
    );
    assert!(is_full(&outcomes[0]), "{outcomes:?}");
    assert!(is_done(&outcomes[1]) && is_done(&outcomes[2]) && is_done(&outcomes[4]));
    assert!(matches!(outcomes[3], Ok(Outcome::Conflict)), "{outcomes:?}");
    assert_eq!(value(&engine, "small").as_deref(), Some("2"), "in the order they came");
    assert_eq!(memory(&engine), probe.disk().durable_state());
}

#[test]
fn a_commit_that_cannot_be_encoded_fails_alone() {
    let (engine, probe) = wal();
    let long = "k".repeat(KEY_LEN_MAX + 1);
    let outcomes = together(
        &engine,
        &probe,
        vec![
            Commit::one(put("a", "1")),
            batch(vec![put("b", "1"), put(&long, "1")]),
            Commit::checked(absent("b"), put("c", "1")),
        ],
    );
    assert!(is_done(&outcomes[0]) && is_done(&outcomes[2]), "{outcomes:?}");
    assert!(matches!(outcomes[1], Err(Error::Record { .. })), "{outcomes:?}");
    assert_eq!(probe.disk().groups, [1, 2], "the first by itself, the others in one group");
    assert_eq!(memory(&engine), probe.disk().durable_state());
}

#[test]
fn a_group_is_bounded_by_what_its_removals_of_ranges_come_to() {
    let (engine, probe) = wal();
    // Each range holds an eighth of a group in keys alone; a removal of one counts as nothing.
    let pad = "k".repeat(60_000);
    let keys = GROUP_LEN_TARGET / 8 / pad.len() + 1;
    let ranges: Vec<String> = (b'A'..=b'X').map(|c| char::from(c).to_string()).collect();
    for range in &ranges {
        let entries = (0..keys).map(|n| put(&format!("{range}{n:03}{pad}"), "1"));
        engine.submit(batch(entries.collect())).unwrap();
    }
    let before = probe.disk().groups.len();
    let remove_range = |range: &String| {
        let (lower, upper) = (range.clone(), format!("{range}\u{7f}"));
        let [lower, upper] = [lower, upper].map(|key| key.into_bytes().into());
        Commit::one(Change::RemoveRange(Bound::Included(lower), Bound::Excluded(upper)))
    };
    let outcomes = together(&engine, &probe, ranges.iter().map(remove_range).collect());
    let removed = |outcome: &Result<Outcome, Error>| match outcome {
        Ok(Outcome::Done { seq, removed, .. }) => (*seq, *removed),
        other => panic!("{other:?}"),
    };
    let removed: Vec<_> = outcomes.iter().map(removed).collect();
    assert!(removed.iter().all(|(_, removed)| *removed == u64::try_from(keys).unwrap()));
    assert!(removed.is_sorted(), "in the order they came: {removed:?}");
    let groups = probe.disk().groups[before + 1..].to_vec();
    assert_eq!(groups.iter().sum::<usize>(), ranges.len(), "{groups:?}");
    assert!(groups.len() > 2 && groups.iter().all(|&members| members <= 9), "{groups:?}");
    assert_eq!(memory(&engine), probe.disk().durable_state());
}

const INTERVAL: Duration = Duration::from_secs(10);

/// A Snapshot store at an interval, whose time the test sets.
fn lazy() -> (Arc<Owner>, Probe, SimClock) {
    let clock = SimClock::new();
    let time = Arc::new(clock.clone());
    let (engine, probe) = engine_at(Form::Snapshot, Durability::Interval(INTERVAL), time, false);
    (engine, probe, clock)
}

#[test]
fn writes_get_the_error_of_the_image_once_one_is_overdue_until_an_image_succeeds() {
    let (engine, probe, clock) = lazy();
    probe.fail_next(Fault::Image);
    engine.submit(Commit::one(put("a", "1"))).unwrap();
    clock.advance(INTERVAL.saturating_sub(Duration::from_secs(1)));
    assert!(matches!(engine.tick(), Err(Error::NoSpace { .. })));
    // The promise is not broken yet.
    engine.submit(Commit::one(put("b", "1"))).unwrap();
    assert!(engine.stats().image_error.is_some());
    clock.advance(Duration::from_secs(1));
    for _ in 0..3 {
        assert!(is_full(&engine.submit(Commit::one(put("c", "1")))));
        assert!(matches!(engine.tick(), Err(Error::NoSpace { .. })));
    }
    assert_eq!((probe.disk().written(), engine.poisoned()), (2, None), "refused, not poisoned");
    probe.heal();
    engine.tick().unwrap();
    assert_eq!((engine.stats().image_error, probe.disk().durable), (None, 2));
    engine.submit(Commit::one(put("c", "1"))).unwrap();
    // By a flush too.
    probe.fail_next(Fault::Image);
    clock.advance(INTERVAL);
    assert!(matches!(engine.flush(), Err(Error::NoSpace { .. })));
    assert!(is_full(&engine.submit(Commit::one(put("d", "1")))));
    probe.heal();
    assert_eq!(engine.flush().unwrap(), 3);
    engine.submit(Commit::one(put("d", "1"))).unwrap();
}

#[test]
fn the_age_counts_from_the_oldest_commit_that_no_image_shows() {
    let (engine, probe, clock) = lazy();
    for round in 0_u32..5 {
        engine.submit(Commit::one(put("a", &round.to_string()))).unwrap();
        clock.advance(INTERVAL / 2);
        engine.submit(Commit::one(put("b", &round.to_string()))).unwrap();
        clock.advance(INTERVAL / 2);
        // Late, but it succeeds: nothing is refused.
        engine.submit(Commit::one(put("c", &round.to_string()))).unwrap();
        engine.tick().unwrap();
    }
    probe.fail_next(Fault::Image);
    assert!(engine.tick().is_ok(), "nothing is to be written");
    clock.advance(INTERVAL * 5);
    engine.submit(Commit::one(put("a", "1"))).unwrap();
    assert!(matches!(engine.tick(), Err(Error::NoSpace { .. })));
    engine.submit(Commit::one(put("a", "2"))).unwrap();
    clock.advance(INTERVAL);
    assert!(is_full(&engine.submit(Commit::one(put("a", "3")))));
}

#[test]
fn a_removal_makes_room_for_the_image_that_is_overdue() {
    let (engine, probe, clock) = lazy();
    engine.submit(batch(vec![put("a", "1"), put("b", "1")])).unwrap();
    probe.fail_next(Fault::Image);
    clock.advance(INTERVAL);
    assert!(matches!(engine.tick(), Err(Error::NoSpace { .. })));
    // It is tried, and gets the error of its own image.
    assert!(is_full(&engine.submit(Commit::one(remove("a")))));
    assert_eq!(memory(&engine).len(), 2, "a removal that failed is not visible");
    probe.heal();
    assert!(is_full(&engine.submit(Commit::one(put("c", "1")))));
    assert!(is_done(&engine.submit(Commit::one(remove("a")))));
    let expected = BTreeMap::from([(b"b".to_vec(), b"1".to_vec())]);
    assert_eq!((memory(&engine), probe.disk().durable_state()), (expected.clone(), expected));
    assert_eq!(engine.stats().image_error, None);
    engine.submit(Commit::one(put("c", "1"))).unwrap();
}

/// A set that entered before the image was overdue is refused by the leader; the removals after it
/// are made once, in the group of the removal before it.
#[test]
fn a_set_that_is_refused_in_the_group_does_not_send_the_others_back_to_the_queue() {
    let (engine, probe, clock) = lazy();
    engine.submit(batch(["a", "b", "c"].map(|key| put(key, "1")).into())).unwrap();
    probe.fail_next(Fault::Image);
    clock.advance(INTERVAL.saturating_sub(Duration::from_secs(1)));
    assert!(matches!(engine.tick(), Err(Error::NoSpace { .. })));
    probe.heal();
    let commits = [remove("a"), put("refused", "1"), remove("b"), put("refused", "2"), remove("c")];
    let overdue = || clock.advance(Duration::from_secs(1));
    let outcomes = together_until(&engine, &probe, commits.map(Commit::one).into(), overdue);
    for (at, number) in [(0, 3), (2, 4), (4, 5)] {
        let Ok(Outcome::Done { seq, removed: 1, .. }) = outcomes[at] else {
            panic!("{at}: {:?}", outcomes[at]);
        };
        assert_eq!(seq, Some(number), "{at}");
    }
    assert!(is_full(&outcomes[1]) && is_full(&outcomes[3]), "{outcomes:?}");
    assert_eq!(probe.disk().groups, [1, 1, 3]);
    let expected = BTreeMap::from([(b"first".to_vec(), b"1".to_vec())]);
    assert_eq!((memory(&engine), probe.disk().durable_state()), (expected.clone(), expected));
}

#[test]
fn an_interval_without_end_syncs_at_a_flush_and_ends_at_the_close() {
    for form in [Form::Wal, Form::Snapshot] {
        let clock = Arc::new(LateClock::default());
        let (engine, probe) =
            engine_at(form, Durability::Interval(Duration::MAX), clock.clone(), true);
        engine.submit(Commit::one(put("a", "1"))).unwrap();
        // Until the thread that syncs has reckoned when its interval ends.
        while clock.asked.load(Ordering::SeqCst) == 0 && engine.poisoned().is_none() {
            thread::yield_now();
        }
        assert_eq!(engine.poisoned(), None);
        assert_eq!(engine.flush().unwrap(), 1);
        assert_eq!(probe.disk().durable, 1);
        engine.submit(Commit::one(put("a", "2"))).unwrap();
        engine.close().unwrap();
        assert_eq!((probe.disk().durable, engine.poisoned()), (2, None));
    }
}

/// A clock that stands still, a second after its zero, and counts how often the thread that syncs
/// has asked it.
#[derive(Debug, Default)]
struct LateClock {
    asked: AtomicUsize,
}

impl Clock for LateClock {
    fn now_us(&self) -> i64 {
        0
    }

    fn monotonic(&self) -> Duration {
        let is_sync = thread::current().name() == Some("codexdb-sync");
        self.asked.fetch_add(usize::from(is_sync), Ordering::SeqCst);
        Duration::from_secs(1)
    }

    fn sleep(&self, _duration: Duration) {}
}
