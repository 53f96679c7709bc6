//! Which rule version a stage's rules have.
//!
//! A version is a generation of the claim `funnel/<stage>`, held by the digest of the rules: who creates a generation
//! has it for ever, so two runs with different rules never take one number. The newest generation is in force. Rules
//! that were in force before, and are not now, get a new version: the newest judgments are those that hold.

use chrono::{DateTime, Utc};
use webdancer_lake::claims::Claim;
use webdancer_query::QueryEngine;
use webdancer_synth::funnel::{Funnel, Stage, StageRules};

use crate::context::Context;
use crate::failure::Failure;

/// The kind of these claims.
const KIND: &str = "funnel";
/// How often another run may come first.
const ATTEMPTS_MAX: u32 = 100;

/// Sets the version of every stage: of those that `funnel` judges at the version of its rules, of the others the one in
/// force. Says for which it is a new one.
pub(super) async fn assign(
    context: &Context,
    engine: &QueryEngine,
    funnel: &mut Funnel,
    now: DateTime<Utc>,
) -> Result<Vec<Stage>, Failure> {
    let mut new = Vec::new();
    for rules in funnel.rules().clone() {
        let (version, is_new) = if funnel.asks(rules.stage) {
            take(context, engine, &rules, now).await?
        } else {
            (newest(context, rules.stage).await?.map_or(0, |(version, _)| version), false)
        };
        funnel.set_version(rules.stage, version);
        if is_new {
            new.push(rules.stage);
        }
    }
    Ok(new)
}

async fn take(
    context: &Context,
    engine: &QueryEngine,
    rules: &StageRules,
    now: DateTime<Utc>,
) -> Result<(i32, bool), Failure> {
    for _ in 0..ATTEMPTS_MAX {
        let newest = newest(context, rules.stage).await?;
        let last = match newest {
            Some((version, digest)) if digest == rules.digest => return Ok((version, false)),
            Some((version, _)) => version,
            // Verdicts that others recorded before the funnel ran for the first time.
            None => newest_recorded(engine, rules.stage).await?,
        };
        let version = last.saturating_add(1);
        let claim = Claim { holder: rules.digest.clone(), taken: now, expires: None };
        let generation = u64::try_from(version).unwrap_or(0);
        if context.lake.claim(KIND, rules.stage.name(), generation, &claim).await? {
            return Ok((version, true));
        }
    }
    Err(Failure::failed(format!("other runs keep taking the next rule version of {}; try again", rules.stage)))
}

/// The version in force, and the digest of its rules.
async fn newest(context: &Context, stage: Stage) -> Result<Option<(i32, String)>, Failure> {
    let claimed = context.lake.claimed(KIND, stage.name()).await?;
    Ok(claimed.map(|(generation, claim)| (i32::try_from(generation).unwrap_or(i32::MAX), claim.holder)))
}

async fn newest_recorded(engine: &QueryEngine, stage: Stage) -> Result<i32, Failure> {
    let sql = format!("SELECT coalesce(max(rule_version), 0) FROM judgments WHERE stage = '{stage}'");
    Ok(i32::try_from(super::select::number(engine, &sql).await?).unwrap_or(i32::MAX))
}
