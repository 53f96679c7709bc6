//! Every run with its scores: what leaderboard, trends, the list of runs and compared runs begin with.
//!
//! A run's figures are those of [`report`], by the same options as the command's. They are computed once for the events
//! that they rest on: when tables change, a [fingerprint](Board) of each run says whose attempts, questions or verdicts are
//! others than before, and only these are read again. Nothing of a question's text stays in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use webdancer_schemas::kind::Kind;

use super::fault::Fault;
use super::sql;
use super::state::{Computed, Dashboard};
use super::{format, state};
use crate::attempts;
use crate::compare::COVERAGE_MIN;
use crate::report::{Options, Report, report};
use crate::run::{self, Run};
use crate::votes::{self, JudgedVotes, Known, RulesAlone};

pub(super) use crate::run::of_runs;

/// Attempts read at once.
const ATTEMPTS_AT_ONCE: u64 = 25_000;
/// Runs of which figures are kept: the latest.
const RUNS_MAX: usize = 2_000;

/// The runs, by id.
#[derive(Debug, Default)]
pub(super) struct Board {
    /// Runs of the funnel, which put other verdicts in force: they touch every run.
    filters: Option<u64>,
    /// What was told of benchmarks' questions: a run that has not attempted all of its own takes them from there.
    benchmarks: Option<u64>,
    pub(super) runs: BTreeMap<String, Arc<Entry>>,
    /// Runs that are older than those kept.
    pub(super) left_out: usize,
}

/// A run with its scores.
#[derive(Debug)]
pub(super) struct Entry {
    fingerprint: Fingerprint,
    pub(super) about: About,
    /// Its benchmark, or else the method that its questions were made by.
    pub(super) benchmark: String,
    /// Whether any of its questions is gated.
    pub(super) restricted: bool,
    /// Its figures, without breakdowns.
    pub(super) report: Report,
}

/// What tells that a run's figures are others than before: counts of the rows that they are made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Fingerprint {
    attempts: u64,
    verdicts: u64,
    /// Pairs of its answers that a judge held against each other.
    votes: u64,
    /// What was told of the questions that it attempted, counted for each attempt.
    told: u64,
}

/// What judges said of which answers of a run are the same, for the vote.
#[derive(Debug, Clone, Default)]
pub(super) struct Votes(Option<(Known, JudgedVotes)>);

impl Votes {
    /// The report of a run whose answers these are, as the command makes it.
    pub(super) fn report(&self, run: &Run, options: &Options) -> Report {
        match &self.0 {
            Some((known, votes)) => Report { votes: Some(votes.clone()), ..report(run, options, known) },
            None => report(run, options, &RulesAlone),
        }
    }
}

/// What a run's own events say of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct About {
    pub(super) kind: Option<String>,
    pub(super) state: Option<String>,
    pub(super) started: Option<DateTime<Utc>>,
    pub(super) updated: Option<DateTime<Utc>>,
    pub(super) benchmark: Option<String>,
    pub(super) benchmark_digest: Option<String>,
    /// The policy as the run was told it, such as `endpoint:qwen`.
    pub(super) policy: Option<String>,
    pub(super) web: Option<String>,
    /// Whether the settings that it was made by were kept.
    pub(super) settings_kept: bool,
    /// What the policy's endpoint added to requests, JSON.
    pub(super) endpoint: Option<String>,
    /// The model that summed up pages.
    pub(super) summariser: Option<String>,
    /// The live web's search engine and reader, JSON.
    pub(super) services: Option<String>,
    pub(super) attempts: Option<u64>,
    /// Questions to be attempted.
    pub(super) questions: Option<u64>,
    pub(super) code_version: Option<String>,
}

impl Entry {
    /// The policies by name.
    pub(super) fn policy(&self) -> String {
        self.report.policies.join(", ")
    }

    /// What goes on as one line of a trend: the policy as runs are told it, whatever its checkpoint is.
    pub(super) fn line(&self) -> String {
        self.about.policy.clone().unwrap_or_else(|| self.policy())
    }

    /// When it began; runs that nothing is told of come first.
    pub(super) fn started(&self) -> DateTime<Utc> {
        self.about.started.unwrap_or_default()
    }

    pub(super) fn judge(&self) -> String {
        self.report.judges.join(", ")
    }

    /// What tells that the observations of its attempts are others than before.
    pub(super) fn rests_on(&self) -> String {
        let Fingerprint { attempts, told, .. } = self.fingerprint;
        format!("{attempts} {told} {}", self.report.run_id)
    }

    /// Whether its figures are still those that it has: nothing that they rest on has come since `last`.
    fn holds(&self, last: &Board, next: &Board, print: Fingerprint, about: &About) -> bool {
        last.filters == next.filters
            && self.fingerprint == print
            && self.about == *about
            && (self.is_whole() || last.benchmarks == next.benchmarks)
    }

    /// Whether it has attempted all that it set out to.
    fn is_whole(&self) -> bool {
        let planned = self
            .about
            .attempts
            .zip(self.about.questions)
            .map(|(attempts, questions)| attempts.saturating_mul(questions));
        self.report.unknown.missing == 0 && planned.is_none_or(|planned| self.report.coverage.attempts >= planned)
    }

    /// Whether as many of its attempts have a verdict as a comparison needs: not while it is being made.
    pub(super) fn is_settled(&self) -> bool {
        self.report.coverage.share() >= COVERAGE_MIN
    }

    /// Whether it is being made: its score is of the questions that happened to come first.
    pub(super) fn is_under_way(&self) -> bool {
        self.about.state.as_deref() == Some("started") && !self.is_settled()
    }
}

impl Board {
    /// The runs over a benchmark, from the oldest.
    pub(super) fn of(&self, benchmark: &str) -> Vec<&Arc<Entry>> {
        let mut runs: Vec<&Arc<Entry>> = self.runs.values().filter(|entry| entry.benchmark == benchmark).collect();
        runs.sort_by_key(|entry| (entry.started(), entry.report.run_id.clone()));
        runs
    }

    /// The benchmarks that there are runs over.
    pub(super) fn benchmarks(&self) -> BTreeSet<&str> {
        self.runs.values().map(|entry| entry.benchmark.as_str()).collect()
    }

    /// For each policy and benchmark the run that stands for it: of those with most questions the latest that is settled, or
    /// else the latest.
    pub(super) fn cells(&self) -> BTreeMap<(String, &str), &Arc<Entry>> {
        let mut cells: BTreeMap<(String, &str), &Arc<Entry>> = BTreeMap::new();
        for entry in self.runs.values() {
            let key = (entry.policy(), entry.benchmark.as_str());
            let weight = |entry: &Entry| (entry.report.coverage.questions, entry.is_settled(), entry.started());
            if cells.get(&key).is_none_or(|held| weight(held) < weight(entry)) {
                cells.insert(key, entry);
            }
        }
        cells
    }
}

/// The tables that scores are made of.
pub(super) const KINDS: [Kind; 4] = [Kind::Trajectory, Kind::Judgment, Kind::Qa, Kind::Run];

impl Dashboard {
    /// Every run with its scores.
    pub(super) async fn board(&self) -> Result<Computed<Arc<Board>>, Fault> {
        let app = self.clone();
        self.memo("board", &KINDS, async move {
            // One at a time: the next begins with what this one knows.
            let mut last = app.last_board().lock().await;
            let board = Arc::new(next(&app, last.as_deref()).await?);
            *last = Some(board.clone());
            Ok(board)
        })
        .await
    }

    /// The options of a report, as the command has them, with what a run's tokens cost.
    pub(super) fn options(&self, run: &Run) -> Options {
        Options { prices: self.settings().prices.of_run(run), ..Options::default() }
    }

    /// The attempts of one run.
    pub(super) async fn run_of(&self, run_id: &str) -> Result<Computed<Run>, Fault> {
        let (app, id) = (self.clone(), run_id.to_string());
        self.memo(&format!("run {run_id}"), &KINDS, async move {
            let found = attempts_of(&app, std::iter::once(id.as_str())).await?;
            let missing = || Fault::Missing(format!("run {:?} has no attempts", format::clipped(&id, 60)));
            found.into_iter().find(|run| run.run_id == id).ok_or_else(missing)
        })
        .await
    }

    /// What judges said of the answers of these runs, by run.
    pub(super) async fn votes<'a>(
        &self,
        ids: impl IntoIterator<Item = &'a str>,
    ) -> Result<BTreeMap<String, Votes>, Fault> {
        let ids: Vec<&str> = ids.into_iter().collect();
        // Most lakes have none, and joining attempts with one another is not for nothing.
        if ids.is_empty() || self.rows(ANY_VOTES).await?.is_empty() {
            return Ok(BTreeMap::new());
        }
        let said = votes::judged(&self.batches(&votes::sql(&of_runs(ids))).await?)?;
        Ok(said.into_iter().map(|(run, said)| (run, Votes(Some(said)))).collect())
    }
}

async fn attempts_of<'a>(app: &Dashboard, ids: impl IntoIterator<Item = &'a str>) -> Result<Vec<Run>, Fault> {
    run::read(attempts::sql(&of_runs(ids)), |sql| async move { app.batches(&sql).await }).await
}

async fn next(app: &Dashboard, last: Option<&Board>) -> Result<Board, Fault> {
    let (prints, abouts, common) = futures::try_join!(app.rows(FINGERPRINTS), app.rows(ABOUTS), app.rows(COMMON))?;
    let [filters, benchmarks] = ["filters", "benchmarks"].map(|name| number(common.first(), name));
    let mut abouts: BTreeMap<String, About> = abouts.iter().map(|row| (text(row, "run_id"), about(row))).collect();
    let mut prints: Vec<(String, Fingerprint)> = prints.iter().map(fingerprint).collect();
    // The latest runs are kept, where there are more than can be.
    prints.sort_by_key(|(id, _)| std::cmp::Reverse(abouts.get(id).and_then(|about| about.started)));
    let left_out = prints.len().saturating_sub(RUNS_MAX);
    prints.truncate(RUNS_MAX);

    let mut board = Board { filters, benchmarks, left_out, runs: BTreeMap::new() };
    let mut due = Vec::new();
    for (id, print) in prints {
        let about = abouts.remove(&id).unwrap_or_default();
        let known = last.and_then(|last| Some((last, last.runs.get(&id)?)));
        match known.filter(|(last, entry)| entry.holds(last, &board, print, &about)) {
            Some((_, entry)) => {
                board.runs.insert(id, entry.clone());
            }
            None => due.push((id, print, about)),
        }
    }
    while !due.is_empty() {
        let mut attempts = 0;
        let some = due.iter().take_while(|(_, print, _)| {
            attempts += print.attempts;
            attempts <= ATTEMPTS_AT_ONCE
        });
        let some = some.count().max(1);
        let some: Vec<Due> = due.drain(..some.min(due.len())).collect();
        read(app, &mut board, some).await?;
    }
    Ok(board)
}

/// A run whose figures are to be made.
type Due = (String, Fingerprint, About);

/// Reads the attempts of some runs, and makes their figures.
async fn read(app: &Dashboard, board: &mut Board, due: Vec<Due>) -> Result<(), Fault> {
    let mut found = attempts_of(app, due.iter().map(|(id, ..)| id.as_str())).await?;
    // Few runs have any, and they are asked for alone.
    let voted: Vec<&str> = due.iter().filter(|(_, print, _)| print.votes > 0).map(|(id, ..)| id.as_str()).collect();
    let mut votes = app.votes(voted).await?;
    let app = app.clone();
    // Bootstraps take their time, which is not to be that of other pages.
    let made = tokio::task::spawn_blocking(move || {
        let mut entries = Vec::new();
        for (id, fingerprint, about) in due {
            let Some(at) = found.iter().position(|run| run.run_id == id) else { continue };
            let run = found.swap_remove(at);
            let votes = votes.remove(&id).unwrap_or_default();
            entries.push((id, Arc::new(entry(&app, &run, &votes, fingerprint, about))));
        }
        entries
    });
    board.runs.extend(made.await.map_err(|error| Fault::failed("the scores cannot be computed", &error))?);
    Ok(())
}

fn entry(app: &Dashboard, run: &Run, votes: &Votes, fingerprint: Fingerprint, about: About) -> Entry {
    let options = Options { by: Vec::new(), ..app.options(run) };
    Entry {
        fingerprint,
        benchmark: benchmark_of(run, &about),
        restricted: run.questions.iter().any(|question| question.restricted),
        report: votes.report(run, &options),
        about,
    }
}

/// The benchmark that a run was begun with; else what its questions say, or how they were made.
fn benchmark_of(run: &Run, about: &About) -> String {
    if let Some(named) = &about.benchmark {
        return named.clone();
    }
    let names: BTreeSet<String> = run
        .questions
        .iter()
        .map(|question| {
            question.facet("benchmark").or_else(|| question.facet("method")).unwrap_or_else(|| "unknown".into())
        })
        .collect();
    names.into_iter().collect::<Vec<_>>().join(" and ")
}

/// A trainer's rollouts are far more than all else, and are looked at by its metrics.
const FINGERPRINTS: &str = "SELECT coalesce(t.run_id, '') AS run_id, count(*) AS attempts, \
      coalesce(sum(j.verdicts), 0) AS verdicts, coalesce(sum(j.votes), 0) AS votes, coalesce(sum(q.told), 0) AS told \
    FROM trajectories AS t \
    LEFT JOIN (SELECT qa_id, count(*) AS told FROM qa GROUP BY qa_id) AS q ON q.qa_id = t.qa_id \
    LEFT JOIN (SELECT trajectory_id, count(*) FILTER (WHERE stage <> 'equivalence') AS verdicts, \
        count(*) FILTER (WHERE stage = 'equivalence') AS votes FROM judgments \
      WHERE stage IN ('correctness', 'override', 'equivalence') GROUP BY trajectory_id) AS j \
      ON j.trajectory_id = t.trajectory_id \
    WHERE coalesce(t.run_id, '') NOT IN (SELECT run_id FROM run_state WHERE kind IN ('sft', 'dapo')) \
    GROUP BY coalesce(t.run_id, '')";

const ANY_VOTES: &str = "SELECT event_id FROM judgments WHERE stage = 'equivalence' LIMIT 1";

const COMMON: &str = "SELECT (SELECT count(*) FROM qa WHERE method = 'benchmark') AS benchmarks, \
    (SELECT count(*) FROM runs WHERE kind = 'filter') AS filters";

const ABOUTS: &str = "SELECT run_id, kind, state, started, updated, code_version, \
      json_get_str(config, 'benchmark', 'benchmark') AS benchmark, \
      json_get_str(config, 'benchmark', 'digest') AS benchmark_digest, \
      json_get_str(config, 'policy') AS policy, json_get_str(config, 'web') AS web, \
      json_get_json(config, 'settings', 'endpoint') AS endpoint, json_get_json(config, 'settings', 'services') AS services, \
      json_get_str(config, 'settings', 'summariser', 'model') AS summariser, \
      json_get_json(config, 'settings') IS NOT NULL AS settings_kept, \
      json_get_int(config, 'attempts') AS attempts, json_length(config, 'qa_ids') AS questions \
    FROM run_state WHERE kind NOT IN ('sft', 'dapo')";

fn fingerprint(row: &Map<String, Value>) -> (String, Fingerprint) {
    let of = |name: &str| number(Some(row), name).unwrap_or(0);
    let print =
        Fingerprint { attempts: of("attempts"), verdicts: of("verdicts"), votes: of("votes"), told: of("told") };
    (text(row, "run_id"), print)
}

fn about(row: &Map<String, Value>) -> About {
    let maybe = |name: &str| row.get(name).and_then(Value::as_str).map(str::to_string);
    let time = |name: &str| row.get(name).and_then(Value::as_str).and_then(format::parsed_time);
    About {
        kind: maybe("kind"),
        state: maybe("state"),
        started: time("started"),
        updated: time("updated"),
        benchmark: maybe("benchmark"),
        benchmark_digest: maybe("benchmark_digest"),
        policy: maybe("policy"),
        web: maybe("web"),
        settings_kept: row.get("settings_kept").and_then(Value::as_bool).unwrap_or(false),
        endpoint: maybe("endpoint"),
        summariser: maybe("summariser"),
        services: maybe("services"),
        attempts: number(Some(row), "attempts"),
        questions: number(Some(row), "questions"),
        code_version: maybe("code_version"),
    }
}

fn text(row: &Map<String, Value>, name: &str) -> String {
    row.get(name).and_then(Value::as_str).unwrap_or_default().to_string()
}

fn number(row: Option<&Map<String, Value>>, name: &str) -> Option<u64> {
    row?.get(name)?.as_u64()
}

/// What a run's own events say of it; None of a run that there is not.
pub(super) async fn run_state(app: &Dashboard, run_id: &str) -> Result<Option<Map<String, Value>>, Fault> {
    let statement = format!(
        "SELECT run_id, kind, state, started, updated, config, code_version, pin_id, seed, parent_run, artifacts, error \
         FROM run_state WHERE run_id = {}",
        sql::text(run_id)
    );
    let (reading, key) = (app.clone(), format!("state {run_id}"));
    let state = app.memo(&key, &[Kind::Run], async move {
        let rows: state::Rows = reading.rows(&statement).await?;
        Ok(rows.into_iter().next())
    });
    Ok((*state.await?.value).clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run that set out to attempt one question twice, and has so many attempts.
    fn entry_of(attempts: u64) -> Entry {
        let run = Run { run_id: "r".to_string(), ..Run::default() };
        let mut report = report(&run, &Options::default(), &RulesAlone);
        report.coverage.attempts = attempts;
        Entry {
            fingerprint: Fingerprint { attempts, told: attempts, ..Fingerprint::default() },
            about: About { attempts: Some(2), questions: Some(1), ..About::default() },
            benchmark: "b".to_string(),
            restricted: false,
            report,
        }
    }

    fn board(filters: u64, benchmarks: u64) -> Board {
        Board { filters: Some(filters), benchmarks: Some(benchmarks), ..Board::default() }
    }

    #[test]
    fn a_run_is_read_again_when_its_own_events_change_and_not_when_others_questions_come() {
        let (whole, begun) = (entry_of(2), entry_of(1));
        let holds = |entry: &Entry, next: &Board, told: u64| {
            let print = Fingerprint { told, ..entry.fingerprint };
            entry.holds(&board(1, 10), next, print, &entry.about)
        };
        assert!(holds(&whole, &board(1, 11), 2), "a question that it did not ask");
        assert!(!holds(&whole, &board(1, 10), 3), "its question was told again");
        assert!(!holds(&whole, &board(2, 10), 2), "other verdicts are in force");
        // What it has yet to attempt is told by the benchmark.
        assert!(!holds(&begun, &board(1, 11), 1) && holds(&begun, &board(1, 10), 1));
        let more = Fingerprint { verdicts: 1, ..whole.fingerprint };
        assert!(!whole.holds(&board(1, 10), &board(1, 10), more, &whole.about));
    }
}
