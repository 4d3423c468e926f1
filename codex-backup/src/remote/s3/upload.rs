//! Uploads an object in parts, two at a time, which become the object all at once.

use std::ops::Range;
use std::time::Duration;

use base64ct::{Base64, Encoding as _};
use codex_storage::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use codex_storage::sync::{channel, thread};
use codex_storage::vfs::in_pieces;
use instant_xml::ToXml;
use rusty_s3::Method;
use rusty_s3::actions::{CompleteMultipartUploadResponse, CreateMultipartUpload};
use sha2::{Digest as _, Sha256};

use super::http::Payload;
use super::{CREATE_ONLY, PART_BYTES, S3, created, successful, unclear};
use crate::remote::Fault;
use crate::remote::target::{Body, Bytes, Created, Target};

impl S3 {
    /// Creates the object `name` from parts.
    pub(super) fn upload(&self, name: &str, body: &mut Body<'_, '_>) -> Result<Created, Fault> {
        let (id, has_sums) = self.begin(name)?;
        let upload = Upload {
            place: self,
            name,
            id: &id,
            bytes: body.bytes(),
            part_len: PART_BYTES.max(body.len().div_ceil(PARTS_MAX)),
            has_sums,
            begun: AtomicU64::new(0),
            sent: [AtomicU64::new(0), AtomicU64::new(0)],
            is_over: AtomicBool::new(false),
        };
        // Order: only the last request makes the object, after all parts are there.
        let ended = upload.parts(body).and_then(|parts| upload.complete(parts));
        if !matches!(ended, Ok(Created::New)) {
            // If this fails too, a later sweep removes the parts.
            let _ = self.abort(name, &id);
        }
        ended
    }

    /// Begins an upload. Returns its id, and whether the server compares the checksums of parts.
    fn begin(&self, name: &str) -> Result<(String, bool), Fault> {
        let ask = |headers: &[_]| {
            self.ask(Method::Post, name, &[("uploads", "")], headers, Payload::Nothing)
        };
        let mut begun = ask(&[SHA256_PARTS])?;
        // Some servers have no checksums. The caller reads the object back in any case.
        let has_sums = begun.status != 501 && begun.code() != "NotImplemented";
        if !has_sums {
            begun = ask(&[])?;
        }
        let begun = successful(begun)?;
        let parsed =
            CreateMultipartUpload::parse_response(&begun.body).map_err(|error| unclear(&error))?;
        Ok((parsed.upload_id().to_owned(), has_sums))
    }

    /// Removes the parts of an upload.
    pub(super) fn abort(&self, name: &str, id: &str) -> Result<(), Fault> {
        let query = [("uploadId", id)];
        let answer = self.ask(Method::Delete, name, &query, &[], Payload::Nothing)?;
        match answer.fault() {
            _ if answer.is_success() => Ok(()),
            Fault::Missing => Ok(()),
            fault => Err(fault),
        }
    }
}

/// An upload that has begun. Each thread reads its part while it sends it, so that no part is in
/// memory as a whole.
struct Upload<'u> {
    place: &'u S3,
    name: &'u str,
    id: &'u str,
    bytes: Bytes<'u>,
    part_len: u64,
    has_sums: bool,
    /// The number of parts that a thread has begun.
    begun: AtomicU64,
    /// The number of bytes that each thread has sent.
    sent: [AtomicU64; 2],
    /// Set when a part has failed, so that the other thread ends.
    is_over: AtomicBool,
}

/// A part that the server has.
#[derive(ToXml)]
#[xml(rename = "Part")]
struct Part {
    #[xml(rename = "ChecksumSHA256")]
    sum: Option<String>,
    #[xml(rename = "ETag")]
    etag: String,
    #[xml(rename = "PartNumber")]
    number: u64,
}

/// The request that makes an object of the parts.
#[derive(ToXml)]
#[xml(rename = "CompleteMultipartUpload")]
struct Complete {
    parts: Vec<Part>,
}

impl Upload<'_> {
    /// Uploads all parts, by the calling thread and a second one. Only the calling thread reports
    /// the progress.
    fn parts(&self, body: &mut Body<'_, '_>) -> Result<Vec<Part>, Fault> {
        let [by_this, by_other] = &self.sent;
        let (send, receive) = channel::sync_channel(1);
        let (mine, theirs) = thread::scope(|scope| {
            let work = move || drop(send.send(self.some_parts(by_other, &mut || Ok(()))));
            // If there is no second thread, this one uploads all, and the channel is closed.
            drop(thread::spawn_scoped(scope, "codexdb-upload", work));
            let _guard = Ending(self);
            let mine = self.some_parts(by_this, &mut || body.reach(self.sent()));
            loop {
                match receive.recv_timeout(LOOK) {
                    Ok(theirs) => break (mine, theirs),
                    Err(channel::RecvTimeoutError::Disconnected) => break (mine, Ok(Vec::new())),
                    Err(channel::RecvTimeoutError::Timeout) => {
                        if body.reach(self.sent()).is_err() {
                            self.is_over.store(true, Ordering::Relaxed);
                        }
                    }
                }
            }
        });
        // A thread also says `Stopped` if the other one has failed, so the callback is asked first.
        body.reach(self.sent())?;
        match (mine, theirs) {
            (Ok(mut parts), Ok(theirs)) => {
                parts.extend(theirs);
                parts.sort_unstable_by_key(|part| part.number);
                Ok(parts)
            }
            (Err(Fault::Stopped) | Ok(_), Err(fault)) | (Err(fault), _) => Err(fault),
        }
    }

    /// Uploads the parts that no thread has begun, one after another. Counts the bytes in `sent`,
    /// and calls `going` after each read.
    fn some_parts(
        &self,
        sent: &AtomicU64,
        going: &mut dyn FnMut() -> Result<(), Fault>,
    ) -> Result<Vec<Part>, Fault> {
        let mut parts = Vec::new();
        loop {
            let number = self.begun.fetch_add(1, Ordering::Relaxed);
            let from = number.saturating_mul(self.part_len);
            if from >= self.bytes.len() {
                return Ok(parts);
            }
            let range = from..self.bytes.len().min(from + self.part_len);
            let part = self.part(sent, number + 1, &range, going);
            parts.push(part.inspect_err(|_| self.is_over.store(true, Ordering::Relaxed))?);
        }
    }

    /// Uploads one part.
    fn part(
        &self,
        sent: &AtomicU64,
        number: u64,
        range: &Range<u64>,
        going: &mut dyn FnMut() -> Result<(), Fault>,
    ) -> Result<Part, Fault> {
        let sum = if self.has_sums { Some(self.sum(range, going)?) } else { None };
        let headers = sum.as_deref().map(|sum| (SHA256, sum));
        let text = number.to_string();
        let query = [("partNumber", text.as_str()), ("uploadId", self.id)];
        let before = sent.load(Ordering::Relaxed);
        let mut read = |buf: &mut [u8], at: u64| {
            self.read(buf, at)?;
            sent.store(before + (at - range.start) + buf.len() as u64, Ordering::Relaxed);
            going()
        };
        let payload = Payload::Part(&mut read, range.clone());
        let answer = self.place.ask(Method::Put, self.name, &query, headers.as_slice(), payload);
        let answer = match answer {
            Err(Fault::Io { .. } | Fault::HalfUpload { .. }) if self.sent() > 0 => {
                return Err(Fault::HalfUpload { sent: self.sent(), total: self.bytes.len() });
            }
            answer => successful(answer?)?,
        };
        let no_tag = || Fault::Refused { status: 200, code: "without an ETag".to_owned() };
        Ok(Part { sum, etag: answer.etag.ok_or_else(no_tag)?, number })
    }

    /// Returns the SHA-256 of a part, as the headers of a request have it.
    fn sum(
        &self,
        range: &Range<u64>,
        going: &mut dyn FnMut() -> Result<(), Fault>,
    ) -> Result<String, Fault> {
        let mut digest = Sha256::new();
        in_pieces(range.clone(), |piece, at| {
            self.read(piece, at)?;
            digest.update(&*piece);
            going()
        })?;
        Ok(Base64::encode_string(&digest.finalize()))
    }

    fn read(&self, buf: &mut [u8], at: u64) -> Result<(), Fault> {
        if self.is_over.load(Ordering::Relaxed) {
            return Err(Fault::Stopped);
        }
        self.bytes.read_exact_at(buf, at)
    }

    /// Returns the number of bytes that were sent.
    fn sent(&self) -> u64 {
        self.sent.iter().map(|sent| sent.load(Ordering::Relaxed)).sum()
    }

    /// Makes the object of its parts, which are in order.
    fn complete(&self, parts: Vec<Part>) -> Result<Created, Fault> {
        let text = instant_xml::to_string(&Complete { parts }).map_err(|error| unclear(&error))?;
        let (query, headers) = ([("uploadId", self.id)], [CREATE_ONLY]);
        let payload = Payload::Text(&text);
        let answer = self.place.ask(Method::Post, self.name, &query, &headers, payload)?;
        match created(&answer) {
            // A success in the status alone: the answer begins before the parts are joined.
            Ok(Created::New) if CompleteMultipartUploadResponse::parse(&answer.body).is_err() => {
                Err(Fault::Refused { status: answer.status, code: answer.code() })
            }
            // An earlier attempt has ended the upload, and its answer was lost. Or another program
            // has removed the parts.
            Err(Fault::Missing) => match self.place.size(self.name)? {
                Some(_) => Ok(Created::Exists),
                None => Err(Fault::HalfUpload { sent: 0, total: self.bytes.len() }),
            },
            answered => answered,
        }
    }
}

/// Ends the other thread when the calling one unwinds, as it does if the progress callback panics.
/// After the parts of both nothing is left to end.
struct Ending<'a, 'u>(&'a Upload<'u>);

impl Drop for Ending<'_, '_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

/// Makes the server compare each part with a checksum.
const SHA256_PARTS: (&str, &str) = ("x-amz-checksum-algorithm", "SHA256");
/// The header with the checksum of a part.
const SHA256: &str = "x-amz-checksum-sha256";
/// The maximum number of parts is 10,000; some servers count otherwise.
const PARTS_MAX: u64 = 9_000;
/// How often the progress callback is asked while only the second thread uploads.
const LOOK: Duration = Duration::from_millis(50);
