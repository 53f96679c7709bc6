//! A slot under way: canaries, then the rest of every cell, then the comparison with the baseline.
//!
//! | what happens | what becomes of the slot |
//! |---|---|
//! | all cells have a verdict on every attempt | `finished` |
//! | a canary fails, a budget ends, retries do not help | that cell is not made further; the others are; `failed`, with why |
//! | the claim is lost | the work is dropped at once; who took it over goes on |
//! | the process is asked to end | the claim is released: another process, or the next start, goes on |
//! | the log takes no event, or the tables cannot be read | the claim runs out, and whoever takes the slot over goes on |

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::json;
use tokio::sync::watch;
use webdancer_agent::clock::Clock;
use webdancer_schemas::log::EventLog;
use webdancer_schemas::rows;

use super::alert::{Findings, Pairing};
use super::config::{Baseline, Canary, Planned, Schedule, SchedulerConfig};
use super::lease::{Claim, Claims, ClaimsError, Lease, SLOTS, utc};
use super::runner::{Left, Pass, Runner, RunnerError, Spent, Work};
use super::slot::{Cell, Slot, Told};
use super::webhook::{Hook, HookError};
use crate::stats::bootstrap::Bootstrap;

/// The kind of claims that say that an alert was delivered.
const ALERTS: &str = "alert";

/// What the slots of a process share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) config: Arc<SchedulerConfig>,
    pub(super) claims: Arc<dyn Claims>,
    pub(super) runner: Arc<dyn Runner>,
    pub(super) log: Arc<dyn EventLog>,
    pub(super) hook: Option<Arc<dyn Hook>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) holder: String,
    pub(super) observer: Arc<dyn Fn(&rows::Slot) + Send + Sync>,
    /// Whether the process is asked to end.
    pub(super) stopping: watch::Receiver<bool>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("holder", &self.holder).finish_non_exhaustive()
    }
}

/// How a slot ended for this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// For everybody: in this state, for this reason.
    Settled(&'static str, Option<String>),
    /// Another process has it.
    Lost(String),
    /// Nobody has it.
    Released(String),
}

/// Why the work on a slot ends before it is done.
#[derive(Debug)]
struct Broken(String);

/// How a cell ended.
type CellEnd = Result<Pass, String>;

/// A slot whose claim is held.
#[derive(Debug)]
pub(super) struct SlotWork {
    pub(super) shared: Shared,
    pub(super) planned: Arc<Planned>,
    pub(super) slot: Slot,
    pub(super) lease: Lease,
}

impl Shared {
    /// Records a new state, for good.
    pub(super) async fn tell(&self, slot: &Slot, told: Told<'_>) -> Result<(), String> {
        let event = slot.event(told, &self.holder, utc(self.clock.as_ref()));
        let event = event.map_err(|error| format!("a slot's event as JSON: {error}"))?;
        let row = serde_json::from_str::<rows::Slot>(event.data.get());
        self.log.append(vec![event]).await.map_err(|error| format!("a slot's event could not be appended: {error}"))?;
        if let Ok(row) = row {
            (self.observer)(&row);
        }
        Ok(())
    }

    /// Records a new state if that can be done: nothing hangs on it.
    pub(super) async fn tell_if_possible(&self, slot: &Slot, told: Told<'_>) {
        if let Err(error) = self.tell(slot, told).await {
            tracing::warn!(error, slot = slot.id);
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Lets time pass, less if the process is asked to end.
    pub(super) async fn pause(&self, time: Duration) {
        let mut stopping = self.stopping.clone();
        tokio::select! {
            () = self.clock.sleep(time) => {}
            // Where nobody can ask any more, the time passes.
            () = async { if stopping.wait_for(|stopping| *stopping).await.is_err() { std::future::pending().await } } => {}
        }
    }

    pub(super) fn lease(&self) -> Duration {
        Duration::from_millis(self.config.lease_ms)
    }
}

impl SlotWork {
    /// All of the slot.
    pub(super) async fn run(mut self) -> End {
        let steps =
            Steps { shared: &self.shared, planned: &self.planned, slot: &self.slot, generation: self.lease.generation };
        let made = tokio::select! {
            made = steps.make() => made,
            why = self.lease.keep() => {
                self.shared.tell_if_possible(&self.slot, steps.told("lost").because(why.as_str())).await;
                return End::Lost(why);
            }
        };
        match made {
            Ok((state, reason)) => match self.lease.settle().await {
                Ok(true) => End::Settled(state, reason),
                Ok(false) => End::Lost("another process has taken it over".to_string()),
                Err(error) => End::Released(error.to_string()),
            },
            Err(Broken(why)) => {
                self.shared.tell_if_possible(&self.slot, steps.told("released").because(why.as_str())).await;
                // What fails here may fail again at once: others, and we, come when the lease has run out.
                if self.shared.is_stopping()
                    && let Err(error) = self.lease.release().await
                {
                    tracing::warn!(%error, slot = self.slot.id, "a slot's claim could not be released: its lease runs out");
                }
                End::Released(why)
            }
        }
    }
}

/// The work itself.
struct Steps<'a> {
    shared: &'a Shared,
    planned: &'a Planned,
    slot: &'a Slot,
    generation: u64,
}

impl Steps<'_> {
    fn told<'t>(&self, state: &'static str) -> Told<'t> {
        Told { step: self.generation, ..Told::of(state) }
    }

    fn schedule(&self) -> &Schedule {
        &self.planned.schedule
    }

    /// The state that the slot ends in, and why.
    async fn make(&self) -> Result<(&'static str, Option<String>), Broken> {
        let state = if self.generation == 0 { "claimed" } else { "taken_over" };
        self.shared.tell(self.slot, self.told(state)).await.map_err(Broken)?;
        let begun = self.begun().await?;
        let cells = self.schedule().cells();
        let mut ends: Vec<Option<CellEnd>> = vec![None; cells.len()];
        if let Some(canary) = self.schedule().canary {
            for (cell, end) in cells.iter().zip(&mut ends) {
                *end = self.canary(cell, canary, begun).await?.err().map(Err);
            }
        }
        for (cell, end) in cells.iter().zip(&mut ends).filter(|(_, end)| end.is_none()) {
            *end = Some(self.cell(cell, begun).await?);
        }
        let failed: Vec<String> = cells
            .iter()
            .zip(&ends)
            .filter_map(|(cell, end)| Some(format!("{cell}: {}", end.as_ref()?.as_ref().err()?)))
            .collect();
        let findings = self.compare(&cells).await?;
        let details = findings.as_ref().map(Findings::summary);
        let (state, reason) = if failed.is_empty() { ("finished", None) } else { ("failed", Some(failed.join("; "))) };
        let told = Told { reason: reason.clone(), details, ..Told::of(state) };
        self.shared.tell(self.slot, told).await.map_err(Broken)?;
        if let Some(findings) = findings.filter(|findings| !findings.regressions().is_empty()) {
            self.alert(&findings).await?;
        }
        Ok((state, reason))
    }

    /// When the slot was claimed first: its time runs from there, whoever holds it.
    async fn begun(&self) -> Result<DateTime<Utc>, Broken> {
        let all = self.shared.claims.all(SLOTS, &self.slot.id).await;
        let all = all.map_err(|error| Broken(error.to_string()))?;
        Ok(all.first().map_or_else(|| utc(self.shared.clock.as_ref()), |(_, claim)| claim.taken))
    }

    /// A few questions of a cell first. An error says why the rest is not made.
    async fn canary(&self, cell: &Cell, canary: Canary, begun: DateTime<Utc>) -> Result<Result<(), String>, Broken> {
        let pass = match self.persist(cell, Some(canary.questions), begun).await? {
            Ok(pass) => pass,
            Err(reason) => {
                let reason = format!("canary: {reason}: the rest is not run");
                self.tell_cell("failed", cell, Some(reason.clone()), None).await?;
                return Ok(Err(reason));
            }
        };
        let Pass { due, judged, failed, .. } = pass;
        let percent = |share: f64| 100.0 * share;
        let refused = if pass.coverage() < canary.coverage_min {
            let (got, least) = (percent(pass.coverage()), percent(canary.coverage_min));
            Some(format!("{judged} of {due} attempts have a verdict, {got:.0} %, and {least:.0} % are needed"))
        } else if pass.errors() > canary.errors_max {
            let (got, most) = (percent(pass.errors()), percent(canary.errors_max));
            Some(format!("{failed} of {due} attempts failed, {got:.0} %, and {most:.0} % are allowed"))
        } else {
            None
        };
        let why = pass.stopped.as_ref().map(|why| format!("; {why}")).unwrap_or_default();
        let refused = refused.map(|what| format!("canary: {what}{why}: the rest is not run"));
        let state = if refused.is_some() { "failed" } else { "canary" };
        self.tell_cell(state, cell, refused.clone(), Some(&pass)).await?;
        Ok(refused.map_or(Ok(()), Err))
    }

    /// All of a cell. An error says what is missing.
    async fn cell(&self, cell: &Cell, begun: DateTime<Utc>) -> Result<CellEnd, Broken> {
        self.tell_cell("started", cell, None, None).await?;
        let end = match self.persist(cell, None, begun).await? {
            Ok(pass) if pass.is_complete() => Ok(pass),
            Ok(pass) => {
                let why = pass.stopped.as_ref().map(|why| format!("; {why}")).unwrap_or_default();
                let lacking = format!("{} of {} attempts have no verdict{why}", pass.due - pass.judged, pass.due);
                self.tell_cell("failed", cell, Some(lacking.clone()), Some(&pass)).await?;
                return Ok(Err(lacking));
            }
            Err(reason) => Err(reason),
        };
        match &end {
            Ok(pass) => self.tell_cell("finished", cell, None, Some(pass)).await?,
            Err(reason) => self.tell_cell("failed", cell, Some(reason.clone()), None).await?,
        }
        Ok(end)
    }

    /// Passes over a cell until it is complete, nothing is left to spend, or it failed too often. While another process
    /// works on its run it waits for that one.
    async fn persist(&self, cell: &Cell, canary: Option<u32>, begun: DateTime<Utc>) -> Result<CellEnd, Broken> {
        let retry = self.schedule().retry;
        let (mut tried, mut has_waited) = (0, false);
        loop {
            let left = self.left(begun).await?;
            let mut last = match self.left_out(&left) {
                Some(spent) => return Ok(Err(spent)),
                None => self.pass(cell, canary, left).await,
            };
            if self.shared.is_stopping() && !matches!(&last, Ok(pass) if pass.is_complete()) {
                return Err(Broken("the process was asked to end".to_string()));
            }
            let reason = match &mut last {
                Ok(pass) if pass.is_complete() => return Ok(last.map_err(|error| error.to_string())),
                Ok(pass) => {
                    // The pass ended with the budget, which is the slot's: the same would happen again.
                    if let Some(spent) = self.left_out(&self.left(begun).await?) {
                        pass.stopped = Some(spent);
                        return Ok(last.map_err(|error| error.to_string()));
                    }
                    let lacking = format!("{} of {} attempts have no verdict", pass.due - pass.judged, pass.due);
                    pass.stopped.clone().unwrap_or(lacking)
                }
                Err(RunnerError::Settings(reason)) => return Ok(Err(reason.clone())),
                Err(RunnerError::Failed(reason)) => reason.clone(),
                // Waiting is no repetition, and is told once.
                Err(RunnerError::Busy(reason)) => {
                    if !has_waited {
                        self.tell_retry(cell, canary, 0, format!("{reason}; waiting for it")).await?;
                        has_waited = true;
                    }
                    self.pause(retry.delay_s.max(1)).await?;
                    continue;
                }
            };
            if tried >= retry.max {
                return Ok(last.map_err(|error| error.to_string()));
            }
            let delay = retry.delay_s.saturating_mul(1 << tried.min(30)).min(retry.delay_s_max);
            tried += 1;
            let told = format!("{reason}; repetition {tried} of {} in {delay} s", retry.max);
            self.tell_retry(cell, canary, tried, told).await?;
            self.pause(delay).await?;
        }
    }

    /// Tells that a cell will be tried again; 0 of waiting for another process, which is no repetition.
    async fn tell_retry(
        &self,
        cell: &Cell,
        canary: Option<u32>,
        repetition: u32,
        reason: String,
    ) -> Result<(), Broken> {
        let told = Told {
            cell: Some(cell),
            reason: Some(reason),
            step: self.generation * 1_000_000 + u64::from(canary.is_some()) * 1_000 + u64::from(repetition),
            ..Told::of("retrying")
        };
        self.shared.tell(self.slot, told).await.map_err(Broken)
    }

    async fn pause(&self, seconds: u64) -> Result<(), Broken> {
        self.shared.pause(Duration::from_secs(seconds)).await;
        match self.shared.is_stopping() {
            true => Err(Broken("the process was asked to end".to_string())),
            false => Ok(()),
        }
    }

    async fn pass(&self, cell: &Cell, canary: Option<u32>, left: Left) -> Result<Pass, RunnerError> {
        let work = Work {
            schedule: Arc::new(self.schedule().clone()),
            cell: cell.clone(),
            run_id: self.slot.run_id(cell),
            start: self.slot.time,
            canary,
            left,
        };
        self.shared.runner.attempt(&work).await
    }

    /// What the slot's cells may still spend, together.
    async fn left(&self, begun: DateTime<Utc>) -> Result<Left, Broken> {
        let budget = self.schedule().budget;
        let spent = if budget.attempts.is_some() || budget.tokens.is_some() || budget.cost.is_some() {
            let runs: Vec<String> = self.schedule().cells().iter().map(|cell| self.slot.run_id(cell)).collect();
            self.shared.runner.spent(&runs).await.map_err(|error| Broken(error.to_string()))?
        } else {
            Spent::default()
        };
        let passed = (utc(self.shared.clock.as_ref()) - begun).num_seconds();
        Ok(Left {
            attempts: budget.attempts.map(|most| most.saturating_sub(spent.attempts)),
            tokens: budget.tokens.map(|most| most.saturating_sub(spent.tokens)),
            cost: budget.cost.map(|most| (most - spent.cost).max(0.0)),
            time_s: budget.time_s.map(|most| most.saturating_sub(u64::try_from(passed).unwrap_or(0))),
        })
    }

    /// Which part of the budget is spent, if one is.
    fn left_out(&self, left: &Left) -> Option<String> {
        let budget = self.schedule().budget;
        let over = |what: &str, most: String| Some(format!("the slot's budget of {most} {what} is spent"));
        match *left {
            Left { attempts: Some(0), .. } => over("attempts", budget.attempts.unwrap_or(0).to_string()),
            Left { tokens: Some(0), .. } => over("tokens", budget.tokens.unwrap_or(0).to_string()),
            Left { cost: Some(cost), .. } if cost <= 0.0 => over("money", budget.cost.unwrap_or(0.0).to_string()),
            Left { time_s: Some(0), .. } => over("seconds", budget.time_s.unwrap_or(0).to_string()),
            Left { .. } => None,
        }
    }

    async fn tell_cell(
        &self,
        state: &'static str,
        cell: &Cell,
        reason: Option<String>,
        pass: Option<&Pass>,
    ) -> Result<(), Broken> {
        let details = pass.map(|pass| json!(pass));
        let told = Told { cell: Some(cell), reason, details, step: self.generation, ..Told::of(state) };
        self.shared.tell(self.slot, told).await.map_err(Broken)
    }

    /// The cells beside the baseline, if there is one.
    async fn compare(&self, cells: &[Cell]) -> Result<Option<Findings>, Broken> {
        let Some(baseline) = &self.planned.baseline else { return Ok(None) };
        let of = |cell: &Cell| match baseline {
            Baseline::Run(run) => Some(run.clone()),
            Baseline::Slot(time) => Some(Slot::new(&self.slot.schedule, *time).run_id(cell)),
            Baseline::Named(runs) => runs.get(&cell.benchmark).cloned(),
        };
        let pairs: Vec<Pairing> = cells
            .iter()
            .map(|cell| Pairing { cell: cell.clone(), run_id: self.slot.run_id(cell), baseline: of(cell) })
            .collect();
        let mut runs: Vec<String> =
            pairs.iter().flat_map(|pair| [Some(&pair.run_id), pair.baseline.as_ref()]).flatten().cloned().collect();
        runs.sort_unstable();
        runs.dedup();
        let runs = self.shared.runner.read(&runs).await.map_err(|error| Broken(error.to_string()))?;
        let alert = &self.shared.config.alert;
        let draws = Bootstrap { draws: alert.draws, seed: alert.seed, ..Bootstrap::default() };
        // Drawing again takes seconds where questions are many.
        let alpha = alert.alpha;
        let found = tokio::task::spawn_blocking(move || Findings::of(pairs, &runs, alpha, draws)).await;
        found.map(Some).map_err(|error| Broken(format!("the comparison with the baseline broke off: {error}")))
    }

    /// Tells whoever is to be told of a regression: once, as far as can be known.
    async fn alert(&self, findings: &Findings) -> Result<(), Broken> {
        let failed = |error: ClaimsError| Broken(error.to_string());
        let config = &self.shared.config.alert;
        let baseline = self.schedule().baseline.as_deref().unwrap_or_default();
        let alert = findings.alert(self.slot, baseline, config.questions_max);
        let worse: Vec<String> = findings.regressions().iter().map(|cell| cell.cell.to_string()).collect();
        let told = Told { details: Some(findings.summary()), ..Told::of("regression") };
        self.shared.tell(self.slot, told.because(worse.join(", "))).await.map_err(Broken)?;
        let Some(hook) = &self.shared.hook else { return Ok(()) };
        if self.shared.claims.newest(ALERTS, &self.slot.id).await.map_err(failed)?.is_some() {
            return Ok(());
        }
        let mut tried = 0u32;
        let refused = loop {
            let error = match hook.deliver(&alert).await {
                Ok(()) => break None,
                Err(error) => error,
            };
            tried += 1;
            if matches!(error, HookError::Refused(_)) || tried >= config.attempts_max {
                break Some(error.to_string());
            }
            let wait = config.backoff_ms.saturating_mul(1 << (tried - 1).min(30)).min(config.backoff_ms_max);
            self.shared.pause(Duration::from_millis(wait)).await;
            if self.shared.is_stopping() {
                return Err(Broken("the process was asked to end before an alert was delivered".to_string()));
            }
        };
        if let Some(reason) = refused {
            tracing::warn!(reason, slot = self.slot.id, "an alert was not delivered");
            let reason = format!("{reason}, after {} attempts", tried.max(1));
            return self.shared.tell(self.slot, Told::of("alert_failed").because(reason)).await.map_err(Broken);
        }
        let now = utc(self.shared.clock.as_ref());
        let done = Claim { holder: self.shared.holder.clone(), taken: now, expires: None };
        self.shared.claims.take(ALERTS, &self.slot.id, 0, &done).await.map_err(failed)?;
        self.shared.tell(self.slot, Told::of("alerted")).await.map_err(Broken)
    }
}
