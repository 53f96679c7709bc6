//! What stands beside the turns: question, gold, answer, verdicts, reward, and where the attempt came from.

use maud::{Markup, html};

use super::row::{Attempt, Head, Question, Reward, Run, Verdict};
use crate::dashboard::fault::Fault;
use crate::dashboard::format::{MISSING, count, exact_time, parsed_time, short_id, time};
use crate::dashboard::page::{facts, id};
use crate::dashboard::request::path_part;
use crate::dashboard::text::{Text, block};

/// Characters of one text beside the turns; the whole stands in the turn or the event.
const CHARS_MAX: usize = 4_000;

/// Question, gold and answer; of a gated benchmark only that they are not shown.
pub(super) fn question(head: &Head, question: Option<&Question>, shown: bool) -> Markup {
    let asked = head.question.as_deref().or(question.map(|question| question.question.as_str()));
    html! {
        section.part {
            h2 { "Question" }
            @if !shown { p.remark { (Fault::restricted("The text of an attempt at a gated benchmark").to_string()) "." } }
            @else {
                @match asked { Some(text) => (block(text, CHARS_MAX, None)), None => p.remark { "not recorded" } }
                @if let Some(question) = question { h3 { "Gold" } (block(&question.answer, CHARS_MAX, None)) }
                h3 { "Answer" }
                @match &head.answer { Some(answer) => (block(answer, CHARS_MAX, None)), None => p.remark { "none: the attempt ended by “" (head.termination) "”" } }
            }
            p { a href={ "/questions/" (path_part(&head.qa_id)) } { "This question and all attempts at it" } }
        }
    }
}

/// Every verdict; the first of them are those that hold.
pub(super) fn verdicts(verdicts: &[Verdict], shown: bool) -> Markup {
    html! {
        section.part {
            h2 { "Verdicts" }
            @if verdicts.is_empty() { p.remark { "Nobody has judged this attempt: " code { "webdancer filter" } " or " code { "webdancer eval rescore" } } }
            @for verdict in verdicts {
                div.judged {
                    p {
                        (sign(&verdict.verdict)) " " b { (verdict.stage) } " "
                        @if let Some(judge) = &verdict.judge { "by " (Text(judge)) }
                        " · rules " (verdict.rule_version)
                        @if let Some(score) = verdict.score { " · score " (format!("{score:.3}")) }
                        @if !verdict.current { " · " small { "superseded" } }
                        " · " (moment(&verdict.event_time))
                    }
                    @if let Some(rationale) = verdict.rationale.as_deref().filter(|_| shown) { (block(rationale, CHARS_MAX, None)) }
                }
            }
        }
    }
}

/// ▲ ▼ or ! with the word: never colour alone.
pub(in crate::dashboard::pages) fn sign(verdict: &str) -> Markup {
    match verdict {
        "pass" => html! { span.good { "▲ pass" } },
        "fail" => html! { span.bad { "▼ fail" } },
        other => html! { span.error { "! " (Text(other)) } },
    }
}

/// The reward that was given last, and its parts.
pub(super) fn reward(rewards: &[Reward]) -> Markup {
    let Some(reward) = rewards.first() else { return html! {} };
    let part = |value: Option<f64>| value.map_or_else(|| MISSING.to_string(), |value| format!("{value:.3}"));
    html! {
        section.part {
            h2 { "Reward" }
            (facts([
                ("reward", html! { (format!("{:.3}", reward.reward)) }),
                ("format", html! { (part(reward.format)) }),
                ("answer", html! { (part(reward.answer)) }),
                ("overlong penalty", html! { (part(reward.overlong_penalty)) }),
                ("advantage", html! { (part(reward.advantage)) }),
                ("group", html! { @match &reward.group_id { Some(group) => (Text(group)), None => (MISSING) } }),
            ]))
            @if rewards.len() > 1 { p.remark { (rewards.len() - 1) " earlier rewards in the JSON" } }
        }
    }
}

/// Where it came from: policy, sampling, run, pin, web, lineage.
pub(super) fn origin(head: &Head, run: Option<&Run>) -> Markup {
    let text = |text: Option<&str>| html! { @match text { Some(text) => (Text(text)), None => (MISSING) } };
    let number = |number: Option<i64>| html! { @match number { Some(number) => (number), None => (MISSING) } };
    let tokens = |number: Option<i64>| {
        number.map_or_else(|| MISSING.to_string(), |number| count(u64::try_from(number).unwrap_or(0)))
    };
    let mut rows = vec![
        ("id", id(&head.trajectory_id)),
        ("policy", text(head.policy_model.as_deref())),
        ("policy version", number(head.policy_version)),
        ("checkpoint", link("/lineage/", head.policy_checkpoint_digest.as_deref())),
        ("run", link("/runs/", head.run_id.as_deref())),
        ("attempt", html! { (head.attempt) }),
        ("ended by", html! { (head.termination) }),
        ("tool calls", html! { (head.n_tool_calls) }),
        ("tokens", html! { (tokens(head.input_tokens)) " read, " (tokens(head.output_tokens)) " written" }),
        (
            "sampling",
            html! { @match head.sampling_parameters.as_deref() { Some(text) => code { (Text(text)) }, None => (MISSING) } },
        ),
        ("seed", number(head.seed)),
        ("prompt profile", text(head.prompt_profile.as_deref())),
        ("tokenizer", link("", head.tokenizer_digest.as_deref())),
    ];
    if let Some(run) = run {
        rows.push(("pin", link("/pins/", run.pin_id.as_deref())));
        rows.push(("web", text(run.web.as_deref())));
    }
    rows.push(("recorded", moment(&head.event_time)));
    rows.push(("source", text(head.source.as_deref())));
    html! {
        section.part {
            h2 { "Origin" }
            (facts(rows))
            p { a href={ "/lineage/" (path_part(&head.trajectory_id)) } { "Lineage" } }
        }
    }
}

/// A long id, cut, and linked where there is a page for it.
fn link(to: &str, id: Option<&str>) -> Markup {
    let Some(id) = id else { return html! { (MISSING) } };
    html! {
        @if to.is_empty() { code title=(id) { (short_id(id)) } }
        @else { a href={ (to) (path_part(id)) } title=(id) { code { (short_id(id)) } } }
    }
}

/// A time to the minute, exact on hover.
pub(in crate::dashboard::pages) fn moment(text: &str) -> Markup {
    match parsed_time(text) {
        Some(at) => html! { time datetime=(exact_time(at)) title=(exact_time(at)) { (time(at)) } },
        None => html! { (text) },
    }
}

/// The other attempts at the question: those before and after, and one to hold this against.
pub(super) fn attempts(head: &Head, attempts: &[Attempt]) -> Markup {
    let (before, after) = neighbours(&head.trajectory_id, attempts);
    let at = |attempt: &Attempt| format!("/trajectories/{}", path_part(&attempt.trajectory_id));
    let others = attempts.iter().filter(|other| other.trajectory_id != head.trajectory_id).take(20);
    html! {
        nav.attempts aria-label="Attempts" {
            @match before { Some(before) => a rel="prev" data-previous href=(at(before)) { "[ previous attempt" }, None => span.off { "[ previous attempt" } }
            " · "
            @match after { Some(after) => a rel="next" data-next href=(at(after)) { "next attempt ]" }, None => span.off { "next attempt ]" } }
            " · " (attempts.len()) " attempts at this question"
            @if attempts.len() > 1 {
                " · against "
                @for other in others {
                    a href={ "?against=" (path_part(&other.trajectory_id)) } title=(other.trajectory_id) {
                        @if other.run_id != head.run_id { (short_id(other.run_id.as_deref().unwrap_or("no run"))) " " }
                        "#" (other.attempt)
                    } " "
                }
            }
        }
    }
}

/// The attempts before and after one.
fn neighbours<'a>(id: &str, attempts: &'a [Attempt]) -> (Option<&'a Attempt>, Option<&'a Attempt>) {
    let Some(at) = attempts.iter().position(|attempt| attempt.trajectory_id == id) else { return (None, None) };
    (at.checked_sub(1).and_then(|before| attempts.get(before)), attempts.get(at + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_attempts_before_and_after_are_those_of_the_list() {
        let of = |id: &str| Attempt { trajectory_id: id.to_string(), ..Attempt::default() };
        let all = [of("a"), of("b"), of("c")];
        let ids = |id| {
            let (before, after) = neighbours(id, &all);
            (before.map(|a| a.trajectory_id.as_str()), after.map(|a| a.trajectory_id.as_str()))
        };
        assert_eq!(ids("b"), (Some("a"), Some("c")));
        assert_eq!(ids("a"), (None, Some("b")));
        assert_eq!(ids("x"), (None, None));
    }

    #[test]
    fn gated_text_is_not_shown_without_the_right() {
        let head =
            Head { question: Some("Q?".into()), answer: Some("A!".into()), qa_id: "q1".into(), ..Head::default() };
        let gold = Question { answer: "GOLD".into(), ..Question::default() };
        let hidden = question(&head, Some(&gold), false).into_string();
        assert!(!hidden.contains("Q?") && !hidden.contains("A!") && !hidden.contains("GOLD"), "{hidden}");
        assert!(hidden.contains("serve --restricted"), "{hidden}");
        let shown = question(&head, Some(&gold), true).into_string();
        assert!(shown.contains("Q?") && shown.contains("A!") && shown.contains("GOLD"), "{shown}");
    }
}
