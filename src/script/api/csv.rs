//! `csv::format` and `csv::parse`: RFC 4180, with a line feed at the end of each line.
//!
//! Values are written as they are. To a spreadsheet program a text that begins with `=`, `+`, `-` or `@` is a formula, so
//! a script that writes what strangers gave it puts a `'` before such texts.

use std::fmt::Display;
use std::io;

use csv::{ReaderBuilder, StringRecord, Terminator, Writer, WriterBuilder};
use rhai::{Array, Dynamic, EvalAltResult, Identifier, ImmutableString, Map, Module};

use super::reference::{Function, Namespace, Outcome};
use super::{args, go_on, put};
use crate::script::account;
use crate::script::context::{self, ScriptResult};
use crate::script::moment::Time;

const FORMAT: &str = "csv::format";
const PARSE: &str = "csv::parse";

pub const REFERENCE: Namespace = Namespace {
    name: "csv",
    about: "",
    functions: &[
        Function::new(
            &["format(rows: array) -> string", "format(rows: array, columns: array) -> string"],
            "rows are maps or arrays",
            r#"csv::format([#{ id: 1, name: "tea" }, #{ id: 2, name: "jam, red" }], ["name", "id"])"#,
            Outcome::Value(r#""name,id\ntea,1\n\"jam, red\",2\n""#),
        ),
        Function::new(
            &["parse(text: string) -> array"],
            "an array of maps, by the names in the first line; all values are strings",
            r#"csv::parse("name,id\ntea,1\n")"#,
            Outcome::Value(r#"[{"id": "1", "name": "tea"}]"#),
        ),
    ],
    notes: "Maps get a first line with the columns: the given ones, or the first row's keys in the order of the alphabet. Arrays \
            are written as they\nare. A text that begins with `=`, `+`, `-` or `@` is a formula to a spreadsheet program: put a \
            `'` before it when strangers wrote it.",
};

pub fn module() -> Module {
    let mut module = Module::new();
    put!(&mut module, "format", |rows: Dynamic| format(&rows, &Dynamic::UNIT));
    put!(&mut module, "format", |rows: Dynamic, columns: Dynamic| format(&rows, &columns));
    put!(&mut module, "parse", |text: Dynamic| parse(&text));
    module
}

/// Rows that are arrays are written as they are. Rows that are maps get a header: the given columns in their order, or
/// the keys of the first row in theirs, which is the alphabet's.
fn format(rows: &Dynamic, columns: &Dynamic) -> ScriptResult<String> {
    context::current()?;
    let Some(rows) = rows.read_lock::<Array>() else {
        return Err(args::unfit(FORMAT, "rows", "an array of maps or of arrays", rows));
    };
    let given = if columns.is_unit() { None } else { Some(args::texts(FORMAT, "columns", columns)?) };
    let mut sheet = Sheet::new();
    let keys = rows.first().and_then(|first| {
        let first = first.read_lock::<Map>()?;
        Some(first.keys().map(ToString::to_string).collect::<Vec<_>>())
    });
    let (header, whole) = match (given, keys.clone()) {
        (Some(given), _) => (Some(given), false),
        (None, keys) => (keys, true),
    };
    if let Some(header) = &header {
        sheet.line(header.iter().map(String::as_bytes))?;
    }
    for (index, row) in rows.iter().enumerate() {
        match &header {
            Some(header) if keys.is_some() => sheet.map(index, row, header, whole)?,
            _ => sheet.array(index, row)?,
        }
        if !go_on() {
            context::current()?;
        }
    }
    sheet.text()
}

/// The text as it grows.
struct Sheet {
    writer: Writer<Text>,
}

impl Sheet {
    fn new() -> Self {
        let writer = WriterBuilder::new()
            .flexible(true)
            .terminator(Terminator::Any(b'\n'))
            .from_writer(Text { bytes: Vec::new() });
        Self { writer }
    }

    fn line<'f>(&mut self, fields: impl Iterator<Item = &'f [u8]>) -> ScriptResult<()> {
        for field in fields {
            self.writer.write_field(field).map_err(|error| failed(FORMAT, &error))?;
        }
        self.end_line()
    }

    fn end_line(&mut self) -> ScriptResult<()> {
        self.writer.write_record(None::<&[u8]>).map_err(|error| failed(FORMAT, &error))
    }

    fn map(&mut self, index: usize, row: &Dynamic, columns: &[String], whole: bool) -> ScriptResult<()> {
        let Some(row) = row.read_lock::<Map>() else {
            return Err(args::unfit(FORMAT, &format!("rows[{index}]"), "a map, as the first row is", row));
        };
        for column in columns {
            let value = row.get(column.as_str()).unwrap_or(&Dynamic::UNIT);
            self.value(value, || format!("rows[{index}].{column}"))?;
        }
        let extra = row.keys().find(|key| whole && columns.iter().all(|column| column != key.as_str()));
        if let Some(extra) = extra {
            return Err(args::wrong(format!(
                "{FORMAT}: `rows[{index}]` has `{extra}`, which the first row has not: give the columns, as in \
                 csv::format(rows, [\"a\", \"b\"])"
            )));
        }
        self.end_line()
    }

    fn array(&mut self, index: usize, row: &Dynamic) -> ScriptResult<()> {
        let Some(row) = row.read_lock::<Array>() else {
            let expected = if index == 0 { "a map or an array" } else { "an array, as the first row is" };
            return Err(args::unfit(FORMAT, &format!("rows[{index}]"), expected, row));
        };
        for (at, value) in row.iter().enumerate() {
            self.value(value, || format!("rows[{index}][{at}]"))?;
        }
        self.end_line()
    }

    fn value(&mut self, value: &Dynamic, place: impl Fn() -> String) -> ScriptResult<()> {
        let written = if let Some(text) = value.read_lock::<ImmutableString>() {
            self.writer.write_field(text.as_bytes())
        } else if value.is_unit() {
            self.writer.write_field([])
        } else if value.is_int() || value.is_float() || value.is_bool() || value.is_char() {
            self.writer.write_field(value.to_string())
        } else if let Some(time) = value.read_lock::<Time>() {
            self.writer.write_field(time.to_string())
        } else {
            return Err(args::unfit(FORMAT, &place(), "a string, a number, a bool or ()", value));
        };
        written.map_err(|error| failed(FORMAT, &error))
    }

    fn text(self) -> ScriptResult<String> {
        let text = self.writer.into_inner().map_err(|error| failed(FORMAT, &error))?;
        String::from_utf8(text.bytes).map_err(|error| failed(FORMAT, &error))
    }
}

/// Grows within the run's memory.
struct Text {
    bytes: Vec<u8>,
}

impl io::Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.bytes.capacity() - self.bytes.len()
            && account::reserve(bytes.len().max(self.bytes.capacity())).is_err()
        {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One map a line, by the names in the first line. All values are strings.
fn parse(text: &Dynamic) -> ScriptResult<Array> {
    context::current()?;
    let text = args::text(PARSE, "text", text)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut reader = ReaderBuilder::new().from_reader(text.as_bytes());
    let header = reader.headers().map_err(|error| failed(PARSE, &error))?.clone();
    let columns: Vec<Identifier> = header.iter().map(Into::into).collect();
    for (index, column) in columns.iter().enumerate() {
        if columns[..index].contains(column) {
            return Err(args::wrong(format!("{PARSE}: two columns are named `{column}`")));
        }
    }
    let mut rows = Array::new();
    let mut record = StringRecord::new();
    while reader.read_record(&mut record).map_err(|error| failed(PARSE, &error))? {
        let row: Map =
            columns.iter().cloned().zip(record.iter().map(|field| ImmutableString::from(field).into())).collect();
        rows.push(row.into());
        if !go_on() {
            context::current()?;
        }
    }
    Ok(rows)
}

/// The end of the run, if that is why, else the fault.
fn failed(function: &str, error: &impl Display) -> Box<EvalAltResult> {
    match context::current() {
        Err(ended) => ended,
        Ok(_) => args::wrong(format!("{function}: {error}")),
    }
}
