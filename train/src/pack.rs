//! Documents into micro-batches of so many tokens at most: best-fit decreasing.
//!
//! An epoch is a shuffle of the documents, drawn from the seed and the epoch's number alone. It is cut into updates of
//! so many documents first, and each update is packed by itself. So which documents make an update, and its loss, do
//! not depend on the token budget: a smaller GPU takes more micro-batches and learns the same.

use std::collections::BTreeMap;

use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

use crate::batch::{BatchSource, PackedBatch, Update};

/// A document to be packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackDocument {
    /// Row of the pins, from 0 over all of them.
    pub row: u32,
    /// Token ids, \[T\].
    pub ids: Vec<u32>,
    /// Whether the token is trained, \[T\].
    pub trained: Vec<bool>,
}

/// The documents of a run, packed anew in each epoch.
#[derive(Debug, Clone)]
pub struct Packing {
    documents: Vec<PackDocument>,
    validation: Vec<PackedBatch>,
    update_documents: usize,
    budget_tokens: usize,
    seed: u64,
}

impl Packing {
    /// Packs `validation` once and `train` by epoch: updates of `update_documents`, micro-batches of `budget_tokens`. A
    /// document longer than the budget has a micro-batch of its own.
    pub fn new(
        train: Vec<PackDocument>,
        validation: &[PackDocument],
        update_documents: usize,
        budget_tokens: usize,
        seed: u64,
    ) -> Packing {
        let validation = pack(&validation.iter().collect::<Vec<_>>(), budget_tokens);
        Packing { documents: train, validation, update_documents: update_documents.max(1), budget_tokens, seed }
    }

    /// The documents trained on.
    pub fn documents(&self) -> &[PackDocument] {
        &self.documents
    }

    /// Tokens of the longest document, of those trained on and those kept back.
    pub fn longest_tokens(&self) -> i64 {
        let trained = self.documents.iter().map(|document| document.ids.len() as i64);
        trained.chain(self.validation.iter().flat_map(PackedBatch::lengths)).max().unwrap_or(0)
    }
}

impl BatchSource for Packing {
    fn epoch(&self, epoch: u64) -> Box<dyn Iterator<Item = Update> + '_> {
        let mut order: Vec<&PackDocument> = self.documents.iter().collect();
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        // Each epoch has a stream of its own: the fifth is the same whether or not four were drawn before.
        random.set_stream(epoch);
        order.shuffle(&mut random);
        let cuts = (0..order.len()).step_by(self.update_documents);
        let update = move |start: usize| {
            let end = order.len().min(start + self.update_documents);
            Update { batches: pack(order.get(start..end).unwrap_or_default(), self.budget_tokens) }
        };
        Box::new(cuts.map(update))
    }

    fn updates_per_epoch(&self) -> u64 {
        self.documents.len().div_ceil(self.update_documents) as u64
    }

    fn validation(&self) -> &[PackedBatch] {
        &self.validation
    }
}

/// Documents, longest first, each into the fullest micro-batch that has room for it.
pub fn pack(documents: &[&PackDocument], budget_tokens: usize) -> Vec<PackedBatch> {
    let mut by_length: Vec<&PackDocument> = documents.to_vec();
    // Stable: of equal length, in the order given.
    by_length.sort_by_key(|document| std::cmp::Reverse(document.ids.len()));
    let mut bins: Vec<Vec<&PackDocument>> = Vec::new();
    let mut with_room: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for document in by_length {
        let length = document.ids.len();
        let fullest = with_room.range(length..).next().map(|(&room, _)| room);
        let (bin, room) = match fullest.and_then(|room| Some((with_room.get_mut(&room)?.pop()?, room))) {
            Some((bin, room)) => {
                if with_room.get(&room).is_some_and(Vec::is_empty) {
                    with_room.remove(&room);
                }
                (bin, room)
            }
            None => {
                bins.push(Vec::new());
                (bins.len() - 1, budget_tokens)
            }
        };
        if let Some(bin) = bins.get_mut(bin) {
            bin.push(document);
        }
        with_room.entry(room.saturating_sub(length)).or_default().push(bin);
    }
    bins.iter().map(|bin| batch_of(bin)).collect()
}

fn batch_of(documents: &[&PackDocument]) -> PackedBatch {
    let mut batch = PackedBatch::default();
    for document in documents {
        let ids: Vec<i64> = document.ids.iter().copied().map(i64::from).collect();
        batch.push(document.row, &ids, &document.trained);
    }
    batch
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::Aggregation;

    fn document(row: u32, length: usize) -> PackDocument {
        let ids = (0..length as u32).map(|at| row * 1_000 + at).collect();
        PackDocument { row, ids, trained: (0..length).map(|at| at % 3 == 1).collect() }
    }

    fn packing(lengths: &[usize], update_documents: usize, budget: usize, seed: u64) -> Packing {
        let documents = lengths.iter().enumerate().map(|(row, &length)| document(row as u32, length)).collect();
        Packing::new(documents, &[], update_documents, budget, seed)
    }

    #[test]
    fn the_longest_goes_first_into_the_fullest_that_has_room() {
        let documents: Vec<PackDocument> =
            [4, 8, 1, 4, 2, 1].iter().enumerate().map(|(row, &n)| document(row as u32, n)).collect();
        let batches = pack(&documents.iter().collect::<Vec<_>>(), 10);
        let rows: Vec<Vec<u32>> = batches.iter().map(|batch| batch.rows.clone()).collect();
        // 8 leaves room for 2, and so do 4 and 4: the latter, filled last, take the 2, the former the two of 1.
        assert_eq!(rows, [vec![1, 2, 5], vec![0, 3, 4]]);
        assert_eq!(batches[1].doc_starts, [0, 4, 8, 10]);
        assert_eq!(batches[1].positions, [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]);
    }

    #[test]
    fn every_document_is_in_every_epoch_once_and_whole() {
        let lengths: Vec<usize> = (0..200).map(|number| 1 + (number * 7) % 61).collect();
        let packing = packing(&lengths, 16, 64, 3);
        for epoch in 0..3 {
            let mut seen: BTreeMap<u32, Vec<i64>> = BTreeMap::new();
            let updates: Vec<Update> = packing.epoch(epoch).collect();
            assert_eq!(updates.len() as u64, packing.updates_per_epoch());
            for batch in updates.iter().flat_map(|update| &update.batches) {
                assert!(batch.tokens() <= 64, "{}", batch.tokens());
                for (row, place) in batch.rows.iter().zip(batch.doc_starts.windows(2)) {
                    let ids = batch.ids[place[0] as usize..place[1] as usize].to_vec();
                    assert!(seen.insert(*row, ids).is_none(), "row {row} twice");
                }
            }
            assert_eq!(seen.len(), 200);
            for document in packing.documents() {
                assert_eq!(seen[&document.row], document.ids.iter().map(|&id| i64::from(id)).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn an_epoch_depends_on_seed_and_number_alone() {
        let lengths: Vec<usize> = (0..100).map(|number| 1 + number % 50).collect();
        let first = packing(&lengths, 8, 64, 1);
        let updates = |packing: &Packing, epoch| packing.epoch(epoch).collect::<Vec<_>>();
        assert_eq!(updates(&first, 2), updates(&packing(&lengths, 8, 64, 1), 2));
        assert_ne!(updates(&first, 2), updates(&first, 3));
        assert_ne!(updates(&first, 2), updates(&packing(&lengths, 8, 64, 2), 2));
    }

    #[test]
    fn which_documents_an_update_has_does_not_depend_on_the_budget_nor_does_a_tokens_weight() {
        let lengths: Vec<usize> = (0..60).map(|number| 2 + (number * 11) % 41).collect();
        let weights = |budget: usize, aggregation| -> Vec<BTreeMap<i64, f32>> {
            let of = |update: Update| {
                let weights = update.weights(aggregation).concat();
                let ids = update.batches.iter().flat_map(|batch| batch.ids.clone());
                ids.zip(weights).collect()
            };
            packing(&lengths, 7, budget, 5).epoch(0).map(of).collect()
        };
        for aggregation in [Aggregation::TokenMean, Aggregation::SeqMeanTokenMean, Aggregation::SeqMeanTokenSum] {
            let small = weights(42, aggregation);
            assert_eq!(small, weights(10_000, aggregation));
            if aggregation != Aggregation::SeqMeanTokenSum {
                for update in small {
                    assert!((update.values().sum::<f32>() - 1.0).abs() < 1e-5);
                }
            }
        }
    }

    #[test]
    fn a_document_longer_than_the_budget_stands_alone() {
        let documents = [document(0, 12), document(1, 3)];
        let batches = pack(&documents.iter().collect::<Vec<_>>(), 10);
        assert_eq!(batches.iter().map(PackedBatch::tokens).collect::<Vec<_>>(), [12, 3]);
    }
}
