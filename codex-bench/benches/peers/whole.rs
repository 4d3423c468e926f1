//! Whole stores: loading, opening, memory and files, each in a process of its own; scans of all.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use codex_bench::Outcome;
use codex_bench::report::{Cell, Unit};

use crate::data::{self, KEY_BYTES, VALUE_BYTES};
use crate::engine::{Kind, Promise, kinds};
use crate::rows::Context;
use crate::turns::{Subject, rounded};

/// Measures loads and openings of all stores, which take turns.
pub(crate) fn row(context: &mut Context) -> Outcome<Vec<Cell>> {
    let rounds = context.plan.rounds.div_ceil(5).max(2);
    let mut cells: Vec<Cell> = Vec::new();
    let mut slow = Vec::new();
    for _ in 0..rounds {
        for kind in &context.kinds {
            // One round is enough for a store that takes as long as the others together.
            if slow.contains(&kind.name) {
                continue;
            }
            let start = Instant::now();
            let path = context.place(kind)?;
            let mut figures = child("load", kind, &path, context.entries)?;
            if kind.promises != [Promise::Memory] {
                figures.extend(child("open", kind, &path, context.entries)?);
            }
            // A structure in memory has no files.
            figures.retain(|(_, _, figure)| *figure > 0.0);
            for (case, unit, figure) in figures {
                let is_cell = |cell: &&mut Cell| cell.store == kind.name && cell.case == case;
                match cells.iter_mut().find(is_cell) {
                    Some(cell) => cell.rounds.push(figure),
                    None => cells.push(Cell {
                        store: kind.name.to_owned(),
                        case,
                        unit,
                        rounds: vec![figure],
                        latency: None,
                    }),
                }
            }
            std::fs::remove_dir_all(&path)?;
            if start.elapsed() > SLOW {
                slow.push(kind.name);
            }
        }
    }
    let order = |cell: &Cell| CASES.iter().position(|(_, case, _)| *case == cell.case);
    cells.sort_by_key(order);
    Ok(cells)
}

/// The time of a load and an opening after which a store has no further round.
const SLOW: Duration = Duration::from_secs(8);

/// The figures of the two kinds of processes.
const CASES: [(&str, &str, Unit); 6] = [
    ("load", "load", Unit::Ns),
    ("open", "open", Unit::Ns),
    ("load", "memory, loaded", Unit::Times),
    ("open", "memory, opened", Unit::Times),
    ("load", "files", Unit::Times),
    ("load", "written", Unit::Times),
];

/// Runs this program for one work with one store, and returns its figures.
fn child(work: &str, kind: &Kind, path: &Path, entries: u64) -> Outcome<Vec<(String, Unit, f64)>> {
    let mut program = Command::new(std::env::current_exe()?);
    program.args(["--child", work, "--store", kind.name, "--entries", &entries.to_string()]);
    let output = program.arg("--place").arg(path).output()?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}, {work}: {}", kind.name, error.trim()).into());
    }
    let text = String::from_utf8(output.stdout)?;
    let words = text.split_whitespace().map(str::parse::<f64>);
    let cases = CASES.iter().filter(|(of, _, _)| *of == work);
    let figures = cases
        .zip(words)
        .map(|((_, case, unit), figure)| Ok(((*case).to_owned(), *unit, rounded(figure?))));
    figures.collect()
}

/// Does the work of a process, and prints its figures in the order of [`CASES`].
pub(crate) fn work(work: &str, store: &str, place: &Path, entries: u64) -> Outcome {
    let kind = kinds().into_iter().find(|kind| kind.name == store).ok_or("no such store")?;
    let stored = ratio(entries, 1) * ratio((KEY_BYTES + VALUE_BYTES) as u64, 1);
    let promise = if kind.promises == [Promise::Memory] { Promise::Memory } else { Promise::Os };
    let (memory, written) = (resident()?, written()?);
    let from = Instant::now();
    let engine = (kind.open)(place, promise)?;
    let mut time = from.elapsed();
    if work == "open" {
        let mut bytes = 0;
        engine.scan(&[], &mut |key, value| {
            bytes += key.len() + value.len();
            true
        })?;
        if bytes as u64 != entries * (KEY_BYTES + VALUE_BYTES) as u64 {
            return Err(format!("{bytes} bytes were read").into());
        }
        println!("{} {}", nanos(time), ratio(resident()?.saturating_sub(memory), 1) / stored);
        return Ok(());
    }
    time = Duration::ZERO;
    for from in (0..entries).step_by(1_000) {
        let pairs = data::pairs(from..entries.min(from + 1_000), VALUE_BYTES);
        let from = Instant::now();
        engine.load(&pairs)?;
        time += from.elapsed();
    }
    let from = Instant::now();
    engine.flush()?;
    sync_files(place)?;
    time += from.elapsed();
    let memory = resident()?.saturating_sub(memory);
    drop(engine);
    let written = self::written()? - written;
    let in_stored = [memory, files(place)?, written].map(|bytes| ratio(bytes, 1) / stored);
    let in_stored = in_stored.map(|figure| figure.to_string());
    println!("{} {}", nanos(time), in_stored.join(" "));
    Ok(())
}

/// Scans all entries of each store, in turns.
pub(crate) fn scans(context: &Context, subjects: &[Subject], entries: u64) -> Outcome<Vec<Cell>> {
    let cell = |subject: &Subject| Cell {
        store: subject.name.to_owned(),
        case: "entry of a scan".to_owned(),
        unit: Unit::Ns,
        rounds: Vec::new(),
        latency: None,
    };
    let mut cells: Vec<Cell> = subjects.iter().map(cell).collect();
    for _ in 0..context.plan.rounds.div_ceil(3) {
        for (subject, cell) in subjects.iter().zip(&mut cells) {
            let (mut count, mut bytes) = (0, 0);
            let from = Instant::now();
            subject.engine.scan(&[], &mut |key, value| {
                count += 1;
                bytes += key.len() + value.len();
                true
            })?;
            if count != entries {
                return Err(format!("{}: a scan has {count} entries", subject.name).into());
            }
            cell.rounds.push(rounded(nanos(from.elapsed()) / ratio(entries, 1)));
        }
    }
    Ok(cells)
}

fn nanos(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
fn ratio(a: u64, b: u64) -> f64 {
    a as f64 / b as f64
}

/// Returns the resident memory of this process, with the mapped parts of files.
fn resident() -> Outcome<u64> {
    Ok(1024 * number_after("/proc/self/status", "VmRSS:")?)
}

/// Returns the bytes that this process has passed to the disk, also through mapped files.
fn written() -> Outcome<u64> {
    number_after("/proc/self/io", "write_bytes:")
}

fn number_after(file: &str, name: &str) -> Outcome<u64> {
    let text = std::fs::read_to_string(file)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let word = line.and_then(|rest| rest.split_whitespace().next());
    Ok(word.ok_or_else(|| format!("{file} has no {name}"))?.parse()?)
}

/// Syncs all files of a directory, since not every store can be told to.
fn sync_files(path: &Path) -> Outcome {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_files(&entry.path())?;
        } else {
            std::fs::File::open(entry.path())?.sync_all()?;
        }
    }
    Ok(())
}

/// Returns the number of bytes that the files of a directory take on the disk.
fn files(path: &Path) -> Outcome<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        sum += if entry.file_type()?.is_dir() {
            files(&entry.path())?
        } else {
            512 * entry.metadata()?.blocks()
        };
    }
    Ok(sum)
}
