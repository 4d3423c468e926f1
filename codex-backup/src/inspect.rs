//! The interface to a file format: the identity of a file, its version, and whether it is complete.

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use codex_storage::vfs::{File, in_pieces};
use sha2::{Digest, Sha256};

/// Inspects files of one format. The implementation knows the format; this crate does not.
///
/// The methods differ in cost: [`identity`](Inspect::identity) reads a header,
/// [`facts`](Inspect::facts) reads a header and enough to detect a missing end, and
/// [`verify`](Inspect::verify) reads every byte. An implementation that reads much reports the
/// number of bytes to `reading`, and returns [`InspectError::Stopped`] if that returns `Break`.
pub trait Inspect: fmt::Debug + Send + Sync {
    /// Returns the identity of the file: bytes that all versions of one file share and no other
    /// file has.
    ///
    /// The method must work on a damaged file as long as its header is readable, because the
    /// identity decides whether a name may be touched. An inspector of files without an identity
    /// returns the same bytes for every file. In that case any regular file with the name of a
    /// backup counts as one.
    fn identity(&self, file: &Arc<dyn File>) -> Result<Vec<u8>, InspectError>;

    /// Returns whether the header is authentic, if the inspector has a key to check it with.
    fn trust(&self, file: &Arc<dyn File>) -> Result<Trust, InspectError> {
        let _ = file;
        Ok(Trust::Unchecked)
    }

    /// Returns the identity and version of a file, and checks that its end is present. Cheap.
    fn facts(&self, file: &Arc<dyn File>, reading: &mut Reading<'_>)
    -> Result<Facts, InspectError>;

    /// Reads and checks every byte, to the given depth. Returns the same facts as
    /// [`facts`](Inspect::facts). If the inspector has a key, the method refuses, at every depth, a
    /// file whose [`Trust`] does not count.
    fn verify(
        &self,
        file: &Arc<dyn File>,
        depth: Depth,
        reading: &mut Reading<'_>,
    ) -> Result<Facts, InspectError>;

    /// The depth of a verification on which a decision depends: [`Depth::Full`] if there is a key.
    fn deepest(&self) -> Depth {
        Depth::Checksums
    }

    /// Returns whether the format has checksums, so that [`verify`](Inspect::verify) detects a
    /// changed byte without knowing the earlier contents.
    fn has_checksums(&self) -> bool {
        true
    }
}

/// Whether the header of a file is authentic under the key of its inspector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Trust {
    /// The inspector has no key. Only checksums were checked.
    #[default]
    Unchecked,
    /// The header is authentic.
    Authentic,
    /// The file is encrypted under another key: a backup from before a rekey, or a file that
    /// imitates one.
    OtherKey,
    /// The file is not encrypted, although there is a key: a backup from before the file was
    /// encrypted, or a file that imitates one.
    Plain,
    /// The authentication tag is wrong.
    Forged,
}

impl Trust {
    /// Returns whether the file counts as a backup. If it does, it is kept as one, may be restored,
    /// and may be used instead of another of the same version.
    pub fn counts(self) -> bool {
        matches!(self, Self::Unchecked | Self::Authentic)
    }
}

/// Progress callback of an inspection, with the number of bytes read. If it returns `Break`, the
/// inspection stops.
pub type Reading<'a> = dyn FnMut(u64) -> ControlFlow<()> + 'a;

/// Facts that are read from a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Facts {
    /// The identity of the file, see [`Inspect::identity`].
    pub id: Vec<u8>,
    /// The version, which increases with every change; 0 if the format has none.
    pub seq: u64,
    /// A digest of the contents, as far as the format has one. It distinguishes two versions with
    /// the same `seq`, which exist if an older version was restored and then changed.
    pub mark: Vec<u8>,
    /// The time of the last change, in microseconds since 1970 (UTC), if the format stores one.
    pub time_us: Option<i64>,
    /// The form of the file, in one word, for lists.
    pub form: String,
    /// Whether the contents are encrypted.
    pub encrypted: bool,
    /// Whether the live file is only replaced, never changed in place. If so, a restored file is
    /// read-only (0400), otherwise writable (0600).
    pub frozen: bool,
    /// The length, in bytes.
    pub size: u64,
}

impl Facts {
    /// Creates facts of the version `seq` of the file `id`. All other fields are empty.
    pub fn new(id: impl Into<Vec<u8>>, seq: u64) -> Self {
        Self { id: id.into(), seq, ..Self::default() }
    }

    /// Returns whether both are facts of the same version of the same file.
    pub fn same_version(&self, other: &Self) -> bool {
        self.id == other.id && self.seq == other.seq && self.mark == other.mark
    }

    /// Returns the version, for messages.
    pub(crate) fn version(&self) -> String {
        match self.mark.as_slice() {
            [a, b, c, d, ..] => format!("seq {} {a:02x}{b:02x}{c:02x}{d:02x}", self.seq),
            _ => format!("seq {}", self.seq),
        }
    }
}

/// The depth of a verification. Each depth reads every byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Depth {
    /// Structure and checksums. Needs no key.
    #[default]
    Checksums,
    /// The contents too. Encrypted contents are decrypted and authenticated, which needs the key.
    Full,
}

/// The reason why an inspection failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum InspectError {
    /// The file could not be read.
    Read(io::Error),
    /// The file is damaged.
    Damaged {
        /// The offset of the damage, in bytes.
        offset: u64,
        /// A description of the damage.
        what: String,
    },
    /// The file does not have the format of the inspector.
    UnknownFormat {
        /// A description of the contents.
        what: String,
    },
    /// The requested depth needs a key.
    NeedsKey {
        /// The key that is needed.
        what: String,
    },
    /// The file is not authentic under the given key.
    Unauthentic {
        /// The reason.
        what: String,
    },
    /// [`Reading`] returned `Break` before the end of the file.
    Stopped,
}

impl From<io::Error> for InspectError {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

/// The inspector of any file. The version of a file is the SHA-256 of its bytes.
///
/// A plain file has no identity of its own, so every regular file with the name of a backup counts
/// as one. A directory, a symbolic link or a device never does. [`facts`](Inspect::facts) and
/// [`verify`](Inspect::verify) cost the same, because both read every byte.
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
        in_pieces(0..size, |piece, at| {
            file.read_exact_at(piece, at)?;
            digest.update(&*piece);
            match reading(at + piece.len() as u64) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(InspectError::Stopped),
            }
        })?;
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

/// The methods of a [`File`] that change it, for one that can only be read.
macro_rules! refuse_writes {
    () => {
        fn write_all_at(&self, _buf: &[u8], _offset: u64) -> std::io::Result<()> {
            Err(std::io::ErrorKind::PermissionDenied.into())
        }

        fn set_len(&self, _len: u64) -> std::io::Result<()> {
            Err(std::io::ErrorKind::PermissionDenied.into())
        }

        fn allocate(&self, _offset: u64, _len: u64) -> std::io::Result<()> {
            Err(std::io::ErrorKind::PermissionDenied.into())
        }
    };
}
#[cfg(feature = "remote")]
pub(crate) use refuse_writes;

/// The first bytes of a growing file, as a file of that length. Reads after that length fail with
/// `UnexpectedEof`, and writes with `PermissionDenied`.
#[derive(Debug, Clone)]
pub struct Prefix {
    file: Arc<dyn File>,
    len: u64,
}

impl Prefix {
    /// Creates a view of the first `len` bytes of `file`, which must be at least that long.
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

    refuse_writes!();

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

/// A [`Reading`] that never stops.
pub(crate) fn to_the_end(_: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}
