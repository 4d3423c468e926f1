//! The one place that syncs a log, so that all concurrent callers learn of a failed sync.

use std::io;
use std::sync::Arc;

use crate::sync::Mutex;
use crate::vfs::File;

/// Runs the syncs of a file one after another. The kernel reports a failed write-back to only one
/// caller of fsync. If two calls overlapped, the other caller would believe that its bytes are on
/// the disk.
#[derive(Debug)]
pub(super) struct SyncGate {
    file: Arc<dyn File>,
    failed: Mutex<Option<Arc<io::Error>>>,
}

impl SyncGate {
    pub(super) fn new(file: Arc<dyn File>) -> Self {
        Self { file, failed: Mutex::new(None) }
    }

    /// Syncs written frames. After a failed sync, each later call returns the same error without a
    /// call to the disk: the kernel would report success, although the bytes are lost.
    pub(super) fn sync(&self) -> Result<(), Arc<io::Error>> {
        // Order: the lock is held during the sync and until its error is recorded, so that no other
        // sync of the file can succeed in between.
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

    /// Syncs space that contains only zeros. If it fails, no data is lost: the space is zeroed
    /// again before the next attempt.
    pub(super) fn sync_space(&self) -> Result<(), Arc<io::Error>> {
        // The lock is held during this sync too, so that syncs never overlap.
        let failed = self.failed.lock();
        match &*failed {
            Some(error) => Err(Arc::clone(error)),
            None => self.file.sync().map_err(Arc::new),
        }
    }
}
