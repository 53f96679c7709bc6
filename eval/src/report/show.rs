//! A report as tables and as a plot.

use super::{Calibration, Report, Spread};
use crate::contamination::{Contamination, LOOKED_AT, LOOKED_AT_EXCERPTS};
use crate::render::{self, Axis, Mark, Table, percent, plot, score};
use crate::stats::mean::Estimate;
use crate::votes::JudgedVotes;

impl Report {
    /// Its tables: scores, breakdowns, what it took.
    pub fn tables(&self) -> Vec<Table> {
        let mut tables = vec![self.scores()];
        if !self.slices.is_empty() {
            tables.push(self.breakdowns());
        }
        if !self.agreement.is_empty() {
            tables.push(self.agreements());
        }
        tables.extend(self.calibration.as_ref().map(confidence));
        tables.push(self.took());
        // Last: where it comes later than the others, they keep their places.
        tables.extend(self.contamination.as_ref().map(contaminated));
        tables
    }

    /// Notes, who held answers for the same in the vote, how far contamination was looked for, and what the mark of few
    /// clusters says.
    pub(crate) fn told(&self) -> Vec<String> {
        let votes = self.votes.as_ref().map(|votes| {
            let JudgedVotes { judges, same, different, undecided } = votes;
            let undecided =
                if *undecided > 0 { format!(", {undecided} undecided since it failed") } else { String::new() };
            let by = judges.join(", ");
            format!(
                "in the vote, {by} holds {same} pairs of answers for the same and {different} for different{undecided}"
            )
        });
        let how_far = |found: &Contamination| if found.whole_pages { LOOKED_AT } else { LOOKED_AT_EXCERPTS };
        let looked = self.contamination.as_ref().map(|found| how_far(found).to_string());
        let legend = render::legend(&self.tables());
        self.notes.iter().cloned().chain(votes).chain(looked).chain(legend).collect()
    }

    /// As text, notes behind the tables.
    pub fn text(&self) -> String {
        render::text(&self.tables(), None, &self.told())
    }

    /// As Markdown, notes as a list.
    pub fn markdown(&self) -> String {
        render::markdown(&self.tables(), None, &self.told())
    }

    /// The scores and breakdowns as a plot.
    pub fn svg(&self) -> String {
        let mut marks: Vec<Mark> = self.lines().into_iter().map(|(label, estimate)| mark(label, estimate)).collect();
        let mut by = "";
        for slice in &self.slices {
            if slice.by != by {
                by = &slice.by;
                let label = format!("Pass@1 by {by}");
                marks.push(Mark { label, figure: String::new(), value: None, interval: None });
            }
            marks.push(mark(slice.value.clone(), slice.pass_at_1.as_ref()));
        }
        plot(&self.title(), Axis::Share, &marks)
    }

    /// Policies and run.
    pub fn title(&self) -> String {
        let run = if self.run_id.is_empty() { "attempts of no run" } else { &self.run_id };
        format!("{} · {run}", self.policies.join(", "))
    }

    fn lines(&self) -> Vec<(String, Option<&Estimate>)> {
        let mut lines = vec![("Pass@1 (the paper's Cons)".to_string(), self.pass_at_1.as_ref())];
        for at in &self.at_k {
            let k = at.k;
            lines.push((format!("Pass@{k}"), Some(&at.pass_at_k)));
            lines.push((format!("Maj@{k}"), at.maj_at_k.as_ref()));
            lines.push((format!("pass^{k}"), at.pass_hat_k.as_ref()));
        }
        lines
    }

    fn scores(&self) -> Table {
        let interval = format!("% [{} % interval]", self.confidence * 100.0);
        let mut table = Table::new(self.title(), &["score", &interval, "error", "questions", "clusters"]);
        for (label, estimate) in self.lines() {
            let error = estimate.and_then(|estimate| estimate.standard_error);
            let number = |count: Option<usize>| count.map_or_else(|| "0".to_string(), |count| count.to_string());
            table.rows.push(vec![
                label,
                score(estimate),
                error.map_or_else(|| "–".to_string(), percent),
                number(estimate.map(|estimate| estimate.questions)),
                number(estimate.map(|estimate| estimate.clusters)),
            ]);
        }
        if let Some(graded) = self.graded.filter(|graded| graded.not_attempted > 0) {
            let shown = |share: Option<f64>| share.map_or_else(|| "–".to_string(), percent);
            let mut row = |name: &str, share: Option<f64>| {
                table.rows.push(vec![name.to_string(), shown(share), "–".into(), "–".into(), "–".into()]);
            };
            row("correct of those attempted", graded.accuracy_given_attempted);
            row("F1 of that and all", graded.f1);
        }
        if let Some(bounds) = self.coverage.bounds.filter(|_| self.coverage.unknown > 0) {
            let ends = format!("{} to {}", percent(bounds.low), percent(bounds.high));
            let questions = self.coverage.questions.to_string();
            table.rows.push(vec!["unknown ones wrong to right".to_string(), ends, "–".into(), questions, "–".into()]);
        }
        table
    }

    fn breakdowns(&self) -> Table {
        let largest = self.at_k.last().map(|at| at.k);
        let mut table = Table::new("By kind of question", &["", "questions", "Pass@1, %"]);
        table.columns.extend(largest.map(|k| format!("Pass@{k}, %")));
        for slice in &self.slices {
            let questions = slice.coverage.questions.to_string();
            let mut row = vec![format!("{} {}", slice.by, slice.value), questions, score(slice.pass_at_1.as_ref())];
            row.extend(largest.map(|_| score(slice.pass_at_k.as_ref())));
            table.rows.push(row);
        }
        table
    }

    fn agreements(&self) -> Table {
        let mut table = Table::new("Scorers", &["", "attempts", "agree, %", "kappa", "first alone", "second alone"]);
        for pair in &self.agreement {
            table.rows.push(vec![
                format!("{} and {}", pair.first, pair.second),
                pair.verdicts.attempts().to_string(),
                pair.agreement.map_or_else(|| "–".to_string(), percent),
                pair.kappa.map_or_else(|| "–".to_string(), |kappa| format!("{kappa:.3}")),
                pair.verdicts.first.to_string(),
                pair.verdicts.second.to_string(),
            ]);
        }
        table
    }

    fn took(&self) -> Table {
        let effort = &self.effort;
        let mut table = Table::new("What it took", &["", "all", "mean", "p50", "p95"]);
        let mut row = |name: &str, all: String, spread: Option<Spread>, unit: f64| {
            let cells = spread.map_or_else(Default::default, |spread| {
                [spread.mean, spread.p50, spread.p95].map(|value| format!("{:.1}", value / unit))
            });
            table.rows.push([name.to_string(), all].into_iter().chain(cells).collect());
        };
        row("attempts", self.made().to_string(), None, 1.0);
        row("seconds an attempt", String::new(), effort.wall_ms, 1_000.0);
        if let Some(share) = effort.tool_time {
            row("  of these the policy's", format!("{} %", percent(1.0 - share)), effort.policy_ms, 1_000.0);
            row("  of these the tools'", format!("{} %", percent(share)), effort.tool_ms, 1_000.0);
        }
        row("tool calls", effort.calls.to_string(), effort.calls_each, 1.0);
        if let Some(over) = effort.over_action {
            row("  after the answer was seen", over.calls.to_string(), Some(over.calls_each), 1.0);
            let share = format!("{} of {}", over.acted, over.seen);
            row("attempts that went on after it", share, None, 1.0);
        }
        if let Some(failed) = effort.calls_failed {
            row("tool calls that brought nothing, %", percent(failed), None, 1.0);
        }
        if effort.calls_invented > 0 {
            row("calls of tools that there are not", effort.calls_invented.to_string(), None, 1.0);
        }
        row("tokens written", effort.output_tokens.to_string(), effort.output_tokens_each, 1.0);
        row("tokens read", effort.input_tokens.to_string(), None, 1.0);
        if let Some(cost) = effort.cost {
            row("cost", format!("{cost:.4}"), None, 1.0);
        }
        row("without an answer", effort.abstentions.to_string(), None, 1.0);
        for (termination, count) in &effort.terminations {
            row(&format!("ended by {termination}"), count.to_string(), None, 1.0);
        }
        table
    }
}

fn contaminated(contamination: &Contamination) -> Table {
    let flagged = contamination.flagged.len() as u64;
    let title = format!("Contamination: {flagged} of {} attempts saw question or answer", contamination.checked);
    let mut table = Table::new(title, &["attempts", "count", "Pass@1, %"]);
    let clean = contamination.checked.saturating_sub(flagged).to_string();
    table.rows.push(vec!["clean".to_string(), clean, score(contamination.clean.as_ref())]);
    let saw = vec!["contaminated".to_string(), flagged.to_string(), score(contamination.contaminated.as_ref())];
    table.rows.push(saw);
    table
}

fn confidence(calibration: &Calibration) -> Table {
    let mut table = Table::new(
        format!("Stated confidence, of {} attempts", calibration.predictions),
        &["from", "attempts", "confidence, %", "correct, %"],
    );
    let width = 1.0 / calibration.bins.len().max(1) as f64;
    for (bin, number) in calibration.bins.iter().zip(0u32..) {
        let shown = |share: f64| if bin.count == 0 { "–".to_string() } else { percent(share) };
        let from = percent(f64::from(number) * width);
        table.rows.push(vec![from, bin.count.to_string(), shown(bin.confidence), shown(bin.accuracy)]);
    }
    let errors = [
        ("expected calibration error", calibration.fixed.map(percent)),
        ("root mean square error", calibration.rms.map(percent)),
        ("Brier's score", calibration.brier.map(|score| format!("{score:.4}"))),
    ];
    for (name, value) in errors {
        table.rows.push(vec![name.to_string(), String::new(), value.unwrap_or_else(|| "–".to_string()), String::new()]);
    }
    table
}

fn mark(label: String, estimate: Option<&Estimate>) -> Mark {
    let interval = estimate.and_then(|estimate| estimate.interval);
    Mark { label, figure: score(estimate), value: estimate.map(|estimate| estimate.value), interval }
}
