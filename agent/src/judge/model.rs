//! Judging by a chat model.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Case, Decision, Judge, Style};
use crate::chat::{ChatModel, ChatRequest, Finish, Sampling};
use crate::conversation::{Message, Role};
use crate::format::clip;

/// A chat model that judges answers.
#[derive(Debug, Clone)]
pub struct ModelJudge {
    model: Arc<dyn ChatModel>,
    style: Style,
    options: ModelJudgeOptions,
}

/// How a judging model is used, and its limits.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelJudgeOptions {
    /// How it samples. Default: temperature 0.
    pub sampling: Sampling,
    /// Tokens of a reply at most. Default 4,096: reasoning models think before they reply.
    pub tokens_max: u32,
    /// Replies asked for until one can be read. Default 3.
    pub replies_max: u32,
    /// Characters of the judged answer that are shown; of a longer one its end. Default 20,000.
    pub answer_chars_max: usize,
    /// Characters of its reasons that are kept. Default 2,000.
    pub rationale_chars_max: usize,
}

impl Default for ModelJudgeOptions {
    fn default() -> ModelJudgeOptions {
        ModelJudgeOptions {
            sampling: Sampling { temperature: Some(0.0), ..Sampling::default() },
            tokens_max: 4_096,
            replies_max: 3,
            answer_chars_max: 20_000,
            rationale_chars_max: 2_000,
        }
    }
}

impl ModelJudge {
    /// A judge that asks `model` in this style.
    pub fn new(model: Arc<dyn ChatModel>, style: Style, options: ModelJudgeOptions) -> ModelJudge {
        ModelJudge { model, style, options }
    }

    fn request(&self, case: &Case<'_>) -> ChatRequest {
        let shown = end_of(case.answer, self.options.answer_chars_max);
        ChatRequest {
            messages: self.style.messages(&Case { answer: shown, ..*case }),
            sampling: self.options.sampling,
            max_tokens: Some(self.options.tokens_max),
            ..ChatRequest::default()
        }
    }
}

#[async_trait]
impl Judge for ModelJudge {
    fn name(&self) -> &str {
        self.model.name()
    }

    fn rule_version(&self) -> i32 {
        self.style.prompt_version()
    }

    async fn judge(&self, case: &Case<'_>) -> Decision {
        if let Some(settled) = case.settled() {
            return settled;
        }
        let read = |reply: &str| self.style.decision(reply);
        match ask(self.model.as_ref(), self.request(case), self.style.reminder(), self.options.replies_max, read).await
        {
            Ok(decision) => Decision {
                rationale: clip(decision.rationale.trim(), self.options.rationale_chars_max).into_owned(),
                ..decision
            },
            Err(reason) => Decision::error(reason),
        }
    }
}

/// Asks a model until `read` makes something of its reply, `replies_max` times at most. A reply that could not be read
/// is shown to it again, with `reminder`: sampled at temperature 0, it would else come again.
///
/// # Errors
/// Why there is nothing to read, in one line: the model's error, or the last reply's beginning.
pub async fn ask<T>(
    model: &dyn ChatModel,
    mut request: ChatRequest,
    reminder: &str,
    replies_max: u32,
    read: impl Fn(&str) -> Option<T> + Send,
) -> Result<T, String> {
    let mut last = "the model was not asked".to_string();
    for reply in 1..=replies_max {
        let completion = model.complete(&request).await.map_err(|error| error.to_string())?;
        if let Some(value) = read(&completion.text) {
            return Ok(value);
        }
        let ended = match completion.finish {
            Finish::Stop | Finish::Overrun => "",
            Finish::Length => ", cut off at its length",
            Finish::Filtered => ", withheld in part",
        };
        let shown = clip(completion.text.trim(), SHOWN_CHARS);
        last = format!("{}: no verdict in {reply} replies; the last{ended}: {shown:?}", model.name());
        request.messages.push(Message { role: Role::Assistant, content: completion.text });
        request.messages.push(Message { role: Role::User, content: reminder.to_string() });
    }
    Err(last)
}

/// Characters of a reply that an error shows.
const SHOWN_CHARS: usize = 120;

/// The last `chars_max` characters: a final answer stands at the end.
fn end_of(text: &str, chars_max: usize) -> &str {
    let Some(last) = chars_max.checked_sub(1) else { return "" };
    text.char_indices().rev().nth(last).and_then(|(start, _)| text.get(start..)).unwrap_or(text)
}
