//! What the simulated disk does when things go wrong, each by a small story.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use codex_storage::vfs::fault::{
    Calls, CrashChoice, Fault, FaultDir, Lasting, NameModel, Side, Space, Survivors, each_fault,
    each_power_cut, is_power_off, is_process_gone,
};
use codex_storage::vfs::{CallKind, Dir, File, LockKind, Mode, Observed, Open};

// What a power cut leaves.

#[test]
fn what_was_synced_with_its_name_survives_in_every_image() {
    let disk = FaultDir::new();
    let file = durable(&disk, "a", b"safe");
    file.write_all_at(b"more", 4).unwrap();
    for image in disk.crash_images(&CrashChoice::default()) {
        assert_eq!(&image.peek("a").unwrap()[..4], b"safe");
    }
}

#[test]
fn synced_bytes_with_an_unsynced_name_can_be_lost() {
    let disk = FaultDir::new();
    let file = create(&disk, "a");
    file.write_all_at(b"bytes", 0).unwrap();
    file.sync().unwrap();
    let found = outcomes(&disk, "a");
    assert_eq!(found, set(&[None, Some(b"bytes")]));
}

#[test]
fn a_synced_name_with_unsynced_bytes_can_be_empty() {
    let disk = FaultDir::new();
    let file = create(&disk, "a");
    disk.sync().unwrap();
    file.write_all_at(b"bytes", 0).unwrap();
    let found = outcomes(&disk, "a");
    assert!(found.contains(&Some(Vec::new())));
    assert!(found.contains(&Some(b"bytes".to_vec())));
    assert!(!found.contains(&None));
}

#[test]
fn an_unsynced_rename_reverts_as_a_whole() {
    let disk = FaultDir::new();
    durable(&disk, "a", b"old");
    durable(&disk, "a.tmp", b"new");
    disk.rename("a.tmp", "a").unwrap();
    let mut states = BTreeSet::new();
    for image in disk.crash_images(&CrashChoice::default()) {
        states.insert((image.peek("a").ok(), image.peek("a.tmp").ok()));
    }
    let reverted = (Some(b"old".to_vec()), Some(b"new".to_vec()));
    let kept = (Some(b"new".to_vec()), None);
    assert_eq!(states, [reverted, kept].into());
    disk.sync().unwrap();
    assert_eq!(outcomes(&disk, "a"), set(&[Some(b"new")]));
}

#[test]
fn names_are_lost_independently_unless_the_journal_orders_them() {
    let disk = FaultDir::new();
    durable(&disk, "bak.1", b"older");
    durable(&disk, "tmp", b"newer");
    disk.rename("bak.1", "bak.2").unwrap();
    disk.rename("tmp", "bak.1").unwrap();
    // The second rename without the first replaces the only backup: hence a sync in between.
    let loses_older = |names| {
        let choice = CrashChoice { names, ..CrashChoice::default() };
        let has_older = |image: &FaultDir| {
            ["bak.1", "bak.2"].iter().any(|name| image.peek(name).is_ok_and(|b| b == b"older"))
        };
        disk.crash_images(&choice).any(|image| !has_older(&image))
    };
    assert!(loses_older(NameModel::Independent));
    assert!(!loses_older(NameModel::Ordered));
}

#[test]
fn an_unsynced_removal_can_come_back() {
    let disk = FaultDir::new();
    durable(&disk, "a", b"back");
    disk.remove("a").unwrap();
    assert_eq!(outcomes(&disk, "a"), set(&[None, Some(b"back")]));
}

#[test]
fn all_subsets_of_few_unsynced_writes_are_given_once() {
    let disk = FaultDir::new();
    let file = durable(&disk, "a", &[0; 4 * 512]);
    for sector in 0..4 {
        file.write_all_at(&[7; 512], sector * 512).unwrap();
    }
    let choice = CrashChoice { samples: 0, ..CrashChoice::default() };
    let images: Vec<_> = disk.crash_images(&choice).map(|image| image.peek("a").unwrap()).collect();
    assert_eq!(images.len(), 16);
    assert_eq!(images.iter().collect::<BTreeSet<_>>().len(), 16);
}

#[test]
fn later_writes_can_be_there_without_earlier_ones() {
    let disk = FaultDir::new();
    let file = durable(&disk, "a", &[0; 2 * 512]);
    file.write_all_at(&[1; 512], 0).unwrap();
    file.write_all_at(&[2; 512], 512).unwrap();
    let reordered = [[0; 512], [2; 512]].concat();
    assert!(outcomes(&disk, "a").contains(&Some(reordered)));
}

#[test]
fn of_two_writes_to_one_sector_the_later_one_wins() {
    let disk = FaultDir::new();
    let file = durable(&disk, "a", &[0; 512]);
    file.write_all_at(&[1; 100], 0).unwrap();
    file.write_all_at(&[2; 100], 50).unwrap();
    let both = [vec![1; 50], vec![2; 100], vec![0; 362]].concat();
    let first = [vec![1; 100], vec![0; 412]].concat();
    let choice = CrashChoice { samples: 0, ..CrashChoice::default() };
    let found: BTreeSet<_> =
        disk.crash_images(&choice).map(|image| image.peek("a").unwrap()).collect();
    assert_eq!(found, [vec![0; 512], first, both].into());
}

#[test]
fn one_write_tears_between_and_inside_sectors() {
    let disk = FaultDir::new();
    let file = durable(&disk, "a", &[0; 4 * 512]);
    file.write_all_at(&[7; 4 * 512], 0).unwrap();
    let (mut holes, mut torn_sectors) = (0, 0);
    for image in disk.crash_images(&CrashChoice { samples: 300, ..CrashChoice::default() }) {
        let found = image.peek("a").unwrap();
        let whole = |sector: &[u8]| sector.iter().all(|byte| *byte == sector[0]);
        if found.chunks(512).all(whole) {
            holes += usize::from(found[0] == 0 && found[3 * 512] == 7);
            continue;
        }
        torn_sectors += 1;
        // A torn sector holds a prefix of the new bytes and then the old ones.
        let torn = found.chunks(512).find(|sector| !whole(sector)).unwrap();
        let cut = torn.iter().position(|byte| *byte == 0).unwrap();
        assert!(torn[..cut].iter().all(|b| *b == 7) && torn[cut..].iter().all(|b| *b == 0));
    }
    assert!(holes > 0, "no image has a later sector without an earlier one");
    assert!(torn_sectors > 0, "no image has a torn sector");
}

#[test]
fn an_unsynced_length_is_lost_or_kept() {
    let disk = FaultDir::new();
    let file = durable(&disk, "a", &[1; 1024]);
    file.set_len(100).unwrap();
    let lengths = |disk: &FaultDir| -> BTreeSet<usize> {
        let images = disk.crash_images(&CrashChoice::default());
        images.map(|image| image.peek("a").unwrap().len()).collect()
    };
    assert_eq!(lengths(&disk), [100, 1024].into());
    file.sync().unwrap();
    assert_eq!(lengths(&disk), [100].into());
    file.allocate(0, 4_096).unwrap();
    assert!(lengths(&disk).is_superset(&[100, 4_096].into()));
}

#[test]
fn bytes_behind_a_lost_length_do_not_come_back() {
    let disk = FaultDir::new();
    let file = durable(&disk, "a", &[1; 100]);
    file.write_all_at(&[2; 3 * 512], 100).unwrap();
    for image in disk.crash_images(&CrashChoice::default()) {
        let before = image.peek("a").unwrap();
        let file = image.open("a", Open::Write).unwrap();
        file.set_len(8_192).unwrap();
        let after = image.peek("a").unwrap();
        assert_eq!(after[..before.len()], before);
        assert!(after[before.len()..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn many_writes_give_prefixes_and_samples_within_the_budget() {
    let disk = FaultDir::new();
    let file = durable(&disk, "a", &vec![0; 100 * 512]);
    for sector in 0..100 {
        file.write_all_at(&[7; 512], sector * 512).unwrap();
    }
    let choice = CrashChoice { images_max: 10_000, samples: 300, ..CrashChoice::default() };
    let images: BTreeSet<_> =
        disk.crash_images(&choice).map(|image| image.peek("a").unwrap()).collect();
    for prefix in 0..=100 {
        let expected = [vec![7; prefix * 512], vec![0; (100 - prefix) * 512]].concat();
        assert!(images.contains(&expected), "prefix {prefix}");
    }
    assert!(images.len() > 250);
    let few = CrashChoice { images_max: 10, ..choice };
    assert_eq!(disk.crash_images(&few).count(), 10);
}

#[test]
fn an_image_is_a_healthy_disk_of_its_own() {
    let disk = FaultDir::new();
    durable(&disk, "a", b"kept");
    disk.cut_power();
    let image = disk.crash_images(&CrashChoice::default()).next().unwrap();
    let file = image.open("a", Open::Write).unwrap();
    file.write_all_at(b"KEPT", 0).unwrap();
    file.sync().unwrap();
    assert_eq!(outcomes(&image, "a"), set(&[Some(b"KEPT")]));
    assert_eq!(disk.peek("a").unwrap(), b"kept");
}

#[test]
fn an_image_can_be_made_again_by_its_number() {
    let disk = FaultDir::new();
    let file = durable(&disk, "a", &[0; 20 * 512]);
    for sector in 0..20 {
        file.write_all_at(&[7; 512], sector * 512).unwrap();
    }
    let choice = CrashChoice { seed: 5, ..CrashChoice::default() };
    let mut images = disk.crash_images(&choice);
    while let Some(image) = images.next() {
        let again = disk.crash_images(&choice).image(images.number());
        assert_eq!(image.peek("a").unwrap(), again.peek("a").unwrap());
    }
}

#[test]
fn the_same_seed_gives_the_same_images() {
    let images = |seed| {
        let disk = FaultDir::new();
        let file = durable(&disk, "a", &[0; 20 * 512]);
        for sector in 0..20 {
            file.write_all_at(&[7; 512], sector * 512).unwrap();
        }
        let choice = CrashChoice { seed, ..CrashChoice::default() };
        disk.crash_images(&choice).map(|image| image.peek("a").unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(images(1), images(1));
    assert_ne!(images(1), images(2));
}

#[test]
fn a_reboot_keeps_nothing_everything_or_something() {
    let disk = FaultDir::new();
    let file = durable(&disk, "a", &[0; 8 * 512]);
    for sector in 0..8 {
        file.write_all_at(&[7; 512], sector * 512).unwrap();
    }
    create(&disk, "b");
    let nothing = disk.reboot(Survivors::Nothing);
    assert_eq!(nothing.peek("a").unwrap(), [0; 8 * 512]);
    assert_eq!(nothing.list().unwrap(), ["a"]);
    let everything = disk.reboot(Survivors::Everything);
    assert_eq!(everything.peek("a").unwrap(), [7; 8 * 512]);
    assert_eq!(everything.list().unwrap().len(), 2);
    let some: BTreeSet<_> =
        (0..20).map(|seed| disk.reboot(Survivors::Seeded(seed)).peek("a").unwrap()).collect();
    assert!(some.len() > 5);
}

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
    // The disk may have had them before the error, too.
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
    // What was synced behind it stays.
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
    // What is allocated first cannot fail later.
    let file = durable(&disk, "b", b"");
    file.allocate(0, 2 * 4_096).unwrap();
    file.write_all_at(&[1; 2 * 4_096], 0).unwrap();
    file.sync().unwrap();
}

#[test]
fn a_file_system_without_reflinks_says_so_and_makes_none() {
    let disk = FaultDir::new();
    durable(&disk, "a", b"abc");
    let reflinks = Calls::of(CallKind::Reflink);
    disk.fail_on(reflinks, 1, Fault::Unsupported, Lasting::Sticky, Side::Before);
    let refused = disk.reflink("a", "b", Mode::Frozen);
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

/// Replaces `a` by a new file; each flaw leaves one step out.
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
    // Six calls; all but the list take space, and one is a write.
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
    assert!(gate.wait_for(1, Duration::from_secs(10)));
    let mut found = [0; 3];
    file.read_exact_at(&mut found, 0).unwrap();
    assert_eq!(&found, b"abc");
    // Written while the sync was on its way: that sync is not about it.
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
    assert!(gate.wait_for(1, Duration::from_secs(10)));
    disk.cut_power();
    assert!(is_power_off(&syncing.join().unwrap().unwrap_err()));
}

#[test]
fn a_delay_makes_its_calls_slow_and_no_others() {
    let disk = FaultDir::new();
    let file = create(&disk, "a");
    disk.delay(Calls::of(CallKind::Sync), Duration::from_millis(30));
    let start = std::time::Instant::now();
    file.sync().unwrap();
    assert!(start.elapsed() >= Duration::from_millis(30));
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
    observed.reflink("a", "b", Mode::Frozen).unwrap();
    observed.remove("b").unwrap();
    observed.list().unwrap();
    observed.available_bytes().unwrap();
    let trace: Vec<_> = disk.trace().iter().map(ToString::to_string).collect();
    assert_eq!(*seen.lock().unwrap(), trace);
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

fn create(dir: &dyn Dir, name: &str) -> Arc<dyn File> {
    dir.open(name, Open::CreateNew(Mode::Private)).unwrap()
}

/// A file whose bytes and name are durable.
fn durable(dir: &dyn Dir, name: &str, bytes: &[u8]) -> Arc<dyn File> {
    let file = create(dir, name);
    file.write_all_at(bytes, 0).unwrap();
    file.sync().unwrap();
    dir.sync().unwrap();
    file
}

/// What `name` can hold after a power cut.
fn outcomes(disk: &FaultDir, name: &str) -> BTreeSet<Option<Vec<u8>>> {
    disk.crash_images(&CrashChoice::default()).map(|image| image.peek(name).ok()).collect()
}

fn set(outcomes: &[Option<&[u8]>]) -> BTreeSet<Option<Vec<u8>>> {
    outcomes.iter().map(|bytes| bytes.map(<[u8]>::to_vec)).collect()
}
