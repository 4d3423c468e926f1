//! A secondary index: contacts by id and by city, and the two always agree.
use codex_core::{Result, Store};
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Contact {
    name: String,
    city: String,
}

struct Contacts(Store);

impl Contacts {
    /// Sets or removes a contact, and moves its entry in the index.
    fn put(&self, id: &str, contact: Option<&Contact>) -> Result<()> {
        self.0.transaction(|tx| {
            if let Some(old) = tx.take::<Contact>(by_id(id))? {
                tx.remove(by_city(&old.city, id))?;
            }
            if let Some(new) = contact {
                tx.set(by_id(id), new)?;
                tx.set(by_city(&new.city, id), id)?;
            }
            Ok(())
        })
    }

    fn in_city(&self, city: &str) -> Result<Vec<Contact>> {
        // The index and the contacts as they were after one commit.
        let now = self.0.snapshot();
        let ids = now.prefix(by_city(city, "")).values::<String>();
        ids.filter_map(|id| id.and_then(|id| now.get(by_id(&id))).transpose()).collect()
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
    let contacts = Contacts(Store::open(folder.path().join("contacts.db"))?);
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
    assert_eq!(contacts.0.prefix("city/").count(), 2);
    contacts.put("ada", None)?;
    contacts.put("emmy", None)?;
    assert!(contacts.0.is_empty());
    Ok(())
}
