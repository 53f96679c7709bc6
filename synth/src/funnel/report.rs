//! The waterfall: how many trajectories each stage let through, and why it kept the others back.
//!
//! Counts are handed in, by the method of the question; a table, bars and an SVG come out.

mod svg;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::Stage;

/// Trajectories that ended alike: a row of `SELECT method, outcome, stage, reason, count(*) FROM funnel GROUP BY …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Method of the question.
    pub method: String,
    /// `accepted`, the stage that rejected, `error` or `pending`.
    pub outcome: String,
    /// The stage at which it stopped; None if accepted.
    pub stage: Option<String>,
    /// Why the stage did not pass it.
    pub reason: Option<String>,
    /// How many.
    pub count: u64,
}

/// A step of the waterfall.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What the count is of: `sampled`, a reason, `valid`, `correct`, `accepted`.
    pub name: String,
    /// The stage, of what it kept back or let through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// What kind of step it is.
    pub kind: StepKind,
    /// Trajectories of each method, in the order of [`Waterfall::methods`].
    pub counts: Vec<u64>,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StepKind {
    /// Trajectories at this point.
    Level,
    /// Rejected.
    Fail,
    /// A judge failed: judged again the next time.
    Error,
    /// Not judged yet.
    Pending,
}

/// A waterfall for each method.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Waterfall {
    /// The methods, in the order of their names.
    pub methods: Vec<String>,
    /// From all that was sampled to what is accepted.
    pub steps: Vec<Step>,
}

/// Characters of the longest bar.
const BAR_CHARS: usize = 40;

impl Waterfall {
    /// The waterfall of these counts.
    pub fn new(ended: &[Ended]) -> Waterfall {
        let mut methods: Vec<String> = ended.iter().map(|ended| ended.method.clone()).collect();
        methods.sort();
        methods.dedup();
        let counts_of = |keeps: &dyn Fn(&Ended) -> bool| -> Vec<u64> {
            let count = |method: &String| {
                ended.iter().filter(|ended| ended.method == *method && keeps(ended)).map(|ended| ended.count).sum()
            };
            methods.iter().map(count).collect()
        };
        let mut level = counts_of(&|_| true);
        let mut steps = vec![Step::level("sampled", None, &level)];
        for stage in Stage::ALL {
            for (kind, name) in kept_back(ended, stage) {
                let is_it =
                    |ended: &Ended| stopped_at(ended, stage) && (kind, &name) == (kind_of(ended), &name_of(ended));
                let counts = counts_of(&is_it);
                level.iter_mut().zip(&counts).for_each(|(left, lost)| *left = left.saturating_sub(*lost));
                steps.push(Step { name, stage: Some(stage), kind, counts });
            }
            let name = match stage {
                Stage::Validity => "valid",
                Stage::Correctness => "correct",
                Stage::Quality => "accepted",
            };
            steps.push(Step::level(name, Some(stage), &level));
        }
        Waterfall { methods, steps }
    }

    /// A table: a line per step, a column per method and one for all.
    pub fn table(&self) -> String {
        let width = |text: &str| text.chars().count().max(9) + 2;
        let mut table = format!("{:<30}{:>11}", "", "all");
        for method in &self.methods {
            let _ = write!(table, "{method:>width$}", width = width(method));
        }
        for step in &self.steps {
            let _ = write!(table, "\n{:<30}{:>11}", step.label(), step.signed(step.total()));
            for (method, count) in self.methods.iter().zip(&step.counts) {
                let _ = write!(table, "{:>width$}", step.signed(*count), width = width(method));
            }
        }
        table
    }

    /// Bars for all methods together, or for the one at `method` of [`methods`](Waterfall::methods). A step that keeps
    /// back hangs where the level before it ended.
    pub fn bars(&self, method: Option<usize>) -> String {
        let mut bars = String::new();
        for bar in self.bars_of(method) {
            if !bars.is_empty() {
                bars.push('\n');
            }
            let share = |part: f64| (part * BAR_CHARS as f64).round() as usize;
            let (start, end) = (share(bar.start), share(bar.end));
            // What is there at all is seen.
            let length = (end - start).max(usize::from(bar.count > 0));
            let start = start.min(BAR_CHARS - length.min(BAR_CHARS));
            let fill = if bar.step.kind == StepKind::Level { "█" } else { "▒" };
            let drawn = format!("{}{}", " ".repeat(start), fill.repeat(length));
            let _ = write!(
                bars,
                "{:<30}{drawn:<BAR_CHARS$} {:>9} {:>6.1} %",
                bar.step.label(),
                bar.step.signed(bar.count),
                bar.percent
            );
        }
        bars
    }

    /// The plot as an SVG document: bars for all, then for each method.
    pub fn svg(&self) -> String {
        svg::draw(self)
    }

    /// The bars of one plot, as shares of what was sampled.
    fn bars_of(&self, method: Option<usize>) -> Vec<Bar<'_>> {
        let count_of = |step: &Step| match method {
            Some(index) => step.counts.get(index).copied().unwrap_or(0),
            None => step.total(),
        };
        let sampled = self.steps.first().map_or(0, count_of).max(1) as f64;
        let mut level = 0;
        let bar = |step| {
            let count = count_of(step);
            let (start, end) = match step {
                Step { kind: StepKind::Level, .. } => (0, count),
                _ => (level - count.min(level), level),
            };
            level = if step.kind == StepKind::Level { end } else { start };
            let share = |at: u64| at as f64 / sampled;
            Bar { step, count, start: share(start), end: share(end), percent: 100.0 * share(count) }
        };
        self.steps.iter().map(bar).collect()
    }
}

/// A bar of a plot. Positions are shares of what was sampled.
struct Bar<'a> {
    step: &'a Step,
    count: u64,
    start: f64,
    end: f64,
    percent: f64,
}

impl Step {
    fn level(name: &str, stage: Option<Stage>, counts: &[u64]) -> Step {
        Step { name: name.to_string(), stage, kind: StepKind::Level, counts: counts.to_vec() }
    }

    /// Of all methods.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    fn label(&self) -> String {
        match self.kind {
            StepKind::Level => self.name.clone(),
            StepKind::Fail => format!("  {}", self.name),
            StepKind::Error => format!("  {} (error)", self.name),
            StepKind::Pending => format!("  {}", self.name),
        }
    }

    fn signed(&self, count: u64) -> String {
        match self.kind {
            StepKind::Level => count.to_string(),
            _ if count == 0 => "–".to_string(),
            _ => format!("−{count}"),
        }
    }
}

fn stopped_at(ended: &Ended, stage: Stage) -> bool {
    ended.stage.as_deref() == Some(stage.name())
}

fn kind_of(ended: &Ended) -> StepKind {
    match ended.outcome.as_str() {
        "error" => StepKind::Error,
        "pending" => StepKind::Pending,
        _ => StepKind::Fail,
    }
}

fn name_of(ended: &Ended) -> String {
    match (ended.outcome.as_str(), &ended.reason) {
        ("pending", _) => "not judged yet".to_string(),
        (_, Some(reason)) => reason.clone(),
        ("error", None) => "judge_failed".to_string(),
        (_, None) => "no reason given".to_string(),
    }
}

/// What a stage kept back: rejections first, the most frequent before the others, then errors, then what is pending.
fn kept_back(ended: &[Ended], stage: Stage) -> Vec<(StepKind, String)> {
    let mut counts: BTreeMap<(u8, String), (StepKind, u64)> = BTreeMap::new();
    for ended in ended.iter().filter(|ended| stopped_at(ended, stage)) {
        let kind = kind_of(ended);
        counts.entry((kind as u8, name_of(ended))).or_insert((kind, 0)).1 += ended.count;
    }
    let mut kept: Vec<_> = counts.into_iter().map(|((_, name), (kind, count))| (kind, name, count)).collect();
    kept.sort_by_key(|(kind, _, count)| (*kind as u8, std::cmp::Reverse(*count)));
    kept.into_iter().map(|(kind, name, _)| (kind, name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(method: &str, outcome: &str, stage: &str, reason: Option<&str>, count: u64) -> Ended {
        Ended {
            method: method.to_string(),
            outcome: outcome.to_string(),
            stage: Some(stage.to_string()).filter(|stage| !stage.is_empty()),
            reason: reason.map(str::to_string),
            count,
        }
    }

    fn waterfall() -> Waterfall {
        Waterfall::new(&[
            ended("e2hqa", "accepted", "", None, 30),
            ended("crawlqa", "accepted", "", None, 50),
            ended("crawlqa", "validity", "validity", Some("not_in_format"), 4),
            ended("crawlqa", "validity", "validity", Some("no_answer"), 6),
            ended("e2hqa", "correctness", "correctness", Some("wrong_answer"), 10),
            ended("crawlqa", "correctness", "correctness", None, 1),
            ended("e2hqa", "error", "correctness", Some("judge_failed"), 2),
            ended("crawlqa", "quality", "quality", Some("repetition"), 20),
            ended("e2hqa", "pending", "quality", None, 7),
        ])
    }

    #[test]
    fn the_steps_lead_from_all_that_was_sampled_to_what_is_accepted() {
        let waterfall = waterfall();
        assert_eq!(waterfall.methods, ["crawlqa", "e2hqa"]);
        let steps: Vec<_> = waterfall.steps.iter().map(|step| (step.name.as_str(), step.counts.as_slice())).collect();
        assert_eq!(
            steps,
            [
                ("sampled", &[81, 49][..]),
                ("no_answer", &[6, 0]),
                ("not_in_format", &[4, 0]),
                ("valid", &[71, 49]),
                ("wrong_answer", &[0, 10]),
                ("no reason given", &[1, 0]),
                ("judge_failed", &[0, 2]),
                ("correct", &[70, 37]),
                ("repetition", &[20, 0]),
                ("not judged yet", &[0, 7]),
                ("accepted", &[50, 30]),
            ]
        );
    }

    #[test]
    fn the_table_has_a_column_for_each_method() {
        let table = waterfall().table();
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["all", "crawlqa", "e2hqa"]);
        assert_eq!(lines[1], ["sampled", "130", "81", "49"]);
        assert_eq!(lines[2], ["no_answer", "−6", "−6", "–"]);
        assert_eq!(lines[7], ["judge_failed", "(error)", "−2", "–", "−2"]);
        assert_eq!(lines[11], ["accepted", "80", "50", "30"]);
    }

    #[test]
    fn bars_hang_where_the_level_before_ended() {
        let counts = [
            ended("x", "accepted", "", None, 2),
            ended("x", "validity", "validity", Some("no_answer"), 1),
            ended("x", "quality", "quality", Some("repetition"), 1),
        ];
        let bars = Waterfall::new(&counts).bars(Some(0));
        let drawn: Vec<String> = bars
            .lines()
            .map(|line| line.chars().skip(30).take(BAR_CHARS).collect::<String>().trim_end().to_string())
            .collect();
        let level = |tenths: usize| "█".repeat(tenths);
        let lost = |start: usize, length: usize| format!("{}{}", " ".repeat(start), "▒".repeat(length));
        assert_eq!(drawn, [level(40), lost(30, 10), level(30), level(30), lost(20, 10), level(20)]);
        assert!(bars.ends_with("        2   50.0 %"), "{bars}");
    }

    #[test]
    fn nothing_sampled_is_an_empty_waterfall() {
        let empty = Waterfall::new(&[]);
        assert_eq!(empty.steps.iter().map(Step::total).collect::<Vec<_>>(), [0, 0, 0, 0]);
        assert!(empty.bars(None).lines().count() == 4 && empty.svg().contains("</svg>"));
    }
}
