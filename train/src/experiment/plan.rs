//! An experiment's file.
//!
//! ```toml
//! title = "Is SFT needed before RL?"
//! question = "Does DAPO reach from little or no SFT what it reaches from all of it?"
//!
//! [sft]                     # what every stage of this kind begins with
//! pins = ["lessons-sft"]    # folders in that of `--pins`
//! [sft.set]                 # keys of the configuration of an SFT run
//! preset = "30m"
//!
//! [[arms]]
//! name = "sft-dapo"
//! stages = [{ run = "sft" }, { run = "dapo", set = { loss.clip_high = 0.2 } }, { run = "evaluate" }]
//! ```
//!
//! Stages of an arm follow each other: one begins with the last checkpoint of the training before it, or, with `from =
//! "first"`, with the one that that training began with.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::{Path, PathBuf};

use chrono::NaiveDate;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::config::{DapoConfig, EvaluateConfig, SftConfig, over};
use crate::input::{InputError, read_file};
use crate::settings_error;

/// Bytes of an experiment's file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Arms of an experiment.
const ARMS_MAX: usize = 64;
/// Stages of an arm.
const STAGES_MAX: usize = 16;
/// Seeds of an arm.
const SEEDS_MAX: u64 = 100;
/// Minutes of an experiment: a week.
const MINUTES_MAX: f64 = 10_080.0;
/// What `--quick` changes, by kind of stage.
const QUICK: &str = include_str!("../../presets/quick.toml");

/// An experiment.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// What it is called.
    pub title: String,
    /// What it answers, in one sentence.
    pub question: String,
    /// Seeds of each arm, from 1. 3: ours.
    #[serde(default = "default_seeds")]
    pub seeds: u64,
    /// Minutes after which what is under way is stopped. 9: ours.
    #[serde(default = "default_minutes")]
    pub minutes: f64,
    /// The date that agents are told, the same in every run of the experiment. 2026-01-01: ours.
    #[serde(default = "default_date")]
    pub date: NaiveDate,
    /// Metrics that the table has, each as the last stage that told it told it last.
    #[serde(default = "default_metrics")]
    pub metrics: Vec<String>,
    /// Metrics that are plotted over steps.
    #[serde(default)]
    pub curves: Vec<String>,
    /// Supervised fine-tuning.
    #[serde(default)]
    pub sft: Base,
    /// Reinforcement.
    #[serde(default)]
    pub dapo: Base,
    /// Evaluation.
    #[serde(default)]
    pub evaluate: Base,
    /// What is compared; differences are told to the first.
    pub arms: Vec<ArmPlan>,
}

/// What every stage of a kind begins with.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Base {
    /// Pins, by the names of their folders.
    pub pins: Vec<String>,
    /// The pin of pages that the closed web is made of.
    pub pages: Option<String>,
    /// Keys of the configuration.
    pub set: Table,
}

/// What is compared with others.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArmPlan {
    /// Its name: small letters, digits, `-` and `.`.
    pub name: String,
    /// In their order.
    pub stages: Vec<StagePlan>,
}

/// A stage of an arm.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StagePlan {
    /// What is run.
    pub run: StageKind,
    /// Which checkpoint of the training before it it begins with.
    #[serde(default)]
    pub from: Begin,
    /// Pins, in place of those of the base.
    pub pins: Option<Vec<String>>,
    /// The pin of pages, in place of that of the base.
    pub pages: Option<String>,
    /// Keys of the configuration, over those of the base.
    #[serde(default)]
    pub set: Table,
}

/// What a stage runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StageKind {
    /// Supervised fine-tuning.
    Sft,
    /// Reinforcement.
    Dapo,
    /// Attempts at questions.
    Evaluate,
}

impl StageKind {
    /// The subcommand, and the name in files.
    pub fn name(self) -> &'static str {
        match self {
            StageKind::Sft => "sft",
            StageKind::Dapo => "dapo",
            StageKind::Evaluate => "evaluate",
        }
    }

    /// Whether it leaves checkpoints.
    pub fn trains(self) -> bool {
        self != StageKind::Evaluate
    }
}

/// Which checkpoint of a training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Begin {
    /// The one that it ended with.
    #[default]
    Last,
    /// The one that it began with, which `checkpoints.initial` keeps.
    First,
}

fn default_seeds() -> u64 {
    3
}

fn default_date() -> NaiveDate {
    NaiveDate::from_ymd_opt(2026, 1, 1).unwrap_or_default()
}

fn default_minutes() -> f64 {
    9.0
}

fn default_metrics() -> Vec<String> {
    ["pass_at_1", "pass_at_3", "format", "written_tokens"].map(str::to_string).to_vec()
}

/// What is wrong with an experiment, on one line: file, place, key, what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ExperimentError(String);

impl ExperimentError {
    pub(super) fn new(line: impl Display) -> ExperimentError {
        ExperimentError(line.to_string())
    }
}

impl From<InputError> for ExperimentError {
    fn from(error: InputError) -> ExperimentError {
        ExperimentError::new(error)
    }
}

impl Plan {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or holds a mistake.
    pub fn read(file: &Path) -> Result<Plan, ExperimentError> {
        let text = read_file(file, FILE_BYTES_MAX)?;
        Plan::parse(file, &String::from_utf8_lossy(&text))
    }

    /// The experiment in `text`, the content of `file`. The settings of every stage are looked at, too.
    ///
    /// # Errors
    /// A key that is not known, a value of the wrong type or out of its range, a stage that cannot be run where it stands.
    pub fn parse(file: &Path, text: &str) -> Result<Plan, ExperimentError> {
        let read =
            toml::from_str(text).map_err(|error| ExperimentError::new(settings_error::line_of(file, text, &error)));
        let plan: Plan = read?;
        plan.check().map_err(|line| ExperimentError::new(format!("{}: {line}", file.display())))?;
        Ok(plan)
    }

    /// What every stage of a kind begins with.
    pub fn base(&self, kind: StageKind) -> &Base {
        match kind {
            StageKind::Sft => &self.sft,
            StageKind::Dapo => &self.dapo,
            StageKind::Evaluate => &self.evaluate,
        }
    }

    /// The pins of a stage, by name.
    pub fn pins<'a>(&'a self, stage: &'a StagePlan) -> &'a [String] {
        stage.pins.as_ref().unwrap_or(&self.base(stage.run).pins)
    }

    /// The pin of pages of a stage.
    pub fn pages<'a>(&'a self, stage: &'a StagePlan) -> Option<&'a str> {
        stage.pages.as_deref().or(self.base(stage.run).pages.as_deref())
    }

    /// The configuration of a stage, but for its seed and the checkpoint that it begins with.
    pub fn settings(&self, stage: &StagePlan, quick: bool) -> Table {
        let settings = over(self.base(stage.run).set.clone(), stage.set.clone());
        if quick { over(settings, quick_settings(stage.run)) } else { settings }
    }

    fn check(&self) -> Result<(), String> {
        let within = |holds: bool, key: &str, allowed: &str| {
            if holds { Ok(()) } else { Err(format!("{key}: must be {allowed}")) }
        };
        within(!self.title.trim().is_empty(), "title", "some words")?;
        within(!self.question.trim().is_empty(), "question", "a sentence")?;
        within((1..=SEEDS_MAX).contains(&self.seeds), "seeds", "from 1 to 100")?;
        within(self.minutes > 0.0 && self.minutes <= MINUTES_MAX, "minutes", "above 0 and at most 10080")?;
        within(!self.metrics.is_empty(), "metrics", "one name or more")?;
        within((1..=ARMS_MAX).contains(&self.arms.len()), "arms", "1 to 64")?;
        let mut names = BTreeSet::new();
        for arm in &self.arms {
            within(is_name(&arm.name), "arms.name", "small letters, digits, - and .")?;
            within(names.insert(&arm.name), &format!("arm {}: name", arm.name), "of one arm alone")?;
            within((1..=STAGES_MAX).contains(&arm.stages.len()), &format!("arm {}: stages", arm.name), "1 to 16")?;
            self.check_arm(arm)?;
        }
        Ok(())
    }

    fn check_arm(&self, arm: &ArmPlan) -> Result<(), String> {
        // Of the training before: whether it keeps what it began with.
        let mut before: Option<bool> = None;
        for (number, stage) in arm.stages.iter().enumerate() {
            let place = format!("arm {}, stage {} ({})", arm.name, number + 1, stage.run.name());
            let fault = |what: &str| Err(format!("{place}: {what}"));
            if before.is_none() && stage.run != StageKind::Sft {
                return fault("begins with a checkpoint: an sft stage must come before it");
            }
            if stage.from == Begin::First && before != Some(true) {
                return fault("from: \"first\" needs a training before it with checkpoints.initial = true");
            }
            if self.pins(stage).is_empty() {
                return fault("pins: name one, here or in the table of this kind of stage");
            }
            if (stage.run == StageKind::Sft) == self.pages(stage).is_some() {
                return fault("pages: must be a pin of pages in dapo and evaluate, and left out in sft");
            }
            let mut names = self.pins(stage).iter().map(String::as_str).chain(self.pages(stage));
            if !names.all(is_folder) {
                return fault("pins, pages: must be names of folders");
            }
            let mut keeps = None;
            for quick in [false, true] {
                let settings = self.settings(stage, quick);
                if settings.contains_key("seed") {
                    return fault("seed: is the experiment's to choose");
                }
                let settings = with_checkpoint(settings, stage.run, before.map(|_| Path::new("checkpoint")));
                keeps = keeps_first(&place, stage.run, &settings)?;
            }
            before = keeps.or(before);
        }
        Ok(())
    }
}

fn is_name(name: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    !name.is_empty() && name.len() <= 64 && name.bytes().all(known)
}

/// A name that does not lead out of the folder that it is in.
fn is_folder(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(std::path::Component::Normal(_)), None))
}

/// What `--quick` changes in stages of a kind.
fn quick_settings(kind: StageKind) -> Table {
    let tables: BTreeMap<String, Table> = toml::from_str(QUICK).unwrap_or_default();
    tables.get(kind.name()).cloned().unwrap_or_default()
}

/// Settings with the checkpoint that fine-tuning goes on from. The others are given it by an argument.
pub(super) fn with_checkpoint(mut settings: Table, kind: StageKind, checkpoint: Option<&Path>) -> Table {
    if let (StageKind::Sft, Some(folder)) = (kind, checkpoint) {
        let model = Table::from_iter([("folder".to_string(), Value::from(folder.display().to_string()))]);
        settings.insert("model".to_string(), Value::Table(model));
    }
    settings
}

/// Reads settings as the stage will. Of a training, whether it keeps the checkpoint that it begins with.
fn keeps_first(place: &str, kind: StageKind, settings: &Table) -> Result<Option<bool>, String> {
    let text = toml::to_string(settings).map_err(|error| format!("{place}: {error}"))?;
    let file = PathBuf::from(place);
    match kind {
        StageKind::Sft => {
            keys::<SftConfig>(place, &text)?;
            let read = SftConfig::parse(&file, &text).map_err(|error| error.to_string())?;
            Ok(Some(read.checkpoints.initial))
        }
        StageKind::Dapo => {
            keys::<DapoConfig>(place, &text)?;
            let read = DapoConfig::parse(&file, &text).map_err(|error| error.to_string())?;
            Ok(Some(read.checkpoints.initial))
        }
        StageKind::Evaluate => {
            keys::<EvaluateConfig>(place, &text)?;
            EvaluateConfig::parse(&file, &text).map(|_| None).map_err(|error| error.to_string())
        }
    }
}

/// Mistakes in keys: the text is no file of anybody's, so they are told without its lines.
fn keys<C: DeserializeOwned>(place: &str, text: &str) -> Result<(), String> {
    let read: Result<C, _> = toml::from_str(text);
    read.map(drop).map_err(|error| format!("{place}: {}", settings_error::what_of(text, &error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = r#"
title = "T"
question = "Q?"
[sft]
pins = ["s"]
[sft.set]
preset = "demo"
[sft.set.checkpoints]
initial = true
[dapo]
pins = ["r"]
pages = "p"
[dapo.set]
preset = "demo"
[dapo.set.loss]
clip_low = 0.1
[evaluate]
pins = ["e"]
pages = "q"
[[arms]]
name = "base"
stages = [{ run = "sft" }, { run = "evaluate", from = "first" }]
[[arms]]
name = "dapo"
stages = [{ run = "sft" }, { run = "dapo", pages = "other", set = { loss.clip_high = 0.2 } }, { run = "evaluate" }]
[[arms]]
name = "more"
stages = [{ run = "sft" }, { run = "sft", pins = ["t"], set = { optimizer.lr = 1e-4 } }]
"#;

    fn parse(text: &str) -> Result<Plan, String> {
        Plan::parse(Path::new("x.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_stage_has_the_settings_of_its_kind_and_its_own_over_them() {
        let plan = parse(PLAN).unwrap();
        assert_eq!((plan.seeds, plan.minutes, plan.date.to_string().as_str()), (3, 9.0, "2026-01-01"));
        assert_eq!(plan.metrics, ["pass_at_1", "pass_at_3", "format", "written_tokens"]);
        let dapo = &plan.arms[1].stages[1];
        assert_eq!((plan.pins(dapo), plan.pages(dapo)), (&["r".to_string()][..], Some("other")));
        let settings: Table = toml::from_str("preset = 'demo'\n[loss]\nclip_low = 0.1\nclip_high = 0.2\n").unwrap();
        assert_eq!(plan.settings(dapo, false), settings);
        assert_eq!((plan.arms[0].stages[1].from, plan.arms[1].stages[2].from), (Begin::First, Begin::Last));
        let more = &plan.arms[2].stages[1];
        assert_eq!((plan.pins(more), plan.pages(more)), (&["t".to_string()][..], None));
    }

    #[test]
    fn what_is_quick_is_laid_over_all() {
        let plan = parse(&PLAN.replace("clip_high = 0.2", "clip_high = 0.2, schedule.steps_max = 1000")).unwrap();
        let settings = plan.settings(&plan.arms[1].stages[1], true);
        assert_eq!(settings["loss"]["clip_high"].as_float(), Some(0.2));
        assert!(settings["schedule"]["steps_max"].as_integer().is_some_and(|steps| steps < 10), "{settings:?}");
        for kind in [StageKind::Sft, StageKind::Dapo, StageKind::Evaluate] {
            assert!(!quick_settings(kind).is_empty(), "{kind:?}");
        }
    }

    #[test]
    fn a_mistake_is_one_line_with_file_place_and_key() {
        for (from, to, line) in [
            ("title", "titel", "x.toml:2:1: titel: unknown field `titel`, expected one of `title`, `question`"),
            ("[\"s\"]", "3", "x.toml:5:8: sft.pins: invalid type: integer, expected a sequence"),
            ("run = \"sft\" }, { run = \"evaluate\"", "run = \"rl\" }, { run = \"evaluate\"", "x.toml:22:19: "),
            ("question = \"Q?\"", "question = \"Q?\"\nseeds = 0", "x.toml: seeds: must be from 1 to 100"),
            ("question = \"Q?\"", "question = \"Q?\"\nminutes = nan", "x.toml: minutes: must be above 0"),
            ("\"more\"", "\"dapo\"", "x.toml: arm dapo: name: must be of one arm alone"),
            ("\"more\"", "\"a/b\"", "x.toml: arms.name: must be small letters, digits, - and ."),
            (
                "clip_high",
                "clip_hig",
                "x.toml: arm dapo, stage 2 (dapo): loss.clip_hig: unknown field `clip_hig`, expected one of",
            ),
            (
                "clip_high = 0.2",
                "clip_high = 0",
                "x.toml: arm dapo, stage 2 (dapo): loss.clip_high: must be above 0 and at most 100",
            ),
            ("optimizer.lr = 1e-4", "seed = 4", "x.toml: arm more, stage 2 (sft): seed: is the experiment's to choose"),
            (
                "initial = true",
                "initial = false",
                "x.toml: arm base, stage 2 (evaluate): from: \"first\" needs a training",
            ),
            (
                "pages = \"q\"\n",
                "",
                "x.toml: arm base, stage 2 (evaluate): pages: must be a pin of pages in dapo and evaluate",
            ),
            (
                "pins = [\"t\"]",
                "pins = [\"../t\"]",
                "x.toml: arm more, stage 2 (sft): pins, pages: must be names of folders",
            ),
            ("pins = [\"t\"]", "pins = []", "x.toml: arm more, stage 2 (sft): pins: name one"),
            (
                "pins = [\"t\"]",
                "pages = \"t\"",
                "x.toml: arm more, stage 2 (sft): pages: must be a pin of pages in dapo",
            ),
            (
                "[{ run = \"sft\" }, { run = \"evaluate\", from = \"first\" }]",
                "[{ run = \"evaluate\" }]",
                "x.toml: arm base, stage 1 (evaluate): begins with a checkpoint",
            ),
        ] {
            assert!(PLAN.contains(from), "{from}");
            let error = parse(&PLAN.replace(from, to)).unwrap_err();
            assert!(error.starts_with(line) && !error.contains('\n'), "{error}");
        }
        assert!(parse("title = 'T").unwrap_err().starts_with("x.toml:1:"));
    }

    #[test]
    fn every_experiment_of_the_project_is_one() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let plans: Vec<Plan> = files
            .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
            .map(|path| Plan::read(&path).unwrap_or_else(|error| panic!("{error}")))
            .collect();
        assert!(plans.len() >= 7, "{}", plans.len());
        for plan in plans {
            assert!(plan.question.ends_with('?') && plan.minutes <= 9.0, "{}", plan.title);
        }
    }
}
