//! From a plan to stages to be run: each once, whoever asks for it.
//!
//! A stage is known by what it is of: its kind, settings, seed, pins, and the stage whose checkpoint it begins with. So arms
//! that begin alike have stages in common, and a folder that holds a stage holds what any experiment would make of it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::json;
use toml::{Table, Value};
use webdancer_schemas::digest::sha256_hex;

use super::ExperimentArgs;
use super::plan::{Begin, ExperimentError, Plan, StageKind, StagePlan};
use crate::config::{DAPO_PRESETS, PRESETS};
use crate::data::Pin;

/// Hex digits of a stage's name.
const ID_DIGITS: usize = 16;

/// A stage.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// Its name, by what it is of.
    pub id: String,
    /// What is run.
    pub run: StageKind,
    /// Its configuration, with its seed, and without the checkpoint that it begins with.
    pub settings: Table,
    /// Manifests of its pins.
    pub pins: Vec<PathBuf>,
    /// Digests of its pins, pages last.
    pub pin_ids: Vec<String>,
    /// The manifest of its pages.
    pub pages: Option<PathBuf>,
    /// The training whose checkpoint it begins with, by its place in [`Work::stages`], which is before its own.
    pub after: Option<usize>,
    /// Which checkpoint of it.
    pub from: Begin,
}

/// The stages of an arm and a seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The arm's name.
    pub arm: String,
    /// The seed.
    pub seed: u64,
    /// In their order, by their places in [`Work::stages`].
    pub stages: Vec<usize>,
}

/// What there is to do.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Work {
    /// Each once. Those of one seed before those of the next: where time runs out, whole seeds are there.
    pub stages: Vec<Stage>,
    /// Every arm with every seed.
    pub chains: Vec<Chain>,
}

impl Work {
    /// What a plan comes to with these arguments.
    ///
    /// # Errors
    /// An arm is asked for that there is not, or a pin is not what it should be.
    pub fn of(plan: &Plan, args: &ExperimentArgs) -> Result<Work, ExperimentError> {
        let known = |name: &String| plan.arms.iter().any(|arm| arm.name == *name);
        if let Some(unknown) = args.only.iter().find(|name| !known(name)) {
            let names: Vec<&str> = plan.arms.iter().map(|arm| arm.name.as_str()).collect();
            return Err(ExperimentError::new(format!("--only {unknown}: the arms are {}", names.join(", "))));
        }
        if let Some(name) = args.preset.as_ref().filter(|name| !presets().contains(&name.as_str())) {
            let known = presets().join(" and ");
            return Err(ExperimentError::new(format!("--preset {name}: those of both SFT and DAPO are {known}")));
        }
        let seeds = args.seeds.unwrap_or(if args.quick { 1 } else { plan.seeds });
        let mut builder = Builder { plan, args, pins: HashMap::new(), places: HashMap::new(), work: Work::default() };
        for seed in 1..=seeds {
            for arm in plan.arms.iter().filter(|arm| args.only.is_empty() || args.only.contains(&arm.name)) {
                let (mut stages, mut after) = (Vec::new(), None);
                for stage in &arm.stages {
                    let place = builder.place(stage, seed, after)?;
                    stages.push(place);
                    after = if stage.run.trains() { Some(place) } else { after };
                }
                builder.work.chains.push(Chain { arm: arm.name.clone(), seed, stages });
            }
        }
        Ok(builder.work)
    }
}

struct Builder<'a> {
    plan: &'a Plan,
    args: &'a ExperimentArgs,
    /// Digests by name.
    pins: HashMap<String, String>,
    /// Stages by id.
    places: HashMap<String, usize>,
    work: Work,
}

impl Builder<'_> {
    /// The place of a stage, which is added where it is not there.
    fn place(&mut self, stage: &StagePlan, seed: u64, after: Option<usize>) -> Result<usize, ExperimentError> {
        let mut settings = self.plan.settings(stage, self.args.quick);
        let number = i64::try_from(seed).map_err(|_| ExperimentError::new(format!("seed {seed}: is too large")))?;
        settings.insert("seed".to_string(), Value::Integer(number));
        // An evaluation is of the size of what it evaluates.
        if let Some(preset) = self.args.preset.as_ref().filter(|_| stage.run.trains()) {
            settings.insert("preset".to_string(), Value::String(preset.clone()));
        }
        let (names, pages) = (self.plan.pins(stage).to_vec(), self.plan.pages(stage).map(str::to_string));
        let pin_ids = names.iter().chain(&pages).map(|name| self.pin(name)).collect::<Result<Vec<_>, _>>()?;
        let before = after.and_then(|place| self.work.stages.get(place)).map(|stage| stage.id.clone());
        // The program is part of it: another one may learn something else from the same.
        let of = json!([
            env!("CARGO_PKG_VERSION"),
            stage.run,
            settings,
            pin_ids,
            before,
            stage.from,
            self.plan.date.to_string()
        ]);
        let digest = sha256_hex(of.to_string().as_bytes());
        let id = digest.get(..ID_DIGITS).unwrap_or(&digest).to_string();
        if let Some(place) = self.places.get(&id) {
            return Ok(*place);
        }
        let manifest = |name: &String| self.args.pins.join(name);
        let (pins, pages) = (names.iter().map(manifest).collect(), pages.as_ref().map(manifest));
        let place = self.work.stages.len();
        self.places.insert(id.clone(), place);
        self.work.stages.push(Stage { id, run: stage.run, settings, pins, pin_ids, pages, after, from: stage.from });
        Ok(place)
    }

    fn pin(&mut self, name: &str) -> Result<String, ExperimentError> {
        if let Some(digest) = self.pins.get(name) {
            return Ok(digest.clone());
        }
        let digest = Pin::open(&self.args.pins.join(name))?.digest().to_string();
        self.pins.insert(name.to_string(), digest.clone());
        Ok(digest)
    }
}

/// The presets that every kind of training has.
fn presets() -> Vec<&'static str> {
    let of_dapo = |name: &&str| DAPO_PRESETS.iter().any(|(known, _)| known == name);
    PRESETS.iter().map(|(name, _)| *name).filter(of_dapo).collect()
}

/// The folder of a stage.
pub(super) fn folder(out: &Path, id: &str) -> PathBuf {
    out.join("stages").join(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = r#"
title = "T"
question = "Q?"
seeds = 2
sft = { pins = ["s"], set = { preset = "demo", checkpoints.initial = true } }
dapo = { pins = ["r"], pages = "p", set = { preset = "demo" } }
evaluate = { pins = ["r"], pages = "p" }
arms = [
    { name = "sft", stages = [{ run = "sft" }, { run = "evaluate" }] },
    { name = "base", stages = [{ run = "sft" }, { run = "evaluate", from = "first" }] },
    { name = "dapo", stages = [{ run = "sft" }, { run = "evaluate" }, { run = "dapo" }, { run = "evaluate" }] },
    { name = "short", stages = [{ run = "sft", set = { schedule.steps_max = 3 } }, { run = "dapo" }] },
]
"#;

    fn pins() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in ["s", "r", "p"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            let manifest =
                json!({"format": 1, "name": name, "digest": format!("digest of {name}"), "rows": 1, "files": []});
            std::fs::write(folder.path().join(name).join("manifest.json"), manifest.to_string()).unwrap();
        }
        folder
    }

    fn args(pins: &Path) -> ExperimentArgs {
        ExperimentArgs {
            file: "x.toml".into(),
            pins: pins.to_path_buf(),
            out: "out".into(),
            seeds: None,
            jobs: None,
            minutes: None,
            only: Vec::new(),
            preset: None,
            json: false,
            quick: false,
        }
    }

    fn work(args: &ExperimentArgs) -> Result<Work, String> {
        let plan = Plan::parse(Path::new("x.toml"), PLAN).unwrap();
        Work::of(&plan, args).map_err(|error| error.to_string())
    }

    #[test]
    fn arms_that_begin_alike_share_their_stages_and_seeds_do_not() {
        let pins = pins();
        let work = work(&args(pins.path())).unwrap();
        let of_seed = |seed: u64| -> Vec<(&str, Vec<usize>)> {
            let chains = work.chains.iter().filter(|chain| chain.seed == seed);
            chains.map(|chain| (chain.arm.as_str(), chain.stages.clone())).collect()
        };
        let expected = [("sft", vec![0, 1]), ("base", vec![0, 2]), ("dapo", vec![0, 1, 3, 4]), ("short", vec![5, 6])];
        assert_eq!(of_seed(1), expected);
        assert_eq!(of_seed(2), expected.map(|(arm, stages)| (arm, stages.iter().map(|place| place + 7).collect())));
        let after: Vec<Option<usize>> = work.stages.iter().take(7).map(|stage| stage.after).collect();
        assert_eq!(after, [None, Some(0), Some(0), Some(0), Some(3), None, Some(5)]);
        assert_eq!(work.stages[2].from, Begin::First);
        let evaluated = &work.stages[8];
        assert_eq!(evaluated.settings["seed"].as_integer(), Some(2));
        assert_eq!(evaluated.pin_ids, ["digest of r", "digest of p"]);
        assert_eq!(evaluated.pages, Some(pins.path().join("p")));
    }

    #[test]
    fn a_stage_is_named_by_what_it_is_of_and_what_is_quick_is_another() {
        let pins = pins();
        let first = work(&args(pins.path())).unwrap();
        let only =
            work(&ExperimentArgs { only: vec!["short".to_string()], seeds: Some(1), ..args(pins.path()) }).unwrap();
        let ids = |work: &Work| work.stages.iter().map(|stage| stage.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&only), ids(&first)[5..7]);
        let quick = work(&ExperimentArgs { quick: true, ..args(pins.path()) }).unwrap();
        assert_eq!(quick.chains.iter().map(|chain| chain.seed).max(), Some(1));
        assert!(ids(&quick).iter().all(|id| !ids(&first).contains(id)));
        // Other rows under the same name.
        let manifest = json!({"format": 1, "name": "s", "digest": "another", "rows": 1, "files": []});
        std::fs::write(pins.path().join("s/manifest.json"), manifest.to_string()).unwrap();
        let changed = work(&args(pins.path())).unwrap();
        assert!(ids(&changed).iter().all(|id| !ids(&first).contains(id)), "what follows it is changed, too");
    }

    #[test]
    fn a_preset_stands_in_for_that_of_every_training_and_for_nothing_else() {
        let pins = pins();
        let with = |preset: &str| work(&ExperimentArgs { preset: Some(preset.to_string()), ..args(pins.path()) });
        let stages = with("30m").unwrap().stages;
        let presets: Vec<_> = stages.iter().take(7).map(|stage| stage.settings.get("preset")?.as_str()).collect();
        assert_eq!(presets, [Some("30m"), None, None, Some("30m"), None, Some("30m"), Some("30m")]);
        assert_eq!(stages[5].settings["schedule"]["steps_max"].as_integer(), Some(3), "what an arm sets stays");
        assert_eq!(with("7b").unwrap_err(), "--preset 7b: those of both SFT and DAPO are demo and 30m");
    }

    #[test]
    fn an_arm_or_a_pin_that_is_not_there_is_one_line() {
        let pins = pins();
        let unknown = ExperimentArgs { only: vec!["x".to_string()], ..args(pins.path()) };
        assert_eq!(work(&unknown).unwrap_err(), "--only x: the arms are sft, base, dapo, short");
        std::fs::remove_file(pins.path().join("r/manifest.json")).unwrap();
        std::fs::remove_dir(pins.path().join("r")).unwrap();
        let place = pins.path().join("r").display().to_string();
        assert_eq!(work(&args(pins.path())).unwrap_err(), format!("{place}: No such file or directory (os error 2)"));
    }
}
