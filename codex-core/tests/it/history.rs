//! The past of a ledger: each answer is compared with a record that was made as the commits were.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use codex_core::internals::{index_ledger, sweep, without_threads};
use codex_core::vfs::fault::{Calls, Fault, FaultDir, Lasting, Side};
use codex_core::vfs::{CallKind, Clock as _, Observed, SimClock, Vfs};
use codex_core::{
    Change, Committed, Form, Notice, OpenOptions, RestorePoint, Seq, StorageError, Store, Table,
    Watch,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use crate::common::{SEALED, files, open, scaled, sealed, seed, storage};

/// A directory in memory, with a clock that the test sets.
fn world() -> (Vfs, SimClock) {
    let clock = SimClock::new();
    (Vfs { clock: Arc::new(clock.clone()), ..Vfs::mem(seed()) }, clock)
}

fn ledger() -> OpenOptions {
    without_threads(crate::common::options(Form::Ledger))
}

fn at(time_us: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(u64::try_from(time_us).unwrap())
}

/// Returns the values that `key` had, as `commit=value` or `commit-`.
fn revisions(store: &Store, key: &str) -> Vec<String> {
    store.history(key).unwrap().map(|revision| shown(&revision.unwrap())).collect()
}

fn shown(revision: &codex_core::Revision) -> String {
    let value = revision.entry().map(|entry| String::from_utf8_lossy(entry.bytes()).into_owned());
    value.map_or(format!("{}-", revision.seq()), |value| format!("{}={value}", revision.seq()))
}

/// The entries of a state.
type State = BTreeMap<Vec<u8>, Vec<u8>>;

fn state(snapshot: &codex_core::Snapshot) -> State {
    snapshot.iter().map(|entry| (entry.key().to_vec(), entry.bytes().to_vec())).collect()
}

/// One change of a key outside tables, as it was watched.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Set(Vec<u8>, Vec<u8>, Option<SystemTime>),
    Removed(Vec<u8>),
    Cleared,
}

fn steps(commit: &Committed) -> Vec<Step> {
    let step = |change: &Change| match change {
        Change::Set(entry) => {
            Step::Set(entry.key().to_vec(), entry.bytes().to_vec(), entry.expires_at())
        }
        Change::Removed(key) => Step::Removed(key.to_vec()),
        Change::Cleared => Step::Cleared,
        other => panic!("{other:?}"),
    };
    commit.changes().iter().map(step).collect()
}

/// A store, and a record of all its commits that rests on a watch and on snapshots.
struct Recorded {
    store: Store,
    watch: Watch,
    rows: Option<Table<u8, u64>>,
    clock: SimClock,
    /// The time, the changes and the state of each commit.
    commits: BTreeMap<Seq, (i64, Vec<Step>, State)>,
    /// The rows of the table after each commit.
    tables: BTreeMap<Seq, Vec<(u8, u64)>>,
}

impl Recorded {
    fn new(store: Store, clock: &SimClock) -> Self {
        let watch = watch(&store);
        let (commits, tables) = (BTreeMap::new(), BTreeMap::new());
        Self { store, watch, rows: None, clock: clock.clone(), commits, tables }
    }

    /// Records the commit that was made since the last call, if any.
    fn record(&mut self) {
        let snapshot = self.store.snapshot();
        let seq = snapshot.seq();
        if self.commits.contains_key(&seq) || seq == 0 {
            return;
        }
        let mut changes = Vec::new();
        while let Some(notice) = self.watch.try_next() {
            let Notice::Commit(commit) = notice else { panic!("{notice:?}") };
            assert_eq!(commit.seq(), seq, "one commit at a time");
            changes = steps(&commit);
        }
        self.commits.insert(seq, (self.clock.now_us(), changes, state(&snapshot)));
        let Some(table) = &self.rows else { return };
        let rows = snapshot.table(table).ok();
        self.tables
            .insert(seq, rows.map_or(vec![], |rows| rows.iter().map(Result::unwrap).collect()));
    }

    /// Compares each answer about the past with the record.
    fn check(&self) {
        let last = self.commits.keys().last().copied().unwrap_or(0);
        // The commits after each one.
        for after in [0, 1, last / 2, last.saturating_sub(1), last] {
            let found = self.store.changes(after.min(last)).unwrap().map(|commit| {
                let commit = commit.unwrap();
                (commit.seq(), commit.time().unwrap(), steps(&commit))
            });
            let kept = self.commits.range(after.min(last) + 1..);
            let wanted = kept.map(|(seq, (us, changes, _))| (*seq, at(*us), changes.clone()));
            assert!(found.eq(wanted), "the changes after {after}");
        }
        // The values of each key.
        for key in KEYS {
            let found = self.store.history(key).unwrap().map(|revision| {
                let revision = revision.unwrap();
                let entry = revision.entry();
                let value = entry.map(|entry| (entry.bytes().to_vec(), entry.expires_at()));
                (revision.seq(), revision.time(), value)
            });
            assert_eq!(found.collect::<Vec<_>>(), self.revisions(key.as_bytes()), "{key:?}");
        }
        // The state after each commit, by its number and by its time.
        for (seq, (us, _, state)) in &self.commits {
            let past = self.store.as_of(*seq).unwrap();
            assert_eq!((past.seq(), &self::state(&past)), (*seq, state), "as of {seq}");
            let mut of_time = self.commits.iter().filter(|(_, (other, ..))| other <= us);
            let (newest, (_, _, state)) = of_time.next_back().unwrap();
            let past = self.store.as_of(at(*us)).unwrap();
            assert_eq!((past.seq(), &self::state(&past)), (*newest, state), "at {us}");
            if let (Some(table), Some(wanted)) = (&self.rows, self.tables.get(seq)) {
                let past = self.store.as_of(*seq).unwrap();
                let rows = past.table(table).map(|rows| rows.iter().map(Result::unwrap).collect());
                assert_eq!(&rows.unwrap_or_else(|_| Vec::new()), wanted, "rows as of {seq}");
            }
        }
    }

    /// Returns the revisions of `key` according to the record.
    #[allow(clippy::type_complexity, reason = "the parts of a revision")]
    fn revisions(
        &self,
        key: &[u8],
    ) -> Vec<(Seq, SystemTime, Option<(Vec<u8>, Option<SystemTime>)>)> {
        let (mut found, mut is_there) = (Vec::new(), false);
        for (seq, (us, changes, _)) in &self.commits {
            let mut change = changes.iter().filter_map(|change| match change {
                Step::Set(of, value, expires) if of == key => Some(Some((value.clone(), *expires))),
                Step::Removed(of) if of == key => Some(None),
                Step::Cleared => Some(None),
                _ => None,
            });
            match change.next_back() {
                Some(value) if value.is_some() || is_there => {
                    is_there = value.is_some();
                    found.push((*seq, at(*us), value));
                }
                _ => {}
            }
        }
        found
    }
}

fn watch(store: &Store) -> Watch {
    store.watch("").unwrap().changes_max(1 << 20).bytes_max(1 << 30)
}

const KEYS: [&str; 6] = ["", "a", "ab", "b", "\u{ff}", "never"];

#[derive(Debug, Clone)]
enum Act {
    Set(usize, u8),
    Expiring(usize, u8),
    Remove(usize),
    RemovePrefix(usize),
    Clear,
    Batch(Vec<(usize, Option<u8>)>),
    Row(u8, u64),
    RemoveRow(u8),
    ClearRows,
    DropRows,
    Advance(u8),
    Sweep,
    Reopen,
    Rekey,
    Check,
}

fn act() -> impl Strategy<Value = Act> {
    let key = || 0..KEYS.len() - 1;
    prop_oneof![
        8 => (key(), any::<u8>()).prop_map(|(key, value)| Act::Set(key, value)),
        2 => (key(), 1..9_u8).prop_map(|(key, after)| Act::Expiring(key, after)),
        3 => key().prop_map(Act::Remove),
        1 => key().prop_map(Act::RemovePrefix),
        1 => Just(Act::Clear),
        3 => proptest::collection::vec((key(), any::<Option<u8>>()), 1..5).prop_map(Act::Batch),
        2 => (0..4_u8, any::<u64>()).prop_map(|(key, value)| Act::Row(key, value)),
        1 => (0..4_u8).prop_map(Act::RemoveRow),
        1 => Just(Act::ClearRows),
        1 => Just(Act::DropRows),
        4 => (0..5_u8).prop_map(Act::Advance),
        1 => Just(Act::Sweep),
        1 => Just(Act::Reopen),
        1 => Just(Act::Rekey),
        1 => Just(Act::Check),
    ]
}

/// Runs acts, and compares each answer about the past with a record of them.
fn run(acts: &[Act], is_sealed: bool, region_len: u64, names_max: usize) {
    let (vfs, clock) = world();
    let open = || sealed(&ledger(), is_sealed).open_in(&vfs, "a.db").unwrap();
    let mut it = Recorded::new(open(), &clock);
    index_ledger(&it.store, region_len, names_max).unwrap();
    for act in acts {
        let store = &it.store;
        match act {
            Act::Set(key, value) => store.set_bytes(KEYS[*key], [*value]).unwrap(),
            Act::Expiring(key, after) => {
                let expires = at(clock.now_us() + i64::from(*after));
                store.set_bytes_with_expiry(KEYS[*key], "short", expires).unwrap();
            }
            Act::Remove(key) => drop(store.remove(KEYS[*key]).unwrap()),
            Act::RemovePrefix(key) => drop(store.remove_prefix(KEYS[*key]).unwrap()),
            Act::Clear => store.clear().unwrap(),
            Act::Batch(changes) => {
                let mut batch = store.batch();
                for (key, value) in changes {
                    match value {
                        Some(value) => drop(batch.set_bytes(KEYS[*key], [*value]).unwrap()),
                        None => drop(batch.remove(KEYS[*key]).unwrap()),
                    }
                }
                batch.commit().unwrap();
            }
            Act::Row(key, value) => {
                if it.rows.is_none() {
                    it.rows = Some(store.table("rows").unwrap());
                    it.record();
                }
                it.rows.as_ref().unwrap().set(*key, value).unwrap();
            }
            Act::RemoveRow(key) => drop(it.rows.as_ref().map(|rows| rows.remove(*key).unwrap())),
            Act::ClearRows => drop(it.rows.as_ref().map(|rows| rows.clear().unwrap())),
            Act::DropRows => {
                store.drop_table("rows").unwrap();
                it.rows = None;
            }
            Act::Advance(us) => clock.advance(Duration::from_micros((*us).into())),
            Act::Sweep => drop(sweep(store).unwrap()),
            Act::Reopen => {
                it.rows = None;
                store.close().unwrap();
                it.store = open();
                it.watch = watch(&it.store);
                index_ledger(&it.store, region_len, names_max).unwrap();
            }
            Act::Rekey => rekey(store, is_sealed),
            Act::Check => it.check(),
        }
        it.record();
    }
    it.check();
}

#[cfg(feature = "crypto")]
fn rekey(store: &Store, is_sealed: bool) {
    if is_sealed {
        store.rekey(codex_core::crypto::Key::raw(&[7; 32]).unwrap()).unwrap();
    }
}

#[cfg(not(feature = "crypto"))]
fn rekey(_: &Store, _: bool) {}

fn model(region_len: u64, names_max: usize) {
    for &is_sealed in SEALED {
        let config = Config {
            cases: scaled(8),
            rng_seed: RngSeed::Fixed(seed()),
            failure_persistence: None,
            ..Config::default()
        };
        let acts = proptest::collection::vec(act(), 1..60);
        TestRunner::new(config)
            .run(&acts, |acts| {
                run(&acts, is_sealed, region_len, names_max);
                Ok(())
            })
            .unwrap();
    }
}

#[test]
fn history_states_and_changes_are_those_that_were_recorded() {
    model(512 << 10, 1 << 20);
}

#[test]
fn the_same_with_regions_of_a_kibibyte() {
    model(1 << 10, 1 << 20);
}

#[test]
fn the_same_with_an_index_that_keeps_few_keys() {
    model(1 << 10, 5);
}

#[test]
fn only_a_ledger_has_a_past_and_only_that_since_it_was_created() {
    let wrong = |store: &Store, form: Form| {
        let found = |error| match storage(error) {
            StorageError::WrongForm { found, wanted: Form::Ledger, .. } => found == form,
            error => panic!("{error}"),
        };
        assert!(found(store.history("a").unwrap_err()) && found(store.as_of(0).unwrap_err()));
        assert!(found(store.changes(0).unwrap_err()));
        assert!(found(store.watch_from("", 0).unwrap_err()));
    };
    for form in [Form::Wal, Form::Snapshot] {
        wrong(&open(&Vfs::mem(seed()), form), form);
    }
    let memory = Store::in_memory().unwrap();
    for error in [
        memory.history("a").unwrap_err(),
        memory.as_of(0).unwrap_err(),
        memory.changes(0).unwrap_err(),
        memory.watch_from("", 0).unwrap_err(),
    ] {
        assert!(error.to_string().contains("in memory keeps no history"), "{error}");
    }

    // An empty ledger has one state, from its creation on.
    let (vfs, clock) = world();
    let created = at(clock.now_us());
    clock.advance(Duration::from_secs(1));
    let store = ledger().open_in(&vfs, "a.db").unwrap();
    let opened = at(clock.now_us());
    let states = |error| match storage(error) {
        StorageError::NotInHistory { states, .. } => states,
        error => panic!("{error}"),
    };
    assert_eq!((store.as_of(0).unwrap().seq(), store.as_of(opened).unwrap().seq()), (0, 0));
    assert_eq!(states(store.as_of(created).unwrap_err()), 0..=0);
    assert_eq!((store.changes(0).unwrap().count(), store.history("a").unwrap().count()), (0, 0));
    clock.advance(Duration::from_secs(1));
    store.set_bytes("a", "1").unwrap();
    store.set_bytes("a", "2").unwrap();
    assert_eq!(states(store.as_of(3).unwrap_err()), 0..=2);
    assert_eq!(states(store.as_of(u64::MAX).unwrap_err()), 0..=2);
    assert_eq!(states(store.changes(3).unwrap_err()), 0..=2);
    assert_eq!(states(store.watch_from("", 3).unwrap_err()), 0..=2);
    assert_eq!((store.as_of(2).unwrap().seq(), store.changes(2).unwrap().count()), (2, 0));
    assert_eq!(states(store.as_of(created).unwrap_err()), 0..=2);
    assert_eq!(store.as_of(opened).unwrap().len(), 0, "before its first commit");

    // Iterators from before the close go on; later questions are refused.
    let (changes, revisions) = (store.changes(0).unwrap(), store.history("a").unwrap());
    store.close().unwrap();
    assert!(store.history("a").unwrap_err().is_closed());
    assert!(store.changes(0).unwrap_err().is_closed() && store.as_of(0).unwrap_err().is_closed());
    assert!(store.watch_from("", 0).unwrap_err().is_closed());
    assert_eq!((changes.count(), revisions.count()), (2, 2));
}

#[test]
fn a_converted_ledger_begins_with_the_state_at_the_conversion() {
    let vfs = Vfs::mem(seed());
    let store = open(&vfs, Form::Wal);
    for key in ["a", "b", "gone", "c"] {
        store.set_bytes(key, "1").unwrap();
    }
    store.remove("gone").unwrap();
    store.close().unwrap();
    drop(store);
    codex_core::Conversion::new().form(Form::Ledger).convert_in(&vfs, "a.db").unwrap();
    let store = ledger().open_in(&vfs, "a.db").unwrap();
    store.set_bytes("a", "2").unwrap();
    let states = |error| match storage(error) {
        StorageError::NotInHistory { states, .. } => states,
        error => panic!("{error}"),
    };
    assert_eq!(revisions(&store, "a"), ["6=1", "7=2"]);
    assert_eq!(revisions(&store, "gone"), [""; 0]);
    for seq in 0..6 {
        assert_eq!(states(store.as_of(seq).unwrap_err()), 6..=7, "{seq}");
    }
    assert_eq!(states(store.as_of(UNIX_EPOCH).unwrap_err()), 6..=7);
    assert_eq!((store.as_of(6).unwrap().len(), store.as_of(7).unwrap().seq()), (3, 7));
    // Changes of the state at the conversion fit an empty state only.
    assert_eq!(store.changes(0).unwrap().map(|c| c.unwrap().changes().len()).sum::<usize>(), 4);
    assert_eq!(states(store.changes(1).unwrap_err()), 6..=7);
    assert_eq!(states(store.changes(5).unwrap_err()), 6..=7);
    assert_eq!(store.changes(6).unwrap().count(), 1);
}

#[test]
fn a_time_stands_for_the_last_commit_at_or_before_it() {
    let (vfs, clock) = world();
    let store = ledger().open_in(&vfs, "a.db").unwrap();
    let start = clock.now_us();
    let commit = |us: i64| {
        clock.set_now_us(start + us);
        store.set_bytes("a", us.to_string()).unwrap();
    };
    // Two at the same time, then one by a clock that went back.
    [10, 20, 20, 15, 30].into_iter().for_each(commit);
    let seq = |us: i64| store.as_of(at(start + us)).unwrap().seq();
    assert_eq!([0, 9, 10, 19, 20, 29, 30, 31, 1_000_000].map(seq), [0, 0, 1, 1, 4, 4, 5, 5, 5]);
    let times: Vec<_> =
        store.history("a").unwrap().map(|revision| revision.unwrap().time()).collect();
    assert_eq!(times, [10, 20, 20, 20, 30].map(|us| at(start + us)));
    let exact = |us: i64| store.as_of(RestorePoint::TimeUs(start + us)).unwrap().seq();
    assert_eq!([19, 20].map(exact), [1, 4]);
}

#[test]
fn the_past_hides_what_had_expired_by_then_and_shows_the_sweep_as_a_removal() {
    let (vfs, clock) = world();
    let store = ledger().open_in(&vfs, "a.db").unwrap();
    let start = clock.now_us();
    store.set_bytes_with_expiry("a", "short", at(start + 10)).unwrap();
    clock.set_now_us(start + 9);
    store.set_bytes("b", "1").unwrap();
    clock.set_now_us(start + 10);
    store.set_bytes("b", "2").unwrap();
    clock.set_now_us(start + 20);
    sweep(&store).unwrap();
    let shown = |snapshot: codex_core::Snapshot| snapshot.contains_key("a");
    assert_eq!(
        [1, 2, 3, 4].map(|seq| shown(store.as_of(seq).unwrap())),
        [true, true, false, false]
    );
    // By a time, which may be later than the commit.
    let of = |us: i64| shown(store.as_of(at(start + us)).unwrap());
    assert_eq!([0, 8, 9, 10, 20].map(of), [true, true, true, false, false]);
    let found: Vec<_> = store.history("a").unwrap().map(Result::unwrap).collect();
    assert_eq!(found.iter().map(self::shown).collect::<Vec<_>>(), ["1=short", "4-"]);
    assert_eq!(found[0].entry().unwrap().expires_at(), Some(at(start + 10)));
    assert_eq!(found[1].time(), at(start + 20));
}

#[test]
fn a_clear_removes_each_key_that_was_there_wherever_it_was_set() {
    let vfs = Vfs::mem(seed());
    let store = ledger().open_in(&vfs, "a.db").unwrap();
    store.set_bytes("a", "1").unwrap();
    let rows = store.table::<String, u64>("rows").unwrap();
    rows.set("a", &1).unwrap();
    // Several regions without the key, then a clear in one of them.
    for n in 0..100 {
        store.set_bytes("b", n.to_string()).unwrap();
    }
    store.clear().unwrap();
    store.set_bytes("b", "later").unwrap();
    rows.clear().unwrap();
    for n in 0..100 {
        store.set_bytes("b", n.to_string()).unwrap();
    }
    // Nothing is there to be removed.
    store.clear().unwrap();
    for region_len in [1 << 10, 512 << 10] {
        index_ledger(&store, region_len, 1 << 20).unwrap();
        assert_eq!(revisions(&store, "a"), ["1=1", "104-"]);
        assert_eq!(revisions(&store, "never"), [""; 0]);
        let of_rows = rows.history("a").unwrap().map(|revision| {
            let revision = revision.unwrap();
            (revision.seq(), revision.value::<u64>().unwrap())
        });
        assert_eq!(of_rows.collect::<Vec<_>>(), [(3, Some(1)), (106, None)]);
        assert_eq!(revisions(&store, "b").len(), 203);
    }
}

#[test]
fn a_table_has_its_own_past() {
    let vfs = Vfs::mem(seed());
    let store = ledger().open_in(&vfs, "a.db").unwrap();
    let rows = store.table::<String, u64>("rows").unwrap();
    let other = store.table::<String, u64>("other").unwrap();
    let before = store.snapshot().seq();
    rows.set("k", &1).unwrap();
    other.set("k", &2).unwrap();
    store.set("k", &3_u64).unwrap();
    rows.remove("k").unwrap();
    let values = |table: &Table<String, u64>| -> Vec<_> {
        table.history("k").unwrap().map(|r| r.unwrap().value::<u64>().unwrap()).collect()
    };
    assert_eq!((values(&rows), values(&other)), (vec![Some(1), None], vec![Some(2)]));
    assert_eq!(revisions(&store, "k").len(), 1);
    let lens = |changes: codex_core::Changes| -> Vec<_> {
        changes.map(|commit| commit.unwrap().changes().len()).collect()
    };
    assert_eq!(lens(rows.changes(before).unwrap()), [1, 0, 0, 1]);
    assert_eq!(lens(store.changes(before).unwrap()), [0, 0, 1, 0]);
    let past = store.as_of(before + 1).unwrap();
    assert_eq!(past.table(&rows).unwrap().get("k").unwrap(), Some(1));
    assert_eq!(past.table(&other).unwrap().get("k").unwrap(), None);
    // An earlier state has the earlier table of the name.
    store.drop_table("rows").unwrap();
    assert!(matches!(rows.history("k"), Err(codex_core::Error::NoTable { .. })));
    let again = store.table::<String, u64>("rows").unwrap();
    assert_eq!((values(&again).len(), again.changes(0).unwrap().count()), (0, 8));
    assert_eq!(past.table(&again).unwrap().get("k").unwrap(), Some(1));
}

#[test]
fn an_earlier_state_shares_the_entries_that_are_the_same_now() {
    let vfs = Vfs::mem(seed());
    let store = ledger().open_in(&vfs, "a.db").unwrap();
    // So many that threads replay them.
    let keys = (0..20_000).map(|n| format!("{n}"));
    let set = |keys: &mut dyn Iterator<Item = String>, value: &str| {
        let mut batch = store.batch();
        keys.for_each(|key| _ = batch.set_bytes(key, value).unwrap());
        batch.commit().unwrap();
    };
    set(&mut keys.clone(), "0");
    set(&mut keys.clone(), "1");
    set(&mut keys.clone().step_by(2), "2");
    let past = store.as_of(2).unwrap();
    assert!(past.keys().eq(store.keys()));
    for (at, key) in keys.enumerate() {
        let (then, now) = (past.get_bytes(&key).unwrap(), store.get_bytes(&key).unwrap());
        assert_eq!(then, "1", "{key}");
        assert_eq!(std::ptr::eq(then.as_ptr(), now.as_ptr()), at % 2 == 1, "{key}");
    }
}

#[test]
fn a_reader_and_a_backup_have_the_past_too() {
    let vfs = Vfs::mem(seed());
    let store = ledger().open_in(&vfs, "a.db").unwrap();
    store.set_bytes("a", "1").unwrap();
    store.set_bytes("a", "2").unwrap();
    store.back_up().unwrap();
    store.set_bytes("a", "3").unwrap();
    store.close().unwrap();
    drop(store);
    for (name, count) in [("a.db", 3), ("a.db.bak.1", 2)] {
        let store = ledger().read_only(true).open_in(&vfs, name).unwrap();
        assert_eq!(revisions(&store, "a").len(), count);
        assert_eq!(store.as_of(1).unwrap().get_bytes("a").unwrap(), "1");
        assert_eq!(store.changes(0).unwrap().count(), count);
        assert!(store.watch_from("", 0).unwrap_err().is_read_only());
    }
}

#[test]
fn four_writers_and_a_rekey_leave_the_past_whole() {
    const STEPS: u32 = 60;
    for &is_sealed in SEALED {
        let vfs = Vfs::mem(seed());
        let store = sealed(&ledger(), is_sealed).open_in(&vfs, "a.db").unwrap();
        index_ledger(&store, 1 << 10, 1 << 20).unwrap();
        let writers = ["0", "1", "2", "3"];
        let look = || {
            let last = store.snapshot().seq();
            let mut changes = store.changes(0).unwrap().map(|commit| commit.unwrap().seq());
            assert!((1..=last).all(|seq| changes.next() == Some(seq)), "up to {last}");
            for key in writers {
                let values = store.history(key).unwrap();
                let values = values.map(|revision| revision.unwrap().value::<u32>().unwrap());
                assert!(values.enumerate().all(|(n, value)| value == u32::try_from(n).ok()));
            }
            assert_eq!(store.as_of(last / 2).unwrap().seq(), last / 2);
        };
        thread::scope(|scope| {
            for key in writers {
                let store = &store;
                scope.spawn(move || (0..STEPS).for_each(|n| store.set(key, &n).unwrap()));
            }
            while store.snapshot().seq() < 4 * u64::from(STEPS) {
                rekey(&store, is_sealed);
                look();
            }
        });
        look();
        let rows: Vec<_> = writers.iter().map(|key| store.history(key).unwrap().count()).collect();
        assert_eq!(rows, [STEPS as usize; 4]);
    }
}

#[test]
fn a_torn_tail_is_no_part_of_the_past() {
    let vfs = Vfs::mem(seed());
    let store = ledger().open_in(&vfs, "a.db").unwrap();
    store.set_bytes("a", "1").unwrap();
    store.set_bytes("a", "lost").unwrap();
    let mut killed = files(&vfs);
    drop(store);
    // The last frame keeps its first half.
    let bytes = killed.get_mut("a.db").unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end - 16..].fill(0);
    let vfs = crate::common::disk(&killed);
    let store = ledger().open_in(&vfs, "a.db").unwrap();
    assert!(store.recovered().cut.is_some());
    store.set_bytes("a", "2").unwrap();
    store.set_bytes("b", "3").unwrap();
    for region_len in [1, 512 << 10] {
        index_ledger(&store, region_len, 1 << 20).unwrap();
        assert_eq!(revisions(&store, "a"), ["1=1", "2=2"]);
        assert_eq!(store.changes(1).unwrap().count(), 2);
        assert_eq!(store.as_of(2).unwrap().get_bytes("a").unwrap(), "2");
    }
}

#[test]
fn damage_in_one_region_leaves_the_others_readable() {
    let vfs = Vfs::mem(seed());
    let store = ledger().open_in(&vfs, "a.db").unwrap();
    for n in 0..100 {
        store.set_bytes(if n < 50 { "a" } else { "b" }, n.to_string()).unwrap();
    }
    index_ledger(&store, 1 << 10, 1 << 20).unwrap();
    // Within the region of the first commits.
    let file = vfs.dir.open("a.db", codex_core::vfs::Open::Write).unwrap();
    file.write_all_at(&[0xFF], 4096 + 700).unwrap();
    let damaged = |error| matches!(storage(error), StorageError::Damaged { .. });
    let found: Vec<_> = store.history("a").unwrap().collect();
    let (last, before) = found.split_last().unwrap();
    assert!(damaged(last.clone().unwrap_err()), "{last:?}");
    assert!(before.iter().all(Result::is_ok) && found.len() < 51);
    assert_eq!(revisions(&store, "b").len(), 50);
    assert_eq!(store.changes(60).unwrap().map(Result::unwrap).count(), 40);
    assert!(damaged(store.changes(0).unwrap().last().unwrap().unwrap_err()));
    assert!(damaged(store.as_of(100).unwrap_err()));
    // A watch says which commits it cannot return.
    let mut watch = store.watch_from("a", 0).unwrap();
    let lagged = std::iter::from_fn(|| watch.try_next()).last();
    assert!(matches!(lagged, Some(Notice::Lagged { first: 2..50, last: 100 })), "{lagged:?}");
}

#[test]
fn a_file_that_was_cut_by_another_program_is_an_error() {
    let vfs = Vfs::mem(seed());
    let store = ledger().open_in(&vfs, "a.db").unwrap();
    for n in 0..50 {
        store.set_bytes("a", n.to_string()).unwrap();
    }
    let bytes = &files(&vfs)["a.db"];
    let end = u64::try_from(bytes.iter().rposition(|byte| *byte != 0).unwrap()).unwrap();
    let file = vfs.dir.open("a.db", codex_core::vfs::Open::Write).unwrap();
    file.set_len((end / 2).next_multiple_of(4096)).unwrap();
    let refused = |error| {
        let error = storage(error);
        assert!(
            matches!(error, StorageError::Damaged { .. } | StorageError::TailSuspect { .. }),
            "{error}"
        );
    };
    refused(store.as_of(50).unwrap_err());
    refused(store.history("a").unwrap_err());
    refused(store.changes(0).unwrap().last().unwrap().unwrap_err());
}

#[test]
fn a_commit_in_doubt_is_no_part_of_the_past() {
    let disk = FaultDir::new();
    let vfs = disk.vfs(seed());
    let store = ledger().open_in(&vfs, "a.db").unwrap();
    store.set_bytes("a", "1").unwrap();
    let syncs = Calls::of(CallKind::Sync);
    disk.fail_on(syncs, 1, Fault::Eio, Lasting::Once, Side::Before);
    assert!(store.set_bytes("a", "lost").unwrap_err().is_in_doubt());
    // The frame is in the file, and no reader of the store sees it.
    let written = disk.peek("a.db").unwrap();
    assert!(written.windows(4).any(|bytes| bytes == b"lost"));
    assert_eq!(revisions(&store, "a"), ["1=1"]);
    assert_eq!(store.changes(0).unwrap().count(), 1);
    assert_eq!(store.as_of(SystemTime::now()).unwrap().seq(), 1);
    assert!(store.as_of(2).is_err());
}

/// Counts the bytes that are read of the main file.
fn counted(world: &Vfs) -> (Vfs, Arc<AtomicU64>) {
    let read = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&read);
    let vfs = Observed::vfs(world, move |call| {
        if call.kind == CallKind::Read && &*call.name == "a.db" {
            counter.fetch_add(call.len, Ordering::Relaxed);
        }
    });
    (vfs, read)
}

#[test]
fn a_later_question_reads_only_what_may_have_changed_the_key() {
    let (vfs, read) = counted(&Vfs::mem(seed()));
    let store = ledger().open_in(&vfs, "a.db").unwrap();
    for n in 0..64 {
        store.set_bytes(n.to_string(), vec![7; 64 << 10]).unwrap();
    }
    let file_len = store.stats().storage.log_bytes;
    let reading = |question: &dyn Fn() -> usize, wanted: usize| {
        read.store(0, Ordering::Relaxed);
        assert_eq!(question(), wanted);
        read.load(Ordering::Relaxed)
    };
    let history = |key: &'static str| move |store: &Store| store.history(key).unwrap().count();
    let first = reading(&|| history("9")(&store), 1);
    assert!(first >= file_len, "the first one reads the file, {first} bytes");
    // A region is about 512 KiB, and the reader reads 256 KiB ahead.
    let later = reading(&|| history("40")(&store), 1);
    assert!((1 << 16..2 << 20).contains(&later), "{later} bytes for a key");
    let none = reading(&|| history("none")(&store), 0);
    assert!(none < 64 << 10, "{none} bytes for a key that was never set");
    let last = reading(&|| store.changes(63).unwrap().count(), 1);
    assert!(last < 2 << 20, "{last} bytes for the last commit");
    // Only the new commits are read for the index.
    store.set_bytes("40", vec![8; 64 << 10]).unwrap();
    let grown = reading(&|| history("none")(&store), 0);
    assert!(grown < 1 << 20, "{grown} bytes after one more commit");
    assert_eq!(store.history("40").unwrap().count(), 2);
    // An index without checksums for the oldest regions reads those for each key.
    index_ledger(&store, 512 << 10, 0).unwrap();
    let all = reading(&|| history("none")(&store), 0);
    assert!(all >= file_len, "{all} bytes of {file_len}");
}

#[cfg(all(feature = "crypto", feature = "fault"))]
#[test]
fn a_hundred_questions_derive_no_passphrase_again() {
    use crate::audit::{Audited, Book};
    use codex_storage::sync::Mutex;
    let vfs = Vfs::mem(seed());
    let book = Arc::new(Mutex::new(Book::default()));
    let keys = || Audited::keys(1, &vfs.entropy, &book);
    for _ in 0..2 {
        let store = codex_core::internals::open(&ledger(), &vfs, "a.db", keys()).unwrap();
        store.set_bytes("a", "1").unwrap();
        let before = book.lock().unlocks;
        for _ in 0..100 {
            assert!(store.history("a").unwrap().all(|revision| revision.is_ok()));
            assert_eq!(store.as_of(1).unwrap().seq(), 1);
        }
        assert_eq!(book.lock().unlocks, before, "the open store has the root key");
        // After another key, too.
        codex_core::internals::change_key(&store, &*keys()).unwrap();
        store.set_bytes("a", "2").unwrap();
        assert!(store.history("a").unwrap().count() >= 2);
        store.close().unwrap();
    }
}

#[cfg(feature = "crypto")]
#[test]
fn the_index_is_made_again_after_a_rekey_and_kept_after_a_change_of_the_key() {
    use codex_core::crypto::Key;
    let (vfs, read) = counted(&Vfs::mem(seed()));
    let key = |n| Key::raw(&[n; 32]).unwrap();
    let store = ledger().key(key(1)).open_in(&vfs, "a.db").unwrap();
    for n in 0..32 {
        store.set_bytes(if n % 8 == 0 { "a" } else { "b" }, vec![n; 8 << 10]).unwrap();
    }
    let file_len = store.stats().storage.log_bytes;
    let question = || {
        read.store(0, Ordering::Relaxed);
        assert_eq!(store.history("none").unwrap().count(), 0);
        let bytes = read.load(Ordering::Relaxed);
        assert_eq!(store.history("a").unwrap().map(Result::unwrap).count(), 4);
        bytes
    };
    assert!(question() >= file_len && question() < 64 << 10);
    store.change_key(key(2)).unwrap();
    assert!(question() < 64 << 10, "the frames are the same");
    // An iterator from before the rekey goes on in the file that it reads.
    let before = store.history("a").unwrap();
    store.rekey(key(3)).unwrap();
    assert!(question() >= file_len, "the frames are others");
    assert!(question() < 64 << 10);
    assert_eq!(before.map(Result::unwrap).count(), 4);
}
