//! A new file that has its name only when it is whole.

use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::Outcome;
use crate::failure::Failure;

/// A file that is written under the name `NAME.part`. It is removed if it is not finished, unless
/// the program is ended by a signal.
pub(crate) struct WholeFile {
    to: PathBuf,
    part: PathBuf,
    file: BufWriter<File>,
}

impl WholeFile {
    /// Begins the file `to`, which must not exist.
    pub(crate) fn create(to: &Path) -> Outcome<Self> {
        let mut part = to.to_owned().into_os_string();
        part.push(".part");
        let part = PathBuf::from(part);
        let failed = |path: &Path, source| Failure::file(path.display(), source);
        if to.symlink_metadata().is_ok() {
            return Err(failed(to, Errno::EXIST.into()));
        }
        let file = File::create_new(&part).map_err(|source| match source.kind() {
            ErrorKind::AlreadyExists => {
                let text = "is there, from an export that was interrupted or still runs";
                Failure::file(format!("{} {text}", part.display()), source)
            }
            _ => failed(&part, source),
        })?;
        Ok(Self { to: to.to_owned(), part, file: BufWriter::new(file) })
    }

    pub(crate) fn write_line(&mut self, line: &str) -> Outcome<()> {
        writeln!(self.file, "{line}").map_err(|source| self.failed(source))
    }

    /// Gives the file its name. A file that has this name by now is left as it is.
    pub(crate) fn finish(mut self) -> Outcome<()> {
        // Order: the bytes are on the disk before the name is.
        let written = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        written.and_then(|()| self.rename()).map_err(|source| self.failed(source))
    }

    fn rename(&self) -> io::Result<()> {
        match fs::hard_link(&self.part, &self.to) {
            // Some file systems have no links.
            Err(error) if error.kind() != ErrorKind::AlreadyExists && !self.to.exists() => {
                fs::rename(&self.part, &self.to)
            }
            linked => linked,
        }
    }

    fn failed(&self, source: io::Error) -> Failure {
        Failure::file(self.to.display(), source)
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        // It is gone already if it was renamed.
        let _ = fs::remove_file(&self.part);
    }
}
