//! Tests of a new key, a new root key and a new form: which key opens the store afterwards, after
//! any interruption.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::common::{Pace, until};
use codex_core::vfs::fault::{Fault, FaultDir, Lasting, Side, Survivors};
use codex_core::vfs::{Mode, Open, Vfs};
use codex_core::{
    Anchor, BackupPolicy, CheckpointPolicy, Conversion, Form, OpenOptions, StorageError, Store,
    internals,
};
use codex_crypto::{Cipher, Envelope, KdfCosts, Key};

const FORMS: [Form; 3] = [Form::Wal, Form::Snapshot, Form::Ledger];
const NAME: &str = "app.db";

fn key(n: u8) -> Key {
    Key::raw(&[n; 32]).unwrap()
}

fn options(form: Form) -> OpenOptions {
    let options = Store::options().form(form);
    if form != Form::Wal {
        return options;
    }
    // Makes the close leave a log.
    options.checkpoint(CheckpointPolicy::default().close_into_image_bytes_max(0))
}

fn storage_error(error: codex_core::Error) -> StorageError {
    match error {
        codex_core::Error::Storage(error) => error,
        other => panic!("{other}"),
    }
}

fn opens(vfs: &Vfs, form: Form, n: u8) -> Result<Store, StorageError> {
    options(form).key(key(n)).open_in(vfs, NAME).map_err(storage_error)
}

/// Fills a store and closes it.
fn filled(vfs: &Vfs, form: Form, sealed: bool) -> Anchor {
    let options = if sealed { options(form).key(key(1)) } else { options(form) };
    let store = options.open_in(vfs, NAME).unwrap();
    for n in 0..20_u32 {
        store.set(format!("key {n}"), &n).unwrap();
    }
    store.remove("key 7").unwrap();
    let anchor = store.anchor().unwrap();
    store.close().unwrap();
    anchor
}

fn check(store: &Store) {
    assert_eq!(store.len(), 19);
    for n in (0..20_u32).filter(|&n| n != 7) {
        assert_eq!(store.get::<u32>(format!("key {n}")).unwrap(), Some(n));
    }
}

#[test]
fn the_key_changes_and_the_root_is_renewed_beside_running_writers() {
    const WRITERS: u32 = 3;
    const STEPS: u32 = 20;
    for form in FORMS {
        let disk = FaultDir::new();
        let vfs = disk.vfs(1);
        let store = options(form).key(key(1)).open_in(&vfs, NAME).unwrap();
        let pace = Pace::default();
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (store, pace) = (&store, &pace);
                scope.spawn(move || {
                    pace.each(|n| store.set(format!("{writer}/{n}"), &n).unwrap());
                });
            }
            let _end = pace.end();
            for n in 2..6 {
                let before = store.stats().commits;
                pace.allow(STEPS);
                until("the writers are at it", || store.stats().commits > before + 5);
                store.change_key(key(n)).unwrap();
                store.rekey(key(n + 10)).unwrap();
                pace.allow(STEPS);
                store.checkpoint().unwrap();
                store.rekey(key(n + 20)).unwrap();
                store.verify().unwrap();
            }
        });
        let anchor = store.anchor().unwrap();
        drop(store);
        for wrong in [1, 5, 15] {
            assert!(matches!(opens(&vfs, form, wrong), Err(StorageError::WrongKey { .. })));
        }
        let cut = disk.reboot(Survivors::Nothing).vfs(2);
        let store = options(form).key(key(25)).anchor(anchor).open_in(&cut, NAME).unwrap();
        for (writer, n) in (0..WRITERS).flat_map(|writer| (0..8 * STEPS).map(move |n| (writer, n)))
        {
            assert_eq!(store.get::<u32>(format!("{writer}/{n}")).unwrap(), Some(n));
        }
    }
}

/// Returns the costs in the envelope of the store.
fn costs_of(vfs: &Vfs) -> Option<(u32, u32, u32)> {
    let main = crate::common::read(vfs, NAME);
    let costs = Envelope::parse(&main[224..480]).unwrap().costs();
    costs.map(|costs| (costs.t(), costs.m_kib(), costs.p()))
}

#[test]
fn no_change_of_key_lowers_the_costs_of_a_passphrase_unless_asked_by_name() {
    // The same number of passes as a strong key, but little memory, so that opening is fast.
    let (t, m_kib, p) = (5, 64, 2);
    let many = || {
        let costs = KdfCosts::new(t, m_kib, p).unwrap();
        Key::passphrase_costing_exactly("many passes", costs).unwrap()
    };
    let least = || {
        let costs = KdfCosts::new(KdfCosts::T_MIN, KdfCosts::M_KIB_MIN, 1).unwrap();
        Key::passphrase_costing("as few as can be", costs).unwrap()
    };
    let raised = Some((t, KdfCosts::M_KIB_MIN, p));
    for form in FORMS {
        let disk = FaultDir::new();
        let vfs = disk.vfs(1);
        let store = options(form).key(many()).open_in(&vfs, NAME).unwrap();
        store.set("key", "value").unwrap();
        for rekey in [false, true] {
            let change = |key| if rekey { store.rekey(key) } else { store.change_key(key) };
            change(least()).unwrap();
            assert_eq!(costs_of(&vfs), raised, "{form}, {rekey}: raised, not lowered");
            change(many()).unwrap();
            assert_eq!(costs_of(&vfs), Some((t, m_kib, p)), "{form}, {rekey}: lowered by name");
        }
        store.close().unwrap();
        drop(store);
        for (conversion, wanted) in [
            (Conversion::new().key(many()).encrypt(least()), raised),
            (Conversion::new().key(least()).encrypt(many()), Some((t, m_kib, p))),
            (Conversion::new().key(many()).encrypt(key(1)), None),
            (Conversion::new().key(key(1)).encrypt(many()), Some((t, m_kib, p))),
        ] {
            conversion.convert_in(&vfs, NAME).unwrap();
            assert_eq!(costs_of(&vfs), wanted, "{form}: {conversion:?}");
        }
        if form == Form::Wal {
            // The same passphrase in another form: the default costs are used unless they are
            // lower.
            let same = Key::passphrase("many passes").unwrap();
            let done = Conversion::new().key(same).form(Form::Ledger).convert_in(&vfs, NAME);
            assert_eq!(done.unwrap().form, Form::Ledger);
            assert_eq!(costs_of(&vfs), Some((t, 64 << 10, 4)));
        }
        let key = if form == Form::Wal { Key::passphrase("many passes").unwrap() } else { many() };
        let store = Store::options().key(key).open_in(&vfs, NAME).unwrap();
        assert_eq!(store.get::<String>("key").unwrap().as_deref(), Some("value"));
    }
}

/// Returns a key of a kind: raw with 16, 24 or 32 bytes, or a passphrase.
fn of_kind(kind: usize, n: u8) -> Key {
    if kind < 3 {
        return Key::raw(&vec![n; 16 + 8 * kind]).unwrap();
    }
    let costs = KdfCosts::new(1, 8, 1).unwrap();
    Key::passphrase_costing_exactly(&format!("passphrase {n}"), costs).unwrap()
}

/// Returns which of the keys open the store. Checks that it contains all commits and can be
/// written.
fn opened_by(disk: &FaultDir, form: Form, kinds: [usize; 2], place: &str) -> [bool; 2] {
    let opened = [0, 1].map(|at: usize| {
        let vfs = disk.duplicate().vfs(7);
        let key = of_kind(kinds[at], u8::try_from(at).unwrap());
        let store = match options(form).key(key).open_in(&vfs, NAME).map_err(storage_error) {
            Ok(store) => store,
            // The kind is in the envelope.
            Err(StorageError::Seal { .. }) if (kinds[0] == 3) != (kinds[1] == 3) => return false,
            Err(StorageError::WrongKey { .. }) => return false,
            Err(error) => panic!("{place}: {error}"),
        };
        assert_eq!(store.len(), 3, "{place}");
        store.set("after", &0).unwrap();
        store.close().unwrap();
        true
    });
    assert!(opened[0] || opened[1], "{place}: neither key opens the store");
    opened
}

#[test]
fn an_interrupted_change_between_keys_of_any_kinds_leaves_one_that_opens() {
    let pairs = (0..4).flat_map(|from| (0..4).map(move |to| [from, to]));
    let (mut images, mut both) = (0, [0; 2]);
    for kinds in pairs.filter(|[from, to]| from != to || *from == 3) {
        for (form, rekey) in FORMS.into_iter().flat_map(|form| [(form, false), (form, true)]) {
            for call in 0.. {
                let disk = FaultDir::new();
                let vfs = disk.vfs(1);
                let store = options(form).key(of_kind(kinds[0], 0)).open_in(&vfs, NAME).unwrap();
                store.set("image", &1).unwrap();
                store.checkpoint().unwrap();
                store.set("log", &2).unwrap();
                store.set("more", &3).unwrap();
                let from = disk.calls();
                let is_cut = call % 3 != 2;
                if is_cut {
                    disk.cut_power_at(
                        from + call,
                        [Side::Before, Side::After][(call % 2) as usize],
                    );
                } else {
                    disk.fail_at(from + call, Fault::Eio, Lasting::Once, Side::Before);
                }
                let new = of_kind(kinds[1], 1);
                let done = if rekey { store.rekey(new) } else { store.change_key(new) };
                if disk.calls() - from <= call {
                    break;
                }
                let place = format!("{form}, {kinds:?}, rekey {rekey}, call {call}");
                let survivors =
                    [Survivors::Nothing, Survivors::Everything, Survivors::Seeded(call)];
                for survivors in survivors {
                    let opened = opened_by(&disk.reboot(survivors), form, kinds, &place);
                    assert!(done.is_err() || opened == [false, true], "{place}: {opened:?}");
                    both[usize::from(opened[1])] += 1;
                    images += 1;
                }
            }
        }
    }
    println!("{images} images; the old and the new key open {both:?}");
    assert!(images > 3_000 && both.iter().all(|&count| count > 200), "{images}, {both:?}");
}

/// Returns the names of the root keys of the files: of the store itself, or of its backups. `None`
/// for a file that a crash has left without a header.
fn roots(vfs: &Vfs, of_backups: bool) -> BTreeMap<String, Option<[u8; 16]>> {
    let mut names = vfs.dir.list().unwrap();
    names.retain(|name| {
        name.rsplit('.').next() != Some("lock") && name.contains(".bak.") == of_backups
    });
    let root = |name: String| {
        let bytes = crate::common::read(vfs, &name);
        (name, bytes.get(144..160).map(|root| root.try_into().unwrap()))
    };
    names.into_iter().map(root).collect()
}

#[test]
fn after_a_rekey_only_backups_are_under_a_former_root_also_beside_what_a_crash_left() {
    let mut strays = 0;
    for form in FORMS {
        for call in 0.. {
            let disk = FaultDir::new();
            let options = options(form).backups(BackupPolicy::keep(2));
            let open = |vfs: &Vfs, n| options.clone().key(key(n)).open_in(vfs, NAME);
            let vfs = disk.vfs(1);
            let store = open(&vfs, 1).unwrap();
            store.set("image", &1).unwrap();
            store.checkpoint().unwrap();
            store.set("backup", &2).unwrap();
            store.back_up().unwrap();
            store.set("log", &3).unwrap();
            let of_backup = roots(&vfs, true);
            let mut former: BTreeSet<_> = roots(&vfs, false).into_values().collect();
            let from = disk.calls();
            disk.cut_power_at(from + call, Side::After);
            let done = store.rekey(key(2));
            let is_over = disk.calls() - from <= call;
            assert!(done.is_err() || is_over || opens_at(&disk, &open, 2), "{form} {call}");
            drop(store);
            let vfs = disk.reboot(Survivors::Everything).vfs(2);
            former.extend(roots(&vfs, false).into_values());
            let store = [2, 1].into_iter().find_map(|n| open(&vfs, n).ok()).unwrap();
            strays += u32::from(store.recovered().stray.is_some());
            store.rekey(key(3)).unwrap();
            let is_clean = |when: &str| {
                for (name, root) in roots(&vfs, false) {
                    let place = format!("{form}, call {call}: {name} {when}");
                    assert!(root.is_some() && !former.contains(&root), "{place}: {root:?}");
                }
                assert_eq!(roots(&vfs, true), of_backup, "{form}, call {call}, {when}");
            };
            is_clean("is open");
            store.set("after", &4).unwrap();
            store.checkpoint().unwrap();
            is_clean("was written");
            store.close().unwrap();
            is_clean("is closed");
            drop(store);
            let store = open(&vfs, 3).unwrap();
            assert_eq!(store.len(), 4, "{form}, call {call}");
            is_clean("is open again");
            // Earlier copies still open.
            let backup = Store::options().read_only(true).key(key(1));
            let backup = backup.open_in(&vfs, "app.db.bak.1").unwrap();
            assert_eq!(backup.len(), 2, "{form}, call {call}");
            if is_over {
                assert!(call > 10, "{form}: {call} calls");
                break;
            }
        }
    }
    println!("{strays} strays");
    assert!(strays > 0);
}

/// Returns true if the key opens the files that a power cut would leave now.
fn opens_at(disk: &FaultDir, open: &dyn Fn(&Vfs, u8) -> codex_core::Result<Store>, n: u8) -> bool {
    open(&disk.reboot(Survivors::Nothing).vfs(3), n).is_ok()
}

#[test]
fn a_wrong_a_missing_and_a_superfluous_key_have_errors_of_their_own() {
    for form in FORMS {
        let vfs = FaultDir::new().vfs(1);
        filled(&vfs, form, true);
        assert!(matches!(opens(&vfs, form, 2), Err(StorageError::WrongKey { .. })));
        let missing = options(form).open_in(&vfs, NAME).map_err(storage_error);
        assert!(matches!(missing, Err(StorageError::KeyRequired { .. })));
        check(&opens(&vfs, form, 1).unwrap());
        let vfs = FaultDir::new().vfs(1);
        filled(&vfs, form, false);
        assert!(matches!(opens(&vfs, form, 1), Err(StorageError::NotEncrypted { .. })));
        let store = options(form).open_in(&vfs, NAME).unwrap();
        for refused in [store.change_key(key(2)), store.rekey(key(2))] {
            let refused = storage_error(refused.unwrap_err());
            assert!(matches!(refused, StorageError::NotEncrypted { .. }), "{refused}");
        }
    }
    let refused = storage_error(Store::in_memory().unwrap().rekey(key(1)).unwrap_err());
    assert!(matches!(refused, StorageError::Contradiction(_)));
}

#[test]
fn every_form_converts_to_every_form_plain_and_encrypted() {
    let mut conversions = 0;
    for from in FORMS {
        for sealed in [false, true] {
            for to in FORMS {
                for keyed in [false, true] {
                    let vfs = FaultDir::new().vfs(1);
                    let anchor = filled(&vfs, from, sealed);
                    let mut conversion = Conversion::new().form(to);
                    if sealed {
                        conversion = conversion.key(key(1));
                    }
                    conversion = match (keyed, from == to) {
                        (false, _) => conversion.decrypt(),
                        (true, false) => conversion.encrypt(key(2)),
                        (true, true) => conversion.encrypt_with(key(2), Cipher::ChaCha20Poly1305),
                    };
                    let done = conversion.convert_in(&vfs, NAME).unwrap();
                    assert_eq!(done.form, to);
                    assert!(done.plain.is_empty() && done.under_other_keys.is_empty());
                    let names: Vec<_> = vfs.dir.list().unwrap();
                    assert_eq!(names.len(), 2, "{names:?}");
                    // The earlier anchor is valid, and so is the one in the report.
                    for anchor in [anchor, done.anchor] {
                        let options = options(to).anchor(anchor);
                        let options = if keyed { options.key(key(2)) } else { options };
                        let store = options.open_in(&vfs, NAME).unwrap();
                        check(&store);
                        store.set("after", &0).unwrap();
                        store.remove("after").unwrap();
                        store.verify().unwrap();
                        store.close().unwrap();
                    }
                    if keyed {
                        assert!(matches!(opens(&vfs, to, 1), Err(StorageError::WrongKey { .. })));
                    }
                    conversions += 1;
                }
            }
        }
    }
    assert_eq!(conversions, 36);
}

#[test]
fn a_conversion_reports_every_plain_file_that_stays() {
    let vfs = FaultDir::new().vfs(1);
    filled(&vfs, Form::Snapshot, false);
    let plain = vfs.dir.open(NAME, Open::Read).unwrap();
    for name in ["app.db.bak.1", "app.db.bak.2", "app.db.replaced.1", "other.db"] {
        vfs.dir.reflink(&plain, name, Mode::Frozen).unwrap();
    }
    // A backup whose header a crash has lost.
    let part = "app.db.bak.tmp";
    crate::common::write(&vfs, part, &[7; 1_000]);
    let done = Conversion::new().encrypt(key(1)).convert_in(&vfs, NAME).unwrap();
    let names: Vec<_> = done.plain.iter().map(|path| path.file_name().unwrap()).collect();
    assert_eq!(names, ["app.db.bak.1", "app.db.bak.2", part, "app.db.replaced.1"]);
    vfs.dir.remove(part).unwrap();
    let done = Conversion::new().key(key(1)).convert_in(&vfs, NAME).unwrap();
    assert_eq!((done.plain.len(), done.under_other_keys.len()), (3, 0));
    vfs.dir.remove("app.db.bak.1").unwrap();
    let sealed = vfs.dir.open(NAME, Open::Read).unwrap();
    vfs.dir.reflink(&sealed, "app.db.bak.1", Mode::Frozen).unwrap();
    let done = Conversion::new().key(key(1)).encrypt(key(2)).convert_in(&vfs, NAME).unwrap();
    assert_eq!((done.plain.len(), done.under_other_keys.len()), (2, 1));
    assert!(done.under_other_keys[0].ends_with("app.db.bak.1"));
}

/// Checks that the store is either unchanged or completely converted, never partly plain, and never
/// with less than its contents.
fn one_or_the_other(vfs: &Vfs, from: Form, to: Form, place: &str) -> bool {
    let plain = options(from).open_in(vfs, NAME);
    let (store, converted) = match plain.map_err(storage_error) {
        Ok(store) => (store, false),
        Err(StorageError::KeyRequired { .. } | StorageError::WrongForm { .. }) => {
            (opens(vfs, to, 2).unwrap_or_else(|e| panic!("{place}: {e}")), true)
        }
        Err(e) => panic!("{place}: {e}"),
    };
    check(&store);
    store.set("key 7", &7).unwrap();
    store.remove("key 7").unwrap();
    store.close().unwrap();
    converted
}

#[test]
fn a_power_cut_or_an_error_at_every_call_of_a_conversion_leaves_one_or_the_other() {
    let mut cases = 0;
    for from in FORMS {
        for to in FORMS {
            for call in 0.. {
                let disk = FaultDir::new();
                filled(&disk.vfs(1), from, false);
                let convert = |disk: &FaultDir| {
                    Conversion::new().form(to).encrypt(key(2)).convert_in(&disk.vfs(2), NAME)
                };
                let failing = disk.duplicate();
                disk.cut_power_at(disk.calls() + call, Side::After);
                let done = convert(&disk);
                for survivors in [Survivors::Nothing, Survivors::Seeded(call)] {
                    let place = format!("{from} to {to}, cut at call {call}, {survivors:?}");
                    let vfs = disk.reboot(survivors).vfs(3);
                    let converted = one_or_the_other(&vfs, from, to, &place);
                    assert!(done.is_err() || converted, "{place}");
                    cases += 1;
                }
                failing.fail_at(failing.calls() + call, Fault::Eio, Lasting::Once, Side::Before);
                let failed = convert(&failing);
                let place = format!("{from} to {to}, error at call {call}: {failed:?}");
                let again = failing.crash_process();
                one_or_the_other(&again.vfs(4), from, to, &place);
                one_or_the_other(&again.reboot(Survivors::Nothing).vfs(5), from, to, &place);
                cases += 1;
                if done.is_ok() {
                    break;
                }
            }
        }
    }
    println!("{cases} cases");
    assert!(cases > 500, "{cases}");
}

#[test]
fn an_open_store_keeps_its_root_key_and_no_key_of_the_user() {
    for form in FORMS {
        let vfs = FaultDir::new().vfs(1);
        let keys = |n| internals::keys(key(n), Cipher::default(), Arc::clone(&vfs.entropy));
        let given = keys(1);
        let alive = Arc::downgrade(&given);
        // Created, then opened again.
        for given in [given, keys(1)] {
            let alive = Arc::downgrade(&given);
            let store = internals::open(&options(form), &vfs, NAME, given).unwrap();
            assert_eq!(alive.strong_count(), 0, "{form}");
            store.set("key", "value").unwrap();
            store.close().unwrap();
        }
        assert_eq!(alive.strong_count(), 0, "{form}");
        let store = internals::open(&options(form), &vfs, NAME, keys(1)).unwrap();
        for n in 2..6 {
            let given = keys(n);
            let alive = Arc::downgrade(&given);
            let change = if n % 2 == 0 { internals::change_key } else { internals::rekey };
            change(&store, &*given).unwrap();
            drop(given);
            assert_eq!(alive.strong_count(), 0, "{form}: key {n}");
            // The root key alone is enough for all operations of an open store.
            store.set("key", &n).unwrap();
            assert!(store.verify().unwrap().authenticated, "{form}: key {n}");
            store.checkpoint().unwrap();
            {
                store.back_up().unwrap();
                let copy = format!("copy {n}");
                let on = &mut |_| std::ops::ControlFlow::Continue(());
                store.backup_to_in(&vfs, &copy, on).unwrap();
                let copy = Store::options().key(key(n)).read_only(true).open_in(&vfs, &copy);
                assert_eq!(copy.unwrap().get::<u8>("key").unwrap(), Some(n), "{form}: key {n}");
            }
        }
        store.close().unwrap();
        assert!(store.verify().unwrap().authenticated, "{form}: closed");
        drop(store);
        let store = opens(&vfs, form, 5).unwrap();
        assert_eq!(store.get::<u8>("key").unwrap(), Some(5));
    }
}
