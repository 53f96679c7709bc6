//! Event tables in the order of their ids, whatever files they lie in.
//!
//! A pin must come out the same from other files of the same rows: after compaction, in a copy of the lake, on a
//! machine with other cores. What depends on the order of rows (sums of floats, `array_agg`, `row_number`, a LIMIT in
//! a subquery) does so on the order in which a table is read. So a pin reads every event table as one partition
//! sorted by event id and source, which together are unique. The sort spills as any other.
//!
//! Its plan is a leaf to the optimiser, which would otherwise drop a sort that nobody above asks for.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::TableType;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{EquivalenceProperties, LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, SendableRecordBatchStream,
};
use webdancer_schemas::table::{EVENT_ID, SOURCE};

/// A table whose rows come sorted.
#[derive(Debug)]
pub(crate) struct OrderedTable {
    inner: Arc<dyn TableProvider>,
    keys: Vec<usize>,
}

impl OrderedTable {
    /// `inner`, sorted by event id and source.
    pub(crate) fn over(inner: Arc<dyn TableProvider>) -> Arc<dyn TableProvider> {
        let schema = inner.schema();
        let keys = [EVENT_ID, SOURCE].iter().filter_map(|name| schema.index_of(name).ok()).collect();
        Arc::new(OrderedTable { inner, keys })
    }
}

#[async_trait]
impl TableProvider for OrderedTable {
    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }

    fn table_type(&self) -> TableType {
        self.inner.table_type()
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        self.inner.supports_filters_pushdown(filters)
    }

    /// A limit is not passed on: it would cut before the sort.
    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = self.schema();
        let wanted: Vec<usize> = projection.cloned().unwrap_or_else(|| (0..schema.fields().len()).collect());
        let mut read = wanted.clone();
        read.extend(self.keys.iter().filter(|key| !wanted.contains(key)));
        let scan = self.inner.scan(state, Some(&read), filters, None).await?;
        let read_schema = scan.schema();
        let keys = self.keys.iter().map(|key| {
            let name = schema.field(*key).name();
            Ok(PhysicalSortExpr::new(
                Arc::new(Column::new_with_schema(name, &read_schema)?) as Arc<dyn PhysicalExpr>,
                SortOptions::default(),
            ))
        });
        let single = Arc::new(CoalescePartitionsExec::new(scan));
        let sorted: Arc<dyn ExecutionPlan> = match LexOrdering::new(keys.collect::<Result<Vec<_>>>()?) {
            Some(ordering) => Arc::new(SortExec::new(ordering, single)),
            None => single,
        };
        let columns = wanted.iter().enumerate().map(|(position, index)| {
            let name = schema.field(*index).name().clone();
            (Arc::new(Column::new(&name, position)) as Arc<dyn PhysicalExpr>, name)
        });
        let projected: Arc<dyn ExecutionPlan> = Arc::new(ProjectionExec::try_new(columns.collect::<Vec<_>>(), sorted)?);
        Ok(Arc::new(OrderedScan::new(projected)))
    }
}

/// The sorted scan, closed to the optimiser.
#[derive(Debug)]
struct OrderedScan {
    inner: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl OrderedScan {
    fn new(inner: Arc<dyn ExecutionPlan>) -> OrderedScan {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(inner.schema()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        OrderedScan { inner, properties: Arc::new(properties) }
    }
}

impl DisplayAs for OrderedScan {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OrderedScan: by event_id, source")
    }
}

impl ExecutionPlan for OrderedScan {
    fn name(&self) -> &str {
        "OrderedScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.inner.execute(partition, context)
    }
}
