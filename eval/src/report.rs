//! What a run's scores are worth: estimates with intervals, overall and by what questions are like, and what they took.
//!
//! A question's value is computed over its judged attempts; the mean is over questions. A question none of whose attempts
//! is judged is in no mean: coverage and the bounds say what that may hide.

pub mod agreement;
mod effort;
mod show;

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

pub use effort::{Effort, OverAction, Spread};

use crate::attempts::Outcome;
use crate::contamination::Contamination;
use crate::run::{Question, Run, valued};
use crate::stats::attempted::Graded;
use crate::stats::bootstrap::Bootstrap;
use crate::stats::calibration::{self, Prediction};
use crate::stats::coverage::{Coverage, coverage};
use crate::stats::mean::{Estimate, estimate};
use crate::stats::{CLUSTERS_FEW, by_cluster};
use crate::votes::{Equivalence, JudgedVotes};
use webdancer_agent::chat::Prices;

/// How reports are made.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The k of Pass@k and its relatives, beside 1 and the number of attempts; 3 by default, as in the paper.
    pub ks: Vec<u64>,
    /// What scores are broken down by; by default level, difficulty, type, language, domain and hops. Names that no
    /// question has say nothing and are left out.
    pub by: Vec<String>,
    /// Values of one breakdown at most; 50 by default. The rest, those with fewest questions, are one value, `others`.
    pub values_max: usize,
    /// How intervals are drawn.
    pub bootstrap: Bootstrap,
    /// What tokens cost, for those who know.
    pub prices: Option<Prices>,
}

impl Default for Options {
    fn default() -> Options {
        let by = ["level", "difficulty", "type", "language", "domain", "hops"];
        Options {
            ks: vec![3],
            by: by.map(str::to_string).to_vec(),
            values_max: 50,
            bootstrap: Bootstrap::default(),
            prices: None,
        }
    }
}

/// A run's report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The run; empty for attempts that name none.
    pub run_id: String,
    /// Its policies.
    pub policies: Vec<String>,
    /// Who judged, with rule versions.
    pub judges: Vec<String>,
    /// Confidence of the intervals.
    pub confidence: f64,
    /// Attempts at a question, at most.
    pub attempts_each: u64,
    /// What is known of the run.
    pub coverage: Coverage,
    /// Why attempts have no verdict.
    pub unknown: Unknown,
    /// The mean over questions of the share of attempts that is correct: Pass@1, and the paper's Cons@k.
    pub pass_at_1: Option<Estimate>,
    /// The same for k attempts together.
    pub at_k: Vec<AtK>,
    /// Verdicts where declining to answer is neither right nor wrong (SimpleQA), over all judged attempts; None of none.
    pub graded: Option<GradedShares>,
    /// What a judge said of which answers are the same, for the vote: filled in by whoever has it.
    pub votes: Option<JudgedVotes>,
    /// By what questions are like.
    pub slices: Vec<Slice>,
    /// Whether stated confidence is borne out; None where no answer states one.
    pub calibration: Option<Calibration>,
    /// How far its scorers agree, where there is more than one: filled in by whoever has all verdicts.
    pub agreement: Vec<agreement::Agreement>,
    /// Attempts that saw their question or answer on a page, and the scores with and without them: filled in by whoever
    /// has what visits showed.
    pub contamination: Option<Contamination>,
    /// What it took.
    pub effort: Effort,
    /// What to mind in reading it.
    pub notes: Vec<String>,
}

/// Judged attempts by whether they commit themselves, and SimpleQA's figures of them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct GradedShares {
    /// Correct.
    pub correct: u64,
    /// Incorrect.
    pub incorrect: u64,
    /// Without an answer, or with one that declines.
    pub not_attempted: u64,
    /// The share of all that is correct.
    pub accuracy: Option<f64>,
    /// The share of those attempted that is correct.
    pub accuracy_given_attempted: Option<f64>,
    /// The harmonic mean of both.
    pub f1: Option<f64>,
}

/// Attempts without a verdict, by why.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Unknown {
    /// The judge failed.
    pub judge_failed: u64,
    /// An endpoint or a tool was out.
    pub outage: u64,
    /// There is an answer that nobody judged.
    pub unjudged: u64,
    /// The run set out to make them and has not.
    pub missing: u64,
}

/// Scores of k attempts together, over the questions with at least k judged attempts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AtK {
    /// How many attempts.
    pub k: u64,
    /// At least one is correct.
    pub pass_at_k: Estimate,
    /// All are correct.
    pub pass_hat_k: Option<Estimate>,
    /// Their majority is correct.
    pub maj_at_k: Option<Estimate>,
}

/// The score of questions that are alike.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Slice {
    /// What they are alike in.
    pub by: String,
    /// And its value.
    pub value: String,
    /// What is known of them.
    pub coverage: Coverage,
    /// Pass@1.
    pub pass_at_1: Option<Estimate>,
    /// Pass@k for the largest k of the report.
    pub pass_at_k: Option<Estimate>,
}

/// Whether stated confidence is borne out, over judged attempts that state one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Calibration {
    /// How many.
    pub predictions: usize,
    /// Expected calibration error in 5 fixed bins.
    pub fixed: Option<f64>,
    /// Root mean square error in bins of 100.
    pub rms: Option<f64>,
    /// Brier's score.
    pub brier: Option<f64>,
    /// The fixed bins.
    pub bins: Vec<calibration::Bin>,
}

/// Bins of fixed width (BrowseComp-ZH) and predictions in a bin of equal mass (Humanity's Last Exam).
const FIXED_BINS: usize = 5;
const PER_BIN: usize = 100;

impl Report {
    /// Attempts that were made: what a run took is theirs.
    pub fn made(&self) -> u64 {
        self.coverage.attempts.saturating_sub(self.unknown.missing)
    }
}

/// The report of a run.
pub fn report(run: &Run, options: &Options, judged: &dyn Equivalence) -> Report {
    let questions: Vec<&Question> = run.questions.iter().collect();
    let ks = ks(&questions, options);
    let largest = ks.last().copied().unwrap_or(1);
    let at_k: Vec<AtK> = ks.iter().filter(|k| **k > 1).filter_map(|k| at_k(&questions, *k, options, judged)).collect();
    let mut report = Report {
        run_id: run.run_id.clone(),
        policies: run.policies.clone(),
        judges: run.judges.clone(),
        confidence: options.bootstrap.confidence,
        attempts_each: attempts_each(&questions),
        coverage: covered(&questions),
        unknown: unknown(&questions),
        pass_at_1: over(&questions, options, Question::mean),
        at_k,
        graded: graded(&questions),
        votes: None,
        slices: slices(&questions, largest, options),
        calibration: calibration(&questions),
        agreement: Vec::new(),
        contamination: None,
        effort: effort(&questions, options),
        notes: Vec::new(),
    };
    report.notes = notes(&report, &questions);
    report
}

/// The mean over questions of what each is worth.
pub(crate) fn over(
    questions: &[&Question],
    options: &Options,
    value: impl Fn(&Question) -> Option<f64>,
) -> Option<Estimate> {
    estimate(&valued(questions.iter().map(|question| (*question, value(question)))), &options.bootstrap)
}

/// What is known of questions.
pub(crate) fn covered(questions: &[&Question]) -> Coverage {
    coverage(&questions.iter().map(|question| question.outcomes()).collect::<Vec<_>>())
}

/// What the attempts at questions took.
pub(crate) fn effort(questions: &[&Question], options: &Options) -> Effort {
    Effort::of(questions, options.prices.as_ref())
}

fn attempts_each(questions: &[&Question]) -> u64 {
    questions.iter().map(|question| question.attempts.len() as u64).max().unwrap_or(0)
}

/// Those asked for that any question has attempts for, and as many as there are, ascending.
fn ks(questions: &[&Question], options: &Options) -> Vec<u64> {
    let most = attempts_each(questions);
    let mut ks: Vec<u64> = options.ks.iter().copied().chain([1, most]).filter(|k| (1..=most).contains(k)).collect();
    ks.sort_unstable();
    ks.dedup();
    ks
}

fn at_k(questions: &[&Question], k: u64, options: &Options, judged: &dyn Equivalence) -> Option<AtK> {
    Some(AtK {
        k,
        pass_at_k: over(questions, options, |question| question.pass_at_k(k))?,
        pass_hat_k: over(questions, options, |question| question.pass_hat_k(k)),
        maj_at_k: over(questions, options, |question| question.majority(k, judged)),
    })
}

/// Questions by the value that they have of a facet, the values in order, numbers as numbers; the rarest beyond
/// `values_max` together.
pub(crate) fn by_value<'q>(
    questions: &[&'q Question],
    by: &str,
    values_max: usize,
) -> Vec<(String, Vec<&'q Question>)> {
    let mut values: BTreeMap<(u64, String), Vec<&'q Question>> = BTreeMap::new();
    for question in questions {
        let value = question.facet(by).unwrap_or_else(|| "unknown".to_string());
        // What is no number comes behind all that are.
        let place = value.parse().unwrap_or(u64::MAX);
        values.entry((place, value)).or_default().push(question);
    }
    if questions.iter().all(|question| question.facet(by).is_none()) {
        return Vec::new();
    }
    // The largest are kept; of equal ones the first.
    let mut sizes: Vec<(usize, usize)> = values.values().map(Vec::len).enumerate().collect();
    sizes.sort_by_key(|(place, size)| (std::cmp::Reverse(*size), *place));
    let largest: HashSet<usize> = sizes.into_iter().take(values_max).map(|(place, _)| place).collect();
    let (mut kept, mut others) = (Vec::new(), Vec::new());
    for (place, ((_, value), questions)) in values.into_iter().enumerate() {
        if largest.contains(&place) { kept.push((value, questions)) } else { others.extend(questions) }
    }
    if !others.is_empty() {
        kept.push(("others".to_string(), others));
    }
    kept
}

fn slices(questions: &[&Question], largest: u64, options: &Options) -> Vec<Slice> {
    let mut slices = Vec::new();
    for by in &options.by {
        let values = by_value(questions, by, options.values_max);
        slices.extend(values.into_iter().map(|(value, questions)| Slice {
            by: by.clone(),
            value,
            coverage: covered(&questions),
            pass_at_1: over(&questions, options, Question::mean),
            pass_at_k: (largest > 1).then(|| over(&questions, options, |q| q.pass_at_k(largest))).flatten(),
        }));
    }
    slices
}

fn graded(questions: &[&Question]) -> Option<GradedShares> {
    let mut graded = Graded::default();
    for attempt in questions.iter().flat_map(|question| &question.attempts) {
        match attempt.outcome {
            Outcome::Correct => graded.correct += 1,
            Outcome::Wrong if attempt.committed().is_none() => graded.not_attempted += 1,
            Outcome::Wrong => graded.incorrect += 1,
            Outcome::JudgeFailed | Outcome::Outage | Outcome::Unjudged | Outcome::Missing => {}
        }
    }
    let Graded { correct, incorrect, not_attempted } = graded;
    (correct + incorrect + not_attempted > 0).then(|| GradedShares {
        correct,
        incorrect,
        not_attempted,
        accuracy: graded.accuracy(),
        accuracy_given_attempted: graded.accuracy_given_attempted(),
        f1: graded.f1(),
    })
}

fn unknown(questions: &[&Question]) -> Unknown {
    let mut unknown = Unknown::default();
    for attempt in questions.iter().flat_map(|question| &question.attempts) {
        match attempt.outcome {
            Outcome::JudgeFailed => unknown.judge_failed += 1,
            Outcome::Outage => unknown.outage += 1,
            Outcome::Unjudged => unknown.unjudged += 1,
            Outcome::Missing => unknown.missing += 1,
            Outcome::Correct | Outcome::Wrong => {}
        }
    }
    unknown
}

fn calibration(questions: &[&Question]) -> Option<Calibration> {
    let predictions: Vec<Prediction> = questions
        .iter()
        .flat_map(|question| &question.attempts)
        .filter_map(|attempt| Some(Prediction { confidence: attempt.confidence?, correct: attempt.outcome.correct()? }))
        .collect();
    let bins = calibration::fixed_bins(&predictions, FIXED_BINS);
    (!predictions.is_empty()).then(|| Calibration {
        predictions: predictions.len(),
        fixed: calibration::calibration_error(&bins),
        rms: calibration::rms_calibration_error(&predictions, PER_BIN),
        brier: calibration::brier(&predictions),
        bins,
    })
}

fn notes(report: &Report, questions: &[&Question]) -> Vec<String> {
    let mut notes = Vec::new();
    let Unknown { judge_failed, outage, unjudged, missing } = report.unknown;
    if missing > 0 {
        notes.push(format!(
            "{missing} of {} attempts are not made: they are in no mean, and in the bounds; `webdancer eval run --run {}` \
             makes them",
            report.coverage.attempts, report.run_id
        ));
    }
    if unjudged > 0 {
        notes.push(format!(
            "{unjudged} answers are not judged: `webdancer filter --stage correctness --invalid-too` judges sampled ones"
        ));
    }
    if judge_failed + outage > 0 {
        notes.push(format!(
            "{judge_failed} attempts have no verdict since a judge failed, {outage} since an endpoint or a tool was out: \
             they are in no mean, and in the bounds"
        ));
    }
    if report.policies.len() > 1 {
        notes.push(more_than_one_policy("the run", report.policies.len()));
    }
    if report.judges.len() > 1 {
        notes.push(format!("more than one judge: {}", report.judges.join(", ")));
    }
    if let Some(few) = report.pass_at_1.filter(|score| score.clusters < CLUSTERS_FEW) {
        notes.push(format!("only {} clusters of questions: errors and intervals are rough", few.clusters));
    }
    let fewest = questions.iter().map(|question| question.attempts.len() as u64).min().unwrap_or(0);
    if fewest < report.attempts_each {
        notes.push(format!("questions have from {fewest} to {} attempts", report.attempts_each));
    }
    notes
}

/// What is to be minded where a run went on with another model, or another checkpoint behind the same endpoint.
pub(crate) fn more_than_one_policy(run: &str, policies: usize) -> String {
    format!("{policies} policies acted in {run}: its score is of none of them alone")
}

/// Clusters of the questions; as many as questions where each stands alone.
pub(crate) fn clusters(questions: &[&Question]) -> usize {
    by_cluster(&valued(questions.iter().map(|question| (*question, Some(0.0))))).len()
}
