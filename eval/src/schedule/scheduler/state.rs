//! What a scheduler knows: the slots that are not settled, and how far each schedule has been looked at.

use std::collections::BTreeMap;
use std::time::Instant;

use chrono::{DateTime, Utc};
use tokio::task::JoinSet;

use super::Ended;
use crate::schedule::orders::Orders;
use crate::schedule::slot::Slot;
use crate::schedule::work::End;

/// A slot: number of the schedule, and time.
pub(super) type Place = (usize, DateTime<Utc>);

/// How a slot that is not settled stands, seen from here.
#[derive(Debug, Clone)]
pub(super) enum Standing {
    /// Nobody has it: to be taken as this generation. One that was asked for, caught up or taken over is not skipped.
    Waiting { generation: u64, may_be_skipped: bool, is_told: bool },
    /// Somebody else has it: the generation seen last, and since when it has been seen.
    Watched { generation: u64, since: Instant },
    /// This process has it.
    Running,
}

#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) orders: Option<Orders>,
    /// Until when slots were looked for.
    pub(super) looked: Option<DateTime<Utc>>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) slots: BTreeMap<Place, Standing>,
    pub(super) seen: Vec<Seen>,
    pub(super) running: JoinSet<(Place, End)>,
    /// What ended, where somebody waits for it: a server that runs for years does not.
    pub(super) ended: Option<Vec<Ended>>,
}

/// Which slots a scheduler looks for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scope {
    /// All that are due, up to a time if one is given.
    Due(Option<DateTime<Utc>>),
    /// One.
    Only,
}

impl Seen {
    /// By whom the schedule is paused, as far as it concerns a slot: one that was asked for is run.
    pub(super) fn paused(&self, time: DateTime<Utc>) -> Option<String> {
        let orders = self.orders.as_ref().filter(|orders| !orders.requested.contains(&time))?;
        orders.paused.as_ref().map(|(_, by)| by.clone())
    }
}

impl Standing {
    pub(super) fn waiting(may_be_skipped: bool) -> Standing {
        Standing::Waiting { generation: 0, may_be_skipped, is_told: false }
    }
}

impl State {
    pub(super) fn new(schedules: usize, scope: Scope) -> State {
        State {
            slots: BTreeMap::new(),
            seen: (0..schedules).map(|_| Seen::default()).collect(),
            running: JoinSet::new(),
            ended: (!matches!(scope, Scope::Due(None))).then(Vec::new),
        }
    }

    pub(super) fn end(&mut self, slot: Slot, state: &'static str, reason: Option<String>) {
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

    pub(super) fn places(&self, which: impl Fn(&Standing) -> bool) -> Vec<Place> {
        self.slots.iter().filter(|(_, standing)| which(standing)).map(|(place, _)| *place).collect()
    }

    pub(super) fn has_waiting(&self) -> bool {
        self.slots.values().any(|standing| matches!(standing, Standing::Waiting { .. }))
    }
}
