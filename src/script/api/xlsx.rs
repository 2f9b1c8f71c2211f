//! `xlsx::format`: spreadsheets of several sheets, as a blob to save.

use std::sync::Arc;

use rhai::{Array, Blob, Dynamic, ImmutableString, Map, Module};

use super::reference::{Function, Namespace, Outcome};
use super::{answer, args, go_on, put};
use crate::script::account;
use crate::script::context::{self, ScriptResult};
use crate::script::moment::Time;
use crate::script::services::sheets::{self, Cell, MAX_COLUMNS, MAX_ROWS, Sheet};

const FORMAT: &str = "xlsx::format";

/// What a cell takes here and in the writer, beside its text. Bytes.
const CELL_BYTES: usize = 160;
const MAX_SHEETS: usize = 100;

pub const REFERENCE: Namespace = Namespace {
    name: "xlsx",
    about: "",
    functions: &[Function::new(
        &["format(sheets: map) -> blob"],
        "a spreadsheet; the map names its sheets, each an array of rows, which are maps or arrays",
        "let book = xlsx::format(#{\n    Orders: [#{ item: \"tea\", price: 2.5 }, #{ item: \"jam\", price: 3.0 }],\n    \
         Sums: [[\"price\", 5.5], [\"when\", time::now()]],\n});\n\
         file::save(\"report.xlsx\", book).content_type",
        Outcome::Value(r#""application/vnd.openxmlformats-officedocument.spreadsheetml.sheet""#),
    )],
    notes: "Sheets are in the order of the alphabet, with names of 1 to 31 characters without `[ ] : * ? / \\`. Rows that are maps get a \
            first line with the keys of the first one,\nwhich stays in view. Numbers stay numbers (an integer beyond 2^53 becomes text, \
            so that no digit is lost), a time is a date as the clocks of its zone show it, and a text is\nnever a formula. A cell holds 32767 characters.",
};

pub fn module() -> Module {
    let mut module = Module::new();
    put!(&mut module, "format", |sheets: Dynamic| format(&sheets));
    module
}

fn format(given: &Dynamic) -> ScriptResult<Blob> {
    let run = context::current()?;
    let Some(map) = given.read_lock::<Map>() else {
        return Err(args::unfit(FORMAT, "sheets", "a map of arrays", given));
    };
    if map.is_empty() || map.len() > MAX_SHEETS {
        return Err(args::wrong(format!("{FORMAT}: `sheets` must name 1 to {MAX_SHEETS} sheets, not {}", map.len())));
    }
    let mut book = Book { sheets: Vec::new(), size: 0 };
    let collected = map.iter().try_for_each(|(name, rows)| book.sheet(name, rows));
    let sheets = account::uncharged(|| Arc::new(std::mem::take(&mut book.sheets)));
    drop(book);
    if let Err(error) = collected {
        account::uncharged(|| drop(sheets));
        return Err(error);
    }
    let reply = account::uncharged(|| run.services.compute(move || sheets::file(&sheets)));
    let bytes = answer(reply)?;
    account::adopt(bytes.capacity());
    Ok(bytes)
}

/// Cells for another thread: not the run's memory, but bounded by the room that the run has.
struct Book {
    sheets: Vec<Sheet>,
    size: usize,
}

impl Book {
    fn sheet(&mut self, name: &str, rows: &Dynamic) -> ScriptResult<()> {
        let shown: String = name.chars().take(40).collect();
        let Some(rows) = rows.read_lock::<Array>() else {
            return Err(args::unfit(FORMAT, &format!("sheets.{shown}"), "an array of maps or of arrays", rows));
        };
        let keys: Option<Vec<String>> =
            rows.first().and_then(|first| Some(first.read_lock::<Map>()?.keys().map(ToString::to_string).collect()));
        if rows.len() >= MAX_ROWS {
            return Err(args::wrong(format!("{FORMAT}: `sheets.{shown}` has more than {MAX_ROWS} rows")));
        }
        account::uncharged(|| {
            self.sheets.push(Sheet { name: name.to_owned(), has_header: keys.is_some(), rows: Vec::new() });
        });
        if let Some(keys) = &keys {
            let head: Vec<Dynamic> = keys.iter().map(|key| key.as_str().into()).collect();
            self.row(head.iter(), |_| format!("sheets.{shown}"))?;
        }
        for (index, row) in rows.iter().enumerate() {
            let place = format!("sheets.{shown}[{index}]");
            if let Some(keys) = &keys {
                let Some(row) = row.read_lock::<Map>() else {
                    return Err(args::unfit(FORMAT, &place, "a map, as the first row is", row));
                };
                if let Some(extra) = row.keys().find(|key| keys.iter().all(|known| known != key.as_str())) {
                    return Err(args::wrong(format!("{FORMAT}: `{place}` has `{extra}`, which the first row has not")));
                }
                let values: Vec<&Dynamic> =
                    keys.iter().map(|key| row.get(key.as_str()).unwrap_or(&Dynamic::UNIT)).collect();
                self.row(values.into_iter(), |at| format!("{place}.{}", keys[at]))?;
            } else {
                let Some(row) = row.read_lock::<Array>() else {
                    return Err(args::unfit(FORMAT, &place, "a map or an array, as the first row is", row));
                };
                self.row(row.iter(), |at| format!("{place}[{at}]"))?;
            }
            if !go_on() {
                context::current()?;
            }
        }
        Ok(())
    }

    fn row<'v>(
        &mut self,
        values: impl ExactSizeIterator<Item = &'v Dynamic>,
        place: impl Fn(usize) -> String,
    ) -> ScriptResult<()> {
        if values.len() > MAX_COLUMNS {
            return Err(args::wrong(format!("{FORMAT}: `{}` is beyond {MAX_COLUMNS} columns", place(MAX_COLUMNS - 1))));
        }
        self.size += CELL_BYTES * values.len();
        account::reserve(self.size)?;
        let row = account::uncharged(|| Vec::with_capacity(values.len()));
        let Some(sheet) = self.sheets.last_mut() else { return Ok(()) };
        account::uncharged(|| sheet.rows.push(row));
        let Some(row) = sheet.rows.last_mut() else { return Ok(()) };
        for (at, value) in values.enumerate() {
            let cell = account::uncharged(|| cell(value));
            let cell =
                cell.ok_or_else(|| args::unfit(FORMAT, &place(at), "a string, a number, a bool, a time or ()", value))?;
            if let Cell::Text(text) = &cell {
                // Once here, once in the writer, once in the file.
                self.size += 3 * text.len();
                account::reserve(self.size)?;
            }
            row.push(cell);
        }
        Ok(())
    }
}

fn cell(value: &Dynamic) -> Option<Cell> {
    if let Some(text) = value.read_lock::<ImmutableString>() {
        return Some(Cell::Text(text.to_string()));
    }
    if let Some(time) = value.read_lock::<Time>() {
        return Some(Cell::Time(time.zoned().datetime()));
    }
    if let Ok(int) = value.as_int() {
        Some(Cell::Integer(int))
    } else if let Ok(float) = value.as_float() {
        Some(Cell::Float(float))
    } else if let Ok(flag) = value.as_bool() {
        Some(Cell::Bool(flag))
    } else if let Ok(char) = value.as_char() {
        Some(Cell::Text(char.to_string()))
    } else {
        value.is_unit().then_some(Cell::Empty)
    }
}
