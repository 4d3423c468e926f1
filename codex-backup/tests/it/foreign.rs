//! Tests that files of others, at or beside the names of the backups, are left as they are.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::common::sim::{self, WAYS};
use crate::common::{OURS, THEIRS, advance, backups, bytes, card, main_of, names, put, versions};
use codex_backup::vfs::fault::FaultDir;
use codex_backup::vfs::{CallKind, Dir, Observed, Vfs};
use codex_backup::{Error, unwatched};

#[test]
fn what_is_not_a_backup_of_this_file_is_never_moved() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let vfs = Vfs::os(folder.path()).unwrap();
    let ours = backups(&vfs, "a.db", 3);
    put(&*vfs.dir, "a.db.bak.1", &card(OURS, 1, 40));
    std::fs::write(at("elsewhere"), card(OURS, 2, 40)).unwrap();

    let make: [(&str, &dyn Fn()); 5] = [
        ("a directory", &|| std::fs::create_dir(at("a.db.bak.2")).unwrap()),
        ("a symbolic link", &|| {
            std::os::unix::fs::symlink("elsewhere", at("a.db.bak.2")).unwrap();
        }),
        ("another store", &|| std::fs::write(at("a.db.bak.2"), card(THEIRS, 9, 9)).unwrap()),
        ("garbage", &|| std::fs::write(at("a.db.bak.2"), "my thesis").unwrap()),
        ("an empty file", &|| std::fs::write(at("a.db.bak.2"), "").unwrap()),
    ];
    for (seq, (what, make)) in (10..).zip(make) {
        make();
        let before = std::fs::symlink_metadata(at("a.db.bak.2")).unwrap();
        let error = advance(&ours, &vfs, seq).unwrap_err();
        assert!(matches!(error, Error::Foreign { .. }), "{what}: {error}");
        assert!(error.to_string().contains("a.db.bak.2: is a"), "{what}: {error}");
        let after = std::fs::symlink_metadata(at("a.db.bak.2")).unwrap();
        assert_eq!(before.modified().unwrap(), after.modified().unwrap(), "{what}");
        assert_eq!(bytes(&*vfs.dir, "a.db.bak.1"), card(OURS, 1, 40), "{what}");
        assert_eq!(bytes(&*vfs.dir, "elsewhere"), card(OURS, 2, 40), "{what}");
        assert!(names(&*vfs.dir).iter().all(|name| !name.contains('-')), "{what}: a stray");
        let _ = std::fs::remove_dir(at("a.db.bak.2"));
        let _ = std::fs::remove_file(at("a.db.bak.2"));
    }
}

/// A file of somebody else: a backup of another store, and no backup at all.
fn strangers() -> [Vec<u8>; 2] {
    [card(THEIRS, 70, 40), b"my thesis".to_vec()]
}

#[test]
fn a_strangers_file_at_the_last_name_that_is_kept_stops_the_rotation_and_stays() {
    for way in WAYS {
        for layout in [&[(1, 8), (2, 7)][..], &[(1, 8)], &[]] {
            for stranger in strangers() {
                let base = sim::disk(9, layout);
                let vfs = sim::world(&base, way);
                put(&*vfs.dir, "a.db.bak.3", &stranger);
                let found = vfs.dir.metadata("a.db.bak.3").unwrap();
                let context = format!("{way:?}, {layout:?}");
                for _ in 0..2 {
                    let error = sim::rotate(&vfs, way, 9).unwrap_err();
                    assert!(matches!(error, Error::Foreign { .. }), "{context}: {error}");
                    assert!(error.to_string().contains("a.db.bak.3: is a"), "{context}: {error}");
                    assert_eq!(vfs.dir.metadata("a.db.bak.3").unwrap(), found, "{context}");
                    assert_eq!(bytes(&*vfs.dir, "a.db.bak.3"), stranger, "{context}");
                    assert_eq!(ours(&*vfs.dir), layout, "{context}");
                }
                assert_eq!(sim::backups_of(&vfs).prune(0).unwrap().len(), layout.len());
                assert_eq!(bytes(&*vfs.dir, "a.db.bak.3"), stranger, "{context}");

                // The next name is not touched.
                let vfs = sim::world(&sim::disk(9, layout), way);
                put(&*vfs.dir, "a.db.bak.4", &stranger);
                sim::rotate(&vfs, way, 9).unwrap();
                let mut expected = vec![(1, 9)];
                expected.extend(layout.iter().map(|(index, seq)| (index + 1, *seq)));
                assert_eq!(ours(&*vfs.dir), expected, "{context}");
                assert_eq!(bytes(&*vfs.dir, "a.db.bak.4"), stranger, "{context}");
            }
        }
    }
}

/// The whole backups of this store, newest name first, with their version.
fn ours(dir: &dyn Dir) -> Vec<(u32, u64)> {
    let found = names(dir).into_iter().filter_map(|name| {
        let index = codex_backup::backup_index("a.db", &name)?;
        let file = bytes(dir, &name);
        let seq = u64::from_le_bytes(*file.get(8..)?.first_chunk()?);
        (file == card(OURS, seq, 700)).then_some((index, seq))
    });
    let mut found: Vec<_> = found.collect();
    found.sort_unstable();
    found
}

/// What is left of our own backups.
struct Left {
    /// Their versions when the stranger's file was there, oldest first.
    before: Vec<u64>,
    after: Vec<u64>,
    /// How often the file that the stranger's has replaced had been opened.
    opened: usize,
}

/// Puts a stranger's file at each name before each call of `act`, and checks that it stays there as
/// what it was, and that `fair` is true of what is left of our own backups. Left out are the places
/// between the last look at that name and the call that moves, replaces or removes its file.
/// Returns how often `act` was refused.
fn put_there_meanwhile(
    base: &FaultDir,
    act: &dyn Fn(&Vfs) -> Result<(), Error>,
    fair: &dyn Fn(&Left) -> bool,
) -> u32 {
    let versions = |dir: &dyn Dir| {
        let mut found: Vec<u64> = ours(dir).into_iter().map(|(_, seq)| seq).collect();
        found.sort_unstable();
        found
    };
    let mut refused = 0;
    for call in 0..sim::calls_of(base, &|disk| act(&disk.vfs(1))) {
        for (index, stranger) in (1..=5).flat_map(|index| strangers().map(|it| (index, it))) {
            let name = format!("a.db.bak.{index}");
            let disk = base.duplicate();
            put(&disk, "stranger", &stranger);
            let (left, opened) = (Arc::new(Mutex::new(None)), AtomicUsize::new(0));
            let next: Arc<Mutex<Option<CallKind>>> = Arc::default();
            let vfs = Observed::vfs(&disk.vfs(1), {
                let (disk, left, name) = (disk.clone(), Arc::clone(&left), name.clone());
                let next = Arc::clone(&next);
                move |seen| {
                    let touches = *seen.name == name || seen.to.as_deref() == Some(&name);
                    if seen.index == call {
                        disk.rename("stranger", &name).unwrap();
                        let found = disk.metadata(&name).unwrap();
                        let opened = opened.load(Ordering::Relaxed);
                        *left.lock().unwrap() = Some((found, versions(&disk), opened));
                    }
                    if touches && seen.index >= call {
                        next.lock().unwrap().get_or_insert(seen.kind);
                    }
                    let opens = touches && seen.kind == CallKind::Open;
                    opened.fetch_add(usize::from(opens), Ordering::Relaxed);
                }
            });
            let done = act(&vfs);
            if matches!(*next.lock().unwrap(), Some(CallKind::Rename | CallKind::Remove)) {
                continue;
            }
            let (found, before, opened) = left.lock().unwrap().take().unwrap();
            let context = format!("at call {call}, {name}: {done:?}");
            assert_eq!(disk.metadata(&name).unwrap(), found, "{context}");
            assert_eq!(bytes(&disk, &name), stranger, "{context}");
            let strays = names(&disk).iter().filter(|it| bytes(&disk, it) == stranger).count();
            assert_eq!(strays, 1, "{context}");
            let left = Left { before, after: versions(&disk), opened };
            let Left { before, after, .. } = &left;
            assert!(fair(&left), "{context}: {after:?} of {before:?}, opened {opened} times");
            match done {
                Err(Error::Foreign { .. }) => refused += 1,
                // The file that had the name at the look is gone.
                Ok(()) | Err(Error::UnknownFormat { .. } | Error::Missing { .. }) => {}
                Err(error) => panic!("{context}: {error}"),
            }
        }
    }
    refused
}

#[test]
fn a_strangers_file_put_there_during_a_rotation_is_never_moved_replaced_or_counted() {
    let mut refused = 0;
    for layout in [&[(1, 8), (2, 7), (3, 6)][..], &[(1, 8), (3, 6)], &[]] {
        let base = sim::disk(9, layout);
        let act = |vfs: &Vfs| sim::rotate(vfs, sim::Way::Copy, 9).map(drop);
        // The oldest of all that are kept gives way, and no other.
        refused += put_there_meanwhile(&base, &act, &|left| {
            let mut lost = left.before.iter().filter(|seq| !left.after.contains(seq));
            lost.all(|&seq| seq == 6 && layout.len() == 3)
        });
    }
    println!("{refused} rotations refused");
    assert!(refused > 100, "{refused}");
}

#[test]
fn a_strangers_file_put_there_during_a_pruning_is_left_and_counts_for_none_of_ours() {
    let base = sim::disk(9, &[(1, 8), (2, 7), (3, 6), (4, 5), (5, 4)]);
    let prune = |vfs: &Vfs| sim::backups_of(vfs).prune(2).map(drop);
    put_there_meanwhile(&base, &prune, &|left| {
        // Twice for whose it is, then to be read whole: what is lost after that has counted.
        let has_counted = left.opened >= 3;
        left.after.len() + usize::from(has_counted) >= 2
    });
}

#[test]
fn foreign_files_behind_the_last_backup_are_left_alone() {
    let vfs = Vfs::mem(1);
    put(&*vfs.dir, "a.db.bak.9", &card(THEIRS, 1, 40));
    put(&*vfs.dir, "a.db.bak.8", b"my thesis");
    put(&*vfs.dir, "a.db.bak.old", &card(OURS, 1, 40));
    for seq in 1..=4 {
        advance(&backups(&vfs, "a.db", 2), &vfs, seq).unwrap();
    }
    backups(&vfs, "a.db", 2).prune(0).unwrap();
    let left = ["a.db", "a.db.bak.8", "a.db.bak.9", "a.db.bak.lock", "a.db.bak.old"];
    assert_eq!(names(&*vfs.dir), left);
}

#[test]
fn stores_whose_names_are_prefixes_of_each_other_keep_apart() {
    let vfs = Vfs::mem(1);
    let (inner, outer) = (backups(&vfs, "a.db.bak.x", 2), backups(&vfs, "a.db", 2));
    for seq in 1..=3 {
        put(&*vfs.dir, "a.db.bak.x", &card(THEIRS, seq, 40));
        inner.rotate(main_of(&vfs, "a.db.bak.x"), None, &mut unwatched).unwrap();
    }
    advance(&outer, &vfs, 1).unwrap();
    assert_eq!(outer.prune(0).unwrap(), ["a.db.bak.1"]);
    outer.adopt().unwrap();
    assert_eq!(versions(&vfs, "a.db.bak.x"), [(1, 3), (2, 2)]);
    assert_eq!(bytes(&*vfs.dir, "a.db.bak.x"), card(THEIRS, 3, 40));

    let shorter = backups(&vfs, "a", 2);
    put(&*vfs.dir, "a", &card(OURS, 1, 40));
    shorter.rotate(main_of(&vfs, "a"), None, &mut unwatched).unwrap();
    assert_eq!(versions(&vfs, "a"), [(1, 1)]);
    assert_eq!(versions(&vfs, "a.db.bak.x"), [(1, 3), (2, 2)]);
}
