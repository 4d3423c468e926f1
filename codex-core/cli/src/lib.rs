//! A page that shows an open CodexDB store to browsers on the same machine, for applications: see
//! [`view`]. The program `codexdb` is the other part of this package.
//!
//! ```toml
//! codexdb = { path = "codex-core/cli", default-features = false, features = ["view"] }
//! ```

// Shared with the program.
#[doc(hidden)]
pub mod key;
#[cfg(feature = "view")]
#[doc(hidden)]
pub mod space;
#[doc(hidden)]
pub mod time;
#[cfg(feature = "view")]
#[doc(hidden)]
pub mod types;
#[cfg(feature = "view")]
pub mod view;
