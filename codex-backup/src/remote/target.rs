//! The interface to a place for objects, such as a bucket.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use codex_storage::vfs::File;

use super::fault::Fault;
use crate::meter::Meter;

/// A place for objects: names with bytes that never change.
///
/// A name is a path of lower-case letters, digits and `-`, with `/` between its parts, and at most
/// 200 bytes long. All methods may be called from several threads, processes and machines at the
/// same time.
///
/// An error of [`create`](Self::create) or [`remove`](Self::remove) leaves open whether the call
/// was done: the answer may be lost, and the call may even be done later. The callers in this crate
/// rest on nothing else.
pub trait Target: fmt::Debug + Send + Sync {
    /// Creates the object `name`. Until it is whole, no reader sees anything of it. An object that
    /// exists is never replaced. [`Created::Exists`] may be the result of an earlier try of this
    /// very call, whose answer was lost.
    fn create(&self, name: &str, body: &mut Body<'_, '_>) -> Result<Created, Fault>;
    /// Fills `buf` from the offset `at` of the object. [`Fault::Missing`] if it does not exist, and
    /// [`Fault::Truncated`] if it ends before.
    fn read_at(&self, name: &str, buf: &mut [u8], at: u64) -> Result<(), Fault>;
    /// Returns the length of the object, or `None` if it does not exist.
    fn size(&self, name: &str) -> Result<Option<u64>, Fault>;
    /// Calls `sink` with each object whose name begins with `prefix`, in any order.
    fn list(&self, prefix: &str, sink: &mut dyn FnMut(Listed)) -> Result<(), Fault>;
    /// Removes the object, if it exists.
    fn remove(&self, name: &str) -> Result<(), Fault>;
    /// Removes the unfinished uploads that are older than `age`. Returns their number.
    fn sweep(&self, age: Duration) -> Result<u64, Fault>;
    /// Returns the place of an object, for messages; of an empty name, that of all objects.
    fn path(&self, name: &str) -> PathBuf;
}

/// The result of [`Target::create`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// The object was created.
    New,
    /// There is an object of this name, and it was not changed.
    Exists,
}

/// An object in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The name.
    pub name: String,
    /// The length in bytes.
    pub len: u64,
    /// The time since the object was created, by the clock of the place.
    pub age: Duration,
}

/// The bytes of an object that is created. They may be read several times.
pub struct Body<'a, 'w> {
    bytes: Bytes<'a>,
    meter: Option<Meter<'a, 'w>>,
}

/// The bytes of a body without the reports of progress, so that threads can share them.
#[derive(Clone, Copy)]
pub(super) enum Bytes<'a> {
    Slice(&'a [u8]),
    /// The bytes up to this length.
    File(&'a dyn File, u64),
}

impl<'a, 'w> Body<'a, 'w> {
    /// Returns the body of a small object.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes: Bytes::Slice(bytes), meter: None }
    }

    /// Returns the first `len` bytes of `file`, whose reads are reported to `meter`.
    pub(crate) fn file(file: &'a dyn File, len: u64, meter: Meter<'a, 'w>) -> Self {
        Self { bytes: Bytes::File(file, len), meter: Some(meter) }
    }

    /// Returns the length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "an empty object has no special meaning")]
    pub fn len(&self) -> u64 {
        self.bytes.len()
    }

    /// Fills `buf` from the offset `at`. [`Fault::Source`] if that fails, and [`Fault::Stopped`] if
    /// the caller of the upload wants it to end.
    pub fn read_exact_at(&mut self, buf: &mut [u8], at: u64) -> Result<(), Fault> {
        self.bytes.read_exact_at(buf, at)?;
        self.reach(at.saturating_add(buf.len() as u64))
    }

    /// Returns the bytes. Who reads them reports the progress with [`reach`](Self::reach).
    #[cfg(feature = "s3")]
    pub(super) fn bytes(&self) -> Bytes<'a> {
        self.bytes
    }

    /// Reports that `done` bytes are read. [`Fault::Stopped`] if the caller of the upload wants it
    /// to end.
    pub(super) fn reach(&mut self, done: u64) -> Result<(), Fault> {
        let going = self.meter.as_mut().map(|meter| meter.reach(done));
        if going.is_some_and(|going| going.is_break()) { Err(Fault::Stopped) } else { Ok(()) }
    }
}

impl Bytes<'_> {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Slice(bytes) => bytes.len() as u64,
            Self::File(_, len) => *len,
        }
    }

    pub(super) fn read_exact_at(&self, buf: &mut [u8], at: u64) -> Result<(), Fault> {
        let end = at.saturating_add(buf.len() as u64);
        let read = match self {
            _ if end > self.len() => Err(io::ErrorKind::UnexpectedEof.into()),
            Self::File(file, _) => file.read_exact_at(buf, at),
            Self::Slice(bytes) => {
                let range = usize::try_from(at).ok().zip(usize::try_from(end).ok());
                match range.and_then(|(at, end)| bytes.get(at..end)) {
                    Some(found) => {
                        buf.copy_from_slice(found);
                        Ok(())
                    }
                    None => Err(io::ErrorKind::UnexpectedEof.into()),
                }
            }
        };
        read.map_err(|error| Fault::Source(Arc::new(error)))
    }
}

impl fmt::Debug for Body<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Returns an error if an object must not have this name.
pub(super) fn check_name(name: &str) -> Result<(), Fault> {
    let is_part = |part: &str| {
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !part.is_empty() && part.bytes().all(is_plain)
    };
    if name.len() <= NAME_LEN_MAX && name.split('/').all(is_part) {
        return Ok(());
    }
    Err(Fault::Invalid(format!(
        "{name:?} cannot name an object; use lower-case letters, digits, `-` and `/`, at most \
         {NAME_LEN_MAX} bytes"
    )))
}

/// The longest name of an object. A folder uses it as the name of a file.
const NAME_LEN_MAX: usize = 200;
