//! Bars: quantities one below the other, the steps of a waterfall, and histograms.

use maud::{Markup, html};

use super::lines::{axis_text, number};
use super::scale::{self, Beside, LABEL_MAX, Scale};
use super::{Chart, Unit};
use crate::dashboard::format;
use crate::dashboard::table::{Cell, Column, Table};

const TOP: f64 = 10.0;
const LINE: f64 = 26.0;

/// A bar.
#[derive(Debug, Clone)]
pub struct Bar {
    /// What it is.
    pub label: String,
    /// The class of its colour.
    pub class: &'static str,
    /// Where it begins: 0, or in a waterfall where the step before ended.
    pub from: f64,
    /// Where it ends.
    pub to: f64,
    /// What is told on hover.
    pub hint: String,
    /// Where it leads.
    pub href: Option<String>,
}

impl Chart {
    /// Bars from left to right, one below the other. The steps of a waterfall are bars that begin where others end.
    pub fn bars(id: &str, caption: &str, unit: Unit, bars: &[Bar]) -> Chart {
        let labels: Vec<String> = bars.iter().map(|bar| format::clipped(&bar.label, LABEL_MAX)).collect();
        let mut figures: Vec<String> = bars.iter().map(|bar| unit.shown(bar.to - bar.from)).collect();
        // The unit stands below the figures.
        figures.push(unit.name().to_string());
        let beside = Beside::of(&labels, &figures);
        let x = Scale::new(
            scale::ends(unit, bars.iter().flat_map(|bar| [0.0, bar.from, bar.to])),
            (beside.left, beside.right),
        );
        let bottom = TOP + LINE * bars.len() as f64;
        let svg = html! {
            g.axis {
                @for tick in x.ticks(5) {
                    line x1=(x.at(tick)) x2=(x.at(tick)) y1=(TOP) y2=(bottom) {}
                    text x=(x.at(tick)) y=(bottom + 16.0) text-anchor="middle" { (axis_text(unit, tick)) }
                }
                text x=(beside.figures) y=(bottom + 16.0) { (unit.name()) }
            }
            @for (at, ((bar, label), figure)) in bars.iter().zip(&labels).zip(&figures).enumerate() {
                (line(bar, (label, figure), (unit, &beside), &x, TOP + LINE * at as f64))
            }
        };
        Chart::new(id, caption, (beside.width, bottom + 26.0), svg, twin(id, caption, unit, bars))
    }

    /// How values are spread: how many lie in each of `bins` equal ranges. Values that are not finite are left out.
    pub fn histogram(id: &str, caption: &str, unit: &'static str, values: &[f64], bins: usize) -> Chart {
        let values: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let width = if high > low { (high - low) / bins.max(1) as f64 } else { 1.0 };
        let mut counts = vec![
            0u64;
            if values.is_empty() {
                0
            } else if high > low {
                bins.max(1)
            } else {
                1
            }
        ];
        let last = counts.len().saturating_sub(1);
        for value in &values {
            if let Some(count) = counts.get_mut((((value - low) / width) as usize).min(last)) {
                *count += 1;
            }
        }
        let bars: Vec<Bar> = counts
            .iter()
            .enumerate()
            .map(|(at, count)| {
                let from = low + width * at as f64;
                let label = format!("{} to {} {unit}", format::quantity(from), format::quantity(from + width));
                Bar { hint: label.clone(), label, class: "k0", from: 0.0, to: *count as f64, href: None }
            })
            .collect();
        Chart::bars(id, &format!("{caption} (n = {})", values.len()), Unit::Number(""), &bars)
    }
}

fn line(bar: &Bar, (label, figure): (&str, &str), (unit, beside): (Unit, &Beside), x: &Scale, y: f64) -> Markup {
    let (from, to) = (x.at(bar.from.min(bar.to)), x.at(bar.from.max(bar.to)));
    let drawn = html! {
        text.label x=(beside.left - 10.0) y=(y + 17.0) text-anchor="end" { (label) }
        rect.bar x=(from) y=(y + 4.0) width=((to - from).max(0.5)) height=(LINE - 8.0) {}
        text.figure x=(beside.figures) y=(y + 17.0) { (figure) }
    };
    html! {
        g class={ "series " (bar.class) } {
            title { (bar.label) ": " (figure) " " (unit.name()) "\n" (bar.hint) }
            @match &bar.href { Some(href) => a href=(href) { (drawn) }, None => (drawn) }
        }
    }
}

fn twin(id: &str, caption: &str, unit: Unit, bars: &[Bar]) -> Table {
    let columns = vec![
        Column::text("label", "What"),
        Column::number("value", "Value", unit.name()),
        Column::number("from", "From", unit.name()),
        Column::number("to", "To", unit.name()),
    ];
    let mut table = Table::new(id, caption, columns);
    let cell = |value: f64| Cell::new(number(value), unit.shown(value));
    for bar in bars {
        table
            .row(bar.href.clone(), vec![Cell::text(&bar.label), cell(bar.to - bar.from), cell(bar.from), cell(bar.to)]);
    }
    table
}
