//! `webdancer sample`

pub(super) mod plan;
pub(super) mod progress;
pub(super) mod questions;
mod share;

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{SubsecRound as _, Utc};
use serde::Serialize;
use serde_json::Value;
use webdancer_agent::chat::Spent;
use webdancer_agent::react::React;
use webdancer_agent::tool::Outcomes;
use webdancer_ingest::kafka::tasks::Published;
use webdancer_schemas::event::Event;
use webdancer_schemas::id::EventId;
use webdancer_schemas::log::EventLog;
use webdancer_synth::sample::{
    Attempt, Listed, SampleConfig, SampleError, SampleReport, SampleRun, Sampler, Source, missing,
};

use webdancer_query::literal;

use super::claims;
use crate::acting::{Again, Changes};
use crate::args::SampleArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use plan::Plan;
use progress::Watch;
use questions::Asked;
use share::Shared;

/// What this process is to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// It began the run.
    Begins,
    /// It goes on with it.
    GoesOn,
    /// It helps another.
    Joins,
}

/// The result of the command.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    #[serde(flatten)]
    report: SampleReport,
    policy: String,
    web: String,
    prompt_profile: String,
    /// Attempts that the run had made before.
    made_before: Option<usize>,
    /// Questions of the lake that do not fit web or policy, where the run names none.
    left_out: usize,
    /// Calls of tools in this process by how they went, those of attempts that failed included.
    calls: BTreeMap<String, Outcomes>,
    /// By all models together, of this process: the policy's tokens, and those of a summariser.
    spent: Spent,
    /// Which model's endpoint never answered, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreachable: Option<String>,
}

impl Summary {
    pub(super) fn report(&self) -> &SampleReport {
        &self.report
    }

    /// Whether all was made.
    ///
    /// # Errors
    /// What is missing, why, and how to go on.
    fn whole(&self) -> Result<(), Failure> {
        let report = &self.report;
        let go_on = format!("`webdancer sample --run {}` goes on", report.run_id);
        if let (Some(reason), 0) = (&self.unreachable, report.trajectories) {
            return Err(Failure::failed(format!("{reason}; {go_on}")));
        }
        // Nothing is no part.
        let is_nothing = report.trajectories == 0 && self.made_before.unwrap_or(0) == 0 && report.failed > 0;
        let ended: fn(String) -> Failure = if is_nothing { Failure::failed } else { Failure::partly };
        match (&report.stopped, report.failed, report.left) {
            (Some(reason), failed, left) => {
                let left = left.map_or_else(|| "some".to_string(), |left| left.to_string());
                let spent = spent(self);
                Err(ended(format!("{reason}, after {spent}: {left} attempts are left, {failed} failed; {go_on}")))
            }
            (None, 1.., _) => Err(ended(format!("{} attempts failed; {go_on}", report.failed))),
            (None, 0, _) => Ok(()),
        }
    }
}

pub(crate) async fn run(context: &Context, args: &SampleArgs) -> Result<(), Failure> {
    tell(context, &carry_out(context, args).await?)
}

/// Begins a run, or goes on with one, or helps another.
pub(super) async fn carry_out(context: &Context, args: &SampleArgs) -> Result<Summary, Failure> {
    if args.join.is_none() {
        context.drain_embedded().await?;
    }
    let (part, plan) = plan::settle(context, args).await?;
    carry_on(context, args, part, plan).await
}

/// The attempts of a run made again, in a run of its own; that run's id.
pub(super) async fn again(context: &Context, run: &str, how: &Again<'_>) -> Result<(String, Changes), Failure> {
    let mut plan = plan::of(context, run).await?;
    let changes = how.change(context, run, &mut plan.acting).await?;
    let (made_again, goes_on) = how.run(context, &plan.run, "sample").await?;
    if goes_on {
        plan::as_it_began(context, plan::of(context, &made_again.id).await?)?;
    }
    plan.run = made_again;
    // Those that were attempted, in the words in which they were: the lake may have others by now.
    plan.questions = plan::Questions::Sql(format!(
        "SELECT qa_id, first_value(question ORDER BY attempt) AS question FROM trajectories WHERE run_id = {} \
         GROUP BY qa_id ORDER BY qa_id",
        literal::text(run)
    ));
    let id = plan.run.id.clone();
    let part = if goes_on { Part::GoesOn } else { Part::Begins };
    let args = SampleArgs { limits: how.limits.clone(), ..SampleArgs::default() };
    let summary = carry_on(context, &args, part, plan).await?;
    summary.whole()?;
    Ok((id, changes))
}

/// Works on a run, as the only process that does unless the run is shared: then each attempt is one machine's.
async fn carry_on(context: &Context, args: &SampleArgs, part: Part, plan: Plan) -> Result<Summary, Failure> {
    if args.share || part == Part::Joins {
        return work_on(context, args, part, plan).await;
    }
    let run = plan.run.id.clone();
    let hold = claims::hold(context, &run, "sample").await?;
    if hold.is_taken_over() {
        // Whoever held it may have made more since this process looked.
        context.drain_embedded().await?;
    }
    hold.during(work_on(context, args, part, plan)).await.unwrap_or_else(|why| {
        Err(Failure::partly(format!(
            "run {run}: {why}; what was made is recorded, and `webdancer sample --run {run}` goes on"
        )))
    })
}

async fn work_on(context: &Context, args: &SampleArgs, part: Part, plan: Plan) -> Result<Summary, Failure> {
    let is_shared = args.share || part == Part::Joins;
    let tasks = if is_shared { Some(share::settings(context, &plan.run.id)?) } else { None };
    let models = context.config.models()?;
    let acting = plan.acting.prepare(context, &models).await?;
    let log = context.event_log().await?;

    let mut work = Work::default();
    if part != Part::Joins {
        work = Work::missing(context, &plan).await?;
        if part == Part::Begins && work.questions == 0 {
            return Err(nothing_to_ask(&work));
        }
        announce(context, &plan, part, &work);
        begin(log.as_ref(), &plan, part).await?;
        if let Some(tasks) = &tasks {
            let published = share::publish(tasks, &plan, &work.listed).await?;
            tell_shared(context, &plan, published);
        }
    }
    let shared = tasks.as_ref().map(Shared::join).transpose()?.map(Arc::new);
    let source: Arc<dyn Source> = match &shared {
        Some(shared) => shared.clone(),
        None => Arc::new(Listed::new(work.listed)),
    };
    let watch = Watch::new(None, work.total, context.quiet);
    let go_on = format!("`webdancer sample --run {}` goes on", plan.run.id);
    let limits = args.limits.over(&context.config.sample);
    let report = sample(acting.agent, &plan.run, limits, log.clone(), source, watch, &go_on).await;
    if let Some(shared) = shared {
        shared.leave().await?;
    }
    settle(log.as_ref(), &plan, part, &report).await;
    let report = report?;
    context.drain_embedded().await?;
    Ok(Summary {
        report,
        policy: plan.acting.policy,
        web: acting.web.name().to_string(),
        prompt_profile: acting.profile,
        made_before: work.before,
        left_out: work.of_other_webs + work.without_plan,
        calls: acting.web.calls(),
        spent: models.budget().spent(),
        unreachable: models.given_up(),
    })
}

/// What there is to do.
#[derive(Debug, Default)]
struct Work {
    /// Attempts that the run had made.
    before: Option<usize>,
    /// Attempts to make, by whoever makes them.
    total: Option<u64>,
    listed: Vec<Attempt>,
    questions: usize,
    of_other_webs: usize,
    without_plan: usize,
}

impl Work {
    async fn missing(context: &Context, plan: &Plan) -> Result<Work, Failure> {
        let made = questions::made(context, &plan.run.id).await?;
        let Asked { questions, of_other_webs, without_plan } = questions::asked(context, plan).await?;
        let listed = missing(&questions, plan.attempts, &made);
        let (before, total) = (Some(made.len()), Some(listed.len() as u64));
        Ok(Work { before, total, listed, questions: questions.len(), of_other_webs, without_plan })
    }

    /// How many questions of the lake are left out, and why; None where none is.
    fn left_out(&self) -> Option<String> {
        let parts = [
            (self.of_other_webs, "rest on other pages than this web's"),
            (self.without_plan, "have no plan for the scripted policy"),
        ];
        let parts: Vec<String> =
            parts.iter().filter(|(count, _)| *count > 0).map(|(count, why)| format!("{count} {why}")).collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

/// Why a run is not begun that would ask nothing.
fn nothing_to_ask(work: &Work) -> Failure {
    let what = match work.left_out() {
        Some(left_out) => format!("no question of the lake fits: {left_out}"),
        None => "there are no questions to attempt".to_string(),
    };
    Failure::usage(format!(
        "{what}; `webdancer synth` writes some about pages, with --atlas about an atlas, and `webdancer import qa` \
         brings some"
    ))
}

fn announce(context: &Context, plan: &Plan, part: Part, work: &Work) {
    if !context.quiet {
        let (attempts, before) = (work.listed.len(), work.before.unwrap_or(0));
        let what = if part == Part::Begins { String::new() } else { format!(", {before} made before") };
        let Plan { run, acting, .. } = plan;
        output::note(&format!(
            "run {}: {attempts} attempts to make{what}; {} on {}",
            run.id, acting.policy, acting.web
        ));
        if let Some(left_out) = work.left_out() {
            output::note(&format!("questions of the lake that are left out: {left_out}"));
        }
    }
}

fn tell_shared(context: &Context, plan: &Plan, published: Published) {
    if !context.quiet {
        output::note(&format!(
            "{} attempts shared, {} were already; other machines work on them with: webdancer sample --join {}",
            published.added, published.open, plan.run.id
        ));
    }
}

/// Makes attempts until there are no more; a second signal ends it at once. `go_on` says how to take the run up again.
pub(super) async fn sample(
    agent: React,
    run: &SampleRun,
    config: SampleConfig,
    log: Arc<dyn EventLog>,
    source: Arc<dyn Source>,
    watch: Arc<Watch>,
    go_on: &str,
) -> Result<SampleReport, Failure> {
    let grace_ms = config.grace_ms;
    let asked = async {
        super::ingest::stopped().await;
        output::note(&format!("finishing what is under way, {} s at most; once more ends it now", grace_ms / 1000));
    };
    let shown = watch.clone();
    let sampling = Sampler::new(agent, run.clone(), config).run(log, source, move |tally| shown.show(tally), asked);
    let at_once = async {
        super::ingest::stopped().await;
        super::ingest::signal().await;
    };
    let report = tokio::select! {
        report = sampling => report.map_err(Failure::from),
        () = at_once => Err(Failure::partly(format!("ended; {go_on}"))),
    };
    watch.clear();
    report
}

impl From<SampleError> for Failure {
    fn from(error: SampleError) -> Failure {
        Failure::failed(error.to_string())
    }
}

/// Records that the run has begun, or goes on.
async fn begin(log: &dyn EventLog, plan: &Plan, part: Part) -> Result<(), Failure> {
    let config = serde_json::to_value(plan).map_err(|e| Failure::failed(format!("the run's event: {e}")))?;
    let event = event(plan, "started", Some(config), None)?;
    let event = match part {
        Part::Begins => event,
        Part::GoesOn | Part::Joins => event.with_id(EventId::now()).at(Utc::now().trunc_subsecs(6)),
    };
    log.append(vec![event]).await?;
    Ok(())
}

/// Records how the run ended, as far as this process can tell. Best effort: what it made is in the log.
async fn settle(log: &dyn EventLog, plan: &Plan, part: Part, report: &Result<SampleReport, Failure>) {
    let (state, reason) = match report {
        // Others go on.
        Ok(report) if part == Part::Joins && report.left != Some(0) => return,
        Err(_) if part == Part::Joins => return,
        Ok(report) => match report.lacking() {
            Some(reason) => ("stopped", Some(reason)),
            None => ("finished", None),
        },
        Err(failure) => ("failed", Some(failure.to_string())),
    };
    let appended = match event(plan, state, None, reason) {
        Ok(event) => log.append(vec![event]).await.map_err(Failure::from),
        Err(failure) => Err(failure),
    };
    if let Err(error) = appended {
        tracing::warn!(%error, state, "the run's state could not be recorded");
    }
}

fn event(plan: &Plan, state: &str, config: Option<Value>, reason: Option<String>) -> Result<Event, Failure> {
    plan.run.event(state, config, reason).map_err(|e| Failure::failed(format!("the run's event: {e}")))
}

fn tell(context: &Context, summary: &Summary) -> Result<(), Failure> {
    let report = &summary.report;
    if context.json {
        output::json(summary)?;
    } else {
        output::line(&format!(
            "{} trajectories in {:.1} s, {} tokens read, {} written; run {}",
            report.trajectories,
            report.elapsed_ms as f64 / 1000.0,
            report.input_tokens,
            report.output_tokens,
            report.run_id
        ))?;
        for (termination, count) in &report.by_termination {
            output::line(&format!("  {count} {termination}"))?;
        }
        for (tool, outcomes) in &summary.calls {
            output::line(&format!("  {tool}: {outcomes}"))?;
        }
    }
    for failure in &report.failures {
        output::note(&format!("attempt {} at {}: {}", failure.attempt, failure.qa_id, failure.reason));
    }
    summary.whole()
}

/// What this process used, in half a line.
fn spent(summary: &Summary) -> String {
    let SampleReport { trajectories, input_tokens, output_tokens, .. } = &summary.report;
    let used = format!("{trajectories} trajectories, {input_tokens} tokens read, {output_tokens} written");
    let cost = summary.spent.cost;
    if cost > 0.0 { format!("{used}, cost {cost:.4}") } else { used }
}
