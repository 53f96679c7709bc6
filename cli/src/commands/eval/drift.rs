//! Why the score changed from one run to another: `webdancer eval drift`, and what `eval compare` says of it.
//!
//! What is needed beside the two runs is settled first ([`Settled`]): the runs of each policy on the other's web, where both
//! differ, and the verdicts of each run's judge on the other's answers. `drift` tells it, then makes it; what is there already
//! is used. The runs are evaluations like any other, with ids that follow from what they are for. `compare` asks nobody: it
//! has the parts where nothing is missing, and else the command that makes what is ([`Split`]).

mod cells;
mod verdicts;

use serde::Serialize;
use webdancer_eval::attempts;
use webdancer_eval::compare::CompareError;
use webdancer_eval::drift::{Drift, DriftError, Grid, Judged, drift};
use webdancer_eval::report::Options;
use webdancer_eval::run::{Run, of_runs};
use webdancer_eval::scoring::ScorerPlan;

use super::plan::EvalPlan;
use super::reading::{no_attempts, options, prepare, read_runs, runs_where};
use crate::args::DriftArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use cells::{Cells, Shape};
use verdicts::Due;

/// One of the runs.
#[derive(Debug)]
struct Side {
    plan: EvalPlan,
    /// Its attempts.
    run: Run,
    /// Whose verdicts are in force.
    judge: ScorerPlan,
}

/// Two runs, and what it takes to take the change between them apart.
struct Settled {
    sides: [Side; 2],
    cells: Cells,
    work: Work,
}

/// What is missing for that.
#[derive(Debug, Serialize)]
pub(super) struct Work {
    /// What differs: `neither`, `policy`, `web` or `both`.
    differs: &'static str,
    judges_differ: bool,
    questions: usize,
    /// Runs of the grid that are to be made, or gone on with.
    runs: Vec<cells::Planned>,
    /// Attempts that they lack.
    attempts: u64,
    /// Model calls that these take, about: as many as the policies took before.
    model_calls: u64,
    /// Answers that a judge is asked about, those of the attempts with them.
    judgments: u64,
}

/// The result of the command.
#[derive(Debug, Serialize)]
struct Summary {
    #[serde(flatten)]
    drift: Drift,
    work: Work,
}

pub(super) async fn run(context: &Context, args: &DriftArgs) -> Result<(), Failure> {
    prepare(context, &args.view).await?;
    let policies = [args.before_policy.as_deref(), args.after_policy.as_deref()];
    let settled = Settled::of(context, [&args.before, &args.after], policies).await?;
    if args.plan {
        return tell_work(context, &settled.work);
    }
    if !context.quiet {
        output::note(&settled.work.text());
    }
    let models = context.config.models()?;
    let Settled { sides, cells, .. } = &settled;
    let made = cells.make(context, args, &models, sides).await?;
    let runs: Vec<&EvalPlan> = sides.iter().map(|side| &side.plan).chain(&made).collect();
    verdicts::judge(context, &models, sides, &runs).await?;
    context.drain_embedded().await?;
    let drift = settled.take_apart(context, &made, &options(&args.view)).await?;
    let work = settled.work;
    match (context.json, args.view.markdown) {
        (true, _) => output::json(&Summary { drift, work }),
        (false, true) => output::line(drift.markdown().trim_end()),
        (false, false) => output::line(drift.text().trim_end()),
    }
}

/// What `eval compare` says of why the score changed: by what is there, without asking anybody.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Split {
    /// The parts of the change.
    Parts(Box<Drift>),
    /// What they take, and the command that makes it.
    Missing {
        command: String,
        #[serde(flatten)]
        work: Work,
    },
    /// Why they cannot be told.
    Refused(String),
}

impl Split {
    /// The split of the change between two runs that can be compared.
    pub(super) async fn of(context: &Context, ids: [&str; 2], options: &Options) -> Split {
        let split = async {
            let settled = Settled::of(context, ids, [None, None]).await?;
            if settled.work.attempts + settled.work.judgments > 0 {
                let [before, after] = ids;
                let command = format!("webdancer eval drift {before} {after}");
                return Ok::<_, Failure>(Split::Missing { command, work: settled.work });
            }
            let drift = settled.take_apart(context, &settled.cells.plans(), options).await?;
            Ok(Split::Parts(Box::new(drift)))
        };
        split.await.unwrap_or_else(|failure| Split::Refused(failure.to_string()))
    }

    pub(super) fn text(&self) -> String {
        match self {
            Split::Parts(drift) => drift.text(),
            _ => self.sentence(),
        }
    }

    pub(super) fn markdown(&self) -> String {
        match self {
            Split::Parts(drift) => drift.markdown(),
            _ => self.sentence(),
        }
    }

    fn sentence(&self) -> String {
        match self {
            Split::Parts(drift) => drift.verdict(),
            Split::Missing { command, work } => format!("Why the score changed: `{command}` tells ({}).", work.text()),
            Split::Refused(why) => format!("Why the score changed cannot be told: {why}."),
        }
    }
}

impl Settled {
    async fn of(context: &Context, ids: [&str; 2], policies: [Option<&str>; 2]) -> Result<Settled, Failure> {
        let sides = sides(context, ids, policies).await?;
        let questions = common(&sides)?;
        let cells = Cells::plan(context, &sides, &questions).await?;
        let due = Due::count(context, &sides).await?;
        let work = work(&sides, &questions, &cells, &due);
        Ok(Settled { sides, cells, work })
    }

    /// Takes the change apart, once the runs that were missing are `made` and judged.
    async fn take_apart(&self, context: &Context, made: &[EvalPlan], options: &Options) -> Result<Drift, Failure> {
        let Settled { sides, cells, .. } = self;
        let [first, second] =
            [judged(context, sides, &sides[0].plan).await?, judged(context, sides, &sides[1].plan).await?];
        let grid = grid(context, cells, sides, made).await?;
        Ok(drift(&first, &second, &grid, options)?)
    }
}

async fn sides(context: &Context, ids: [&str; 2], policies: [Option<&str>; 2]) -> Result<[Side; 2], Failure> {
    if ids[0] == ids[1] {
        return Err(CompareError::Same(ids[0].to_string()).into());
    }
    let mut sides = Vec::with_capacity(2);
    for (id, policy) in ids.into_iter().zip(policies) {
        let mut plan = EvalPlan::of(context, id).await?;
        let judge = plan.scorers_in_force(context).await?.counts;
        let run = runs_where(context, &of_runs([id])).await?.pop().ok_or_else(|| no_attempts(id))?;
        if let Some(policy) = policy {
            plan.acting.act_by(&context.config, policy);
            plan.policy_model = None;
        }
        sides.push(Side { plan, run, judge });
    }
    sides.try_into().map_err(|_| Failure::failed("two runs are two sides"))
}

/// The questions that both runs attempted, in the same words.
fn common(sides: &[Side; 2]) -> Result<Vec<String>, Failure> {
    let [first, second] = sides.each_ref().map(|side| &side.run);
    let mut common = Vec::new();
    for question in &first.questions {
        let Some(other) = second.questions.iter().find(|other| other.qa_id == question.qa_id) else { continue };
        if other.text != question.text {
            return Err(CompareError::Wording { qa_id: question.qa_id.clone() }.into());
        }
        common.push(question.qa_id.clone());
    }
    if common.is_empty() {
        return Err(CompareError::NothingInCommon(first.run_id.clone(), second.run_id.clone()).into());
    }
    Ok(common)
}

/// The attempts of a run as both judges see them.
async fn judged(context: &Context, sides: &[Side; 2], plan: &EvalPlan) -> Result<Judged, Failure> {
    let condition = of_runs([plan.run.id.as_str()]);
    let read = async |judge: &ScorerPlan| {
        let run = read_runs(context, attempts::sql_judged_by(&condition, judge)).await?.pop();
        run.ok_or_else(|| no_attempts(&plan.run.id))
    };
    let by_first = read(&sides[0].judge).await?;
    let by_second = if sides[0].judge == sides[1].judge { by_first.clone() } else { read(&sides[1].judge).await? };
    Ok(Judged { by_first, by_second })
}

/// What was tried, with the misses of each run.
async fn grid(context: &Context, cells: &Cells, sides: &[Side; 2], made: &[EvalPlan]) -> Result<Grid, Failure> {
    match cells.shape {
        Shape::Neither => return Ok(Grid::Neither),
        Shape::Policy | Shape::Web => {
            let [first, second] = sides.each_ref().map(|side| &side.plan);
            let of = async |plan: &EvalPlan| cells::misses(context, &plan.run.id).await;
            let misses = [of(first).await?, of(second).await?];
            let is_recorded = cells::is_recording(first) || cells::is_recording(second);
            let grid = match (cells.shape == Shape::Web, is_recorded) {
                (true, true) => Grid::WebOfRecording,
                (true, false) => Grid::Web,
                (false, true) => Grid::Recording,
                (false, false) => Grid::Policy,
            };
            return Ok(grid(misses));
        }
        Shape::Both => {}
    }
    let mut tried = Vec::with_capacity(4);
    for place in cells::PLACES {
        let plan = cells.run_at(place, sides, made);
        let judged = judged(context, sides, plan).await?;
        cells::check_policy(&sides[place.0], &judged.by_first)?;
        tried.push((judged, cells::misses(context, &plan.run.id).await?));
    }
    let tried: [_; 4] = tried.try_into().map_err(|_| Failure::failed("a grid has four cells"))?;
    let [aa, ab, ba, bb] = tried;
    Ok(Grid::Both(Box::new([[aa, ab], [ba, bb]])))
}

fn work(sides: &[Side; 2], questions: &[String], cells: &Cells, due: &Due) -> Work {
    let judges_differ = sides[0].judge != sides[1].judge;
    let attempts: u64 = cells.planned.iter().map(|planned| planned.attempts).sum();
    let judges = 1 + u64::from(judges_differ);
    Work {
        differs: cells.shape.name(),
        judges_differ,
        questions: questions.len(),
        attempts,
        model_calls: cells.planned.iter().map(|planned| planned.model_calls).sum(),
        judgments: due.count + attempts * judges,
        runs: cells.planned.clone(),
    }
}

impl Work {
    /// What it takes, in a line.
    fn text(&self) -> String {
        let Work { questions, attempts, model_calls, judgments, runs, .. } = self;
        let judge = if self.judges_differ { ", and the judge" } else { "" };
        let differs = match self.differs {
            "neither" => "neither policy nor web differs".to_string(),
            "both" => "policy and web differ".to_string(),
            one => format!("the {one} differs"),
        };
        let runs = match runs.len() {
            0 => "no run is to be made".to_string(),
            count => format!("{count} runs to make, {attempts} attempts, about {model_calls} model calls"),
        };
        format!("{differs}{judge}, over {questions} questions: {runs}; {judgments} answers to judge")
    }
}

fn tell_work(context: &Context, work: &Work) -> Result<(), Failure> {
    if context.json {
        return output::json(work);
    }
    output::line(&work.text())?;
    for cells::Planned { policy, web, run_id, attempts, .. } in &work.runs {
        output::line(&format!("  {policy} on {web}: {attempts} attempts, run {run_id}"))?;
    }
    Ok(())
}

impl From<DriftError> for Failure {
    fn from(error: DriftError) -> Failure {
        Failure::usage(error.to_string())
    }
}
