//! Sources of random bytes.

use crate::error::{Error, Result};

/// A source of unpredictable random bytes. Closures implement it, so that a test can pass a seeded
/// source and a caller can pass its own.
///
/// If a source returns the same bytes again, nothing that is sealed with them stays secret.
pub trait Entropy {
    /// Fills the whole of `out`.
    ///
    /// # Errors
    /// [`Error::Entropy`] if the source has no random bytes. Nothing may be sealed in that case.
    fn fill(&mut self, out: &mut [u8]) -> Result<()>;
}

impl<F: FnMut(&mut [u8]) -> Result<()>> Entropy for F {
    fn fill(&mut self, out: &mut [u8]) -> Result<()> {
        self(out)
    }
}

/// The operating system's generator (`getrandom` on Linux).
#[derive(Clone, Copy, Debug, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&mut self, out: &mut [u8]) -> Result<()> {
        #[expect(clippy::disallowed_methods, reason = "this is the entropy seam of the crate")]
        getrandom::fill(out).map_err(|error| Error::Entropy { reason: error.to_string() })
    }
}

/// Fills `out`. Returns [`Error::Entropy`] if the source fails, or if all bytes it returned are
/// zero.
pub(crate) fn draw(entropy: &mut dyn Entropy, out: &mut [u8]) -> Result<()> {
    entropy.fill(out)?;
    // A source that reports success without writing to `out` leaves the zeros of the caller there.
    // A random draw of 12 bytes or more is practically never all zeros.
    if out.iter().all(|&byte| byte == 0) {
        return Err(Error::Entropy { reason: "the source returned only zeros".to_owned() });
    }
    Ok(())
}
