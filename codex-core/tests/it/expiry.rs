//! Entries that expire: what each read and each condition takes for absent, from which microsecond
//! on, and that every path that copies entries keeps their expiries.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use codex_core::internals::{Change, Commit, Entry, now_us, submit, sweep, view, without_threads};
use codex_core::vfs::{Clock as _, SimClock, Vfs};
use codex_core::{Backups, Conversion, Form, OpenOptions, Prefix, Readable, RestorePoint, Store};
use codex_storage::batch::{Item, TableId};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use crate::common::{FORMS, SEALED, disk, files, sealed, seed};

/// A directory in memory, with a clock that the test sets.
fn world() -> (Vfs, SimClock) {
    let clock = SimClock::new();
    (Vfs { clock: Arc::new(clock.clone()), ..Vfs::mem(seed()) }, clock)
}

fn options(form: Form) -> OpenOptions {
    without_threads(crate::common::options(form))
}

fn open(vfs: &Vfs) -> Store {
    options(Form::Wal).open_in(vfs, "a.db").unwrap()
}

fn at(time_us: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(u64::try_from(time_us).unwrap())
}

/// Checks each method for reading: `a` is there without an expiry, and `b` is there or not.
fn check_reads(source: &impl Readable, is_shown: bool, expires: SystemTime) {
    let both: &[&str] = if is_shown { &["a", "b"] } else { &["a"] };
    assert_eq!(source.get::<u64>("b").unwrap(), is_shown.then_some(2));
    assert_eq!(source.get_bytes("b").is_some(), is_shown);
    assert_eq!(source.contains_key("b"), is_shown);
    assert_eq!(source.expires_at("b"), is_shown.then_some(expires));
    assert_eq!((source.expires_at("a"), source.expires_at("absent")), (None, None));
    assert_eq!((source.len(), source.is_empty()), (both.len(), false));
    assert_eq!(source.keys().collect::<Vec<_>>(), both);
    assert_eq!(source.keys().rev().count(), both.len());
    let times: Vec<_> = source.iter().map(|entry| entry.expires_at()).collect();
    assert_eq!(times, [None, Some(expires)][..both.len()]);
    assert_eq!(source.values::<u64>().count(), both.len());
    assert_eq!(source.range("b"..).count(), usize::from(is_shown));
    assert_eq!(source.prefix("b").count(), usize::from(is_shown));
    assert_eq!(source.first("b"..).is_some(), is_shown);
    assert_eq!(source.last(..).unwrap().key(), both.last().unwrap().as_bytes());
}

#[test]
fn an_entry_is_hidden_from_its_microsecond_on_in_every_read() {
    let (vfs, clock) = world();
    let store = open(&vfs);
    let expires_us = clock.now_us() + 10;
    let expires = at(expires_us);
    store.set("a", &1_u64).unwrap();
    store.set_with_expiry("b", &2_u64, expires + Duration::from_nanos(999)).unwrap();
    for (now_us, is_shown) in [(expires_us - 1, true), (expires_us, false)] {
        clock.set_now_us(now_us);
        check_reads(&store, is_shown, expires);
        check_reads(&store.snapshot(), is_shown, expires);
        store
            .transaction(|tx| {
                check_reads(tx, is_shown, expires);
                Ok(())
            })
            .unwrap();
    }
    let stats = store.stats();
    assert_eq!((stats.expiring, stats.swept, stats.commits), (1, 0, 2), "reads remove nothing");
}

#[test]
fn a_snapshot_and_an_iterator_do_not_change_when_an_entry_expires() {
    let (vfs, clock) = world();
    let store = open(&vfs);
    let expires = at(clock.now_us() + 10);
    store.set("a", &1_u64).unwrap();
    store.set_with_expiry("b", &2_u64, expires).unwrap();
    let (before, iter) = (store.snapshot(), store.iter());
    clock.advance(Duration::from_secs(1));
    check_reads(&store, false, expires);
    assert!(!sweep(&store).unwrap());
    assert_eq!((store.stats().swept, store.stats().expiring), (1, 0));
    check_reads(&before, true, expires);
    assert_eq!(iter.count(), 2);
}

#[test]
fn a_time_that_has_passed_is_a_write_that_nobody_sees() {
    let (vfs, clock) = world();
    let store = open(&vfs);
    let past = at(clock.now_us());
    store.set("k", &1_u64).unwrap();
    store.set_bytes_with_expiry("k", "x", past).unwrap();
    assert!(!store.contains_key("k") && store.is_empty());
    store
        .batch()
        .set("b", &1_u64)
        .unwrap()
        .set_with_expiry("b", &2, past)
        .unwrap()
        .commit()
        .unwrap();
    store
        .transaction(|tx| {
            tx.set_with_expiry("c", &1_u64, past)?;
            assert!(!tx.contains_key("c") && tx.is_empty() && tx.iter().next().is_none());
            assert!(!tx.remove("c")?);
            tx.set_bytes_with_expiry("d", "x", UNIX_EPOCH - Duration::from_secs(1))
        })
        .unwrap();
    assert!(store.is_empty());
    assert!(!sweep(&store).unwrap());
    assert_eq!((store.stats().expiring, store.stats().swept), (0, 4));
}

#[test]
fn a_clear_of_nothing_but_expired_entries_is_a_commit_after_which_no_clock_shows_them() {
    let (vfs, clock) = world();
    let store = open(&vfs);
    let start_us = clock.now_us();
    store.set_with_expiry("k", &1, at(start_us + 1)).unwrap();
    clock.advance(Duration::from_micros(1));
    assert!(store.is_empty());
    store.clear().unwrap();
    assert_eq!((store.snapshot().seq(), store.stats().expiring), (2, 0));
    store.clear().unwrap();
    assert_eq!(store.snapshot().seq(), 2, "there is nothing left to clear");
    // The clock goes back by so much that it is believed.
    clock.set_now_us(start_us - 2 * 3600 * 1_000_000);
    assert!(!store.contains_key("k"));
    store.close().unwrap();
    assert!(!open(&vfs).contains_key("k"));
}

/// Each condition and each count takes the entry for absent, with and without the sweep in between.
#[test]
fn an_expired_entry_is_absent_to_every_condition_and_count() {
    let (vfs, clock) = world();
    let store = open(&vfs);
    let expire = |key: &str| {
        store.set_with_expiry(key, &1_u64, at(clock.now_us() + 1)).unwrap();
        clock.advance(Duration::from_micros(1));
    };
    expire("k");
    let commits = store.stats().commits;
    assert!(!store.remove("k").unwrap());
    assert_eq!(store.remove_prefix("k").unwrap(), 0);
    assert!(store.pop_first(..).unwrap().is_none() && store.pop_last(..).unwrap().is_none());
    assert_eq!(store.take::<u64>("k").unwrap(), None);
    assert!(!store.compare_exchange("k", Some(&1_u64), Some(&2)).unwrap());
    assert!(!store.compare_exchange("k", Some(&1_u64), None).unwrap());
    assert!(!store.expire_at("k", at(clock.now_us() + 9)).unwrap());
    assert!(!store.remove_expiry("k").unwrap());
    assert_eq!(store.stats().commits, commits, "nothing to write");
    assert!(store.compare_exchange("k", None, Some(&2_u64)).unwrap(), "create if absent");
    assert_eq!((store.get("k").unwrap(), store.expires_at("k")), (Some(2_u64), None));

    expire("k");
    assert_eq!(store.replace("k", &3_u64).unwrap(), None);
    expire("k");
    assert_eq!(store.get_or_insert_with("k", || 4_u64).unwrap(), 4);
    expire("k");
    assert_eq!(store.update("k", |seen: Option<u64>| seen.or(Some(5))).unwrap(), Some(5));
    assert_eq!(store.expires_at("k"), None, "an expiry that has passed is not kept");
    // In one group, the earlier members count.
    expire("k");
    let mut batch = store.batch();
    batch.remove("k").unwrap().set("n", &1).unwrap().remove_prefix("").unwrap();
    batch.commit().unwrap();
    assert_eq!((store.len(), store.stats().expiring), (0, 1), "only the sweep removes it");
    store.clear().unwrap();
    assert_eq!(store.stats().expiring, 0, "or a clear");
}

#[test]
fn an_update_keeps_the_expiry_and_a_whole_write_has_its_own() {
    let (vfs, clock) = world();
    let store = open(&vfs);
    let (soon, later) = (at(clock.now_us() + 5), at(clock.now_us() + 9));
    let set = || store.set_with_expiry("k", &1_u64, soon).unwrap();
    set();
    store.update("k", |n: Option<u64>| n.map(|n| n + 1)).unwrap();
    assert_eq!((store.get("k").unwrap(), store.expires_at("k")), (Some(2_u64), Some(soon)));
    assert!(store.expire_at("k", later).unwrap());
    assert_eq!((store.get("k").unwrap(), store.expires_at("k")), (Some(2_u64), Some(later)));
    assert!(store.remove_expiry("k").unwrap() && store.remove_expiry("k").unwrap());
    assert_eq!(store.expires_at("k"), None);
    let writes: [&dyn Fn(); 5] = [
        &|| store.set("k", &3_u64).unwrap(),
        &|| store.set_bytes("k", "x").unwrap(),
        &|| _ = store.replace("k", &3_u64).unwrap(),
        &|| assert!(store.compare_exchange("k", Some(&1_u64), Some(&3)).unwrap()),
        &|| store.transaction(|tx| tx.set("k", &3_u64)).unwrap(),
    ];
    for write in writes {
        set();
        write();
        assert_eq!(store.expires_at("k"), None);
    }
    clock.advance(Duration::from_secs(1));
    assert!(store.contains_key("k") && !sweep(&store).unwrap());
}

#[test]
fn a_clock_that_goes_back_shows_nothing_again_unless_it_goes_back_by_more_than_an_hour() {
    let (vfs, clock) = world();
    let store = open(&vfs);
    let start_us = clock.now_us();
    let hour_us = 3_600_000_000;
    store.set_with_expiry("short", &1, at(start_us + 10)).unwrap();
    store.set_with_expiry("long", &1, at(start_us + 3 * hour_us)).unwrap();
    clock.set_now_us(start_us + 10);
    assert!(!store.contains_key("short"));
    clock.set_now_us(start_us - hour_us / 6);
    assert!(!store.contains_key("short") && store.len() == 1, "held");
    assert!(store.compare_exchange("short", None, Some(&2)).unwrap());
    // A wrong time years ahead hides everything, and removes nothing that is not due once it is
    // right again.
    store.set_with_expiry("short", &1, at(start_us + 20)).unwrap();
    clock.set_now_us(start_us + 100_000 * hour_us);
    assert!(store.is_empty());
    clock.set_now_us(start_us);
    assert_eq!((store.len(), store.stats().clock_steps_back), (2, 1));
    assert!(!sweep(&store).unwrap());
    assert_eq!((store.len(), store.stats().swept), (2, 0));
}

#[test]
fn a_store_that_is_opened_again_begins_with_the_newest_time_of_its_files() {
    for form in FORMS {
        let (vfs, clock) = world();
        let store = options(form).open_in(&vfs, "a.db").unwrap();
        let start_us = clock.now_us();
        store.set_with_expiry("k", &1, at(start_us + 10)).unwrap();
        clock.set_now_us(start_us + 1_000);
        store.set("n", &1).unwrap();
        store.close().unwrap();
        clock.set_now_us(start_us - 1_000);
        let store = options(form).open_in(&vfs, "a.db").unwrap();
        assert!(!store.contains_key("k"), "{form}");
        assert_eq!(now_us(&store), start_us + 1_000, "{form}");
        assert_eq!(store.stats().expiring, 1, "{form}");
    }
}

#[test]
fn a_transaction_that_read_an_entry_runs_again_if_it_expires_before_the_commit() {
    let (vfs, clock) = world();
    let store = open(&vfs);
    let reads: [fn(&codex_core::Transaction) -> bool; 4] = [
        |tx| tx.contains_key("k"),
        |tx| tx.expires_at("k").is_some(),
        |tx| tx.prefix("k").next().is_some(),
        |tx| tx.len() == 2,
    ];
    for read in reads {
        for sweeps in [false, true] {
            store.set("other", &0_u64).unwrap();
            store.set_with_expiry("k", &1_u64, at(clock.now_us() + 10)).unwrap();
            let mut seen = Vec::new();
            store
                .transaction(|tx| {
                    seen.push(read(tx));
                    clock.advance(Duration::from_micros(10));
                    if sweeps {
                        sweep(&store)?;
                    }
                    tx.set("other", &1_u64)
                })
                .unwrap();
            assert_eq!(seen, [true, false]);
            sweep(&store).unwrap();
        }
    }
    // The sweep changes nothing that a transaction has read.
    store.set_with_expiry("k", &1_u64, at(clock.now_us())).unwrap();
    let mut runs = 0;
    store
        .transaction(|tx| {
            runs += 1;
            assert!(!tx.contains_key("k") && tx.len() == 1 && tx.prefix("k").next().is_none());
            sweep(&store)?;
            tx.set("other", &2_u64)
        })
        .unwrap();
    assert_eq!((runs, store.stats().expiring), (1, 0));
}

#[test]
fn a_transaction_reads_one_state_although_it_writes_an_entry_that_expires() {
    let (vfs, clock) = world();
    let store = open(&vfs);
    let expires = at(clock.now_us() + 10);
    store.set_with_expiry("k", &1_u64, expires).unwrap();
    let mut rounds = Vec::new();
    store
        .transaction(|tx| {
            let before = tx.get::<u64>("k")?;
            clock.advance(Duration::from_secs(1));
            tx.set_with_expiry("own", &1_u64, expires + Duration::from_secs(3600))?;
            rounds.push((before, tx.get::<u64>("k")?, tx.len()));
            Ok(())
        })
        .unwrap();
    assert_eq!(rounds, [(Some(1), Some(1), 2), (None, None, 1)]);
}

/// Reopening, a checkpoint, a hot copy, a backup that is restored, a rekey, conversions to each
/// form and back, and a ledger up to a commit.
#[test]
fn a_record_keeps_its_expiry_and_its_table_through_everything() {
    let all = FORMS.into_iter().flat_map(|form| SEALED.iter().map(move |&sealed| (form, sealed)));
    for (form, is_sealed) in all {
        let (vfs, clock) = world();
        let options = |form| sealed(&options(form), is_sealed);
        let expires = at(clock.now_us() + 1_000_000_000);
        let entries = [(1, b'k', None), (1, b'l', Some(i64::MAX)), (u32::MAX, b'k', None)];
        let is_whole = |vfs: &Vfs, form, place: &str| {
            let store = options(form).open_in(vfs, "a.db").unwrap();
            let found = ["k", "n"].map(|key| (store.get(key).unwrap(), store.expires_at(key)));
            let expected = [(Some(1_u64), Some(expires)), (Some(2), None)];
            assert_eq!(found, expected, "{form}, sealed {is_sealed}: {place}");
            assert_eq!(tabled(&store), entries, "{form}: {place}");
            assert_eq!(store.stats().expiring, 2, "{form}: {place}");
            store
        };
        let store = options(form).open_in(&vfs, "a.db").unwrap();
        store.set_with_expiry("k", &1_u64, expires).unwrap();
        store.set_with_expiry("n", &1_u64, expires).unwrap();
        store.set("n", &2_u64).unwrap();
        let changes = entries.iter().map(|&(id, key, expires_us)| {
            let (table, key) = (TableId::new(id), &[key]);
            Change::Put(Entry::from_item(Item { table, key, value: b"v", expires_us }))
        });
        let changes = changes.collect::<Vec<_>>().into();
        submit(&store, Commit { changes, ..Commit::default() }).unwrap();
        is_whole(&disk(&files(&vfs)), form, "a killed process");
        drop(store);
        let store = is_whole(&vfs, form, "reopened");
        store.checkpoint().unwrap();
        store.back_up().unwrap();
        let (other, _) = world();
        store.backup_to_in(&other, "a.db", &mut |_| ControlFlow::Continue(())).unwrap();
        is_whole(&other, form, "a hot copy");
        store.clear().unwrap();
        store.close().unwrap();
        restore(&vfs, is_sealed, None);
        let store = is_whole(&vfs, form, "a restored backup");
        rekey(&store, is_sealed);
        drop(store);
        let store = is_whole(&vfs, form, "a rekey");
        store.close().unwrap();
        for form in [Form::Ledger, Form::Wal, Form::Ledger, Form::Snapshot, form] {
            convert(&vfs, form, is_sealed);
            let store = is_whole(&vfs, form, "a conversion");
            let seq = store.snapshot().seq();
            if form == Form::Ledger {
                store.clear().unwrap();
                store.close().unwrap();
                restore(&vfs, is_sealed, Some(RestorePoint::Seq(seq)));
                is_whole(&vfs, form, "up to a commit");
            }
        }
    }
}

/// Returns the entries of tables: table, key and expiry.
fn tabled(store: &Store) -> Vec<(u32, u8, Option<i64>)> {
    let ordered = view(store).ordered;
    let entries = ordered.iter_with_tables();
    let item = |entry: &Entry| Some((entry.table()?.get(), entry.key()[0], entry.expires_us()));
    entries.filter_map(item).collect()
}

#[cfg(feature = "crypto")]
fn key() -> codex_core::crypto::Key {
    codex_core::crypto::Key::raw(&[7; 32]).unwrap()
}

fn restore(vfs: &Vfs, is_sealed: bool, point: Option<RestorePoint>) {
    let backups = Backups::of_in(vfs, "a.db");
    #[cfg(feature = "crypto")]
    let backups = if is_sealed { backups.key(key()) } else { backups };
    assert!(!is_sealed || cfg!(feature = "crypto"));
    match point {
        None => backups.restore(1).unwrap(),
        Some(point) => backups.restore_until(point).unwrap(),
    };
}

fn rekey(store: &Store, is_sealed: bool) {
    #[cfg(feature = "crypto")]
    if is_sealed {
        store.rekey(key()).unwrap();
    }
    let _ = (store, is_sealed);
}

fn convert(vfs: &Vfs, form: Form, is_sealed: bool) {
    let conversion = Conversion::new().form(form);
    #[cfg(feature = "crypto")]
    let conversion = if is_sealed { conversion.key(key()) } else { conversion };
    let _ = is_sealed;
    conversion.convert_in(vfs, "a.db").unwrap();
}

#[derive(Debug, Clone)]
enum Act {
    Set(u8, Option<u16>),
    Update(u8),
    ExpireAt(u8, u16),
    RemoveExpiry(u8),
    Remove(u8),
    Create(u8),
    RemoveFrom(u8),
    Pop(bool),
    Clear,
    Advance(u16),
    StepBack(u16),
    Sweep,
    Reopen,
    /// Continues with a copy of the files as a killed process leaves them.
    Kill,
}

fn act() -> impl Strategy<Value = Act> {
    let key = || 0..6_u8;
    let us = || 0..40_u16;
    prop_oneof![
        8 => (key(), proptest::option::of(us())).prop_map(|(key, us)| Act::Set(key, us)),
        3 => key().prop_map(Act::Update),
        2 => (key(), us()).prop_map(|(key, us)| Act::ExpireAt(key, us)),
        1 => key().prop_map(Act::RemoveExpiry),
        2 => key().prop_map(Act::Remove),
        2 => key().prop_map(Act::Create),
        1 => key().prop_map(Act::RemoveFrom),
        2 => any::<bool>().prop_map(Act::Pop),
        1 => Just(Act::Clear),
        6 => us().prop_map(Act::Advance),
        1 => us().prop_map(Act::StepBack),
        3 => Just(Act::Sweep),
        1 => Just(Act::Reopen),
        1 => Just(Act::Kill),
    ]
}

/// A store and what it must show: of each key the number of writes, and the expiry.
struct Run {
    vfs: Vfs,
    clock: SimClock,
    store: Store,
    form: Form,
    model: BTreeMap<u8, (u64, Option<i64>)>,
    now_us: i64,
}

impl Run {
    fn act(&mut self, act: &Act) {
        let expires = |us: u16| self.now_us + i64::from(us);
        match *act {
            Act::Set(key, us) => {
                let us = us.map(expires);
                match us {
                    Some(us) => self.store.set_with_expiry([key], &1_u64, at(us)).unwrap(),
                    None => self.store.set([key], &1_u64).unwrap(),
                }
                self.model.insert(key, (1, us));
            }
            Act::Update(key) => {
                let n = self.store.update([key], |n: Option<u64>| Some(n.unwrap_or(0) + 1));
                let (count, _) = self.model.entry(key).or_insert((0, None));
                *count += 1;
                assert_eq!(n.unwrap(), Some(*count));
            }
            Act::ExpireAt(key, us) => {
                let us = expires(us);
                let is_there = self.store.expire_at([key], at(us)).unwrap();
                assert_eq!(is_there, self.model.contains_key(&key));
                self.model.entry(key).and_modify(|(_, expires)| *expires = Some(us));
            }
            Act::RemoveExpiry(key) => {
                let is_there = self.store.remove_expiry([key]).unwrap();
                assert_eq!(is_there, self.model.contains_key(&key));
                self.model.entry(key).and_modify(|(_, expires)| *expires = None);
            }
            Act::Remove(key) => {
                let removed = self.store.remove([key]).unwrap();
                assert_eq!(removed, self.model.remove(&key).is_some());
            }
            Act::Create(key) => {
                let made = self.store.compare_exchange([key], None, Some(&9_u64)).unwrap();
                assert_eq!(made, !self.model.contains_key(&key));
                self.model.entry(key).or_insert((9, None));
            }
            Act::RemoveFrom(key) => {
                let removed = self.store.remove_range([key]..).unwrap();
                assert_eq!(removed, self.model.split_off(&key).len() as u64);
            }
            Act::Pop(first) => {
                let (popped, expected) = if first {
                    (self.store.pop_first(..), self.model.pop_first())
                } else {
                    (self.store.pop_last(..), self.model.pop_last())
                };
                let popped = popped.unwrap().map(|entry| entry.key().to_vec());
                assert_eq!(popped, expected.map(|(key, _)| vec![key]));
            }
            Act::Clear => {
                self.store.clear().unwrap();
                self.model.clear();
            }
            Act::Advance(us) => self.clock.advance(Duration::from_micros(us.into())),
            Act::StepBack(us) => self.clock.set_now_us(self.clock.now_us() - i64::from(us)),
            Act::Sweep => assert!(!sweep(&self.store).unwrap()),
            Act::Reopen => {
                self.store.close().unwrap();
                self.open();
            }
            Act::Kill => {
                let clock = Arc::new(self.clock.clone());
                self.vfs = Vfs { clock, ..disk(&files(&self.vfs)) };
                self.open();
            }
        }
        self.check();
    }

    fn open(&mut self) {
        self.store = options(self.form).open_in(&self.vfs, "a.db").unwrap();
        // What was not removed may be shown again if the clock was set back before the opening.
        self.now_us = self.store.recovered().newest_us;
        let left = self.store.iter().map(|entry| {
            let expires_us = entry.expires_at().map(|time| {
                i64::try_from(time.duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
            });
            (entry.key()[0], (entry.value().unwrap(), expires_us))
        });
        let left: BTreeMap<_, _> = left.collect();
        let is_known = |(key, value): (&u8, &(u64, Option<i64>))| left.get(key) == Some(value);
        assert!(self.model.iter().all(is_known), "{:?} of {left:?}", self.model);
        self.model = left;
    }

    fn check(&mut self) {
        self.now_us = self.now_us.max(self.clock.now_us());
        assert_eq!(now_us(&self.store), self.now_us);
        let now_us = self.now_us;
        self.model.retain(|_, (_, expires)| expires.is_none_or(|expires| expires > now_us));
        for key in 0..6 {
            let expected = self.model.get(&key);
            assert_eq!(self.store.get([key]).unwrap(), expected.map(|(value, _)| *value));
            let expires = expected.and_then(|(_, expires)| *expires).map(at);
            assert_eq!(self.store.expires_at([key]), expires);
        }
        let keys: Vec<_> = self.store.keys().map(|key| key[0]).collect();
        assert!(keys.iter().eq(self.model.keys()), "{keys:?}");
        assert_eq!(self.store.len(), self.model.len());
        assert!(self.store.stats().expiring >= self.store.iter().filter(expires).count() as u64);
    }
}

fn expires(entry: &codex_core::Entry) -> bool {
    entry.expires_at().is_some()
}

#[test]
fn a_store_with_expiries_behaves_like_a_map_with_times_across_reopening_and_kills() {
    let config = Config {
        cases: crate::common::scaled(60),
        rng_seed: RngSeed::Fixed(seed()),
        failure_persistence: None,
        ..Config::default()
    };
    let form = proptest::sample::select(&FORMS[..]);
    let acts = (form, proptest::collection::vec(act(), 1..80));
    let run = |(form, acts): (Form, Vec<Act>)| {
        let (vfs, clock) = world();
        let store = options(form).open_in(&vfs, "a.db").unwrap();
        let now_us = clock.now_us();
        let mut run = Run { vfs, clock, store, form, model: BTreeMap::new(), now_us };
        for act in &acts {
            run.act(act);
        }
        Ok(())
    };
    let done = TestRunner::new(config).run(&acts, run);
    done.unwrap_or_else(|failed| panic!("CODEX_SEED={}: {failed}", seed()));
}

#[test]
fn prefixes_skip_expired_entries_at_both_ends() {
    let (vfs, clock) = world();
    let store = open(&vfs);
    let mut batch = store.batch();
    for n in 0..2_000_u32 {
        let key = format!("q/{n:04}");
        if n % 500 == 250 {
            batch.set(key, &n).unwrap();
        } else {
            batch.set_with_expiry(key, &n, at(clock.now_us())).unwrap();
        }
    }
    batch.commit().unwrap();
    let left = [250, 750, 1250, 1750];
    let values = |iter: codex_core::Iter| iter.values::<u32>().map(Result::unwrap);
    assert_eq!(values(store.prefix("q/")).collect::<Vec<_>>(), left);
    assert!(values(store.prefix("q/")).rev().eq(left.into_iter().rev()));
    let mut ends = values(store.prefix("q/"));
    assert_eq!(
        [ends.next(), ends.next_back(), ends.next(), ends.next_back()].map(Option::unwrap),
        [250, 1750, 750, 1250]
    );
    assert_eq!((ends.next(), ends.next_back(), store.len()), (None, None, 4));
    assert_eq!(store.pop_last(Prefix("q/")).unwrap().unwrap().key(), b"q/1750");
}
