//! Reading the log, and removing its beginning.

use std::time::Duration;

use serde_json::{Value, json};

use super::answer::{Found, bytes};
use super::live::{Live, extend};
use super::tail::Reading;
use crate::error::Result;
use crate::shared::{Entry, PartSink, Position, SharedError, Slot};

impl Live {
    pub(super) fn read(&self, after: Position, sink: &mut PartSink<'_>) -> Result<Position> {
        match self.tail.after(after) {
            Reading::Entries(entries, upto) => {
                for kept in entries {
                    let entry =
                        Entry { position: kept.position, slot: kept.slot, part: &kept.part };
                    // What the sink does not take is read again from the log itself.
                    sink(entry).inspect_err(|_| self.tail.drop_all())?;
                }
                Ok(upto)
            }
            Reading::Elsewhere => self.read_range(after, sink),
        }
    }

    /// Reads the entries after `after` as the cluster has them now.
    fn read_range(&self, after: Position, sink: &mut PartSink<'_>) -> Result<Position> {
        let mut log = self.keys.range("log/");
        let from = after.0.saturating_add(1).to_string();
        extend(
            &mut log,
            json!({
                "keys_only": true, "limit": LIST_MAX.to_string(), "min_mod_revision": from,
                "sort_target": "MOD", "sort_order": "ASCEND",
            }),
        );
        let body = json!({"success": [self.get_trimmed(), {"request_range": log}]});
        let answer = self.must("pass entries", "/v3/kv/txn", &body, TRY)?;
        let (_, revision) = answer.header();
        if revision < after.0 {
            let head = Position(revision);
            return Err(SharedError::RolledBack { applied: after, head }.into());
        }
        check_trimmed(answer.found(0), after)?;
        let listed: Vec<_> = answer.found(1).collect();
        let is_whole = listed.len() < LIST_MAX;
        let named: Vec<_> = listed.into_iter().filter_map(|found| self.keys.entry(found)).collect();
        let last = named.last().map_or(after, |(position, _)| *position);
        let (mut rest, mut count) = (named.as_slice(), COUNT_MAX / 8);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(count.min(rest.len()));
            let len = self.pass(after, now, sink)?;
            count = if len > LEN_TARGET { (count / 4).max(1) } else { (count * 2).min(COUNT_MAX) };
            rest = later;
        }
        if !is_whole {
            return Ok(last);
        }
        self.tail.begin(revision);
        Ok(Position(revision))
    }

    /// Passes the entries in these slots. Returns their length.
    fn pass(
        &self,
        after: Position,
        named: &[(Position, Slot)],
        sink: &mut PartSink<'_>,
    ) -> Result<usize> {
        let get =
            |(_, slot): &(Position, Slot)| json!({"request_range": {"key": self.keys.slot(*slot)}});
        let mut gets = vec![self.get_trimmed()];
        gets.extend(named.iter().map(get));
        let body = json!({ "success": gets });
        let answer = self.must("pass entries", "/v3/kv/txn", &body, TRY)?;
        let mut len = 0;
        for (n, (position, slot)) in named.iter().enumerate() {
            let found = answer.found(n + 1).next();
            let Some(part) = found.filter(|found| found.changed() == position.0) else {
                // The key was removed after it was listed, which only a trim may do.
                check_trimmed(answer.found(0), after)?;
                let (session, expected) = (slot.session, slot.n);
                return Err(SharedError::Gap { session, expected, found: expected + 1 }.into());
            };
            let part = part.value().unwrap_or_default();
            len += part.len();
            sink(Entry { position: *position, slot: *slot, part: &part })?;
        }
        Ok(len)
    }

    pub(super) fn trim(&self, upto: Position, timeout: Duration) -> Result<()> {
        let what = "remove entries";
        let end = self.now().saturating_add(timeout);
        // Order: the mark before the removal. Whoever misses an entry finds the mark.
        while !self.mark_trimmed(upto, timeout)? {}
        loop {
            let mut log = self.keys.range("log/");
            extend(
                &mut log,
                json!({
                    "keys_only": true, "limit": LIST_MAX.to_string(),
                    "max_mod_revision": upto.0.to_string(),
                }),
            );
            let body = json!({"success": [{"request_range": log}]});
            let answer = self.must(what, "/v3/kv/txn", &body, timeout)?;
            let listed = answer.found(0).filter(|found| found.changed() <= upto.0);
            let listed: Vec<_> = listed.collect();
            if listed.is_empty() {
                return Ok(());
            }
            for some in listed.chunks(REMOVED_MAX) {
                let left = end.saturating_sub(self.now());
                if left.is_zero() {
                    return Err(SharedError::Away { what, waited: timeout }.into());
                }
                self.remove(some, what, left)?;
            }
        }
    }

    /// Removes keys that have not changed since they were listed.
    fn remove(&self, listed: &[Found<'_>], what: &'static str, timeout: Duration) -> Result<()> {
        let keys = || listed.iter().filter_map(|found| Some((bytes(&found.key()?), found)));
        let is_same = |(key, found): (String, &Found<'_>)| {
            let changed = found.changed().to_string();
            json!({"key": key, "target": "MOD", "mod_revision": changed})
        };
        let removal =
            |(key, _): (String, &Found<'_>)| json!({"request_delete_range": {"key": key}});
        let is_same: Vec<_> = keys().map(is_same).collect();
        let removals: Vec<_> = keys().map(removal).collect();
        let body = json!({"compare": is_same, "success": removals});
        self.must(what, "/v3/kv/txn", &body, timeout).map(drop)
    }

    /// Records that the log is trimmed up to `upto`. Returns false if another node has just
    /// recorded another position.
    fn mark_trimmed(&self, upto: Position, timeout: Duration) -> Result<bool> {
        let what = "remove entries";
        let body = json!({"success": [self.get_trimmed()]});
        let answer = self.must(what, "/v3/kv/txn", &body, timeout)?;
        let found = answer.found(0).next();
        if found.and_then(position_in).is_some_and(|trimmed| trimmed >= upto) {
            return Ok(true);
        }
        let changed = found.map_or(0, Found::changed).to_string();
        let (key, value) = (self.keys.of("trimmed"), bytes(upto.0.to_string().as_bytes()));
        let body = json!({
            "compare": [{"key": key, "target": "MOD", "mod_revision": changed}],
            "success": [{"request_put": {"key": key, "value": value}}],
        });
        Ok(self.must(what, "/v3/kv/txn", &body, timeout)?.has_succeeded())
    }

    fn get_trimmed(&self) -> Value {
        json!({"request_range": {"key": self.keys.of("trimmed")}})
    }
}

/// Fails if the log was trimmed after the position `after`.
fn check_trimmed<'a>(found: impl Iterator<Item = Found<'a>>, after: Position) -> Result<()> {
    let mut positions = found.filter_map(position_in);
    match positions.next().filter(|trimmed| *trimmed > after) {
        Some(trimmed) => Err(SharedError::Trimmed { applied: after, trimmed }.into()),
        None => Ok(()),
    }
}

/// Returns the position that is the value of a key.
fn position_in(found: Found<'_>) -> Option<Position> {
    String::from_utf8(found.value()?).ok()?.parse().ok().map(Position)
}

/// The maximum time for one answer.
const TRY: Duration = Duration::from_secs(5);
/// The most entries that are listed at once.
const LIST_MAX: usize = 10_000;
/// The most entries that are read at once, and the bytes after which it is fewer. A transaction has
/// at most 128 operations.
const COUNT_MAX: usize = 127;
const LEN_TARGET: usize = 2 << 20;
/// The most entries that one transaction removes.
const REMOVED_MAX: usize = 120;
