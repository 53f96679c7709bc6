//! Looks: what people said, which slots have come, and what became of those that others have.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::Scheduler;
use super::state::{Place, Standing, State};
use crate::schedule::config::{Missed, Overlap, Planned};
use crate::schedule::lease::{Claim, ClaimsError, SLOTS};
use crate::schedule::orders::{self, ORDERS, Order, Orders};

/// Claims that are looked up at once.
const LOOK_UPS_MAX: usize = 16;

impl Scheduler {
    /// Hears what people said of a schedule.
    pub(super) async fn hear(&self, state: &mut State, number: usize, now: DateTime<Utc>) -> Result<(), ClaimsError> {
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
    pub(super) async fn look(
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
    pub(super) async fn watch(&self, state: &mut State) -> Result<(), ClaimsError> {
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

    /// The newest generation of each slot's claim, in their order.
    async fn look_up(&self, places: Vec<Place>) -> Result<Vec<(Place, Option<(u64, Claim)>)>, ClaimsError> {
        let newest = |place: Place| {
            let (claims, slot) = (self.shared.claims.clone(), self.slot(place));
            async move { Ok((place, claims.newest(SLOTS, &slot.id).await?)) }
        };
        stream::iter(places.into_iter().map(newest)).buffered(LOOK_UPS_MAX).try_collect().await
    }

    fn look_back(&self) -> chrono::Duration {
        chrono::Duration::hours(i64::from(self.shared.config.look_back_hours))
    }

    fn is_late(&self, time: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        u64::try_from((now - time).num_milliseconds()).is_ok_and(|late_ms| late_ms > self.shared.config.late_ms)
    }
}
