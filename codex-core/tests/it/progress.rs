//! The reports of the progress of long calls.
#![allow(clippy::disallowed_types, reason = "a test records what it is told")]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use codex_core::crypto::Key;
use codex_core::vfs::{Mode, Open, Vfs};
use codex_core::{Backups, Conversion, Form, OpenOptions, RestorePoint, Store};

/// The reports so far.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(u64, u64)>>>);

impl Log {
    /// Returns the function that records the reports.
    fn recorder(&self) -> impl Fn(u64, u64) + Send + Sync + 'static {
        let log = self.clone();
        move |done, total| log.0.lock().unwrap().push((done, total))
    }

    fn take(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// Checks the reports of a call that has succeeded.
    #[track_caller]
    fn is_whole(&self, call: &str) {
        let reports = self.take();
        let total = reports.first().unwrap_or_else(|| panic!("{call}: no reports")).1;
        assert_eq!(reports[0], (0, total), "{call}");
        assert_eq!(reports.last(), Some(&(total, total)), "{call}");
        assert!(reports.is_sorted_by(|a, b| a.0 < b.0 && a.1 == b.1), "{call}: {reports:?}");
        assert!((8..=203).contains(&reports.len()), "{call}: {} reports", reports.len());
        // The estimate of the total is not far off.
        let before = reports[reports.len() - 2].0;
        assert!(before >= total / 5 * 3, "{call}: {before} of {total}");
    }

    /// Checks the reports of a call that has failed.
    #[track_caller]
    fn is_broken_off(&self, call: &str) {
        let reports = self.take();
        assert!(reports.len() > 1, "{call}: {reports:?}");
        assert!(reports.is_sorted_by(|a, b| a.0 < b.0 && a.1 == b.1), "{call}: {reports:?}");
        assert!(reports.iter().all(|(done, total)| done < total), "{call}: {reports:?}");
    }
}

fn key(n: u8) -> Key {
    Key::raw(&[n; 32]).unwrap()
}

fn options(form: Form, log: &Log) -> OpenOptions {
    Store::options().form(form).on_progress(log.recorder())
}

/// Sets 2,000 entries of a kilobyte, in 20 commits.
fn fill(store: &Store) {
    for part in 0..20_u32 {
        let mut batch = store.batch();
        for n in 0..100 {
            let value = (part * 100 + n).to_le_bytes().repeat(250);
            batch.set_bytes(format!("{part:03} {n:03}"), value).unwrap();
        }
        batch.commit().unwrap();
    }
}

#[test]
fn each_long_call_reports_how_far_it_is() {
    for form in [Form::Wal, Form::Snapshot, Form::Ledger] {
        let (log, vfs) = (Log::default(), Vfs::mem(1));
        let store = options(form, &log).open_in(&vfs, "app.db").unwrap();
        fill(&store);
        assert_eq!(
            log.take(),
            [],
            "{form}: a new store has no bytes, and commits are no long calls"
        );
        store.verify().unwrap();
        log.is_whole(&format!("{form}: verify beside the writer"));
        store.back_up().unwrap();
        store.close().unwrap();
        drop(store);
        log.take();

        let store = options(form, &log).open_in(&vfs, "app.db").unwrap();
        log.is_whole(&format!("{form}: open"));
        store.set("a", &1).unwrap();
        store.close().unwrap();
        drop(store);
        assert_eq!(log.take(), [], "{form}: after the opening");
        let reader = Store::options().read_only(true).on_progress(log.recorder());
        let reader = reader.open_in(&vfs, "app.db").unwrap();
        log.is_whole(&format!("{form}: open to read"));
        reader.verify().unwrap();
        log.is_whole(&format!("{form}: verify of a reader"));
        drop(reader);

        let backups = Backups::of_in(&vfs, "app.db").on_progress(log.recorder());
        backups.verify(1).unwrap();
        log.is_whole(&format!("{form}: verify of a backup"));
        if form == Form::Ledger {
            backups.restore_until(RestorePoint::Seq(20)).unwrap();
            log.is_whole(&format!("{form}: restore of a state"));
        }
        backups.restore(1).unwrap();
        log.is_whole(&format!("{form}: restore"));
        for to in [Form::Ledger, Form::Ledger, Form::Wal] {
            let conversion = Conversion::new().form(to).on_progress(log.recorder());
            conversion.convert_in(&vfs, "app.db").unwrap();
            log.is_whole(&format!("{form}: conversion to {to}"));
        }
    }
}

#[test]
fn a_rekey_reports_how_far_it_is() {
    for form in [Form::Wal, Form::Ledger, Form::Snapshot] {
        let (log, vfs) = (Log::default(), Vfs::mem(1));
        let store = options(form, &log).key(key(1)).open_in(&vfs, "app.db").unwrap();
        for n in 0..20 {
            store.set_bytes([n], vec![n; 60_000]).unwrap();
        }
        store.rekey(key(2)).unwrap();
        if form == Form::Snapshot {
            // The image is written in one step.
            let reports = log.take();
            assert_eq!((reports[0].0, reports.len()), (0, 2), "{reports:?}");
            assert_eq!(reports[1].0, reports[1].1);
        } else {
            log.is_whole(&format!("{form}: rekey"));
        }
    }
}

#[test]
fn a_long_call_that_fails_reports_no_end() {
    let (log, vfs) = (Log::default(), Vfs::mem(1));
    let options = Store::options().on_progress(log.recorder());
    let store = options.open_in(&vfs, "app.db").unwrap();
    fill(&store);
    store.checkpoint().unwrap();
    store.back_up().unwrap();
    let damage = |name: &str| {
        let file = vfs.dir.open(name, Open::Read).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        vfs.dir.remove(name).unwrap();
        let file = vfs.dir.open(name, Open::CreateNew(Mode::Private)).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
    };
    damage("app.db");
    assert!(store.verify().unwrap_err().is_damage());
    log.is_broken_off("verify");
    // The damaged file is another one than the store had open.
    store.close().unwrap_err();
    drop(store);
    assert!(options.open_in(&vfs, "app.db").unwrap_err().is_damage());
    log.is_broken_off("open");
    let conversion = Conversion::new().form(Form::Ledger).on_progress(log.recorder());
    assert!(conversion.convert_in(&vfs, "app.db").unwrap_err().is_damage());
    log.is_broken_off("conversion");
    damage("app.db.bak.1");
    let backups = Backups::of_in(&vfs, "app.db").on_progress(log.recorder());
    backups.restore(1).unwrap_err();
    log.is_broken_off("restore");
}

/// Locks a mutex whose holder may have panicked.
fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn the_function_may_use_the_store_and_panic() {
    let vfs = Vfs::mem(1);
    let shared: Arc<Mutex<Option<Store>>> = Arc::default();
    let (own, calls) = (Arc::clone(&shared), Arc::new(Mutex::new(0_u64)));
    let counted = Arc::clone(&calls);
    let ended = Arc::new(Mutex::new(0_u64));
    let ends = Arc::clone(&ended);
    let options = Store::options().key(key(1)).on_progress(move |_, _| {
        // Not during the opening.
        if let Some(store) = &*locked(&own) {
            let mut calls = locked(&counted);
            *calls += 1;
            store.set("from the function", &*calls).unwrap();
            if *calls % 8 == 1 {
                // Waits until the call has ended, which does not wait for this function.
                store.checkpoint().unwrap();
            }
            assert!(*calls != 2, "on purpose");
            *locked(&ends) += 1;
        }
    });
    let store = options.open_in(&vfs, "app.db").unwrap();
    // The writes of the function are few beside these.
    for n in 0..8 {
        store.set_bytes([n], vec![n; 300_000]).unwrap();
    }
    *shared.lock().unwrap() = Some(store.clone());
    store.verify().unwrap();
    let verified = *locked(&calls);
    assert!(verified >= 8, "{verified}");
    store.rekey(key(2)).unwrap();
    let calls = *locked(&calls);
    assert!(calls >= verified + 8, "{calls}");
    // No call but the one that panics on purpose was ended by a panic.
    assert_eq!(*locked(&ended), calls - 1);
    assert_eq!(store.get::<u64>("from the function").unwrap(), Some(calls));
}
