//! Rows as aligned columns.
//!
//! Widths are fixed after a sample of rows, so that a result of any size is written as it comes. Cells are one line
//! each, and what could move the cursor or colour a terminal (page texts come from the open web) is replaced.

use std::io::Write;

use arrow::array::{Array as _, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::TableOptions;
use crate::error::Result;

/// Characters of a cell that are looked at: a cell shows far fewer.
const CELL_CHARS: usize = 4_096;

/// Writes the table format.
pub(super) struct TableWriter<W: Write> {
    writer: W,
    options: TableOptions,
    headers: Vec<String>,
    right: Vec<bool>,
    widths: Vec<usize>,
    sample: Vec<Vec<String>>,
    started: bool,
}

impl<W: Write> TableWriter<W> {
    pub(super) fn new(schema: SchemaRef, writer: W, options: TableOptions) -> TableWriter<W> {
        let limit = options.max_cell_width.max(1);
        let headers: Vec<String> = schema.fields().iter().map(|field| fit(&one_line(field.name()), limit)).collect();
        TableWriter {
            widths: headers.iter().map(|header| header.width()).collect(),
            right: schema.fields().iter().map(|field| is_number(field.data_type())).collect(),
            headers,
            writer,
            options,
            sample: Vec::new(),
            started: false,
        }
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let format = FormatOptions::default().with_null(self.options.null).with_display_error(true);
        let columns = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &format))
            .collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            let cells = columns.iter().zip(batch.columns()).map(|(formatter, column)| {
                let text =
                    if column.is_null(row) { self.options.null.to_string() } else { formatter.value(row).to_string() };
                fit(&one_line(&text), self.options.max_cell_width.max(1))
            });
            let cells: Vec<String> = cells.collect();
            if self.started {
                self.line(&cells)?;
            } else {
                self.sample.push(cells);
                if self.sample.len() >= self.options.sample_rows {
                    self.start()?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<W> {
        if !self.started {
            self.start()?;
        }
        Ok(self.writer)
    }

    fn start(&mut self) -> Result<()> {
        self.started = true;
        for cells in &self.sample {
            for (width, cell) in self.widths.iter_mut().zip(cells) {
                *width = (*width).max(cell.width());
            }
        }
        if self.headers.is_empty() {
            return Ok(());
        }
        let headers = std::mem::take(&mut self.headers);
        self.line(&headers)?;
        let rule: Vec<String> = self.widths.iter().map(|width| "─".repeat(*width)).collect();
        writeln!(self.writer, "{}", rule.join("  "))?;
        for cells in std::mem::take(&mut self.sample) {
            self.line(&cells)?;
        }
        Ok(())
    }

    /// A cell wider than its column (the sample did not have one so wide) pushes the rest of its line.
    fn line(&mut self, cells: &[String]) -> Result<()> {
        let mut line = String::new();
        for (index, (cell, width)) in cells.iter().zip(&self.widths).enumerate() {
            let padding = " ".repeat(width.saturating_sub(cell.width()));
            let (left, right) = if self.right[index] { (padding.as_str(), "") } else { ("", padding.as_str()) };
            line.push_str(if index == 0 { "" } else { "  " });
            line.push_str(left);
            line.push_str(cell);
            line.push_str(right);
        }
        writeln!(self.writer, "{}", line.trim_end())?;
        Ok(())
    }
}

fn is_number(data_type: &DataType) -> bool {
    data_type.is_numeric()
}

fn one_line(text: &str) -> String {
    text.chars()
        .take(CELL_CHARS)
        .map(|c| match c {
            '\n' => '↵',
            '\t' => ' ',
            // Also the marks that reorder text.
            c if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// Cuts to `limit` columns on screen.
fn fit(text: &str, limit: usize) -> String {
    if text.width() <= limit {
        return text.to_string();
    }
    let mut cut = String::new();
    let mut width = 0;
    for c in text.chars() {
        width += c.width().unwrap_or(0);
        if width >= limit {
            break;
        }
        cut.push(c);
    }
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};

    use super::*;

    fn shown(columns: Vec<(&str, ArrayRef)>, options: TableOptions) -> String {
        let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
        let mut writer = TableWriter::new(batch.schema(), Vec::new(), options);
        writer.write(&batch).unwrap();
        String::from_utf8(writer.finish().unwrap()).unwrap()
    }

    #[test]
    fn numbers_stand_right_and_long_cells_are_cut() {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("name", Arc::new(StringArray::from(vec![Some("a long name indeed"), None, Some("两个\n字\u{1b}[31m")]))),
            ("n", Arc::new(Int64Array::from(vec![Some(1), Some(1000), None]))),
            ("share", Arc::new(Float64Array::from(vec![0.5, 2.0, 10.25]))),
        ];
        let options = TableOptions { max_cell_width: 12, ..TableOptions::default() };
        assert_eq!(
            shown(columns, options),
            "name             n  share\n\
             ────────────  ────  ─────\n\
             a long name…     1    0.5\n\
             null          1000    2.0\n\
             两个↵字\u{fffd}[31m  null  10.25\n"
        );
    }

    #[test]
    fn a_result_without_rows_shows_its_columns() {
        let columns: Vec<(&str, ArrayRef)> = vec![("qa_id", Arc::new(StringArray::from(Vec::<&str>::new())))];
        assert_eq!(shown(columns, TableOptions::default()), "qa_id\n─────\n");
    }
}
