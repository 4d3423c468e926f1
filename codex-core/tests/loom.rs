//! Models of the real locks and the real commit path, over a disk that records which commits are
//! durable. Run them with `cargo xtask loom`.
//!
//! loom tries every order in which the threads of a model can take their steps, up to the stated
//! number of preemptions (switches away from a thread that could continue); `None` means all. Each
//! model counts its executions and asserts a minimum: a model with fewer executions checks less
//! than before. Variables such as `LOOM_MAX_PERMUTATIONS` would end a run early: never set them.
#![cfg(loom)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_types,
    reason = "a test fails by panicking; the count of executions lies outside of the model"
)]

mod double;

use std::future::Future;
use std::io::{self, Write as _};
use std::ops::Bound;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use codex_core::Notice;
use codex_core::internals::{Base, Change, Check, Commit, Engine, Outcome, Task, View};
use codex_core::shared::{Memory, WriteFault};
use codex_storage::batch::Op;
use codex_storage::storage::{Delivered, Durability, Followed, Form, Storage};
use codex_storage::sync::{Condvar, Mutex};
use codex_storage::vfs::fault::{FaultDir, Survivors};
use codex_storage::{Access, Config, Error};
use double::{
    AnyKey, Disk, Fault, Owner, Probe, absent, batch, engine, memory, number, on_log, put, remove,
    value,
};
use loom::thread;

/// Runs `body` in every order of its threads with at most `preemptions`, and at least `floor`
/// times, which is nine tenths of the executions when the model was written.
fn model(
    name: &str,
    preemptions: Option<usize>,
    floor: usize,
    body: impl Fn() + Send + Sync + 'static,
) {
    let executions = Arc::new(AtomicUsize::new(0));
    let count = executions.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = 20_000;
    builder.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        body();
    });
    let executions = executions.load(Ordering::Relaxed);
    // One write for the whole line: `eprintln!` writes each part of its format by itself, and the
    // runner's own output, which goes to the same pipe, could come between two parts.
    let line = format!("loom-model {name} executions={executions} floor={floor}\n");
    io::stderr().write_all(line.as_bytes()).unwrap();
    assert!(executions >= floor, "{name} explored {executions} executions, below {floor}");
}

fn wal() -> (Arc<Owner>, Probe) {
    engine(Form::Wal, Durability::Sync, false)
}

/// Submits one change, and checks that its acknowledgement comes after it is on the disk.
fn submit(engine: &Engine, probe: &Probe, change: Change) -> Result<Outcome, Error> {
    let key = match &change {
        Change::Put(entry) => Some(entry.key().to_vec()),
        _ => None,
    };
    let outcome = engine.submit(Commit::one(change));
    if let (Ok(_), Some(key)) = (&outcome, key) {
        let durable = probe.disk().durable_state().contains_key(&key);
        assert!(durable, "a write was acknowledged before it was durable");
    }
    outcome
}

fn agree(engine: &Engine, probe: &Probe) {
    let (durable, written) = {
        let disk = probe.disk();
        (disk.durable_state(), disk.written())
    };
    assert_eq!(memory(engine), durable, "log and memory disagree after {written} commits");
}

#[test]
fn two_writers_of_one_key_leave_log_and_memory_in_agreement() {
    model("two_writers_of_one_key", None, 272, || {
        let (engine, probe) = wal();
        let theirs = (engine.clone(), probe.clone());
        let other = thread::spawn(move || submit(&theirs.0, &theirs.1, put("k", "2")).unwrap());
        submit(&engine, &probe, put("k", "1")).unwrap();
        other.join().unwrap();
        agree(&engine, &probe);
        assert_eq!(engine.view().seq, 2);
    });
}

#[test]
fn a_reader_beside_a_writer_sees_only_what_is_durable() {
    model("reader_beside_writer", None, 600, || {
        let (engine, probe) = wal();
        let theirs = engine.clone();
        let writer = thread::spawn(move || {
            theirs.submit(Commit::one(put("k", "1"))).unwrap();
            theirs.submit(Commit::one(put("k", "2"))).unwrap();
        });
        let mut last = None;
        for _ in 0..2 {
            let seen = value(&engine, "k");
            let durable = probe.disk().durable;
            let number = seen.as_ref().map_or(0, |value| value.parse().unwrap());
            assert!(
                number <= durable,
                "log and memory disagree: commit {number} is visible, {durable} are durable"
            );
            assert!(seen >= last, "a reader went back from {last:?} to {seen:?}");
            last = seen;
        }
        writer.join().unwrap();
        agree(&engine, &probe);
    });
}

#[test]
fn a_batch_is_visible_whole_or_not_at_all() {
    model("publish_against_view", None, 6, || {
        let (engine, probe) = wal();
        let theirs = engine.clone();
        let writer = thread::spawn(move || {
            theirs.submit(batch(vec![put("a", "1"), put("b", "1")])).unwrap();
            theirs.submit(batch(vec![remove("a"), put("b", "2")])).unwrap();
        });
        let view = engine.view();
        let seen: Vec<_> = view.ordered.iter().map(|entry| entry.value().to_vec()).collect();
        let expected: [&[&[u8]]; 3] = [&[], &[b"1", b"1"], &[b"2"]];
        let expected = expected[usize::try_from(view.seq).unwrap()];
        assert_eq!(seen, expected, "half of a batch at commit {}", view.seq);
        writer.join().unwrap();
        agree(&engine, &probe);
    });
}

#[test]
fn everybody_in_a_group_is_acknowledged_after_it_is_durable() {
    model("acknowledged_after_durable", Some(3), 1899, || {
        let (engine, probe) = wal();
        let others = ["b", "c"].map(|key| {
            let (engine, probe) = (engine.clone(), probe.clone());
            thread::spawn(move || submit(&engine, &probe, put(key, "1")).unwrap())
        });
        submit(&engine, &probe, put("a", "1")).unwrap();
        for other in others {
            other.join().unwrap();
        }
        agree(&engine, &probe);
        assert_eq!(probe.disk().groups.iter().sum::<usize>(), 3);
    });
}

#[test]
fn of_three_conditional_writers_exactly_one_wins() {
    model("conditional_writers", Some(3), 1241, || {
        let (engine, probe) = wal();
        let attempt = |engine: Arc<Owner>, probe: Probe, value: &'static str| {
            let commit = Commit::checked(absent("k"), put("k", value));
            match engine.submit(commit).unwrap() {
                Outcome::Done { .. } => true,
                Outcome::Conflict => {
                    let winner = probe.disk().durable_state();
                    assert!(winner.contains_key(&b"k"[..]), "acknowledged a conflict with nothing");
                    false
                }
            }
        };
        let others = ["2", "3"].map(|value| {
            let (engine, probe) = (engine.clone(), probe.clone());
            thread::spawn(move || attempt(engine, probe, value))
        });
        let won = attempt(engine.clone(), probe.clone(), "1");
        let others = others.map(|other| other.join().unwrap());
        let winners = others.into_iter().chain([won]).filter(|won| *won).count();
        assert_eq!(winners, 1, "conditional writes that cannot both hold were both made");
        agree(&engine, &probe);
    });
}

/// Runs two transactions, each of which writes its key if neither key is there, after it has read
/// both with the checks of `reads`. At most one of them can be made.
fn skew(engine: &Arc<Owner>, probe: &Probe, reads: fn(&View) -> Vec<Check>) {
    let transact = move |engine: &Engine, key: &str| {
        let base = engine.view();
        if !base.ordered.is_empty() {
            return false;
        }
        let checks = reads(&base).into();
        let base = Some(Base { seq: base.seq, now_us: base.now_us });
        let commit = Commit { checks, base, ..Commit::one(put(key, "1")) };
        matches!(engine.submit(commit).unwrap(), Outcome::Done { .. })
    };
    let theirs = engine.clone();
    let other = thread::spawn(move || transact(&theirs, "b"));
    let won = [transact(engine, "a"), other.join().unwrap()];
    let made = won.into_iter().filter(|won| *won).count();
    assert_eq!(made, 1, "transactions that exclude each other were both made");
    assert_eq!(memory(engine).len(), made);
    agree(engine, probe);
}

#[test]
fn of_two_transactions_that_read_the_key_of_the_other_one_is_made() {
    model("write_skew", Some(3), 71, || {
        let (engine, probe) = wal();
        skew(&engine, &probe, |_| vec![absent("a"), absent("b")]);
    });
}

#[test]
fn of_two_transactions_that_scan_the_range_of_the_other_one_is_made() {
    model("phantom", Some(3), 71, || {
        let (engine, probe) = wal();
        skew(&engine, &probe, |view| {
            let (lower, upper) = (Bound::Unbounded, Bound::Unbounded);
            vec![Check::Unchanged { table: None, lower, upper, base: view.clone() }]
        });
    });
}

#[test]
fn a_waiting_watch_returns_each_commit_once_and_in_order() {
    model("watcher_sees_each_commit_once_in_order", Some(3), 168, || {
        let (engine, probe) = wal();
        let mut watch = engine.watch(None, b"").unwrap();
        let theirs = engine.clone();
        let writer = thread::spawn(move || {
            theirs.submit(Commit::one(put("k", "1"))).unwrap();
            theirs.submit(batch(vec![put("k", "2"), put("l", "2")])).unwrap();
        });
        for (seq, changes) in [(1, 1), (2, 2)] {
            let Some(Notice::Commit(commit)) = watch.next() else { panic!("a notice is missing") };
            assert_eq!((commit.seq(), commit.changes().len()), (seq, changes));
            assert!(probe.disk().durable_state().len() >= changes, "returned before it is durable");
            assert!(engine.view().seq >= seq, "returned before it is visible");
        }
        writer.join().unwrap();
        assert!(watch.try_next().is_none());
        agree(&engine, &probe);
    });
}

#[test]
fn a_watch_that_waits_ends_with_the_close_after_the_last_commit() {
    model("watcher_against_close", Some(3), 1556, || {
        let (engine, probe) = wal();
        let Ok(watch) = engine.watch(None, b"") else { panic!("the store is open") };
        let theirs = engine.clone();
        let writer = thread::spawn(move || match theirs.submit(Commit::one(put("k", "1"))) {
            Ok(_) => 1,
            Err(Error::Closed { .. }) => 0,
            Err(other) => panic!("a write beside the close ended in {other}"),
        });
        let theirs = engine.clone();
        let closer = thread::spawn(move || theirs.close().unwrap());
        let returned = watch.count();
        assert!(engine.is_closed(), "the watch ended before the close");
        assert_eq!(returned, writer.join().unwrap(), "the watch missed a commit");
        closer.join().unwrap();
        assert_eq!(returned, probe.disk().written());
    });
}

#[test]
fn leadership_is_handed_over_and_resigned_without_losing_a_waiter() {
    model("hand_over_and_resignation", Some(3), 2487, || {
        let (engine, probe) = wal();
        let others = ["b", "c"].map(|key| {
            let engine = engine.clone();
            thread::spawn(move || {
                engine.submit(Commit::one(put(key, "1"))).unwrap();
                engine.flush().unwrap()
            })
        });
        engine.submit(Commit::one(put("a", "1"))).unwrap();
        for other in others {
            other.join().unwrap();
        }
        agree(&engine, &probe);
    });
}

#[test]
fn a_failed_sync_reaches_every_member_and_poisons() {
    model("sync_error_reaches_every_waiter", Some(3), 730, || {
        let (engine, probe) = wal();
        probe.fail_next(Fault::Sync);
        let write = |engine: &Engine, key| match engine.submit(Commit::one(put(key, "1"))) {
            Err(Error::InDoubt { .. }) => true,
            Err(Error::Poisoned { .. }) => false,
            other => panic!("a write after the failed sync ended in {other:?}"),
        };
        let others = ["b", "c"].map(|key| {
            let engine = engine.clone();
            thread::spawn(move || write(&engine, key))
        });
        let own = write(&engine, "a");
        let others = others.map(|other| other.join().unwrap());
        assert!(own || others.contains(&true), "nobody heard of the failed sync");
        assert!(memory(&engine).is_empty(), "a write that failed is visible");
        assert!(engine.poisoned().is_some() && engine.flush().is_err());
        assert_eq!(probe.disk().groups.len(), 1, "a poisoned store was written to");
    });
}

#[test]
fn a_refused_group_is_absent_and_writing_goes_on() {
    model("no_space_reaches_every_waiter", None, 78, || {
        let (engine, probe) = wal();
        probe.fail_next(Fault::NoSpace);
        let write = |engine: &Engine, key| match engine.submit(Commit::one(put(key, "1"))) {
            Ok(_) => true,
            Err(Error::NoSpace { .. }) => false,
            Err(other) => panic!("refused with {other}"),
        };
        let theirs = engine.clone();
        let other = thread::spawn(move || write(&theirs, "b"));
        let own = write(&engine, "a");
        let other = other.join().unwrap();
        let memory = memory(&engine);
        assert_eq!(own, memory.contains_key(&b"a"[..]));
        assert_eq!(other, memory.contains_key(&b"b"[..]));
        // A commit that is alone gets the error. Two that share the group are tried again one by
        // one, when there is room: each that gets `Ok` is a group of its own in the log.
        assert!(own || other, "a group that fits was refused");
        assert_eq!(probe.disk().groups.len(), usize::from(own) + usize::from(other));
        agree(&engine, &probe);
    });
}

#[test]
fn a_close_lets_earlier_commits_through_and_refuses_later_ones() {
    model("close_against_in_flight", Some(3), 4128, || {
        let (engine, probe) = wal();
        let write = |engine: &Engine, probe: &Probe, key| match submit(engine, probe, put(key, "1"))
        {
            Ok(_) => true,
            Err(Error::Closed { .. }) => false,
            Err(other) => panic!("a write beside the close ended in {other}"),
        };
        let theirs = (engine.clone(), probe.clone());
        let writer = thread::spawn(move || write(&theirs.0, &theirs.1, "a"));
        let theirs = engine.clone();
        let closer = thread::spawn(move || theirs.close());
        engine.close().unwrap();
        assert!(probe.disk().dropped, "close returned before the storage was released");
        closer.join().unwrap().unwrap();
        let wrote = writer.join().unwrap();
        assert_eq!(wrote, probe.disk().written() == 1);
        assert!(!write(&engine, &probe, "late"));
        agree(&engine, &probe);
    });
}

#[test]
fn a_checkpoint_beside_a_writer_shows_exactly_its_commit() {
    model("checkpoint_against_writer", Some(4), 1440, || {
        let (engine, probe) = wal();
        let theirs = engine.clone();
        let writer = thread::spawn(move || {
            theirs.submit(Commit::one(put("k", "1"))).unwrap();
            theirs.submit(Commit::one(put("k", "2"))).unwrap();
        });
        engine.checkpoint().unwrap();
        writer.join().unwrap();
        let disk = probe.disk();
        let (seq, image) = disk.images.first().unwrap();
        let then = disk.replay(usize::try_from(*seq).unwrap());
        assert_eq!(image, &then, "the image and its commit {seq}: log and memory disagree");
    });
}

#[test]
fn a_change_of_the_key_waits_for_a_running_checkpoint() {
    model("change_of_key_against_checkpoint", None, 5, || {
        let (engine, probe) = wal();
        let theirs = engine.clone();
        let other = thread::spawn(move || theirs.change_key(&AnyKey).unwrap());
        engine.checkpoint().unwrap();
        other.join().unwrap();
        assert_eq!(probe.disk().images.len(), 1);
    });
}

#[test]
fn a_close_gives_up_a_running_checkpoint_first() {
    model("close_against_checkpoint", None, 45, || {
        let (engine, probe) = wal();
        engine.submit(Commit::one(put("k", "1"))).unwrap();
        let theirs = engine.clone();
        let other = thread::spawn(move || match theirs.checkpoint() {
            Ok(_) | Err(Error::Abandoned { .. } | Error::Closed { .. }) => {}
            Err(other) => panic!("a checkpoint beside the close ended in {other}"),
        });
        engine.close().unwrap();
        assert!(probe.disk().dropped && !probe.disk().checkpointing);
        other.join().unwrap();
    });
}

#[test]
fn a_flush_makes_durable_what_was_written_before() {
    model("flush_against_tick_and_writer", Some(3), 3321, || {
        let (engine, probe) = engine(Form::Wal, Durability::Os, false);
        let theirs = (engine.clone(), probe.clone());
        let writer = thread::spawn(move || {
            let seq = number(theirs.0.submit(Commit::one(put("k", "1"))).unwrap()).unwrap();
            theirs.0.flush().unwrap();
            let durable = theirs.1.disk().durable;
            assert!(seq <= u64::try_from(durable).unwrap(), "a flush was acknowledged before");
        });
        let theirs = engine.clone();
        let ticker = thread::spawn(move || theirs.tick().unwrap());
        engine.submit(Commit::one(put("l", "1"))).unwrap();
        writer.join().unwrap();
        ticker.join().unwrap();
    });
}

#[test]
fn a_background_sync_that_fails_stops_the_writers() {
    model("failed_tick_against_writer", None, 1711, || {
        let (engine, probe) =
            engine(Form::Wal, Durability::Interval(Duration::from_secs(1)), false);
        engine.submit(Commit::one(put("k", "1"))).unwrap();
        probe.fail_next(Fault::Background);
        let theirs = engine.clone();
        let ticker = thread::spawn(move || assert!(theirs.tick().is_err()));
        match engine.submit(Commit::one(put("k", "2"))) {
            Ok(_) | Err(Error::Poisoned { .. }) => {}
            Err(other) => panic!("a write beside the failing sync ended in {other}"),
        }
        ticker.join().unwrap();
        let refused = engine.submit(Commit::one(put("k", "3")));
        assert!(matches!(refused, Err(Error::Poisoned { .. })));
        assert_ne!(value(&engine, "k").as_deref(), Some("3"));
    });
}

#[test]
fn commits_beside_a_background_sync_are_synced_by_the_next() {
    model("writers_against_sync_thread", Some(2), 6961, || {
        let (engine, probe) = engine(Form::Wal, Durability::Interval(Duration::ZERO), true);
        probe.watch();
        let theirs = engine.clone();
        let writer = thread::spawn(move || theirs.submit(Commit::one(put("b", "1"))).unwrap());
        engine.submit(Commit::one(put("a", "1"))).unwrap();
        writer.join().unwrap();
        probe.wait(|disk| disk.durable == 2);
    });
}

#[test]
fn a_log_that_outgrows_its_image_once_more_is_checkpointed_once_more() {
    model("outgrown_against_checkpoint_thread", Some(3), 954, || {
        let (engine, probe) = engine(Form::Wal, Durability::Sync, true);
        probe.watch();
        probe.disk().outgrows_each_time = true;
        for commit in 1..=2 {
            engine.submit(Commit::one(put("k", "1"))).unwrap();
            let is_shown = |disk: &Disk| disk.images.last().is_some_and(|(seq, _)| *seq == commit);
            probe.wait(|disk| is_shown(disk) && !disk.checkpointing);
        }
    });
}

#[test]
fn the_background_threads_end_when_the_last_handle_is_dropped() {
    model("drop_against_background", None, 58, || {
        let (engine, probe) = engine(Form::Wal, Durability::Sync, true);
        probe.disk().wants_checkpoint = true;
        let theirs = engine.clone();
        let writer = thread::spawn(move || theirs.submit(Commit::one(put("k", "1"))).unwrap());
        drop(engine);
        writer.join().unwrap();
        let disk = probe.disk();
        assert!(disk.dropped && disk.closed && !disk.checkpointing);
        assert_eq!(disk.durable_state().len(), 1);
    });
}

/// Writer and follower are two processes, which share no lock. Each call to the disk is a step.
#[test]
fn a_follower_shows_what_was_acknowledged_and_nothing_that_a_crash_takes_back() {
    model("follower_against_writer", Some(3), 4963, || {
        let disk = FaultDir::new();
        let open = |disk: &FaultDir, access| {
            let mut config = Config::new(disk.vfs(1), "a.db");
            config.access = access;
            codex_storage::open(&config, &mut |_| Ok(())).unwrap()
        };
        let commit = |writer: &mut dyn Storage| {
            let mut group = writer.group();
            group.push(Op::set(b"k", b"v")).unwrap();
            group.finish();
            writer.commit(&mut group, None).unwrap();
        };
        let (mut writer, _) = open(&disk, Access::ReadWrite);
        commit(&mut *writer);
        let (mut follower, found) = open(&disk, Access::Follow);
        assert_eq!(found.seq, 1);
        let acknowledged = Arc::new(AtomicUsize::new(1));
        let theirs = acknowledged.clone();
        let writing = thread::spawn(move || {
            for seq in 2..=3 {
                commit(&mut *writer);
                theirs.store(seq, Ordering::Relaxed);
            }
        });
        let before = acknowledged.load(Ordering::Relaxed);
        let mut shown = 1;
        let mut show = |delivered: Delivered<'_>| {
            assert_eq!(delivered.seq, shown + 1, "a commit is missing");
            shown = delivered.seq;
            Ok(())
        };
        while matches!(follower.follow(&mut show).unwrap(), Followed::Group { .. }) {}
        let cut = disk.reboot(Survivors::Nothing);
        assert!(usize::try_from(shown).unwrap() >= before, "{before} acknowledged, {shown} shown");
        writing.join().unwrap();
        let (_, durable) = open(&cut, Access::ReadOnly);
        assert!(durable.seq >= shown, "{shown} shown, {} durable", durable.seq);
    });
}

/// Two nodes write one key. Each delivers the frame of the other at any moment.
#[test]
fn two_nodes_of_a_shared_log_decide_the_same() {
    model("shared_writers", Some(4), 1776, || {
        let log = Memory::new();
        let (one, other) = (on_log(&log.client()), on_log(&log.client()));
        let insert = |engine: &Engine, value| {
            let commit = Commit::checked(absent("k"), put("k", value));
            matches!(engine.submit(commit).unwrap(), Outcome::Done { seq: Some(1), .. })
        };
        let theirs = other.clone();
        let writer = thread::spawn(move || insert(&theirs, "2"));
        let won = (insert(&one, "1"), writer.join().unwrap());
        assert!(won.0 != won.1, "conditional writes that cannot both hold were both made");
        for engine in [&one, &other] {
            while engine.deliver().unwrap() < log.end() {}
            let expected = if won.0 { "1" } else { "2" };
            assert_eq!(value(engine, "k").as_deref(), Some(expected));
        }
    });
}

/// A thread delivers what another node has written, as the thread that follows the log does, beside
/// a writer whose first answer is lost.
#[test]
fn a_writer_beside_the_thread_that_follows_the_log_is_decided_after_what_came_before() {
    model("shared_leader_against_follower", None, 210, || {
        let log = Memory::new();
        let client = log.client();
        let engine = on_log(&client);
        on_log(&log.client()).submit(Commit::one(put("k", "1"))).unwrap();
        client.fail_write(WriteFault::AnswerLost);
        let theirs = engine.clone();
        let follower = thread::spawn(move || theirs.deliver().unwrap());
        let commit = Commit::checked(absent("k"), put("k", "2"));
        assert!(matches!(engine.submit(commit).unwrap(), Outcome::Conflict), "decided too early");
        assert_eq!(value(&engine, "k").as_deref(), Some("1"), "a write reads what it was told");
        follower.join().unwrap();
        assert_eq!((engine.view().seq, log.slots().len()), (1, 2));
    });
}

/// A waker whose wait the model checker sees.
#[derive(Default)]
struct Woken {
    is_woken: Mutex<bool>,
    changed: Condvar,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        *self.is_woken.lock() = true;
        self.changed.notify_one();
    }
}

/// Polls `task` until it returns its outcome, each time after it was woken.
fn block_on(task: Task) -> Result<Outcome, Error> {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut task = pin!(task);
    loop {
        if let Poll::Ready(outcome) = task.as_mut().poll(&mut Context::from_waker(&waker)) {
            return outcome;
        }
        let mut is_woken = woken.is_woken.lock();
        while !*is_woken {
            is_woken = woken.changed.wait(is_woken);
        }
        *is_woken = false;
    }
}

fn submit_task(engine: &Engine, key: &str) -> Task {
    engine.submit_task(Commit::one(put(key, "1"))).unwrap()
}

#[test]
fn a_task_is_woken_after_its_commit_is_durable() {
    model("task_woken_after_durable", Some(3), 1254, || {
        let (engine, probe) = wal();
        for key in ["a", "b"] {
            block_on(submit_task(&engine, key)).unwrap();
            let durable = probe.disk().durable_state().contains_key(key.as_bytes());
            assert!(durable, "a task was woken before its commit was durable");
            assert!(
                value(&engine, key).is_some(),
                "a task was woken before its commit was visible"
            );
        }
        agree(&engine, &probe);
    });
}

#[test]
fn a_task_beside_a_thread_that_writes_is_answered() {
    model("task_beside_blocking_writer", Some(3), 2702, || {
        let (engine, probe) = wal();
        let theirs = (engine.clone(), probe.clone());
        let writer = thread::spawn(move || submit(&theirs.0, &theirs.1, put("b", "1")).unwrap());
        block_on(submit_task(&engine, "a")).unwrap();
        writer.join().unwrap();
        agree(&engine, &probe);
        assert_eq!(engine.view().seq, 2);
    });
}

#[test]
fn a_close_answers_the_tasks_that_wait() {
    model("close_answers_tasks", Some(3), 857, || {
        let (engine, probe) = wal();
        let theirs = engine.clone();
        let closer = thread::spawn(move || {
            let task = submit_task(&theirs, "a");
            theirs.close().unwrap();
            block_on(task).unwrap();
        });
        // If this thread leads, it hands the lead to the task while the store closes.
        match engine.submit(Commit::one(put("b", "1"))) {
            Ok(_) | Err(Error::Closed { .. }) => {}
            Err(other) => panic!("a write beside the close ended in {other}"),
        }
        closer.join().unwrap();
        assert!(probe.disk().durable_state().contains_key(&b"a"[..]));
    });
}
