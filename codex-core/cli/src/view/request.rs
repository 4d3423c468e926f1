//! The head of a request, of a bounded length and within a bounded time.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::key::{self, TypedKey};
use crate::view::answer::{Answer, Refused};

/// The maximum length of the head of a request. A key of 10,000 bytes that must all be escaped
/// fits.
pub(super) const HEAD_LEN_MAX: usize = 64 << 10;

/// The maximum number of headers of a request.
const HEADERS_MAX: usize = 64;

/// A request that was understood.
#[derive(Debug, Default)]
pub(super) struct Request {
    pub(super) method: String,
    /// The path, without the query.
    pub(super) path: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
}

impl Request {
    /// Reads the head of a request.
    pub(super) fn read(from: &mut Timed) -> io::Result<Result<Self, Refused>> {
        let mut head = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let len = from.read(&mut chunk)?;
            if len == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // A head ends with an empty line, of which the last two bytes may be in an earlier
            // chunk.
            let searched = head.len().saturating_sub(3);
            head.extend_from_slice(chunk.get(..len).unwrap_or_default());
            let new = head.get(searched..).unwrap_or_default();
            let is_whole = new.windows(4).any(|end| end == b"\r\n\r\n");
            if is_whole {
                return Ok(Self::parse(&head));
            }
            if head.len() > HEAD_LEN_MAX {
                return Ok(Err(Answer::refuse(431, "the request is too long")));
            }
        }
    }

    fn parse(head: &[u8]) -> Result<Self, Refused> {
        let bad = || Answer::refuse(400, "the request cannot be understood");
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut headers);
        let is_whole = parsed.parse(head).map_err(|_| bad())?.is_complete();
        let (Some(method), Some(target), true) = (parsed.method, parsed.path, is_whole) else {
            return Err(bad());
        };
        let mut request = Self { method: method.to_owned(), ..Self::default() };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        path.clone_into(&mut request.path);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            request.query.push((decoded(name).ok_or_else(bad)?, decoded(value).ok_or_else(bad)?));
        }
        for header in parsed.headers.iter() {
            let value = std::str::from_utf8(header.value).map_err(|_| bad())?;
            request.headers.push((header.name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Ok(request)
    }

    /// Returns the only header with this name, in lower case. A header that is there twice is none.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(found, _)| found == name);
        let (_, value) = found.next()?;
        found.next().is_none().then_some(value.as_str())
    }

    /// Returns whether there is a header with this name, in lower case.
    pub(super) fn has_header(&self, name: &str) -> bool {
        self.headers.iter().any(|(found, _)| found == name)
    }

    /// Returns the values of the cookies with this name.
    pub(super) fn cookies<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let headers = self.headers.iter().filter(|(found, _)| found == "cookie");
        let pairs = headers.flat_map(|(_, value)| value.split(';'));
        pairs.filter_map(move |pair| {
            let (found, value) = pair.trim().split_once('=')?;
            (found == name).then_some(value)
        })
    }

    /// Returns a parameter of the query, if it is there and not empty.
    pub(super) fn param(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Returns a parameter that is a number.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Refused> {
        let number = |text: &str| {
            text.parse().map_err(|_| Answer::refuse(400, &format!("`{name}` is not a number")))
        };
        self.param(name).map(number).transpose()
    }

    /// Returns a parameter that is a key, typed as on a command line.
    pub(super) fn typed(&self, name: &str) -> Result<Option<TypedKey>, Refused> {
        let key = |text: &str| {
            text.parse().map_err(|why| Answer::refuse(400, &format!("`{name}`: {why}")))
        };
        self.param(name).map(key).transpose()
    }

    /// Returns the bytes of a parameter that is a key outside tables.
    pub(super) fn key(&self, name: &str) -> Result<Option<Vec<u8>>, Refused> {
        Ok(self.typed(name)?.map(|key| key.bytes))
    }
}

/// Returns the text of a part of a query, or `None` if it is not escaped UTF-8.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        bytes.push(match first {
            b'+' => b' ',
            b'%' => {
                let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
                rest = rest.get(2..)?;
                *key::from_hex(digits)?.first()?
            }
            byte => *byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// A connection that is used up to a point in time, however slowly the other side reads and writes.
#[derive(Debug)]
pub(super) struct Timed {
    stream: TcpStream,
    end: Instant,
}

impl Timed {
    pub(super) fn new(stream: TcpStream, limit: Duration) -> Self {
        Self { stream, end: Instant::now() + limit }
    }

    /// Returns the same connection with a new limit from now on.
    pub(super) fn again(self, limit: Duration) -> Self {
        Self::new(self.stream, limit)
    }

    /// Tells the other side that nothing follows.
    pub(super) fn finish(&self) -> io::Result<()> {
        self.stream.shutdown(std::net::Shutdown::Write)
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Timed {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(buf)
    }
}

impl Write for Timed {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::{Request, decoded};

    #[test]
    fn a_query_is_escaped_text() {
        assert_eq!(decoded("a+b%2Fc%C3%BC").as_deref(), Some("a b/cü"));
        for text in ["%", "%1", "%zz", "%ff", "%+1"] {
            assert_eq!(decoded(text), None, "{text}");
        }
    }

    #[test]
    fn a_header_that_is_there_twice_is_none() {
        let head =
            b"GET /a?key=%5Cxff&n=x HTTP/1.1\r\nHost: a\r\nHOST: b\r\nCookie: a=1; b=2\r\n\r\n";
        let request = Request::parse(head).unwrap();
        assert_eq!(request.header("host"), None);
        assert!(request.has_header("host"));
        assert_eq!(request.cookies("b").collect::<Vec<_>>(), ["2"]);
        assert_eq!(request.path, "/a");
        assert_eq!(request.key("key").unwrap().as_deref(), Some(&b"\xff"[..]));
        assert!(request.number("n").is_err());
        assert!(Request::parse(b"GET /\xff HTTP/1.1\r\n\r\n").is_err());
    }
}
