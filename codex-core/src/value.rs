//! The encoding of values: one codec byte, then the bytes of the codec.

mod compound;
mod guard;
mod read;
mod write;

use std::any::type_name;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::str::FromStr;

use codex_storage::ParseError;
use codex_storage::batch::BATCH_LEN_MAX;
use serde::de::DeserializeOwned;
#[cfg(feature = "json")]
use serde::de::DeserializeSeed;
use serde::{Deserialize, Serialize};

use crate::entry::{Entry, Name};
use crate::error::{Error, Result};
use crate::handle::handle_of_bytes;
use guard::Guard;
use read::Bounded;
use write::Checked;

/// The codec with which [`set`](crate::Store::set) encodes a value.
///
/// Every stored value records its codec, so a store may change its codec at any time: values that
/// were written before stay readable.
///
/// A value that a codec would write without an error, but would not read back as the same value, is
/// refused when it is stored; the earlier value stays. Both codecs allow at most 126 nested levels:
/// each `Some`, list, tuple, map, struct and enum variant with content is one level, and a variant
/// with several fields is two. Deeper values are refused when they are stored and when they are
/// read, so that no stored bytes can exhaust the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Codec {
    /// The fixed-width little-endian layout of bincode 1.3. It is small and fast, and the default.
    ///
    /// Fields have no names in it. If a struct gains, loses or reorders a field, it cannot read
    /// earlier values. Most often the result is [`Error::Decode`], but two layouts of the same
    /// length and shape cannot be distinguished. Use JSON for types that will change, or store an
    /// enum with one variant for each version.
    ///
    /// Types whose `Deserialize` depends on the data need JSON: types with serde's `untagged`,
    /// `tag` or `flatten`, and `serde_json::Value`. If the encoder can detect one, storing it is
    /// [`Error::Encode`]: a skipped field (`skip_serializing_if`), a map without a length
    /// (`flatten`), elements of different types in one list or map, an enum with `tag` and
    /// `content`.
    ///
    /// The encoder cannot detect a single value of an untagged or internally tagged type: it is
    /// stored, and reading it is always [`Error::Decode`]. ([`update`](crate::Store::update) can
    /// decode, and refuses it.) It also cannot detect a type that skips a field or a variant on one
    /// side only: `skip_serializing` or `skip_deserializing` alone, `skip_serializing_if` in a
    /// tuple struct, `skip` on a variant before others. Do not use these with bincode.
    #[cfg(feature = "bincode")]
    #[default]
    Bincode,
    /// JSON text. Fields have names, so types may gain optional ones (`#[serde(default)]`), and
    /// other tools can read it. The keys of its maps are strings, numbers, booleans and unit
    /// variants. The default if the feature `bincode` is off.
    ///
    /// Storing a value that would not read back is [`Error::Encode`]: `NaN` and infinities; a
    /// `Some` whose content is `null` (`Some(None)`, `Some(())`); a name that occurs twice in one
    /// object. The encoder cannot detect faults that only appear when reading: a field that is
    /// skipped and has no `#[serde(default)]`, an untagged enum whose variants have the same shape,
    /// a `u128` or a map with numbers as keys inside a type that is `flatten`ed, tagged or
    /// untagged.
    #[cfg(feature = "json")]
    #[cfg_attr(not(feature = "bincode"), default)]
    Json,
}

impl Codec {
    /// Returns the stored value: the codec byte, then the codec's bytes.
    pub(crate) fn encode<T>(self, key_len: usize, value: &T) -> Result<Vec<u8>>
    where
        T: Serialize + ?Sized,
    {
        let mut stored = Vec::new();
        self.append(&mut stored, key_len, value)?;
        Ok(stored)
    }

    /// Returns the entry of `name` with the stored value, encoded after the key into one buffer.
    pub(crate) fn entry<'a, T>(self, name: impl Into<Name<'a>>, value: &T) -> Result<Entry>
    where
        T: Serialize + ?Sized,
    {
        let name = name.into();
        let mut bytes = Vec::with_capacity(name.key.len() + ROOM_FOR_VALUE);
        Entry::begin(name, &mut bytes);
        self.append(&mut bytes, name.key.len(), value)?;
        Ok(Entry::from_bytes(&bytes))
    }

    /// Appends the stored value to the buffer `to`.
    fn append<T>(self, to: &mut Vec<u8>, key_len: usize, value: &T) -> Result<()>
    where
        T: Serialize + ?Sized,
    {
        to.push(self.id());
        let done = match self {
            #[cfg(feature = "bincode")]
            Self::Bincode => Bincode::encode(value, to),
            #[cfg(feature = "json")]
            Self::Json => Json::encode(value, to),
        };
        let refused =
            |why| Error::Encode { type_name: type_name::<T>(), key_len, codec: self, why };
        done.map_err(refused)
    }

    /// Returns the codec byte.
    pub(crate) fn id(self) -> u8 {
        match self {
            #[cfg(feature = "bincode")]
            Self::Bincode => BINCODE,
            #[cfg(feature = "json")]
            Self::Json => JSON,
        }
    }

    /// Returns the codec of a codec byte, or `None` for raw bytes and unknown codecs.
    fn from_id(id: u8) -> Option<Self> {
        match id {
            #[cfg(feature = "bincode")]
            BINCODE => Some(Self::Bincode),
            #[cfg(feature = "json")]
            JSON => Some(Self::Json),
            _ => None,
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            #[cfg(feature = "bincode")]
            Self::Bincode => "bincode",
            #[cfg(feature = "json")]
            Self::Json => "json",
        })
    }
}

/// Reads the text of `Display`: the name of the feature of the codec.
impl FromStr for Codec {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            #[cfg(feature = "bincode")]
            "bincode" => Ok(Self::Bincode),
            #[cfg(feature = "json")]
            "json" => Ok(Self::Json),
            _ => Err(ParseError::new("codec", text, CODECS)),
        }
    }
}

codex_storage::serde_as_text!(Codec);

/// The codecs of this build.
const CODECS: &str = match (cfg!(feature = "bincode"), cfg!(feature = "json")) {
    (true, false) => "bincode",
    (false, true) => "json",
    _ => "bincode, json",
};

/// A value in memory. It is a handle that derefs to its bytes. Cloning it copies no bytes.
///
/// It contains the value at the time at which it was read; later writes do not change it. For a
/// value that [`set_bytes`](crate::Store::set_bytes) stored, the bytes are the given ones. For any
/// other value they are the encoding by its codec. It is equal to, ordered and hashed like its
/// bytes, whichever codec they are of.
#[derive(Clone)]
pub struct ValueRef {
    entry: Entry,
}

impl ValueRef {
    pub(crate) fn new(entry: Entry) -> Self {
        Self { entry }
    }

    /// Returns the codec of the value, or `None` for raw bytes and for a codec that this build does
    /// not know.
    pub fn codec(&self) -> Option<Codec> {
        self.entry.value().first().copied().and_then(Codec::from_id)
    }

    /// Decodes the value as a `T`, which may borrow from the value: `&str`, `&[u8]`, and types with
    /// such fields, are decoded without a copy.
    ///
    /// JSON text holds `&str` only if no character of it is escaped, and never `&[u8]`. A
    /// `Cow<str>` field with `#[serde(borrow)]` borrows if it can.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # use serde::{Deserialize, Serialize};
    /// #[derive(Serialize, Deserialize)]
    /// struct Note<'a> {
    ///     title: &'a str,
    /// }
    ///
    /// let store = Store::in_memory()?;
    /// store.set("note/1", &Note { title: "Locks" })?;
    /// let value = store.get_bytes("note/1").expect("it was just set");
    /// let note: Note = value.decode()?;
    /// assert_eq!(note.title, "Locks");
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Decode`] if the value does not decode as a `T`, most often because another type was
    /// stored. [`Error::RawValue`] if it was stored with `set_bytes`. [`Error::UnknownCodec`] if
    /// this build does not have its codec.
    #[doc(alias = "decode_borrowed")]
    pub fn decode<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        decode(self.entry.key().len(), self.entry.value())
    }
}

impl Deref for ValueRef {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        payload(self.entry.value())
    }
}

handle_of_bytes!(ValueRef);

/// Shows only the length, because programs write `Debug` output to logs.
impl fmt::Debug for ValueRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ValueRef({} bytes)", self.len())
    }
}

/// Returns the bytes after the codec byte.
pub(crate) fn payload(stored: &[u8]) -> &[u8] {
    stored.get(1..).unwrap_or_default()
}

/// Decodes the stored bytes of a value with the codec that they name.
pub(crate) fn decode<'a, T: Deserialize<'a>>(key_len: usize, stored: &'a [u8]) -> Result<T> {
    let type_name = type_name::<T>();
    // The first byte names the codec. Raw bytes have no type.
    let (codec_id, payload) = match stored.split_first() {
        Some((&RAW, _)) | None => return Err(Error::RawValue { type_name, key_len }),
        Some((&id, payload)) => (id, payload),
    };
    let Some(codec) = Codec::from_id(codec_id) else {
        return Err(Error::UnknownCodec { type_name, key_len, codec_id });
    };
    let value = match codec {
        #[cfg(feature = "bincode")]
        Codec::Bincode => Bincode::decode(payload),
        #[cfg(feature = "json")]
        Codec::Json => Json::decode(payload),
    };
    value.map_err(|why| Error::Decode { type_name, key_len, codec, why })
}

/// The initial room for a value in its encoding buffer, in bytes. A larger value makes the buffer
/// grow.
const ROOM_FOR_VALUE: usize = 128;

/// Checks that `stored`, a `T` that was just encoded, decodes as a `T`. The encoder cannot detect a
/// type whose `Deserialize` depends on the data, or differs from its `Serialize`.
pub(crate) fn check_decodes<T: DeserializeOwned>(
    codec: Codec,
    key_len: usize,
    stored: &[u8],
) -> Result<()> {
    match decode::<T>(key_len, stored) {
        Err(Error::Decode { type_name, why, .. }) => {
            Err(Error::Encode { type_name, key_len, codec, why })
        }
        other => other.map(drop),
    }
}

/// A format for values. The reason of a refusal is a fixed text, because the texts of serde may
/// quote a value.
trait Serializer {
    /// Encodes a value so that [`decode`](Self::decode) returns the same value, or refuses it.
    fn encode<T: Serialize + ?Sized>(value: &T, into: &mut Vec<u8>) -> Result<(), &'static str>;
    /// Decodes a value. Refuses `bytes` that are longer than the value.
    fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, &'static str>;
}

/// The format of bincode 1.3.3. Tests pin its bytes, so that the crate that implements it can be
/// replaced.
#[cfg(feature = "bincode")]
struct Bincode;

#[cfg(feature = "bincode")]
impl Serializer for Bincode {
    fn encode<T: Serialize + ?Sized>(value: &T, into: &mut Vec<u8>) -> Result<(), &'static str> {
        use bincode::error::EncodeError as E;
        let guard = Guard::new(BATCH_LEN_MAX);
        let before = into.len();
        let checked = Checked::<T, false>::new(value, &guard);
        let written =
            bincode::serde::encode_into_std_write(&checked, into, bincode::config::legacy());
        // The reason of the guard is more exact than the error that it caused.
        let why = |error| match error {
            E::Serde(bincode::serde::EncodeError::SequenceMustHaveLength) => NO_LENGTH,
            E::InvalidPathCharacters => "it holds a path that is not UTF-8",
            E::RefCellAlreadyBorrowed { .. } | E::LockFailed { .. } => {
                "it holds a cell or lock that is in use"
            }
            _ => "its Serialize implementation refused",
        };
        written.map_err(|error| guard.why().unwrap_or_else(|| why(error)))?;
        guard.check_written(into.len() - before)
    }

    fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, &'static str> {
        // A wrong length in the bytes can make the decoder allocate memory up to its limit. The
        // limit is a constant, so it follows the length of the bytes in a few steps.
        match bytes.len() {
            0..=0xFFF => decode_bincode::<T, 0x1000>(bytes),
            0x1000..=0xFFFF => decode_bincode::<T, 0x1_0000>(bytes),
            0x1_0000..=0xF_FFFF => decode_bincode::<T, 0x10_0000>(bytes),
            0x10_0000..=0xFF_FFFF => decode_bincode::<T, 0x100_0000>(bytes),
            _ => decode_bincode::<T, BATCH_LEN_MAX>(bytes),
        }
    }
}

/// Decodes a value, with at most `LIMIT` bytes of memory for lengths that the bytes declare.
#[cfg(feature = "bincode")]
fn decode_bincode<'a, T: Deserialize<'a>, const LIMIT: usize>(
    bytes: &'a [u8],
) -> Result<T, &'static str> {
    use bincode::error::DecodeError as E;
    use bincode::serde::DecodeError::{
        AnyNotSupported, IdentifierNotSupported, IgnoredAnyNotSupported,
    };
    let config = bincode::config::legacy().with_limit::<LIMIT>();
    let guard = Guard::new(bytes.len());
    let seed = Bounded::new(PhantomData::<T>, &guard);
    // The value must use all of the bytes.
    let why = match bincode::serde::seed_decode_from_slice(seed, bytes, config) {
        Ok((value, used)) if used == bytes.len() => return Ok(value),
        Ok(_) => "bytes are left over after it",
        Err(E::UnexpectedEnd { .. } | E::LimitExceeded) => "the bytes end too early",
        Err(E::UnexpectedVariant { .. }) => "no variant has the stored number",
        Err(E::Utf8 { .. } | E::InvalidCharEncoding(_)) => "a text in it is not UTF-8",
        Err(E::InvalidBooleanValue(_)) => "a boolean in it is neither 0 nor 1",
        Err(E::Serde(AnyNotSupported | IdentifierNotSupported | IgnoredAnyNotSupported)) => {
            SELF_DESCRIBING
        }
        Err(_) => "its Deserialize implementation refused",
    };
    // The reason of the guard is more exact than the error that it caused.
    Err(guard.why().unwrap_or(why))
}

#[cfg(feature = "json")]
struct Json;

#[cfg(feature = "json")]
impl Serializer for Json {
    fn encode<T: Serialize + ?Sized>(value: &T, into: &mut Vec<u8>) -> Result<(), &'static str> {
        let guard = Guard::new(BATCH_LEN_MAX);
        serde_json::to_writer(into, &Checked::<T, true>::new(value, &guard)).map_err(|_| {
            let other = "its Serialize implementation refused, or JSON cannot represent it";
            guard.why().unwrap_or(other)
        })
    }

    fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, &'static str> {
        use serde_json::error::Category;
        let guard = Guard::new(bytes.len());
        let seed = Bounded::new(PhantomData::<T>, &guard);
        let mut from = serde_json::Deserializer::from_slice(bytes);
        // Text after the value is an error.
        let value = seed.deserialize(&mut from).and_then(|value| from.end().map(|()| value));
        value.map_err(|error| {
            guard.why().unwrap_or(match error.classify() {
                Category::Data => "a field is missing, unknown, or of another type",
                Category::Eof => "the text ends too early",
                Category::Syntax | Category::Io => "the text is not JSON",
            })
        })
    }
}

#[cfg(feature = "bincode")]
const NO_LENGTH: &str = "it holds a sequence or map that does not know its length, as a struct \
                         with `flatten`; JSON can store it";
#[cfg(feature = "bincode")]
const SELF_DESCRIBING: &str = "its decoding depends on the data (an untagged or internally \
                               tagged enum, `serde_json::Value`), which only JSON supports: store \
                               such values with `Codec::Json`";

/// The codec byte of raw bytes.
pub(crate) const RAW: u8 = 0;
#[cfg(feature = "bincode")]
const BINCODE: u8 = 1;
#[cfg(feature = "json")]
const JSON: u8 = 2;

// The tests compare both codecs, or need the one that keeps every value.
#[cfg(test)]
#[cfg(feature = "bincode")]
mod tests;
