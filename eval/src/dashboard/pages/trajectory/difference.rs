//! Two attempts beside one another: what they came to, which calls they share, where they part, and what the open turn says
//! and saw otherwise.

use std::time::Duration;

use maud::{Markup, html};
use similar::{Algorithm, ChangeTag, DiffOp, TextDiff, capture_diff_slices};

use super::aside::sign;
use super::row::{Calls, Head, Turn, Verdict};
use crate::dashboard::format::{MISSING, clipped, count};
use crate::dashboard::request::{Asked, path_part};
use crate::dashboard::text::{Text, beginning, block};

/// Turns of each attempt that are held against one another.
pub(super) const TURNS_MAX: usize = 2_000;
/// Characters of a text that are compared word by word.
const WORDS_CHARS_MAX: usize = 20_000;
/// Time for a comparison word by word; what takes longer is compared more coarsely.
const WORDS_TIME: Duration = Duration::from_millis(500);
/// Characters of an answer.
const ANSWER_CHARS_MAX: usize = 4_000;
/// Characters of a call in the list.
const CALL_CHARS_MAX: usize = 160;

/// A line of the comparison: a turn of the one, of the other, or of both.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    /// The same call; whether the same came back.
    Both { left: usize, right: usize, same_observation: bool },
    /// A turn that the other has not.
    Left(usize),
    /// A turn that only the other has.
    Right(usize),
}

/// The turns of two attempts in one order, by the calls that they share (Myers' difference).
fn lines(left: &Calls, right: &Calls) -> Vec<Line> {
    let keys = |calls: &Calls| -> Vec<(Option<String>, Option<String>)> {
        calls.iter().map(|(tool, arguments, _)| (tool.clone(), arguments.clone())).collect()
    };
    let digest = |calls: &Calls, at: usize| calls.get(at).and_then(|(_, _, digest)| digest.clone());
    let mut lines = Vec::new();
    for op in capture_diff_slices(Algorithm::Myers, &keys(left), &keys(right)) {
        match op {
            DiffOp::Equal { old_index, new_index, len } => lines.extend((0..len).map(|at| {
                let (one, other) = (old_index + at, new_index + at);
                let same_observation = digest(left, one) == digest(right, other);
                Line::Both { left: one, right: other, same_observation }
            })),
            op => {
                lines.extend(op.old_range().map(Line::Left));
                lines.extend(op.new_range().map(Line::Right));
            }
        }
    }
    lines
}

/// The turn of the other attempt that stands beside a turn of this one.
pub(super) fn counterpart(left: &Calls, right: &Calls, turn: usize) -> Option<usize> {
    lines(left, right).into_iter().find_map(|line| match line {
        Line::Both { left, right, .. } if left == turn => Some(right),
        _ => None,
    })
}

/// The comparison as a table; links lead to the turns.
pub(super) fn table(asked: &Asked, other: &str, left: &Calls, right: &Calls) -> Markup {
    let lines = lines(left, right);
    let here = |turn: usize| asked.with("turn", Some(&(turn + 1).to_string()));
    let there = |turn: usize| format!("/trajectories/{}?turn={}", path_part(other), turn + 1);
    let shared = lines.iter().filter(|line| matches!(line, Line::Both { .. })).count();
    html! {
        section.part {
            h3 { "Against attempt " a href={ "/trajectories/" (path_part(other)) } { code { (other) } } }
            p.remark {
                (shared) " calls in common, " (left.len().saturating_sub(shared)) " here alone, "
                (right.len().saturating_sub(shared)) " there alone"
            }
            div.scroll tabindex="0" { table.difference {
                thead { tr { th scope="col" { "here" } th scope="col" { "there" } th scope="col" { "call" } th scope="col" { "difference" } } }
                tbody { @for line in &lines { @match line {
                    Line::Both { left: one, right: two, same_observation } => tr {
                        td.n { a href=(here(*one)) { (one + 1) } } td.n { a href=(there(*two)) { (two + 1) } } td { (call(left, *one)) }
                        td { @if *same_observation { "same" } @else { "≠ other observation" } }
                    }
                    Line::Left(one) => tr.left { td.n { a href=(here(*one)) { (one + 1) } } td {} td { (call(left, *one)) } td { "− here alone" } }
                    Line::Right(two) => tr.right { td {} td.n { a href=(there(*two)) { (two + 1) } } td { (call(right, *two)) } td { "+ there alone" } }
                } } }
            } }
        }
    }
}

/// What both attempts came to: policy, answer, and the verdicts that hold.
pub(super) fn ends(here: (&Head, &[Verdict]), there: (&Head, &[Verdict])) -> Markup {
    let sides = [here, there];
    html! {
        div.scroll tabindex="0" { table.ends {
            thead { tr { td {} th scope="col" { "here" } th scope="col" { "there" } } }
            tbody {
                tr { th scope="row" { "policy" } @for (head, _) in sides { td { (Text(head.policy_model.as_deref().unwrap_or(MISSING))) } } }
                tr { th scope="row" { "answer" } @for (head, _) in sides { td { @match &head.answer {
                    Some(answer) => (block(answer, ANSWER_CHARS_MAX, None)),
                    None => { "none: ended by “" (head.termination) "”" },
                } } } }
                tr { th scope="row" { "verdicts" } @for (_, verdicts) in sides { td {
                    @for verdict in verdicts.iter().filter(|verdict| verdict.current) {
                        p { (sign(&verdict.verdict)) " " (verdict.stage) @if let Some(judge) = &verdict.judge { " by " (Text(judge)) } }
                    }
                } } }
            }
        } }
    }
}

/// What the open turn and its counterpart say and saw otherwise.
pub(super) fn turns(number: usize, turn: &Turn, other_number: usize, other: &Turn) -> Markup {
    let title = |what| format!("{what} of turn {} here and of turn {} there", number + 1, other_number + 1);
    let [thoughts, seen @ [here, there]] = [[&turn.thought, &other.thought], [&turn.observation, &other.observation]]
        .map(|texts| texts.map(|text| text.as_deref().unwrap_or_default()));
    html! {
        (words(&title("Thought"), thoughts))
        @if here != there { (words(&title("Observation"), seen)) }
    }
}

/// Where two texts differ, word by word.
fn words(title: &str, [one, two]: [&str; 2]) -> Markup {
    let ((one, left_one), (two, left_two)) = (beginning(one, WORDS_CHARS_MAX), beginning(two, WORDS_CHARS_MAX));
    let difference = TextDiff::configure().timeout(WORDS_TIME).diff_words(one, two);
    html! {
        section.part {
            h3 { (title) }
            pre.text dir="auto" tabindex="0" { @for change in difference.iter_all_changes() { @match change.tag() {
                ChangeTag::Equal => (Text(change.value())),
                ChangeTag::Delete => del { (Text(change.value())) },
                ChangeTag::Insert => ins { (Text(change.value())) },
            } } }
            @if left_one + left_two > 0 { p.remark { "The first " (count(WORDS_CHARS_MAX as u64)) " characters are compared." } }
        }
    }
}

fn call(calls: &Calls, at: usize) -> Markup {
    let Some((tool, arguments, _)) = calls.get(at) else { return html! {} };
    html! {
        @match tool {
            Some(tool) => { code { (Text(tool)) } " " (Text(&clipped(arguments.as_deref().unwrap_or_default(), CALL_CHARS_MAX))) },
            None => "answer",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(texts: &[(&str, &str)]) -> Calls {
        let call = |(arguments, digest): &(&str, &str)| {
            (Some("search".to_string()), Some(arguments.to_string()), Some(digest.to_string()))
        };
        texts.iter().map(call).collect()
    }

    #[test]
    fn attempts_are_aligned_by_the_calls_that_they_share() {
        let left = calls(&[("a", "1"), ("b", "2"), ("c", "3")]);
        let right = calls(&[("a", "1"), ("x", "9"), ("c", "4")]);
        assert_eq!(
            lines(&left, &right),
            [
                Line::Both { left: 0, right: 0, same_observation: true },
                Line::Left(1),
                Line::Right(1),
                Line::Both { left: 2, right: 2, same_observation: false },
            ]
        );
        assert_eq!((counterpart(&left, &right, 2), counterpart(&left, &right, 1)), (Some(2), None));
    }

    #[test]
    fn words_that_differ_are_marked_and_stay_text() {
        let turn = |thought: &str, observation: &str| Turn {
            thought: Some(thought.to_string()),
            observation: Some(observation.to_string()),
            ..Turn::default()
        };
        let shown = turns(0, &turn("go <north> now", "seen"), 4, &turn("go south now", "seen")).into_string();
        assert!(shown.contains("Thought of turn 1 here and of turn 5 there"), "{shown}");
        assert!(shown.contains("<del>&lt;north&gt;</del><ins>south</ins>"), "{shown}");
        assert!(!shown.contains("Observation"), "{shown}");
        let shown = turns(0, &turn("go", "42 bridges"), 4, &turn("go", "<b>43</b> bridges")).into_string();
        assert!(shown.contains("Observation of turn 1 here and of turn 5 there"), "{shown}");
        assert!(shown.contains("<del>42</del><ins>&lt;b&gt;43&lt;/b&gt;</ins> bridges"), "{shown}");
    }

    #[test]
    fn both_answers_and_the_verdicts_that_hold_stand_at_the_head() {
        let head = |answer: Option<&str>| Head {
            answer: answer.map(str::to_string),
            termination: "turns".to_string(),
            policy_model: Some("alpha".to_string()),
            ..Head::default()
        };
        let verdict = |verdict: &str, current| Verdict {
            verdict: verdict.to_string(),
            stage: "correctness".to_string(),
            current,
            ..Verdict::default()
        };
        let (pass, fail) = ([verdict("pass", true), verdict("fail", false)], [verdict("fail", true)]);
        let shown = ends((&head(Some("<Lomé>")), &pass), (&head(None), &fail)).into_string();
        assert!(shown.contains("&lt;Lomé&gt;") && shown.contains("none: ended by “turns”"), "{shown}");
        assert_eq!((shown.matches("▲ pass").count(), shown.matches("▼ fail").count()), (1, 1), "{shown}");
    }
}
