//! The key epoch of a log: its salt, its sealer and its counter.

use super::segment::LogPlace;
use crate::error::{Error, Result};
use crate::frame::{LogId, SALT_LEN};
use crate::header::{fill, seal_error};
use crate::seal::{SealError, Sealer};

/// The current epoch of a log, or none before the first frame.
#[derive(Debug, Default)]
pub(super) struct Epochs {
    now: Option<Epoch>,
}

/// One epoch: a run of counters under one salt.
#[derive(Debug)]
struct Epoch {
    id: [u8; 8],
    /// `None` in a plain store.
    sealer: Option<Box<dyn Sealer>>,
    counter: u64,
    /// Whether a frame of this epoch with its salt is in the file.
    is_written: bool,
}

impl Epochs {
    /// Returns the id of the epoch for the next frame, and its salt if the frame must carry it.
    /// Begins a new epoch if there is none, or if the key of the current one is worn.
    pub(super) fn begin(
        &mut self,
        place: &LogPlace,
        log: &LogId,
    ) -> Result<([u8; 8], Option<[u8; SALT_LEN]>)> {
        let is_worn = |epoch: &Epoch| epoch.sealer.as_ref().is_some_and(|sealer| sealer.is_worn());
        let now = match self.now.take().filter(|epoch| !is_worn(epoch)) {
            Some(epoch) => epoch,
            None => Epoch::new(place, log)?,
        };
        // Stored before a frame uses it: if that frame fails, the next attempt continues the same
        // epoch with the next counter.
        let now = self.now.insert(now);
        let salt = now.sealer.as_ref().map(|sealer| sealer.salt());
        Ok((now.id, salt.filter(|_| !now.is_written)))
    }

    /// Returns the number of the next attempt in this epoch. Each attempt takes a fresh number,
    /// also if the attempt before it failed.
    pub(super) fn next_counter(&mut self, place: &LogPlace) -> Result<u64> {
        let Some(now) = &mut self.now else { return Ok(0) };
        now.counter = match &mut now.sealer {
            None => now.counter + 1,
            Some(sealer) => sealer.next_counter().map_err(|e| refused(place, e))?,
        };
        Ok(now.counter)
    }

    /// Seals `buf[body..]` in place. Does nothing in a plain store.
    pub(super) fn seal(
        &mut self,
        place: &LogPlace,
        counter: u64,
        aad: &[u8],
        buf: &mut Vec<u8>,
        body: usize,
    ) -> Result<()> {
        match self.now.as_mut().and_then(|epoch| epoch.sealer.as_mut()) {
            None => Ok(()),
            Some(sealer) => sealer.seal(counter, aad, buf, body).map_err(|e| refused(place, e)),
        }
    }

    /// Records that a frame of the epoch is in the file, so that later frames omit the salt.
    pub(super) fn salt_is_written(&mut self) {
        if let Some(epoch) = &mut self.now {
            epoch.is_written = true;
        }
    }
}

impl Epoch {
    /// Begins an epoch: with the salt of a fresh sealer, or with a random id in a plain store.
    fn new(place: &LogPlace, log: &LogId) -> Result<Self> {
        let mut id = [0; 8];
        let Some(seal) = &place.seal else {
            fill(&*place.vfs.entropy, &place.path(), &mut id)?;
            return Ok(Self { id, sealer: None, counter: 0, is_written: false });
        };
        let sealer = seal.sealer(&log.info()).map_err(|e| refused(place, e))?;
        // The id is the first 8 bytes of the salt. A reader finds the salt by it.
        id.iter_mut().zip(sealer.salt()).for_each(|(to, byte)| *to = byte);
        Ok(Self { id, sealer: Some(sealer), counter: 0, is_written: false })
    }
}

/// Returns the error of a seal at the end of the log.
fn refused(place: &LogPlace, error: SealError) -> Error {
    seal_error(&place.path(), 0, error)
}
