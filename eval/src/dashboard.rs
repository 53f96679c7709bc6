//! The dashboard: pages over the lake, rendered on the server.
//!
//! A page is a function from what was [asked](request::Asked) to an [answer](page::Answer): it reads rows by SQL through
//! [`Dashboard`], computes figures with the same code as the command does, and describes a [`Page`](page::Page) with its
//! [tables](table) and [charts](chart). The frame around it, its JSON twin, the CSV and Parquet of its tables and the SVG
//! of its charts are the same for every page and are made in [`page`]. What is costly is computed once for a state of the
//! tables it is made of ([`Dashboard::memo`]).
//!
//! Text from outside is escaped by construction: only [`maud`] writes markup. The URL is the state of a page, so every view
//! can be sent as a link and works without scripts; scripts add the keyboard, copying, the switch of themes and live
//! progress. See `docs/adr/015-dashboard.md`.

pub mod assets;
mod board;
pub mod chart;
mod colour;
pub mod export;
pub mod fault;
mod figures;
pub mod format;
pub mod page;
mod pages;
mod readers;
pub mod request;
mod state;
pub mod table;
pub mod text;

use axum::Router;
use axum::routing::get;
use webdancer_query::QueryEngine;

pub use colour::Colours;
pub use readers::Readers;
pub use state::{Dashboard, Rows, Running, Settings};
pub use webdancer_query::literal as sql;

/// The pages over what `engine` reads.
pub fn router(engine: QueryEngine, settings: Settings) -> Router {
    routes(Dashboard::new(engine, settings))
}

/// The pages of a dashboard that the caller keeps a hand on.
pub fn routes(dashboard: Dashboard) -> Router {
    let router = Router::new().route("/static/{digest}/{name}", get(assets::asset));
    pages::mount(router).fallback(page::missing).with_state(dashboard)
}
