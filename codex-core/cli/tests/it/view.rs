//! `view`: the page over plain HTTP, as a browser and as other programs of the machine ask for it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, Stdio};

use codex_core::Store;
use codexdb::view::View;
use serde_json::Value;

use crate::common::Folder;

/// A page that the program shows.
struct Shown {
    child: Child,
    /// The address and port of the server.
    host: String,
    /// The first part of all paths.
    id: String,
    token: String,
    cookie: String,
}

/// An answer of the server.
#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Shown {
    /// Starts the program, which is to print the address.
    fn start(folder: &Folder, args: &[&str]) -> Self {
        let mut command = folder.command(&[&["view"], args].concat());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let (host, id, token) = parts(&line);
        Self { child, host, id, token, cookie: String::new() }
    }

    /// Starts the program, and exchanges the token for the cookie.
    fn enter(folder: &Folder, args: &[&str]) -> Self {
        let mut shown = Self::start(folder, args);
        let reply = shown.get(&format!("?token={}", shown.token), "");
        assert_eq!(reply.status, 303, "{reply:?}");
        shown.cookie = reply.cookie();
        shown
    }

    /// Sends a request with more headers than the name of the server.
    fn get(&self, path: &str, headers: &str) -> Reply {
        let Self { host, id, .. } = self;
        send(host, &format!("GET /{id}/{path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n"))
    }

    /// Calls the API with the cookie.
    fn api(&self, call: &str) -> Reply {
        self.get(&format!("api/{call}"), &self.cookie)
    }

    #[track_caller]
    fn json(&self, call: &str) -> Value {
        let reply = self.api(call);
        assert_eq!(reply.status, 200, "{call}: {reply:?}");
        assert_eq!(reply.header("content-type"), Some("application/json"));
        serde_json::from_str(&reply.body).unwrap()
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
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

/// Returns the server, the first part of the paths, and the token of an address.
fn parts(address: &str) -> (String, String, String) {
    let rest = address.trim().strip_prefix("http://").unwrap();
    let (host, rest) = rest.split_once('/').unwrap();
    let (id, token) = rest.split_once("/?token=").unwrap();
    (host.to_owned(), id.to_owned(), token.to_owned())
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

#[test]
fn a_token_works_once_and_the_cookie_after_it() {
    let folder = Folder::with_store();
    let mut shown = Shown::start(&folder, &["app.db"]);
    for path in ["", "api/store", "?token=", "?token=0", "api/store?token=x"] {
        assert_eq!(shown.get(path, "").status, 403, "{path}");
    }
    let (host, token) = (shown.host.clone(), shown.token.clone());
    // The right token below another first part of the path.
    let other = format!("GET /0/?token={token} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    assert_eq!(send(&host, &other).status, 403);
    let entered = shown.get(&format!("?token={token}"), "");
    assert_eq!(entered.status, 303);
    assert_eq!(entered.header("location"), Some(&*format!("/{}/", shown.id)));
    let cookie = entered.header("set-cookie").unwrap();
    for part in ["HttpOnly", "SameSite=Strict", &format!("Path=/{}/", shown.id)] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert_eq!(shown.get(&format!("?token={token}"), "").status, 403, "a second time");
    shown.cookie = entered.cookie();
    assert_eq!(shown.get("", &shown.cookie).status, 200);
    assert_eq!(shown.json("store")["keys"], 0);
    let wrong = "Cookie: codexdb=0123456789abcdef0123456789abcdef\r\n";
    assert_eq!(shown.get("api/store", wrong).status, 403);
}

#[test]
fn other_names_methods_and_pages_are_refused() {
    let folder = Folder::with_store();
    let shown = Shown::enter(&folder, &["app.db"]);
    let Shown { host, id, cookie, .. } = &shown;
    let ask = |method: &str, hosts: &str, more: &str| {
        send(host, &format!("{method} /{id}/api/store HTTP/1.1\r\n{hosts}{more}{cookie}\r\n"))
    };
    let own = format!("Host: {host}\r\n");
    let port = host.split_once(':').unwrap().1;
    assert_eq!(ask("GET", &own, "").status, 200);
    assert_eq!(ask("GET", &format!("Host: LOCALHOST:{port}\r\n"), "").status, 200);
    for name in ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example", ""] {
        assert_eq!(ask("GET", &format!("Host: {name}\r\n"), "").status, 403, "{name}");
    }
    assert_eq!(ask("GET", &format!("Host: evil.example:{port}\r\n"), "").status, 403);
    assert_eq!(ask("GET", "", "").status, 403, "no name");
    assert_eq!(ask("GET", &format!("{own}{own}"), "").status, 403, "two names");
    for method in ["POST", "HEAD", "PUT", "OPTIONS", "DELETE", "CONNECT"] {
        let reply = ask(method, &own, "");
        assert_eq!((reply.status, reply.header("allow")), (405, Some("GET")), "{method}");
    }
    assert_eq!(ask("GET", &own, "Content-Length: 1\r\n").status, 400);
    assert_eq!(ask("GET", &own, "Transfer-Encoding: chunked\r\n").status, 400);
    // A page of another site, or of another port of this machine.
    for site in ["cross-site", "same-site"] {
        assert_eq!(ask("GET", &own, &format!("Sec-Fetch-Site: {site}\r\n")).status, 403);
    }
    assert_eq!(ask("GET", &own, "Sec-Fetch-Site: same-origin\r\n").status, 200);
    let origin = ask("GET", &own, "Origin: http://evil.example\r\n");
    assert!(!origin.head.to_ascii_lowercase().contains("access-control"), "{origin:?}");
}

#[test]
fn answers_keep_browsers_within_their_bounds() {
    let folder = Folder::with_store();
    let shown = Shown::enter(&folder, &["app.db"]);
    let page = shown.get("", &shown.cookie);
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'nonce-"), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
    assert_eq!(page.body.matches(&format!("nonce=\"{nonce}\"")).count(), 2);
    // Each load has another one.
    assert!(!shown.get("", &shown.cookie).body.contains(nonce));
    // Nothing is fetched from anywhere: the page names no other address.
    for name in ["http:", "https:", "src=", "@import", "url(", "style=", "innerHTML"] {
        assert!(!page.body.contains(name), "{name}");
    }
    for reply in [page, shown.api("store"), shown.api("nothing"), shown.get("", "")] {
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert_eq!(reply.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(reply.header("cross-origin-resource-policy"), Some("same-origin"));
        let policy = reply.header("content-security-policy").unwrap();
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
    }
}

#[test]
fn a_script_in_a_key_and_a_value_stays_text() {
    let folder = Folder::with_store();
    let script = "</script><script>alert(1)</script>";
    folder.ok(&["set", "app.db", script, &format!("\"{script}\"")]);
    let shown = Shown::enter(&folder, &["app.db"]);
    let made = shown.json("list");
    let page = shown.api(&format!("page?list={}", made["list"]));
    assert!(!page.body.contains('<'), "{}", page.body);
    let page: Value = serde_json::from_str(&page.body).unwrap();
    assert_eq!(page["rows"][0]["key"], script);
    let value = shown.api("value?key=%3C%2Fscript%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E");
    assert!(!value.body.contains('<'), "{}", value.body);
    let value: Value = serde_json::from_str(&value.body).unwrap();
    assert_eq!(value["text"], format!("\"{script}\""));
    // A refusal names what was asked for in no other form than plain text.
    let refused = shown.api("value?key=%5Cxzz%3Cscript%3E");
    assert_eq!(refused.status, 400);
    assert_eq!(refused.header("content-type"), Some("text/plain; charset=utf-8"));
}

#[test]
fn a_value_is_read_as_a_type_or_as_a_guess() {
    let folder = Folder::with_store();
    let store = folder.open("app.db");
    store.set("user", &("Ada", 5_u32)).unwrap();
    store.set_bytes("raw", [1, 0]).unwrap();
    store.close().unwrap();
    drop(store);
    let shown = Shown::enter(&folder, &["app.db"]);
    let guess = shown.json("value?key=user")["read"].clone();
    let expected = (&"[\"Ada\",5]".into(), &"(str, u32)".into(), &true.into());
    assert_eq!((&guess["json"], &guess["type"], &guess["guess"]), expected);
    let typed = shown.json("value?key=user&as=%7Bname%3A+str%2C+stars%3A+u32%7D")["read"].clone();
    let expected = (&r#"{"name":"Ada","stars":5}"#.into(), &false.into());
    assert_eq!((&typed["json"], &typed["guess"]), expected);
    assert_eq!(shown.json("value?key=raw")["read"], Value::Null);
    assert_eq!(shown.json("value?key=raw&as=u16")["read"]["json"], "1");
    for of in ["u64", "u", "%5B%28%29%3B+4000000000%5D"] {
        let found = shown.json(&format!("value?key=raw&as={of}"));
        assert!(found["read"].is_null() && found["unread"].is_string(), "{of}: {found}");
    }
    assert_eq!(entries(&shown, "")[1].1, "[\"Ada\",5]");
}

#[test]
fn a_list_has_pages_and_a_filter() {
    let folder = Folder::with_store();
    let store = folder.open("app.db");
    let mut batch = store.batch();
    for number in 0..1000 {
        batch.set_bytes(format!("key/{number:04}"), b"v").unwrap();
    }
    batch.set_bytes("other", b"v").unwrap();
    batch.commit().unwrap();
    store.close().unwrap();
    drop(store);
    let shown = Shown::enter(&folder, &["app.db"]);
    let first = |query: &str| {
        let made = shown.json(&format!("list?{query}"));
        let page = shown.json(&format!("page?list={}&count=1", made["list"]));
        (made["total"].clone(), page["rows"][0]["key"].clone(), made["pos"].clone())
    };
    assert_eq!(first(""), (1001.into(), "key/0000".into(), 0.into()));
    assert_eq!(first("prefix=key%2F09&key=key%2F0950"), (100.into(), "key/0900".into(), 50.into()));
    assert_eq!(first("from=key%2F0500&to=other"), (500.into(), "key/0500".into(), 0.into()));
    assert_eq!(first("filter=Y%2F000"), (10.into(), "key/0000".into(), 0.into()));
    assert_eq!(first("filter=none"), (0.into(), Value::Null, 0.into()));
    let list = shown.json("list?filter=5")["list"].clone();
    // The keys with a 5, of which each page has the next ones.
    let with_five: Vec<String> =
        (0..1000).map(|n| format!("key/{n:04}")).filter(|key| key.contains('5')).collect();
    for start in [0, 255, 256, 260, 270] {
        let page = shown.json(&format!("page?list={list}&start={start}&count=3"));
        let keys: Vec<&str> = page["rows"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["key"].as_str().unwrap())
            .collect();
        assert_eq!(keys, with_five[start..].iter().take(3).collect::<Vec<_>>(), "{start}");
    }
    // The last lists are kept, and no others.
    for _ in 0..8 {
        shown.json("list");
    }
    assert_eq!(shown.api(&format!("page?list={list}")).status, 410);
}

#[test]
fn answers_and_requests_are_bounded() {
    let folder = Folder::with_store();
    let store = folder.open("app.db");
    let long = vec![0xFF; 60_000];
    let mut batch = store.batch();
    for number in 0..20_u8 {
        batch.set_bytes([&[number][..], &long].concat(), b"").unwrap();
    }
    batch.set_bytes("text", "x".repeat(3 << 20)).unwrap();
    batch.set_bytes("utf-8", "ü".repeat(600_000)).unwrap();
    batch.commit().unwrap();
    store.close().unwrap();
    drop(store);
    let shown = Shown::enter(&folder, &["app.db"]);
    let list = shown.json("list")["list"].clone();
    let reply = shown.api(&format!("page?list={list}&count=100000"));
    assert!(reply.body.len() < 1 << 20, "{} bytes", reply.body.len());
    let page: Value = serde_json::from_str(&reply.body).unwrap();
    assert!(!page["rows"].as_array().unwrap().is_empty());
    let value = shown.json("value?key=text");
    assert_eq!(value["len"], 3 << 20);
    assert_eq!(value["text"].as_str().unwrap().len(), 1 << 20);
    assert_eq!(value["hex"].as_str().unwrap().len(), 32 << 10);
    let end = shown.json(&format!("value?key=text&offset={}", (3 << 20) - 1));
    assert_eq!((&end["hex"], &end["text"]), (&"78".into(), &Value::Null));
    assert_eq!(shown.json("value?key=text&offset=99999999")["hex"], "");
    assert_eq!(shown.json("value?key=utf-8")["text"].as_str().unwrap().len(), 1 << 20);
    let key = "x".repeat(70_000);
    assert_eq!(shown.api(&format!("value?key={key}")).status, 431);
    assert_eq!(shown.api("page?list=1&start=18446744073709551615").status, 200);
    assert_eq!(shown.api("page?list=1&start=18446744073709551616").status, 400);
    let many = "a: b\r\n".repeat(65);
    assert_eq!(shown.get("api/store", &format!("{}{many}", shown.cookie)).status, 400);
}

#[test]
fn slow_and_silent_clients_keep_nobody_out() {
    let folder = Folder::with_store();
    let shown = Shown::enter(&folder, &["app.db"]);
    // More connections than there are places, each of which has sent a part of a request.
    let mut silent = Vec::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(&shown.host).unwrap();
        // The server may have ended it already.
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: ");
        silent.push(stream);
        assert_eq!(shown.json("store")["keys"], 0);
    }
    // The first ones were ended to make room, long before their time was over.
    let mut read = Vec::new();
    let _ = silent[0].read_to_end(&mut read);
    assert!(read.is_empty());
    // A client that asks for an answer and does not read it.
    let mut unread = TcpStream::connect(&shown.host).unwrap();
    let Shown { host, id, cookie, .. } = &shown;
    write!(unread, "GET /{id}/ HTTP/1.1\r\nHost: {host}\r\n{cookie}\r\n").unwrap();
    // Bytes that are no request.
    for bytes in [&b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"[..], b"\r\n\r\n\r\n\r\n", b"GET\r\n\r\n"]
    {
        let mut stream = TcpStream::connect(&shown.host).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 400 "), "{reply}");
    }
    assert_eq!(shown.json("store")["keys"], 0);
}

#[test]
fn an_encrypted_store_shows_values_only_if_asked_to() {
    let folder = Folder::new();
    std::fs::write(folder.path("pass"), "correct horse").unwrap();
    let key = ["--passphrase", "file:pass"];
    folder.ok(&[&["init", "app.db"], &key[..]].concat());
    folder.ok(&[&["set", "app.db", "user", "\"secret\""], &key[..]].concat());
    for (shows, args) in [(false, &["app.db"][..]), (true, &["app.db", "--show-values"])] {
        let shown = Shown::enter(&folder, &[args, &key[..]].concat());
        let list = shown.json("list")["list"].clone();
        let page = shown.api(&format!("page?list={list}")).body;
        let value = shown.api("value?key=user").body;
        assert!(page.contains("user"));
        assert_eq!(page.contains("secret"), shows, "{page}");
        assert_eq!(value.contains("secret"), shows, "{value}");
        assert_eq!(value.contains("736563"), shows, "{value}");
        assert!(value.contains("\"len\":8"), "{value}");
        assert_eq!(shown.json("store")["values"], shows);
    }
}

#[test]
fn ctrl_c_ends_the_page_and_nothing_was_written() {
    let folder = Folder::with_store();
    folder.ok(&["set", "app.db", "a", "1"]);
    let before = std::fs::read_dir(folder.path(".")).unwrap().count();
    let mut shown = Shown::enter(&folder, &["app.db"]);
    assert_eq!(shown.json("store")["keys"], 1);
    // A client that holds a connection does not delay the end.
    let _open = TcpStream::connect(&shown.host).unwrap();
    let pid = rustix::process::Pid::from_child(&shown.child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let status = shown.child.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(2));
    assert!(TcpStream::connect(&shown.host).is_err());
    assert_eq!(std::fs::read_dir(folder.path(".")).unwrap().count(), before);
    folder.ok(&["set", "app.db", "b", "2"]);
}

#[test]
fn an_application_shows_its_own_store_while_it_writes() {
    let store = Store::in_memory().unwrap();
    store.set("a", &1).unwrap();
    let server = View::new(&store).serve().unwrap();
    let (host, id, token) = parts(&server.address().unwrap());
    // Another address is for another browser.
    let (_, _, second) = parts(&server.address().unwrap());
    let get = |path: &str, cookie: &str| {
        send(&host, &format!("GET /{id}/{path} HTTP/1.1\r\nHost: {host}\r\n{cookie}\r\n"))
    };
    let cookie = get(&format!("?token={token}"), "").cookie();
    assert_eq!(get(&format!("?token={second}"), "").cookie(), cookie);
    let json = |call: &str| serde_json::from_str::<Value>(&get(call, &cookie).body).unwrap();
    assert_eq!(json("api/store")["keys"], 1);
    let list = json("api/list")["list"].clone();
    store.set("b", &2).unwrap();
    store.remove("a").unwrap();
    // A list stays as it was made, and a new one has the new state.
    assert_eq!(json(&format!("api/page?list={list}"))["rows"][0]["key"], "a");
    let list = json("api/list")["list"].clone();
    assert_eq!(json(&format!("api/page?list={list}"))["rows"][0]["key"], "b");
    store.close().unwrap();
    assert_eq!(json("api/store")["keys"], 1, "reads go on after the close");
    drop(server);
    assert!(TcpStream::connect(&host).is_err(), "the end of the server");
}

/// A folder with a ledger of five commits: three sets, one batch, and a clear with a set after it.
fn ledger() -> Folder {
    let folder = Folder::new();
    folder.ok(&["init", "app.db", "--form", "ledger"]);
    for (key, value) in [("a", "1"), ("b", "2"), ("a", "3")] {
        folder.ok(&["set", "app.db", key, value]);
    }
    let store = folder.open("app.db");
    let mut batch = store.batch();
    batch.remove("b").unwrap().set_bytes("c", b"4").unwrap().set_bytes("a", b"5").unwrap();
    batch.commit().unwrap();
    let mut batch = store.batch();
    batch.clear().set_bytes("d", b"6").unwrap();
    batch.commit().unwrap();
    store.close().unwrap();
    drop(store);
    folder
}

/// Returns the keys with their values.
fn entries(shown: &Shown, query: &str) -> Vec<(String, String)> {
    let list = shown.json(&format!("list?{query}"))["list"].clone();
    let page = shown.json(&format!("page?list={list}"));
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    let rows = page["rows"].as_array().unwrap();
    rows.iter().map(|row| (text(row, "key"), text(row, "preview"))).collect()
}

#[test]
fn the_slider_shows_every_earlier_state() {
    let folder = ledger();
    let shown = Shown::enter(&folder, &["app.db"]);
    let times = shown.json("time");
    assert_eq!((&times["oldest"], &times["last"]), (&0.into(), &5.into()));
    assert_eq!(times["buckets"].as_array().unwrap().len(), 5);
    assert_eq!(times["buckets"][3]["changes"], 3);
    let states: [&[(&str, &str)]; 6] = [
        &[],
        &[("a", "1")],
        &[("a", "1"), ("b", "2")],
        &[("a", "3"), ("b", "2")],
        &[("a", "5"), ("c", "4")],
        &[("d", "6")],
    ];
    // Forward, back, and over commits.
    for at in [0, 1, 2, 3, 4, 5, 2, 4, 0, 3] {
        let expected: Vec<_> =
            states[at].iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert_eq!(entries(&shown, &format!("at={at}")), expected, "after commit {at}");
    }
    assert_eq!(shown.json("value?key=a&at=1")["text"], "1");
    assert_eq!(shown.json("value?key=a&at=4")["codec"], "raw");
    assert_eq!(shown.json("value?key=a&at=3")["codec"], "json");
    assert_eq!(shown.json("value?key=a"), Value::Null);
    assert_eq!(shown.json("tree?at=2")["keys"], 2);
    for call in ["list?at=6", "value?key=a&at=6", "moment?at=6", "list?at=x"] {
        assert_eq!(shown.api(call).status, 400, "{call}");
    }
}

#[test]
fn the_changes_of_a_commit_and_since_it_are_shown() {
    let folder = ledger();
    let shown = Shown::enter(&folder, &["app.db"]);
    let changes = |found: &Value| {
        let rows = found["rows"].as_array().unwrap().clone();
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let row = |row: &Value| ["key", "change", "before", "after"].map(|name| text(&row[name]));
        rows.iter().map(|found| row(found).join(" ")).collect::<Vec<_>>()
    };
    let first = shown.json("moment?at=1");
    assert_eq!(changes(&first), ["a added - 1"]);
    let batch = shown.json("moment?at=4");
    assert_eq!(changes(&batch), ["a changed 3 5", "b removed 2 -", "c added - 4"]);
    assert_eq!((&batch["added"], &batch["changed"]), (&1.into(), &1.into()));
    assert!(batch["time_us"].as_i64().unwrap() >= first["time_us"].as_i64().unwrap());
    let clear = shown.json("moment?at=5");
    assert_eq!(changes(&clear), ["a removed 5 -", "c removed 4 -", "d added - 6"]);
    assert_eq!((&clear["cleared"], &batch["cleared"]), (&true.into(), &false.into()));
    assert_eq!(shown.json("moment?at=0")["time_us"], Value::Null);
    let since = shown.json("diff?at=3");
    assert_eq!(changes(&since), ["a removed 3 -", "b removed 2 -", "d added - 6"]);
    assert_eq!((&since["removed"], &since["upto"]), (&2.into(), &5.into()));
    assert_eq!(changes(&shown.json("diff?at=3&after=a")), ["b removed 2 -", "d added - 6"]);
    assert_eq!(changes(&shown.json("diff?at=5")), [""; 0]);
    let history = shown.json("history?key=a");
    let row = |row: &Value| format!("{} {}", row["seq"], row["preview"].as_str().unwrap_or("-"));
    let rows = history["rows"].as_array().unwrap();
    assert_eq!(rows.iter().map(row).collect::<Vec<_>>(), ["1 1", "3 3", "4 5", "5 -"]);
    assert_eq!(shown.json("history?key=none")["total"], 0);
}

#[test]
fn many_changes_are_shown_in_parts() {
    let folder = Folder::new();
    folder.ok(&["init", "app.db", "--form", "ledger"]);
    let store = folder.open("app.db");
    let mut batch = store.batch();
    for number in 0..500 {
        batch.set_bytes(format!("{number:03}"), b"v").unwrap();
    }
    batch.commit().unwrap();
    store.close().unwrap();
    drop(store);
    let shown = Shown::enter(&folder, &["app.db"]);
    let (mut keys, mut after) = (Vec::new(), String::new());
    loop {
        let part = shown.json(&format!("diff?at=0&after={after}"));
        keys.extend(part["rows"].as_array().unwrap().iter().map(|row| row["key"].clone()));
        if after.is_empty() {
            assert_eq!(part["added"], 500);
        }
        let Some(next) = part["next"].as_str() else { break };
        next.clone_into(&mut after);
    }
    assert_eq!(
        keys,
        (0..500).map(|number| Value::from(format!("{number:03}"))).collect::<Vec<_>>()
    );
}

#[test]
fn an_expired_entry_is_in_the_states_before_its_time() {
    let folder = Folder::new();
    folder.ok(&["init", "app.db", "--form", "ledger"]);
    // The second one is over when it is set. Its removal may be a third commit.
    for (key, expires_us) in [("b", 4_000_000_000_000_000_i64), ("a", 1)] {
        let line =
            format!(r#"{{"key":"{key}","codec":"json","value":2,"expires_us":{expires_us}}}"#);
        folder.run_with(&["import", "app.db"], line.as_bytes());
    }
    let shown = Shown::enter(&folder, &["app.db"]);
    assert_eq!(shown.json("history?key=a")["rows"][0]["seq"], 2);
    assert_eq!(entries(&shown, "at=2"), [("b".to_owned(), "2".to_owned())]);
    assert_eq!(shown.json("value?key=b&at=2")["expires_us"], 4_000_000_000_000_000_i64);
}

#[test]
fn the_past_of_an_encrypted_ledger_is_read_with_its_key() {
    let folder = Folder::new();
    std::fs::write(folder.path("pass"), "correct horse").unwrap();
    let key = ["--passphrase", "file:pass"];
    folder.ok(&[&["init", "app.db", "--form", "ledger"], &key[..]].concat());
    for value in ["\"first secret\"", "\"second secret\""] {
        folder.ok(&[&["set", "app.db", "user", value], &key[..]].concat());
    }
    let shown = Shown::enter(&folder, &[&["app.db"], &key[..]].concat());
    for call in ["moment?at=1", "diff?at=1", "history?key=user", "value?key=user&at=1"] {
        let reply = shown.api(call);
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(!reply.body.contains("secret"), "{call}: {}", reply.body);
    }
    drop(shown);
    let shown = Shown::enter(&folder, &[&["app.db", "--show-values"], &key[..]].concat());
    assert_eq!(shown.json("value?key=user&at=1")["text"], "\"first secret\"");
}

#[test]
fn a_store_that_is_no_ledger_has_no_past() {
    let folder = Folder::with_store();
    let shown = Shown::enter(&folder, &["app.db"]);
    assert_eq!(shown.json("store")["ledger"], false);
    for call in ["time", "moment?at=0", "diff?at=0", "history?key=a", "list?at=0"] {
        assert_eq!(shown.api(call).status, 404, "{call}");
    }
}

#[test]
fn the_map_has_the_largest_parts_and_the_sum_of_the_others() {
    let folder = Folder::with_store();
    let store = folder.open("app.db");
    let mut batch = store.batch();
    for number in 0..200 {
        batch.set_bytes(format!("many/{number:03}"), vec![0; number]).unwrap();
    }
    batch.set_bytes("few/a/b", b"12345").unwrap().set_bytes("few/c", b"").unwrap();
    batch.set_bytes("alone", b"1").unwrap();
    batch.commit().unwrap();
    store.close().unwrap();
    drop(store);
    let shown = Shown::enter(&folder, &["app.db"]);
    assert_eq!(shown.json("store")["separator"], "/");
    let children = |found: &Value| {
        let rows = found["children"].as_array().unwrap().clone();
        let row = |row: &Value| format!("{} {} {}", row["name"], row["keys"], row["bytes"]);
        rows.iter().map(row).collect::<Vec<_>>()
    };
    let top = shown.json("tree?separator=%2F");
    let many = (0..200).sum::<u64>() + 200 * 8;
    let expected =
        [format!("\"many/\" 200 {many}"), "\"few/\" 2 17".into(), "\"alone\" 1 6".into()];
    assert_eq!(children(&top), expected);
    assert_eq!((&top["keys"], &top["bytes"]), (&203.into(), &(many + 23).into()));
    let few = shown.json("tree?separator=%2F&prefix=few%2F");
    assert_eq!(children(&few), ["\"few/a/\" 1 12", "\"few/c\" 1 5"]);
    assert_eq!(few["children"][1]["isLeaf"], true);
    let inside = shown.json("tree?separator=%2F&prefix=many%2F");
    assert_eq!(inside["children"].as_array().unwrap().len(), 80);
    assert_eq!(children(&inside)[0], "\"many/199\" 1 207");
    assert_eq!(inside["rest"]["keys"], 120);
    let shown_bytes: u64 = inside["children"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["bytes"].as_u64().unwrap())
        .sum();
    assert_eq!(inside["rest"]["bytes"].as_u64().unwrap() + shown_bytes, many);
    assert_eq!(shown.json("tree")["children"].as_array().unwrap().len(), 80, "no separator");
}

#[test]
fn the_health_has_the_counters_and_the_backups() {
    let folder = Folder::with_store();
    folder.ok(&["set", "app.db", "a", "1"]);
    folder.ok(&["backup", "create", "app.db"]);
    let shown = Shown::enter(&folder, &["app.db"]);
    let health = shown.json("health");
    assert_eq!((&health["writes"], &health["is_well"]), (&"read-only".into(), &true.into()));
    assert_eq!((&health["keys"], &health["seq"]), (&1.into(), &1.into()));
    assert_eq!(health["backups"][0]["seq"], 1);
    assert_eq!(health["backups"][0]["error"], Value::Null);
    drop(shown);
    let store = Store::in_memory().unwrap();
    let server = View::new(&store).serve().unwrap();
    let (host, id, token) = parts(&server.address().unwrap());
    let get = |path: &str, cookie: &str| {
        send(&host, &format!("GET /{id}/{path} HTTP/1.1\r\nHost: {host}\r\n{cookie}\r\n"))
    };
    let cookie = get(&format!("?token={token}"), "").cookie();
    store.set("a", &1).unwrap();
    let health: Value = serde_json::from_str(&get("api/health", &cookie).body).unwrap();
    assert_eq!((&health["writes"], &health["commits"]), (&"accepts writes".into(), &1.into()));
    assert!(health["data_hold_ns_max"].as_u64().unwrap() > 0);
    assert_eq!(health["backups"].as_array().unwrap().len(), 0);
}
