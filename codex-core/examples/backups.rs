//! Backups from the first to a restore, in a folder of its own: `cargo run --example backups`.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::ops::ControlFlow;

use codex_core::{BackupEvent, BackupPolicy, Backups, Store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("app.db");

    // A backup after every hundred commits. The last three are kept, and a function is called for
    // each.
    let options = Store::options().backups(BackupPolicy::keep(3).every_commits(100));
    let store = options.on_backup(|event| match event {
        BackupEvent::Made { seq } => println!("a backup of commit {seq} was made"),
        BackupEvent::Failed { error } => println!("no backup was made: {error}"),
        _ => {}
    });
    let store = store.open(&path)?;
    for day in 0..250_u64 {
        store.set(format!("day/{day}"), &day)?;
    }
    store.back_up()?; // now, whatever the policy

    // A copy at another place, beside readers and writers. `Break` would stop it.
    let copied = store.backup_to_watched(folder.path().join("copy.db"), &mut |progress| {
        println!("copy: {:?}, {} of {}", progress.phase, progress.done, progress.total);
        ControlFlow::Continue(())
    })?;
    println!("copied up to commit {copied}");

    // After a mistake: close the store, then check the newest backup and put it in place.
    store.clear()?;
    store.close()?;
    drop(store);
    let backups = Backups::of(&path)?;
    for backup in backups.list()? {
        println!("{}: commit {}", backup.path.display(), backup.facts?.seq);
    }
    backups.verify(1)?;
    for (name, kept_as) in backups.restore(1)?.replaced {
        println!("{name} is kept as {kept_as}");
    }
    println!("{} days are back", Store::open(&path)?.len());
    Ok(())
}
