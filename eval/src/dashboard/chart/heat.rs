//! A heat map: things across, what was tried of each down, every cell with a mark that needs no colour.
//!
//! There are many things and few tries, so the map is cut into bands, one below the other, that fit a page.

use maud::{Markup, html};

use super::Chart;
use crate::dashboard::table::{Cell, Column, Table};

const LEFT: f64 = 34.0;
const TOP: f64 = 6.0;
const SIDE: f64 = 18.0;
/// Between two bands.
const GAP: f64 = 12.0;
/// Things in a band.
const ACROSS: usize = 40;

/// A cell of a heat map.
#[derive(Debug, Clone)]
pub struct Heat {
    /// The class of its colour: `right`, `wrong`, `unknown`.
    pub class: &'static str,
    /// The mark in it: a sign that says the same as the colour.
    pub mark: &'static str,
    /// What is told on hover.
    pub hint: String,
    /// Where it leads.
    pub href: Option<String>,
}

impl Chart {
    /// Cells of named things, in the order of `tries`; a thing may have fewer cells than there are tries.
    pub fn heat(id: &str, caption: &str, tries: &[String], things: &[(String, Vec<Option<Heat>>)]) -> Chart {
        let band = SIDE * tries.len() as f64;
        let bands = things.len().div_ceil(ACROSS);
        let width = LEFT + SIDE * things.len().clamp(1, ACROSS) as f64 + 8.0;
        let height = TOP + (band + GAP) * bands as f64;
        let svg = html! {
            @for (number, part) in things.chunks(ACROSS).enumerate() {
                @let top = TOP + (band + GAP) * number as f64;
                @for (at, name) in tries.iter().enumerate() {
                    text.label x=(LEFT - 6.0) y=(top + SIDE * at as f64 + 13.0) text-anchor="end" { (name) }
                }
                @for (across, (_, cells)) in part.iter().enumerate() {
                    @for (down, cell) in cells.iter().enumerate() {
                        @if let Some(cell) = cell { (square(cell, LEFT + SIDE * across as f64, top + SIDE * down as f64)) }
                    }
                }
            }
        };
        Chart::new(id, caption, (width, height), svg, twin(id, caption, tries, things))
    }
}

/// A cell. Keys go through the table beside it, not through hundreds of squares.
fn square(cell: &Heat, x: f64, y: f64) -> Markup {
    let drawn = html! {
        rect x=(x + 1.0) y=(y + 1.0) width=(SIDE - 2.0) height=(SIDE - 2.0) rx="2" {}
        text x=(x + SIDE / 2.0) y=(y + 13.0) text-anchor="middle" { (cell.mark) }
    };
    html! {
        g class={ "cell " (cell.class) } {
            title { (cell.hint) }
            @match &cell.href {
                Some(href) => a href=(href) tabindex="-1" aria-label=(cell.hint) { (drawn) },
                None => (drawn),
            }
        }
    }
}

fn twin(id: &str, caption: &str, tries: &[String], things: &[(String, Vec<Option<Heat>>)]) -> Table {
    let named = tries.iter().map(|name| Column::text(format!("attempt_{name}"), name.clone()));
    let all = std::iter::once(Column::text("of", "Of")).chain(named).collect();
    let mut table = Table::new(id, caption, all);
    for (name, cells) in things {
        let shown = (0..tries.len()).map(|at| match cells.get(at) {
            Some(Some(cell)) => Cell::new(cell.class, cell.mark),
            _ => Cell::missing(),
        });
        table.row(None, std::iter::once(Cell::text(name)).chain(shown).collect());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_beyond_a_band_stand_below_and_keep_their_marks() {
        let cell =
            |mark| Some(Heat { class: "right", mark, hint: format!("{mark} & <b>"), href: Some("/t/1".to_string()) });
        let things: Vec<(String, Vec<Option<Heat>>)> =
            (0..41).map(|n| (format!("q{n}"), vec![cell(if n == 40 { "last" } else { "x" })])).collect();
        let chart = Chart::heat("m", "Map", &["0".to_string()], &things);
        let svg = chart.file();
        // The 41st stands at the left again, one band of 18 and a gap of 12 below the first.
        assert!(svg.contains("<text x=\"43\" y=\"49\" text-anchor=\"middle\">last</text>"), "{svg}");
        assert!(svg.contains("aria-label=\"last &amp; &lt;b&gt;\""), "{svg}");
        assert_eq!(chart.table.json()[40], serde_json::json!({"of": "q40", "attempt_0": "right"}));
    }
}
