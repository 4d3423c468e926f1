//! JSON text: whether it is valid, on one line, and safe to print.

use std::collections::HashSet;
use std::fmt::{self, Write as _};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Returns true if the text is one JSON value.
pub(crate) fn is_valid(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}

/// Returns the text without the spaces between its parts, if [`check`] accepts it. Numbers keep
/// their digits.
pub(crate) fn checked(text: &str) -> Result<String, String> {
    check(text).map(|()| compact(text))
}

/// Refuses text that is not one JSON value, or that the library would not read back.
pub(crate) fn check(text: &str) -> Result<(), String> {
    let mut json = serde_json::Deserializer::from_str(text);
    let checked = Check { depth: 0 }.deserialize(&mut json).and_then(|()| json.end());
    checked.map_err(|error| error.to_string())
}

/// Returns JSON on one line, in which characters on which a terminal acts are escaped.
pub(crate) fn printable(text: &str) -> String {
    let text = compact(text);
    if text.chars().all(crate::key::is_plain) {
        return text;
    }
    // In JSON, such characters stand in strings only, where an escape means the same.
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if crate::key::is_plain(c) {
            shown.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(shown, "\\u{unit:04x}").expect("a string can be written to");
            }
        }
    }
    shown
}

/// Returns JSON with each item on a line of its own. Numbers keep their digits.
pub(crate) fn pretty(text: &str) -> String {
    let text = compact(text);
    let (mut shown, mut depth) = (String::with_capacity(2 * text.len()), 0_usize);
    let (mut in_string, mut escaped) = (false, false);
    let mut before = ' ';
    for c in text.chars() {
        let is_part = !in_string && c != '"';
        let line = |shown: &mut String, depth: usize| {
            shown.push('\n');
            shown.push_str(&"  ".repeat(depth));
        };
        match c {
            // An empty list or object stays on its line.
            '}' | ']' if is_part => {
                depth = depth.saturating_sub(1);
                if !matches!(before, '{' | '[') {
                    line(&mut shown, depth);
                }
            }
            _ if !in_string && matches!(before, '{' | '[' | ',') => line(&mut shown, depth),
            _ => {}
        }
        shown.push(c);
        match c {
            '{' | '[' if is_part => depth += 1,
            ':' if is_part => shown.push(' '),
            '"' if !escaped => in_string = !in_string,
            _ => {}
        }
        escaped = in_string && c == '\\' && !escaped;
        // The last character of a string is a quotation mark.
        before = if in_string { ' ' } else { c };
    }
    shown
}

/// Removes the spaces and line ends outside of strings.
pub(crate) fn compact(text: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let keeps = |c: &char| {
        let keeps = in_string || !matches!(c, ' ' | '\t' | '\n' | '\r');
        match c {
            '"' if !escaped => in_string = !in_string,
            _ => {}
        }
        escaped = in_string && *c == '\\' && !escaped;
        keeps
    };
    text.chars().filter(keeps).collect()
}

/// Reads a value and keeps nothing of it.
struct Check {
    /// The number of lists and maps around the value.
    depth: usize,
}

/// The limit of the library.
const DEPTH_MAX: usize = 126;

impl Check {
    fn inner<E: Error>(&self) -> Result<Self, E> {
        if self.depth == DEPTH_MAX {
            return Err(E::custom(format!("more than {DEPTH_MAX} nested levels")));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Check {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Check {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(self.inner()?)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = fields.next_key::<String>()? {
            if let Some(name) = names.replace(name) {
                return Err(A::Error::custom(format!("the name {name:?} occurs twice")));
            }
            fields.next_value_seed(self.inner()?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{checked, printable};

    #[test]
    fn numbers_keep_their_digits_and_strings_their_spaces() {
        let text = " { \"a b\" : [ 1.10 , 12345678901234567890123 , -0 , 1E2 ] ,\n\
                    \"c\\\" \": \" x\\\\\" } ";
        let compact = "{\"a b\":[1.10,12345678901234567890123,-0,1E2],\"c\\\" \":\" x\\\\\"}";
        assert_eq!(checked(text).as_deref(), Ok(compact));
    }

    #[test]
    fn pretty_json_is_the_same_json() {
        let text = "{\"a b\":[1.10,{},[],\"{, [\\\"\"],\"c\":{\"d\":null}}";
        let lines = "{\n  \"a b\": [\n    1.10,\n    {},\n    [],\n    \"{, [\\\"\"\n  ],\n  \
                     \"c\": {\n    \"d\": null\n  }\n}";
        assert_eq!(super::pretty(text), lines);
        assert_eq!(checked(lines).as_deref(), Ok(text));
        assert_eq!(super::pretty(" \"a, b\" "), "\"a, b\"");
    }

    #[test]
    fn what_the_library_would_not_read_back_is_refused() {
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(checked(&deep(126)).is_ok());
        for text in ["", "hello", "1 2", "{\"a\":1,\"a\":2}", "1e999", "NaN", &deep(127)] {
            assert!(checked(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_terminal_acts_on_nothing_that_is_printed() {
        let text = "\"\u{9b}31m \u{202e}\u{7f} ü\"";
        assert_eq!(printable(text), "\"\\u009b31m \\u202e\\u007f ü\"");
        assert_eq!(printable("[1,\n 2]"), "[1,2]");
    }
}
