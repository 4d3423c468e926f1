//! How values become bytes and come back: one codec byte, then what the codec makes of the value.

mod compound;
mod guard;
mod read;
mod write;

use std::any::type_name;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use codex_storage::batch::BATCH_LEN_MAX;
use serde::Serialize;
use serde::de::DeserializeOwned;
#[cfg(feature = "json")]
use serde::de::DeserializeSeed;

use crate::entry::Entry;
use crate::error::{Error, Result};
use guard::Guard;
use read::Bounded;
use write::Checked;

/// How [`set`](crate::Store::set) turns a value into bytes.
///
/// Every stored value says which codec it was written with, so a store may change its codec at
/// any time: values written before stay readable.
///
/// What a codec would write without an error and not read back as the same value is refused when
/// it is stored, and the value before stays. In both codecs a value is nested at most 126 levels
/// deep: each `Some`, list, tuple, map, struct and enum variant with content is one, a variant with
/// several fields two. Deeper values are refused both when stored and when read, so that no stored
/// bytes can exhaust the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Codec {
    /// The fixed-width little-endian layout of bincode 1.3: small and fast, and the default.
    ///
    /// Fields have no names in it. A struct that gains, loses or reorders a field no longer reads
    /// what was stored before: mostly that is [`Error::Decode`], but two layouts of the same
    /// length and shape cannot be told apart. Choose JSON for types that will grow, or store an
    /// enum with one variant for each version.
    ///
    /// Types that ask the data what it is need JSON: those with serde's `untagged`, `tag` or
    /// `flatten`, and `serde_json::Value`. Where the encoder sees it, storing one is
    /// [`Error::Encode`]: a skipped field (`skip_serializing_if`), a map without a length
    /// (`flatten`), elements of different types in one list or map, an enum with `tag` and
    /// `content`. A single value of an untagged or internally tagged type looks like any other to
    /// the encoder: it is stored, and reading it is [`Error::Decode`], always.
    /// ([`update`](crate::Store::update) can decode, and refuses it.) Nor does the encoder see that
    /// a type does not read what it writes: `skip_serializing` or `skip_deserializing` alone,
    /// `skip_serializing_if` in a tuple struct, `skip` on a variant before others. Do not use
    /// these with bincode.
    #[default]
    Bincode,
    /// JSON text: fields have names, so types may gain optional ones (`#[serde(default)]`), and
    /// other tools can read it. The keys of its maps are strings, numbers, flags and unit variants.
    ///
    /// Refused with [`Error::Encode`], since they would not read back: `NaN` and infinities; a
    /// `Some` whose content is `null` (`Some(None)`, `Some(())`); a name that comes twice in one
    /// object. Not seen is what only reading could tell: a field that is skipped and has no
    /// `#[serde(default)]`, an untagged enum whose variants look alike, a `u128` or a map with
    /// numbers as keys inside a type that is `flatten`ed, tagged or untagged.
    #[cfg(feature = "json")]
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

    /// Returns the entry of `key` with the stored value, encoded after the key into one buffer.
    pub(crate) fn entry<T>(self, key: &[u8], value: &T) -> Result<Entry>
    where
        T: Serialize + ?Sized,
    {
        let mut bytes = Vec::with_capacity(key.len() + ROOM_FOR_VALUE);
        bytes.extend_from_slice(key);
        self.append(&mut bytes, key.len(), value)?;
        Ok(Entry::from_bytes(key.len(), &bytes))
    }

    fn append<T>(self, to: &mut Vec<u8>, key_len: usize, value: &T) -> Result<()>
    where
        T: Serialize + ?Sized,
    {
        to.push(self.id());
        let done = match self {
            Self::Bincode => Bincode::encode(value, to),
            #[cfg(feature = "json")]
            Self::Json => Json::encode(value, to),
        };
        let refused =
            |why| Error::Encode { type_name: type_name::<T>(), key_len, codec: self, why };
        done.map_err(refused)
    }

    /// The codec byte.
    fn id(self) -> u8 {
        match self {
            Self::Bincode => BINCODE,
            #[cfg(feature = "json")]
            Self::Json => JSON,
        }
    }

    fn from_id(id: u8) -> Option<Self> {
        match id {
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
            Self::Bincode => "bincode",
            #[cfg(feature = "json")]
            Self::Json => "JSON",
        })
    }
}

/// A value as it is in memory: a handle that derefs to its bytes. Cloning copies no bytes.
///
/// It holds the value as it was when read; later writes do not change it. For a value stored with
/// [`set_bytes`](crate::Store::set_bytes) the bytes are what was given, for any other they are
/// what its codec made of it.
#[derive(Clone)]
pub struct ValueRef {
    entry: Entry,
}

impl ValueRef {
    pub(crate) fn new(entry: Entry) -> Self {
        Self { entry }
    }

    /// The codec that the value was stored with; `None` for raw bytes (and for the codec of a
    /// newer build).
    pub fn codec(&self) -> Option<Codec> {
        self.entry.value().first().copied().and_then(Codec::from_id)
    }

    /// Decodes the value.
    ///
    /// # Errors
    /// [`Error::Decode`], [`Error::RawValue`] or [`Error::UnknownCodec`] when what was stored is
    /// not a `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T> {
        decode(self.entry.key().len(), self.entry.value())
    }
}

impl Deref for ValueRef {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        payload(self.entry.value())
    }
}

impl AsRef<[u8]> for ValueRef {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// Values appear in no log: only the length.
impl fmt::Debug for ValueRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ValueRef({} bytes)", self.len())
    }
}

/// What follows the codec byte.
pub(crate) fn payload(stored: &[u8]) -> &[u8] {
    stored.get(1..).unwrap_or_default()
}

/// Decodes the stored bytes of a value, whatever codec they name.
pub(crate) fn decode<T: DeserializeOwned>(key_len: usize, stored: &[u8]) -> Result<T> {
    let type_name = type_name::<T>();
    let (codec_id, payload) = match stored.split_first() {
        Some((&RAW, _)) | None => return Err(Error::RawValue { type_name, key_len }),
        Some((&id, payload)) => (id, payload),
    };
    let Some(codec) = Codec::from_id(codec_id) else {
        return Err(Error::UnknownCodec { type_name, key_len, codec_id });
    };
    let value = match codec {
        Codec::Bincode => Bincode::decode(payload),
        #[cfg(feature = "json")]
        Codec::Json => Json::decode(payload),
    };
    value.map_err(|why| Error::Decode { type_name, key_len, codec, why })
}

/// The room for a value in the buffer that it is encoded into; a larger one makes it grow.
const ROOM_FOR_VALUE: usize = 128;

/// Checks that `stored`, a `T` that was just encoded, decodes as one: the encoder cannot see that
/// the type asks the data what it is, or does not read what it writes.
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

/// One way to write a value. A refusal is a fixed phrase: what serde says may quote the value.
trait Serializer {
    /// Encodes a value that [`decode`](Self::decode) gives back, or refuses.
    fn encode<T: Serialize + ?Sized>(value: &T, into: &mut Vec<u8>) -> Result<(), &'static str>;
    /// Decodes a value that fills `bytes`.
    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, &'static str>;
}

/// The bytes of bincode 1.3.3; the tests pin them, so that the crate behind it can be replaced.
struct Bincode;

impl Serializer for Bincode {
    fn encode<T: Serialize + ?Sized>(value: &T, into: &mut Vec<u8>) -> Result<(), &'static str> {
        use bincode::error::EncodeError as E;
        let guard = Guard::new(BATCH_LEN_MAX);
        let before = into.len();
        let checked = Checked::<T, false>::new(value, &guard);
        bincode::serde::encode_into_std_write(&checked, into, bincode::config::legacy()).map_err(
            |error| match error {
                _ if let Some(why) = guard.why() => why,
                E::Serde(bincode::serde::EncodeError::SequenceMustHaveLength) => NO_LENGTH,
                E::InvalidPathCharacters => "it holds a path that is not UTF-8",
                E::RefCellAlreadyBorrowed { .. } | E::LockFailed { .. } => {
                    "it holds a cell or lock that is in use"
                }
                _ => "its Serialize implementation refused",
            },
        )?;
        guard.check_written(into.len() - before)
    }

    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, &'static str> {
        // A length that lies can make the decoder allocate up to its limit, which is a constant;
        // so the limit follows the length of the bytes in a few steps.
        match bytes.len() {
            0..=0xFFF => decode_bincode::<T, 0x1000>(bytes),
            0x1000..=0xFFFF => decode_bincode::<T, 0x1_0000>(bytes),
            0x1_0000..=0xF_FFFF => decode_bincode::<T, 0x10_0000>(bytes),
            0x10_0000..=0xFF_FFFF => decode_bincode::<T, 0x100_0000>(bytes),
            _ => decode_bincode::<T, BATCH_LEN_MAX>(bytes),
        }
    }
}

fn decode_bincode<T: DeserializeOwned, const LIMIT: usize>(
    bytes: &[u8],
) -> Result<T, &'static str> {
    use bincode::error::DecodeError as E;
    use bincode::serde::DecodeError::{
        AnyNotSupported, IdentifierNotSupported, IgnoredAnyNotSupported,
    };
    let config = bincode::config::legacy().with_limit::<LIMIT>();
    let guard = Guard::new(bytes.len());
    let seed = Bounded::new(PhantomData::<T>, &guard);
    match bincode::serde::seed_decode_from_slice(seed, bytes, config) {
        Ok((value, used)) if used == bytes.len() => Ok(value),
        Ok(_) => Err("bytes are left over after it"),
        Err(_) if let Some(why) = guard.why() => Err(why),
        Err(E::UnexpectedEnd { .. } | E::LimitExceeded) => Err("the bytes end too early"),
        Err(E::UnexpectedVariant { .. }) => Err("no variant has the stored number"),
        Err(E::Utf8 { .. } | E::InvalidCharEncoding(_)) => Err("a text in it is not UTF-8"),
        Err(E::InvalidBooleanValue(_)) => Err("a flag in it is neither 0 nor 1"),
        Err(E::Serde(AnyNotSupported | IdentifierNotSupported | IgnoredAnyNotSupported)) => {
            Err(SELF_DESCRIBING)
        }
        Err(_) => Err("its Deserialize implementation refused"),
    }
}

#[cfg(feature = "json")]
struct Json;

#[cfg(feature = "json")]
impl Serializer for Json {
    fn encode<T: Serialize + ?Sized>(value: &T, into: &mut Vec<u8>) -> Result<(), &'static str> {
        let guard = Guard::new(BATCH_LEN_MAX);
        serde_json::to_writer(into, &Checked::<T, true>::new(value, &guard)).map_err(|_| {
            let other = "its Serialize implementation refused, or JSON has no form for it";
            guard.why().unwrap_or(other)
        })
    }

    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, &'static str> {
        use serde_json::error::Category;
        let guard = Guard::new(bytes.len());
        let seed = Bounded::new(PhantomData::<T>, &guard);
        let mut from = serde_json::Deserializer::from_slice(bytes);
        let value = seed.deserialize(&mut from).and_then(|value| from.end().map(|()| value));
        value.map_err(|error| match error.classify() {
            _ if let Some(why) = guard.why() => why,
            Category::Data => "a field is missing, unknown, or of another type",
            Category::Eof => "the text ends too early",
            Category::Syntax | Category::Io => "the text is not JSON",
        })
    }
}

const NO_LENGTH: &str = "it holds a sequence or map that does not know its length, as a struct \
                         with `flatten`; JSON can store it";
const SELF_DESCRIBING: &str = "the type asks the data what it is (an untagged or internally \
                               tagged enum, `serde_json::Value`), which only JSON can tell: such \
                               values must be written with `Codec::Json`";

/// Codec byte of raw bytes.
pub(crate) const RAW: u8 = 0;
const BINCODE: u8 = 1;
#[cfg(feature = "json")]
const JSON: u8 = 2;

#[cfg(test)]
mod tests;
