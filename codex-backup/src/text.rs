//! The text of the records that this crate writes: bytes as hexadecimal digits, and times.

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// Returns a time in microseconds since 1970 as text, such as `2026-01-31 09:05:00.250000 UTC`.
#[cfg(feature = "remote")]
pub(crate) fn utc(time_us: i64) -> String {
    let (days, us) = (time_us.div_euclid(DAY_US), time_us.rem_euclid(DAY_US));
    // Years begin in March here, so that a leap day ends one. An era has 400 of them.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, is_next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let (year, seconds) = (era * 400 + year + is_next, us / 1_000_000);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}.{:06} UTC",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60,
        us % 1_000_000
    )
}

#[cfg(feature = "remote")]
const DAY_US: i64 = 24 * 60 * 60 * 1_000_000;

#[cfg(all(test, feature = "remote"))]
mod tests {
    use super::utc;

    #[test]
    fn a_time_is_shown_as_a_date() {
        for (time_us, text) in [
            (0, "1970-01-01 00:00:00.000000 UTC"),
            (-1, "1969-12-31 23:59:59.999999 UTC"),
            (951_782_400_000_000, "2000-02-29 00:00:00.000000 UTC"),
            (1_709_251_199_250_000, "2024-02-29 23:59:59.250000 UTC"),
            (4_107_542_400_000_000, "2100-03-01 00:00:00.000000 UTC"),
            (i64::MIN, "-290308-12-21 19:59:05.224192 UTC"),
        ] {
            assert_eq!(utc(time_us), text);
        }
    }
}
