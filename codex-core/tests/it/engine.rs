//! Tests of the engine over the storage that stores nothing, and over the double, which keeps a log
//! and fails on demand.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::common::{Random, scaled, seed, until};
use crate::double::{
    Contents, Fault, absent, batch, engine, engine_at, in_memory, memory, number, put, remove,
    value,
};
use codex_core::internals::{Change, Check, Commit, Engine, Entry, Ordered, Outcome, View};
use codex_storage::Error;
use codex_storage::storage::{Durability, Form};
use codex_storage::vfs::SimClock;

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
    assert_eq!(done(&engine, Commit::one(Change::Clear(None))), (None, 0, None));
    let all = || Change::RemoveRange(None, Bound::Unbounded, Bound::Unbounded);
    assert_eq!(done(&engine, Commit::one(all())), (None, 0, None));
    assert_eq!(done(&engine, batch(vec![])), (None, 0, None));
    assert_eq!(engine.stats().storage.groups, 0);
}

#[test]
fn later_changes_of_a_batch_see_the_earlier_ones() {
    let engine = in_memory();
    done(&engine, batch(vec![put("a", "1"), put("b", "1"), put("c", "1")]));
    let range = Change::RemoveRange(
        None,
        Bound::Excluded(b"a"[..].into()),
        Bound::Included(b"d"[..].into()),
    );
    let changes =
        vec![remove("b"), put("d", "2"), range, put("c", "3"), put("e", "4"), remove("e")];
    assert_eq!(done(&engine, batch(changes)).1, 4, "b, then c and d, then e");
    assert_eq!(contents(&engine), model([("a", "1"), ("c", "3")]));
    let changes = vec![put("x", "1"), Change::Clear(None), put("y", "1"), remove("a"), remove("x")];
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
        assert_eq!(done(&engine, Commit::one(Change::RemoveRange(None, lower, upper))).0, None);
    }
}

#[test]
fn checks_hold_for_the_very_entry_and_conflict_otherwise() {
    let engine = in_memory();
    done(&engine, Commit::one(put("a", "1")));
    let seen = engine.read(|map| map.get(b"a")).unwrap();
    done(&engine, Commit::checked(Check::Same(seen.clone()), put("a", "1")));
    let conflict = |check| {
        let outcome = engine.submit(Commit::checked(check, put("a", "9"))).unwrap();
        matches!(outcome, Outcome::Conflict)
    };
    assert!(conflict(Check::Same(seen.clone())), "an equal value, but another entry");
    assert!(conflict(absent("a")));
    let equals = |value: Option<&str>| Check::Equals {
        name: b"a"[..].into(),
        value: value.map(|value| value.as_bytes().into()),
    };
    assert!(conflict(equals(Some("2"))) && conflict(equals(None)));
    let range = |base| Check::Unchanged {
        table: None,
        lower: Bound::Unbounded,
        upper: Bound::Unbounded,
        base,
    };
    let read = |ordered| range(View { ordered, ..engine.view() });
    let mut one = Ordered::new();
    one.insert(seen.clone());
    assert!(conflict(read(Ordered::new())) && conflict(read(one)));
    done(&engine, Commit::checked(equals(Some("1")), put("a", "2")));
    done(&engine, Commit::checked(range(engine.view()), remove("a")));
    done(&engine, Commit::checked(absent("a"), put("a", "3")));
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
    assert!(matches!(engine.flush(), Err(Error::Closed { .. })));
    assert!(matches!(engine.checkpoint(), Err(Error::Closed { .. })));
    assert_eq!(contents(&engine), model([("a", "1")]));
}

#[test]
fn thirty_two_writers_leave_log_and_memory_in_agreement() {
    let (engine, probe) = engine(Form::Wal, Durability::Sync, false);
    let seed = seed();
    thread::scope(|scope| {
        for writer in 0..32_u64 {
            let engine = &engine;
            scope.spawn(move || {
                let mut random = Random(seed ^ (writer << 32));
                for _ in 0..scaled(200) {
                    engine.submit(random.commit()).unwrap();
                }
            });
        }
    });
    let disk = probe.disk();
    assert_eq!(memory(&engine), disk.durable_state(), "CODEX_SEED={seed}");
    let stats = engine.stats();
    assert_eq!(usize::try_from(stats.commits).unwrap(), disk.written());
    let hash: Contents = disk.replay(disk.written());
    for key in 0..=u8::MAX {
        let key = format!("{key:03}");
        let found = engine.read(|map| map.get(key.as_bytes()));
        let expected = hash.get(key.as_bytes());
        assert_eq!(found.as_ref().map(Entry::value), expected.map(|v| &v[..]), "CODEX_SEED={seed}");
    }
}

#[test]
fn writers_that_wait_share_a_group() {
    let (engine, probe) = engine(Form::Wal, Durability::Sync, false);
    thread::scope(|scope| {
        let disk = probe.disk();
        let write = |writer: u32| {
            let engine = &engine;
            move || engine.submit(Commit::one(put(&writer.to_string(), "1"))).unwrap()
        };
        // The first thread leads and waits for the disk, and the others wait for its group.
        scope.spawn(write(0));
        until("the first group is at the disk", || probe.begun() == 1);
        for writer in 1..32 {
            scope.spawn(write(writer));
        }
        until("the others wait", || engine.stats().waiting == 31);
        drop(disk);
    });
    assert_eq!(probe.disk().groups, [1, 31]);
}

#[test]
fn a_leader_that_panics_answers_everybody_and_poisons() {
    for _ in 0..scaled(100) {
        let (engine, probe) = engine(Form::Wal, Durability::Sync, false);
        probe.fail_next(Fault::Panic);
        let write = |writer: u32| {
            let engine = engine.clone();
            thread::spawn(move || {
                let write = || engine.submit(Commit::one(put(&writer.to_string(), "1")));
                catch_unwind(AssertUnwindSafe(write))
            })
        };
        // The first thread leads and has the disk, and the others wait when it unwinds.
        let disk = probe.disk();
        let leader = write(0);
        until("the group is at the disk", || probe.begun() == 1);
        let waiters: Vec<_> = (1..4).map(write).collect();
        until("the others wait", || engine.waiting() == 3);
        drop(disk);
        assert!(leader.join().unwrap().is_err(), "the leader did not panic");
        for waiter in waiters {
            match waiter.join().unwrap() {
                Ok(Err(Error::Poisoned { .. })) => {}
                other => panic!("a write beside the panic ended in {other:?}"),
            }
        }
        assert!(memory(&engine).is_empty() && engine.poisoned().is_some());
        assert!(matches!(engine.flush(), Err(Error::Poisoned { .. })));
        assert!(matches!(engine.close(), Err(Error::Poisoned { .. })));
        assert!(probe.disk().dropped && !probe.disk().closed, "a broken storage was closed");
    }
}

#[test]
fn a_leader_that_panics_answers_the_members_of_its_group() {
    let (engine, probe) = engine(Form::Wal, Durability::Sync, false);
    let write = |writer: u32| {
        let engine = engine.clone();
        thread::spawn(move || {
            let write = || engine.submit(Commit::one(put(&writer.to_string(), "1")));
            catch_unwind(AssertUnwindSafe(write))
        })
    };
    let mut disk = probe.disk();
    let first = write(0);
    until("the first group is at the disk", || probe.begun() == 1);
    let others: Vec<_> = (1..5).map(write).collect();
    until("the others wait", || engine.waiting() == 4);
    disk.fail_next(Fault::PanicInGroup);
    drop(disk);
    assert!(matches!(first.join().unwrap(), Ok(Ok(_))), "its group was before the panic");
    let outcomes: Vec<_> = others.into_iter().map(|other| other.join().unwrap()).collect();
    let answered = |outcome: &&_| matches!(outcome, Ok(Err(Error::Poisoned { .. })));
    // The thread of the first commit has led for them too.
    assert_eq!(outcomes.iter().filter(answered).count(), 4);
    assert!(engine.poisoned().is_some());
    assert_eq!((contents(&engine), probe.disk().groups.clone()), (model([("0", "1")]), vec![1, 4]));
}

#[test]
fn a_panic_of_work_that_is_no_commit_poisons_as_well() {
    let (engine, probe) = engine(Form::Wal, Durability::Sync, false);
    engine.submit(Commit::one(put("a", "1"))).unwrap();
    probe.fail_next(Fault::PanicAlone);
    assert!(catch_unwind(AssertUnwindSafe(|| engine.anchor())).is_err());
    assert!(engine.poisoned().is_some());
    let refused = engine.submit(Commit::one(put("a", "2")));
    assert!(matches!(refused, Err(Error::Poisoned { .. })));
    assert!(matches!(engine.anchor(), Err(Error::Poisoned { .. })));
    assert!(matches!(engine.close(), Err(Error::Poisoned { .. })));
    assert!(probe.disk().dropped && !probe.disk().closed, "a broken storage was closed");
    assert_eq!((engine.is_closed(), value(&engine, "a").as_deref()), (true, Some("1")));
}

#[test]
fn a_full_disk_refuses_one_group_and_takes_the_next() {
    let (engine, probe) = engine(Form::Wal, Durability::Sync, false);
    probe.fail_next(Fault::NoSpace);
    let refused = engine.submit(batch(vec![put("a", "1"), Change::Clear(None), put("b", "1")]));
    assert!(matches!(refused, Err(Error::NoSpace { .. })));
    assert!(memory(&engine).is_empty() && engine.poisoned().is_none());
    assert_eq!(number(engine.submit(Commit::one(put("a", "2"))).unwrap()), Some(1));
    assert_eq!(memory(&engine), probe.disk().durable_state());
}

#[test]
fn a_failed_sync_refuses_writes_from_then_on_and_serves_reads() {
    let (engine, probe) = engine(Form::Wal, Durability::Sync, false);
    engine.submit(Commit::one(put("a", "1"))).unwrap();
    probe.fail_next(Fault::Sync);
    let failed = engine.submit(Commit::one(put("a", "2")));
    assert!(matches!(failed, Err(Error::InDoubt { .. })));
    assert_eq!(value(&engine, "a").as_deref(), Some("1"), "a write that failed is visible");
    let poisoned = |result: Result<(), Error>| matches!(result, Err(Error::Poisoned { .. }));
    assert!(poisoned(engine.submit(Commit::one(put("a", "3"))).map(drop)));
    assert!(poisoned(engine.flush().map(drop)) && poisoned(engine.checkpoint().map(drop)));
    assert!(engine.stats().poisoned.is_some());
    assert_eq!(probe.disk().written(), 2, "a poisoned store was written to");
}

#[test]
fn a_commit_that_is_too_large_leaves_its_group_to_the_others() {
    let engine = in_memory();
    let key = "k".repeat(codex_storage::batch::KEY_LEN_MAX + 1);
    let refused = engine.submit(batch(vec![put("a", "1"), Change::Clear(None), put(&key, "1")]));
    assert!(matches!(refused, Err(Error::Record { .. })));
    assert_eq!(
        number(engine.submit(Commit::checked(absent("a"), put("a", "2"))).unwrap()),
        Some(1)
    );
    assert_eq!(contents(&engine), model([("a", "2")]));
}

#[test]
fn each_commit_of_the_snapshot_form_hands_over_the_state_with_the_group_applied() {
    let (engine, probe) = engine(Form::Snapshot, Durability::Sync, false);
    for commit in [
        batch(vec![put("a", "1"), put("b", "1")]),
        Commit::one(remove("a")),
        batch(vec![put("c", "1"), Change::Clear(None), put("d", "1")]),
    ] {
        engine.submit(commit).unwrap();
        let disk = probe.disk();
        let (seq, image) = disk.images.last().unwrap();
        assert_eq!(image, &disk.replay(usize::try_from(*seq).unwrap()));
        assert_eq!(image, &memory(&engine));
    }
}

#[test]
fn a_snapshot_store_at_interval_writes_its_image_at_a_tick_and_at_a_flush() {
    let interval = Durability::Interval(Duration::from_secs(1));
    let (engine, probe) = engine(Form::Snapshot, interval, false);
    engine.submit(Commit::one(put("a", "1"))).unwrap();
    assert!(probe.disk().images.is_empty());
    engine.tick().unwrap();
    assert_eq!(probe.disk().images.last().unwrap().1, memory(&engine));
    engine.submit(Commit::one(put("a", "2"))).unwrap();
    assert_eq!(engine.flush().unwrap(), 2);
    assert_eq!(probe.disk().images.last().unwrap().1, memory(&engine));
    assert_eq!(probe.disk().durable, 2);
}

#[test]
fn a_close_waits_for_the_image_of_another_thread() {
    let (engine, probe) = engine(Form::Wal, Durability::Sync, false);
    engine.submit(Commit::one(put("a", "1"))).unwrap();
    thread::scope(|scope| {
        let held = probe.hold_images();
        let checkpoint = scope.spawn(|| engine.checkpoint());
        until("the image is being written", || probe.images() == 1);
        let closing = scope.spawn(|| engine.close());
        until("the close has begun", || engine.flush().is_err());
        // The double refuses to be closed beside an image, so a close that did not wait would fail.
        for _ in 0..10_000 {
            thread::yield_now();
        }
        assert!(!closing.is_finished() && !probe.disk().closed);
        drop(held);
        assert_eq!(checkpoint.join().unwrap().unwrap(), 1);
        closing.join().unwrap().unwrap();
    });
    assert!(probe.disk().closed && !probe.disk().checkpointing);
}

#[test]
fn an_image_that_fails_costs_nothing_and_is_counted() {
    let (engine, probe) = engine(Form::Wal, Durability::Sync, false);
    engine.submit(Commit::one(put("a", "1"))).unwrap();
    probe.fail_next(Fault::Image);
    assert!(matches!(engine.checkpoint(), Err(Error::NoSpace { .. })));
    assert_eq!((engine.stats().checkpoints, engine.stats().checkpoint_failures), (0, 1));
    assert!(engine.stats().image_error.is_some_and(|error| error.contains("no space")));
    probe.heal();
    engine.submit(Commit::one(put("a", "2"))).unwrap();
    assert_eq!(engine.checkpoint().unwrap(), 2);
    assert_eq!((engine.stats().checkpoints, engine.stats().image_error), (1, None));
}

#[test]
fn a_sync_that_fails_before_the_switch_is_a_failed_checkpoint() {
    let (engine, probe) = engine(Form::Wal, Durability::Os, false);
    engine.submit(Commit::one(put("a", "1"))).unwrap();
    probe.fail_next(Fault::Background);
    let failed = engine.checkpoint();
    assert!(matches!(failed, Err(Error::InDoubt { .. })), "{failed:?}");
    assert_eq!((engine.stats().checkpoints, engine.stats().checkpoint_failures), (0, 1));
    assert_eq!(probe.images(), 0);
}

#[test]
fn the_log_that_has_outgrown_the_image_is_checkpointed_in_the_background() {
    let (engine, probe) = engine(Form::Wal, Durability::Sync, true);
    probe.disk().wants_checkpoint = true;
    engine.submit(Commit::one(put("a", "1"))).unwrap();
    until("there is a checkpoint in the background", || engine.stats().checkpoints == 1);
    assert_eq!(probe.disk().images.last().unwrap().1, memory(&engine));
    drop(engine);
    assert!(probe.disk().dropped);
}

/// The commits beside an image find its thread at work and do not wake it.
#[test]
fn a_log_that_outgrows_an_image_beside_it_is_checkpointed_again() {
    let (engine, probe) = engine(Form::Wal, Durability::Sync, true);
    probe.disk().outgrows_each_time = true;
    let held = probe.hold_images();
    engine.submit(Commit::one(put("a", "1"))).unwrap();
    until("the first image is being written", || probe.images() == 1);
    engine.submit(Commit::one(put("a", "2"))).unwrap();
    drop(held);
    until("the second image was written", || engine.stats().checkpoints == 2);
    assert_eq!(probe.disk().images.last().unwrap().1, memory(&engine));
}

#[test]
fn after_a_failed_image_the_background_thread_pauses_however_many_commits_follow() {
    let clock = SimClock::new();
    let (engine, probe) = engine_at(Form::Wal, Durability::Sync, Arc::new(clock.clone()), true);
    probe.disk().outgrows_each_time = true;
    probe.fail_next(Fault::Image);
    engine.submit(Commit::one(put("a", "0"))).unwrap();
    until("an image has failed", || engine.stats().checkpoint_failures > 0);
    // Neither commits nor a part of the pause lead to another attempt.
    for elapsed in [Duration::ZERO, Duration::from_millis(999)] {
        clock.advance(elapsed);
        for n in 0..500 {
            engine.submit(Commit::one(put("a", &n.to_string()))).unwrap();
        }
        assert_eq!(engine.stats().checkpoint_failures, 1, "after {elapsed:?}");
    }
    probe.heal();
    until("an image was written", || {
        clock.advance(Duration::from_millis(1));
        engine.stats().checkpoints > 0
    });
}

#[test]
fn what_is_written_at_interval_is_synced_in_the_background() {
    // The clock of the double does not advance, so the interval never ends.
    let (engine, probe) = engine(Form::Wal, Durability::Interval(Duration::ZERO), true);
    engine.submit(Commit::one(put("a", "1"))).unwrap();
    until("there is a sync in the background", || probe.disk().durable == 1);
    probe.fail_next(Fault::Background);
    engine.submit(Commit::one(put("a", "2"))).unwrap();
    until("a failed sync poisons", || engine.poisoned().is_some());
    let refused = engine.submit(Commit::one(put("a", "3")));
    assert!(matches!(refused, Err(Error::Poisoned { .. })));
    assert!(matches!(engine.flush(), Err(Error::Poisoned { .. })));
}

/// A sync that takes half of the interval still ends in time.
#[test]
fn a_log_is_synced_when_half_of_the_interval_has_passed() {
    const INTERVAL: Duration = Duration::from_millis(20);
    let clock = SimClock::new();
    let at = Durability::Interval(INTERVAL);
    let (engine, probe) = engine_at(Form::Wal, at, Arc::new(clock.clone()), true);
    for n in 1..=3 {
        engine.submit(Commit::one(put("a", "1"))).unwrap();
        clock.advance(INTERVAL / 2);
        // The clock does not advance during the wait.
        until("the commit is durable", || probe.disk().durable == n);
    }
}

/// The panic comes while a group is at the disk and other requests wait for their turn.
#[test]
fn a_panic_of_the_thread_that_syncs_refuses_what_waits_and_what_comes_later() {
    let (engine, probe) = engine(Form::Wal, Durability::Interval(Duration::ZERO), true);
    let held = probe.hold_syncs();
    engine.submit(Commit::one(put("a", "1"))).unwrap();
    until("the sync has begun", || probe.syncs() == 1);
    thread::scope(|scope| {
        let (disk, engine) = (probe.disk(), &engine);
        let set = |key| scope.spawn(move || engine.submit(Commit::one(put(key, "1"))));
        let first = set("b");
        until("the group is at the disk", || probe.begun() == 2);
        let second = set("c");
        until("a commit waits", || engine.waiting() == 1);
        let anchor = scope.spawn(|| engine.anchor());
        until("another request waits", || engine.waiting() == 2);
        probe.panic_in_syncs();
        drop(held);
        until("the panic has poisoned", || engine.poisoned().is_some());
        drop(disk);
        assert!(first.join().unwrap().is_ok(), "it had its turn before the panic");
        assert!(matches!(second.join().unwrap(), Err(Error::Poisoned { .. })));
        assert!(matches!(anchor.join().unwrap(), Err(Error::Poisoned { .. })));
    });
    assert!(matches!(engine.submit(Commit::one(put("d", "1"))), Err(Error::Poisoned { .. })));
    assert!(matches!(engine.flush(), Err(Error::Poisoned { .. })));
    assert_eq!(contents(&engine), model([("a", "1"), ("b", "1")]));
    assert_eq!(probe.disk().written(), 2);
}

/// The interval begins at a commit, however late the previous sync ends.
#[test]
fn a_late_sync_does_not_make_the_next_one_late() {
    const INTERVAL: Duration = Duration::from_millis(20);
    let clock = SimClock::new();
    let at = Durability::Interval(INTERVAL);
    let (engine, probe) = engine_at(Form::Wal, at, Arc::new(clock.clone()), true);
    let held = probe.hold_syncs();
    engine.submit(Commit::one(put("a", "1"))).unwrap();
    clock.advance(INTERVAL);
    until("the first sync has begun", || probe.syncs() == 1);
    engine.submit(Commit::one(put("b", "1"))).unwrap();
    clock.advance(INTERVAL);
    drop(held);
    // The clock does not advance from here on.
    until("both are durable", || probe.disk().durable == 2);
}

/// Random commits over 256 keys.
impl Random {
    fn key(&mut self) -> String {
        format!("{:03}", self.next(256))
    }

    fn change(&mut self) -> Change {
        match self.next(100) {
            0 => Change::Clear(None),
            1..5 => {
                let [lower, upper] = [self.key(), self.key()].map(|key| key.into_bytes().into());
                Change::RemoveRange(None, Bound::Included(lower), Bound::Excluded(upper))
            }
            5..30 => remove(&self.key()),
            _ => put(&self.key(), &self.next(u64::MAX).to_string()),
        }
    }

    fn commit(&mut self) -> Commit {
        match self.next(4) {
            0 => Commit::checked(absent(&self.key()), self.change()),
            1 => batch((0..self.next(8)).map(|_| self.change()).collect()),
            _ => Commit::one(self.change()),
        }
    }
}

/// Long groups are applied to copies of the indexes, short ones in place.
#[test]
fn groups_of_every_length_leave_both_indexes_in_agreement() {
    let (engine, probe) = engine(Form::Wal, Durability::Sync, false);
    let mut random = Random(seed());
    for length in [1, 1_000, 1_100, 40_000, 10, 5_000] {
        let key = |random: &mut Random| format!("{:05}", random.next(30_000));
        let mut changes: Vec<Change> =
            (0..length).map(|n| put(&key(&mut random), &n.to_string())).collect();
        changes.extend((0..length / 10).map(|_| remove(&key(&mut random))));
        engine.submit(batch(changes)).unwrap();
        let range = ["1", "2"].map(|key| key.as_bytes().into());
        let [lower, upper] = range.map(Bound::Included);
        engine.submit(Commit::one(Change::RemoveRange(None, lower, upper))).unwrap();
        let contents = memory(&engine);
        assert_eq!(contents, probe.disk().durable_state());
        engine.read(|map| {
            assert_eq!(map.len(), contents.len());
            for (key, value) in &contents {
                assert_eq!(map.get(key).as_ref().map(Entry::value), Some(&value[..]));
            }
        });
    }
    done(&engine, Commit::one(Change::RemoveRange(None, Bound::Unbounded, Bound::Unbounded)));
    assert!(memory(&engine).is_empty() && engine.read(|map| map.get(b"00001").is_none()));
}
