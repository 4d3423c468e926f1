//! Reading a log: frame by frame, each checked against its place and the one before it.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use super::group::{GroupRef, check_group};
use super::tail::Tail;
use super::window::Window;
use super::{LogEnd, batch_extra};
use crate::batch::Seq;
use crate::codec::{Fields, u64_of};
use crate::config::OnDamage;
use crate::digest::HistoryDigest;
use crate::error::{Error, Result};
use crate::frame::{CLOSE, FRAME_HEAD, GROUP, LogId, Parsed, RESUME, SALT_LEN, SECTOR, padded};
use crate::header::Header;
use crate::seal::{Opener, Seal, SealError, TAG_LEN};
use crate::storage::Form;
use crate::vfs::File;

/// Reads the groups of one log in order, holding one frame at a time.
#[derive(Debug)]
pub(crate) struct LogReader {
    pub(super) window: Window,
    pub(super) log: LogId,
    seal: Option<Arc<dyn Seal>>,
    /// The log is encrypted and its key is not at hand.
    is_blind: bool,
    opener: Option<(Epoch, Box<dyn Opener>)>,
    form: Form,
    pub(super) end: LogEnd,
    durable: Seq,
    /// Commits up to this one are known from another file to be durable.
    pub(super) proven: Seq,
    pub(super) on_damage: OnDamage,
    unproven: VecDeque<Unproven>,
    frames: u64,
    /// How many bytes were read of frames that turned out not to count.
    pub(super) wasted: u64,
    /// The plaintext of the frame at hand.
    plain: Vec<u8>,
    /// Its tag; zero in a plain store.
    tag: [u8; TAG_LEN],
    pub(super) tail: Option<Tail>,
}

/// What reading to the end has found.
#[derive(Debug, Clone)]
pub(crate) struct LogState {
    /// Where the intact part ends.
    pub(crate) end: LogEnd,
    /// Commits up to this one were proven durable.
    pub(crate) durable: Seq,
    /// How many frames there are.
    pub(crate) frames: u64,
    /// Where the last byte of the tail that is not zero ends, when there is a tail to cut.
    pub(crate) tail_end: Option<u64>,
    /// Offset and length of runs of frames that no later one proves durable.
    pub(crate) unproven: Vec<(u64, u64)>,
    /// The length of the file.
    pub(crate) file_len: u64,
}

impl LogReader {
    /// Begins to read the log in `file`, whose header is checked and authenticated. `proven`:
    /// commits up to this one are durable, as another file tells. Without the seal of an encrypted
    /// log, frames are checked by their checksums and chain alone and show no contents.
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
            end: LogEnd::base(header),
            durable: header.base_seq,
            // A ledger had these commits when it got its name.
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

    /// The next group; `None` at the end of the log, which has then been told from damage.
    ///
    /// # Errors
    /// `Damaged`, `Tampered`, `TailSuspect`, `Record`, `Io`.
    pub(crate) fn next(&mut self) -> Result<Option<GroupRef<'_>>> {
        while self.tail.is_none() {
            let offset = self.end.offset;
            match self.inspect(offset)? {
                NextFrame::Next(parsed) if parsed.header.kind == GROUP => {
                    self.take_group(offset, &parsed)?;
                    return Ok(Some(GroupRef {
                        first: parsed.header.seq,
                        count: parsed.header.batches,
                        offset,
                        payload: &self.plain,
                        batch_extra: batch_extra(self.form),
                        path: self.window.path(),
                    }));
                }
                NextFrame::Next(parsed) => {
                    self.advance(offset, &parsed, self.end.digest, self.end.time_us);
                }
                other => self.resolve(&other)?,
            }
        }
        Ok(None)
    }

    /// Sees what was written to the file since reading began.
    pub(crate) fn refresh(&mut self) -> Result<()> {
        self.window.refresh()
    }

    /// Where the last group that [`LogReader::next`] returned ends.
    pub(crate) fn end(&self) -> &LogEnd {
        &self.end
    }

    /// What was found, once [`LogReader::next`] has returned `None`.
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

    /// Looks at the place where the next frame would begin. The plaintext of a frame that is next
    /// is then at hand.
    fn inspect(&mut self, offset: u64) -> Result<NextFrame> {
        let Some(parsed) = self.parse(offset)? else { return Ok(NextFrame::NoHeader) };
        let header = &parsed.header;
        if !header.is_known() {
            return Ok(NextFrame::Damage(
                "the frame has a kind, flags or a number that no build wrote",
            ));
        }
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
        let left = self.window.file_len().saturating_sub(offset);
        self.wasted = self.wasted.saturating_add(parsed.header.len().min(left));
        Ok(found)
    }

    pub(super) fn parse(&mut self, offset: u64) -> Result<Option<Parsed>> {
        let log = self.log;
        Ok(Parsed::parse(self.window.bytes(offset, FRAME_HEAD)?, &log, offset))
    }

    /// Whether the body of the frame at `offset` is what was written.
    fn is_intact(&mut self, offset: u64, parsed: &Parsed) -> Result<bool> {
        let left = self.window.file_len().saturating_sub(offset);
        if parsed.header.len() > left {
            // Its last byte is not zero, so it can not lie behind the end of the file.
            return Ok(false);
        }
        let body = padded(parsed.header.len()) - u64_of(FRAME_HEAD);
        let body = usize::try_from(body).unwrap_or(usize::MAX);
        let bytes = self.window.bytes(offset + u64_of(FRAME_HEAD), body)?;
        Ok(parsed.is_intact(bytes))
    }

    /// Copies the payload of an intact frame to `self.plain`, decrypted where the store is.
    fn open(&mut self, offset: u64, parsed: &Parsed) -> Result<Opened> {
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
        let (salt, sealed) = match payload.split_first_chunk::<SALT_LEN>() {
            Some((salt, sealed)) if header.is_salted() => (Some(salt), sealed),
            None if header.is_salted() => {
                return Ok(Opened::Damaged("a frame is too short for its salt"));
            }
            _ => (None, payload),
        };
        self.plain.extend_from_slice(sealed);
        self.tag = sealed.last_chunk().copied().unwrap_or_default();
        let fresh = match salt {
            Some(salt) if !salt.starts_with(&header.epoch) => return Ok(Opened::Tampered),
            Some(salt) => Some(seal.opener(salt, &self.log.info())),
            None => None,
        };
        let fresh = fresh.transpose().map_err(|e| self.seal_error(offset, e))?;
        let known = self.opener.as_ref().filter(|(epoch, _)| *epoch == header.epoch);
        let Some(opener) = fresh.as_ref().or(known.map(|(_, opener)| opener)) else {
            return Ok(Opened::Damaged("a frame names an epoch whose salt was not seen"));
        };
        let aad = header.aad(&self.log, offset, &self.end.tag);
        match opener.open(header.counter, &aad, &mut self.plain) {
            Ok(()) => {}
            Err(SealError::Tampered) => return Ok(Opened::Tampered),
            Err(e) => return Err(self.seal_error(offset, e)),
        }
        if let Some(opener) = fresh {
            self.opener = Some((header.epoch, opener));
        }
        Ok(Opened::Yes)
    }

    /// Whether the frame at `offset` is an intact resume that continues the log from its end;
    /// then it does.
    pub(super) fn try_resume(&mut self, offset: u64, parsed: &Parsed) -> Result<bool> {
        let header = &parsed.header;
        let is_near = header.kind == RESUME && header.is_known() && offset.is_multiple_of(SECTOR);
        if !is_near || header.payload_len > RESUME_PAYLOAD_MAX || !self.follows(parsed) {
            return Ok(false);
        }
        let is_open =
            self.is_intact(offset, parsed)? && matches!(self.open(offset, parsed)?, Opened::Yes);
        let mut named = Fields::new(&self.plain);
        let named = (named.u64(), named.u64(), named.u64());
        let end = (self.end.offset, self.end.seq, self.end.chain);
        // Without the key, only seq and chain speak for it.
        if is_open && (named == end || self.is_blind) {
            self.advance(offset, parsed, self.end.digest, self.end.time_us);
            return Ok(true);
        }
        Ok(false)
    }

    /// Whether the header continues seq and chain.
    fn follows(&self, parsed: &Parsed) -> bool {
        let header = &parsed.header;
        header.seq == self.end.seq.saturating_add(1)
            && header.previous == self.end.chain
            && header.durable <= self.end.seq
            && header.last_seq().is_some()
    }

    /// Checks the batches of the group whose plaintext is at hand, and notes it.
    fn take_group(&mut self, offset: u64, parsed: &Parsed) -> Result<()> {
        if self.is_blind {
            self.advance(offset, parsed, self.end.digest, self.end.time_us);
            return Ok(());
        }
        let (digest, time_us) = check_group(&self.plain, self.form, &parsed.header, &self.end)
            .map_err(|what| self.damaged(offset, what))?;
        self.advance(offset, parsed, digest, time_us);
        Ok(())
    }

    /// Moves the end behind a frame.
    fn advance(&mut self, offset: u64, parsed: &Parsed, digest: HistoryDigest, time_us: i64) {
        let header = &parsed.header;
        let last = header.last_seq().unwrap_or(self.end.seq);
        let is_proven = |frame: &Unproven| frame.proven_by <= header.durable;
        while self.unproven.pop_front_if(|frame| is_proven(frame)).is_some() {}
        self.unproven.push_back(Unproven {
            // A resume or a close is proven by the commit that it announces.
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

    pub(super) fn damaged(&self, offset: u64, what: &'static str) -> Error {
        Error::Damaged { path: self.window.path().to_owned(), offset, what }
    }

    fn seal_error(&self, offset: u64, source: SealError) -> Error {
        crate::header::seal_error(self.window.path(), offset, source)
    }
}

/// What stands at the place of the next frame.
#[derive(Debug)]
pub(super) enum NextFrame {
    /// The next frame, intact.
    Next(Parsed),
    /// Nothing that was written there.
    NoHeader,
    /// The header of the next frame; its body is not intact.
    Torn(Parsed),
    /// A frame that fails authentication.
    Tampered,
    /// A frame that no crash leaves there.
    Damage(&'static str),
}

enum Opened {
    Yes,
    Tampered,
    Damaged(&'static str),
}

#[derive(Debug)]
struct Unproven {
    proven_by: Seq,
    offset: u64,
    len: u64,
}

/// The frames as few long runs; a tail that was crossed lies in none.
fn runs(frames: &VecDeque<Unproven>) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for frame in frames {
        match runs.last_mut() {
            Some((offset, len)) if *offset + padded(*len) == frame.offset => {
                *len = frame.offset - *offset + frame.len;
            }
            _ => runs.push((frame.offset, frame.len)),
        }
    }
    runs
}

/// The first bytes of an epoch's salt, which its frames carry.
type Epoch = [u8; 8];

/// Salt, valid end, seq, chain value and tag, in bytes.
pub(super) const RESUME_PAYLOAD_MAX: u32 = 72;
