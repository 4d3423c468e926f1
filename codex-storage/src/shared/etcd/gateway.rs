//! The requests to the members of the cluster: which member is asked, for how long, with which
//! token, and what its answer means.

use std::io::{self, Read};
use std::time::Duration;

use serde_json::{Value, json};
use ureq::config::ConfigBuilder;
use ureq::typestate::AgentScope;
use ureq::{Agent, Body};
use zeroize::Zeroizing;

use super::answer::{Answer, Refusal, text};
use crate::net::{no_answer, ureq};
use crate::shared::{EngineFault, SharedError};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::vfs::{Clock, OsClock};

/// The access to a cluster.
#[derive(Debug)]
pub(super) struct Gateway {
    agent: Agent,
    endpoints: Vec<String>,
    /// The member that is asked, as an index.
    at: AtomicUsize,
    user: Option<(String, Zeroizing<String>)>,
    /// The token of the user, or an empty text.
    token: Mutex<Zeroizing<String>>,
    pub(super) clock: OsClock,
}

/// The reason for which a request has no result.
#[derive(Debug)]
pub(super) struct Failed {
    /// Whether the request may be done, or be done later.
    pub(super) is_in_doubt: bool,
    pub(super) why: Why,
}

#[derive(Debug)]
pub(super) enum Why {
    /// No member answered. The text tells the last reason.
    Away(String),
    /// The cluster has no room.
    Full,
    /// The revision that was asked for was compacted.
    Compacted,
    /// The error is the same for each later try.
    Refused(SharedError),
}

/// The outcome of one try.
enum Tried {
    Done(Value),
    /// The token is unknown to the member.
    NoToken,
    /// A later try fails too. Says whether it may be done.
    Failed(Why, bool),
    /// Nothing was done, because there was no connection.
    Unreached(String),
    /// It may be done.
    InDoubt(String),
}

impl Gateway {
    /// Makes no connection yet.
    pub(super) fn new(
        config: ConfigBuilder<AgentScope>,
        endpoints: Vec<String>,
        user: Option<(String, Zeroizing<String>)>,
    ) -> Self {
        let config = config.timeout_connect(Some(TRY)).timeout_resolve(Some(TRY));
        Self {
            agent: config.no_delay(true).build().new_agent(),
            endpoints,
            at: AtomicUsize::new(0),
            user,
            token: Mutex::new(Zeroizing::new(String::new())),
            clock: OsClock::new(),
        }
    }

    /// Sends a request to a member, and to the next one if that does not answer, until `timeout` is
    /// over.
    pub(super) fn call(
        &self,
        path: &str,
        body: &Value,
        timeout: Duration,
    ) -> Result<Answer, Failed> {
        let body = Zeroizing::new(body.to_string());
        let end = self.clock.monotonic().saturating_add(timeout);
        let (mut is_in_doubt, mut logins, mut why) = (false, 0, String::new());
        let mut failures = 0;
        loop {
            let left = end.saturating_sub(self.clock.monotonic());
            if left.is_zero() {
                return Err(Failed { is_in_doubt, why: Why::Away(why) });
            }
            let at = self.at.load(Ordering::Relaxed);
            match self.login_and_post(at, path, &body, left.min(TRY)) {
                Tried::Done(value) => return Ok(Answer { value, was_in_doubt: is_in_doubt }),
                Tried::NoToken if logins < LOGINS_MAX => {
                    logins += 1;
                    self.token.lock().clear();
                    continue;
                }
                Tried::NoToken => {
                    let kind = EngineFault::Password;
                    let error = self.error(at, kind, "the member knows no token that it issued");
                    return Err(Failed { is_in_doubt, why: Why::Refused(error) });
                }
                Tried::Failed(why, may_be_done) => {
                    return Err(Failed { is_in_doubt: is_in_doubt || may_be_done, why });
                }
                Tried::Unreached(reason) => why = reason,
                Tried::InDoubt(reason) => (is_in_doubt, why) = (true, reason),
            }
            self.turn_from(at);
            failures += 1;
            if failures % self.endpoints.len() == 0 {
                let left = end.saturating_sub(self.clock.monotonic());
                self.clock.sleep(PAUSE.min(left));
            }
        }
    }

    /// Opens a stream of answers from the member that is asked at present. Each read of it ends
    /// after `silence`.
    pub(super) fn stream(
        &self,
        path: &str,
        body: &Value,
        silence: Duration,
    ) -> io::Result<impl Read + use<>> {
        let at = self.at.load(Ordering::Relaxed);
        let token = self.token.lock().clone();
        let mut request = self.agent.post(self.url(at, path)).config();
        request = request.timeout_recv_response(Some(silence)).timeout_per_read(Some(silence));
        let mut request = request.build();
        if !token.is_empty() {
            request = request.header("authorization", token.as_str());
        }
        let answered = request.send(body.to_string()).map_err(|error| {
            self.turn_from(at);
            no_answer(&error)
        })?;
        if answered.status().as_u16() == 200 {
            return Ok(answered.into_body().into_reader());
        }
        if answered.status().as_u16() == 401 {
            self.token.lock().clear();
        }
        self.turn_from(at);
        Err(io::ErrorKind::ConnectionRefused.into())
    }

    /// Returns the version that a member tells outside of its gateway, which older ones have too.
    pub(super) fn version(&self) -> Option<String> {
        let at = self.at.load(Ordering::Relaxed);
        let request = self.agent.get(self.url(at, "/version")).config();
        let mut answered = request.timeout_global(Some(TRY)).build().call().ok()?;
        let value: Value = serde_json::from_slice(&body_of(answered.body_mut()).ok()?).ok()?;
        Some(text(&value, "etcdserver").to_owned()).filter(|version| !version.is_empty())
    }

    /// Returns an error of the member `at`.
    pub(super) fn error(&self, at: usize, kind: EngineFault, why: &str) -> SharedError {
        let at = self.endpoints.get(at % self.endpoints.len().max(1)).cloned().unwrap_or_default();
        SharedError::Engine { at, fault: kind, why: why.to_owned() }
    }

    /// Returns an error of the member that is asked at present.
    pub(super) fn error_here(&self, kind: EngineFault, why: &str) -> SharedError {
        self.error(self.at.load(Ordering::Relaxed), kind, why)
    }

    /// Asks another member from now on, unless another call has changed that already.
    fn turn_from(&self, at: usize) {
        let next = (at + 1) % self.endpoints.len().max(1);
        let _ = self.at.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn url(&self, at: usize, path: &str) -> String {
        let endpoint = self.endpoints.get(at).map_or("", String::as_str);
        format!("{endpoint}{path}")
    }

    /// Sends a request once, with a token if there is a user.
    fn login_and_post(&self, at: usize, path: &str, body: &str, limit: Duration) -> Tried {
        let mut token = self.token.lock().clone();
        if let Some((name, secret)) = &self.user
            && token.is_empty()
        {
            let login = Zeroizing::new(json!({"name": name, "password": **secret}).to_string());
            match self.post(at, "/v3/auth/authenticate", &login, "", limit) {
                Tried::Done(answer) => {
                    token = Zeroizing::new(text(&answer, "token").to_owned());
                    self.token.lock().clone_from(&token);
                }
                // Nothing of the request itself was sent.
                Tried::InDoubt(why) => return Tried::Unreached(why),
                refused => return refused,
            }
        }
        self.post(at, path, body, &token, limit)
    }

    fn post(&self, at: usize, path: &str, body: &str, token: &str, limit: Duration) -> Tried {
        let request = self.agent.post(self.url(at, path)).config();
        let mut request = request
            .timeout_send_request(Some(limit))
            .timeout_send_body(Some(limit))
            .timeout_recv_response(Some(limit))
            // A long answer may take longer as long as it comes.
            .timeout_recv_body(Some(BODY))
            .timeout_per_read(Some(limit))
            .build();
        // An empty header is refused.
        if !token.is_empty() {
            request = request.header("authorization", token);
        }
        let mut answered = match request.send(body) {
            Ok(answered) => answered,
            Err(error) => return self.unanswered(at, &error),
        };
        let status = answered.status().as_u16();
        let bytes = match body_of(answered.body_mut()) {
            Ok(bytes) => bytes,
            Err(error) => return Tried::InDoubt(error.to_string()),
        };
        let value = match serde_json::from_slice::<Value>(&bytes) {
            Ok(value) if status == 200 => return Tried::Done(value),
            Ok(value) => value,
            Err(_) if status == 200 => {
                return Tried::InDoubt("the answer is not in JSON".to_owned());
            }
            // Some refusals are plain text.
            Err(_) => {
                let said = String::from_utf8_lossy(bytes.get(..SAID_MAX).unwrap_or(&bytes));
                json!({ "error": said.trim() })
            }
        };
        match Refusal::of(status, &value) {
            Refusal::InDoubt(why) => Tried::InDoubt(why),
            Refusal::Busy(why) => Tried::Unreached(why),
            Refusal::NoToken => Tried::NoToken,
            Refusal::Full => Tried::Failed(Why::Full, false),
            Refusal::Compacted => Tried::Failed(Why::Compacted, false),
            Refusal::Definite(fault, why) => {
                Tried::Failed(Why::Refused(self.error(at, fault, &why)), false)
            }
        }
    }

    /// Returns the outcome of a try that has failed with an error of TLS.
    fn no_tls(&self, at: usize, error: &str) -> Tried {
        let why = format!("{error}; {}", step_after(error));
        // An alert may come when the request was sent.
        let may_be_done = error.contains("alert");
        Tried::Failed(Why::Refused(self.error(at, EngineFault::Tls, &why)), may_be_done)
    }

    /// Returns what a request without an answer means.
    fn unanswered(&self, at: usize, error: &ureq::Error) -> Tried {
        let why = no_answer(error);
        let text = why.to_string();
        match error {
            // The handshake comes before the request. Another member has the same authority.
            ureq::Error::Rustls(_) | ureq::Error::Tls(_) => self.no_tls(at, &text),
            ureq::Error::Io(source) if source.get_ref().is_some_and(is_of_tls) => {
                self.no_tls(at, &text)
            }
            ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed
            | ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
                Tried::Unreached(text)
            }
            ureq::Error::Io(_) if why.kind() == io::ErrorKind::ConnectionRefused => {
                Tried::Unreached(text)
            }
            _ => Tried::InDoubt(text),
        }
    }
}

/// Returns the next step after an error of TLS.
fn step_after(error: &str) -> &'static str {
    let steps = [
        (
            "UnknownIssuer",
            "name the file with the authority that signed its certificate (`ca_file`)",
        ),
        ("xpired", "have its certificate renewed, or check the clock of this machine"),
        ("NotValidYet", "check the clock of this machine"),
        ("not valid for name", "use an address that is in its certificate"),
        ("NotValidForName", "use an address that is in its certificate"),
        ("fatal alert", "it accepts only programs with a certificate of its authority (`client`)"),
    ];
    let step = steps.iter().find(|(part, _)| error.contains(part));
    step.map_or("check the certificates of the member and of this program", |(_, step)| step)
}

/// Returns whether an error is one of TLS, which arrives as one of the connection.
fn is_of_tls(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    let text = error.to_string();
    text.contains("certificate") || text.contains("received fatal alert")
}

/// Returns the body of an answer.
fn body_of(body: &mut Body) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    body.as_reader().take(ANSWER_LEN_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The maximum time for one try.
const TRY: Duration = Duration::from_secs(1);
/// The maximum time for the body of an answer.
const BODY: Duration = Duration::from_secs(30);
/// The pause after all members have failed.
const PAUSE: Duration = Duration::from_millis(20);
/// The number of times that one request asks for a token.
const LOGINS_MAX: u32 = 2;
/// The maximum length of the text of a refusal.
const SAID_MAX: usize = 300;
/// The maximum length of an answer.
const ANSWER_LEN_MAX: u64 = 256 << 20;
