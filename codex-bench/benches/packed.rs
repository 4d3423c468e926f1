//! The cost and the gain of compression: sizes of images, checkpoints and openings for three kinds
//! of values, and durable sets beside those without it.
//! `cargo bench -p codex-bench --bench packed`.
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![allow(clippy::print_stdout, reason = "a program that prints")]
#![expect(clippy::cast_precision_loss, reason = "ratios and rates need no exact digits")]

use std::path::Path;
use std::time::{Duration, Instant};

use codex_bench::crew;
use codex_bench::numbers::median;
use codex_core::{Compression, Form, Store};

/// How much is measured.
struct Scale {
    rounds: usize,
    entries: u64,
    /// The duration of the sets of one store in a round.
    turn: Duration,
}

/// A value of about 200 bytes for an entry.
type Value = fn(u64) -> Vec<u8>;

const VALUES: [(&str, Value); 3] =
    [("JSON", json as Value), ("bincode", bincode), ("random bytes", random)];

fn main() {
    let scale = if std::env::args().any(|word| word == "--bench") {
        Scale { rounds: 21, entries: 300_000, turn: Duration::from_millis(100) }
    } else {
        Scale { rounds: 1, entries: 2_000, turn: Duration::from_millis(1) }
    };
    let folder = tempfile::tempdir().unwrap();
    println!("{} entries; with LZ4, as a ratio to without", scale.entries);
    println!("values        image bytes  checkpoint   open");
    for (name, value) in VALUES {
        let [size, checkpoint, open] = whole(&scale, folder.path(), value);
        println!("{name:<13} {size:>11.2} {checkpoint:>11.2} {open:>6.2}");
    }
    println!("durable sets a second with LZ4, as a ratio to without");
    println!("values        form    writers  ratio");
    for (name, value) in VALUES {
        for (form, writers) in
            [(Form::Wal, 1), (Form::Wal, 32), (Form::Ledger, 1), (Form::Ledger, 32)]
        {
            let ratio = sets(&scale, folder.path(), form, writers, value);
            println!("{name:<13} {:<7} {writers:>7}  {ratio:.2}", form.to_string());
        }
    }
}

/// Returns the size of the image and the times of a checkpoint and of an opening.
fn whole(scale: &Scale, folder: &Path, value: Value) -> [f64; 3] {
    let mut figures = Vec::new();
    for _ in 0..scale.rounds.min(5) {
        let of = [Compression::None, Compression::Lz4].map(|compression| {
            let path = folder.join(format!("whole.{compression}"));
            let options = Store::options().compression(compression);
            let store = options.open(&path).unwrap();
            for from in (0..scale.entries).step_by(1000) {
                let mut batch = store.batch();
                for n in from..from + 1000 {
                    batch.set_bytes(format!("user:{n:012}"), value(n)).unwrap();
                }
                batch.commit().unwrap();
            }
            let from = Instant::now();
            store.checkpoint().unwrap();
            let checkpoint = from.elapsed();
            let bytes = std::fs::metadata(&path).unwrap().len();
            store.close().unwrap();
            let from = Instant::now();
            drop(options.open(&path).unwrap());
            let open = from.elapsed();
            Store::destroy(&path).unwrap();
            [bytes as f64, checkpoint.as_secs_f64(), open.as_secs_f64()]
        });
        let [plain, packed] = of;
        figures.push([0, 1, 2].map(|at: usize| {
            packed.get(at).copied().unwrap_or_default() / plain.get(at).copied().unwrap_or(1.0)
        }));
    }
    [0, 1, 2].map(|at: usize| {
        let column: Vec<_> = figures.iter().filter_map(|row| row.get(at).copied()).collect();
        median(&column).unwrap_or_default()
    })
}

/// Returns the rate of sets with compression, as the median of the ratios of turns to those
/// without.
fn sets(scale: &Scale, folder: &Path, form: Form, writers: usize, value: Value) -> f64 {
    let stores = [Compression::None, Compression::Lz4].map(|compression| {
        let path = folder.join(format!("sets.{form}.{writers}.{compression}"));
        Store::options().form(form).compression(compression).open(path).unwrap()
    });
    let turn = |store: &Store, round: usize| {
        let rate = crew::rate(writers, scale.turn, |worker, call| {
            let n = (worker * 1_000_003 + round * 10_007) as u64 + call;
            store.set_bytes(format!("user:{:012}", n % 10_000), value(n))?;
            Ok(())
        });
        rate.unwrap()
    };
    let [plain, packed] = &stores;
    let ratios: Vec<f64> = (0..scale.rounds)
        .map(|round| {
            // Each goes first in every other round: what the first leaves to the disk slows the
            // second.
            if round % 2 == 0 {
                let plain = turn(plain, round);
                turn(packed, round) / plain
            } else {
                let packed = turn(packed, round);
                packed / turn(plain, round)
            }
        })
        .collect();
    median(&ratios).unwrap_or_default()
}

fn json(n: u64) -> Vec<u8> {
    let (name, city) = (mixed(n) % 1000, mixed(n + 1) % 100);
    format!(
        "{{\"id\":{n},\"name\":\"user {name}\",\"email\":\"user.{name}@example.com\",\
         \"city\":\"city {city}\",\"active\":{},\"score\":{}.5,\"tags\":[\"reader\",\"writer\"],\
         \"created\":\"2026-11-{:02}T12:{:02}:00Z\"}}",
        n.is_multiple_of(3),
        mixed(n) % 10_000,
        n % 28 + 1,
        n % 60,
    )
    .into_bytes()
}

/// The fields of [`json`] without their names, as numbers and texts with their lengths.
fn bincode(n: u64) -> Vec<u8> {
    let name = mixed(n) % 1000;
    let texts = [
        format!("user {name}"),
        format!("user.{name}@example.com"),
        format!("city {}", mixed(n + 1) % 100),
        "reader".to_owned(),
        "writer".to_owned(),
    ];
    let mut bytes = n.to_le_bytes().to_vec();
    for text in texts {
        bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    for number in [n % 3, mixed(n) % 10_000, 1_795_000_000_000_000 + 60_000_000 * n] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes
}

fn random(n: u64) -> Vec<u8> {
    (0..25).flat_map(|word| mixed(n * 25 + word).to_le_bytes()).collect()
}

/// Returns a number that looks random (the finalizer of `SplitMix64`).
fn mixed(n: u64) -> u64 {
    let n = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let n = (n ^ n >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let n = (n ^ n >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ n >> 31
}
