//! Other embedded stores, each with the settings that make the promise at the least cost.

mod emdb;
mod fjall;
mod lmdb;
mod redb;
mod sled;
mod sqlite;
mod surrealkv;

use crate::engine::Kind;

pub(crate) const KINDS: [Kind; 7] =
    [emdb::KIND, fjall::KIND, lmdb::KIND, redb::KIND, sled::KIND, sqlite::KIND, surrealkv::KIND];
