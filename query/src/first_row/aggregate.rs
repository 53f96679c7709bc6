//! `first_row(columns…, order…)`: of each group the row that comes first.

use std::cmp::Ordering;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray as _, BooleanArray, StructArray, new_empty_array};
use datafusion::arrow::compute::{SortOptions, interleave};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion::arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::{internal_datafusion_err, internal_err, not_impl_err};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility};

use crate::apart::apart;
use crate::functions::one_group::OneGroup;

/// Name of the aggregate.
pub(crate) const NAME: &str = "first_row";
/// Rows held beyond twice the number of groups before those that lost are thrown away.
const SLACK_ROWS: usize = 1 << 16;

/// The first `columns` arguments make the row, the others the order.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct FirstRow {
    columns: usize,
    /// Of each order argument: whether it descends, whether nulls come first.
    directions: Vec<(bool, bool)>,
    signature: Signature,
}

impl FirstRow {
    pub(super) fn new(columns: usize, directions: Vec<(bool, bool)>) -> FirstRow {
        FirstRow { columns, directions, signature: Signature::variadic_any(Volatility::Immutable) }
    }

    /// Name of a column in the row.
    pub(super) fn field_name(index: usize) -> String {
        format!("c{index}")
    }

    fn row(&self, arguments: &[FieldRef]) -> Fields {
        let rename = |(index, field): (usize, &FieldRef)| {
            Field::new(FirstRow::field_name(index), field.data_type().clone(), field.is_nullable())
        };
        arguments.iter().take(self.columns).enumerate().map(rename).collect()
    }

    fn rows(&self, args: &AccumulatorArgs<'_>) -> Result<FirstRows> {
        let orders = args.expr_fields.iter().skip(self.columns).zip(&self.directions);
        let sort_fields = orders.map(|(field, (descending, nulls_first))| {
            let options = SortOptions { descending: *descending, nulls_first: *nulls_first };
            SortField::new_with_options(field.data_type().clone(), options)
        });
        Ok(FirstRows {
            ties: Ties::new(args.expr_fields.get(..self.columns).unwrap_or_default())?,
            row: self.row(args.expr_fields),
            types: args.expr_fields.iter().map(|field| field.data_type().clone()).collect(),
            converter: RowConverter::new(sort_fields.collect())?,
            chunks: Vec::new(),
            best: Vec::new(),
            held_rows: 0,
            held_bytes: 0,
        })
    }
}

impl AggregateUDFImpl for FirstRow {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let fields: Vec<FieldRef> =
            arguments.iter().map(|data_type| Arc::new(Field::new("", data_type.clone(), true))).collect();
        Ok(DataType::Struct(self.row(&fields)))
    }

    fn return_field(&self, arguments: &[FieldRef]) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(self.name(), DataType::Struct(self.row(arguments)), false)))
    }

    fn is_nullable(&self) -> bool {
        false
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        OneGroup::boxed(self.rows(&args)?, &args)
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(self.rows(&args)?))
    }

    /// What is known of a group is a row of the input: its columns and its order.
    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let state = |(index, field): (usize, &FieldRef)| {
            let name = format_state_name(args.name, &index.to_string());
            Arc::new(Field::new(name, field.data_type().clone(), true))
        };
        Ok(args.input_fields.iter().enumerate().map(state).collect())
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// The first row of every group so far.
struct FirstRows {
    row: Fields,
    /// Of the row's columns, then of the order's.
    types: Vec<DataType>,
    converter: RowConverter,
    ties: Ties,
    chunks: Vec<Chunk>,
    /// Of each group: the chunk and the row in it.
    best: Vec<Option<(u32, u32)>>,
    held_rows: usize,
    held_bytes: usize,
}

/// Orders rows that the order given leaves open: by what is in them, so that it does not matter which comes first.
struct Ties(Option<RowConverter>, usize);

impl Ties {
    /// Columns of a type without an order leave it open.
    fn new(columns: &[FieldRef]) -> Result<Ties> {
        let fields: Vec<SortField> = columns.iter().map(|field| SortField::new(field.data_type().clone())).collect();
        let converter = RowConverter::supports_fields(&fields).then(|| RowConverter::new(fields)).transpose()?;
        Ok(Ties(converter, columns.len()))
    }

    fn compare(&self, a: &[ArrayRef], a_row: usize, b: &[ArrayRef], b_row: usize) -> Result<Ordering> {
        let Some(converter) = &self.0 else { return Ok(Ordering::Equal) };
        // The columns of the row come before those of the order; ties are too rare for this to cost.
        let row = |columns: &[ArrayRef], row: usize, count: usize| {
            let columns: Vec<ArrayRef> = columns.iter().take(count).map(|column| column.slice(row, 1)).collect();
            converter.convert_columns(&columns)
        };
        let (a, b) = (row(a, a_row, self.1)?, row(b, b_row, self.1)?);
        Ok(a.row(0).cmp(&b.row(0)))
    }
}

/// Rows of the input that hold the first row of some group.
struct Chunk {
    columns: Vec<ArrayRef>,
    orders: Rows,
}

impl FirstRows {
    fn update(&mut self, values: &[ArrayRef], rows: impl Iterator<Item = (usize, usize)>, groups: usize) -> Result<()> {
        self.best.resize(groups.max(self.best.len()), None);
        let chunk = Chunk { columns: values.to_vec(), orders: self.orders(values)? };
        let number = u32::try_from(self.chunks.len()).map_err(|_| internal_datafusion_err!("too many batches"))?;
        let mut holds = false;
        for (row, group) in rows {
            let Some(best) = self.best.get_mut(group) else {
                return internal_err!("a group beyond the number of groups");
            };
            let comes_first = match *best {
                None => true,
                Some((held, at)) => {
                    let held = self.chunks.get(held as usize).unwrap_or(&chunk);
                    let order = chunk.orders.row(row).cmp(&held.orders.row(at as usize));
                    match order {
                        Ordering::Equal => self.ties.compare(&chunk.columns, row, &held.columns, at as usize)?.is_lt(),
                        order => order.is_lt(),
                    }
                }
            };
            if comes_first {
                *best = Some((number, row as u32));
                holds = true;
            }
        }
        if holds {
            self.hold(chunk);
        }
        if self.held_rows > 2 * self.best.len() + SLACK_ROWS {
            self.compact()?;
        }
        Ok(())
    }

    fn orders(&self, values: &[ArrayRef]) -> Result<Rows> {
        let orders = values.get(self.row.len()..).unwrap_or_default();
        Ok(self.converter.convert_columns(orders)?)
    }

    fn hold(&mut self, chunk: Chunk) {
        self.held_rows += chunk.orders.num_rows();
        self.held_bytes += chunk.orders.size() + chunk.columns.iter().map(used_bytes).sum::<usize>();
        self.chunks.push(chunk);
    }

    /// Keeps the first rows and nothing else.
    fn compact(&mut self) -> Result<()> {
        let columns = self.gather(&self.best)?;
        let orders = self.orders(&columns)?;
        self.chunks.clear();
        (self.held_rows, self.held_bytes) = (0, 0);
        self.hold(Chunk { columns, orders });
        self.best = (0..self.best.len()).map(|row| Some((0, row as u32))).collect();
        Ok(())
    }

    /// Columns and orders of the rows, in the order of groups.
    fn gather(&self, groups: &[Option<(u32, u32)>]) -> Result<Vec<ArrayRef>> {
        let missing = || internal_datafusion_err!("a group without a row");
        let places: Vec<(usize, usize)> = groups
            .iter()
            .map(|place| place.map(|(chunk, row)| (chunk as usize, row as usize)).ok_or_else(missing))
            .collect::<Result<_>>()?;
        if places.is_empty() {
            return Ok(self.types.iter().map(new_empty_array).collect());
        }
        (0..self.types.len())
            .map(|index| {
                let arrays: Vec<&dyn Array> = self.chunks.iter().map(|chunk| chunk.columns[index].as_ref()).collect();
                Ok(apart(&interleave(&arrays, &places)?))
            })
            .collect()
    }

    fn take(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let emitted = match emit_to {
            EmitTo::All => std::mem::take(&mut self.best),
            EmitTo::First(groups) => {
                let rest = self.best.split_off(groups.min(self.best.len()));
                std::mem::replace(&mut self.best, rest)
            }
        };
        let columns = self.gather(&emitted)?;
        if self.best.is_empty() {
            self.chunks.clear();
            (self.held_rows, self.held_bytes) = (0, 0);
        }
        Ok(columns)
    }
}

/// Bytes that the values take: text that several batches share counts where it is used.
fn used_bytes(column: &ArrayRef) -> usize {
    match column.data_type() {
        DataType::Utf8View => column.len() * 16 + column.as_string_view().total_buffer_bytes_used(),
        _ => column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size()),
    }
}

impl GroupsAccumulator for FirstRows {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        if filter.is_some() {
            return not_impl_err!("first_row with a FILTER");
        }
        self.update(values, group_indices.iter().copied().enumerate(), total_num_groups)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.update(values, group_indices.iter().copied().enumerate(), total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let mut columns = self.take(emit_to)?;
        columns.truncate(self.row.len());
        Ok(Arc::new(StructArray::try_new(self.row.clone(), columns, None)?))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.take(emit_to)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        match filter {
            None => Ok(values.to_vec()),
            Some(_) => not_impl_err!("first_row with a FILTER"),
        }
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.held_bytes + self.best.capacity() * size_of::<Option<(u32, u32)>>()
    }
}
