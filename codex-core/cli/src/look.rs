//! The commands that read a store: `get`, `keys`, `scan`, `count`, `stats` and `verify`.

use std::time::SystemTime;

use clap::Args;
use codex_core::internals::tables;
use codex_core::{Entry, Readable, Store};
use codexdb::space::Space;

use crate::failure::Failure;
use crate::key::{self, TypedKey};
use crate::ledger::Moment;
use crate::out::{Cell, Out, Record, complain, note, size};
use crate::range::RangeArgs;
use crate::tables::TableArg;
use crate::target::Target;
use crate::types::Type;
use crate::value::Shown;
use crate::{Outcome, json, repair, time};

/// The options of `get`.
#[derive(Debug, Args)]
pub(crate) struct Get {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    table: TableArg,
    /// The key
    key: TypedKey,
    /// Write the stored bytes as they are
    #[arg(long, conflicts_with_all = ["hex", "of"])]
    raw: bool,
    /// Print the stored bytes as hex digits
    #[arg(long, conflicts_with = "of")]
    hex: bool,
    /// Print the value that the key of a ledger had after a commit, or at a time: COMMIT,
    /// 2026-11-26T05:30:00Z, or 2h for two hours ago
    #[arg(long, value_name = "MOMENT")]
    at: Option<Moment>,
    /// Tell on stderr the codec, the size and the expiry
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    of: AsType,
}

impl Get {
    pub(crate) fn run(&self, out: &mut Out) -> Outcome {
        match self.at {
            Some(at) => self.on(&at.of(&self.target.read()?)?, out),
            None => self.on(&self.target.look()?, out),
        }
    }

    /// Returns the moment whose value is asked for, if it is not that of now.
    pub(crate) fn at(&self) -> Option<Moment> {
        self.at
    }

    /// Prints the value that the key has in `store`.
    pub(crate) fn on(&self, store: &impl Readable, out: &mut Out) -> Outcome {
        let space = self.table.of(store)?;
        let key = space.typed(&self.key).map_err(Failure::Usage)?;
        if let Some(entry) = space.scan(store, &key..=&key).next() {
            return self.print(out, &space, &entry);
        }
        complain(&format!("no such key: {}", space.text(&key)));
        Ok(false)
    }

    fn print(&self, out: &mut Out, space: &Space, entry: &Entry) -> Outcome {
        let (value, expires) = (entry.value_ref(), entry.expires_at());
        let value = Shown::of(&value)?;
        if self.verbose {
            let size = size(u64::try_from(value.bytes.len()).unwrap_or(u64::MAX));
            let expires = expires.map_or("never expires".to_owned(), |at| {
                format!("expires {}", time::show(time::to_us(at)))
            });
            note(&format!("codec {}, {size}, {expires}", value.codec));
        }
        if self.raw {
            out.bytes(value.bytes)?;
        } else if self.hex {
            out.line(&key::hex(value.bytes))?;
        } else if out.json {
            let fields = value.fields_as(self.of.of.as_ref());
            out.record(&with_key(Cell::Json(space.json(entry.key())), expires, fields))?;
        } else if let Some(text) = value.json() {
            let text = if out.is_terminal { json::printable(text) } else { text.to_owned() };
            out.line(&text)?;
        } else if let Some(of) = &self.of.of {
            out.line(&json::printable(&of.read(value.bytes).map_err(Failure::Usage)?))?;
        } else if let Some(text) = value.text() {
            out.text(text)?;
        } else if let Some((of, text)) = value.guess() {
            out.line(&json::printable(&text))?;
            note(&format!("stored as bincode, which names no type; a guess: `--as '{of}'`"));
        } else {
            out.line(&key::hex(value.bytes))?;
            note(&format!("stored as {}, shown as hex digits; `--raw` writes it", value.codec));
        }
        Ok(true)
    }
}

/// The type of the values that a command shows.
#[derive(Debug, Args)]
pub(crate) struct AsType {
    /// Read values that are not JSON as this type, such as u64, [str] or '{name: str, stars: u32}'
    #[arg(long = "as", value_name = "TYPE")]
    pub(crate) of: Option<Type>,
}

/// The options of `keys`.
#[derive(Debug, Args)]
pub(crate) struct Keys {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    range: RangeArgs,
}

impl Keys {
    pub(crate) fn run(&self, out: &mut Out) -> Outcome {
        self.on(&self.target.look()?, out)
    }

    pub(crate) fn on(&self, store: &impl Readable, out: &mut Out) -> Outcome {
        let (space, entries) = self.range.entries(store)?;
        for entry in entries {
            if out.json {
                out.record(&with_key(Cell::Json(space.json(entry.key())), None, Record::new()))?;
            } else {
                out.line(&space.text(entry.key()))?;
            }
        }
        Ok(true)
    }
}

/// The options of `scan`.
#[derive(Debug, Args)]
pub(crate) struct Scan {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    range: RangeArgs,
    #[command(flatten)]
    of: AsType,
}

impl Scan {
    pub(crate) fn run(&self, out: &mut Out) -> Outcome {
        self.on(&self.target.look()?, out)
    }

    pub(crate) fn on(&self, store: &impl Readable, out: &mut Out) -> Outcome {
        let (space, entries) = self.range.entries(store)?;
        for entry in entries {
            let value = entry.value_ref();
            let shown = Shown::of(&value)?;
            if out.json {
                let fields = shown.fields_as(self.of.of.as_ref());
                out.record(&with_key(
                    Cell::Json(space.json(entry.key())),
                    entry.expires_at(),
                    fields,
                ))?;
            } else {
                // A tab is escaped in keys, so the first one ends the key.
                let value = shown.line(self.of.of.as_ref());
                out.line(&format!("{}\t{value}", space.text(entry.key())))?;
            }
        }
        Ok(true)
    }
}

/// The options of `count`.
#[derive(Debug, Args)]
pub(crate) struct Count {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    range: RangeArgs,
}

impl Count {
    pub(crate) fn run(&self, out: &mut Out) -> Outcome {
        self.on(&self.target.look()?, out)
    }

    pub(crate) fn on(&self, store: &impl Readable, out: &mut Out) -> Outcome {
        let count = self.range.entries(store)?.1.count();
        if out.json {
            out.record(&vec![("keys", count.into())])?;
        } else {
            out.line(&count.to_string())?;
        }
        Ok(true)
    }
}

/// The options of `stats`.
#[derive(Debug, Args)]
pub(crate) struct Stats {
    #[command(flatten)]
    target: Target,
}

impl Stats {
    pub(crate) fn run(&self, out: &mut Out) -> Outcome {
        Self::on(&self.target.look()?, out)
    }

    pub(crate) fn on(store: &Store, out: &mut Out) -> Outcome {
        let entries = store.iter();
        let (mut keys, mut values, mut longest) = (0_u64, 0_u64, 0_u64);
        let len = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        for entry in entries {
            keys = keys.saturating_add(len(entry.key()));
            values = values.saturating_add(len(entry.bytes()));
            longest = longest.max(len(entry.bytes()));
        }
        let mut record = vec![
            ("keys", store.len().into()),
            ("bytes of keys", Cell::Bytes(keys)),
            ("bytes of values", Cell::Bytes(values)),
            ("longest value", Cell::Bytes(longest)),
        ];
        let tables = tables(&store.snapshot());
        if !tables.is_empty() {
            let entries = tables.iter().map(|table| table.entries).sum();
            let bytes = tables.iter().map(|table| table.bytes).sum();
            record.push(("tables", tables.len().into()));
            record.push(("keys in tables", Cell::Count(entries)));
            record.push(("bytes in tables", Cell::Bytes(bytes)));
        }
        let files = store.stats().storage;
        record.push(("commits", Cell::Count(files.seq)));
        record.push(("image", Cell::Bytes(files.image_bytes)));
        record.push(("log", Cell::Bytes(files.log_bytes)));
        out.record(&record)?;
        Ok(true)
    }
}

/// The options of `verify`.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    target: Target,
}

impl Verify {
    pub(crate) fn run(&self, out: &mut Out) -> Outcome {
        match self.target.read().and_then(|store| Self::on(&store, out)) {
            Err(Failure::Store(error)) if error.is_damage() => {
                // The first damage is the error also if nothing else is known.
                let _ = repair::tell(&self.target, out);
                Err(Failure::Store(error))
            }
            found => found,
        }
    }

    pub(crate) fn on(store: &Store, out: &mut Out) -> Outcome {
        let found = store.verify()?;
        out.record(&vec![
            ("result", Cell::Text("intact".to_owned())),
            ("form", Cell::Text(found.form.to_string())),
            ("last commit", Cell::Count(found.seq)),
            ("entries in image", Cell::Count(found.entries)),
            ("commits in log", Cell::Count(found.commits)),
            ("bytes read", Cell::Bytes(found.bytes)),
            ("encrypted", Cell::Flag(found.encrypted)),
            ("anchor", found.anchor.map(|anchor| anchor.to_string()).into()),
        ])?;
        Ok(true)
    }
}

/// Returns a record that begins with a key, and with the time at which its value expires.
pub(crate) fn with_key(key: Cell, expires: Option<SystemTime>, fields: Record) -> Record {
    let mut record: Record = vec![("key", key)];
    if let Some(expires) = expires {
        record.push(("expires_us", Cell::Json(time::to_us(expires).to_string())));
    }
    record.extend(fields);
    record
}
