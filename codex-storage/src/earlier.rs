//! A store as it was at an earlier point, in a temporary file.

use crate::error::Result;
use crate::main_file::MainFile;
use crate::vfs::Vfs;

/// A store as it was at an earlier point, in a temporary file that is removed when this value is
/// dropped.
#[derive(Debug)]
pub struct EarlierStore {
    vfs: Vfs,
    temporary: String,
    main: MainFile,
}

impl EarlierStore {
    /// Returns the store in the file `temporary`, which is removed if `main` is an error.
    pub(crate) fn new(vfs: Vfs, temporary: String, main: Result<MainFile>) -> Result<Self> {
        let main = main.inspect_err(|_| drop(vfs.dir.remove(&temporary)))?;
        Ok(Self { vfs, temporary, main })
    }

    /// Returns the file, which ends at the point.
    pub fn main_file(&self) -> &MainFile {
        &self.main
    }

    /// Returns the temporary name of the file.
    pub fn name(&self) -> &str {
        &self.temporary
    }
}

impl Drop for EarlierStore {
    fn drop(&mut self) {
        // If this fails, the next open for writing removes the temporary file.
        let _ = self.vfs.dir.remove(&self.temporary);
    }
}
