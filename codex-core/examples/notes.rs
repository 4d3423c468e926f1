//! A program that keeps notes, with an index by tag that is never out of step:
//!
//! ```text
//! cargo run --example notes -- notes.db add "Locks before logs" storage idea
//! cargo run --example notes -- notes.db list [TAG]
//! cargo run --example notes -- notes.db remove 1
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its user")]

use std::error::Error;
use std::process::ExitCode;

use codex_core::Store;
use serde::{Deserialize, Serialize};

/// One note. To add a field later, add a variant to an enum, or store notes as JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    text: String,
    tags: Vec<String>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        // The text of an error has the fault, the place and the next step.
        Err(error) => {
            eprintln!("notes: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let [path, command, rest @ ..] = args.as_slice() else {
        return Err("usage: notes PATH add TEXT [TAG ...] | list [TAG] | remove NUMBER".into());
    };
    let store = Store::open(path)?;
    match (*command, rest) {
        ("add", [text, tags @ ..]) => {
            let number = add(&store, text, tags)?;
            println!("note {number}");
        }
        ("list", []) => {
            for entry in store.prefix("note/") {
                print(entry.key(), &entry.value()?);
            }
        }
        ("list", [tag]) => {
            // The keys of the index are `tag/TAG/NUMBER`; the values name the note.
            for entry in store.prefix(format!("tag/{tag}/")) {
                let key: String = entry.value()?;
                if let Some(note) = store.get(&key)? {
                    print(key.as_bytes(), &note);
                }
            }
        }
        ("remove", [number]) => {
            let removed = remove(&store, number.parse()?)?;
            println!("{}", if removed { "removed" } else { "no such note" });
        }
        _ => return Err("unknown command: add, list or remove".into()),
    }
    // Dropping the store would close it too, but `close` returns the error.
    Ok(store.close()?)
}

/// Adds a note and its index entries in one commit, and returns its number.
fn add(store: &Store, text: &str, tags: &[&str]) -> codex_core::Result<u64> {
    let tags: Vec<String> = tags.iter().map(ToString::to_string).collect();
    store.transaction(|tx| {
        let number = tx.get("last number")?.unwrap_or(0_u64) + 1;
        tx.set("last number", &number)?;
        tx.set(note_key(number), &Note { text: text.to_owned(), tags: tags.clone() })?;
        for tag in &tags {
            tx.set(tag_key(tag, number), &note_key(number))?;
        }
        Ok(number)
    })
}

/// Removes a note and its index entries in one commit. Returns true if there was one.
fn remove(store: &Store, number: u64) -> codex_core::Result<bool> {
    // If another thread removes the note in the meantime, the closure is called again and finds
    // none. A `get` of the store followed by a batch would remove it twice.
    store.transaction(|tx| {
        let Some(note) = tx.take::<Note>(note_key(number))? else { return Ok(false) };
        for tag in &note.tags {
            tx.remove(tag_key(tag, number))?;
        }
        Ok(true)
    })
}

fn print(key: &[u8], note: &Note) {
    println!("{}  {}  {}", String::from_utf8_lossy(key), note.text, note.tags.join(", "));
}

/// Returns the padded number, so that the order of keys is the order of numbers.
fn note_key(number: u64) -> String {
    format!("note/{number:08}")
}

fn tag_key(tag: &str, number: u64) -> String {
    format!("tag/{tag}/{number:08}")
}

#[cfg(test)]
mod tests {
    use super::{add, remove};
    use codex_core::Store;

    #[test]
    fn of_two_threads_that_remove_a_note_one_does() {
        let store = Store::in_memory().unwrap();
        for _ in 0..200 {
            let number = add(&store, "text", &["a", "b"]).unwrap();
            let removed = std::thread::scope(|scope| {
                let both = [(); 2].map(|()| scope.spawn(|| remove(&store, number).unwrap()));
                both.map(|thread| thread.join().unwrap())
            });
            assert_ne!(removed[0], removed[1], "note {number}");
        }
        assert_eq!(store.len(), 1, "the last number is left");
    }
}
