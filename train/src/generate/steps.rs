//! Steps of fixed shapes: a token of each sequence, so that a GPU can be told once what to do and does it again at one call.
//!
//! A step has some hundred small operations, and for small models telling a GPU of them takes longer than they do. What is
//! recorded reads and writes the same memory each time; so rows are filled up to a power of two, keys to a multiple of
//! [`KEYS`], and what changes from step to step is copied to where the recorded step reads it. Rows that fill write to slots
//! that nobody has, keys that fill stand behind a mask. Where nothing can be recorded the same steps are computed one by one.

use std::collections::VecDeque;

use tch::{Device, Tensor};

use super::cache::{KvCache, Step};
use crate::device::upload;
use crate::graphs::{Graph, Graphs};
use crate::model::{Context, Qwen};

/// Keys of a step are a multiple of so many: a step is recorded anew when sequences have grown by them.
const KEYS: i64 = 256;
/// Steps that are kept, each with the memory that it computes in; the oldest goes.
const KEPT_MAX: usize = 32;

/// Steps that were recorded, by their shapes.
pub(super) struct Steps {
    /// Or why nothing is recorded.
    graphs: Result<&'static Graphs, String>,
    kept: VecDeque<Recorded>,
    /// Of the cache that they work in.
    cache_version: u64,
}

struct Recorded {
    rows: usize,
    keys: i64,
    /// What it reads.
    context: Context,
    positions: Tensor,
    /// What it comes to, \[rows, h\].
    hidden: Tensor,
    graph: Option<Graph>,
}

impl Steps {
    pub(super) fn new(device: Device) -> Self {
        let graphs = Graphs::open(device).map_err(|error| error.to_string());
        Self { graphs, kept: VecDeque::new(), cache_version: 0 }
    }

    /// Why nothing is recorded, if so.
    pub(super) fn unrecorded(&self) -> Option<&str> {
        self.graphs.as_ref().err().map(String::as_str)
    }

    /// Hidden states of the last token of each sequence, \[B, h\]: their ids, and their places in the sequences. They are
    /// overwritten by the next step.
    pub(super) fn run(&mut self, model: &Qwen, cache: &mut KvCache, ids: &[i64], positions: &[i64]) -> Tensor {
        let (count, rows) = (ids.len() as i64, ids.len().next_power_of_two());
        let longest = positions.iter().max().map_or(0, |longest| longest + 1);
        let keys = (longest + KEYS - 1) / KEYS * KEYS;
        cache.reserve(rows as i64, keys);
        if self.cache_version != cache.version() {
            // It lies elsewhere.
            self.kept.clear();
            self.cache_version = cache.version();
        }
        let filled = |values: &[i64]| {
            let mut values = values.to_vec();
            values.resize(rows, 0);
            values
        };
        let (ids, positions) = (filled(ids), filled(positions));
        let context = model.context(&ids, &positions);
        let positions = upload(&positions, model.head().device());
        let known = self.kept.iter().position(|step| (step.rows, step.keys) == (rows, keys));
        let at = known.unwrap_or_else(|| {
            let made = self.record(
                model,
                cache,
                Recorded {
                    rows,
                    keys,
                    hidden: Tensor::new(),
                    context: context.shallow_clone(),
                    positions: positions.shallow_clone(),
                    graph: None,
                },
            );
            if self.kept.len() == KEPT_MAX {
                self.kept.pop_front();
            }
            self.kept.push_back(made);
            self.kept.len() - 1
        });
        let step = &mut self.kept[at];
        if known.is_some() {
            step.context.assign(&context);
            step.positions.copy_(&positions);
        }
        let failed = step.graph.as_ref().and_then(|graph| graph.replay().err());
        if let Some(error) = failed {
            step.graph = None;
            self.graphs = Err(error.to_string());
        }
        if step.graph.is_none() {
            step.hidden = step.computed(model, cache);
        }
        step.hidden.narrow(0, 0, count)
    }

    /// Records a step, if that can be.
    fn record(&mut self, model: &Qwen, cache: &mut KvCache, step: Recorded) -> Recorded {
        let Ok(graphs) = self.graphs else { return step };
        // Once as it is: kernels are chosen and libraries made ready, which cannot be recorded.
        let _ = step.computed(model, cache);
        match graphs.record(model.head().device(), || step.computed(model, cache)) {
            Ok((graph, hidden)) => Recorded { graph: Some(graph), hidden, ..step },
            Err(error) => {
                self.graphs = Err(error.to_string());
                step
            }
        }
    }
}

impl Recorded {
    fn computed(&self, model: &Qwen, cache: &mut KvCache) -> Tensor {
        model.hidden(&self.context, &mut Step::fixed(cache, &self.positions, self.keys))
    }
}
