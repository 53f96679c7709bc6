//! Sampling on several machines, with a real broker: whoever is killed, each attempt is there once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use webdancer_tests::stub_model::{Answer, StubModel};

use crate::harness::{LIMIT, Running, Site, kills, pause, rng, say, wait_for};
use crate::kafka::{broker, config};

const QUESTIONS: usize = 30;
const ATTEMPTS: usize = 2;
/// Kills, at least.
const KILLS_MIN: u32 = 10;
/// How long a worker may take to begin: the group waits for the session of a killed one to end.
const BEGINS: Duration = Duration::from_secs(60);

/// A model that takes a moment and never says the same twice.
fn model(runtime: &Runtime) -> StubModel {
    let said = AtomicU64::new(0);
    let answer = move |_: &_, _| {
        let number = said.fetch_add(1, Ordering::Relaxed);
        let text = format!("<think>\nI know.\n</think>\n<answer>\nnumber {number}\n</answer>");
        Answer::says(text).late(Duration::from_millis(60 + number % 5 * 80))
    };
    runtime.block_on(StubModel::scripted(answer))
}

/// A lake with questions, and settings for workers that share attempts.
fn site(server: &crate::servers::Server, name: &str, model: &StubModel) -> Site {
    let settings = format!(
        "{}[tasks]\npartitions = 4\n[sample]\nconcurrency = 3\n\
         [roles]\nagent = \"stub\"\n[endpoints.stub]\nurl = \"{}\"\nmodel = \"stub\"\n\
         [web.search]\nengine = \"searxng\"\nurl = \"http://127.0.0.1:9/\"\n",
        config(server, name, 2, 1 << 20),
        model.url()
    );
    let site = Site::new(&settings);
    let question = |number: usize| {
        let data =
            json!({"qa_id": format!("q{number}"), "method": "import", "question": format!("{number}?"), "answer": "1"});
        json!({"specversion": "1.0", "id": format!("q{number}"), "source": "test", "type": "webdancer.qa.v1", "data": data})
            .to_string()
    };
    site.append(&(0..QUESTIONS).map(question).collect::<Vec<String>>());
    ingest(&site);
    site
}

fn ingest(site: &Site) {
    site.ok(&["ingest", "--kinds", "qa,trajectory,run,dead_letter", "--until-caught-up"]);
}

fn sample(site: &Site, arguments: &[&str]) -> Running {
    let all = [&["sample", "--max-time", "100"], arguments].concat();
    site.spawn(&all)
}

/// Begins a run and shares its attempts; its id.
fn begin(site: &Site) -> (Running, String) {
    let sharer = sample(site, &["--share", "--attempts", &ATTEMPTS.to_string()]);
    let run = wait_for("run", BEGINS, || {
        let told = sharer.told();
        let after = told.split_once("--join ")?.1;
        Some(after.split_whitespace().next()?.to_string())
    });
    (sharer, run)
}

/// Each attempt of a run, by question and number: how often it is there.
fn attempts(site: &Site, run: &str) -> BTreeMap<(String, i64), i64> {
    let sql = format!(
        "SELECT qa_id, attempt, count(*) AS rows, count(DISTINCT trajectory_id) AS ids FROM trajectories \
         WHERE run_id = '{run}' GROUP BY qa_id, attempt"
    );
    let number = |row: &Value, name: &str| row[name].as_i64().unwrap();
    let found = site.sql(&sql);
    assert!(found.iter().all(|row| number(row, "rows") == number(row, "ids")), "{found:?}");
    let key = |row: &Value| (row["qa_id"].as_str().unwrap().to_string(), number(row, "attempt"));
    found.iter().map(|row| (key(row), number(row, "rows"))).collect()
}

fn all_once() -> BTreeMap<(String, i64), i64> {
    let pairs = (0..QUESTIONS).flat_map(|q| (0..ATTEMPTS as i64).map(move |attempt| (format!("q{q}"), attempt)));
    pairs.map(|pair| (pair, 1)).collect()
}

/// Kills two workers, one after the other, at any moment; somebody else takes their places. How many it killed: who has
/// ended by itself cannot be.
fn kill_two(site: &Site, run: &str, workers: &mut Vec<Running>, rng: &mut ChaCha8Rng) -> u32 {
    let mut killed = 0;
    for _ in 0..2 {
        pause(rng, 1200);
        let gone = workers.swap_remove(rng.random_range(0..workers.len()));
        match gone.kill_or_end() {
            None => killed += 1,
            // All attempts were made before its turn came.
            Some(code) => assert_eq!(code, 0),
        }
        workers.push(sample(site, &["--join", run]));
    }
    killed
}

#[test]
fn two_workers_killed_at_any_point_leave_each_attempt_exactly_once() {
    let Some((server, _up)) = broker() else { return };
    let mut rng = rng("killed-sampler");
    let runtime = Runtime::new().unwrap();
    let model = model(&runtime);
    let site = site(server, "killed-sampler", &model);
    let (mut killed, mut round) = (0, 0);
    while killed < kills().max(KILLS_MIN) {
        round += 1;
        let before = model.asked().len();
        let (sharer, run) = begin(&site);
        let mut workers = vec![sharer, sample(&site, &["--join", &run])];
        killed += kill_two(&site, &run, &mut workers, &mut rng);
        for worker in workers {
            let finished = worker.finish(LIMIT);
            assert_eq!(finished.status.code(), Some(0), "{finished:?}");
        }
        ingest(&site);
        assert_eq!(attempts(&site, &run), all_once(), "round {round}");
        let state = site.sql(&format!("SELECT state FROM run_state WHERE run_id = '{run}'"));
        assert_eq!(state, [json!({"state": "finished"})]);
        say(&format!("round {round}: {killed} kills, the model was asked {} times", model.asked().len() - before));
    }
    assert_eq!(site.number("SELECT count(*) FROM dead_letters"), 0);
}

#[test]
fn a_run_whose_sharer_is_killed_is_shared_again_and_repeats_nothing() {
    let Some((server, _up)) = broker() else { return };
    let mut rng = rng("killed-sharer");
    let runtime = Runtime::new().unwrap();
    let model = model(&runtime);
    let site = site(server, "killed-sharer", &model);
    let (sharer, run) = begin(&site);
    pause(&mut rng, 800);
    sharer.kill();
    ingest(&site);
    let made = attempts(&site, &run).len();
    let again = sample(&site, &["--run", &run, "--share", "--json"]).finish(LIMIT);
    assert_eq!(again.status.code(), Some(0), "{again:?}");
    ingest(&site);
    assert_eq!(attempts(&site, &run), all_once());
    let report: Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!(report["made_before"], made);

    // There is nothing left: neither for a repetition nor for a machine that joins late.
    let asked = model.asked().len();
    for arguments in
        [&["--run", &run, "--json"][..], &["--run", &run, "--share", "--json"], &["--join", &run, "--json"]]
    {
        let finished = sample(&site, arguments).finish(LIMIT);
        assert_eq!(finished.status.code(), Some(0), "{finished:?}");
        let report: Value = serde_json::from_str(&finished.stdout).unwrap();
        assert_eq!((&report["trajectories"], &report["left"]), (&json!(0), &json!(0)), "{report}");
    }
    assert_eq!(model.asked().len(), asked);
}
