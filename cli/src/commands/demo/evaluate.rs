//! From policies to scores: each is served, and evaluated on the questions about the real countries.
//!
//! These are a benchmark, by a file and a few lines of settings, as anybody's own questions are: `eval run` attempts and
//! scores them, and the dashboard has a row for each policy.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::{StreamExt as _, future, stream};
use serde_json::{Value, json};
use webdancer_agent::chat::{EndpointConfig, Sampling, TokenIds};
use webdancer_agent::react::ReactConfig;
use webdancer_query::QueryEngine;
use webdancer_query::output::Format;
use webdancer_schemas::rows::Artifact;

use super::learn::{Policies, folder_of};
use super::scores::{self, Arm, Score};
use super::served::Served;
use super::{Demo, PROFILE, REAL_PAGES, queries};
use crate::args::{EvalRunArgs, LimitArgs};
use crate::columns::query;
use crate::commands::{eval, pin, reward};
use crate::failure::Failure;
use crate::output::NewFile;

/// The pin of the questions that policies are evaluated on, and the name of its file in the demo's folder.
const QUESTIONS: &str = "demo-eval";
/// The benchmark that these are.
pub(super) const BENCHMARK: &str = "demo";
/// What the settings say of it, beside its file. What is about one country stands or falls together.
const DEFINITION: &str = r#"
title = "the demo's questions about the real countries"
licence = "ODbL 1.0 for the table of countries"
terms = "The questions are this project's. Train on invented worlds only."
id = "qa_id"
language = "eng"
cluster = "entity"
attributes = { type = "type", entity = "entity" }
"#;
/// Attempts at each.
const ATTEMPTS: u32 = 3;
/// Policies under way at a time. More threads make a model as small as the demo's hardly faster; a process beside it does.
const POLICIES: usize = 2;
/// Attempts of a policy under way at a time, which is how many answers its server writes at a time.
const SEQUENCES: usize = 64;
/// Model calls of an attempt; two hops take five.
const CALLS_MAX: u32 = 5;
/// Tokens of a turn; those of the expert have about 50.
const TURN_TOKENS_MAX: u32 = 120;
/// Tokens of a conversation: what the learner was trained on, and some.
const CONTEXT_TOKENS_MAX: u64 = 2_048;
/// The plot's file, in the demo's folder.
const PLOT: &str = "scores.svg";

/// A policy, and what it has to work with.
struct Contender<'a> {
    name: &'static str,
    checkpoint: &'a Artifact,
    /// Whether it has tools.
    has_web: bool,
}

impl Demo<'_> {
    /// Attempts by all policies, and how they compare.
    pub(super) async fn evaluate(&mut self, trainer: &Path, policies: &Policies) -> Result<Value, Failure> {
        self.set_questions().await?;
        let contender = |name, checkpoint, has_web| Contender { name, checkpoint, has_web };
        // Those that take longest come first, so that none is left over to be alone.
        let contenders = [
            contender("dapo", &policies.dapo, true),
            contender("sft_more", &policies.sft_more, true),
            contender("sft", &policies.sft, true),
            contender("closed_book", &policies.sft, false),
            contender("base", &policies.base, true),
        ];
        // Where one fails no other is begun; what is under way beside it comes to its end.
        let has_failed = AtomicBool::new(false);
        let attempted = stream::iter(contenders)
            .take_while(|_| future::ready(!has_failed.load(Ordering::Relaxed)))
            .map(async |contender| {
                let arm = self.attempt(trainer, &contender).await;
                has_failed.fetch_or(arm.is_err(), Ordering::Relaxed);
                arm
            });
        let arms: Vec<Result<Arm, Failure>> = attempted.buffered(POLICIES).collect().await;
        let mut arms = arms.into_iter().collect::<Result<Vec<Arm>, Failure>>()?;
        arms.reverse();
        let scores = self.tell_scores(&arms).await?;
        self.check_gain(&arms, &scores).await?;
        let runs: serde_json::Map<String, Value> =
            arms.iter().map(|arm| (arm.name.to_string(), Value::from(arm.run.as_str()))).collect();
        let mut told = json!(scores::by_metric(&scores));
        super::add(&mut told, json!({"evaluations": runs}));
        Ok(told)
    }

    /// Questions of one hop and of two about the real countries, which nothing was trained on: pinned, and as a file the
    /// benchmark of all policies.
    async fn set_questions(&mut self) -> Result<(), Failure> {
        let sql = "SELECT qa_id, question, answer, type, coalesce(entity_chain[1], qa_id) AS entity FROM current_qa \
                   WHERE attributes->>'world' = 'real' AND type IN ('generic', 'multi-hop') ORDER BY qa_id";
        let pinned = pin::create(&self.context, &self.context.engine()?, QUESTIONS, sql).await?;
        let file = self.folder.join(format!("{QUESTIONS}.ndjson"));
        let new = NewFile::at(&file)?;
        webdancer_query::pin::export(&self.context.lake, &pinned, Format::Ndjson, new.writer()).await?;
        new.keep()?;
        let definition = DEFINITION.parse::<toml::Table>();
        let mut definition = definition.map_err(|e| Failure::failed(format!("the demo's benchmark: {e}")))?;
        definition.insert("file".to_string(), toml::Value::from(file.display().to_string()));
        self.context.config.benchmarks.insert(BENCHMARK.to_string(), definition);
        self.say(&format!(
            "Evaluating on {} questions about the real countries, {ATTEMPTS} attempts each",
            pinned.rows
        ));
        Ok(())
    }

    /// A policy's attempts: its checkpoint is served and asked like any other model.
    async fn attempt(&self, trainer: &Path, contender: &Contender<'_>) -> Result<Arm, Failure> {
        let Contender { name, checkpoint, has_web } = *contender;
        let folder = folder_of(checkpoint);
        let served = Served::start(trainer, &folder, SEQUENCES, POLICIES).await?;
        self.tell(&format!("{name}: {} serves {}", served.url, folder.display()));
        let mut context = self.context.clone();
        context.config.endpoints.insert(name.to_string(), endpoint(name, &served, checkpoint));
        context.config.agent = ReactConfig {
            // Without tools it may find out that it has none, and is then asked for the answer.
            calls_max: if has_web { CALLS_MAX } else { 1 },
            context_tokens_max: Some(CONTEXT_TOKENS_MAX),
            turn_tokens_max: Some(TURN_TOKENS_MAX),
            malformed_max: 0,
            sampling: Sampling { temperature: Some(0.6), top_p: Some(0.95), ..Sampling::default() },
            tokens: true,
            ..ReactConfig::default()
        };
        let args = EvalRunArgs {
            benchmark: Some(BENCHMARK.to_string()),
            policy: Some(format!("endpoint:{name}")),
            web: Some(if has_web { format!("closed:{REAL_PAGES}") } else { "none".to_string() }),
            profile: Some(PROFILE.to_string()),
            attempts: Some(ATTEMPTS),
            seed: Some(self.seed),
            limits: LimitArgs { concurrency: Some(SEQUENCES), ..LimitArgs::default() },
            ..EvalRunArgs::default()
        };
        let attempted = eval::attempt(&context, &args).await;
        served.stop().await;
        let report = attempted?;
        if let Some(why) = report.stopped {
            return Err(Failure::partly(format!("evaluating {name}: {why}")));
        }
        let ends: Vec<String> = report.by_termination.iter().map(|(end, count)| format!("{count} {end}")).collect();
        self.tell(&format!("{name}: {} trajectories: {}", report.trajectories, ends.join(", ")));
        Ok(Arm { name, run: report.run_id })
    }

    /// The table, the plot, and the query that both come from.
    async fn tell_scores(&self, arms: &[Arm]) -> Result<Vec<Score>, Failure> {
        let engine: QueryEngine = self.context.engine()?;
        let sql = scores::query_of(arms);
        queries::show(
            &engine,
            "How good are they? With 95 % intervals over the countries that questions are about",
            &sql,
            self.context.quiet,
        )
        .await?;
        let scores = scores::read(&query(&self.context, &sql).await?, arms)?;
        self.tell("");
        self.tell(&scores::bars(&scores));
        let file = self.folder.join(PLOT);
        std::fs::write(&file, scores::svg(&scores))
            .map_err(|e| Failure::failed(format!("writing {}: {e}", file.display())))?;
        self.tell(&format!("\nthe same as a picture: {}", file.display()));
        Ok(scores)
    }

    /// That fine-tuning came to something: right answers, or where its steps do not suffice for these, reward, a tenth of
    /// which is for the format.
    async fn check_gain(&self, arms: &[Arm], scores: &[Score]) -> Result<(), Failure> {
        let (what, base, sft) = if self.budget.answers {
            let of = |name: &str| scores.iter().find(|score| score.arm == name).map_or(0.0, Score::pass_at_1);
            ("Pass@1", of("base"), of("sft"))
        } else {
            ("the mean reward", self.mean_reward(arms, "base").await?, self.mean_reward(arms, "sft").await?)
        };
        self.tell(&gained(what, base, sft)?);
        Ok(())
    }

    async fn mean_reward(&self, arms: &[Arm], name: &str) -> Result<f64, Failure> {
        let run = arms.iter().find(|arm| arm.name == name).map_or("", |arm| arm.run.as_str());
        Ok(reward::mean_of(&self.context, run).await?.unwrap_or(0.0))
    }
}

/// A score without fine-tuning and with it; that it is no higher is a failure of the demo.
fn gained(what: &str, base: f64, sft: f64) -> Result<String, Failure> {
    if sft > base {
        return Ok(format!("{what}: base {base:.3}, sft {sft:.3}"));
    }
    Err(Failure::failed(format!("fine-tuning came to nothing: {what} is {sft:.3}, and {base:.3} without it")))
}

/// The server as an endpoint of the settings.
fn endpoint(name: &str, served: &Served, checkpoint: &Artifact) -> EndpointConfig {
    EndpointConfig {
        url: served.url.clone().into(),
        model: name.to_string(),
        stream: false,
        token_ids: TokenIds::Vllm,
        checkpoint_digest: checkpoint.digest.clone(),
        concurrency: SEQUENCES,
        ..EndpointConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fine_tuning_that_comes_to_nothing_fails_the_demo() {
        assert_eq!(gained("Pass@1", 0.0, 0.25).unwrap(), "Pass@1: base 0.000, sft 0.250");
        let failure = gained("the mean reward", 0.1, 0.1).unwrap_err();
        let expected = "fine-tuning came to nothing: the mean reward is 0.100, and 0.100 without it";
        assert_eq!(failure.to_string(), expected);
    }
}
