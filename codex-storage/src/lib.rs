//! Durable ordered commits in three forms.
pub mod batch;
mod config;
mod error;
mod null;
pub mod seal;
pub mod storage;
pub mod sync;
pub mod vfs;

pub use config::{Access, CheckpointPolicy, Config, Create, OnDamage};
pub use error::{Error, RecordError, Result};
pub use null::null;
