//! Tests of how often planted files can cause the derivation of a passphrase.

use std::sync::Arc;

use codex_crypto::{Cipher, ENVELOPE_LEN, KdfCosts, Key};
use codex_storage::Error as StorageError;
use codex_storage::seal::{Keys, SealError};
use codex_storage::vfs::{Mode, Open, Vfs};

use super::{ENVELOPES_MAX, SharedKey, UserKey};

fn passphrase() -> Key {
    let least = KdfCosts::new(1, 8, 1).unwrap();
    Key::passphrase_costing_exactly("a passphrase", least).unwrap()
}

fn user_key(key: Key) -> UserKey {
    UserKey::new(SharedKey::new(key), Cipher::default(), Arc::clone(&Vfs::mem(1).entropy))
}

/// The number of derivations of the passphrase.
fn derivations(key: &UserKey) -> usize {
    key.tried.lock().len()
}

/// Returns the envelope with another salt and a valid checksum.
fn forged(envelope: &[u8; ENVELOPE_LEN], n: u8) -> [u8; ENVELOPE_LEN] {
    use sha2::Digest;
    let mut forged = *envelope;
    forged[32] ^= n + 1;
    let sum = sha2::Sha256::digest(&forged[..240]);
    forged[240..].copy_from_slice(&sum[..16]);
    forged
}

#[test]
fn a_passphrase_is_derived_once_an_envelope_and_for_a_few_envelopes() {
    let store = [7; 16];
    let (envelope, root) = user_key(passphrase()).create(&store, None, None).unwrap();
    let key = user_key(passphrase());
    for _ in 0..3 {
        assert_eq!(key.unlock(&store, &envelope).unwrap().root_id(), root.root_id());
        let wrong = key.unlock(&store, &forged(&envelope, 0));
        assert!(matches!(wrong, Err(SealError::WrongKey)));
        let elsewhere = key.unlock(&[8; 16], &envelope);
        assert!(matches!(elsewhere, Err(SealError::Tampered)));
        assert_eq!(derivations(&key), 3);
    }
    // Nothing is derived for a damaged envelope.
    let mut damaged = *envelope;
    damaged[40] ^= 1;
    assert!(matches!(key.unlock(&store, &damaged), Err(SealError::Envelope(_))));
    for n in 1..20 {
        let outcome = key.unlock(&store, &forged(&envelope, n));
        let tried = derivations(&key);
        if usize::from(n) + 3 <= ENVELOPES_MAX {
            assert!(matches!(outcome, Err(SealError::WrongKey)), "{n}");
            assert_eq!(tried, usize::from(n) + 3);
        } else {
            let told = matches!(outcome, Err(SealError::TooManyEnvelopes { tried: 8 }));
            assert!(told, "{n}: {outcome:?}");
            assert_eq!(tried, ENVELOPES_MAX);
        }
    }
    // An envelope that was tried before can still be opened.
    assert!(key.unlock(&store, &envelope).is_ok());
    // Raw keys are not derived with Argon2id, so they are not counted.
    let raw = user_key(Key::raw(&[7; 32]).unwrap());
    let (envelope, _) = raw.create(&store, None, None).unwrap();
    for n in 0..20 {
        assert!(matches!(raw.unlock(&store, &forged(&envelope, n)), Err(SealError::WrongKey)));
    }
    assert_eq!(derivations(&raw), 0);
}

/// Creates a store with one backup. Returns its files and a key that counts derivations.
fn backed_up() -> (Vfs, Arc<UserKey>) {
    let vfs = Vfs::mem(1);
    let store = crate::Store::options().key(passphrase()).open_in(&vfs, "a.db").unwrap();
    store.set("key", "value").unwrap();
    store.back_up().unwrap();
    store.close().unwrap();
    let key = UserKey::new(SharedKey::new(passphrase()), Cipher::default(), vfs.entropy.clone());
    (vfs, Arc::new(key))
}

fn read(vfs: &Vfs, name: &str) -> Vec<u8> {
    let file = vfs.dir.open(name, Open::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn write(vfs: &Vfs, name: &str, bytes: &[u8]) {
    // The file may be missing.
    drop(vfs.dir.remove(name));
    let file = vfs.dir.open(name, Open::CreateNew(Mode::Private)).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file.sync().unwrap();
    vfs.dir.sync().unwrap();
}

/// Makes the genuine backup the oldest, after `count` backups whose envelopes the key does not
/// open.
fn plant(vfs: &Vfs, count: u8) {
    let genuine = read(vfs, "a.db.bak.1");
    for n in 0..count {
        let mut planted = genuine.clone();
        let envelope = forged(genuine[224..480].try_into().unwrap(), n);
        planted[224..480].copy_from_slice(&envelope);
        let crc = crc32c::crc32c(&planted[..508]).to_le_bytes();
        planted[508..512].copy_from_slice(&crc);
        write(vfs, &format!("a.db.bak.{}", n + 1), &planted);
    }
    write(vfs, &format!("a.db.bak.{}", count + 1), &genuine);
}

#[test]
fn planted_backups_make_a_fall_back_derive_at_most_the_bound_and_it_says_so() {
    for (planted, headless, restores) in
        [(7, true, true), (7, false, true), (8, true, false), (30, true, false), (30, false, true)]
    {
        let (vfs, key) = backed_up();
        plant(&vfs, planted);
        let mut main = read(&vfs, "a.db");
        if headless {
            // An image has two headers, and would be repaired from the second.
            main[..512].fill(0);
            let second = main.len() - 512;
            main[second..].fill(0);
        } else {
            // The envelope of the store is tried first, and that of its backup is the same. The
            // damage is in the first block, because a damaged header would be repaired.
            main[512 + 40] ^= 1;
        }
        write(&vfs, "a.db", &main);
        let options = crate::Store::options().fall_back_to_backup(true);
        let opened = options.open_with(&vfs, "a.db", Arc::clone(&key) as Arc<dyn Keys>);
        let wanted = (usize::from(planted) + 1).min(ENVELOPES_MAX);
        assert_eq!(derivations(&key), wanted, "{planted} planted");
        match opened {
            Ok(store) if restores => {
                assert_eq!(store.get::<String>("key").unwrap().as_deref(), Some("value"));
            }
            Err(crate::Error::Storage(StorageError::Seal {
                source: SealError::TooManyEnvelopes { tried: ENVELOPES_MAX },
                ..
            })) if !restores => assert_eq!(read(&vfs, "a.db"), main, "nothing was changed"),
            other => panic!("{planted}, {headless}: {other:?}"),
        }
    }
}

#[test]
fn planted_backups_make_verifying_and_listing_derive_at_most_the_bound() {
    let (vfs, key) = backed_up();
    plant(&vfs, 30);
    let backups = crate::Backups::of_in(&vfs, "a.db");
    let backups = backups.with_keys(Some(Arc::clone(&key) as Arc<dyn Keys>));
    assert!(backups.verify(31).is_ok());
    assert_eq!(derivations(&key), 1);
    let found = backups.newest_good().unwrap();
    assert_eq!(found.good.unwrap().index, 31, "its envelope was tried before");
    assert_eq!(derivations(&key), ENVELOPES_MAX);
    let told = found.skipped.iter().filter(|(_, error)| error.to_string().contains("tried on"));
    assert_eq!(told.count(), 30 - (ENVELOPES_MAX - 1));
    let listed = backups.list().unwrap();
    assert_eq!(listed.len(), 31);
    assert_eq!(listed[30].trust, crate::Trust::Authentic);
    assert_eq!(derivations(&key), ENVELOPES_MAX);
    let (vfs, key) = backed_up();
    plant(&vfs, 30);
    let backups = crate::Backups::of_in(&vfs, "a.db");
    let backups = backups.with_keys(Some(Arc::clone(&key) as Arc<dyn Keys>));
    backups.restore(31).unwrap();
    assert_eq!(derivations(&key), 1, "a restore tries the envelope of its backup alone");
}
