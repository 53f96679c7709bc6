//! From pins to policies: fine-tuning, reinforcement, and fine-tuning that goes on in its place.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Map, Value, json};
use webdancer_schemas::rows::Artifact;

use super::{Demo, POOLS, RL_PAGES, scores};
use crate::args::{DapoArgs, TrainArgs};
use crate::columns::query;
use crate::commands::train::{self, Asked};
use crate::failure::Failure;

/// Highest learning rate of fine-tuning that goes on, between those that it began and ended with.
const MORE_LR: f64 = 1e-3;

/// The policies to compare.
pub(super) struct Policies {
    /// The weights that training began with.
    pub(super) base: Artifact,
    /// Those that fine-tuning ended with.
    pub(super) sft: Artifact,
    /// These, fine-tuned for as long as reinforcement takes.
    pub(super) sft_more: Artifact,
    /// These, reinforced.
    pub(super) dapo: Artifact,
    /// Run and seconds of each training.
    pub(super) told: Value,
}

/// A training run that has ended.
struct Trained {
    run: String,
    seconds: f64,
    first: Artifact,
    last: Artifact,
}

impl Trained {
    fn told(&self) -> Value {
        json!({"run_id": self.run, "seconds": self.seconds, "checkpoint": self.last.digest})
    }
}

impl Demo<'_> {
    /// Trains, each time by the command that anybody would type.
    pub(super) async fn learn(&self, trainer: &Path) -> Result<Policies, Failure> {
        self.say("Fine-tuning a model of half a million weights, from nothing, on the accepted trajectories");
        let sft = self.fine_tune(trainer).await?;
        let folder = folder_of(&sft.last);
        self.say("Reinforcing it on questions that nobody has answered: DAPO, by trying");
        let dapo = self.reinforce(trainer, &folder).await?;
        self.say("And, to compare with, fine-tuning it for about as long");
        let more = self.fine_tune_more(trainer, &folder).await?;
        let mut told = Map::new();
        for (name, trained) in [("sft", &sft), ("dapo", &dapo), ("sft_more", &more)] {
            self.tell(&format!("{name}: {:.0} s", trained.seconds));
            told.insert(name.to_string(), trained.told());
        }
        Ok(Policies { base: sft.first, sft: sft.last, sft_more: more.last, dapo: dapo.last, told: told.into() })
    }

    async fn fine_tune(&self, trainer: &Path) -> Result<Trained, Failure> {
        let Demo { budget, seed, .. } = self;
        let steps = budget.sft_steps;
        let text = format!("preset = \"demo\"\nseed = {seed}\n{}[schedule]\nsteps_max = {steps}\n", budget.sft);
        let trained = self.train("sft", &text, trainer, None).await?;
        self.check_loss(&trained.run).await?;
        Ok(trained)
    }

    async fn fine_tune_more(&self, trainer: &Path, from: &Path) -> Result<Trained, Failure> {
        // Another order of the same trajectories.
        let (seed, steps) = (self.seed.wrapping_add(1_000), self.budget.more_steps);
        let from = toml::Value::from(from.display().to_string());
        let text = format!(
            "preset = \"demo\"\nseed = {seed}\n[model]\nfolder = {from}\n[optimizer]\nlr = {MORE_LR}\n[schedule]\n\
             warmup_steps = 10\nsteps_max = {steps}\n[checkpoints]\ninitial = false\n"
        );
        self.train("sft-more", &text, trainer, None).await
    }

    async fn reinforce(&self, trainer: &Path, from: &Path) -> Result<Trained, Failure> {
        let text = format!("preset = \"demo\"\nseed = {}\n{}", self.seed, self.budget.dapo);
        let trained = self.train("dapo", &text, trainer, Some(from)).await?;
        if let (Some(before), Some(after)) = self.first_and_last(&trained.run, "accuracy").await? {
            self.tell(&format!("share of correct attempts, first and last round: {before:.3} → {after:.3}"));
        }
        let (_, updates) = self.first_and_last(&trained.run, "updates").await?;
        self.tell(&updated(updates)?);
        Ok(trained)
    }

    /// One run of the trainer, by a configuration that is kept in the demo's folder: fine-tuning, or reinforcement of the
    /// checkpoint in a folder.
    async fn train(&self, name: &str, text: &str, trainer: &Path, init: Option<&Path>) -> Result<Trained, Failure> {
        let config = self.folder.join(format!("{name}.toml"));
        std::fs::write(&config, text).map_err(|e| Failure::failed(format!("writing {}: {e}", config.display())))?;
        let (kind, pin) = if init.is_some() { ("dapo", "rl") } else { ("sft", "sft") };
        let pin = format!("{POOLS}-{pin}");
        let (own, lake) = (super::command_name(), self.folder.join("lake"));
        let mut command =
            format!("{own} --lake {} train {kind} --pin {pin} --config {}", lake.display(), config.display());
        let args = TrainArgs {
            pin: Some(pin),
            config: Some(config),
            trainer: Some(trainer.to_path_buf()),
            ..TrainArgs::default()
        };
        let begun = Instant::now();
        let summary = match init {
            None => {
                self.tell(&command);
                train::train(&self.context, Asked::Sft(&args)).await?
            }
            Some(init) => {
                let (web, init) = (format!("closed:{RL_PAGES}"), init.display().to_string());
                command.push_str(&format!(" --web {web} --init {init}"));
                self.tell(&command);
                let args = DapoArgs { train: args, web: Some(web), init: Some(init), replay: false };
                train::train(&self.context, Asked::Dapo(&args)).await?
            }
        };
        if let Some(error) = summary.error {
            return Err(Failure::failed(format!("training {name}: {error}")));
        }
        let (Some(first), Some(last)) = (summary.checkpoints.first().cloned(), summary.checkpoints.last().cloned())
        else {
            return Err(Failure::failed(format!("training {name} left no checkpoint")));
        };
        Ok(Trained { run: summary.run_id, seconds: begun.elapsed().as_secs_f64(), first, last })
    }

    /// That the loss on questions which were not trained on fell.
    async fn check_loss(&self, run: &str) -> Result<(), Failure> {
        let (before, after) = self.first_and_last(run, "validation_loss").await?;
        let Some((before, after)) = before.zip(after) else {
            return Err(Failure::failed(format!("run {run} told no validation loss")));
        };
        self.tell(&fallen(before, after)?);
        Ok(())
    }

    /// A metric of a run, as it was told first and last.
    async fn first_and_last(&self, run: &str, metric: &str) -> Result<(Option<f64>, Option<f64>), Failure> {
        let sql = format!(
            "SELECT first_value(value ORDER BY step) AS before, last_value(value ORDER BY step) AS after FROM metrics \
             WHERE run_id = '{run}' AND name = '{metric}'"
        );
        let rows = query(&self.context, &sql).await?;
        Ok((scores::number(&rows, "before", 0), scores::number(&rows, "after", 0)))
    }
}

/// A validation loss before and after, nats a token; that it did not fall is a failure of the demo.
fn fallen(before: f64, after: f64) -> Result<String, Failure> {
    if after < before {
        return Ok(format!("validation loss: {before:.3} → {after:.3} nats a token"));
    }
    Err(Failure::failed(format!("the validation loss did not fall: {before:.3} → {after:.3}")))
}

/// The updates of reinforcement; that there was none is a failure of the demo.
fn updated(updates: Option<f64>) -> Result<String, Failure> {
    match updates {
        Some(updates) if updates >= 1.0 => Ok(format!("{updates:.0} updates of reinforcement")),
        _ => Err(Failure::failed("reinforcement came to nothing: no group of attempts could be learnt from")),
    }
}

/// Checkpoints are told by their place.
pub(super) fn folder_of(checkpoint: &Artifact) -> PathBuf {
    PathBuf::from(checkpoint.uri.strip_prefix("file://").unwrap_or(&checkpoint.uri))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reinforcement_without_an_update_fails_the_demo() {
        assert_eq!(updated(Some(40.0)).unwrap(), "40 updates of reinforcement");
        for updates in [None, Some(0.0), Some(f64::NAN)] {
            let failure = updated(updates).unwrap_err();
            assert_eq!(failure.to_string(), "reinforcement came to nothing: no group of attempts could be learnt from");
        }
    }

    #[test]
    fn a_loss_that_does_not_fall_fails_the_demo() {
        assert_eq!(fallen(6.5, 0.5).unwrap(), "validation loss: 6.500 → 0.500 nats a token");
        for (after, told) in [(6.6, "6.600"), (6.5, "6.500"), (f64::NAN, "NaN")] {
            let failure = fallen(6.5, after).unwrap_err();
            assert_eq!(failure.to_string(), format!("the validation loss did not fall: 6.500 → {told}"));
        }
    }
}
