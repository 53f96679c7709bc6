//! The viewer and the list of trajectories.

use axum::http::StatusCode;
use serde_json::{Value, json};
use webdancer_eval::dashboard::{Readers, Settings};
use webdancer_schemas::kind::Kind;

use super::lake::{Browser, HOSTILE, Written, settings, two_runs};

/// A trajectory of so many turns: all search but the last, which answers.
fn long(id: &str, turns: usize) -> Value {
    let each = |value: &dyn Fn(usize) -> Value| (0..turns).map(value).collect::<Vec<Value>>();
    let last = turns - 1;
    let called = |turn: usize, value: Value| if turn == last { Value::Null } else { value };
    json!({
        "trajectory_id": id, "run_id": "r1", "qa_id": "q1", "attempt": 0, "policy_model": "alpha", "answer": "Lomé",
        "question": "Which city?", "termination": "answer", "n_turns": turns, "n_tool_calls": last, "seed": 5,
        "turn_thought": each(&|turn| json!(format!("Thought {turn}"))),
        "turn_tool": each(&|turn| called(turn, json!("search"))),
        "turn_arguments": each(&|turn| called(turn, json!(format!("{{\"query\":[\"q {turn}\"]}}")))),
        "turn_observation": each(&|turn| called(turn, json!(format!("seen {turn}")))),
        "turn_observation_digest": each(&|turn| called(turn, json!(format!("digest-{turn}")))),
        "turn_raw": each(&|_| Value::Null),
        "turn_outcome": each(&|turn| called(turn, json!(if turn == 1 { "miss" } else { "done" }))),
        "turn_ms": each(&|turn| json!(1000 + turn)),
        "turn_input_tokens": each(&|_| json!(10)),
        "turn_output_tokens": each(&|_| json!(20)),
        "turn_context_token_ids": each(&|_| json!([1, 2])),
        "turn_completion_token_ids": each(&|_| json!([30, 31])),
        "turn_log_probs": each(&|_| json!([-0.01, -3.0])),
    })
}

async fn one(turns: usize) -> Written {
    let mut lake = Written::new();
    lake.append(
        Kind::Qa,
        &[json!({"qa_id": "q1", "method": "crawlqa", "question": "Which city?", "answer": "Lomé, in Togo"})],
    )
    .await;
    lake.append(Kind::Trajectory, &[long("t1", turns)]).await;
    lake
}

#[tokio::test(flavor = "multi_thread")]
async fn one_turn_is_read_and_the_rail_is_a_window() {
    let browser = one(250).await.browser();
    let page = browser.page("/trajectories/t1?turn=130").await;
    assert!(page.contains("Thought 129") && page.contains("seen 129") && page.contains("<dt>query</dt>"), "{page}");
    assert!(!page.contains("Thought 128") && !page.contains("seen 130"), "{page}");
    assert_eq!(page.matches("class=\"step\"").count(), 100);
    assert!(
        page.contains("250 turns, 101 to 200") && page.contains("?turn=100") && page.contains("?turn=201"),
        "{page}"
    );
    let last = browser.page("/trajectories/t1?turn=250").await;
    assert!(last.contains("Answer") && last.contains("Lomé, in Togo"), "{last}");
    for wrong in ["turn=0", "turn=251", "turn=x", "view=video"] {
        assert_eq!(browser.get(&format!("/trajectories/t1?{wrong}")).await.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
    assert_eq!(browser.get("/trajectories/t9").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_is_shown_as_it_was_written_and_as_tokens() {
    let browser = one(3).await.browser();
    let raw = browser.page("/trajectories/t1?turn=1&view=raw").await;
    let written = "&lt;think&gt;\nThought 0\n&lt;/think&gt;";
    assert!(raw.contains("&lt;think&gt;") && raw.contains("&lt;tool_response&gt;"), "{written} is not in {raw}");
    let tokens = browser.page("/trajectories/t1?turn=1&view=tokens").await;
    assert!(tokens.contains("2 tokens, trained") && tokens.contains("class=\"tok trained p3\""), "{tokens}");
    assert!(tokens.contains("log p -3.0000 (5.0 %), id 31"), "{tokens}");
    let twin = browser.json("/trajectories/t1?turn=2&view=tokens").await;
    assert_eq!(twin["open"]["parts"]["thought"], "Thought 1");
    assert_eq!(twin["open"]["tokens"]["completion"], json!([30, 31]));
    assert_eq!(twin["turns"][1]["outcome"], "miss");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_turns_are_a_file() {
    let browser = one(250).await.browser();
    let csv = browser.page("/trajectories/t1?format=csv").await;
    assert_eq!(csv.matches("Thought ").count(), 250);
    assert!(csv.starts_with("trajectory_id,qa_id,run_id,"), "{csv}");
    let rows = browser.json("/trajectories/t1?format=json&of=turns").await;
    let rows = rows.as_array().unwrap();
    assert_eq!((rows.len(), &rows[249]["turn"], &rows[249]["thought"]), (250, &json!(249), &json!("Thought 249")));
    assert_eq!(browser.json("/trajectories/t1?format=json").await["turns"].as_array().unwrap().len(), 100);
    let page = browser.page("/trajectories/t1").await;
    assert!(page.contains("/trajectories/t1?format=csv&amp;of=turns"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_text_is_plain_text() {
    let mut lake = one(2).await;
    let mut hostile = long("t2", 2);
    hostile["turn_observation"] = json!([HOSTILE.repeat(1000), null]);
    lake.append(Kind::Trajectory, &[hostile]).await;
    let browser = lake.browser();
    let page = browser.page("/trajectories/t2").await;
    assert!(
        page.contains("more characters") && page.contains("/trajectories/t2/turns/1/observation"),
        "{}",
        page.len()
    );
    assert!(!page.contains("<script>alert"), "{}", page.len());
    assert!(page.contains("U+202E"));
    let seen = browser.get("/trajectories/t2/turns/1/observation").await;
    assert_eq!(seen.text, HOSTILE.repeat(1000));
    assert_eq!(seen.headers["content-type"], "text/plain; charset=utf-8");
    assert_eq!(browser.get("/trajectories/t2/turns/3/observation").await.status, StatusCode::NOT_FOUND);
    assert_eq!(browser.get("/trajectories/t2/turns/1/secret").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn verdicts_rewards_and_neighbours_stand_beside_the_turns() {
    let mut lake = two_runs().await;
    lake.append(Kind::Reward, &[json!({"trajectory_id": "r1-q2-0", "reward": 0.91, "format": 1.0, "answer": 0.9})])
        .await;
    let mut verdict = super::lake::verdict("r1", "q2", 0, false);
    verdict["rule_version"] = json!(3);
    verdict["rationale"] = json!(format!("not so: {HOSTILE}"));
    lake.append(Kind::Judgment, &[verdict]).await;
    let browser = lake.browser();
    let page = browser.page("/trajectories/r1-q2-0").await;
    assert!(
        page.contains("▼ fail") && page.contains("not so: &lt;script&gt;") && page.contains("superseded"),
        "{page}"
    );
    assert!(page.contains("0.910") && page.contains("4 attempts at this question"), "{page}");
    assert!(
        page.contains("data-next href=\"/trajectories/r1-q2-1\"") && !page.contains("data-previous href"),
        "{page}"
    );
    let second = browser.page("/trajectories/r2-q2-0").await;
    assert!(second.contains("data-previous href=\"/trajectories/r1-q2-1\""), "{second}");
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_held_against_one_another() {
    let mut lake = one(3).await;
    let mut other = long("t2", 3);
    other["turn_arguments"] = json!(["{\"query\":[\"q 0\"]}", "{\"query\":[\"other\"]}", null]);
    other["turn_thought"] = json!(["Thought nought", "Thought there", "c"]);
    other["turn_observation"] = json!(["seen nothing", "seen elsewhere", null]);
    other["turn_observation_digest"] = json!(["digest-n", "digest-e", null]);
    (other["answer"], other["policy_model"]) = (json!("Kpalimé"), json!("beta"));
    lake.append(Kind::Trajectory, &[other]).await;
    let verdict = |id: &str, verdict: &str| json!({"trajectory_id": id, "stage": "correctness", "verdict": verdict, "judge": "gaia", "rule_version": 1});
    lake.append(Kind::Judgment, &[verdict("t1", "pass"), verdict("t2", "fail")]).await;
    let page = lake.browser().page("/trajectories/t1?against=t2").await;
    assert!(page.contains("2 calls in common, 1 here alone, 1 there alone"), "{page}");
    for other in ["nought", "nothing"] {
        assert!(page.contains(&format!("<del>0</del><ins>{other}</ins>")), "{page}");
    }
    assert!(page.contains("Kpalimé") && page.contains("beta") && page.contains("▼ fail"), "{page}");
    assert!(!page.contains("Thought there"), "{page}");
    // A turn that the other has not stands beside what it did instead.
    let page = lake.browser().page("/trajectories/t1?turn=2&against=t2").await;
    assert!(page.contains("Turn 2 there") && page.contains("Turn 2 here"), "{page}");
    assert!(page.contains("Thought there") && page.contains("seen elsewhere") && page.contains("seen 1"), "{page}");
    assert_eq!(lake.browser().get("/trajectories/t1?against=t9").await.status, StatusCode::NOT_FOUND);
}

/// A gated question with attempts at it and verdicts on them, and an open one; whatever is gated has SECRET in it.
async fn gated() -> Written {
    let mut lake = Written::new();
    let attributes = json!({"restricted": true}).to_string();
    let silent = json!({"qa_id": "q1", "method": "benchmark", "question": "SECRETQ", "answer": "SECRETGOLD", "parent_qa_id": "q2", "evidence_page_digests": ["d1"]});
    let mut question = silent.clone();
    question["attributes"] = json!(attributes);
    // Neither the first nor the last row that tells of it says that it is gated.
    lake.append(Kind::Qa, &[silent.clone(), question, silent]).await;
    lake.append(Kind::Page, &[json!({"url": "http://a.example/", "title": "Page", "text": "A page.", "digest": "d1"})])
        .await;
    let mut gated = long("t1", 2);
    for (name, value) in [
        ("restricted", json!(true)),
        ("question", json!("SECRETQ")),
        ("answer", json!("SECRETA")),
        ("turn_thought", json!(["SECRETT", "SECRETT"])),
    ] {
        gated[name] = value;
    }
    let visit = |url: &str| json!({"url": [url, "http://a.example/"], "goal": "g"}).to_string();
    (gated["turn_tool"], gated["turn_arguments"]) =
        (json!(["visit", null]), json!([visit("https://find.example/?q=SECRETU"), null]));
    let mut free = long("t2", 2);
    free["qa_id"] = json!("q2");
    (free["turn_tool"], free["turn_arguments"]) =
        (json!(["visit", null]), json!([visit("https://find.example/?q=open"), null]));
    // Another benchmark, a gated one, asks the same as an open question.
    let mut twin = long("t3", 1);
    (twin["qa_id"], twin["restricted"], twin["answer"]) = (json!("q2"), json!(true), json!("SECRETB"));
    // It does not say itself that it is gated.
    let mut unsaid = long("t4", 1);
    (unsaid["question"], unsaid["answer"]) = (json!("SECRETQ"), json!("SECRETC"));
    (unsaid["turn_tool"], unsaid["turn_arguments"]) =
        (json!(["visit"]), json!([visit("https://find.example/?q=SECRETV")]));
    lake.append(Kind::Trajectory, &[gated, free, twin, unsaid]).await;
    lake.append(Kind::Qa, &[json!({"qa_id": "q2", "method": "crawlqa", "question": "Open?", "answer": "open"})]).await;
    lake.append(
        Kind::Judgment,
        &[json!({"trajectory_id": "t1", "stage": "correctness", "verdict": "pass", "rationale": "SECRETR", "criteria": json!({"extracted": "SECRETE"}).to_string()})],
    )
    .await;
    lake
}

#[tokio::test(flavor = "multi_thread")]
async fn gated_rows_are_shown_to_groups_that_have_the_right_and_to_no_others() {
    let lake = gated().await;
    let readers = Readers::new("X-Forwarded-Groups", vec!["evaluators".to_string()]).unwrap();
    for the_first_has_the_right in [true, false] {
        let served = lake.browser_with(Settings { readers: Some(readers.clone()), ..settings() });
        let open = served.of_groups("staff, evaluators");
        for address in [
            "/trajectories/t1",
            "/trajectories/t1?format=json",
            "/trajectories",
            "/trajectories?format=csv",
            "/questions",
            "/questions/q2?format=json",
            "/pages/d1",
            "/runs/r1",
            "/runs/r1?format=json&of=questions",
            "/search?q=ECRE",
            "/sql?format=json&sql=SELECT+question+FROM+qa",
            "/sql?format=csv&sql=SELECT+answer+FROM+current_trajectories",
        ] {
            if the_first_has_the_right {
                assert!(open.page(address).await.contains("SECRET"), "{address}");
            }
            for other in [served.clone(), served.of_groups("not-evaluators"), served.of_groups("evaluators of others")]
            {
                let seen = other.get(address).await;
                assert!(!seen.text.contains("SECRET"), "{address}: {}", seen.text);
                assert_eq!(seen.headers["cache-control"], "private, no-cache");
            }
            assert!(open.page(address).await.contains("SECRET"), "{address}");
        }
        let thought = "/trajectories/t1/turns/1/thought";
        assert_eq!(open.page(thought).await, "SECRETT");
        assert_eq!(served.get(thought).await.status, StatusCode::FORBIDDEN);
        // A list of rows that some may see is as long as it is for each.
        let rows = async |of: &Browser| of.page("/questions").await.contains("SECRETQ");
        assert_eq!((rows(&served).await, rows(&open).await, rows(&served).await), (false, true, false));
    }
    // Where the settings believe no header, it says nothing.
    assert!(!lake.browser().of_groups("evaluators").page("/trajectories/t1").await.contains("SECRET"));
}

#[tokio::test(flavor = "multi_thread")]
async fn gated_trajectories_keep_question_gold_answer_and_turns_to_themselves() {
    let lake = gated().await;
    let closed = lake.browser();
    for address in [
        "/trajectories/t1",
        "/trajectories/t1?format=json",
        "/trajectories/t4",
        "/trajectories/t4?format=json",
        "/trajectories",
        "/trajectories?format=csv",
        "/questions",
        "/questions?format=csv",
        "/questions/q2",
        "/questions/q2?format=json",
        "/lineage/t1",
        "/lineage/t1?format=json",
        "/lineage/t1?format=csv",
        "/lineage/t4?format=json",
        "/lineage/q1?format=json",
        "/pages/d1",
        "/pages/d1?format=json",
        "/search?q=SECRETQ",
    ] {
        let page = closed.page(address).await;
        // The search box repeats what was asked for.
        assert!(!page.replace("SECRETQ", "").contains("SECRET"), "{address}: {page}");
        assert!(address.starts_with("/search") || !page.contains("SECRETQ"), "{address}: {page}");
    }
    for (id, pages) in [("t1", vec!["d1"]), ("t4", vec!["d1"]), ("t2", vec!["d1", "https://find.example/?q=open"])] {
        let graph = closed.json(&format!("/lineage/{id}?down=0&up=1")).await;
        let nodes = graph["nodes"].as_array().unwrap().iter().filter_map(|node| node["id"].as_str());
        assert_eq!(nodes.filter_map(|id| id.strip_prefix("page:")).collect::<Vec<_>>(), pages, "{id}");
    }
    for address in [
        "/trajectories/t1/turns/1/thought",
        "/trajectories/t4/turns/1/thought",
        "/trajectories/t1?format=csv",
        "/trajectories/t4?format=json&of=turns",
        "/questions/q1",
        "/trajectories/t2?against=t1",
    ] {
        let seen = closed.get(address).await;
        assert_eq!(seen.status, StatusCode::FORBIDDEN, "{address}: {}", seen.text);
        assert!(!seen.text.contains("SECRET") && seen.text.contains("serve --restricted"), "{address}: {}", seen.text);
    }
    let open = lake.browser_with(Settings { restricted: true, ..settings() });
    let page = open.page("/trajectories/t1").await;
    for secret in ["SECRETQ", "SECRETGOLD", "SECRETT", "SECRETR"] {
        assert!(page.contains(secret), "{secret}");
    }
    for address in ["/questions", "/questions/q1", "/questions/q2", "/pages/d1", "/search?q=SECRET"] {
        assert!(open.page(address).await.contains("SECRETQ"), "{address}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_is_filtered_by_run_policy_ending_and_verdict() {
    let browser = two_runs().await.browser();
    let page = browser.page("/trajectories").await;
    assert!(page.contains("16 rows") && page.contains("▲ pass") && page.contains("▼ fail"), "{page}");
    let ids =
        |csv: String| csv.lines().skip(1).map(|line| line.split(',').next().unwrap().to_string()).collect::<Vec<_>>();
    let failed = ids(browser.page("/trajectories?format=csv&f.run=r1&f.verdict=fail&sort=trajectory").await);
    assert_eq!(failed, ["r1-q2-1", "r1-q3-0", "r1-q3-1", "r1-q4-0", "r1-q4-1"]);
    assert_eq!(ids(browser.page("/trajectories?format=csv&f.policy=beta").await).len(), 8);
    assert_eq!(ids(browser.page("/trajectories?format=csv&f.ended_by=time").await).len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_leads_to_the_page_as_it_was_read_whatever_address_the_lake_has_it_under() {
    let mut lake = Written::new();
    let page = |url: &str, digest: &str| json!({"url": url, "text": digest, "digest": digest});
    let pages = [page("http://127.0.0.1:8000/a", "d1"), page("http://127.0.0.1:8000/a", "d2"), page("http://b/", "d3")];
    lake.append(Kind::Page, &pages).await;
    let mut row = long("t1", 2);
    let call = json!({"url": ["http://atlas/a", "http://b/", "http://gone/"], "goal": "g"}).to_string();
    for (name, list) in [
        ("turn_tool", json!(["visit", null])),
        ("turn_arguments", json!([call, null])),
        ("turn_source_urls", json!([["http://atlas/a", "http://b/"], null])),
        ("turn_source_digests", json!([["d1", "unknown"], null])),
    ] {
        row[name] = list;
    }
    lake.append(Kind::Trajectory, &[row]).await;
    let shown = lake.browser().page("/trajectories/t1").await;
    assert!(shown.contains("http://atlas/a <a href=\"/pages/d1\">page as read</a>"), "{shown}");
    assert!(shown.contains("http://b/ <a href=\"/pages/d3\">page as stored last</a>"), "{shown}");
    assert_eq!(shown.matches("\">page as ").count(), 2);
}
