//! Tests of the progress of a hot copy. If it is stopped, at any report, no file is left.

use std::ops::ControlFlow;

use crate::common::{FORMS, seed, until};
use codex_core::vfs::fault::{Calls, Fault, FaultDir, Lasting, Side};
use codex_core::vfs::{CallKind, Vfs};
use codex_core::{
    BackupError, BackupPolicy, Backups, Error, Form, OpenOptions, Phase, Progress, Result, Seq,
    Store,
};

/// Each form, plain and encrypted.
fn ways() -> impl Iterator<Item = (Form, bool)> {
    let sealed = FORMS.into_iter().map(|form| (form, true)).filter(|_| cfg!(feature = "crypto"));
    FORMS.into_iter().map(|form| (form, false)).chain(sealed)
}

fn options(form: Form, encrypted: bool) -> OpenOptions {
    let options = Store::options().form(form);
    #[cfg(feature = "crypto")]
    if encrypted {
        return options.key(codex_core::crypto::Key::raw(&[7; 32]).unwrap());
    }
    let _ = encrypted;
    options
}

/// Returns a store of about 400 KB, in several blocks and groups.
fn filled(form: Form, encrypted: bool, vfs: &Vfs) -> Store {
    let store = options(form, encrypted).open_in(vfs, "a.db").unwrap();
    for at in 0..10_u64 {
        store.set_bytes(at.to_string(), vec![u8::try_from(at).unwrap(); 40_000]).unwrap();
    }
    store
}

/// Copies the store, and stops at the report with this number, if there is one.
fn copy(store: &Store, to: &Vfs, stop_at: usize) -> (Result<Seq>, Vec<Progress>) {
    let mut reports = Vec::new();
    let copied = store.backup_to_in(to, "copy.db", &mut |progress| {
        reports.push(progress);
        if reports.len() > stop_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    (copied, reports)
}

fn of(reports: &[Progress], phase: Phase) -> Vec<Progress> {
    reports.iter().filter(|report| report.phase == phase).copied().collect()
}

#[test]
fn the_reports_of_a_hot_copy_rise_and_each_phase_ends_at_its_total() {
    for (form, encrypted) in ways() {
        let (vfs, to) = (Vfs::mem(seed()), Vfs::mem(seed() + 1));
        let store = filled(form, encrypted, &vfs);
        let (copied, reports) = copy(&store, &to, usize::MAX);
        assert_eq!(copied.unwrap(), 10);
        let context = format!("{form} {encrypted} {reports:?}");
        assert!(reports.is_sorted_by_key(|report| report.phase), "{context}");
        let len = to.dir.metadata("copy.db").unwrap().unwrap().len;
        for (phase, total, at_least) in
            [(Phase::Preparing, len, 5), (Phase::Copying, len, 2), (Phase::Verifying, len, 5)]
        {
            let reports = of(&reports, phase);
            let (total, at_least) = match (form, phase) {
                // Nothing is read before the copy.
                (Form::Wal | Form::Snapshot, Phase::Preparing) => (0, 0),
                // The length of an image that is written from memory is an estimate.
                (Form::Wal, Phase::Copying) => {
                    let total = reports.last().unwrap().total;
                    assert!((len..len + len / 10).contains(&total), "{total} for {len}");
                    (total, 5)
                }
                (Form::Ledger, _) => (total, 2),
                _ => (total, at_least),
            };
            assert!(reports.len() >= at_least, "{phase:?} of {context}");
            assert!(reports.is_sorted_by(|a, b| a.done < b.done), "{phase:?} of {context}");
            assert!(reports.iter().all(|report| report.total == total), "{phase:?} of {context}");
            let end = reports.last().map_or(total, |last| last.done);
            assert_eq!(end, total, "{phase:?} of {context}");
        }
    }
}

#[test]
fn a_hot_copy_stopped_at_any_report_leaves_nothing_and_the_store_goes_on() {
    let mut stops = 0;
    for (form, encrypted) in ways() {
        for elsewhere in [true, false] {
            let vfs = Vfs::mem(seed());
            let to = if elsewhere { Vfs::mem(seed() + 1) } else { vfs.clone() };
            let store = filled(form, encrypted, &vfs);
            for stop_at in 0..100 {
                if form != Form::Ledger {
                    // Makes it necessary to write an image.
                    store.set("n", &stop_at).unwrap();
                }
                let (copied, reports) = copy(&store, &to, stop_at);
                let context = format!("{form} {encrypted} {elsewhere}, report {stop_at}");
                let Err(error) = copied else {
                    assert_eq!(reports.len(), stop_at, "{context}");
                    break;
                };
                assert_eq!(reports.len(), stop_at + 1, "{context}");
                let Error::Backup(stopped) = &error else { panic!("{error}; {context}") };
                assert!(matches!(**stopped, BackupError::Stopped { .. }), "{error}; {context}");
                assert!(error.to_string().contains("copy.db"), "{error}; {context}");
                let mut names = vfs.dir.list().unwrap();
                names.extend(to.dir.list().unwrap());
                let stray = names.iter().find(|name| {
                    name.contains("copy.db") || name.contains(".tmp") || name.contains(".bak")
                });
                assert_eq!(stray, None, "{context}");
                stops += 1;
            }
            let copy = options(form, encrypted).read_only(true).open_in(&to, "copy.db").unwrap();
            assert_eq!(copy.get_bytes("7").unwrap()[..], *vec![7; 40_000], "{form} {encrypted}");
        }
    }
    println!("{stops} copies stopped");
    assert!(stops > 100, "{stops}");
}

#[test]
fn a_watch_may_use_the_store_and_even_close_it() {
    let vfs = Vfs::mem(seed());
    let store = filled(Form::Wal, false, &vfs);
    let mut calls = 0;
    let copied = store.backup_to_in(&vfs, "copy.db", &mut |_| {
        calls += 1;
        store.set("heard", &calls).unwrap();
        store.checkpoint().unwrap();
        ControlFlow::Continue(())
    });
    assert!(copied.unwrap() >= 10);
    assert!(calls > 10);
    store.set("n", &1_u64).unwrap();
    let copied = store.backup_to_in(&vfs, "other.db", &mut |_| {
        store.close().unwrap();
        ControlFlow::Continue(())
    });
    // The image was abandoned by the close, or written before it.
    if let Err(error) = copied {
        assert!(error.to_string().contains("closing"), "{error}");
    }
    assert!(!vfs.dir.list().unwrap().iter().any(|name| name.contains(".tmp")));
}

/// Calls at which a backup can be when the store closes.
struct Held {
    form: Form,
    calls: Calls,
}

#[test]
fn closing_gives_up_a_backup_whatever_it_is_at() {
    let held = |form, kind, name: &str| Held { form, calls: Calls::of(kind).on(name) };
    let all = [
        // A ledger whose version is read first.
        held(Form::Ledger, CallKind::Read, "a.db"),
        // The copy: written, read back.
        held(Form::Wal, CallKind::Write, "a.db.bak.tmp"),
        held(Form::Wal, CallKind::Read, "a.db.bak.tmp"),
        held(Form::Snapshot, CallKind::Write, "a.db.bak.tmp"),
        held(Form::Snapshot, CallKind::Read, "a.db.bak.tmp"),
        held(Form::Ledger, CallKind::Write, "a.db.bak.tmp"),
        held(Form::Ledger, CallKind::Read, "a.db.bak.tmp"),
    ];
    for Held { form, calls } in all {
        let context = format!("{form} {calls:?}");
        let disk = FaultDir::new();
        let vfs = disk.vfs(seed());
        let reflinks = Calls::of(CallKind::Reflink);
        disk.fail_on(reflinks, 1, Fault::Unsupported, Lasting::Sticky, Side::Before);
        let policy = BackupPolicy::keep(3).every_commits(2);
        let store = Store::options().form(form).backups(policy).open_in(&vfs, "a.db").unwrap();
        let mut batch = store.batch();
        for at in 0..40_u64 {
            batch.set_bytes(at.to_string(), vec![1; 256 << 10]).unwrap();
        }
        batch.commit().unwrap();
        // At a large offset, because a new segment is also created under such a name while others
        // wait for it.
        let gate = disk.hold(calls.clone().at(5 << 20..6 << 20));
        store.set_bytes("due", "1").unwrap();
        gate.wait_for(1);
        std::thread::scope(|scope| {
            let closing = scope.spawn(|| store.close());
            until("the close has begun", || store.flush().is_err());
            disk.record_trace(true);
            gate.release();
            closing.join().unwrap().unwrap();
        });
        let later = disk.trace().iter().filter(|call| calls.include(call)).count();
        // An image beside which nobody commits is read up to ten blocks ahead, with two calls each.
        let is_read_ahead = form != Form::Ledger && context.contains("[Read]");
        let most = if is_read_ahead { 2 + 2 * 10 } else { 2 };
        assert!(later <= most, "{later} calls later; {context}");
        let backups = Backups::of_in(&vfs, "a.db").list().unwrap();
        assert!(backups.is_empty(), "the backup was made to its end; {context}");
        assert_eq!(store.stats().backups.failed, 0, "nothing failed; {context}");
        let names = vfs.dir.list().unwrap();
        let stray = names.iter().find(|name| name.contains(".tmp") || name.contains(".bak.new"));
        assert_eq!(stray, None, "{context}");
    }
}

#[test]
fn closing_ends_a_hot_copy_that_is_written_from_memory() {
    let disk = FaultDir::new();
    let vfs = disk.vfs(seed());
    let store = Store::options().open_in(&vfs, "a.db").unwrap();
    for at in 0..40_u64 {
        store.set_bytes(at.to_string(), vec![1; 256 << 10]).unwrap();
    }
    let writes = Calls::of(CallKind::Write).on("copy.db.*");
    let gate = disk.hold(writes.clone().at(5 << 20..6 << 20));
    std::thread::scope(|scope| {
        let to = vfs.clone();
        let store = &store;
        let copying = scope.spawn(move || copy(store, &to, usize::MAX).0);
        gate.wait_for(1);
        store.close().unwrap();
        disk.record_trace(true);
        gate.release();
        let error = copying.join().unwrap().unwrap_err();
        assert!(error.to_string().contains("closing"), "{error}");
        assert!(error.to_string().contains("copy.db:"), "{error}");
    });
    let later = disk.trace().iter().filter(|call| writes.include(call)).count();
    assert!(later <= 2, "{later} calls later");
    let stray = vfs.dir.list().unwrap().into_iter().find(|name| name.contains("copy.db"));
    assert_eq!(stray, None);
}
