//! Closed logs whose end reads as zeros or is missing.

use crate::common::store::Store;
use crate::common::{Bed, files, mem_with};
use codex_storage::storage::Form;
use codex_storage::{Access, Error};

/// Returns a store that was closed with a log, and the name of the log.
fn closed(form: Form, sealed: bool, commits: usize) -> (Bed, String) {
    let bed = Bed::mem(form, sealed);
    let mut config = bed.config();
    config.checkpoint.close_into_image_bytes_max = 0;
    let mut store = Store::open(config).unwrap();
    for n in 0..commits {
        store.set(&format!("key {n}"), &"value ".repeat(n)).unwrap();
    }
    store.close().unwrap();
    let name = if form == Form::Ledger { "app.db" } else { "app.db.wal.00000000000000000001" };
    (bed, name.to_owned())
}

/// Opens the store with other bytes in its log.
fn read(bed: &Bed, name: &str, bytes: &[u8]) -> codex_storage::Result<Store> {
    let mut files = files(&bed.vfs);
    files.iter_mut().filter(|file| file.0 == name).for_each(|file| file.1 = bytes.to_vec());
    let mut config = Bed { vfs: mem_with(&files), ..bed.clone() }.config();
    config.access = Access::ReadOnly;
    Store::open(config)
}

#[test]
fn a_closed_log_whose_end_is_zeroed_or_missing_is_never_taken_for_a_shorter_one() {
    let (mut refused, mut in_service) = (0, 0);
    for form in [Form::Wal, Form::Ledger] {
        for (sealed, commits) in [(false, 0), (false, 9), (true, 9)] {
            if form == Form::Wal && commits == 0 {
                continue;
            }
            let (bed, name) = closed(form, sealed, commits);
            let whole = crate::common::bytes(&bed.vfs, &name);
            assert!(read(&bed, &name, &whole).unwrap().recovered.clean);
            for at in 512..whole.len() {
                let zeroed = [&whole[..at], &vec![0; whole.len() - at]].concat();
                if zeroed != whole {
                    let result = read(&bed, &name, &zeroed);
                    let is_named = matches!(result, Err(Error::Damaged { .. }));
                    assert!(is_named, "{form}: zeros from {at} on: {result:?}");
                    refused += 1;
                }
                let result = read(&bed, &name, &whole[..at]);
                if at % 512 == 0 {
                    // A log in service that a crash has cut may have this length.
                    let is_clean = result.is_ok_and(|store| store.recovered.clean);
                    assert!(!is_clean, "{form}: cut at {at}");
                    in_service += 1;
                } else {
                    let is_named = matches!(result, Err(Error::Damaged { .. }));
                    assert!(is_named, "{form}: cut at {at}: {result:?}");
                    refused += 1;
                }
            }
        }
    }
    println!("{refused} refused, {in_service} cut to a length that a log in service can have");
    assert!(refused > 5_000 && in_service < refused / 100, "{refused}, {in_service}");
}
