//! Tests that no pair of key and nonce is used for two seals, after any change of the files.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use codex_core::vfs::fault::{Calls, Fault, FaultDir, Lasting, Side, Survivors};
use codex_core::vfs::{Dir, SeededEntropy, Vfs};
use codex_core::{Durability, Form};
use codex_storage::sync::Mutex;
use codex_storage::vfs::CallKind;
use codex_storage::{Config, Conversion, convert};

use crate::audit::{Audited, Book};
use crate::common::{files, scaled, seed, write};
use crate::store::Store;

const NAME: &str = "a.db";
const COPY: &str = "copy.db";

/// A store, its disk, and saved states of it.
struct Bed {
    disk: FaultDir,
    form: Form,
    /// The keys that may open it, the last one first.
    keys: Vec<u8>,
    saved: Option<Saved>,
    opened: u64,
}

/// Files, and the keys that may open them.
type Saved = (BTreeMap<String, Vec<u8>>, Vec<u8>);

/// A run: its random choices, and the record of all seals.
struct Run {
    random: SeededEntropy,
    book: Arc<Mutex<Book>>,
    /// Each opening gets random bytes that no other opening gets.
    seeds: u64,
    counts: BTreeMap<&'static str, u64>,
}

impl Run {
    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn one_in(&self, n: u64) -> bool {
        self.random.below(n) == 0
    }

    fn form(&self) -> Form {
        crate::common::FORMS[usize::try_from(self.random.below(3)).unwrap()]
    }

    fn key(&self) -> u8 {
        u8::try_from(self.random.below(200)).unwrap()
    }

    fn world(&mut self, disk: &FaultDir) -> Vfs {
        self.seeds += 1;
        disk.vfs(self.seeds << 20)
    }

    fn fresh(&mut self) -> Bed {
        let (form, n) = (self.form(), self.key());
        Bed { disk: FaultDir::new(), form, keys: vec![n], saved: None, opened: 0 }
    }

    /// Opens the store with the first key that works. Creates a new store if the files are not a
    /// store any more, after one of them was rolled back.
    fn open(&mut self, bed: &mut Bed) -> Option<(Store, Vfs)> {
        let vfs = self.world(&bed.disk);
        for n in bed.keys.clone() {
            let mut config = Config::new(vfs.clone(), NAME);
            // The key may change later, if a conversion happens or is rolled back.
            config.form = (bed.opened == 0).then_some(bed.form);
            config.keys = Some(Audited::keys(n, &vfs.entropy, &self.book));
            if self.one_in(3) {
                config.durability = Durability::Interval(Duration::from_secs(1));
            }
            if self.one_in(2) {
                config.checkpoint = config.checkpoint.close_into_image_bytes_max(0);
            }
            if let Ok(store) = Store::open(config) {
                bed.opened += 1;
                (bed.keys, bed.form) = (vec![n], store.storage.form());
                self.count("opened");
                return Some((store, vfs));
            }
        }
        self.count("refused");
        None
    }

    /// Writes, checkpoints and changes keys, until a call fails.
    fn work(&mut self, bed: &mut Bed, store: &mut Store, vfs: &Vfs) -> codex_storage::Result<()> {
        for step in 0..=self.random.below(6) {
            match self.random.below(12) {
                0 => {
                    store.checkpoint()?;
                    self.count("checkpoint");
                }
                1 => store.flush()?,
                2 => {
                    let n = self.key();
                    bed.keys.insert(0, n);
                    store.storage.change_key(&*Audited::keys(n, &vfs.entropy, &self.book))?;
                    self.count("change of key");
                }
                3 => {
                    let n = self.key();
                    bed.keys.insert(0, n);
                    let keys = Audited::keys(n, &vfs.entropy, &self.book);
                    if let Some(job) = store.storage.rekey(&*keys, &store.map)? {
                        let state = store.map.clone();
                        store.set("beside", &format!("{step}"))?;
                        let written = job.write(&state, &|_| true);
                        store.storage.finish_checkpoint(written)?;
                    }
                    self.count("rekey");
                }
                n => {
                    let value = "v".repeat(usize::try_from(self.random.below(400)).unwrap());
                    store.set(&format!("key {n}"), &value)?;
                    self.count("commit");
                }
            }
        }
        Ok(())
    }

    /// Arms a fault for later calls.
    fn plan(&mut self, disk: &FaultDir) {
        let call = self.random.below(40);
        match self.random.below(5) {
            0 => {
                disk.fail_on(
                    Calls::of(CallKind::Allocate),
                    1 + call / 10,
                    Fault::Enospc,
                    Lasting::Once,
                    Side::Before,
                );
                self.count("failed allocation");
            }
            1 => {
                disk.fail_at(disk.calls() + call, Fault::Eio, Lasting::Once, Side::After);
                self.count("error");
            }
            2 | 3 => {
                disk.cut_power_at(disk.calls() + call, Side::After);
                self.count("power cut");
            }
            _ => {}
        }
    }

    /// Works on the files of a closed store. Failures are intended.
    fn closed(&mut self, bed: &mut Bed) {
        if self.one_in(2) {
            self.plan(&bed.disk);
        }
        match self.random.below(6) {
            0 => drop(self.convert(bed)),
            1 | 2 => drop(self.back_up(bed)),
            _ => {}
        }
    }

    /// Makes backups of every kind, each of which is then written to as a store.
    fn back_up(&mut self, bed: &Bed) -> codex_core::Result<()> {
        let vfs = self.world(&bed.disk);
        let store = self.application(bed, NAME)?;
        for _ in 0..=self.random.below(2) {
            store.set("backed up", &self.random.next_u64())?;
            store.back_up()?;
            self.count("rotation");
        }
        for name in files(&vfs).keys().filter(|name| name.starts_with(COPY)) {
            drop(vfs.dir.remove(name));
        }
        store.backup_to_in(&vfs, COPY, &mut |_| ControlFlow::Continue(()))?;
        store.set("original", &self.random.next_u64())?;
        drop(store);
        let copy = self.application(bed, COPY)?;
        copy.set("copy", &self.random.next_u64())?;
        copy.checkpoint()?;
        copy.set("copy", &self.random.next_u64())?;
        drop(copy);
        self.count("hot copy");
        codex_core::Backups::of_in(&vfs, NAME).restore(1)?;
        self.application(bed, NAME)?.set("restored", &self.random.next_u64())?;
        self.count("restored backup");
        Ok(())
    }

    /// Opens the store `name` as an application does.
    fn application(&mut self, bed: &Bed, name: &str) -> codex_core::Result<codex_core::Store> {
        let vfs = self.world(&bed.disk);
        let keys = Audited::keys(bed.keys[0], &vfs.entropy, &self.book);
        let options = codex_core::Store::options().form(bed.form);
        codex_core::internals::open(&options, &vfs, name, keys)
    }

    /// Converts the store to a new root key, in any form.
    fn convert(&mut self, bed: &mut Bed) -> codex_storage::Result<()> {
        let (vfs, n) = (self.world(&bed.disk), self.key());
        let form = self.form();
        let mut config = Config::new(vfs.clone(), NAME);
        config.keys = Some(Audited::keys(bed.keys[0], &vfs.entropy, &self.book));
        let keys = Some(Audited::keys(n, &vfs.entropy, &self.book));
        bed.keys.push(n);
        let done = convert(config, &Conversion { form: Some(form), keys, compression: None })?;
        (bed.form, bed.keys) = (done.form, vec![n]);
        self.count("conversion");
        Ok(())
    }

    /// Changes the files while no handle has the store open.
    fn meddle(&mut self, bed: &mut Bed) -> Option<Bed> {
        let vfs = self.world(&bed.disk);
        match self.random.below(6) {
            choice if choice == 0 || bed.saved.is_none() => {
                bed.saved = Some((files(&vfs), bed.keys.clone()));
                self.count("saved");
            }
            1 => {
                if let Some((saved, keys)) = &bed.saved
                    && let Some((name, bytes)) = saved.last_key_value()
                {
                    write(&vfs, name, bytes);
                    bed.keys.extend(keys);
                    self.count("rollback of a file");
                }
            }
            2 | 3 => {
                if let Some((saved, keys)) = bed.saved.clone() {
                    restore(&vfs, &saved);
                    bed.keys = keys;
                    self.count("restore");
                }
            }
            4 => {
                self.count("copy");
                return Some(Bed {
                    disk: bed.disk.duplicate(),
                    form: bed.form,
                    keys: bed.keys.clone(),
                    saved: bed.saved.clone(),
                    opened: bed.opened,
                });
            }
            _ => {}
        }
        None
    }

    fn cycle(&mut self, beds: &mut Vec<Bed>) {
        let at = usize::try_from(self.random.below(beds.len() as u64)).unwrap();
        let mut bed = beds.swap_remove(at);
        if bed.opened > 0 {
            self.plan(&bed.disk);
        }
        if let Some((mut store, vfs)) = self.open(&mut bed) {
            let ended = self.work(&mut bed, &mut store, &vfs);
            if ended.is_ok() && self.one_in(2) && store.close().is_ok() {
                self.count("close");
                self.closed(&mut bed);
            }
        }
        bed.disk.clear_plan();
        let again = bed.disk.crash_process();
        let is_off = again.list().is_err();
        bed.disk = match self.random.below(3) {
            0 if !is_off => again,
            1 => bed.disk.reboot(Survivors::Seeded(self.random.next_u64())),
            _ => bed.disk.reboot(Survivors::Everything),
        };
        let copy = self.meddle(&mut bed);
        let works = self.open(&mut bed).is_some();
        bed.disk = bed.disk.crash_process();
        if works {
            beds.push(bed);
        } else if let Some((saved, keys)) = bed.saved.take() {
            restore(&self.world(&bed.disk), &saved);
            bed.keys = keys;
            beds.push(bed);
        }
        beds.extend(copy);
        beds.truncate(12);
        while beds.len() < 6 {
            let bed = self.fresh();
            beds.push(bed);
            self.count("store");
        }
    }
}

/// Restores the whole directory to an earlier state.
fn restore(vfs: &Vfs, saved: &BTreeMap<String, Vec<u8>>) {
    for name in files(vfs).keys() {
        vfs.dir.remove(name).unwrap();
    }
    for (name, bytes) in saved {
        write(vfs, name, bytes);
    }
}

#[test]
fn no_pair_of_key_and_nonce_ever_comes_twice() {
    let cycles = scaled(3_000);
    let seed = seed();
    let book = Arc::new(Mutex::new(Book::default()));
    let mut run = Run {
        random: SeededEntropy::new(seed),
        book: Arc::clone(&book),
        seeds: seed << 32,
        counts: BTreeMap::new(),
    };
    let mut beds = vec![run.fresh()];
    for done in 1..=cycles {
        run.cycle(&mut beds);
        let book = book.lock();
        assert!(
            book.repeated.is_empty(),
            "a pair of key and nonce came twice (seed {seed}, cycle {done})"
        );
    }
    let seals = book.lock().seals();
    println!("{cycles} cycles, {seals} seals: {:?}", run.counts);
    assert!(seals > usize::try_from(cycles).unwrap() * 2, "{seals} seals");
    let kinds = ["failed allocation", "power cut", "rollback of a file", "copy", "restore"];
    for what in kinds.iter().chain(&["rekey", "conversion"]).chain(BACKUPS) {
        assert!(cycles < 200 || run.counts.contains_key(what), "no {what}");
    }
}

const BACKUPS: &[&str] = &["rotation", "hot copy", "restored backup"];

/// The control: the record detects a pair that is used twice.
#[test]
fn the_book_notices_random_bytes_that_come_again() {
    let book = Arc::new(Mutex::new(Book::default()));
    let disk = FaultDir::new();
    for n in 0..3 {
        // Each opening gets the same random bytes, as on a machine that was cloned while it ran.
        let vfs = disk.vfs(if n == 0 { 1 } else { 2 });
        let mut config = Config::new(vfs.clone(), NAME);
        config.form = Some(Form::Ledger);
        config.keys = Some(Audited::keys(2, &vfs.entropy, &book));
        let mut store = Store::open(config).unwrap();
        store.set("key", &format!("value {n}")).unwrap();
        drop(store);
    }
    assert_eq!(book.lock().repeated, [true], "another text under one key and nonce");
}
