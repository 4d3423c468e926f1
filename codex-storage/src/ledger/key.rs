//! Another key for a ledger: the envelope made anew in the two header slots, or the whole log
//! copied under a fresh root key.

use std::io;
use std::sync::Arc;

use super::rewrite::{Rewrite, install};
use super::{Ledger, Phase};
use crate::codec::u64_of;
use crate::error::{Error, Result};
use crate::header::{Header, fresh_id};
use crate::names::Temporary;
use crate::seal::Keys;
use crate::slots::{replace, replacement};
use crate::storage::{Checkpoint, Retired, Written};
use crate::vfs::{File, Mode, Open};

impl Ledger {
    /// Replaces the envelope by the two header slots.
    pub(super) fn change(&mut self, keys: &dyn Keys) -> Result<()> {
        self.writer()?;
        self.refuse_while_pending()?;
        let seal = self.place.seal.clone();
        let header = self.header.rewrapped(seal.as_deref(), keys, self.condition.path())?;
        let (header, bytes) = replacement(header, seal.as_deref());
        let writer = self.writer()?;
        replace(&bytes, &mut |bytes, at| writer.put_slot(bytes, at))?;
        self.header = header;
        Ok(())
    }

    /// Hands out the copying of all commits under a fresh root key.
    pub(super) fn begin_rekey(&mut self, keys: &dyn Keys) -> Result<Checkpoint> {
        self.writer()?.refuse_if_poisoned()?;
        self.refuse_while_pending()?;
        let path = self.condition.path();
        if self.place.seal.is_none() {
            return Err(Error::NotEncrypted { path: path.to_owned() });
        }
        let (header, seal) = self.header.under_fresh_root(keys, path)?;
        let header = Header { file_id: fresh_id(&self.place.vfs, path)?, ..header };
        let rewrite =
            Rewrite::begin(&self.place, self.durability, &self.header, header, Some(seal))?;
        let (copying, reached) = (rewrite.copying.clone(), self.writer()?.reached());
        let temporary = rewrite.temporary.clone();
        self.pending = Some(rewrite);
        Ok(Checkpoint::new(move |_state, progress| {
            let end = copying.catch_up(&reached, progress)?;
            Ok(Written { temporary, seq: end.seq, bytes: end.offset, generation: 1 })
        }))
    }

    /// Copies what is left, and puts the copy in the ledger's place.
    pub(super) fn finish_rekey(&mut self, done: Result<Written>) -> Result<()> {
        let Some(rewrite) = self.pending.take() else {
            return done.and(Err(Error::Contradiction("no rekey has begun")));
        };
        let temporary = rewrite.temporary.clone();
        let (header, seal) = (rewrite.header.clone(), rewrite.seal.clone());
        let copied = done.and_then(|_| {
            self.writer()?.sync()?;
            let writer = rewrite.complete(self.end().seq)?;
            self.prepare(&temporary)?;
            Ok(writer)
        });
        let mut writer = copied.inspect_err(|_| drop(self.place.vfs.dir.remove(&temporary)))?;
        if let Err(e) = install(&mut writer, &self.place, &temporary) {
            let error = match e {
                Error::Io { .. } => Error::Poisoned {
                    path: self.place.path(),
                    reason: format!("putting the new ledger in place failed: {e}"),
                },
                other => other,
            };
            self.writer()?.poison(&error);
            return Err(error);
        }
        let replaced = std::mem::replace(&mut self.phase, Phase::Writing(writer));
        self.retired = Some(Retired::new(replaced));
        self.place.seal = seal;
        self.header = header;
        Ok(())
    }

    /// Puts a copy of the file in its own place: whoever gave it its name may have failed to make
    /// that durable, and a later sync of the folder would prove nothing.
    pub(super) fn name_again(&self, file: &dyn File) -> Result<Arc<dyn File>> {
        let temporary = self.place.names.temporary(Temporary::Ledger);
        let dir = &self.place.vfs.dir;
        let copied = || -> io::Result<Arc<dyn File>> {
            let copy = dir.open(&temporary, Open::CreateNew(Mode::Private))?;
            let (len, mut at) = (file.len()?, 0);
            let mut buf = Vec::new();
            while at < len {
                let rest = usize::try_from(len - at).unwrap_or(PIECE);
                buf.resize(rest.min(PIECE), 0);
                file.read_exact_at(&mut buf, at)?;
                copy.write_all_at(&buf, at)?;
                at += u64_of(buf.len());
            }
            copy.sync()?;
            self.place.install(&temporary).map_err(|failed| failed.source)?;
            Ok(copy)
        };
        copied()
            .map_err(|e| Error::io("put the ledger in place again as", self.condition.path(), e))
    }

    fn refuse_while_pending(&self) -> Result<()> {
        match self.pending {
            Some(_) => Err(Error::Contradiction("a rekey is running: finish it first")),
            None => Ok(()),
        }
    }
}

/// How much is copied at a time, in bytes.
const PIECE: usize = 256 << 10;
