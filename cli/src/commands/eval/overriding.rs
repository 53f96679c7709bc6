//! `webdancer eval override`: a person's verdict on an answer.

use serde_json::json;
use webdancer_eval::benchmark::SOURCE;
use webdancer_query::literal;
use webdancer_schemas::column::JsonText;
use webdancer_schemas::event::Event;
use webdancer_schemas::rows::Judgment;

use crate::args::{OverrideArgs, VerdictArg};
use crate::columns::{query, strings, text};
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

pub(super) async fn run(context: &Context, args: &OverrideArgs) -> Result<(), Failure> {
    for (flag, text) in [("--author", &args.author), ("--reason", &args.reason)] {
        if text.trim().is_empty() {
            return Err(Failure::usage(format!("{flag} is empty: it stands in the lake for whoever asks")));
        }
    }
    context.drain_embedded().await?;
    let trajectory = &args.trajectory;
    let sql = format!(
        "SELECT run_id, CAST(coalesce(restricted, false) AS VARCHAR) AS restricted FROM current_trajectories \
         WHERE trajectory_id = {}",
        literal::text(trajectory)
    );
    let batches = query(context, &sql).await?;
    let Some(batch) = batches.iter().find(|batch| batch.num_rows() > 0) else {
        return Err(Failure::usage(format!(
            "there is no trajectory {trajectory:?}; SELECT trajectory_id FROM evaluations"
        )));
    };
    let verdict = match args.verdict {
        VerdictArg::Pass => "pass",
        VerdictArg::Fail => "fail",
    };
    let mut criteria = json!({"stage": "correctness", "author": args.author.trim()});
    if let (Some("true"), Some(criteria)) = (text(&strings(batch, "restricted")?, 0), criteria.as_object_mut()) {
        // A reason may quote the answer: the judgment leaves the lake as little as its trajectory.
        criteria.insert("restricted".to_string(), json!(true));
    }
    let row = Judgment {
        trajectory_id: trajectory.clone(),
        stage: "override".to_string(),
        verdict: verdict.to_string(),
        score: None,
        judge: Some(args.author.trim().to_string()),
        criteria: Some(JsonText(criteria)),
        rationale: Some(args.reason.trim().to_string()),
        rule_version: 1,
    };
    let event = Event::new(SOURCE, &row).map_err(|e| Failure::failed(format!("the verdict's event: {e}")))?;
    let mut event = event.with_parents(vec![trajectory.clone()]);
    if let Some(run) = strings(batch, "run_id")?.iter().flatten().next() {
        event = event.with_run(run);
    }
    let id = event.id();
    context.event_log().await?.append(vec![event]).await?;
    context.drain_embedded().await?;
    if context.json {
        return output::json(&json!({"event_id": id.to_string(), "trajectory_id": trajectory, "verdict": verdict}));
    }
    output::line(&format!("{trajectory}: {verdict}, says {}", args.author.trim()))
}
