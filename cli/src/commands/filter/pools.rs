//! `webdancer filter pin`: both pools as datasets.

use serde_json::json;
use webdancer_query::PinManifest;

use crate::context::Context;
use crate::failure::Failure;
use crate::output;

/// With the roots of their questions, by which a trainer keeps rewrites of one question together.
const SFT: &str = "SELECT s.*, coalesce(q.attributes->>'root_qa_id', s.qa_id) AS root_qa_id, \
    q.entity_chain[1] AS root_entity FROM sft_pool AS s LEFT JOIN current_qa AS q ON q.qa_id = s.qa_id";

/// The questions left, less those of the pin of trajectories: whatever is judged between the two, no question is in
/// both.
fn rl(sft_name: &str, attempted: bool) -> String {
    let attempted = if attempted { " WHERE r.attempts > 0" } else { "" };
    format!("SELECT r.* FROM rl_pool AS r LEFT ANTI JOIN pin('{sft_name}') AS s ON s.qa_id = r.qa_id{attempted}")
}

pub(super) async fn run(context: &Context, name: &str, attempted: bool) -> Result<(), Failure> {
    let Pools { sft, rl } = create(context, name, attempted).await?;
    if context.json {
        return output::json(&json!({"sft": sft, "rl": rl}));
    }
    for (pin, what) in [(&sft, "accepted trajectories"), (&rl, "questions without one")] {
        let digest = pin.digest.get(..16).unwrap_or(&pin.digest);
        output::line(&format!("{:<24} {:>9} {what}  {digest}", pin.name, pin.rows))?;
    }
    Ok(())
}

/// Both pools, pinned.
#[derive(Debug)]
pub(in crate::commands) struct Pools {
    pub(in crate::commands) sft: PinManifest,
    pub(in crate::commands) rl: PinManifest,
}

/// Pins both pools.
pub(in crate::commands) async fn create(context: &Context, name: &str, attempted: bool) -> Result<Pools, Failure> {
    context.drain_embedded_wholly().await?;
    let engine = context.engine()?;
    let (sft_name, rl_name) = (format!("{name}-sft"), format!("{name}-rl"));
    // Checked by the pin too, but here it stands in SQL before it gets there.
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        return Err(Failure::usage(format!(
            "{name:?} is no name for pins: letters, digits, '.', '_' and '-' make one"
        )));
    }
    let sft = crate::commands::pin::create(context, &engine, &sft_name, SFT).await?;
    let rl = crate::commands::pin::create(context, &engine, &rl_name, &rl(&sft_name, attempted)).await?;
    Ok(Pools { sft, rl })
}
