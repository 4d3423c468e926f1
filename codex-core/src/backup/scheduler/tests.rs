//! Tests of the newest backup that the scheduler knows.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use codex_storage::vfs::Observed;

use super::*;
use crate::Store;

/// Returns the last commit of the newest backup that the scheduler knows, after it has looked for
/// an earlier backup. At its call number `nth` to the disk (from 0), another backup is made.
/// Returns `None` if there are fewer calls.
fn looked_back(nth: u64) -> Option<Seq> {
    let vfs = Vfs::mem(1);
    let store = Store::options().open_in(&vfs, "a.db").unwrap();
    store.set("n", &1).unwrap();
    store.back_up().unwrap();
    store.close().unwrap();
    let (waiting, calls) = (Arc::new(Mutex::new(None::<Store>)), AtomicU64::new(0));
    let beside = Arc::clone(&waiting);
    let watched = Observed::vfs(&vfs, move |_| {
        let store = beside.lock().take_if(|_| calls.fetch_add(1, Ordering::Relaxed) == nth);
        // No lock is held, because these calls come here too.
        if let Some(store) = store {
            store.set("n", &2).unwrap();
            store.back_up().unwrap();
        }
    });
    let store = Store::options().open_in(&watched, "a.db").unwrap();
    let shared = &store.inner.backups.as_ref().unwrap().shared;
    *waiting.lock() = Some(store.clone());
    shared.look_back(&store.inner.engine);
    let is_made = waiting.lock().take().is_none();
    is_made.then(|| shared.last.lock().unwrap().seq)
}

#[test]
fn a_backup_made_while_the_thread_looks_for_an_earlier_one_stays_the_newest() {
    let calls = (0..).map_while(looked_back).inspect(|seq| assert_eq!(*seq, 2)).count();
    assert!(calls > 3, "{calls}");
}
