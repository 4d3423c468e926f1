//! A bucket of an object store that speaks the protocol of S3.

mod answer;
mod http;
mod keys;
mod upload;

use std::env;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use codex_storage::net::{self, Tls};
use codex_storage::vfs::{Entropy, OsEntropy};
use instant_xml::FromXml;
use rusty_s3::actions::ListObjectsV2;
use rusty_s3::{Bucket, Method, UrlStyle};

use super::fault::Fault;
use super::target::{Body, Created, Listed, Target, check_name};
use crate::error::{Cause, Error, Result};
use crate::text::hex;
use answer::Answer;
use http::{Http, Payload, Request};
pub use keys::S3Keys;
use keys::{Ring, Source};

/// The options of [`S3`].
///
/// ```no_run
/// use codex_backup::remote::S3Options;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let place = S3Options::new("https://s3.eu-central-1.amazonaws.com", "my-backups")
///     .region("eu-central-1")
///     .prefix("laptop/app")
///     .open()?; // with the keys in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct S3Options {
    endpoint: String,
    bucket: String,
    region: Option<String>,
    prefix: String,
    keys: Source,
    tls: Tls,
    plain_http: bool,
    path_style: Option<bool>,
}

impl S3Options {
    /// Returns the options for a bucket of the server at `endpoint`, such as
    /// `https://s3.us-east-1.amazonaws.com`.
    pub fn new(endpoint: impl Into<String>, bucket: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            bucket: bucket.into(),
            region: None,
            prefix: String::new(),
            keys: Source::default(),
            tls: Tls::new(),
            plain_http: false,
            path_style: None,
        }
    }

    /// Sets the region, which is part of each signature. Default: that in `AWS_REGION` or
    /// `AWS_DEFAULT_REGION`, else `us-east-1`, which servers without regions accept.
    #[must_use]
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.region = Some(region.into());
        self
    }

    /// Sets the beginning of the names of all objects. Each file needs one of its own. It has
    /// lower-case letters, digits and `-`, with `/` between its parts. Default: none.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets the keys. Default: those in `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, if it is
    /// set, `AWS_SESSION_TOKEN`.
    #[must_use]
    pub fn keys(mut self, keys: S3Keys) -> Self {
        self.keys = Source::Keys(keys);
        self
    }

    /// Sets a file with the keys, such as `~/.aws/credentials`. They are those of the section that
    /// `AWS_PROFILE` names, or of `[default]`. The file is read when the bucket is opened, and
    /// again when the server refuses the keys.
    #[must_use]
    pub fn keys_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.keys = Source::File(path.into());
        self
    }

    /// Sets a function that returns the keys. It is called when the bucket is opened, and again
    /// when the server refuses the keys, as it does with temporary ones after their time.
    #[must_use]
    pub fn keys_from(
        mut self,
        renew: impl Fn() -> std::result::Result<S3Keys, Cause> + Send + Sync + 'static,
    ) -> Self {
        self.keys = Source::Function(Arc::new(renew));
        self
    }

    /// Sets a file with the certificates of the authorities to trust, in PEM. Default: the file
    /// that `SSL_CERT_FILE` names, or that of the system.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.tls = self.tls.ca_file(path);
        self
    }

    /// Sets whether an endpoint with `http://` may be on another machine. Requests and objects are
    /// then readable on the way, though not the secret. Default: no.
    #[must_use]
    pub fn plain_http(mut self, allowed: bool) -> Self {
        self.plain_http = allowed;
        self
    }

    /// Sets whether the bucket is a part of the path of an address (`https://host/bucket`) instead
    /// of its host (`https://bucket.host`). Default: yes, except at `amazonaws.com`.
    #[must_use]
    pub fn path_style(mut self, path_style: bool) -> Self {
        self.path_style = Some(path_style);
        self
    }

    /// Opens the bucket: finds it, and proves that the server refuses a second object of one name.
    /// For that it creates and removes one small object.
    ///
    /// # Errors
    /// [`Fault::NoCreateOnly`] if the server replaces an object that exists;
    /// [`Fault::Credentials`], [`Fault::Denied`], [`Fault::NoBucket`], [`Fault::ClockOff`],
    /// [`Fault::Invalid`]; [`Fault::Io`] if the server cannot be reached.
    pub fn open(self) -> Result<S3> {
        let place = PathBuf::from(format!("s3://{}/{}", self.bucket, self.prefix));
        self.connect().map_err(|fault| Error::Remote { path: place, fault })
    }

    fn connect(self) -> Result<S3, Fault> {
        let prefix = match self.prefix.as_str() {
            "" => String::new(),
            prefix => {
                check_name(prefix)?;
                format!("{prefix}/")
            }
        };
        let invalid = |why: String| Fault::Invalid(why);
        let endpoint: url::Url = self.endpoint.parse().map_err(|error| {
            invalid(format!("{:?} is no address of a server: {error}", self.endpoint))
        })?;
        let host = endpoint.host_str().unwrap_or_default();
        let is_here = net::is_this_machine(host);
        if endpoint.scheme() != "https" && !is_here && !self.plain_http {
            let why = "the endpoint is not encrypted on the way; use `https://`, or allow it with \
                       `plain_http(true)`";
            return Err(invalid(why.to_owned()));
        }
        let path_style = self.path_style.unwrap_or(!host.ends_with(".amazonaws.com"));
        let style = if path_style { UrlStyle::Path } else { UrlStyle::VirtualHost };
        let from_env = || env::var("AWS_REGION").or_else(|_| env::var("AWS_DEFAULT_REGION")).ok();
        let region = self.region.or_else(from_env).unwrap_or_else(|| "us-east-1".to_owned());
        let bucket = Bucket::new(endpoint, style, self.bucket, region)
            .map_err(|error| invalid(format!("no bucket can be there: {error}")))?;
        let http = Http::new(bucket, Ring::new(self.keys)?, &self.tls)?;
        let place = S3 { http, prefix };
        place.prove_create_only()?;
        Ok(place)
    }
}

/// A bucket, or the objects in one whose names have a prefix.
///
/// Requests that failed are sent again three times. Objects of more than 16 MiB are uploaded in
/// parts, two at a time, each with its SHA-256, which the server compares unless it knows no
/// checksums. An upload takes about half a mebibyte of memory, and a second thread while it runs.
/// One that was interrupted leaves parts, which [`sweep`](Target::sweep) removes.
#[derive(Debug)]
pub struct S3 {
    http: Http,
    prefix: String,
}

impl S3 {
    /// Creates one object twice.
    fn prove_create_only(&self) -> Result<(), Fault> {
        let mut id = [0; 16];
        OsEntropy.fill(&mut id).map_err(|error| Fault::io("draw a name", error))?;
        let name = format!("probe/{}", hex(&id));
        let create = || self.create(&name, &mut Body::new(b"codexdb"));
        let proved = create().and_then(|_| create()).and_then(|second| match second {
            Created::Exists => Ok(()),
            Created::New => Err(Fault::NoCreateOnly),
        });
        match &proved {
            Ok(()) => self.remove(&name)?,
            // The first error tells the cause.
            Err(_) => drop(self.remove(&name)),
        }
        proved
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Sends a request about one object. Any answer is a success.
    fn ask(
        &self,
        method: Method,
        name: &str,
        query: &[(&str, &str)],
        headers: &[(&str, &str)],
        payload: Payload<'_>,
    ) -> Result<Answer, Fault> {
        let key = self.key(name);
        self.http.send(&Request { method, object: Some(&key), query, headers }, payload)
    }

    /// Sends a request about the whole bucket.
    fn ask_bucket(&self, query: &[(&str, &str)]) -> Result<Answer, Fault> {
        let request = Request { method: Method::Get, object: None, query, headers: &[] };
        self.http.send(&request, Payload::Nothing).and_then(successful)
    }
}

impl Target for S3 {
    fn create(&self, name: &str, body: &mut Body<'_, '_>) -> Result<Created, Fault> {
        check_name(name)?;
        let len = body.len();
        if len > PART_BYTES {
            return self.upload(name, body);
        }
        let mut read = |buf: &mut [u8], at| body.read_exact_at(buf, at);
        let payload = Payload::Part(&mut read, 0..len);
        created(&self.ask(Method::Put, name, &[], &[CREATE_ONLY], payload)?)
    }

    fn read_at(&self, name: &str, buf: &mut [u8], at: u64) -> Result<(), Fault> {
        if buf.is_empty() {
            return Ok(());
        }
        let len = buf.len() as u64;
        let expected = at.saturating_add(len);
        let range = format!("bytes={at}-{}", expected - 1);
        let answer = self.ask(Method::Get, name, &[], &[("range", &range)], Payload::Into(buf))?;
        match answer.status {
            206 if answer.len == Some(len) => Ok(()),
            // The part ends with the object, or begins after its end.
            206 | 416 => {
                let found = answer.whole.or(answer.len.map(|len| at + len)).unwrap_or(0);
                Err(Fault::Truncated { expected, found })
            }
            200 => Err(Fault::Refused { status: 200, code: "without the range".to_owned() }),
            _ => Err(answer.fault()),
        }
    }

    fn size(&self, name: &str) -> Result<Option<u64>, Fault> {
        let answer = self.ask(Method::Head, name, &[], &[], Payload::Nothing)?;
        match answer.status {
            // The answer to this request has no body that tells a missing bucket.
            404 => Ok(None),
            _ => Ok(Some(successful(answer)?.len.unwrap_or(0))),
        }
    }

    fn list(&self, prefix: &str, sink: &mut dyn FnMut(Listed)) -> Result<(), Fault> {
        let prefix = self.key(prefix);
        let mut from = None::<String>;
        loop {
            let mut query = vec![("encoding-type", "url"), ("list-type", "2"), ("prefix", &prefix)];
            // The parts are in the order of their names.
            if let Some(from) = &from {
                query.insert(0, ("continuation-token", from));
            }
            let answer = self.ask_bucket(&query)?;
            let page =
                ListObjectsV2::parse_response(&answer.body).map_err(|error| unclear(&error))?;
            for object in page.contents {
                if let Some(name) = object.key.strip_prefix(&self.prefix) {
                    let age = answer.age(object.last_modified.as_deref());
                    let len = object.size.ok_or_else(|| Fault::Refused {
                        status: 200,
                        code: "with a list without lengths".to_owned(),
                    })?;
                    sink(Listed { name: name.to_owned(), len, age });
                }
            }
            from = page.next_continuation_token;
            if from.is_none() {
                return Ok(());
            }
        }
    }

    fn remove(&self, name: &str) -> Result<(), Fault> {
        let answer = self.ask(Method::Delete, name, &[], &[], Payload::Nothing)?;
        match answer.fault() {
            _ if answer.is_success() => Ok(()),
            Fault::Missing => Ok(()),
            fault => Err(fault),
        }
    }

    fn sweep(&self, age: Duration) -> Result<u64, Fault> {
        let query = [("prefix", self.prefix.as_str()), ("uploads", "")];
        let answer = self.ask_bucket(&query)?;
        // Of more than a thousand, the rest is found by the next call.
        let found: Uploads =
            instant_xml::from_str(&answer.body).map_err(|error| unclear(&error))?;
        let mut count = 0;
        for upload in found.uploads {
            let Some(name) = upload.key.strip_prefix(&self.prefix) else { continue };
            if answer.age(upload.initiated.as_deref()) >= age {
                self.abort(name, &upload.id)?;
                count += 1;
            }
        }
        Ok(count)
    }

    fn path(&self, name: &str) -> PathBuf {
        format!("s3://{}/{}", self.http.bucket.name(), self.key(name)).into()
    }
}

/// Returns what the answer to a creation means.
fn created(answer: &Answer) -> Result<Created, Fault> {
    match answer.status {
        200 => Ok(Created::New),
        412 => Ok(Created::Exists),
        501 => Err(Fault::NoCreateOnly),
        _ => Err(answer.fault()),
    }
}

fn successful(answer: Answer) -> Result<Answer, Fault> {
    if answer.is_success() { Ok(answer) } else { Err(answer.fault()) }
}

/// Returns the fault of an answer that has no meaning.
fn unclear(error: &instant_xml::Error) -> Fault {
    Fault::Refused { status: 200, code: format!("with a list that cannot be read ({error})") }
}

/// The answer to the question for uploads that have not ended.
#[derive(Debug, FromXml)]
#[xml(rename = "ListMultipartUploadsResult", ns("http://s3.amazonaws.com/doc/2006-03-01/"))]
struct Uploads {
    uploads: Vec<Upload>,
}

#[derive(Debug, FromXml)]
#[xml(rename = "Upload", ns("http://s3.amazonaws.com/doc/2006-03-01/"))]
struct Upload {
    #[xml(rename = "Key")]
    key: String,
    #[xml(rename = "UploadId")]
    id: String,
    #[xml(rename = "Initiated")]
    initiated: Option<String>,
}

/// Makes the creation of an object that exists fail with 412.
const CREATE_ONLY: (&str, &str) = ("if-none-match", "*");
/// The length from which on an object is uploaded in parts, and the least length of a part.
const PART_BYTES: u64 = 16 << 20;
