//! Who works on a run: its claim is a lease, as a slot's is, and is kept for as long as a process makes its attempts.
//!
//! | the claim of the run | whoever wants it |
//! |---|---|
//! | is not there, or was released | takes it at once |
//! | is renewed while it is watched | is told who has it, and leaves the run alone |
//! | is not renewed for as long as it holds | takes it over: its holder is gone |
//!
//! Machines need not agree on the time, so that a watcher has to wait for one or the other.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::SecondsFormat;
use tokio::sync::oneshot;
use webdancer_agent::clock::Clock;

use super::lease::{Claim, Claims, ClaimsError, Lease, utc};

/// The kind of claims on runs.
const RUNS: &str = "run";
/// Looks at another's claim in the time that it holds.
const LOOKS: u32 = 12;
/// Between the name of a process and the time from which it has held a run.
const SINCE: &str = " since ";

/// A process that works on a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its name, which no other process has.
    pub process: String,
    /// Since when, by its clock: RFC 3339, UTC.
    pub since: String,
    /// For how long its claim holds without being renewed.
    pub lease: Duration,
}

/// Why a run is not held, by what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HoldError {
    /// Leave the run to this process, or end that first.
    #[error("{} has worked on it since {}", .0.process, .0.since)]
    Held(Holder),
    /// See to the store of claims.
    #[error(transparent)]
    Claims(#[from] ClaimsError),
}

/// A run that this process may work on.
#[derive(Debug)]
pub struct Hold {
    lease: Lease,
}

impl Holder {
    fn of(claim: &Claim) -> Holder {
        let (process, since) = claim.holder.split_once(SINCE).unwrap_or((&claim.holder, ""));
        let lease = claim.length().unwrap_or_default();
        Holder { process: process.to_string(), since: since.to_string(), lease }
    }
}

impl Hold {
    /// Takes a run for a process of this name, which no other one has. Where another has it, `watching` is told so, and the
    /// answer takes as long as that one's claim holds, less if that is renewed.
    ///
    /// # Errors
    /// Another process works on the run, or the store of claims fails.
    pub async fn take(
        claims: Arc<dyn Claims>,
        clock: Arc<dyn Clock>,
        (run, process): (&str, &str),
        length: Duration,
        watching: impl Fn(&Holder) + Send,
    ) -> Result<Hold, HoldError> {
        // The generation that was seen first, and when.
        let mut watched: Option<(u64, Instant)> = None;
        loop {
            let generation = match claims.newest(RUNS, run).await? {
                None => 0,
                Some((newest, claim)) => {
                    let (holder, now) = (Holder::of(&claim), clock.now());
                    let is_held = !holder.lease.is_zero();
                    if is_held && watched.is_none() {
                        watching(&holder);
                    }
                    let (first, since) = *watched.get_or_insert((newest, now));
                    if is_held && newest != first {
                        return Err(HoldError::Held(holder));
                    }
                    let left = holder.lease.saturating_sub(now.saturating_duration_since(since));
                    if !left.is_zero() {
                        clock.sleep(left.min(holder.lease / LOOKS)).await;
                        continue;
                    }
                    newest + 1
                }
            };
            let (since, now) = (clock.now(), utc(clock.as_ref()));
            let holder = format!("{process}{SINCE}{}", now.to_rfc3339_opts(SecondsFormat::Secs, true));
            if claims.take(RUNS, run, generation, &Claim::lease(&holder, now, length)).await? {
                let key = run.to_string();
                return Ok(Hold { lease: Lease { claims, clock, holder, kind: RUNS, key, generation, length, since } });
            }
            // Somebody was quicker: whatever is there now is of a process that lives.
            watched = Some((u64::MAX, clock.now()));
        }
    }

    /// Whether somebody held the run before: what was made of it then is to be looked for.
    pub fn is_taken_over(&self) -> bool {
        self.lease.generation > 0
    }

    /// Works on the run, and lets it go when the work has ended, or is dropped.
    ///
    /// # Errors
    /// Why the run is not held any more. The work was dropped at that moment: whoever takes the run over makes the rest.
    pub async fn during<T>(self, work: impl Future<Output = T>) -> Result<T, String> {
        let mut lease = self.lease;
        let (working, ended) = oneshot::channel::<()>();
        // On a task of its own: work that keeps its thread busy for a while must not cost the claim.
        let mut keeping = tokio::spawn(async move {
            let lost = tokio::select! {
                why = lease.keep() => Some(why),
                // The other end is dropped with the work.
                _ = ended => None,
            };
            if lost.is_none()
                && let Err(error) = lease.release().await
            {
                tracing::warn!(%error, run = lease.key, "a run's claim could not be released: its lease runs out");
            }
            lost
        });
        let done = tokio::select! {
            done = work => done,
            lost = &mut keeping => {
                return Err(lost.ok().flatten().unwrap_or_else(|| "its claim is renewed no more".to_string()));
            }
        };
        drop(working);
        // The next one may come at once.
        let _ = keeping.await;
        Ok(done)
    }
}
