//! What each page says.

use axum::http::StatusCode;
use serde_json::{Value, json};
use webdancer_schemas::kind::Kind;

use super::lake::{Browser, HOSTILE, Written, attempt, ended, question, settings, started, two_runs, verdict};
use webdancer_agent::chat::EndpointConfig;
use webdancer_eval::dashboard::Settings;
use webdancer_eval::prices::PriceList;

#[tokio::test(flavor = "multi_thread")]
async fn the_leaderboard_has_our_scores_with_intervals_and_the_papers_rows_marked() {
    let lake = two_runs().await;
    let page = lake.browser().page("/").await;
    for figure in ["37.5 ± ", "62.5 ± ", "alpha", "beta", "WebDancer QwQ-32B · published", "51.5 ± ", "36.0"] {
        assert!(page.contains(figure), "{figure} is not in {page}");
    }
    let at_k = lake.browser().page("/?score=pass_at_k").await;
    assert!(at_k.contains("50.0 ± ") && at_k.contains("75.0 ± ") && at_k.contains(">31.5<"), "{at_k}");
    let csv = lake.browser().page("/?format=csv&of=cells&cells.f.policy=beta").await;
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 2, "{csv}");
    assert!(lines[0].starts_with("policy,benchmark,pass_at_1,k,pass_at_k,cons_at_k,"), "{csv}");
    assert!(lines[1].starts_with("beta,small,0.625,2.0,0.75,0.625,"), "{csv}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trend_has_a_point_for_each_run_and_a_mark_where_something_changed() {
    let lake = two_runs().await;
    let browser = lake.browser();
    assert!(browser.page("/benchmarks").await.contains("62.5 ± "));
    let page = browser.page("/benchmarks/small").await;
    assert!(page.contains("checkpoint: beta; web: closed:pages"), "{page}");
    assert!(page.contains("Pass@1 of 2 runs by their start"), "{page}");
    let csv = browser.page("/benchmarks/small?format=csv&of=trend").await;
    let values: Vec<&str> = csv.lines().skip(1).map(|line| line.split(',').nth(2).unwrap()).collect();
    assert_eq!(values, ["0.375", "0.625"]);
    let svg = browser.page("/benchmarks/small?format=svg&of=trend").await;
    assert!(svg.starts_with("<svg ") && svg.contains("<style>"), "{svg}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trend_has_a_mark_where_settings_or_the_number_of_questions_changed() {
    let mut lake = two_runs().await;
    for (run, asked, settings) in [
        ("r3", json!(["q1"]), json!({})),
        ("r4", json!(["q1"]), json!({"endpoint": {"temperature": 1.0}, "summariser": {"model": "reader"}})),
    ] {
        let mut first = started(run, "small", "endpoint:a", "closed:pages");
        let mut config: Value = serde_json::from_str(first["config"].as_str().unwrap()).unwrap();
        (config["qa_ids"], config["settings"]) = (asked, settings);
        first["config"] = json!(config.to_string());
        lake.append(Kind::Run, &[first]).await;
        lake.append(Kind::Trajectory, &[attempt(run, "q1", 0, "beta"), attempt(run, "q1", 1, "beta")]).await;
        lake.append(Kind::Judgment, &[verdict(run, "q1", 0, true), verdict(run, "q1", 1, true)]).await;
        lake.append(Kind::Run, &[ended(run, "finished")]).await;
    }
    let page = lake.browser().page("/benchmarks/small").await;
    // Of the run before it the settings are not known.
    assert!(page.contains("number of questions: 1") && !page.contains("summariser: reader; number"), "{page}");
    assert!(page.contains("endpoint adds: {&quot;temperature&quot;:1.0}; summariser: reader"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_under_way_stands_for_no_policy_and_is_no_point_of_a_trend() {
    let mut lake = two_runs().await;
    lake.append(Kind::Run, &[started("r3", "small", "endpoint:a", "live")]).await;
    lake.append(Kind::Trajectory, &[attempt("r3", "q1", 0, "alpha")]).await;
    lake.append(Kind::Judgment, &[verdict("r3", "q1", 0, true)]).await;
    let browser = lake.browser();
    let cells = browser.json("/").await["cells"].clone();
    let alpha = cells.as_array().unwrap().iter().find(|cell| cell["policy"] == "alpha").unwrap();
    assert_eq!((&alpha["run_id"], &alpha["pass_at_1"]), (&json!("r1"), &json!(0.375)));
    let trend = browser.page("/benchmarks/small?format=csv&of=trend").await;
    assert_eq!(trend.lines().count(), 3, "{trend}");
    // It is listed with what is known of it.
    let runs = browser.page("/benchmarks/small?format=csv&of=runs&f.run_id=%3Dr3").await;
    assert!(runs.contains("r3,") && runs.contains(",1.0,"), "{runs}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_has_scores_breakdowns_and_every_attempt() {
    let lake = two_runs().await;
    let browser = lake.browser();
    let page = browser.page("/runs/r1").await;
    for figure in [
        "Pass@1, the paper's Cons",
        "37.5 ± ",
        "Pass@2",
        "50.0 ± ",
        "Pass@1 by level, n = 4 questions",
        "1 (n = 2)",
        "/trajectories/r1-q2-1",
        "webdancer reproduce r1",
        "3.0 s",
        "gaia v2",
    ] {
        assert!(page.contains(figure), "{figure} is not in {page}");
    }
    let twin = browser.json("/runs/r1").await;
    assert_eq!(twin["report"]["pass_at_1"]["value"], json!(0.375));
    assert_eq!(twin["report"]["at_k"][0]["pass_at_k"]["value"], json!(0.5));
    assert_eq!(twin["questions"][1]["attempts"][0]["correct"], json!(true));
    assert_eq!(twin["questions"][1]["attempts"][1]["correct"], json!(false));
    assert_eq!(twin["run"]["config"]["policy"], json!("endpoint:a"));
    let matrix = browser.page("/runs/r1?format=csv&of=questions&sort=-correct").await;
    let first: Vec<&str> = matrix.lines().skip(1).map(|line| line.split(',').next().unwrap()).collect();
    assert_eq!(first, ["q1", "q2", "q3", "q4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_many_attempts_has_its_scores_but_no_matrix() {
    let browser = two_runs().await.browser_with(Settings { attempts_max: 7, ..settings() });
    let page = browser.page("/runs/r1").await;
    for figure in ["8 attempts are more than this page goes through", "37.5 ± ", "Why attempts ended", "What it took"]
    {
        assert!(page.contains(figure), "{figure} is not in {page}");
    }
    assert!(!page.contains("/trajectories/r1-q2-1"), "{page}");
    let refused = browser.get("/runs/r1?download=report").await;
    assert!(refused.text.contains("webdancer eval report --run r1 --html FILE"), "{}", refused.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_beyond_the_sixteenth_are_counted_on_the_page_and_in_downloads() {
    let mut lake = two_runs().await;
    let more: Vec<Value> = (2..18).map(|number| attempt("r1", "q1", number, "alpha")).collect();
    lake.append(Kind::Trajectory, &more).await;
    let browser = lake.browser();
    let page = browser.page("/runs/r1").await;
    for caption in ["attempts down, the first 16 of 18, from best", "Questions by attempt, the first 16 of 18: "] {
        assert!(page.contains(caption), "{caption} is not in {page}");
    }
    let csv = browser.page("/runs/r1?format=csv&of=questions").await;
    assert!(csv.lines().next().unwrap().contains(",attempt_15,attempt_16,attempt_17,"), "{csv}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_costs_what_the_endpoint_asks_that_acted() {
    let endpoint = |name: &str, model: &str, price| {
        let endpoint =
            EndpointConfig { model: model.to_string(), price_output: Some(price), ..EndpointConfig::default() };
        (name.to_string(), endpoint)
    };
    let endpoints = [endpoint("a", "alpha", 5.0), endpoint("b", "alpha", 9.0), endpoint("c", "beta", 1.0)];
    let prices = PriceList::new(&endpoints.into_iter().collect());
    let browser = two_runs().await.browser_with(Settings { prices, ..settings() });
    // 800 tokens each; the endpoint of both runs has the first one's model.
    assert_eq!(browser.json("/runs/r1").await["report"]["effort"]["cost"], json!(0.004));
    assert_eq!(browser.json("/runs/r2").await["report"]["effort"]["cost"], json!(0.0008));
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_follow_the_tables() {
    let mut lake = two_runs().await;
    let browser = lake.browser();
    assert_eq!(browser.json("/runs/r1").await["report"]["pass_at_1"]["value"], json!(0.375));
    assert!(browser.page("/").await.contains("37.5 ± "));
    let mut other = verdict("r1", "q4", 0, true);
    other["rule_version"] = json!(4);
    lake.append(Kind::Judgment, &[other]).await;
    assert_eq!(browser.json("/runs/r1").await["report"]["pass_at_1"]["value"], json!(0.5));
    let page = browser.page("/").await;
    assert!(page.contains("50.0 ± ") && page.contains("62.5 ± "), "{page}");
    // A question of theirs is told again.
    let is_gated = async || browser.json("/benchmarks").await.to_string().contains("\"gated\":\"gated\"");
    assert!(!is_gated().await);
    lake.append(Kind::Qa, &[question("q1", "small", "What is q1?", json!({"restricted": true}))]).await;
    assert!(is_gated().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_of_the_web_differed_between_two_runs_is_told() {
    let mut lake = two_runs().await;
    let query = |words: &str| json!({"query": [words]}).to_string();
    let calls = |run: &str, number: i64, read: &[(&str, &str)], found: &[&str]| {
        let mut row = attempt(run, "q3", number, "alpha");
        let (urls, digests): (Vec<&str>, Vec<&str>) = read.iter().copied().unzip();
        let results: Vec<String> = found.iter().map(|digest| format!("http://{digest}.example/")).collect();
        for (name, list) in [
            ("turn_tool", json!(["visit", "search", "search", "search", null])),
            (
                "turn_arguments",
                json!([
                    json!({"url": urls, "goal": number}).to_string(),
                    query("a"),
                    query("in vain, later"),
                    query("in vain"),
                    null
                ]),
            ),
            ("turn_outcome", json!(["done", "done", "done", "done", null])),
            ("turn_source_urls", json!([urls, results, if run == "r1" { Some(&results) } else { None }, null, null])),
            ("turn_source_digests", json!([digests, found, if run == "r1" { Some(found) } else { None }, null, null])),
            ("n_turns", json!(5)),
        ] {
            row[name] = list;
        }
        row
    };
    // A search found nothing in the second run, another in neither. Of a, b and c, which both read, a is as it was for one attempt of each, b is not; the results came in another order.
    let rows = [
        calls("r1", 2, &[("http://a", "a1"), ("http://b", "b1"), ("http://c", "c1")], &["x", "y"]),
        calls("r1", 3, &[("http://a", "a2"), ("http://d", "d1")], &["x", "y"]),
        calls("r2", 2, &[("http://a", "a2"), ("http://b", "b2"), ("http://c", "c1")], &["y", "x"]),
    ];
    lake.append(Kind::Trajectory, &rows).await;
    let verdicts = [("r1", 2), ("r1", 3), ("r2", 2)].map(|(run, number)| verdict(run, "q3", number, true));
    lake.append(Kind::Judgment, &verdicts).await;
    let browser = lake.browser();
    let twin = browser.json("/compare?before=r1&after=r2").await;
    assert_eq!(twin["web"], json!({"pages": {"common": 3, "changed": 1}, "searches": {"common": 3, "changed": 2}}));
    let told = "The web between them: 1 of 3 pages that both runs read had changed; 2 of 3 searches that both made found \
        something else.";
    let page = browser.page("/compare?before=r1&after=r2").await;
    assert!(page.contains(told), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_are_compared_question_by_question() {
    let lake = two_runs().await;
    let browser = lake.browser();
    let page = browser.page("/compare?before=r1&after=r2").await;
    assert!(page.contains("+25.0"), "{page}");
    assert!(page.contains("can't tell (needs ≥ "), "{page}");
    assert!(page.contains("/trajectories/r2-q2-0?against=r1-q2-0"), "{page}");
    let twin = browser.json("/compare?before=r1&after=r2").await;
    assert_eq!(twin["difference"]["value"], json!(0.25));
    assert_eq!(twin["fixed"][0]["qa_id"], json!("q2"));
    assert_eq!(twin["web"], json!({"pages": {"common": 0, "changed": 0}, "searches": {"common": 0, "changed": 0}}));
    assert!(!page.contains("The web between them"), "{page}");
    // Half of the attempts is no majority.
    assert_eq!((twin["fixed"].as_array().unwrap().len(), twin["broken"].as_array().unwrap().len()), (1, 0));
    let choose = browser.page("/compare?after=r2").await;
    assert!(choose.contains("<select name=\"before\"") && choose.contains("value=\"r1\""), "{choose}");
    let refused = browser.get("/compare?before=r1&after=r1").await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert!(refused.text.contains("r1 is compared with itself; name two runs"), "{}", refused.text);
}

/// What the SQL of a page's charts gives in the console.
async fn behind_charts(browser: &Browser, address: &str) -> Vec<Vec<Value>> {
    let page = browser.page(address).await;
    let mut behind = Vec::new();
    for figure in page.split("<figure class=\"chart\"").skip(1) {
        let below = figure.split("</figure>").next().unwrap();
        let console = below.split("href=\"/sql?").nth(1).unwrap_or_else(|| panic!("{address}: no SQL in {below}"));
        let console = format!("/sql?{}", console.split('"').next().unwrap().replace("&amp;", "&"));
        behind.push(browser.json(&console).await["rows"].as_array().unwrap().clone());
    }
    behind
}

#[tokio::test(flavor = "multi_thread")]
async fn every_chart_has_the_sql_behind_it_as_it_runs_in_the_console() {
    let browser = two_runs().await.browser();
    let scores = |r2: f64, r1: f64| {
        let row = |run: &str, score: f64| json!({"run_id": run, "score": score, "questions": 4});
        vec![vec![row("r2", r2), row("r1", r1)]]
    };
    assert_eq!(behind_charts(&browser, "/").await, scores(0.625, 0.375));
    assert_eq!(behind_charts(&browser, "/?score=pass_at_k").await, scores(0.75, 0.5));
    assert_eq!(behind_charts(&browser, "/?score=pass_hat_k").await, scores(0.5, 0.25));
    assert_eq!(behind_charts(&browser, "/?score=maj_at_k").await[0].len(), 2);
    assert_eq!(behind_charts(&browser, "/benchmarks/small").await, scores(0.625, 0.375));
    assert_eq!(behind_charts(&browser, "/compare?before=r1&after=r2").await[0].len(), 16);
    let of_run = behind_charts(&browser, "/runs/r1").await;
    assert!(of_run.len() >= 3 && of_run.iter().all(|attempts| attempts.len() == 8), "{of_run:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sql_of_runs_of_unlike_many_attempts_has_the_k_of_each() {
    let mut lake = two_runs().await;
    lake.append(Kind::Run, &[started("r3", "small", "endpoint:c", "live"), ended("r3", "finished")]).await;
    let questions = ["q1", "q2", "q3", "q4"];
    let all = || questions.into_iter().flat_map(|id| (0..3).map(move |number| (id, number)));
    lake.append(Kind::Trajectory, &all().map(|(id, n)| attempt("r3", id, n, "gamma")).collect::<Vec<_>>()).await;
    lake.append(Kind::Judgment, &all().map(|(id, n)| verdict("r3", id, n, id == "q1")).collect::<Vec<_>>()).await;
    let rows = behind_charts(&lake.browser(), "/?score=pass_at_k").await.remove(0);
    let scores: Vec<(&Value, &Value)> = rows.iter().map(|row| (&row["run_id"], &row["score"])).collect();
    let due = [("r2", 0.75), ("r1", 0.5), ("r3", 0.25)].map(|(run, score)| (json!(run), json!(score)));
    assert_eq!(scores, due.iter().map(|(run, score)| (run, score)).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_run_is_listed_page_by_page() {
    let mut lake = Written::new();
    let rows: Vec<_> =
        (0..60).map(|n| ended(&format!("run-{n:02}"), if n % 2 == 0 { "finished" } else { "failed" })).collect();
    lake.append(Kind::Run, &rows).await;
    let browser = lake.browser();
    let first = browser.page("/runs").await;
    assert!(first.contains("60 rows") && first.contains("page 1 of 2") && first.contains("run-59"), "{first}");
    assert!(!first.contains("run-09"), "{first}");
    let second = browser.page("/runs?page=2").await;
    assert!(second.contains("run-09") && !second.contains("run-59"), "{second}");
    let rows =
        |csv: String| csv.lines().skip(1).map(|line| line.split(',').next().unwrap().to_string()).collect::<Vec<_>>();
    let failed = rows(browser.page("/runs?format=csv&f.state=fail&sort=run_id&page=2").await);
    assert_eq!((failed.len(), failed[0].as_str(), failed[29].as_str()), (30, "run-01", "run-59"));
    let none = browser.page("/runs?f.run_id=O%27Brien").await;
    assert!(none.contains("No row matches."), "{none}");
    let parquet = browser.get("/runs?format=parquet").await;
    assert_eq!(parquet.headers["content-disposition"], "attachment; filename=\"runs.parquet\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_lake_says_what_fills_it() {
    let browser = Written::new().browser();
    for (address, command) in [
        ("/runs", "webdancer eval run atlas"),
        ("/benchmarks", "webdancer eval fetch"),
        ("/schedules", "webdancer eval schedule"),
        ("/", "webdancer eval run atlas"),
    ] {
        let page = browser.page(address).await;
        assert!(page.contains("class=\"empty\"") && page.contains(command), "{address}: {page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_are_shown_as_they_were_left() {
    let mut lake = Written::new();
    let slot = |state: &str| json!({"slot_id": "s1", "schedule": "nightly", "state": state});
    let cell = |state: &str, benchmark: &str, run: &str| json!({"slot_id": "s1", "schedule": "nightly", "state": state, "run_id": run, "policy": "scripted", "benchmark": benchmark, "reason": HOSTILE});
    let order = json!({"slot_id": "s2", "schedule": "nightly", "state": "paused"});
    let told = [slot("claimed"), cell("finished", "atlas", "r9"), cell("failed", "gaia", "r8"), slot("failed"), order];
    lake.append(Kind::Slot, &told).await;
    let browser = lake.browser();
    // An order to pause is no slot, and what a cell says is not what the slot says.
    let csv = browser.page("/schedules?format=csv&cols=state").await;
    assert_eq!(csv.lines().count(), 2, "{csv}");
    let twin: Vec<serde_json::Value> =
        serde_json::from_str(&browser.page("/schedules?format=json&of=slots").await).unwrap();
    let figures = ["state", "cells_finished", "cells_failed", "slot_id"].map(|name| twin[0][name].clone());
    assert_eq!(figures, [json!("failed"), json!(1), json!(1), json!("s1")]);
    assert!(browser.page("/schedules").await.contains("href=\"/schedules/s1\""));
    let page = browser.page("/schedules/s1").await;
    for shown in ["href=\"/runs/r9\"", "href=\"/runs/r8\"", "claimed", "Slot of nightly", "&lt;script&gt;"] {
        assert!(page.contains(shown), "{shown} is not in {page}");
    }
    assert!(!page.contains("<script>alert"), "{page}");
    let twin = browser.json("/schedules/s1").await;
    assert_eq!((&twin["cells"][1]["run_id"], twin["events"].as_array().unwrap().len()), (&json!("r8"), 4));
    assert_eq!(browser.get("/schedules/none").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vote_counts_what_a_judge_held_for_the_same_answer() {
    let mut lake = Written::new();
    lake.append(Kind::Qa, &[question("q1", "small", "Where?", json!({}))]).await;
    lake.append(Kind::Run, &[started("v1", "small", "endpoint:a", "live"), ended("v1", "finished")]).await;
    let given = [("New York", true), ("the big apple", true), ("Boston", false), ("Boston", false), ("NYC", true)];
    let attempts = (0..).zip(given).map(|(number, (answer, _))| {
        let mut attempt = attempt("v1", "q1", number, "alpha");
        attempt["answer"] = json!(answer);
        attempt
    });
    lake.append(Kind::Trajectory, &attempts.collect::<Vec<_>>()).await;
    let verdicts = (0..).zip(given).map(|(number, (_, right))| verdict("v1", "q1", number, right));
    lake.append(Kind::Judgment, &verdicts.collect::<Vec<_>>()).await;
    let browser = lake.browser();
    let majority = |twin: &serde_json::Value| {
        twin["report"]["at_k"].as_array().unwrap().last().unwrap()["maj_at_k"]["value"].clone()
    };
    // Boston has two votes, and each name of New York one.
    assert_eq!(majority(&browser.json("/runs/v1").await), json!(0.0));
    let same = |later: i64, earlier: i64| {
        let criteria = json!({"with": format!("v1-q1-{earlier}"), "judged_by": {"rules": {"version": 3}}});
        json!({"trajectory_id": format!("v1-q1-{later}"), "run_id": "v1", "stage": "equivalence", "verdict": "pass", "judge": "same", "rule_version": 3, "criteria": criteria.to_string()})
    };
    lake.append(Kind::Judgment, &[same(1, 0), same(4, 0)]).await;
    let twin = browser.json("/runs/v1").await;
    assert_eq!(majority(&twin), json!(1.0));
    assert_eq!(twin["report"]["votes"]["same"], json!(2));
    assert!(browser.page("/runs/v1").await.contains("same v3 holds 2 pairs of answers for the same"));
    let cells = browser.json("/").await["cells"].clone();
    let ours = cells.as_array().unwrap().iter().find(|cell| cell["policy"] == "alpha").unwrap().clone();
    assert_eq!(ours["maj_at_k"], json!(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runs_questions_are_a_heat_map_from_best_to_worst() {
    let browser = two_runs().await.browser();
    let page = browser.page("/runs/r1").await;
    assert!(page.contains("from best to worst answered, n = 4 questions") && page.contains("id=\"matrix\""), "{page}");
    assert!(
        page.contains("href=\"/trajectories/r1-q2-1\" tabindex=\"-1\" aria-label=\"q2, attempt 1: wrong\""),
        "{page}"
    );
    let csv = browser.page("/runs/r1?format=csv&of=matrix").await;
    assert_eq!(csv, "of,attempt_0,attempt_1\nq1,right,right\nq2,right,wrong\nq3,wrong,wrong\nq4,wrong,wrong\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_gated_benchmarks_are_left_out_unless_the_server_shows_them() {
    let mut lake = Written::new();
    let told = |attributes| question("q1", "gaia", "the secret question", attributes);
    // That it is gated was said once.
    lake.append(Kind::Qa, &[told(json!({"restricted": true})), told(json!({}))]).await;
    lake.append(Kind::Run, &[started("g1", "gaia", "endpoint:a", "live"), ended("g1", "finished")]).await;
    lake.append(Kind::Trajectory, &[attempt("g1", "q1", 0, "alpha")]).await;
    lake.append(Kind::Judgment, &[verdict("g1", "q1", 0, true)]).await;
    let closed = lake.browser();
    let page = closed.page("/runs/g1").await;
    assert!(!page.contains("secret"), "{page}");
    assert!(page.contains("the right `restricted`") && page.contains("webdancer serve --restricted"), "{page}");
    // The figures of a gated benchmark are no rows of it.
    assert!(page.contains("100.0"), "{page}");
    for address in ["/runs/g1?format=json", "/runs/g1?format=csv&of=questions", "/runs/g1?download=report"] {
        assert!(!closed.page(address).await.contains("secret"), "{address}");
    }
    // The attempt does not say that it is gated: its question does.
    assert!(!closed.page("/trajectories?format=csv").await.contains("an answer"));
    let open = lake.browser_with(Settings { restricted: true, ..settings() });
    assert!(open.page("/runs/g1").await.contains("the secret question"));
    assert!(open.page("/trajectories?format=csv").await.contains("an answer"));
}
