//! What a run may spend: tokens, money and time, over all roles together.
//!
//! The limits are checked before each attempt, and what an attempt used is charged when it ends, however it ends: an
//! answer that broke off was written, and is paid for. So tokens and money overshoot by what is under way when the limit
//! is reached. Time is exact: calls under way are cut off.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::Usage;
use super::fault::{Fault, Kind};
use super::limit::Place;
use crate::clock::Clock;

/// `[budget]`: what a run may spend. What is absent is unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BudgetConfig {
    /// Tokens read and written.
    pub tokens: Option<u64>,
    /// Money, in the currency of the endpoints' prices.
    pub cost: Option<f64>,
    /// Seconds from the start of the run.
    pub time_s: Option<u64>,
}

/// What tokens cost: money per million, in one currency for all endpoints.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Prices {
    /// Tokens read.
    pub input: f64,
    /// Tokens read that the endpoint found in its cache.
    pub cached_input: f64,
    /// Tokens written.
    pub output: f64,
}

impl Prices {
    /// What `usage` costs.
    pub fn cost(&self, usage: &Usage) -> f64 {
        let cached = usage.cached_input_tokens.min(usage.input_tokens);
        let fresh = usage.input_tokens - cached;
        (fresh as f64 * self.input + cached as f64 * self.cached_input + usage.output_tokens as f64 * self.output) / 1e6
    }
}

/// What was spent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Spent {
    /// Attempts that were answered, in whole or in part.
    pub answers: u64,
    /// Tokens read.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// Tokens of these two that are estimated, since the endpoint did not count them.
    pub estimated_tokens: u64,
    /// Money.
    pub cost: f64,
}

impl fmt::Display for Spent {
    /// For people, in half a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answers, {} tokens read, {} written", self.answers, self.input_tokens, self.output_tokens)?;
        if self.estimated_tokens > 0 {
            write!(f, " ({} of them estimated)", self.estimated_tokens)?;
        }
        if self.cost > 0.0 { write!(f, ", cost {:.4}", self.cost) } else { Ok(()) }
    }
}

/// A budget that all roles of a run share.
#[derive(Debug)]
pub struct Budget {
    limits: BudgetConfig,
    clock: Arc<dyn Clock>,
    started: Instant,
    spent: Mutex<Spent>,
}

impl Budget {
    /// A budget from now on.
    pub fn new(limits: BudgetConfig, clock: Arc<dyn Clock>) -> Budget {
        Budget { limits, started: clock.now(), clock, spent: Mutex::default() }
    }

    /// What was spent so far.
    pub fn spent(&self) -> Spent {
        *self.spent.lock()
    }

    /// Counts what an answer cost.
    pub(super) fn charge(&self, usage: &Usage, prices: &Prices) {
        let tokens = usage.input_tokens + usage.output_tokens;
        let mut spent = self.spent.lock();
        spent.answers += 1;
        spent.input_tokens += usage.input_tokens;
        spent.output_tokens += usage.output_tokens;
        spent.estimated_tokens += if usage.estimated { tokens } else { 0 };
        spent.cost += prices.cost(usage);
    }

    /// Whether there is anything left.
    ///
    /// # Errors
    /// What is spent.
    pub(super) fn check(&self) -> Result<(), Fault> {
        let spent = self.spent();
        let tokens = spent.input_tokens + spent.output_tokens;
        match (self.limits.tokens, self.limits.cost) {
            (Some(limit), _) if tokens >= limit => {
                Err(spent_out(format!("{tokens} tokens of the {limit} that budget.tokens allows")))
            }
            (_, Some(limit)) if spent.cost >= limit => {
                Err(spent_out(format!("{:.4} of the {limit} that budget.cost allows", spent.cost)))
            }
            _ if self.time_left().is_some_and(|left| left.is_zero()) => Err(self.out_of_time()),
            _ => Ok(()),
        }
    }

    /// What `work` gives, unless time runs out first.
    ///
    /// # Errors
    /// What `work` fails with; or that the time is spent.
    pub(super) async fn within<T>(&self, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        let Some(left) = self.time_left() else { return work.await };
        tokio::time::timeout(left, work).await.unwrap_or_else(|_| Err(self.out_of_time()))
    }

    /// Time left; None without a limit.
    pub(super) fn time_left(&self) -> Option<Duration> {
        let limit = Duration::from_secs(self.limits.time_s?);
        Some(limit.saturating_sub(self.clock.now().saturating_duration_since(self.started)))
    }

    pub(super) fn out_of_time(&self) -> Fault {
        spent_out(format!("the {} s that budget.time_s allows are over", self.limits.time_s.unwrap_or_default()))
    }
}

fn spent_out(reason: String) -> Fault {
    Fault::new(Kind::BudgetSpent, reason)
}

/// What one attempt uses. It is charged when dropped, and its place at the gate settled by it, so that an answer that is
/// cut off or cancelled counts, too.
#[derive(Debug)]
pub(super) struct Bill<'a> {
    /// As far as it is known; None before anything was answered.
    pub(super) usage: Option<Usage>,
    budget: &'a Budget,
    prices: Prices,
    place: Place<'a>,
}

impl<'a> Bill<'a> {
    /// For an attempt that nothing was answered to yet.
    pub(super) fn open(budget: &'a Budget, prices: Prices, place: Place<'a>) -> Bill<'a> {
        Bill { usage: None, budget, prices, place }
    }
}

impl Drop for Bill<'_> {
    fn drop(&mut self) {
        if let Some(usage) = &self.usage {
            self.budget.charge(usage, &self.prices);
            self.place.used = usage.input_tokens + usage.output_tokens;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::limit::Gate;
    use crate::clock::manual::ManualClock;

    fn usage(input_tokens: u64, cached_input_tokens: u64, output_tokens: u64) -> Usage {
        Usage { input_tokens, output_tokens, cached_input_tokens, estimated: false }
    }

    #[test]
    fn cached_tokens_have_their_own_price() {
        let prices = Prices { input: 2.0, cached_input: 0.5, output: 8.0 };
        assert_eq!(prices.cost(&usage(1_000_000, 0, 0)), 2.0);
        assert_eq!(prices.cost(&usage(1_000_000, 1_000_000, 500_000)), 4.5);
        // More cached than read cannot be: it must not make a call cheaper than free.
        assert_eq!(prices.cost(&usage(0, 1_000_000, 0)), 0.0);
    }

    #[test]
    fn each_limit_ends_the_budget_and_says_which() {
        let clock = Arc::new(ManualClock::new());
        let prices = Prices { input: 1.0, cached_input: 1.0, output: 1.0 };
        let budget = |limits| Budget::new(limits, clock.clone() as Arc<dyn Clock>);
        let tokens = budget(BudgetConfig { tokens: Some(10), ..BudgetConfig::default() });
        tokens.charge(&usage(4, 0, 5), &prices);
        assert!(tokens.check().is_ok());
        tokens.charge(&usage(1, 0, 0), &prices);
        assert_eq!(tokens.check().unwrap_err().reason, "10 tokens of the 10 that budget.tokens allows");
        let cost = budget(BudgetConfig { cost: Some(0.5), ..BudgetConfig::default() });
        cost.charge(&usage(250_000, 0, 250_000), &prices);
        assert_eq!(cost.check().unwrap_err().reason, "0.5000 of the 0.5 that budget.cost allows");
        let time = budget(BudgetConfig { time_s: Some(60), ..BudgetConfig::default() });
        clock.pass(Duration::from_secs(59));
        assert!(time.check().is_ok());
        clock.pass(Duration::from_secs(1));
        assert_eq!(time.check().unwrap_err().reason, "the 60 s that budget.time_s allows are over");
    }

    #[tokio::test]
    async fn a_bill_is_charged_when_it_is_dropped() {
        let clock = Arc::new(ManualClock::new());
        let budget = Budget::new(BudgetConfig::default(), clock.clone());
        let gate = Gate::new(1, None, None, clock);
        drop(Bill::open(&budget, Prices::default(), gate.enter(9).await));
        assert_eq!(budget.spent(), Spent::default());
        let mut bill = Bill::open(&budget, Prices::default(), gate.enter(9).await);
        bill.usage = Some(usage(7, 0, 0));
        bill.usage = Some(Usage { estimated: true, ..usage(7, 0, 3) });
        drop(bill);
        let spent = Spent { answers: 1, input_tokens: 7, output_tokens: 3, estimated_tokens: 10, cost: 0.0 };
        assert_eq!(budget.spent(), spent);
        assert_eq!(spent.to_string(), "1 answers, 7 tokens read, 3 written (10 of them estimated)");
        let paid = Spent { estimated_tokens: 0, cost: 0.25, ..spent };
        assert_eq!(paid.to_string(), "1 answers, 7 tokens read, 3 written, cost 0.2500");
    }
}
