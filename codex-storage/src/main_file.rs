//! One main file by itself, without the files beside it: the facts that a backup needs.

use std::io;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::batch::Seq;
use crate::codec::u64_of;
use crate::config::OnDamage;
use crate::error::{Error, Result};
use crate::header::{FileKind, Found, HEADER_LEN, Header};
use crate::image::ImageReader;
use crate::log::LogReader;
use crate::names::{Names, Role};
use crate::seal::{Keys, Seal};
use crate::storage::Form;
use crate::sync::thread;
use crate::vfs::{File, PIECE_BYTES, Vfs, in_pieces};

/// The facts that one file has about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileFacts {
    /// The form of its store.
    pub form: Form,
    /// The same in all files of the store and in its backups.
    pub store_id: [u8; 16],
    /// The last commit in it.
    pub seq: Seq,
    /// Tells two histories that reached the same seq apart: of an image the history digest, of a
    /// ledger the chain value of its last frame. Tells one history under two keys apart too: of an
    /// encrypted file it is SHA-256 over that and the envelope. None of it needs the key.
    pub mark: Vec<u8>,
    /// When it was made, in microseconds since 1970 (UTC).
    pub created_us: i64,
    /// Whether its contents are encrypted.
    pub encrypted: bool,
    /// Whether it is only ever replaced (an image), never appended to (a ledger).
    pub frozen: bool,
    /// Whether it is an image that a log continues.
    pub continued: bool,
    /// How long it is, in bytes.
    pub bytes: u64,
}

/// The id of the store that `file` belongs to: reads its header and nothing else.
///
/// # Errors
/// As reading a header: `NotADatabase`, `EmptyFile`, `NewerVersion`, `Damaged`.
pub fn file_store_id(file: &dyn File, path: &Path) -> Result<[u8; 16]> {
    Ok(main_header(file, path)?.header.store_id)
}

/// The id of this very file: a file with another one takes its place with each image, and where a
/// ledger is copied. Reads its header and nothing else.
///
/// # Errors
/// As [`file_store_id`].
pub fn file_id(file: &dyn File, path: &Path) -> Result<Vec<u8>> {
    let header = main_header(file, path)?.header;
    // A ledger that is copied under the same root key keeps the id that its frames are bound to.
    Ok([header.file_id.as_slice(), &header.slot_counter.to_le_bytes()].concat())
}

/// The public name of the root key that `file` is encrypted under; `None` for a plain one. Reads
/// its header and nothing else, and does not authenticate it.
///
/// # Errors
/// As [`file_store_id`].
pub fn file_root_id(file: &dyn File, path: &Path) -> Result<Option<[u8; 16]>> {
    let header = main_header(file, path)?.header;
    Ok(Some(header.root_id).filter(|_| header.cipher != 0))
}

/// Authenticates the header of `file` with `keys`: reads nothing else.
///
/// # Errors
/// As [`file_store_id`]; `NotEncrypted`, `WrongKey`, `Tampered`, `Seal`.
pub fn file_authenticate(file: &dyn File, path: &Path, keys: &dyn Keys) -> Result<()> {
    main_header(file, path)?.unlock(Some(keys), path).map(drop)
}

/// Returns the facts of `file`, without its key: those of an image from its header, those of a
/// ledger from the headers and checksums of all its frames, which means reading it. `go_on` is the
/// progress callback: it gets the bytes read so far and returns `false` to stop.
///
/// # Errors
/// As reading a header; of a ledger, damage by its own variant; `Abandoned`.
pub fn file_facts(
    file: &Arc<dyn File>,
    path: &Path,
    go_on: &mut dyn FnMut(u64) -> bool,
) -> Result<FileFacts> {
    let found = main_header(&**file, path)?;
    if found.header.kind == FileKind::Log {
        return ledger_facts(file, path, &found.header, None, go_on);
    }
    let (header, bytes) = (found.header.clone(), found.bytes().to_vec());
    let image = ImageReader::new(Arc::clone(file), path, header, bytes, None)?;
    image.check_end()?;
    Ok(image_facts(&image, found.state()))
}

/// Reads every byte of `file`: checksums, counts, and with `keys` every tag and the whole contents.
/// `go_on` is the progress callback: it gets the bytes read so far and returns `false` to stop.
///
/// # Errors
/// Damage by its own variant; `WrongKey`, `NotEncrypted`, `Tampered`; `Abandoned`.
pub fn verify_file(
    file: &Arc<dyn File>,
    path: &Path,
    keys: Option<&dyn Keys>,
    go_on: &mut dyn FnMut(u64) -> bool,
) -> Result<FileFacts> {
    let found = main_header(&**file, path)?;
    let blind = found.header.cipher != 0 && keys.is_none();
    let (state, bytes) = (found.state().to_vec(), found.bytes().to_vec());
    let (header, seal) = if blind { (found.header, None) } else { found.unlock(keys, path)? };
    if header.kind == FileKind::Log {
        return ledger_facts(file, path, &header, seal, go_on);
    }
    let image = ImageReader::new(Arc::clone(file), path, header, bytes, seal)?;
    image.check(&mut |bytes, _| go_on(bytes))?;
    Ok(image_facts(&image, &state))
}

/// Produces the bytes of the image in `from` as one that is whole by itself: the same blocks, under
/// a header that names no log. Needs no key. `to` writes bytes at an offset, one piece after the
/// other.
///
/// # Errors
/// As reading a header; `Io`.
pub fn write_whole(
    from: &Arc<dyn File>,
    path: &Path,
    to: &mut dyn FnMut(&[u8], u64) -> io::Result<()>,
) -> Result<()> {
    let found = main_header(&**from, path)?;
    let (header, bytes) = (found.without_link(), found.bytes().to_vec());
    let image = ImageReader::new(Arc::clone(from), path, found.header, bytes, None)?;
    let mut write =
        |bytes: &[u8], at| to(bytes, at).map_err(|e| Error::io("write the copy of", path, e));
    write(&header, 0)?;
    let end = image.len() - u64_of(HEADER_LEN);
    in_pieces(u64_of(HEADER_LEN)..end, |piece, at| {
        image.read_raw(piece, at)?;
        write(piece, at)
    })?;
    write(&header, end)
}

/// Whether `name` can name a store in the directory of `vfs`, or a backup of one.
///
/// # Errors
/// `BadPath`.
pub fn check_name(vfs: &Vfs, name: &str) -> Result<()> {
    Names::new(name, &vfs.dir.path(name)).map(drop)
}

/// The names of the log segments beside the store `name`, which a restored image must not be
/// opened with.
///
/// # Errors
/// `BadPath`; `Io` when the directory cannot be listed.
pub fn segments(vfs: &Vfs, name: &str) -> Result<Vec<String>> {
    let path = vfs.dir.path(name);
    let names = Names::new(name, &path)?;
    let listed = vfs.dir.list().map_err(|e| Error::io("list the folder of", &path, e))?;
    let is_segment = |name: &String| matches!(names.role(name), Some(Role::Segment(_)));
    Ok(listed.into_iter().filter(is_segment).collect())
}

/// The header, of a main file only.
pub(crate) fn main_header(file: &dyn File, path: &Path) -> Result<Found> {
    let found = Found::read(file, path)?;
    let header = &found.header;
    if header.kind == FileKind::Log && header.form == Form::Wal {
        let why = "this is a log segment, not the main file of a store";
        return Err(Error::BadPath { path: path.to_owned(), why });
    }
    Ok(found)
}

fn image_facts(image: &ImageReader, state: &[u8]) -> FileFacts {
    let header = image.header();
    FileFacts {
        form: header.form,
        store_id: header.store_id,
        seq: header.base_seq,
        mark: mark(state, header),
        created_us: header.created_us,
        encrypted: header.cipher != 0,
        frozen: true,
        continued: header.next_generation != 0,
        bytes: image.len(),
    }
}

fn ledger_facts(
    file: &Arc<dyn File>,
    path: &Path,
    header: &Header,
    seal: Option<Arc<dyn Seal>>,
    go_on: &mut dyn FnMut(u64) -> bool,
) -> Result<FileFacts> {
    let mut reader = LogReader::new(Arc::clone(file), path, header, seal, 0, OnDamage::Refuse)?;
    // After the last group, so that the mark of a close makes no other version.
    let mut chain = reader.end().chain;
    let mut told = 0;
    while let Some(group) = reader.next()? {
        group.for_each(&mut |_| Ok(()))?;
        chain = reader.end().chain;
        let offset = reader.end().offset;
        // Groups are small.
        if offset - told >= PIECE_BYTES {
            told = offset;
            thread::yield_now();
            if !go_on(offset) {
                return Err(Error::Abandoned { path: path.to_owned() });
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
        frozen: false,
        continued: false,
        bytes: state.file_len,
    })
}

/// A new envelope makes another version of the same history: after a change of the key or of the
/// root key, the next backup has to open with the new key, and only with that.
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
