//! Reading a table: when to filter while Parquet is decoded, and when after.
//!
//! A condition can be checked on its own columns first, so that the others are decoded for the rows that pass only. For
//! the long texts of pages and turns that saves most of the work. For narrow columns it costs more than it saves: the
//! rows that pass are scattered, and picking them out one by one is slower than decoding all. Row groups and pages that
//! statistics rule out are skipped either way.
//!
//! The same holds of what a join finds out while it runs: which keys there are on its other side.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, ident};
use datafusion::physical_plan::ExecutionPlan;
use deltalake_core::DeltaTable;
use deltalake_core::delta_datafusion::{DeltaScanConfig, DeltaScanNext};
use webdancer_schemas::table::EVENT_ID;

use crate::files::is_large_text;

/// A table at a version, as DataFusion reads it.
#[derive(Debug)]
pub(crate) struct TableScan {
    table: DeltaTable,
    /// Filters rows after they are decoded.
    decoding_all: DeltaScanNext,
    /// Filters rows before the other columns are decoded.
    filtering_first: DeltaScanNext,
}

impl TableScan {
    pub(crate) fn new(table: DeltaTable) -> Result<TableScan> {
        let snapshot = table.snapshot()?.snapshot().clone();
        let scan =
            |pushdown| DeltaScanNext::new(snapshot.clone(), DeltaScanConfig::new().with_parquet_pushdown(pushdown));
        Ok(TableScan { decoding_all: scan(false)?, filtering_first: scan(true)?, table })
    }

    /// Whether there are long texts to read beside the columns that the filters are on.
    fn is_wide(&self, projection: Option<&Vec<usize>>, filters: &[Expr]) -> bool {
        let schema = self.decoding_all.schema();
        let filtered = |name: &str| filters.iter().any(|filter| filter.column_refs().iter().any(|on| on.name == name));
        let read = |index: usize| projection.is_none_or(|projection| projection.contains(&index));
        schema.fields().iter().enumerate().any(|(index, field)| {
            let name = field.name();
            is_large_text(name) && read(index) && !filtered(name)
        })
    }
}

#[async_trait]
impl TableProvider for TableScan {
    fn schema(&self) -> SchemaRef {
        self.decoding_all.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        self.filtering_first.supports_filters_pushdown(filters)
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.table.update_datafusion_session(state)?;
        if !self.is_wide(projection, filters) {
            return self.decoding_all.scan(state, projection, filters, limit).await;
        }
        if filters.is_empty() && limit.is_none() {
            // Without any filter the reader is not told to filter first, and a join's keys would skip row groups and pages
            // alone. This one holds of every row.
            let every_row = [ident(EVENT_ID).is_not_null()];
            return self.filtering_first.scan(state, projection, &every_row, limit).await;
        }
        self.filtering_first.scan(state, projection, filters, limit).await
    }
}
