//! The text of one message of a trajectory, exact to the byte.
//!
//! An assistant's turn is a thought and exactly one action:
//!
//! ```text
//! <think>
//! free text
//! </think>
//! <tool_call>
//! {"name": "search", "arguments": {"query": ["…"]}}
//! </tool_call>
//! ```
//!
//! or, in place of the call, `<answer>`, a line break, the answer, a line break, `</answer>`. What a tool answers is
//! `<tool_response>`, a line break, the observation, a line break, `</tool_response>`.
//!
//! Models vary the white space around the tags and inside the call's JSON, so [`parse_turn`] is tolerant there and
//! nowhere else. [`Turn::render`] writes the canonical form above; where that is not what the model wrote,
//! [`Turn::is_rendering_of`] says so and the caller keeps the text itself. How text is taken apart:
//!
//! - The thought ends at the first `</think>`; it may mention any other tag.
//! - The tool call is one JSON object. JSON says itself where it ends, so its strings may hold any tag.
//! - The answer ends at the first `</answer>`.
//! - After the action only white space may follow: a second action is an error, not ignored.
//! - One line break is taken off at each end of a thought, answer or observation, never more.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

const THINK: Tag = Tag { open: "<think>", close: "</think>" };
const TOOL_CALL: Tag = Tag { open: "<tool_call>", close: "</tool_call>" };
const ANSWER: Tag = Tag { open: "<answer>", close: "</answer>" };
const TOOL_RESPONSE: Tag = Tag { open: TOOL_RESPONSE_OPEN, close: "</tool_response>" };
/// What stands before an observation.
pub(crate) const TOOL_RESPONSE_OPEN: &str = "<tool_response>";

/// Characters of foreign text that an error message quotes at most.
const QUOTED_CHARS_MAX: usize = 40;
/// Characters of a JSON parser's reason that an error message repeats at most; some reasons quote the input.
const REASON_CHARS_MAX: usize = 200;

/// What an assistant wrote in one turn, borrowed from its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn<'a> {
    /// Text between the think tags.
    pub thought: &'a str,
    /// What it did.
    pub action: Action<'a>,
}

/// The action of a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action<'a> {
    /// A tool was called.
    Tool {
        /// The tool's name, unescaped.
        name: Cow<'a, str>,
        /// The arguments: a JSON object, its text exactly as written.
        arguments: &'a str,
    },
    /// The question was answered.
    Answer(&'a str),
}

/// Takes an assistant's message apart.
///
/// # Errors
/// When the text is not a thought followed by exactly one action; the error names the byte and what is wrong there.
pub fn parse_turn(text: &str) -> Result<Turn<'_>, FormatError> {
    let mut reader = Reader { length: text.len(), rest: text };
    reader.skip_white_space();
    if !reader.eat(THINK.open) {
        return Err(reader.expected("<think>"));
    }
    let thought = reader.body(THINK)?;
    reader.skip_white_space();
    let action = if reader.eat(TOOL_CALL.open) {
        reader.tool_call()?
    } else if reader.eat(ANSWER.open) {
        Action::Answer(reader.body(ANSWER)?)
    } else {
        return Err(reader.expected("<tool_call> or <answer> after the thought"));
    };
    reader.skip_white_space();
    if reader.rest.is_empty() {
        return Ok(Turn { thought, action });
    }
    let offset = reader.offset();
    if reader.eat(TOOL_CALL.open) || reader.eat(ANSWER.open) {
        return Err(FormatError::SecondAction { offset });
    }
    Err(reader.expected("the end of the turn after its action"))
}

/// The observation in a tool's message.
///
/// Observations have one form only, ours: there is no white space to tolerate, and what is inside may hold any tag.
///
/// # Errors
/// When the message does not begin with `<tool_response>` and a line break, or does not end with a line break and
/// `</tool_response>`.
pub fn parse_observation(text: &str) -> Result<&str, FormatError> {
    let mut reader = Reader { length: text.len(), rest: text };
    if !(reader.eat(TOOL_RESPONSE.open) && reader.eat("\n")) {
        return Err(reader.expected("<tool_response> and a line break"));
    }
    let body = reader.rest.strip_suffix(TOOL_RESPONSE.close).and_then(|body| body.strip_suffix('\n'));
    body.ok_or(FormatError::Unclosed {
        offset: 0,
        open: TOOL_RESPONSE.open,
        close: "a line break and </tool_response>",
    })
}

/// The message of a tool that observed `observation`; [`parse_observation`] reads it back.
pub fn render_observation(observation: &str) -> String {
    TOOL_RESPONSE.around(observation)
}

impl Turn<'_> {
    /// The turn in canonical form.
    pub fn render(&self) -> String {
        let action = match &self.action {
            Action::Tool { name, arguments } => {
                let name = serde_json::Value::from(name.as_ref());
                TOOL_CALL.around(&format!("{{\"name\": {name}, \"arguments\": {arguments}}}"))
            }
            Action::Answer(answer) => ANSWER.around(answer),
        };
        THINK.around(self.thought) + "\n" + &action
    }

    /// Whether the canonical form is `text`, byte for byte.
    pub fn is_rendering_of(&self, text: &str) -> bool {
        self.render() == text
    }
}

/// Why a message is not in the format. Offsets are bytes from the beginning of the message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Something else was due.
    #[error("byte {offset}: expected {expected}, found {found}")]
    Expected {
        /// Where.
        offset: usize,
        /// What was due.
        expected: &'static str,
        /// The beginning of what is there, quoted.
        found: String,
    },
    /// A tag was opened and not closed.
    #[error("byte {offset}: {open} is not closed by {close}")]
    Unclosed {
        /// Where the tag opens.
        offset: usize,
        /// The opening tag.
        open: &'static str,
        /// What would close it.
        close: &'static str,
    },
    /// The tool call is not JSON, or not of the right shape.
    #[error("byte {offset}: the tool call is not {{\"name\": string, \"arguments\": object}}: {reason}")]
    ToolCall {
        /// Where the JSON begins.
        offset: usize,
        /// What is wrong; lines and columns count from the offset.
        reason: String,
    },
    /// More than one action.
    #[error("byte {offset}: a second action; a turn has exactly one")]
    SecondAction {
        /// Where it begins.
        offset: usize,
    },
}

impl FormatError {
    /// The byte of the message that the error is about.
    pub fn offset(&self) -> usize {
        match self {
            FormatError::Expected { offset, .. }
            | FormatError::Unclosed { offset, .. }
            | FormatError::ToolCall { offset, .. }
            | FormatError::SecondAction { offset } => *offset,
        }
    }
}

/// At most `chars_max` characters of `text`, with a mark where some were left out.
pub(crate) fn clip(text: &str, chars_max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(chars_max).and_then(|(end, _)| text.get(..end)) {
        Some(head) => Cow::Owned(format!("{head}…")),
        None => Cow::Borrowed(text),
    }
}

/// The reason a JSON parser gave, no longer than fits a line.
pub(crate) fn json_reason(error: &serde_json::Error) -> String {
    clip(&error.to_string(), REASON_CHARS_MAX).into_owned()
}

#[derive(Debug, Clone, Copy)]
struct Tag {
    open: &'static str,
    close: &'static str,
}

impl Tag {
    fn around(self, body: &str) -> String {
        [self.open, "\n", body, "\n", self.close].concat()
    }
}

/// The call as JSON; other members are tolerated. Names are those of the format.
#[derive(Deserialize)]
struct ToolCall<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    arguments: &'a RawValue,
}

/// What is left of a message, and how long the whole of it is.
struct Reader<'a> {
    length: usize,
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn offset(&self) -> usize {
        self.length - self.rest.len()
    }

    fn skip_white_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
    }

    fn eat(&mut self, expected: &str) -> bool {
        match self.rest.strip_prefix(expected) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expected(&self, expected: &'static str) -> FormatError {
        let found = match self.rest {
            "" => "the end".to_string(),
            rest => format!("{:?}", clip(rest, QUOTED_CHARS_MAX)),
        };
        FormatError::Expected { offset: self.offset(), expected, found }
    }

    fn unclosed(&self, tag: Tag) -> FormatError {
        FormatError::Unclosed { offset: self.offset() - tag.open.len(), open: tag.open, close: tag.close }
    }

    /// The text up to the first closing tag, which is consumed.
    fn body(&mut self, tag: Tag) -> Result<&'a str, FormatError> {
        let (body, rest) = self.rest.split_once(tag.close).ok_or_else(|| self.unclosed(tag))?;
        self.rest = rest;
        let body = body.strip_prefix('\n').unwrap_or(body);
        Ok(body.strip_suffix('\n').unwrap_or(body))
    }

    /// The call after its opening tag, and its closing tag.
    fn tool_call(&mut self) -> Result<Action<'a>, FormatError> {
        let unclosed = self.unclosed(TOOL_CALL);
        self.skip_white_space();
        // Checked here because a list of two would pass for the object.
        if !self.rest.starts_with('{') {
            return Err(self.expected("a JSON object after <tool_call>"));
        }
        let offset = self.offset();
        let fault = |reason| FormatError::ToolCall { offset, reason };
        let mut json = serde_json::Deserializer::from_str(self.rest).into_iter::<ToolCall<'a>>();
        let call = match json.next() {
            Some(Ok(call)) => call,
            Some(Err(e)) => return Err(fault(json_reason(&e))),
            None => return Err(unclosed),
        };
        let end = json.byte_offset();
        self.rest = self.rest.get(end..).unwrap_or_default();
        // A raw value is checked for its syntax only: not for its type, depth or half surrogates.
        let arguments = call.arguments.get();
        serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(arguments)
            .map_err(|e| fault(format!("arguments: {}", json_reason(&e))))?;
        self.skip_white_space();
        if self.eat(TOOL_CALL.close) {
            return Ok(Action::Tool { name: call.name, arguments });
        }
        Err(if self.rest.is_empty() { unclosed } else { self.expected("</tool_call> after the call's JSON object") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: &str = "<think>\nlook\n</think>\n<tool_call>\n{\"name\": \"search\", \"arguments\": {\"query\": [\"é \\\"x\\\"\"]}}\n</tool_call>";

    fn error(text: &str) -> String {
        parse_turn(text).unwrap_err().to_string()
    }

    #[test]
    fn a_tool_call_keeps_its_arguments_as_written() {
        let turn = parse_turn(CALL).unwrap();
        assert_eq!(turn.thought, "look");
        assert_eq!(turn.action, Action::Tool { name: "search".into(), arguments: "{\"query\": [\"é \\\"x\\\"\"]}" });
        assert!(turn.is_rendering_of(CALL));
    }

    #[test]
    fn only_one_line_break_is_taken_off_each_end() {
        let text = "<think>\n\n a\r\n\n</think>\n<answer>\n\n\n</answer>";
        let turn = parse_turn(text).unwrap();
        assert_eq!(turn, Turn { thought: "\n a\r\n", action: Action::Answer("\n") });
        assert!(turn.is_rendering_of(text));
    }

    #[test]
    fn unusual_white_space_parses_but_is_not_the_rendering() {
        for text in [
            "<think> a </think>\n<answer> b </answer>",
            "\n<think>\na\n</think>\n<answer>\nb\n</answer>",
            "<think>\na\n</think>\n\n<answer>\nb\n</answer>",
            "<think>\na\n</think>\n<answer>\nb\n</answer>\n",
            "<think>\na\n</think>\n<answer>\n</answer>",
            "<think>\na\n</think>\n<tool_call>{\"name\":\"s\",\"arguments\":{}}</tool_call>",
            "<think>\na\n</think>\n<tool_call>\n{\"arguments\": {}, \"name\": \"s\"}\n</tool_call>",
            "<think>\na\n</think>\n<tool_call>\n{\"name\": \"s\", \"arguments\": {}, \"id\": 1}\n</tool_call>",
            "<think>\na\n</think>\n<tool_call>\n{\"name\": \"\\u0073\", \"arguments\": {}}\n</tool_call>",
        ] {
            let turn = parse_turn(text).unwrap_or_else(|e| panic!("{text:?}: {e}"));
            assert!(!turn.is_rendering_of(text), "{text:?}");
            assert_eq!(parse_turn(&turn.render()).as_ref(), Ok(&turn), "{text:?}");
        }
    }

    #[test]
    fn tags_inside_thoughts_json_strings_and_observations_are_text() {
        let text = "<think>\nuse <tool_call> or <answer>x</answer>\n</think>\n<tool_call>\n{\"name\": \"s\", \"arguments\": {\"q\": \"</tool_call><answer>\"}}\n</tool_call>";
        let turn = parse_turn(text).unwrap();
        assert_eq!(turn.thought, "use <tool_call> or <answer>x</answer>");
        assert!(turn.is_rendering_of(text));
        let message = "<tool_response>\na\n</tool_response>\n<think>\n</tool_response>";
        assert_eq!(parse_observation(message), Ok("a\n</tool_response>\n<think>"));
        assert_eq!(render_observation("a\n</tool_response>\n<think>"), message);
    }

    #[test]
    fn each_fault_of_a_turn_names_its_byte_and_cause() {
        assert_eq!(error(""), "byte 0: expected <think>, found the end");
        assert_eq!(error(" Paris"), "byte 1: expected <think>, found \"Paris\"");
        assert_eq!(error("<think>\na"), "byte 0: <think> is not closed by </think>");
        assert_eq!(
            error("<think>\na\n</think>\nParis"),
            "byte 19: expected <tool_call> or <answer> after the thought, found \"Paris\""
        );
        assert_eq!(
            error("<think>\na\n</think>"),
            "byte 18: expected <tool_call> or <answer> after the thought, found the end"
        );
        assert_eq!(error("<think>\na\n</think>\n<answer>\nParis"), "byte 19: <answer> is not closed by </answer>");
        assert_eq!(
            error(&format!("{CALL}\n<answer>\nx\n</answer>")),
            format!("byte {}: a second action; a turn has exactly one", CALL.len() + 1)
        );
        assert_eq!(
            error(&format!("{CALL} so")),
            format!("byte {}: expected the end of the turn after its action, found \"so\"", CALL.len() + 1)
        );
        let long = "é".repeat(100);
        assert_eq!(error(&long), format!("byte 0: expected <think>, found \"{}…\"", "é".repeat(40)));
    }

    #[test]
    fn each_fault_of_a_tool_call_is_named() {
        let call = |json: &str| error(&format!("<think>\na\n</think>\n<tool_call>\n{json}\n</tool_call>"));
        let shape = "byte 31: the tool call is not {\"name\": string, \"arguments\": object}: ";
        assert_eq!(
            call("[\"s\", {}]"),
            "byte 31: expected a JSON object after <tool_call>, found \"[\\\"s\\\", {}]\\n</tool_call>\""
        );
        for (json, reason) in [
            ("{\"name\": \"s\"}", "missing field `arguments` at line 1 column 13"),
            ("{\"arguments\": {}}", "missing field `name` at line 1 column 17"),
            ("{\"name\": 3, \"arguments\": {}}", "invalid type: integer `3`, expected a string at line 1 column 10"),
            ("{\"name\": \"s\", \"arguments\": {}", "expected `,` or `}` at line 2 column 1"),
            ("{\"name\": \"s\", \"name\": \"t\", \"arguments\": {}}", "duplicate field `name` at line 1 column 20"),
            (
                "{\"name\": \"s\", \"arguments\": [1]}",
                "arguments: invalid type: sequence, expected a map at line 1 column 0",
            ),
            (
                "{\"name\": \"s\", \"arguments\": {\"q\": \"\\ud800\"}}",
                "arguments: unexpected end of hex escape at line 1 column 14",
            ),
        ] {
            assert_eq!(call(json), format!("{shape}{reason}"), "{json}");
        }
        assert_eq!(
            call("{\"name\": \"s\", \"arguments\": {}} and"),
            "byte 62: expected </tool_call> after the call's JSON object, found \"and\\n</tool_call>\""
        );
        assert_eq!(
            error("<think>\na\n</think>\n<tool_call>\n{\"name\": \"s\", \"arguments\": {}}"),
            "byte 19: <tool_call> is not closed by </tool_call>"
        );
        assert_eq!(
            error("<think>\na\n</think>\n<tool_call>"),
            "byte 30: expected a JSON object after <tool_call>, found the end"
        );
    }

    #[test]
    fn deep_nesting_is_refused_not_followed() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let deep = format!("{}1{}", open.repeat(200_000), close.repeat(200_000));
            let text = format!(
                "<think>\na\n</think>\n<tool_call>\n{{\"name\": \"s\", \"arguments\": {{\"q\": {deep}}}}}\n</tool_call>"
            );
            assert!(error(&text).contains("arguments: recursion limit exceeded"));
        }
    }

    #[test]
    fn faults_of_an_observation_are_named() {
        let error = |text: &str| parse_observation(text).unwrap_err().to_string();
        assert_eq!(error("page"), "byte 0: expected <tool_response> and a line break, found \"page\"");
        assert_eq!(
            error("<tool_response>page\n</tool_response>"),
            "byte 15: expected <tool_response> and a line break, found \"page\\n</tool_response>\""
        );
        assert_eq!(
            error("<tool_response>\npage</tool_response>"),
            "byte 0: <tool_response> is not closed by a line break and </tool_response>"
        );
        assert!(parse_observation("<tool_response>\n</tool_response>").is_err());
        assert_eq!(parse_observation("<tool_response>\n\n</tool_response>"), Ok(""));
    }
}
