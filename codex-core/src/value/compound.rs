//! The checks of values with parts: sequences, tuples, maps and structs.

use std::cell::Cell;

use serde::ser::{self, Serialize};

use super::write::{At, Shape};

/// The checks of a sequence.
pub(super) struct Elements<'a, C, const NAMED: bool> {
    inner: C,
    at: At<'a>,
    declared: Option<usize>,
    written: usize,
    alike: Cell<Shape>,
}

/// The checks of a tuple or a struct, or of an enum variant with such content.
pub(super) struct Fields<'a, C, const NAMED: bool> {
    inner: C,
    at: At<'a>,
    declared: usize,
    written: usize,
    /// The name of the first field. In an internally tagged enum it is the tag.
    first: Option<&'static str>,
    /// The shape that the first field must not have, or 0 if it may have any.
    not_first: Shape,
}

/// The checks of a map.
pub(super) struct Pairs<'a, C, const NAMED: bool> {
    inner: C,
    at: At<'a>,
    declared: Option<usize>,
    keys: usize,
    values: usize,
    keys_alike: Cell<Shape>,
    values_alike: Cell<Shape>,
    #[cfg(feature = "json")]
    names: Names,
}

impl<'a, C, const NAMED: bool> Elements<'a, C, NAMED> {
    #[inline]
    pub(super) fn new(inner: C, at: At<'a>, declared: Option<usize>) -> Self {
        Self { inner, at, declared, written: 0, alike: Cell::new(0) }
    }
}

impl<'a, C, const NAMED: bool> Fields<'a, C, NAMED> {
    #[inline]
    pub(super) fn new(inner: C, at: At<'a>, declared: usize) -> Self {
        Self { inner, at, declared, written: 0, first: None, not_first: 0 }
    }

    /// Refuses a first field with the shape `shape`.
    #[inline]
    pub(super) fn not_first(self, shape: Shape) -> Self {
        Self { not_first: shape, ..self }
    }

    /// Counts a field. In JSON, refuses a field with the name of the first, which may be a tag.
    #[inline]
    fn named<E: ser::Error>(&mut self, name: &'static str) -> Result<(), E> {
        self.written += 1;
        if NAMED {
            match self.first {
                None => self.first = Some(name),
                Some(first) if first == name => return Err(self.at.refuse(SAME_NAME)),
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Refuses to skip a field in bincode. The decoder of bincode reads each field of the type, so
    /// it would read a skipped field from the bytes of the next one.
    fn skipped<E: ser::Error>(&self) -> Result<(), E> {
        if NAMED { Ok(()) } else { Err(self.at.refuse(SKIPPED)) }
    }

    #[inline]
    fn check_len<E: ser::Error>(&self) -> Result<(), E> {
        check_len::<E, NAMED>(self.at, Some(self.declared), self.written)
    }
}

impl<'a, C, const NAMED: bool> Pairs<'a, C, NAMED> {
    #[inline]
    pub(super) fn new(inner: C, at: At<'a>, declared: Option<usize>) -> Self {
        Self {
            inner,
            at,
            declared,
            keys: 0,
            values: 0,
            keys_alike: Cell::new(0),
            values_alike: Cell::new(0),
            #[cfg(feature = "json")]
            names: Names::with_capacity(if NAMED { declared } else { None }),
        }
    }
}

impl<C: ser::SerializeSeq, const NAMED: bool> ser::SerializeSeq for Elements<'_, C, NAMED> {
    type Ok = C::Ok;
    type Error = C::Error;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        self.written += 1;
        let at = self.at.among::<NAMED>(&self.alike);
        self.inner.serialize_element(&at.part::<_, NAMED>(value))
    }

    #[inline]
    fn end(self) -> Result<C::Ok, C::Error> {
        check_len::<C::Error, NAMED>(self.at, self.declared, self.written)?;
        self.inner.end()
    }
}

impl<C: ser::SerializeMap, const NAMED: bool> ser::SerializeMap for Pairs<'_, C, NAMED> {
    type Ok = C::Ok;
    type Error = C::Error;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), C::Error> {
        self.keys += 1;
        #[cfg(feature = "json")]
        if NAMED && self.names.contain(key) {
            return Err(self.at.refuse(SAME_NAME));
        }
        let at = self.at.among::<NAMED>(&self.keys_alike);
        self.inner.serialize_key(&at.part::<_, NAMED>(key))
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        self.values += 1;
        // A map must write a value for each key before the next key.
        if self.keys != self.values {
            return Err(self.at.refuse(WRONG_LEN));
        }
        let at = self.at.among::<NAMED>(&self.values_alike);
        self.inner.serialize_value(&at.part::<_, NAMED>(value))
    }

    #[inline]
    fn end(self) -> Result<C::Ok, C::Error> {
        if self.keys != self.values {
            return Err(self.at.refuse(WRONG_LEN));
        }
        check_len::<C::Error, NAMED>(self.at, self.declared, self.keys)?;
        self.inner.end()
    }
}

macro_rules! tuple {
    ($($name:ident::$method:ident),+) => {$(
        impl<C: ser::$name, const NAMED: bool> ser::$name for Fields<'_, C, NAMED> {
            type Ok = C::Ok;
            type Error = C::Error;

            #[inline]
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
                self.written += 1;
                self.inner.$method(&self.at.part::<_, NAMED>(value))
            }

            #[inline]
            fn end(self) -> Result<C::Ok, C::Error> {
                self.check_len::<C::Error>()?;
                self.inner.end()
            }
        }
    )+};
}

macro_rules! fields {
    ($($name:ident),+) => {$(
        impl<C: ser::$name, const NAMED: bool> ser::$name for Fields<'_, C, NAMED> {
            type Ok = C::Ok;
            type Error = C::Error;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), C::Error> {
                self.named::<C::Error>(name)?;
                if self.not_first == 0 || self.written > 1 {
                    return self.inner.serialize_field(name, &self.at.part::<_, NAMED>(value));
                }
                // The shape of the first field shows whether this is an adjacently tagged enum.
                let shape = Cell::new(0);
                let at = self.at.among::<NAMED>(&shape);
                self.inner.serialize_field(name, &at.part::<_, NAMED>(value))?;
                if shape.get() == self.not_first { Err(self.at.refuse(TAGGED)) } else { Ok(()) }
            }

            fn skip_field(&mut self, name: &'static str) -> Result<(), C::Error> {
                self.skipped::<C::Error>()?;
                self.inner.skip_field(name)
            }

            #[inline]
            fn end(self) -> Result<C::Ok, C::Error> {
                self.check_len::<C::Error>()?;
                self.inner.end()
            }
        }
    )+};
}

tuple!(
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);
fields!(SerializeStruct, SerializeStructVariant);

/// Checks the number of written elements against the declared one. bincode stores the declared
/// number, or takes it from the type. JSON has no number, but ends a part at once if the declared
/// number is 0.
#[inline]
fn check_len<E: ser::Error, const NAMED: bool>(
    at: At<'_>,
    declared: Option<usize>,
    written: usize,
) -> Result<(), E> {
    let right = match declared {
        None => true,
        Some(declared) if NAMED => declared > 0 || written == 0,
        Some(declared) => declared == written,
    };
    if right { Ok(()) } else { Err(at.refuse(WRONG_LEN)) }
}

/// The keys of one JSON object that were written so far. Different keys of a map can have the same
/// text, and the fields of a struct and of a map can be flattened into one object.
#[cfg(feature = "json")]
struct Names {
    text: Vec<u8>,
    /// The ranges of the keys in `text`.
    places: hashbrown::HashTable<(usize, usize)>,
    hasher: foldhash::fast::FixedState,
}

#[cfg(feature = "json")]
impl Names {
    fn with_capacity(len: Option<usize>) -> Self {
        let len = len.unwrap_or(0).min(NAMES_AHEAD_MAX);
        Self {
            text: Vec::with_capacity(16 * len),
            places: hashbrown::HashTable::with_capacity(len),
            hasher: foldhash::fast::FixedState::default(),
        }
    }

    /// Records `key`. Returns true if the object already has a key with the same text.
    fn contain<T: Serialize + ?Sized>(&mut self, key: &T) -> bool {
        use std::hash::BuildHasher;

        let from = self.text.len();
        if serde_json::to_writer(&mut self.text, key).is_err() {
            // Writing it as a key fails too, and returns the error.
            return false;
        }
        // JSON writes a number as a key in quotes, so that 1 and "1" are the same key.
        if self.text.get(from) != Some(&b'"') {
            self.text.insert(from, b'"');
            self.text.push(b'"');
        }
        let to = self.text.len();
        let (text, hasher) = (&self.text, &self.hasher);
        let key = |(from, to): (usize, usize)| text.get(from..to).unwrap_or_default();
        let hash = |place: (usize, usize)| hasher.hash_one(key(place));
        let place = (from, to);
        if self.places.find(hash(place), |&other| key(other) == key(place)).is_some() {
            return true;
        }
        self.places.insert_unique(hash(place), place, |&place| hash(place));
        false
    }
}

/// The maximum number of keys for which memory is reserved, because a declared length may be wrong.
#[cfg(feature = "json")]
const NAMES_AHEAD_MAX: usize = 4096;

const SKIPPED: &str = "a field of it is skipped (`skip_serializing_if`), which bincode cannot \
                       represent; JSON can";
const TAGGED: &str = "it holds an enum with `tag` and `content` (or a struct that looks like one), \
                      which bincode cannot read back; JSON can store it";
const WRONG_LEN: &str = "its Serialize implementation writes another number of parts than it \
                         declares";
const SAME_NAME: &str = "it has one name twice in a JSON object: a tag or a flattened field with \
                         the name of another";
