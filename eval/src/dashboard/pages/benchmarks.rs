//! Benchmarks: what there is of each, and how scores went over time.

use std::collections::BTreeMap;
use std::sync::Arc;

use maud::html;

use crate::dashboard::board::{Board, Entry};
use crate::dashboard::chart::{Chart, Lines, Marker, Point, Series, Unit};
use crate::dashboard::colour::Colours;
use crate::dashboard::fault::Fault;
use crate::dashboard::page::{Answer, Nav, Page};
use crate::dashboard::request::{Asked, path_part, query_of};
use crate::dashboard::table::{Cell, Column, Table};
use crate::dashboard::{figures, format};
use crate::published;

/// Lines of a trend: those with most runs.
const LINES_MAX: usize = 12;
/// Characters of settings beside a mark.
const SETTINGS_CHARS: usize = 80;

pub(super) async fn list(asked: Asked) -> Result<Answer, Fault> {
    let board = asked.app.board().await?;
    let columns = vec![
        Column::text("benchmark", "Benchmark"),
        Column::number("runs", "Runs", ""),
        Column::number("policies", "Policies", ""),
        Column::number("questions", "Questions", "at most"),
        Column::text("best", "Best"),
        Column::number("best_pass_at_1", "Its Pass@1", "%"),
        Column::time("last", "Last run, UTC"),
        Column::text("gated", "Gated"),
    ];
    let mut table = Table::new("benchmarks", "Benchmarks that were run", columns)
        .main()
        .empty("No benchmark has been run yet.", "webdancer eval fetch");
    for name in board.value.benchmarks() {
        let runs = board.value.of(name);
        let cells = board.value.cells();
        let of: Vec<&Arc<Entry>> = cells.iter().filter(|((_, of), _)| *of == name).map(|(_, entry)| *entry).collect();
        let value = |entry: &Entry| entry.report.pass_at_1.map_or(-1.0, |score| score.value);
        let best = of.iter().max_by(|a, b| value(a).total_cmp(&value(b)));
        let score = best.and_then(|entry| entry.report.pass_at_1.as_ref());
        let questions = runs.iter().map(|entry| entry.report.coverage.questions).max().unwrap_or(0);
        table.row(
            Some(format!("/benchmarks/{}", path_part(name))),
            vec![
                Cell::text(name),
                Cell::count(runs.len() as u64),
                Cell::count(of.len() as u64),
                Cell::count(questions as u64),
                best.map_or_else(Cell::missing, |entry| Cell::text(entry.policy())),
                Cell::estimate(score, best.map_or(0.95, |entry| entry.report.confidence)),
                Cell::time(runs.last().and_then(|entry| entry.about.started)),
                if runs.iter().any(|entry| entry.restricted) { Cell::text("gated") } else { Cell::missing() },
            ],
        );
    }
    let mut page = Page::new("Benchmarks", Nav::Benchmarks);
    page.behind(board.behind);
    let shown = page.table(table, &asked)?;
    page.body(html! { (shown) });
    Ok(page.into())
}

pub(super) async fn trend(asked: Asked) -> Result<Answer, Fault> {
    let name = asked.part("name").to_string();
    let board = asked.app.board().await?;
    let colours = asked.app.colours().await?;
    let runs = board.value.of(&name);
    if runs.is_empty() {
        let name = format::clipped(&name, 60);
        return Err(Fault::Missing(format!("no run over a benchmark {name:?}; /benchmarks lists those that were run")));
    }
    let mut page = Page::new(name.clone(), Nav::Benchmarks).crumb("Benchmarks", "/benchmarks");
    page.behind(board.behind);
    let chart = page.chart(chart(&name, &runs, &colours), &asked);
    let table = page.table(table(&runs, &colours), &asked)?;
    let newest = runs.last().map(|entry| entry.report.run_id.as_str()).unwrap_or_default();
    page.body(html! {
        (chart)
        p { "A line is a policy as runs were told it; the marks say where its checkpoint, the judge, the web, the questions or settings changed." }
        @if runs.len() > 1 { p { a href={ "/compare" (query_of([("benchmark", name.as_str()), ("after", newest)])) } { "Compare two of these runs" } } }
        (table)
    });
    Ok(page.into())
}

fn chart(name: &str, runs: &[&Arc<Entry>], colours: &Colours) -> Chart {
    let mut lines: BTreeMap<String, Vec<&Arc<Entry>>> = BTreeMap::new();
    let has_score = |entry: &&&Arc<Entry>| {
        entry.about.started.is_some() && entry.report.pass_at_1.is_some() && !entry.is_under_way()
    };
    for entry in runs.iter().filter(has_score) {
        lines.entry(entry.line()).or_default().push(entry);
    }
    let mut lines: Vec<(String, Vec<&Arc<Entry>>)> = lines.into_iter().collect();
    lines.sort_by_key(|(_, runs)| std::cmp::Reverse(runs.len()));
    let left_out = lines.len().saturating_sub(LINES_MAX);
    lines.truncate(LINES_MAX);
    let markers = lines.iter().flat_map(|(_, runs)| changes(runs)).collect();
    let ends = |points: &mut dyn Iterator<Item = f64>| {
        points.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)))
    };
    let mut series: Vec<Series> = lines.iter().map(|(name, runs)| line(name, runs, colours)).collect();
    let (first, last) = ends(&mut series.iter().flat_map(|line| &line.points).map(|point| point.x));
    if first <= last {
        series.extend(papers(name, first, last));
    }
    let points: usize = lines.iter().map(|(_, runs)| runs.len()).sum();
    let more =
        if left_out > 0 { format!("; {left_out} policies with fewer runs are in the table") } else { String::new() };
    let caption = format!("{name}: Pass@1 of {points} runs by their start, with 95 % intervals{more}");
    let drawn = lines.iter().flat_map(|(_, runs)| runs.iter()).map(|entry| entry.report.run_id.as_str());
    let sql = figures::scores_of(drawn, "cons(t.correct)");
    Chart::lines("trend", &caption, &Lines { x: None, unit: Unit::Share, series, markers }).sql(sql)
}

fn line(name: &str, runs: &[&Arc<Entry>], colours: &Colours) -> Series {
    let class = runs.last().map_or("k-none", |entry| colours.class(&entry.policy()));
    let points = runs.iter().filter_map(|entry| {
        let score = entry.report.pass_at_1?;
        Some(Point {
            x: entry.started().timestamp_millis() as f64,
            value: score.value,
            interval: score.interval.map(|ends| (ends.low, ends.high)),
            hint: format!("{} · {} · n = {}", format::time(entry.started()), entry.policy(), score.questions),
            href: Some(format!("/runs/{}", path_part(&entry.report.run_id))),
        })
    });
    Series { name: name.to_string(), class, points: points.collect() }
}

/// What changed from one run of a line to the next.
fn changes(runs: &[&Arc<Entry>]) -> Vec<Marker> {
    let mut markers = Vec::new();
    for (before, after) in runs.iter().zip(runs.iter().skip(1)) {
        // Runs of before settings were kept may have had the same.
        let known = before.about.settings_kept && after.about.settings_kept;
        let what = [
            (before.policy() != after.policy(), "checkpoint", after.policy()),
            (before.judge() != after.judge(), "judge", after.judge()),
            (before.about.web != after.about.web, "web", after.about.web.clone().unwrap_or_default()),
            (known && before.about.endpoint != after.about.endpoint, "endpoint adds", said(&after.about.endpoint)),
            (known && before.about.summariser != after.about.summariser, "summariser", said(&after.about.summariser)),
            (known && before.about.services != after.about.services, "services", said(&after.about.services)),
            (
                before.about.benchmark_digest != after.about.benchmark_digest,
                "questions",
                after.about.benchmark_digest.as_deref().map(format::short_id).unwrap_or_default(),
            ),
            (
                before.about.questions != after.about.questions,
                "number of questions",
                after.about.questions.map(format::count).unwrap_or_default(),
            ),
        ];
        let what: Vec<String> =
            what.into_iter().filter(|(changed, ..)| *changed).map(|(_, what, to)| format!("{what}: {to}")).collect();
        if !what.is_empty() {
            markers.push(Marker { x: after.started().timestamp_millis() as f64, label: what.join("; ") });
        }
    }
    markers
}

fn said(what: &Option<String>) -> String {
    what.as_deref().map_or_else(|| "none".to_string(), |what| format::clipped(what, SETTINGS_CHARS))
}

/// The paper's scores as level lines.
fn papers(benchmark: &str, first: f64, last: f64) -> Vec<Series> {
    let of = |row: &published::Published, x: f64| Point {
        x,
        value: row.pass_at_1,
        hint: published::SOURCE.to_string(),
        ..Point::default()
    };
    let rows = published::ROWS.iter().filter(|row| row.benchmark == benchmark && row.policy.starts_with("WebDancer"));
    rows.map(|row| Series {
        name: format!("{} · published", row.policy),
        class: "published",
        points: vec![of(row, first), of(row, last)],
    })
    .collect()
}

fn table(runs: &[&Arc<Entry>], colours: &Colours) -> Table {
    let columns = vec![
        Column::text("run_id", "Run"),
        Column::time("started", "Started, UTC"),
        Column::text("policy", "Policy"),
        Column::number("pass_at_1", "Pass@1", "%"),
        Column::number("k", "k", ""),
        Column::number("pass_at_k", "Pass@k", "%"),
        Column::number("maj_at_k", "Maj@k", "%"),
        Column::number("questions", "n", "questions"),
        Column::number("coverage", "Known", "%"),
        Column::text("judge", "Judge"),
        Column::text("web", "Web"),
        Column::text("state", "State"),
        Column::text("digest", "Questions' digest").hidden(),
        Column::text("code_version", "Code").hidden(),
    ];
    let mut table = Table::new("runs", "Runs", columns).main();
    for entry in runs.iter().rev() {
        let report = &entry.report;
        let at_k = report.at_k.last();
        let score = |of| Cell::estimate(of, report.confidence);
        table.row(
            Some(format!("/runs/{}", path_part(&report.run_id))),
            vec![
                Cell::id(&report.run_id),
                Cell::time(entry.about.started),
                Cell::policy(&entry.policy(), colours.class(&entry.policy())),
                score(report.pass_at_1.as_ref()),
                Cell::count(report.attempts_each),
                score(at_k.map(|at| &at.pass_at_k)),
                score(at_k.and_then(|at| at.maj_at_k.as_ref())),
                Cell::count(report.coverage.questions as u64),
                Cell::percent(Some(report.coverage.share())),
                Cell::text(entry.judge()),
                Cell::maybe(entry.about.web.as_deref()),
                Cell::maybe(entry.about.state.as_deref()),
                entry.about.benchmark_digest.as_deref().map_or_else(Cell::missing, Cell::id),
                Cell::maybe(entry.about.code_version.as_deref()),
            ],
        );
    }
    table
}

/// The run before this one over the same benchmark: by the same policy as it was told, or else by any.
pub(super) fn before<'b>(board: &'b Board, entry: &Entry) -> Option<&'b Arc<Entry>> {
    let earlier =
        |other: &&Arc<Entry>| other.report.run_id != entry.report.run_id && other.started() <= entry.started();
    let runs = board.of(&entry.benchmark);
    let mut earlier = runs.into_iter().rev().filter(earlier).peekable();
    let any = earlier.peek().copied();
    earlier.find(|other| other.line() == entry.line()).or(any)
}
