//! Spreadsheets: cells to the bytes of an `.xlsx` file. Plain Rust; knows no script values.

use rust_xlsxwriter::{ExcelDateTime, Format, Workbook, Worksheet, XlsxError};

use crate::job::ErrorKind;
use crate::script::ports::{HostError, HostResult};

/// Integers beyond this lose digits as a number of a spreadsheet, which is a float.
const MAX_EXACT: i64 = 1 << 53;
/// What a sheet holds; given by the file format.
pub const MAX_ROWS: usize = 1 << 20;
pub const MAX_COLUMNS: usize = 1 << 14;

#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    Empty,
    Text(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
    /// As the clocks of its zone show it.
    Time(jiff::civil::DateTime),
}

#[derive(Clone, Debug)]
pub struct Sheet {
    pub name: String,
    /// Whether the first row names the columns.
    pub has_header: bool,
    pub rows: Vec<Vec<Cell>>,
}

/// The bytes of a file with these sheets.
///
/// # Errors
/// For a name that no sheet can have, a text above 32767 characters, or too many rows or columns.
pub fn file(sheets: &[Sheet]) -> HostResult<Vec<u8>> {
    let mut workbook = Workbook::new();
    for sheet in sheets {
        let at = |error: XlsxError| failed(&format!("sheet `{}`: {error}", sheet.name));
        let page = workbook.add_worksheet();
        page.set_name(&sheet.name).map_err(at)?;
        if sheet.has_header {
            page.set_freeze_panes(1, 0).map_err(at)?;
        }
        fill(page, sheet).map_err(at)?;
    }
    workbook.save_to_buffer().map_err(|error| failed(&error.to_string()))
}

fn fill(page: &mut Worksheet, sheet: &Sheet) -> Result<(), XlsxError> {
    let (head, date) = (Format::new().set_bold(), Format::new().set_num_format("yyyy-mm-dd hh:mm:ss"));
    for (row, cells) in (0_u32..).zip(&sheet.rows) {
        for (column, cell) in (0_u16..).zip(cells) {
            match cell {
                Cell::Empty => {}
                Cell::Text(text) if row == 0 && sheet.has_header => {
                    page.write_string_with_format(row, column, text, &head)?;
                }
                Cell::Text(text) => {
                    page.write_string(row, column, text)?;
                }
                #[expect(clippy::cast_precision_loss, reason = "exact up to that size")]
                Cell::Integer(int) if (-MAX_EXACT..=MAX_EXACT).contains(int) => {
                    page.write_number(row, column, *int as f64)?;
                }
                Cell::Integer(int) => {
                    page.write_string(row, column, int.to_string())?;
                }
                Cell::Float(float) if float.is_finite() => {
                    page.write_number(row, column, *float)?;
                }
                Cell::Float(float) => {
                    page.write_string(row, column, float.to_string())?;
                }
                Cell::Bool(flag) => {
                    page.write_boolean(row, column, *flag)?;
                }
                Cell::Time(time) => {
                    match excel(*time) {
                        Some(moment) => page.write_datetime_with_format(row, column, &moment, &date)?,
                        None => page.write_string(row, column, time.to_string())?,
                    };
                }
            }
        }
    }
    Ok(())
}

/// Spreadsheets know the years 1900 to 9999.
fn excel(time: jiff::civil::DateTime) -> Option<ExcelDateTime> {
    let (year, month, day) = (u16::try_from(time.year()).ok()?, time.month().unsigned_abs(), time.day().unsigned_abs());
    let (hour, minute) = (u16::try_from(time.hour()).ok()?, time.minute().unsigned_abs());
    let second = f64::from(time.second()) + f64::from(time.subsec_nanosecond() / 1_000_000) / 1000.0;
    ExcelDateTime::from_ymd(year, month, day).and_then(|day| day.and_hms(hour, minute, second)).ok()
}

fn failed(message: &str) -> HostError {
    HostError::new(ErrorKind::Script, format!("xlsx::format: {message}"), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheet(name: &str, rows: Vec<Vec<Cell>>) -> Sheet {
        Sheet { name: name.to_owned(), has_header: true, rows }
    }

    #[test]
    fn a_file_is_a_zip_archive_and_faults_are_named() {
        let every = vec![
            vec![Cell::Text("head".into())],
            vec![
                Cell::Empty,
                Cell::Integer(i64::MAX),
                Cell::Float(f64::NAN),
                Cell::Bool(true),
                Cell::Time(jiff::civil::date(2026, 3, 1).at(8, 5, 0, 0)),
                Cell::Time(jiff::civil::date(-1, 3, 1).at(8, 5, 0, 0)),
            ],
        ];
        assert!(file(&[sheet("a", every)]).unwrap().starts_with(b"PK"));
        for (name, cell, said) in [
            ("a/b", Cell::Empty, "sheet `a/b`"),
            (&*"a".repeat(32), Cell::Empty, "31"),
            ("a", Cell::Text("x".repeat(40_000)), "32"),
        ] {
            let error = file(&[sheet(name, vec![vec![cell]])]).unwrap_err();
            assert!(error.message.contains(said), "{error}");
        }
        assert!(file(&[sheet("a", vec![]), sheet("A", vec![])]).is_err(), "two sheets of one name");
    }
}
