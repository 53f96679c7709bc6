//! Policies by benchmarks: who is better, with intervals, what it cost, and the paper's rows beside ours.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use maud::{Markup, html};

use crate::dashboard::board::{Board, Entry};
use crate::dashboard::chart::{Chart, Dot, Unit};
use crate::dashboard::colour::Colours;
use crate::dashboard::fault::Fault;
use crate::dashboard::page::{Answer, Nav, Page, empty};
use crate::dashboard::request::{Asked, path_part};
use crate::dashboard::sql::text;
use crate::dashboard::table::{Cell, Column, Table};
use crate::dashboard::{figures, format};
use crate::published::{self, Published};
use crate::stats::mean::Estimate;

/// Which score the matrix shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Score {
    PassAt1,
    PassAtK,
    Maj,
    PassHat,
}

const SCORES: [(Score, &str, &str); 4] = [
    (Score::PassAt1, "pass_at_1", "Pass@1"),
    (Score::PassAtK, "pass_at_k", "Pass@k"),
    (Score::Maj, "maj_at_k", "Maj@k"),
    (Score::PassHat, "pass_hat_k", "pass^k"),
];

impl Score {
    fn of(self, entry: &Entry) -> Option<&Estimate> {
        let at_k = entry.report.at_k.last();
        match self {
            Score::PassAt1 => entry.report.pass_at_1.as_ref(),
            Score::PassAtK => at_k.map(|at| &at.pass_at_k),
            Score::Maj => at_k.and_then(|at| at.maj_at_k.as_ref()),
            Score::PassHat => at_k.and_then(|at| at.pass_hat_k.as_ref()),
        }
    }

    /// SQL for what a question is worth, by its attempts in `evaluations`; `k` is SQL for the number of attempts.
    fn of_question(self, k: &str) -> String {
        match self {
            Score::PassAt1 => "cons(t.correct)".to_string(),
            Score::PassAtK => format!("pass_at_k(t.correct, {k})"),
            // An answer that declines is no vote.
            Score::Maj => format!("maj_at_k(CASE WHEN t.attempted IS NOT false THEN t.answer END, t.correct, {k})"),
            Score::PassHat => format!("pass_hat_k(t.correct, {k})"),
        }
    }

    fn published(self, row: &Published) -> Option<f64> {
        match self {
            Score::PassAt1 => Some(row.pass_at_1),
            Score::PassAtK => row.pass_at_3,
            Score::Maj | Score::PassHat => None,
        }
    }
}

/// Charts on the page: one for each of so many benchmarks.
const CHARTS_MAX: usize = 12;

pub(super) async fn show(asked: Asked) -> Result<Answer, Fault> {
    let wanted = asked.query.get("score").unwrap_or("pass_at_1");
    let (score, _, score_name) = *SCORES.iter().find(|(_, name, _)| *name == wanted).ok_or_else(|| {
        let names: Vec<&str> = SCORES.iter().map(|(_, name, _)| *name).collect();
        Fault::Wrong(format!("there is no score {:?}; there are {}", format::clipped(wanted, 40), names.join(", ")))
    })?;
    let board = asked.app.board().await?;
    let colours = asked.app.colours().await?;
    let mut page = Page::new("Leaderboard", Nav::Leaderboard);
    page.behind(board.behind);
    if board.value.left_out > 0 {
        page.note(format!("{} older runs are not on the board: it has the latest.", board.value.left_out));
    }
    let matrix = page.table(matrix(&board.value, score, score_name, &colours), &asked)?;
    let cells = page.table(cells(&board.value, &colours), &asked)?;
    let mut charts = Vec::new();
    for (number, benchmark) in board.value.benchmarks().into_iter().take(CHARTS_MAX).enumerate() {
        let id = format!("chart-{}", number + 1);
        charts.push(page.chart(dots(&id, &board.value, benchmark, score, score_name, &colours), &asked));
    }
    page.body(html! {
        @if board.value.runs.is_empty() {
            (empty("No run has been scored yet: these are the paper's rows.", "webdancer eval run atlas --policy scripted --attempts 3"))
        }
        p { "Score: " @for (at, (_, name, title)) in SCORES.iter().enumerate() {
            @if at > 0 { " · " }
            a href=(asked.with("score", Some(name))) aria-current=[(*name == wanted).then_some("true")] { (title) }
        } ". k is the number of attempts of the run. A policy stands for a benchmark with its latest run over most questions, of those that are judged whole. The SQL of a chart sees what is recorded: not which answers a judge held for the same in a vote, nor attempts that were not made." }
        (matrix)
        h2 { "By benchmark" }
        div.small { @for chart in &charts { (chart) } }
        h2 { "Every policy and benchmark" }
        (cells)
        p.n { "Published rows are from " (published::SOURCE) "; intervals of GAIA's are ours, of its counts by level." }
    });
    Ok(page.into())
}

fn run_link(entry: &Entry) -> String {
    format!("/runs/{}", path_part(&entry.report.run_id))
}

fn published_name(row: &Published) -> Markup {
    html! { span.policy { span.swatch.published aria-hidden="true" {} (row.policy) " · published" } }
}

fn published_cell(row: &Published) -> Cell {
    Cell::marked(format!("{} (published)", row.policy), published_name(row)).hinted(published::SOURCE)
}

fn matrix(board: &Board, score: Score, score_name: &str, colours: &Colours) -> Table {
    let ours = board.benchmarks();
    let mut benchmarks: Vec<&str> = ours.iter().copied().collect();
    benchmarks.extend(
        published::ROWS.iter().map(|row| row.benchmark).filter(|name| !ours.contains(name)).collect::<BTreeSet<_>>(),
    );
    let mut columns = vec![Column::text("policy", "Policy")];
    columns.extend(benchmarks.iter().map(|name| Column::number(*name, *name, "%")));
    let caption = format!("{score_name} by policy and benchmark, ± half the 95 % interval");
    let mut table = Table::new("leaderboard", caption, columns).main();
    let cells = board.cells();
    let policies: BTreeSet<&String> = cells.keys().map(|(policy, _)| policy).collect();
    for policy in policies {
        let mut row = vec![Cell::policy(policy, colours.class(policy))];
        row.extend(benchmarks.iter().map(|name| match cells.get(&(policy.clone(), *name)) {
            Some(entry) => score_cell(entry, score).linked(run_link(entry)),
            None => Cell::missing(),
        }));
        table.row(None, row);
    }
    let mut papers: BTreeMap<&str, Vec<&Published>> = BTreeMap::new();
    published::ROWS.iter().for_each(|row| papers.entry(row.policy).or_default().push(row));
    for rows in papers.values() {
        let Some(first) = rows.first() else { continue };
        let mut row = vec![published_cell(first)];
        row.extend(benchmarks.iter().map(|name| {
            let found = rows.iter().find(|row| row.benchmark == *name);
            found.map_or_else(Cell::missing, |row| published_score(row, score))
        }));
        table.row(None, row);
    }
    table
}

fn score_cell(entry: &Entry, score: Score) -> Cell {
    let cell = Cell::estimate(score.of(entry), entry.report.confidence);
    let unknown = entry.report.coverage.unknown;
    match score.of(entry) {
        None if unknown > 0 => Cell::errors(unknown).hinted("attempts without a verdict"),
        Some(estimate) => {
            let known = format::percent(entry.report.coverage.share());
            let hint = format::estimate_hint(estimate, entry.report.confidence);
            cell.hinted(format!("{hint}; {known} % of attempts have a verdict; judged by {}", entry.judge()))
        }
        None => cell,
    }
}

fn published_score(row: &Published, score: Score) -> Cell {
    let Some(value) = score.published(row) else { return Cell::missing() };
    let interval = row.interval(0.95).filter(|_| score == Score::PassAt1);
    let shown = match interval {
        Some(ends) => format!("{} ± {}", format::percent(value), format::percent((ends.high - ends.low) / 2.0)),
        None => format::percent(value),
    };
    let counts = row.counts.map_or_else(String::new, |(correct, of)| format!(", {correct} of {of}"));
    Cell::new(value, shown).hinted(format!("published: {}{counts}", published::SOURCE))
}

fn cells(board: &Board, colours: &Colours) -> Table {
    let columns = vec![
        Column::text("policy", "Policy"),
        Column::text("benchmark", "Benchmark"),
        Column::number("pass_at_1", "Pass@1", "%"),
        Column::number("k", "k", ""),
        Column::number("pass_at_k", "Pass@k", "%"),
        Column::number("cons_at_k", "Cons@k", "%"),
        Column::number("maj_at_k", "Maj@k", "%"),
        Column::number("pass_hat_k", "pass^k", "%"),
        Column::number("questions", "n", "questions"),
        Column::number("coverage", "Known", "%"),
        Column::number("cost", "Cost", ""),
        Column::number("tokens", "Tokens written", ""),
        Column::number("seconds", "Time p50", ""),
        Column::text("judge", "Judge"),
        Column::text("run_id", "Run"),
        Column::time("started", "Started, UTC"),
        Column::number("pass_at_1_low", "Pass@1 from", "%").hidden(),
        Column::number("pass_at_1_high", "Pass@1 to", "%").hidden(),
        Column::number("errors", "No verdict", "").hidden(),
        Column::text("web", "Web").hidden(),
    ];
    let mut table = Table::new("cells", "The run of each policy and benchmark", columns);
    for entry in board.cells().values() {
        table.row(Some(run_link(entry)), cells_of(entry, colours));
    }
    for row in published::ROWS {
        let at_1 = published_score(&row, Score::PassAt1);
        let at_3 = published_score(&row, Score::PassAtK);
        let ends = row.interval(0.95);
        let mut cells = vec![published_cell(&row), Cell::text(row.benchmark), at_1];
        cells.push(row.pass_at_3.map_or_else(Cell::missing, |_| Cell::count(3)));
        cells.push(at_3);
        cells.extend((0..3).map(|_| Cell::missing()));
        cells.push(row.counts.map_or_else(Cell::missing, |(_, questions)| Cell::count(questions)));
        cells.extend((0..7).map(|_| Cell::missing()));
        cells.push(Cell::percent(ends.map(|ends| ends.low)));
        cells.push(Cell::percent(ends.map(|ends| ends.high)));
        cells.extend((0..2).map(|_| Cell::missing()));
        table.row(None, cells);
    }
    table
}

fn cells_of(entry: &Entry, colours: &Colours) -> Vec<Cell> {
    let report = &entry.report;
    let at_k = report.at_k.last();
    let estimate = |estimate: Option<&Estimate>| Cell::estimate(estimate, report.confidence);
    // With k = n the paper's Cons@k is the mean of the share correct.
    let cons = report.pass_at_1.as_ref().filter(|_| report.attempts_each > 1);
    let ends = report.pass_at_1.and_then(|score| score.interval);
    vec![
        Cell::policy(&entry.policy(), colours.class(&entry.policy())),
        Cell::text(entry.benchmark.clone()).linked(format!("/benchmarks/{}", path_part(&entry.benchmark))),
        estimate(report.pass_at_1.as_ref()),
        Cell::count(report.attempts_each),
        estimate(at_k.map(|at| &at.pass_at_k)),
        estimate(cons),
        estimate(at_k.and_then(|at| at.maj_at_k.as_ref())),
        estimate(at_k.and_then(|at| at.pass_hat_k.as_ref())),
        Cell::count(report.coverage.questions as u64),
        Cell::percent(Some(report.coverage.share())),
        Cell::money(report.effort.cost),
        Cell::quantity(Some(report.effort.output_tokens as f64)),
        Cell::duration_ms(report.effort.wall_ms.map(|spread| spread.p50)),
        Cell::text(entry.judge()),
        Cell::id(&report.run_id),
        Cell::time(entry.about.started),
        Cell::percent(ends.map(|ends| ends.low)),
        Cell::percent(ends.map(|ends| ends.high)),
        Cell::errors(report.coverage.unknown),
        Cell::maybe(entry.about.web.as_deref()),
    ]
}

fn dots(id: &str, board: &Board, benchmark: &str, score: Score, score_name: &str, colours: &Colours) -> Chart {
    let cells = board.cells();
    let mut entries: Vec<(&String, &Arc<Entry>)> =
        cells.iter().filter(|((_, of), _)| *of == benchmark).map(|((policy, _), entry)| (policy, *entry)).collect();
    let value = |entry: &Entry| score.of(entry).map_or(-1.0, |estimate| estimate.value);
    entries.sort_by(|a, b| value(b.1).total_cmp(&value(a.1)));
    let statement = sql(entries.iter().map(|(_, entry)| *entry), score);
    let ours = entries.into_iter().map(|(policy, entry)| {
        let estimate = score.of(entry);
        Dot {
            label: policy.clone(),
            class: colours.class(policy),
            value: estimate.map(|of| of.value),
            interval: estimate.and_then(|of| of.interval).map(|ends| (ends.low, ends.high)),
            hint: estimate.map_or_else(String::new, |of| format::estimate_hint(of, entry.report.confidence)),
            href: Some(run_link(entry)),
        }
    });
    let papers = published::ROWS.iter().filter(|row| row.benchmark == benchmark).map(|row| Dot {
        label: format!("{} · published", row.policy),
        class: "published",
        value: score.published(row),
        interval: row.interval(0.95).filter(|_| score == Score::PassAt1).map(|ends| (ends.low, ends.high)),
        hint: published::SOURCE.to_string(),
        href: None,
    });
    let dots: Vec<Dot> = ours.chain(papers.filter(|dot| dot.value.is_some())).take(40).collect();
    let questions = board.of(benchmark).iter().map(|entry| entry.report.coverage.questions).max().unwrap_or(0);
    let caption = format!("{benchmark}: {score_name} with 95 % intervals, n up to {questions} questions");
    Chart::dots(id, &caption, Unit::Share, &dots).sql(statement)
}

/// The query for what a chart shows of runs, each with its own k.
fn sql<'e>(entries: impl Iterator<Item = &'e Arc<Entry>>, score: Score) -> String {
    let scored = entries.filter(|entry| score.of(entry).is_some());
    let ks: BTreeMap<&str, u64> =
        scored.map(|entry| (entry.report.run_id.as_str(), entry.report.at_k.last().map_or(1, |at| at.k))).collect();
    let when = |(run, k): (&&str, &u64)| format!("WHEN {} THEN {k}", text(run));
    let k = match ks.values().collect::<BTreeSet<_>>().len() {
        0 | 1 => ks.values().next().unwrap_or(&1).to_string(),
        _ => format!("CASE coalesce(t.run_id, '') {} END", ks.iter().map(when).collect::<Vec<_>>().join(" ")),
    };
    figures::scores_of(ks.into_keys(), &score.of_question(&k))
}
