//! The limits: the disk without a store, and structures in memory without a disk.

mod disk;
mod maps;

use std::sync::RwLock;

use codex_bench::report::Group;

use crate::engine::{Kind, Promise};
pub(crate) use maps::Bare;

pub(crate) const KINDS: [Kind; 5] = [
    Kind {
        name: RAW,
        package: "",
        group: Group::Limit,
        promises: &[Promise::Sync, Promise::Os],
        weaker: &[],
        settings: "a write in place into allocated space under a mutex; fdatasync / none",
        open: disk::open_raw,
    },
    Kind {
        name: GROUPED,
        package: "",
        group: Group::Limit,
        promises: &[Promise::Sync],
        weaker: &[],
        settings: "the same with one write and one fdatasync for all that are queued: a queue, a \
                   leader, park and unpark",
        open: disk::open_grouped,
    },
    Kind {
        name: "RwLock<HashMap>",
        package: "",
        group: Group::Limit,
        promises: &[Promise::Memory],
        weaker: &[],
        settings: "hashbrown::HashMap<Vec<u8>, Vec<u8>>; no order",
        open: |_, _| Ok(Box::new(RwLock::new(maps::Hash::new()))),
    },
    Kind {
        name: TREE,
        package: "",
        group: Group::Limit,
        promises: &[Promise::Memory],
        weaker: &[],
        settings: "BTreeMap<Vec<u8>, Vec<u8>>",
        open: |_, _| Ok(Box::new(RwLock::new(maps::Tree::new()))),
    },
    Kind {
        name: BARE,
        package: "",
        group: Group::Limit,
        promises: &[],
        weaker: &[],
        settings: "HashMap<[u8; 17], Box<[u8]>> without a lock; no writes, no order",
        open: |_, _| Err("is made of its entries".into()),
    },
];

/// The name of the disk alone.
pub(crate) const RAW: &str = "raw file";
/// The name of the disk with one sync for a group of writers.
pub(crate) const GROUPED: &str = "group commit";
/// The name of the ordered map.
pub(crate) const TREE: &str = "RwLock<BTreeMap>";
/// The name of the table that is not written.
pub(crate) const BARE: &str = "hashbrown";
