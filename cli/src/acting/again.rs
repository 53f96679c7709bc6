//! Attempts that are made again as a run made them.

use chrono::Utc;
use serde::Serialize;
use webdancer_synth::sample::SampleRun;

use super::{ActingPlan, web_named};
use crate::args::LimitArgs;
use crate::columns::{query, strings, text};
use crate::context::Context;
use crate::failure::Failure;

/// Runs that one run may have been made again in.
const RUNS_MAX: u32 = 1_000;

/// How a run is made again.
#[derive(Debug, Clone, Default)]
pub(crate) struct Again<'a> {
    /// The web, if not the run's own.
    pub(crate) web: Option<&'a str>,
    /// The policy, if not by the run's own name.
    pub(crate) policy: Option<&'a str>,
    /// How much at a time and in all.
    pub(crate) limits: LimitArgs,
}

/// What is another than it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Changes {
    /// Policy, then and now.
    pub(crate) policy: [String; 2],
    /// Web, then and now.
    pub(crate) web: [String; 2],
}

impl Again<'_> {
    /// Changes a plan accordingly. The live web is not what it was: what the run recorded of it is served again.
    ///
    /// # Errors
    /// There is no such web.
    pub(crate) async fn change(
        &self,
        context: &Context,
        run: &str,
        acting: &mut ActingPlan,
    ) -> Result<Changes, Failure> {
        let then = (acting.policy.clone(), acting.web.clone());
        if acting.web == "live" {
            acting.web = format!("recorded:{run}");
            acting.pages = None;
        }
        if self.web.is_some() {
            acting.web = web_named(context, self.web).await?;
        }
        if let Some(policy) = self.policy {
            acting.policy = policy.to_string();
        }
        acting.keep_settings(&context.config);
        Ok(Changes { policy: [then.0, acting.policy.clone()], web: [then.1, acting.web.clone()] })
    }

    /// The run that it is made again in, of this kind, and whether it was begun before: the first that did not finish.
    pub(crate) async fn run(
        &self,
        context: &Context,
        first: &SampleRun,
        kind: &str,
    ) -> Result<(SampleRun, bool), Failure> {
        for number in 0..RUNS_MAX {
            let purpose =
                format!("again/{}/{}/{number}", self.web.unwrap_or_default(), self.policy.unwrap_or_default());
            let mut again = first.again(&purpose, Utc::now());
            let sql = format!(
                "SELECT state, json_get_str(config, 'run', 'start') AS start FROM run_state \
                 WHERE run_id = '{}' AND kind = '{kind}'",
                again.id
            );
            let mut state = None;
            for batch in query(context, &sql).await?.iter().filter(|batch| batch.num_rows() > 0) {
                let (states, starts) = (strings(batch, "state")?, strings(batch, "start")?);
                state = text(&states, 0).map(str::to_string);
                // Ids of its trajectories follow from when it was begun.
                if let Some(start) = text(&starts, 0).and_then(|start| start.parse().ok()) {
                    again.start = start;
                }
            }
            match state.as_deref() {
                Some("finished") => {}
                state => return Ok((again, state.is_some())),
            }
        }
        Err(Failure::usage(format!("run {} was made again {RUNS_MAX} times already", first.id)))
    }
}
