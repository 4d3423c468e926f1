//! The text of the records that this crate writes: JSON, with bytes as hexadecimal digits.

use serde::Serialize;

/// Returns a record as JSON that a person can read, with a newline at the end.
#[expect(clippy::expect_used, reason = "no map with other keys than strings, no I/O")]
pub(crate) fn json(record: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(record).expect("strings and numbers are JSON");
    text.push(b'\n');
    text
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()).collect()
}
