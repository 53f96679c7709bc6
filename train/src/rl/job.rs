//! A DAPO run from its arguments to its end: what `webdancer-train dapo` does.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use webdancer_agent::chat::{Budget, BudgetConfig, Endpoint, Sampling, SystemClock};
use webdancer_agent::judge::{self, Judge, ModelJudge, ModelJudgeOptions};
use webdancer_agent::profile::Profile;
use webdancer_agent::react::ReactConfig;
use webdancer_agent::tool::Web;

use super::collect::Prompts;
use super::run::{DapoOutcome, DapoState, Run, Sampled, Source};
use super::stored::{self, Stored};
use crate::chat::Chat;
use crate::checkpoint;
use crate::config::{DapoConfig, Device, Dtype, JudgeConfig, JudgeKind, RolloutConfig, TrialConfig};
use crate::contract::DapoJob;
use crate::data::Pin;
use crate::device;
use crate::error::{TrainError, guard};
use crate::events::{self, EVENTS_FILE, Events};
use crate::generate::{Engine, EngineConfig};
use crate::input::{InputError, read_file};
use crate::job::{CHECKPOINTS, LOCK_WAIT, weights_of};
use crate::lock;
use crate::model::Qwen;
use crate::optim::{AdamW, Schedule};
use crate::questions::{self, Questions};
use crate::rollout::{Agent, Renderer, web};
use crate::tokenizer::{ChatTokenizer, TOKENIZER_FILE};

/// Bytes of a prompt profile.
const PROFILE_BYTES_MAX: u64 = 1 << 20;

/// Runs a job: events to `out`, progress to `progress`, checkpoints into the job's folder.
///
/// # Errors
///
/// One line on what was wrong with the settings, the pins, the model, or on what failed.
pub fn run(
    job: &DapoJob,
    interrupt: &AtomicBool,
    out: impl Write,
    mut progress: impl Write,
) -> Result<DapoOutcome, TrainError> {
    let mut say = |line: String| {
        // Progress that nobody reads is no reason to stop.
        let _ = writeln!(progress, "{line}");
    };
    let config = DapoConfig::read(&job.job.config)?;
    let init = job.init.as_ref().or(config.policy.folder.as_ref());
    let base = init.ok_or_else(|| usage("there is no policy to begin with: give --init, or policy.folder"))?;
    let checkpoints = job.job.out.join(CHECKPOINTS);
    std::fs::create_dir_all(&checkpoints).map_err(|error| TrainError::file(&checkpoints, error))?;
    let wait = if job.job.resume { LOCK_WAIT } else { Duration::ZERO };
    let _lock = lock::take(&job.job.out, wait)?;
    checkpoint::sweep(&checkpoints)?;
    let last = checkpoint::latest(&checkpoints)?;
    let events_file = job.job.out.join(EVENTS_FILE);
    if !job.job.resume && (last.is_some() || events_file.exists()) {
        return Err(TrainError::file(&job.job.out, "holds a run already: give --resume, or another folder"));
    }
    let device = device::device(config.device)?;
    if config.deterministic {
        device::be_deterministic(device)?;
    }

    let material = Material::read(job, &config, &mut say)?;
    let renderer = Arc::new(renderer(base, &mut say)?);
    material.fits(renderer.tokenizer(), base)?;
    let kind = device::kind(config.dtype, device);
    let fingerprint = fingerprint(&config, kind, base, &material.identities)?;
    let state = match &last {
        None => DapoState { fingerprint, ..DapoState::default() },
        Some(folder) => {
            checkpoint::verify(folder)?;
            let state: DapoState = checkpoint::read_state(folder)?;
            if state.fingerprint != fingerprint {
                let reason =
                    "is of another run (pins, first checkpoint or settings differ): choose an empty output folder";
                return Err(TrainError::file(folder, reason));
            }
            state
        }
    };
    let model = policy(&config, base, last.as_deref(), kind, device)?;
    fits(&renderer, &model, base)?;
    let mut optimizer = AdamW::new(&config.optimizer, model.trained())?;
    if let Some(folder) = &last {
        checkpoint::read_optimizer(folder, &mut optimizer)?;
    }
    say(format!("{}, {kind:?}, {device:?}", weights_of(&model)));
    let reference = match (config.loss.kl > 0.0, &config.policy.reference) {
        (true, folder) => Some(Qwen::read(folder.as_deref().unwrap_or(base), kind, device)?),
        (false, _) => None,
    };

    // What is sampled again in lockstep comes out the same, to the bit if all of the round is; a judge that is a model
    // need not say the same again.
    let comes_again = config.deterministic && config.judge.kind != JudgeKind::Model;
    // Those of rounds that are done are not looked for again.
    events::roll_back(&job.job.out)?;
    let recorded = match events_file.exists() && !comes_again {
        true => stored::of_events(&events_file, state.round)?,
        false => Vec::new(),
    };
    let identity = job.job.identity(material.pin_id.clone());
    let prompts_end = material.prompts(config.schedule.epochs);
    let schedule = Schedule::new(&config.schedule, config.optimizer.lr, updates(&config, prompts_end));
    let runtime = runtime(&config.rollouts)?;
    let source = material.source(job, &config, &renderer, &runtime, recorded)?;
    let engine = engine_config(&config.rollouts, config.deterministic);
    let engine = guard(|| Ok(Engine::new(engine, model, renderer.clone())))?;
    engine.unrecorded().into_iter().for_each(|reason| say(reason.to_string()));
    let run = Run {
        config: &config,
        identity: identity.clone(),
        name: base.file_name().map_or_else(|| "policy".into(), |name| name.to_string_lossy().into_owned()),
        engine,
        renderer,
        source,
        reference,
        optimizer,
        schedule,
        prompts_end,
        state,
        base,
        base_model: base.display().to_string(),
        checkpoints: &checkpoints,
        interrupt,
        events: Events::open(&job.job.out, identity, out)?,
        say,
    };
    run.finish(last.is_some())
}

/// The policy as the run begins or goes on with it.
fn policy(
    config: &DapoConfig,
    base: &Path,
    last: Option<&Path>,
    kind: tch::Kind,
    device: tch::Device,
) -> Result<Qwen, TrainError> {
    let model = match &config.lora {
        None => Qwen::read(last.unwrap_or(base), kind, device)?,
        Some(lora) => {
            let begun = Qwen::read(base, kind, device)?.with_adapters(lora, config.seed)?;
            match last {
                None => begun,
                Some(folder) => checkpoint::read_model(folder, begun)?,
            }
        }
    };
    Ok(model.with_activation_checkpointing(config.batch.activation_checkpointing))
}

pub(super) fn usage(reason: impl Into<String>) -> TrainError {
    TrainError::Usage(reason.into())
}

/// The threads that tools and judges run on.
pub(super) fn runtime(rollouts: &RolloutConfig) -> Result<tokio::runtime::Runtime, TrainError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(rollouts.threads).enable_all().build();
    runtime.map_err(|error| usage(format!("no threads: {error}")))
}

/// The engine that attempts are written by.
pub(super) fn engine_config(rollouts: &RolloutConfig, deterministic: bool) -> EngineConfig {
    let own = EngineConfig::default();
    EngineConfig {
        // What a prompt computes differs in its last bits by how much of it is read from a cache, and a run that goes on
        // begins with an empty one.
        prefix_bytes_max: if deterministic { 0 } else { own.prefix_bytes_max },
        sequences_max: rollouts.episodes_max,
        prompt_tokens_per_step: rollouts.prompt_tokens_per_step,
        context_max: rollouts.context_tokens_max,
        cuda_graphs: rollouts.cuda_graphs,
        ..own
    }
}

/// What is learnt from, as it was given.
struct Material {
    pin_id: Option<String>,
    /// Digests of all that is read.
    identities: Vec<String>,
    given: Given,
}

enum Given {
    /// And how they are asked.
    Questions(Questions, Box<Profile>),
    Groups(Vec<Vec<Stored>>),
}

impl Material {
    fn read(job: &DapoJob, config: &DapoConfig, say: &mut impl FnMut(String)) -> Result<Material, TrainError> {
        let bytes_max = config.rollouts.file_bytes_max;
        if let Some(place) = &job.replay {
            if config.groups.temperature != 1.0 {
                return Err(usage(
                    "groups.temperature: recorded episodes are replayed at temperature 1 alone: leave it out",
                ));
            }
            let (stored, others): (Vec<_>, Vec<_>) =
                stored::read(place, bytes_max)?.into_iter().partition(Stored::is_of_the_whole_distribution);
            // Attempts to validate on are in no group, and nobody expects them here.
            let others = others.iter().filter(|stored| stored.group.is_some()).count();
            if others > 0 {
                say(format!(
                    "{others} recorded attempts left out: they were sampled otherwise than at temperature 1 from the whole \
                     distribution, and their log-probabilities need not be those that they were drawn by"
                ));
            }
            let groups = stored::groups(place, stored)?;
            let episodes = groups.iter().map(Vec::len).sum::<usize>();
            say(format!("{episodes} recorded episodes in {} groups; nothing is sampled", groups.len()));
            let pins = job.job.pins.iter().map(|place| Pin::open(place)).collect::<Result<Vec<_>, InputError>>()?;
            // What was replayed is known by its trajectories and what they were rewarded for.
            let mut hash = Sha256::new();
            for Stored { trajectory, scores, group, .. } in groups.iter().flatten() {
                hash.update(format!("{} {scores:?} {group:?}\n", trajectory.trajectory_id));
            }
            let identities = vec![format!("{:x}", hash.finalize())];
            let pin_id = pins.first().map(|pin| pin.digest().to_string());
            return Ok(Material { pin_id, identities, given: Given::Groups(groups) });
        }
        if job.job.pins.is_empty() {
            return Err(usage("no pin is given: name one of questions with --pin, or recorded episodes with --replay"));
        }
        let pins = job.job.pins.iter().map(|place| Pin::open(place)).collect::<Result<Vec<_>, InputError>>()?;
        let TrialConfig { share, questions_max, .. } = config.validation;
        let questions = questions::read(&pins, bytes_max, share, questions_max, config.seed)?;
        say(format!(
            "{} questions to train on, {} to validate on; {} left out: of a gated benchmark, {} without text or there twice",
            questions.train.len(),
            questions.validation.len(),
            questions.restricted,
            questions.unusable
        ));
        if questions.validation.is_empty() && config.early_stop.patience > 0 {
            return Err(usage(
                "early_stop.patience: there is no accuracy to wait for, since no group of questions is small enough to be \
                 kept back: give 0, or a higher validation.share",
            ));
        }
        let pin_id = pins.first().map(|pin| pin.digest().to_string());
        let mut identities: Vec<String> = pins.iter().map(|pin| pin.digest().to_string()).collect();
        if let Some(pages) = &job.pages {
            identities.push(Pin::open(pages)?.digest().to_string());
        }
        // Its name says nothing of a file's content.
        let profile = profile(&config.rollouts.profile)?;
        identities.push(profile.digest());
        Ok(Material { pin_id, identities, given: Given::Questions(questions, Box::new(profile)) })
    }

    /// Recorded token ids belong to the tokenizer that they were made by.
    fn fits(&self, tokenizer: &ChatTokenizer, base: &Path) -> Result<(), TrainError> {
        let Given::Groups(groups) = &self.given else { return Ok(()) };
        let rows = || groups.iter().flatten().map(|stored| &stored.trajectory);
        let own = rows().filter(|row| row.tokenizer_digest.as_deref() == Some(tokenizer.digest()));
        let mut own = own.peekable();
        if own.peek().is_none() {
            let reason = "has another tokenizer than the recorded episodes: nothing of them can be replayed with it";
            return Err(TrainError::file(base, reason));
        }
        let known = 0..tokenizer.ids() as i32;
        for row in own {
            let turns = row.turn_context_token_ids.iter().chain(&row.turn_completion_token_ids).flatten();
            if let Some(id) = turns.flatten().flatten().find(|id| !known.contains(id)) {
                let reason = format!("has no token {id}, which trajectory {} is recorded with", row.trajectory_id);
                return Err(TrainError::file(base, reason));
            }
        }
        Ok(())
    }

    /// One behind the last prompt.
    fn prompts(&self, passes: u64) -> u64 {
        match &self.given {
            Given::Questions(questions, _) => passes.saturating_mul(questions.train.len() as u64),
            Given::Groups(groups) => groups.len() as u64,
        }
    }

    fn source(
        self,
        job: &DapoJob,
        config: &DapoConfig,
        renderer: &Arc<Renderer>,
        runtime: &tokio::runtime::Runtime,
        recorded: Vec<Stored>,
    ) -> Result<Source, TrainError> {
        let (questions, profile) = match self.given {
            Given::Groups(groups) => return Ok(Source::Replayed(groups)),
            Given::Questions(questions, profile) => (questions, *profile),
        };
        let pages =
            job.pages.as_ref().ok_or_else(|| usage("there is no web: give --pages, the manifest of a pin of pages"))?;
        let limits = &config.rollouts;
        let web: Arc<dyn Web> = web::closed(pages, &profile.observations, limits.pages_max, limits.file_bytes_max)?;
        let judge = judge_of(&config.judge, config.seed)?;
        let date = job.date();
        let agent = |temperature: f64, top_p: f64| {
            let sampling = Sampling { temperature: Some(temperature), top_p: Some(top_p), ..Sampling::default() };
            let react = ReactConfig { sampling, ..config.rollouts.agent.clone() };
            Arc::new(Agent::new(
                web.clone(),
                profile.clone(),
                react,
                judge.clone(),
                config.reward.clone(),
                renderer.clone(),
                date,
            ))
        };
        let Questions { train, validation, .. } = questions;
        let by_id = |stored: Stored| (stored.trajectory.trajectory_id.clone(), stored);
        Ok(Source::Sampled(Sampled {
            runtime: runtime.handle().clone(),
            prompts: Prompts::new(train, config.seed),
            recorded: recorded.into_iter().map(by_id).collect::<HashMap<_, _>>(),
            agent: agent(config.groups.temperature, 1.0),
            validation: validation.into_iter().map(Arc::new).collect(),
            trial_agent: agent(config.validation.temperature, config.validation.top_p),
        }))
    }
}

pub(super) fn renderer(folder: &Path, say: &mut impl FnMut(String)) -> Result<Renderer, TrainError> {
    let tokenizer = ChatTokenizer::of_folder(folder)?;
    let (chat, difference) = Chat::of_folder(folder)?;
    if let Some(difference) = difference {
        say(difference.to_string());
    }
    Ok(Renderer::new(tokenizer, chat))
}

pub(super) fn fits(renderer: &Renderer, model: &Qwen, folder: &Path) -> Result<(), TrainError> {
    let (tokens, vocabulary) = (i64::from(renderer.tokenizer().ids()), model.config().vocab_size);
    if tokens > vocabulary {
        let reason = format!("the tokenizer has {tokens} tokens and the model {vocabulary}");
        return Err(TrainError::file(folder, reason));
    }
    Ok(())
}

/// The profile of this name, or in this file.
pub(super) fn profile(name: &str) -> Result<Profile, TrainError> {
    if let Some(profile) = Profile::built_in(name) {
        return Ok(profile);
    }
    let path = Path::new(name);
    let document = read_file(path, PROFILE_BYTES_MAX)?;
    let profile = Profile::from_json(&String::from_utf8_lossy(&document));
    profile.map_err(|error| TrainError::file(path, error))
}

pub(super) fn judge_of(config: &JudgeConfig, seed: u64) -> Result<Arc<dyn Judge>, TrainError> {
    if config.kind != JudgeKind::Model {
        let unknown = || usage(format!("there is no judge {}", config.kind.name()));
        return judge::by_name(config.kind.name()).ok_or_else(unknown);
    }
    let clock = Arc::new(SystemClock);
    let budget = Arc::new(Budget::new(BudgetConfig::default(), clock.clone()));
    let endpoint = Endpoint::new("judge", config.endpoint(), budget, clock, seed);
    let endpoint = endpoint.map_err(|error| usage(error.to_string().replacen("endpoints.", "", 1)))?;
    Ok(Arc::new(ModelJudge::new(Arc::new(endpoint), config.style.into(), ModelJudgeOptions::default())))
}

/// Updates that a run may make: those of its settings, or as many as there would be if every group were trained on.
fn updates(config: &DapoConfig, prompts: u64) -> u64 {
    let of_round = (config.groups.prompts as u64).div_ceil(config.batch.groups as u64) * config.batch.passes;
    let planned = prompts.div_ceil(config.groups.prompts as u64).saturating_mul(of_round);
    config.schedule.steps_max.map_or(planned, |most| most.min(planned))
}

/// What a run is of: its settings, its data, and the policy that it began with. Where it computes and how much at a time
/// are not part of it, as in fine-tuning.
fn fingerprint(config: &DapoConfig, kind: tch::Kind, base: &Path, identities: &[String]) -> Result<String, TrainError> {
    let mut learnt = config.clone();
    (learnt.device, learnt.dtype, learnt.batch.tokens) = (Device::Auto, Dtype::Auto, 0);
    learnt.batch.activation_checkpointing = false;
    let mut hash = Sha256::new();
    hash.update(serde_json::to_vec(&learnt).map_err(|error| usage(error.to_string()))?);
    hash.update(format!("{kind:?}"));
    for identity in identities {
        hash.update(identity);
    }
    // The digest of a checkpoint where there is one, else of what text is made of: weights of many gigabytes are not read
    // twice.
    let marks = [base.join(checkpoint::DIGESTS), base.join(TOKENIZER_FILE)];
    let mark = marks.iter().find(|path| path.exists());
    if let Some(path) = mark {
        hash.update(std::fs::read(path).map_err(|error| TrainError::file(path, error))?);
    }
    if config.lora.is_some() {
        // Every checkpoint goes on beside these, which none has.
        hash.update(checkpoint::digest_of_weights(base)?);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
