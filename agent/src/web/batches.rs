//! Columns of record batches, whatever string type the engine that made them uses.

use arrow::array::{Array as _, AsArray as _, ListArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};
use arrow::record_batch::RecordBatch;
use webdancer_schemas::rows::Page;

/// A batch that lacks a column, or has it in another type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {reason}; select the table's columns as they are")]
pub struct BatchError {
    /// The column.
    pub column: String,
    /// What is wrong.
    pub reason: String,
}

/// The pages of a batch: `url`, and where there are such columns `final_url`, `title`, `text` and `error`.
///
/// # Errors
/// A column is missing or of another type.
pub fn pages(batch: &RecordBatch) -> Result<Vec<Page>, BatchError> {
    let url = strings(batch, "url")?;
    let text = strings(batch, "text")?;
    let optional = |name: &str| match batch.column_by_name(name) {
        Some(_) => strings(batch, name).map(Some),
        None => Ok(None),
    };
    let (final_url, title, error) = (optional("final_url")?, optional("title")?, optional("error")?);
    let cell = |column: &Option<StringArray>, row| column.as_ref().and_then(|column| value(column, row));
    let page = |row| Page {
        url: value(&url, row).unwrap_or_default(),
        final_url: cell(&final_url, row).unwrap_or_default(),
        title: cell(&title, row),
        text: value(&text, row),
        error: cell(&error, row),
        ..Page::default()
    };
    Ok((0..batch.num_rows()).map(page).collect())
}

/// A column of strings.
pub(super) fn strings(batch: &RecordBatch, name: &str) -> Result<StringArray, BatchError> {
    let column = column(batch, name)?;
    let cast = cast(column, &DataType::Utf8).map_err(|e| fault(name, e))?;
    cast.as_string_opt::<i32>().cloned().ok_or_else(|| fault(name, "is no column of strings"))
}

/// A column of lists of strings.
pub(super) fn string_lists(batch: &RecordBatch, name: &str) -> Result<ListArray, BatchError> {
    lists_as(batch, name, list_of(DataType::Utf8), "is no column of lists of strings")
}

/// A column of lists of lists of strings.
pub(super) fn lists_of_lists(batch: &RecordBatch, name: &str) -> Result<ListArray, BatchError> {
    lists_as(batch, name, list_of(list_of(DataType::Utf8)), "is no column of lists of lists of strings")
}

fn list_of(element: DataType) -> DataType {
    DataType::List(std::sync::Arc::new(Field::new("item", element, true)))
}

fn lists_as(batch: &RecordBatch, name: &str, wanted: DataType, otherwise: &str) -> Result<ListArray, BatchError> {
    let cast = cast(column(batch, name)?, &wanted).map_err(|e| fault(name, e))?;
    cast.as_list_opt::<i32>().cloned().ok_or_else(|| fault(name, otherwise))
}

/// The strings of the list in one row; a null list is empty.
pub(super) fn list(column: &ListArray, row: usize) -> Vec<Option<String>> {
    if column.is_null(row) {
        return Vec::new();
    }
    let values = column.value(row);
    let Some(strings) = values.as_string_opt::<i32>() else { return Vec::new() };
    strings.iter().map(|text| text.map(str::to_string)).collect()
}

/// The lists of the list in one row, of each the strings that are none of null; a null list is empty.
pub(super) fn lists(column: &ListArray, row: usize) -> Vec<Option<Vec<String>>> {
    if column.is_null(row) {
        return Vec::new();
    }
    let values = column.value(row);
    let Some(inner) = values.as_list_opt::<i32>() else { return Vec::new() };
    (0..inner.len()).map(|at| inner.is_valid(at).then(|| list(inner, at).into_iter().flatten().collect())).collect()
}

fn value(column: &StringArray, row: usize) -> Option<String> {
    (!column.is_null(row)).then(|| column.value(row).to_string())
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a arrow::array::ArrayRef, BatchError> {
    batch.column_by_name(name).ok_or_else(|| fault(name, "is missing"))
}

fn fault(column: &str, reason: impl std::fmt::Display) -> BatchError {
    BatchError { column: column.to_string(), reason: reason.to_string() }
}
