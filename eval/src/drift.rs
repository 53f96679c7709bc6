//! Why a score changed: the judge, the model or the web.
//!
//! Two runs over the same questions may differ in who judged, in which policy acted and in what the web held. The change
//! of Pass@1 is taken apart question by question:
//!
//! - *judge*: the answers of both runs as both judges see them; the mean, over the two sets of answers, of what the second
//!   judge changes. What is left is the mean over the two judges of the difference between the answers.
//! - *model* and *web*: of what is left. Where only one of them differs it is that one's. Where both do, both policies are
//!   tried on both webs, and each effect is the mean of its two halves (policy on either web, web under either policy); the
//!   *interaction*, how far the halves differ, says how much that mean hides.
//!   Two policies on one recording are compared only where it lacks about as much for either.
//! - *serving*: where a run was on the live web, its web is what its visits showed, served as a closed one. What both runs
//!   lose or win by that is neither model nor web.
//! - *chance*: what is left where neither policy nor web differ.
//!
//! What the web itself gave differently is [told](web) beside that, from the digests of what calls read.
//!
//! The parts add up to the change, for each question and so for the mean. Errors are paired and clustered as those of a
//! [comparison](crate::compare).

mod show;
pub mod web;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::compare::COVERAGE_MIN;
use crate::report::{Options, covered, over};
use crate::run::{Question, Run};
use crate::stats::CLUSTERS_FEW;
use crate::stats::mean::Estimate;
use crate::stats::paired::{self, Difference, Pair};

/// How far the miss rates of the cells of a grid, or of two runs where a recording takes part, may be apart.
pub const MISS_RATE_SPREAD_MAX: f64 = 0.05;
/// A change that is none but for rounding.
const NOTHING: f64 = 1e-9;

/// The same attempts as two judges see them: that of the first run, and that of the second.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// By the first run's judge.
    pub by_first: Run,
    /// By the second run's judge.
    pub by_second: Run,
}

/// Calls that a web could answer or not: wrong calls and outages say nothing about it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Misses {
    /// Calls.
    pub calls: u64,
    /// Those for what the web does not hold.
    pub missed: u64,
}

impl Misses {
    /// The share that was missed; 0 of no calls.
    pub fn rate(self) -> f64 {
        if self.calls == 0 { 0.0 } else { self.missed as f64 / self.calls as f64 }
    }
}

/// What differs between the runs beside the judge.
#[derive(Debug, Clone, PartialEq)]
pub enum Grid {
    /// Nothing.
    Neither,
    /// The policy: both acted on the same web, with these misses. What a web of pages lacks it lacks for both.
    Policy([Misses; 2]),
    /// The policy, on the same recording: that holds what was asked for when it was made.
    Recording([Misses; 2]),
    /// The web: the same policy acted on both, with these misses. What pages were taken away is a change of the web.
    Web([Misses; 2]),
    /// The web, one of them a recording: what that lacks is what nobody asked for when it was made, and no change of the web.
    WebOfRecording([Misses; 2]),
    /// Both: each policy on each web, `cells[policy][web]`, the first run's before the second's, with their misses.
    Both(Box<[[(Judged, Misses); 2]; 2]>),
}

/// Why a score changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Another judge.
    Judge,
    /// Another policy.
    Model,
    /// Other pages.
    Web,
    /// Live webs that were served as closed ones.
    Serving,
    /// Neither.
    Chance,
}

impl Cause {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Judge => "judge",
            Cause::Model => "model",
            Cause::Web => "web",
            Cause::Serving => "serving",
            Cause::Chance => "chance",
        }
    }
}

/// A part of the change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Part {
    /// Whose.
    pub cause: Cause,
    /// How much of Pass@1.
    pub difference: Difference,
    /// Its share of the change; None where nothing changed. Parts of opposite sign have shares beyond 0 and 1.
    pub share: Option<f64>,
}

/// A policy on a web.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cell {
    /// Whose policy: `first` or `second`.
    pub policy: &'static str,
    /// Whose web.
    pub web: &'static str,
    /// The run that tried it.
    pub run_id: String,
    /// Pass@1 by the first run's judge.
    pub by_first_judge: Option<Estimate>,
    /// And by the second's.
    pub by_second_judge: Option<Estimate>,
    /// Calls that the web could not answer.
    pub misses: Option<Misses>,
}

/// Why a score changed, and by how much each.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Drift {
    /// Confidence of the intervals.
    pub confidence: f64,
    /// The change of Pass@1, each run as its own judge sees it.
    pub change: Difference,
    /// Its parts, which add up to it.
    pub parts: Vec<Part>,
    /// The causes whose parts are beyond chance, the largest first.
    pub attributed_to: Vec<Cause>,
    /// How far the effect of the web differs between the policies, and that of the policy between the webs.
    pub interaction: Option<Difference>,
    /// Both runs, and those of the grid.
    pub cells: Vec<Cell>,
    /// Questions that one of the runs does not know whole.
    pub left_out: usize,
    /// What to mind in reading it.
    pub notes: Vec<String>,
}

/// Why a change is not taken apart.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DriftError {
    /// Too much is unknown.
    #[error(
        "only {percent:.1} % of the attempts of run {run} have a verdict of {judge}, and {min:.0} % are needed: judge \
         what is missing, or repeat the attempts that failed"
    )]
    Coverage {
        /// The run.
        run: String,
        /// The judge.
        judge: String,
        /// Attempts with a verdict, in percent.
        percent: f64,
        /// What is needed, in percent.
        min: f64,
    },
    /// Nothing is left.
    #[error("no question has verdicts on all attempts in all runs; judge what is missing")]
    Nothing,
    /// A policy asks a web for what it does not hold.
    #[error(
        "model and web cannot be told apart: run {worst} missed {worst_percent:.1} % of its calls and run {best} \
         {best_percent:.1} %, more than {max:.0} points apart, since another policy asks for other pages than were recorded; \
         compare on webs that hold more pages, such as a crawl of the sites, pinned: --web closed:PIN"
    )]
    Misses {
        /// The run that missed most.
        worst: String,
        /// Calls that it missed, in percent.
        worst_percent: f64,
        /// The run that missed least.
        best: String,
        /// Calls that it missed, in percent.
        best_percent: f64,
        /// What is allowed, in points.
        max: f64,
    },
}

/// Takes the change from one run to another apart.
///
/// # Errors
/// [`DriftError`] where that would say nothing.
pub fn drift(first: &Judged, second: &Judged, grid: &Grid, options: &Options) -> Result<Drift, DriftError> {
    check_misses(first, second, grid)?;
    let judged: Vec<&Judged> =
        [first, second].into_iter().chain(cells_of(grid).into_iter().map(|cell| &cell.2.0)).collect();
    let common = common(&judged);
    for run in &judged {
        check_coverage(&run.by_first, &common)?;
        check_coverage(&run.by_second, &common)?;
    }
    let values: BTreeMap<&str, Values> =
        common.iter().filter_map(|qa_id| Some((*qa_id, Values::of(qa_id, first, second, grid)?))).collect();
    if values.is_empty() {
        return Err(DriftError::Nothing);
    }
    let clusters: BTreeMap<&str, &str> =
        first.by_first.questions.iter().map(|question| (question.qa_id.as_str(), question.cluster.as_str())).collect();
    let difference = |of: &dyn Fn(&Values) -> f64| mean(&values, &clusters, of, options);
    let change = difference(&|values| values.change).ok_or(DriftError::Nothing)?;
    let causes = causes(grid);
    let parts: Vec<Part> = causes
        .iter()
        .filter_map(|cause| {
            let difference = difference(&|values| values.part(*cause))?;
            let share = (change.value.abs() > NOTHING).then(|| difference.value / change.value);
            Some(Part { cause: *cause, difference, share })
        })
        .collect();
    let complete: BTreeSet<&str> = values.keys().copied().collect();
    let mut drift = Drift {
        confidence: options.bootstrap.confidence,
        attributed_to: attributed(&parts, options.bootstrap.confidence),
        interaction: matches!(grid, Grid::Both(_)).then(|| difference(&|values| values.interaction)).flatten(),
        cells: cells(first, second, grid, &complete, options),
        left_out: common.len() - complete.len(),
        notes: Vec::new(),
        change,
        parts,
    };
    drift.notes = notes(&drift);
    Ok(drift)
}

/// What the change of one question is made of.
#[derive(Debug, Clone, Copy, Default)]
struct Values {
    change: f64,
    judge: f64,
    model: f64,
    web: f64,
    serving: f64,
    chance: f64,
    interaction: f64,
}

impl Values {
    fn of(qa_id: &str, first: &Judged, second: &Judged, grid: &Grid) -> Option<Values> {
        let [before, after] = [first.means(qa_id)?, second.means(qa_id)?];
        let change = after[1] - before[0];
        let judge = ((before[1] - before[0]) + (after[1] - after[0])) / 2.0;
        let rest = ((after[0] - before[0]) + (after[1] - before[1])) / 2.0;
        let values = Values { change, judge, ..Values::default() };
        Some(match grid {
            Grid::Neither => Values { chance: rest, ..values },
            Grid::Policy(_) | Grid::Recording(_) => Values { model: rest, ..values },
            Grid::Web(_) | Grid::WebOfRecording(_) => Values { web: rest, ..values },
            Grid::Both(cells) => {
                let mean = |cell: &(Judged, Misses)| cell.0.means(qa_id).map(|[first, second]| (first + second) / 2.0);
                let [[aa, ab], [ba, bb]] = cells.as_ref();
                let (aa, ab, ba, bb) = (mean(aa)?, mean(ab)?, mean(ba)?, mean(bb)?);
                Values {
                    web: ((ab - aa) + (bb - ba)) / 2.0,
                    model: ((ba - aa) + (bb - ab)) / 2.0,
                    interaction: bb - ba - ab + aa,
                    serving: rest - (bb - aa),
                    ..values
                }
            }
        })
    }

    fn part(&self, cause: Cause) -> f64 {
        match cause {
            Cause::Judge => self.judge,
            Cause::Model => self.model,
            Cause::Web => self.web,
            Cause::Serving => self.serving,
            Cause::Chance => self.chance,
        }
    }
}

impl Judged {
    /// A question's share of correct attempts by either judge; None where it is not known whole.
    fn means(&self, qa_id: &str) -> Option<[f64; 2]> {
        let mean = |run: &Run| {
            let place = run.questions.binary_search_by(|question| question.qa_id.as_str().cmp(qa_id)).ok()?;
            run.questions.get(place).filter(|question| question.outcomes().unknown == 0)?.mean()
        };
        Some([mean(&self.by_first)?, mean(&self.by_second)?])
    }
}

/// The cells of a grid, each with its policy and its web.
fn cells_of(grid: &Grid) -> Vec<(&'static str, &'static str, &(Judged, Misses))> {
    let Grid::Both(cells) = grid else { return Vec::new() };
    let [[aa, ab], [ba, bb]] = cells.as_ref();
    vec![("first", "first", aa), ("first", "second", ab), ("second", "first", ba), ("second", "second", bb)]
}

fn check_misses(first: &Judged, second: &Judged, grid: &Grid) -> Result<(), DriftError> {
    let rate = |judged: &Judged, misses: &Misses| (judged.by_first.run_id.clone(), misses.rate());
    let mut rates: Vec<(String, f64)> = match grid {
        Grid::Recording([of_first, of_second]) | Grid::WebOfRecording([of_first, of_second]) => {
            vec![rate(first, of_first), rate(second, of_second)]
        }
        _ => cells_of(grid).into_iter().map(|(_, _, (judged, misses))| rate(judged, misses)).collect(),
    };
    rates.sort_by(|a, b| a.1.total_cmp(&b.1));
    match (rates.first(), rates.last()) {
        (Some(best), Some(worst)) if worst.1 - best.1 > MISS_RATE_SPREAD_MAX => Err(DriftError::Misses {
            worst: worst.0.clone(),
            worst_percent: worst.1 * 100.0,
            best: best.0.clone(),
            best_percent: best.1 * 100.0,
            max: MISS_RATE_SPREAD_MAX * 100.0,
        }),
        _ => Ok(()),
    }
}

/// The questions that all runs attempted.
fn common<'r>(judged: &[&'r Judged]) -> Vec<&'r str> {
    let ids = |run: &'r Run| run.questions.iter().map(|question| question.qa_id.as_str()).collect::<BTreeSet<&str>>();
    let mut runs = judged.iter().flat_map(|judged| [&judged.by_first, &judged.by_second]).map(ids);
    let first = runs.next().unwrap_or_default();
    let both = |held: BTreeSet<&'r str>, run: BTreeSet<&'r str>| held.intersection(&run).copied().collect();
    runs.fold(first, both).into_iter().collect()
}

fn check_coverage(run: &Run, common: &[&str]) -> Result<(), DriftError> {
    let questions: Vec<&Question> =
        run.questions.iter().filter(|question| common.binary_search(&question.qa_id.as_str()).is_ok()).collect();
    let share = covered(&questions).share();
    if questions.is_empty() || share >= COVERAGE_MIN {
        return Ok(());
    }
    Err(DriftError::Coverage {
        run: run.run_id.clone(),
        judge: run.judges.join(", "),
        percent: share * 100.0,
        min: COVERAGE_MIN * 100.0,
    })
}

fn causes(grid: &Grid) -> Vec<Cause> {
    let rest: &[Cause] = match grid {
        Grid::Neither => &[Cause::Chance],
        Grid::Policy(_) | Grid::Recording(_) => &[Cause::Model],
        Grid::Web(_) | Grid::WebOfRecording(_) => &[Cause::Web],
        Grid::Both(_) => &[Cause::Model, Cause::Web, Cause::Serving],
    };
    [Cause::Judge].iter().chain(rest).copied().collect()
}

/// The mean over questions of a part of their change.
fn mean(
    values: &BTreeMap<&str, Values>,
    clusters: &BTreeMap<&str, &str>,
    part: &dyn Fn(&Values) -> f64,
    options: &Options,
) -> Option<Difference> {
    let mut numbers = BTreeMap::new();
    let pairs: Vec<Pair> = values
        .iter()
        .map(|(qa_id, values)| {
            let next = numbers.len();
            let cluster = *numbers.entry(clusters.get(qa_id).copied().unwrap_or(qa_id)).or_insert(next);
            Pair { before: 0.0, after: part(values), cluster }
        })
        .collect();
    paired::difference(&pairs, &options.bootstrap)
}

/// The causes that are beyond chance, the largest first.
fn attributed(parts: &[Part], confidence: f64) -> Vec<Cause> {
    let is_shown = |part: &&Part| part.difference.side(confidence).is_some_and(Ordering::is_ne);
    let mut shown: Vec<&Part> = parts.iter().filter(is_shown).collect();
    shown.sort_by(|a, b| b.difference.value.abs().total_cmp(&a.difference.value.abs()));
    shown.into_iter().map(|part| part.cause).collect()
}

fn cells(first: &Judged, second: &Judged, grid: &Grid, complete: &BTreeSet<&str>, options: &Options) -> Vec<Cell> {
    let cell = |policy, web, judged: &Judged, misses| {
        let score = |run: &Run| {
            let questions = run.questions.iter().filter(|question| complete.contains(question.qa_id.as_str()));
            over(&questions.collect::<Vec<_>>(), options, Question::mean)
        };
        Cell {
            policy,
            web,
            run_id: judged.by_first.run_id.clone(),
            by_first_judge: score(&judged.by_first),
            by_second_judge: score(&judged.by_second),
            misses,
        }
    };
    let [of_first, of_second] = match grid {
        Grid::Policy(misses) | Grid::Recording(misses) | Grid::Web(misses) | Grid::WebOfRecording(misses) => {
            misses.map(Some)
        }
        Grid::Neither | Grid::Both(_) => [None, None],
    };
    let mut all = vec![cell("first", "first", first, of_first), cell("second", "second", second, of_second)];
    for (policy, web, (judged, misses)) in cells_of(grid) {
        let known = all.iter_mut().find(|known| known.run_id == judged.by_first.run_id);
        match known {
            Some(known) => known.misses = Some(*misses),
            None => all.push(cell(policy, web, judged, Some(*misses))),
        }
    }
    all
}

fn notes(drift: &Drift) -> Vec<String> {
    let mut notes = Vec::new();
    if drift.change.clusters < CLUSTERS_FEW {
        let clusters = drift.change.clusters;
        notes.push(format!("only {clusters} clusters of questions: errors and intervals are rough"));
    }
    if drift.left_out > 0 {
        notes.push(format!("{} questions with an attempt without a verdict are left out", drift.left_out));
    }
    let effects = drift.parts.iter().filter(|part| matches!(part.cause, Cause::Model | Cause::Web));
    let largest = effects.map(|part| part.difference.value.abs()).fold(0.0, f64::max);
    if drift.interaction.is_some_and(|interaction| interaction.value.abs() > largest.max(NOTHING)) {
        notes.push(
            "the interaction is larger than either effect: what the web changes depends on the policy, and the shares of \
             model and web are means of unlike halves"
                .to_string(),
        );
    }
    notes
}
