//! `webdancer reward`: rewards from trajectories and the judgments of their answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{SubsecRound as _, Utc};
use futures::StreamExt as _;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use webdancer_agent::reward::{RewardParameters, Withheld};
use webdancer_query::{QueryEngine, QueryOptions, literal};
use webdancer_schemas::id::EventId;
use webdancer_schemas::log::EventLog;
use webdancer_synth::funnel::{COLUMNS, Run, RunState, SOURCE, reward_all, reward_digest};
use webdancer_train::events::SOURCE as TRAINER;

use crate::columns::{query, strings};
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

/// What came of it.
#[derive(Debug)]
pub(super) struct Report {
    /// Trajectories rewarded.
    pub(super) rewarded: u64,
    /// Their mean reward.
    pub(super) mean: Option<f64>,
    /// Trajectories without a reward.
    pub(super) withheld: BTreeMap<Withheld, u64>,
    /// Whether parameters of an earlier run are in force again.
    back: bool,
}

pub(crate) async fn run(context: &Context) -> Result<(), Failure> {
    let Report { rewarded, mean, withheld, back } = reward(context).await?;
    if rewarded == 0 && withheld.is_empty() {
        super::filter::warn_of_no_trajectories(context).await?;
    }
    if withheld.contains_key(&Withheld::NotJudged) && !context.quiet {
        output::note("answers are judged by `webdancer filter`, those of invalid trajectories with --invalid-too");
    }
    if context.json {
        let withheld: BTreeMap<_, _> = withheld.iter().map(|(why, count)| (word(*why), count)).collect();
        return output::json(&json!({"rewarded": rewarded, "mean": mean, "withheld": withheld, "back": back}));
    }
    let mean = mean.map(|mean| format!(", on average {mean:.3}")).unwrap_or_default();
    output::line(&format!("{rewarded} trajectories rewarded{mean}"))?;
    if back {
        output::line("  these parameters were in force before: the rewards they gave then hold again")?;
    }
    for (why, count) in &withheld {
        output::line(&format!("  {count} without a reward: {why}"))?;
    }
    Ok(())
}

/// Rewards what has no reward by these parameters yet, and puts them in force.
pub(super) async fn reward(context: &Context) -> Result<Report, Failure> {
    let parameters = &context.config.reward;
    if let Some(fault) = parameters.fault() {
        return Err(Failure::usage(format!("reward: {fault}")));
    }
    context.drain_embedded().await?;
    let digest = reward_digest(parameters);
    let past = past_digests(context).await?;
    // A run that was killed before it was told to be finished has put nothing in force.
    let is_change = match past.last() {
        Some(last) => *last != digest,
        None => has_rewards(context).await?,
    };
    let mut work = Work {
        parameters,
        run: Run { id: EventId::now().to_string(), start: Utc::now().trunc_subsecs(6) },
        config: json!({"digest": digest, "parameters": parameters}),
        log: context.event_log().await?,
        is_told: false,
        rewarded: 0,
        sum: 0.0,
        withheld: BTreeMap::new(),
    };
    let (engine, bar) = (context.job_engine()?, output::spinner(context.quiet));
    let done = tokio::select! {
        done = work.reward(&engine, &digest, &bar) => done,
        () = super::ingest::stopped() => Err(Failure::partly("stopped; the same command goes on where it was")),
    };
    bar.finish_and_clear();
    // A run with nothing to reward leaves no trace, unless it puts other parameters in force.
    match &done {
        Ok(()) if work.is_told => work.tell(RunState::Finished).await?,
        Ok(()) if is_change => {
            work.tell(RunState::Started).await?;
            work.tell(RunState::Finished).await?;
        }
        Err(failure) if work.is_told => {
            let state = match failure.exit_code() {
                3 => RunState::Stopped,
                _ => RunState::Failed(failure.to_string()),
            };
            // If the log is what failed, this fails as well: the first failure is the one to tell.
            let _ = work.tell(state).await;
        }
        _ => {}
    }
    done?;
    context.drain_embedded().await?;
    let Work { rewarded, sum, withheld, .. } = work;
    let mean = (rewarded > 0).then(|| sum / rewarded as f64);
    Ok(Report { rewarded, mean, withheld, back: is_change && past.contains(&digest) })
}

/// The mean reward of a run's attempts, by their present judgments. It is told and not recorded: benchmarks are evaluated,
/// not trained on.
pub(super) async fn mean_of(context: &Context, run: &str) -> Result<Option<f64>, Failure> {
    let columns = COLUMNS.map(|column| format!("t.{column}")).join(", ");
    let sql = format!(
        "SELECT {columns}, j.verdict, j.event_id AS judgment_id FROM current_trajectories AS t \
         LEFT JOIN current_judgments AS j ON j.trajectory_id = t.trajectory_id AND j.stage = 'correctness' \
         WHERE t.run_id = {}",
        literal::text(run)
    );
    let unrecorded = Run { id: run.to_string(), start: Utc::now().trunc_subsecs(6) };
    let done = reward_all(&query(context, &sql).await?, &context.config.reward, &unrecorded)?;
    Ok((!done.events.is_empty()).then(|| done.sum / done.events.len() as f64))
}

/// A run under way.
struct Work<'a> {
    parameters: &'a RewardParameters,
    run: Run,
    config: Value,
    log: Arc<dyn EventLog>,
    /// Whether the log knows of the run.
    is_told: bool,
    rewarded: u64,
    sum: f64,
    withheld: BTreeMap<Withheld, u64>,
}

impl Work<'_> {
    async fn reward(&mut self, engine: &QueryEngine, digest: &str, bar: &ProgressBar) -> Result<(), Failure> {
        let mut due = engine.query(&due(digest, self.parameters), &QueryOptions::default()).await?;
        while let Some(batch) = due.next().await {
            let done = reward_all(&[batch?], self.parameters, &self.run)?;
            if !self.is_told && !done.events.is_empty() {
                self.tell(RunState::Started).await?;
            }
            let rewarded = done.events.len() as u64;
            self.log.append(done.events).await?;
            self.rewarded += rewarded;
            self.sum += done.sum;
            done.withheld.into_iter().for_each(|(why, count)| *self.withheld.entry(why).or_default() += count);
            bar.set_message(format!("{} rewarded", self.rewarded));
        }
        Ok(())
    }

    async fn tell(&mut self, state: RunState) -> Result<(), Failure> {
        let now = if state == RunState::Started { self.run.start } else { Utc::now() };
        self.log.append(vec![self.run.event("reward", state, self.config.clone(), now)?]).await?;
        self.is_told = true;
        Ok(())
    }
}

/// The digests of the parameters that runs put in force, in the order of the view `current_rewards`: the last one is in
/// force.
async fn past_digests(context: &Context) -> Result<Vec<String>, Failure> {
    let sql = format!(
        "SELECT json_get_str(config, 'digest') AS digest FROM runs \
         WHERE kind = 'reward' AND state = 'finished' AND source = '{SOURCE}' ORDER BY event_time, event_id"
    );
    let mut digests = Vec::new();
    for batch in &query(context, &sql).await? {
        digests.extend(strings(batch, "digest")?.iter().flatten().map(str::to_string));
    }
    Ok(digests)
}

/// Whether runs gave rewards, finished or not.
async fn has_rewards(context: &Context) -> Result<bool, Failure> {
    let given = query(context, &format!("SELECT 1 AS given FROM rewards WHERE source = '{SOURCE}' LIMIT 1")).await?;
    Ok(given.iter().any(|batch| batch.num_rows() > 0))
}

fn word(why: Withheld) -> &'static str {
    match why {
        Withheld::AttemptFailed => "attempt_failed",
        Withheld::JudgeFailed => "judge_failed",
        Withheld::NotJudged => "not_judged",
    }
}

/// Trajectories without a reward by these parameters for their current judgment, given here or by the trainer. Rollouts of
/// one question by one policy in one run are a group.
fn due(digest: &str, parameters: &RewardParameters) -> String {
    let parameters = literal::text(&json!(parameters).to_string());
    let columns = COLUMNS.map(|column| format!("t.{column}")).join(", ");
    format!(
        "WITH due AS (
            SELECT t.trajectory_id, t.event_id, t.source, j.verdict, j.event_id AS judgment_id, t.policy_version,
                concat_ws('/', t.run_id, t.qa_id, CAST(t.policy_version AS VARCHAR)) AS group_id
            FROM current_trajectories AS t
            LEFT JOIN current_qa AS q ON q.qa_id = t.qa_id
            LEFT JOIN current_judgments AS j ON j.trajectory_id = t.trajectory_id AND j.stage = 'correctness'
            WHERE NOT coalesce(t.restricted, false) AND (q.method IS DISTINCT FROM 'benchmark')
        ),
        given AS (
            SELECT trajectory_id, coalesce(json_get_str(criteria, 'judgment'), '') AS judgment_id
            FROM rewards
            WHERE json_get_str(criteria, 'digest') = '{digest}'
                OR (source = '{TRAINER}' AND json_get_json(criteria, 'parameters') = {parameters})
        ),
        missing AS (
            SELECT d.* FROM due AS d
            LEFT ANTI JOIN given AS g
                ON g.trajectory_id = d.trajectory_id AND g.judgment_id = coalesce(d.judgment_id, '')
        )
        SELECT {columns}, d.verdict, d.judgment_id, d.group_id, d.policy_version
        FROM missing AS d JOIN trajectories AS t ON t.event_id = d.event_id AND t.source = d.source"
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use webdancer_schemas::column::JsonText;
    use webdancer_schemas::event::Event;
    use webdancer_schemas::kind::Kind;
    use webdancer_schemas::rows::Reward;

    use super::*;
    use crate::args::{Args, Command};

    /// Rewards as a run that is killed before it is told to be finished.
    async fn killed(context: &Context, parameters: &RewardParameters) {
        let mut work = Work {
            parameters,
            run: Run { id: EventId::now().to_string(), start: Utc::now().trunc_subsecs(6) },
            config: json!({"digest": reward_digest(parameters), "parameters": parameters}),
            log: context.event_log().await.unwrap(),
            is_told: false,
            rewarded: 0,
            sum: 0.0,
            withheld: BTreeMap::new(),
        };
        let engine = context.job_engine().unwrap();
        work.reward(&engine, &reward_digest(parameters), &output::spinner(true)).await.unwrap();
        drop(work);
        context.drain_embedded().await.unwrap();
    }

    /// A lake of judged trajectories.
    async fn judged(folder: &std::path::Path) -> Context {
        let lake = folder.display().to_string();
        let args = Args::parse_from(["webdancer", "--quiet", "--lake", &lake, "filter"]);
        let context = Context::new(&args).unwrap();
        let sample = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/demo/demo_trajectories.jsonl");
        let log = context.event_log().await.unwrap();
        crate::commands::import::import(log, &sample, Kind::Trajectory, true).await.unwrap();
        let Command::Filter(filter) = &args.command else { panic!("{args:?}") };
        crate::commands::filter::judging::judge(&context, &filter.judging).await.unwrap();
        context
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_the_trainer_rewarded_by_the_same_parameters_is_not_rewarded_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut context = judged(folder.path()).await;
        let judgments = "SELECT trajectory_id, event_id FROM current_judgments WHERE stage = 'correctness' \
                         AND verdict <> 'error' ORDER BY trajectory_id LIMIT 1";
        let batches = query(&context, judgments).await.unwrap();
        let first = |column: &str| strings(&batches[0], column).unwrap().value(0).to_string();
        let (id, judgment) = (first("trajectory_id"), first("event_id"));
        let ours = context.config.reward.clone();
        let row = Reward {
            trajectory_id: id.clone(),
            group_id: Some("run/1/0".to_string()),
            format: Some(1.0),
            answer: Some(1.0),
            overlong_penalty: None,
            reward: 0.625,
            advantage: None,
            policy_version: Some(0),
            criteria: Some(JsonText(json!({"judgment": judgment, "parameters": ours}))),
        };
        let told = vec![Event::new(TRAINER, &row).unwrap()];
        context.event_log().await.unwrap().append(told).await.unwrap();
        reward(&context).await.unwrap();
        let given = async |context: &Context| {
            let rows =
                query(context, &format!("SELECT reward FROM rewards WHERE trajectory_id = '{id}'")).await.unwrap();
            rows.iter().map(|batch| batch.num_rows()).sum::<usize>()
        };
        assert_eq!(given(&context).await, 1);
        // By others it is: two scales are never mixed.
        context.config.reward = RewardParameters { format_weight: 0.25, answer_weight: 0.75, ..ours };
        reward(&context).await.unwrap();
        assert_eq!(given(&context).await, 2);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_killed_run_rewarded_is_put_in_force_by_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let context = judged(folder.path()).await;
        let ours = context.config.reward.clone();
        killed(&context, &ours).await;
        assert_eq!(past_digests(&context).await.unwrap(), [""; 0]);
        let again = reward(&context).await.unwrap();
        assert_eq!((again.rewarded, again.back), (0, false));
        assert_eq!(past_digests(&context).await.unwrap(), [reward_digest(&ours)]);
        // Others break off: their rewards do not hold beside these.
        killed(&context, &RewardParameters { format_weight: 0.25, answer_weight: 0.75, ..ours.clone() }).await;
        let held = query(&context, "SELECT DISTINCT json_get_str(criteria, 'digest') AS digest FROM current_rewards");
        let held: Vec<_> = held.await.unwrap().iter().map(|batch| strings(batch, "digest").unwrap()).collect();
        let held: Vec<&str> = held.iter().flat_map(|digests| digests.iter().flatten()).collect();
        assert_eq!(held, [reward_digest(&ours)]);
        assert_eq!(reward(&context).await.unwrap().rewarded, 0);
        assert_eq!(past_digests(&context).await.unwrap().len(), 1, "a run that changes nothing leaves no trace");
    }
}
