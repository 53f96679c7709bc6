//! Tables: columns with units, sorted, filtered and paged by the URL, a row being a link; the same rows as CSV, JSON and
//! Parquet.
//!
//! A [`Table`] has all its rows in memory: figures that were computed. A [`Listing`] is a statement whose rows the
//! engine sorts, filters and cuts into pages, for tables of the lake. Both have the same [state](view::View) in the
//! URL: `sort=-column`, `page=2`, `f.column=…` and `cols=a&cols=b`, with `ID.` before each for all but a page's main table.

mod cell;
mod export;
mod listing;
mod view;

use maud::{Markup, html};
use serde_json::Value;

pub use cell::Cell;
pub use listing::Listing;

use super::fault::Fault;
use super::page;
use super::request::{Asked, Form};
use view::View;

/// Rows on one page.
pub const PAGE_ROWS: usize = 50;

/// Rows of a chart's table on its page; the CSV has all.
const PLAIN_ROWS: usize = 200;

/// What a column holds: how it is aligned, sorted and filtered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// Text: filtered by what it contains, `=text` by what it is.
    Text,
    /// Numbers: filtered by `>5`, `<=3`, `=2`, `1..5`.
    Number,
    /// Figures that were made text, such as those with intervals: as text, to the right.
    Figure,
    /// Times: filtered by how they begin, `2026-11`, or by `>2026-11-01`.
    Time,
}

/// A column.
#[derive(Debug, Clone)]
pub struct Column {
    /// Its name in the URL, in SQL and in downloads.
    pub key: String,
    /// Its heading.
    pub title: String,
    /// Its unit, which stands in the heading.
    pub unit: &'static str,
    /// What it holds.
    pub holds: Holds,
    /// Whether it is shown unless asked for otherwise.
    pub shown: bool,
    /// Whether a listing reads it only where it is shown or downloaded.
    pub on_demand: bool,
}

impl Holds {
    /// The class of its cells.
    fn class(self) -> &'static str {
        if matches!(self, Holds::Number | Holds::Figure) { "number" } else { "" }
    }
}

impl Column {
    /// A column of text.
    pub fn text(key: impl Into<String>, title: impl Into<String>) -> Column {
        Column { key: key.into(), title: title.into(), unit: "", holds: Holds::Text, shown: true, on_demand: false }
    }

    /// A column of numbers with their unit, which may be empty.
    pub fn number(key: impl Into<String>, title: impl Into<String>, unit: &'static str) -> Column {
        Column { unit, holds: Holds::Number, ..Column::text(key, title) }
    }

    /// A column of figures as text.
    pub fn figure(key: impl Into<String>, title: impl Into<String>) -> Column {
        Column { holds: Holds::Figure, ..Column::text(key, title) }
    }

    /// A column of times.
    pub fn time(key: impl Into<String>, title: impl Into<String>) -> Column {
        Column { holds: Holds::Time, ..Column::text(key, title) }
    }

    /// The column, not shown unless asked for; downloads have it.
    #[must_use]
    pub fn hidden(self) -> Column {
        Column { shown: false, ..self }
    }

    /// The same of a column that nothing else on the page rests on: a listing does not read it for nothing.
    #[must_use]
    pub fn on_demand(self) -> Column {
        Column { on_demand: true, ..self.hidden() }
    }
}

/// A row.
#[derive(Debug, Clone)]
pub struct Row {
    /// Where it leads.
    pub href: Option<String>,
    /// As many cells as there are columns.
    pub cells: Vec<Cell>,
}

/// A table whose rows are in memory.
#[derive(Debug, Clone)]
pub struct Table {
    id: String,
    caption: String,
    columns: Vec<Column>,
    rows: Vec<Row>,
    main: bool,
    sql: Option<String>,
    empty: Option<(String, String)>,
    /// Rows of all pages, where `rows` are those of one page that the engine cut out.
    total: Option<u64>,
}

impl Table {
    /// A table of these columns. `id` names it in downloads and is unique on its page.
    pub fn new(id: impl Into<String>, caption: impl Into<String>, columns: Vec<Column>) -> Table {
        Table {
            id: id.into(),
            caption: caption.into(),
            columns,
            rows: Vec::new(),
            main: false,
            sql: None,
            empty: None,
            total: None,
        }
    }

    /// The page's main table: its state needs no name in the URL, and `j` and `k` go through its rows.
    #[must_use]
    pub fn main(mut self) -> Table {
        self.main = true;
        self
    }

    /// The SQL that the rows come from, to be shown below.
    #[must_use]
    pub fn sql(mut self, sql: impl Into<String>) -> Table {
        self.sql = Some(sql.into());
        self
    }

    /// What stands there where there is no row: a sentence and the command that makes some.
    #[must_use]
    pub fn empty(mut self, sentence: impl Into<String>, command: impl Into<String>) -> Table {
        self.empty = Some((sentence.into(), command.into()));
        self
    }

    /// One more row.
    pub fn row(&mut self, href: Option<String>, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len(), "{}", self.id);
        self.rows.push(Row { href, cells });
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its caption.
    pub(super) fn caption(&self) -> &str {
        &self.caption
    }

    /// Whether it has no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The prefix of its parameters in the URL.
    fn prefix(&self) -> String {
        if self.main { String::new() } else { format!("{}.", self.id) }
    }

    /// The markup of the table in the state that the query asks for. The rows that are left are those that match, sorted:
    /// what downloads have.
    pub(super) fn show(&mut self, asked: &Asked) -> Result<Markup, Fault> {
        let view = View::of(&asked.query, &self.prefix(), &self.columns)?;
        let none_at_all = self.rows.is_empty() && !view.is_filtered();
        if self.total.is_none() {
            view.apply(&mut self.rows);
        }
        if none_at_all && let Some((sentence, command)) = &self.empty {
            return Ok(page::empty(sentence, command));
        }
        if asked.form != Form::Html {
            return Ok(html! {});
        }
        Ok(self.markup(asked, &view))
    }

    fn markup(&self, asked: &Asked, view: &View) -> Markup {
        let total = self.total.map_or(self.rows.len(), |total| usize::try_from(total).unwrap_or(usize::MAX));
        let rows = match self.total {
            Some(_) => self.rows.as_slice(),
            None => view.page_of(&self.rows),
        };
        let form = format!("{}-filters", self.id);
        html! {
            section.table id=(self.id) {
                form id=(form) method="get" action=(asked.address) {
                    @for (name, value) in view.others(asked, &self.columns) { input type="hidden" name=(name) value=(value); }
                }
                div.scroll tabindex="0" role="region" aria-label=(self.caption) {
                    table data-rows[self.main] {
                        caption { (self.caption) span.n { " " (super::format::count(total as u64)) @if total == 1 { " row" } @else { " rows" } } }
                        thead {
                            tr { @for at in view.columns() { @if let Some(column) = self.columns.get(at) { (view.heading(asked, column, at)) } } }
                            @if total > 5 || view.is_filtered() {
                                tr.filters { @for at in view.columns() { @if let Some(column) = self.columns.get(at) { (view.filter_box(&form, column, at)) } } }
                            }
                        }
                        tbody {
                            @for row in rows { (self.line(row, view)) }
                            @if rows.is_empty() { tr { td.none colspan=(view.columns().count()) { "No row matches. " a href=(view.without_filters(asked, &self.columns)) { "Show all" } } } }
                        }
                    }
                }
                div.under {
                    (view.pages(asked, total))
                    (self.downloads(asked))
                    (view.chooser(&form, &self.id, &self.columns))
                    @if let Some(sql) = &self.sql { (sql_of(sql)) }
                    noscript { button type="submit" form=(form) { "Filter" } }
                }
            }
        }
    }

    fn line(&self, row: &Row, view: &View) -> Markup {
        html! {
            tr data-href=[row.href.as_deref()] {
                @for (place, at) in view.columns().enumerate() {
                    @if let (Some(cell), Some(column)) = (row.cells.get(at), self.columns.get(at)) {
                        @let class = column.holds.class();
                        @let shown = cell.markup(if place == 0 { row.href.as_deref() } else { None });
                        @if place == 0 { th scope="row" class=(class) title=[cell.hint()] { (shown) } }
                        @else { td class=(class) title=[cell.hint()] { (shown) } }
                    }
                }
            }
        }
    }

    fn downloads(&self, asked: &Asked) -> Markup {
        let link = |form: &str| {
            format!("{}{}", asked.address, asked.query.changed(&[("format", Some(form)), ("of", Some(&self.id))]))
        };
        html! {
            span.downloads {
                a href=(link("csv")) download { "CSV" } " " a href=(link("json")) { "JSON" } " "
                a href=(link("parquet")) download { "Parquet" }
            }
        }
    }

    /// The rows without sorting, filters and links: what stands below a chart.
    pub(super) fn plain(&self) -> Markup {
        html! {
            div.scroll tabindex="0" role="region" aria-label=(self.caption) {
                table {
                    thead { tr { @for column in &self.columns {
                        th scope="col" class=(column.holds.class()) { (column.title) @if !column.unit.is_empty() { span.unit { ", " (column.unit) } } }
                    } } }
                    tbody { @for row in self.rows.iter().take(PLAIN_ROWS) { tr { @for (cell, column) in row.cells.iter().zip(&self.columns) {
                        td class=(column.holds.class()) title=[cell.hint()] { (cell.markup(None)) }
                    } } } }
                }
                @if self.rows.len() > PLAIN_ROWS { p { "The CSV has all " (self.rows.len()) " rows." } }
            }
        }
    }

    /// The rows as a JSON array of objects with exact values.
    pub(super) fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let cells = self.columns.iter().zip(&row.cells);
            Value::Object(cells.map(|(column, cell)| (column.key.clone(), cell.value().clone())).collect())
        });
        Value::Array(rows.collect())
    }
}

/// A statement that can be looked at, copied and opened in the console.
pub fn sql_of(sql: &str) -> Markup {
    let console = format!("/sql{}", super::request::query_of([("sql", sql)]));
    html! {
        details.sql { summary { "SQL" } pre tabindex="0" { code { (sql) } } (page::copy(sql)) " " a href=(console) { "Open in the console" } }
    }
}
