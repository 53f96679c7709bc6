//! Aggregates are written once, for many groups at a time; without GROUP BY, and over windows, all rows are one group.

use std::fmt;

use datafusion::arrow::array::{Array as _, ArrayRef, new_empty_array};
use datafusion::error::Result;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};
use datafusion::scalar::ScalarValue;

/// A [`GroupsAccumulator`] of a single group.
pub(crate) struct OneGroup<G>(G);

impl<G: GroupsAccumulator + Sync> OneGroup<G> {
    /// `groups`, which is new, with one group in it.
    ///
    /// # Errors
    /// When it does not take the arguments' types.
    pub(crate) fn boxed(mut groups: G, args: &AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>>
    where
        G: 'static,
    {
        let nothing: Vec<ArrayRef> = args.expr_fields.iter().map(|field| new_empty_array(field.data_type())).collect();
        groups.update_batch(&nothing, &[], None, 1)?;
        Ok(Box::new(OneGroup(groups)))
    }
}

impl<G> fmt::Debug for OneGroup<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OneGroup").finish_non_exhaustive()
    }
}

fn rows(columns: &[ArrayRef]) -> Vec<usize> {
    vec![0; columns.first().map_or(0, |column| column.len())]
}

impl<G: GroupsAccumulator + Sync> Accumulator for OneGroup<G> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.update_batch(values, &rows(values), None, 1)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.0.merge_batch(states, &rows(states), 1)
    }

    /// Over a window the value is asked for row after row: it must not use up what it is made from.
    fn evaluate(&mut self) -> Result<ScalarValue> {
        let state = self.0.state(EmitTo::All)?;
        self.0.merge_batch(&state, &[0], 1)?;
        let value = self.0.evaluate(EmitTo::All)?;
        self.0.merge_batch(&state, &[0], 1)?;
        ScalarValue::try_from_array(&value, 0)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let state = self.0.state(EmitTo::All)?;
        state.iter().map(|column| ScalarValue::try_from_array(column, 0)).collect()
    }

    fn size(&self) -> usize {
        self.0.size()
    }
}
