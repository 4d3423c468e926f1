//! Commits of tasks: futures that no thread blocks for, under two runtimes and polled by hand.

use std::future::Future;
use std::panic;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use codex_core::internals::{Change, Commit, Entry, Outcome, Task};
use codex_core::vfs::Vfs;
use codex_core::{
    AsyncStore, BackupPolicy, Durability, Error, Form, Job, OpenOptions, StorageError, Store,
    Submitted,
};
use codex_storage::vfs::CallKind;
use codex_storage::vfs::fault::{
    Calls, Fault as DiskFault, FaultDir, Gate, Lasting, Side, Survivors,
};
use tokio::runtime::Builder;

use crate::common::{FORMS, open, scaled, seed, until};
use crate::double::{Fault, absent, engine, in_memory, memory, put};

/// An open store on a simulated disk. The first commit was made, so that the next one only writes
/// and syncs.
fn on_disk(options: &OpenOptions) -> (AsyncStore, FaultDir) {
    let disk = FaultDir::new();
    let store = options.open_in(&disk.vfs(seed()), "a.db").unwrap();
    store.set("begun", &true).unwrap();
    (store.into(), disk)
}

/// Makes each sync of the disk wait until the gate is released.
fn hold_syncs(disk: &FaultDir) -> Gate {
    disk.hold(Calls::of(CallKind::Sync))
}

/// Opens what a power cut leaves of the store.
fn after_a_power_cut(disk: &FaultDir, options: &OpenOptions) -> Store {
    options.open_in(&disk.reboot(Survivors::Nothing).vfs(seed()), "a.db").unwrap()
}

/// A waker that counts how often it was called.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Count {
    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// A waker that calls a function once.
struct Call<F>(Mutex<Option<F>>);

impl<F: FnOnce() + Send + 'static> Wake for Call<F> {
    fn wake(self: Arc<Self>) {
        let call = self.0.lock().unwrap().take();
        if let Some(call) = call {
            call();
        }
    }
}

fn waker(call: impl FnOnce() + Send + 'static) -> Waker {
    Arc::new(Call(Mutex::new(Some(call)))).into()
}

/// Polls `future` once, with a waker that does nothing.
fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll_with(future, Waker::noop())
}

fn poll_with<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(waker))
}

/// Returns the outcome of a future that is ready at the first poll.
fn ready<T>(mut future: impl Future<Output = T> + Unpin) -> T {
    match poll(&mut future) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => panic!("the outcome is not there at once"),
    }
}

fn number(n: usize) -> String {
    format!("n/{n:05}")
}

/// Waits for all `futures`, one after the other.
async fn all<T>(futures: Vec<Submitted<T>>) -> Vec<Result<T, Error>> {
    let mut outcomes = Vec::new();
    for future in futures {
        outcomes.push(future.await);
    }
    outcomes
}

/// If a call or a poll waited for the disk, the task that opens the gate would never run, and this
/// test would not end.
#[test]
fn a_poll_does_not_wait_for_the_disk() {
    for form in FORMS {
        let (store, disk) = on_disk(&Store::options().form(form));
        let gate = hold_syncs(&disk);
        let tokio = Builder::new_current_thread().build().unwrap();
        let (writer, opener) = (store.clone(), (store.clone(), gate));
        tokio.block_on(async {
            let write = tokio::spawn(async move { writer.set("a", &1).await });
            let open = tokio::spawn(async move {
                opener.1.wait_for(1);
                assert!(!opener.0.contains_key("a"), "{form}: visible before it is durable");
                opener.1.release();
            });
            open.await.unwrap();
            write.await.unwrap().unwrap();
        });

        let gate = hold_syncs(&disk);
        let smol = smol::LocalExecutor::new();
        smol::block_on(smol.run(async {
            let write = smol.spawn(store.set("b", &1));
            let open = smol.spawn(async {
                gate.wait_for(1);
                gate.release();
            });
            open.await;
            write.await.unwrap();
        }));
        assert!(store.contains_key("a") && store.contains_key("b"), "{form}");
    }
}

#[test]
fn ten_thousand_commits_share_a_few_groups() {
    let (store, disk) = on_disk(&Store::options());
    let before = store.blocking().stats().storage.groups;
    let gate = hold_syncs(&disk);
    let futures: Vec<_> = (0..10_000).map(|n| store.set(number(n), &n)).collect();
    gate.release();
    let outcomes = smol::block_on(all(futures));
    assert!(outcomes.iter().all(Result::is_ok));
    let groups = store.blocking().stats().storage.groups - before;
    assert!(groups < 1_000, "{groups} groups");
    smol::block_on(store.remove("begun")).unwrap();
    let found: Vec<usize> = store.values().collect::<Result<_, _>>().unwrap();
    assert_eq!(found, (0..10_000).collect::<Vec<_>>());
}

#[test]
fn dropping_a_future_takes_nothing_back_and_tears_nothing() {
    let (store, disk) = on_disk(&Store::options());
    let pair = |name: &str| {
        let mut batch = store.batch();
        batch.set(format!("{name}/1"), &1).unwrap().set(format!("{name}/2"), &2).unwrap();
        batch.submit()
    };
    let gate = hold_syncs(&disk);
    drop(pair("first, before a poll"));
    gate.wait_for(1);
    drop(pair("before a poll"));
    let mut between = pair("between two polls");
    assert!(poll(&mut between).is_pending());
    drop(between);
    let mut after = pair("after the outcome");
    assert!(poll(&mut after).is_pending());
    gate.release();
    until("the last one is made", || poll(&mut after).is_ready());
    drop(after);
    // The store goes on.
    smol::block_on(store.set("last", &3)).unwrap();
    let store = after_a_power_cut(&disk, &Store::options());
    for name in ["first, before a poll", "before a poll", "between two polls", "after the outcome"]
    {
        assert_eq!(store.prefix(format!("{name}/")).count(), 2, "{name}");
    }
    assert!(store.contains_key("last"));
}

#[test]
fn the_waker_of_the_last_poll_is_woken() {
    let (store, disk) = on_disk(&Store::options());
    let gate = hold_syncs(&disk);
    let mut write = store.set("a", &1);
    let wakers = [(); 3].map(|()| Arc::new(Count::default()));
    for waker in &wakers {
        assert!(poll_with(&mut write, &waker.clone().into()).is_pending());
    }
    gate.release();
    let woken = || wakers.iter().map(|waker| waker.get()).collect::<Vec<_>>();
    until("a task is woken", || woken().iter().sum::<usize>() > 0);
    assert_eq!(woken(), [0, 0, 1]);
    assert!(matches!(poll(&mut write), Poll::Ready(Ok(()))));
}

/// Enters a commit that waits for the disk of the double as the first of a group, and 31 after it.
/// Then lets `change` change the disk, and returns all outcomes.
fn thirty_two(change: impl FnOnce(&mut crate::double::Disk)) -> Vec<Result<Outcome, StorageError>> {
    let (engine, probe) = engine(Form::Wal, Durability::Sync, false);
    let submit = |n: u32| engine.submit_task(Commit::one(put(&format!("{n}"), "1"))).unwrap();
    let mut disk = probe.disk();
    let mut tasks: Vec<Task> = vec![submit(0)];
    until("the first one is at the disk", || probe.handed() == 1);
    tasks.extend((1..32).map(submit));
    assert_eq!(engine.waiting(), 31);
    change(&mut disk);
    drop(disk);
    let outcomes: Vec<_> = tasks.into_iter().map(smol::block_on).collect();
    let refused = engine.submit_task(Commit::one(put("late", "1"))).unwrap_err();
    assert!(matches!(refused, Error::Storage(StorageError::Poisoned { .. })), "{refused}");
    assert_eq!(memory(&engine).len(), outcomes.iter().filter(|outcome| outcome.is_ok()).count());
    let _ = engine.close();
    outcomes
}

#[test]
fn a_poisoned_store_answers_each_future() {
    let outcomes = thirty_two(|disk| disk.fail_next(Fault::Sync));
    let is_first = |outcome: &_| matches!(outcome, Err(StorageError::InDoubt { .. }));
    let is_other = |outcome: &_| matches!(outcome, Err(StorageError::Poisoned { .. }));
    assert!(is_first(&outcomes[0]), "{:?}", outcomes[0]);
    assert!(outcomes[1..].iter().all(is_other), "{outcomes:?}");
}

#[test]
fn a_panic_on_a_deputy_answers_each_future() {
    for fault in [Fault::Panic, Fault::PanicInGroup] {
        let outcomes = thirty_two(|disk| disk.fail_next(fault));
        let made = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(made, usize::from(fault == Fault::PanicInGroup));
        for outcome in &outcomes[made..] {
            assert!(matches!(outcome, Err(StorageError::Poisoned { .. })), "{outcome:?}");
        }
    }
}

#[test]
fn a_runtime_that_ends_takes_no_commit_with_it() {
    let (store, disk) = on_disk(&Store::options());
    let gate = hold_syncs(&disk);
    drop(store.set("first", &1));
    gate.wait_for(1);
    let runtime = Builder::new_multi_thread().worker_threads(2).build().unwrap();
    for n in 0..100_usize {
        let store = store.clone();
        runtime.spawn(async move { store.set(number(n), &n).await });
    }
    until("all of them wait", || store.blocking().stats().waiting == 100);
    drop(runtime);
    gate.release();
    smol::block_on(store.close()).unwrap();
    assert_eq!(after_a_power_cut(&disk, &Store::options()).prefix("n/").count(), 100);
}

#[test]
fn a_close_lets_earlier_commits_through_and_refuses_later_ones() {
    let (store, disk) = on_disk(&Store::options());
    let gate = hold_syncs(&disk);
    let futures: Vec<_> = (0..100_usize).map(|n| store.set(number(n), &n)).collect();
    gate.wait_for(1);
    let close = store.close();
    let mut made = 100;
    until("the close has begun", || {
        let mut late = store.set("late", &made);
        let is_refused = matches!(poll(&mut late), Poll::Ready(Err(error)) if error.is_closed());
        made += usize::from(!is_refused);
        is_refused
    });
    gate.release();
    assert!(smol::block_on(all(futures)).iter().all(Result::is_ok));
    smol::block_on(close).unwrap();
    let late = ready(store.set("late", &0)).unwrap_err();
    assert!(late.is_closed(), "{late}");
    let cut = after_a_power_cut(&disk, &Store::options());
    assert_eq!(cut.snapshot().seq(), u64::try_from(made).unwrap() + 1);
    assert_eq!(cut.prefix("n/").count(), 100);
}

#[test]
fn calls_without_an_await_commit_in_their_order() {
    let (store, disk) = on_disk(&Store::options());
    let gate = hold_syncs(&disk);
    let commit = |value: u32| {
        let mut batch = store.batch();
        batch.set("k", &value).unwrap();
        batch.submit()
    };
    let (first, second, third) = (commit(1), commit(2), commit(3));
    gate.release();
    let seqs = smol::block_on(async { [third.await, first.await, second.await] });
    assert_eq!(seqs.map(Result::unwrap), [4, 2, 3]);
    assert_eq!(store.get::<u32>("k").unwrap(), Some(3));
}

#[test]
fn a_backlog_is_an_error_and_passes() {
    let (engine, probe) = engine(Form::Wal, Durability::Sync, false);
    engine.submit(Commit::one(put("there", "1"))).unwrap();
    let large = Entry::new(b"large", &vec![0; 60 << 20]);
    // The condition does not hold, so that nothing of it is written.
    let large = || {
        let change = Change::Put(large.clone());
        engine.submit_task(Commit::checked(absent("there"), change))
    };
    let disk = probe.disk();
    let first = engine.submit_task(Commit::one(put("first", "1"))).unwrap();
    until("the first one is at the disk", || probe.handed() == 2);
    let waiting: Vec<_> = (0..4).map(|_| large().unwrap()).collect();
    match large().unwrap_err() {
        Error::Backlog { bytes, limit } => {
            assert_eq!(limit, 256 << 20);
            assert!((240 << 20..limit).contains(&bytes), "{bytes} bytes");
        }
        other => panic!("{other}"),
    }
    // Small ones still have room, and threads are not refused.
    let small = engine.submit_task(Commit::one(put("small", "1"))).unwrap();
    drop(disk);
    for task in waiting {
        assert!(matches!(smol::block_on(task), Ok(Outcome::Conflict)));
    }
    for task in [first, small] {
        assert!(matches!(smol::block_on(task), Ok(Outcome::Done { .. })));
    }
    assert!(matches!(smol::block_on(large().unwrap()), Ok(Outcome::Conflict)));
}

#[test]
fn tasks_and_threads_together_lose_no_update() {
    for form in [Form::Wal, Form::Ledger] {
        let (rounds, store) = (scaled(20), open(&Vfs::mem(seed()), form));
        let tasks = AsyncStore::from(store.clone());
        let runtime = Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let add = |n: Option<u32>| Some(n.unwrap_or(0) + 1);
        let spawned: Vec<_> = (0..32)
            .map(|task| {
                let tasks = tasks.clone();
                runtime.spawn(async move {
                    for round in 0..rounds {
                        tasks.update("counter", add).await.unwrap();
                        tasks.set(format!("task/{task}/{round}"), &round).await.unwrap();
                        let moved = tasks.transaction(|tx| {
                            let n: u32 = tx.get("moved")?.unwrap_or(0);
                            tx.set("moved", &(n + 1))
                        });
                        moved.await.unwrap();
                    }
                })
            })
            .collect();
        thread::scope(|scope| {
            for writer in 0..32 {
                let store = &store;
                scope.spawn(move || {
                    for round in 0..rounds {
                        store.update("counter", add).unwrap();
                        store.set(format!("thread/{writer}/{round}"), &round).unwrap();
                    }
                });
            }
        });
        runtime.block_on(async {
            for task in spawned {
                task.await.unwrap();
            }
        });
        assert_eq!(store.get::<u32>("counter").unwrap(), Some(64 * rounds), "{form}");
        assert_eq!(store.get::<u32>("moved").unwrap(), Some(32 * rounds), "{form}");
        let each = usize::try_from(32 * rounds).unwrap();
        assert_eq!(store.prefix("task/").count(), each, "{form}");
        assert_eq!(store.prefix("thread/").count(), each, "{form}");
    }
}

#[test]
fn backups_are_made_of_commits_whose_futures_were_dropped() {
    for form in FORMS {
        let vfs = Vfs::mem(seed());
        let policy = BackupPolicy::keep(3).every_commits(3);
        let store = Store::options().form(form).backups(policy).open_in(&vfs, "a.db").unwrap();
        let tasks = AsyncStore::from(store.clone());
        for n in 1..=3_u64 {
            drop(tasks.set("n", &n));
        }
        until("the third commit is backed up", || store.stats().backups.made == 1);
        assert_eq!(store.stats().backups.last_seq, Some(3), "{form}");
    }
}

#[test]
fn each_call_does_what_its_blocking_one_does() {
    for form in FORMS {
        for level in [Durability::Sync, weaker(form)] {
            let vfs = Vfs::mem(seed());
            let options = Store::options().form(form).durability(level);
            let store = AsyncStore::from(options.open_in(&vfs, "a.db").unwrap());
            smol::block_on(async {
                store.set("a", &1).await.unwrap();
                store.set_bytes("b", [1, 2]).await.unwrap();
                assert!(store.remove("a").await.unwrap() && !store.remove("a").await.unwrap());
                assert!(store.compare_exchange("c", None, Some("x")).await.unwrap());
                assert!(!store.compare_exchange("c", None, Some("y")).await.unwrap());
                assert_eq!(store.take::<String>("c").await.unwrap().as_deref(), Some("x"));
                assert_eq!(
                    store.update("n", |n: Option<u8>| n.or(Some(7))).await.unwrap(),
                    Some(7)
                );
                let refused = store.try_update("n", |_: Option<u8>| Err(Refused));
                assert!(refused.await.is_err());
                let failed = store.try_transaction(|tx| {
                    tx.set("n", &8_u8).unwrap();
                    Err::<(), _>(Refused)
                });
                assert!(failed.await.is_err());
                let mut batch = store.batch();
                batch.set("d/1", &1).unwrap().set("d/2", &2).unwrap();
                assert_eq!(batch.submit().await.unwrap(), store.blocking().snapshot().seq());
                let seq = store.blocking().snapshot().seq();
                assert_eq!(store.batch().submit().await.unwrap(), seq, "nothing to write");
                assert_eq!(store.remove_prefix("d/").await.unwrap(), 2);
                assert_eq!(store.remove_range("z".."a").await.unwrap(), 0);
                let keys: Vec<_> = store.keys().collect();
                assert_eq!(keys, ["b", "n"], "{form}");
                store.clear().await.unwrap();
                assert!(store.is_empty());
                assert_eq!(store.len(), 0);
                store.checkpoint().await.unwrap();
                assert_eq!(store.flush().await.unwrap(), store.blocking().snapshot().seq());
                assert_eq!(store.verify().await.unwrap().seq, store.flush().await.unwrap());
                store.close().await.unwrap();
            });
        }
    }
}

/// Returns a level at which the commits of a test are not synced.
fn weaker(form: Form) -> Durability {
    let long = Durability::Interval(Duration::from_secs(3600));
    if form == Form::Snapshot { long } else { Durability::Os }
}

#[derive(Debug)]
struct Refused;

impl From<Error> for Refused {
    fn from(_: Error) -> Self {
        Self
    }
}

#[test]
fn a_batch_of_a_higher_level_is_durable_when_its_future_returns() {
    for form in FORMS {
        let options = Store::options().form(form).durability(weaker(form));
        let (store, disk) = on_disk(&options);
        let durable = || store.blocking().stats().storage.durable;
        smol::block_on(async {
            store.set("before", &1).await.unwrap();
            assert!(durable() < 2, "{form}");
            // A batch that writes nothing rests on the earlier commits.
            let mut nothing = store.batch();
            nothing.remove("absent").unwrap().durability(Durability::Sync);
            assert_eq!(nothing.submit().await.unwrap(), 2, "{form}");
            assert_eq!(durable(), 2, "{form}");
            let mut batch = store.batch();
            batch.set("order", &1).unwrap().durability(Durability::Sync);
            assert_eq!(batch.submit().await.unwrap(), 3, "{form}");
        });
        let cut = after_a_power_cut(&disk, &options);
        assert!(cut.contains_key("before") && cut.contains_key("order"), "{form}");
    }
}

#[test]
fn a_refusal_is_the_outcome_at_the_first_poll() {
    let vfs = Vfs::mem(seed());
    let store = AsyncStore::from(open(&vfs, Form::Wal));
    let too_long = ready(store.set(vec![0; 70_000], &1)).unwrap_err();
    assert!(too_long.is_too_large(), "{too_long}");
    let encode = ready(store.set("a", &Unencodable)).unwrap_err();
    assert!(matches!(encode, Error::Encode { .. }), "{encode}");
    assert_eq!(ready(store.remove_range("b".."a")).unwrap(), 0);
    smol::block_on(store.close()).unwrap();
    let reader = Store::options().read_only(true).open_in(&vfs, "a.db").unwrap();
    let read_only = ready(AsyncStore::from(reader).set("a", &1)).unwrap_err();
    assert!(read_only.is_read_only(), "{read_only}");
    let none = smol::block_on(AsyncStore::open(Store::options().create(false), "/none/a.db"));
    assert!(none.unwrap_err().is_not_found());
}

/// Returns the error of each method that writes, syncs or watches. The key `k` has a value.
fn refusals(store: &AsyncStore) -> Vec<(&'static str, Error)> {
    let mut batch = store.batch();
    batch.set("a", &1).unwrap();
    let at = UNIX_EPOCH + Duration::from_secs(1);
    smol::block_on(async {
        vec![
            ("set", store.set("a", &1).await.unwrap_err()),
            ("set_bytes", store.set_bytes("a", "1").await.unwrap_err()),
            ("set_with_expiry", store.set_with_expiry("a", &1, at).await.unwrap_err()),
            ("remove", store.remove("k").await.unwrap_err()),
            ("clear", store.clear().await.unwrap_err()),
            ("remove_prefix", store.remove_prefix("k").await.unwrap_err()),
            ("compare_exchange", store.compare_exchange("a", None, Some(&1)).await.unwrap_err()),
            ("pop_first", store.pop_first(..).await.unwrap_err()),
            ("pop_last", store.pop_last(..).await.unwrap_err()),
            ("submit", batch.submit().await.unwrap_err()),
            ("update", store.update("k", |n: Option<u32>| n).await.unwrap_err()),
            ("take", store.take::<u32>("k").await.unwrap_err()),
            ("replace", store.replace("k", &1).await.unwrap_err()),
            ("get_or_insert_with", store.get_or_insert_with("a", || 1).await.unwrap_err()),
            ("transaction", store.transaction(|tx| tx.set("a", &1)).await.unwrap_err()),
            ("next_id", store.next_id("ids").await.unwrap_err()),
            ("watch", store.watch("").await.unwrap_err()),
            ("flush", store.flush().await.unwrap_err()),
            ("checkpoint", store.checkpoint().await.unwrap_err()),
            ("back_up", store.back_up().await.unwrap_err()),
        ]
    })
}

#[test]
fn each_call_on_a_closed_a_poisoned_or_a_read_only_store_is_refused() {
    for form in FORMS {
        let (store, disk) = on_disk(&Store::options().form(form));
        smol::block_on(store.set("k", &1)).unwrap();
        smol::block_on(store.close()).unwrap();
        for (call, error) in refusals(&store) {
            assert!(error.is_closed(), "{form}, {call}: {error}");
        }
        let opened = |options: OpenOptions| {
            AsyncStore::from(options.open_in(&disk.vfs(seed()), "a.db").unwrap())
        };
        let reader = opened(Store::options().read_only(true));
        for (call, error) in refusals(&reader) {
            assert!(error.is_read_only(), "{form}, {call}: {error}");
        }
        smol::block_on(reader.close()).unwrap();
        let store = opened(Store::options());
        smol::block_on(store.set("k", &1)).unwrap();
        // An image can fail without doubt until it has its name.
        let sync = if form == Form::Snapshot { CallKind::SyncDir } else { CallKind::Sync };
        disk.fail_on(Calls::of(sync), 1, DiskFault::Eio, Lasting::Once, Side::Before);
        let in_doubt = smol::block_on(store.set("a", &1)).unwrap_err();
        assert!(in_doubt.is_in_doubt(), "{form}: {in_doubt}");
        for (call, error) in refusals(&store) {
            assert!(error.is_poisoned(), "{form}, {call}: {error}");
        }
        assert_eq!(store.get("k").unwrap(), Some(1), "{form}");
    }
}

/// The futures are dropped before the close begins, and while it waits.
#[test]
fn a_close_makes_the_commits_whose_futures_were_dropped() {
    for form in FORMS {
        let options = Store::options().form(form);
        let (store, disk) = on_disk(&options);
        let gate = hold_syncs(&disk);
        drop(store.set("held", &1));
        gate.wait_for(1);
        (0..50_usize).for_each(|n| drop(store.set(number(n), &n)));
        let mut futures: Vec<_> = (50..100_usize).map(|n| store.set(number(n), &n)).collect();
        assert!(futures.iter_mut().all(|future| poll(future).is_pending()));
        let close = store.close();
        until("the close has begun", || {
            matches!(poll(&mut store.set("late", &1)), Poll::Ready(Err(_)))
        });
        drop(futures);
        gate.release();
        smol::block_on(close).unwrap();
        let cut = after_a_power_cut(&disk, &options);
        assert_eq!(cut.prefix("n/").count(), 100, "{form}");
    }
}

struct Unencodable;

impl serde::Serialize for Unencodable {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("no encoding"))
    }
}

/// A waker is code of the user: it may write and wait for its write, and it may panic.
#[test]
fn a_waker_may_use_the_store_and_panic() {
    let (store, disk) = on_disk(&Store::options());
    let gate = hold_syncs(&disk);
    let mut futures: Vec<_> = (0..3_usize).map(|n| store.set(number(n), &n)).collect();
    gate.wait_for(1);
    let woken = Arc::new(Count::default());
    let blocking = store.blocking().clone();
    let writes = waker(move || blocking.set("by a waker", &true).unwrap());
    let panics = waker(|| panic::resume_unwind(Box::new("a waker that panics on demand")));
    for (future, waker) in futures.iter_mut().zip([writes, panics, woken.clone().into()]) {
        assert!(poll_with(future, &waker).is_pending());
    }
    gate.release();
    until("the last one is woken", || woken.get() == 1);
    assert!(smol::block_on(all(futures)).iter().all(Result::is_ok));
    until("the waker has written", || store.contains_key("by a waker"));
    smol::block_on(store.set("last", &1)).unwrap();
}

/// The thread that wakes a task can drop its last handle of the store, which closes it. Other
/// commits still wait then.
#[test]
fn a_waker_may_drop_the_last_handle() {
    let (store, disk) = on_disk(&Store::options());
    let gate = hold_syncs(&disk);
    let mut first = store.set("first", &1);
    gate.wait_for(1);
    // Each of these has a group of its own, because of its size.
    let large = vec![0; 5 << 20];
    let others: Vec<_> = (0..4_usize).map(|n| store.set_bytes(number(n), &large)).collect();
    let last = store.clone();
    let waker = waker(move || drop(last));
    assert!(poll_with(&mut first, &waker).is_pending());
    drop((first, others, store, waker));
    gate.release();
    let mut opened = None;
    until("the store is closed", || {
        opened = Store::options().open_in(&disk.vfs(seed()), "a.db").ok();
        opened.is_some()
    });
    assert_eq!(opened.unwrap().len(), 6);
}

/// A thread that leads for others without a sync hands over before it wakes a task.
#[test]
fn a_waker_of_a_group_without_a_sync_may_write() {
    let store = AsyncStore::from(Store::in_memory().unwrap());
    let writing = AtomicBool::new(true);
    thread::scope(|scope| {
        // They keep commits in the queue, for which a thread could lead on.
        for _ in 0..2 {
            scope.spawn(|| {
                while writing.load(Ordering::SeqCst) {
                    store.blocking().set("busy", &1).unwrap();
                }
            });
        }
        for round in 0..500 {
            let woken = Arc::new(AtomicBool::new(false));
            let (own, told) = (store.blocking().clone(), Arc::clone(&woken));
            let waker = waker(move || {
                own.set("woken", &round).unwrap();
                told.store(true, Ordering::SeqCst);
            });
            let mut task = store.set("task", &round);
            if poll_with(&mut task, &waker).is_pending() {
                until("the task is woken", || woken.load(Ordering::SeqCst));
            }
        }
        writing.store(false, Ordering::SeqCst);
    });
}

#[test]
fn an_update_that_writes_its_own_key_by_a_task_is_refused() {
    let store = AsyncStore::from(Store::in_memory().unwrap());
    let own = |n: Option<u32>| {
        drop(store.set("k", &1_u32));
        n.or(Some(2))
    };
    let blocking = store.blocking().update("k", own).unwrap_err();
    assert!(matches!(blocking, Error::UpdatesItself { .. }), "{blocking}");
    let update = smol::block_on(store.update("k", own)).unwrap_err();
    assert!(matches!(update, Error::UpdatesItself { .. }), "{update}");
}

#[test]
fn a_transaction_that_loses_each_round_is_contended() {
    let store = AsyncStore::from(Store::in_memory().unwrap());
    let lost = store.transaction(|tx| {
        let n: u64 = tx.get("k")?.unwrap_or(0);
        store.blocking().set("k", &(n + 1))?;
        tx.set("k", &n)
    });
    let error = smol::block_on(lost).unwrap_err();
    assert!(matches!(error, Error::Contended { rounds: 1_000, .. }), "{error}");
    assert_eq!(store.get::<u64>("k").unwrap(), Some(1_000));
}

/// Both threads call before one of them can have its outcome: the deputies make both commits.
#[test]
fn tasks_of_several_threads_need_no_thread_of_theirs() {
    let engine = in_memory();
    let barrier = Barrier::new(2);
    thread::scope(|scope| {
        for key in ["a", "b"] {
            let (engine, barrier) = (&engine, &barrier);
            scope.spawn(move || {
                for _ in 0..scaled(200) {
                    barrier.wait();
                    let task = engine.submit_task(Commit::one(put(key, "1"))).unwrap();
                    barrier.wait();
                    smol::block_on(task).unwrap();
                }
            });
        }
    });
    assert_eq!(engine.stats().commits, u64::from(2 * scaled(200)));
}

#[test]
fn the_futures_can_be_sent_and_kept() {
    fn is_kept<T: Future + Send + Unpin + 'static>(_: &T) {}
    fn is_sent<T: Future + Send>(_: T) {}
    let store = AsyncStore::from(Store::in_memory().unwrap());
    let (set, remove): (Submitted<()>, Submitted<bool>) = (store.set("a", &1), store.remove("a"));
    is_kept(&set);
    is_kept(&remove);
    let close: Job<()> = store.close();
    is_kept(&close);
    is_sent(store.update("a", |n: Option<u32>| n));
    is_sent(store.take::<u32>("a"));
    is_sent(store.transaction(|tx| tx.set("a", &1)));
    let _ = smol::block_on(async { (set.await, remove.await, close.await) });
}

/// A call that finds a reserved id returns it at once. While another call reserves ids, no thread
/// that polls waits for it.
#[test]
fn an_id_of_a_task_needs_no_thread_and_no_wait_if_it_is_reserved() {
    let (store, disk) = on_disk(&Store::options());
    assert_eq!(smol::block_on(store.next_id("ids")).unwrap(), 1);
    for id in 2..=256 {
        assert_eq!(ready(store.next_id("ids")).unwrap(), id);
    }
    let gate = hold_syncs(&disk);
    let mut reserving = store.next_id("ids");
    gate.wait_for(1);
    let mut waiting = store.next_id("ids");
    assert!(poll(&mut reserving).is_pending() && poll(&mut waiting).is_pending());
    gate.release();
    let mut ids = smol::block_on(async { [reserving.await.unwrap(), waiting.await.unwrap()] });
    ids.sort_unstable();
    assert_eq!(ids, [257, 258]);
}

#[test]
fn tasks_that_pop_make_and_number_get_what_threads_get() {
    let store = AsyncStore::from(Store::in_memory().unwrap());
    smol::block_on(async {
        for n in 0..20_u64 {
            store.set(format!("jobs/{n:02}"), &n).await.unwrap();
        }
        // All are on their way before the first is awaited: each gets an entry of its own.
        let popped: Vec<_> = (0..8).map(|_| store.pop_first("jobs/"..)).collect();
        let last = store.pop_last("jobs/"..);
        for (n, popped) in popped.into_iter().enumerate() {
            assert_eq!(popped.await.unwrap().unwrap().value::<usize>().unwrap(), n);
        }
        assert_eq!(last.await.unwrap().unwrap().value::<u64>().unwrap(), 19);
        // A dropped future takes nothing back, and a range without entries has none.
        drop(store.pop_first(..));
        assert_eq!(store.pop_first(..).await.unwrap().unwrap().key(), b"jobs/09");
        assert!(store.pop_first("x".."a").await.unwrap().is_none());
        assert!(store.pop_last("x"..).await.unwrap().is_none());
        assert_eq!(store.len(), 9);

        assert_eq!(store.replace("port", &1_u16).await.unwrap(), None);
        assert_eq!(store.replace("port", &2_u16).await.unwrap(), Some(1));
        let refused = store.replace("jobs/10", &String::new()).await.unwrap_err();
        assert!(matches!(refused, Error::Decode { .. }), "{refused:?}");
        assert_eq!(store.get("jobs/10").unwrap(), Some(10_u64));

        // The value of another commit beats the one that was made.
        let other = store.blocking().clone();
        let make = || {
            thread::scope(|scope| scope.spawn(|| other.set("device", &1_u64)).join().unwrap())
                .unwrap();
            2_u64
        };
        assert_eq!(store.get_or_insert_with("device", make).await.unwrap(), 1);
        assert_eq!(store.get_or_insert_with("new", || 3_u64).await.unwrap(), 3);
        assert_eq!(store.get_or_insert_with("new", || 4_u64).await.unwrap(), 3);

        let ids = [store.next_id("ids"), store.next_id("ids")];
        let mut found = Vec::new();
        for id in ids {
            found.push(id.await.unwrap());
        }
        found.push(store.blocking().next_id("ids").unwrap());
        found.sort_unstable();
        assert_eq!(found, [1, 2, 3]);
    });
}
