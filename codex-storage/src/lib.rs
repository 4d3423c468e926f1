//! Durable ordered commits in three forms.
pub mod vfs;
