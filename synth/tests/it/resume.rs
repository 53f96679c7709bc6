//! A crawl that is killed goes on where it was.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::http::Uri;
use axum::response::Html;
use tokio::sync::Notify;
use webdancer_schemas::log::LogError;
use webdancer_schemas::rows::Page;
use webdancer_synth::crawl::{Counts, Crawl, CrawlConfig, CrawlError, CrawlReport, Skip};
use webdancer_synth::site::Server;

use crate::memory_log::{MemoryLog, crawl, loopback};

/// A site of 400 pages: page n links to 2n+1, 2n+2, 3n and out; every seventh is forbidden, every tenth a twin.
async fn site() -> Server {
    let page = |uri: Uri| async move {
        if uri.path() == "/robots.txt" {
            return Html("User-agent: *\nDisallow: /7\n".to_string());
        }
        let number: u64 = uri.path().trim_start_matches('/').parse().unwrap_or(0);
        let links = [2 * number + 1, 2 * number + 2, 3 * number].map(|n| n % 400);
        let links: String = links.iter().map(|n| format!("<a href='/{n}'>l</a>")).collect();
        let text = if number % 10 == 3 { "Twin.".to_string() } else { format!("This is page {number}.") };
        Html(format!("<p>{text}</p><a href='http://example.com/{number}'>o</a>{links}"))
    };
    Server::start(Router::new().fallback(page), "127.0.0.1:0".parse().unwrap()).await.unwrap()
}

fn config(folder: Option<&Path>) -> CrawlConfig {
    CrawlConfig {
        depth_max: 50,
        pages_max: 250,
        batch_pages: 3,
        batch_ms: 5,
        state_folder: folder.map(Path::to_path_buf),
        ..loopback()
    }
}

/// Runs a crawl and drops it once `pages` are durable.
async fn killed(root: &str, config: CrawlConfig, log: &Arc<MemoryLog>, pages: u64) -> Option<CrawlReport> {
    let enough = Arc::new(Notify::new());
    let tell = enough.clone();
    let progress = move |counts: Counts| {
        if counts.fetched >= pages {
            tell.notify_one();
        }
    };
    let crawl = Crawl::new([root], config).unwrap().run(log.clone(), progress);
    tokio::select! {
        biased;
        () = enough.notified() => None,
        report = crawl => Some(report.unwrap()),
    }
}

/// What must not depend on kills.
fn stable(pages: BTreeMap<String, Page>) -> BTreeMap<String, Page> {
    pages.into_iter().map(|(url, page)| (url, Page { fetch_ms: None, ..page })).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_crawl_gives_the_same_pages_once() {
    let server = site().await;
    let (whole, expected, _) = crawl(&server.url(), config(None)).await;
    assert_eq!((whole.pages, whole.errors), (250, 0));
    assert!(whole.skipped[&Skip::Robots] > 0 && whole.skipped[&Skip::PageLimit] > 0 && whole.duplicates > 0);
    let expected = stable(expected);

    for tear in [0, 1, 40, 2_000] {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("crawl.journal");
        let log = Arc::new(MemoryLog::default());
        let mut resumes = 0;
        let report = loop {
            let pages = log.pages().len() as u64 + 25;
            if let Some(report) = killed(&server.url(), config(Some(folder.path())), &log, pages).await {
                break report;
            }
            resumes += 1;
            // What was not flushed: a torn line, or whole lines whose events the log has.
            let length = std::fs::metadata(&journal).unwrap().len();
            let header = std::fs::read_to_string(&journal).unwrap().find('\n').unwrap() as u64 + 1;
            let file = std::fs::OpenOptions::new().write(true).open(&journal).unwrap();
            file.set_len(length.saturating_sub(tear).max(header)).unwrap();
        };
        assert!(resumes >= 5, "{resumes}");
        assert_eq!(stable(log.pages()), expected, "tear {tear}");
        assert_eq!(report.pages, 250);
        assert!(report.resumed > 0);
        let counts = |report: &CrawlReport| (report.by_status.clone(), report.skipped.clone(), report.bytes);
        assert_eq!(counts(&report), counts(&whole), "tear {tear}");
        let states: Vec<String> = log.runs().into_iter().map(|run| run.state).collect();
        assert_eq!(states, ["started", "finished"]);
    }
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_crawl_begins_anew_and_another_one_is_refused() {
    let server = site().await;
    let folder = tempfile::tempdir().unwrap();
    let small = CrawlConfig { pages_max: 5, ..config(Some(folder.path())) };
    let (first, _, _) = crawl(&server.url(), small.clone()).await;
    let (second, _, _) = crawl(&server.url(), small.clone()).await;
    assert_eq!((first.pages, second.pages, second.resumed), (5, 5, 0));
    assert_ne!(first.run_id, second.run_id);

    let log = Arc::new(MemoryLog::default());
    assert!(killed(&server.url(), config(Some(folder.path())), &log, 20).await.is_none());
    let other = Crawl::new([server.url()], small).unwrap().run(log.clone(), ()).await.unwrap_err();
    assert!(matches!(other, CrawlError::StateMismatch { .. }), "{other}");
    // Manners may change, they decide nothing.
    let slower = CrawlConfig { concurrency: 1, ..config(Some(folder.path())) };
    let report = Crawl::new([server.url()], slower).unwrap().run(log.clone(), ()).await.unwrap();
    assert_eq!(report.pages, 250);

    let journal = folder.path().join("crawl.journal");
    let whole = std::fs::read_to_string(&journal).unwrap();
    let cut: Vec<&str> = whole.lines().take(5).collect();
    std::fs::write(&journal, format!("{}\nnonsense\n{}\n", cut.join("\n"), cut[4])).unwrap();
    let error =
        Crawl::new([server.url()], config(Some(folder.path()))).unwrap().run(log.clone(), ()).await.unwrap_err();
    assert!(matches!(error, CrawlError::StateDamaged { line: 6, .. }), "{error}");
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_crawls_do_not_share_a_folder() {
    let server = site().await;
    let folder = tempfile::tempdir().unwrap();
    let log = Arc::new(MemoryLog::default());
    let begun = Arc::new(Notify::new());
    let tell = begun.clone();
    let mut slow = config(Some(folder.path()));
    slow.fetch.delay_ms = 200;
    let first = Crawl::new([server.url()], slow).unwrap();
    let first = tokio::spawn(first.run(log.clone(), move |_: Counts| tell.notify_one()));
    begun.notified().await;
    let second = Crawl::new([server.url()], config(Some(folder.path()))).unwrap().run(log, ()).await.unwrap_err();
    assert!(matches!(second, CrawlError::StateBusy { .. }), "{second}");
    first.abort();
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_away_is_waited_for_and_one_that_failed_ends_the_crawl() {
    let server = site().await;
    let log = Arc::new(MemoryLog::default());
    log.failures.lock().extend([LogError::Unavailable("away".into()), LogError::Unavailable("away".into())]);
    let report = Crawl::new([server.url()], config(None)).unwrap().run(log.clone(), ()).await.unwrap();
    assert_eq!(log.pages().len() as u64, report.pages);

    let log = Arc::new(MemoryLog::default());
    let fail = log.clone();
    let progress = move |counts: Counts| {
        if counts.fetched >= 30 {
            fail.failures.lock().push(LogError::Failed("disk".into()));
        }
    };
    let error = Crawl::new([server.url()], config(None)).unwrap().run(log.clone(), progress).await.unwrap_err();
    assert_eq!(error.to_string(), "pages could not be appended: the event log failed: disk");
    let states: Vec<String> = log.runs().into_iter().map(|run| run.state).collect();
    assert_eq!(states, ["started", "failed"]);
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_too_large_for_the_log_is_recorded_without_its_text() {
    let server = site().await;
    let log = Arc::new(MemoryLog::default());
    let start = chrono::DateTime::from_timestamp_millis(1_700_000_000_000).unwrap();
    let id = webdancer_schemas::id::EventId::derive(start, "r", webdancer_schemas::kind::Kind::Page, &server.url(), 0);
    let limit = LogError::TooLarge { id: id.to_string(), bytes: 100, limit: 50 };
    let arm = log.clone();
    let armed = std::sync::Once::new();
    let progress = move |_: Counts| armed.call_once(|| arm.failures.lock().push(limit.clone()));
    let config = CrawlConfig { depth_max: 0, ..config(None) };
    let crawl = Crawl::new([server.url()], config).unwrap().with_run("r", start);
    let report = crawl.run(log.clone(), progress).await.unwrap();
    assert_eq!(report.run_id, "r");
    let pages = log.pages();
    let page = &pages[&server.url()];
    assert_eq!((page.text.as_deref(), page.links.len()), (None, 0));
    assert_eq!(page.error.as_deref(), Some("100 bytes of text and links, more than the 50 of an event"));
    drop(server);
}
