//! One main file without the files beside it: its facts, and the bytes of a copy of it.

mod view;

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::batch::Seq;
use crate::config::OnDamage;
use crate::error::{Error, Result};
use crate::header::{FileKind, Found, Header};
use crate::image::ImageReader;
use crate::ledger::LedgerFile;
use crate::log::{LogReader, UNIT};
use crate::names::{Names, Role};
use crate::pack::Compression;
use crate::seal::{Keys, Seal};
use crate::storage::Form;
use crate::sync::thread;
use crate::vfs::{File, Open, PIECE_BYTES, Vfs};
use view::View;

/// The open main file of a store, or a backup of one: an image or a ledger.
///
/// It is the file that was opened, even if another file has taken its name since.
#[derive(Debug)]
pub struct MainFile {
    file: Arc<dyn File>,
    path: PathBuf,
    found: Found,
    /// The last commit of a ledger that may grow, and the offset at which that commit ends.
    end: Option<(Seq, u64)>,
}

/// The facts of one main file, read without its key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileFacts {
    /// The form of its store.
    pub form: Form,
    /// The id of the store, the same in all its files and backups.
    pub store_id: [u8; 16],
    /// The last commit in the file.
    pub seq: Seq,
    /// A value that differs between two histories that reached the same seq: of an image the
    /// history digest, of a ledger the chain value of its last frame. It also differs between two
    /// keys of one history: in an encrypted file it is SHA-256 over that value and the envelope.
    pub mark: Vec<u8>,
    /// The time at which the file was made, in microseconds since 1970 (UTC).
    pub created_us: i64,
    /// Whether the contents are encrypted.
    pub encrypted: bool,
    /// The compression of the contents.
    pub compression: Compression,
    /// Whether the file is only replaced (an image), never appended to (a ledger).
    pub frozen: bool,
    /// The length in bytes.
    pub bytes: u64,
}

impl MainFile {
    /// Opens the file `name` and reads its header.
    ///
    /// # Errors
    /// `Io`; `NotADatabase`, `EmptyFile`, `NewerVersion`, `Damaged`, `Unsupported`; `BadPath` if
    /// the file is a log segment.
    pub fn open(vfs: &Vfs, name: &str) -> Result<Self> {
        let path = vfs.dir.path(name);
        let file = vfs.dir.open(name, Open::Read).map_err(|e| Error::io("open", &path, e))?;
        Self::new(file, &path)
    }

    /// Reads the header of the open file `file`. Messages name it `path`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn new(file: Arc<dyn File>, path: &Path) -> Result<Self> {
        let found = main_header(&*file, path)?;
        Ok(Self { file, path: path.to_owned(), found, end: None })
    }

    /// Returns the same ledger up to the commit `seq`, which ends at the offset `end`.
    pub(crate) fn upto(self, seq: Seq, end: u64) -> Self {
        Self { end: Some((seq, end)), ..self }
    }

    /// Returns the last commit of an image, or `None` if the file is a ledger.
    pub fn image_seq(&self) -> Option<Seq> {
        let header = &self.found.header;
        Some(header.base_seq).filter(|_| header.kind == FileKind::Image)
    }

    /// Returns the id of the store.
    pub fn store_id(&self) -> [u8; 16] {
        self.found.header.store_id
    }

    /// Returns the public name of the root key, or `None` if the file is not encrypted. The header
    /// is not authenticated.
    pub fn root_id(&self) -> Option<[u8; 16]> {
        Some(self.found.header.root_id).filter(|_| self.found.header.cipher != 0)
    }

    /// Returns the number of the envelope of the root key. It rises with each change of the key.
    pub fn envelope_number(&self) -> u64 {
        self.found.header.slot_counter
    }

    /// Authenticates the header with `keys`.
    ///
    /// # Errors
    /// `NotEncrypted`, `WrongKey`, `Tampered`, `Seal`.
    pub fn authenticate(&self, keys: &dyn Keys) -> Result<()> {
        self.found.clone().unlock(Some(keys), &self.path).map(drop)
    }

    /// Returns the facts of the file, which need no key. If it is an image, the header and the end
    /// are read; if it is a ledger, the whole file, with every frame header and checksum. `go_on`
    /// is called with the number of bytes read so far, and returns whether to continue.
    ///
    /// # Errors
    /// One variant for each kind of damage; `Abandoned` if `go_on` returned `false`.
    pub fn facts(&self, go_on: &mut dyn FnMut(u64) -> bool) -> Result<FileFacts> {
        if self.found.header.kind == FileKind::Log {
            return self.ledger_facts(&self.found.header, None, go_on);
        }
        let image = self.image(self.found.header.clone(), None)?;
        image.check_end()?;
        Ok(image_facts(&self.found, image.len()))
    }

    /// Reads every byte and checks it: checksums and counts, and with `keys` every tag and the
    /// whole contents. If `beside_writers` is `false`, a second thread may help, which takes
    /// processor time from others. `go_on` is called with the number of bytes read so far, and
    /// returns whether to continue.
    ///
    /// # Errors
    /// One variant for each kind of damage; `WrongKey`, `NotEncrypted`, `Tampered`; `Abandoned` if
    /// `go_on` returned `false`.
    pub fn verify(
        &self,
        keys: Option<&dyn Keys>,
        beside_writers: bool,
        go_on: &mut dyn FnMut(u64) -> bool,
    ) -> Result<FileFacts> {
        let found = self.found.clone();
        let is_blind = found.header.cipher != 0 && keys.is_none();
        let (header, seal) =
            if is_blind { (found.header, None) } else { found.unlock(keys, &self.path)? };
        if header.kind == FileKind::Log {
            return self.ledger_facts(&header, seal, go_on);
        }
        let image = self.image(header, seal)?;
        image.check(beside_writers, &mut |bytes, _| go_on(bytes))?;
        Ok(image_facts(&self.found, image.len()))
    }

    /// Returns the bytes of a copy that is a store of its own, and its facts if they are known.
    ///
    /// An image that names no log is the copy itself, so a copy may share its blocks. An image that
    /// names one has the same blocks between headers that name none. A ledger ends with its last
    /// commit, which its header names as the last one.
    ///
    /// # Errors
    /// As [`facts`](Self::facts).
    pub fn to_copy(&self) -> Result<(Arc<dyn File>, Option<FileFacts>)> {
        if let Some((seq, end)) = self.end {
            return Ok((self.ledger_view(seq, end)?, None));
        }
        let facts = self.facts(&mut |_| true)?;
        let header = &self.found.header;
        let file = if header.is_ledger() {
            self.ledger_view(facts.seq, facts.bytes)?
        } else if header.next_generation == 0 {
            Arc::clone(&self.file)
        } else {
            let head = self.found.without_link();
            Arc::new(View::image(Arc::clone(&self.file), head, facts.bytes))
        };
        Ok((file, Some(facts)))
    }

    /// Returns the first `end` bytes of this ledger, which end with the commit `seq`. If the file
    /// ends there, it was closed, and the copy has the same length. Otherwise zeros follow, up to a
    /// whole unit of the log.
    fn ledger_view(&self, seq: Seq, end: u64) -> Result<Arc<dyn File>> {
        let file_len = self.file.len().map_err(|e| Error::io("look at", &self.path, e))?;
        let len = if file_len == end { end } else { end.next_multiple_of(UNIT) };
        let head = self.found.for_copy_upto(seq);
        Ok(Arc::new(View::ledger(Arc::clone(&self.file), head, end, len)))
    }

    /// Returns this ledger, which may end within a frame, with zeros up to a whole unit of the log.
    pub(crate) fn as_cut_ledger(&self) -> Result<LedgerFile> {
        let end = self.file.len().map_err(|e| Error::io("look at", &self.path, e))?;
        let (head, len) = (self.found.bytes().to_vec(), end.next_multiple_of(UNIT));
        let file = Arc::new(View::ledger(Arc::clone(&self.file), head, end, len));
        Ok(LedgerFile { file, found: self.found.clone(), path: self.path.clone() })
    }

    /// Returns this image, authenticated with `keys`, and the root key that it is under.
    ///
    /// # Errors
    /// `KeyRequired`, `NotEncrypted`, `WrongKey`, `Tampered`, `Seal`; `WrongForm` if it is a
    /// ledger; `Io`.
    pub(crate) fn unlocked_image(
        &self,
        keys: Option<&dyn Keys>,
    ) -> Result<(ImageReader, Option<Arc<dyn Seal>>)> {
        let header = &self.found.header;
        if header.is_ledger() {
            let (found, wanted) = (header.form, Form::Wal);
            return Err(Error::WrongForm { path: self.path.clone(), found, wanted });
        }
        let (header, seal) = self.found.clone().unlock(keys, &self.path)?;
        Ok((self.image(header, seal.clone())?, seal))
    }

    /// Returns the error of a state that is not among `states`, those of this file.
    pub(crate) fn not_in_history(&self, states: RangeInclusive<Seq>) -> Error {
        Error::NotInHistory { path: self.path.clone(), states }
    }

    fn image(&self, header: Header, seal: Option<Arc<dyn Seal>>) -> Result<ImageReader> {
        let bytes = self.found.bytes().to_vec();
        ImageReader::new(Arc::clone(&self.file), &self.path, header, bytes, seal)
    }

    fn ledger_facts(
        &self,
        header: &Header,
        seal: Option<Arc<dyn Seal>>,
        go_on: &mut dyn FnMut(u64) -> bool,
    ) -> Result<FileFacts> {
        let file = Arc::clone(&self.file);
        let mut reader = LogReader::new(file, &self.path, header, seal, 0, OnDamage::Refuse)?;
        // The chain value after the last group. The mark of a close may follow the group, but does
        // not make another version.
        let mut chain = reader.end().chain;
        let mut told = 0;
        while let Some(group) = reader.next()? {
            group.for_each(&mut |_| Ok(()))?;
            chain = reader.end().chain;
            let offset = reader.end().offset;
            // Groups are small, so progress is reported once per piece and not for each group.
            if offset - told >= PIECE_BYTES {
                told = offset;
                thread::yield_now();
                if !go_on(offset) {
                    return Err(Error::Abandoned { path: self.path.clone() });
                }
            }
        }
        let state = reader.finish();
        Ok(FileFacts {
            form: header.form,
            store_id: header.store_id,
            seq: state.end.seq,
            mark: mark(&chain.to_le_bytes(), header),
            created_us: header.created_us,
            encrypted: header.cipher != 0,
            compression: header.compression,
            frozen: false,
            bytes: state.file_len,
        })
    }
}

/// Checks that a store in the directory of `vfs`, or a backup of one, may have the name `name`.
///
/// # Errors
/// `BadPath` if it may not.
pub fn check_name(vfs: &Vfs, name: &str) -> Result<()> {
    Names::new(name, &vfs.dir.path(name)).map(drop)
}

/// Returns the names of the log segments of the store `name`. They must not stay beside a restored
/// image, because they belong to another history.
///
/// # Errors
/// `BadPath`; `Io` if the directory cannot be listed.
pub fn segments(vfs: &Vfs, name: &str) -> Result<Vec<String>> {
    let path = vfs.dir.path(name);
    let names = Names::new(name, &path)?;
    let listed = vfs.dir.list().map_err(|e| Error::io("list the folder of", &path, e))?;
    let is_segment = |name: &String| matches!(names.role(name), Some(Role::Segment(_)));
    Ok(listed.into_iter().filter(is_segment).collect())
}

/// Reads the header of a main file.
///
/// # Errors
/// As [`Found::read`]; `BadPath` if the file is a log segment.
pub(crate) fn main_header(file: &dyn File, path: &Path) -> Result<Found> {
    let found = Found::read(file, path)?;
    let header = &found.header;
    if header.kind == FileKind::Log && header.form == Form::Wal {
        let why = "this is a log segment under another name; open the store it belongs to";
        return Err(Error::BadPath { path: path.to_owned(), why });
    }
    Ok(found)
}

/// Returns the facts of an image of `bytes` bytes with the header `found`.
pub(crate) fn image_facts(found: &Found, bytes: u64) -> FileFacts {
    let header = &found.header;
    FileFacts {
        form: header.form,
        store_id: header.store_id,
        seq: header.base_seq,
        mark: mark(found.state(), header),
        created_us: header.created_us,
        encrypted: header.cipher != 0,
        compression: header.compression,
        frozen: true,
        bytes,
    }
}

/// Returns the mark of a history under the envelope in `header`. A new envelope makes another
/// version of the same history: after a change of the key or of the root key, the next backup must
/// open with the new key alone.
fn mark(history: &[u8], header: &Header) -> Vec<u8> {
    match &header.envelope {
        Some(envelope) => Sha256::new()
            .chain_update(history)
            .chain_update(envelope.as_slice())
            .finalize()
            .to_vec(),
        _ => history.to_vec(),
    }
}
