//! Points in time as scripts have them: an instant with the time zone that its calendar is read in.
//!
//! Knows neither engine nor clock. Compared by the instant; shown, and written as JSON, as RFC 3339.

use std::fmt;
use std::time::Duration;

use jiff::civil::{DateTime, Time as WallTime};
use jiff::fmt::strtime::BrokenDownTime;
use jiff::fmt::temporal::DateTimeParser;
use jiff::tz::TimeZone;
use jiff::{RoundMode, SignedDuration, Span, Timestamp, Unit, Zoned, ZonedRound};

use super::account;

/// Nothing that people write as a time, a format or a zone is longer. Bytes.
const MAX_TEXT: usize = 256;

/// What a calendar unit is called: one, several.
const UNITS: [(&str, &str, Unit); 9] = [
    ("year", "years", Unit::Year),
    ("month", "months", Unit::Month),
    ("week", "weeks", Unit::Week),
    ("day", "days", Unit::Day),
    ("hour", "hours", Unit::Hour),
    ("minute", "minutes", Unit::Minute),
    ("second", "seconds", Unit::Second),
    ("millisecond", "milliseconds", Unit::Millisecond),
    ("microsecond", "microseconds", Unit::Microsecond),
];

#[derive(Clone, Debug)]
pub struct Time(Zoned);

/// Why something is no time; a sentence.
pub type Fault = String;

impl Time {
    /// The instant, read in UTC.
    pub fn utc(instant: Timestamp) -> Self {
        Self(instant.to_zoned(TimeZone::UTC))
    }

    /// Seconds since 1970, with their fraction in nanoseconds.
    ///
    /// # Errors
    /// Outside the years -9999 to 9999.
    pub fn from_unix(seconds: i64, nanos: i32) -> Result<Self, Fault> {
        Timestamp::new(seconds, nanos).map(Self::utc).map_err(|error| error.to_string())
    }

    /// RFC 3339, also with a zone as in `2026-03-01T12:00:00+01:00[Europe/Berlin]`. A text without an offset, and a date
    /// alone, are read in `zone`.
    ///
    /// # Errors
    /// Any other text.
    pub fn parse(text: &str, zone: Option<&str>) -> Result<Self, Fault> {
        let text = short(text)?;
        let invalid = |error: jiff::Error| format!("`{text}` is no time such as 2026-03-01T12:00:00Z: {error}");
        let pieces = DateTimeParser::new().parse_pieces(text).map_err(invalid)?;
        let civil = DateTime::from_parts(pieces.date(), pieces.time().unwrap_or(WallTime::midnight()));
        let named = if pieces.time_zone_annotation().is_some() {
            let found = account::uncharged(|| pieces.to_time_zone().ok().flatten());
            Some(found.ok_or_else(|| format!("`{text}` names a time zone that is not known"))?)
        } else {
            None
        };
        let instant = match (pieces.to_numeric_offset(), named) {
            // Both are said: jiff finds out whether they agree.
            (Some(_), Some(_)) => text.parse::<Zoned>().map_err(invalid)?,
            (None, Some(named)) => civil.to_zoned(named).map_err(invalid)?,
            (Some(offset), None) => civil.to_zoned(TimeZone::fixed(offset)).map_err(invalid)?,
            (None, None) => {
                let Some(zone) = zone else {
                    return Err(format!("`{text}` has no offset such as Z or +01:00: say in which zone it is meant"));
                };
                return civil.to_zoned(zone_of(zone)?).map(Self).map_err(invalid);
            }
        };
        let time = Self(if instant.offset().is_zero() && instant.time_zone().iana_name().is_none() {
            instant.with_time_zone(TimeZone::UTC)
        } else {
            instant
        });
        zone.map_or(Ok(time.clone()), |zone| time.in_zone(zone))
    }

    /// By a format of `strptime`; what has no offset is read in `zone`.
    ///
    /// # Errors
    /// When the text is not in that format.
    pub fn parse_format(text: &str, format: &str, zone: &str) -> Result<Self, Fault> {
        let (text, format) = (short(text)?, short(format)?);
        let invalid = |error: jiff::Error| format!("`{text}` is no time of the format `{format}`: {error}");
        let parts = BrokenDownTime::parse(format, text).map_err(invalid)?;
        if parts.offset().is_some() || parts.timestamp().is_some() {
            return parts.to_zoned().map(Self).map_err(invalid)?.in_zone(zone);
        }
        let date = parts.to_date().map_err(invalid)?;
        let time = if parts.hour().is_some() { parts.to_time().map_err(invalid)? } else { WallTime::midnight() };
        DateTime::from_parts(date, time).to_zoned(zone_of(zone)?).map(Self).map_err(invalid)
    }

    /// By a format of `strftime`.
    ///
    /// # Errors
    /// At a directive that there is not.
    pub fn format(&self, format: &str) -> Result<String, Fault> {
        let format = short(format)?;
        let invalid = |error: jiff::Error| format!("`{format}` is no format such as %Y-%m-%d: {error}");
        jiff::fmt::strtime::format(format, &self.0).map_err(invalid)
    }

    /// The same instant, read in another zone.
    ///
    /// # Errors
    /// When there is no such zone.
    pub fn in_zone(&self, zone: &str) -> Result<Self, Fault> {
        Ok(Self(self.0.with_time_zone(zone_of(zone)?)))
    }

    /// Later by exactly that much.
    ///
    /// # Errors
    /// Outside the years -9999 to 9999, as for all that calculate.
    pub fn plus(&self, duration: Duration) -> Result<Self, Fault> {
        let duration = SignedDuration::try_from(duration).map_err(|error| error.to_string())?;
        self.0.checked_add(duration).map(Self).map_err(|error| error.to_string())
    }

    /// Earlier by exactly that much.
    ///
    /// # Errors
    /// As [`plus`](Self::plus).
    pub fn minus(&self, duration: Duration) -> Result<Self, Fault> {
        let duration = SignedDuration::try_from(duration).map_err(|error| error.to_string())?;
        self.0.checked_sub(duration).map(Self).map_err(|error| error.to_string())
    }

    /// Moved along the calendar of its zone; a day that a month has not becomes its last.
    ///
    /// # Errors
    /// At a unit that there is not, and as [`plus`](Self::plus).
    pub fn moved<'p>(&self, parts: impl Iterator<Item = (&'p str, i64)>, sign: i64) -> Result<Self, Fault> {
        // One span has one sign in jiff, so each size goes on its own: months, days, time of day.
        let (mut months, mut days, mut micros) = (Some(0_i64), Some(0_i64), Some(0_i64));
        for (name, count) in parts {
            let unit = unit_of(name)?;
            let (sum, size) = match unit {
                Unit::Year => (&mut months, 12),
                Unit::Month => (&mut months, 1),
                Unit::Week => (&mut days, 7),
                Unit::Day => (&mut days, 1),
                Unit::Hour => (&mut micros, 3_600_000_000),
                Unit::Minute => (&mut micros, 60_000_000),
                Unit::Second => (&mut micros, 1_000_000),
                Unit::Millisecond => (&mut micros, 1_000),
                _ => (&mut micros, 1),
            };
            *sum = sum.and_then(|sum| count.checked_mul(size * sign).and_then(|more| sum.checked_add(more)));
            if sum.is_none() {
                return Err(format!("{count} {name} are too many"));
            }
        }
        let span = |unit: Unit, count: Option<i64>| match (unit, count.unwrap_or_default()) {
            (Unit::Month, count) => Span::new().try_months(count),
            (Unit::Day, count) => Span::new().try_days(count),
            (_, count) => Span::new().try_microseconds(count),
        };
        [(Unit::Month, months), (Unit::Day, days), (Unit::Microsecond, micros)]
            .into_iter()
            .try_fold(self.0.clone(), |time, (unit, count)| time.checked_add(span(unit, count)?))
            .map(Self)
            .map_err(|error| error.to_string())
    }

    /// How many whole units there are from here to `other`, by the calendar of this one's zone.
    ///
    /// # Errors
    /// At a unit that there is not.
    pub fn until(&self, other: &Self, unit: &str) -> Result<i64, Fault> {
        let unit = unit_of(unit)?;
        let other = other.0.with_time_zone(self.0.time_zone().clone());
        // Not rounded: that would look a unit further, beyond the last year.
        let span = self.0.until((unit, &other)).map_err(|error| error.to_string())?;
        Ok(match unit {
            Unit::Year => span.get_years().into(),
            Unit::Month => span.get_months().into(),
            Unit::Week => span.get_weeks().into(),
            Unit::Day => span.get_days().into(),
            Unit::Hour => span.get_hours().into(),
            Unit::Minute => span.get_minutes(),
            Unit::Second => span.get_seconds(),
            Unit::Millisecond => span.get_milliseconds(),
            _ => span.get_microseconds(),
        })
    }

    /// The first instant of the year, month, week (Monday), day, hour, minute or second that it is in.
    ///
    /// # Errors
    /// At a unit that there is not.
    pub fn start_of(&self, unit: &str) -> Result<Self, Fault> {
        let here = &self.0;
        let start = match unit_of(unit)? {
            Unit::Year => here.first_of_year().and_then(|first| first.start_of_day()),
            Unit::Month => here.first_of_month().and_then(|first| first.start_of_day()),
            Unit::Week => {
                let since_monday = i64::from(here.weekday().to_monday_zero_offset());
                here.checked_sub(Span::new().days(since_monday)).and_then(|monday| monday.start_of_day())
            }
            Unit::Day => here.start_of_day(),
            unit => here.round(ZonedRound::new().smallest(unit).mode(RoundMode::Trunc)),
        };
        start.map(Self).map_err(|error| error.to_string())
    }

    /// The instant.
    pub fn instant(&self) -> Timestamp {
        self.0.timestamp()
    }

    /// The calendar and the clock of its zone.
    pub fn zoned(&self) -> &Zoned {
        &self.0
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offset = self.0.offset();
        // RFC 3339 has no offsets with seconds, which old local times have.
        if *self.0.time_zone() == TimeZone::UTC || offset.seconds() % 60 != 0 {
            write!(f, "{}", self.0.timestamp())
        } else {
            write!(f, "{}", self.0.timestamp().display_with_offset(offset))
        }
    }
}

fn zone_of(name: &str) -> Result<TimeZone, Fault> {
    let name = short(name)?;
    // What jiff keeps of a zone is the process's and not the run's.
    if let Some(zone) = account::uncharged(|| TimeZone::get(name).ok()) {
        return Ok(zone);
    }
    let offset = DateTimeParser::new().parse_time_zone(name).ok().filter(|_| name.starts_with(['+', '-']));
    offset.ok_or_else(|| format!("there is no time zone `{name}`: use a name such as Europe/Berlin, or UTC"))
}

fn unit_of(name: &str) -> Result<Unit, Fault> {
    let found = UNITS.iter().find(|(one, several, _)| name == *one || name == *several);
    found.map(|(_, _, unit)| *unit).ok_or_else(|| {
        let shown: String = name.chars().take(40).collect();
        format!("there is no unit `{shown}`: use {}", UNITS.map(|(_, several, _)| several).join(", "))
    })
}

fn short(text: &str) -> Result<&str, Fault> {
    if text.len() <= MAX_TEXT { Ok(text) } else { Err(format!("a text of {} bytes is too long", text.len())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Time {
        Time::parse(text, None).unwrap()
    }

    #[test]
    fn what_is_parsed_is_shown_as_rfc_3339() {
        for (text, zone, shown) in [
            ("2026-03-01T12:00:00Z", None, "2026-03-01T12:00:00Z"),
            ("2026-03-01 12:00:00.123456789Z", None, "2026-03-01T12:00:00.123456789Z"),
            ("2026-03-01T12:00:00+02:00", None, "2026-03-01T12:00:00+02:00"),
            ("2026-03-01T12:00:00+00:00", None, "2026-03-01T12:00:00Z"),
            ("2026-07-01T12:00:00[Europe/Berlin]", None, "2026-07-01T12:00:00+02:00"),
            ("2026-07-01T12:00:00Z", Some("Europe/Berlin"), "2026-07-01T14:00:00+02:00"),
            ("2026-07-01T12:00:00", Some("Europe/Berlin"), "2026-07-01T12:00:00+02:00"),
            ("2026-07-01", Some("America/New_York"), "2026-07-01T00:00:00-04:00"),
            ("2026-07-01", Some("+05:30"), "2026-07-01T00:00:00+05:30"),
            // An hour that the clocks skip is the one after it.
            ("2026-03-29T02:30:00", Some("Europe/Berlin"), "2026-03-29T03:30:00+02:00"),
            ("1800-01-01T00:00:00", Some("Europe/Berlin"), "1799-12-31T23:06:32Z"),
        ] {
            assert_eq!(Time::parse(text, zone).unwrap().to_string(), shown, "{text} {zone:?}");
        }
        for (text, zone) in [
            ("", None),
            ("2026-03-01T12:00:00", None),
            ("2026-03-01", None),
            ("yesterday", None),
            ("2026-02-30T00:00:00Z", None),
            ("2026-03-01", Some("Middle/Earth")),
            ("2026-03-01", Some("../../etc/passwd")),
            ("2026-03-01T12:00:00+01:00[America/New_York]", None),
            (&*"9".repeat(1 << 20), None),
        ] {
            assert!(Time::parse(text, zone).is_err(), "{text:.40}");
        }
    }

    #[test]
    fn formats_go_both_ways() {
        let parsed = Time::parse_format("01.03.2026 08:05", "%d.%m.%Y %H:%M", "Europe/Berlin").unwrap();
        assert_eq!(parsed.to_string(), "2026-03-01T08:05:00+01:00");
        assert_eq!(parsed.format("%A, %d %B %Y, %H:%M %Z").unwrap(), "Sunday, 01 March 2026, 08:05 CET");
        let day = Time::parse_format("01.03.2026", "%d.%m.%Y", "UTC").unwrap();
        assert_eq!(day.to_string(), "2026-03-01T00:00:00Z");
        let offset = Time::parse_format("2026-03-01 08:05 +0300", "%Y-%m-%d %H:%M %z", "UTC").unwrap();
        assert_eq!(offset.to_string(), "2026-03-01T05:05:00Z");
        assert!(Time::parse_format("1.3.", "%d.%m.%Y", "UTC").is_err());
        assert!(parsed.format("%&").is_err());
    }

    #[test]
    fn the_calendar_knows_days_of_other_lengths() {
        let before = Time::parse("2026-03-28T12:00:00", Some("Europe/Berlin")).unwrap();
        assert_eq!(before.plus(Duration::from_hours(24)).unwrap().to_string(), "2026-03-29T13:00:00+02:00");
        let moved =
            |parts: &[(&str, i64)], sign| before.moved(parts.iter().copied(), sign).map(|time| time.to_string());
        assert_eq!(moved(&[("days", 1)], 1).unwrap(), "2026-03-29T12:00:00+02:00");
        assert_eq!(moved(&[("month", 1), ("hours", -12)], -1).unwrap(), "2026-03-01T00:00:00+01:00");
        assert_eq!(
            time("2026-01-31T00:00:00Z").moved([("months", 1)].into_iter(), 1).unwrap().to_string(),
            "2026-02-28T00:00:00Z"
        );
        for wrong in [("fortnights", 1), ("years", i64::MAX), ("years", i64::MIN), ("days", 1 << 40)] {
            assert!(moved(&[wrong], -1).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn differences_are_whole_units() {
        let (a, b) = (time("2026-01-15T12:00:00Z"), time("2026-03-01T11:00:00Z"));
        for (unit, count) in
            [("months", 1), ("weeks", 6), ("days", 44), ("hours", 1079), ("microseconds", 3_884_400_000_000)]
        {
            assert_eq!(a.until(&b, unit), Ok(count), "{unit}");
        }
        assert_eq!(b.until(&a, "days"), Ok(-44));
        assert!(a.until(&b, "moons").is_err());
        let (first, last) = (time("-009000-01-03T00:00:00Z"), time("9999-12-30T00:00:00Z"));
        for (_, unit, _) in UNITS {
            assert!(first.until(&last, unit).unwrap() > 0, "{unit}");
        }
    }

    #[test]
    fn a_unit_has_a_start() {
        let time = Time::parse("2026-03-29T15:16:17.5", Some("Europe/Berlin")).unwrap();
        for (unit, start) in [
            ("year", "2026-01-01T00:00:00+01:00"),
            ("month", "2026-03-01T00:00:00+01:00"),
            ("week", "2026-03-23T00:00:00+01:00"),
            ("day", "2026-03-29T00:00:00+01:00"),
            ("hours", "2026-03-29T15:00:00+02:00"),
            ("minute", "2026-03-29T15:16:00+02:00"),
            ("second", "2026-03-29T15:16:17+02:00"),
        ] {
            assert_eq!(time.start_of(unit).unwrap().to_string(), start, "{unit}");
        }
    }
}
