//! Dots with whiskers, one below the other: estimates to compare.

use maud::{Markup, html};

use super::lines::{axis_text, number};
use super::scale::{self, Beside, LABEL_MAX, Scale};
use super::{Chart, Unit, spot};
use crate::dashboard::format;
use crate::dashboard::table::{Cell, Column, Table};

const TOP: f64 = 14.0;
const LINE: f64 = 24.0;

/// One estimate.
#[derive(Debug, Clone)]
pub struct Dot {
    /// What it is of.
    pub label: String,
    /// The class of its colour.
    pub class: &'static str,
    /// The value; None is shown as missing.
    pub value: Option<f64>,
    /// Its interval.
    pub interval: Option<(f64, f64)>,
    /// What it rests on, told on hover.
    pub hint: String,
    /// Where it leads.
    pub href: Option<String>,
}

impl Chart {
    /// Estimates with their intervals.
    pub fn dots(id: &str, caption: &str, unit: Unit, dots: &[Dot]) -> Chart {
        let values = dots.iter().flat_map(|dot| {
            let (low, high) = dot.interval.map_or((dot.value, dot.value), |(low, high)| (Some(low), Some(high)));
            [dot.value, low, high].into_iter().flatten()
        });
        let labels: Vec<String> = dots.iter().map(|dot| format::clipped(&dot.label, LABEL_MAX)).collect();
        let figures: Vec<String> = dots.iter().map(|dot| figure(unit, dot)).collect();
        let beside = Beside::of(&labels, &figures);
        let x = Scale::new(scale::ends(unit, values), (beside.left, beside.right));
        let bottom = TOP + LINE * dots.len() as f64;
        let svg = html! {
            g.axis {
                @for tick in x.ticks(5) {
                    line class=(if tick == 0.0 { "zero" } else { "" }) x1=(x.at(tick)) x2=(x.at(tick)) y1=(TOP) y2=(bottom) {}
                    text x=(x.at(tick)) y=(bottom + 16.0) text-anchor="middle" { (axis_text(unit, tick)) }
                }
                text x=(beside.width - 6.0) y=(bottom + 16.0) text-anchor="end" { (unit.name()) }
            }
            @for (at, ((dot, label), figure)) in dots.iter().zip(&labels).zip(&figures).enumerate() {
                (line(dot, (label, figure), &beside, &x, TOP + LINE * (at as f64 + 0.5)))
            }
        };
        Chart::new(id, caption, (beside.width, bottom + 26.0), svg, twin(id, caption, unit, dots))
    }
}

fn line(dot: &Dot, (label, figure): (&str, &str), beside: &Beside, x: &Scale, y: f64) -> Markup {
    let drawn = html! {
        text.label x=(beside.left - 10.0) y=(y + 4.0) text-anchor="end" { (label) }
        @if let Some((low, high)) = dot.interval {
            path.whisker d={ "M" (x.at(low)) " " (y) "H" (x.at(high)) "M" (x.at(low)) " " (y - 4.0) "v8M" (x.at(high)) " " (y - 4.0) "v8" } {}
        }
        @if let Some(value) = dot.value { (spot(dot.class, (x.at(value), y), 4.5)) }
        text.figure x=(beside.figures) y=(y + 4.0) { (figure) }
    };
    html! {
        g class={ "series " (dot.class) } {
            title { (dot.label) "\n" (dot.hint) }
            @match &dot.href { Some(href) => a href=(href) { (drawn) }, None => (drawn) }
        }
    }
}

fn figure(unit: Unit, dot: &Dot) -> String {
    let Some(value) = dot.value else { return format::MISSING.to_string() };
    match dot.interval {
        Some((low, high)) if unit == Unit::Points => {
            format!("{} [{}, {}]", unit.shown(value), unit.shown(low), unit.shown(high))
        }
        Some((low, high)) => format!("{} ± {}", unit.shown(value), unit.shown((high - low) / 2.0)),
        None => unit.shown(value),
    }
}

fn twin(id: &str, caption: &str, unit: Unit, dots: &[Dot]) -> Table {
    let columns = vec![
        Column::text("label", "Of"),
        Column::number("value", "Value", unit.name()),
        Column::number("low", "From", unit.name()),
        Column::number("high", "To", unit.name()),
        Column::text("what", "What"),
    ];
    let mut table = Table::new(id, caption, columns);
    let cell =
        |value: Option<f64>| value.map_or_else(Cell::missing, |value| Cell::new(number(value), unit.shown(value)));
    for dot in dots {
        let (low, high) = (dot.interval.map(|ends| ends.0), dot.interval.map(|ends| ends.1));
        let cells = vec![Cell::text(&dot.label), cell(dot.value), cell(low), cell(high), Cell::text(&dot.hint)];
        table.row(dot.href.clone(), cells);
    }
    table
}
