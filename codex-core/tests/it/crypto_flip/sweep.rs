//! Tests that change every byte of every file that the directory of a store can contain, unchanged
//! otherwise and with corrected checksums: the files of closed and killed stores, backups,
//! receipts, and the files that interrupted checkpoints, backups, restores, changes of key and
//! conversions leave.
//!
//! The result of opening, listing, verifying or restoring is then a state that the store had, or a
//! typed error. No file that an unchanged directory keeps is lost. In a plain store, a change with
//! corrected checksums is a forgery that cannot be detected: there the test only requires that
//! nothing panics.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use codex_core::crypto::{Cipher, Key};
use codex_core::internals::without_threads;
use codex_core::vfs::fault::{Calls, Fault, FaultDir, Lasting, Side};
use codex_core::vfs::{Mode, Open, Vfs};
use codex_core::{
    BackupPolicy, Backups, CheckpointPolicy, Conversion, Error, Form, OpenOptions, StorageError,
    Store,
};

use super::NAME;
use crate::common::format::{
    frames, is_log, parts, resum_frame, resum_header, resum_header_at, resum_image,
};
use crate::common::{FORMS, contents};

type State = BTreeMap<Vec<u8>, Vec<u8>>;
type Folder = BTreeMap<String, Vec<u8>>;

/// A directory: a form, plain or encrypted, and the way in which its store ended.
struct Sample {
    form: Form,
    sealed: bool,
    what: &'static str,
    disk: FaultDir,
    files: Folder,
    /// The contents after each commit.
    states: Vec<State>,
    /// The commit that opening the unchanged directory returns.
    seq: usize,
    /// The files that are left after opening the unchanged directory, and after writing too.
    opened: BTreeSet<String>,
    written: BTreeSet<String>,
}

/// A changed byte.
struct Case<'a> {
    sample: &'a Sample,
    name: &'a str,
    at: usize,
    fits: bool,
}

impl fmt::Display for Case<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sample { form, sealed, what, .. } = self.sample;
        let Self { name, at, fits, .. } = self;
        write!(f, "{form}, encrypted {sealed}, {what}: {name} byte {at}, checksums fit: {fits}")
    }
}

fn key(n: u8) -> Key {
    Key::raw(&[n; 32]).unwrap()
}

fn options(form: Form, sealed: Option<u8>) -> OpenOptions {
    let mut options = without_threads(Store::options()).backups(BackupPolicy::keep(4));
    if let Some(n) = sealed {
        options = options.key(key(n));
    }
    if form == Form::Wal {
        // Makes the close leave a log.
        let policy = CheckpointPolicy::default().close_into_image_bytes_max(0);
        options = options.checkpoint(policy);
    }
    options
}

fn folder(vfs: &Vfs) -> Folder {
    let read = |name: String| {
        let file = vfs.dir.open(&name, Open::Read).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        (name, bytes)
    };
    vfs.dir.list().unwrap().into_iter().map(read).collect()
}

/// Returns a store with an image, a log and two verified backups, open or closed, and its contents
/// after each commit.
fn begin(form: Form, sealed: bool, closed: bool) -> (FaultDir, Vec<State>) {
    let disk = FaultDir::new();
    let vfs = disk.vfs(1);
    let store = options(form, sealed.then_some(3)).form(form).open_in(&vfs, NAME).unwrap();
    let mut states = vec![State::new()];
    for n in 0..5_u8 {
        store.set_bytes(format!("key {n}"), [n | 1; 20]).unwrap();
        states.push(contents(&store));
        if n == 0 {
            store.checkpoint().unwrap();
        }
        if n == 1 || n == 3 {
            store.back_up().unwrap();
        }
    }
    let backups = Backups::of_in(&vfs, NAME);
    let backups = if sealed { backups.key(key(3)) } else { backups };
    backups.verify(1).unwrap();
    backups.verify(2).unwrap();
    if closed {
        store.close().unwrap();
        drop(store);
        return (disk, states);
    }
    let killed = disk.crash_process();
    drop(store);
    (killed, states)
}

/// Returns a Wal store whose last image could not be written, so that it ends in two logs.
fn two_logs(sealed: bool, closed: bool) -> (FaultDir, Vec<State>) {
    let (disk, mut states) = begin(Form::Wal, sealed, true);
    let store = options(Form::Wal, sealed.then_some(3)).open_in(&disk.vfs(2), NAME).unwrap();
    let mut set = |n: u8| {
        store.set_bytes(format!("key {n}"), [n | 1; 20]).unwrap();
        states.push(contents(&store));
    };
    set(5);
    disk.fail_on(Calls::any().on("*.tmp.image"), 1, Fault::Eio, Lasting::Sticky, Side::Before);
    store.checkpoint().unwrap_err();
    disk.clear_plan();
    (6..9).for_each(&mut set);
    if closed {
        store.close().unwrap();
        return (disk, states);
    }
    (disk.crash_process(), states)
}

/// The interrupted operation: each of its calls, in a directory of [`begin`].
type Act = fn(&Vfs, Form, bool);

const ACTS: [(&str, Act); 6] = [
    ("a checkpoint", |vfs, form, sealed| {
        let opened = options(form, sealed.then_some(3)).open_in(vfs, NAME);
        let _ = opened.and_then(|store| store.checkpoint());
    }),
    ("a backup", |vfs, form, sealed| {
        let opened = options(form, sealed.then_some(3)).open_in(vfs, NAME);
        let _ = opened.and_then(|store| store.back_up().map(drop));
    }),
    ("a restore", |vfs, _, sealed| {
        let backups = Backups::of_in(vfs, NAME);
        let backups = if sealed { backups.key(key(3)) } else { backups };
        let _ = backups.restore(2);
    }),
    ("a change of key", |vfs, form, sealed| {
        let opened = options(form, sealed.then_some(3)).open_in(vfs, NAME);
        let _ = opened.and_then(|store| store.change_key(key(4)));
    }),
    ("a rekey", |vfs, form, sealed| {
        let opened = options(form, sealed.then_some(3)).open_in(vfs, NAME);
        let _ = opened.and_then(|store| store.rekey(key(4)));
    }),
    ("a conversion", |vfs, form, sealed| {
        let to = if form == Form::Ledger { Form::Wal } else { Form::Ledger };
        let conversion = Conversion::new().form(to);
        let conversion = if sealed { conversion.key(key(3)).encrypt(key(4)) } else { conversion };
        let _ = conversion.convert_in(vfs, NAME);
    }),
];

/// Returns all directories of a form: closed, killed, and one for each set of names that an
/// interruption leaves.
fn samples(form: Form, sealed: bool) -> Vec<Sample> {
    let mut made = Vec::new();
    for (closed, what) in [(true, "closed"), (false, "killed")] {
        let (disk, states) = begin(form, sealed, closed);
        made.push(Sample::new(form, sealed, what, disk, states));
    }
    for (closed, what) in [(true, "two logs, closed"), (false, "two logs, killed")] {
        if form == Form::Wal {
            let (disk, states) = two_logs(sealed, closed);
            made.push(Sample::new(form, sealed, what, disk, states));
        }
    }
    let (base, states) = begin(form, sealed, true);
    for (what, act) in ACTS {
        let mut seen = BTreeSet::new();
        for nth in 1.. {
            let disk = base.duplicate();
            disk.kill_process_on(Calls::any(), nth, Side::After);
            act(&disk.vfs(2), form, sealed);
            let struck = disk.faults_fired() > 0;
            disk.clear_plan();
            let disk = disk.crash_process();
            let names: Vec<String> = folder(&disk.vfs(3)).into_keys().collect();
            if struck && seen.insert(names) {
                made.push(Sample::new(form, sealed, what, disk, states.clone()));
            }
            if !struck {
                break;
            }
        }
    }
    made
}

impl Sample {
    fn new(
        form: Form,
        sealed: bool,
        what: &'static str,
        disk: FaultDir,
        states: Vec<State>,
    ) -> Self {
        let files = folder(&disk.vfs(4));
        let (seq, opened, written) = (0, BTreeSet::new(), BTreeSet::new());
        let mut sample = Self { form, sealed, what, disk, files, states, seq, opened, written };
        for writes in [false, true] {
            let vfs = sample.disk.duplicate().vfs(5);
            let store = sample.open(&vfs).unwrap_or_else(|e| panic!("{form} {what}: {e}"));
            sample.seq = usize::try_from(store.recovered().seq).unwrap();
            if writes {
                store.set_bytes("new", "value").unwrap();
                store.back_up().unwrap();
            }
            store.close().unwrap();
            let left = folder(&vfs);
            let is_left = |(name, bytes): &(&String, &Vec<u8>)| {
                !is_temporary(name) && (left.contains_key(*name) || is_in(&left, bytes))
            };
            let names = sample.files.iter().filter(is_left).map(|(name, _)| name.clone());
            let names = names.collect();
            *(if writes { &mut sample.written } else { &mut sample.opened }) = names;
        }
        sample
    }

    /// Opens for writing with the earlier or the later key.
    fn open(&self, vfs: &Vfs) -> Result<Store, Error> {
        match options(self.form, self.sealed.then_some(3)).open_in(vfs, NAME) {
            Err(Error::Storage(StorageError::WrongKey { .. })) => {
                options(self.form, Some(4)).open_in(vfs, NAME)
            }
            opened => opened,
        }
    }

    fn state(&self, seq: usize) -> &State {
        // A conversion may have added one commit that changes nothing.
        &self.states[seq.min(self.states.len() - 1)]
    }

    /// Returns the positions of the bytes to change. Of unused space, only some.
    fn places(&self, name: &str, step: usize, first: usize) -> Vec<usize> {
        let bytes = &self.files[name];
        let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        let dense = (used + 64).min(bytes.len());
        (first % step..dense).step_by(step).chain((dense..bytes.len()).step_by(16_384)).collect()
    }
}

/// Returns true if a file of this name is a copy or incomplete, so that it is removed in case of
/// doubt.
fn is_temporary(name: &str) -> bool {
    [".tmp", ".stage", ".copy", ".new"].iter().any(|part| name.contains(part))
}

fn is_lock(name: &str) -> bool {
    name.rsplit('.').next() == Some("lock")
}

fn is_in(folder: &Folder, bytes: &[u8]) -> bool {
    folder.values().any(|found| found == bytes)
}

/// Corrects the checksums of a file after the byte `at` was changed, which needs no key.
fn repair(name: &str, file: &mut [u8], at: usize) {
    if name.ends_with(".bak.restore") {
        // The checksum is the last field, over the text without it.
        let digits = file.len() - 9..file.len() - 1;
        let unsigned = [&file[..digits.start], &file[digits.end..]].concat();
        let sum = format!("{:08x}", crc32c::crc32c(&unsigned));
        file[digits].copy_from_slice(sum.as_bytes());
    } else if name.ends_with(".bak.lock") {
        if let Some((body, sum)) = file.split_last_chunk_mut::<4>() {
            *sum = crc32c::crc32c(body).to_le_bytes();
        }
    } else if file.len() < 512 || !file[1..].starts_with(b"CDXDB\r\n") {
        // The lock file, or a part of a file.
    } else if at < 512 {
        let is_segment = is_log(file) && file[11] == 1;
        if file[12] != 0 && !is_segment && (224..464).contains(&at) {
            let sum: [u8; 32] = sha2::Digest::finalize(
                <sha2::Sha256 as sha2::Digest>::new_with_prefix(&file[224..464]),
            )
            .into();
            file[464..480].copy_from_slice(&sum[..16]);
        }
        resum_header(file);
    } else if is_log(file) {
        let frame = frames(file).into_iter().find(|(from, to)| (*from..*to).contains(&at));
        if let Some((from, _)) = frame {
            resum_frame(file, from);
        }
    } else if at >= file.len() - 512 {
        // The second header alone.
        resum_header_at(file, file.len() - 512);
    } else if parts(file).last().is_some_and(|&(_, end)| end + 96 + 512 == file.len()) {
        resum_image(file);
    }
}

impl Case<'_> {
    /// Returns the directory with the changed byte, and the changed file, or `None` if nothing
    /// changes.
    fn disk(&self) -> Option<(Vfs, Vec<u8>)> {
        let mut bytes = self.sample.files[self.name].clone();
        bytes[self.at] ^= 1 << (self.at % 8);
        if self.fits {
            let flipped = bytes.clone();
            repair(self.name, &mut bytes, self.at);
            if bytes == flipped {
                return None;
            }
        }
        let vfs = self.sample.disk.duplicate().vfs(6);
        vfs.dir.remove(self.name).unwrap();
        let file = vfs.dir.open(self.name, Open::CreateNew(Mode::Private)).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        file.sync().unwrap();
        vfs.dir.sync().unwrap();
        Some((vfs, bytes))
    }

    fn run(&self, tally: &mut Tally) -> Result<(), String> {
        let Some((vfs, bytes)) = self.disk() else { return Ok(()) };
        tally.cases += 1;
        self.look(&vfs, tally)?;
        self.read_only(&vfs, tally)?;
        let mut wanted = self.sample.files.clone();
        wanted.insert(self.name.to_owned(), bytes.clone());
        let mut left = folder(&vfs);
        // The receipts of verifications are in a lock file.
        wanted.retain(|name, _| !is_lock(name));
        left.retain(|name, _| !is_lock(name));
        if left != wanted {
            return Err(format!("reading made {:?} of {:?}", left.keys(), wanted.keys()));
        }
        self.write(&vfs, &bytes, tally)?;
        if self.at.is_multiple_of(4) {
            self.fall_back(tally)?;
            self.restore(tally)?;
            self.repair(tally)?;
        }
        Ok(())
    }

    /// Returns true if a forgery cannot be detected, as in a plain store.
    fn is_forgery(&self) -> bool {
        self.fits && !self.sample.sealed
    }

    /// Checks that the opened state is one that the store had, and that missing commits are
    /// reported.
    fn judge(&self, store: &Store, whole: bool, what: &str) -> Result<(), String> {
        if self.is_forgery() {
            return Ok(());
        }
        let sample = self.sample;
        let seq = usize::try_from(store.recovered().seq).unwrap_or(usize::MAX);
        if contents(store) != *sample.state(seq) {
            return Err(format!("{what}: not the state after commit {seq}"));
        }
        if whole && seq != sample.seq {
            let is_cut = store.recovered().cut.is_some() && seq + 1 == sample.seq;
            let is_restore = sample.what == "a restore";
            if !is_cut && !is_restore {
                return Err(format!("{what}: commit {seq} in place of {}", sample.seq));
            }
        }
        Ok(())
    }

    fn typed(error: &Error, tally: &mut Tally, what: &str) -> Result<(), String> {
        tally.errors += 1;
        match error {
            Error::Storage(StorageError::Io { .. } | StorageError::Contradiction(_)) => {
                Err(format!("{what}: not an error about the file: {error}"))
            }
            _ => Ok(()),
        }
    }

    fn backups(&self, vfs: &Vfs, n: u8) -> Backups {
        let backups = Backups::of_in(vfs, NAME);
        if self.sample.sealed { backups.key(key(n)) } else { backups }
    }

    /// Lists and verifies. A file that passes with the key must open in a state that the store had.
    fn look(&self, vfs: &Vfs, tally: &mut Tally) -> Result<(), String> {
        let backups = self.backups(vfs, 3);
        let Ok(listed) = backups.list() else { return Ok(()) };
        for entry in listed {
            if backups.verify(entry.index).is_err() {
                tally.errors += 1;
                continue;
            }
            let mut options = without_threads(Store::options()).read_only(true);
            if self.sample.sealed {
                options = options.key(key(3));
            }
            match options.open_in(vfs, &entry.name) {
                Ok(store) => self.judge(&store, false, &format!("{} passed", entry.name))?,
                Err(error) => {
                    return Err(format!("{} passed and does not open: {error}", entry.name));
                }
            }
        }
        let _ = (backups.newest_good(), backups.pending());
        Ok(())
    }

    fn read_only(&self, vfs: &Vfs, tally: &mut Tally) -> Result<(), String> {
        for n in [3, 4] {
            let mut options = without_threads(Store::options()).read_only(true);
            if self.sample.sealed {
                options = options.key(key(n));
            }
            match options.open_in(vfs, NAME) {
                Ok(store) => {
                    return self.judge(&store, true, "read-only");
                }
                Err(Error::Storage(StorageError::WrongKey { .. })) => {}
                Err(error) => Self::typed(&error, tally, "read-only")?,
            }
        }
        Ok(())
    }

    /// Opens for writing, writes, backs up and opens again. No file is lost.
    fn write(&self, vfs: &Vfs, bytes: &[u8], tally: &mut Tally) -> Result<(), String> {
        let mut kept = &self.sample.opened;
        match self.sample.open(vfs) {
            Ok(store) => {
                self.judge(&store, true, "writing")?;
                kept = &self.sample.written;
                let mut wanted = contents(&store);
                let backed_up = store.set_bytes("new", "value").and_then(|()| store.back_up());
                if let Err(error) = backed_up {
                    Self::typed(&error, tally, "writing")?;
                }
                wanted = if store.contains_key("new") { contents(&store) } else { wanted };
                let poisoned = store.poisoned();
                let closed = store.close();
                if let (Err(error), None) = (&closed, poisoned) {
                    Self::typed(error, tally, "closing")?;
                }
                drop(store);
                if closed.is_ok() {
                    let again = self.sample.open(vfs).map_err(|e| format!("again: {e}"))?;
                    if contents(&again) != wanted {
                        return Err("another state when opened again".to_owned());
                    }
                    tally.opened += 1;
                }
            }
            Err(error) => Self::typed(&error, tally, "writing")?,
        }
        let left = folder(vfs);
        for name in kept {
            let own = if name == self.name { bytes } else { &self.sample.files[name] };
            let is_left = left.contains_key(name) || is_in(&left, own);
            if !is_left && !self.is_forgery() {
                return Err(format!("{name} is gone"));
            }
        }
        Ok(())
    }

    fn fall_back(&self, tally: &mut Tally) -> Result<(), String> {
        let Some((vfs, _)) = self.disk() else { return Ok(()) };
        let options = options(self.sample.form, self.sample.sealed.then_some(3));
        match options.fall_back_to_backup(true).open_in(&vfs, NAME) {
            Ok(store) => self.judge(&store, store.restored().is_none(), "fall-back"),
            Err(Error::Storage(StorageError::WrongKey { .. })) => Ok(()),
            Err(error) => Self::typed(&error, tally, "fall-back"),
        }
    }

    /// Restores the main file under the one of its headers that is intact and authentic.
    fn repair(&self, tally: &mut Tally) -> Result<(), String> {
        let Some((vfs, _)) = self.disk() else { return Ok(()) };
        for n in [3, 4] {
            let cipher = Cipher::default();
            let keys = codex_core::internals::keys(key(n), cipher, Arc::clone(&vfs.entropy));
            let keys = self.sample.sealed.then_some(&*keys);
            match codex_storage::repair_header(&vfs, NAME, keys) {
                Ok(false) | Err(StorageError::WrongKey { .. }) => {}
                Err(_) => tally.errors += 1,
                Ok(true) => {
                    let opened = self.sample.open(&vfs);
                    let store = opened.map_err(|e| format!("repaired and does not open: {e}"))?;
                    return self.judge(&store, true, "repaired");
                }
            }
        }
        Ok(())
    }

    fn restore(&self, tally: &mut Tally) -> Result<(), String> {
        let Some((vfs, _)) = self.disk() else { return Ok(()) };
        if self.backups(&vfs, 3).restore(1).is_err() {
            tally.errors += 1;
            return Ok(());
        }
        match self.sample.open(&vfs) {
            Ok(store) => self.judge(&store, false, "restored"),
            Err(error) => Err(format!("restored and does not open: {error}")),
        }
    }
}

#[derive(Debug, Default)]
struct Tally {
    samples: u64,
    cases: u64,
    opened: u64,
    errors: u64,
}

/// Sweeps one form: every `step`-th byte of each file, beginning at another byte in each directory.
fn sweep(form: Form, sealed: bool) {
    let step = step();
    let mut tally = Tally::default();
    let mut broken = Vec::new();
    let samples = samples(form, sealed);
    let mut first = usize::try_from(crate::common::seed()).unwrap();
    for sample in &samples {
        tally.samples += 1;
        for name in sample.files.keys() {
            first = first.wrapping_mul(31).wrapping_add(7);
            for at in sample.places(name, step, first) {
                for fits in [false, true] {
                    let case = Case { sample, name, at, fits };
                    let ran = catch_unwind(AssertUnwindSafe(|| case.run(&mut tally)));
                    match ran {
                        Ok(Ok(())) => {}
                        Ok(Err(why)) => broken.push(format!("{case}: {why}")),
                        Err(_) => broken.push(format!("{case}: a panic")),
                    }
                }
            }
        }
    }
    println!("{form}, encrypted {sealed}, one byte in {step}: {tally:?}");
    assert!(broken.is_empty(), "{} broken: {:#?}", broken.len(), shown(&broken));
    assert!(tally.opened > 0 && tally.errors > 0, "{tally:?}");
}

/// Keeps one example of each kind of failure.
fn shown(broken: &[String]) -> Vec<&String> {
    let kind =
        |text: &str| -> String { text.chars().filter(|letter| !letter.is_ascii_digit()).collect() };
    let mut seen = BTreeSet::new();
    broken.iter().filter(|text| seen.insert(kind(text))).take(100).collect()
}

/// The stride of the changed bytes. `CODEX_SCALE=128` changes each.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
fn step() -> usize {
    let scale = std::env::var("CODEX_SCALE").map_or(1.0, |scale| scale.parse::<f64>().unwrap());
    (128.0 / scale).round().max(1.0) as usize
}

#[test]
fn no_changed_byte_of_any_file_of_an_encrypted_store_gives_a_state_it_never_had() {
    for form in FORMS {
        sweep(form, true);
    }
}

#[test]
fn no_changed_byte_of_any_file_of_a_plain_store_panics_or_passes_its_checksums() {
    for form in FORMS {
        sweep(form, false);
    }
}
