//! What a reader without the right to gated benchmarks has of a pin.
//!
//! Rows that say of themselves whether they are restricted are left out. A pin may have renamed what says so, or left it
//! out: it is shown if nothing that it was made of holds gated rows, and refused else.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use datafusion::arrow::array::AsArray as _;
use datafusion::arrow::datatypes::Int64Type;
use datafusion::catalog::TableProvider;
use datafusion::dataframe::DataFrame;
use datafusion::datasource::empty::EmptyTable;
use webdancer_lake::lake::At;
use webdancer_lake::pins::{PinManifest, PinnedTable};
use webdancer_schemas::kind::Kind;
use webdancer_schemas::table::table_schema;

use super::{Resolver, with_declared_columns, with_tables};
use crate::error::{QueryError, Result};
use crate::gated;

/// A table that a pin was made of and that may hold gated rows.
type Source = (Kind, PinnedTable);

impl Resolver<'_> {
    /// The rows of a pin that are nobody's secret.
    pub(super) async fn open_rows(
        &self,
        manifest: &PinManifest,
        rows: Arc<dyn TableProvider>,
    ) -> Result<Arc<dyn TableProvider>> {
        let schema = rows.schema();
        for (kind, pinned) in self.gated_sources(manifest).await? {
            if !gated::is_told(&schema, kind) && self.may_hold_gated(kind, &pinned).await? {
                return Err(refused(manifest, kind));
            }
        }
        match gated::of_pin(&schema) {
            Some(sql) => self.narrowed(&sql, HashMap::from([(gated::PINNED.to_string(), rows)])).await,
            None => Ok(rows),
        }
    }

    /// The tables behind a pin, and behind the pins that it was made of, that may hold gated rows.
    async fn gated_sources(&self, manifest: &PinManifest) -> Result<Vec<Source>> {
        let (mut sources, mut seen) = (Vec::new(), BTreeSet::new());
        let mut open = vec![manifest.clone()];
        while let Some(pin) = open.pop() {
            if !seen.insert((pin.digest.clone(), pin.name.clone())) {
                continue;
            }
            for (name, pinned) in pin.tables {
                if let Some(inner) = name.strip_prefix("pin:") {
                    open.push(self.catalog.find_pin(inner).await?);
                    continue;
                }
                // `qa@5` is `qa`, too.
                let table = name.split_once('@').map_or(name.as_str(), |(table, _)| table);
                let kind = Kind::from_table(table).filter(|kind| gated::of_table(*kind).is_some());
                sources.extend(kind.map(|kind| (kind, pinned)));
            }
        }
        Ok(sources)
    }

    /// Whether a version of a table holds gated rows. True where that cannot be told any more.
    async fn may_hold_gated(&self, kind: Kind, pinned: &PinnedTable) -> Result<bool> {
        match self.check_same_table(kind, pinned).await {
            Err(QueryError::NotFound(_)) => return Ok(true),
            checked => checked?,
        }
        // Rows are only ever added: what the newest version does not hold, no version before it did.
        if !self.holds_gated(kind, At::Latest).await? {
            return Ok(false);
        }
        match self.holds_gated(kind, At::Version(pinned.version)).await {
            Ok(holds) => Ok(holds),
            Err(error) => {
                tracing::debug!(%error, table = kind.table(), version = pinned.version, "a version cannot be read any more");
                Ok(true)
            }
        }
    }

    async fn holds_gated(&self, kind: Kind, at: At) -> Result<bool> {
        let Some(sql) = gated::of_table(kind) else { return Ok(false) };
        let all = self.declared(kind, at).await?;
        let mut tables = HashMap::from([(kind.table().to_string(), all.clone())]);
        if kind == Kind::Judgment {
            let trajectories = self.declared(Kind::Trajectory, At::Latest).await?;
            tables.insert(Kind::Trajectory.table().to_string(), trajectories);
        }
        let open = self.narrowed(sql, tables).await?;
        Ok(self.rows_of(open).await? < self.rows_of(all).await?)
    }

    /// A table as its kind declares it; none is an empty one.
    async fn declared(&self, kind: Kind, at: At) -> Result<Arc<dyn TableProvider>> {
        match self.catalog.table(kind, at).await? {
            Some(table) => with_declared_columns(table.provider, kind),
            None => Ok(Arc::new(EmptyTable::new(table_schema(kind)))),
        }
    }

    async fn rows_of(&self, table: Arc<dyn TableProvider>) -> Result<i64> {
        let statement = crate::statement::parse("SELECT count(*) AS n FROM counted", self.limits)?;
        let state = with_tables(self.state, HashMap::from([("counted".to_string(), table)]));
        let plan = state.statement_to_plan(statement).await?;
        let batches = DataFrame::new(state, plan).collect().await.map_err(QueryError::running)?;
        let counts = batches.iter().filter_map(|batch| batch.column(0).as_primitive_opt::<Int64Type>());
        Ok(counts.flat_map(|counts| counts.values().iter().copied()).sum())
    }
}

fn refused(manifest: &PinManifest, kind: Kind) -> QueryError {
    let (name, table) = (&manifest.name, kind.table());
    QueryError::Refused(format!(
        "pin {name} was made of {table} with rows of gated benchmarks, and its rows do not say which these are: pin them \
         again with the column `restricted` (of qa: `attributes`), or read it where gated rows are shown"
    ))
}
