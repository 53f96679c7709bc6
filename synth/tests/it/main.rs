//! The closed web and the crawler, against real HTTP on loopback.

mod atlas;
mod canonical;
mod docs;
mod hostile;
mod manners;
mod memory_log;
mod resume;
