//! Engines on one shared log against one local engine that gets the same commits in the order of
//! the log.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use codex_core::internals::{Base, Change, Check, Commit, End, Entry, Outcome, View};
use codex_core::shared::{Client, Memory};
use codex_storage::batch::{Item, TableId};
use codex_storage::vfs::{Clock, SimClock};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::double::{Owner, absent, in_memory_at, on_log_at, put};

/// A step of a node, which may have seen less than the others.
#[derive(Debug, Clone)]
struct Step {
    node: usize,
    /// Whether the node first delivers what the log has.
    looks: bool,
    checks: Vec<(u8, u8, u8)>,
    changes: Vec<(u8, u8, u8, u8)>,
    /// Milliseconds that pass before the step.
    pause_ms: u64,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let checks = vec((0..4_u8, 0..KEYS, 0..KEYS), 0..3);
    let changes = vec((0..8_u8, 0..KEYS, 0..KEYS, 0..4_u8), 0..4);
    let step = (0..3_usize, any::<bool>(), checks, changes, 0..3_u64).prop_map(
        |(node, looks, checks, changes, pause_ms)| Step { node, looks, checks, changes, pause_ms },
    );
    vec(step, 1..60)
}

const KEYS: u8 = 6;

type KeyBound = Bound<Box<[u8]>>;

fn table(of: u8) -> Option<TableId> {
    TableId::new(u32::from(of % 2))
}

fn bounds(from: u8, to: u8) -> (KeyBound, KeyBound) {
    let key = |key: u8| Box::from([key]);
    (Bound::Included(key(from)), if to < 5 { Bound::Excluded(key(to)) } else { Bound::Unbounded })
}

/// Returns a change as a caller makes it that has seen `view`.
fn change((kind, a, b, value): (u8, u8, u8, u8), view: &View, now_us: i64) -> Change {
    let (lower, upper) = bounds(a, b);
    let key = [a];
    let entry = |expires_us| {
        let value = [value; 2];
        Entry::from_item(Item { table: table(b), key: &key, value: &value, expires_us })
    };
    match kind {
        0 | 1 => Change::Put(entry(None)),
        2 => Change::Put(entry(Some(now_us + 1_000 * i64::from(value)))),
        3 => Change::Remove(entry(None).key().into()),
        4 => Change::RemoveRange(table(value), lower, upper),
        5 => {
            let end = if value % 2 == 0 { End::First } else { End::Last };
            Change::Pop(table(value), lower, upper, end)
        }
        6 if value == 0 => Change::Clear(table(b)),
        // The sweep of an entry that the node has seen.
        _ => match view.ordered.iter().find(|entry| entry.expires_us().is_some()) {
            Some(entry) => Change::Sweep(entry.clone()),
            None => Change::Put(entry(None)),
        },
    }
}

/// Returns a check of what `view` has.
fn check((kind, a, b): (u8, u8, u8), view: &View) -> Check {
    let (lower, upper) = bounds(a, b);
    let seen = view.ordered.iter().find(|entry| {
        entry.key() == [a] && entry.expires_us().is_none_or(|expires_us| expires_us > view.now_us)
    });
    match (kind, seen) {
        (0, Some(seen)) => Check::Same(seen.clone()),
        (1, seen) => {
            let value = seen.map(|seen| seen.value().into());
            Check::Equals { name: [a].as_slice().into(), value }
        }
        (2, _) => Check::Unchanged { table: table(b), lower, upper, base: view.clone() },
        _ => Check::Absent([a].as_slice().into()),
    }
}

/// Returns true if `check` holds in the state of the local engine, by what entries have.
fn holds(check: &Check, local: &Owner) -> bool {
    let view = local.view();
    let now_us = local.now_us();
    let shows = |entry: &&Entry| entry.expires_us().is_none_or(|expires_us| expires_us > now_us);
    let now = |key: &[u8]| view.ordered.get(key.into()).filter(|entry| shows(entry)).cloned();
    match check {
        Check::Same(seen) => now(seen.key()).is_some_and(|now| now.item() == seen.item()),
        Check::Absent(name) => now(name.as_name().key).is_none(),
        Check::Equals { name, value } => {
            now(name.as_name().key).as_ref().map(Entry::value) == value.as_deref()
        }
        Check::Unchanged { table, lower, upper, base } => {
            let within = |view: &View, now_us: i64| {
                let entries = view.ordered.iter_with_tables().filter(|entry| {
                    let (lower, upper) = (lower.as_ref(), upper.as_ref());
                    let above = match lower {
                        Bound::Included(lower) => **lower <= *entry.key(),
                        _ => true,
                    };
                    let below = match upper {
                        Bound::Excluded(upper) => *entry.key() < **upper,
                        _ => true,
                    };
                    let shows = entry.expires_us().is_none_or(|expires_us| expires_us > now_us);
                    entry.table() == *table && above && below && shows
                });
                entries.map(text).collect::<Vec<_>>()
            };
            within(&view, now_us) == within(base, base.now_us)
        }
        check => panic!("{check:?}"),
    }
}

/// Returns what a caller learns of an outcome.
fn told(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Conflict => "conflict".to_owned(),
        Outcome::Done { seq, removed, previous } => {
            let previous = previous.as_ref().map(|entry| (entry.key(), entry.value()));
            format!("{seq:?} {removed} {previous:?}")
        }
    }
}

fn text(entry: &Entry) -> String {
    let Item { table, key, value, expires_us } = entry.item();
    format!("{table:?} {key:?} {value:?} {expires_us:?}")
}

fn contents(engine: &Owner) -> Vec<String> {
    let view = engine.view();
    view.ordered.iter_with_tables().map(text).collect()
}

fn catch_up(engine: &Owner, log: &Memory) {
    while engine.deliver().unwrap() < log.end() {}
}

fn agree(engines: &[Arc<Owner>], log: &Memory) {
    for engine in engines {
        catch_up(engine, log);
        assert_eq!(contents(engine), contents(&engines[0]));
        assert_eq!(engine.anchor().unwrap(), engines[0].anchor().unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 400,
        ..ProptestConfig::default()
    })]

    #[test]
    fn three_nodes_are_one_local_store_in_the_order_of_the_log(
        steps in steps(),
        faults in proptest::option::of(any::<u64>()),
    ) {
        let (log, clock) = (Memory::new(), SimClock::new());
        let time = || Arc::new(clock.clone()) as Arc<dyn Clock>;
        let clients: Vec<Client> = (0..3).map(|_| log.client()).collect();
        let nodes: Vec<_> = clients.iter().map(|client| on_log_at(client, time())).collect();
        if let Some(seed) = faults {
            for (n, client) in (0..).zip(&clients) {
                client.fail_at_random(seed ^ n, 20);
            }
        }
        let local = in_memory_at(time());
        for step in steps {
            clock.advance(Duration::from_millis(step.pause_ms));
            let node = &nodes[step.node];
            if step.looks {
                let _ = node.deliver();
            }
            let (view, now_us) = (node.view(), node.now_us());
            let parts = || {
                let checks: Vec<_> = step.checks.iter().map(|c| check(*c, &view)).collect();
                let changes = step.changes.iter().map(|c| change(*c, &view, now_us));
                (checks, changes.collect::<Vec<_>>())
            };
            let (checks, changes) = parts();
            // A state in which the checks held is nothing to the other nodes.
            let base = Some(Base { seq: view.seq, now_us: view.now_us });
            let (checks, changes) = (checks.into(), changes.into());
            let commit = Commit { checks, changes, base, ..Commit::default() };
            // A lost answer takes simulated time. So does the retry, which the log has decided by
            // the time of the first attempt.
            let decided_us = clock.now_us();
            let outcome = node.submit(commit).unwrap();
            let after_us = clock.now_us();
            clock.set_now_us(decided_us);
            let (checks, changes) = parts();
            let expected = if checks.iter().all(|check| holds(check, &local)) {
                let changes = changes.into_iter().map(|change| match change {
                    // The local engine has another entry of the same name.
                    Change::Sweep(entry) => Change::Expire(entry.key().into()),
                    change => change,
                });
                let changes = changes.collect::<Vec<_>>().into();
                local.submit(Commit { changes, ..Commit::default() }).unwrap()
            } else {
                Outcome::Conflict
            };
            clock.set_now_us(after_us);
            assert_eq!(told(&outcome), told(&expected));
        }
        for client in &clients {
            client.heal();
        }
        agree(&nodes, &log);
        assert_eq!(contents(&nodes[0]), contents(&local));
        // A node that reads the log from its beginning has the same history.
        agree(&[nodes[0].clone(), on_log_at(&log.client(), time())], &log);
    }
}

/// A node whose clock is behind decides and shows by the time of the log.
#[test]
fn entries_expire_on_all_nodes_by_the_time_of_the_log() {
    let log = Memory::new();
    let (clock, late) = (SimClock::new(), SimClock::new());
    let engine = on_log_at(&log.client(), Arc::new(clock.clone()));
    let behind = on_log_at(&log.client(), Arc::new(late));
    let deadline_us = clock.now_us() + 1_000_000;
    let expires_us = Some(deadline_us);
    let entry = Entry::from_item(Item { table: None, key: b"k", value: b"v", expires_us });
    engine.submit(Commit::one(Change::Put(entry.clone()))).unwrap();
    catch_up(&behind, &log);
    assert!(!behind.view().ordered.is_empty() && behind.now_us() < deadline_us);
    clock.advance(Duration::from_secs(2));
    // Absent, because it has expired by the time of the frame.
    let commit = Commit::checked(absent("k"), put("other", "1"));
    assert!(matches!(engine.submit(commit).unwrap(), Outcome::Done { seq: Some(2), .. }));
    catch_up(&behind, &log);
    assert!(behind.now_us() >= deadline_us, "its readers hide what the log took for expired");
    // The frame of the late node is decided by the later time too, also by those that delivered.
    let commit = Commit::checked(absent("k"), put("late", "1"));
    assert!(matches!(behind.submit(commit).unwrap(), Outcome::Done { seq: Some(3), .. }));
    // The sweep of one node removes the entry everywhere, and the sweep of the other nothing more.
    let swept = engine.submit(Commit::one(Change::Sweep(entry.clone()))).unwrap();
    assert!(matches!(swept, Outcome::Done { removed: 1, .. }));
    let swept = behind.submit(Commit::one(Change::Sweep(entry))).unwrap();
    assert!(matches!(swept, Outcome::Done { seq: None, removed: 0, .. }));
    agree(&[engine, behind], &log);
}

/// A frame of several commits: each condition sees the commits before it in the frame.
#[test]
fn conditions_see_the_earlier_commits_of_their_frame() {
    let (log, clock) = (Memory::new(), SimClock::new());
    let client = log.client();
    let engine = on_log_at(&client, Arc::new(clock.clone()));
    let other = on_log_at(&log.client(), Arc::new(clock.clone()));
    engine.submit(Commit::one(put("a", "1"))).unwrap();
    let seen = || engine.view();
    let unchanged = |base: View| Check::Unchanged {
        table: None,
        lower: Bound::Included(b"a".as_slice().into()),
        upper: Bound::Excluded(b"c".as_slice().into()),
        base,
    };
    // Many threads make groups, so frames have several commits: one of each pair holds.
    for round in 0..30 {
        let base = seen();
        let made = std::thread::scope(|scope| {
            let submit = |n: usize| {
                let commit = match n % 2 {
                    0 => {
                        Commit::checked(unchanged(base.clone()), put("b", &format!("{round} {n}")))
                    }
                    _ => Commit::checked(absent("x"), put("x", "1")),
                };
                matches!(engine.submit(commit).unwrap(), Outcome::Done { .. })
            };
            let threads: Vec<_> = (0..6).map(|n| scope.spawn(move || (n, submit(n)))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        let of = |kind: usize| made.iter().filter(|(n, done)| n % 2 == kind && *done).count();
        assert_eq!((of(0), of(1)), (1, usize::from(round == 0)));
    }
    agree(&[engine, other], &log);
}
