//! What a training run is: settled when it begins, and kept in its first event.

use std::path::{Path, PathBuf};

use chrono::{DateTime, NaiveDate, SubsecRound as _, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;
use webdancer_train::config::{DapoConfig, SftConfig};

use crate::args::{DapoArgs, TrainArgs};
use crate::columns::{query, strings};
use crate::context::Context;
use crate::failure::Failure;
use crate::lake_pages::find_pin;

/// The native trainer.
const TRAINER: &str = "webdancer-train";
/// Digits of a checkpoint's digest that name it.
const DIGEST_DIGITS_MIN: usize = 8;
/// Bytes of a configuration file of another trainer.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// What runs are of: the trainer's first argument, and the kind of run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Training {
    #[default]
    Sft,
    Dapo,
}

impl Training {
    pub(super) fn name(self) -> &'static str {
        match self {
            Training::Sft => "sft",
            Training::Dapo => "dapo",
        }
    }

    /// Settings that name folders of this machine: tables and keys.
    fn folders(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Training::Sft => &[("model", "folder")],
            Training::Dapo => &[("policy", "folder"), ("policy", "reference")],
        }
    }
}

/// What the command line asks for.
#[derive(Debug, Clone, Copy)]
pub(in crate::commands) enum Asked<'a> {
    Sft(&'a TrainArgs),
    Dapo(&'a DapoArgs),
    /// A run of this kind once more, from its beginning.
    Again {
        run: &'a str,
        kind: &'a str,
    },
}

impl<'a> Asked<'a> {
    fn kind(self) -> Training {
        match self {
            Asked::Sft(_) => Training::Sft,
            Asked::Dapo(_) => Training::Dapo,
            Asked::Again { kind, .. } if kind == Training::Dapo.name() => Training::Dapo,
            Asked::Again { .. } => Training::Sft,
        }
    }

    fn common(self) -> Option<&'a TrainArgs> {
        match self {
            Asked::Sft(args) => Some(args),
            Asked::Dapo(args) => Some(&args.train),
            Asked::Again { .. } => None,
        }
    }
}

/// A run: what would change its result if it were changed, and where it lies.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) run_id: String,
    /// A run of a version that knew no other kind is of SFT.
    #[serde(default)]
    pub(super) kind: Training,
    /// When it was first started: part of the ids of its events.
    pub(super) started: DateTime<Utc>,
    pub(super) pin_name: String,
    pub(super) pin_id: String,
    /// The pin of pages that a closed web is made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pages_id: Option<String>,
    /// Folder of the checkpoint to begin with, where the command line names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) init: Option<PathBuf>,
    /// Whether the pin holds recorded episodes.
    #[serde(default)]
    pub(super) replay: bool,
    /// The configuration as the trainer understands it: of the native one with all defaults.
    pub(super) config: Value,
    /// Its text, which the trainer is given.
    pub(super) config_text: String,
    pub(super) seed: Option<i64>,
    /// The program, as it was found.
    pub(super) trainer: PathBuf,
    /// Checkpoints, artifacts, `events.ndjson`.
    pub(super) folder: PathBuf,
    /// The run that it makes again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) again: Option<String>,
    /// The date that an agent is told, where it is not the one of `started`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) date: Option<NaiveDate>,
    /// Whether it was started before.
    #[serde(skip)]
    pub(super) goes_on: bool,
}

/// The plan of a new run, or of the one that is to go on.
pub(super) async fn settle(context: &Context, asked: Asked<'_>) -> Result<Plan, Failure> {
    let args = match (asked, asked.common()) {
        (Asked::Again { run, .. }, _) => return again(context, run, asked.kind()).await,
        (_, Some(args)) => args,
        (_, None) => return Err(Failure::usage("give --pin and --config, or --resume")),
    };
    if let Some(run) = &args.resume {
        let mut plan = stored(context, run, asked.kind()).await?;
        plan.goes_on = true;
        if let Some(trainer) = &args.trainer {
            plan.trainer = absolute(trainer)?;
        }
        plan.refit(args)?;
        return Ok(plan);
    }
    let is_native = args.trainer.is_none();
    // Of reinforcement everything has a default but the policy, which --init names.
    let needs_config = !(is_native && asked.kind() == Training::Dapo);
    let Some(pin) = args.pin.as_ref().filter(|_| args.config.is_some() || !needs_config) else {
        let asked = if needs_config { "--pin and --config" } else { "--pin" };
        return Err(Failure::usage(format!("give {asked}, or --resume")));
    };
    if let Some(out) = args.out.as_ref().filter(|out| out.to_string_lossy().contains("://")) {
        return Err(Failure::usage(format!(
            "--out {}: give a folder of this machine: a trainer writes its checkpoints to local disk, and they stay there",
            out.display()
        )));
    }
    // Mistakes of the file first: they are told without looking at a store.
    let (config, config_text) = match &args.config {
        Some(file) if !is_native => foreign(file)?,
        file => native(file.as_deref(), asked.kind(), args)?,
    };
    let trainer = args.trainer.as_deref().map_or_else(find_trainer, absolute)?;
    let pin = context.lake.find_pin(pin).await?;
    let (pages_id, init, replay) = match asked {
        Asked::Sft(_) | Asked::Again { .. } => (None, None, false),
        Asked::Dapo(args) => (pages(context, args).await?, init(context, args).await?, args.replay),
    };
    let run_id = Uuid::now_v7().to_string();
    let folder = folder_of(context, &run_id, args.out.as_deref())?;
    Ok(Plan {
        run_id,
        kind: asked.kind(),
        started: Utc::now().trunc_subsecs(6),
        pin_name: pin.name.clone(),
        pin_id: pin.digest.clone(),
        pages_id,
        init,
        replay,
        seed: config.get("seed").and_then(Value::as_i64),
        config,
        config_text,
        trainer,
        folder,
        again: None,
        date: None,
        goes_on: false,
    })
}

/// The folder of a new run: the one that is given, or the lake's.
fn folder_of(context: &Context, run_id: &str, out: Option<&Path>) -> Result<PathBuf, Failure> {
    let folder = match (out, context.lake.local_path()) {
        (Some(folder), _) => std::path::absolute(folder),
        (None, Some(lake)) => std::path::absolute(lake.join("runs").join(run_id)),
        (None, None) => {
            return Err(Failure::usage(
                "give --out, a folder of this machine: a trainer writes its checkpoints to local disk, and this lake is \
                 on an object store. They stay there",
            ));
        }
    };
    folder.map_err(|e| Failure::failed(format!("the run's folder: {e}")))
}

/// The plan of a run that makes another again: all that the other was, in a folder of its own.
async fn again(context: &Context, run: &str, kind: Training) -> Result<Plan, Failure> {
    let first = stored(context, run, kind).await?;
    let run_id = Uuid::now_v7().to_string();
    // Where the lake keeps no folders, it lies beside the one that it makes again.
    let beside = context.lake.local_path().is_none().then(|| first.folder.with_file_name(&run_id));
    let folder = folder_of(context, &run_id, beside.as_deref())?;
    let started = Utc::now().trunc_subsecs(6);
    // Prompts hold the date: with another one the same policy writes something else.
    let date = (kind == Training::Dapo).then(|| first.date.unwrap_or_else(|| first.started.date_naive()));
    Ok(Plan { run_id, started, folder, again: Some(run.to_string()), date, goes_on: false, ..first })
}

impl Plan {
    /// Changes how much is computed and kept at a time, and where: what a run that did not fit goes on with, and comes to the
    /// same.
    fn refit(&mut self, args: &TrainArgs) -> Result<(), Failure> {
        let tokens = args.batch_tokens.map(|tokens| ("batch", "tokens", toml::Value::from(tokens)));
        let again = args.activation_checkpointing.then(|| ("batch", "activation_checkpointing", true.into()));
        let device = args.device.as_deref().map(|device| ("", "device", device.into()));
        let changes: Vec<_> = [tokens, again, device].into_iter().flatten().collect();
        if !changes.is_empty() {
            let flags = "--batch-tokens, --activation-checkpointing, --device";
            self.config_text = with(&self.config_text, changes)?;
            self.config = read(Path::new(flags), &self.config_text, self.kind)?;
        }
        Ok(())
    }
}

/// A configuration of the native trainer, with what the command line sets in it: mistakes are told before anything is
/// started.
fn native(file: Option<&Path>, kind: Training, args: &TrainArgs) -> Result<(Value, String), Failure> {
    let text = file.map_or_else(|| Ok(String::new()), |file| foreign(file).map(|(_, text)| text))?;
    let file = file.unwrap_or(Path::new("the defaults"));
    let config = read(file, &text, kind)?;
    let mut changes: Vec<_> = args.deterministic.then(|| ("", "deterministic", true.into())).into_iter().collect();
    for (table, key) in kind.folders() {
        let named = config.get(table).and_then(|table| table.get(key)).and_then(Value::as_str).map(Path::new);
        // It is gone on with from any folder.
        if let Some(folder) = named.filter(|folder| folder.is_relative()) {
            let whole = std::path::absolute(folder)
                .map_err(|e| Failure::usage(format!("{table}.{key} {}: {e}", folder.display())))?;
            changes.push((*table, *key, toml::Value::from(whole.to_string_lossy().into_owned())));
        }
    }
    if changes.is_empty() {
        return Ok((config, text));
    }
    let text = with(&text, changes)?;
    Ok((read(file, &text, kind)?, text))
}

/// The native trainer's configuration in `text`, which is said to be that of `file`, as JSON.
fn read(file: &Path, text: &str, kind: Training) -> Result<Value, Failure> {
    let json = match kind {
        Training::Sft => SftConfig::parse(file, text).map(serde_json::to_value),
        Training::Dapo => DapoConfig::parse(file, text).map(serde_json::to_value),
    };
    let json = json.map_err(|e| Failure::usage(e.to_string()))?;
    json.map_err(|e| Failure::failed(format!("{}: {e}", file.display())))
}

/// A TOML text with other values at keys of its tables, each by table (none: the document), key and value.
fn with(text: &str, changes: Vec<(&str, &str, toml::Value)>) -> Result<String, Failure> {
    let fault = |reason: String| Failure::usage(format!("the run's configuration: {reason}"));
    let mut document: toml::Table = toml::from_str(text).map_err(|e| fault(e.message().to_string()))?;
    for (table, key, value) in changes {
        let place = if table.is_empty() {
            &mut document
        } else {
            let place = document.entry(table).or_insert_with(|| toml::Table::new().into());
            place.as_table_mut().ok_or_else(|| fault(format!("{table} is no table")))?
        };
        place.insert(key.to_string(), value);
    }
    toml::to_string(&document).map_err(|e| fault(e.to_string()))
}

/// The pin of pages that the web is made of; none where nothing is attempted.
async fn pages(context: &Context, args: &DapoArgs) -> Result<Option<String>, Failure> {
    let Some(web) = &args.web else { return Ok(None) };
    let Some(pin) = web.strip_prefix("closed:").filter(|pin| !pin.is_empty()) else {
        return Err(Failure::usage(format!(
            "--web {web}: a model learns on a closed web, closed:PIN: on another one the same attempt would not be the same"
        )));
    };
    let found = find_pin(context, pin).await.map_err(|e| e.about(&format!("--web {web}")))?;
    Ok(Some(found.digest))
}

/// The folder of the checkpoint to begin with: given itself, or by its digest.
async fn init(context: &Context, args: &DapoArgs) -> Result<Option<PathBuf>, Failure> {
    let Some(given) = &args.init else { return Ok(None) };
    let folder = Path::new(given);
    if folder.is_dir() {
        let whole = std::path::absolute(folder).map(Some);
        return whole.map_err(|e| Failure::usage(format!("--init {given}: {e}")));
    }
    let digest = given.len() >= DIGEST_DIGITS_MIN && given.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut found = Vec::new();
    if digest {
        let sql = format!("SELECT DISTINCT uri FROM checkpoints WHERE digest LIKE '{}%'", given.to_ascii_lowercase());
        for batch in &query(context, &sql).await? {
            found.extend(strings(batch, "uri")?.iter().flatten().map(PathBuf::from));
        }
    }
    found.retain(|folder| folder.is_dir());
    found.into_iter().next().map(Some).ok_or_else(|| {
        Failure::usage(format!(
            "--init {given}: is neither a folder of this machine nor the digest of a checkpoint that lies on it; SELECT \
             digest, step, uri FROM checkpoints"
        ))
    })
}

/// A configuration that only its trainer understands: as JSON if it is TOML, else as text.
fn foreign(file: &Path) -> Result<(Value, String), Failure> {
    let fault = |reason: String| Failure::usage(format!("reading {}: {reason}", file.display()));
    let length = std::fs::metadata(file).map_err(|e| fault(e.to_string()))?.len();
    if length > CONFIG_BYTES_MAX {
        return Err(fault(format!("it has more than {CONFIG_BYTES_MAX} bytes")));
    }
    let text = std::fs::read_to_string(file).map_err(|e| fault(e.to_string()))?;
    let json = toml::from_str::<Value>(&text).unwrap_or_else(|_| json!({"text": text}));
    Ok((json, text))
}

/// The native trainer: beside this command, or in PATH.
pub(in crate::commands) fn find_trainer() -> Result<PathBuf, Failure> {
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(TRAINER)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|folder| folder.join(TRAINER));
    beside.into_iter().chain(in_path).find(|program| program.is_file()).ok_or_else(|| {
        Failure::usage(format!(
            "there is no {TRAINER} beside this command or in PATH: `make build-train` builds it; --trainer names another"
        ))
    })
}

/// A program's place, whatever folder the run is gone on with from. A bare name is looked for in PATH.
pub(in crate::commands) fn absolute(program: &Path) -> Result<PathBuf, Failure> {
    if program.components().count() == 1 && !program.starts_with(".") {
        return Ok(program.to_path_buf());
    }
    std::path::absolute(program).map_err(|e| Failure::usage(format!("--trainer {}: {e}", program.display())))
}

impl Plan {
    /// The pins that it learns from.
    pub(super) fn parents(&self) -> Vec<String> {
        [&self.pin_id].into_iter().chain(&self.pages_id).cloned().collect()
    }
}

/// The plan that a run was begun with.
async fn stored(context: &Context, run: &str, kind: Training) -> Result<Plan, Failure> {
    let kind = kind.name();
    if run.len() != 36 || Uuid::try_parse(run).is_err() {
        return Err(Failure::usage(format!("{run:?} is no id of a run; SELECT run_id, kind, state FROM run_state")));
    }
    let sql = format!("SELECT config FROM run_state WHERE run_id = '{run}' AND kind = '{kind}'");
    let mut found = None;
    for batch in &query(context, &sql).await? {
        found = strings(batch, "config")?.iter().flatten().next().map(str::to_string).or(found);
    }
    let found = found.ok_or_else(|| Failure::usage(format!("there is no {kind} run {run} in the tables")))?;
    let plan: Plan = serde_json::from_str(&found)
        .map_err(|e| Failure::usage(format!("run {run} is not one that this version can go on with: {e}")))?;
    if plan.run_id == run {
        Ok(plan)
    } else {
        Err(Failure::failed(format!("run {run} has the plan of {}", plan.run_id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_models_folder_is_the_same_wherever_the_run_is_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sft.toml");
        let whole = std::path::absolute("models/m").unwrap();
        for named in ["models/m", whole.to_str().unwrap()] {
            std::fs::write(&file, format!("seed = 3\n[model]\nfolder = '{named}'\n[batch]\ntokens = 99\n")).unwrap();
            let (config, text) = native(Some(&file), Training::Sft, &TrainArgs::default()).unwrap();
            assert_eq!(config["model"]["folder"], json!(whole));
            assert_eq!((&config["seed"], &config["batch"]["tokens"]), (&json!(3), &json!(99)));
            assert_eq!(read(&file, &text, Training::Sft).unwrap(), config);
        }
        // Of reinforcement everything has a default.
        let (config, text) = native(None, Training::Dapo, &TrainArgs::default()).unwrap();
        assert_eq!((&config["groups"]["size"], text.as_str()), (&json!(16), ""));
        // What need not be changed stays as it was written.
        let text = "preset = 'demo' # ours\n";
        std::fs::write(&file, text).unwrap();
        assert_eq!(native(Some(&file), Training::Sft, &TrainArgs::default()).unwrap().1, text);
    }

    #[test]
    fn what_the_command_line_sets_is_in_the_configuration_of_either_kind() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("own.toml");
        std::fs::write(&file, "preset = 'demo'\ndeterministic = false\n").unwrap();
        let args = TrainArgs { deterministic: true, ..TrainArgs::default() };
        for kind in [Training::Sft, Training::Dapo] {
            let (config, text) = native(Some(&file), kind, &args).unwrap();
            assert_eq!(config["deterministic"], true);
            assert_eq!(text, "deterministic = true\npreset = \"demo\"\n");
        }
    }
}
