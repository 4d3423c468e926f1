//! Every call to a place fails in every way, two writers meet at every call, and the power is cut
//! at every call to a folder. No manifest lists an image that is not there, and none is lost.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use codex_backup::remote::{Body, Created, Fault, Folder, Listed, Memory, Mishap, Remote, Target};
use codex_backup::vfs::Vfs;
use codex_backup::vfs::fault::FaultDir;
use codex_backup::{Error, unwatched};
use sha2::{Digest, Sha256};

use crate::common::sim::{
    LOG, Way, backups_of, disk, each_power_cut, no_strays, seed, store_is, world,
};
use crate::remote::{listed, remote_at, version};

/// What a call can do instead of its work. `None` is a program that is killed before the call.
pub(crate) const MISHAPS: [Option<Mishap>; 9] = [
    None,
    Some(Mishap::Refused),
    Some(Mishap::AnswerLost),
    Some(Mishap::Delayed(1)),
    Some(Mishap::Delayed(4)),
    Some(Mishap::Delayed(200)),
    Some(Mishap::HalfUpload),
    Some(Mishap::Truncated),
    Some(Mishap::Altered),
];

/// Returns a place with the versions 1 and 2.
fn place(seed: u64) -> (Arc<Memory>, Remote) {
    let memory = Arc::new(Memory::new());
    let remote = remote_at(Arc::clone(&memory) as _, &Vfs::mem(seed));
    for seq in [1, 2] {
        remote.put(&version(seq), &mut unwatched).unwrap();
    }
    (memory, remote)
}

/// Puts version 3 and keeps two. Returns whether each was acknowledged.
fn put_and_prune(remote: &Remote) -> (bool, bool) {
    let put = remote.put(&version(3), &mut unwatched).is_ok();
    (put, remote.prune(2, &mut unwatched).is_ok())
}

pub(crate) fn arm(memory: &Memory, call: u64, mishap: Option<Mishap>) {
    match mishap {
        Some(mishap) => memory.fail(call, mishap),
        None => memory.go_down_at(call),
    }
}

/// Asserts that each image that is listed is there with its bytes. Returns the versions.
fn whole(memory: &Memory, remote: &Remote, context: &str) -> Vec<u64> {
    let objects = memory.objects();
    let listing = remote.list().unwrap_or_else(|error| panic!("{error}; {context}"));
    for image in &listing.images {
        let bytes = objects.get(&image.name).unwrap_or_else(|| panic!("{image:?} {context}"));
        assert_eq!(Sha256::digest(bytes).as_slice(), image.sha256, "{context}");
    }
    listing.images.iter().map(|image| image.facts.seq).collect()
}

/// Asserts that the versions are those before the call or after it.
fn nothing_lost(versions: &[u64], acknowledged: bool, context: &str) {
    let new = versions.contains(&3);
    assert!(new || !acknowledged, "{versions:?} {context}");
    let kept = if new { 2 } else { 1 };
    assert!(
        versions.contains(&2) && (versions.contains(&1) || kept == 2),
        "{versions:?} {context}"
    );
}

/// Asserts that the place is in order, and has nothing but the versions 3 and 2.
fn settled(memory: &Memory, remote: &Remote, context: &str) {
    let (put, pruned) = put_and_prune(remote);
    assert!(put && pruned, "{context}");
    assert_eq!(whole(memory, remote, context), [3, 2], "{context}");
    // What was delayed is done at last.
    for _ in 0..300 {
        memory.size("image/0").unwrap();
    }
    assert_eq!(whole(memory, remote, context), [3, 2], "{context}");
    remote.prune(2, &mut unwatched).unwrap();
    assert_eq!(whole(memory, remote, context), [3, 2], "{context}");
    let images = memory.objects().into_keys().filter(|name| name.starts_with("image/"));
    assert_eq!(images.count(), 2, "{context}");
}

#[test]
fn a_fault_at_any_call_leaves_a_place_that_the_next_run_finds_in_order() {
    let (memory, remote) = place(1);
    let from = memory.calls();
    assert_eq!(put_and_prune(&remote), (true, true));
    let upto = memory.calls();
    let mut cases = 0;
    for call in from..upto {
        for mishap in MISHAPS {
            let (memory, remote) = place(1);
            arm(&memory, call, mishap);
            let (put, _) = put_and_prune(&remote);
            memory.heal();
            let context = format!("{mishap:?} at call {call} of {from} to {upto}");
            nothing_lost(&whole(&memory, &remote, &context), put, &context);
            settled(&memory, &remote, &context);
            cases += 1;
        }
    }
    println!("{cases} cases");
    assert!(cases > 150, "{cases}");
}

#[test]
fn a_second_fault_in_the_run_that_follows_changes_nothing() {
    let (memory, remote) = place(1);
    let from = memory.calls();
    put_and_prune(&remote);
    let upto = memory.calls();
    let mut cases = 0;
    let pairs = (from..upto).flat_map(|a| (0..upto - from).map(move |b| (a, b)));
    // One pair in eight, and another one under each seed.
    let is_whole = std::env::var_os("CODEX_WHOLE").is_some();
    let is_taken = |n: usize| is_whole || (n as u64 + seed()).is_multiple_of(8);
    for (_, (first, second)) in pairs.enumerate().filter(|(n, _)| is_taken(*n)) {
        for (n, mishap) in MISHAPS.into_iter().enumerate() {
            let (memory, remote) = place(1);
            arm(&memory, first, mishap);
            put_and_prune(&remote);
            memory.heal();
            // Each pair of ways comes, over all pairs of calls.
            let other = MISHAPS[(n + usize::try_from(first + second).unwrap()) % MISHAPS.len()];
            arm(&memory, memory.calls() + second, other);
            let (put, _) = put_and_prune(&remote);
            memory.heal();
            let context = format!("{mishap:?} at {first}, {other:?} {second} calls later");
            nothing_lost(&whole(&memory, &remote, &context), put, &context);
            settled(&memory, &remote, &context);
            cases += 1;
        }
    }
    println!("{cases} cases");
    assert!(cases > 500, "{cases}");
}

/// A place at which something happens before the call with the number `at`.
pub(crate) struct Meddled {
    pub(crate) memory: Arc<Memory>,
    pub(crate) at: u64,
    pub(crate) calls: AtomicU64,
    pub(crate) act: Box<dyn Fn() + Send + Sync>,
}

impl Meddled {
    fn call(&self) -> &Memory {
        if self.calls.fetch_add(1, Ordering::Relaxed) == self.at {
            (self.act)();
        }
        &self.memory
    }
}

impl fmt::Debug for Meddled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meddled")
    }
}

impl Target for Meddled {
    fn create(&self, name: &str, body: &mut Body<'_, '_>) -> Result<Created, Fault> {
        self.call().create(name, body)
    }
    fn read_at(&self, name: &str, buf: &mut [u8], at: u64) -> Result<(), Fault> {
        self.call().read_at(name, buf, at)
    }
    fn size(&self, name: &str) -> Result<Option<u64>, Fault> {
        self.call().size(name)
    }
    fn list(&self, prefix: &str, sink: &mut dyn FnMut(Listed)) -> Result<(), Fault> {
        self.call().list(prefix, sink)
    }
    fn remove(&self, name: &str) -> Result<(), Fault> {
        self.call().remove(name)
    }
    fn sweep(&self, age: Duration) -> Result<u64, Fault> {
        self.call().sweep(age)
    }
    fn path(&self, name: &str) -> PathBuf {
        self.memory.path(name)
    }
}

/// Calls `work` on a place with the versions 1 and 2, with `other` done before each of its calls in
/// turn, until it is not reached. Then calls `check` with the result.
fn meet<R>(
    other: fn(&Remote),
    work: impl Fn(&Remote) -> R,
    check: impl Fn(&Memory, &Remote, R, &str),
) -> u64 {
    for at in 0.. {
        let (memory, remote) = place(1);
        let theirs = remote_at(Arc::clone(&memory) as _, &Vfs::mem(99));
        let meddled = Arc::new(Meddled {
            memory: Arc::clone(&memory),
            at,
            calls: AtomicU64::new(0),
            act: Box::new(move || other(&theirs)),
        });
        let ours = remote_at(Arc::clone(&meddled) as _, &Vfs::mem(5));
        let result = work(&ours);
        check(&memory, &remote, result, &format!("met before call {at}"));
        if meddled.calls.load(Ordering::Relaxed) <= at {
            return at;
        }
    }
    0
}

#[test]
fn two_writers_that_meet_at_any_call_lose_no_image() {
    let put = |remote: &Remote| remote.put(&version(3), &mut unwatched);
    let calls = meet(
        |theirs| _ = theirs.put(&version(4), &mut unwatched).unwrap(),
        put,
        |memory, remote, result, context| {
            result.unwrap_or_else(|error| panic!("{error}; {context}"));
            let mut versions = whole(memory, remote, context);
            versions.sort_unstable();
            let unmet = versions == [1, 2, 3];
            assert!(unmet || versions == [1, 2, 3, 4], "{versions:?} {context}");
        },
    );
    assert!(calls > 8, "{calls}");
}

#[test]
fn a_prune_beside_an_upload_leaves_no_manifest_with_an_image_that_is_not_there() {
    let given_up = AtomicU64::new(0);
    let calls = meet(
        |theirs| _ = theirs.prune(1, &mut unwatched).unwrap(),
        |remote| remote.put(&version(3), &mut unwatched),
        |memory, remote, result, context| {
            let versions = whole(memory, remote, context);
            assert!(versions.contains(&2) || versions == [3], "{versions:?} {context}");
            match result {
                Ok(_) => assert_eq!(versions[0], 3, "{context}"),
                Err(Error::Remote { fault: Fault::GivenUp | Fault::Missing, .. }) => {
                    given_up.fetch_add(1, Ordering::Relaxed);
                    assert_eq!(versions, [2], "{context}");
                }
                Err(error) => panic!("{error}; {context}"),
            }
            settled_after_prune(memory, remote, context);
        },
    );
    assert!(calls > 8 && given_up.into_inner() > 2);
    // And the reverse: an upload beside a prune.
    meet(
        |theirs| _ = theirs.put(&version(3), &mut unwatched).unwrap(),
        |remote| remote.prune(1, &mut unwatched),
        |memory, remote, result, context| {
            result.unwrap_or_else(|error| panic!("{error}; {context}"));
            let versions = whole(memory, remote, context);
            assert!([&[3][..], &[3, 2], &[2]].contains(&&*versions), "{versions:?} {context}");
            settled_after_prune(memory, remote, context);
        },
    );
}

fn settled_after_prune(memory: &Memory, remote: &Remote, context: &str) {
    remote.put(&version(3), &mut unwatched).unwrap_or_else(|error| panic!("{error}; {context}"));
    remote.prune(1, &mut unwatched).unwrap();
    assert_eq!(whole(memory, remote, context), [3], "{context}");
    let images = memory.objects().into_keys().filter(|name| name.starts_with("image/"));
    assert_eq!(images.count(), 1, "{context}");
}

/// While one writer sleeps, others write so many manifests that the number which it is about to
/// take is free again.
#[test]
fn a_writer_that_slept_while_its_number_was_removed_does_not_believe_in_it() {
    let calls = meet(
        |theirs| {
            for seq in 4..110 {
                theirs.put(&version(seq), &mut unwatched).unwrap();
            }
            theirs.clone().orphans_after(Duration::from_secs(1)).prune(2, &mut unwatched).unwrap();
        },
        |remote| remote.put(&version(3), &mut unwatched),
        |memory, remote, result, context| {
            let versions = whole(memory, remote, context);
            match result {
                Ok(_) => assert_eq!(versions[0], 3, "{context}"),
                // It was listed first, and then pruned as the oldest.
                Err(Error::Remote { fault: Fault::GivenUp, .. }) => {
                    assert_eq!(versions, [109, 108], "{context}");
                }
                Err(error) => panic!("{error}; {context}"),
            }
        },
    );
    assert!(calls > 8, "{calls}");
}

#[test]
fn a_power_cut_at_any_call_to_a_folder_leaves_it_in_order() {
    let base = FaultDir::new();
    let processes = AtomicU64::new(0);
    let remote = |disk: &FaultDir| {
        // Two processes never draw the same random names.
        let vfs = disk.vfs(processes.fetch_add(1, Ordering::Relaxed));
        remote_at(Arc::new(Folder::of(vfs.clone())), &vfs)
    };
    for seq in [1, 2] {
        remote(&base).put(&version(seq), &mut unwatched).unwrap();
    }
    let act = |disk: &FaultDir| put_and_prune(&remote(disk));
    let images = each_power_cut(&base, &act, &mut |image, acknowledged, context| {
        let context = context();
        let remote = remote(image);
        let check = |remote: &Remote| {
            for image in remote.list().unwrap_or_else(|e| panic!("{e}; {context}")).images {
                let read = remote.verify(&image, &mut unwatched);
                read.unwrap_or_else(|error| panic!("{error}; {context}"));
            }
            listed(remote)
        };
        nothing_lost(&check(&remote), acknowledged.0, &context);
        assert_eq!(put_and_prune(&remote), (true, true), "{context}");
        assert_eq!(check(&remote), [3, 2], "{context}");
        let left = image.vfs(0).dir.list().unwrap();
        assert!(!left.iter().any(|name| name.starts_with("upload_")), "{left:?} {context}");
    });
    println!("{images} disks");
    assert!(images > 100, "{images}");
}

#[test]
fn a_power_cut_in_a_restore_from_a_place_ends_in_the_old_file_or_the_new_one() {
    let (_, remote) = place(1);
    let image = remote.list().unwrap().images.remove(0);
    let base = disk(9, &[(1, 3)]);
    let act = |disk: &FaultDir| {
        let backups = backups_of(&world(disk, Way::Copy));
        remote.restore(&image, &backups, &[LOG.to_owned()], &mut unwatched).is_ok()
    };
    let images = each_power_cut(&base, &act, &mut |image, acknowledged, context| {
        let vfs = image.vfs(2);
        let backups = backups_of(&vfs);
        backups.finish_restore().unwrap_or_else(|error| panic!("{error}; {}", context()));
        let file = vfs.dir.open("a.db", codex_backup::vfs::Open::Read).unwrap();
        let mut seq = [0; 8];
        file.read_exact_at(&mut seq, 8).unwrap();
        let is_new = u64::from_le_bytes(seq) == 2;
        assert!(is_new || !acknowledged, "{}", context());
        store_is(&*vfs.dir, if is_new { 2 } else { 9 }, !is_new, context);
        backups.adopt().unwrap();
        no_strays(&*vfs.dir, context);
    });
    assert!(images > 50, "{images}");
}
