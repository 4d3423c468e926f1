//! A server whose answers the tests give.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// One answer of a server.
#[derive(Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: String,
    pub(crate) body: String,
    /// The number of bytes of the request after which the connection breaks instead.
    pub(crate) cut: Option<usize>,
}

pub(crate) fn reply(status: u16) -> Reply {
    Reply { status, headers: String::new(), body: String::new(), cut: None }
}

pub(crate) fn refusal(status: u16, code: &str) -> Reply {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
    Reply { body, ..reply(status) }
}

/// The answer to the beginning of an upload in parts.
pub(crate) fn begun() -> Reply {
    let body = "<InitiateMultipartUploadResult \
                xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Bucket>books</Bucket>\
                <Key>k</Key><UploadId>U1</UploadId></InitiateMultipartUploadResult>";
    Reply { body: body.to_owned(), ..reply(200) }
}

/// A request whose body was not read yet.
pub(crate) struct Asked {
    /// The first line.
    pub(crate) line: String,
    /// The headers, with names in lower case.
    headers: Vec<(String, String)>,
    len: usize,
    reader: BufReader<TcpStream>,
}

impl Asked {
    fn read(stream: TcpStream) -> Option<Self> {
        let mut reader = BufReader::new(stream);
        let (mut line, mut headers) = (String::new(), Vec::new());
        reader.read_line(&mut line).ok()?;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok()?;
            match header.trim().split_once(':') {
                Some((name, value)) => {
                    headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
                }
                None => break,
            }
        }
        let mut asked = Self { line, headers, len: 0, reader };
        asked.len = asked.header("content-length").map_or(0, |len| len.parse().unwrap());
        Some(asked)
    }

    /// Returns the value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Reads the body up to its end or that of the connection, and at most `len_max` bytes of it.
    pub(crate) fn body(&mut self, len_max: usize) -> Vec<u8> {
        let mut body = Vec::new();
        let left = self.len.min(len_max) as u64;
        // A connection that breaks is one that ends.
        let _ = (&mut self.reader).take(left).read_to_end(&mut body);
        body
    }
}

/// Starts a server that answers each request in a thread of its own. Without an answer the
/// connection breaks. Returns its address.
pub(crate) fn start(
    answer: impl Fn(&mut Asked) -> Option<Reply> + Send + Sync + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answer) = (stream.unwrap(), Arc::clone(&answer));
            thread::spawn(move || {
                let Some(mut asked) = Asked::read(stream.try_clone().unwrap()) else { return };
                let Some(Reply { status, headers, body, .. }) = answer(&mut asked) else { return };
                let len = if headers.contains("content-length") {
                    String::new()
                } else {
                    format!("content-length: {}\r\n", body.len())
                };
                // The client may have ended the connection.
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status} X\r\nconnection: close\r\n{len}{headers}\r\n{body}"
                );
            });
        }
    });
    address
}

/// Starts a server that gives these answers in turn. Returns its address, and the first lines of
/// the requests.
pub(crate) fn server(replies: Vec<Reply>) -> (String, Receiver<String>) {
    let (send, receive) = channel();
    let replies = Mutex::new(replies.into_iter());
    let address = start(move |asked| {
        let reply = replies.lock().unwrap().next()?;
        asked.body(reply.cut.unwrap_or(usize::MAX));
        // The test may have ended.
        let _ = send.send(asked.line.clone());
        reply.cut.is_none().then_some(reply)
    });
    (address, receive)
}

/// Returns the first lines of the next requests.
pub(crate) fn next(lines: &Receiver<String>, count: usize) -> Vec<String> {
    let next = |_| lines.recv_timeout(Duration::from_secs(30)).unwrap();
    (0..count).map(next).collect()
}
