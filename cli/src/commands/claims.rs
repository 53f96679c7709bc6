//! Claims on the lake: who runs a slot, and who works on a run.

use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;
use webdancer_agent::chat::SystemClock;
use webdancer_eval::schedule::{self, Claims, ClaimsError, Hold, HoldError, Holder};
use webdancer_lake::claims::Claim;
use webdancer_lake::{Lake, LakeError};

use crate::context::Context;
use crate::failure::Failure;
use crate::output;

/// The name of this process, which no other one has: host, process, and a random part.
pub(super) fn holder() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = Some(host.trim()).filter(|host| !host.is_empty()).unwrap_or("host");
    let random = Uuid::new_v4().simple().to_string();
    format!("{host}/{}/{}", std::process::id(), random.get(..8).unwrap_or(&random))
}

/// The claims of a lake.
#[derive(Debug)]
pub(super) struct LakeClaims(pub(super) Lake);

#[async_trait]
impl Claims for LakeClaims {
    async fn take(&self, kind: &str, key: &str, generation: u64, claim: &schedule::Claim) -> Result<bool, ClaimsError> {
        let schedule::Claim { holder, taken, expires } = claim.clone();
        self.0.claim(kind, key, generation, &Claim { holder, taken, expires }).await.map_err(told)
    }

    async fn newest(&self, kind: &str, key: &str) -> Result<Option<(u64, schedule::Claim)>, ClaimsError> {
        Ok(self.0.claimed(kind, key).await.map_err(told)?.map(|(generation, claim)| (generation, of(claim))))
    }

    async fn all(&self, kind: &str, key: &str) -> Result<Vec<(u64, schedule::Claim)>, ClaimsError> {
        let all = self.0.claims(kind, key).await.map_err(told)?;
        Ok(all.into_iter().map(|(generation, claim)| (generation, of(claim))).collect())
    }
}

fn of(claim: Claim) -> schedule::Claim {
    let Claim { holder, taken, expires } = claim;
    schedule::Claim { holder, taken, expires }
}

fn told(error: LakeError) -> ClaimsError {
    ClaimsError(Failure::from(error).to_string())
}

/// A run for this process alone: two that made the same attempts would both pay for them. `command` goes on with such runs.
///
/// # Errors
/// Another process works on it: which, since when, and what to do.
pub(super) async fn hold(context: &Context, run: &str, command: &str) -> Result<Hold, Failure> {
    let lease = context.config.scheduler.lease()?;
    let (is_quiet, id) = (context.quiet, run.to_string());
    let watching = move |holder: &Holder| {
        if !is_quiet {
            let most = holder.lease.as_secs();
            output::note(&format!("{}: looking for {most} s at most whether it still does", held_by(&id, holder)));
        }
    };
    let claims = Arc::new(LakeClaims(context.lake.clone()));
    let name = holder();
    let held = tokio::select! {
        held = Hold::take(claims, Arc::new(SystemClock), (run, &name), lease, watching) => held,
        () = crate::commands::ingest::stopped() => return Err(Failure::partly("stopped before anything was asked")),
    };
    held.map_err(|error| match error {
        HoldError::Held(holder) => Failure::busy(format!(
            "{}, and renews its claim of {} s: nothing was asked. Let it end, or end it there; then \
             `webdancer {command} --run {run}` goes on",
            held_by(run, &holder),
            holder.lease.as_secs()
        )),
        HoldError::Claims(error) => error.into(),
    })
}

fn held_by(run: &str, holder: &Holder) -> String {
    let mut parts = holder.process.split('/');
    let process = match (parts.next(), parts.next()) {
        (Some(host), Some(process)) => format!("process {process} on {host}"),
        _ => holder.process.clone(),
    };
    format!("run {run} is held: {process} has worked on it since {}", holder.since)
}

impl From<ClaimsError> for Failure {
    fn from(error: ClaimsError) -> Failure {
        Failure::failed(error.to_string())
    }
}
