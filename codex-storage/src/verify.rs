//! Reads every byte of a store or of a backup again and changes nothing.

use std::path::Path;
use std::time::Duration;

use crate::batch::Seq;
use crate::config::{Access, OnDamage};
use crate::error::{Error, Result};
use crate::files::StoreFiles;
use crate::history::Position;
use crate::image::ImageReader;
use crate::lock::StoreLock;
use crate::log::{LogReader, LogState};
use crate::names::Names;
use crate::open::read_main;
use crate::seal::Keys;
use crate::storage::{Anchor, Form};
use crate::vfs::Vfs;
use crate::wal;

/// The facts that [`verify`] has read without finding fault.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// The form of the store.
    pub form: Form,
    /// The same in all files of the store and in its backups.
    pub store_id: [u8; 16],
    /// The last commit that was read.
    pub seq: Seq,
    /// That commit as an anchor; `None` for an encrypted store without its key.
    pub anchor: Option<Anchor>,
    /// The entries of the image; 0 for a ledger.
    pub entries: u64,
    /// The commits read from logs.
    pub commits: u64,
    /// How many bytes the files have.
    pub bytes: u64,
    /// When the main file was made, in microseconds since 1970 (UTC).
    pub created_us: i64,
    /// Whether the store is encrypted.
    pub encrypted: bool,
    /// Whether encrypted contents were opened and authenticated: not so without the key.
    pub authenticated: bool,
}

impl Verified {
    /// Notes the end of a log.
    pub(crate) fn goes_on(&mut self, log: &LogState) {
        let end = &log.end;
        self.seq = end.seq;
        let position = Position { seq: end.seq, digest: end.digest };
        self.anchor = self.anchor.map(|anchor| position.anchor(anchor.store_id));
    }
}

/// Reads every byte of the store or backup `name` and checks every checksum, count and link; with
/// the key of an encrypted one also every tag. A backup is read by itself, a store with its logs.
/// The store must not be open for writing: it is read under the lock of a reader.
///
/// # Errors
/// As opening read-only: `Locked` if a writer has the store open; damage by its own variant,
/// `WrongKey`, `NotFound`. Without the key of an encrypted store only checksums are checked, so
/// `KeyRequired` is never returned.
pub fn verify(vfs: &Vfs, name: &str, keys: Option<&dyn Keys>) -> Result<Verified> {
    let path = vfs.dir.path(name);
    let names = Names::new(name, &path)?;
    // Order: before the lock, which would create a file beside something that is no store.
    let found = read_main(vfs, &names, &path)?;
    if found.is_none() {
        return Err(Error::NotFound { path });
    }
    let _lock = if names.is_backup() {
        None
    } else {
        Some(StoreLock::take(vfs, &names, Access::ReadOnly, Duration::ZERO)?)
    };
    verify_upto(vfs, names, keys, Seq::MAX, &|| true)
}

/// As [`verify`], of a store whose lock the caller holds. If it is open for writing, `upto` is a
/// commit that was made before, up to which the logs are read beside later commits; meanwhile the
/// caller lets no checkpoint, no change of the key and no close run. Otherwise `upto` is
/// [`Seq::MAX`]. `go_on` is asked after each block and group.
///
/// # Errors
/// As [`verify`], except for `Locked`; `Abandoned` if `go_on` returned `false`.
pub fn verify_open(
    vfs: &Vfs,
    name: &str,
    keys: Option<&dyn Keys>,
    upto: Seq,
    go_on: &dyn Fn() -> bool,
) -> Result<Verified> {
    let names = Names::new(name, &vfs.dir.path(name))?;
    verify_upto(vfs, names, keys, upto, go_on)
}

fn verify_upto(
    vfs: &Vfs,
    names: Names,
    keys: Option<&dyn Keys>,
    upto: Seq,
    go_on: &dyn Fn() -> bool,
) -> Result<Verified> {
    let path = vfs.dir.path(names.main());
    let Some((file, main)) = read_main(vfs, &names, &path)? else {
        return Err(Error::NotFound { path });
    };
    let sealed = main.header.cipher != 0;
    let bytes = main.bytes().to_vec();
    let (header, seal) =
        if sealed && keys.is_none() { (main.header, None) } else { main.unlock(keys, &path)? };
    let files = StoreFiles { vfs: vfs.clone(), names, seal, lock: None };
    let anchor =
        (!files.is_blind(&header)).then(|| Position::base(&header).anchor(header.store_id));
    let mut found = Verified {
        form: header.form,
        store_id: header.store_id,
        seq: header.base_seq,
        anchor,
        entries: 0,
        commits: 0,
        bytes: 0,
        created_us: header.created_us,
        encrypted: sealed,
        authenticated: files.seal.is_some(),
    };
    if header.form == Form::Ledger {
        let seal = files.seal.clone();
        let reader = LogReader::new(file, &path, &header, seal, 0, OnDamage::Refuse)?;
        verify_ledger(reader, &path, upto, go_on, &mut found)?;
        return Ok(found);
    }
    let image = ImageReader::new(file, &path, header, bytes, files.seal.clone())?;
    found.bytes = image.len();
    found.entries = image.check(&mut |_, _| go_on())?;
    let is_wal = image.header().form == Form::Wal && !files.names.is_backup();
    // The first commit after an image that names no log gives it another header. So beside a writer
    // this image has all commits up to `upto`, and a later log belongs to another file.
    let names_no_log = image.header().next_generation == 0;
    if is_wal && !(names_no_log && upto < Seq::MAX) {
        wal::verify(&files, image.header(), upto, go_on, &mut found)?;
    }
    Ok(found)
}

fn verify_ledger(
    mut reader: LogReader,
    path: &Path,
    upto: Seq,
    go_on: &dyn Fn() -> bool,
    found: &mut Verified,
) -> Result<()> {
    while reader.end().seq < upto {
        let Some(group) = reader.next()? else { break };
        found.commits += u64::from(group.count);
        group.for_each(&mut |_| Ok(()))?;
        if !go_on() {
            return Err(Error::Abandoned { path: path.to_owned() });
        }
    }
    let state = reader.finish();
    found.goes_on(&state);
    found.bytes = state.file_len;
    Ok(())
}
