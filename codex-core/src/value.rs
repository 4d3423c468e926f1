//! How values become bytes and come back: one codec byte, then what the codec makes of the value.

use std::fmt;

/// How [`set`](crate::Store::set) turns a value into bytes.
///
/// Every stored value says which codec it was written with, so a store may change its codec at
/// any time: values written before stay readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Codec {
    /// bincode 1.3's fixed-width little-endian layout: small and fast, and the default.
    ///
    /// Fields have no names in it. A struct that gains, loses or reorders a field no longer reads
    /// what was stored before: mostly that is [`Error::Decode`], but two layouts of the same
    /// length and shape cannot be told apart. Choose JSON for types that will grow, or wrap them
    /// in an enum with a variant per version.
    #[default]
    Bincode,
    /// JSON text: fields have names, so types may gain optional ones (`#[serde(default)]`), and
    /// other tools can read it. It cannot hold `NaN`, infinities, or maps with other than
    /// string-like keys.
    #[cfg(feature = "json")]
    Json,
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
