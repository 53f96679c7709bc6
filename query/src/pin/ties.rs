//! The last part of a total order: rows with the same event id, by all their columns.
//!
//! To sort by event id and then by every other column compares the same, but has to lay out every column as a key, long
//! texts and all, for ties that hardly ever come. So rows arrive sorted by event id, and only those with the same one
//! are put in order here.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{concat_batches, take_record_batch};
use arrow::row::{RowConverter, SortField};

use crate::error::Result;

/// Puts rows in total order that come sorted by their column `key`.
#[derive(Debug)]
pub(super) struct Ties {
    key: usize,
    /// Rows with the last key so far.
    last: Vec<RecordBatch>,
}

impl Ties {
    pub(super) fn new(key: usize) -> Ties {
        Ties { key, last: Vec::new() }
    }

    /// Takes a batch; gives the rows that no later one can tie with, in order.
    pub(super) fn push(&mut self, batch: RecordBatch) -> Result<Vec<RecordBatch>> {
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(Vec::new());
        }
        let key = batch.column(self.key);
        let mut out = Vec::new();
        if let Some(last) = self.last.last()
            && !same(&last.column(self.key).slice(last.num_rows() - 1, 1), &key.slice(0, 1))?.value(0)
        {
            out.extend(self.finish()?);
        }
        let repeats = same(&key.slice(0, rows - 1), &key.slice(1, rows - 1))?;
        // Where a run of rows with one key begins, but for the first.
        let starts: Vec<usize> = (1..rows).filter(|row| !repeats.value(row - 1)).collect();
        let Some(last_start) = starts.last().copied() else {
            self.last.push(batch);
            return Ok(out);
        };
        let mut from = 0;
        if !self.last.is_empty() {
            from = starts.first().copied().unwrap_or(rows);
            self.last.push(batch.slice(0, from));
            out.extend(self.finish()?);
        }
        let settled = batch.slice(from, last_start - from);
        if settled.num_rows() > 0 {
            let tied = repeats.slice(from, last_start - from).true_count() > 0;
            out.push(if tied { self.ordered(&settled)? } else { settled });
        }
        self.last.push(batch.slice(last_start, rows - last_start));
        Ok(out)
    }

    /// The rows held back.
    pub(super) fn finish(&mut self) -> Result<Option<RecordBatch>> {
        let held = std::mem::take(&mut self.last);
        let Some(first) = held.first() else { return Ok(None) };
        if held.len() == 1 && first.num_rows() == 1 {
            return Ok(held.into_iter().next());
        }
        self.ordered(&concat_batches(&first.schema(), &held)?).map(Some)
    }

    /// The rows by key, then by every column: the order that ORDER BY gives, nulls last.
    fn ordered(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let key = std::iter::once(batch.column(self.key));
        let columns: Vec<ArrayRef> = key.chain(batch.columns()).cloned().collect();
        let nulls_last = arrow::compute::SortOptions { descending: false, nulls_first: false };
        let fields = columns.iter().map(|column| SortField::new_with_options(column.data_type().clone(), nulls_last));
        let rows = RowConverter::new(fields.collect())?.convert_columns(&columns)?;
        let mut order: Vec<u32> = (0..batch.num_rows() as u32).collect();
        order.sort_by(|a, b| rows.row(*a as usize).cmp(&rows.row(*b as usize)));
        Ok(take_record_batch(batch, &UInt32Array::from(order))?)
    }
}

fn same(a: &ArrayRef, b: &ArrayRef) -> Result<BooleanArray> {
    Ok(not_distinct(&Arc::clone(a), &Arc::clone(b))?)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, StringArray};

    use super::*;

    fn batch(rows: &[(&str, Option<i32>)]) -> RecordBatch {
        let keys: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0)));
        let values: ArrayRef = Arc::new(rows.iter().map(|row| row.1).collect::<Int32Array>());
        RecordBatch::try_from_iter_with_nullable([("value", values, true), ("key", keys, true)]).unwrap()
    }

    fn in_order(batches: &[&[(&str, Option<i32>)]]) -> String {
        let mut ties = Ties::new(1);
        let mut out = Vec::new();
        for rows in batches {
            out.extend(ties.push(batch(rows)).unwrap());
        }
        out.extend(ties.finish().unwrap());
        let text = |batch: &RecordBatch| {
            let csv = arrow::csv::WriterBuilder::new().with_header(false);
            let mut writer = csv.build(Vec::new());
            writer.write(batch).unwrap();
            String::from_utf8(writer.into_inner()).unwrap().replace('\n', " ")
        };
        out.iter().map(text).collect::<Vec<_>>().join("| ")
    }

    #[test]
    fn rows_with_the_same_key_are_ordered_by_the_rest() {
        assert_eq!(in_order(&[&[("a", Some(2)), ("b", Some(1)), ("c", Some(0))]]), "2,a 1,b | 0,c ");
        assert_eq!(in_order(&[&[("a", Some(2)), ("a", Some(1)), ("b", None)]]), "1,a 2,a | ,b ");
        assert_eq!(in_order(&[&[("a", None), ("a", Some(1))]]), "1,a ,a ");
    }

    #[test]
    fn a_run_may_span_batches() {
        assert_eq!(
            in_order(&[&[("a", Some(3))], &[("a", Some(2))], &[("a", Some(1)), ("b", None)]]),
            "1,a 2,a 3,a | ,b "
        );
        assert_eq!(
            in_order(&[&[("a", Some(1)), ("b", Some(9))], &[("b", Some(4)), ("c", Some(5))]]),
            "1,a | 4,b 9,b | 5,c "
        );
        assert_eq!(in_order(&[&[("a", Some(1))], &[("b", Some(2))], &[]]), "1,a | 2,b ");
        assert_eq!(in_order(&[]), "");
    }
}
