//! What packing hands to a model: documents laid one after the other in one row of tokens.
//!
//! There is no padding and no batch dimension. A document is one rendered trajectory; attention never crosses from one
//! document into another, and positions start at 0 in each.

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

    /// Lengths of the documents, in tokens.
    pub fn lengths(&self) -> impl Iterator<Item = i64> + '_ {
        self.doc_starts.windows(2).map(|pair| pair[1] - pair[0])
    }
}

/// Where a training run takes its batches from.
pub trait BatchSource {
    /// The micro-batches of an epoch, in order. The same epoch gives the same batches, in this process and the next: a
    /// resumed run counts on it.
    fn epoch(&self, epoch: u64) -> Box<dyn Iterator<Item = PackedBatch> + '_>;

    /// The batches to validate on; none of their questions is in an epoch. May be empty.
    fn validation(&self) -> &[PackedBatch];
}

#[cfg(test)]
mod tests {
    use super::*;

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
