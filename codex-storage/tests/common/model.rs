//! Sequences of operations on a store, with all states that a crash may leave.

use std::sync::Arc;
use std::time::Duration;

use codex_storage::batch::{Item, Op, TableId};
use codex_storage::seal::Keys;
use codex_storage::storage::{Durability, Form};
use codex_storage::sync::Mutex;
use codex_storage::vfs::Vfs;
use codex_storage::{Error, Result};

use super::Bed;
use super::store::{Map, Store};

/// One operation of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A commit that adds, replaces and removes a key.
    Commit,
    /// Two commits in one group.
    Group,
    /// A commit that clears.
    Clear,
    /// A commit that needs more room than a log has at first.
    Large,
    /// An image without a commit beside it.
    Checkpoint,
    /// An image with a commit between its begin and its end.
    Beside,
    /// An image that is abandoned.
    Abandoned,
    /// A flush that makes all commits durable.
    Flush,
    /// A close, then an open.
    CloseReopen,
    /// A drop without a close, then an open in the same boot.
    DropReopen,
    /// Another key for the same root key; nothing in a plain store.
    ChangeKey,
    /// A fresh root key under another key, with commits beside it; nothing in a plain store.
    Rekey,
}

/// All steps.
pub const STEPS: [Step; 12] = [
    Step::Commit,
    Step::Group,
    Step::Clear,
    Step::Large,
    Step::Checkpoint,
    Step::Beside,
    Step::Abandoned,
    Step::Flush,
    Step::CloseReopen,
    Step::DropReopen,
    Step::ChangeKey,
    Step::Rekey,
];

/// Returns the sequence with this number: first all of one step, then of two, then of three.
pub fn sequence(number: usize) -> Vec<Step> {
    let base = STEPS.len();
    let (len, mut rest) = match number {
        n if n < base => (1, n),
        n if n < base + base * base => (2, n - base),
        n => (3, n - base - base * base),
    };
    let mut steps = Vec::new();
    for _ in 0..len {
        steps.push(STEPS[rest % base]);
        rest /= base;
    }
    steps
}

/// Returns the number of sequences of at most three steps.
pub const SEQUENCES: usize = 12 + 12 * 12 + 12 * 12 * 12;

/// The states that may be found after a crash.
#[derive(Debug, Default)]
pub struct Model {
    /// The state after each commit, from zero commits on. The last ones may be in flight.
    pub states: Vec<Map>,
    /// Commits up to this one must be found.
    pub floor: usize,
    /// Whether an event has happened that no check has looked at.
    pub is_new: bool,
    /// The current operation, for messages.
    pub doing: String,
    /// The keys of which one opens the store; empty for a plain store.
    pub keys: Vec<Arc<dyn Keys>>,
}

/// A store on which a sequence runs.
pub struct Run {
    /// The form, the key and the directory of the store.
    pub bed: Bed,
    /// The level of durability.
    pub level: Durability,
    /// The states that may be found; shared with the code that checks the disk between the steps.
    pub model: Arc<Mutex<Model>>,
    store: Option<Store>,
    commits: usize,
    /// Whether the last commit may or may not be found.
    in_doubt: bool,
}

impl Run {
    /// Returns a store that does not exist yet.
    pub fn new(bed: Bed, level: Durability, model: Arc<Mutex<Model>>) -> Self {
        let keys = bed.keys.iter().cloned().collect();
        *model.lock() = Model { states: vec![Map::default()], keys, ..Model::default() };
        Self { bed, level, model, store: None, commits: 0, in_doubt: false }
    }

    /// Creates the store and runs the steps. An error of the storage ends only its step. Returns
    /// the errors.
    pub fn run(&mut self, steps: &[Step]) -> Vec<Error> {
        let mut errors = Vec::new();
        self.doing("create");
        errors.extend(self.open().err());
        for (at, step) in steps.iter().enumerate() {
            self.doing(&format!("step {at}, {step:?}"));
            errors.extend(self.step(*step).err());
        }
        errors
    }

    /// Opens the store if it is closed, and compares it with the model.
    pub fn open(&mut self) -> Result<()> {
        if self.store.is_some() {
            return Ok(());
        }
        let keys = self.model.lock().keys.clone();
        let (store, key) = open_with_one_of(&self.bed, self.level, &keys)?;
        let mut model = self.model.lock();
        model.keys = key.into_iter().collect();
        let found = holds(&store, &model);
        model.states.truncate(found + 1);
        // Opening for writing has made the commits that it found durable.
        model.floor = found;
        model.is_new = true;
        drop(model);
        self.store = Some(store);
        self.in_doubt = false;
        Ok(())
    }

    /// Drops the store without a close, like a killed process.
    pub fn drop_store(&mut self) {
        self.store = None;
    }

    fn step(&mut self, step: Step) -> Result<()> {
        match step {
            Step::CloseReopen => {
                if let Some(store) = self.store.take() {
                    let last = self.last();
                    store.close()?;
                    self.raise(last);
                }
                self.open()
            }
            Step::DropReopen => {
                let kept = self.bed.form != Form::Snapshot || self.level == Durability::Sync;
                let (last, in_doubt) = (self.last(), self.in_doubt);
                self.store = None;
                self.open()?;
                assert!(!kept || in_doubt || self.last() == last, "a killed process loses nothing");
                Ok(())
            }
            step => {
                self.open()?;
                self.step_open(step)
            }
        }
    }

    fn step_open(&mut self, step: Step) -> Result<()> {
        self.commits += 1;
        let (n, last) = (self.commits, self.last());
        let fresh = format!("key {n}");
        let value = format!("value {n}, {}", "x".repeat(n * 40));
        let set = Op::set(fresh.as_bytes(), value.as_bytes());
        let expires_us = (n % 2 == 0).then_some(i64::try_from(n).unwrap());
        let table = TableId::new(u32::try_from(n % 3).unwrap());
        let replace = Item { table, key: b"replaced", value: fresh.as_bytes(), expires_us };
        let replace = Op::Set(replace);
        let gone = format!("key {}", n.saturating_sub(2));
        let remove = Op::remove(gone.as_bytes());
        let large = vec![u8::try_from(n % 128).unwrap() | 1; 70_000];
        match step {
            Step::Commit => self.commit(&[&[set, replace, remove]]),
            Step::Group => self.commit(&[&[set, remove], &[replace]]),
            Step::Clear => self.commit(&[&[Op::CLEAR, set]]),
            Step::Large => self.commit(&[&[Op::set(b"large", &large)]]),
            Step::Checkpoint => {
                if self.store().checkpoint()? {
                    self.raise(last);
                }
                Ok(())
            }
            Step::Beside => {
                let checkpoint = self.store().begin()?;
                let state = self.store().map.clone();
                let committed = self.commit(&[&[set], &[remove]]);
                if let Some(checkpoint) = checkpoint {
                    let written = checkpoint.write(&state, &|_| true);
                    self.store().storage.finish_checkpoint(written)?;
                    self.raise(last);
                }
                committed
            }
            Step::Abandoned => self.store().abandoned(),
            Step::Flush => {
                self.store().flush()?;
                self.raise(last);
                Ok(())
            }
            Step::ChangeKey | Step::Rekey => self.replace_key(step),
            Step::CloseReopen | Step::DropReopen => unreachable!("handled by the caller"),
        }
    }

    fn replace_key(&mut self, step: Step) -> Result<()> {
        let old = self.model.lock().keys.clone();
        if old.is_empty() {
            return Ok(());
        }
        let new = super::keys(&format!("key {}", self.commits));
        self.model.lock().keys.push(Arc::clone(&new));
        let done = match step {
            Step::ChangeKey => self.store().storage.change_key(&*new),
            _ => self.rekey(&*new),
        };
        let is_poisoned = self.store().storage.poisoned().is_some();
        let mut model = self.model.lock();
        model.is_new = true;
        match &done {
            Ok(()) => model.keys = vec![new],
            // Either key may open the store.
            Err(_) if is_poisoned => {}
            Err(_) => model.keys = old,
        }
        done
    }

    fn rekey(&mut self, new: &dyn Keys) -> Result<()> {
        let store = self.store();
        let (state, last) = (store.map.clone(), self.last());
        let Some(job) = self.store().storage.rekey(new, &state)? else {
            self.raise(last);
            return Ok(());
        };
        let beside = |n: usize| format!("beside {n}");
        let set = |key: &str, run: &mut Self| run.commit(&[&[Op::set(key.as_bytes(), b"a rekey")]]);
        // The commits beside a rekey may succeed or fail independently of it.
        drop(set(&beside(self.commits), self));
        let written = job.write(&state, &|_| true);
        drop(set("beside too", self));
        self.store().storage.finish_checkpoint(written)?;
        self.raise(last);
        Ok(())
    }

    fn commit(&mut self, batches: &[&[Op<'_>]]) -> Result<()> {
        let mut model = self.model.lock();
        let before = model.states.len();
        for batch in batches {
            let mut state = model.states.last().unwrap().clone();
            batch.iter().for_each(|op| state.apply(*op));
            model.states.push(state);
        }
        drop(model);
        let poisoned = self.store().storage.poisoned().is_some();
        let done = self.store().commit(batches);
        let mut model = self.model.lock();
        model.is_new = true;
        match &done {
            Ok(seqs) => {
                assert!(!poisoned, "a poisoned store took a commit");
                assert_eq!(*seqs, before as u64..(before + batches.len()) as u64);
                if self.level == Durability::Sync {
                    model.floor = model.states.len() - 1;
                }
            }
            Err(Error::InDoubt { seq, .. }) => {
                assert!(*seq <= before as u64, "an earlier commit may be in doubt too");
            }
            // The commit will not be found, now or later.
            Err(_) => model.states.truncate(before),
        }
        drop(model);
        if matches!(done, Err(Error::InDoubt { .. })) {
            self.in_doubt = true;
            let refused = self.store().set("refused", "");
            assert!(matches!(refused, Err(Error::Poisoned { .. })), "{refused:?}");
        }
        done.map(|_| ())
    }

    fn store(&mut self) -> &mut Store {
        self.store.as_mut().unwrap()
    }

    /// Returns the last commit, in flight or not.
    fn last(&self) -> usize {
        self.model.lock().states.len() - 1
    }

    fn raise(&self, floor: usize) {
        let mut model = self.model.lock();
        model.floor = model.floor.max(floor);
        model.is_new = true;
    }

    fn doing(&self, what: &str) {
        what.clone_into(&mut self.model.lock().doing);
    }
}

/// Opens the store with the first of these keys that opens it. Returns also the number of that key.
pub fn open_with_one_of(
    bed: &Bed,
    level: Durability,
    keys: &[Arc<dyn Keys>],
) -> Result<(Store, Option<Arc<dyn Keys>>)> {
    let open = |key: Option<&Arc<dyn Keys>>| {
        let bed = Bed { keys: key.cloned(), ..bed.clone() };
        Store::open(bed.at(level)).map(|store| (store, bed.keys))
    };
    let mut tried = open(keys.first());
    for key in keys.iter().skip(1) {
        if !matches!(tried, Err(Error::WrongKey { .. })) {
            break;
        }
        tried = open(Some(key));
    }
    tried
}

/// Compares an opened store with the model, and returns its last commit.
pub fn holds(store: &Store, model: &Model) -> usize {
    let found = usize::try_from(store.recovered.seq).unwrap();
    let (floor, doing) = (model.floor, &model.doing);
    assert!(found >= floor, "{doing}: commit {floor} was durable and {found} is the last");
    let last = model.states.len() - 1;
    assert!(found <= last, "{doing}: commit {found} was never made, {last} is the last");
    assert_eq!(store.map, model.states[found], "{doing}: the state after commit {found}");
    assert!(store.storage.poisoned().is_none());
    found
}

/// Checks that the directory contains no file that the store does not need.
pub fn no_stray_files(vfs: &Vfs, form: Form, is_closed: bool) {
    for name in vfs.dir.list().unwrap() {
        let is_segment = name.starts_with("app.db.wal.") && form == Form::Wal && !is_closed;
        let is_ours = ["app.db", "app.db.lock"].contains(&name.as_str()) || is_segment;
        assert!(is_ours, "{name} is left behind");
    }
}

/// Returns the levels of durability that a form supports.
pub fn levels(form: Form) -> Vec<Durability> {
    let interval = Durability::Interval(Duration::from_secs(1));
    match form {
        Form::Snapshot => vec![Durability::Sync, interval],
        _ => vec![Durability::Sync, interval, Durability::Os],
    }
}
