//! Tests of cursors against a sorted list.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::ops::Bound::{Excluded, Included, Unbounded};

use codex_storage::batch::Item;
use proptest::prelude::*;

use super::*;
use crate::range::Prefix;
use crate::range::sealed::Bounds as _;

fn ordered(keys: &BTreeSet<Vec<u8>>) -> Ordered {
    let mut ordered = Ordered::new();
    for key in keys {
        ordered.insert(entry::Entry::new(key, &[0]));
    }
    ordered
}

fn keys(entries: impl Iterator<Item = Entry>) -> Vec<Vec<u8>> {
    entries.map(|entry| entry.key().to_vec()).collect()
}

/// Short keys of few different bytes, so that they collide, are prefixes of each other and contain
/// 0xFF.
fn key() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(0xFE), Just(0xFF)], 0..4)
}

fn bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
    prop_oneof![key().prop_map(Included), key().prop_map(Excluded), Just(Unbounded)]
}

fn within(key: &[u8], from: &Bound<Vec<u8>>, to: &Bound<Vec<u8>>) -> bool {
    let above = match from {
        Included(from) => key >= from.as_slice(),
        Excluded(from) => key > from.as_slice(),
        Unbounded => true,
    };
    let below = match to {
        Included(to) => key <= to.as_slice(),
        Excluded(to) => key < to.as_slice(),
        Unbounded => true,
    };
    above && below
}

proptest! {
    #![proptest_config(crate::seeded::cases(256))]

    #[test]
    fn any_range_from_any_end_gives_what_a_filter_gives(
        set in proptest::collection::btree_set(key(), 0..80),
        from in bound(),
        to in bound(),
        ends in proptest::collection::vec(any::<bool>(), 90),
    ) {
        let mut expected: Vec<_> =
            set.iter().filter(|key| within(key, &from, &to)).cloned().collect();
        let bounds = (from.as_ref(), to.as_ref()).into_bounds();
        let mut iter = Iter::new(ordered(&set), NOW_US, None, bounds);
        for front in ends {
            let (ours, theirs) = if front {
                (iter.next(), (!expected.is_empty()).then(|| expected.remove(0)))
            } else {
                (iter.next_back(), expected.pop())
            };
            prop_assert_eq!(ours.map(|entry| entry.key().to_vec()), theirs);
        }
    }

    #[test]
    fn a_prefix_gives_exactly_what_begins_with_it(
        set in proptest::collection::btree_set(key(), 0..80),
        prefix in key(),
    ) {
        let expected: Vec<_> =
            set.iter().filter(|key| key.starts_with(&prefix)).cloned().collect();
        let iter = Iter::new(ordered(&set), NOW_US, None, Prefix(&prefix).into_bounds());
        prop_assert_eq!(&keys(iter.clone()), &expected);
        prop_assert_eq!(keys(iter.rev()), expected.into_iter().rev().collect::<Vec<_>>());
    }
}

#[test]
fn a_long_walk_crosses_every_fetch() {
    let set: BTreeSet<_> = (0..5_000).map(|i| format!("{i:05}").into_bytes()).collect();
    let all = (Unbounded, Unbounded);
    let forward = keys(Iter::new(ordered(&set), NOW_US, None, all.clone()));
    assert!(forward.iter().eq(&set));
    let backward = keys(Iter::new(ordered(&set), NOW_US, None, all).rev());
    assert!(backward.iter().eq(set.iter().rev()));
}

/// Every stretch without and with expired entries is longer than several fetches in one case, and
/// shorter than a leaf in another.
#[test]
fn expired_entries_are_left_out_across_every_fetch_from_both_ends() {
    for stretch in [1, 7, 50, 700, 2_500] {
        let (mut ordered, mut shown) = (Ordered::new(), Vec::new());
        for number in 0..5_000_i64 {
            let key = format!("{number:05}").into_bytes();
            let expires_us = NOW_US + number / stretch % 2;
            let item = Item { table: None, key: &key, value: &[0], expires_us: Some(expires_us) };
            ordered.insert(entry::Entry::from_item(item));
            if expires_us > NOW_US {
                shown.push(key);
            }
        }
        let iter = || Iter::new(ordered.clone(), NOW_US, None, (Unbounded, Unbounded));
        assert!(keys(iter()) == shown, "{stretch}");
        assert!(keys(iter().rev()).iter().eq(shown.iter().rev()), "{stretch}");
        // Some from the back, then all others from the front.
        let mut iter = iter();
        let back = shown.split_off(shown.len() - 100);
        assert!(keys(iter.by_ref().rev().take(100)).iter().eq(back.iter().rev()), "{stretch}");
        assert!(keys(iter) == shown, "{stretch}");
    }
}

#[test]
fn an_exhausted_cursor_stays_exhausted_at_both_ends() {
    let set = BTreeSet::from([vec![1], vec![2], vec![3]]);
    let mut iter = Iter::new(ordered(&set), NOW_US, None, (Unbounded, Unbounded));
    assert_eq!(iter.next_back().unwrap().key(), [3]);
    assert_eq!(iter.by_ref().count(), 2);
    assert!(iter.next().is_none() && iter.next_back().is_none() && iter.next().is_none());
}

#[test]
fn debug_shows_no_key_and_no_value() {
    let inner = entry::Entry::new(b"secret key", b"\0secret value");
    let entry = Entry { inner };
    let text = format!("{entry:?} {:?} {:?}", Key(entry.clone()), entry.value_ref());
    assert!(!text.contains("secret"), "{text}");
    assert_eq!(text, "Entry(10 byte key, 12 byte value) Key(10 bytes) ValueRef(12 bytes)");
}

/// The time of the iterators.
const NOW_US: i64 = 0;
