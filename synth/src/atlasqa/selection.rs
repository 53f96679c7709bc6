//! Which questions to make, in which order.

use std::collections::{BTreeMap, HashSet, VecDeque};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};

use super::author::{Author, Question, Unfit};
use super::candidates::candidates;
use super::form::Form;
use crate::question::QuestionType;

/// What CRAWLQA makes of an atlas.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Selection {
    /// Types, asked in turn.
    pub types: Vec<QuestionType>,
    /// How many questions; None for all there are.
    pub count: Option<usize>,
    /// Seed of the order. Fewer questions of a seed are the first of more.
    pub seed: u64,
}

impl Default for Selection {
    /// All questions of every type but look-ups of one fact.
    fn default() -> Selection {
        let types = QuestionType::ALL.into_iter().filter(|kind| *kind != QuestionType::Generic).collect();
        Selection { types, count: None, seed: 0 }
    }
}

/// What came of the forms.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    /// Questions by type.
    pub by_type: BTreeMap<QuestionType, usize>,
    /// Forms that were no questions, by reason.
    pub unfit: BTreeMap<Unfit, usize>,
    /// Questions whose text another had.
    pub repeated: usize,
}

/// CRAWLQA over an atlas, without a model: hands each question to `found`.
///
/// Types take turns, so that a small number of questions has some of each; a type that has no more is passed over.
pub fn crawlqa(author: &mut Author<'_>, selection: &Selection, mut found: impl FnMut(Question)) -> Tally {
    let mut random = ChaCha8Rng::seed_from_u64(selection.seed);
    let mut queues: Vec<(QuestionType, VecDeque<Form>)> = Vec::new();
    for kind in &selection.types {
        let mut forms = candidates(author.atlas(), *kind);
        shuffle(&mut forms, &mut random);
        queues.push((*kind, forms.into()));
    }
    let mut tally = Tally::default();
    let mut texts = HashSet::new();
    let mut left = selection.count.unwrap_or(usize::MAX);
    while left > 0 && queues.iter().any(|(_, forms)| !forms.is_empty()) {
        for (kind, forms) in &mut queues {
            while let Some(form) = forms.pop_front().filter(|_| left > 0) {
                match author.ask(*kind, &form) {
                    Ok(question) if texts.insert(question.text.clone()) => {
                        *tally.by_type.entry(*kind).or_default() += 1;
                        found(question);
                        left -= 1;
                        break;
                    }
                    Ok(_) => tally.repeated += 1,
                    Err(unfit) => *tally.unfit.entry(unfit).or_default() += 1,
                }
            }
        }
    }
    tally
}

/// Fisher and Yates' shuffle, the same on every machine.
pub(crate) fn shuffle<T>(items: &mut [T], random: &mut ChaCha8Rng) {
    for end in (1..items.len()).rev() {
        items.swap(end, below(end + 1, random));
    }
}

/// A number below `end`, evenly but for 2⁻⁶⁴·`end`.
pub(crate) fn below(end: usize, random: &mut ChaCha8Rng) -> usize {
    let wide = u128::from(random.next_u64()) * end as u128;
    usize::try_from(wide >> 64).unwrap_or(0)
}
