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

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use webdancer_agent::clock::Clock;
use webdancer_schemas::log::EventLog;
use webdancer_schemas::rows;

use super::config::{Missed, Overlap, Planned, Schedule, ScheduleError, SchedulerConfig, plan};
use super::lease::{Claim, Claims, ClaimsError, Lease, SLOTS, utc};
use super::orders::{self, ORDERS, Order, Orders};
use super::runner::Runner;
use super::slot::{Slot, Told};
use super::webhook::Hook;
use super::work::{End, Shared, SlotWork};

/// Claims that are looked up at once.
const LOOK_UPS_MAX: usize = 16;

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

/// A slot: number of the schedule, and time.
type Place = (usize, DateTime<Utc>);

/// How a slot that is not settled stands, seen from here.
#[derive(Debug, Clone)]
enum Standing {
    /// Nobody has it: to be taken as this generation. One that was asked for, caught up or taken over is not skipped.
    Waiting { generation: u64, may_be_skipped: bool, is_told: bool },
    /// Somebody else has it: the generation seen last, and since when it has been seen.
    Watched { generation: u64, since: Instant },
    /// This process has it.
    Running,
}

#[derive(Debug, Default)]
struct Seen {
    orders: Option<Orders>,
    /// Until when slots were looked for.
    looked: Option<DateTime<Utc>>,
}

#[derive(Debug)]
struct State {
    slots: BTreeMap<Place, Standing>,
    seen: Vec<Seen>,
    running: JoinSet<(Place, End)>,
    /// What ended, where somebody waits for it: a server that runs for years does not.
    ended: Option<Vec<Ended>>,
}

/// Which slots a scheduler looks for.
#[derive(Debug, Clone, Copy)]
enum Scope {
    /// All that are due, up to a time if one is given.
    Due(Option<DateTime<Utc>>),
    /// One.
    Only,
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

    /// Runs a slot that was asked for with [`Order::RunNow`], and nothing else. Nothing ended if another process took it.
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

    /// Hears what people said of a schedule.
    async fn hear(&self, state: &mut State, number: usize, now: DateTime<Utc>) -> Result<(), ClaimsError> {
        let (Some(planned), Some(seen)) = (self.planned.get(number), state.seen.get(number)) else { return Ok(()) };
        let (claims, name) = (self.shared.claims.as_ref(), planned.schedule.name.as_str());
        let newest = claims.newest(ORDERS, name).await?.map(|(generation, _)| generation);
        if newest.is_some() && newest == seen.orders.as_ref().map(|orders| orders.generation) {
            return Ok(());
        }
        if newest.is_none() {
            orders::put(claims, name, (Order::Register, &self.shared.holder), now).await?;
        }
        let Some(orders) = Orders::read(claims, name).await? else { return Ok(()) };
        let heard = seen.orders.as_ref().map_or(0, |orders| orders.requested.len());
        let requested: Vec<Place> = orders
            .requested
            .iter()
            .skip(heard)
            .filter(|time| now - **time <= self.look_back())
            .map(|time| (number, *time))
            .collect();
        for (place, claim) in self.look_up(requested).await? {
            let standing = match claim {
                Some((_, claim)) if claim.is_settled() => continue,
                Some((generation, _)) => self.watched_as(generation),
                None => Standing::waiting(false),
            };
            state.slots.entry(place).or_insert(standing);
        }
        if let Some(seen) = state.seen.get_mut(number) {
            seen.orders = Some(orders);
        }
        Ok(())
    }

    /// Looks which slots of a schedule have come since it was looked at last.
    async fn look(
        &self,
        state: &mut State,
        number: usize,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<(), ClaimsError> {
        let (Some(planned), Some(seen)) = (self.planned.get(number), state.seen.get(number)) else { return Ok(()) };
        let Some(orders) = &seen.orders else { return Ok(()) };
        let (since, is_paused) = (orders.since, orders.paused.is_some());
        let from = seen.looked.unwrap_or(now - self.look_back());
        let times = planned.times.between(from, until, self.shared.config.look_back_slots_max);
        let looked_up = self.look_up(times.iter().map(|time| (number, *time)).collect()).await?;
        let handled = looked_up.iter().filter(|(_, claim)| claim.is_some()).map(|((_, time), _)| *time).max();
        // Behind one that is under way a slot may be waiting, in another server's memory.
        let is_open = |((_, time), claim): &(Place, Option<(u64, Claim)>)| {
            claim.as_ref().is_some_and(|(_, claim)| !claim.is_settled()).then_some(*time)
        };
        let known = state.slots.keys().filter(|place| place.0 == number).map(|place| place.1);
        let under_way = looked_up.iter().filter_map(is_open).chain(known).min();
        let queues = |time: DateTime<Utc>| {
            planned.schedule.overlap == Overlap::Queue && under_way.is_some_and(|under_way| under_way < time)
        };
        let (mut open, mut missed) = (Vec::new(), Vec::new());
        for (place, claim) in looked_up {
            match claim {
                Some((_, claim)) if claim.is_settled() => {}
                Some((generation, _)) => {
                    state.slots.entry(place).or_insert(self.watched_as(generation));
                }
                None if is_paused || place.1 <= since || handled.is_some_and(|handled| place.1 < handled) => {}
                None if !queues(place.1) && self.is_late(place.1, now) => missed.push(place),
                None => open.push(place),
            }
        }
        let catches_up = self.catch_up(state, planned, missed, !open.is_empty()).await?;
        for place in open {
            state.slots.entry(place).or_insert(Standing::waiting(!catches_up));
        }
        if let Some(seen) = state.seen.get_mut(number) {
            seen.looked = Some(until);
        }
        Ok(())
    }

    /// What becomes of missed slots, the earliest first; whether any is run. With `is_followed` there is a later one that
    /// is due.
    async fn catch_up(
        &self,
        state: &mut State,
        planned: &Planned,
        missed: Vec<Place>,
        is_followed: bool,
    ) -> Result<bool, ClaimsError> {
        let run = match planned.schedule.missed {
            Missed::Skip => 0,
            Missed::Latest => usize::from(!is_followed),
            Missed::All => planned.schedule.missed_max as usize,
        };
        let (skipped, run) = missed.split_at(missed.len().saturating_sub(run));
        // One event for all of them, at the last: a minute's schedule has many.
        if let (Some(first), Some(last)) = (skipped.first(), skipped.last()) {
            let reason = match skipped.len() {
                1 => "missed: no scheduler ran at its time".to_string(),
                count => format!("missed: no scheduler ran from {} on, {count} slots", self.slot(*first).stamp()),
            };
            self.skip(state, *last, reason).await?;
        }
        for place in run {
            state.slots.entry(*place).or_insert(Standing::waiting(false));
        }
        Ok(!run.is_empty())
    }

    /// Looks what became of the slots that others have.
    async fn watch(&self, state: &mut State) -> Result<(), ClaimsError> {
        let watched = state.places(|standing| matches!(standing, Standing::Watched { .. }));
        for (place, claim) in self.look_up(watched).await? {
            let Some(Standing::Watched { generation, since, .. }) = state.slots.get(&place) else { continue };
            let standing = match claim {
                Some((_, claim)) if claim.is_settled() => None,
                Some((newest, claim)) => {
                    let is_same = newest == *generation;
                    let unchanged = if is_same { self.shared.clock.now() - *since } else { Duration::ZERO };
                    match unchanged >= claim.length().unwrap_or_default() {
                        true => {
                            Some(Standing::Waiting { generation: newest + 1, may_be_skipped: false, is_told: false })
                        }
                        false if is_same => continue,
                        false => Some(self.watched_as(newest)),
                    }
                }
                None => Some(Standing::waiting(false)),
            };
            match standing {
                Some(standing) => state.slots.insert(place, standing),
                None => state.slots.remove(&place),
            };
        }
        Ok(())
    }

    /// Takes what waits, as far as there is room.
    async fn begin(&self, state: &mut State) -> Result<(), ClaimsError> {
        let mut waiting = state.places(|standing| matches!(standing, Standing::Waiting { .. }));
        waiting.sort_by_key(|place| (std::cmp::Reverse(self.priority(*place)), place.1, place.0));
        let mut queued = BTreeMap::<usize, u32>::new();
        for place in waiting {
            let Some(planned) = self.planned.get(place.0) else { continue };
            let Some(Standing::Waiting { generation, may_be_skipped, is_told }) = state.slots.get(&place).cloned()
            else {
                continue;
            };
            if let Some(by) = state.seen.get(place.0).and_then(|seen| seen.paused(place.1)).filter(|_| generation == 0)
            {
                self.skip(state, place, format!("the schedule was paused by {by}")).await?;
                continue;
            }
            let earlier = state.slots.range((place.0, DateTime::<Utc>::MIN_UTC)..place).next_back();
            match earlier.map(|((_, time), standing)| (*time, standing.clone())) {
                // What becomes of the earlier one decides.
                Some((_, Standing::Waiting { .. })) if !may_be_skipped || planned.schedule.overlap == Overlap::Skip => {
                }
                Some((time, _)) if may_be_skipped => {
                    let earlier = Slot::new(&planned.schedule.name, time).stamp();
                    let held = queued.entry(place.0).or_default();
                    *held += 1;
                    if planned.schedule.overlap == Overlap::Skip {
                        self.skip(state, place, format!("overlaps: the slot of {earlier} has not ended")).await?;
                    } else if *held > planned.schedule.queue_max {
                        let most = planned.schedule.queue_max;
                        self.skip(state, place, format!("overlaps: {most} slots wait already")).await?;
                    } else if !is_told {
                        let told = Told::of("queued").because(format!("waits for the slot of {earlier}"));
                        self.shared.tell_if_possible(&self.slot(place), told).await;
                        state.slots.insert(place, Standing::Waiting { generation, may_be_skipped, is_told: true });
                    }
                }
                Some(_) => {}
                None if state.running.len() < self.shared.config.slots_max => {
                    self.take(state, place, generation).await?
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Takes a slot, and begins with it; or sees that somebody else has.
    async fn take(&self, state: &mut State, place: Place, generation: u64) -> Result<(), ClaimsError> {
        let Some(planned) = self.planned.get(place.0) else { return Ok(()) };
        let (slot, shared) = (self.slot(place), self.shared.clone());
        let lease = self.claim(&slot, generation).await?;
        let Some(lease) = lease else {
            state.slots.insert(place, self.watched_as(generation));
            return Ok(());
        };
        state.slots.insert(place, Standing::Running);
        let work = SlotWork { shared, planned: planned.clone(), slot, lease };
        state.running.spawn(async move { (place, work.run().await) });
        Ok(())
    }

    /// Takes a slot that nobody had, for ever, and says that it is not run. Claims decide: were it held by a lease until the
    /// log has taken the event, a log that is out would leave it to others, who would run it.
    async fn skip(&self, state: &mut State, place: Place, reason: String) -> Result<(), ClaimsError> {
        let Shared { claims, clock, holder, .. } = &self.shared;
        let slot = self.slot(place);
        let claim = Claim { holder: holder.clone(), taken: utc(clock.as_ref()), expires: None };
        if !claims.take(SLOTS, &slot.id, 0, &claim).await? {
            state.slots.insert(place, self.watched_as(0));
            return Ok(());
        }
        state.slots.remove(&place);
        let told = Told::of("skipped").because(reason.as_str());
        self.shared.tell_if_possible(&slot, told).await;
        state.end(slot, "skipped", Some(reason));
        Ok(())
    }

    async fn claim(&self, slot: &Slot, generation: u64) -> Result<Option<Lease>, ClaimsError> {
        let Shared { claims, clock, holder, .. } = &self.shared;
        let length = self.shared.lease();
        let (since, claim) = (clock.now(), Claim::lease(holder, utc(clock.as_ref()), length));
        let taken = claims.take(SLOTS, &slot.id, generation, &claim).await?;
        let (claims, clock, holder) = (claims.clone(), clock.clone(), holder.clone());
        Ok(taken.then(|| Lease { claims, clock, holder, slot: slot.clone(), generation, length, since }))
    }

    /// The newest generation of each slot's claim, in their order.
    async fn look_up(&self, places: Vec<Place>) -> Result<Vec<(Place, Option<(u64, Claim)>)>, ClaimsError> {
        let newest = |place: Place| {
            let (claims, slot) = (self.shared.claims.clone(), self.slot(place));
            async move { Ok((place, claims.newest(SLOTS, &slot.id).await?)) }
        };
        stream::iter(places.into_iter().map(newest)).buffered(LOOK_UPS_MAX).try_collect().await
    }

    fn slot(&self, (number, time): Place) -> Slot {
        let name = self.planned.get(number).map(|planned| planned.schedule.name.as_str());
        Slot::new(name.unwrap_or_default(), time)
    }

    fn priority(&self, (number, _): Place) -> i32 {
        self.planned.get(number).map_or(0, |planned| planned.schedule.priority)
    }

    fn look_back(&self) -> chrono::Duration {
        chrono::Duration::hours(i64::from(self.shared.config.look_back_hours))
    }

    fn is_late(&self, time: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        u64::try_from((now - time).num_milliseconds()).is_ok_and(|late_ms| late_ms > self.shared.config.late_ms)
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

impl Seen {
    /// By whom the schedule is paused, as far as it concerns a slot: one that was asked for is run.
    fn paused(&self, time: DateTime<Utc>) -> Option<String> {
        let orders = self.orders.as_ref().filter(|orders| !orders.requested.contains(&time))?;
        orders.paused.as_ref().map(|(_, by)| by.clone())
    }
}

impl Standing {
    fn waiting(may_be_skipped: bool) -> Standing {
        Standing::Waiting { generation: 0, may_be_skipped, is_told: false }
    }
}

impl State {
    fn new(schedules: usize, scope: Scope) -> State {
        State {
            slots: BTreeMap::new(),
            seen: (0..schedules).map(|_| Seen::default()).collect(),
            running: JoinSet::new(),
            ended: (!matches!(scope, Scope::Due(None))).then(Vec::new),
        }
    }

    fn end(&mut self, slot: Slot, state: &'static str, reason: Option<String>) {
        let Slot { id: slot_id, schedule, time: slot_time } = slot;
        self.ended.iter_mut().for_each(|ended| {
            ended.push(Ended {
                slot_id: slot_id.clone(),
                schedule: schedule.clone(),
                slot_time,
                state,
                reason: reason.clone(),
            });
        });
    }

    fn places(&self, which: impl Fn(&Standing) -> bool) -> Vec<Place> {
        self.slots.iter().filter(|(_, standing)| which(standing)).map(|(place, _)| *place).collect()
    }

    fn has_waiting(&self) -> bool {
        self.slots.values().any(|standing| matches!(standing, Standing::Waiting { .. }))
    }
}
