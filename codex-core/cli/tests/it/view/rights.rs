//! Access to the page, and the rights of a browser over the answers.

use serde_json::Value;

use crate::common::Folder;
use crate::view::{Shown, send};

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
    // A refusal names the requested path in no other form than plain text.
    let refused = shown.api("value?key=%5Cxzz%3Cscript%3E");
    assert_eq!(refused.status, 400);
    assert_eq!(refused.header("content-type"), Some("text/plain; charset=utf-8"));
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
