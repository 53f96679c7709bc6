//! What a crawl owes to the host: robots.txt, pauses, one connection, patience.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use parking_lot::Mutex;
use webdancer_agent::fetch::USER_AGENT;
use webdancer_synth::crawl::{CrawlConfig, Skip};
use webdancer_synth::site::Server;

use crate::memory_log::{at, crawl, loopback};

/// A site of a root and five leaves that notes its visitors.
#[derive(Debug, Default)]
struct Notes {
    /// Start and end of each request, and its path.
    requests: Mutex<Vec<(Instant, Instant, String)>>,
    agents: Mutex<Vec<String>>,
    inside: AtomicUsize,
    most_inside: AtomicUsize,
}

async fn site(notes: Arc<Notes>, robots: impl Fn() -> Response + Clone + Send + Sync + 'static) -> Server {
    let handler = move |uri: Uri, headers: HeaderMap| {
        let (notes, robots) = (notes.clone(), robots.clone());
        async move {
            let start = Instant::now();
            let inside = notes.inside.fetch_add(1, Ordering::SeqCst) + 1;
            notes.most_inside.fetch_max(inside, Ordering::SeqCst);
            notes.agents.lock().push(headers[header::USER_AGENT].to_str().unwrap().to_string());
            tokio::time::sleep(Duration::from_millis(20)).await;
            notes.inside.fetch_sub(1, Ordering::SeqCst);
            notes.requests.lock().push((start, Instant::now(), uri.path().to_string()));
            match uri.path() {
                "/robots.txt" => robots(),
                "/rules" => "User-agent: webdancer\nDisallow: /leaf/1\n".into_response(),
                "/" => {
                    let links: String = (0..5).map(|number| format!("<a href='/leaf/{number}'>l</a>")).collect();
                    Html(format!("<p>Root.</p>{links}")).into_response()
                }
                path => Html(format!("<p>Page {path}.</p>")).into_response(),
            }
        }
    };
    Server::start(Router::new().fallback(handler), "127.0.0.1:0".parse().unwrap()).await.unwrap()
}

fn none() -> Response {
    StatusCode::NOT_FOUND.into_response()
}

/// Shortest time from the end of a request to the start of the next.
fn shortest_pause(notes: &Notes) -> Duration {
    let requests = notes.requests.lock();
    let pauses = requests.windows(2).map(|pair| pair[1].0.duration_since(pair[0].1));
    pauses.min().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_and_a_pause_by_default() {
    let notes = Arc::new(Notes::default());
    let server = site(notes.clone(), none).await;
    let mut config = CrawlConfig { concurrency: 8, ..loopback() };
    config.fetch.delay_ms = 100;
    config.fetch.connections_per_host = 1;
    let (report, _, _) = crawl(&server.url(), config).await;
    assert_eq!((report.pages, report.errors), (6, 0));
    assert_eq!(notes.most_inside.load(Ordering::SeqCst), 1);
    assert!(shortest_pause(&notes) >= Duration::from_millis(100), "{:?}", shortest_pause(&notes));
    assert!(notes.agents.lock().iter().all(|agent| agent == USER_AGENT));
    assert_eq!(USER_AGENT, "webdancer/0.1.0");
    // robots.txt once, then the pages in the order of their links.
    let paths: Vec<String> = notes.requests.lock().iter().map(|request| request.2.clone()).collect();
    assert_eq!(paths, ["/robots.txt", "/", "/leaf/0", "/leaf/1", "/leaf/2", "/leaf/3", "/leaf/4"]);
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn crawl_delay_wins_over_no_delay() {
    let notes = Arc::new(Notes::default());
    let server = site(notes.clone(), || "User-agent: *\nCrawl-delay: 0.2\n".into_response()).await;
    let (report, _, _) = crawl(&server.url(), loopback().impolite(8)).await;
    assert_eq!(report.pages, 6);
    assert!(shortest_pause(&notes) >= Duration::from_millis(150), "{:?}", shortest_pause(&notes));
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn robots_that_cannot_be_read_forbid_and_those_that_are_not_there_allow() {
    let notes = Arc::new(Notes::default());
    let server = site(notes.clone(), || StatusCode::BAD_GATEWAY.into_response()).await;
    let (report, _, _) = crawl(&server.url(), loopback()).await;
    assert_eq!(report.failed_roots[0].error, "robots.txt could not be read: status 502");
    assert_eq!(notes.requests.lock().len(), 1);
    drop(server);

    let server = site(Arc::default(), || StatusCode::FORBIDDEN.into_response()).await;
    let (report, _, _) = crawl(&server.url(), loopback()).await;
    assert_eq!((report.pages, report.errors), (6, 0));
    drop(server);

    let moved = || (StatusCode::FOUND, [(header::LOCATION, "/rules")]).into_response();
    let server = site(Arc::default(), moved).await;
    let (report, pages, _) = crawl(&server.url(), loopback()).await;
    assert_eq!((report.pages, report.skipped), (5, [(Skip::Robots, 1)].into()));
    assert!(!pages.contains_key(&format!("{}leaf/1", server.url())));
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_host_is_asked_again_when_it_says() {
    let asked: Arc<Mutex<Vec<(Instant, String)>>> = Arc::default();
    let seen = asked.clone();
    let handler = move |uri: Uri| {
        let seen = seen.clone();
        async move {
            let times = {
                let mut seen = seen.lock();
                seen.push((Instant::now(), uri.path().to_string()));
                seen.iter().filter(|(_, path)| *path == uri.path()).count()
            };
            match (uri.path(), times) {
                ("/robots.txt", _) => StatusCode::NOT_FOUND.into_response(),
                ("/", _) => Html("<p>Root.</p><a href='/busy'>b</a><a href='/always'>a</a>").into_response(),
                ("/busy", 1) => (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "1")]).into_response(),
                ("/busy", _) => Html("<p>Now then.</p>").into_response(),
                _ => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            }
        }
    };
    let server = Server::start(Router::new().fallback(handler), "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let mut config = loopback().impolite(1);
    config.fetch.retries_max = 2;
    let (_, pages, _) = crawl(&server.url(), config).await;
    assert_eq!(at(&pages, &server.url(), "busy").text.as_deref(), Some("Now then."));
    assert_eq!(at(&pages, &server.url(), "always").error.as_deref(), Some("status 503"));
    let of = |path: &str| asked.lock().iter().filter(|(_, seen)| seen == path).map(|(at, _)| *at).collect::<Vec<_>>();
    assert!(of("/busy")[1].duration_since(of("/busy")[0]) >= Duration::from_secs(1));
    assert_eq!((of("/busy").len(), of("/always").len()), (2, 3));
    drop(server);
}
