//! A plot of estimates, one below the other: a dot and its interval. No script, no font, nothing told by colour alone.

use std::fmt::Write as _;

use super::text_width;
use crate::stats::Interval;

/// One line of a plot.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    /// What it is.
    pub label: String,
    /// What stands at its end: the figure as text.
    pub figure: String,
    /// The value; a line without one is a heading.
    pub value: Option<f64>,
    /// Its interval.
    pub interval: Option<Interval>,
}

/// What the plot's width means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// Shares from 0 to 1, in percent.
    Share,
    /// Differences, in points, as far as the marks reach, with a line at none.
    Difference,
}

/// Of the picture, of what stands before the plot, and of the plot: the first two are wider where texts need it.
const WIDTH: f64 = 860.0;
const LEFT: f64 = 250.0;
const PLOT_WIDTH: f64 = 410.0;
const FONT: f64 = 13.0;
const MARGIN: f64 = 12.0;
const LINE: f64 = 24.0;
const TOP: f64 = 56.0;
/// Characters of a label.
const LABEL_MAX: usize = 36;

/// The plot.
pub fn plot(title: &str, axis: Axis, marks: &[Mark]) -> String {
    let reach = reach(axis, marks);
    let (low, high) = match axis {
        Axis::Share => (0.0, 1.0),
        Axis::Difference => (-reach, reach),
    };
    let labels: Vec<String> = marks.iter().map(|mark| clipped(&mark.label)).collect();
    // Headings are bold, and have the plot to themselves.
    let before = marks.iter().zip(&labels).filter(|(mark, _)| mark.value.is_some()).map(|(_, label)| label.as_str());
    let left = LEFT.max(2.0 * MARGIN + widest(before)).ceil();
    let right = left + PLOT_WIDTH;
    let figures = widest(marks.iter().map(|mark| mark.figure.as_str()));
    let width = WIDTH.max(right + 16.0 + figures + MARGIN).max(2.0 * MARGIN + 1.1 * text_width(title, FONT)).ceil();
    let x = |value: f64| left + (value.clamp(low, high) - low) / (high - low) * PLOT_WIDTH;
    let bottom = TOP + LINE * marks.len() as f64 + 4.0;
    let legend = super::legend_of(marks.iter().map(|mark| mark.figure.as_str()));
    let height = bottom + if legend.is_some() { 60.0 } else { 36.0 };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"{FONT}\" role=\"img\">\n<title>{title}</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"12\" y=\"28\" font-weight=\"600\" fill=\"#1a1a1a\">{title}</text>\n",
        title = escape(title)
    );
    for step in 0..=4 {
        let value = low + (high - low) * f64::from(step) / 4.0;
        let colour = if axis == Axis::Difference && step == 2 { "#1a1a1a" } else { "#d5d5d5" };
        let unit = if axis == Axis::Share { "%" } else { "" };
        let _ = writeln!(
            svg,
            "<line x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{1}\" y2=\"{bottom}\" stroke=\"{colour}\"/>\
             <text x=\"{0:.1}\" y=\"{2}\" text-anchor=\"middle\" fill=\"#5a5a5a\">{3:.0}{unit}</text>",
            x(value),
            TOP - 12.0,
            bottom + 18.0,
            // No minus before a zero.
            (value * 100.0).round() + 0.0
        );
    }
    for ((mark, label), line) in marks.iter().zip(&labels).zip(0u32..) {
        draw(&mut svg, mark, label, (right, TOP + LINE * f64::from(line) + LINE / 2.0), &x);
    }
    if let Some(legend) = legend {
        let _ = writeln!(svg, "<text x=\"12\" y=\"{}\" fill=\"#5a5a5a\">{legend}</text>", bottom + 44.0);
    }
    svg.push_str("</svg>\n");
    svg
}

fn widest<'t>(texts: impl Iterator<Item = &'t str>) -> f64 {
    texts.map(|text| text_width(text, FONT)).fold(0.0, f64::max)
}

fn clipped(label: &str) -> String {
    match label.chars().count() > LABEL_MAX {
        true => label.chars().take(LABEL_MAX - 1).chain(['…']).collect(),
        false => label.to_string(),
    }
}

fn draw(svg: &mut String, mark: &Mark, label: &str, (right, y): (f64, f64), x: &impl Fn(f64) -> f64) {
    let weight = if mark.value.is_some() { "400" } else { "600" };
    let baseline = y + 4.5;
    let _ = writeln!(
        svg,
        "<text x=\"12\" y=\"{baseline:.1}\" font-weight=\"{weight}\" fill=\"#1a1a1a\">{}</text>\
         <text x=\"{:.1}\" y=\"{baseline:.1}\" fill=\"#1a1a1a\">{}</text>",
        escape(label),
        right + 16.0,
        escape(&mark.figure)
    );
    if let Some(ends) = mark.interval {
        let (low, high) = (x(ends.low), x(ends.high));
        let _ = writeln!(
            svg,
            "<path d=\"M{low:.1} {y:.1}H{high:.1}M{low:.1} {:.1}v8M{high:.1} {:.1}v8\" stroke=\"#3465a4\" \
             stroke-width=\"1.5\" fill=\"none\"/>",
            y - 4.0,
            y - 4.0
        );
    }
    if let Some(value) = mark.value {
        let _ = writeln!(svg, "<circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"#3465a4\"/>", x(value));
    }
}

/// How far differences reach on either side: up to the next five points.
fn reach(axis: Axis, marks: &[Mark]) -> f64 {
    if axis == Axis::Share {
        return 1.0;
    }
    let ends = marks.iter().flat_map(|mark| {
        let ends = mark.interval.into_iter().flat_map(|ends| [ends.low, ends.high]);
        mark.value.into_iter().chain(ends)
    });
    let farthest = ends.map(f64::abs).fold(0.0, f64::max);
    ((farthest * 20.0).ceil() / 20.0).clamp(0.05, 1.0)
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML has no other control characters.
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(label: &str, value: f64, low: f64, high: f64) -> Mark {
        let interval = Some(Interval { low, high });
        Mark { label: label.to_string(), figure: String::new(), value: Some(value), interval }
    }

    #[test]
    fn values_stand_where_the_axis_says() {
        let shares = plot("t", Axis::Share, &[mark("all", 0.5, 0.25, 1.0)]);
        assert!(shares.contains("<circle cx=\"455.0\"") && shares.contains("M352.5 68.0H660.0"), "{shares}");
        // Twelve points reach to fifteen: none is in the middle.
        let differences = plot("t", Axis::Difference, &[mark("all", 0.0, -0.12, 0.03)]);
        assert!(differences.contains("<circle cx=\"455.0\"") && differences.contains(">-15<"), "{differences}");
    }

    #[test]
    fn a_picture_is_as_wide_as_its_texts_need() {
        let of = |label: &str, figure: &str| {
            let mark = Mark { figure: figure.to_string(), ..mark(label, 0.5, 0.25, 1.0) };
            plot("t", Axis::Difference, &[mark])
        };
        assert!(of("all", "+13.3 [+8.6, +18.6]†").contains("viewBox=\"0 0 860 "));
        // 23 digits of 0.66 · 13 each: 676 + 197.3 + 12.
        let long = of("all", "12345678901234567890123");
        assert!(long.contains("viewBox=\"0 0 886 ") && long.contains("<text x=\"676.0\""), "{long}");
        // A label of 36 wide characters, 36 · 13 and two margins: the plot begins behind it.
        let label = of(&"W".repeat(36), "");
        assert!(label.contains("<line x1=\"492.0\"") && label.contains("viewBox=\"0 0 930 "), "{label}");
    }

    #[test]
    fn text_from_outside_is_no_markup() {
        let svg = plot("<script>", Axis::Share, &[mark("a&b\u{1}\"<g>", 0.0, 0.0, 0.1)]);
        assert!(svg.contains("a&amp;b &quot;&lt;g&gt;") && !svg.contains("<script>"), "{svg}");
    }
}
