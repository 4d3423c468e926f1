//! Tests of the bytes of values: known bytes, and values that are written and read back.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;

mod hostile;
mod refused;
mod round;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Account {
    name: String,
    cents: i64,
    tags: Vec<String>,
    note: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Shape {
    Empty,
    Circle(f64),
    Rect { w: u16, h: u16 },
    Nested(Box<Shape>),
}

#[derive(Serialize)]
struct Unit;

#[derive(Serialize)]
struct Meters(f32);

fn bincode_hex<T: Serialize>(value: &T) -> String {
    let stored = Codec::Bincode.encode(0, value).unwrap();
    let (codec, payload) = stored.split_first().unwrap();
    assert_eq!(*codec, 1);
    payload.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

fn round<T: Serialize + DeserializeOwned>(codec: Codec, value: &T) -> Result<T> {
    decode(0, &codec.encode(0, value).unwrap())
}

fn why<T: DeserializeOwned>(stored: &[u8]) -> &'static str {
    match decode::<T>(3, stored).map(|_| ()) {
        Err(Error::Decode { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

/// bincode 1.3.3 itself printed the hex (`bincode::serialize`).
#[test]
fn bincode_writes_the_bytes_of_version_1_3_3() {
    let deep = Shape::Nested(Box::new(Shape::Nested(Box::new(Shape::Circle(-1.0)))));
    let account = Account { name: "Ada".into(), cents: -250, tags: vec!["vip".into()], note: None };
    let vectors = [
        (bincode_hex(&true), "01"),
        (bincode_hex(&7_u8), "07"),
        (bincode_hex(&-2_i16), "feff"),
        (bincode_hex(&0xdead_beef_u32), "efbeadde"),
        (bincode_hex(&i64::MIN), "0000000000000080"),
        (bincode_hex(&u128::MAX), "ffffffffffffffffffffffffffffffff"),
        (bincode_hex(&-5_i128), "fbffffffffffffffffffffffffffffff"),
        (bincode_hex(&1.5_f32), "0000c03f"),
        (bincode_hex(&-0.0_f64), "0000000000000080"),
        (bincode_hex(&f64::from_bits(0x7ff8_0000_0000_0001)), "010000000000f87f"),
        (bincode_hex(&'é'), "c3a9"),
        (bincode_hex(&'🦀'), "f09fa680"),
        (bincode_hex(&"grüße"), "07000000000000006772c3bcc39f65"),
        (bincode_hex(&()), ""),
        (bincode_hex(&Unit), ""),
        (bincode_hex(&Meters(2.0)), "00000040"),
        (bincode_hex(&None::<u8>), "00"),
        (bincode_hex(&Some(3_u16)), "010300"),
        (bincode_hex(&Some(None::<u8>)), "0100"),
        (bincode_hex(&(1_u8, 2_u16, 3_u32)), "01020003000000"),
        (bincode_hex(&[1_u16, 2, 3]), "010002000300"),
        (bincode_hex(&vec![1_u32, 2]), "02000000000000000100000002000000"),
        (
            bincode_hex(&BTreeMap::from([("a", 1_u8), ("b", 2)])),
            "02000000000000000100000000000000610101000000000000006202",
        ),
        (
            bincode_hex(&account),
            "030000000000000041646106ffffffffffffff0100000000000000030000000000000076697000",
        ),
        (bincode_hex(&Shape::Empty), "00000000"),
        (bincode_hex(&Shape::Circle(1.0)), "01000000000000000000f03f"),
        (bincode_hex(&Shape::Rect { w: 3, h: 4 }), "0200000003000400"),
        (bincode_hex(&deep), "030000000300000001000000000000000000f0bf"),
        (bincode_hex(&Ok::<u8, String>(1)), "0000000001"),
        (bincode_hex(&Err::<u8, String>("x".into())), "01000000010000000000000078"),
    ];
    for (index, (ours, theirs)) in vectors.iter().enumerate() {
        assert_eq!(ours, theirs, "vector {index}");
    }
}

#[test]
fn a_struct_that_gained_or_lost_a_field_is_an_error_that_names_the_type() {
    #[derive(Debug, Serialize, Deserialize)]
    struct Grown {
        name: String,
        cents: i64,
        tags: Vec<String>,
        note: Option<String>,
        since: u64,
    }
    let account = Account { name: "Ada".into(), cents: 1, tags: vec![], note: None };
    let stored = Codec::Bincode.encode(3, &account).unwrap();
    let error = decode::<Grown>(3, &stored).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("Grown") && text.contains("end too early"), "{text}");
    assert!(text.contains("3 bytes") && !text.contains("Ada"), "{text}");

    let grown = Grown { name: String::new(), cents: 1, tags: vec![], note: None, since: 7 };
    let stored = Codec::Bincode.encode(3, &grown).unwrap();
    assert_eq!(why::<Account>(&stored), "bytes are left over after it");
}

#[test]
fn every_prefix_and_every_extension_of_a_bincode_value_is_an_error() {
    let value = (7_u64, "text".to_owned(), Some(vec![1_u16, 2]));
    let stored = Codec::Bincode.encode(0, &value).unwrap();
    for len in 1..stored.len() {
        let error = decode::<(u64, String, Option<Vec<u16>>)>(0, &stored[..len]).unwrap_err();
        assert!(matches!(error, Error::Decode { .. }), "{len}: {error}");
    }
    let longer = [&*stored, &[0]].concat();
    assert_eq!(why::<(u64, String, Option<Vec<u16>>)>(&longer), "bytes are left over after it");
}

#[test]
fn a_lying_length_is_an_error_and_allocates_little() {
    let mut stored = vec![1_u8];
    stored.extend_from_slice(&u64::MAX.to_le_bytes());
    assert_eq!(why::<String>(&stored), "the bytes end too early");
    assert_eq!(why::<Vec<u64>>(&stored), guard::TOO_MANY);
    let mut stored = vec![1_u8];
    stored.extend_from_slice(&60_000_u64.to_le_bytes());
    assert_eq!(why::<Vec<u64>>(&stored), "the bytes end too early");
}

#[test]
fn raw_bytes_do_not_decode_as_a_type() {
    for stored in [&[RAW][..], &[RAW, 1, 2, 3], &[]] {
        let error = decode::<u32>(5, stored).unwrap_err();
        assert!(matches!(error, Error::RawValue { type_name: "u32", key_len: 5 }), "{error}");
    }
}

#[test]
fn a_codec_of_a_newer_build_is_named_by_its_number() {
    let error = decode::<u32>(5, &[9, 1, 2, 3, 4]).unwrap_err();
    assert!(matches!(error, Error::UnknownCodec { codec_id: 9, .. }), "{error}");
    assert!(error.to_string().contains("codec 9"), "{error}");
}

#[test]
fn a_refusing_serialize_is_an_error_that_does_not_quote_it() {
    struct Refusing;
    impl Serialize for Refusing {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("the PIN is 1234"))
        }
    }
    let error = Codec::Bincode.encode(1, &Refusing).unwrap_err();
    assert!(matches!(error, Error::Encode { .. }), "{error}");
    assert!(!format!("{error} {error:?}").contains("1234"), "{error:?}");
}

#[cfg(feature = "json")]
#[test]
fn json_errors_do_not_quote_the_value() {
    let stored = Codec::Json.encode(1, "the PIN is 1234").unwrap();
    let error = decode::<u64>(1, &stored).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("1234"), "{error:?}");
    assert_eq!(why::<u64>(&[2, b'1', b'x']), "the text is not JSON");
    assert_eq!(why::<(u8, u8)>(&[2, b'[', b'1']), "the text ends too early");
}

#[cfg(feature = "json")]
#[test]
fn json_lets_a_struct_gain_an_optional_field() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Grown {
        name: String,
        #[serde(default)]
        since: u64,
    }
    let account = Account { name: "Ada".into(), cents: 1, tags: vec![], note: None };
    let stored = Codec::Json.encode(3, &account).unwrap();
    let grown: Grown = decode(3, &stored).unwrap();
    assert_eq!(grown, Grown { name: "Ada".into(), since: 0 });
}

fn shapes() -> impl Strategy<Value = Shape> {
    let leaf = prop_oneof![
        Just(Shape::Empty),
        any::<f64>().prop_map(Shape::Circle),
        any::<(u16, u16)>().prop_map(|(w, h)| Shape::Rect { w, h }),
    ];
    leaf.prop_recursive(8, 8, 1, |inner| inner.prop_map(|inner| Shape::Nested(Box::new(inner))))
}

fn codecs() -> impl Strategy<Value = Codec> {
    #[cfg(feature = "json")]
    return prop_oneof![Just(Codec::Bincode), Just(Codec::Json)];
    #[cfg(not(feature = "json"))]
    Just(Codec::Bincode)
}

proptest! {
    #![proptest_config(crate::seeded::cases(256))]

    #[test]
    fn values_come_back_as_they_went(
        codec in codecs(),
        numbers in any::<(u8, i16, u32, i64, u128, i128, char, bool)>(),
        text in any::<String>(),
        nested in any::<Option<Result<Vec<Option<u16>>, String>>>(),
        map in proptest::collection::btree_map(any::<u64>(), any::<String>(), 0..8),
        shape in shapes(),
    ) {
        prop_assert_eq!(round(codec, &numbers)?, numbers);
        prop_assert_eq!(&round(codec, &text)?, &text);
        prop_assert_eq!(&round(codec, &nested)?, &nested);
        prop_assert_eq!(&round(codec, &map)?, &map);
        prop_assert_eq!(&round(codec, &shape)?, &shape);
    }

    #[test]
    fn floats_keep_every_bit(bits in any::<u64>(), codec in codecs()) {
        let float = f64::from_bits(bits);
        prop_assert_eq!(round(Codec::Bincode, &float)?.to_bits(), bits);
        prop_assert_eq!(round(Codec::Bincode, &-0.0_f64)?.to_bits(), (-0.0_f64).to_bits());
        if float.is_finite() {
            prop_assert_eq!(round(codec, &float)?.to_bits(), bits);
        }
    }

    #[test]
    fn arbitrary_bytes_decode_or_give_a_typed_error(bytes in any::<Vec<u8>>()) {
        let ok = |error: Error| matches!(
            error,
            Error::Decode { .. } | Error::RawValue { .. } | Error::UnknownCodec { .. }
        );
        prop_assert!(decode::<Account>(0, &bytes).map_or_else(ok, |_| true));
        prop_assert!(decode::<Shape>(0, &bytes).map_or_else(ok, |_| true));
        prop_assert!(decode::<BTreeMap<u16, Vec<String>>>(0, &bytes).map_or_else(ok, |_| true));
    }
}

#[test]
fn a_big_text_comes_back() {
    for len in [0xFFE, 0xFFF, 0x1000, 0xFFFF, 0x1_0000, 0x10_0000, 0x11_0000] {
        let text = "ß".repeat(len / 2);
        assert_eq!(round(Codec::Bincode, &text).unwrap(), text, "{len}");
    }
}
