//! The functions that the tests of opening, recovery and the model share: directories as bytes,
//! scale and seed.
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

/// Waits until other threads have made `holds` true. If that never happens, the test runner ends
/// the test and shows where it waited.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    println!("waits until {what}");
    while !holds() {
        std::thread::yield_now();
    }
}

/// Paces threads that run beside a test: each makes as many steps as the test has allowed.
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
    /// Allows each thread this number of further steps.
    pub fn allow(&self, steps: u32) {
        self.change(|state| state.allowed += steps);
    }

    /// Makes each step that is allowed, until the end.
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

    /// Returns a guard that ends the threads when it is dropped, even by a panic.
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

/// Returns options with the form `form`.
pub fn options(form: Form) -> OpenOptions {
    Store::options().form(form)
}

/// Plain and encrypted stores, or only plain ones in a build without encryption.
pub const SEALED: &[bool] = if cfg!(feature = "crypto") { &[false, true] } else { &[false] };

/// Returns the same options, for an encrypted store if `sealed`, which is one of [`SEALED`].
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

/// Returns the files of `vfs` at one moment, as a killed process would leave them.
pub fn files(vfs: &Vfs) -> Files {
    let look = || -> std::io::Result<Files> {
        let mut names = vfs.dir.list()?;
        names.retain(|name| name.rsplit('.').next() != Some("lock"));
        names.into_iter().map(|name| Ok((name.clone(), try_read(vfs, &name)?))).collect()
    };
    // A checkpoint in the background may change names and bytes between two calls. Files on which
    // two reads agree existed between them, because no file id is used again.
    for _ in 0..1_000 {
        if let (Ok(one), Ok(other)) = (look(), look())
            && one == other
        {
            return one;
        }
    }
    panic!("the files never stand still: {:?}", look());
}

/// Returns a new directory in memory with these files.
pub fn disk(files: &Files) -> Vfs {
    let vfs = Vfs::mem(seed());
    for (name, bytes) in files {
        write(&vfs, name, bytes);
    }
    vfs
}

/// Returns the files of a closed store with three commits.
pub fn closed(form: Form) -> Files {
    let vfs = Vfs::mem(seed());
    fill(&open(&vfs, form)).close().unwrap();
    files(&vfs)
}

/// Returns the files of a store with three commits whose process was killed.
pub fn killed(form: Form) -> Files {
    let vfs = Vfs::mem(seed());
    let store = fill(&open(&vfs, form));
    let files = files(&vfs);
    drop(store);
    files
}

/// Makes three commits, and returns the same handle.
pub fn fill(store: &Store) -> Store {
    store.set("a", "first").unwrap();
    store.set("b", "second").unwrap();
    store.set("c", "third").unwrap();
    store.clone()
}

/// Returns the bytes of the file `name`.
pub fn read(vfs: &Vfs, name: &str) -> Vec<u8> {
    try_read(vfs, name).unwrap()
}

fn try_read(vfs: &Vfs, name: &str) -> std::io::Result<Vec<u8>> {
    let file = vfs.dir.open(name, Open::Read)?;
    let mut bytes = vec![0; usize::try_from(file.len()?).unwrap()];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Replaces the content of the file `name` by `bytes`.
pub fn write(vfs: &Vfs, name: &str, bytes: &[u8]) {
    if vfs.dir.metadata(name).unwrap().is_some() {
        vfs.dir.remove(name).unwrap();
    }
    let file = vfs.dir.open(name, Open::CreateNew(Mode::Private)).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file.sync().unwrap();
    vfs.dir.sync().unwrap();
}

/// Returns all keys and values, as bytes.
pub fn contents(store: &Store) -> BTreeMap<Vec<u8>, Vec<u8>> {
    store.iter().map(|entry| (entry.key().to_vec(), entry.bytes().to_vec())).collect()
}

/// Returns the storage error in `error`.
pub fn storage(error: Error) -> codex_storage::Error {
    match error {
        Error::Storage(error) => error,
        other => panic!("not an error of the storage: {other}"),
    }
}

/// Returns the name of the log with the last writes: the newest segment, or the ledger itself.
pub fn log_name(files: &Files, form: Form) -> String {
    match form {
        Form::Wal => {
            let mut logs = files.keys().filter(|name| name.starts_with("a.db.wal."));
            logs.next_back().unwrap().clone()
        }
        _ => "a.db".to_owned(),
    }
}

/// Returns `count` times the scale of this run, at least 1.
pub fn scaled(count: u32) -> u32 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    let scaled = (f64::from(count) * scale()) as u32;
    scaled.max(1)
}

/// Returns the stride of a sample of cases: `stride`, or 1 in a whole run (`CODEX_WHOLE`).
pub fn stride(stride: usize) -> usize {
    if std::env::var_os("CODEX_WHOLE").is_some() { 1 } else { stride }
}

/// Returns one of each `stride` cases, and other ones with another `turn` or seed. Returns each
/// case in a whole run (`CODEX_WHOLE`).
pub fn sampled(cases: Range<u64>, stride: usize, turn: usize) -> impl Iterator<Item = u64> {
    let stride = self::stride(stride);
    let first = usize::try_from(seed()).unwrap().wrapping_add(turn) % stride;
    cases.skip(first).step_by(stride)
}

fn scale() -> f64 {
    std::env::var("CODEX_SCALE").map_or(1.0, |scale| scale.parse().unwrap())
}

/// Returns the seed of this run (`CODEX_SEED`).
pub fn seed() -> u64 {
    std::env::var("CODEX_SEED").map_or(1, |seed| seed.parse().unwrap())
}

/// A generator of random numbers: `SplitMix64` from a seed.
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    /// Returns a number below `below`.
    pub fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (word ^ (word >> 31)) % below
    }
}
