//! Time, handed in: waits, rates and budgets are tested without waiting.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;

/// Where the time is taken from, for waits, rates and budgets.
///
/// Time-outs of connections are not in it: they watch real sockets.
#[async_trait]
pub trait Clock: Send + Sync + fmt::Debug {
    /// A time that never goes back.
    fn now(&self) -> Instant;

    /// The time of day, for dates that servers send.
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

#[cfg(test)]
pub(crate) mod manual {
    use parking_lot::Mutex;

    use super::*;

    /// A clock that jumps over every wait and counts what it jumped over.
    #[derive(Debug)]
    pub(crate) struct ManualClock {
        start: Instant,
        passed: Mutex<Duration>,
    }

    impl ManualClock {
        pub(crate) fn new() -> ManualClock {
            ManualClock { start: Instant::now(), passed: Mutex::new(Duration::ZERO) }
        }

        pub(crate) fn passed(&self) -> Duration {
            *self.passed.lock()
        }

        pub(crate) fn pass(&self, duration: Duration) {
            *self.passed.lock() += duration;
        }
    }

    #[async_trait]
    impl Clock for ManualClock {
        fn now(&self) -> Instant {
            self.start + self.passed()
        }

        fn utc(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH + self.passed()
        }

        async fn sleep(&self, duration: Duration) {
            self.pass(duration);
        }
    }
}
