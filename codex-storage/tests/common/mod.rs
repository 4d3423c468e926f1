//! Code that the test files of this crate share.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "each test file uses a part of it, and a test fails by panicking"
)]

pub mod format;
pub mod golden;
pub mod log;
pub mod model;
pub mod seal;
pub mod store;

use std::sync::Arc;

use codex_storage::seal::Keys;
use codex_storage::storage::{Durability, Form};
use codex_storage::vfs::{MemDir, Mode, Open, SeededEntropy, SimClock, Vfs, WaitedFor};
use codex_storage::{Compression, Config};

use seal::ToyKeys;

/// The name of the store in every test.
pub const NAME: &str = "app.db";

/// A directory, a form and a key.
#[derive(Debug, Clone)]
pub struct Bed {
    /// The directory, the clock and the entropy.
    pub vfs: Vfs,
    /// The form of the store.
    pub form: Form,
    /// The key, or `None` for a plain store.
    pub keys: Option<Arc<dyn Keys>>,
    /// The compression of new files, or `None` to keep that of the main file.
    pub compression: Option<Compression>,
}

impl Bed {
    /// Returns a store in `vfs`.
    pub fn new(vfs: Vfs, form: Form, sealed: bool) -> Self {
        let keys = sealed.then(|| keys("open sesame"));
        Self { vfs, form, keys, compression: None }
    }

    /// Returns a store in memory.
    pub fn mem(form: Form, sealed: bool) -> Self {
        Self::new(Vfs::mem(SEED), form, sealed)
    }

    /// Returns a copy of the files in another directory in memory.
    pub fn copy(&self) -> Self {
        let files = files(&self.vfs);
        let bed = Self { vfs: Vfs::mem(SEED + 1), ..self.clone() };
        for (name, bytes) in &files {
            put(&bed.vfs, name, bytes);
        }
        bed
    }

    /// Returns the configuration that opens the store.
    pub fn config(&self) -> Config {
        let mut config = Config::new(self.vfs.clone(), NAME);
        config.form = Some(self.form);
        config.keys.clone_from(&self.keys);
        config.compression = self.compression;
        config
    }

    /// Returns the configuration that opens the store at another level.
    pub fn at(&self, durability: Durability) -> Config {
        let mut config = self.config();
        config.durability = durability;
        config
    }
}

/// Returns the key of `passphrase`, with its own entropy.
pub fn keys(passphrase: &str) -> Arc<dyn Keys> {
    // Another passphrase draws another root key.
    let seed = passphrase.bytes().fold(SEED, |sum, byte| sum.wrapping_mul(31) + u64::from(byte));
    ToyKeys::new(passphrase, Arc::new(SeededEntropy::new(seed)))
}

/// Returns all files with their bytes, except locks.
pub fn files(vfs: &Vfs) -> Vec<(String, Vec<u8>)> {
    let mut names = vfs.dir.list().unwrap();
    names.sort();
    names.retain(|name| name != "app.db.lock");
    names.into_iter().map(|name| (name.clone(), bytes(vfs, &name))).collect()
}

/// Returns the bytes of a file.
pub fn bytes(vfs: &Vfs, name: &str) -> Vec<u8> {
    let file = vfs.dir.open(name, Open::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// Gives a file these bytes. The former bytes are lost.
pub fn put(vfs: &Vfs, name: &str, bytes: &[u8]) {
    drop(vfs.dir.remove(name));
    let mode = if name == NAME { Mode::Frozen } else { Mode::Private };
    let file = vfs.dir.open(name, Open::CreateNew(mode)).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file.sync().unwrap();
}

/// Returns a directory in memory with these files.
pub fn mem_with(files: &[(String, Vec<u8>)]) -> Vfs {
    let vfs = Vfs {
        dir: Arc::new(MemDir::new()),
        clock: Arc::new(SimClock::new()),
        entropy: Arc::new(SeededEntropy::new(SEED)),
        waited_for: WaitedFor::default(),
    };
    for (name, bytes) in files {
        put(&vfs, name, bytes);
    }
    vfs
}

/// Returns the scale of long tests: the environment variable `CODEX_SCALE`, or 1 if it is not set.
pub fn scale() -> f64 {
    let scale = std::env::var("CODEX_SCALE").ok().and_then(|text| text.parse().ok());
    scale.unwrap_or(1.0)
}

/// Returns `count`, scaled.
pub fn scaled(count: usize) -> usize {
    (count as f64 * scale()) as usize
}

/// Returns the distance between two tested places: `every` at scale 1, less at a larger scale.
pub fn stride(every: usize) -> usize {
    ((every as f64 / scale()).round() as usize).max(1)
}

/// Returns the seed of random tests: the environment variable `CODEX_SEED`, or a fixed seed.
pub fn seed() -> u64 {
    std::env::var("CODEX_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(SEED)
}

pub const SEED: u64 = 0x5eed;
