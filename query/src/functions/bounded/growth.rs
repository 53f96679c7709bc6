//! What a call would make, worked out from its arguments.
//!
//! Each rule is an upper bound, in bytes, over all rows of the call. A function without a rule of its own makes at most
//! [`FACTOR`] times its arguments: one that multiplies them needs one.

use std::sync::Arc;

use arrow::compute::kernels::length::length;
use arrow::datatypes::{IntervalMonthDayNanoType, TimeUnit};
use datafusion::arrow::array::{Array as _, ArrayRef, AsArray as _, Int64Array, OffsetSizeTrait};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type, IntervalUnit};
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};

/// `upper` makes up to three bytes of one, `translate` four; hexadecimal digits are two.
const FACTOR: u64 = 4;

/// How a result grows with the arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Growth {
    /// With their sum.
    Sum,
    /// (text, times)
    Repeat,
    /// (text, characters, fill)
    Pad,
    /// (text, from, to)
    Replace,
    /// (text, pattern, replacement, flags)
    RegexpReplace,
    /// (text, pattern, flags): a text for each pair of parentheses
    RegexpMatch,
    /// (separator, text, …)
    Join,
    /// (list, separator, null)
    JoinList,
    /// (list, from, to)
    ReplaceElements,
    /// (element, times)
    ArrayRepeat,
    /// (list, length, element)
    ArrayResize,
    /// (stop), (start, stop) or (start, stop, step)
    Range,
}

/// Whether values of a type may take any number of bytes.
pub(super) fn may_grow(data_type: &DataType) -> bool {
    !data_type.is_primitive() && !matches!(data_type, DataType::Null | DataType::Boolean | DataType::FixedSizeBinary(_))
}

/// Bytes of an array's values, those of its slice alone.
pub(super) fn bytes_of(array: &ArrayRef) -> u64 {
    match array.data_type() {
        // The length is in the lower half of a view.
        DataType::Utf8View => array.as_string_view().views().iter().map(|view| u64::from(*view as u32)).sum(),
        DataType::BinaryView => array.as_binary_view().views().iter().map(|view| u64::from(*view as u32)).sum(),
        DataType::List(_) => bytes_of_lists(array.as_list::<i32>().values(), array.as_list::<i32>().value_offsets()),
        DataType::LargeList(_) => {
            bytes_of_lists(array.as_list::<i64>().values(), array.as_list::<i64>().value_offsets())
        }
        DataType::Map(..) => {
            let entries: ArrayRef = Arc::new(array.as_map().entries().clone());
            bytes_of_lists(&entries, array.as_map().value_offsets())
        }
        DataType::Struct(_) => array.as_struct().columns().iter().map(bytes_of).sum(),
        _ => {
            let bytes = array.to_data().get_slice_memory_size();
            bytes.unwrap_or_else(|_| array.get_array_memory_size()) as u64
        }
    }
}

/// Bytes of lists: their offsets, and the elements that lie in them. What slices share is not counted with each.
fn bytes_of_lists<O: OffsetSizeTrait>(values: &ArrayRef, offsets: &[O]) -> u64 {
    let (first, last) = match offsets {
        [first, .., last] => (first.as_usize(), last.as_usize()),
        _ => (0, 0),
    };
    bytes_of(&values.slice(first, last - first)) + size_of_val(offsets) as u64
}

/// Bytes of the largest argument that is no constant.
pub(super) fn largest_array(args: &ScalarFunctionArgs) -> u64 {
    let arrays = args.args.iter().filter_map(|value| match value {
        ColumnarValue::Array(array) => Some(bytes_of(array)),
        ColumnarValue::Scalar(_) => None,
    });
    arrays.max().unwrap_or(0)
}

impl Growth {
    /// How the result of the function of this name grows.
    pub(super) fn of(name: &str) -> Growth {
        match name {
            "repeat" => Growth::Repeat,
            "lpad" | "rpad" => Growth::Pad,
            "replace" => Growth::Replace,
            "regexp_replace" => Growth::RegexpReplace,
            "regexp_match" => Growth::RegexpMatch,
            "concat_ws" => Growth::Join,
            "array_to_string" => Growth::JoinList,
            "array_replace" | "array_replace_n" | "array_replace_all" => Growth::ReplaceElements,
            "array_repeat" => Growth::ArrayRepeat,
            "array_resize" => Growth::ArrayResize,
            "range" | "generate_series" => Growth::Range,
            _ => Growth::Sum,
        }
    }

    /// What a call would make, at most.
    pub(super) fn bound(self, args: &ScalarFunctionArgs) -> Result<u64> {
        Arguments::of(args)?.result_bytes(self)
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
        Ok(Arguments { columns: args.args.iter().map(column).collect::<Result<_>>()?, rows: args.number_rows })
    }

    /// What the result's rows come to, at most.
    fn result_bytes(&self, growth: Growth) -> Result<u64> {
        let row_bytes: Box<dyn Fn(usize) -> u64> = match growth {
            Growth::Sum => return Ok(self.sum().saturating_mul(FACTOR)),
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
            Growth::RegexpReplace => {
                let (text, replacement) = (self.lengths(0)?, self.lengths(2)?);
                // Between any two characters the replacement, and in it, for each two of its own, what was matched.
                Box::new(move |row| {
                    let places = at(&text, row).saturating_add(1);
                    places.saturating_mul(at(&replacement, row).saturating_mul(2).saturating_add(1))
                })
            }
            Growth::RegexpMatch => {
                let (text, pattern) = (self.lengths(0)?, self.lengths(1)?);
                Box::new(move |row| at(&text, row).saturating_mul(at(&pattern, row) / 2 + 1))
            }
            Growth::Join => {
                let separator = self.lengths(0)?;
                let separators = (0..self.rows).map(|row| at(&separator, row)).sum::<u64>();
                return Ok(self.sum().saturating_add(separators.saturating_mul(self.columns.len() as u64)));
            }
            Growth::JoinList => {
                let (elements, separator, null) = (self.list_lengths(), self.lengths(1)?, self.lengths(2)?);
                let joined =
                    move |row| at(&elements, row).saturating_mul(at(&separator, row).saturating_add(at(&null, row)));
                // A number has up to FACTOR times as many digits as bytes.
                let rows = (0..self.rows).fold(0u64, |sum, row| sum.saturating_add(joined(row)));
                return Ok(rows.saturating_add(self.sum().saturating_mul(FACTOR)));
            }
            Growth::ReplaceElements => {
                let (elements, to) = (self.list_lengths(), self.columns.get(2).cloned());
                let replaced =
                    move |row| at(&elements, row).saturating_mul(to.as_ref().map_or(0, |to| element_bytes(to, row)));
                let rows = (0..self.rows).fold(0u64, |sum, row| sum.saturating_add(replaced(row)));
                return Ok(rows.saturating_add(self.sum()));
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

    /// Bytes of all arguments; a constant counts in every row.
    fn sum(&self) -> u64 {
        let bytes = |column: &ArrayRef| {
            let times = if column.len() == 1 { self.rows as u64 } else { 1 };
            bytes_of(column).saturating_mul(times)
        };
        self.columns.iter().map(bytes).fold(0, u64::saturating_add)
    }

    /// Elements of the lists in the first column.
    fn list_lengths(&self) -> Vec<u64> {
        let Some(lists) = self.columns.first() else { return Vec::new() };
        match lists.data_type() {
            DataType::List(_) => lists.as_list::<i32>().offsets().lengths().map(|length| length as u64).collect(),
            DataType::LargeList(_) => lists.as_list::<i64>().offsets().lengths().map(|length| length as u64).collect(),
            // An element has a bit at least.
            _ => vec![bytes_of(lists).saturating_mul(8)],
        }
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
    bytes_of(&column.slice(row, 1))
}

#[cfg(test)]
mod tests {
    use arrow::array::{ListBuilder, StringBuilder};

    use super::*;

    #[test]
    fn a_slice_of_lists_has_the_bytes_of_its_own_elements() {
        let mut lists = ListBuilder::new(StringBuilder::new());
        for number in 0..100 {
            lists.append_value((0..10).map(|_| Some("x".repeat(number))));
        }
        let all: ArrayRef = Arc::new(lists.finish());
        let one = bytes_of(&all.slice(99, 1));
        // Ten texts of 99 bytes, 11 offsets of theirs, two of the list, and validity.
        assert!((990..1_100).contains(&one), "{one}");
        let halves = bytes_of(&all.slice(0, 50)) + bytes_of(&all.slice(50, 50));
        assert!(halves.abs_diff(bytes_of(&all)) < 100, "{halves}");
    }
}
