//! The keys by number, and descriptions of stores, states and errors.

use std::sync::Arc;

use codex_core::crypto::{KdfCosts, Key};
use codex_core::{Error, OpenOptions, Store};

use crate::model::{Contents, Kept};
use crate::run::MARK;

/// Returns the reason why the key `given` does not open a store under `key`.
pub fn key_problem(key: Option<u8>, given: Option<u8>) -> Option<&'static str> {
    match (key, given) {
        (None, Some(_)) => Some("NotEncrypted"),
        (Some(_), None) => Some("KeyRequired"),
        (Some(key), Some(given)) if (key < FIRST_PASSPHRASE) != (given < FIRST_PASSPHRASE) => {
            Some("Seal")
        }
        (Some(key), Some(given)) if key != given => Some("WrongKey"),
        _ => None,
    }
}

/// Returns the key with this number: raw keys of each length, then passphrases with the lowest
/// costs.
pub fn key(n: u8) -> Key {
    match n {
        0 => Key::raw(&[1; 16]),
        1 => Key::raw(&[2; 24]),
        2 => Key::raw(&[3; 32]),
        n => {
            let costs = KdfCosts::new(1, 8, 1).expect("the least costs");
            Key::passphrase_costing_exactly(&format!("passphrase {n}"), costs)
        }
    }
    .expect("a key")
}

pub fn keyed(options: OpenOptions, key: Option<u8>) -> OpenOptions {
    match key {
        Some(n) => options.key(self::key(n)),
        None => options,
    }
}

/// Returns the contents of a store directly after it was opened.
pub fn observed(store: &Store, key: Option<u8>) -> Kept {
    let form = store.form().expect("a store with files");
    let history = vec![(store.recovered().seq, Arc::new(contents(store)))];
    Kept { form, key, history, durable: 0 }
}

/// Returns all keys and values. Values of keys that begin with `u` are text.
pub fn contents(store: &Store) -> Contents {
    let read = |entry: codex_core::Entry| {
        let key = entry.key().to_vec();
        let value = match key.first() {
            Some(b'u') => entry.value::<String>().expect("text").into_bytes(),
            _ => entry.bytes().to_vec(),
        };
        (key, value)
    };
    store.iter().map(read).collect()
}

pub fn describe(kept: &Kept) -> String {
    let key = kept.key.map_or("plain".to_owned(), |key| format!("key {key}"));
    format!("{} ({key}) at seq {} with {}", kept.form, kept.seq(), shown(kept.contents()))
}

pub fn shown(contents: &Contents) -> String {
    let entry = |(key, value): (&Vec<u8>, &Vec<u8>)| {
        let tail = value.get(MARK.len()..value.len().min(MARK.len() + 6)).unwrap_or_default();
        format!("{}={}", String::from_utf8_lossy(key), String::from_utf8_lossy(tail))
    };
    format!("{{{}}}", contents.iter().map(entry).collect::<Vec<_>>().join(" "))
}

pub fn said<T>(result: &codex_core::Result<T>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => format!("{}: {error}", class(error)),
    }
}

/// Returns the name of the variant.
pub fn class(error: &Error) -> String {
    let whole = match error {
        Error::Storage(error) => format!("{error:?}"),
        Error::Backup(error) => format!("{error:?}"),
        other => format!("{other:?}"),
    };
    whole.chars().take_while(char::is_ascii_alphanumeric).collect()
}

/// Keys below this number are raw.
const FIRST_PASSPHRASE: u8 = 3;
