//! Times as people read them, in UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Returns a time in microseconds since 1970 as `2026-11-26T05:30:22Z`, with a fraction if it has
/// one.
pub fn show(time_us: i64) -> String {
    let (seconds, micros) = (time_us.div_euclid(1_000_000), time_us.rem_euclid(1_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let fraction = if micros == 0 { String::new() } else { format!(".{micros:06}") };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// Returns a time in microseconds since 1970.
pub fn to_us(time: SystemTime) -> i64 {
    let us = |distance: Duration| i64::try_from(distance.as_micros()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => us(since),
        Err(before) => -us(before.duration()),
    }
}

/// Returns the time of microseconds since 1970.
pub fn from_us(time_us: i64) -> SystemTime {
    let distance = Duration::from_micros(time_us.unsigned_abs());
    if time_us < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
}

/// Returns how long ago a time in microseconds since 1970 was, in its largest unit.
pub fn ago(time_us: i64) -> String {
    let seconds = to_us(SystemTime::now()).saturating_sub(time_us) / 1_000_000;
    match seconds {
        ..0 => "in the future".to_owned(),
        0..120 => format!("{seconds} s ago"),
        120..7_200 => format!("{} min ago", seconds / 60),
        7_200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// Returns the date of a day, counted from 1970-01-01, in the Gregorian calendar.
fn date(days: i64) -> (i64, i64, i64) {
    // Count from 0000-03-01, so that the leap day is the last day of a year. An era has 400 years.
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    // The lengths of the months from March repeat every five months, which have 153 days.
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month, day)
}

#[cfg(test)]
mod tests {
    use super::{from_us, show, to_us};

    #[test]
    fn times_are_dates() {
        assert_eq!(show(0), "1970-01-01T00:00:00Z");
        assert_eq!(show(951_782_400_000_000), "2000-02-29T00:00:00Z");
        assert_eq!(show(1_795_671_022_000_001), "2026-11-26T05:30:22.000001Z");
        assert_eq!(show(-1), "1969-12-31T23:59:59.999999Z");
        assert_eq!(show(4_107_542_400_000_000), "2100-03-01T00:00:00Z");
        for time_us in [0, -1, 1, 4_107_542_400_000_001, i64::MAX] {
            assert_eq!(to_us(from_us(time_us)), time_us);
        }
    }
}
