//! The disk alone: writes in place into allocated space, each for itself or in groups.

use std::path::Path;
use std::sync::Mutex;

use codex_bench::Outcome;
use codex_bench::group::{Grouped, Space};

use crate::engine::{Engine, Pair, Promise, Visit};

/// Writes under a mutex, one sync for each.
struct Raw(Mutex<Space>);

pub(super) fn open_raw(folder: &Path, promise: Promise) -> Outcome<Box<dyn Engine>> {
    Ok(Box::new(Raw(Mutex::new(space(folder, promise)?))))
}

pub(super) fn open_grouped(folder: &Path, promise: Promise) -> Outcome<Box<dyn Engine>> {
    Ok(Box::new(Grouped::new(space(folder, promise)?)))
}

fn space(folder: &Path, promise: Promise) -> Outcome<Space> {
    Space::new(&folder.join("raw"), promise == Promise::Sync)
}

/// Writes of records that have no keys and are not read.
trait Records: Send + Sync {
    fn write(&self, record: Vec<u8>) -> Outcome;
}

impl Records for Raw {
    fn write(&self, record: Vec<u8>) -> Outcome {
        self.0.lock().map_err(|_| "a writer panicked")?.write(&record)
    }
}

impl Records for Grouped {
    fn write(&self, record: Vec<u8>) -> Outcome {
        Self::write(self, record)
    }
}

impl<R: Records> Engine for R {
    fn set(&self, key: &[u8], value: &[u8]) -> Outcome {
        self.write([key, value].concat())
    }

    fn load(&self, pairs: &[Pair]) -> Outcome {
        self.write(pairs.iter().flat_map(|(key, value)| [&**key, value].concat()).collect())
    }

    fn get(&self, _key: &[u8]) -> Outcome<Option<usize>> {
        Err(KEYLESS.into())
    }

    fn scan(&self, _from: &[u8], _visit: &mut Visit<'_>) -> Outcome {
        Err(KEYLESS.into())
    }
}

const KEYLESS: &str = "the disk alone has no keys";
