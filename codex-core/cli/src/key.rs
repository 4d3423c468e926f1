//! Keys as text: any bytes can be typed on a command line, and the printed form can be typed back.

use std::fmt::Write as _;
use std::str::FromStr;

/// A key that was typed: text in which `\\` is a backslash and `\xNN` is any byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypedKey {
    /// The text, as it was typed.
    pub text: String,
    /// The bytes that the text stands for.
    pub bytes: Vec<u8>,
}

impl FromStr for TypedKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text).map(|bytes| Self { text: text.to_owned(), bytes })
    }
}

impl AsRef<[u8]> for TypedKey {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Returns the bytes of a key that was typed.
pub fn parse(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        bytes.extend_from_slice(before.as_bytes());
        let (byte, len) = match escape.as_bytes() {
            [b'\\', b'\\', ..] => (Some(b'\\'), 2),
            [b'\\', b'x', high, low, ..] => (byte_of(*high, *low), 4),
            _ => (None, 0),
        };
        let byte = byte.ok_or("a backslash begins `\\\\` or `\\xNN`, with two hex digits")?;
        bytes.push(byte);
        rest = escape.get(len..).unwrap_or_default();
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

/// Returns the text of a key. Bytes that are not UTF-8, and characters that a terminal does not
/// show or acts on, are escaped.
pub fn show(key: &[u8]) -> String {
    let mut text = String::with_capacity(key.len());
    for chunk in key.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                c if is_plain(c) => text.push(c),
                c => c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| escape(byte, &mut text)),
            }
        }
        chunk.invalid().iter().for_each(|byte| escape(*byte, &mut text));
    }
    text
}

/// Returns true if a terminal shows `c` as a character, and does not act on it.
pub fn is_plain(c: char) -> bool {
    // The escapes of Rust are those of control characters, of characters that have no glyph, and
    // of three that have one.
    matches!(c, '\'' | '"' | '\\') || c.escape_debug().len() == 1
}

/// Returns the bytes as hex digits.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        push(write!(text, "{byte:02x}"));
    }
    text
}

/// Returns the bytes of an even number of hex digits, or `None`.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| if let [high, low] = pair { byte_of(*high, *low) } else { None }).collect()
}

fn byte_of(high: u8, low: u8) -> Option<u8> {
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

fn escape(byte: u8, text: &mut String) {
    push(write!(text, "\\x{byte:02x}"));
}

fn push(written: std::fmt::Result) {
    written.expect("a string can be written to");
}

#[cfg(test)]
mod tests {
    use super::{from_hex, hex, parse, show};

    #[test]
    fn a_key_that_is_printed_can_be_typed_back() {
        let every: Vec<u8> = (0..=u8::MAX).collect();
        let keys: [&[u8]; 7] =
            [&every, b"", b"a b", b"\\x00", b"\xff\xfe", "ü€😀\u{202e}".as_bytes(), b"a\tb\n"];
        for key in keys {
            let text = show(key);
            assert_eq!(parse(&text).as_deref(), Ok(key), "{text}");
            assert!(text.chars().all(super::is_plain), "{text:?}");
        }
        assert_eq!(show("users/ü 1".as_bytes()), "users/ü 1");
        assert_eq!(show(b"a\\\x1b[31m\xff"), "a\\\\\\x1b[31m\\xff");
    }

    #[test]
    fn an_unknown_escape_is_refused() {
        for text in ["\\", "a\\n", "\\x1", "\\xzz", "\\x\u{fc}"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hex_digits_are_pairs() {
        assert_eq!(from_hex(&hex(&[0, 9, 0xff])), Some(vec![0, 9, 0xff]));
        assert_eq!(from_hex("0"), None);
        assert_eq!(from_hex("0g"), None);
        assert_eq!(from_hex("+1"), None);
    }
}
