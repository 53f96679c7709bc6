//! A mean over questions, and how far it can be trusted.

use serde::Serialize;

use super::bootstrap::{self, Bootstrap};
use super::{Interval, Valued, by_cluster, clustered_error, wilson};

/// A mean over questions with its error and interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// The mean.
    pub value: f64,
    /// Its standard error: over questions, or over clusters of them where there are any. None from fewer than two.
    pub standard_error: Option<f64>,
    /// Its interval, at the confidence asked for.
    pub interval: Option<Interval>,
    /// How the interval was made.
    pub method: Method,
    /// Questions.
    pub questions: usize,
    /// Clusters that they are in; as many as questions where each stands alone.
    pub clusters: usize,
}

/// How an interval was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Wilson's, of a share: of questions that stand alone, or of clusters that are all right or all wrong.
    Wilson,
    /// Percentiles over draws of clusters.
    Bootstrap,
}

/// An interval that is none but for rounding.
pub(super) const POINT: f64 = 1e-12;

/// The mean of `values`. None of no values.
///
/// The interval is Wilson's where each value is 0 or 1 and stands alone, else a bootstrap's: a mean of unequal shares is
/// no share itself, and clusters are worth less than their questions. Where all values are 1, or all are 0, every draw is the
/// same and a bootstrap's interval would be a point, as if that were certain: it is Wilson's then, of whole clusters. Of
/// other values that do not differ there is none.
pub fn estimate(values: &[Valued], draws: &Bootstrap) -> Option<Estimate> {
    let clusters = by_cluster(values);
    let value = mean(values)?;
    let alone = clusters.len() == values.len();
    let whole = values.iter().all(|valued| valued.value == 0.0 || valued.value == 1.0);
    let right = values.iter().filter(|valued| valued.value == 1.0).count();
    let is_one = right == 0 || right == values.len();
    let (interval, method) = if whole && (alone || is_one) {
        // Of clusters that are all right there are no more than questions.
        let right = right.min(clusters.len());
        (wilson(clusters.len() as u64, right as u64, draws.confidence), Method::Wilson)
    } else {
        let drawn = bootstrap::mean(&clusters, draws).map(|drawn| drawn.interval);
        (drawn.filter(|ends| ends.high - ends.low > POINT), Method::Bootstrap)
    };
    Some(Estimate {
        value,
        standard_error: clustered_error(&clusters),
        interval,
        method,
        questions: values.len(),
        clusters: clusters.len(),
    })
}

/// The mean of `values`; None of none.
pub fn mean(values: &[Valued]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().map(|valued| valued.value).sum::<f64>() / values.len() as f64)
}

/// The standard error of the mean of `values` that stand alone: s/√n. None of fewer than two.
pub fn standard_error(values: &[f64]) -> Option<f64> {
    let alone: Vec<_> = values.iter().map(|value| super::ClusterSum { count: 1, sum: *value }).collect();
    clustered_error(&alone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(of: &[(f64, usize)]) -> Vec<Valued> {
        of.iter().map(|(value, cluster)| Valued { value: *value, cluster: *cluster }).collect()
    }

    #[test]
    fn single_attempts_that_stand_alone_get_wilsons_interval_and_all_else_a_bootstraps() {
        let draws = Bootstrap::default();
        let alone = estimate(&values(&[(1.0, 0), (0.0, 1), (1.0, 2), (1.0, 3)]), &draws).unwrap();
        assert_eq!((alone.value, alone.method, alone.interval), (0.75, Method::Wilson, wilson(4, 3, 0.95)));
        let clustered = estimate(&values(&[(1.0, 0), (0.0, 1), (1.0, 1), (1.0, 3)]), &draws).unwrap();
        assert_eq!((clustered.value, clustered.method, clustered.clusters), (0.75, Method::Bootstrap, 3));
        let shares = estimate(&values(&[(0.5, 0), (0.0, 1)]), &draws).unwrap();
        assert_eq!((shares.value, shares.method), (0.25, Method::Bootstrap));
        assert_eq!(estimate(&[], &draws), None);
        // Two sites of five questions, all wrong: as two questions that stand alone.
        let wrong = values(&[(0.0, 0), (0.0, 0), (0.0, 0), (0.0, 1), (0.0, 1)]);
        let wrong = estimate(&wrong, &draws).unwrap();
        assert_eq!((wrong.value, wrong.method, wrong.interval), (0.0, Method::Wilson, wilson(2, 0, 0.95)));
        let right = estimate(&values(&[(1.0, 0), (1.0, 0), (1.0, 1)]), &draws).unwrap();
        assert_eq!((right.value, right.interval), (1.0, wilson(2, 2, 0.95)));
        // Half right throughout: nothing tells how questions differ.
        let half = estimate(&values(&[(0.5, 0), (0.5, 1), (0.5, 2)]), &draws).unwrap();
        assert_eq!((half.value, half.method, half.interval), (0.5, Method::Bootstrap, None));
        assert_eq!(estimate(&values(&[(1.0, 0)]), &draws).unwrap().standard_error, None);
    }
}
