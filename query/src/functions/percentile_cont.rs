//! `percentile_cont(q) WITHIN GROUP (ORDER BY x)`: the percentile between values, in full precision.
//!
//! In place of DataFusion's, which knows the place between two values to six decimals only, so that its results differ
//! from other engines' in the eighth digit.

use datafusion::arrow::array::{Array as _, ArrayRef, Float64Builder};
use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{not_impl_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, GroupsAccumulator, Signature, Volatility};
use datafusion::physical_expr::expressions::Literal;
use datafusion::scalar::ScalarValue;

use super::one_group::OneGroup;
use super::statistic::{Groups, Statistic, list, list_of, lists, state_fields};
use super::{column, floats};

/// The value at `fraction` of the way through `values` in order, between two of them in proportion. None of no values.
///
/// Reorders `values`. Not-a-number counts as larger than all others.
pub fn percentile_cont(values: &mut [f64], fraction: f64) -> Option<f64> {
    let place = fraction * values.len().checked_sub(1)? as f64;
    let below = place.floor();
    let (_, low, above) = values.select_nth_unstable_by(below as usize, f64::total_cmp);
    let low = *low;
    let part = place - below;
    if part == 0.0 {
        return Some(low);
    }
    let high = above.iter().copied().min_by(f64::total_cmp)?;
    Some(low + (high - low) * part)
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct PercentileCont {
    signature: Signature,
    aliases: Vec<String>,
}

impl Default for PercentileCont {
    fn default() -> PercentileCont {
        let types = vec![DataType::Float64, DataType::Float64];
        PercentileCont {
            signature: Signature::exact(types, Volatility::Immutable),
            aliases: vec!["quantile_cont".to_string()],
        }
    }
}

impl PercentileCont {
    fn groups(args: &AccumulatorArgs<'_>) -> Result<Groups<Percentile>> {
        if args.is_distinct {
            return not_impl_err!("percentile_cont of distinct values");
        }
        let literal = args.exprs.get(1).and_then(|expr| expr.downcast_ref::<Literal>()).map(|literal| literal.value());
        let Some(ScalarValue::Float64(Some(fraction))) = literal else {
            return plan_err!("percentile_cont: the fraction is no constant; give one from 0 to 1");
        };
        if !(0.0..=1.0).contains(fraction) {
            return plan_err!("percentile_cont: the fraction is {fraction}; give one from 0 to 1");
        }
        let descending = args.order_bys.first().is_some_and(|sort| sort.options.descending);
        let fraction = if descending { 1.0 - fraction } else { *fraction };
        Ok(Groups::of(Percentile { fraction }))
    }
}

impl AggregateUDFImpl for PercentileCont {
    fn name(&self) -> &str {
        "percentile_cont"
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        OneGroup::boxed(Self::groups(&args)?, &args)
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Self::groups(&args)?))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(state_fields::<Percentile>(&args))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        Percentile::ORDER
    }

    fn supports_within_group_clause(&self) -> bool {
        true
    }
}

/// The value that lies so far through those of a group, in order.
#[derive(Debug, Clone, Copy)]
struct Percentile {
    fraction: f64,
}

/// Bytes of a value: a list that grows is up to twice as long as what is in it.
const VALUE_BYTES: usize = 2 * size_of::<f64>();

impl Statistic for Percentile {
    type Group = Vec<f64>;

    fn state_columns() -> Vec<(&'static str, DataType)> {
        vec![("values", list_of(DataType::Float64))]
    }

    fn rows(&self, arguments: &[ArrayRef]) -> Result<impl Fn(usize, &mut Vec<f64>) -> Result<usize>> {
        let values = floats(column(arguments, 0)?)?;
        Ok(move |row: usize, group: &mut Vec<f64>| {
            if values.is_null(row) {
                return Ok(0);
            }
            group.push(values.value(row));
            Ok(VALUE_BYTES)
        })
    }

    fn states(&self, states: &[ArrayRef]) -> Result<impl Fn(usize, &mut Vec<f64>) -> Result<usize>> {
        let states = list(states, 0)?;
        Ok(move |row: usize, group: &mut Vec<f64>| {
            let values = states.value(row);
            let values = floats(&values)?.values();
            group.extend_from_slice(values);
            Ok(values.len() * VALUE_BYTES)
        })
    }

    fn state(groups: &[Vec<f64>]) -> Vec<ArrayRef> {
        vec![lists(groups, Float64Builder::new(), |values, group| values.append_slice(group))]
    }

    fn value(&self, mut group: Vec<f64>) -> Result<Option<f64>> {
        Ok(percentile_cont(&mut group, self.fraction))
    }

    fn held(group: &Vec<f64>) -> usize {
        group.len() * VALUE_BYTES
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::Float64Array;
    use datafusion::logical_expr::EmitTo;

    use super::*;

    #[test]
    fn known_values() {
        assert_eq!(percentile_cont(&mut [3.0, 1.0, 2.0], 0.5), Some(2.0));
        assert_eq!(percentile_cont(&mut [4.0, 1.0], 0.25), Some(1.75));
        assert_eq!(percentile_cont(&mut [1.0, 2.0, 3.0, 4.0], 0.0), Some(1.0));
        assert_eq!(percentile_cont(&mut [4.0, 2.0, 3.0, 1.0], 1.0), Some(4.0));
        assert_eq!(percentile_cont(&mut [7.0], 0.3), Some(7.0));
        assert_eq!(percentile_cont(&mut [], 0.5), None);
        // Ten decimals, where fixed point of six would give 33.333300.
        let third = percentile_cont(&mut [0.0, 100.0], 1.0 / 3.0).unwrap_or_default();
        assert!((third - 100.0 / 3.0).abs() < 1e-12, "{third}");
    }

    #[test]
    fn memory_is_given_back_with_the_groups_that_are_emitted() {
        let values: ArrayRef = Arc::new(Float64Array::from_iter_values((0..1_000).map(f64::from)));
        let of_groups: Vec<usize> = (0..1_000).map(|row| usize::from(row >= 900)).collect();
        let mut groups = Groups::of(Percentile { fraction: 0.5 });
        groups.update_batch(&[values], &of_groups, None, 2).unwrap();
        let held = groups.size();
        groups.evaluate(EmitTo::First(1)).unwrap();
        assert!(held - groups.size() >= 900 * size_of::<f64>(), "{held} bytes, then {}", groups.size());
        let state = groups.state(EmitTo::All).unwrap();
        assert_eq!(list(&state, 0).unwrap().value(0).len(), 100);
    }
}
