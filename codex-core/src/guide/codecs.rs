//! Codecs: which one to choose, and the mistakes that neither can detect.
//!
//! [`set`](crate::Store::set) encodes a value with the [`Codec`](crate::Codec) of the opening, and
//! each stored value records its codec. So the codec of a store can be changed at any opening:
//! values that were written before stay readable.
//!
//! | | [`Bincode`](crate::Codec::Bincode), the default | [`Json`](crate::Codec::Json) |
//! |---|---|---|
//! | size, speed | small, fast | about twice the bytes, slower |
//! | a struct gains a field | old values do not decode | they do, with `#[serde(default)]` |
//! | a struct loses or reorders a field | old values are errors, or wrong | they decode |
//! | `serde_json::Value`, `untagged`, `tag`, `flatten` | cannot be read back | work |
//! | `NaN`, infinities, maps with any keys | work | refused when stored |
//! | other programs can read it | no | yes |
//!
//! Use JSON for settings and documents, whose types change. Use bincode for many small values of a
//! type that does not change, or that is an enum with one variant for each version.
//!
//! # Bincode does not record types
//!
//! Bytes of bincode say nothing about the type that was stored. A wrong type is most often an
//! error, because the length is wrong. If the length is right, the result is a wrong value and no
//! error.
//!
//! A number read as another type of the same size:
//!
//! ```
//! # let store = codex_core::Store::in_memory()?;
//! store.set("count", &3_u64)?;
//! assert!(store.get::<u32>("count").is_err()); // another length
//! assert_eq!(store.get::<f64>("count")?, Some(1.5e-323)); // wrong, in silence
//! assert_eq!(store.get::<i64>("count")?, Some(3)); // right, up to i64::MAX
//!
//! // The type of a bare literal is i32, or f64 with a point. Write the suffix.
//! store.set("count", &3)?;
//! assert!(store.get::<u64>("count").is_err());
//! # Ok::<(), codex_core::Error>(())
//! ```
//!
//! Two structs of the same shape:
//!
//! ```
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Money {
//!     account: u64,
//!     cents: u64,
//! }
//! #[derive(Serialize, Deserialize)]
//! struct Swapped {
//!     cents: u64,
//!     account: u64,
//! }
//!
//! # let store = codex_core::Store::in_memory()?;
//! store.set("a", &Money { account: 7, cents: 250 })?;
//! let read = store.get::<Swapped>("a")?.expect("it was set");
//! assert_eq!((read.account, read.cents), (250, 7)); // the fields have changed places
//! # Ok::<(), codex_core::Error>(())
//! ```
//!
//! An array, which has no length in its bytes, and a `Vec` or a slice, which begins with one:
//!
//! ```
//! # let store = codex_core::Store::in_memory()?;
//! store.set("list", &[5_u32, 6, 7])?; // an array
//! assert!(store.get::<Vec<u32>>("list").is_err());
//! store.set("list", &[1_u32, 0, 7])?; // here the first two numbers look like a length of 1
//! assert_eq!(store.get::<Vec<u32>>("list")?, Some(vec![7])); // wrong, in silence
//!
//! store.set("list", [5_u32, 6, 7].as_slice())?; // a slice is read as a `Vec`
//! assert_eq!(store.get::<Vec<u32>>("list")?, Some(vec![5, 6, 7]));
//! # Ok::<(), codex_core::Error>(())
//! ```
//!
//! Other pairs of the kind: `Some(1_u8)` and the tuple `(1_u8, 1_u8)`; an enum and the number of
//! its variant as a `u32`; `String` and `Vec<u8>`. New variants of an enum go after the others,
//! because a variant is stored as its number.
//!
//! # How to be safe
//!
//! - Name a key and its type in one place: a pair of functions for each kind of value, which alone
//!   know the prefix. Then no other code can read with another type.
//! - Store an enum with one variant for each version of a type that will change, from the first
//!   version on:
//!
//! ```
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! enum Settings {
//!     V1 { theme: String },
//!     V2 { theme: String, font_size: u8 },
//! }
//!
//! impl Settings {
//!     fn font_size(&self) -> u8 {
//!         match self {
//!             Self::V1 { .. } => 12,
//!             Self::V2 { font_size, .. } => *font_size,
//!         }
//!     }
//! }
//!
//! # let store = codex_core::Store::in_memory()?;
//! store.set("settings", &Settings::V1 { theme: "dark".into() })?;
//! let settings = store.get::<Settings>("settings")?.expect("it was set");
//! assert_eq!(settings.font_size(), 12);
//! # Ok::<(), codex_core::Error>(())
//! ```
//!
//! - Or use JSON, whose objects name their fields. A `u64` that is read as an `f64` is the nearest
//!   number there, and a struct of another shape is an error:
//!
//! ```
//! # #[cfg(feature = "json")] {
//! use codex_core::{Codec, Store};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct First {
//!     theme: String,
//! }
//! #[derive(Serialize, Deserialize)]
//! struct Second {
//!     theme: String,
//!     #[serde(default)]
//!     font_size: Option<u8>,
//! }
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("settings.db");
//! let store = Store::options().codec(Codec::Json).open(&path)?;
//! store.set("settings", &First { theme: "dark".into() })?;
//! let settings: Option<Second> = store.get("settings")?;
//! assert_eq!(settings.and_then(|settings| settings.font_size), None);
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Types that need JSON
//!
//! The `Deserialize` of some types asks the data for its type: `serde_json::Value`, and types with
//! serde's `untagged`, `tag` or `flatten`. Bytes of bincode cannot answer. Storing such a value
//! under bincode is an error if the encoder notices, and if not, reading it is:
//!
//! ```
//! # #[cfg(feature = "json")] {
//! use codex_core::{Codec, Store};
//! use serde_json::{Value, json};
//!
//! # let store = Store::in_memory()?;
//! store.set("document", &json!("text"))?; // bincode: stored
//! assert!(store.get::<Value>("document").is_err()); // and never read
//! assert!(store.set("document", &json!({"a": 1, "b": "two"})).is_err()); // or refused
//!
//! let store = Store::options().codec(Codec::Json).in_memory()?;
//! store.set("document", &json!({"a": 1, "b": "two"}))?;
//! assert_eq!(store.get("document")?, Some(json!({"a": 1, "b": "two"})));
//! # }
//! # Ok::<(), codex_core::Error>(())
//! ```
//!
//! [`update`](crate::Store::update) and the other methods that have the type of the value decode
//! what they have encoded before they write it, so they refuse both cases.
//!
//! # Bytes
//!
//! [`set_bytes`](crate::Store::set_bytes) and [`get_bytes`](crate::Store::get_bytes) use no codec:
//! for images, compressed data, and values that another library encodes. `get_bytes` copies
//! nothing.
//!
//! ```
//! # let store = codex_core::Store::in_memory()?;
//! store.set_bytes("icon", [0x89, b'P', b'N', b'G'])?;
//! assert_eq!(store.get_bytes("icon").as_deref(), Some(b"\x89PNG".as_slice()));
//! assert!(store.get::<Vec<u8>>("icon").is_err()); // bytes have no type
//! # Ok::<(), codex_core::Error>(())
//! ```
