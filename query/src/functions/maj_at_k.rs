//! `maj_at_k(answer, correct, k)`: the majority vote, as [`stats`](crate::stats::maj_at_k) defines it. Answers are one cluster
//! by the [rule of every vote](vote_key); null and blank ones abstain.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use datafusion::arrow::array::{Array as _, ArrayRef, Int64Array, Int64Builder, StringBuilder};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::exec_datafusion_err;
use datafusion::error::Result;
use datafusion::logical_expr::AggregateUDF;
use webdancer_schemas::answer::vote_key;

use super::statistic::{Statistic, aggregate, list, list_of, lists, of_column, to_column};
use super::{Constant, boolean, column, int64, strings};
use crate::stats::{Cluster, maj_at_k};

const NAME: &str = "maj_at_k";

/// The aggregate.
pub(super) fn function() -> AggregateUDF {
    aggregate(NAME, vec![DataType::Utf8, DataType::Boolean, DataType::Int64], MajAtK)
}

/// The attempts at one question.
#[derive(Debug, Default)]
struct Question {
    /// By what the answers are as votes; sorted, so that the result does not depend on the order of rows.
    clusters: BTreeMap<String, Cluster>,
    abstentions: u64,
    k: Constant,
}

impl Question {
    /// Bytes taken for a key that is new.
    fn add(&mut self, key: String, votes: Cluster) -> usize {
        let bytes = bytes_of(&key);
        match self.clusters.entry(key) {
            Entry::Occupied(mut known) => {
                let cluster = known.get_mut();
                cluster.votes += votes.votes;
                cluster.correct += votes.correct;
                0
            }
            Entry::Vacant(new) => {
                new.insert(votes);
                bytes
            }
        }
    }
}

fn bytes_of(key: &str) -> usize {
    key.len() + size_of::<(String, Cluster)>() + 16
}

#[derive(Debug, Clone, Copy)]
struct MajAtK;

impl Statistic for MajAtK {
    type Group = Question;

    fn state_columns() -> Vec<(&'static str, DataType)> {
        vec![
            ("answers", list_of(DataType::Utf8)),
            ("votes", list_of(DataType::Int64)),
            ("correct", list_of(DataType::Int64)),
            ("abstentions", DataType::Int64),
            ("k", DataType::Int64),
        ]
    }

    fn rows(&self, arguments: &[ArrayRef]) -> Result<impl Fn(usize, &mut Question) -> Result<usize>> {
        let answers = strings(column(arguments, 0)?)?;
        let correct = boolean(column(arguments, 1)?)?;
        let ks = int64(column(arguments, 2)?)?;
        Ok(move |row: usize, question: &mut Question| {
            question.k.merge(NAME, Some(Constant::of(NAME, ks, row)?))?;
            if correct.is_null(row) {
                return Ok(0);
            }
            match answers.is_valid(row).then(|| vote_key(answers.value(row))).flatten() {
                Some(key) => Ok(question.add(key, Cluster { votes: 1, correct: u64::from(correct.value(row)) })),
                None => {
                    question.abstentions += 1;
                    Ok(0)
                }
            }
        })
    }

    fn states(&self, states: &[ArrayRef]) -> Result<impl Fn(usize, &mut Question) -> Result<usize>> {
        let (answers, votes, correct) = (list(states, 0)?, list(states, 1)?, list(states, 2)?);
        let (abstentions, ks) = (int64(column(states, 3)?)?, int64(column(states, 4)?)?);
        Ok(move |row: usize, question: &mut Question| {
            question.k.merge(NAME, ks.is_valid(row).then(|| ks.value(row)))?;
            question.abstentions += of_column(abstentions.value(row));
            let (answers, votes, correct) = (answers.value(row), votes.value(row), correct.value(row));
            let (votes, correct) = (int64(&votes)?.values(), int64(&correct)?.values());
            let clusters = votes.iter().zip(correct);
            let clusters = clusters.map(|(votes, correct)| (of_column(*votes), of_column(*correct)));
            let answers = strings(&answers)?.iter().flatten().zip(clusters);
            Ok(answers.map(|(key, (votes, correct))| question.add(key.to_string(), Cluster { votes, correct })).sum())
        })
    }

    fn state(questions: &[Question]) -> Vec<ArrayRef> {
        vec![
            lists(questions, StringBuilder::new(), |answers, question| {
                question.clusters.keys().for_each(|key| answers.append_value(key));
            }),
            lists(questions, Int64Builder::new(), |votes, question| {
                question.clusters.values().for_each(|cluster| votes.append_value(to_column(cluster.votes)));
            }),
            lists(questions, Int64Builder::new(), |correct, question| {
                question.clusters.values().for_each(|cluster| correct.append_value(to_column(cluster.correct)));
            }),
            Arc::new(questions.iter().map(|question| Some(to_column(question.abstentions))).collect::<Int64Array>()),
            Arc::new(questions.iter().map(|question| question.k.0).collect::<Int64Array>()),
        ]
    }

    fn value(&self, question: Question) -> Result<Option<f64>> {
        let Some(k) = question.k.0.and_then(|k| u64::try_from(k).ok()) else { return Ok(None) };
        let clusters: Vec<Cluster> = question.clusters.into_values().collect();
        maj_at_k(&clusters, question.abstentions, k).map_err(|message| exec_datafusion_err!("{message}"))
    }

    fn held(question: &Question) -> usize {
        question.clusters.keys().map(|key| bytes_of(key)).sum()
    }
}
