//! A run while it runs: how far it is, how fast, and the score so far. By server-sent events; a reload shows the same.
//!
//! How fast is measured since the run was last begun or taken up: between its sessions nobody works on it.

use std::convert::Infallible;
use std::time::Duration;

use axum::response::IntoResponse as _;
use axum::response::sse::{Event, KeepAlive, Sse};
use chrono::{DateTime, Utc};
use futures::stream;
use maud::{Markup, html};
use serde::Serialize;
use serde_json::{Map, Value};
use webdancer_schemas::kind::Kind;

use super::Shown;
use crate::dashboard::board;
use crate::dashboard::fault::Fault;
use crate::dashboard::format;
use crate::dashboard::page::Answer;
use crate::dashboard::pages::read::{count, text};
use crate::dashboard::request::{Asked, path_part};
use crate::dashboard::sql;
use crate::dashboard::state::Dashboard;

/// How far a run is, as texts that the page shows.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
struct Progress {
    made: String,
    total: String,
    done: String,
    rate: String,
    eta: String,
    score: String,
    unknown: String,
}

/// What was done since the run was last begun or taken up.
#[derive(Debug, Clone, Copy)]
struct Session {
    since: DateTime<Utc>,
    /// Attempts.
    made: u64,
}

/// The panel of a run that runs.
pub(super) fn panel(shown: &Shown) -> Markup {
    if super::text(shown, "state") != Some("started") {
        return html! {};
    }
    let entry = shown.entry.as_deref();
    let now = progress(entry, None, DateTime::<Utc>::default());
    html! {
        section.live data-live={ "/runs/" (path_part(&shown.id)) "/live" } aria-live="polite" {
            h2 { "Under way" }
            progress max="100" value=(now.done) data-value="done" aria-label="Attempts made, in percent" {}
            p {
                span data-value="made" { (now.made) } " of " span data-value="total" { (now.total) } " attempts · "
                span data-value="rate" { (now.rate) } " a minute · done in " span data-value="eta" { (now.eta) }
                " · Pass@1 so far " span data-value="score" { (now.score) }
                " · no verdict " span data-value="unknown" { (now.unknown) }
            }
        }
    }
}

fn total(entry: Option<&board::Entry>) -> Option<u64> {
    let about = &entry?.about;
    about.attempts?.checked_mul(about.questions?)
}

/// The stream behind the panel.
pub(in super::super) async fn live(asked: Asked) -> Result<Answer, Fault> {
    let id = asked.part("id").to_string();
    let permit = asked.app.stream_permit();
    let permit = permit.ok_or_else(|| Fault::Late("too many pages are live; reload this one instead".to_string()))?;
    if board::run_state(&asked.app, &id).await?.is_none() && !asked.app.board().await?.value.runs.contains_key(&id) {
        return Err(Fault::Missing(format!("there is no run {:?}", format::clipped(&id, 60))));
    }
    let every = asked.app.settings().stream_every;
    let watch = Some(Watch { app: asked.app, id, every: Duration::ZERO, next: every, told: None });
    let events = stream::unfold((watch, permit), |(watch, permit)| async move {
        let mut watch = watch?;
        let event = watch.event().await;
        let after = (!event.is_last).then_some(watch);
        Some((Ok::<_, Infallible>(event.event), (after, permit)))
    });
    let response = Sse::new(events).keep_alive(KeepAlive::default()).into_response();
    Ok(Answer::Other(Box::new(response)))
}

struct Told {
    event: Event,
    is_last: bool,
}

struct Watch {
    app: Dashboard,
    id: String,
    every: Duration,
    next: Duration,
    /// What was told last.
    told: Option<Progress>,
}

impl Watch {
    /// The next thing to tell: progress when it changed, or that the run is over.
    async fn event(&mut self) -> Told {
        loop {
            tokio::time::sleep(self.every).await;
            self.every = self.next;
            // A lake that does not answer now may in a while: the page keeps what it shows.
            let Ok((progress, runs)) = self.look().await else { continue };
            if !runs {
                return Told { event: Event::default().event("done").data("{}"), is_last: true };
            }
            if self.told.as_ref() == Some(&progress) {
                continue;
            }
            let data = serde_json::to_string(&progress).unwrap_or_default();
            self.told = Some(progress);
            return Told { event: Event::default().event("progress").data(data), is_last: false };
        }
    }

    async fn look(&self) -> Result<(Progress, bool), Fault> {
        let state = board::run_state(&self.app, &self.id).await?.unwrap_or_default();
        let text = |name: &str| state.get(name).and_then(|value| value.as_str());
        let session = session(&self.app, &self.id).await?;
        let board = self.app.board().await?;
        let entry = board.value.runs.get(&self.id);
        let now = (self.app.settings().now)();
        Ok((progress(entry.map(AsRef::as_ref), session, now), text("state") == Some("started")))
    }
}

async fn session(app: &Dashboard, run_id: &str) -> Result<Option<Session>, Fault> {
    let begun = format!("SELECT max(event_time) FROM runs WHERE run_id = {} AND state = 'started'", sql::text(run_id));
    let statement = format!(
        "SELECT ({begun}) AS since, (SELECT count(*) FROM trajectories WHERE run_id = {} AND event_time >= ({begun})) AS made",
        sql::text(run_id)
    );
    let (reading, key) = (app.clone(), format!("session {run_id}"));
    let session = app.memo(&key, &[Kind::Run, Kind::Trajectory], async move {
        let rows = reading.rows(&statement).await?;
        let of = |row: &Map<String, Value>| {
            Some(Session { since: text(row, "since").and_then(format::parsed_time)?, made: count(row, "made") })
        };
        Ok(rows.first().and_then(of))
    });
    Ok(*session.await?.value)
}

fn progress(entry: Option<&board::Entry>, session: Option<Session>, now: DateTime<Utc>) -> Progress {
    // What is still to come counts among the attempts, as one without a verdict.
    let missing_yet = entry.map_or(0, |entry| entry.report.unknown.missing);
    let made = entry.map_or(0, |entry| entry.report.made());
    let unknown = entry.map_or(0, |entry| entry.report.coverage.unknown.saturating_sub(missing_yet));
    let total = total(entry);
    let rate = session.filter(|session| session.made > 0 && now > session.since).map(|session| {
        let minutes = (now - session.since).num_milliseconds() as f64 / 60_000.0;
        session.made as f64 / minutes
    });
    let left = total.map(|total| total.saturating_sub(made) as f64);
    let missing = || format::MISSING.to_string();
    Progress {
        made: format::count(made),
        total: total.map_or_else(missing, format::count),
        done: total
            .filter(|total| *total > 0)
            .map_or(0.0, |total| made as f64 * 100.0 / total as f64)
            .floor()
            .to_string(),
        rate: rate.map_or_else(missing, |rate| format!("{rate:.1}")),
        eta: rate.zip(left).map_or_else(missing, |(rate, left)| format::duration_ms((left / rate * 60_000.0).max(0.0))),
        score: format::estimate(entry.and_then(|entry| entry.report.pass_at_1.as_ref())),
        unknown: format::count(unknown),
    }
}
