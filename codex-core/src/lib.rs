//! An embedded key-value store for data that fits in memory.
mod error;
mod value;

pub use error::{Error, Result};
pub use value::Codec;
