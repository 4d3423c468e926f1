//! What the tests of opening, recovery and the model share: directories as bytes, scale and seed.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(
    clippy::disallowed_types,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, says what it waits for, and has locks of its own"
)]

#[path = "../../../codex-storage/tests/common/format.rs"]
#[allow(clippy::indexing_slicing, reason = "a test fails by panicking")]
pub mod format;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Condvar, Mutex};

use codex_core::vfs::{Mode, Open, Vfs};
use codex_core::{Error, Form, OpenOptions, Store};

/// Waits for what other threads are to bring about. A test that waits for ever is ended by its
/// runner, which shows what it waited for.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    println!("waits until {what}");
    while !holds() {
        std::thread::yield_now();
    }
}

/// Paces threads that work beside a test: each takes as many steps as the test has allowed.
#[derive(Debug, Default)]
pub struct Pace {
    state: Mutex<PaceState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct PaceState {
    allowed: u32,
    ended: bool,
}

impl Pace {
    /// Allows each thread so many more steps.
    pub fn allow(&self, steps: u32) {
        self.change(|state| state.allowed += steps);
    }

    /// Takes each step that is allowed, until the end.
    pub fn each(&self, mut step: impl FnMut(u32)) {
        for taken in 0.. {
            let idle = |state: &mut PaceState| taken >= state.allowed && !state.ended;
            let state = self.changed.wait_while(self.state.lock().unwrap(), idle).unwrap();
            if taken >= state.allowed {
                return;
            }
            drop(state);
            step(taken);
        }
    }

    /// Ends the threads when it is dropped, by a panic too.
    pub fn end(&self) -> EndOf<'_> {
        EndOf(self)
    }

    fn change(&self, change: impl FnOnce(&mut PaceState)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }
}

/// See [`Pace::end`].
#[derive(Debug)]
pub struct EndOf<'a>(&'a Pace);

impl Drop for EndOf<'_> {
    fn drop(&mut self) {
        self.0.change(|state| state.ended = true);
    }
}

/// The three forms.
pub const FORMS: [Form; 3] = [Form::Wal, Form::Snapshot, Form::Ledger];

/// Opens or creates `a.db` in `vfs` in the form `form`.
pub fn open(vfs: &Vfs, form: Form) -> Store {
    options(form).open_in(vfs, "a.db").unwrap()
}

/// Options that ask for the form `form`.
pub fn options(form: Form) -> OpenOptions {
    Store::options().form(form)
}

/// Plain and encrypted, or plain alone in a build without encryption.
pub const SEALED: &[bool] = if cfg!(feature = "crypto") { &[false, true] } else { &[false] };

/// The same options, for an encrypted store if `sealed`, one of [`SEALED`].
pub fn sealed(options: &OpenOptions, sealed: bool) -> OpenOptions {
    if sealed { keyed(options.clone()) } else { options.clone() }
}

#[cfg(feature = "crypto")]
fn keyed(options: OpenOptions) -> OpenOptions {
    options.key(codex_core::crypto::Key::raw(&[7; 32]).unwrap())
}

#[cfg(not(feature = "crypto"))]
fn keyed(options: OpenOptions) -> OpenOptions {
    options
}

/// The files of a directory: names and bytes.
pub type Files = BTreeMap<String, Vec<u8>>;

/// The files of `vfs` as they are now, all at one moment: what a killed process leaves.
pub fn files(vfs: &Vfs) -> Files {
    let look = || -> std::io::Result<Files> {
        let mut names = vfs.dir.list()?;
        names.retain(|name| name.rsplit('.').next() != Some("lock"));
        names.into_iter().map(|name| Ok((name.clone(), try_read(vfs, &name)?))).collect()
    };
    // A checkpoint in the background may change names and bytes between two calls. What two looks
    // agree on was there between them: no file id ever comes again.
    for _ in 0..1_000 {
        if let (Ok(one), Ok(other)) = (look(), look())
            && one == other
        {
            return one;
        }
    }
    panic!("the files never stand still: {:?}", look());
}

/// A new directory in memory with these files.
pub fn disk(files: &Files) -> Vfs {
    let vfs = Vfs::mem(seed());
    for (name, bytes) in files {
        write(&vfs, name, bytes);
    }
    vfs
}

/// The files of a store of three commits that was closed.
pub fn closed(form: Form) -> Files {
    let vfs = Vfs::mem(seed());
    fill(&open(&vfs, form)).close().unwrap();
    files(&vfs)
}

/// The files of a store of three commits that was killed.
pub fn killed(form: Form) -> Files {
    let vfs = Vfs::mem(seed());
    let store = fill(&open(&vfs, form));
    let files = files(&vfs);
    drop(store);
    files
}

/// Makes three commits; the same handle.
pub fn fill(store: &Store) -> Store {
    store.set("a", "first").unwrap();
    store.set("b", "second").unwrap();
    store.set("c", "third").unwrap();
    store.clone()
}

/// The bytes of the file `name`.
pub fn read(vfs: &Vfs, name: &str) -> Vec<u8> {
    try_read(vfs, name).unwrap()
}

fn try_read(vfs: &Vfs, name: &str) -> std::io::Result<Vec<u8>> {
    let file = vfs.dir.open(name, Open::Read)?;
    let mut bytes = vec![0; usize::try_from(file.len()?).unwrap()];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Makes the file `name` hold `bytes`.
pub fn write(vfs: &Vfs, name: &str, bytes: &[u8]) {
    if vfs.dir.metadata(name).unwrap().is_some() {
        vfs.dir.remove(name).unwrap();
    }
    let file = vfs.dir.open(name, Open::CreateNew(Mode::Private)).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file.sync().unwrap();
    vfs.dir.sync().unwrap();
}

/// All keys and values, as bytes.
pub fn contents(store: &Store) -> BTreeMap<Vec<u8>, Vec<u8>> {
    store.iter().map(|entry| (entry.key().to_vec(), entry.bytes().to_vec())).collect()
}

/// The storage error in `error`.
pub fn storage(error: Error) -> codex_storage::Error {
    match error {
        Error::Storage(error) => error,
        other => panic!("not an error of the storage: {other}"),
    }
}

/// The name of the log that the last writes went to: the newest segment, or the ledger itself.
pub fn log_name(files: &Files, form: Form) -> String {
    match form {
        Form::Wal => {
            let mut logs = files.keys().filter(|name| name.starts_with("a.db.wal."));
            logs.next_back().unwrap().clone()
        }
        _ => "a.db".to_owned(),
    }
}

/// `count` times the scale of this run, at least 1.
pub fn scaled(count: u32) -> u32 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    let scaled = (f64::from(count) * scale()) as u32;
    scaled.max(1)
}

/// Every how many-th case is looked at: each in a whole run.
pub fn stride(stride: usize) -> usize {
    if std::env::var_os("CODEX_WHOLE").is_some() { 1 } else { stride }
}

/// Samples one of `stride` cases, others for another `turn` and another seed: each of them in a
/// run of everything (`CODEX_WHOLE`).
pub fn sampled(cases: Range<u64>, stride: usize, turn: usize) -> impl Iterator<Item = u64> {
    let stride = self::stride(stride);
    let first = usize::try_from(seed()).unwrap().wrapping_add(turn) % stride;
    cases.skip(first).step_by(stride)
}

fn scale() -> f64 {
    std::env::var("CODEX_SCALE").map_or(1.0, |scale| scale.parse().unwrap())
}

/// The seed of this run (`CODEX_SEED`).
pub fn seed() -> u64 {
    std::env::var("CODEX_SEED").map_or(1, |seed| seed.parse().unwrap())
}
