//! Encrypted stores on a shared log, as users see them.

use std::time::Duration;

use codex_core::crypto::{Cipher, Key};
use codex_core::shared::{Memory, RecordName, SharedError, SharedLog};
use codex_core::{Error, OpenOptions, StorageError, Store};

const LONG: Duration = Duration::from_secs(60);

fn with_key(key: u8) -> OpenOptions {
    Store::options().key(Key::raw(&[key; 32]).unwrap())
}

fn refusal(options: &OpenOptions, log: &Memory) -> StorageError {
    match options.shared(log.client()) {
        Err(Error::Storage(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn final_error(error: Error) -> SharedError {
    match error {
        Error::Storage(StorageError::Shared(error)) if error.is_final() => error,
        error => panic!("{error}"),
    }
}

#[test]
fn all_nodes_need_the_key_and_the_log_shows_nothing() {
    const SECRET: &str = "a word that no log must show";
    for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
        let log = Memory::new();
        let one = with_key(1).cipher(cipher).shared(log.client()).unwrap();
        one.set(SECRET, &SECRET).unwrap();
        assert!(!one.compare_exchange(SECRET, Some("other"), Some(SECRET)).unwrap());
        let other = with_key(1).shared(log.client()).unwrap();
        assert_eq!(other.get::<String>(SECRET).unwrap().unwrap(), SECRET);
        other.set("b", &2).unwrap();
        one.read_latest(LONG).unwrap();
        assert_eq!(one.get::<i32>("b").unwrap(), Some(2));
        assert_eq!(one.anchor().unwrap(), other.anchor().unwrap());

        let of_key = refusal(&with_key(2), &log);
        assert!(matches!(of_key, StorageError::WrongKey { .. }), "{of_key}");
        let of_none = refusal(&Store::options(), &log);
        assert!(matches!(of_none, StorageError::KeyRequired { .. }), "{of_none}");
        let shows = |bytes: &[u8]| bytes.windows(8).any(|part| SECRET.as_bytes().starts_with(part));
        let entries = log.entries();
        assert!(entries.len() >= 3 && !entries.iter().any(|(_, part)| shows(part)));
        let no_key = one.rekey(Key::raw(&[2; 32]).unwrap()).unwrap_err().to_string();
        assert!(no_key.contains("does not change the key"), "{no_key}");
    }
    let plain = Memory::new();
    Store::options().shared(plain.client()).unwrap();
    let of_plain = refusal(&with_key(1), &plain);
    assert!(matches!(of_plain, StorageError::NotEncrypted { .. }), "{of_plain}");
}

/// The state in the header of a part is no function of the data that can be tried without the key.
#[test]
fn the_states_of_two_stores_with_the_same_commits_differ() {
    let of = |options: &OpenOptions| {
        let log = Memory::new();
        let store = options.shared(log.client()).unwrap();
        store.set("a", &1).unwrap();
        store.set("b", &1).unwrap();
        let (_, part) = log.entries().pop().unwrap();
        part[24..48].to_vec()
    };
    let (one, other) = (of(&with_key(1)), of(&with_key(1)));
    assert_eq!(one[..8], other[..8], "the number of the commit");
    assert_ne!(one[8..], other[8..]);
}

#[test]
fn a_log_that_was_changed_ends_the_node_and_reads_go_on() {
    let log = Memory::new();
    let one = with_key(1).shared(log.client()).unwrap();
    let other = with_key(1).shared(log.client()).unwrap();
    one.set("a", &1).unwrap();
    other.read_latest(LONG).unwrap();
    one.close().unwrap();
    let later = with_key(1).shared(log.client()).unwrap();
    let mut forged = log.entries();
    forged.push(forged[0].clone());
    forged[1].0.n += 1;
    log.forge(&forged);
    let error = final_error(other.read_latest(LONG).unwrap_err());
    assert!(matches!(error, SharedError::BadFrame { .. }), "{error}");
    assert!(other.set("b", &1).is_err());
    assert_eq!(other.get::<i32>("a").unwrap(), Some(1));
    // A node that opens on it is refused.
    let error = refusal(&with_key(1), &log);
    assert!(matches!(error, StorageError::Shared(SharedError::BadFrame { .. })), "{error}");
    drop(later);

    // A store that was replaced is found out by the next session.
    let log = Memory::new();
    let one = with_key(1).shared(log.client()).unwrap();
    one.set("a", &1).unwrap();
    log.forge_record(RecordName::Meta, None);
    one.set("b", &1).unwrap();
    log.fence();
    let error = final_error(one.set("c", &1).unwrap_err());
    assert!(matches!(error, SharedError::MetaChanged { .. }), "{error}");
    assert_eq!(one.len(), 2);
    let error = refusal(&with_key(1), &log);
    assert!(matches!(error, StorageError::Shared(SharedError::NoMeta)), "{error}");
    assert!(log.client().record(RecordName::Meta, LONG).unwrap().is_none());
}
