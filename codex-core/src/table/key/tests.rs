//! Tests of the keys of tables. The oracle of the order is `Ord`.

use std::cmp::Reverse;
use std::fmt::Debug;

use proptest::prelude::*;

use super::TableKey;
use crate::TablePrefix;

/// Returns the self-delimiting encoding of `key`, and that after which nothing comes.
fn encodings<K: TableKey>(key: &K::Ref<'_>) -> [Vec<u8>; 2] {
    let (mut inner, mut last) = (Vec::new(), Vec::new());
    K::encode(key, &mut inner);
    K::encode_last(key, &mut last);
    [inner, last]
}

/// Checks the encodings of two keys, which the methods of tables take as `one_ref` and `two_ref`.
fn check<K: TableKey + Ord + Debug>(one: &K, two: &K, one_ref: &K::Ref<'_>, two_ref: &K::Ref<'_>) {
    let [inner_one, last_one] = encodings::<K>(one_ref);
    let [inner_two, last_two] = encodings::<K>(two_ref);
    assert_eq!(inner_one.cmp(&inner_two), one.cmp(two), "order of {one:?} and {two:?}");
    assert_eq!(last_one.cmp(&last_two), one.cmp(two), "order of {one:?} and {two:?} at the end");
    let is_beginning = inner_one.starts_with(&inner_two) || inner_two.starts_with(&inner_one);
    assert_eq!(is_beginning, one == two, "{one:?} and {two:?}: one is the beginning of the other");
    // Other bytes may follow the self-delimiting one.
    let followed = [&inner_one[..], &inner_two[..]].concat();
    let mut rest = &followed[..];
    assert_eq!(K::decode(&mut rest).as_ref(), Ok(one));
    assert_eq!(rest, inner_two, "{one:?}: not all of its bytes were taken, or more");
    assert_eq!(K::decode_last(&last_one).as_ref(), Ok(one));
}

/// Bytes with many zeros and many values next to those of the escapes.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(0), Just(1), Just(254), Just(255), any::<u8>()];
    proptest::collection::vec(byte, 0..6)
}

fn text() -> impl Strategy<Value = String> {
    let char = prop_oneof![Just('\0'), Just('\u{1}'), Just('a'), any::<char>()];
    proptest::collection::vec(char, 0..6).prop_map(|chars| chars.into_iter().collect())
}

/// Checks two keys alone, and in options, reversed and in tuples.
fn check_values<K>(one: K, two: K)
where
    K: for<'a> TableKey<Ref<'a> = K> + Ord + Copy + Debug,
{
    check::<K>(&one, &two, &one, &two);
    check::<K>(&one, &one, &one, &one);
    check::<Option<K>>(&Some(one), &Some(two), &Some(one), &Some(two));
    check::<Option<K>>(&None, &Some(two), &None, &Some(two));
    let [low, high] = [Reverse(one), Reverse(two)];
    check::<Reverse<K>>(&low, &high, &low, &high);
    let [low, high] = [(low, two), (high, one)];
    check::<(Reverse<K>, K)>(&low, &high, &low, &high);
    let [none, some] = [(None, true), (Some(two), false)];
    check::<(Option<K>, bool)>(&none, &some, &none, &some);
}

macro_rules! check_values {
    ($($name:ident: $key:ty;)+) => {
        proptest! {
            $(
                #[test]
                fn $name(one in any::<$key>(), two in any::<$key>()) {
                    check_values::<$key>(one, two);
                }
            )+
        }
    };
}

check_values! {
    keys_of_u8_keep_the_order: u8;
    keys_of_i8_keep_the_order: i8;
    keys_of_u16_keep_the_order: u16;
    keys_of_i16_keep_the_order: i16;
    keys_of_u32_keep_the_order: u32;
    keys_of_i32_keep_the_order: i32;
    keys_of_u64_keep_the_order: u64;
    keys_of_i64_keep_the_order: i64;
    keys_of_u128_keep_the_order: u128;
    keys_of_i128_keep_the_order: i128;
    keys_of_bool_keep_the_order: bool;
    keys_of_char_keep_the_order: char;
    keys_of_arrays_keep_the_order: [u8; 3];
}

type Parts = (u8, String, Vec<u8>, Option<String>);
type Nested = (String, (Reverse<String>, Option<Vec<u8>>), i16);

fn parts() -> impl Strategy<Value = Parts> {
    (0_u8..2, text(), bytes(), proptest::option::of(text()))
}

fn nested() -> impl Strategy<Value = Nested> {
    let inner = (text().prop_map(Reverse), proptest::option::of(bytes()));
    (text(), inner, -2_i16..2)
}

fn parts_ref((number, text, bytes, last): &Parts) -> <Parts as TableKey>::Ref<'_> {
    (*number, text, bytes, last.as_deref())
}

fn nested_ref((text, (reverse, bytes), number): &Nested) -> <Nested as TableKey>::Ref<'_> {
    (text, (Reverse(&reverse.0), bytes.as_deref()), *number)
}

proptest! {
    #[test]
    fn keys_of_strings_and_bytes_keep_the_order(
        (one, two) in (text(), text()),
        (three, four) in (bytes(), bytes()),
    ) {
        check::<String>(&one, &two, &&*one, &&*two);
        check::<Vec<u8>>(&three, &four, &&*three, &&*four);
    }

    #[test]
    fn keys_of_nested_tuples_keep_the_order(one in parts(), two in parts()) {
        check::<Parts>(&one, &two, &parts_ref(&one), &parts_ref(&two));
    }

    #[test]
    fn keys_of_tuples_in_tuples_keep_the_order(one in nested(), two in nested()) {
        check::<Nested>(&one, &two, &nested_ref(&one), &nested_ref(&two));
    }

    #[test]
    fn a_prefix_selects_the_keys_that_begin_with_it(
        one in parts(),
        two in parts(),
        folder in 0_u8..2,
    ) {
        let begins = |prefix: &dyn Fn(&mut Vec<u8>), key: &Parts| {
            let mut bytes = Vec::new();
            prefix(&mut bytes);
            encodings::<Parts>(&parts_ref(key))[1].starts_with(&bytes)
        };
        let (number, text, bytes, _) = parts_ref(&one);
        let by = |bytes: &mut Vec<u8>| TablePrefix::<Parts>::encode_prefix(&(number,), bytes);
        prop_assert_eq!(begins(&by, &two), one.0 == two.0);
        let by = |bytes: &mut Vec<u8>| TablePrefix::<Parts>::encode_prefix(&(number, text), bytes);
        prop_assert_eq!(begins(&by, &two), (one.0, &one.1) == (two.0, &two.1));
        let by = |into: &mut Vec<u8>| {
            TablePrefix::<Parts>::encode_prefix(&(number, text, bytes), into);
        };
        prop_assert_eq!(begins(&by, &two), (one.0, &one.1, &one.2) == (two.0, &two.1, &two.2));
        // Of a string at the end, a part of it is a prefix too.
        let mut prefix = Vec::new();
        TablePrefix::<(u8, String)>::encode_prefix(&(folder, &*one.1), &mut prefix);
        let [_, key] = encodings::<(u8, String)>(&(two.0, &two.1));
        prop_assert_eq!(key.starts_with(&prefix), two.0 == folder && two.1.starts_with(&one.1));
    }

    #[test]
    fn any_bytes_decode_to_a_key_with_this_encoding_or_to_an_error(garbage in bytes()) {
        fn check<K: TableKey>(garbage: &[u8], encode: impl Fn(&K) -> [Vec<u8>; 2]) {
            if let Ok(key) = K::decode_last(garbage) {
                assert_eq!(encode(&key)[1], garbage);
            }
            let mut rest = garbage;
            if let Ok(key) = K::decode(&mut rest) {
                assert_eq!([&encode(&key)[0], rest].concat(), garbage);
            }
        }
        check::<u32>(&garbage, encodings::<u32>);
        check::<i8>(&garbage, encodings::<i8>);
        check::<bool>(&garbage, encodings::<bool>);
        check::<char>(&garbage, encodings::<char>);
        check::<[u8; 2]>(&garbage, encodings::<[u8; 2]>);
        check::<String>(&garbage, |key| encodings::<String>(&&**key));
        check::<Vec<u8>>(&garbage, |key| encodings::<Vec<u8>>(&&**key));
        check::<Parts>(&garbage, |key| encodings::<Parts>(&parts_ref(key)));
        check::<Nested>(&garbage, |key| encodings::<Nested>(&nested_ref(key)));
    }
}

#[test]
fn a_255_after_a_string_is_not_an_escaped_zero_in_it() {
    let keys = [("a", 0_u8), ("a", 255), ("a\0", 0), ("a\0", 255), ("a\u{1}", 0), ("b", 0)];
    let encoded = keys.map(|key| encodings::<(String, u8)>(&key)[1].clone());
    assert!(encoded.is_sorted());
    for (key, encoded) in keys.iter().zip(&encoded) {
        assert_eq!(<(String, u8)>::decode_last(encoded), Ok((key.0.to_owned(), key.1)));
    }
}

/// The encodings are on disk for ever: these bytes never change.
#[test]
fn the_encodings_and_their_kinds_are_those_of_the_format() {
    fn hex<K: TableKey>(key: K::Ref<'_>) -> String {
        let [inner, last] = encodings::<K>(&key);
        let hex = |bytes: Vec<u8>| {
            let digits: Vec<_> = bytes.iter().map(|b| format!("{b:02x}")).collect();
            digits.concat()
        };
        format!("{} {} {}", K::kind(), hex(inner), hex(last))
    }
    assert_eq!(hex::<u8>(7), "u8 07 07");
    assert_eq!(hex::<u64>(0x0102), "u64 0000000000000102 0000000000000102");
    assert_eq!(hex::<i8>(-1), "i8 7f 7f");
    assert_eq!(hex::<i16>(1), "i16 8001 8001");
    assert_eq!(hex::<i32>(i32::MIN), "i32 00000000 00000000");
    assert_eq!(hex::<bool>(true), "bool 01 01");
    assert_eq!(hex::<char>('é'), "char 000000e9 000000e9");
    assert_eq!(hex::<String>("a\0b"), "string 6100ff620000 610062");
    assert_eq!(hex::<Vec<u8>>(&[0, 255]), "bytes 00ffff0000 00ff");
    assert_eq!(hex::<[u8; 2]>([1, 2]), "[u8; 2] 0102 0102");
    assert_eq!(hex::<Option<u16>>(None), "Option<u16> 00 00");
    assert_eq!(hex::<Option<String>>(Some("a")), "Option<string> 01610000 0161");
    assert_eq!(hex::<Reverse<u16>>(Reverse(1)), "Reverse<u16> fffe fffe");
    assert_eq!(hex::<Reverse<String>>(Reverse("a")), "Reverse<string> 9effff 9effff");
    assert_eq!(hex::<(u8, String)>((7, "a")), "(u8, string) 07610000 0761");
    assert_eq!(
        hex::<(String, i8, bool)>(("a", 0, true)),
        "(string, i8, bool) 6100008001 6100008001"
    );
    let four = hex::<(u8, u8, u8, (u8, u8))>((1, 2, 3, (4, 5)));
    assert_eq!(four, "(u8, u8, u8, (u8, u8)) 0102030405 0102030405");
}
