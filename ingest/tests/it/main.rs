//! The log and its way into the tables.

mod decode;
mod embedded;
mod intake;
mod support;
