//! Who judges: rules by their name, models by their role.

use std::sync::Arc;

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::datatypes::Float64Type;
use webdancer_agent::chat::{ChatModel, ModelRole, Models};
use webdancer_agent::judge::{
    CachedJudge, Decision, Judge, ModelJudge, ModelJudgeOptions, PastJudgment, Verdict, by_name,
};
use webdancer_query::{QueryEngine, QueryOptions, literal};
use webdancer_synth::funnel::{Critic, CriticParameters, Stage};

use crate::context::Context;
use crate::failure::Failure;

/// A judge, and the memory before it if it is a model.
#[derive(Debug)]
pub(in crate::commands) struct Chosen {
    pub(in crate::commands) judge: Arc<dyn Judge>,
    pub(super) memory: Option<Arc<CachedJudge>>,
}

/// The judge of this name or role. A model remembers what it judged before.
pub(in crate::commands) async fn judge(
    context: &Context,
    models: &Models,
    engine: &QueryEngine,
    name: &str,
) -> Result<Chosen, Failure> {
    if let Some(judge) = by_name(name) {
        return Ok(Chosen { judge, memory: None });
    }
    let or = "; judges that need no model: exact, normalised, gaia";
    let model = chat_model(models, name).map_err(|failure| failure.followed_by(or))?;
    let judge = ModelJudge::new(model, context.config.funnel.judge_style, ModelJudgeOptions::default());
    let past = past_judgments(engine, &judge).await?;
    let memory = Arc::new(CachedJudge::new(Arc::new(judge), past));
    Ok(Chosen { judge: memory.clone(), memory: Some(memory) })
}

/// The critic whose model plays this role.
pub(super) fn critic(models: &Models, role: &str, parameters: CriticParameters) -> Result<Critic, Failure> {
    Ok(Critic::new(chat_model(models, role)?, parameters))
}

/// Whether the model that plays a role is there. What is no role needs nobody.
pub(super) async fn reach(models: &Models, name: &str) -> Result<(), Failure> {
    match role(name) {
        Some(role) => models.role(role)?.reach().await.map_err(|error| Failure::failed(error.to_string())),
        None => Ok(()),
    }
}

fn role(name: &str) -> Option<ModelRole> {
    ModelRole::ALL.into_iter().find(|role| role.name() == name)
}

/// The chat model that plays a role.
pub(in crate::commands) fn chat_model(models: &Models, name: &str) -> Result<Arc<dyn ChatModel>, Failure> {
    let Some(role) = role(name) else {
        let roles = ModelRole::ALL.map(ModelRole::name).join(", ");
        return Err(Failure::usage(format!("no model plays the role {name:?}; roles: {roles}")));
    };
    Ok(models.role(role)?)
}

/// What a judge of this name and version decided before, in the order of time.
pub(in crate::commands) async fn past_judgments(
    engine: &QueryEngine,
    judge: &dyn Judge,
) -> Result<Vec<PastJudgment>, Failure> {
    past_judgments_of(engine, judge, Stage::Correctness.to_string().as_str()).await
}

/// The same, of a stage.
pub(in crate::commands) async fn past_judgments_of(
    engine: &QueryEngine,
    judge: &dyn Judge,
    stage: &str,
) -> Result<Vec<PastJudgment>, Failure> {
    let sql = format!(
        "SELECT json_get_str(criteria, 'case') AS case_id, verdict, rationale, \
           json_get_bool(criteria, 'attempted') AS attempted, json_get_str(criteria, 'extracted') AS extracted, \
           json_get_float(criteria, 'confidence') AS confidence \
         FROM judgments \
         WHERE stage = '{stage}' AND verdict <> 'error' AND judge = {name} \
           AND json_get_int(criteria, 'judged_by', 'rules', 'version') = {version} \
           AND json_get_str(criteria, 'case') IS NOT NULL \
         ORDER BY event_time, event_id",
        name = literal::text(judge.name()),
        version = judge.rule_version(),
    );
    let batches = engine.query(&sql, &QueryOptions::default()).await?.read_all().await?;
    Ok(batches.iter().flat_map(|batch| (0..batch.num_rows()).filter_map(|row| past(batch, row))).collect())
}

fn past(batch: &RecordBatch, row: usize) -> Option<PastJudgment> {
    let text = |name: &str| {
        let column = batch.column_by_name(name)?.as_string_opt::<i32>()?;
        column.is_valid(row).then(|| column.value(row).to_string())
    };
    let attempted = batch.column_by_name("attempted")?.as_boolean_opt()?;
    let confidence = batch.column_by_name("confidence")?.as_primitive_opt::<Float64Type>()?;
    let decision = Decision {
        verdict: Verdict::from_word(&text("verdict")?)?,
        attempted: attempted.is_null(row) || attempted.value(row),
        extracted: text("extracted"),
        confidence: confidence.is_valid(row).then(|| confidence.value(row)),
        rationale: text("rationale").unwrap_or_default(),
    };
    Some(PastJudgment { case: text("case_id")?.parse().ok()?, decision })
}
