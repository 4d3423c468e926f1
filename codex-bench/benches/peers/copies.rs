//! Checkpoints and hot backups of a whole store, while nobody writes and beside writers.

use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use codex_bench::numbers::quantile;
use codex_bench::report::{Cell, Unit};
use codex_bench::{Outcome, crew};

use crate::child::{self, Figure};
use crate::data::{self, Random, VALUE_BYTES};
use crate::engine::{Copying, Engine};
use crate::limits::RAW;
use crate::rows::Context;

/// Measures the stores one after another.
pub(crate) fn row(context: &mut Context) -> Outcome<Vec<Cell>> {
    let mut cells: Vec<Cell> = Vec::new();
    for kind in context.kinds.iter().filter(|kind| kind.name != RAW) {
        let path = context.place(kind)?;
        let engine = (kind.open)(&path, context.promise)?;
        data::fill(&*engine, context.entries, VALUE_BYTES)?;
        let store =
            Subject { engine: &*engine, copy: &path.join("copy"), entries: context.entries };
        let start = Instant::now();
        for round in 0..ROUNDS {
            if round == 0 || start.elapsed() < BUDGET {
                let (figures, raw) = store.alone()?;
                child::add(&mut cells, kind.name, figures);
                child::add(&mut cells, RAW, raw);
            }
        }
        let start = Instant::now();
        for round in 0..ROUNDS {
            if round == 0 || start.elapsed() < BUDGET {
                child::add(&mut cells, kind.name, store.beside_writers()?);
            }
        }
        drop(engine);
        std::fs::remove_dir_all(&path)?;
    }
    Ok(cells)
}

struct Subject<'a> {
    engine: &'a dyn Engine,
    /// The path of the backup.
    copy: &'a Path,
    entries: u64,
}

impl Subject<'_> {
    /// Measures a checkpoint and a backup while nobody writes. The second list has the times in
    /// which the same number of bytes is written and synced.
    fn alone(&self) -> Outcome<(Vec<Figure>, Vec<Figure>)> {
        let (mut ours, mut raw) = (Vec::new(), Vec::new());
        for case in ["checkpoint", "hot backup"] {
            // A store may skip a checkpoint of what it has on disk already.
            self.set(&mut Random::new(1))?;
            let from = Instant::now();
            self.copy(case)?;
            ours.push(child::time(format!("nobody writing: {case}"), from.elapsed()));
        }
        let bytes = std::fs::metadata(self.copy)?.len();
        std::fs::remove_file(self.copy)?;
        for case in ["checkpoint", "hot backup"] {
            raw.push(child::time(format!("nobody writing: {case}"), write(self.copy, bytes)?));
        }
        Ok((ours, raw))
    }

    /// Measures the latency of durable sets without other work, and beside each kind of copy.
    fn beside_writers(&self) -> Outcome<Vec<Figure>> {
        let mut figures = Vec::new();
        let pause = || {
            std::thread::sleep(ALONE);
            Ok(())
        };
        figures.push(self.sets_during("alone", &pause)?);
        for (case, name) in
            [("checkpoint", "beside checkpoints"), ("hot backup", "beside hot backups")]
        {
            let act = || {
                let from = Instant::now();
                while from.elapsed() < ALONE {
                    self.copy(case)?;
                    if self.copy.exists() {
                        std::fs::remove_file(self.copy)?;
                    }
                }
                Ok(())
            };
            figures.push(self.sets_during(name, &act)?);
        }
        Ok(figures)
    }

    fn copy(&self, case: &str) -> Outcome {
        let to =
            if case == "checkpoint" { Copying::Checkpoint } else { Copying::Backup(self.copy) };
        if self.engine.copy(to)? { Ok(()) } else { Err("the store cannot be copied".into()) }
    }

    fn set(&self, random: &mut Random) -> Outcome {
        let mut value = data::value(VALUE_BYTES);
        data::change(&mut value, random.next());
        self.engine.set(&data::key(random.below(self.entries)), &value)
    }

    /// Returns the 99th percentile of the times of the sets while `act` runs.
    fn sets_during(&self, name: &str, act: &(dyn Fn() -> Outcome + Sync)) -> Outcome<Figure> {
        let (stop, all) = (AtomicBool::new(false), Mutex::new(Vec::new()));
        crew::each(1 + WRITERS, |worker| {
            if worker == 0 {
                let done = act();
                stop.store(true, Ordering::Relaxed);
                return done;
            }
            let (mut random, mut times) = (Random::new(worker as u64), Vec::new());
            while !stop.load(Ordering::Relaxed) {
                let from = Instant::now();
                self.set(&mut random)?;
                times.push(from.elapsed());
            }
            all.lock().map_err(|_| "a writer panicked")?.append(&mut times);
            Ok(())
        })?;
        let times = all.into_inner().map_err(|_| "a writer panicked")?;
        let p99 = quantile(&times, 99, 100).ok_or("no set was made")?;
        let case = format!("{WRITERS} writers, 99th percentile: {name}");
        Ok((case, Unit::Ns, p99.as_secs_f64() * 1e9))
    }
}

/// Writes and syncs a new file of `bytes` bytes, and returns the time.
fn write(path: &Path, bytes: u64) -> Outcome<Duration> {
    let part = vec![0x5A; 1 << 20];
    let from = Instant::now();
    let mut file = std::fs::File::create(path)?;
    let mut left = bytes;
    while left > 0 {
        let len = left.min(part.len() as u64);
        file.write_all(part.get(..usize::try_from(len)?).unwrap_or(&part))?;
        left -= len;
    }
    file.sync_all()?;
    let took = from.elapsed();
    std::fs::remove_file(path)?;
    Ok(took)
}

const WRITERS: usize = 8;
const ROUNDS: usize = 5;
/// The time after which no round of a store begins.
const BUDGET: Duration = Duration::from_secs(15);
/// The time for which the sets are measured without other work, and at least beside it.
const ALONE: Duration = Duration::from_secs(1);
