//! A closed web of real pages: PostgreSQL's manual, crawled, indexed, searched and visited; and the live web's
//! tools on the atlas, by way of real HTTP.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;
use webdancer_agent::chat::{ChatError, ChatModel, ChatRequest, Completion, Finish, Usage};
use webdancer_agent::conversation::render_messages;
use webdancer_agent::fetch::FetchConfig;
use webdancer_agent::index::PageIndex;
use webdancer_agent::profile::Profile;
use webdancer_agent::react::{React, ReactConfig, Task};
use webdancer_agent::tool::ObservationLimits;
use webdancer_agent::web::Closed;
use webdancer_agent::web::config::{Engine, WebConfig};
use webdancer_synth::atlas::World;
use webdancer_synth::crawl::CrawlConfig;
use webdancer_synth::site::{Server, static_site};

use crate::memory_log::{crawl, loopback};

/// What somebody asks, and the page of the manual that is about it.
const QUERIES: [(&str, &str); 20] = [
    ("sorting rows with ORDER BY", "queries-order.html"),
    ("CREATE INDEX command syntax", "sql-createindex.html"),
    ("EXPLAIN ANALYZE statement", "sql-explain.html"),
    ("window functions tutorial", "tutorial-window.html"),
    ("numeric data types smallint bigint", "datatype-numeric.html"),
    ("JSON functions and operators", "functions-json.html"),
    ("point-in-time recovery continuous archiving", "continuous-archiving.html"),
    ("transaction isolation levels serializable", "transaction-iso.html"),
    ("pg_hba.conf file client authentication", "auth-pg-hba-conf.html"),
    ("foreign keys tutorial", "tutorial-fk.html"),
    ("table partitioning", "ddl-partitioning.html"),
    ("pg_dump back up a database", "app-pgdump.html"),
    ("regular expressions pattern matching LIKE SIMILAR TO", "functions-matching.html"),
    ("lower and upper bounds of ranges, range types", "rangetypes.html"),
    ("full text search dictionaries stop words", "textsearch-dictionaries.html"),
    ("logical replication publication", "logical-replication-publication.html"),
    ("row level security policies", "ddl-rowsecurity.html"),
    ("GRANT privileges on a table to a role", "sql-grant.html"),
    ("autovacuum routine vacuuming", "routine-vacuuming.html"),
    ("PL/pgSQL error handling trapping errors", "plpgsql-control-structures.html"),
];

/// Plays: search, visit of the first hit, an answer out of what the page says.
#[derive(Debug)]
struct Reader;

#[async_trait]
impl ChatModel for Reader {
    fn name(&self) -> &str {
        "reader"
    }

    async fn complete(&self, request: &ChatRequest) -> Result<Completion, ChatError> {
        let question = request.messages[1].content.split_once("User: ").unwrap().1;
        let last = &request.messages.last().unwrap().content;
        let call = |tool: &str, arguments: serde_json::Value| {
            let call = json!({"name": tool, "arguments": arguments});
            format!("<think>\nlook\n</think>\n<tool_call>\n{call}\n</tool_call>")
        };
        let text = match request.messages.len() {
            2 => call("search", json!({"query": [question]})),
            4 => {
                let url = last.split_once("](").unwrap().1.split_once(')').unwrap().0;
                call("visit", json!({"url": [url], "goal": question}))
            }
            _ => {
                let summary = last.split_once("\n\nSummary: \n").unwrap().1;
                format!("<think>\nfound\n</think>\n<answer>\n{}\n</answer>", summary.lines().next().unwrap())
            }
        };
        let usage = Usage::default();
        Ok(Completion { text, reasoning: None, finish: Finish::Stop, usage, tokens: None, elapsed: Default::default() })
    }
}

fn task(question: &str) -> Task<'_> {
    Task {
        trajectory_id: "t",
        qa_id: "q",
        question,
        attempt: 0,
        seed: None,
        date: "2026-01-01".parse().unwrap(),
        restricted: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stderr, reason = "says what was found")]
async fn the_obvious_page_of_the_postgresql_manual_is_found_first() {
    let Some(folder) = crate::docs::manual() else { return };
    let server = Server::start(static_site(folder), "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (base, root) = (server.url(), format!("{}index.html", server.url()));
    let (_, pages, _) = crawl(&root, CrawlConfig { depth_max: 20, ..loopback().impolite(16) }).await;
    // From here on there is no site any more.
    server.stop().await.unwrap();
    let index = Arc::new(PageIndex::in_memory(pages.into_values()).unwrap());

    let mut missed = Vec::new();
    for (query, page) in QUERIES {
        let hits = index.find(query, 10).unwrap();
        let place = hits.iter().position(|hit| hit.url == format!("{base}{page}"));
        if place != Some(0) {
            missed.push(format!("{query:?}: {page} at {place:?}, first {}", hits.first().map_or("", |hit| &hit.url)));
        }
    }
    eprintln!("{} of 20 first; {missed:#?}", 20 - missed.len());
    assert!(missed.len() <= 2, "{missed:#?}");

    let limits = ObservationLimits::default();
    let web = Arc::new(Closed::new("manual", index, None, &limits));
    let agent = React::new(Arc::new(Reader), web, Arc::new(Profile::standard()), ReactConfig::default());
    let question = "What is the range of the smallint type?";
    let row = agent.attempt(&task(question)).await.trajectory;
    assert_eq!((row.termination.as_str(), row.n_turns), ("answer", 3));
    assert_eq!(
        row.answer.as_deref(),
        Some("| `smallint` | 2 bytes | small-range integer | \\-32768 to +32767 |"),
        "{:?}",
        row.turn_observation
    );
    let messages = render_messages(&row).unwrap();
    assert!(messages[5].content.contains(&format!("useful information in {base}datatype-numeric.html for user goal")));
    assert!(messages.iter().all(|message| message.content.chars().count() < 8_100));
    // The same again, on another index of the same pages: the same trajectory but for its times.
    let again = agent.attempt(&task(question)).await.trajectory;
    assert_eq!(again.turn_observation_digest, row.turn_observation_digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_live_web_searches_the_atlas_as_a_searxng_instance_and_fetches_its_pages() {
    let server = webdancer_synth::atlas::serve(World::real().unwrap(), "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let mut config = WebConfig::default();
    config.search.engine = Engine::Searxng;
    config.search.url = Some(server.url());
    config.visit.fetch =
        FetchConfig { delay_ms: 0, allow_addresses: vec!["127.0.0.1".parse().unwrap()], ..FetchConfig::default() };
    let profile = Profile::compact();
    let web = Arc::new(config.live(&profile.observations, None, None).unwrap());
    let agent = React::new(Arc::new(Reader), web.clone(), Arc::new(profile), ReactConfig::default());
    let row = agent.attempt(&task("capital of Laos")).await.trajectory;
    assert_eq!((row.termination.as_str(), row.n_turns), ("answer", 3), "{row:?}");
    let hits = row.turn_observation[0].as_deref().unwrap();
    assert!(
        hits.starts_with("A Google search for 'capital of Laos' found 3 results:\n\n## Web Results\n1. [Laos]("),
        "{hits}"
    );
    let page = row.turn_observation[1].as_deref().unwrap();
    assert!(page.contains("Vientiane"), "{page}");
    assert!(page.split_whitespace().count() < 220, "{page}");
    assert_eq!(row.answer.as_deref(), Some("| Capital | Vientiane |"));
    use webdancer_agent::tool::Web as _;
    assert_eq!((web.calls()["search"].done, web.calls()["visit"].done), (1, 1));
    server.stop().await.unwrap();
}
