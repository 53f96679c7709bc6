//! From a trajectory to token ids, and which of them are trained: those that the agent wrote, and no other.
//!
//! The agent wrote its thoughts, calls and answers, and the token that ends each of its turns. It did not write the
//! system message, the question, what tools answered, the instruction that forced an answer, nor the frame around
//! messages; nor, for all that is known, the end of a turn that is not whole, as one that was cut at its length. Parts are
//! encoded one by one, so that no token is half the agent's.
//!
//! Token ids that were recorded when the trajectory was sampled are used in place of its text where
//!
//! | | else |
//! |---|---|
//! | a tokenizer of the same digest wrote them | [`OtherTokenizer`](NotRecorded::OtherTokenizer) |
//! | every turn has its context and its completion | [`Incomplete`](NotRecorded::Incomplete) |
//! | each context is the last one, the completion to it, and more | [`NotAnExtension`](NotRecorded::NotAnExtension) |
//! | the completions read as the turns do | [`OtherText`](NotRecorded::OtherText) |
//!
//! and the trajectory is rendered anew from its text, and counted. Some engines leave the token that ended a turn out of
//! what they return: it is trained all the same where no turn of the trajectory has it and the turn is whole. Behind a turn
//! that was cut at its length it stands, since the next context has it, but nobody wrote it. A reasoning model that was shown its past actions
//! without its past thoughts has contexts that are no extensions: its trajectories are always rendered anew.

use webdancer_agent::conversation::{Message, RenderError, Role, render_messages};
use webdancer_agent::format::parse_turn;
use webdancer_schemas::rows::Trajectory;

use crate::chat::{self, Chat};
use crate::input::InputError;
use crate::tokenizer::ChatTokenizer;

/// A trajectory as token ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Token ids, \[T\].
    pub ids: Vec<u32>,
    /// Whether the agent wrote the token, \[T\].
    pub trained: Vec<bool>,
    /// None: these are the ids that were recorded. Else why the text was rendered.
    pub rendered: Option<NotRecorded>,
}

impl Document {
    /// Tokens that are trained.
    pub fn trained_tokens(&self) -> usize {
        self.trained.iter().filter(|&&trained| trained).count()
    }

    /// The runs of tokens that are equally trained or not, in order.
    pub fn runs(&self) -> impl Iterator<Item = (bool, &[u32])> + '_ {
        let mut start = 0;
        self.trained.chunk_by(|a, b| a == b).map(move |run| {
            let ids = self.ids.get(start..start + run.len()).unwrap_or_default();
            start += run.len();
            (run.first().copied().unwrap_or(false), ids)
        })
    }
}

/// Why recorded token ids were not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NotRecorded {
    /// None were asked for.
    NotWanted,
    /// None are there.
    Absent,
    /// They are of another tokenizer, or of one that is not known.
    OtherTokenizer,
    /// A turn has none.
    Incomplete,
    /// A turn's context does not begin with all that came before.
    NotAnExtension,
    /// They do not read as the turns do, or are no ids of the tokenizer.
    OtherText,
}

impl NotRecorded {
    /// A few words.
    pub fn name(self) -> &'static str {
        match self {
            NotRecorded::NotWanted => "recorded ids not wanted",
            NotRecorded::Absent => "no recorded ids",
            NotRecorded::OtherTokenizer => "recorded ids of another tokenizer",
            NotRecorded::Incomplete => "recorded ids of some turns only",
            NotRecorded::NotAnExtension => "a recorded context that does not extend the one before",
            NotRecorded::OtherText => "recorded ids that read otherwise than the turns",
        }
    }
}

/// Why a trajectory has no tokens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MaskError {
    /// The row is no whole trajectory.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// The tokenizer fails.
    #[error(transparent)]
    Tokenizer(#[from] InputError),
}

/// Makes tokens of trajectories.
#[derive(Debug, Clone)]
pub struct Masker {
    tokenizer: ChatTokenizer,
    chat: Chat,
    recorded: bool,
    observations: bool,
}

impl Masker {
    /// With the tokenizer and the renderer of the model that is trained. `recorded`: whether recorded ids may be used.
    pub fn new(tokenizer: ChatTokenizer, chat: Chat, recorded: bool) -> Masker {
        Masker { tokenizer, chat, recorded, observations: false }
    }

    /// The same; `observations`: whether all that stands between the agent's first token and its last is trained.
    pub fn with_observations(self, observations: bool) -> Masker {
        Masker { observations, ..self }
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &ChatTokenizer {
        &self.tokenizer
    }

    /// The renderer.
    pub fn chat(&self) -> &Chat {
        &self.chat
    }

    /// The tokens of a trajectory.
    ///
    /// # Errors
    /// The row lacks parts of it, or the tokenizer fails.
    pub fn document(&self, row: &Trajectory) -> Result<Document, MaskError> {
        let messages = render_messages(row)?;
        let mut document = match self.recorded(row, &messages) {
            Ok(document) => document,
            Err(reason) => {
                let (ids, trained) = chat::encode(&self.tokenizer, &self.chat.segments(&messages))?;
                Document { ids, trained, rendered: Some(reason) }
            }
        };
        if self.observations {
            document.train_between();
        }
        Ok(document)
    }

    /// The recorded ids, if they may be used.
    fn recorded(&self, row: &Trajectory, messages: &[Message]) -> Result<Document, NotRecorded> {
        if !self.recorded {
            return Err(NotRecorded::NotWanted);
        }
        let (Some(contexts), Some(completions)) = (&row.turn_context_token_ids, &row.turn_completion_token_ids) else {
            return Err(NotRecorded::Absent);
        };
        if row.tokenizer_digest.as_deref() != Some(self.tokenizer.digest()) {
            return Err(NotRecorded::OtherTokenizer);
        }
        let turns: Vec<&Message> = messages.iter().filter(|message| message.role == Role::Assistant).collect();
        if contexts.len() != turns.len() || completions.len() != turns.len() {
            return Err(NotRecorded::Incomplete);
        }
        let end = self.tokenizer.message_end();
        let recorded_ends = completions.iter().flatten().any(|ids| ids.last().is_some_and(|&id| self.is_end(id)));
        let mut document = Document { ids: Vec::new(), trained: Vec::new(), rendered: None };
        for ((context, completion), turn) in contexts.iter().zip(completions).zip(turns) {
            let context = self.ids(context.as_deref().ok_or(NotRecorded::Incomplete)?)?;
            let completion = self.ids(completion.as_deref().ok_or(NotRecorded::Incomplete)?)?;
            let added = context.strip_prefix(document.ids.as_slice()).ok_or(NotRecorded::NotAnExtension)?;
            document.push(added, false);
            let ended = completion.strip_suffix(&[end]);
            let text = ended.unwrap_or(&completion);
            let reads = self.tokenizer.decode(text).map_err(|_| NotRecorded::OtherText)?;
            let written = turn.content.strip_prefix(self.chat.opening()).unwrap_or(&turn.content);
            if reads != written {
                return Err(NotRecorded::OtherText);
            }
            document.push(text, true);
            if ended.is_some() || (!recorded_ends && parse_turn(&turn.content).is_ok()) {
                document.push(&[end], true);
            }
        }
        Ok(document)
    }

    fn is_end(&self, recorded: i32) -> bool {
        u32::try_from(recorded) == Ok(self.tokenizer.message_end())
    }

    fn ids(&self, recorded: &[i32]) -> Result<Vec<u32>, NotRecorded> {
        let known = |&id: &i32| u32::try_from(id).ok().filter(|&id| id < self.tokenizer.ids());
        recorded.iter().map(known).collect::<Option<_>>().ok_or(NotRecorded::OtherText)
    }
}

impl Document {
    /// Trains all that stands between what is trained.
    fn train_between(&mut self) {
        let first = self.trained.iter().position(|&trained| trained);
        let last = self.trained.iter().rposition(|&trained| trained);
        if let Some((first, last)) = first.zip(last)
            && let Some(between) = self.trained.get_mut(first..=last)
        {
            between.fill(true);
        }
    }

    fn push(&mut self, ids: &[u32], trained: bool) {
        self.ids.extend_from_slice(ids);
        self.trained.resize(self.ids.len(), trained);
    }
}
