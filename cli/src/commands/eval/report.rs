//! `webdancer eval report`: the scores of runs.

use chrono::Utc;
use webdancer_eval::contamination::{self, Contamination};
use webdancer_eval::dashboard::export;
use webdancer_eval::prices::PriceList;
use webdancer_eval::render::{self, Axis, Mark, Table, legend, percent, plot, score};
use webdancer_eval::report::{Options, Report, agreement, report};
use webdancer_eval::run::{Run, of_runs};
use webdancer_eval::votes::{self, RulesAlone};
use webdancer_query::{QueryOptions, literal};

use super::reading::{no_attempts, options, prepare, runs_where, runs_with_over_action, write_file};
use crate::args::{EvalView, ReportArgs};
use crate::columns::query;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

pub(super) async fn run(context: &Context, args: &ReportArgs) -> Result<(), Failure> {
    let ReportArgs { runs: ids, benchmark, html, view } = args;
    prepare(context, view).await?;
    let benchmark = benchmark.as_deref();
    let condition = condition(ids, benchmark);
    // A line of several runs tells nothing of observations, and those of a whole lake are not read for any form.
    let is_named = !ids.is_empty() || benchmark.is_some();
    let is_full = is_named && (ids.len() == 1 || context.json || html.is_some());
    let mut runs = match is_full {
        true => runs_with_over_action(context, &condition).await?,
        false => runs_where(context, &condition).await?,
    };
    if !is_full && runs.len() == 1 {
        runs = runs_with_over_action(context, &condition).await?;
    }
    if let Some(unknown) = ids.iter().find(|id| !runs.iter().any(|run| run.run_id == **id)) {
        return Err(no_attempts(unknown));
    }
    if let (Some(name), true) = (benchmark, runs.is_empty()) {
        return Err(Failure::usage(format!("there are no attempts at questions of a benchmark {name:?}")));
    }
    if runs.is_empty() {
        crate::commands::filter::warn_of_no_trajectories(context).await?;
    }
    let mut agreements = agreement::agreements(&query(context, &agreement::sql(&condition)).await?)?;
    let mut equivalences = votes::judged(&query(context, &votes::sql(&condition)).await?)?;
    let prices = PriceList::new(&context.config.endpoints);
    let mut reports: Vec<Report> = runs
        .iter()
        .map(|run| {
            let options = Options { prices: prices.of_run(run), ..options(view) };
            let agreement = agreements.remove(&run.run_id).unwrap_or_default();
            match equivalences.remove(&run.run_id) {
                Some((known, votes)) => Report { agreement, votes: Some(votes), ..report(run, &options, &known) },
                None => Report { agreement, ..report(run, &options, &RulesAlone) },
            }
        })
        .collect();
    // What visits showed is much to read: it is looked through where a run is shown in full.
    if let ([run], [report]) = (runs.as_slice(), reports.as_mut_slice()) {
        report.contamination = contaminated(context, run, view).await?;
    }
    write_file(html.as_deref(), || export::reports(&reports, Utc::now()))?;
    show(context, &reports, view)
}

/// Which attempts saw their question or answer; None of a run that is not over a benchmark. A report is passed on, as a file or
/// as JSON: it has no address that a gated question led to.
async fn contaminated(context: &Context, run: &Run, view: &EvalView) -> Result<Option<Contamination>, Failure> {
    let rows = |sql: String| async move {
        Ok::<_, Failure>(context.job_engine()?.query(&sql, &QueryOptions::default()).await?)
    };
    let Some(mut looked) = contamination::look(run, rows).await? else { return Ok(None) };
    match contamination::look_at_pages(run, rows).await {
        Ok(found) => looked = looked.with_pages(&found),
        Err(why) => output::note(&format!("run {}: pages could not be looked through: {why}", run.run_id)),
    }
    Ok(Some(looked).map(|looked| contamination::contamination(run, looked, &options(view)).withheld(run)))
}

fn condition(ids: &[String], benchmark: Option<&str>) -> String {
    let runs = (!ids.is_empty()).then(|| of_runs(ids.iter().map(String::as_str)));
    let benchmark = benchmark.map(|name| format!("json_get_str(q.attributes, 'benchmark') = {}", literal::text(name)));
    let parts: Vec<String> = runs.into_iter().chain(benchmark).collect();
    if parts.is_empty() { NOT_TRAINING.to_string() } else { parts.join(" AND ") }
}

/// A trainer's rollouts are far more than all else, and are looked at by its metrics.
const NOT_TRAINING: &str = "coalesce(t.run_id, '') NOT IN (SELECT run_id FROM run_state WHERE kind IN ('sft', 'dapo'))";

/// One run in full; several as a table, a line each.
fn show(context: &Context, reports: &[Report], view: &EvalView) -> Result<(), Failure> {
    let file = view.svg.as_deref();
    if let [report] = reports {
        write_file(file, || report.svg())?;
        return match (context.json, view.markdown) {
            (true, _) => output::json(&reports),
            (false, true) => output::line(report.markdown().trim_end()),
            (false, false) => output::line(report.text().trim_end()),
        };
    }
    write_file(file, || plot_of_runs(reports))?;
    let tables = [table_of_runs(reports)];
    let notes: Vec<String> = legend(&tables).into_iter().collect();
    match (context.json, view.markdown) {
        (true, _) => output::json(&reports),
        (false, true) => output::line(render::markdown(&tables, None, &notes).trim_end()),
        (false, false) => output::line(render::text(&tables, None, &notes).trim_end()),
    }
}

fn table_of_runs(reports: &[Report]) -> Table {
    let columns = ["run", "policy", "judge", "questions", "attempts", "Pass@1, %", "Pass@k, %", "Maj@k, %", "known, %"];
    let mut table = Table::new("Runs", &columns);
    for report in reports {
        let last = report.at_k.last();
        let majority = last.and_then(|at| at.maj_at_k.as_ref());
        table.rows.push(vec![
            report.run_id.clone(),
            report.policies.join(", "),
            report.judges.join(", "),
            report.coverage.questions.to_string(),
            report.coverage.attempts.to_string(),
            score(report.pass_at_1.as_ref()),
            last.map_or_else(|| "–".to_string(), |at| format!("{}: {}", at.k, score(Some(&at.pass_at_k)))),
            majority.map_or_else(|| "–".to_string(), |majority| score(Some(majority))),
            percent(report.coverage.share()),
        ]);
    }
    table
}

fn plot_of_runs(reports: &[Report]) -> String {
    let marks: Vec<Mark> = reports
        .iter()
        .map(|report| Mark {
            label: report.title(),
            figure: score(report.pass_at_1.as_ref()),
            value: report.pass_at_1.map(|score| score.value),
            interval: report.pass_at_1.and_then(|score| score.interval),
        })
        .collect();
    plot("Pass@1 of runs", Axis::Share, &marks)
}
