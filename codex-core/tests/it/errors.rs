//! Tests of errors: the questions that a program asks them, their texts, and their conversion.

use std::io::ErrorKind;

use codex_core::vfs::{LockHolder, Vfs};
use codex_core::{BackupError, Error, OpenOptions, StorageError, Store};
use codex_storage::RecordError;
use codex_storage::seal::SealError;

use crate::common::seed;

/// Returns one error for each question, and the kind of the [`std::io::Error`] that it becomes.
fn asked() -> Vec<(Error, &'static str, ErrorKind)> {
    let vfs = Vfs::mem(seed());
    let never = Store::options().create(false);
    let refused = |options: &OpenOptions, name| options.open_in(&vfs, name).unwrap_err();
    let folder = tempfile::tempdir().unwrap();
    let no_folder = Store::open(folder.path().join("no/a.db")).unwrap_err();
    let store = Store::options().open_in(&vfs, "a.db").unwrap();
    let backups = codex_core::Backups::of_in(&vfs, "a.db");
    let missing = backups.verify(1).unwrap_err();
    let mut errors = vec![
        (refused(&never, "b.db"), "not found", ErrorKind::NotFound),
        (no_folder, "not found", ErrorKind::NotFound),
        (missing, "not found", ErrorKind::NotFound),
        (refused(&never, "a.db"), "locked", ErrorKind::WouldBlock),
        (store.set([0; 70_000], "v").unwrap_err(), "too large", ErrorKind::InvalidInput),
        (store.get::<u64>("raw").err().unwrap_or_else(|| raw(&store)), "", ErrorKind::InvalidData),
    ];
    store.close().unwrap();
    errors.push((store.set("k", "v").unwrap_err(), "closed", ErrorKind::Other));
    let reader = Store::options().read_only(true).open_in(&vfs, "a.db").unwrap();
    errors.push((reader.set("k", "v").unwrap_err(), "read-only", ErrorKind::PermissionDenied));
    #[cfg(feature = "crypto")]
    {
        let key = |byte| codex_core::crypto::Key::raw(&[byte; 32]).unwrap();
        Store::options().key(key(1)).open_in(&vfs, "c.db").unwrap();
        let wrong = refused(&Store::options().key(key(2)), "c.db");
        errors.push((wrong, "wrong key", ErrorKind::PermissionDenied));
    }
    errors
}

fn raw(store: &Store) -> Error {
    store.set_bytes("raw", b"bytes").unwrap();
    store.get::<u64>("raw").unwrap_err()
}

/// A question, and the method that answers it.
type Question = (&'static str, fn(&Error) -> bool);

#[test]
fn each_question_is_answered_by_its_errors_alone() {
    let questions: [Question; 9] = [
        ("not found", Error::is_not_found),
        ("locked", Error::is_locked),
        ("too large", Error::is_too_large),
        ("closed", Error::is_closed),
        ("read-only", Error::is_read_only),
        ("wrong key", Error::is_wrong_key),
        ("no space", Error::is_no_space),
        ("poisoned", Error::is_poisoned),
        ("damage", Error::is_damage),
    ];
    for (error, asked, _) in asked() {
        for (question, is_it) in questions {
            assert_eq!(is_it(&error), question == asked, "{question}: {error:?}");
        }
    }
}

#[test]
fn an_error_becomes_one_of_std_with_its_kind_and_itself_within() {
    for (error, _, kind) in asked() {
        let text = error.to_string();
        let converted = std::io::Error::from(error);
        assert_eq!((converted.kind(), converted.to_string()), (kind, text.clone()));
        let within: &Error = converted.get_ref().unwrap().downcast_ref().unwrap();
        assert_eq!(within.to_string(), text);
    }
    // A caller makes an interrupted call again, which no caller may do here.
    let interrupted = StorageError::Io {
        action: "open",
        path: "a.db".into(),
        source: std::sync::Arc::new(ErrorKind::Interrupted.into()),
    };
    assert_eq!(interrupted.io_kind(), ErrorKind::Other);
}

#[test]
fn debug_names_the_variant_and_ends_in_the_text() {
    for (error, ..) in asked() {
        assert!(format!("{error:?}").ends_with(&format!(": {error}")), "{error:?}");
    }
    let path = || "a.db".into();
    let locked =
        StorageError::Locked { path: path(), holder: LockHolder::Process(7), waited_ms: 5 };
    let text = "a.db is open in another process (id 7, as it sees itself) (waited 5 ms); \
                close the other handle, or set a longer `lock_timeout`";
    assert_eq!(format!("{locked:?}"), format!("Locked: {text}"));
    assert_eq!(format!("{:?}", Error::from(locked)), format!("Storage: Locked: {text}"));
    let missing = BackupError::Missing { path: path() };
    let text = "a.db: does not exist; list shows the backups there are";
    assert_eq!(format!("{missing:?}"), format!("Missing: {text}"));
    assert_eq!(format!("{:?}", Error::from(missing)), format!("Backup: Missing: {text}"));
    let text = "the key has 9 bytes, the limit is 8; store a digest of it instead";
    let record = RecordError::KeyTooLong { len: 9, limit: 8 };
    assert_eq!(format!("{record:?}"), format!("KeyTooLong: {text}"));
    let text = "the key or passphrase does not open this store";
    assert_eq!(format!("{:?}", SealError::WrongKey), format!("WrongKey: {text}"));
    #[cfg(feature = "crypto")]
    {
        let text = "a raw key must have 16, 24 or 32 bytes, but 3 were given";
        let error = codex_core::crypto::Error::KeyLength { found: 3 };
        assert_eq!(format!("{error:?}"), format!("KeyLength: {text}"));
    }
}
