//! Tests that user code (closures, encodings and keys) runs under no lock and may use the store.

use std::future::Future;
use std::pin::pin;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use crate::common::{FORMS, open, options, seed, until};
use codex_core::vfs::fault::{Calls, FaultDir};
use codex_core::vfs::{CallKind, Clock as _, SimClock, Vfs};
use codex_core::{AsyncStore, Durability, Error, Form, Store};

#[test]
fn user_code_runs_under_no_lock() {
    /// A value whose encoding and decoding use the store, which user code may do.
    #[derive(Debug, PartialEq)]
    struct Nosy(u32);

    thread_local! {
        static STORE: std::cell::RefCell<Option<Store>> = const { std::cell::RefCell::new(None) };
    }
    fn touch() {
        let store = STORE.with(|store| store.borrow().clone()).unwrap();
        store.set("touched", &1).unwrap();
        assert!(store.iter().count() >= 1 && store.get::<i32>("touched").unwrap().is_some());
    }
    impl serde::Serialize for Nosy {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            touch();
            self.0.serialize(serializer)
        }
    }
    impl<'de> serde::Deserialize<'de> for Nosy {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            touch();
            u32::deserialize(deserializer).map(Self)
        }
    }

    /// A key whose conversion to bytes uses the store.
    struct NosyKey(&'static str);
    impl AsRef<[u8]> for NosyKey {
        fn as_ref(&self) -> &[u8] {
            touch();
            self.0.as_bytes()
        }
    }

    for form in FORMS {
        let vfs = Vfs::mem(crate::common::seed());
        let store = open(&vfs, form);
        STORE.set(Some(store.clone()));
        store.set(NosyKey("k"), &1_u8).unwrap();
        assert!(store.contains_key(NosyKey("k")) && store.get_bytes(NosyKey("k")).is_some());
        assert_eq!(store.range(NosyKey("k")..=NosyKey("k")).count(), 1);
        assert_eq!(store.prefix(NosyKey("k")).count(), 1);
        assert!(store.snapshot().contains_key(NosyKey("k")));
        assert!(store.update(NosyKey("k"), |_: Option<u8>| None).unwrap().is_none());
        assert!(!store.remove(NosyKey("k")).unwrap());
        assert_eq!(store.remove_prefix(NosyKey("k")).unwrap(), 0);
        assert!(store.pop_first(NosyKey("k")..=NosyKey("k")).unwrap().is_none());
        assert_eq!(store.get_or_insert_with(NosyKey("l"), || Nosy(7)).unwrap(), Nosy(7));
        assert_eq!(store.replace(NosyKey("l"), &Nosy(8)).unwrap(), Some(Nosy(7)));
        assert_eq!(store.next_id(NosyKey("id")).unwrap(), 1);
        assert!(store.watch(NosyKey("k")).unwrap().try_next().is_none());
        store.set("n", &Nosy(1)).unwrap();
        assert_eq!(store.get("n").unwrap(), Some(Nosy(1)));
        let add = |n: Option<Nosy>| {
            store.update("inner", |n: Option<u32>| Some(n.unwrap_or(0) + 1)).unwrap();
            store.remove("touched").unwrap();
            n.map(|n| Nosy(n.0 + 1))
        };
        assert_eq!(store.update("n", add).unwrap(), Some(Nosy(2)));
        assert!(store.compare_exchange("n", Some(&Nosy(2)), Some(&Nosy(3))).unwrap());
        let mut batch = store.batch();
        batch.set("m", &Nosy(4)).unwrap();
        batch.commit().unwrap();
        let all: Result<Vec<Nosy>, Error> = store.range("m"..="n").map(|e| e.value()).collect();
        assert_eq!(all.unwrap(), [Nosy(4), Nosy(3)], "{form}");
        STORE.set(None);
    }
}

#[test]
fn the_closure_of_an_update_may_use_the_store() {
    let store = Store::in_memory().unwrap();
    store.set("other", "other").unwrap();
    let mut calls = 0;
    let new = store.update("n", |n: Option<u32>| {
        calls += 1;
        store.set("seen", &calls).unwrap();
        store.update("inner", |inner: Option<u32>| Some(inner.unwrap_or(0) + 1)).unwrap();
        assert!(store.contains_key("other") && store.iter().count() >= 2);
        Some(n.unwrap_or(0) + store.get::<u32>("inner").unwrap().unwrap())
    });
    assert_eq!(new.unwrap(), Some(1));
    assert_eq!((calls, store.get("inner").unwrap()), (1, Some(1_u32)));
}

#[test]
fn a_waker_runs_under_no_lock_and_its_panic_is_not_that_of_the_writer() {
    /// A waker that uses the store, and then panics.
    struct NosyWaker(std::sync::Mutex<Option<Store>>);
    impl std::task::Wake for NosyWaker {
        fn wake(self: Arc<Self>) {
            let store = self.0.lock().unwrap().take().unwrap();
            let is_closed = store.set("woken", &1).is_err_and(|error| error.is_closed());
            assert!(is_closed || store.watch("").unwrap().try_next().is_none());
            assert!(store.contains_key("k"));
            // Unwinds without printing a message, because the panic is intended.
            std::panic::resume_unwind(Box::new("a waker panics on demand"));
        }
    }

    for form in FORMS {
        let store = open(&Vfs::mem(crate::common::seed()), form);
        let mut watches = [store.watch("").unwrap(), store.watch("").unwrap()];
        let mut poll = |store: &Store| {
            watches.each_mut().map(|watch| {
                while watch.try_next().is_some() {}
                let waker = Arc::new(NosyWaker(Some(store.clone()).into()));
                let pending = watch.poll_next(&mut Context::from_waker(&waker.clone().into()));
                assert!(pending.is_pending());
                waker
            })
        };
        let wakers = poll(&store);
        store.set("k", &1).unwrap();
        assert!(wakers.iter().all(|waker| waker.0.lock().unwrap().is_none()), "{form}");
        let wakers = poll(&store);
        store.close().unwrap();
        assert!(wakers.iter().all(|waker| waker.0.lock().unwrap().is_none()), "{form}");
    }
}

/// A call to a store, which a waker makes, or which makes a commit that wakes a task.
type Call = fn(&Store) -> Result<(), Error>;

const SET: Call = |store| store.set("set", &1);
const SYNCED: Call = |store| {
    let mut batch = store.batch();
    batch.set("synced", &1)?.durability(Durability::Sync);
    batch.commit().map(drop)
};
const NEXT_ID: Call = |store| store.next_id("ids").map(drop);
const CLOSE: Call = |store| store.close();
const BY_A_WAKER: [(&str, Call); 8] = [
    ("set", SET),
    ("a synced batch", SYNCED),
    ("next_id", NEXT_ID),
    ("flush", |store| store.flush().map(drop)),
    ("checkpoint", Store::checkpoint),
    ("back_up", |store| store.back_up().map(drop)),
    ("watch", |store| store.watch("").map(drop)),
    ("close", CLOSE),
];

/// A waker that calls a function once.
struct Once<F>(Mutex<Option<F>>);

impl<F: FnOnce() + Send + 'static> Wake for Once<F> {
    fn wake(self: Arc<Self>) {
        let call = self.0.lock().unwrap().take();
        if let Some(call) = call {
            call();
        }
    }
}

fn waker(call: impl FnOnce() + Send + 'static) -> Waker {
    Arc::new(Once(Mutex::new(Some(call)))).into()
}

/// Returns a waker that makes `call`, and the receiver of its outcome. If the waker panics, nothing
/// is received.
fn calling(store: &Store, call: Call) -> (Waker, Receiver<Result<(), Error>>) {
    let (outcome, outcomes) = channel();
    let store = store.clone();
    (waker(move || outcome.send(call(&store)).unwrap()), outcomes)
}

#[test]
fn the_waker_of_a_watch_may_make_any_call_inside_each_kind_of_commit() {
    let causes = [("set", SET), ("a synced batch", SYNCED), ("next_id", NEXT_ID), ("close", CLOSE)];
    for form in FORMS {
        for (cause, commit) in causes {
            for (name, call) in BY_A_WAKER {
                let store = open(&Vfs::mem(seed()), form);
                // The close gives back the rest of these ids, with a commit.
                store.next_id(if cause == "close" { "ids" } else { "others" }).unwrap();
                let mut watch = store.watch("").unwrap();
                let (waker, outcome) = calling(&store, call);
                assert!(watch.poll_next(&mut Context::from_waker(&waker)).is_pending());
                drop(waker);
                commit(&store).unwrap();
                let made = outcome.recv().unwrap_or_else(|_| {
                    panic!("{form}: {name} by a waker inside {cause} was not made")
                });
                made.unwrap();
                drop(watch);
            }
        }
    }
}

#[test]
fn the_waker_of_a_future_may_make_any_call_inside_the_commit_of_a_thread() {
    for form in FORMS {
        for (cause, commit) in [("set", SET), ("a synced batch", SYNCED), ("next_id", NEXT_ID)] {
            for (name, call) in BY_A_WAKER {
                let disk = FaultDir::new();
                let store = options(form).open_in(&disk.vfs(seed()), "a.db").unwrap();
                let tasks = AsyncStore::from(store.clone());
                let gate = disk.hold(Calls::of(CallKind::Sync));
                drop(tasks.set("held", &0));
                gate.wait_for(1);
                thread::scope(|scope| {
                    scope.spawn(|| commit(&store).unwrap());
                    // The thread leads the next group, and wakes the task that is in it.
                    until("the thread waits", || store.stats().waiting == 1);
                    let mut member = pin!(tasks.set("member", &1));
                    let (waker, outcome) = calling(&store, call);
                    let polled = member.as_mut().poll(&mut Context::from_waker(&waker));
                    assert!(polled.is_pending());
                    drop(waker);
                    gate.release();
                    let made = outcome.recv().unwrap_or_else(|_| {
                        panic!("{form}: {name} by a waker inside {cause} was not made")
                    });
                    made.unwrap();
                });
            }
        }
    }
}

/// Each group has one commit, because of its size. The write of a waker waits for the commits that
/// were there before, and a thread must lead for them.
#[test]
fn wakers_that_wait_for_the_store_do_not_wait_for_each_other() {
    let disk = FaultDir::new();
    let store = AsyncStore::from(options(Form::Wal).open_in(&disk.vfs(seed()), "a.db").unwrap());
    let gate = disk.hold(Calls::of(CallKind::Sync));
    let large = vec![0; 5 << 20];
    let mut futures: Vec<_> = (0..6).map(|n| store.set_bytes(format!("{n}"), &large)).collect();
    gate.wait_for(1);
    for (n, future) in futures.iter_mut().enumerate() {
        let blocking = store.blocking().clone();
        let waker = waker(move || blocking.set(format!("by waker {n}"), &n).unwrap());
        assert!(pin!(future).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    gate.release();
    until("each waker has written", || store.prefix("by waker ").count() == 6);
}

/// A thread of the store that closes it must not wait for its own end.
#[test]
fn a_waker_may_drop_the_last_handle_on_the_thread_that_sweeps() {
    for form in FORMS {
        let clock = SimClock::new();
        let mut vfs = Vfs::mem(seed());
        vfs.clock = Arc::new(clock.clone());
        let store = options(form).open_in(&vfs, "a.db").unwrap();
        let at_us = u64::try_from(clock.now_us()).unwrap() + 1;
        let mut watch = store.watch("").unwrap();
        store.set_with_expiry("k", &1, UNIX_EPOCH + Duration::from_micros(at_us)).unwrap();
        assert!(watch.try_next().is_some(), "the entry is set");
        let waker = waker(move || drop(store));
        assert!(watch.poll_next(&mut Context::from_waker(&waker)).is_pending());
        clock.advance(Duration::from_micros(1));
        let mut opened = None;
        until("the store is closed", || {
            opened = options(form).open_in(&vfs, "a.db").ok();
            opened.is_some()
        });
        let opened = opened.unwrap();
        assert!(opened.recovered().clean, "{form}: the store was not closed cleanly");
        assert_eq!((opened.stats().expiring, watch.count()), (0, 1), "{form}");
    }
}

fn in_another_thread(run: impl FnOnce() + Send) {
    std::thread::scope(|scope| scope.spawn(run).join().unwrap());
}

#[test]
fn an_update_whose_key_changes_under_its_closure_sees_the_change() {
    let store = Store::in_memory().unwrap();
    let mut interfered = false;
    let new = store.update("n", |n: Option<u32>| {
        if !std::mem::replace(&mut interfered, true) {
            in_another_thread(|| store.set("n", &40_u32).unwrap());
        }
        Some(n.unwrap_or(0) + 2)
    });
    assert_eq!((new.unwrap(), store.get("n").unwrap()), (Some(42), Some(42_u32)));
}

#[test]
fn an_update_that_is_overtaken_every_time_gives_up_with_contended() {
    let store = Store::in_memory().unwrap();
    let updated = store.update("n", |_: Option<u32>| {
        in_another_thread(|| store.set("n", &7_u32).unwrap());
        Some(1)
    });
    assert!(matches!(updated, Err(Error::Contended { rounds: 1_000, .. })), "{updated:?}");
    assert_eq!(store.get("n").unwrap(), Some(7_u32));
}

#[test]
fn an_update_whose_closure_writes_its_own_key_is_an_error_at_once() {
    type Write = fn(&Store);
    let writes: [Write; 8] = [
        |store| store.set("k", &5_u32).unwrap(),
        |store| assert!(store.remove("k").unwrap()),
        |store| store.clear().unwrap(),
        |store| assert_eq!(store.remove_prefix("k").unwrap(), 1),
        |store| assert!(store.pop_first(..).unwrap().is_some()),
        |store| assert_eq!(store.replace("k", &5_u32).unwrap(), Some(1)),
        |store| {
            let mut batch = store.batch();
            batch.set("other", &1_u32).unwrap().set("k", &5_u32).unwrap();
            batch.commit().unwrap();
        },
        |store| assert!(store.update("k", |n: Option<u32>| n.map(|n| n + 1)).is_ok()),
    ];
    for write in writes {
        let store = Store::in_memory().unwrap();
        store.set("k", &1_u32).unwrap();
        let mut rounds = 0;
        let error = store.update("k", |n: Option<u32>| {
            rounds += 1;
            write(&store);
            n
        });
        let error = error.unwrap_err();
        assert!(matches!(error, Error::UpdatesItself { key_len: 1 }), "{error}");
        assert!(error.to_string().contains("writes the key"), "{error}");
        assert_eq!(rounds, 1);
        // No record of the update is left.
        store.update("k", |n: Option<u32>| Some(n.unwrap_or(0) + 1)).unwrap();
    }
}

#[test]
fn an_update_whose_closure_writes_other_keys_or_another_store_goes_on() {
    let (store, other) = (Store::in_memory().unwrap(), Store::in_memory().unwrap());
    let updated = store.update("k", |n: Option<u32>| {
        store.set("a", &1_u32).unwrap();
        other.set("k", &2_u32).unwrap();
        // Another key is popped.
        assert_eq!(store.pop_first(..).unwrap().unwrap().key(), b"a");
        assert_eq!(store.next_id("id").unwrap(), 1);
        // Removing a missing key changes nothing.
        assert!(!store.remove("k").unwrap());
        store.update("b", |_: Option<u32>| Some(3)).unwrap();
        Some(n.unwrap_or(0) + 1)
    });
    assert_eq!(updated.unwrap(), Some(1));
    // A panic ends the update, too.
    let panicking = std::panic::catch_unwind(|| {
        let _ = store.update("k", |_: Option<u32>| -> Option<u32> { panic!("of the user") });
    });
    assert!(panicking.is_err());
    store.set("k", &7_u32).unwrap();
    assert_eq!(store.take::<u32>("k").unwrap(), Some(7));
}
