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

/// Returns the time that is written as in RFC 3339, such as `2026-11-26T05:30:22.5+01:00`, in
/// microseconds since 1970. The seconds, and the whole time of the day, may be left out; without an
/// offset the time is UTC, which the errors of the library write out.
#[must_use]
pub fn parse(text: &str) -> Option<i64> {
    let number = |text: &str, len: usize| {
        let is_number = text.len() == len && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<i64>().ok().filter(|_| is_number)
    };
    let text = text.strip_suffix(" UTC").unwrap_or(text);
    let (day, time) = text.split_once(['T', 't', ' ']).unwrap_or((text, "00:00"));
    let mut parts = day.split('-');
    let (year, month, day) =
        (number(parts.next()?, 4)?, number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    // The days of one year are tried, so that there is one calendar only.
    let guess = (year - 1970) * 146_097 / 400 + (month - 1) * 30 + day;
    let days = (guess - 40..guess + 40).find(|days| date(*days) == (year, month, day))?;
    if parts.next().is_some() {
        return None;
    }
    let (time, offset) = match time.find(['Z', 'z', '+', '-']) {
        Some(at) => time.split_at(at),
        None => (time, "Z"),
    };
    let offset = match offset.split_at_checked(1)? {
        ("Z" | "z", "") => 0,
        (sign, offset) => {
            let (hours, minutes) = offset.split_once(':')?;
            let minutes = number(hours, 2)? * 60 + number(minutes, 2)?;
            if sign == "-" { -minutes } else { minutes }
        }
    };
    let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut parts = clock.split(':');
    let (hour, minute) = (number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let second = parts.next().map_or(Some(0), |second| number(second, 2))?;
    let is_whole = parts.next().is_none() && (fraction.is_empty() || clock.len() == 8);
    if !is_whole || hour > 23 || minute > 59 || second > 59 || fraction.len() > 9 {
        return None;
    }
    // Digits after the microsecond are left out.
    let micros = number(format!("{fraction:0<9}").get(..6)?, 6)?;
    let minutes = (days * 24 + hour) * 60 + minute - offset;
    Some((minutes * 60 + second) * 1_000_000 + micros)
}

/// Returns a time span such as `90s`, `15min`, `2h`, `1h30m` or `7d`.
#[must_use]
pub fn parse_span(text: &str) -> Option<Duration> {
    let (mut rest, mut sum) = (text.trim(), Duration::ZERO);
    loop {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let after = after.trim_start();
        let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let seconds: u64 = match unit {
            "s" | "sec" => 1,
            "m" | "min" => 60,
            "h" => 3600,
            "d" | "day" | "days" => 86_400,
            "w" => 604_800,
            _ => return None,
        };
        let span = number.parse::<u64>().ok()?.checked_mul(seconds)?;
        sum = sum.checked_add(Duration::from_secs(span))?;
        rest = after.trim_start();
        if rest.is_empty() {
            // No time of a store is further from the present.
            return Some(sum).filter(|sum| sum.as_secs() < 100 * 366 * 86_400);
        }
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
    use std::time::Duration;

    use super::{from_us, parse, parse_span, show, to_us};

    #[test]
    fn times_that_are_shown_can_be_typed() {
        for time_us in [0, -1, 951_782_400_000_000, 1_795_671_022_000_001, 4_107_542_400_000_000] {
            assert_eq!(parse(&show(time_us)), Some(time_us));
        }
        let whole = parse("2026-11-26T05:30:00Z");
        assert!(whole.is_some());
        assert_eq!(parse("2026-11-26 05:30"), whole);
        assert_eq!(parse("2026-11-26 05:30:00.000000 UTC"), whole);
        assert_eq!(parse("2026-11-26t06:30:00.000+01:00"), whole);
        assert_eq!(parse("2026-11-26T04:00:00-01:30"), whole);
        assert_eq!(parse("1970-01-02"), Some(86_400_000_000));
        assert_eq!(parse("1970-01-01T00:00:00.123456789Z"), Some(123_456));
        assert_eq!(parse("9999-12-31").map(show).as_deref(), Some("9999-12-31T00:00:00Z"));
        assert_eq!(parse("0001-01-01").map(show).as_deref(), Some("0001-01-01T00:00:00Z"));
        for text in [
            "",
            "2026",
            "2026-02-29",
            "2026-13-01",
            "2026-1-1",
            "2026-11-26T24:00",
            "+026-11-26",
            "2026-11-26T05:60",
            "2026-11-26T05:30:22.1234567890Z",
            "2026-11-26T05:30Zx",
            "2026-11-26T05",
            "2026-11-26T05:30+1",
            "2026-11-26T05:30.5",
            "2026-11-26-01",
            "2026-11-26T05:30:22:01",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn spans_have_units() {
        let seconds = |text| parse_span(text).map(|span| span.as_secs());
        assert_eq!(seconds("90s"), Some(90));
        assert_eq!(seconds("1h30m"), Some(5400));
        assert_eq!(seconds(" 2 days "), Some(172_800));
        assert_eq!(seconds("1w 1min"), Some(604_860));
        assert_eq!(parse_span("0s"), Some(Duration::ZERO));
        for text in ["", "5", "h", "-1h", "1y", "1h5", "1.5h", "99999999999999999999s", "9999999w"]
        {
            assert_eq!(parse_span(text), None, "{text}");
        }
    }

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
