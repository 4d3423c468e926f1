//! fjall: a log-structured merge tree.

use codex_bench::Outcome;
use codex_bench::report::Group;
use fjall::PersistMode;

use crate::engine::Promise::{Os, Sync};
use crate::engine::{Engine, Kind, Pair, Promise, Visit, read};

pub(super) const KIND: Kind = Kind {
    name: "fjall",
    package: "fjall",
    group: Group::Other,
    promises: &[Sync, Os],
    weaker: &[],
    settings: "insert and persist(SyncData) / insert",
    open: |folder, promise| {
        let db = fjall::Database::builder(folder.join("fjall")).open()?;
        let keys = db.keyspace("t", fjall::KeyspaceCreateOptions::default)?;
        Ok(Box::new(Fjall { db, keys, promise }))
    },
};

struct Fjall {
    db: fjall::Database,
    keys: fjall::Keyspace,
    promise: Promise,
}

impl Fjall {
    fn keep(&self) -> Outcome {
        if self.promise == Sync {
            self.db.persist(PersistMode::SyncData)?;
        }
        Ok(())
    }
}

impl Engine for Fjall {
    fn set(&self, key: &[u8], value: &[u8]) -> Outcome {
        self.keys.insert(key, value)?;
        self.keep()
    }

    fn load(&self, pairs: &[Pair]) -> Outcome {
        let mut batch = self.db.batch();
        for (key, value) in pairs {
            batch.insert(&self.keys, &**key, &**value);
        }
        batch.commit()?;
        self.keep()
    }

    fn get(&self, key: &[u8]) -> Outcome<Option<usize>> {
        Ok(self.keys.get(key)?.map(|value| read(&value)))
    }

    fn scan(&self, from: &[u8], visit: &mut Visit<'_>) -> Outcome {
        for entry in self.keys.range(from..) {
            let (key, value) = entry.into_inner()?;
            if !visit(&key, &value) {
                break;
            }
        }
        Ok(())
    }

    fn flush(&self) -> Outcome {
        Ok(self.db.persist(PersistMode::SyncAll)?)
    }
}
