//! Durations ("250ms", "2s", "5m", "1h", "1d") and sizes ("512KiB", "64MiB", "1GiB", "1048576") as people
//! write them in the environment and in script metadata. One grammar for both places: a whole number and one
//! unit, nothing implied, so that `5` can never be taken for minutes by one reader and seconds by another.
//! Knows no ranges: what a value may be at most is for the caller, but for [`MAX_DURATION`].

use std::time::Duration;

/// The longest duration that can be written, ten years: far above any use, far below where adding it to a
/// timestamp could overflow.
pub const MAX_DURATION: Duration = Duration::from_hours(3650 * 24);

const DURATION_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const SIZE_UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

const DURATIONS: &str = "a whole number and a unit: 250ms, 2s, 5m, 1h, 1d";
const SIZES: &str = "a whole number of bytes, or with a unit: 1048576, 512KiB, 64MiB, 1GiB";

/// Why a text is not a duration or a size. Displays as "`5min` is not a duration: … (accepted: …)".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not a {what}: {reason} (accepted: {accepted})")]
pub struct UnitError {
    what: &'static str,
    given: String,
    /// The fault alone, without the given text.
    pub reason: String,
    /// The forms that would have been accepted.
    pub accepted: &'static str,
}

/// Parses a duration, at most [`MAX_DURATION`], in steps of a millisecond. "0s" is a duration.
///
/// # Errors
/// Any other form; the error says what was given, what is wrong with it and what is accepted.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let error = |reason: String| UnitError { what: "duration", given: shown(text), reason, accepted: DURATIONS };
    let (number, unit) = split(text).map_err(error)?;
    let millis_per_unit = DURATION_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, n)| *n);
    let millis = match millis_per_unit {
        Some(per_unit) => number.checked_mul(per_unit),
        None if unit.is_empty() => return Err(error("it has no unit".into())),
        None => return Err(error(unknown_unit(unit, &DURATION_UNITS))),
    };
    millis
        .map(Duration::from_millis)
        .filter(|duration| *duration <= MAX_DURATION)
        .ok_or_else(|| error("it is longer than 3650d".into()))
}

/// Parses a size in bytes.
///
/// # Errors
/// Any other form; the error says what was given, what is wrong with it and what is accepted.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let error = |reason: String| UnitError { what: "size", given: shown(text), reason, accepted: SIZES };
    let (number, unit) = split(text).map_err(error)?;
    let bytes = match SIZE_UNITS.iter().find(|(name, _)| *name == unit) {
        Some((_, per_unit)) => number.checked_mul(*per_unit),
        None if unit.is_empty() => Some(number),
        None => return Err(error(unknown_unit(unit, &SIZE_UNITS))),
    };
    // i64 is what the stores and the scripts count in.
    bytes.filter(|bytes| i64::try_from(*bytes).is_ok()).ok_or_else(|| error("it is too large".into()))
}

/// Milliseconds as they are logged and answered: to the microsecond.
#[must_use]
pub fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// Prints a duration in the largest unit that holds it exactly; parts below a millisecond are cut off.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".into();
    }
    let (unit, per_unit) = largest_exact(millis, &DURATION_UNITS).unwrap_or(("ms", 1));
    format!("{}{unit}", millis / per_unit)
}

/// Prints a size in the largest unit that holds it exactly, else in bytes.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    match largest_exact(bytes, &SIZE_UNITS) {
        Some((unit, per_unit)) if bytes > 0 => format!("{}{unit}", bytes / per_unit),
        _ => bytes.to_string(),
    }
}

fn largest_exact(value: u64, units: &[(&'static str, u64)]) -> Option<(&'static str, u64)> {
    units.iter().copied().find(|(_, per_unit)| value.is_multiple_of(*per_unit))
}

/// Number and unit of a text, or why it has no number in front.
fn split(text: &str) -> Result<(u64, &str), String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    if text.is_empty() {
        return Err("it is empty".into());
    }
    if digits.is_empty() {
        return Err("it does not begin with a whole number".into());
    }
    if unit.starts_with(['.', ',']) {
        return Err("fractions are not accepted, use a smaller unit".into());
    }
    let number = digits.parse().map_err(|_| String::from("the number is too large"))?;
    Ok((number, unit))
}

fn unknown_unit(unit: &str, units: &[(&str, u64)]) -> String {
    let near = units
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit))
        .or_else(|| units.iter().find(|(name, _)| same_first_letter(name, unit)));
    let unit = shown(unit);
    match near {
        Some((name, _)) => format!("`{unit}` is not a unit, did you mean `{name}`?"),
        None => format!("`{unit}` is not a unit"),
    }
}

fn same_first_letter(a: &str, b: &str) -> bool {
    a.chars().zip(b.trim_start().chars()).next().is_some_and(|(a, b)| a.eq_ignore_ascii_case(&b))
}

/// The given text, made safe to put into one line of an error: control characters escaped, cut at 60 characters.
fn shown(text: &str) -> String {
    let escaped: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    if text.chars().nth(60).is_some() { escaped + "…" } else { escaped }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_of_every_unit() {
        for (text, millis) in [
            ("250ms", 250),
            ("2s", 2_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
            ("0s", 0),
            ("007s", 7_000),
            ("3650d", 3650 * 86_400_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn sizes_of_every_unit() {
        for (text, bytes) in
            [("0", 0), ("1048576", 1 << 20), ("512KiB", 512 << 10), ("64MiB", 64 << 20), ("1GiB", 1 << 30)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn faults_say_what_was_given_and_what_is_accepted() {
        for (text, fault) in [
            ("", "``: it is empty"),
            ("30", "`30`: it has no unit"),
            ("s", "`s`: it does not begin with a whole number"),
            ("-1s", "`-1s`: it does not begin with a whole number"),
            ("1.5s", "`1.5s`: fractions are not accepted, use a smaller unit"),
            ("5min", "`5min`: `min` is not a unit, did you mean `m`?"),
            ("5 m", "`5 m`: ` m` is not a unit, did you mean `m`?"),
            ("2S", "`2S`: `S` is not a unit, did you mean `s`?"),
            ("1h30m", "`1h30m`: `h30m` is not a unit, did you mean `h`?"),
            ("3y", "`3y`: `y` is not a unit"),
            ("3651d", "`3651d`: it is longer than 3650d"),
            ("18446744073709551615d", "`18446744073709551615d`: it is longer than 3650d"),
            ("99999999999999999999s", "`99999999999999999999s`: the number is too large"),
            ("1\ns", "`1\\ns`: `\\ns` is not a unit, did you mean `s`?"),
        ] {
            let (given, reason) = fault.split_once(": ").unwrap();
            let expected = format!("{given} is not a duration: {reason} (accepted: {DURATIONS})");
            assert_eq!(parse_duration(text).unwrap_err().to_string(), expected);
        }
        for (text, reason) in [
            ("64MB", "`MB` is not a unit, did you mean `MiB`?"),
            ("64mib", "`mib` is not a unit, did you mean `MiB`?"),
            ("1g", "`g` is not a unit, did you mean `GiB`?"),
            ("1TiB", "`TiB` is not a unit"),
            ("9999999999GiB", "it is too large"),
            ("9223372036854775808", "it is too large"),
            ("1e6", "`e6` is not a unit"),
        ] {
            let error = parse_size(text).unwrap_err();
            assert_eq!(error.reason, reason);
            assert_eq!(error.to_string(), format!("`{text}` is not a size: {reason} (accepted: {SIZES})"));
        }
    }

    #[test]
    fn a_long_text_is_cut_in_the_error() {
        let error = parse_size(&"9".repeat(10_000)).unwrap_err().to_string();
        assert!(error.len() < 300, "{error}");
    }

    #[test]
    fn printed_in_the_largest_exact_unit() {
        let printed = |millis| format_duration(Duration::from_millis(millis));
        assert_eq!(
            [0, 1, 1_500, 2_000, 90_000, 7_200_000, 172_800_000].map(printed),
            ["0s", "1ms", "1500ms", "2s", "90s", "2h", "2d"]
        );
        assert_eq!(
            [0, 1, 1000, 1024, 1 << 20, 3 << 29, 5 << 30].map(format_size),
            ["0", "1", "1000", "1KiB", "1MiB", "1536MiB", "5GiB"]
        );
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(millis in 0u64..=3650 * 86_400_000, bytes in 0u64..=i64::MAX as u64) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
            prop_assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            drop(parse_duration(&text));
            drop(parse_size(&text));
        }
    }
}
