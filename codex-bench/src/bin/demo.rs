//! The main use on real input: one typed entry for each file of a directory tree, written by many
//! threads, with rotating backups. Then the same by a child process that is killed half-way. Every
//! acknowledged write is verified. Then a few queries.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use codex_bench::args::Args;
use codex_bench::numbers::{grouped, rate, ratio, span};
use codex_bench::run::RunFolder;
use codex_bench::tree::{self, FileEntry, Found};
use codex_bench::{Outcome, crew, program, table};
use codex_core::crypto::Key;
use codex_core::{BackupPolicy, Backups, Stats, Store};
use comfy_table::Table;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

fn main() -> ExitCode {
    program("demo", demo)
}

/// The arguments of the demo.
struct Plan {
    tree: Option<PathBuf>,
    limit: usize,
    workers: usize,
    keep: bool,
}

fn demo(mut args: Args) -> Outcome {
    let child: Option<PathBuf> = args.optional("--write-into")?;
    let plan = Plan {
        tree: args.optional("--tree")?,
        limit: args.value("--limit", 20_000, "files at most")?,
        workers: args.value("--workers", 32, "threads that write at once")?,
        keep: args.flag("--keep", "keep the stores after the run"),
    };
    let what = "demo [--tree FOLDER]: stores an entry for each file of a folder tree \
                (default: this folder and the sources that cargo has downloaded)";
    if !args.finish(what)? {
        return Ok(());
    }
    let files = find_files(&plan)?;
    if let Some(path) = child {
        return write_acknowledging(&path, &files, plan.workers);
    }
    let mut folder = RunFolder::new("demo", None)?;
    println!("{} files; stores in {}\n", grouped(files.len() as u64), folder.path().display());
    let mut table = table::new([
        "run",
        "workers",
        "writes",
        "writes/s",
        "per sync",
        "longest hold",
        "backups",
        "lost",
    ]);
    let mut lost = 0;
    for (name, run) in [("files.db", "plain"), ("files.enc", "encrypted")] {
        lost += write_here(&folder.file(name), run, &files, &plan, &mut table)?;
    }
    for (name, run) in [("killed.db", "plain, killed"), ("killed.enc", "encrypted, killed")] {
        lost += kill_half_way(&folder.file(name), run, &files, &plan, &mut table)?;
    }
    println!("{table}");
    println!("per sync: commits that shared one fsync. longest hold: of the memory lock.\n");
    query(&folder.file("files.db"))?;
    folder.done(plan.keep);
    if lost == 0 { Ok(()) } else { Err(format!("{lost} acknowledged writes are lost").into()) }
}

fn find_files(plan: &Plan) -> Outcome<Vec<Found>> {
    if let Some(tree) = &plan.tree {
        return tree::files_below(tree, "tree", plan.limit);
    }
    let mut files = tree::files_below(Path::new("."), "repository", plan.limit)?;
    if let Some(sources) = tree::cargo_sources() {
        files.extend(tree::files_below(&sources, "dependencies", plan.limit - files.len())?);
    }
    Ok(files)
}

/// Writes all entries, closes the store, opens it again, and compares it with the acknowledged
/// writes.
fn write_here(
    path: &Path,
    run: &str,
    files: &[Found],
    plan: &Plan,
    table: &mut Table,
) -> Outcome<u64> {
    let store = open(path)?;
    let bar = bar(files.len() as u64, "writing");
    let written = Mutex::new(BTreeMap::new());
    let elapsed = crew::share_out(plan.workers, files.len() as u64, |_, index| {
        if let Some(found) = files.get(usize::try_from(index)?)
            && let Ok(entry) = tree::read_entry(found)
        {
            store.set(&found.key, &entry)?;
            written.lock().map_err(|_| "poisoned")?.insert(found.key.clone(), entry);
        }
        bar.inc(1);
        Ok(())
    })?;
    bar.finish_and_clear();
    let stats = store.stats();
    store.close()?;
    drop(store);
    let written = written.into_inner().map_err(|_| "poisoned")?;
    let store = open(path)?;
    let mut lost = 0;
    for (key, entry) in &written {
        lost += u64::from(store.get::<FileEntry>(key)?.as_ref() != Some(entry));
    }
    let backups = check_backups(path)?;
    let writes = written.len() as u64;
    Row { run, workers: plan.workers, writes, elapsed, backups, lost }.add(table, Some(&stats));
    Ok(lost)
}

/// Runs a child process that writes, kills it half-way, opens its store, and checks every write
/// that it acknowledged.
fn kill_half_way(
    path: &Path,
    run: &str,
    files: &[Found],
    plan: &Plan,
    table: &mut Table,
) -> Outcome<u64> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--write-into").arg(path);
    command.args(["--workers", &plan.workers.to_string(), "--limit", &plan.limit.to_string()]);
    if let Some(tree) = &plan.tree {
        command.arg("--tree").arg(tree);
    }
    let start = std::time::Instant::now();
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut acknowledged = Vec::new();
    let mut pipe = child.stdout.take().ok_or("the child has no output")?;
    let bar = bar(files.len() as u64, "a child writes, to be killed half-way");
    let mut word = [0; 4];
    let mut elapsed = None;
    // The pipe may still contain acknowledgements when the child dies, so it is read to the end.
    while pipe.read_exact(&mut word).is_ok() {
        acknowledged.push(usize::try_from(u32::from_le_bytes(word))?);
        bar.inc(1);
        if elapsed.is_none() && acknowledged.len() * 2 >= files.len() {
            elapsed = Some(start.elapsed());
            child.kill()?;
        }
    }
    bar.finish_and_clear();
    child.wait()?;
    let elapsed = elapsed.ok_or("the child ended before it could be killed")?;
    let store = open(path)?;
    let mut lost = 0;
    for found in acknowledged.iter().filter_map(|index| files.get(*index)) {
        let expected = tree::read_entry(found)?;
        lost += u64::from(store.get::<FileEntry>(&found.key)?.as_ref() != Some(&expected));
    }
    store.close()?;
    let backups = check_backups(path)?;
    let writes = acknowledged.len() as u64;
    Row { run, workers: plan.workers, writes, elapsed, backups, lost }.add(table, None);
    Ok(lost)
}

/// Does the part of the child: writes, and reports each acknowledged write on its output.
fn write_acknowledging(path: &Path, files: &[Found], workers: usize) -> Outcome {
    let store = open(path)?;
    let out = Mutex::new(std::io::stdout());
    crew::share_out(workers, files.len() as u64, |_, index| {
        if let Some(found) = files.get(usize::try_from(index)?)
            && let Ok(entry) = tree::read_entry(found)
        {
            store.set(&found.key, &entry)?;
            let mut out = out.lock().map_err(|_| "poisoned")?;
            out.write_all(&u32::try_from(index)?.to_le_bytes())?;
            out.flush()?;
        }
        Ok(())
    })?;
    // The child never ends by itself before it is killed, because the parent waits for half of the
    // writes.
    Ok(())
}

fn query(path: &Path) -> Outcome {
    let store = open(path)?;
    for prefix in ["repository/", "dependencies/", "tree/"] {
        let mut entries = Vec::new();
        for entry in store.prefix(prefix) {
            entries.push(entry.value::<FileEntry>()?);
        }
        if entries.is_empty() {
            continue;
        }
        let size: u64 = entries.iter().map(|entry| entry.bytes).sum();
        let lines: u64 = entries.iter().map(|entry| entry.lines).sum();
        println!(
            "{prefix}: {} files, {}, {} lines; the largest:",
            grouped(entries.len() as u64),
            HumanBytes(size),
            grouped(lines)
        );
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.bytes));
        for entry in entries.iter().take(3) {
            println!("  {:>12}  {}", HumanBytes(entry.bytes).to_string(), entry.path);
        }
    }
    store.close()?;
    Ok(())
}

fn open(path: &Path) -> Outcome<Store> {
    let policy = BackupPolicy::keep(3).every_commits(2_000);
    let options = Store::options().backups(policy);
    let encrypted = path.extension().is_some_and(|extension| extension == "enc");
    Ok(if encrypted { options.key(Key::raw(&[0x42; 32])?) } else { options }.open(path)?)
}

/// Verifies every backup, and returns their number.
fn check_backups(path: &Path) -> Outcome<usize> {
    let backups = Backups::of(path)?;
    let listed = backups.list()?;
    for backup in &listed {
        backups.verify(backup.index)?;
    }
    Ok(listed.len())
}

struct Row<'a> {
    run: &'a str,
    workers: usize,
    writes: u64,
    elapsed: Duration,
    backups: usize,
    lost: u64,
}

impl Row<'_> {
    fn add(&self, table: &mut Table, stats: Option<&Stats>) {
        let per_sync = |stats: &Stats| ratio(stats.commits, stats.storage.groups);
        let hold = |stats: &Stats| span(Duration::from_nanos(stats.data_hold_ns_max));
        table.add_row([
            self.run.into(),
            self.workers.to_string(),
            grouped(self.writes),
            grouped(rate(self.writes, self.elapsed)),
            stats.map_or_else(|| "-".into(), per_sync),
            stats.map_or_else(|| "-".into(), hold),
            self.backups.to_string(),
            self.lost.to_string(),
        ]);
    }
}

fn bar(len: u64, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} [{bar:40}] {pos}/{len}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(len).with_style(style).with_message(what)
}
