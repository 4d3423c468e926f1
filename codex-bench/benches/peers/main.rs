//! `CodexDB` beside other stores and beside the limits of disk and memory: the tables and plots of
//! `docs/BENCHMARKS.md`. `cargo xtask bench --peers` runs it; without the feature `peers` it has
//! only `CodexDB` and the limits.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a program that measures: it prints, times itself and uses the file system"
)]

mod child;
mod copies;
mod data;
mod engine;
mod growth;
mod limits;
#[cfg(feature = "peers")]
mod others;
mod ours;
mod plot;
mod reads;
mod rows;
mod turns;
mod whole;
mod ycsb;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use codex_bench::args::Args;
use codex_bench::report::{Measured, Record, Row, tables};
use codex_bench::run::RunFolder;
use codex_bench::{Outcome, program};

use crate::engine::{Kind, kinds};
use crate::rows::{Context, ROWS, Spec};
use crate::turns::Plan;

fn main() -> ExitCode {
    program("peers", run)
}

fn run(mut args: Args) -> Outcome {
    // The program starts itself for work that needs a process of its own.
    if let Some(work) = args.optional::<String>("--child")? {
        let store: String = args.optional("--store")?.unwrap_or_default();
        let place: PathBuf = args.value("--place", ".".to_owned(), "")?.into();
        let entries = args.value("--entries", 0, "")?;
        return child::work(&work, &store, &place, entries);
    }
    let quick = args.flag("--quick", "fewer rounds and entries");
    let report = args.flag("--report", "measure nothing, write the tables and plots again");
    let only = args.value("--row", String::new(), "the rows to measure, with commas")?;
    let stores = args.value("--only", String::new(), "the stores to measure, with semicolons")?;
    let note = args.value("--note", String::new(), "other work on the machine during the run")?;
    let case = args.value("--case", String::new(), "the only case to measure")?;
    let rounds = args.value("--rounds", if quick { 3 } else { 15 }, "the turns of each store")?;
    let docs: Option<PathBuf> = args.optional::<String>("--docs")?.map(PathBuf::from);
    // Cargo passes this flag to every benchmark.
    args.flag("--bench", "no effect");
    if !args.finish("peers: CodexDB beside other stores; with --docs DIR the run is recorded")? {
        return Ok(());
    }
    let chosen = |spec: &&Spec| only.is_empty() || only.split(',').any(|name| name == spec.name);
    if let Some(name) = only.split(',').find(|name| ROWS.iter().all(|spec| spec.name != *name))
        && !only.is_empty()
    {
        let names = ROWS.map(|spec| spec.name).join(", ");
        return Err(format!("`{name}` is no row; these are the rows: {names}").into());
    }
    let plan = Plan { rounds, round: Duration::from_millis(50), case };
    for spec in ROWS.iter().filter(|_| !report).filter(chosen) {
        let row = measure(spec, &plan, quick, &stores, &note)?;
        println!("{}\n\n{}\n({} s)\n", row.title, tables::table(&row), row.seconds);
        // A row is recorded whole: all its stores have been measured in one run.
        let is_whole = stores.is_empty() && plan.case.is_empty();
        if let Some(docs) = docs.as_ref().filter(|_| is_whole) {
            record(docs, row)?;
        }
    }
    docs.map_or(Ok(()), |docs| write(&docs))
}

/// Measures a row.
fn measure(spec: &Spec, plan: &Plan, quick: bool, stores: &str, note: &str) -> Outcome<Row> {
    let mut kinds = kinds();
    kinds.retain(|kind| spec.takes(kind));
    if !stores.is_empty() {
        kinds.retain(|kind| stores.split(';').any(|name| name == kind.name));
    }
    let (entries, records) = if quick { (100_000, 10_000) } else { (1_000_000, 100_000) };
    let mut context = Context {
        plan: plan.clone(),
        entries,
        records,
        kinds,
        promise: spec.promise,
        folder: RunFolder::new("peers", None)?,
    };
    let from = Instant::now();
    let cells = (spec.run)(&mut context)?;
    let settings = |kind: &Kind| match kind.package {
        "" => kind.settings.to_owned(),
        package => format!("{}: {}", version(package), kind.settings),
    };
    let stores = context.kinds.iter().map(|kind| Measured {
        name: kind.name.to_owned(),
        group: spec.group(kind),
        settings: settings(kind),
    });
    let row = Row {
        name: spec.name.to_owned(),
        title: spec.title.to_owned(),
        about: spec.about.to_owned(),
        date: output("date", &["-u", "+%Y-%m-%d %H:%M"]),
        seconds: from.elapsed().as_secs(),
        commit: commit(),
        machine: machine(context.folder.path()),
        note: [if quick { "quick: 100,000 entries, 10,000 records" } else { "" }, note]
            .into_iter()
            .filter(|note| !note.is_empty())
            .collect::<Vec<_>>()
            .join("; "),
        stores: stores.collect(),
        cells,
    };
    context.folder.done(false);
    Ok(row)
}

/// Adds a row to the record, which is written at once: a run may be stopped before its end.
fn record(docs: &Path, row: Row) -> Outcome {
    if !cfg!(feature = "peers") {
        return Err("a run of a build without other stores is not recorded".into());
    }
    let path = docs.join(RECORD);
    std::fs::create_dir_all(docs.join("bench"))?;
    let mut record = if path.exists() { Record::read(&path)? } else { Record::default() };
    record.merge(row, &ROWS.map(|spec| spec.name));
    record.write(&path)
}

/// Writes the tables and the plots of the record.
fn write(docs: &Path) -> Outcome {
    let record = Record::read(&docs.join(RECORD))?;
    let path = docs.join("BENCHMARKS.md");
    let text = tables::replace(&std::fs::read_to_string(&path)?, &record)?;
    std::fs::write(&path, text)?;
    for row in &record.rows {
        plot::draw(row, &docs.join(format!("bench/{}.svg", row.name)))?;
    }
    println!("written: {} and the plots of {} rows", path.display(), record.rows.len());
    Ok(())
}

/// Returns a crate with its version in the lock file.
fn version(package: &str) -> String {
    let lock = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock");
    let text = std::fs::read_to_string(lock).unwrap_or_default();
    let name = format!("name = \"{package}\"\nversion = \"");
    let rest = text.split_once(&name).map(|(_, rest)| rest);
    let version = rest.and_then(|rest| rest.split('"').next()).unwrap_or("of unknown version");
    format!("{package} {version}")
}

/// Describes the machine: processors, memory, system, file system and compiler.
fn machine(place: &Path) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory: u64 = memory.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).unwrap_or(0);
    let system = output("uname", &["-srm"]);
    let place = place.display().to_string();
    let files = output("stat", &["-f", "-c", "%T", &place]);
    let compiler = output("rustc", &["--version"]);
    format!("{cores} cores, {} GiB of memory, {system}, {files}, {compiler}", memory >> 20)
}

/// Returns the commit of this repository, and whether sources differ from it.
fn commit() -> String {
    let commit = output("git", &["rev-parse", "--short", "HEAD"]);
    let changed = output("git", &["diff", "--name-only", "HEAD", "--", "*.rs", "Cargo.lock"]);
    if changed.is_empty() { commit } else { format!("{commit} with changes") }
}

/// Returns the output of a program, or nothing if it fails.
fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let output = output.ok().filter(|output| output.status.success());
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_default()
}

/// The file of the record, below the documents.
const RECORD: &str = "bench/record.json";
