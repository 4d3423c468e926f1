//! The rows of the report.

use std::path::PathBuf;

use codex_bench::Outcome;
use codex_bench::report::{Cell, Group};
use codex_bench::run::RunFolder;

use crate::data::{self, KEY_BYTES, VALUE_BYTES};
use crate::engine::{Engine, Kind, Promise};
use crate::limits::{BARE, Bare, GROUPED, RAW, TREE};
use crate::turns::{Case, Plan, Subject, Worker, measure};
use crate::ycsb::{self, MIXES, RECORD_BYTES, Zipf};
use crate::{copies, growth, reads, whole};

/// A row: a name, texts for the report, and the function that measures it.
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) about: &'static str,
    /// The stores that the row has no use for.
    without: &'static [&'static str],
    pub(crate) promise: Promise,
    /// Whether the structures in memory take part, whatever the promise.
    memory: bool,
    pub(crate) run: fn(&mut Context) -> Outcome<Vec<Cell>>,
}

/// The rows, in the order of the report.
pub(crate) const ROWS: [Spec; 15] = [
    Spec {
        name: "sets-sync",
        title: "Durable sets",
        about: "Sets a second (99th percentile of a call) at `Durability::Sync` or its like, \
                by the number of writers: random keys of 10,000, 17 bytes, values of 100 \
                bytes.",
        without: &[],
        promise: Promise::Sync,
        memory: false,
        run: sets,
    },
    Spec {
        name: "sets-interval",
        title: "Sets that are synced within 100 ms",
        about: "The same at `Durability::Interval(100 ms)`. No other store here has the \
                like; sled's is weaker.",
        without: &[],
        promise: Promise::Interval,
        memory: false,
        run: sets,
    },
    Spec {
        name: "sets-os",
        title: "Sets that the operating system keeps",
        about: "The same at `Durability::Os`: no sync.",
        without: &[],
        promise: Promise::Os,
        memory: false,
        run: sets,
    },
    Spec {
        name: "sets-memory",
        title: "Sets in memory",
        about: "The same without a file.",
        without: &[],
        promise: Promise::Memory,
        memory: false,
        run: sets,
    },
    Spec {
        name: "batches-sync",
        title: "Durable batches of 100",
        about: "Entries a second (99th percentile of a batch), in batches of 100 entries.",
        without: &[SNAPSHOT],
        promise: Promise::Sync,
        memory: false,
        run: batches,
    },
    Spec {
        name: "batches-os",
        title: "Batches of 100 that the operating system keeps",
        about: "The same without a sync.",
        without: &[],
        promise: Promise::Os,
        memory: false,
        run: batches,
    },
    Spec {
        name: "values",
        title: "Sets by size of the value",
        about: "Sets a second (99th percentile) by 1 writer, 256 keys, without a sync.",
        without: &[LEDGER],
        promise: Promise::Os,
        memory: false,
        run: values,
    },
    Spec {
        name: "values-sync",
        title: "Durable sets by size of the value",
        about: "The same with a sync.",
        without: &[LEDGER, SNAPSHOT],
        promise: Promise::Sync,
        memory: false,
        run: values,
    },
    Spec {
        name: "gets",
        title: "Gets of 10,000 keys",
        about: "Time of a get of a random key on each of the threads. The first byte of the \
                value is read.",
        without: READ_ALIKE,
        promise: Promise::Os,
        memory: true,
        run: reads::small,
    },
    Spec {
        name: "reads-1m",
        title: "Gets and scans of 1 M entries",
        about: "Time of a get as before. Time of an entry in a scan of all; of a scan of 50 \
                entries from a random key; of a scan of all 15 or so entries with a prefix.",
        without: READ_ALIKE,
        promise: Promise::Os,
        memory: true,
        run: reads::large,
    },
    Spec {
        name: "whole",
        title: "Loading, opening, memory and files of 1 M entries",
        about: "In a process of its own for each: the time to load 1 M entries in batches of \
                1,000 and to sync them at the end, and to open the store with its files in \
                the page cache. As multiples of the stored bytes (117 an entry): resident \
                memory after the load, and after the opening and a scan of all, with mapped \
                files; size of the files; bytes written for the load.",
        without: &[RAW, GROUPED, BARE],
        promise: Promise::Os,
        memory: true,
        run: whole::row,
    },
    Spec {
        name: "growth",
        title: "Growth from 10,000 to 5 M entries",
        about: "In a process of its own for each: time of a get and of a set at `Os` of a \
                random key by 1 thread, of an entry in a scan of up to 1 M; resident memory as a \
                multiple of the stored bytes; time of an opening and of a checkpoint. Sizes \
                after one that took another store more than 8 s are left out.",
        without: &[
            ENCRYPTED,
            LEDGER,
            SNAPSHOT,
            "fjall",
            "redb",
            "sled",
            "SQLite",
            "SurrealKV",
            RAW,
            GROUPED,
            TREE,
            BARE,
        ],
        promise: Promise::Os,
        memory: true,
        run: growth::row,
    },
    Spec {
        name: "copies",
        title: "Checkpoints and hot backups of 1 M entries",
        about: "While nobody writes: the time, beside that of writing and syncing a file of as \
                many bytes. A backup is also read back and checked. Beside 8 writers at `Sync`: \
                the 99th percentile of their sets, alone and while one checkpoint or backup \
                follows another for a second.",
        without: OTHERS,
        promise: Promise::Sync,
        memory: false,
        run: copies::row,
    },
    Spec {
        name: "ycsb-sync",
        title: "YCSB at `Sync`",
        about: "Operations a second (99th percentile) by 8 threads on records of 1,000 \
                bytes, zipfian. A half reads and half updates; B 95% reads; C reads; D reads \
                of the latest and 5% inserts; E scans of up to 100 and 5% inserts; F half \
                reads, half reads with a write after.",
        without: &[LEDGER, SNAPSHOT, RAW, GROUPED],
        promise: Promise::Sync,
        memory: false,
        run: mixes,
    },
    Spec {
        name: "ycsb-os",
        title: "YCSB at `Os`",
        about: "The same without syncs.",
        without: &[LEDGER, SNAPSHOT, RAW, GROUPED],
        promise: Promise::Os,
        memory: false,
        run: mixes,
    },
];

impl Spec {
    /// Returns true if a store takes part in the row.
    pub(crate) fn takes(&self, kind: &Kind) -> bool {
        let memory = self.memory && kind.group == Group::Limit;
        (kind.promises.contains(&self.promise) || memory) && !self.without.contains(&kind.name)
    }

    /// Returns the group of a store in this row. Reads and synced loads need no promise.
    pub(crate) fn group(&self, kind: &Kind) -> Group {
        let is_weaker = !self.memory && kind.weaker.contains(&self.promise);
        if is_weaker { Group::Weaker } else { kind.group }
    }
}

const ENCRYPTED: &str = "CodexDB, encrypted";
const LEDGER: &str = "CodexDB, ledger";
const SNAPSHOT: &str = "CodexDB, snapshot";
/// The disk has no reads, and all forms of ours read alike.
const READ_ALIKE: &[&str] = &[LEDGER, SNAPSHOT, ENCRYPTED, RAW, GROUPED];
/// All but ours in the form Wal and the disk alone.
const OTHERS: &[&str] = &[
    ENCRYPTED,
    LEDGER,
    SNAPSHOT,
    "emdb",
    "fjall",
    "LMDB",
    "redb",
    "sled",
    "SQLite",
    "SurrealKV",
    GROUPED,
];

/// The sizes of a run, and the stores of a row.
pub(crate) struct Context {
    pub(crate) plan: Plan,
    pub(crate) entries: u64,
    pub(crate) records: u64,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) promise: Promise,
    pub(crate) folder: RunFolder,
}

impl Context {
    /// Returns an empty directory for a store.
    pub(crate) fn place(&self, kind: &Kind) -> Outcome<PathBuf> {
        let path = self.folder.file(&kind.name.replace(|c: char| !c.is_ascii_alphanumeric(), "-"));
        if path.exists() {
            std::fs::remove_dir_all(&path)?;
        }
        std::fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// Opens all stores that make the promise, with these entries in them. A limit in memory takes
    /// part in each row that it can.
    pub(crate) fn open(&self, entries: u64, value_bytes: usize) -> Outcome<Vec<Subject>> {
        let mut subjects = Vec::new();
        for kind in &self.kinds {
            let engine = if kind.name == BARE {
                let all = (0..entries).map(|n| (data::key(n).to_vec(), data::value(value_bytes)));
                Box::new(Bare::of(all)?) as Box<dyn Engine>
            } else {
                let promise = match kind.promises {
                    [Promise::Memory] => Promise::Memory,
                    _ => self.promise,
                };
                let engine = (kind.open)(&self.place(kind)?, promise)?;
                data::fill(&*engine, entries, value_bytes)?;
                engine
            };
            subjects.push(Subject { name: kind.name, engine });
        }
        Ok(subjects)
    }
}

/// Sets of random keys by 1 to 64 writers.
fn sets(context: &mut Context) -> Outcome<Vec<Cell>> {
    let mut cells = Vec::new();
    for writers in [1, 8, 32, 64] {
        let subjects = context.open(KEYS, VALUE_BYTES)?;
        let case = Case::rate(counted(writers, "writer"), writers);
        cells.extend(measure(&context.plan, &subjects, &case, |engine, worker| {
            let mut value = data::value(VALUE_BYTES);
            data::change(&mut value, worker.random.next());
            engine.set(&data::key(worker.random.below(KEYS)), &value)
        })?);
    }
    Ok(cells)
}

/// Batches of 100 random keys.
fn batches(context: &mut Context) -> Outcome<Vec<Cell>> {
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let entries = BATCH as f64;
    let mut cells = Vec::new();
    for writers in [1, 8] {
        let subjects = context.open(KEYS, VALUE_BYTES)?;
        let case = Case { entries, ..Case::rate(counted(writers, "writer"), writers) };
        cells.extend(measure(&context.plan, &subjects, &case, |engine, worker| {
            let batch = (0..BATCH).map(|_| {
                let mut value = data::value(VALUE_BYTES);
                data::change(&mut value, worker.random.next());
                (data::key(worker.random.below(KEYS)).to_vec(), value)
            });
            let batch: Vec<_> = batch.collect();
            engine.load(&batch)
        })?);
    }
    Ok(cells)
}

/// Sets of values from 100 bytes to a mebibyte.
fn values(context: &mut Context) -> Outcome<Vec<Cell>> {
    let mut cells = Vec::new();
    for (name, len) in [("100 B", 100), ("10 KiB", 10 << 10), ("1 MiB", 1 << 20)] {
        let subjects = context.open(0, 0)?;
        cells.extend(measure(&context.plan, &subjects, &Case::rate(name, 1), |engine, worker| {
            let mut value = data::value(len);
            data::change(&mut value, worker.random.next());
            engine.set(&data::key(worker.random.below(256)), &value)
        })?);
    }
    Ok(cells)
}

/// The workloads of YCSB, one after another on the same stores.
fn mixes(context: &mut Context) -> Outcome<Vec<Cell>> {
    const THREADS: usize = 8;
    let subjects = context.open(context.records, RECORD_BYTES)?;
    let zipf = Zipf::new(context.records);
    let mut cells = Vec::new();
    for mix in MIXES {
        let call = |engine: &dyn Engine, worker: &mut Worker| {
            ycsb::call(mix, &zipf, context.records, engine, worker)
        };
        cells.extend(measure(&context.plan, &subjects, &Case::rate(mix.name, THREADS), call)?);
    }
    Ok(cells)
}

pub(crate) fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// The number of keys that are set.
const KEYS: u64 = 10_000;
const BATCH: usize = 100;
const _: () = assert!(KEY_BYTES == 17, "the texts of the rows name the length of the keys");
