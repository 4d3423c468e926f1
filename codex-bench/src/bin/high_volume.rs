//! Volume on every path: many writes with backups, mixed readers and writers, a ledger that is
//! replayed, large records, and a rotation in which every backup is opened and checked.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints")]

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use codex_bench::args::Args;
use codex_bench::numbers::{grouped, rate, ratio, span};
use codex_bench::run::RunFolder;
use codex_bench::{Outcome, crew, program, table};
use codex_core::crypto::Key;
use codex_core::{BackupPolicy, Backups, Form, OpenOptions, Store};
use comfy_table::Table;
use serde::{Deserialize, Serialize};

fn main() -> ExitCode {
    program("high_volume", high_volume)
}

fn high_volume(mut args: Args) -> Outcome {
    let keep = args.flag("--keep", "keep the stores after the run");
    if !args.finish("high_volume: five loads, plain and encrypted; every result is checked")? {
        return Ok(());
    }
    let mut folder = RunFolder::new("high-volume", None)?;
    let heads = ["load", "operations", "seconds", "ops/s", "per sync", "longest hold", "checked"];
    for (title, encrypted) in [("plain", false), ("encrypted", true)] {
        let mut table = table::new(heads);
        let run = Run { folder: folder.file(title), encrypted };
        std::fs::create_dir_all(&run.folder)?;
        run.writes_with_backups(&mut table)?;
        run.mixed(&mut table)?;
        run.ledger(&mut table)?;
        run.large_records(&mut table)?;
        run.rotations(&mut table)?;
        println!("{title}\n{table}");
    }
    folder.done(keep);
    Ok(())
}

/// One run of all loads.
struct Run {
    folder: std::path::PathBuf,
    encrypted: bool,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Reading {
    worker: u32,
    index: u64,
    text: String,
}

impl Reading {
    fn new(worker: usize, index: u64) -> Outcome<Self> {
        Ok(Self { worker: u32::try_from(worker)?, index, text: format!("reading {index}") })
    }
}

impl Run {
    /// 10,000 writes by 10 workers, with a backup every 2,500 commits, of which three are kept.
    fn writes_with_backups(&self, table: &mut Table) -> Outcome {
        let path = self.folder.join("writes.db");
        let store =
            self.options()?.backups(BackupPolicy::keep(3).every_commits(2_500)).open(&path)?;
        let elapsed = crew::each(10, |worker| {
            for index in 0..1_000 {
                store.set(format!("{worker}/{index:04}"), &Reading::new(worker, index)?)?;
            }
            Ok(())
        })?;
        let row = Row::new("10 workers x 1,000 sets, 3 backups", 10_000, elapsed, &store);
        store.back_up()?;
        store.close()?;
        let store = self.options()?.open(&path)?;
        for worker in 0..10 {
            for index in 0..1_000 {
                let found = store.get::<Reading>(format!("{worker}/{index:04}"))?;
                expect(found == Some(Reading::new(worker, index)?), "a set is missing")?;
            }
        }
        row.add(table, &checked(&store, "entries", self.check_backups(&path)?));
        Ok(())
    }

    /// 20 workers with 500 operations each, of which 70% are reads.
    fn mixed(&self, table: &mut Table) -> Outcome {
        let store = self.options()?.open(self.folder.join("mixed.db"))?;
        for index in 0..1_000_u64 {
            store.set(format!("{index:04}"), &index)?;
        }
        let reads = AtomicU64::new(0);
        let elapsed = crew::each(20, |worker| {
            for index in 0..500_u64 {
                let key = format!("{:04}", (index * 37 + worker as u64 * 53) % 1_000);
                if index % 10 < 7 {
                    expect(store.get::<u64>(&key)?.is_some(), "a read found nothing")?;
                    reads.fetch_add(1, Ordering::Relaxed);
                } else {
                    store.update(&key, |value: Option<u64>| value.map(|value| value + 1_000))?;
                }
            }
            Ok(())
        })?;
        let row = Row::new("20 workers x 500, 70% reads", 10_000, elapsed, &store);
        let mut updates = 0;
        for entry in &store {
            updates += entry.value::<u64>()? / 1_000;
        }
        let reads = reads.into_inner();
        expect(reads + updates == 10_000, "an update was lost or counted twice")?;
        row.add(table, &format!("{} reads, {} updates", grouped(reads), grouped(updates)));
        store.close()?;
        Ok(())
    }

    /// 5,000 operations on a ledger by 10 workers, then replayed and compared.
    fn ledger(&self, table: &mut Table) -> Outcome {
        let path = self.folder.join("ledger.db");
        let store = self.options()?.form(Form::Ledger).open(&path)?;
        let elapsed = crew::each(10, |worker| {
            for index in 0..500_u64 {
                let key = format!("{worker}/{:03}", index % 100);
                if index % 5 == 4 {
                    store.remove(key)?;
                } else {
                    store.set(key, &index)?;
                }
            }
            Ok(())
        })?;
        let row = Row::new("ledger, 10 workers x 500", 5_000, elapsed, &store);
        let before = contents(&store);
        let anchor = store.anchor()?;
        store.close()?;
        drop(store);
        let store = self.options()?.anchor(anchor).open(&path)?;
        expect(contents(&store) == before, "the replay differs")?;
        row.add(table, &format!("replay equal, seq {}", grouped(anchor.seq)));
        store.close()?;
        Ok(())
    }

    /// 1,000 records of 10 KiB by 10 workers, with backups on checkpoint.
    fn large_records(&self, table: &mut Table) -> Outcome {
        let path = self.folder.join("large.db");
        let store = self.options()?.backups(BackupPolicy::keep(3).on_checkpoint()).open(&path)?;
        let elapsed = crew::each(10, |worker| {
            for index in 0..100_u64 {
                store.set_bytes(format!("{worker}/{index:03}"), large(worker, index))?;
            }
            Ok(())
        })?;
        let row = Row::new("1,000 records of 10 KiB, backups", 1_000, elapsed, &store);
        store.back_up()?;
        store.close()?;
        let store = self.options()?.open(&path)?;
        for worker in 0..10 {
            for index in 0..100 {
                let found = store.get_bytes(format!("{worker}/{index:03}"));
                expect(
                    found.as_deref() == Some(large(worker, index).as_slice()),
                    "a record differs",
                )?;
            }
        }
        row.add(table, &checked(&store, "records", self.check_backups(&path)?));
        Ok(())
    }

    /// 100 updates, each followed by a rotation, of which five are kept. Each backup is opened and
    /// checked.
    fn rotations(&self, table: &mut Table) -> Outcome {
        let path = self.folder.join("rotations.db");
        let store = self.options()?.backups(BackupPolicy::keep(5)).open(&path)?;
        let start = std::time::Instant::now();
        for index in 1..=100_u64 {
            store.set("counter", &index)?;
            store.back_up()?;
        }
        let row = Row::new("100 updates, 100 rotations of 5", 100, start.elapsed(), &store);
        store.close()?;
        for index in 1..=5_u64 {
            let backup = self.folder.join(format!("rotations.db.bak.{index}"));
            let found = self.options()?.read_only(true).open(&backup)?.get::<u64>("counter")?;
            expect(found == Some(101 - index), "a backup holds another state")?;
        }
        row.add(table, &format!("{} backups opened", self.check_backups(&path)?));
        Ok(())
    }

    fn options(&self) -> Outcome<OpenOptions> {
        let options = Store::options();
        Ok(if self.encrypted { options.key(Key::raw(&[0x42; 32])?) } else { options })
    }

    /// Opens every backup of `path` and reads all of it. Returns their number.
    fn check_backups(&self, path: &Path) -> Outcome<usize> {
        let backups = Backups::of(path)?.list()?;
        for backup in &backups {
            let store = self.options()?.read_only(true).open(&backup.path)?;
            if contents(&store).is_empty() {
                return Err(format!("{} is empty", backup.path.display()).into());
            }
        }
        Ok(backups.len())
    }
}

/// A row of the report. It is made when the load ends, and added when its result is checked.
struct Row {
    cells: [String; 6],
}

impl Row {
    fn new(load: &str, operations: u64, elapsed: Duration, store: &Store) -> Self {
        let stats = store.stats();
        Self {
            cells: [
                load.into(),
                grouped(operations),
                format!("{:.2}", elapsed.as_secs_f64()),
                grouped(rate(operations, elapsed)),
                ratio(stats.commits, stats.storage.groups),
                span(Duration::from_nanos(stats.data_hold_ns_max)),
            ],
        }
    }

    fn add(self, table: &mut Table, checked: &str) {
        let [load, operations, seconds, per_second, per_sync, hold] = self.cells;
        table.add_row([load, operations, seconds, per_second, per_sync, hold, checked.into()]);
    }
}

fn checked(store: &Store, what: &str, backups: usize) -> String {
    format!("{} {what}, {backups} backup(s)", grouped(store.len() as u64))
}

fn contents(store: &Store) -> Vec<(Vec<u8>, Vec<u8>)> {
    store.iter().map(|entry| (entry.key().to_vec(), entry.bytes().to_vec())).collect()
}

fn large(worker: usize, index: u64) -> Vec<u8> {
    let seed = worker as u64 * 1_000 + index;
    (0..10 * 1_024_u64 / 8).flat_map(|at| seed.wrapping_mul(at + 7).to_le_bytes()).collect()
}

fn expect(holds: bool, what: &str) -> Outcome {
    if holds { Ok(()) } else { Err(what.into()) }
}
