//! The majority vote of k attempts, averaged over all subsets of k of them.
//!
//! Attempts vote for their answer; answers that are the same by [`vote_key`](webdancer_schemas::answer::vote_key), or that a
//! judge holds for the same, are one cluster. A null or blank answer abstains: it is an attempt, but no vote. The largest cluster wins; tied ones give the share of them that is
//! correct; if all abstain the vote is wrong, 0. A cluster is correct as far as its members are: all of them agree when
//! equal answers are judged alike, otherwise it counts with the share of them that is correct. (Over all subsets, that
//! share among the voters drawn averages to the share among all members, so the result is the same either way.)
//!
//! The average is exact, without enumerating subsets: for each winning number of votes s, one pass over the clusters
//! counts the subsets in which no cluster has more than s, by (attempts drawn, clusters with exactly s).

/// Attempts with the same answer.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Cluster {
    /// How many.
    pub votes: u64,
    /// How many of them are correct.
    pub correct: u64,
}

impl Cluster {
    fn value(self) -> f64 {
        if self.votes == 0 { 0.0 } else { self.correct as f64 / self.votes as f64 }
    }
}

/// Attempts at one question beyond which the binomials leave the range of a double.
const MAX_ATTEMPTS: u64 = 1_000;
/// Multiplications for one question: about a second.
const MAX_WORK: u64 = 1_000_000_000;

/// The majority vote of k attempts, averaged over all subsets: see the [module](self). None if there are fewer than k
/// attempts or k is 0.
///
/// # Errors
/// What is too large to be counted exactly: more than 1,000 attempts, or 10⁹ steps, for 1 < k < n.
pub fn maj_at_k(clusters: &[Cluster], abstentions: u64, k: u64) -> Result<Option<f64>, String> {
    let clusters: Vec<Cluster> = clusters.iter().copied().filter(|cluster| cluster.votes > 0).collect();
    let n = abstentions + clusters.iter().map(|cluster| cluster.votes).sum::<u64>();
    if n < k || k == 0 {
        return Ok(None);
    }
    let most = clusters.iter().map(|cluster| cluster.votes).max().unwrap_or(0);
    if k == n {
        let winners = clusters.iter().filter(|cluster| cluster.votes == most).map(|cluster| cluster.value());
        return Ok(Some(mean(winners)));
    }
    if k == 1 {
        let correct: u64 = clusters.iter().map(|cluster| cluster.correct).sum();
        return Ok(Some(correct as f64 / n as f64));
    }
    let work: u64 = (1..=most.min(k)).map(|s| clusters.len() as u64 * k * (k / s + 1) * (s + 1)).sum();
    if n > MAX_ATTEMPTS || work > MAX_WORK {
        return Err(format!(
            "maj_at_k: {n} attempts at one question with k = {k} are too many to average over exactly; \
             use k = {n}, or fewer attempts"
        ));
    }
    let choose = Binomials::up_to(n);
    let favourable =
        (1..=most.min(k)).fold(0.0, |sum, s| sum + subsets_won_with(s, &clusters, abstentions, k, &choose));
    Ok(Some((favourable / choose.of(n, k)).clamp(0.0, 1.0)))
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0u64), |(sum, count), value| (sum + value, count + 1));
    if count == 0 { 0.0 } else { sum / count as f64 }
}

/// Over all subsets of k attempts in which the winners have s votes: the sum of the share of winners that is correct.
fn subsets_won_with(s: u64, clusters: &[Cluster], abstentions: u64, k: u64, choose: &Binomials) -> f64 {
    let (s, k) = (s as usize, k as usize);
    let ties = k / s;
    // [drawn][tied]: how many subsets, and the sum over them of the values of the tied clusters.
    let mut subsets = vec![vec![0.0; ties + 1]; k + 1];
    let mut values = vec![vec![0.0; ties + 1]; k + 1];
    for (drawn, row) in subsets.iter_mut().enumerate() {
        row[0] = choose.of(abstentions, drawn as u64);
    }
    for cluster in clusters {
        let mut next_subsets = vec![vec![0.0; ties + 1]; k + 1];
        let mut next_values = vec![vec![0.0; ties + 1]; k + 1];
        for votes in 0..=s.min(cluster.votes as usize) {
            let ways = choose.of(cluster.votes, votes as u64);
            let wins = usize::from(votes == s);
            for drawn in 0..=k - votes {
                for tied in 0..=ties - wins {
                    let (before, value) = (subsets[drawn][tied], values[drawn][tied]);
                    if before == 0.0 {
                        continue;
                    }
                    next_subsets[drawn + votes][tied + wins] += ways * before;
                    next_values[drawn + votes][tied + wins] += ways * (value + wins as f64 * cluster.value() * before);
                }
            }
        }
        (subsets, values) = (next_subsets, next_values);
    }
    (1..=ties).map(|tied| values[k][tied] / tied as f64).sum()
}

/// Binomial coefficients as doubles: all terms are positive, so nothing cancels.
struct Binomials {
    rows: Vec<Vec<f64>>,
}

impl Binomials {
    fn up_to(n: u64) -> Binomials {
        let mut rows: Vec<Vec<f64>> = vec![vec![1.0]];
        for i in 1..=n as usize {
            let last = &rows[i - 1];
            let inner = last.windows(2).map(|pair| pair[0] + pair[1]);
            rows.push(std::iter::once(1.0).chain(inner).chain(std::iter::once(1.0)).collect());
        }
        Binomials { rows }
    }

    fn of(&self, n: u64, k: u64) -> f64 {
        self.rows.get(n as usize).and_then(|row| row.get(k as usize)).copied().unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clusters(of: &[(u64, u64)]) -> Vec<Cluster> {
        of.iter().map(|(votes, correct)| Cluster { votes: *votes, correct: *correct }).collect()
    }

    #[test]
    fn known_values() {
        let vote = |of: &[(u64, u64)], abstentions, k| maj_at_k(&clusters(of), abstentions, k).unwrap();
        assert_eq!(vote(&[(2, 2), (1, 0)], 0, 3), Some(1.0));
        assert_eq!(vote(&[(1, 1), (2, 0)], 0, 3), Some(0.0));
        assert_eq!(vote(&[(1, 1), (1, 0)], 1, 3), Some(0.5));
        assert_eq!(vote(&[(1, 1), (1, 0), (1, 0)], 0, 3), Some(1.0 / 3.0));
        assert_eq!(vote(&[(1, 1)], 2, 3), Some(1.0));
        assert_eq!(vote(&[], 3, 3), Some(0.0));
        assert_eq!(vote(&[], 4, 3), Some(0.0));
        assert_eq!(vote(&[(2, 2)], 0, 3), None);
        assert_eq!(vote(&[(4, 2)], 0, 3), Some(0.5));
        // A, A, B, B with A correct, k = 3: always two against one, half of the times A.
        assert_eq!(vote(&[(2, 2), (2, 0)], 0, 3), Some(0.5));
    }

    #[test]
    fn large_groups_are_exact_or_refused() {
        // By symmetry one half.
        let half = maj_at_k(&clusters(&[(32, 32), (32, 0)]), 0, 31).unwrap().unwrap();
        assert!((half - 0.5).abs() < 1e-12, "{half}");
        let error = maj_at_k(&clusters(&[(600, 600), (600, 0)]), 0, 3).unwrap_err();
        assert!(error.contains("1200 attempts"), "{error}");
        assert_eq!(maj_at_k(&clusters(&[(601, 601), (600, 0)]), 0, 1_201), Ok(Some(1.0)));
        let third = maj_at_k(&clusters(&[(1, 0); 64]), 0, 64).unwrap();
        assert_eq!(third, Some(0.0));
    }
}
