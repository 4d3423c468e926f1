//! The images and logs that an archive sends, and their order.

use std::sync::Arc;
use std::time::Duration;

use codex_backup::remote::{ArchiveWriter, Fault, Image, LogId, LogStart, Remote};
use codex_storage::batch::Seq;
use codex_storage::seal::Seal;
use codex_storage::storage::{Form, LogPart};
use codex_storage::vfs::Vfs;

use super::archiver::Shared;
use super::logs::{Logs, Outcome};
use super::{Archive, ArchiveEvent};
use crate::backup::StoreFile;
use crate::engine::{ArchivePoint, Engine};
use crate::error::Result;

/// Sends an open store to a place.
pub(super) struct Shipper {
    /// The place, read without the key.
    remote: Remote,
    form: Form,
    /// Set when the archive has begun at the place.
    writer: Option<ArchiveWriter>,
    logs: Logs,
    /// The main file that the place has as its newest image, and the last commit in that.
    image: Option<(Version, Seq)>,
    /// The numbers of the store when all of it was sent.
    sent: Seen,
    /// The time at which the claim to the place was last looked up.
    checked_at: Duration,
    /// The time at which an image was last read at the place.
    verified_at: Duration,
}

/// The identity of a main file, which differs from that of the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    /// The log that continues it, if the form has logs.
    log: Option<[u8; 16]>,
    /// The number of its envelope, which each change of the key changes.
    envelope: u64,
    /// The last commit of a store that has no log.
    seq: Option<Seq>,
}

/// Numbers that show whether there is something to send.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    seq: Seq,
    log_bytes: u64,
    checkpoints: u64,
}

impl Shipper {
    pub(super) fn new(options: &Archive, vfs: &Vfs, form: Form) -> Self {
        let inspect = Arc::new(StoreFile::default());
        let remote = Remote::new(Arc::clone(&options.target), inspect, vfs);
        Self {
            remote: remote.plain_objects(options.plain_objects).keep_for(options.keep_for),
            form,
            writer: None,
            logs: Logs::default(),
            image: None,
            sent: Seen::default(),
            checked_at: Duration::ZERO,
            verified_at: vfs.clock.monotonic(),
        }
    }

    /// Returns whether something is to be sent before the interval is over. Called often.
    pub(super) fn is_due(&self, shared: &Shared, engine: &Engine) -> bool {
        let (now, seen) = (shared.now(), Seen::of(engine));
        if self.image.is_some() && seen.seq <= shared.seq() {
            // Nothing waits now.
            shared.covers(shared.seq(), now);
        }
        let more = seen.log_bytes.saturating_sub(self.sent.log_bytes);
        seen.checkpoints != self.sent.checkpoints || more >= BYTES_DUE
    }

    /// Sends all commits that were made before the call. Returns the last commit that can be
    /// restored.
    pub(super) fn send(&mut self, shared: &Shared, engine: &Engine) -> Result<Seq> {
        // Order: the numbers are read before the files, so that later commits are due again.
        let (seen, began) = (Seen::of(engine), shared.now());
        if self.form == Form::Snapshot {
            engine.flush()?;
        }
        let mut point = self.logs.point(shared, engine)?;
        self.begin(shared, &point)?;
        if self.image.is_none() {
            // An image comes first: without one, the logs lead nowhere.
            self.send_image(shared, engine, &point, seen)?;
        }
        let mut outcome = self.logs.send(&self.remote, &point.parts, shared)?;
        // A log that has lost its name is not sent. The next image has its commits.
        let is_lost = self.form == Form::Wal && point.parts.is_empty();
        if outcome == Outcome::WentBack || is_lost {
            (point, outcome) = self.begin_line(shared, engine, seen)?;
        }
        let image_seq = self.send_image(shared, engine, &point, seen)?;
        let is_sent = outcome == Outcome::Everything;
        let in_logs = is_sent.then(|| self.logs.reaches(&point.parts)).flatten();
        let seq = in_logs.unwrap_or(image_seq);
        shared.covers(seq, began);
        self.sent = seen;
        self.verify_if_due(shared, engine, point.seal)?;
        Ok(seq)
    }

    /// Sends the last commits of a store that was closed.
    pub(super) fn finish(&mut self, shared: &Shared, engine: &Engine) -> Result<()> {
        let ended = engine.take_ended_logs();
        let last = ended.parts.last().map(|part| (part.file_id, part.seq));
        self.logs.take(ended, shared);
        // Without an image the logs lead nowhere.
        if self.image.is_none() {
            return Ok(());
        }
        self.logs.send(&self.remote, &[], shared)?;
        if let Some((_, seq)) = last.filter(|(log, _)| self.logs.has_reached(*log)) {
            shared.covers(seq, shared.now());
        }
        Ok(())
    }

    /// Claims the place, or returns an error if another archive has claimed it since.
    fn begin(&mut self, shared: &Shared, point: &ArchivePoint) -> Result<()> {
        let age = shared.now().saturating_sub(self.checked_at);
        if self.writer.is_none() {
            let (file, _) = point.main.to_copy()?;
            self.writer = Some(self.remote.begin_archive(&file)?);
        } else if let Some(writer) = self.writer.as_ref().filter(|_| age >= CHECK_EVERY) {
            self.remote.check_writer(writer)?;
        } else {
            return Ok(());
        }
        self.checked_at = shared.now();
        Ok(())
    }

    /// Goes on with a new image and a new log, because the place has another history of the log.
    fn begin_line(
        &mut self,
        shared: &Shared,
        engine: &Engine,
        seen: Seen,
    ) -> Result<(ArchivePoint, Outcome)> {
        if self.form != Form::Wal {
            let path = shared.options.target.path("");
            return Err(codex_backup::Error::Remote { path, fault: Fault::Fenced }.into());
        }
        // The image that a checkpoint writes is continued by another log. If there is nothing to
        // write, the image in place has all commits, and the next commit leads here again.
        engine.checkpoint()?;
        let point = self.logs.point(shared, engine)?;
        self.send_image(shared, engine, &point, seen)?;
        let outcome = self.logs.send(&self.remote, &point.parts, shared)?;
        Ok((point, outcome))
    }

    /// Sends the main file, unless the place has it. Returns the last commit in it.
    fn send_image(
        &mut self,
        shared: &Shared,
        engine: &Engine,
        point: &ArchivePoint,
        seen: Seen,
    ) -> Result<Seq> {
        let first = point.parts.first();
        let version = Version {
            log: first.map(|part| part.file_id),
            envelope: point.main.envelope_number(),
            seq: first.is_none().then_some(seen.seq),
        };
        match self.image {
            Some((known, seq)) if known == version => return Ok(seq),
            _ => {}
        }
        let Some(writer) = self.writer.clone() else { return Ok(0) };
        let remote = self.keyed(point.seal.clone());
        if self.form == Form::Ledger
            && self.image.is_none()
            && let Some((image, start)) = image_of(&remote, version.log)?
        {
            self.logs.begin_ledger(start);
            let seq = image.facts.seq;
            self.image = Some((version, seq));
            self.logs.begin_at(version.log);
            shared.count(|stats| stats.image = Some(image.name));
            return Ok(seq);
        }
        let start = first.map(|part| self.start(part, &writer));
        let (file, _) = point.main.to_copy()?;
        let put = {
            let (logs, has_image, plain) = (&mut self.logs, self.image.is_some(), &self.remote);
            let mut sent_at = shared.now();
            // Logs are sent meanwhile, because an image may take long. An error here occurs again
            // after the image, and is reported then.
            let mut watch = |_| {
                let began = shared.now();
                if has_image && began.saturating_sub(sent_at) >= shared.options.every {
                    if let Ok((now, Outcome::Everything)) = logs.catch_up(plain, shared, engine)
                        && let Some(seq) = logs.reaches(&now.parts)
                    {
                        shared.covers(seq, began);
                    }
                    sent_at = shared.now();
                }
                shared.go_on()
            };
            remote.put_image(&writer, &file, start, &mut watch)?
        };
        let seq = put.image.facts.seq;
        if let Some(start) = start.filter(|_| self.form == Form::Ledger) {
            self.logs.begin_ledger(start);
        }
        self.image = Some((version, seq));
        self.logs.begin_at(version.log);
        shared.count(|stats| {
            stats.images += u64::from(put.is_new);
            stats.image = Some(put.image.name);
        });
        if put.is_new {
            self.verified_at = shared.now();
            shared.tell(&ArchiveEvent::Image { seq });
            if let Some(keep) = shared.options.keep {
                remote.prune(keep, &mut |_| shared.go_on())?;
            }
        }
        Ok(seq)
    }

    /// Returns where the pieces begin that continue an image, whose first log is `part`.
    fn start(&self, part: &LogPart, writer: &ArchiveWriter) -> LogStart {
        let LogPart { base_seq, file_id, follows, end, seq, .. } = *part;
        if self.form == Form::Ledger {
            // The image has the log itself, up to its end.
            let log = LogId { base_seq: seq, file_id, follows: writer.id() };
            return LogStart { log, from: end };
        }
        LogStart { log: LogId { base_seq, file_id, follows }, from: 0 }
    }

    /// Reads the newest image at the place again, if that is due.
    fn verify_if_due(
        &mut self,
        shared: &Shared,
        engine: &Engine,
        seal: Option<Arc<dyn Seal>>,
    ) -> Result<()> {
        let age = shared.now().saturating_sub(self.verified_at);
        if shared.options.verify_every.is_none_or(|every| age < every) {
            return Ok(());
        }
        let remote = self.keyed(seal);
        if let Some(newest) = remote.list()?.images.first() {
            remote.verify(newest, &mut |_| shared.go_on()).inspect_err(|_| {
                // The next image takes its place. Whether it can be written is seen then.
                let _ = engine.checkpoint();
            })?;
        }
        self.verified_at = shared.now();
        Ok(())
    }

    /// Returns the place, read with the root key of the store.
    fn keyed(&self, seal: Option<Arc<dyn Seal>>) -> Remote {
        self.remote.with_inspect(Arc::new(StoreFile::under(seal)))
    }
}

impl Seen {
    fn of(engine: &Engine) -> Self {
        let stats = engine.stats();
        let (seq, log_bytes) = (stats.storage.seq, stats.storage.log_bytes);
        Self { seq, log_bytes, checkpoints: stats.checkpoints }
    }
}

/// Returns the newest image at the place if the ledger `log` continues it, and where. The image of
/// a ledger that was not written again is continued for ever.
fn image_of(remote: &Remote, log: Option<[u8; 16]>) -> Result<Option<(Image, LogStart)>> {
    let Some(newest) = remote.list()?.images.into_iter().next() else { return Ok(None) };
    let start = newest.log.filter(|start| Some(start.log.file_id) == log);
    Ok(start.map(|start| (newest, start)))
}

/// The time between two looks at whether another archive has begun. Each new image looks, too.
const CHECK_EVERY: Duration = Duration::from_secs(60);
/// The number of bytes of the log that are sent before the interval is over.
const BYTES_DUE: u64 = 4 << 20;
