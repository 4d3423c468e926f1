//! `diff`: the keys in which two stores, or two moments of a ledger, differ.

use std::cmp::Ordering;
use std::path::PathBuf;

use clap::Args;
use codex_core::Store;

use crate::ledger::Moment;
use crate::look::AsType;
use crate::out::{Cell, Out, Record, note_tables, object};
use crate::secret::Secret;
use crate::target::Target;
use crate::value::Shown;
use crate::{Outcome, key, time};

/// The options of `diff`.
#[derive(Debug, Args)]
pub(crate) struct Diff {
    #[command(flatten)]
    target: Target,
    /// The other store, or a backup; STORE itself if it is left out
    #[arg(value_name = "OTHER", required_unless_present_any = ["at", "to"])]
    other: Option<PathBuf>,
    /// Take STORE, which is a ledger, as it was at this moment: a commit, a time, or 2h for two
    /// hours ago
    #[arg(long, value_name = "MOMENT")]
    at: Option<Moment>,
    /// Take OTHER, which is a ledger, as it was at this moment
    #[arg(long, value_name = "MOMENT")]
    to: Option<Moment>,
    #[command(flatten)]
    of: AsType,
}

/// A key with its value: the codec, the bytes and the expiry.
type Row = (Vec<u8>, Value);

#[derive(Debug, PartialEq, Eq)]
struct Value {
    codec: &'static str,
    bytes: Vec<u8>,
    expires_us: Option<i64>,
}

type Rows = Box<dyn Iterator<Item = Outcome<Row>>>;

impl Diff {
    pub(crate) fn run(&self, out: &mut Out) -> Outcome {
        let secret = self.target.secret()?;
        let path = self.other.as_ref().unwrap_or(&self.target.path);
        let other = self.target.beside(path.clone());
        let mut before = rows(&self.target, secret.as_ref(), self.at)?;
        let mut after = rows(&other, secret.as_ref(), self.to)?;
        let (mut old, mut new) = (before.next().transpose()?, after.next().transpose()?);
        let (mut removed, mut added, mut changed) = (0_u64, 0_u64, 0_u64);
        loop {
            let order = match (&old, &new) {
                (Some((old, _)), Some((new, _))) => old.cmp(new),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => break,
            };
            // The side whose key comes first has a row of its own.
            let gone = if order.is_le() { old.take() } else { None };
            let come = if order.is_ge() { new.take() } else { None };
            match (&gone, &come) {
                (Some((_, from)), Some((_, to))) if from == to => {}
                (Some(_), Some(_)) => changed += 1,
                (Some(_), None) => removed += 1,
                _ => added += 1,
            }
            self.print(out, gone.as_ref(), come.as_ref())?;
            old = if order.is_le() { before.next().transpose()? } else { old };
            new = if order.is_ge() { after.next().transpose()? } else { new };
        }
        let is_same = (removed, added, changed) == (0, 0, 0);
        if !out.json && !is_same {
            out.line(&format!("{removed} removed, {added} added, {changed} changed"))?;
        }
        Ok(is_same)
    }

    /// Prints a key whose values differ.
    fn print(&self, out: &mut Out, old: Option<&Row>, new: Option<&Row>) -> Outcome<()> {
        let (Some((key, _)), false) = (old.or(new), old == new) else { return Ok(()) };
        if !out.json {
            let line = |sign: char, row: &Row| {
                let value = row.1.shown().line(self.of.of.as_ref());
                let expires = row.1.expires_us.map(|at| format!(", expires {}", time::show(at)));
                format!("{sign} {}\t{value}{}", key::show(key), expires.unwrap_or_default())
            };
            for (sign, row) in [('-', old), ('+', new)] {
                if let Some(row) = row {
                    out.line(&line(sign, row))?;
                }
            }
            return Ok(());
        }
        let fields = |row: &Row| {
            let mut fields: Record = Record::new();
            if let Some(expires_us) = row.1.expires_us {
                fields.push(("expires_us", Cell::Json(expires_us.to_string())));
            }
            fields.extend(row.1.shown().fields_as(self.of.of.as_ref()));
            Cell::Json(object(&fields))
        };
        out.record(&vec![
            ("key", Cell::Text(key::show(key))),
            ("before", old.map_or(Cell::Nothing, fields)),
            ("after", new.map_or(Cell::Nothing, fields)),
        ])
    }
}

impl Value {
    fn shown(&self) -> Shown<'_> {
        Shown { codec: self.codec, bytes: &self.bytes }
    }
}

/// Returns the entries of a store, or of a ledger at a moment, in the order of keys.
fn rows(target: &Target, secret: Option<&Secret>, at: Option<Moment>) -> Outcome<Rows> {
    let store: Store = target.read_with(secret)?;
    note_tables(&store, "compared");
    let state = at.map(|at| at.of(&store)).transpose()?;
    let entries = state.map_or_else(|| store.iter(), |state| state.iter());
    Ok(Box::new(entries.map(|entry| {
        let value = entry.value_ref();
        let codec = Shown::of(&value)?.codec;
        let expires_us = entry.expires_at().map(time::to_us);
        Ok((entry.key().to_vec(), Value { codec, bytes: value.to_vec(), expires_us }))
    })))
}
