//! A trajectory while it is made: the row, and the messages as they are sent.

use std::time::Duration;

use serde_json::Value;
use webdancer_schemas::rows::Trajectory;

use super::turn::{Deed, Written, without_thought};
use super::{Cot, Task};
use crate::chat::Completion;
use crate::conversation::{Message, Role, sha256_hex};
use crate::format::render_observation;
use crate::profile::Profile;
use crate::tool::Source;
use crate::tool::limits::shorten;

/// A trajectory under way. The lists of turns are always of one length.
#[derive(Debug)]
pub(super) struct Record {
    row: Trajectory,
    cot: Cot,
    /// The conversation as the model gets it.
    sent: Vec<Message>,
    input_tokens: u64,
    output_tokens: u64,
    /// Tokens of the conversation up to the last completion, with it.
    context_tokens: u64,
    /// Bytes that were added since.
    new_bytes: u64,
    context_ids: Vec<Option<Vec<i32>>>,
    completion_ids: Vec<Option<Vec<i32>>>,
    log_probs: Vec<Option<Vec<f32>>>,
    versions: Vec<Option<i64>>,
    ms: Vec<Option<i64>>,
    tool_ms: Vec<Option<i64>>,
    input: Vec<Option<i64>>,
    output: Vec<Option<i64>>,
    outcomes: Vec<Option<String>>,
    sources: Vec<Option<Vec<Source>>>,
    /// The last observation, while a final turn is tried with less of it.
    whole_observation: Option<String>,
}

impl Record {
    pub(super) fn new(task: &Task<'_>, profile: &Profile, specifications: &[Value], cot: Cot) -> Record {
        let (system, prefix) = (profile.system_message(task.date), profile.user_prefix(specifications));
        let sent = vec![
            Message { role: Role::System, content: system.clone() },
            Message { role: Role::User, content: format!("{prefix}{}", task.question) },
        ];
        let row = Trajectory {
            trajectory_id: task.trajectory_id.to_string(),
            qa_id: task.qa_id.to_string(),
            seed: task.seed,
            attempt: task.attempt,
            prompt_profile: Some(profile.id()),
            system_prompt: Some(system),
            user_prefix: Some(prefix),
            question: Some(task.question.to_string()),
            restricted: task.restricted,
            ..Trajectory::default()
        };
        Record {
            row,
            cot,
            sent,
            input_tokens: 0,
            output_tokens: 0,
            context_tokens: 0,
            new_bytes: 0,
            context_ids: Vec::new(),
            completion_ids: Vec::new(),
            log_probs: Vec::new(),
            versions: Vec::new(),
            ms: Vec::new(),
            tool_ms: Vec::new(),
            input: Vec::new(),
            output: Vec::new(),
            outcomes: Vec::new(),
            sources: Vec::new(),
            whole_observation: None,
        }
    }

    /// The messages to send.
    pub(super) fn messages(&self) -> &[Message] {
        &self.sent
    }

    /// Tokens that the model wrote so far.
    pub(super) fn written_tokens(&self) -> u64 {
        self.output_tokens
    }

    /// Tokens of the conversation: as counted, and estimated for what came since.
    pub(super) fn context_tokens(&self, bytes_per_token: u64) -> u64 {
        self.context_tokens + self.new_bytes.div_ceil(bytes_per_token)
    }

    /// Turns so far.
    pub(super) fn turns(&self) -> u32 {
        u32::try_from(self.row.turn_thought.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn has_turns(&self) -> bool {
        !self.row.turn_thought.is_empty()
    }

    /// Adds a turn; its place.
    pub(super) fn push(&mut self, written: Written, completion: &Completion, version: Option<i64>) -> usize {
        let content = self.remember(&written, completion);
        self.sent.push(Message { role: Role::Assistant, content });
        let (tool, arguments) = match written.deed {
            Deed::Call { tool, arguments } => (Some(tool), Some(arguments)),
            Deed::Answer(answer) => {
                self.row.answer = Some(answer);
                (None, None)
            }
            Deed::Malformed(_) => (None, None),
        };
        self.row.turn_thought.push(written.thought);
        self.row.turn_tool.push(tool);
        self.row.turn_arguments.push(arguments);
        self.row.turn_observation.push(None);
        self.row.turn_observation_digest.push(None);
        self.row.turn_raw.push((!written.canonical).then_some(written.text));
        // Of a text that was cut without its tokens, these say something else than the text.
        let tokens = completion.tokens.as_ref().filter(|_| !written.cut);
        self.context_ids.push(tokens.and_then(|tokens| tokens.prompt_ids.clone()));
        self.completion_ids.push(tokens.map(|tokens| tokens.ids.clone()).filter(|ids| !ids.is_empty()));
        self.log_probs.push(tokens.map(|tokens| tokens.log_probs.clone()).filter(|list| !list.is_empty()));
        let sampled_from = completion.tokens.as_ref().and_then(|tokens| tokens.policy_version);
        self.versions.push(sampled_from.or(version));
        self.ms.push(None);
        self.tool_ms.push(None);
        self.outcomes.push(None);
        self.sources.push(None);
        self.ms.len() - 1
    }

    /// Counts a turn's tokens; what of it stays in the conversation.
    fn remember(&mut self, written: &Written, completion: &Completion) -> String {
        let usage = &completion.usage;
        self.input_tokens += usage.input_tokens;
        self.output_tokens += usage.output_tokens;
        self.input.push(Some(whole(usage.input_tokens)));
        self.output.push(Some(whole(usage.output_tokens)));
        match self.cot {
            Cot::Short => {
                self.context_tokens = usage.input_tokens + usage.output_tokens;
                self.new_bytes = 0;
                written.text.clone()
            }
            // The thought was written and paid for, and is not read again.
            Cot::Long => {
                let action = without_thought(&written.text);
                self.context_tokens = usage.input_tokens;
                self.new_bytes = action.len() as u64;
                action.to_string()
            }
        }
    }

    /// What came back to the last turn.
    pub(super) fn observe(&mut self, observation: &str, outcome: &str) {
        let content = render_observation(observation);
        self.new_bytes += content.len() as u64;
        self.sent.push(Message { role: Role::User, content });
        set_last(&mut self.row.turn_observation, observation.to_string());
        set_last(&mut self.row.turn_observation_digest, sha256_hex(observation));
        set_last(&mut self.outcomes, outcome.to_string());
    }

    /// What the last observation was made of.
    pub(super) fn made_of(&mut self, sources: Vec<Source>) {
        if !sources.is_empty() {
            set_last(&mut self.sources, sources);
        }
    }

    /// How long a turn took.
    pub(super) fn took(&mut self, index: usize, elapsed: Duration) {
        if let Some(ms) = self.ms.get_mut(index) {
            *ms = Some(milliseconds(elapsed));
        }
    }

    /// How long a turn's tool took.
    pub(super) fn tool_took(&mut self, index: usize, elapsed: Duration) {
        if let Some(ms) = self.tool_ms.get_mut(index) {
            *ms = Some(milliseconds(elapsed));
        }
    }

    /// Asks for the final answer. False: there is no observation yet after which it could be asked for.
    pub(super) fn begin_final(&mut self, instruction: &str) -> bool {
        let Some(Some(observation)) = self.row.turn_observation.last() else { return false };
        self.whole_observation = Some(observation.clone());
        self.sent.push(Message { role: Role::User, content: instruction.to_string() });
        self.row.final_instruction = Some(instruction.to_string());
        true
    }

    /// Keeps the first half of the last observation.
    pub(super) fn halve_last_observation(&mut self) {
        let Some(Some(observation)) = self.row.turn_observation.last() else { return };
        let half = shorten(observation, observation.chars().count() / 2);
        self.replace_last_observation(half);
    }

    /// Takes the request for a final answer back: nothing was written to it.
    pub(super) fn abandon_final(&mut self) {
        self.row.final_instruction = None;
        if let Some(whole) = self.whole_observation.take() {
            self.replace_last_observation(whole);
        }
        self.sent.pop();
    }

    /// While a final answer is asked for, the message before the last is the observation.
    fn replace_last_observation(&mut self, observation: String) {
        if let Some(message) = self.sent.iter_mut().rev().nth(1) {
            message.content = render_observation(&observation);
        }
        set_last(&mut self.row.turn_observation_digest, sha256_hex(&observation));
        set_last(&mut self.row.turn_observation, observation);
    }

    /// The row, without what the policy is and why it ended.
    pub(super) fn finish(self) -> Trajectory {
        let mut row = self.row;
        row.n_turns = i32::try_from(row.turn_thought.len()).unwrap_or(i32::MAX);
        row.n_tool_calls = i32::try_from(row.turn_tool.iter().flatten().count()).unwrap_or(i32::MAX);
        row.input_tokens = Some(whole(self.input_tokens));
        row.output_tokens = Some(whole(self.output_tokens));
        row.turn_context_token_ids = any(self.context_ids);
        row.turn_completion_token_ids = any(self.completion_ids);
        row.turn_log_probs = any(self.log_probs);
        row.turn_policy_version = any(self.versions);
        row.turn_ms = Some(self.ms);
        row.turn_tool_ms = any(self.tool_ms);
        row.turn_input_tokens = Some(self.input);
        row.turn_output_tokens = Some(self.output);
        row.turn_outcome = Some(self.outcomes);
        let each = |part: fn(&Source) -> &String| {
            let parts = |sources: &Vec<Source>| sources.iter().map(part).cloned().collect();
            any(self.sources.iter().map(|sources| sources.as_ref().map(parts)).collect())
        };
        row.turn_source_urls = each(|source| &source.url);
        row.turn_source_digests = each(|source| &source.digest);
        row
    }
}

/// A count as a column holds it.
fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn milliseconds(elapsed: Duration) -> i64 {
    whole(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

fn set_last<T>(list: &mut [Option<T>], value: T) {
    if let Some(last) = list.last_mut() {
        *last = Some(value);
    }
}

/// A column of turns; none where no turn has a value.
fn any<T>(list: Vec<Option<T>>) -> Option<Vec<Option<T>>> {
    list.iter().any(Option::is_some).then_some(list)
}
