//! The cost of a forged or truncated header never exceeds the caps. This is a program of its own,
//! because it measures the memory of the whole process.
#![cfg(all(feature = "crypto", feature = "fault"))]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_types,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reads the system's own figures"
)]

mod audit;
mod common;

use std::sync::Arc;

use codex_core::vfs::Vfs;
use codex_core::{Form, StorageError, Store};
use codex_crypto::{Envelope, Error as CryptoError, KdfCosts, Key};
use codex_storage::Config;
use codex_storage::sync::Mutex;

use audit::{Audited, Book};
use common::format::{ENVELOPE, resum_header_at};
use common::{Files, disk, files};

const NAME: &str = "a.db";

fn costs(t: u32, m_kib: u32, p: u32) -> KdfCosts {
    KdfCosts::new(t, m_kib, p).unwrap()
}

fn key() -> Key {
    Key::passphrase_costing_exactly("a passphrase", costs(1, 8, 1)).unwrap()
}

fn store(form: Form) -> Files {
    let vfs = Vfs::mem(1);
    let store = Store::options().form(form).key(key()).open_in(&vfs, NAME).unwrap();
    store.set("key", "value").unwrap();
    store.close().unwrap();
    files(&vfs)
}

/// Returns the files with another main file.
fn with_main(files: &Files, main: Vec<u8>) -> Vfs {
    let mut files = files.clone();
    files.insert(NAME.to_owned(), main);
    disk(&files)
}

/// Corrects the checksums of the envelope and of the header.
fn resum(main: &mut [u8]) {
    let sum = sha256(&main[224..464]);
    main[464..480].copy_from_slice(&sum[..16]);
    resum_header_at(main, 0);
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).into()
}

/// Returns the maximum memory that this process ever had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn a_truncated_header_derives_nothing_and_a_damaged_one_neither() {
    for form in common::FORMS {
        let files = store(form);
        let main = &files[NAME];
        let book = Arc::new(Mutex::new(Book::default()));
        let open = |main: Vec<u8>| {
            let vfs = with_main(&files, main);
            let mut config = Config::new(vfs.clone(), NAME);
            config.keys = Some(Audited::keys(2, &vfs.entropy, &book));
            codex_storage::open(&config, &mut |_| Ok(())).map(|_| ())
        };
        for len in 0..512 {
            open(main[..len].to_vec()).unwrap_err();
        }
        for bit in 0..512 * 8 {
            let mut main = main.clone();
            main[bit / 8] ^= 1 << (bit % 8);
            open(main).unwrap_err();
        }
        assert_eq!(book.lock().unlocks, 0, "no envelope was opened");
        assert!(matches!(open(main.clone()), Err(codex_storage::Error::Seal { .. })));
        assert_eq!(book.lock().unlocks, 1, "one with checksums that fit is, once");
    }
}

#[test]
fn a_forged_header_costs_no_more_than_the_caps_and_beyond_them_nothing() {
    let files = store(Form::Snapshot);
    let beyond = [
        [KdfCosts::T_MAX + 1, 8, 1],
        [1, KdfCosts::M_KIB_MAX + 1, 1],
        [1, 1 << 10, KdfCosts::P_MAX + 1],
        [16, KdfCosts::M_KIB_MAX, 1],
        [5, KdfCosts::M_KIB_MAX, 4],
        [u32::MAX, u32::MAX, u32::MAX],
        [0, 8, 1],
        [1, 0, 1],
        [1, 7, 1],
    ];
    let before = peak();
    for forged in beyond {
        let mut main = files[NAME].clone();
        for (n, value) in forged.iter().enumerate() {
            main[236 + 4 * n..240 + 4 * n].copy_from_slice(&value.to_le_bytes());
        }
        resum(&mut main);
        let parsed = Envelope::parse(&main[ENVELOPE]).unwrap_err();
        assert!(
            matches!(parsed, CryptoError::KdfTooExpensive { .. } | CryptoError::KdfCosts { .. }),
            "{parsed}"
        );
        let opened = Store::options().key(key()).open_in(&with_main(&files, main), NAME);
        let error = common::storage(opened.unwrap_err());
        assert!(matches!(error, StorageError::Seal { .. }), "{forged:?}: {error}");
    }
    let grown = peak() - before;
    assert!(grown < 16 << 20, "refusing costs took {grown} bytes");
    // Within the caps, the derivation takes the declared cost. Then the commitment or the tag
    // refuses the header.
    let mut main = files[NAME].clone();
    main[240..244].copy_from_slice(&(256_u32 << 10).to_le_bytes());
    resum(&mut main);
    let opened = Store::options().key(key()).open_in(&with_main(&files, main), NAME);
    let error = common::storage(opened.unwrap_err());
    assert!(matches!(error, StorageError::WrongKey { .. }), "{error}");
    let grown = peak() - before;
    println!("256 MiB asked for, {} MiB more at the peak", grown >> 20);
    assert!((250 << 20..300 << 20).contains(&grown), "{grown}");
}
