//! Stores on a simulated disk, and the conditions that must hold after every fault.

#![allow(clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::sync::Arc;

use codex_backup::vfs::fault::{CrashChoice, FaultDir, Side};
use codex_backup::vfs::{Dir, File, LockGuard, LockKind, Metadata, Mode, Open, Vfs};
use codex_backup::{
    Backups, Depth, Inspect, Options, Prefix, Rotated, Source, Watch, WriteAt, unwatched,
};

use super::{Card, OURS, bytes, card, put};

/// The number of backups that these tests keep.
pub const KEEP: u32 = 3;
/// The side file of the store.
pub const LOG: &str = "a.db.wal.00000000000000000001";

/// The way in which a backup is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Reflink,
    /// On a file system that cannot share blocks.
    Copy,
    /// From a growing file.
    Grown,
    Write,
}

pub const WAYS: [Way; 4] = [Way::Reflink, Way::Copy, Way::Grown, Way::Write];

/// The factor for the number of cases of random tests.
pub fn scale() -> f64 {
    std::env::var("CODEX_SCALE").ok().and_then(|text| text.parse().ok()).unwrap_or(1.0)
}

/// The seed of random tests.
pub fn seed() -> u64 {
    std::env::var("CODEX_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Returns a disk with a store at `seq`, its side file, and backups of the versions given by index.
pub fn disk(seq: u64, slots: &[(u32, u64)]) -> FaultDir {
    let disk = FaultDir::new();
    let vfs = disk.vfs(seed());
    put(&*vfs.dir, "a.db", &card(OURS, seq, 700));
    put(&*vfs.dir, LOG, &log(seq));
    for (index, seq) in slots {
        put(&*vfs.dir, &format!("a.db.bak.{index}"), &card(OURS, *seq, 700));
    }
    disk
}

/// Returns the bytes of the side file of a version.
pub fn log(seq: u64) -> Vec<u8> {
    format!("the log that continues {seq}").into_bytes()
}

/// Returns the disk, clock and entropy of a process that makes backups in this way.
pub fn world(disk: &FaultDir, way: Way) -> Vfs {
    // Two processes never draw the same random names.
    let vfs = disk.vfs(seed() + disk.calls());
    if way == Way::Copy { Vfs { dir: Arc::new(NoReflink(vfs.dir)), ..vfs } } else { vfs }
}

pub fn backups_of(vfs: &Vfs) -> Backups {
    let options = Options { keep: KEEP, ..Options::default() };
    Backups::new(vfs.clone(), "a.db", Arc::new(Card), options).unwrap()
}

/// Rotates the store, which is at `seq`.
pub fn rotate(vfs: &Vfs, way: Way, seq: u64) -> codex_backup::Result<Rotated> {
    rotate_watched(vfs, way, seq, &mut unwatched)
}

/// Like [`rotate`], with the progress reported to `watch`.
pub fn rotate_watched(
    vfs: &Vfs,
    way: Way,
    seq: u64,
    watch: &mut Watch<'_>,
) -> codex_backup::Result<Rotated> {
    let contents = card(OURS, seq, 700);
    let mut write = |to: &mut WriteAt<'_>| {
        to(&contents[..300], 0)?;
        Ok(to(&contents[300..], 300)?)
    };
    let source = match way {
        Way::Reflink | Way::Copy => Source::open(vfs, "a.db")?,
        Way::Grown => {
            let Source::File { name, file } = Source::open(vfs, "a.db")? else { unreachable!() };
            Source::File { name, file: Arc::new(Prefix::new(file, contents.len() as u64)) }
        }
        // An estimate of zero bytes, so that a full disk is detected while writing.
        Way::Write => Source::Write { size: 0, write: &mut write },
    };
    backups_of(vfs).rotate(source, None, watch)
}

/// Returns the versions of the complete backups, including one that does not have its number yet.
/// Panics if one is damaged, because every file with the name of a backup must be good.
pub fn good(dir: &dyn Dir, context: &dyn Fn() -> String) -> BTreeSet<u64> {
    let mut versions = BTreeSet::new();
    for name in dir.list().unwrap() {
        let is_slot = codex_backup::backup_index("a.db", &name).is_some();
        if is_slot || name == "a.db.bak.new" {
            let file = dir.open(&name, Open::Read).unwrap();
            match Card.verify(&file, Depth::Full, &mut |_| ControlFlow::Continue(())) {
                Ok(facts) => _ = versions.insert(facts.seq),
                Err(_) if !is_slot => {}
                Err(error) => panic!("{name} is damaged: {error:?}; {}", context()),
            }
        }
    }
    versions
}

/// Asserts that each version that was good is still good, except the oldest, which a newer one may
/// have replaced.
pub fn nothing_lost(before: &BTreeSet<u64>, after: &BTreeSet<u64>, context: &dyn Fn() -> String) {
    let lost: Vec<_> = before.difference(after).collect();
    let newer = before.last().is_none_or(|newest| after.last() > Some(newest));
    let fair = match lost.as_slice() {
        [] => true,
        [oldest] => Some(*oldest) == before.first() && before.len() == KEEP as usize && newer,
        _ => false,
    };
    assert!(fair, "had {before:?}, has {after:?}; {}", context());
}

/// Asserts that no files exist except the store, its side file, backups, the lock, and replaced
/// files.
pub fn no_strays(dir: &dyn Dir, context: &dyn Fn() -> String) {
    for name in dir.list().unwrap() {
        let fine = name == "a.db"
            || name == "a.db.bak.lock"
            || name.starts_with("a.db.wal.")
            || name.starts_with("a.db.replaced.")
            || codex_backup::backup_index("a.db", &name).is_some();
        assert!(fine, "{name} is left; {}", context());
    }
}

/// Asserts that the store is complete at this version, with only its own side file.
pub fn store_is(dir: &dyn Dir, seq: u64, has_log: bool, context: &dyn Fn() -> String) {
    assert_eq!(bytes(dir, "a.db"), card(OURS, seq, 700), "{}", context());
    let found = dir.metadata(LOG).unwrap().is_some();
    assert_eq!(found, has_log, "the side file at {seq}; {}", context());
    if has_log {
        assert_eq!(bytes(dir, LOG), log(seq), "{}", context());
    }
}

/// Checks a disk and the result of the call. The last argument describes the fault.
pub type Check<'a, R> = dyn FnMut(&FaultDir, &R, &dyn Fn() -> String) + 'a;

/// Runs `act` with the power cut before each of its calls and after the last one. Calls `check`
/// with each disk that each cut can leave and the result of `act`. Returns the number of disks.
pub fn each_power_cut<R>(
    base: &FaultDir,
    act: &dyn Fn(&FaultDir) -> R,
    check: &mut Check<'_, R>,
) -> u64 {
    let calls = calls_of(base, act);
    let samples = count_of(16.0) as u64;
    let choice = CrashChoice { seed: seed(), samples, ..CrashChoice::default() };
    let mut count = 0;
    for call in 0..=calls {
        let disk = base.duplicate();
        disk.record_trace(true);
        disk.cut_power_at(call, Side::Before);
        let result = act(&disk);
        let mut images = disk.crash_images(&choice);
        while let Some(image) = images.next() {
            let number = images.number();
            let context = || story(&disk, &format!("power cut at {call}, image {number}"));
            check(&image, &result, &context);
            count += 1;
        }
    }
    count
}

/// Returns the number of calls that `act` makes on a healthy disk.
pub fn calls_of<R>(base: &FaultDir, act: &dyn Fn(&FaultDir) -> R) -> u64 {
    let disk = base.duplicate();
    let before = disk.calls();
    act(&disk);
    disk.calls() - before
}

/// Describes the calls on a disk, for the message of a failed check.
pub fn story(disk: &FaultDir, what: &str) -> String {
    let mut text = format!("{what}, CODEX_SEED={}\n", seed());
    for call in disk.trace() {
        let _ = writeln!(text, "{call}");
    }
    text
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
pub fn count_of(base: f64) -> usize {
    (base * scale()).max(1.0) as usize
}

/// A file system that cannot share blocks.
#[derive(Debug)]
pub struct NoReflink(pub Arc<dyn Dir>);

impl Dir for NoReflink {
    fn reflink(&self, _: &Arc<dyn File>, _: &str, _: Mode) -> std::io::Result<()> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
    fn open(&self, name: &str, how: Open) -> std::io::Result<Arc<dyn File>> {
        self.0.open(name, how)
    }
    fn rename(&self, from: &str, to: &str) -> std::io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, name: &str) -> std::io::Result<()> {
        self.0.remove(name)
    }
    fn list(&self) -> std::io::Result<Vec<String>> {
        self.0.list()
    }
    fn metadata(&self, name: &str) -> std::io::Result<Option<Metadata>> {
        self.0.metadata(name)
    }
    fn sync(&self) -> std::io::Result<()> {
        self.0.sync()
    }
    fn try_lock(&self, name: &str, kind: LockKind) -> std::io::Result<Option<Box<dyn LockGuard>>> {
        self.0.try_lock(name, kind)
    }
    fn lock_existing(
        &self,
        name: &str,
        kind: LockKind,
    ) -> std::io::Result<Option<Box<dyn LockGuard>>> {
        self.0.lock_existing(name, kind)
    }
    fn inherit(&self, from: &str, to: &str, mode: Option<Mode>) -> std::io::Result<()> {
        self.0.inherit(from, to, mode)
    }
    fn available_bytes(&self) -> std::io::Result<Option<u64>> {
        self.0.available_bytes()
    }
    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path(name)
    }
}
