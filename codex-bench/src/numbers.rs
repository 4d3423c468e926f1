//! The format of numbers in the reports, and their statistics.

use std::time::Duration;

use indicatif::HumanCount;

/// Formats `1234567` as `1,234,567`.
pub fn grouped(n: u64) -> String {
    HumanCount(n).to_string()
}

/// Returns `count` per second of `elapsed`, as a whole number.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate for people; counts are far below 2^52 and not negative"
)]
pub fn rate(count: u64, elapsed: Duration) -> u64 {
    (count as f64 / elapsed.as_secs_f64().max(1e-9)) as u64
}

/// Formats a duration with a suitable unit.
pub fn span(duration: Duration) -> String {
    let us = duration.as_secs_f64() * 1e6;
    match us {
        us if us < 1e3 => format!("{us:.1} us"),
        us if us < 1e6 => format!("{:.1} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

/// Formats `numerator / denominator` with one decimal, or `-` if the denominator is 0.
#[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
pub fn ratio(numerator: u64, denominator: u64) -> String {
    match denominator {
        0 => "-".into(),
        _ => format!("{:.1}", numerator as f64 / denominator as f64),
    }
}

/// Returns the value below which `part / whole` of the values lie.
pub fn quantile<T: Ord + Copy>(values: &[T], part: usize, whole: usize) -> Option<T> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().checked_sub(1)?;
    sorted.get(last * part / whole).copied()
}

/// Returns the median of some figures, which are not negative.
pub fn median(figures: &[f64]) -> Option<f64> {
    // The bits of numbers that are not negative have their order.
    let bits: Vec<u64> = figures.iter().map(|figure| figure.to_bits()).collect();
    quantile(&bits, 1, 2).map(f64::from_bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(span(Duration::from_micros(1_500)), "1.5 ms");
        assert_eq!(ratio(3, 2), "1.5");
        assert_eq!(ratio(3, 0), "-");
        assert_eq!(rate(100, Duration::from_secs(2)), 50);
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(quantile::<u64>(&[], 1, 2), None);
        assert_eq!(quantile(&[3, 1, 2], 1, 2), Some(2));
        assert_eq!(quantile(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], 9, 10), Some(10));
    }
}
