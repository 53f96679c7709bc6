//! The rows of the keys that conditions on first rows ask for.
//!
//! `run_id = 'x'` on first rows cannot be looked at before they are found: a row that it holds of may have been recorded
//! again, with another run. But where it holds of a key's first row, the key has a row that it holds of. So keys with such a
//! row are found first, in the columns of key and condition alone, and only their rows are gone through, every one of them:
//! the lists of one run's trajectories are read and kept, not those of all runs.
//!
//! The table is read twice for that. It is worth it where lists are read, the largest columns that there are, and where a
//! condition names the values that it asks for; elsewhere the second reading is most of the work.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode as _, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ExprSchema as _, JoinType, NullEquality};
use datafusion::error::Result;
use datafusion::logical_expr::expr::WindowFunctionParams;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    BinaryExpr, Expr, Filter, Join, JoinConstraint, LogicalPlan, LogicalPlanBuilder, Operator, Projection, Window,
};

/// Names of the keys that are asked for.
const KEY: &str = "__asked";
/// What a condition may be made of.
const COMPARISONS: &[Operator] = &[
    Operator::And,
    Operator::Or,
    Operator::Eq,
    Operator::NotEq,
    Operator::Lt,
    Operator::LtEq,
    Operator::Gt,
    Operator::GtEq,
    Operator::IsDistinctFrom,
    Operator::IsNotDistinctFrom,
];

/// The rows of the window's input whose keys `conditions` ask for; None where that cannot be told, or is not worth it.
/// `conditions` are over `projection`, or over the window where there is none; `needed` are the columns that are read.
pub(super) fn rows(
    window: &Window,
    params: &WindowFunctionParams,
    projection: Option<&Projection>,
    conditions: &[&Expr],
    needed: &[Column],
) -> Result<Option<LogicalPlan>> {
    let schema = window.input.schema();
    let Some(keys) = params.partition_by.iter().map(Expr::try_as_col).collect::<Option<Vec<_>>>() else {
        return Ok(None);
    };
    if !needed.iter().any(|column| is_list(schema, column)) {
        return Ok(None);
    }
    let mut asked = Vec::new();
    for condition in conditions {
        let condition = of_input(condition, projection)?;
        let is_narrow =
            condition.column_refs().iter().all(|column| schema.has_column(column) && !is_list(schema, column));
        if is_narrow && is_comparison(&condition)? {
            asked.push(condition);
        }
    }
    // Others may hold of nearly all keys, which are kept in memory, and the table would be read twice for nothing.
    if !asked.iter().any(names_few) {
        return Ok(None);
    }
    let Some(asked) = conjunction(asked) else { return Ok(None) };
    if !is_repeatable(&window.input)? {
        return Ok(None);
    }
    let rows = LogicalPlan::Filter(Filter::try_new(asked, Arc::clone(&window.input))?);
    let name = |index: usize| format!("{KEY}_{index}");
    let shown: Vec<Expr> =
        keys.iter().enumerate().map(|(index, key)| Expr::Column((*key).clone()).alias(name(index))).collect();
    let asked = LogicalPlanBuilder::from(rows).project(shown)?.build()?;
    let on = keys
        .iter()
        .enumerate()
        .map(|(index, key)| (Expr::Column(Column::new_unqualified(name(index))), Expr::Column((*key).clone())));
    // The keys come first: a join keeps its left side in memory, and lets the rows of the right one by.
    Ok(Some(LogicalPlan::Join(Join::try_new(
        Arc::new(asked),
        Arc::clone(&window.input),
        on.collect(),
        None,
        JoinType::RightSemi,
        JoinConstraint::On,
        // To a window null is a key as any other.
        NullEquality::NullEqualsNull,
        false,
    )?)))
}

fn is_list(schema: &DFSchema, column: &Column) -> bool {
    schema.data_type(column).is_ok_and(|data_type| data_type.is_nested())
}

/// Whether a condition names what it asks for: `run_id = 'x'`, `qa_id IN ('a', 'b')`.
fn names_few(condition: &Expr) -> bool {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
            Operator::Eq => [left, right].iter().any(|side| matches!(side.as_ref(), Expr::Literal(..))),
            Operator::And => names_few(left) || names_few(right),
            Operator::Or => names_few(left) && names_few(right),
            _ => false,
        },
        Expr::InList(list) => !list.negated,
        _ => false,
    }
}

/// A condition over the columns that the projection shows, over those that it reads.
fn of_input(condition: &Expr, projection: Option<&Projection>) -> Result<Expr> {
    let Some(projection) = projection else { return Ok(condition.clone()) };
    let read = condition.clone().transform_up(|part| {
        let shown = part.try_as_col().and_then(|column| projection.schema.maybe_index_of_column(column));
        Ok(match shown.and_then(|position| projection.expr.get(position)) {
            Some(expression) => Transformed::yes(expression.clone().unalias()),
            None => Transformed::no(part),
        })
    })?;
    Ok(read.data)
}

/// Whether a condition compares and does nothing else: what may fail, as a cast may, must not meet rows that were replaced.
fn is_comparison(condition: &Expr) -> Result<bool> {
    let is_more = condition.exists(|part| {
        Ok(match part {
            Expr::BinaryExpr(binary) => !COMPARISONS.contains(&binary.op),
            Expr::Column(_)
            | Expr::Literal(..)
            | Expr::Not(_)
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::InList(_)
            | Expr::Between(_) => false,
            _ => true,
        })
    })?;
    Ok(!is_more)
}

/// Whether a plan gives the same rows when it is run twice, without much work in it.
fn is_repeatable(plan: &LogicalPlan) -> Result<bool> {
    let mut repeatable = true;
    plan.apply(|node| {
        repeatable = match node {
            LogicalPlan::TableScan(scan) => scan.fetch.is_none(),
            // Distinct keys.
            LogicalPlan::Aggregate(aggregate) => aggregate.aggr_expr.is_empty(),
            LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Join(_)
            | LogicalPlan::Values(_)
            | LogicalPlan::EmptyRelation(_) => true,
            _ => false,
        };
        node.apply_expressions(|expression| {
            repeatable = repeatable && !expression.is_volatile() && !has_subquery(expression)?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(if repeatable { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(repeatable)
}

fn has_subquery(expression: &Expr) -> Result<bool> {
    expression.exists(|part| {
        Ok(matches!(part, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_)))
    })
}
