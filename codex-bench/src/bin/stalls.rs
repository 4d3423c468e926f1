//! A check that reads do not wait for the disk: point reads beside commits, images and checkpoints
//! on a simulated disk with slow syncs.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints")]

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use codex_bench::args::Args;
use codex_bench::numbers::{grouped, quantile, span};
use codex_bench::{Outcome, crew, program, table};
use codex_core::{Form, Store};
use codex_storage::vfs::fault::FaultDir;
use codex_storage::vfs::{CallKind, Observed};

fn main() -> ExitCode {
    program("stalls", stalls)
}

fn stalls(mut args: Args) -> Outcome {
    let sync_ms: u64 = args.value("--sync-ms", 50, "how long each sync takes, in milliseconds")?;
    let seconds: u64 = args.value("--seconds", 3, "how long each row is measured")?;
    if !args.finish("stalls: how long reads take beside a slow disk")? {
        return Ok(());
    }
    let sync = Duration::from_millis(sync_ms);
    let mut table =
        table::new(["beside", "form", "reads", "median", "99.99%", "longest", "commits"]);
    for (beside, form, writers, checkpoints) in [
        ("nothing", Form::Wal, 0, false),
        ("4 writers", Form::Wal, 4, false),
        ("4 writers and checkpoints", Form::Wal, 4, true),
        ("4 writers, an image each group", Form::Snapshot, 4, false),
        ("4 writers", Form::Ledger, 4, false),
    ] {
        let load = Load { form, writers, checkpoints, time: Duration::from_secs(seconds) };
        let (reads, commits) = load.run(sync)?;
        let at = |part, whole| quantile(&reads, part, whole).unwrap_or_default();
        table.add_row([
            beside.into(),
            form.to_string(),
            grouped(reads.len() as u64),
            span(at(1, 2)),
            span(at(9_999, 10_000)),
            span(at(1, 1)),
            grouped(commits),
        ]);
    }
    println!("each sync of the simulated disk takes {}\n\n{table}", span(sync));
    println!("a read that waited for the disk would take as long as a sync; on a busy machine the");
    println!("longest reads are those that lost the processor (compare the row `nothing`).");
    Ok(())
}

struct Load {
    form: Form,
    writers: usize,
    checkpoints: bool,
    time: Duration,
}

impl Load {
    /// Returns the latency of each read, and the number of commits in the same time.
    fn run(&self, sync: Duration) -> Outcome<(Vec<Duration>, u64)> {
        let is_slow = Arc::new(AtomicBool::new(false));
        let watched = Arc::clone(&is_slow);
        let disk = Observed::vfs(&FaultDir::new().vfs(1), move |call| {
            if call.kind == CallKind::Sync && watched.load(Ordering::Relaxed) {
                std::thread::sleep(sync);
            }
        });
        let store = Store::options().form(self.form).open_in(&disk, "stalls.db")?;
        let mut batch = store.batch();
        for index in 0..ENTRIES {
            batch.set_bytes(key(index), VALUE)?;
        }
        batch.commit()?;
        is_slow.store(true, Ordering::Relaxed);
        let before = store.stats().commits;
        let stop = AtomicBool::new(false);
        let reads = std::sync::Mutex::new(Vec::new());
        crew::each(1 + self.writers + usize::from(self.checkpoints), |worker| {
            if worker == 0 {
                let taken = read_until(&store, Instant::now() + self.time)?;
                stop.store(true, Ordering::Relaxed);
                *reads.lock().map_err(|_| "poisoned")? = taken;
                return Ok(());
            }
            let mut index = worker as u64;
            while !stop.load(Ordering::Relaxed) {
                if worker > self.writers {
                    store.checkpoint()?;
                } else {
                    store.set_bytes(key(index % ENTRIES), VALUE)?;
                    index += 7;
                }
            }
            Ok(())
        })?;
        let commits = store.stats().commits - before;
        is_slow.store(false, Ordering::Relaxed);
        store.close()?;
        Ok((reads.into_inner().map_err(|_| "poisoned")?, commits))
    }
}

fn read_until(store: &Store, end: Instant) -> Outcome<Vec<Duration>> {
    let mut taken = Vec::with_capacity(4 << 20);
    let mut index = 0;
    let mut now = Instant::now();
    while now < end {
        if store.get_bytes(key(index % ENTRIES)).is_none() {
            return Err("a read found nothing".into());
        }
        index += 7_919;
        let after = Instant::now();
        taken.push(after - now);
        now = after;
    }
    Ok(taken)
}

fn key(index: u64) -> String {
    format!("key{index:08}")
}

const ENTRIES: u64 = 10_000;
const VALUE: &[u8] = &[0xCD; 100];
