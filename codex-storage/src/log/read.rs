//! Reading a log frame by frame. Each frame is checked against its offset and the frame before it.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use super::group::{GroupRef, check_group};
use super::tail::Tail;
use super::unproven::{Unproven, runs};
use super::window::Window;
use super::{LogEnd, batch_extra};
use crate::batch::Seq;
use crate::codec::{Fields, u64_of};
use crate::config::OnDamage;
use crate::digest::HistoryDigest;
use crate::error::{Error, Result};
use crate::frame::{CLOSE, FRAME_HEAD, GROUP, LogId, Parsed, RESUME, SALT_LEN, SECTOR, padded};
use crate::header::Header;
use crate::pack::{Compression, unpack};
use crate::seal::{Opener, Seal, SealError, TAG_LEN};
use crate::storage::Form;
use crate::vfs::File;

/// Reads the groups of one log in order. Holds one frame at a time.
#[derive(Debug)]
pub(crate) struct LogReader {
    pub(super) window: Window,
    pub(super) log: LogId,
    seal: Option<Arc<dyn Seal>>,
    /// Whether the log is encrypted and its key is not available.
    is_blind: bool,
    pub(super) opener: Option<(EpochId, Arc<dyn Opener>)>,
    form: Form,
    compression: Compression,
    pub(super) end: LogEnd,
    durable: Seq,
    /// Commits up to this one are durable according to another file, or to the header.
    pub(super) proven: Seq,
    pub(super) on_damage: OnDamage,
    unproven: VecDeque<Unproven>,
    frames: u64,
    /// The number of bytes that were read of frames which turned out not to count.
    pub(super) wasted: u64,
    /// The plaintext of the current frame.
    plain: Vec<u8>,
    /// The tag of the current frame; zero in a plain store.
    tag: [u8; TAG_LEN],
    pub(super) tail: Option<Tail>,
}

/// The findings of a reader that reached the end of the log.
#[derive(Debug, Clone)]
pub(crate) struct LogState {
    /// The end of the intact frames.
    pub(crate) end: LogEnd,
    /// Commits up to this one were proven durable.
    pub(crate) durable: Seq,
    /// The number of frames.
    pub(crate) frames: u64,
    /// The offset after the last nonzero byte of the tail, or `None` if there is no tail to cut.
    pub(crate) tail_end: Option<u64>,
    /// Offset and length, in bytes, of runs of frames which no later frame proves durable.
    pub(crate) unproven: Vec<(u64, u64)>,
    /// The length of the file.
    pub(crate) file_len: u64,
}

impl LogReader {
    /// Begins to read the log in `file`, whose header was checked and authenticated. Commits up to
    /// `proven` are durable according to another file. Without the seal of an encrypted log, frames
    /// are checked only by their checksums and their chain, and have no contents.
    pub(crate) fn new(
        file: Arc<dyn File>,
        path: &Path,
        header: &Header,
        seal: Option<Arc<dyn Seal>>,
        proven: Seq,
        on_damage: OnDamage,
    ) -> Result<Self> {
        Ok(Self {
            window: Window::new(file, path.to_owned())?,
            log: LogId { file_id: header.file_id, generation: header.generation },
            is_blind: header.cipher != 0 && seal.is_none(),
            seal,
            opener: None,
            form: header.form,
            compression: header.compression,
            end: LogEnd::base(header),
            durable: header.base_seq,
            // A ledger had these commits durably when it got its name.
            proven: proven.max(header.named_seq),
            on_damage,
            unproven: VecDeque::new(),
            frames: 0,
            wasted: 0,
            plain: Vec::new(),
            tag: [0; TAG_LEN],
            tail: None,
        })
    }

    /// Returns the next group, or `None` at the end of the log, which was then distinguished from
    /// damage.
    ///
    /// # Errors
    /// - `Damaged`, `Tampered` or `Record` if a frame is not as a writer leaves it.
    /// - `TailSuspect` if the end of the log may be damage instead of a torn write.
    /// - `Io` if reading fails.
    pub(crate) fn next(&mut self) -> Result<Option<GroupRef<'_>>> {
        while self.tail.is_none() {
            let offset = self.end.offset;
            match self.inspect(offset)? {
                NextFrame::Next(parsed) if parsed.header.kind == GROUP => {
                    return self.take_group(offset, &parsed).map(Some);
                }
                NextFrame::Next(parsed) => {
                    // A resume or the mark of a close: it has no commits.
                    self.advance(offset, &parsed, self.end.digest, self.end.time_us);
                }
                other => self.resolve(&other)?,
            }
        }
        Ok(None)
    }

    /// Reads the length of the file again, so that bytes written since then can be read.
    pub(crate) fn refresh(&mut self) -> Result<()> {
        self.window.refresh()
    }

    /// Returns the end of the last group that [`LogReader::next`] returned.
    pub(crate) fn end(&self) -> &LogEnd {
        &self.end
    }

    /// Returns the findings, after [`LogReader::next`] has returned `None`.
    pub(crate) fn finish(self) -> LogState {
        LogState {
            end: self.end,
            durable: self.durable,
            frames: self.frames,
            tail_end: self.tail.and_then(|tail| tail.last_nonzero),
            unproven: runs(&self.unproven),
            file_len: self.window.file_len(),
        }
    }

    /// Checks the frame at `offset`, where the next one would begin. If it is the next one, its
    /// plaintext is in `self.plain` afterwards.
    pub(super) fn inspect(&mut self, offset: u64) -> Result<NextFrame> {
        // Order: header, chain, body checksum, then authentication. Each check uses only fields
        // that the checks before it have covered.
        let Some(parsed) = self.parse(offset)? else { return Ok(NextFrame::NoHeader) };
        let header = &parsed.header;
        if !header.is_known() {
            return Ok(NextFrame::Damage(
                "the frame has a kind, flags or a number that no build wrote",
            ));
        }
        // A resume frame is found only by the search after a gap, never directly after a frame.
        if !self.follows(&parsed) || header.kind == RESUME {
            return Ok(NextFrame::Damage("the frame does not continue the one before it"));
        }
        let found = if self.is_intact(offset, &parsed)? {
            match self.open(offset, &parsed)? {
                Opened::Yes => return Ok(NextFrame::Next(parsed)),
                Opened::Tampered => NextFrame::Tampered,
                Opened::Damaged(what) => NextFrame::Damage(what),
            }
        } else {
            NextFrame::Torn(parsed)
        };
        // The length of a frame that does not count may be wrong, so the bytes read for such frames
        // are limited.
        let left = self.window.file_len().saturating_sub(offset);
        self.wasted = self.wasted.saturating_add(parsed.header.len().min(left));
        Ok(found)
    }

    /// Parses the frame header at `offset`. Returns `None` if no frame of this log begins there.
    pub(super) fn parse(&mut self, offset: u64) -> Result<Option<Parsed>> {
        let log = self.log;
        Ok(Parsed::parse(self.window.bytes(offset, FRAME_HEAD)?, &log, offset))
    }

    /// Returns whether the body of the frame at `offset` has its checksum, end byte and padding.
    fn is_intact(&mut self, offset: u64, parsed: &Parsed) -> Result<bool> {
        let left = self.window.file_len().saturating_sub(offset);
        if parsed.header.len() > left {
            // The last byte of a frame is not zero, so the frame cannot extend past the end of the
            // file.
            return Ok(false);
        }
        let body = padded(parsed.header.len()) - u64_of(FRAME_HEAD);
        let body = usize::try_from(body).unwrap_or(usize::MAX);
        let bytes = self.window.bytes(offset + u64_of(FRAME_HEAD), body)?;
        Ok(parsed.is_intact(bytes))
    }

    /// Copies the payload of an intact frame to `self.plain`, decrypts it if the log is encrypted,
    /// and decompresses a group of a compressed log.
    fn open(&mut self, offset: u64, parsed: &Parsed) -> Result<Opened> {
        let opened = self.unseal(offset, parsed)?;
        let has_batches = parsed.header.kind == GROUP && !self.is_blind;
        if !matches!(opened, Opened::Yes) || !has_batches {
            return Ok(opened);
        }
        Ok(unpack(self.compression, &mut self.plain).map_or_else(Opened::Damaged, |()| opened))
    }

    /// Copies the payload of an intact frame to `self.plain`, and decrypts it if the log is
    /// encrypted.
    fn unseal(&mut self, offset: u64, parsed: &Parsed) -> Result<Opened> {
        let header = &parsed.header;
        let len = usize::try_from(header.payload_len).unwrap_or(usize::MAX);
        let payload = self.window.bytes(offset + u64_of(FRAME_HEAD), len)?;
        self.plain.clear();
        self.plain.reserve_exact(payload.len());
        let Some(seal) = &self.seal else {
            if self.is_blind {
                return Ok(Opened::Yes);
            }
            self.plain.extend_from_slice(payload);
            if header.is_salted() {
                return Ok(Opened::Damaged("a frame of a plain store has a salt"));
            }
            return Ok(Opened::Yes);
        };
        // An encrypted payload: the salt, if this frame begins an epoch, then the sealed bytes with
        // their tag.
        let (salt, sealed) = match payload.split_first_chunk::<SALT_LEN>() {
            Some((salt, sealed)) if header.is_salted() => (Some(salt), sealed),
            None if header.is_salted() => {
                return Ok(Opened::Damaged("a frame is too short for its salt"));
            }
            _ => (None, payload),
        };
        self.plain.extend_from_slice(sealed);
        self.tag = sealed.last_chunk().copied().unwrap_or_default();
        // The id of an epoch is the beginning of its salt. If they differ, the header is from
        // another frame.
        let fresh = match salt {
            Some(salt) if !salt.starts_with(&header.epoch) => return Ok(Opened::Tampered),
            Some(salt) => Some(seal.opener(salt, &self.log.info()).map(Arc::from)),
            None => None,
        };
        let fresh: Option<Arc<dyn Opener>> =
            fresh.transpose().map_err(|e| self.seal_error(offset, e))?;
        // A salt in this frame takes precedence over the epoch that was in use.
        let known = self.opener.as_ref().filter(|(epoch, _)| *epoch == header.epoch);
        let Some(opener) = fresh.as_ref().or(known.map(|(_, opener)| opener)) else {
            return Ok(Opened::Damaged("a frame names an epoch whose salt was not seen"));
        };
        // The offset and the tag of the frame before are authenticated too, so that no frame can be
        // moved or left out.
        let aad = header.aad(&self.log, offset, &self.end.tag);
        match opener.open(header.counter, &aad, &mut self.plain) {
            Ok(()) => {}
            Err(SealError::Tampered) => return Ok(Opened::Tampered),
            Err(e) => return Err(self.seal_error(offset, e)),
        }
        // Order: the new epoch is kept only after a frame has authenticated under it, so that a
        // forged salt never replaces the current one.
        if let Some(opener) = fresh {
            self.opener = Some((header.epoch, opener));
        }
        Ok(Opened::Yes)
    }

    /// Checks whether the frame at `offset` is an intact resume that continues the log at its end.
    /// If it is, moves the end after it and returns true.
    pub(super) fn try_resume(&mut self, offset: u64, parsed: &Parsed) -> Result<bool> {
        let header = &parsed.header;
        let is_near = header.kind == RESUME && header.is_known() && offset.is_multiple_of(SECTOR);
        if !is_near || header.payload_len > RESUME_PAYLOAD_MAX || !self.follows(parsed) {
            return Ok(false);
        }
        let is_open =
            self.is_intact(offset, parsed)? && matches!(self.open(offset, parsed)?, Opened::Yes);
        // The payload of a resume contains the end of the log that it continues.
        let mut named = Fields::new(&self.plain);
        let named = (named.u64(), named.u64(), named.u64());
        let end = (self.end.offset, self.end.seq, self.end.chain);
        // Without the key the payload is not readable, so only seq and chain are compared.
        if is_open && (named == end || self.is_blind) {
            self.advance(offset, parsed, self.end.digest, self.end.time_us);
            return Ok(true);
        }
        Ok(false)
    }

    /// Returns whether the header continues the seq and the chain of the log.
    fn follows(&self, parsed: &Parsed) -> bool {
        let header = &parsed.header;
        header.seq == self.end.seq.saturating_add(1)
            && header.previous == self.end.chain
            && header.durable <= self.end.seq
            && header.last_seq().is_some()
    }

    /// Checks the batches of the current group, moves the end of the log after it, and returns it.
    pub(super) fn take_group(&mut self, offset: u64, parsed: &Parsed) -> Result<GroupRef<'_>> {
        let (digest, time_us) = if self.is_blind {
            (self.end.digest, self.end.time_us)
        } else {
            check_group(&self.plain, self.form, &parsed.header, &self.end)
                .map_err(|what| self.damaged(offset, what))?
        };
        self.advance(offset, parsed, digest, time_us);
        Ok(GroupRef {
            first: parsed.header.seq,
            count: parsed.header.batches,
            offset,
            digest,
            payload: &self.plain,
            batch_extra: batch_extra(self.form),
            path: self.window.path(),
        })
    }

    /// Moves the end of the log after a frame.
    pub(super) fn advance(
        &mut self,
        offset: u64,
        parsed: &Parsed,
        digest: HistoryDigest,
        time_us: i64,
    ) {
        let header = &parsed.header;
        let last = header.last_seq().unwrap_or(self.end.seq);
        // The frame proves earlier commits durable up to its `durable`: the writer had synced them.
        let is_proven = |frame: &Unproven| frame.proven_by <= header.durable;
        while self.unproven.front().is_some_and(is_proven) {
            self.unproven.pop_front();
        }
        self.unproven.push_back(Unproven {
            // A resume or the mark of a close has no commit, and is proven together with the next
            // one.
            proven_by: last.max(header.seq),
            offset,
            len: header.len(),
        });
        self.durable = self.durable.max(header.durable);
        self.frames += 1;
        self.end = LogEnd {
            offset: offset + padded(header.len()),
            seq: last,
            chain: parsed.chain,
            tag: self.tag,
            digest,
            time_us,
            closed: header.kind == CLOSE,
        };
    }

    /// Returns `Damaged` at `offset`.
    pub(crate) fn damaged(&self, offset: u64, what: &'static str) -> Error {
        Error::Damaged { path: self.window.path().to_owned(), offset, what }
    }

    /// Returns the error of a seal for the frame at `offset`.
    fn seal_error(&self, offset: u64, source: SealError) -> Error {
        crate::header::seal_error(self.window.path(), offset, source)
    }
}

/// The result of looking for the next frame.
#[derive(Debug)]
pub(super) enum NextFrame {
    /// The next frame, which is intact.
    Next(Parsed),
    /// No frame header of this log.
    NoHeader,
    /// The header of the next frame, whose body is not intact.
    Torn(Parsed),
    /// A frame that does not authenticate.
    Tampered,
    /// A frame that no crash can leave.
    Damage(&'static str),
}

/// The result of opening the payload of a frame.
enum Opened {
    Yes,
    Tampered,
    Damaged(&'static str),
}

/// The first bytes of the salt of an epoch, which each of its frames carries.
pub(super) type EpochId = [u8; 8];

/// The largest payload of a resume frame: salt, valid end, seq, chain value and tag, in bytes.
pub(super) const RESUME_PAYLOAD_MAX: u32 = 72;
