//! How a trainer is called, and what it answers with: what the native engine and any other one keep to.
//!
//! A trainer is a process. Its arguments are those of [`Job`]; it
//!
//! - reads pins by their manifests, and no table;
//! - writes [events](crate::events) on standard output, one JSON line each, and nothing else there;
//! - tells people of its progress on standard error; its last lines there are the error, if it fails;
//! - writes checkpoints, artifacts and `events.ndjson` into the folder it is given, and nothing elsewhere;
//! - ends with exit code 0 when it is done, 130 when it was interrupted and can go on, anything else when it failed;
//! - on SIGINT or SIGTERM ends soon, with a checkpoint if it can;
//! - called with `--resume`, goes on from its last checkpoint and first tells all its events again.
//!
//! One that learns from what it tries ([`DapoJob`]) is given a pin of questions, one of pages to make a closed web of, and
//! the checkpoint to begin with; it tells trajectories, judgments and rewards besides.
//!
//! One that knows which of its checkpoints is best names it at its end by the metric [`BEST_STEP`].

use std::ffi::OsString;
use std::path::PathBuf;

use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};

use crate::events::RunIdentity;

/// Exit code of a trainer that was interrupted and can go on.
pub const INTERRUPTED: i32 = 130;

/// Metric that a trainer ends with: its value is the step of the checkpoint to use.
pub const BEST_STEP: &str = "best_step";

/// File in the folder of an evaluation: what each question came to, a JSON array.
pub const QUESTIONS_FILE: &str = "questions.json";

/// A run of a trainer: the arguments after its kind, such as `sft`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct Job {
    /// Id of the run
    #[arg(long, value_name = "ID")]
    pub run: String,
    /// When the run was first started, RFC 3339: part of the ids of its events
    #[arg(long, value_name = "TIME")]
    pub started: DateTime<Utc>,
    /// Manifest of a pin of trajectories, or its folder; may be given more than once
    #[arg(long = "pin", value_name = "MANIFEST")]
    pub pins: Vec<PathBuf>,
    /// The configuration
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Folder of the run: checkpoints, artifacts, events.ndjson
    #[arg(long, value_name = "FOLDER")]
    pub out: PathBuf,
    /// Go on from the last checkpoint in the folder
    #[arg(long)]
    pub resume: bool,
}

impl Job {
    /// The arguments that this is read from.
    pub fn arguments(&self) -> Vec<OsString> {
        let started = self.started.to_rfc3339_opts(SecondsFormat::Micros, true);
        let mut arguments: Vec<OsString> = vec!["--run".into(), (&self.run).into(), "--started".into(), started.into()];
        for pin in &self.pins {
            arguments.extend(["--pin".into(), pin.into()]);
        }
        arguments.extend(["--config".into(), (&self.config).into(), "--out".into(), (&self.out).into()]);
        if self.resume {
            arguments.push("--resume".into());
        }
        arguments
    }

    /// The run as its events name it.
    pub fn identity(&self, pin_id: Option<String>) -> RunIdentity {
        RunIdentity { id: self.run.clone(), started: self.started, pin_id }
    }
}

/// A run that learns from what it tries: the arguments after `dapo`. Its pins are of questions.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct DapoJob {
    /// What every run has.
    #[command(flatten)]
    pub job: Job,
    /// Manifest of the pin of pages that the closed web is made of, or its folder
    #[arg(long, value_name = "MANIFEST")]
    pub pages: Option<PathBuf>,
    /// Folder of the checkpoint to begin with
    #[arg(long, value_name = "FOLDER")]
    pub init: Option<PathBuf>,
    /// Learn from recorded episodes and sample none: events.ndjson of a run, or the manifest of a pin of trajectories
    /// with their rewards
    #[arg(long, value_name = "FILE")]
    pub replay: Option<PathBuf>,
    /// The date that the agent is told, such as 2026-01-02 [default: that of --started]
    #[arg(long, value_name = "DATE")]
    pub date: Option<NaiveDate>,
}

impl DapoJob {
    /// The arguments that this is read from.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments = self.job.arguments();
        for (name, path) in [("--pages", &self.pages), ("--init", &self.init), ("--replay", &self.replay)] {
            if let Some(path) = path {
                arguments.extend([name.into(), path.into()]);
            }
        }
        if let Some(date) = self.date {
            arguments.extend(["--date".into(), date.to_string().into()]);
        }
        arguments
    }

    /// The date that the agent is told. A run that makes another one again is given the other's: prompts hold it.
    pub fn date(&self) -> NaiveDate {
        self.date.unwrap_or_else(|| self.job.started.date_naive())
    }
}

/// An evaluation: the arguments after `evaluate`. Its pins are of questions. It tells trajectories, judgments, rewards and
/// metrics, and keeps [what each question came to](crate::score::QuestionScore) in [`QUESTIONS_FILE`].
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct EvaluateJob {
    /// What every run has.
    #[command(flatten)]
    pub job: Job,
    /// Manifest of the pin of pages that the closed web is made of, or its folder
    #[arg(long, value_name = "MANIFEST")]
    pub pages: PathBuf,
    /// Folder of the checkpoint to evaluate
    #[arg(long, value_name = "FOLDER")]
    pub init: PathBuf,
    /// The date that the agent is told, such as 2026-01-02 [default: that of --started]
    #[arg(long, value_name = "DATE")]
    pub date: Option<NaiveDate>,
}

impl EvaluateJob {
    /// The arguments that this is read from.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments = self.job.arguments();
        arguments.extend(["--pages".into(), (&self.pages).into(), "--init".into(), (&self.init).into()]);
        if let Some(date) = self.date {
            arguments.extend(["--date".into(), date.to_string().into()]);
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        job: Job,
    }

    #[derive(Debug, Parser)]
    struct DapoCommand {
        #[command(flatten)]
        job: DapoJob,
    }

    #[derive(Debug, Parser)]
    struct EvaluateCommand {
        #[command(flatten)]
        job: EvaluateJob,
    }

    #[test]
    fn arguments_of_an_evaluation_are_read_as_they_were_meant() {
        for date in [None, NaiveDate::from_ymd_opt(2020, 2, 29)] {
            let job = Job {
                run: "r1".to_string(),
                started: DateTime::from_timestamp_micros(1_700_000_000_000_001).unwrap(),
                pins: vec!["questions".into()],
                config: "evaluate.toml".into(),
                out: "runs/r1".into(),
                resume: true,
            };
            let job = EvaluateJob { job, pages: "p q".into(), init: "c".into(), date };
            let arguments = [OsString::from("trainer")].into_iter().chain(job.arguments());
            assert_eq!(EvaluateCommand::try_parse_from(arguments).unwrap().job, job);
        }
    }

    #[test]
    fn arguments_of_a_run_that_tries_are_read_as_they_were_meant() {
        let job = Job {
            run: "r1".to_string(),
            started: DateTime::from_timestamp_micros(1_700_000_000_000_001).unwrap(),
            pins: Vec::new(),
            config: "dapo.toml".into(),
            out: "runs/r1".into(),
            resume: false,
        };
        let earlier = NaiveDate::from_ymd_opt(2020, 2, 29);
        for (pages, init, replay, date) in
            [(Some("p q".into()), Some("c".into()), None, None), (None, None, Some("events.ndjson".into()), earlier)]
        {
            let job = DapoJob { job: job.clone(), pages, init, replay, date };
            let arguments = [OsString::from("trainer")].into_iter().chain(job.arguments());
            assert_eq!(DapoCommand::try_parse_from(arguments).unwrap().job, job);
            let told = job.date().to_string();
            assert_eq!(told, if date.is_some() { "2020-02-29" } else { "2023-11-14" });
        }
    }

    #[test]
    fn arguments_are_read_as_they_were_meant() {
        for resume in [false, true] {
            let job = Job {
                run: "r1".to_string(),
                started: DateTime::from_timestamp_micros(1_700_000_000_000_001).unwrap(),
                pins: vec!["a/manifest.json".into(), "b c".into()],
                config: "sft.toml".into(),
                out: "runs/r1".into(),
                resume,
            };
            let arguments = [OsString::from("trainer")].into_iter().chain(job.arguments());
            assert_eq!(Command::try_parse_from(arguments).unwrap().job, job);
        }
    }
}
