//! Data, questions, stored pages, training, pins, search and the SQL console.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::json;
use tower::ServiceExt as _;
use webdancer_eval::dashboard::Settings;
use webdancer_schemas::kind::Kind;

use super::lake::{Browser, HOSTILE, Written, settings};

/// Four attempts: one valid and correct and good, one wrong, one that is not judged, one at a gated benchmark.
async fn funnel() -> Written {
    let mut lake = Written::new();
    let qa = |id: &str, method: &str| json!({"qa_id": id, "method": method, "question": format!("{id}? {HOSTILE}"), "answer": "gold", "entity_chain": ["A", "B"], "evidence_page_digests": ["d1"]});
    let mut child = qa("q2", "e2hqa");
    child["parent_qa_id"] = json!("q1");
    lake.append(Kind::Qa, &[qa("q1", "crawlqa"), child, qa("q3", "benchmark")]).await;
    lake.append(Kind::Rewrite, &[json!({"qa_id": "q2", "step": 1, "entity": "Togo", "description": "the country of Lomé", "new_question": "Which?", "invariant": false})]).await;
    let trajectory =
        |id: &str, qa: &str| json!({"trajectory_id": id, "qa_id": qa, "termination": "answer", "n_turns": 1});
    lake.append(
        Kind::Trajectory,
        &[trajectory("t1", "q1"), trajectory("t2", "q1"), trajectory("t3", "q2"), trajectory("t4", "q3")],
    )
    .await;
    let verdict = |id: &str, stage: &str, verdict: &str, reason: &str| json!({"trajectory_id": id, "stage": stage, "verdict": verdict, "rule_version": 1, "criteria": json!({"reason": reason}).to_string()});
    lake.append(
        Kind::Judgment,
        &[
            verdict("t1", "validity", "pass", ""),
            verdict("t1", "correctness", "pass", ""),
            verdict("t1", "quality", "pass", ""),
            verdict("t2", "validity", "pass", ""),
            verdict("t2", "correctness", "fail", "wrong_answer"),
        ],
    )
    .await;
    lake
}

#[tokio::test(flavor = "multi_thread")]
async fn the_funnel_is_a_waterfall_and_leaves_benchmarks_out() {
    let browser = funnel().await.browser();
    let page = browser.page("/data").await;
    assert!(page.contains("from 3 sampled trajectories") && page.contains("rejected: correctness"), "{page}");
    let csv = browser.page("/data?format=csv&of=methods").await;
    assert_eq!(
        csv,
        "method,all,validity,correctness,quality,error,pending,accepted,share\ncrawlqa,2.0,0.0,1.0,0.0,0.0,0.0,1.0,0.5\ne2hqa,1.0,0.0,0.0,0.0,0.0,1.0,0.0,0.0\n"
    );
    let twin = browser.json("/data").await;
    assert_eq!(twin["pools"][0], json!({"pool": "sft_pool", "rows": 1, "questions": 1}));
    assert_eq!(twin["reasons"][0]["n"], json!(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_has_its_origin_and_its_attempts() {
    let browser = funnel().await.browser();
    let page = browser.page("/questions/q1").await;
    assert!(page.contains("A → B") && page.contains("/questions/q2") && page.contains("/pages/d1"), "{page}");
    assert!(page.contains("/trajectories/t1") && page.contains("▼ fail") && !page.contains("<script>alert"), "{page}");
    let child = browser.page("/questions/q2").await;
    assert!(child.contains("“Togo” became “the country of Lomé”") && child.contains("! the answer changed"), "{child}");
    let csv = browser.page("/questions?format=csv&f.method=%3Dcrawlqa").await;
    assert_eq!(csv.lines().count(), 2, "{csv}");
    assert_eq!(browser.get("/questions/q9").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_page_is_text_and_its_links_are_not_live() {
    let mut lake = funnel().await;
    let stored = |url: &str, digest: &str| {
        json!({
            "url": url, "final_url": url, "root_url": url, "depth": 0, "status": 200, "title": HOSTILE, "text": HOSTILE, "digest": digest,
            "links": ["http://b.example/", "javascript:alert(3)"],
        })
    };
    lake.append(Kind::Page, &[stored("http://a.example/", "d1"), stored("http://b.example/", "d2")]).await;
    let browser = lake.browser();
    assert!(browser.page("/pages").await.contains("2 rows"));
    let page = browser.page("/pages/d1").await;
    assert!(page.contains("http://b.example/") && page.contains("href=\"/pages/d2\""), "{page}");
    assert!(
        !page.contains("href=\"http") && !page.contains("href=\"javascript") && !page.contains("<script>alert"),
        "{page}"
    );
    assert!(page.contains("/questions/q1"), "{page}");
    let text = browser.get("/pages/d1/text").await;
    assert_eq!(
        (text.text.as_str(), &text.headers["content-type"]),
        (HOSTILE, &"text/plain; charset=utf-8".parse().unwrap())
    );
    let csv = browser.page("/pages/d1?format=csv").await;
    assert!(csv.contains("http://a.example/") && !csv.contains("http://b.example/,"), "{csv}");
    let led = browser.get("/pages?url=http://a.example/").await;
    assert_eq!(led.headers["location"], "/pages?f.url=%3Dhttp%3A%2F%2Fa.example%2F");
    assert_eq!(browser.get("/pages/d9").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn curves_are_drawn_from_what_trainers_told() {
    let mut lake = Written::new();
    let run = |state: &str| json!({"run_id": "s1", "kind": "sft", "state": state, "config": "{\"preset\":\"demo\"}", "pin_id": "p1"});
    lake.append(Kind::Run, &[run("started"), run("finished")]).await;
    let metric =
        |name: &str, step: i64, value: f64| json!({"run_id": "s1", "name": name, "step": step, "value": value});
    lake.append(
        Kind::Metric,
        &[metric("loss", 1, 2.5), metric("loss", 2, 1.25), metric("entropy", 2, 0.5), metric("peak_memory", 2, 4e9)],
    )
    .await;
    lake.append(Kind::Checkpoint, &[json!({"run_id": "s1", "digest": "c1", "step": 2, "uri": "/x/runs/s1/c"})]).await;
    let browser = lake.browser();
    let page = browser.page("/training").await;
    assert!(
        page.contains("1.2500") && page.contains("Loss by step (n = 2 points)") && page.contains("Entropy by step"),
        "{page}"
    );
    let run = browser.page("/training/s1").await;
    assert!(
        run.contains("checkpoint c1") && run.contains("4.0 G") && run.contains("&quot;preset&quot;: &quot;demo&quot;"),
        "{run}"
    );
    let csv = browser.page("/training/s1?format=csv&of=loss").await;
    assert!(csv.contains("1.25") && csv.lines().count() == 3, "{csv}");
    assert_eq!(browser.get("/training/none").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_has_its_digests_and_where_it_is_from() {
    let lake = funnel().await;
    let now = "2026-01-03T00:00:00Z".parse().unwrap();
    let made =
        webdancer_query::pin::create(&lake.engine(), "train", "SELECT qa_id FROM qa WHERE method = 'crawlqa'", now)
            .await
            .unwrap();
    let page = lake.browser().page("/pins/train").await;
    let file = &made.manifest.files[0];
    for shown in [
        made.manifest.digest.as_str(),
        &file.sha256,
        "SELECT qa_id FROM qa",
        "webdancer pin verify train",
        "2026-01-03 00:00",
    ] {
        assert!(page.replace("&#39;", "'").contains(shown), "{shown} is not in {page}");
    }
    let twin = lake.browser().json(&format!("/pins/{}", &made.manifest.digest[..8])).await;
    assert_eq!((&twin["manifest"]["rows"], &twin["manifest"]["name"]), (&json!(1), &json!("train")));
    assert_eq!(lake.browser().get("/pins/none").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn lineage_is_a_graph_with_links_and_a_twin() {
    let browser = funnel().await.browser();
    let page = browser.page("/lineage/t1").await;
    assert!(page.contains("<svg class=\"lineage\"") && page.contains("href=\"/lineage/question%3Aq1\""), "{page}");
    assert!(page.contains("href=\"/questions/q1\"") && !page.contains("<script>alert"), "{page}");
    let twin = browser.json("/lineage/t1").await;
    assert_eq!(twin["roots"], json!(["trajectory:t1"]));
    assert_eq!(browser.get("/lineage/none").await.status, StatusCode::NOT_FOUND);
    assert_eq!(browser.get("/lineage/t1?up=21").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn search_leads_to_an_id_and_finds_words_of_questions() {
    let browser = funnel().await.browser();
    let led = browser.get("/search?q=t3").await;
    assert_eq!((led.status, &led.headers["location"]), (StatusCode::SEE_OTHER, &"/trajectories/t3".parse().unwrap()));
    let found = browser.page("/search?q=Q1%3F+%3CSCRIPT").await;
    assert!(found.contains("/questions/q1") && !found.contains("/questions/q2"), "{found}");
    assert!(browser.page("/search?q=nowhere+at+all").await.contains("Nothing in this lake"));
    assert!(browser.page("/search").await.contains("Give an id"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_runs_what_only_reads_and_says_what_is_wrong() {
    let browser = funnel().await.browser();
    let page =
        browser.page("/sql?sql=SELECT+method,+count(*)+AS+n+FROM+qa+GROUP+BY+method+ORDER+BY+method&chart=bars").await;
    assert!(page.contains("n by method (n = 3 rows)") && page.contains("<td class=\"number\">1</td>"), "{page}");
    let csv = browser.page("/sql?format=csv&sql=SELECT+qa_id+FROM+qa+ORDER+BY+qa_id").await;
    assert_eq!(csv, "qa_id\nq1\nq2\nq3\n");
    let twin = browser.json("/sql?sql=SELECT+1+AS+one").await;
    assert_eq!((&twin["rows"], &twin["cut"]), (&json!([{"one": 1}]), &json!(false)));
    for (sql, told) in
        [("DELETE+FROM+qa", "refused"), ("SELECT+nothing+FROM+qa", "nothing"), ("SELECT+*+FROM+%27/etc/passwd%27", "")]
    {
        let page = browser.page(&format!("/sql?sql={sql}")).await;
        assert!(page.contains("role=\"alert\"") && page.contains(told), "{sql}: {page}");
        assert!(!browser.get(&format!("/sql?format=json&sql={sql}")).await.status.is_success(), "{sql}");
    }
}

async fn post(browser: &Browser, origin: &str, form: &str) -> (StatusCode, String) {
    let request = Request::post("/sql/saved").header("host", "localhost:1").header("origin", origin);
    let response = browser.router.clone().oneshot(request.body(Body::from(form.to_string())).unwrap()).await.unwrap();
    let location = response.headers().get("location").map(|value| value.to_str().unwrap().to_string());
    (response.status(), location.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_is_saved_from_the_servers_own_page_alone() {
    let browser = funnel().await.browser();
    let form = "name=by-day&sql=SELECT+%27x%27+AS+a,%0D%0A1+AS+one&chart=bars";
    assert_eq!(
        post(&browser, "http://localhost:1", form).await,
        (StatusCode::SEE_OTHER, "/sql?saved=by-day".to_string())
    );
    assert_eq!(post(&browser, "http://evil.example", form).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(post(&browser, "http://localhost:1", "name=../x&sql=SELECT+1").await.0, StatusCode::BAD_REQUEST);
    let twin = browser.json("/sql?saved=by-day").await;
    assert_eq!(twin["sql"], "SELECT 'x' AS a,\n1 AS one");
    post(&browser, "http://localhost:1", "name=by-day&sql=SELECT+2+AS+two").await;
    assert_eq!(browser.json("/sql?saved=by-day").await["rows"], json!([{"two": 2}]));
    assert_eq!(browser.json("/sql?saved=by-day&version=1").await["rows"], json!([{"a": "x", "one": 1}]));
    assert_eq!(browser.get("/sql?saved=none").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn gated_rows_are_not_to_be_had_by_sql_without_the_right() {
    let mut lake = Written::new();
    let attributes = json!({"restricted": true}).to_string();
    lake.append(Kind::Qa, &[json!({"qa_id": "q1", "method": "benchmark", "question": "SECRET", "answer": "SECRET", "attributes": attributes})]).await;
    let count = "/sql?sql=SELECT+count(*)+AS+n+FROM+qa";
    assert_eq!(lake.browser().json(count).await["rows"], json!([{"n": 0}]));
    assert_eq!(lake.browser().page("/sql?format=csv&sql=SELECT+question+FROM+qa").await, "question\n");
    let open = lake.browser_with(Settings { restricted: true, ..settings() });
    assert_eq!(open.json(count).await["rows"], json!([{"n": 1}]));
    // Nor by a pin that has the text under another name.
    let now = "2026-01-03T00:00:00Z".parse().unwrap();
    let renamed = "SELECT question AS q, attributes AS more FROM qa";
    webdancer_query::pin::create(&lake.engine(), "kept", renamed, now).await.unwrap();
    let of_pin = "/sql?sql=SELECT+q+FROM+pin(%27kept%27)";
    let page = lake.browser().page(of_pin).await;
    assert!(page.contains("role=\"alert\"") && page.contains("pin kept was made of qa with rows of gated"), "{page}");
    assert!(!page.contains("SECRET"), "{page}");
    let refused = lake.browser().get(&format!("{of_pin}&format=csv")).await;
    assert!(refused.status == StatusCode::BAD_REQUEST && !refused.text.contains("SECRET"), "{}", refused.text);
    assert!(open.page(of_pin).await.contains("SECRET"));
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_pages_say_what_fills_them() {
    let browser = Written::new().browser();
    for (address, command) in [
        ("/trajectories", "webdancer sample"),
        ("/questions", "webdancer synth crawlqa"),
        ("/pages", "webdancer crawl"),
        ("/training", "webdancer train sft"),
        ("/pins", "webdancer pin create"),
        ("/data", "webdancer sample"),
    ] {
        let page = browser.page(address).await;
        assert!(page.contains("class=\"empty\"") && page.contains(command), "{address}: {page}");
    }
}
