//! The commands that change a store: `init`, `set`, `remove`, `clear`, `checkpoint` and `compact`.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use std::{fs, io};

use clap::Args;
use codex_core::{Codec, Compression, FileRole, Form, Prefix, Store, Transaction};

use crate::failure::Failure;
use crate::key::{self, TypedKey};
use crate::out::{Cell, Out};
use crate::target::Target;
use crate::types::Type;
use crate::{Outcome, json, time};

/// The options of `init`.
#[derive(Debug, Args)]
pub(crate) struct Init {
    #[command(flatten)]
    target: Target,
    /// How the store is kept on disk: `wal`, `snapshot` or `ledger`
    #[arg(long, default_value = "wal")]
    form: Form,
    /// The compression of its files: `none` or `lz4`
    #[arg(long, default_value = "none")]
    compression: Compression,
    /// Make missing folders too
    #[arg(long)]
    create_folder: bool,
}

impl Init {
    pub(crate) fn run(&self) -> Outcome {
        let secret = self.target.key.read_new(&self.target.path)?;
        let options = self.target.options(secret.as_ref())?;
        let options = options.create(true).create_new(true).create_folder(self.create_folder);
        let options = options.form(self.form).compression(self.compression);
        self.target.write_with(&options)?.close()?;
        Ok(true)
    }
}

/// The options of `set`.
#[derive(Debug, Args)]
pub(crate) struct Set {
    #[command(flatten)]
    target: Target,
    /// The key
    key: TypedKey,
    /// The value as JSON, such as 7, '"a text"' or '{"stars": 5}'
    #[arg(required_unless_present = "file", allow_hyphen_values = true)]
    value: Option<String>,
    /// Read the value from PATH, or from stdin if PATH is `-`
    #[arg(long, value_name = "PATH", conflicts_with = "value")]
    file: Option<PathBuf>,
    /// Store the bytes of the value as they are, without a codec
    #[arg(long, conflicts_with = "hex")]
    raw: bool,
    /// The value is hex digits; store their bytes without a codec
    #[arg(long)]
    hex: bool,
    /// Store the value in bincode, as this type, such as u64 or '{name: str, stars: u32}'
    #[arg(long = "as", value_name = "TYPE", conflicts_with_all = ["raw", "hex"])]
    of: Option<Type>,
    /// Remove the value after a time span, such as 90s, 15min, 2h or 7d
    #[arg(long, value_name = "SPAN", conflicts_with = "expires_at", value_parser = span)]
    expires_in: Option<Duration>,
    /// Remove the value at a time, such as 2026-11-26T05:30:00Z
    #[arg(long, value_name = "TIME", value_parser = later)]
    expires_at: Option<SystemTime>,
    /// Make the store if it is missing
    #[arg(long)]
    create: bool,
}

/// Reads a time span of the command line.
pub(crate) fn span(text: &str) -> Result<Duration, &'static str> {
    time::parse_span(text).ok_or("give a number and a unit, such as 90s, 15min, 2h or 7d")
}

fn later(text: &str) -> Result<SystemTime, &'static str> {
    let time = time::parse(text).map(time::from_us);
    let time = time.ok_or("give a time such as 2026-11-26T05:30:00Z")?;
    if time > SystemTime::now() { Ok(time) } else { Err("the time has passed") }
}

impl Set {
    pub(crate) fn run(&self) -> Outcome {
        // Order: the value is checked before the store is opened, or even made.
        let value = self.value()?;
        let secret = self.target.secret()?;
        let options = self.target.options(secret.as_ref())?.create(self.create);
        let store = self.target.write_with(&options)?;
        self.on(&store, &value)?;
        store.close()?;
        Ok(true)
    }

    /// Sets the value in a commit of its own.
    pub(crate) fn on(&self, store: &Store, value: &Value) -> Outcome {
        store.try_transaction(|tx| self.within(tx, value))
    }

    /// Sets the value within a transaction.
    pub(crate) fn within(&self, tx: &mut Transaction, (codec, bytes): &Value) -> Outcome {
        let expires = self.expires_in.map(|span| SystemTime::now() + span).or(self.expires_at);
        put(tx, &self.key, *codec, bytes, expires)?;
        Ok(true)
    }

    pub(crate) fn key(&self) -> &[u8] {
        self.key.as_ref()
    }

    /// Returns true if the value is read from stdin.
    pub(crate) fn reads_stdin(&self) -> bool {
        self.file.as_deref() == Some(Path::new("-"))
    }

    /// Replaces the value, if it is JSON, by the text that `typed` returns for it, if it does.
    pub(crate) fn retype(&mut self, typed: impl FnOnce(&str) -> Option<String>) {
        if let Some(value) = self.value.as_mut().filter(|_| !self.raw && !self.hex)
            && let Some(text) = typed(value)
        {
            *value = text;
        }
    }

    /// Reads and checks the value.
    pub(crate) fn value(&self) -> Outcome<Value> {
        self.stored(match (&self.value, &self.file) {
            (Some(value), _) => value.clone().into_bytes(),
            (None, file) => read(file.as_deref().unwrap_or(Path::new("-")))?,
        })
    }

    /// Returns the bytes to store, and their codec.
    fn stored(&self, value: Vec<u8>) -> Outcome<Value> {
        if self.raw {
            return Ok((None, value));
        }
        let usage = |text: &str| Failure::Usage(text.to_owned());
        let text = String::from_utf8(value)
            .map_err(|_| usage("the value is not UTF-8; `--raw` stores any bytes"))?;
        if self.hex {
            let bytes = key::from_hex(text.trim());
            let bytes = bytes.ok_or_else(|| usage("the value is no even number of hex digits"))?;
            return Ok((None, bytes));
        }
        let json = json::checked(&text).map_err(|why| {
            let text = format!(
                "the value is not JSON: {why}; a text is written in double quotes, as \
                 '\"hello\"', and `--raw` stores any bytes"
            );
            Failure::Usage(text)
        })?;
        Ok(match &self.of {
            Some(of) => (Some(Codec::Bincode), of.write(&json).map_err(Failure::Usage)?),
            None => (Some(Codec::Json), json.into_bytes()),
        })
    }
}

/// Stores bytes that are encoded, or raw bytes if there is no codec.
pub(crate) fn put(
    tx: &mut Transaction,
    key: &TypedKey,
    codec: Option<Codec>,
    bytes: &[u8],
    expires: Option<SystemTime>,
) -> Outcome<()> {
    match (codec, expires) {
        (Some(codec), expires) => tx.set_encoded(key, codec, bytes, expires)?,
        (None, Some(expires)) => tx.set_bytes_with_expiry(key, bytes, expires)?,
        (None, None) => tx.set_bytes(key, bytes)?,
    }
    Ok(())
}

/// The bytes of a value, and their codec, if they have one.
pub(crate) type Value = (Option<Codec>, Vec<u8>);

/// The options of `remove`.
#[derive(Debug, Args)]
pub(crate) struct Remove {
    #[command(flatten)]
    target: Target,
    /// The keys, which are removed in one commit
    #[arg(required_unless_present = "prefix", value_name = "KEY")]
    keys: Vec<TypedKey>,
    /// Remove all keys that begin with PREFIX
    #[arg(long, conflicts_with = "keys")]
    prefix: Option<TypedKey>,
}

impl Remove {
    pub(crate) fn run(&self, out: &mut Out) -> Outcome {
        let store = self.target.write()?;
        let removed = self.on(&store)?;
        store.close()?;
        Self::tell(removed, out)
    }

    /// Removes the keys in a commit of its own. Returns the number of those that were there.
    pub(crate) fn on(&self, store: &Store) -> Outcome<u64> {
        match &self.prefix {
            // The log has one record for all keys.
            Some(prefix) => Ok(store.remove_range(Prefix(prefix))?),
            None => store.try_transaction(|tx| self.within(tx)),
        }
    }

    /// Removes the keys within a transaction. Returns the number of those that were there.
    pub(crate) fn within(&self, tx: &mut Transaction) -> Outcome<u64> {
        if let Some(prefix) = &self.prefix {
            return Ok(tx.remove_range(Prefix(prefix))?);
        }
        let mut removed = 0;
        for key in &self.keys {
            removed += u64::from(tx.remove(key)?);
        }
        Ok(removed)
    }

    /// Prints the number of keys that were removed.
    pub(crate) fn tell(removed: u64, out: &mut Out) -> Outcome {
        count(out, "removed", removed)?;
        Ok(removed > 0)
    }
}

/// The options of `clear`.
#[derive(Debug, Args)]
pub(crate) struct Clear {
    #[command(flatten)]
    target: Target,
    /// Really remove all keys
    #[arg(long)]
    yes: bool,
}

impl Clear {
    pub(crate) fn run(&self, out: &mut Out) -> Outcome {
        self.check()?;
        let store = self.target.write()?;
        let removed = store.len();
        store.clear()?;
        store.close()?;
        Self::tell(removed, out)
    }

    pub(crate) fn on(&self, store: &Store, out: &mut Out) -> Outcome {
        self.check()?;
        let removed = store.len();
        store.clear()?;
        Self::tell(removed, out)
    }

    fn check(&self) -> Outcome<()> {
        if self.yes {
            return Ok(());
        }
        let path = self.target.path.display();
        let text = format!("`clear` removes all keys of {path}; say so with `--yes`");
        Err(Failure::Usage(text))
    }

    fn tell(removed: usize, out: &mut Out) -> Outcome {
        count(out, "removed", u64::try_from(removed).unwrap_or(u64::MAX))?;
        Ok(true)
    }
}

/// The options of `checkpoint`.
#[derive(Debug, Args)]
pub(crate) struct Checkpoint {
    #[command(flatten)]
    target: Target,
}

impl Checkpoint {
    pub(crate) fn run(&self) -> Outcome {
        let store = self.target.write()?;
        Self::on(&store)?;
        store.close()?;
        Ok(true)
    }

    pub(crate) fn on(store: &Store) -> Outcome {
        store.checkpoint()?;
        Ok(true)
    }
}

/// The options of `compact`.
#[derive(Debug, Args)]
pub(crate) struct Compact {
    #[command(flatten)]
    target: Target,
}

impl Compact {
    pub(crate) fn run(&self, out: &mut Out) -> Outcome {
        let path = &self.target.path;
        let store = self.target.write()?;
        if store.form() == Some(Form::Ledger) {
            store.close()?;
            let text = "a ledger keeps every commit; `codexdb convert --form wal` keeps the state";
            return Err(Failure::Usage(text.to_owned()));
        }
        let before = bytes_of(path)?;
        store.checkpoint()?;
        store.close()?;
        out.record(&vec![
            ("size before", Cell::Bytes(before)),
            ("size", Cell::Bytes(bytes_of(path)?)),
        ])?;
        Ok(true)
    }
}

/// Returns the size of the files of a store.
fn bytes_of(path: &Path) -> Outcome<u64> {
    let files = Store::files(path)?;
    let files = files.iter().filter(|file| file.role == FileRole::Store);
    Ok(files.map(|file| file.bytes).sum())
}

/// Prints the number of keys that a command has changed.
pub(crate) fn count(out: &mut Out, what: &'static str, count: u64) -> Outcome<()> {
    if out.json {
        return out.record(&vec![(what, count.into())]);
    }
    let keys = if count == 1 { "key" } else { "keys" };
    out.line(&format!("{what} {count} {keys}"))
}

/// Reads the file `path`, or stdin if it is `-`.
fn read(path: &Path) -> Outcome<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        fs::read(path)
    };
    read.map_err(|source| Failure::file(path.display(), source))
}
