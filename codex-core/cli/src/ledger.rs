//! The commands that read the past of a ledger: `log`, `history`, and `get --at`.

use std::collections::VecDeque;
use std::str::FromStr;
use std::time::SystemTime;

use clap::Args;
use codex_core::internals::history;
use codex_core::{Change, RestorePoint, Snapshot, Store};
use codexdb::time::{self, show};

use crate::Outcome;
use crate::failure::Failure;
use crate::key::TypedKey;
use crate::look::AsType;
use crate::out::{Cell, Out, Record, complain, note_tables};
use crate::tables::TableArg;
use crate::target::Target;
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
        self.on(&self.target.read()?, out)
    }

    pub(crate) fn on(&self, store: &Store, out: &mut Out) -> Outcome {
        note_tables(store, "counted");
        let mut rows = VecDeque::new();
        for commit in store.changes(0)? {
            let commit = commit?;
            let (mut set, mut removed, mut cleared) = (0_u64, 0_u64, false);
            for change in commit.changes() {
                match change {
                    Change::Set(_) => set += 1,
                    Change::Removed(_) => removed += 1,
                    _ => cleared = true,
                }
            }
            let row: Record = vec![
                ("commit", Cell::Count(commit.seq())),
                ("time", commit.time().map_or(Cell::Nothing, |at| Cell::Time(time::to_us(at)))),
                ("set", Cell::Count(set)),
                ("removed", Cell::Count(removed)),
                ("cleared", Cell::Flag(cleared)),
            ];
            rows.push_back(row);
            if self.limit.is_some_and(|limit| rows.len() > limit) {
                rows.pop_front();
            }
        }
        out.table(rows.make_contiguous())?;
        Ok(true)
    }
}

/// The options of `history`.
#[derive(Debug, Args)]
pub(crate) struct History {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    table: TableArg,
    /// The key
    key: TypedKey,
    #[command(flatten)]
    of: AsType,
}

impl History {
    pub(crate) fn run(&self, out: &mut Out) -> Outcome {
        self.on(&self.target.read()?, out)
    }

    pub(crate) fn on(&self, store: &Store, out: &mut Out) -> Outcome {
        let mut rows: Vec<Record> = Vec::new();
        let (json, of) = (out.json, self.of.of.as_ref());
        // The expiry of the value that the key has.
        let mut expires = None;
        let space = self.table.of(store)?;
        let key = space.typed(&self.key).map_err(Failure::Usage)?;
        for revision in history(store, space.id(), &key)? {
            let revision = revision?;
            let time = time::to_us(revision.time());
            let mut row: Record =
                vec![("commit", Cell::Count(revision.seq())), ("time", Cell::Time(time))];
            if let Some(entry) = revision.entry() {
                expires = entry.expires_at();
                let value = entry.value_ref();
                let value = Shown::of(&value)?;
                let expires_us = expires.map(time::to_us);
                if json {
                    row.extend(expires_us.map(|us| ("expires_us", Cell::Json(us.to_string()))));
                    row.extend(value.fields_as(of));
                } else {
                    let expires = expires_us.map(|at| format!(", expires {}", show(at)));
                    let text = value.line(of) + &expires.unwrap_or_default();
                    row.push(("value", Cell::Text(text)));
                }
            } else {
                let is_expired = expires.take().is_some_and(|at| at <= revision.time());
                let (name, text) =
                    if is_expired { ("expired", "(expired)") } else { ("removed", "(removed)") };
                row.push(if json {
                    (name, Cell::Flag(true))
                } else {
                    ("value", Cell::Text(text.to_owned()))
                });
            }
            rows.push(row);
        }
        out.table(&rows)?;
        if rows.is_empty() {
            complain(&format!("no commit has set the key {}", space.text(&key)));
        }
        Ok(!rows.is_empty())
    }
}

/// A moment in the past of a ledger or of an archive: after a commit, or at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment(pub(crate) RestorePoint);

impl Moment {
    /// Returns the state of a ledger at the moment.
    pub(crate) fn of(self, store: &Store) -> Outcome<Snapshot> {
        Ok(store.as_of(self.0)?)
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(commit) = text.parse() {
            return Ok(Self(RestorePoint::Seq(commit)));
        }
        let ago = time::parse_span(text.trim().trim_end_matches("ago"));
        let past = ago.and_then(|ago| SystemTime::now().checked_sub(ago)).map(time::to_us);
        let time_us = past.or_else(|| time::parse(text));
        time_us.map(|time_us| Self(RestorePoint::TimeUs(time_us))).ok_or_else(|| {
            "give a commit, a time such as 2026-11-26T05:30:00Z, or a span before now such as 2h"
                .to_owned()
        })
    }
}
