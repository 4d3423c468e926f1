//! Durable ordered commits in three forms.
pub mod batch;
mod config;
mod error;
pub mod seal;
pub mod storage;
pub mod vfs;

pub use config::{Access, CheckpointPolicy, Config, Create, OnDamage};
pub use error::{Error, RecordError, Result};
