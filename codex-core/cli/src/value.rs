//! Values as text: JSON as it is stored, values of a known or guessed type as JSON, bytes that are
//! text as text, and all other bytes as hex digits.

use codex_core::{Codec, Error, ValueRef};
use serde::de::IgnoredAny;

use crate::Outcome;
use crate::failure::Failure;
use crate::out::{Cell, Record, object, quoted};
use crate::types::{Type, guess, is_text};
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

    /// Returns the text of raw bytes that are text.
    pub(crate) fn text(&self) -> Option<&'a str> {
        if self.codec != RAW {
            return None;
        }
        std::str::from_utf8(self.bytes).ok().filter(|text| is_text(text))
    }

    /// Returns a guess at the type of a value that does not name it, and the value as JSON.
    pub(crate) fn guess(&self) -> Option<(Type, String)> {
        if self.codec != BINCODE {
            return None;
        }
        let of = guess(self.bytes)?;
        let json = of.read(self.bytes).ok()?;
        Some((of, json))
    }

    /// Returns one line for people. A value that is not JSON is read as a value of the type `of` if
    /// one is given.
    pub(crate) fn line(&self, of: Option<&Type>) -> String {
        if let Some(text) = self.json() {
            return json::printable(text);
        }
        let hex = || key::hex(self.bytes);
        match (of.map(|of| of.read(self.bytes)), of) {
            (Some(Ok(text)), _) => json::printable(&text),
            (Some(Err(_)), Some(of)) => format!("{} ({}, not {of})", hex(), self.codec),
            _ => match (self.text(), self.guess()) {
                (Some(text), _) => format!("{} ({})", json::printable(&quoted(text)), self.codec),
                (_, Some((of, text))) => format!("{} (guess: {of})", json::printable(&text)),
                _ => format!("{} ({})", hex(), self.codec),
            },
        }
    }

    /// Returns the fields of a value for programs, with its reading as a value of the type `of`, or
    /// of a guessed type.
    pub(crate) fn fields_as(&self, of: Option<&Type>) -> Record {
        let mut fields = self.fields();
        let read = match of {
            Some(of) if self.codec != JSON => {
                of.read(self.bytes).ok().map(|json| ("as", of.clone(), json))
            }
            Some(_) => None,
            None => self.guess().map(|(of, json)| ("guess", of, json)),
        };
        if let Some((name, of, json)) = read {
            let record = vec![("type", Cell::Text(of.to_string())), ("value", Cell::Json(json))];
            fields.push((name, Cell::Json(object(&record))));
        }
        fields
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
