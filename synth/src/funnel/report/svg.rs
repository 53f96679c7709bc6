//! The waterfall as an SVG: no script, no font, no colour that is not told by position and sign too.

use std::fmt::Write as _;

use super::{Bar, StepKind, Waterfall};

const WIDTH: f64 = 860.0;
const LABELS_WIDTH: f64 = 230.0;
const BARS_WIDTH: f64 = 460.0;
const LINE_HEIGHT: f64 = 22.0;
const HEADING_HEIGHT: f64 = 40.0;

pub(super) fn draw(waterfall: &Waterfall) -> String {
    let mut panels: Vec<(&str, Vec<Bar<'_>>)> = vec![("all", waterfall.bars_of(None))];
    if waterfall.methods.len() > 1 {
        let methods = waterfall.methods.iter().enumerate();
        panels.extend(methods.map(|(index, method)| (method.as_str(), waterfall.bars_of(Some(index)))));
    }
    let height: f64 =
        panels.iter().map(|(_, bars)| HEADING_HEIGHT + LINE_HEIGHT * bars.len() as f64).sum::<f64>() + 16.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"13\" role=\"img\">\n<title>Trajectories left after each \
         stage of the funnel</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    let mut top = 0.0;
    for (name, bars) in &panels {
        let sampled = bars.first().map_or(0, |bar| bar.count);
        let _ = writeln!(
            svg,
            "<text x=\"12\" y=\"{}\" font-weight=\"600\" fill=\"#1a1a1a\">{}: {sampled} trajectories</text>",
            top + 28.0,
            escape(name)
        );
        top += HEADING_HEIGHT;
        for bar in bars {
            row(&mut svg, bar, top);
            top += LINE_HEIGHT;
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn row(svg: &mut String, bar: &Bar<'_>, top: f64) {
    let (fill, weight) = match bar.step.kind {
        StepKind::Level => ("#3465a4", "600"),
        StepKind::Fail => ("#c4663a", "400"),
        StepKind::Error => ("#8f5aa8", "400"),
        StepKind::Pending => ("#9a9a9a", "400"),
    };
    let indent = if bar.step.kind == StepKind::Level { 12.0 } else { 28.0 };
    let baseline = top + LINE_HEIGHT * 0.7;
    let start = LABELS_WIDTH + BARS_WIDTH * bar.start;
    // What is there at all is seen.
    let width = (BARS_WIDTH * (bar.end - bar.start)).max(if bar.count > 0 { 1.0 } else { 0.0 });
    let _ = writeln!(
        svg,
        "<text x=\"{indent}\" y=\"{baseline:.1}\" font-weight=\"{weight}\" fill=\"#1a1a1a\">{}</text>\
         <rect x=\"{start:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{fill}\"/>\
         <text x=\"{:.1}\" y=\"{baseline:.1}\" text-anchor=\"end\" fill=\"#1a1a1a\">{}</text>\
         <text x=\"{:.1}\" y=\"{baseline:.1}\" text-anchor=\"end\" fill=\"#5a5a5a\">{:.1} %</text>",
        escape(bar.step.label().trim_start()),
        top + 3.0,
        LINE_HEIGHT - 6.0,
        LABELS_WIDTH + BARS_WIDTH + 90.0,
        bar.step.signed(bar.count),
        WIDTH - 12.0,
        bar.percent,
    );
}

/// Methods and reasons are text from outside.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::Ended;
    use super::*;

    #[test]
    fn names_from_outside_are_text_and_each_method_has_a_panel() {
        let ended = |method: &str, count| Ended {
            method: method.to_string(),
            outcome: "validity".to_string(),
            stage: Some("validity".to_string()),
            reason: Some("<script>alert(\"1\")</script>\u{0}".to_string()),
            count,
        };
        let svg = Waterfall::new(&[ended("a&b", 3), ended("c", 1)]).svg();
        assert!(!svg.contains("<script") && !svg.contains('\u{0}'), "{svg}");
        for part in ["&lt;script&gt;", ">all: 4 trajectories<", ">a&amp;b: 3 trajectories<", ">c: 1 trajectories<"] {
            assert!(svg.contains(part), "no {part} in {svg}");
        }
    }
}
