//! Tests with bytes and values of unlimited nesting or with countless empty elements, on a small
//! stack.

use super::*;

/// Nests through `Option` alone, which in JSON takes no bytes at all.
#[derive(Debug, Serialize, Deserialize)]
struct List(Option<Box<List>>);

#[derive(Debug, Serialize, Deserialize)]
struct Node {
    below: Option<Box<Node>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Tree(Vec<Tree>);

#[derive(Debug, Serialize, Deserialize)]
enum Deep {
    End,
    New(Box<Deep>),
    Tuple(u8, Box<Deep>),
    Named { below: Box<Deep> },
}

/// Takes itself apart without recursing, as dropping it would.
trait Levels: Sized {
    fn around(inside: Option<Self>) -> Self;
    fn inside(&mut self) -> Option<Self>;

    fn nested(levels: u32) -> Self {
        (0..levels).fold(Self::around(None), |inside, _| Self::around(Some(inside)))
    }

    fn dismantle(mut self) -> u32 {
        let mut levels = 0;
        while let Some(inside) = self.inside() {
            self = inside;
            levels += 1;
        }
        levels
    }
}

impl Levels for List {
    fn around(inside: Option<Self>) -> Self {
        Self(inside.map(Box::new))
    }

    fn inside(&mut self) -> Option<Self> {
        self.0.take().map(|inside| *inside)
    }
}

impl Levels for Node {
    fn around(inside: Option<Self>) -> Self {
        Self { below: inside.map(Box::new) }
    }

    fn inside(&mut self) -> Option<Self> {
        self.below.take().map(|inside| *inside)
    }
}

impl Levels for Tree {
    fn around(inside: Option<Self>) -> Self {
        Self(inside.into_iter().collect())
    }

    fn inside(&mut self) -> Option<Self> {
        self.0.pop()
    }
}

/// Nested in the three kinds of variants by turns.
impl Levels for Deep {
    fn around(inside: Option<Self>) -> Self {
        match inside {
            None => Self::End,
            Some(inside @ Self::New(_)) => Self::Tuple(7, Box::new(inside)),
            Some(inside @ Self::Tuple(..)) => Self::Named { below: Box::new(inside) },
            Some(inside) => Self::New(Box::new(inside)),
        }
    }

    fn inside(&mut self) -> Option<Self> {
        match std::mem::replace(self, Self::End) {
            Self::End => None,
            Self::New(below) | Self::Tuple(_, below) | Self::Named { below } => Some(*below),
        }
    }
}

fn on_a_small_stack(run: impl FnOnce() + Send + 'static) {
    #[expect(clippy::disallowed_types, reason = "the size of the stack is the subject of the test")]
    let thread = std::thread::Builder::new().stack_size(STACK);
    thread.spawn(run).unwrap().join().unwrap();
}

fn all_codecs() -> Vec<Codec> {
    vec![
        Codec::Bincode,
        #[cfg(feature = "json")]
        Codec::Json,
    ]
}

/// Returns the maximum depth that encoding accepts. Decoding accepts the same depth, and deeper
/// values are refused when they are set.
fn depth_kept<T: Levels + Serialize + DeserializeOwned + 'static>(codec: Codec) -> u32 {
    let mut kept = 0;
    for levels in 0..300 {
        let value = T::nested(levels);
        match codec.encode(0, &value) {
            Ok(stored) => {
                assert_eq!(kept, levels, "refused at {kept} and set at {levels}");
                assert_eq!(decode::<T>(0, &stored).unwrap().dismantle(), levels);
                kept += 1;
            }
            Err(Error::Encode { why, .. }) => assert_eq!(why, guard::TOO_DEEP, "{levels}"),
            Err(other) => panic!("{other}"),
        }
        value.dismantle();
    }
    let value = T::nested(50_000);
    assert!(codec.encode(0, &value).is_err());
    value.dismantle();
    kept
}

#[test]
fn both_ways_have_one_limit_of_depth() {
    on_a_small_stack(|| {
        assert_eq!(depth_kept::<List>(Codec::Bincode), 127);
        for codec in all_codecs() {
            assert_eq!(depth_kept::<Node>(codec), 63, "{codec}");
            assert_eq!(depth_kept::<Tree>(codec), 126, "{codec}");
            // Of three nested variants, two count as two levels.
            assert_eq!(depth_kept::<Deep>(codec), 77, "{codec}");
        }
    });
}

#[test]
fn fifty_thousand_stored_levels_are_an_error_on_a_small_stack() {
    fn refused<T: DeserializeOwned>(codec: u8, level: &[u8]) {
        let stored = [&[codec][..], &level.repeat(50_000)].concat();
        assert_eq!(why::<T>(&stored), guard::TOO_DEEP, "{}", type_name::<T>());
    }
    on_a_small_stack(|| {
        refused::<List>(1, &[1]);
        refused::<Node>(1, &[1]);
        refused::<Tree>(1, &[1, 0, 0, 0, 0, 0, 0, 0]);
        refused::<Deep>(1, &[1, 0, 0, 0]);
        refused::<Deep>(1, &[2, 0, 0, 0, 7]);
        refused::<Deep>(1, &[3, 0, 0, 0]);
    });
}

#[cfg(feature = "json")]
#[test]
fn fifty_thousand_levels_of_json_are_an_error_on_a_small_stack() {
    fn refused<T: DeserializeOwned>(level: &[u8]) {
        let stored = [b"\x02", &*level.repeat(50_000)].concat();
        assert_eq!(why::<T>(&stored), guard::TOO_DEEP, "{}", type_name::<T>());
    }
    on_a_small_stack(|| {
        // For a `List`, any text other than `null` is a `List` that contains another one.
        refused::<List>(b"1");
        refused::<Node>(br#"{"below":"#);
        refused::<Tree>(b"[");
        refused::<Deep>(br#"{"New":"#);
        refused::<Deep>(br#"{"Tuple":[7,"#);
        refused::<Deep>(br#"{"Named":{"below":"#);
        refused::<serde_json::Value>(b"[");
    });
}

#[test]
fn elements_without_content_are_bounded_both_ways() {
    const MOST: usize = 65_536 + 8;
    assert_eq!(round(Codec::Bincode, &vec![(); MOST]).unwrap().len(), MOST);
    for len in [MOST + 1, usize::MAX] {
        let error = Codec::Bincode.encode(0, &vec![(); len]).map(drop);
        assert!(matches!(error, Err(Error::Encode { why: guard::TOO_MANY, .. })), "{error:?}");
        let stored = [&[1][..], &(len as u64).to_le_bytes()].concat();
        assert_eq!(why::<Vec<()>>(&stored), guard::TOO_MANY);
    }
    // The elements of several short lists count together.
    let lists = vec![vec![(); 60_000]; 2];
    assert!(Codec::Bincode.encode(0, &lists).is_err());
    let mut stored = vec![1];
    for len in [2, 60_000, 60_000_u64] {
        stored.extend_from_slice(&len.to_le_bytes());
    }
    assert_eq!(why::<Vec<Vec<()>>>(&stored), guard::TOO_MANY);
    // Elements with content cannot exceed the number of bytes.
    let long = vec![1_u8; 1_000_000];
    assert_eq!(round(Codec::Bincode, &long).unwrap(), long);
}

const STACK: usize = 256 * 1024;
