//! `row_number() OVER (PARTITION BY key ORDER BY …) = 1` as an aggregate.
//!
//! Most views ask for what was recorded last: of the rows with one key, the first in some order. As a window that sorts
//! all rows by key and order, to throw most of the work away. As an aggregate each key keeps the first row seen so far,
//! in a hash table, in two stages and spilling as every aggregate does. The rule applies to whatever SQL has the form,
//! views and queries alike; rows that the order leaves tied are told apart by what is in them.
//!
//! Where conditions on first rows say which keys are asked for, the rows of these are all that is gone through
//! ([`asked`] has when).

mod aggregate;
mod asked;

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::functions::core::expr_fn::get_field;
use datafusion::logical_expr::expr::WindowFunctionParams;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{
    AggregateUDF, BinaryExpr, Expr, Filter, LogicalPlan, LogicalPlanBuilder, Operator, Projection, Window,
    WindowFunctionDefinition, lit,
};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use aggregate::FirstRow;

pub(crate) use aggregate::NAME as FIRST_ROW;

/// Name of the row that the aggregate keeps.
const ROW: &str = "__first_row";

/// The rule. See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct FirstRowPerKey;

impl OptimizerRule for FirstRowPerKey {
    fn name(&self) -> &str {
        "first_row_per_key"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Filter(filter) = &plan else { return Ok(Transformed::no(plan)) };
        match first_rows(filter)? {
            Some(rewritten) => Ok(Transformed::yes(rewritten)),
            None => Ok(Transformed::no(plan)),
        }
    }
}

/// The filter's result by an aggregate, if it asks for first rows.
fn first_rows(filter: &Filter) -> Result<Option<LogicalPlan>> {
    let (window, projection) = match filter.input.as_ref() {
        LogicalPlan::Window(window) => (window, None),
        LogicalPlan::Projection(projection) => match projection.input.as_ref() {
            LogicalPlan::Window(window) => (window, Some(projection)),
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    let Some((number, params)) = row_number(window) else { return Ok(None) };
    let shown = projection.map_or_else(|| Some(number.clone()), |projection| shown_as(projection, &number));
    let Some(shown) = shown else { return Ok(None) };
    let (first, others): (Vec<&Expr>, Vec<&Expr>) =
        split_conjunction(&filter.predicate).into_iter().partition(|condition| is_first(condition, &shown));
    if first.is_empty() {
        return Ok(None);
    }
    let needed = needed(window.input.schema(), projection);
    let input = match asked::rows(window, params, projection, &others, &needed)? {
        Some(asked) => asked,
        None => window.input.as_ref().clone(),
    };
    let mut rewritten = aggregate(input, params, &number, &needed)?;
    if let Some(projection) = projection {
        rewritten = LogicalPlan::Projection(Projection::try_new_with_schema(
            projection.expr.clone(),
            Arc::new(rewritten),
            projection.schema.clone(),
        )?);
    }
    if let Some(others) = conjunction(others.into_iter().cloned()) {
        rewritten = LogicalPlan::Filter(Filter::try_new(others, Arc::new(rewritten))?);
    }
    Ok(Some(rewritten))
}

/// The window's column and its parameters, if all it computes is a row number by key and order.
fn row_number(window: &Window) -> Option<(Column, &WindowFunctionParams)> {
    let [expression] = window.window_expr.as_slice() else { return None };
    let inner = match expression {
        Expr::Alias(alias) => alias.expr.as_ref(),
        other => other,
    };
    let Expr::WindowFunction(function) = inner else { return None };
    let WindowFunctionDefinition::WindowUDF(udf) = &function.fun else { return None };
    let params = &function.params;
    let plain = udf.name() == "row_number" && params.args.is_empty() && params.filter.is_none();
    if !plain || params.partition_by.is_empty() || params.order_by.is_empty() {
        return None;
    }
    let (qualifier, field) = window.schema.iter().last()?;
    Some((Column::new(qualifier.cloned(), field.name()), params))
}

/// The column under which a projection shows `column`.
fn shown_as(projection: &Projection, column: &Column) -> Option<Column> {
    let position = projection.expr.iter().position(|expression| match expression {
        Expr::Alias(alias) => alias.expr.as_ref() == &Expr::Column(column.clone()),
        other => other == &Expr::Column(column.clone()),
    })?;
    let (qualifier, field) = projection.schema.qualified_field(position);
    Some(Column::new(qualifier.cloned(), field.name()))
}

/// Whether a condition says that the row number is 1.
fn is_first(condition: &Expr, number: &Column) -> bool {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition else { return false };
    let one = |side: &Expr| match side {
        Expr::Literal(value, _) => {
            matches!(value.cast_to(&datafusion::arrow::datatypes::DataType::Int64), Ok(ScalarValue::Int64(Some(1))))
        }
        _ => false,
    };
    let is_number = |side: &Expr| side == &Expr::Column(number.clone());
    (is_number(left) && one(right)) || (one(left) && is_number(right))
}

/// First rows with the window's columns: those above need, the row number being 1.
fn aggregate(
    input: LogicalPlan,
    params: &WindowFunctionParams,
    number: &Column,
    needed: &[Column],
) -> Result<LogicalPlan> {
    let keys: HashSet<&Expr> = params.partition_by.iter().collect();
    let payload: Vec<Expr> =
        needed.iter().map(|column| Expr::Column(column.clone())).filter(|column| !keys.contains(column)).collect();
    let orders: Vec<Expr> = params.order_by.iter().map(|sort| sort.expr.clone()).collect();
    let builder = LogicalPlanBuilder::from(input);
    let grouped = if payload.is_empty() {
        builder.aggregate(params.partition_by.clone(), Vec::<Expr>::new())?
    } else {
        let directions = params.order_by.iter().map(|sort| (!sort.asc, sort.nulls_first)).collect();
        let first = AggregateUDF::from(FirstRow::new(payload.len(), directions));
        let arguments = payload.iter().cloned().chain(orders).collect();
        builder.aggregate(params.partition_by.clone(), vec![first.call(arguments).alias(ROW)])?
    };
    let mut columns: Vec<Expr> = needed
        .iter()
        .map(|column| {
            let expression = Expr::Column(column.clone());
            match payload.iter().position(|other| *other == expression) {
                Some(index) => get_field(Expr::Column(Column::new_unqualified(ROW)), FirstRow::field_name(index))
                    .alias_qualified(column.relation.clone(), column.name.clone()),
                None => expression,
            }
        })
        .collect();
    columns.push(lit(1u64).alias_qualified(number.relation.clone(), number.name.clone()));
    grouped.project(columns)?.build()
}

/// Columns of the window's input that are used above it.
fn needed(input: &DFSchema, projection: Option<&Projection>) -> Vec<Column> {
    let used: Option<HashSet<&Column>> =
        projection.map(|projection| projection.expr.iter().flat_map(Expr::column_refs).collect());
    input.columns().into_iter().filter(|column| used.as_ref().is_none_or(|used| used.contains(column))).collect()
}
