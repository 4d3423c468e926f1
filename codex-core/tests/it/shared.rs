//! Stores on one shared log, as users see them.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use codex_core::internals::without_threads;
use codex_core::shared::{Client, Limits, Memory, Position, ReadFault, SharedError, WriteFault};
use codex_core::{
    BackupPolicy, Change, Durability, Error, Form, Notice, OpenOptions, Prefix, StorageError,
    Store, TableSpec,
};

const LONG: Duration = Duration::from_secs(60);

/// Returns the options of a store, with a key if these tests are those of encrypted stores.
fn options() -> OpenOptions {
    #[cfg(feature = "crypto")]
    if module_path!().ends_with("shared_sealed") {
        return Store::options().key(codex_core::crypto::Key::raw(&[7; 32]).unwrap());
    }
    Store::options()
}

fn on(log: &Client) -> Store {
    options().write_timeout(LONG).shared(log.clone()).unwrap()
}

/// A store that sees what other nodes write only when it writes itself or waits for it.
fn blind(log: &Client) -> Store {
    without_threads(options()).shared(log.clone()).unwrap()
}

fn nodes(log: &Memory, count: usize) -> Vec<Store> {
    (0..count).map(|_| on(&log.client())).collect()
}

fn shared(error: Error) -> SharedError {
    match error {
        Error::Storage(StorageError::Shared(error)) => error,
        error => panic!("{error}"),
    }
}

/// All nodes show the same state, and each has it from the same history.
fn agree(stores: &[Store]) {
    let all = |store: &Store| {
        store.read_latest(LONG).unwrap();
        let entries: Vec<_> =
            store.iter().map(|entry| (entry.key().to_vec(), entry.bytes().to_vec())).collect();
        (store.anchor().unwrap(), entries)
    };
    let first = all(&stores[0]);
    for store in &stores[1..] {
        assert_eq!(all(store), first);
    }
}

#[test]
fn what_one_node_acknowledged_another_reads_when_it_asks() {
    let log = Memory::new();
    let (one, other) = (on(&log.client()), on(&log.client()));
    let mut batch = one.batch();
    batch.set("a", &1).unwrap().set("b", &2).unwrap();
    let seq = batch.commit().unwrap();
    assert_eq!(other.read_at_least(seq, LONG).unwrap(), seq);
    assert_eq!(other.get::<i32>("b").unwrap(), Some(2));
    one.set("c", &3).unwrap();
    assert_eq!(other.read_latest(LONG).unwrap(), seq + 1);
    assert_eq!(other.get::<i32>("c").unwrap(), Some(3));
    // A node that opens later reads the log from its beginning.
    let late = on(&log.client());
    assert_eq!(late.len(), 3);
    agree(&[one.clone(), other, late]);
    let lag = one.lag().unwrap();
    assert!(lag.connected && lag.seq == seq + 1 && lag.last_error.is_none(), "{lag:?}");
    assert_eq!(one.get::<i32>("a").unwrap(), Some(1));
}

#[test]
fn a_wait_for_a_commit_that_does_not_come_ends() {
    let log = Memory::new();
    let client = log.client();
    for store in [on(&client), blind(&client)] {
        let away = shared(store.read_at_least(9, Duration::from_millis(20)).unwrap_err());
        assert!(matches!(away, SharedError::Away { .. }), "{away}");
    }
    let store = on(&client);
    client.cut(true);
    assert!(store.read_latest(Duration::from_millis(20)).is_err());
    super::common::until("the lag is seen", || !store.lag().unwrap().connected);
    client.cut(false);
    super::common::until("the connection is back", || store.lag().unwrap().connected);
    assert!(matches!(
        Store::in_memory().unwrap().lag(),
        Err(Error::Storage(StorageError::Contradiction(_)))
    ));
}

#[test]
fn updates_on_several_nodes_lose_nothing() {
    let log = Memory::new();
    let stores = nodes(&log, 3);
    thread::scope(|scope| {
        for store in stores.iter().flat_map(|store| [store, store]) {
            scope.spawn(|| {
                for _ in 0..40 {
                    store.update("n", |n: Option<u64>| Some(n.unwrap_or(0) + 1)).unwrap();
                }
            });
        }
    });
    agree(&stores);
    assert_eq!(stores[0].get::<u64>("n").unwrap(), Some(240));
}

#[test]
fn transactions_on_several_nodes_are_serializable() {
    let log = Memory::new();
    let stores = nodes(&log, 3);
    for account in 0..4 {
        stores[0].set(format!("account {account}"), &100_i64).unwrap();
    }
    agree(&stores);
    thread::scope(|scope| {
        for (n, store) in (0_u64..).zip(&stores) {
            scope.spawn(move || {
                for round in 0..40 {
                    let (from, to) = ((n + round) % 4, (n * round + 1) % 4);
                    let moved = store.transaction(|tx| {
                        let (from, to) = (format!("account {from}"), format!("account {to}"));
                        let (had, has) = (tx.get::<i64>(&from)?, tx.get::<i64>(&to)?);
                        // The sum of a scan is a condition too.
                        let all = tx.prefix("account").map(|e| e.value::<i64>());
                        let all = all.sum::<Result<i64, _>>()?;
                        assert_eq!(all, 400);
                        if from != to {
                            tx.set(&from, &(had.unwrap_or(0) - 1))?;
                            tx.set(&to, &(has.unwrap_or(0) + 1))?;
                        }
                        Ok::<_, Error>(())
                    });
                    moved.unwrap();
                }
            });
        }
    });
    agree(&stores);
    let sum: i64 = stores[1].values::<i64>().map(|value| value.unwrap()).sum();
    assert_eq!(sum, 400);
}

#[test]
fn an_entry_is_taken_or_popped_on_one_node() {
    let log = Memory::new();
    let stores = nodes(&log, 3);
    for n in 0..60 {
        stores[0].set(format!("take {n:02}"), &n).unwrap();
        stores[0].set(format!("pop {n:02}"), &n).unwrap();
    }
    let taken = thread::scope(|scope| {
        let takers: Vec<_> = stores
            .iter()
            .map(|store| {
                scope.spawn(|| {
                    let mut taken = Vec::new();
                    for n in 0..60 {
                        let key = format!("take {n:02}");
                        taken.extend(store.take::<i32>(&key).unwrap().map(|_| key));
                    }
                    while let Some(entry) = store.pop_first(Prefix("pop")).unwrap() {
                        taken.push(String::from_utf8(entry.key().to_vec()).unwrap());
                    }
                    taken
                })
            })
            .collect();
        takers.into_iter().flat_map(|taker| taker.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(taken.len(), 120, "each was returned once");
    assert_eq!(taken.into_iter().collect::<BTreeSet<_>>().len(), 120);
    agree(&stores);
    assert!(stores[2].is_empty());
}

/// A stale node asks the log, also for what changes nothing.
#[test]
fn no_answer_of_a_write_comes_from_a_state_that_is_behind() {
    let log = Memory::new();
    let (one, stale) = (on(&log.client()), blind(&log.client()));
    let shows = |key: &str| stale.contains_key(key);

    one.set("take", &1).unwrap();
    assert!(!shows("take"));
    assert_eq!(stale.take::<i32>("take").unwrap(), Some(1));
    one.set("remove", &1).unwrap();
    assert!(!shows("remove"));
    assert!(stale.remove("remove").unwrap(), "it was there");
    one.set("exchange", &1).unwrap();
    assert!(!stale.compare_exchange("exchange", None, Some(&2)).unwrap());
    one.set("exchange", &3).unwrap();
    assert!(stale.compare_exchange("exchange", Some(&3), Some(&4)).unwrap());
    one.set("insert", &1).unwrap();
    assert_eq!(stale.get_or_insert_with("insert", || 2).unwrap(), 1);
    one.set("keep", &1).unwrap();
    assert_eq!(stale.update("keep", |now: Option<i32>| now).unwrap(), Some(1));
    one.remove("keep").unwrap();
    assert_eq!(stale.update("keep", |now: Option<i32>| now).unwrap(), None);
    one.set("read", &1).unwrap();
    let read = stale.transaction(|tx| tx.get::<i32>("read")).unwrap();
    assert_eq!(read, Some(1), "a transaction that only reads is one of the log too");
    one.set("scan", &1).unwrap();
    let scanned = stale.transaction(|tx| Ok::<_, Error>(tx.prefix("scan").count())).unwrap();
    assert_eq!(scanned, 1);
    one.set("pop", &1).unwrap();
    assert!(stale.pop_first(Prefix("pop")).unwrap().is_some());
    one.set("prefix/1", &1).unwrap();
    assert_eq!(stale.remove_prefix("prefix/").unwrap(), 1);
    one.set("clear", &1).unwrap();
    stale.clear().unwrap();
    assert!(stale.is_empty());
    agree(&[one, stale]);
}

#[test]
fn a_value_that_was_set_again_to_an_equal_one_counts_as_unchanged() {
    let log = Memory::new();
    let (one, other) = (on(&log.client()), blind(&log.client()));
    one.set("a", &1).unwrap();
    other.read_latest(LONG).unwrap();
    let mut rounds = 0;
    let updated = other.update("a", |now: Option<i32>| {
        rounds += 1;
        one.set("a", &1).unwrap();
        now.map(|now| now + 1)
    });
    assert_eq!((updated.unwrap(), rounds), (Some(2), 1));
}

#[test]
fn a_watch_sees_each_commit_of_every_node_once_and_in_order() {
    let log = Memory::new();
    let stores = nodes(&log, 3);
    let watches: Vec<_> = stores.iter().map(|store| store.watch("").unwrap()).collect();
    thread::scope(|scope| {
        for (n, store) in stores.iter().enumerate() {
            scope.spawn(move || (0..50).for_each(|m| store.set(format!("{n} {m}"), &m).unwrap()));
        }
    });
    agree(&stores);
    let seen: Vec<Vec<(u64, Vec<u8>)>> = watches
        .into_iter()
        .zip(stores)
        .map(|(watch, store)| {
            store.close().unwrap();
            let commits = watch.into_iter().map(|notice| match notice {
                Notice::Commit(commit) => {
                    let [Change::Set(entry)] = commit.changes() else { panic!("one key") };
                    (commit.seq(), entry.key().to_vec())
                }
                notice => panic!("{notice:?}"),
            });
            commits.collect()
        })
        .collect();
    assert!(seen[0].iter().map(|(seq, _)| *seq).eq(1..=150), "each commit once, in order");
    assert!(seen.iter().all(|each| *each == seen[0]));
}

#[test]
fn a_commit_in_doubt_is_said_so_and_settled_by_the_next_write() {
    for is_committed in [false, true] {
        let log = Memory::new();
        let (client, other) = (log.client(), on(&log.client()));
        let options = without_threads(options().write_timeout(Duration::from_millis(50)));
        let store = options.shared(client.clone()).unwrap();
        store.set("before", &1).unwrap();
        client.fail_write(if is_committed { WriteFault::AnswerLost } else { WriteFault::Late });
        (0..10_000).for_each(|_| client.fail_write(WriteFault::Lost));
        (0..10_000).for_each(|_| client.fail_read(ReadFault::Lost));
        let doubt = store.set("doubt", &1).unwrap_err();
        assert!(doubt.is_in_doubt() && !doubt.is_poisoned(), "{doubt}");
        assert_eq!(store.poisoned(), None, "the store stays open");
        assert_eq!(store.get::<i32>("before").unwrap(), Some(1), "reads go on");
        assert!(!store.contains_key("doubt"), "it is not shown before it is in the log");
        let unsettled = store.set("no", &1).unwrap_err();
        assert!(!unsettled.is_in_doubt(), "{unsettled}");
        client.heal();
        // A conditional write finds the commit there, or absent for ever.
        assert_eq!(store.compare_exchange("doubt", None, Some(&2)).unwrap(), !is_committed);
        log.land();
        other.read_latest(LONG).unwrap();
        let value = if is_committed { 1 } else { 2 };
        assert_eq!(other.get::<i32>("doubt").unwrap(), Some(value));
        assert!(!other.contains_key("no"));
        agree(&[store, other]);
    }
}

#[test]
fn all_members_of_a_group_in_doubt_are_told_so() {
    let log = Memory::new();
    let client = log.client();
    let options = options().write_timeout(Duration::from_millis(200));
    let store = options.shared(client.clone()).unwrap();
    client.cut(true);
    thread::scope(|scope| {
        for n in 0..4 {
            let store = &store;
            scope.spawn(move || {
                let error = store.set(n.to_string(), &1).unwrap_err();
                assert!(matches!(
                    shared(error),
                    SharedError::Unanswered { .. }
                        | SharedError::Unsettled { .. }
                        | SharedError::Away { .. }
                ));
            });
        }
    });
    client.cut(false);
    store.set("after", &1).unwrap();
    assert_eq!(store.len(), 1, "nothing of them was sent");
}

#[test]
fn reads_stay_fresh_while_a_write_of_the_node_hangs() {
    let log = Memory::new();
    let (client, other) = (log.client(), on(&log.client()));
    let store = on(&client);
    store.set("begun", &1).unwrap();
    (0..1_000_000).for_each(|_| client.fail_write(WriteFault::Lost));
    thread::scope(|scope| {
        let hangs = scope.spawn(|| store.set("hangs", &1));
        super::common::until("the write hangs", || store.stats().waiting == 0);
        for n in 0..20 {
            other.set("n", &n).unwrap();
            super::common::until("it is shown", || store.get::<i32>("n").unwrap() == Some(n));
        }
        assert!(!hangs.is_finished());
        client.heal();
        hangs.join().unwrap().unwrap();
    });
    agree(&[store, other]);
}

#[test]
fn after_the_end_of_its_session_a_node_writes_on() {
    let log = Memory::new();
    let stores = nodes(&log, 2);
    for n in 0..5 {
        for store in &stores {
            store.set(format!("{n}"), &n).unwrap();
        }
        log.fence();
    }
    agree(&stores);
}

#[test]
fn a_full_log_refuses_writes_and_not_for_ever() {
    let log = Memory::new();
    let store = on(&log.client());
    store.set("a", &1).unwrap();
    log.set_quota(0);
    let full = store.set("b", &1).unwrap_err();
    assert!(full.is_no_space(), "{full}");
    assert_eq!(std::io::Error::from(full).kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(store.get::<i32>("a").unwrap(), Some(1));
    log.set_quota(u64::MAX);
    store.set("b", &1).unwrap();
    assert!(!store.contains_key("c"));
}

#[test]
fn a_node_that_disagrees_refuses_writes_and_reads_on() {
    let log = Memory::new();
    let (one, two) = (on(&log.client()), on(&log.client()));
    let client = log.client();
    let wrong = blind(&client);
    wrong.set("old", &1).unwrap();
    let watch = wrong.watch("").unwrap();
    one.set("a", &1).unwrap();
    two.read_latest(LONG).unwrap();
    two.set("b", &1).unwrap();
    // The log withholds one commit from this node.
    client.fail_read(ReadFault::Skip);
    let diverged = shared(wrong.read_latest(LONG).unwrap_err());
    assert!(matches!(diverged, SharedError::Diverged { seq: 2, .. }), "{diverged}");
    let refused = wrong.set("c", &1).unwrap_err();
    assert!(refused.is_poisoned() && refused.to_string().contains("disagree"), "{refused}");
    assert!(wrong.health().to_string().contains("disagree"));
    assert_eq!(wrong.get::<i32>("old").unwrap(), Some(1), "reads go on");
    assert!(!wrong.contains_key("b"), "and show nothing in a wrong order");
    assert_eq!(watch.into_iter().count(), 0, "a watch ends");
    let again = shared(wrong.read_latest(LONG).unwrap_err());
    assert_eq!(again, diverged);
    wrong.close().unwrap();
    agree(&[one, two, on(&client)]);
}

#[test]
fn a_node_that_was_overtaken_by_a_trim_says_so() {
    let log = Memory::new();
    let (one, slow) = (on(&log.client()), blind(&log.client()));
    one.set("a", &1).unwrap();
    slow.read_latest(LONG).unwrap();
    one.set("b", &1).unwrap();
    one.set("c", &1).unwrap();
    log.trim(Position(2));
    let trimmed = shared(slow.read_latest(LONG).unwrap_err());
    assert!(matches!(trimmed, SharedError::Trimmed { .. }), "{trimmed}");
    assert_eq!(slow.len(), 1, "reads go on");
    assert!(slow.set("d", &1).unwrap_err().is_poisoned());
    // A node cannot begin without the beginning.
    let opened = options().shared(log.client());
    assert!(matches!(shared(opened.unwrap_err()), SharedError::Trimmed { .. }));
    one.set("d", &1).unwrap();
}

#[test]
fn a_log_that_was_rolled_back_is_found_out() {
    let log = Memory::new();
    let stores = nodes(&log, 2);
    stores[0].set("a", &1).unwrap();
    stores[0].set("b", &1).unwrap();
    agree(&stores);
    log.roll_back(Position(1));
    for store in &stores {
        let error = shared(store.read_latest(LONG).and_then(|_| store.anchor()).map_or_else(
            |error| {
                if error.is_poisoned() { store.read_at_least(9, LONG).unwrap_err() } else { error }
            },
            |_| store.read_at_least(9, LONG).unwrap_err(),
        ));
        assert!(matches!(error, SharedError::RolledBack { .. }), "{error}");
        assert_eq!(store.len(), 2, "reads go on");
    }
}

#[test]
fn commits_of_many_threads_share_frames_and_large_ones_travel_in_parts() {
    let limits = Limits { part_max: 1_000, frame_target: 10_000, commit_max: 50_000 };
    let log = Memory::with_limits(limits);
    let stores = nodes(&log, 2);
    for (n, len) in [10, 900, 1_000, 10_000, 40_000].into_iter().enumerate() {
        stores[n % 2].set_bytes(format!("large {n}"), vec![7; len]).unwrap();
    }
    let large = stores[0].set_bytes("too large", vec![7; 50_000]).unwrap_err();
    assert!(large.is_too_large(), "{large}");
    agree(&stores);
    let parts = log.slots().len();
    assert!(parts > 52 && log.slots().iter().all(|(_, len)| *len <= 1_000), "{parts} parts");
    thread::scope(|scope| {
        for n in 0..16 {
            let store = &stores[0];
            scope.spawn(move || (0..20).for_each(|m| store.set(format!("{n} {m}"), &m).unwrap()));
        }
    });
    agree(&stores);
    assert_eq!(stores[1].len(), 5 + 320);
}

#[test]
fn tables_and_indexes_are_the_same_on_all_nodes() {
    let log = Memory::new();
    let stores = nodes(&log, 2);
    let spec = || {
        TableSpec::<String, u32>::new("users").index::<u32>("by_age", |age, keys| keys.add(*age))
    };
    let tables: Vec<_> = stores.iter().map(|store| spec().open(store).unwrap()).collect();
    thread::scope(|scope| {
        for (n, table) in (0_u32..).zip(&tables) {
            scope.spawn(move || {
                for m in 0..20_u32 {
                    table.set(&format!("{m}"), &(n + m)).unwrap();
                    table.remove(&format!("{}", (m + 10) % 20)).unwrap();
                }
            });
        }
    });
    agree(&stores);
    for store in &stores {
        let table = spec().open(store).unwrap();
        assert!(table.verify_indexes().unwrap().is_ok());
        assert_eq!(table.len().unwrap(), tables[0].len().unwrap());
    }
}

#[test]
fn tasks_write_to_a_shared_log() {
    let log = Memory::new();
    let stores = nodes(&log, 2);
    smol::block_on(async {
        let store = codex_core::AsyncStore::from(stores[0].clone());
        for n in 0..10 {
            store.set(format!("{n}"), &n).await.unwrap();
        }
        assert_eq!(store.take::<i32>("3").await.unwrap(), Some(3));
        assert_eq!(store.take::<i32>("3").await.unwrap(), None);
    });
    agree(&stores);
    assert_eq!(stores[1].len(), 9);
}

#[test]
fn ids_are_unique_on_all_nodes() {
    let log = Memory::new();
    let stores = nodes(&log, 3);
    let ids = thread::scope(|scope| {
        let drawn: Vec<_> = stores
            .iter()
            .map(|store| {
                scope.spawn(|| (0..50).map(|_| store.next_id("ids").unwrap()).collect::<Vec<_>>())
            })
            .collect();
        drawn.into_iter().flat_map(|drawn| drawn.join().unwrap()).collect::<Vec<u64>>()
    });
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 150);
}

#[test]
fn what_needs_files_is_refused_with_the_reason() {
    let log = Memory::new();
    let refused = |options: OpenOptions, why: &str| match options.shared(log.client()) {
        Err(Error::Storage(StorageError::Contradiction(what))) => {
            assert!(what.contains(why), "{what}");
        }
        other => panic!("{other:?}"),
    };
    refused(options().durability(Durability::Os), "`durability`");
    refused(options().durability(Durability::Interval(LONG)), "`durability`");
    refused(options().backups(BackupPolicy::keep(3)), "backups");
    refused(options().fall_back_to_backup(true), "backups");
    refused(options().form(Form::Ledger), "no files");
    refused(options().read_only(true), "no files");
    #[cfg(feature = "crypto")]
    refused(Store::options().cipher(codex_core::crypto::Cipher::default()), "`key`");
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = options().write_timeout(LONG).open(folder.path().join("a.db"));
    assert!(elsewhere.unwrap_err().to_string().contains("`write_timeout`"));
    let place = std::sync::Arc::new(codex_core::remote::Memory::new());
    let elsewhere = options().images(place).open(folder.path().join("a.db"));
    assert!(elsewhere.unwrap_err().to_string().contains("`images`"));

    let store = options().durability(Durability::Sync).shared(log.client()).unwrap();
    let refused = |done: Result<(), Error>, why: &str| match done {
        Err(Error::Storage(StorageError::Contradiction(what))) => {
            assert!(what.contains(why), "{what}");
        }
        other => panic!("{other:?}"),
    };
    let no = |done: Result<(), Error>| refused(done, "no files");
    no(store.back_up().map(drop));
    no(store.verify().map(drop));
    #[cfg(feature = "crypto")]
    {
        let key = || codex_core::crypto::Key::raw(&[1; 32]).unwrap();
        refused(store.rekey(key()), "does not change the key");
        refused(store.change_key(key()), "does not change the key");
    }
    store.flush().unwrap();
    store.checkpoint().unwrap();
    store.close().unwrap();
    assert!(store.set("a", &1).unwrap_err().is_closed());
    assert!(store.read_at_least(9, LONG).unwrap_err().is_closed());
}
