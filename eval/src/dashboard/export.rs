//! A report as one file of HTML: no script, nothing loaded from elsewhere, to be sent and kept.
//!
//! It has figures alone, and no row of any question: what a gated benchmark asks is in no report.

use chrono::{DateTime, Utc};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::assets::STYLE;
use super::{figures, format};
use crate::report::Report;

/// What the file may do: show its own style, and no more.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// The reports of some runs, made at `made`.
pub fn reports(reports: &[Report], made: DateTime<Utc>) -> String {
    let title = match reports {
        [one] => one.title(),
        all => format!("{} runs", all.len()),
    };
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                // Our own text, without markup.
                style { (PreEscaped(STYLE.text())) }
            }
            body {
                main {
                    h1 { (title) }
                    p.n { "webdancer, " (format::exact_time(made)) }
                    @for report in reports { (section(report, reports.len() > 1)) }
                }
            }
        }
    }
    .into_string()
}

fn section(report: &Report, titled: bool) -> Markup {
    html! {
        section {
            @if titled { h2 { (report.title()) } }
            p { "Judged by " (if report.judges.is_empty() { format::MISSING.to_string() } else { report.judges.join(", ") })
                "; " (format::percent(report.coverage.share())) " % of " (format::count(report.coverage.attempts)) " attempts have a verdict." }
            @for note in report.told() { p.note { (note) } }
            h3 { "Scores" } (figures::scores(report).plain())
            div.small { @for chart in figures::breakdowns(report) { (chart.alone()) } }
            h3 { "Why attempts ended" } (figures::terminations(report).alone())
            @for table in figures::others(report) { h3 { (table.caption()) } (table.plain()) }
        }
    }
}
