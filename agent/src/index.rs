//! Full-text search over pages, without any network: what the closed web is made of.
//!
//! Text becomes words in one way ([`words`](mod@words)) for pages, queries and goals. [`PageIndex`] finds pages and
//! keeps their text; [`passages`] finds what a page says about a goal. Both rank by BM25, and break ties by the order of
//! the pages or of the text: the same pages and the same query give the same hits on every machine.

mod build;
mod lists;
pub mod passages;
mod query;
mod words;

pub use build::IndexError;
pub use query::PageIndex;
