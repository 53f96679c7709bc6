//! Aggregates over values that come in clusters, such as scores of questions that share a source: the error of their mean,
//! its interval, the least difference that could be seen.
//!
//! A null value is left out; a null cluster is one of its own, so that of single values the error is the usual s/√n.

use std::collections::BTreeMap;

use datafusion::arrow::array::{Array as _, ArrayRef, Float64Builder, Int64Builder, StringBuilder};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::exec_datafusion_err;
use datafusion::error::Result;
use datafusion::logical_expr::AggregateUDF;
use datafusion::logical_expr::utils::AggregateOrderSensitivity;

use super::statistic::{Statistic, aggregate, list, list_of, lists, of_column, to_column};
use super::{column, floats, int64, strings};
use crate::stats::bootstrap::{self, Bootstrap, Drawn};
use crate::stats::power::{Power, minimum_detectable_effect};
use crate::stats::{ClusterSum, clustered_error};

/// What is computed of the clusters of a group.
type Value = fn(&[ClusterSum]) -> std::result::Result<Option<f64>, String>;

/// Name, whether the second argument is the cluster, and what is computed.
const FUNCTIONS: [(&str, bool, Value); 6] = [
    ("bootstrap_high", true, |clusters| Ok(drawn(clusters)?.map(|drawn| drawn.interval.high))),
    ("bootstrap_low", true, |clusters| Ok(drawn(clusters)?.map(|drawn| drawn.interval.low))),
    ("bootstrap_p", true, |clusters| Ok(drawn(clusters)?.map(|drawn| drawn.p_value))),
    ("clustered_error", true, |clusters| Ok(clustered_error(clusters))),
    ("minimum_detectable", true, |clusters| {
        Ok(clustered_error(clusters).map(|error| minimum_detectable_effect(error, &Power::default())))
    }),
    ("standard_error", false, |clusters| Ok(clustered_error(clusters))),
];

/// Clusters that are drawn from at most: a second or two.
const CLUSTERS_DRAWN_MAX: usize = 100_000;

/// 2,000 draws from seed 0, for intervals of 95 %.
fn drawn(clusters: &[ClusterSum]) -> std::result::Result<Option<Drawn>, String> {
    if clusters.len() > CLUSTERS_DRAWN_MAX {
        return Err(format!(
            "a bootstrap draws from {CLUSTERS_DRAWN_MAX} clusters at most, and these are {}; use clustered_error",
            clusters.len()
        ));
    }
    Ok(bootstrap::mean(clusters, &Bootstrap::default()))
}

/// All of them.
pub(super) fn functions() -> impl Iterator<Item = AggregateUDF> {
    FUNCTIONS.into_iter().map(|(name, has_cluster, value)| {
        let types = if has_cluster { vec![DataType::Float64, DataType::Utf8] } else { vec![DataType::Float64] };
        aggregate(name, types, OfClusters(value))
    })
}

/// The values of one group.
#[derive(Debug, Default)]
struct Mean {
    /// By name; sorted, so that they are added up in one order.
    named: BTreeMap<String, ClusterSum>,
    single: Vec<f64>,
}

impl Mean {
    /// Bytes taken for a value without company, or for a cluster that is new.
    fn add(&mut self, cluster: Option<&str>, values: ClusterSum) -> usize {
        let Some(cluster) = cluster else {
            self.single.push(values.sum);
            return size_of::<f64>();
        };
        if let Some(known) = self.named.get_mut(cluster) {
            known.count += values.count;
            known.sum += values.sum;
            return 0;
        }
        self.named.insert(cluster.to_string(), values);
        bytes_of(cluster)
    }
}

fn bytes_of(cluster: &str) -> usize {
    cluster.len() + size_of::<(String, ClusterSum)>() + 16
}

#[derive(Debug, Clone, Copy)]
struct OfClusters(Value);

impl Statistic for OfClusters {
    type Group = Mean;

    /// A cluster's values are floats, which are added up as they come in.
    const ORDER: AggregateOrderSensitivity = AggregateOrderSensitivity::HardRequirement;

    fn state_columns() -> Vec<(&'static str, DataType)> {
        vec![
            ("clusters", list_of(DataType::Utf8)),
            ("counts", list_of(DataType::Int64)),
            ("sums", list_of(DataType::Float64)),
        ]
    }

    fn rows(&self, arguments: &[ArrayRef]) -> Result<impl Fn(usize, &mut Mean) -> Result<usize>> {
        let numbers = floats(column(arguments, 0)?)?;
        let clusters = arguments.get(1).map(strings).transpose()?;
        Ok(move |row: usize, mean: &mut Mean| {
            if numbers.is_null(row) {
                return Ok(0);
            }
            let cluster = clusters.filter(|clusters| clusters.is_valid(row)).map(|clusters| clusters.value(row));
            Ok(mean.add(cluster, ClusterSum { count: 1, sum: numbers.value(row) }))
        })
    }

    fn states(&self, states: &[ArrayRef]) -> Result<impl Fn(usize, &mut Mean) -> Result<usize>> {
        let (clusters, counts, sums) = (list(states, 0)?, list(states, 1)?, list(states, 2)?);
        Ok(move |row: usize, mean: &mut Mean| {
            let (clusters, counts, sums) = (clusters.value(row), counts.value(row), sums.value(row));
            let values = int64(&counts)?.values().iter().zip(floats(&sums)?.values());
            let add = |(cluster, (count, sum)): (Option<&str>, (&i64, &f64))| {
                mean.add(cluster, ClusterSum { count: of_column(*count), sum: *sum })
            };
            Ok(strings(&clusters)?.iter().zip(values).map(add).sum())
        })
    }

    fn state(groups: &[Mean]) -> Vec<ArrayRef> {
        vec![
            lists(groups, StringBuilder::new(), |clusters, mean| {
                mean.named.keys().for_each(|cluster| clusters.append_value(cluster));
                clusters.append_nulls(mean.single.len());
            }),
            lists(groups, Int64Builder::new(), |counts, mean| {
                mean.named.values().for_each(|values| counts.append_value(to_column(values.count)));
                counts.append_value_n(1, mean.single.len());
            }),
            lists(groups, Float64Builder::new(), |sums, mean| {
                mean.named.values().for_each(|values| sums.append_value(values.sum));
                sums.append_slice(&mean.single);
            }),
        ]
    }

    /// In one order, whichever way the rows came in.
    fn value(&self, mut mean: Mean) -> Result<Option<f64>> {
        mean.single.sort_unstable_by(f64::total_cmp);
        let single = mean.single.iter().map(|sum| ClusterSum { count: 1, sum: *sum });
        let clusters: Vec<ClusterSum> = mean.named.values().copied().chain(single).collect();
        self.0(&clusters).map_err(|message| exec_datafusion_err!("{message}"))
    }

    fn held(mean: &Mean) -> usize {
        mean.named.keys().map(|cluster| bytes_of(cluster)).sum::<usize>() + size_of_val(mean.single.as_slice())
    }
}
