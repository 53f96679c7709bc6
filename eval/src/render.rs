//! Results for people: tables as text and Markdown, and plots.

mod svg;

pub use svg::{Axis, Mark, plot};

use crate::stats::mean::Estimate;
use crate::stats::paired::Difference;
use crate::stats::{CLUSTERS_FEW, Interval};

/// Marks a figure of few clusters.
const FEW: &str = "†";

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its title.
    pub title: String,
    /// Names of the columns.
    pub columns: Vec<String>,
    /// The rows, as wide as the columns.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new(title: impl Into<String>, columns: &[&str]) -> Table {
        Table { title: title.into(), columns: columns.iter().map(ToString::to_string).collect(), rows: Vec::new() }
    }

    /// The table as text: the first column to the left, the others to the right. A cell is one line.
    pub fn text(&self) -> String {
        let lines: Vec<&Vec<String>> = std::iter::once(&self.columns).chain(&self.rows).collect();
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|at| lines.iter().filter_map(|line| line.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0))
            .collect();
        let mut text = format!("{}\n", self.title.replace(is_unseen, " "));
        let plain = |cell: &str| cell.replace(is_unseen, " ");
        for line in lines {
            let cells = line.iter().zip(&widths).enumerate().map(|(at, (cell, width))| match at {
                0 => format!("{:<width$}", plain(cell)),
                _ => format!("{:>width$}", plain(cell)),
            });
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }

    /// The table as Markdown, its title in bold. Text in cells cannot become markup.
    pub fn markdown(&self) -> String {
        let row = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|cell| escape(cell)).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let rule: Vec<&str> = (0..self.columns.len()).map(|at| if at == 0 { ":--" } else { "--:" }).collect();
        let mut text = format!("**{}**\n\n{}| {} |\n", escape(&self.title), row(&self.columns), rule.join(" | "));
        self.rows.iter().for_each(|cells| text.push_str(&row(cells)));
        text
    }
}

/// What the mark of few clusters says, where a figure of these tables has it.
pub fn legend(tables: &[Table]) -> Option<String> {
    legend_of(tables.iter().flat_map(|table| &table.rows).flatten().map(String::as_str))
}

fn legend_of<'f>(mut figures: impl Iterator<Item = &'f str>) -> Option<String> {
    let is_marked = figures.any(|figure| figure.ends_with(FEW));
    is_marked.then(|| format!("{FEW} fewer than {CLUSTERS_FEW} clusters of questions: rough"))
}

/// The mark of a figure of so many clusters: nothing, unless they are few.
pub(crate) fn few(clusters: usize) -> &'static str {
    if clusters < CLUSTERS_FEW { FEW } else { "" }
}

/// Tables as text; behind them what they say in a sentence, and notes.
pub fn text(tables: &[Table], verdict: Option<String>, notes: &[String]) -> String {
    let notes = notes.iter().map(|note| format!("note: {note}"));
    let behind: String = verdict.into_iter().chain(notes).map(|line| line + "\n").collect();
    apart(tables.iter().map(Table::text).chain([behind]))
}

/// Tables as Markdown; before them what they say in a sentence, behind them notes as a list.
pub fn markdown(tables: &[Table], verdict: Option<String>, notes: &[String]) -> String {
    let before = verdict.map(|verdict| verdict + "\n").into_iter();
    let notes: String = notes.iter().map(|note| format!("- {note}\n")).collect();
    apart(before.chain(tables.iter().map(Table::markdown)).chain([notes]))
}

/// Blocks with an empty line between each two.
fn apart(blocks: impl Iterator<Item = String>) -> String {
    blocks.filter(|block| !block.is_empty()).collect::<Vec<_>>().join("\n")
}

/// Text that Markdown shows as it stands, on one line.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '!' | '#' => out.extend(['\\', c]),
            c if is_unseen(c) => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// How wide a text is at most, in a font of so many units: fonts of systems differ, and a picture has none of its own. An
/// average line is narrower; what is laid out by this has room and is not cut.
pub(crate) fn text_width(text: &str, font: f64) -> f64 {
    let of = |c: char| match c {
        ' ' | '.' | ',' | ':' | ';' | '|' | 'i' | 'j' | 'l' | '[' | ']' | '(' | ')' | '/' => 0.4,
        'm' | 'w' | 'M' | 'W' | '@' | '%' | '+' | '−' | '±' | '…' => 1.0,
        'A'..='Z' => 0.8,
        // Chinese, Japanese, Korean, and pictures.
        c if c >= '\u{1100}' => 1.1,
        _ => 0.66,
    };
    text.chars().map(of).sum::<f64>() * font
}

/// Control characters, and marks that turn the direction of what follows.
fn is_unseen(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A share in percent: `40.7`.
pub fn percent(share: f64) -> String {
    // No minus before a zero.
    format!("{:.1}", share * 100.0 + 0.0)
}

/// An estimate in percent with its interval, marked where its clusters are few: `40.7 [31.5, 50.4]`, `8.3 [1.5, 35.4]†`.
pub fn score(estimate: Option<&Estimate>) -> String {
    let Some(estimate) = estimate else { return "–".to_string() };
    format!("{}{}{}", percent(estimate.value), interval(estimate.interval), few(estimate.clusters))
}

/// The difference of two runs in points, marked likewise: `+3.1 [−0.4, +6.6]`.
pub fn difference(difference: &Difference) -> String {
    format!("{}{}", points(difference.value, difference.interval), few(difference.clusters))
}

/// ` [31.5, 50.4]`, or nothing.
pub fn interval(interval: Option<Interval>) -> String {
    interval.map_or_else(String::new, |ends| format!(" [{}, {}]", percent(ends.low), percent(ends.high)))
}

/// A difference in points with its sign: `+3.1 [−0.4, +6.6]`.
pub fn points(value: f64, ends: Option<Interval>) -> String {
    let ends = ends.map_or_else(String::new, |ends| format!(" [{}, {}]", signed(ends.low), signed(ends.high)));
    format!("{}{ends}", signed(value))
}

fn signed(share: f64) -> String {
    let text = format!("{:+.1}", share * 100.0);
    // Rounded to nothing it has no sign.
    if text == "-0.0" || text == "+0.0" { "0.0".to_string() } else { text.replace('-', "−") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_as_text_and_as_markdown() {
        let mut table = Table::new("Scores", &["run", "pass@1"]);
        table.rows.push(vec!["a|b".to_string(), "40.7".to_string()]);
        assert_eq!(table.text(), "Scores\nrun  pass@1\na|b    40.7\n");
        assert_eq!(table.markdown(), "**Scores**\n\n| run | pass@1 |\n| :-- | --: |\n| a\\|b | 40.7 |\n");
    }

    #[test]
    fn text_from_outside_is_no_markup() {
        let mut table = Table::new("t", &["question"]);
        table.rows.push(vec!["<b>![x](http://y)\n| `z`".to_string()]);
        table.rows.push(vec!["a\u{202e}b".to_string()]);
        assert!(table.text().ends_with("\na b\n") && table.markdown().ends_with("| a b |\n"), "{}", table.text());
        table.rows.pop();
        assert!(table.markdown().ends_with("| \\<b\\>\\!\\[x\\](http://y) \\| \\`z\\` |\n"), "{}", table.markdown());
    }

    #[test]
    fn figures_of_few_clusters_are_marked_and_the_mark_is_explained() {
        let of = |clusters| Difference {
            value: 0.25,
            standard_error: None,
            interval: Some(Interval { low: 0.1, high: 0.5 }),
            p_value: None,
            questions: 40,
            clusters,
        };
        assert_eq!(
            [19, 20].map(|clusters| difference(&of(clusters))),
            ["+25.0 [+10.0, +50.0]†", "+25.0 [+10.0, +50.0]"]
        );
        let mut table = Table::new("t", &["", "points"]);
        table.rows.push(vec!["all".to_string(), difference(&of(20))]);
        assert_eq!(legend(std::slice::from_ref(&table)), None);
        table.rows.push(vec!["level 3".to_string(), difference(&of(19))]);
        assert_eq!(legend(&[table]).unwrap(), "† fewer than 20 clusters of questions: rough");
    }

    #[test]
    fn a_text_has_room_for_its_widest_characters() {
        // Four digits, two signs, two marks: 4 · 0.66 + 2 + 2 · 0.4, twelve times.
        assert!((text_width("+1.2 +34", 12.0) - 65.28).abs() < 1e-9);
        assert!((text_width("数据", 10.0) - 22.0).abs() < 1e-9);
        assert_eq!(text_width("", 12.0), 0.0);
    }

    #[test]
    fn points_have_a_sign_unless_they_are_none() {
        assert_eq!(points(0.031, Some(Interval { low: -0.004, high: 0.066 })), "+3.1 [−0.4, +6.6]");
        assert_eq!(points(-0.0001, None), "0.0");
    }
}
