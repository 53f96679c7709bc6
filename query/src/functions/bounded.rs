//! DataFusion's functions whose result may be far larger than their arguments, held to a share of the memory of queries.
//!
//! `repeat('x', 2000000000)` allocates before the memory pool hears of it. So what a call would make is worked out from
//! its arguments first, over all rows of the batch.

use std::sync::Arc;

use arrow::compute::kernels::length::length;
use arrow::datatypes::{IntervalMonthDayNanoType, TimeUnit};
use datafusion::arrow::array::{Array as _, ArrayRef, AsArray as _, Int64Array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type, IntervalUnit};
use datafusion::common::resources_err;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

/// One call may make an eighth of the memory of queries.
const SHARE: usize = 8;

/// Functions that are bounded, and how their results grow.
pub(crate) const FUNCTIONS: &[(&str, Growth)] = &[
    ("repeat", Growth::Repeat),
    ("lpad", Growth::Pad),
    ("rpad", Growth::Pad),
    ("replace", Growth::Replace),
    ("array_repeat", Growth::ArrayRepeat),
    ("array_resize", Growth::ArrayResize),
    ("range", Growth::Range),
    ("generate_series", Growth::Range),
];

/// How a result grows with the arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Growth {
    /// (text, times)
    Repeat,
    /// (text, characters, fill)
    Pad,
    /// (text, from, to)
    Replace,
    /// (element, times)
    ArrayRepeat,
    /// (list, length, element)
    ArrayResize,
    /// (stop), (start, stop) or (start, stop, step)
    Range,
}

/// A function that refuses to make more than its share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Bounded {
    inner: Arc<ScalarUDF>,
    growth: Growth,
    max_bytes: u64,
}

impl Bounded {
    /// `inner`, for queries that have `memory_bytes`.
    pub(crate) fn new(inner: Arc<ScalarUDF>, growth: Growth, memory_bytes: usize) -> Bounded {
        Bounded { inner, growth, max_bytes: (memory_bytes / SHARE) as u64 }
    }
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }
    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }
    fn signature(&self) -> &Signature {
        self.inner.signature()
    }
    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arg_types)
    }
    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<Arc<arrow::datatypes::Field>> {
        self.inner.return_field_from_args(args)
    }
    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.inner().coerce_types(arg_types)
    }
    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let bytes = Arguments::of(&args)?.result_bytes(self.growth)?;
        if bytes > self.max_bytes {
            return resources_err!(
                "{} would make {bytes} bytes at once, more than the {} that one call may",
                self.name(),
                self.max_bytes
            );
        }
        self.inner.invoke_with_args(args)
    }
}

/// The arguments of a call; one that is the same in all rows has one row.
struct Arguments {
    columns: Vec<ArrayRef>,
    rows: usize,
}

impl Arguments {
    fn of(args: &ScalarFunctionArgs) -> Result<Arguments> {
        let column = |value: &ColumnarValue| match value {
            ColumnarValue::Array(array) => Ok(array.clone()),
            ColumnarValue::Scalar(scalar) => scalar.to_array_of_size(1),
        };
        let constant = args.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let columns = args.args.iter().map(column).collect::<Result<_>>()?;
        Ok(Arguments { columns, rows: if constant { 1 } else { args.number_rows } })
    }

    /// What the result's rows come to, about, and at least half of it.
    fn result_bytes(&self, growth: Growth) -> Result<u64> {
        let row_bytes: Box<dyn Fn(usize) -> u64> = match growth {
            Growth::Repeat => {
                let (text, times) = (self.lengths(0)?, self.numbers(1)?);
                Box::new(move |row| at(&text, row).saturating_mul(at(&times, row)))
            }
            Growth::Pad => {
                // A character has up to four bytes; those of a fill of ASCII have one.
                let fill = self.columns.get(2).filter(|fill| fill.data_type() == &DataType::Utf8);
                let ascii = fill.is_none_or(|fill| fill.as_string::<i32>().is_ascii());
                let (text, characters) = (self.lengths(0)?, self.numbers(1)?);
                let width = if ascii { 1 } else { 4 };
                Box::new(move |row| at(&text, row).max(at(&characters, row).saturating_mul(width)))
            }
            Growth::Replace => {
                let (text, from, to) = (self.lengths(0)?, self.lengths(1)?, self.lengths(2)?);
                Box::new(move |row| {
                    let text = at(&text, row);
                    let places = text / at(&from, row).max(1) + 1;
                    text.saturating_add(places.saturating_mul(at(&to, row).saturating_sub(at(&from, row))))
                })
            }
            Growth::ArrayRepeat | Growth::ArrayResize => {
                let element = self.columns.get(if growth == Growth::ArrayRepeat { 0 } else { 2 }).cloned();
                let times = self.numbers(1)?;
                Box::new(move |row| {
                    let bytes = element.as_ref().map_or(0, |element| element_bytes(element, row));
                    at(&times, row).saturating_mul(bytes.saturating_add(8))
                })
            }
            Growth::Range => {
                let steps = self.steps()?;
                Box::new(move |row| at(&steps, row).saturating_mul(8))
            }
        };
        // Constants stand in every row of what the function works on.
        let texts = self.columns.iter().filter(|column| self.rows > 1 && column.len() == 1);
        let constants =
            texts.map(|column| column.get_array_memory_size() as u64).filter(|bytes| *bytes > 4096).sum::<u64>();
        let rows = (0..self.rows).fold(0u64, |sum, row| sum.saturating_add(row_bytes(row)));
        Ok(rows.saturating_add(constants.saturating_mul(self.rows as u64)))
    }

    /// Bytes of a column's texts.
    fn lengths(&self, index: usize) -> Result<Vec<u64>> {
        let Some(column) = self.columns.get(index) else { return Ok(Vec::new()) };
        if column.data_type() == &DataType::Null {
            return Ok(Vec::new());
        }
        numbers(&(length(column.as_ref())? as ArrayRef))
    }

    /// Numbers of a column.
    fn numbers(&self, index: usize) -> Result<Vec<u64>> {
        self.columns.get(index).map_or(Ok(Vec::new()), numbers)
    }

    /// How many values each row's range has, at most.
    fn steps(&self) -> Result<Vec<u64>> {
        let zero: ArrayRef = Arc::new(Int64Array::from(vec![0]));
        let (start, stop) = match self.columns.as_slice() {
            [stop] => (&zero, stop),
            [start, stop, ..] => (start, stop),
            [] => return Ok(Vec::new()),
        };
        let (start, stop) = (ticks(start)?, ticks(stop)?);
        let step = self.columns.get(2).map(ticks).transpose()?.unwrap_or_else(|| vec![1]);
        let count = |row| {
            let value = |ticks: &[i64]| *ticks.get(if ticks.len() == 1 { 0 } else { row }).unwrap_or(&0);
            value(&stop).abs_diff(value(&start)) / value(&step).unsigned_abs().max(1)
        };
        Ok((0..self.rows).map(count).collect())
    }
}

/// The value of a row, or of all rows; 0 for none.
fn at(values: &[u64], row: usize) -> u64 {
    values.get(if values.len() == 1 { 0 } else { row }).copied().unwrap_or(0)
}

/// Whole numbers; what is negative or null is 0.
fn numbers(column: &ArrayRef) -> Result<Vec<u64>> {
    let column = cast(column, &DataType::Int64)?;
    let column = column.as_primitive::<Int64Type>();
    Ok(column.iter().map(|number| number.map_or(0, |number| u64::try_from(number).unwrap_or(0))).collect())
}

/// Numbers as they are; times and intervals in microseconds, intervals at the shortest that they may be.
fn ticks(column: &ArrayRef) -> Result<Vec<i64>> {
    const DAY: i64 = 86_400_000_000;
    match column.data_type() {
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let shortest = |interval| {
                let (months, days, nanos) = IntervalMonthDayNanoType::to_parts(interval);
                (i64::from(months) * 28 + i64::from(days)) * (DAY / 24 * 23) + nanos / 1000
            };
            let column = column.as_primitive::<IntervalMonthDayNanoType>();
            Ok(column.iter().map(|interval| interval.map_or(0, shortest)).collect())
        }
        other => {
            let times = DataType::Timestamp(TimeUnit::Microsecond, None);
            let column = if other.is_temporal() { cast(column, &times)? } else { column.clone() };
            let column = cast(&column, &DataType::Int64)?;
            Ok(column.as_primitive::<Int64Type>().iter().map(Option::unwrap_or_default).collect())
        }
    }
}

fn element_bytes(column: &ArrayRef, row: usize) -> u64 {
    let row = if column.len() == 1 { 0 } else { row };
    let bytes = column.slice(row, 1).to_data().get_slice_memory_size();
    bytes.unwrap_or_else(|_| column.get_array_memory_size()) as u64
}
