//! Tests of restores from an archive: the state after each commit of a random history comes back,
//! and a moment that is not reached changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use codex_core::internals::{self, ArchivePoint, Entry};
use codex_core::remote::{
    ArchiveWriter, Fault, LogId, LogStart, Memory, Moment, Remote, unwatched,
};
use codex_core::vfs::fault::{Calls, FaultDir};
use codex_core::vfs::{CallKind, Clock, SimClock, Vfs};
use codex_core::{
    BackupError, Backups, CheckpointPolicy, Durability, Error, Form, OpenOptions, RestorePoint,
    Restored, Seq, StorageError, Store, Table,
};
use codex_storage::batch::TableId;
use codex_storage::storage::LogPart;

use crate::common::{Random, SEALED, files, sealed, seed, until};

/// All entries: the table, the key and the stored bytes.
type State = BTreeMap<(Option<u32>, Vec<u8>), Vec<u8>>;

fn state(store: &Store) -> State {
    let ordered = internals::view(store).ordered;
    let entries = ordered.iter_with_tables();
    let name = |entry: &Entry| (entry.table().map(TableId::get), entry.key().to_vec());
    entries.map(|entry| (name(entry), entry.value().to_vec())).collect()
}

fn backups(vfs: &Vfs, is_sealed: bool) -> Backups {
    let backups = Backups::of_in(vfs, "a.db");
    #[cfg(feature = "crypto")]
    if is_sealed {
        return backups.key(codex_core::crypto::Key::raw(&[7; 32]).unwrap());
    }
    let _ = is_sealed;
    backups
}

/// A store, the archive of it, and the states that it had.
struct Archived {
    options: OpenOptions,
    is_sealed: bool,
    disk: FaultDir,
    clock: SimClock,
    store: Store,
    table: Table<u64, String>,
    random: Random,
    memory: Arc<Memory>,
    remote: Remote,
    writer: ArchiveWriter,
    /// The image that was sent last.
    image: Seq,
    is_sent: bool,
    /// The state after each commit since the archive began, and the time of the commit.
    states: BTreeMap<Seq, (State, i64)>,
    /// The last commit that was sent, after each sending that had news, and the time then.
    sent: Vec<(Seq, i64)>,
}

impl Archived {
    fn begin(form: Form, level: Durability, is_sealed: bool, seed: u64) -> Self {
        let (disk, memory) = (FaultDir::new(), Arc::new(Memory::new()));
        let policy = CheckpointPolicy::default().close_into_image_bytes_max(300 * (seed % 2));
        let mut options = Store::options().form(form).durability(level);
        if form == Form::Wal {
            options = options.checkpoint(policy);
        }
        let options = internals::without_threads(sealed(&options, is_sealed));
        let vfs = disk.vfs(seed);
        let store = options.open_in(&vfs, "a.db").unwrap();
        let table = store.table::<u64, String>("rows").unwrap();
        let remote = backups(&vfs, is_sealed).remote(Arc::clone(&memory) as _);
        let remote = remote.plain_objects(true);
        let engine = internals::engine(&store);
        engine.keep_ended_logs(1 << 30);
        let (main, _) = engine.archive_point().unwrap().main.to_copy().unwrap();
        let writer = remote.begin_archive(&main).unwrap();
        let (image, states, sent) = (0, BTreeMap::new(), Vec::new());
        let (clock, random, is_sent) = (disk.clock(), Random(seed), false);
        let mut archived = Self {
            options,
            is_sealed,
            disk,
            clock,
            store,
            table,
            random,
            memory,
            remote,
            writer,
            image,
            is_sent,
            states,
            sent,
        };
        archived.settle();
        archived.note();
        archived.send();
        archived
    }

    /// Makes the last commits part of an image. Ledgers keep them.
    fn settle(&self) {
        self.store.checkpoint().unwrap();
    }

    fn seq(&self) -> Seq {
        self.store.stats().storage.seq
    }

    fn last(&self) -> Seq {
        *self.states.keys().next_back().unwrap()
    }

    fn is_ledger(&self) -> bool {
        self.store.form() == Some(Form::Ledger)
    }

    /// Notes the state after the last commit.
    fn note(&mut self) {
        let now = (state(&self.store), self.clock.now_us());
        // What changes nothing is no commit.
        self.states.entry(self.seq()).or_insert(now);
    }

    /// Sends what is durable, as an archive does.
    fn send(&mut self) {
        self.clock.set_now_us(self.clock.now_us() + 1);
        let engine = internals::engine(&self.store);
        let ArchivePoint { main, ended, parts, dropped, .. } = engine.archive_point().unwrap();
        assert_eq!(dropped, None);
        for part in ended {
            self.send_part(&part);
        }
        let first = &parts[0];
        let image = main.facts(&mut |_| true).unwrap().seq;
        let is_new = !self.is_sent || (image != self.image && !self.is_ledger());
        if is_new {
            self.image = image;
            let from = if self.is_ledger() { first.end } else { 0 };
            let start = LogStart { log: self.log(first), from };
            let (file, _) = main.to_copy().unwrap();
            self.remote.put_image(&self.writer, &file, Some(start), &mut unwatched).unwrap();
            self.is_sent = true;
        }
        for part in &parts {
            if self.send_part(part) {
                self.sent.push((part.seq, self.clock.now_us()));
            }
        }
    }

    fn log(&self, part: &LogPart) -> LogId {
        if self.is_ledger() {
            let (file_id, follows) = (part.file_id, self.writer.id());
            return LogId { base_seq: self.image, file_id, follows };
        }
        LogId { base_seq: part.base_seq, file_id: part.file_id, follows: part.follows }
    }

    /// Sends the rest of a log in pieces of random lengths. Returns whether there was a rest.
    fn send_part(&mut self, part: &LogPart) -> bool {
        let log = self.log(part);
        let newest = self.remote.list().unwrap().images;
        let start = newest.first().and_then(|image| image.log);
        let from = start.filter(|_| self.is_ledger()).map_or(0, |start| start.from);
        let mut at = self.remote.log_end(&log, from, &*part.file).unwrap().unwrap().offset;
        let is_news = at < part.end;
        while at < part.end {
            let len = (1 + self.random.next(2_000)).min(part.end - at);
            let mut bytes = vec![0; usize::try_from(len).unwrap()];
            part.file.read_exact_at(&mut bytes, at).unwrap();
            let known = self.sent.last().map_or(0, |sent| sent.0).max(log.base_seq);
            let seq = if at + len == part.end { part.seq } else { known.min(part.seq) };
            at = self.remote.put_piece(&log, at, &bytes, seq, self.clock.now_us()).unwrap();
        }
        is_news
    }

    /// Makes one commit.
    fn commit(&mut self) {
        self.clock.set_now_us(self.clock.now_us() + i64::try_from(self.random.next(3)).unwrap());
        let key = format!("key {}", self.random.next(12));
        let row = self.random.next(5);
        let value = vec![b'v'; usize::try_from(self.random.next(900)).unwrap()];
        match self.random.next(12) {
            0 => drop(self.store.remove(&key).unwrap()),
            1 => self.store.clear().unwrap(),
            2 => drop(self.table.remove(row).unwrap()),
            3..5 => self.table.set(row, &key).unwrap(),
            5 => {
                let mut batch = self.store.batch();
                batch.set_bytes("one", &value).unwrap().set_bytes("two", &value).unwrap();
                batch.remove(&key).unwrap();
                batch.commit().unwrap();
            }
            6 => self.group(),
            _ => self.store.set_bytes(&key, &value).unwrap(),
        }
        self.note();
    }

    /// Makes a commit and, while it is written, three others, which then form one group.
    fn group(&mut self) {
        let (before, first) = (state(&self.store), self.seq() + 1);
        let gate = self.disk.hold(Calls::of(CallKind::Write).on("a.db*"));
        let (store, n) = (&self.store, self.random.next(1 << 20));
        let set = |name: String| {
            let mut batch = store.batch();
            batch.set_bytes(&name, b"together").unwrap();
            (batch.commit().unwrap(), name)
        };
        let groups = store.stats().storage.groups;
        let mut made = std::thread::scope(|scope| {
            let leading = scope.spawn(|| set(format!("group {n}")));
            gate.wait_for(1);
            let others = [1, 2, 3].map(|m| scope.spawn(move || set(format!("group {n} {m}"))));
            until("the others wait", || store.stats().waiting == 3);
            gate.release();
            let mut made = others.map(|other| other.join().unwrap()).to_vec();
            made.push(leading.join().unwrap());
            made
        });
        assert_eq!(store.stats().storage.groups, groups + 2);
        made.sort();
        let after = state(store);
        let mut state = before;
        for (seq, (made_as, name)) in (first..).zip(made) {
            assert_eq!(made_as, seq);
            let name = (None, name.into_bytes());
            state.insert(name.clone(), after[&name].clone());
            self.states.insert(seq, (state.clone(), self.clock.now_us()));
        }
    }

    fn reopen(&mut self) {
        self.store.close().unwrap();
        let ended = internals::engine(&self.store).take_ended_logs();
        assert_eq!(ended.dropped, None);
        for part in &ended.parts {
            self.send_part(part);
        }
        self.store = self.options.open_in(&self.disk.vfs(self.seq() + 7), "a.db").unwrap();
        self.table = self.store.table::<u64, String>("rows").unwrap();
        internals::engine(&self.store).keep_ended_logs(1 << 30);
    }

    /// Makes a random history.
    fn live(&mut self, commits: u64) {
        for _ in 0..commits {
            self.commit();
            match self.random.next(14) {
                0 | 1 => self.store.checkpoint().unwrap(),
                2 => self.reopen(),
                3..7 => self.send(),
                _ => {}
            }
        }
        self.send();
    }

    fn restore(&self, vfs: &Vfs, until: Option<RestorePoint>) -> Result<Restored, Error> {
        let backups = backups(vfs, self.is_sealed);
        let remote = backups.remote(Arc::clone(&self.memory) as _);
        backups.restore_archive(&remote, until)
    }

    /// Restores the store in an empty folder, and returns the last commit of it.
    fn assert_restores(&self, until: Option<RestorePoint>) -> Seq {
        let vfs = Vfs::mem(3);
        let restored = self.restore(&vfs, until).unwrap();
        assert!(restored.from.is_some_and(|from| from.starts_with("image/")));
        assert!(files(&vfs).keys().all(|name| !name.contains("tmp")), "{until:?}");
        let store = self.options.open_in(&vfs, "a.db").unwrap();
        let seq = store.stats().storage.seq;
        assert_eq!(state(&store), self.states[&seq].0, "{until:?}");
        store.verify().unwrap();
        store.set("goes", "on").unwrap();
        seq
    }
}

const LEVELS: [Durability; 2] = [Durability::Sync, Durability::Interval(Duration::from_secs(9))];

fn each_archive(form: Form, test: impl Fn(Archived)) {
    for (n, &is_sealed) in SEALED.iter().enumerate() {
        for (m, level) in LEVELS.into_iter().enumerate() {
            let seed = 4 * seed() + 2 * n as u64 + m as u64;
            let mut archived = Archived::begin(form, level, is_sealed, seed);
            archived.live(50);
            test(archived);
        }
    }
}

#[test]
fn each_commit_of_a_wal_comes_back() {
    each_archive(Form::Wal, |archived| {
        let images = archived.remote.list().unwrap().images.len();
        assert!(images > 1, "{images} images");
        for &seq in archived.states.keys() {
            assert_eq!(archived.assert_restores(Some(RestorePoint::Seq(seq))), seq);
        }
        assert_eq!(archived.assert_restores(None), archived.last());
        // A time is reached to within the interval of the sendings.
        for &(seq, time_us) in &archived.sent {
            let reached = archived.assert_restores(Some(RestorePoint::TimeUs(time_us)));
            assert!(reached >= seq && archived.states[&reached].1 <= time_us, "{seq}: {reached}");
        }
    });
}

#[test]
fn each_commit_and_each_time_of_a_ledger_comes_back() {
    each_archive(Form::Ledger, |archived| {
        let times: Vec<_> = archived.states.iter().map(|(&seq, (_, time))| (seq, *time)).collect();
        for &(seq, time_us) in &times {
            assert_eq!(archived.assert_restores(Some(RestorePoint::Seq(seq))), seq);
            let last = times.iter().rfind(|(_, time)| *time <= time_us).unwrap().0;
            assert_eq!(archived.assert_restores(Some(RestorePoint::TimeUs(time_us))), last);
        }
        assert_eq!(archived.assert_restores(None), archived.last());
    });
}

#[test]
fn a_moment_that_is_not_reached_names_the_last_commit_and_changes_nothing() {
    for form in [Form::Wal, Form::Ledger] {
        let mut archived = Archived::begin(form, Durability::Sync, SEALED.len() > 1, 3);
        archived.live(10);
        let sent = archived.last();
        archived.store.set("later", "not sent").unwrap();
        let last = archived.seq();
        let vfs = archived.disk.duplicate().vfs(5);
        let before = files(&vfs);
        match archived.restore(&vfs, Some(RestorePoint::Seq(last))) {
            Err(Error::Backup(error)) => match &*error {
                BackupError::Remote { fault: Fault::NotReached { seq, .. }, .. } => {
                    assert_eq!(*seq, sent, "{form:?}");
                }
                other => panic!("{form:?}: {other}"),
            },
            other => panic!("{form:?}: {other:?}"),
        }
        assert_eq!(files(&vfs), before, "{form:?}");
        // The store in place is kept when another state takes its place.
        let restored = archived.restore(&vfs, Some(RestorePoint::Seq(sent - 1))).unwrap();
        assert!(restored.replaced.iter().any(|(name, _)| name == "a.db"));
        let store = archived.options.open_in(&vfs, "a.db").unwrap();
        assert_eq!(state(&store), archived.states[&(sent - 1)].0);
    }
}

#[test]
fn a_damaged_log_or_a_missing_key_restores_nothing() {
    for &is_sealed in SEALED {
        let mut archived = Archived::begin(Form::Wal, Durability::Sync, is_sealed, 8);
        for _ in 0..6 {
            archived.commit();
        }
        archived.send();
        let last = archived.last();
        let vfs = Vfs::mem(5);
        if is_sealed {
            let backups = Backups::of_in(&vfs, "a.db");
            let remote = backups.remote(Arc::clone(&archived.memory) as _);
            let blind = backups.restore_archive(&remote, Some(RestorePoint::Seq(last)));
            assert!(matches!(blind, Err(Error::Storage(StorageError::KeyRequired { .. }))));
        }
        let reached = archived.remote.reach(Moment::Latest).unwrap();
        assert_eq!((reached.logs.len(), reached.seq), (1, last));
        // Each piece once with another byte.
        let objects = archived.memory.objects();
        let log = format!("log/{:020}-", reached.image.facts.seq);
        for (name, bytes) in objects.iter().filter(|(name, _)| name.starts_with(&log)) {
            let mut changed = bytes.clone();
            *changed.last_mut().unwrap() ^= 1;
            changed[80] ^= 1;
            archived.memory.damage(name, Some(changed));
            let refused = archived.restore(&vfs, Some(RestorePoint::Seq(last)));
            assert!(refused.is_err(), "{name}");
            archived.memory.damage(name, Some(bytes.clone()));
        }
        assert_eq!(files(&vfs).len(), 0);
        assert_eq!(archived.assert_restores(Some(RestorePoint::Seq(last))), last);
    }
}
