//! Stores behind one trait, so that each workload is written once for all of them.

use std::path::Path;

use codex_bench::Outcome;
use codex_bench::report::Group;

/// A key and its value.
pub(crate) type Pair = (Vec<u8>, Vec<u8>);

/// An open store.
pub(crate) trait Engine: Send + Sync {
    /// Sets `key`. Returns when the write has the durability with which the store was opened.
    fn set(&self, key: &[u8], value: &[u8]) -> Outcome;

    /// Makes all of these writes in one commit, with the durability of the store.
    fn load(&self, pairs: &[Pair]) -> Outcome;

    /// Reads the value of `key`. Returns [`read`] of it.
    fn get(&self, key: &[u8]) -> Outcome<Option<usize>>;

    /// Calls `visit` with the entries from the key `from` on, in key order, until it returns false.
    fn scan(&self, from: &[u8], visit: &mut Visit<'_>) -> Outcome;

    /// Returns false if the store has no order, so that it cannot be scanned.
    fn has_order(&self) -> bool {
        true
    }

    /// Writes the buffers of the store to its files, if they are not there yet.
    fn flush(&self) -> Outcome {
        Ok(())
    }

    /// Makes a checkpoint, or a copy of the store at a path, if the store can and the report shows
    /// it. Returns false if not.
    fn copy(&self, _to: Copying<'_>) -> Outcome<bool> {
        Ok(false)
    }
}

/// A function that reads an entry, and returns false to end the scan.
pub(crate) type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> bool + 'a;

/// The two ways in which a store is written as a whole.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Copying<'a> {
    /// Into its own files, so that the log may be dropped.
    Checkpoint,
    /// To another file, which does not exist.
    Backup(&'a Path),
}

/// The failures that a write survives once its call has returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Promise {
    /// A power cut: the bytes are on the disk.
    Sync,
    /// The end of the process, and 100 ms later a power cut.
    Interval,
    /// The end of the process: the operating system has the bytes.
    Os,
    /// Nothing: there is no file.
    Memory,
}

/// A store that is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    /// The name in the report.
    pub(crate) name: &'static str,
    /// The crate whose version is reported.
    pub(crate) package: &'static str,
    /// Ours, another one, or a limit that no store exceeds.
    pub(crate) group: Group,
    /// The promises that it can make.
    pub(crate) promises: &'static [Promise],
    /// Those of them that it keeps in part only, as the settings tell.
    pub(crate) weaker: &'static [Promise],
    /// The settings with which it makes them.
    pub(crate) settings: &'static str,
    /// Opens the store in a directory, and creates it if there is none.
    pub(crate) open: fn(&Path, Promise) -> Outcome<Box<dyn Engine>>,
}

/// Returns all stores, ours first.
pub(crate) fn kinds() -> Vec<Kind> {
    let mut kinds = crate::ours::KINDS.to_vec();
    #[cfg(feature = "peers")]
    kinds.extend(crate::others::KINDS);
    kinds.extend(crate::limits::KINDS);
    kinds
}

/// Reads a value: its length and its first byte, which is in no cache before.
pub(crate) fn read(value: &[u8]) -> usize {
    value.len() + value.first().map_or(0, |byte| usize::from(*byte))
}
