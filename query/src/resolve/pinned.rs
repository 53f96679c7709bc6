//! What a reader without the right to gated benchmarks has of a pin.
//!
//! Rows that say of themselves that they are restricted are left out, and those whose question or trajectory does. A pin may
//! have renamed what says so, or left it out: it is shown if nothing that it was made of holds gated rows, and refused else.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use datafusion::arrow::array::AsArray as _;
use datafusion::arrow::datatypes::{Int64Type, Schema};
use datafusion::catalog::TableProvider;
use datafusion::dataframe::DataFrame;
use webdancer_lake::lake::At;
use webdancer_lake::pins::{PinManifest, PinnedTable};
use webdancer_schemas::kind::Kind;

use super::known::{Known, Tellers};
use super::{Resolver, with_tables};
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
        if let Some(kind) = self.untold(manifest, &schema).await? {
            return Err(refused(manifest, kind));
        }
        let Some(sql) = gated::of_pin(&schema) else { return Ok(rows) };
        // What tells of verdicts tells of all that a pin's rows may name.
        self.narrowed(&sql, self.with_tellers(Kind::Judgment, rows).await?).await
    }

    /// The table of which a pin has gated rows that do not tell that they are; found out once.
    async fn untold(&self, manifest: &PinManifest, schema: &Schema) -> Result<Option<Kind>> {
        match self.known_pins.get(manifest) {
            None => {}
            Some(Known::Refused(kind)) => return Ok(Some(kind)),
            Some(Known::Open(then)) => {
                let kinds: Vec<Kind> = then.iter().map(|(kind, _)| *kind).collect();
                if then == self.tellers(&kinds).await? {
                    return Ok(None);
                }
            }
        }
        let sources = self.gated_sources(manifest).await?;
        let silent: Vec<(&Source, String)> =
            sources.iter().filter_map(|source| Some((source, gated::untold(schema, source.0)?))).collect();
        // Before anything is counted: what comes meanwhile is counted the next time.
        let told_by: BTreeSet<Kind> = silent.iter().flat_map(|(source, _)| gated::told_by(source.0)).copied().collect();
        let tellers = self.tellers(&told_by.into_iter().collect::<Vec<_>>()).await?;
        for ((kind, pinned), harmless) in silent {
            if self.may_hold_others(*kind, pinned, &harmless).await? {
                self.known_pins.keep(manifest, Known::Refused(*kind));
                return Ok(Some(*kind));
            }
        }
        self.known_pins.keep(manifest, Known::Open(tellers));
        Ok(None)
    }

    /// These tables as they are.
    async fn tellers(&self, kinds: &[Kind]) -> Result<Tellers> {
        let mut tellers = Tellers::new();
        for kind in kinds {
            tellers.push((*kind, self.catalog.table(*kind, At::Latest).await?.map(|table| table.pinned)));
        }
        Ok(tellers)
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

    /// Whether a version of a table holds rows that a statement over it leaves out. True where that cannot be told any more.
    async fn may_hold_others(&self, kind: Kind, pinned: &PinnedTable, harmless: &str) -> Result<bool> {
        match self.check_same_table(kind, pinned).await {
            Err(QueryError::NotFound(_)) => return Ok(true),
            checked => checked?,
        }
        // Rows are only ever added: what the newest version does not hold, no version before it did.
        if !self.holds_others(kind, At::Latest, harmless).await? {
            return Ok(false);
        }
        match self.holds_others(kind, At::Version(pinned.version), harmless).await {
            Ok(holds) => Ok(holds),
            Err(error) => {
                tracing::debug!(%error, table = kind.table(), version = pinned.version, "a version cannot be read any more");
                Ok(true)
            }
        }
    }

    async fn holds_others(&self, kind: Kind, at: At, harmless: &str) -> Result<bool> {
        let all = self.declared(kind, at).await?;
        let left = self.narrowed(harmless, self.with_tellers(kind, all.clone()).await?).await?;
        Ok(self.rows_of(left).await? < self.rows_of(all).await?)
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
    let remedy = match kind {
        Kind::Qa => "pin them again with the columns `qa_id` and `attributes`",
        Kind::Judgment => "pin them again with the columns `trajectory_id` and `criteria`",
        Kind::DeadLetter => "pin it again without that table",
        _ => "pin them again with the columns `restricted` and `qa_id`",
    };
    QueryError::Refused(format!(
        "pin {name} was made of {table} with rows of gated benchmarks, and its rows do not say which these are: {remedy}, \
         or read it where gated rows are shown"
    ))
}
