//! Sources of random bytes: the operating system, and a seeded generator for tests.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Entropy;

/// The random bytes of the operating system, suitable for keys.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&self, buf: &mut [u8]) -> io::Result<()> {
        #[expect(clippy::disallowed_methods, reason = "this is the seam that the lint points to")]
        getrandom::fill(buf).map_err(io::Error::from)
    }
}

/// Random bytes that are determined by a seed, for tests and simulations. Never use it for keys:
/// eight bytes of the output reveal all later ones.
///
/// The generator is splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number
/// generators", 2014).
#[derive(Debug)]
pub struct SeededEntropy {
    state: AtomicU64,
}

impl SeededEntropy {
    /// Returns a generator at the start of the sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { state: AtomicU64::new(seed) }
    }

    /// Returns the next number. All 2^64 values are equally likely.
    pub fn next_u64(&self) -> u64 {
        let before = self.state.fetch_add(SPLITMIX_STEP, Ordering::Relaxed);
        mix(before.wrapping_add(SPLITMIX_STEP))
    }

    /// Returns the next number below `bound`, or 0 if `bound` is 0, which it must not be. The bias
    /// is below `bound` / 2^64.
    pub fn below(&self, bound: u64) -> u64 {
        let wide = u128::from(self.next_u64()) * u128::from(bound);
        u64::try_from(wide >> 64).unwrap_or(0)
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, buf: &mut [u8]) -> io::Result<()> {
        for chunk in buf.chunks_mut(8) {
            for (to, from) in chunk.iter_mut().zip(self.next_u64().to_le_bytes()) {
                *to = from;
            }
        }
        Ok(())
    }
}

/// The finalizer of splitmix64: a bijection in which every input bit affects every output bit.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

const SPLITMIX_STEP: u64 = 0x9E37_79B9_7F4A_7C15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeded_entropy_gives_the_published_splitmix_sequence() {
        // The first three outputs for the seed 1234567, as in the reference implementation.
        let entropy = SeededEntropy::new(1_234_567);
        let got = [entropy.next_u64(), entropy.next_u64(), entropy.next_u64()];
        assert_eq!(
            got,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
        let bytes = |seed| {
            let mut buf = [0; 37];
            SeededEntropy::new(seed).fill(&mut buf).unwrap();
            buf
        };
        assert_eq!(bytes(1), bytes(1));
        assert_ne!(bytes(1), bytes(2));
    }

    #[test]
    fn os_entropy_does_not_repeat_itself() {
        let (mut a, mut b) = ([0; 32], [0; 32]);
        OsEntropy.fill(&mut a).unwrap();
        OsEntropy.fill(&mut b).unwrap();
        assert_ne!(a, b);
    }
}
