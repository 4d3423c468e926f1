//! The cost of encryption: durable sets and opening, plain against encrypted, medians of rounds
//! that take turns; and the speed of the ciphers beside it.
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

use codex_core::{Batch, Form, OpenOptions, Result, Store};
use codex_crypto::{Cipher, Envelope, EpochSalt, Key, OsEntropy, TAG_LEN};

/// How much is measured.
#[derive(Clone, Copy)]
struct Scale {
    /// Rounds of durable sets, each with one store of each kind in turn.
    rounds: usize,
    /// Durable sets of all writers together in a round of one kind.
    sets: u32,
    /// How often each store is opened.
    opens: usize,
    /// Entries of the store that is opened.
    entries: u32,
}

fn main() {
    // Without `cargo bench`, only whether it runs.
    let scale = if std::env::args().any(|word| word == "--bench") {
        Scale { rounds: 151, sets: 320, opens: 15, entries: 1_000_000 }
    } else {
        Scale { rounds: 2, sets: 32, opens: 1, entries: 20_000 }
    };
    let folder = tempfile::tempdir().unwrap();
    for (form, writers) in [
        (Form::Wal, 1_u32),
        (Form::Wal, 8),
        (Form::Wal, 32),
        (Form::Ledger, 1),
        (Form::Ledger, 8),
        (Form::Ledger, 32),
    ] {
        let [plain, encrypted] = [false, true].map(|sealed| {
            let name = format!("{form}.{writers}.{sealed}");
            options(sealed).form(form).open(folder.path().join(name)).unwrap()
        });
        // More writers are faster: as long a round for each.
        let each = scale.sets * writers.isqrt() / writers;
        let what = format!("durable sets, {form}, threads: {writers}, us each");
        compare(scale.rounds, &what, |sealed, round| {
            sets(if sealed { &encrypted } else { &plain }, writers, each, round)
        });
    }
    for sealed in [false, true] {
        fill(scale, &folder.path().join(format!("million.{sealed}")), sealed).unwrap();
    }
    compare(scale.opens, &format!("opening {} keys, ms", scale.entries), |sealed, _| {
        let path = folder.path().join(format!("million.{sealed}"));
        let from = Instant::now();
        let store = options(sealed).open(path).unwrap();
        let took = from.elapsed();
        assert_eq!(u32::try_from(store.len()), Ok(scale.entries));
        took.as_secs_f64() * 1e3
    });
    for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
        for len in [128, 4 << 10, 256 << 10] {
            let us = seal(cipher, len, scale.rounds);
            println!("{cipher:?}: {len} bytes sealed in {us:.2} us, {:.0} MB/s", len as f64 / us);
        }
    }
}

/// Returns the median time for sealing `len` bytes, in microseconds.
fn seal(cipher: Cipher, len: usize, rounds: usize) -> f64 {
    let (_, root) = Envelope::create(&key(), cipher, b"bench", &mut OsEntropy).unwrap();
    let sealer = root.sealer(EpochSalt::draw(&mut OsEntropy).unwrap(), b"bench");
    let mut buf = Vec::with_capacity(len + TAG_LEN);
    let round = |_| {
        let from = Instant::now();
        for _ in 0..20 {
            buf.resize(len, 0);
            let nonce = sealer.next_nonce().unwrap();
            sealer.seal(nonce, black_box(&[1; 64]), &mut buf, 0).unwrap();
        }
        from.elapsed().as_secs_f64() * 1e6 / 20.0
    };
    quartiles((0..rounds).map(round).collect())[1]
}

/// Prints the medians of plain and encrypted rounds that took turns, and how they compare.
fn compare(rounds: usize, what: &str, mut round: impl FnMut(bool, usize) -> f64) {
    let (mut plain, mut sealed, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..rounds {
        // Each goes first in every other round: what the first leaves to the disk slows the second.
        let first = round(n % 2 == 1, n);
        let second = round(n % 2 == 0, n);
        let (one, other) = if n % 2 == 0 { (first, second) } else { (second, first) };
        plain.push(one);
        sealed.push(other);
        ratios.push(other / one);
    }
    let [plain, sealed] = [plain, sealed].map(|times| quartiles(times)[1]);
    let [low, ratio, high] = quartiles(ratios);
    println!(
        "{what}: plain {plain:.1}, encrypted {sealed:.1}, {:.3} times; round by round {ratio:.3}, \
         half of them within {low:.3} to {high:.3}",
        sealed / plain
    );
}

/// Returns the values at a quarter, half and three quarters of all.
fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|part| values.get(values.len() * part / 4).copied().unwrap_or_default())
}

fn options(sealed: bool) -> OpenOptions {
    let options = Store::options();
    if sealed { options.key(key()) } else { options }
}

fn key() -> Key {
    Key::raw(&[7; 32]).unwrap()
}

/// Microseconds a set.
fn sets(store: &Store, writers: u32, each: u32, round: usize) -> f64 {
    let from = Instant::now();
    std::thread::scope(|scope| {
        for writer in 0..writers {
            scope.spawn(move || {
                for n in 0..each {
                    let key = format!("key {writer:05} {n:06}");
                    store.set_bytes(&key, black_box([round.to_le_bytes()[0]; 100])).unwrap();
                }
            });
        }
    });
    from.elapsed().as_secs_f64() * 1e6 / f64::from(each * writers)
}

/// Returns a store that writes an image when it closes.
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
