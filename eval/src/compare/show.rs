//! A comparison as tables and as a plot.

use std::cmp::Ordering;

use super::{Comparison, Flip, Side};
use crate::render::{self, Axis, Mark, Table, difference, percent, plot, points, score};
use crate::report::Spread;

/// Flipped questions that a table lists; JSON has all.
const FLIPS_MAX: usize = 20;
/// Characters of a question in a table.
const QUESTION_MAX: usize = 80;

impl Comparison {
    /// Its tables: both runs, the difference with its breakdowns, the questions fixed and broken.
    pub fn tables(&self) -> Vec<Table> {
        let mut tables = vec![self.sides(), self.differences()];
        for (title, flips) in [("Fixed", &self.fixed), ("Broken", &self.broken)] {
            if !flips.is_empty() {
                tables.push(flipped(title, flips));
            }
        }
        tables
    }

    /// Notes, and what the mark of few clusters says.
    pub(crate) fn told(&self) -> Vec<String> {
        self.notes.iter().cloned().chain(render::legend(&self.tables())).collect()
    }

    /// As text, notes behind the tables.
    pub fn text(&self) -> String {
        render::text(&self.tables(), Some(self.verdict()), &self.told())
    }

    /// As Markdown, notes as a list.
    pub fn markdown(&self) -> String {
        render::markdown(&self.tables(), Some(self.verdict()), &self.told())
    }

    /// The differences as a plot.
    pub fn svg(&self) -> String {
        let mut marks = vec![Mark {
            label: "all questions".to_string(),
            figure: difference(&self.difference),
            value: Some(self.difference.value),
            interval: self.difference.interval,
        }];
        marks.extend(self.slices.iter().map(|slice| Mark {
            label: format!("{} {}", slice.by, slice.value),
            figure: difference(&slice.difference),
            value: Some(slice.difference.value),
            interval: slice.difference.interval,
        }));
        let title = format!("Pass@1 in points: {} less {}", name(&self.after), name(&self.before));
        plot(&title, Axis::Difference, &marks)
    }

    /// The comparison in a sentence.
    pub fn verdict(&self) -> String {
        let change = points(self.difference.value, self.difference.interval);
        let seen = match self.minimum_detectable {
            Some(least) => format!("; one under {} points would often go unseen", percent(least)),
            None => self.unestimated().map_or_else(String::new, |why| format!("; {why}")),
        };
        let p_value = self.mcnemar_p.or(self.difference.p_value);
        let p_value = p_value.map_or_else(String::new, |p| format!(", p = {p:.4}"));
        let shown = match self.difference.side(self.confidence) {
            Some(Ordering::Greater) => "The second run is better",
            Some(Ordering::Less) => "The second run is worse",
            Some(Ordering::Equal) => "No difference is shown",
            None => "Too few questions to tell",
        };
        format!("{shown}: {change} points over {} questions{p_value}{seen}.", self.difference.questions)
    }

    /// Why the questions do not tell which difference they would show, where there are enough of them.
    pub(crate) fn unestimated(&self) -> Option<&'static str> {
        self.difference.is_alike().then_some(match self.difference.p_value {
            Some(1.0) => "no paired difference in the data, so that the least that would be seen cannot be estimated",
            _ => {
                "all questions differ alike, so that neither an interval nor the least that would be seen can be estimated"
            }
        })
    }

    fn sides(&self) -> Table {
        let mut table = Table::new("Runs", &["", "first", "second"]);
        let mut row = |what: &str, of: &dyn Fn(&Side) -> String| {
            table.rows.push(vec![what.to_string(), of(&self.before), of(&self.after)]);
        };
        row("run", &|side| side.run_id.clone());
        row("policy", &|side| side.policies.join(", "));
        row("judge", &|side| side.judges.join(", "));
        row("Pass@1, %", &|side| score(side.pass_at_1.as_ref()));
        row("attempts with a verdict, %", &|side| percent(side.coverage.share()));
        let spread = |spread: Option<Spread>, unit: f64| {
            let cell = |spread: Spread| format!("{:.1} / {:.1}", spread.p50 / unit, spread.p95 / unit);
            spread.map_or_else(|| "–".to_string(), cell)
        };
        row("seconds an attempt, p50 / p95", &|side| spread(side.effort.wall_ms, 1_000.0));
        row("tool calls, p50 / p95", &|side| spread(side.effort.calls_each, 1.0));
        row("tokens written, p50 / p95", &|side| spread(side.effort.output_tokens_each, 1.0));
        row("without an answer", &|side| side.effort.abstentions.to_string());
        table
    }

    fn differences(&self) -> Table {
        let interval = format!("points [{} % interval]", self.confidence * 100.0);
        let mut table = Table::new("Pass@1, second less first", &["", "questions", &interval, "p", "p by Holm"]);
        let p = |p: Option<f64>| p.map_or_else(|| "–".to_string(), |p| format!("{p:.4}"));
        let all = &self.difference;
        let shown = difference(all);
        table.rows.push(vec!["all".to_string(), all.questions.to_string(), shown, p(all.p_value), "–".to_string()]);
        for slice in &self.slices {
            table.rows.push(vec![
                format!("{} {}", slice.by, slice.value),
                slice.difference.questions.to_string(),
                difference(&slice.difference),
                p(slice.difference.p_value),
                p(slice.holm_p),
            ]);
        }
        table
    }
}

fn name(side: &Side) -> String {
    side.policies.join(", ")
}

fn flipped(title: &str, flips: &[Flip]) -> Table {
    let mut table = Table::new(format!("{title}: {} questions", flips.len()), &["question", "first, %", "second, %"]);
    for flip in flips.iter().take(FLIPS_MAX) {
        let text = flip.question.as_deref().unwrap_or("(gated)");
        let mut clipped: String = text.chars().take(QUESTION_MAX).collect();
        if text.chars().count() > QUESTION_MAX {
            clipped.push('…');
        }
        table.rows.push(vec![format!("{} {clipped}", flip.qa_id), percent(flip.before), percent(flip.after)]);
    }
    table
}
