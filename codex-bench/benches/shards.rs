//! Whether several logs would be faster than one: the bare group commit over 1, 2 and 4 logs, by
//! number of writers and length of the values. `cargo bench -p codex-bench --bench shards`;
//! `-- --dirs A,B` puts the logs into these directories in turn, to use several disks.
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![allow(clippy::print_stdout, reason = "a program that prints")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use codex_bench::args::Args;
use codex_bench::group::{Grouped, Space};
use codex_bench::numbers::median;
use codex_bench::{Outcome, crew};
use pico_args::Arguments;

/// How much is measured.
struct Scale {
    rounds: usize,
    turn: Duration,
}

/// A number of logs, and the rule by which a commit is acknowledged.
#[derive(Clone, Copy)]
struct Kind {
    logs: usize,
    /// Whether a commit waits until all earlier ones are durable too, in whichever log.
    in_order: bool,
}

const KINDS: [Kind; 5] = [
    Kind { logs: 1, in_order: false },
    Kind { logs: 2, in_order: false },
    Kind { logs: 2, in_order: true },
    Kind { logs: 4, in_order: false },
    Kind { logs: 4, in_order: true },
];

fn main() -> Outcome {
    let mut args = Args::new(Arguments::from_env());
    let is_bench = args.flag("--bench", "measure, instead of only running");
    let dirs: String =
        args.value("--dirs", String::new(), "directories of the logs, with commas between")?;
    if !args.finish("Several logs beside one.")? {
        return Ok(());
    }
    let scale = if is_bench {
        Scale { rounds: 15, turn: Duration::from_millis(60) }
    } else {
        Scale { rounds: 1, turn: Duration::from_millis(1) }
    };
    let own = tempfile::tempdir_in(".")?;
    let dirs: Vec<PathBuf> = match dirs.as_str() {
        "" => vec![own.path().to_owned()],
        dirs => dirs.split(',').map(PathBuf::from).collect(),
    };
    println!("durable commits a second over several logs, as a ratio to one log, medians of");
    println!("{} rounds in turn; in order: acknowledged after all earlier commits", scale.rounds);
    println!("value    writers   one log    2 logs  in order    4 logs  in order");
    for (name, len) in [("100 B", 100), ("10 KiB", 10 << 10), ("1 MiB", 1 << 20)] {
        for writers in [1, 8, 32, 64] {
            let figures = measure(&scale, &dirs, len, writers)?;
            let [one, rest @ ..] = figures.as_slice() else { continue };
            print!("{name:<8} {writers:>7} {one:>9.0}");
            for ratio in rest {
                print!("{ratio:>10.2}");
            }
            println!();
        }
    }
    Ok(())
}

/// Returns the rate of one log, and the ratios of the others.
fn measure(scale: &Scale, dirs: &[PathBuf], len: usize, writers: usize) -> Outcome<Vec<f64>> {
    let logs: Vec<Logs> =
        KINDS.iter().map(|kind| Logs::new(*kind, dirs)).collect::<Outcome<_>>()?;
    let mut columns = vec![Vec::new(); KINDS.len()];
    for _ in 0..scale.rounds {
        let mut one = 0.0;
        for (column, logs) in columns.iter_mut().zip(&logs) {
            let rate = crew::rate(writers, scale.turn, |_, _| logs.commit(vec![7; len]))?;
            if logs.kind.logs == 1 {
                one = rate;
                column.push(rate);
            } else {
                column.push(rate / one);
            }
        }
    }
    Ok(columns.iter().map(|column| median(column).unwrap_or_default()).collect())
}

/// Some logs that share one order of commits.
struct Logs {
    kind: Kind,
    each: Vec<Grouped>,
    order: Mutex<Order>,
    advanced: Condvar,
}

#[derive(Default)]
struct Order {
    /// The number of the next commit.
    next: u64,
    /// The number below which all commits are durable.
    durable: u64,
    /// Commits that are durable before an earlier one is.
    early: BTreeSet<u64>,
}

impl Logs {
    fn new(kind: Kind, dirs: &[PathBuf]) -> Outcome<Self> {
        let logs = dirs.iter().cycle().enumerate().take(kind.logs).map(|(n, dir)| {
            let path = dir.join(format!("log.{}.{}.{n}", kind.logs, kind.in_order));
            Ok(Grouped::new(Space::new(&path, true)?))
        });
        let each = logs.collect::<Outcome<_>>()?;
        Ok(Self { kind, each, order: Mutex::default(), advanced: Condvar::new() })
    }

    /// Writes one commit to the next log, and waits as the rule says.
    fn commit(&self, bytes: Vec<u8>) -> Outcome {
        let number = {
            let mut order = self.order.lock().unwrap();
            order.next += 1;
            order.next - 1
        };
        let log = usize::try_from(number)? % self.each.len();
        self.each.get(log).ok_or("a log is missing")?.write(bytes)?;
        if !self.kind.in_order {
            return Ok(());
        }
        let mut order = self.order.lock().unwrap();
        order.early.insert(number);
        while order.early.first() == Some(&order.durable) {
            order.early.pop_first();
            order.durable += 1;
        }
        self.advanced.notify_all();
        while order.durable <= number {
            order = self.advanced.wait(order).unwrap();
        }
        Ok(())
    }
}
