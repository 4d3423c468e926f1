//! An image of the state of an open storage, as a store of its own in another place.

use crate::error::Result;
use crate::history::History;
use crate::image::{ImageSpec, WriteAt};
use crate::main_file::{FileFacts, image_facts};
use crate::storage::{State, Written};

/// An image of the last commit of a storage, which is not written yet. It will be a store of its
/// own, under the same key.
#[derive(Debug)]
pub struct SeparateImage {
    pub(crate) spec: ImageSpec,
    pub(crate) history: History,
}

impl SeparateImage {
    /// Writes the image of `state` under its temporary name, syncs it and reads it back. `state` is
    /// the state at the last commit. Works like
    /// [`Checkpoint::write`](crate::storage::Checkpoint::write).
    ///
    /// # Errors
    /// As [`Checkpoint::write`](crate::storage::Checkpoint::write).
    pub fn write(self, state: &dyn State, progress: &dyn Fn(u64) -> bool) -> Result<Written> {
        self.spec.write(state, &self.history, progress)
    }

    /// Passes the bytes of the image of `state` to `output`, in ascending order of their offsets.
    /// `progress` receives the number of entries so far, after each block, and returns `false` to
    /// stop. The caller syncs the file and reads it back.
    ///
    /// # Errors
    /// The errors of `output`, as `Io` or `NoSpace`; `Seal`; `Abandoned` if `progress` returned
    /// `false`.
    pub fn write_to(
        self,
        state: &dyn State,
        output: &mut WriteAt<'_>,
        progress: &dyn Fn(u64) -> bool,
    ) -> Result<()> {
        self.spec.write_to(state, &self.history, output, progress)
    }

    /// Returns the facts of the image, except its length, which is 0 before it is written.
    ///
    /// # Errors
    /// `Damaged` if the header would not read back.
    pub fn facts(&self) -> Result<FileFacts> {
        self.spec.found().map(|found| image_facts(&found, 0))
    }
}
