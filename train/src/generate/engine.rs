//! Continuous batching: sequences come and go between two steps.

use std::collections::VecDeque;
use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use super::cache::{KvCache, Prefill, Step, Unread};
use super::prefix::{BLOCK, PrefixCache};
use super::sampling::{Row, generator, sample};
use super::steps::Steps;
use super::text::{Added, Decode, TextStream};
use super::{Finish, Request, Written};
use crate::device::upload;
use crate::error::{TrainError, guard};
use crate::model::Qwen;

/// Names a request within its engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Why a request is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The prompt leaves no room for an answer.
    #[error("the prompt has {tokens} tokens; 1 to {most} fit the context")]
    TooLong {
        /// Of the prompt.
        tokens: usize,
        /// Tokens that a prompt may have.
        most: usize,
    },
    /// Too many wait already.
    #[error("{0} requests are waiting; try again later")]
    Busy(usize),
}

/// Limits of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineConfig {
    /// Sequences written at a time; further ones wait.
    pub sequences_max: usize,
    /// Tokens of prompts that one step reads, so that those under way need not wait long. A longer prompt goes alone.
    /// Those that are kept from earlier sequences are not read and do not count.
    pub prompt_tokens_per_step: usize,
    /// Tokens of prompt and completion together; the model's own limit if that is lower.
    pub context_max: usize,
    /// Requests that wait; further ones are refused.
    pub waiting_max: usize,
    /// Bytes of keys and values that are kept of sequences read and written, for prompts that begin as they did; 0 keeps
    /// none. They come on top of those of the sequences under way.
    pub prefix_bytes_max: usize,
    /// Steps have fixed shapes, and on a GPU each shape is recorded once as a CUDA graph. Unmeasured, and not yet run on a GPU.
    pub cuda_graphs: bool,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            sequences_max: 64,
            prompt_tokens_per_step: 8192,
            context_max: 32_768,
            waiting_max: 4096,
            prefix_bytes_max: 1 << 30,
            cuda_graphs: false,
        }
    }
}

/// A model that writes.
pub struct Engine {
    config: EngineConfig,
    model: Qwen,
    decoder: Arc<dyn Decode>,
    cache: KvCache,
    /// Where steps have fixed shapes.
    steps: Option<Steps>,
    prefixes: PrefixCache,
    /// Version of the weights that `prefixes` are of: libtorch counts the writes to a tensor.
    weights: i64,
    waiting: VecDeque<Sequence>,
    /// Those under way, each in the slot of its place here.
    active: Vec<Sequence>,
    next: u64,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("active", &self.active.len()).field("waiting", &self.waiting.len()).finish()
    }
}

struct Sequence {
    id: RequestId,
    request: Request,
    /// Prompt and completion; the last one is not in the cache yet.
    tokens: Vec<i64>,
    /// Tokens of the prompt that were kept from earlier sequences.
    cached: usize,
    /// Version of the weights that it was begun with.
    weights: i64,
    random: ChaCha8Rng,
    text: TextStream,
    finished: bool,
}

impl Engine {
    /// An engine with nothing to do.
    pub fn new(config: EngineConfig, model: Qwen, decoder: Arc<dyn Decode>) -> Self {
        let flat = model.parameters().flat();
        let context_max = config.context_max.min(model.config().max_positions as usize);
        let most = (config.sequences_max as i64, context_max as i64);
        let cache = KvCache::new(model.config(), most, flat.kind(), flat.device());
        let steps = config.cuda_graphs.then(|| Steps::new(flat.device()));
        let config = EngineConfig { context_max, ..config };
        let weights = model.trained().flat().internal_version();
        let prefixes = PrefixCache::new(config.prefix_bytes_max);
        let (waiting, active) = (VecDeque::new(), Vec::new());
        Self { config, model, decoder, cache, steps, prefixes, weights, waiting, active, next: 0 }
    }

    /// An engine whose answer to a request depends on nothing but the request and the weights: it has one slot, so that
    /// no other sequence shares a product of matrices with it, whose size is fixed from the start, and keeps nothing of
    /// earlier sequences. Sums must be cut alike, too: see [`be_deterministic`](crate::device::be_deterministic).
    ///
    /// # Errors
    ///
    /// There is no memory for keys and values of `context_max` tokens.
    pub fn deterministic(config: EngineConfig, model: Qwen, decoder: Arc<dyn Decode>) -> Result<Self, TrainError> {
        let config = EngineConfig { sequences_max: 1, prefix_bytes_max: 0, cuda_graphs: false, ..config };
        let mut engine = Self::new(config, model, decoder);
        guard(|| {
            engine.cache.reserve(1, engine.config.context_max as i64);
            Ok(())
        })?;
        Ok(engine)
    }

    /// Takes a request; it is begun in one of the next steps, in the order of submission.
    ///
    /// # Errors
    ///
    /// The prompt is empty, leaves no room for a token, or holds what is no token of the model; or too many wait.
    pub fn submit(&mut self, request: Request) -> Result<RequestId, Refusal> {
        let (tokens, most) = (request.prompt.len(), self.config.context_max.saturating_sub(1));
        if tokens == 0 || tokens > most {
            return Err(Refusal::TooLong { tokens, most });
        }
        let vocabulary = self.model.config().vocab_size;
        if let Some(id) = request.prompt.iter().find(|id| !(0..vocabulary).contains(id)) {
            let reason = format!("token {id} of the prompt is not among the model's {vocabulary}");
            return Err(Refusal::Invalid(reason));
        }
        if request.max_tokens == 0 {
            return Err(Refusal::Invalid("max_tokens is 0".into()));
        }
        if self.waiting.len() >= self.config.waiting_max {
            return Err(Refusal::Busy(self.waiting.len()));
        }
        let id = RequestId(self.next);
        self.next += 1;
        self.waiting.push_back(Sequence {
            id,
            tokens: request.prompt.clone(),
            cached: 0,
            weights: self.weights,
            random: generator(&request.sampling),
            text: TextStream::new(request.stop.clone()),
            finished: false,
            request,
        });
        Ok(id)
    }

    /// Gives up a request, waiting or under way. Its place is free at once.
    pub fn cancel(&mut self, id: RequestId) {
        self.waiting.retain(|sequence| sequence.id != id);
        if let Some(slot) = self.active.iter().position(|sequence| sequence.id == id) {
            self.leave(slot);
        }
    }

    /// Whether nothing is waiting or under way.
    pub fn idle(&self) -> bool {
        self.waiting.is_empty() && self.active.is_empty()
    }

    /// Sequences under way.
    pub fn active(&self) -> usize {
        self.active.len()
    }

    /// Why steps are not recorded, where [`EngineConfig::cuda_graphs`] asks for it and it cannot be.
    pub fn unrecorded(&self) -> Option<&str> {
        self.steps.as_ref()?.unrecorded()
    }

    /// The model.
    pub fn model(&self) -> &Qwen {
        &self.model
    }

    /// Begins what fits and writes a token of each sequence that was under way: none or more tokens a request.
    ///
    /// # Errors
    ///
    /// libtorch failed: memory ran out, most likely. All requests are given up.
    pub fn step(&mut self) -> Result<Vec<Written>, TrainError> {
        let outcome = guard(|| Ok(tch::no_grad(|| self.advance())));
        if outcome.is_err() {
            self.waiting.clear();
            self.active.clear();
            self.prefixes.clear();
            self.cache.clear();
        }
        outcome
    }

    fn advance(&mut self) -> Vec<Written> {
        let weights = self.model.trained().flat().internal_version();
        if weights != self.weights {
            self.prefixes.clear();
            self.weights = weights;
        }
        let mut written = Vec::new();
        let before = self.active.len();
        if before > 0 {
            let positions: Vec<i64> = self.active.iter().map(|sequence| sequence.tokens.len() as i64 - 1).collect();
            let ids: Vec<i64> = self.active.iter().filter_map(|sequence| sequence.tokens.last().copied()).collect();
            let Self { model, cache, steps, .. } = self;
            let hidden = match steps {
                Some(steps) => steps.run(model, cache, &ids, &positions),
                None => {
                    cache.reserve(before as i64, positions.iter().max().map_or(0, |longest| longest + 1));
                    model.hidden(&model.context(&ids, &positions), &mut Step::new(cache, &positions))
                }
            };
            self.write(0, &hidden, &mut written);
        }
        let begun = self.admit();
        if !begun.is_empty() {
            let hidden = self.read_prompts(begun);
            self.write(before, &hidden, &mut written);
            // At once, for those that wait with the same beginning.
            (before..self.active.len()).for_each(|slot| self.keep(slot));
        }
        for slot in (0..self.active.len()).rev() {
            if self.active[slot].finished {
                self.keep(slot);
                self.leave(slot);
            }
        }
        written
    }

    /// Takes requests from the queue that there are slots for, up to one whose beginning is being read for another one: in
    /// the next step it is kept. Those of which nothing is kept come first.
    fn admit(&mut self) -> Vec<Sequence> {
        let (mut begun, mut unread) = (Vec::<Sequence>::new(), 0);
        while self.active.len() + begun.len() < self.config.sequences_max.max(1) {
            let Some(next) = self.waiting.front_mut() else { break };
            // The last token is always read: what follows it is wanted.
            next.cached = self.prefixes.known(&next.tokens[..next.tokens.len() - 1]);
            next.weights = self.weights;
            unread += next.tokens.len() - next.cached;
            let is_much = unread > self.config.prompt_tokens_per_step && !begun.is_empty();
            if is_much || (self.config.prefix_bytes_max > 0 && begun.iter().any(|other| next.begins_as(other))) {
                break;
            }
            begun.extend(self.waiting.pop_front());
        }
        begun.sort_by_key(|sequence| sequence.cached > 0);
        begun
    }

    /// Gives sequences slots and runs their prompts; hidden states of their last tokens, \[B, h\].
    fn read_prompts(&mut self, begun: Vec<Sequence>) -> tch::Tensor {
        let (mut ids, mut positions, mut prompts, mut lasts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let longest = begun.iter().map(|sequence| sequence.tokens.len()).max().unwrap_or(0);
        self.cache.reserve((self.active.len() + begun.len()) as i64, longest as i64 + 1);
        for (sequence, slot) in begun.iter().zip(self.active.len() as i64..) {
            let (known, unread) = sequence.tokens.split_at(sequence.cached);
            if let Some((keys, values)) = self.prefixes.longest(known) {
                self.cache.write(slot, &keys, &values);
            }
            ids.extend_from_slice(unread);
            positions.extend(known.len() as i64..sequence.tokens.len() as i64);
            prompts.push(Unread { slot, held: known.len() as i64, tokens: unread.len() as i64 });
            lasts.push(ids.len() as i64 - 1);
        }
        self.active.extend(begun);
        let context = self.model.context(&ids, &positions);
        let hidden = self.model.hidden(&context, &mut Prefill::new(&mut self.cache, &prompts));
        hidden.index_select(0, &upload(&lasts, hidden.device()))
    }

    /// Samples a token for each sequence from a slot on, from hidden states \[B, h\].
    fn write(&mut self, first: usize, hidden: &tch::Tensor, written: &mut Vec<Written>) {
        let logits = hidden.matmul(&self.model.head().tr());
        let sequences = &mut self.active[first..first + hidden.size()[0] as usize];
        let mut rows: Vec<Row<'_>> = sequences
            .iter_mut()
            .map(|Sequence { request, random, tokens, .. }| Row { config: &request.sampling, random, tokens })
            .collect();
        let (ids, log_probs) = sample(&logits, &mut rows);
        drop(rows);
        for ((sequence, id), log_prob) in sequences.iter_mut().zip(ids).zip(log_probs) {
            let (Added { piece, text, stop }, finish) =
                sequence.take(id, self.config.context_max, self.decoder.as_ref());
            let (request, prompt_cached) = (sequence.id, sequence.cached);
            written.push(Written { request, id, log_prob, piece, text, finish, stop, prompt_cached });
        }
    }

    /// Keeps what the cache holds of a sequence for later prompts; nothing if other weights computed some of it.
    fn keep(&mut self, slot: usize) {
        let Self { cache, prefixes, active, weights, .. } = self;
        let Sequence { tokens, weights: begun_with, .. } = &active[slot];
        if begun_with == weights {
            let held = &tokens[..tokens.len() - 1];
            prefixes.keep(held, |from, count| cache.read(slot as i64, from, count));
        }
    }

    /// Frees a slot; the last sequence moves into it.
    fn leave(&mut self, slot: usize) {
        let last = self.active.len() - 1;
        self.active.swap_remove(slot);
        if slot < last {
            let held = self.active[slot].tokens.len() as i64 - 1;
            tch::no_grad(|| self.cache.move_slot(last as i64, slot as i64, held));
        }
    }
}

impl Sequence {
    /// Whether the first block that is to be read of its prompt is one of the other's, too.
    fn begins_as(&self, other: &Sequence) -> bool {
        let end = self.cached + BLOCK;
        end < self.tokens.len() && other.tokens.get(..end) == self.tokens.get(..end)
    }

    /// Takes a sampled token: what it adds, and whether it was the last.
    fn take(&mut self, id: i64, context_max: usize, decoder: &dyn Decode) -> (Added, Option<Finish>) {
        self.tokens.push(id);
        let ended = self.request.stop_ids.contains(&id);
        let mut added = match ended {
            true => Added { text: self.text.rest(decoder), ..Added::default() },
            false => self.text.push(id, decoder),
        };
        let stopped = ended || added.stop.is_some();
        let full = self.tokens.len() >= context_max;
        let enough = self.tokens.len() - self.request.prompt.len() >= self.request.max_tokens;
        let finish = match (stopped, full || enough) {
            (true, _) => Some(Finish::Stop),
            (false, true) => Some(Finish::Length),
            (false, false) => None,
        };
        if finish == Some(Finish::Length) {
            added.text.push_str(&self.text.rest(decoder));
        }
        self.finished = finish.is_some();
        (added, finish)
    }
}
