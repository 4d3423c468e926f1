//! What a backup needs to know of a file: whose it is, which version, and whether it is whole.

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use codex_storage::vfs::File;
use sha2::{Digest, Sha256};

/// Reads one kind of file. Its implementer knows the format; this crate does not.
///
/// The three methods cost more each: [`identity`](Inspect::identity) reads a header,
/// [`facts`](Inspect::facts) a header and whatever shows that nothing is missing at the end,
/// [`verify`](Inspect::verify) every byte. Whoever reads much tells `reading` how far it has come,
/// and returns [`InspectError::Stopped`] when that breaks.
pub trait Inspect: fmt::Debug + Send + Sync {
    /// Whose file this is: bytes that all versions of one file share and no other file has.
    ///
    /// It must work on a damaged file as long as the header can be read, because it decides
    /// whether a name may be touched. An inspector of files without an identity returns the
    /// same bytes for every file; then any regular file at the name of a backup counts as one.
    fn identity(&self, file: &Arc<dyn File>) -> Result<Vec<u8>, InspectError>;

    /// Whether the header is authentic, for an inspector that has a key to tell with.
    fn trust(&self, file: &Arc<dyn File>) -> Result<Trust, InspectError> {
        let _ = file;
        Ok(Trust::Unchecked)
    }

    /// Whose and which version, of a file that has its end; cheap.
    fn facts(&self, file: &Arc<dyn File>, reading: &mut Reading<'_>)
    -> Result<Facts, InspectError>;

    /// Reads every byte and checks it as deep as asked; the same facts as
    /// [`facts`](Inspect::facts). One that has a key refuses, at every depth, a file whose
    /// [`Trust`] does not count.
    fn verify(
        &self,
        file: &Arc<dyn File>,
        depth: Depth,
        reading: &mut Reading<'_>,
    ) -> Result<Facts, InspectError>;

    /// The depth of a verification that something rests on: [`Depth::Full`] where there is a key.
    fn deepest(&self) -> Depth {
        Depth::Checksums
    }

    /// Whether the format has checksums, so that [`verify`](Inspect::verify) finds a changed byte
    /// without knowing what the file was before.
    fn has_checksums(&self) -> bool {
        true
    }
}

/// Whether the header of a file is authentic under the key that its inspector has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Trust {
    /// There is no key to check it with: checksums alone speak for the file.
    #[default]
    Unchecked,
    /// It is authentic.
    Authentic,
    /// It is encrypted, and the key opens it not: a backup from before a rekey, or anything that
    /// looks like one.
    OtherKey,
    /// It is not encrypted, although there is a key: a backup from before the file was encrypted,
    /// or anything that looks like one.
    Plain,
    /// Its authentication tag is wrong.
    Forged,
}

impl Trust {
    /// Whether the file counts as a backup: is kept as one, may be restored, and may stand for
    /// another of the same version.
    pub fn counts(self) -> bool {
        matches!(self, Self::Unchecked | Self::Authentic)
    }
}

/// Hears how many bytes of a file were read so far, and says whether to go on.
pub type Reading<'a> = dyn FnMut(u64) -> ControlFlow<()> + 'a;

/// What a file says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Facts {
    /// Whose file it is, see [`Inspect::identity`].
    pub id: Vec<u8>,
    /// The version, counting up with every change; 0 where the format has none.
    pub seq: u64,
    /// A digest of the contents, or as much of one as the format has: tells two versions with the
    /// same `seq` apart, as they arise when an older version was restored and changed again.
    pub mark: Vec<u8>,
    /// The time of the last change, in microseconds since 1970 (UTC), where the format has one.
    pub time_us: Option<i64>,
    /// The form of the file, in a word, for lists.
    pub form: String,
    /// Whether the contents are encrypted.
    pub encrypted: bool,
    /// Whether the live file is only ever replaced, never changed in place. Decides whether a
    /// restored file is read-only (0400) or writable (0600).
    pub frozen: bool,
    /// The length in bytes.
    pub size: u64,
}

impl Facts {
    /// Facts of the version `seq` of the file `id`; the rest is empty.
    pub fn new(id: impl Into<Vec<u8>>, seq: u64) -> Self {
        Self { id: id.into(), seq, ..Self::default() }
    }

    /// Whether both are the same version of the same file.
    pub fn same_version(&self, other: &Self) -> bool {
        self.id == other.id && self.seq == other.seq && self.mark == other.mark
    }

    /// The version, for messages.
    pub(crate) fn version(&self) -> String {
        match self.mark.as_slice() {
            [a, b, c, d, ..] => format!("seq {} {a:02x}{b:02x}{c:02x}{d:02x}", self.seq),
            _ => format!("seq {}", self.seq),
        }
    }
}

/// How deep a verification goes. Both read every byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Depth {
    /// Structure and checksums; needs no key.
    #[default]
    Checksums,
    /// The contents too: decrypts and authenticates what is encrypted, so it needs the key.
    Full,
}

/// Why a file is not what it should be.
#[derive(Debug)]
#[non_exhaustive]
pub enum InspectError {
    /// It could not be read.
    Read(io::Error),
    /// It is not whole.
    Damaged {
        /// Where that shows.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// It is no file of this kind.
    Alien {
        /// What it looks like.
        what: String,
    },
    /// The depth asked for needs a key.
    NeedsKey {
        /// Which.
        what: String,
    },
    /// It is not authentic under the key that was given.
    Unauthentic {
        /// Why not.
        what: String,
    },
    /// It was not read to its end, because [`Reading`] said so.
    Stopped,
}

impl From<io::Error> for InspectError {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

/// The inspector of any file: the SHA-256 of its bytes is its version.
///
/// A plain file has no identity of its own, so every regular file at the name of a backup counts
/// as one (a directory, a symbolic link or a device never does). Facts cost as much as a
/// verification: both read every byte.
#[derive(Debug, Clone, Copy, Default)]
pub struct Whole;

impl Inspect for Whole {
    fn identity(&self, _file: &Arc<dyn File>) -> Result<Vec<u8>, InspectError> {
        Ok(Vec::new())
    }

    fn has_checksums(&self) -> bool {
        false
    }

    fn facts(
        &self,
        file: &Arc<dyn File>,
        reading: &mut Reading<'_>,
    ) -> Result<Facts, InspectError> {
        let size = file.len()?;
        let mut digest = Sha256::new();
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut at = 0;
        while at < size {
            let here = usize::try_from(size - at).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
            let Some(chunk) = buffer.get_mut(..here) else { break };
            file.read_exact_at(chunk, at)?;
            digest.update(chunk);
            at += here as u64;
            if reading(at).is_break() {
                return Err(InspectError::Stopped);
            }
        }
        let mark = digest.finalize().to_vec();
        Ok(Facts { mark, form: "file".to_owned(), size, ..Facts::default() })
    }

    fn verify(
        &self,
        file: &Arc<dyn File>,
        _depth: Depth,
        reading: &mut Reading<'_>,
    ) -> Result<Facts, InspectError> {
        self.facts(file, reading)
    }
}

/// The first bytes of a file that grows, as a file of that length: what lies behind does not
/// exist for who reads it. Writing is refused.
#[derive(Debug, Clone)]
pub struct Prefix {
    file: Arc<dyn File>,
    len: u64,
}

impl Prefix {
    /// The first `len` bytes of `file`, which must have them.
    pub fn new(file: Arc<dyn File>, len: u64) -> Self {
        Self { file, len }
    }
}

impl File for Prefix {
    fn len(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let end = u64::try_from(buf.len()).ok().and_then(|len| offset.checked_add(len));
        if end.is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.file.read_exact_at(buf, offset)
    }

    fn write_all_at(&self, _buf: &[u8], _offset: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn allocate(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

/// A [`Reading`] that never stops.
pub(crate) fn to_the_end(_: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Bytes read at a time.
pub(crate) const CHUNK_BYTES: usize = 128 * 1024;
