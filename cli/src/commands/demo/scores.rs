//! Scores of policies: the query, the table read back, bars for a terminal, and a picture.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};

use crate::columns::strings;
use crate::failure::Failure;

/// What is measured, as columns and as people call it.
const METRICS: [(&str, &str); 3] = [("pass_at_1", "Pass@1"), ("pass_at_3", "Pass@3"), ("maj_at_3", "majority of 3")];
/// Characters of a bar of 100 %.
const BAR_CHARS: f64 = 40.0;

/// A policy that was evaluated: its name, and the run of its attempts.
#[derive(Debug, Clone)]
pub(super) struct Arm {
    pub(super) name: &'static str,
    pub(super) run: String,
}

/// The scores of an arm, shares of 1.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Score {
    pub(super) arm: &'static str,
    /// By metric, in the order of [`METRICS`]: the mean over questions, and half of its 95 % interval.
    values: [(f64, f64); METRICS.len()],
}

impl Score {
    pub(super) fn pass_at_1(&self) -> f64 {
        self.values[0].0
    }
}

/// The query that gives every number: per question, then the mean over questions, with half of its 95 % interval, for which
/// questions about one country stand or fall together. An attempt that something outside of it
/// failed is neither right nor wrong: it is left out.
pub(super) fn query_of(arms: &[Arm]) -> String {
    let mut names = String::new();
    for Arm { name, run } in arms {
        let _ = write!(names, " WHEN '{run}' THEN '{name}'");
    }
    let runs: Vec<String> = arms.iter().map(|arm| format!("'{}'", arm.run)).collect();
    let mut means = String::new();
    for (metric, _) in METRICS {
        let _ = write!(
            means,
            ", round(avg({metric}), 4) AS {metric}, round(1.96 * clustered_error({metric}, entity), 4) AS {metric}_pm"
        );
    }
    format!(
        "SELECT arm, count(*) AS questions{means} FROM (SELECT s.arm, s.qa_id, q.attributes->>'cluster' AS entity, \
         pass_at_k(s.correct, 1) AS pass_at_1, pass_at_k(s.correct, 3) AS pass_at_3, maj_at_k(s.answer, s.correct, 3) \
         AS maj_at_3 FROM (SELECT CASE run_id{names} END AS arm, qa_id, answer, correct FROM evaluations WHERE run_id \
         IN ({})) AS s JOIN current_qa AS q ON q.qa_id = s.qa_id GROUP BY s.arm, s.qa_id, q.attributes->>'cluster') \
         GROUP BY arm ORDER BY arm",
        runs.join(", ")
    )
}

/// A number of a result.
pub(super) fn number(batches: &[RecordBatch], column: &str, row: usize) -> Option<f64> {
    let values = cast(batches.first()?.column_by_name(column)?, &DataType::Float64).ok()?;
    let values = values.as_primitive_opt::<Float64Type>()?;
    (row < values.len() && values.is_valid(row)).then(|| values.value(row))
}

/// The rows of [`query_of`], in the order of `arms`.
///
/// # Errors
/// An arm is missing.
pub(super) fn read(batches: &[RecordBatch], arms: &[Arm]) -> Result<Vec<Score>, Failure> {
    let names = batches.first().map(|batch| strings(batch, "arm")).transpose()?;
    let read = |arm: &Arm| {
        let row = names.as_ref()?.iter().position(|name| name == Some(arm.name))?;
        let value = |metric: &str| {
            let margin = number(batches, &format!("{metric}_pm"), row);
            Some((number(batches, metric, row)?, margin.unwrap_or(0.0)))
        };
        let [first, second, third] = METRICS.map(|(metric, _)| value(metric));
        Some(Score { arm: arm.name, values: [first?, second?, third?] })
    };
    let missing = |arm: &Arm| Failure::failed(format!("there are no scores of {}", arm.name));
    arms.iter().map(|arm| read(arm).ok_or_else(|| missing(arm))).collect()
}

/// `{metric: {arm: score}}`.
pub(super) fn by_metric(scores: &[Score]) -> BTreeMap<&'static str, BTreeMap<&'static str, f64>> {
    let of = |index: usize| scores.iter().map(|score| (score.arm, score.values[index].0)).collect();
    METRICS.iter().enumerate().map(|(index, (metric, _))| (*metric, of(index))).collect()
}

/// Bars for a terminal: metric by metric, one arm a line.
pub(super) fn bars(scores: &[Score]) -> String {
    let mut text = String::new();
    let width = scores.iter().map(|score| score.arm.len()).max().unwrap_or(0);
    for (index, (_, title)) in METRICS.iter().enumerate() {
        let _ = writeln!(text, "{title}");
        for score in scores {
            let (mean, margin) = score.values[index];
            let bar = "█".repeat((mean * BAR_CHARS).round() as usize);
            let _ = writeln!(text, "  {:<width$} {bar} {:.1} % ± {:.1}", score.arm, mean * 100.0, margin * 100.0);
        }
    }
    text.trim_end().to_string()
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 48.0;
const TOP: f64 = 44.0;
const PLOT_HEIGHT: f64 = 210.0;
/// Colours of arms; the names stand beside them.
const COLOURS: [&str; 5] = ["#9a9a9a", "#3465a4", "#c4663a", "#4e8f4e", "#8f5aa8"];

/// The same as SVG: a group of bars for each metric, with 95 % intervals; no script, no font.
pub(super) fn svg(scores: &[Score]) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
         height=\"{HEIGHT}\" font-family=\"system-ui, sans-serif\" font-size=\"13\" role=\"img\">\n<title>Scores on \
         questions about the real countries</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    for tick in 0..=4 {
        let share = f64::from(tick) / 4.0;
        let y = TOP + PLOT_HEIGHT * (1.0 - share);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{:.0}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#dddddd\"/>\
             <text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#5a5a5a\">{:.0} %</text>",
            WIDTH - 12.0,
            LEFT - 6.0,
            y + 4.0,
            share * 100.0
        );
    }
    let group = (WIDTH - LEFT - 12.0) / METRICS.len() as f64;
    let bar = group * 0.8 / scores.len().max(1) as f64;
    for (index, (_, title)) in METRICS.iter().enumerate() {
        let start = LEFT + group * (index as f64 + 0.1);
        for (place, score) in scores.iter().enumerate() {
            draw_bar(&mut svg, start + bar * place as f64, bar, score.values[index], COLOURS[place % COLOURS.len()]);
        }
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#1a1a1a\">{title}</text>",
            start + group * 0.4,
            TOP + PLOT_HEIGHT + 22.0
        );
    }
    for (place, score) in scores.iter().enumerate() {
        let x = LEFT + 110.0 * place as f64;
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"12\" height=\"12\" fill=\"{}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" fill=\"#1a1a1a\">{}</text>",
            HEIGHT - 28.0,
            COLOURS[place % COLOURS.len()],
            x + 18.0,
            HEIGHT - 17.0,
            score.arm
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw_bar(svg: &mut String, x: f64, width: f64, (mean, margin): (f64, f64), colour: &str) {
    let y = |share: f64| TOP + PLOT_HEIGHT * (1.0 - share.clamp(0.0, 1.0));
    let middle = x + width / 2.0;
    let _ = writeln!(
        svg,
        "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>\
         <line x1=\"{middle:.1}\" x2=\"{middle:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"#1a1a1a\"/>\
         <text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#1a1a1a\">{:.1}</text>",
        x + 2.0,
        y(mean),
        width - 4.0,
        PLOT_HEIGHT * mean.clamp(0.0, 1.0),
        y(mean - margin),
        y(mean + margin),
        y(mean + margin) - 5.0,
        mean * 100.0
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores() -> Vec<Score> {
        vec![
            Score { arm: "base", values: [(0.0, 0.0), (0.0, 0.0), (0.0, 0.0)] },
            Score { arm: "sft", values: [(0.5, 0.05), (0.75, 0.04), (0.5, 0.1)] },
        ]
    }

    #[test]
    fn bars_are_as_long_as_their_share() {
        assert_eq!(
            bars(&scores()).lines().take(3).collect::<Vec<_>>(),
            ["Pass@1", "  base  0.0 % ± 0.0", "  sft  ████████████████████ 50.0 % ± 5.0"]
        );
    }

    #[test]
    fn the_picture_has_a_bar_for_each_arm_and_metric_as_high_as_its_share() {
        let svg = svg(&scores());
        assert_eq!(svg.matches(&format!("fill=\"{}\"", COLOURS[1])).count(), METRICS.len() + 1, "{svg}");
        assert!(svg.contains(&format!("height=\"{:.1}\" fill=\"{}\"", PLOT_HEIGHT * 0.75, COLOURS[1])), "{svg}");
    }

    #[test]
    fn scores_are_told_by_metric_and_arm() {
        let told = serde_json::to_value(by_metric(&scores())).unwrap();
        assert_eq!(told["pass_at_3"], serde_json::json!({"base": 0.0, "sft": 0.75}));
    }
}
