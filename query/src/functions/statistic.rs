//! What aggregates have in common. A [`Statistic`] says what is held of one group of rows and what is computed of it;
//! from that follow the groups, their memory, their states in partial results, and DataFusion's traits.

use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{
    Array as _, ArrayBuilder, ArrayRef, AsArray as _, BooleanArray, Float64Array, ListArray, ListBuilder,
};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};

use super::one_group::OneGroup;
use super::{column, wrong_type};

/// A number computed of a group of rows.
pub(super) trait Statistic: Debug + Clone + Send + Sync + 'static {
    /// What is held of a group.
    type Group: Default + Send + Sync + 'static;

    /// Whether an ORDER BY within the call is kept to.
    const ORDER: AggregateOrderSensitivity = AggregateOrderSensitivity::Insensitive;

    /// The columns of a state, by name.
    fn state_columns() -> Vec<(&'static str, DataType)>;

    /// Adds a row of the arguments to a group, and returns the bytes that the group [holds](Statistic::held) more.
    fn rows(&self, arguments: &[ArrayRef]) -> Result<impl Fn(usize, &mut Self::Group) -> Result<usize>>;

    /// The same for a row of states.
    fn states(&self, states: &[ArrayRef]) -> Result<impl Fn(usize, &mut Self::Group) -> Result<usize>>;

    /// The states of groups: the columns of [`Statistic::state_columns`], a row of each group.
    fn state(groups: &[Self::Group]) -> Vec<ArrayRef>;

    /// What is computed; None, which is null, of too little.
    fn value(&self, group: Self::Group) -> Result<Option<f64>>;

    /// Bytes that a group takes beyond its own size.
    fn held(group: &Self::Group) -> usize;
}

/// An aggregate of DataFusion's that computes `statistic` of arguments of these types.
pub(super) fn aggregate(name: &'static str, arguments: Vec<DataType>, statistic: impl Statistic) -> AggregateUDF {
    let signature = Signature::exact(arguments, Volatility::Immutable);
    AggregateUDF::from(Aggregate { name, signature, statistic })
}

/// Equal names compute the same, so what is computed takes no part in comparisons.
#[derive(Debug)]
struct Aggregate<S> {
    name: &'static str,
    signature: Signature,
    statistic: S,
}

impl<S> PartialEq for Aggregate<S> {
    fn eq(&self, other: &Aggregate<S>) -> bool {
        self.name == other.name
    }
}

impl<S> Eq for Aggregate<S> {}

impl<S> Hash for Aggregate<S> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl<S: Statistic> AggregateUDFImpl for Aggregate<S> {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        OneGroup::boxed(Groups::of(self.statistic.clone()), &args)
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Groups::of(self.statistic.clone())))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(state_fields::<S>(&args))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        S::ORDER
    }
}

/// The fields of a statistic's state.
pub(super) fn state_fields<S: Statistic>(args: &StateFieldsArgs<'_>) -> Vec<FieldRef> {
    let field = |(name, data_type)| Field::new(format_state_name(args.name, name), data_type, true).into();
    S::state_columns().into_iter().map(field).collect()
}

/// What is held of all groups.
pub(super) struct Groups<S: Statistic> {
    statistic: S,
    groups: Vec<S::Group>,
    held: usize,
}

impl<S: Statistic> Groups<S> {
    /// No groups yet.
    pub(super) fn of(statistic: S) -> Groups<S> {
        Groups { statistic, groups: Vec::new(), held: 0 }
    }

    fn reserve(&mut self, groups: usize) {
        if groups > self.groups.len() {
            self.groups.resize_with(groups, S::Group::default);
        }
    }

    fn take(&mut self, emit_to: EmitTo) -> Vec<S::Group> {
        let taken = emit_to.take_needed(&mut self.groups);
        self.held = self.held.saturating_sub(taken.iter().map(S::held).sum());
        taken
    }
}

impl<S: Statistic> GroupsAccumulator for Groups<S> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.reserve(total_num_groups);
        let add = self.statistic.rows(values)?;
        let counts = |row| filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
        for (row, group) in group_indices.iter().enumerate().filter(|(row, _)| counts(*row)) {
            let Some(group) = self.groups.get_mut(*group) else { continue };
            self.held += add(row, group)?;
        }
        Ok(())
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.reserve(total_num_groups);
        let add = self.statistic.states(values)?;
        for (row, group) in group_indices.iter().enumerate() {
            let Some(group) = self.groups.get_mut(*group) else { continue };
            self.held += add(row, group)?;
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let groups = self.take(emit_to).into_iter();
        Ok(Arc::new(groups.map(|group| self.statistic.value(group)).collect::<Result<Float64Array>>()?))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(S::state(&self.take(emit_to)))
    }

    /// Every row is a group of its own.
    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = column(values, 0)?.len();
        let mut groups = Groups::of(self.statistic.clone());
        groups.update_batch(values, &(0..rows).collect::<Vec<_>>(), filter, rows)?;
        groups.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.held + self.groups.capacity() * size_of::<S::Group>()
    }
}

/// The type of a list of such values, or nulls.
pub(super) fn list_of(data_type: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(data_type, true)))
}

/// A column of lists, one of each group: `append` appends a group's values.
pub(super) fn lists<G, B: ArrayBuilder>(groups: &[G], values: B, append: impl Fn(&mut B, &G)) -> ArrayRef {
    let mut lists = ListBuilder::with_capacity(values, groups.len());
    for group in groups {
        append(lists.values(), group);
        lists.append(true);
    }
    Arc::new(lists.finish())
}

/// A column of lists.
///
/// # Errors
/// There is none of this index.
pub(super) fn list(values: &[ArrayRef], index: usize) -> Result<&ListArray> {
    let column = column(values, index)?;
    column.as_list_opt::<i32>().ok_or_else(|| wrong_type("List", column))
}

/// A count as a column has it.
pub(super) fn to_column(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A count out of a column.
pub(super) fn of_column(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}
