//! Keys, values and numbers in the requests and answers of the gateway, and what its refusals mean.

use base64ct::{Base64, Encoding};
use serde_json::{Value, json};

use crate::shared::{EngineFault, Position, Session, Slot};

/// An answer: bytes are in base64 in it, and numbers of 64 bits are texts. A field that is empty or
/// zero is left out.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) value: Value,
    /// Whether an earlier try of the same request may have been done.
    pub(super) was_in_doubt: bool,
}

impl Answer {
    /// Returns the id of the cluster and the revision of its store.
    pub(super) fn header(&self) -> (u64, u64) {
        let header = self.value.get("header").unwrap_or(&Value::Null);
        (number(header, "cluster_id"), number(header, "revision"))
    }

    /// Returns whether the comparisons of a transaction held.
    pub(super) fn has_succeeded(&self) -> bool {
        self.value.get("succeeded").and_then(Value::as_bool).unwrap_or(false)
    }

    /// Returns the answer to a range as that of a transaction that has not succeeded and has made
    /// this range.
    pub(super) fn into_response(self) -> Self {
        let Self { value, was_in_doubt } = self;
        let response = json!({"response_range": value});
        Self { value: json!({ "responses": [response] }), was_in_doubt }
    }

    /// Returns the entries that the range number `n` of a transaction found.
    pub(super) fn found(&self, n: usize) -> impl Iterator<Item = Found<'_>> {
        let range = self.value.get("responses").and_then(|all| all.get(n));
        entries(range.and_then(|one| one.get("response_range")).unwrap_or(&Value::Null))
    }
}

/// A key of the cluster, with its value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found<'a>(pub(super) &'a Value);

impl Found<'_> {
    pub(super) fn key(self) -> Option<Vec<u8>> {
        Base64::decode_vec(text(self.0, "key")).ok()
    }

    pub(super) fn value(self) -> Option<Vec<u8>> {
        Base64::decode_vec(text(self.0, "value")).ok()
    }

    /// Returns the revision of the last change.
    pub(super) fn changed(self) -> u64 {
        number(self.0, "mod_revision")
    }

    pub(super) fn created(self) -> u64 {
        number(self.0, "create_revision")
    }

    pub(super) fn lease(&self) -> &str {
        text(self.0, "lease")
    }
}

/// Returns the entries of the answer to a range.
pub(super) fn entries(range: &Value) -> impl Iterator<Item = Found<'_>> {
    range.get("kvs").and_then(Value::as_array).into_iter().flatten().map(Found)
}

/// Returns the field `name`, or an empty text.
pub(super) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Returns the field `name`, or 0.
pub(super) fn number(value: &Value, name: &str) -> u64 {
    match value.get(name) {
        Some(Value::String(text)) => text.parse().unwrap_or(0),
        Some(value) => value.as_u64().unwrap_or(0),
        None => 0,
    }
}

/// Returns bytes as a request has them.
pub(super) fn bytes(bytes: &[u8]) -> String {
    Base64::encode_string(bytes)
}

/// The keys of a store.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// The beginning of all keys, with the `/` after it.
    pub(super) prefix: String,
}

impl Keys {
    /// Returns a key, in base64.
    pub(super) fn of(&self, name: &str) -> String {
        bytes(format!("{}{name}", self.prefix).as_bytes())
    }

    /// Returns the range of all keys that begin with `name`, which ends with a `/`.
    pub(super) fn range(&self, name: &str) -> Value {
        let begin = format!("{}{name}", self.prefix);
        let end = format!("{}0", begin.trim_end_matches('/'));
        json!({"key": bytes(begin.as_bytes()), "range_end": bytes(end.as_bytes())})
    }

    pub(super) fn slot(&self, slot: Slot) -> String {
        self.of(&format!("log/{:016x}/{:016x}", slot.session.0, slot.n))
    }

    pub(super) fn session(&self, session: Session) -> String {
        self.of(&format!("session/{:016x}", session.0))
    }

    /// Returns the slot that a key names, and its position.
    pub(super) fn entry(&self, found: Found<'_>) -> Option<(Position, Slot)> {
        let key = String::from_utf8(found.key()?).ok()?;
        let names = key.strip_prefix(&self.prefix)?.strip_prefix("log/")?;
        let (session, n) = names.split_once('/')?;
        let hex = |text: &str| u64::from_str_radix(text, 16).ok().filter(|_| text.len() == 16);
        let slot = Slot { session: Session(hex(session)?), n: hex(n)? };
        Some((Position(found.changed()), slot))
    }
}

/// What an answer means that is no success.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The request may be done.
    InDoubt(String),
    /// Nothing was done, and a later try may succeed.
    Busy(String),
    /// The member does not know the token.
    NoToken,
    /// There is no room.
    Full,
    /// The revision was compacted.
    Compacted,
    /// Nothing was done, and a later try will not succeed either.
    Definite(EngineFault, String),
}

impl Refusal {
    /// Returns what an answer with this status and this body means.
    pub(super) fn of(status: u16, body: &Value) -> Self {
        let said = match text(body, "message") {
            "" => text(body, "error"),
            said => said,
        };
        let code = number(body, "code");
        let has = |part: &str| said.contains(part);
        match (status, code) {
            _ if has("database space exceeded") => Self::Full,
            _ if has("has been compacted") => Self::Compacted,
            (401, _) | (_, UNAUTHENTICATED) => Self::NoToken,
            // The token is from before a change of users or roles.
            _ if has("revision of auth store is old") => Self::NoToken,
            _ if has("authentication failed") => Self::Definite(
                EngineFault::Password,
                "the user or the password is wrong; check both".to_owned(),
            ),
            _ if has("authentication is not enabled") => Self::Definite(
                EngineFault::Password,
                "the cluster has no users: leave out `user`, or have its operator turn \
                 authentication on"
                    .to_owned(),
            ),
            _ if has("user name is empty") => Self::Definite(
                EngineFault::Password,
                "the cluster asks for a user: name one with `user`".to_owned(),
            ),
            _ if has("CommonName") => Self::Definite(
                EngineFault::CommonName,
                "the certificate of this program has a common name, which etcd refuses once \
                 authentication is on; use a certificate without one (`-subj /`), and `user`"
                    .to_owned(),
            ),
            (403, _) | (_, PERMISSION_DENIED) => Self::Definite(
                EngineFault::Denied,
                "the user may not read and write all keys of the prefix; grant its role \
                 `readwrite` on it (`etcdctl role grant-permission ROLE --prefix=true readwrite \
                 PREFIX/`)"
                    .to_owned(),
            ),
            _ if has("request is too large") || has("larger than max") => Self::Definite(
                EngineFault::TooLarge,
                "the member refuses requests of this length; have its operator leave \
                 `--max-request-bytes` at 1.5 MiB or above"
                    .to_owned(),
            ),
            (429, _) => Self::Busy(said.to_owned()),
            (404, _) if code == 0 || has("Not Found") => Self::Definite(
                EngineFault::Version,
                "there is no gateway of etcd below /v3; name a member of etcd 3.4 or later"
                    .to_owned(),
            ),
            (400..500, _) => Self::Definite(
                EngineFault::Refused,
                format!("the member refuses the request ({status}: {said:?})"),
            ),
            _ => Self::InDoubt(format!("the member answers {status}: {said:?}")),
        }
    }
}

/// The codes of gRPC for a token that is not known, and for a missing permission.
const UNAUTHENTICATED: u64 = 16;
const PERMISSION_DENIED: u64 = 7;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Found, Keys, Position, Refusal, Session, Slot};

    /// Answers of etcd 3.4.23: the status, the code if it is in JSON, and the text.
    #[test]
    fn each_refusal_of_a_member_has_its_meaning() {
        let common_name = "CommonName of client sending a request against gateway will be ignored \
                           and not used as expected";
        let cases = [
            (401, 16, "etcdserver: invalid auth token", "NoToken"),
            (400, 3, "etcdserver: revision of auth store is old", "NoToken"),
            (400, 3, "etcdserver: authentication failed, invalid user ID or password", "Password"),
            (412, 9, "etcdserver: authentication is not enabled", "Password"),
            (400, 3, "etcdserver: user name is empty", "Password"),
            (403, 7, "etcdserver: permission denied", "Denied"),
            (400, 0, common_name, "CommonName"),
            (404, 0, "Not Found", "Version"),
            (400, 3, "etcdserver: request is too large", "TooLarge"),
            (429, 8, "etcdserver: mvcc: database space exceeded", "Full"),
            (429, 8, "etcdserver: too many requests", "Busy"),
            (400, 11, "etcdserver: mvcc: required revision has been compacted", "Compacted"),
            (400, 3, "etcdserver: duplicate key given in txn request", "Refused"),
            (500, 2, "context deadline exceeded", "InDoubt"),
            (503, 14, "etcdserver: no leader", "InDoubt"),
        ];
        for (status, code, said, expected) in cases {
            let body = match code {
                0 => json!({ "error": said }),
                code => json!({"error": said, "message": said, "code": code}),
            };
            let found = match Refusal::of(status, &body) {
                Refusal::Definite(fault, _) => format!("{fault:?}"),
                other => format!("{other:?}"),
            };
            assert_eq!(found.split('(').next(), Some(expected), "{status} {said}");
        }
    }

    #[test]
    fn a_key_names_its_slot() {
        let keys = Keys { prefix: "orders/".to_owned() };
        let slot = Slot { session: Session(0xab), n: 7 };
        let entry = |key: String| {
            let found = json!({"key": key, "mod_revision": "12"});
            keys.entry(Found(&found))
        };
        assert_eq!(entry(keys.slot(slot)), Some((Position(12), slot)));
        for other in ["head", "log/ab/7", "log/00000000000000ab", "log/00000000000000ab/7"] {
            assert_eq!(entry(keys.of(other)), None, "{other}");
        }
    }
}
