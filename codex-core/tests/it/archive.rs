//! Tests of the archive of an open store.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use codex_core::remote::{
    Body, Created, Fault, Image, Listed, Memory, Moment, Remote, Target, unwatched,
};
use codex_core::vfs::Vfs;
use codex_core::vfs::fault::{FaultDir, Survivors};
use codex_core::{
    Archive, ArchiveEvent, BackupError, Backups, CheckpointPolicy, Durability, Error, Form,
    OpenOptions, StorageError, Store, Writes,
};

use crate::common::{FORMS, until};
use crate::crypto_backup::key;

/// A place in memory that tells its test of each creation before it is done.
#[derive(Debug)]
struct Place {
    memory: Memory,
    before: Mutex<Option<Before>>,
    created: Mutex<Vec<String>>,
}

struct Before(Box<dyn FnMut(&str) + Send>);

impl std::fmt::Debug for Before {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Before")
    }
}

impl Place {
    fn new() -> Arc<Self> {
        let (memory, before, created) = (Memory::new(), Mutex::default(), Mutex::default());
        Arc::new(Self { memory, before, created })
    }

    fn before_each(&self, before: impl FnMut(&str) + Send + 'static) {
        *self.before.lock().unwrap() = Some(Before(Box::new(before)));
    }

    fn remote(self: &Arc<Self>, vfs: &Vfs) -> Remote {
        Backups::of_in(vfs, "a.db").remote(Arc::clone(self) as _).plain_objects(true)
    }

    /// Returns the last commit that can be restored.
    fn last(self: &Arc<Self>) -> u64 {
        self.remote(&Vfs::mem(9)).reach(Moment::Latest).unwrap().seq
    }

    fn images(self: &Arc<Self>) -> Vec<Image> {
        self.remote(&Vfs::mem(9)).list().unwrap().images
    }

    /// Returns those of the commits up to `last` that cannot be restored.
    fn unreached(self: &Arc<Self>, last: u64) -> Vec<u64> {
        let remote = self.remote(&Vfs::mem(9));
        (1..=last).filter(|&seq| remote.reach(Moment::Seq(seq)).is_err()).collect()
    }

    fn names(&self, prefix: &str) -> Vec<String> {
        self.memory.objects().into_keys().filter(|name| name.starts_with(prefix)).collect()
    }
}

impl Target for Place {
    fn create(&self, name: &str, body: &mut Body<'_, '_>) -> Result<Created, Fault> {
        // Taken out, because what it does may create an object.
        let before = self.before.lock().unwrap().take();
        if let Some(mut before) = before {
            (before.0)(name);
            self.before.lock().unwrap().get_or_insert(before);
        }
        let created = self.memory.create(name, body);
        self.created.lock().unwrap().push(name.to_owned());
        created
    }
    fn read_at(&self, name: &str, buf: &mut [u8], at: u64) -> Result<(), Fault> {
        self.memory.read_at(name, buf, at)
    }
    fn size(&self, name: &str) -> Result<Option<u64>, Fault> {
        self.memory.size(name)
    }
    fn list(&self, prefix: &str, sink: &mut dyn FnMut(Listed)) -> Result<(), Fault> {
        self.memory.list(prefix, sink)
    }
    fn remove(&self, name: &str) -> Result<(), Fault> {
        self.memory.remove(name)
    }
    fn sweep(&self, age: Duration) -> Result<u64, Fault> {
        self.memory.sweep(age)
    }
    fn path(&self, name: &str) -> PathBuf {
        self.memory.path(name)
    }
}

fn archive(place: &Arc<Place>) -> Archive {
    Archive::to(Arc::clone(place) as _).plain_objects(true)
}

fn open(vfs: &Vfs, archive: Archive) -> Store {
    Store::options().archive(archive).open_in(vfs, "a.db").unwrap()
}

fn fault_of(error: Error) -> Fault {
    match error {
        Error::Backup(error) => match &*error {
            BackupError::Remote { fault, .. } => fault.clone(),
            other => panic!("{other}"),
        },
        other => panic!("{other}"),
    }
}

/// Returns options that send the events to the receiver.
fn told(archive: Archive) -> (Archive, Receiver<ArchiveEvent>) {
    let (tell, told) = channel();
    let tell: Mutex<Sender<ArchiveEvent>> = Mutex::new(tell);
    (archive.on_event(move |event| drop(tell.lock().unwrap().send(event.clone()))), told)
}

#[test]
fn every_commit_of_every_form_and_level_is_in_the_archive_after_it_was_asked_for() {
    let levels = [Durability::Sync, Durability::Interval(Duration::from_secs(9)), Durability::Os];
    for form in FORMS {
        for level in levels {
            if form == Form::Snapshot && level == Durability::Os {
                continue;
            }
            let (disk, place) = (FaultDir::new(), Place::new());
            let options = Store::options().form(form).durability(level);
            let options = options.archive(archive(&place));
            let store = options.open_in(&disk.vfs(1), "a.db").unwrap();
            for n in 1..=5_u64 {
                store.set("n", &n).unwrap();
                assert_eq!(store.archive_now().unwrap(), n, "{form} {level:?}");
                assert_eq!(place.last(), n, "{form} {level:?}");
                let stats = store.stats().archive.unwrap();
                assert_eq!((stats.seq, stats.lag_us, stats.last_error), (n, 0, None));
                // What the archive has, no power cut takes back.
                let rebooted = disk.reboot(Survivors::Nothing);
                let store = Store::options().open_in(&rebooted.vfs(2), "a.db").unwrap();
                assert_eq!(store.stats().storage.seq, n, "{form} {level:?}");
            }
            assert_eq!(place.unreached(5), [0_u64; 0], "{form} {level:?}");
            assert!(store.stats().to_string().contains("archive_seq=5"), "{}", store.stats());
        }
    }
}

#[test]
fn a_close_sends_the_rest_and_an_opening_goes_on_behind_it() {
    for form in [Form::Wal, Form::Ledger] {
        let (vfs, place) = (Vfs::mem(1), Place::new());
        for life in 1..=4_u64 {
            let options = Store::options().form(form).archive(archive(&place));
            let store = options.open_in(&vfs, "a.db").unwrap();
            // The first attempt is over, so that what follows is not due for 10 seconds.
            store.archive_now().unwrap();
            for n in 1..=3_u64 {
                store.set("n", &(10 * life + n)).unwrap();
            }
            store.close().unwrap();
            assert_eq!(store.stats().archive.unwrap().seq, 3 * life);
            assert_eq!(place.last(), 3 * life, "{form}");
        }
        assert_eq!(place.unreached(12), [0_u64; 0], "{form}");
        if form == Form::Ledger {
            assert_eq!(place.images().len(), 1, "a ledger is sent once, and then its log");
        }
    }
}

#[test]
fn a_store_that_is_closed_at_once_is_sent_before() {
    for form in FORMS {
        let (vfs, place) = (Vfs::mem(1), Place::new());
        for n in 1..=20_u64 {
            let options = Store::options().form(form).archive(archive(&place));
            let store = options.open_in(&vfs, "a.db").unwrap();
            store.set("n", &n).unwrap();
            if n % 2 == 0 {
                store.close().unwrap();
            }
            drop(store);
            assert_eq!(place.last(), n, "{form}");
        }
    }
}

#[test]
fn a_log_that_was_sent_in_part_leads_as_far_as_before() {
    let (disk, place) = (FaultDir::new(), Place::new());
    // In each life one piece of the log is sent, and then the place fails.
    let fail_after_one = || {
        let (failing, mut pieces) = (Arc::clone(&place), 0);
        place.before_each(move |name| {
            pieces += u32::from(name.starts_with("log/"));
            if pieces == 2 {
                failing.memory.go_down_at(0);
            }
        });
    };
    // No checkpoint ends the log.
    let policy = CheckpointPolicy::default().floor_bytes(u64::MAX);
    let open = |vfs: &Vfs| {
        let options = Store::options().archive(archive(&place)).checkpoint(policy);
        options.open_in(vfs, "a.db").unwrap()
    };
    let store = open(&disk.vfs(1));
    store.set("n", &1_u64).unwrap();
    store.archive_now().unwrap();
    fail_after_one();
    for n in 0..3_u64 {
        store.set_bytes(format!("large/{n}"), vec![7; 3 << 20]).unwrap();
    }
    assert!(store.archive_now().is_err());
    disk.cut_power();
    drop(store);
    place.memory.heal();
    assert_eq!(place.last(), 1);

    fail_after_one();
    let store = open(&disk.reboot(Survivors::Everything).vfs(2));
    assert!(store.archive_now().is_err());
    place.memory.heal();
    assert_eq!(place.last(), 1);
    place.before_each(|_| {});
    assert_eq!(store.archive_now().unwrap(), 4);
    assert_eq!(place.last(), 4);
}

#[test]
fn after_a_checkpoint_there_is_an_image_and_the_log_before_it_is_complete() {
    let (vfs, place) = (Vfs::mem(1), Place::new());
    let (archive, told) = told(archive(&place));
    let store = open(&vfs, archive);
    store.archive_now().unwrap();
    for n in 1..=9_u64 {
        store.set("n", &n).unwrap();
        if n % 3 == 0 {
            // Nothing was sent since the last checkpoint, and its log has no name any more.
            store.checkpoint().unwrap();
        }
    }
    store.set("n", &10_u64).unwrap();
    assert_eq!(store.archive_now().unwrap(), 10);
    assert_eq!(place.unreached(10), [0_u64; 0]);
    let images = place.images();
    assert_eq!(images[0].facts.seq, 9);
    assert!(images.iter().all(|image| image.log.is_some()));
    let stats = store.stats().archive.unwrap();
    assert_eq!(stats.image.as_ref(), Some(&images[0].name));
    assert_eq!(stats.images, images.len() as u64);
    let seqs: Vec<u64> = told
        .try_iter()
        .map(|event| match event {
            ArchiveEvent::Image { seq } => seq,
            other => panic!("{other:?}"),
        })
        .collect();
    let listed: Vec<u64> = images.iter().rev().map(|image| image.facts.seq).collect();
    assert_eq!(seqs, listed);
}

#[test]
fn what_was_sent_before_a_crash_is_continued_after_it() {
    let (disk, place) = (FaultDir::new(), Place::new());
    let (mut disk, mut seq) = (disk, 0);
    for life in 0..4 {
        let store = open(&disk.vfs(life), archive(&place));
        for n in 0..3_u64 {
            store.set("n", &n).unwrap();
        }
        seq += 3;
        assert_eq!(store.archive_now().unwrap(), seq);
        // Not sent before the power goes.
        store.set("n", &99_u64).unwrap();
        disk.cut_power();
        let _ = store.close();
        drop(store);
        disk = disk.reboot(Survivors::Everything);
        seq += 1;
    }
    let store = open(&disk.vfs(9), archive(&place));
    assert_eq!(store.archive_now().unwrap(), seq);
    assert_eq!(place.unreached(seq), [0_u64; 0]);
}

/// The entries after each commit, the first of them after none.
type States = Vec<BTreeMap<String, u64>>;

fn keyed(options: OpenOptions, sealed: bool) -> OpenOptions {
    if sealed { options.key(key(1)) } else { options }
}

/// Writes to a store whose machine loses power again and again, and which is lost at the end.
fn lost_store(form: Form, sealed: bool, place: &Arc<Place>) -> States {
    let open = |vfs: &Vfs| {
        let options = keyed(Store::options().form(form), sealed).archive(archive(place));
        options.open_in(vfs, "a.db").unwrap()
    };
    let (mut disk, mut states) = (FaultDir::new(), vec![BTreeMap::new()]);
    for life in 0..3_u64 {
        let store = open(&disk.vfs(life));
        for n in 0..7_u64 {
            let mut state = states.last().cloned().unwrap_or_default();
            let name = format!("{}", n % 4);
            if n == 5 {
                store.remove(&*name).unwrap();
                state.remove(&name);
            } else {
                store.set(&*name, &(100 * life + n)).unwrap();
                state.insert(name, 100 * life + n);
            }
            states.push(state);
            if n == 3 && form == Form::Wal {
                store.checkpoint().unwrap();
            }
            if n % 3 == 0 {
                store.archive_now().unwrap();
            }
        }
        disk.cut_power();
        let _ = store.close();
        drop(store);
        disk = disk.reboot(Survivors::Nothing);
    }
    // Nothing is lost that was acknowledged.
    let store = open(&disk.vfs(9));
    assert_eq!(store.archive_now().unwrap(), states.len() as u64 - 1, "{form}");
    states
}

#[test]
fn a_store_whose_machine_is_lost_comes_back_elsewhere_as_it_was_after_any_commit() {
    for (form, sealed) in FORMS.into_iter().flat_map(|form| [(form, false), (form, true)]) {
        let place = Place::new();
        let states = lost_store(form, sealed, &place);
        let other = Vfs::mem(7);
        let backups = Backups::of_in(&other, "a.db");
        let backups = if sealed { backups.key(key(1)) } else { backups };
        let remote = backups.remote(Arc::clone(&place) as _).plain_objects(true);
        let mut restored = 0;
        for (seq, state) in (0_u64..).zip(&states).skip(1) {
            match backups.restore_archive(&remote, Some(seq.into())) {
                Ok(_) => {}
                // Between the images of a Snapshot there is nothing.
                Err(_) if form == Form::Snapshot => continue,
                Err(error) => panic!("{form} {seq}: {error}"),
            }
            let store = keyed(Store::options(), sealed).open_in(&other, "a.db").unwrap();
            let name =
                |entry: &codex_core::Entry| String::from_utf8_lossy(entry.key()).into_owned();
            let entries = store.iter().map(|entry| (name(&entry), entry.value().unwrap()));
            let found: BTreeMap<String, u64> = entries.collect();
            assert_eq!((&found, store.stats().storage.seq), (state, seq), "{form}");
            restored += 1;
        }
        assert!(restored >= 7, "{form}: {restored}");
        backups.restore_archive(&remote, None).unwrap();
        let store = keyed(Store::options(), sealed).open_in(&other, "a.db").unwrap();
        assert_eq!(store.stats().storage.seq, states.len() as u64 - 1);
        store.verify().unwrap();
    }
}

#[test]
fn a_place_that_fails_is_reported_and_caught_up_with() {
    let (vfs, place) = (Vfs::mem(1), Place::new());
    let (archive, told) = told(archive(&place));
    let store = open(&vfs, archive);
    store.set("n", &1_u64).unwrap();
    store.archive_now().unwrap();
    assert!(store.health().is_well());
    place.memory.go_down_at(0);
    store.set("n", &2_u64).unwrap();
    assert!(matches!(fault_of(store.archive_now().unwrap_err()), Fault::Io { .. }));
    let stats = store.stats().archive.unwrap();
    assert_eq!((stats.seq, stats.failed >= 1, stats.last_error.is_some()), (1, true, true));
    assert!(!store.health().is_well());
    assert!(store.health().to_string().contains("writable; the archive is behind"));
    // Nothing else is refused meanwhile.
    store.set("n", &3_u64).unwrap();
    place.memory.heal();
    assert_eq!(store.archive_now().unwrap(), 3);
    assert!(store.health().is_well());
    assert_eq!(place.unreached(3), [0_u64; 0]);
    let told: Vec<ArchiveEvent> = told.try_iter().collect();
    assert!(matches!(told.first(), Some(ArchiveEvent::Image { .. })), "{told:?}");
    assert!(matches!(told.get(1), Some(ArchiveEvent::Failed { .. })), "{told:?}");
    assert!(matches!(told.last(), Some(ArchiveEvent::Resumed { seq: 3 })), "{told:?}");
}

#[test]
fn writes_are_refused_while_a_commit_has_waited_too_long_if_that_is_asked_for() {
    let (disk, place) = (FaultDir::new(), Place::new());
    let store = open(&disk.vfs(1), archive(&place).require(Duration::from_secs(60)));
    store.set("n", &1_u64).unwrap();
    store.archive_now().unwrap();
    // Nothing waits, however long ago the last commit was.
    disk.clock().advance(Duration::from_secs(1_000));
    until("the thread has seen that nothing waits", || {
        store.set("n", &2_u64).is_ok() || store.archive_now().is_ok()
    });
    store.archive_now().unwrap();
    place.memory.go_down_at(0);
    store.set("n", &3_u64).unwrap();
    disk.clock().advance(Duration::from_secs(59));
    assert_eq!(store.health().writes, Writes::Accepted);
    disk.clock().advance(Duration::from_secs(2));
    match store.set("n", &4_u64) {
        Err(Error::ArchiveBehind { after, .. }) => assert_eq!(after, Duration::from_secs(60)),
        other => panic!("{other:?}"),
    }
    assert_eq!(store.health().writes, Writes::ArchiveBehind);
    assert_eq!(store.get::<u64>("n").unwrap(), Some(3));
    assert!(store.stats().archive.unwrap().lag_us >= 60_000_000);
    place.memory.heal();
    store.archive_now().unwrap();
    store.set("n", &5_u64).unwrap();
    assert_eq!(store.health().writes, Writes::Accepted);
}

#[test]
fn the_archive_that_begins_last_has_the_place() {
    let (disk, place) = (FaultDir::new(), Place::new());
    let (archive_one, told) = told(archive(&place));
    let one = open(&disk.vfs(1), archive_one);
    one.set("n", &1_u64).unwrap();
    one.archive_now().unwrap();
    // A copy of the machine, which runs beside the first one.
    let copy = disk.reboot(Survivors::Everything);
    let two = open(&copy.vfs(2), archive(&place));
    two.set("n", &20_u64).unwrap();
    assert_eq!(two.archive_now().unwrap(), 2);
    one.set("n", &2_u64).unwrap();
    assert!(matches!(fault_of(one.archive_now().unwrap_err()), Fault::Fenced));
    one.checkpoint().unwrap();
    assert!(matches!(fault_of(one.archive_now().unwrap_err()), Fault::Fenced));
    assert!(one.stats().archive.unwrap().is_stopped);
    assert!(told.try_iter().any(|event| matches!(event, ArchiveEvent::Stopped { .. })));
    // The store itself goes on.
    one.set("n", &3_u64).unwrap();
    two.set("n", &21_u64).unwrap();
    two.checkpoint().unwrap();
    assert_eq!(two.archive_now().unwrap(), 3);
    assert_eq!(place.unreached(3), [0_u64; 0]);
}

#[test]
fn a_copy_with_a_log_of_its_own_takes_the_place_within_a_minute() {
    let (disk, place) = (FaultDir::new(), Place::new());
    let one = open(&disk.vfs(1), archive(&place));
    one.set("n", &1_u64).unwrap();
    one.archive_now().unwrap();
    let copy = disk.reboot(Survivors::Everything);
    // From here on each has a log of its own, so no piece of the one meets a piece of the other.
    one.checkpoint().unwrap();
    one.archive_now().unwrap();
    let two = open(&copy.vfs(2), archive(&place));
    two.set("n", &20_u64).unwrap();
    two.checkpoint().unwrap();
    two.archive_now().unwrap();
    let logs = place.names("log/");
    disk.clock().advance(Duration::from_secs(60));
    one.set("n", &2_u64).unwrap();
    assert!(matches!(fault_of(one.archive_now().unwrap_err()), Fault::Fenced));
    assert_eq!(place.names("log/"), logs);
}

#[test]
fn logs_that_wait_too_long_are_given_up_and_the_next_image_goes_on() {
    let (vfs, place) = (Vfs::mem(1), Place::new());
    let (archive, told) = told(archive(&place).behind_max(4_096));
    let store = open(&vfs, archive);
    store.set("n", &1_u64).unwrap();
    store.archive_now().unwrap();
    place.memory.go_down_at(0);
    let mut last = 1;
    for _ in 0..4 {
        for _ in 0..10 {
            store.set("large", &vec![7_u8; 400]).unwrap();
            last += 1;
        }
        store.checkpoint().unwrap();
        assert!(store.archive_now().is_err());
    }
    let cut = store.stats().archive.unwrap().cut.unwrap();
    place.memory.heal();
    store.set("n", &2_u64).unwrap();
    last += 1;
    assert_eq!(store.archive_now().unwrap(), last);
    assert_eq!(place.last(), last);
    let unreached = place.unreached(last);
    assert!(!unreached.is_empty());
    let cuts: Vec<_> = told
        .try_iter()
        .filter_map(|event| match event {
            ArchiveEvent::Cut { commits } => Some(commits),
            _ => None,
        })
        .collect();
    assert_eq!(cuts.last().map(|cut| (*cut.start(), *cut.end())), Some(cut));
    for seq in unreached {
        assert!(cuts.iter().any(|cut| cut.contains(&seq)), "{seq} is not in {cuts:?}");
    }
}

#[test]
fn a_machine_that_was_set_back_goes_on_with_a_new_image_and_a_new_log() {
    // Whether the commits before it are in the image, or in the log that went on.
    for (is_in_image, new_image) in [(false, 1), (true, 2)] {
        let (disk, place) = (FaultDir::new(), Place::new());
        let store = open(&disk.vfs(1), archive(&place));
        store.set("n", &1_u64).unwrap();
        if is_in_image {
            store.checkpoint().unwrap();
        }
        store.archive_now().unwrap();
        let earlier = disk.reboot(Survivors::Everything);
        for n in 2..=4_u64 {
            store.set("n", &n).unwrap();
        }
        assert_eq!(store.archive_now().unwrap(), 4);
        store.close().unwrap();
        drop(store);

        let store = open(&earlier.vfs(2), archive(&place));
        // Nothing was written yet, and all there is is in the archive.
        assert_eq!(store.archive_now().unwrap(), 1);
        for n in 2..=3_u64 {
            store.set("other", &n).unwrap();
            assert_eq!(store.archive_now().unwrap(), n);
            assert_eq!(place.last(), n);
        }
        assert_eq!(place.images()[0].facts.seq, new_image);
        assert!(store.health().is_well());
    }
}

#[test]
fn a_rekey_and_a_change_of_key_send_an_image_under_the_new_key() {
    for form in FORMS {
        let (vfs, place) = (Vfs::mem(1), Place::new());
        let options = Store::options().form(form).key(key(1));
        let store = options.archive(Archive::to(Arc::clone(&place) as _));
        let store = store.open_in(&vfs, "a.db").unwrap();
        let opens = |n: u8| {
            let backups = Backups::of_in(&vfs, "a.db").key(key(n));
            let remote = backups.remote(Arc::clone(&place) as _);
            let newest = remote.list().unwrap().images.remove(0);
            assert!(newest.facts.encrypted);
            remote.verify(&newest, &mut unwatched).is_ok()
        };
        store.set("n", &1_u64).unwrap();
        store.archive_now().unwrap();
        assert!(opens(1), "{form}");
        store.change_key(key(2)).unwrap();
        store.archive_now().unwrap();
        assert!(opens(2) && !opens(1), "{form}");
        store.rekey(key(3)).unwrap();
        store.set("n", &2_u64).unwrap();
        store.archive_now().unwrap();
        assert!(opens(3) && !opens(2), "{form}");
        assert_eq!(place.last(), 2, "{form}");
        let shown = place.memory.objects().into_values().flatten().collect::<Vec<u8>>();
        assert!(!shown.windows(4).any(|bytes| bytes == b"a.db"));
    }
}

#[test]
fn images_and_logs_that_are_not_kept_are_removed_and_each_moment_that_is_kept_stays() {
    let (disk, place) = (FaultDir::new(), Place::new());
    let (hour, day) = (Duration::from_secs(3_600), Duration::from_secs(24 * 3_600));
    let store = open(&disk.vfs(1), archive(&place).keep(2).keep_for(3 * hour));
    for n in 1..=20_u64 {
        store.set("n", &n).unwrap();
        store.checkpoint().unwrap();
        assert_eq!(store.archive_now().unwrap(), n);
        disk.clock().advance(hour);
        place.memory.pass(hour);
    }
    // The newest image before the last three hours, and those since.
    let seqs = |place: &Arc<Place>| -> Vec<u64> {
        place.images().iter().map(|image| image.facts.seq).collect()
    };
    assert_eq!(seqs(&place), [20, 19, 18, 17]);
    disk.clock().advance(2 * day);
    place.memory.pass(2 * day);
    store.set("n", &21_u64).unwrap();
    store.checkpoint().unwrap();
    assert_eq!(store.archive_now().unwrap(), 21);
    assert_eq!(seqs(&place), [21, 20]);
    // That of commit 20 stays: it leads to the state of three hours ago.
    store.set("n", &22_u64).unwrap();
    store.checkpoint().unwrap();
    store.archive_now().unwrap();
    assert_eq!(place.unreached(22), (1..=19).collect::<Vec<u64>>());
    let logs = place.names("log/");
    assert!(logs.iter().all(|name| **name >= *"log/00000000000000000020"), "{logs:?}");
}

#[test]
fn the_newest_image_is_read_again_in_time_and_replaced_if_it_is_damaged() {
    let (disk, place) = (FaultDir::new(), Place::new());
    let week = Duration::from_secs(7 * 24 * 3_600);
    let store = open(&disk.vfs(1), archive(&place));
    store.set("n", &1_u64).unwrap();
    store.checkpoint().unwrap();
    store.archive_now().unwrap();
    let name = place.images()[0].name.clone();
    let mut bytes = place.memory.objects()[&name].clone();
    bytes[600] ^= 1;
    place.memory.damage(&name, Some(bytes));
    store.set("n", &2_u64).unwrap();
    store.archive_now().unwrap();
    assert!(store.health().is_well());
    disk.clock().advance(week);
    assert!(matches!(fault_of(store.archive_now().unwrap_err()), Fault::Altered));
    assert!(store.health().to_string().contains("the archive is behind"));
    // The next attempt sends the image that was written for that.
    assert_eq!(store.archive_now().unwrap(), 2);
    assert_eq!(place.images()[0].facts.seq, 2);
    assert!(store.health().is_well());
}

#[test]
fn the_log_is_sent_while_an_image_is() {
    let (disk, place) = (FaultDir::new(), Place::new());
    let store = open(&disk.vfs(1), archive(&place));
    store.set("n", &1_u64).unwrap();
    store.archive_now().unwrap();
    store.checkpoint().unwrap();
    let (writer, clock) = (store.clone(), disk.clock());
    place.before_each(move |name| {
        if name.starts_with("image/") {
            // The image takes long, and a commit is made meanwhile.
            writer.set("n", &2_u64).unwrap();
            clock.advance(Duration::from_secs(11));
        }
    });
    store.archive_now().unwrap();
    let created = place.created.lock().unwrap().clone();
    let image = created.iter().rposition(|name| name.starts_with("image/")).unwrap();
    let piece = created.iter().rposition(|name| name.starts_with("log/")).unwrap();
    assert!(piece < image, "{created:?}");
    assert_eq!(place.last(), 2);
    place.before_each(|_| {});
}

#[test]
fn after_a_cut_nothing_is_said_to_be_restorable_before_the_next_image_is() {
    let (disk, place) = (FaultDir::new(), Place::new());
    let store = open(&disk.vfs(1), archive(&place).behind_max(4_096));
    store.set("n", &1_u64).unwrap();
    store.archive_now().unwrap();
    place.memory.go_down_at(0);
    for _ in 0..4 {
        for _ in 0..10 {
            store.set("large", &vec![7_u8; 400]).unwrap();
        }
        store.checkpoint().unwrap();
        assert!(store.archive_now().is_err());
    }
    assert!(store.stats().archive.unwrap().cut.is_some());
    place.memory.heal();
    let (reader, clock, said) = (store.clone(), disk.clock(), Arc::new(Mutex::new(Vec::new())));
    let noted = Arc::clone(&said);
    place.before_each(move |name| {
        if name.starts_with("manifest/") {
            // The image is there, and no manifest lists it.
            noted.lock().unwrap().push(reader.stats().archive.unwrap().seq);
        } else if name.starts_with("image/") {
            clock.advance(Duration::from_secs(11));
        }
    });
    assert_eq!(store.archive_now().unwrap(), 41);
    assert_eq!(said.lock().unwrap().first(), Some(&1));
    assert_eq!(store.stats().archive.unwrap().seq, 41);
    place.before_each(|_| {});
}

#[test]
fn an_image_is_given_up_by_a_close_which_sends_the_log() {
    let (vfs, place) = (Vfs::mem(1), Place::new());
    let store = open(&vfs, archive(&place));
    store.set("n", &1_u64).unwrap();
    store.archive_now().unwrap();
    store.set("n", &2_u64).unwrap();
    store.checkpoint().unwrap();
    let (began, begun) = channel();
    let (go_on, goes_on) = channel::<()>();
    place.before_each(move |name| {
        if name.starts_with("image/") {
            began.send(()).unwrap();
            let _ = goes_on.recv();
        }
    });
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| store.archive_now());
        begun.recv().unwrap();
        store.set("n", &3_u64).unwrap();
        let closing = scope.spawn(|| store.close());
        until("the store is closed", || store.health().writes == Writes::Closed);
        drop(go_on);
        closing.join().unwrap().unwrap();
        assert!(asked.join().unwrap().is_err());
    });
    assert_eq!(place.last(), 3);
    assert_eq!(place.images().len(), 1);
}

#[test]
fn a_close_waits_no_longer_than_it_was_told() {
    let (vfs, place) = (Vfs::mem(1), Place::new());
    let store = open(&vfs, archive(&place).close_wait(Duration::from_millis(1)));
    store.set("n", &1_u64).unwrap();
    store.archive_now().unwrap();
    store.set("n", &2_u64).unwrap();
    let (go_on, goes_on) = channel::<()>();
    place.before_each(move |_| _ = goes_on.recv());
    // The place does not answer.
    store.close().unwrap();
    assert_eq!(place.last(), 1);
    drop(go_on);
    until("the last piece is sent", || place.last() == 2);
}

#[test]
fn the_callback_may_use_and_close_the_store_and_may_not_wait_for_the_archive() {
    let (vfs, place) = (Vfs::mem(1), Place::new());
    let own: Arc<Mutex<Option<Store>>> = Arc::default();
    let (seen, results) = (Arc::clone(&own), Arc::new(Mutex::new(BTreeMap::new())));
    let noted = Arc::clone(&results);
    let archive = archive(&place).on_event(move |event| {
        let Some(store) = seen.lock().unwrap().clone() else { return };
        if let ArchiveEvent::Image { seq } = event {
            store.set("told", seq).unwrap();
            noted.lock().unwrap().insert(*seq, store.archive_now().unwrap_err().to_string());
            if *seq > 2 {
                store.close().unwrap();
            }
        }
    });
    let store = open(&vfs, archive);
    store.archive_now().unwrap();
    *own.lock().unwrap() = Some(store.clone());
    store.set("n", &1_u64).unwrap();
    store.checkpoint().unwrap();
    store.archive_now().unwrap();
    let texts = results.lock().unwrap().clone();
    assert!(texts[&1].contains("cannot wait for the archive"), "{texts:?}");
    store.set("n", &2_u64).unwrap();
    store.checkpoint().unwrap();
    let _ = store.archive_now();
    until("the callback has closed the store", || store.health().writes == Writes::Closed);
    *own.lock().unwrap() = None;
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let (vfs, place) = (Vfs::mem(1), Place::new());
    let refused = |options: OpenOptions| match options.open_in(&vfs, "a.db") {
        Err(Error::Storage(StorageError::Contradiction(what))) => what,
        other => panic!("{other:?}"),
    };
    let with = |archive: Archive| refused(Store::options().archive(archive));
    assert!(with(archive(&place).every(Duration::ZERO)).contains("never rest"));
    assert!(with(archive(&place).keep(0)).contains("1 image"));
    assert!(with(archive(&place).keep_for(Duration::from_secs(9))).contains("`keep`"));
    assert!(with(archive(&place).require(Duration::from_secs(10))).contains("`every`"));
    let reading = Store::options().archive(archive(&place)).read_only(true);
    assert!(refused(reading).contains("archive"));
    assert!(Store::options().archive(archive(&place)).in_memory().is_err());
    // No file was made, and nothing was sent.
    assert!(vfs.dir.list().unwrap().is_empty());
    assert!(place.memory.objects().is_empty());

    let store = Store::options().open_in(&vfs, "a.db").unwrap();
    assert!(store.archive_now().unwrap_err().to_string().contains("without an archive"));
    assert!(store.stats().archive.is_none());
    drop(store);
    // A plain store goes nowhere unasked.
    let store = open(&vfs, Archive::to(Arc::clone(&place) as _));
    store.set("n", &1_u64).unwrap();
    assert!(matches!(fault_of(store.archive_now().unwrap_err()), Fault::Plain));
    assert!(place.names("image/").is_empty() && place.names("log/").is_empty());
}
