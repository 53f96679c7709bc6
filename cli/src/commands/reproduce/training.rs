//! Training made again: the same trainer, pin and configuration, and whether the weights are the same.

use std::collections::BTreeMap;

use serde::Serialize;

use super::values;
use webdancer_query::literal;

use crate::columns::{query, strings};
use crate::commands::eval::number;
use crate::commands::train::{self, Asked};
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

/// The result.
#[derive(Debug, Serialize)]
struct Summary {
    run_id: String,
    made_again: String,
    kind: String,
    code: [Vec<String>; 2],
    /// Whether its configuration promises the same bits.
    deterministic: bool,
    /// Checkpoints by step, and whether their weights are the same.
    checkpoints: BTreeMap<i64, Weights>,
    identical: bool,
}

#[derive(Debug, Serialize)]
struct Weights {
    then: String,
    now: Option<String>,
}

impl Weights {
    fn are_the_same(&self) -> bool {
        self.now.as_ref() == Some(&self.then)
    }
}

/// Makes a run again, and compares its checkpoints.
pub(super) async fn run(context: &Context, id: &str, kind: &str) -> Result<(), Failure> {
    let then = digests(context, id).await?;
    if then.is_empty() {
        return Err(Failure::usage(format!("run {id} left no checkpoint to compare with")));
    }
    let made = train::train(context, Asked::Again { run: id, kind }).await?;
    if let Some(error) = made.error {
        return Err(Failure::failed(format!("run {}, which makes {id} again, did not finish: {error}", made.run_id)));
    }
    let mut now = digests(context, &made.run_id).await?;
    let checkpoints: BTreeMap<i64, Weights> =
        then.into_iter().map(|(step, then)| (step, Weights { then, now: now.remove(&step) })).collect();
    let code = [
        values(context, "run_state", "code_version", id).await?,
        values(context, "run_state", "code_version", &made.run_id).await?,
    ];
    let identical = checkpoints.values().all(Weights::are_the_same);
    let deterministic = made.deterministic;
    let kind = kind.to_string();
    tell(
        context,
        &Summary { run_id: id.to_string(), made_again: made.run_id, kind, code, deterministic, checkpoints, identical },
    )
}

/// The digests of a run's checkpoints, by step.
async fn digests(context: &Context, run: &str) -> Result<BTreeMap<i64, String>, Failure> {
    let run = literal::text(run);
    let sql = format!("SELECT step, digest FROM checkpoints WHERE run_id = {run} ORDER BY event_time, event_id");
    let mut found = BTreeMap::new();
    for batch in &query(context, &sql).await? {
        let (steps, digests) = (number(batch, "step")?, strings(batch, "digest")?);
        found.extend(steps.iter().zip(digests.iter()).filter_map(|(step, digest)| Some((step?, digest?.to_string()))));
    }
    Ok(found)
}

fn tell(context: &Context, summary: &Summary) -> Result<(), Failure> {
    let Summary { run_id, made_again, checkpoints, code: [then, now], deterministic, identical, .. } = summary;
    let same = checkpoints.values().filter(|weights| weights.are_the_same()).count();
    let all = checkpoints.len();
    if context.json {
        output::json(summary)?;
    } else {
        output::line(&format!("run {run_id} made again as {made_again}: {same} of {all} checkpoints are identical"))?;
        for (step, weights) in checkpoints {
            let now = weights.now.as_deref().unwrap_or("none");
            let told = if weights.are_the_same() { "identical".to_string() } else { format!("now {now}") };
            output::line(&format!("  step {step}: {}, {told}", weights.then))?;
        }
    }
    if *identical {
        return Ok(());
    }
    let why = match (then == now, deterministic) {
        (false, _) => format!("it was trained by version {}, and this is {}", then.join(", "), now.join(", ")),
        (true, false) => "its configuration does not say deterministic = true".to_string(),
        (true, true) => "another machine, libtorch or model to begin with".to_string(),
    };
    Err(Failure::partly(format!("{} of {all} checkpoints are not identical: {why}", all - same)))
}
