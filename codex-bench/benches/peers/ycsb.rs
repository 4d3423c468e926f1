//! The workloads A to F of the Yahoo Cloud Serving Benchmark.

use codex_bench::Outcome;

use crate::data::{self, Random};
use crate::engine::Engine;
use crate::turns::Worker;

/// A workload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mix {
    pub(crate) name: &'static str,
    /// The share of reads of each 100 calls.
    reads: u64,
    /// The work of the other calls.
    other: Call,
    /// Reads concern keys that were inserted last, rather than keys that are always popular.
    latest: bool,
}

#[derive(Debug, Clone, Copy)]
enum Call {
    Update,
    Insert,
    /// 95 scans of each 100 calls, the others insert.
    Scan,
    ReadThenWrite,
}

/// The workloads, those that insert at the end.
pub(crate) const MIXES: [Mix; 6] = [
    Mix { name: "A", reads: 50, other: Call::Update, latest: false },
    Mix { name: "B", reads: 95, other: Call::Update, latest: false },
    Mix { name: "C", reads: 100, other: Call::Update, latest: false },
    Mix { name: "F", reads: 50, other: Call::ReadThenWrite, latest: false },
    Mix { name: "D", reads: 95, other: Call::Insert, latest: true },
    Mix { name: "E", reads: 0, other: Call::Scan, latest: false },
];

/// The zipfian ranks of the calls, computed before because they take longer than a read.
pub(crate) struct Zipf {
    ranks: Vec<u64>,
}

impl Zipf {
    /// Returns ranks below `count`: rank n with a probability proportional to 1 / (n + 1)^0.99.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "ranks are far below 2^52 and not negative"
    )]
    pub(crate) fn new(count: u64) -> Self {
        // "Quickly generating billion-record synthetic databases", Gray et al. 1994.
        let zeta = |n: u64| (1..=n).map(|i| (i as f64).powf(-THETA)).sum::<f64>();
        let (all, two) = (zeta(count), zeta(2));
        let alpha = 1.0 / (1.0 - THETA);
        let eta = (1.0 - (2.0 / count as f64).powf(1.0 - THETA)) / (1.0 - two / all);
        let mut random = Random::new(1);
        let rank = |_| {
            let u = (random.next() >> 11) as f64 / (1_u64 << 53) as f64;
            match u * all {
                uz if uz < 1.0 => 0,
                uz if uz < two => 1,
                _ => ((count as f64 * (eta * u - eta + 1.0).powf(alpha)) as u64).min(count - 1),
            }
        };
        Self { ranks: (0..RANKS).map(rank).collect() }
    }

    fn rank(&self, random: &mut Random) -> u64 {
        let at = usize::try_from(random.below(RANKS)).unwrap_or(0);
        self.ranks.get(at).copied().unwrap_or(0)
    }
}

/// Makes one call of a workload on a store into which `records` records were loaded.
pub(crate) fn call(
    mix: Mix,
    zipf: &Zipf,
    records: u64,
    engine: &dyn Engine,
    worker: &mut Worker,
) -> Outcome {
    let dice = worker.random.below(100);
    let rank = zipf.rank(&mut worker.random);
    if dice < mix.reads {
        let number =
            if mix.latest { latest(rank, records, mix, worker) } else { popular(rank, records) };
        return match engine.get(&data::key(number))? {
            Some(_) => Ok(()),
            None => Err("a record is missing".into()),
        };
    }
    let mut value = data::value(RECORD_BYTES);
    data::change(&mut value, worker.random.next());
    let key = data::key(popular(rank, records));
    match mix.other {
        Call::Update => engine.set(&key, &value),
        Call::ReadThenWrite => {
            engine.get(&key)?;
            engine.set(&key, &value)
        }
        Call::Scan if dice < 95 => {
            let (mut left, mut bytes) = (1 + worker.random.below(100), 0);
            engine.scan(&key, &mut |key, value| {
                bytes += key.len() + value.len();
                left -= 1;
                left > 0
            })
        }
        Call::Insert | Call::Scan => {
            worker.inserted += 1;
            engine.set(&data::key(own(worker.inserted, records, mix, worker)), &value)
        }
    }
}

/// Returns the number of the record with this rank if the popular ones are spread over all.
fn popular(rank: u64, records: u64) -> u64 {
    rank.wrapping_mul(0x5851_F42D_4C95_7F2D) % records
}

/// Returns the number of the record with this rank if the newest are the popular ones: first those
/// that this worker has inserted, then the loaded ones.
fn latest(rank: u64, records: u64, mix: Mix, worker: &Worker) -> u64 {
    match rank.checked_sub(worker.inserted) {
        None => own(worker.inserted - rank, records, mix, worker),
        Some(rank) => records - 1 - rank % records,
    }
}

/// Returns the number of the record that this worker inserts as its `nth`, from 1.
fn own(nth: u64, records: u64, mix: Mix, worker: &Worker) -> u64 {
    let workload = mix.name.bytes().map(u64::from).sum::<u64>();
    records + (workload << 40) + ((worker.index as u64) << 32) + nth
}

/// The number of bytes of a record: ten fields of 100 bytes.
pub(crate) const RECORD_BYTES: usize = 1_000;
const THETA: f64 = 0.99;
const RANKS: u64 = 1 << 18;
