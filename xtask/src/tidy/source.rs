//! A Rust source as the rules see it: code without comments and literals, and its test lines.

use super::File;

/// A Rust file, read once for all rules.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) path: &'a str,
    pub(super) text: &'a str,
    /// The text with comments, and the insides of strings and characters, blanked; lines are kept.
    pub(super) code: String,
    /// For each line, whether it belongs to tests.
    pub(super) is_test: Vec<bool>,
}

impl<'a> Source<'a> {
    /// The file as Rust source, if it is one.
    pub(super) fn of(file: &'a File) -> Option<Self> {
        let text = file.text().filter(|_| file.has_extension("rs"))?;
        let code = Blanker::new(text).blank(false);
        let is_test = if is_test_file(&file.path) {
            vec![true; text.lines().count()]
        } else {
            test_lines(&code, text.lines().count())
        };
        Some(Self { path: &file.path, text, code, is_test })
    }

    /// The lines of code outside tests, with their numbers from 1; a test's line is empty.
    pub(super) fn library_code(&self) -> String {
        let kept = self.code.lines().zip(&self.is_test);
        let mut code = String::new();
        for (line, is_test) in kept {
            code.push_str(if *is_test { "" } else { line });
            code.push('\n');
        }
        code
    }

    /// What the code means: outside tests, without comments and layout, but with its literals.
    pub(super) fn meaning(&self) -> String {
        let bare = Blanker::new(self.text).blank(true);
        let kept = bare.lines().zip(&self.is_test).filter(|(_, is_test)| !**is_test);
        let words = kept.flat_map(|(line, _)| line.split_whitespace());
        words.collect::<Vec<_>>().join(" ")
    }

    /// Whether the file is part of a library, and neither a test nor a program.
    pub(super) fn is_library(&self) -> bool {
        let inside = |name: &str| {
            let source = self.path.strip_prefix(name).and_then(|rest| rest.strip_prefix("/src/"));
            source.is_some_and(|rest| !rest.starts_with("bin/") && rest != "main.rs")
        };
        LIBRARIES.iter().any(|name| inside(name)) && !is_test_file(self.path)
    }
}

/// The folders of the library crates.
pub(super) const LIBRARIES: &[&str] =
    &["codex-core", "codex-storage", "codex-backup", "codex-crypto"];

/// The 1-based line of a byte of a text.
pub(super) fn line_of(text: &str, byte: usize) -> usize {
    text.bytes().take(byte).filter(|b| *b == b'\n').count() + 1
}

/// The byte behind the bracket that closes the first one at or after `from`.
pub(super) fn end_of_group(code: &str, from: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    code.len()
}

/// Where the item that follows `from` ends: behind its body, or behind its semicolon.
pub(super) fn end_of_item(code: &str, from: usize) -> usize {
    let mut at = from;
    while let Some((step, byte)) =
        code.bytes().enumerate().skip(at).find(|(_, b)| b"{([;".contains(b))
    {
        match byte {
            b';' => return step + 1,
            b'{' => return end_of_group(code, step),
            _ => at = end_of_group(code, step),
        }
    }
    code.len()
}

fn is_test_file(path: &str) -> bool {
    let mut parts = path.split('/').rev();
    let file = parts.next().unwrap_or_default();
    file == "tests.rs" || parts.any(|part| ["tests", "benches", "examples", "fuzz"].contains(&part))
}

/// The lines of the items under a `#[cfg(test)]`.
fn test_lines(code: &str, lines: usize) -> Vec<bool> {
    let mut is_test = vec![false; lines];
    let mut from = 0;
    while let Some(found) = code.get(from..).and_then(|rest| rest.find("#[cfg(")) {
        let start = from + found;
        let attribute_end = end_of_group(code, start + 1);
        let condition = code.get(start..attribute_end).unwrap_or_default();
        from = attribute_end;
        if !names_test(condition) {
            continue;
        }
        let end = end_of_item(code, attribute_end);
        let first = line_of(code, start) - 1;
        let last = line_of(code, end.saturating_sub(1));
        for line in is_test.iter_mut().take(last).skip(first) {
            *line = true;
        }
        from = end;
    }
    is_test
}

fn names_test(condition: &str) -> bool {
    let words: Vec<&str> = condition.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    words.windows(2).any(|pair| matches!(pair, [before, "test"] if *before != "not"))
}

/// Goes through a text once, replacing what is no code by spaces.
struct Blanker {
    text: Vec<char>,
    at: usize,
    out: String,
}

impl Blanker {
    fn new(text: &str) -> Self {
        Self { text: text.chars().collect(), at: 0, out: String::with_capacity(text.len()) }
    }

    /// Blanks comments and, unless `literals` are kept, the insides of literals.
    fn blank(mut self, literals: bool) -> String {
        while let Some(c) = self.peek(0) {
            match (c, self.peek(1)) {
                ('/', Some('/')) => self.skip_line(),
                ('/', Some('*')) => self.skip_block(),
                ('"', _) => self.string(literals),
                ('r', Some('"' | '#')) if !self.after_word() && self.raw_hashes().is_some() => {
                    self.raw_string(literals);
                }
                ('\'', _) => self.character(literals),
                _ => self.keep(),
            }
        }
        self.out
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.text.get(self.at + ahead).copied()
    }

    /// Whether the character here goes on with a word; the `b` of `br"..."` is not one.
    fn after_word(&self) -> bool {
        let before = |n| self.at.checked_sub(n).and_then(|at| self.text.get(at)).copied();
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        match before(1) {
            Some('b') => before(2).is_some_and(is_word),
            other => other.is_some_and(is_word),
        }
    }

    fn keep(&mut self) {
        self.out.extend(self.peek(0));
        self.at += 1;
    }

    /// One character of a literal or comment: its place is kept, and its content if wanted.
    fn pass(&mut self, content: bool) {
        let c = self.peek(0).unwrap_or_default();
        self.out.push(if content || c == '\n' { c } else { ' ' });
        self.at += 1;
    }

    fn skip_line(&mut self) {
        while self.peek(0).is_some_and(|c| c != '\n') {
            self.pass(false);
        }
    }

    fn skip_block(&mut self) {
        let mut depth = 0_usize;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some('/'), Some('*')) => {
                    depth += 1;
                    self.pass(false);
                }
                (Some('*'), Some('/')) => {
                    depth -= 1;
                    self.pass(false);
                }
                (None, _) => return,
                _ => {}
            }
            self.pass(false);
            if depth == 0 {
                return;
            }
        }
    }

    fn string(&mut self, literals: bool) {
        self.keep();
        while let Some(c) = self.peek(0) {
            if c == '"' {
                return self.keep();
            }
            if c == '\\' {
                self.pass(literals);
            }
            self.pass(literals);
        }
    }

    /// The number of `#` of a raw string that starts here; none if it is not one.
    fn raw_hashes(&self) -> Option<usize> {
        let hashes = self.text.iter().skip(self.at + 1).take_while(|c| **c == '#').count();
        (self.peek(hashes + 1) == Some('"')).then_some(hashes)
    }

    fn raw_string(&mut self, literals: bool) {
        let hashes = self.raw_hashes().unwrap_or(0);
        for _ in 0..hashes + 2 {
            self.keep();
        }
        while let Some(c) = self.peek(0) {
            let closes = c == '"' && (1..=hashes).all(|n| self.peek(n) == Some('#'));
            if closes {
                for _ in 0..=hashes {
                    self.keep();
                }
                return;
            }
            self.pass(literals);
        }
    }

    /// A character literal, or the mark of a lifetime.
    fn character(&mut self, literals: bool) {
        let escaped = self.peek(1) == Some('\\');
        if !escaped && self.peek(2) != Some('\'') {
            return self.keep();
        }
        self.keep();
        if escaped {
            self.pass(literals);
        }
        self.pass(literals);
        while self.peek(0).is_some_and(|c| c != '\'') {
            self.pass(literals);
        }
        self.keep();
    }
}
