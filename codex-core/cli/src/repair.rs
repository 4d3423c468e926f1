//! `repair`: writes the intact part of a damaged store to a new one; and the report of `verify`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use codex_core::StorageError;
use codex_core::crypto::Cipher;
use codex_core::vfs::Vfs;
use codex_storage::batch::TableId;
use codex_storage::seal::Keys;
use codex_storage::{Config, LostKeys, Salvage, salvage};

use crate::out::{Cell, Out, Record};
use crate::secret::Secret;
use crate::target::{Target, new_place, place};
use crate::{Outcome, key};

/// The options of `repair`.
#[derive(Debug, Args)]
pub(crate) struct Repair {
    #[command(flatten)]
    target: Target,
    /// The path of the new store, where no file is yet
    #[arg(value_name = "NEW")]
    to: PathBuf,
}

impl Repair {
    #[allow(clippy::print_stderr, reason = "a program talks to its user")]
    pub(crate) fn run(&self, out: &mut Out) -> Outcome {
        let secret = self.target.secret()?;
        let found = intact(&self.target, secret.as_ref())?;
        if found.faults.is_empty() {
            let path = self.target.path.display();
            eprintln!("codexdb: {path} is intact, there is nothing to repair");
            return Ok(false);
        }
        let (vfs, name) = new_place(&self.to)?;
        let keys = keys(&vfs, secret.as_ref())?;
        found.write_to(Config { keys, ..Config::new(vfs, name) })?;
        let mut record = vec![("written to", Cell::Text(self.to.display().to_string()))];
        record.extend(facts(&found, out.json));
        out.record(&record)?;
        Ok(true)
    }
}

/// Prints the damaged and the intact parts of a store, if they can be found out.
pub(crate) fn tell(target: &Target, out: &mut Out) -> Outcome<()> {
    let found = intact(target, target.secret()?.as_ref())?;
    let mut record = vec![("result", Cell::Text("damaged".to_owned()))];
    record.extend(facts(&found, out.json));
    out.record(&record)
}

/// Reads the intact part of the store.
fn intact(target: &Target, secret: Option<&Secret>) -> Outcome<Salvage> {
    // The main file may be missing, and its backups be there.
    let (vfs, name) = match place(&target.path) {
        Ok(place) => place,
        Err(_) => new_place(&target.path)?,
    };
    let keys = keys(&vfs, secret)?;
    Ok(salvage(&vfs, &name, keys.as_deref(), target.wait())?)
}

fn keys(vfs: &Vfs, secret: Option<&Secret>) -> Outcome<Option<Arc<dyn Keys>>> {
    let Some(secret) = secret else { return Ok(None) };
    let entropy = Arc::clone(&vfs.entropy);
    Ok(Some(codex_core::internals::keys(secret.key()?, Cipher::default(), entropy)))
}

/// Returns the findings, for people or for programs.
fn facts(found: &Salvage, json: bool) -> Record {
    let mut record: Record = Vec::new();
    let mut list = |name, texts: Vec<String>| {
        if json {
            record.push((name, Cell::List(texts)));
        } else {
            // Errors are long, so each has a line.
            record.extend(texts.into_iter().map(|text| (name, Cell::Text(text))));
        }
    };
    list("damage", found.faults.iter().map(StorageError::to_string).collect());
    let taken = found.taken.iter().filter_map(|taken| match (taken.entries, taken.commits) {
        (0, 0) => None,
        (0, commits) => Some(format!("{commits} commits of {}", taken.file)),
        (entries, _) => Some(format!("{entries} entries of {}", taken.file)),
    });
    list("intact", taken.collect());
    list("lost keys", found.lost.iter().map(range).collect());
    record.push(("lost entries", found.lost_entries.into()));
    record.push(("last commit", Cell::Count(found.seq)));
    record.push(("state of that commit", Cell::Flag(found.is_exact)));
    record.push(("keys", found.entries().into()));
    record
}

/// Returns a range of keys in words.
fn range(lost: &LostKeys) -> String {
    let show = |(table, key): &(Option<TableId>, Vec<u8>)| match table {
        Some(table) => format!("{} of table {}", key::show(key), table.get()),
        None => key::show(key),
    };
    match (lost.after.as_ref().map(show), lost.before.as_ref().map(show)) {
        (None, None) => "all".to_owned(),
        (Some(after), None) => format!("after {after}"),
        (None, Some(before)) => format!("before {before}"),
        (Some(after), Some(before)) => format!("between {after} and {before}"),
    }
}
