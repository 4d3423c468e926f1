//! A read-only page that shows an open store to browsers on the same machine.
//!
//! ```
//! use codex_core::Store;
//! use codexdb::view::View;
//!
//! let store = Store::in_memory()?;
//! let server = View::new(&store).serve()?;
//! println!("open {} in a browser", server.address()?);
//! # let address = server.address()?;
//! # assert!(address.starts_with("http://127.0.0.1:"), "{address}");
//! drop(server); // ends it
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The server listens on 127.0.0.1, answers `GET` only and changes nothing. An address works once:
//! its token is exchanged for a cookie, without which every request is refused. See SECURITY.md,
//! "The page".

#![allow(
    clippy::struct_excessive_bools,
    clippy::unnecessary_box_returns,
    clippy::unnecessary_wraps,
    reason = "answers have facts, refusals are rare and large, and all calls have one type"
)]

mod answer;
mod change;
mod health;
mod ledger;
mod list;
mod request;
mod routes;
mod server;
mod site;
mod state;
mod text;
mod tree;
mod value;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use codex_core::Store;
use codex_core::crypto::Key;

use server::Running;
use site::Site;

/// The options of a page, and the store that it shows.
#[derive(Debug)]
#[must_use = "a page is shown after `serve`"]
pub struct View {
    store: Store,
    port: u16,
    key: Option<Key>,
    show_values: bool,
}

impl View {
    /// Creates the options of a page about `store`.
    pub fn new(store: &Store) -> Self {
        Self { store: store.clone(), port: 0, key: None, show_values: false }
    }

    /// Sets the port. The default is 0: the system chooses a free one.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Sets the key of an encrypted ledger. Its past is read from the file, which the open store
    /// does not do.
    pub fn key(mut self, key: Key) -> Self {
        self.key = Some(key);
        self
    }

    /// Shows the values of an encrypted store. By default the page shows its keys, and only the
    /// lengths of its values.
    pub fn show_values(mut self, show: bool) -> Self {
        self.show_values = show;
        self
    }

    /// Starts a thread that answers browsers until the returned server is dropped.
    ///
    /// # Errors
    /// The error of the system if the port is taken, or a thread cannot be started.
    pub fn serve(self) -> io::Result<Server> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port))?;
        let site = Site::new(&self.store, self.key, self.show_values, listener.local_addr()?)?;
        Ok(Server { running: Running::start(listener, site)? })
    }
}

/// A page that is being served. Dropping it ends the server and closes its connections.
pub struct Server {
    running: Running,
}

impl Server {
    /// Returns the address of the page, with a token that works once. Each call makes another
    /// token; the last 16 of those that were not used work.
    ///
    /// # Errors
    /// The error of the random numbers of the system.
    pub fn address(&self) -> io::Result<String> {
        self.running.site().address()
    }

    /// Returns the address at which the server listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.running.site().local_addr()
    }
}

/// Does not show a token.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("local_addr", &self.local_addr()).finish_non_exhaustive()
    }
}
