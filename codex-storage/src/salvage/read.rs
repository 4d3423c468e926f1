//! Reading the intact contents of the files of a store.

use std::path::Path;
use std::sync::Arc;

use super::{Contents, Taken};
use crate::config::OnDamage;
use crate::convert::Entries;
use crate::error::{Error, Result};
use crate::files::StoreFiles;
use crate::header::{FileKind, Found, Header};
use crate::history::Position;
use crate::image::{ImageReader, LostKeys};
use crate::log::LogReader;
use crate::main_file::MainFile;
use crate::names::{Names, Role};
use crate::open::open_regular;
use crate::pack::Compression;
use crate::seal::{Keys, Seal};
use crate::storage::{Form, State as _};
use crate::vfs::{File, Vfs};
use crate::wal;

/// The state of a salvage.
pub(super) struct Reading<'a> {
    pub(super) vfs: &'a Vfs,
    pub(super) names: Names,
    pub(super) keys: Option<&'a dyn Keys>,
    pub(super) faults: Vec<Error>,
}

/// The intact contents of one main file or backup.
pub(super) struct Part {
    pub(super) header: Header,
    pub(super) seal: Option<Arc<dyn Seal>>,
    pub(super) contents: Contents,
    pub(super) taken: Vec<Taken>,
    /// The last commit.
    pub(super) end: Position,
    pub(super) is_exact: bool,
    pub(super) lost: Vec<LostKeys>,
    pub(super) lost_entries: Option<u64>,
}

impl Reading<'_> {
    /// Returns the contents that lose the least.
    pub(super) fn best(&mut self) -> Result<Part> {
        let name = self.names.main().to_owned();
        let main = self.part(&name)?;
        let store_id = main.as_ref().map(|part| part.header.store_id);
        let mut part = match main {
            Some(part) if part.is_exact => {
                let mut part = part;
                self.add_log(&mut part)?;
                // The backup is needed if it has later commits than what is intact.
                if !self.faults.is_empty()
                    && let Some(backup) = self.newest_backup(store_id)?
                    && backup.end.seq > part.end.seq
                {
                    part = backup;
                }
                return Ok(part);
            }
            Some(part) => match self.newest_backup(store_id)? {
                Some(backup) if backup.end.seq > part.end.seq => backup,
                Some(backup) => part.filled_from(backup),
                None => part,
            },
            None => match self.newest_backup(None)? {
                Some(backup) => backup,
                // There is at least the fault of the main file.
                None => return Err(self.faults.swap_remove(0)),
            },
        };
        self.add_log(&mut part)?;
        // Order: after the log. If nothing at all is intact, an empty store must not look like a
        // repaired one.
        if !part.is_exact && matches!(&part.contents, Contents::Entries(it) if it.len() == 0) {
            return Err(self.faults.swap_remove(0));
        }
        Ok(part)
    }

    /// Reads the main file or backup `name`. Returns `None` if nothing of it can be read.
    fn part(&mut self, name: &str) -> Result<Option<Part>> {
        let (vfs, path) = (self.vfs, self.vfs.dir.path(name));
        let file = match open_regular(vfs, &Names::staged(name), &path) {
            Ok(Some(file)) => file,
            Ok(None) => {
                self.faults.push(Error::NotFound { path });
                return Ok(None);
            }
            Err(error) => return self.fault(error).map(|()| None),
        };
        let Some((header, bytes, seal)) = self.header(&*file, &path)? else { return Ok(None) };
        if header.kind == FileKind::Log {
            return self.ledger(name, file, header, seal);
        }
        let image = match ImageReader::new(file, &path, header.clone(), bytes, seal.clone()) {
            Ok(image) => image,
            Err(error) => return self.fault(error).map(|()| None),
        };
        let mut entries = Entries::default();
        let intact = image.salvage(&mut |op| {
            entries.apply(op);
            Ok(())
        })?;
        for error in intact.faults {
            self.fault(error)?;
        }
        let taken = Taken { file: name.to_owned(), entries: intact.entries, commits: 0 };
        Ok(Some(Part {
            end: Position { seq: header.base_seq, digest: header.base_digest },
            header,
            seal,
            contents: Contents::Entries(entries),
            taken: vec![taken],
            is_exact: intact.lost.is_empty(),
            lost: intact.lost,
            lost_entries: intact.lost_entries.filter(|lost| *lost > 0),
        }))
    }

    /// Reads the header, or the second one of an image, and authenticates it.
    fn header(&mut self, file: &dyn File, path: &Path) -> Result<Option<HeaderParts>> {
        let mut first_fault = None;
        for slot in [Found::first, Found::second] {
            let unlocked = slot(file, path).and_then(|found| {
                let bytes = found.bytes().to_vec();
                found.unlock(self.keys, path).map(|(header, seal)| (header, bytes, seal))
            });
            match unlocked {
                Ok(parts) => {
                    self.faults.extend(first_fault);
                    return Ok(Some(parts));
                }
                Err(error) if is_about_the_key(&error) => return Err(error),
                Err(error) => _ = first_fault.get_or_insert(error),
            }
        }
        first_fault.map_or(Ok(()), |error| self.fault(error)).map(|()| None)
    }

    /// Reads the commits of a ledger up to the first damage.
    fn ledger(
        &mut self,
        name: &str,
        file: Arc<dyn File>,
        header: Header,
        seal: Option<Arc<dyn Seal>>,
    ) -> Result<Option<Part>> {
        let path = self.vfs.dir.path(name);
        let from = Arc::clone(&file);
        let mut reader = LogReader::new(from, &path, &header, seal.clone(), 0, OnDamage::Refuse)?;
        let mut commits = 0;
        loop {
            match reader.next() {
                Ok(Some(group)) => commits += u64::from(group.count),
                Ok(None) => break,
                Err(error) => {
                    self.fault(error)?;
                    break;
                }
            }
        }
        let end = *reader.end();
        let main = MainFile::new(file, &path)?.upto(end.seq, end.offset);
        Ok(Some(Part {
            end: Position { seq: end.seq, digest: end.digest },
            header,
            seal,
            contents: Contents::Ledger(main.to_copy()?.0),
            taken: vec![Taken { file: name.to_owned(), entries: 0, commits }],
            is_exact: true,
            lost: Vec::new(),
            lost_entries: None,
        }))
    }

    /// Adds the commits of the log that continues `part`, up to the first damage.
    fn add_log(&mut self, part: &mut Part) -> Result<()> {
        let Contents::Entries(entries) = &mut part.contents else { return Ok(()) };
        if part.header.form != Form::Wal {
            return Ok(());
        }
        let (vfs, names) = (self.vfs.clone(), self.names.clone());
        let files = StoreFiles {
            vfs,
            names,
            seal: part.seal.clone(),
            compression: Compression::None,
            lock: None,
        };
        let log = wal::salvage(&files, &part.header, &mut |op| {
            entries.apply(op);
            Ok(())
        })?;
        for error in log.faults {
            self.fault(error)?;
        }
        part.end = log.end;
        let taken = |(file, commits)| Taken { file, entries: 0, commits };
        part.taken.extend(log.segments.into_iter().map(taken));
        Ok(())
    }

    /// Returns the newest backup of the store that is intact. Damage of newer ones is a fault.
    fn newest_backup(&mut self, store_id: Option<[u8; 16]>) -> Result<Option<Part>> {
        for name in self.backups()? {
            let before = self.faults.len();
            match self.part(&name) {
                Ok(Some(part)) => {
                    let is_ours = store_id.is_none_or(|id| id == part.header.store_id);
                    if is_ours && self.faults.len() == before {
                        return Ok(Some(part));
                    }
                }
                Ok(None) => {}
                // A backup can be under an earlier key.
                Err(error) => self.faults.push(error),
            }
        }
        Ok(None)
    }

    /// Returns the names of the backups, newest first.
    pub(super) fn backups(&self) -> Result<Vec<String>> {
        let dir = &self.vfs.dir;
        let path = || dir.path(self.names.main());
        let listed = dir.list().map_err(|e| Error::io("list the folder of", &path(), e))?;
        let mut backups: Vec<(u32, String)> = listed
            .into_iter()
            .filter_map(|name| match self.names.role(&name) {
                Some(Role::Backup(index)) => Some((index, name)),
                _ => None,
            })
            .collect();
        backups.sort_unstable();
        Ok(backups.into_iter().map(|(_, name)| name).collect())
    }

    /// Notes damage. Returns the error if it is none: another key or another build may read more.
    fn fault(&mut self, error: Error) -> Result<()> {
        match error {
            Error::NewerVersion { .. } | Error::Unsupported { .. } | Error::Record { .. } => {
                Err(error)
            }
            error if is_about_the_key(&error) => Err(error),
            error => {
                self.faults.push(error);
                Ok(())
            }
        }
    }
}

impl Part {
    /// Returns these contents of a damaged image, with the entries of a whole backup in place of
    /// those that are lost.
    fn filled_from(mut self, backup: Self) -> Self {
        if let (Contents::Entries(entries), Contents::Entries(older)) =
            (&mut self.contents, backup.contents)
        {
            entries.add(older, |key| self.lost.iter().any(|lost| lost.contains(key)));
            self.taken.extend(backup.taken);
            // The backup of the same commit has exactly the lost entries.
            self.is_exact = backup.end == self.end;
        }
        self
    }
}

/// A header, its bytes, and the root key of its store.
type HeaderParts = (Header, Vec<u8>, Option<Arc<dyn Seal>>);

/// Returns whether another key, or none, may read the file.
fn is_about_the_key(error: &Error) -> bool {
    matches!(
        error,
        Error::KeyRequired { .. }
            | Error::NotEncrypted { .. }
            | Error::WrongKey { .. }
            | Error::Seal { .. }
    )
}
