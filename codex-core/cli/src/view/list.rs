//! Lists of keys that a browser scrolls through: any page of a list is found without reading those
//! before it.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

use codex_core::{Entry, Key};
use serde::Serialize;

use crate::space::Space;
use crate::time;
use crate::view::answer::{Answer, Refused};
use crate::view::request::Request;
use crate::view::site::{Site, locked};
use crate::view::state::State;
use crate::view::text;
use crate::view::value::wanted;

/// The lists that were made last.
#[derive(Default)]
pub(super) struct Lists {
    made: u64,
    recent: VecDeque<Arc<List>>,
}

/// The keys of one state that a query selects.
struct List {
    id: u64,
    state: Arc<State>,
    query: Query,
    total: u64,
    /// Each key at a position that is a multiple of `STRIDE`.
    marks: Vec<Key>,
}

/// A selection of keys.
#[derive(Debug)]
pub(super) struct Query {
    space: Space,
    prefix: Vec<u8>,
    from: Vec<u8>,
    to: Option<Vec<u8>>,
    /// Keys that contain these bytes. ASCII letters are the same in both cases.
    filter: Vec<u8>,
}

impl Query {
    /// Returns the selection that the parameters of a request describe.
    fn of(request: &Request, space: Space) -> Result<Self, Refused> {
        let refused = |why: String| Answer::refuse(400, &why);
        let typed = |name| {
            let key = request.typed(name)?.map(|key| space.typed(&key)).transpose();
            key.map_err(refused)
        };
        let prefix = request.typed("prefix")?.map(|key| space.prefix(&key)).transpose();
        Ok(Self {
            prefix: prefix.map_err(refused)?.unwrap_or_default(),
            from: typed("from")?.unwrap_or_default(),
            to: typed("to")?,
            filter: request.key("filter")?.unwrap_or_default(),
            space,
        })
    }

    /// Returns the selected entries from the key `start` on.
    fn entries(&self, state: &State, start: &[u8]) -> impl Iterator<Item = Entry> {
        let start = start.max(&self.prefix).max(&self.from);
        let entries = self.space.scan(&state.snapshot, (Bound::Included(start), Bound::Unbounded));
        let is_before = |entry: &Entry| {
            let key = entry.key();
            key.starts_with(&self.prefix) && self.to.as_ref().is_none_or(|to| key < &**to)
        };
        entries.take_while(is_before).filter(|entry| self.is_found(entry.key()))
    }

    fn is_found(&self, key: &[u8]) -> bool {
        let Some(first) = self.filter.first() else { return true };
        let key = self.space.searched(key);
        let starts = key.windows(self.filter.len());
        // Most positions differ in the first byte.
        starts
            .filter(|part| part.first().is_some_and(|byte| byte.eq_ignore_ascii_case(first)))
            .any(|part| part.eq_ignore_ascii_case(&self.filter))
    }
}

#[derive(Serialize)]
struct Made {
    list: u64,
    total: u64,
    seq: u64,
    /// The position of the key that was asked for, or of the next one.
    pos: u64,
}

#[derive(Serialize)]
struct Page {
    start: u64,
    rows: Vec<Row>,
}

/// An entry in a list.
#[derive(Serialize)]
pub(super) struct Row {
    pub(super) key: String,
    pub(super) len: usize,
    codec: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) preview: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_us: Option<i64>,
}

impl Row {
    pub(super) fn of(site: &Site, space: &Space, entry: &Entry) -> Self {
        let value = entry.value_ref();
        Self {
            key: space.text(entry.key()),
            len: value.len(),
            codec: text::codec(&value),
            preview: site.shows_values.then(|| text::preview_of(&value)),
            expires_us: entry.expires_at().map(time::to_us),
        }
    }
}

/// Makes a list. The keys are read once, to count them.
pub(super) fn make(site: &Site, request: &Request) -> Result<Answer, Refused> {
    let state = site.state(request)?;
    let query = Query::of(request, state.space(request)?)?;
    // A key of another table stands nowhere.
    let key = wanted(request, &query.space).unwrap_or_default();
    let (mut total, mut pos, mut marks) = (0_u64, 0, Vec::new());
    for entry in query.entries(&state, b"") {
        if total.is_multiple_of(STRIDE) {
            marks.push(entry.clone().into_parts().0);
        }
        pos += u64::from(*entry.key() < *key);
        total += 1;
    }
    let seq = state.seq;
    let mut lists = locked(&site.lists);
    lists.made += 1;
    let id = lists.made;
    lists.recent.push_back(Arc::new(List { id, state, query, total, marks }));
    if lists.recent.len() > LISTS_MAX {
        lists.recent.pop_front();
    }
    Ok(Answer::json(&Made { list: id, total, seq, pos }))
}

/// Returns rows of a list, at most as many as were asked for.
pub(super) fn page(site: &Site, request: &Request) -> Result<Answer, Refused> {
    let (id, start) = (request.number("list")?, request.number("start")?.unwrap_or_default());
    let count = request.number("count")?.unwrap_or(ROWS_MAX).min(ROWS_MAX);
    let list = locked(&site.lists).recent.iter().find(|list| Some(list.id) == id).cloned();
    let list = list.ok_or_else(|| Answer::refuse(410, "the list is no longer kept"))?;
    let mut rows = Vec::new();
    let mark = usize::try_from(start / STRIDE).ok().and_then(|at| list.marks.get(at));
    if let Some(mark) = mark.filter(|_| start < list.total) {
        let entries = list.query.entries(&list.state, mark);
        let skipped = usize::try_from(start % STRIDE).unwrap_or_default();
        let mut len = 0;
        for entry in entries.skip(skipped).take(usize::try_from(count).unwrap_or_default()) {
            let row = Row::of(site, &list.query.space, &entry);
            len += row.key.len() + row.preview.as_ref().map_or(0, String::len);
            rows.push(row);
            // Keys can be long. The browser asks for the rest.
            if len > PAGE_LEN_MAX {
                break;
            }
        }
    }
    Ok(Answer::json(&Page { start, rows }))
}

/// The number of keys between two marks of a list.
const STRIDE: u64 = 256;
/// The number of lists that are kept. A list keeps the entries of its state in memory.
const LISTS_MAX: usize = 8;
/// The maximum number of rows in an answer.
pub(super) const ROWS_MAX: u64 = 256;
/// The length of the texts of an answer after which no row is added.
pub(super) const PAGE_LEN_MAX: usize = 256 << 10;
