//! The power is cut before and after every call. No good backup is lost, and no partial file is
//! left.

use std::sync::Arc;

use crate::common::sim::{
    KEEP, LOG, WAYS, Way, backups_of, disk, each_power_cut, good, no_strays, nothing_lost, rotate,
    store_is, world,
};
use crate::common::{Card, Keyed, OURS, bytes, card, names};
use codex_backup::vfs::Vfs;
use codex_backup::vfs::fault::FaultDir;
use codex_backup::{CopyOptions, Source, copy_to, unwatched};

/// The backups before a rotation: none, some, a gap, the number to keep, more than that.
const LAYOUTS: [&[(u32, u64)]; 6] = [
    &[],
    &[(1, 3)],
    &[(1, 3), (3, 1)],
    &[(2, 3), (3, 2)],
    &[(1, 3), (2, 2), (3, 1)],
    &[(1, 5), (2, 4), (3, 3), (4, 2), (5, 1)],
];

#[test]
fn a_power_cut_in_a_rotation_costs_no_good_backup_and_leaves_nothing() {
    let mut images = 0;
    for way in WAYS {
        for layout in LAYOUTS {
            images += rotation_survives(way, layout);
        }
    }
    println!("{images} disks");
    assert!(images > 4_000, "{images}");
}

fn rotation_survives(way: Way, layout: &[(u32, u64)]) -> u64 {
    let base = disk(9, layout);
    let before = good(&*base.vfs(0).dir, &String::new);
    let act = |disk: &FaultDir| rotate(&world(disk, way), way, 9).is_ok();
    each_power_cut(&base, &act, &mut |image, acknowledged, context| {
        let context = || format!("{way:?} {layout:?} {}", context());
        let vfs = world(image, way);
        let found = good(&*vfs.dir, &context);
        let fair = || {
            if layout.len() > KEEP as usize {
                // If there are more than the number to keep, the oldest ones may be removed.
                let newest = before.iter().rev().take(KEEP as usize).copied().collect();
                nothing_lost(&newest, &good(&*vfs.dir, &context), &context);
            } else {
                nothing_lost(&before, &good(&*vfs.dir, &context), &context);
            }
        };
        fair();
        assert!(!acknowledged || found.contains(&9), "{}", context());
        store_is(&*vfs.dir, 9, true, &context);

        backups_of(&vfs).adopt().unwrap_or_else(|error| panic!("{error}; {}", context()));
        fair();
        no_strays(&*vfs.dir, &context);
        let adopted = good(&*vfs.dir, &context);
        assert!(adopted.is_superset(&found), "{found:?} {adopted:?}; {}", context());
        let names_before = names(&*vfs.dir);
        assert_eq!(backups_of(&vfs).adopt().unwrap().removed.len(), 0, "{}", context());
        assert_eq!(names(&*vfs.dir), names_before, "{}", context());

        rotate(&vfs, way, 9).unwrap_or_else(|error| panic!("{error}; {}", context()));
        let listed = crate::common::versions(&vfs, "a.db");
        assert_eq!(listed.first().map(|(_, seq)| *seq), Some(9), "{listed:?} {}", context());
        assert!(listed.len() <= KEEP as usize, "{listed:?} {}", context());
        no_strays(&*vfs.dir, &context);
    })
}

/// A rotation that was killed after it gave the first name has synced no name. The next one has
/// nothing to copy, and must not rest on the name before it is durable.
#[test]
fn a_version_that_counts_as_backed_up_is_there_after_a_power_cut() {
    let base = disk(9, &[(2, 8)]);
    crate::common::put(&*base.vfs(0).dir, "a.db.bak.new", &card(OURS, 9, 700));
    let act = |disk: &FaultDir| {
        let vfs = world(disk, Way::Copy);
        vfs.dir.rename("a.db.bak.new", "a.db.bak.1").is_ok()
            && rotate(&vfs, Way::Copy, 9).is_ok_and(|rotated| rotated.method.is_none())
    };
    let mut acknowledged_images = 0;
    each_power_cut(&base, &act, &mut |image, acknowledged, context| {
        let vfs = world(image, Way::Copy);
        let listed = crate::common::versions(&vfs, "a.db");
        if *acknowledged {
            acknowledged_images += 1;
            assert_eq!(listed, [(1, 9), (2, 8)], "{}", context());
        }
    });
    assert!(acknowledged_images > 0);
}

#[test]
fn a_power_cut_while_a_restored_older_version_is_rotated_keeps_the_newest_first() {
    let base = disk(2, &[(1, 3), (2, 2), (3, 1)]);
    let act = |disk: &FaultDir| rotate(&world(disk, Way::Copy), Way::Copy, 2).is_ok();
    let images = each_power_cut(&base, &act, &mut |image, acknowledged, context| {
        let vfs = world(image, Way::Copy);
        backups_of(&vfs).adopt().unwrap();
        no_strays(&*vfs.dir, context);
        let versions: Vec<_> =
            crate::common::versions(&vfs, "a.db").iter().map(|slot| slot.1).collect();
        let old = versions == [3, 2, 1] && !acknowledged;
        assert!(old || versions == [2, 3, 2], "{versions:?} {}", context());
    });
    assert!(images > 50, "{images}");
}

#[test]
fn a_power_cut_while_a_crash_is_cleared_up_costs_no_good_backup() {
    let base = disk(9, &[(1, 3), (2, 2), (3, 1)]);
    let vfs = base.vfs(0);
    crate::common::put(&*vfs.dir, "a.db.bak.new", &card(OURS, 9, 700));
    crate::common::put(&*vfs.dir, "a.db.bak.tmp", &card(OURS, 9, 700)[..99]);
    let before = good(&*vfs.dir, &String::new);
    let act = |disk: &FaultDir| backups_of(&disk.vfs(1)).adopt().is_ok();
    let images = each_power_cut(&base, &act, &mut |image, _, context| {
        let vfs = image.vfs(2);
        assert_eq!(good(&*vfs.dir, context), before, "{}", context());
        backups_of(&vfs).adopt().unwrap();
        assert_eq!(good(&*vfs.dir, context), before, "{}", context());
        no_strays(&*vfs.dir, context);
    });
    assert!(images > 50, "{images}");
}

#[test]
fn a_power_cut_in_a_prune_costs_no_backup_to_be_kept() {
    let base = disk(9, &[(1, 5), (2, 4), (3, 3), (4, 2)]);
    let act = |disk: &FaultDir| backups_of(&disk.vfs(1)).prune(2).is_ok();
    each_power_cut(&base, &act, &mut |image, acknowledged, context| {
        let found = good(&*image.vfs(2).dir, context);
        assert!(found.contains(&5) && found.contains(&4), "{found:?} {}", context());
        assert!(!acknowledged || found.len() == 2, "{found:?} {}", context());
    });
}

#[test]
fn a_power_cut_in_a_copy_leaves_the_whole_copy_or_nothing() {
    let base = disk(9, &[]);
    let options = CopyOptions::default();
    let copy = |disk: &FaultDir| {
        let vfs = disk.vfs(1);
        Source::open(&vfs, "a.db")
            .and_then(|source| copy_to(&vfs, source, &vfs, "copy", &Card, &options, &mut unwatched))
            .is_ok()
    };
    let images = each_power_cut(&base, &copy, &mut |image, acknowledged, context| {
        let vfs = image.vfs(2);
        if vfs.dir.metadata("copy").unwrap().is_some() {
            assert_eq!(bytes(&*vfs.dir, "copy"), card(OURS, 9, 700), "{}", context());
        } else {
            assert!(!acknowledged, "{}", context());
            assert!(copy(image), "{}", context());
        }
        let mut left = names(&*vfs.dir);
        // The lock file of the copy, which was interrupted after all its other steps.
        left.retain(|name| name != "copy.bak.lock");
        assert_eq!(left, ["a.db", LOG, "copy"], "{}", context());
    });
    assert!(images > 20, "{images}");
}

#[test]
fn a_power_cut_in_a_restore_ends_in_the_old_store_or_the_new_one() {
    let mut images = 0;
    for way in [Way::Reflink, Way::Copy] {
        let base = disk(9, &[(1, 3), (2, 2), (3, 1)]);
        let act = |disk: &FaultDir| {
            let backups = backups_of(&world(disk, way));
            backups.restore(2, &[LOG.to_owned()], &mut unwatched).is_ok()
        };
        images += each_power_cut(&base, &act, &mut |image, acknowledged, context| {
            finished_is_old_or_new(image, *acknowledged, context);
        });
    }
    assert!(images > 200, "{images}");
}

#[test]
fn a_power_cut_while_a_restore_is_finished_ends_in_the_new_store() {
    let base = disk(9, &[(1, 3), (2, 2), (3, 1)]);
    let restore = |disk: &FaultDir| {
        backups_of(&disk.vfs(1)).restore(2, &[LOG.to_owned()], &mut unwatched).is_ok()
    };
    let mut images = 0;
    let mut seen = std::collections::BTreeSet::new();
    each_power_cut(&base, &restore, &mut |image, _, _| {
        // One disk of those with equal names is enough.
        let vfs = image.vfs(2);
        let pending = backups_of(&vfs).pending_restore().unwrap().is_some();
        if !pending || !seen.insert(names(&*vfs.dir)) {
            return;
        }
        let finish = |disk: &FaultDir| backups_of(&disk.vfs(3)).finish_restore().is_ok();
        images += each_power_cut(image, &finish, &mut |image, acknowledged, context| {
            finished_is_old_or_new(image, *acknowledged, context);
            store_is(&*image.vfs(4).dir, 2, false, context);
        });
    });
    assert!(seen.len() >= 3 && images > 100, "{} {images}", seen.len());
}

fn finished_is_old_or_new(image: &FaultDir, acknowledged: bool, context: &dyn Fn() -> String) {
    let vfs = image.vfs(2);
    assert_eq!(good(&*vfs.dir, context), [1, 2, 3].into(), "{}", context());
    let backups = backups_of(&vfs);
    let finished = backups.finish_restore();
    let finished = finished.unwrap_or_else(|error| panic!("{error}; {}", context()));
    let is_new = bytes(&*vfs.dir, "a.db") == card(OURS, 2, 700);
    assert!(is_new || (finished.is_none() && !acknowledged), "{}", context());
    if is_new {
        store_is(&*vfs.dir, 2, false, context);
        assert_eq!(bytes(&*vfs.dir, "a.db.replaced.1"), card(OURS, 9, 700), "{}", context());
        assert_eq!(
            bytes(&*vfs.dir, "a.db.replaced.1.wal.00000000000000000001"),
            crate::common::sim::log(9),
            "{}",
            context()
        );
    } else {
        store_is(&*vfs.dir, 9, true, context);
    }
    assert_eq!(backups.finish_restore().unwrap(), None, "{}", context());
    backups.adopt().unwrap();
    no_strays(&*vfs.dir, context);
    assert_eq!(good(&*vfs.dir, context), [1, 2, 3].into(), "{}", context());
}

#[test]
fn a_power_cut_in_a_rotation_beside_planted_files_costs_no_authentic_backup() {
    let rotate = |vfs: &Vfs| {
        let keyed = backups_of(vfs).with_inspect(Arc::new(Keyed::default()));
        Source::open(vfs, "a.db").and_then(|source| keyed.rotate(source, None, &mut unwatched))
    };
    let authentic = |vfs: &Vfs, context: &dyn Fn() -> String| {
        let mut found = good(&*vfs.dir, context);
        found.retain(|seq| *seq < 1_000);
        found
    };
    let layouts: [(&[(u32, u64)], bool); 4] = [
        (&[(1, 3), (2, 2), (3, 1)], true),
        (&[(1, 1_000), (2, 3), (3, 2), (4, 1)], false),
        (&[(1, 3), (2, 1_000), (3, 2), (5, 1)], true),
        (&[(1, 1_000), (2, 1_001), (3, 1_002)], false),
    ];
    let mut images = 0;
    for (layout, is_waiting) in layouts {
        let base = disk(9, layout);
        if is_waiting {
            crate::common::put(&*base.vfs(0).dir, "a.db.bak.new", &card(OURS, 1_003, 700));
        }
        let before = authentic(&base.vfs(0), &String::new);
        let act = |disk: &FaultDir| rotate(&disk.vfs(1)).is_ok();
        images += each_power_cut(&base, &act, &mut |image, acknowledged, context| {
            let vfs = image.vfs(2);
            let found = authentic(&vfs, context);
            nothing_lost(&before, &found, context);
            assert!(!acknowledged || found.contains(&9), "{found:?} {}", context());
            let adopted =
                backups_of(&vfs).with_inspect(Arc::new(Keyed::default())).adopt().unwrap();
            assert_eq!(adopted.left, [""; 0], "{}", context());
            // The planted file keeps its place among the others.
            let planted = |versions: &[(u32, u64)]| versions.iter().any(|(_, seq)| *seq == 1_003);
            let versions = crate::common::versions(&vfs, "a.db");
            assert!(planted(&versions) || !is_waiting, "{versions:?} {}", context());
            nothing_lost(&before, &authentic(&vfs, context), context);
            rotate(&vfs).unwrap_or_else(|error| panic!("{error}; {}", context()));
            let newest: Vec<_> = before.iter().rev().take(2).copied().collect();
            let found = authentic(&vfs, context);
            assert!(newest.iter().all(|seq| found.contains(seq)), "{found:?} {}", context());
            assert_eq!(crate::common::versions(&vfs, "a.db")[0], (1, 9), "{}", context());
        });
    }
    println!("{images} disks");
    assert!(images > 200, "{images}");
}
