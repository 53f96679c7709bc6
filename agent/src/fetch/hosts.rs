//! Manners towards one host: connections at once, and the time between requests.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// Hosts remembered before those are forgotten that nobody waits for and that may be asked again.
const HOSTS_MAX: usize = 4_096;

/// Every host that has been talked to.
#[derive(Debug)]
pub(super) struct Hosts {
    connections: usize,
    delay: Duration,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
}

impl Hosts {
    pub(super) fn new(connections: usize, delay: Duration) -> Hosts {
        Hosts { connections: connections.max(1), delay, hosts: Mutex::default() }
    }

    /// The host of a site, as [`site`](super::url::site) names it.
    pub(super) fn host(&self, site: &str) -> Arc<Host> {
        let mut hosts = self.hosts.lock();
        if let Some(host) = hosts.get(site) {
            return host.clone();
        }
        if hosts.len() >= HOSTS_MAX {
            let now = Instant::now();
            hosts.retain(|_, host| Arc::strong_count(host) > 1 || host.manners.lock().next > now);
        }
        let host = Arc::new(Host {
            connections: Semaphore::new(self.connections),
            manners: Mutex::new(Manners { delay: self.delay, next: Instant::now() }),
        });
        hosts.insert(site.to_string(), host.clone());
        host
    }
}

/// One host.
#[derive(Debug)]
pub(super) struct Host {
    connections: Semaphore,
    manners: Mutex<Manners>,
}

#[derive(Debug)]
struct Manners {
    delay: Duration,
    next: Instant,
}

impl Host {
    /// Waits for a connection and for the host's next turn. Dropping the turn ends the request.
    pub(super) async fn turn(&self) -> Turn<'_> {
        // The semaphore is never closed, so there is always a permit in the end.
        let permit = self.connections.acquire().await.ok();
        loop {
            let at = {
                let mut manners = self.manners.lock();
                let now = Instant::now();
                if manners.next <= now {
                    manners.next = now + manners.delay;
                    break;
                }
                manners.next
            };
            tokio::time::sleep_until(at).await;
        }
        Turn { host: self, _permit: permit }
    }

    /// Keeps at least `delay` between requests from now on.
    pub(super) fn slow_down(&self, delay: Duration) {
        let mut manners = self.manners.lock();
        if delay > manners.delay {
            manners.delay = delay;
            manners.next = manners.next.max(Instant::now() + delay);
        }
    }

    /// No request within `wait`: the host asked for it.
    pub(super) fn back_off(&self, wait: Duration) {
        let mut manners = self.manners.lock();
        manners.next = manners.next.max(Instant::now() + wait);
    }
}

/// The right to one request.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    host: &'a Host,
    _permit: Option<SemaphorePermit<'a>>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut manners = self.host.manners.lock();
        let next = Instant::now() + manners.delay;
        manners.next = manners.next.max(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hosts_are_forgotten_once_they_may_be_asked_again() {
        let hosts = Hosts::new(1, Duration::ZERO);
        let (held, asked_to_wait) = (hosts.host("held.example"), hosts.host("slow.example"));
        asked_to_wait.back_off(Duration::from_secs(3_600));
        drop(asked_to_wait);
        (0..HOSTS_MAX - 2).for_each(|number| drop(hosts.host(&format!("{number}.example"))));
        assert_eq!(hosts.hosts.lock().len(), HOSTS_MAX);
        drop(hosts.host("another.example"));
        let mut left: Vec<String> = hosts.hosts.lock().keys().cloned().collect();
        left.sort();
        assert_eq!(left, ["another.example", "held.example", "slow.example"]);
        assert!(Arc::ptr_eq(&held, &hosts.host("held.example")));
    }
}
