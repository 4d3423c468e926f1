//! A server of objects in memory, in a process of its own, which does no more than a client needs:
//! creations, also of parts, reads of ranges, lists and removals. It checks no signature and no
//! checksum, so that its work is that of the bytes alone.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use codex_bench::Outcome;

/// The bytes a second of both directions in the environment of the server; 0 is no limit.
const RATE: &str = "CODEX_REMOTE_SINK";

/// A server that runs until it is dropped.
pub(crate) struct Sink {
    child: Child,
    /// The host and the port.
    pub(crate) address: String,
}

impl Sink {
    /// Starts a server whose connections share `rate` bytes a second, or have no limit.
    pub(crate) fn start(rate: Option<u64>) -> Outcome<Self> {
        let mut child = Command::new(std::env::current_exe()?);
        child.env(RATE, rate.unwrap_or(0).to_string()).stdin(Stdio::piped());
        let mut child = child.stdout(Stdio::piped()).spawn()?;
        let mut address = String::new();
        let output = child.stdout.take().ok_or("the server has no output")?;
        BufReader::new(output).read_line(&mut address)?;
        Ok(Self { child, address: address.trim().to_owned() })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the limit, if this process is a server.
pub(crate) fn rate() -> Option<u64> {
    std::env::var(RATE).ok()?.parse().ok()
}

/// Serves until the standard input ends. `rate` is the limit.
pub(crate) fn serve(rate: u64) -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let state =
        Arc::new(State { objects: Mutex::default(), free: Mutex::new(Instant::now()), rate });
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let state = Arc::clone(&state);
            // The end of a connection is no error.
            thread::spawn(move || state.serve(stream));
        }
    });
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

struct State {
    /// The parts of each object. A part of an upload that has not ended is an object of its own.
    objects: Mutex<BTreeMap<String, Vec<Vec<u8>>>>,
    /// The time at which the line is free.
    free: Mutex<Instant>,
    rate: u64,
}

/// A request without its body.
struct Asked {
    method: String,
    path: String,
    query: String,
    len: usize,
    range: Option<(usize, usize)>,
}

impl State {
    fn serve(&self, stream: TcpStream) -> Outcome {
        stream.set_nodelay(true)?;
        let mut to = stream.try_clone()?;
        let mut from = BufReader::with_capacity(PIECE, stream);
        while let Some(asked) = Asked::read(&mut from)? {
            let mut body = vec![0; asked.len];
            for piece in body.chunks_mut(PIECE) {
                from.read_exact(piece)?;
                self.pace(piece.len());
            }
            let (status, body, whole) = self.answer(&asked, body);
            let len = if asked.method == "HEAD" { whole } else { body.len() };
            let range = asked.range.map(|(from, upto)| format!("{from}-{upto}/{whole}"));
            let range = range.map(|range| format!("content-range: bytes {range}\r\n"));
            let range = range.unwrap_or_default();
            let head = format!("HTTP/1.1 {status} X\r\netag: \"t\"\r\ncontent-length: {len}\r\n");
            to.write_all(format!("{head}{range}\r\n").as_bytes())?;
            for piece in body.chunks(PIECE) {
                to.write_all(piece)?;
                self.pace(piece.len());
            }
        }
        Ok(())
    }

    /// Waits as long as the bytes take on the line.
    fn pace(&self, len: usize) {
        if self.rate == 0 {
            return;
        }
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        *free = (*free).max(Instant::now()) + Duration::from_secs(len as u64) / self.rate_u32();
        let wait = free.saturating_duration_since(Instant::now());
        drop(free);
        thread::sleep(wait);
    }

    fn rate_u32(&self) -> u32 {
        u32::try_from(self.rate).unwrap_or(u32::MAX)
    }

    /// Returns the status and the body of the answer, and the length of the object.
    fn answer(&self, asked: &Asked, body: Vec<u8>) -> (u16, Vec<u8>, usize) {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let (path, query) = (&asked.path, asked.query.as_str());
        let field = |name| query.split('&').find_map(|field| field.strip_prefix(name));
        let (status, body) = match asked.method.as_str() {
            "PUT" => {
                let part = field("partNumber=").map(|part| format!("{path}?{part:0>5}"));
                let name = part.unwrap_or_else(|| path.clone());
                match objects.entry(name) {
                    Entry::Vacant(free) => {
                        free.insert(vec![body]);
                        (200, Vec::new())
                    }
                    Entry::Occupied(_) => (412, Vec::new()),
                }
            }
            "POST" if query.contains("uploads=") => {
                let fields = "<Bucket>b</Bucket><Key>k</Key><UploadId>U</UploadId>";
                (200, xml("InitiateMultipartUploadResult", fields))
            }
            "POST" => {
                let parts = format!("{path}?");
                let mut whole = Vec::new();
                while let Some((name, _)) = objects.range(parts.clone()..).next()
                    && name.starts_with(&parts)
                {
                    let name = name.clone();
                    whole.extend(objects.remove(&name).unwrap_or_default());
                }
                objects.insert(path.clone(), whole);
                (200, xml("CompleteMultipartUploadResult", "<ETag>t</ETag>"))
            }
            "GET" if query.contains("list-type=2") => {
                let prefix = field("prefix=").unwrap_or_default().replace("%2F", "/");
                let bucket = format!("{}/", path.trim_end_matches('/'));
                let mut found = String::new();
                for (name, parts) in objects.iter() {
                    let key = name.strip_prefix(&bucket).filter(|key| !key.contains('?'));
                    if let Some(key) = key.filter(|key| key.starts_with(&prefix)) {
                        let len: usize = parts.iter().map(Vec::len).sum();
                        let size = element("Size", "", &len.to_string());
                        found += &element("Contents", "", &(element("Key", "", key) + &size));
                    }
                }
                (200, xml("ListBucketResult", &format!("<Name>b</Name>{found}")))
            }
            "GET" | "HEAD" => match (objects.get(path), asked.range) {
                (None, _) => (404, Vec::new()),
                (Some(object), Some(range)) => (206, range_of(object, range)),
                (Some(_), None) => (200, Vec::new()),
            },
            _ => {
                objects.retain(|name, _| name.split('?').next() != Some(path));
                (204, Vec::new())
            }
        };
        (status, body, objects.get(path).map_or(0, |parts| parts.iter().map(Vec::len).sum()))
    }
}

fn xml(name: &str, fields: &str) -> Vec<u8> {
    let space = " xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"";
    element(name, space, fields).into_bytes()
}

fn element(name: &str, space: &str, contents: &str) -> String {
    format!("<{name}{space}>{contents}</{name}>")
}

/// Returns the bytes of an object from an offset up to and with another one.
fn range_of(object: &[Vec<u8>], (from, upto): (usize, usize)) -> Vec<u8> {
    let (mut found, mut begin) = (Vec::with_capacity(upto + 1 - from), 0);
    for part in object {
        let end = begin + part.len();
        let (from, upto) = (from.clamp(begin, end), (upto + 1).clamp(begin, end));
        found.extend_from_slice(part.get(from - begin..upto - begin).unwrap_or_default());
        begin = end;
    }
    found
}

impl Asked {
    fn read(from: &mut impl BufRead) -> Outcome<Option<Self>> {
        let mut first = String::new();
        if from.read_line(&mut first)? == 0 {
            return Ok(None);
        }
        let (mut len, mut range) = (0, None);
        loop {
            let mut line = String::new();
            from.read_line(&mut line)?;
            let Some((name, value)) = line.trim().split_once(':') else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => len = value.trim().parse()?,
                "range" => {
                    let text = value.trim().trim_start_matches("bytes=");
                    let (from, upto) = text.split_once('-').ok_or("no range")?;
                    range = Some((from.parse()?, upto.parse()?));
                }
                _ => {}
            }
        }
        let mut words = first.split(' ');
        let method = words.next().unwrap_or_default().to_owned();
        let target = words.next().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Ok(Some(Self { method, path: path.to_owned(), query: query.to_owned(), len, range }))
    }
}

/// The bytes that are read or written in one call.
const PIECE: usize = 256 << 10;
