//! Tests of backups of a store outside of the machine.

use std::sync::Arc;

use codex_core::remote::{Fault, Folder, Memory, Remote, unwatched};
use codex_core::vfs::Vfs;
use codex_core::{BackupError, Backups, Error, Form, Store};

use crate::common::FORMS;
use crate::crypto_backup::key;

fn fault_of<T>(result: Result<T, Error>) -> Fault {
    match result {
        Err(Error::Backup(error)) => match &*error {
            BackupError::Remote { fault, .. } => fault.clone(),
            other => panic!("{other}"),
        },
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("no error"),
    }
}

fn remote(vfs: &Vfs, memory: &Arc<Memory>) -> Remote {
    Backups::of_in(vfs, "a.db").remote(Arc::clone(memory) as _).plain_objects(true)
}

#[test]
fn a_store_of_every_form_is_put_elsewhere_beside_writers_and_restored_on_another_machine() {
    for form in FORMS {
        let (vfs, memory) = (Vfs::mem(1), Arc::new(Memory::new()));
        let store = Store::options().form(form).open_in(&vfs, "a.db").unwrap();
        let remote_here = remote(&vfs, &memory);
        let mut seqs = Vec::new();
        for n in 1..=3_u64 {
            store.set("n", &n).unwrap();
            // The callback runs while no lock is held, so it may write.
            let put = store.back_up_remote_watched(&remote_here, &mut |_| {
                store.set("meanwhile", &n).unwrap();
                std::ops::ControlFlow::Continue(())
            });
            seqs.push(put.unwrap().image.facts.seq);
        }
        assert!(!store.back_up_remote(&remote_here).unwrap().image.facts.encrypted);
        assert!(!store.back_up_remote(&remote_here).unwrap().is_new);

        let other = Vfs::mem(2);
        let remote_there = remote(&other, &memory);
        let images = remote_there.list().unwrap().images;
        assert_eq!(images.len(), 4, "{form:?}");
        for (image, (seq, n)) in images.iter().skip(1).rev().zip(seqs.into_iter().zip(1_u64..)) {
            assert_eq!(image.facts.seq, seq, "{form:?}");
            remote_there.verify(image, &mut unwatched).unwrap();
            let restored = Backups::of_in(&other, "a.db").restore_remote(&remote_there, image);
            assert_eq!(restored.unwrap().from.as_ref(), Some(&image.name));
            let store = Store::options().form(form).open_in(&other, "a.db").unwrap();
            assert_eq!(
                (store.get("n").unwrap(), store.stats().storage.seq),
                (Some(n), seq),
                "{form:?}"
            );
            store.verify().unwrap();
        }
    }
}

#[test]
fn a_plain_store_goes_nowhere_unasked_and_an_encrypted_one_stays_encrypted() {
    let (vfs, memory) = (Vfs::mem(1), Arc::new(Memory::new()));
    let shy = Backups::of_in(&vfs, "a.db").remote(Arc::clone(&memory) as _);
    let plain = Store::options().open_in(&vfs, "a.db").unwrap();
    plain.set("secret", "in the clear").unwrap();
    assert!(matches!(fault_of(plain.back_up_remote(&shy)), Fault::Plain));
    assert!(memory.objects().is_empty());
    drop(plain);

    let vfs = Vfs::mem(3);
    let sealed = Store::options().key(key(1)).open_in(&vfs, "a.db").unwrap();
    sealed.set("secret", "in the clear").unwrap();
    sealed.back_up_remote(&shy).unwrap();
    let shown = memory.objects().into_values().flatten().collect::<Vec<u8>>();
    assert!(!shown.windows(5).any(|bytes| bytes == b"clear"));

    // On another machine: with another key it is not restored, with its own it is.
    let other = Vfs::mem(4);
    for (n, is_good) in [(2, false), (1, true)] {
        let backups = Backups::of_in(&other, "a.db").key(key(n));
        let remote = backups.remote(Arc::clone(&memory) as _);
        let image = remote.list().unwrap().images.remove(0);
        assert_eq!(remote.verify(&image, &mut unwatched).is_ok(), is_good);
        assert_eq!(backups.restore_remote(&remote, &image).is_ok(), is_good);
    }
    let store = Store::options().key(key(1)).open_in(&other, "a.db").unwrap();
    assert_eq!(store.get::<String>("secret").unwrap().as_deref(), Some("in the clear"));
}

#[test]
fn another_store_needs_another_place_and_a_store_in_memory_has_none() {
    let memory = Arc::new(Memory::new());
    for seed in [1, 2] {
        let vfs = Vfs::mem(seed);
        let store = Store::options().open_in(&vfs, "a.db").unwrap();
        store.set("n", &seed).unwrap();
        let put = store.back_up_remote(&remote(&vfs, &memory));
        match seed {
            1 => assert!(put.unwrap().is_new),
            _ => assert!(matches!(fault_of(put), Fault::OtherFile)),
        }
    }
    let refused = Store::in_memory().unwrap().back_up_remote(&remote(&Vfs::mem(3), &memory));
    assert!(refused.is_err_and(|error| error.to_string().contains("in memory")));
}

/// A walk on real files: the folder of the store is deleted, and another one takes its place.
#[test]
fn a_store_whose_folder_was_deleted_comes_back_from_a_folder_of_another_disk() {
    let (home, away) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = home.path().join("notes.db");
    let place = Arc::new(Folder::open(away.path()).unwrap());
    let store = Store::options().form(Form::Wal).open(&path).unwrap();
    let remote = Backups::of(&path).unwrap().remote(place).plain_objects(true);
    for n in 0..2_000_u64 {
        store.set(n.to_le_bytes(), &vec![7_u8; 100]).unwrap();
    }
    store.back_up_remote(&remote).unwrap();
    drop(store);
    home.close().unwrap();

    let new_home = tempfile::tempdir().unwrap();
    let path = new_home.path().join("other.db");
    let image = remote.list().unwrap().images.remove(0);
    Backups::of(&path).unwrap().restore_remote(&remote, &image).unwrap();
    let store = Store::open(&path).unwrap();
    assert_eq!(store.len(), 2_000);
    store.set("more", &1).unwrap();
    // The store goes on at the same place.
    assert!(store.back_up_remote(&remote).unwrap().is_new);
    remote.prune(1, &mut unwatched).unwrap();
    assert_eq!(remote.list().unwrap().images.len(), 1);
}
