//! Schedules: evaluations that repeat themselves, each slot of each schedule once, whichever server runs it.
//!
//! Data flow: [`config`] reads `[[schedule]]`; [`cron`] says when its slots are; the [`Scheduler`] looks which are due, missed
//! or overlap, and takes one by a [claim](Claims). Whoever holds the claim lets a [`Runner`] make the slot's cells, every
//! policy at every benchmark, a canary of each first; compares them with a baseline ([`alert`]); tells a [`Hook`] of what is
//! significantly worse; and settles the slot. [`orders`] are what people say: pause, resume, run now.
//!
//! A claim is a lease that its holder renews. When it is not renewed any more, another process takes the slot over: the ids of
//! slots and runs are derived from schedule, slot and cell, so it finds what was made and makes the rest. A run has a claim of
//! its own, the [`Hold`] of whoever works on it, by schedule or by hand: no two processes pay for the same attempts. Only
//! claims decide who runs what; the events of kind `slot` are there to be read by people. Claims are the operator's store,
//! handed in, like clock, log and runner: nothing here opens a table.

pub mod alert;
pub mod config;
pub mod cron;
mod hold;
mod lease;
pub mod orders;
mod runner;
mod scheduler;
mod slot;
mod webhook;
mod work;

pub use config::{Schedule, ScheduleError, SchedulerConfig};
pub use hold::{Hold, HoldError, Holder};
pub use lease::{Claim, Claims, ClaimsError};
pub use runner::{Left, Pass, Runner, RunnerError, Spent, Work};
pub use scheduler::{Ended, Parts, Scheduler};
pub use slot::{Cell, SOURCE, Slot};
pub use webhook::{Hook, HookError, Webhook};
