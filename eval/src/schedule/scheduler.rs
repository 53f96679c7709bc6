//! The loop: which slots are due, missed, overlapping or left by others, and which of them this process takes.
//!
//! | a slot whose time has come | is |
//! |---|---|
//! | on time | taken when there is room, by priority, then by time |
//! | seen late, and later than any slot of the schedule that anybody took | missed: [`Missed`] says what becomes of it |
//! | with an earlier slot of its schedule under way, here or elsewhere | overlapping: [`Overlap`] says what becomes of it |
//! | taken by another process | watched, and taken over when its claim is not renewed any more |
//! | of a paused schedule | nothing: the schedule goes on with what comes after it is resumed |
//!
//! Whatever is decided here is decided by creating a claim: of two servers that decide at once, one does it.
//!
//! [`Missed`]: super::config::Missed
//! [`Overlap`]: super::config::Overlap

mod begin;
mod look;
mod state;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinError;
use webdancer_agent::clock::Clock;
use webdancer_schemas::log::EventLog;
use webdancer_schemas::rows;

use super::config::{Planned, Schedule, ScheduleError, SchedulerConfig, plan};
use super::lease::{Claims, ClaimsError, utc};
use super::runner::Runner;
use super::slot::Slot;
use super::webhook::Hook;
use super::work::{End, Shared};
use state::{Place, Scope, Seen, Standing, State};

/// What a scheduler works with.
pub struct Parts {
    /// The store of claims.
    pub claims: Arc<dyn Claims>,
    /// What makes runs.
    pub runner: Arc<dyn Runner>,
    /// Where events go.
    pub log: Arc<dyn EventLog>,
    /// Whom alerts are handed to, if to anybody.
    pub hook: Option<Arc<dyn Hook>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The name of this process: a text that no other one has.
    pub holder: String,
    /// Sees every event as soon as it is recorded.
    pub observer: Arc<dyn Fn(&rows::Slot) + Send + Sync>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("holder", &self.holder).finish_non_exhaustive()
    }
}

/// Runs schedules.
#[derive(Debug)]
pub struct Scheduler {
    planned: Vec<Arc<Planned>>,
    shared: Shared,
    stop: watch::Sender<bool>,
}

/// A slot that ended while a scheduler ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ended {
    /// Its id.
    pub slot_id: String,
    /// Its schedule.
    pub schedule: String,
    /// The time that it stands for.
    pub slot_time: DateTime<Utc>,
    /// `finished`, `failed` or `skipped`; `lost` or `released` where other processes go on.
    pub state: &'static str,
    /// Why.
    pub reason: Option<String>,
}

impl Scheduler {
    /// A scheduler of these schedules.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(schedules: &[Schedule], config: &SchedulerConfig, parts: Parts) -> Result<Scheduler, ScheduleError> {
        let planned = plan(schedules, config)?.into_iter().map(Arc::new).collect();
        let (stop, stopping) = watch::channel(false);
        let Parts { claims, runner, log, hook, clock, holder, observer } = parts;
        let config = Arc::new(config.clone());
        let shared = Shared { config, claims, runner, log, hook, clock, holder, observer, stopping };
        Ok(Scheduler { planned, shared, stop })
    }

    /// Runs what comes until `stop`, or, with `until`, what is due up to then. When it is told to stop it begins nothing,
    /// lets what is under way come to its end, and releases what is not done: runners must hear of the stop themselves.
    /// The slots that ended are returned if there is an `until`; without, they may be many, and are told to the observer.
    ///
    /// # Errors
    /// The store of claims fails, with `until`. Without, it is tried again, for as long as it takes.
    pub async fn run(
        &self,
        until: Option<DateTime<Utc>>,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<Vec<Ended>, ClaimsError> {
        let scope = Scope::Due(until);
        self.turn(State::new(self.planned.len(), scope), scope, stop).await
    }

    /// Runs a slot that was asked for with [`Order::RunNow`](super::orders::Order::RunNow), and nothing else. Nothing ended
    /// if another process took it.
    ///
    /// # Errors
    /// The store of claims fails. No error: there is no such schedule, and nothing ends.
    pub async fn run_now(
        &self,
        schedule: &str,
        time: DateTime<Utc>,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<Vec<Ended>, ClaimsError> {
        let mut state = State::new(self.planned.len(), Scope::Only);
        let number = self.planned.iter().position(|planned| planned.schedule.name == schedule);
        if let Some(number) = number {
            state.slots.insert((number, time), Standing::waiting(false));
        }
        self.turn(state, Scope::Only, stop).await
    }

    async fn turn(
        &self,
        mut state: State,
        scope: Scope,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<Vec<Ended>, ClaimsError> {
        let mut stop = std::pin::pin!(stop);
        let mut is_stopping = false;
        loop {
            if !is_stopping && let Err(error) = self.step(&mut state, scope).await {
                if !matches!(scope, Scope::Due(None)) && state.running.is_empty() {
                    return Err(error);
                }
                tracing::warn!(%error, "the schedules could not be looked at; they are again in a while");
            }
            let is_done = match scope {
                _ if is_stopping => true,
                Scope::Due(None) => false,
                Scope::Due(Some(until)) => utc(self.shared.clock.as_ref()) >= until && !state.has_waiting(),
                Scope::Only => !state.has_waiting(),
            };
            if is_done && state.running.is_empty() {
                return Ok(state.ended.unwrap_or_default());
            }
            let wait = self.wait(&state, scope);
            tokio::select! {
                Some(joined) = state.running.join_next(), if !state.running.is_empty() => {
                    self.joined(&mut state, joined);
                }
                () = &mut stop, if !is_stopping => {
                    is_stopping = true;
                    self.stop.send_replace(true);
                }
                () = self.shared.clock.sleep(wait), if !is_stopping => {}
            }
        }
    }

    fn joined(&self, state: &mut State, joined: Result<(Place, End), JoinError>) {
        let (place, end) = match joined {
            Ok(ended) => ended,
            Err(error) => {
                // Its claim runs out; what it was is found among those that are under way.
                tracing::error!(%error, "a slot broke off");
                let lost: Vec<Place> = state.places(|standing| matches!(standing, Standing::Running));
                for place in lost {
                    state.slots.insert(place, self.watched());
                }
                return;
            }
        };
        let (told, reason) = match end {
            End::Settled(told, reason) => {
                state.slots.remove(&place);
                (told, reason)
            }
            End::Lost(reason) => {
                state.slots.insert(place, self.watched());
                ("lost", Some(reason))
            }
            End::Released(reason) => {
                state.slots.insert(place, self.watched());
                ("released", Some(reason))
            }
        };
        state.end(self.slot(place), told, reason);
    }

    /// How long nothing need be looked at.
    fn wait(&self, state: &State, scope: Scope) -> Duration {
        let poll = Duration::from_millis(self.shared.config.poll_ms);
        let Scope::Due(until) = scope else { return poll };
        let now = utc(self.shared.clock.as_ref());
        let next = |(planned, seen): (&Arc<Planned>, &Seen)| planned.times.next_after(seen.looked.unwrap_or(now));
        let comes =
            self.planned.iter().zip(&state.seen).filter_map(next).chain(until.filter(|until| *until > now)).min();
        let left = comes.and_then(|time| (time - now).to_std().ok());
        left.map_or(poll, |left| left.min(poll)).max(Duration::from_millis(1))
    }

    /// One look at everything.
    async fn step(&self, state: &mut State, scope: Scope) -> Result<(), ClaimsError> {
        let now = utc(self.shared.clock.as_ref());
        if let Scope::Due(until) = scope {
            for number in 0..self.planned.len() {
                self.hear(state, number, now).await?;
                self.look(state, number, now, until.map_or(now, |until| now.min(until))).await?;
            }
            self.watch(state).await?;
        }
        self.begin(state).await
    }

    fn slot(&self, (number, time): Place) -> Slot {
        let name = self.planned.get(number).map(|planned| planned.schedule.name.as_str());
        Slot::new(name.unwrap_or_default(), time)
    }

    /// A slot that somebody has, as this generation.
    fn watched_as(&self, generation: u64) -> Standing {
        Standing::Watched { generation, since: self.shared.clock.now() }
    }

    /// A slot that somebody has; as which generation is seen at the next look.
    fn watched(&self) -> Standing {
        self.watched_as(u64::MAX)
    }
}
