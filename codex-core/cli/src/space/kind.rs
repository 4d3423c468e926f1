//! Keys of tables as text. The catalogue names the encoding of the keys of a table, not their type.

use std::borrow::Cow;

use codex_core::TableKey as _;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::key;
use crate::types::quoted;

/// The encoding of the keys of a table, of those that the library has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Int { bytes: usize, is_signed: bool },
    Bool,
    Char,
    Text,
    Bytes,
    Array(usize),
    Option(Box<Self>),
    Reverse(Box<Self>),
    Tuple(Vec<Self>),
}

impl Kind {
    /// Returns the encoding with the name `name`, or `None` if it is that of an application.
    pub(super) fn of(name: &str) -> Option<Self> {
        let mut rest = name;
        let kind = parse(&mut rest)?;
        rest.is_empty().then_some(kind)
    }

    /// Returns whether keys are typed and shown as text with escapes, as those outside tables, and
    /// not as JSON.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self, Self::Text | Self::Bytes)
    }

    /// Returns a key as JSON, or `None` if the bytes are no key of this kind.
    pub(super) fn read(&self, key: &[u8]) -> Option<String> {
        let (mut rest, mut json) = (key, String::new());
        self.take(&mut rest, true, &mut json)?;
        rest.is_empty().then_some(json)
    }

    /// Takes a key from the beginning of `from`, and appends it to `json`.
    fn take(&self, from: &mut &[u8], is_last: bool, json: &mut String) -> Option<()> {
        match self {
            Self::Int { bytes, is_signed } => json.push_str(&take_int(from, *bytes, *is_signed)?),
            Self::Bool => json.push_str(if bool::decode(from).ok()? { "true" } else { "false" }),
            Self::Char => json.push_str(&quoted(&char::decode(from).ok()?.to_string())),
            Self::Text => {
                let bytes = take_bytes(from, is_last)?;
                json.push_str(&quoted(std::str::from_utf8(&bytes).ok()?));
            }
            Self::Bytes => json.push_str(&quoted(&key::show(&take_bytes(from, is_last)?))),
            Self::Array(len) => json.push_str(&quoted(&key::show(split(from, *len)?))),
            Self::Option(of) => {
                if bool::decode(from).ok()? {
                    of.take(from, is_last, json)?;
                } else {
                    json.push_str("null");
                }
            }
            Self::Reverse(of) => {
                let inverted: Vec<u8> = from.iter().map(|byte| !byte).collect();
                let mut rest = inverted.as_slice();
                of.take(&mut rest, false, json)?;
                *from = from.get(inverted.len() - rest.len()..)?;
            }
            Self::Tuple(kinds) => {
                json.push('[');
                for (at, kind) in kinds.iter().enumerate() {
                    json.push_str(if at == 0 { "" } else { "," });
                    kind.take(from, is_last && at + 1 == kinds.len(), json)?;
                }
                json.push(']');
            }
        }
        Some(())
    }

    /// Returns the bytes of a key that is given as JSON, or `None` if it is no key of this kind.
    pub(super) fn write(&self, json: &str) -> Option<Vec<u8>> {
        let mut key = Vec::new();
        self.put(json, true, &mut key)?;
        Some(key)
    }

    /// Returns the bytes with which all keys begin whose first parts are those of the JSON array
    /// `json`, or `None` if this kind has no such parts.
    pub(super) fn prefix(&self, json: &str) -> Option<Vec<u8>> {
        let Self::Tuple(kinds) = self else { return None };
        let parts: Vec<&RawValue> = parse_json(json)?;
        let mut prefix = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            let is_last = at + 1 == kinds.len();
            kinds.get(at)?.put(part.get(), is_last, &mut prefix)?;
        }
        Some(prefix)
    }

    /// Appends a key that is given as JSON to `to`.
    fn put(&self, json: &str, is_last: bool, to: &mut Vec<u8>) -> Option<()> {
        match self {
            Self::Int { bytes, is_signed } => put_int(json.trim(), *bytes, *is_signed, to)?,
            Self::Bool => bool::encode(&parse_json(json)?, to),
            Self::Char => char::encode(&parse_json(json)?, to),
            Self::Text => put_bytes(parse_json::<Cow<'_, str>>(json)?.as_bytes(), is_last, to),
            Self::Bytes => put_bytes(&typed_bytes(json)?, is_last, to),
            Self::Array(len) => {
                let bytes = typed_bytes(json)?;
                to.extend_from_slice(Some(bytes).filter(|bytes| bytes.len() == *len)?.as_slice());
            }
            Self::Option(_) if json.trim() == "null" => to.push(0),
            Self::Option(of) => {
                to.push(1);
                of.put(json, is_last, to)?;
            }
            Self::Reverse(of) => {
                let start = to.len();
                of.put(json, false, to)?;
                to.iter_mut().skip(start).for_each(|byte| *byte = !*byte);
            }
            Self::Tuple(kinds) => {
                let parts: Vec<&RawValue> = parse_json(json)?;
                if parts.len() != kinds.len() {
                    return None;
                }
                for (at, (kind, part)) in kinds.iter().zip(parts).enumerate() {
                    kind.put(part.get(), is_last && at + 1 == kinds.len(), to)?;
                }
            }
        }
        Some(())
    }
}

/// Takes the name of an encoding from the beginning of `from`.
fn parse(from: &mut &str) -> Option<Kind> {
    let mut nested = |begin: &str| {
        *from = from.strip_prefix(begin)?;
        let kind = parse(from)?;
        *from = from.strip_prefix('>')?;
        Some(Box::new(kind))
    };
    if let Some(of) = nested("Option<") {
        return Some(Kind::Option(of));
    }
    if let Some(of) = nested("Reverse<") {
        return Some(Kind::Reverse(of));
    }
    if let Some(rest) = from.strip_prefix("[u8; ") {
        let (len, rest) = rest.split_once(']')?;
        *from = rest;
        return Some(Kind::Array(len.parse().ok()?));
    }
    if let Some(rest) = from.strip_prefix('(') {
        *from = rest;
        let mut kinds = vec![parse(from)?];
        while let Some(rest) = from.strip_prefix(", ") {
            *from = rest;
            kinds.push(parse(from)?);
        }
        *from = from.strip_prefix(')')?;
        return Some(Kind::Tuple(kinds));
    }
    let end = from.find([',', ')', '>']).unwrap_or(from.len());
    let (name, rest) = from.split_at(end);
    *from = rest;
    let int = |bits: &str, is_signed| {
        let bits: usize = bits.parse().ok()?;
        let is_known = matches!(bits, 8 | 16 | 32 | 64 | 128);
        is_known.then_some(Kind::Int { bytes: bits / 8, is_signed })
    };
    match name {
        "bool" => Some(Kind::Bool),
        "char" => Some(Kind::Char),
        "string" => Some(Kind::Text),
        "bytes" => Some(Kind::Bytes),
        _ => match name.split_at_checked(1)? {
            ("u", bits) => int(bits, false),
            ("i", bits) => int(bits, true),
            _ => None,
        },
    }
}

fn split<'a>(from: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = from.split_at_checked(len)?;
    *from = rest;
    Some(taken)
}

fn take_bytes(from: &mut &[u8], is_last: bool) -> Option<Vec<u8>> {
    if is_last {
        return Some(std::mem::take(from).to_vec());
    }
    Vec::<u8>::decode(from).ok()
}

fn put_bytes(bytes: &[u8], is_last: bool, to: &mut Vec<u8>) {
    if is_last {
        to.extend_from_slice(bytes);
    } else {
        Vec::<u8>::encode(&bytes, to);
    }
}

/// Takes an integer, with its highest byte first. A signed one has its sign bit inverted.
fn take_int(from: &mut &[u8], bytes: usize, is_signed: bool) -> Option<String> {
    let bits = split(from, bytes)?.iter().fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
    if !is_signed {
        return Some(bits.to_string());
    }
    let spare = 128 - 8 * bytes;
    let inverted = (bits << spare) ^ (1 << 127);
    Some((inverted.cast_signed() >> spare).to_string())
}

fn put_int(json: &str, bytes: usize, is_signed: bool, to: &mut Vec<u8>) -> Option<()> {
    let spare = 128 - 8 * bytes;
    let bits = if is_signed {
        let value: i128 = json.parse().ok()?;
        if value << spare >> spare != value {
            return None;
        }
        (value << spare).cast_unsigned() ^ (1 << 127)
    } else {
        let value: u128 = json.parse().ok()?;
        if value << spare >> spare != value {
            return None;
        }
        value << spare
    };
    (0..bytes).for_each(|at| to.push(u8::try_from(bits >> (120 - 8 * at) & 0xff).unwrap_or(0)));
    Some(())
}

/// Returns the bytes of a JSON string with the escapes of a key.
fn typed_bytes(json: &str) -> Option<Vec<u8>> {
    key::parse(&parse_json::<Cow<'_, str>>(json)?).ok()
}

fn parse_json<'a, T: Deserialize<'a>>(json: &'a str) -> Option<T> {
    serde_json::from_str(json).ok()
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;

    use codex_core::TableKey;

    use super::Kind;

    /// Checks that the key `key` is shown as `json`, which is typed back.
    fn check<K: TableKey>(key: &K::Ref<'_>, json: &str) {
        let kind = Kind::of(&K::kind()).unwrap();
        let mut bytes = Vec::new();
        K::encode_last(key, &mut bytes);
        assert_eq!(kind.read(&bytes).as_deref(), Some(json), "{kind:?}");
        assert_eq!(kind.write(json), Some(bytes), "{kind:?}");
    }

    #[test]
    fn each_key_of_the_library_is_shown_and_typed_back() {
        check::<u8>(&255, "255");
        check::<u16>(&258, "258");
        check::<u64>(&u64::MAX, "18446744073709551615");
        check::<u128>(&u128::MAX, "340282366920938463463374607431768211455");
        check::<i8>(&-128, "-128");
        check::<i32>(&-7, "-7");
        check::<i128>(&i128::MIN, "-170141183460469231731687303715884105728");
        check::<i128>(&i128::MAX, "170141183460469231731687303715884105727");
        check::<bool>(&true, "true");
        check::<char>(&'ü', "\"ü\"");
        check::<String>(&"a\"b\0", r#""a\"b\u0000""#);
        check::<Vec<u8>>(&b"a\xff\0".as_slice(), r#""a\\xff\\x00""#);
        check::<[u8; 2]>(&[0, 65], r#""\\x00A""#);
        check::<Option<u32>>(&None, "null");
        check::<Option<String>>(&Some("x"), "\"x\"");
        check::<Reverse<i16>>(&Reverse(-2), "-2");
        check::<(String, u32)>(&("a\0b", 7), r#"["a\u0000b",7]"#);
        check::<(Reverse<String>, Option<Vec<u8>>, String)>(
            &(Reverse("t"), Some(b"\0".as_slice()), "end"),
            r#"["t","\\x00","end"]"#,
        );
        check::<((u8, String), bool)>(&((1, "x"), false), r#"[[1,"x"],false]"#);
    }

    #[test]
    fn what_is_no_key_of_the_kind_is_refused() {
        for (kind, json) in [
            ("u8", "256"),
            ("u8", "-1"),
            ("i8", "128"),
            ("u64", "1.5"),
            ("bool", "1"),
            ("string", "x"),
            ("[u8; 2]", "\"abc\""),
            ("(u8, u8)", "[1]"),
            ("(u8, u8)", "[1,2,3]"),
        ] {
            assert_eq!(Kind::of(kind).unwrap().write(json), None, "{kind} {json}");
        }
        for (kind, bytes) in [
            ("u16", &b"a"[..]),
            ("u16", b"abc"),
            ("bool", b"\x02"),
            ("string", b"\xff"),
            ("(bytes, u8)", b"a\0b"),
            ("Reverse<u16>", b"a"),
        ] {
            assert_eq!(Kind::of(kind).unwrap().read(bytes), None, "{kind} {bytes:?}");
        }
        // Encodings of applications, and names that are cut off.
        for name in ["", "uuid", "u", "u9", "usize", "Option<u8", "(u8, u8", "(u8, )", "u8 ", "ü"]
        {
            assert_eq!(Kind::of(name), None, "{name}");
        }
    }

    #[test]
    fn a_prefix_is_the_first_parts_of_a_tuple() {
        let kind = Kind::of("(u16, string, string)").unwrap();
        assert_eq!(kind.prefix("[1]").as_deref(), Some(&b"\0\x01"[..]));
        assert_eq!(kind.prefix(r#"[1,"a"]"#).as_deref(), Some(&b"\0\x01a\0\0"[..]));
        assert_eq!(kind.prefix(r#"[1,"a","b"]"#).as_deref(), Some(&b"\0\x01a\0\0b"[..]));
        assert_eq!(kind.prefix(r#"[1,"a","b",2]"#), None);
        assert_eq!(kind.prefix("1"), None);
        assert_eq!(Kind::of("u16").unwrap().prefix("1"), None);
    }
}
