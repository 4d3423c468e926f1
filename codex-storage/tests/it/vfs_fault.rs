//! The simulated disk when calls fail, space runs out or a process ends, each shown by a short
//! sequence of calls.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::Arc;

use codex_storage::vfs::fault::{
    Calls, CrashChoice, Fault, FaultDir, Lasting, Side, Space, Survivors, each_fault,
    each_power_cut, is_power_off, is_process_gone,
};
use codex_storage::vfs::{CallKind, Dir, LockKind, MemDir, Mode, Observed, Open};

use super::vfs_crash::{create, durable, outcomes, set};

// Syncs that fail.

#[test]
fn bytes_of_a_failed_sync_stay_readable_and_a_later_sync_does_not_write_them() {
    let disk = FaultDir::new();
    let file = durable(&disk, "a", &[0; 512]);
    file.write_all_at(&[7; 512], 0).unwrap();
    disk.fail_on(Calls::of(CallKind::Sync), 1, Fault::Eio, Lasting::Once, Side::Before);
    assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(5));
    file.sync().unwrap();
    assert_eq!(disk.peek("a").unwrap(), [7; 512]);
    assert_eq!(disk.crash_process().peek("a").unwrap(), [7; 512]);
    assert_eq!(disk.reboot(Survivors::Nothing).peek("a").unwrap(), [0; 512]);
    // The disk may also have received them before the error.
    assert!(outcomes(&disk, "a").contains(&Some(vec![7; 512])));
}

#[test]
fn bytes_of_a_failed_sync_are_durable_once_written_again() {
    let disk = FaultDir::new();
    let file = durable(&disk, "a", &[0; 1024]);
    file.write_all_at(&[7; 1024], 0).unwrap();
    disk.fail_on(Calls::of(CallKind::Sync), 1, Fault::Eio, Lasting::Once, Side::Before);
    file.sync().unwrap_err();
    // Only the second sector is written again, with other bytes.
    file.write_all_at(&[9; 512], 512).unwrap();
    file.sync().unwrap();
    let lost = disk.reboot(Survivors::Nothing).peek("a").unwrap();
    assert_eq!(lost, [[0; 512], [9; 512]].concat());
    for image in disk.crash_images(&CrashChoice::default()) {
        assert_eq!(image.peek("a").unwrap()[512..], [9; 512]);
    }
}

#[test]
fn memory_pressure_shows_what_a_failed_sync_lost() {
    let disk = FaultDir::new();
    let file = durable(&disk, "a", &[0; 1024]);
    file.write_all_at(&[7; 512], 0).unwrap();
    disk.fail_on(Calls::of(CallKind::Sync), 1, Fault::Eio, Lasting::Once, Side::Before);
    file.sync().unwrap_err();
    file.write_all_at(&[9; 512], 512).unwrap();
    disk.evict_clean_pages();
    assert_eq!(disk.peek("a").unwrap(), [[0; 512], [9; 512]].concat());
    file.sync().unwrap();
    assert_eq!(outcomes(&disk, "a"), set(&[Some(&[[0; 512], [9; 512]].concat())]));
}

#[test]
fn names_of_a_failed_directory_sync_can_be_lost_for_good() {
    let disk = FaultDir::new();
    durable(&disk, "a", b"1");
    disk.rename("a", "b").unwrap();
    disk.fail_on(Calls::of(CallKind::SyncDir), 1, Fault::Eio, Lasting::Once, Side::Before);
    disk.sync().unwrap_err();
    disk.sync().unwrap();
    assert_eq!(disk.list().unwrap(), ["b"]);
    let nothing = disk.reboot(Survivors::Nothing);
    assert_eq!(nothing.list().unwrap(), ["a"]);
    // The bytes that were synced after it stay.
    durable(&disk, "c", b"2");
    assert_eq!(disk.reboot(Survivors::Nothing).peek("c").unwrap(), b"2");
}

#[test]
fn a_sync_that_fails_after_its_effect_made_the_bytes_durable() {
    let disk = FaultDir::new();
    let file = durable(&disk, "a", &[0; 512]);
    file.write_all_at(&[7; 512], 0).unwrap();
    disk.fail_on(Calls::of(CallKind::Sync), 1, Fault::Eio, Lasting::Once, Side::After);
    file.sync().unwrap_err();
    assert_eq!(outcomes(&disk, "a"), set(&[Some(&[7; 512])]));
}

// Errors at a call.

#[test]
fn the_power_goes_before_or_after_the_effect_of_a_call() {
    for (side, expected) in [(Side::Before, b"old"), (Side::After, b"new")] {
        let disk = FaultDir::new();
        let file = durable(&disk, "a", b"old");
        file.write_all_at(b"new", 0).unwrap();
        disk.cut_power_at(disk.calls(), side);
        assert!(is_power_off(&file.sync().unwrap_err()));
        assert!(is_power_off(&file.read_exact_at(&mut [0], 0).unwrap_err()));
        assert!(is_power_off(&disk.list().unwrap_err()));
        let calls = disk.calls();
        assert!(is_power_off(&disk.sync().unwrap_err()));
        assert_eq!(disk.calls(), calls, "calls without power are not counted");
        assert_eq!(disk.reboot(Survivors::Nothing).peek("a").unwrap(), expected);
    }
}

#[test]
fn a_fault_strikes_the_call_with_its_number_once_or_for_good() {
    for (lasting, later) in [(Lasting::Once, true), (Lasting::Sticky, false)] {
        let disk = FaultDir::new();
        let file = create(&disk, "a");
        disk.fail_at(disk.calls() + 1, Fault::Eio, lasting, Side::Before);
        file.write_all_at(b"1", 0).unwrap();
        assert_eq!(file.write_all_at(b"2", 1).unwrap_err().raw_os_error(), Some(5));
        assert_eq!(file.write_all_at(b"3", 2).is_ok(), later);
        assert_eq!(disk.peek("a").unwrap() == b"1\x003", later);
    }
}

#[test]
fn every_kind_of_error_has_the_number_of_the_system() {
    let disk = FaultDir::new();
    let file = create(&disk, "a");
    let strike = |fault| {
        disk.fail_at(disk.calls(), fault, Lasting::Once, Side::Before);
        file.write_all_at(b"abcdef", 0).unwrap_err().kind()
    };
    assert_eq!(strike(Fault::Enospc), ErrorKind::StorageFull);
    assert_eq!(strike(Fault::Eintr), ErrorKind::Interrupted);
    assert!(disk.peek("a").unwrap().is_empty());
    assert_eq!(strike(Fault::ShortWrite(4)), ErrorKind::WriteZero);
    assert_eq!(disk.peek("a").unwrap(), b"abcd");
    assert_eq!(disk.faults_fired(), 3);
}

#[test]
fn a_fault_that_a_call_cannot_have_lapses() {
    let disk = FaultDir::new();
    let file = durable(&disk, "a", b"abc");
    disk.fail_at(disk.calls(), Fault::Enospc, Lasting::Once, Side::Before);
    file.read_exact_at(&mut [0; 3], 0).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    disk.fail_at(disk.calls(), Fault::Enospc, Lasting::Sticky, Side::Before);
    file.read_exact_at(&mut [0; 3], 0).unwrap();
    file.write_all_at(b"x", 0).unwrap_err();
    assert_eq!(disk.faults_fired(), 1);
}

#[test]
fn the_third_sync_of_a_log_fails_and_nothing_else() {
    let disk = FaultDir::new();
    let log = create(&disk, "tmp");
    disk.rename("tmp", "app.db.wal.0001").unwrap();
    let image = create(&disk, "app.db");
    let syncs = Calls::of(CallKind::Sync).on("*.wal.*");
    disk.fail_on(syncs, 3, Fault::Eio, Lasting::Once, Side::Before);
    for round in 1..=5 {
        image.sync().unwrap();
        assert_eq!(log.sync().is_err(), round == 3, "round {round}");
    }
}

#[test]
fn faults_combine_and_a_power_cut_comes_first() {
    let disk = FaultDir::new();
    let file = create(&disk, "a");
    disk.fail_on(Calls::of(CallKind::Write), 1, Fault::Eintr, Lasting::Once, Side::Before);
    disk.fail_on(Calls::of(CallKind::Sync), 1, Fault::Eio, Lasting::Sticky, Side::Before);
    disk.cut_power_on(Calls::of(CallKind::Sync), 2, Side::Before);
    assert_eq!(file.write_all_at(b"x", 0).unwrap_err().kind(), ErrorKind::Interrupted);
    assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(5));
    assert!(is_power_off(&file.sync().unwrap_err()));
}

// A disk that runs full.

#[test]
fn a_full_disk_refuses_an_allocation_and_changes_nothing() {
    let disk = FaultDir::new();
    disk.set_space(Space::AtOnce(8 * 4_096));
    let file = create(&disk, "a");
    file.allocate(0, 4 * 4_096).unwrap();
    assert_eq!(disk.available_bytes().unwrap(), Some(4 * 4_096));
    let full = file.allocate(4 * 4_096, 5 * 4_096).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    assert_eq!(file.len().unwrap(), 4 * 4_096);
    file.write_all_at(&[1; 4 * 4_096], 0).unwrap();
    file.allocate(4 * 4_096, 4 * 4_096).unwrap();
    assert_eq!(disk.available_bytes().unwrap(), Some(0));
}

#[test]
fn a_write_on_a_full_disk_writes_what_fits() {
    let disk = FaultDir::new();
    disk.set_space(Space::AtOnce(2 * 4_096));
    let file = create(&disk, "a");
    let full = file.write_all_at(&[1; 3 * 4_096], 100).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    assert_eq!(file.len().unwrap(), 2 * 4_096);
    file.write_all_at(&[2; 2 * 4_096], 0).unwrap();
}

#[test]
fn removing_a_file_frees_its_space_once_nothing_leads_to_it() {
    let disk = FaultDir::new();
    disk.set_space(Space::AtOnce(4 * 4_096));
    let file = durable(&disk, "a", &[1; 4 * 4_096]);
    let other = create(&disk, "b");
    assert!(other.write_all_at(b"x", 0).is_err());
    disk.remove("a").unwrap();
    drop(file);
    disk.sync().unwrap();
    other.write_all_at(b"x", 0).unwrap();
}

#[test]
fn with_delayed_allocation_the_disk_is_full_only_at_the_sync() {
    let disk = FaultDir::new();
    disk.set_space(Space::AtSync(2 * 4_096));
    let file = durable(&disk, "a", b"");
    file.write_all_at(&[1; 3 * 4_096], 0).unwrap();
    assert_eq!(file.sync().unwrap_err().kind(), ErrorKind::StorageFull);
    file.sync().unwrap();
    assert_eq!(disk.peek("a").unwrap(), [1; 3 * 4_096]);
    assert!(disk.reboot(Survivors::Nothing).peek("a").unwrap().is_empty());
    // Space that is allocated first cannot be missing later.
    let file = durable(&disk, "b", b"");
    file.allocate(0, 2 * 4_096).unwrap();
    file.write_all_at(&[1; 2 * 4_096], 0).unwrap();
    file.sync().unwrap();
}

#[test]
fn a_file_system_without_reflinks_says_so_and_makes_none() {
    let disk = FaultDir::new();
    let file = durable(&disk, "a", b"abc");
    let reflinks = Calls::of(CallKind::Reflink);
    disk.fail_on(reflinks, 1, Fault::Unsupported, Lasting::Sticky, Side::Before);
    let refused = disk.reflink(&file, "b", Mode::Frozen);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(disk.list().unwrap(), ["a"]);
}

#[test]
fn a_file_whose_opening_failed_after_its_effect_gives_its_space_back() {
    let disk = FaultDir::new();
    disk.set_space(Space::AtOnce(4_096));
    durable(&disk, "a", b"abc");
    disk.fail_at(disk.calls(), Fault::Eio, Lasting::Once, Side::After);
    disk.open("a", Open::Read).unwrap_err();
    disk.remove("a").unwrap();
    disk.sync().unwrap();
    assert_eq!(disk.available_bytes().unwrap(), Some(4_096));
}

// Sweeps over all calls.

/// Replaces `a` by a new file. Each flaw leaves out one step.
fn replace(disk: &FaultDir, flaw: Option<CallKind>) -> std::io::Result<()> {
    let file = disk.open("tmp", Open::CreateNew(Mode::Private))?;
    file.write_all_at(&[2; 1_000], 0)?;
    if flaw != Some(CallKind::Sync) {
        file.sync()?;
    }
    if disk.list()?.is_empty() {
        return Ok(());
    }
    disk.rename("tmp", "a")?;
    if flaw == Some(CallKind::SyncDir) { Ok(()) } else { disk.sync() }
}

#[test]
fn a_sweep_of_power_cuts_finds_each_missing_sync() {
    let disk = FaultDir::new();
    durable(&disk, "a", &[1; 1_000]);
    let sweep = |flaw: Option<CallKind>| {
        let (mut halves, mut losses) = (0, 0);
        let choice = CrashChoice::default();
        let act = |disk: &FaultDir| replace(disk, flaw);
        let images = each_power_cut(&disk, &choice, act, |mishap, image, result| {
            let found = image.peek("a").unwrap();
            halves += u32::from(found != [1; 1_000] && found != [2; 1_000]);
            losses += u32::from(found == [1; 1_000] && result.is_ok());
            assert!(mishap.to_string().contains("Create tmp") || result.is_err());
        });
        assert!(images > 10, "{images}");
        (halves > 0, losses > 0)
    };
    assert_eq!(sweep(None), (false, false));
    assert_eq!(sweep(Some(CallKind::Sync)), (true, false));
    assert_eq!(sweep(Some(CallKind::SyncDir)), (false, true));
}

#[test]
fn a_sweep_of_faults_strikes_each_call_in_each_way() {
    let disk = FaultDir::new();
    durable(&disk, "a", &[1; 1_000]);
    let faults = [Fault::Eio, Fault::Enospc, Fault::ShortWrite(1)];
    let act = |disk: &FaultDir| replace(disk, None);
    let mut told = BTreeSet::new();
    let runs = each_fault(&disk, &faults, act, |mishap, disk, result| {
        assert!(result.is_err(), "{mishap}");
        disk.sync().unwrap();
        told.insert(mishap.to_string());
    });
    // Six calls. All except the list take space, and one is a write.
    assert_eq!(runs, 4 * (6 + 5 + 1));
    assert_eq!(told.len(), 48);
}

// Processes, locks, gates, traces.

#[test]
fn a_process_that_ends_leaves_its_writes_and_frees_its_locks() {
    let disk = FaultDir::new();
    let file = create(&disk, "a");
    let lock = disk.try_lock("lock", LockKind::Exclusive).unwrap().unwrap();
    file.write_all_at(b"cached", 0).unwrap();
    let next = disk.crash_process();
    assert!(is_process_gone(&file.write_all_at(b"zombie", 0).unwrap_err()));
    assert!(is_process_gone(&disk.list().unwrap_err()));
    assert_eq!(next.peek("a").unwrap(), b"cached");
    let taken = next.try_lock("lock", LockKind::Exclusive).unwrap().unwrap();
    drop((lock, file));
    assert!(next.try_lock("lock", LockKind::Shared).unwrap().is_none());
    drop(taken);
}

#[test]
fn a_process_killed_at_a_call_leaves_the_disk_to_the_next_one() {
    for (side, found) in [(Side::Before, &b"one"[..]), (Side::After, &b"onetwo"[..])] {
        let disk = FaultDir::new();
        let file = create(&disk, "a");
        file.write_all_at(b"one", 0).unwrap();
        disk.kill_process_on(Calls::of(CallKind::Write), 1, side);
        assert!(is_process_gone(&file.write_all_at(b"two", 3).unwrap_err()));
        assert!(is_process_gone(&disk.list().unwrap_err()));
        let next = disk.crash_process();
        assert_eq!(next.peek("a").unwrap(), found);
        next.sync().unwrap();
    }
}

#[test]
fn names_of_a_failed_sync_are_told_until_the_power_is_cut() {
    let disk = FaultDir::new();
    drop(create(&disk, "a"));
    assert!(!disk.has_doomed_names());
    disk.fail_on(Calls::of(CallKind::SyncDir), 1, Fault::Eio, Lasting::Once, Side::Before);
    disk.sync().unwrap_err();
    disk.sync().unwrap();
    assert!(disk.has_doomed_names());
    assert!(!disk.reboot(Survivors::Nothing).has_doomed_names());
}

#[test]
fn a_held_sync_waits_while_reads_go_on() {
    let disk = FaultDir::new();
    let file = durable(&disk, "a", b"abc");
    let gate = disk.hold(Calls::of(CallKind::Sync).on("a"));
    let syncing = std::thread::spawn({
        let file = Arc::clone(&file);
        move || file.sync()
    });
    gate.wait_for(1);
    let mut found = [0; 3];
    file.read_exact_at(&mut found, 0).unwrap();
    assert_eq!(&found, b"abc");
    // Written while the sync was running, so the sync does not cover these bytes.
    file.write_all_at(b"xyz", 0).unwrap();
    assert!(!syncing.is_finished());
    assert_eq!(gate.waiting(), 1);
    gate.release();
    syncing.join().unwrap().unwrap();
    assert_eq!(disk.reboot(Survivors::Nothing).peek("a").unwrap(), b"abc");
    file.sync().unwrap();
    assert_eq!(disk.reboot(Survivors::Nothing).peek("a").unwrap(), b"xyz");
}

#[test]
fn a_power_cut_reaches_the_calls_that_are_held() {
    let disk = FaultDir::new();
    let file = create(&disk, "a");
    let gate = disk.hold(Calls::of(CallKind::Sync));
    let syncing = std::thread::spawn(move || file.sync());
    gate.wait_for(1);
    disk.cut_power();
    assert!(is_power_off(&syncing.join().unwrap().unwrap_err()));
}

#[test]
fn the_same_calls_give_the_same_trace() {
    let run = || {
        let disk = FaultDir::new();
        disk.record_trace(true);
        let world = disk.vfs(3);
        let mut bytes = [0; 16];
        world.entropy.fill(&mut bytes).unwrap();
        let file = world.dir.open("tmp", Open::CreateNew(Mode::Private)).unwrap();
        file.write_all_at(&bytes, u64::from(bytes[0])).unwrap();
        world.dir.rename("tmp", "a").unwrap();
        file.set_len(8).unwrap();
        world.dir.sync().unwrap();
        disk.trace().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let trace = run();
    assert_eq!(trace, run());
    assert_eq!(trace.len(), 5);
    assert_eq!(trace[0], "    0 Create tmp");
    assert!(trace[1].starts_with("    1 Write tmp ") && trace[1].ends_with("+16"));
    assert_eq!(trace[2..], ["    2 Rename tmp -> a", "    3 SetLen a 8", "    4 SyncDir "]);
}

#[test]
fn an_observer_sees_each_call_before_it_happens_with_the_present_name() {
    let disk = FaultDir::new();
    let seen: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
    let observed = Observed::with_bytes(Arc::new(disk.clone()), {
        let (seen, disk) = (Arc::clone(&seen), disk.clone());
        move |call, bytes| {
            assert_eq!(call.index, disk.calls(), "the call has not reached the disk");
            let width = u64::try_from(bytes.len()).unwrap();
            assert_eq!(width, if call.kind == CallKind::Write { call.len } else { 0 });
            seen.lock().unwrap().push(call.to_string());
        }
    });
    disk.record_trace(true);
    let file = create(&observed, "tmp");
    file.write_all_at(b"abc", 1).unwrap();
    observed.rename("tmp", "a").unwrap();
    file.sync().unwrap();
    observed.sync().unwrap();
    drop(observed.try_lock("lock", LockKind::Shared).unwrap());
    drop(observed.lock_existing("a", LockKind::Shared).unwrap());
    observed.inherit("a", "lock", None).unwrap();
    assert_eq!(file.len().unwrap(), 4);
    file.read_exact_at(&mut [0; 4], 0).unwrap();
    file.set_len(2).unwrap();
    file.allocate(0, 10).unwrap();
    observed.metadata("a").unwrap().unwrap();
    observed.reflink(&file, "b", Mode::Frozen).unwrap();
    observed.remove("b").unwrap();
    observed.list().unwrap();
    observed.available_bytes().unwrap();
    let trace: Vec<_> = disk.trace().iter().map(ToString::to_string).collect();
    assert_eq!(*seen.lock().unwrap(), trace);
}

#[test]
fn a_directory_shares_the_blocks_of_a_file_in_wrappers() {
    let dir = MemDir::new();
    create(&dir, "a").write_all_at(b"abc", 0).unwrap();
    let once = Observed::new(Arc::new(dir.clone()), |_| {});
    let twice = Observed::new(Arc::new(once), |_| {});
    dir.reflink(&twice.open("a", Open::Read).unwrap(), "b", Mode::Frozen).unwrap();
    assert_eq!(dir.metadata("b").unwrap().unwrap().len, 3);
    // Not a file of another directory.
    let other = MemDir::new();
    let refused = other.reflink(&twice.open("a", Open::Read).unwrap(), "b", Mode::Frozen);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn a_duplicate_has_the_same_choices_and_a_life_of_its_own() {
    let disk = FaultDir::new();
    let file = durable(&disk, "a", b"old");
    file.write_all_at(b"new", 0).unwrap();
    let copy = disk.duplicate();
    assert_eq!(outcomes(&copy, "a"), outcomes(&disk, "a"));
    file.sync().unwrap();
    assert_eq!(copy.reboot(Survivors::Nothing).peek("a").unwrap(), b"old");
}
