//! Benchmarks by their names: definitions, their questions, and those that a run was begun with.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use webdancer_eval::benchmark::{self, Benchmark, BenchmarkError, Definition, DefinitionError, Limits, Question};
use webdancer_query::literal;

use super::atlas;
use crate::columns::{query, strings, text};
use crate::config::Config;
use crate::context::Context;
use crate::failure::Failure;

/// The definition of a benchmark, with what the settings say of it.
pub(super) fn definition(context: &Context, name: &str) -> Result<Definition, Failure> {
    definition_of(&context.config, name)
}

/// The same, of settings that are not the command's own.
pub(super) fn definition_of(config: &Config, name: &str) -> Result<Definition, Failure> {
    Ok(Definition::find(name, config.benchmarks.get(name))?)
}

/// The questions of a benchmark.
pub(super) fn load(context: &Context, name: &str, file: Option<&Path>) -> Result<Benchmark, Failure> {
    let definition = definition(context, name)?;
    let file = file.map(Path::to_path_buf).or_else(|| definition.file.as_ref().map(PathBuf::from));
    match file {
        _ if definition.generated => atlas::questions(name, definition),
        Some(file) => Ok(benchmark::load(name, definition, &file, &Limits::default())?),
        None => Err(Failure::usage(format!(
            "{name} needs its file: give --file, or [benchmarks.{name}] file = \"…\"; `webdancer eval fetch {name}` \
             says where it is had"
        ))),
    }
}

/// The questions of these ids, as the lake has them: a run goes on without its file.
pub(super) async fn told(context: &Context, name: &str, ids: &[String]) -> Result<Vec<Question>, Failure> {
    let name = literal::text(name);
    let sql =
        format!("SELECT qa_id, question, answer FROM current_qa WHERE method = 'benchmark' AND generator = {name}");
    let mut known: HashMap<String, Question> = HashMap::new();
    for batch in &query(context, &sql).await? {
        known.extend(questions(batch)?.into_iter().map(|question| (question.qa_id.clone(), question)));
    }
    let all = ids.len();
    let found: Vec<Question> = ids.iter().filter_map(|id| known.remove(id)).collect();
    if found.len() < all {
        let ingest = "; with Kafka, what `webdancer ingest` has not brought there is not seen";
        let missing = all - found.len();
        return Err(Failure::failed(format!("{missing} of the run's {all} questions are not in the tables{ingest}")));
    }
    Ok(found)
}

fn questions(batch: &RecordBatch) -> Result<Vec<Question>, Failure> {
    let (ids, texts, answers) = (strings(batch, "qa_id")?, strings(batch, "question")?, strings(batch, "answer")?);
    let of = |column, row| text(column, row).unwrap_or_default().to_string();
    let question = |row| Question {
        qa_id: of(&ids, row),
        number: 0,
        question: of(&texts, row),
        answer: of(&answers, row),
        own_id: None,
        kind: None,
        language: None,
        attributes: serde_json::Map::new(),
        evidence: Vec::new(),
    };
    Ok((0..batch.num_rows()).map(question).collect())
}

impl From<DefinitionError> for Failure {
    fn from(error: DefinitionError) -> Failure {
        Failure::usage(error.to_string())
    }
}

impl From<BenchmarkError> for Failure {
    fn from(error: BenchmarkError) -> Failure {
        Failure::usage(error.to_string())
    }
}
