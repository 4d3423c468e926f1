//! An event log that keeps its whole history: looking into it, and a return to an earlier point.
#![allow(clippy::print_stdout, reason = "a program that prints")]
use codex_core::{Backups, Form, Readable, RestorePoint, Result, Seq, Store};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
enum Event {
    Deposited { account: String, cents: i64 },
    Withdrawn { account: String, cents: i64 },
}

/// Adds an event, and returns the number of its commit.
fn record(store: &Store, event: &Event) -> Result<Seq> {
    let id = store.next_id("last event")?;
    let mut batch = store.batch();
    batch.set(format!("event/{id:020}"), event)?;
    batch.commit()
}

/// Returns the balance of an account, from all events of a state.
fn balance(store: &impl Readable, of: &str) -> Result<i64> {
    let events = store.prefix("event/").map(|entry| entry.value::<Event>());
    let cents = events.map(|event| match event? {
        Event::Deposited { account, cents } if account == of => Ok(cents),
        Event::Withdrawn { account, cents } if account == of => Ok(-cents),
        _ => Ok(0),
    });
    cents.sum()
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("bank.db");
    let store = Store::options().form(Form::Ledger).open(&path)?;
    std::thread::scope(|scope| {
        for cents in [1_000, 200, 30, 4] {
            let (store, account) = (&store, "ada".to_owned());
            let event = Event::Deposited { account, cents };
            scope.spawn(move || record(store, &event).expect("the disk is healthy"));
        }
    });
    let good = record(&store, &Event::Withdrawn { account: "ada".into(), cents: 34 })?;
    assert_eq!(balance(&store, "ada")?, 1_200);

    // The state after each commit, and the values that a key had, with their times.
    for commit in store.changes(0)? {
        let seq = commit?.seq();
        println!("after commit {seq}: {} cents", balance(&store.as_of(seq)?, "ada")?);
    }
    for revision in store.history("last event")? {
        let revision = revision?;
        println!("{:?}: {:?}", revision.time(), revision.value::<u64>()?);
    }

    // A mistake, and the return to the commit before it. The replaced ledger is kept.
    store.clear()?;
    assert_eq!(balance(&store, "ada")?, 0);
    store.close()?;
    drop(store);
    let restored = Backups::of(&path)?.restore_until(RestorePoint::Seq(good))?;
    assert_eq!(restored.replaced.len(), 1);
    let store = Store::open(&path)?;
    assert_eq!(balance(&store, "ada")?, 1_200);
    Ok(())
}
