//! Keys of tables: types whose encodings have the order of their values.
//!
//! The encodings are on disk for ever: docs/FORMAT.md has them, and tests pin their bytes.

use std::cmp::Reverse;

/// A type of the keys of a [`Table`](crate::Table). Keys are compared by their encodings, which
/// have the order of their `Ord`.
///
/// It is implemented for `u8` to `u128`, `i8` to `i128`, `bool`, `char`, `String`, `Vec<u8>`,
/// `[u8; N]`, and for `Option`, [`Reverse`] and tuples of two to four of these. Methods take
/// strings as `&str` and bytes as `&[u8]`, also in tuples.
///
/// Implement it for a type of your own with the encoding of another key:
///
/// ```
/// use codex_core::{Store, TableKey};
///
/// #[derive(Debug, Clone, Copy, PartialEq, Eq)]
/// struct UserId(u64);
///
/// impl TableKey for UserId {
///     type Ref<'a> = Self;
///
///     fn kind() -> String {
///         u64::kind()
///     }
///     fn encode(key: &Self, into: &mut Vec<u8>) {
///         u64::encode(&key.0, into);
///     }
///     fn decode(from: &mut &[u8]) -> Result<Self, &'static str> {
///         u64::decode(from).map(Self)
///     }
/// }
///
/// let store = Store::in_memory()?;
/// let logins = store.table::<(UserId, u32), String>("logins")?;
/// logins.set((UserId(7), 1), &"Ada".into())?;
/// assert_eq!(logins.prefix((UserId(7),)).count(), 1);
/// # Ok::<(), codex_core::Error>(())
/// ```
pub trait TableKey: Sized + 'static {
    /// The type in which the methods of a table take a key: `&str` for `String`, `&[u8]` for
    /// `Vec<u8>`, otherwise mostly the type itself.
    type Ref<'a>;

    /// Returns the name of the encoding, for example `u64` or `(u32, string)`. It is stored when a
    /// table is created, and compared when it is opened. At most 255 bytes.
    fn kind() -> String;

    /// Appends the encoding of `key`. It has the order of the keys, and no encoding is the
    /// beginning of another one.
    fn encode(key: &Self::Ref<'_>, into: &mut Vec<u8>);

    /// Appends the encoding of a key after which nothing comes. Strings and bytes are as they are
    /// here. The default is [`encode`](Self::encode).
    fn encode_last(key: &Self::Ref<'_>, into: &mut Vec<u8>) {
        Self::encode(key, into);
    }

    /// Takes the key from the beginning of `from`.
    ///
    /// # Errors
    /// The reason why the bytes are no encoding. It must not quote them.
    fn decode(from: &mut &[u8]) -> Result<Self, &'static str>;

    /// Returns the key of [`encode_last`](Self::encode_last). The default is that of
    /// [`decode`](Self::decode), after which nothing may come.
    ///
    /// # Errors
    /// The reason why the bytes are no encoding. It must not quote them.
    fn decode_last(mut from: &[u8]) -> Result<Self, &'static str> {
        let key = Self::decode(&mut from)?;
        if from.is_empty() { Ok(key) } else { Err(LEFT_OVER) }
    }
}

macro_rules! integers {
    ($($kind:literal $unsigned:ty, $signed_kind:literal $signed:ty;)+) => {$(
        impl TableKey for $unsigned {
            type Ref<'a> = Self;

            fn kind() -> String {
                $kind.into()
            }

            fn encode(key: &Self, into: &mut Vec<u8>) {
                into.extend_from_slice(&key.to_be_bytes());
            }

            fn decode(from: &mut &[u8]) -> Result<Self, &'static str> {
                take(from).map(Self::from_be_bytes)
            }
        }

        impl TableKey for $signed {
            type Ref<'a> = Self;

            fn kind() -> String {
                $signed_kind.into()
            }

            fn encode(key: &Self, into: &mut Vec<u8>) {
                // With the sign bit inverted, negative numbers are below the others.
                <$unsigned>::encode(&(key.cast_unsigned() ^ Self::MIN.cast_unsigned()), into);
            }

            fn decode(from: &mut &[u8]) -> Result<Self, &'static str> {
                let key = <$unsigned>::decode(from)?;
                Ok((key ^ Self::MIN.cast_unsigned()).cast_signed())
            }
        }
    )+};
}

integers! {
    "u8" u8, "i8" i8;
    "u16" u16, "i16" i16;
    "u32" u32, "i32" i32;
    "u64" u64, "i64" i64;
    "u128" u128, "i128" i128;
}

impl TableKey for bool {
    type Ref<'a> = Self;

    fn kind() -> String {
        "bool".into()
    }

    fn encode(key: &Self, into: &mut Vec<u8>) {
        into.push(u8::from(*key));
    }

    fn decode(from: &mut &[u8]) -> Result<Self, &'static str> {
        match take(from)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [_] => Err("a boolean in it is neither 0 nor 1"),
        }
    }
}

impl TableKey for char {
    type Ref<'a> = Self;

    fn kind() -> String {
        "char".into()
    }

    fn encode(key: &Self, into: &mut Vec<u8>) {
        u32::encode(&u32::from(*key), into);
    }

    fn decode(from: &mut &[u8]) -> Result<Self, &'static str> {
        Self::from_u32(u32::decode(from)?).ok_or("a number in it is no character")
    }
}

impl TableKey for String {
    type Ref<'a> = &'a str;

    fn kind() -> String {
        "string".into()
    }

    fn encode(key: &&str, into: &mut Vec<u8>) {
        escape(key.as_bytes(), into);
    }

    fn encode_last(key: &&str, into: &mut Vec<u8>) {
        into.extend_from_slice(key.as_bytes());
    }

    fn decode(from: &mut &[u8]) -> Result<Self, &'static str> {
        Self::from_utf8(unescape(from)?).map_err(|_| NOT_UTF8)
    }

    fn decode_last(from: &[u8]) -> Result<Self, &'static str> {
        str::from_utf8(from).map(Into::into).map_err(|_| NOT_UTF8)
    }
}

impl TableKey for Vec<u8> {
    type Ref<'a> = &'a [u8];

    fn kind() -> String {
        "bytes".into()
    }

    fn encode(key: &&[u8], into: &mut Vec<u8>) {
        escape(key, into);
    }

    fn encode_last(key: &&[u8], into: &mut Vec<u8>) {
        into.extend_from_slice(key);
    }

    fn decode(from: &mut &[u8]) -> Result<Self, &'static str> {
        unescape(from)
    }

    fn decode_last(from: &[u8]) -> Result<Self, &'static str> {
        Ok(from.to_vec())
    }
}

impl<const N: usize> TableKey for [u8; N] {
    type Ref<'a> = Self;

    fn kind() -> String {
        format!("[u8; {N}]")
    }

    fn encode(key: &Self, into: &mut Vec<u8>) {
        into.extend_from_slice(key);
    }

    fn decode(from: &mut &[u8]) -> Result<Self, &'static str> {
        take(from)
    }
}

/// `None` is below every `Some`.
impl<T: TableKey> TableKey for Option<T> {
    type Ref<'a> = Option<T::Ref<'a>>;

    fn kind() -> String {
        format!("Option<{}>", T::kind())
    }

    fn encode(key: &Self::Ref<'_>, into: &mut Vec<u8>) {
        into.push(u8::from(key.is_some()));
        if let Some(key) = key {
            T::encode(key, into);
        }
    }

    fn encode_last(key: &Self::Ref<'_>, into: &mut Vec<u8>) {
        into.push(u8::from(key.is_some()));
        if let Some(key) = key {
            T::encode_last(key, into);
        }
    }

    fn decode(from: &mut &[u8]) -> Result<Self, &'static str> {
        bool::decode(from)?.then(|| T::decode(from)).transpose()
    }

    fn decode_last(mut from: &[u8]) -> Result<Self, &'static str> {
        match bool::decode(&mut from)? {
            true => T::decode_last(from).map(Some),
            false if from.is_empty() => Ok(None),
            false => Err(LEFT_OVER),
        }
    }
}

/// The order is reversed: the largest key comes first.
impl<T: TableKey> TableKey for Reverse<T> {
    type Ref<'a> = Reverse<T::Ref<'a>>;

    fn kind() -> String {
        format!("Reverse<{}>", T::kind())
    }

    fn encode(key: &Self::Ref<'_>, into: &mut Vec<u8>) {
        // No encoding is the beginning of another one, so two of them differ at a byte of both, and
        // the inverted bytes have the reversed order.
        let start = into.len();
        T::encode(&key.0, into);
        into.iter_mut().skip(start).for_each(|byte| *byte = !*byte);
    }

    fn decode(from: &mut &[u8]) -> Result<Self, &'static str> {
        let inverted: Vec<_> = from.iter().map(|byte| !byte).collect();
        let mut rest = inverted.as_slice();
        let key = T::decode(&mut rest)?;
        let used = inverted.len() - rest.len();
        *from = from.get(used..).unwrap_or_default();
        Ok(Self(key))
    }
}

macro_rules! tuples {
    ($(($($key:ident $at:tt),+; $last:ident $last_at:tt) $kind:literal;)+) => {$(
        impl<$($key: TableKey,)+ $last: TableKey> TableKey for ($($key,)+ $last) {
            type Ref<'a> = ($($key::Ref<'a>,)+ $last::Ref<'a>);

            fn kind() -> String {
                format!($kind, $($key::kind(),)+ $last::kind())
            }

            fn encode(key: &Self::Ref<'_>, into: &mut Vec<u8>) {
                $($key::encode(&key.$at, into);)+
                $last::encode(&key.$last_at, into);
            }

            fn encode_last(key: &Self::Ref<'_>, into: &mut Vec<u8>) {
                $($key::encode(&key.$at, into);)+
                $last::encode_last(&key.$last_at, into);
            }

            fn decode(from: &mut &[u8]) -> Result<Self, &'static str> {
                Ok(($($key::decode(from)?,)+ $last::decode(from)?))
            }

            fn decode_last(mut from: &[u8]) -> Result<Self, &'static str> {
                Ok(($($key::decode(&mut from)?,)+ $last::decode_last(from)?))
            }
        }
    )+};
}

tuples! {
    (A 0; B 1) "({}, {})";
    (A 0, B 1; C 2) "({}, {}, {})";
    (A 0, B 1, C 2; D 3) "({}, {}, {}, {})";
}

/// Appends `bytes` so that an end can follow: each 0 with 255 after it, then two 0. With one 0 as
/// the end, a 255 after it could not be distinguished from a 0 in the bytes.
fn escape(bytes: &[u8], into: &mut Vec<u8>) {
    escape_part(bytes, into);
    into.extend_from_slice(&[0, 0]);
}

/// Does the same as [`escape`], without an end.
pub(super) fn escape_part(bytes: &[u8], into: &mut Vec<u8>) {
    for &byte in bytes {
        into.push(byte);
        if byte == 0 {
            into.push(u8::MAX);
        }
    }
}

/// Takes the bytes that [`escape`] has appended from the beginning of `from`.
fn unescape(from: &mut &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut bytes = Vec::new();
    loop {
        let [byte] = take(from)?;
        if byte == 0 {
            match take(from)? {
                [0] => return Ok(bytes),
                [u8::MAX] => {}
                [_] => return Err("a 0 in it is neither escaped nor an end"),
            }
        }
        bytes.push(byte);
    }
}

/// Takes `N` bytes from the beginning of `from`.
fn take<const N: usize>(from: &mut &[u8]) -> Result<[u8; N], &'static str> {
    let (taken, rest) = from.split_first_chunk().ok_or("the bytes end too early")?;
    *from = rest;
    Ok(*taken)
}

const LEFT_OVER: &str = "bytes are left over after it";
const NOT_UTF8: &str = "a text in it is not UTF-8";

#[cfg(test)]
mod tests;
