//! Derivation of keys from passphrases (Argon2id) and from other keys (HKDF-SHA256).

use argon2::{Algorithm, Argon2, Block, Params, Version};
use hkdf::{Hkdf, InvalidLength};
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use crate::error::{Error, Result};

/// The costs of trying one passphrase: the parameters of Argon2id version 1.3 (RFC 9106).
///
/// The default is t=3, m=64 MiB, p=4: the second recommended choice of RFC 9106, section 4, and
/// more than the minimum of the OWASP Password Storage Cheat Sheet (t=2, m=19 MiB, p=1). The lanes
/// are filled one after the other on one thread, so p changes the result but not the time.
///
/// Costs below that minimum, or below those of an existing envelope, need
/// [`Key::passphrase_costing_exactly`](crate::Key::passphrase_costing_exactly).
///
/// A value of this type is within the caps, so a header cannot ask for more: at most 16 passes, 1
/// GiB, 16 lanes, and passes times memory at most 4 GiB, which limits the time to some seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KdfCosts {
    t: u32,
    m_kib: u32,
    p: u32,
}

impl KdfCosts {
    /// The minimum number of passes for a new envelope, unless exact costs are requested.
    pub const T_MIN: u32 = 2;
    /// The minimum memory for a new envelope, unless exact costs are requested: 19 MiB, in KiB.
    pub const M_KIB_MIN: u32 = 19 << 10;
    /// The maximum number of passes over the memory.
    pub const T_MAX: u32 = 16;
    /// The maximum memory: 1 GiB, in KiB.
    pub const M_KIB_MAX: u32 = 1 << 20;
    /// The maximum number of lanes.
    pub const P_MAX: u32 = 16;
    /// The maximum work, passes times memory: 4 GiB, in KiB.
    pub const T_M_KIB_MAX: u64 = 4 << 20;

    /// Creates costs of `t` passes over `m_kib` KiB in `p` lanes.
    ///
    /// # Errors
    /// [`Error::KdfTooExpensive`] if the costs exceed the caps. [`Error::KdfCosts`] if they are not
    /// valid for Argon2id (t and p at least 1, m at least 8*p KiB).
    pub fn new(t: u32, m_kib: u32, p: u32) -> Result<Self> {
        let work = u64::from(t) * u64::from(m_kib);
        let beyond = t > Self::T_MAX || m_kib > Self::M_KIB_MAX || p > Self::P_MAX;
        if beyond || work > Self::T_M_KIB_MAX {
            return Err(Error::KdfTooExpensive { t, m_kib, p });
        }
        if t == 0 || p == 0 || m_kib < 8 * p {
            return Err(Error::KdfCosts { t, m_kib, p });
        }
        Ok(Self { t, m_kib, p })
    }

    /// Returns the number of passes over the memory.
    pub fn t(self) -> u32 {
        self.t
    }

    /// Returns the memory, in KiB.
    pub fn m_kib(self) -> u32 {
        self.m_kib
    }

    /// Returns the number of lanes.
    pub fn p(self) -> u32 {
        self.p
    }

    /// Returns the greater value of each parameter.
    ///
    /// # Errors
    /// [`Error::KdfTooExpensive`] if the greater values together exceed the caps.
    pub(crate) fn raised_to(self, old: Self) -> Result<Self> {
        Self::new(self.t.max(old.t), self.m_kib.max(old.m_kib), self.p.max(old.p))
    }
}

impl Default for KdfCosts {
    fn default() -> Self {
        Self { t: 3, m_kib: 64 << 10, p: 4 }
    }
}

/// Hashes a passphrase with Argon2id version 1.3. The memory is wiped before it is freed.
///
/// Returns [`Error::OutOfMemory`] if the memory is not available.
pub(crate) fn argon2id(
    passphrase: &[u8],
    salt: &[u8; 32],
    costs: KdfCosts,
    out: &mut [u8; 32],
) -> Result<()> {
    let KdfCosts { t, m_kib, p } = costs;
    let refused = |_| Error::KdfCosts { t, m_kib, p };
    let params = Params::new(m_kib, t, p, Some(out.len())).map_err(refused)?;
    let count = params.block_count();
    // The memory is allocated here, because the allocation of the library would abort the process
    // if it failed.
    let mut blocks = Vec::new();
    blocks
        .try_reserve_exact(count)
        .map_err(|_| Error::OutOfMemory { bytes: count.saturating_mul(Block::SIZE) })?;
    blocks.resize(count, Block::new());
    let mut blocks = Zeroizing::new(blocks.into_boxed_slice());
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(passphrase, salt, out, &mut **blocks)
        .map_err(refused)
}

/// A pseudorandom key of HKDF-SHA256 (RFC 5869). Keys for separate uses are expanded from it.
pub(crate) struct Prk(Hkdf<Sha256>);

impl Prk {
    /// Extracts a key from `secret`. An empty `salt` is the salt that RFC 5869 calls "not
    /// provided".
    pub(crate) fn extract(salt: &[u8], secret: &[u8]) -> Self {
        let (mut prk, hkdf) = Hkdf::extract(Some(salt), secret);
        // The library returns a second copy of the key, which this crate does not need.
        prk.as_mut_slice().zeroize();
        Self(hkdf)
    }

    /// Fills `out` with the key for one use. All labels have the same length, so two uses never
    /// have the same input, whatever `info` contains.
    pub(crate) fn expand<const N: usize>(&self, label: Label, info: &[&[u8]], out: &mut [u8; N]) {
        const { assert!(N <= 255 * 32, "RFC 5869 ends at 255 blocks") };
        let mut parts = vec![label.bytes().as_slice()];
        parts.extend_from_slice(info);
        #[expect(clippy::expect_used, reason = "the length is checked when compiling")]
        self.fill(&parts, out).expect("at most 255 blocks");
    }

    fn fill(&self, info: &[&[u8]], out: &mut [u8]) -> std::result::Result<(), InvalidLength> {
        self.0.expand_multi_info(info, out)
    }
}

/// The use of a key: the first 24 bytes of the HKDF info.
#[derive(Clone, Copy)]
pub(crate) enum Label {
    Wrap,
    Commit,
    RootId,
    Header,
    Digest,
    Epoch,
}

impl Label {
    fn bytes(self) -> &'static [u8; 24] {
        match self {
            Self::Wrap => b"codex-crypto 1 wrap     ",
            Self::Commit => b"codex-crypto 1 commit   ",
            Self::RootId => b"codex-crypto 1 root id  ",
            Self::Header => b"codex-crypto 1 header   ",
            Self::Digest => b"codex-crypto 1 digest   ",
            Self::Epoch => b"codex-crypto 1 epoch    ",
        }
    }
}

#[cfg(test)]
mod tests;
