//! Clients that ask for much, for nothing, or at the same time, and the end of the server.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use codex_core::Store;
use codexdb::view::View;
use serde_json::Value;

use crate::common::Folder;
use crate::view::{Shown, entries};

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
fn ctrl_c_ends_the_page_and_nothing_was_written() {
    let folder = Folder::with_store();
    folder.ok(&["set", "app.db", "a", "1"]);
    let before = std::fs::read_dir(folder.path(".")).unwrap().count();
    let mut shown = Shown::enter(&folder, &["app.db"]);
    assert_eq!(shown.json("store")["keys"], 1);
    // A client that holds a connection does not delay the end.
    let _open = TcpStream::connect(&shown.host).unwrap();
    let pid = rustix::process::Pid::from_child(shown.child.as_ref().unwrap());
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let status = shown.child.as_mut().unwrap().wait().unwrap();
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
    let shown = Shown::of(&server);
    // Another address is for another browser.
    assert_eq!(Shown::of(&server).cookie, shown.cookie);
    assert_eq!(shown.json("store")["keys"], 1);
    let list = shown.json("list")["list"].clone();
    store.set("b", &2).unwrap();
    store.remove("a").unwrap();
    // A list stays as it was made, and a new one has the new state.
    assert_eq!(shown.json(&format!("page?list={list}"))["rows"][0]["key"], "a");
    assert_eq!(entries(&shown, ""), [("b".to_owned(), "2".to_owned())]);
    store.close().unwrap();
    assert_eq!(shown.json("store")["keys"], 1, "reads go on after the close");
    drop(server);
    assert!(TcpStream::connect(&shown.host).is_err(), "the end of the server");
}
