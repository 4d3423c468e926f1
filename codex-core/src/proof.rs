//! The engine's own types, for the proofs in `tests/`: no part of the API.

pub use crate::commit::{Change, Check, Commit, Few, Outcome};
pub use crate::engine::{Engine, EngineOptions, EngineStats, View};
pub use crate::entry::Entry;
pub use crate::locks::{Locks, PersistGuard};
pub use crate::map::{Map, MapBuilder, Ordered};
