//! Lines with interval bands, and vertical marks.

use maud::{Markup, html};
use serde_json::Value;

use super::scale::{self, FONT, Scale};
use super::{Chart, Unit, spot};
use crate::dashboard::format;
use crate::dashboard::table::{Cell, Column, Table};
use crate::render::text_width;

const SIZE: (f64, f64) = (760.0, 300.0);
const LEFT: f64 = 56.0;
const RIGHT: f64 = 744.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 250.0;
/// Points of a series that are drawn; of more, every so many-th.
const POINTS_MAX: usize = 600;
/// Points of a series up to which each is marked, hovers and leads somewhere.
const DOTS_MAX: usize = 120;
/// Characters of a name in the legend.
const NAME_MAX: usize = 28;

/// A point of a line.
#[derive(Debug, Clone, Default)]
pub struct Point {
    /// Where it stands: a step, or milliseconds since 1970.
    pub x: f64,
    /// Its value.
    pub value: f64,
    /// Its interval.
    pub interval: Option<(f64, f64)>,
    /// What is told on hover, before the value.
    pub hint: String,
    /// Where it leads.
    pub href: Option<String>,
}

/// A line.
#[derive(Debug, Clone)]
pub struct Series {
    /// Its name.
    pub name: String,
    /// The class of its colour.
    pub class: &'static str,
    /// Its points, from left to right.
    pub points: Vec<Point>,
}

/// A vertical mark: something changed here.
#[derive(Debug, Clone)]
pub struct Marker {
    /// Where.
    pub x: f64,
    /// What changed.
    pub label: String,
}

/// What a chart of lines shows.
#[derive(Debug, Clone)]
pub struct Lines {
    /// What x is: its name; None for times.
    pub x: Option<&'static str>,
    /// What the values are.
    pub unit: Unit,
    /// The lines.
    pub series: Vec<Series>,
    /// The marks.
    pub markers: Vec<Marker>,
}

impl Chart {
    /// Lines, each with the band of its intervals.
    pub fn lines(id: &str, caption: &str, lines: &Lines) -> Chart {
        let all = || lines.series.iter().flat_map(|series| &series.points);
        let values = all().flat_map(|point| {
            let (low, high) = point.interval.unwrap_or((point.value, point.value));
            [point.value, low, high]
        });
        let y = Scale::new(scale::ends(lines.unit, values), (BOTTOM, TOP));
        let places = || all().map(|point| point.x).chain(lines.markers.iter().map(|marker| marker.x));
        let (first, last) = places().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
        let x = Scale::new(if first <= last { (first, last) } else { (0.0, 1.0) }, (LEFT + 8.0, RIGHT - 8.0));
        let svg = html! {
            (axes(lines, &x, &y))
            @for (number, marker) in lines.markers.iter().enumerate() { (mark(marker, number, &x)) }
            @for series in &lines.series { (line(series, lines.unit, &x, &y)) }
            (legend(&lines.series))
        };
        Chart::new(id, caption, SIZE, svg, twin(id, caption, lines))
    }
}

fn axes(lines: &Lines, x: &Scale, y: &Scale) -> Markup {
    let across: Vec<(f64, String)> = match lines.x {
        None => x.times(6),
        Some(name) => counts(x, name),
    };
    html! {
        g.axis {
            @for tick in y.ticks(5) {
                line x1=(LEFT) x2=(RIGHT) y1=(y.at(tick)) y2=(y.at(tick)) {}
                text x=(LEFT - 6.0) y=(y.at(tick) + 4.0) text-anchor="end" { (axis_text(lines.unit, tick)) }
            }
            @for (tick, label) in across {
                text x=(inside(x.at(tick), &label)) y=(BOTTOM + 18.0) text-anchor="middle" { (label) }
            }
            text x="4" y=(TOP - 12.0) { (lines.unit.name()) }
            @if let Some(name) = lines.x { text x=(RIGHT) y=(BOTTOM + 18.0) text-anchor="end" { (name) } }
        }
    }
}

/// Whole numbers along an axis of counts, as far as its name at the end leaves room.
fn counts(x: &Scale, name: &str) -> Vec<(f64, String)> {
    let room = RIGHT - text_width(name, FONT) - 6.0;
    let ticks = x.ticks(8).into_iter().filter(|tick| (tick - tick.round()).abs() < 1e-9);
    let labelled = ticks.map(|tick| (tick, format::quantity(tick.round())));
    labelled.filter(|(tick, label)| x.at(*tick) + text_width(label, FONT) / 2.0 <= room).collect()
}

/// Where a text that is centred at `x` stands so that nothing of it is cut.
fn inside(x: f64, text: &str) -> f64 {
    let half = (text_width(text, FONT) / 2.0).ceil();
    x.min(SIZE.0 - half).max(half)
}

/// An axis has no decimals that say nothing.
pub(super) fn axis_text(unit: Unit, tick: f64) -> String {
    match unit {
        Unit::Share | Unit::Points => super::level((tick * 1000.0).round() / 10.0),
        _ => unit.shown(tick),
    }
}

fn mark(marker: &Marker, number: usize, x: &Scale) -> Markup {
    // Names of neighbours stand below each other.
    let y = TOP + 8.0 + 12.0 * (number % 4) as f64;
    let at = x.at(marker.x);
    let (anchor, text_at) = if at > (LEFT + RIGHT) / 2.0 { ("end", at - 3.0) } else { ("start", at + 3.0) };
    html! {
        g.marker {
            title { (marker.label) }
            line x1=(at) x2=(at) y1=(TOP) y2=(BOTTOM) {}
            text x=(text_at) y=(y) text-anchor=(anchor) { (format::clipped(&marker.label, 32)) }
        }
    }
}

fn line(series: &Series, unit: Unit, x: &Scale, y: &Scale) -> Markup {
    let every = series.points.len().div_ceil(POINTS_MAX).max(1);
    let last = series.points.len().saturating_sub(1);
    let drawn: Vec<&Point> = series
        .points
        .iter()
        .enumerate()
        .filter(|(at, _)| at % every == 0 || *at == last)
        .map(|(_, point)| point)
        .collect();
    let place = |px: f64, py: f64| format!("{},{}", x.at(px), y.at(py));
    let path: Vec<String> = drawn.iter().map(|point| place(point.x, point.value)).collect();
    let ends: Vec<(&&Point, (f64, f64))> = drawn.iter().filter_map(|point| Some((point, point.interval?))).collect();
    let above = ends.iter().map(|(point, (_, high))| place(point.x, *high));
    let below = ends.iter().rev().map(|(point, (low, _))| place(point.x, *low));
    let band: Vec<String> = above.chain(below).collect();
    html! {
        g class={ "series " (series.class) } {
            @if ends.len() > 1 { polygon.band points=(band.join(" ")) {} }
            polyline.line points=(path.join(" ")) {}
            @if drawn.len() <= DOTS_MAX {
                @for point in &drawn { (dot(series, point, unit, x, y)) }
            }
        }
    }
}

fn dot(series: &Series, point: &Point, unit: Unit, x: &Scale, y: &Scale) -> Markup {
    let ends =
        point.interval.map_or_else(String::new, |(low, high)| format!(" [{}, {}]", unit.shown(low), unit.shown(high)));
    let hint = format!("{}\n{} {} {}{ends}", series.name, point.hint, unit.shown(point.value), unit.name());
    let (px, py) = (x.at(point.x), y.at(point.value));
    html! {
        g {
            title { (hint) }
            @match &point.href {
                Some(href) => a href=(href) aria-label=(hint) { (spot(series.class, (px, py), 4.0)) },
                None => (spot(series.class, (px, py), 3.0)),
            }
        }
    }
}

/// Names beside their colours, where there is more than one line.
fn legend(series: &[Series]) -> Markup {
    let mut at = LEFT;
    let named: Vec<(f64, &Series)> = series
        .iter()
        .map(|series| {
            let here = at;
            at += 26.0 + text_width(&format::clipped(&series.name, NAME_MAX), FONT).ceil();
            (here, at, series)
        })
        // Behind them is room to say how many more there are.
        .take_while(|(_, end, _)| *end <= RIGHT - 80.0)
        .map(|(here, _, series)| (here, series))
        .collect();
    html! {
        g.legend {
            @for (at, series) in &named {
                g class=(series.class) {
                    line.line x1=(at) x2=(at + 14.0) y1="284" y2="284" {}
                    (spot(series.class, (at + 7.0, 284.0), 3.0))
                    text x=(at + 18.0) y="288" { (format::clipped(&series.name, NAME_MAX)) }
                }
            }
            @if named.len() < series.len() { text x=(RIGHT) y="288" text-anchor="end" { "and " (series.len() - named.len()) " more" } }
        }
    }
}

fn twin(id: &str, caption: &str, lines: &Lines) -> Table {
    let x = match lines.x {
        None => Column::time("time", "Time"),
        Some(name) => Column::number("x", name, ""),
    };
    let columns = vec![
        Column::text("series", "Series"),
        x,
        Column::number("value", "Value", lines.unit.name()),
        Column::number("low", "From", lines.unit.name()),
        Column::number("high", "To", lines.unit.name()),
        Column::text("what", "What"),
    ];
    let mut table = Table::new(id, caption, columns);
    let figure = |value: f64| Cell::new(number(value), lines.unit.shown(value));
    for series in &lines.series {
        for point in &series.points {
            let at = match lines.x {
                None => Cell::time(scale::time_of(point.x)),
                Some(_) => Cell::new(number(point.x), format::quantity(point.x)),
            };
            let (low, high) = point
                .interval
                .map_or_else(|| (Cell::missing(), Cell::missing()), |(low, high)| (figure(low), figure(high)));
            let cells = vec![Cell::text(&series.name), at, figure(point.value), low, high, Cell::text(&point.hint)];
            table.row(point.href.clone(), cells);
        }
    }
    table
}

pub(super) fn number(value: f64) -> Value {
    serde_json::Number::from_f64(value).map_or(Value::Null, Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_below_the_axis_is_moved_in_from_the_edge() {
        // Eleven characters, of which one is a blank and one a colon: 12 · (9 · 0.66 + 2 · 0.4) / 2 = 40.4.
        assert_eq!(inside(736.0, "11-22 12:38"), 719.0);
        assert_eq!(inside(400.0, "11-22 12:38"), 400.0);
        assert_eq!(inside(8.0, "11-22 12:38"), 41.0);
    }

    #[test]
    fn steps_are_whole_and_leave_room_for_their_name() {
        let steps = |ends| counts(&Scale::new(ends, (64.0, 728.0)), "step").into_iter().map(|(_, label)| label);
        // 20 stands at the end, where "step" is.
        assert_eq!(steps((1.0, 20.0)).collect::<Vec<_>>(), ["5", "10", "15"]);
        // Halves and fifths of a step are none.
        assert_eq!(steps((20.0, 20.0)).collect::<Vec<_>>(), ["20"]);
    }

    #[test]
    fn names_that_do_not_fit_the_legend_are_counted() {
        let series = |name: &str| Series { name: name.to_string(), class: "k0", points: Vec::new() };
        // 26 and 12 · 28 · 0.66 = 222 each: two of them end at 552, a third one at 800.
        let shown = legend(&[series(&"a".repeat(28)), series(&"b".repeat(28)), series(&"c".repeat(28))]).into_string();
        assert_eq!((shown.matches("<line").count(), shown.contains(">and 1 more<")), (2, true), "{shown}");
    }
}
