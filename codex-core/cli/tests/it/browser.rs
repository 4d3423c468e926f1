//! The page in a real browser: headless Chromium, driven through its debugging pipe.
//!
//! `cargo xtask browser` runs these tests. They need the feature `browser` and the program of
//! `CODEXDB_BROWSER`, by default `chromium`.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use codex_core::{BackupPolicy, Codec, Form, Store};
use codexdb::view::{Server, View};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A browser with one page.
struct Browser {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    sent: u64,
    session: Value,
    /// The addresses that the page has asked for.
    requests: Vec<String>,
    /// The messages of the browser about the page, such as refusals of the policy.
    messages: VecDeque<String>,
    _profile: TempDir,
}

impl Browser {
    /// Starts a browser, which goes to `address`.
    fn start(address: &str) -> Self {
        let profile = TempDir::new().unwrap();
        // The pipe has the descriptors 3 and 4.
        let script = "exec \"$@\" 3<&0 4>&1 </dev/null >&2";
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]);
        let program = std::env::var("CODEXDB_BROWSER").unwrap_or_else(|_| "chromium".to_owned());
        command.args([&program, "--headless=new", "--remote-debugging-pipe", "--disable-gpu"]);
        command.args(["--no-first-run", "--disable-background-networking", "--disable-sync"]);
        command.args(["--disable-component-update", "--hide-scrollbars=false"]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        if rustix::process::geteuid().is_root() {
            command.arg("--no-sandbox");
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let to = child.stdin.take().unwrap();
        let from = BufReader::new(child.stdout.take().unwrap());
        let (requests, messages) = (Vec::new(), VecDeque::new());
        let session = Value::Null;
        let mut browser =
            Self { child, to, from, sent: 0, session, requests, messages, _profile: profile };
        let target = browser.call("Target.createTarget", &json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        browser.session = browser.call("Target.attachToTarget", &attach)["sessionId"].clone();
        for domain in ["Network", "Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        browser.shape(1280, 800, "light");
        browser.open(address);
        browser
    }

    /// Opens an address, and waits until its page has begun.
    #[track_caller]
    fn open(&mut self, address: &str) {
        self.call("Page.navigate", &json!({"url": address}));
        self.until("document.querySelector('#badges')?.childElementCount > 0");
    }

    /// Calls a method of the browser. Notes its messages in between.
    #[track_caller]
    fn call(&mut self, method: &str, params: &Value) -> Value {
        self.sent += 1;
        let mut message = json!({"id": self.sent, "method": method, "params": params});
        if !self.session.is_null() {
            message["sessionId"] = self.session.clone();
        }
        write!(self.to, "{message}\0").unwrap();
        loop {
            let mut bytes = Vec::new();
            self.from.read_until(0, &mut bytes).unwrap();
            assert_eq!(bytes.pop(), Some(0), "the browser has ended");
            let mut message: Value = serde_json::from_slice(&bytes).unwrap();
            if message["id"] == self.sent {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].take();
            }
            let params = &message["params"];
            match message["method"].as_str().unwrap_or_default() {
                "Network.requestWillBeSent" => {
                    self.requests.push(params["request"]["url"].as_str().unwrap().to_owned());
                }
                "Log.entryAdded" => self.messages.push_back(params["entry"].to_string()),
                "Runtime.exceptionThrown" | "Runtime.consoleAPICalled" => {
                    self.messages.push_back(params.to_string());
                }
                _ => {}
            }
        }
    }

    /// Returns the value of an expression of the page.
    #[track_caller]
    fn eval(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let result = self.call("Runtime.evaluate", &params);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Waits until an expression of the page is true.
    #[track_caller]
    fn until(&mut self, expression: &str) {
        // The limit, of minutes, is for a page that is wrong.
        let wait = format!(
            "new Promise((done) => {{ let left = 15000; const look = () => \
             ({expression}) ? done('yes') : left-- ? setTimeout(look, 20) : \
             done(document.body.innerText); look(); }})"
        );
        let shown = self.eval(&wait);
        assert_eq!(shown, "yes", "{expression}\n{shown}");
    }

    /// Waits until the list has exactly these keys.
    #[track_caller]
    fn until_keys(&mut self, keys: &[&str]) {
        let keys = serde_json::to_string(keys).unwrap();
        self.until(&format!(
            "JSON.stringify([...document.querySelectorAll('.row .key')].map((k) => k.textContent)) \
             === JSON.stringify({keys})"
        ));
    }

    fn press(&mut self, key: &str) {
        let code = match key {
            "/" => 191,
            "End" => 35,
            "Home" => 36,
            "ArrowDown" => 40,
            _ => 0,
        };
        for kind in ["keyDown", "keyUp"] {
            let params = json!({"type": kind, "key": key, "windowsVirtualKeyCode": code});
            self.call("Input.dispatchKeyEvent", &params);
        }
    }

    /// Sets the size of the window, and whether it is light or dark.
    fn shape(&mut self, width: u32, height: u32, scheme: &str) {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", &size);
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", &json!({"features": features}));
    }

    /// Goes to another part of the page.
    fn go(&mut self, place: &str) {
        let place = serde_json::to_string(place).unwrap();
        self.eval(&format!("location.hash = {place}; true"));
    }

    /// Writes a picture of the window, if a folder for pictures is named.
    fn picture(&mut self, name: &str) {
        let Some(folder) = std::env::var_os("CODEXDB_PICTURES").map(PathBuf::from) else { return };
        // The last frame is painted.
        self.eval(
            "new Promise((done) => setTimeout(() => requestAnimationFrame(() => done(1)), 250))",
        );
        let picture = self.call("Page.captureScreenshot", &json!({"format": "png"}));
        fs::create_dir_all(&folder).unwrap();
        let bytes = from_base64(picture["data"].as_str().unwrap());
        fs::write(folder.join(format!("{name}.png")), bytes).unwrap();
    }

    /// Checks the messages of the browser: no request has left this machine, and none is an error.
    #[track_caller]
    fn finish(mut self, server: &Server) {
        self.eval("true");
        let own = format!("http://{}/", server.local_addr());
        assert!(self.requests.len() >= 4, "{:?}", self.requests);
        for request in &self.requests {
            let is_own = request.starts_with(&own) || request == "data:,";
            assert!(is_own, "a request to {request}");
        }
        assert!(self.messages.is_empty(), "{:?}", self.messages);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn from_base64(text: &str) -> Vec<u8> {
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for c in text.bytes().filter(|c| *c != b'=') {
        let digit = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            _ => 63,
        };
        bits = bits << 6 | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xFF).unwrap());
        }
    }
    bytes
}

const SCRIPT: &str = "<script>window.hit = 1</script>";

/// Fills a ledger as a shop would.
fn fill(store: &Store) {
    let names =
        ["ada", "bob", "eve", "joe", "kim", "liu", "max", "noa", "pia", "sam", "tom", "zoe"];
    for round in 0..60_usize {
        let mut batch = store.batch();
        for step in 0..1 + round * 7 % 9 {
            let (n, name) = (round * 9 + step, names[(round + step * 5) % names.len()]);
            let order = format!(
                r#"{{"id":{n},"customer":"{name}","total":{}.{:02},"paid":{},"note":null,
                "lines":[{{"article":"A-{}","count":{}}},{{"article":"B-7","count":1}}]}}"#,
                n * 13 % 400,
                n * 7 % 100,
                n % 3 > 0,
                n % 40,
                1 + n % 4
            );
            let month = 1 + round / 6;
            let key = format!("orders/2026-{month:02}/{n:05}");
            batch.set_encoded(key, Codec::Json, order, None).unwrap();
            let user = format!(
                r#"{{"name":"{name}","email":"{name}@example.org","orders":{},"tags":["new","eu"],
                "address":{{"city":"Bern","zip":"3011"}}}}"#,
                round + step
            );
            batch.set_encoded(format!("users/{name}"), Codec::Json, user, None).unwrap();
        }
        if round % 4 == 0 {
            let picture: Vec<u8> = (0..900 + round * 40).map(|n| (n * 37 % 251) as u8).collect();
            batch.set_bytes(format!("pictures/{round:03}.png"), picture).unwrap();
            batch.set_bytes(format!("sessions/{:08x}", round * 77_777), b"open").unwrap();
        }
        if round % 9 == 8 {
            batch.remove(format!("sessions/{:08x}", (round - round % 4) * 77_777)).unwrap();
        }
        batch.commit().unwrap();
    }
}

#[test]
fn the_page_shows_a_ledger_as_it_was() {
    let folder = TempDir::new().unwrap();
    let options = Store::options().form(Form::Ledger).backups(BackupPolicy::keep(3));
    let store = options.open(folder.path().join("shop.db")).unwrap();
    store.set_bytes("a", b"first").unwrap();
    store.set_bytes("b", b"second").unwrap();
    let mut batch = store.batch();
    batch.remove("a").unwrap().set_bytes("b", b"third").unwrap();
    batch.commit().unwrap();
    let server = View::new(&store).serve().unwrap();
    let mut browser = Browser::start(&server.address().unwrap());
    browser.until_keys(&["b"]);
    // The slider, as a person moves it.
    browser.eval("slider.value = 1; slider.dispatchEvent(new Event('input')); true");
    browser.until_keys(&["a"]);
    browser.eval("document.querySelector('.row').click(); true");
    browser.until("document.querySelector('#body pre')?.textContent === 'first'");
    browser.until("document.querySelectorAll('#past li').length === 2");
    browser.eval("slider.value = 2; slider.dispatchEvent(new Event('input')); true");
    browser.until_keys(&["a", "b"]);
    browser.eval("document.querySelector('#past li button').click(); true");
    browser.until_keys(&["b"]);
    // A link leads to a state and a key.
    browser.go("keys?key=b&at=2");
    browser.until("document.querySelector('#body pre')?.textContent === 'second'");
    browser.until("moment.textContent.startsWith('Commit 2 of 3')");
    browser.until_keys(&["a", "b"]);
    // The way back to the present leads over another view.
    browser.go("health");
    browser.go("keys");
    browser.until_keys(&["b"]);
    browser.go("changes?at=2");
    browser.until(
        "changes.innerText.includes('1 removed') && changes.innerText.includes('Since then')",
    );
    fill(&store);
    store.back_up().unwrap();
    browser.open(&server.address().unwrap());
    browser.until("slider.max === '63'");
    pictures(&mut browser);
    // The history of a key is asked for once, and then only the commits since.
    let histories = |browser: &Browser| {
        let asked = browser.requests.iter().filter(|request| request.contains("api/history"));
        asked.cloned().collect::<Vec<_>>()
    };
    browser.go("keys?key=b");
    browser.until("document.querySelectorAll('#past li').length === 2");
    let before = histories(&browser);
    browser.go("keys?key=b&at=2");
    browser.until("document.querySelector('#body pre')?.textContent === 'second'");
    browser.until("document.querySelectorAll('#past li').length === 2");
    assert_eq!(histories(&browser), before);
    store.set_bytes("b", b"fourth").unwrap();
    browser.until("slider.max === '64'");
    browser.go("keys?key=b");
    browser.until("document.querySelectorAll('#past li').length === 3");
    assert!(histories(&browser).last().unwrap().ends_with("after=63"), "{before:?}");
    browser.finish(&server);
}

/// Takes the pictures of the documents.
fn pictures(browser: &mut Browser) {
    browser.go("keys?key=users%2Fada&at=40");
    browser.until(
        "document.querySelector('#body .tree') && document.querySelectorAll('#past li').length > 5",
    );
    browser.picture("keys");
    browser.go("changes?at=52");
    browser.until("changes.innerText.includes('Since then')");
    browser.picture("changes");
    browser.go("map");
    browser.until("document.querySelectorAll('.tile').length > 2");
    browser.picture("map");
    browser.go("map?map=orders%2F");
    browser.until("document.querySelectorAll('.tile').length > 5");
    browser.picture("map-orders");
    browser.go("health");
    browser.until("document.querySelectorAll('#health .card').length > 5");
    browser.picture("health");
    browser.shape(1280, 800, "dark");
    for (name, place) in [
        ("health-dark", "health"),
        ("map-dark", "map"),
        ("keys-dark", "keys?key=pictures%2F048.png"),
        ("changes-dark", "changes"),
    ] {
        browser.go(place);
        browser.picture(name);
    }
    browser.shape(420, 800, "light");
    browser.go("keys?key=users%2Fada&filter=a");
    browser.picture("narrow");
    browser.shape(1280, 800, "light");
}

#[test]
fn markup_stays_text() {
    let store = Store::in_memory().unwrap();
    let markup = "<img src=x onerror='window.hit = 2'>";
    store.set_bytes(SCRIPT, markup).unwrap();
    let json = format!("{{\"{markup}\": [12345678901234567890123, \"{markup}\", {{}}]}}");
    store.batch().set_encoded(markup, Codec::Json, json, None).unwrap().commit().unwrap();
    let server = View::new(&store).serve().unwrap();
    let mut browser = Browser::start(&server.address().unwrap());
    browser.until_keys(&[markup, SCRIPT]);
    browser.press("/");
    browser.until("document.activeElement.id === 'filter'");
    browser.eval("list.focus(); true");
    browser.press("ArrowDown");
    browser.until("document.querySelector('#value .title')?.textContent.startsWith('<img')");
    browser
        .until("document.querySelector('.tree')?.textContent.includes('12345678901234567890123')");
    browser.press("End");
    browser.until("document.querySelector('#value .title')?.textContent.startsWith('<script')");
    browser.until("document.querySelector('#body pre')?.textContent.startsWith('<img')");
    browser.go("map");
    browser.until("document.querySelectorAll('.tile').length > 0");
    assert_eq!(
        browser.eval("[typeof window.hit, document.images.length, document.scripts.length]"),
        json!(["undefined", 0, 1])
    );
    // The policy refuses markup and scripts, even to the page itself.
    let inject = "try { document.body.innerHTML = '<b>'; 'set' } catch { 'refused' }";
    assert_eq!(browser.eval(inject), "refused");
    browser.eval(
        "const s = document.createElement('style'); s.textContent = 'body { opacity: 0 }'; \
         document.head.append(s); true",
    );
    assert_eq!(browser.eval("getComputedStyle(document.body).opacity"), "1");
    browser.eval("fetch('http://127.0.0.1:9/').catch(() => 0)");
    let refused: Vec<String> = browser.messages.drain(..).collect();
    assert!(refused.iter().any(|message| message.contains("connect-src")), "{refused:?}");
    browser.requests.retain(|request| request != "http://127.0.0.1:9/");
    browser.finish(&server);
}

#[test]
fn a_table_is_chosen() {
    let store = Store::in_memory().unwrap();
    store.set("plain", "value").unwrap();
    let visits = store.table::<(String, u32), String>("visits").unwrap();
    visits.set(("home", 7), &"Ada".into()).unwrap();
    visits.set(("shop", 1), &"Bo".into()).unwrap();
    let server = View::new(&store).serve().unwrap();
    let mut browser = Browser::start(&server.address().unwrap());
    browser.until_keys(&["plain"]);
    browser.eval("table.value = 'visits'; table.dispatchEvent(new Event('change')); true");
    browser.until_keys(&[r#"["home",7]"#, r#"["shop",1]"#]);
    browser.until("found.textContent === '2 keys · (string, u32)'");
    browser.eval("document.querySelectorAll('.row')[1].click(); true");
    browser.until("document.querySelector('#body .tree')?.textContent.includes('Bo')");
    // A link leads to the table and the key. A table that is not there is told.
    browser.go("keys?table=visits&key=%5B%22home%22%2C7%5D");
    browser.until("document.querySelector('#body .tree')?.textContent.includes('Ada')");
    browser.go("keys?table=orders");
    browser.until("found.textContent.startsWith('there is no such table')");
    // The browser reports the refusal, and nothing else.
    let refused: Vec<String> = browser.messages.drain(..).collect();
    assert!(matches!(&refused[..], [one] if one.contains("list?table=orders")), "{refused:?}");
    browser.eval("table.value = ''; table.dispatchEvent(new Event('change')); true");
    browser.until_keys(&["plain"]);
    browser.finish(&server);
}

#[test]
fn a_million_keys_scroll() {
    let store = Store::in_memory().unwrap();
    for part in 0..100 {
        let mut batch = store.batch();
        for number in 0..10_000 {
            batch.set_bytes(format!("key/{:07}", part * 10_000 + number), b"value").unwrap();
        }
        batch.commit().unwrap();
    }
    let server = View::new(&store).serve().unwrap();
    let mut browser = Browser::start(&server.address().unwrap());
    let has = |key: &str| {
        format!(
            "[...document.querySelectorAll('.row .key')].some((k) => k.textContent === '{key}')"
        )
    };
    browser.until(&has("key/0000000"));
    browser.eval("list.focus(); true");
    browser.press("End");
    browser.until(&has("key/0999999"));
    browser.until("document.querySelector('#value .title')?.textContent === 'key/0999999'");
    // Half of the way, by the bar of the browser.
    browser.eval("list.scrollTop = (list.scrollHeight - list.clientHeight) / 2; true");
    browser.until(&has("key/0500000"));
    // By the wheel, each row can be reached.
    let wheel =
        "list.dispatchEvent(new WheelEvent('wheel', { deltaY: 30, cancelable: true })); true";
    let first = "Math.min(...[...document.querySelectorAll('.row')].map((r) => r.ariaPosInSet))";
    let before = browser.eval(first).as_u64().unwrap();
    browser.eval(wheel);
    assert_eq!(browser.eval(first), before + 1);
    // A link leads to a key in the middle, with those around it.
    browser.go("keys?key=key%2F0765432&prefix=key");
    browser.until(&has("key/0765432"));
    browser.until(&has("key/0765433"));
    browser.until(
        "document.querySelector('.row[aria-selected=true] .key')?.textContent === 'key/0765432'",
    );
    let rows = browser.eval("document.querySelectorAll('.row').length").as_u64().unwrap();
    assert!(rows < 60, "{rows} rows in the page");
    browser.picture("million");
    browser.finish(&server);
}
