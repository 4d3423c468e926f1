//! The commands that read the past of a ledger: `log`, `history`, and `get --at`.

use std::collections::VecDeque;

use clap::Args;
use codex_core::crypto::Cipher;
use codex_core::{Seq, StorageError};
use codex_storage::batch::Op;
use codex_storage::{LedgerCommit, read_commits};
use codexdb::past::{Change, last_change};

use crate::Outcome;
use crate::key::TypedKey;
use crate::look::AsType;
use crate::out::{Cell, Out, Record};
use crate::target::{Target, place};
use crate::value::Shown;

/// The options of `log`.
#[derive(Debug, Args)]
pub(crate) struct Log {
    #[command(flatten)]
    target: Target,
    /// Only the last COUNT commits
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
}

impl Log {
    pub(crate) fn run(&self, out: &mut Out) -> Outcome {
        let mut rows = VecDeque::new();
        each_commit(&self.target, &mut |commit| {
            let (mut set, mut removed, mut cleared) = (0_u64, 0_u64, false);
            for op in commit.ops.flatten() {
                match op {
                    Op::Set(_) => set += 1,
                    Op::Remove { .. } => removed += 1,
                    Op::Clear => cleared = true,
                }
            }
            let row: Record = vec![
                ("commit", Cell::Count(commit.seq)),
                ("time", Cell::Time(commit.time_us)),
                ("set", Cell::Count(set)),
                ("removed", Cell::Count(removed)),
                ("cleared", Cell::Flag(cleared)),
            ];
            rows.push_back(row);
            if self.limit.is_some_and(|limit| rows.len() > limit) {
                rows.pop_front();
            }
            Ok(())
        })?;
        out.table(rows.make_contiguous())?;
        Ok(true)
    }
}

/// The options of `history`.
#[derive(Debug, Args)]
pub(crate) struct History {
    #[command(flatten)]
    target: Target,
    /// The key
    key: TypedKey,
    #[command(flatten)]
    of: AsType,
}

impl History {
    pub(crate) fn run(&self, out: &mut Out) -> Outcome {
        let mut rows: Vec<Record> = Vec::new();
        let (json, of) = (out.json, self.of.of.as_ref());
        let (mut exists, mut failed) = (false, Ok(()));
        each_commit(&self.target, &mut |commit| {
            let mut row: Record =
                vec![("commit", Cell::Count(commit.seq)), ("time", Cell::Time(commit.time_us))];
            let change = match last_change(commit, self.key.as_ref()) {
                Some(Change::Set(value)) => Some(value),
                // A clear removes only what is there.
                Some(Change::Removed) if exists => None,
                _ => return Ok(()),
            };
            exists = change.is_some();
            match change.map(Shown::stored) {
                Some(Ok(value)) if json => row.extend(value.fields_as(of)),
                Some(Ok(value)) => row.push(("value", Cell::Text(value.line(of)))),
                Some(Err(error)) => failed = Err(error),
                None if json => row.push(("removed", Cell::Flag(true))),
                None => row.push(("value", Cell::Text("(removed)".to_owned()))),
            }
            rows.push(row);
            Ok(())
        })?;
        failed?;
        out.table(&rows)?;
        Ok(!rows.is_empty())
    }
}

/// Returns the value that `key` had after the commit `at`, as a record of the log has it.
pub(crate) fn value_at(target: &Target, key: &TypedKey, at: Seq) -> Outcome<Option<Vec<u8>>> {
    let mut value = None;
    let (oldest, last) = each_commit(target, &mut |commit| {
        if commit.seq <= at {
            match last_change(commit, key.as_ref()) {
                Some(Change::Set(set)) => value = Some(set.to_vec()),
                Some(Change::Removed) => value = None,
                None => {}
            }
        }
        Ok(())
    })?;
    if !(oldest..=last).contains(&at) {
        let path = target.path.clone();
        return Err(StorageError::NotInHistory { path, states: oldest..=last }.into());
    }
    Ok(value)
}

/// Passes each commit of a ledger to `sink`. Returns the commits of the oldest and of the newest
/// state that it has.
fn each_commit(
    target: &Target,
    sink: &mut dyn FnMut(LedgerCommit<'_>) -> Result<(), StorageError>,
) -> Outcome<(Seq, Seq)> {
    let secret = target.secret()?;
    // Order: the store is held open while its log is read, so that no writer appends to it.
    let store = target.read_with(secret.as_ref())?;
    let last = store.stats().storage.seq;
    let (vfs, name) = place(&target.path)?;
    let keys = match &secret {
        Some(secret) => {
            let entropy = vfs.entropy.clone();
            // The header names the cipher. This one is for new stores only.
            Some(codex_core::internals::keys(secret.key()?, Cipher::default(), entropy))
        }
        None => None,
    };
    let cut = read_commits(&vfs, &name, keys.as_deref(), last, sink)?;
    drop(store);
    Ok((cut.oldest, last))
}
