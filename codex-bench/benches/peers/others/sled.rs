//! sled: a log-structured tree.

use codex_bench::Outcome;
use codex_bench::report::Group;

use crate::engine::Promise::{Interval, Os, Sync};
use crate::engine::{Engine, Kind, Pair, Promise, Visit, read};

pub(super) const KIND: Kind = Kind {
    name: "sled",
    package: "sled",
    group: Group::Other,
    promises: &[Sync, Interval, Os],
    weaker: &[Sync, Interval, Os],
    settings: "insert and flush / flush_every_ms(100) / insert. Each is less than asked: a flush \
               calls sync_file_range, which leaves the bytes in the cache of the disk, and an \
               insert stays in a buffer of the process until the next flush",
    open: |folder, promise| {
        let every = (promise == Interval).then_some(100).or(Some(500));
        let config = sled::Config::new().path(folder.join("sled")).flush_every_ms(every);
        Ok(Box::new(Sled { db: config.open()?, promise }))
    },
};

struct Sled {
    db: sled::Db,
    promise: Promise,
}

impl Sled {
    fn keep(&self) -> Outcome {
        if self.promise == Sync {
            self.db.flush()?;
        }
        Ok(())
    }
}

impl Engine for Sled {
    fn set(&self, key: &[u8], value: &[u8]) -> Outcome {
        self.db.insert(key, value)?;
        self.keep()
    }

    fn load(&self, pairs: &[Pair]) -> Outcome {
        let mut batch = sled::Batch::default();
        for (key, value) in pairs {
            batch.insert(&**key, &**value);
        }
        self.db.apply_batch(batch)?;
        self.keep()
    }

    fn get(&self, key: &[u8]) -> Outcome<Option<usize>> {
        Ok(self.db.get(key)?.map(|value| read(&value)))
    }

    fn scan(&self, from: &[u8], visit: &mut Visit<'_>) -> Outcome {
        for pair in self.db.range(from..) {
            let (key, value) = pair?;
            if !visit(&key, &value) {
                break;
            }
        }
        Ok(())
    }

    fn flush(&self) -> Outcome {
        self.db.flush()?;
        Ok(())
    }
}
