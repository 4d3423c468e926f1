//! The pieces of logs that an archive sends beside images, and its claim to the place.

use std::sync::Arc;

use codex_storage::vfs::File;

use super::chain;
use super::fault::Fault;
use super::piece::{HEAD_BYTES, Head, LogId, PIECE_BYTES};

use super::target::Body;
use super::{Image, Latest, Remote};
use crate::error::{Error, Result};

/// The claim of one archive to a place. The next archive that begins there takes it away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveWriter {
    id: [u8; 16],
}

impl ArchiveWriter {
    /// Returns the id, which was drawn at random.
    pub fn id(&self) -> [u8; 16] {
        self.id
    }
}

/// The end of the pieces of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEnd {
    /// The offset behind the last piece.
    pub offset: u64,
    /// The last commit that is known to be whole up to there.
    pub seq: u64,
}

impl Remote {
    /// Begins an archive of `file`, which is a version of the file whose images are at the place.
    /// From then on each archive that began before it gets [`Fault::Fenced`].
    ///
    /// # Errors
    /// [`Fault::OtherFile`], after which nothing has changed; the errors of
    /// [`Inspect::identity`](crate::Inspect::identity); the faults of the target.
    pub fn begin_archive(&self, file: &Arc<dyn File>) -> Result<ArchiveWriter> {
        let place = self.target.path("");
        let identity = self.inspect.identity(file);
        let identity = identity.map_err(|error| Error::from_inspect(place, error))?;
        let mut id = [0; 16];
        let drawn = self.entropy.fill(&mut id);
        drawn.map_err(|error| self.fault("", Fault::io("draw a random number", error)))?;
        let writer = ArchiveWriter { id };
        self.revise(&mut |latest, next| {
            if latest.manifest.writer == Some(id) {
                return Ok(false);
            }
            self.refuse_other(latest, &identity)?;
            next.writer = Some(id);
            Ok(true)
        })?;
        Ok(writer)
    }

    /// Returns [`Fault::Fenced`] if another archive has begun since. Reads a manifest.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub fn check_writer(&self, writer: &ArchiveWriter) -> Result<()> {
        self.refuse_fenced(&self.latest()?, Some(writer))
    }

    /// Returns an error if another archive than that of `writer` has begun last.
    pub(super) fn refuse_fenced(
        &self,
        latest: &Latest,
        writer: Option<&ArchiveWriter>,
    ) -> Result<()> {
        match writer {
            Some(writer) if latest.manifest.writer != Some(writer.id) => {
                Err(self.fault("", Fault::Fenced))
            }
            _ => Ok(()),
        }
    }

    /// Returns where the pieces end that are there from the offset `from` on without a gap, or
    /// `from` and the base of the log if there are none.
    ///
    /// Returns `None` if the last one of them does not have the bytes of `file`, or is damaged, or
    /// if the log after this one continues an image of a line of history that was given up. Then
    /// the log cannot be continued: the file was put back to an earlier state, for example with the
    /// machine that it is on. Begin with a new image and a new log. The image in place is put
    /// before this call.
    ///
    /// # Errors
    /// [`Fault::NewerFormat`]; [`Fault::Source`] if `file` cannot be read; the faults of the
    /// target.
    pub fn log_end(&self, log: &LogId, from: u64, file: &dyn File) -> Result<Option<LogEnd>> {
        if went_back(&self.latest()?.manifest.images, log) {
            return Ok(None);
        }
        let pieces = chain::pieces(self, log, from)?;
        let Some((at, len)) = pieces.last().copied() else {
            return Ok(Some(LogEnd { offset: from, seq: log.base_seq }));
        };
        let source = |error| self.fault("", Fault::Source(Arc::new(error)));
        if file.len().map_err(source)? < at + len {
            return Ok(None);
        }
        let object = match self.piece(log, at) {
            Ok(object) => object,
            Err(Fault::Missing | Fault::Truncated { .. } | Fault::Altered) => return Ok(None),
            Err(fault) => return Err(self.fault(&log.piece(at), fault)),
        };
        let opened = Head::open(log.file_id, at, &object);
        let (head, theirs) = opened.map_err(|fault| self.fault(&log.piece(at), fault))?;
        let mut ours = vec![0; theirs.len()];
        file.read_exact_at(&mut ours, at).map_err(source)?;
        Ok((ours == theirs).then_some(LogEnd { offset: at + len, seq: head.seq }))
    }

    /// Creates the piece of the log with `bytes`, which stand at the offset `from`, and reads it
    /// back. Returns the offset behind the piece that is there now: it may be one of an earlier
    /// call whose answer was lost, and end earlier.
    ///
    /// All bytes are durable in the log. `seq` is the last commit that is whole up to the end of
    /// `bytes`. If that is not known, because the piece ends within what became durable at once,
    /// pass the `seq` of the piece before it. All commits up to `seq` were made before `time_us`.
    ///
    /// # Errors
    /// - [`Fault::Fenced`] if there is a piece of another archive.
    /// - [`Fault::Truncated`], [`Fault::Altered`] if the object has other bytes than were
    ///   sent, now or by an
    ///   earlier call. It cannot be replaced: begin with a new image and a new log.
    /// - [`Error::Invalid`] if `bytes` are none or more than 4 MiB; the faults of the target, after
    ///   which the piece may be there or not. Call again, with the same bytes or more.
    pub fn put_piece(
        &self,
        log: &LogId,
        from: u64,
        bytes: &[u8],
        seq: u64,
        time_us: i64,
    ) -> Result<u64> {
        if !(1..=PIECE_BYTES).contains(&bytes.len()) {
            let why = "bytes are no piece of a log; send 1 to 4194304";
            return Err(Error::Invalid { value: bytes.len().to_string(), why });
        }
        let name = log.piece(from);
        let object = Head::encode(log.file_id, from, bytes, seq, time_us);
        let put = || {
            self.target.create(&name, &mut Body::new(&object))?;
            // Order: a piece counts only after it was read back. This also tells whose it is, if
            // there was one of this name before.
            let found = self.piece(log, from)?;
            let theirs = found.get(HEAD_BYTES..).unwrap_or_default();
            if !bytes.starts_with(theirs) {
                return Err(Fault::Fenced);
            }
            Ok(from + theirs.len() as u64)
        };
        put().map_err(|fault| self.fault(&name, fault))
    }

    /// Reads a whole piece.
    pub(super) fn piece(&self, log: &LogId, from: u64) -> Result<Vec<u8>, Fault> {
        let name = log.piece(from);
        let size = self.target.size(&name)?.ok_or(Fault::Missing)?;
        let longest = (HEAD_BYTES + PIECE_BYTES) as u64;
        let mut object = vec![0; usize::try_from(size.min(longest + 1)).unwrap_or_default()];
        self.target.read_at(&name, &mut object, 0)?;
        Head::open(log.file_id, from, &object)?;
        Ok(object)
    }
}

/// Returns whether an image that the log after `log` continues was listed before one from which on
/// `log` is sent again: the file was put back to a time before that image.
fn went_back(images: &[Image], log: &LogId) -> bool {
    let (mut least, mut is_again) = (u64::MAX, false);
    images.iter().any(|image| {
        let next = image.log.filter(|start| start.log.follows == log.file_id);
        let is_given_up = is_again || image.facts.seq > least;
        least = least.min(image.facts.seq);
        is_again |= image.log.is_some_and(|start| start.log == *log);
        next.is_some() && is_given_up
    })
}
