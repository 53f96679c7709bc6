//! The chat template in a model's folder: Jinja, as transformers renders it.
//!
//! It is not what conversations are rendered with: it is what [`Chat`] is held against. Both render a conversation of
//! our format, and
//!
//! | they differ in | then |
//! |---|---|
//! | the frame: roles, ends of messages, what begins a turn | an error: the model is of another family |
//! | past thoughts | a [`Difference`], to be told: the renderer keeps them all |

use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, context};
use serde_json::Value;
use webdancer_agent::conversation::{Message, Role};

use super::{Chat, text};
use crate::input::{InputError, read_file};
use crate::tokenizer::{MESSAGE_END, MESSAGE_START};

/// The template by itself, as newer folders have it.
const TEMPLATE_FILE: &str = "chat_template.jinja";
/// The tokenizer's settings, with the template as text in older folders.
const CONFIG_FILE: &str = "tokenizer_config.json";
/// Bytes of either file.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Steps that a template may take over the few messages it is shown.
const STEPS_MAX: u64 = 1_000_000;
/// Characters of a difference that are quoted.
const QUOTED_CHARS: usize = 40;

/// A chat template.
#[derive(Debug, Clone)]
pub struct Template {
    source: String,
    place: String,
}

/// Where the template renders a trajectory of ours otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{place}: the template renders past turns otherwise than they are trained (ours goes on with {ours:?}, its with \
     {theirs:?}): engines that use it show the model another context than webdancer-train does"
)]
pub struct Difference {
    /// The file of the template.
    pub place: String,
    /// What ours has at the first difference.
    pub ours: String,
    /// What the template has there.
    pub theirs: String,
}

impl Chat {
    /// The renderer of the model in `folder`, and what its template does otherwise. A folder without a template gets
    /// the bare frame.
    ///
    /// # Errors
    /// The template cannot be read or rendered, or its frame is another.
    pub fn of_folder(folder: &Path) -> Result<(Chat, Option<Difference>), InputError> {
        match Template::of_folder(folder)? {
            Some(template) => Chat::of_template(&template),
            None => Ok((Chat::default(), None)),
        }
    }

    /// The renderer that goes with `template`, and what the template does otherwise.
    ///
    /// # Errors
    /// The template cannot be rendered, or its frame is another.
    pub fn of_template(template: &Template) -> Result<(Chat, Option<Difference>), InputError> {
        let chat = Chat { default_system: template.default_system()?, opening: template.opening()? };
        let turns = probe();
        let frame: Vec<Message> = turns.iter().map(|message| message_of(message.role, plain(message.role))).collect();
        for messages in [frame.get(1..2).unwrap_or_default(), &frame] {
            if let Some(difference) = template.difference(&chat, messages)? {
                let Difference { place, ours, theirs } = difference;
                let reason =
                    format!("is not of the ChatML family: ours goes on with {ours:?}, the template with {theirs:?}");
                return Err(InputError::new(place, reason));
            }
        }
        let difference = template.difference(&chat, &turns)?;
        Ok((chat, difference))
    }
}

impl Template {
    /// A template, of `place`.
    pub fn new(source: impl Into<String>, place: impl Into<String>) -> Template {
        Template { source: source.into(), place: place.into() }
    }

    /// The template in a model's folder: `chat_template.jinja`, or `chat_template` of `tokenizer_config.json`; where that
    /// is a list, the one named `default`. None where there is none.
    ///
    /// # Errors
    /// A file cannot be read or is not what it should be.
    pub fn of_folder(folder: &Path) -> Result<Option<Template>, InputError> {
        let path = folder.join(TEMPLATE_FILE);
        if path.exists() {
            let source = String::from_utf8(read_file(&path, FILE_BYTES_MAX)?);
            let source = source.map_err(|_| InputError::file(&path, "is not UTF-8"))?;
            return Ok(Some(Template::new(source, path.display().to_string())));
        }
        let path = folder.join(CONFIG_FILE);
        if !path.exists() {
            return Ok(None);
        }
        let config: Value = serde_json::from_slice(&read_file(&path, FILE_BYTES_MAX)?)
            .map_err(|error| InputError::file(&path, format!("is not JSON: {error}")))?;
        let named_default = |value: &&Value| value.get("name").and_then(Value::as_str) == Some("default");
        let source = match config.get("chat_template") {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Array(list)) => list.iter().find(named_default).and_then(|value| value.get("template")),
            one => one,
        };
        let source = source.and_then(Value::as_str);
        let source =
            source.ok_or_else(|| InputError::file(&path, "chat_template is no text, and no list with a default"))?;
        Ok(Some(Template::new(source, path.display().to_string())))
    }

    /// Renders messages as `apply_chat_template` does.
    ///
    /// # Errors
    /// The template is not valid, or refuses the messages.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, InputError> {
        let fault = |error: Error| InputError::new(&self.place, format!("the chat template: {error}"));
        let mut environment = Environment::new();
        // As transformers sets them.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(fault)?;
        environment.set_syntax(syntax);
        environment.set_fuel(Some(STEPS_MAX));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |reason: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, reason))
        });
        let template = environment.template_from_str(&self.source).map_err(fault)?;
        template.render(context! { messages => Serde(messages), add_generation_prompt }).map_err(fault)
    }

    /// The system message that is put in where a conversation has none.
    fn default_system(&self) -> Result<Option<String>, InputError> {
        let whole = self.render(&[message_of(Role::User, "a")], false)?;
        let fault =
            || InputError::new(&self.place, "is not of the ChatML family: it renders a user's message otherwise");
        let before = whole.strip_suffix(&format!("{MESSAGE_START}user\na{MESSAGE_END}\n")).ok_or_else(fault)?;
        if before.is_empty() {
            return Ok(None);
        }
        let system = before.strip_prefix(&format!("{MESSAGE_START}system\n"));
        let system = system.and_then(|rest| rest.strip_suffix(&format!("{MESSAGE_END}\n"))).ok_or_else(fault)?;
        Ok(Some(system.to_string()))
    }

    /// What an assistant's message is begun with.
    fn opening(&self) -> Result<String, InputError> {
        let messages = [message_of(Role::System, "a"), message_of(Role::User, "b")];
        let (without, with) = (self.render(&messages, false)?, self.render(&messages, true)?);
        let added =
            with.strip_prefix(&without).and_then(|rest| rest.strip_prefix(&format!("{MESSAGE_START}assistant\n")));
        let fault =
            || InputError::new(&self.place, "is not of the ChatML family: it begins an assistant's turn otherwise");
        added.map(str::to_string).ok_or_else(fault)
    }

    /// Where the template renders the context of the next turn otherwise than `chat`.
    fn difference(&self, chat: &Chat, messages: &[Message]) -> Result<Option<Difference>, InputError> {
        let (ours, theirs) = (text(&chat.prompt(messages)), self.render(messages, true)?);
        if ours == theirs {
            return Ok(None);
        }
        let same = ours.chars().zip(theirs.chars()).take_while(|(a, b)| a == b).count();
        let quoted = |text: &str| text.chars().skip(same).take(QUOTED_CHARS).collect();
        Ok(Some(Difference { place: self.place.clone(), ours: quoted(&ours), theirs: quoted(&theirs) }))
    }
}

fn message_of(role: Role, content: &str) -> Message {
    Message { role, content: content.to_string() }
}

/// What a role says where thoughts play no part.
fn plain(role: Role) -> &'static str {
    match role {
        Role::System => "Be kind.\nCurrent date: 2026-01-02",
        Role::User => "And then?",
        Role::Assistant => "This then.",
    }
}

/// The context of a third turn: what an agent is shown after two calls of tools.
fn probe() -> Vec<Message> {
    let call = |thought: &str| {
        let call = "<tool_call>\n{\"name\": \"search\", \"arguments\": {\"query\": [\"a\"]}}\n</tool_call>";
        message_of(Role::Assistant, &format!("<think>\n{thought}\n</think>\n{call}"))
    };
    let observation = || message_of(Role::User, "<tool_response>\nA hit.\n</tool_response>");
    vec![
        message_of(Role::System, plain(Role::System)),
        message_of(Role::User, "User: who?"),
        call("first"),
        observation(),
        call("second"),
        observation(),
    ]
}
