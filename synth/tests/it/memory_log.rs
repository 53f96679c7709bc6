//! A log in memory, which shows an event once however often it is appended, as the tables do.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use webdancer_schemas::event::Event;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::log::{EventLog, LogError};
use webdancer_schemas::rows::{Page, Run};
use webdancer_synth::crawl::{Crawl, CrawlConfig, CrawlReport};

#[derive(Debug, Default)]
pub(crate) struct MemoryLog {
    events: Mutex<(HashSet<String>, Vec<Event>)>,
    /// Appended, repeats included.
    pub(crate) appended: Mutex<Vec<String>>,
    /// Errors to answer with, last first.
    pub(crate) failures: Mutex<Vec<LogError>>,
}

#[async_trait]
impl EventLog for MemoryLog {
    async fn append(&self, events: Vec<Event>) -> Result<(), LogError> {
        if let Some(error) = self.failures.lock().pop() {
            return Err(error);
        }
        tokio::task::yield_now().await;
        let mut held = self.events.lock();
        for event in events {
            self.appended.lock().push(event.id().to_string());
            if held.0.insert(event.id().to_string()) {
                held.1.push(event);
            }
        }
        Ok(())
    }
}

impl MemoryLog {
    pub(crate) fn events(&self, kind: Kind) -> Vec<Event> {
        self.events.lock().1.iter().filter(|event| event.kind() == kind).cloned().collect()
    }

    /// Pages by URL; fails where a URL has two.
    pub(crate) fn pages(&self) -> BTreeMap<String, Page> {
        let mut pages = BTreeMap::new();
        for event in self.events(Kind::Page) {
            let page: Page = serde_json::from_str(event.data.get()).unwrap();
            assert_eq!(event.key(), page.url);
            let other = pages.insert(page.url.clone(), page);
            assert_eq!(other, None, "a URL has two events");
        }
        pages
    }

    pub(crate) fn runs(&self) -> Vec<Run> {
        self.events(Kind::Run).iter().map(|event| serde_json::from_str(event.data.get()).unwrap()).collect()
    }
}

/// Limits for a site on loopback.
pub(crate) fn loopback() -> CrawlConfig {
    let mut config = CrawlConfig::default().impolite(4);
    config.fetch.allow_addresses = vec!["127.0.0.1".parse().unwrap()];
    config.fetch.backoff_ms = 10;
    config.fetch.retries_max = 1;
    config
}

pub(crate) async fn crawl(root: &str, config: CrawlConfig) -> (CrawlReport, BTreeMap<String, Page>, Arc<MemoryLog>) {
    let log = Arc::new(MemoryLog::default());
    let report = Crawl::new([root], config).unwrap().run(log.clone(), ()).await.unwrap();
    let pages = log.pages();
    assert_eq!(report.pages, pages.len() as u64);
    (report, pages, log)
}

/// The page at a path of a site.
pub(crate) fn at<'a>(pages: &'a BTreeMap<String, Page>, root: &str, path: &str) -> &'a Page {
    pages.get(&format!("{root}{path}")).unwrap_or_else(|| panic!("no page at {path} among {:?}", pages.keys()))
}

/// GET by a client that knows no proxies.
pub(crate) async fn get(url: String) -> reqwest::Response {
    reqwest::Client::builder().no_proxy().build().unwrap().get(url).send().await.unwrap()
}

/// GET of exactly this path; the whole answer.
pub(crate) async fn raw(address: std::net::SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
