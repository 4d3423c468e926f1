//! Most of the API on one page: `cargo run --example quickstart`.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use codex_core::{Readable, Store};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct City {
    name: String,
    people: u64,
    twin: Option<String>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let store = Store::open(folder.path().join("cities.db"))?;

    // One value, which is on disk when `set` returns.
    let bern = City { name: "Bern".into(), people: 137_000, twin: None };
    store.set("city/bern", &bern)?;
    assert_eq!(store.get("city/bern")?, Some(bern));

    // Several changes as one commit.
    let mut batch = store.batch();
    batch.set("city/oslo", &City { name: "Oslo".into(), people: 724_000, twin: None })?;
    batch.set("city/riga", &City { name: "Riga".into(), people: 605_000, twin: None })?;
    println!("three cities, at commit {}", batch.commit()?);

    // Read, change and write: an update never loses a write of another thread.
    store.update("city/oslo", |city: Option<City>| {
        city.map(|city| City { twin: Some("Bern".into()), ..city })
    })?;

    // The current state of the store, which later writes do not change.
    let before = store.snapshot();
    store.remove("city/riga")?;
    println!("{} people before, {} after", people(&before)?, people(&store)?);

    // In key order, from either end.
    if let Some(last) = store.prefix("city/").next_back() {
        println!("last by key: {}", last.value::<City>()?.name);
    }

    // Set the value only if there is none.
    let won = store.compare_exchange("leader", None, Some("oslo"))?;
    println!("leader set: {won}");

    println!("{} cities removed", store.remove_prefix("city/")?);
    store.close()?;
    Ok(())
}

/// Accepts a store or a snapshot.
fn people(source: &impl Readable) -> codex_core::Result<u64> {
    source.prefix("city/").map(|entry| Ok(entry.value::<City>()?.people)).sum()
}
