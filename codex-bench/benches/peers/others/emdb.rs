//! emdb: an append-only log, an index in memory.

use codex_bench::Outcome;
use codex_bench::report::Group;

use crate::engine::Promise::{Os, Sync};
use crate::engine::{Engine, Kind, Pair, Promise, Visit, read};

pub(super) const KIND: Kind = Kind {
    name: "emdb",
    package: "emdb",
    group: Group::Other,
    promises: &[Sync, Os],
    weaker: &[],
    settings: "insert and flush / insert; range scans enabled",
    open: |folder, promise| {
        let path = folder.join("emdb");
        let db = emdb::Emdb::builder().path(path).enable_range_scans(true).build()?;
        Ok(Box::new(Emdb { db, promise }))
    },
};

struct Emdb {
    db: emdb::Emdb,
    promise: Promise,
}

impl Emdb {
    fn keep(&self) -> Outcome {
        if self.promise == Sync {
            self.db.flush()?;
        }
        Ok(())
    }
}

impl Engine for Emdb {
    fn set(&self, key: &[u8], value: &[u8]) -> Outcome {
        self.db.insert(key, value)?;
        self.keep()
    }

    fn load(&self, pairs: &[Pair]) -> Outcome {
        self.db.insert_many(pairs.iter().map(|(key, value)| (key, value)))?;
        self.keep()
    }

    fn get(&self, key: &[u8]) -> Outcome<Option<usize>> {
        Ok(self.db.get_zerocopy(key)?.map(|value| read(&value)))
    }

    fn scan(&self, from: &[u8], visit: &mut Visit<'_>) -> Outcome {
        for (key, value) in self.db.iter_from(from)? {
            if !visit(&key, &value) {
                break;
            }
        }
        Ok(())
    }

    fn flush(&self) -> Outcome {
        Ok(self.db.flush()?)
    }
}
