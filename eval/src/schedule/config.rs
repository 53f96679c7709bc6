//! `[[schedule]]` and `[scheduler]` of the settings.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::cron::Times;
use super::slot::Cell;

/// Longest name of a schedule.
const NAME_CHARS_MAX: usize = 60;
/// Cells of a slot at most.
const CELLS_MAX: usize = 100;

/// What is wrong with a schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("schedule {schedule}: {key}: {reason}")]
pub struct ScheduleError {
    /// Its name, or its number where it has none.
    pub schedule: String,
    /// The key at fault.
    pub key: String,
    /// What is wrong and what to do.
    pub reason: String,
}

/// `[[schedule]]`: which policies attempt which benchmarks, and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Schedule {
    /// Its name: letters, digits, `.`, `_` and `-`. Slots are known by it.
    pub name: String,
    /// When: minute, hour, day of the month, month, day of the week; with a second before them where there are six.
    pub cron: String,
    /// The time zone that `cron` is told in, such as `Europe/Berlin`. `UTC` by default.
    pub time_zone: String,
    /// Who acts: `endpoint:NAME` or `scripted`. Each attempts every benchmark.
    pub policies: Vec<String>,
    /// The benchmarks.
    pub benchmarks: Vec<String>,
    /// Attempts at each question. 1 by default.
    pub attempts: u32,
    /// Only so many questions of each benchmark, always the same ones.
    pub limit: Option<u32>,
    /// Where the tools run, as in `eval run`.
    pub web: Option<String>,
    /// The prompt, as in `eval run`.
    pub profile: Option<String>,
    /// Seed of the attempts' seeds. 0 by default.
    pub seed: u32,
    /// Whose verdict counts; by default the benchmark's.
    pub scorer: Option<String>,
    /// Whose verdict is told beside it.
    pub judge: Option<String>,
    /// Attempts under way at a time; by default `sample.concurrency`.
    pub concurrency: Option<usize>,
    /// Of slots that wait, those of a higher priority come first. 0 by default.
    pub priority: i32,
    /// What a slot may spend, all its cells together.
    pub budget: SlotBudget,
    /// What is tried before the rest; by default nothing is.
    pub canary: Option<Canary>,
    /// What becomes of slots whose time passed while no scheduler ran. The latest is run by default.
    pub missed: Missed,
    /// Slots that `missed = "all"` runs at most, the latest ones. 10 by default.
    pub missed_max: u32,
    /// What becomes of a slot while an earlier one is under way. It is skipped by default.
    pub overlap: Overlap,
    /// Slots that `overlap = "queue"` lets wait at most. 10 by default.
    pub queue_max: u32,
    /// How a run that did not end well is repeated.
    pub retry: Retry,
    /// What slots are compared with: a run's id, `slot:TIME` for the runs of that slot, or a name of `[scheduler.baselines]`.
    pub baseline: Option<String>,
}

impl Default for Schedule {
    fn default() -> Schedule {
        Schedule {
            name: String::new(),
            cron: String::new(),
            time_zone: "UTC".to_string(),
            policies: Vec::new(),
            benchmarks: Vec::new(),
            attempts: 1,
            limit: None,
            web: None,
            profile: None,
            seed: 0,
            scorer: None,
            judge: None,
            concurrency: None,
            priority: 0,
            budget: SlotBudget::default(),
            canary: None,
            missed: Missed::Latest,
            missed_max: 10,
            overlap: Overlap::Skip,
            queue_max: 10,
            retry: Retry::default(),
            baseline: None,
        }
    }
}

/// What a slot may spend. What is absent is unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SlotBudget {
    /// Attempts recorded.
    pub attempts: Option<u64>,
    /// Tokens read and written.
    pub tokens: Option<u64>,
    /// Money, in the currency of the endpoints' prices.
    pub cost: Option<f64>,
    /// Seconds from when the slot was first claimed.
    pub time_s: Option<u64>,
}

/// A few questions, one attempt each, before the rest of a benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Canary {
    /// How many questions: always the same ones. 5 by default.
    pub questions: u32,
    /// The share of them that must have a verdict. 0.8 by default.
    pub coverage_min: f64,
    /// The share of them that a failure may leave without one. 0.2 by default.
    pub errors_max: f64,
}

impl Default for Canary {
    fn default() -> Canary {
        Canary { questions: 5, coverage_min: 0.8, errors_max: 0.2 }
    }
}

/// What becomes of slots whose time passed while no scheduler ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// They are skipped.
    Skip,
    /// The latest is run.
    Latest,
    /// Up to [`missed_max`](Schedule::missed_max) are run, one after another.
    All,
}

/// What becomes of a slot while an earlier one is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// It is skipped.
    Skip,
    /// It waits.
    Queue,
}

/// How a run that did not end well is repeated: it goes on with what it lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// Repetitions at most. 3 by default.
    pub max: u32,
    /// Seconds before the first, doubled for each further one. 60 by default.
    pub delay_s: u64,
    /// Seconds between two at most. 3,600 by default.
    pub delay_s_max: u64,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry { max: 3, delay_s: 60, delay_s_max: 3_600 }
    }
}

/// `[scheduler]`: how schedules are run in this process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SchedulerConfig {
    /// Slots under way at a time in this process. 1 by default.
    pub slots_max: usize,
    /// For how long a claim holds without being renewed; it is renewed three times as often. 60,000 by default.
    pub lease_ms: u64,
    /// Time between two looks at what others and people did. 5,000 by default.
    pub poll_ms: u64,
    /// A slot that is seen so much after its time is a missed one. 60,000 by default.
    pub late_ms: u64,
    /// How far back missed slots, and slots that others left, are looked for. 168 by default.
    pub look_back_hours: u32,
    /// How many slots of a schedule are looked at for that, the latest. 200 by default.
    pub look_back_slots_max: usize,
    /// Whom to tell of a regression, and what is one.
    pub alert: AlertConfig,
    /// Runs to compare with, by name, then by benchmark.
    pub baselines: BTreeMap<String, BTreeMap<String, String>>,
}

impl Default for SchedulerConfig {
    fn default() -> SchedulerConfig {
        SchedulerConfig {
            slots_max: 1,
            lease_ms: 60_000,
            poll_ms: 5_000,
            late_ms: 60_000,
            look_back_hours: 168,
            look_back_slots_max: 200,
            alert: AlertConfig::default(),
            baselines: BTreeMap::new(),
        }
    }
}

/// `[scheduler.alert]`: whom to tell of a regression, and what is one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlertConfig {
    /// Environment variable that holds the webhook's URL, which is a secret.
    pub url_env: Option<String>,
    /// File that holds it.
    pub url_file: Option<PathBuf>,
    /// The chance of a false alarm in a slot, all its cells together. 0.05 by default.
    pub alpha: f64,
    /// Draws of the bootstrap. 10,000 by default.
    pub draws: u32,
    /// Its seed. 0 by default.
    pub seed: u64,
    /// Flipped questions of a cell that are told one by one. 20 by default.
    pub questions_max: usize,
    /// Times that delivery is tried. 6 by default.
    pub attempts_max: u32,
    /// Milliseconds before the second; doubled for each further one. 1,000 by default.
    pub backoff_ms: u64,
    /// Milliseconds between two at most. 60,000 by default.
    pub backoff_ms_max: u64,
    /// Milliseconds for one. 10,000 by default.
    pub timeout_ms: u64,
}

impl Default for AlertConfig {
    fn default() -> AlertConfig {
        AlertConfig {
            url_env: None,
            url_file: None,
            alpha: 0.05,
            draws: 10_000,
            seed: 0,
            questions_max: 20,
            attempts_max: 6,
            backoff_ms: 1_000,
            backoff_ms_max: 60_000,
            timeout_ms: 10_000,
        }
    }
}

/// What the runs of a slot are compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Baseline {
    /// One run, for every cell that has its questions.
    Run(String),
    /// The runs of another slot of the schedule, cell by cell.
    Slot(DateTime<Utc>),
    /// Runs by benchmark.
    Named(BTreeMap<String, String>),
}

/// A schedule that is known to be in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// As the settings have it.
    pub schedule: Schedule,
    /// When its slots are.
    pub times: Times,
    /// What they are compared with.
    pub baseline: Option<Baseline>,
}

impl Schedule {
    /// The cells of a slot: each policy at each benchmark, in the order of the settings.
    pub fn cells(&self) -> Vec<Cell> {
        let at = |policy: &String| {
            let cell = move |benchmark: &String| Cell { policy: policy.clone(), benchmark: benchmark.clone() };
            self.benchmarks.iter().map(cell).collect::<Vec<_>>()
        };
        self.policies.iter().flat_map(at).collect()
    }

    fn check(&self, wrong: impl Fn(&str, &str) -> ScheduleError) -> Result<(), ScheduleError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let Schedule { name, policies, benchmarks, attempts, retry, .. } = self;
        if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.chars().all(is_plain) {
            return Err(wrong("name", "must be 1 to 60 letters, digits, dots, underscores or hyphens"));
        }
        for (key, list) in [("policies", policies), ("benchmarks", benchmarks)] {
            if list.is_empty() {
                return Err(wrong(key, "is empty: name at least one"));
            }
            if list.iter().collect::<BTreeSet<_>>().len() < list.len() {
                return Err(wrong(key, "has one twice"));
            }
        }
        if policies.len().saturating_mul(benchmarks.len()) > CELLS_MAX {
            return Err(wrong("policies", "with benchmarks makes more than 100 cells: split the schedule"));
        }
        if !(1..=1000).contains(attempts) {
            return Err(wrong("attempts", "must be between 1 and 1000"));
        }
        if self.limit == Some(0) || self.concurrency == Some(0) {
            let key = if self.limit == Some(0) { "limit" } else { "concurrency" };
            return Err(wrong(key, "must be at least 1"));
        }
        if self.budget.cost.is_some_and(|cost| !(cost.is_finite() && cost >= 0.0)) {
            return Err(wrong("budget.cost", "must be a number of at least 0"));
        }
        if retry.delay_s_max < retry.delay_s {
            return Err(wrong("retry.delay_s_max", "is less than retry.delay_s"));
        }
        let Some(canary) = self.canary else { return Ok(()) };
        let is_share = |share: f64| (0.0..=1.0).contains(&share);
        match () {
            () if canary.questions == 0 => Err(wrong("canary.questions", "must be at least 1")),
            () if !is_share(canary.coverage_min) => Err(wrong("canary.coverage_min", "must be between 0 and 1")),
            () if !is_share(canary.errors_max) => Err(wrong("canary.errors_max", "must be between 0 and 1")),
            () => Ok(()),
        }
    }

    fn baseline(&self, config: &SchedulerConfig) -> Result<Option<Baseline>, String> {
        let Some(text) = &self.baseline else { return Ok(None) };
        if Uuid::try_parse(text).is_ok() && text.len() == 36 {
            return Ok(Some(Baseline::Run(text.clone())));
        }
        if let Some(time) = text.strip_prefix("slot:") {
            let time = DateTime::parse_from_rfc3339(time)
                .map_err(|_| "slot: is followed by no time such as 2026-01-02T03:00:00Z".to_string())?;
            return Ok(Some(Baseline::Slot(time.to_utc())));
        }
        match config.baselines.get(text) {
            Some(runs) => Ok(Some(Baseline::Named(runs.clone()))),
            None => Err("is no run's id, no slot:TIME and no name of [scheduler.baselines]".to_string()),
        }
    }
}

impl SchedulerConfig {
    /// For how long a claim holds without being renewed.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub fn lease(&self) -> Result<Duration, ScheduleError> {
        self.check().map(|()| Duration::from_millis(self.lease_ms))
    }

    fn check(&self) -> Result<(), ScheduleError> {
        let least = [
            ("slots_max", self.slots_max as u64, 1),
            ("lease_ms", self.lease_ms, 1_000),
            ("poll_ms", self.poll_ms, 100),
            ("look_back_slots_max", self.look_back_slots_max as u64, 1),
            ("alert.attempts_max", u64::from(self.alert.attempts_max), 1),
            ("alert.timeout_ms", self.alert.timeout_ms, 1),
        ];
        let wrong = |key: &str, reason: String| ScheduleError {
            schedule: "[scheduler]".to_string(),
            key: key.to_string(),
            reason,
        };
        if let Some((key, _, least)) = least.into_iter().find(|(_, value, least)| value < least) {
            return Err(wrong(key, format!("must be at least {least}")));
        }
        if !(self.alert.alpha > 0.0 && self.alert.alpha < 1.0) {
            return Err(wrong("alert.alpha", "must lie between 0 and 1".to_string()));
        }
        if self.alert.url_env.is_some() && self.alert.url_file.is_some() {
            return Err(wrong("alert.url_file", "is given beside url_env: give one of them".to_string()));
        }
        Ok(())
    }
}

/// The schedules of these settings, checked.
///
/// # Errors
/// The first thing that is wrong.
pub fn plan(schedules: &[Schedule], config: &SchedulerConfig) -> Result<Vec<Planned>, ScheduleError> {
    config.check()?;
    let mut names = BTreeSet::new();
    let mut planned = Vec::with_capacity(schedules.len());
    for (schedule, number) in schedules.iter().zip(1..) {
        let called = if schedule.name.is_empty() { format!("number {number}") } else { schedule.name.clone() };
        let wrong = |key: &str, reason: &str| ScheduleError {
            schedule: called.clone(),
            key: key.to_string(),
            reason: reason.to_string(),
        };
        schedule.check(wrong)?;
        if !names.insert(&schedule.name) {
            return Err(wrong("name", "is that of another schedule, too"));
        }
        let times = Times::parse(&schedule.cron, &schedule.time_zone).map_err(|e| wrong(e.key, &e.reason))?;
        let baseline = schedule.baseline(config).map_err(|reason| wrong("baseline", &reason))?;
        planned.push(Planned { schedule: schedule.clone(), times, baseline });
    }
    Ok(planned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct File {
        #[serde(default)]
        schedule: Vec<Schedule>,
        #[serde(default)]
        scheduler: SchedulerConfig,
    }

    fn read(text: &str) -> Result<Vec<Planned>, String> {
        let file: File = toml::from_str(text).map_err(|e| e.message().to_string())?;
        plan(&file.schedule, &file.scheduler).map_err(|e| e.to_string())
    }

    const NIGHTLY: &str = "[[schedule]]\nname = \"nightly\"\ncron = \"0 3 * * *\"\npolicies = [\"a\", \"b\"]\n\
        benchmarks = [\"gaia\", \"atlas\"]\n";

    #[test]
    fn a_few_lines_are_a_schedule_of_every_policy_at_every_benchmark() {
        let planned = read(NIGHTLY).unwrap();
        let schedule = &planned[0].schedule;
        let cells: Vec<String> = schedule.cells().iter().map(ToString::to_string).collect();
        assert_eq!(cells, ["a × gaia", "a × atlas", "b × gaia", "b × atlas"]);
        assert_eq!((schedule.attempts, schedule.missed, schedule.overlap), (1, Missed::Latest, Overlap::Skip));
        assert_eq!(schedule.time_zone, "UTC");
        assert!(schedule.canary.is_none() && planned[0].baseline.is_none());
    }

    #[test]
    fn a_baseline_is_a_run_a_slot_or_a_name() {
        let with = |baseline: &str| {
            read(&format!("{NIGHTLY}baseline = \"{baseline}\"\n[scheduler.baselines.june]\ngaia = \"r\"\n"))
        };
        let of = |baseline: &str| with(baseline).unwrap()[0].baseline.clone().unwrap();
        let id = "0190a6b2-7c3d-7e4f-8a1b-2c3d4e5f6071";
        assert_eq!(of(id), Baseline::Run(id.to_string()));
        assert_eq!(of("june"), Baseline::Named([("gaia".to_string(), "r".to_string())].into()));
        assert_eq!(of("slot:2026-01-02T03:00:00+01:00"), Baseline::Slot("2026-01-02T02:00:00Z".parse().unwrap()));
        assert!(with("july").unwrap_err().starts_with("schedule nightly: baseline: is no run's id"));
        assert!(with("slot:june").unwrap_err().contains("followed by no time"));
    }

    #[test]
    fn what_is_wrong_is_told_by_schedule_and_key() {
        let cases = [
            ("cron = \"0 3 * *\"", "schedule nightly: cron: "),
            ("cron = \"0 0 31 2 *\"", "schedule nightly: cron: never comes"),
            ("time_zone = \"Europe/Nowhere\"", "schedule nightly: time_zone: is no time zone"),
            ("name = \"a b\"", "schedule a b: name: must be 1 to 60"),
            ("name = \"\"", "schedule number 1: name: must be 1 to 60"),
            ("policies = []", "schedule nightly: policies: is empty"),
            ("policies = [\"a\", \"a\"]", "schedule nightly: policies: has one twice"),
            ("attempts = 0", "schedule nightly: attempts: must be between"),
            ("limit = 0", "schedule nightly: limit: must be at least 1"),
            ("canary = { questions = 0 }", "schedule nightly: canary.questions: must be at least 1"),
            ("canary = { errors_max = 1.5 }", "schedule nightly: canary.errors_max: must be between"),
            ("budget = { cost = -1.0 }", "schedule nightly: budget.cost: must be"),
            ("retry = { delay_s_max = 1 }", "schedule nightly: retry.delay_s_max: is less"),
            ("missed = \"never\"", "unknown variant `never`"),
            ("crom = \"x\"", "unknown field `crom`"),
        ];
        for (line, part) in cases {
            let key = line.split(' ').next().unwrap();
            let kept: Vec<&str> = NIGHTLY.lines().filter(|kept| !kept.starts_with(&format!("{key} "))).collect();
            let error = read(&format!("{}\n{line}\n", kept.join("\n"))).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
        assert!(read(&format!("{NIGHTLY}{NIGHTLY}")).unwrap_err().contains("that of another schedule"));
        assert!(read("[scheduler]\nlease_ms = 10\n").unwrap_err().contains("lease_ms: must be at least 1000"));
        assert!(read("[scheduler.alert]\nalpha = 1.0\n").unwrap_err().contains("alert.alpha: must lie"));
    }
}
