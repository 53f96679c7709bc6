//! Real input: pages out of the web, and a small web to take them from.
//!
//! Data flow: [`crawl`] fetches a site politely and appends one `page` event per URL to an
//! [`EventLog`](webdancer_schemas::log::EventLog). [`atlas`] is a closed web, an encyclopaedia of countries served over
//! real HTTP, so that everything that needs a web can run without the internet; [`site`] serves it, and any folder.
//!
//! [`funnel`] judges trajectories, handed in as record batches: which are valid, correct and good to learn from.
//!
//! This crate never opens a table: events leave through the log.

pub mod atlas;
pub mod crawl;
pub mod funnel;
pub mod site;
