//! How durable writes scale with the number of writers, in all three forms, beside the raw rate of
//! the disk.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints")]

use std::process::ExitCode;
use std::time::Duration;

use codex_bench::args::Args;
use codex_bench::numbers::{grouped, rate, ratio, span};
use codex_bench::run::RunFolder;
use codex_bench::table::Table;
use codex_bench::{Outcome, crew, disk};
use codex_core::{Form, Store};

fn main() -> ExitCode {
    match scaling(Args::from_env()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scaling: {error}");
            ExitCode::FAILURE
        }
    }
}

fn scaling(mut args: Args) -> Outcome {
    let sets: u64 = args.value("sets", 1_000, "sets by each worker")?;
    let keep = args.flag("keep", "leave the stores behind, to look at");
    if !args.finish("scaling: 1 to 32 workers writing at once, in all three forms")? {
        return Ok(());
    }
    let mut folder = RunFolder::new("scaling", None)?;
    println!(
        "one thread writing 256 bytes + fdatasync, raw: {} a second\n",
        grouped(disk::sync_rate(folder.path(), Duration::from_secs(1))?)
    );
    let mut table = Table::new([
        "form",
        "workers",
        "sets",
        "seconds",
        "sets/s",
        "vs 1 worker",
        "per sync",
        "longest hold",
    ]);
    for form in [Form::Wal, Form::Ledger, Form::Snapshot] {
        let mut single = 0;
        for workers in [1, 2, 4, 8, 16, 32] {
            let path = folder.file(&format!("{form}-{workers}.db"));
            let store = Store::options().create_new(true).form(form).open(path)?;
            let elapsed = crew::each(workers, |worker| {
                for index in 0..sets {
                    store.set_bytes(format!("worker{worker:02}/{index:08}"), VALUE)?;
                }
                Ok(())
            })?;
            let writes = sets * workers as u64;
            let per_second = rate(writes, elapsed);
            if workers == 1 {
                single = per_second;
            }
            let stats = store.stats();
            table.row([
                form.to_string(),
                workers.to_string(),
                grouped(writes),
                format!("{:.2}", elapsed.as_secs_f64()),
                grouped(per_second),
                ratio(per_second, single),
                ratio(stats.commits, stats.storage.groups),
                span(Duration::from_nanos(stats.data_hold_ns_max)),
            ]);
            check(&store, writes)?;
            store.close()?;
        }
    }
    println!("{table}");
    println!("values of 100 bytes under new keys; every set is on disk when it returns.");
    folder.done(keep);
    Ok(())
}

fn check(store: &Store, writes: u64) -> Outcome {
    let found = store.len() as u64;
    if found == writes {
        Ok(())
    } else {
        Err(format!("{found} entries instead of {writes}").into())
    }
}

const VALUE: &[u8] = &[0xAB; 100];
