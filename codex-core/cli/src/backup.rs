//! `backup`: making, listing, verifying, restoring and pruning the backups of a store.

mod remote;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use codex_core::{BackupEntry, BackupPolicy, Backups, RestorePoint, Restored, Seq, Trust};

use crate::Outcome;
use crate::failure::Failure;
use crate::out::{Cell, Out, Record};
use crate::progress::Bar;
use crate::secret::KeyArgs;
use crate::target::Target;

/// The commands of `backup`.
#[derive(Debug, Subcommand)]
pub(crate) enum Backup {
    /// Make a backup beside the store, as number 1, or a copy at another place
    Create(Create),
    /// Print the backups, the newest first
    List(List),
    /// Read and check every byte of a backup
    Verify(Verify),
    /// Replace the store by a backup, or a ledger by an earlier state; the replaced files are kept
    Restore(Restore),
    /// Remove old backups
    Prune(Prune),
    /// Keep backups outside of this machine: in a bucket, or a folder of another disk
    #[command(subcommand)]
    Remote(remote::Elsewhere),
}

impl Backup {
    pub(crate) fn run(&self, out: &mut Out) -> Outcome {
        match self {
            Self::Create(command) => command.run(out),
            Self::List(command) => command.run(out),
            Self::Verify(command) => command.run(out),
            Self::Restore(command) => command.run(out),
            Self::Prune(command) => command.run(out),
            Self::Remote(command) => command.run(out),
        }
    }
}

/// A store whose backups are read without opening it.
#[derive(Debug, Args)]
struct Beside {
    /// The path of the store
    #[arg(value_name = "STORE")]
    path: PathBuf,
    #[command(flatten)]
    key: KeyArgs,
    #[arg(from_global)]
    json: bool,
}

impl Beside {
    fn backups(&self) -> Outcome<Backups> {
        let backups = Backups::of(&self.path)?;
        let backups = match Bar::of_calls(self.json) {
            Some(draw) => backups.on_progress(draw),
            None => backups,
        };
        Ok(match self.key.read(&self.path)? {
            Some(secret) => backups.key(secret.key()?),
            None => backups,
        })
    }
}

/// The options of `backup create`.
#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    target: Target,
    /// Keep this many backups and remove older ones
    #[arg(long, value_name = "COUNT", default_value_t = 3, conflicts_with = "to")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    keep: u32,
    /// Write a copy of the store to PATH, where no file is yet, instead of a backup beside it
    #[arg(long, value_name = "PATH")]
    to: Option<PathBuf>,
}

impl Create {
    fn run(&self, out: &mut Out) -> Outcome {
        let options = self.target.options(self.target.secret()?.as_ref())?;
        let store = self.target.write_with(&options.backups(BackupPolicy::keep(self.keep)))?;
        let record: Record = if let Some(to) = &self.to {
            let seq = store.backup_to(to)?;
            vec![("commit", Cell::Count(seq)), ("path", Cell::Text(to.display().to_string()))]
        } else {
            let made = store.back_up()?;
            vec![
                ("commit", Cell::Count(made.facts.seq)),
                ("size", Cell::Bytes(made.facts.size)),
                ("new", Cell::Flag(made.method.is_some())),
                ("removed", Cell::List(made.pruned)),
            ]
        };
        store.close()?;
        out.record(&record)?;
        Ok(true)
    }
}

/// The options of `backup list`.
#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    beside: Beside,
}

impl List {
    fn run(&self, out: &mut Out) -> Outcome {
        let list = self.beside.backups()?.list()?;
        let rows: Vec<Record> = list.iter().map(row).collect();
        out.table(&rows)?;
        Ok(!rows.is_empty())
    }
}

fn row(entry: &BackupEntry) -> Record {
    let facts = entry.facts.as_ref().ok();
    let state = match (&entry.facts, entry.trust) {
        (Err(error), _) => error.to_string(),
        (Ok(_), Trust::Authentic) => "authentic".to_owned(),
        (Ok(_), Trust::OtherKey) => "under another key".to_owned(),
        (Ok(_), Trust::Plain) => "not encrypted, although there is a key".to_owned(),
        (Ok(_), Trust::Forged) => "forged".to_owned(),
        (Ok(_), _) => "whole".to_owned(),
    };
    let time = |time_us: Option<i64>| time_us.map_or(Cell::Nothing, Cell::Time);
    vec![
        ("number", Cell::Count(entry.index.into())),
        ("commit", facts.map(|facts| facts.seq).into()),
        ("size", Cell::Bytes(entry.size)),
        ("made", time(facts.and_then(|facts| facts.time_us))),
        ("verified", time(entry.verified.map(|verified| verified.at_us))),
        ("form", facts.map(|facts| facts.form.clone()).into()),
        ("encrypted", facts.map(|facts| facts.encrypted).into()),
        ("state", Cell::Text(state)),
    ]
}

/// The options of `backup verify`.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    beside: Beside,
    /// The number of the backup in `backup list`
    number: u32,
}

impl Verify {
    fn run(&self, out: &mut Out) -> Outcome {
        let found = self.beside.backups()?.verify(self.number)?;
        out.record(&vec![
            ("result", Cell::Text("intact".to_owned())),
            ("name", Cell::Text(found.name)),
            ("commit", Cell::Count(found.facts.seq)),
            ("size", Cell::Bytes(found.facts.size)),
            ("encrypted", Cell::Flag(found.facts.encrypted)),
        ])?;
        Ok(true)
    }
}

/// The options of `backup restore`.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    #[command(flatten)]
    beside: Beside,
    /// The number of the backup in `backup list`
    #[arg(required_unless_present = "commit")]
    number: Option<u32>,
    /// Put a ledger back to the state after this commit, without a backup
    #[arg(long, value_name = "COMMIT", conflicts_with = "number")]
    commit: Option<Seq>,
}

impl Restore {
    fn run(&self, out: &mut Out) -> Outcome {
        let backups = self.beside.backups()?;
        let Restored { facts, replaced, .. } = match (self.number, self.commit) {
            (Some(number), _) => backups.restore(number)?,
            (None, Some(commit)) => backups.restore_until(RestorePoint::Seq(commit))?,
            (None, None) => return Err(Failure::Usage("name a backup".to_owned())),
        };
        out.record(&vec![
            ("commit", Cell::Count(facts.seq)),
            ("replaced files are kept as", kept(replaced)),
        ])?;
        Ok(true)
    }
}

/// Returns the names under which the files of a store are kept that a restore has replaced.
fn kept(replaced: Vec<(String, String)>) -> Cell {
    Cell::List(replaced.into_iter().map(|(_, kept_as)| kept_as).collect())
}

/// The options of `backup prune`.
#[derive(Debug, Args)]
pub(crate) struct Prune {
    #[command(flatten)]
    beside: Beside,
    /// Keep the newest COUNT good backups
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    keep: u32,
}

impl Prune {
    fn run(&self, out: &mut Out) -> Outcome {
        let removed = self.beside.backups()?.prune(self.keep)?;
        let is_any = !removed.is_empty();
        out.record(&vec![("removed", Cell::List(removed))])?;
        Ok(is_any)
    }
}
