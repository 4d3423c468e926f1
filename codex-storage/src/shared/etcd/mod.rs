//! A shared log on a cluster of etcd, through its gateway for JSON.
//!
//! The keys of the store are the log: a slot is a key that is created once, and its position is the
//! revision that created it. A watch brings entries early, and proves nothing: what it may have
//! left out is read again.

mod answer;
mod gateway;
mod live;
mod reading;
mod records;
mod session;
mod tail;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ureq::http::Uri;
use zeroize::Zeroizing;

use super::{
    AppendError, Buried, EngineFault, Limits, PartSink, Position, RecordName, Session, SharedError,
    SharedLog, Slot, Usage, Versioned,
};
use crate::error::Result;
use crate::net::{self, Tls, ureq};
use crate::sync::Mutex;
use gateway::Gateway;
use live::Live;

/// A shared log on a cluster of etcd 3.4 or later.
///
/// Nothing is sent before the store is opened, and an option that is wrong is reported then.
///
/// ```no_run
/// use codex_storage::shared::{Etcd, Tls};
///
/// let members = ["https://10.0.0.1:2379", "https://10.0.0.2:2379", "https://10.0.0.3:2379"];
/// let log = Etcd::new(members)
///     .prefix("orders")
///     .tls(Tls::new().ca_file("ca.pem").client("app.pem", "app.key"))
///     .user("app", "secret");
/// ```
pub struct Etcd {
    options: Options,
    live: Mutex<Option<Arc<Live>>>,
}

/// The options of an [`Etcd`].
struct Options {
    endpoints: Vec<String>,
    prefix: String,
    tls: Tls,
    user: Option<(String, Zeroizing<String>)>,
    lease: Duration,
    quota: u64,
    plain_http: bool,
}

impl Etcd {
    /// Returns the log of the cluster whose members have these addresses, such as
    /// `https://10.0.0.1:2379`. If a member does not answer, the next one is asked.
    pub fn new<I: IntoIterator<Item = E>, E: Into<String>>(endpoints: I) -> Self {
        let endpoints = endpoints.into_iter().map(Into::into).collect();
        let options = Options {
            endpoints,
            prefix: "codexdb".to_owned(),
            tls: Tls::new(),
            user: None,
            lease: Duration::from_secs(60),
            quota: 2 << 30,
            plain_http: false,
        };
        Self { options, live: Mutex::new(None) }
    }

    /// Sets the beginning of the names of all keys, without the `/` after it. Each store needs one
    /// of its own. Default: `codexdb`.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.options.prefix = prefix.into();
        self
    }

    /// Sets the certificates for `https://`. Default: those of the system, and none of this
    /// program.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.options.tls = tls;
        self
    }

    /// Sets the user and its password. The user needs the permission to read and write the keys of
    /// the prefix, and no other. Once a cluster has users, it refuses certificates of programs that
    /// have a common name.
    #[must_use]
    pub fn user(mut self, name: impl Into<String>, secret: impl Into<String>) -> Self {
        self.options.user = Some((name.into(), Zeroizing::new(secret.into())));
        self
    }

    /// Sets the time after which the session of a node that has stopped ends. Default: 60 seconds;
    /// at least 5.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.options.lease = lease;
        self
    }

    /// Sets the `--quota-backend-bytes` of the members, which they do not tell. Writes are refused
    /// from 60 % of it on, because a cluster that has reached it refuses all writes until its
    /// operator intervenes. Default: 2 GiB, which is the default of etcd.
    #[must_use]
    pub fn quota(mut self, bytes: u64) -> Self {
        self.options.quota = bytes;
        self
    }

    /// Sets whether an address with `http://` may be on another machine. All data and passwords are
    /// then readable on the way. Default: no.
    #[must_use]
    pub fn plain_http(mut self, allowed: bool) -> Self {
        self.options.plain_http = allowed;
        self
    }

    /// Returns the connection, which it makes at the first call.
    fn live(&self, timeout: Duration) -> Result<Arc<Live>> {
        let mut live = self.live.lock();
        if let Some(live) = &*live {
            return Ok(live.clone());
        }
        let new = Live::connect(&self.options, timeout)?;
        *live = Some(new.clone());
        Ok(new)
    }
}

impl Options {
    /// Returns the access to the members. Makes no connection yet.
    ///
    /// # Errors
    /// `Engine` if an option is wrong.
    fn gateway(&self) -> Result<Gateway, SharedError> {
        let wrong = |at: &str, why: String| {
            let at = at.to_owned();
            Err(SharedError::Engine { at, fault: EngineFault::Option, why })
        };
        let mut is_encrypted = false;
        let mut endpoints = Vec::new();
        for endpoint in &self.endpoints {
            let address = endpoint.trim_end_matches('/');
            let uri: Uri = match address.parse() {
                Ok(uri) => uri,
                Err(_) => return wrong(endpoint, NO_ADDRESS.to_owned()),
            };
            match (uri.scheme_str(), uri.host(), uri.path()) {
                (Some("https"), Some(_), "/" | "") => is_encrypted = true,
                (Some("http"), Some(host), "/" | "") => {
                    if !net::is_this_machine(host) && !self.plain_http {
                        return wrong(endpoint, NOT_ENCRYPTED.to_owned());
                    }
                }
                _ => return wrong(endpoint, NO_ADDRESS.to_owned()),
            }
            if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
                return wrong("the address", "it has a user: name it with `user`".to_owned());
            }
            endpoints.push(address.to_owned());
        }
        if endpoints.is_empty() {
            return wrong("the list of members", format!("it is empty: {NO_ADDRESS}"));
        }
        if self.prefix.is_empty() || self.prefix.ends_with('/') || self.prefix.starts_with('\0') {
            let why = "it is empty or ends with a `/`: name the part before the `/`, such as \
                       `orders`";
            return wrong(&format!("the prefix {:?}", self.prefix), why.to_owned());
        }
        if self.lease < LEASE_MIN {
            let why = "it is shorter than 5 seconds, and a pause of the program would end it";
            return wrong(&format!("the lease {:?}", self.lease), why.to_owned());
        }
        let tls = match is_encrypted.then(|| self.tls.config()).transpose() {
            Ok(tls) => tls,
            Err(why) => return wrong("the certificates", why),
        };
        Ok(Gateway::new(net::client(tls), endpoints, self.user.clone()))
    }
}

/// Ends the session of this node, unless the cluster does not answer.
impl Drop for Etcd {
    fn drop(&mut self) {
        if let Some(live) = self.live.lock().take() {
            live.close();
        }
    }
}

/// Shows the addresses and the prefix.
impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { endpoints, prefix, .. } = &self.options;
        f.debug_struct("Etcd")
            .field("endpoints", endpoints)
            .field("prefix", prefix)
            .finish_non_exhaustive()
    }
}

impl SharedLog for Etcd {
    fn limits(&self) -> Limits {
        Limits { part_max: PART_MAX, frame_target: 128 << 10, commit_max: 64 << 20 }
    }

    fn begin_session(&self, timeout: Duration) -> Result<Session> {
        self.live(timeout)?.begin_session(timeout)
    }

    fn append(&self, slot: Slot, part: &[u8], timeout: Duration) -> Result<Position, AppendError> {
        let live = self.live(timeout).map_err(AppendError::Absent)?;
        live.append(slot, part, timeout)
    }

    fn bury(&self, slot: Slot, timeout: Duration) -> Result<Buried, AppendError> {
        self.live(timeout).map_err(AppendError::Absent)?.bury(slot, timeout)
    }

    fn read(&self, after: Position, sink: &mut PartSink<'_>) -> Result<Position> {
        self.live(READ)?.read(after, sink)
    }

    fn wait(&self, after: Position, timeout: Duration) -> Result<bool> {
        self.live(timeout)?.wait(after, timeout)
    }

    fn head(&self, timeout: Duration) -> Result<Position> {
        self.live(timeout)?.head(timeout)
    }

    fn trim(&self, upto: Position, timeout: Duration) -> Result<()> {
        self.live(timeout)?.trim(upto, timeout)
    }

    fn usage(&self, timeout: Duration) -> Result<Usage> {
        self.live(timeout)?.usage(timeout)
    }

    fn record(&self, name: RecordName, timeout: Duration) -> Result<Option<Versioned>> {
        self.live(timeout)?.record(name, timeout)
    }

    fn set_record(
        &self,
        name: RecordName,
        was: Option<u64>,
        bytes: &[u8],
        timeout: Duration,
    ) -> Result<bool> {
        self.live(timeout)?.set_record(name, was, bytes, timeout)
    }

    fn put_piece(&self, object: &str, n: u32, bytes: &[u8], timeout: Duration) -> Result<()> {
        self.live(timeout)?.put_piece(object, n, bytes, timeout)
    }

    fn piece(&self, object: &str, n: u32, timeout: Duration) -> Result<Option<Vec<u8>>> {
        self.live(timeout)?.piece(object, n, timeout)
    }

    fn objects(&self, timeout: Duration) -> Result<Vec<String>> {
        self.live(timeout)?.objects(timeout)
    }

    fn remove_object(&self, object: &str, timeout: Duration) -> Result<()> {
        self.live(timeout)?.remove_object(object, timeout)
    }
}

/// The maximum length of a part. A member accepts 1.5 MiB by default.
const PART_MAX: usize = 512 << 10;
/// The shortest lease.
const LEASE_MIN: Duration = Duration::from_secs(5);
/// The maximum time for one answer of a call that reads the log.
const READ: Duration = Duration::from_secs(5);
const NO_ADDRESS: &str = "it is no address of a member; an address is like `https://10.0.0.1:2379`";
const NOT_ENCRYPTED: &str = "it is not encrypted on the way; use `https://`, or allow it with \
                             `plain_http(true)`";
