//! An embedded key-value store for data that fits in memory.
mod commit;
mod engine;
mod entry;
mod error;
mod locks;
mod map;
#[doc(hidden)]
pub mod proof;
mod rank;
mod value;

pub use error::{Error, Result};
pub use value::Codec;
