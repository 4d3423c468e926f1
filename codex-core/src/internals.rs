//! Types of the engine, for the tests in `tests/`: no part of the API.

pub use crate::commit::{Change, Check, Commit, Outcome, SmallVec};
pub use crate::engine::{Engine, EngineOptions, EngineStats, View};
pub use crate::entry::Entry;
pub use crate::locks::{Locks, PersistGuard};
pub use crate::map::{Map, MapBuilder, Ordered};

/// The same options for a store that neither syncs nor checkpoints by itself, so that the same
/// calls make the same trace.
pub fn without_threads(options: crate::OpenOptions) -> crate::OpenOptions {
    options.without_threads()
}

#[cfg(feature = "crypto")]
pub use keyed::{change_key, keys, open, rekey};

/// Stores under keys that a test wraps.
#[cfg(feature = "crypto")]
mod keyed {
    use std::sync::Arc;

    use codex_crypto::{Cipher, Key};
    use codex_storage::seal::Keys;
    use codex_storage::vfs::{Entropy, Vfs};

    use crate::seal::{SharedKey, UserKey};
    use crate::{OpenOptions, Result, Store};

    /// A user's key in the form that storage takes.
    pub fn keys(key: Key, cipher: Cipher, entropy: Arc<dyn Entropy>) -> Arc<dyn Keys> {
        Arc::new(UserKey::new(SharedKey::new(key), cipher, entropy))
    }

    /// Opens the store `name` as `options` say, under these keys.
    ///
    /// # Errors
    /// As [`OpenOptions::open_in`].
    pub fn open(
        options: &OpenOptions,
        vfs: &Vfs,
        name: &str,
        keys: Arc<dyn Keys>,
    ) -> Result<Store> {
        options.open_with(vfs, name, keys)
    }

    /// As [`Store::change_key`].
    ///
    /// # Errors
    /// As there.
    pub fn change_key(store: &Store, keys: &dyn Keys) -> Result<()> {
        store.change_keys(keys)
    }

    /// As [`Store::rekey`].
    ///
    /// # Errors
    /// As there.
    pub fn rekey(store: &Store, keys: &dyn Keys) -> Result<()> {
        store.rekey_with(keys)
    }
}
