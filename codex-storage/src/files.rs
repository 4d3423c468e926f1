//! The files of an open store, and the replacement of its main file by a new one.

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;

use crate::batch::Seq;
use crate::error::{Error, Result};
use crate::header::{FileKind, Header, following, fresh_id};
use crate::history::History;
use crate::image::{ImageReader, ImageSpec};
use crate::lock::StoreLock;
use crate::names::{Names, Temporary};
use crate::pack::Compression;
use crate::seal::{Keys, Seal, TAG_LEN};
use crate::separate::SeparateImage;
use crate::storage::{Form, Retired, Written};
use crate::vfs::{Mode, Vfs};
use crate::write_state::WriteState;

/// The files of an open store, and their key.
#[derive(Debug)]
pub(crate) struct StoreFiles {
    pub(crate) vfs: Vfs,
    pub(crate) names: Names,
    pub(crate) seal: Option<Arc<dyn Seal>>,
    /// The compression of new files.
    pub(crate) compression: Compression,
    /// Held while the store is open. `None` for a backup.
    pub(crate) lock: Option<Arc<StoreLock>>,
}

/// The files of an open store, the header of its main file and its history.
#[derive(Debug)]
pub struct Stored<'a> {
    pub(crate) files: &'a StoreFiles,
    pub(crate) header: &'a Header,
    /// That of a Wal ends where its digest was last needed. A call of `anchor` brings it up to the
    /// last commit.
    pub(crate) history: &'a History,
}

/// The error of a file that did not take the name of the store.
#[derive(Debug)]
pub(crate) struct NotInstalled {
    pub(crate) source: io::Error,
    /// Whether either file may have the name, now and after a power cut. If so, nothing may be
    /// written any more. If not, nothing has changed.
    pub(crate) in_doubt: bool,
}

impl From<NotInstalled> for io::Error {
    fn from(failed: NotInstalled) -> Self {
        failed.source
    }
}

impl StoreFiles {
    /// Returns a specification of an image that will take the name of the store.
    pub(crate) fn image(&self, header: Header) -> ImageSpec {
        ImageSpec {
            vfs: self.vfs.clone(),
            temporary: self.names.temporary(Temporary::Image),
            header,
            seal: self.seal.clone(),
            beside_writers: false,
        }
    }

    /// Writes the image in place again, under its own header with an envelope of `keys`. Returns
    /// the new image, which has its temporary name, and its header.
    ///
    /// # Errors
    /// `NotEncrypted`; the errors of the image and of the writing. Nothing has changed.
    pub(crate) fn image_under(&self, keys: &dyn Keys) -> Result<(Written, Header)> {
        let path = self.path();
        let Some(seal) = &self.seal else { return Err(Error::NotEncrypted { path }) };
        let image = ImageReader::open(&self.vfs, self.names.main(), Some(Arc::clone(seal)))?;
        // The header in the file is used, because it has the salt that was drawn when the image was
        // written.
        let header = image.header().rewrapped(Some(&**seal), keys, &path)?;
        let written = self.image(header.clone()).rewrite_header(&image)?;
        Ok((written, header))
    }

    /// Returns the path of the store.
    pub(crate) fn path(&self) -> PathBuf {
        self.vfs.dir.path(self.names.main())
    }

    /// Returns whether a file with this header is sealed and the key is missing.
    pub(crate) fn is_blind(&self, header: &Header) -> bool {
        header.cipher != 0 && self.seal.is_none()
    }

    /// Returns whether the lock on the store is held.
    pub(crate) fn is_locked(&self) -> bool {
        self.lock.as_ref().is_some_and(|lock| lock.is_held())
    }

    /// Checks that the name of the store still refers to its file, so that an opening finds the
    /// commits. `seq` is the first commit that it would not find.
    ///
    /// # Errors
    /// `InDoubt` if the file was removed, renamed or replaced, or if its directory was removed.
    /// Nothing may be written after that.
    pub(crate) fn check_name(&self, write_state: &mut WriteState, seq: Seq) -> Result<()> {
        let Some(lock) = &self.lock else { return Ok(()) };
        match self.vfs.dir.metadata(self.names.main()) {
            Ok(found) if !lock.is_of(found) => {
                write_state.poison(LOST_NAME.to_owned());
                let source = Arc::new(io::Error::new(ErrorKind::NotFound, LOST_NAME));
                Err(Error::InDoubt { path: self.path(), seq, source })
            }
            // An error does not show that the name is lost. The next check tries again.
            _ => Ok(()),
        }
    }

    /// Returns an image of the state at the end of `history`, for the name `name` in another
    /// directory. The image is a self-contained store with the fields of the header `own`.
    pub(crate) fn image_elsewhere(
        &self,
        to: &Vfs,
        name: &str,
        own: &Header,
        history: &History,
    ) -> Result<SeparateImage> {
        let path = to.dir.path(name);
        let names = Names::new(name, &path)?;
        let generation = match own.form {
            Form::Snapshot => following(own.generation, &self.path())?,
            // The image has a part of the next segment, and does not count that one. If it is
            // copied over the store by hand, the segment is refused, and not removed as contained.
            _ => own.generation,
        };
        let header = Header {
            // A ledger is written as a Wal, because an image cannot be a ledger.
            kind: FileKind::Image,
            form: if own.form == Form::Snapshot { Form::Snapshot } else { Form::Wal },
            file_id: fresh_id(to, &path)?,
            compression: self.compression,
            generation,
            base_seq: history.seq(),
            base_digest: history.end().digest,
            created_us: to.clock.now_us(),
            next_generation: 0,
            base_chain: 0,
            base_tag: [0; TAG_LEN],
            neighbour: [0; 16],
            ..own.clone()
        };
        let spec = ImageSpec {
            vfs: to.clone(),
            temporary: names.temporary(Temporary::Image),
            header,
            seal: self.seal.clone(),
            beside_writers: true,
        };
        Ok(SeparateImage { spec, history: history.clone() })
    }

    /// Gives a written file the name of the store, durably. Returns the replaced file if it is
    /// open.
    ///
    /// # Errors
    /// [`NotInstalled`], which has whether anything may have changed.
    pub(crate) fn install(
        &self,
        temporary: &str,
    ) -> std::result::Result<Option<Retired>, NotInstalled> {
        self.install_as(temporary, None)
    }

    /// Like [`install`](Self::install), for a file of another kind than the one that it replaces.
    pub(crate) fn install_as(
        &self,
        temporary: &str,
        mode: Option<Mode>,
    ) -> std::result::Result<Option<Retired>, NotInstalled> {
        // Order: all steps that can fail without consequences come before the rename.
        self.prepare(temporary, mode).map_err(|source| NotInstalled { source, in_doubt: false })?;
        self.put_name(temporary).map_err(|source| NotInstalled { source, in_doubt: true })
    }

    /// Prepares the file `temporary` for the name of the store. It receives the owner and the
    /// permissions of the file that it will replace, and the lock of the store.
    pub(crate) fn prepare(&self, temporary: &str, mode: Option<Mode>) -> io::Result<()> {
        let (dir, main) = (&*self.vfs.dir, self.names.main());
        let replaced = dir.metadata(main)?;
        if let Some(lock) = &self.lock {
            lock.may_replace(replaced)?;
        }
        if replaced.is_some() {
            dir.inherit(main, temporary, mode)?;
        }
        // Order: locked before it has the name, so that a file that another process could lock
        // never has the name.
        self.lock.as_ref().map_or(Ok(()), |lock| lock.lock_next(dir, temporary))
    }

    /// Gives the prepared file the name of the store, durably. Returns the replaced file if it is
    /// open. After an error either file may have the name.
    pub(crate) fn put_name(&self, temporary: &str) -> io::Result<Option<Retired>> {
        // Order: the rename is durable before the lock moves to the new file and before the caller
        // relies on it.
        self.rename(temporary)?;
        Ok(self.has_name())
    }

    /// Records that the prepared file has the name of the store. Returns the replaced file if it is
    /// open.
    pub(crate) fn has_name(&self) -> Option<Retired> {
        Some(self.lock.as_ref()?.go_on_with_next())
    }

    /// Renames the file, and syncs the directory.
    fn rename(&self, temporary: &str) -> io::Result<()> {
        self.vfs.dir.rename(temporary, self.names.main())?;
        self.vfs.dir.sync()
    }
}

const LOST_NAME: &str = "the file was removed, renamed or replaced while the store was open; \
                         `backup_to` writes what is in memory to another folder";
