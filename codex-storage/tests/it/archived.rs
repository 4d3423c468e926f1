//! Tests of states that are read from an image and copies of the logs behind it: the state after
//! each commit is reached exactly, and files that do not belong together are refused.

use std::path::PathBuf;
use std::sync::Arc;

use codex_storage::batch::{Item, Op, Seq, TableId};
use codex_storage::storage::{Anchor, Durability, Form};
use codex_storage::vfs::{Clock, File, Mode, Open, SeededEntropy, SimClock, Vfs};
use codex_storage::{
    CheckpointPolicy, Compression, Error, MainFile, RestorePoint, archived_ledger_at,
    replay_archived,
};

use crate::common::store::{Map, Store};
use crate::common::{Bed, NAME, put};

/// Returns a file in memory with these bytes.
fn file(bytes: &[u8]) -> Arc<dyn File> {
    let file = Vfs::mem(3).dir.open("copy", Open::CreateNew(Mode::Private)).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file
}

fn bytes(file: &dyn File, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(len).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// The copy of a log.
#[derive(Debug, Clone)]
struct Copied {
    id: [u8; 16],
    base: Seq,
    bytes: Vec<u8>,
}

/// An archive, and what it must give back.
struct Archive {
    bed: Bed,
    clock: SimClock,
    image: Vec<u8>,
    logs: Vec<Copied>,
    /// The state after each commit, and the anchor where a group ends.
    states: Vec<(Map, Option<Anchor>)>,
    /// The log that has each commit, and the offset at which its frame ends there.
    ends: Vec<([u8; 16], u64)>,
    /// The time of each commit, in microseconds since 1970.
    times: Vec<i64>,
}

impl Archive {
    fn begin(bed: Bed, clock: SimClock, store: &mut Store) -> Self {
        let (main, _) = store.storage.main_file().unwrap().to_copy().unwrap();
        let image = bytes(&*main, main.len().unwrap());
        let states = vec![(store.map.clone(), Some(store.storage.anchor()))];
        let (logs, ends, times) = (Vec::new(), vec![([0; 16], 0)], vec![clock.now_us()]);
        Self { bed, clock, image, logs, states, ends, times }
    }

    /// Copies the durable parts of the logs.
    fn copy(&mut self, store: &mut Store) {
        store.flush().unwrap();
        for part in store.storage.log_parts().unwrap() {
            let bytes = bytes(&*part.file, part.end);
            let log = Copied { id: part.file_id, base: part.base_seq, bytes };
            match self.logs.iter_mut().find(|log| log.id == part.file_id) {
                Some(known) => {
                    assert!(log.bytes.starts_with(&known.bytes), "the bytes of a part stay");
                    *known = log;
                }
                None => self.logs.push(log),
            }
        }
    }

    /// Commits a group of `batches`.
    fn commit(&mut self, store: &mut Store, batches: &[Vec<Op<'_>>]) {
        let mut state = store.map.clone();
        for batch in batches {
            for op in batch {
                state.apply(*op);
            }
            self.states.push((state.clone(), None));
        }
        let batches: Vec<&[Op<'_>]> = batches.iter().map(Vec::as_slice).collect();
        store.commit(&batches).unwrap();
        self.states.last_mut().unwrap().1 = Some(store.storage.anchor());
        let part = store.storage.log_parts().unwrap().pop().unwrap();
        self.ends.resize(self.states.len(), (part.file_id, part.end));
        self.times.resize(self.states.len(), self.clock.now_us());
    }

    fn last(&self) -> Seq {
        self.states.len() as Seq - 1
    }

    /// Returns the logs that lead to the commit `seq`. The last one is cut at a random place that
    /// leaves its frame whole.
    fn logs_to(&self, seq: Seq, random: &mut Random) -> Vec<(Arc<dyn File>, PathBuf)> {
        let mut logs: Vec<_> = self.logs.iter().filter(|log| log.base < seq).collect();
        let mut last = logs.pop().cloned();
        if let Some(last) = &mut last {
            let (id, end) = self.ends[seq as usize];
            assert_eq!(id, last.id);
            let (end, len) = (end as usize, last.bytes.len());
            last.bytes.truncate(end + random.below(len - end + 1));
        }
        let named = |log: &Copied| (file(&log.bytes), PathBuf::from(format!("log {:?}", log.id)));
        logs.into_iter().chain(&last).map(named).collect()
    }

    fn main(&self) -> MainFile {
        MainFile::new(file(&self.image), "the image".as_ref()).unwrap()
    }

    /// Returns a ledger of the image and the first `len` bytes of its log.
    fn ledger(&self, len: usize) -> MainFile {
        let end = self.ends[0].1 as usize;
        let whole = [&self.image[..end], &self.logs[0].bytes[end..len]].concat();
        MainFile::new(file(&whole), "the ledger".as_ref()).unwrap()
    }

    fn replay(
        &self,
        logs: &[(Arc<dyn File>, PathBuf)],
        until: Seq,
    ) -> Result<(Map, codex_storage::Replayed), Error> {
        let (mut map, keys) = (Map::default(), self.bed.keys.as_deref());
        let replayed = replay_archived(&self.main(), logs, keys, until, &mut |op| {
            map.apply(op);
            Ok(())
        })?;
        Ok((map, replayed))
    }

    /// Asserts that the file `temporary` is a store with the state after the commit `seq`.
    fn assert_is(&self, vfs: &Vfs, temporary: &str, seq: Seq) {
        vfs.dir.rename(temporary, NAME).unwrap();
        let mut store = Store::open(Bed { vfs: vfs.clone(), ..self.bed.clone() }.config()).unwrap();
        let (state, anchor) = &self.states[seq as usize];
        assert_eq!(&store.map, state, "after {seq}");
        assert_eq!(store.storage.stats().seq, seq);
        if let Some(anchor) = anchor {
            assert_eq!(&store.storage.anchor(), anchor, "after {seq}");
        }
        store.set("goes", "on").unwrap();
        store.close().unwrap();
    }
}

/// A generator of test cases.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

/// Makes a store with a random history and the archive of it: groups of several commits, tables,
/// checkpoints, closes.
fn history(form: Form, sealed: bool, level: Durability, seed: u64) -> Archive {
    let clock = SimClock::new();
    let entropy = Arc::new(SeededEntropy::new(seed));
    let vfs = Vfs { clock: Arc::new(clock.clone()), entropy, ..Vfs::mem(seed) };
    let mut random = Random(seed);
    let mut bed = Bed::new(vfs, form, sealed);
    bed.compression = [None, Some(Compression::Lz4)][random.below(2)];
    let config = || {
        let mut config = bed.at(level);
        config.checkpoint = CheckpointPolicy::default().close_into_image_bytes_max(0);
        config
    };
    let mut store = Store::open(config()).unwrap();
    let mut archive = Archive::begin(bed.clone(), clock.clone(), &mut store);
    if form == Form::Ledger {
        let part = store.storage.log_parts().unwrap().remove(0);
        archive.ends[0] = (part.file_id, part.end);
    }
    let keys: Vec<String> = (0..12).map(|n| format!("key {n}")).collect();
    let value = vec![b'v'; 900];
    for _ in 0..40 {
        clock.set_now_us(clock.now_us() + i64::try_from(random.below(3)).unwrap());
        let mut batches = Vec::new();
        for _ in 0..=random.below(4) {
            let mut batch = Vec::new();
            for _ in 0..=random.below(3) {
                let key = keys[random.below(keys.len())].as_bytes();
                let table = [None, TableId::new(16)][random.below(2)];
                let value = &value[..random.below(value.len())];
                batch.push(match random.below(8) {
                    0 => Op::Clear { table },
                    1 | 2 => Op::Remove { table, key },
                    _ => Op::Set(Item { table, key, value, expires_us: None }),
                });
            }
            batches.push(batch);
        }
        archive.commit(&mut store, &batches);
        match random.below(12) {
            0 => {
                archive.copy(&mut store);
                store.checkpoint().unwrap();
            }
            1 => archive.copy(&mut store),
            2 => {
                archive.copy(&mut store);
                store.close().unwrap();
                store = Store::open(config()).unwrap();
            }
            _ => {}
        }
    }
    archive.copy(&mut store);
    archive
}

const LEVELS: [Durability; 2] = [Durability::Sync, Durability::Os];

#[test]
fn each_commit_of_a_wal_is_reached_also_inside_of_a_group() {
    for seed in 0..12 {
        let archive = history(Form::Wal, seed % 2 == 1, LEVELS[seed as usize / 2 % 2], seed);
        let mut random = Random(seed + 100);
        assert!(archive.last() > 80 && archive.logs.len() > 1, "{} logs", archive.logs.len());
        for seq in 0..=archive.last() {
            let (map, replayed) = archive.replay(&archive.logs_to(seq, &mut random), seq).unwrap();
            assert_eq!(map, archive.states[seq as usize].0, "after {seq}");
            assert_eq!(replayed.seq(), seq);
            let vfs = Vfs::mem(seq);
            let earlier = replayed.write(&vfs, NAME, &map).unwrap();
            archive.assert_is(&vfs, earlier.name(), seq);
            drop(earlier);
            assert!(vfs.dir.list().unwrap().iter().all(|name| !name.contains("tmp")));
        }
    }
}

#[test]
fn a_part_of_a_group_has_the_digest_of_a_group_that_ends_there() {
    for sealed in [false, true] {
        let bed = Bed::mem(Form::Wal, sealed);
        let mut store = Store::open(bed.config()).unwrap();
        let mut archive = Archive::begin(bed.clone(), SimClock::new(), &mut store);
        let ops = [vec![Op::set(b"a", b"1")], vec![Op::set(b"b", b"2")]];
        archive.commit(&mut store, &ops);
        archive.copy(&mut store);
        let logs = archive.logs_to(1, &mut Random(1));
        let (map, replayed) = archive.replay(&logs, 1).unwrap();
        let half = Bed { vfs: Vfs::mem(4), ..bed.clone() };
        let earlier = replayed.write(&half.vfs, NAME, &map).unwrap();
        half.vfs.dir.rename(earlier.name(), NAME).unwrap();
        let mut half = Store::open(half.config()).unwrap();
        // The same store, with a group of the first commit alone.
        let twin = Bed { vfs: Vfs::mem(5), ..bed };
        put(&twin.vfs, NAME, &archive.image);
        let mut twin = Store::open(twin.config()).unwrap();
        twin.commit(&[&ops[0]]).unwrap();
        assert_eq!(half.storage.anchor(), twin.storage.anchor());
    }
}

#[test]
fn each_commit_and_each_time_of_a_ledger_is_reached() {
    for seed in 0..6 {
        let archive = history(Form::Ledger, seed % 2 == 1, LEVELS[seed as usize / 2 % 2], seed);
        let (mut random, keys) = (Random(seed + 100), archive.bed.keys.as_deref());
        let len = archive.logs[0].bytes.len();
        let at = |vfs: &Vfs, main: &MainFile, point| {
            archived_ledger_at(vfs, NAME, main, keys, point).unwrap()
        };
        for seq in 0..=archive.last() {
            let end = archive.ends[seq as usize].1 as usize;
            let cut = archive.ledger(end + random.below(len - end + 1));
            let vfs = Vfs::mem(seq);
            let earlier = at(&vfs, &cut, RestorePoint::Seq(seq));
            archive.assert_is(&vfs, earlier.name(), seq);
            let time_us = archive.times[seq as usize];
            let last = archive.times.iter().rposition(|&time| time <= time_us).unwrap() as Seq;
            let vfs = Vfs::mem(seq);
            let earlier = at(&vfs, &archive.ledger(len), RestorePoint::TimeUs(time_us));
            archive.assert_is(&vfs, earlier.name(), last);
        }
        let (vfs, point) = (Vfs::mem(1), RestorePoint::Seq(archive.last() + 1));
        let refused = archived_ledger_at(&vfs, NAME, &archive.ledger(len), keys, point);
        assert!(matches!(refused, Err(Error::NotInHistory { states, .. })
            if states == (0..=archive.last())));
        assert_eq!(vfs.dir.list().unwrap().len(), 0);
    }
}

#[test]
fn files_that_do_not_continue_one_another_are_refused() {
    for sealed in [false, true] {
        let seed = 2;
        let archive = history(Form::Wal, sealed, Durability::Sync, seed);
        let (last, random) = (archive.last(), &mut Random(1));
        let logs = || archive.logs_to(last, &mut Random(1));
        assert!(logs().len() > 2);
        let refused = |logs: Vec<_>| {
            let replayed = archive.replay(&logs, last);
            replayed.map(|(_, replayed)| replayed).expect_err("it is refused")
        };
        // One is missing, at the beginning, in the middle and at the end.
        let without = |n| {
            let mut logs = logs();
            logs.remove(n);
            logs
        };
        assert!(matches!(refused(without(0)), Error::Gap { expected: 0, .. }));
        assert!(matches!(refused(without(1)), Error::Damaged { .. } | Error::Gap { .. }));
        assert!(matches!(refused(without(logs().len() - 1)), Error::Damaged { .. }));
        assert!(matches!(refused(Vec::new()), Error::NotInHistory { states, .. }
            if states == (0..=0)));
        // A log of another store.
        let other = history(Form::Wal, sealed, Durability::Sync, seed + 10);
        let foreign = refused(other.logs_to(other.last(), random));
        assert!(matches!(foreign, Error::ForeignLog { .. }), "{foreign}");
        // A changed byte, and an end within the last frame, before its padding.
        let mut bytes = archive.logs[1].bytes.clone();
        bytes[700] ^= 1;
        let mut changed = logs();
        changed[1].0 = file(&bytes);
        assert!(matches!(refused(changed), Error::Damaged { .. }));
        let mut short = logs();
        let (id, end) = archive.ends[last as usize];
        let log = archive.logs.iter().find(|log| log.id == id).unwrap();
        short.last_mut().unwrap().0 = file(&log.bytes[..end as usize - 64]);
        assert!(matches!(refused(short), Error::Damaged { .. }));
    }
}

#[test]
fn a_log_of_another_history_of_the_store_is_refused() {
    for sealed in [false, true] {
        let archive = history(Form::Wal, sealed, Durability::Sync, 2);
        let last = archive.last();
        let logs = || archive.logs_to(last, &mut Random(1));
        // It begins after the same number of commits of this store, of which the last one is
        // another.
        let base = archive.logs.iter().rfind(|log| log.base < last).unwrap().base;
        let (map, replayed) = archive.replay(&logs(), base - 1).unwrap();
        let bed = Bed { vfs: Vfs::mem(9), ..archive.bed.clone() };
        let earlier = replayed.write(&bed.vfs, NAME, &map).unwrap();
        bed.vfs.dir.rename(earlier.name(), NAME).unwrap();
        let mut store = Store::open(bed.config()).unwrap();
        store.set("another", "commit").unwrap();
        store.checkpoint().unwrap();
        store.set("and", "one more").unwrap();
        let part = store.storage.log_parts().unwrap().remove(0);
        assert_eq!(part.base_seq, base);
        let mut logs_of_both = logs();
        logs_of_both.last_mut().unwrap().0 = part.file;
        let foreign = archive.replay(&logs_of_both, base + 1).map(|(_, found)| found.seq());
        assert!(matches!(foreign, Err(Error::ForeignLog { .. })), "{foreign:?}");
    }
}

#[test]
fn a_key_that_is_missing_and_a_moment_before_the_image_are_refused() {
    for sealed in [false, true] {
        let archive = history(Form::Wal, sealed, Durability::Sync, 2);
        let last = archive.last();
        let logs = || archive.logs_to(last, &mut Random(1));
        // A key that is missing.
        if sealed {
            let blind = replay_archived(&archive.main(), &logs(), None, last, &mut |_| Ok(()));
            assert!(matches!(blind, Err(Error::KeyRequired { .. })));
        }
        // A moment before the image.
        let (map, replayed) = archive.replay(&logs(), last).unwrap();
        let vfs = Vfs::mem(1);
        let earlier = replayed.write(&vfs, NAME, &map).unwrap();
        let (main, keys) = (earlier.main_file(), archive.bed.keys.as_deref());
        let before = replay_archived(main, &[], keys, last - 1, &mut |_| Ok(()));
        assert!(matches!(before, Err(Error::NotInHistory { states, .. })
            if states == (last..=last)));
        assert_eq!(replay_archived(main, &[], keys, last, &mut |_| Ok(())).unwrap().seq(), last);
    }
}
