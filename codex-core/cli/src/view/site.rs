//! The shared state of a server: the store, and which requests are let in.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use codex_core::crypto::Key;
use codex_core::vfs::{Entropy as _, OsEntropy, Vfs};
use codex_core::{Form, Seq, Store};
use codex_storage::MainFile;

use crate::key;
use crate::view::answer::{Answer, Refused};
use crate::view::ledger::Ledger;
use crate::view::list::Lists;
use crate::view::request::Request;
use crate::view::routes::Route;
use crate::view::state::State;

/// The shared state of a server.
pub(super) struct Site {
    pub(super) store: Store,
    /// Whether the files are encrypted. A store whose files cannot be read here counts as one.
    pub(super) is_encrypted: bool,
    /// Whether values are shown.
    pub(super) shows_values: bool,
    pub(super) lists: Mutex<Lists>,
    ledger: Option<Ledger>,
    local_addr: SocketAddr,
    /// The first part of all paths. The browser sends the cookie with paths below it only, and so
    /// not to the servers of other programs on this machine.
    id: String,
    /// The value of the cookie.
    session: String,
    tokens: Mutex<VecDeque<String>>,
}

impl Site {
    pub(super) fn new(
        store: &Store,
        key: Option<Key>,
        show_values: bool,
        local_addr: SocketAddr,
    ) -> io::Result<Self> {
        let file = file(store);
        let is_encrypted = match (&file, store.form()) {
            (_, None) => false,
            (Some((vfs, name)), _) => {
                MainFile::open(vfs, name).map_or(true, |file| file.root_id().is_some())
            }
            (None, Some(_)) => true,
        };
        let is_ledger = store.form() == Some(Form::Ledger);
        let ledger = file.filter(|_| is_ledger).map(|(vfs, name)| Ledger::new(vfs, name, key));
        Ok(Self {
            store: store.clone(),
            is_encrypted,
            shows_values: show_values || !is_encrypted,
            lists: Mutex::default(),
            ledger,
            local_addr,
            id: random()?,
            session: random()?,
            tokens: Mutex::default(),
        })
    }

    pub(super) fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Returns an address with a new token.
    pub(super) fn address(&self) -> io::Result<String> {
        let token = random()?;
        let mut tokens = locked(&self.tokens);
        tokens.push_back(token.clone());
        if tokens.len() > TOKENS_MAX {
            tokens.pop_front();
        }
        Ok(format!("http://{}/{}/?token={token}", self.local_addr, self.id))
    }

    /// Returns the route of a request, if it may be answered.
    pub(super) fn admit(&self, request: &Request) -> Result<Route<'_>, Refused> {
        // Order: the name comes first. A page of another site that resolves its own name to this
        // machine must learn nothing, not even which paths there are.
        let port = self.local_addr.port();
        let names = ["127.0.0.1", "localhost"].map(|name| format!("{name}:{port}"));
        let is_own = |host: &str| names.iter().any(|name| name.eq_ignore_ascii_case(host));
        if !request.header("host").is_some_and(is_own) {
            return Err(Answer::refuse(403, "the page has another address"));
        }
        if request.method != "GET" {
            return Err(Answer::refuse(405, "only GET is answered"));
        }
        // A request with a body could hide a second one in it.
        if request.has_header("content-length") || request.has_header("transfer-encoding") {
            return Err(Answer::refuse(400, "a request has no body"));
        }
        let rest = request.path.strip_prefix('/').and_then(|path| path.split_once('/'));
        let Some((id, path)) = rest else { return Err(no_right()) };
        if !is_same(id, &self.id) {
            return Err(no_right());
        }
        if let ("", Some(token)) = (path, request.param("token")) {
            return if self.redeem(token) { Ok(Route::Enter(self)) } else { Err(no_right()) };
        }
        // Browsers tell which page makes a request. Other ports of this machine are other sites.
        let is_foreign = |site: &str| !matches!(site, "same-origin" | "none");
        if request.header("sec-fetch-site").is_some_and(is_foreign) {
            return Err(no_right());
        }
        if !request.cookies(COOKIE).any(|cookie| is_same(cookie, &self.session)) {
            return Err(no_right());
        }
        Route::of(self, path)
    }

    /// Returns the answer to a token: the cookie, and the address without the token.
    pub(super) fn enter(&self) -> Answer {
        let Self { id, session, .. } = self;
        let cookie = format!("{COOKIE}={session}; Path=/{id}/; HttpOnly; SameSite=Strict");
        Answer::redirect(format!("/{id}/"), cookie)
    }

    /// Returns the state that a request is about: that after the commit `at`, or the present one.
    pub(super) fn state(&self, request: &Request) -> Result<Arc<State>, Refused> {
        match request.number("at")? {
            Some(at) => self.ledger()?.state(self.acknowledged(at)?),
            None => Ok(Arc::new(State::present(&self.store))),
        }
    }

    /// Returns the ledger, if the store is one.
    pub(super) fn ledger(&self) -> Result<&Ledger, Refused> {
        self.ledger.as_ref().ok_or_else(|| Answer::refuse(404, "only a ledger keeps its past"))
    }

    /// Refuses a commit that is not there yet.
    pub(super) fn acknowledged(&self, at: Seq) -> Result<Seq, Refused> {
        let last = self.store.snapshot().seq();
        let is_there = at <= last;
        is_there
            .then_some(at)
            .ok_or_else(|| Answer::refuse(400, &format!("the last commit is {last}")))
    }

    /// Uses up a token. Returns whether it was one.
    fn redeem(&self, token: &str) -> bool {
        let mut tokens = locked(&self.tokens);
        let before = tokens.len();
        tokens.retain(|known| !is_same(known, token));
        tokens.len() < before
    }
}

/// Locks state that is whole after each change.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns 128 random bits as hex digits.
pub(super) fn random() -> io::Result<String> {
    let mut bytes = [0; 16];
    OsEntropy.fill(&mut bytes)?;
    Ok(key::hex(&bytes))
}

/// Compares two secrets in a time that depends on their lengths only.
fn is_same(one: &str, other: &str) -> bool {
    let differs = one.bytes().zip(other.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b));
    one.len() == other.len() && differs == 0
}

/// Returns the folder and the name of the main file of a store, if it is on a disk of this system.
fn file(store: &Store) -> Option<(Vfs, String)> {
    let (folder, name) = (store.path().parent()?, store.path().file_name()?.to_str()?);
    Some((Vfs::os(folder).ok()?, name.to_owned()))
}

fn no_right() -> Refused {
    Answer::refuse(403, "open the address that was printed; it works once, in one browser")
}

/// The maximum number of tokens that were not used.
const TOKENS_MAX: usize = 16;
const COOKIE: &str = "codexdb";
