//! `webdancer eval run`: attempts at a benchmark's questions, scored as they come.
//!
//! The attempts are those of [sampling](webdancer_synth::sample), so a run is resumable and idempotent per question and
//! attempt, keeps to budgets, and an outage is no wrong answer. A [`Tap`] on the log hands each trajectory on to the
//! [scoring](webdancer_eval::scoring) that is part of the run; what a kill left unscored is scored when it goes on.

use std::sync::Arc;
use std::time::Duration;

use chrono::{SubsecRound as _, Utc};
use futures::{StreamExt as _, stream};
use serde::Serialize;
use webdancer_agent::chat::{BudgetConfig, Models, Spent};
use webdancer_agent::react::React;
use webdancer_eval::benchmark::{Benchmark, Question, some};
use webdancer_eval::scoring::{Answered, ScoreTally, Scorers, ScorersPlan, Tap};
use webdancer_schemas::event::Event;
use webdancer_schemas::id::EventId;
use webdancer_schemas::log::EventLog;
use webdancer_synth::sample::{self, Attempt, Listed, SampleConfig, SampleReport, SampleRun, missing};

use super::plan::EvalPlan;
use super::tables::{self, Scores, Standing};
use super::{benchmarks, fetch, scorers};
use crate::acting::Acting;
use crate::args::EvalRunArgs;
use crate::commands::claims;
use crate::commands::sample::{progress::Watch, questions, sample as make_attempts};
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

/// Events offered to the log at once.
const BATCH_EVENTS: usize = 256;

/// The result of the command.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    pub(super) run_id: String,
    benchmark: String,
    benchmark_digest: String,
    restricted: bool,
    questions: usize,
    attempts_each: u32,
    policy: String,
    web: String,
    scorers: ScorersPlan,
    /// Attempts that the run had made before.
    made_before: usize,
    /// What this process made.
    pub(super) sampled: SampleReport,
    /// And scored.
    scored: ScoreTally,
    /// All of the run.
    scores: Scores,
    /// Attempts that two processes made, with the verdict on the answer that was not kept.
    of_other_answers: usize,
    spent: Spent,
    /// Which model's endpoint never answered, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreachable: Option<String>,
}

/// A run about to be made, or to go on.
pub(super) struct Ready {
    pub(super) plan: EvalPlan,
    pub(super) questions: Vec<Question>,
    pub(super) scorers: Scorers,
    pub(super) goes_on: bool,
    /// Only one attempt at so many of the questions.
    pub(super) first: Option<usize>,
}

/// What somebody orders who has an id for the run.
#[derive(Debug)]
pub(super) struct Ordered {
    pub(super) run: SampleRun,
    /// What it may spend, beside what the settings say.
    pub(super) budget: BudgetConfig,
    /// Only one attempt at so many of its questions, always the same ones.
    pub(super) first: Option<usize>,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Delivered {
    pub(super) due: u64,
    pub(super) standing: Standing,
    /// Attempts that were given up.
    pub(super) given_up: u64,
    pub(super) stopped: Option<String>,
}

/// A run under an id that is given: begun, or taken up where it is there already.
pub(super) async fn on_order(context: &Context, args: &EvalRunArgs, order: Ordered) -> Result<Delivered, Failure> {
    let Ordered { run, budget, first } = order;
    let models = context.config.models_within(&budget)?;
    context.drain_embedded_wholly().await?;
    let mut ready = match EvalPlan::is_known(context, &run.id).await? {
        true => take_up(context, args, &run.id, &models).await?,
        false => begin(context, args, run, &models).await?,
    };
    ready.first = first;
    let (asked, attempts) = ready.asked();
    let ids: Vec<String> = asked.into_iter().map(|question| question.qa_id.clone()).collect();
    let summary = carry_out(context, args, ready, &models).await?;
    let some = first.is_some().then_some(ids.as_slice());
    let standing = tables::standing(context, &summary.run_id, attempts, some).await?;
    Ok(Delivered {
        due: ids.len() as u64 * u64::from(attempts),
        standing,
        given_up: summary.sampled.failed,
        stopped: summary.sampled.stopped.or(summary.scored.stopped).or(summary.unreachable),
    })
}

pub(super) async fn run(context: &Context, args: &EvalRunArgs) -> Result<(), Failure> {
    let models = context.config.models()?;
    let ready = match &args.run {
        Some(run) => take_up(context, args, run, &models).await?,
        None => begin(context, args, SampleRun::new(args.seed.unwrap_or(0).into(), Utc::now()), &models).await?,
    };
    let summary = carry_out(context, args, ready, &models).await?;
    tell(context, &summary)?;
    summary.whole()
}

/// A new run, made as far as that goes: what came of its attempts.
pub(in crate::commands) async fn attempt(context: &Context, args: &EvalRunArgs) -> Result<SampleReport, Failure> {
    let models = context.config.models()?;
    let run = SampleRun::new(args.seed.unwrap_or(0).into(), Utc::now());
    let ready = begin(context, args, run, &models).await?;
    Ok(carry_out(context, args, ready, &models).await?.sampled)
}

/// A new run: everything that can be wrong is found before anything is recorded.
async fn begin(context: &Context, args: &EvalRunArgs, run: SampleRun, models: &Models) -> Result<Ready, Failure> {
    let name = args.benchmark.as_deref().unwrap_or_default();
    let benchmark = benchmarks::load(context, name, args.file.as_deref())?;
    let definition = &benchmark.definition;
    let limit = args.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    tell_benchmark(context, &benchmark);
    let asked: Vec<Question> = benchmark.some(limit).into_iter().cloned().collect();
    context.drain_embedded().await?;
    let scorers = scorers::choose(context, models, &args.scorers, &definition.scorer, definition.judge_style).await?;
    let plan = EvalPlan::new(context, args, run, (&benchmark, &asked), scorers.plan.clone()).await?;
    record_questions(context, &benchmark).await?;
    Ok(Ready { plan, questions: asked, scorers, goes_on: false, first: None })
}

/// What of the file is to be known before a score of it is compared with another's.
fn tell_benchmark(context: &Context, benchmark: &Benchmark) {
    if !context.quiet {
        fetch::remarks(benchmark).iter().for_each(|remark| output::note(remark));
    }
}

async fn take_up(context: &Context, args: &EvalRunArgs, run: &str, models: &Models) -> Result<Ready, Failure> {
    context.drain_embedded_wholly().await?;
    let mut plan = EvalPlan::of(context, run).await?;
    plan.attempts = args.attempts.unwrap_or(plan.attempts);
    let questions = plan.questions(context).await?;
    if plan.lacks_attempts(context).await? {
        plan.check_settings(context).map_err(|failure| failure.followed_by("; begin another run"))?;
    }
    let scorers = scorers::of_plan(context, models, &plan.scorers).await?;
    Ok(Ready { plan, questions, scorers, goes_on: true, first: None })
}

impl Ready {
    /// The questions that are attempted now, and how often.
    fn asked(&self) -> (Vec<&Question>, u32) {
        match self.first {
            Some(first) => (some(&self.questions, first), 1),
            None => (self.questions.iter().collect(), self.plan.attempts),
        }
    }
}

async fn record_questions(context: &Context, benchmark: &Benchmark) -> Result<(), Failure> {
    let log = context.event_log().await?;
    let events = benchmark.events().map_err(|e| Failure::failed(format!("a question as JSON: {e}")))?;
    let mut events = events.into_iter().peekable();
    while events.peek().is_some() {
        let batch: Vec<Event> = events.by_ref().take(BATCH_EVENTS).collect();
        log.append(batch).await?;
    }
    context.drain_embedded().await?;
    Ok(())
}

/// Makes the attempts of a run that are missing, and their verdicts, as the only process that does.
pub(super) async fn carry_out(
    context: &Context,
    args: &EvalRunArgs,
    mut ready: Ready,
    models: &Models,
) -> Result<Summary, Failure> {
    let run = ready.plan.run.id.clone();
    let hold = claims::hold(context, &run, "eval run").await?;
    // Whoever held it may have begun it after this process looked.
    ready.goes_on |= hold.is_taken_over();
    hold.during(make(context, args, ready, models)).await.unwrap_or_else(|why| {
        Err(Failure::partly(format!(
            "run {run}: {why}; what was made is recorded, and `webdancer eval run --run {run}` goes on"
        )))
    })
}

async fn make(context: &Context, args: &EvalRunArgs, ready: Ready, models: &Models) -> Result<Summary, Failure> {
    let (asked, attempts) = ready.asked();
    let restricted = ready.plan.benchmark.restricted.then_some(true);
    let as_sampled =
        |q: &&Question| sample::Question { qa_id: q.qa_id.clone(), question: q.question.clone(), restricted };
    let asked: Vec<sample::Question> = asked.iter().map(as_sampled).collect();
    let Ready { plan, questions, scorers, goes_on, first } = ready;
    let Acting { agent, web, .. } = plan.acting.prepare(context, models).await?;
    let log = context.event_log().await?;
    let (made, unscored, before) = match goes_on {
        true => {
            // An attempt that the tables do not have yet would be made, and paid for, a second time.
            context.drain_embedded_wholly().await?;
            let unscored = tables::unscored(context, &plan.scoring(), scorers.beside.is_some()).await?;
            let before = tables::scores(context, &plan.scoring(), false).await?.tally();
            (questions::made(context, &plan.run.id).await?, unscored, before)
        }
        false => Default::default(),
    };
    let listed = missing(&asked, attempts, &made);
    append_start(log.as_ref(), &plan, goes_on).await?;
    announce(context, &plan, listed.len(), made.len());

    let work = Work { plan: &plan, questions: &questions, scorers: &scorers, before, log: log.clone() };
    let limits = args.limits.over(&context.config.sample);
    let (sampled, scored) = work.attempt_and_score(context, limits, agent, listed, unscored).await;
    append_end(log.as_ref(), &plan, &sampled, &scored, first).await;
    let (sampled, scored) = (sampled?, scored?);
    context.drain_embedded().await?;
    let scores = tables::scores(context, &plan.scoring(), scorers.beside.is_some()).await?;
    let due = tables::unscored(context, &plan.scoring(), scorers.beside.is_some()).await?;
    let was_judged = |answered: &&Answered| answered.due.iter().flatten().any(|given| given.verdicts > 0);
    Ok(Summary {
        run_id: plan.run.id,
        benchmark: plan.benchmark.benchmark,
        benchmark_digest: plan.benchmark.digest,
        restricted: plan.benchmark.restricted,
        questions: questions.len(),
        attempts_each: plan.attempts,
        policy: plan.acting.policy,
        web: web.name().to_string(),
        scorers: scorers.plan,
        made_before: made.len(),
        sampled,
        scored,
        scores,
        of_other_answers: due.iter().filter(was_judged).count(),
        spent: models.budget().spent(),
        unreachable: models.given_up(),
    })
}

/// A run under way.
struct Work<'a> {
    plan: &'a EvalPlan,
    questions: &'a [Question],
    scorers: &'a Scorers,
    /// What was scored before.
    before: ScoreTally,
    log: Arc<dyn EventLog>,
}

impl Work<'_> {
    /// Makes the attempts that are listed, and scores them as they come, after those that lack a verdict from before.
    async fn attempt_and_score(
        &self,
        context: &Context,
        config: SampleConfig,
        agent: React,
        listed: Vec<Attempt>,
        unscored: Vec<Answered>,
    ) -> (Result<SampleReport, Failure>, Result<ScoreTally, Failure>) {
        let watch = Watch::new(Some(&self.plan.acting.policy), Some(listed.len() as u64), context.quiet);
        let go_on = format!("`webdancer eval run --run {}` goes on", self.plan.run.id);
        let grace = Duration::from_millis(config.grace_ms);
        let restricted = self.plan.benchmark.restricted;
        let (tap, tapped) = Tap::new(self.log.clone(), self.questions, self.scorers.beside.is_some(), restricted);
        let (shown, pass, before) = (watch.clone(), self.plan.scoring(), self.before.clone());
        let answered = stream::iter(unscored).chain(tapped);
        let scoring = pass.score(self.scorers, answered, self.log.as_ref(), &context.config.eval, move |tally| {
            shown.tell_beside(format!(", {}", told_scores(&before.with(tally))));
        });
        let mut scoring = std::pin::pin!(scoring);
        let mut scored = None;
        let sampled = {
            let source = Arc::new(Listed::new(listed));
            let sampling = make_attempts(agent, &self.plan.run, config, Arc::new(tap), source, watch, &go_on);
            let mut sampling = std::pin::pin!(sampling);
            loop {
                tokio::select! {
                    sampled = &mut sampling => break sampled,
                    done = &mut scoring, if scored.is_none() => scored = Some(done),
                }
            }
        };
        // The tap is gone with what held it: scoring comes to its end, unless sampling was ended at once.
        let scored = match scored {
            Some(done) => done,
            None if sampled.is_err() => Ok(ScoreTally::default()),
            None => tokio::select! {
                done = &mut scoring => done,
                () = stopped_and_over(grace) => {
                    let stopped = Some("stopped before all was scored".to_string());
                    Ok(ScoreTally { stopped, ..ScoreTally::default() })
                }
            },
        };
        (sampled, scored.map_err(|error| Failure::failed(error.to_string())))
    }
}

/// Resolves when somebody has asked for an end, and the time for what is under way is over.
async fn stopped_and_over(grace: Duration) {
    crate::commands::ingest::stopped().await;
    tokio::time::sleep(grace).await;
}

fn announce(context: &Context, plan: &EvalPlan, attempts: usize, before: usize) {
    if context.quiet {
        return;
    }
    let before = if before > 0 { format!(", {before} made before") } else { String::new() };
    let EvalPlan { run, benchmark, qa_ids, acting, scorers, .. } = plan;
    let beside = scorers.beside.as_ref().map(|beside| format!(", {} beside it", beside.judge)).unwrap_or_default();
    output::note(&format!(
        "run {}: {} questions of {}, {attempts} attempts to make{before}; {} on {}, scored by {}{beside}",
        run.id,
        qa_ids.len(),
        benchmark.benchmark,
        acting.policy,
        acting.web,
        scorers.counts.judge
    ));
}

/// Records that the run has begun, or goes on.
async fn append_start(log: &dyn EventLog, plan: &EvalPlan, goes_on: bool) -> Result<(), Failure> {
    let event = plan.event("started", None)?;
    let event = match goes_on {
        true => event.with_id(EventId::now()).at(Utc::now().trunc_subsecs(6)),
        false => event,
    };
    Ok(log.append(vec![event]).await?)
}

/// Records how the run ended. Best effort: what it made is in the log.
async fn append_end(
    log: &dyn EventLog,
    plan: &EvalPlan,
    sampled: &Result<SampleReport, Failure>,
    scored: &Result<ScoreTally, Failure>,
    first: Option<usize>,
) {
    let (state, reason) = match (sampled, scored) {
        (Err(failure), _) | (_, Err(failure)) => ("failed", Some(failure.to_string())),
        (Ok(sampled), Ok(scored)) => match (sampled.lacking().or_else(|| scored.stopped.clone()), first) {
            (Some(reason), _) => ("stopped", Some(reason)),
            (None, Some(first)) => ("stopped", Some(format!("one attempt at {first} questions was asked for"))),
            (None, None) => ("finished", None),
        },
    };
    let appended = match plan.event(state, reason) {
        Ok(event) => log.append(vec![event]).await.map_err(Failure::from),
        Err(failure) => Err(failure),
    };
    if let Err(error) = appended {
        tracing::warn!(%error, state, "the run's state could not be recorded");
    }
}

/// A running score in half a line.
pub(super) fn told_scores(tally: &ScoreTally) -> String {
    let judged = tally.passed + tally.failed;
    let errors = if tally.errors > 0 { format!(", {} without a verdict", tally.errors) } else { String::new() };
    match tally.score() {
        Some(score) => format!("{:.1} % of {judged} correct{errors}", 100.0 * score),
        None => format!("0 scored{errors}"),
    }
}

impl Scores {
    /// As a tally: what a run that goes on begins with.
    fn tally(&self) -> ScoreTally {
        let count = |count: i64| u64::try_from(count).unwrap_or(0);
        ScoreTally { passed: count(self.correct), failed: count(self.judged - self.correct), ..ScoreTally::default() }
    }

    /// The scores for people.
    pub(super) fn tell(&self, scorers: &ScorersPlan) -> Result<(), Failure> {
        let pass = self.pass_at_1.map_or_else(|| "unknown".to_string(), |score| format!("{:.1} %", 100.0 * score));
        output::line(&format!(
            "  Pass@1 {pass}: {} of {} judged attempts correct, by {}",
            self.correct, self.judged, scorers.counts.judge
        ))?;
        let unjudged = self.attempts - self.judged;
        if unjudged > 0 {
            output::line(&format!("  {unjudged} attempts have no verdict, {} because the scorer failed", self.errors))?;
        }
        match (&scorers.beside, self.judged_by_both, self.agreed) {
            (Some(beside), Some(both), Some(agreed)) if both > 0 => output::line(&format!(
                "  {} agrees on {agreed} of {both}, {:.1} %",
                beside.judge,
                100.0 * agreed as f64 / both as f64
            )),
            _ => Ok(()),
        }
    }
}

fn tell(context: &Context, summary: &Summary) -> Result<(), Failure> {
    let Summary { run_id, sampled, scores, .. } = summary;
    if context.json {
        output::json(summary)?;
    } else {
        output::line(&format!(
            "{}: {} of {} attempts, {} of them now, in {:.1} s; run {run_id}",
            summary.benchmark,
            scores.attempts,
            summary.questions as u64 * u64::from(summary.attempts_each),
            sampled.trajectories,
            sampled.elapsed_ms as f64 / 1000.0
        ))?;
        scores.tell(&summary.scorers)?;
        if !context.quiet {
            output::note(&format!("intervals and breakdowns: webdancer eval report --run {run_id}"));
        }
    }
    for failure in &sampled.failures {
        output::note(&format!("attempt {} at {}: {}", failure.attempt, failure.qa_id, failure.reason));
    }
    Ok(())
}

impl Summary {
    /// Whether all was made and scored.
    ///
    /// # Errors
    /// What is missing, why, and how to go on.
    pub(super) fn whole(&self) -> Result<(), Failure> {
        let Summary { run_id, sampled, scored, .. } = self;
        let go_on = format!("`webdancer eval run --run {run_id}` goes on");
        if let (Some(reason), 0) = (&self.unreachable, sampled.trajectories) {
            return Err(Failure::failed(format!("{reason}; {go_on}")));
        }
        let left = sampled.left.unwrap_or(0);
        match (&sampled.stopped, sampled.failed, &scored.stopped, scored.errors) {
            (Some(reason), failed, ..) => {
                Err(Failure::partly(format!("{reason}: {left} attempts are left, {failed} failed; {go_on}")))
            }
            (None, failed @ 1.., ..) => Err(Failure::partly(format!("{failed} attempts failed; {go_on}"))),
            (None, 0, Some(reason), _) => Err(Failure::partly(format!("{reason}; {go_on}"))),
            (None, 0, None, errors @ 1..) => Err(Failure::partly(format!(
                "the scorer failed on {errors} attempts: they are neither right nor wrong; {go_on}"
            ))),
            (None, 0, None, 0) if self.of_other_answers > 0 => Err(Failure::partly(format!(
                "{} attempts were made twice, and judged by the answer that was not kept; {go_on}",
                self.of_other_answers
            ))),
            (None, 0, None, 0) => Ok(()),
        }
    }
}
