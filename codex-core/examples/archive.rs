//! A store that is sent to another disk while it is open, and comes back as it was at any commit:
//! `cargo run --example archive --features remote`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example shows what it does")]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use codex_core::remote::Folder;
use codex_core::{Archive, ArchiveEvent, Backups, Store};

fn main() -> Result<(), Box<dyn Error>> {
    let (laptop, other_disk) = (tempfile::tempdir()?, tempfile::tempdir()?);
    // With the feature `s3`: `S3Options::new("https://..", "my-backups").prefix("notes").open()?`.
    let place = Arc::new(Folder::open(other_disk.path())?);
    let archive = Archive::to(place.clone())
        .plain_objects(true) // not needed with a key
        .every(Duration::from_secs(5))
        .keep(3)
        .keep_for(Duration::from_secs(30 * 24 * 60 * 60))
        .on_event(|event| {
            if let ArchiveEvent::Failed { error } = event {
                eprintln!("the archive is behind: {error}");
            }
        });
    let path = laptop.path().join("notes.db");
    let store = Store::options().archive(archive).open(&path)?;
    store.set("milk", "2 litres")?;
    store.set("bread", "1 loaf")?;
    let good = store.stats().storage.seq;
    store.clear()?; // a mistake
    println!("{}", store.stats());
    store.close()?; // sends the rest
    drop(store);

    // The laptop is lost with its disk.
    laptop.close()?;

    let desktop = tempfile::tempdir()?;
    let path = desktop.path().join("notes.db");
    let backups = Backups::of(&path)?;
    let remote = backups.remote(place);
    backups.restore_archive(&remote, None)?;
    assert!(Store::open(&path)?.is_empty());
    // Before the mistake. The store that it replaces is kept beside it.
    for (_, kept) in backups.restore_archive(&remote, Some(good.into()))?.replaced {
        println!("kept as {kept}");
    }
    assert_eq!(Store::open(&path)?.get::<String>("milk")?.as_deref(), Some("2 litres"));
    Ok(())
}
