//! Creating the folders of a path, durably.

use std::io;
use std::path::Path;

use rustix::fs::{self, OFlags};
use rustix::io::{Errno, retry_on_intr};

use super::OsDir;

impl OsDir {
    /// Creates the folder `path` and all missing folders above it, with the mode 0700, and makes
    /// their names durable. An empty path is the working directory, which exists.
    ///
    /// # Errors
    /// The errors of the operating system. Folders above the one that failed may have been created.
    pub fn create_folders(path: impl AsRef<Path>) -> io::Result<()> {
        let mut missing = Vec::new();
        for folder in path.as_ref().ancestors().filter(|folder| !folder.as_os_str().is_empty()) {
            match retry_on_intr(|| fs::stat(folder)) {
                Ok(_) => break,
                Err(Errno::NOENT) => missing.push(folder),
                Err(errno) => return Err(errno.into()),
            }
        }
        for folder in missing.into_iter().rev() {
            match retry_on_intr(|| fs::mkdir(folder, fs::Mode::RWXU)) {
                // Another process created it meanwhile.
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
            // Order: the name of a folder is durable before the next one is created in it, so that
            // no store is acknowledged in a folder that a power cut takes back.
            let above = folder.parent().filter(|above| !above.as_os_str().is_empty());
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let above = above.unwrap_or(Path::new("."));
            let above = retry_on_intr(|| fs::open(above, flags, fs::Mode::empty()))?;
            retry_on_intr(|| fs::fsync(&above))?;
        }
        Ok(())
    }
}
