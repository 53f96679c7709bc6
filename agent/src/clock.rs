//! Time, handed in: budgets are tested without waiting.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;

/// Where the time is taken from.
#[async_trait]
pub trait Clock: Send + Sync + fmt::Debug {
    /// A time that never goes back.
    fn now(&self) -> Instant;

    /// The time of day.
    fn utc(&self) -> SystemTime;

    /// Lets `duration` pass.
    async fn sleep(&self, duration: Duration);
}

/// The machine's clock, by way of tokio.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn utc(&self) -> SystemTime {
        SystemTime::now()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}
