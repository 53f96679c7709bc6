//! Real input: pages out of the web, and a small web to take them from.
//!
//! Data flow: [`crawl`] fetches a site politely and appends one `page` event per URL to an
//! [`EventLog`](webdancer_schemas::log::EventLog). [`atlas`] is a closed web, an encyclopaedia of countries served over
//! real HTTP, so that everything that needs a web can run without the internet; [`site`] serves it, and any folder.
//! [`sample`] lets a policy attempt questions and appends its trajectories.
//!
//! [`funnel`] judges trajectories, handed in as record batches: which are valid, correct and good to learn from.
//!
//! [`crawlqa`] writes questions from crawled pages with a model, [`e2hqa`] makes simple ones hard. [`atlasqa`] does both
//! for the atlas without a model, with answers that can be proved, and [`scripted`] is a policy that finds them by search
//! and visit.
//!
//! This crate never opens a table: events leave through the log.

pub mod atlas;
pub mod atlasqa;
pub mod crawl;
pub mod crawlqa;
pub mod e2hqa;
pub mod funnel;
pub mod overlap;
pub mod question;
pub mod reply;
pub mod sample;
pub mod scripted;
pub mod site;
