//! Another key for a ledger: the same frames after a header with another envelope, or all commits
//! copied under a fresh root key.

use super::Ledger;
use super::rewrite::{Rewrite, copy_under, install};
use crate::error::{Error, Result};
use crate::header::{Header, following, fresh_id};
use crate::names::Temporary;
use crate::seal::Keys;
use crate::storage::{Checkpoint, Retired, Written};

impl Ledger {
    /// Writes the same frames again, after a header with another envelope.
    pub(super) fn change(&mut self, keys: &dyn Keys) -> Result<()> {
        self.writer()?;
        self.refuse_while_pending()?;
        let seal = self.files.seal.as_deref();
        let header = self.header.rewrapped(seal, keys, self.write_state.path())?;
        self.write_again(header)
    }

    /// Makes the name of the file durable before the first commit. The handle that named the file
    /// may have failed to sync the directory, and a later sync of the directory is no proof that it
    /// succeeded.
    pub(super) fn settle_name(&mut self) -> Result<()> {
        self.writer()?.refuse_if_poisoned()?;
        if self.is_named {
            return Ok(());
        }
        let slot_counter = following(self.header.slot_counter, self.write_state.path())?;
        self.write_again(Header { slot_counter, ..self.header.clone() })
    }

    /// Replaces the file by a copy with the header `header`, and continues in the copy.
    fn write_again(&mut self, header: Header) -> Result<()> {
        let writer = self.writer()?;
        // Order: sync, copy, then rename. The copy has every commit that was acknowledged before it
        // takes the name.
        writer.sync()?;
        let end = *writer.end();
        let header = Header { named_seq: end.seq, ..header };
        let temporary = self.files.names.temporary(Temporary::Ledger);
        let (file, len) = copy_under(&self.files, &header, end.offset, &temporary)?;
        let prepared = self.prepare(&temporary);
        prepared.inspect_err(|_| drop(self.files.vfs.dir.remove(&temporary)))?;
        self.install(&temporary)?;
        // The replaced file is closed here. No other thread has it.
        drop(self.writer()?.move_to(file, len));
        self.live.forget();
        self.header = header;
        self.is_named = true;
        Ok(())
    }

    /// Gives a complete copy the name of the ledger, durably.
    ///
    /// # Errors
    /// `Poisoned` if the rename or its sync fails, because either file may have the name.
    fn install(&mut self, temporary: &str) -> Result<Option<Retired>> {
        install(&self.files, temporary).or_else(|e| {
            let reason = format!("putting the new ledger in place failed: {e}");
            let error = Error::Poisoned { path: self.files.path(), reason };
            self.writer()?.poison(&error);
            Err(error)
        })
    }

    /// Returns the copying of all commits under a fresh root key, to run beside the writer.
    pub(super) fn begin_rekey(&mut self, keys: &dyn Keys) -> Result<Checkpoint> {
        self.writer()?.refuse_if_poisoned()?;
        self.refuse_while_pending()?;
        self.settle_name()?;
        let path = self.write_state.path();
        if self.files.seal.is_none() {
            return Err(Error::NotEncrypted { path: path.to_owned() });
        }
        let (header, seal) = self.header.under_fresh_root(keys, path)?;
        let header = Header {
            file_id: fresh_id(&self.files.vfs, path)?,
            compression: self.files.compression,
            slot_counter: following(header.slot_counter, path)?,
            ..header
        };
        let rewrite =
            Rewrite::begin(&self.files, self.durability, &self.header, header, Some(seal))?;
        let (copy, position) = (rewrite.copy.clone(), self.writer()?.position());
        let temporary = rewrite.temporary.clone();
        self.pending = Some(rewrite);
        Ok(Checkpoint::new(move |_state, progress| {
            let end = copy.catch_up(&position, progress)?;
            Ok(Written { temporary, seq: end.seq, bytes: end.offset, generation: 1 })
        }))
    }

    /// Copies the rest, and gives the copy the name of the ledger.
    pub(super) fn finish_rekey(&mut self, done: Result<Written>) -> Result<()> {
        let Some(rewrite) = self.pending.take() else {
            return done.and(Err(Error::Contradiction("no rekey has begun")));
        };
        let temporary = rewrite.temporary.clone();
        let copied = done.and_then(|_| {
            // Order: the ledger is durable up to its end before the copy is completed. If the rekey
            // fails after this point, no commit is lost.
            self.writer()?.sync()?;
            let writer = rewrite.complete(self.writer.end().seq)?;
            self.prepare(&temporary)?;
            Ok(writer)
        });
        let (writer, header) =
            copied.inspect_err(|_| drop(self.files.vfs.dir.remove(&temporary)))?;
        // Order: the rename before the writer changes. Commits are never written to a file without
        // its name.
        let replaced = self.install(&temporary)?;
        let replaced = (replaced, std::mem::replace(&mut *self.writer, writer));
        self.retired = Some(Retired::new(replaced));
        self.files.seal.clone_from(&rewrite.seal);
        self.header = header;
        self.is_named = true;
        Ok(())
    }

    /// Returns an error if a rekey is running.
    fn refuse_while_pending(&self) -> Result<()> {
        match self.pending {
            Some(_) => Err(Error::Contradiction("a rekey is running: finish it first")),
            None => Ok(()),
        }
    }
}
