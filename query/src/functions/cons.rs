//! `cons(correct)`: the paper's Cons@3, which is the share of attempts that are correct, not a majority vote.

use datafusion::arrow::array::{Array as _, ArrayRef};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};
use datafusion::scalar::ScalarValue;

use super::{boolean, column, count, sum};

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Cons {
    signature: Signature,
}

impl Default for Cons {
    fn default() -> Cons {
        Cons { signature: Signature::exact(vec![DataType::Boolean], Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for Cons {
    fn name(&self) -> &str {
        "cons"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::<Share>::default())
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let field = |name| Field::new(format_state_name(args.name, name), DataType::Int64, true).into();
        Ok(vec![field("attempts"), field("correct")])
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

#[derive(Debug, Default)]
struct Share {
    n: u64,
    c: u64,
}

impl Accumulator for Share {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let correct = boolean(column(values, 0)?)?;
        self.n += (correct.len() - correct.null_count()) as u64;
        self.c += correct.true_count() as u64;
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64((self.n > 0).then(|| self.c as f64 / self.n as f64)))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![count(self.n), count(self.c)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.n += sum(column(states, 0)?)?;
        self.c += sum(column(states, 1)?)?;
        Ok(())
    }
}
