//! A server that answers as a test says.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use base64ct::{Base64, Encoding as _};
use serde_json::{Value, json};

/// What the server does with a request.
pub(crate) enum Reply {
    Answer(u16, Value),
    /// It closes the connection without an answer.
    Nothing,
    /// It sends these lines, and nothing more.
    Stream(Vec<Value>),
}

/// The requests so far: their paths and bodies.
pub(crate) type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// Starts a server. It answers what an opening asks, and calls `answer` with the rest and the
/// number of earlier calls. Returns its address.
pub(crate) fn server(
    answer: impl Fn(usize, &str, &Value) -> Reply + Send + Sync + 'static,
) -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = Asked::default();
    let (theirs, answer) = (asked.clone(), Arc::new(answer));
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (asked, answer) = (theirs.clone(), answer.clone());
            thread::spawn(move || serve(stream, &asked, &*answer));
        }
    });
    (address, asked)
}

fn serve(
    stream: TcpStream,
    asked: &Asked,
    answer: &(dyn Fn(usize, &str, &Value) -> Reply + Send + Sync),
) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut line, mut len) = (String::new(), 0);
        reader.read_line(&mut line).ok()?;
        let path = line.split(' ').nth(1)?.to_owned();
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok()?;
            match header.trim().split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    len = value.trim().parse().ok()?;
                }
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; len];
        reader.read_exact(&mut body).ok()?;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let reply = opening(&path, &body).unwrap_or_else(|| {
            let mut asked = asked.lock().unwrap();
            asked.push((path.clone(), body.clone()));
            let earlier = asked.len() - 1;
            drop(asked);
            answer(earlier, &path, &body)
        });
        let stream = reader.get_mut();
        match reply {
            Reply::Nothing => return None,
            Reply::Answer(status, value) => {
                let text = value.to_string();
                let len = text.len();
                write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: {len}\r\n\r\n{text}")
                    .ok()?;
            }
            Reply::Stream(lines) => {
                write!(stream, "HTTP/1.1 200 OK\r\n\r\n").ok()?;
                for line in lines {
                    writeln!(stream, "{line}").ok()?;
                }
                thread::sleep(Duration::from_secs(60));
                return None;
            }
        }
    }
}

/// Answers the requests of an opening and of a new session: the prefix has a store, the revision is
/// 10, and that of a new session is the same.
fn opening(path: &str, body: &Value) -> Option<Reply> {
    let kinds = body.get("success").and_then(Value::as_array).map_or(0, Vec::len);
    let answer = match path {
        "/v3/maintenance/status" => {
            json!({"version": "3.4.23", "dbSize": "2000", "dbSizeInUse": "1000"})
        }
        "/v3/lease/grant" => json!({"ID": "77", "TTL": "60"}),
        "/v3/lease/keepalive" => json!({}),
        "/v3/kv/txn" if kinds == 3 && body.get("compare").is_none() => {
            let meta = json!({"response_range": {"kvs": [{"key": text("log/meta")}]}});
            json!({"header": header(10), "succeeded": true, "responses": [meta]})
        }
        "/v3/kv/txn" if body["success"][0]["request_put"]["lease"] == "77" => {
            json!({"header": header(10), "succeeded": true})
        }
        _ => return None,
    };
    Some(Reply::Answer(200, answer))
}

pub(crate) fn header(revision: u64) -> Value {
    json!({"cluster_id": "1", "revision": revision.to_string()})
}

/// Returns a text as a request has it.
pub(crate) fn text(text: &str) -> String {
    Base64::encode_string(text.as_bytes())
}
