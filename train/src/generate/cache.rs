//! Keys and values of the sequences under way, and attention over them.

use tch::{Device, Kind, Tensor};

use crate::device::upload;
use crate::model::{Attention, ModelConfig, PackedCausal};

/// What is held for each layer: \[slots, K, capacity, D\]. The sequences under way fill the first slots without gaps.
#[derive(Debug)]
pub(super) struct KvCache {
    keys: Vec<Tensor>,
    values: Vec<Tensor>,
    slots: i64,
    capacity: i64,
    /// How often it was moved.
    version: u64,
    shape: (i64, i64),
    /// Slots and tokens that are ever needed.
    most: (i64, i64),
    options: (Kind, Device),
}

/// Slots and tokens are added by so many at first, then by doubling.
const SLOTS_FIRST: i64 = 4;
const CAPACITY_FIRST: i64 = 64;

impl KvCache {
    pub(super) fn new(config: &ModelConfig, most: (i64, i64), kind: Kind, device: Device) -> Self {
        let empty = || (0..config.layers).map(|_| Tensor::zeros([0, 0, 0, 0], (kind, device))).collect();
        let shape = (config.kv_heads, config.head_dim);
        Self { keys: empty(), values: empty(), slots: 0, capacity: 0, version: 0, shape, most, options: (kind, device) }
    }

    /// Holds nothing any more: where making room failed, layers differ in size.
    pub(super) fn clear(&mut self) {
        for held in self.keys.iter_mut().chain(&mut self.values) {
            *held = Tensor::zeros([0, 0, 0, 0], self.options);
        }
        (self.slots, self.capacity) = (0, 0);
        self.version += 1;
    }

    /// Another one whenever keys and values came to lie elsewhere.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Makes room for so many sequences of so many tokens each.
    pub(super) fn reserve(&mut self, slots: i64, tokens: i64) {
        let grown = |held: i64, wanted: i64, first: i64, most: i64| {
            if wanted <= held { held } else { (held * 2).max(first).min(most).max(wanted) }
        };
        let slots = grown(self.slots, slots, SLOTS_FIRST, self.most.0);
        let capacity = grown(self.capacity, tokens, CAPACITY_FIRST, self.most.1);
        if (slots, capacity) == (self.slots, self.capacity) {
            return;
        }
        let (heads, width) = self.shape;
        for held in self.keys.iter_mut().chain(&mut self.values) {
            let larger = Tensor::zeros([slots, heads, capacity, width], self.options);
            if self.slots > 0 {
                larger.narrow(0, 0, self.slots).narrow(2, 0, self.capacity).copy_(held);
            }
            *held = larger;
        }
        (self.slots, self.capacity) = (slots, capacity);
        self.version += 1;
    }

    /// Moves a sequence of so many tokens to another slot.
    pub(super) fn move_slot(&mut self, from: i64, to: i64, tokens: i64) {
        for held in self.keys.iter().chain(&self.values) {
            held.get(to).narrow(1, 0, tokens).copy_(&held.get(from).narrow(1, 0, tokens));
        }
    }

    /// Keys and values of so many tokens of a sequence, from one on: \[layers, K, count, D\] each.
    pub(super) fn read(&self, slot: i64, from: usize, count: usize) -> (Tensor, Tensor) {
        let part = |held: &Tensor| held.get(slot).narrow(1, from as i64, count as i64);
        let all = |held: &[Tensor]| Tensor::stack(&held.iter().map(part).collect::<Vec<_>>(), 0);
        (all(&self.keys), all(&self.values))
    }

    /// Puts keys and values of the first tokens of a sequence, as [`Self::read`] gives them, into its slot.
    pub(super) fn write(&mut self, slot: i64, keys: &Tensor, values: &Tensor) {
        let tokens = keys.size()[2];
        for (held, new) in [(&self.keys, keys), (&self.values, values)] {
            for (held, layer) in held.iter().zip(0..) {
                held.get(slot).narrow(1, 0, tokens).copy_(&new.get(layer));
            }
        }
    }
}

/// A prompt to read: its slot, how many of its tokens are held there already, and how many are to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unread {
    pub(super) slot: i64,
    pub(super) held: i64,
    pub(super) tokens: i64,
}

/// Prompts, laid one after the other as documents are: attention within each, keys and values kept.
pub(super) struct Prefill<'a> {
    cache: &'a mut KvCache,
    prompts: &'a [Unread],
    /// Prompts of which nothing is held come first, and this is attention within each.
    whole: PackedCausal,
    whole_tokens: i64,
}

/// Tokens of a prompt that attend to its beginning at a time: their mask has so many rows.
const QUERIES_MAX: i64 = 512;

impl<'a> Prefill<'a> {
    /// Those of which nothing is held must come first.
    pub(super) fn new(cache: &'a mut KvCache, prompts: &'a [Unread]) -> Self {
        let mut starts = vec![0];
        for prompt in prompts.iter().take_while(|prompt| prompt.held == 0) {
            starts.push(starts.last().unwrap_or(&0) + prompt.tokens);
        }
        let whole = PackedCausal::new(&starts, cache.options.1);
        Self { whole_tokens: starts.last().copied().unwrap_or(0), whole, cache, prompts }
    }

    /// Attention of a prompt's new tokens, queries \[T, H, D\], to all that its slot holds: \[T, H·D\].
    fn attend_behind(&self, layer: usize, prompt: Unread, query: &Tensor) -> Tensor {
        let (kind, device) = self.cache.options;
        let query = query.transpose(0, 1).unsqueeze(0);
        let outputs: Vec<Tensor> = (0..prompt.tokens)
            .step_by(QUERIES_MAX as usize)
            .map(|first| {
                let count = QUERIES_MAX.min(prompt.tokens - first);
                let (before, end) = (prompt.held + first, prompt.held + first + count);
                let held = |held: &Tensor| held.get(prompt.slot).narrow(1, 0, end).unsqueeze(0);
                let (keys, values) = (held(&self.cache.keys[layer]), held(&self.cache.values[layer]));
                let mask = Tensor::full([count, end], f64::NEG_INFINITY, (kind, device)).triu(before + 1);
                let query = query.narrow(2, first, count);
                Tensor::scaled_dot_product_attention(&query, &keys, &values, Some(&mask), 0.0, false, None, true)
            })
            .collect();
        Tensor::cat(&outputs, 2).squeeze_dim(0).transpose(0, 1).flatten(1, 2)
    }
}

impl Attention for Prefill<'_> {
    fn attend(&mut self, layer: usize, query: &Tensor, key: &Tensor, value: &Tensor) -> Tensor {
        let whole = |all: &Tensor| all.narrow(0, 0, self.whole_tokens);
        let mut outputs = Vec::new();
        if self.whole_tokens > 0 {
            outputs.push(self.whole.attend(layer, &whole(query), &whole(key), &whole(value)));
        }
        let mut start = 0;
        for &prompt in self.prompts {
            for (held, new) in [(&self.cache.keys[layer], key), (&self.cache.values[layer], value)] {
                let mut place = held.get(prompt.slot).narrow(1, prompt.held, prompt.tokens);
                place.copy_(&new.narrow(0, start, prompt.tokens).transpose(0, 1));
            }
            if prompt.held > 0 {
                outputs.push(self.attend_behind(layer, prompt, &query.narrow(0, start, prompt.tokens)));
            }
            start += prompt.tokens;
        }
        Tensor::cat(&outputs, 0)
    }
}

/// One more token of each sequence, B of them.
pub(super) struct Step<'a> {
    cache: &'a mut KvCache,
    /// 0, 1, …, B−1, and the place of the new token in each: \[B\].
    slots: Tensor,
    positions: Tensor,
    /// Tokens of the longest sequence, the new one included.
    longest: i64,
    /// 0 up to the new token of each sequence and −∞ behind it, \[B, 1, 1, longest\]; none where all are as long.
    mask: Option<Tensor>,
}

impl<'a> Step<'a> {
    pub(super) fn new(cache: &'a mut KvCache, positions: &[i64]) -> Self {
        let longest = positions.iter().max().map_or(0, |longest| longest + 1);
        let even = positions.iter().all(|position| position + 1 == longest);
        let positions = upload(positions, cache.options.1);
        Self::at(cache, positions, longest, !even)
    }

    /// At places that are read when it is run, \[B\], with so many keys, whatever the places are.
    pub(super) fn fixed(cache: &'a mut KvCache, positions: &Tensor, keys: i64) -> Self {
        Self::at(cache, positions.shallow_clone(), keys, true)
    }

    fn at(cache: &'a mut KvCache, positions: Tensor, longest: i64, masked: bool) -> Self {
        let (kind, device) = cache.options;
        let mask = masked.then(|| {
            let behind =
                Tensor::arange(longest, (Kind::Int64, device)).unsqueeze(0).greater_tensor(&positions.unsqueeze(1));
            let mask = Tensor::zeros(behind.size(), (kind, device)).masked_fill(&behind, f64::NEG_INFINITY);
            mask.unsqueeze(1).unsqueeze(1)
        });
        let slots = Tensor::arange(positions.numel() as i64, (Kind::Int64, device));
        Self { cache, slots, positions, longest, mask }
    }
}

impl Attention for Step<'_> {
    fn attend(&mut self, layer: usize, query: &Tensor, key: &Tensor, value: &Tensor) -> Tensor {
        let places = [Some(&self.slots), None, Some(&self.positions)];
        let _ = self.cache.keys[layer].index_put_(&places, key, false);
        let _ = self.cache.values[layer].index_put_(&places, value, false);
        let count = self.slots.numel() as i64;
        let held = |held: &Tensor| held.narrow(0, 0, count).narrow(2, 0, self.longest);
        let (keys, values) = (held(&self.cache.keys[layer]), held(&self.cache.values[layer]));
        let mask = self.mask.as_ref();
        // Query heads that share keys stand where tokens do, \[B, K, H/K, D\]: all of them see the same. With a mask no fused
        // kernel of a GPU takes fewer key heads than query heads.
        let (heads, width) = self.cache.shape;
        let query = query.view([count, heads, -1, width]);
        let output = Tensor::scaled_dot_product_attention(&query, &keys, &values, mask, 0.0, false, None, false);
        output.flatten(1, 3)
    }
}
