//! Durations as operators write them: a number and a unit, or keepalived's decimal seconds.

use std::time::Duration;

/// Longest duration a configuration may name: a week. Longer ones are typing errors, and sums of
/// a few stay far from overflow.
pub(crate) const MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// "250ms", "1.5s", "2m", "1h": no space needed, at least one digit. Errors say what to write.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let unit_at = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let nanos_per_unit: u128 = match unit.trim() {
        "us" | "µs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "" => return Err("a duration needs a unit: ms, s, m or h, as in \"1s\"".to_owned()),
        other => return Err(format!("unknown unit `{other}`: use ms, s, m or h, as in \"1s\"")),
    };
    scaled(number, nanos_per_unit)
}

/// keepalived's timers: decimal seconds.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    scaled(text, 1_000_000_000)
}

/// Decimal number times unit, exact to the nanosecond.
fn scaled(number: &str, nanos_per_unit: u128) -> Result<Duration, String> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits_only = |part: &str| part.bytes().all(|octet| octet.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits_only(whole) || !digits_only(fraction) {
        return Err(format!("`{number}` is not a number"));
    }
    let too_long = || "longer than a week".to_owned();
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| too_long())? };
    // Digits beyond a nanosecond of an hour change nothing.
    let fraction = &fraction[..fraction.len().min(15)];
    let scale = 10u128.pow(fraction.len() as u32);
    let part: u128 = if fraction.is_empty() { 0 } else { fraction.parse().unwrap_or(0) };
    let nanos = whole
        .checked_mul(nanos_per_unit)
        .and_then(|nanos| nanos.checked_add(part * nanos_per_unit / scale))
        .ok_or_else(too_long)?;
    let duration = u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| too_long())?;
    if duration > MAX { Err(too_long()) } else { Ok(duration) }
}

/// Shortest spelling that [`parse`] reads back.
pub(crate) fn spell(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos.is_multiple_of(1_000_000_000) {
        format!("{}s", duration.as_secs())
    } else if nanos.is_multiple_of(1_000_000) {
        format!("{}ms", duration.as_millis())
    } else {
        format!("{}us", duration.as_micros())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unit_is_read() {
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(seconds("0.01"), Ok(Duration::from_millis(10)));
    }

    #[test]
    fn a_duration_without_unit_or_number_is_refused() {
        for text in ["", "1", "s", "-1s", "1 fortnight", "1..2s", ".s", "9999999999999999999999h"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_spelled_duration_reads_back() {
        for millis in [0, 1, 10, 999, 1000, 1500, 60_000] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse(&spell(duration)), Ok(duration));
        }
    }
}
