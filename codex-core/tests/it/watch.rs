//! Tests of watches: each commit once, whole and in order, or a gap with its exact bounds.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use crate::common::{FORMS, open, options, seed, until};
use crate::double::{Fault, absent, batch, engine, memory, number, put, remove};
use crate::group::together;
use codex_core::internals::{self, Commit, End, Outcome, sweep, without_threads};
use codex_core::vfs::{Clock as _, SimClock, Vfs};
use codex_core::{AsyncStore, Change, Committed, Notice, Seq, StorageError, Store, Watch};
use codex_storage::batch::KEY_LEN_MAX;
use codex_storage::storage::{Durability, Form};

/// A copy of the keys with a prefix, which follows the store by the recipe of the documentation.
pub(crate) struct Mirror {
    watch: Watch,
    prefix: Vec<u8>,
    /// The last commit that the mirror contains or whose notice was returned.
    seq: Seq,
    contents: BTreeMap<Vec<u8>, Vec<u8>>,
    loads: usize,
}

impl Mirror {
    pub(crate) fn of(store: &Store, prefix: &[u8]) -> Self {
        Self::with(store, prefix, store.watch(prefix).unwrap())
    }

    fn with(store: &Store, prefix: &[u8], watch: Watch) -> Self {
        let (prefix, contents) = (prefix.to_vec(), BTreeMap::new());
        let mut mirror = Self { watch, prefix, seq: 0, contents, loads: 0 };
        mirror.load(store);
        assert!(mirror.watch.start() <= mirror.seq);
        mirror
    }

    fn load(&mut self, store: &Store) {
        let snapshot = store.snapshot();
        let part = snapshot.prefix(&self.prefix);
        self.contents = part.map(|e| (e.key().to_vec(), e.bytes().to_vec())).collect();
        self.seq = snapshot.seq();
        self.loads += 1;
    }

    fn apply(&mut self, store: &Store, notice: &Notice) {
        match notice {
            Notice::Commit(commit) if commit.seq() <= self.seq => {}
            Notice::Commit(commit) => {
                self.seq = commit.seq();
                replay(&mut self.contents, commit, &self.prefix);
            }
            Notice::Lagged { first, last } => {
                assert!(first <= last);
                self.load(store);
                assert!(*last <= self.seq, "a snapshot after a gap does not contain it");
            }
            other => panic!("{other:?}"),
        }
    }

    /// Takes all notices. Asserts that each commit has one, if all keys are watched, and that the
    /// mirror contains the same as the store.
    pub(crate) fn follow(&mut self, store: &Store) {
        let from = self.seq;
        let mut notices = 0;
        while let Some(notice) = self.watch.try_next() {
            self.apply(store, &notice);
            notices += 1;
        }
        assert_eq!(self.loads, 1, "the mailbox overflowed");
        if self.prefix.is_empty() {
            let seq = store.snapshot().seq();
            assert_eq!((self.seq, notices), (seq, seq - from), "each commit has one notice");
        }
        self.check(store);
    }

    fn check(&self, store: &Store) {
        let part = store.prefix(&self.prefix).map(|e| (e.key().to_vec(), e.bytes().to_vec()));
        assert!(part.eq(self.contents.clone()), "the mirror of {:?} differs", self.prefix);
    }

    /// Asserts that the watch has ended without another notice.
    pub(crate) fn end(mut self) {
        assert!(self.watch.is_ended() && self.watch.next().is_none());
    }
}

fn replay(contents: &mut BTreeMap<Vec<u8>, Vec<u8>>, commit: &Committed, prefix: &[u8]) {
    assert!(!commit.changes().is_empty());
    for change in commit.changes() {
        match change {
            Change::Set(entry) => {
                assert!(entry.key().starts_with(prefix), "a foreign key");
                contents.insert(entry.key().to_vec(), entry.bytes().to_vec());
            }
            Change::Removed(key) => {
                let removed = contents.remove(&key[..]);
                assert!(removed.is_some(), "a removal that removed nothing");
            }
            Change::Cleared => contents.clear(),
            other => panic!("{other:?}"),
        }
    }
}

/// Returns a notice as text: `1 a=1 -b clear`, or `lag 2..4`. Of a value that a test of the engine
/// has put, the first byte is taken for the codec.
fn text(notice: &Notice) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match notice {
        Notice::Commit(commit) => {
            let changes = commit.changes().iter().map(|change| match change {
                Change::Set(entry) => format!(" {}={}", text(entry.key()), text(entry.bytes())),
                Change::Removed(key) => format!(" -{}", text(key)),
                Change::Cleared => " clear".to_owned(),
                other => panic!("{other:?}"),
            });
            format!("{}{}", commit.seq(), changes.collect::<String>())
        }
        Notice::Lagged { first, last } => format!("lag {first}..{last}"),
        other => panic!("{other:?}"),
    }
}

/// Takes all notices that are there.
fn taken(watch: &mut Watch) -> Vec<String> {
    std::iter::from_fn(|| watch.try_next()).map(|notice| text(&notice)).collect()
}

fn set(store: &Store, key: &str) {
    store.set_bytes(key, "v").unwrap();
}

#[test]
fn replaying_the_notices_over_the_first_state_gives_the_last_one() {
    // The model follows each of its acts with mirrors.
    crate::model::check(None, 60);
    for form in FORMS {
        crate::model::check(Some(&options(form)), 40);
    }
}

#[test]
fn a_notice_shows_exactly_the_changes_that_readers_see() {
    for form in FORMS {
        let store = open(&Vfs::mem(seed()), form);
        store.set_bytes("b", "0").unwrap();
        let mut all = store.watch("").unwrap();
        let mut b = smol::block_on(AsyncStore::from(store.clone()).watch("b")).unwrap();
        assert_eq!((all.start(), b.start()), (1, 1));
        set(&store, "a");
        // None of these changes anything.
        assert!(!store.remove("c").unwrap());
        assert_eq!(store.remove_prefix("c").unwrap(), 0);
        assert!(store.pop_first("c"..).unwrap().is_none());
        store.batch().commit().unwrap();
        store.transaction(|tx| tx.get::<u8>("c").map(|_| ())).unwrap();
        // Each of these does.
        assert_eq!(store.remove_range("b"..).unwrap(), 1);
        store.batch().set_bytes("b", "1").unwrap().remove("b").unwrap().commit().unwrap();
        store.transaction(|tx| tx.set_bytes("bb", "2")).unwrap();
        assert_eq!(store.pop_last(..).unwrap().unwrap().key(), b"bb");
        store.clear().unwrap();
        store.clear().unwrap();
        store.batch().clear().set_bytes("b", "3").unwrap().commit().unwrap();
        let expected = ["2 a=v", "3 -b", "4 b=1 -b", "5 bb=2", "6 -bb", "7 clear", "8 b=3"];
        assert_eq!(taken(&mut all), expected, "{form}");
        assert_eq!(taken(&mut b), expected[1..], "{form}");
        assert_eq!(store.snapshot().seq(), 8, "{form}");
    }
}

#[test]
fn each_member_of_a_group_with_a_clear_shows_its_own_changes() {
    for form in FORMS {
        let (engine, probe) = engine(form, Durability::Sync, false);
        let (mut all, mut foreign) =
            (engine.watch(None, b"").unwrap(), engine.watch(None, b"x").unwrap());
        let long = "k".repeat(KEY_LEN_MAX + 1);
        let lost = Commit { checks: vec![absent("a")].into(), ..batch(vec![put("lost", "01")]) };
        let popped = internals::Change::Pop(None, Bound::Unbounded, Bound::Unbounded, End::First);
        let commits = vec![
            Commit::one(put("a", "01")),
            lost,
            batch(vec![put("refused", "01"), put(&long, "01")]),
            batch(vec![
                put("b", "02"),
                internals::Change::Clear(None),
                put("c", "03"),
                put("d", "04"),
            ]),
            Commit::one(remove("a")),
            Commit::one(popped),
        ];
        let outcomes = together(&engine, &probe, commits);
        assert!(matches!(outcomes[1], Ok(Outcome::Conflict)) && outcomes[2].is_err());
        assert_eq!(probe.disk().groups, [1, 3], "{form}");
        let expected = ["1 first=", "2 a=1", "3 b=2 clear c=3 d=4", "4 -c"];
        assert_eq!(taken(&mut all), expected, "{form}");
        assert_eq!(taken(&mut foreign), ["3 clear"], "{form}");
    }
}

#[test]
fn of_a_group_that_does_not_fit_exactly_the_parts_that_were_made_are_returned() {
    for form in FORMS {
        let (engine, probe) = engine(form, Durability::Sync, false);
        engine.submit(batch(vec![put("a", "01"), put("b", "01")])).unwrap();
        let mut watch = engine.watch(None, b"").unwrap();
        probe.fail_next(Fault::NoSpaceForLarge);
        let commits = vec![
            Commit::one(put("large", "01")),
            Commit::one(put("c", "01")),
            Commit::one(remove("a")),
            Commit::one(remove("large")),
        ];
        let outcomes = together(&engine, &probe, commits);
        let made: Vec<_> = outcomes.into_iter().map(|made| made.ok().and_then(number)).collect();
        // A form of images tries no member alone, because its image would be the same.
        let expected: (&[_], &[_]) = match form {
            Form::Snapshot => (&[None, None, Some(3), None], &["2 first=", "3 -a"]),
            _ => (&[None, Some(4), Some(3), None], &["2 first=", "3 -a", "4 c=1"]),
        };
        assert_eq!((&*made, &*taken(&mut watch)), (expected.0, &*strings(expected.1)), "{form}");
        assert_eq!(memory(&engine), probe.disk().durable_state());
    }
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.into()).collect()
}

#[test]
fn a_failed_sync_returns_nothing_and_ends_the_watch() {
    for form in FORMS {
        for fault in [Fault::Sync, Fault::Panic] {
            let (engine, probe) = engine(form, Durability::Sync, false);
            let mut watch = engine.watch(None, b"").unwrap();
            engine.submit(Commit::one(put("a", "01"))).unwrap();
            probe.fail_next(fault);
            let failing = || engine.submit(Commit::one(put("b", "02")));
            let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(failing));
            assert!(failed.is_err() || failed.is_ok_and(|made| made.is_err()));
            // The commit before it is still returned.
            let all: Vec<_> = watch.by_ref().map(|notice| text(&notice)).collect();
            assert_eq!(all, ["1 a=1"], "{form}, {fault:?}");
            assert!(watch.is_ended() && engine.poisoned().is_some());
            let refused = engine.watch(None, b"").unwrap_err();
            assert!(matches!(refused, StorageError::Poisoned { .. }), "{refused}");
        }
    }
}

#[test]
fn each_way_to_poison_a_store_ends_the_watches_that_wait() {
    type Break = fn(&crate::double::Probe);

    let interval = Durability::Interval(Duration::ZERO);
    let ways: [(&str, Durability, bool, Break); 3] = [
        ("a failed flush", Durability::Os, false, |probe| probe.fail_next(Fault::Background)),
        ("a failed sync in the background", interval, true, |probe| {
            probe.fail_next(Fault::Background);
        }),
        ("a panic of the thread that syncs", interval, true, |probe| probe.panic_in_syncs()),
    ];
    for (way, level, background, prepare) in ways {
        let (engine, probe) = engine(Form::Wal, level, background);
        let watch = engine.watch(None, b"").unwrap();
        thread::scope(|scope| {
            let waiting =
                scope.spawn(move || watch.map(|notice| text(&notice)).collect::<Vec<_>>());
            prepare(&probe);
            engine.submit(Commit::one(put("a", "01"))).unwrap();
            // Without the thread, the call syncs.
            assert!(background || engine.flush().is_err());
            assert_eq!(waiting.join().unwrap(), ["1 a=1"], "{way}");
            assert!(engine.poisoned().is_some(), "{way}");
        });
    }
}

#[test]
fn a_watch_of_a_closed_or_dropped_store_ends_and_a_new_one_is_refused() {
    for form in FORMS {
        let vfs = Vfs::mem(seed());
        let store = open(&vfs, form);
        let mut watch = store.watch("").unwrap();
        set(&store, "a");
        store.close().unwrap();
        assert!(!watch.is_ended(), "a notice is left");
        assert_eq!(watch.next().as_ref().map(text).as_deref(), Some("1 a=v"));
        assert!(watch.next().is_none() && watch.is_ended());
        assert!(watch.try_next().is_none() && watch.next_timeout(Duration::MAX).is_none());
        assert!(store.watch("").unwrap_err().is_closed());
        drop(store);

        // The watch does not keep the store open.
        let store = open(&vfs, form);
        let waiting = store.watch("").unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(move || waiting.count());
            drop(store);
            assert_eq!(waiting.join().unwrap(), 0, "{form}");
        });
        let store = Store::options().read_only(true).open_in(&vfs, "a.db").unwrap();
        let refused = crate::common::storage(store.watch("").unwrap_err());
        assert!(matches!(refused, StorageError::ReadOnly { .. }), "{refused}");
    }
}

#[test]
fn thirty_two_writers_make_commits_that_are_returned_whole_and_in_order() {
    const WRITERS: u64 = 32;
    const COMMITS: u64 = 40;
    for form in FORMS {
        let store = open(&Vfs::mem(seed()), form);
        let watch = || store.watch("").unwrap().changes_max(usize::MAX);
        let mut watches = vec![watch()];
        thread::scope(|scope| {
            for writer in 0..WRITERS {
                let store = &store;
                scope.spawn(move || {
                    for n in 0..COMMITS {
                        let mut batch = store.batch();
                        for key in ["x", "y", "z"] {
                            batch.set_bytes(format!("{key}{writer}"), format!("{n}")).unwrap();
                        }
                        batch.commit().unwrap();
                    }
                });
            }
            // Watches that begin while the writers run.
            for _ in 0..20 {
                watches.push(watch());
            }
        });
        store.close().unwrap();
        for watch in watches {
            let mut next = watch.start() + 1;
            for notice in watch {
                let Notice::Commit(commit) = notice else { panic!("{notice:?}") };
                assert_eq!(commit.seq(), next, "{form}: a commit is missing or twice");
                let [Change::Set(x), Change::Set(y), Change::Set(z)] = commit.changes() else {
                    panic!("{form}: half of a commit: {commit:?}");
                };
                assert!(x.bytes() == y.bytes() && y.bytes() == z.bytes(), "{form}");
                assert!(x.key()[1..] == y.key()[1..] && y.key()[1..] == z.key()[1..], "{form}");
                next += 1;
            }
            assert_eq!(next, WRITERS * COMMITS + 1, "{form}");
        }
    }
}

#[test]
fn a_full_mailbox_returns_a_gap_with_exact_bounds_in_its_place() {
    let store = Store::in_memory().unwrap();
    let mut watch = store.watch("a").unwrap().changes_max(3);
    for key in ["a1", "a2", "a3", "x", "y"] {
        set(&store, key);
    }
    assert_eq!(taken(&mut watch), ["1 a1=v", "2 a2=v", "3 a3=v"], "foreign keys cost nothing");
    let mut two = store.batch();
    two.set_bytes("a1", "w").unwrap().set_bytes("x", "w").unwrap();
    two.set_bytes("a2", "w").unwrap().commit().unwrap(); // 6
    set(&store, "a3"); // 7
    set(&store, "x"); // 8
    set(&store, "a4"); // 9: does not fit
    assert_eq!(watch.try_next().as_ref().map(text).as_deref(), Some("6 a1=w a2=w"));
    // There is room, but the gap comes first.
    set(&store, "a5"); // 10
    set(&store, "x"); // 11
    assert_eq!(taken(&mut watch), ["7 a3=v", "lag 9..10"]);
    set(&store, "a6"); // 12
    assert_eq!(taken(&mut watch), ["12 a6=v"]);

    // A commit that exceeds the limit is returned if the mailbox is empty, and else is a gap.
    for key in ["a1", "x", "a2"] {
        let mut large = store.batch();
        for n in 0..5 {
            large.set_bytes(format!("{key}{n}"), "w").unwrap();
        }
        large.commit().unwrap(); // 13, 14, 15
    }
    assert_eq!(taken(&mut watch), ["13 a10=w a11=w a12=w a13=w a14=w", "lag 15..15"]);

    // A gap that is open at the end is returned before the end.
    let mut watch = watch.changes_max(0);
    set(&store, "a1"); // 16
    set(&store, "a2"); // 17
    store.close().unwrap();
    let rest: Vec<_> = watch.by_ref().map(|notice| text(&notice)).collect();
    assert_eq!(rest, ["16 a1=v", "lag 17..17"]);
}

#[test]
fn the_bytes_of_keys_and_values_are_limited_and_a_removed_value_counts() {
    let store = Store::in_memory().unwrap();
    // An entry is a key of 2 bytes, a codec byte, and a value of 7 bytes.
    let write = |key: &str| store.set_bytes(key, "7 bytes").unwrap();
    let mut watch = store.watch("").unwrap().bytes_max(30);
    for key in ["a1", "a2", "a3", "a4"] {
        write(key);
    }
    assert_eq!(taken(&mut watch), ["1 a1=7 bytes", "2 a2=7 bytes", "3 a3=7 bytes", "lag 4..4"]);
    for key in ["a1", "a2", "a3", "a4"] {
        assert!(store.remove(key).unwrap());
    }
    assert_eq!(taken(&mut watch), ["5 -a1", "6 -a2", "7 -a3", "lag 8..8"]);
}

#[test]
fn an_entry_that_expires_is_returned_as_removed_when_it_is_swept() {
    for form in FORMS {
        let clock = SimClock::new();
        let mut vfs = Vfs::mem(seed());
        vfs.clock = Arc::new(clock.clone());
        let store = without_threads(options(form)).open_in(&vfs, "a.db").unwrap();
        let mut watch = store.watch("").unwrap();
        let start_us = u64::try_from(clock.now_us()).unwrap();
        let expiring = |key: &str, after_us: u64| {
            let expires = UNIX_EPOCH + Duration::from_micros(start_us + after_us);
            store.set_bytes_with_expiry(key, "v", expires).unwrap();
        };
        for (key, after_us) in [("late", 2), ("early", 1), ("again", 1), ("taken", 1)] {
            expiring(key, after_us);
        }
        assert_eq!(taken(&mut watch), ["1 late=v", "2 early=v", "3 again=v", "4 taken=v"]);
        // Neither the time nor a call that finds no entry is a commit.
        clock.advance(Duration::from_micros(2));
        assert!(store.is_empty() && !store.remove("taken").unwrap());
        assert!(taken(&mut watch).is_empty());
        // A later entry of the key stays. The others go in the order in which they have expired, in
        // one commit after those that were made before the sweep.
        set(&store, "again");
        assert!(!sweep(&store).unwrap());
        set(&store, "last");
        let swept = ["5 again=v", "6 -early -taken -late", "7 last=v"];
        assert_eq!(taken(&mut watch), swept, "{form}");
        // An entry that no reader has seen is a change, and so is its removal.
        expiring("past", 0);
        assert!(!sweep(&store).unwrap());
        assert_eq!(taken(&mut watch), ["8 past=v", "9 -past"], "{form}");
    }
}

#[test]
fn a_mirror_that_lags_is_exact_again_after_each_gap() {
    for form in FORMS {
        let store = open(&Vfs::mem(seed()), form);
        let watch = store.watch("a").unwrap().changes_max(2);
        let done = AtomicBool::new(false);
        let mirror = thread::scope(|scope| {
            let mirror = scope.spawn(|| {
                let mut mirror = Mirror::with(&store, b"a", watch);
                // Slower than the writers: of ten commits, one notice is read.
                for seq in (10..).step_by(10) {
                    let is_done = || done.load(Ordering::SeqCst);
                    until("ten commits", || is_done() || store.snapshot().seq() >= seq);
                    if is_done() {
                        break;
                    }
                    if let Some(notice) = mirror.watch.try_next() {
                        mirror.apply(&store, &notice);
                    }
                }
                while let Some(notice) = mirror.watch.try_next() {
                    mirror.apply(&store, &notice);
                }
                mirror
            });
            let writers: Vec<_> = ["a", "b"]
                .map(|group| {
                    let store = &store;
                    scope.spawn(move || {
                        for n in 0..200_u32 {
                            let key = format!("{group}{}", n % 7);
                            match n % 5 {
                                4 => drop(store.remove(key).unwrap()),
                                _ => store.set(key, &n).unwrap(),
                            }
                        }
                    })
                })
                .into();
            for writer in writers {
                writer.join().unwrap();
            }
            done.store(true, Ordering::SeqCst);
            mirror.join().unwrap()
        });
        mirror.check(&store);
        assert!(mirror.loads > 1, "{form}: the mirror never lagged");
    }
}

#[test]
fn a_watch_that_is_never_read_keeps_no_more_than_its_limits_and_holds_up_no_writer() {
    let store = Store::in_memory().unwrap();
    let (mut by_count, mut by_bytes) = (store.watch("").unwrap(), store.watch("").unwrap());
    let value = vec![7; 16_379];
    for n in 0..5_000_u32 {
        let mut batch = store.batch();
        batch.set_bytes("key", if n % 5 == 0 { &*value } else { b"" }).unwrap();
        batch.set_bytes("other", "").unwrap().commit().unwrap();
    }
    // One batch in five has 16 KiB, and each has two changes.
    let first = |watch: &mut Watch| {
        let mut commits = 0_u64;
        loop {
            match watch.try_next().unwrap() {
                Notice::Commit(_) => commits += 1,
                Notice::Lagged { first, last } => return (commits, first, last),
                other => panic!("{other:?}"),
            }
        }
    };
    assert_eq!(first(&mut by_count), (2_048, 2_049, 5_000), "4,096 changes");
    let mut by_bytes = {
        drop(taken(&mut by_bytes));
        by_bytes.changes_max(usize::MAX)
    };
    for _ in 0..2_000 {
        store.set_bytes("key", &value).unwrap();
    }
    // 16 MiB of entries of 16 KiB: a key of 3 bytes, a codec byte, and the value.
    assert_eq!(first(&mut by_bytes), (1_024, 6_025, 7_000));
}

/// Wakes a thread that has parked itself, and counts.
struct Unpark {
    thread: thread::Thread,
    wakes: AtomicUsize,
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
        self.thread.unpark();
    }
}

fn unpark() -> (Arc<Unpark>, Waker) {
    let unpark = Arc::new(Unpark { thread: thread::current(), wakes: AtomicUsize::new(0) });
    (unpark.clone(), Waker::from(unpark))
}

#[test]
fn the_blocking_the_timed_and_the_polled_wait_return_the_same() {
    const COMMITS: u64 = 300;
    type Reader = fn(Watch) -> Vec<Notice>;
    let readers: [Reader; 5] = [
        |watch| watch.collect(),
        |mut watch| {
            // The time may be over before a commit comes.
            let limit = Duration::from_micros(50);
            let mut look = || (watch.next_timeout(limit), watch.is_ended());
            looked(&mut look)
        },
        |mut watch| looked(&mut || (watch.try_next(), watch.is_ended())),
        |mut watch| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let next = || runtime.block_on(poll_fn(|cx| watch.poll_next(cx)));
            std::iter::from_fn(next).collect()
        },
        streamed,
    ];
    let store = Store::in_memory().unwrap();
    let all = thread::scope(|scope| {
        let start = |read: Reader| {
            let watch = store.watch("a").unwrap();
            scope.spawn(move || read(watch))
        };
        let all = readers.map(start);
        for n in 0..COMMITS {
            store.set(if n % 3 == 0 { "x" } else { "a" }, &n).unwrap();
        }
        store.close().unwrap();
        all.map(|one| one.join().unwrap())
    });
    let seq = |notice: &Notice| match notice {
        Notice::Commit(commit) => commit.seq(),
        other => panic!("{other:?}"),
    };
    for notices in &all {
        let expected = (1..=COMMITS).filter(|seq| seq % 3 != 1);
        assert!(notices.iter().map(seq).eq(expected), "{notices:?}");
    }
}

/// Collects what `look` returns, until it tells that the watch has ended.
fn looked(look: &mut dyn FnMut() -> (Option<Notice>, bool)) -> Vec<Notice> {
    let mut notices = Vec::new();
    loop {
        let (notice, is_ended) = look();
        notices.extend(notice);
        if is_ended {
            return notices;
        }
        thread::yield_now();
    }
}

#[cfg(feature = "stream")]
fn streamed(watch: Watch) -> Vec<Notice> {
    smol::block_on(smol::stream::StreamExt::collect(watch.stream()))
}

#[cfg(not(feature = "stream"))]
fn streamed(watch: Watch) -> Vec<Notice> {
    watch.collect()
}

#[test]
fn the_last_waker_is_woken_once_for_what_it_has_not_seen() {
    let store = Store::in_memory().unwrap();
    let mut watch = store.watch("a").unwrap();
    let ((first, first_waker), (second, second_waker)) = (unpark(), unpark());
    let wakes = |of: &Arc<Unpark>| of.wakes.load(Ordering::SeqCst);
    let mut poll = |waker| watch.poll_next(&mut Context::from_waker(waker));
    assert!(poll(&first_waker).is_pending() && poll(&first_waker).is_pending());
    set(&store, "x");
    assert_eq!(wakes(&first), 0, "a foreign key wakes nobody");
    assert!(poll(&second_waker).is_pending());
    assert_eq!(Arc::strong_count(&first), 2, "the replaced waker is kept");
    set(&store, "a");
    set(&store, "a");
    assert_eq!((wakes(&first), wakes(&second)), (0, 1));
    assert!(poll(&first_waker).is_ready() && poll(&first_waker).is_ready());
    assert!(poll(&first_waker).is_pending());
    store.close().unwrap();
    assert_eq!((wakes(&first), wakes(&second)), (1, 1));
    assert!(matches!(poll(&first_waker), Poll::Ready(None)));
}

#[test]
fn a_wait_for_a_limited_time_ends_by_the_clock_of_the_store() {
    let vfs = Vfs::mem(seed());
    let store = open(&vfs, Form::Wal);
    let mut watch = store.watch("").unwrap();
    assert!(watch.next_timeout(Duration::ZERO).is_none() && !watch.is_ended());
    let limit = Duration::from_millis(3);
    thread::scope(|scope| {
        let waiting = scope.spawn(move || watch.next_timeout(limit).is_none());
        until("the time is over", || {
            vfs.clock.sleep(limit);
            waiting.is_finished()
        });
        assert!(waiting.join().unwrap());
    });
}

/// Returns a ledger with `count` commits, which set the keys `a0`, `b1`, `a2` and so on.
fn ledger(vfs: &Vfs, count: u32) -> Store {
    let store = without_threads(options(Form::Ledger)).open_in(vfs, "a.db").unwrap();
    (0..count).for_each(|n| set(&store, &format!("{}{n}", if n % 2 == 0 { 'a' } else { 'b' })));
    store
}

#[test]
fn a_watch_from_a_commit_returns_those_after_it_and_then_the_later_ones() {
    let vfs = Vfs::mem(seed());
    let store = ledger(&vfs, 5);
    let rows = store.table::<u8, u64>("rows").unwrap();
    rows.set(1, &7).unwrap();
    for (after, wanted) in [
        (0, &["1 a0=v", "3 a2=v", "5 a4=v"][..]),
        (1, &["3 a2=v", "5 a4=v"]),
        (2, &["3 a2=v", "5 a4=v"]),
        (5, &[]),
        (store.snapshot().seq(), &[]),
    ] {
        let mut watch = store.watch_from("a", after).unwrap();
        assert_eq!((watch.start(), watch.is_ended()), (after, false));
        assert_eq!(taken(&mut watch), wanted, "{after}");
    }
    let mut watches = [0, 5].map(|after| store.watch_from("a", after).unwrap());
    let (later, other) = (store.snapshot().seq() + 1, store.snapshot().seq() + 2);
    store.batch().remove("a0").unwrap().remove("b1").unwrap().commit().unwrap();
    store.batch().set_bytes("a0", "v").unwrap().set_bytes("b1", "v").unwrap().commit().unwrap();
    let live = [format!("{later} -a0"), format!("{other} a0=v")];
    assert_eq!(taken(&mut watches[1]), live);
    assert!(taken(&mut watches[0]).ends_with(&live));
    let last = taken_of(store.watch_from("a", later).unwrap());
    assert_eq!(last, [format!("{other} a0=v")], "the last commit before the watch");
    let of_rows = taken_of(rows.watch_from(0).unwrap());
    assert_eq!(of_rows.len(), 1);
    // Times are those of the file, and a commit that comes as it is made has none.
    let mut watch = store.watch_from("", 0).unwrap();
    let Some(Notice::Commit(first)) = watch.next() else { panic!("it is in the file") };
    assert!(first.time().is_some());
    taken(&mut watch);
    set(&store, "last");
    let Some(Notice::Commit(last)) = watch.next() else { panic!("it is made") };
    assert_eq!((last.time(), last.seq()), (None, store.snapshot().seq()));
    store.clear().unwrap();
    assert_eq!(taken(&mut watch), [format!("{} clear", last.seq() + 1)]);
}

fn taken_of(mut watch: Watch) -> Vec<String> {
    taken(&mut watch)
}

/// Adds the numbers of the commits of a watch until there are `count` of them.
fn follow(mut watch: Watch, count: u64) {
    for seq in watch.start() + 1..=count {
        match watch.next() {
            Some(Notice::Commit(commit)) => assert_eq!(commit.seq(), seq),
            other => panic!("instead of commit {seq}: {other:?}"),
        }
    }
}

#[test]
fn a_watch_from_a_commit_has_no_gap_beside_writers_and_a_rekey_with_the_smallest_mailbox() {
    const WRITERS: u64 = 4;
    for &is_sealed in crate::common::SEALED {
        let steps = u64::from(crate::common::scaled(300));
        let vfs = Vfs::mem(seed());
        let options = crate::common::sealed(&options(Form::Ledger), is_sealed);
        let store = without_threads(options).open_in(&vfs, "a.db").unwrap();
        for n in 0..steps {
            set(&store, &n.to_string());
        }
        let last = steps * (WRITERS + 1);
        thread::scope(|scope| {
            for after in [0, steps / 2, steps] {
                let watch = store.watch_from("", after).unwrap().changes_max(1).bytes_max(1);
                scope.spawn(move || follow(watch, last));
            }
            for writer in 0..WRITERS {
                let store = &store;
                scope.spawn(move || (0..steps).for_each(|n| set(store, &format!("{writer}/{n}"))));
            }
            #[cfg(feature = "crypto")]
            while is_sealed && store.snapshot().seq() < last {
                store.rekey(codex_core::crypto::Key::raw(&[7; 32]).unwrap()).unwrap();
            }
        });
    }
}

#[test]
fn what_does_not_fit_into_the_mailbox_is_read_from_the_ledger_while_it_is_open() {
    let vfs = Vfs::mem(seed());
    let store = ledger(&vfs, 0);
    let mut watch = store.watch_from("a", 0).unwrap().changes_max(2);
    let live = store.watch("a").unwrap().changes_max(2);
    (0..9).for_each(|n| set(&store, &format!("{}{n}", if n % 2 == 0 { 'a' } else { 'b' })));
    let wanted = ["1 a0=v", "3 a2=v", "5 a4=v", "7 a6=v", "9 a8=v"];
    assert_eq!(taken_of(live), ["1 a0=v", "3 a2=v", "lag 5..9"]);
    assert_eq!(taken(&mut watch), wanted);
    // The gap ends where the mailbox goes on.
    (0..9).for_each(|n| set(&store, &format!("a{n}")));
    assert_eq!(text(&watch.try_next().unwrap()), "10 a0=v");
    set(&store, "a9");
    let rest: Vec<_> = (1..10).map(|n| format!("{} a{n}=v", 10 + n)).collect();
    assert_eq!(taken(&mut watch), rest);
    // After the close a gap can only be told. What was begun is read to its end.
    let mut begun = store.watch_from("a", 0).unwrap();
    assert!(begun.next().is_some());
    (0..9).for_each(|n| set(&store, &format!("a{n}")));
    store.close().unwrap();
    drop(store);
    let last = taken(&mut watch);
    assert_eq!(last, ["20 a0=v", "21 a1=v", "lag 22..28"]);
    assert!(watch.is_ended() && watch.next().is_none() && !begun.is_ended());
    assert_eq!(begun.count(), 4 + 10 + 9);
}

#[test]
fn the_ways_to_wait_agree_on_a_watch_from_a_commit() {
    let vfs = Vfs::mem(seed());
    let store = ledger(&vfs, 1_000);
    let all = taken_of(store.watch_from("a", 0).unwrap());
    assert_eq!(all.len(), 500);
    let watches = [0; 3].map(|after| store.watch_from("a", after).unwrap());
    let [blocking, mut limited, mut polled] = watches;
    // A task gives way to others while nothing is found.
    let mut foreign = store.watch_from("none", 0).unwrap();
    let wakes = AtomicUsize::new(0);
    let woken = Arc::new(Unpark { thread: thread::current(), wakes });
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    let mut pending = 0;
    loop {
        assert!(foreign.poll_next(&mut cx).is_pending());
        pending += 1;
        if woken.wakes.swap(0, Ordering::SeqCst) == 0 {
            break;
        }
    }
    assert!(pending > 3, "{pending} polls for 1,000 groups");
    store.close().unwrap();
    let texts = |notices: Vec<Notice>| notices.iter().map(text).collect::<Vec<_>>();
    assert_eq!(texts(blocking.collect()), all);
    let limited = std::iter::from_fn(|| limited.next_timeout(Duration::MAX));
    assert_eq!(texts(limited.collect()), all);
    let polled = std::iter::from_fn(|| {
        loop {
            if let Poll::Ready(notice) = polled.poll_next(&mut cx) {
                return notice;
            }
        }
    });
    assert_eq!(texts(polled.collect()), all);
    // A limit that has passed ends a search.
    assert!(foreign.next_timeout(Duration::ZERO).is_none());
}
