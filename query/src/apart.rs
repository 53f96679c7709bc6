//! Text that is kept apart from the buffers that it was read into.
//!
//! A view of text refers to a buffer, often a page of a file, and a column lists all buffers that it may refer to. A join puts
//! the batches of one side together, and with them their lists: N batches of one page list it N times. Every batch that the
//! join gives has the whole list, so that behind a second join it has N² entries, behind a third N³. Text is therefore copied
//! behind a join where what it lists is much larger than what it says, also where rows share it. Text within lists is left
//! as it is. Why so: `docs/adr/022-text-behind-joins.md`.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray as _, RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::internal_datafusion_err;
use datafusion::common::tree_node::{Transformed, TransformedResult as _, TreeNode as _, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::TryStreamExt as _;

/// The same text in a buffer of its own, where the buffers that it may refer to are much larger.
pub(crate) fn apart(column: &ArrayRef) -> ArrayRef {
    let Some(views) = column.as_string_view_opt() else { return column.clone() };
    let held: usize = views.data_buffers().iter().map(|buffer| buffer.len()).sum();
    if held > 2 * views.total_buffer_bytes_used() { Arc::new(views.gc()) } else { column.clone() }
}

/// Puts [`ApartExec`] behind every join that gives text.
#[derive(Debug)]
pub(crate) struct TextApart;

impl PhysicalOptimizerRule for TextApart {
    fn name(&self) -> &str {
        "text_apart"
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            let has_text = || plan.schema().fields().iter().any(|field| *field.data_type() == DataType::Utf8View);
            if !is_join(plan.as_ref()) || !has_text() {
                return Ok(Transformed::no(plan));
            }
            Ok(Transformed::yes(Arc::new(ApartExec(plan)) as Arc<dyn ExecutionPlan>))
        })
        .data()
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn is_join(plan: &dyn ExecutionPlan) -> bool {
    plan.is::<HashJoinExec>()
        || plan.is::<NestedLoopJoinExec>()
        || plan.is::<CrossJoinExec>()
        || plan.is::<SortMergeJoinExec>()
}

/// The rows of its input, their text [`apart`].
#[derive(Debug)]
struct ApartExec(Arc<dyn ExecutionPlan>);

impl DisplayAs for ApartExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApartExec")
    }
}

impl ExecutionPlan for ApartExec {
    fn name(&self) -> &str {
        "ApartExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.0.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.0]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let [input] = <[_; 1]>::try_from(children).map_err(|_| internal_datafusion_err!("one input"))?;
        Ok(Arc::new(ApartExec(input)))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows = self.0.execute(partition, context)?.and_then(|batch| std::future::ready(batch_apart(&batch)));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}

fn batch_apart(batch: &RecordBatch) -> Result<RecordBatch> {
    let columns = batch.columns().iter().map(apart).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(batch.schema(), columns, &options)?)
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{Array, StringViewArray};
    use datafusion::arrow::compute::interleave;
    use datafusion::datasource::MemTable;
    use datafusion::execution::SessionStateBuilder;
    use datafusion::prelude::{SessionConfig, SessionContext};

    use super::*;

    fn page() -> StringViewArray {
        StringViewArray::from_iter_values((0..1_000).map(|row| format!("a text of twenty {row:03}")))
    }

    fn batches() -> Vec<ArrayRef> {
        let page = page();
        (0..20).map(|batch| Arc::new(page.slice(batch * 50, 50)) as ArrayRef).collect()
    }

    #[test]
    fn text_of_many_batches_of_one_page_takes_the_bytes_that_it_has() {
        let batches = batches();
        let batches: Vec<&dyn Array> = batches.iter().map(AsRef::as_ref).collect();
        let places: Vec<(usize, usize)> = (0..1_000).map(|row| (row / 50, row % 50)).collect();
        let shared = interleave(&batches, &places).unwrap();
        let bytes = |column: &ArrayRef| column.as_string_view().data_buffers().iter().map(|b| b.len()).sum::<usize>();
        assert!(bytes(&shared) > 10 * 20_000, "{}", bytes(&shared));
        let text = apart(&shared);
        assert_eq!(text.as_string_view(), &page());
        assert_eq!(bytes(&text), 20_000);
    }

    /// Rows behind three joins, and the most buffers that a column of theirs lists.
    async fn joined(state: SessionStateBuilder) -> (usize, usize) {
        let config = SessionConfig::new().with_target_partitions(1).with_batch_size(50);
        let context = SessionContext::new_with_state(state.with_config(config).build());
        let batches: Vec<RecordBatch> =
            batches().into_iter().map(|text| RecordBatch::try_from_iter([("text", text)]).unwrap()).collect();
        let table = MemTable::try_new(batches[0].schema(), vec![batches]).unwrap();
        context.register_table("t", Arc::new(table)).unwrap();
        let sql = "SELECT a.text FROM t a JOIN t b ON b.text = a.text JOIN t c ON c.text = b.text \
                   JOIN t d ON d.text = c.text";
        let joined = context.sql(sql).await.unwrap().collect().await.unwrap();
        let listed = joined.iter().map(|batch| batch.column(0).as_string_view().data_buffers().len());
        (joined.iter().map(RecordBatch::num_rows).sum(), listed.max().unwrap_or(0))
    }

    #[tokio::test]
    async fn behind_joins_of_joins_the_lists_of_buffers_do_not_grow() {
        let state = || SessionStateBuilder::new().with_default_features();
        let (rows, listed) = joined(state()).await;
        assert!(rows == 1_000 && listed > 20 * 20, "{listed}");
        let (rows, listed) = joined(state().with_physical_optimizer_rule(Arc::new(TextApart))).await;
        assert!(rows == 1_000 && listed <= 2, "{listed}");
    }
}
