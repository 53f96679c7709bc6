//! The lake's promises: exactly once through every fault of a store, time travel, evolution, maintenance, pins, claims.

mod append;
mod fault_store;
mod maintain;
mod support;
mod tables;
