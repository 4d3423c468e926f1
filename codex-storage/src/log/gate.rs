//! One place for all syncs of a log, so that a failure is seen by each that overlaps it.

use std::io;
use std::sync::Arc;

use crate::sync::Mutex;
use crate::vfs::File;

/// A file's syncs, one after another. The kernel reports a failed write-back to one caller of
/// fsync only; two that overlap would let the other believe its bytes are on disk.
#[derive(Debug)]
pub(super) struct SyncGate {
    file: Arc<dyn File>,
    failed: Mutex<Option<Arc<io::Error>>>,
}

impl SyncGate {
    pub(super) fn new(file: Arc<dyn File>) -> Self {
        Self { file, failed: Mutex::new(None) }
    }

    /// Syncs bytes that count. Once a sync has failed, so does each later one, without asking the
    /// disk: it would say yes, and the bytes are lost.
    pub(super) fn sync(&self) -> Result<(), Arc<io::Error>> {
        let mut failed = self.failed.lock();
        if let Some(error) = &*failed {
            return Err(Arc::clone(error));
        }
        self.file.sync().map_err(|error| {
            let error = Arc::new(error);
            *failed = Some(Arc::clone(&error));
            error
        })
    }

    /// Syncs space that nothing was written to but zeros: when it fails, nothing is lost, and
    /// the space is zeroed again before the next try.
    pub(super) fn sync_space(&self) -> Result<(), Arc<io::Error>> {
        let failed = self.failed.lock();
        match &*failed {
            Some(error) => Err(Arc::clone(error)),
            None => self.file.sync().map_err(Arc::new),
        }
    }
}
