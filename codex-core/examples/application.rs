//! The stores of an application: users with a unique e-mail address, sessions that expire, an
//! audit ledger with each action of a user, of which a power cut loses and repeats none, and a
//! report beside the application, which another process could make.
#![allow(clippy::disallowed_methods, reason = "a program takes the time from its system")]
#![allow(clippy::print_stdout, reason = "a program that prints")]
use std::path::Path;
use std::time::{Duration, SystemTime};

use codex_core::{Error, Form, Index, Result, Store, Table, TableSpec, Transaction};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct User {
    name: String,
    email: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Action {
    Registered { email: String },
    LoggedIn,
    LoggedOutEverywhere { sessions: u64 },
}

/// The user and the number of an action. A number never comes twice.
type ActionId = (u64, u64);
type Token = [u8; 16];

struct App {
    store: Store,
    users: Table<u64, User>,
    by_email: Index<String, u64, User>,
    /// The user of each session.
    sessions: Table<Token, u64>,
    of_user: Index<u64, Token, u64>,
    /// The actions that the ledger may not have yet.
    outbox: Table<ActionId, Action>,
    /// In the ledger, which keeps each change of it with its time.
    audit: Table<ActionId, Action>,
    ledger: Store,
}

impl App {
    fn open(folder: &Path) -> Result<Self> {
        let store = Store::open(folder.join("app.db"))?;
        let ledger = Store::options().form(Form::Ledger).open(folder.join("audit.db"))?;
        let users = TableSpec::<u64, User>::new("users")
            .unique::<String>("by_email", |user, keys| keys.add(&user.email))
            .open(&store)?;
        let sessions = TableSpec::<Token, u64>::new("sessions")
            .index::<u64>("of_user", |user, keys| keys.add(*user))
            .open(&store)?;
        let app = Self {
            by_email: users.index("by_email")?,
            of_user: sessions.index("of_user")?,
            outbox: store.table("outbox")?,
            audit: ledger.table("actions")?,
            store,
            users,
            sessions,
            ledger,
        };
        // A power cut may have left some.
        app.deliver()?;
        Ok(app)
    }

    /// Returns the id of the new user, or `None` if another one has the address.
    fn register(&self, user: &User) -> Result<Option<u64>> {
        let id = self.store.next_id("user")?;
        let registered = self.act(id, |tx| {
            tx.table(&self.users)?.set(id, user)?;
            Ok(Action::Registered { email: user.email.clone() })
        });
        match registered {
            Err(Error::NotUnique { .. }) => Ok(None),
            made => made.map(|_| Some(id)),
        }
    }

    /// Begins a session of `lifetime`, if there is a user with this address.
    fn log_in(&self, email: &str, token: Token, lifetime: Duration) -> Result<bool> {
        let Some((id, _)) = self.by_email.get(email)? else { return Ok(false) };
        self.act(id, |tx| {
            let expires = SystemTime::now() + lifetime;
            tx.table(&self.sessions)?.set_with_expiry(token, &id, expires)?;
            Ok(Action::LoggedIn)
        })?;
        Ok(true)
    }

    /// Returns the user of a session that has not expired.
    fn user_of(&self, token: Token) -> Result<Option<User>> {
        // Both tables as they were after one commit.
        let now = self.store.snapshot();
        let id = now.table(&self.sessions)?.get(token)?;
        id.map_or(Ok(None), |id| now.table(&self.users)?.get(id))
    }

    /// Ends all sessions of a user. A session that begins at the same time is before or after it.
    fn log_out_everywhere(&self, id: u64) -> Result<Action> {
        self.act(id, |tx| {
            let of_user = tx.index(&self.of_user)?.get_all(id);
            let tokens = of_user.map(|row| Ok(row?.0)).collect::<Result<Vec<Token>>>()?;
            let mut sessions = 0;
            for token in tokens {
                sessions += u64::from(tx.table(&self.sessions)?.remove(token)?);
            }
            Ok(Action::LoggedOutEverywhere { sessions })
        })
    }

    /// Makes the changes of an action, and puts it into the outbox, in one commit.
    fn act(
        &self,
        user: u64,
        change: impl Fn(&mut Transaction) -> Result<Action>,
    ) -> Result<Action> {
        let number = self.store.next_id("action")?;
        let action = self.store.transaction(|tx| {
            let action = change(tx)?;
            tx.table(&self.outbox)?.set((user, number), &action)?;
            Ok(action)
        })?;
        self.deliver()?;
        Ok(action)
    }

    /// Moves the actions of the outbox into the ledger. Another thread may do so too.
    fn deliver(&self) -> Result<()> {
        for row in &self.outbox {
            let (id, action) = row?;
            // The ledger has it already if a power cut came before the removal.
            self.audit.compare_exchange(id, None, Some(&action))?;
            self.outbox.remove(id)?;
        }
        Ok(())
    }

    fn actions_of(&self, user: u64) -> Result<Vec<Action>> {
        self.audit.prefix((user,)).map(|row| Ok(row?.1)).collect()
    }
}

/// Reads the ledger beside the application, which goes on writing.
struct Report {
    ledger: Store,
    audit: Table<ActionId, Action>,
}

impl Report {
    fn open(folder: &Path) -> Result<Self> {
        let ledger = Store::options().follow(true).open(folder.join("audit.db"))?;
        Ok(Self { audit: ledger.table("actions")?, ledger })
    }

    /// Returns the number of actions that were acknowledged before the call.
    fn actions(&self) -> Result<usize> {
        self.ledger.refresh()?;
        self.audit.len()
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let app = App::open(folder.path())?;
    let user = |name: &str| User { name: name.into(), email: "ada@example.org".into() };
    let ada = app.register(&user("Ada"))?.expect("the address is new");
    assert_eq!(app.register(&user("Eve"))?, None);

    let hour = Duration::from_secs(3_600);
    let report = Report::open(folder.path())?;
    assert_eq!(report.actions()?, 1);
    assert!(app.log_in("ada@example.org", [1; 16], hour)?);
    assert!(app.log_in("ada@example.org", [2; 16], hour)?);
    assert_eq!(report.actions()?, 3);
    assert!(!app.log_in("eve@example.org", [3; 16], hour)?);
    // A session without a lifetime has expired at once.
    assert!(app.log_in("ada@example.org", [4; 16], Duration::ZERO)?);
    assert_eq!((app.user_of([1; 16])?, app.user_of([4; 16])?), (Some(user("Ada")), None));
    let before = app.ledger.snapshot().seq();
    assert_eq!(app.log_out_everywhere(ada)?, Action::LoggedOutEverywhere { sessions: 2 });
    assert_eq!(app.user_of([1; 16])?, None);

    // A power cut after the delivery and before the removal: the action is delivered twice.
    let (again, registered) = app.audit.first()?.expect("the registration");
    app.outbox.set(again, &registered)?;
    for store in [app.store, app.ledger] {
        store.close()?;
    }

    let app = App::open(folder.path())?;
    assert!(app.outbox.is_empty()? && app.users.verify_indexes()?.is_ok());
    let mut actions = vec![Action::Registered { email: "ada@example.org".into() }];
    actions.extend([const { Action::LoggedIn }; 3]);
    actions.push(Action::LoggedOutEverywhere { sessions: 2 });
    assert_eq!(app.actions_of(ada)?, actions);
    // Nothing was written over, and the state before each action can still be read.
    let revisions = app.audit.history(again)?.collect::<Result<Vec<_>>>()?;
    assert_eq!(revisions.len(), 1);
    for revision in revisions {
        println!("{registered:?} at {:?}", revision.time());
    }
    assert_eq!(app.ledger.as_of(before)?.table(&app.audit)?.len()?, 4);
    Ok(())
}
