//! Tests of the handles that reading returns: comparisons, conversions, and values that borrow.
#![allow(
    clippy::cmp_owned,
    clippy::manual_range_contains,
    clippy::op_ref,
    reason = "each form of a comparison is tried as it may be typed"
)]

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use codex_core::{Codec, Entry, Error, Key, Store, ValueRef};
use serde::{Deserialize, Serialize};

fn store() -> Store {
    let store = Store::in_memory().unwrap();
    store.set_bytes("a", "1").unwrap();
    store.set_bytes("b", "2").unwrap();
    store
}

#[test]
fn keys_and_values_compare_as_their_bytes_with_every_kind_of_bytes() {
    let store = store();
    let key = store.keys().next().unwrap();
    let value = store.get_bytes("a").unwrap();
    assert!(key == "a" && key == *"a" && key == "a".to_string() && key == b"a" && key == *b"a");
    assert!(key == b"a"[..] && key == &b"a"[..] && key == vec![b'a'] && key == key.clone());
    assert!("a" == key && *"a" == key && "a".to_string() == key && b"a" == key && *b"a" == key);
    assert!(b"a"[..] == key && &b"a"[..] == key && vec![b'a'] == key);
    assert!(value == "1" && value == [b'1'] && value != "2" && key != value);
    assert!(key < "b" && key > *b"A" && key <= b"a"[..] && value >= "1" && value < "10");
    assert_eq!(store.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(store.keys().max().unwrap(), "b");
    assert_eq!((store.get_bytes("a"), store.get_bytes("c")), (Some(value), None));
}

#[test]
fn maps_and_sets_of_handles_are_searched_with_bytes() {
    let store = store();
    let parts = || store.iter().map(Entry::into_parts);
    let hashed: HashMap<Key, ValueRef> = parts().collect();
    let ordered: BTreeMap<Key, ValueRef> = parts().collect();
    assert!(hashed[&b"b"[..]] == "2" && ordered[&b"a"[..]] == "1");
    assert!(!hashed.contains_key(&b"c"[..]));
    let values: HashSet<ValueRef> = parts().map(|(_, value)| value).collect();
    assert!(values.contains(&b"1"[..]));
    let mut sorted: Vec<Key> = store.keys().rev().collect();
    sorted.sort();
    assert_eq!(sorted, store.keys().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>());
    let bytes: Vec<u8> = sorted[0].clone().into();
    let text = String::from_utf8(store.get_bytes("b").unwrap().into()).unwrap();
    assert_eq!((bytes, text.as_str()), (b"a".to_vec(), "2"));
}

#[test]
fn a_value_is_equal_to_its_bytes_whichever_codec_they_are_of() {
    let (bincode, raw) = (Store::in_memory().unwrap(), Store::in_memory().unwrap());
    bincode.set("k", &1_u8).unwrap();
    raw.set_bytes("k", [1]).unwrap();
    let (encoded, raw) = (bincode.get_bytes("k").unwrap(), raw.get_bytes("k").unwrap());
    assert!(encoded == raw && encoded.codec() != raw.codec());
}

#[test]
fn a_pair_of_handles_outlives_its_entry_and_the_store() {
    let store = store();
    let (key, value) = store.first(..).unwrap().into_parts();
    store.clear().unwrap();
    drop(store);
    assert!(key == "a" && value == "1");
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Note<'a> {
    title: &'a str,
    #[serde(borrow)]
    body: Cow<'a, str>,
}

#[test]
fn fields_borrow_from_the_value_without_a_copy() {
    for codec in [Codec::Bincode, Codec::Json] {
        let store = Store::options().codec(codec).in_memory().unwrap();
        store.set("n", &Note { title: "Locks", body: "of bikes".into() }).unwrap();
        let value = store.get_bytes("n").unwrap();
        let note: Note = value.decode().unwrap();
        assert_eq!((note.title, &*note.body), ("Locks", "of bikes"), "{codec}");
        let bytes = value.as_ptr_range();
        assert!(bytes.contains(&note.title.as_ptr()) && bytes.contains(&note.body.as_ptr()));
        let entry = store.first(..).unwrap();
        assert_eq!(entry.value::<Note>().unwrap(), note, "{codec}");
    }
}

#[test]
fn bytes_borrow_from_bincode_and_a_text_that_is_escaped_does_not_from_json() {
    let store = Store::in_memory().unwrap();
    store.set("n", &(vec![1_u8, 2], "a")).unwrap();
    let value = store.get_bytes("n").unwrap();
    let (bytes, text): (&[u8], &str) = value.decode().unwrap();
    assert_eq!((bytes, text), (&[1, 2][..], "a"));

    let store = Store::options().codec(Codec::Json).in_memory().unwrap();
    store.set("n", &Note { title: "a", body: "\"b\"".into() }).unwrap();
    let value = store.get_bytes("n").unwrap();
    assert_eq!(value.decode::<Note>().unwrap().body, "\"b\"");
    store.set("n", &Note { title: "\"a\"", body: "b".into() }).unwrap();
    let value = store.get_bytes("n").unwrap();
    assert!(matches!(value.decode::<Note>(), Err(Error::Decode { .. })));
    assert!(value.decode::<BTreeMap<String, String>>().is_ok());
}
