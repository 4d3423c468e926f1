//! The words of the options, for configuration files and metrics: `Display`, `FromStr` and, with
//! the feature `serde`, `Serialize` and `Deserialize` as the same text.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::pack::Compression;
use crate::storage::{Anchor, Durability, Form};

/// The error of a text that names no value of a type. Its text lists the known ones.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no {what}; known: {known}")]
pub struct ParseError {
    what: &'static str,
    found: String,
    known: &'static str,
}

impl ParseError {
    /// Returns the error for the text `found`. `what` is the name of the type, and `known` lists
    /// its values.
    #[doc(hidden)]
    pub fn new(what: &'static str, found: &str, known: &'static str) -> Self {
        Self { what, found: found.to_owned(), known }
    }
}

impl fmt::Debug for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ParseError: {self}")
    }
}

/// Implements `Serialize` and `Deserialize` of a type as its `Display` text.
#[cfg(feature = "serde")]
#[doc(hidden)]
#[macro_export]
macro_rules! serde_as_text {
    ($($type:ty),*) => {$(
        impl ::serde::Serialize for $type {
            fn serialize<S: ::serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $type {
            fn deserialize<D: ::serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = <::std::string::String as ::serde::Deserialize>::deserialize(from)?;
                text.parse().map_err(::serde::de::Error::custom)
            }
        }
    )*};
}

#[cfg(feature = "serde")]
serde_as_text!(Form, Compression, Durability, Anchor);

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wal => "wal",
            Self::Snapshot => "snapshot",
            Self::Ledger => "ledger",
        })
    }
}

/// Reads the text of `Display`.
impl FromStr for Form {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "wal" => Ok(Self::Wal),
            "snapshot" => Ok(Self::Snapshot),
            "ledger" => Ok(Self::Ledger),
            _ => Err(ParseError::new("form", text, "wal, snapshot, ledger")),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
        })
    }
}

/// Reads the text of `Display`.
impl FromStr for Compression {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "none" => Ok(Self::None),
            "lz4" => Ok(Self::Lz4),
            _ => Err(ParseError::new("compression", text, "none, lz4")),
        }
    }
}

/// `sync`, `os`, or `interval:` and a whole number of `s`, `ms`, `us` or `ns`.
///
/// ```
/// use codex_storage::storage::Durability;
///
/// let level: Durability = "interval:100ms".parse()?;
/// assert_eq!(level, Durability::Interval(std::time::Duration::from_millis(100)));
/// assert_eq!(level.to_string(), "interval:100ms");
/// # Ok::<(), codex_storage::ParseError>(())
/// ```
impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let interval = match self {
            Self::Sync => return f.write_str("sync"),
            Self::Os => return f.write_str("os"),
            Self::Interval(interval) => interval.as_nanos(),
        };
        // The largest unit that divides the interval. The last one divides each.
        let divides = |unit: &&(&str, u128)| interval.is_multiple_of(unit.1);
        let (unit, nanos) = UNITS.iter().find(divides).copied().unwrap_or(("ns", 1));
        write!(f, "interval:{}{unit}", interval / nanos)
    }
}

/// Reads the text of `Display`.
impl FromStr for Durability {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let known = "sync, os, interval:<number><s|ms|us|ns>";
        let unknown = || ParseError::new("durability", text, known);
        match text {
            "sync" => Ok(Self::Sync),
            "os" => Ok(Self::Os),
            _ => text
                .strip_prefix("interval:")
                .and_then(interval)
                .map(Self::Interval)
                .ok_or_else(unknown),
        }
    }
}

/// Returns the interval in `text`, such as `100ms`.
fn interval(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, nanos) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let nanos = number.parse::<u128>().ok()?.checked_mul(*nanos)?;
    let seconds = u64::try_from(nanos / NANOS).ok()?;
    let rest = u32::try_from(nanos % NANOS).ok()?;
    Some(Duration::new(seconds, rest))
}

/// The nanoseconds of a second.
const NANOS: u128 = 1_000_000_000;

/// The units of an interval, in nanoseconds, from the largest to the smallest.
const UNITS: [(&str, u128); 4] = [("s", NANOS), ("ms", 1_000_000), ("us", 1_000), ("ns", 1)];

/// `<store id>.<seq>.<value>`, with the id and the value in hexadecimal digits.
impl fmt::Display for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut hex = |bytes: &[u8]| bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"));
        hex(&self.store_id)?;
        write!(f, ".{}.", self.seq)?;
        let mut hex = |bytes: &[u8]| bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"));
        hex(&self.value)
    }
}

/// Reads the text of `Display`.
impl FromStr for Anchor {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parse = || {
            let (store_id, rest) = text.split_once('.')?;
            let (seq, value) = rest.split_once('.')?;
            let is_number = seq.bytes().all(|byte| byte.is_ascii_digit());
            let seq = is_number.then(|| seq.parse().ok())??;
            Some(Self { store_id: bytes(store_id)?, seq, value: bytes(value)? })
        };
        let known = "<32 hex digits>.<seq>.<64 hex digits>";
        parse().ok_or_else(|| ParseError::new("anchor", text, known))
    }
}

/// Returns the bytes of lower-case hexadecimal digits.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that the text of `value` is `text`, and reads back as the value.
    fn round<T>(value: &T, text: &str)
    where
        T: fmt::Display + fmt::Debug + FromStr<Err = ParseError> + PartialEq,
    {
        assert_eq!(value.to_string(), text);
        assert_eq!(&text.parse::<T>().unwrap(), value);
    }

    #[test]
    fn each_value_reads_back_from_its_text() {
        round(&Form::Wal, "wal");
        round(&Form::Snapshot, "snapshot");
        round(&Form::Ledger, "ledger");
        round(&Durability::Sync, "sync");
        round(&Durability::Os, "os");
        let interval = |secs, nanos| Durability::Interval(Duration::new(secs, nanos));
        round(&interval(0, 100_000_000), "interval:100ms");
        round(&interval(60, 0), "interval:60s");
        round(&interval(1, 500), "interval:1000000500ns");
        round(&interval(0, 7_000), "interval:7us");
        round(&interval(u64::MAX, 999_999_999), "interval:18446744073709551615999999999ns");
        let anchor = Anchor::new([0x0f; 16], 42, [0xa1; 32]);
        round(&anchor, &format!("{}.42.{}", "0f".repeat(16), "a1".repeat(32)));
    }

    #[test]
    fn an_unknown_text_gives_an_error_that_lists_the_known_ones() {
        let error = "Wal".parse::<Form>().unwrap_err();
        let text = r#""Wal" is no form; known: wal, snapshot, ledger"#;
        assert_eq!(error.to_string(), text);
        assert_eq!(format!("{error:?}"), format!("ParseError: {text}"));
        for unknown in ["", "interval", "interval:", "interval:ms", "interval:1h", "interval:-1s"] {
            let error = unknown.parse::<Durability>().unwrap_err().to_string();
            assert!(error.ends_with("known: sync, os, interval:<number><s|ms|us|ns>"), "{error}");
        }
        // One second more than a duration can hold, and a product that overflows.
        for unknown in
            ["interval:18446744073709551616s", "interval:9999999999999999999999999999999999s"]
        {
            unknown.parse::<Durability>().unwrap_err();
        }
        let (id, value) = ("0f".repeat(16), "a1".repeat(32));
        for unknown in [
            String::new(),
            format!("{id}.42"),
            format!("{id}.+42.{value}"),
            format!("{id}..{value}"),
            format!("{id}0.42.{value}"),
            format!("{id}.42.{value}00"),
            format!("{}.42.{value}", "0F".repeat(16)),
            format!("{}.42.{value}", "é".repeat(16)),
        ] {
            let error = unknown.parse::<Anchor>().unwrap_err().to_string();
            assert!(error.ends_with("known: <32 hex digits>.<seq>.<64 hex digits>"), "{error}");
        }
    }
}
