//! `export` and `import`: all entries as JSON Lines, with their exact bytes and codecs.

use std::borrow::Cow;
use std::fs::{File, Metadata};
use std::io::{self, BufRead, BufReader};
use std::mem;
use std::path::{Path, PathBuf};

use clap::Args;
use codex_core::internals::{Change, Commit, Entry, entries_of_tables, submit};
use codex_core::{Batch, Codec, Store};
use codex_storage::batch::{Item, KEY_LEN_MAX, TableId};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::failure::Failure;
use crate::look::with_key;
use crate::out::{Cell, Out, Record, object};
use crate::progress::Bar;
use crate::target::{BULK, Target};
use crate::value::{BINCODE, JSON, RAW, Shown};
use crate::whole::WholeFile;
use crate::{Outcome, change, json, key, time};

/// The options of `export`.
#[derive(Debug, Args)]
pub(crate) struct Export {
    #[command(flatten)]
    target: Target,
    /// The file to write, which must not exist yet; stdout if it is left out
    #[arg(value_name = "FILE")]
    to: Option<PathBuf>,
}

impl Export {
    pub(crate) fn run(&self, out: &mut Out) -> Outcome {
        let store = self.target.look()?;
        let mut file = self.to.as_deref().map(WholeFile::create).transpose()?;
        let mut print = |record: &Record| {
            let line = object(record);
            match &mut file {
                Some(file) => file.write_line(&line),
                None => out.line(&line),
            }
        };
        let snapshot = store.snapshot();
        for entry in &snapshot {
            let value = entry.value_ref();
            let fields = Shown::of(&value)?.fields();
            print(&with_key(shown(entry.key()), entry.expires_at(), fields))?;
        }
        for entry in entries_of_tables(&snapshot) {
            let fields = Shown::stored(entry.value())?.fields();
            let expires = entry.expires_us().map(time::from_us);
            let mut record = with_key(shown(entry.key()), expires, fields);
            let id = entry.table().map(|id| u64::from(id.get()));
            record.insert(0, ("table", id.into()));
            print(&record)?;
        }
        if let Some(file) = file {
            file.finish()?;
        }
        Ok(true)
    }
}

fn shown(key: &[u8]) -> Cell {
    Cell::Text(key::show(key))
}

/// The options of `import`.
#[derive(Debug, Args)]
pub(crate) struct Import {
    #[command(flatten)]
    target: Target,
    /// The file to read; stdin if it is left out or `-`
    #[arg(value_name = "FILE", default_value = "-", hide_default_value = true)]
    from: PathBuf,
    /// Make the store if it is missing
    #[arg(long)]
    create: bool,
}

impl Import {
    pub(crate) fn run(&self, out: &mut Out) -> Outcome {
        // Order: the file is opened before the store is, which may be made.
        let (mut from, total): (Box<dyn BufRead>, _) = if self.from == Path::new("-") {
            (Box::new(io::stdin().lock()), None)
        } else {
            let file = File::open(&self.from).map_err(|e| self.unreadable(e))?;
            // A pipe has no length.
            let total = file.metadata().ok().filter(Metadata::is_file).map(|file| file.len());
            (Box::new(BufReader::new(file)), total)
        };
        let secret = self.target.secret()?;
        let options = self.target.options(secret.as_ref())?.create(self.create);
        let options = options.durability(BULK);
        let store = self.target.write_with(&options)?;
        let done = self.read_lines(&store, &mut *from, Bar::new(total, out.json));
        // Order: the entries are durable before they are counted, in an error too.
        store.close()?;
        change::count(out, "imported", done?)?;
        Ok(true)
    }

    /// Sets the entry of each line, in large commits. Returns the number of entries.
    fn read_lines(&self, store: &Store, from: &mut dyn BufRead, mut bar: Bar) -> Outcome<u64> {
        let mut lines = Lines::new(store);
        let (mut line, mut number, mut committed) = (String::new(), 0_u64, 0_u64);
        let (mut bytes, mut read) = (0, 0);
        loop {
            line.clear();
            let len = from.read_line(&mut line).map_err(|e| self.unreadable(e))?;
            let is_end = len == 0;
            if !is_end {
                number += 1;
                bytes += len;
                let text = line.trim_end_matches(['\n', '\r']);
                let added = if text.is_empty() { Ok(()) } else { lines.add(text) };
                if let Err(failure) = added {
                    lines.batch.discard();
                    return Err(self.refused(number, committed, failure));
                }
            }
            if is_end || bytes >= BATCH_BYTES {
                committed += lines.commit(store)?;
                read += u64::try_from(bytes).unwrap_or(u64::MAX);
                bar.draw(read, &format!("{committed} keys"));
                bytes = 0;
            }
            if is_end {
                return Ok(committed);
            }
        }
    }

    fn unreadable(&self, source: io::Error) -> Failure {
        Failure::file(format!("cannot read {}", self.from.display()), source)
    }

    /// Returns the error of a line, with the state of the store.
    fn refused(&self, number: u64, committed: u64, failure: Failure) -> Failure {
        match failure {
            Failure::Usage(why) => Failure::Usage(format!(
                "{}, line {number}: {why}; {committed} entries from the lines before are in the \
                 store: correct the line and import again",
                self.from.display()
            )),
            other => other,
        }
    }
}

/// The size of one commit, in bytes of the file.
const BATCH_BYTES: usize = 1 << 20;

/// One line of an export. A field that this version does not know is an error, not a loss.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    /// The id of the table, if the entry is in one.
    #[serde(default)]
    table: Option<TableId>,
    #[serde(borrow)]
    key: Cow<'a, str>,
    /// The time at which the entry expires, in microseconds since 1970.
    #[serde(default)]
    expires_us: Option<i64>,
    #[serde(borrow)]
    codec: Cow<'a, str>,
    /// JSON, with its exact text.
    #[serde(borrow, default, deserialize_with = "present")]
    value: Option<&'a RawValue>,
    /// Bytes that are UTF-8.
    #[serde(borrow, default)]
    text: Option<Cow<'a, str>>,
    /// Any bytes.
    #[serde(borrow, default)]
    hex: Option<Cow<'a, str>>,
}

/// Reads a field that is there. Without this function, `null` counts as a missing field.
fn present<'de, D: Deserializer<'de>>(field: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(field).map(Some)
}

/// The entries of the lines that were read since the last commit.
struct Lines {
    batch: Batch,
    /// The entries of tables, the catalogue of tables among them.
    in_tables: Vec<Change>,
    /// Whether the store had tables before, whose ids can be those of the tables of the export.
    has_tables: bool,
}

impl Lines {
    fn new(store: &Store) -> Self {
        let has_tables = entries_of_tables(&store.snapshot()).next().is_some();
        Self { batch: store.batch(), in_tables: Vec::new(), has_tables }
    }

    /// Commits the entries. Returns their number.
    fn commit(&mut self, store: &Store) -> Outcome<u64> {
        let count = self.batch.len() + self.in_tables.len();
        self.batch.commit()?;
        if !self.in_tables.is_empty() {
            let changes = mem::take(&mut self.in_tables).into();
            submit(store, Commit { changes, ..Commit::default() })?;
        }
        Ok(u64::try_from(count).unwrap_or(u64::MAX))
    }

    /// Adds the entry of a line.
    fn add(&mut self, text: &str) -> Outcome<()> {
        let usage = |why: String| Failure::Usage(why);
        let line: Line<'_> =
            serde_json::from_str(text).map_err(|error| usage(error.to_string()))?;
        let key = key::parse(&line.key).map_err(usage)?;
        let codec = match &*line.codec {
            RAW => None,
            BINCODE => Some(Codec::Bincode),
            JSON => Some(Codec::Json),
            other => return Err(usage(format!("the codec {other:?} is not known"))),
        };
        let bytes: Cow<'_, [u8]> = match (line.value, &line.text, &line.hex) {
            (Some(value), None, None) if codec == Some(Codec::Json) => {
                value.get().as_bytes().into()
            }
            (None, Some(text), None) => text.as_bytes().into(),
            (None, None, Some(hex)) => {
                let bytes = key::from_hex(hex);
                bytes
                    .ok_or_else(|| usage("`hex` has no even number of hex digits".to_owned()))?
                    .into()
            }
            _ => {
                let why = "give one of `value` (of the codec json), `text` and `hex`";
                return Err(usage(why.to_owned()));
            }
        };
        // Text that claims to be JSON is checked like a value that is set.
        if codec == Some(Codec::Json)
            && let Ok(text) = std::str::from_utf8(&bytes)
        {
            json::check(text).map_err(usage)?;
        }
        if let Some(table) = line.table {
            return self.add_to_table(table, &key, codec, &bytes, line.expires_us);
        }
        let (batch, expires) = (&mut self.batch, line.expires_us.map(time::from_us));
        match (codec, expires) {
            (Some(codec), _) => batch.set_encoded(key, codec, bytes, expires)?,
            (None, Some(expires)) => batch.set_bytes_with_expiry(key, bytes, expires)?,
            (None, None) => batch.set_bytes(key, bytes)?,
        };
        Ok(())
    }

    /// Adds an entry of a table.
    fn add_to_table(
        &mut self,
        table: TableId,
        key: &[u8],
        codec: Option<Codec>,
        bytes: &[u8],
        expires_us: Option<i64>,
    ) -> Outcome<()> {
        if self.has_tables {
            let why = "the store has tables, and an export of tables needs a store without any";
            return Err(Failure::Usage(why.to_owned()));
        }
        if key.len() > KEY_LEN_MAX {
            return Err(Failure::Usage(format!("a key has at most {KEY_LEN_MAX} bytes")));
        }
        // A stored value is the number of its codec, then its bytes (docs/FORMAT.md, "Values").
        let number = match codec {
            Some(Codec::Json) => 2,
            Some(_) => 1,
            None => 0,
        };
        let value = [&[number], bytes].concat();
        let item = Item { table: Some(table), key, value: &value, expires_us };
        self.in_tables.push(Change::Put(Entry::from_item(item)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use codex_core::vfs::fault::{FaultDir, Survivors};
    use codex_core::vfs::{Call, CallKind};
    use codex_core::{Form, Store};

    use crate::cli::{Cli, Command};
    use crate::progress::Bar;
    use crate::target::BULK;

    #[test]
    fn an_import_is_synced_as_a_whole_by_the_close() {
        let cli = Cli::parse_from(["codexdb", "import", "app.db"]);
        let Command::Import(import) = cli.command else { panic!("another command") };
        let line = |n: usize| {
            let text = "x".repeat(4000);
            format!("{{\"key\":\"{n:05}\",\"codec\":\"raw\",\"text\":\"{text}\"}}\n")
        };
        let lines: String = (0..2000).map(line).collect();
        for form in [Form::Wal, Form::Snapshot, Form::Ledger] {
            let disk = FaultDir::new();
            let options = Store::options().form(form).durability(BULK);
            let store = options.open_in(&disk.vfs(1), "app.db").unwrap();
            disk.record_trace(true);
            let bar = Bar::new(None, true);
            assert_eq!(import.read_lines(&store, &mut lines.as_bytes(), bar).unwrap(), 2000);
            // Eight commits were made. A Wal syncs its log when it begins a new one, too.
            let is_log = |name: &str| name == "app.db" || name.starts_with("app.db.wal.");
            let is_sync = |call: &&Call| call.kind == CallKind::Sync && is_log(&call.name);
            let syncs = disk.trace().iter().filter(is_sync).count();
            assert!(syncs < 8, "{form}: {syncs} syncs");
            let images = store.stats().storage.images;
            assert!(images <= 1, "{form}: {images} images");
            store.close().unwrap();
            drop(store);
            let disk = disk.reboot(Survivors::Nothing);
            assert_eq!(Store::options().open_in(&disk.vfs(2), "app.db").unwrap().len(), 2000);
        }
    }
}
