//! The commands that write a store in another way: `convert`, and those of `key`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use codex_core::{Compression, Conversion, Form};

use crate::Outcome;
use crate::failure::Failure;
use crate::out::{Cell, Out};
use crate::secret::NewKeyArgs;
use crate::target::Target;

/// The options of `convert`.
#[derive(Debug, Args)]
pub(crate) struct Convert {
    #[command(flatten)]
    target: Target,
    /// The new form: `wal`, `snapshot` or `ledger`
    #[arg(long)]
    form: Option<Form>,
    /// The new compression: `none` or `lz4`
    #[arg(long)]
    compression: Option<Compression>,
    #[command(flatten)]
    new: NewKeyArgs,
    /// Write the store without encryption
    #[arg(long, conflicts_with_all = ["new_passphrase", "new_key"], help_heading = "Encryption")]
    decrypt: bool,
}

impl Convert {
    pub(crate) fn run(&self, out: &mut Out) -> Outcome {
        let path = &self.target.path;
        let mut conversion = self.target.conversion();
        if let Some(form) = self.form {
            conversion = conversion.form(form);
        }
        if let Some(compression) = self.compression {
            conversion = conversion.compression(compression);
        }
        if let Some(secret) = self.target.secret()? {
            conversion = conversion.key(secret.key()?);
        }
        let new = self.new.read(path)?;
        let is_same = self.form.is_none() && self.compression.is_none();
        if is_same && new.is_none() && !self.decrypt {
            let text = "convert to what? `--form`, `--compression`, `--new-passphrase`, \
                        `--new-key` or `--decrypt`";
            return Err(Failure::Usage(text.to_owned()));
        }
        if let Some(new) = new {
            conversion = conversion.encrypt(new.key()?);
        }
        if self.decrypt {
            conversion = conversion.decrypt();
        }
        convert(path, &conversion, out)
    }
}

/// Converts the store, and prints the files that were not converted.
fn convert(path: &Path, conversion: &Conversion, out: &mut Out) -> Outcome {
    let done = conversion.convert(path)?;
    let paths = |paths: Vec<PathBuf>| {
        Cell::List(paths.into_iter().map(|path| path.display().to_string()).collect())
    };
    out.record(&vec![
        ("form", Cell::Text(done.form.to_string())),
        ("anchor", Cell::Text(done.anchor.to_string())),
        ("still without encryption", paths(done.plain)),
        ("still under earlier keys", paths(done.under_other_keys)),
    ])?;
    Ok(true)
}

/// The commands of `key`.
#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Open the store with another key or passphrase from now on; its data is not written again
    Change(Change),
    /// Write the store again under a fresh root key, which earlier keys and copies do not open
    Rekey(Change),
    /// Write the store again with encryption
    Encrypt(Change),
    /// Write the store again without encryption
    Decrypt(Decrypt),
}

/// The options of `key decrypt`.
#[derive(Debug, Args)]
pub(crate) struct Decrypt {
    #[command(flatten)]
    target: Target,
}

/// The options of `key change`, `key rekey` and `key encrypt`.
#[derive(Debug, Args)]
pub(crate) struct Change {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    new: NewKeyArgs,
}

impl Key {
    pub(crate) fn run(&self, out: &mut Out) -> Outcome {
        let change = match self {
            Self::Change(change) | Self::Rekey(change) => change,
            Self::Encrypt(Change { target, new }) => {
                let key = new.key(&target.path)?;
                let conversion = target.conversion().encrypt(key);
                return convert(&target.path, &conversion, out);
            }
            Self::Decrypt(Decrypt { target }) => {
                let conversion = target.conversion().decrypt();
                let conversion = match target.secret()? {
                    Some(secret) => conversion.key(secret.key()?),
                    None => conversion,
                };
                return convert(&target.path, &conversion, out);
            }
        };
        let store = change.target.write()?;
        // Order: the store is open before the new key is asked for, so that a wrong key is told
        // first.
        let key = change.new.key(&change.target.path)?;
        if matches!(self, Self::Rekey(_)) {
            store.rekey(key)?;
        } else {
            store.change_key(key)?;
        }
        store.close()?;
        Ok(true)
    }
}
