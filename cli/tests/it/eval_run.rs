//! `webdancer eval`: runs over a benchmark, their scores, and what is done with them afterwards.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use webdancer_schemas::id::EventId;
use webdancer_schemas::kind::Kind;
use webdancer_tests::stub_model::{Answer, StubModel};

use crate::lake::{PLACES, append, bridges, document, sql};
use crate::{start, text, webdancer};

/// A policy that knows every designer but Lund's, and a judge that lets anything pass that names one.
fn models(runtime: &Runtime) -> StubModel {
    runtime.block_on(StubModel::scripted(|asked, _| {
        let told = asked.body["messages"][1]["content"].as_str().unwrap();
        if let Ok(case) = serde_json::from_str::<Value>(told) {
            let names_one = PLACES.iter().any(|(_, designer, _)| case["given_answer"] == json!(designer));
            return Answer::says(if names_one { "Correct" } else { "Incorrect" });
        }
        let question = told.rsplit("User: ").next().unwrap();
        let answer = match PLACES.into_iter().find(|(place, ..)| question.contains(place)).unwrap() {
            ("Lund", ..) => "Ida Storm",
            (_, designer, _) => designer,
        };
        Answer::says(format!("<think>\nI know.\n</think>\n<answer>\n{answer}\n</answer>"))
    }))
}

/// A lake with the pin `pages`, and a gated benchmark about three places.
pub(crate) fn site(model: &StubModel) -> tempfile::TempDir {
    let url = model.url();
    let settings = format!(
        "[roles]\nagent = \"stub\"\njudge = \"stub\"\n[endpoints.stub]\nurl = \"{url}\"\nmodel = \"stub\"\n\
         [benchmarks.bridges]\nfile = \"bridges.jsonl\"\nquestion = \"q\"\nanswer = \"gold\"\nrestricted = true\n\
         scorer = \"exact\"\njudge_style = \"match\"\nterms = \"Ours.\"\n[benchmarks.bridges.attributes]\nlevel = \"level\"\n"
    );
    let folder = bridges(&settings);
    let rows = PLACES[..3].iter().zip(1..).map(|((place, designer, _), level)| {
        json!({"q": format!("Who designed the bridge at {place}?"), "gold": designer, "level": level}).to_string()
    });
    std::fs::write(folder.path().join("bridges.jsonl"), rows.collect::<Vec<String>>().join("\n")).unwrap();
    document(folder.path(), 0, &["pin", "create", "pages", "--sql", "SELECT url, title, text FROM pages"]);
    folder
}

const RUN: [&str; 6] = ["eval", "run", "bridges", "--web", "closed:pages", "--attempts"];

fn run(folder: &Path) -> Value {
    document(folder, 0, &[&RUN[..], &["2"]].concat())
}

/// Verdicts in force, by level and attempt.
const SCORES: &str = "SELECT q.attributes->>'level' AS level, e.attempt, e.correct, e.judge FROM evaluations AS e \
    JOIN current_qa AS q ON q.qa_id = e.qa_id ORDER BY 1, 2";

#[test]
fn a_run_is_scored_by_the_benchmarks_scorer_with_a_judge_beside_it() {
    let runtime = Runtime::new().unwrap();
    let model = models(&runtime);
    let folder = site(&model);
    let report = run(folder.path());
    let scores = &report["scores"];
    assert_eq!((&scores["attempts"], &scores["judged"], &scores["correct"]), (&json!(6), &json!(6), &json!(4)));
    assert!((scores["pass_at_1"].as_f64().unwrap() - 2.0 / 3.0).abs() < 1e-12, "{scores}");
    // The judge lets Lund's wrong designer pass.
    assert_eq!((&scores["judged_by_both"], &scores["agreed"]), (&json!(6), &json!(4)));
    assert_eq!(
        (&report["scorers"]["counts"]["by"], &report["scorers"]["beside"]["by"]),
        (&json!("exact"), &json!("judge"))
    );

    let row = |level: &str, attempt, correct| json!({"level": level, "attempt": attempt, "correct": correct, "judge": "exact"});
    let by = |level, correct| [row(level, 0, correct), row(level, 1, correct)];
    let due: Vec<Value> = [by("1", true), by("2", false), by("3", true)].concat();
    assert_eq!(sql(folder.path(), SCORES), json!(due));

    // Everything that the run is, is in its event; the questions are known as a gated benchmark's.
    let config = "SELECT kind, state, config->'benchmark'->>'digest' AS digest, config->>'policy' AS policy, \
        config->'scorers'->'beside'->>'rule_version' AS prompt, config->>'web' LIKE 'closed:%' AS closed, code_version, seed \
        FROM run_state WHERE kind = 'eval'";
    let version = match option_env!("WEBDANCER_COMMIT") {
        Some(commit) if !commit.is_empty() => format!("0.1.0+{commit}"),
        _ => "0.1.0".to_string(),
    };
    assert_eq!(
        sql(folder.path(), config),
        json!([{"kind": "eval", "state": "finished", "digest": report["benchmark_digest"], "policy": "endpoint:stub",
            "prompt": "1", "closed": true, "code_version": version, "seed": 0}])
    );
    let gated = "SELECT (SELECT count(*) FROM trajectories WHERE restricted) AS trajectories, \
        (SELECT count(*) FROM qa WHERE json_get_bool(attributes, 'restricted')) AS questions, \
        (SELECT count(*) FROM sft_pool) AS pool";
    assert_eq!(sql(folder.path(), gated), json!([{"trajectories": 6, "questions": 3, "pool": 0}]));
    for (pin, query) in
        [("t", "SELECT * FROM trajectories"), ("q", "SELECT * FROM qa"), ("e", "SELECT * FROM evaluations")]
    {
        document(folder.path(), 0, &["pin", "create", pin, "--sql", query]);
        let exported = webdancer(folder.path(), &["pin", "export", pin, "--format", "ndjson"], b"");
        assert_eq!((text(&exported.stdout).as_str(), exported.status.code()), ("", Some(0)), "{pin}");
        assert!(text(&exported.stderr).contains("rows of gated benchmarks are left out"), "{pin}");
    }
}

#[test]
fn a_run_that_was_stopped_goes_on_without_its_file_and_repeats_nothing() {
    let runtime = Runtime::new().unwrap();
    let model = models(&runtime);
    let folder = site(&model);
    let stopped = document(folder.path(), 3, &[&RUN[..], &["2", "--max-trajectories", "2"]].concat());
    assert_eq!(stopped["sampled"]["trajectories"], 2);
    std::fs::remove_file(folder.path().join("bridges.jsonl")).unwrap();
    let id = stopped["run_id"].as_str().unwrap();
    // What is still to be made is neither right nor wrong, and is told.
    let reports = document(folder.path(), 0, &["eval", "report", "--run", id, "--by", "level"]);
    let (report, coverage) = (&reports[0], &reports[0]["coverage"]);
    assert_eq!(
        (&report["unknown"]["missing"], &coverage["attempts"], &coverage["questions"]),
        (&json!(4), &json!(6), &json!(3))
    );
    let levels: Vec<&Value> = report["slices"].as_array().unwrap().iter().map(|slice| &slice["value"]).collect();
    assert_eq!(levels, [&json!("1"), &json!("2"), &json!("3")]);
    assert!(coverage["bounds"]["high"].as_f64().unwrap() - coverage["bounds"]["low"].as_f64().unwrap() > 0.6);
    let refused = webdancer(folder.path(), &["eval", "votes", "no-run"], b"");
    assert!(text(&refused.stderr).contains("is no id of a run"), "{}", text(&refused.stderr));
    let report = document(folder.path(), 0, &["eval", "run", "--run", id]);
    assert_eq!((&report["made_before"], &report["sampled"]["trajectories"]), (&json!(2), &json!(4)));
    assert_eq!(report["scores"]["correct"], 4);
    let asked = model.asked().len();
    let again = document(folder.path(), 0, &["eval", "run", "--run", id]);
    assert_eq!((&again["scores"], model.asked().len()), (&report["scores"], asked));
    let once = "SELECT count(*) AS n, count(DISTINCT trajectory_id) AS ids FROM trajectories";
    assert_eq!(sql(folder.path(), once), json!([{"n": 6, "ids": 6}]));
    assert_eq!(sql(folder.path(), "SELECT count(*) AS n FROM judgments"), json!([{"n": 12}]));
}

#[test]
fn a_run_that_a_process_works_on_is_left_alone_and_is_taken_over_when_that_one_is_dead() {
    let runtime = Runtime::new().unwrap();
    let is_slow = Arc::new(AtomicBool::new(true));
    let slow = is_slow.clone();
    let model = runtime.block_on(StubModel::scripted(move |_, _| {
        let answer = Answer::says("<think>\nI know.\n</think>\n<answer>\nIda Storm\n</answer>");
        if slow.load(Ordering::Relaxed) { answer.late(Duration::from_secs(600)) } else { answer }
    }));
    let site = site(&model);
    let folder = site.path();
    let settings = std::fs::read_to_string(folder.join("webdancer.toml")).unwrap();
    std::fs::write(folder.join("webdancer.toml"), format!("{settings}[scheduler]\nlease_ms = 3000\n")).unwrap();
    let mut first = start(folder, &[&RUN[..], &["1", "--judge", "none", "--concurrency", "1"]].concat());
    while model.asked().is_empty() {
        assert_eq!(first.try_wait().unwrap(), None);
        std::thread::sleep(Duration::from_millis(10));
    }
    let claimed = std::fs::read_dir(folder.join("lake/claims/run")).unwrap().next().unwrap().unwrap();
    let id = claimed.file_name().into_string().unwrap();

    let refused = webdancer(folder, &["--quiet", "eval", "run", "--run", &id], b"");
    let told = text(&refused.stderr);
    assert_eq!((refused.status.code(), told.lines().count()), (Some(4), 1), "{told}");
    let due = format!("webdancer: run {id} is held: process {} on ", first.id());
    assert!(told.starts_with(&due) && told.contains(" renews its claim of 3 s: nothing was asked. "), "{told}");
    assert_eq!(model.asked().len(), 1);

    first.kill().unwrap();
    first.wait().unwrap();
    is_slow.store(false, Ordering::Relaxed);
    let report = document(folder, 0, &["eval", "run", "--run", &id]);
    assert_eq!((&report["made_before"], &report["scores"]["attempts"]), (&json!(0), &json!(3)));
    assert_eq!(model.asked().len(), 1 + 3);
    // It was let go of: nobody has to wait for it.
    let newest = std::fs::read_dir(claimed.path()).unwrap().map(|file| file.unwrap().path()).max().unwrap();
    let claim: Value = serde_json::from_slice(&std::fs::read(newest).unwrap()).unwrap();
    assert_eq!(claim["expires"], claim["taken"]);
}

#[test]
fn a_verdict_on_another_answer_than_the_recorded_one_settles_nothing() {
    let runtime = Runtime::new().unwrap();
    // A policy that is out at first, then right once, and that never answers twice alike.
    let (is_out, turn) = (Arc::new(AtomicBool::new(true)), AtomicUsize::new(0));
    let out = is_out.clone();
    let model = runtime.block_on(StubModel::scripted(move |asked, _| {
        if out.load(Ordering::Relaxed) {
            return Answer::status(400);
        }
        let told = asked.body["messages"][1]["content"].as_str().unwrap();
        let (_, designer, _) = PLACES.into_iter().find(|(place, ..)| told.contains(place)).unwrap();
        let answer = match turn.fetch_add(1, Ordering::Relaxed) {
            0 => designer.to_string(),
            turn => format!("Nobody {turn}"),
        };
        Answer::says(format!("<think>\nI know.\n</think>\n<answer>\n{answer}\n</answer>"))
    }));
    let site = site(&model);
    let folder = site.path();
    let begun = document(folder, 3, &[&RUN[..], &["1", "--limit", "1", "--judge", "none"]].concat());
    let id = begun["run_id"].as_str().unwrap();
    is_out.store(false, Ordering::Relaxed);
    // Another process makes the attempt, too. It records its answer second, so that it is not kept, and scores it first.
    let plan = "SELECT json_get_str(config, 'run', 'start') AS start, json_get_str(config, 'qa_ids', 0) AS qa_id \
        FROM run_state WHERE kind = 'eval'";
    let plan = sql(folder, plan)[0].clone();
    let start: DateTime<Utc> = plan["start"].as_str().unwrap().parse().unwrap();
    let trajectory = EventId::derive(start, id, Kind::Trajectory, plan["qa_id"].as_str().unwrap(), 0).to_string();
    let verdict = EventId::derive(start, &format!("{id}/counts/verdict"), Kind::Judgment, &trajectory, 0).to_string();
    let row = json!({"trajectory_id": trajectory, "stage": "correctness", "verdict": "fail", "judge": "exact",
        "rule_version": 2, "criteria": {"place": "counts", "case": "0123456789abcdef0123456789abcdef"}});
    let other = json!({"specversion": "1.0", "id": verdict, "source": "webdancer/eval",
        "type": "webdancer.judgment.v1", "runid": id, "data": row});
    append(folder, &[other.to_string()]);

    let in_force = "SELECT trajectory_id, correct FROM evaluations";
    let twice = document(folder, 3, &["eval", "run", "--run", id]);
    assert_eq!((&twice["sampled"]["trajectories"], &twice["of_other_answers"]), (&json!(1), &json!(1)));
    assert_eq!(sql(folder, in_force), json!([{"trajectory_id": trajectory, "correct": false}]));
    // It is the recorded answer that is judged, without another being asked for.
    let asked = model.asked().len();
    let again = document(folder, 0, &["eval", "run", "--run", id]);
    assert_eq!((&again["scored"]["passed"], &again["of_other_answers"]), (&json!(1), &json!(0)));
    assert_eq!((&again["scores"]["judged"], &again["scores"]["correct"]), (&json!(1), &json!(1)));
    assert_eq!(sql(folder, in_force), json!([{"trajectory_id": trajectory, "correct": true}]));
    // That settles it.
    assert_eq!(document(folder, 0, &["eval", "run", "--run", id])["scored"]["passed"], 0);
    assert_eq!(sql(folder, "SELECT count(*) AS n FROM judgments"), json!([{"n": 2}]));
    assert_eq!(model.asked().len(), asked);
}

#[test]
fn a_run_goes_on_with_the_model_that_began_it() {
    let runtime = Runtime::new().unwrap();
    let model = models(&runtime);
    let site = site(&model);
    let folder = site.path();
    let settings = std::fs::read_to_string(folder.join("webdancer.toml")).unwrap();
    let settings = settings.replace("model = \"stub\"", "model = \"stub\"\nsampling.temperature = 0.5");
    std::fs::write(folder.join("webdancer.toml"), &settings).unwrap();
    let stopped = document(folder, 3, &[&RUN[..], &["1", "--judge", "none", "--max-trajectories", "2"]].concat());
    let id = stopped["run_id"].as_str().unwrap();
    let is_model = |name: &str| {
        let changed = settings.replace("model = \"stub\"", &format!("model = \"{name}\""));
        std::fs::write(folder.join("webdancer.toml"), changed).unwrap();
    };
    is_model("other");
    let asked = model.asked().len();
    let refused = webdancer(folder, &["eval", "run", "--run", id], b"");
    let due = format!(
        "the policy of run {id}, endpoint:stub with the model \"stub\", cannot act: endpoint stub has the model \"other\" \
         now; begin another run"
    );
    let told = text(&refused.stderr);
    assert!(refused.status.code() == Some(2) && told.contains(&due), "{told}");
    assert_eq!(model.asked().len(), asked);
    std::fs::write(folder.join("webdancer.toml"), settings.replace("temperature = 0.5", "temperature = 1.0")).unwrap();
    let told = text(&webdancer(folder, &["eval", "run", "--run", id], b"").stderr);
    assert!(told.contains("endpoint adds {\"temperature\":1.0} now, {\"temperature\":0.5} before"), "{told}");
    std::fs::write(folder.join("webdancer.toml"), settings.replace("judge = \"stub\"", "summariser = \"stub\""))
        .unwrap();
    let told = text(&webdancer(folder, &["eval", "run", "--run", id], b"").stderr);
    assert!(told.contains("the summariser is {") && told.contains(" now, nothing before"), "{told}");
    is_model("stub");
    assert_eq!(document(folder, 0, &["eval", "run", "--run", id])["scores"]["attempts"], 3);
    let sampled = "SELECT DISTINCT sampling_parameters->>'temperature' AS temperature FROM trajectories";
    assert_eq!(sql(folder, sampled), json!([{"temperature": "0.5"}]));
    // Where nobody is to act, nobody need be there.
    is_model("other");
    assert_eq!(document(folder, 0, &["eval", "run", "--run", id])["scores"]["attempts"], 3);
}

#[test]
fn what_an_endpoint_says_of_a_gated_question_is_told_and_not_kept() {
    let runtime = Runtime::new().unwrap();
    let model = runtime.block_on(StubModel::scripted(|asked, _| {
        let said = format!("cannot answer {}", asked.body["messages"][1]["content"].as_str().unwrap());
        Answer::json(&json!({"error": {"message": said}})).with_status(400)
    }));
    let site = site(&model);
    let folder = site.path();
    let settings = std::fs::read_to_string(folder.join("webdancer.toml")).unwrap();
    let few = format!("[sample]\nfailures_in_a_row_max = 2\n{settings}");
    std::fs::write(folder.join("webdancer.toml"), few).unwrap();
    for (attempts, why) in
        [("2", "too many attempts failed in a row: why is not kept of a gated benchmark"), ("1", "2 attempts failed")]
    {
        let limits = [attempts, "--limit", "2", "--concurrency", "1"];
        let output = webdancer(folder, &[&RUN[..], &limits].concat(), b"");
        let told = text(&output.stderr);
        assert!(output.status.code() == Some(3) && told.contains("cannot answer"), "{told}");
        let last = "SELECT error FROM runs WHERE kind = 'eval' AND state = 'stopped' ORDER BY event_time DESC LIMIT 1";
        assert_eq!(sql(folder, last), json!([{"error": why}]));
    }
}

#[test]
fn another_scorer_counts_without_the_policy_being_asked_and_a_person_above_both() {
    let runtime = Runtime::new().unwrap();
    let model = models(&runtime);
    let folder = site(&model);
    let first = run(folder.path());
    let id = first["run_id"].as_str().unwrap();
    let asked = model.asked().len();
    let rescored = document(folder.path(), 0, &["eval", "rescore", id, "--scorer", "judge", "--style", "match"]);
    assert_eq!((&rescored["scores"]["correct"], &rescored["scoring"]), (&json!(6), &json!(2)));
    // The judge had judged them beside the first scorer.
    assert_eq!(model.asked().len(), asked);
    let judges = "SELECT DISTINCT judge FROM evaluations";
    assert_eq!(sql(folder.path(), judges), json!([{"judge": "stub"}]));
    // The same again is the same; the first scorer again is another scoring.
    let again = document(folder.path(), 0, &["eval", "rescore", id, "--scorer", "judge", "--style", "match"]);
    assert_eq!((&again["scoring"], &again["scores"]), (&json!(2), &rescored["scores"]));
    let back = document(folder.path(), 0, &["eval", "rescore", id]);
    assert_eq!((&back["scoring"], &back["scores"]["correct"]), (&json!(3), &json!(4)));
    let state = "SELECT kind, state, parent_run FROM run_state WHERE kind = 'rescore'";
    let due = json!({"kind": "rescore", "state": "finished", "parent_run": id});
    assert_eq!(sql(folder.path(), state), json!([due, due]));

    let wrong = sql(folder.path(), "SELECT trajectory_id FROM evaluations WHERE NOT correct ORDER BY attempt LIMIT 1");
    let trajectory = wrong[0]["trajectory_id"].as_str().unwrap();
    let by = ["--author", "ada", "--reason", "she had two names"];
    document(folder.path(), 0, &[&["eval", "override", trajectory, "pass"][..], &by].concat());
    let row =
        format!("SELECT correct, judge, rationale, overridden FROM evaluations WHERE trajectory_id = '{trajectory}'");
    let due = json!([{"correct": true, "judge": "ada", "rationale": "she had two names", "overridden": true}]);
    assert_eq!(sql(folder.path(), &row), due);
    for (arguments, part) in [
        (&["eval", "override", "no-such", "pass", "--author", "ada", "--reason", "why"][..], "there is no trajectory"),
        (&["eval", "override", trajectory, "pass", "--author", " ", "--reason", "why"], "--author is empty"),
        (&["eval", "rescore", "0190a6b2-0000-7000-8000-000000000001"], "there is no run"),
    ] {
        let output = webdancer(folder.path(), arguments, b"");
        let told = text(&output.stderr);
        assert!(output.status.code() == Some(2) && told.contains(part), "{arguments:?}: {told}");
    }
}

/// The words of a name, in whichever order.
fn words(name: &str) -> Vec<&str> {
    let mut words: Vec<&str> = name.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    words.sort_unstable();
    words
}

#[test]
fn a_model_tells_which_answers_are_one_vote_and_is_asked_once() {
    let runtime = Runtime::new().unwrap();
    let turn = AtomicUsize::new(0);
    // A policy that names the designer in two ways, and somebody else, by turns.
    let model = runtime.block_on(StubModel::scripted(move |asked, _| {
        let told = asked.body["messages"][1]["content"].as_str().unwrap();
        if let Ok(pair) = serde_json::from_str::<Value>(told) {
            let [first, second] = ["first_answer", "second_answer"].map(|answer| words(pair[answer].as_str().unwrap()));
            return Answer::says(if first == second { "Same" } else { "Different" });
        }
        let (_, designer, _) = PLACES.into_iter().find(|(place, ..)| told.contains(place)).unwrap();
        let (first, last) = designer.split_once(' ').unwrap();
        let answer = match turn.fetch_add(1, Ordering::Relaxed) {
            0 => designer.to_string(),
            1 => format!("{last}, {first}"),
            _ => "Nobody".to_string(),
        };
        Answer::says(format!("<think>\nI know.\n</think>\n<answer>\n{answer}\n</answer>"))
    }));
    let folder = site(&model);
    let folder = folder.path();
    let made = document(folder, 0, &[&RUN[..], &["3", "--limit", "1", "--judge", "none"]].concat());
    let id = made["run_id"].as_str().unwrap();
    let vote = || {
        let report = document(folder, 0, &["eval", "report", "--run", id])[0].clone();
        let share = report["at_k"][0]["maj_at_k"]["value"].as_f64().unwrap();
        ((share * 100.0).round(), report["votes"]["same"].clone())
    };
    // Exact match passes one of them only, and a cluster counts with the share of it that passes.
    assert_eq!(vote(), (33.0, Value::Null));
    let told = document(folder, 0, &["eval", "votes", id]);
    assert_eq!((&told["tally"]["same"], &told["tally"]["errors"]), (&json!(1), &json!(0)));
    assert_eq!(vote(), (50.0, json!(1)));
    let asked = model.asked().len();
    assert_eq!(document(folder, 0, &["eval", "votes", id])["tally"]["same"], 1);
    assert_eq!(model.asked().len(), asked);
    // What a judge says of a gated benchmark restates it: it is marked, and leaves the lake by no export.
    document(folder, 0, &["pin", "create", "j", "--sql", "SELECT * FROM judgments"]);
    let exported = webdancer(folder, &["pin", "export", "j", "--format", "ndjson"], b"");
    assert_eq!(text(&exported.stdout), "", "{}", text(&exported.stderr));
}

#[test]
fn a_sample_over_gated_questions_is_restricted_whatever_its_query_says() {
    let runtime = Runtime::new().unwrap();
    let model = models(&runtime);
    let folder = site(&model);
    run(folder.path());
    let query = "SELECT qa_id, question FROM qa WHERE method = 'benchmark'";
    document(folder.path(), 0, &["sample", "--web", "closed:pages", "--attempts", "1", "--sql", query]);
    let open = "SELECT count(*) AS n, count(*) FILTER (WHERE restricted) AS restricted FROM trajectories";
    assert_eq!(sql(folder.path(), open), json!([{"n": 9, "restricted": 9}]));
}

#[test]
fn a_judge_that_is_out_makes_no_answer_wrong_and_is_asked_again() {
    let runtime = Runtime::new().unwrap();
    let (is_out, policy) = (Arc::new(AtomicBool::new(true)), models(&runtime));
    let out = is_out.clone();
    let judge = runtime.block_on(StubModel::scripted(move |_, _| match out.load(Ordering::Relaxed) {
        true => Answer::status(400),
        false => Answer::says("Correct"),
    }));
    let folder = site(&policy);
    let settings = std::fs::read_to_string(folder.path().join("webdancer.toml")).unwrap();
    let second = format!("judge = \"second\"\n[endpoints.second]\nurl = \"{}\"\nmodel = \"second\"\n", judge.url());
    std::fs::write(folder.path().join("webdancer.toml"), settings.replace("judge = \"stub\"\n", &second)).unwrap();
    let stopped = document(folder.path(), 3, &[&RUN[..], &["2", "--scorer", "judge"]].concat());
    let scores = &stopped["scores"];
    assert_eq!((&scores["attempts"], &scores["judged"], &scores["errors"]), (&json!(6), &json!(0), &json!(6)));
    assert_eq!(scores["pass_at_1"], Value::Null);

    is_out.store(false, Ordering::Relaxed);
    let asked = policy.asked().len();
    let report = document(folder.path(), 0, &["eval", "run", "--run", stopped["run_id"].as_str().unwrap()]);
    let scores = &report["scores"];
    assert_eq!((&scores["judged"], &scores["correct"], &scores["errors"]), (&json!(6), &json!(6), &json!(0)));
    assert_eq!(policy.asked().len(), asked);
}

#[test]
fn a_malformed_file_and_a_missing_judge_are_found_before_anything_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("gaia.json"), r#"[{"Question": "a?", "answer": "1"}, {"Question": "b?"}]"#)
        .unwrap();
    std::fs::write(folder.path().join("web.json"), r#"[{"Question": "a?", "answer": "1"}]"#).unwrap();
    for (arguments, part) in [
        (&["gaia", "--file", "gaia.json"][..], "row 2: there is nothing in Final answer or answer"),
        (&["webwalkerqa", "--file", "web.json"], "--scorer normalised"),
        (&["gaia"], "gaia needs its file: give --file"),
        (&["nonsense"], "is none of gaia, webwalkerqa"),
    ] {
        let output = webdancer(folder.path(), &[&["eval", "run"], arguments].concat(), b"");
        let told = text(&output.stderr);
        assert!(output.status.code() == Some(2) && told.contains(part), "{arguments:?}: {told}");
    }
    assert!(!folder.path().join("lake").exists());
}

#[test]
fn the_atlas_needs_no_file_no_key_and_no_lake() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["eval", "run", "atlas", "--policy", "scripted", "--limit", "8", "--attempts", "2"];
    let report = document(folder.path(), 0, &arguments);
    assert_eq!((&report["scores"]["attempts"], &report["scores"]["pass_at_1"]), (&json!(16), &json!(1.0)));
    // The second run finds questions and web as they are, and asks the same.
    let again = document(folder.path(), 0, &arguments);
    assert_eq!(again["benchmark_digest"], report["benchmark_digest"]);
    let same = "SELECT count(DISTINCT run_id) AS runs, count(DISTINCT qa_id) AS questions, \
        (SELECT count(*) FROM qa) = (SELECT count(DISTINCT qa_id) FROM qa) AS once FROM trajectories";
    assert_eq!(sql(folder.path(), same), json!([{"runs": 2, "questions": 8, "once": true}]));
    // Other mistakes make another policy, in name too.
    let other = ["eval", "run", "atlas", "--policy", "scripted:terse,0.05", "--limit", "8", "--attempts", "2"];
    document(folder.path(), 0, &other);
    let policies =
        "SELECT policy_model, count(*) AS attempts FROM trajectories GROUP BY policy_model ORDER BY policy_model";
    assert_eq!(
        sql(folder.path(), policies),
        json!([{"policy_model": "scripted", "attempts": 32}, {"policy_model": "scripted:terse,0.05", "attempts": 16}])
    );
}

#[test]
fn fetch_says_where_a_benchmark_is_had_and_under_which_terms() {
    let folder = tempfile::tempdir().unwrap();
    let all = document(folder.path(), 0, &["eval", "fetch"]);
    let names: Vec<&Value> = all.as_array().unwrap().iter().map(|one| &one["benchmark"]).collect();
    let due = ["gaia", "webwalkerqa", "browsecomp", "browsecomp-zh", "simpleqa", "xbench-deepsearch", "atlas"];
    assert_eq!(json!(names), json!(due));
    let told = webdancer(folder.path(), &["eval", "fetch", "gaia"], b"");
    let told = text(&told.stdout).to_string();
    for part in [
        "Gated",
        "https://huggingface.co/datasets/gaia-benchmark/GAIA",
        "[benchmarks.gaia] file",
        "answer Final answer or answer",
    ] {
        assert!(told.contains(part), "{told}");
    }
    let rows = r#"[{"Question": "a?", "answer": "1", "difficulty_level": "easy"}, {"Question": "b?", "answer": "2"}]"#;
    std::fs::write(folder.path().join("web.json"), rows).unwrap();
    let fetch = ["eval", "fetch", "webwalkerqa", "--file", "web.json"];
    let read = &document(folder.path(), 0, &fetch)[0]["read"];
    assert_eq!(
        (&read["manifest"]["questions"], &read["manifest"]["files"][0]["name"]),
        (&json!(2), &json!("web.json"))
    );
    let told = webdancer(folder.path(), &fetch, b"");
    let told = text(&told.stdout).to_string();
    for part in ["SHA-256 ", "difficulty easy: 1", "these are 2 questions, and 680 are published"] {
        assert!(told.contains(part), "{told}");
    }
    std::fs::write(folder.path().join("web.json"), r#"[{"Question": "a?"}]"#).unwrap();
    let told = webdancer(folder.path(), &fetch, b"");
    assert_eq!(told.status.code(), Some(2));
    assert!(text(&told.stderr).contains("row 1: there is nothing in answer"), "{}", text(&told.stderr));
}
