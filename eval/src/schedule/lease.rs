//! Claims: who runs a slot, or works on a run.
//!
//! A claim is a chain of objects that can only be created, as a store without conditional updates allows: who creates the
//! next generation holds it. A *lease* is held by creating generation after generation. It is over when no new generation
//! was seen for as long as it was taken for, by the clock of whoever watches: machines need not agree on the time. The holder
//! counts from before it asked for its last renewal, a watcher from after it saw it, so the holder knows first.
//!
//! A generation without an end *settles* the claim for ever. One that ends when it begins *releases* it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use webdancer_agent::clock::Clock;

/// The kind of claims on slots.
pub(super) const SLOTS: &str = "slot";
/// Renewals in the time of a lease.
const RENEWALS: u32 = 3;
/// Times that a store is asked to settle a claim.
const SETTLES_MAX: u32 = 10;

/// A generation of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Who took it: a text that no other process has.
    pub holder: String,
    /// When.
    pub taken: DateTime<Utc>,
    /// Until when, unless it is renewed; None: for ever.
    pub expires: Option<DateTime<Utc>>,
}

/// A store of claims: the lake.
#[async_trait]
pub trait Claims: Send + Sync + std::fmt::Debug {
    /// Creates generation `generation` (from 0) of a claim. False: it is there, and is not this one.
    async fn take(&self, kind: &str, key: &str, generation: u64, claim: &Claim) -> Result<bool, ClaimsError>;

    /// The newest generation of a claim, if any.
    async fn newest(&self, kind: &str, key: &str) -> Result<Option<(u64, Claim)>, ClaimsError>;

    /// Every generation of a claim, the oldest first.
    async fn all(&self, kind: &str, key: &str) -> Result<Vec<(u64, Claim)>, ClaimsError>;
}

/// The store of claims did not answer as it should; the same may succeed later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ClaimsError(pub String);

impl Claim {
    /// A lease from now on.
    pub(super) fn lease(holder: &str, now: DateTime<Utc>, length: Duration) -> Claim {
        let length = chrono::Duration::from_std(length).unwrap_or(chrono::Duration::MAX);
        let expires = now.checked_add_signed(length).unwrap_or(DateTime::<Utc>::MAX_UTC);
        Claim { holder: holder.to_string(), taken: now, expires: Some(expires) }
    }

    /// Whether nobody is ever to take the next generation.
    pub(super) fn is_settled(&self) -> bool {
        self.expires.is_none()
    }

    /// For how long it holds without being renewed; no time if it was released, None if it is settled.
    pub(super) fn length(&self) -> Option<Duration> {
        self.expires.map(|expires| (expires - self.taken).to_std().unwrap_or_default())
    }
}

/// A claim, held.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) claims: Arc<dyn Claims>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) holder: String,
    pub(super) kind: &'static str,
    pub(super) key: String,
    pub(super) generation: u64,
    pub(super) length: Duration,
    /// From before it was asked for.
    pub(super) since: Instant,
}

impl Lease {
    /// Renews until that fails, and says why it did. May be dropped at any point.
    pub(super) async fn keep(&mut self) -> String {
        let mut until = self.since + self.length;
        let clock = self.clock.clone();
        loop {
            clock.sleep(self.length / RENEWALS).await;
            let asked = clock.now();
            let lease = Claim::lease(&self.holder, utc(clock.as_ref()), self.length);
            let left = until.saturating_duration_since(asked);
            tokio::select! {
                advanced = self.advance(lease) => match advanced {
                    Ok(true) => until = asked + self.length,
                    Ok(false) => return "another process has taken it over".to_string(),
                    Err(error) => {
                        tracing::warn!(%error, kind = self.kind, key = self.key, "a claim could not be renewed");
                    }
                },
                () = clock.sleep(left) => {}
            }
            if clock.now() >= until {
                return "its claim could not be renewed in time".to_string();
            }
        }
    }

    /// Nobody is to take it any more. False: it is not ours to say.
    pub(super) async fn settle(&mut self) -> Result<bool, ClaimsError> {
        let mut tried = 0;
        loop {
            let now = utc(self.clock.as_ref());
            let advanced = self.advance(Claim { holder: self.holder.clone(), taken: now, expires: None }).await;
            tried += 1;
            match advanced {
                Err(error) if tried < SETTLES_MAX => {
                    tracing::warn!(%error, kind = self.kind, key = self.key, "a claim could not be settled");
                    self.clock.sleep(self.length / RENEWALS / SETTLES_MAX).await;
                }
                advanced => return advanced,
            }
        }
    }

    /// Others may go on at once.
    pub(super) async fn release(&mut self) -> Result<bool, ClaimsError> {
        let now = utc(self.clock.as_ref());
        self.advance(Claim { holder: self.holder.clone(), taken: now, expires: Some(now) }).await
    }

    /// Takes the next generation. One that is there already may be our own, of a renewal that was given up half-way.
    async fn advance(&mut self, claim: Claim) -> Result<bool, ClaimsError> {
        loop {
            let next = self.generation + 1;
            if self.claims.take(self.kind, &self.key, next, &claim).await? {
                self.generation = next;
                return Ok(true);
            }
            match self.claims.newest(self.kind, &self.key).await? {
                Some((generation, newest)) if generation > self.generation && newest.holder == self.holder => {
                    self.generation = generation;
                }
                _ => return Ok(false),
            }
        }
    }
}

/// The time of day, to the microsecond, as events have it.
pub(super) fn utc(clock: &dyn Clock) -> DateTime<Utc> {
    use chrono::SubsecRound as _;
    DateTime::<Utc>::from(clock.utc()).trunc_subsecs(6)
}
