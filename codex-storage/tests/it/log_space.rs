//! The space of a log: when it is zeroed and synced, how long it is at first, and that what lies in
//! it after a crash is never read as frames.

use std::time::Duration;

use codex_storage::storage::{Durability, Form};
use codex_storage::vfs::fault::{Calls, CrashChoice, FaultDir, Side, Space};
use codex_storage::vfs::{CallKind, Dir, Open};
use codex_storage::{Config, Error, OnDamage};

use crate::common::store::{Map, Store};
use crate::common::{Bed, NAME, bytes, scaled, seed};

/// The first length of a log, in bytes.
const STEP: u64 = 64 << 10;
/// The longest first length.
const STEP_MAX: u64 = 16 << 20;

fn segment(generation: u64) -> String {
    format!("{NAME}.wal.{generation:020}")
}

fn config(disk: &FaultDir, form: Form, durability: Durability) -> Config {
    let mut config = Bed::new(disk.vfs(disk.calls()), form, false).config();
    config.checkpoint.close_into_image_bytes_max = 0;
    Config { durability, ..config }
}

fn lazy_levels() -> [Durability; 2] {
    [Durability::Os, Durability::Interval(Duration::from_secs(9))]
}

fn len(disk: &FaultDir, name: &str) -> u64 {
    disk.metadata(name).unwrap().unwrap().len
}

/// Returns the calls that changed `name` since the trace began: kind, offset, and the end.
fn changes(disk: &FaultDir, name: &str) -> Vec<(CallKind, u64, u64)> {
    let trace = disk.trace();
    let of_log = trace.iter().filter(|call| *call.name == *name && call.kind.changes());
    of_log.map(|call| (call.kind, call.offset, call.offset + call.len)).collect()
}

#[test]
fn new_space_is_synced_and_at_the_level_sync_zeroed_before_a_frame() {
    for (form, name) in [(Form::Wal, segment(1)), (Form::Ledger, NAME.to_owned())] {
        for level in [Durability::Sync].into_iter().chain(lazy_levels()) {
            let disk = FaultDir::new();
            let mut store = Store::open(config(&disk, form, level)).unwrap();
            store.set("small", "value").unwrap();
            assert_eq!(len(&disk, &name), STEP);
            disk.record_trace(true);
            store.set("large", &"x".repeat(100 << 10)).unwrap();
            let calls = changes(&disk, &name);
            let mut calls = &calls[..];
            let (kind, from, end) = *calls.split_off_first().unwrap();
            assert_eq!((kind, from, end % STEP), (CallKind::Allocate, STEP, 0), "{level:?}");
            // The length is durable before anything is written there.
            assert_eq!(calls.split_off_first().unwrap().0, CallKind::Sync, "{form} {level:?}");
            if level == Durability::Sync {
                let mut zeroed = from;
                while let Some((_, _, to)) = calls.split_off_first_if(zeroed) {
                    zeroed = *to;
                }
                assert_eq!(zeroed, end, "{form}: all of the space is zeroed");
                assert_eq!(calls.split_off_first().unwrap().0, CallKind::Sync, "{form}");
            }
            let (kind, from, to) = *calls.split_off_first().unwrap();
            assert_eq!((kind, from < STEP, to <= end), (CallKind::Write, true, true), "{level:?}");
            let synced = calls.iter().map(|call| call.0).eq([CallKind::Sync]);
            assert_eq!((synced, calls.is_empty()), (level == Durability::Sync, !synced));
        }
    }
}

/// Splits off the first call, if it writes at `offset`.
trait SplitOff<T> {
    fn split_off_first_if(&mut self, offset: u64) -> Option<&T>;
}

impl SplitOff<(CallKind, u64, u64)> for &[(CallKind, u64, u64)] {
    fn split_off_first_if(&mut self, offset: u64) -> Option<&(CallKind, u64, u64)> {
        let first = self.first().filter(|call| call.0 == CallKind::Write && call.1 == offset);
        first.and_then(|_| self.split_off_first())
    }
}

/// A power cut can leave any of the frames. Each opening finds the first commits, and goes on.
#[test]
fn a_power_cut_while_a_log_grows_leaves_its_first_commits() {
    let mut images = 0;
    for form in [Form::Wal, Form::Ledger] {
        for level in lazy_levels() {
            for reopened_at in [level, Durability::Sync] {
                images += grow_and_cut(form, level, reopened_at);
            }
        }
    }
    assert!(images >= scaled(500), "only {images} images");
}

/// Writes frames of many lengths beyond several ends of the space. After the fourth, the process is
/// killed, and another one goes on at the level `reopened_at`. Returns the number of disks that
/// power cuts left.
fn grow_and_cut(form: Form, level: Durability, reopened_at: Durability) -> usize {
    let disk = FaultDir::new();
    let mut store = Store::open(config(&disk, form, level)).unwrap();
    let mut states = vec![Map::default()];
    let mut images = 0;
    for (n, value_len) in [300, 40_000, 70_000, 9, 50_003, 130_000, 20].into_iter().enumerate() {
        let what = format!("{form} at {level:?}, then {reopened_at:?}, {n} commits");
        if n == 4 {
            drop(store);
            // The frames that are written again are not synced before the power is cut.
            let copy = disk.duplicate();
            copy.cut_power_on(Calls::of(CallKind::Sync), 1, Side::Before);
            drop(Store::open(config(&copy, form, reopened_at)));
            assert_eq!(copy.faults_fired(), 1);
            images += check_images(&copy, form, &states, 0, &format!("{what}, recovering"));
            store = Store::open(config(&disk, form, reopened_at)).unwrap();
            assert_eq!(store.map, states[n], "{what}");
        }
        store.set(&format!("key {n}"), &"x".repeat(value_len)).unwrap();
        states.push(store.map.clone());
        let least = match reopened_at {
            _ if n < 4 => 0,
            Durability::Sync => n + 1,
            _ => 4,
        };
        images += check_images(&disk, form, &states, least, &what);
    }
    images
}

/// Opens the disks that a power cut now can leave: each has the first commits, `least` or more, and
/// goes on. Returns their number.
fn check_images(disk: &FaultDir, form: Form, states: &[Map], least: usize, what: &str) -> usize {
    let images_max = scaled(30).max(4);
    let choice = CrashChoice {
        seed: seed() ^ disk.calls(),
        images_max,
        samples: images_max as u64 / 2,
        ..CrashChoice::default()
    };
    let mut images = 0;
    for image in disk.crash_images(&choice) {
        let found = Store::open(config(&image, form, Durability::Sync));
        let mut found = found.unwrap_or_else(|e| panic!("{what}: {e}"));
        let seq = usize::try_from(found.recovered.seq).unwrap();
        assert!(seq >= least, "{what}: {seq} commits of at least {least}");
        assert_eq!(found.map, states[seq], "{what}");
        found.set("goes", "on").unwrap();
        let map = found.map.clone();
        drop(found);
        assert_eq!(Store::open(config(&image, form, Durability::Os)).unwrap().map, map, "{what}");
        images += 1;
    }
    images
}

#[test]
fn frames_of_a_removed_segment_in_new_space_are_never_read() {
    for level in lazy_levels() {
        let disk = FaultDir::new();
        let mut store = Store::open(config(&disk, Form::Wal, level)).unwrap();
        for n in 0..6 {
            store.set(&format!("old {n}"), "value").unwrap();
        }
        let old = bytes(&disk.vfs(0), &segment(1));
        assert!(store.checkpoint().unwrap());
        store.set("new", "value").unwrap();
        let map = store.map.clone();
        drop(store);
        let frame = 128;
        let end = 512 + frame;
        // The old frames begin at the same offsets as those of the new segment would.
        for part in [end..6 * frame + 512, end..end + frame, end..end + 64, end..end + 100] {
            let copy = disk.duplicate();
            let log = copy.open(&segment(2), Open::Write).unwrap();
            log.write_all_at(&old[part.clone()], part.start as u64).unwrap();
            let refused = Store::open(config(&copy, Form::Wal, level)).map(|store| store.map);
            let at_end = |offset| offset == u64::try_from(end).unwrap();
            let is_suspect =
                matches!(refused, Err(Error::TailSuspect { offset, .. }) if at_end(offset));
            assert!(is_suspect, "{part:?}: {refused:?}");
            // Cut off at the request of the user, it is crossed by the next openings.
            let cut = Config { on_damage: OnDamage::CutTail, ..config(&copy, Form::Wal, level) };
            let mut store = Store::open(cut).unwrap();
            assert_eq!(store.map, map, "{part:?}");
            store.set("goes", "on").unwrap();
            let map = store.map.clone();
            drop(store);
            assert_eq!(Store::open(config(&copy, Form::Wal, level)).unwrap().map, map);
        }
    }
}

#[test]
fn a_segment_begins_with_the_length_of_the_one_before_it_unless_it_is_zeroed() {
    const MIB: u64 = 1 << 20;
    for (level, space, written, wanted) in [
        (Durability::Os, Space::Unlimited, 0, Some(STEP)),
        (Durability::Os, Space::Unlimited, 300 << 10, Some(320 << 10)),
        (lazy_levels()[1], Space::Unlimited, 300 << 10, Some(320 << 10)),
        (Durability::Sync, Space::Unlimited, 300 << 10, Some(STEP)),
        (Durability::Os, Space::Unlimited, 17 * MIB, Some(STEP_MAX)),
        // An eighth of the free space.
        (Durability::Os, Space::AtOnce(8 * MIB), 2 * MIB, None),
    ] {
        let disk = FaultDir::new();
        disk.set_space(space);
        let mut store = Store::open(config(&disk, Form::Wal, level)).unwrap();
        store.set("small", "value").unwrap();
        for piece in (0..written).step_by(1 << 18) {
            let len = usize::try_from((written - piece).min(1 << 18)).unwrap();
            store.set("large", &"x".repeat(len)).unwrap();
        }
        let free = disk.available_bytes().unwrap().unwrap_or(u64::MAX);
        let wanted = wanted.unwrap_or_else(|| (free / 8).next_multiple_of(STEP));
        drop(store.begin().unwrap().unwrap());
        let found = len(&disk, &segment(2));
        assert_eq!(found, wanted, "{level:?}, {space:?}, {written} bytes, {free} free");
        // The close gives back all that has no frame.
        store.set("last", "value").unwrap();
        store.close().unwrap();
        assert!(len(&disk, &segment(2)) < 1024, "{level:?}, {space:?}, {written} bytes");
    }
}
