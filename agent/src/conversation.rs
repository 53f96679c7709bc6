//! The messages of a trajectory and its row: there and back, byte for byte.
//!
//! A conversation is a system message (instructions, last line `Current date: YYYY-MM-DD`), a user message (tool
//! specifications, then `User: ` and the question), and then the assistant and the user in turn, the user speaking for
//! the tools; it ends with the assistant's answer.
//!
//! The row holds each part once and no message as such. A turn that its parts do not render back to is kept as text in
//! `turn_raw` too, so [`render_messages`] of what [`parse_messages`] made always returns the very messages.

use std::borrow::Cow;

use chrono::{Datelike as _, NaiveDate};
use serde::{Deserialize, Serialize};
pub(crate) use webdancer_schemas::digest::sha256_hex;
use webdancer_schemas::event::Rejection;
use webdancer_schemas::rows::Trajectory;

use crate::format::{Action, Turn, parse_observation, parse_turn, render_observation};

/// What stands before the question in the first user message.
pub(crate) const QUESTION_MARK: &str = "User: ";
/// What stands before the date in the last line of the system message.
pub(crate) const DATE_MARK: &str = "Current date: ";

/// A chat message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

/// Who speaks in a conversation. Tools have no role of their own: the user speaks for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The instructions.
    System,
    /// The question, and what the tools answer.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        }
    }
}

/// The row of a finished conversation, without what messages do not hold: its ids are empty, where it came from is
/// unknown.
///
/// The question begins after the first `User: ` of the first user message; all before belongs to `user_prefix`.
///
/// # Errors
/// Roles out of order, a question missing, a turn or an observation not in the [format](mod@crate::format), an answer
/// before the last turn or none in it. The rejection's field is `messages[i]` with what part of it is at fault.
pub fn parse_messages(messages: &[Message]) -> Result<Trajectory, Rejection> {
    check_roles(messages)?;
    let [system, first, turns @ ..] = messages else {
        return Err(too_short(messages.len()));
    };
    let (prefix, question) = split_question(&first.content).ok_or_else(|| {
        Rejection::of("messages[1].content", format!("must hold {QUESTION_MARK:?} and a question after it"))
    })?;
    let n_turns = turns.len().div_ceil(2);
    let mut row = Trajectory {
        system_prompt: Some(system.content.clone()),
        user_prefix: Some(prefix.to_string()),
        question: Some(question.to_string()),
        termination: "answer".to_string(),
        n_turns: i32::try_from(n_turns).map_err(|_| Rejection::of("messages", "has too many turns"))?,
        ..Trajectory::default()
    };
    for (number, pair) in turns.chunks(2).enumerate() {
        let index = 2 + 2 * number;
        let Some(assistant) = pair.first() else { continue };
        let turn = parse_turn(&assistant.content).map_err(|e| in_content(index, &e))?;
        let raw = (!turn.is_rendering_of(&assistant.content)).then(|| assistant.content.clone());
        let observation = pair.get(1).map(|user| parse_observation(&user.content));
        let observation = observation.transpose().map_err(|e| in_content(index + 1, &e))?;
        let is_last = number + 1 == n_turns;
        let (tool, arguments) = match turn.action {
            Action::Tool { .. } if is_last => {
                return Err(in_content(index, &"calls a tool; the last message must answer"));
            }
            Action::Answer(_) if !is_last => {
                return Err(in_content(index, &"answers; only the last message may"));
            }
            Action::Tool { name, arguments } => (Some(name.into_owned()), Some(arguments.to_string())),
            Action::Answer(answer) => {
                row.answer = Some(answer.to_string());
                (None, None)
            }
        };
        row.n_tool_calls += i32::from(tool.is_some());
        row.turn_thought.push(Some(turn.thought.to_string()));
        row.turn_tool.push(tool);
        row.turn_arguments.push(arguments);
        row.turn_observation_digest.push(observation.map(sha256_hex));
        row.turn_observation.push(observation.map(str::to_string));
        row.turn_raw.push(raw);
    }
    Ok(row)
}

/// The messages that `row` holds: for a row made by [`parse_messages`], the very messages, byte for byte.
///
/// A row without system prompt gives no system message; a turn with raw text gives that text. What asked for a forced
/// answer is a user message of its own, after the last observation.
///
/// # Errors
/// A row without question, with lists of unequal length, or with a turn that lacks the parts to be rendered.
pub fn render_messages(row: &Trajectory) -> Result<Vec<Message>, RenderError> {
    let question = row.question.as_deref().ok_or(RenderError::NoQuestion)?;
    let n_turns = row.turn_thought.len();
    for (column, length) in [
        ("turn_tool", row.turn_tool.len()),
        ("turn_arguments", row.turn_arguments.len()),
        ("turn_observation", row.turn_observation.len()),
        ("turn_raw", row.turn_raw.len()),
    ] {
        if length != n_turns {
            return Err(RenderError::UnequalLists { column, length, n_turns });
        }
    }
    let mut messages = Vec::with_capacity(2 + 2 * n_turns);
    if let Some(system) = &row.system_prompt {
        messages.push(Message { role: Role::System, content: system.clone() });
    }
    let prefix = row.user_prefix.as_deref().unwrap_or_default();
    messages.push(Message { role: Role::User, content: format!("{prefix}{question}") });
    let thoughts_and_tools = row.turn_thought.iter().zip(&row.turn_tool);
    let arguments_and_raw = row.turn_arguments.iter().zip(&row.turn_raw);
    let turns = thoughts_and_tools.zip(arguments_and_raw).zip(&row.turn_observation);
    for (turn, (((thought, tool), (arguments, raw)), observation)) in turns.enumerate() {
        let is_last = turn + 1 == n_turns;
        if let Some(instruction) = row.final_instruction.as_ref().filter(|_| is_last) {
            messages.push(Message { role: Role::User, content: instruction.clone() });
        }
        let content = match (raw, thought, tool, arguments, &row.answer) {
            (Some(raw), ..) => raw.clone(),
            (None, Some(thought), Some(tool), Some(arguments), _) => {
                let action = Action::Tool { name: Cow::Borrowed(tool), arguments };
                Turn { thought, action }.render()
            }
            (None, Some(thought), None, None, Some(answer)) if is_last => {
                Turn { thought, action: Action::Answer(answer) }.render()
            }
            _ => return Err(RenderError::PartsMissing { turn }),
        };
        messages.push(Message { role: Role::Assistant, content });
        match observation {
            Some(observation) => {
                messages.push(Message { role: Role::User, content: render_observation(observation) });
            }
            None if is_last => {}
            None => return Err(RenderError::ObservationMissing { turn }),
        }
    }
    Ok(messages)
}

/// The date in the last line of a system prompt, `Current date: YYYY-MM-DD`.
pub fn prompt_date(system_prompt: &str) -> Option<NaiveDate> {
    let date: NaiveDate = system_prompt.trim_end().lines().next_back()?.strip_prefix(DATE_MARK)?.parse().ok()?;
    // Beyond four digits a year is no date any more, and RFC 3339 cannot write it.
    (1..=9999).contains(&date.year()).then_some(date)
}

/// Why a row cannot be rendered: it was not made from messages, or was changed since.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The row has no question.
    #[error("the trajectory has no question to render")]
    NoQuestion,
    /// The parallel lists of turns differ in length.
    #[error("{column} has {length} elements, turn_thought has {n_turns}: one per turn is needed")]
    UnequalLists {
        /// The list.
        column: &'static str,
        /// Its length.
        length: usize,
        /// The turns.
        n_turns: usize,
    },
    /// A turn has neither raw text nor all its parts.
    #[error("turn {turn} has no raw text and lacks its thought, its tool with arguments, or the answer")]
    PartsMissing {
        /// The turn, from 0.
        turn: usize,
    },
    /// A turn before the last has no observation.
    #[error("turn {turn} has no observation, and another turn follows")]
    ObservationMissing {
        /// The turn, from 0.
        turn: usize,
    },
}

fn check_roles(messages: &[Message]) -> Result<(), Rejection> {
    for (index, message) in messages.iter().enumerate() {
        let due = match index {
            0 => Role::System,
            _ if index % 2 == 1 => Role::User,
            _ => Role::Assistant,
        };
        if message.role != due {
            let reason = format!(
                "is {}, must be {}: after the system message user and assistant alternate",
                message.role.name(),
                due.name()
            );
            return Err(Rejection::of(format!("messages[{index}].role"), reason));
        }
    }
    match messages.last().map(|last| last.role) {
        Some(Role::User) if messages.len() > 2 => Err(Rejection::of(
            format!("messages[{}].role", messages.len() - 1),
            "is user, the last message must be the assistant's",
        )),
        _ if messages.len() < 3 => Err(too_short(messages.len())),
        _ => Ok(()),
    }
}

fn too_short(length: usize) -> Rejection {
    Rejection::of("messages", format!("has {length} messages; a system, a user and an assistant message are the least"))
}

fn split_question(content: &str) -> Option<(&str, &str)> {
    let (_, question) = content.split_once(QUESTION_MARK)?;
    let prefix = content.strip_suffix(question)?;
    (!question.trim().is_empty()).then_some((prefix, question))
}

fn in_content(index: usize, reason: &dyn std::fmt::Display) -> Rejection {
    Rejection::of(format!("messages[{index}].content"), reason.to_string())
}
