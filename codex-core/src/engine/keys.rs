//! The keys of a store: another one for the open store, and the root key that its files are under.

use std::sync::Arc;

use codex_storage::Result;
use codex_storage::seal::{Keys, Seal};

use super::{Engine, Shared};
use crate::commit::Request;
use crate::rank::{self, Rank};

impl Engine {
    /// Lets `keys` open the store from now on, in place of the key before.
    ///
    /// # Errors
    /// `NotEncrypted`, `Seal`, of the disk: nothing was changed. `InDoubt`, `Poisoned`: either key
    /// may open the store. `Closed`.
    pub fn change_key(&self, keys: Arc<dyn Keys>) -> Result<()> {
        self.shared.change_key(keys)
    }

    /// Puts the store under a fresh root key, which `keys` wraps, beside running writers.
    ///
    /// # Errors
    /// As [`change_key`](Self::change_key); `Abandoned` by a close.
    pub fn rekey(&self, keys: Arc<dyn Keys>) -> Result<()> {
        self.shared.image(Request::Rekey(keys), &|_, _| true).map(|_| ())
    }

    /// The root key that the files are under; `None` if they are not encrypted. Waits for the
    /// group that is being written.
    pub(crate) fn seal(&self) -> Option<Arc<dyn Seal>> {
        self.shared.core.seal()
    }

    /// Calls `f` with what opens the files, and once more after each rekey that ended meanwhile if
    /// that made `f` fail.
    ///
    /// # Errors
    /// As `f`.
    pub(crate) fn under_seal<R, E>(
        &self,
        mut f: impl FnMut(Option<Arc<dyn Seal>>) -> Result<R, E>,
    ) -> Result<R, E> {
        let mut seal = self.seal();
        loop {
            let done = f(seal.clone());
            let now = self.seal();
            if done.is_ok() || now.as_ref().map(|it| it.root_id()) == seal.map(|it| it.root_id()) {
                return done;
            }
            seal = now;
        }
    }
}

impl Shared {
    fn change_key(&self, keys: Arc<dyn Keys>) -> Result<()> {
        // An image that is being written would bring the old envelope back.
        let _rank = rank::take(Rank::Checkpoint);
        let _one = self.checkpoint.lock();
        self.submit(Request::ChangeKey(keys)).map(|_| ())
    }
}
