//! Requests to the JSON gateway of etcd, one a connection.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// The answer to a request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// Sends one request, and waits for its answer for at most `limit`.
pub(super) fn ask(
    port: u16,
    path: &str,
    body: &str,
    token: &str,
    limit: Duration,
) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(limit))?;
    let token = match token {
        "" => String::new(),
        token => format!("Authorization: {token}\r\n"),
    };
    // HTTP 1.0: the answer comes in one piece, and ends with the connection.
    let length = body.len();
    let head = format!("POST /v3/{path} HTTP/1.0\r\n{token}Content-Length: {length}\r\n\r\n");
    stream.write_all((head + body).as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no answer: {answer}")))?;
    Ok(Answer { status, body: body.to_owned() })
}

/// Returns the text or number after `"name":`, the first one in `json`.
pub(crate) fn text_of(json: &str, name: &str) -> Option<String> {
    let (_, rest) = json.split_once(&format!("\"{name}\":"))?;
    let rest = rest.trim_start();
    let value = match rest.strip_prefix('"') {
        Some(text) => text.split('"').next()?,
        None => rest.split([',', '}', ']']).next()?,
    };
    Some(value.to_owned())
}

/// Returns the range of all keys that begin with `prefix`, which ends with a `/`.
pub(crate) fn range(prefix: &str) -> [String; 2] {
    let end = format!("{}0", prefix.trim_end_matches('/'));
    [prefix, &end].map(|key| base64(key.as_bytes()))
}

/// Returns the bytes in the alphabet of the gateway.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0, |bits, byte| bits << 8 | usize::from(*byte));
        let bits = bits << (8 * (3 - three.len()));
        for n in 0..4 {
            let digit = DIGITS[bits >> (18 - 6 * n) & 63];
            text.push(if n <= three.len() { char::from(digit) } else { '=' });
        }
    }
    text
}
