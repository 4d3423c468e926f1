//! Sends signed requests, and sends them again where that may help.

use std::io::{self, Read};
use std::ops::Range;
use std::time::Duration;

use codex_storage::net::ureq::http::{HeaderMap, Request as HttpRequest};
use codex_storage::net::ureq::{Agent, SendBody};
use codex_storage::net::{self, Tls};
use codex_storage::vfs::{Clock, OsClock};
use jiff::Timestamp;
use rusty_s3::signing::sign;
use rusty_s3::{Bucket, Credentials, Method};
use url::Url;

use super::answer::{Answer, date};
use super::keys::Ring;
use crate::remote::Fault;

/// One request. The parts of the query are in the order of their names, as are the headers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) method: Method,
    /// The name of the object in the bucket, or `None` for the bucket itself.
    pub(super) object: Option<&'a str>,
    pub(super) query: &'a [(&'a str, &'a str)],
    pub(super) headers: &'a [(&'a str, &'a str)],
}

/// What a request sends, or where its answer goes.
pub(super) enum Payload<'p> {
    Nothing,
    Text(&'p str),
    /// The bytes of an object from an offset to another one, which are read anew for each attempt.
    Part(&'p mut Reader<'p>, Range<u64>),
    /// The answer is a part of an object, which fills this.
    Into(&'p mut [u8]),
}

/// Fills a buffer with the bytes of an object at an offset.
pub(super) type Reader<'r> = dyn FnMut(&mut [u8], u64) -> Result<(), Fault> + 'r;

/// A server, a bucket and the keys for it.
#[derive(Debug)]
pub(super) struct Http {
    agent: Agent,
    pub(super) bucket: Bucket,
    keys: Ring,
    clock: OsClock,
}

impl Http {
    /// Makes no connection yet.
    pub(super) fn new(bucket: Bucket, keys: Ring, tls: &Tls) -> Result<Self, Fault> {
        let is_encrypted = bucket.base_url().scheme() == "https";
        let tls = is_encrypted.then(|| tls.config().map_err(Fault::Invalid)).transpose()?;
        let config = net::client(tls)
            .timeout_send_body(Some(TRANSFER))
            .timeout_recv_response(Some(ANSWER))
            .timeout_recv_body(Some(TRANSFER));
        Ok(Self { agent: config.build().new_agent(), bucket, keys, clock: OsClock::new() })
    }

    /// Sends the request, and again after an error that may pass. Returns any answer of the server,
    /// also a refusal.
    pub(super) fn send(
        &self,
        request: &Request<'_>,
        mut payload: Payload<'_>,
    ) -> Result<Answer, Fault> {
        let (mut pause, mut tries) = (PAUSE_FIRST, TRIES);
        loop {
            tries -= 1;
            let keys = self.keys.now();
            let sent = self.send_once(request, &keys.0, &mut payload);
            let is_over = match &sent {
                Ok(answer) if answer.refuses_keys() && self.keys.renew(&keys) => false,
                Ok(answer) => !answer.is_passing(),
                Err(Fault::Io { .. } | Fault::HalfUpload { .. }) => false,
                Err(_) => true,
            };
            if is_over || tries == 0 {
                return sent;
            }
            self.clock.sleep(pause);
            pause *= 4;
        }
    }

    fn send_once(
        &self,
        request: &Request<'_>,
        keys: &Credentials,
        payload: &mut Payload<'_>,
    ) -> Result<Answer, Fault> {
        let url = signed(&self.bucket, request, keys, &Timestamp::now(), VALID);
        let mut http = HttpRequest::builder().method(request.method.to_str()).uri(url.as_str());
        for (name, value) in request.headers {
            http = http.header(*name, *value);
        }
        let bad = |_| Fault::Invalid("the endpoint is no address of a server".to_owned());
        let answered = match payload {
            Payload::Part(read, range) => {
                let mut part = Part { read, at: range.start, end: range.end, fault: None };
                let total = range.end - range.start;
                let http = http.header("content-length", total);
                let http = http.body(SendBody::from_reader(&mut part)).map_err(bad)?;
                let answered = self.agent.run(http);
                if let Some(fault) = part.fault {
                    return Err(fault);
                }
                let sent = part.at - range.start;
                match answered {
                    // It broke off between the first byte and the last one.
                    Err(_) if 0 < sent && sent < total => {
                        return Err(Fault::HalfUpload { sent, total });
                    }
                    answered => answered,
                }
            }
            Payload::Text(text) => self.agent.run(http.body(*text).map_err(bad)?),
            _ if request.method == Method::Post => self.agent.run(http.body("").map_err(bad)?),
            _ => self.agent.run(http.body(()).map_err(bad)?),
        };
        let mut answered =
            answered.map_err(|error| Fault::io("reach the server", net::no_answer(&error)))?;
        let mut answer = head(answered.status().as_u16(), answered.headers());
        let mut body = answered.body_mut().with_config().limit(u64::MAX).reader();
        match payload {
            Payload::Into(buf) if answer.is_success() => {
                if answer.len == Some(buf.len() as u64) {
                    body.read_exact(buf).map_err(|error| Fault::io("read it", error))?;
                }
            }
            _ => {
                let read = body.take(ANSWER_LEN_MAX).read_to_string(&mut answer.body);
                read.map_err(|error| Fault::io("read the answer of the server", error))?;
            }
        }
        Ok(answer)
    }
}

/// Returns the address of a request, which is valid for a time from `now` on.
fn signed(
    bucket: &Bucket,
    request: &Request<'_>,
    keys: &Credentials,
    now: &Timestamp,
    valid: Duration,
) -> Url {
    let url = match request.object {
        Some(object) => bucket.object_url(object),
        None => bucket.base_url().clone(),
    };
    sign(
        now,
        request.method,
        url,
        keys.key(),
        keys.secret(),
        keys.token(),
        bucket.region(),
        valid.as_secs(),
        request.query.iter().copied(),
        request.headers.iter().copied(),
    )
}

/// Returns an answer without its body.
fn head(status: u16, headers: &HeaderMap) -> Answer {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let range = text("content-range").and_then(|range| range.rsplit_once('/'));
    Answer {
        status,
        len: text("content-length").and_then(|len| len.parse().ok()),
        etag: text("etag").map(str::to_owned),
        whole: range.and_then(|(_, whole)| whole.parse().ok()),
        date: text("date").and_then(date),
        here: Timestamp::now(),
        body: String::new(),
    }
}

/// A part of an object as the body of a request.
struct Part<'p, 'r> {
    read: &'p mut Reader<'r>,
    at: u64,
    end: u64,
    /// The reason why reading ended early.
    fault: Option<Fault>,
}

impl Read for Part<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let len = left.min(buf.len());
        let (now, _) = buf.split_at_mut(len);
        if let Err(fault) = (self.read)(now, self.at) {
            self.fault = Some(fault.clone());
            return Err(fault.into());
        }
        self.at += len as u64;
        Ok(len)
    }
}

/// The maximum time from the end of a request to its answer.
const ANSWER: Duration = Duration::from_secs(60);
/// The maximum time for a part of an object, in either direction.
const TRANSFER: Duration = Duration::from_secs(600);
/// How long a signature is valid, which is also how much a clock may be slow.
const VALID: Duration = Duration::from_secs(15 * 60);
/// The number of attempts of a request.
const TRIES: u32 = 4;
/// The pause after the first attempt. Each further one is four times as long.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// The maximum length of an answer that is a text.
const ANSWER_LEN_MAX: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::{Bucket, Credentials, Duration, Method, Request, Timestamp, signed};
    use rusty_s3::UrlStyle;

    /// The example of a signed address in the documentation of AWS ("Authenticating Requests: Using
    /// Query Parameters").
    #[test]
    fn an_address_is_signed_as_in_the_example_of_aws() {
        let endpoint = "https://s3.amazonaws.com".parse().unwrap();
        let bucket =
            Bucket::new(endpoint, UrlStyle::VirtualHost, "examplebucket", "us-east-1").unwrap();
        let keys =
            Credentials::new("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
        let now = "2013-05-24T00:00:00Z".parse::<Timestamp>().unwrap();
        let method = Method::Get;
        let request = Request { method, object: Some("test.txt"), query: &[], headers: &[] };
        let url = signed(&bucket, &request, &keys, &now, Duration::from_secs(86_400));
        assert_eq!(
            url.as_str(),
            "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256\
             &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request\
             &X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
             &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
        );
    }
}
