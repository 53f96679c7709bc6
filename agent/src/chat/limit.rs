//! How fast an endpoint is asked: requests at once, requests and tokens per minute, and rests that it asks for.
//!
//! Each rate is a bucket that fills evenly and holds ten seconds' worth, so that a minute at the provider's counter never
//! sees much more than the rate. A request enters when the buckets have what it needs, or are full, and may leave a
//! bucket in debt: a prompt larger than the bucket is not kept out for ever. Tokens are reserved by an estimate and
//! corrected by what was used. Who waited longest goes first.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::clock::Clock;

/// Seconds of its rate that a bucket holds.
const BURST_S: f64 = 10.0;
/// Added to each wait, so that rounding never makes it end a moment too early.
const MARGIN: Duration = Duration::from_millis(1);

/// The way into an endpoint.
#[derive(Debug)]
pub(super) struct Gate {
    permits: Semaphore,
    queue: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug)]
struct State {
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    closed_until: Option<Instant>,
}

impl Gate {
    /// Lets `concurrency` requests in at once, and as many requests and tokens a minute as given.
    pub(super) fn new(
        concurrency: usize,
        requests_per_minute: Option<u32>,
        tokens_per_minute: Option<u64>,
        clock: Arc<dyn Clock>,
    ) -> Gate {
        let now = clock.now();
        let state = State {
            requests: requests_per_minute.map(|rate| Bucket::new(f64::from(rate), now)),
            tokens: tokens_per_minute.map(|rate| Bucket::new(rate as f64, now)),
            closed_until: None,
        };
        let permits = Semaphore::new(concurrency.clamp(1, Semaphore::MAX_PERMITS));
        Gate { permits, queue: tokio::sync::Mutex::new(()), state: Mutex::new(state), clock }
    }

    /// Waits for its turn, and reserves so many tokens; the request is in until its place is dropped.
    pub(super) async fn enter(&self, tokens: u64) -> Place<'_> {
        // It is never closed, so there always is a permit.
        let permit = self.permits.acquire().await.ok();
        let _first = self.queue.lock().await;
        loop {
            let wait = self.state.lock().enter_or_wait(self.clock.now(), tokens as f64);
            match wait {
                None => return Place { used: 0, reserved: tokens, gate: self, _permit: permit },
                Some(wait) => self.clock.sleep(wait.saturating_add(MARGIN)).await,
            }
        }
    }

    /// Corrects what was reserved by what was used.
    fn settle(&self, reserved: u64, used: u64) {
        if let Some(bucket) = &mut self.state.lock().tokens {
            bucket.level = (bucket.level + reserved as f64 - used as f64).min(bucket.capacity);
        }
    }

    /// Lets nobody in for so long: the endpoint asked for a rest.
    pub(super) fn close_for(&self, rest: Duration) {
        let until = self.clock.now() + rest;
        let mut state = self.state.lock();
        state.closed_until = Some(state.closed_until.map_or(until, |before| before.max(until)));
    }
}

impl State {
    /// Takes what a request needs, or says how long to wait.
    fn enter_or_wait(&mut self, now: Instant, tokens: f64) -> Option<Duration> {
        let mut needs = [(&mut self.requests, 1.0), (&mut self.tokens, tokens)];
        let rest = self.closed_until.map(|until| until.saturating_duration_since(now)).unwrap_or_default();
        let mut wait = rest;
        for (bucket, need) in &mut needs {
            if let Some(bucket) = bucket {
                bucket.fill(now);
                wait = wait.max(bucket.wait_for(*need));
            }
        }
        if !wait.is_zero() {
            return Some(wait);
        }
        for (bucket, need) in needs {
            if let Some(bucket) = bucket {
                bucket.level -= need;
            }
        }
        None
    }
}

/// A request's place behind the gate. Dropped, it makes room, and what was reserved is corrected by what was used, however
/// the request ended.
#[derive(Debug)]
pub(super) struct Place<'a> {
    /// Tokens, as far as they are known: 0 before anything was answered.
    pub(super) used: u64,
    reserved: u64,
    gate: &'a Gate,
    _permit: Option<SemaphorePermit<'a>>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.gate.settle(self.reserved, self.used);
    }
}

/// A rate.
#[derive(Debug)]
struct Bucket {
    per_second: f64,
    capacity: f64,
    level: f64,
    filled_at: Instant,
}

impl Bucket {
    fn new(per_minute: f64, now: Instant) -> Bucket {
        let per_second = per_minute / 60.0;
        let capacity = (per_second * BURST_S).max(1.0);
        Bucket { per_second, capacity, level: capacity, filled_at: now }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.level = (self.level + passed * self.per_second).min(self.capacity);
        self.filled_at = now;
    }

    fn wait_for(&self, need: f64) -> Duration {
        let missing = need.min(self.capacity) - self.level;
        if missing <= 1e-9 {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(missing / self.per_second).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::manual::ManualClock;

    async fn seconds_for(gate: &Gate, clock: &ManualClock, requests: u64, tokens: u64) -> u64 {
        let before = clock.passed();
        for _ in 0..requests {
            use_place(gate, tokens, tokens).await;
        }
        (clock.passed() - before).as_secs()
    }

    async fn use_place(gate: &Gate, reserved: u64, used: u64) {
        let mut place = gate.enter(reserved).await;
        place.used = used;
    }

    fn gate(requests: Option<u32>, tokens: Option<u64>) -> (Gate, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new());
        (Gate::new(1, requests, tokens, clock.clone()), clock)
    }

    #[tokio::test]
    async fn requests_keep_to_their_rate_after_a_short_burst() {
        let (gate, clock) = gate(Some(60), None);
        assert_eq!(seconds_for(&gate, &clock, 10, 0).await, 0);
        assert_eq!(seconds_for(&gate, &clock, 60, 0).await, 60);
    }

    #[tokio::test]
    async fn three_requests_a_minute_are_twenty_seconds_apart() {
        let (gate, clock) = gate(Some(3), None);
        assert_eq!(seconds_for(&gate, &clock, 4, 0).await, 60);
    }

    #[tokio::test]
    async fn tokens_keep_to_their_rate_and_a_large_prompt_gets_in() {
        let (gate, clock) = gate(None, Some(6_000));
        // The bucket holds 1,000; this one takes all of it and owes 2,000 more.
        assert_eq!(seconds_for(&gate, &clock, 1, 3_000).await, 0);
        // So 20 s to pay, and a second for what this one needs.
        assert_eq!(seconds_for(&gate, &clock, 1, 100).await, 21);
    }

    #[tokio::test]
    async fn tokens_that_were_not_used_are_given_back() {
        let (gate, clock) = gate(None, Some(6_000));
        use_place(&gate, 1_000, 100).await;
        assert_eq!(seconds_for(&gate, &clock, 1, 900).await, 0);
        use_place(&gate, 0, 1_000).await;
        assert_eq!(seconds_for(&gate, &clock, 1, 100).await, 11);
    }

    #[tokio::test]
    async fn a_request_that_nothing_was_answered_to_gives_back_all_that_it_reserved() {
        let (gate, clock) = gate(None, Some(6_000));
        drop(gate.enter(1_000).await);
        assert_eq!(seconds_for(&gate, &clock, 1, 1_000).await, 0);
    }

    #[tokio::test]
    async fn a_rest_holds_for_everybody_and_a_shorter_one_does_not_end_it() {
        let (gate, clock) = gate(None, None);
        gate.close_for(Duration::from_secs(30));
        gate.close_for(Duration::from_secs(5));
        assert_eq!(seconds_for(&gate, &clock, 3, 0).await, 30);
    }
}
