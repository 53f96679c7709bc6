//! Long constants, which a plan holds once and its rows hold as often as there are rows.
//!
//! A column that is a constant is written out for every row of a batch when it leaves a projection. So each long one in
//! an optimized plan is put into a function that lets it through where that is within a call's share.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::tree_node::{Transformed, TreeNode as _, TreeNodeRecursion};
use datafusion::common::{ScalarValue, internal_err, resources_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

use super::growth::bytes_of;
use super::{CALL_SHARE, SHORT_CONSTANT_BYTES};

/// An optimized plan in which long constants are held to the share of a call.
///
/// # Errors
/// When an argument of an aggregate, which must stay a constant, is too long for a batch of `batch_rows`.
pub(crate) fn guard(plan: LogicalPlan, memory_bytes: usize, batch_rows: usize) -> Result<LogicalPlan> {
    let function = Arc::new(ScalarUDF::from(Guarded::new((memory_bytes / CALL_SHARE) as u64)));
    let guarded = plan.transform_up_with_subqueries(|node| {
        if let LogicalPlan::TableScan(_) = node {
            return Ok(Transformed::no(node));
        }
        let names = NamePreserver::new(&node);
        node.map_expressions(|expression| {
            let name = names.save(&expression);
            let guarded = expression.transform_down(|part| guard_part(part, &function, batch_rows))?;
            Ok(if guarded.transformed { guarded.update_data(|expression| name.restore(expression)) } else { guarded })
        })
    })?;
    Ok(guarded.data)
}

fn guard_part(part: Expr, function: &Arc<ScalarUDF>, batch_rows: usize) -> Result<Transformed<Expr>> {
    match part {
        Expr::Literal(ref value, _) if literal_bytes(value)? >= SHORT_CONSTANT_BYTES => {
            let call = ScalarFunction { func: function.clone(), args: vec![part] };
            Ok(Transformed::new(Expr::ScalarFunction(call), true, TreeNodeRecursion::Jump))
        }
        // Their constants are read when they are planned.
        Expr::AggregateFunction(_) | Expr::WindowFunction(_) => {
            part.apply(|part| {
                if let Expr::Literal(value, _) = part {
                    check(function, literal_bytes(value)?, batch_rows)?;
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
            Ok(Transformed::new(part, false, TreeNodeRecursion::Jump))
        }
        part => Ok(Transformed::no(part)),
    }
}

/// Bytes of a constant that may be long; 0 for any other.
fn literal_bytes(value: &ScalarValue) -> Result<u64> {
    if !super::growth::may_grow(&value.data_type()) || value.is_null() {
        return Ok(0);
    }
    Ok(bytes_of(&value.to_array()?))
}

fn check(function: &ScalarUDF, bytes: u64, rows: usize) -> Result<()> {
    match function.inner().downcast_ref::<Guarded>() {
        Some(guarded) if bytes >= SHORT_CONSTANT_BYTES => guarded.check(bytes, rows),
        _ => Ok(()),
    }
}

/// Gives its argument, a constant, unless it is too long for as many rows.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Guarded {
    signature: Signature,
    max_bytes: u64,
}

impl Guarded {
    fn new(max_bytes: u64) -> Guarded {
        // Volatile, so that nothing puts the constant back in its place.
        Guarded { signature: Signature::any(1, Volatility::Volatile), max_bytes }
    }

    fn check(&self, bytes: u64, rows: usize) -> Result<()> {
        let all = bytes.saturating_mul(rows as u64);
        if all > self.max_bytes {
            return resources_err!(
                "a constant of {bytes} bytes in {rows} rows would make {all} bytes at once, more than the {} that one \
                 call may",
                self.max_bytes
            );
        }
        Ok(())
    }
}

impl ScalarUDFImpl for Guarded {
    fn name(&self) -> &str {
        "constant"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types {
            [constant] => Ok(constant.clone()),
            _ => internal_err!("one constant is to be let through, not {}", arg_types.len()),
        }
    }
    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        match args.arg_fields {
            [constant] => Ok(constant.clone()),
            other => internal_err!("one constant is to be let through, not {}", other.len()),
        }
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.as_slice() {
            [constant] => {
                self.check(bytes_of(&constant.to_array(1)?), args.number_rows)?;
                Ok(constant.clone())
            }
            other => internal_err!("one constant is to be let through, not {}", other.len()),
        }
    }
}
