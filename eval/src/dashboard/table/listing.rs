//! Rows of a statement, sorted, filtered and cut into pages by the engine.

use maud::Markup;
use serde_json::{Map, Value};

use super::super::fault::Fault;
use super::super::page::{Answer, Page};
use super::super::request::Asked;
use super::view::View;
use super::{Row, Table};

/// A table whose rows stay in the lake. Only the columns named are read, and only a page of rows.
#[derive(Debug, Clone)]
pub struct Listing {
    /// Columns and their headings; their keys are columns of `sql`.
    pub table: Table,
    /// The statement: one that gives the columns by their keys, without order and limit. From outside it has literals alone.
    pub sql: String,
    /// The usual order, such as `"started" DESC`.
    pub order: &'static str,
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
        let sql = format!("{}{}", self.matching(&view), view.order_clause(&self.table.columns, self.order));
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
        let matching = self.matching(&view);
        let statement =
            format!("{matching}{}{}", view.order_clause(&self.table.columns, self.order), view.limit_clause());
        let counted =
            format!("SELECT count(*) AS n FROM ({}) AS listed{}", self.sql, view.where_clause(&self.table.columns));
        let (rows, total) = futures::try_join!(asked.app.rows(&statement), asked.app.rows(&counted))?;
        self.table.rows = rows.iter().map(row).collect();
        self.table.total = total.first().and_then(|row| row.get("n")).and_then(Value::as_u64);
        self.table.sql = Some(statement);
        page.table(self.table, asked)
    }

    fn view(&self, asked: &Asked) -> Result<View, Fault> {
        View::of(&asked.query, &self.table.prefix(), &self.table.columns)
    }

    fn matching(&self, view: &View) -> String {
        let keys: Vec<String> = self.table.columns.iter().map(|column| super::super::sql::name(&column.key)).collect();
        format!("SELECT {} FROM ({}) AS listed{}", keys.join(", "), self.sql, view.where_clause(&self.table.columns))
    }
}
