//! LMDB: a copy-on-write B-tree in mapped memory.

use codex_bench::Outcome;
use codex_bench::report::Group;
use lmdb::{Cursor as _, EnvironmentFlags, Transaction as _, WriteFlags};

use crate::engine::Promise::{Os, Sync};
use crate::engine::{Engine, Kind, Pair, Promise, Visit, read};

pub(super) const KIND: Kind = Kind {
    name: "LMDB",
    package: "lmdb-rkv",
    group: Group::Other,
    promises: &[Sync, Os],
    weaker: &[],
    settings: "synced / NO_SYNC with WRITE_MAP; map of 8 GiB",
    open: |folder, promise| {
        let path = folder.join("lmdb");
        std::fs::create_dir_all(&path)?;
        let flags = match promise {
            Promise::Os => EnvironmentFlags::NO_SYNC | EnvironmentFlags::WRITE_MAP,
            _ => EnvironmentFlags::empty(),
        };
        let mut options = lmdb::Environment::new();
        options.set_flags(flags).set_map_size(8 << 30).set_max_readers(256);
        let env = options.open(&path)?;
        let table = env.open_db(None)?;
        Ok(Box::new(Lmdb { env, table }))
    },
};

struct Lmdb {
    env: lmdb::Environment,
    table: lmdb::Database,
}

impl Engine for Lmdb {
    fn set(&self, key: &[u8], value: &[u8]) -> Outcome {
        let mut write = self.env.begin_rw_txn()?;
        write.put(self.table, &key, &value, WriteFlags::empty())?;
        Ok(write.commit()?)
    }

    fn load(&self, pairs: &[Pair]) -> Outcome {
        let mut write = self.env.begin_rw_txn()?;
        for (key, value) in pairs {
            write.put(self.table, key, value, WriteFlags::empty())?;
        }
        Ok(write.commit()?)
    }

    fn get(&self, key: &[u8]) -> Outcome<Option<usize>> {
        let transaction = self.env.begin_ro_txn()?;
        match transaction.get(self.table, &key) {
            Ok(value) => Ok(Some(read(value))),
            Err(lmdb::Error::NotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn scan(&self, from: &[u8], visit: &mut Visit<'_>) -> Outcome {
        let transaction = self.env.begin_ro_txn()?;
        let mut cursor = transaction.open_ro_cursor(self.table)?;
        // LMDB refuses an empty key.
        let pairs = if from.is_empty() { cursor.iter_start() } else { cursor.iter_from(from) };
        for pair in pairs {
            let (key, value) = pair?;
            if !visit(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn flush(&self) -> Outcome {
        Ok(self.env.sync(true)?)
    }
}
