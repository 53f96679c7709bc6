//! Takes slots: what waits is begun when there is room, or skipped where it overlaps or its schedule is paused.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::Scheduler;
use super::state::{Place, Standing, State};
use crate::schedule::config::Overlap;
use crate::schedule::lease::{Claim, ClaimsError, Lease, SLOTS, utc};
use crate::schedule::slot::{Slot, Told};
use crate::schedule::work::{Shared, SlotWork};

impl Scheduler {
    /// Takes what waits, as far as there is room.
    pub(super) async fn begin(&self, state: &mut State) -> Result<(), ClaimsError> {
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
    pub(super) async fn skip(&self, state: &mut State, place: Place, reason: String) -> Result<(), ClaimsError> {
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
        let (claims, clock, holder, key) = (claims.clone(), clock.clone(), holder.clone(), slot.id.clone());
        Ok(taken.then(|| Lease { claims, clock, holder, kind: SLOTS, key, generation, length, since }))
    }

    fn priority(&self, (number, _): Place) -> i32 {
        self.planned.get(number).map_or(0, |planned| planned.schedule.priority)
    }
}
