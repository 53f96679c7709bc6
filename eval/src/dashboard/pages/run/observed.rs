//! What only the observations of a run tell: what was called after the answer had been seen, and what pages gave away.
//!
//! Observations are the largest part of a lake. They are read once for a run's attempts and questions, whatever else
//! changes. A page does not wait for them: it is shown without, and says so. Its JSON twin and its report as a file wait.

use std::collections::HashMap;
use std::sync::Arc;

use webdancer_schemas::kind::Kind;

use crate::attempts;
use crate::contamination::{self, Contamination, Flagged, Leak, Looked};
use crate::dashboard::board::{Entry, of_runs};
use crate::dashboard::fault::Fault;
use crate::dashboard::figures;
use crate::dashboard::request::{Asked, Form, path_part};
use crate::dashboard::state::Dashboard;
use crate::dashboard::table::{Cell, Column, Table};
use crate::report::{OverAction, Report, effort};
use crate::run::{Question, Run};

/// The id of the table.
const FLAGGED: &str = "flagged";

/// What was read.
#[derive(Debug)]
struct Read {
    /// Calls behind the observation in which the answer was first seen, by trajectory.
    calls_after_answer: HashMap<String, u64>,
    looked: Option<Looked>,
}

/// Pairs of an attempt and a page that are looked at: all that there can be, since they go by.
const PAIRS_MAX: u64 = u64::MAX / 2;
/// The tables that what is told rests on.
const RESTS_ON: [Kind; 5] = [Kind::Trajectory, Kind::Judgment, Kind::Qa, Kind::Run, Kind::Page];

/// What comes of it with the verdicts in force.
#[derive(Debug)]
struct Observed {
    over_action: Option<OverAction>,
    contamination: Option<Contamination>,
}

/// Adds to a report what observations tell, or a note that they are not told yet, or why not.
pub(super) async fn told(asked: &Asked, entry: &Entry, run: &Arc<Run>, report: &mut Report) {
    match observed(asked, entry, run).await {
        Ok(Some(observed)) => {
            report.effort.over_action = observed.over_action;
            let all = asked.app.restricted();
            let found = observed.contamination.clone();
            report.contamination = found.map(|found| if all { found } else { found.withheld(run) });
        }
        Ok(None) => report
            .notes
            .push("observations are being read for over-action and contamination: reload to see them".to_string()),
        Err(fault) => report.notes.push(format!(
            "over-action and contamination are not told: {fault}; `webdancer eval report --run {}` tells them",
            run.run_id
        )),
    }
}

/// None where a page would have to wait for it.
async fn observed(asked: &Asked, entry: &Entry, run: &Arc<Run>) -> Result<Option<Arc<Observed>>, Fault> {
    let settings = asked.app.settings();
    let wait = if waits(asked) { settings.query_time } else { settings.patience };
    let (app, of, rests_on) = (asked.app.clone(), run.clone(), entry.rests_on());
    let key = format!("observed {}", run.run_id);
    let made = asked.app.memo_within(wait, &key, &RESTS_ON, async move {
        // Of no table: trajectories never change, and the key says which ones and which questions these are.
        let read = app.memo(&format!("observations {rests_on}"), &[], read(app.clone(), of.clone())).await?.value;
        let behind = pages_behind(app.clone(), of.clone());
        let pages = match app.memo(&format!("pages behind {rests_on}"), &[Kind::Page], behind).await {
            Ok(found) => Some(found.value),
            Err(fault) => {
                tracing::warn!(run = of.run_id, "pages could not be looked through: {fault}");
                None
            }
        };
        let making = tokio::task::spawn_blocking(move || Observed::of(&app, &of, &read, pages.as_deref()));
        making.await.map_err(|error| Fault::failed("what observations tell cannot be computed", &error))
    });
    Ok(made.await?.map(|made| made.value))
}

/// Whether what is asked for has what observations tell.
fn waits(asked: &Asked) -> bool {
    let of = asked.query.get("of").unwrap_or_default();
    match asked.form {
        Form::Html => asked.query.get("download").is_some(),
        Form::Json => true,
        Form::Csv | Form::Parquet | Form::Svg => of == FLAGGED || of.starts_with(figures::PART),
    }
}

/// Looking for words in observations takes its time, which is not to be that of other pages.
async fn read(app: Dashboard, run: Arc<Run>) -> Result<Read, Fault> {
    let reading = tokio::task::spawn_blocking(move || {
        tokio::runtime::Handle::current().block_on(async { read_through(&app, &run).await })
    });
    reading.await.map_err(|error| Fault::failed("observations cannot be read", &error))?
}

async fn read_through(app: &Dashboard, run: &Run) -> Result<Read, Fault> {
    let sql = attempts::sql_with_over_action(&of_runs([run.run_id.as_str()]));
    let attempts = attempts::read(&app.batches(&sql).await?)?.into_iter();
    let seen = attempts.filter_map(|attempt| Some((attempt.trajectory_id, attempt.calls_after_answer?)));
    let rows = |sql: String| async move { app.query(&sql, app.settings().rows_max).await };
    Ok(Read { calls_after_answer: seen.collect(), looked: contamination::look(run, rows).await? })
}

/// Looking for words in pages, likewise.
async fn pages_behind(app: Dashboard, run: Arc<Run>) -> Result<Vec<Flagged>, Fault> {
    let reading = tokio::task::spawn_blocking(move || {
        let app = &app;
        let rows = |sql: String| async move { app.query(&sql, PAIRS_MAX).await };
        tokio::runtime::Handle::current().block_on(contamination::look_at_pages(&run, rows))
    });
    reading.await.map_err(|error| Fault::failed("pages cannot be read", &error))?
}

impl Observed {
    fn of(app: &Dashboard, run: &Run, read: &Read, pages: Option<&Vec<Flagged>>) -> Observed {
        let mut run = run.clone();
        for attempt in run.questions.iter_mut().flat_map(|question| &mut question.attempts) {
            attempt.calls_after_answer = read.calls_after_answer.get(&attempt.trajectory_id).copied();
        }
        let options = app.options(&run);
        let questions: Vec<&Question> = run.questions.iter().collect();
        let looked = read.looked.clone().map(|looked| match pages {
            Some(found) => looked.with_pages(found),
            None => looked,
        });
        Observed {
            over_action: effort(&questions, &options).over_action,
            contamination: looked.map(|looked| contamination::contamination(&run, looked, &options)),
        }
    }
}

/// The attempts that saw their question or answer; None where none did.
pub(super) fn table(report: &Report) -> Option<Table> {
    let flagged = report.contamination.as_ref().map(|found| &found.flagged).filter(|flagged| !flagged.is_empty())?;
    let columns = vec![
        Column::text("trajectory_id", "Attempt"),
        Column::text("qa_id", "Question"),
        Column::text("leak", "Had its"),
        Column::text("url", "On the page"),
    ];
    let mut table = Table::new(FLAGGED, "Attempts that saw their question or answer on a page", columns);
    for Flagged { trajectory_id, qa_id, url, leak } in flagged {
        let leak = match leak {
            Leak::Question => "question",
            Leak::Answer => "answer",
        };
        table.row(
            Some(format!("/trajectories/{}", path_part(trajectory_id))),
            vec![Cell::id(trajectory_id), Cell::id(qa_id), Cell::text(leak), Cell::long(url, 90)],
        );
    }
    Some(table)
}
