//! Stores that take turns in short rounds, because the speed of a shared disk changes from second
//! to second.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use codex_bench::report::{Cell, Unit};
use codex_bench::{Outcome, crew};
use hdrhistogram::Histogram;

use crate::data::{Key, Random};
use crate::engine::Engine;

/// An open store with its name.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) engine: Box<dyn Engine>,
}

/// The number of rounds and their length.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) rounds: u32,
    pub(crate) round: Duration,
    /// The only case to measure, or an empty name for all.
    pub(crate) case: String,
}

/// A workload: its column in the table, and the number of threads.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) threads: usize,
    /// Reports the time of a call on one thread instead of the calls a second.
    pub(crate) as_time: bool,
    /// Records the time of each call, which takes a reading of the clock.
    pub(crate) timed: bool,
    /// The entries that a call reads or writes.
    pub(crate) entries: f64,
    /// Makes the keys of a round before it begins, for calls that take no longer than that.
    pub(crate) key: Option<fn(u64) -> Key>,
    /// The number of keys of which those are chosen.
    pub(crate) keys: u64,
}

impl Case {
    /// Calls of which the rate and the latencies are reported.
    pub(crate) fn rate(name: impl Into<String>, threads: usize) -> Self {
        Self {
            name: name.into(),
            threads,
            as_time: false,
            timed: true,
            entries: 1.0,
            key: None,
            keys: 0,
        }
    }

    /// Calls so short that a reading of the clock would matter; the mean of a round is reported.
    pub(crate) fn time(name: impl Into<String>, threads: usize) -> Self {
        Self { as_time: true, timed: false, ..Self::rate(name, threads) }
    }
}

/// A thread of a workload, which goes on where it was in the round before.
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) random: Random,
    /// The number of calls so far.
    pub(crate) calls: u64,
    /// The number of records that it has inserted, for a workload that counts them.
    pub(crate) inserted: u64,
    /// The keys of the round, if they are made before.
    keys: Vec<Key>,
    times: Histogram<u64>,
}

impl Worker {
    fn new(index: usize) -> Outcome<Self> {
        let times = Histogram::new_with_max(LATENCY_MAX.as_nanos().try_into()?, 2)?;
        Ok(Self {
            index,
            random: Random::new(index as u64),
            calls: 0,
            inserted: 0,
            keys: Vec::new(),
            times,
        })
    }

    /// Returns the next of the keys that were made before the round.
    pub(crate) fn key(&self) -> Key {
        let at = usize::try_from(self.calls).unwrap_or(0) % self.keys.len().max(1);
        self.keys.get(at).copied().unwrap_or_default()
    }
}

/// Measures `call` on all stores, which take turns. Returns a cell for each.
pub(crate) fn measure(
    plan: &Plan,
    subjects: &[Subject],
    case: &Case,
    call: impl Fn(&dyn Engine, &mut Worker) -> Outcome + Sync,
) -> Outcome<Vec<Cell>> {
    if !plan.case.is_empty() && plan.case != case.name {
        return Ok(Vec::new());
    }
    let mut all = Vec::new();
    for _ in subjects {
        let workers: Outcome<Vec<_>> = (0..case.threads).map(Worker::new).collect();
        all.push(workers?.into_iter().map(Mutex::new).collect::<Vec<_>>());
    }
    let mut rounds = vec![Vec::new(); subjects.len()];
    // A call may take longer than a round, on a slow disk or with many threads.
    let turns = plan.rounds * u32::try_from(subjects.len())?;
    let end = Instant::now() + 3 * turns * plan.round;
    for done in 0..plan.rounds {
        if done >= 3 && Instant::now() > end {
            break;
        }
        for ((subject, workers), rounds) in subjects.iter().zip(&all).zip(&mut rounds) {
            let figure = round(plan.round, case, &*subject.engine, workers, &call)
                .map_err(|error| format!("{}, {}: {error}", subject.name, case.name))?;
            rounds.push(figure);
        }
    }
    let mut cells = Vec::new();
    for ((subject, workers), rounds) in subjects.iter().zip(all).zip(rounds) {
        let unit = if case.as_time { Unit::Ns } else { Unit::PerSecond };
        let (store, case_name) = (subject.name.to_owned(), case.name.clone());
        let latency = latency(case, workers)?;
        cells.push(Cell { store, case: case_name, unit, rounds, latency });
    }
    Ok(cells)
}

/// Runs one round of one store, and returns its figure.
fn round(
    length: Duration,
    case: &Case,
    engine: &dyn Engine,
    workers: &[Mutex<Worker>],
    call: &(impl Fn(&dyn Engine, &mut Worker) -> Outcome + Sync),
) -> Outcome<f64> {
    let calls = || -> Outcome<u64> {
        workers
            .iter()
            .try_fold(0, |sum, worker| Ok(sum + worker.lock().map_err(|_| PANICKED)?.calls))
    };
    for worker in workers {
        let worker = &mut *worker.lock().map_err(|_| PANICKED)?;
        if let Some(key) = case.key {
            worker.keys = (0..KEYS_MADE).map(|_| key(worker.random.below(case.keys))).collect();
        }
    }
    let before = calls()?;
    let end = Instant::now() + length;
    let elapsed = crew::each(workers.len(), |index| {
        let worker = workers.get(index).ok_or("there are as many workers as threads")?;
        let mut worker = worker.lock().map_err(|_| PANICKED)?;
        let mut from = Instant::now();
        loop {
            for _ in 0..if case.timed { 1 } else { CALLS_UNTIMED } {
                call(engine, &mut worker)?;
                worker.calls += 1;
            }
            // One reading of the clock ends this call and begins the next.
            let now = Instant::now();
            if case.timed {
                worker.times.saturating_record((now - from).as_nanos().try_into()?);
            }
            if now >= end {
                return Ok(());
            }
            from = now;
        }
    })?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let entries = (calls()? - before) as f64 * case.entries;
    #[expect(clippy::cast_precision_loss, reason = "a few threads")]
    let threads = case.threads as f64;
    let seconds = elapsed.as_secs_f64();
    let figure = if case.as_time { seconds * 1e9 * threads / entries } else { entries / seconds };
    Ok(rounded(figure))
}

/// Returns the median and the 99th percentile of the calls of all workers.
fn latency(case: &Case, workers: Vec<Mutex<Worker>>) -> Outcome<Option<[u64; 2]>> {
    if !case.timed {
        return Ok(None);
    }
    let mut all = Histogram::<u64>::new_with_max(LATENCY_MAX.as_nanos().try_into()?, 2)?;
    for worker in workers {
        all.add(worker.into_inner().map_err(|_| PANICKED)?.times)?;
    }
    Ok(Some([all.value_at_quantile(0.5), all.value_at_quantile(0.99)]))
}

/// Returns a figure with five significant digits, so that the record stays small.
pub(crate) fn rounded(figure: f64) -> f64 {
    format!("{figure:.4e}").parse().unwrap_or(figure)
}

/// Calls between two readings of the clock, if a reading would matter.
const CALLS_UNTIMED: usize = 64;
/// The longest time that is told from longer ones.
const LATENCY_MAX: Duration = Duration::from_secs(60);
/// About as many calls as a round has.
const KEYS_MADE: usize = 1 << 17;
const PANICKED: &str = "a worker panicked";
