//! `time`: points in time, with zones, formats, durations and the calendar.
//!
//! A time is a value of its own, so that it compares and calculates by the instant; where one is expected an RFC 3339 text
//! does as well. It becomes that text in JSON, in SQL parameters, in CSV and when it is printed.

use rhai::{Dynamic, FLOAT, FuncRegistration, INT, ImmutableString, Map, Module};

use super::reference::{Function, Namespace, Outcome};
use super::{args, put};
use crate::script::context::{self, ScriptResult};
use crate::script::moment::{Fault, Time};

pub const REFERENCE: Namespace = Namespace {
    name: "time",
    about: "",
    functions: &[
        Function::new(
            &["now() -> time", "now(zone: string) -> time"],
            "the present, in UTC or in a zone",
            "time::now() > time::parse(\"2026-01-01T00:00:00Z\")",
            Outcome::Value("true"),
        ),
        Function::new(
            &[
                "parse(text: string) -> time",
                "parse(text: string, zone: string) -> time",
                "parse(text: string, zone: string, format: string) -> time",
            ],
            "an RFC 3339 text; with a zone also one without offset, or a date; with a format what `strptime` reads",
            r#"time::parse("31.03.2026 18:00", "Europe/Berlin", "%d.%m.%Y %H:%M")"#,
            Outcome::Value(r#""2026-03-31T18:00:00+02:00""#),
        ),
        Function::new(
            &["format(time: time | string, format: string) -> string"],
            "by a format of `strftime`",
            r#"time::format("2026-03-01T08:05:00Z", "%A, %-d %B %Y")"#,
            Outcome::Value(r#""Sunday, 1 March 2026""#),
        ),
        Function::new(
            &["in_zone(time: time | string, zone: string) -> time"],
            "the same instant, as the clocks of a zone show it",
            r#"time::in_zone("2026-07-01T12:00:00Z", "America/New_York").hour"#,
            Outcome::Value("8"),
        ),
        Function::new(
            &["add(time: time | string, duration: string | map) -> time"],
            "later by a duration (`\"36h\"`; `\"1d\"` is 24 hours), or along the calendar by a map of units",
            r#"time::add("2026-01-31T09:00:00Z", #{ months: 1, hours: -1 })"#,
            Outcome::Value(r#""2026-02-28T08:00:00Z""#),
        ),
        Function::new(
            &["sub(time: time | string, duration: string | map) -> time"],
            "earlier, in the same way",
            r#"time::sub("2026-03-01T00:30:00Z", "45m")"#,
            Outcome::Value(r#""2026-02-28T23:45:00Z""#),
        ),
        Function::new(
            &["between(from: time | string, to: time | string, unit: string) -> int"],
            "how many whole units fit between the two; negative when `to` is earlier",
            r#"time::between("2024-03-01T00:00:00Z", "2026-02-28T00:00:00Z", "years")"#,
            Outcome::Value("1"),
        ),
        Function::new(
            &["start_of(time: time | string, unit: string) -> time"],
            "when the year, month, week (Monday), day, hour, minute or second began",
            r#"time::start_of("2026-03-19T18:45:10Z", "month")"#,
            Outcome::Value(r#""2026-03-01T00:00:00Z""#),
        ),
        Function::new(
            &["from_unix(seconds: int | float) -> time"],
            "seconds since 1970, in UTC",
            "time::from_unix(1_767_225_600)",
            Outcome::Value(r#""2026-01-01T00:00:00Z""#),
        ),
    ],
    notes: "A time compares with `==`, `<` and their like, by the instant. It becomes RFC 3339 text in JSON, in SQL parameters and \
            where it is printed; where a\ntime is expected, such a text does as well. Its properties are `year`, `month`, `day`, \
            `hour`, `minute`, `second`, `microsecond` (0–999999), `weekday` (1 is\nMonday), `day_of_year`, `week` (ISO 8601), \
            `zone`, `offset` (seconds), `unix` and `unix_ms`. Units are `years` `months` `weeks` `days` `hours` `minutes`\n\
            `seconds` `milliseconds` `microseconds`, with or without the `s`. Zones are names such as `Europe/Berlin`; a local time \
            that the clocks skip is taken as\nthe one after, one that they show twice as the first.",
};

pub fn module() -> Module {
    let mut module = Module::new();
    put!(&mut module, "now", || now(None));
    put!(&mut module, "now", |zone: Dynamic| now(Some(&zone)));
    put!(&mut module, "parse", |text: Dynamic| parse(&text, None));
    put!(&mut module, "parse", |text: Dynamic, zone: Dynamic| parse(&text, Some(&zone)));
    put!(&mut module, "parse", |text: Dynamic, zone: Dynamic, format: Dynamic| parse_format(&text, &zone, &format));
    put!(&mut module, "format", |time: Dynamic, format: Dynamic| {
        let format = args::text("time::format", "format", &format)?;
        said("time::format", given("time::format", "time", &time)?.format(&format))
    });
    put!(&mut module, "in_zone", |time: Dynamic, zone: Dynamic| {
        let zone = args::text("time::in_zone", "zone", &zone)?;
        let time = given("time::in_zone", "time", &time)?;
        said("time::in_zone", time.in_zone(&zone))
    });
    put!(&mut module, "add", |time: Dynamic, duration: Dynamic| moved("time::add", &time, &duration, 1));
    put!(&mut module, "sub", |time: Dynamic, duration: Dynamic| moved("time::sub", &time, &duration, -1));
    put!(&mut module, "between", |from: Dynamic, to: Dynamic, unit: Dynamic| {
        const FUNCTION: &str = "time::between";
        let unit = args::text(FUNCTION, "unit", &unit)?;
        said(FUNCTION, given(FUNCTION, "from", &from)?.until(&given(FUNCTION, "to", &to)?, &unit))
    });
    put!(&mut module, "start_of", |time: Dynamic, unit: Dynamic| {
        const FUNCTION: &str = "time::start_of";
        let unit = args::text(FUNCTION, "unit", &unit)?;
        said(FUNCTION, given(FUNCTION, "time", &time)?.start_of(&unit))
    });
    put!(&mut module, "from_unix", |seconds: Dynamic| from_unix(&seconds));
    module
}

/// What a time can be asked for and compared with.
pub fn methods() -> Module {
    let mut module = Module::new();
    for (name, property) in PROPERTIES {
        FuncRegistration::new_getter(name).set_into_module(&mut module, move |time: &mut Time| property(time));
    }
    FuncRegistration::new_getter("zone").set_into_module(&mut module, |time: &mut Time| {
        let zone = time.zoned().time_zone();
        zone.iana_name().map_or_else(|| time.zoned().offset().to_string(), str::to_owned)
    });
    for name in ["to_string", "to_debug", "print", "debug"] {
        FuncRegistration::new(name).set_into_module(&mut module, |time: &mut Time| time.to_string());
    }
    for (name, compare) in COMPARISONS {
        FuncRegistration::new(name)
            .set_into_module(&mut module, move |a: Time, b: Time| compare(&a.instant(), &b.instant()));
    }
    module
}

type Property = fn(&Time) -> INT;
const PROPERTIES: [(&str, Property); 13] = [
    ("year", |time| time.zoned().year().into()),
    ("month", |time| time.zoned().month().into()),
    ("day", |time| time.zoned().day().into()),
    ("hour", |time| time.zoned().hour().into()),
    ("minute", |time| time.zoned().minute().into()),
    ("second", |time| time.zoned().second().into()),
    ("microsecond", |time| (time.zoned().subsec_nanosecond() / 1000).into()),
    ("weekday", |time| time.zoned().weekday().to_monday_one_offset().into()),
    ("day_of_year", |time| time.zoned().day_of_year().into()),
    ("week", |time| time.zoned().date().iso_week_date().week().into()),
    ("offset", |time| time.zoned().offset().seconds().into()),
    // A fraction of a second before 1970 belongs to the second that it is in.
    ("unix", |time| time.instant().as_microsecond().div_euclid(1_000_000)),
    ("unix_ms", |time| time.instant().as_microsecond().div_euclid(1_000)),
];

type Instant = jiff::Timestamp;
type Comparison = fn(&Instant, &Instant) -> bool;
const COMPARISONS: [(&str, Comparison); 6] = [
    ("==", Instant::eq),
    ("!=", Instant::ne),
    ("<", Instant::lt),
    ("<=", Instant::le),
    (">", Instant::gt),
    (">=", Instant::ge),
];

fn now(zone: Option<&Dynamic>) -> ScriptResult<Time> {
    const FUNCTION: &str = "time::now";

    // A test of scripts has a clock of its own.
    let now = context::current()?.ports.now();
    let now = Time::utc(Instant::from_microsecond(now.0).unwrap_or_default());
    let Some(zone) = zone else { return Ok(now) };
    let zone = args::text(FUNCTION, "zone", zone)?;
    said(FUNCTION, now.in_zone(&zone))
}

fn parse(text: &Dynamic, zone: Option<&Dynamic>) -> ScriptResult<Time> {
    const FUNCTION: &str = "time::parse";

    let text = args::text(FUNCTION, "text", text)?;
    let zone = zone.map(|zone| args::text(FUNCTION, "zone", zone)).transpose()?;
    said(FUNCTION, Time::parse(&text, zone.as_deref()))
}

fn parse_format(text: &Dynamic, zone: &Dynamic, format: &Dynamic) -> ScriptResult<Time> {
    const FUNCTION: &str = "time::parse";

    let text = args::text(FUNCTION, "text", text)?;
    let zone = args::text(FUNCTION, "zone", zone)?;
    let format = args::text(FUNCTION, "format", format)?;
    said(FUNCTION, Time::parse_format(&text, &format, &zone))
}

fn moved(function: &str, time: &Dynamic, duration: &Dynamic, sign: i64) -> ScriptResult<Time> {
    let time = given(function, "time", time)?;
    if let Some(units) = duration.read_lock::<Map>() {
        let mut parts = Vec::new();
        for (unit, count) in units.iter() {
            let place = format!("duration.{}", unit.chars().take(40).collect::<String>());
            let count = count.as_int().map_err(|_| args::unfit(function, &place, "an integer", count))?;
            parts.push((unit.as_str(), count));
        }
        return said(function, time.moved(parts.into_iter(), sign));
    }
    let duration = args::duration(function, "duration", duration)?;
    said(function, if sign < 0 { time.minus(duration) } else { time.plus(duration) })
}

fn from_unix(seconds: &Dynamic) -> ScriptResult<Time> {
    const FUNCTION: &str = "time::from_unix";

    if let Ok(whole) = seconds.as_int() {
        return said(FUNCTION, Time::from_unix(whole, 0));
    }
    let float: Option<FLOAT> = seconds.as_float().ok().filter(|float| float.is_finite() && float.abs() < 1e15);
    let Some(float) = float else { return Err(args::unfit(FUNCTION, "seconds", "a number of seconds", seconds)) };
    #[expect(clippy::cast_possible_truncation, reason = "both parts are in range")]
    let (whole, nanos) = (float.floor() as i64, ((float - float.floor()) * 1e9) as i32);
    said(FUNCTION, Time::from_unix(whole, nanos))
}

/// A time, or a text that says one.
fn given(function: &str, argument: &str, value: &Dynamic) -> ScriptResult<Time> {
    if let Some(time) = value.read_lock::<Time>() {
        return Ok(time.clone());
    }
    let Some(text) = value.read_lock::<ImmutableString>() else {
        return Err(args::unfit(function, argument, "a time, or a text such as \"2026-03-01T12:00:00Z\"", value));
    };
    Time::parse(&text, None).map_err(|fault| args::wrong(format!("{function}: `{argument}`: {fault}")))
}

fn said<T>(function: &str, result: Result<T, Fault>) -> ScriptResult<T> {
    result.map_err(|fault| args::wrong(format!("{function}: {fault}")))
}
