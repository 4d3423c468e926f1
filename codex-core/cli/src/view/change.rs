//! The changes of a ledger: those of one commit, those since a commit, and those of one key.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::iter;
use std::ops::Bound;

use codex_core::internals;
use codex_core::{Entry, Seq, Snapshot};
use serde::Serialize;

use crate::key;
use crate::time;
use crate::view::answer::{Answer, Refused};
use crate::view::ledger::{Bucket, Last, failed};
use crate::view::list::PAGE_LEN_MAX;
use crate::view::request::Request;
use crate::view::site::Site;
use crate::view::state::State;
use crate::view::text;
use crate::view::value::wanted;

#[derive(Serialize)]
struct Times {
    /// The earliest state that the ledger has.
    oldest: Seq,
    last: Seq,
    buckets: Vec<Bucket>,
}

/// Returns which commits there are, and how much they change.
pub(super) fn times(site: &Site, _: &Request) -> Result<Answer, Refused> {
    let last = site.store.snapshot().seq();
    let times = site.ledger()?.index(last, |index| Times {
        oldest: index.oldest,
        last,
        buckets: index.buckets(BUCKETS_MAX),
    })?;
    Ok(Answer::json(&times))
}

/// Returns the time of the commit `at`, and its changes.
pub(super) fn moment(site: &Site, request: &Request) -> Result<Answer, Refused> {
    let at = request.number("at")?.ok_or_else(|| Answer::refuse(400, "which commit?"))?;
    let at = site.acknowledged(at)?;
    let time_us = site.ledger()?.index(at, |index| index.time_us(at))?;
    let mut found = Changes { upto: at, time_us, ..Changes::default() };
    if request.number("count")? != Some(0) {
        let state = site.state(request)?;
        found.in_tables = state.last.as_ref().map_or(0, |last| last.in_tables);
        match &state.last {
            Some(Last { before, is_cleared: true, .. }) => {
                found.cleared = true;
                found.add(site, compared(before, &state.snapshot, None), false);
            }
            Some(Last { before, keys, .. }) => {
                let sides = |key: &Vec<u8>| (of(before, key), of(&state.snapshot, key));
                found.add(site, keys.iter().map(sides).filter_map(Change::of), false);
            }
            None => {}
        }
    }
    Ok(Answer::json(&found))
}

/// Returns the differences between the state after the commit `at` and the present one, or those of
/// the keys after `after`.
pub(super) fn since(site: &Site, request: &Request) -> Result<Answer, Refused> {
    let (before, now) = (site.state(request)?, State::present(&site.store));
    let after = request.key("after")?;
    let mut found = Changes { upto: now.seq, ..Changes::default() };
    let changes = compared(&before.snapshot, &now.snapshot, after.as_deref());
    found.add(site, changes, after.is_some());
    Ok(Answer::json(&found))
}

#[derive(Default, Serialize)]
struct Changes {
    upto: Seq,
    time_us: Option<i64>,
    added: u64,
    changed: u64,
    removed: u64,
    cleared: bool,
    /// The number of changes in tables, which have no rows. Of a single commit only.
    in_tables: u64,
    rows: Vec<Row>,
    /// The last key of `rows`, if there are more.
    next: Option<String>,
}

#[derive(Serialize)]
struct Row {
    key: String,
    change: &'static str,
    before: Option<String>,
    after: Option<String>,
}

impl Changes {
    /// Adds changes: the first ones as rows, the others as numbers, unless only rows are wanted.
    fn add(&mut self, site: &Site, changes: impl Iterator<Item = Change>, only_rows: bool) {
        let mut len = 0;
        for Change { before, after } in changes {
            let (count, change) = match (&before, &after) {
                (None, _) => (&mut self.added, "added"),
                (_, None) => (&mut self.removed, "removed"),
                _ => (&mut self.changed, "changed"),
            };
            *count += 1;
            if self.rows.len() < CHANGES_MAX && len < PAGE_LEN_MAX {
                let preview = |entry: &Entry| text::preview_of(&entry.value_ref());
                let preview =
                    |side: &Option<Entry>| side.as_ref().filter(|_| site.shows_values).map(preview);
                let named = before.as_ref().or(after.as_ref()).map_or(&[][..], Entry::key);
                let row = Row {
                    key: key::show(named),
                    change,
                    before: preview(&before),
                    after: preview(&after),
                };
                len += row.key.len();
                self.rows.push(row);
            } else {
                self.next = self.rows.last().map(|row| row.key.clone());
                if only_rows {
                    return;
                }
            }
        }
    }
}

/// The entry of a key in two states, of which at least one has it.
struct Change {
    before: Option<Entry>,
    after: Option<Entry>,
}

impl Change {
    /// Returns the difference between two sides, if there is one.
    fn of((before, after): (Option<Entry>, Option<Entry>)) -> Option<Self> {
        let is_same = match (&before, &after) {
            (Some(a), Some(b)) => {
                a.bytes() == b.bytes() && a.value_ref().codec() == b.value_ref().codec()
            }
            (None, None) => true,
            _ => false,
        };
        (!is_same).then_some(Self { before, after })
    }
}

/// Returns the differences between two states in the order of their keys, after the key `start`.
fn compared(
    before: &Snapshot,
    after: &Snapshot,
    start: Option<&[u8]>,
) -> impl Iterator<Item = Change> {
    let start = start.map_or(Bound::Unbounded, Bound::Excluded);
    let entries = |state: &Snapshot| state.range((start, Bound::Unbounded)).peekable();
    let (mut before, mut after) = (entries(before), entries(after));
    let sides = move || {
        let order = match (before.peek(), after.peek()) {
            (Some(one), Some(other)) => one.key().cmp(other.key()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return None,
        };
        let one = if order.is_le() { before.next() } else { None };
        let other = if order.is_ge() { after.next() } else { None };
        Some((one, other))
    };
    iter::from_fn(sides).filter_map(Change::of)
}

/// Returns the entry of a key.
fn of(state: &Snapshot, key: &[u8]) -> Option<Entry> {
    state.first(key..).filter(|entry| *entry.key() == *key)
}

#[derive(Serialize)]
struct History {
    /// The last commit that was looked at.
    upto: Seq,
    total: u64,
    rows: VecDeque<Revision>,
}

/// A value that a key had.
#[derive(Serialize)]
struct Revision {
    seq: Seq,
    time_us: i64,
    removed: bool,
    len: usize,
    preview: Option<String>,
}

/// Returns the last changes of a key, all of them or those after the commit `after`.
pub(super) fn history(site: &Site, request: &Request) -> Result<Answer, Refused> {
    let after = site.acknowledged(request.number("after")?.unwrap_or_default())?;
    let present = State::present(&site.store);
    let space = present.space(request)?;
    let key = wanted(request, &space)?;
    let upto = present.seq;
    let mut found = History { upto, total: 0, rows: VecDeque::new() };
    site.ledger()?;
    let revisions = internals::history(&site.store, space.id(), &key);
    for revision in revisions.map_err(|error| failed(&error))? {
        let revision = revision.map_err(|error| failed(&error))?;
        if revision.seq() <= after || revision.seq() > upto {
            continue;
        }
        let entry = revision.entry();
        let preview = entry.filter(|_| site.shows_values);
        found.rows.push_back(Revision {
            seq: revision.seq(),
            time_us: time::to_us(revision.time()),
            removed: entry.is_none(),
            len: entry.map_or(0, |entry| entry.bytes().len()),
            preview: preview.map(|entry| text::preview_of(&entry.value_ref())),
        });
        found.total += 1;
        if found.rows.len() > REVISIONS_MAX {
            found.rows.pop_front();
        }
    }
    Ok(Answer::json(&found))
}

/// The maximum number of stretches on the time line.
const BUCKETS_MAX: usize = 300;
/// The maximum number of changes in an answer.
const CHANGES_MAX: usize = 200;
/// The maximum number of changes of one key in an answer.
const REVISIONS_MAX: usize = 500;
