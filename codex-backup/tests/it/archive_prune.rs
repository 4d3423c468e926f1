//! Retention: which images and pieces stay, by number and by time.

use std::time::Duration;

use codex_backup::remote::{Fault, Moment};
use codex_backup::unwatched;

use crate::archive::{Log, Place, begun, frames, put_image, reach, start};
use crate::remote::{listed, version};

const MINUTE: Duration = Duration::from_secs(60);

/// Returns a place with the logs `a` to `c` of four commits each, an image before each of them, and
/// a minute between all.
fn three_logs() -> (Place, [Log; 3]) {
    let place = begun();
    let mut logs = Vec::new();
    let mut log = Log::new(0, 0xa1, 0);
    for name in [0xb1, 0xc1, 0xd1] {
        put_image(&place.remote, &place.writer, log.id.base_seq, start(&log));
        log.commit_upto(log.id.base_seq + 4);
        log.send(&place.remote, 0, log.last()).unwrap();
        place.memory.pass(MINUTE);
        let next = log.next(name);
        logs.push(std::mem::replace(&mut log, next));
    }
    (place, logs.try_into().unwrap())
}

/// Asserts that exactly the commits from `first` to 12 are reached.
fn is_from(place: &Place, first: u64) {
    for seq in 0..=12 {
        match reach(&place.remote, Moment::Seq(seq)) {
            Ok(reached) => {
                assert!(seq >= first, "{seq} {first}");
                assert_eq!(frames(&reached).len() as u64, seq - reached.image.facts.seq);
            }
            Err(Fault::Before { .. }) => assert!(seq < first, "{seq} {first}"),
            Err(fault) => panic!("{fault}"),
        }
    }
    let latest = reach(&place.remote, Moment::Latest).unwrap();
    assert_eq!((latest.seq, frames(&latest).len()), (12, 4));
}

fn pieces(place: &Place) -> usize {
    place.memory.objects().into_keys().filter(|name| name.starts_with("log/")).count()
}

#[test]
fn a_prune_removes_the_old_pieces_of_logs_that_no_kept_image_leads_to() {
    for keep in 1..=4 {
        let (place, _) = three_logs();
        let before = pieces(&place);
        // Young pieces stay, although nothing leads to them.
        let young = place.remote.clone().orphans_after(MINUTE * 9);
        let pruned = young.prune(keep, &mut unwatched).unwrap();
        assert_eq!((pruned.removed.len(), pruned.pieces), (3_usize.saturating_sub(keep), 0));
        let first = [8, 4, 0, 0][keep - 1];
        is_from(&place, first);
        let pruned = place.remote.prune(keep, &mut unwatched).unwrap();
        assert_eq!(usize::try_from(pruned.pieces).unwrap(), before - pieces(&place));
        assert_eq!(pruned.pieces > 0, keep < 3);
        is_from(&place, first);
        assert_eq!(place.remote.prune(keep, &mut unwatched).unwrap().pieces, 0);
    }
}

#[test]
fn a_log_that_is_still_sent_stays_although_no_image_leads_to_it() {
    let place = begun();
    let remote = place.remote.clone().orphans_after(MINUTE);
    put_image(&remote, &place.writer, 0, None);
    // The image that it continues is not listed yet.
    let mut log = Log::new(3, 0xa1, 0);
    log.commit_upto(9);
    let at = log.send(&remote, 0, 6).unwrap();
    place.memory.pass(MINUTE);
    log.send(&remote, at, 9).unwrap();
    assert_eq!(remote.prune(1, &mut unwatched).unwrap().pieces, 0);
    put_image(&remote, &place.writer, 3, start(&log));
    assert_eq!(frames(&reach(&remote, Moment::Seq(9)).unwrap()).len(), 6);
    // Without its image it goes as a whole.
    let writer = remote.begin_archive(&version(9)).unwrap();
    put_image(&remote, &writer, 9, start(&log.next(0xb1)));
    let pieces = pieces(&place) as u64;
    assert_eq!(remote.prune(1, &mut unwatched).unwrap().pieces, 0);
    place.memory.pass(MINUTE);
    assert_eq!(remote.prune(1, &mut unwatched).unwrap().pieces, pieces);
}

#[test]
fn the_logs_behind_the_log_of_a_kept_image_stay() {
    let place = begun();
    let mut log = Log::new(0, 0xa1, 0);
    put_image(&place.remote, &place.writer, 0, start(&log));
    for name in [0xb1, 0xc1, 0xd1] {
        log.commit_upto(log.id.base_seq + 4);
        log.send(&place.remote, 0, log.last()).unwrap();
        log = log.next(name);
    }
    let before = pieces(&place);
    assert_eq!(place.remote.prune(1, &mut unwatched).unwrap().pieces, 0);
    assert_eq!(pieces(&place), before);
    for seq in 0..=12 {
        assert_eq!(frames(&reach(&place.remote, Moment::Seq(seq)).unwrap()).len() as u64, seq);
    }
}

#[test]
fn each_moment_of_the_time_to_keep_stays_reached() {
    // The images were made 3, 2 and 1 minutes ago.
    for (minutes, expected) in
        [(0, &[8][..]), (1, &[8]), (2, &[8, 4]), (3, &[8, 4, 0]), (4, &[8, 4, 0])]
    {
        let (place, _) = three_logs();
        let remote = place.remote.clone().keep_for(MINUTE * minutes);
        remote.prune(1, &mut unwatched).unwrap();
        assert_eq!(listed(&remote), expected, "{minutes}");
        is_from(&place, *expected.last().unwrap());
        // The number keeps more than the time.
        let (place, _) = three_logs();
        place.remote.clone().keep_for(MINUTE * minutes).prune(3, &mut unwatched).unwrap();
        assert_eq!(listed(&place.remote), [8, 4, 0]);
    }
    // Before the image that began another line, only one of that line leads to its moments.
    let (place, [a, ..]) = three_logs();
    put_image(&place.remote, &place.writer, 2, start(&Log::new(2, 0xe1, 0)));
    let remote = place.remote.clone().keep_for(MINUTE);
    remote.prune(1, &mut unwatched).unwrap();
    assert_eq!(listed(&remote), [2, 8, 4, 0]);
    assert_eq!(frames(&reach(&remote, Moment::Seq(1)).unwrap()).len(), 1);
    drop(a);
}

#[test]
fn the_image_whose_log_an_archive_sends_stays_behind_those_of_tools() {
    let (place, [.., mut c]) = three_logs();
    // Tools put images that no log continues.
    for seq in [10, 11] {
        place.remote.put(&version(seq), &mut unwatched).unwrap();
    }
    place.remote.prune(1, &mut unwatched).unwrap();
    assert_eq!(listed(&place.remote), [11, 10, 8]);
    c.commit_upto(14);
    let end = place.remote.log_end(&c.id, 0, &*crate::remote::file(&c.bytes)).unwrap();
    let at = end.unwrap().offset;
    c.send(&place.remote, at, 14).unwrap();
    let latest = reach(&place.remote, Moment::Latest).unwrap();
    assert_eq!((latest.image.facts.seq, latest.seq, frames(&latest).len()), (8, 14, 6));
}
