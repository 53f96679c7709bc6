//! Charts, drawn on the server as SVG: each with a caption that says its n, its numbers as a table, as CSV and as a file,
//! and the SQL that its numbers are, or are computed from.
//!
//! Colours come from classes (`k0` to `k7` of policies, with `s1` or `s2` for another shape, `published`, `k-none`), so that both themes and a downloaded file
//! have their own. Values are read by hovering, and a point may lead somewhere. Axes begin at zero where length means
//! quantity. See [`lines`](Chart::lines), [`dots`](Chart::dots), [`bars`](Chart::bars), [`histogram`](Chart::histogram),
//! [`heat`](Chart::heat).

mod bars;
mod dots;
mod heat;
mod lines;
mod scale;

pub use bars::Bar;
pub use dots::Dot;
pub use heat::Heat;
pub use lines::{Lines, Marker, Point, Series};

use maud::{Markup, PreEscaped, html};

use super::assets::CHART_STYLE;
use super::request::Asked;
use super::table::{Table, sql_of};

/// What the values of a chart are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Shares, shown in percent from 0 to 100.
    Share,
    /// Differences of shares, shown in points, with a line at none.
    Points,
    /// Numbers with the name of their unit, which may be empty.
    Number(&'static str),
    /// Numbers on an axis that need not begin at zero, such as a loss.
    Level(&'static str),
}

/// A chart.
#[derive(Debug, Clone)]
pub struct Chart {
    /// Names it in downloads; unique on its page.
    pub id: String,
    caption: String,
    svg: Markup,
    width: f64,
    height: f64,
    sql: Option<String>,
    /// Its numbers.
    pub(super) table: Table,
}

impl Chart {
    /// The SQL that the numbers come from, to be shown below.
    #[must_use]
    pub fn sql(mut self, sql: impl Into<String>) -> Chart {
        self.sql = Some(sql.into());
        self
    }

    fn new(id: &str, caption: &str, (width, height): (f64, f64), svg: Markup, table: Table) -> Chart {
        Chart { id: id.to_string(), caption: caption.to_string(), svg, width, height, sql: None, table }
    }

    pub(super) fn show(&self, asked: &Asked) -> Markup {
        let link = |form: &str| {
            format!("{}{}", asked.address, asked.query.changed(&[("format", Some(form)), ("of", Some(&self.id))]))
        };
        html! {
            figure.chart id=(self.id) {
                (self.drawing(""))
                figcaption { (self.caption) }
                div.under {
                    span.downloads { a href=(link("svg")) download { "SVG" } " " a href=(link("csv")) download { "CSV" } }
                    details { summary { "Table" } (self.table.plain()) }
                    @if let Some(sql) = &self.sql { (sql_of(sql)) }
                }
            }
        }
    }

    /// The chart as a file of its own, with its style, in the light theme.
    pub(super) fn file(&self) -> String {
        self.drawing(CHART_STYLE).into_string()
    }

    /// The chart for a page of its own, whose style it takes.
    pub(super) fn alone(&self) -> Markup {
        html! { figure.chart { (self.drawing("")) figcaption { (self.caption) } } }
    }

    fn drawing(&self, style: &'static str) -> Markup {
        let view = format!("0 0 {} {}", self.width, self.height);
        html! {
            svg xmlns="http://www.w3.org/2000/svg" viewBox=(view) width=(self.width) height=(self.height) role="group" aria-label=(self.caption) {
                // Our own text, without markup.
                @if !style.is_empty() { style { (PreEscaped(style)) } }
                (self.svg)
            }
        }
    }
}

/// What stands at a value: round, and where the class names a shape a square (`s1`) or a diamond (`s2`).
fn spot(class: &str, (x, y): (f64, f64), radius: f64) -> Markup {
    let tenths = |value: f64| (value * 10.0).round() / 10.0;
    let (left, top) = (tenths(x - radius), tenths(y - radius));
    match class.split_once(' ').map(|(_, shape)| shape) {
        Some("s1") => html! { rect.dot x=(left) y=(top) width=(2.0 * radius) height=(2.0 * radius) {} },
        Some("s2") => {
            let half = tenths(1.2 * radius);
            html! { path.dot d={ "M" (x) " " (tenths(y - half)) "l" (half) " " (half) "l-" (half) " " (half) "l-" (half) " -" (half) "z" } {} }
        }
        _ => html! { circle.dot cx=(x) cy=(y) r=(radius) {} },
    }
}

impl Unit {
    /// A value as the chart shows it.
    fn shown(self, value: f64) -> String {
        match self {
            Unit::Share => super::format::percent(value),
            Unit::Points => super::format::points(value),
            Unit::Number(_) => super::format::quantity(value),
            Unit::Level(_) => level(value),
        }
    }

    /// What stands behind a value.
    fn name(self) -> &'static str {
        match self {
            Unit::Share => "%",
            Unit::Points => "points",
            Unit::Number(name) | Unit::Level(name) => name,
        }
    }
}

fn level(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_string(),
        size if (0.01..10_000.0).contains(&size) => {
            let text = format!("{value:.3}");
            text.trim_end_matches('0').trim_end_matches('.').to_string()
        }
        size if size >= 10_000.0 => super::format::quantity(value),
        _ => format!("{value:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_of_one_colour_differ_in_shape() {
        let shown = |class| spot(class, (10.0, 20.0), 4.0).into_string();
        assert_eq!(shown("k0"), "<circle class=\"dot\" cx=\"10\" cy=\"20\" r=\"4\"></circle>");
        assert_eq!(shown("k0 s1"), "<rect class=\"dot\" x=\"6\" y=\"16\" width=\"8\" height=\"8\"></rect>");
        assert_eq!(shown("k0 s2"), "<path class=\"dot\" d=\"M10 15.2l4.8 4.8l-4.8 4.8l-4.8 -4.8z\"></path>");
    }
}
