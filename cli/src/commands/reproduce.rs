//! `webdancer reproduce`: something made again from its recorded inputs, and whether it is the same.
//!
//! | of | made again | compared |
//! |---|---|---|
//! | a run of `eval` or `sample` | its attempts, with the same seeds, date and prompts, on its web, or what it recorded of the live one | each attempt, and the verdicts |
//! | a run of `sft` or `dapo` | by the same trainer, pin and configuration | the digests of checkpoints |
//! | a pin | its query over the recorded versions of its tables | the digest of the rows |

mod attempts;
mod training;

use serde::Serialize;
use serde_json::Value;
use webdancer_eval::reproduce::Tally;
use webdancer_query::{literal, pin};

use crate::acting::{Again, Changes};
use crate::args::ReproduceArgs;
use crate::columns::{query, strings, text};
use crate::commands::{eval, sample};
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

/// Something that a run was made with, then and now.
#[derive(Debug, Serialize)]
struct Input {
    what: &'static str,
    then: Vec<String>,
    now: Vec<String>,
}

/// The result for runs of attempts.
#[derive(Debug, Serialize)]
struct Summary {
    run_id: String,
    made_again: String,
    kind: String,
    inputs: Vec<Input>,
    attempts: Tally,
    /// Attempts with a verdict in both.
    judged: i64,
    /// Of these, those judged alike.
    judged_alike: i64,
    identical: bool,
}

pub(crate) async fn run(context: &Context, args: &ReproduceArgs) -> Result<(), Failure> {
    context.drain_embedded().await?;
    match kind(context, &args.id).await? {
        Some(kind) if kind == "eval" || kind == "sample" => attempted(context, args, kind).await,
        Some(kind) if kind == "sft" || kind == "dapo" => training::run(context, &args.id, &kind).await,
        Some(kind) => Err(Failure::usage(format!(
            "run {} is of kind {kind}, which cannot be made again from what is recorded: runs of eval, sample, sft and dapo \
             can, and pins",
            args.id
        ))),
        None => pinned(context, &args.id).await,
    }
}

/// The kind of a run; None if no run has that id.
async fn kind(context: &Context, id: &str) -> Result<Option<String>, Failure> {
    let sql = format!("SELECT kind FROM run_state WHERE run_id = {}", literal::text(id));
    let mut kind = None;
    for batch in query(context, &sql).await?.iter().filter(|batch| batch.num_rows() > 0) {
        kind = text(&strings(batch, "kind")?, 0).map(str::to_string);
    }
    Ok(kind)
}

async fn attempted(context: &Context, args: &ReproduceArgs, kind: String) -> Result<(), Failure> {
    if !attempts::are_there(context, &args.id).await? {
        return Err(Failure::usage(format!("run {} left no attempt to compare with", args.id)));
    }
    let how = Again { web: args.web.as_deref(), policy: args.policy.as_deref(), limits: args.limits.clone() };
    let (made_again, changes) = match kind.as_str() {
        "eval" => eval::again(context, &args.id, &how, &context.config.models()?).await?,
        _ => sample::again(context, &args.id, &how).await?,
    };
    context.drain_embedded().await?;
    let attempts = attempts::compare(context, &args.id, &made_again).await?;
    let (judged, judged_alike) = attempts::verdicts(context, &args.id, &made_again).await?;
    let identical = attempts.identical == attempts.attempts && judged == judged_alike;
    let inputs = inputs(context, &args.id, &made_again, changes).await?;
    tell(
        context,
        &Summary { run_id: args.id.clone(), made_again, kind, inputs, attempts, judged, judged_alike, identical },
    )
}

/// What the two runs were made with.
async fn inputs(context: &Context, first: &str, again: &str, changes: Changes) -> Result<Vec<Input>, Failure> {
    let [policy, web] = [changes.policy, changes.web];
    let one = |[then, now]: [String; 2]| (vec![then], vec![now]);
    let ((policy_then, policy_now), (web_then, web_now)) = (one(policy), one(web));
    let mut inputs = vec![
        Input { what: "policy", then: policy_then, now: policy_now },
        Input { what: "web", then: web_then, now: web_now },
    ];
    for (what, table, column) in [
        ("code", "run_state", "code_version"),
        ("model", "trajectories", "policy_model"),
        ("checkpoint", "trajectories", "policy_checkpoint_digest"),
        ("tokenizer", "trajectories", "tokenizer_digest"),
        ("prompt profile", "trajectories", "prompt_profile"),
    ] {
        let then = values(context, table, column, first).await?;
        let now = values(context, table, column, again).await?;
        if !then.is_empty() || !now.is_empty() {
            inputs.push(Input { what, then, now });
        }
    }
    Ok(inputs)
}

/// The values of a column in a run.
async fn values(context: &Context, table: &str, column: &str, run: &str) -> Result<Vec<String>, Failure> {
    let sql = format!(
        "SELECT DISTINCT {column} AS value FROM {table} WHERE run_id = {} AND {column} IS NOT NULL ORDER BY value LIMIT 20",
        literal::text(run)
    );
    let mut values = Vec::new();
    for batch in &query(context, &sql).await? {
        values.extend(strings(batch, "value")?.iter().flatten().map(str::to_string));
    }
    Ok(values)
}

fn tell(context: &Context, summary: &Summary) -> Result<(), Failure> {
    let Summary { run_id, made_again, inputs, attempts, judged, judged_alike, .. } = summary;
    if context.json {
        output::json(summary)?;
    } else {
        let (same, all) = (attempts.identical, attempts.attempts);
        output::line(&format!("run {run_id} made again as {made_again}: {same} of {all} attempts are identical"))?;
        for Input { what, then, now } in inputs {
            let (then, now) = (then.join(", "), now.join(", "));
            output::line(&match then == now {
                true => format!("  {what}: {now}"),
                false => format!("  {what}: {then} then, {now} now"),
            })?;
        }
        if *judged > 0 {
            output::line(&format!("  verdicts: {judged_alike} of {judged} are the same"))?;
        }
        for (what, count) in &attempts.differing {
            output::line(&format!("  {count} differ first in {what}"))?;
        }
        for differing in &attempts.first {
            let turn = differing.turn.map_or_else(String::new, |turn| format!(", turn {turn}"));
            let (qa_id, attempt, what) = (&differing.qa_id, differing.attempt, differing.what.name());
            output::line(&format!("  {qa_id} attempt {attempt}{turn}: {what}: {}", differing.why))?;
        }
    }
    let differing = attempts.attempts - attempts.identical;
    match (differing, judged - judged_alike) {
        (0, 0) => Ok(()),
        (0, verdicts) => Err(Failure::partly(format!("{verdicts} verdicts on identical attempts differ"))),
        (attempts, _) => Err(Failure::partly(format!("{attempts} attempts are not identical"))),
    }
}

/// A pin is made again by its query.
async fn pinned(context: &Context, id: &str) -> Result<(), Failure> {
    let engine = context.engine()?;
    let none = |failure: Failure| {
        let what = "no run in the tables has that id, and ";
        Failure::usage(format!("{what}{failure}"))
    };
    crate::lake_pages::find_pin(context, id).await.map_err(none)?;
    let verification = pin::verify(&engine, id).await?;
    let (recomputed, why): (&str, Option<String>) = match &verification.recomputed {
        pin::Recomputed::Same => ("identical", None),
        pin::Recomputed::Differs { digest } => ("different", Some(format!("its query gives {digest} now"))),
        pin::Recomputed::NotPossible(reason) => ("not possible", Some(reason.clone())),
    };
    let manifest = &verification.manifest;
    if context.json {
        let document: Value = serde_json::json!({
            "pin": manifest.name, "digest": manifest.digest, "rows": manifest.rows, "recomputed": recomputed, "why": why,
            "problems": verification.problems, "identical": verification.passed() && recomputed == "identical",
        });
        output::json(&document)?;
    } else {
        let why = why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        output::line(&format!("pin {} {}, made again: {recomputed}{why}", manifest.name, manifest.digest))?;
        for problem in &verification.problems {
            output::line(&format!("  {problem}"))?;
        }
    }
    match (verification.passed(), recomputed) {
        (true, "identical") => Ok(()),
        (true, _) => {
            Err(Failure::partly(format!("pin {} could not be made again; its files are whole", manifest.name)))
        }
        (false, _) => Err(Failure::failed(format!("pin {} is not what it was", manifest.name))),
    }
}
