//! SQL over the lake, and datasets pinned from it.
//!
//! Data flow: a statement is checked to only read ([`statement`]), its names are resolved to tables at one version
//! each, to views and to pins ([`resolve`]), DataFusion plans and runs it within [`Limits`] on the [`QueryEngine`]'s
//! threads, and the rows come out of a [`QueryResult`] in one of the formats of [`output`]. A [`pin`] is the result of
//! a query made immutable: Parquet files, a manifest, and a [`digest`] that is the same wherever the rows are.
//!
//! Tables and pins come in through one trait, [`Catalog`], which the lake implements.

mod apart;
mod canonical;
mod catalog;
mod complete;
mod dialect;
pub mod digest;
mod error;
mod first_row;
pub mod functions;
pub mod gated;
mod limits;
pub mod lineage;
pub mod literal;
mod ordered;
pub mod output;
pub mod pin;
mod reference;
mod resolve;
pub mod saved;
mod script;
mod session;
mod statement;
pub mod stats;
mod stream;
mod turns;
pub mod views;

pub use catalog::{Catalog, CatalogTable, DocumentStore, PinStore};
pub use complete::Completer;
pub use error::{QueryError, Result};
pub use limits::{Limits, QueryOptions};
pub use reference::parse_at;
pub use script::Script;
pub use session::{QueryEngine, THREAD_NAME};
pub use stream::QueryResult;
pub use webdancer_lake::lake::At;
pub use webdancer_lake::pins::{PinFile, PinManifest, PinnedTable};
