//! Tests of the first steps of every way to open a store: names, pending restores, backups of a
//! missing store, and the cost of an opening.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::common::{FORMS, files, seed, until};
use codex_core::vfs::fault::{FaultDir, Side, Survivors};
use codex_core::vfs::{CallKind, Clock, LockKind, Vfs};
use codex_core::{
    BackupEvent, BackupPolicy, Backups, CheckpointPolicy, Conversion, Error, Form, OpenOptions,
    RestorePoint, StorageError, Store,
};
use codex_storage::vfs::Observed;

/// Returns the options of a store whose log stays after the close.
fn options(form: Form) -> OpenOptions {
    let options = Store::options().form(form).backups(BackupPolicy::keep(3));
    if form != Form::Wal {
        return options;
    }
    let close_into_image_bytes_max = 0;
    options.checkpoint(
        CheckpointPolicy::default().close_into_image_bytes_max(close_into_image_bytes_max),
    )
}

#[test]
fn a_name_whose_files_would_be_taken_for_those_of_another_store_is_refused_everywhere() {
    let long = "n".repeat(211);
    let names = ["a.db.bak", "a.db.lock", "a.db.bak.tmp", "a.db.tmp.image", "a.db.bak.restore"];
    for name in names.into_iter().chain([&*long]) {
        let vfs = Vfs::mem(seed());
        let store = options(Form::Wal).open_in(&vfs, "b.db").unwrap();
        let there = files(&vfs);
        let copied = store.backup_to_in(&vfs, name, &mut |_| ControlFlow::Continue(()));
        let backups = Backups::of_in(&vfs, name);
        let refused = [
            ("open", options(Form::Wal).open_in(&vfs, name).map(drop)),
            ("read", Store::options().read_only(true).open_in(&vfs, name).map(drop)),
            ("convert", Conversion::new().convert_in(&vfs, name).map(drop)),
            ("list", backups.list().map(drop)),
            ("verify", backups.verify(1).map(drop)),
            ("restore", backups.restore(1).map(drop)),
            ("prune", backups.prune(1).map(drop)),
            ("copy", copied.map(drop)),
        ];
        for (entry, refused) in refused {
            let refused = refused.expect_err(entry);
            let is_bad = matches!(refused, Error::Storage(StorageError::BadPath { .. }));
            assert!(is_bad, "{entry} {name}: {refused}");
        }
        assert_eq!(files(&vfs), there, "{name}");
    }
    // No file in the directory of a store is regarded as part of another one.
    let vfs = Vfs::mem(seed());
    crate::common::write(&vfs, "a.db.tmp.notes", b"somebody's");
    options(Form::Wal).open_in(&vfs, "a.db").unwrap().close().unwrap();
    assert_eq!(crate::common::read(&vfs, "a.db.tmp.notes"), b"somebody's");
}

#[test]
fn a_store_under_the_longest_name_is_backed_up_restored_and_converted() {
    let name = "n".repeat(210);
    for form in FORMS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(&name);
        let store = options(form).open(&path).unwrap();
        for n in 1..=3_u64 {
            store.set("n", &n).unwrap();
            store.back_up().unwrap();
        }
        store.set("n", &4_u64).unwrap();
        store.close().unwrap();
        drop(store);
        let backups = Backups::of(&path).unwrap();
        let restored = backups.restore(2).unwrap();
        assert_eq!(restored.replaced.len(), if form == Form::Wal { 2 } else { 1 }, "{form}");
        Conversion::new().form(Form::Snapshot).convert(&path).unwrap();
        let store = Store::options().open(&path).unwrap();
        assert_eq!(store.get::<u64>("n").unwrap(), Some(2), "{form}");
    }
}

/// Returns disks whose store is at 3, with backups of 2 and 1, and with a restore of 1 that was
/// decided and interrupted, one for each set of names that this can leave.
fn interrupted(form: Form) -> Vec<FaultDir> {
    let base = FaultDir::new();
    let store = options(form).open_in(&base.vfs(seed()), "a.db").unwrap();
    for n in 1..=3_u64 {
        store.set("n", &n).unwrap();
        if n < 3 {
            store.back_up().unwrap();
        }
    }
    store.close().unwrap();
    drop(store);
    let base = base.reboot(Survivors::Everything);
    let mut found = std::collections::BTreeMap::new();
    for call in 0.. {
        let disk = base.duplicate();
        disk.cut_power_at(disk.calls() + call, Side::Before);
        let done = Backups::of_in(&disk.vfs(seed()), "a.db").restore(2).is_ok();
        let disk = disk.reboot(Survivors::Everything);
        let vfs = disk.vfs(seed());
        if vfs.dir.metadata("a.db.bak.restore").unwrap().is_some() {
            let mut names = vfs.dir.list().unwrap();
            names.sort();
            found.entry(names).or_insert(disk);
        }
        if done {
            break;
        }
    }
    assert!(found.len() > 2, "{form}: {}", found.len());
    found.into_values().collect()
}

/// A call that writes, by its name.
type Entry<'a> = (&'static str, &'a dyn Fn(&Vfs));

/// Returns the calls that open a store for writing.
fn entries() -> [Entry<'static>; 5] {
    [
        ("open", &|vfs| drop(Store::options().open_in(vfs, "a.db").unwrap())),
        ("convert", &|vfs| {
            let to = Conversion::new().form(Form::Snapshot);
            to.convert_in(vfs, "a.db").unwrap();
        }),
        ("restore", &|vfs| {
            // The store that the finished restore has put in place is replaced again.
            Backups::of_in(vfs, "a.db").restore(2).unwrap();
            assert!(vfs.dir.metadata("a.db.replaced.2").unwrap().is_some());
        }),
        ("prune", &|vfs| {
            assert_eq!(Backups::of_in(vfs, "a.db").prune(1).unwrap(), ["a.db.bak.2"]);
        }),
        ("restore until", &|vfs| {
            let until = Backups::of_in(vfs, "a.db").restore_until(RestorePoint::Seq(1));
            let is_ledger = !matches!(until, Err(Error::Storage(StorageError::WrongForm { .. })));
            assert!(until.is_ok() || !is_ledger, "{until:?}");
        }),
    ]
}

#[test]
fn every_entry_that_writes_finishes_a_restore_that_was_interrupted() {
    for form in FORMS {
        for disk in interrupted(form) {
            for (entry, enter) in &entries() {
                let vfs = disk.duplicate().vfs(seed() + 1);
                enter(&vfs);
                let record = vfs.dir.metadata("a.db.bak.restore").unwrap();
                assert!(record.is_none(), "{entry} {form}");
                let store = Store::options().read_only(true).open_in(&vfs, "a.db").unwrap();
                assert_eq!(store.get::<u64>("n").unwrap(), Some(1), "{entry} {form}");
                let kept = Store::options().read_only(true).open_in(&vfs, "a.db.replaced.1");
                assert_eq!(kept.unwrap().get::<u64>("n").unwrap(), Some(3), "{entry} {form}");
            }
        }
    }
}

/// Returns the same directory. Each call that changes the file of the store or one of its segments
/// checks that no one else can open it. Counts these calls.
fn locked_while_it_changes(inner: &Vfs, calls: &Arc<AtomicU64>) -> Vfs {
    let (other, calls) = (inner.clone(), Arc::clone(calls));
    Observed::vfs(inner, move |call| {
        let is_own = |name: &str| name == "a.db" || name.starts_with("a.db.wal.");
        if !call.kind.changes() || !(is_own(&call.name) || call.to.as_deref().is_some_and(is_own)) {
            return;
        }
        calls.fetch_add(1, Ordering::SeqCst);
        let opened = Store::options().lock_timeout(Duration::ZERO).open_in(&other, "a.db");
        let is_locked = matches!(opened, Err(Error::Storage(StorageError::Locked { .. })));
        assert!(is_locked, "{call}: {opened:?}");
    })
}

#[test]
fn every_entry_that_writes_holds_the_lock_of_the_store_while_its_files_change() {
    for form in FORMS {
        for (entry, enter) in &entries() {
            let calls = Arc::new(AtomicU64::new(0));
            for disk in interrupted(form) {
                enter(&locked_while_it_changes(&disk.duplicate().vfs(seed() + 1), &calls));
            }
            assert!(calls.load(Ordering::SeqCst) > 0, "{entry} {form}");
        }
    }
}

#[test]
fn every_entry_that_only_reads_refuses_a_store_whose_restore_was_interrupted() {
    for form in FORMS {
        for disk in interrupted(form) {
            let vfs = disk.vfs(seed() + 1);
            let there = files(&vfs);
            let commits =
                codex_storage::read_commits(&vfs, "a.db", None, u64::MAX, &mut |_| Ok(()));
            let config = codex_storage::Config::new(vfs.clone(), "a.db");
            let to = codex_storage::Conversion { form: None, keys: None, compression: None };
            let storage = codex_storage::open(&config, &mut |_| Ok(()));
            let refused = [
                ("open", Store::options().read_only(true).open_in(&vfs, "a.db").map(drop)),
                ("verify", codex_storage::verify(&vfs, "a.db", None).map(drop).map_err(Into::into)),
                ("commits", commits.map(drop).map_err(Into::into)),
                ("storage", storage.map(drop).map_err(Into::into)),
                ("convert", codex_storage::convert(config, &to).map(drop).map_err(Into::into)),
            ];
            for (entry, refused) in refused {
                let refused = refused.expect_err(entry);
                let is_pending =
                    matches!(refused, Error::Storage(StorageError::RestorePending { .. }));
                assert!(is_pending, "{entry} {form}: {refused}");
            }
            assert_eq!(files(&vfs), there, "{form}");
            // A restore moves no backups, because a process that cannot finish it needs them.
            let backups = Backups::of_in(&vfs, "a.db");
            let seqs = [1, 2].map(|index| backups.verify(index).unwrap().facts.seq);
            assert_eq!(seqs, [2, 1], "{form}");
        }
    }
}

/// Makes a closed store at 3 with backups of 2 and 1.
fn backed_up(options: &OpenOptions, vfs: &Vfs) {
    let store = options.open_in(vfs, "a.db").unwrap();
    for n in 1..=3_u64 {
        store.set("n", &n).unwrap();
        if n < 3 {
            store.back_up().unwrap();
        }
    }
    store.close().unwrap();
}

/// Removes the store, and leaves its backups.
fn lose(vfs: &Vfs) {
    for name in vfs.dir.list().unwrap() {
        if name == "a.db" || name.starts_with("a.db.wal.") {
            vfs.dir.remove(&name).unwrap();
        }
    }
}

#[test]
fn no_empty_store_takes_the_place_of_one_whose_backups_are_there() {
    for form in FORMS {
        let vfs = Vfs::mem(seed());
        backed_up(&options(form), &vfs);
        lose(&vfs);
        let there = files(&vfs);
        for opening in [Store::options(), Store::options().create_new(true), options(form)] {
            let refused = crate::common::storage(opening.open_in(&vfs, "a.db").unwrap_err());
            let StorageError::OnlyBackups { backup, .. } = &refused else { panic!("{refused}") };
            assert_eq!(backup, "a.db.bak.1");
            let text = refused.to_string();
            assert!(
                text.contains("Backups::restore") && text.contains("move the backups"),
                "{text}"
            );
        }
        let falling = Store::options().fall_back_to_backup(true);
        let refused = falling.clone().create_new(true).open_in(&vfs, "a.db").unwrap_err();
        let refused = crate::common::storage(refused);
        assert!(matches!(refused, StorageError::OnlyBackups { .. }), "{refused}");
        let missing = Store::options().create(false).open_in(&vfs, "a.db").unwrap_err();
        assert!(matches!(crate::common::storage(missing), StorageError::NotFound { .. }));
        assert_eq!(files(&vfs), there, "{form}");
        // Both solutions.
        let fallen = crate::common::disk(&there);
        let store = falling.create(false).open_in(&fallen, "a.db").unwrap();
        assert_eq!(store.get::<u64>("n").unwrap(), Some(2), "{form}");
        Backups::of_in(&vfs, "a.db").restore(1).unwrap();
        let store = Store::options().open_in(&vfs, "a.db").unwrap();
        assert_eq!(store.get::<u64>("n").unwrap(), Some(2), "{form}");
        store.back_up().unwrap();
    }
}

/// With the option for a new store, neither a damaged store nor its backup is opened.
#[test]
fn a_new_store_is_never_made_of_a_backup_whatever_stands_at_its_name() {
    for form in FORMS {
        for damage in [None, Some(0), Some(300), Some(600)] {
            let vfs = Vfs::mem(seed());
            backed_up(&options(form), &vfs);
            if let Some(at) = damage {
                let mut damaged = crate::common::read(&vfs, "a.db");
                let end = damaged.len();
                damaged[at] ^= 1;
                damaged[end - 400] ^= 1;
                crate::common::write(&vfs, "a.db", &damaged);
            }
            let there = files(&vfs);
            let falling = Store::options().fall_back_to_backup(true).create_new(true);
            falling.open_in(&vfs, "a.db").unwrap_err();
            assert_eq!(files(&vfs), there, "{form}, {damage:?}");
        }
    }
}

#[test]
fn a_restore_replaces_an_unrelated_store_only_when_asked() {
    for form in FORMS {
        let vfs = Vfs::mem(seed());
        backed_up(&options(form), &vfs);
        lose(&vfs);
        // Another store with this name, as after a copy by hand.
        let other = options(form).open_in(&vfs, "b.db").unwrap();
        other.set("n", &9_u64).unwrap();
        other.backup_to_in(&vfs, "c.db", &mut |_| ControlFlow::Continue(())).unwrap();
        vfs.dir.rename("c.db", "a.db").unwrap();
        let there = files(&vfs);
        let backups = Backups::of_in(&vfs, "a.db");
        let refused = backups.restore(1).unwrap_err();
        assert!(refused.to_string().contains("replace_unrelated"), "{refused}");
        assert_eq!(files(&vfs), there, "{form}");
        let restored = backups.replace_unrelated(true).restore(1).unwrap();
        assert_eq!(restored.facts.seq, 2, "{form}");
        let kept = Store::options().read_only(true).open_in(&vfs, "a.db.replaced.1").unwrap();
        assert_eq!(kept.get::<u64>("n").unwrap(), Some(9), "{form}");
    }
}

#[test]
fn a_copy_is_refused_beside_what_a_store_of_its_name_would_take_for_its_own() {
    let segment = format!("copy.db.wal.{:020}", 7);
    let companions =
        [segment.as_str(), "copy.db.bak.1", "copy.db.bak.restore", "copy.db.bak.new", "copy.db"];
    for form in FORMS {
        for companion in companions {
            let disk = FaultDir::new();
            let vfs = disk.vfs(seed());
            let store = options(form).open_in(&vfs, "a.db").unwrap();
            store.set("n", &1_u64).unwrap();
            crate::common::write(&vfs, companion, b"of an earlier store");
            let there = files(&vfs);
            disk.record_trace(true);
            let on = &mut |_| ControlFlow::Continue(());
            let refused = store.backup_to_in(&vfs, "copy.db", on).unwrap_err();
            assert!(refused.to_string().contains(companion), "{form} {companion}: {refused}");
            let changes = [CallKind::Create, CallKind::Write, CallKind::Rename, CallKind::Remove];
            let wrote: Vec<_> =
                disk.trace().into_iter().filter(|call| changes.contains(&call.kind)).collect();
            assert!(wrote.is_empty(), "{form} {companion}: refused after {wrote:?}");
            assert_eq!(files(&vfs), there, "{form} {companion}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("a.db")).unwrap();
    for destination in [folder.path().to_owned(), folder.path().join("sub")] {
        let _ = std::fs::create_dir(folder.path().join("sub"));
        let refused = store.backup_to(&destination).unwrap_err();
        assert!(refused.to_string().contains("name a file in it"), "{refused}");
    }
}

/// Damages the store so that no part of it opens.
fn damage(vfs: &Vfs) {
    let bytes = crate::common::read(vfs, "a.db");
    crate::common::write(vfs, "a.db", &bytes[..600]);
}

/// Checks that these options open neither the damaged or missing store nor any of its backups, and
/// that nothing was changed.
fn stays(vfs: &Vfs, options: &OpenOptions, what: &str) {
    for missing in [false, true] {
        let vfs = crate::common::disk(&files(vfs));
        if missing {
            lose(&vfs);
        } else {
            damage(&vfs);
        }
        let there = files(&vfs);
        let refused = options.open_in(&vfs, "a.db").unwrap_err();
        let fallen = options.clone().fall_back_to_backup(true).open_in(&vfs, "a.db").unwrap_err();
        assert_eq!(fallen.to_string(), refused.to_string(), "{what}");
        assert_eq!(files(&vfs), there, "{what}");
    }
}

#[test]
fn a_backup_that_the_options_do_not_open_takes_no_stores_place() {
    for form in FORMS {
        let vfs = Vfs::mem(seed());
        backed_up(&options(form), &vfs);
        let other = if form == Form::Ledger { Form::Wal } else { Form::Ledger };
        stays(&vfs, &options(other), "another form");
        let store = options(form).open_in(&vfs, "a.db").unwrap();
        let anchor = store.anchor().unwrap();
        store.close().unwrap();
        stays(&vfs, &options(form).anchor(anchor), "an anchor newer than all backups");
        stays(&vfs, &options(form).create_new(true), "a store that must be new");
    }
}

#[cfg(feature = "crypto")]
#[test]
fn a_plain_backup_never_takes_the_place_of_an_encrypted_store() {
    use codex_core::crypto::Key;
    let key = |n: u8| Key::raw(&[n; 32]).unwrap();
    for form in FORMS {
        let vfs = Vfs::mem(seed());
        backed_up(&options(form), &vfs);
        Conversion::new().encrypt(key(1)).convert_in(&vfs, "a.db").unwrap();
        let options = options(form).key(key(1));
        stays(&vfs, &options, "backups from before the encryption");
        // The newest backup that these options open, although there are newer intact files.
        let store = options.open_in(&vfs, "a.db").unwrap();
        store.set("n", &4_u64).unwrap();
        store.back_up().unwrap();
        store.close().unwrap();
        drop(store);
        let (keyless, there) = (self::options(form).fall_back_to_backup(true), files(&vfs));
        let refused = crate::common::storage(keyless.open_in(&vfs, "a.db").unwrap_err());
        assert!(matches!(refused, StorageError::KeyRequired { .. }), "{form}: {refused}");
        assert_eq!(files(&vfs), there, "{form}");
        for (from, to) in [("1", "9"), ("2", "1"), ("9", "2")] {
            vfs.dir.rename(&format!("a.db.bak.{from}"), &format!("a.db.bak.{to}")).unwrap();
        }
        let wrong = Backups::of_in(&vfs, "a.db").key(key(2));
        let there = files(&vfs);
        let refused = wrong.restore(2).unwrap_err().to_string();
        assert!(refused.contains("the one given does not open it"), "{form}: {refused}");
        assert_eq!(files(&vfs), there, "{form}");
        damage(&vfs);
        let store = options.fall_back_to_backup(true).open_in(&vfs, "a.db").unwrap();
        assert_eq!(store.get::<u64>("n").unwrap(), Some(4), "{form}");
        assert_eq!(store.restored().unwrap().from.as_deref(), Some("a.db.bak.2"), "{form}");
    }
}

#[test]
fn an_open_without_a_policy_looks_at_a_few_names_and_reads_no_backup() {
    for form in FORMS {
        let disk = FaultDir::new();
        backed_up(&options(form), &disk.vfs(seed()));
        let disk = disk.reboot(Survivors::Everything);
        disk.record_trace(true);
        let store = Store::options().open_in(&disk.vfs(seed()), "a.db").unwrap();
        let trace = disk.trace();
        let of = |kind| trace.iter().filter(move |call| call.kind == kind);
        let lists = of(CallKind::List).count();
        assert!(lists <= usize::from(form == Form::Wal), "{form}: {lists}");
        let of_backups = trace.iter().filter(|call| call.name.contains(".bak."));
        let calls: Vec<_> = of_backups.map(|call| (call.kind, call.name.to_string())).collect();
        assert!(calls.len() <= 8, "{form}: {calls:?}");
        assert!(calls.iter().all(|(kind, _)| *kind == CallKind::Metadata), "{form}: {calls:?}");
        store.close().unwrap();
    }
}

/// Returns options whose policy reports each backup.
fn telling(options: OpenOptions) -> (OpenOptions, Receiver<BackupEvent>) {
    let (told, events) = channel();
    let told = std::sync::Mutex::new(told);
    let tell = move |event: &BackupEvent| drop(told.lock().unwrap().send(event.clone()));
    (options.on_backup(tell), events)
}

/// The clock of a process that has just started. It counts the readings of the monotonic time by
/// the thread that makes backups.
#[derive(Debug)]
struct Restarted {
    now_us: i64,
    asked: AtomicU64,
}

impl Clock for Restarted {
    fn now_us(&self) -> i64 {
        self.now_us
    }
    fn monotonic(&self) -> Duration {
        let is_backup = std::thread::current().name() == Some("codexdb-backup");
        self.asked.fetch_add(u64::from(is_backup), Ordering::SeqCst);
        Duration::ZERO
    }
    fn sleep(&self, _: Duration) {}
}

#[test]
fn a_policy_by_time_knows_the_age_of_a_backup_of_an_earlier_process() {
    let day = Duration::from_secs(24 * 3600);
    for form in FORMS {
        let disk = FaultDir::new();
        // The newest backup is of 2, the store is at 3.
        backed_up(&options(form), &disk.vfs(seed()));
        let vfs = disk.vfs(seed());
        let hour = |hours: i64| vfs.clock.now_us() + hours * 3_600_000_000;
        for (hours, backed_up) in [(23, 4), (25, 3)] {
            let clock = Arc::new(Restarted { now_us: hour(hours), asked: AtomicU64::new(0) });
            let disk = disk.duplicate();
            let vfs = Vfs { clock: clock.clone(), ..disk.vfs(seed()) };
            let policy = BackupPolicy::keep(3).every(day).every_commits(2);
            let (by_time, events) = telling(Store::options().backups(policy));
            let store = by_time.open_in(&vfs, "a.db").unwrap();
            // The thread reads the time to compute the age, to compare it, and then to wait or to
            // make the backup, which has the state before the next commit by then.
            until("the thread has decided", || clock.asked.load(Ordering::SeqCst) >= 3);
            store.set("n", &4_u64).unwrap();
            let event = events.recv().unwrap();
            let made = matches!(event, BackupEvent::Made { seq } if seq == backed_up);
            assert!(made, "{form}, {hours} hours: {event:?}");
            store.close().unwrap();
            assert!(events.try_recv().is_err(), "{form}, {hours} hours");
        }
    }
}

#[test]
fn a_commit_of_another_history_with_an_equal_number_is_backed_up() {
    for form in FORMS {
        let vfs = Vfs::mem(seed());
        backed_up(&options(form), &vfs);
        // Back to 1, and from there to another 2.
        Backups::of_in(&vfs, "a.db").restore(2).unwrap();
        let store = options(form).open_in(&vfs, "a.db").unwrap();
        store.set("n", &22_u64).unwrap();
        store.close().unwrap();
        let policy = BackupPolicy::keep(3).every_commits(1);
        let (by_commits, events) = telling(Store::options().backups(policy));
        let store = by_commits.open_in(&vfs, "a.db").unwrap();
        let event = events.recv().unwrap();
        assert!(matches!(event, BackupEvent::Made { seq: 2 }), "{form}: {event:?}");
        store.close().unwrap();
        let newest = Store::options().read_only(true).open_in(&vfs, "a.db.bak.1").unwrap();
        assert_eq!(newest.get::<u64>("n").unwrap(), Some(22), "{form}");
        // The same history is not backed up twice.
        let listed = Backups::of_in(&vfs, "a.db").list().unwrap().len();
        by_commits.open_in(&vfs, "a.db").unwrap().close().unwrap();
        assert_eq!(Backups::of_in(&vfs, "a.db").list().unwrap().len(), listed, "{form}");
    }
}

#[cfg(feature = "crypto")]
#[test]
fn of_two_changes_of_key_at_once_the_later_one_is_remembered() {
    use codex_core::crypto::Key;
    let key = |n: u8| Key::raw(&[n; 32]).unwrap();
    for form in FORMS {
        let vfs = Vfs::mem(seed());
        let store = options(form).key(key(0)).open_in(&vfs, "a.db").unwrap();
        store.set("n", &1_u64).unwrap();
        for round in 0..100 {
            std::thread::scope(|scope| {
                for n in [1, 2] {
                    let store = &store;
                    scope.spawn(move || store.change_key(key(n)).unwrap());
                }
            });
            store.verify().unwrap_or_else(|error| panic!("{form}, round {round}: {error}"));
        }
    }
}

#[test]
fn a_lock_that_is_held_is_waited_for_with_a_restore_pending_too() {
    let disk = interrupted(Form::Wal).remove(0);
    let vfs = disk.vfs(seed());
    let held = vfs.dir.try_lock("a.db.lock", LockKind::Exclusive).unwrap().unwrap();
    let waiting = Duration::from_millis(75);
    let opened = Store::options().lock_timeout(waiting).open_in(&vfs, "a.db").map(drop);
    let converted = Conversion::new().lock_timeout(waiting).convert_in(&vfs, "a.db").map(drop);
    for refused in [opened, converted] {
        let refused = crate::common::storage(refused.unwrap_err());
        let has_waited = matches!(refused, StorageError::Locked { waited_ms: 75, .. });
        assert!(has_waited, "{refused:?}");
    }
    drop(held);
    Store::options().open_in(&vfs, "a.db").unwrap();
}
