//! Two interruptions in one history: a process is killed at any call, the next process continues in
//! the same boot, and the power is cut at any of its calls.

use crate::common::sim::{
    LOG, Way, backups_of, calls_of, disk, each_power_cut, good, log, rotate, store_is, world,
};
use crate::common::{OURS, bytes, card};
use codex_backup::unwatched;
use codex_backup::vfs::fault::{Fault, FaultDir, Lasting, Side};
use codex_backup::vfs::{Observed, Vfs};

/// The way in which the first process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// The process is killed. Its names are visible to the next process, and are not durable.
    Killed,
    /// That call and each later one fails. Names whose sync failed are visible, and no later sync
    /// makes them durable.
    Failing,
}

/// Checks a disk and the result of the second process. The last argument describes the faults.
type Check<'a> = dyn FnMut(&FaultDir, bool, &dyn Fn() -> String) + 'a;

/// Interrupts `first` at each of its calls, then cuts the power at each call of `second`. Calls
/// `check` with each disk that is left and the result of `second`. Returns the number of disks.
fn each_interruption_and_power_cut(
    base: &FaultDir,
    ends: Ends,
    first: &dyn Fn(&Vfs),
    second: &dyn Fn(&FaultDir) -> bool,
    check: &mut Check<'_>,
) -> u64 {
    let mut images = 0;
    for call in 0..=calls_of(base, &|disk| first(&disk.vfs(1))) {
        let disk = base.duplicate();
        let process = disk.clone();
        let vfs = Observed::vfs(&disk.vfs(1), move |seen| {
            if seen.index == call && ends == Ends::Killed {
                drop(process.crash_process());
            }
        });
        if ends == Ends::Failing {
            disk.fail_at(call, Fault::Eio, Lasting::Sticky, Side::After);
        }
        first(&vfs);
        disk.clear_plan();
        // The names of moves whose sync failed are known only from the cache; see the README.
        if ends == Ends::Failing && disk.peek("a.db.replaced.1.wal.00000000000000000001").is_ok() {
            continue;
        }
        images += each_power_cut(&disk.crash_process(), second, &mut |image, done, context| {
            check(image, *done, &|| format!("{ends:?} at {call}, then {}", context()));
        });
    }
    images
}

#[test]
fn a_restore_that_is_interrupted_twice_ends_in_the_old_store_or_the_new_one() {
    let base = disk(9, &[(1, 3), (2, 2), (3, 1)]);
    let restore = |vfs: &Vfs| {
        let _ = backups_of(vfs).restore(2, &[LOG.to_owned()], &mut unwatched);
    };
    let finish = |disk: &FaultDir| {
        backups_of(&disk.vfs(2)).finish_restore().is_ok_and(|finished| finished.is_some())
    };
    let mut check = |image: &FaultDir, finished: bool, of: &dyn Fn() -> String| {
        let vfs = image.vfs(3);
        let backups = backups_of(&vfs);
        backups.finish_restore().unwrap_or_else(|error| panic!("{error}; {}", of()));
        assert!(vfs.dir.metadata("a.db").unwrap().is_some(), "the store is gone; {}", of());
        if bytes(&*vfs.dir, "a.db") == card(OURS, 2, 700) {
            store_is(&*vfs.dir, 2, false, of);
            assert_eq!(
                bytes(&*vfs.dir, "a.db.replaced.1.wal.00000000000000000001"),
                log(9),
                "{}",
                of()
            );
        } else {
            assert!(!finished, "{}", of());
            store_is(&*vfs.dir, 9, true, of);
        }
        assert_eq!(good(&*vfs.dir, of), [1, 2, 3].into(), "{}", of());
    };
    for ends in [Ends::Killed, Ends::Failing] {
        let images = each_interruption_and_power_cut(&base, ends, &restore, &finish, &mut check);
        println!("{images} disks, {ends:?}");
        assert!(images > 500, "{images}");
    }
}

#[test]
fn a_rotation_that_finds_the_backup_made_before_answers_for_its_name() {
    let mut images = 0;
    for layout in [&[][..], &[(1, 3)], &[(1, 3), (2, 2), (3, 1)]] {
        let base = disk(9, layout);
        let first = |vfs: &Vfs| {
            let _ = rotate(vfs, Way::Write, 9);
        };
        let second = |disk: &FaultDir| rotate(&world(disk, Way::Copy), Way::Copy, 9).is_ok();
        let mut check = |image: &FaultDir, made: bool, of: &dyn Fn() -> String| {
            let found = good(&*image.vfs(3).dir, of);
            assert!(!made || found.contains(&9), "{found:?}; {}", of());
        };
        for ends in [Ends::Killed, Ends::Failing] {
            images += each_interruption_and_power_cut(&base, ends, &first, &second, &mut check);
        }
    }
    println!("{images} disks");
    assert!(images > 1_000, "{images}");
}
