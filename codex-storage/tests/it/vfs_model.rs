//! Random calls to the simulated disk, compared with a model that is simple enough to check by eye.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use codex_storage::vfs::fault::{Calls, CrashChoice, Fault, FaultDir, Lasting, Side, Survivors};
use codex_storage::vfs::{CallKind, Dir, File, MemDir, Mode, Open, SeededEntropy};

/// Callers see a plain directory. After a power cut without survivors the synced bytes are left,
/// with all survivors the visible ones, and in every other image each sector and name is one of its
/// past.
#[test]
fn random_calls_leave_what_a_simple_model_allows() {
    for story in 0..crate::common::scaled(150) {
        let seed = crate::common::seed() + story as u64;
        let told = std::panic::catch_unwind(|| tell(seed));
        assert!(told.is_ok(), "CODEX_SEED={seed} fails in its first story");
    }
}

fn tell(seed: u64) {
    let mut story = Story::new(seed);
    for _ in 0..30 {
        story.step();
        story.check_what_callers_see();
        if story.random.below(4) == 0 {
            story.check_power_cuts();
        }
    }
    story.check_power_cuts();
}

const NAMES: [&str; 3] = ["a", "b", "c"];
const SECTOR: usize = 512;

struct Story {
    random: SeededEntropy,
    disk: FaultDir,
    plain: MemDir,
    files: BTreeMap<u64, Model>,
    names: BTreeMap<&'static str, u64>,
    /// The files of each name since the last successful sync of the directory, and the one without
    /// survivors.
    past_names: BTreeMap<&'static str, BTreeSet<Option<u64>>>,
    durable_names: BTreeMap<&'static str, u64>,
    dir_sync_failed: bool,
}

/// One file, on both directories.
struct Model {
    disk: Arc<dyn File>,
    plain: Arc<dyn File>,
    now: Vec<u8>,
    durable: Vec<u8>,
    /// The sectors that were written since the last sync. A successful sync makes them durable.
    dirty: BTreeSet<usize>,
    changed: bool,
    /// The contents of each sector since it was last certainly durable.
    past: BTreeMap<usize, BTreeSet<Vec<u8>>>,
    past_lens: BTreeSet<usize>,
}

impl Story {
    fn new(seed: u64) -> Self {
        Self {
            random: SeededEntropy::new(seed),
            disk: FaultDir::new(),
            plain: MemDir::new(),
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            past_names: NAMES.iter().map(|name| (*name, [None].into())).collect(),
            durable_names: BTreeMap::new(),
            dir_sync_failed: false,
        }
    }

    fn step(&mut self) {
        let name = NAMES[self.random.below(3) as usize];
        let Some(&ino) = self.names.get(name) else {
            return self.create(name);
        };
        let (len, offset) = (self.random.below(1_500) as usize, self.random.below(2_000) as usize);
        let byte = self.random.below(255) as u8 + 1;
        match self.random.below(12) {
            0..4 => self.file(ino).write(&vec![byte; len], offset),
            4 => self.file(ino).set_len(offset),
            5 => self.file(ino).allocate(offset, len),
            6..8 => self.file(ino).sync_well(),
            8 => {
                let syncs = Calls::of(CallKind::Sync);
                self.disk.fail_on(syncs, 1, Fault::Eio, Lasting::Once, Side::Before);
                self.file(ino).sync_badly();
                self.disk.clear_plan();
            }
            9 => self.sync_dir(),
            10 => self.rename(name, NAMES[self.random.below(3) as usize]),
            _ => self.remove(name),
        }
    }

    fn file(&mut self, ino: u64) -> &mut Model {
        self.files.get_mut(&ino).unwrap()
    }

    fn create(&mut self, name: &'static str) {
        let open = |dir: &dyn Dir| dir.open(name, Open::CreateNew(Mode::Private)).unwrap();
        let (disk, plain) = (open(&self.disk), open(&self.plain));
        let ino = self.disk.metadata(name).unwrap().unwrap().identity;
        self.files.insert(ino, Model::new(disk, plain));
        self.names.insert(name, ino);
        self.past_names.get_mut(name).unwrap().insert(Some(ino));
    }

    fn rename(&mut self, from: &'static str, to: &'static str) {
        self.disk.rename(from, to).unwrap();
        self.plain.rename(from, to).unwrap();
        if from != to {
            let ino = self.names.remove(from).unwrap();
            self.names.insert(to, ino);
            self.past_names.get_mut(from).unwrap().insert(None);
            self.past_names.get_mut(to).unwrap().insert(Some(ino));
        }
    }

    fn remove(&mut self, name: &'static str) {
        self.disk.remove(name).unwrap();
        self.plain.remove(name).unwrap();
        self.names.remove(name);
        self.past_names.get_mut(name).unwrap().insert(None);
    }

    /// One of four fails. After that the state of the names is uncertain, so the model only limits
    /// them.
    fn sync_dir(&mut self) {
        if self.random.below(4) == 0 {
            self.disk.fail_on(
                Calls::of(CallKind::SyncDir),
                1,
                Fault::Eio,
                Lasting::Once,
                Side::Before,
            );
            self.disk.sync().unwrap_err();
            self.disk.clear_plan();
            self.dir_sync_failed = true;
            return;
        }
        self.disk.sync().unwrap();
        if !self.dir_sync_failed {
            self.durable_names.clone_from(&self.names);
            for (name, past) in &mut self.past_names {
                *past = [self.names.get(name).copied()].into();
            }
        }
    }

    fn check_what_callers_see(&self) {
        let mut names = (self.disk.list().unwrap(), self.plain.list().unwrap());
        names.0.sort();
        names.1.sort();
        assert_eq!(names.0, names.1);
        for (name, ino) in &self.names {
            let model = &self.files[ino];
            assert_eq!(self.disk.peek(name).unwrap(), model.now, "{name}");
            assert_eq!(contents(&*model.plain), model.now, "{name}");
            assert_eq!(contents(&*model.disk), model.now, "{name}");
        }
    }

    fn check_power_cuts(&self) {
        if !self.dir_sync_failed {
            let nothing = self.disk.reboot(Survivors::Nothing);
            let names: Vec<_> = self.durable_names.keys().copied().collect();
            assert_eq!(sorted(&nothing), names);
            for (name, ino) in &self.durable_names {
                assert_eq!(nothing.peek(name).unwrap(), self.files[ino].durable, "{name}");
            }
        }
        let everything = self.disk.reboot(Survivors::Everything);
        assert_eq!(sorted(&everything), sorted(&self.disk));
        for name in self.names.keys() {
            assert_eq!(everything.peek(name).unwrap(), self.disk.peek(name).unwrap(), "{name}");
        }
        let seed = self.random.next_u64();
        let choice = CrashChoice { seed, images_max: 60, samples: 40, ..CrashChoice::default() };
        for image in self.disk.crash_images(&choice) {
            self.check_image(&image);
        }
    }

    fn check_image(&self, image: &FaultDir) {
        for name in NAMES {
            let found = image.metadata(name).unwrap().map(|found| found.identity);
            assert!(self.past_names[name].contains(&found), "{name} stands for {found:?}");
            if let Some(ino) = found {
                self.files[&ino].check_past(&image.peek(name).unwrap());
            }
        }
    }
}

impl Model {
    fn new(disk: Arc<dyn File>, plain: Arc<dyn File>) -> Self {
        Self {
            disk,
            plain,
            now: Vec::new(),
            durable: Vec::new(),
            dirty: BTreeSet::new(),
            changed: false,
            past: BTreeMap::new(),
            past_lens: [0].into(),
        }
    }

    fn write(&mut self, bytes: &[u8], offset: usize) {
        self.disk.write_all_at(bytes, offset as u64).unwrap();
        self.plain.write_all_at(bytes, offset as u64).unwrap();
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len();
        self.change(offset, end, |now| {
            now.resize(now.len().max(end), 0);
            now[offset..end].copy_from_slice(bytes);
        });
    }

    fn set_len(&mut self, len: usize) {
        self.disk.set_len(len as u64).unwrap();
        self.plain.set_len(len as u64).unwrap();
        let before = self.now.len();
        self.change(len.min(before), before, |now| now.resize(len, 0));
    }

    fn allocate(&mut self, offset: usize, len: usize) {
        self.disk.allocate(offset as u64, len as u64).unwrap();
        self.plain.allocate(offset as u64, len as u64).unwrap();
        if len > 0 && offset + len > self.now.len() {
            self.change(0, 0, |now| now.resize(offset + len, 0));
        }
    }

    fn change(&mut self, start: usize, end: usize, change: impl FnOnce(&mut Vec<u8>)) {
        let touched = if start < end { start / SECTOR..end.div_ceil(SECTOR) } else { 0..0 };
        for number in touched.clone() {
            let before = sector(&self.durable, number);
            self.past.entry(number).or_insert_with(|| [before].into());
        }
        change(&mut self.now);
        for number in touched {
            self.past.get_mut(&number).unwrap().insert(sector(&self.now, number));
            self.dirty.insert(number);
        }
        self.past_lens.insert(self.now.len());
        self.changed = true;
    }

    fn sync_well(&mut self) {
        self.disk.sync().unwrap();
        if !self.changed {
            return;
        }
        let len = self.now.len();
        self.durable.resize(len.max(self.durable.len()).next_multiple_of(SECTOR), 0);
        for number in std::mem::take(&mut self.dirty) {
            let end = (number + 1) * SECTOR;
            self.durable.resize(self.durable.len().max(end), 0);
            self.durable[number * SECTOR..end].copy_from_slice(&sector(&self.now, number));
            self.past.remove(&number);
        }
        self.durable.truncate(len);
        self.past_lens = [len].into();
        self.changed = false;
    }

    fn sync_badly(&mut self) {
        self.disk.sync().unwrap_err();
        self.dirty.clear();
        self.changed = false;
    }

    fn check_past(&self, found: &[u8]) {
        let (min, max) = (*self.past_lens.first().unwrap(), *self.past_lens.last().unwrap());
        assert!((min..=max).contains(&found.len()), "{} not in {min}..={max}", found.len());
        for number in 0..found.len().div_ceil(SECTOR) {
            let end = found.len().min((number + 1) * SECTOR);
            let found = &found[number * SECTOR..end];
            let durable: BTreeSet<_> = [sector(&self.durable, number)].into();
            let past = self.past.get(&number).unwrap_or(&durable);
            assert!(is_of(past, found), "sector {number} never was like this");
        }
    }
}

/// Returns whether `found` is one of `past`, or torn between two of them.
fn is_of(past: &BTreeSet<Vec<u8>>, found: &[u8]) -> bool {
    let common = |sector: &[u8]| sector.iter().zip(found).take_while(|(a, b)| a == b).count();
    let same_end = |sector: &[u8]| {
        let pairs = sector[..found.len()].iter().rev().zip(found.iter().rev());
        pairs.take_while(|(a, b)| a == b).count()
    };
    past.iter().any(|new| past.iter().any(|old| common(new) + same_end(old) >= found.len()))
}

fn sector(bytes: &[u8], number: usize) -> Vec<u8> {
    let mut found = vec![0; SECTOR];
    let start = bytes.len().min(number * SECTOR);
    let end = bytes.len().min((number + 1) * SECTOR);
    found[..end - start].copy_from_slice(&bytes[start..end]);
    found
}

fn contents(file: &dyn File) -> Vec<u8> {
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn sorted(dir: &dyn Dir) -> Vec<String> {
    let mut names = dir.list().unwrap();
    names.sort();
    names
}
