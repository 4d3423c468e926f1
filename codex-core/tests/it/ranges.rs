//! Tests of ranges and prefixes in each form that a caller may type.
#![allow(clippy::big_endian_bytes, reason = "keys are ordered by their bytes")]

use std::ops::Bound::{Excluded, Included, Unbounded};

use codex_core::{Key, Prefix, Readable, Store};

/// Returns a store with the keys `a`, `ab`, `b`, `c` and a byte that is no text.
fn store() -> Store {
    let store = Store::in_memory().unwrap();
    for key in [&b"a"[..], b"ab", b"b", b"c", &[255]] {
        store.set(key, &key.len()).unwrap();
    }
    store
}

#[test]
fn a_range_infers_its_type_from_its_ends() {
    let store = store();
    let (a, b) = (String::from("a"), String::from("b"));
    let (ab, c): (&[u8], &[u8]) = (b"ab", b"c");
    let (from, to) = (vec![b'a'], vec![b'c']);
    let keys: Vec<Key> = store.keys().collect();
    let counts = [
        store.range(..).count(),
        store.range("a"..).count(),
        store.range(.."b").count(),
        store.range("a".."b").count(),
        store.range("a"..="b").count(),
        store.range(..="b").count(),
        store.range(&a..&b).count(),
        store.range(a.as_str()..b.as_str()).count(),
        store.range(a.clone()..=b.clone()).count(),
        store.range(&a..).count(),
        store.range(a..b).count(),
        store.range(ab..c).count(),
        store.range(..=c).count(),
        store.range(&ab..&c).count(),
        store.range(&from..&to).count(),
        store.range(&from[..]..&to[..]).count(),
        store.range(from..to).count(),
        store.range(b"a"..b"c").count(),
        store.range(b"a"..=b"c").count(),
        store.range(*b"a"..*b"c").count(),
        store.range([b'b']..).count(),
        store.range(&keys[0]..&keys[2]).count(),
        store.range(keys[1].clone()..).count(),
        store.range(7_u64.to_be_bytes()..9_u64.to_be_bytes()).count(),
        store.range(format!("{}", "b")..).count(),
        store.range((Excluded("a"), Unbounded)).count(),
        store.range((Unbounded, Included(b"b"))).count(),
        store.range((Included(ab), Excluded(c))).count(),
        store.range((Excluded(&keys[1]), Included(&keys[4]))).count(),
        store.range(Prefix("a")).count(),
        store.range(Prefix(b"a")).count(),
        store.range(Prefix(&keys[0])).count(),
        store.range(Prefix([255_u8])).count(),
        store.range(Prefix("")).count(),
        store.range("c".."a").count(),
    ];
    let expected = [
        5, 5, 2, 2, 3, 3, 2, 2, 3, 5, 2, 2, 4, 2, 3, 3, 3, 3, 4, 3, 3, 2, 4, 0, 3, 4, 3, 2, 3, 2,
        2, 2, 1, 5, 0,
    ];
    assert_eq!(counts, expected);
}

#[test]
fn every_method_that_scans_or_removes_takes_every_range() {
    fn reads(source: &impl Readable) -> [usize; 4] {
        [
            source.range(Prefix("a")).count(),
            source.range(..).keys().count(),
            source.first("b"..).unwrap().key().len(),
            source.last(..).unwrap().value().unwrap(),
        ]
    }
    let store = store();
    let snapshot = store.snapshot();
    assert_eq!(reads(&store), [2, 5, 1, 1]);
    assert_eq!(store.remove_range(Prefix("a")).unwrap(), 2);
    assert_eq!(store.remove_range(b"b"..b"c").unwrap(), 1);
    assert_eq!(store.remove_range((Excluded(&String::from("c")), Unbounded)).unwrap(), 1);
    assert_eq!(store.remove_range(..).unwrap(), 1);
    assert_eq!((store.len(), reads(&snapshot)), (0, [2, 5, 1, 1]));
    assert!(store.first(..).is_none() && store.last(Prefix("a")).is_none());
}

#[test]
fn the_first_and_last_of_a_range_are_its_smallest_and_largest_key() {
    let store = store();
    let first = |range| store.first(range).map(|entry| entry.key().to_vec());
    assert_eq!(first((Unbounded, Unbounded)).unwrap(), b"a");
    assert_eq!(first((Excluded("a"), Unbounded)).unwrap(), b"ab");
    assert_eq!(first((Excluded("b"), Excluded("c"))), None);
    assert_eq!(store.last(..).unwrap().key(), [255]);
    assert_eq!(store.last(.."b").unwrap().key(), b"ab");
    assert_eq!(store.last(Prefix("a")).unwrap().key(), b"ab");
    assert!(store.last("d"..="e").is_none());
}

#[test]
fn values_and_keys_of_a_range_come_from_either_end() {
    let store = store();
    let values: Vec<usize> = store.prefix("a").values().collect::<Result<_, _>>().unwrap();
    assert_eq!(values, [1, 2]);
    let values: Vec<usize> = store.range("a".."c").values().rev().map(Result::unwrap).collect();
    assert_eq!(values, [1, 2, 1]);
    assert_eq!(store.values::<usize>().map(Result::unwrap).sum::<usize>(), 6);
    let keys: Vec<Key> = store.range(.."c").keys().rev().collect();
    assert_eq!(keys, ["b", "ab", "a"]);
    // A value of another type is an error of its own, and the next ones follow.
    store.set("aa", "text").unwrap();
    let values: Vec<bool> = store.prefix("a").values::<usize>().map(|v| v.is_ok()).collect();
    assert_eq!(values, [true, false, true]);
}
