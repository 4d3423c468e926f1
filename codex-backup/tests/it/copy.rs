//! A copy elsewhere is complete and verified, or does not exist.

use std::io::ErrorKind;
use std::sync::Arc;

use std::ops::ControlFlow;

use crate::common::sim::NoReflink;
use crate::common::{
    Card, Keyed, OURS, THEIRS, bytes, card, main_of, names, prefix_of, put, replace,
};
use codex_backup::vfs::fault::{FaultDir, Space};
use codex_backup::vfs::{Dir, File, Mode, Open, PIECE_BYTES, Vfs};
use codex_backup::{
    CopyOptions, Depth, Error, Facts, Inspect, Method, Phase, Progress, Source, Whole, WriteAt,
    copy_to, unwatched,
};

#[test]
fn a_copy_is_the_source_and_nothing_else_is_left() {
    let (from, to) = (Vfs::mem(1), Vfs::mem(2));
    put(&*from.dir, "a.db", &card(OURS, 7, 1_000_000));
    let mut seen = Vec::new();
    let mut watch = |progress: Progress| {
        seen.push(progress);
        ControlFlow::Continue(())
    };
    let options = CopyOptions::default();
    let copied =
        copy_to(&from, main_of(&from, "a.db"), &to, "b.db", &Card, &options, &mut watch).unwrap();
    assert_eq!((copied.facts.seq, copied.method), (7, Method::Copy));
    assert_eq!(bytes(&*to.dir, "b.db"), card(OURS, 7, 1_000_000));
    assert_eq!(names(&*to.dir), ["b.db"]);
    let piece = PIECE_BYTES;
    for phase in [Phase::Copying, Phase::Verifying] {
        let done: Vec<_> = seen.iter().filter(|it| it.phase == phase).map(|it| it.done).collect();
        let pieces: Vec<u64> =
            (1..=1_000_000 / piece).map(|n| n * piece).chain([1_000_024]).collect();
        assert_eq!(done, pieces, "{phase:?}");
    }
    assert!(seen.iter().all(|report| report.total == 1_000_024));
    assert!(seen.is_sorted_by_key(|report| report.phase));
}

#[test]
fn a_copy_is_made_on_a_disk_with_just_the_room_for_it_and_refused_with_a_byte_less() {
    let len = 8_192;
    let from = Vfs::mem(1);
    put(&*from.dir, "a.db", &card(OURS, 7, len - 24));
    let copy = |capacity| {
        let disk = FaultDir::new();
        disk.set_space(Space::AtOnce(capacity));
        let (to, options) = (disk.vfs(2), CopyOptions::default());
        let main = main_of(&from, "a.db");
        let copied = copy_to(&from, main, &to, "b.db", &Card, &options, &mut unwatched);
        copied.map(|_| bytes(&*to.dir, "b.db").len())
    };
    let room = u64::try_from(len).unwrap();
    assert_eq!(copy(room).unwrap(), len);
    let refused = copy(room - 1).unwrap_err();
    let Error::NoSpace { needed, available, .. } = refused else { panic!("{refused}") };
    assert_eq!((needed, available), (room, room - 1));
}

#[test]
fn a_copy_in_the_same_folder_is_a_file_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let vfs = Vfs::os(folder.path()).unwrap();
    put(&*vfs.dir, "a.db", &card(OURS, 7, 100));
    let options = CopyOptions { mode: Mode::Private, ..CopyOptions::default() };
    copy_to(&vfs, main_of(&vfs, "a.db"), &vfs, "b.db", &Card, &options, &mut unwatched).unwrap();
    let file = vfs.dir.open("b.db", Open::Write).unwrap();
    file.write_all_at(b"X", 0).unwrap();
    assert_eq!(bytes(&*vfs.dir, "a.db"), card(OURS, 7, 100));
}

#[test]
fn what_stands_at_the_destination_is_never_replaced() {
    let vfs = Vfs::mem(1);
    put(&*vfs.dir, "a.db", &card(OURS, 7, 40));
    for there in [&card(OURS, 3, 40)[..], &card(THEIRS, 9, 40), b"my thesis", b""] {
        put(&*vfs.dir, "b.db", there);
        let options = CopyOptions::default();
        let copied =
            copy_to(&vfs, main_of(&vfs, "a.db"), &vfs, "b.db", &Card, &options, &mut unwatched);
        assert!(matches!(copied, Err(Error::Exists { .. })), "{copied:?}");
        assert_eq!(bytes(&*vfs.dir, "b.db"), there);
    }
    assert_eq!(names(&*vfs.dir), ["a.db", "b.db"]);
}

#[test]
fn a_copy_is_of_the_open_file_even_if_another_takes_its_name() {
    let options = CopyOptions::default();
    for (shares, method) in [(true, Method::Reflink), (false, Method::Copy)] {
        let vfs = Vfs::mem(1);
        put(&*vfs.dir, "a.db", &card(OURS, 7, 300_000));
        let source = main_of(&vfs, "a.db");
        replace(&*vfs.dir, "a.db", &card(OURS, 8, 300_000));
        let dir: Arc<dyn Dir> =
            if shares { Arc::clone(&vfs.dir) } else { Arc::new(NoReflink(Arc::clone(&vfs.dir))) };
        let to = Vfs { dir, ..vfs.clone() };
        let copied = copy_to(&vfs, source, &to, "b.db", &Card, &options, &mut unwatched).unwrap();
        assert_eq!((copied.facts.seq, copied.method), (7, method));
        assert_eq!(bytes(&*vfs.dir, "b.db"), card(OURS, 7, 300_000));
        assert_eq!(names(&*vfs.dir), ["a.db", "b.db"]);
    }
}

#[test]
fn a_growing_file_is_copied_up_to_a_length() {
    let vfs = Vfs::mem(1);
    let mut log = card(OURS, 7, 40);
    let upto = log.len() as u64;
    log.extend(b"appended since");
    put(&*vfs.dir, "a.log", &log);
    let source = prefix_of(&vfs, "a.log", upto);
    let options = CopyOptions::default();
    copy_to(&vfs, source, &vfs, "b.log", &Card, &options, &mut unwatched).unwrap();
    assert_eq!(bytes(&*vfs.dir, "b.log"), card(OURS, 7, 40));

    let source = prefix_of(&vfs, "a.log", upto + 100);
    let copied = copy_to(&vfs, source, &vfs, "c.log", &Whole, &options, &mut unwatched);
    assert!(matches!(copied, Err(Error::Io { .. })), "{copied:?}");
    assert_eq!(names(&*vfs.dir), ["a.log", "b.log"]);
}

#[test]
fn bytes_of_the_caller_are_held_to_the_version_it_names() {
    let vfs = Vfs::mem(1);
    let mut write = |to: &mut WriteAt<'_>| Ok(to(&card(OURS, 7, 40), 0)?);
    let about = |seq| {
        let mut about = Facts::new(OURS, seq);
        about.mark = card(OURS, seq, 40)[60..].to_vec();
        CopyOptions { about: Some(about), ..CopyOptions::default() }
    };
    let source = Source::Write { size: 64, write: &mut write };
    let copied = copy_to(&vfs, source, &vfs, "b.db", &Card, &about(8), &mut unwatched);
    let error = copied.unwrap_err();
    assert!(matches!(error, Error::Changed { .. }), "{error}");
    assert!(error.to_string().contains("seq 8"), "{error}");
    assert_eq!(names(&*vfs.dir), Vec::<String>::new());

    let source = Source::Write { size: 64, write: &mut write };
    let copied = copy_to(&vfs, source, &vfs, "b.db", &Card, &about(7), &mut unwatched).unwrap();
    assert_eq!(copied.method, Method::Written);
}

/// The bytes of a file were authenticated when it was made.
#[test]
fn bytes_of_the_caller_are_verified_as_deeply_as_possible() {
    let vfs = Vfs::mem(1);
    put(&*vfs.dir, "a.db", &card(OURS, 7, 40));
    let inspect = Keyed::default();
    let options = CopyOptions::default();
    let mut write = |to: &mut WriteAt<'_>| Ok(to(&card(OURS, 7, 40), 0)?);
    let written = Source::Write { size: 64, write: &mut write };
    for (source, name) in [(written, "b.db"), (main_of(&vfs, "a.db"), "c.db")] {
        copy_to(&vfs, source, &vfs, name, &inspect, &options, &mut unwatched).unwrap();
    }
    assert_eq!(*inspect.verified.lock().unwrap(), [Depth::Full, Depth::Checksums]);
}

#[test]
fn a_source_that_changes_while_it_is_copied_is_found() {
    let vfs = Vfs::mem(1);
    let editor = vfs.dir.open("notes", Open::CreateNew(Mode::Private)).unwrap();
    editor.write_all_at(&vec![b'a'; 600_000], 0).unwrap();
    let mut watch = |progress: Progress| {
        if progress.phase == Phase::Copying && progress.done < progress.total {
            editor.write_all_at(b"b", 599_999).unwrap();
        }
        ControlFlow::Continue(())
    };
    let source = prefix_of(&vfs, "notes", 600_000);
    let other = Vfs::mem(2);
    let options = CopyOptions::default();
    let copied = copy_to(&vfs, source, &other, "copy", &Whole, &options, &mut watch);
    assert!(matches!(copied, Err(Error::Changed { .. })), "{copied:?}");
    assert_eq!(names(&*other.dir), Vec::<String>::new());
}

#[test]
fn a_copy_that_is_stopped_or_fails_in_its_callers_code_leaves_nothing() {
    let (vfs, to) = (Vfs::mem(1), Vfs::mem(2));
    put(&*vfs.dir, "a.db", &card(OURS, 7, 1_000_000));
    let mut stop = |_: Progress| ControlFlow::Break(());
    let options = CopyOptions::default();
    let copied = copy_to(&vfs, main_of(&vfs, "a.db"), &to, "b.db", &Card, &options, &mut stop);
    assert!(matches!(copied, Err(Error::Stopped { .. })));

    let mut write = |to: &mut WriteAt<'_>| {
        to(b"half", 0)?;
        Err("the model is on strike".into())
    };
    let source = Source::Write { size: 4, write: &mut write };
    let error = copy_to(&vfs, source, &to, "b.db", &Card, &options, &mut unwatched).unwrap_err();
    assert!(error.to_string().contains("on strike"), "{error}");
    assert_eq!(names(&*to.dir), Vec::<String>::new());
}

#[test]
fn the_next_copy_removes_what_a_crash_left_of_the_last() {
    let vfs = Vfs::mem(1);
    put(&*vfs.dir, "a.db", &card(OURS, 7, 40));
    put(&*vfs.dir, "b.db.bak.copy", b"half");
    put(&*vfs.dir, "b.db.bak.copy-notes", b"somebody's");
    put(&*vfs.dir, "bb.db.bak.copy", b"another's");
    let options = CopyOptions::default();
    copy_to(&vfs, main_of(&vfs, "a.db"), &vfs, "b.db", &Card, &options, &mut unwatched).unwrap();
    let left = ["a.db", "b.db", "b.db.bak.copy-notes", "bb.db.bak.copy"];
    assert_eq!(names(&*vfs.dir), left);
}

#[test]
fn of_two_copies_to_one_name_at_once_one_is_refused_and_the_other_is_whole() {
    let (vfs, to) = (Vfs::mem(1), Vfs::mem(2));
    put(&*vfs.dir, "a.db", &card(OURS, 7, 1_000_000));
    let options = CopyOptions::default();
    let mut refused = Vec::new();
    let mut watch = |_: Progress| {
        let second =
            copy_to(&vfs, main_of(&vfs, "a.db"), &to, "b.db", &Card, &options, &mut unwatched);
        refused.push(matches!(second, Err(Error::Busy { .. })));
        ControlFlow::Continue(())
    };
    copy_to(&vfs, main_of(&vfs, "a.db"), &to, "b.db", &Card, &options, &mut watch).unwrap();
    assert!(refused.len() > 4 && refused.iter().all(|refused| *refused), "{refused:?}");
    assert_eq!(bytes(&*to.dir, "b.db"), card(OURS, 7, 1_000_000));
    assert_eq!(names(&*to.dir), ["b.db"]);
}

#[test]
fn a_prefix_ends_where_it_ends() {
    let vfs = Vfs::mem(1);
    let longer = [card(OURS, 1, 40), vec![7; 100]].concat();
    put(&*vfs.dir, "a", &longer);
    let file = vfs.dir.open("a", Open::Read).unwrap();
    let prefix: Arc<dyn File> = Arc::new(codex_backup::Prefix::new(file, 64));
    assert_eq!(prefix.len().unwrap(), 64);
    assert_eq!(Card.facts(&prefix, &mut |_| ControlFlow::Continue(())).unwrap().seq, 1);
    let beyond = |offset| prefix.read_exact_at(&mut [0; 2], offset).unwrap_err().kind();
    assert_eq!([63, u64::MAX].map(beyond), [ErrorKind::UnexpectedEof; 2]);
    let refused = prefix.write_all_at(&[1], 0).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{refused}");
}
