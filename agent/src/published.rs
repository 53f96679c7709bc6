//! The published WebDancer files: a line of JSON becomes events, and nothing of it is lost.
//!
//! A line of the trajectory file is `{type, task, messages, functions, tool_calls, answer, tag}`, with `answer` a list
//! of lists of strings; a line of the QA file is `{question, answer, tag}`. What a trajectory line holds besides
//! `messages` has no column; it is kept as written in one member `published` of the event's `data`, and so reaches the
//! table's column `extra`. The file's `functions` name a property `queries` and require `query`: that is kept too, and
//! nothing is derived from it, because the tools as the model saw them stand in `user_prefix`.
//!
//! # Identity
//!
//! Importing a file again must add nothing, so every id is derived from content, never from the time of the import:
//!
//! | id | from |
//! |---|---|
//! | `qa_id` | the question, white space at its ends aside: the same in both files, whatever tag and gold say |
//! | `trajectory_id` | the bytes of the line, white space at its ends aside |
//! | event of a line ([`line_event_id`]) | digest of the file, kind, number of the line |
//! | event of a question | `qa_id`, gold answer and attributes: a question asked in many lines and files is one row |

use std::collections::HashMap;
use std::fmt;

use chrono::{DateTime, NaiveTime, SubsecRound as _, Utc};
use serde::Serialize;
use serde::de::{DeserializeOwned, Deserializer as _, MapAccess, Visitor};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};
use webdancer_schemas::column::JsonText;
use webdancer_schemas::event::{Envelope, Event, Rejection};
use webdancer_schemas::id::EventId;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::row::HasKind;
use webdancer_schemas::rows::{Qa, Trajectory};

use crate::conversation::{Message, parse_messages, prompt_date, sha256_hex};
use crate::format::json_reason;

/// The source of imported events.
pub const SOURCE: &str = "webdancer/import";

/// Hexadecimal digits of a digest that make an entity's id: 128 bits.
const ID_DIGITS: usize = 32;

/// Makes the events of one file.
///
/// Lines of one question are attempts at it, numbered from 0 in the order of the file. So hand in all lines, in order,
/// from the first.
#[derive(Debug)]
pub struct Importer {
    file_digest: String,
    time: DateTime<Utc>,
    attempts: HashMap<String, i32>,
}

impl Importer {
    /// An importer of the file with this SHA-256 (of its content, decompressed: the same file packed otherwise is the
    /// same file). `time` is the event time of rows that carry no date: when the file was made or imported.
    pub fn new(file_digest: &str, time: DateTime<Utc>) -> Importer {
        Importer { file_digest: file_digest.to_string(), time: time.trunc_subsecs(6), attempts: HashMap::new() }
    }

    /// The events of a line of the trajectory file, `line` counted from 1: the question, then the trajectory.
    ///
    /// The trajectory's event time is the date in its system prompt, which is when its web was searched.
    ///
    /// # Errors
    /// As [`parse_trajectory_line`].
    pub fn trajectory(&mut self, line: u64, bytes: &[u8]) -> Result<[Event; 2], Rejection> {
        let PublishedTrajectory { mut trajectory, qa, rest } = parse_trajectory_line(bytes)?;
        let date = trajectory.system_prompt.as_deref().and_then(prompt_date);
        let time = date.map_or(self.time, |date| date.and_time(NaiveTime::MIN).and_utc());
        let question = self.question(&qa)?;
        let attempts = self.attempts.entry(qa.qa_id.clone()).or_default();
        trajectory.attempt = *attempts;
        let data = TrajectoryData { row: &trajectory, published: &rest };
        let mut event = event(&trajectory, &data, line_event_id(Kind::Trajectory, &self.file_digest, line), time)?;
        event.envelope.parents = vec![qa.qa_id.clone()];
        *attempts = attempts.saturating_add(1);
        Ok([question, event])
    }

    /// The event of a line of the QA file.
    ///
    /// # Errors
    /// As [`parse_qa_line`].
    pub fn qa(&self, bytes: &[u8]) -> Result<Event, Rejection> {
        self.question(&parse_qa_line(bytes)?)
    }

    fn question(&self, qa: &Qa) -> Result<Event, Rejection> {
        // Not the whole row: a column added later must not change the id.
        let content = serde_json::to_string(&(&qa.qa_id, &qa.answer, &qa.attributes)).map_err(unwritable)?;
        let id = EventId::derive(DateTime::UNIX_EPOCH, SOURCE, Kind::Qa, &sha256_hex(content), 0);
        event(qa, qa, id, self.time)
    }
}

/// The id of the event of `kind` that a line of a file gives, `line` counted from 1; a line that is rejected gives a
/// dead letter.
///
/// The 48 bits of time are zero: they may depend on nothing but file and line, and equal ones keep imports together.
pub fn line_event_id(kind: Kind, file_digest: &str, line: u64) -> EventId {
    EventId::derive(DateTime::UNIX_EPOCH, SOURCE, kind, file_digest, line)
}

/// The id of a question: `qa-` and 32 hexadecimal digits of its SHA-256.
pub fn qa_id(question: &str) -> String {
    entity_id("qa-", question.trim())
}

/// What a line of the published trajectory file holds.
#[derive(Debug, Clone)]
pub struct PublishedTrajectory {
    /// The trajectory; its attempt is 0.
    pub trajectory: Trajectory,
    /// The question, its gold answer and tag.
    pub qa: Qa,
    /// The line's other members, as written: a JSON object.
    pub rest: Box<RawValue>,
}

/// Reads one line of the published trajectory file.
///
/// # Errors
/// Invalid UTF-8 or JSON, a member missing, given twice or of the wrong type, messages that
/// [`parse_messages`] rejects. The field is the path within the line, such as `messages[4].content`.
pub fn parse_trajectory_line(bytes: &[u8]) -> Result<PublishedTrajectory, Rejection> {
    let mut line = Line::parse(bytes)?;
    let messages = parse_message_list(line.take("messages")?)?;
    let answers = gold_answers(&line.get::<Vec<Vec<String>>>("answer")?)?;
    let tag = line.get::<String>("tag")?;
    let mut trajectory = parse_messages(&messages)?;
    let question = trajectory.question.clone().unwrap_or_default();
    trajectory.trajectory_id = entity_id("t-", bytes.trim_ascii());
    trajectory.qa_id = qa_id(&question);
    let mut attributes = Map::from_iter([("tag".to_string(), Value::from(tag))]);
    if answers.len() > 1 {
        attributes.insert("answers".to_string(), Value::from(answers.clone()));
    }
    let answer = answers.into_iter().next().unwrap_or_default();
    Ok(PublishedTrajectory { trajectory, qa: imported_qa(question, answer, attributes), rest: line.into_json()? })
}

/// The messages of a line of the published trajectory file, not looked into.
///
/// # Errors
/// As [`parse_trajectory_line`], where it comes to the line and the list of messages.
pub fn messages_of_line(bytes: &[u8]) -> Result<Vec<Message>, Rejection> {
    parse_message_list(Line::parse(bytes)?.take("messages")?)
}

/// What a line is a line of, by its members: a file of trajectories, of questions, or of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineOf {
    /// The trajectory file: it has `messages`.
    Trajectories,
    /// The QA file: it has `question` and `answer`.
    Questions,
    /// CloudEvents: it has `specversion`.
    Events,
}

impl LineOf {
    /// None where it is no JSON object, or one of another kind.
    pub fn look(bytes: &[u8]) -> Option<LineOf> {
        let line = Line::parse(bytes).ok()?;
        let has = |name: &str| line.members.iter().any(|(member, _)| member == name);
        match () {
            () if has("messages") => Some(LineOf::Trajectories),
            () if has("specversion") => Some(LineOf::Events),
            () if has("question") && has("answer") => Some(LineOf::Questions),
            () => None,
        }
    }
}

/// Reads one line of the published QA file. Members besides question and answer are kept in `attributes`.
///
/// # Errors
/// Invalid UTF-8 or JSON, a member missing, given twice or of the wrong type, an empty question or answer.
pub fn parse_qa_line(bytes: &[u8]) -> Result<Qa, Rejection> {
    let mut line = Line::parse(bytes)?;
    let question: String = parse_as("question", line.take("question")?)?;
    let answer: String = parse_as("answer", line.take("answer")?)?;
    line.get::<String>("tag")?;
    for (name, text) in [("question", &question), ("answer", &answer)] {
        if text.trim().is_empty() {
            return Err(Rejection::of(name, "must not be empty"));
        }
    }
    let mut attributes = Map::new();
    for (name, value) in line.members {
        let value = parse_as(&name, value)?;
        attributes.insert(name, value);
    }
    Ok(imported_qa(question, answer, attributes))
}

/// A trajectory's `data`: the row's columns and what has none.
#[derive(Serialize)]
struct TrajectoryData<'a> {
    #[serde(flatten)]
    row: &'a Trajectory,
    published: &'a RawValue,
}

fn event<R: HasKind>(row: &R, data: &impl Serialize, id: EventId, time: DateTime<Utc>) -> Result<Event, Rejection> {
    let envelope = Envelope {
        id,
        source_event_id: None,
        source: SOURCE.to_string(),
        kind: R::KIND,
        time: Some(time),
        subject: Some(row.subject()),
        run_id: None,
        parents: Vec::new(),
        traceparent: None,
        extensions: Vec::new(),
    };
    Ok(Event { envelope, data: to_raw_value(data).map_err(unwritable)? })
}

fn imported_qa(question: String, answer: String, attributes: Map<String, Value>) -> Qa {
    Qa {
        qa_id: qa_id(&question),
        method: "import".to_string(),
        question,
        answer,
        attributes: Some(JsonText(Value::Object(attributes))),
        ..Qa::default()
    }
}

fn entity_id(prefix: &str, content: impl AsRef<[u8]>) -> String {
    prefix.chars().chain(sha256_hex(content).chars().take(ID_DIGITS)).collect()
}

fn missing(name: &str) -> Rejection {
    Rejection::of(name, "is required and missing")
}

fn unwritable(error: serde_json::Error) -> Rejection {
    Rejection::new(format!("cannot be written as JSON: {error}"))
}

/// Each message apart, so that the error can name the one at fault.
fn parse_message_list(value: &RawValue) -> Result<Vec<Message>, Rejection> {
    let list: Vec<&RawValue> = parse_as("messages", value)?;
    let parse = |(index, value): (usize, &&RawValue)| {
        let field = format!("messages[{index}]");
        // Checked here because a list of two would pass for the object.
        if !value.get().starts_with('{') {
            return Err(Rejection::of(field, "must be an object with role and content"));
        }
        parse_as(&field, value)
    };
    list.iter().enumerate().map(parse).collect()
}

/// All gold answers of a trajectory line, in order.
fn gold_answers(lists: &[Vec<String>]) -> Result<Vec<String>, Rejection> {
    let answers: Vec<String> = lists.concat();
    if answers.is_empty() || answers.iter().any(|answer| answer.trim().is_empty()) {
        return Err(Rejection::of("answer", "must hold at least one answer, and none that is empty"));
    }
    Ok(answers)
}

fn parse_as<'a, T: serde::Deserialize<'a>>(field: &str, value: &'a RawValue) -> Result<T, Rejection> {
    serde_json::from_str(value.get()).map_err(|e| Rejection::of(field, json_reason(&e)))
}

/// The members of a JSON object in their order, values as written.
struct Line<'a> {
    members: Vec<(String, &'a RawValue)>,
}

impl<'a> Line<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Line<'a>, Rejection> {
        let text = std::str::from_utf8(bytes)
            .map_err(|e| Rejection::new(format!("invalid UTF-8 at byte {}", e.valid_up_to())))?;
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let members = deserializer
            .deserialize_map(Members)
            .and_then(|members| deserializer.end().map(|()| members))
            .map_err(|e| Rejection::new(format!("invalid JSON: {}", json_reason(&e))))?;
        Ok(Line { members })
    }

    fn get<T: DeserializeOwned>(&self, name: &str) -> Result<T, Rejection> {
        let found = self.members.iter().find(|(member, _)| member == name);
        parse_as(name, found.ok_or_else(|| missing(name))?.1)
    }

    fn take(&mut self, name: &str) -> Result<&'a RawValue, Rejection> {
        let found = self.members.iter().position(|(member, _)| member == name);
        Ok(self.members.remove(found.ok_or_else(|| missing(name))?).1)
    }

    /// The members as a JSON object again.
    fn into_json(self) -> Result<Box<RawValue>, Rejection> {
        let mut json = String::from("{");
        for (name, value) in &self.members {
            // A raw value is checked for its syntax only; what reads the table must be able to parse it.
            parse_as::<Value>(name, value)?;
            if json.len() > 1 {
                json.push(',');
            }
            json.push_str(&Value::from(name.as_str()).to_string());
            json.push(':');
            json.push_str(value.get());
        }
        json.push('}');
        RawValue::from_string(json).map_err(unwritable)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        use serde::de::Error as _;
        let mut members: Vec<(String, &RawValue)> = Vec::new();
        let mut names = std::collections::HashSet::new();
        while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
            if !names.insert(name.clone()) {
                return Err(A::Error::custom(format!("member {name:?} is given twice")));
            }
            members.push((name, value));
        }
        Ok(members)
    }
}
