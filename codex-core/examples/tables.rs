//! Typed tables: users, the table that finds them by e-mail address, and visits by time.
use codex_core::{Result, Store, Table};
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct User {
    name: String,
    email: String,
}

struct App {
    store: Store,
    users: Table<u64, User>,
    emails: Table<String, u64>,
    /// By user and second.
    visits: Table<(u64, i64), String>,
}

impl App {
    fn open(store: Store) -> Result<Self> {
        let (users, emails) = (store.table("users")?, store.table("emails")?);
        let visits = store.table("visits")?;
        Ok(Self { store, users, emails, visits })
    }

    /// Adds a user, unless another one has the address.
    fn add(&self, id: u64, user: &User) -> Result<bool> {
        self.store.transaction(|tx| {
            if tx.table(&self.emails)?.contains_key(&user.email)? {
                return Ok(false);
            }
            tx.table(&self.emails)?.set(&user.email, &id)?;
            tx.table(&self.users)?.set(id, user)?;
            Ok(true)
        })
    }

    fn find(&self, email: &str) -> Result<Option<User>> {
        // Both tables as they were after one commit.
        let now = self.store.snapshot();
        let id = now.table(&self.emails)?.get(email)?;
        id.map_or(Ok(None), |id| now.table(&self.users)?.get(id))
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("app.db");
    let app = App::open(Store::open(&path)?)?;
    let user = |name: &str| User { name: name.into(), email: "ada@example.org".into() };
    assert!(app.add(7, &user("Ada"))? && !app.add(8, &user("Eve"))?);
    assert_eq!(app.find("ada@example.org")?, Some(user("Ada")));

    // The keys come in the order of their type: negative numbers are below the others.
    for (second, page) in [(10, "/notes"), (-5, "/"), (9, "/login")] {
        app.visits.set((7, second), &page.into())?;
    }
    let pages = app.visits.prefix((7,)).map(|row| Ok(row?.1)).collect::<Result<Vec<_>>>()?;
    assert_eq!(pages, ["/", "/login", "/notes"]);
    assert_eq!(app.visits.remove_range(..(7, 10))?, 2);
    app.store.close()?;

    let app = App::open(Store::open(&path)?)?;
    let sizes: Vec<_> = app.store.tables()?.into_iter().map(|t| (t.name, t.len)).collect();
    assert_eq!(sizes, [("emails".into(), 1), ("users".into(), 1), ("visits".into(), 1)]);
    Ok(())
}
