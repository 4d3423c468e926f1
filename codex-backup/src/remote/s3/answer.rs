//! What an answer of a server means.

use std::time::Duration;

use instant_xml::FromXml;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

use crate::remote::Fault;

/// The answer to a request.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The length of the body, or of the object.
    pub(super) len: Option<u64>,
    pub(super) etag: Option<String>,
    /// The whole length of an object of which a part was asked for.
    pub(super) whole: Option<u64>,
    /// The time of the server.
    pub(super) date: Option<Timestamp>,
    /// The time of this machine, when the answer came.
    pub(super) here: Timestamp,
    /// The body, unless it is the part of an object that was asked for.
    pub(super) body: String,
}

/// The body of an error. The names stand in no namespace.
#[derive(Debug, Default, FromXml)]
#[xml(rename = "Error")]
struct ErrorBody {
    #[xml(rename = "Code")]
    code: Option<String>,
}

impl Answer {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Returns whether the same request may succeed a moment later.
    pub(super) fn is_passing(&self) -> bool {
        // 409: another creation of the same name has not ended yet.
        matches!(self.status, 409 | 429 | 500 | 502 | 503 | 504)
    }

    /// Returns the code of an error, as the server names it, or an empty text.
    pub(super) fn code(&self) -> String {
        let body: Option<ErrorBody> = instant_xml::from_str(&self.body).ok();
        body.and_then(|body| body.code).unwrap_or_default()
    }

    /// Returns the fault that the answer stands for.
    pub(super) fn fault(&self) -> Fault {
        let code = self.code();
        let named = || if code.is_empty() { self.status.to_string() } else { code.clone() };
        let is_refusal = matches!(self.status, 400 | 401 | 403);
        match code.as_str() {
            "RequestTimeTooSkewed" => Fault::ClockOff { off: self.clock_off() },
            // A signature of another time is refused in many words.
            _ if is_refusal && self.clock_off().is_some_and(|off| off >= CLOCK_OFF_MIN) => {
                Fault::ClockOff { off: self.clock_off() }
            }
            _ if self.refuses_keys() => Fault::Credentials(named()),
            "NoSuchBucket"
            | "PermanentRedirect"
            | "InvalidBucketName"
            | "AuthorizationHeaderMalformed"
            | "AuthorizationQueryParametersError"
            | "IllegalLocationConstraintException" => Fault::NoBucket(named()),
            _ if matches!(self.status, 301 | 307 | 308) => Fault::NoBucket(named()),
            _ if self.status == 403 => Fault::Denied(named()),
            _ if self.status == 404 => Fault::Missing,
            _ => Fault::Refused { status: self.status, code },
        }
    }

    /// Returns whether other keys may help.
    pub(super) fn refuses_keys(&self) -> bool {
        let is_named = matches!(
            self.code().as_str(),
            "InvalidAccessKeyId"
                | "SignatureDoesNotMatch"
                | "ExpiredToken"
                | "InvalidToken"
                | "TokenRefreshRequired"
        );
        is_named || self.status == 401
    }

    /// Returns how much the clocks differ, if the server told its time.
    fn clock_off(&self) -> Option<Duration> {
        let off = self.date?.duration_since(self.here).unsigned_abs();
        // The time of an answer has no fractions, and the answer took a moment.
        Some(Duration::from_secs(off.as_secs()))
    }

    /// Returns the time since `at`, as the server names times, by its clock. An unreadable time is
    /// the present.
    pub(super) fn age(&self, at: Option<&str>) -> Duration {
        let at = at.and_then(|at| at.parse::<Timestamp>().ok());
        let now = self.date.unwrap_or(self.here);
        let age = at.map(|at| now.duration_since(at));
        age.and_then(|age| Duration::try_from(age).ok()).unwrap_or_default()
    }
}

/// Returns the time in a header `Date`.
pub(super) fn date(text: &str) -> Option<Timestamp> {
    DateTimeParser::new().parse_timestamp(text).ok()
}

/// The least difference of the clocks that explains why a signature is refused.
const CLOCK_OFF_MIN: Duration = Duration::from_secs(5 * 60);

#[cfg(test)]
mod tests {
    use super::{Answer, Fault, Timestamp, date};

    fn fault(status: u16, code: &str, off_s: i64) -> Fault {
        let here = Timestamp::from_second(1_795_000_000).unwrap();
        let date = Timestamp::from_second(1_795_000_000 + off_s).ok();
        let body = format!(
            "<?xml version=\"1.0\"?>\n<Error><Code>{code}</Code><Message>no</Message></Error>"
        );
        Answer { status, date, here, body, ..Answer::default() }.fault()
    }

    #[test]
    fn each_refusal_has_its_own_fault() {
        type IsIt = fn(&Fault) -> bool;
        let cases: &[(u16, &str, i64, IsIt)] = &[
            (403, "InvalidAccessKeyId", 0, |f| matches!(f, Fault::Credentials(_))),
            (403, "SignatureDoesNotMatch", 60, |f| matches!(f, Fault::Credentials(_))),
            (400, "ExpiredToken", 0, |f| matches!(f, Fault::Credentials(_))),
            (403, "AccessDenied", 0, |f| matches!(f, Fault::Denied(_))),
            (403, "RequestTimeTooSkewed", 0, |f| matches!(f, Fault::ClockOff { .. })),
            (403, "AccessDenied", 7200, |f| matches!(f, Fault::ClockOff { off: Some(_) })),
            (403, "SignatureDoesNotMatch", -7200, |f| matches!(f, Fault::ClockOff { .. })),
            (404, "NoSuchBucket", 0, |f| matches!(f, Fault::NoBucket(_))),
            (301, "PermanentRedirect", 0, |f| matches!(f, Fault::NoBucket(_))),
            (400, "AuthorizationHeaderMalformed", 0, |f| matches!(f, Fault::NoBucket(_))),
            (404, "NoSuchKey", 0, |f| matches!(f, Fault::Missing)),
            (503, "SlowDown", 7200, |f| matches!(f, Fault::Refused { status: 503, .. })),
        ];
        for (status, code, off_s, is_it) in cases {
            let fault = fault(*status, code, *off_s);
            assert!(is_it(&fault), "{status} {code}: {fault}");
        }
    }

    #[test]
    fn ages_are_by_the_clock_of_the_server() {
        let answer = Answer { date: date("Thu, 26 Nov 2026 18:48:52 GMT"), ..Answer::default() };
        assert_eq!(answer.age(Some("2026-11-26T18:47:52.000Z")).as_secs(), 60);
        assert_eq!(answer.age(Some("2026-11-26T18:49:52.000Z")).as_secs(), 0);
        assert_eq!(answer.age(Some("yesterday")).as_secs(), 0);
    }
}
