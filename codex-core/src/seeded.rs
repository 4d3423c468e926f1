//! The configuration of the property tests inside this crate.

use proptest::test_runner::{Config, RngSeed};

/// Returns the configuration for `cases` random values, multiplied by `CODEX_SCALE`, with the seed
/// `CODEX_SEED` or a fixed one.
pub(crate) fn cases(cases: u32) -> Config {
    let variable = |name: &str| std::env::var(name).ok();
    let scale = variable("CODEX_SCALE").map_or(1.0, |text| text.parse::<f64>().unwrap_or(1.0));
    let seed = variable("CODEX_SEED").map_or(1, |text| text.parse().unwrap_or(1));
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    let cases = (f64::from(cases) * scale) as u32;
    Config {
        cases: cases.max(1),
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..Config::default()
    }
}
