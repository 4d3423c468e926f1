//! `SurrealKV`: a log-structured merge tree with an asynchronous interface.

use codex_bench::Outcome;
use codex_bench::report::Group;
use surrealkv::{Durability, LSMIterator as _, Mode, Transaction, Tree};
use tokio::runtime::{Builder, Runtime};

use crate::engine::Promise::{Os, Sync};
use crate::engine::{Engine, Kind, Pair, Promise, Visit, read};

pub(super) const KIND: Kind = Kind {
    name: "SurrealKV",
    package: "surrealkv",
    group: Group::Other,
    promises: &[Sync, Os],
    weaker: &[],
    settings: "Durability::Immediate / Eventual; the thread that makes a commit waits for it with \
               block_on of a runtime with two workers",
    open: |folder, promise| {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let entered = runtime.enter();
        let tree = surrealkv::TreeBuilder::new().with_path(folder.join("surrealkv")).build()?;
        drop(entered);
        let durability =
            if promise == Promise::Sync { Durability::Immediate } else { Durability::Eventual };
        Ok(Box::new(Surreal { runtime, tree, durability }))
    },
};

struct Surreal {
    runtime: Runtime,
    tree: Tree,
    durability: Durability,
}

impl Surreal {
    fn write(&self, writes: impl Fn(&mut Transaction) -> surrealkv::Result<()>) -> Outcome {
        loop {
            let mut transaction =
                self.tree.begin_with_mode(Mode::WriteOnly)?.with_durability(self.durability);
            writes(&mut transaction)?;
            match self.runtime.block_on(transaction.commit()) {
                // Another thread has committed the same key meanwhile.
                Err(surrealkv::Error::TransactionWriteConflict) => {}
                done => return Ok(done?),
            }
        }
    }
}

impl Engine for Surreal {
    fn set(&self, key: &[u8], value: &[u8]) -> Outcome {
        self.write(|transaction| transaction.set(key, value))
    }

    fn load(&self, pairs: &[Pair]) -> Outcome {
        self.write(|transaction| {
            pairs.iter().try_for_each(|(key, value)| transaction.set(&**key, &**value))
        })
    }

    fn get(&self, key: &[u8]) -> Outcome<Option<usize>> {
        let transaction = self.tree.begin_with_mode(Mode::ReadOnly)?;
        Ok(transaction.get(key)?.map(|value| read(&value)))
    }

    fn scan(&self, from: &[u8], visit: &mut Visit<'_>) -> Outcome {
        let transaction = self.tree.begin_with_mode(Mode::ReadOnly)?;
        let mut entries = transaction.scan(from..)?;
        let mut is_valid = entries.seek_first()?;
        while is_valid && visit(entries.key().user_key(), &entries.value()?) {
            is_valid = entries.next()?;
        }
        Ok(())
    }

    fn flush(&self) -> Outcome {
        Ok(self.tree.flush_wal(true)?)
    }
}

impl Drop for Surreal {
    fn drop(&mut self) {
        // The next one to open the store finds it closed.
        let _ = self.runtime.block_on(self.tree.close());
    }
}
