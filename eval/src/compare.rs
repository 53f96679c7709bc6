//! Which of two runs is better, over the questions that both answered.
//!
//! Only what is paired is compared: the same questions, worded alike, judged by the same judge under the same rules, with
//! attempts of both runs complete. Where too much is missing the comparison is [refused](CompareError), with what to do.

mod show;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::report::{self, Effort, Options, by_value, clusters, covered, over};
use crate::run::{Question, Run};
use crate::stats::CLUSTERS_FEW;
use crate::stats::coverage::Coverage;
use crate::stats::mean::Estimate;
use crate::stats::paired::{self, Difference, Pair};
use crate::stats::power::{Power, minimum_detectable_effect};

/// The share of attempts at common questions that must have a verdict, in each run.
pub const COVERAGE_MIN: f64 = 0.98;

/// Two runs side by side. The first is the baseline.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The first run.
    pub before: Side,
    /// The second.
    pub after: Side,
    /// Confidence of the intervals.
    pub confidence: f64,
    /// The difference of Pass@1, second less first.
    pub difference: Difference,
    /// McNemar's exact p-value, where it applies: one attempt at each question, and questions that stand alone.
    pub mcnemar_p: Option<f64>,
    /// The least difference that these questions would show four times in five, at 5 %. None where they do not tell: of fewer
    /// than two clusters, and of clusters that all differ alike.
    pub minimum_detectable: Option<f64>,
    /// Differences among questions that are alike.
    pub slices: Vec<Slice>,
    /// Questions whose attempts are mostly right in the second run only.
    pub fixed: Vec<Flip>,
    /// Questions whose attempts are mostly right in the first run only.
    pub broken: Vec<Flip>,
    /// Questions of either run that are not compared, by why.
    pub left_out: LeftOut,
    /// What to mind in reading it.
    pub notes: Vec<String>,
}

/// One of the runs, over the questions compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Side {
    /// The run.
    pub run_id: String,
    /// Its policies.
    pub policies: Vec<String>,
    /// Who judged.
    pub judges: Vec<String>,
    /// What is known of the questions that both runs have.
    pub coverage: Coverage,
    /// Pass@1.
    pub pass_at_1: Option<Estimate>,
    /// What it took.
    pub effort: Effort,
}

/// The difference among questions that are alike.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Slice {
    /// What they are alike in.
    pub by: String,
    /// And its value.
    pub value: String,
    /// The difference of Pass@1.
    pub difference: Difference,
    /// Its p-value after Holm's correction over the slices.
    pub holm_p: Option<f64>,
}

/// A question that one run gets right and the other does not.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Flip {
    /// The question.
    pub qa_id: String,
    /// Its text; None of a gated benchmark.
    pub question: Option<String>,
    /// The share of attempts that is correct in the first run.
    pub before: f64,
    /// And in the second.
    pub after: f64,
    /// Its trajectories in the first run.
    pub trajectories_before: Vec<String>,
    /// And in the second.
    pub trajectories_after: Vec<String>,
}

/// Questions that are not compared.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Only the first run has them.
    pub only_before: usize,
    /// Only the second.
    pub only_after: usize,
    /// Both have them, and an attempt in either has no verdict.
    pub incomplete: usize,
}

/// Why two runs are not compared.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CompareError {
    /// They are one.
    #[error("{0} is compared with itself; name two runs")]
    Same(String),
    /// There is no question that both have.
    #[error("runs {0} and {1} have no question in common: they cannot be paired; compare runs over the same questions")]
    NothingInCommon(String, String),
    /// Too much is unknown.
    #[error(
        "only {percent:.1} % of the attempts of run {run} at common questions have a verdict, and a comparison needs \
         {min:.0} %; judge what is missing, or repeat the attempts that failed"
    )]
    Coverage {
        /// The run.
        run: String,
        /// Attempts with a verdict, in percent.
        percent: f64,
        /// What is needed, in percent.
        min: f64,
    },
    /// No question is known whole in both runs.
    #[error("of {0} common questions none has verdicts on all attempts in both runs; judge what is missing")]
    NothingComplete(usize),
    /// Other judges or rules gave the verdicts.
    #[error(
        "run {0} is judged by {1}, run {2} by {3}: a difference would be the judges', too; judge both by one, or see what \
         the judge changed with `webdancer eval drift {0} {2}`"
    )]
    Judges(String, String, String, String),
    /// A question's text is another.
    #[error("question {qa_id} was asked in other words in the two runs: they cannot be paired")]
    Wording {
        /// The question.
        qa_id: String,
    },
}

/// Compares two runs, the first being the baseline.
///
/// # Errors
/// [`CompareError`] where the runs cannot be paired.
pub fn compare(before: &Run, after: &Run, options: &Options) -> Result<Comparison, CompareError> {
    let common = common(before, after)?;
    let [first, second]: [Vec<&Question>; 2] =
        [common.iter().map(|pair| pair.0).collect(), common.iter().map(|pair| pair.1).collect()];
    check_coverage(&before.run_id, &first)?;
    check_coverage(&after.run_id, &second)?;
    let complete: Vec<(&Question, &Question)> = common.iter().copied().filter(|pair| is_complete(*pair)).collect();
    check_judges(before, after, &complete)?;
    let nothing = || CompareError::NothingComplete(common.len());
    let difference = difference(&complete, options).ok_or_else(nothing)?;
    let (fixed, broken) = flips(&complete);
    let mut comparison = Comparison {
        before: side(before, &first, &complete.iter().map(|pair| pair.0).collect::<Vec<_>>(), options),
        after: side(after, &second, &complete.iter().map(|pair| pair.1).collect::<Vec<_>>(), options),
        confidence: options.bootstrap.confidence,
        mcnemar_p: mcnemar(&complete, fixed.len(), broken.len()),
        minimum_detectable: minimum_detectable(&difference),
        difference,
        slices: slices(&complete, options),
        fixed,
        broken,
        left_out: LeftOut {
            only_before: before.questions.len() - common.len(),
            only_after: after.questions.len() - common.len(),
            incomplete: common.len() - complete.len(),
        },
        notes: Vec::new(),
    };
    comparison.notes = notes(&comparison);
    Ok(comparison)
}

fn minimum_detectable(difference: &Difference) -> Option<f64> {
    let error = difference.standard_error.filter(|_| !difference.is_alike())?;
    Some(minimum_detectable_effect(error, &Power::default()))
}

/// The questions that both runs have, in the order of their ids.
fn common<'r>(before: &'r Run, after: &'r Run) -> Result<Vec<(&'r Question, &'r Question)>, CompareError> {
    if before.run_id == after.run_id {
        return Err(CompareError::Same(before.run_id.clone()));
    }
    let known: BTreeMap<&str, &Question> = after.questions.iter().map(|q| (q.qa_id.as_str(), q)).collect();
    let pairs = before.questions.iter().filter_map(|q| Some((q, *known.get(q.qa_id.as_str())?)));
    let common: Vec<(&Question, &Question)> = pairs.collect();
    if common.is_empty() {
        return Err(CompareError::NothingInCommon(before.run_id.clone(), after.run_id.clone()));
    }
    match common.iter().find(|(first, second)| first.text != second.text) {
        Some((first, _)) => Err(CompareError::Wording { qa_id: first.qa_id.clone() }),
        None => Ok(common),
    }
}

fn check_coverage(run: &str, questions: &[&Question]) -> Result<(), CompareError> {
    let share = covered(questions).share();
    if share >= COVERAGE_MIN {
        return Ok(());
    }
    Err(CompareError::Coverage { run: run.to_string(), percent: share * 100.0, min: COVERAGE_MIN * 100.0 })
}

fn is_complete((first, second): (&Question, &Question)) -> bool {
    first.outcomes().unknown == 0 && second.outcomes().unknown == 0
}

/// The judges of the questions that are compared must be the same. A verdict that a person gave is a judge's, too: it
/// holds in whichever run it was given.
fn check_judges(before: &Run, after: &Run, complete: &[(&Question, &Question)]) -> Result<(), CompareError> {
    let judges = |of: &dyn Fn(&(&Question, &Question)) -> Vec<String>| {
        let mut names: Vec<String> = complete.iter().flat_map(of).collect();
        names.sort_unstable();
        names.dedup();
        names
    };
    let named = |question: &Question| -> Vec<String> {
        question.attempts.iter().filter(|attempt| !attempt.overridden).filter_map(|a| a.judge.clone()).collect()
    };
    let [first, second] = [judges(&|pair| named(pair.0)), judges(&|pair| named(pair.1))];
    // Where no answer needed a judge there is none to differ.
    if first == second || first.is_empty() || second.is_empty() {
        return Ok(());
    }
    let (first, second) = (first.join(", "), second.join(", "));
    Err(CompareError::Judges(before.run_id.clone(), first, after.run_id.clone(), second))
}

fn side(run: &Run, common: &[&Question], complete: &[&Question], options: &Options) -> Side {
    Side {
        run_id: run.run_id.clone(),
        policies: run.policies.clone(),
        judges: run.judges.clone(),
        coverage: covered(common),
        pass_at_1: over(complete, options, Question::mean),
        effort: report::effort(complete, options),
    }
}

fn difference(pairs: &[(&Question, &Question)], options: &Options) -> Option<Difference> {
    let mut numbers = BTreeMap::new();
    let pairs: Vec<Pair> = pairs
        .iter()
        .filter_map(|(first, second)| {
            let next = numbers.len();
            let cluster = *numbers.entry(first.cluster.as_str()).or_insert(next);
            Some(Pair { before: first.mean()?, after: second.mean()?, cluster })
        })
        .collect();
    paired::difference(&pairs, &options.bootstrap)
}

fn mcnemar(pairs: &[(&Question, &Question)], fixed: usize, broken: usize) -> Option<f64> {
    let once = pairs.iter().all(|(first, second)| first.attempts.len() == 1 && second.attempts.len() == 1);
    let alone = clusters(&pairs.iter().map(|pair| pair.0).collect::<Vec<_>>()) == pairs.len();
    (once && alone).then(|| paired::mcnemar_exact(fixed as u64, broken as u64))
}

fn flips(pairs: &[(&Question, &Question)]) -> (Vec<Flip>, Vec<Flip>) {
    let (mut fixed, mut broken): (Vec<Flip>, Vec<Flip>) = (Vec::new(), Vec::new());
    for (first, second) in pairs {
        let (Some(before), Some(after)) = (first.mean(), second.mean()) else { continue };
        // Half of the attempts is no majority.
        let into = match (before > 0.5, after > 0.5) {
            (false, true) => &mut fixed,
            (true, false) => &mut broken,
            _ => continue,
        };
        let ids = |q: &Question| q.attempts.iter().map(|attempt| attempt.trajectory_id.clone()).collect();
        into.push(Flip {
            qa_id: first.qa_id.clone(),
            question: (!first.restricted && !second.restricted).then(|| first.text.clone()),
            before,
            after,
            trajectories_before: ids(first),
            trajectories_after: ids(second),
        });
    }
    // Those that changed most come first, else in the order of their ids.
    for flips in [&mut fixed, &mut broken] {
        flips.sort_by(|a, b| (b.after - b.before).abs().total_cmp(&(a.after - a.before).abs()));
    }
    (fixed, broken)
}

fn slices(pairs: &[(&Question, &Question)], options: &Options) -> Vec<Slice> {
    let second: BTreeMap<&str, &Question> = pairs.iter().map(|(_, after)| (after.qa_id.as_str(), *after)).collect();
    let first: Vec<&Question> = pairs.iter().map(|pair| pair.0).collect();
    let mut slices: Vec<Slice> = Vec::new();
    for by in &options.by {
        for (value, questions) in by_value(&first, by, options.values_max) {
            let pairs: Vec<_> =
                questions.into_iter().filter_map(|q| Some((q, *second.get(q.qa_id.as_str())?))).collect();
            let Some(difference) = difference(&pairs, options) else { continue };
            slices.push(Slice { by: by.clone(), value, difference, holm_p: None });
        }
    }
    let known: Vec<f64> = slices.iter().filter_map(|slice| slice.difference.p_value).collect();
    let mut adjusted = paired::holm(&known).into_iter();
    for slice in slices.iter_mut().filter(|slice| slice.difference.p_value.is_some()) {
        slice.holm_p = adjusted.next();
    }
    slices
}

fn notes(comparison: &Comparison) -> Vec<String> {
    let mut notes = Vec::new();
    if comparison.difference.clusters < CLUSTERS_FEW {
        let clusters = comparison.difference.clusters;
        notes.push(format!("only {clusters} clusters of questions: errors, intervals and p-values are rough"));
    }
    for (run, side) in [("the first run", &comparison.before), ("the second run", &comparison.after)] {
        if side.policies.len() > 1 {
            notes.push(report::more_than_one_policy(run, side.policies.len()));
        }
    }
    let LeftOut { only_before, only_after, incomplete } = comparison.left_out;
    if only_before + only_after > 0 {
        notes.push(format!("not compared: {only_before} questions of the first run alone, {only_after} of the second"));
    }
    if incomplete > 0 {
        notes.push(format!("not compared: {incomplete} questions with an attempt without a verdict"));
    }
    notes
}
