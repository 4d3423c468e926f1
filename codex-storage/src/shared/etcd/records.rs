//! Records and large objects beside the log.

use std::time::Duration;

use serde_json::json;

use super::answer::{Found, bytes, entries};
use super::live::{Live, extend};
use super::session::is_absent;
use crate::error::Result;
use crate::shared::{RecordName, SharedError, Versioned};

impl Live {
    pub(super) fn record(&self, name: RecordName, timeout: Duration) -> Result<Option<Versioned>> {
        let body = json!({"key": self.record_key(name)});
        let answer = self.must("return a record", "/v3/kv/range", &body, timeout)?;
        let found = entries(&answer.value).next();
        Ok(found.map(|found| Versioned {
            version: found.changed(),
            bytes: found.value().unwrap_or_default(),
        }))
    }

    pub(super) fn set_record(
        &self,
        name: RecordName,
        was: Option<u64>,
        value: &[u8],
        timeout: Duration,
    ) -> Result<bool> {
        let (what, key) = ("replace a record", self.record_key(name));
        // A key that does not exist has the revision 0.
        let was = was.unwrap_or(0).to_string();
        let body = json!({
            "compare": [{"key": key, "target": "MOD", "mod_revision": was}],
            "success": [{"request_put": {"key": key, "value": bytes(value)}}],
            "failure": [{"request_range": {"key": key}}],
        });
        let answer = self.must(what, "/v3/kv/txn", &body, timeout)?;
        if answer.has_succeeded() || !answer.was_in_doubt {
            return Ok(answer.has_succeeded());
        }
        // An earlier try may have replaced it.
        match answer.found(0).next().and_then(Found::value) {
            Some(found) if found == value => Ok(true),
            _ => Err(SharedError::Away { what, waited: timeout }.into()),
        }
    }

    pub(super) fn put_piece(
        &self,
        object: &str,
        n: u32,
        piece: &[u8],
        timeout: Duration,
    ) -> Result<()> {
        self.image_fits(piece.len())?;
        let key = self.piece_key(object, n);
        let body = json!({
            "compare": [is_absent(&key)],
            "success": [{"request_put": {"key": key, "value": bytes(piece)}}],
        });
        self.must("store a piece", "/v3/kv/txn", &body, timeout).map(drop)
    }

    pub(super) fn piece(&self, object: &str, n: u32, timeout: Duration) -> Result<Option<Vec<u8>>> {
        let body = json!({"key": self.piece_key(object, n)});
        let answer = self.must("return a piece", "/v3/kv/range", &body, timeout)?;
        let found = entries(&answer.value).next();
        Ok(found.map(|found| found.value().unwrap_or_default()))
    }

    pub(super) fn objects(&self, timeout: Duration) -> Result<Vec<String>> {
        let mut range = self.keys.range("blob/");
        extend(&mut range, json!({"keys_only": true}));
        let answer = self.must("list its objects", "/v3/kv/range", &range, timeout)?;
        let beginning = format!("{}blob/", self.keys.prefix);
        let name = |key: Vec<u8>| {
            let key = String::from_utf8(key).ok()?;
            let (object, _) = key.strip_prefix(&beginning)?.rsplit_once('/')?;
            Some(object.to_owned())
        };
        let mut names: Vec<_> =
            entries(&answer.value).filter_map(|found| name(found.key()?)).collect();
        names.dedup();
        Ok(names)
    }

    pub(super) fn remove_object(&self, object: &str, timeout: Duration) -> Result<()> {
        let range = self.keys.range(&format!("blob/{object}/"));
        let body = json!({"success": [{"request_delete_range": range}]});
        self.must("remove an object", "/v3/kv/txn", &body, timeout).map(drop)
    }

    fn record_key(&self, name: RecordName) -> String {
        self.keys.of(match name {
            RecordName::Meta => "meta",
            RecordName::Image => "image",
        })
    }

    fn piece_key(&self, object: &str, n: u32) -> String {
        self.keys.of(&format!("blob/{object}/{n:08x}"))
    }
}
