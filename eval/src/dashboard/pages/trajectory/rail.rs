//! The rail: a window of turns, each with what it did, how long it took and how it went.

use maud::{Markup, html};

use super::row::Step;
use crate::dashboard::format::{count, duration_ms, quantity};
use crate::dashboard::request::Asked;

/// Turns that the rail shows at a time.
pub(super) const WINDOW: usize = 100;

/// The window that a turn is in: from, and up to without.
pub(super) fn window(turn: usize, turns: usize) -> (usize, usize) {
    let from = turn / WINDOW * WINDOW;
    (from, from.saturating_add(WINDOW).min(turns))
}

/// The rail with `open` as the open turn.
pub(super) fn rail(asked: &Asked, steps: &[Step], open: usize, turns: usize, answered: Option<&str>) -> Markup {
    let (from, to) = window(open, turns);
    let link = |turn: usize| asked.with("turn", Some(&(turn + 1).to_string()));
    html! {
        nav.rail aria-label="Turns" {
            p.remark { (count(turns as u64)) " turns" @if to - from < turns { ", " (from + 1) " to " (to) } }
            @if from > 0 { p { a href=(link(from - 1)) { "earlier turns" } } }
            ol start=(from + 1) {
                @for step in steps {
                    @let last = step.turn + 1 == turns;
                    li { a href=(link(step.turn)) data-row aria-current=[(step.turn == open).then_some("true")]
                        title=(hint(step)) {
                        span.step { (step.turn + 1) }
                        span.icon aria-hidden="true" { (icon(step.tool.as_deref())) }
                        span.what { (step.tool.as_deref().unwrap_or(if last { "answer" } else { "no call" })) }
                        @if let Some(mark) = mark(step, last.then_some(answered).flatten()) {
                            (mark)
                        }
                        @if let Some(ms) = step.ms { span.took { (duration_ms(ms as f64)) } }
                        @if let Some(tokens) = step.output_tokens { span.took { (quantity(tokens as f64)) " tok" } }
                    } }
                }
            }
            @if to < turns { p { a href=(link(to)) { "later turns" } } }
        }
    }
}

/// What a tool's calls are shown by.
fn icon(tool: Option<&str>) -> &'static str {
    match tool {
        Some("search") => "⌕",
        Some("visit") => "↗",
        Some(_) => "⚙",
        None => "■",
    }
}

/// Whether the call brought something, or the answer is correct; nothing where nobody knows.
fn mark(step: &Step, answered: Option<&str>) -> Option<Markup> {
    let (class, sign, name) = match (answered, step.outcome.as_deref()) {
        (Some("pass"), _) => ("good", "▲", "correct"),
        (Some("fail"), _) => ("bad", "▼", "wrong"),
        (Some(_), _) => ("error", "!", "not judged"),
        (None, None | Some("done")) => return None,
        (None, Some(outcome)) => ("error", "!", outcome),
    };
    Some(html! { span class=(class) { (sign) " " (name) } })
}

fn hint(step: &Step) -> String {
    let tokens = |name: &str, tokens: Option<i64>| tokens.map(|n| format!("{n} tokens {name}"));
    let took = step.ms.map(|ms| format!("{ms} ms"));
    let parts = [took, tokens("read", step.input_tokens), tokens("written", step.output_tokens), step.outcome.clone()];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_holds_the_open_turn_and_no_more_than_it_may() {
        assert_eq!(window(0, 3), (0, 3));
        assert_eq!(window(99, 1_000), (0, 100));
        assert_eq!(window(100, 1_000), (100, 200));
        assert_eq!(window(1_000, 1_001), (1_000, 1_001));
    }

    #[test]
    fn a_mark_says_how_it_went_and_is_never_colour_alone() {
        let step = |outcome: Option<&str>| Step { outcome: outcome.map(str::to_string), ..Step::default() };
        let shown = |step, answered| mark(&step, answered).map(|mark| mark.into_string());
        assert_eq!(shown(step(Some("done")), None), None);
        assert_eq!(shown(step(Some("miss")), None).unwrap(), "<span class=\"error\">! miss</span>");
        assert_eq!(shown(step(None), Some("fail")).unwrap(), "<span class=\"bad\">▼ wrong</span>");
        assert_eq!(shown(step(None), Some("error")).unwrap(), "<span class=\"error\">! not judged</span>");
    }
}
