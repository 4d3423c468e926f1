//! Values as text, as much of them as an answer may have.

use codex_core::{Codec, Error, ValueRef};
use serde::de::IgnoredAny;

use crate::key;
use crate::types::{Type, guess};

/// Returns the name of the codec of a value.
pub(super) fn codec(value: &ValueRef) -> &'static str {
    match value.codec() {
        Some(Codec::Json) => "json",
        Some(Codec::Bincode) => "bincode",
        // Raw bytes and codecs of newer versions are told apart by the error of decoding them.
        _ => match value.decode::<IgnoredAny>() {
            Err(Error::UnknownCodec { .. }) => "unknown",
            _ => "raw",
        },
    }
}

/// Returns the beginning of a value in one line. A short one of bincode is read as a guess.
pub(super) fn preview_of(value: &ValueRef) -> String {
    let of =
        (value.codec() == Some(Codec::Bincode) && value.len() <= GUESS_LEN).then(|| guess(value));
    match of.flatten().and_then(|of: Type| of.read(value).ok()) {
        Some(json) => preview(json.as_bytes()),
        None => preview(value),
    }
}

/// Returns the beginning of bytes in one line: text if it is text, otherwise hex digits.
pub(super) fn preview(value: &[u8]) -> String {
    let start = cut(value, PREVIEW_LEN);
    let rest = if start.len() < value.len() { "…" } else { "" };
    let is_text = |text: &&str| text.chars().all(|c| key::is_plain(c) || c.is_ascii_whitespace());
    if let Some(text) = std::str::from_utf8(start).ok().filter(is_text) {
        return text.replace(['\n', '\r', '\t'], " ") + rest;
    }
    let short = start.get(..HEX_PREVIEW_LEN).unwrap_or(start);
    let rest = if short.len() < value.len() { "…" } else { "" };
    key::hex(short) + rest
}

/// Returns at most the first `len` bytes, which do not end within a character of a text.
pub(super) fn cut(bytes: &[u8], len: usize) -> &[u8] {
    let Some(start) = bytes.get(..len) else { return bytes };
    // A character has at most four bytes, of which all but the first are marked.
    let is_rest = |at: usize| bytes.get(at).is_some_and(|byte| byte & 0xC0 == 0x80);
    let end = (len.saturating_sub(3)..=len).rev().find(|at| !is_rest(*at)).unwrap_or(len);
    start.get(..end).unwrap_or(start)
}

/// The length up to which the type of a value is guessed for a list.
const GUESS_LEN: usize = 128;
const PREVIEW_LEN: usize = 120;
const HEX_PREVIEW_LEN: usize = 32;

#[cfg(test)]
mod tests {
    use super::{cut, preview};

    #[test]
    fn a_preview_is_short_and_in_one_line() {
        assert_eq!(preview(b"a\nb"), "a b");
        assert_eq!(preview(b"\xff\x00"), "ff00");
        assert_eq!(preview(b"\x1b[31m"), "1b5b33316d");
        let long = preview("ü".repeat(1000).as_bytes());
        assert_eq!(long, "ü".repeat(60) + "…");
        assert_eq!(preview(&[0xff; 1000]).len(), 64 + "…".len());
    }

    #[test]
    fn a_cut_does_not_divide_a_character() {
        assert_eq!(cut("aü".as_bytes(), 2), b"a");
        assert_eq!(cut("a😀".as_bytes(), 4), b"a");
        assert_eq!(cut("a😀".as_bytes(), 5), "a😀".as_bytes());
        assert_eq!(cut(&[0x80; 9], 5), &[0x80; 5]);
    }
}
