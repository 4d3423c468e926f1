//! Backups outside of the machine: uploads, lists, restores, prunes, and every fault of a place.

use std::sync::Arc;
use std::time::Duration;

use codex_backup::remote::{Fault, Folder, Image, Memory, Mishap, Remote, Target};
use codex_backup::vfs::{File, Mode, Open, Vfs};
use codex_backup::{Error, Phase, Whole, unwatched};

use crate::common::{Card, OURS, THEIRS, backups, bytes, card, names, put};

/// Returns a handle that gives up orphans at once.
pub(crate) fn remote_at(target: Arc<dyn Target>, vfs: &Vfs) -> Remote {
    let remote = Remote::new(target, Arc::new(Card), vfs);
    remote.plain_objects(true).orphans_after(Duration::ZERO)
}

/// Returns the file of a version.
pub(crate) fn version(seq: u64) -> Arc<dyn File> {
    file(&card(OURS, seq, 700))
}

pub(crate) fn file(contents: &[u8]) -> Arc<dyn File> {
    let file = Vfs::mem(0).dir.open("card", Open::CreateNew(Mode::Private)).unwrap();
    file.write_all_at(contents, 0).unwrap();
    file
}

/// Returns the versions in the list, newest first.
pub(crate) fn listed(remote: &Remote) -> Vec<u64> {
    remote.list().unwrap().images.iter().map(|image| image.facts.seq).collect()
}

struct World {
    memory: Arc<Memory>,
    remote: Remote,
    vfs: Vfs,
}

/// Returns a place in memory with an image of each version.
fn world(versions: &[u64]) -> World {
    let (memory, vfs) = (Arc::new(Memory::new()), Vfs::mem(7));
    let remote = remote_at(Arc::clone(&memory) as _, &vfs);
    for seq in versions {
        assert!(remote.put(&version(*seq), &mut unwatched).unwrap().is_new);
    }
    World { memory, remote, vfs }
}

fn newest(remote: &Remote) -> Image {
    remote.list().unwrap().images.remove(0)
}

fn fault_of<T: std::fmt::Debug>(result: Result<T, Error>) -> Fault {
    match result {
        Err(Error::Remote { fault, .. }) => fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_image_is_put_listed_verified_restored_and_pruned() {
    let World { memory, remote, vfs } = world(&[1, 2]);
    assert_eq!(listed(&remote), [2, 1]);
    // The same version is not uploaded again.
    let again = remote.put(&version(2), &mut unwatched).unwrap();
    assert!(!again.is_new && again.image == newest(&remote));
    for image in remote.list().unwrap().images {
        remote.verify(&image, &mut unwatched).unwrap();
    }
    put(&*vfs.dir, "a.db", &card(OURS, 9, 700));
    let image = newest(&remote);
    let restored = remote.restore(&image, &backups(&vfs, "a.db", 3), &[], &mut unwatched).unwrap();
    assert_eq!(restored.from.as_ref(), Some(&image.name));
    assert_eq!(bytes(&*vfs.dir, "a.db"), card(OURS, 2, 700));
    assert_eq!(names(&*vfs.dir), ["a.db", "a.db.bak.lock", "a.db.replaced.1"]);

    let pruned = remote.prune(1, &mut unwatched).unwrap();
    assert_eq!((pruned.removed.len(), pruned.uploads), (1, 0));
    assert_eq!(listed(&remote), [2]);
    let objects: Vec<String> = memory.objects().into_keys().collect();
    assert_eq!(objects.iter().filter(|name| name.starts_with("image/")).count(), 1);
    assert_eq!(remote.prune(1, &mut unwatched).unwrap().removed, [""; 0]);
}

#[test]
fn the_progress_rises_through_three_phases_and_can_stop_each() {
    let World { remote, .. } = world(&[]);
    let mut phases = Vec::new();
    remote
        .put(&version(1), &mut |progress| {
            if phases.last() != Some(&progress.phase) {
                phases.push(progress.phase);
            }
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(phases, [Phase::Preparing, Phase::Copying, Phase::Verifying]);
    for phase in phases {
        let stopped = remote.put(&version(2), &mut |progress| {
            if progress.phase == phase && progress.total > 0 {
                return std::ops::ControlFlow::Break(());
            }
            std::ops::ControlFlow::Continue(())
        });
        assert!(matches!(stopped, Err(Error::Stopped { .. })), "{phase:?} {stopped:?}");
        assert_eq!(listed(&remote), [1]);
    }
}

#[test]
fn a_plain_file_and_another_file_are_refused() {
    let World { remote, vfs, memory } = world(&[1]);
    let shy = Remote::new(Arc::clone(&memory) as _, Arc::new(Card), &vfs);
    let fault = fault_of(shy.put(&version(2), &mut unwatched));
    assert!(matches!(fault, Fault::Plain), "{fault}");
    let fault = fault_of(remote.put(&file(&card(THEIRS, 2, 700)), &mut unwatched));
    assert!(matches!(fault, Fault::OtherFile), "{fault}");
    let damaged = file(&[&card(OURS, 2, 700)[..400], &[0], &card(OURS, 2, 700)[401..]].concat());
    let refused = remote.put(&damaged, &mut unwatched);
    assert!(matches!(refused, Err(Error::Damaged { .. })), "{refused:?}");
    assert_eq!(memory.objects().len(), 2);
}

#[test]
fn a_lost_a_short_and_a_changed_image_have_errors_of_their_own() {
    type IsIt = fn(&Fault) -> bool;
    let contents = card(OURS, 2, 700);
    let mut flipped = contents.clone();
    flipped[300] ^= 4;
    let cases: [(Option<Vec<u8>>, IsIt); 3] = [
        (None, |fault| matches!(fault, Fault::Missing)),
        (Some(contents[..99].to_vec()), |fault| {
            matches!(fault, Fault::Truncated { expected: 724, found: 99 })
        }),
        (Some(flipped), |fault| matches!(fault, Fault::Altered)),
    ];
    for (found, is_it) in cases {
        let World { memory, remote, vfs } = world(&[1, 2]);
        let image = newest(&remote);
        memory.damage(&image.name, found.clone());
        let fault = fault_of(remote.verify(&image, &mut unwatched));
        assert!(is_it(&fault), "{fault}");
        // It is not restored, and does not count when others are pruned.
        let refused = remote.restore(&image, &backups(&vfs, "a.db", 3), &[], &mut unwatched);
        assert!(refused.is_err(), "{refused:?}");
        assert!(vfs.dir.metadata("a.db").unwrap().is_none());
        remote.prune(1, &mut unwatched).unwrap();
        assert_eq!(listed(&remote), [2, 1]);
        remote.put(&version(3), &mut unwatched).unwrap();
        remote.prune(2, &mut unwatched).unwrap();
        // Of the older ones only the length is compared.
        let is_altered = found.is_some_and(|found| found.len() == contents.len());
        assert_eq!(listed(&remote), if is_altered { &[3, 2][..] } else { &[3, 2, 1] });
    }
}

#[test]
fn a_manifest_that_cannot_be_read_is_passed_over_and_replaced_by_the_next_put() {
    let World { memory, remote, .. } = world(&[1, 2]);
    let last = "manifest/00000000000000000002";
    let whole = memory.objects().remove(last).unwrap();
    memory.damage(last, Some(whole[..whole.len() / 2].to_vec()));
    let listing = remote.list().unwrap();
    assert_eq!((listing.images.len(), listing.unreadable.as_slice()), (1, &[last.to_owned()][..]));
    let fault = fault_of(remote.prune(1, &mut unwatched));
    assert!(matches!(fault, Fault::BadManifest(_)), "{fault}");
    assert!(remote.put(&version(2), &mut unwatched).unwrap().is_new);
    assert_eq!(listed(&remote), [2, 1]);
    assert!(remote.list().unwrap().unreadable.is_empty());
    // The image that only the lost manifest listed is an orphan.
    assert_eq!(remote.prune(2, &mut unwatched).unwrap().removed.len(), 1);

    // One of a newer version is not passed over.
    let text = String::from_utf8(whole).unwrap().replace("manifest 1", "manifest 2");
    memory.damage("manifest/00000000000000000009", Some(text.into_bytes()));
    for refused in [remote.list().err(), remote.put(&version(3), &mut unwatched).err()] {
        let is_newer = matches!(&refused, Some(Error::Remote { fault: Fault::NewerFormat, .. }));
        assert!(is_newer, "{refused:?}");
    }
}

#[test]
fn a_manifest_that_is_cut_or_flipped_anywhere_is_not_believed() {
    let World { memory, remote, .. } = world(&[1, 2]);
    let last = "manifest/00000000000000000002";
    let whole = memory.objects().remove(last).unwrap();
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 7);
        for bytes in [whole[..at].to_vec(), flipped] {
            memory.damage(last, Some(bytes));
            match remote.list() {
                Ok(listing) => assert_eq!(listing.images.len(), 1, "{at}"),
                Err(Error::Remote { fault: Fault::NewerFormat, .. }) => {}
                Err(error) => panic!("{at}: {error}"),
            }
        }
    }
}

#[test]
fn an_image_is_given_up_only_after_the_newest_good_one_was_read() {
    let World { memory, remote, .. } = world(&[1, 2, 3]);
    let images = remote.list().unwrap().images;
    // Of the right length, so that only reading tells.
    for image in &images[..2] {
        let len = usize::try_from(image.facts.size).unwrap();
        memory.damage(&image.name, Some(vec![0; len]));
    }
    assert!(remote.prune(1, &mut unwatched).unwrap().removed.is_empty());
    assert_eq!(listed(&remote), [3, 2, 1]);
    let refused = remote.prune(0, &mut unwatched);
    assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
}

#[test]
fn old_orphans_and_unfinished_uploads_are_removed_and_young_ones_stay() {
    let World { memory, remote, .. } = world(&[1]);
    let remote = remote.orphans_after(Duration::from_secs(60));
    // The third call of an upload is the creation of the image.
    memory.fail(memory.calls() + 3, Mishap::HalfUpload);
    let fault = fault_of(remote.put(&version(2), &mut unwatched));
    assert!(matches!(fault, Fault::HalfUpload { sent: 362, total: 724 }), "{fault}");
    memory.fail(memory.calls() + 3, Mishap::AnswerLost);
    let fault = fault_of(remote.put(&version(2), &mut unwatched));
    assert!(matches!(fault, Fault::Io { .. }), "{fault}");
    let young = remote.prune(1, &mut unwatched).unwrap();
    assert_eq!((young.removed.len(), young.uploads), (0, 0));
    memory.pass(Duration::from_secs(60));
    let old = remote.prune(1, &mut unwatched).unwrap();
    assert_eq!((old.removed.len(), old.uploads), (1, 1));
    assert_eq!(listed(&remote), [1]);
}

#[test]
fn a_folder_keeps_images_of_any_file_in_pieces() {
    let (home, away) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let vfs = Vfs::os(home.path()).unwrap();
    let folder = Folder::open(away.path()).unwrap();
    let remote = Remote::new(Arc::new(folder), Arc::new(Whole), &vfs).plain_objects(true);
    let contents: Vec<u8> = (0..9_000_001_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
    put(&*vfs.dir, "notes", &contents);
    let file = vfs.dir.open("notes", Open::Read).unwrap();
    remote.put(&file, &mut unwatched).unwrap();
    let image = newest(&remote);
    remote.verify(&image, &mut unwatched).unwrap();
    vfs.dir.remove("notes").unwrap();
    let options = codex_backup::Options::default();
    let backups =
        codex_backup::Backups::new(vfs.clone(), "notes", Arc::new(Whole), options).unwrap();
    remote.restore(&image, &backups, &[], &mut unwatched).unwrap();
    assert!(bytes(&*vfs.dir, "notes") == contents);
    // Other files in the folder are no objects and stay.
    std::fs::write(away.path().join("read-me.txt"), "mine").unwrap();
    remote.put(&file, &mut unwatched).unwrap();
    remote.prune(1, &mut unwatched).unwrap();
    assert!(away.path().join("read-me.txt").exists());
    assert!(Folder::open(away.path().join("nowhere")).is_err());
}

#[test]
fn a_name_that_is_no_object_is_refused() {
    use codex_backup::remote::Body;
    let memory = Memory::new();
    for name in ["", "/", "a/", "/a", "a//b", "A", "a.b", "a_b", "..", &"a".repeat(201)] {
        let refused = memory.create(name, &mut Body::new(b"x"));
        assert!(matches!(refused, Err(Fault::Invalid(_))), "{name} {refused:?}");
    }
}
