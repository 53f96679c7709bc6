//! A run over a benchmark, killed at any moment: each attempt is there once, and the scores are those of a run that
//! nobody killed.
//!
//! 500 questions, three attempts at each; `WEBDANCER_EVAL_QUESTIONS` makes it fewer.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use webdancer_tests::stub_model::{Answer, Asked, StubModel};

use crate::harness::{Running, Site, pause, rng, say, wait_for};

const ATTEMPTS: usize = 3;
const KILLS: usize = 5;
/// The whole run, killed or not.
const LIMIT: Duration = Duration::from_secs(900);

fn questions() -> usize {
    let asked = std::env::var("WEBDANCER_EVAL_QUESTIONS").map(|text| text.parse());
    asked.map_or(500, |number| number.expect("WEBDANCER_EVAL_QUESTIONS is a number"))
}

/// A policy whose answer follows from question and seed, as a deterministic engine's does, and a judge. Both take a
/// moment; now and then the judge is out.
fn model(runtime: &Runtime) -> StubModel {
    let answer = |asked: &Asked, number: usize| {
        let late = Duration::from_millis(number as u64 % 4 * 3);
        let told = asked.body["messages"][1]["content"].as_str().unwrap();
        if let Ok(case) = serde_json::from_str::<Value>(told) {
            if number.is_multiple_of(97) {
                return Answer::status(503).header("retry-after", "0");
            }
            let verdict = if case["given_answer"] == case["reference_answer"] { "Correct" } else { "Incorrect" };
            return Answer::says(verdict).late(late);
        }
        let question = told.rsplit("User: ").next().unwrap();
        let number: u64 = question.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap();
        let seed = asked.body["seed"].as_u64().unwrap();
        let answer = if (number + seed) % 5 < 2 { format!("answer {number}") } else { "something else".to_string() };
        Answer::says(format!("<think>\nI know.\n</think>\n<answer>\n{answer}\n</answer>")).late(late)
    };
    runtime.block_on(StubModel::scripted(answer))
}

fn site(model: &StubModel) -> Site {
    let site = Site::new(&format!(
        "[sample]\nconcurrency = 8\n[roles]\nagent = \"stub\"\njudge = \"stub\"\n[endpoints.stub]\nurl = \"{}\"\n\
         model = \"stub\"\n[web.search]\nengine = \"searxng\"\nurl = \"http://127.0.0.1:9/\"\n\
         [benchmarks.numbers]\nfile = \"numbers.jsonl\"\nscorer = \"judge\"\njudge_style = \"match\"\n\
         [scheduler]\nlease_ms = 3000\n",
        model.url()
    ));
    let row =
        |number: usize| json!({"question": format!("What is number {number}?"), "answer": format!("answer {number}")});
    let rows: Vec<String> = (0..questions()).map(|number| row(number).to_string()).collect();
    std::fs::write(site.path("numbers.jsonl"), rows.join("\n")).unwrap();
    site
}

fn begin(site: &Site) -> Running {
    site.spawn(&["eval", "run", "numbers", "--attempts", &ATTEMPTS.to_string(), "--judge", "exact"])
}

/// The run's id, as soon as it is told.
fn told(running: &Running) -> String {
    wait_for("run", Duration::from_secs(120), || {
        let told = running.told();
        let id = told.split_once("run ")?.1.split_once(':')?.0.to_string();
        (id.len() == 36).then_some(id)
    })
}

/// Each attempt with its verdicts, and how often it is there.
fn scores(site: &Site, run: &str) -> Vec<Value> {
    site.sql(&format!(
        "SELECT e.qa_id, e.attempt, e.correct, e.answer, t.recorded FROM evaluations AS e \
         JOIN (SELECT trajectory_id, count(*) AS recorded FROM trajectories GROUP BY trajectory_id) AS t \
           ON t.trajectory_id = e.trajectory_id \
         WHERE e.run_id = '{run}' ORDER BY e.qa_id, e.attempt"
    ))
}

#[test]
fn a_run_killed_at_any_point_ends_with_each_attempt_once_and_the_scores_of_one_that_was_not() {
    let mut rng = rng("killed-eval");
    let runtime = Runtime::new().unwrap();
    let model = model(&runtime);
    let whole = site(&model);
    let begun = Instant::now();
    let running = begin(&whole);
    let whole_run = told(&running);
    let finished = running.finish(LIMIT);
    assert_eq!(finished.status.code(), Some(0), "{finished:?}");
    let took = begun.elapsed();

    let killed = site(&model);
    let running = begin(&killed);
    let run = told(&running);
    let mut kills = 0;
    let mut running = running;
    // The last part of the run may be short: it is not killed before it is seen to begin, and ends when it ends.
    while kills < KILLS {
        // Who comes next waits until the claim of the dead is over.
        wait_for("attempts", LIMIT, || running.told().contains(" attempts to make").then_some(()));
        let most = u64::try_from(took.as_millis()).unwrap() / KILLS as u64;
        pause(&mut rng, most);
        if running.kill_or_end().is_none() {
            kills += 1;
        }
        running = killed.spawn(&["eval", "run", "--run", &run]);
    }
    let finished = running.finish(LIMIT);
    assert_eq!(finished.status.code(), Some(0), "{finished:?}");

    let (of_whole, of_killed) = (scores(&whole, &whole_run), scores(&killed, &run));
    assert_eq!(of_killed.len(), questions() * ATTEMPTS);
    assert!(of_killed.iter().all(|row| row["recorded"] == 1), "an attempt is there twice");
    assert!(of_killed.iter().any(|row| row["correct"] == true) && of_killed.iter().any(|row| row["correct"] == false));
    assert_eq!(of_killed, of_whole);
    let settled = "SELECT count(*) AS verdicts, count(DISTINCT trajectory_id) AS trajectories FROM judgments \
        WHERE verdict <> 'error' AND judge <> 'exact'";
    assert_eq!(killed.sql(settled), whole.sql(settled));
    assert_eq!(killed.number("SELECT count(*) FROM dead_letters"), 0);
    let state = killed.sql(&format!("SELECT state FROM run_state WHERE run_id = '{run}'"));
    assert_eq!(state, [json!({"state": "finished"})]);
    let (all, asked) = (questions() * ATTEMPTS, model.asked().len());
    say(&format!("{all} attempts, whole in {took:?}, with {kills} kills the same; the model was asked {asked} times"));
}
