//! A rotation keeps, refuses and ignores the right files.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use crate::common::sim::{self, WAYS};
use crate::common::{
    Card, Keyed, OURS, THEIRS, advance, backups, bytes, card, main_of, names, options, prefix_of,
    put, versions,
};
use codex_backup::vfs::{LockKind, Mode, Open, Vfs};
use codex_backup::{Backups, Depth, Error, Options, Source, Whole, unwatched};

#[test]
fn the_newest_comes_first_and_never_more_than_are_to_be_kept() {
    let vfs = Vfs::mem(1);
    let backups = backups(&vfs, "a.db", 3);
    for seq in 1..=6 {
        let rotated = advance(&backups, &vfs, seq).unwrap();
        assert_eq!(rotated.facts.seq, seq);
        let expected: Vec<_> = (1..=3).zip((1..=seq).rev()).collect();
        assert_eq!(versions(&vfs, "a.db"), expected);
    }
    let left = ["a.db", "a.db.bak.1", "a.db.bak.2", "a.db.bak.3", "a.db.bak.lock"];
    assert_eq!(names(&*vfs.dir), left);
}

#[test]
fn a_version_that_is_backed_up_already_rotates_nothing() {
    let vfs = Vfs::mem(1);
    let backups = backups(&vfs, "a.db", 3);
    advance(&backups, &vfs, 1).unwrap();
    advance(&backups, &vfs, 2).unwrap();
    let again = backups.rotate(main_of(&vfs, "a.db"), None, &mut unwatched).unwrap();
    assert_eq!(again.method, None);
    assert_eq!(versions(&vfs, "a.db"), [(1, 2), (2, 1)]);
}

#[test]
fn the_same_seq_with_other_contents_is_another_version() {
    let vfs = Vfs::mem(1);
    let backups = backups(&vfs, "a.db", 3);
    advance(&backups, &vfs, 5).unwrap();
    put(&*vfs.dir, "a.db", &card(OURS, 5, 41));
    assert!(backups.rotate(main_of(&vfs, "a.db"), None, &mut unwatched).unwrap().method.is_some());
    assert_eq!(versions(&vfs, "a.db"), [(1, 5), (2, 5)]);
}

#[test]
fn lowering_the_number_to_keep_prunes_the_oldest() {
    let vfs = Vfs::mem(1);
    for seq in 1..=5 {
        advance(&backups(&vfs, "a.db", 5), &vfs, seq).unwrap();
    }
    let rotated = advance(&backups(&vfs, "a.db", 2), &vfs, 6).unwrap();
    assert_eq!(versions(&vfs, "a.db"), [(1, 6), (2, 5)]);
    let pruned = ["a.db.bak.3", "a.db.bak.4", "a.db.bak.5", "a.db.bak.6"];
    assert_eq!(rotated.pruned, pruned, "what goes was decided after all names had moved along");
    assert_eq!(backups(&vfs, "a.db", 2).prune(1).unwrap(), ["a.db.bak.2"]);
    assert_eq!(backups(&vfs, "a.db", 2).prune(0).unwrap(), ["a.db.bak.1"]);
}

#[test]
fn pruning_keeps_the_only_good_backup_whatever_its_number() {
    let vfs = Vfs::mem(1);
    put(&*vfs.dir, "a.db", &card(OURS, 9, 40));
    put(&*vfs.dir, "a.db.bak.1", &card(OURS, 8, 40)[..30]);
    put(&*vfs.dir, "a.db.bak.7", &card(OURS, 2, 40));
    assert_eq!(backups(&vfs, "a.db", 1).prune(1).unwrap(), Vec::<String>::new());
    assert_eq!(versions(&vfs, "a.db"), [(7, 2)]);
}

#[test]
fn names_shift_from_the_first_gap_down() {
    let vfs = Vfs::mem(1);
    put(&*vfs.dir, "a.db.bak.1", &card(OURS, 7, 40));
    put(&*vfs.dir, "a.db.bak.3", &card(OURS, 3, 40));
    advance(&backups(&vfs, "a.db", 3), &vfs, 8).unwrap();
    assert_eq!(versions(&vfs, "a.db"), [(1, 8), (2, 7), (3, 3)]);
}

#[test]
fn a_second_rotation_waits_for_the_lock_and_then_says_who_holds_it() {
    let vfs = Vfs::mem(1);
    let other_process = vfs.dir.try_lock("a.db.bak.lock", LockKind::Exclusive).unwrap().unwrap();
    let backups = backups(&vfs, "a.db", 2);
    let start = vfs.clock.monotonic();
    let error = advance(&backups, &vfs, 1).unwrap_err();
    assert!(matches!(error, Error::Busy { .. }), "{error}");
    assert!(error.to_string().contains("a.db.bak.lock"), "{error}");
    assert_eq!(vfs.clock.monotonic(), start + Duration::from_secs(10), "as long as it says");
    assert!(matches!(backups.prune(0), Err(Error::Busy { .. })));
    let restored = backups.restore_from(main_of(&vfs, "a.db"), None, &[], &mut unwatched);
    assert!(matches!(restored, Err(Error::Busy { .. })), "{restored:?}");
    assert_eq!(backups.list().unwrap().len(), 0, "looking needs no lock");
    drop(other_process);
    advance(&backups, &vfs, 1).unwrap();
    assert_eq!(versions(&vfs, "a.db"), [(1, 1)]);
}

#[test]
fn a_rotation_stopped_at_any_report_leaves_the_backups_as_they_were() {
    for way in WAYS {
        // An older backup, and one whose rotation was interrupted before it had its number.
        let base = sim::disk(9, &[(1, 3)]);
        let ready = "a.db.bak.new";
        put(&*base.vfs(0).dir, ready, &card(OURS, 4, 700));
        let mut stops = 0;
        loop {
            let (mut reports, disk) = (0, base.duplicate());
            let vfs = sim::world(&disk, way);
            let rotated = sim::rotate_watched(&vfs, way, 9, &mut |_| {
                reports += 1;
                if reports > stops { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            let context = || format!("{way:?}, stopped at report {stops}");
            let Err(error) = rotated else {
                assert_eq!(reports, stops, "{}", context());
                let expected = [(1, 9), (2, 4), (3, 3)];
                assert_eq!(versions(&vfs, "a.db"), expected, "{}", context());
                break;
            };
            assert!(matches!(error, Error::Stopped { .. }), "{error}; {}", context());
            assert_eq!(reports, stops + 1, "{}", context());
            assert_eq!(sim::good(&*vfs.dir, &context), [3, 4].into(), "{}", context());
            assert!(!names(&*vfs.dir).iter().any(|it| it.contains(".bak.tmp")), "{}", context());
            stops += 1;
        }
        assert!(stops >= 2, "{way:?}: {stops}");
    }
}

#[test]
fn rotations_from_many_threads_lose_nothing_and_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let vfs = Vfs::os(folder.path()).unwrap();
    put(&*vfs.dir, "a.db", &card(OURS, 0, 40));
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let vfs = Vfs::os(folder.path()).unwrap();
            scope.spawn(move || {
                // The others may hold the lock for any time.
                let options = Options { lock_timeout: Duration::MAX, ..options(4) };
                let backups = Backups::new(vfs, "a.db", Arc::new(Card), options).unwrap();
                for round in 0..5 {
                    let seq = 1 + round * 8 + thread;
                    let write = &mut |to: &mut codex_backup::WriteAt<'_>| {
                        to(&card(OURS, seq, 40), 0).map_err(Into::into)
                    };
                    backups
                        .rotate(Source::Write { size: 64, write }, None, &mut unwatched)
                        .unwrap();
                }
            });
        }
    });
    assert_eq!(versions(&vfs, "a.db").len(), 4);
    assert_eq!(names(&*vfs.dir).len(), 6, "{:?}", names(&*vfs.dir));
}

#[test]
fn copying_a_backup_over_the_live_file_by_hand_changes_no_other_backup() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let vfs = Vfs::os(folder.path()).unwrap();
    let ours = backups(&vfs, "a.db", 3);
    for seq in 1..=3 {
        advance(&ours, &vfs, seq).unwrap();
    }
    // Written in spite of the permissions, as the `cp` of the superuser does.
    let written = std::fs::copy(at("a.db.bak.2"), at("a.db"));
    if written.is_err() {
        std::fs::remove_file(at("a.db")).unwrap();
        std::fs::copy(at("a.db.bak.2"), at("a.db")).unwrap();
    }
    assert_eq!(bytes(&*vfs.dir, "a.db"), card(OURS, 2, 40));
    assert_eq!(versions(&vfs, "a.db"), [(1, 3), (2, 2), (3, 1)]);
}

#[test]
fn a_verified_temporary_is_adopted_and_other_temporaries_are_removed() {
    let vfs = Vfs::mem(1);
    let ours = backups(&vfs, "a.db", 2);
    for seq in 1..=2 {
        advance(&ours, &vfs, seq).unwrap();
    }
    put(&*vfs.dir, "a.db.bak.new", &card(OURS, 3, 40));
    put(&*vfs.dir, "a.db.bak.tmp", &card(OURS, 4, 40)[..20]);
    put(&*vfs.dir, "a.db.bak.copy", &card(OURS, 4, 40));
    put(&*vfs.dir, "a.db.bak.stage", b"");
    put(&*vfs.dir, "a.db.bak.tmp.notes", b"not of our grammar");
    let done = ours.adopt().unwrap();
    assert_eq!(done.adopted.unwrap().seq, 3);
    assert_eq!(done.removed.len(), 3);
    // No backup is removed for it. The next rotation does that.
    assert_eq!(versions(&vfs, "a.db"), [(1, 3), (2, 2), (3, 1)]);
    advance(&ours, &vfs, 5).unwrap();
    assert_eq!(versions(&vfs, "a.db"), [(1, 5), (2, 3)]);
    let left = ["a.db", "a.db.bak.1", "a.db.bak.2", "a.db.bak.lock", "a.db.bak.tmp.notes"];
    assert_eq!(names(&*vfs.dir), left);
}

#[test]
fn a_temporary_that_is_damaged_stale_or_foreign_is_not_adopted() {
    let vfs = Vfs::mem(1);
    let ours = backups(&vfs, "a.db", 2);
    advance(&ours, &vfs, 2).unwrap();
    let mut damaged = card(OURS, 3, 40);
    damaged[30] ^= 1;
    for worthless in [damaged, card(OURS, 2, 40)] {
        put(&*vfs.dir, "a.db.bak.new", &worthless);
        let done = ours.adopt().unwrap();
        assert_eq!((done.adopted, done.removed), (None, vec!["a.db.bak.new".to_owned()]));
    }
    let theirs = card(THEIRS, 9, 40);
    put(&*vfs.dir, "a.db.bak.new", &theirs);
    let done = ours.adopt().unwrap();
    assert_eq!((done.adopted, done.left), (None, vec!["a.db.bak.new".to_owned()]));
    let error = advance(&ours, &vfs, 3).unwrap_err();
    assert!(matches!(error, Error::Foreign { .. }), "{error}");
    assert_eq!(bytes(&*vfs.dir, "a.db.bak.new"), theirs, "somebody's backup");
    assert_eq!(versions(&vfs, "a.db"), [(1, 2)]);
}

#[test]
fn a_backup_under_another_key_gets_its_number_before_a_newer_one_is_made() {
    let vfs = Vfs::mem(1);
    let ours = backups(&vfs, "a.db", 2);
    advance(&ours, &vfs, 2).unwrap();
    // Its rotation was interrupted before the key was changed.
    put(&*vfs.dir, "a.db.bak.new", &card(OURS, 1_003, 40));
    let keyed = ours.with_inspect(Arc::new(Keyed::default()));
    let done = keyed.adopt().unwrap();
    assert_eq!(done.adopted.unwrap().seq, 1_003);
    assert_eq!((done.removed, done.left), (vec![], vec![]));
    assert_eq!(versions(&vfs, "a.db"), [(1, 1_003), (2, 2)]);
    // It counts for none of those to keep, and is removed when as many newer ones are there.
    for (seq, left) in [(4, &[(1, 4), (2, 1_003), (3, 2)][..]), (5, &[(1, 5), (2, 4)])] {
        advance(&keyed, &vfs, seq).unwrap();
        assert_eq!(versions(&vfs, "a.db"), left);
    }
    // A rotation gives it its number as well.
    put(&*vfs.dir, "a.db.bak.new", &card(OURS, 1_006, 40));
    advance(&keyed, &vfs, 7).unwrap();
    assert_eq!(versions(&vfs, "a.db"), [(1, 7), (2, 1_006), (3, 5)]);
    // When its key is back, the order is still that of the rotations.
    assert_eq!(ours.adopt().unwrap(), codex_backup::Adopted::default());
    advance(&ours, &vfs, 8).unwrap();
    assert_eq!(versions(&vfs, "a.db"), [(1, 8), (2, 7)]);
}

#[test]
fn pruning_counts_a_backup_that_has_no_number_yet() {
    let vfs = Vfs::mem(1);
    let ours = backups(&vfs, "a.db", 3);
    for keep in [1, 0] {
        for seq in 1..=2 {
            advance(&ours, &vfs, seq).unwrap();
        }
        put(&*vfs.dir, "a.db.bak.new", &card(OURS, 3, 40));
        let removed = ours.prune(keep).unwrap();
        assert_eq!(removed.len(), 3 - usize::try_from(keep).unwrap());
        assert_eq!(versions(&vfs, "a.db"), [(1, 3)][..usize::try_from(keep).unwrap()]);
        assert_eq!(ours.adopt().unwrap(), codex_backup::Adopted::default());
        ours.prune(0).unwrap();
    }
}

#[test]
fn a_list_says_what_each_backup_is_and_when_it_was_verified() {
    let vfs = Vfs::mem(1);
    let ours = backups(&vfs, "a.db", 3);
    for seq in 1..=2 {
        advance(&ours, &vfs, seq).unwrap();
        vfs.clock.sleep(Duration::from_secs(60));
    }
    put(&*vfs.dir, "a.db.bak.3", &card(OURS, 1, 40)[..30]);
    put(&*vfs.dir, "a.db.bak.4", &card(THEIRS, 1, 40));
    let list = ours.list().unwrap();
    assert_eq!(list.iter().map(|entry| entry.index).collect::<Vec<_>>(), [1, 2, 3, 4]);
    let facts = list[0].facts.as_ref().unwrap();
    assert_eq!((facts.seq, &*facts.form, list[0].size), (2, "card", 64));
    assert!(matches!(list[2].facts, Err(Error::Damaged { .. })));
    assert!(matches!(list[3].facts, Err(Error::Foreign { .. })));
    let when: Vec<_> = list.iter().map(|entry| entry.verified.map(|at| at.at_us)).collect();
    assert_eq!(when[0].unwrap() - when[1].unwrap(), 60_000_000);
    assert_eq!(when[2..], [None, None]);

    let proof = ours.verify(2, Depth::Full).unwrap();
    let noted = ours.list().unwrap()[1].verified.unwrap();
    assert_eq!((noted, noted.depth), (proof.verified, Depth::Full));
    assert_eq!(noted.at_us, vfs.clock.now_us());
}

#[test]
fn a_time_of_verification_is_forgotten_rather_than_wrong() {
    let vfs = Vfs::mem(1);
    let ours = backups(&vfs, "a.db", 3);
    advance(&ours, &vfs, 1).unwrap();
    let lock = bytes(&*vfs.dir, "a.db.bak.lock");
    for at in 0..lock.len() {
        let mut damaged = lock.clone();
        damaged[at] ^= 0x10;
        let file = vfs.dir.open("a.db.bak.lock", Open::Write).unwrap();
        file.write_all_at(&damaged, 0).unwrap();
        assert_eq!(ours.list().unwrap()[0].verified, None, "byte {at}");
    }
    let file = vfs.dir.open("b.db.bak.lock", Open::CreateNew(Mode::Private)).unwrap();
    file.write_all_at(b"somebody's notes", 0).unwrap();
    let other = backups(&vfs, "b.db", 3);
    vfs.dir.rename("a.db", "b.db").unwrap();
    other.rotate(main_of(&vfs, "b.db"), None, &mut unwatched).unwrap();
    assert_eq!(bytes(&*vfs.dir, "b.db.bak.lock"), b"somebody's notes");
}

#[test]
fn every_flipped_byte_of_a_backup_is_found() {
    let vfs = Vfs::mem(1);
    let ours = backups(&vfs, "a.db", 3);
    let good = card(OURS, 7, 40);
    put(&*vfs.dir, "a.db", &good);
    for at in 0..good.len() {
        let mut damaged = good.clone();
        damaged[at] ^= 4;
        put(&*vfs.dir, "a.db.bak.1", &damaged);
        let error = ours.verify(1, Depth::Checksums).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. } | Error::Foreign { .. }), "{at}: {error}");
    }
    put(&*vfs.dir, "a.db.bak.1", &good);
    assert!(ours.verify(1, Depth::Checksums).is_ok());
    assert!(matches!(ours.verify(2, Depth::Checksums), Err(Error::Missing { .. })));
}

#[test]
fn the_newest_good_backup_is_found_behind_damaged_ones_and_that_is_said() {
    let vfs = Vfs::mem(1);
    let ours = backups(&vfs, "a.db", 3);
    put(&*vfs.dir, "a.db.bak.1", &card(OURS, 3, 40)[..30]);
    let mut flipped = card(OURS, 2, 40);
    flipped[40] ^= 1;
    put(&*vfs.dir, "a.db.bak.2", &flipped);
    put(&*vfs.dir, "a.db.bak.3", &card(OURS, 1, 40));
    let found = ours.newest_good(Depth::Full).unwrap();
    assert_eq!(found.good.unwrap().facts.seq, 1);
    assert_eq!(found.skipped.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn any_plain_file_can_be_rotated() {
    let vfs = Vfs::mem(1);
    let notes = Backups::new(vfs.clone(), "notes", Arc::new(Whole), options(2)).unwrap();
    for text in ["one", "two", "two", "three", ""] {
        if vfs.dir.metadata("notes").unwrap().is_some() {
            vfs.dir.remove("notes").unwrap();
        }
        let file = vfs.dir.open("notes", Open::CreateNew(Mode::Private)).unwrap();
        file.write_all_at(text.as_bytes(), 0).unwrap();
        let source = prefix_of(&vfs, "notes", file.len().unwrap());
        notes.rotate(source, None, &mut unwatched).unwrap();
    }
    assert_eq!(bytes(&*vfs.dir, "notes.bak.1"), b"");
    assert_eq!(bytes(&*vfs.dir, "notes.bak.2"), b"three");
    notes.verify(2, Depth::Full).unwrap();
}

#[test]
fn a_plain_file_that_decayed_since_it_was_verified_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.bak.1");
    let vfs = Vfs::os(folder.path()).unwrap();
    std::fs::write(folder.path().join("notes"), "some text").unwrap();
    let notes = Backups::new(vfs.clone(), "notes", Arc::new(Whole), options(2)).unwrap();
    let source = prefix_of(&vfs, "notes", 9);
    notes.rotate(source, None, &mut unwatched).unwrap();
    // Bit rot does not change the time of change.
    let before = std::fs::metadata(&path).unwrap().modified().unwrap();
    let mode = |bits| std::os::unix::fs::PermissionsExt::from_mode(bits);
    std::fs::set_permissions(&path, mode(0o600)).unwrap();
    std::fs::write(&path, "some teXt").unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(before).unwrap();
    assert!(matches!(notes.verify(1, Depth::Full), Err(Error::Damaged { .. })));
}

#[test]
fn a_source_that_is_damaged_or_missing_rotates_nothing() {
    let vfs = Vfs::mem(1);
    let ours = backups(&vfs, "a.db", 2);
    for seq in 1..=2 {
        advance(&ours, &vfs, seq).unwrap();
    }
    let mut damaged = card(OURS, 3, 40);
    damaged[40] ^= 1;
    put(&*vfs.dir, "a.db", &damaged);
    let before = names(&*vfs.dir);
    let error = ours.rotate(main_of(&vfs, "a.db"), None, &mut unwatched).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    vfs.dir.remove("a.db").unwrap();
    let error = Source::open(&vfs, "a.db").unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error}");
    assert_eq!(versions(&vfs, "a.db"), [(1, 2), (2, 1)]);
    assert_eq!(names(&*vfs.dir), before[1..]);
}

#[test]
fn settings_and_names_that_cannot_work_are_refused() {
    let vfs = Vfs::mem(1);
    for keep in [0, 10_000] {
        let made = Backups::new(vfs.clone(), "a", Arc::new(Card), options(keep));
        assert!(matches!(made, Err(Error::Invalid { .. })));
    }
    let (longest, long) = ("n".repeat(210), "n".repeat(211));
    for (name, keep) in [("a", 1), ("a", 9_999), (&longest, 1)] {
        Backups::new(vfs.clone(), name, Arc::new(Card), options(keep)).unwrap();
    }
    for name in ["", "..", "../a", "a\0", "a.bak", "a.bak.1", "a.bak.tmp", "a.lock", &*long] {
        let made = Backups::new(vfs.clone(), name, Arc::new(Card), options(1));
        assert!(matches!(made, Err(Error::Invalid { .. })), "{name}");
    }
}

#[test]
fn the_wait_for_a_lock_ends_when_the_rotation_is_stopped() {
    let vfs = Vfs::mem(1);
    let _other_process = vfs.dir.try_lock("a.db.bak.lock", LockKind::Exclusive).unwrap().unwrap();
    put(&*vfs.dir, "a.db", &card(OURS, 1, 40));
    let mut looks = 0;
    let mut watch = |_| {
        looks += 1;
        if looks == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let stopped = backups(&vfs, "a.db", 2).rotate(main_of(&vfs, "a.db"), None, &mut watch);
    assert!(matches!(stopped, Err(Error::Stopped { .. })), "{stopped:?}");
    assert_eq!(looks, 3);
}
