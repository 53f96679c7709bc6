//! Keys and values of the sequences under way, and attention over them.

use tch::{Device, Kind, Tensor};

use crate::model::{Attention, ModelConfig, PackedCausal};

/// What is held for each layer: \[slots, K, capacity, D\]. The sequences under way fill the first slots without gaps.
#[derive(Debug)]
pub(super) struct KvCache {
    keys: Vec<Tensor>,
    values: Vec<Tensor>,
    slots: i64,
    capacity: i64,
    shape: (i64, i64),
    options: (Kind, Device),
}

/// Slots and tokens are added by so many at first, then by doubling.
const SLOTS_FIRST: i64 = 4;
const CAPACITY_FIRST: i64 = 64;

impl KvCache {
    pub(super) fn new(config: &ModelConfig, kind: Kind, device: Device) -> Self {
        let empty = || (0..config.layers).map(|_| Tensor::zeros([0, 0, 0, 0], (kind, device))).collect();
        let shape = (config.kv_heads, config.head_dim);
        Self { keys: empty(), values: empty(), slots: 0, capacity: 0, shape, options: (kind, device) }
    }

    /// Makes room for so many sequences of so many tokens each.
    pub(super) fn reserve(&mut self, slots: i64, tokens: i64) {
        let grown =
            |held: i64, wanted: i64, first: i64| if wanted <= held { held } else { wanted.max(held * 2).max(first) };
        let (slots, capacity) = (grown(self.slots, slots, SLOTS_FIRST), grown(self.capacity, tokens, CAPACITY_FIRST));
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
    }

    /// Moves a sequence of so many tokens to another slot.
    pub(super) fn move_slot(&mut self, from: i64, to: i64, tokens: i64) {
        for held in self.keys.iter().chain(&self.values) {
            held.get(to).narrow(1, 0, tokens).copy_(&held.get(from).narrow(1, 0, tokens));
        }
    }
}

/// Prompts, laid one after the other as documents are: attention within each, keys and values kept.
pub(super) struct Prefill<'a> {
    pub(super) cache: &'a mut KvCache,
    pub(super) doc_starts: &'a [i64],
    /// Attention within each prompt.
    pub(super) within: PackedCausal,
    /// Slot of the first prompt; the others follow.
    pub(super) first_slot: i64,
}

impl Attention for Prefill<'_> {
    fn attend(&mut self, layer: usize, query: &Tensor, key: &Tensor, value: &Tensor) -> Tensor {
        for (slot, bounds) in (self.first_slot..).zip(self.doc_starts.windows(2)) {
            let length = bounds[1] - bounds[0];
            for (held, new) in [(&self.cache.keys[layer], key), (&self.cache.values[layer], value)] {
                held.get(slot).narrow(1, 0, length).copy_(&new.narrow(0, bounds[0], length).transpose(0, 1));
            }
        }
        self.within.attend(layer, query, key, value)
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
        let (kind, device) = cache.options;
        let longest = positions.iter().max().map_or(0, |longest| longest + 1);
        let even = positions.iter().all(|position| position + 1 == longest);
        let positions = Tensor::from_slice(positions).to_device(device);
        let mask = (!even).then(|| {
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
        let output =
            Tensor::scaled_dot_product_attention(&query.unsqueeze(2), &keys, &values, mask, 0.0, false, None, true);
        output.flatten(1, 3)
    }
}
