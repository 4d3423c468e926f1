//! The rule for thinning the list of positions, the valid lists, and the comparison of anchors.

use super::*;
use crate::vfs::SeededEntropy;

fn at(seq: Seq) -> Position {
    let mut digest = [7; 32];
    digest[..8].copy_from_slice(&seq.to_le_bytes());
    Position { seq, digest }
}

fn history() -> History {
    History { store_id: [9; 16], end: at(0), listed: Vec::new() }
}

fn seqs(history: &History) -> Vec<Seq> {
    history.listed.iter().map(|position| position.seq).collect()
}

/// Lists positions at distances from `distance`, and checks the list against the rule each time.
fn thinned(count: u32, mut distance: impl FnMut() -> Seq) -> History {
    let (mut history, mut all, mut seq) = (history(), Vec::new(), 0);
    for _ in 0..count {
        seq += distance();
        all.push(seq);
        history.list(at(seq));
        let seqs = seqs(&history);
        assert!(seqs.len() <= LISTED_MAX, "{}", seqs.len());
        assert!(seqs.is_sorted_by(|a, b| a < b), "{seqs:?}");
        let newest = &all[all.len().saturating_sub(KEPT)..];
        assert!(seqs.ends_with(newest), "the newest stay: {seqs:?}");
        assert_eq!(seqs[0], all[0], "the oldest stays");
    }
    history
}

#[test]
fn the_list_is_bounded_and_sorted_and_holds_the_newest_and_the_oldest() {
    let random = SeededEntropy::new(4_711);
    for most in [1, 2, 100, 1 << 20, 1 << 50] {
        thinned(2_000, || 1 + random.below(most));
    }
    let mut distance = 1;
    thinned(61, || {
        distance *= 2;
        distance / 2
    });
}

#[test]
fn older_positions_lie_at_distances_that_grow_with_their_age() {
    let history = thinned(100_000, || 1);
    let newest = history.listed.last().unwrap().seq;
    for pair in history.listed.windows(2) {
        let (age, gap) = (newest - pair[1].seq + 1, pair[1].seq - pair[0].seq);
        assert!(gap <= 8 * age, "{gap} commits are missing at the age {age}");
    }
}

#[test]
fn the_same_positions_give_the_same_list_and_one_that_is_listed_is_listed_once() {
    let make = || thinned(500, || 3);
    let mut history = make();
    assert_eq!(history.listed, make().listed);
    let before = history.listed.clone();
    for position in &before {
        history.list(*position);
    }
    assert_eq!(history.listed, before);
}

#[test]
fn bases_of_a_snapshot_are_listed_only_far_apart() {
    let mut history = history();
    for seq in 0..10_000 {
        history.list_if_apart(at(seq));
    }
    assert_eq!(seqs(&history), (1..=9).map(|n| n * APART).collect::<Vec<_>>());
    history.list(at(9_500));
    history.list_if_apart(at(9_501 + APART - 2));
    assert_eq!(history.listed.last().unwrap().seq, 9_500);
}

#[test]
fn a_list_is_read_as_it_was_written_and_anything_else_is_refused() {
    let history = thinned(300, || 2);
    let mut bytes = Vec::new();
    let count = encode_listed(&history, 599, &mut bytes);
    let expected: Vec<_> = history.listed.iter().copied().filter(|at| at.seq < 599).collect();
    assert_eq!(decode_listed(&bytes, count, 599).unwrap(), expected);
    assert_eq!(decode_listed(&[], 0, 0).unwrap(), []);
    assert!(decode_listed(&bytes, count, expected.last().unwrap().seq).is_err(), "not before it");
    assert!(decode_listed(&bytes, count - 1, 599).is_err());
    assert!(decode_listed(&bytes[1..], count, 599).is_err());
    assert!(decode_listed(&bytes, u32::MAX, 599).is_err());
    let mut swapped = bytes.clone();
    swapped[..80].rotate_left(40);
    assert!(decode_listed(&swapped, count, 599).is_err());
    let long: Vec<u8> =
        (0..=128_u64).flat_map(|seq| [seq; 5].map(u64::to_le_bytes)).flatten().collect();
    assert!(decode_listed(&long, 129, 1 << 40).is_err(), "129 of them");
    assert!(decode_listed(&long[..128 * 40], 128, 1 << 40).is_ok());
}

/// Returns the result for an anchor at `seq` in a history with these listed positions, base and
/// groups.
fn found(
    anchor: Anchor,
    listed: &[Seq],
    groups: &[Seq],
    accepts: bool,
) -> Result<Option<AnchorFound>> {
    let path = Path::new("app.db");
    let mut watch = AnchorWatch::new(Some(anchor), accepts);
    watch.pass_listed(&listed.iter().map(|&seq| at(seq)).collect::<Vec<_>>(), path)?;
    groups.iter().try_for_each(|&seq| watch.pass(at(seq), path))?;
    let mut history = history();
    let found = watch.end(&mut history, path)?;
    let is_compared = found == Some(AnchorFound::Compared);
    assert_eq!(seqs(&history), if is_compared { vec![anchor.seq] } else { vec![] });
    Ok(found)
}

#[test]
fn an_anchor_is_compared_where_the_files_tell_and_unknown_before_what_they_tell() {
    let anchor = |seq| at(seq).anchor([9; 16]);
    let (listed, groups) = ([3, 5], [10, 12, 15]);
    for seq in [3, 5, 10, 12, 15] {
        let compared = found(anchor(seq), &listed, &groups, false).unwrap();
        assert_eq!(compared, Some(AnchorFound::Compared));
        let other = Anchor { value: [1; 32], ..anchor(seq) };
        for accepts in [false, true] {
            let refused = found(other, &listed, &groups, accepts);
            assert!(matches!(refused, Err(Error::AnchorMismatch { .. })), "{seq}: {refused:?}");
        }
    }
    for seq in [0, 4, 9] {
        let refused = found(anchor(seq), &listed, &groups, false);
        assert!(matches!(refused, Err(Error::AnchorUnknown { .. })), "{seq}: {refused:?}");
        let accepted = found(anchor(seq), &listed, &groups, true).unwrap();
        assert_eq!(accepted, Some(AnchorFound::Unknown));
    }
    for seq in [11, 13, 14, 16, 1 << 40] {
        let refused = found(anchor(seq), &listed, &groups, true);
        assert!(matches!(refused, Err(Error::AnchorMismatch { .. })), "{seq}: {refused:?}");
    }
}

#[test]
fn the_value_of_an_anchor_depends_on_each_of_its_parts_and_shows_no_digest() {
    let anchor = at(5).anchor([9; 16]);
    assert_ne!(anchor.value, at(5).anchor([8; 16]).value);
    assert_ne!(anchor.value, Position { seq: 6, ..at(5) }.anchor([9; 16]).value);
    assert_ne!(anchor.value, Position { digest: [1; 32], ..at(5) }.anchor([9; 16]).value);
    let (position, mut history) = (Position { seq: 5, digest: [0xAB; 32] }, history());
    history.list(position);
    let shown = format!("{position:?} {history:?}");
    assert!(!shown.contains("171") && !shown.to_lowercase().contains("ab, ab"), "{shown}");
}
