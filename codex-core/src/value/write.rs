//! A serializer around that of a codec. It refuses values that the codec would write without an
//! error, but could not read back as the same value.

use std::cell::Cell;
use std::fmt::{self, Write as _};

use serde::ser::{self, Serialize};

use super::compound::{Elements, Fields, Pairs};
use super::guard::{self, Guard, TOO_DEEP, TOO_MANY};

/// A value, or a part of one, that is serialized with the checks. `NAMED` is true if the codec
/// writes the names of fields and the kinds of values (JSON), and false if it writes only their
/// bytes (bincode).
pub(super) struct Checked<'a, T: ?Sized, const NAMED: bool> {
    value: &'a T,
    at: At<'a>,
}

/// The serializer that makes the checks.
pub(super) struct Checking<'a, S, const NAMED: bool> {
    inner: S,
    at: At<'a>,
}

/// The position of a part in its value.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) guard: &'a Guard,
    /// The number of levels around the part.
    depth: u32,
    null: Null,
    /// For an element of a sequence or map, the shape of the elements before it.
    alike: Option<&'a Cell<Shape>>,
}

/// The meaning of JSON's `null` at a position.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Null {
    Itself,
    /// It reads back as `None`, because the part is directly in a `Some`.
    ReadsAsNone,
    /// The same, for the text of a `RawValue`.
    RawReadsAsNone,
}

/// A fingerprint of the information that the decoder of bincode needs before it reads a value. All
/// elements of a sequence must have the same fingerprint. It consists of the kind of the value and,
/// for a struct or an enum, of its name and its number of fields.
pub(super) type Shape = u64;

#[derive(Clone, Copy)]
enum Kind {
    Bool = 1,
    I8,
    I16,
    I32,
    I64,
    I128,
    U8,
    U16,
    U32,
    U64,
    U128,
    F32,
    F64,
    Char,
    Str,
    Bytes,
    Option,
    Unit,
    Enum,
    Seq,
    Tuple,
    Map,
    Struct,
}

#[inline]
fn shape(kind: Kind, name: &'static str, len: usize) -> Shape {
    // The first bytes and the length of the name are enough. A difference means that the types
    // differ, so it is refused; two types that differ and have equal shapes are accepted.
    let begin =
        name.bytes().take(4).fold(name.len() as u64, |print, byte| print << 8 | u64::from(byte));
    let named = begin << 16 ^ len as u64;
    (named << 8) | kind as u64
}

impl<'a, T: ?Sized, const NAMED: bool> Checked<'a, T, NAMED> {
    pub(super) fn new(value: &'a T, guard: &'a Guard) -> Self {
        Self { value, at: At { guard, depth: 0, null: Null::Itself, alike: None } }
    }
}

impl<T: Serialize + ?Sized, const NAMED: bool> Serialize for Checked<'_, T, NAMED> {
    #[inline]
    fn serialize<S: ser::Serializer>(&self, inner: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(Checking::<S, NAMED> { inner, at: self.at })
    }
}

impl<'a> At<'a> {
    #[cold]
    pub(super) fn refuse<E: ser::Error>(&self, why: &'static str) -> E {
        E::custom(self.guard.refuse(why))
    }

    /// Returns the position of a part `levels` deeper, or `None` if that exceeds the maximum.
    #[inline]
    fn deeper(&self, levels: u32) -> Option<Self> {
        let depth = guard::deeper(self.depth, levels)?;
        Some(Self { guard: self.guard, depth, null: Null::Itself, alike: None })
    }

    /// Returns true if the shape is that of the elements before, or if the part is no element.
    #[inline]
    fn like(&self, kind: Kind, name: &'static str, len: usize) -> bool {
        let Some(alike) = self.alike else { return true };
        let shape = shape(kind, name, len);
        // The first element determines the shape of all.
        if alike.get() == 0 {
            alike.set(shape);
        }
        alike.get() == shape
    }

    /// Returns the position of an element; `alike` holds the shape of the elements before it.
    #[inline]
    pub(super) fn among<const NAMED: bool>(self, alike: &'a Cell<Shape>) -> Self {
        if NAMED { self } else { Self { alike: Some(alike), ..self } }
    }

    #[inline]
    pub(super) fn part<'b, T: ?Sized, const NAMED: bool>(
        self,
        value: &'b T,
    ) -> Checked<'b, T, NAMED>
    where
        'a: 'b,
    {
        Checked { value, at: self }
    }
}

macro_rules! require {
    ($holds:expr, $at:expr, $why:ident) => {
        if !$holds {
            return Err($at.refuse($why));
        }
    };
}

macro_rules! leaf {
    ($($method:ident($type:ty): $kind:ident),+ $(,)?) => {$(
        #[inline]
        fn $method(self, value: $type) -> Result<S::Ok, S::Error> {
            require!(self.at.like(Kind::$kind, "", 0), self.at, MIXED);
            self.inner.$method(value)
        }
    )+};
}

impl<'a, S: ser::Serializer, const NAMED: bool> ser::Serializer for Checking<'a, S, NAMED> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Elements<'a, S::SerializeSeq, NAMED>;
    type SerializeTuple = Fields<'a, S::SerializeTuple, NAMED>;
    type SerializeTupleStruct = Fields<'a, S::SerializeTupleStruct, NAMED>;
    type SerializeTupleVariant = Fields<'a, S::SerializeTupleVariant, NAMED>;
    type SerializeMap = Pairs<'a, S::SerializeMap, NAMED>;
    type SerializeStruct = Fields<'a, S::SerializeStruct, NAMED>;
    type SerializeStructVariant = Fields<'a, S::SerializeStructVariant, NAMED>;

    leaf! {
        serialize_bool(bool): Bool,
        serialize_i8(i8): I8,
        serialize_i16(i16): I16,
        serialize_i32(i32): I32,
        serialize_i64(i64): I64,
        serialize_i128(i128): I128,
        serialize_u8(u8): U8,
        serialize_u16(u16): U16,
        serialize_u32(u32): U32,
        serialize_u64(u64): U64,
        serialize_u128(u128): U128,
        serialize_char(char): Char,
        serialize_bytes(&[u8]): Bytes,
    }

    #[inline]
    fn serialize_f32(self, value: f32) -> Result<S::Ok, S::Error> {
        require!(self.at.like(Kind::F32, "", 0), self.at, MIXED);
        require!(!NAMED || value.is_finite(), self.at, NOT_FINITE);
        self.inner.serialize_f32(value)
    }

    #[inline]
    fn serialize_f64(self, value: f64) -> Result<S::Ok, S::Error> {
        require!(self.at.like(Kind::F64, "", 0), self.at, MIXED);
        require!(!NAMED || value.is_finite(), self.at, NOT_FINITE);
        self.inner.serialize_f64(value)
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result<S::Ok, S::Error> {
        require!(self.at.like(Kind::Str, "", 0), self.at, MIXED);
        // The text of a `RawValue` is written as it is, so it may be `null` too.
        if NAMED && self.at.null == Null::RawReadsAsNone && value.trim() == "null" {
            return Err(self.at.refuse(SOME_NULL));
        }
        self.inner.serialize_str(value)
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        require!(self.at.like(Kind::Option, "", 0), self.at, MIXED);
        require!(self.at.null == Null::Itself, self.at, SOME_NULL);
        self.inner.serialize_none()
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        require!(self.at.like(Kind::Option, "", 0), self.at, MIXED);
        let mut at = self.at.deeper(1).ok_or_else(|| self.at.refuse(TOO_DEEP))?;
        // JSON writes the content of a `Some` without a mark, so `null` in it would read back as
        // `None`.
        if NAMED {
            at.null = Null::ReadsAsNone;
        }
        self.inner.serialize_some(&at.part::<_, NAMED>(value))
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        require!(self.at.like(Kind::Unit, "", 0), self.at, MIXED);
        require!(self.at.null == Null::Itself, self.at, SOME_NULL);
        self.inner.serialize_unit()
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<S::Ok, S::Error> {
        require!(self.at.like(Kind::Unit, name, 0), self.at, MIXED);
        require!(self.at.null == Null::Itself, self.at, SOME_NULL);
        self.inner.serialize_unit_struct(name)
    }

    #[inline]
    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        require!(self.at.like(Kind::Enum, name, 0), self.at, MIXED);
        self.inner.serialize_unit_variant(name, index, variant)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.inner.serialize_newtype_struct(name, &self.at.part::<_, NAMED>(value))
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        require!(self.at.like(Kind::Enum, name, 0), self.at, MIXED);
        let at = self.at.deeper(1).ok_or_else(|| self.at.refuse(TOO_DEEP))?;
        let part = at.part::<_, NAMED>(value);
        self.inner.serialize_newtype_variant(name, index, variant, &part)
    }

    #[inline]
    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        require!(self.at.like(Kind::Seq, "", 0), self.at, MIXED);
        let at = self.at.deeper(1).ok_or_else(|| self.at.refuse(TOO_DEEP))?;
        require!(at.guard.count(len.unwrap_or(0)), at, TOO_MANY);
        let inner = self.inner.serialize_seq(len)?;
        Ok(Elements::new(inner, at, len))
    }

    #[inline]
    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, S::Error> {
        require!(self.at.like(Kind::Tuple, "", len), self.at, MIXED);
        let at = self.at.deeper(1).ok_or_else(|| self.at.refuse(TOO_DEEP))?;
        Ok(Fields::new(self.inner.serialize_tuple(len)?, at, len))
    }

    #[inline]
    fn serialize_tuple_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleStruct, S::Error> {
        require!(self.at.like(Kind::Tuple, name, len), self.at, MIXED);
        let at = self.at.deeper(1).ok_or_else(|| self.at.refuse(TOO_DEEP))?;
        Ok(Fields::new(self.inner.serialize_tuple_struct(name, len)?, at, len))
    }

    #[inline]
    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        require!(self.at.like(Kind::Enum, name, 0), self.at, MIXED);
        let at = self.at.deeper(2).ok_or_else(|| self.at.refuse(TOO_DEEP))?;
        Ok(Fields::new(self.inner.serialize_tuple_variant(name, index, variant, len)?, at, len))
    }

    #[inline]
    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        require!(self.at.like(Kind::Map, "", 0), self.at, MIXED);
        let at = self.at.deeper(1).ok_or_else(|| self.at.refuse(TOO_DEEP))?;
        require!(at.guard.count(len.unwrap_or(0)), at, TOO_MANY);
        Ok(Pairs::new(self.inner.serialize_map(len)?, at, len))
    }

    #[inline]
    fn serialize_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStruct, S::Error> {
        require!(self.at.like(Kind::Struct, name, len), self.at, MIXED);
        let mut at = self.at.deeper(1).ok_or_else(|| self.at.refuse(TOO_DEEP))?;
        if NAMED && name == RAW_VALUE && self.at.null != Null::Itself {
            at.null = Null::RawReadsAsNone;
        }
        // Names that begin with `$` mark types that only their own format can represent.
        if !NAMED && name.starts_with('$') {
            return Err(at.refuse(ANOTHER_FORMAT));
        }
        let fields = Fields::new(self.inner.serialize_struct(name, len)?, at, len);
        // An adjacently tagged enum is serialized as a struct with the name of the enum, a tag and
        // perhaps a content. Its tag is a unit variant of an enum of the same name.
        let is_tag = shape(Kind::Enum, name, 0);
        Ok(if !NAMED && len <= 2 { fields.not_first(is_tag) } else { fields })
    }

    #[inline]
    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        require!(self.at.like(Kind::Enum, name, 0), self.at, MIXED);
        let at = self.at.deeper(2).ok_or_else(|| self.at.refuse(TOO_DEEP))?;
        Ok(Fields::new(self.inner.serialize_struct_variant(name, index, variant, len)?, at, len))
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        let mut text = String::new();
        // serde's default implementation panics if a `Display` returns an error.
        write!(text, "{value}").map_err(|_| self.at.refuse::<S::Error>(NO_TEXT))?;
        self.serialize_str(&text)
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// The name that `serde_json` gives to the struct of a `RawValue`. Its field is JSON text.
const RAW_VALUE: &str = "$serde_json::private::RawValue";

const MIXED: &str = "the elements of one list or map in it have different types, as those of \
                     `serde_json::Value` and of untagged enums; JSON can store them";
const SOME_NULL: &str = "it holds a `Some` whose content is `null` in JSON, which would read back \
                         as `None`; bincode can store it";
const NOT_FINITE: &str = "it holds a NaN or an infinity, which JSON cannot represent; bincode can";
const ANOTHER_FORMAT: &str = "it holds a type that only its own format can store";
const NO_TEXT: &str = "a part of it failed to become text";
