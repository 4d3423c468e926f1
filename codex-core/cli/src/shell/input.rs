//! The lines of a shell, from a terminal or from a script.

use std::borrow::Cow;
use std::io::{self, BufRead};
use std::path::Path;

use codex_core::Store;
use codexdb::key;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::Validator;
use rustyline::{CompletionType, Config, Context, Editor, Helper};

use super::complete::Completions;
use super::history::History;
use super::words::first_line;
use crate::Outcome;
use crate::failure::Failure;

/// A place that lines come from.
pub(super) trait Input {
    /// Returns the next line without its end, or `None` after the last one.
    fn next(&mut self, is_in_transaction: bool) -> Outcome<Option<String>>;

    /// Adds a line to the history. `kept` is the part that a file keeps.
    fn remember(&mut self, line: &str, kept: &str);

    /// Tells that the last line has failed. Returns the error if no line is to follow.
    fn refuse(&mut self, failure: Failure) -> Outcome<()>;
}

/// Lines that a program, or a file, gives.
pub(super) struct Script<R> {
    from: R,
    number: u64,
}

impl<R: BufRead> Script<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from, number: 0 }
    }
}

impl<R: BufRead> Input for Script<R> {
    fn next(&mut self, is_in_transaction: bool) -> Outcome<Option<String>> {
        let mut line = Vec::new();
        let failed = |source| Failure::file("cannot read stdin", source);
        let len = self.from.read_until(b'\n', &mut line).map_err(failed)?;
        if len == 0 && is_in_transaction {
            let text = "the input ends within a transaction, of which nothing was written";
            return Err(Failure::Usage(text.to_owned()));
        }
        if len == 0 {
            return Ok(None);
        }
        self.number += 1;
        let end = line.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r'));
        line.truncate(end.map_or(0, |end| end + 1));
        if let Ok(line) = String::from_utf8(line) {
            return Ok(Some(line));
        }
        let usage = Failure::Usage("the line is not UTF-8".to_owned());
        self.refuse(usage).map(|()| None)
    }

    fn remember(&mut self, _: &str, _: &str) {}

    fn refuse(&mut self, failure: Failure) -> Outcome<()> {
        Err(match failure {
            // The lines of a transaction are lines of the script.
            failure @ (Failure::Line { .. } | Failure::ClosedPipe) => failure,
            failure => Failure::Line { number: self.number, failure: Box::new(failure) },
        })
    }
}

/// Lines that a person types.
pub(super) struct Terminal {
    editor: Editor<Assistant, MemHistory>,
    history: History,
    /// The name of the store, for the prompt.
    name: String,
    /// The lines of a text that was pasted, which are not acted on yet.
    pasted: Option<String>,
}

impl Terminal {
    pub(super) fn new(store: &Store, path: &Path, mut history: History) -> Outcome<Self> {
        let config = Config::builder()
            .completion_type(CompletionType::List)
            .history_ignore_space(true)
            .build();
        let memory = MemHistory::with_config(&config);
        let mut editor = Editor::with_history(config, memory)
            .map_err(|error| failed(error, "cannot edit lines"))?;
        editor.set_helper(Some(Assistant(Completions::new(store))));
        for line in history.lines() {
            let _ = editor.add_history_entry(line);
        }
        let name = path.file_name().unwrap_or(path.as_os_str());
        let name = key::show(name.as_encoded_bytes());
        Ok(Self { editor, history, name, pasted: None })
    }
}

impl Input for Terminal {
    fn next(&mut self, is_in_transaction: bool) -> Outcome<Option<String>> {
        let mark = if is_in_transaction { " (transaction)" } else { "" };
        let prompt = format!("{}{mark}> ", self.name);
        let text = match self.pasted.take() {
            Some(text) => text,
            None => loop {
                match self.editor.readline(&prompt) {
                    Ok(text) => break text,
                    // The line is given up.
                    Err(ReadlineError::Interrupted) => {}
                    Err(ReadlineError::Eof) => return Ok(None),
                    Err(error) => return Err(failed(error, "cannot read from the terminal")),
                }
            },
        };
        let (line, rest) = first_line(&text);
        self.pasted = rest.map(str::to_owned);
        Ok(Some(line.to_owned()))
    }

    fn remember(&mut self, line: &str, kept: &str) {
        // Only a line that is already there is refused.
        let _ = self.editor.add_history_entry(line);
        self.history.add(line, kept);
    }

    fn refuse(&mut self, failure: Failure) -> Outcome<()> {
        if matches!(failure, Failure::ClosedPipe) {
            return Err(failure);
        }
        failure.print();
        // The lines after it may rest on it.
        self.pasted = None;
        Ok(())
    }
}

fn failed(error: ReadlineError, what: &str) -> Failure {
    Failure::file(
        what,
        match error {
            ReadlineError::Io(error) => error,
            error => io::Error::other(error),
        },
    )
}

/// The completions, in the form that the line editor wants.
struct Assistant(Completions);

impl Completer for Assistant {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.0.of(line.get(..pos).unwrap_or(line)))
    }
}

impl Hinter for Assistant {
    type Hint = String;
}

impl Highlighter for Assistant {
    fn highlight_candidate<'c>(&self, candidate: &'c str, _: CompletionType) -> Cow<'c, str> {
        Cow::Borrowed(candidate)
    }
}

impl Validator for Assistant {}

impl Helper for Assistant {}
