//! What packing hands to a model: documents laid one after the other in one row of tokens.
//!
//! There is no padding and no batch dimension. A document is one rendered trajectory; attention never crosses from one
//! document into another, and positions start at 0 in each.

use crate::config::Aggregation;

/// One micro-batch: T tokens of D documents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackedBatch {
    /// Token ids, \[T\].
    pub ids: Vec<i64>,
    /// Place of each token within its document, \[T\], from 0.
    pub positions: Vec<i64>,
    /// Where documents start, and T at the end: \[D + 1\], rising. Known as `cu_seqlens`.
    pub doc_starts: Vec<i64>,
    /// Whether the token is one to learn to write, \[T\]: the loss looks at how token `t` is predicted from those before
    /// it. False for the first token of a document, which nothing predicts.
    pub trained: Vec<bool>,
    /// Where each document comes from, \[D\]: a row of the pin.
    pub rows: Vec<u32>,
}

impl PackedBatch {
    /// Appends a document. `trained` is as long as `ids`; its first value is taken as false.
    pub fn push(&mut self, row: u32, ids: &[i64], trained: &[bool]) {
        debug_assert_eq!(ids.len(), trained.len());
        if self.doc_starts.is_empty() {
            self.doc_starts.push(0);
        }
        self.ids.extend_from_slice(ids);
        self.positions.extend(0..ids.len() as i64);
        self.trained.extend(trained.iter().enumerate().map(|(at, &trained)| trained && at > 0));
        self.doc_starts.push(self.ids.len() as i64);
        self.rows.push(row);
    }

    /// T.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// D.
    pub fn documents(&self) -> usize {
        self.rows.len()
    }

    /// Tokens that the loss looks at.
    pub fn trained_tokens(&self) -> usize {
        self.trained.iter().filter(|&&trained| trained).count()
    }

    /// [`trained`](Self::trained), document by document.
    pub fn trained_by_document(&self) -> impl Iterator<Item = &[bool]> + '_ {
        let range =
            |pair: &[i64]| pair.first().copied().unwrap_or(0) as usize..pair.last().copied().unwrap_or(0) as usize;
        self.doc_starts.windows(2).map(move |pair| self.trained.get(range(pair)).unwrap_or_default())
    }

    /// Trained tokens of each document.
    pub fn trained_per_document(&self) -> impl Iterator<Item = usize> + '_ {
        self.trained_by_document().map(|document| document.iter().filter(|&&trained| trained).count())
    }

    /// Lengths of the documents, in tokens.
    pub fn lengths(&self) -> impl Iterator<Item = i64> + '_ {
        self.doc_starts.windows(2).map(|pair| pair[1] - pair[0])
    }
}

/// What one update of the weights is made from: documents chosen before they were packed, so that neither their choice
/// nor the loss depends on how many tokens a micro-batch holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Update {
    /// The micro-batches; gradients are summed over them.
    pub batches: Vec<PackedBatch>,
}

impl Update {
    /// Documents with trained tokens, over all micro-batches.
    pub fn documents(&self) -> usize {
        self.batches.iter().flat_map(PackedBatch::trained_per_document).filter(|&trained| trained > 0).count()
    }

    /// Trained tokens over all micro-batches.
    pub fn trained_tokens(&self) -> usize {
        self.batches.iter().map(PackedBatch::trained_tokens).sum()
    }

    /// What each token of each micro-batch weighs in the loss of the update, \[T\] each: the loss is the sum of weight
    /// times −log p over all of them. Tokens that are not trained weigh 0.
    pub fn weights(&self, aggregation: Aggregation) -> Vec<Vec<f32>> {
        let (documents, tokens) = (self.documents(), self.trained_tokens());
        let of_document = |trained: usize| match aggregation {
            Aggregation::TokenMean => 1.0 / tokens as f64,
            Aggregation::SeqMeanTokenMean => 1.0 / (documents as f64 * trained as f64),
            Aggregation::SeqMeanTokenSum => 1.0 / documents as f64,
        };
        let of_batch = |batch: &PackedBatch| {
            let mut weights = Vec::with_capacity(batch.tokens());
            for document in batch.trained_by_document() {
                let trained = document.iter().filter(|&&trained| trained).count();
                let weight = of_document(trained) as f32;
                weights.extend(document.iter().map(|&trained| if trained { weight } else { 0.0 }));
            }
            weights
        };
        self.batches.iter().map(of_batch).collect()
    }
}

/// Where a training run takes its batches from.
pub trait BatchSource {
    /// The updates of an epoch, in order. The same epoch gives the same updates, in this process and the next: a
    /// resumed run counts on it.
    fn epoch(&self, epoch: u64) -> Box<dyn Iterator<Item = Update> + '_>;

    /// Updates of an epoch: the same of each.
    fn updates_per_epoch(&self) -> u64;

    /// The batches to validate on; none of their questions is in an epoch. May be empty.
    fn validation(&self) -> &[PackedBatch];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weights_of_an_update_are_those_of_its_aggregation_however_it_is_cut() {
        let documents: [(&[i64], &[bool]); 3] = [
            (&[1, 2, 3], &[false, true, true]),
            (&[4, 5], &[false, true]),
            // Nothing of it is trained: no part of a mean over documents.
            (&[6, 7], &[false, false]),
        ];
        let pack = |cut: usize| {
            let mut update = Update::default();
            for part in documents.chunks(cut) {
                let mut batch = PackedBatch::default();
                part.iter().for_each(|(ids, trained)| batch.push(0, ids, trained));
                update.batches.push(batch);
            }
            update
        };
        for (aggregation, weights) in [
            (Aggregation::TokenMean, [0.0, 1.0 / 3.0, 1.0 / 3.0, 0.0, 1.0 / 3.0, 0.0, 0.0]),
            (Aggregation::SeqMeanTokenMean, [0.0, 0.25, 0.25, 0.0, 0.5, 0.0, 0.0]),
            (Aggregation::SeqMeanTokenSum, [0.0, 0.5, 0.5, 0.0, 0.5, 0.0, 0.0]),
        ] {
            for cut in 1..=3 {
                assert_eq!(pack(cut).weights(aggregation).concat(), weights, "{aggregation:?}, {cut}");
            }
        }
        assert_eq!((pack(2).documents(), pack(2).trained_tokens()), (2, 3));
    }

    #[test]
    fn documents_lie_one_after_the_other() {
        let mut batch = PackedBatch::default();
        batch.push(7, &[1, 2, 3], &[true, false, true]);
        batch.push(9, &[4, 5], &[false, true]);
        assert_eq!(batch.ids, [1, 2, 3, 4, 5]);
        assert_eq!(batch.positions, [0, 1, 2, 0, 1]);
        assert_eq!(batch.doc_starts, [0, 3, 5]);
        assert_eq!(batch.trained, [false, false, true, false, true]);
        assert_eq!((batch.tokens(), batch.documents(), batch.trained_tokens()), (5, 2, 2));
        assert_eq!(batch.lengths().collect::<Vec<_>>(), [3, 2]);
    }
}
