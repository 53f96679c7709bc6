//! The pages: a file for each, a route for each here.

mod benchmarks;
mod compare;
mod console;
mod data;
mod leaderboard;
mod lineage;
mod pins;
mod questions;
mod read;
mod run;
mod runs;
mod schedules;
mod search;
mod stored;
mod training;
mod trajectories;
mod trajectory;

use axum::Router;

use super::page::page;
use super::state::Dashboard;

/// Every page at its address.
pub(super) fn mount(router: Router<Dashboard>) -> Router<Dashboard> {
    let router = router
        .route("/", page(leaderboard::show))
        .route("/benchmarks", page(benchmarks::list))
        .route("/benchmarks/{name}", page(benchmarks::trend))
        .route("/runs", page(runs::list))
        .route("/runs/{id}", page(run::show))
        .route("/runs/{id}/live", page(run::live))
        .route("/compare", page(compare::show))
        .route("/schedules", page(schedules::list))
        .route("/schedules/{slot}", page(schedules::slot));
    mount_data(router)
}

/// What runs are made of: trajectories, questions, pages, pins, training, and SQL over all of it.
fn mount_data(router: Router<Dashboard>) -> Router<Dashboard> {
    router
        .route("/trajectories", page(trajectories::trajectories))
        .route("/trajectories/{id}", page(trajectory::trajectory))
        .route("/trajectories/{id}/turns/{turn}/{part}", page(trajectory::text))
        .route("/data", page(data::data))
        .route("/questions", page(questions::questions))
        .route("/questions/{id}", page(questions::question))
        .route("/pages", page(stored::pages))
        .route("/pages/{digest}", page(stored::page))
        .route("/pages/{digest}/text", page(stored::whole))
        .route("/training", page(training::training))
        .route("/training/{id}", page(training::run))
        .route("/pins", page(pins::pins))
        .route("/pins/{pin}", page(pins::pin))
        .route("/sql", page(console::console))
        .route("/sql/saved", console::save())
        .route("/search", page(search::search))
        .route("/lineage/{id}", page(lineage::page))
}
