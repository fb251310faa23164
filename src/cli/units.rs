//! Sizes and times as people write them.

use std::time::Duration;

/// A size or time that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a size.
    #[error("{0:?} is not a size; write for example 500G, 1.5T or 4096")]
    Size(String),
    /// Not a time.
    #[error("{0:?} is not a time; write for example 30s, 10m, 24h or 7d")]
    Time(String),
}

const SIZES: [(char, u64); 5] = [
    ('K', 1 << 10),
    ('M', 1 << 20),
    ('G', 1 << 30),
    ('T', 1 << 40),
    ('P', 1 << 50),
];

const TIMES: [(char, u64); 4] = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400)];

/// Parses a size in bytes: a number with an optional unit (powers of 1024), e.g. `500G`, `1.5T`, `64KiB`.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let bad = || UnitError::Size(text.to_owned());
    let upper = text.trim().to_ascii_uppercase();
    let bare = upper
        .strip_suffix("IB")
        .or_else(|| upper.strip_suffix('B'))
        .unwrap_or(&upper);
    let (number, unit) = split_unit(bare, &SIZES);
    scale(number, unit.unwrap_or(1)).ok_or_else(bad)
}

/// Parses a time: a number with a unit, e.g. `10m`, `7d`; without a unit, seconds.
pub fn parse_time(text: &str) -> Result<Duration, UnitError> {
    let (number, unit) = split_unit(text.trim(), &TIMES);
    scale(number, unit.unwrap_or(1))
        .map(Duration::from_secs)
        .ok_or_else(|| UnitError::Time(text.to_owned()))
}

fn split_unit<'a>(text: &'a str, units: &[(char, u64)]) -> (&'a str, Option<u64>) {
    for (letter, factor) in units {
        if let Some(number) = text.strip_suffix(*letter) {
            return (number, Some(*factor));
        }
    }
    (text, None)
}

/// `number` × `unit` in whole units, exactly for whole numbers.
fn scale(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let tenths = u128::from(fraction.parse::<u64>().ok()?) * u128::from(unit);
    let part = tenths / 10u128.pow(fraction.len() as u32);
    let whole = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    whole.checked_add(u64::try_from(part).ok()?)
}

/// Shows a size with three digits and a unit, e.g. `1.46 GiB`.
pub fn show_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut unit = 0;
    let mut tenths = u128::from(bytes) * 10;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths = (tenths + 512) / 1024;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} bytes"),
        _ => format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]),
    }
}

/// Shows a time in its largest whole unit, e.g. `7d`, `90s`; parses back to the same.
pub fn show_time(time: Duration) -> String {
    let seconds = time.as_secs();
    let (letter, factor) = TIMES
        .into_iter()
        .rev()
        .find(|(_, factor)| seconds != 0 && seconds.is_multiple_of(*factor))
        .unwrap_or(TIMES[0]);
    format!("{}{letter}", seconds / factor)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("500G", 500 << 30),
            ("1.5T", 3 << 39),
            ("64KiB", 65_536),
            ("2mb", 2 << 20),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in [
            "",
            "G",
            "-1",
            "1e3",
            "1.G",
            "5X",
            "99999999999P",
            "1 G",
            "1.5.5G",
        ] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times() {
        for (text, seconds) in [
            ("5", 5),
            ("10m", 600),
            ("7d", 604_800),
            ("0s", 0),
            ("1.5h", 5400),
        ] {
            assert_eq!(parse_time(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "d", "-1s", "5y", "m5"] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shown_times_parse_back() {
        for seconds in [0, 1, 59, 60, 90, 3600, 86_400, 604_800] {
            let time = Duration::from_secs(seconds);
            assert_eq!(parse_time(&show_time(time)), Ok(time));
        }
        assert_eq!(show_time(Duration::from_hours(168)), "7d");
    }

    #[test]
    fn shown_sizes() {
        assert_eq!(show_size(1023), "1023 bytes");
        assert_eq!(show_size(1 << 20), "1.0 MiB");
        assert_eq!(show_size(3 << 29), "1.5 GiB");
    }
}
