//! Tests with a handle that users cannot create.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::Error;

/// Returns the store as a forked child of the opening process has it.
fn forked(store: &Store) -> Store {
    let Inner { engine, codec, form, access, recovered, opened_by, .. } = &*store.inner;
    Store::new(Inner {
        on_progress: None,
        engine: Arc::clone(engine),
        backups: None,
        #[cfg(feature = "remote")]
        archive: None,
        codec: *codec,
        path: "app.db".into(),
        form: *form,
        access: *access,
        recovered: recovered.clone(),
        files: None,
        restored: None,
        lock: None,
        ids: crate::ids::Ids::default(),
        past: crate::history::Past::default(),
        opened_by: opened_by + 1,
    })
}

#[test]
fn a_handle_in_a_forked_child_is_refused_and_says_why() {
    let store = Store::in_memory().unwrap();
    let child = forked(&store);
    let id = std::process::id();
    let refused = |error: Error| match error {
        Error::ForkedChild { opened_by, used_by, .. } => (opened_by, used_by) == (id + 1, id),
        _ => false,
    };
    assert!(child.set("k", &1).is_err_and(refused));
    assert!(child.remove("k").is_err_and(refused));
    assert!(child.clear().is_err_and(refused));
    assert!(child.update("k", |_: Option<u8>| Some(1)).is_err_and(refused));
    assert!(child.compare_exchange("k", None, Some(&1)).is_err_and(refused));
    assert!(child.flush().is_err_and(refused));
    assert!(child.checkpoint().is_err_and(refused));
    assert!(child.close().is_err_and(refused));
    assert!(child.anchor().is_err_and(refused));
    assert!(child.verify().is_err_and(refused));
    assert!(child.take::<u8>("k").is_err_and(refused));
    assert!(child.try_update("k", |_: Option<u8>| Ok::<_, Error>(Some(1))).is_err_and(refused));
    assert!(child.back_up().is_err_and(refused));
    assert!(child.backup_to("copy.db").is_err_and(refused));
    assert!(child.watch("k").is_err_and(refused));
    assert!(child.transaction(|tx| tx.set("k", &1)).is_err_and(refused));
    assert!(child.next_id("k").is_err_and(refused));
    let tasks = crate::AsyncStore::from(child.clone());
    smol::block_on(async {
        assert!(tasks.set("k", &1).await.is_err_and(refused));
        assert!(tasks.remove("k").await.is_err_and(refused));
        assert!(tasks.clear().await.is_err_and(refused));
        assert!(tasks.pop_first(..).await.is_err_and(refused));
        assert!(tasks.compare_exchange("k", None, Some(&1)).await.is_err_and(refused));
        assert!(tasks.update("k", |_: Option<u8>| Some(1)).await.is_err_and(refused));
        assert!(tasks.transaction(|tx| tx.set("k", &1)).await.is_err_and(refused));
        assert!(tasks.next_id("k").await.is_err_and(refused));
        assert!(tasks.watch("k").await.is_err_and(refused));
        assert!(tasks.flush().await.is_err_and(refused));
        assert!(tasks.checkpoint().await.is_err_and(refused));
        assert!(tasks.back_up().await.is_err_and(refused));
        assert!(tasks.close().await.is_err_and(refused));
        let mut batch = tasks.batch();
        batch.set("k", &1).unwrap();
        assert!(batch.submit().await.is_err_and(refused));
    });
    let mut batch = child.batch();
    batch.set("k", &1).unwrap();
    let error = batch.commit().unwrap_err();
    assert!(error.to_string().contains("open the store after forking"), "{error}");
    assert!(store.is_empty());
}

#[test]
fn dropping_the_handle_of_a_forked_child_leaves_the_parents_store_open() {
    let store = Store::in_memory().unwrap();
    let (engine, before) =
        (Arc::clone(&store.inner.engine), Arc::strong_count(&store.inner.engine));
    drop(forked(&store));
    assert_eq!(Arc::strong_count(&engine), before + 1, "the child must not run its destructor");
    store.set("k", &1).unwrap();
}

#[test]
fn what_a_user_holds_may_be_used_after_a_caught_panic() {
    use std::panic::{RefUnwindSafe, UnwindSafe};

    use crate::{Batch, Codec, Conversion, Entry, Iter, Key, Keys, Snapshot, Stats, ValueRef};

    fn held<T: UnwindSafe + RefUnwindSafe>() {}
    held::<Store>();
    held::<Snapshot>();
    held::<Batch>();
    held::<Iter>();
    held::<Keys>();
    held::<Entry>();
    held::<Key>();
    held::<ValueRef>();
    held::<Codec>();
    held::<Stats>();
    held::<Conversion>();
    held::<crate::Backups>();
}
