//! Parameters for PostgreSQL: each goes as text, which the server reads by the type that the statement gives the
//! parameter. So every type works, exactly, and a value that does not fit is refused by who knows best.

use std::error::Error;

use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{Format, IsNull, Kind, ToSql, Type, to_sql_checked};

use super::SqlValue;

type Fault = Box<dyn Error + Sync + Send>;

#[derive(Debug)]
pub struct Param<'a>(pub &'a SqlValue);

impl ToSql for Param<'_> {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Fault> {
        if *self.0 == SqlValue::Null {
            return Ok(IsNull::Yes);
        }
        let mut text = String::new();
        write(self.0, kind, &mut text)?;
        out.extend_from_slice(text.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

fn write(value: &SqlValue, kind: &Type, text: &mut String) -> Result<(), Fault> {
    let mut base = kind;
    while let Kind::Domain(of) = base.kind() {
        base = of;
    }
    match (value, base.kind()) {
        (SqlValue::List(items), Kind::Array(element)) => write_array(items, element, text),
        (SqlValue::List(_), _) => write_json(value, text),
        (SqlValue::Null, _) => {
            text.push_str("NULL");
            Ok(())
        }
        (SqlValue::Blob(bytes), _) if *base == Type::BYTEA => {
            text.push_str("\\x");
            data_encoding::HEXLOWER.encode_append(bytes, text);
            Ok(())
        }
        (SqlValue::Blob(_), _) => Err(format!("a blob is for a parameter of type bytea, this one is {base}").into()),
        (SqlValue::Bool(flag), _) => {
            text.push_str(if *flag { "true" } else { "false" });
            Ok(())
        }
        (SqlValue::Integer(int), _) => {
            text.push_str(&int.to_string());
            Ok(())
        }
        (SqlValue::Real(real), _) => {
            text.push_str(&real.to_string());
            Ok(())
        }
        (SqlValue::Text(given) | SqlValue::Json(given), _) => {
            text.push_str(given);
            Ok(())
        }
    }
}

/// `{1,NULL,"a \"b\""}`
fn write_array(items: &[SqlValue], element: &Type, text: &mut String) -> Result<(), Fault> {
    text.push('{');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        match item {
            SqlValue::Null => text.push_str("NULL"),
            // A dimension more, unless an element can be a list by itself.
            SqlValue::List(inner) if !matches!(*element, Type::JSON | Type::JSONB) => {
                write_array(inner, element, text)?;
            }
            item => {
                let mut quoted = String::new();
                write(item, element, &mut quoted)?;
                text.push('"');
                for c in quoted.chars() {
                    if matches!(c, '"' | '\\') {
                        text.push('\\');
                    }
                    text.push(c);
                }
                text.push('"');
            }
        }
    }
    text.push('}');
    Ok(())
}

fn write_json(value: &SqlValue, text: &mut String) -> Result<(), Fault> {
    match value {
        SqlValue::Null => text.push_str("null"),
        SqlValue::Bool(flag) => text.push_str(if *flag { "true" } else { "false" }),
        SqlValue::Integer(int) => text.push_str(&int.to_string()),
        SqlValue::Real(real) if real.is_finite() => text.push_str(&serde_json::to_string(real)?),
        SqlValue::Real(real) => return Err(format!("{real} has no form in JSON").into()),
        SqlValue::Text(given) => text.push_str(&serde_json::to_string(given)?),
        SqlValue::Json(given) => text.push_str(given),
        SqlValue::Blob(_) => return Err("a blob has no form in JSON".into()),
        SqlValue::List(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_json(item, text)?;
            }
            text.push(']');
        }
    }
    Ok(())
}
