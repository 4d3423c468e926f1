//! Where random bytes come from.

use crate::error::{Error, Result};

/// A source of random bytes that nobody can foresee. Closures are sources too, so that a test
/// can seed one and a layer above can pass its own.
///
/// A source that repeats itself takes the secrecy of everything sealed under it away.
pub trait Entropy {
    /// Fills all of `out`.
    ///
    /// # Errors
    /// [`Error::Entropy`] if the source has none; nothing may be sealed then.
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

/// Fills `out` and refuses an answer of zeros only: a source that forgot to answer.
pub(crate) fn draw(entropy: &mut dyn Entropy, out: &mut [u8]) -> Result<()> {
    entropy.fill(out)?;
    if out.iter().all(|&byte| byte == 0) {
        return Err(Error::Entropy { reason: "the source answered with zeros only".to_owned() });
    }
    Ok(())
}
