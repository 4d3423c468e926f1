//! The completions of a line: commands, their options, and keys of the store.

use std::ops::Bound;

use clap::ArgAction;
use codex_core::{Prefix, Store};
use codexdb::key;

use super::statement::commands;
use super::words::{Word, Words, quote};

/// The completions of lines about one store.
pub(super) struct Completions {
    commands: clap::Command,
    store: Store,
}

impl Completions {
    pub(super) fn new(store: &Store) -> Self {
        Self { commands: commands(), store: store.clone() }
    }

    /// Returns the words that can end `line`, and the place at which they begin.
    pub(super) fn of(&self, line: &str) -> (usize, Vec<String>) {
        let Words { mut words, open } = Words::of(line);
        let is_new = open.is_none() && line.ends_with([' ', '\t']) || words.is_empty();
        let word = if is_new { None } else { words.pop() };
        let word =
            word.unwrap_or(Word { text: String::new(), start: line.len(), typed: String::new() });
        let found = match words.split_first() {
            None => self.names(&word.text),
            Some((first, _)) if first.text == "help" && words.len() == 1 => self.names(&word.text),
            Some((first, rest)) => match self.commands.find_subcommand(&first.text) {
                Some(command) => self.of_command(command, rest, &word),
                None => Vec::new(),
            },
        };
        (word.start, found)
    }

    /// Returns the commands that begin with `text`.
    fn names(&self, text: &str) -> Vec<String> {
        let names = self.commands.get_subcommands().map(clap::Command::get_name).chain(["help"]);
        names.filter(|name| name.starts_with(text)).map(|name| format!("{name} ")).collect()
    }

    /// Returns the options or keys that can follow `before` in a line of `command`.
    fn of_command(&self, command: &clap::Command, before: &[Word], word: &Word) -> Vec<String> {
        let options = || command.get_arguments().filter(|arg| !arg.is_hide_set());
        let named = |word: &Word| {
            let name = word.text.strip_prefix("--")?;
            options().find(|arg| arg.get_long() == Some(name))
        };
        let takes_value = |word| named(word).is_some_and(|arg| is_value(arg.get_action()));
        if let Some(last) = before.last().filter(|last| takes_value(last)) {
            let is_key = ["--prefix", "--from", "--to"].contains(&last.text.as_str());
            return if is_key { self.keys(&word.text) } else { Vec::new() };
        }
        if word.typed.starts_with('-') {
            let names = options().filter_map(clap::Arg::get_long).chain(["json"]);
            let names = names.map(|name| format!("--{name} "));
            return names.filter(|name| name.starts_with(&word.typed)).collect();
        }
        let is_value_of_option =
            |at: usize| at.checked_sub(1).and_then(|at| before.get(at)).is_some_and(takes_value);
        let arguments = before
            .iter()
            .enumerate()
            .filter(|(at, word)| !word.text.starts_with('-') && !is_value_of_option(*at));
        let is_key = match command.get_positionals().next().map(|arg| arg.get_id().as_str()) {
            Some("keys") => true,
            Some("key") => arguments.count() == 0,
            _ => false,
        };
        if is_key { self.keys(&word.text) } else { Vec::new() }
    }

    /// Returns the keys that begin with the key in `text`, as words, each up to the next separator.
    ///
    /// Reads few keys of a large store: one for each word, and no more words than `WORDS_MAX`. The
    /// last word is always there, so that the words have in common what all keys have, and no more.
    fn keys(&self, text: &str) -> Vec<String> {
        // An escape that is not complete yet is left out.
        let start = key::parse(text).or_else(|_| {
            let (before, _) = text.rsplit_once('\\').unwrap_or_default();
            key::parse(before)
        });
        let Ok(start) = start else { return Vec::new() };
        let Some(last) = self.store.last(Prefix(&start)) else { return Vec::new() };
        let mut words = Vec::new();
        let mut from = Bound::Included(start.clone());
        while words.len() < WORDS_MAX {
            let rest = self.store.first((from.clone(), Bound::Included(last.key().to_vec())));
            let Some(entry) = rest else { return words };
            let part = part(entry.key(), start.len());
            words.push(word(entry.key(), part));
            from = match part.split_last() {
                // The separator is a byte that another one follows.
                Some((end, before)) if part.len() < entry.key().len() => {
                    Bound::Included([before, &[end.saturating_add(1)]].concat())
                }
                _ => Bound::Excluded(entry.key().to_vec()),
            };
        }
        words.push(word(last.key(), part(last.key(), start.len())));
        words.dedup();
        words
    }
}

fn is_value(action: &ArgAction) -> bool {
    matches!(action, ArgAction::Set | ArgAction::Append)
}

/// Returns `key` up to the first separator after `start`, or the whole key if it has none.
fn part(key: &[u8], start: usize) -> &[u8] {
    let rest = key.get(start..).unwrap_or_default();
    let end = rest.iter().position(|byte| SEPARATORS.contains(byte));
    key.get(..end.map_or(key.len(), |end| start + end + 1)).unwrap_or(key)
}

/// Returns the word of a key, or of a part of it, which more letters are to follow.
fn word(key: &[u8], part: &[u8]) -> String {
    let word = quote(&key::show(part));
    if part.len() == key.len() {
        return word + " ";
    }
    match word.strip_suffix('\'') {
        Some(open) if word.starts_with('\'') => open.to_owned(),
        _ => word,
    }
}

const SEPARATORS: [u8; 2] = [b'/', b':'];
/// The maximum number of keys that are offered at once.
const WORDS_MAX: usize = 100;
