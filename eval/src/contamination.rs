//! Benchmark questions and answers that stand on the pages that an agent visited.
//!
//! An agent that finds its question, answered, on a page has looked the benchmark up. That is told per attempt from what
//! visits showed, the agent's own goals left out, by words: lower case, letters and digits only; of scripts without
//! spaces each letter is a word, and all numbers below are twice as large. A page gives away
//!
//! - the *question*, if it has it whole, from 5 words on, or 13 words of it in a row;
//! - the *answer*, if it has that whole and it is specific, of 8 words at least; a shorter one, of 4 letters at least,
//!   if 8 words of the question in a row stand on the same page. That a page holds a short answer alone is what it was
//!   looked for.
//!
//! A visit shows an excerpt: the passages that suit its goal, or a summariser's evidence and summary. Where the lake has the
//! page that was read, by the digest that the visit recorded, all of it is looked at, too; of others what else stood on them
//! is not, as a report says.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};

use arrow::array::{Array as _, AsArray as _, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use futures::{Stream, StreamExt as _};
use serde::Serialize;
use webdancer_agent::tool::ObservationLimits;
use webdancer_agent::web::pages_shown;
use webdancer_query::QueryError;

use crate::attempts::{OBSERVATIONS, RowsError, as_type, not_as_given, strings};
use crate::report::{Options, over};
use crate::run::{GATED, Question, Run, of_runs};
use crate::stats::mean::Estimate;

/// Words of a question that is looked for whole.
const QUESTION_WORDS_MIN: usize = 5;
/// Words in a row that give a question away (Brown et al. 2020, appendix C).
const RUN_WORDS: usize = 13;
/// Words of an answer that is specific on its own.
const ANSWER_WORDS_MIN: usize = 8;
/// Letters of an answer that is looked for beside words of the question.
const ANSWER_CHARS_MIN: usize = 4;
/// Words of the question in a row that make a shorter answer tell.
const BESIDE_WORDS: usize = 8;
/// Whole pages that are looked through at once.
const PAGES_AT_ONCE: usize = 64;
/// URLs of one call that are looked at.
const URLS_MAX: usize = 1_000;
/// What a report says of how far was looked.
pub(crate) const LOOKED_AT: &str = "contamination is looked for in what visits showed of pages, and in the whole of those \
    that the lake has as they were read: what stands elsewhere on another page is not found";
/// And where pages could not be looked through.
pub(crate) const LOOKED_AT_EXCERPTS: &str = "contamination is looked for in what visits showed of pages alone, since the \
    pages could not be looked through: what stands elsewhere on them is not found";
/// The method of questions that are evaluated.
const BENCHMARK: &str = "benchmark";

/// What a page gives away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Leak {
    /// The question.
    Question,
    /// The answer.
    Answer,
}

/// An attempt that visited a page with its question or answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Flagged {
    /// The trajectory.
    pub trajectory_id: String,
    /// The question.
    pub qa_id: String,
    /// Such a page: the first that showed it, as the agent wrote its URL; else the first by its canonical one.
    pub url: String,
    /// What stands on it.
    pub leak: Leak,
}

/// What a run's visits were found to give away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Looked {
    /// Attempts that were looked through.
    pub checked: u64,
    /// Those that saw their question or answer, by question and trajectory.
    pub flagged: Vec<Flagged>,
    /// Whether the pages behind excerpts were looked through, too.
    pub whole_pages: bool,
}

impl Looked {
    /// With what stands on whole pages, of attempts that are not flagged by what they were shown.
    #[must_use]
    pub fn with_pages(mut self, found: &[Flagged]) -> Looked {
        let shown: HashSet<String> = self.flagged.iter().map(|flagged| flagged.trajectory_id.clone()).collect();
        self.flagged.extend(found.iter().filter(|found| !shown.contains(&found.trajectory_id)).cloned());
        self.flagged.sort_by(|a, b| (&a.qa_id, &a.trajectory_id).cmp(&(&b.qa_id, &b.trajectory_id)));
        Looked { whole_pages: true, ..self }
    }
}

/// A run's score with and without the attempts that saw their question or answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Contamination {
    /// Attempts that were looked through.
    pub checked: u64,
    /// Those that are flagged.
    pub flagged: Vec<Flagged>,
    /// Whether the pages behind excerpts were looked through, too.
    pub whole_pages: bool,
    /// Pass@1 over the attempts that are not.
    pub clean: Option<Estimate>,
    /// Pass@1 over those that are.
    pub contaminated: Option<Estimate>,
}

impl Contamination {
    /// The same without the addresses that the run's gated questions led to: a search has them in its own words.
    pub fn withheld(mut self, run: &Run) -> Contamination {
        let gated = run.questions.iter().filter(|question| question.restricted);
        let gated: HashSet<&str> = gated.map(|question| question.qa_id.as_str()).collect();
        for flagged in self.flagged.iter_mut().filter(|flagged| gated.contains(flagged.qa_id.as_str())) {
            flagged.url = GATED.to_string();
        }
        self
    }
}

/// A question and its answer, to be looked for.
#[derive(Debug, Clone)]
pub struct Probe {
    question: Vec<String>,
    answer: Vec<String>,
    answer_chars: usize,
    /// How much larger the numbers of words are.
    scale: usize,
    runs: HashSet<Vec<String>>,
    beside: HashSet<Vec<String>>,
}

impl Probe {
    /// What gives this question away, or its gold answer.
    pub fn new(question: &str, answer: &str) -> Probe {
        let (question, answer) = (words(question), words(answer));
        let unspaced = question.iter().filter(|word| word.chars().all(is_unspaced)).count();
        let scale = if 2 * unspaced > question.len() { 2 } else { 1 };
        let runs = |length: usize| question.windows(length * scale).map(<[String]>::to_vec).collect();
        let answer_chars = answer.iter().map(|word| word.chars().count()).sum();
        Probe { runs: runs(RUN_WORDS), beside: runs(BESIDE_WORDS), answer_chars, answer, scale, question }
    }

    /// What a page gives away; the question before the answer.
    pub fn find(&self, page: &str) -> Option<Leak> {
        let page = words(page);
        let any = |runs: &HashSet<Vec<String>>, length: usize| {
            !runs.is_empty() && page.windows(length * self.scale).any(|run| runs.contains(run))
        };
        let whole = |sought: &[String]| !sought.is_empty() && page.windows(sought.len()).any(|run| run == sought);
        if self.question.len() >= QUESTION_WORDS_MIN * self.scale && whole(&self.question) || any(&self.runs, RUN_WORDS)
        {
            return Some(Leak::Question);
        }
        let is_specific = self.answer.len() >= ANSWER_WORDS_MIN * self.scale;
        let may_tell = self.answer_chars >= ANSWER_CHARS_MIN && any(&self.beside, BESIDE_WORDS);
        ((is_specific || may_tell) && whole(&self.answer)).then_some(Leak::Answer)
    }
}

/// Lower-case runs of letters and digits; each letter of a script without spaces alone.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut is_open = false;
    for c in text.chars().flat_map(char::to_lowercase) {
        match words.last_mut().filter(|_| is_open) {
            _ if !c.is_alphanumeric() => is_open = false,
            _ if is_unspaced(c) => {
                words.push(c.to_string());
                is_open = false;
            }
            Some(word) => word.push(c),
            None => {
                words.push(c.to_string());
                is_open = true;
            }
        }
    }
    words
}

/// Han, Kana: written without spaces.
fn is_unspaced(c: char) -> bool {
    matches!(c, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}')
}

/// Looks through what the attempts of a run at a benchmark's questions were shown; None of a run that is not over one.
/// `query` gives a statement's rows as they come: they have all observations, and are let go of batch by batch.
///
/// # Errors
/// Those of `query` and of its rows, and rows that are not as the query gives them.
pub async fn look<E, F, S>(run: &Run, query: impl FnOnce(String) -> F) -> Result<Option<Looked>, E>
where
    E: From<RowsError> + From<QueryError>,
    F: Future<Output = Result<S, E>>,
    S: Stream<Item = Result<RecordBatch, QueryError>> + Unpin,
{
    let Some(condition) = condition(run) else { return Ok(None) };
    let mut batches = query(sql(&condition)).await?;
    let mut looked = Looked::default();
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        looked.checked += batch.num_rows() as u64;
        looked.flagged.extend(flagged(&batch)?);
    }
    looked.flagged.sort_by(|a, b| (&a.qa_id, &a.trajectory_id).cmp(&(&b.qa_id, &b.trajectory_id)));
    Ok(Some(looked))
}

/// The attempts of a run at a benchmark's questions that read pages, of those that the lake has as they were read, with
/// question or answer on them. Each page is read once a question, in batches that are let go of.
///
/// # Errors
/// As those of [`look`].
pub async fn look_at_pages<E, F, S>(run: &Run, query: impl Fn(String) -> F) -> Result<Vec<Flagged>, E>
where
    E: From<RowsError> + From<QueryError>,
    F: Future<Output = Result<S, E>>,
    S: Stream<Item = Result<RecordBatch, QueryError>> + Unpin,
{
    let Some(condition) = condition(run) else { return Ok(Vec::new()) };
    let (mut batches, mut leaks) = (query(sql_of_pages(&condition)).await?, Leaks::new());
    while let Some(batch) = batches.next().await {
        leaks.extend(leaks_of(&batch?)?);
    }
    if leaks.is_empty() {
        return Ok(Vec::new());
    }
    let (mut batches, mut found) = (query(sql_of_visits(&condition)).await?, BTreeMap::new());
    while let Some(batch) = batches.next().await {
        for (digest, flagged) in visits(&batch?, &leaks)? {
            // Rows come in no order: of several pages the first by its URL is named.
            let key = (flagged.url.clone(), digest);
            match found.entry(flagged.trajectory_id.clone()) {
                Entry::Vacant(free) => drop(free.insert((key, flagged))),
                Entry::Occupied(mut taken) if key < taken.get().0 => drop(taken.insert((key, flagged))),
                Entry::Occupied(_) => {}
            }
        }
    }
    Ok(found.into_values().map(|(_, flagged)| flagged).collect())
}

/// Which attempts are looked at; None where a run is not over a benchmark.
fn condition(run: &Run) -> Option<String> {
    let mut attempts = run.questions.iter().flat_map(|question| &question.attempts);
    let is_over_one = attempts.any(|attempt| attempt.method.as_deref() == Some(BENCHMARK));
    is_over_one.then(|| format!("{} AND q.method = '{BENCHMARK}'", of_runs([run.run_id.as_str()])))
}

/// The query for what the visits of attempts showed, beside their questions. `condition` as that of
/// [`attempts::sql`](crate::attempts::sql).
pub fn sql(condition: &str) -> String {
    format!(
        "SELECT t.trajectory_id, t.qa_id, coalesce(q.question, t.question) AS question, q.answer AS gold, o.turn_tool, \
           o.turn_arguments, o.turn_observation \
         FROM current_trajectories AS t {OBSERVATIONS} LEFT JOIN current_qa AS q ON q.qa_id = t.qa_id WHERE {condition}"
    )
}

/// The pages that attempts read, by digest, each once an attempt.
fn sql_of_visits(condition: &str) -> String {
    format!(
        "SELECT DISTINCT trajectory_id, qa_id, question, gold, url, digest FROM ( \
           SELECT trajectory_id, qa_id, question, gold, unnest(urls) AS url, unnest(digests) AS digest FROM ( \
             SELECT trajectory_id, qa_id, question, gold, unnest(tools) AS tool, unnest(urls) AS urls, \
               unnest(digests) AS digests FROM ( \
               SELECT t.trajectory_id, t.qa_id, coalesce(q.question, t.question) AS question, q.answer AS gold, \
                 o.turn_tool AS tools, o.turn_source_urls AS urls, o.turn_source_digests AS digests \
               FROM current_trajectories AS t {OBSERVATIONS} LEFT JOIN current_qa AS q ON q.qa_id = t.qa_id \
               WHERE {condition} \
             ) \
           ) WHERE tool = 'visit' \
         )"
    )
}

/// The texts of those pages that the lake has, each once a question, however often it was fetched.
fn sql_of_pages(condition: &str) -> String {
    let visits = sql_of_visits(condition);
    format!(
        "WITH read AS (SELECT DISTINCT qa_id, question, gold, digest FROM ({visits})) \
         SELECT r.qa_id, r.question, r.gold, r.digest, p.text FROM read AS r JOIN ( \
           SELECT digest, first_value(text) AS text FROM pages WHERE digest IN (SELECT digest FROM read) GROUP BY digest \
         ) AS p ON p.digest = r.digest"
    )
}

/// What pages give away, by question and the page's digest.
type Leaks = BTreeMap<(String, String), Leak>;

/// What the pages of a batch of [`sql_of_pages`]' rows give away.
fn leaks_of(batch: &RecordBatch) -> Result<Leaks, RowsError> {
    let mut leaks = Leaks::new();
    let mut probes: BTreeMap<(String, String), Probe> = BTreeMap::new();
    for first in (0..batch.num_rows()).step_by(PAGES_AT_ONCE) {
        // A cast copies the texts.
        let some = batch.slice(first, PAGES_AT_ONCE.min(batch.num_rows() - first));
        let text = |name: &'static str| strings(&as_type(&some, name, &DataType::Utf8)?, name);
        let (questions, texts, golds) = (text("qa_id")?, text("question")?, text("gold")?);
        let (digests, pages) = (text("digest")?, text("text")?);
        for row in 0..some.num_rows() {
            let (question, gold) = (cell(&texts, row), cell(&golds, row));
            let probe = probes.entry((question.clone(), gold.clone())).or_insert_with(|| Probe::new(&question, &gold));
            if let Some(leak) = probe.find(&cell(&pages, row)) {
                leaks.insert((cell(&questions, row), cell(&digests, row)), leak);
            }
        }
    }
    Ok(leaks)
}

/// Those of a batch of [`sql_of_visits`]' rows that read what gives something away, with the digest of that.
fn visits(batch: &RecordBatch, leaks: &Leaks) -> Result<Vec<(String, Flagged)>, RowsError> {
    let text = |name: &'static str| strings(&as_type(batch, name, &DataType::Utf8)?, name);
    let (ids, questions, urls, digests) = (text("trajectory_id")?, text("qa_id")?, text("url")?, text("digest")?);
    let of_row = |row| {
        let (qa_id, digest) = (cell(&questions, row), cell(&digests, row));
        let leak = *leaks.get(&(qa_id.clone(), digest.clone()))?;
        Some((digest, Flagged { trajectory_id: cell(&ids, row), qa_id, url: cell(&urls, row), leak }))
    };
    Ok((0..batch.num_rows()).filter_map(of_row).collect())
}

/// A text; nothing where there is none.
fn cell(column: &StringArray, row: usize) -> String {
    if column.is_valid(row) { column.value(row).to_string() } else { String::new() }
}

/// The attempts of a batch of [`sql`]'s rows that are flagged. How many rows it has is how many were looked through.
///
/// # Errors
/// A column is missing or of another type.
pub fn flagged(batch: &RecordBatch) -> Result<Vec<Flagged>, RowsError> {
    let text = |name: &'static str| strings(&as_type(batch, name, &DataType::Utf8)?, name);
    let (ids, questions, texts, golds) = (text("trajectory_id")?, text("qa_id")?, text("question")?, text("gold")?);
    let (tools, arguments) = (Turns::of(batch, "turn_tool")?, Turns::of(batch, "turn_arguments")?);
    let observations = Turns::of(batch, "turn_observation")?;
    let limits = ObservationLimits { batch_max: URLS_MAX, ..ObservationLimits::default() };
    let mut probes: BTreeMap<(String, String), Probe> = BTreeMap::new();
    let mut found = Vec::new();
    for row in 0..batch.num_rows() {
        let of = |column: &StringArray| cell(column, row);
        let (question, gold) = (of(&texts), of(&golds));
        let probe = probes.entry((question.clone(), gold.clone())).or_insert_with(|| Probe::new(&question, &gold));
        let turns = tools.row(row).into_iter().zip(arguments.row(row)).zip(observations.row(row));
        let shown = turns.filter_map(|((tool, arguments), observation)| {
            Some(pages_shown(&tool?, &arguments?, &observation?, &limits))
        });
        let leak = shown.flatten().find_map(|(url, text)| Some((url, probe.find(&text)?)));
        if let Some((url, leak)) = leak {
            found.push(Flagged { trajectory_id: of(&ids), qa_id: of(&questions), url, leak });
        }
    }
    Ok(found)
}

/// A column of lists of texts.
struct Turns(arrow::array::ListArray);

impl Turns {
    fn of(batch: &RecordBatch, name: &'static str) -> Result<Turns, RowsError> {
        let lists = DataType::List(std::sync::Arc::new(arrow::datatypes::Field::new("item", DataType::Utf8, true)));
        let column = as_type(batch, name, &lists)?;
        let lists = column.as_list_opt::<i32>().cloned().ok_or_else(|| not_as_given(name))?;
        Ok(Turns(lists))
    }

    fn row(&self, row: usize) -> Vec<Option<String>> {
        if self.0.is_null(row) {
            return Vec::new();
        }
        let values = self.0.value(row);
        let texts = cast(&values, &DataType::Utf8).ok().and_then(|texts| texts.as_string_opt::<i32>().cloned());
        texts.iter().flatten().map(|text| text.map(str::to_string)).collect()
    }
}

/// The scores of a run of which this was found.
pub fn contamination(run: &Run, looked: Looked, options: &Options) -> Contamination {
    let Looked { checked, flagged, whole_pages } = looked;
    let ids: HashSet<&str> = flagged.iter().map(|flagged| flagged.trajectory_id.as_str()).collect();
    let only = |wanted: bool| -> Vec<Question> {
        let kept = run.questions.iter().filter_map(|question| {
            let mut kept = question.clone();
            kept.attempts.retain(|attempt| ids.contains(attempt.trajectory_id.as_str()) == wanted);
            (!kept.attempts.is_empty()).then_some(kept)
        });
        kept.collect()
    };
    let score = |questions: Vec<Question>| over(&questions.iter().collect::<Vec<_>>(), options, Question::mean);
    let (clean, contaminated) = (score(only(false)), score(only(true)));
    Contamination { checked, clean, contaminated, flagged, whole_pages }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: &str =
        "In which year did the expedition that mapped the northern coast of the island return to its port?";

    #[test]
    fn a_question_is_found_whole_or_by_thirteen_words_in_a_row_whatever_its_case_and_marks() {
        let probe = Probe::new(QUESTION, "1911");
        assert_eq!(probe.find(&format!("Puzzles: {} Answer: …", QUESTION.to_uppercase())), Some(Leak::Question));
        let part = "did the expedition (that mapped the NORTHERN coast) of the island, return to";
        assert_eq!(probe.find(part), Some(Leak::Question));
        // Twelve words of it.
        assert_eq!(probe.find("did the expedition that mapped the northern coast of the island return home"), None);
        assert_eq!(Probe::new("Who wrote Dune?", "Herbert").find("Who wrote Dune? Frank Herbert did."), None);
        assert_eq!(
            Probe::new("Who wrote Dune and when?", "1965").find("who wrote dune, and WHEN"),
            Some(Leak::Question)
        );
    }

    #[test]
    fn an_answer_tells_only_if_it_is_specific_or_stands_beside_the_question() {
        let probe = Probe::new(QUESTION, "Ida Storm");
        assert_eq!(probe.find("Ida Storm designed bridges."), None);
        let beside = "Q: the expedition that mapped the northern coast of Greenland? A: Ida Storm";
        assert_eq!(probe.find(beside), Some(Leak::Answer));
        assert_eq!(probe.find(&beside.replace("mapped", "drew")), None);
        // A year is on any page.
        assert_eq!(Probe::new(QUESTION, "191").find(&beside.replace("Ida Storm", "191")), None);
        let sentence = "They turned back since the ice had closed the strait in June";
        assert_eq!(Probe::new("Why?", sentence).find(&format!("It is said: {sentence}.")), Some(Leak::Answer));
    }

    #[test]
    fn letters_of_scripts_without_spaces_are_words_and_twice_as_many_are_needed() {
        assert_eq!(words("Ab-c 東京x 1"), ["ab", "c", "東", "京", "x", "1"]);
        let probe = Probe::new("東京の首都はどこですか", "東京");
        assert_eq!(probe.find("問題：東京の首都はどこですか。"), Some(Leak::Question));
        assert_eq!(Probe::new("首都はどこ", "東京").find("首都はどこ"), None);
    }
}
