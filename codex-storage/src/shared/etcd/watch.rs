//! The thread that brings entries before they are asked for.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::answer::{Found, text};
use super::live::{Live, extend};
use super::tail::Kept;
use crate::sync::thread;

/// The reason for which a watch has ended.
#[derive(PartialEq, Eq)]
enum Ended {
    /// It was silent, or its entries are no longer wanted.
    Quietly,
    Broken,
}

impl Live {
    /// Watches the log, again and again from where the known entries end.
    fn watch(&self) {
        while let Some((generation, upto)) = self.tail.next_watch() {
            // A member that is cut off from the others would be silent for ever.
            let ended = match self.head(SILENCE) {
                Ok(_) => self.watch_once(generation, upto),
                Err(error) => {
                    if matches!(&error, crate::Error::Shared(error) if error.is_final()) {
                        self.tail.drop_all();
                    }
                    Ended::Broken
                }
            };
            if ended == Ended::Broken {
                self.tail.set_silent(true);
                self.tail.pause(&|| self.now(), PAUSE);
            }
        }
    }

    fn watch_once(&self, generation: u64, upto: u64) -> Ended {
        let mut range = self.keys.range("log/");
        let from = upto.saturating_add(1).to_string();
        extend(&mut range, json!({"start_revision": from, "fragment": true}));
        let body = json!({"create_request": range});
        let Ok(stream) = self.gateway.stream("/v3/watch", &body, SILENCE) else {
            return Ended::Broken;
        };
        self.tail.set_silent(false);
        let mut lines = BufReader::with_capacity(64 << 10, stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            match lines.by_ref().take(LINE_MAX).read_until(b'\n', &mut line) {
                Ok(0) => return Ended::Broken,
                Ok(_) => {}
                Err(_) => return Ended::Quietly,
            }
            if self.tail.is_closed() {
                return Ended::Quietly;
            }
            let message = serde_json::from_slice::<Value>(&line).unwrap_or_default();
            // A refusal has none.
            let Some(result) = message.get("result") else { return Ended::Broken };
            if result.get("canceled").and_then(Value::as_bool) == Some(true) {
                // What it would have sent may be compacted: the log is read instead.
                self.tail.drop_all();
                return Ended::Broken;
            }
            if !self.take(generation, result) {
                return Ended::Quietly;
            }
        }
    }

    /// Takes the events of a message. Returns false if they are no longer wanted.
    fn take(&self, generation: u64, message: &Value) -> bool {
        let events = message.get("events").and_then(Value::as_array).into_iter().flatten();
        for event in events {
            // Entries are only removed after all nodes have read them.
            if text(event, "type") == "DELETE" {
                continue;
            }
            let Some(kv) = event.get("kv").map(Found) else { continue };
            let Some((position, slot)) = self.keys.entry(kv) else { continue };
            let Some(part) = kv.value() else { continue };
            let entry = Kept { position, slot, part: part.into() };
            if !self.tail.add_watched(generation, entry, self.now()) {
                return false;
            }
        }
        true
    }
}

/// Starts the thread.
pub(super) fn start(live: &Arc<Live>) -> io::Result<()> {
    let live = live.clone();
    thread::spawn("codexdb-watch", move || live.watch()).map(drop)
}

/// The time after which a silent watch begins again, perhaps at another member.
const SILENCE: Duration = Duration::from_secs(3);
/// The pause after a watch has failed.
const PAUSE: Duration = Duration::from_millis(50);
/// The maximum length of a message.
const LINE_MAX: u64 = 64 << 20;
