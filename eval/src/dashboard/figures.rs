//! A report's figures as tables and charts: what a run's page and an exported file both show; and the SQL behind figures.

use super::board::of_runs;
use super::chart::{Bar, Chart, Dot, Unit};
use super::format;
use super::table::{Cell, Column, Table};
use crate::attempts;
use crate::render;
use crate::report::{Report, Slice};
use crate::stats::mean::Estimate;

/// What the ids of a report's further tables begin with.
pub(super) const PART: &str = "part-";

/// The query for the attempts of runs, from which their figures are computed.
pub(super) fn attempts_of<'a>(runs: impl IntoIterator<Item = &'a str>) -> String {
    format!("-- The attempts that the figures are computed from.\n{}", attempts::sql(&of_runs(runs)))
}

/// The query for a score of runs. `of_question` is SQL for that of a question, by its attempts in `evaluations`.
pub(super) fn scores_of<'a>(runs: impl IntoIterator<Item = &'a str>, of_question: &str) -> String {
    format!(
        "SELECT run_id, avg(score) AS score, count(score) AS questions\n\
         FROM (SELECT t.run_id, t.qa_id, {of_question} AS score FROM evaluations AS t\n      \
         WHERE {} GROUP BY t.run_id, t.qa_id)\n\
         GROUP BY run_id ORDER BY score DESC",
        of_runs(runs)
    )
}

/// The scores of a run, one a line.
pub(super) fn scores(report: &Report) -> Table {
    let columns = vec![
        Column::text("score", "Score"),
        Column::number("value", "Value", "%"),
        Column::number("low", "From", "%"),
        Column::number("high", "To", "%"),
        Column::number("error", "Standard error", "%"),
        Column::number("questions", "n", "questions"),
        Column::number("clusters", "Clusters", ""),
    ];
    let caption = format!("Scores with {:.0} % intervals", report.confidence * 100.0);
    let mut table = Table::new("scores", caption, columns);
    for (name, estimate) in lines(report) {
        let ends = estimate.and_then(|of| of.interval);
        let count = |count: Option<usize>| count.map_or_else(Cell::missing, |count| Cell::count(count as u64));
        table.row(
            None,
            vec![
                Cell::text(name),
                Cell::estimate(estimate, report.confidence),
                Cell::percent(ends.map(|ends| ends.low)),
                Cell::percent(ends.map(|ends| ends.high)),
                Cell::percent(estimate.and_then(|of| of.standard_error)),
                count(estimate.map(|of| of.questions)),
                count(estimate.map(|of| of.clusters)),
            ],
        );
    }
    if let Some(bounds) = report.coverage.bounds.filter(|_| report.coverage.unknown > 0) {
        let mut row = vec![Cell::text("Pass@1 were all without a verdict wrong, and right"), Cell::missing()];
        row.extend([Cell::percent(Some(bounds.low)), Cell::percent(Some(bounds.high)), Cell::missing()]);
        row.extend([Cell::count(report.coverage.questions as u64), Cell::missing()]);
        table.row(None, row);
    }
    table
}

/// Scores by name.
fn lines(report: &Report) -> Vec<(String, Option<&Estimate>)> {
    let mut lines = vec![("Pass@1, the paper's Cons".to_string(), report.pass_at_1.as_ref())];
    for at in &report.at_k {
        let k = at.k;
        lines.push((format!("Pass@{k}"), Some(&at.pass_at_k)));
        lines.push((format!("Maj@{k}, majority vote"), at.maj_at_k.as_ref()));
        lines.push((format!("pass^{k}, all of {k}"), at.pass_hat_k.as_ref()));
    }
    lines
}

/// A chart for each thing that questions differ in.
pub(super) fn breakdowns(report: &Report) -> Vec<Chart> {
    let mut by: Vec<(&str, Vec<&Slice>)> = Vec::new();
    for slice in &report.slices {
        match by.last_mut() {
            Some((name, slices)) if *name == slice.by => slices.push(slice),
            _ => by.push((&slice.by, vec![slice])),
        }
    }
    by.into_iter().map(|(name, slices)| breakdown(name, &slices, report)).collect()
}

fn breakdown(by: &str, slices: &[&Slice], report: &Report) -> Chart {
    let dots: Vec<Dot> = slices
        .iter()
        .map(|slice| Dot {
            label: format!(
                "{} (n = {}){}",
                slice.value,
                slice.coverage.questions,
                slice.pass_at_1.map_or("", |of| render::few(of.clusters))
            ),
            class: "k0",
            value: slice.pass_at_1.map(|of| of.value),
            interval: slice.pass_at_1.and_then(|of| of.interval).map(|ends| (ends.low, ends.high)),
            hint: slice.pass_at_1.as_ref().map_or_else(String::new, |of| format::estimate_hint(of, report.confidence)),
            href: None,
        })
        .collect();
    let questions: usize = slices.iter().map(|slice| slice.coverage.questions).sum();
    let caption = format!("Pass@1 by {by}, n = {questions} questions");
    Chart::dots(&format!("by-{by}"), &caption, Unit::Share, &dots).sql(attempts_of([report.run_id.as_str()]))
}

/// Why attempts ended.
pub(super) fn terminations(report: &Report) -> Chart {
    let made = report.made();
    let bars: Vec<Bar> = report
        .effort
        .terminations
        .iter()
        .map(|(name, count)| Bar {
            label: name.clone(),
            class: if name == "answer" { "k0" } else { "k1" },
            from: 0.0,
            to: *count as f64,
            hint: format!("{count} of {made} attempts"),
            href: None,
        })
        .collect();
    let caption = format!("Why attempts ended, n = {made}");
    Chart::bars("terminations", &caption, Unit::Number("attempts"), &bars).sql(attempts_of([report.run_id.as_str()]))
}

/// What a run took, how its scorers agree, whether stated confidence is borne out: as the command has it.
pub(super) fn others(report: &Report) -> Vec<Table> {
    let skipped = 1 + usize::from(!report.slices.is_empty());
    report
        .tables()
        .into_iter()
        .skip(skipped)
        .enumerate()
        .map(|(at, table)| rendered(&format!("{PART}{}", at + 1), table))
        .collect()
}

/// A table of texts as a page has it: figures to the right.
pub(super) fn rendered(id: &str, table: render::Table) -> Table {
    let columns = table.columns.iter().enumerate().map(|(at, title)| {
        // A heading is a link to sort by, and a link has a text.
        let (key, title) = if title.is_empty() { ("what", "What") } else { (title.as_str(), title.as_str()) };
        // What is text here may be a figure with its interval: it stands to the right, and is not sorted as a number.
        if at == 0 { Column::text(key, title) } else { Column::figure(key, title) }
    });
    let mut shown = Table::new(id, table.title, columns.collect());
    for row in table.rows {
        let mut cells: Vec<Cell> = row.into_iter().map(Cell::text).collect();
        cells.resize_with(table.columns.len(), Cell::missing);
        shown.row(None, cells);
    }
    shown
}
