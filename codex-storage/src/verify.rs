//! Verification: every byte of a store or a backup is read and checked. No file is changed.

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
use crate::pack::Compression;
use crate::seal::Keys;
use crate::storage::{Anchor, Form};
use crate::vfs::Vfs;
use crate::wal;

/// The facts that [`verify`] returns if it finds no fault.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// The form of the store.
    pub form: Form,
    /// The id of the store, the same in all its files and backups.
    pub store_id: [u8; 16],
    /// The last commit that was read.
    pub seq: Seq,
    /// The anchor of that commit, or `None` if the store is encrypted and no key was given.
    pub anchor: Option<Anchor>,
    /// The number of entries in the image; 0 if the store is a ledger.
    pub entries: u64,
    /// The number of commits that were read from logs.
    pub commits: u64,
    /// The total length of the files, in bytes.
    pub bytes: u64,
    /// The time at which the main file was made, in microseconds since 1970 (UTC).
    pub created_us: i64,
    /// Whether the store is encrypted.
    pub encrypted: bool,
    /// Whether encrypted contents were decrypted and authenticated, which needs the key.
    pub authenticated: bool,
}

impl Verified {
    /// Moves the last commit and the anchor to the end of a log.
    pub(crate) fn goes_on(&mut self, log: &LogState) {
        let end = &log.end;
        self.seq = end.seq;
        let position = Position { seq: end.seq, digest: end.digest };
        self.anchor = self.anchor.map(|anchor| position.anchor(anchor.store_id));
    }
}

/// Reads every byte of the store or backup `name` and checks every checksum, count and link. If the
/// files are encrypted and `keys` is given, every tag is checked too. A backup is one file; a store
/// is read with its logs. The store must not be open for writing, because it is read under the lock
/// of a reader.
///
/// # Errors
/// The errors of a read-only opening: `Locked` if a writer has the store open; one variant for each
/// kind of damage; `WrongKey`, `NotFound`. `KeyRequired` is never returned: without the key of an
/// encrypted store, only checksums are checked.
pub fn verify(vfs: &Vfs, name: &str, keys: Option<&dyn Keys>) -> Result<Verified> {
    let path = vfs.dir.path(name);
    let names = Names::new(name, &path)?;
    // Order: the file is read before the lock is taken. Taking the lock may create the lock file,
    // which must not appear beside a file that is not a store.
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

/// As [`verify`], for a store whose lock the caller holds.
///
/// If the store is open for writing, `upto` is a commit that is already made. The logs are read up
/// to it, while later commits continue. During the call the caller must not let a checkpoint, a
/// change of the key or a close run. If the store is not open for writing, `upto` is [`Seq::MAX`].
/// `go_on` is called after each block and group, and returns whether to continue.
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

/// Verifies the store or backup up to the commit `upto`, without a lock.
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
    let files =
        StoreFiles { vfs: vfs.clone(), names, seal, compression: Compression::None, lock: None };
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
    found.entries = image.check(false, &mut |_, _| go_on())?;
    let is_wal = image.header().form == Form::Wal && !files.names.is_backup();
    // The first commit after an image that names no log gives the image another header. So if a
    // writer has the store open, this image has all commits up to `upto`. A log that exists by now
    // has only later commits, and is not read.
    let names_no_log = image.header().next_generation == 0;
    if is_wal && !(names_no_log && upto < Seq::MAX) {
        wal::verify(&files, image.header(), upto, go_on, &mut found)?;
    }
    Ok(found)
}

/// Reads the groups of a ledger up to the commit `upto`, and adds the findings to `found`.
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
