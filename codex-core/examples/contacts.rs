//! A secondary index: contacts by id and by city, and the two always agree.
#![allow(clippy::disallowed_types, reason = "a program has locks of its own")]
use codex_core::{Result, Store};
use serde::{Deserialize, Serialize};
use std::sync::{Mutex, PoisonError};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Contact {
    name: String,
    city: String,
}

struct Contacts {
    store: Store,
    /// Held from the reading of a contact to the commit. One process has the store open for
    /// writing, so this makes the two one transaction. Readers need no lock.
    writing: Mutex<()>,
}

impl Contacts {
    /// Sets or removes a contact, and moves its entry in the index, in one commit.
    fn put(&self, id: &str, contact: Option<&Contact>) -> Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch = self.store.batch();
        if let Some(old) = self.store.get::<Contact>(by_id(id))? {
            batch.remove(by_id(id))?.remove(by_city(&old.city, id))?;
        }
        if let Some(new) = contact {
            batch.set(by_id(id), new)?.set(by_city(&new.city, id), id)?;
        }
        batch.commit().map(drop)
    }

    fn in_city(&self, city: &str) -> Result<Vec<Contact>> {
        // The index and the contacts as they were after one commit.
        let now = self.store.snapshot();
        let entries = now.prefix(by_city(city, ""));
        entries
            .filter_map(|entry| now.get(by_id(&entry.value::<String>().ok()?)).transpose())
            .collect()
    }
}

fn by_id(id: &str) -> String {
    format!("contact/{id}")
}

fn by_city(city: &str, id: &str) -> String {
    format!("city/{city}/{id}")
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let store = Store::open(folder.path().join("contacts.db"))?;
    let contacts = Contacts { store, writing: Mutex::new(()) };
    let contact = |name: &str, city: &str| Contact { name: name.into(), city: city.into() };
    contacts.put("ada", Some(&contact("Ada", "London")))?;
    contacts.put("emmy", Some(&contact("Emmy", "Erlangen")))?;
    contacts.put("emmy", Some(&contact("Emmy", "Göttingen")))?;
    assert_eq!(contacts.in_city("Erlangen")?, []);
    assert_eq!(contacts.in_city("Göttingen")?, [contact("Emmy", "Göttingen")]);

    // Threads that move the same contact leave one entry of it.
    std::thread::scope(|scope| {
        for city in ["Turin", "Ankara", "London", "Paris"] {
            let (contacts, contact) = (&contacts, contact("Ada", city));
            scope.spawn(move || contacts.put("ada", Some(&contact)).expect("the disk is healthy"));
        }
    });
    assert_eq!(contacts.store.prefix("city/").count(), 2);
    contacts.put("ada", None)?;
    contacts.put("emmy", None)?;
    assert!(contacts.store.is_empty());
    Ok(())
}
