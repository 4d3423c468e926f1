//! Tests of the spans and events of the feature `tracing`: which there are, and that none shows a
//! key, a value or a secret.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_types, reason = "a program of its own")]

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex};

use codex_core::vfs::CallKind;
use codex_core::vfs::fault::{Calls, Fault, FaultDir, Lasting, Side};
use codex_core::{Backups, Store};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// A subscriber that keeps the text of all spans and events.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<String>>>);

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

impl Kept {
    fn keep(&self, name: &str, record: impl FnOnce(&mut Text)) {
        let mut text = Text(name.to_owned());
        record(&mut text);
        self.0.lock().unwrap().push(text.0);
    }

    /// Calls `f` and returns the texts of its spans and events.
    fn of(f: impl FnOnce()) -> Vec<String> {
        let kept = Self::default();
        tracing::subscriber::with_default(kept.clone(), f);
        let texts = kept.0.lock().unwrap();
        texts.clone()
    }
}

impl Subscriber for Kept {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.keep(span.metadata().name(), |text| span.record(text));
        Id::from_u64(1)
    }

    fn event(&self, event: &Event<'_>) {
        self.keep("event", |text| event.record(text));
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}
    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}
    fn enter(&self, _span: &Id) {}
    fn exit(&self, _span: &Id) {}
}

fn names(texts: &[String]) -> Vec<&str> {
    texts.iter().map(|text| text.split(' ').next().unwrap()).collect()
}

#[test]
fn each_step_of_a_store_has_its_span() {
    let disk = FaultDir::new();
    let vfs = disk.vfs(1);
    let open = || Store::options().open_in(&vfs, "a.db").unwrap();
    let texts = Kept::of(|| drop(open()));
    let open_span = format!("open path={}", vfs.dir.path("a.db").display());
    assert_eq!(texts, [open_span, "recovery".to_owned()]);
    let store = open();
    assert_eq!(names(&Kept::of(|| store.set("k", "v").unwrap())), ["commit_group"]);
    assert_eq!(names(&Kept::of(|| store.checkpoint().unwrap())), ["checkpoint"]);
    store.set("k", "w").unwrap();
    let texts = Kept::of(|| drop(store.back_up().unwrap()));
    assert_eq!(names(&texts), ["backup"]);
    assert!(Kept::of(|| assert!(store.get::<String>("k").unwrap().is_some())).is_empty());
}

#[test]
fn a_failed_backup_a_poisoned_store_and_a_cut_tail_are_events() {
    let disk = FaultDir::new();
    let vfs = disk.vfs(1);
    let store = Store::options().open_in(&vfs, "a.db").unwrap();
    store.set("k", "v").unwrap();
    let failing = |calls: Calls| disk.fail_on(calls, 1, Fault::Eio, Lasting::Sticky, Side::Before);
    failing(Calls::of(CallKind::Write).on("a.db.bak.tmp"));
    let texts = Kept::of(|| drop(store.back_up().unwrap_err()));
    let failed = texts.iter().filter(|text| text.contains("message=a backup failed error="));
    assert_eq!(failed.count(), 1, "{texts:?}");
    disk.clear_plan();
    failing(Calls::of(CallKind::Sync));
    let texts = Kept::of(|| {
        store.set("k", "w").unwrap_err();
        store.set("k", "x").unwrap_err();
    });
    let poisoned = texts.iter().filter(|text| text.contains("the store refuses writes"));
    assert_eq!(poisoned.count(), 1, "{texts:?}");
    // A commit that was written in part.
    let disk = FaultDir::new();
    let store = Store::options().open_in(&disk.vfs(1), "a.db").unwrap();
    store.set("k", "v").unwrap();
    let disk = disk.crash_process();
    let vfs = disk.vfs(2);
    let log = vfs.dir.list().unwrap().into_iter().find(|name| name.contains(".wal.")).unwrap();
    let file = vfs.dir.open(&log, codex_core::vfs::Open::Write).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let last = bytes.iter().rposition(|&byte| byte != 0).unwrap();
    file.write_all_at(&[0; 20], u64::try_from(last).unwrap() - 19).unwrap();
    let texts = Kept::of(|| drop(Store::options().open_in(&vfs, "a.db").unwrap()));
    let cut = texts.iter().filter(|text| text.contains("the end of the log was cut"));
    assert_eq!(cut.count(), 1, "{texts:?}");
}

#[cfg(feature = "crypto")]
#[test]
fn no_span_or_event_shows_a_key_a_value_or_a_secret() {
    use codex_core::crypto::Key;

    let disk = FaultDir::new();
    let vfs = disk.vfs(1);
    let raw = |byte| Key::raw(&[byte; 32]).unwrap();
    let texts = Kept::of(|| {
        let store = Store::options().key(raw(b'Q')).open_in(&vfs, "a.db").unwrap();
        store.set("the key of the user", "the value of the user").unwrap();
        store.update("the key of the user", |v: Option<String>| v).unwrap();
        store.checkpoint().unwrap();
        store.back_up().unwrap();
        store.rekey(raw(b'R')).unwrap();
        store.set("the key of the user", "the value of the user").unwrap();
        store.get::<u64>("the key of the user").unwrap_err();
        disk.fail_on(Calls::of(CallKind::Sync), 1, Fault::Eio, Lasting::Sticky, Side::Before);
        store.back_up().unwrap_err();
        store.set("the key of the user", "another value of the user").unwrap_err();
        drop(store);
        Store::options().key(raw(b'S')).open_in(&vfs, "a.db").unwrap_err();
        let _ = Backups::of_in(&vfs, "a.db").key(raw(b'R')).list();
    });
    assert!(names(&texts).contains(&"rekey"), "{texts:?}");
    for text in &texts {
        for secret in ["of the user", "QQQQ", "RRRR", "SSSS", "515151", "525252"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}
