//! What an experiment came to: `results.json` with every figure, `results.md` for people, `curves.csv` to plot.
//!
//! The table has means over seeds, and beside them the lowest and the highest seed. That is a spread and no interval of
//! confidence: of three seeds there is none worth the name. `results.json` has what each question came to, of which
//! paired intervals over questions can be made, as `make demo-report` does.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::plan::{Begin, StageKind};
use crate::score::QuestionScore;

/// How a stage or an arm ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// All of it was done.
    Done,
    /// It, or what it begins with, failed.
    Failed,
    /// It was stopped, or never begun, since time was up or it was interrupted. It can go on.
    Stopped,
}

/// What a stage came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageResult {
    /// Its name, by what it is of; its folder is `stages/ID`.
    pub id: String,
    /// What was run.
    pub run: StageKind,
    /// How it ended.
    pub state: State,
    /// Why it failed.
    pub error: Option<String>,
    /// Time that its processes took.
    pub seconds: f64,
    /// Its configuration, TOML.
    pub config: String,
    /// Digests of its pins, pages last.
    pub pins: Vec<String>,
    /// Metrics: steps and values.
    pub curves: BTreeMap<String, Vec<(u64, f64)>>,
    /// Folders of checkpoints in that of the stage, by step.
    pub checkpoints: BTreeMap<u64, PathBuf>,
    /// What each question came to, of an evaluation.
    pub questions: Vec<QuestionScore>,
}

impl StageResult {
    /// The last step that it told of.
    fn step(&self) -> Option<u64> {
        self.curves.values().filter_map(|curve| curve.last()).map(|(step, _)| *step).max()
    }

    /// A checkpoint that it left.
    pub(super) fn checkpoint(&self, from: Begin) -> Option<&PathBuf> {
        let mut folders = self.checkpoints.values();
        match from {
            Begin::First => folders.next(),
            Begin::Last => folders.next_back(),
        }
    }
}

/// What an arm came to with a seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArmResult {
    /// The arm's name.
    pub arm: String,
    /// The seed.
    pub seed: u64,
    /// How it ended.
    pub state: State,
    /// Where and why it is not done.
    pub reason: Option<String>,
    /// Time that its stages took, also those that it shares.
    pub seconds: f64,
    /// Its stages, as far as they were begun, by their names.
    pub stages: Vec<String>,
    /// Each metric as the last stage that told it told it last.
    pub metrics: BTreeMap<String, f64>,
}

impl ArmResult {
    /// What the stages of an arm and seed came to; None: one that was not begun.
    pub(super) fn of(arm: &str, seed: u64, kinds: &[StageKind], stages: &[Option<&StageResult>]) -> ArmResult {
        let begun = || stages.iter().flatten();
        let open = stages.iter().position(|stage| stage.is_none_or(|stage| stage.state != State::Done));
        let (state, reason) = match open {
            None => (State::Done, None),
            Some(at) => {
                let name = kinds.get(at).map_or("", |kind| kind.name());
                let place = format!("stage {} ({name})", at + 1);
                match stages.get(at).copied().flatten() {
                    None => (State::Stopped, Some(format!("not begun: {place}"))),
                    Some(stage) if stage.state == State::Failed => {
                        let error = stage.error.clone().unwrap_or_default();
                        (State::Failed, Some(format!("failed in {place}: {error}")))
                    }
                    Some(stage) => {
                        let step = stage.step().map_or(String::new(), |step| format!(", behind step {step}"));
                        (State::Stopped, Some(format!("stopped in {place}{step}")))
                    }
                }
            }
        };
        let told = begun().flat_map(|stage| &stage.curves);
        let metrics = told.filter_map(|(name, curve)| Some((name.clone(), curve.last()?.1))).collect();
        ArmResult {
            arm: arm.to_string(),
            seed,
            state,
            reason,
            seconds: begun().map(|stage| stage.seconds).sum(),
            stages: begun().map(|stage| stage.id.clone()).collect(),
            metrics,
        }
    }
}

/// The program that ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its version.
    pub version: String,
    /// That of the libtorch that it loaded; empty where that is not known.
    pub libtorch: String,
    /// SHA-256 of its file; empty where it could not be read.
    pub sha256: String,
}

/// What an experiment came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// The name of its file, without what follows the dot.
    pub name: String,
    /// What it is called.
    pub title: String,
    /// What it answers.
    pub question: String,
    /// Whether it was only tried whether all of it runs.
    pub quick: bool,
    /// The preset that stood in for those of the file.
    #[serde(default)]
    pub preset: Option<String>,
    /// Metrics of the table.
    pub metrics: Vec<String>,
    /// Metrics to plot.
    pub curves: Vec<String>,
    /// Minutes after which it is stopped.
    pub minutes: f64,
    /// Seconds that it took this time.
    pub seconds: f64,
    /// What ran.
    pub program: Program,
    /// What it ran on.
    pub device: String,
    /// Every arm with every seed.
    pub arms: Vec<ArmResult>,
    /// Every stage that was begun, once.
    pub stages: Vec<StageResult>,
}

impl Results {
    /// Whether every arm is done with every seed.
    pub fn is_complete(&self) -> bool {
        self.arms.iter().all(|arm| arm.state == State::Done)
    }

    /// The tables, and what is to be known about them: Markdown.
    pub fn markdown(&self) -> String {
        let Results { title, question, device, seconds, minutes, .. } = self;
        let Program { version, libtorch, sha256 } = &self.program;
        let quick = "Tried with `--quick`: it says whether all of it runs, and nothing about the question.\n\n";
        let quick = if self.quick { quick.to_string() } else { String::new() };
        let preset =
            self.preset.as_ref().map(|name| format!("Trained by the preset `{name}` in place of the file's.\n\n"));
        let quick = quick + &preset.unwrap_or_default();
        format!(
            "# {title}\n\n{question}\n\n{quick}{}\nMeans over the seeds that are done, in brackets the lowest and the highest of \
             them: a spread, and no interval of confidence.\n{}{}\n## How\n\nwebdancer-train {version}, SHA-256 {sha256}; libtorch \
             {libtorch}\n\non {device}\n\n{seconds:.0} s of {minutes} minutes at most\n",
            self.scores(),
            self.differences(),
            self.incomplete(),
        )
    }

    fn scores(&self) -> String {
        let row = |name: &str| {
            let (done, all) = (self.done(name).count(), self.arms.iter().filter(|arm| arm.arm == name).count());
            let seeds = if done == all { done.to_string() } else { format!("{done} of {all}") };
            let of_metric =
                |metric: &String| cell(self.done(name).filter_map(|arm| arm.metrics.get(metric).copied()), false);
            let seconds = cell(self.done(name).map(|arm| arm.seconds), false);
            let first = [name.to_string(), seeds].into_iter();
            first.chain(self.metrics.iter().map(of_metric)).chain([seconds]).collect::<Vec<_>>()
        };
        let head: Vec<&str> = self.head().chain(["seconds"]).collect();
        table(&head, self.names().into_iter().map(row))
    }

    fn differences(&self) -> String {
        let names = self.names();
        let Some((first, others)) = names.split_first().filter(|(_, others)| !others.is_empty()) else {
            return String::new();
        };
        let row = |name: &&str| {
            let done = self.done(name);
            let pairs: Vec<_> = done.filter_map(|arm| Some((arm, self.with(first, arm.seed)?))).collect();
            let of_metric = |metric: &String| {
                let values = pairs.iter().filter_map(|(one, other)| {
                    let (one, other) = (one.metrics.get(metric)?, other.metrics.get(metric)?);
                    Some(one - other)
                });
                cell(values, true)
            };
            let first = [(*name).to_string(), pairs.len().to_string()].into_iter();
            first.chain(self.metrics.iter().map(of_metric)).collect::<Vec<_>>()
        };
        let head: Vec<&str> = self.head().collect();
        format!("\n## Difference to {first}, seed by seed\n\n{}", table(&head, others.iter().map(row)))
    }

    fn incomplete(&self) -> String {
        let line = |arm: &ArmResult| {
            format!("- {}, seed {}: {}\n", arm.arm, arm.seed, arm.reason.as_deref().unwrap_or_default())
        };
        let lines: String = self.arms.iter().filter(|arm| arm.state != State::Done).map(line).collect();
        if lines.is_empty() { lines } else { format!("\n## Incomplete\n\n{lines}") }
    }

    fn head(&self) -> impl Iterator<Item = &str> {
        ["arm", "seeds"].into_iter().chain(self.metrics.iter().map(String::as_str))
    }

    /// Every metric of every stage, by arm and seed: CSV.
    pub fn csv(&self) -> String {
        let stages: BTreeMap<&str, &StageResult> = self.stages.iter().map(|stage| (stage.id.as_str(), stage)).collect();
        let mut text = "arm,seed,stage,run,metric,step,value\n".to_string();
        for ArmResult { arm, seed, stages: own, .. } in &self.arms {
            let own = own.iter().enumerate().filter_map(|(at, id)| Some((at + 1, stages.get(id.as_str())?)));
            for (number, stage) in own {
                for (metric, curve) in &stage.curves {
                    for (step, value) in curve {
                        let _ = writeln!(text, "{arm},{seed},{number},{},{metric},{step},{value}", stage.run.name());
                    }
                }
            }
        }
        text
    }

    /// Names of the arms, in their order.
    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for arm in &self.arms {
            if !names.contains(&arm.arm.as_str()) {
                names.push(&arm.arm);
            }
        }
        names
    }

    fn done<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a ArmResult> {
        self.arms.iter().filter(move |arm| arm.arm == name && arm.state == State::Done)
    }

    fn with<'a>(&'a self, name: &'a str, seed: u64) -> Option<&'a ArmResult> {
        self.done(name).find(|arm| arm.seed == seed)
    }
}

/// A Markdown table; columns after the first are right-aligned.
fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let line = |cells: &[&str]| format!("| {} |\n", cells.join(" | "));
    let rule: Vec<&str> = (0..head.len()).map(|at| if at == 0 { "---" } else { "---:" }).collect();
    let rows = rows.map(|row| line(&row.iter().map(String::as_str).collect::<Vec<_>>()));
    [line(head), line(&rule)].into_iter().chain(rows).collect()
}

/// The mean of values, their lowest and highest where there are two or more, a dash where there is none.
fn cell(values: impl Iterator<Item = f64>, signed: bool) -> String {
    let values: Vec<f64> = values.collect();
    let shown = |value: f64| {
        let digits = if value.abs() >= 100.0 {
            0
        } else if value.abs() >= 10.0 {
            1
        } else {
            3
        };
        if signed { format!("{value:+.digits$}") } else { format!("{value:.digits$}") }
    };
    let Some(lowest) = values.iter().copied().reduce(f64::min) else { return "–".to_string() };
    let highest = values.iter().copied().fold(lowest, f64::max);
    let mean = shown(values.iter().sum::<f64>() / values.len() as f64);
    if values.len() == 1 { mean } else { format!("{mean} [{}, {}]", shown(lowest), shown(highest)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESULTS: &str = include_str!("../../tests/fixtures/experiment-results.json");

    #[test]
    fn the_table_has_means_spreads_differences_and_what_is_incomplete() {
        let results: Results = serde_json::from_str(RESULTS).unwrap();
        assert!(!results.is_complete());
        let expected = "\
# Is it so?

Does b do more than a?

| arm | seeds | pass_at_1 | written_tokens | seconds |
| --- | ---: | ---: | ---: | ---: |
| a | 2 | 0.250 [0.200, 0.300] | 95.5 [90.0, 101] | 20.0 [20.0, 20.0] |
| b | 1 of 2 | 0.500 | – | 20.0 |
| c | 0 of 1 | – | – | – |

Means over the seeds that are done, in brackets the lowest and the highest of them: a spread, and no interval of confidence.

## Difference to a, seed by seed

| arm | seeds | pass_at_1 | written_tokens |
| --- | ---: | ---: | ---: |
| b | 1 | +0.300 | – |
| c | 0 | – | – |

## Incomplete

- c, seed 1: failed in stage 1 (sft): the loss is NaN
- b, seed 2: stopped in stage 2 (dapo), behind step 7

## How

webdancer-train 0.1.0, SHA-256 abc; libtorch 2.11.0

on a processor, 2 threads

61 s of 9 minutes at most
";
        assert_eq!(results.markdown(), expected);
    }

    #[test]
    fn curves_are_by_arm_and_seed_also_of_stages_that_are_shared() {
        let results: Results = serde_json::from_str(RESULTS).unwrap();
        let expected = "\
arm,seed,stage,run,metric,step,value
a,1,1,sft,loss,1,2.5
a,1,1,sft,loss,2,1.5
b,1,1,sft,loss,1,2.5
b,1,1,sft,loss,2,1.5
b,1,2,dapo,accuracy,1,0.5
";
        assert_eq!(results.csv(), expected);
    }

    #[test]
    fn an_arm_ends_as_its_first_stage_that_is_not_done() {
        let stage = |state, curves: &[(&str, u64, f64)]| StageResult {
            id: "i".to_string(),
            run: StageKind::Sft,
            state,
            error: (state == State::Failed).then(|| "no memory".to_string()),
            seconds: 2.0,
            config: String::new(),
            pins: Vec::new(),
            curves: curves.iter().map(|(name, step, value)| (name.to_string(), vec![(*step, *value)])).collect(),
            checkpoints: BTreeMap::new(),
            questions: Vec::new(),
        };
        let kinds = [StageKind::Sft, StageKind::Dapo];
        let first = stage(State::Done, &[("loss", 3, 1.0), ("format", 3, 0.5)]);
        let second = stage(State::Done, &[("format", 9, 0.75)]);
        let done = ArmResult::of("a", 1, &kinds, &[Some(&first), Some(&second)]);
        assert_eq!((done.state, done.reason, done.seconds), (State::Done, None, 4.0));
        let metrics = [("format".to_string(), 0.75), ("loss".to_string(), 1.0)];
        assert_eq!(done.metrics, BTreeMap::from(metrics));
        for (second, state, reason) in [
            (None, State::Stopped, "not begun: stage 2 (dapo)"),
            (Some(stage(State::Stopped, &[])), State::Stopped, "stopped in stage 2 (dapo)"),
            (
                Some(stage(State::Stopped, &[("loss", 4, 1.0)])),
                State::Stopped,
                "stopped in stage 2 (dapo), behind step 4",
            ),
            (Some(stage(State::Failed, &[])), State::Failed, "failed in stage 2 (dapo): no memory"),
        ] {
            let found = ArmResult::of("a", 1, &kinds, &[Some(&first), second.as_ref()]);
            assert_eq!((found.state, found.reason.as_deref()), (state, Some(reason)));
        }
    }
}
