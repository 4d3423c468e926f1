//! Tests of the warning about a batch that is dropped without a commit.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::RefCell;

use super::*;

thread_local! {
    static WARNINGS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn warn(line: &str) {
    WARNINGS.with_borrow_mut(|warnings| warnings.push(line.to_owned()));
}

/// Returns the warnings of `work` on this thread.
fn warnings(work: impl FnOnce(&Store)) -> Vec<String> {
    work(&Store::in_memory().unwrap());
    WARNINGS.take()
}

#[test]
#[cfg(debug_assertions)]
fn a_batch_that_is_dropped_with_changes_warns_and_names_its_place() {
    let found = warnings(|store| {
        let mut batch = store.batch();
        batch.set("secret", "secret").unwrap().remove("b").unwrap();
    });
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("batch/tests.rs:") && found[0].contains("2 changes"), "{found:?}");
    assert!(!found[0].contains("secret"));
    // Filled again after a commit.
    let found = warnings(|store| {
        let mut batch = store.batch();
        batch.set("a", &1).unwrap().commit().unwrap();
        batch.remove("a").unwrap();
    });
    assert_eq!(found.len(), 1);
}

#[test]
fn a_batch_without_changes_or_with_a_decision_about_them_does_not_warn() {
    let found = warnings(|store| {
        drop(store.batch());
        store.batch().set("a", &1).unwrap().commit().unwrap();
        let mut discarded = store.batch();
        discarded.set("a", &2).unwrap();
        discarded.discard();
        // The caller has the error of a refused change, or of a failed commit.
        let mut refused = store.batch();
        refused.set("a", &3).unwrap().set(vec![0; 65_536], &1).unwrap_err();
        drop(refused);
        let mut late = store.batch();
        late.set("a", &4).unwrap();
        store.close().unwrap();
        assert!(late.commit().unwrap_err().is_closed());
        assert_eq!(store.get("a").unwrap(), Some(1));
    });
    assert_eq!(found, [""; 0]);
}

#[test]
fn a_batch_that_is_dropped_by_a_panic_does_not_warn() {
    let found = warnings(|store| {
        let panicking = std::panic::catch_unwind(|| {
            let mut batch = store.batch();
            batch.set("a", &1).unwrap();
            std::panic::resume_unwind(Box::new("of the user"));
        });
        assert!(panicking.is_err());
    });
    assert_eq!(found, [""; 0]);
}
