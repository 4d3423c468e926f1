//! A restore leaves the complete old file or the complete new one, and keeps the replaced files.

use std::sync::Arc;

use crate::common::{Card, OURS, THEIRS, advance, backups, bytes, card, names, put, versions};
use codex_backup::vfs::{Dir, File, Mode, Open, Vfs};
use codex_backup::{Backups, Error, Inspect, Options, Source, Whole, WriteAt, unwatched};

#[test]
fn the_restored_backup_stays_and_what_it_replaces_is_kept_with_its_side_files() {
    let vfs = Vfs::mem(1);
    let ours = backups(&vfs, "a.db", 3);
    for seq in 1..=3 {
        advance(&ours, &vfs, seq).unwrap();
    }
    put(&*vfs.dir, "a.db.wal.00000000000000000007", b"a log that continues seq 3");
    put(&*vfs.dir, "a.db.wal.00000000000000000008", b"and another");
    let sidecars =
        ["a.db.wal.00000000000000000007".to_owned(), "a.db.wal.00000000000000000008".to_owned()];
    let restored = ours.restore(2, &sidecars, &mut unwatched).unwrap();
    assert_eq!((restored.facts.seq, restored.from.as_deref()), (2, Some("a.db.bak.2")));
    let kept = [
        ("a.db.wal.00000000000000000007", "a.db.replaced.1.wal.00000000000000000007"),
        ("a.db.wal.00000000000000000008", "a.db.replaced.1.wal.00000000000000000008"),
        ("a.db", "a.db.replaced.1"),
    ];
    let kept = kept.map(|(from, to)| (from.to_owned(), to.to_owned()));
    assert_eq!(restored.replaced, kept);
    assert_eq!(bytes(&*vfs.dir, "a.db"), card(OURS, 2, 40));
    assert_eq!(bytes(&*vfs.dir, "a.db.replaced.1"), card(OURS, 3, 40));
    assert_eq!(
        bytes(&*vfs.dir, "a.db.replaced.1.wal.00000000000000000007"),
        b"a log that continues seq 3"
    );
    assert_eq!(versions(&vfs, "a.db"), [(1, 3), (2, 2), (3, 1)]);
    let left = names(&*vfs.dir);
    assert!(
        !left.iter().any(|name| name.contains("bak.restore") || name.contains('-')),
        "{left:?}"
    );

    ours.restore(3, &[], &mut unwatched).unwrap();
    assert_eq!(bytes(&*vfs.dir, "a.db.replaced.2"), card(OURS, 2, 40));
    assert_eq!(bytes(&*vfs.dir, "a.db"), card(OURS, 1, 40));
}

#[test]
fn a_lost_file_is_restored_too() {
    let vfs = Vfs::mem(1);
    put(&*vfs.dir, "a.db.bak.1", &card(OURS, 3, 40));
    let restored = backups(&vfs, "a.db", 3).restore(1, &[], &mut unwatched).unwrap();
    assert_eq!(restored.replaced, []);
    assert_eq!(names(&*vfs.dir), ["a.db", "a.db.bak.1", "a.db.bak.lock"]);
}

#[test]
fn a_damaged_file_and_another_store_at_its_place_are_kept_like_any_other() {
    for there in [&b"garbage"[..], b"", &card(THEIRS, 1, 40)] {
        let vfs = Vfs::mem(1);
        put(&*vfs.dir, "a.db.bak.1", &card(OURS, 3, 40));
        put(&*vfs.dir, "a.db", there);
        let is_store = Card.identity(&vfs.dir.open("a.db", Open::Read).unwrap()).is_ok();
        let refused = backups(&vfs, "a.db", 3).restore(1, &[], &mut unwatched);
        // Another store is replaced only if the option is set.
        assert_eq!(matches!(refused, Err(Error::Unrelated { .. })), is_store, "{refused:?}");
        if is_store {
            assert_eq!(bytes(&*vfs.dir, "a.db"), there);
            let options = Options { replace_unrelated: true, ..crate::common::options(3) };
            let ours = Backups::new(vfs.clone(), "a.db", Arc::new(Card), options).unwrap();
            ours.restore(1, &[], &mut unwatched).unwrap();
        }
        assert_eq!(bytes(&*vfs.dir, "a.db.replaced.1"), there);
        assert_eq!(bytes(&*vfs.dir, "a.db"), card(OURS, 3, 40));
    }
}

#[test]
fn an_image_is_restored_read_only_and_a_plain_file_writable() {
    let folder = tempfile::tempdir().unwrap();
    let vfs = Vfs::os(folder.path()).unwrap();
    let mode = |name: &str| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777
    };
    put(&*vfs.dir, "a.db.bak.1", &card(OURS, 3, 40));
    backups(&vfs, "a.db", 3).restore(1, &[], &mut unwatched).unwrap();
    assert_eq!(mode("a.db"), 0o400);

    put(&*vfs.dir, "notes.bak.1", b"text");
    let notes =
        Backups::new(vfs.clone(), "notes", Arc::new(Whole), crate::common::options(1)).unwrap();
    notes.restore(1, &[], &mut unwatched).unwrap();
    assert_eq!(mode("notes"), 0o600);
}

#[test]
fn nothing_changes_when_the_backup_is_no_good() {
    let vfs = Vfs::mem(1);
    let ours = backups(&vfs, "a.db", 3);
    put(&*vfs.dir, "a.db", &card(OURS, 9, 40));
    put(&*vfs.dir, "a.db.wal.00000000000000000001", b"log");
    let mut damaged = card(OURS, 3, 40);
    damaged[40] ^= 1;
    put(&*vfs.dir, "a.db.bak.1", &damaged);
    put(&*vfs.dir, "a.db.bak.2", b"my thesis");
    let sidecars = ["a.db.wal.00000000000000000001".to_owned()];
    for (index, expected) in [(1, "damaged"), (2, "expected kind"), (3, "does not exist")] {
        let error = ours.restore(index, &sidecars, &mut unwatched).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(ours.pending_restore().unwrap(), None);
        let left =
            ["a.db", "a.db.bak.1", "a.db.bak.2", "a.db.bak.lock", "a.db.wal.00000000000000000001"];
        assert_eq!(names(&*vfs.dir), left);
        assert_eq!(bytes(&*vfs.dir, "a.db"), card(OURS, 9, 40));
    }
    let sidecars = ["../etc/passwd".to_owned()];
    let error = ours.restore(1, &sidecars, &mut unwatched).unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
}

#[test]
fn a_directory_or_a_link_in_the_place_of_the_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let vfs = Vfs::os(folder.path()).unwrap();
    put(&*vfs.dir, "a.db.bak.1", &card(OURS, 3, 40));
    let ours = backups(&vfs, "a.db", 3);
    std::fs::create_dir(folder.path().join("a.db")).unwrap();
    assert!(matches!(ours.restore(1, &[], &mut unwatched), Err(Error::Foreign { .. })));
    std::fs::remove_dir(folder.path().join("a.db")).unwrap();
    std::os::unix::fs::symlink("a.db.bak.1", folder.path().join("a.db")).unwrap();
    assert!(matches!(ours.restore(1, &[], &mut unwatched), Err(Error::Foreign { .. })));
    assert_eq!(names(&*vfs.dir), ["a.db", "a.db.bak.1", "a.db.bak.lock"]);
}

#[test]
fn an_earlier_state_that_the_caller_writes_is_restored() {
    let vfs = Vfs::mem(1);
    put(&*vfs.dir, "a.db", &card(OURS, 9, 40));
    let mut write = |to: &mut WriteAt<'_>| Ok(to(&card(OURS, 4, 40), 0)?);
    let source = Source::Write { size: 64, write: &mut write };
    let ours = backups(&vfs, "a.db", 3);
    let restored = ours.restore_from(source, None, &[], &mut unwatched).unwrap();
    assert_eq!((restored.facts.seq, restored.from), (4, None));
    assert_eq!(bytes(&*vfs.dir, "a.db"), card(OURS, 4, 40));
}

#[test]
fn a_pending_restore_is_reported_stops_rotations_and_is_finished_by_the_next_writer() {
    let vfs = interrupted();
    let ours = backups(&vfs, "a.db", 3);
    let pending = ours.pending_restore().unwrap().unwrap();
    assert_eq!((pending.seq, pending.from.as_deref()), (2, Some("a.db.bak.2")));
    assert_eq!(pending.replaced, [("a.db".to_owned(), "a.db.replaced.1".to_owned())]);
    assert!(matches!(advance(&ours, &vfs, 9), Err(Error::RestorePending { .. })));
    assert!(matches!(ours.prune(1), Err(Error::RestorePending { .. })));
    assert!(matches!(ours.restore(1, &[], &mut unwatched), Err(Error::RestorePending { .. })));
    ours.adopt().unwrap();
    let restored = ours.finish_restore().unwrap().unwrap();
    assert_eq!(restored.facts.seq, 2);
    assert_eq!(ours.finish_restore().unwrap(), None);
    assert_eq!(ours.pending_restore().unwrap(), None);
    assert_eq!(bytes(&*vfs.dir, "a.db"), card(OURS, 2, 40));
}

#[test]
fn a_restore_whose_staged_file_is_lost_or_damaged_starts_from_its_backup_again() {
    for damage in [None, Some(&b"garbage"[..])] {
        let vfs = interrupted();
        let staged = "a.db.bak.stage";
        vfs.dir.remove(staged).unwrap();
        if let Some(garbage) = damage {
            put(&*vfs.dir, staged, garbage);
        }
        let ours = backups(&vfs, "a.db", 3);
        ours.finish_restore().unwrap().unwrap();
        assert_eq!(bytes(&*vfs.dir, "a.db"), card(OURS, 2, 40));
        assert_eq!(bytes(&*vfs.dir, "a.db.replaced.1"), card(OURS, 3, 40));
    }
}

#[test]
fn a_restore_that_can_not_be_finished_says_so_and_moves_nothing() {
    let vfs = interrupted();
    let staged = "a.db.bak.stage";
    vfs.dir.remove(staged).unwrap();
    put(&*vfs.dir, "a.db.bak.2", &card(OURS, 1, 40));
    let before = names(&*vfs.dir);
    let error = backups(&vfs, "a.db", 3).finish_restore().unwrap_err();
    assert!(matches!(error, Error::RestoreBroken { .. }), "{error}");
    assert_eq!(names(&*vfs.dir), before);

    let vfs = interrupted();
    vfs.dir.rename("a.db", "a.db.replaced.1").unwrap();
    put(&*vfs.dir, "a.db", &card(THEIRS, 1, 40));
    let error = backups(&vfs, "a.db", 3).finish_restore().unwrap_err();
    assert!(error.to_string().contains("taken the place"), "{error}");
    assert_eq!(bytes(&*vfs.dir, "a.db"), card(THEIRS, 1, 40));
}

#[test]
fn an_earlier_state_whose_staged_file_is_lost_or_damaged_is_not_put_in_place() {
    for damage in [None, Some(card(OURS, 4, 41)), Some(card(OURS, 4, 40)[..30].to_vec())] {
        let vfs = Vfs::mem(1);
        put(&*vfs.dir, "a.db", &card(OURS, 9, 40));
        let stuck = Vfs { dir: Arc::new(StuckMain(Arc::clone(&vfs.dir))), ..vfs.clone() };
        let mut write = |to: &mut WriteAt<'_>| Ok(to(&card(OURS, 4, 40), 0)?);
        let source = Source::Write { size: 64, write: &mut write };
        let pending = backups(&stuck, "a.db", 3).restore_from(source, None, &[], &mut unwatched);
        assert!(matches!(pending, Err(Error::Io { .. })), "{pending:?}");
        let staged = "a.db.bak.stage";
        vfs.dir.remove(staged).unwrap();
        if let Some(bytes) = &damage {
            put(&*vfs.dir, staged, bytes);
        }
        let ours = backups(&vfs, "a.db", 3);
        let error = ours.finish_restore().unwrap_err();
        assert!(matches!(error, Error::RestoreBroken { .. }), "{error}");
        assert_eq!(bytes(&*vfs.dir, "a.db"), card(OURS, 9, 40));
    }
}

#[test]
fn a_damaged_record_is_an_error_and_never_ignored() {
    let vfs = interrupted();
    let record = bytes(&*vfs.dir, "a.db.bak.restore");
    for at in 0..record.len() {
        let mut damaged = record.clone();
        damaged[at] ^= 0x40;
        put(&*vfs.dir, "a.db.bak.restore", &damaged);
        let ours = backups(&vfs, "a.db", 3);
        assert!(matches!(ours.pending_restore(), Err(Error::RestoreBroken { .. })), "byte {at}");
        assert!(matches!(ours.finish_restore(), Err(Error::RestoreBroken { .. })), "byte {at}");
    }
}

/// Returns a store at seq 3 whose restore to seq 2 was interrupted directly after it was decided.
fn interrupted() -> Vfs {
    let vfs = Vfs::mem(1);
    let ours = backups(&vfs, "a.db", 3);
    for seq in 1..=3 {
        advance(&ours, &vfs, seq).unwrap();
    }
    let stuck = Vfs { dir: Arc::new(StuckMain(Arc::clone(&vfs.dir))), ..vfs.clone() };
    let error = backups(&stuck, "a.db", 3).restore(2, &[], &mut unwatched).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    vfs
}

/// A directory that cannot rename the file `a.db`.
#[derive(Debug)]
struct StuckMain(Arc<dyn Dir>);

impl Dir for StuckMain {
    fn rename(&self, from: &str, to: &str) -> std::io::Result<()> {
        if from == "a.db" { Err(std::io::Error::other("stuck")) } else { self.0.rename(from, to) }
    }
    fn open(&self, name: &str, how: Open) -> std::io::Result<Arc<dyn File>> {
        self.0.open(name, how)
    }
    fn reflink(&self, from: &Arc<dyn File>, to: &str, mode: Mode) -> std::io::Result<()> {
        self.0.reflink(from, to, mode)
    }
    fn remove(&self, name: &str) -> std::io::Result<()> {
        self.0.remove(name)
    }
    fn list(&self) -> std::io::Result<Vec<String>> {
        self.0.list()
    }
    fn metadata(&self, name: &str) -> std::io::Result<Option<codex_backup::vfs::Metadata>> {
        self.0.metadata(name)
    }
    fn sync(&self) -> std::io::Result<()> {
        self.0.sync()
    }
    fn try_lock(
        &self,
        name: &str,
        kind: codex_backup::vfs::LockKind,
    ) -> std::io::Result<Option<Box<dyn codex_backup::vfs::LockGuard>>> {
        self.0.try_lock(name, kind)
    }
    fn lock_existing(
        &self,
        name: &str,
        kind: codex_backup::vfs::LockKind,
    ) -> std::io::Result<Option<Box<dyn codex_backup::vfs::LockGuard>>> {
        self.0.lock_existing(name, kind)
    }
    fn inherit(&self, from: &str, to: &str, mode: Option<Mode>) -> std::io::Result<()> {
        self.0.inherit(from, to, mode)
    }
    fn available_bytes(&self) -> std::io::Result<Option<u64>> {
        self.0.available_bytes()
    }
    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path(name)
    }
}

#[test]
fn a_forged_record_moves_no_file_but_those_of_a_restore() {
    let fair = [("a.db", "a.db.replaced.1")];
    let forged = [
        [("a.db.lock", "a.db.replaced.1.lock")],
        [("a.db.bak.1", "a.db.replaced.1.bak.1")],
        [("a.db.notes", "a.db.replaced.1.notes")],
        [("b.db", "a.db.replaced.1")],
        [("../b.db", "a.db.replaced.1")],
    ];
    for moves in forged.iter().chain([&fair]) {
        let vfs = interrupted();
        for name in ["a.db.lock", "a.db.notes", "b.db"] {
            put(&*vfs.dir, name, b"not to be moved");
        }
        let intact = bytes(&*vfs.dir, "a.db.bak.restore");
        let record = forge(&intact, &moves[0]);
        put(&*vfs.dir, "a.db.bak.restore", &record);
        let before = names(&*vfs.dir);
        let finished = backups(&vfs, "a.db", 3).finish_restore();
        if *moves == fair {
            assert_eq!(record, intact, "the test writes records as the crate does");
            finished.unwrap().unwrap();
        } else {
            assert!(matches!(finished, Err(Error::RestoreBroken { .. })), "{moves:?} {finished:?}");
            assert_eq!(names(&*vfs.dir), before, "{moves:?}");
        }
    }
}

/// Returns the record `intact` with other names in its only move, and a correct checksum.
fn forge(intact: &[u8], (from, to): &(&str, &str)) -> Vec<u8> {
    let text = String::from_utf8(intact.to_vec()).unwrap();
    let (head, moves) = text.split_once("\nmove a.db\nto a.db.replaced.1\n").unwrap();
    assert_eq!(moves.len(), "crc32c 01234567\n".len(), "{text}");
    let head = format!("{head}\nmove {from}\nto {to}\ncrc32c ");
    let sum = crc32c::crc32c(format!("{head}\n").as_bytes());
    format!("{head}{sum:08x}\n").into_bytes()
}
