//! Tests of reading beside a writer: what a follower shows, when, and what becomes of it when the
//! files are replaced.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::common::{Random, SEALED, contents, options, scaled, sealed, seed, until};
use codex_core::internals::without_threads;
use codex_core::vfs::fault::{Calls, FaultDir, Side};
use codex_core::vfs::{CallKind, Observed, Open, Vfs};
use codex_core::{
    Change, CheckpointPolicy, Durability, Error, Form, Notice, OpenOptions, Seq, StorageError,
    Store,
};

/// The forms that can be followed.
const FORMS: [Form; 2] = [Form::Wal, Form::Ledger];
const LEVELS: [Durability; 3] =
    [Durability::Sync, Durability::Interval(Duration::from_secs(3600)), Durability::Os];

/// Returns the options of a follower without a thread, which [`Store::refresh`] moves.
fn following() -> OpenOptions {
    without_threads(Store::options().follow(true))
}

/// Opens a follower without a thread.
fn follow(vfs: &Vfs) -> Store {
    following().open_in(vfs, "a.db").unwrap()
}

fn write(vfs: &Vfs, form: Form) -> Store {
    without_threads(options(form)).open_in(vfs, "a.db").unwrap()
}

fn stats(follower: &Store) -> codex_core::FollowStats {
    follower.stats().follow.unwrap()
}

fn storage(error: Error) -> StorageError {
    crate::common::storage(error)
}

#[test]
fn a_follower_shows_what_was_acknowledged_before_the_refresh_and_refuses_to_write() {
    for form in FORMS {
        for &is_sealed in SEALED {
            let vfs = Vfs::mem(1);
            let writer = sealed(&options(form), is_sealed).open_in(&vfs, "a.db").unwrap();
            writer.set("a", &1).unwrap();
            let follower = sealed(&following(), is_sealed).open_in(&vfs, "a.db").unwrap();
            assert_eq!(follower.get::<i32>("a").unwrap(), Some(1), "{form}: the opening shows it");
            let before = follower.snapshot();
            writer.set("a", &2).unwrap();
            writer.batch().set("b", &3).unwrap().remove("a").unwrap().commit().unwrap();
            assert_eq!(follower.get::<i32>("a").unwrap(), Some(1), "{form}: before the refresh");
            assert_eq!(follower.refresh().unwrap(), 3, "{form}");
            assert_eq!(contents(&follower), contents(&writer), "{form}");
            assert_eq!(before.get::<i32>("a").unwrap(), Some(1), "{form}: the snapshot stays");
            assert_eq!(follower.stats().storage.seq, 3);
            let refused = [
                follower.set("c", &1).unwrap_err(),
                follower.remove("b").unwrap_err(),
                follower.clear().unwrap_err(),
                follower.flush().unwrap_err(),
                follower.checkpoint().unwrap_err(),
                follower.back_up().unwrap_err(),
                follower.transaction(|tx| tx.set("c", &1)).unwrap_err(),
            ];
            for error in refused {
                assert!(error.is_read_only(), "{error}");
            }
            assert!(matches!(
                storage(follower.verify().unwrap_err()),
                StorageError::Contradiction(_)
            ));
            assert!(!follower.health().is_writable());
            writer.refresh().expect_err("a writer does not follow");
        }
    }
}

/// The promise of a refresh, with every act of a writer, at every level, in every form.
#[test]
fn after_any_acts_of_a_writer_a_refresh_shows_its_state() {
    let mut random = Random(seed());
    let mut reloads = 0;
    for round in 0..scaled(60) {
        let form = FORMS[usize::try_from(round % 2).unwrap()];
        let level = LEVELS[usize::try_from(random.next(3)).unwrap()];
        let is_sealed = SEALED.len() > 1 && random.next(2) == 0;
        let policy = CheckpointPolicy::default();
        let policy =
            policy.close_into_image_bytes_max(if random.next(2) == 0 { 0 } else { 1 << 20 });
        let options = sealed(&without_threads(options(form).durability(level)), is_sealed);
        let options = if form == Form::Wal { options.checkpoint(policy) } else { options };
        let vfs = Vfs::mem(u64::from(round));
        let mut writer = options.open_in(&vfs, "a.db").unwrap();
        let follower = sealed(&following(), is_sealed).open_in(&vfs, "a.db").unwrap();
        let mut trace = Vec::new();
        for step in 0..40 {
            let act = random.next(12);
            trace.push(act);
            match act {
                0..6 => writer.set(format!("k{}", random.next(20)), &step).unwrap(),
                6 => {
                    let mut batch = writer.batch();
                    for _ in 0..random.next(5) {
                        batch.set(format!("k{}", random.next(20)), &step).unwrap();
                        batch.remove(format!("k{}", random.next(20))).unwrap();
                    }
                    batch.commit().unwrap();
                }
                7 => drop(writer.remove(format!("k{}", random.next(20))).unwrap()),
                8 if random.next(3) == 0 => writer.clear().unwrap(),
                8 => drop(writer.flush().unwrap()),
                9 => writer.checkpoint().unwrap(),
                10 => {
                    writer.close().unwrap();
                    writer = options.open_in(&vfs, "a.db").unwrap();
                }
                _ => {
                    let shown = follower.refresh().unwrap_or_else(|e| panic!("{trace:?}: {e}"));
                    assert_eq!(shown, writer.stats().storage.seq, "{form} {level}: {trace:?}");
                    assert_eq!(contents(&follower), contents(&writer), "{trace:?}");
                }
            }
        }
        follower.refresh().unwrap();
        assert_eq!(contents(&follower), contents(&writer), "{form} {level}: {trace:?}");
        reloads += stats(&follower).reloads;
        writer.close().unwrap();
        assert_eq!(follower.refresh().unwrap(), writer.stats().storage.seq);
    }
    println!("{reloads} reloads");
}

#[test]
fn a_commit_is_not_shown_before_its_sync_has_returned() {
    for form in FORMS {
        let dir = FaultDir::new();
        let vfs = dir.vfs(1);
        let writer = write(&vfs, form);
        writer.set("a", &1).unwrap();
        let follower = follow(&vfs);
        assert_eq!(follower.len(), 1);
        let log = if form == Form::Wal { "a.db.wal.*" } else { "a.db" };
        let gate = dir.hold(Calls::of(CallKind::Sync).on(log));
        thread::scope(|scope| {
            let set = scope.spawn(|| writer.set("b", &2));
            gate.wait_for(1);
            assert_eq!(follower.refresh().unwrap(), 1, "{form}: the frame is in the file");
            assert_eq!(follower.len(), 1, "{form}");
            drop(gate);
            set.join().unwrap().unwrap();
        });
        assert_eq!(follower.refresh().unwrap(), 2, "{form}");
    }
}

#[test]
fn below_the_level_sync_a_commit_is_shown_before_it_is_synced() {
    for form in FORMS {
        for level in [Durability::Interval(Duration::from_secs(3600)), Durability::Os] {
            let vfs = Vfs::mem(1);
            let options = without_threads(options(form).durability(level));
            let writer = options.open_in(&vfs, "a.db").unwrap();
            let follower = follow(&vfs);
            for n in 1..=5 {
                writer.set("a", &n).unwrap();
                assert_eq!(follower.refresh().unwrap(), n, "{form} {level}");
            }
            assert!(writer.stats().storage.durable < 5);
        }
    }
}

#[test]
fn two_checkpoints_between_two_looks_make_the_store_be_read_again() {
    let vfs = Vfs::mem(1);
    let writer = write(&vfs, Form::Wal);
    writer.set("gone", &0).unwrap();
    let follower = follow(&vfs);
    let mut watch = follower.watch("").unwrap();
    writer.set("a", &1).unwrap();
    writer.checkpoint().unwrap();
    follower.refresh().unwrap();
    assert_eq!(stats(&follower).reloads, 0, "one checkpoint is followed");
    for n in 2..4 {
        writer.set("a", &n).unwrap();
        writer.remove("gone").unwrap();
        writer.checkpoint().unwrap();
    }
    writer.set("b", &4).unwrap();
    let last = follower.refresh().unwrap();
    assert_eq!(stats(&follower).reloads, 1);
    assert_eq!(contents(&follower), contents(&writer));
    let notices: Vec<_> = std::iter::from_fn(|| watch.try_next()).collect();
    // The segment that was read is held open, so its commits are not missed.
    for (notice, seq) in notices.iter().zip([2, 3]) {
        assert!(matches!(notice, Notice::Commit(commit) if commit.seq() == seq), "{notices:?}");
    }
    let gap = &notices[2];
    assert!(matches!(gap, Notice::Lagged { first: 4, last: to } if *to == last), "{notices:?}");
    writer.set("c", &5).unwrap();
    follower.refresh().unwrap();
    assert!(matches!(watch.try_next(), Some(Notice::Commit(commit)) if commit.seq() == last + 1));
}

#[test]
fn a_watch_of_a_follower_returns_each_commit_whole_and_in_order() {
    let vfs = Vfs::mem(1);
    let writer = write(&vfs, Form::Wal);
    writer.set("b", &0).unwrap();
    let follower = follow(&vfs);
    let mut watch = follower.watch("").unwrap();
    writer.batch().set("a", &1).unwrap().remove("b").unwrap().commit().unwrap();
    writer.set("c", &2).unwrap();
    writer.clear().unwrap();
    follower.refresh().unwrap();
    let seen: Vec<(Seq, Vec<String>)> = std::iter::from_fn(|| watch.try_next())
        .map(|notice| {
            let Notice::Commit(commit) = notice else { panic!("{notice:?}") };
            let show = |change: &Change| match change {
                Change::Set(entry) => format!("+{}", String::from_utf8_lossy(entry.key())),
                Change::Removed(key) => format!("-{}", String::from_utf8_lossy(key)),
                _ => "clear".to_owned(),
            };
            (commit.seq(), commit.changes().iter().map(show).collect())
        })
        .collect();
    let expected = [(2, vec!["+a", "-b"]), (3, vec!["+c"]), (4, vec!["clear"])];
    let expected: Vec<(Seq, Vec<String>)> = expected
        .into_iter()
        .map(|(seq, changes)| (seq, changes.into_iter().map(str::to_owned).collect()))
        .collect();
    assert_eq!(seen, expected);
    follower.close().unwrap();
    assert!(watch.next().is_none(), "the close ends the watch");
}

#[test]
fn tables_and_entries_that_expire_are_followed() {
    let vfs = Vfs::mem(1);
    let writer = write(&vfs, Form::Wal);
    let follower = follow(&vfs);
    let users = writer.table::<u32, String>("users").unwrap();
    users.set(7, &"Ada".to_owned()).unwrap();
    let later = std::time::UNIX_EPOCH
        + Duration::from_micros(u64::try_from(vfs.clock.now_us()).unwrap() + 1_000);
    writer.set_with_expiry("session", &1, later).unwrap();
    follower.refresh().unwrap();
    let shown = follower.table::<u32, String>("users").unwrap();
    assert_eq!(shown.get(7).unwrap().as_deref(), Some("Ada"));
    assert!(follower.contains_key("session"));
    vfs.clock.sleep(Duration::from_millis(2));
    assert!(!follower.contains_key("session"), "hidden without the writer");
    codex_core::internals::sweep(&writer).unwrap();
    follower.refresh().unwrap();
    assert_eq!(follower.stats().expiring, 0);
}

#[test]
fn a_follower_goes_on_through_closes_and_openings_of_writers() {
    for (form, image_max) in [(Form::Wal, 0), (Form::Wal, 1 << 20), (Form::Ledger, 0)] {
        // The follower looks while the writer has the store open, or only when it has closed it.
        for looks_beside in [true, false] {
            let case = format!("{form}, closes into {image_max}, looks beside {looks_beside}");
            let vfs = Vfs::mem(1);
            let policy = CheckpointPolicy::default().close_into_image_bytes_max(image_max);
            let options = without_threads(options(form));
            let options = if form == Form::Wal { options.checkpoint(policy) } else { options };
            let open = || options.open_in(&vfs, "a.db").unwrap();
            open().close().unwrap();
            let follower = follow(&vfs);
            assert_eq!(follower.refresh().unwrap(), 0, "there is no writer");
            for n in 1..6 {
                let writer = open();
                if looks_beside {
                    assert_eq!(follower.refresh().unwrap(), 2 * n - 2, "{case}");
                }
                writer.set("a", &n).unwrap();
                // It is in the segment that the close may replace by an image.
                assert_eq!(follower.refresh().unwrap(), 2 * n - 1, "{case}");
                writer.set("a", &n).unwrap();
                if looks_beside {
                    assert_eq!(follower.refresh().unwrap(), 2 * n, "{case}");
                }
                writer.close().unwrap();
                assert_eq!(follower.refresh().unwrap(), 2 * n, "{case}");
            }
            if form == Form::Wal {
                assert_eq!(stats(&follower).reloads, 0, "{case}");
            }
        }
    }
}

#[test]
fn after_a_kill_a_follower_shows_what_was_acknowledged_and_the_next_writer_shows_the_rest() {
    for form in FORMS {
        for level in LEVELS {
            let dir = FaultDir::new();
            let options = without_threads(options(form).durability(level));
            let writer = options.open_in(&dir.vfs(1), "a.db").unwrap();
            writer.set("a", &1).unwrap();
            // The next commit is written, and the process ends before its sync returns.
            let killed = Calls::of(CallKind::Sync);
            dir.kill_process_on(killed, 1, Side::Before);
            let refused = writer.set("b", &2);
            let acknowledged = if level == Durability::Sync { 1 } else { 2 };
            assert_eq!(refused.is_err(), level == Durability::Sync);
            dir.clear_plan();
            let next = dir.crash_process();
            drop(writer);
            let vfs = next.vfs(2);
            let follower = follow(&vfs);
            assert_eq!(follower.stats().storage.seq, acknowledged, "{form} {level}");
            assert_eq!(follower.refresh().unwrap(), acknowledged, "{form} {level}");
            let writer = options.open_in(&vfs, "a.db").unwrap();
            assert_eq!(follower.refresh().unwrap(), 2, "{form} {level}: recovered");
            writer.set("c", &3).unwrap();
            assert_eq!(follower.refresh().unwrap(), 3, "{form} {level}");
            assert_eq!(contents(&follower), contents(&writer));
        }
    }
}

/// Writes `bytes` at the end of the frames of the log, as a torn write leaves them.
fn tear(vfs: &Vfs, form: Form) {
    let files = crate::common::files(vfs);
    let name = crate::common::log_name(&files, form);
    let log = &files[&name];
    let end = log.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    let at = u64::try_from(end.next_multiple_of(64)).unwrap();
    let file = vfs.dir.open(&name, Open::Write).unwrap();
    // A frame header that is not whole, and zeros to the end of the sector.
    file.write_all_at(b"torn", at).unwrap();
}

#[test]
fn a_torn_tail_that_a_writer_has_cut_is_crossed() {
    for form in FORMS {
        for level in LEVELS {
            let dir = FaultDir::new();
            let options = without_threads(options(form).durability(level));
            let writer = options.open_in(&dir.vfs(1), "a.db").unwrap();
            writer.set("a", &1).unwrap();
            let next = dir.crash_process();
            drop(writer);
            let vfs = next.vfs(2);
            tear(&vfs, form);
            let follower = follow(&vfs);
            assert_eq!(follower.refresh().unwrap(), 1, "{form} {level}: beside the tail");
            let writer = options.open_in(&vfs, "a.db").unwrap();
            assert!(writer.recovered().cut.is_some());
            assert_eq!(follower.refresh().unwrap(), 1, "{form} {level}: before a write");
            for n in 2..5 {
                writer.set("b", &n).unwrap();
                assert_eq!(follower.refresh().unwrap(), n, "{form} {level}");
            }
            assert_eq!(contents(&follower), contents(&writer));
        }
    }
}

/// Returns the name of the only log.
fn log_of(vfs: &Vfs, form: Form) -> String {
    crate::common::log_name(&crate::common::files(vfs), form)
}

#[test]
fn half_written_bytes_are_no_news_and_no_damage() {
    for form in FORMS {
        let vfs = Vfs::mem(1);
        let writer = write(&vfs, form);
        writer.set("a", &1).unwrap();
        let follower = follow(&vfs);
        let name = log_of(&vfs, form);
        let log = &crate::common::files(&vfs)[&name];
        let end = log.iter().rposition(|&byte| byte != 0).unwrap() + 1;
        let at = u64::try_from(end.next_multiple_of(64)).unwrap();
        let file = vfs.dir.open(&name, Open::Write).unwrap();
        // No shape of a torn write: the pages of a write arrive in any order.
        file.write_all_at(&[0xAA; 600], at).unwrap();
        for _ in 0..3 {
            assert_eq!(follower.refresh().unwrap(), 1, "{form}");
        }
        file.write_all_at(&[0; 600], at).unwrap();
        writer.set("a", &2).unwrap();
        assert_eq!(follower.refresh().unwrap(), 2, "{form}");
    }
}

#[test]
fn a_frame_with_several_commits_is_shown_whole() {
    use codex_storage::batch::Op;

    for form in FORMS {
        let vfs = Vfs::mem(1);
        let mut config = codex_storage::Config::new(vfs.clone(), "a.db");
        config.form = Some(form);
        let (mut writer, _) = codex_storage::open(&config, &mut |_| Ok(())).unwrap();
        let follower = follow(&vfs);
        let mut watch = follower.watch("").unwrap();
        for first in [1, 4] {
            let mut group = writer.group();
            for key in [&b"a"[..], b"b", b"c"] {
                group.push(Op::set(key, &[0, first])).unwrap();
                group.finish();
            }
            writer.commit(&mut group, None).unwrap();
            assert_eq!(follower.refresh().unwrap(), u64::from(first) + 2, "{form}");
            let seqs = std::iter::from_fn(|| watch.try_next()).map(|notice| match notice {
                Notice::Commit(commit) => commit.seq(),
                gap => panic!("{form}: {gap:?}"),
            });
            assert!(seqs.eq(u64::from(first)..u64::from(first) + 3), "{form}");
        }
        assert_eq!(stats(&follower).reloads, 0, "{form}");
    }
}

#[test]
fn without_announcements_a_group_is_shown_with_the_next_one() {
    for (form, checkpoints) in [(Form::Wal, true), (Form::Wal, false), (Form::Ledger, false)] {
        let vfs = Vfs::mem(1);
        let writer = write(&vfs, form);
        let follower = follow(&vfs);
        writer.set("a", &1).unwrap();
        assert_eq!(follower.refresh().unwrap(), 1);
        let reloads = stats(&follower).reloads;
        // Another lock file takes the name. The announcements go to the first one.
        vfs.dir.remove("a.db.lock").unwrap();
        writer.set("a", &2).unwrap();
        assert_eq!(follower.refresh().unwrap(), 1, "{form}");
        writer.set("a", &3).unwrap();
        assert_eq!(follower.refresh().unwrap(), 2, "{form}: the next frame proves it");
        if checkpoints {
            writer.checkpoint().unwrap();
            assert_eq!(follower.refresh().unwrap(), 3, "so does the next segment");
        }
        writer.close().unwrap();
        assert_eq!(follower.refresh().unwrap(), 3, "{form}: so does a close");
        assert_eq!(stats(&follower).reloads, reloads, "{form}, checkpoint {checkpoints}");
    }
}

#[test]
fn a_lock_file_with_any_bytes_shows_nothing_that_is_not_durable() {
    let mut random = Random(seed());
    for round in 0..scaled(60) {
        let form = FORMS[usize::try_from(round % 2).unwrap()];
        let dir = FaultDir::new();
        let vfs = dir.vfs(1);
        let writer = write(&vfs, form);
        writer.set("a", &1).unwrap();
        let follower = follow(&vfs);
        let (name, at) = ("a.db.lock", 64 + random.next(128));
        let lock = vfs.dir.open(name, Open::Write).unwrap();
        let bytes: Vec<u8> =
            (0..=random.next(40)).map(|_| random.next(256).to_le_bytes()[0]).collect();
        lock.write_all_at(&bytes, at).unwrap();
        let log = if form == Form::Wal { "a.db.wal.*" } else { "a.db" };
        let gate = dir.hold(Calls::of(CallKind::Sync).on(log));
        thread::scope(|scope| {
            let set = scope.spawn(|| writer.set("b", &2));
            gate.wait_for(1);
            assert_eq!(follower.refresh().unwrap(), 1, "{form}: {bytes:?} at {at}");
            drop(gate);
            set.join().unwrap().unwrap();
        });
        assert_eq!(follower.refresh().unwrap(), 2, "the next record replaces the bytes");
    }
}

#[test]
fn a_writer_is_never_refused_because_of_followers() {
    for form in FORMS {
        let vfs = Vfs::mem(1);
        let open = || write(&vfs, form);
        open().close().unwrap();
        let followers: Vec<_> = (0..3).map(|_| follow(&vfs)).collect();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    for follower in &followers {
                        follower.refresh().unwrap();
                    }
                    drop(follow(&vfs));
                }
            });
            // The timeout of the lock is zero, so one refusal would be an error.
            for n in 0..scaled(100) {
                let writer = open();
                writer.set("a", &n).unwrap();
                writer.close().unwrap();
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}

#[test]
fn an_opening_ends_beside_a_writer_that_makes_one_checkpoint_after_another() {
    let vfs = Vfs::mem(1);
    let writer = write(&vfs, Form::Wal);
    for n in 0..500_u32 {
        writer.set(format!("{n:03}"), &n).unwrap();
    }
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                writer.set("n", &n).unwrap();
                writer.checkpoint().unwrap();
            }
        });
        let mut shown = 0;
        for _ in 0..scaled(20) {
            let acknowledged = writer.stats().storage.seq;
            let follower = follow(&vfs);
            let seq = follower.refresh().unwrap();
            assert!(seq >= acknowledged && seq >= shown, "{shown} {acknowledged} {seq}");
            assert_eq!(follower.len(), 501 - usize::from(!follower.contains_key("n")));
            shown = seq;
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_thread_shows_commits_without_a_refresh() {
    for form in FORMS {
        let vfs = Vfs::mem(1);
        let writer = write(&vfs, form);
        let follower = Store::options().follow(true).open_in(&vfs, "a.db").unwrap();
        let mut watch = follower.watch("").unwrap();
        for n in 1..4 {
            writer.set("a", &n).unwrap();
            let notice = watch.next_timeout(Duration::from_secs(600));
            assert!(matches!(notice, Some(Notice::Commit(commit)) if commit.seq() == n), "{form}");
        }
        writer.close().unwrap();
        let writer = write(&vfs, form);
        writer.set("a", &9_u64).unwrap();
        until("the commit of the next writer is shown", || {
            follower.get::<u64>("a").unwrap() == Some(9)
        });
        follower.close().unwrap();
        follower.close().unwrap();
        assert!(follower.refresh().unwrap_err().is_closed());
        assert_eq!(follower.get::<u64>("a").unwrap(), Some(9), "memory stays readable");
    }
}

#[cfg(feature = "crypto")]
#[test]
fn after_a_rekey_or_a_change_of_key_a_follower_reads_on_or_tells_the_reason() {
    use codex_core::crypto::Key;

    let key = |byte| Key::raw(&[byte; 32]).unwrap();
    for form in FORMS {
        let vfs = Vfs::mem(1);
        let options = without_threads(options(form));
        let writer = options.clone().key(key(1)).open_in(&vfs, "a.db").unwrap();
        let follower = following().key(key(1)).open_in(&vfs, "a.db").unwrap();
        writer.set("a", &1).unwrap();
        follower.refresh().unwrap();
        // The same key under a fresh root.
        writer.rekey(key(1)).unwrap();
        assert_eq!(follower.refresh().unwrap(), 1, "{form}: nothing that was shown is gone");
        writer.set("a", &2).unwrap();
        assert_eq!(follower.refresh().unwrap(), 2, "{form}: reloaded under the fresh root");
        // Another key for the same root, which the follower knows.
        writer.change_key(key(2)).unwrap();
        writer.set("a", &3).unwrap();
        assert_eq!(follower.refresh().unwrap(), 3, "{form}: the root key is the same");
        // Another key and another root.
        writer.rekey(key(3)).unwrap();
        writer.set("a", &4).unwrap();
        let refused = storage(follower.refresh().unwrap_err());
        assert!(matches!(refused, StorageError::WrongKey { .. }), "{form}: {refused}");
        assert_eq!(follower.get::<i32>("a").unwrap(), Some(3), "{form}: the state from before");
        assert!(stats(&follower).last_error.unwrap().contains("key"), "{form}");
        let anew = following().key(key(3)).open_in(&vfs, "a.db").unwrap();
        assert_eq!(anew.get::<i32>("a").unwrap(), Some(4));
    }
}

#[test]
fn a_conversion_under_a_follower_is_read_anew_or_told() {
    let vfs = Vfs::mem(1);
    let writer = write(&vfs, Form::Wal);
    writer.set("a", &1).unwrap();
    let follower = follow(&vfs);
    writer.close().unwrap();
    drop(writer);
    codex_core::Conversion::new().form(Form::Ledger).convert_in(&vfs, "a.db").unwrap();
    follower.refresh().unwrap();
    assert_eq!(follower.get::<i32>("a").unwrap(), Some(1));
    let writer = write(&vfs, Form::Ledger);
    writer.set("a", &2).unwrap();
    follower.refresh().unwrap();
    assert_eq!(follower.get::<i32>("a").unwrap(), Some(2));
    writer.close().unwrap();
    drop(writer);
    codex_core::Conversion::new().form(Form::Snapshot).convert_in(&vfs, "a.db").unwrap();
    let refused = storage(follower.refresh().unwrap_err());
    assert!(matches!(refused, StorageError::Contradiction(_)), "{refused}");
    assert_eq!(follower.get::<i32>("a").unwrap(), Some(2), "the state from before");
}

/// A store before and after a restore: a backup was made after commit 2 of 4, and commits with the
/// numbers from 3 on are made once more, to other values.
struct Restored {
    vfs: Vfs,
    options: OpenOptions,
    /// The contents after each commit before the restore, from 0 on.
    before: Vec<BTreeMap<Vec<u8>, Vec<u8>>>,
    /// The contents after the restore, from commit 2 on.
    after: Vec<BTreeMap<Vec<u8>, Vec<u8>>>,
}

/// Makes a commit of two keys, one of which every commit sets.
fn commit(writer: &Store, n: usize) {
    let mut batch = writer.batch();
    batch.set("n", &n).unwrap().set(format!("k{n}"), &n).unwrap();
    batch.commit().unwrap();
}

impl Restored {
    fn new(vfs: Vfs, options: OpenOptions) -> Self {
        Self { vfs, options, before: vec![BTreeMap::new()], after: Vec::new() }
    }

    /// Makes the four commits. Returns a follower that has shown the first `shown`.
    fn write(&mut self, shown: usize, follower: &OpenOptions) -> Store {
        let writer = self.options.open_in(&self.vfs, "a.db").unwrap();
        let mut opened = (shown == 0).then(|| follower.open_in(&self.vfs, "a.db").unwrap());
        for n in 1..=4_usize {
            commit(&writer, n);
            self.before.push(contents(&writer));
            if n == 2 {
                writer.back_up().unwrap();
            }
            if n == shown {
                opened = Some(follower.open_in(&self.vfs, "a.db").unwrap());
            }
        }
        writer.close().unwrap();
        self.after.push(self.before[2].clone());
        opened.unwrap()
    }

    /// Makes `commits` more in one life of the store.
    fn go_on(&mut self, commits: usize, closes: bool) {
        let writer = self.options.open_in(&self.vfs, "a.db").unwrap();
        for _ in 0..commits {
            let n = 100 + self.after.len();
            commit(&writer, n);
            self.after.push(contents(&writer));
        }
        if closes {
            writer.close().unwrap();
        }
    }

    /// Checks that `follower` shows a state from before the restore, or one from after it.
    fn shows_one(&self, follower: &Store, case: &str) {
        let found = contents(follower);
        let is_known = self.before.iter().chain(&self.after).any(|known| *known == found);
        assert!(is_known, "{case}: {found:?}");
    }
}

/// The number of the form, and whether it closes into an image, as options of a writer.
fn each_writer() -> impl Iterator<Item = (OpenOptions, bool, String)> {
    let all = [(Form::Wal, 0), (Form::Wal, 1 << 20), (Form::Ledger, 0)];
    all.into_iter().flat_map(|(form, image_max)| {
        SEALED.iter().map(move |&is_sealed| {
            let policy = CheckpointPolicy::default().close_into_image_bytes_max(image_max);
            let options = sealed(&without_threads(options(form)), is_sealed);
            let options = if form == Form::Wal { options.checkpoint(policy) } else { options };
            (options, is_sealed, format!("{form}, closes into {image_max}, sealed {is_sealed}"))
        })
    })
}

#[test]
fn a_restore_under_a_follower_is_read_anew() {
    let mut reloads = 0;
    for (options, is_sealed, what) in each_writer() {
        for shown in 0..=4 {
            // The commits after the restore, in one or two lives, before the follower looks.
            for (first, second, closes) in [
                (0, 0, true),
                (1, 0, true),
                (2, 0, false),
                (3, 0, true),
                (1, 2, true),
                (2, 2, true),
            ] {
                let case = format!("{what}: {shown} shown, then {first} and {second}, {closes}");
                let mut store = Restored::new(Vfs::mem(1), options.clone());
                let follower = store.write(shown, &sealed(&following(), is_sealed));
                let before = follower.snapshot();
                assert_eq!(contents(&follower), store.before[shown], "{case}");
                let tools = codex_core::Backups::of_in(&store.vfs, "a.db");
                if what.starts_with("ledger") && !is_sealed && closes {
                    tools.restore_until(codex_core::RestorePoint::Seq(2)).unwrap();
                } else {
                    tools.restore(1).unwrap();
                }
                for commits in [first, second] {
                    if commits > 0 {
                        store.go_on(commits, closes);
                    }
                }
                let last = u64::try_from(2 + first + second).unwrap();
                assert_eq!(follower.refresh().unwrap(), last, "{case}");
                assert_eq!(&contents(&follower), store.after.last().unwrap(), "{case}");
                assert_eq!(before.len(), store.before[shown].len(), "{case}: the snapshot stays");
                reloads += stats(&follower).reloads;
                // It follows the store from there on.
                store.go_on(1, true);
                assert_eq!(follower.refresh().unwrap(), last + 1, "{case}");
                assert_eq!(&contents(&follower), store.after.last().unwrap(), "{case}");
            }
        }
    }
    println!("{reloads} reloads");
    assert!(reloads > 20, "{reloads}");
}

/// A follower looks between any two steps of a restore, which may have been interrupted there.
#[test]
fn during_a_restore_a_follower_shows_the_old_state_or_the_new_one_or_tells_the_reason() {
    let mut told: BTreeMap<&str, u32> = BTreeMap::new();
    for (options, is_sealed, what) in each_writer() {
        for shown in 0..=4 {
            let disk = FaultDir::new();
            let mut store = Restored::new(disk.vfs(1), options.clone());
            let follower = store.write(shown, &sealed(&following(), is_sealed));
            let (store, looked) = (Arc::new(store), Arc::new(Mutex::new(Vec::new())));
            let observed = {
                let (store, looked) = (Arc::clone(&store), Arc::clone(&looked));
                let (follower, case) = (follower.clone(), format!("{what}: {shown} shown"));
                Observed::vfs(&disk.vfs(2), move |call| {
                    let looks = follower.refresh();
                    store.shows_one(&follower, &format!("{case}, before {call:?}: {looks:?}"));
                    looked.lock().unwrap().push(looks.map_err(storage));
                })
            };
            codex_core::Backups::of_in(&observed, "a.db").restore(1).unwrap();
            for looks in looked.lock().unwrap().drain(..) {
                let kind = match looks {
                    Ok(_) => "shown",
                    Err(StorageError::RestorePending { .. }) => "pending",
                    Err(error) => panic!("{what}: {shown} shown: {error}"),
                };
                *told.entry(kind).or_default() += 1;
            }
            assert_eq!(follower.refresh().unwrap(), 2, "{what}: {shown} shown");
            assert_eq!(contents(&follower), store.after[0], "{what}: {shown} shown");
        }
    }
    println!("{told:?}");
    assert!(told["shown"] > 100 && told["pending"] > 20, "{told:?}");
}

/// A follower looks between any two steps of a change of the key.
#[cfg(feature = "crypto")]
#[test]
fn during_a_rekey_a_follower_shows_all_that_was_acknowledged_or_tells_the_reason() {
    use codex_core::crypto::Key;

    let key = |byte| Key::raw(&[byte; 32]).unwrap();
    let mut told = BTreeMap::new();
    for form in FORMS {
        for (to, fresh_root) in [(1, true), (2, true), (2, false)] {
            for shown in 0..=3 {
                let case = format!("{form}, to key {to}, fresh root {fresh_root}, {shown} shown");
                let vfs = Vfs::mem(1);
                let follower: Arc<Mutex<Option<Store>>> = Arc::default();
                let looked = Arc::new(Mutex::new(Vec::new()));
                let observed = {
                    let (follower, looked) = (Arc::clone(&follower), Arc::clone(&looked));
                    Observed::vfs(&vfs, move |_| {
                        if let Some(follower) = &*follower.lock().unwrap() {
                            // This thread, of the writer, holds locks of its store.
                            let looks = thread::scope(|scope| {
                                scope.spawn(|| follower.refresh()).join().unwrap()
                            });
                            let shown = follower.get::<u64>("n").unwrap();
                            looked.lock().unwrap().push((looks.map_err(storage), shown));
                        }
                    })
                };
                let options = without_threads(options(form)).key(key(1));
                let writer = options.open_in(&observed, "a.db").unwrap();
                let open = || following().key(key(1)).open_in(&vfs, "a.db").unwrap();
                let mut opened = (shown == 0).then(open);
                for n in 1..=3_u64 {
                    writer.set("n", &n).unwrap();
                    if n == shown {
                        opened = Some(open());
                    }
                }
                *follower.lock().unwrap() = opened;
                if fresh_root {
                    writer.rekey(key(to)).unwrap();
                } else {
                    writer.change_key(key(to)).unwrap();
                }
                let follower = follower.lock().unwrap().take().unwrap();
                for (looks, shown) in looked.lock().unwrap().drain(..) {
                    let kind = match looks {
                        Ok(seq) => {
                            assert_eq!((seq, shown), (3, Some(3)), "{case}");
                            "shown"
                        }
                        // The state from before stays.
                        Err(StorageError::WrongKey { .. }) if to == 2 && fresh_root => {
                            assert_eq!(shown, Some(3), "{case}");
                            "wrong key"
                        }
                        Err(error) => panic!("{case}: {error}"),
                    };
                    *told.entry(kind).or_insert(0) += 1;
                }
                writer.set("n", &4_u64).unwrap();
                let last = follower.refresh();
                let expected = if to == 2 && fresh_root { 3 } else { 4 };
                assert_eq!(last.is_ok(), expected == 4, "{case}");
                assert_eq!(follower.get::<u64>("n").unwrap(), Some(expected), "{case}");
            }
        }
    }
    println!("{told:?}");
    assert!(told["shown"] > 100 && told["wrong key"] > 5, "{told:?}");
}

#[test]
fn options_that_contradict_a_follower_are_refused() {
    let vfs = Vfs::mem(1);
    Store::options().open_in(&vfs, "a.db").unwrap().close().unwrap();
    let follow = || Store::options().follow(true);
    let refused = [
        follow().create(true),
        follow().create_new(true),
        follow().create_folder(true),
        follow().durability(Durability::Os),
        follow().checkpoint(CheckpointPolicy::default()),
        follow().lock_timeout(Duration::ZERO),
        follow().on_damage(codex_core::OnDamage::CutTail),
        follow().form(Form::Snapshot),
        follow().backups(codex_core::BackupPolicy::keep(3)),
        follow().fall_back_to_backup(true),
    ];
    for options in refused {
        let error = storage(options.open_in(&vfs, "a.db").unwrap_err());
        assert!(matches!(error, StorageError::Contradiction(_)), "{options:?}: {error}");
    }
    assert!(follow().open_in(&vfs, "b.db").unwrap_err().is_not_found());
    Store::options().form(Form::Snapshot).open_in(&vfs, "c.db").unwrap().close().unwrap();
    let error = storage(follow().open_in(&vfs, "c.db").unwrap_err());
    assert!(matches!(error, StorageError::Contradiction(_)), "{error}");
    follow().read_only(true).open_in(&vfs, "a.db").unwrap();
    let files: BTreeMap<_, _> = crate::common::files(&vfs);
    let _follower = follow().open_in(&vfs, "a.db").unwrap();
    assert_eq!(crate::common::files(&vfs), files, "a follower writes nothing");
}
