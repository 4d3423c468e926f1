//! `CodexDB` in each form.

use std::path::Path;
use std::time::Duration;

use codex_bench::Outcome;
use codex_bench::report::Group;
use codex_core::crypto::Key;
use codex_core::{Durability, Form, OpenOptions, Store};

use crate::engine::Promise::{Interval, Memory, Os, Sync};
use crate::engine::{Copying, Engine, Kind, Pair, Promise, Visit, read};

pub(crate) const KINDS: [Kind; 4] = [
    Kind {
        name: "CodexDB",
        package: "codex-core",
        group: Group::Ours,
        promises: &[Sync, Interval, Os, Memory],
        weaker: &[],
        settings: "form Wal; Durability::Sync, Interval(100 ms), Os; Store::in_memory",
        open: |folder, promise| match promise {
            Memory => Ok(Box::new(Store::in_memory()?)),
            _ => open(Store::options().form(Form::Wal), folder, promise),
        },
    },
    Kind {
        name: "CodexDB, encrypted",
        package: "codex-core",
        group: Group::Ours,
        promises: &[Sync, Interval, Os],
        weaker: &[],
        settings: "the same with a raw key: AES-256-GCM",
        open: |folder, promise| {
            open(Store::options().form(Form::Wal).key(Key::raw(&[7; 32])?), folder, promise)
        },
    },
    Kind {
        name: "CodexDB, ledger",
        package: "codex-core",
        group: Group::Ours,
        promises: &[Sync, Interval, Os],
        weaker: &[],
        settings: "form Ledger: keeps every commit",
        open: |folder, promise| open(Store::options().form(Form::Ledger), folder, promise),
    },
    Kind {
        name: "CodexDB, snapshot",
        package: "codex-core",
        group: Group::Ours,
        promises: &[Sync, Interval],
        weaker: &[],
        settings: "form Snapshot: writes the whole store at each commit",
        open: |folder, promise| open(Store::options().form(Form::Snapshot), folder, promise),
    },
];

fn open(options: OpenOptions, folder: &Path, promise: Promise) -> Outcome<Box<dyn Engine>> {
    let durability = match promise {
        Sync | Memory => Durability::Sync,
        Interval => Durability::Interval(Duration::from_millis(100)),
        Os => Durability::Os,
    };
    Ok(Box::new(options.durability(durability).open(folder.join("store.db"))?))
}

impl Engine for Store {
    fn set(&self, key: &[u8], value: &[u8]) -> Outcome {
        Ok(self.set_bytes(key, value)?)
    }

    fn load(&self, pairs: &[Pair]) -> Outcome {
        let mut batch = self.batch();
        for (key, value) in pairs {
            batch.set_bytes(key, value)?;
        }
        batch.commit()?;
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Outcome<Option<usize>> {
        Ok(self.get_bytes(key).map(|value| read(&value)))
    }

    fn scan(&self, from: &[u8], visit: &mut Visit<'_>) -> Outcome {
        for entry in self.range(from..) {
            if !visit(entry.key(), entry.bytes()) {
                break;
            }
        }
        Ok(())
    }

    fn flush(&self) -> Outcome {
        Store::flush(self)?;
        Ok(())
    }

    fn copy(&self, to: Copying<'_>) -> Outcome<bool> {
        match to {
            Copying::Checkpoint => self.checkpoint()?,
            Copying::Backup(path) => drop(self.backup_to(path)?),
        }
        Ok(true)
    }
}
