//! Two runs over the same questions: whether one is better, and which questions made it so.

use std::cmp::Ordering;

use maud::{Markup, html};
use serde_json::json;
use webdancer_schemas::kind::Kind;

use crate::compare::{Comparison, Flip, compare};
use crate::dashboard::board::{self, Board};
use crate::dashboard::chart::{Chart, Dot, Unit};
use crate::dashboard::fault::Fault;
use crate::dashboard::page::{Answer, Nav, Page, command};
use crate::dashboard::request::{Asked, Form, path_part, query_of};
use crate::dashboard::table::{Cell, Column, Table};
use crate::dashboard::{figures, format};
use crate::drift::web::{self, WebChange};
use crate::render::few;
use crate::report::Options;

/// Runs offered to choose from.
const OFFERED_MAX: usize = 200;

pub(super) async fn show(asked: Asked) -> Result<Answer, Fault> {
    let board = asked.app.board().await?;
    let (before, after) = (asked.query.get("before"), asked.query.get("after"));
    let (Some(before), Some(after)) = (before, after) else {
        return Ok(choose(&asked, &board.value, before, after));
    };
    let comparison = compared(&asked, before, after).await?;
    let mut page = Page::new("Compare", Nav::Runs).crumb("Runs", "/runs");
    page.behind(board.behind);
    let open = asked.app.restricted();
    let web = match asked.form {
        Form::Html | Form::Json => web_between(&asked, before, after).await,
        // A table or a chart has nothing of it.
        Form::Csv | Form::Parquet | Form::Svg => Ok(None),
    };
    let mut twin = json!(shown_to(&comparison, open));
    twin["web"] = json!(web.as_ref().ok());
    page.data(twin);
    let body = body(&asked, &comparison, web, &mut page)?;
    page.body(body);
    Ok(page.into())
}

async fn compared(asked: &Asked, before: &str, after: &str) -> Result<Comparison, Fault> {
    let (first, second) = (asked.app.run_of(before).await?.value, asked.app.run_of(after).await?.value);
    // The ids come from outside: a key must not be had by two pairs.
    let key = format!("compare {}", json!([before, after]));
    let made = asked.app.memo(&key, &board::KINDS, async move {
        let making = tokio::task::spawn_blocking(move || compare(&first, &second, &Options::default()));
        let made = making.await.map_err(|error| Fault::failed("the runs cannot be compared", &error))?;
        made.map_err(|refused| Fault::Wrong(refused.to_string()))
    });
    Ok(made.await?.value.as_ref().clone())
}

/// What of the web differed; None where a page would have to wait for it.
async fn web_between(asked: &Asked, before: &str, after: &str) -> Result<Option<WebChange>, Fault> {
    let settings = asked.app.settings();
    let wait = if asked.form == Form::Html { settings.patience } else { settings.query_time };
    let key = format!("web between {}", json!([before, after]));
    let (app, sql) = (asked.app.clone(), web::sql(before, after));
    let reading = async move {
        web::read(&app.batches(&sql).await?).map_err(|error| Fault::failed("what calls read cannot be told", &error))
    };
    let made = asked.app.memo_within(wait, &key, &[Kind::Trajectory], reading).await?;
    Ok(made.map(|made| *made.value))
}

/// Without questions of gated benchmarks, for those who may not see them.
fn shown_to(comparison: &Comparison, open: bool) -> Comparison {
    let mut shown = comparison.clone();
    if !open {
        for flips in [&mut shown.fixed, &mut shown.broken] {
            flips.retain(|flip| flip.question.is_some());
        }
    }
    shown
}

fn body(
    asked: &Asked,
    comparison: &Comparison,
    web: Result<Option<WebChange>, Fault>,
    page: &mut Page,
) -> Result<Markup, Fault> {
    let open = asked.app.restricted();
    let shown = shown_to(comparison, open);
    let withheld = comparison.fixed.len() + comparison.broken.len() - shown.fixed.len() - shown.broken.len();
    let chart = page.chart(chart(comparison), asked);
    let mut tables = Vec::new();
    for (at, table) in comparison.tables().into_iter().take(2).enumerate() {
        tables.push(page.table(figures::rendered(&format!("part-{}", at + 1), table), asked)?);
    }
    let fixed = page.table(flips("fixed", "Fixed", &shown.fixed), asked)?;
    let broken = page.table(flips("broken", "Broken", &shown.broken), asked)?;
    let swapped = [("before", comparison.after.run_id.as_str()), ("after", comparison.before.run_id.as_str())];
    Ok(html! {
        p.verdict { (decision(comparison)) }
        p { (comparison.verdict()) }
        @for note in comparison.told() { p.note { (note) } }
        p {
            "Before: " (link(&comparison.before.run_id)) " · after: " (link(&comparison.after.run_id)) " · "
            a href={ "/compare" (query_of(swapped)) } { "the other way round" }
        }
        @match &web {
            Ok(Some(web)) => { @if let Some(told) = web.sentence() { p { (told) } } }
            Ok(None) => { p.note { "What of the web differed is being read: reload to see it." } }
            Err(fault) => { p.note { "What of the web differed is not told: " (fault.to_string()) } }
        }
        p { "Why the score changed, the judge, the model or the web: " (command(&why(comparison))) }
        (chart)
        @for table in &tables { (table) }
        @if withheld > 0 { p.note { (Fault::restricted(format!("each of {withheld} changed questions of a gated benchmark")).to_string()) } }
        h2 { "Questions fixed" } (fixed)
        h2 { "Questions broken" } (broken)
    })
}

/// The command that takes the change apart: it may have to make runs for it.
fn why(comparison: &Comparison) -> String {
    format!("webdancer eval drift {} {}", comparison.before.run_id, comparison.after.run_id)
}

fn link(run: &str) -> Markup {
    html! { a href={ "/runs/" (path_part(run)) } { code { (run) } } }
}

/// *better*, *worse* or *can't tell*, with a sign that is no colour.
fn decision(comparison: &Comparison) -> String {
    let needs = || match comparison.minimum_detectable {
        Some(least) => format!("can't tell (needs ≥ {} points)", format::percent(least)),
        None => format!("can't tell ({})", comparison.unestimated().unwrap_or("too few questions")),
    };
    match comparison.difference.side(comparison.confidence) {
        Some(Ordering::Greater) => "▲ better".to_string(),
        Some(Ordering::Less) => "▼ worse".to_string(),
        _ => needs(),
    }
}

fn chart(comparison: &Comparison) -> Chart {
    let all = std::iter::once(("all questions".to_string(), &comparison.difference));
    let slices = comparison.slices.iter().map(|slice| (format!("{} {}", slice.by, slice.value), &slice.difference));
    let dots: Vec<Dot> = all
        .chain(slices)
        .map(|(label, difference)| Dot {
            label: format!("{label}{}", few(difference.clusters)),
            class: "k0",
            value: Some(difference.value),
            interval: difference.interval.map(|ends| (ends.low, ends.high)),
            hint: format!("n = {} questions in {} clusters", difference.questions, difference.clusters),
            href: None,
        })
        .collect();
    let questions = comparison.difference.questions;
    let caption = format!("Pass@1, after less before, in points with 95 % intervals, n = {questions} questions");
    let runs = [&comparison.before, &comparison.after].map(|side| side.run_id.as_str());
    Chart::dots("differences", &caption, Unit::Points, &dots).sql(figures::attempts_of(runs))
}

fn flips(id: &str, title: &str, flips: &[Flip]) -> Table {
    let columns = vec![
        Column::text("qa_id", "Question"),
        Column::text("question", "Text"),
        Column::number("before", "Before", "%"),
        Column::number("after", "After", "%"),
        Column::text("trajectories", "Trajectories"),
    ];
    let mut table = Table::new(id, title, columns).empty("None.", "webdancer eval compare BEFORE AFTER --json");
    for flip in flips {
        let first = |ids: &[String]| ids.first().cloned().unwrap_or_default();
        let (before, after) = (first(&flip.trajectories_before), first(&flip.trajectories_after));
        let beside = format!("/trajectories/{}{}", path_part(&after), query_of([("against", before.as_str())]));
        table.row(
            Some(beside.clone()),
            vec![
                Cell::id(&flip.qa_id),
                flip.question.as_deref().map_or_else(|| Cell::text("(gated)"), |text| Cell::long(text, 110)),
                Cell::percent(Some(flip.before)),
                Cell::percent(Some(flip.after)),
                Cell::text("side by side").linked(beside),
            ],
        );
    }
    table
}

/// Two lists to choose from: runs over the same benchmark, where one is known.
fn choose(asked: &Asked, board: &Board, before: Option<&str>, after: Option<&str>) -> Answer {
    let named = before.or(after).and_then(|id| board.runs.get(id)).map(|entry| entry.benchmark.as_str());
    let benchmark = asked.query.get("benchmark").or(named);
    let mut runs: Vec<_> =
        board.runs.values().filter(|entry| benchmark.is_none_or(|of| entry.benchmark == of)).collect();
    runs.sort_by_key(|entry| std::cmp::Reverse(entry.started()));
    runs.truncate(OFFERED_MAX);
    let list = |name: &str, title: &str, chosen: Option<&str>| {
        html! {
            label { (title) " "
                select name=(name) required {
                    option value="" { "choose a run" }
                    @for entry in &runs {
                        option value=(entry.report.run_id) selected[chosen == Some(entry.report.run_id.as_str())] {
                            (entry.benchmark) " · " (entry.policy()) " · " (entry.about.started.map(format::time).unwrap_or_default()) " · "
                            (format::estimate(entry.report.pass_at_1.as_ref())) " · " (format::short_id(&entry.report.run_id))
                        }
                    }
                }
            }
        }
    };
    let mut page = Page::new("Compare two runs", Nav::Runs).crumb("Runs", "/runs");
    page.data(json!(runs.iter().map(|entry| &entry.report.run_id).collect::<Vec<_>>()));
    page.body(html! {
        form action="/compare" method="get" {
            p { (list("before", "Before (the baseline):", before)) }
            p { (list("after", "After:", after)) }
            p { button type="submit" { "Compare" } }
        }
    });
    page.into()
}
