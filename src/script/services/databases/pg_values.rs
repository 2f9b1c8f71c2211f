//! Values from PostgreSQL, from the binary form of the protocol, without loss: what a script has no type for comes as
//! text, in a form that the server reads as the same value again.

use std::error::Error;
use std::fmt::Write as _;

use fallible_iterator::FallibleIterator;
use postgres_protocol::types as wire;
use tokio_postgres::types::{FromSql, Kind, Type};

use super::{SqlValue, pg_numbers};

const DAY: i64 = 86_400_000_000;
/// Days from 1970 to 2000, where the server's count begins.
const TO_2000: i64 = 10_957;

type Fault = Box<dyn Error + Sync + Send>;

/// The bytes of a value, or none for NULL.
pub struct Raw<'a>(pub Option<&'a [u8]>);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Fault> {
        Ok(Self(Some(raw)))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Fault> {
        Ok(Self(None))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// # Errors
/// What is wrong with a value of that type.
pub fn value(kind: &Type, raw: Option<&[u8]>) -> Result<SqlValue, String> {
    let Some(raw) = raw else { return Ok(SqlValue::Null) };
    decoded(kind, raw).map_err(|fault| fault.to_string())
}

fn decoded(kind: &Type, raw: &[u8]) -> Result<SqlValue, Fault> {
    match kind.kind() {
        Kind::Domain(base) => return decoded(base, raw),
        Kind::Enum(_) => return text(raw),
        Kind::Array(element) => return array(element, raw),
        _ => {}
    }
    Ok(match *kind {
        Type::BOOL => SqlValue::Bool(wire::bool_from_sql(raw)?),
        Type::INT2 => SqlValue::Integer(wire::int2_from_sql(raw)?.into()),
        Type::INT4 => SqlValue::Integer(wire::int4_from_sql(raw)?.into()),
        Type::INT8 => SqlValue::Integer(wire::int8_from_sql(raw)?),
        Type::OID => SqlValue::Integer(wire::oid_from_sql(raw)?.into()),
        Type::FLOAT4 => SqlValue::Real(wire::float4_from_sql(raw)?.into()),
        Type::FLOAT8 => SqlValue::Real(wire::float8_from_sql(raw)?),
        Type::NUMERIC => SqlValue::Text(numeric(raw)?),
        Type::BYTEA => SqlValue::Blob(raw.to_owned()),
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::XML | Type::UNKNOWN | Type::CHAR => text(raw)?,
        Type::JSON => json(raw)?,
        Type::JSONB => json(raw.get(1..).ok_or("is empty")?)?,
        Type::UUID => SqlValue::Text(uuid::Uuid::from_bytes(wire::uuid_from_sql(raw)?).to_string()),
        Type::DATE => SqlValue::Text(date(wire::date_from_sql(raw)?)),
        Type::TIME => SqlValue::Text(time_of_day(wire::time_from_sql(raw)?)),
        Type::TIMETZ => SqlValue::Text(time_with_zone(raw)?),
        Type::TIMESTAMP => SqlValue::Text(timestamp(wire::timestamp_from_sql(raw)?, "")),
        Type::TIMESTAMPTZ => SqlValue::Text(timestamp(wire::timestamp_from_sql(raw)?, "Z")),
        Type::INTERVAL => SqlValue::Text(interval(raw)?),
        Type::INET | Type::CIDR => SqlValue::Text(address(kind, raw)?),
        Type::MACADDR | Type::MACADDR8 => SqlValue::Text(hardware_address(raw)),
        Type::BIT | Type::VARBIT => SqlValue::Text(bits(raw)?),
        Type::VOID => SqlValue::Null,
        _ if kind.name() == "citext" => text(raw)?,
        _ => return Err(format!("is of type {kind}, which has no form for scripts").into()),
    })
}

fn text(raw: &[u8]) -> Result<SqlValue, Fault> {
    Ok(SqlValue::Text(std::str::from_utf8(raw)?.to_owned()))
}

fn json(raw: &[u8]) -> Result<SqlValue, Fault> {
    let text = std::str::from_utf8(raw)?;
    if let Some(number) = pg_numbers::inexact(text) {
        let start: String = number.chars().take(40).collect();
        return Err(format!("holds the number {start}, of which a float would lose digits").into());
    }
    Ok(SqlValue::Json(text.to_owned()))
}

fn array(element: &Type, raw: &[u8]) -> Result<SqlValue, Fault> {
    let array = wire::array_from_sql(raw)?;
    let dimensions: Vec<_> = array.dimensions().collect()?;
    if dimensions.iter().any(|dimension| dimension.lower_bound != 1) {
        // It would come back as another array.
        return Err("is an array whose indexes do not begin at 1".into());
    }
    let mut items: Vec<SqlValue> = Vec::new();
    let mut values = array.values();
    while let Some(value) = values.next()? {
        items.push(value.map_or(Ok(SqlValue::Null), |raw| decoded(element, raw))?);
    }
    // The innermost dimension changes fastest.
    for dimension in dimensions.iter().skip(1).rev() {
        let length = usize::try_from(dimension.len)?.max(1);
        let mut rest = items.into_iter().peekable();
        let mut lists = Vec::new();
        while rest.peek().is_some() {
            lists.push(SqlValue::List(rest.by_ref().take(length).collect()));
        }
        items = lists;
    }
    Ok(SqlValue::List(items))
}

/// Base 10000, most significant first; `weight` is the power of the first one.
fn numeric(raw: &[u8]) -> Result<String, Fault> {
    let word =
        |at: usize| raw.get(2 * at..2 * at + 2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).ok_or("is cut off");
    let (count, weight, sign, scale) = (word(0)?, word(1)?.cast_signed(), word(2)?, word(3)?);
    match sign {
        0xC000 => return Ok("NaN".to_owned()),
        0xD000 => return Ok("Infinity".to_owned()),
        0xF000 => return Ok("-Infinity".to_owned()),
        _ => {}
    }
    let digit = |power: i32| match usize::try_from(i32::from(weight) - power) {
        Ok(at) if at < usize::from(count) => word(4 + at),
        _ => Ok(0),
    };
    let mut text = if sign == 0x4000 { "-".to_owned() } else { String::new() };
    if weight < 0 {
        text.push('0');
    } else {
        let _ = write!(text, "{}", digit(weight.into())?);
        for power in (0..i32::from(weight)).rev() {
            let _ = write!(text, "{:04}", digit(power)?);
        }
    }
    if scale > 0 {
        text.push('.');
        let start = text.len();
        let mut power = -1;
        while text.len() - start < usize::from(scale) {
            let _ = write!(text, "{:04}", digit(power)?);
            power -= 1;
        }
        text.truncate(start + usize::from(scale));
    }
    Ok(text)
}

/// Year, month and day of a count from 1970, by the rules of today for all times (Howard Hinnant's algorithm).
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The date, and what goes behind everything.
fn calendar(days_from_2000: i64) -> (String, &'static str) {
    let (year, month, day) = civil(days_from_2000 + TO_2000);
    if year > 0 {
        (format!("{year:04}-{month:02}-{day:02}"), "")
    } else {
        (format!("{:04}-{month:02}-{day:02}", 1 - year), " BC")
    }
}

fn date(days: i32) -> String {
    match days {
        i32::MAX => "infinity".to_owned(),
        i32::MIN => "-infinity".to_owned(),
        days => {
            let (date, era) = calendar(days.into());
            date + era
        }
    }
}

fn timestamp(micros: i64, zone: &str) -> String {
    match micros {
        i64::MAX => "infinity".to_owned(),
        i64::MIN => "-infinity".to_owned(),
        micros => {
            let (date, era) = calendar(micros.div_euclid(DAY));
            format!("{date}T{}{zone}{era}", time_of_day(micros.rem_euclid(DAY)))
        }
    }
}

fn time_of_day(micros: i64) -> String {
    let seconds = micros / 1_000_000;
    let mut text = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    push_fraction(&mut text, micros % 1_000_000);
    text
}

fn push_fraction(text: &mut String, micros: i64) {
    if micros != 0 {
        let _ = write!(text, ".{micros:06}");
        text.truncate(text.trim_end_matches('0').len());
    }
}

/// The offset is in seconds west of Greenwich.
fn time_with_zone(raw: &[u8]) -> Result<String, Fault> {
    let (time, zone) = raw.split_at_checked(8).ok_or("is cut off")?;
    let west = wire::int4_from_sql(zone)?;
    let (sign, size) = if west > 0 { ('-', west) } else { ('+', -west) };
    let mut text = time_of_day(wire::time_from_sql(time)?);
    let _ = write!(text, "{sign}{:02}:{:02}", size / 3600, size / 60 % 60);
    if size % 60 != 0 {
        let _ = write!(text, ":{:02}", size % 60);
    }
    Ok(text)
}

/// ISO 8601, each part with its own sign.
fn interval(raw: &[u8]) -> Result<String, Fault> {
    let (micros, rest) = raw.split_at_checked(8).ok_or("is cut off")?;
    let (days, months) = rest.split_at_checked(4).ok_or("is cut off")?;
    let (micros, days, months) =
        (wire::int8_from_sql(micros)?, wire::int4_from_sql(days)?, wire::int4_from_sql(months)?);
    let mut text = "P".to_owned();
    for (count, unit) in [(months / 12, 'Y'), (months % 12, 'M'), (days, 'D')] {
        if count != 0 {
            let _ = write!(text, "{count}{unit}");
        }
    }
    let mut time = String::new();
    let seconds = micros / 1_000_000;
    for (count, unit) in [(seconds / 3600, 'H'), (seconds / 60 % 60, 'M')] {
        if count != 0 {
            let _ = write!(time, "{count}{unit}");
        }
    }
    let (whole, fraction) = (seconds % 60, micros % 1_000_000);
    if whole != 0 || fraction != 0 {
        let sign = if micros < 0 { "-" } else { "" };
        let _ = write!(time, "{sign}{}", whole.abs());
        push_fraction(&mut time, fraction.abs());
        time.push('S');
    }
    if time.is_empty() && text.len() > 1 {
        return Ok(text);
    }
    let time = if time.is_empty() { "0S" } else { &time };
    Ok(format!("{text}T{time}"))
}

fn address(kind: &Type, raw: &[u8]) -> Result<String, Fault> {
    let inet = wire::inet_from_sql(raw)?;
    let whole = if inet.addr().is_ipv4() { 32 } else { 128 };
    if *kind == Type::INET && inet.netmask() == whole {
        return Ok(inet.addr().to_string());
    }
    Ok(format!("{}/{}", inet.addr(), inet.netmask()))
}

fn hardware_address(raw: &[u8]) -> String {
    raw.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

fn bits(raw: &[u8]) -> Result<String, Fault> {
    let (count, bytes) = raw.split_at_checked(4).ok_or("is cut off")?;
    let count = usize::try_from(wire::int4_from_sql(count)?)?;
    let all = bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| if byte >> at & 1 == 1 { '1' } else { '0' }));
    Ok(all.take(count).collect())
}
