//! A checkpoint attempts questions on a closed web, and nothing is learnt: what `webdancer-train evaluate` does.
//!
//! It is a validation without a run around it: the same agent, tools, judge and draws. All of it is told at its end, or
//! nothing, so that one that was interrupted is begun anew.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use chrono::Utc;
use webdancer_agent::chat::Sampling;
use webdancer_agent::react::ReactConfig;

use super::collect::{draw, outage};
use super::job::{engine_config, fits, judge_of, profile, renderer, runtime, usage};
use super::record::Scoring;
use super::run::{policy, unjudged};
use super::trial::{Trial, TrialScore};
use crate::config::EvaluateConfig;
use crate::contract::{EvaluateJob, QUESTIONS_FILE};
use crate::data::Pin;
use crate::device;
use crate::error::{TrainError, guard};
use crate::events::{Events, RunIdentity};
use crate::generate::Engine;
use crate::input::{InputError, write_whole};
use crate::job::LOCK_WAIT;
use crate::lock;
use crate::model::Qwen;
use crate::questions::{self, Question};
use crate::rollout::{Agent, Finished, Renderer, Rollouts, web};
use crate::score::{QuestionScore, mean_pass_at_k};

/// What an evaluation came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluated {
    /// Of each question, in the order of their ids. None: it was interrupted, and has told nothing.
    pub questions: Option<Vec<QuestionScore>>,
}

/// Runs a job: events to `out`, progress to `progress`, [`QUESTIONS_FILE`] into the job's folder.
///
/// # Errors
///
/// One line on what was wrong with the settings, the pins, the model, or on what failed.
pub fn evaluate(
    job: &EvaluateJob,
    interrupt: &AtomicBool,
    out: impl Write,
    mut progress: impl Write,
) -> Result<Evaluated, TrainError> {
    let mut say = |line: String| {
        // Progress that nobody reads is no reason to stop.
        let _ = writeln!(progress, "{line}");
    };
    let config = EvaluateConfig::read(&job.job.config)?;
    let folder = &job.job.out;
    std::fs::create_dir_all(folder).map_err(|error| TrainError::file(folder, error))?;
    let _lock = lock::take(folder, LOCK_WAIT)?;
    let device = device::device(config.device)?;
    if config.deterministic {
        device::be_deterministic(device)?;
    }
    let (pin_id, questions) = asked(job, &config)?;
    let renderer = Arc::new(renderer(&job.init, &mut say)?);
    let kind = device::kind(config.dtype, device);
    let model = Qwen::read(&job.init, kind, device)?;
    fits(&renderer, &model, &job.init)?;
    let (count, weights) = (questions.len(), model.parameters().count() as f64 / 1e6);
    say(format!("{count} questions, {} attempts each; {weights:.1} M weights, {kind:?}, {device:?}", config.attempts));

    let agent = agent(job, &config, renderer.clone())?;
    let runtime = runtime(&config.rollouts)?;
    let engine = engine_config(&config.rollouts, config.deterministic);
    let mut engine = guard(|| Ok(Engine::new(engine, model, renderer.clone())))?;
    engine.unrecorded().into_iter().for_each(|reason| say(reason.to_string()));
    let identity = job.job.identity(pin_id);
    let mut recorded = HashMap::new();
    let mut trial = Trial::new(&questions, config.attempts, &identity, config.seed, 0, &mut recorded, &config.reward);
    let name = job.init.file_name().map_or_else(|| "policy".into(), |name| name.to_string_lossy().into_owned());
    let rollouts = Rollouts {
        runtime: runtime.handle().clone(),
        policy: policy(&name, &renderer, 0),
        agent: agent.clone(),
        episodes_max: config.rollouts.episodes_max,
        lockstep: config.deterministic,
    };
    if rollouts.run(&mut engine, &mut trial, interrupt)?.interrupted {
        return Ok(Evaluated { questions: None });
    }
    if let Some(reason) = outage(trial.finished.iter()) {
        return Err(unjudged("the evaluation", reason));
    }
    let score = trial.score().ok_or_else(|| usage("the evaluation: no attempt could be judged"))?;
    trial.finished.sort_by(|a, b| a.trajectory.trajectory_id.cmp(&b.trajectory.trajectory_id));
    let scores = scores(&questions, &trial.finished);
    let numbers = numbers(&config, &scores, &score);
    // First, so that whoever hears of the numbers finds it.
    let text = serde_json::to_vec(&scores).map_err(|error| TrainError::file(folder, error))?;
    write_whole(&folder.join(QUESTIONS_FILE), &text)?;
    tell(job, identity, out, &agent, &trial.finished, &numbers)?;
    let shown: Vec<String> = numbers.iter().map(|(name, value, _)| format!("{name} {value:.3}")).collect();
    say(shown.join(", "));
    Ok(Evaluated { questions: Some(scores) })
}

/// The digest of the first pin, and the questions of all: of more than there may be, the same ones each time, in whatever
/// order the pins have them.
fn asked(job: &EvaluateJob, config: &EvaluateConfig) -> Result<(Option<String>, Vec<Arc<Question>>), TrainError> {
    if job.job.pins.is_empty() {
        return Err(usage("no pin is given: name one of questions with --pin"));
    }
    let pins = job.job.pins.iter().map(|place| Pin::open(place)).collect::<Result<Vec<_>, InputError>>()?;
    let mut questions = questions::read(&pins, config.rollouts.file_bytes_max, 0.0, 0, 0)?.train;
    questions.sort_by_cached_key(|question| (draw(0, &["evaluate", &question.qa_id]), question.qa_id.clone()));
    questions.truncate(config.questions_max);
    let pin_id = pins.first().map(|pin| pin.digest().to_string());
    Ok((pin_id, questions.into_iter().map(Arc::new).collect()))
}

fn agent(job: &EvaluateJob, config: &EvaluateConfig, renderer: Arc<Renderer>) -> Result<Arc<Agent>, TrainError> {
    let profile = profile(&config.rollouts.profile)?;
    let limits = &config.rollouts;
    let web = web::closed(&job.pages, &profile.observations, limits.pages_max, limits.file_bytes_max)?;
    let judge = judge_of(&config.judge, config.seed)?;
    let sampling = Sampling { temperature: Some(config.temperature), top_p: Some(config.top_p), ..Sampling::default() };
    let react = ReactConfig { sampling, ..config.rollouts.agent.clone() };
    let date = job.date.unwrap_or_else(|| job.job.started.date_naive());
    Ok(Arc::new(Agent::new(web, profile, react, judge, config.reward.clone(), renderer, date)))
}

/// What each question came to, in the order of their ids.
fn scores(questions: &[Arc<Question>], finished: &[Finished]) -> Vec<QuestionScore> {
    let of = |question: &Arc<Question>| {
        let Question { qa_id, root_qa_id, root_entity, .. } = question.as_ref().clone();
        let cluster = root_entity.unwrap_or(root_qa_id);
        (qa_id.clone(), QuestionScore { qa_id, cluster, judged: 0, correct: 0 })
    };
    let mut scores: BTreeMap<String, QuestionScore> = questions.iter().map(of).collect();
    for one in finished {
        if let (Some(score), Ok(parts)) = (scores.get_mut(&one.trajectory.qa_id), &one.reward) {
            score.judged += 1;
            score.correct += u32::from(parts.answer);
        }
    }
    scores.into_values().collect()
}

fn numbers(config: &EvaluateConfig, scores: &[QuestionScore], score: &TrialScore) -> Vec<(String, f64, &'static str)> {
    let passes = config.pass_at.iter().filter_map(|&k| Some((format!("pass_at_{k}"), mean_pass_at_k(scores, k)?, "1")));
    let TrialScore { format, reward, written_tokens, coverage, .. } = *score;
    let others = [
        ("format", format, "1"),
        ("reward", reward, ""),
        ("written_tokens", written_tokens, "token"),
        ("coverage", coverage, "1"),
        ("questions", scores.len() as f64, ""),
    ];
    passes.chain(others.map(|(name, value, unit)| (name.to_string(), value, unit))).collect()
}

fn tell(
    job: &EvaluateJob,
    identity: RunIdentity,
    out: impl Write,
    agent: &Agent,
    finished: &[Finished],
    numbers: &[(String, f64, &'static str)],
) -> Result<(), TrainError> {
    let scoring = Scoring { judge: agent.judge(), rewards: agent.rewards() };
    let mut events = Events::open(&job.job.out, identity, out)?;
    let now = Utc::now();
    events.begin()?;
    for one in finished {
        scoring.tell(&mut events, one, None, now)?;
    }
    for (name, value, unit) in numbers {
        events.metric(name, 0, *value, Some(*unit).filter(|unit| !unit.is_empty()), now)?;
    }
    events.commit()?;
    Ok(())
}
