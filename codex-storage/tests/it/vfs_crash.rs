//! The disks that a power cut can leave, each shown by a short sequence of calls.

use std::collections::BTreeSet;
use std::sync::Arc;

use codex_storage::vfs::fault::{CrashChoice, FaultDir, NameModel, Survivors};
use codex_storage::vfs::{Dir, File, Mode, Open};

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
    // If the second rename were durable without the first, it would replace the only backup.
    // Therefore the directory is synced between the two.
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
        // A torn sector has a prefix of the new bytes, then the old bytes.
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

pub(crate) fn create(dir: &dyn Dir, name: &str) -> Arc<dyn File> {
    dir.open(name, Open::CreateNew(Mode::Private)).unwrap()
}

/// Returns a file whose bytes and name are durable.
pub(crate) fn durable(dir: &dyn Dir, name: &str, bytes: &[u8]) -> Arc<dyn File> {
    let file = create(dir, name);
    file.write_all_at(bytes, 0).unwrap();
    file.sync().unwrap();
    dir.sync().unwrap();
    file
}

/// Returns the possible contents of `name` after a power cut.
pub(crate) fn outcomes(disk: &FaultDir, name: &str) -> BTreeSet<Option<Vec<u8>>> {
    disk.crash_images(&CrashChoice::default()).map(|image| image.peek(name).ok()).collect()
}

pub(crate) fn set(outcomes: &[Option<&[u8]>]) -> BTreeSet<Option<Vec<u8>>> {
    outcomes.iter().map(|bytes| bytes.map(<[u8]>::to_vec)).collect()
}
