//! `view`: the page over plain HTTP, as a browser and as other programs of the machine ask for it.

mod clients;
mod contents;
mod past;
mod rights;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use codexdb::view::Server;
use serde_json::Value;

use crate::common::Folder;

/// A page that is being shown.
pub(crate) struct Shown {
    /// The program, unless this process shows the page.
    child: Option<Child>,
    /// The address and port of the server.
    host: String,
    /// The first part of all paths.
    id: String,
    token: String,
    cookie: String,
}

/// An answer of the server.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Shown {
    /// Starts the program, which is to print the address.
    fn start(folder: &Folder, args: &[&str]) -> Self {
        let mut command = folder.command(&[&["view"], args].concat());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let mut shown = Self::at(&line);
        shown.child = Some(child);
        shown
    }

    /// Returns the page of an address, of which nothing was asked yet.
    fn at(address: &str) -> Self {
        let rest = address.trim().strip_prefix("http://").unwrap();
        let (host, rest) = rest.split_once('/').unwrap();
        let (id, token) = rest.split_once("/?token=").unwrap();
        let (host, id, token) = (host.to_owned(), id.to_owned(), token.to_owned());
        Self { child: None, host, id, token, cookie: String::new() }
    }

    /// Starts the program, and exchanges the token for the cookie.
    pub(crate) fn enter(folder: &Folder, args: &[&str]) -> Self {
        Self::start(folder, args).entered()
    }

    /// Exchanges a token of a page of this process for the cookie.
    fn of(server: &Server) -> Self {
        Self::at(&server.address().unwrap()).entered()
    }

    fn entered(mut self) -> Self {
        let reply = self.get(&format!("?token={}", self.token), "");
        assert_eq!(reply.status, 303, "{reply:?}");
        self.cookie = reply.cookie();
        self
    }

    /// Sends a request with more headers than the name of the server.
    fn get(&self, path: &str, headers: &str) -> Reply {
        let Self { host, id, .. } = self;
        send(host, &format!("GET /{id}/{path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n"))
    }

    /// Calls the API with the cookie.
    pub(crate) fn api(&self, call: &str) -> Reply {
        self.get(&format!("api/{call}"), &self.cookie)
    }

    #[track_caller]
    pub(crate) fn json(&self, call: &str) -> Value {
        let reply = self.api(call);
        assert_eq!(reply.status, 200, "{call}: {reply:?}");
        assert_eq!(reply.header("content-type"), Some("application/json"));
        serde_json::from_str(&reply.body).unwrap()
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Returns the header that sends the cookie of this answer back.
    fn cookie(&self) -> String {
        let cookie = self.header("set-cookie").unwrap();
        format!("Cookie: {}\r\n", cookie.split(';').next().unwrap())
    }
}

fn send(host: &str, request: &str) -> Reply {
    let mut stream = TcpStream::connect(host).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{reply:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Reply { status, head: head.to_owned(), body: body.to_owned() }
}

/// Returns the keys with their values.
fn entries(shown: &Shown, query: &str) -> Vec<(String, String)> {
    let list = shown.json(&format!("list?{query}"))["list"].clone();
    let page = shown.json(&format!("page?list={list}"));
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    let rows = page["rows"].as_array().unwrap();
    rows.iter().map(|row| (text(row, "key"), text(row, "preview"))).collect()
}
