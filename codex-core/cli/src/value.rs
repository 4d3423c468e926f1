//! Values as text: JSON as it is stored, all other bytes as hex digits.

use codex_core::{Codec, Error, ValueRef};
use serde::de::IgnoredAny;

use crate::Outcome;
use crate::failure::Failure;
use crate::out::{Cell, Record, quoted};
use crate::{json, key};

/// A value with the codec of its bytes.
#[derive(Clone, Copy)]
pub(crate) struct Shown<'a> {
    pub(crate) codec: &'static str,
    pub(crate) bytes: &'a [u8],
}

impl<'a> Shown<'a> {
    /// Returns the value of an entry.
    ///
    /// # Errors
    /// `UnknownCodec` if this build does not know the codec.
    pub(crate) fn of(value: &'a ValueRef) -> Outcome<Self> {
        let codec = match value.codec() {
            Some(Codec::Json) => JSON,
            Some(Codec::Bincode) => BINCODE,
            // Raw bytes and codecs of newer versions are told apart by the error of decoding them.
            _ => match value.decode::<IgnoredAny>() {
                Err(error @ Error::UnknownCodec { .. }) => return Err(error.into()),
                _ => RAW,
            },
        };
        Ok(Self { codec, bytes: value })
    }

    /// Returns a value in the form in which a record of a log has it: the number of its codec, then
    /// its bytes (docs/FORMAT.md, "Values").
    pub(crate) fn stored(bytes: &'a [u8]) -> Outcome<Self> {
        let codec = match bytes.first() {
            Some(0) => RAW,
            Some(1) => BINCODE,
            Some(2) => JSON,
            _ => {
                let text = "a value has a codec that this build does not know; use a newer build";
                return Err(Failure::Usage(text.to_owned()));
            }
        };
        Ok(Self { codec, bytes: bytes.get(1..).unwrap_or_default() })
    }

    /// Returns the text of a value that is JSON.
    pub(crate) fn json(&self) -> Option<&'a str> {
        if self.codec != JSON {
            return None;
        }
        std::str::from_utf8(self.bytes).ok().filter(|text| json::is_valid(text))
    }

    /// Returns one line for people: JSON, or hex digits with the codec of the bytes.
    pub(crate) fn line(&self) -> String {
        match self.json() {
            Some(text) => json::printable(text),
            None => format!("{} ({})", key::hex(self.bytes), self.codec),
        }
    }

    /// Returns the fields from which `codexdb import` makes the same value.
    pub(crate) fn fields(&self) -> Record {
        let text = std::str::from_utf8(self.bytes).ok();
        let value = match (self.json(), text) {
            // A line of output has no line break in it.
            (Some(json), _) if !json.contains(['\n', '\r']) => ("value", Cell::Json(json.into())),
            (_, Some(text)) if self.codec != BINCODE => ("text", Cell::Json(quoted(text))),
            _ => ("hex", Cell::Json(quoted(&key::hex(self.bytes)))),
        };
        vec![("codec", Cell::Text(self.codec.to_owned())), value]
    }
}

pub(crate) const RAW: &str = "raw";
pub(crate) const BINCODE: &str = "bincode";
pub(crate) const JSON: &str = "json";
