//! Tests of the parts of the log that an archive gets: they end where no power cut can take a
//! commit back, and none that ends between two looks is missed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::{SEALED, options, sealed, until};
use codex_core::internals::{self, ArchivePoint, EndedLogs, Engine};
use codex_core::vfs::CallKind;
use codex_core::vfs::fault::{Calls, Fault, FaultDir, Lasting, Side, Survivors};
use codex_core::{CheckpointPolicy, Durability, Form, OpenOptions, Store};
use codex_storage::storage::LogPart;

const LEVELS: [Durability; 3] =
    [Durability::Sync, Durability::Interval(Duration::from_secs(3600)), Durability::Os];
const PLENTY: u64 = 1 << 30;

fn opened(disk: &FaultDir, options: OpenOptions) -> Store {
    internals::without_threads(options).open_in(&disk.vfs(1), "a.db").unwrap()
}

fn set(store: &Store, from: u64, count: u64) {
    for n in from..from + count {
        store.set(format!("key {n}"), &n).unwrap();
    }
}

fn bytes(part: &LogPart) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(part.end).unwrap()];
    part.file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn point(engine: &Engine) -> ArchivePoint {
    engine.archive_point().unwrap()
}

/// Asserts that the logs continue one another from the commit `base` up to `last`.
fn assert_chain(parts: &[LogPart], base: u64, last: u64) {
    let mut at = base;
    for (n, part) in parts.iter().enumerate() {
        assert_eq!(part.base_seq, at, "{parts:?}");
        assert!(n == 0 || part.follows == parts[n - 1].file_id, "{parts:?}");
        at = part.seq;
    }
    assert_eq!(at, last, "{parts:?}");
}

#[test]
fn a_power_cut_takes_back_no_commit_of_a_part() {
    let forms = [Form::Wal, Form::Ledger].into_iter();
    let cases = forms.flat_map(|form| LEVELS.map(|level| (form, level)));
    for ((form, level), &is_sealed) in cases.flat_map(|case| SEALED.iter().map(move |s| (case, s)))
    {
        let place = format!("{form:?}, {level:?}, sealed: {is_sealed}");
        let disk = FaultDir::new();
        let options = sealed(&options(form).durability(level), is_sealed);
        let store = opened(&disk, options.clone());
        let engine = internals::engine(&store);
        engine.keep_ended_logs(PLENTY);
        set(&store, 1, 3);
        let first = point(engine);
        assert_chain(&first.parts, 0, 3);
        set(&store, 4, 3);
        let second = point(engine);
        assert_chain(&second.parts, 0, 6);
        set(&store, 7, 1);
        assert_survives(&disk, &options, &second.parts[0], &place);
        // The parts that were ended by a checkpoint are durable too.
        store.checkpoint().unwrap();
        let ended = engine.take_ended_logs().parts;
        assert_eq!(ended.len(), usize::from(form == Form::Wal), "{place}");
        set(&store, 8, 3);
        if let Some(last) = ended.last() {
            assert_eq!(last.seq, 7, "{place}");
            assert_survives(&disk, &options, last, &place);
        }
    }
}

/// Asserts that a power cut now takes back no commit of `part`. Of a log that is in place, the
/// bytes are those of the part.
fn assert_survives(disk: &FaultDir, options: &OpenOptions, part: &LogPart, place: &str) {
    let cut = disk.reboot(Survivors::Nothing);
    let store = opened(&cut, options.clone());
    let again = point(internals::engine(&store)).parts.remove(0);
    assert!(again.seq >= part.seq, "{place}: {} is before {}", again.seq, part.seq);
    if again.file_id == part.file_id {
        let len = usize::try_from(part.end).unwrap();
        assert_eq!(bytes(&again)[..len], bytes(part), "{place}");
    }
}

#[test]
fn no_part_is_handed_on_after_a_sync_that_failed() {
    for form in [Form::Wal, Form::Ledger] {
        let disk = FaultDir::new();
        let store = opened(&disk, options(form).durability(Durability::Os));
        let engine = internals::engine(&store);
        engine.keep_ended_logs(PLENTY);
        set(&store, 1, 3);
        point(engine);
        set(&store, 4, 1);
        disk.fail_on(Calls::of(CallKind::Sync), 1, Fault::Eio, Lasting::Once, Side::Before);
        assert!(engine.archive_point().is_err());
        assert!(engine.archive_point().is_err(), "the store refuses writes");
        assert!(engine.close().is_err());
        assert_eq!(engine.take_ended_logs().parts.len(), 0, "the close has not synced them");
    }
}

#[test]
fn a_store_that_has_not_written_has_a_log_to_continue() {
    for close_into_image in [0, 1 << 20] {
        let disk = FaultDir::new();
        let policy = CheckpointPolicy::default().close_into_image_bytes_max(close_into_image);
        let options = options(Form::Wal).checkpoint(policy);
        let store = opened(&disk, options.clone());
        set(&store, 1, 3);
        store.close().unwrap();
        drop(store);
        let store = opened(&disk, options.clone());
        let engine = internals::engine(&store);
        engine.keep_ended_logs(PLENTY);
        let before = point(engine).parts.remove(0);
        assert_eq!(before.seq, 3);
        // Whatever the close has marked stays as it is.
        let bytes_before = bytes(&before);
        set(&store, 4, 1);
        let after = point(engine).parts.remove(0);
        assert_eq!((after.file_id, after.seq), (before.file_id, 4));
        assert_eq!(bytes(&after)[..bytes_before.len()], bytes_before);
        // A close of a store that was only opened hands on no log that does not exist.
        store.close().unwrap();
        drop(store);
        let store = opened(&disk, options);
        let engine = internals::engine(&store);
        engine.keep_ended_logs(PLENTY);
        store.close().unwrap();
        let EndedLogs { parts, dropped } = engine.take_ended_logs();
        assert_eq!((parts.len(), dropped), (usize::from(close_into_image == 0), None));
    }
}

#[test]
fn logs_that_end_between_two_looks_are_kept_and_stay_readable() {
    for level in LEVELS {
        let disk = FaultDir::new();
        let store = opened(&disk, options(Form::Wal).durability(level));
        let engine = internals::engine(&store);
        engine.keep_ended_logs(PLENTY);
        set(&store, 1, 2);
        let first = point(engine);
        assert_chain(&first.parts, 0, 2);
        for n in 0..3 {
            set(&store, 3 + 2 * n, 2);
            store.checkpoint().unwrap();
        }
        // No segment but the current one has a name.
        let names = codex_storage::segments(&disk.vfs(1), "a.db").unwrap();
        assert_eq!(names.len(), 1);
        let second = point(engine);
        assert_eq!(second.dropped, None);
        assert_chain(&second.ended, 0, 8);
        assert_chain(&[&second.ended[..], &second.parts].concat(), 0, 8);
        assert_eq!(second.main.facts(&mut |_| true).unwrap().seq, 8);
        let begun = &second.ended[0];
        assert_eq!(bytes(begun)[..bytes(&first.parts[0]).len()], bytes(&first.parts[0]));
        second.ended.iter().for_each(|part| assert!(bytes(part).len() > 512));
        // Each is handed on once, and the last one comes with the close.
        assert_eq!(point(engine).ended.len(), 0);
        set(&store, 9, 2);
        store.close().unwrap();
        let last = engine.take_ended_logs();
        assert_eq!(last.parts[0].file_id, second.parts[0].file_id);
        assert_chain(&last.parts, 8, 10);
        assert_eq!(bytes(&last.parts[0]).len() as u64, last.parts[0].end);
        assert_eq!(codex_storage::segments(&disk.vfs(1), "a.db").unwrap().len(), 0);
    }
}

#[test]
fn a_log_that_a_full_disk_ends_is_kept() {
    let disk = FaultDir::new();
    let store = opened(&disk, options(Form::Wal).durability(Durability::Os));
    let engine = internals::engine(&store);
    engine.keep_ended_logs(PLENTY);
    set(&store, 1, 5);
    let segment = Calls::of(CallKind::Allocate).on("a.db.tmp.segment");
    disk.fail_on(segment, 1, Fault::Enospc, Lasting::Sticky, Side::Before);
    store.checkpoint().unwrap();
    assert_eq!(codex_storage::segments(&disk.vfs(1), "a.db").unwrap().len(), 0, "it is freed");
    let ended = engine.take_ended_logs();
    assert_chain(&ended.parts, 0, 5);
    assert!(bytes(&ended.parts[0]).len() > 512);
    // A checkpoint that fails has ended nothing.
    disk.clear_plan();
    set(&store, 6, 1);
    let image = Calls::among(&[CallKind::Allocate, CallKind::Write]).on("a.db.tmp.*");
    disk.fail_on(image, 1, Fault::Enospc, Lasting::Sticky, Side::Before);
    store.checkpoint().unwrap_err();
    assert_eq!(engine.take_ended_logs().parts.len(), 0);
    disk.clear_plan();
    assert_chain(&point(engine).parts, 5, 6);
}

#[cfg(feature = "crypto")]
#[test]
fn the_log_before_a_rekey_is_kept_and_the_one_after_it_follows_none() {
    let disk = FaultDir::new();
    let key = |n| codex_core::crypto::Key::raw(&[n; 32]).unwrap();
    let store = opened(&disk, options(Form::Wal).durability(Durability::Os).key(key(1)));
    let engine = internals::engine(&store);
    engine.keep_ended_logs(PLENTY);
    set(&store, 1, 5);
    let before = point(engine);
    store.rekey(key(2)).unwrap();
    set(&store, 6, 1);
    let after = point(engine);
    assert_chain(&after.ended, 0, 5);
    assert_eq!(after.ended[0].file_id, before.parts[0].file_id);
    assert_chain(&after.parts, 5, 6);
    assert_eq!(after.parts[0].follows, [0; 16]);
    let root =
        |point: &ArchivePoint| (point.main.root_id(), point.seal.as_ref().unwrap().root_id());
    assert_eq!(root(&after).0, Some(root(&after).1));
    assert_ne!(root(&after), root(&before));
}

#[test]
fn above_the_limit_the_oldest_log_is_dropped_and_its_commits_are_named() {
    let disk = FaultDir::new();
    let store = opened(&disk, options(Form::Wal));
    let engine = internals::engine(&store);
    set(&store, 1, 2);
    let end = point(engine).parts[0].end;
    store.checkpoint().unwrap();
    assert_eq!(engine.take_ended_logs().parts.len(), 0, "no archive has asked for them");
    engine.keep_ended_logs(2 * end);
    for n in 0..4 {
        set(&store, 3 + 2 * n, 2);
        store.checkpoint().unwrap();
    }
    let kept = point(engine);
    assert_eq!(kept.dropped, Some(3..=6));
    assert_chain(&kept.ended, 6, 10);
    set(&store, 11, 1);
    engine.keep_ended_logs(0);
    store.close().unwrap();
    let EndedLogs { parts, dropped } = engine.take_ended_logs();
    assert_eq!((parts.len(), dropped), (0, Some(11..=11)));
}

#[test]
fn a_segment_that_lost_its_name_is_not_handed_on() {
    let disk = FaultDir::new();
    let store = opened(&disk, options(Form::Wal));
    let engine = internals::engine(&store);
    engine.keep_ended_logs(PLENTY);
    set(&store, 1, 2);
    store.checkpoint().unwrap();
    set(&store, 3, 2);
    let name = codex_storage::segments(&disk.vfs(1), "a.db").unwrap().remove(0);
    let before = point(engine);
    assert_chain(&before.parts, 2, 4);
    disk.vfs(1).dir.remove(&name).unwrap();
    set(&store, 5, 2);
    assert_eq!(point(engine).parts.len(), 0, "a power cut takes its commits back");
    store.checkpoint().unwrap();
    let after = point(engine);
    assert_eq!((after.ended.len(), after.dropped), (0, Some(5..=6)));
    set(&store, 7, 1);
    assert_chain(&point(engine).parts, 6, 7);
}

#[test]
fn beside_writers_and_checkpoints_no_commit_is_missed() {
    const CHECKPOINTS: u64 = 20;
    for level in LEVELS {
        let disk = FaultDir::new();
        let store = opened(&disk, options(Form::Wal).durability(level));
        let engine = internals::engine(&store);
        engine.keep_ended_logs(PLENTY);
        let mut logs = BTreeMap::new();
        let mut take = |parts: Vec<LogPart>| {
            for part in parts {
                let known = logs.entry((part.base_seq, part.file_id)).or_insert(part.clone());
                if part.end > known.end {
                    *known = part;
                }
            }
        };
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for writer in 0..3_u64 {
                let (store, is_over) = (&store, &is_over);
                scope.spawn(move || {
                    while !is_over.load(Ordering::Relaxed) {
                        store.set("key", &writer).unwrap();
                    }
                });
            }
            scope.spawn(|| {
                for _ in 0..CHECKPOINTS {
                    let before = store.stats().storage.seq;
                    until("commits come", || store.stats().storage.seq > before);
                    store.checkpoint().unwrap();
                }
                is_over.store(true, Ordering::Relaxed);
            });
            while !is_over.load(Ordering::Relaxed) {
                let ArchivePoint { ended, parts, dropped, .. } = point(engine);
                assert_eq!(dropped, None);
                take(ended);
                take(parts);
            }
        });
        let last = store.stats().storage.seq;
        store.close().unwrap();
        let EndedLogs { parts, dropped } = engine.take_ended_logs();
        assert_eq!(dropped, None);
        take(parts);
        let logs: Vec<_> = logs.into_values().filter(|part| part.seq > part.base_seq).collect();
        assert!(logs.len() as u64 >= CHECKPOINTS, "{} logs", logs.len());
        assert_chain(&logs, 0, last);
    }
}
