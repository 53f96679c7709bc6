//! A run while it runs.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use futures::StreamExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use webdancer_eval::dashboard::Settings;
use webdancer_schemas::kind::Kind;

use super::lake::{Written, attempt, ended, question, settings, started, verdict};

async fn running() -> Written {
    let mut lake = Written::new();
    let questions = ["q1", "q2", "q3", "q4"].map(|id| question(id, "small", "What is it?", json!({})));
    lake.append(Kind::Qa, &questions).await;
    lake.append(Kind::Run, &[started("r1", "small", "endpoint:a", "live")]).await;
    lake.append(Kind::Trajectory, &[attempt("r1", "q1", 0, "alpha"), attempt("r1", "q1", 1, "alpha")]).await;
    lake.append(Kind::Judgment, &[verdict("r1", "q1", 0, true), verdict("r1", "q1", 1, false)]).await;
    lake
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_page_is_told_of_progress_and_of_the_end() {
    let mut lake = running().await;
    let browser = lake.browser();
    let page = browser.page("/runs/r1").await;
    assert!(page.contains("data-live=\"/runs/r1/live\"") && page.contains("Under way"), "{page}");
    let request = Request::get("/runs/r1/live").body(Body::empty()).unwrap();
    let response = browser.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut events = response.into_body().into_data_stream();
    let first = String::from_utf8(events.next().await.unwrap().unwrap().to_vec()).unwrap();
    let data = first.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let told: Value = serde_json::from_str(data).unwrap();
    // Two of eight attempts in ten minutes: the six that are still to come are neither made nor without a verdict.
    assert_eq!(told["unknown"], json!("0"));
    assert_eq!((&told["made"], &told["total"], &told["done"]), (&json!("2"), &json!("8"), &json!("25")));
    assert_eq!((&told["rate"], &told["eta"], &told["score"]), (&json!("0.2"), &json!("30 m 00 s"), &json!("50.0†")));
    lake.append(Kind::Run, &[ended("r1", "finished")]).await;
    let last = String::from_utf8(events.next().await.unwrap().unwrap().to_vec()).unwrap();
    assert!(last.contains("event: done"), "{last}");
    assert!(events.next().await.is_none());
    assert!(!browser.page("/runs/r1").await.contains("data-live="));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_taken_up_is_as_fast_as_it_is_now() {
    let mut lake = running().await;
    let taken_up = |mut row: Value, time: &str| {
        row["event_time"] = json!(time);
        row
    };
    lake.append(Kind::Run, &[ended("r1", "stopped")]).await;
    lake.append(Kind::Run, &[taken_up(started("r1", "small", "endpoint:a", "live"), "2026-01-01T00:08:00Z")]).await;
    let made = ["2026-01-01T00:09:00Z", "2026-01-01T00:09:30Z"];
    let made = [0, 1].map(|number| taken_up(attempt("r1", "q2", number as i64, "alpha"), made[number]));
    lake.append(Kind::Trajectory, &made).await;
    let request = Request::get("/runs/r1/live").body(Body::empty()).unwrap();
    let response = lake.browser().router.oneshot(request).await.unwrap();
    let first = response.into_body().into_data_stream().next().await.unwrap().unwrap();
    let data = String::from_utf8(first.to_vec()).unwrap();
    let data = data.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let told: Value = serde_json::from_str(data).unwrap();
    // Two in the two minutes since, of four in ten; four are left.
    assert_eq!((&told["made"], &told["rate"], &told["eta"]), (&json!("4"), &json!("1.0"), &json!("4 m 00 s")));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_live_pages_than_there_may_be_are_sent_away() {
    let lake = running().await;
    let browser = lake.browser_with(Settings { streams_max: 0, ..settings() });
    let seen = browser.get("/runs/r1/live").await;
    assert_eq!(seen.status, StatusCode::GATEWAY_TIMEOUT);
    assert!(seen.text.contains("reload this one instead"), "{}", seen.text);
}
