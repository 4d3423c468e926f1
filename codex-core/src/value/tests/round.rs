//! Tests with values of generated types: a value is read back equal, or it is refused and the value
//! before it is kept.

use std::fmt::Debug;

use super::*;
use crate::Store;

/// Sets `value` over another one. `sees_all` is true if the encoder recognizes each value of the
/// type that its format cannot represent. If it is false, reading may return an error, but never
/// another value.
fn kept<T>(codec: Codec, sees_all: bool, value: &T) -> Result<(), TestCaseError>
where
    T: Serialize + DeserializeOwned + Debug,
{
    let store = Store::options().codec(codec).in_memory()?;
    store.set("k", &7_u32)?;
    match store.set("k", value) {
        Err(Error::Encode { .. }) => prop_assert_eq!(store.get("k")?, Some(7_u32)),
        Err(other) => prop_assert!(false, "{}", other),
        Ok(()) => match store.get::<T>("k") {
            Ok(back) => prop_assert_eq!(format!("{:?}", back), format!("{:?}", Some(value))),
            Err(error) => prop_assert!(!sees_all, "{} {:?}: {}", codec, value, error),
        },
    }
    Ok(())
}

/// Calls [`kept`] with each codec.
fn kept_in_all<T>(json_sees: bool, bincode_sees: bool, value: &T) -> Result<(), TestCaseError>
where
    T: Serialize + DeserializeOwned + Debug,
{
    kept(Codec::Bincode, bincode_sees, value)?;
    #[cfg(feature = "json")]
    kept(Codec::Json, json_sees, value)?;
    let _ = json_sees;
    Ok(())
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Nothing;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct New<T>(T);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Skips {
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    admin: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit: Option<u8>,
    last: u16,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Flat {
    a: u8,
    #[serde(flatten)]
    rest: BTreeMap<String, Option<u8>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct FlatStruct {
    a: u8,
    #[serde(flatten)]
    inner: Skips,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(clippy::option_option, reason = "it is what is tested")]
enum External {
    Unit,
    New(Option<u8>),
    Empty(()),
    Tuple(u8, f32),
    Named { a: Option<Option<u8>>, b: char },
    Below(Box<External>),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "t", content = "c")]
enum Adjacent {
    Unit,
    New(Option<u8>),
    Tuple(u8, f64),
    Named { a: u8, t: bool },
    Below(Box<Adjacent>),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "t")]
enum Internal {
    Unit,
    Named { a: Option<u8>, b: f64 },
    New(Inner),
    Map(BTreeMap<String, u8>),
    Below(Box<Internal2>),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Inner {
    t: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Internal2 {
    below: Internal,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Flag(bool),
    Number(i64),
    Float(f64),
    Text(String),
    Named { a: u8 },
    Below(Vec<Untagged>),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Name {
    North,
    South,
}

fn external() -> impl Strategy<Value = External> {
    let leaf = prop_oneof![
        Just(External::Unit),
        any::<Option<u8>>().prop_map(External::New),
        Just(External::Empty(())),
        (any::<u8>(), floats()).prop_map(|(a, b)| External::Tuple(a, single(b))),
        (any::<Option<Option<u8>>>(), any::<char>()).prop_map(|(a, b)| External::Named { a, b }),
    ];
    leaf.prop_recursive(160, 160, 1, |below| below.prop_map(|it| External::Below(Box::new(it))))
}

fn adjacent() -> impl Strategy<Value = Adjacent> {
    let leaf = prop_oneof![
        Just(Adjacent::Unit),
        any::<Option<u8>>().prop_map(Adjacent::New),
        (any::<u8>(), floats()).prop_map(|(a, b)| Adjacent::Tuple(a, b)),
        any::<(u8, bool)>().prop_map(|(a, t)| Adjacent::Named { a, t }),
    ];
    leaf.prop_recursive(80, 80, 1, |below| below.prop_map(|it| Adjacent::Below(Box::new(it))))
}

fn internal() -> impl Strategy<Value = Internal> {
    let leaf = prop_oneof![
        Just(Internal::Unit),
        (any::<Option<u8>>(), floats()).prop_map(|(a, b)| Internal::Named { a, b }),
        Just(Internal::New(Inner { t: "x".into() })),
        names().prop_map(Internal::Map),
    ];
    leaf.prop_recursive(90, 90, 1, |below| {
        below.prop_map(|below| Internal::Below(Box::new(Internal2 { below })))
    })
}

fn untagged() -> impl Strategy<Value = Untagged> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Untagged::Flag),
        any::<i64>().prop_map(Untagged::Number),
        floats().prop_map(Untagged::Float),
        any::<String>().prop_map(Untagged::Text),
        any::<u8>().prop_map(|a| Untagged::Named { a }),
    ];
    leaf.prop_recursive(140, 160, 2, |below| {
        proptest::collection::vec(below, 0..3).prop_map(Untagged::Below)
    })
}

/// Maps with few different names, so that they collide with the names of fields and tags.
fn names() -> impl Strategy<Value = BTreeMap<String, u8>> {
    let name = prop_oneof!["a", "b", "t", "1", "limit"];
    proptest::collection::btree_map(name, any::<u8>(), 0..4)
}

/// All kinds of floats, including those that are not numbers.
fn floats() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        any::<f64>(),
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(-0.0),
        Just(3.5)
    ]
}

#[allow(clippy::cast_possible_truncation, reason = "any single will do")]
fn single(float: f64) -> f32 {
    float as f32
}

fn skips() -> impl Strategy<Value = Skips> {
    any::<(bool, Option<u8>, u16)>().prop_map(|(admin, limit, last)| Skips { admin, limit, last })
}

proptest! {
    #![proptest_config(crate::seeded::cases(256))]

    #[test]
    fn options_of_everything(
        option in any::<Option<Option<Option<bool>>>>(),
        unit in any::<Option<()>>(),
        list in any::<Vec<Option<Option<u8>>>>(),
        pair in any::<(Option<()>, Option<Option<String>>)>(),
        map in proptest::collection::btree_map(any::<u8>(), any::<Option<Option<u8>>>(), 0..4),
    ) {
        kept_in_all(true, true, &option)?;
        kept_in_all(true, true, &New(option))?;
        kept_in_all(true, true, &option.map(New))?;
        kept_in_all(true, true, &option.map(Box::new))?;
        kept_in_all(true, true, &unit)?;
        kept_in_all(true, true, &unit.map(|()| Nothing))?;
        kept_in_all(true, true, &list)?;
        kept_in_all(true, true, &pair)?;
        kept_in_all(true, true, &map)?;
    }

    #[test]
    fn numbers_and_texts(
        float in floats(),
        texts in any::<(char, String, i128, u128)>(),
        list in proptest::collection::vec(floats(), 0..4),
    ) {
        kept_in_all(true, true, &float)?;
        kept_in_all(true, true, &single(float))?;
        kept_in_all(true, true, &Some(float))?;
        kept_in_all(true, true, &(single(float), float))?;
        kept_in_all(true, true, &list)?;
        kept_in_all(true, true, &texts)?;
    }

    #[test]
    fn maps_with_keys_of_every_type(
        scalars in proptest::collection::btree_map(any::<(bool, char)>(), any::<u8>(), 0..4),
        wide in proptest::collection::btree_map(any::<i128>(), any::<u8>(), 0..4),
        small in proptest::collection::btree_map(any::<Option<u8>>(), any::<u8>(), 0..4),
        lists in proptest::collection::btree_map(any::<Vec<u8>>(), any::<u8>(), 0..4),
        texts in proptest::collection::btree_map(any::<String>(), any::<()>(), 0..4),
    ) {
        let flags: BTreeMap<bool, u8> = scalars.iter().map(|((flag, _), v)| (*flag, *v)).collect();
        let chars: BTreeMap<char, u8> = scalars.iter().map(|((_, char), v)| (*char, *v)).collect();
        let named = |flag| if flag { Name::North } else { Name::South };
        let names: BTreeMap<Name, u8> = flags.iter().map(|(flag, v)| (named(*flag), *v)).collect();
        kept_in_all(true, true, &scalars)?;
        kept_in_all(true, true, &flags)?;
        kept_in_all(true, true, &chars)?;
        kept_in_all(true, true, &names)?;
        kept_in_all(true, true, &wide)?;
        kept_in_all(true, true, &small)?;
        kept_in_all(true, true, &lists)?;
        kept_in_all(true, true, &texts)?;
    }

    #[test]
    fn structs_that_skip_and_flatten(skips in skips(), a in any::<u8>(), names in names()) {
        kept_in_all(true, true, &skips)?;
        kept_in_all(true, true, &vec![skips.clone(); 2])?;
        kept_in_all(true, true, &Some(skips.clone()))?;
        kept_in_all(true, true, &FlatStruct { a, inner: skips })?;
        let rest = names.into_iter().map(|(name, n)| (name, (n > 9).then_some(n))).collect();
        kept_in_all(true, true, &Flat { a, rest })?;
    }

    #[test]
    fn enums_of_every_representation(
        external in external(),
        adjacent in adjacent(),
        internal in internal(),
        untagged in untagged(),
    ) {
        kept_in_all(true, true, &external)?;
        kept_in_all(true, true, &vec![external])?;
        kept_in_all(true, true, &adjacent)?;
        kept_in_all(true, false, &internal)?;
        kept_in_all(true, false, &untagged)?;
        kept_in_all(true, false, &vec![untagged])?;
    }
}
