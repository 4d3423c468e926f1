//! The text of a snapshot: a map from keys to the base64 of JSON texts, with its SHA-256 beside it.

use std::fmt;

use base64ct::{Base64, Encoding as _};
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::{Change, Fault};
use crate::json;

/// The entries of a snapshot.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    pub(super) changes: Vec<Change>,
    /// Keys whose value is `null` instead of a text. They have no value.
    pub(super) without_value: Vec<String>,
    /// Whether the file has a checksum that the entries do not match.
    pub(super) is_unverified: bool,
}

/// Reads the text of a snapshot. If `salvage`, the entries may have another checksum.
///
/// # Errors
/// `Damaged` if the text is not that of a snapshot, or does not match its checksum.
pub(super) fn read(text: &[u8], salvage: bool) -> Result<Snapshot, Fault> {
    let json = |error: serde_json::Error| Fault::Damaged(format!("its JSON is not valid: {error}"));
    let outer: Outer<'_> = serde_json::from_slice(text).map_err(json)?;
    let (map, is_unverified) = match (&outer.checksum, outer.data) {
        (Some(checksum), Some(data)) if !checksum.is_empty() && data.get().starts_with('{') => {
            let found = crate::key::hex(&Sha256::digest(json::compact(data.get())));
            let is_other = found != *checksum;
            if is_other && !salvage {
                return Err(Fault::Damaged("its checksum does not match its entries".to_owned()));
            }
            (data.get(), is_other)
        }
        // Older files are the map alone, which has no checksum.
        _ => (outer.whole.get(), false),
    };
    let map: Entries = serde_json::from_str(map).map_err(json)?;
    let mut snapshot = Snapshot { is_unverified, ..Snapshot::default() };
    for (key, value) in map.0 {
        let Some(value) = value else {
            snapshot.without_value.push(key);
            continue;
        };
        let text = Base64::decode_vec(&value).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let Some(value) = text else {
            let key = crate::key::show(key.as_bytes());
            return Err(Fault::Damaged(format!("the value of {key} is not the base64 of a text")));
        };
        snapshot.changes.push(Change::Set { key, value });
    }
    Ok(snapshot)
}

/// The members of the outer object. Names are compared without case, as the Go program does.
struct Outer<'a> {
    whole: &'a RawValue,
    checksum: Option<String>,
    data: Option<&'a RawValue>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Outer<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let whole = <&RawValue>::deserialize(deserializer)?;
        let members: Members<'a> = serde_json::from_str(whole.get()).map_err(D::Error::custom)?;
        let mut outer = Self { whole, checksum: None, data: None };
        // The last of several members with one name counts.
        for (name, value) in members.0 {
            if name.eq_ignore_ascii_case("checksum") {
                outer.checksum = serde_json::from_str(value.get()).ok();
            } else if name.eq_ignore_ascii_case("data") {
                outer.data = Some(value);
            }
        }
        Ok(outer)
    }
}

/// The members of an object, in order, with their exact texts.
pub(super) struct Members<'a>(pub(super) Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Pairs(Vec::new())).map(Members)
    }
}

/// The keys of a map and the base64 of their values, in order. A key can occur more than once.
struct Entries(Vec<(String, Option<String>)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Pairs(Vec::new())).map(Entries)
    }
}

/// Collects the members of an object.
struct Pairs<V>(Vec<(String, V)>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for Pairs<V> {
    type Value = Vec<(String, V)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self::Value, A::Error> {
        while let Some(pair) = map.next_entry()? {
            self.0.push(pair);
        }
        Ok(self.0)
    }
}
