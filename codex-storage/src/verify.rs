//! Re-reads every byte of a store or of a backup, beside running use, and changes nothing.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use crate::batch::Seq;
use crate::config::OnDamage;
use crate::error::{Error, Result};
use crate::files::StoreFiles;
use crate::header::Header;
use crate::history::Position;
use crate::image::ImageReader;
use crate::log::{LogReader, LogState};
use crate::names::Names;
use crate::open::read_main;
use crate::seal::{Keys, Seal};
use crate::storage::{Anchor, Form};
use crate::vfs::{File, Vfs};
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

/// Reads the store or backup `name` from its first byte to its last and checks every checksum,
/// count and link, with the key of an encrypted one also every tag. A backup is read by itself,
/// a store with its logs.
///
/// Takes no lock. A store that is being written is read up to a commit that was made before the
/// end of this call; where a checkpoint or a commit gets in the way of reading, it reads again.
///
/// # Errors
/// As opening read-only: damage by its own variant, `WrongKey`, `NotFound`. `KeyRequired` never:
/// without their key the checksums alone speak for encrypted files.
pub fn verify(vfs: &Vfs, name: &str, keys: Option<&dyn Keys>) -> Result<Verified> {
    let (mut last, mut repeated) = (String::new(), 0);
    for _ in 1..ATTEMPTS_MAX {
        let error = match verify_once(vfs, name, keys) {
            Err(e) if may_pass(&e) => e,
            done => return done,
        };
        // Damage stays where it is; the work of a writer is elsewhere the next time.
        let text = error.to_string();
        repeated = if text == last { repeated + 1 } else { 0 };
        if repeated == REPEATED_MAX {
            return Err(error);
        }
        last = text;
        vfs.clock.sleep(PAUSE * 4_u32.pow(repeated));
    }
    verify_once(vfs, name, keys)
}

/// Whether a writer that is at work may have caused the error.
fn may_pass(error: &Error) -> bool {
    match error {
        // A segment was removed, or its unused space was cut off.
        Error::Io { source, .. } => {
            matches!(source.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof)
        }
        Error::LogMissing { .. }
        | Error::ForeignLog { .. }
        | Error::Gap { .. }
        | Error::TailSuspect { .. }
        | Error::Damaged { .. }
        | Error::Tampered { .. } => true,
        _ => false,
    }
}

fn verify_once(vfs: &Vfs, name: &str, keys: Option<&dyn Keys>) -> Result<Verified> {
    let path = vfs.dir.path(name);
    let names = Names::new(name, &path)?;
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
        verify_ledger(&files, &header, file, &mut found)?;
        return Ok(found);
    }
    let image = ImageReader::new(file, &path, header, bytes, files.seal.clone())?;
    found.bytes = image.len();
    found.entries = image.check(&mut |_, _| true)?;
    if image.header().form == Form::Wal && !files.names.is_backup() {
        wal::verify(&files, image.header(), &mut found)?;
    }
    Ok(found)
}

fn verify_ledger(
    files: &StoreFiles,
    header: &Header,
    file: Arc<dyn File>,
    found: &mut Verified,
) -> Result<()> {
    let path = files.path();
    let seal: Option<Arc<dyn Seal>> = files.seal.clone();
    let mut reader = LogReader::new(file, &path, header, seal, 0, OnDamage::Refuse)?;
    while let Some(group) = reader.next()? {
        found.commits += u64::from(group.count);
        group.for_each(&mut |_| Ok(()))?;
    }
    let state = reader.finish();
    found.goes_on(&state);
    found.bytes = state.file_len;
    Ok(())
}

/// The first wait before reading again; four times as long where the error was the same again.
const PAUSE: Duration = Duration::from_millis(1);
/// How often the same error has to come again until it counts as the file's own.
const REPEATED_MAX: u32 = 3;
/// How often a store is read at most, however much goes on in it.
const ATTEMPTS_MAX: u32 = 100;
