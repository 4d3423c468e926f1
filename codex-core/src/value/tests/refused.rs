//! Tests of values that an encoder recognizes and its format cannot represent. Each is refused,
//! with the reason.

use serde::ser::{SerializeMap, SerializeSeq, SerializeStruct, SerializeTuple};

use super::*;

#[track_caller]
fn refusal<T: Serialize + ?Sized>(codec: Codec, value: &T) -> &'static str {
    match codec.encode(0, value) {
        Err(Error::Encode { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_refused<T: Serialize + ?Sized>(codec: Codec, value: &T, about: &str) {
    let why = refusal(codec, value);
    assert!(why.contains(about), "{why}");
}

#[derive(Serialize, Deserialize)]
struct Settings {
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    admin: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit: Option<u8>,
}

#[derive(Serialize)]
enum Variant {
    Named {
        #[serde(skip_serializing_if = "Option::is_none")]
        limit: Option<u8>,
        last: u8,
    },
}

#[derive(Serialize)]
#[serde(untagged)]
enum Any {
    Number(u64),
    Text(&'static str),
}

/// Runs `self.0` as a `Serialize` implementation.
struct By<F>(F);

impl<F: Fn(&mut Parts)> Serialize for By<F> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut parts = Parts::default();
        (self.0)(&mut parts);
        let Parts { kind, declared, written } = parts;
        match kind {
            "seq" => {
                let mut seq = serializer.serialize_seq(declared)?;
                (0..written).try_for_each(|_| seq.serialize_element(&1_u8))?;
                seq.end()
            }
            "tuple" => {
                let mut tuple = serializer.serialize_tuple(declared.unwrap())?;
                (0..written).try_for_each(|_| tuple.serialize_element(&1_u8))?;
                tuple.end()
            }
            "map" => {
                let mut map = serializer.serialize_map(declared)?;
                (0..written).try_for_each(|key| map.serialize_entry(&key, &1_u8))?;
                map.end()
            }
            "struct" => {
                let mut fields = serializer.serialize_struct("By", declared.unwrap())?;
                for name in ["a", "b", "c", "d"].into_iter().take(written) {
                    fields.serialize_field(name, &1_u8)?;
                }
                fields.end()
            }
            "keys" => {
                let mut map = serializer.serialize_map(declared)?;
                map.serialize_key(&1_u8)?;
                map.end()
            }
            "values" => {
                let mut map = serializer.serialize_map(declared)?;
                map.serialize_value(&1_u8)?;
                map.end()
            }
            "text" => serializer.collect_str(&Failing),
            _ => serializer.serialize_struct(kind, 1)?.end(),
        }
    }
}

#[derive(Default)]
struct Parts {
    kind: &'static str,
    declared: Option<usize>,
    written: usize,
}

struct Failing;

impl fmt::Display for Failing {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Err(fmt::Error)
    }
}

fn by(kind: &'static str, declared: Option<usize>, written: usize) -> impl Serialize {
    By(move |parts: &mut Parts| *parts = Parts { kind, declared, written })
}

#[test]
fn bincode_refuses_a_skipped_field_and_keeps_what_skips_none() {
    let bincode = Codec::Bincode;
    assert_refused(bincode, &Settings { admin: false, limit: Some(0) }, "skip_serializing_if");
    assert_refused(bincode, &Variant::Named { limit: None, last: 1 }, "skip_serializing_if");
    let whole = round(bincode, &Settings { admin: true, limit: Some(0) }).unwrap();
    assert_eq!((whole.admin, whole.limit), (true, Some(0)));
}

#[test]
fn bincode_refuses_lengths_that_are_not_kept_or_not_known() {
    for kind in ["seq", "tuple", "map", "struct"] {
        for (declared, written) in [(0, 1), (1, 0), (2, 1), (2, 3)] {
            let value = by(kind, Some(declared), written);
            assert_refused(Codec::Bincode, &value, "another number of parts");
        }
        assert!(Codec::Bincode.encode(0, &by(kind, Some(3), 3)).is_ok());
    }
    for kind in ["seq", "map"] {
        assert_refused(Codec::Bincode, &by(kind, None, 2), "does not know its length");
    }
    for kind in ["keys", "values"] {
        assert_refused(Codec::Bincode, &by(kind, Some(1), 0), "another number of parts");
    }
}

#[test]
fn bincode_refuses_elements_of_different_types() {
    let about = "different types";
    let mixed = [Any::Number(1), Any::Text("x")];
    assert_refused(Codec::Bincode, &mixed[..], about);
    let map = BTreeMap::from([("a", &mixed[0]), ("b", &mixed[1])]);
    assert_refused(Codec::Bincode, &map, about);
    let keys = BTreeMap::from([(true, 1), (false, 2)]);
    assert!(Codec::Bincode.encode(0, &keys).is_ok());
    let ok = vec![Ok(1_u8), Err(String::new())];
    assert_eq!(round(Codec::Bincode, &ok).unwrap(), ok);
    let some = vec![Some(1_u8), None];
    assert_eq!(round(Codec::Bincode, &some).unwrap(), some);
}

#[test]
fn bincode_refuses_an_enum_with_tag_and_content() {
    #[derive(Serialize)]
    #[serde(tag = "kind", content = "of")]
    enum Kind {
        Unit,
        New(u8),
        Tuple(u8, u8),
        Named { a: u8 },
    }
    for kind in [Kind::Unit, Kind::New(1), Kind::Tuple(1, 2), Kind::Named { a: 1 }] {
        assert_refused(Codec::Bincode, &kind, "`tag` and `content`");
        assert_refused(Codec::Bincode, &Some((1_u8, kind)), "`tag` and `content`");
    }
}

#[test]
fn a_text_that_fails_and_a_type_of_another_format_are_errors() {
    for codec in [Codec::Bincode, Codec::default()] {
        assert_refused(codec, &by("text", None, 0), "failed to become text");
    }
    let value = by("$serde_json::private::Number", None, 0);
    assert_refused(Codec::Bincode, &value, "only its own format");
}

/// The encoder cannot recognize these values. Reading them returns an error with the next step, and
/// never another value.
#[test]
fn a_lone_value_of_a_type_that_asks_the_data_is_an_error_when_read() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        Number(u64),
        Text(String),
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "kind")]
    enum Tagged {
        One { number: u64 },
        None,
    }
    let stored = Codec::Bincode.encode(0, &Untagged::Number(1)).unwrap();
    assert!(why::<Untagged>(&stored).contains("Codec::Json"));
    for value in [Tagged::One { number: 1 }, Tagged::None] {
        let stored = Codec::Bincode.encode(0, &value).unwrap();
        assert!(why::<Tagged>(&stored).contains("Codec::Json"));
    }
    // An update also decodes the value, so it recognizes them.
    let store = crate::Store::in_memory().unwrap();
    let error = store.update("k", |_: Option<Untagged>| Some(Untagged::Number(1))).unwrap_err();
    assert!(matches!(error, Error::Encode { .. }), "{error}");
    assert!(error.to_string().contains("Codec::Json") && !store.contains_key("k"), "{error}");
}

#[cfg(feature = "json")]
#[test]
fn json_refuses_a_some_that_would_read_as_none() {
    #[derive(Serialize)]
    struct Around(Option<u8>);
    let about = "as `None`";
    assert_refused(Codec::Json, &Some(None::<u8>), about);
    assert_refused(Codec::Json, &Some(Some(None::<u8>)), about);
    assert_refused(Codec::Json, &Some(()), about);
    assert_refused(Codec::Json, &Some(Unit), about);
    assert_refused(Codec::Json, &Some(std::marker::PhantomData::<u8>), about);
    assert_refused(Codec::Json, &Some(Around(None)), about);
    assert_refused(Codec::Json, &Some(Box::new(None::<u8>)), about);
    assert_refused(Codec::Json, &Some(serde_json::Value::Null), about);
    assert_refused(Codec::Json, &BTreeMap::from([("a", Some(()))]), about);
    assert_eq!(round(Codec::Json, &Some(Some(3))).unwrap(), Some(Some(3)));
    assert_eq!(round(Codec::Json, &Some([None::<u8>])).unwrap(), Some([None]));
    assert_eq!(round(Codec::Json, &Some("null".to_owned())).unwrap(), Some("null".to_owned()));
}

#[cfg(feature = "json")]
#[test]
fn json_refuses_numbers_that_it_cannot_say() {
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_refused(Codec::Json, &value, "NaN");
        assert_refused(Codec::Json, &[Some(value)], "NaN");
        #[allow(clippy::cast_possible_truncation, reason = "NaN and infinities stay what they are")]
        let single = value as f32;
        assert_refused(Codec::Json, &single, "NaN");
    }
}

#[cfg(feature = "json")]
#[test]
fn json_refuses_an_object_with_one_name_twice() {
    #[derive(Serialize)]
    struct Flat {
        a: u8,
        #[serde(flatten)]
        rest: BTreeMap<&'static str, u8>,
    }
    #[derive(Serialize)]
    struct Inner {
        kind: u8,
    }
    #[derive(Serialize)]
    #[serde(tag = "kind")]
    enum Tagged {
        Struct(Inner),
        Map(BTreeMap<&'static str, u8>),
    }
    #[derive(Serialize, PartialEq, Eq, PartialOrd, Ord)]
    #[serde(untagged)]
    enum Key {
        Number(u8),
        Text(&'static str),
    }
    let twice = "one name twice";
    assert_refused(Codec::Json, &Flat { a: 1, rest: BTreeMap::from([("a", 2)]) }, twice);
    assert_refused(Codec::Json, &Tagged::Struct(Inner { kind: 1 }), twice);
    assert_refused(Codec::Json, &Tagged::Map(BTreeMap::from([("kind", 2)])), twice);
    let keys = BTreeMap::from([(Key::Number(1), 1), (Key::Text("1"), 2)]);
    assert_refused(Codec::Json, &keys, twice);
    assert!(Codec::Json.encode(0, &Flat { a: 1, rest: BTreeMap::from([("b", 2)]) }).is_ok());
    assert!(Codec::Json.encode(0, &Tagged::Map(BTreeMap::from([("b", 2)]))).is_ok());
}

#[cfg(feature = "json")]
#[test]
fn json_refuses_what_would_not_be_json() {
    for kind in ["seq", "map", "struct"] {
        assert_refused(Codec::Json, &by(kind, Some(0), 1), "another number of parts");
    }
    for kind in ["keys", "values"] {
        assert_refused(Codec::Json, &by(kind, Some(1), 0), "another number of parts");
    }
    assert_refused(Codec::Json, &by("text", None, 0), "failed to become text");
    assert_refused(Codec::Json, &BTreeMap::from([(vec![1], 1)]), "JSON cannot represent it");
    assert_refused(Codec::Json, &BTreeMap::from([(None::<u8>, 1)]), "JSON cannot represent it");
}
