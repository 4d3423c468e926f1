//! Tests of a restore to an earlier commit of a ledger that was converted from another form.

use crate::common::seed;
use codex_core::crypto::Key;
use codex_core::vfs::Vfs;
use codex_core::{Backups, Conversion, Form, RestorePoint, Store};

fn tools(vfs: &Vfs) -> Backups {
    Backups::of_in(vfs, "a.db").key(Key::raw(&[1; 32]).unwrap())
}

fn keys_of(vfs: &Vfs) -> Vec<u32> {
    let key = Key::raw(&[1; 32]).unwrap();
    let store = Store::options().key(key).read_only(true).open_in(vfs, "a.db").unwrap();
    let keys = (0..9).filter(|n: &u32| store.get::<u32>(n.to_string()).unwrap().is_some());
    keys.collect()
}

#[test]
fn a_converted_ledger_goes_back_to_what_it_was_converted_from_and_no_further() {
    for form in [Form::Wal, Form::Snapshot] {
        let vfs = Vfs::mem(seed());
        let store = Store::options().form(form).open_in(&vfs, "a.db").unwrap();
        for n in 0..5_u32 {
            store.set(n.to_string(), &n).unwrap();
        }
        store.close().unwrap();
        drop(store);
        let key = || Key::raw(&[1; 32]).unwrap();
        let done = Conversion::new().form(Form::Ledger).encrypt(key()).convert_in(&vfs, "a.db");
        let anchor = done.unwrap().anchor;
        assert_eq!(anchor.seq, 6, "all entries came in one commit behind the fifth");
        let open = || Store::options().key(key()).anchor(anchor).open_in(&vfs, "a.db").unwrap();
        let store = open();
        store.set("6", &6_u32).unwrap();
        store.rekey(key()).unwrap();
        store.set("7", &7_u32).unwrap();
        store.close().unwrap();
        drop(store);
        for moment in (0..6)
            .map(RestorePoint::Seq)
            .chain([RestorePoint::TimeUs(0), RestorePoint::TimeUs(i64::MIN)])
        {
            let refused = tools(&vfs).restore_until(moment).unwrap_err().to_string();
            assert!(refused.contains("commits 6..=8;"), "{form} {moment:?}: {refused}");
            assert_eq!(keys_of(&vfs), [0, 1, 2, 3, 4, 6, 7]);
        }
        // Before the rekey, and to the first state there is.
        tools(&vfs).restore_until(RestorePoint::Seq(7)).unwrap();
        assert_eq!(keys_of(&vfs), [0, 1, 2, 3, 4, 6]);
        tools(&vfs).restore_until(RestorePoint::Seq(6)).unwrap();
        assert_eq!(keys_of(&vfs), [0, 1, 2, 3, 4]);
        let store = open();
        store.set("8", &8_u32).unwrap();
        store.close().unwrap();
        drop(store);
        drop(open());
    }
}

#[test]
fn a_ledger_that_began_empty_goes_back_to_nothing() {
    let vfs = Vfs::mem(seed());
    let key = || Key::raw(&[1; 32]).unwrap();
    let store = Store::options().form(Form::Ledger).key(key()).open_in(&vfs, "a.db").unwrap();
    store.set("1", &1_u32).unwrap();
    store.close().unwrap();
    drop(store);
    tools(&vfs).restore_until(RestorePoint::Seq(0)).unwrap();
    assert_eq!(keys_of(&vfs), [0; 0]);
}
