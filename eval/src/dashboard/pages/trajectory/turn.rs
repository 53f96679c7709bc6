//! One turn: the thought, the call as arguments that can be read, and what came back.

use maud::{Markup, html};
use serde_json::Value;
use webdancer_agent::format::{Action, Turn as Written, render_observation};

use super::row::{Head, Stored, Turn};
use crate::dashboard::format::{clipped, count, duration_ms};
use crate::dashboard::page::id;
use crate::dashboard::request::path_part;
use crate::dashboard::text::{SHOWN_CHARS_MAX, Text, block, first_lines};

/// Lines of a thought before it is folded.
const THOUGHT_LINES: usize = 12;
/// Lines of an observation that are shown before it is opened.
const OBSERVATION_LINES: usize = 4;
/// Addresses of one call that are looked up.
const URLS_MAX: usize = 10;

/// A turn as a page shows it.
pub(super) fn turn(head: &Head, number: usize, turn: &Turn, pages: &[Stored]) -> Markup {
    let last = number + 1 == head.turns as usize;
    html! {
        @if last && let Some(instruction) = &turn.final_instruction {
            section.part { h3 { "Asked for the answer" } (block(instruction, SHOWN_CHARS_MAX, None)) }
        }
        section.part {
            h3 { "Thought" }
            @match turn.thought.as_deref() {
                Some(thought) => (folded(thought, THOUGHT_LINES, &whole(head, number, "thought"))),
                None => p.remark { "none that could be read; the raw text has what was written" },
            }
        }
        @if let Some(tool) = &turn.tool {
            section.part {
                h3 { "Call " code { (Text(tool)) } @if let Some(outcome) = &turn.outcome { " " span.outcome { (outcome) } } }
                (arguments(turn.arguments.as_deref().unwrap_or_default(), pages))
            }
        }
        @if last && turn.tool.is_none() && let Some(answer) = &head.answer {
            section.part { h3 { "Answer" } (block(answer, SHOWN_CHARS_MAX, None)) }
        }
        @if let Some(observation) = &turn.observation {
            section.part {
                h3 { "Observation " small { (count(observation.chars().count() as u64)) " characters" } }
                (folded(observation, OBSERVATION_LINES, &whole(head, number, "observation")))
                @if let Some(digest) = &turn.observation_digest { p.remark { "digest " (id(digest)) } }
            }
        }
    }
}

/// What stands above a turn: when, how long, by which weights.
pub(super) fn measures(turn: &Turn) -> Markup {
    let tokens = |n: i64| count(u64::try_from(n).unwrap_or(0));
    html! {
        p.remark {
            @if let Some(ms) = turn.ms { span title={ (ms) " ms" } { (duration_ms(ms as f64)) } " · " }
            @if let Some(read) = turn.input_tokens { (tokens(read)) " tokens read · " }
            @if let Some(written) = turn.output_tokens { (tokens(written)) " tokens written · " }
            @if let Some(version) = turn.policy_version { "policy version " (version) " · " }
            (turn.outcome.as_deref().unwrap_or("no outcome told"))
        }
    }
}

/// A turn as it was written, byte for byte, and the message that answered it.
pub(super) fn raw(head: &Head, number: usize, turn: &Turn) -> Markup {
    let observation = turn.observation.as_deref().map(render_observation);
    html! {
        section.part { h3 { "Written by the policy" } (block(&written(head, number, turn), SHOWN_CHARS_MAX, Some(&whole(head, number, "raw")))) }
        @if let Some(observation) = &observation {
            section.part { h3 { "Given to the policy" } (block(observation, SHOWN_CHARS_MAX, Some(&whole(head, number, "observation")))) }
        }
    }
}

/// The text of a turn: as kept, or as its parts render.
pub(super) fn written(head: &Head, number: usize, turn: &Turn) -> String {
    if let Some(raw) = &turn.raw {
        return raw.clone();
    }
    let last = number + 1 == head.turns as usize;
    let action = match (&turn.tool, &turn.arguments) {
        (Some(name), Some(arguments)) => Action::Tool { name: name.as_str().into(), arguments },
        _ if last => Action::Answer(head.answer.as_deref().unwrap_or_default()),
        _ => return turn.thought.clone().unwrap_or_default(),
    };
    Written { thought: turn.thought.as_deref().unwrap_or_default(), action }.render()
}

/// Where a part of a turn is had in full, as plain text.
fn whole(head: &Head, number: usize, part: &str) -> String {
    format!("/trajectories/{}/turns/{}/{part}", path_part(&head.trajectory_id), number + 1)
}

/// A text of which more than so many lines are folded. `details` needs no script.
fn folded(text: &str, lines: usize, whole: &str) -> Markup {
    let (shown, left) = first_lines(text, lines);
    html! {
        @if left == 0 {
            (block(text, SHOWN_CHARS_MAX, Some(whole)))
        } @else {
            details.fold {
                summary { span.first { (Text(&clipped(shown, 2_000))) } span.more { (left) " more lines" } }
                (block(text, SHOWN_CHARS_MAX, Some(whole)))
            }
        }
    }
}

/// The arguments of a call: names and values where they are a JSON object, else the text as written.
fn arguments(text: &str, pages: &[Stored]) -> Markup {
    match serde_json::from_str(text) {
        Ok(Value::Object(members)) => html! {
            dl.arguments {
                @for (name, value) in &members { div { dt { (Text(name)) } dd { (argument(value, pages)) } } }
            }
        },
        _ => block(text, SHOWN_CHARS_MAX, None),
    }
}

fn argument(value: &Value, pages: &[Stored]) -> Markup {
    match value {
        Value::String(text) => html! { span.value dir="auto" { (Text(text)) } (stored(text, pages)) },
        Value::Array(items) if items.iter().all(Value::is_string) => html! {
            ul { @for text in items.iter().filter_map(Value::as_str) { li dir="auto" { (Text(text)) (stored(text, pages)) } } }
        },
        other => html! { pre.text tabindex="0" { (Text(&serde_json::to_string_pretty(other).unwrap_or_default())) } },
    }
}

/// A link to the page as the attempt read it, or else to what the lake has of the address now, which may be other; the address
/// stays text.
fn stored(url: &str, pages: &[Stored]) -> Markup {
    let found = pages.iter().find(|page| page.url == url);
    html! {
        @if let Some(Stored { digest, as_read, .. }) = found {
            " " a href={ "/pages/" (path_part(digest)) } { @if *as_read { "page as read" } @else { "page as stored last" } }
        }
    }
}

/// The addresses that a call names, as far as they are looked up.
pub(super) fn urls(arguments: &str) -> Vec<String> {
    let Ok(Value::Object(members)) = serde_json::from_str(arguments) else { return Vec::new() };
    let is_url = |text: &&str| text.starts_with("http://") || text.starts_with("https://");
    let texts = members.values().flat_map(|value| match value {
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        value => value.as_str().into_iter().collect::<Vec<_>>(),
    });
    texts.filter(is_url).take(URLS_MAX).map(str::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_names_with_values_and_addresses_are_no_links() {
        let shown = arguments(r#"{"url":["http://a/<b>"],"goal":"x & y","n":{"m":1}}"#, &[]).into_string();
        assert!(shown.contains("<dt>url</dt><dd><ul><li dir=\"auto\">http://a/&lt;b&gt;</li></ul></dd>"), "{shown}");
        assert!(shown.contains("<dt>goal</dt><dd><span class=\"value\" dir=\"auto\">x &amp; y</span></dd>"), "{shown}");
        assert!(!shown.contains("href"), "{shown}");
        assert!(arguments("{broken", &[]).into_string().contains("{broken"));
    }

    #[test]
    fn an_address_that_is_stored_leads_to_the_page_as_it_was_read_or_as_it_was_stored_last() {
        let page =
            |url: &str, digest: &str, as_read| Stored { url: url.to_string(), digest: digest.to_string(), as_read };
        let pages = [page("http://a/", "d1", true), page("http://a/", "d2", false), page("http://b/", "d2", false)];
        let shown = arguments(r#"{"url":["http://a/","http://b/","http://c/"]}"#, &pages).into_string();
        assert!(shown.contains("http://a/ <a href=\"/pages/d1\">page as read</a>"), "{shown}");
        assert!(shown.contains("http://b/ <a href=\"/pages/d2\">page as stored last</a>"), "{shown}");
        assert_eq!(shown.matches("<a ").count(), 2);
    }

    #[test]
    fn addresses_are_found_in_texts_and_lists() {
        assert_eq!(urls(r#"{"url":["http://a","ftp://b",3],"goal":"https://c"}"#), ["http://a", "https://c"]);
        assert!(urls("[]").is_empty() && urls("{").is_empty());
    }

    #[test]
    fn a_turn_is_written_as_its_parts_render_unless_its_text_was_kept() {
        let head = Head { turns: 2, answer: Some("Lomé".to_string()), ..Head::default() };
        let call = Turn {
            thought: Some("t".to_string()),
            tool: Some("search".to_string()),
            arguments: Some("{}".to_string()),
            ..Turn::default()
        };
        assert!(written(&head, 0, &call).contains("search"));
        let answer = Turn { thought: Some("t".to_string()), ..Turn::default() };
        assert!(written(&head, 1, &answer).contains("Lomé"));
        assert_eq!(written(&head, 0, &Turn { raw: Some("kept".to_string()), ..call }), "kept");
    }

    #[test]
    fn long_thoughts_are_folded_and_short_ones_are_not() {
        let twelve = ["line"; 12].join("\n");
        assert!(!folded(&twelve, THOUGHT_LINES, "/w").into_string().contains("details"));
        let thirteen = vec!["line"; 13].join("\n");
        assert!(folded(&thirteen, THOUGHT_LINES, "/w").into_string().contains("1 more lines"));
    }
}
