//! What is told of a round beside its groups: where its time went, and means over its updates.

use std::collections::HashMap;
use std::time::Duration;

use crate::dapo::statistics;
use crate::rollout::RolloutTime;

/// Where the time of a round went. Tools run beside the engine: their time is summed over calls.
pub(super) fn times(
    time: &RolloutTime,
    tools: Duration,
    updating: Duration,
    round: Duration,
) -> Vec<statistics::Named> {
    let seconds = |of: Duration| of.as_secs_f64();
    let whole = seconds(round).max(f64::MIN_POSITIVE);
    let outside = round.saturating_sub(time.model).saturating_sub(updating);
    let mut numbers = vec![
        ("time.round", seconds(round), "s"),
        ("time.update", seconds(updating), "s"),
        ("time.outside_model", seconds(outside) / whole, "1"),
    ];
    if time.tokens > 0 {
        numbers.extend([
            ("time.model", seconds(time.model), "s"),
            ("time.tools", seconds(tools), "s"),
            ("time.idle", seconds(time.idle), "s"),
            ("time.rollout", seconds(time.total), "s"),
            ("rollout_tokens", time.tokens as f64, "token"),
            ("rollout_tokens_per_second", time.tokens as f64 / seconds(time.total), "token/s"),
        ]);
    }
    numbers
}

/// Means of numbers by name. What is told of trainer and sampler is one of numbers, and not of weights, in the first
/// update alone: of that the first value is kept.
#[derive(Debug, Default)]
pub(super) struct Means {
    order: Vec<(&'static str, &'static str)>,
    sums: HashMap<&'static str, (f64, f64)>,
}

impl Means {
    pub(super) fn add(&mut self, name: &'static str, value: f64, unit: &'static str) {
        match self.sums.get_mut(name) {
            None => {
                self.order.push((name, unit));
                self.sums.insert(name, (value, 1.0));
            }
            Some(_) if name.starts_with("mismatch") => {}
            Some((sum, count)) => (*sum, *count) = (*sum + value, *count + 1.0),
        }
    }

    pub(super) fn named(&self) -> Vec<statistics::Named> {
        let mean = |(name, unit): &(&'static str, &'static str)| {
            let (sum, count) = self.sums.get(name).copied()?;
            Some((*name, sum / count, *unit))
        };
        self.order.iter().filter_map(mean).collect()
    }
}
