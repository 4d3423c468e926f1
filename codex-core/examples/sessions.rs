//! Sessions of a web server: they expire, each use extends them, and expired ones are removed.
use codex_core::{Durability, Result, Store};
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Serialize, Deserialize)]
struct Session {
    user: String,
    expires: u64,
}

/// The lifetime of a session after its last use, in seconds.
const LIFETIME: u64 = 3_600;

#[derive(Clone)]
struct Sessions(Store);

impl Sessions {
    fn begin(&self, token: &str, user: &str, now: u64) -> Result<()> {
        self.0.set(key(token), &Session { user: user.into(), expires: now + LIFETIME })
    }

    /// Returns the user of a session that has not expired, and extends the session. An expired one
    /// is removed.
    fn touch(&self, token: &str, now: u64) -> Result<Option<String>> {
        let session = self.0.update(key(token), |session: Option<Session>| {
            let session = session.filter(|session| session.expires > now)?;
            Some(Session { expires: now + LIFETIME, ..session })
        })?;
        Ok(session.map(|session| session.user))
    }

    fn end(&self, token: &str) -> Result<bool> {
        self.0.remove(key(token))
    }

    /// Removes the expired sessions. A session that is extended in the meantime stays.
    fn sweep(&self, now: u64) -> Result<()> {
        for entry in self.0.prefix("session/") {
            if entry.value::<Session>()?.expires <= now {
                self.0.update(entry.key(), |session: Option<Session>| {
                    session.filter(|session| session.expires > now)
                })?;
            }
        }
        Ok(())
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
    let sessions = Sessions(store);
    for token in ["a", "b", "c"] {
        sessions.begin(token, "ada", 0)?;
    }
    assert_eq!(sessions.touch("a", 3_000)?.as_deref(), Some("ada"));
    assert_eq!(sessions.touch("b", 3_600)?, None);
    assert!(sessions.end("c")?);

    // One thread sweeps while others use the session that is still alive.
    std::thread::scope(|scope| {
        let sweep = scope.spawn(|| sessions.sweep(6_000));
        let touch = scope.spawn(|| sessions.touch("a", 6_001));
        assert!(matches!(touch.join(), Ok(Ok(Some(user))) if user == "ada"));
        assert!(matches!(sweep.join(), Ok(Ok(()))));
    });
    assert_eq!(sessions.0.len(), 1);
    sessions.sweep(9_601)?;
    assert!(sessions.0.is_empty());
    Ok(())
}
