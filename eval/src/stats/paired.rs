//! Two runs over the same questions.
//!
//! Which questions are hard moves both runs alike, so the difference per question says more than the two means do
//! (Miller 2024, section 4).

use std::cmp::Ordering;

use serde::Serialize;
pub use webdancer_query::stats::mcnemar_exact;

use super::bootstrap::{self, Bootstrap};
use super::mean::POINT;
use super::{Interval, Valued, by_cluster, clustered_error, mean};

/// One question in both runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// Its mean in the first run, the baseline.
    pub before: f64,
    /// Its mean in the second.
    pub after: f64,
    /// Number of its cluster.
    pub cluster: usize,
}

/// The mean difference, second run less first.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Difference {
    /// The difference of the means.
    pub value: f64,
    /// Its standard error, over clusters.
    pub standard_error: Option<f64>,
    /// Its interval by bootstrap over clusters. None from fewer than two, and where all of them [differ alike](Self::is_alike).
    pub interval: Option<Interval>,
    /// The chance of a difference at least as large if there were none, two-sided: by the same draws, and where all clusters
    /// differ alike by the sign test over them, which McNemar's is when all pairs are on one side.
    pub p_value: Option<f64>,
    /// Questions.
    pub questions: usize,
    /// Clusters that they are in.
    pub clusters: usize,
}

impl Difference {
    /// Whether all clusters, of which there are two at least, differ by the same. Each draw is the same then: how clusters
    /// vary is not in the data, so that there is no interval, nor a least difference that would be seen.
    pub fn is_alike(&self) -> bool {
        self.standard_error.is_some_and(|error| error <= POINT)
    }

    /// On which side of zero the difference is beyond chance; equal where it is on neither. None where too few questions tell.
    pub fn side(&self, confidence: f64) -> Option<Ordering> {
        match self.interval {
            Some(ends) if ends.low > 0.0 => Some(Ordering::Greater),
            Some(ends) if ends.high < 0.0 => Some(Ordering::Less),
            Some(_) => Some(Ordering::Equal),
            None => {
                let is_shown = self.p_value? <= 1.0 - confidence;
                Some(if is_shown { self.value.total_cmp(&0.0) } else { Ordering::Equal })
            }
        }
    }
}

/// The paired difference. None of no questions.
pub fn difference(pairs: &[Pair], draws: &Bootstrap) -> Option<Difference> {
    let values: Vec<Valued> =
        pairs.iter().map(|pair| Valued { value: pair.after - pair.before, cluster: pair.cluster }).collect();
    let clusters = by_cluster(&values);
    let mut difference = Difference {
        value: mean::mean(&values)?,
        standard_error: clustered_error(&clusters),
        interval: None,
        p_value: None,
        questions: values.len(),
        clusters: clusters.len(),
    };
    if difference.is_alike() {
        // A bootstrap's interval would be a point, and its p-value the least that the draws allow, of two clusters as of a hundred.
        let on_one_side = if difference.value.abs() > POINT { clusters.len() as u64 } else { 0 };
        difference.p_value = Some(mcnemar_exact(on_one_side, 0));
    } else if let Some(drawn) = bootstrap::mean(&clusters, draws) {
        (difference.interval, difference.p_value) = (Some(drawn.interval), Some(drawn.p_value));
    }
    Some(difference)
}

/// Holm's adjusted p-values (Holm 1979), in the order of `p_values`: those of at most α are significant together, with a
/// chance of at most α that any is so by luck.
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    let p = |index: usize| p_values.get(index).copied().unwrap_or(1.0);
    order.sort_by(|a, b| p(*a).total_cmp(&p(*b)));
    let mut adjusted = vec![1.0; p_values.len()];
    let mut largest = 0.0f64;
    for (rank, index) in order.into_iter().enumerate() {
        largest = largest.max((p_values.len() - rank) as f64 * p(index)).min(1.0);
        if let Some(place) = adjusted.get_mut(index) {
            *place = largest;
        }
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_know_more_than_two_means() {
        // Questions from easy to hard, each a little better in the second run: the means' own errors are ten times as large.
        let pairs: Vec<Pair> = (0..20)
            .map(|i| {
                let before = f64::from(i) / 25.0;
                Pair { before, after: before + if i % 2 == 0 { 0.1 } else { 0.06 }, cluster: i as usize }
            })
            .collect();
        let difference = difference(&pairs, &Bootstrap::default()).unwrap();
        assert!((difference.value - 0.08).abs() < 1e-12);
        let before: Vec<f64> = pairs.iter().map(|pair| pair.before).collect();
        assert!(difference.standard_error.unwrap() * 10.0 < mean::standard_error(&before).unwrap());
        let interval = difference.interval.unwrap();
        assert!(interval.low > 0.06 && interval.high < 0.1, "{interval:?}");
        assert!(difference.p_value.unwrap() < 0.002);
    }

    #[test]
    fn a_difference_that_is_the_same_for_all_has_no_interval_and_is_tested_by_its_sign() {
        let of = |by: f64, count: usize| {
            let pairs: Vec<Pair> = (0..count).map(|cluster| Pair { before: 0.25, after: 0.25 + by, cluster }).collect();
            difference(&pairs, &Bootstrap::default()).unwrap()
        };
        let p = |of: Difference| of.p_value.map(|p| (p * 1e6).round() / 1e6);
        let told = |of: Difference| (of.is_alike(), of.interval, p(of), of.side(0.95));
        // Five throws of a coin alike: 2 · 0.5⁵; six: 2 · 0.5⁶.
        assert_eq!(told(of(0.5, 5)), (true, None, Some(0.0625), Some(Ordering::Equal)));
        assert_eq!(told(of(0.5, 6)), (true, None, Some(0.03125), Some(Ordering::Greater)));
        assert_eq!(told(of(-0.25, 6)), (true, None, Some(0.03125), Some(Ordering::Less)));
        assert_eq!(told(of(0.0, 60)), (true, None, Some(1.0), Some(Ordering::Equal)));
        assert_eq!(told(of(0.5, 1)), (false, None, None, None));
    }

    #[test]
    fn holm_multiplies_by_what_is_left_and_never_falls() {
        let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12) && a.len() == b.len();
        assert!(close(&holm(&[0.01, 0.04, 0.03, 0.005]), &[0.03, 0.06, 0.06, 0.02]));
        assert!(close(&holm(&[0.5, 0.9]), &[1.0, 1.0]));
        assert!(close(&holm(&[0.04]), &[0.04]));
        assert!(holm(&[]).is_empty());
    }
}
