//! Rows of a statement as what they are rows of.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use webdancer_query::gated;

use crate::dashboard::fault::Fault;
use crate::dashboard::state::Dashboard;
use crate::dashboard::table::Cell;

/// All rows of a statement. A column that is null is as if it were not there.
pub(super) async fn all<T: DeserializeOwned>(app: &Dashboard, sql: &str) -> Result<Vec<T>, Fault> {
    let rows = app.rows(sql).await?.into_iter().map(|mut row| {
        row.retain(|_, value| !value.is_null());
        serde_json::from_value(Value::Object(row))
    });
    rows.collect::<Result<_, _>>().map_err(|error| Fault::failed("rows of the lake cannot be read", &error))
}

/// The first row of a statement.
pub(super) async fn first<T: DeserializeOwned>(app: &Dashboard, sql: &str) -> Result<Option<T>, Fault> {
    Ok(all(app, sql).await?.into_iter().next())
}

/// What a condition on questions `q` goes on with, so that those of gated benchmarks are there for who may see them.
pub(super) fn and_shown(app: &Dashboard) -> String {
    if app.restricted() { String::new() } else { format!(" AND {}", gated::is_open("q")) }
}

/// A text of a row.
pub(super) fn text<'r>(row: &'r Map<String, Value>, name: &str) -> Option<&'r str> {
    row.get(name).and_then(Value::as_str)
}

/// A count of a row; 0 where there is none.
pub(super) fn count(row: &Map<String, Value>, name: &str) -> u64 {
    row.get(name).and_then(Value::as_u64).unwrap_or(0)
}

/// A number of a row.
pub(super) fn number(row: &Map<String, Value>, name: &str) -> Option<f64> {
    row.get(name).and_then(Value::as_f64)
}

/// A cell of a text that others wrote: its beginning, with what cannot be seen made visible.
pub(super) fn said(text: Option<&str>, characters: usize) -> Cell {
    text.map_or_else(Cell::missing, |text| Cell::long(text, characters))
}
