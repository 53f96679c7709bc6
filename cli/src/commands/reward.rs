//! `webdancer reward`: rewards from trajectories and the judgments of their answers.

use std::collections::BTreeMap;

use chrono::{SubsecRound as _, Utc};
use futures::StreamExt as _;
use serde_json::json;
use webdancer_agent::reward::Withheld;
use webdancer_query::QueryOptions;
use webdancer_schemas::id::EventId;
use webdancer_synth::funnel::{COLUMNS, Run, RunState, reward_all, reward_digest};

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
}

pub(crate) async fn run(context: &Context) -> Result<(), Failure> {
    let Report { rewarded, mean, withheld } = reward(context).await?;
    if rewarded == 0 && withheld.is_empty() {
        super::filter::warn_of_no_trajectories(context).await?;
    }
    if withheld.contains_key(&Withheld::NotJudged) && !context.quiet {
        output::note("answers are judged by `webdancer filter`, those of invalid trajectories with --invalid-too");
    }
    if context.json {
        let withheld: BTreeMap<_, _> = withheld.iter().map(|(why, count)| (word(*why), count)).collect();
        return output::json(&json!({"rewarded": rewarded, "mean": mean, "withheld": withheld}));
    }
    let mean = mean.map(|mean| format!(", on average {mean:.3}")).unwrap_or_default();
    output::line(&format!("{rewarded} trajectories rewarded{mean}"))?;
    for (why, count) in &withheld {
        output::line(&format!("  {count} without a reward: {why}"))?;
    }
    Ok(())
}

/// Rewards what has no reward yet.
pub(super) async fn reward(context: &Context) -> Result<Report, Failure> {
    context.drain_embedded().await?;
    let parameters = &context.config.reward;
    let engine = context.job_engine()?;
    let log = context.event_log().await?;
    let run = Run { id: EventId::now().to_string(), start: Utc::now().trunc_subsecs(6) };
    let config = json!({"digest": reward_digest(parameters), "parameters": parameters});
    let bar = output::spinner(context.quiet);
    let (mut rewarded, mut sum, mut withheld) = (0u64, 0.0, BTreeMap::<Withheld, u64>::new());
    let mut due = engine.query(&due(&reward_digest(parameters)), &QueryOptions::default()).await?;
    while let Some(batch) = due.next().await {
        let done = reward_all(&[batch?], parameters, &run)?;
        sum += done.sum;
        done.withheld.into_iter().for_each(|(why, count)| *withheld.entry(why).or_default() += count);
        let mut events = done.events;
        if rewarded == 0 && !events.is_empty() {
            events.insert(0, run.event("reward", RunState::Started, config.clone(), run.start)?);
            rewarded = events.len() as u64 - 1;
        } else {
            rewarded += events.len() as u64;
        }
        log.append(events).await?;
        bar.set_message(format!("{rewarded} rewarded"));
    }
    bar.finish_and_clear();
    if rewarded > 0 {
        log.append(vec![run.event("reward", RunState::Finished, config, Utc::now())?]).await?;
    }
    context.drain_embedded().await?;
    Ok(Report { rewarded, mean: (rewarded > 0).then(|| sum / rewarded as f64), withheld })
}

fn word(why: Withheld) -> &'static str {
    match why {
        Withheld::AttemptFailed => "attempt_failed",
        Withheld::JudgeFailed => "judge_failed",
        Withheld::NotJudged => "not_judged",
    }
}

/// Trajectories without a reward by these parameters for their current judgment. Rollouts of one question by one policy
/// in one run are a group.
fn due(digest: &str) -> String {
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
