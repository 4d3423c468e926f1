//! The words of a line of the shell, and the quotes that a word needs.

/// A word of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    /// The word without its quotes.
    pub(super) text: String,
    /// The place of the word in the line, in bytes.
    pub(super) start: usize,
    /// The word as it was typed.
    pub(super) typed: String,
}

/// The words of a line, or of its beginning.
#[derive(Debug)]
pub(super) struct Words {
    pub(super) words: Vec<Word>,
    /// The mark that would close the last word, if that is not closed.
    pub(super) open: Option<char>,
}

impl Words {
    /// Splits a line at its spaces.
    ///
    /// A word in single quotes is taken as it is. In double quotes, `\"` is a double quote and `\\`
    /// a backslash. Outside of quotes a backslash takes the meaning from a space or a quote after
    /// it; before other characters it stays, because keys have escapes of their own. A word that
    /// begins with `{` or `[` ends at the matching bracket, with all quotes: it is JSON, or a type.
    pub(super) fn of(line: &str) -> Self {
        let (mut words, mut open) = (Vec::new(), None);
        let mut rest = Rest { line, at: 0 };
        loop {
            while rest.peek().is_some_and(is_space) {
                rest.next();
            }
            let start = rest.at;
            if rest.peek().is_none() {
                return Self { words, open };
            }
            let mut text = String::new();
            if matches!(rest.peek(), Some('{' | '[')) {
                open = rest.brackets(&mut text);
            }
            while let Some(c) = rest.peek().filter(|c| !is_space(*c)) {
                rest.next();
                match (c, rest.peek()) {
                    ('\'' | '"', _) => open = rest.quoted(c, &mut text),
                    ('\\', Some(next @ (' ' | '\t' | '\'' | '"'))) => {
                        rest.next();
                        text.push(next);
                    }
                    ('\\', Some('\\')) => {
                        rest.next();
                        text.push_str("\\\\");
                    }
                    (c, _) => text.push(c),
                }
            }
            let typed = line.get(start..rest.at).unwrap_or_default().to_owned();
            words.push(Word { text, start, typed });
        }
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

/// Returns the first line of `text`, and the lines after it. A line break within quotes or brackets
/// ends no line.
pub(super) fn first_line(text: &str) -> (&str, Option<&str>) {
    let ends = text.match_indices('\n').map(|(at, _)| text.split_at(at));
    let mut ends = ends.filter(|(line, _)| Words::of(line).open.is_none());
    ends.next().map_or((text, None), |(line, rest)| (line, rest.strip_prefix('\n')))
}

/// The part of a line that is not split yet.
struct Rest<'a> {
    line: &'a str,
    at: usize,
}

impl Rest<'_> {
    fn peek(&self) -> Option<char> {
        self.line.get(self.at..)?.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    /// Takes the text up to the quote `mark`. Returns `mark` if the text does not end with it.
    fn quoted(&mut self, mark: char, text: &mut String) -> Option<char> {
        while let Some(c) = self.next() {
            match (c, self.peek()) {
                (c, _) if c == mark => return None,
                ('\\', Some(next @ ('"' | '\\'))) if mark == '"' => {
                    self.next();
                    text.push(next);
                }
                (c, _) => text.push(c),
            }
        }
        Some(mark)
    }

    /// Takes the text up to the bracket that closes the first one. Returns a bracket if it is
    /// missing.
    fn brackets(&mut self, text: &mut String) -> Option<char> {
        let mut closing = Vec::new();
        while let Some(c) = self.next() {
            text.push(c);
            match c {
                '{' => closing.push('}'),
                '[' => closing.push(']'),
                '}' | ']' => {
                    closing.pop();
                }
                '"' => {
                    while let Some(c) = self.next() {
                        text.push(c);
                        match c {
                            '"' => break,
                            '\\' => text.extend(self.next()),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
            if closing.is_empty() {
                return None;
            }
        }
        closing.pop()
    }
}

/// Returns the text of a key, which [`codexdb::key::show`] returned, as a word of a line.
pub(super) fn quote(text: &str) -> String {
    let is_special = |c| is_space(c) || matches!(c, '\'' | '"');
    if !text.is_empty() && !text.contains(is_special) && !text.starts_with(['{', '[', '#']) {
        return text.to_owned();
    }
    if !text.contains('\'') {
        return format!("'{text}'");
    }
    // The escapes of keys need no quotes.
    let mut word = String::new();
    for (at, c) in text.char_indices() {
        match c {
            c if is_special(c) => word.extend(['\\', c]),
            '{' if at == 0 => word.push_str("\\x7b"),
            '[' if at == 0 => word.push_str("\\x5b"),
            '#' if at == 0 => word.push_str("\\x23"),
            c => word.push(c),
        }
    }
    word
}

#[cfg(test)]
mod tests {
    use codexdb::key;

    use super::{Words, first_line, quote};

    #[track_caller]
    fn texts(line: &str) -> Vec<String> {
        let Words { words, open } = Words::of(line);
        assert_eq!(open, None, "{line}");
        words.into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn a_line_is_split_as_a_shell_splits_it() {
        assert_eq!(texts(" get  a\tb "), ["get", "a", "b"]);
        assert_eq!(texts(r#"'a b' "c d" e' 'f g\ h"#), ["a b", "c d", "e f", "g h"]);
        assert_eq!(
            texts(r#"'"text"' "\"text\"" it\'s "a\\b" '\\'"#),
            [r#""text""#, r#""text""#, "it's", r"a\b", r"\\"]
        );
        assert_eq!(texts(r"logo/\xff a\\ '' "), [r"logo/\xff", r"a\\", ""]);
        assert_eq!(texts(""), [""; 0]);
    }

    #[test]
    fn json_needs_no_quotes() {
        let line = r#"set k {"a": [1, "}"], "b\"": {}} x"#;
        assert_eq!(texts(line), ["set", "k", r#"{"a": [1, "}"], "b\"": {}}"#, "x"]);
        assert_eq!(texts("--as {name: str, stars: [u8; 4]}")[1], "{name: str, stars: [u8; 4]}");
    }

    #[test]
    fn a_line_ends_outside_of_brackets() {
        assert_eq!(first_line("a\nb\nc"), ("a", Some("b\nc")));
        assert_eq!(first_line("set a {\n\"b\": 1\n}\n"), ("set a {\n\"b\": 1\n}", Some("")));
        assert_eq!(first_line("a"), ("a", None));
        assert_eq!(first_line("a 'b\n"), ("a 'b\n", None));
        assert_eq!(texts("a\nb\r"), ["a", "b"]);
    }

    #[test]
    fn an_open_quote_is_told() {
        let open = |line| Words::of(line).open;
        assert_eq!([open("'a"), open("\"a\\\""), open("{[")], [Some('\''), Some('"'), Some(']')]);
        assert_eq!(open(r#"{"a"#), Some('}'));
    }

    #[test]
    fn a_key_that_is_quoted_is_one_word_and_the_same_key() {
        let every: Vec<u8> = (0..=u8::MAX).collect();
        let keys: [&[u8]; 12] = [
            b"",
            b"a",
            b"a b",
            b"it's",
            b"it's 5\"",
            b"{a",
            b"[a 'b",
            b"#a",
            b"a\\ b",
            b"\xff\\'",
            b"\\",
            &every,
        ];
        for key in keys {
            let word = quote(&key::show(key));
            let read = texts(&format!("get {word} end"));
            assert_eq!(read.len(), 3, "{word}");
            assert_eq!(key::parse(&read[1]).as_deref(), Ok(key), "{word}");
        }
    }
}
