//! The view `turns`, computed by a plan of its own.
//!
//! `views/turns.sql` says what it holds. As SQL it would read every list for every question: `unnest` cannot leave one
//! out, because the longest decides how many rows there are. Here the number of turns comes from two small columns, so
//! that a query reads the lists that it names and no others, and conditions on the trajectory reach its files. Lists as
//! long as the turns, which is all that are well made, are flattened without copying a byte of their text.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{
    Array as _, ArrayRef, AsArray as _, Int64Array, ListArray, RecordBatch, RecordBatchOptions, StringViewArray,
    UInt32Array,
};
use datafusion::arrow::compute::take;
use datafusion::arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{internal_datafusion_err, internal_err};
use datafusion::datasource::TableType;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet, RecordOutput as _};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, SendableRecordBatchStream,
};
use futures::TryStreamExt as _;

/// Name of the view.
pub(crate) const NAME: &str = "turns";
/// Name of the table that it is over.
pub(crate) const OVER: &str = "trajectories";

/// Turns counted from `n_turns` alone, where no list has as many: a mistaken number fills no memory.
const MAX_EMPTY_TURNS: i32 = 1 << 16;
/// Columns that a turn has from its trajectory.
const OF_TRAJECTORY: &[&str] = &["trajectory_id", "qa_id", "run_id", "policy_model", "attempt", "event_time"];
/// The turn's number, from 0.
const NUMBER: &str = "turn";
/// Columns of a turn and the lists they are elements of.
const OF_LISTS: &[(&str, &str)] = &[
    ("thought", "turn_thought"),
    ("tool", "turn_tool"),
    ("arguments", "turn_arguments"),
    ("observation", "turn_observation"),
    ("observation_digest", "turn_observation_digest"),
    ("policy_version", "turn_policy_version"),
    ("ms", "turn_ms"),
    ("outcome", "turn_outcome"),
    ("input_tokens", "turn_input_tokens"),
    ("output_tokens", "turn_output_tokens"),
    ("tool_ms", "turn_tool_ms"),
    ("source_urls", "turn_source_urls"),
    ("source_digests", "turn_source_digests"),
];
/// How many turns there are: `n_turns`, or as many as this list has, whichever is more.
const COUNTED_BY: [&str; 2] = ["n_turns", "turn_tool"];

/// The turns of a table of trajectories.
#[derive(Debug)]
pub(crate) struct Turns {
    trajectories: Arc<dyn TableProvider>,
    schema: SchemaRef,
}

impl Turns {
    /// The turns of `trajectories`.
    ///
    /// # Errors
    /// When it lacks a column.
    pub(crate) fn of(trajectories: Arc<dyn TableProvider>) -> Result<Arc<dyn TableProvider>> {
        let from = trajectories.schema();
        let mut fields: Vec<Field> = Vec::new();
        for name in OF_TRAJECTORY {
            fields.push(from.field_with_name(name)?.clone());
        }
        fields.push(Field::new(NUMBER, DataType::Int64, true));
        for (name, list) in OF_LISTS {
            let DataType::List(element) = from.field_with_name(list)?.data_type() else {
                return internal_err!("column {list} is no list");
            };
            fields.push(Field::new(*name, flat_type(element.data_type()), true));
        }
        Ok(Arc::new(Turns { trajectories, schema: Arc::new(Schema::new(fields)) }))
    }
}

/// Text is flattened to views of it.
fn flat_type(element: &DataType) -> DataType {
    match element {
        DataType::Utf8 => DataType::Utf8View,
        other => other.clone(),
    }
}

#[async_trait]
impl TableProvider for Turns {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let on_trajectory = |filter: &&Expr| {
            !filter.is_volatile()
                && filter.column_refs().iter().all(|column| OF_TRAJECTORY.contains(&column.name.as_str()))
        };
        Ok(filters
            .iter()
            .map(|filter| match on_trajectory(filter) {
                true => TableProviderFilterPushDown::Inexact,
                false => TableProviderFilterPushDown::Unsupported,
            })
            .collect())
    }

    /// A limit is not passed on: how many turns a trajectory has is known when it is read.
    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wanted: Vec<usize> = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let schema = Arc::new(self.schema.project(&wanted)?);
        let mut read: Vec<&str> = COUNTED_BY.to_vec();
        let mut columns = Vec::with_capacity(wanted.len());
        for field in schema.fields() {
            let name = field.name().as_str();
            let list = OF_LISTS.iter().find(|(turn, _)| *turn == name).map(|(_, list)| *list);
            let source = list.unwrap_or(name);
            let position = read.iter().position(|known| *known == source).unwrap_or(read.len());
            if position == read.len() && name != NUMBER {
                read.push(source);
            }
            columns.push(match list {
                Some(_) => Column::Element(position),
                None if name == NUMBER => Column::Number,
                None => Column::Repeated(position),
            });
        }
        let from = self.trajectories.schema();
        let read = read.into_iter().map(|name| from.index_of(name)).collect::<Result<Vec<_>, _>>()?;
        let supported = self.trajectories.supports_filters_pushdown(&filters.iter().collect::<Vec<_>>())?;
        let passed_on: Vec<Expr> = filters
            .iter()
            .zip(supported)
            .filter(|(_, supported)| *supported != TableProviderFilterPushDown::Unsupported)
            .map(|(filter, _)| filter.clone())
            .collect();
        let input = self.trajectories.scan(state, Some(&read), &passed_on, None).await?;
        Ok(Arc::new(TurnsExec::new(input, columns, schema)))
    }
}

/// Where a column of a turn comes from; positions are those in what is read.
#[derive(Debug, Clone, Copy)]
enum Column {
    Repeated(usize),
    Number,
    Element(usize),
}

/// Trajectories in, with the columns of [`COUNTED_BY`] first; their turns out, in the same order.
#[derive(Debug)]
struct TurnsExec {
    input: Arc<dyn ExecutionPlan>,
    columns: Vec<Column>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl TurnsExec {
    fn new(input: Arc<dyn ExecutionPlan>, columns: Vec<Column>, schema: SchemaRef) -> TurnsExec {
        let from = input.properties();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            Partitioning::UnknownPartitioning(from.partitioning.partition_count()),
            from.emission_type,
            from.boundedness,
        );
        let metrics = ExecutionPlanMetricsSet::new();
        TurnsExec { input, columns, schema, properties: Arc::new(properties), metrics }
    }
}

impl DisplayAs for TurnsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
        write!(f, "TurnsExec: {}", names.join(", "))
    }
}

impl ExecutionPlan for TurnsExec {
    fn name(&self) -> &str {
        "TurnsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let [input] = <[_; 1]>::try_from(children).map_err(|_| internal_datafusion_err!("turns have one input"))?;
        Ok(Arc::new(TurnsExec::new(input, self.columns.clone(), self.schema.clone())))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let (columns, schema) = (self.columns.clone(), self.schema.clone());
        let turns = self.input.execute(partition, context)?.and_then(move |batch| {
            let timer = metrics.elapsed_compute().timer();
            let flat = turns_of(&batch, &columns, &schema).record_output(&metrics);
            timer.done();
            std::future::ready(flat)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), turns)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

fn turns_of(batch: &RecordBatch, columns: &[Column], schema: &SchemaRef) -> Result<RecordBatch> {
    let counts = counts(batch)?;
    let total = counts.iter().sum();
    let rows: UInt32Array =
        counts.iter().enumerate().flat_map(|(row, count)| std::iter::repeat_n(row as u32, *count)).collect();
    let columns = columns
        .iter()
        .map(|column| match column {
            Column::Repeated(position) => Ok(take(batch.column(*position), &rows, None)?),
            Column::Number => {
                let numbers: Int64Array = counts.iter().flat_map(|count| 0..*count as i64).collect();
                Ok(Arc::new(numbers) as ArrayRef)
            }
            Column::Element(position) => elements(list(batch, *position)?, &counts, total),
        })
        .collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(total));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

fn list(batch: &RecordBatch, position: usize) -> Result<&ListArray> {
    let column = batch.column(position);
    column.as_list_opt::<i32>().ok_or_else(|| internal_datafusion_err!("expected a list, got {}", column.data_type()))
}

/// Turns of each row.
fn counts(batch: &RecordBatch) -> Result<Vec<usize>> {
    let declared = batch
        .column(0)
        .as_primitive_opt::<Int32Type>()
        .ok_or_else(|| internal_datafusion_err!("n_turns is no whole number"))?;
    let tools = list(batch, 1)?;
    Ok((0..batch.num_rows())
        .map(|row| {
            let declared = if declared.is_null(row) { 0 } else { declared.value(row).clamp(0, MAX_EMPTY_TURNS) };
            let listed = if tools.is_null(row) { 0 } else { tools.value_length(row) };
            declared.max(listed) as usize
        })
        .collect())
}

/// The elements of `lists`, cut or filled up with nulls to `counts`, which sum up to `total`.
fn elements(lists: &ListArray, counts: &[usize], total: usize) -> Result<ArrayRef> {
    let offsets = lists.value_offsets();
    let fits = lists.null_count() == 0
        && offsets.windows(2).zip(counts).all(|(bounds, count)| (bounds[1] - bounds[0]) as usize == *count);
    let flat = if fits {
        lists.values().slice(offsets.first().map_or(0, |first| *first as usize), total)
    } else {
        let indices: UInt32Array = offsets
            .windows(2)
            .zip(counts)
            .enumerate()
            .flat_map(|(row, (bounds, count))| {
                let (from, to) = if lists.is_null(row) { (0, 0) } else { (bounds[0] as u32, bounds[1] as u32) };
                (from..from + *count as u32).map(move |index| (index < to).then_some(index))
            })
            .collect();
        take(lists.values(), &indices, None)?
    };
    Ok(match flat.as_string_opt::<i32>() {
        Some(text) => Arc::new(StringViewArray::from(text)),
        None => flat,
    })
}
