//! What encryption costs: durable sets and opening, plain against encrypted, medians of rounds
//! that take turns.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a measurement fails by panicking, prints, and reads the clock"
)]

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use codex_core::crypto::Key;
use codex_core::{Batch, OpenOptions, Result, Store};

/// How much is measured.
#[derive(Clone, Copy)]
struct Scale {
    /// Rounds of each kind; the median counts.
    rounds: usize,
    /// Durable sets of one writer in a round; of 32 writers each makes a quarter of it.
    sets: u32,
    /// Entries of the store that is opened.
    entries: u32,
}

fn main() {
    // Without `cargo bench`, only whether it runs.
    let scale = if std::env::args().any(|word| word == "--bench") {
        Scale { rounds: 7, sets: 2_000, entries: 1_000_000 }
    } else {
        Scale { rounds: 1, sets: 40, entries: 20_000 }
    };
    let folder = tempfile::tempdir().unwrap();
    for writers in [1, 32] {
        compare(scale, &format!("durable sets, {writers} writers, us each"), |sealed, round| {
            let path = folder.path().join(format!("{writers}.{sealed}.{round}"));
            sets(scale, &path, sealed, writers)
        });
    }
    for sealed in [false, true] {
        fill(scale, &folder.path().join(format!("million.{sealed}")), sealed).unwrap();
    }
    compare(scale, &format!("opening {} keys, ms", scale.entries), |sealed, _| {
        let path = folder.path().join(format!("million.{sealed}"));
        let from = Instant::now();
        let store = options(sealed).open(path).unwrap();
        let took = from.elapsed();
        assert_eq!(u32::try_from(store.len()), Ok(scale.entries));
        took.as_secs_f64() * 1e3
    });
}

/// Prints the medians of plain and encrypted rounds that took turns, and their ratio.
fn compare(scale: Scale, what: &str, mut round: impl FnMut(bool, usize) -> f64) {
    let mut times = [Vec::new(), Vec::new()];
    for n in 0..scale.rounds {
        for (sealed, times) in times.iter_mut().enumerate() {
            times.push(round(sealed == 1, n));
        }
    }
    let [plain, sealed] = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times.get(scale.rounds / 2).copied().unwrap_or_default()
    });
    println!("{what}: plain {plain:.1}, encrypted {sealed:.1}, ratio {:.3}", sealed / plain);
}

fn options(sealed: bool) -> OpenOptions {
    let options = Store::options();
    if sealed { options.key(Key::raw(&[7; 32]).unwrap()) } else { options }
}

/// Microseconds a set.
fn sets(scale: Scale, path: &Path, sealed: bool, writers: u32) -> f64 {
    let store = options(sealed).open(path).unwrap();
    let each = if writers == 1 { scale.sets } else { scale.sets / 4 };
    let from = Instant::now();
    std::thread::scope(|scope| {
        for writer in 0..writers {
            let store = store.clone();
            scope.spawn(move || {
                for n in 0..each {
                    let key = format!("key {writer:05} {n:06}");
                    store.set_bytes(&key, black_box([n.to_le_bytes()[0]; 100])).unwrap();
                }
            });
        }
    });
    from.elapsed().as_secs_f64() * 1e6 / f64::from(each * writers)
}

/// A store that closes with its image.
fn fill(scale: Scale, path: &Path, sealed: bool) -> Result<()> {
    let store = options(sealed).open(path)?;
    for from in (0..scale.entries).step_by(10_000) {
        let mut batch: Batch = store.batch();
        for n in from..from + 10_000 {
            batch.set_bytes(format!("key {n:013}"), [n.to_le_bytes()[0]; 100])?;
        }
        batch.commit()?;
    }
    store.checkpoint()?;
    store.close()
}
