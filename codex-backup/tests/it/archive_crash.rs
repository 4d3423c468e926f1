//! Every call of an archive to a place fails in every way, and other programs come between any two
//! of them. Each commit of a piece that was acknowledged stays restorable at every instant.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use codex_backup::remote::{ArchiveWriter, Fault, Folder, LogEnd, Moment, Remote, Target as _};
use codex_backup::vfs::Vfs;
use codex_backup::vfs::fault::FaultDir;
use codex_backup::{Error, unwatched};

use crate::archive::{Log, Place, begun, frames, put_image, reach, start};
use crate::common::sim::{each_power_cut, seed};
use crate::remote::{file, remote_at, version};
use crate::remote_crash::{MISHAPS, Meddled, arm};

/// The logs of a store of which an archive sends some before and some in the act.
struct Logs {
    a: Log,
    b: Log,
}

/// Returns a place with the image 0 and the log `a` up to commit 3.
fn place() -> (Place, Logs) {
    let place = begun();
    let mut a = Log::new(0, 0xa1, 0);
    put_image(&place.remote, &place.writer, 0, start(&a));
    a.commit_upto(6);
    a.send(&place.remote, 0, 3).unwrap();
    let mut b = a.next(0xb1);
    b.commit_upto(10);
    (place, Logs { a, b })
}

/// The commits that are known to be at the place.
type Known = BTreeSet<u64>;

/// Sends the rest of the logs with a checkpoint and a prune between them, until a call fails.
fn act(remote: &Remote, writer: &ArchiveWriter, logs: &Logs, known: &mut Known) {
    let Logs { a, b } = logs;
    let mut at = a.end_of(3) as u64;
    for seq in [4, 6] {
        let Ok(end) = a.send(remote, at, seq) else { return };
        at = end;
        known.extend(0..=seq);
    }
    let Ok(mut at) = b.send(remote, 0, 8) else { return };
    known.extend(0..=8);
    if remote.put_image(writer, &version(6), Some(start(b)), &mut unwatched).is_err() {
        return;
    }
    known.retain(|seq| *seq >= 6);
    if remote.prune(1, &mut unwatched).is_err() {
        return;
    }
    for seq in [9, 10] {
        let Ok(end) = b.send(remote, at, seq) else { return };
        at = end;
        known.extend(6..=seq);
    }
}

/// Asserts that each commit that is known to be at the place is restored from what it has.
fn nothing_lost(remote: &Remote, known: &Known, context: &str) {
    for &seq in known {
        let reached = reach(remote, Moment::Seq(seq))
            .unwrap_or_else(|fault| panic!("{seq} of {known:?}: {fault}; {context}"));
        let behind = seq - reached.image.facts.seq;
        assert_eq!(frames(&reached).len() as u64, behind, "{seq} of {known:?}; {context}");
        remote.open(&reached.image).unwrap_or_else(|error| panic!("{error}; {context}"));
    }
    let latest = reach(remote, Moment::Latest).unwrap_or_else(|fault| panic!("{fault}; {context}"));
    assert!(Some(&latest.seq) >= known.last(), "{} of {known:?}; {context}", latest.seq);
    assert_eq!(frames(&latest).len() as u64, latest.seq - latest.image.facts.seq, "{context}");
}

/// Begins again as a store does that is opened after a crash: with the log behind the image in
/// place, or with a new image and a new log if that one cannot be continued. Returns whether all
/// went well.
fn resume(remote: &Remote, logs: &Logs, known: &mut Known) -> Result<(), Error> {
    let writer = remote.begin_archive(&version(6))?;
    let b = &logs.b;
    remote.put_image(&writer, &version(6), Some(start(b)), &mut unwatched)?;
    known.insert(6);
    let local = file(&b.bytes);
    let mut log = b.clone();
    if let Some(LogEnd { offset: at, .. }) = remote.log_end(&b.id, 0, &*local)? {
        b.send(remote, at, 10)?;
        known.extend(6..=10);
    } else {
        // Other names in each attempt, as a store draws them.
        log = b.next(0xc0 | u8::try_from(remote.list()?.images.len() % 16).unwrap());
        let again = remote.put_image(&writer, &version(10), Some(start(&log)), &mut unwatched)?;
        assert_eq!(again.image.log, Some(start(&log)));
        known.insert(10);
    }
    let at = remote.log_end(&log.id, 0, &*file(&log.bytes))?.map(|end| end.offset);
    log.commit_upto(13);
    log.send(remote, at.unwrap(), 13)?;
    known.extend(10..=13);
    Ok(())
}

/// Asserts that an archive goes on and that a prune leaves what its image leads to.
fn settled(place: &Place, logs: &Logs, mut known: Known, context: &str) {
    let Place { remote, memory, .. } = place;
    nothing_lost(remote, &known, context);
    let mut ended = false;
    // An attempt after a piece that was damaged begins a new log.
    for _ in 0..3 {
        if resume(remote, logs, &mut known).is_ok() {
            ended = true;
            break;
        }
    }
    assert!(ended, "{context}");
    nothing_lost(remote, &known, context);
    // What was delayed is done at last.
    for _ in 0..300 {
        memory.size("image/0").unwrap();
    }
    nothing_lost(remote, &known, context);
    known.retain(|seq| *seq >= 10);
    for _ in 0..2 {
        remote.prune(1, &mut unwatched).unwrap_or_else(|error| panic!("{error}; {context}"));
        nothing_lost(remote, &known, context);
    }
    let logs = memory.objects().into_keys().filter(|name| name.starts_with("log/"));
    let logs: std::collections::BTreeSet<_> =
        logs.filter_map(|name| Some(name.rsplit_once('/')?.0.to_owned())).collect();
    assert_eq!(logs.len(), 1, "{logs:?} {context}");
}

#[test]
fn a_fault_at_any_call_of_an_archive_loses_no_commit_of_a_piece_that_was_put() {
    let none: Known = (0..=3).collect();
    let (calls, whole) = {
        let (place, logs) = place();
        let from = place.memory.calls();
        let mut known = none.clone();
        act(&place.remote, &place.writer, &logs, &mut known);
        (from..place.memory.calls(), known)
    };
    assert_eq!(whole, (6..=10).collect());
    let mut cases = 0;
    for call in calls.clone() {
        for mishap in MISHAPS {
            let (place, logs) = place();
            let mut known = none.clone();
            arm(&place.memory, call, mishap);
            act(&place.remote, &place.writer, &logs, &mut known);
            place.memory.heal();
            settled(&place, &logs, known, &format!("{mishap:?} at call {call} of {calls:?}"));
            cases += 1;
        }
    }
    println!("{cases} cases");
    assert!(cases > 250, "{cases}");
}

#[test]
fn a_second_fault_while_an_archive_begins_again_loses_nothing_either() {
    let none: Known = (0..=3).collect();
    let (first, second) = {
        let (place, logs) = place();
        let from = place.memory.calls();
        let mut known = none.clone();
        act(&place.remote, &place.writer, &logs, &mut known);
        let upto = place.memory.calls();
        resume(&place.remote, &logs, &mut known).unwrap();
        (from..upto, 0..place.memory.calls() - upto + 4)
    };
    let mut cases = 0;
    let pairs = first.flat_map(|a| second.clone().map(move |b| (a, b)));
    // One pair in 24, in a whole run one in 4, and others under each seed: all take minutes.
    let is_whole = std::env::var_os("CODEX_WHOLE").is_some();
    let stride = if is_whole { 4 } else { 24 };
    let is_taken = |n: usize| (n as u64 + seed()).is_multiple_of(stride);
    for (n, (first, second)) in pairs.enumerate().filter(|(n, _)| is_taken(*n)) {
        for (m, mishap) in MISHAPS.into_iter().enumerate() {
            let (place, logs) = place();
            let mut known = none.clone();
            arm(&place.memory, first, mishap);
            act(&place.remote, &place.writer, &logs, &mut known);
            place.memory.heal();
            let other = MISHAPS[(n / 24 + m) % MISHAPS.len()];
            arm(&place.memory, place.memory.calls() + second, other);
            let _ = resume(&place.remote, &logs, &mut known);
            place.memory.heal();
            let context = format!("{mishap:?} at {first}, {other:?} {second} calls later");
            settled(&place, &logs, known, &context);
            cases += 1;
        }
    }
    println!("{cases} cases");
    assert!(cases > 400, "{cases}");
}

/// Calls `work` with `other` done before each of its calls in turn, until it is not reached. Then
/// calls `check` with the result. Returns the number of calls.
fn meet<R>(
    other: fn(&Remote, &Logs),
    work: impl Fn(&Remote, &Place, &Logs) -> R,
    check: impl Fn(&Place, &Logs, R, bool, &str),
) -> u64 {
    for at in 0.. {
        let (place, logs) = place();
        let theirs = remote_at(Arc::clone(&place.memory) as _, &Vfs::mem(99));
        let shared = Logs { a: logs.a.clone(), b: logs.b.clone() };
        let meddled = Arc::new(Meddled {
            memory: Arc::clone(&place.memory),
            at,
            calls: AtomicU64::new(0),
            act: Box::new(move || other(&theirs, &shared)),
        });
        let ours = remote_at(Arc::clone(&meddled) as _, &Vfs::mem(5));
        let result = work(&ours, &place, &logs);
        let met = meddled.calls.load(Ordering::Relaxed) > at;
        check(&place, &logs, result, met, &format!("met before call {at}"));
        if !met {
            return at;
        }
    }
    0
}

fn is_fenced<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::Remote { fault: Fault::Fenced, .. }))
}

#[test]
fn of_two_archives_that_send_one_piece_exactly_one_wins() {
    let theirs_won = AtomicU64::new(0);
    let calls = meet(
        |theirs, logs| {
            // The same log on a copy of the machine, which has gone on with other commits.
            let at = logs.a.end_of(3);
            let _ = theirs.put_piece(&logs.a.id, at as u64, &[9; 30], 4, 4);
        },
        |ours, _, Logs { a, .. }| a.send(ours, a.end_of(3) as u64, 4),
        |place, Logs { a, .. }, ours, _, context| {
            let (from, end) = (a.end_of(3), a.end_of(4));
            let theirs = place.remote.put_piece(&a.id, from as u64, &[9; 30], 4, 4);
            assert_ne!(is_fenced(&ours), is_fenced(&theirs), "{ours:?} {theirs:?} {context}");
            theirs_won.fetch_add(u64::from(is_fenced(&ours)), Ordering::Relaxed);
            if let Ok(reached) = ours {
                assert_eq!(reached, end as u64);
                nothing_lost(&place.remote, &(0..=4).collect(), context);
            }
        },
    );
    assert!(calls == 3 && theirs_won.load(Ordering::Relaxed) == 1, "{calls} {theirs_won:?}");
}

#[test]
fn an_archive_that_begins_between_any_two_calls_of_another_one_stays_the_last() {
    let fenced = AtomicU64::new(0);
    let calls = meet(
        |theirs, logs| {
            let writer = theirs.begin_archive(&version(6)).unwrap();
            put_image(theirs, &writer, 7, start(&Log::new(7, 0xd1, 0)));
            drop(logs.a.clone());
        },
        |ours, place, Logs { b, .. }| {
            ours.put_image(&place.writer, &version(6), Some(start(b)), &mut unwatched)
        },
        |place, _, ours, met, context| {
            let Place { remote, writer, .. } = place;
            let images = remote.list().unwrap().images;
            let versions: Vec<u64> = images.iter().map(|image| image.facts.seq).collect();
            assert_eq!(remote.check_writer(writer).is_err(), met, "{context}");
            assert_eq!(versions.contains(&7), met, "{context}");
            if ours.is_ok() {
                assert!(versions.contains(&6), "{versions:?} {context}");
            } else {
                assert!(is_fenced(&ours), "{context}");
                fenced.fetch_add(1, Ordering::Relaxed);
            }
            // If both are listed, ours was before theirs.
            let order = |seq| versions.iter().position(|version| *version == seq);
            if let (Some(six), Some(seven)) = (order(6), order(7)) {
                assert!(seven < six, "{versions:?} {context}");
            }
        },
    );
    assert!(calls > 8 && fenced.load(Ordering::Relaxed) > 6, "{calls} {fenced:?}");
}

#[test]
fn a_prune_between_any_two_calls_of_an_archive_takes_nothing_that_it_has_sent() {
    let calls = meet(
        |theirs, _| _ = theirs.prune(1, &mut unwatched).unwrap(),
        |ours, place, logs| {
            let Logs { a, b } = logs;
            let at = a.send(ours, a.end_of(3) as u64, 6).unwrap();
            assert_eq!(at, a.bytes.len() as u64);
            b.send(ours, 0, 8).unwrap();
            let put = ours.put_image(&place.writer, &version(6), Some(start(b)), &mut unwatched);
            (put.map(drop), b.send(ours, b.end_of(8) as u64, 10).map(drop))
        },
        |place, logs, (put, sent), _, context| {
            sent.unwrap_or_else(|error| panic!("{error}; {context}"));
            // An upload is given up by a prune, because here every orphan is old.
            let given_up =
                matches!(put, Err(Error::Remote { fault: Fault::GivenUp | Fault::Missing, .. }));
            assert!(put.is_ok() || given_up, "{put:?} {context}");
            let first = place.remote.list().unwrap().images.last().unwrap().facts.seq;
            let known: Known = (first..=10).collect();
            nothing_lost(&place.remote, &known, context);
            settled(place, logs, known, context);
        },
    );
    assert!(calls > 20, "{calls}");
    // And the reverse: what an archive sends beside a prune.
    meet(
        |theirs, Logs { a, b }| {
            let writer = theirs.begin_archive(&version(6)).unwrap();
            a.send(theirs, a.end_of(3) as u64, 6).unwrap();
            b.send(theirs, 0, 8).unwrap();
            put_image(theirs, &writer, 6, start(b));
        },
        |ours, _, _| ours.prune(1, &mut unwatched),
        |place, logs, pruned, met, context| {
            pruned.unwrap_or_else(|error| panic!("{error}; {context}"));
            let first = place.remote.list().unwrap().images.last().unwrap().facts.seq;
            let known: Known = (first..=if met { 8 } else { 3 }).collect();
            nothing_lost(&place.remote, &known, context);
            settled(place, logs, known, context);
        },
    );
}

#[test]
fn an_image_gets_its_log_beside_any_other_writer() {
    let calls = meet(
        |theirs, _| {
            theirs.put(&version(6), &mut unwatched).unwrap();
            theirs.clone().orphans_after(Duration::from_secs(1)).prune(2, &mut unwatched).unwrap();
        },
        |ours, place, Logs { b, .. }| {
            ours.put_image(&place.writer, &version(6), Some(start(b)), &mut unwatched).unwrap()
        },
        |place, Logs { b, .. }, put, _, context| {
            assert_eq!(put.image.log, Some(start(b)), "{context}");
            let images = place.remote.list().unwrap().images;
            let ours = images.iter().find(|image| image.name == put.image.name);
            assert!(ours.is_some_and(|image| image.log == put.image.log), "{images:?} {context}");
        },
    );
    assert!(calls > 8, "{calls}");
}

#[test]
fn a_power_cut_at_any_call_to_a_folder_loses_no_piece_that_was_put() {
    let base = FaultDir::new();
    let processes = AtomicU64::new(0);
    let remote = |disk: &FaultDir| {
        // Two processes never draw the same random names.
        let vfs = disk.vfs(processes.fetch_add(1, Ordering::Relaxed));
        remote_at(Arc::new(Folder::of(vfs.clone())), &vfs)
    };
    let (_, logs) = place();
    {
        let remote = remote(&base);
        let writer = remote.begin_archive(&version(0)).unwrap();
        put_image(&remote, &writer, 0, start(&logs.a));
        logs.a.send(&remote, 0, 3).unwrap();
    }
    let before: Known = (0..=3).collect();
    let steps = |disk: &FaultDir| {
        let (remote, mut known) = (remote(disk), before.clone());
        if let Ok(writer) = remote.begin_archive(&version(0)) {
            act(&remote, &writer, &logs, &mut known);
        }
        known
    };
    let images = each_power_cut(&base, &steps, &mut |image, known, context| {
        let (context, remote) = (context(), remote(image));
        nothing_lost(&remote, known, &context);
        let mut known = known.clone();
        resume(&remote, &logs, &mut known).unwrap_or_else(|error| panic!("{error}; {context}"));
        nothing_lost(&remote, &known, &context);
    });
    println!("{images} disks");
    assert!(images > 100, "{images}");
}
