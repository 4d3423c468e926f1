//! Keys, values and random numbers.

use codex_bench::Outcome;

use crate::engine::{Engine, Pair};

/// A key.
pub(crate) type Key = [u8; KEY_BYTES];

/// Returns the key `index`, in an order that does not ascend.
pub(crate) fn key(index: u64) -> Key {
    let number = index.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut key = [b'k'; KEY_BYTES];
    for (at, to) in key.iter_mut().skip(1).enumerate() {
        let digit = (number >> (60 - 4 * at)).to_le_bytes()[0] & 15;
        *to = if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
    }
    key
}

/// A key that is not stored, between those that are.
pub(crate) fn missing_key(index: u64) -> Key {
    let mut key = key(index);
    if let Some(last) = key.last_mut() {
        *last = b'-';
    }
    key
}

/// Returns a value of `len` bytes.
pub(crate) fn value(len: usize) -> Vec<u8> {
    vec![0x5A; len]
}

/// Changes a value, since some stores skip a write that changes nothing.
pub(crate) fn change(value: &mut [u8], n: u64) {
    value.iter_mut().zip(n.to_le_bytes()).for_each(|(to, from)| *to = from);
}

/// Returns the entries of these numbers, with values of `len` bytes.
pub(crate) fn pairs(numbers: std::ops::Range<u64>, len: usize) -> Vec<Pair> {
    let pair = |index| {
        let mut value = value(len);
        change(&mut value, index);
        (key(index).to_vec(), value)
    };
    numbers.map(pair).collect()
}

/// Loads the first entries in large batches.
pub(crate) fn fill(engine: &dyn Engine, entries: u64, value_bytes: usize) -> Outcome {
    const BATCH: usize = 20_000;
    for from in (0..entries).step_by(BATCH) {
        engine.load(&pairs(from..entries.min(from + BATCH as u64), value_bytes))?;
    }
    engine.flush()
}

/// A linear congruential generator (Knuth's MMIX).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        random.next();
        random
    }

    /// Returns the next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // The low bits of such a generator have short periods.
        self.0 ^ (self.0 >> 33)
    }

    /// Returns a number below `count`.
    pub(crate) fn below(&mut self, count: u64) -> u64 {
        (self.next() >> 16) % count.max(1)
    }
}

/// The number of bytes of a key.
pub(crate) const KEY_BYTES: usize = 17;
/// The number of bytes of a value, if a row has no other.
pub(crate) const VALUE_BYTES: usize = 100;
