//! Updating weights: the learning rate of a step ([`Schedule`]), gradients kept in bounds, and [`AdamW`].

mod adamw;
mod schedule;

pub use self::adamw::AdamW;
pub use self::schedule::Schedule;
