//! The attempts of two runs, side by side.

use std::collections::BTreeMap;

use webdancer_eval::reproduce::{Tally, differing};
use webdancer_query::{QueryOptions, literal};
use webdancer_schemas::rows::Trajectory;

use crate::columns::{query, rows, strings};
use crate::commands::eval::number;
use crate::context::Context;
use crate::failure::Failure;

/// Questions whose attempts are in memory at a time.
const QUESTIONS_AT_ONCE: usize = 50;
/// What is compared of an attempt.
const COLUMNS: &str = "trajectory_id, qa_id, attempt, policy_model, policy_checkpoint_digest, sampling_parameters, \
    system_prompt, user_prefix, question, answer, termination, n_turns, n_tool_calls, input_tokens, output_tokens, \
    turn_thought, turn_tool, turn_arguments, turn_observation_digest, turn_raw, turn_context_token_ids, \
    turn_completion_token_ids, turn_log_probs, turn_outcome, final_instruction";

/// Whether a run made any.
pub(super) async fn are_there(context: &Context, run: &str) -> Result<bool, Failure> {
    let sql = format!("SELECT trajectory_id FROM trajectories WHERE run_id = {} LIMIT 1", literal::text(run));
    Ok(query(context, &sql).await?.iter().any(|batch| batch.num_rows() > 0))
}

/// How the attempts of a run compare with those of the run that made it again.
pub(super) async fn compare(context: &Context, first: &str, again: &str) -> Result<Tally, Failure> {
    let mut questions = Vec::new();
    let sql = format!("SELECT DISTINCT qa_id FROM trajectories WHERE run_id = {} ORDER BY qa_id", literal::text(first));
    for batch in &query(context, &sql).await? {
        questions.extend(strings(batch, "qa_id")?.iter().flatten().map(str::to_string));
    }
    let mut tally = Tally::default();
    for some in questions.chunks(QUESTIONS_AT_ONCE) {
        let before = attempts(context, first, some).await?;
        let after = attempts(context, again, some).await?;
        for (key, row) in &before {
            tally.count(differing(row, after.get(key)));
        }
    }
    Ok(tally)
}

/// The attempts of a run at these questions, an outage only where there is nothing else.
async fn attempts(
    context: &Context,
    run: &str,
    questions: &[String],
) -> Result<BTreeMap<(String, i32), Trajectory>, Failure> {
    let sql = format!(
        "SELECT {COLUMNS} FROM current_trajectories WHERE run_id = {} AND qa_id IN {} \
         ORDER BY termination <> 'error', event_time, event_id",
        literal::text(run),
        literal::texts(questions.iter().map(String::as_str))
    );
    let batches = context.job_engine()?.query(&sql, &QueryOptions::default()).await?;
    let rows: Vec<Trajectory> = rows(batches, context.config.synth.rows_bytes_max).await?;
    Ok(rows.into_iter().map(|row| ((row.qa_id.clone(), row.attempt), row)).collect())
}

/// Attempts that have a verdict in both runs, and those that were judged alike.
pub(super) async fn verdicts(context: &Context, first: &str, again: &str) -> Result<(i64, i64), Failure> {
    let of = |run: &str| {
        let run = literal::text(run);
        format!("SELECT qa_id, attempt, verdict FROM evaluations WHERE run_id = {run} AND verdict <> 'error'")
    };
    let sql = format!(
        "SELECT count(*) AS judged, count(*) FILTER (WHERE a.verdict = b.verdict) AS alike \
         FROM ({}) AS a JOIN ({}) AS b ON a.qa_id = b.qa_id AND a.attempt = b.attempt",
        of(first),
        of(again)
    );
    let batches = query(context, &sql).await?;
    let Some(batch) = batches.iter().find(|batch| batch.num_rows() > 0) else { return Ok((0, 0)) };
    Ok((number(batch, "judged")?.value(0), number(batch, "alike")?.value(0)))
}
