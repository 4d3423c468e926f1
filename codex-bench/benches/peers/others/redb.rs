//! redb: a copy-on-write B-tree.

use codex_bench::Outcome;
use codex_bench::report::Group;
use redb::{Durability, ReadableDatabase as _, TableDefinition};

use crate::engine::Promise::{Memory, Os, Sync};
use crate::engine::{Engine, Kind, Pair, Promise, Visit, read};

pub(super) const KIND: Kind = Kind {
    name: "redb",
    package: "redb",
    group: Group::Other,
    promises: &[Sync, Os, Memory],
    weaker: &[Os],
    settings: "Durability::Immediate / None / InMemoryBackend. None promises less than asked: such \
               commits are lost with the process until a later one at Immediate",
    open: |folder, promise| {
        let db = match promise {
            Memory => redb::Database::builder()
                .create_with_backend(redb::backends::InMemoryBackend::new())?,
            _ => redb::Database::create(folder.join("redb"))?,
        };
        let write = db.begin_write()?;
        write.open_table(TABLE)?;
        write.commit()?;
        Ok(Box::new(Redb { db, promise }))
    },
};

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("t");

struct Redb {
    db: redb::Database,
    promise: Promise,
}

impl Redb {
    fn write<'a>(&self, pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Outcome {
        let mut write = self.db.begin_write()?;
        if self.promise != Sync {
            write.set_durability(Durability::None)?;
        }
        let mut table = write.open_table(TABLE)?;
        for (key, value) in pairs {
            table.insert(key, value)?;
        }
        drop(table);
        Ok(write.commit()?)
    }
}

impl Engine for Redb {
    fn set(&self, key: &[u8], value: &[u8]) -> Outcome {
        self.write(std::iter::once((key, value)))
    }

    fn load(&self, pairs: &[Pair]) -> Outcome {
        self.write(pairs.iter().map(|(key, value)| (&**key, &**value)))
    }

    fn get(&self, key: &[u8]) -> Outcome<Option<usize>> {
        let table = self.db.begin_read()?.open_table(TABLE)?;
        Ok(table.get(key)?.map(|value| read(value.value())))
    }

    fn scan(&self, from: &[u8], visit: &mut Visit<'_>) -> Outcome {
        let table = self.db.begin_read()?.open_table(TABLE)?;
        for pair in table.range(from..)? {
            let (key, value) = pair?;
            if !visit(key.value(), value.value()) {
                break;
            }
        }
        Ok(())
    }

    fn flush(&self) -> Outcome {
        Ok(self.db.begin_write()?.commit()?)
    }
}
