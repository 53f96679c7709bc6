//! All that an agent wrote in a trajectory, and whether it is in the [format](mod@crate::format).
//!
//! The funnel asks this of record batches and the reward of single rows, so it is asked of borrowed text, and nothing
//! is copied for a trajectory that is in order.

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use webdancer_schemas::rows::Trajectory;

use crate::format::{Action, FormatError, json_reason, parse_turn};

/// What an agent wrote in one turn: the columns of a trajectory that hold it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TurnText<'a> {
    /// Text between the think tags.
    pub thought: Option<&'a str>,
    /// Tool called.
    pub tool: Option<&'a str>,
    /// Arguments of the call, JSON text.
    pub arguments: Option<&'a str>,
    /// The whole text, where its parts do not render back to it.
    pub raw: Option<&'a str>,
    /// Whether something came back to the call.
    pub observed: bool,
}

/// What an agent wrote in a trajectory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output<'a> {
    /// Why the trajectory ended.
    pub termination: &'a str,
    /// The final answer.
    pub answer: Option<&'a str>,
    /// The turns.
    pub turns: &'a [TurnText<'a>],
}

/// Why an output is not in the format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutputFault {
    /// There is no turn.
    #[error("there is no turn")]
    NoTurns,
    /// The lists of a row's turns differ in length.
    #[error("{column} has {length} elements, turn_thought has {turns}: one per turn is needed")]
    UnequalLists {
        /// The list.
        column: &'static str,
        /// Its length.
        length: usize,
        /// The turns.
        turns: usize,
    },
    /// A turn is not a thought and one action.
    #[error("turn {turn}: {reason}")]
    Turn {
        /// The turn, from 0.
        turn: usize,
        /// What is wrong.
        reason: String,
    },
    /// The arguments of a call are no JSON object.
    #[error("turn {turn}: the arguments are no JSON object: {reason}")]
    Arguments {
        /// The turn, from 0.
        turn: usize,
        /// What is wrong.
        reason: String,
    },
    /// A turn before the last answers.
    #[error("turn {turn} answers, and another turn follows")]
    EarlyAnswer {
        /// The turn, from 0.
        turn: usize,
    },
    /// A call got no observation, and another turn follows.
    #[error("turn {turn} has no observation, and another turn follows")]
    NoObservation {
        /// The turn, from 0.
        turn: usize,
    },
    /// The trajectory ended without an answer.
    #[error("there is no answer")]
    NoAnswer,
}

impl Output<'_> {
    /// Checks that the output is turns of a thought and a tool call each, every call observed, and then one turn of a
    /// thought and an answer.
    ///
    /// # Errors
    /// The first fault.
    pub fn check(&self) -> Result<(), OutputFault> {
        let Some((last, calls)) = self.turns.split_last() else { return Err(OutputFault::NoTurns) };
        for (turn, text) in calls.iter().enumerate() {
            if let Kind::Answer = text.kind(turn)? {
                return Err(OutputFault::EarlyAnswer { turn });
            }
            if !text.observed {
                return Err(OutputFault::NoObservation { turn });
            }
        }
        let answered = self.answer.is_some_and(|answer| !answer.trim().is_empty());
        let turn = calls.len();
        match last.kind(turn)? {
            Kind::Answer if !answered => Err(OutputFault::NoAnswer),
            Kind::Answer if last.raw.is_none() && self.answer.is_some_and(|answer| answer.contains("</answer>")) => {
                Err(OutputFault::Turn { turn, reason: "the answer holds </answer>".to_string() })
            }
            Kind::Answer => Ok(()),
            Kind::Call => Err(OutputFault::NoAnswer),
        }
    }

    /// The first turn whose text holds one of `marks`, such as `<tool_response>`: an observation that the agent wrote
    /// itself. Arguments are data, and may hold anything.
    pub fn simulated_observation<M: AsRef<str>>(&self, marks: &[M]) -> Option<usize> {
        let holds = |text: Option<&str>| text.is_some_and(|text| marks.iter().any(|mark| text.contains(mark.as_ref())));
        let turn = self.turns.iter().position(|turn| holds(turn.raw.or(turn.thought)));
        turn.or_else(|| holds(self.answer).then(|| self.turns.len().saturating_sub(1)))
    }

    /// The first call of a tool that is not among `tools`: its turn and its name.
    pub fn unknown_tool<T: AsRef<str>>(&self, tools: &[T]) -> Option<(usize, &str)> {
        let calls = self.turns.iter().enumerate().filter_map(|(turn, text)| Some((turn, text.tool?)));
        calls.into_iter().find(|(_, called)| !tools.iter().any(|tool| tool.as_ref() == *called))
    }

    /// Tool calls, and the answer if there is one.
    pub fn actions(&self) -> usize {
        self.turns.iter().filter(|turn| turn.tool.is_some()).count() + usize::from(self.answer.is_some())
    }
}

/// What a turn does.
enum Kind {
    Call,
    Answer,
}

impl TurnText<'_> {
    fn kind(&self, turn: usize) -> Result<Kind, OutputFault> {
        let fault = |reason: &str| OutputFault::Turn { turn, reason: reason.to_string() };
        if let Some(raw) = self.raw {
            return match parse_turn(raw) {
                Ok(parsed) => Ok(match parsed.action {
                    Action::Tool { .. } => Kind::Call,
                    Action::Answer(_) => Kind::Answer,
                }),
                Err(FormatError::ToolCall { reason, .. }) => Err(OutputFault::Arguments { turn, reason }),
                Err(error) => Err(fault(&error.to_string())),
            };
        }
        let Some(thought) = self.thought else { return Err(fault("there is no thought")) };
        if thought.contains("</think>") {
            return Err(fault("the thought holds </think>"));
        }
        match (self.tool, self.arguments) {
            (None, None) => Ok(Kind::Answer),
            (Some(_), Some(arguments)) => match check_object(arguments) {
                Ok(()) => Ok(Kind::Call),
                Err(reason) => Err(OutputFault::Arguments { turn, reason: json_reason(&reason) }),
            },
            (Some(_), None) => Err(fault("a tool without arguments")),
            (None, Some(_)) => Err(fault("arguments without a tool")),
        }
    }
}

/// The turns of a row.
///
/// # Errors
/// When its lists differ in length.
pub fn turns_of(row: &Trajectory) -> Result<Vec<TurnText<'_>>, OutputFault> {
    let turns = row.turn_thought.len();
    for (column, length) in [
        ("turn_tool", row.turn_tool.len()),
        ("turn_arguments", row.turn_arguments.len()),
        ("turn_observation", row.turn_observation.len()),
        ("turn_raw", row.turn_raw.len()),
    ] {
        if length != turns {
            return Err(OutputFault::UnequalLists { column, length, turns });
        }
    }
    let thoughts_and_tools = row.turn_thought.iter().zip(&row.turn_tool);
    let arguments_and_raw = row.turn_arguments.iter().zip(&row.turn_raw);
    let parts = thoughts_and_tools.zip(arguments_and_raw).zip(&row.turn_observation);
    Ok(parts
        .map(|(((thought, tool), (arguments, raw)), observation)| TurnText {
            thought: thought.as_deref(),
            tool: tool.as_deref(),
            arguments: arguments.as_deref(),
            raw: raw.as_deref(),
            observed: observation.is_some(),
        })
        .collect())
}

/// Checks that `text` is a JSON object, all of it: syntax, escapes, depth and the range of numbers; builds nothing.
fn check_object(text: &str) -> Result<(), serde_json::Error> {
    if !text.trim_start().starts_with('{') {
        return Err(serde_json::Error::custom("it begins otherwise than with {"));
    }
    serde_json::from_str::<Checked>(text).map(|Checked| ())
}

/// Any JSON, read and forgotten. Unlike serde's `IgnoredAny` it decodes strings and numbers, so that what passes here
/// can be parsed later.
struct Checked;

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Checked, D::Error> {
        deserializer.deserialize_any(Checked)
    }
}

impl<'de> Visitor<'de> for Checked {
    type Value = Checked;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_str<E>(self, _: &str) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_unit<E>(self) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Checked, A::Error> {
        while items.next_element::<Checked>()?.is_some() {}
        Ok(Checked)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Checked, A::Error> {
        while members.next_entry::<Checked, Checked>()?.is_some() {}
        Ok(Checked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: TurnText<'_> = TurnText {
        thought: Some("look"),
        tool: Some("search"),
        arguments: Some("{\"query\": [\"x\"]}"),
        raw: None,
        observed: true,
    };
    const ANSWER: TurnText<'_> =
        TurnText { thought: Some("found"), tool: None, arguments: None, raw: None, observed: false };

    fn fault(turns: &[TurnText<'_>], answer: Option<&str>) -> Option<String> {
        Output { termination: "answer", answer, turns }.check().err().map(|fault| fault.to_string())
    }

    #[test]
    fn calls_and_then_an_answer_are_in_the_format() {
        assert_eq!(fault(&[ANSWER], Some("x")), None);
        assert_eq!(fault(&[CALL, CALL, ANSWER], Some("x")), None);
        let raw = TurnText { raw: Some("<think> a </think><answer> x </answer>"), ..TurnText::default() };
        assert_eq!(fault(&[CALL, raw], Some("x")), None);
    }

    #[test]
    fn each_fault_is_named_with_its_turn() {
        let with = |change: fn(&mut TurnText<'_>)| {
            let mut turn = CALL;
            change(&mut turn);
            fault(&[CALL, turn, ANSWER], Some("x")).unwrap_or_default()
        };
        assert_eq!(with(|turn| turn.thought = None), "turn 1: there is no thought");
        assert_eq!(with(|turn| turn.thought = Some("a</think>b")), "turn 1: the thought holds </think>");
        assert_eq!(with(|turn| turn.arguments = None), "turn 1: a tool without arguments");
        assert_eq!(with(|turn| turn.tool = None), "turn 1: arguments without a tool");
        assert_eq!(with(|turn| turn.observed = false), "turn 1 has no observation, and another turn follows");
        assert_eq!(with(|turn| (turn.tool, turn.arguments) = (None, None)), "turn 1 answers, and another turn follows");
        assert_eq!(with(|turn| turn.raw = Some("Paris")), "turn 1: byte 0: expected <think>, found \"Paris\"");
        assert_eq!(
            with(|turn| turn.raw = Some("<think>a</think><tool_call>{\"name\": 3}</tool_call>")),
            "turn 1: the arguments are no JSON object: invalid type: integer `3`, expected a string at line 1 column 10"
        );
        assert_eq!(fault(&[], Some("x")).as_deref(), Some("there is no turn"));
        for (turns, answer) in [(&[CALL][..], Some("x")), (&[CALL, ANSWER], None), (&[CALL, ANSWER], Some(" \n"))] {
            assert_eq!(fault(turns, answer).as_deref(), Some("there is no answer"), "{turns:?} {answer:?}");
        }
        assert_eq!(fault(&[ANSWER], Some("x</answer>")).as_deref(), Some("turn 0: the answer holds </answer>"));
    }

    #[test]
    fn arguments_are_a_json_object_that_can_be_parsed() {
        for arguments in
            ["{}", " {\"a\": [1, -2.5e3, null, true, \"\\ud83d\\ude00\"], \"b\": {\"c\": 18446744073709551615}}"]
        {
            assert!(check_object(arguments).is_ok(), "{arguments}");
            assert!(serde_json::from_str::<serde_json::Value>(arguments).is_ok());
        }
        let deep = format!("{{\"a\": {}{}}}", "[".repeat(200), "]".repeat(200));
        for arguments in
            ["", "[1]", "\"x\"", "{", "{}x", "{'a': 1}", "{\"a\": 1,}", "{\"a\": \"\\ud800\"}", "{\"a\": 1e999}", &deep]
        {
            assert!(check_object(arguments).is_err(), "{arguments}");
            assert!(serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(arguments).is_err());
        }
    }

    #[test]
    fn an_observation_that_the_agent_wrote_is_found_anywhere_but_in_arguments() {
        let marks = ["<tool_response>", "</tool_response>"];
        let found = |turns: &[TurnText<'_>], answer| {
            Output { termination: "answer", answer, turns }.simulated_observation(&marks)
        };
        assert_eq!(found(&[CALL, ANSWER], Some("x")), None);
        let thought = TurnText { thought: Some("so\n<tool_response>\nParis"), ..CALL };
        assert_eq!(found(&[CALL, thought, ANSWER], Some("x")), Some(1));
        let raw = TurnText { raw: Some("<think>a</think><tool_response>"), ..TurnText::default() };
        assert_eq!(found(&[CALL, CALL, raw], None), Some(2));
        assert_eq!(found(&[CALL, ANSWER], Some("x </tool_response>")), Some(1));
        let arguments = TurnText { arguments: Some("{\"query\": [\"<tool_response>\"]}"), ..CALL };
        assert_eq!(found(&[arguments, ANSWER], Some("x")), None);
    }

    #[test]
    fn tools_that_do_not_exist_and_actions_are_counted_from_the_calls() {
        let calculate = TurnText { tool: Some("calculate"), ..CALL };
        let turns = [CALL, calculate, ANSWER];
        let output = Output { termination: "answer", answer: Some("x"), turns: &turns };
        assert_eq!(output.unknown_tool(&["search", "visit"]), Some((1, "calculate")));
        assert_eq!(output.unknown_tool(&["search", "calculate"]), None);
        assert_eq!(output.actions(), 3);
        assert_eq!(Output { answer: None, ..output }.actions(), 2);
    }
}
