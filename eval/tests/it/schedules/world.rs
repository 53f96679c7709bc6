//! Servers on one lake, without lake, models or time: the store of claims, the log, the runs and the clock are here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use webdancer_agent::clock::Clock;
use webdancer_eval::run::Run;
use webdancer_eval::schedule::orders::{Order, Orders};
use webdancer_eval::schedule::{
    Claim, Claims, ClaimsError, Ended, Hook, HookError, Parts, Pass, Runner, RunnerError, Schedule, Scheduler,
    SchedulerConfig, Slot, Spent, Work,
};
use webdancer_schemas::event::Event;
use webdancer_schemas::log::{EventLog, LogError};
use webdancer_schemas::rows;

/// Polls of everything else that stand for "nothing more happens at this moment".
const YIELDS: usize = 300;

/// Who waits, by the time that is waited for.
type Waiting = BTreeMap<(Duration, u64), oneshot::Sender<()>>;

/// A clock that stands still until it is told to go on.
#[derive(Debug)]
pub(crate) struct StoppedClock {
    start: Instant,
    epoch: DateTime<Utc>,
    state: Mutex<(Duration, u64, Waiting)>,
}

#[async_trait]
impl Clock for StoppedClock {
    fn now(&self) -> Instant {
        self.start + self.state.lock().0
    }

    fn utc(&self) -> SystemTime {
        SystemTime::from(self.epoch) + self.state.lock().0
    }

    async fn sleep(&self, duration: Duration) {
        let (sender, woken) = oneshot::channel();
        {
            let mut state = self.state.lock();
            state.1 += 1;
            let key = (state.0 + duration, state.1);
            state.2.insert(key, sender);
        }
        let _ = woken.await;
    }
}

impl StoppedClock {
    fn at(time: &str) -> Arc<StoppedClock> {
        Arc::new(StoppedClock { start: Instant::now(), epoch: time.parse().unwrap(), state: Mutex::default() })
    }

    /// Lets time pass: whoever sleeps wakes up in turn.
    async fn pass(&self, time: Duration) {
        let until = self.state.lock().0 + time;
        loop {
            quiet().await;
            let mut state = self.state.lock();
            let first = state.2.keys().next().copied().filter(|(deadline, _)| *deadline <= until);
            let Some(key) = first else {
                state.0 = until;
                break;
            };
            state.0 = state.0.max(key.0);
            let _ = state.2.remove(&key).unwrap().send(());
        }
        quiet().await;
    }

    fn stamp(&self) -> String {
        DateTime::<Utc>::from(self.utc()).format("%H:%M:%S").to_string()
    }
}

async fn quiet() {
    for _ in 0..YIELDS {
        tokio::task::yield_now().await;
    }
}

type Chains = BTreeMap<(String, String), Vec<Claim>>;

/// A store of claims; as one server reaches it, unless it is cut off.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryClaims {
    chains: Arc<Mutex<Chains>>,
    is_cut_off: Arc<AtomicBool>,
}

impl MemoryClaims {
    fn reach(&self) -> Result<(), ClaimsError> {
        match self.is_cut_off.load(Ordering::Relaxed) {
            true => Err(ClaimsError("the store does not answer".to_string())),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Claims for MemoryClaims {
    async fn take(&self, kind: &str, key: &str, generation: u64, claim: &Claim) -> Result<bool, ClaimsError> {
        // Whoever else wants it has the time to.
        tokio::task::yield_now().await;
        self.reach()?;
        let mut chains = self.chains.lock();
        let chain = chains.entry((kind.to_string(), key.to_string())).or_default();
        let is_free = chain.len() as u64 == generation;
        if is_free {
            chain.push(claim.clone());
        }
        Ok(is_free)
    }

    async fn newest(&self, kind: &str, key: &str) -> Result<Option<(u64, Claim)>, ClaimsError> {
        Ok(self.all(kind, key).await?.pop())
    }

    async fn all(&self, kind: &str, key: &str) -> Result<Vec<(u64, Claim)>, ClaimsError> {
        self.reach()?;
        let chains = self.chains.lock();
        let chain = chains.get(&(kind.to_string(), key.to_string())).cloned().unwrap_or_default();
        Ok((0..).zip(chain).collect())
    }
}

/// A log whose events are there once, as in the tables.
#[derive(Debug, Default)]
pub(crate) struct MemoryLog(Mutex<Vec<Event>>, AtomicBool);

#[async_trait]
impl EventLog for MemoryLog {
    async fn append(&self, events: Vec<Event>) -> Result<(), LogError> {
        if self.1.load(Ordering::Relaxed) {
            return Err(LogError::Unavailable("it is out".to_string()));
        }
        let mut held = self.0.lock();
        for event in events {
            if !held.iter().any(|other| other.id() == event.id()) {
                held.push(event);
            }
        }
        Ok(())
    }
}

/// What a pass takes and comes to.
pub(crate) type Script = dyn Fn(&Work, usize) -> (Duration, Result<Pass, RunnerError>) + Send + Sync;

/// Makes runs by a script, and notes what is done when.
#[derive(Clone)]
pub(crate) struct Scripted {
    clock: Arc<StoppedClock>,
    server: &'static str,
    script: Arc<Script>,
    passes: Arc<Mutex<Vec<Work>>>,
    notes: Arc<Mutex<Vec<String>>>,
    pub(crate) spent: Arc<Mutex<Spent>>,
    pub(crate) runs: Arc<Mutex<Vec<Run>>>,
}

impl std::fmt::Debug for Scripted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scripted")
    }
}

/// Notes that a pass was broken off.
struct Under<'a>(&'a Scripted, Option<String>);

impl Drop for Under<'_> {
    fn drop(&mut self) {
        if let Some(what) = self.1.take() {
            self.0.note(format!("{what} dropped"));
        }
    }
}

impl Scripted {
    fn note(&self, what: String) {
        self.notes.lock().push(format!("{} {} {what}", self.clock.stamp(), self.server));
    }
}

#[async_trait]
impl Runner for Scripted {
    async fn attempt(&self, work: &Work) -> Result<Pass, RunnerError> {
        let number = {
            let mut passes = self.passes.lock();
            passes.push(work.clone());
            passes.len() - 1
        };
        let canary = if work.canary.is_some() { " canary" } else { "" };
        let what = format!("{}{canary} of {}", work.schedule.name, work.start.format("%H:%M:%S"));
        self.note(format!("{what} begins"));
        let mut under = Under(self, Some(what.clone()));
        let (takes, came_to) = (self.script)(work, number);
        self.clock.sleep(takes).await;
        under.1 = None;
        self.note(format!("{what} ends"));
        came_to
    }

    async fn spent(&self, _: &[String]) -> Result<Spent, RunnerError> {
        Ok(*self.spent.lock())
    }

    async fn read(&self, runs: &[String]) -> Result<Vec<Run>, RunnerError> {
        Ok(self.runs.lock().iter().filter(|run| runs.contains(&run.run_id)).cloned().collect())
    }
}

/// A receiver of alerts that fails as it is told.
#[derive(Debug, Default)]
pub(crate) struct Receiver {
    pub(crate) fails: Mutex<Vec<HookError>>,
    pub(crate) taken: Mutex<Vec<Value>>,
}

#[async_trait]
impl Hook for Receiver {
    async fn deliver(&self, alert: &Value) -> Result<(), HookError> {
        match self.fails.lock().pop() {
            Some(error) => Err(error),
            None => {
                self.taken.lock().push(alert.clone());
                Ok(())
            }
        }
    }
}

#[derive(Deserialize)]
struct File {
    schedule: Vec<Schedule>,
    #[serde(default)]
    scheduler: SchedulerConfig,
}

/// A lake.
pub(crate) struct World {
    pub(crate) clock: Arc<StoppedClock>,
    claims: MemoryClaims,
    log: Arc<MemoryLog>,
    pub(crate) runner: Scripted,
    pub(crate) receiver: Arc<Receiver>,
}

/// A process.
pub(crate) struct Server {
    task: JoinHandle<Vec<Ended>>,
    stop: Option<oneshot::Sender<()>>,
    is_cut_off: Arc<AtomicBool>,
}

/// A pass that made all it was to make.
pub(crate) fn complete() -> Result<Pass, RunnerError> {
    Ok(Pass { due: 10, made: 10, judged: 10, ..Pass::default() })
}

impl World {
    /// At 00:00:30 on the first of January 2026.
    pub(crate) fn new(
        script: impl Fn(&Work, usize) -> (Duration, Result<Pass, RunnerError>) + Send + Sync + 'static,
    ) -> World {
        let clock = StoppedClock::at("2026-01-01T00:00:30Z");
        let runner = Scripted {
            clock: clock.clone(),
            server: "",
            script: Arc::new(script),
            passes: Arc::default(),
            notes: Arc::default(),
            spent: Arc::default(),
            runs: Arc::default(),
        };
        World { clock, claims: MemoryClaims::default(), log: Arc::default(), runner, receiver: Arc::default() }
    }

    /// Every pass takes so many seconds and comes to a good end.
    pub(crate) fn taking(seconds: u64) -> World {
        World::new(move |_, _| (Duration::from_secs(seconds), complete()))
    }

    /// The store of claims as a process of its own reaches it, and what cuts that one off from it.
    pub(crate) fn store(&self) -> (Arc<MemoryClaims>, Arc<AtomicBool>) {
        let is_cut_off = Arc::<AtomicBool>::default();
        let claims = MemoryClaims { chains: self.claims.chains.clone(), is_cut_off: is_cut_off.clone() };
        (Arc::new(claims), is_cut_off)
    }

    fn scheduler(&self, name: &'static str, settings: &str) -> (Scheduler, Arc<AtomicBool>) {
        let File { schedule, scheduler } = toml::from_str(settings).unwrap();
        let (claims, is_cut_off) = self.store();
        let parts = Parts {
            claims,
            runner: Arc::new(Scripted { server: name, ..self.runner.clone() }),
            log: self.log.clone(),
            hook: Some(self.receiver.clone()),
            clock: self.clock.clone(),
            holder: name.to_string(),
            observer: Arc::new(|_| {}),
        };
        (Scheduler::new(&schedule, &scheduler, parts).unwrap(), is_cut_off)
    }

    pub(crate) async fn start(&self, name: &'static str, settings: &str) -> Server {
        let (scheduler, is_cut_off) = self.scheduler(name, settings);
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move { scheduler.run(None, async { drop(stopped.await) }).await.unwrap() });
        quiet().await;
        Server { task, stop: Some(stop), is_cut_off }
    }

    /// A process that does what is due, while time passes.
    pub(crate) async fn once(&self, name: &'static str, settings: &str, seconds: u64) -> Vec<Ended> {
        let (scheduler, _) = self.scheduler(name, settings);
        let until = Some(DateTime::<Utc>::from(self.clock.utc()));
        let task = tokio::spawn(async move { scheduler.run(until, std::future::pending()).await.unwrap() });
        self.pass(seconds).await;
        task.await.unwrap()
    }

    /// A process that runs one slot, of this time.
    pub(crate) async fn run_now(
        &self,
        name: &'static str,
        settings: &str,
        schedule: &'static str,
        time: DateTime<Utc>,
    ) -> JoinHandle<Vec<Ended>> {
        let (scheduler, _) = self.scheduler(name, settings);
        let task =
            tokio::spawn(async move { scheduler.run_now(schedule, time, std::future::pending()).await.unwrap() });
        quiet().await;
        task
    }

    pub(crate) async fn order(&self, schedule: &str, order: Order) -> Option<DateTime<Utc>> {
        let now = DateTime::<Utc>::from(self.clock.utc());
        Orders::give(&self.claims, self.log.as_ref(), schedule, (order, "ada"), now).await.unwrap()
    }

    /// From now on the log takes no events, or takes them again.
    pub(crate) fn cut_log(&self, is_out: bool) {
        self.log.1.store(is_out, Ordering::Relaxed);
    }

    pub(crate) async fn pass(&self, seconds: u64) {
        self.clock.pass(Duration::from_secs(seconds)).await;
    }

    pub(crate) fn passes(&self) -> Vec<Work> {
        self.runner.passes.lock().clone()
    }

    /// What runners did: when, on which server.
    pub(crate) fn notes(&self) -> Vec<String> {
        self.runner.notes.lock().clone()
    }

    fn rows(&self) -> Vec<(DateTime<Utc>, rows::Slot)> {
        let row = |event: &Event| (event.envelope.time.unwrap(), serde_json::from_str(event.data.get()).unwrap());
        self.log.0.lock().iter().map(row).collect()
    }

    /// What was told of slots, without their cells: `time of the slot: state`, and why where that is not clear.
    pub(crate) fn told(&self) -> Vec<String> {
        let line = |row: &rows::Slot| {
            let reason = row.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            format!("{} {} {}{reason}", row.schedule, row.slot_time.format("%H:%M:%S"), row.state)
        };
        self.rows().iter().filter(|(_, row)| row.policy.is_none()).map(|(_, row)| line(row)).collect()
    }

    /// What was told of cells: when, and how.
    pub(crate) fn told_of_cells(&self) -> Vec<String> {
        let line = |(time, row): &(DateTime<Utc>, rows::Slot)| {
            let reason = row.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            let cell = format!("{} × {}", row.policy.clone().unwrap(), row.benchmark.clone().unwrap());
            format!("{} {cell} {}{reason}", time.format("%H:%M:%S"), row.state)
        };
        self.rows().iter().filter(|(_, row)| row.policy.is_some()).map(line).collect()
    }

    /// As if the store had lost the last generation of a slot's claim.
    pub(crate) fn forget_settlement(&self, schedule: &str, time: &str) {
        let key = ("slot".to_string(), Slot::new(schedule, time.parse().unwrap()).id);
        let last = self.claims.chains.lock().get_mut(&key).unwrap().pop().unwrap();
        assert_eq!(last.expires, None);
    }

    /// Waits, in real time, until nobody is to run a slot any more.
    pub(crate) async fn until_settled(&self, schedule: &str, time: &str) {
        let id = Slot::new(schedule, time.parse().unwrap()).id;
        for _ in 0..10_000 {
            if self.claims.newest("slot", &id).await.unwrap().is_some_and(|(_, claim)| claim.expires.is_none()) {
                return;
            }
            quiet().await;
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("the slot was not settled: {:?}", self.told());
    }

    /// Waits, in real time, for what another thread does.
    pub(crate) async fn until_told(&self, part: &str) {
        for _ in 0..10_000 {
            if self.told().iter().any(|line| line.contains(part)) {
                return;
            }
            quiet().await;
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("{part} was not told: {:?}", self.told());
    }
}

impl Server {
    /// As SIGKILL does.
    pub(crate) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
        quiet().await;
    }

    /// Asks it to end.
    pub(crate) async fn stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
        quiet().await;
    }

    pub(crate) async fn ended(self) {
        self.task.await.unwrap();
    }

    /// Its store of claims does not answer any more.
    pub(crate) fn cut_off(&self) {
        self.is_cut_off.store(true, Ordering::Relaxed);
    }
}
