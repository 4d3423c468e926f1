//! Work in a process of its own, so that no store pays for the memory or the caches of another.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use codex_bench::Outcome;
use codex_bench::report::{Cell, Unit};

use crate::data::{self, KEY_BYTES, VALUE_BYTES};
use crate::engine::{Engine, Kind, Promise, kinds};
use crate::growth;
use crate::turns::rounded;

/// The case of a figure, its unit, and the figure.
pub(crate) type Figure = (String, Unit, f64);

/// Runs this program for one work with one store, and returns its figures.
pub(crate) fn run(work: &str, kind: &Kind, path: &Path, entries: u64) -> Outcome<Vec<Figure>> {
    let mut program = Command::new(std::env::current_exe()?);
    program.args(["--child", work, "--store", kind.name, "--entries", &entries.to_string()]);
    let output = program.arg("--place").arg(path).output()?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}, {work}: {}", kind.name, error.trim()).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Does the work of a process, and prints its figures.
pub(crate) fn work(work: &str, store: &str, place: &Path, entries: u64) -> Outcome {
    let kind = kinds().into_iter().find(|kind| kind.name == store).ok_or("no such store")?;
    let subject = Subject { kind, place, entries, memory: resident()?, written: written()? };
    let figures = match work {
        "load" => load(&subject),
        "open" => open(&subject),
        "grow" => growth::grow(&subject),
        _ => Err("no such work".into()),
    };
    println!("{}", serde_json::to_string(&figures?)?);
    Ok(())
}

/// The store of a process, and the state of the process before it had one.
pub(crate) struct Subject<'a> {
    kind: Kind,
    place: &'a Path,
    pub(crate) entries: u64,
    memory: u64,
    written: u64,
}

impl Subject<'_> {
    /// Opens the store. It need not survive more than the process.
    pub(crate) fn open(&self) -> Outcome<Box<dyn Engine>> {
        let is_in_memory = self.kind.promises == [Promise::Memory];
        let promise = if is_in_memory { Promise::Memory } else { Promise::Os };
        (self.kind.open)(self.place, promise)
    }

    /// Loads all entries in batches, and returns the time in which they were written.
    pub(crate) fn load(&self, engine: &dyn Engine, batch: u64) -> Outcome<Duration> {
        let mut time = Duration::ZERO;
        for from in (0..self.entries).step_by(usize::try_from(batch)?) {
            let to = self.entries.min(from + batch);
            let pairs = data::pairs(from..to, VALUE_BYTES);
            let from = Instant::now();
            engine.load(&pairs)?;
            time += from.elapsed();
        }
        Ok(time)
    }

    /// Returns a number of bytes as a multiple of the stored ones.
    fn in_stored(&self, bytes: u64) -> f64 {
        ratio(bytes, self.entries * (KEY_BYTES + VALUE_BYTES) as u64)
    }

    /// Returns the resident memory that the process has more than at its begin.
    pub(crate) fn memory(&self) -> Outcome<f64> {
        Ok(self.in_stored(resident()?.saturating_sub(self.memory)))
    }
}

/// Returns a figure of a time.
pub(crate) fn time(case: impl Into<String>, time: Duration) -> Figure {
    (case.into(), Unit::Ns, time.as_secs_f64() * 1e9)
}

/// Returns a figure of a share of a time.
pub(crate) fn mean(case: impl Into<String>, time: Duration, count: u64) -> Figure {
    (case.into(), Unit::Ns, time.as_secs_f64() * 1e9 / ratio(count, 1))
}

/// Adds figures to the cells of a store.
pub(crate) fn add(cells: &mut Vec<Cell>, store: &str, figures: Vec<Figure>) {
    for (case, unit, figure) in figures {
        let figure = rounded(figure);
        match cells.iter_mut().find(|cell| cell.store == store && cell.case == case) {
            Some(cell) => cell.rounds.push(figure),
            None => cells.push(Cell {
                store: store.to_owned(),
                case,
                unit,
                rounds: vec![figure],
                latency: None,
            }),
        }
    }
}

fn load(subject: &Subject<'_>) -> Outcome<Vec<Figure>> {
    let engine = subject.open()?;
    let mut took = subject.load(&*engine, 1_000)?;
    let from = Instant::now();
    engine.flush()?;
    sync_files(subject.place)?;
    took += from.elapsed();
    let memory = subject.memory()?;
    drop(engine);
    let files = subject.in_stored(files(subject.place)?);
    let written = subject.in_stored(written()? - subject.written);
    let figures = [
        time("load", took),
        ("memory, loaded".to_owned(), Unit::Times, memory),
        ("files".to_owned(), Unit::Times, files),
        ("written".to_owned(), Unit::Times, written),
    ];
    // A structure in memory has no files.
    Ok(figures.into_iter().filter(|(_, _, figure)| *figure > 0.01).collect())
}

fn open(subject: &Subject<'_>) -> Outcome<Vec<Figure>> {
    let from = Instant::now();
    let engine = subject.open()?;
    let took = from.elapsed();
    let mut bytes = 0;
    engine.scan(&[], &mut |key, value| {
        bytes += key.len() + value.len();
        true
    })?;
    if bytes as u64 != subject.entries * (KEY_BYTES + VALUE_BYTES) as u64 {
        return Err(format!("{bytes} bytes were read").into());
    }
    let memory = ("memory, opened".to_owned(), Unit::Times, subject.memory()?);
    Ok(vec![time("open", took), memory])
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
pub(crate) fn ratio(a: u64, b: u64) -> f64 {
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
        } else if let Some(file) = exists(std::fs::File::open(entry.path()))? {
            file.sync_all()?;
        }
    }
    Ok(())
}

/// Returns `None` for a file that was removed meanwhile: a store may replace its files in the
/// background.
fn exists<T>(file: io::Result<T>) -> io::Result<Option<T>> {
    match file {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        file => file.map(Some),
    }
}

/// Returns the number of bytes that the files of a directory take on the disk.
fn files(path: &Path) -> Outcome<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        sum += if entry.file_type()?.is_dir() {
            files(&entry.path())?
        } else {
            512 * exists(entry.metadata())?.map_or(0, |facts| facts.blocks())
        };
    }
    Ok(sum)
}
