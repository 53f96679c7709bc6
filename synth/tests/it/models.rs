//! Models that are played, and a judge that compares words.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use webdancer_agent::chat::{ChatError, ChatModel, ChatRequest, Completion, Finish, Usage};
use webdancer_agent::judge::{Case, Decision, Judge, Verdict};
use webdancer_synth::question::normalised;

type Play = Box<dyn Fn(&str, usize) -> Result<String, ChatError> + Send + Sync>;

/// A model that answers by a function of the conversation's text and the number of the call.
pub(crate) struct Played {
    name: String,
    play: Play,
    pub(crate) calls: AtomicUsize,
    /// What it was asked, all messages of a call in one text.
    pub(crate) asked: Mutex<Vec<String>>,
}

impl std::fmt::Debug for Played {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl Played {
    pub(crate) fn new(
        name: &str,
        play: impl Fn(&str, usize) -> Result<String, ChatError> + Send + Sync + 'static,
    ) -> Arc<Played> {
        let (name, play) = (name.to_string(), Box::new(play));
        Arc::new(Played { name, play, calls: AtomicUsize::new(0), asked: Mutex::default() })
    }

    pub(crate) fn count(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl ChatModel for Played {
    fn name(&self) -> &str {
        &self.name
    }

    async fn complete(&self, request: &ChatRequest) -> Result<Completion, ChatError> {
        let text = request.messages.iter().map(|message| message.content.as_str()).collect::<Vec<_>>().join("\n\n");
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        self.asked.lock().push(text.clone());
        tokio::task::yield_now().await;
        Ok(Completion {
            text: (self.play)(&text, number)?,
            reasoning: None,
            finish: Finish::Stop,
            usage: Usage::default(),
            tokens: None,
            elapsed: Duration::ZERO,
        })
    }
}

/// Right is what has the same words; an answer with "error" in it makes the judge fail.
#[derive(Debug)]
pub(crate) struct SameWords;

#[async_trait]
impl Judge for SameWords {
    fn name(&self) -> &str {
        "same-words"
    }

    fn rule_version(&self) -> i32 {
        1
    }

    async fn judge(&self, case: &Case<'_>) -> Decision {
        let verdict = match normalised(case.answer) == normalised(case.gold) {
            _ if case.answer.contains("error") => Verdict::Error,
            true => Verdict::Pass,
            false => Verdict::Fail,
        };
        Decision { verdict, attempted: true, extracted: None, confidence: None, rationale: String::new() }
    }
}
