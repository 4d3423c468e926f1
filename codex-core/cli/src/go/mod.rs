//! `import-go`: reads a file of the Go program CodexDB, and sets its entries.

mod layers;
mod ledger;
mod lock;
mod snapshot;
mod source;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use codex_core::{Batch, Codec, Form, StorageError, Store};
use codex_storage::MainFile;

use self::layers::Cipher;
use self::source::Contents;
use crate::failure::Failure;
use crate::out::{Cell, Out};
use crate::secret::SourceKeyArgs;
use crate::target::{BULK, Target, place};
use crate::{Outcome, json, key};

/// The options of `import-go`.
#[derive(Debug, Args)]
pub(crate) struct ImportGo {
    /// The file of the Go program: a snapshot, a backup of one, or a ledger
    #[arg(value_name = "SOURCE")]
    source: PathBuf,
    #[command(flatten)]
    source_key: SourceKeyArgs,
    #[command(flatten)]
    target: Target,
    /// Make the store if it is missing
    #[arg(long)]
    create: bool,
    /// Read what is intact of a damaged file, also the part that the Go program no longer reads
    #[arg(long)]
    salvage: bool,
    /// Make a commit of each operation of a ledger, so that `history` and `--at` show each value
    /// that a key has had. The store is a ledger then. The commits have the time of the import: a
    /// file of the Go program has no times
    #[arg(long)]
    history: bool,
}

impl ImportGo {
    pub(crate) fn run(&self, out: &mut Out) -> Outcome {
        // Order: the source is read and checked as a whole before the store is opened, or made.
        let contents = self.contents()?;
        let entries = self.entries(&contents)?;
        let secret = self.target.secret()?;
        let options = self.target.options(secret.as_ref())?.create(self.create);
        let options = options.durability(BULK);
        let history = if self.history { Some(self.history(&contents)?) } else { None };
        let options = if self.history { options.form(Form::Ledger) } else { options };
        let store = self.target.write_with(&options)?;
        match history {
            Some(commits) => commit_each(&store, &commits)?,
            None => set_all(&store, &entries)?,
        }
        store.close()?;
        self.report(out, &contents, &entries)?;
        Ok(true)
    }

    /// Reads the source. Changes nothing of it.
    fn contents(&self) -> Outcome<Contents> {
        let path = &self.source;
        let (vfs, name) = place(path)?;
        match MainFile::open(&vfs, &name) {
            Err(StorageError::NotADatabase { .. } | StorageError::EmptyFile { .. }) => {}
            Err(error @ (StorageError::Io { .. } | StorageError::NotFound { .. })) => {
                return Err(error.into());
            }
            _ => {
                let text = format!(
                    "{} is a file of this program, not of the Go program: use `codexdb export` and \
                     `codexdb import`",
                    path.display()
                );
                return Err(Failure::Usage(text));
            }
        }
        let cipher = match self.source_key.read(path)? {
            Some(secret) => {
                let key = secret.raw();
                let wrong = || Failure::Key("a key has 16, 24 or 32 bytes".to_owned());
                Some(Cipher::new(&key).ok_or_else(wrong)?)
            }
            None => None,
        };
        let bytes = lock::read(path, self.target.wait())?;
        source::read(&bytes, cipher.as_ref(), self.salvage)
            .map_err(|fault| fault.of(path, cipher.is_some(), self.salvage))
    }

    /// Returns the entries after all operations.
    fn entries<'a>(&self, contents: &'a Contents) -> Outcome<Entries<'a>> {
        let mut texts = BTreeMap::new();
        for change in &contents.changes {
            match change {
                Change::Set { key, value } => _ = texts.insert(key.as_str(), value.as_str()),
                Change::Remove { key } => _ = texts.remove(key.as_str()),
                Change::Clear => texts.clear(),
            }
        }
        let value = |(key, text)| Ok((key, self.value(key, text)?));
        texts.into_iter().map(value).collect()
    }

    /// Returns all operations, in order.
    fn history<'a>(&self, contents: &'a Contents) -> Outcome<Vec<Operation<'a>>> {
        if !contents.kind.is_ledger() {
            let text = format!("{} has no history: leave out `--history`", self.source.display());
            return Err(Failure::Usage(text));
        }
        let operation = |change: &'a Change| match change {
            Change::Set { key, value } => Ok(Operation::Set(key, self.value(key, value)?)),
            Change::Remove { key } => Ok(Operation::Remove(key)),
            Change::Clear => Ok(Operation::Clear),
        };
        contents.changes.iter().map(operation).collect()
    }

    /// Returns the value of `key` to be stored.
    fn value(&self, key: &str, text: &str) -> Outcome<Value> {
        match json::checked(text) {
            Ok(json) => Ok(Value::Json(json)),
            Err(_) if self.salvage => Ok(Value::Raw(text.to_owned())),
            Err(why) => {
                let (path, key) = (self.source.display(), key::show(key.as_bytes()));
                let text = format!(
                    "{path}: the value of {key} is no JSON that can be read back: {why}; \
                     `--salvage` stores its text without a codec"
                );
                Err(Failure::Damage(text))
            }
        }
    }

    #[allow(clippy::print_stderr, reason = "a program talks to its user")]
    fn report(&self, out: &mut Out, contents: &Contents, entries: &Entries<'_>) -> Outcome<()> {
        let path = self.source.display();
        for key in &contents.without_value {
            eprintln!("note: {path}: {} has no value and is left out", key::show(key.as_bytes()));
        }
        for (key, _) in entries.iter().filter(|(_, value)| matches!(value, Value::Raw(_))) {
            let key = key::show(key.as_bytes());
            eprintln!("note: {path}: the value of {key} is stored as text without a codec");
        }
        if contents.is_unverified {
            eprintln!("note: {path}: the checksum does not match; a value may be a wrong one");
        }
        let lost = contents.lost.iter().map(|range| format!("{}..{}", range.start, range.end));
        out.record(&vec![
            ("source", Cell::Text(contents.kind.words())),
            ("imported keys", entries.len().into()),
            ("operations", contents.changes.len().into()),
            ("operations behind damage", contents.behind_damage.into()),
            ("lost bytes", Cell::List(lost.collect())),
            ("not searched from byte", contents.not_searched.map(|at| at.to_string()).into()),
        ])
    }
}

/// Sets all entries, in large commits.
fn set_all(store: &Store, entries: &Entries<'_>) -> Outcome<()> {
    let (mut batch, mut bytes) = (store.batch(), 0);
    for (key, value) in entries {
        value.add_to(&mut batch, key)?;
        bytes += key.len() + value.text().len();
        if bytes >= BATCH_BYTES {
            batch.commit()?;
            (batch, bytes) = (store.batch(), 0);
        }
    }
    batch.commit()?;
    Ok(())
}

/// Makes a commit of each operation. A removal of an absent key makes none.
fn commit_each(store: &Store, history: &[Operation<'_>]) -> Outcome<()> {
    for operation in history {
        match operation {
            Operation::Set(key, value) => {
                let mut batch = store.batch();
                value.add_to(&mut batch, key)?;
                batch.commit()?;
            }
            Operation::Remove(key) => _ = store.remove(key)?,
            Operation::Clear => store.clear()?,
        }
    }
    Ok(())
}

/// The keys and values to be stored.
type Entries<'a> = BTreeMap<&'a str, Value>;

/// A value to be stored.
enum Value {
    Json(String),
    /// Text that is no JSON.
    Raw(String),
}

impl Value {
    fn add_to(&self, batch: &mut Batch, key: &str) -> Outcome<()> {
        match self {
            Self::Json(text) => batch.set_encoded(key, Codec::Json, text.as_bytes(), None)?,
            Self::Raw(text) => batch.set_bytes(key, text)?,
        };
        Ok(())
    }

    fn text(&self) -> &str {
        let (Self::Json(text) | Self::Raw(text)) = self;
        text
    }
}

/// One operation, with the value to be stored.
enum Operation<'a> {
    Set(&'a str, Value),
    Remove(&'a str),
    Clear,
}

/// One operation of the Go program.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Change {
    /// Sets a value, which is JSON.
    Set {
        key: String,
        value: String,
    },
    Remove {
        key: String,
    },
    Clear,
}

/// The reason why a file of the Go program is not read.
#[derive(Debug, PartialEq, Eq)]
enum Fault {
    Damaged(String),
    TooLarge,
    /// A key was given for a file that needs none.
    NotEncrypted,
    /// The file is encrypted, or not of the Go program.
    Unreadable,
}

impl Fault {
    /// Returns the error for the user.
    fn of(self, path: &Path, has_key: bool, salvage: bool) -> Failure {
        let path = path.display();
        match self {
            Self::Damaged(why) if salvage => {
                Failure::Damage(format!("{path}: {why}; nothing in it is intact"))
            }
            Self::Damaged(why) => Failure::Damage(format!(
                "{path}: {why}; `--salvage` reads what is intact, or import a backup: {path}.bak.1"
            )),
            Self::TooLarge => Failure::Damage(format!(
                "{path}: unpacked, it is larger than a file of its length can be"
            )),
            Self::NotEncrypted => {
                Failure::Key(format!("{path} is not encrypted: leave out `--source-key`"))
            }
            Self::Unreadable if has_key => Failure::Key(format!(
                "{path} does not open with this key: the key is another one, or the file is \
                 damaged or not of the Go program"
            )),
            Self::Unreadable => Failure::Key(format!(
                "{path} is encrypted, or not a file of the Go program; give its key with \
                 `--source-key`"
            )),
        }
    }
}

/// Returns the kind of the file `path` in words if it is one of the Go program.
pub(crate) fn kind(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    let is_short = file.metadata().ok()?.len() <= KIND_LEN_MAX;
    is_short.then(|| file.take(KIND_LEN_MAX).read_to_end(&mut bytes).ok())??;
    source::kind_in_words(&bytes)
}

/// The size of one commit, in bytes of keys and values.
const BATCH_BYTES: usize = 1 << 20;
/// The length up to which a file is read to find out its kind.
const KIND_LEN_MAX: u64 = 256 << 20;
