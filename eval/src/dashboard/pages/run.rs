//! A run: its scores, what they rest on, every question with its attempts, and what it takes to make it again.

mod live;
mod matrix;
mod observed;

use std::sync::Arc;

use maud::{Markup, html};
use serde_json::{Map, Value, json};

use crate::dashboard::board::{self, Board, Entry, of_runs};
use crate::dashboard::fault::Fault;
use crate::dashboard::page::{self, Answer, Nav, Page, command, facts};
use crate::dashboard::request::{Asked, Form, path_part, query_of};
use crate::dashboard::{export, figures, format};
use crate::report::{Report, agreement};
use crate::run::Run;

pub(super) use live::live;

/// Characters of a configuration on the page; the JSON twin has all.
const CONFIG_MAX: usize = 20_000;

/// A run with everything that its page shows.
struct Shown {
    id: String,
    /// Its row of `run_state`; none of attempts that no run event names.
    state: Map<String, Value>,
    entry: Option<Arc<Entry>>,
    /// Its attempts and figures; None of one that made none, or too many.
    scored: Option<Scored>,
}

struct Scored {
    run: Arc<Run>,
    report: Report,
}

pub(super) async fn show(asked: Asked) -> Result<Answer, Fault> {
    let id = asked.part("id").to_string();
    let board = asked.app.board().await?;
    let shown = read(&asked, &id, &board.value).await?;
    if asked.query.get("download") == Some("report") {
        return report_file(&asked, &shown);
    }
    let mut page = Page::new(title(&shown), Nav::Runs).crumb("Runs", "/runs");
    page.behind(board.behind);
    page.data(twin(&asked, &shown));
    let body = body(&asked, &shown, &board.value, &mut page)?;
    page.body(body);
    Ok(page.into())
}

/// Tables of a download need no more than the page; its JSON twin has every question.
async fn read(asked: &Asked, id: &str, board: &Board) -> Result<Shown, Fault> {
    let state = board::run_state(&asked.app, id).await?;
    let entry = board.runs.get(id).cloned();
    if state.is_none() && entry.is_none() {
        let id = format::clipped(id, 60);
        return Err(Fault::Missing(format!("there is no run {id:?}; /runs lists those that there are")));
    }
    let attempts = entry.as_ref().map_or(0, |entry| entry.report.coverage.attempts);
    let mut scored = match attempts {
        1.. if attempts <= asked.app.settings().attempts_max => scored(asked, id).await?,
        _ => None,
    };
    if let (Some(Scored { run, report }), Some(entry)) = (&mut scored, &entry) {
        observed::told(asked, entry, run, report).await;
    }
    Ok(Shown { id: id.to_string(), state: state.unwrap_or_default(), entry, scored })
}

async fn scored(asked: &Asked, id: &str) -> Result<Option<Scored>, Fault> {
    let run = asked.app.run_of(id).await?.value;
    let statement = agreement::sql(&of_runs([id]));
    let app = asked.app.clone();
    let key = format!("agreement {id}");
    let agreement =
        asked.app.memo(&key, &board::KINDS, async move { Ok(agreement::agreements(&app.batches(&statement).await?)?) });
    let agreement = agreement.await?.value.get(id).cloned().unwrap_or_default();
    let (app, key, of) = (asked.app.clone(), format!("report {id}"), run.clone());
    let made = asked.app.memo(&key, &board::KINDS, async move {
        let options = app.options(&of);
        let votes = app.votes([of.run_id.as_str()]).await?.remove(&of.run_id).unwrap_or_default();
        let making = tokio::task::spawn_blocking(move || votes.report(&of, &options));
        making.await.map_err(|error| Fault::failed("the scores cannot be computed", &error))
    });
    let report = Report { agreement, ..made.await?.value.as_ref().clone() };
    Ok(Some(Scored { run, report }))
}

fn title(shown: &Shown) -> String {
    match &shown.entry {
        Some(entry) => format!("{} on {}", entry.policy(), entry.benchmark),
        None => format!("{} run", text(shown, "kind").unwrap_or("unnamed")),
    }
}

fn text<'s>(shown: &'s Shown, name: &str) -> Option<&'s str> {
    shown.state.get(name).and_then(Value::as_str)
}

fn config(shown: &Shown) -> Option<Value> {
    serde_json::from_str(text(shown, "config")?).ok()
}

fn twin(asked: &Asked, shown: &Shown) -> Value {
    let mut state = shown.state.clone();
    if let Some(config) = config(shown) {
        state.insert("config".to_string(), config);
    }
    let report = shown.scored.as_ref().map(|scored| &scored.report);
    let report = report.or_else(|| shown.entry.as_ref().map(|entry| &entry.report));
    let questions = shown.scored.as_ref().map(|scored| matrix::json(asked, &scored.run));
    json!({
        "run_id": shown.id,
        "benchmark": shown.entry.as_ref().map(|entry| &entry.benchmark),
        "run": state,
        "report": report,
        "questions": questions,
    })
}

fn body(asked: &Asked, shown: &Shown, board: &Board, page: &mut Page) -> Result<Markup, Fault> {
    let scores = match &shown.scored {
        Some(scored) => scores(asked, scored, page)?,
        None => unscored(asked, shown, page)?,
    };
    Ok(html! {
        (about(shown))
        (live::panel(shown))
        (ways(asked, shown, board))
        (scores)
        (settings(shown))
    })
}

fn about(shown: &Shown) -> Markup {
    let about = shown.entry.as_ref().map(|entry| &entry.about);
    let maybe = |text: Option<&str>| html! { (text.unwrap_or(format::MISSING)) };
    let time = |name: &str| {
        let at = text(shown, name).and_then(format::parsed_time);
        html! { @match at { Some(at) => { time datetime=(format::exact_time(at)) title=(format::exact_time(at)) { (format::time(at)) } }, None => { (format::MISSING) } } }
    };
    let linked = |name: &str, under: &str| {
        html! { @match text(shown, name) { Some(id) => { a href={ (under) (path_part(id)) } { code { (format::short_id(id)) } } (page::copy(id)) }, None => { (format::MISSING) } } }
    };
    let error = text(shown, "error").map(|error| html! { span.error { "! " } (error) });
    let mut told = vec![
        ("Run", page::id(&shown.id)),
        ("Kind", maybe(text(shown, "kind"))),
        ("State", maybe(text(shown, "state"))),
        ("Started, UTC", time("started")),
        ("Last told, UTC", time("updated")),
        ("Code", maybe(text(shown, "code_version"))),
        ("Seed", maybe(shown.state.get("seed").map(Value::to_string).as_deref())),
        ("Pin", linked("pin_id", "/pins/")),
        ("From run", linked("parent_run", "/runs/")),
    ];
    if let Some(entry) = &shown.entry {
        told.push((
            "Benchmark",
            html! { a href={ "/benchmarks/" (path_part(&entry.benchmark)) } { (entry.benchmark) } },
        ));
        told.push(("Questions' digest", maybe(about.and_then(|about| about.benchmark_digest.as_deref()))));
        told.push(("Policy", html! { (entry.policy()) }));
        told.push(("Web", maybe(about.and_then(|about| about.web.as_deref()))));
        told.push(("Judge", html! { (entry.judge()) }));
    }
    told.extend(error.map(|error| ("Error", error)));
    facts(told)
}

/// Where to go from here, and what it takes to make the run again.
fn ways(asked: &Asked, shown: &Shown, board: &Board) -> Markup {
    let id = &shown.id;
    let before = shown.entry.as_ref().and_then(|entry| super::benchmarks::before(board, entry));
    let trajectories = query_of([("f.run_id", format!("={id}").as_str())]);
    html! {
        p {
            @if let Some(before) = before {
                a href={ "/compare" (query_of([("before", before.report.run_id.as_str()), ("after", id)])) } { "Compare with the run before" } " · "
            }
            @if shown.entry.is_some() {
                a href={ "/trajectories" (trajectories) } { "Trajectories" } " · "
                a href=(asked.with("download", Some("report"))) { "Report as one file" } " · "
            }
            @if matches!(text(shown, "kind"), Some("sft" | "dapo")) { a href={ "/training/" (path_part(id)) } { "Curves" } " · " }
            a href={ "/lineage/" (path_part(id)) } { "Lineage" }
        }
        @if shown.entry.is_some() {
            p { "Make it again: " (command(&format!("webdancer reproduce {id}"))) }
        }
    }
}

/// Of a run of more attempts than are gone through one by one: what the leaderboard has of it.
fn unscored(asked: &Asked, shown: &Shown, page: &mut Page) -> Result<Markup, Fault> {
    let Some(entry) = &shown.entry else { return Ok(html! {}) };
    let report = &entry.report;
    let attempts = report.coverage.attempts;
    if attempts == 0 {
        return Ok(html! { p.empty { "No attempt has been recorded yet." } });
    }
    let summary = page.table(figures::scores(report), asked)?;
    let ends = page.chart(figures::terminations(report), asked);
    let mut others = Vec::new();
    for table in figures::others(report) {
        others.push(page.table(table, asked)?);
    }
    Ok(html! {
        p.note {
            (format::count(attempts)) " attempts are more than this page goes through one by one: the kinds of questions and what came of \
            each are left out. " (command(&format!("webdancer eval report --run {}", shown.id)))
        }
        h2 { "Scores" } (summary)
        h2 { "Why attempts ended" } (ends)
        h2 { "What it took" } @for table in &others { (table) }
    })
}

fn scores(asked: &Asked, scored: &Scored, page: &mut Page) -> Result<Markup, Fault> {
    let report = &scored.report;
    let summary = page.table(figures::scores(report), asked)?;
    let charts: Vec<Markup> = figures::breakdowns(report).into_iter().map(|chart| page.chart(chart, asked)).collect();
    let ends = page.chart(figures::terminations(report), asked);
    let heat = matrix::heat(asked, &scored.run).map(|heat| page.chart(heat, asked));
    let matrix = matrix::table(asked, &scored.run);
    let matrix = page.table(matrix.sql(figures::attempts_of([scored.run.run_id.as_str()])), asked)?;
    let mut others = Vec::new();
    for table in figures::others(report) {
        others.push(page.table(table, asked)?);
    }
    let flagged = observed::table(report).map(|table| page.table(table, asked)).transpose()?;
    Ok(html! {
        @for note in report.told() { p.note { (note) } }
        h2 { "Scores" } (summary)
        @if !charts.is_empty() { h2 { "By kind of question" } div.small { @for chart in &charts { (chart) } } }
        h2 { "Questions and attempts" } (matrix::withheld(asked, &scored.run))
        @if let Some(heat) = heat { (heat) }
        (matrix)
        h2 { "Why attempts ended" } (ends)
        h2 { "What it took" } @for table in &others { (table) }
        @if let Some(flagged) = flagged { (flagged) }
    })
}

fn settings(shown: &Shown) -> Markup {
    let Some(config) = config(shown) else { return html! {} };
    let text = serde_json::to_string_pretty(&config).unwrap_or_default();
    let cut = text.chars().count() > CONFIG_MAX;
    html! {
        h2 { "Configuration" }
        details {
            summary { "As the run was begun with" }
            pre tabindex="0" { (format::clipped(&text, CONFIG_MAX)) }
            @if cut { p { "The JSON twin has all of it." } }
        }
    }
}

fn report_file(asked: &Asked, shown: &Shown) -> Result<Answer, Fault> {
    let Some(scored) = shown.scored.as_ref().filter(|_| asked.form == Form::Html) else {
        let attempts = shown.entry.as_ref().map_or(0, |entry| entry.report.coverage.attempts);
        return Err(Fault::Missing(match attempts {
            0 => "this run has no attempts to report on".to_string(),
            _ => format!("a report goes through all attempts: `webdancer eval report --run {} --html FILE`", shown.id),
        }));
    };
    let file = export::reports(std::slice::from_ref(&scored.report), (asked.app.settings().now)());
    Ok(Answer::file(&format!("report-{}.html", shown.id), "text/html; charset=utf-8", file.into_bytes()))
}
