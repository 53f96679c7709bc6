//! `webdancer sample`: what a run makes, what stops it, and how it goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use webdancer_tests::stub_model::{Answer, StubModel};

use crate::lake::{PLACES, append, bridges, document, event, sql};
use crate::{start, text, webdancer};

/// A model that searches once and then answers.
fn model(runtime: &Runtime) -> StubModel {
    runtime.block_on(StubModel::scripted(|asked, _| {
        let asked_for = asked.body["messages"][1]["content"].as_str().unwrap();
        let question = asked_for.rsplit("User: ").next().unwrap();
        let (_, designer, _) = PLACES.into_iter().find(|(place, ..)| question.contains(place)).unwrap();
        if !asked.last_message().contains(designer) {
            let call = json!({"name": "search", "arguments": {"query": [question]}});
            return Answer::says(format!("<think>\nI look it up.\n</think>\n<tool_call>\n{call}\n</tool_call>"));
        }
        Answer::says(format!("<think>\nThere it is.\n</think>\n<answer>\n{designer}\n</answer>"))
    }))
}

fn settings(model: &StubModel, further: &str) -> String {
    let url = model.url();
    format!("[roles]\nagent = \"stub\"\n[endpoints.stub]\nurl = \"{url}\"\nmodel = \"stub\"\n{further}")
}

/// A lake with the pin `pages`, and a question about each of the first three.
fn site(model: &StubModel, further: &str) -> tempfile::TempDir {
    let folder = bridges(&settings(model, further));
    let benchmark = json!({"qa_id": "b", "method": "benchmark", "question": "Who is it?", "answer": "nobody"});
    append(folder.path(), &[event("qa", "qa-b", &benchmark)]);
    let questions: Vec<String> = PLACES[..3]
        .iter()
        .map(|(place, designer, _)| {
            let question = format!("Who designed the bridge at {place}?");
            let row = json!({"qa_id": place, "method": "import", "question": question, "answer": designer});
            event("qa", &format!("qa-{place}"), &row)
        })
        .collect();
    append(folder.path(), &questions);
    document(folder.path(), 0, &["pin", "create", "pages", "--sql", "SELECT url, title, text FROM pages"]);
    folder
}

/// How often each attempt is there.
const ATTEMPTS: &str =
    "SELECT qa_id, attempt, count(*) AS n FROM trajectories GROUP BY qa_id, attempt ORDER BY attempt, qa_id";

fn once(attempts: i64) -> Value {
    let names = ["Lund", "Norre", "Osby"];
    (0..attempts).flat_map(|n| names.map(|name| json!({"qa_id": name, "attempt": n, "n": 1}))).collect()
}

#[test]
fn a_run_that_was_stopped_goes_on_and_repeats_nothing() {
    let runtime = Runtime::new().unwrap();
    let model = model(&runtime);
    let folder = site(&model, "");
    let folder = folder.path();
    let begun = ["sample", "--web", "closed:pages", "--attempts", "2", "--max-trajectories", "4", "--seed", "7"];
    let first = document(folder, 3, &begun);
    assert_eq!((&first["trajectories"], &first["left"], &first["failed"]), (&json!(4), &json!(2), &json!(0)));
    assert_eq!(first["stopped"], "the budget of trajectories is spent");
    assert_eq!((&first["by_termination"], &first["spent"]["answers"]), (&json!({"answer": 4}), &json!(8)));
    let run = first["run_id"].as_str().unwrap();
    let state = "SELECT state FROM run_state WHERE kind = 'sample'";
    assert_eq!(sql(folder, state), json!([{"state": "stopped"}]));

    let second = document(folder, 0, &["sample", "--run", run]);
    assert_eq!((&second["trajectories"], &second["made_before"]), (&json!(2), &json!(4)));
    assert_eq!(sql(folder, ATTEMPTS), once(2));
    assert_eq!(sql(folder, state), json!([{"state": "finished"}]));
    let asked = model.asked().len();
    assert_eq!(document(folder, 0, &["sample", "--run", run])["trajectories"], 0);
    assert_eq!(model.asked().len(), asked, "nobody is asked when there is nothing to do");
    assert_eq!(sql(folder, state), json!([{"state": "finished"}]));
    // More attempts may be asked for, and are made as at the beginning.
    assert_eq!(document(folder, 0, &["sample", "--run", run, "--attempts", "3"])["trajectories"], 3);
    assert_eq!(sql(folder, ATTEMPTS), once(3));
    assert_eq!(sql(folder, state), json!([{"state": "finished"}]));
    let rows = sql(
        folder,
        "SELECT DISTINCT t.answer = q.answer AS correct, t.run_id, t.policy_model, t.n_tool_calls \
         FROM trajectories t JOIN qa q ON q.qa_id = t.qa_id",
    );
    assert_eq!(rows, json!([{"correct": true, "run_id": run, "policy_model": "stub", "n_tool_calls": 1}]));
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
    let folder = site(&model, "[scheduler]\nlease_ms = 3000\n[sample]\nconcurrency = 1\n");
    let folder = folder.path();
    let mut first = start(folder, &["sample", "--web", "closed:pages", "--attempts", "1"]);
    while model.asked().is_empty() {
        assert_eq!(first.try_wait().unwrap(), None);
        std::thread::sleep(Duration::from_millis(10));
    }
    let claimed = std::fs::read_dir(folder.join("lake/claims/run")).unwrap().next().unwrap().unwrap();
    let run = claimed.file_name().into_string().unwrap();
    let refused = webdancer(folder, &["--quiet", "sample", "--run", &run], b"");
    let told = text(&refused.stderr);
    assert_eq!((refused.status.code(), model.asked().len()), (Some(4), 1), "{told}");
    let due = format!("`webdancer sample --run {run}` goes on");
    assert!(told.starts_with(&format!("webdancer: run {run} is held: process {} on ", first.id())), "{told}");
    assert!(told.contains(&due), "{told}");
    first.kill().unwrap();
    first.wait().unwrap();
    is_slow.store(false, Ordering::Relaxed);
    assert_eq!(document(folder, 0, &["sample", "--run", &run])["trajectories"], 3);
    assert_eq!(sql(folder, ATTEMPTS), once(1));
}

#[test]
fn a_spent_budget_leaves_the_rest_and_says_what_was_spent() {
    let runtime = Runtime::new().unwrap();
    let model = model(&runtime);
    // Four answers take more.
    let folder = site(&model, "[sample]\nconcurrency = 1\n[budget]\ntokens = 1500\n");
    let folder = folder.path();
    let output = webdancer(folder, &["--json", "sample", "--web", "closed:pages", "--attempts", "9"], b"");
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let (made, left) = (report["trajectories"].as_u64().unwrap(), report["left"].as_u64().unwrap());
    assert_eq!((made + left, &report["failed"]), (27, &json!(0)));
    assert!(made < 27, "{report}");
    let told = text(&output.stderr);
    assert!(told.contains("tokens of the 1500 that budget.tokens allows, after "), "{told}");
    let run = report["run_id"].as_str().unwrap();
    assert!(
        told.contains(&format!("{left} attempts are left, 0 failed; `webdancer sample --run {run}` goes on")),
        "{told}"
    );

    std::fs::write(folder.join("webdancer.toml"), settings(&model, "")).unwrap();
    assert_eq!(document(folder, 0, &["sample", "--run", run])["trajectories"], left);
    assert_eq!(sql(folder, ATTEMPTS), once(9));
}

#[test]
fn a_recorded_web_serves_what_a_run_observed_and_nothing_else() {
    let runtime = Runtime::new().unwrap();
    let model = model(&runtime);
    let folder = site(&model, "[agent]\ncalls_max = 3\n");
    let folder = folder.path();
    let some = "SELECT * FROM qa WHERE qa_id IN ('Lund', 'Norre')";
    let first = document(folder, 0, &["sample", "--web", "closed:pages", "--attempts", "1", "--sql", some]);
    let web = format!("recorded:{}", first["run_id"].as_str().unwrap());
    let again = document(folder, 0, &["sample", "--web", &web, "--attempts", "1"]);
    assert_eq!(again["web"], web);
    let observed = "SELECT qa_id, count(*) AS n, count(DISTINCT turn_observation_digest[1]) AS texts \
                    FROM trajectories WHERE qa_id <> 'Osby' GROUP BY qa_id ORDER BY qa_id";
    let both = |name| json!({"qa_id": name, "n": 2, "texts": 1});
    assert_eq!(sql(folder, observed), json!([both("Lund"), both("Norre")]));
    let missed =
        sql(folder, "SELECT answer, termination, turn_observation[1] AS told FROM trajectories WHERE qa_id = 'Osby'");
    assert_eq!((&missed[0]["answer"], missed[0]["termination"] != "error"), (&Value::Null, true), "{missed}");
    // What was missed is counted in the run's summary, and told of each call.
    let missed = again["calls"]["search"]["miss"].as_u64().unwrap();
    assert_eq!((missed > 0, &again["calls"]["search"]["done"]), (true, &json!(2)), "{again}");
    assert_eq!(first["calls"]["search"]["miss"], 0);
    let outcomes = format!(
        "SELECT outcome, count(*) AS n FROM tool_calls WHERE run_id = '{}' AND outcome IS NOT NULL GROUP BY outcome ORDER BY outcome",
        again["run_id"].as_str().unwrap()
    );
    assert_eq!(sql(folder, &outcomes), json!([{"outcome": "done", "n": 2}, {"outcome": "miss", "n": missed}]));
    let output = webdancer(folder, &["sample", "--web", &web, "--attempts", "1"], b"");
    let calls = format!("\n  search: {} calls: 2 done, {missed} miss\n", missed + 2);
    assert!(text(&output.stdout).contains(&calls), "{}", text(&output.stdout));
}

#[test]
fn imported_trajectories_are_a_recorded_web_by_way_of_a_pin() {
    let runtime = Runtime::new().unwrap();
    let model = model(&runtime);
    let folder = site(&model, "[agent]\ncalls_max = 3\n");
    let folder = folder.path();
    let call = json!({"query": ["Who designed the bridge at Lund?"]}).to_string();
    let row = json!({
        "trajectory_id": "t", "qa_id": "Lund", "attempt": 0, "answer": "?", "termination": "answer", "n_turns": 2,
        "n_tool_calls": 1, "turn_thought": ["I look.", "There."], "turn_tool": ["search", null],
        "turn_arguments": [call, null], "turn_observation": ["It was Marta Berg, they say.", null],
        "turn_observation_digest": [null, null], "turn_raw": [null, null],
    });
    append(folder, &[event("trajectory", "t", &row)]);
    assert_eq!(sql(folder, "SELECT count(run_id) AS runs FROM trajectories"), json!([{"runs": 0}]));
    let pin = ["pin", "create", "imported", "--sql", "SELECT * FROM trajectories WHERE run_id IS NULL"];
    let digest = document(folder, 0, &pin)["digest"].as_str().unwrap().to_string();
    let some = "SELECT * FROM qa WHERE qa_id IN ('Lund', 'Norre')";
    let report =
        document(folder, 0, &["sample", "--web", "recorded:imported", "--attempts", "1", "--sql", some, "--seed", "3"]);
    assert_eq!(report["web"], format!("recorded:{digest}"));
    assert_eq!(report["calls"]["search"]["done"], 1, "{report}");
    assert!(report["calls"]["search"]["miss"].as_u64().unwrap() > 0, "{report}");
    let seen =
        "SELECT qa_id, turn_observation[1] AS seen FROM trajectories WHERE run_id IS NOT NULL AND answer IS NOT NULL";
    assert_eq!(sql(folder, seen), json!([{"qa_id": "Lund", "seen": "It was Marta Berg, they say."}]));
    // It goes on by the digest.
    let run = report["run_id"].as_str().unwrap();
    assert_eq!(document(folder, 0, &["sample", "--run", run, "--attempts", "2"])["trajectories"], 2);
}

#[test]
fn questions_about_another_world_or_without_a_plan_are_left_out_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (seed, count) in [("3", "8"), ("4", "16")] {
        document(folder, 0, &["synth", "crawlqa", "--atlas", "--invent", seed, "--count", count]);
    }
    let imported = json!({"qa_id": "other", "method": "import", "question": "Who designed it?", "answer": "Ida"});
    append(folder, &[event("qa", "other", &imported)]);
    // A web that has the pages of the one world, by their digests.
    let pages = "SELECT DISTINCT digest, concat('http://a/', digest) AS url, 'An article.' AS text FROM \
                 (SELECT unnest(evidence_page_digests) AS digest FROM qa WHERE attributes->>'world' = 'invented:3')";
    document(folder, 0, &["pin", "create", "world", "--sql", pages]);
    let sample = ["sample", "--policy", "scripted", "--web", "closed:world", "--attempts", "1"];
    let output = webdancer(folder, &[&["--json"], &sample[..]].concat(), b"");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
    assert_eq!((&report["trajectories"], &report["left_out"]), (&json!(8), &json!(17)));
    let told = "left out: 16 rest on other pages than this web's, 1 have no plan for the scripted policy";
    assert!(text(&output.stderr).contains(told), "{}", text(&output.stderr));
    let worlds = "SELECT DISTINCT q.attributes->>'world' AS world FROM trajectories t JOIN qa q ON q.qa_id = t.qa_id";
    assert_eq!(sql(folder, worlds), json!([{"world": "invented:3"}]));
    // What was asked for by name is asked.
    let all = [&sample[..], &["--sql", "SELECT * FROM qa WHERE qa_id = 'other'"]].concat();
    let output = webdancer(folder, &all, b"");
    assert!(text(&output.stderr).contains("it has no plan for this question"), "{}", text(&output.stderr));
    // A web that has nothing of any question.
    let none = "SELECT 'd' AS digest, 'http://a/' AS url, 'An article.' AS text";
    document(folder, 0, &["pin", "create", "nothing", "--sql", none]);
    let output = webdancer(folder, &["sample", "--policy", "scripted", "--web", "closed:nothing"], b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("needs questions with plans about this web"), "{}", text(&output.stderr));
}

#[test]
fn what_sampling_needs_and_lacks_is_said() {
    let runtime = Runtime::new().unwrap();
    let model = model(&runtime);
    let folder = site(&model, "");
    let folder = folder.path();
    std::fs::write(folder.join("none.toml"), "").unwrap();
    let unknown = "01a1fde9-f4cd-75d7-a04e-0ddf9b8ae649";
    let cases: [(&[&str], &str); 14] = [
        (&["--config", "none.toml", "sample", "--web", "closed:pages"], "who acts? give --policy"),
        (&["sample", "--policy", "oracle"], "is neither endpoint:NAME nor scripted"),
        (
            &["sample", "--policy", "endpoint:other", "--web", "closed:pages"],
            "endpoints.other: there is no such endpoint",
        ),
        (&["sample", "--policy", "scripted", "--web", "closed:pages"], "needs questions with plans"),
        (&["sample", "--web", "closed:other"], "--web closed:other: there is no pin \"other\""),
        (&["sample", "--web", "closed:pages", "--pin", "other"], "--pin other: there is no pin \"other\""),
        (&["sample", "--web", "open"], "is none of closed:PIN, recorded:RUN, recorded:PIN, visited:RUN, live and none"),
        (
            &["sample", "--web", "recorded:nothing"],
            "--web recorded:nothing: is neither a run with trajectories nor a pin of some",
        ),
        (&["sample", "--web", "recorded:pages"], "column turn_tool: is missing"),
        (&["sample", "--web", "closed:pages", "--profile", "strange"], "there is no profile strange"),
        (&["sample", "--run", unknown], "there is no run 01a1fde9-f4cd-75d7-a04e-0ddf9b8ae649 of sampling"),
        (&["sample", "--web", "closed:pages", "--share"], "attempts are shared over Kafka"),
        (&["sample", "--web", "closed:pages", "--max-time", "0"], "0 is not in 1.."),
        (&["sample", "--web", "live"], "web.search: there is no key: set SERPER_API_KEY, or name a key_file"),
    ];
    for (arguments, part) in cases {
        let output = webdancer(folder, arguments, b"");
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {told}");
        assert!(told.contains(part), "{arguments:?}: {told}");
        assert!(part.starts_with("0 is") || told.lines().count() == 1, "{arguments:?}: {told}");
    }
    assert!(model.asked().is_empty());
}

#[test]
fn an_endpoint_that_is_not_there_is_told_at_once_and_ends_the_command() {
    let runtime = Runtime::new().unwrap();
    let model = model(&runtime);
    let folder = site(&model, "");
    let folder = folder.path();
    let url = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/v1", listener.local_addr().unwrap())
    };
    let settings = format!(
        "[roles]\nagent = \"stub\"\njudge = \"stub\"\n[endpoints.stub]\nurl = \"{url}\"\nmodel = \"stub\"\nunreachable_ms_max = 600\n"
    );
    std::fs::write(folder.join("webdancer.toml"), &settings).unwrap();
    let output = webdancer(folder, &["sample", "--web", "closed:pages", "--attempts", "1"], b"");
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    let first = format!("endpoints.stub at {url}/chat/completions cannot be reached, trying again, up to 1 s: ");
    assert_eq!(told.matches(&first).count(), 1, "{told}");
    let last = told.lines().last().unwrap();
    assert!(last.contains("stub (endpoints.stub): cannot be reached: "), "{told}");
    assert!(
        last.contains("Connection refused (os error 111); it has never answered") && last.contains("goes on"),
        "{told}"
    );
    assert_eq!(sql(folder, "SELECT state FROM run_state WHERE kind = 'sample'"), json!([{"state": "stopped"}]));

    let output = webdancer(folder, &["endpoints", "check"], b"");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("cannot be reached"), "{}", text(&output.stdout));

    // The same of a judge.
    let row = json!({
        "trajectory_id": "t", "qa_id": "Lund", "attempt": 0, "answer": "Marta Berg", "termination": "answer", "n_turns": 1,
        "n_tool_calls": 0, "turn_thought": ["known"], "turn_tool": [null], "turn_arguments": [null], "turn_raw": [null],
        "turn_observation": [null], "turn_observation_digest": [null],
    });
    append(folder, &[event("trajectory", "t", &row)]);
    for (arguments, judged) in [
        (&["filter", "--judge", "judge"][..], 0),
        // A reviewer that is not there lets nothing be judged either, by rules or not.
        (&["filter", "--reviewer", "judge"], 0),
        // Who is not asked need not be there.
        (&["filter", "--judge", "judge", "--stage", "validity"], 1),
    ] {
        let output = webdancer(folder, arguments, b"");
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(i32::from(judged == 0)), "{arguments:?}: {told}");
        assert_eq!(told.contains("stub (endpoints.stub): cannot be reached: "), judged == 0, "{arguments:?}: {told}");
        assert_eq!(sql(folder, "SELECT count(*) AS n FROM judgments"), json!([{"n": judged}]), "{arguments:?}");
        assert_eq!(
            sql(folder, "SELECT count(*) AS n FROM runs WHERE kind = 'filter' AND state <> 'finished'"),
            json!([{"n": judged}])
        );
    }
    assert!(!folder.join("lake/claims/funnel/correctness").exists(), "no rule version is taken");
}

#[test]
fn a_run_that_made_nothing_has_failed_and_one_that_made_some_is_done_in_part() {
    let runtime = Runtime::new().unwrap();
    let refusing = runtime.block_on(StubModel::scripted(|_, _| Answer::status(401)));
    let folder = site(&refusing, "");
    let folder = folder.path();
    let output = webdancer(folder, &["sample", "--web", "closed:pages", "--attempts", "1"], b"");
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    let last = told.lines().last().unwrap();
    assert!(last.starts_with("webdancer: 3 attempts failed; `webdancer sample --run "), "{told}");
    let run = last.split_whitespace().find(|word| word.starts_with("01")).unwrap().trim_end_matches('`').to_string();

    let model = model(&runtime);
    std::fs::write(folder.join("webdancer.toml"), settings(&model, "")).unwrap();
    document(folder, 3, &["sample", "--run", &run, "--max-trajectories", "1"]);
    std::fs::write(folder.join("webdancer.toml"), settings(&refusing, "")).unwrap();
    let rest = document(folder, 3, &["sample", "--run", &run]);
    assert_eq!((&rest["trajectories"], &rest["failed"], &rest["made_before"]), (&json!(0), &json!(2), &json!(1)));
}

#[test]
fn the_live_web_may_search_and_visit_pages_of_the_lake() {
    let runtime = Runtime::new().unwrap();
    let model = model(&runtime);
    let web = "[web.search]\nengine = \"pages\"\n[web.visit]\nreader = \"pages\"\n";
    let folder = site(&model, web);
    let folder = folder.path();
    let right = "SELECT count(*) AS n FROM trajectories t JOIN qa q ON q.qa_id = t.qa_id WHERE t.answer = q.answer";
    let begun = ["sample", "--attempts", "1", "--max-trajectories", "2"];
    let first = document(folder, 3, &begun);
    let (run, name) = (first["run_id"].as_str().unwrap(), first["web"].as_str().unwrap());
    let version: i64 = name.strip_prefix("live+pages@").unwrap().parse().unwrap();
    assert_eq!(sql(folder, right), json!([{"n": 2}]));
    let kept = "SELECT config->'pages'->>'version' AS version FROM run_state WHERE kind = 'sample'";
    assert_eq!(sql(folder, kept), json!([{"version": version.to_string()}]));

    // Pages that come later are not those of the run.
    let page = json!({"url": "http://bridges.example/new", "final_url": "", "root_url": "", "depth": 0, "status": 200,
        "title": "New", "text": "New."});
    append(folder, &[event("page", "new", &page)]);
    assert_eq!(document(folder, 0, &["sample", "--run", run])["web"], name);
    assert_eq!(sql(folder, right), json!([{"n": 3}]));
    assert_ne!(document(folder, 0, &["sample", "--attempts", "1"])["web"], name);

    let pinned = settings(&model, &format!("{web}[web.pages]\npin = \"pages\"\n"));
    std::fs::write(folder.join("webdancer.toml"), &pinned).unwrap();
    let pin = document(folder, 0, &["pin", "show", "pages"]);
    let expected = format!("live+pin:{}", pin["digest"].as_str().unwrap());
    assert_eq!(document(folder, 0, &["sample", "--attempts", "1"])["web"], expected);

    for (limit, told) in [
        ("rows_max = 4", "more than the 4 pages of web.pages.rows_max"),
        ("bytes_max = 99", "more than the 99 bytes of web.pages.bytes_max"),
    ] {
        std::fs::write(folder.join("webdancer.toml"), format!("{pinned}{limit}\n")).unwrap();
        for web in ["live", "closed:pages"] {
            let output = webdancer(folder, &["sample", "--web", web], b"");
            let message = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{message}");
            assert!(message.contains(&format!("pin pages holds {told}")), "{message}");
        }
    }
}
