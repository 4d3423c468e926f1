//! Uploads an object in parts, which become the object all at once.

use rusty_s3::Method;
use rusty_s3::actions::{
    CompleteMultipartUpload, CompleteMultipartUploadResponse, CreateMultipartUpload,
};

use super::http::Payload;
use super::{CREATE_ONLY, PART_BYTES, S3, created, successful, unclear};
use crate::remote::Fault;
use crate::remote::target::{Body, Created, Target};

impl S3 {
    /// Creates the object `name` from parts.
    pub(super) fn upload(&self, name: &str, body: &mut Body<'_, '_>) -> Result<Created, Fault> {
        let begun = self.ask(Method::Post, name, &[("uploads", "")], &[], Payload::Nothing);
        let begun = begun.and_then(successful)?;
        let parsed =
            CreateMultipartUpload::parse_response(&begun.body).map_err(|error| unclear(&error))?;
        let id = parsed.upload_id();
        let ended = self.parts(name, id, body).and_then(|etags| {
            // Order: only this request makes the object, after all parts are there.
            self.complete(name, id, &etags, body.len())
        });
        if !matches!(ended, Ok(Created::New)) {
            // If this fails too, a later sweep removes the parts.
            let _ = self.abort(name, id);
        }
        ended
    }

    /// Uploads the parts. Returns the tag of each.
    fn parts(&self, name: &str, id: &str, body: &mut Body<'_, '_>) -> Result<Vec<String>, Fault> {
        let total = body.len();
        let len = PART_BYTES.max(total.div_ceil(PARTS_MAX));
        let (mut etags, mut at) = (Vec::new(), 0);
        while at < total {
            let (number, end) = ((etags.len() + 1).to_string(), total.min(at + len));
            let query = [("partNumber", number.as_str()), ("uploadId", id)];
            let payload = Payload::Part(body, at, end);
            let answer = match self.ask(Method::Put, name, &query, &[], payload) {
                Err(Fault::Io { .. }) if at > 0 => {
                    return Err(Fault::HalfUpload { sent: at, total });
                }
                answer => successful(answer?)?,
            };
            let no_tag = || Fault::Refused { status: 200, code: "without an ETag".to_owned() };
            etags.push(answer.etag.ok_or_else(no_tag)?);
            at = end;
        }
        Ok(etags)
    }

    fn complete(
        &self,
        name: &str,
        id: &str,
        etags: &[String],
        total: u64,
    ) -> Result<Created, Fault> {
        let bucket = &self.http.bucket;
        let tags = etags.iter().map(String::as_str);
        let text = CompleteMultipartUpload::new(bucket, None, name, id, tags).body();
        let (query, headers) = ([("uploadId", id)], [CREATE_ONLY]);
        let payload = Payload::Text(&text);
        let answer = self.ask(Method::Post, name, &query, &headers, payload)?;
        match created(&answer) {
            // A success in the status alone: the answer begins before the parts are joined.
            Ok(Created::New) if CompleteMultipartUploadResponse::parse(&answer.body).is_err() => {
                Err(Fault::Refused { status: answer.status, code: answer.code() })
            }
            // An earlier attempt has ended the upload, and its answer was lost. Or another program
            // has removed the parts.
            Err(Fault::Missing) => match self.size(name)? {
                Some(_) => Ok(Created::Exists),
                None => Err(Fault::HalfUpload { sent: 0, total }),
            },
            answered => answered,
        }
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

/// The maximum number of parts is 10,000; some servers count otherwise.
const PARTS_MAX: u64 = 9_000;
