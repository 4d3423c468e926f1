//! What the tests share: the cluster, and nodes on it.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use codex_core::shared::{Etcd, SharedError};
use codex_core::{Error, StorageError, Store};

use crate::members::{Cluster, Setup};

/// Longer than any fault of these tests.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) const THREE: Setup = Setup { members: 3, quota: None, tls: None };
/// For what does not depend on a majority.
pub(crate) const ONE: Setup = Setup { members: 1, ..THREE };

/// Starts a cluster in a folder of this name, if there is an etcd.
pub(crate) fn start(name: &str, setup: Setup) -> Option<Cluster> {
    let Some(etcd) = std::env::var_os("CODEX_ETCD") else {
        println!("left out: no etcd in CODEX_ETCD; `cargo xtask cluster test` finds one");
        return None;
    };
    Some(Cluster::start(&PathBuf::from(etcd), &scratch().join(name), setup).unwrap())
}

/// Returns a folder for the files of these tests, which `cargo xtask cluster` removes.
pub(crate) fn scratch() -> PathBuf {
    std::env::var_os("CODEX_ETCD_SCRATCH").map_or_else(std::env::temp_dir, PathBuf::from)
}

/// The three members that most tests share, since each ends the faults of the one before it.
pub(crate) struct Shared(MutexGuard<'static, Option<Cluster>>);

/// Returns the three members, without faults.
pub(crate) fn shared() -> Option<Shared> {
    static CLUSTER: Mutex<Option<Cluster>> = Mutex::new(None);
    let mut cluster = CLUSTER.lock().unwrap_or_else(PoisonError::into_inner);
    match &mut *cluster {
        Some(cluster) => cluster.heal().unwrap(),
        None => *cluster = Some(start("shared", THREE)?),
    }
    Some(Shared(cluster))
}

impl std::ops::Deref for Shared {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        self.0.as_ref().unwrap()
    }
}

impl std::ops::DerefMut for Shared {
    fn deref_mut(&mut self) -> &mut Cluster {
        self.0.as_mut().unwrap()
    }
}

/// Opens a node of the store under a prefix. `n` tells which member it asks first.
pub(crate) fn node(cluster: &Cluster, prefix: &str, n: usize) -> Store {
    let mut endpoints = cluster.endpoints();
    endpoints.rotate_left(n % cluster.len());
    on(endpoints, prefix, LONG)
}

/// Returns the shared log under a prefix.
pub(crate) fn engine(endpoints: Vec<String>, prefix: &str) -> Etcd {
    Etcd::new(endpoints).prefix(prefix)
}

/// Opens a node with a longest wait of its writes.
pub(crate) fn on(endpoints: Vec<String>, prefix: &str, write_timeout: Duration) -> Store {
    let engine = engine(endpoints, prefix);
    Store::options().write_timeout(write_timeout).shared(engine).unwrap()
}

/// Waits until `holds` returns true.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within {LONG:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Returns the error of the shared log.
pub(crate) fn of_log(error: Error) -> SharedError {
    match error {
        Error::Storage(StorageError::Shared(error)) => error,
        error => panic!("{error}"),
    }
}

/// Returns all entries, after all that was acknowledged.
pub(crate) fn state(store: &Store) -> Vec<(Vec<u8>, Vec<u8>)> {
    store.read_latest(LONG).unwrap();
    store.iter().map(|entry| (entry.key().to_vec(), entry.bytes().to_vec())).collect()
}

/// Numbers that a seed gives (`SplitMix64`).
#[derive(Debug, Clone)]
pub(crate) struct Draw(pub u64);

impl Draw {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ z >> 31) % end
    }
}
