//! Sessions of a web server: they expire, and each use extends them.
#![allow(clippy::disallowed_methods, reason = "a program takes the time from its system")]
use codex_core::{Durability, Result, Store};
use std::time::{Duration, SystemTime};

#[derive(Clone)]
struct Sessions {
    store: Store,
    /// The lifetime of a session after its last use.
    lifetime: Duration,
}

impl Sessions {
    fn begin(&self, token: &str, user: &str) -> Result<()> {
        self.store.set_with_expiry(key(token), user, SystemTime::now() + self.lifetime)
    }

    /// Returns the user of a session that has not expired, and extends the session.
    fn touch(&self, token: &str) -> Result<Option<String>> {
        let is_alive = self.store.expire_at(key(token), SystemTime::now() + self.lifetime)?;
        if is_alive { self.store.get(key(token)) } else { Ok(None) }
    }

    /// Returns true if the session had not expired.
    fn end(&self, token: &str) -> Result<bool> {
        self.store.remove(key(token))
    }

    fn count(&self) -> usize {
        self.store.prefix("session/").count()
    }
}

fn key(token: &str) -> String {
    format!("session/{token}")
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    // A power cut may end the sessions of the last second, and no request waits for the disk.
    let durability = Durability::Interval(Duration::from_secs(1));
    let store = Store::options().durability(durability).open(folder.path().join("sessions.db"))?;
    let sessions = Sessions { store, lifetime: Duration::from_secs(3_600) };
    for token in ["a", "b"] {
        sessions.begin(token, "ada")?;
    }
    assert_eq!(sessions.touch("a")?.as_deref(), Some("ada"));
    assert!(sessions.end("b")? && !sessions.end("b")?);

    // A session without a lifetime has expired at once. A background thread removes it later.
    let short = Sessions { lifetime: Duration::ZERO, ..sessions.clone() };
    short.begin("c", "bob")?;
    assert_eq!(sessions.touch("c")?, None);
    assert_eq!(sessions.count(), 1);
    Ok(())
}
