//! The cost of a hot backup for the writers beside it: the latency of durable writes during a
//! backup and without one, alternating in one run.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints")]

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use codex_bench::args::Args;
use codex_bench::numbers::{grouped, quantile, span};
use codex_bench::run::RunFolder;
use codex_bench::{Outcome, crew, program, table};
use codex_core::{Form, Store};

fn main() -> ExitCode {
    program("hot_backup", hot_backup)
}

fn hot_backup(mut args: Args) -> Outcome {
    let entries: u64 = args.value("--entries", 1_000_000, "how many keys the store has")?;
    let writers: usize = args.value("--writers", 8, "how many threads write")?;
    let rounds: u32 = args.value("--rounds", 3, "how often each is measured")?;
    let base: Option<PathBuf> = args.optional("--dir")?;
    if !args.finish("hot_backup: how long writes take beside a hot backup")? {
        return Ok(());
    }
    let mut table =
        table::new(["form", "beside", "writes", "median", "99%", "99.9%", "longest", "backup"]);
    for form in [Form::Wal, Form::Ledger] {
        let mut folder = RunFolder::new("hot-backup", base.clone())?;
        let store = Store::options().form(form).open(folder.file("hot.db"))?;
        fill(&store, entries)?;
        let bench = Bench { store, entries, writers };
        let (mut alone, mut beside) = (Vec::new(), Vec::new());
        let mut took = Vec::new();
        for round in 0..rounds {
            let copy = folder.file(&format!("copy-{round}.db"));
            let (mut writes, lasted) = bench.beside_a_backup(&copy)?;
            beside.append(&mut writes);
            took.push(lasted);
            alone.append(&mut bench.writes_for(lasted)?);
        }
        took.sort_unstable();
        for (what, mut writes, lasted) in
            [("nothing", alone, None), ("a hot backup", beside, quantile(&took, 1, 2))]
        {
            writes.sort_unstable();
            let at = |part, whole| span(quantile(&writes, part, whole).unwrap_or_default());
            table.add_row([
                form.to_string(),
                what.to_owned(),
                grouped(writes.len() as u64),
                at(1, 2),
                at(99, 100),
                at(999, 1_000),
                at(1, 1),
                lasted.map_or(String::new(), span),
            ]);
        }
        bench.store.close()?;
        folder.done(false);
    }
    println!("{} keys, {writers} writers, {rounds} rounds\n\n{table}", grouped(entries));
    println!("writes are counted from the beginning of a backup to its end; those beside nothing");
    println!(
        "in turn with them, for as long. The limit: 99% at most twice of that beside nothing."
    );
    Ok(())
}

struct Bench {
    store: Store,
    entries: u64,
    writers: usize,
}

impl Bench {
    /// Returns the latency of each write during one backup, and the duration of the backup.
    fn beside_a_backup(&self, copy: &std::path::Path) -> Outcome<(Vec<Duration>, Duration)> {
        let lasted = Mutex::new(Duration::ZERO);
        let writes = self.writes_beside(&|| {
            let start = Instant::now();
            self.store.backup_to_watched(copy, &mut |_| ControlFlow::Continue(()))?;
            *lasted.lock().map_err(|_| "poisoned")? = start.elapsed();
            Ok(())
        })?;
        Ok((writes, lasted.into_inner().map_err(|_| "poisoned")?))
    }

    /// Returns the latency of each write during `time`.
    fn writes_for(&self, time: Duration) -> Outcome<Vec<Duration>> {
        self.writes_beside(&|| {
            std::thread::sleep(time);
            Ok(())
        })
    }

    /// Returns the latency of each write while `act` runs.
    fn writes_beside(&self, act: &(dyn Fn() -> Outcome + Sync)) -> Outcome<Vec<Duration>> {
        let (stop, all) = (AtomicBool::new(false), Mutex::new(Vec::new()));
        crew::each(1 + self.writers, |worker| {
            if worker == 0 {
                let done = act();
                stop.store(true, Ordering::Relaxed);
                return done;
            }
            let mut index = worker as u64 * 7_919;
            let mut taken = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                index += 104_729;
                let start = Instant::now();
                self.store.set_bytes(key(index % self.entries), VALUE)?;
                taken.push(start.elapsed());
            }
            all.lock().map_err(|_| "poisoned")?.append(&mut taken);
            Ok(())
        })?;
        Ok(all.into_inner().map_err(|_| "poisoned")?)
    }
}

/// Writes the keys in large commits, then makes a checkpoint.
fn fill(store: &Store, entries: u64) -> Outcome {
    let mut next = 0;
    while next < entries {
        let mut batch = store.batch();
        let end = entries.min(next + 10_000);
        for index in next..end {
            batch.set_bytes(key(index), VALUE)?;
        }
        batch.commit()?;
        next = end;
    }
    store.checkpoint()?;
    Ok(())
}

/// Returns a key of 17 bytes.
fn key(index: u64) -> String {
    format!("key{index:014}")
}

const VALUE: &[u8] = &[0xAB; 100];
