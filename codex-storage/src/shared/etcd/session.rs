//! Sessions, and the slots that they fill.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::answer::{Answer, Found, bytes, entries, number, text};
use super::gateway::{Failed, Why};
use super::live::Live;
use super::tail::Kept;
use crate::error::Result;
use crate::shared::{AppendError, Buried, Position, Session, SharedError, Slot};
use crate::sync::atomic::Ordering;
use crate::sync::thread;
use crate::vfs::{Entropy, OsEntropy};

/// The sessions that this engine has begun.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// The revisions that have created their keys.
    created: HashMap<Session, u64>,
    /// The lease of the last one.
    pub(super) lease: Option<String>,
}

impl Live {
    pub(super) fn begin_session(&self, timeout: Duration) -> Result<Session> {
        let what = "begin a session";
        let body = json!({"TTL": self.lease.as_secs().to_string()});
        let granted = self.gateway.call("/v3/lease/grant", &body, timeout);
        let granted = granted.map_err(|failed| self.error(what, timeout, failed))?;
        let lease = text(&granted.value, "ID").to_owned();
        let mut id = [0; 8];
        OsEntropy.fill(&mut id).map_err(|_| SharedError::Away { what, waited: Duration::ZERO })?;
        let session = Session(u64::from_le_bytes(id));
        let key = self.keys.session(session);
        let by = json!({"pid": std::process::id(), "version": env!("CARGO_PKG_VERSION")});
        let value = bytes(by.to_string().as_bytes());
        let body = json!({
            "compare": [is_absent(&key)],
            "success": [{"request_put": {"key": key, "value": value, "lease": lease}}],
            "failure": [{"request_range": {"key": key}}],
        });
        let answer = self.must(what, "/v3/kv/txn", &body, timeout)?;
        let created = if answer.has_succeeded() {
            answer.header().1
        } else {
            // An earlier try has created it, unless two nodes have drawn one number.
            match answer.found(0).next() {
                Some(found) if found.lease() == lease => found.created(),
                _ => return Err(SharedError::Away { what, waited: timeout }.into()),
            }
        };
        let mut sessions = self.sessions.lock();
        sessions.created.insert(session, created);
        sessions.lease = Some(lease);
        Ok(session)
    }

    pub(super) fn append(
        &self,
        slot: Slot,
        part: &[u8],
        timeout: Duration,
    ) -> Result<Position, AppendError> {
        self.fits(part.len()).map_err(|error| AppendError::Absent(error.into()))?;
        let answer = self.fill(slot, part, timeout)?;
        if !answer.has_succeeded() {
            let found = answer.found(0).next().ok_or(AppendError::Fenced)?;
            return Ok(Position(found.created()));
        }
        let position = Position(answer.header().1);
        let before = answer.found(0).next().map_or(0, Found::changed);
        self.tail.add_own(before, Kept { position, slot, part: part.into() }, self.now());
        Ok(position)
    }

    pub(super) fn bury(&self, slot: Slot, timeout: Duration) -> Result<Buried, AppendError> {
        let answer = self.fill(slot, &[], timeout)?;
        if answer.has_succeeded() {
            return Ok(Buried::Absent);
        }
        let found = answer.found(0).next().ok_or(AppendError::Fenced)?;
        // A value that is empty is left out: an earlier try has buried the slot.
        Ok(match found.value() {
            Some(part) if part.is_empty() => Buried::Absent,
            _ => Buried::Committed(Position(found.created())),
        })
    }

    /// Puts a part into a slot and moves the head, if the slot is free, the one before it is not,
    /// and the session goes on. The answer has the head before it, or the slot.
    fn fill(&self, slot: Slot, part: &[u8], timeout: Duration) -> Result<Answer, AppendError> {
        let (key, head) = (self.keys.slot(slot), self.keys.of("head"));
        let session = self.keys.session(slot.session);
        let created = self.sessions.lock().created.get(&slot.session).copied();
        // A session of another program has ended for this one: no key has this revision.
        let created = created.unwrap_or(u64::MAX >> 1).to_string();
        let mut compare = vec![
            is_absent(&key),
            json!({"key": session, "target": "CREATE", "create_revision": created}),
        ];
        if let Some(n) = slot.n.checked_sub(1) {
            // A cluster that was restored from an older state may lack the slot before, and a log
            // with a gap could not be read. If it was trimmed, a new session goes on.
            let before = self.keys.slot(Slot { n, ..slot });
            compare.push(json!({
                "key": before, "target": "CREATE", "result": "GREATER", "create_revision": "0",
            }));
        }
        let body = json!({
            "compare": compare,
            "success": [
                {"request_range": {"key": head, "keys_only": true}},
                {"request_put": {"key": key, "value": bytes(part)}},
                {"request_put": {"key": head}},
            ],
            "failure": [{"request_range": {"key": key}}],
        });
        let failed = match self.ask("/v3/kv/txn", &body, timeout) {
            Ok(answer) => return Ok(answer),
            Err(failed) => failed,
        };
        if let Why::Full = failed.why {
            // The transaction that reaches the limit of a member is applied, and yet refused.
            return match self.ask("/v3/kv/range", &json!({"key": key}), timeout) {
                Ok(found) if entries(&found.value).next().is_some() => Ok(found.into_response()),
                Ok(_) => Err(self.append_error(failed, timeout)),
                Err(_) => Err(AppendError::Unanswered),
            };
        }
        Err(self.append_error(failed, timeout))
    }

    fn append_error(&self, failed: Failed, timeout: Duration) -> AppendError {
        match failed {
            Failed { is_in_doubt: true, .. } => AppendError::Unanswered,
            Failed { why: Why::Refused(SharedError::RolledBack { .. }), .. } => {
                AppendError::Unanswered
            }
            failed => AppendError::Absent(self.error("append", timeout, failed).into()),
        }
    }

    /// Keeps the session alive, and asks for the size of the log.
    fn keep(&self) {
        let is_open = |pause| self.tail.pause(&|| self.now(), pause);
        let mut kept = self.now();
        while is_open(TICK) {
            if self.has_written.swap(false, Ordering::Relaxed) {
                let _ = self.usage(TICK);
            }
            let lease = self.sessions.lock().lease.clone();
            let (Some(lease), true) = (lease, self.now().saturating_sub(kept) >= self.lease / 3)
            else {
                continue;
            };
            let sent = self.gateway.call("/v3/lease/keepalive", &json!({"ID": lease}), TICK);
            let Ok(answer) = sent else { continue };
            kept = self.now();
            let left = answer.value.get("result").map_or(0, |result| number(result, "TTL"));
            let mut sessions = self.sessions.lock();
            if left == 0 && sessions.lease.as_ref() == Some(&lease) {
                // The session is over. The next append finds that out.
                sessions.lease = None;
            }
        }
    }
}

/// Starts the thread that keeps the session alive.
pub(super) fn start(live: &Arc<Live>) -> io::Result<()> {
    let live = live.clone();
    thread::spawn("codexdb-lease", move || live.keep()).map(drop)
}

/// Returns the comparison that a key does not exist.
pub(super) fn is_absent(key: &str) -> Value {
    json!({"key": key, "target": "CREATE", "create_revision": "0"})
}

/// The pause between two looks at what is due.
const TICK: Duration = Duration::from_secs(1);
