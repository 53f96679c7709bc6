//! Serper, SearXNG and Jina Reader as stubs over real HTTP: what is asked of them, and each way they fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use serde_json::{Value, json};
use webdancer_agent::chat::{ChatError, ChatModel};
use webdancer_agent::secret::Secret;
use webdancer_agent::tool::jina::Jina;
use webdancer_agent::tool::search::{Hit, SearchEngine};
use webdancer_agent::tool::searxng::Searxng;
use webdancer_agent::tool::serper::Serper;
use webdancer_agent::tool::service::ServiceConfig;
use webdancer_agent::tool::summary::{Summariser, SummaryConfig, of_passages};
use webdancer_agent::tool::visit::{PageFailed, PageSource, PageText};
use webdancer_agent::web::config::{Engine, Reader};
use webdancer_agent::web::{WebConfig, WebError};

use crate::scripted::{Scripted, context_full, says};
use crate::site::Site;

/// Answers one after the other, the last for ever; keeps what it was asked.
#[derive(Debug, Clone, Default)]
struct Stub {
    answers: Arc<Vec<(u16, String)>>,
    asked: Arc<Mutex<Vec<(String, HeaderMap, String)>>>,
    count: Arc<AtomicUsize>,
}

async fn answer(State(stub): State<Stub>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    stub.asked.lock().push((uri.to_string(), headers, String::from_utf8_lossy(&body).into_owned()));
    let number = stub.count.fetch_add(1, Ordering::SeqCst).min(stub.answers.len() - 1);
    let (status, text) = stub.answers[number].clone();
    (StatusCode::from_u16(status).unwrap(), [(header::RETRY_AFTER, "0")], text).into_response()
}

async fn stub(answers: &[(u16, &str)]) -> (Site, Stub) {
    let answers = answers.iter().map(|(status, text)| (*status, text.to_string())).collect();
    let stub = Stub { answers: Arc::new(answers), ..Stub::default() };
    (Site::start(Router::new().fallback(answer).with_state(stub.clone())).await, stub)
}

fn quick() -> ServiceConfig {
    ServiceConfig {
        backoff_ms: 1,
        retries_max: 2,
        body_bytes_max: 4_096,
        timeout_ms: 2_000,
        ..ServiceConfig::default()
    }
}

fn serper(site: &Site) -> Serper {
    Serper::new(&site.url("/search"), Secret::new("key-123456"), quick()).unwrap()
}

#[tokio::test]
async fn serper_is_asked_with_its_key_and_its_results_are_hits() {
    let results = json!({"searchParameters": {}, "organic": [
        {"title": "Drava", "link": "https://a.example/", "snippet": "A river.", "date": "Mar 3, 2025", "position": 1},
        {"title": "Mura", "link": "https://b.example/", "source": "Gazetteer"},
        {"title": "Sava", "link": "https://c.example/", "snippet": "Another."},
    ]});
    let (site, stub) = stub(&[(200, &results.to_string())]).await;
    let engine = serper(&site).located(Some("si".to_string()), Some("en".to_string()));
    let hits = engine.search("river \"Drava\"", 2).await.unwrap();
    let hit = |title: &str, url: &str, date: Option<&str>, source: Option<&str>, snippet: &str| Hit {
        title: title.to_string(),
        url: url.to_string(),
        date: date.map(str::to_string),
        source: source.map(str::to_string),
        snippet: snippet.to_string(),
    };
    assert_eq!(
        hits,
        [
            hit("Drava", "https://a.example/", Some("Mar 3, 2025"), None, "A river."),
            hit("Mura", "https://b.example/", None, Some("Gazetteer"), ""),
        ]
    );
    let asked = stub.asked.lock();
    let (uri, headers, body) = &asked[0];
    assert_eq!((uri.as_str(), headers["x-api-key"].to_str().unwrap()), ("/search", "key-123456"));
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body, json!({"q": "river \"Drava\"", "num": 2, "gl": "si", "hl": "en"}));
    assert!(!format!("{engine:?}").contains("key-123456"));
}

#[tokio::test]
async fn a_service_is_asked_again_where_that_may_help() {
    let (site, stub) = stub(&[(429, ""), (503, "busy"), (200, r#"{"organic": []}"#)]).await;
    assert_eq!(serper(&site).search("x", 3).await, Ok(vec![]));
    assert_eq!(stub.asked.lock().len(), 3);
}

#[tokio::test]
async fn each_failure_of_a_search_engine_is_named_without_its_key() {
    let large = "x".repeat(5_000);
    // The key lies across the end of what is shown.
    let (halved, shown) =
        (format!("{}key-123456", "x".repeat(195)), format!("serper: status 403: {}***", "x".repeat(195)));
    for (answers, times, expected) in [
        (vec![(403, halved.as_str())], 1, shown.as_str()),
        (vec![(500, "no\nluck")], 3, "serper: status 500: no luck (3 attempts)"),
        (vec![(403, "key-123456 is not known")], 1, "serper: status 403: *** is not known"),
        (vec![(302, "")], 1, "serper: status 302"),
        (vec![(200, &large)], 1, "serper: the answer is larger than 4096 bytes"),
        (vec![(200, "<html>")], 1, "serper: not the JSON that is expected: expected value at line 1 column 1"),
        (
            vec![(200, r#"{"organic": [{"title": "no link"}]}"#)],
            1,
            "serper: not the JSON that is expected: missing field `link` at line 1 column 33",
        ),
    ] {
        let (site, stub) = stub(&answers).await;
        let error = serper(&site).search("x", 3).await.unwrap_err();
        assert_eq!((error.to_string().as_str(), stub.asked.lock().len()), (expected, times));
    }
    // Nobody listens.
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let engine = Serper::new(&format!("http://{closed}/"), Secret::new("key-123456"), quick()).unwrap();
    let error = engine.search("x", 3).await.unwrap_err().to_string();
    assert!(error.starts_with("serper: ") && error.ends_with("(3 attempts)") && error.contains("refused"), "{error}");
    let error = Serper::new("http://a.example/", Secret::new("bad\nkey"), quick()).unwrap_err();
    assert_eq!(error.to_string(), "serper: the key holds what no header may; check its file");
}

#[tokio::test]
async fn searxng_is_asked_for_json_and_says_when_it_has_no_engine() {
    let results = json!({"query": "x", "number_of_results": 0, "unresponsive_engines": [["a", "timeout"]], "results": [
        {"url": "https://a.example/", "title": "Drava", "content": "A river.", "publishedDate": "2025-03-03T00:00:00",
         "engine": "b", "score": 1.0},
        {"url": "https://b.example/", "title": "Mura", "content": null, "publishedDate": null},
    ]});
    let none = json!({"results": [], "unresponsive_engines": [["a", "timeout"]]});
    let answers = [(200, &*results.to_string()), (200, r#"{"results": []}"#), (200, &none.to_string()), (403, "no")];
    let (site, stub) = stub(&answers).await;
    let engine = Searxng::new(&site.url("/searx"), quick()).unwrap().in_language(Some("en".to_string()));
    let hits = engine.search("a & b", 10).await.unwrap();
    assert_eq!(
        hits.iter().map(|hit| hit.url.as_str()).collect::<Vec<_>>(),
        ["https://a.example/", "https://b.example/"]
    );
    assert_eq!((hits[0].date.as_deref(), hits[1].snippet.as_str()), (Some("2025-03-03T00:00:00"), ""));
    assert_eq!(stub.asked.lock()[0].0, "/searx/search?q=a+%26+b&format=json&language=en");
    assert_eq!(engine.search("a", 10).await, Ok(vec![]));
    for expected in [
        "searxng: no engine of the instance answered: [[\"a\",\"timeout\"]]",
        "searxng: status 403: no; add json to search.formats in its settings.yml",
    ] {
        assert_eq!(engine.search("a", 10).await.unwrap_err().to_string(), expected);
    }
    for url in ["localhost:8888", "ftp://keeper:pw-Zq38@h/?key=k-99871", "keeper:pw-Zq38@h", "//keeper:pw-Zq38@h"] {
        let error = Searxng::new(url, quick()).unwrap_err().to_string();
        assert_eq!(error, "searxng: its URL is none of http or https; give the instance's start page");
    }
}

#[tokio::test]
async fn what_a_service_repeats_of_the_keys_in_its_url_is_not_shown() {
    let said = "no: keeper p@s+Zq38 p%40s+Zq38 p%40s%2bZq38 k-99871 a&b";
    let (site, _) = stub(&[(403, said)]).await;
    let url = site.url("/").replace("http://", "http://keeper:p%40s+Zq38@");
    let error = Searxng::new(&url, quick()).unwrap().search("a", 10).await.unwrap_err().to_string();
    let expected = "no: *** *** *** *** k-99871 a&b; add json to search.formats in its settings.yml";
    assert_eq!(error, format!("searxng: status 403: {expected}"));
    let (site, _) = stub(&[(403, said)]).await;
    let url = site.url("/?lang=a%26b&api-key=k-99871");
    let engine = Serper::new(&url, Secret::new("key-123456"), quick()).unwrap();
    let error = engine.search("a", 10).await.unwrap_err().to_string();
    assert_eq!(error, "serper: status 403: no: keeper p@s+Zq38 p%40s+Zq38 p%40s%2bZq38 *** a&b");
}

#[tokio::test]
async fn jina_tells_pages_that_are_not_there_from_its_own_failures() {
    let page = json!({"code": 200, "data": {"title": "Maribor", "content": "A city.", "url": "https://a.example/"}});
    let (site, stub) = stub(&[(200, &page.to_string())]).await;
    let url = "https://a.example/b?c=d".parse().unwrap();
    let jina = Jina::new(&site.url(""), Some(Secret::new("key-123456")), quick()).unwrap();
    let expected = PageText { title: Some("Maribor".to_string()), text: "A city.".to_string() };
    assert_eq!(jina.page(&url).await, Ok(expected));
    let (uri, headers, _) = stub.asked.lock()[0].clone();
    assert_eq!(uri, "/https://a.example/b?c=d");
    assert_eq!(
        (&headers["authorization"], &headers["accept"]),
        (&"Bearer key-123456".parse().unwrap(), &"application/json".parse().unwrap())
    );

    let unreachable = |reason: &str| Err(PageFailed::Unreachable(reason.to_string()));
    let outage = |reason: &str| Err(PageFailed::Outage(reason.to_string()));
    let large = "x".repeat(5_000);
    for (status, text, times, expected) in [
        (422, "{}", 1, unreachable("the reader got nothing, status 422")),
        (451, "{}", 1, unreachable("the reader got nothing, status 451")),
        (524, "{}", 3, unreachable("the reader got nothing, status 524")),
        (200, r#"{"data": {"title": "x", "content": " "}}"#, 1, unreachable("the page has no text")),
        (200, &large, 1, unreachable("the page is too large")),
        (402, "pay", 1, outage("jina: status 402: pay")),
        (503, "busy", 3, outage("jina: status 503: busy (3 attempts)")),
        (200, "{}", 1, outage("jina: not the JSON that is expected: missing field `data` at line 1 column 2")),
    ] {
        let (site, stub) = stub_of(status, text).await;
        let jina = Jina::new(&site.url(""), None, quick()).unwrap();
        assert_eq!(jina.page(&url).await, expected, "{status} {text}");
        assert_eq!(stub.asked.lock().len(), times, "{status} {text}");
    }
}

async fn stub_of(status: u16, text: &str) -> (Site, Stub) {
    stub(&[(status, text)]).await
}

const PAGE: &str = "# Maribor\n\nA city in Slovenia.\n\n## River\n\nThe Drava flows through it.";
const GOOD: &str = r#"{"rational": "r", "evidence": "The Drava flows through it.", "summary": "It is the Drava."}"#;

fn summariser(model: &Arc<Scripted>) -> Summariser {
    let model: Arc<dyn ChatModel> = model.clone();
    Summariser::new(model, SummaryConfig::default())
}

#[tokio::test]
async fn a_summariser_is_asked_again_and_then_passages_stand_in() {
    let model = Scripted::new([says("I would say"), says(GOOD)]);
    let summariser_of_two = summariser(&model);
    let summary = summariser_of_two.summarise(PAGE, "the river", 50).await.unwrap();
    assert_eq!(
        (summary.evidence.as_str(), summary.summary.as_str()),
        ("The Drava flows through it.", "It is the Drava.")
    );
    assert_eq!(summariser_of_two.counts(), (1, 0));
    let requests = model.requests.lock().clone();
    let asked = &requests[0].messages[0].content;
    assert!(
        asked.contains("Purpose: the river\n") && asked.contains(&format!("==========\n{PAGE}\n==========\n")),
        "{asked}"
    );
    assert_eq!((requests[0].sampling.temperature, requests[1].sampling.temperature), (Some(0.0), Some(0.7)));

    let model = Scripted::new((0..3).map(|_| says("I would say")));
    let failing = summariser(&model);
    assert_eq!(failing.summarise(PAGE, "the river", 50).await.unwrap(), of_passages(PAGE, "the river", 50).await);
    assert_eq!((failing.counts(), model.requests.lock().len()), ((0, 1), 3));
}

#[tokio::test]
async fn a_summariser_gets_half_the_page_when_the_page_does_not_fit() {
    let model = Scripted::new([context_full(), context_full(), says(GOOD)]);
    let page = "word ".repeat(1_000);
    summariser(&model).summarise(&page, "the river", 50).await.unwrap();
    let lengths: Vec<usize> =
        model.requests.lock().iter().map(|r| r.messages[0].content.matches("word ").count()).collect();
    assert_eq!(lengths[0], 1_000);
    assert!(lengths[1] <= 500 && lengths[2] <= 250 && lengths[2] > 200, "{lengths:?}");
}

#[tokio::test]
async fn a_refusing_summariser_is_stood_in_for_and_one_that_is_down_is_an_error() {
    let refused = ChatError::Refused { model: "m".to_string(), reason: "inappropriate content".to_string() };
    let model = Scripted::new([Err(refused)]);
    let failing = summariser(&model);
    assert_eq!(failing.summarise(PAGE, "river", 50).await.unwrap().summary, "The Drava flows through it.");
    assert_eq!(failing.counts(), (0, 1));
    let down = ChatError::Unavailable { model: "m".to_string(), attempts: 4, reason: "status 500".to_string() };
    let model = Scripted::new([Err(down.clone())]);
    assert_eq!(summariser(&model).summarise(PAGE, "river", 50).await, Err(down));
}

#[test]
fn a_web_that_lacks_a_setting_says_which() {
    let limits = webdancer_agent::tool::ObservationLimits::default();
    let error = |config: WebConfig| config.live(&limits, None, None).unwrap_err();
    let folder = tempfile::tempdir().unwrap();
    let mut config = WebConfig::default();
    config.search.key_file = Some(folder.path().join("none"));
    assert!(error(config.clone()).to_string().starts_with("web.search: there is no key: "));
    config.search.engine = Engine::Searxng;
    assert_eq!(error(config.clone()), WebError::NoUrl);
    config.search.url = Some("http://127.0.0.1:8888/".to_string());
    assert!(config.live(&limits, None, None).is_ok());
    config.visit.reader = Reader::Pages;
    assert_eq!(
        error(config.clone()).to_string(),
        "web.visit.reader is \"pages\", and there are no pages: choose another, or name a pin of pages"
    );
    let text = "[search]\nengine = \"searxng\"\nurl = \"http://127.0.0.1:8888/\"\n[visit]\nreader = \"jina\"\n[visit.fetch]\nrobots = false\n";
    let read: WebConfig = toml::from_str(text).unwrap();
    assert_eq!(
        (read.search.engine, read.visit.reader, read.visit.fetch.robots),
        (Engine::Searxng, Reader::Jina, false)
    );
    assert!(toml::from_str::<WebConfig>("[search]\nengin = \"serper\"").is_err());
}
