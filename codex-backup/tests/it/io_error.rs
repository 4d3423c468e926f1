//! Every call fails once, or all calls fail from one call on. No good backup is lost, and the error
//! names the file.

use crate::common::sim::{
    Check, KEEP, LOG, WAYS, Way, backups_of, calls_of, count_of, disk, good, no_strays,
    nothing_lost, rotate, seed, store_is, story, world,
};
use crate::common::{Card, OURS, bytes, card};
use codex_backup::vfs::Dir;
use codex_backup::vfs::fault::{CrashChoice, Fault, FaultDir, Lasting, Side, Space};
use codex_backup::{CopyOptions, Error, Source, copy_to, unwatched};

const FAULTS: [Fault; 4] = [Fault::Eio, Fault::Enospc, Fault::Eintr, Fault::ShortWrite(100)];
const LASTINGS: [Lasting; 2] = [Lasting::Once, Lasting::Sticky];
const SIDES: [Side; 2] = [Side::Before, Side::After];

#[test]
fn three_failing_backups_on_a_full_disk_destroy_none() {
    for way in WAYS {
        for space in [Space::AtOnce, Space::AtSync] {
            let disk = disk(9, &[(1, 3), (2, 2), (3, 1)]);
            let vfs = world(&disk, way);
            disk.set_space(space(0));
            for seq in 10..13 {
                let failed = rotate(&vfs, way, 9);
                if way == Way::Reflink && failed.is_ok() {
                    break; // Shared blocks take no room.
                }
                let error = failed.unwrap_err();
                let typed = matches!(&error, Error::NoSpace { path, .. }
                    | Error::Source { path, .. } if path.to_string_lossy().contains("a.db"));
                assert!(typed, "{way:?} {seq}: {error}");
                assert_eq!(good(&*vfs.dir, &String::new), [1, 2, 3].into(), "{way:?}");
                no_strays(&*vfs.dir, &String::new);
            }
            disk.set_space(Space::Unlimited);
            rotate(&vfs, way, 9).unwrap();
            assert_eq!(crate::common::versions(&vfs, "a.db"), [(1, 9), (2, 3), (3, 2)]);
        }
    }
}

#[test]
fn an_error_at_any_call_of_a_rotation_costs_no_good_backup() {
    let mut cases = 0;
    for way in WAYS {
        for layout in [&[][..], &[(1, 3), (3, 1)], &[(1, 3), (2, 2), (3, 1)]] {
            cases += rotation_fails_well(way, layout);
        }
    }
    assert!(cases > 5_000, "{cases}");
}

fn rotation_fails_well(way: Way, layout: &[(u32, u64)]) -> u64 {
    let base = disk(9, layout);
    let before = good(&*base.vfs(0).dir, &String::new);
    let act = |disk: &FaultDir| rotate(&world(disk, way), way, 9);
    each_error(&base, &act, &mut |disk, result, context| {
        let context = || format!("{way:?} {layout:?} {}", context());
        let vfs = world(disk, way);
        names_the_file(result.as_ref().err(), &context);
        let found = good(&*vfs.dir, &context);
        nothing_lost(&before, &found, &context);
        assert!(result.is_err() || found.contains(&9), "{}", context());
        store_is(&*vfs.dir, 9, true, &context);

        // In the same boot, with the state that a failed sync left in the cache or dropped from it.
        disk.evict_clean_pages();
        nothing_lost(&before, &good(&*vfs.dir, &context), &context);
        let choice =
            CrashChoice { images_max: count_of(8.0), seed: seed(), ..CrashChoice::default() };
        for image in disk.crash_images(&choice) {
            nothing_lost(&before, &good(&*image.vfs(3).dir, &context), &context);
        }
        rotate(&vfs, way, 9).unwrap_or_else(|error| panic!("{error}; {}", context()));
        let listed = crate::common::versions(&vfs, "a.db");
        assert_eq!(listed.first().map(|(_, seq)| *seq), Some(9), "{listed:?} {}", context());
        assert!(listed.len() <= KEEP as usize, "{listed:?} {}", context());
        nothing_lost(&before, &good(&*vfs.dir, &context), &context);
        no_strays(&*vfs.dir, &context);
        // After a failed sync of a directory, a name that was visible may be lost permanently. In
        // that case the newer backup, which was verified since, exists.
        for image in disk.crash_images(&choice) {
            let found = good(&*image.vfs(3).dir, &context);
            assert_eq!(found.last(), Some(&9), "{found:?} {}", context());
        }
    })
}

#[test]
fn an_error_at_any_call_of_a_restore_leaves_the_old_store_or_a_restore_to_be_finished() {
    let base = disk(9, &[(1, 3), (2, 2)]);
    let sidecars = [LOG.to_owned()];
    let act = |disk: &FaultDir| backups_of(&disk.vfs(1)).restore(2, &sidecars, &mut unwatched);
    let cases = each_error(&base, &act, &mut |disk, result, context| {
        let vfs = disk.vfs(2);
        names_the_file(result.as_ref().err(), context);
        disk.evict_clean_pages();
        assert_eq!(good(&*vfs.dir, context), [2, 3].into(), "{}", context());
        let finished = backups_of(&vfs).finish_restore();
        let finished = finished.unwrap_or_else(|error| panic!("{error}; {}", context()));
        let is_new = bytes(&*vfs.dir, "a.db") == card(OURS, 2, 700);
        assert!(is_new || (finished.is_none() && result.is_err()), "{}", context());
        store_is(&*vfs.dir, if is_new { 2 } else { 9 }, !is_new, context);
        backups_of(&vfs).adopt().unwrap();
        no_strays(&*vfs.dir, context);
    });
    assert!(cases > 500, "{cases}");
}

#[test]
fn an_error_at_any_call_of_a_copy_leaves_the_whole_copy_or_nothing() {
    let base = disk(9, &[]);
    let options = CopyOptions::default();
    let act = |disk: &FaultDir| {
        let vfs = disk.vfs(1);
        Source::open(&vfs, "a.db")
            .and_then(|source| copy_to(&vfs, source, &vfs, "copy", &Card, &options, &mut unwatched))
    };
    let cases = each_error(&base, &act, &mut |disk, result, context| {
        let vfs = disk.vfs(2);
        let error = result.as_ref().err();
        let named = error.is_none_or(|error| error.path().is_some());
        assert!(named, "{error:?}; {}", context());
        disk.evict_clean_pages();
        if vfs.dir.metadata("copy").unwrap().is_none() {
            assert!(error.is_some(), "{}", context());
            act(disk).unwrap_or_else(|error| panic!("{error}; {}", context()));
        }
        assert_eq!(bytes(&*vfs.dir, "copy"), card(OURS, 9, 700), "{}", context());
        let mut left = crate::common::names(&*vfs.dir);
        // The lock file of the copy, if its removal failed.
        left.retain(|name| name != "copy.bak.lock");
        assert_eq!(left, ["a.db", LOG, "copy"], "{}", context());
    });
    assert!(cases > 200, "{cases}");
}

#[test]
fn an_error_at_any_call_of_opening_costs_no_backup_and_is_cleared_up_the_next_time() {
    let base = disk(9, &[(1, 3), (2, 2)]);
    let vfs = base.vfs(0);
    crate::common::put(&*vfs.dir, "a.db.bak.new", &card(OURS, 9, 700));
    crate::common::put(&*vfs.dir, "a.db.bak.tmp", b"half");
    let act = |disk: &FaultDir| backups_of(&disk.vfs(1)).adopt();
    let cases = each_error(&base, &act, &mut |disk, result, context| {
        let vfs = disk.vfs(2);
        names_the_file(result.as_ref().err(), context);
        assert_eq!(good(&*vfs.dir, context), [2, 3, 9].into(), "{}", context());
        backups_of(&vfs).adopt().unwrap();
        assert_eq!(good(&*vfs.dir, context), [2, 3, 9].into(), "{}", context());
        no_strays(&*vfs.dir, context);
    });
    assert!(cases > 200, "{cases}");
}

/// Runs `act` with each fault at each of its calls, once and permanently, before and after the
/// effect of the call. Calls `check` with the disk when it is healthy again. Returns the number of
/// runs.
fn each_error<R>(base: &FaultDir, act: &dyn Fn(&FaultDir) -> R, check: &mut Check<'_, R>) -> u64 {
    let mut cases = 0;
    for call in 0..calls_of(base, act) {
        for fault in FAULTS {
            for lasting in LASTINGS {
                for side in SIDES {
                    let disk = base.duplicate();
                    disk.record_trace(true);
                    disk.fail_at(call, fault, lasting, side);
                    let result = act(&disk);
                    if disk.faults_fired() == 0 {
                        continue;
                    }
                    disk.clear_plan();
                    let what = format!("{fault:?} {lasting:?} {side:?} at {call}");
                    check(&disk, &result, &|| story(&disk, &what));
                    cases += 1;
                }
            }
        }
    }
    cases
}

fn names_the_file(error: Option<&Error>, context: &dyn Fn() -> String) {
    let Some(error) = error else { return };
    let named = error.path().is_some_and(|path| path.to_string_lossy().contains("a.db"));
    assert!(named && error.to_string().contains("a.db"), "{error}; {}", context());
}

#[test]
fn a_folder_that_cannot_be_read_is_an_error_and_not_an_empty_list() {
    let disk = disk(9, &[(1, 3)]);
    let backups = backups_of(&disk.vfs(1));
    let calls = calls_of(&disk, &|disk: &FaultDir| backups_of(&disk.vfs(1)).list().map(drop));
    for call in 0..calls {
        let disk = disk.duplicate();
        disk.fail_at(call, Fault::Eio, Lasting::Sticky, Side::Before);
        match backups_of(&disk.vfs(1)).list() {
            Ok(list) => assert!(list.iter().any(|entry| entry.facts.is_err() || entry.index == 1)),
            Err(error) => names_the_file(Some(&error), &String::new),
        }
    }
    assert_eq!(backups.list().unwrap().len(), 1);
    let _: &dyn Dir = &*disk.vfs(1).dir;
}
