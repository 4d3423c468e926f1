//! Complete small programs, to be copied and changed.
//!
//! Each is a file in the folder `examples` of this crate: `cargo run --example jobs` runs one in a
//! folder of its own, and it ends after it has checked its results. All are correct if several
//! threads call them. A [`get`](crate::Store::get) followed by a [`set`](crate::Store::set) would
//! not be, because it loses the write of another thread in between. Three means suffice:
//!
//! - [`update`](crate::Store::update) and
//!   [`compare_exchange`](crate::Store::compare_exchange), for a write that depends on the value of
//!   one key.
//! - A [`batch`](crate::Store::batch), for several keys that change together.
//! - A [`transaction`](crate::Store::transaction), if the changes depend on several keys.
//!
//! # A first tour
//!
//! Most of the methods on one page: `examples/quickstart.rs`.
//!
//! ```
#![doc = include_str!("../../examples/quickstart.rs")]
//! ```
//!
//! # Sessions
//!
//! A session is an entry that expires, and each use moves its time. `examples/sessions.rs`:
//!
//! ```
#![doc = include_str!("../../examples/sessions.rs")]
//! ```
//!
//! # A job queue
//!
//! A job is leased by `compare_exchange`, so one worker gets it, and it is removed when it is done.
//! Removing it when it is taken would lose the job of a worker that dies. `examples/jobs.rs`:
//!
//! ```
#![doc = include_str!("../../examples/jobs.rs")]
//! ```
//!
//! # A server with async handlers
//!
//! An [`AsyncStore`](crate::AsyncStore) is the handle for tasks: a thread that polls them never
//! waits for the disk. The handlers are async functions over it, as those of axum.
//! `examples/server.rs`:
//!
//! ```
#![doc = include_str!("../../examples/server.rs")]
//! ```
//!
//! # Typed tables
//!
//! A [`Table`](crate::Table) has keys of one type, in the order of that type, and values of
//! another.
//! `examples/tables.rs`:
//!
//! ```
#![doc = include_str!("../../examples/tables.rs")]
//! ```
//!
//! # A secondary index
//!
//! The index is a second key in the same transaction. A snapshot reads index and values of one
//! moment.
//! `examples/contacts.rs`:
//!
//! ```
#![doc = include_str!("../../examples/contacts.rs")]
//! ```
//!
//! # An index in memory
//!
//! A [watch](crate::Store::watch) returns the commits that change keys with a prefix, so a thread
//! can keep a cache or an index up to date. `examples/words.rs`:
//!
//! ```
#![doc = include_str!("../../examples/words.rs")]
//! ```
//!
//! # A time series
//!
//! The key is the name of the sensor and the time. [Keys](super::keys) describes how such keys are
//! made. `examples/series.rs`:
//!
//! ```
#![doc = include_str!("../../examples/series.rs")]
//! ```
//!
#![cfg_attr(
    feature = "json",
    doc = "
# Settings whose schema changes

JSON names the fields, so the attributes of serde describe each change. [Codecs](super::codecs)
shows the same with bincode, by one variant for each version. `examples/settings.rs`:

```"
)]
#![cfg_attr(feature = "json", doc = include_str!("../../examples/settings.rs"))]
#![cfg_attr(feature = "json", doc = "```")]
//!
//! # An event log, and a return to an earlier point
//!
//! The form `Ledger` keeps every commit. [`Store::history`](crate::Store::history) returns the
//! values that a key had, [`as_of`](crate::Store::as_of) an earlier state, and
//! [`changes`](crate::Store::changes) the commits after one.
//! [`watch_from`](crate::Store::watch_from) continues with the later ones, so that a reader which
//! remembers its last commit misses none.
//! [`Backups::restore_until`](crate::Backups::restore_until) returns to a commit or to a time.
//! `examples/events.rs`:
//!
//! ```
#![doc = include_str!("../../examples/events.rs")]
//! ```
//!
//! # Backups
//!
//! From the first backup to a restore: `examples/backups.rs`.
//!
//! ```
#![doc = include_str!("../../examples/backups.rs")]
//! ```
//!
//! Outside of the machine, all the time, with the feature `remote`: `examples/archive.rs`.
//!
#![cfg_attr(feature = "remote", doc = "```")]
#![cfg_attr(not(feature = "remote"), doc = "```ignore")]
#![doc = include_str!("../../examples/archive.rs")]
//! ```
//!
#![cfg_attr(
    feature = "fault",
    doc = r#"
# Tests on the simulated disk

[`Store::in_memory`](crate::Store::in_memory) is enough for most tests of a program. With the
feature `fault`, a test can also run the program on a disk that loses power at each of its calls,
and look at every state in which the disk can be afterwards. In `Cargo.toml`:

```toml
[dev-dependencies]
codex-core = { version = "0.1", features = ["fault"] }
```

The test below finds out if a transfer can lose money. With two calls of `store.set` in place of
the transaction, it fails.

```
use codex_core::vfs::fault::{CrashChoice, FaultDir, Survivors, each_power_cut};
use codex_core::{Result, Store};

fn transfer(store: &Store, cents: i64) -> Result<()> {
    store.transaction(|tx| {
        let (from, to) = (tx.get("ada")?.unwrap_or(0_i64), tx.get("bob")?.unwrap_or(0_i64));
        tx.set("ada", &(from - cents))?;
        tx.set("bob", &(to + cents))
    })
}

fn open(disk: &FaultDir) -> Result<Store> {
    Store::options().open_in(&disk.vfs(1), "bank.db")
}

// A disk with a store on it.
let disk = FaultDir::new();
let store = open(&disk)?;
store.set("ada", &100_i64)?;
store.close()?;
drop(store);
let disk = disk.reboot(Survivors::Everything);

// Open, transfer and close, with the power cut at each call.
let act = |disk: &FaultDir| -> Result<()> {
    let store = open(disk)?;
    transfer(&store, 30)?;
    store.close()
};
let choice = CrashChoice { samples: 4, ..CrashChoice::default() };
let images = each_power_cut(&disk, &choice, act, |mishap, image, result| {
    let store = open(image).expect("a store opens after each power cut");
    let ada: i64 = store.get("ada").expect("it decodes").expect("it was there before");
    let bob: i64 = store.get("bob").expect("it decodes").unwrap_or(0);
    assert_eq!(ada + bob, 100, "{mishap}");
    assert!(bob == 30 || result.is_err(), "acknowledged and lost: {mishap}");
});
assert!(images > 10);
# Ok::<(), codex_core::Error>(())
```"#
)]
