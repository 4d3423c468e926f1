//! A deserializer around that of a codec. It limits the time, memory and stack that hostile bytes
//! can consume.

use std::fmt;

use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::guard::{self, Guard, TOO_DEEP, TOO_MANY};

/// A deserializer, visitor or access of a part, with the depth of the part.
pub(super) struct Bounded<'a, D> {
    inner: D,
    guard: &'a Guard,
    depth: u32,
    /// Whether the next elements are those of a sequence or map whose length was read from the
    /// bytes.
    counts: bool,
}

impl<'a, D> Bounded<'a, D> {
    pub(super) fn new(inner: D, guard: &'a Guard) -> Self {
        Self { inner, guard, depth: 0, counts: false }
    }

    /// Returns `inner` at the same depth.
    #[inline]
    fn with<E>(&self, inner: E) -> Bounded<'a, E> {
        Bounded { inner, guard: self.guard, depth: self.depth, counts: false }
    }

    /// Like [`with`](Self::with), and the elements of `inner` count.
    #[inline]
    fn counting<E>(&self, inner: E) -> Bounded<'a, E> {
        Bounded { counts: true, ..self.with(inner) }
    }

    /// Returns the inner value, and the place one level deeper. Refuses a level beyond the maximum.
    #[inline]
    fn deeper<E: de::Error>(self) -> Result<(D, Bounded<'a, ()>), E> {
        match guard::deeper(self.depth, 1) {
            Some(depth) => {
                Ok((self.inner, Bounded { inner: (), guard: self.guard, depth, counts: false }))
            }
            None => Err(E::custom(self.guard.refuse(TOO_DEEP))),
        }
    }

    /// Counts `len` elements, if elements count here. Refuses more than the guard allows.
    #[inline]
    fn count<E: de::Error>(&self, len: Option<usize>) -> Result<(), E> {
        match len {
            Some(len) if self.counts && !self.guard.count(len) => {
                Err(E::custom(self.guard.refuse(TOO_MANY)))
            }
            _ => Ok(()),
        }
    }
}

impl<'de, T: DeserializeSeed<'de>> DeserializeSeed<'de> for Bounded<'_, T> {
    type Value = T::Value;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<T::Value, D::Error> {
        let place = self.with(inner);
        self.inner.deserialize(place)
    }
}

macro_rules! forward {
    ($wrap:ident: $($method:ident($($arg:ident: $type:ty),*)),+ $(,)?) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, $($arg: $type,)* visitor: V)
            -> Result<V::Value, D::Error>
        {
            let visitor = self.$wrap(visitor);
            self.inner.$method($($arg,)* visitor)
        }
    )+};
}

/// Forwards the methods for values without parts, which need no limit.
macro_rules! leaves {
    ($($method:ident),+ $(,)?) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$method(visitor)
        }
    )+};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Bounded<'_, D> {
    type Error = D::Error;

    forward! { with:
        deserialize_option(),
        deserialize_tuple(len: usize),
        deserialize_tuple_struct(name: &'static str, len: usize),
        deserialize_newtype_struct(name: &'static str),
        deserialize_struct(name: &'static str, fields: &'static [&'static str]),
        deserialize_enum(name: &'static str, variants: &'static [&'static str]),
        deserialize_bytes(),
        deserialize_byte_buf(),
        deserialize_ignored_any(),
    }

    forward! { counting: deserialize_any(), deserialize_seq(), deserialize_map() }

    leaves! {
        deserialize_bool, deserialize_i8, deserialize_i16, deserialize_i32, deserialize_i64,
        deserialize_i128, deserialize_u8, deserialize_u16, deserialize_u32, deserialize_u64,
        deserialize_u128, deserialize_f32, deserialize_f64, deserialize_char, deserialize_str,
        deserialize_string, deserialize_unit, deserialize_identifier,
    }

    #[inline]
    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_unit_struct(name, visitor)
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! visit {
    ($($method:ident($type:ty)),+ $(,)?) => {$(
        #[inline]
        fn $method<E: de::Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$method(value)
        }
    )+};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Bounded<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    visit! {
        visit_bool(bool),
        visit_i8(i8),
        visit_i16(i16),
        visit_i32(i32),
        visit_i64(i64),
        visit_i128(i128),
        visit_u8(u8),
        visit_u16(u16),
        visit_u32(u32),
        visit_u64(u64),
        visit_u128(u128),
        visit_f32(f32),
        visit_f64(f64),
        visit_char(char),
        visit_str(&str),
        visit_borrowed_str(&'de str),
        visit_string(String),
        visit_bytes(&[u8]),
        visit_borrowed_bytes(&'de [u8]),
        visit_byte_buf(Vec<u8>),
    }

    #[inline]
    fn visit_none<E: de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    #[inline]
    fn visit_unit<E: de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    #[inline]
    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let (visitor, place) = self.deeper::<D::Error>()?;
        visitor.visit_some(place.with(inner))
    }

    // A newtype is no level: a type can only hold itself through something that may be absent.
    #[inline]
    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let place = self.with(inner);
        self.inner.visit_newtype_struct(place)
    }

    #[inline]
    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        // The hint is a length that the bytes declare. It is checked before an element is read.
        self.count::<A::Error>(inner.size_hint())?;
        let (visitor, place) = self.deeper::<A::Error>()?;
        visitor.visit_seq(place.with(inner))
    }

    #[inline]
    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.count::<A::Error>(inner.size_hint())?;
        let (visitor, place) = self.deeper::<A::Error>()?;
        visitor.visit_map(place.with(inner))
    }

    #[inline]
    fn visit_enum<A: EnumAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let place = self.with(inner);
        self.inner.visit_enum(place)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Bounded<'_, A> {
    type Error = A::Error;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, A::Error> {
        let seed = self.with(seed);
        self.inner.next_element_seed(seed)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Bounded<'_, A> {
    type Error = A::Error;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        let seed = self.with(seed);
        self.inner.next_key_seed(seed)
    }

    #[inline]
    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        let seed = self.with(seed);
        self.inner.next_value_seed(seed)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'a, 'de, A: EnumAccess<'de>> EnumAccess<'de> for Bounded<'a, A> {
    type Error = A::Error;
    type Variant = Bounded<'a, A::Variant>;

    #[inline]
    fn variant_seed<T: DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<(T::Value, Self::Variant), A::Error> {
        let place = self.with(());
        let (value, variant) = self.inner.variant_seed(seed)?;
        Ok((value, place.with(variant)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Bounded<'_, A> {
    type Error = A::Error;

    #[inline]
    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    #[inline]
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, A::Error> {
        let (variant, place) = self.deeper::<A::Error>()?;
        variant.newtype_variant_seed(place.with(seed))
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        let (variant, place) = self.deeper::<A::Error>()?;
        variant.tuple_variant(len, place.with(visitor))
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let (variant, place) = self.deeper::<A::Error>()?;
        variant.struct_variant(fields, place.with(visitor))
    }
}
