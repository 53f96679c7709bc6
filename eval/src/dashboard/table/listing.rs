//! Rows of a statement, sorted, filtered and cut into pages by the engine.

use std::sync::Arc;

use maud::Markup;
use serde_json::{Map, Value};
use webdancer_schemas::kind::Kind;

use super::super::fault::Fault;
use super::super::page::{Answer, Page};
use super::super::request::{Asked, Form};
use super::super::state::Computed;
use super::view::View;
use super::{Column, Row, Table};

/// A table whose rows stay in the lake. Only the columns named are read, and only a page of rows.
#[derive(Debug, Clone)]
pub struct Listing {
    /// Columns and their headings; their keys are columns of `sql`.
    pub table: Table,
    /// The statement: one that gives the columns by their keys, without order and limit. From outside it has literals alone.
    pub sql: String,
    /// The usual order, such as `"started" DESC`.
    pub order: &'static str,
    /// The tables that its rows come from. As long as these are as they were its rows are not counted again.
    pub over: &'static [Kind],
}

impl Listing {
    /// The rows that match, all of them, where the request is for a download of this table: return it as the answer.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn download(&self, asked: &Asked) -> Result<Option<Answer>, Fault> {
        if !asked.wants_rows(&self.table.id) {
            return Ok(None);
        }
        let view = self.view(asked)?;
        let all: Vec<&Column> = self.table.columns.iter().collect();
        let sql = format!("{}{}", self.matching(&view, &all), view.order_clause(&self.table.columns, self.order));
        Ok(Some(Answer::rows_of(asked, &self.table.id, &sql).await?))
    }

    /// Reads a page of rows and shows it on `page`. `row` makes cells of a row's values, as many as there are columns, and
    /// says where the row leads.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn show(
        mut self,
        asked: &Asked,
        page: &mut Page,
        row: impl Fn(&Map<String, Value>) -> Row,
    ) -> Result<Markup, Fault> {
        let view = self.view(asked)?;
        let shown: Vec<usize> = view.columns().collect();
        let is_read = |at: usize, column: &Column| !column.on_demand || asked.form != Form::Html || shown.contains(&at);
        let columns = self.table.columns.iter().enumerate();
        let read: Vec<&Column> =
            columns.filter(|(at, column)| is_read(*at, column)).map(|(_, column)| column).collect();
        let matching = self.matching(&view, &read);
        let statement =
            format!("{matching}{}{}", view.order_clause(&self.table.columns, self.order), view.limit_clause());
        let (rows, total) = futures::try_join!(asked.app.rows(&statement), self.total(asked, &view))?;
        page.behind(total.behind);
        self.table.rows = rows.iter().map(row).collect();
        self.table.total = *total.value;
        self.table.sql = Some(statement);
        page.table(self.table, asked)
    }

    fn view(&self, asked: &Asked) -> Result<View, Fault> {
        View::of(&asked.query, &self.table.prefix(), &self.table.columns)
    }

    /// How many rows match. Those of the whole list are kept; those of a filter are another number for everybody.
    async fn total(&self, asked: &Asked, view: &View) -> Result<Computed<Option<u64>>, Fault> {
        let counted =
            format!("SELECT count(*) AS n FROM ({}) AS listed{}", self.sql, view.where_clause(&self.table.columns));
        let app = asked.app.clone();
        let count =
            async move { Ok(app.rows(&counted).await?.first().and_then(|row| row.get("n")).and_then(Value::as_u64)) };
        if view.is_filtered() {
            return Ok(Computed { value: Arc::new(count.await?), behind: false });
        }
        asked.app.memo(&format!("rows of {}", self.table.id), self.over, count).await
    }

    fn matching(&self, view: &View, columns: &[&Column]) -> String {
        let keys: Vec<String> = columns.iter().map(|column| super::super::sql::name(&column.key)).collect();
        format!("SELECT {} FROM ({}) AS listed{}", keys.join(", "), self.sql, view.where_clause(&self.table.columns))
    }
}
