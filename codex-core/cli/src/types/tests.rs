//! Each type against the bytes that the library stores for it.

use std::collections::BTreeMap;

use codex_core::{Codec, Store};
use serde::Serialize;

use super::{Type, guess};

/// Returns the bytes that the library stores for `value`.
fn stored<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let store = Store::options().codec(Codec::Bincode).in_memory().unwrap();
    store.set("a", value).unwrap();
    store.get_bytes("a").unwrap().to_vec()
}

#[derive(Serialize)]
enum Door {
    Open,
    Shut(u64),
    Moved { by: String, to: (i8, char) },
    Both(u8, bool),
}

#[derive(Serialize)]
struct User {
    name: String,
    stars: u32,
    doors: Vec<Door>,
}

const DOOR: &str = "enum {Open, Shut(u64), Moved{by: str, to: (i8, char)}, Both(u8, bool)}";

/// Checks that `value` is read as the JSON of serde, and written from it to the same bytes.
#[track_caller]
fn agrees<T: Serialize + ?Sized>(of: &str, value: &T) {
    let parsed: Type = of.parse().unwrap();
    let bytes = stored(value);
    let json = serde_json::to_string(value).unwrap();
    assert_eq!(parsed.read(&bytes).as_deref(), Ok(&*json), "{of}");
    assert_eq!(parsed.write(&json), Ok(bytes), "{of}");
    // A type that is printed can be typed.
    assert_eq!(parsed.to_string().parse(), Ok(parsed), "{of}");
}

#[test]
fn each_type_agrees_with_the_library() {
    agrees("()", &());
    agrees("bool", &true);
    agrees("u8", &200_u8);
    agrees("i16", &-2_i16);
    agrees("u64", &u64::MAX);
    agrees("i128", &i128::MIN);
    agrees("u128", &u128::MAX);
    agrees("f32", &0.1_f32);
    agrees("f64", &-1.5e-7_f64);
    agrees("char", &'€');
    agrees("str", "a \"text\" \n\u{9b}");
    agrees("Option<str>", &Some("a"));
    agrees("Option<str>", &None::<String>);
    agrees("[u16]", &vec![1_u16, 2]);
    agrees("[u8; 3]", &[1_u8, 2, 3]);
    agrees("(u8, str)", &(1_u8, "a"));
    agrees("(u8,)", &(1_u8,));
    agrees("Map<i32, bool>", &BTreeMap::from([(-1, true), (7, false)]));
    agrees("Map<bool, u8>", &BTreeMap::from([(false, 1_u8)]));
    agrees("Map<str, [u8]>", &BTreeMap::from([("a", vec![1_u8])]));
    let doors = || {
        let to = (-1, 'ü');
        vec![Door::Open, Door::Shut(7), Door::Moved { by: "Ada".into(), to }, Door::Both(1, true)]
    };
    agrees(&format!("Vec<{DOOR}>"), &doors());
    let user = User { name: "Bob".to_owned(), stars: 3, doors: doors() };
    agrees(&format!("{{name: String, stars: u32, doors: [{DOOR}],}}"), &user);
}

#[test]
fn maps_without_names_are_pairs_and_bytes_are_hex_digits() {
    let of: Type = "Map<(u8, u8), bool>".parse().unwrap();
    let bytes = stored(&BTreeMap::from([((1_u8, 2_u8), true)]));
    assert_eq!(of.read(&bytes).as_deref(), Ok("[[[1,2],true]]"));
    assert_eq!(of.write("[[[1,2],true]]"), Ok(bytes));
    let of: Type = "bytes".parse().unwrap();
    assert_eq!(of.read(&stored(&[0_u8, 255][..])).as_deref(), Ok("\"00ff\""));
    assert_eq!(of.write("\"00ff\""), Ok(stored(&[0_u8, 255][..])));
    let of: Type = "f64".parse().unwrap();
    for (value, json) in [(f64::INFINITY, "\"inf\""), (f64::NEG_INFINITY, "\"-inf\"")] {
        assert_eq!(of.read(&stored(&value)).as_deref(), Ok(json));
        assert_eq!(of.write(json), Ok(stored(&value)));
    }
}

#[test]
fn a_value_of_another_type_is_refused_with_the_place() {
    let read = |of: &str, bytes: &[u8]| of.parse::<Type>().unwrap().read(bytes).unwrap_err();
    assert!(read("u32", &[1, 2]).contains("ends too early at byte 0 of 2"));
    assert!(read("u8", &[1, 2]).contains("1 of 2 bytes are left over"));
    assert!(read("(u8, bool)", &[1, 2]).contains("neither 0 nor 1"));
    assert!(read("str", &[9, 0, 0, 0, 0, 0, 0, 0, 1]).contains("length of 9 at byte 0"));
    assert!(read("[()]", &[0xff; 8]).contains("a length of"));
    assert!(read("enum {A}", &[1, 0, 0, 0]).contains("no variant 1"));
    assert!(read("str", &[1, 0, 0, 0, 0, 0, 0, 0, 0xff]).contains("not UTF-8"));
    let write = |of: &str, json: &str| of.parse::<Type>().unwrap().write(json).unwrap_err();
    assert!(write("u8", "256").contains("`256` is no u8"));
    assert!(write("i8", "-129").contains("is no i8"));
    assert!(write("u64", "1.5").contains("is no u64"));
    assert!(write("u64", "\"1\"").contains("is no u64"));
    assert!(write("{a: u8}", "{\"a\":1,\"b\":2}").contains("no field `b`"));
    assert!(write("{a: u8}", "{}").contains("`a` is missing"));
    assert!(write("[u8; 2]", "[1]").contains("is no [u8; 2]"));
    assert!(write("enum {A, B(u8)}", "{\"A\":1}").contains("is no enum"));
    assert!(write("enum {A, B(u8)}", "\"B\"").contains("is no enum"));
}

#[test]
fn a_type_that_is_mistyped_is_refused_with_the_place() {
    let refused = |of: &str| of.parse::<Type>().unwrap_err();
    assert!(refused("u7").starts_with("a type is expected at byte 0; types are such as `u64`"));
    assert!(refused("[u8").starts_with("] is expected at byte 3"));
    assert!(refused("{a u8}").starts_with(": is expected at byte 3"));
    assert!(refused("u8 u8").starts_with("the end is expected at byte 3"));
    assert!(refused("[u8; x]").starts_with("a number is expected at byte 5"));
    assert!(refused(&"[".repeat(100_000)).starts_with("a type with fewer levels"));
}

/// Returns the guess at the type of `value`.
fn guessed<T: Serialize + ?Sized>(value: &T) -> String {
    guess(&stored(value)).map_or("none".to_owned(), |of| of.to_string())
}

#[test]
fn common_values_are_guessed() {
    assert_eq!(guessed(""), "u64");
    assert_eq!(guessed("Ada"), "str");
    assert_eq!(guessed(&"long ".repeat(10_000)), "str");
    assert_eq!(guessed(&7_u16), "u16");
    assert_eq!(guessed(&7_u32), "u32");
    assert_eq!(guessed(&1_795_671_022_000_001_u64), "u64");
    assert_eq!(guessed(&-5_i64), "i64");
    assert_eq!(guessed(&0.1_f64), "f64");
    assert_eq!(guessed(&(1.0_f64 / 3.0)), "f64");
    assert_eq!(guessed(&1.5_f32), "f32");
    assert_eq!(guessed(&true), "bool");
    assert_eq!(guessed(&()), "()");
    assert_eq!(guessed(&("Ada", 5_u32)), "(str, u32)");
    assert_eq!(guessed(&(1_u64, "Ada", 2.5, "a text", true)), "(u64, str, f64, str, bool)");
    assert_eq!(guessed(&(Some("Ada"), 7_u64)), "(Option<str>, u64)");
    assert_eq!(guessed(&vec!["Ada", "Bob", "Eve"]), "[str]");
    assert_eq!(guessed(&vec![1_u64, 2, 3]), "[u64]");
    assert_eq!(guessed(&vec![1.5_f64, 2.25, 3.0]), "[f64]");
    let id = [0xd1_u8, 0x8f, 0xe3, 0xe7, 0xb1, 0x99, 0xc4, 0xf2, 0xa8, 0x8d, 0xee, 0x97];
    assert_eq!(guessed(&id[..]), "bytes");
    assert_eq!(guessed(&BTreeMap::from([("a", 1_u32), ("b", 2)])), "Map<str, u32>");
}

#[test]
fn random_bytes_have_no_type_and_each_guess_reads_its_bytes() {
    let mut state = 7_u64;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_le_bytes()[7]
    };
    let random: Vec<u8> = (0..64).map(|_| next()).collect();
    assert_eq!(guess(&random), None);
    assert_eq!(guess(&vec![0xff; 100_000]), None);
    for len in 0..200_usize {
        // Bytes of which many are zero, so that there are lengths and texts.
        let bytes: Vec<u8> =
            (0..len).map(|_| if next() < 160 { 0 } else { next() % 100 }).collect();
        if let Some(of) = guess(&bytes) {
            assert!(of.read(&bytes).is_ok(), "{of}: {bytes:?}");
        }
    }
}
