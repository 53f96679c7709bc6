//! What a run over a benchmark is: settled when it begins, and kept in its first event.

use chrono::Utc;
use serde::{Deserialize, Serialize};
use serde_json::json;
use webdancer_eval::benchmark::{Benchmark, Manifest, Question, SOURCE};
use webdancer_eval::scoring::{ScorersPlan, Scoring};
use webdancer_schemas::digest::sha256_hex;
use webdancer_schemas::event::Event;
use webdancer_synth::sample::SampleRun;

use super::{atlas, benchmarks};
use crate::acting::ActingPlan;
use crate::args::EvalRunArgs;
use crate::columns::{query, strings, text};
use crate::commands::sample::{plan::known, questions};
use crate::context::Context;
use crate::failure::Failure;

/// The kind of these runs.
pub(super) const KIND: &str = "eval";

/// A run: what would change its attempts or their scores if it were changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct EvalPlan {
    /// Ids and seeds follow from it.
    pub(super) run: SampleRun,
    /// Attempts at each question.
    pub(super) attempts: u32,
    /// What was used of the benchmark.
    pub(super) benchmark: Manifest,
    /// The questions asked, in their order.
    pub(super) qa_ids: Vec<String>,
    /// Who scores.
    pub(super) scorers: ScorersPlan,
    /// The model that acts, where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) policy_model: Option<String>,
    /// SHA-256 of policy, model, the endpoint's settings, prompt and budgets, hex: equal for runs that act alike.
    pub(super) policy_digest: String,
    /// Policy, web, profile and budgets of an attempt.
    #[serde(flatten)]
    pub(super) acting: ActingPlan,
}

/// The model that a policy is, where it is one, as the settings have it now.
pub(super) fn model_of(context: &Context, policy: &str) -> Option<String> {
    let name = policy.strip_prefix("endpoint:")?;
    context.config.endpoints.get(name).map(|endpoint| endpoint.model.clone())
}

/// SHA-256 of what acts, hex. Where the endpoint's settings add nothing it is that of plans which did not keep them.
pub(super) fn policy_digest(policy_model: Option<&str>, acting: &ActingPlan) -> String {
    let mut acts = vec![json!(acting.policy), json!(policy_model), json!(acting.profile), json!(acting.agent)];
    acts.extend(acting.settings.as_ref().and_then(|settings| settings.endpoint.clone()));
    sha256_hex(json!(acts).to_string().as_bytes())
}

impl EvalPlan {
    /// The plan of a new run over some of a benchmark's questions.
    pub(super) async fn new(
        context: &Context,
        args: &EvalRunArgs,
        run: SampleRun,
        (benchmark, asked): (&Benchmark, &[Question]),
        scorers: ScorersPlan,
    ) -> Result<EvalPlan, Failure> {
        let web = match &args.web {
            Some(web) => web.clone(),
            None if benchmark.definition.generated => atlas::web(context).await?,
            None => "live".to_string(),
        };
        let acting = ActingPlan::new(context, args.policy.as_deref(), Some(&web), args.profile.as_deref()).await?;
        let policy_model = model_of(context, &acting.policy);
        Ok(EvalPlan {
            run,
            attempts: args.attempts.unwrap_or(1),
            benchmark: benchmark.manifest.clone(),
            qa_ids: asked.iter().map(|question| question.qa_id.clone()).collect(),
            scorers,
            policy_digest: policy_digest(policy_model.as_deref(), &acting),
            policy_model,
            acting,
        })
    }

    /// Whether a run was begun.
    pub(super) async fn is_known(context: &Context, run: &str) -> Result<bool, Failure> {
        let sql = format!("SELECT run_id FROM run_state WHERE run_id = '{}' AND kind = '{KIND}'", known(run)?);
        Ok(query(context, &sql).await?.iter().any(|batch| batch.num_rows() > 0))
    }

    /// The plan that a run was begun with.
    pub(super) async fn of(context: &Context, run: &str) -> Result<EvalPlan, Failure> {
        let stored = questions::plan_of_kind(context, known(run)?, (KIND, "evaluation")).await?;
        let plan: EvalPlan = serde_json::from_str(&stored)
            .map_err(|e| Failure::usage(format!("run {run} is not one that this version can go on with: {e}")))?;
        if plan.run.id != run {
            return Err(Failure::failed(format!("the plan of run {run} is that of run {}", plan.run.id)));
        }
        Ok(plan)
    }

    /// A run that acts as this one does, with its seeds and on the day that it was told: `purpose` tells it from others.
    pub(super) fn again(&self, purpose: &str) -> EvalPlan {
        EvalPlan { run: self.run.again(purpose, Utc::now()), ..self.clone() }
    }

    /// The plan of the run with this id, if there is one already: it goes on.
    pub(super) async fn begun(context: &Context, run: &str) -> Result<Option<EvalPlan>, Failure> {
        match EvalPlan::is_known(context, run).await? {
            true => EvalPlan::of(context, run).await.map(Some),
            false => Ok(None),
        }
    }

    /// Who scored the run last: the scorers whose verdicts are in force.
    pub(super) async fn scorers_in_force(&self, context: &Context) -> Result<ScorersPlan, Failure> {
        let sql = format!(
            "SELECT config FROM run_state WHERE kind = 'rescore' AND parent_run = '{}' \
             AND json_get_int(config, 'scoring', 'number') > 1 ORDER BY json_get_int(config, 'scoring', 'number') DESC LIMIT 1",
            known(&self.run.id)?
        );
        let batches = query(context, &sql).await?;
        let last = match batches.iter().find(|batch| batch.num_rows() > 0) {
            Some(batch) => text(&strings(batch, "config")?, 0).map(str::to_string),
            None => None,
        };
        let Some(last) = last else { return Ok(self.scorers.clone()) };
        let mut config: serde_json::Value = serde_json::from_str(&last)
            .map_err(|e| Failure::failed(format!("a scoring of run {}: {e}", self.run.id)))?;
        serde_json::from_value(config["scorers"].take())
            .map_err(|e| Failure::failed(format!("a scoring of run {}: {e}", self.run.id)))
    }

    /// The questions of the run, from the lake.
    pub(super) async fn questions(&self, context: &Context) -> Result<Vec<Question>, Failure> {
        benchmarks::told(context, &self.benchmark.benchmark, &self.qa_ids).await
    }

    /// Whether attempts are still to be made.
    pub(super) async fn lacks_attempts(&self, context: &Context) -> Result<bool, Failure> {
        let made = questions::made(context, &self.run.id).await?;
        let planned = i32::try_from(self.attempts).unwrap_or(i32::MAX);
        let is_there = |id: &String| (0..planned).all(|number| made.contains(&(id.clone(), number)));
        Ok(!self.qa_ids.iter().all(is_there))
    }

    /// The policy's endpoint must be there and have the model that it had. Which weights it serves shows when it has acted.
    fn check_model(&self, context: &Context) -> Result<(), Failure> {
        let Some(name) = self.acting.policy.strip_prefix("endpoint:") else { return Ok(()) };
        let what = match (model_of(context, &self.acting.policy), &self.policy_model) {
            (None, _) => format!("there is no [endpoints.{name}]"),
            (Some(now), Some(then)) if now != *then => format!("endpoint {name} has the model {now:?} now"),
            _ => return Ok(()),
        };
        let run = self.run.parent.as_deref().unwrap_or(&self.run.id);
        let then = self.policy_model.as_deref().unwrap_or_default();
        Err(Failure::usage(format!(
            "the policy of run {run}, {} with the model {then:?}, cannot act: {what}",
            self.acting.policy
        )))
    }

    /// What is left of the run must be made as the rest was.
    ///
    /// # Errors
    /// What is another now.
    pub(super) fn check_settings(&self, context: &Context) -> Result<(), Failure> {
        self.check_model(context)?;
        let run = &self.run.id;
        let changed = self.acting.settings_changed(&context.config);
        changed.map_or(Ok(()), |changed| Err(Failure::usage(format!("run {run} cannot go on as it began: {changed}"))))
    }

    /// The scoring that is part of the run.
    pub(super) fn scoring(&self) -> Scoring {
        Scoring { run: self.run.id.clone(), start: self.run.start, number: 1, uncounted: None }
    }

    /// The event of a new state of the run.
    pub(super) fn event(&self, state: &str, reason: Option<String>) -> Result<Event, Failure> {
        let failed = |e: serde_json::Error| Failure::failed(format!("the run's event: {e}"));
        let config = match state {
            "started" => Some(serde_json::to_value(self).map_err(failed)?),
            _ => None,
        };
        self.run.event_of((SOURCE, KIND), state, config, reason).map_err(failed)
    }
}
