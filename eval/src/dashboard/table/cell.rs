//! Cells: an exact value, and what people see of it.

use chrono::{DateTime, Utc};
use maud::{Markup, html};
use serde_json::Value;

use super::super::text::Text;
use super::super::{format, page};
use crate::stats::mean::Estimate;

/// A cell.
#[derive(Debug, Clone)]
pub struct Cell {
    value: Value,
    shown: Shown,
    hint: Option<String>,
    href: Option<String>,
}

#[derive(Debug, Clone)]
enum Shown {
    Text(String),
    Markup(Markup),
}

impl Cell {
    /// A value that is shown as this text.
    pub fn new(value: impl Into<Value>, shown: impl Into<String>) -> Cell {
        Cell { value: value.into(), shown: Shown::Text(shown.into()), hint: None, href: None }
    }

    /// A value that is shown as this markup.
    pub fn marked(value: impl Into<Value>, shown: Markup) -> Cell {
        Cell { value: value.into(), shown: Shown::Markup(shown), hint: None, href: None }
    }

    /// Nothing: `–`.
    pub fn missing() -> Cell {
        Cell::new(Value::Null, format::MISSING)
    }

    /// A text.
    pub fn text(text: impl Into<String>) -> Cell {
        let text = text.into();
        Cell::new(text.clone(), text)
    }

    /// A text that may be missing.
    pub fn maybe(text: Option<&str>) -> Cell {
        text.map_or_else(Cell::missing, Cell::text)
    }

    /// A long text: its beginning, with what cannot be seen made visible, the whole on hover.
    pub fn long(text: &str, characters: usize) -> Cell {
        let shown = format::clipped(text, characters);
        let cell = Cell::marked(text, html! { bdi { (Text(&shown)) } });
        if shown == text { cell } else { cell.hinted(format::clipped(text, 2_000)) }
    }

    /// An id: its beginning with a copy button, the whole on hover.
    pub fn id(id: &str) -> Cell {
        let shown = html! { span.id { code { (format::short_id(id)) } (page::copy(id)) } };
        Cell::marked(id, shown).hinted(id)
    }

    /// A count.
    pub fn count(value: u64) -> Cell {
        Cell::new(value, format::count(value))
    }

    /// A number with so many decimals.
    pub fn number(value: Option<f64>, decimals: usize) -> Cell {
        value.map_or_else(Cell::missing, |value| {
            Cell::new(value, format!("{value:.decimals$}")).hinted(value.to_string())
        })
    }

    /// A share in percent; the value in downloads is the share.
    pub fn percent(share: Option<f64>) -> Cell {
        share.map_or_else(Cell::missing, |share| Cell::new(share, format::percent(share)).hinted(share.to_string()))
    }

    /// An estimate in percent with its interval; the value in downloads is the share.
    pub fn estimate(estimate: Option<&Estimate>, confidence: f64) -> Cell {
        let Some(of) = estimate else { return Cell::missing() };
        Cell::new(of.value, format::estimate(estimate)).hinted(format::estimate_hint(of, confidence))
    }

    /// Milliseconds.
    pub fn duration_ms(ms: Option<f64>) -> Cell {
        ms.map_or_else(Cell::missing, |ms| Cell::new(ms, format::duration_ms(ms)).hinted(format!("{ms:.0} ms")))
    }

    /// A quantity with its magnitude.
    pub fn quantity(value: Option<f64>) -> Cell {
        value.map_or_else(Cell::missing, |value| Cell::new(value, format::quantity(value)).hinted(value.to_string()))
    }

    /// Money.
    pub fn money(value: Option<f64>) -> Cell {
        value.map_or_else(Cell::missing, |value| Cell::new(value, format::money(value)).hinted(value.to_string()))
    }

    /// A time.
    pub fn time(at: Option<DateTime<Utc>>) -> Cell {
        at.map_or_else(Cell::missing, |at| {
            Cell::new(format::exact_time(at), format::time(at)).hinted(format::exact_time(at))
        })
    }

    /// A policy with its colour.
    pub fn policy(name: &str, class: &str) -> Cell {
        Cell::marked(name, html! { span.policy { span class={ "swatch " (class) } aria-hidden="true" {} (name) } })
    }

    /// Errors: `! 3`, or nothing of none.
    pub fn errors(count: u64) -> Cell {
        match count {
            0 => Cell::new(0, ""),
            count => Cell::marked(count, html! { span.error { "! " (format::count(count)) } }),
        }
    }

    /// The cell with what is told on hover.
    #[must_use]
    pub fn hinted(mut self, hint: impl Into<String>) -> Cell {
        self.hint = Some(hint.into());
        self
    }

    /// The cell as a link.
    #[must_use]
    pub fn linked(mut self, href: impl Into<String>) -> Cell {
        self.href = Some(href.into());
        self
    }

    /// The exact value.
    pub fn value(&self) -> &Value {
        &self.value
    }

    pub(super) fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// What is shown; the first cell of a row that leads somewhere is its link.
    pub(super) fn markup(&self, row_href: Option<&str>) -> Markup {
        let shown = match &self.shown {
            Shown::Text(text) => html! { (text) },
            Shown::Markup(markup) => markup.clone(),
        };
        match self.href.as_deref().or(row_href) {
            Some(href) => html! { a href=(href) { (shown) } },
            None => shown,
        }
    }
}
