//! The connection of an open store: what all calls share.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::answer::{Answer, Found, Keys, entries, number, text};
use super::gateway::{Failed, Gateway, Why};
use super::session::Sessions;
use super::tail::{Tail, Waited};
use super::{Options, session, watch};
use crate::error::Result;
use crate::shared::{EngineFault, Position, SharedError, Usage};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::vfs::Clock;

#[derive(Debug)]
pub(super) struct Live {
    pub(super) gateway: Gateway,
    pub(super) keys: Keys,
    pub(super) tail: Tail,
    pub(super) sessions: Mutex<Sessions>,
    pub(super) lease: Duration,
    quota: u64,
    /// The id of the cluster.
    cluster: AtomicU64,
    /// The highest revision that an answer has told.
    seen: AtomicU64,
    /// The bytes that the cluster keeps, when it was last asked.
    used: AtomicU64,
    /// Whether something was written since then.
    pub(super) has_written: AtomicBool,
}

impl Live {
    /// Connects: checks the options, the version of the cluster, the user, and that the prefix is
    /// free or has a store.
    pub(super) fn connect(options: &Options, timeout: Duration) -> Result<Arc<Self>> {
        let live = Arc::new(Self {
            gateway: options.gateway()?,
            keys: Keys { prefix: format!("{}/", options.prefix) },
            tail: Tail::default(),
            sessions: Mutex::new(Sessions::default()),
            lease: options.lease,
            quota: options.quota,
            cluster: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            used: AtomicU64::new(0),
            has_written: AtomicBool::new(false),
        });
        live.check_version(timeout).map_err(|error| live.unreachable(error))?;
        live.check_prefix(timeout).map_err(|error| live.unreachable(error))?;
        let started = watch::start(&live).and_then(|()| session::start(&live));
        started.map_err(|error| {
            live.tail.close();
            let why = format!("cannot start a thread: {error}; lower the number of threads");
            live.gateway.error_here(EngineFault::Refused, &why)
        })?;
        Ok(live)
    }

    /// Fails if the version is too old.
    fn check_version(&self, timeout: Duration) -> Result<(), Failed> {
        let answer = self.gateway.call("/v3/maintenance/status", &json!({}), timeout);
        let version = match &answer {
            Ok(answer) => Some(text(&answer.value, "version").to_owned()),
            // An old version has its gateway at another place.
            Err(Failed { why: Why::Refused(SharedError::Engine { fault, .. }), .. })
                if *fault == EngineFault::Version =>
            {
                self.gateway.version()
            }
            Err(_) => None,
        };
        if let Some(version) = version {
            let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
            let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
            if found < VERSION_MIN {
                let why = format!("it is etcd {version}; this needs etcd 3.4 or later");
                let error = self.gateway.error_here(EngineFault::Version, &why);
                return Err(Failed { is_in_doubt: false, why: Why::Refused(error) });
            }
        }
        self.take_usage(&answer?);
        Ok(())
    }

    /// Fails if the prefix has keys of another program.
    fn check_prefix(&self, timeout: Duration) -> Result<(), Failed> {
        let mut some = self.keys.range("");
        let more = json!({"limit": "64", "keys_only": true});
        extend(&mut some, more);
        let get = |name| json!({"request_range": {"key": self.keys.of(name)}});
        let body = json!({"success": [get("meta"), get("head"), {"request_range": some}]});
        let answer = self.gateway.call("/v3/kv/txn", &body, timeout)?;
        let (cluster, revision) = answer.header();
        self.cluster.store(cluster, Ordering::Relaxed);
        self.seen.store(revision, Ordering::Relaxed);
        if answer.found(0).next().is_some() || answer.found(1).next().is_some() {
            return Ok(());
        }
        let names = answer.found(2).filter_map(|found| String::from_utf8(found.key()?).ok());
        let is_foreign = |key: &String| {
            let name = key.strip_prefix(&self.keys.prefix).unwrap_or_default();
            !NAMES.iter().any(|own| name.starts_with(own))
        };
        let Some(key) = names.into_iter().find(is_foreign) else { return Ok(()) };
        let why = format!(
            "below the prefix there are other keys, such as {key:?}, and no store; choose another \
             prefix"
        );
        let error = self.gateway.error_here(EngineFault::OtherKeys, &why);
        Err(Failed { is_in_doubt: false, why: Why::Refused(error) })
    }

    /// Returns the error of a connection that is not made.
    fn unreachable(&self, failed: Failed) -> SharedError {
        let Why::Away(why) = failed.why else { return self.error("be opened", READ_TRY, failed) };
        let why = format!(
            "no member answers ({why}); check the addresses, also whether they begin with `http` \
             or `https`, the network, and that the members run"
        );
        self.gateway.error_here(EngineFault::Unreachable, &why)
    }

    /// Sends a request that the cluster answers as it is at present. Checks that it has not lost
    /// what it had.
    pub(super) fn ask(
        &self,
        path: &str,
        body: &Value,
        timeout: Duration,
    ) -> Result<Answer, Failed> {
        // Order: before the request. Its answer is at least as new as all answers before it.
        let seen = self.seen.load(Ordering::Acquire);
        let answer = self.gateway.call(path, body, timeout)?;
        let (cluster, revision) = answer.header();
        if revision < seen || cluster != self.cluster.load(Ordering::Relaxed) {
            let (applied, head) = (Position(seen), Position(revision));
            let why = Why::Refused(SharedError::RolledBack { applied, head });
            return Err(Failed { is_in_doubt: true, why });
        }
        self.seen.fetch_max(revision, Ordering::AcqRel);
        Ok(answer)
    }

    /// As [`ask`](Self::ask), with the error of a call that has no answer.
    pub(super) fn must(
        &self,
        what: &'static str,
        path: &str,
        body: &Value,
        timeout: Duration,
    ) -> Result<Answer> {
        self.ask(path, body, timeout).map_err(|failed| self.error(what, timeout, failed).into())
    }

    /// Returns the error of a call that should `what`.
    pub(super) fn error(
        &self,
        what: &'static str,
        waited: Duration,
        failed: Failed,
    ) -> SharedError {
        match failed.why {
            Why::Away(_) | Why::Compacted => SharedError::Away { what, waited },
            Why::Full => {
                let used = self.used.load(Ordering::Relaxed);
                SharedError::Full { used, limit: self.quota, next: DISARM }
            }
            Why::Refused(error) => error,
        }
    }

    /// Returns the position of the last entry.
    pub(super) fn head(&self, timeout: Duration) -> Result<Position> {
        let body = json!({"key": self.keys.of("head")});
        let answer = self.must("return its head", "/v3/kv/range", &body, timeout)?;
        let head = entries(&answer.value).next().map_or(0, Found::changed);
        self.tail.expect(head, self.now());
        Ok(Position(head))
    }

    /// Waits until there is an entry after `after`, or none is known to be there.
    pub(super) fn wait(&self, after: Position, timeout: Duration) -> Result<bool> {
        match self.tail.wait(after, &|| self.now(), timeout) {
            Waited::New => Ok(true),
            Waited::Nothing => Ok(false),
            Waited::Silent => {
                Err(SharedError::Away { what: "send new entries", waited: timeout }.into())
            }
        }
    }

    /// Asks a member how many bytes it keeps.
    pub(super) fn usage(&self, timeout: Duration) -> Result<Usage> {
        let answer = self.gateway.call("/v3/maintenance/status", &json!({}), timeout);
        let what = "return its size";
        let answer = answer.map_err(|failed| self.error(what, timeout, failed))?;
        Ok(self.take_usage(&answer))
    }

    fn take_usage(&self, answer: &Answer) -> Usage {
        // The bytes in use. The rest of the file is used again before it grows.
        let used = match number(&answer.value, "dbSizeInUse") {
            0 => number(&answer.value, "dbSize"),
            used => used,
        };
        self.used.store(used, Ordering::Relaxed);
        Usage { used, limit: self.limit() }
    }

    /// Returns an error if there is no room for `len` more bytes of the log.
    pub(super) fn fits(&self, len: usize) -> Result<(), SharedError> {
        self.fits_within(len, self.limit())
    }

    /// Returns an error if there is no room for `len` more bytes of an image. There is room for one
    /// when the log is full, because only after an image it is trimmed.
    pub(super) fn image_fits(&self, len: usize) -> Result<(), SharedError> {
        self.fits_within(len, self.quota / 10 * 9)
    }

    fn fits_within(&self, len: usize, limit: u64) -> Result<(), SharedError> {
        self.has_written.store(true, Ordering::Relaxed);
        let used = self.used.load(Ordering::Relaxed);
        if used.saturating_add(crate::codec::u64_of(len)) > limit {
            return Err(SharedError::Full { used, limit, next: TRIM });
        }
        Ok(())
    }

    /// Returns the bytes from which on writes are refused.
    fn limit(&self) -> u64 {
        self.quota / 10 * 6
    }

    /// Ends the threads and the session.
    pub(super) fn close(&self) {
        self.tail.close();
        let lease = self.sessions.lock().lease.take();
        if let Some(lease) = lease {
            let body = json!({"ID": lease});
            // Without an answer, the lease ends by itself.
            let _ = self.gateway.call("/v3/lease/revoke", &body, CLOSE);
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.gateway.clock.monotonic()
    }
}

/// Adds the fields of `more` to an object.
pub(super) fn extend(object: &mut Value, more: Value) {
    if let (Value::Object(object), Value::Object(more)) = (object, more) {
        object.extend(more);
    }
}

/// The next step after the members refuse all writes.
const DISARM: &str = "have the operator of etcd compact and defragment it, and then disarm its \
                      alarm NOSPACE (`etcdctl alarm disarm`); set `quota` to that of the members";
/// The next step before that.
const TRIM: &str = "trim the log, and have the operator of etcd compact it, or raise its quota and \
                    the option `quota`";
/// The maximum time for one try of a call that reads.
const READ_TRY: Duration = Duration::from_secs(1);
/// The maximum time for the end of a session.
const CLOSE: Duration = Duration::from_secs(1);
/// The oldest version whose gateway is complete.
const VERSION_MIN: (u32, u32) = (3, 4);
/// The beginnings of the names of keys that a store without a commit has.
const NAMES: [&str; 7] = ["session/", "log/", "blob/", "image", "publisher", "trimmed", "meta"];
