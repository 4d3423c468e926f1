//! The rate of durable writes by number of writers, in all three forms, and the rate of the disk
//! alone.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints")]

use std::process::ExitCode;
use std::time::Duration;

use codex_bench::args::Args;
use codex_bench::numbers::{grouped, rate, ratio, span};
use codex_bench::run::RunFolder;
use codex_bench::{Outcome, crew, disk, program, table};
use codex_core::{Form, Store};
use comfy_table::Table;

fn main() -> ExitCode {
    program("scaling", scaling)
}

fn scaling(mut args: Args) -> Outcome {
    let sets: u64 = args.value("--sets", 1_000, "sets by each worker")?;
    let keep = args.flag("--keep", "keep the stores after the run");
    if !args.finish("scaling: 1 to 32 workers writing at once, in all three forms")? {
        return Ok(());
    }
    let mut folder = RunFolder::new("scaling", None)?;
    println!(
        "one thread writing 256 bytes + fdatasync, raw: {} a second\n",
        grouped(disk::sync_rate(folder.path(), Duration::from_secs(1))?)
    );
    let heads =
        ["form", "workers", "sets", "seconds", "sets/s", "vs 1 worker", "per sync", "longest hold"];
    let mut table = table::new(heads);
    for form in [Form::Wal, Form::Ledger, Form::Snapshot] {
        let mut single = None;
        for workers in [1, 2, 4, 8, 16, 32] {
            let path = folder.file(&format!("{form}-{workers}.db"));
            let store = Store::options().create_new(true).form(form).open(path)?;
            let run = Run { label: form.to_string(), workers, sets };
            let per_second = run.measure(&store, single, &mut table)?;
            single = single.or(Some(per_second));
            check(&store, sets * workers as u64)?;
            store.close()?;
        }
    }
    println!("{table}");
    println!("values of 100 bytes under new keys; every set is on disk when it returns.\n");
    let store = Store::options().form(Form::Snapshot).open(folder.file("preloaded.db"))?;
    let mut batch = store.batch();
    for index in 0..PRELOADED {
        batch.set_bytes(format!("preloaded/{index:08}"), VALUE)?;
    }
    batch.commit()?;
    let mut table = table::new(heads);
    let label = format!("snapshot, {} keys before", grouped(PRELOADED));
    let run = Run { label, workers: 32, sets: sets.div_ceil(10) };
    let per_second = run.measure(&store, None, &mut table)?;
    store.close()?;
    println!("{table}");
    println!(
        "the Go program made about 80 sets a second here, on a like machine: {} times as many.",
        ratio(per_second, 80)
    );
    folder.done(keep);
    Ok(())
}

/// Workers that write at the same time, each with its own keys.
struct Run {
    label: String,
    workers: usize,
    sets: u64,
}

impl Run {
    /// Returns the writes per second. Adds them to the table, with their ratio to the rate of a
    /// single worker.
    fn measure(&self, store: &Store, single: Option<u64>, table: &mut Table) -> Outcome<u64> {
        let elapsed = crew::each(self.workers, |worker| {
            for index in 0..self.sets {
                store.set_bytes(format!("worker{worker:02}/{index:08}"), VALUE)?;
            }
            Ok(())
        })?;
        let writes = self.sets * self.workers as u64;
        let per_second = rate(writes, elapsed);
        let stats = store.stats();
        table.add_row([
            self.label.clone(),
            self.workers.to_string(),
            grouped(writes),
            format!("{:.2}", elapsed.as_secs_f64()),
            grouped(per_second),
            single.map_or_else(|| "-".into(), |single| ratio(per_second, single)),
            ratio(stats.commits, stats.storage.groups),
            span(Duration::from_nanos(stats.data_hold_ns_max)),
        ]);
        Ok(per_second)
    }
}

fn check(store: &Store, writes: u64) -> Outcome {
    let found = store.len() as u64;
    if found == writes {
        Ok(())
    } else {
        Err(format!("{found} entries instead of {writes}").into())
    }
}

const PRELOADED: u64 = 10_000;
const VALUE: &[u8] = &[0xAB; 100];
