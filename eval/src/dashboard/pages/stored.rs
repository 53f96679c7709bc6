//! Stored pages, shown as text: never as the live HTML that they once were.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::IntoResponse as _;
use maud::html;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use webdancer_schemas::kind::Kind;

use super::read::{all, and_shown, count, first, said, text};
use super::trajectory::moment;
use crate::dashboard::fault::Fault;
use crate::dashboard::format::{MISSING, clipped, duration_ms, parsed_time, short_id};
use crate::dashboard::page::{Answer, Nav, Page, copy, facts, id};
use crate::dashboard::request::{Asked, path_part, query_of};
use crate::dashboard::sql;
use crate::dashboard::table::{Cell, Column, Listing, Row, Table};
use crate::dashboard::text::{SHOWN_CHARS_MAX, Text, block};

/// Links of a page that are shown, and pages and questions beside it.
const LINKS_MAX: usize = 200;
const BESIDE_MAX: usize = 50;
const TITLE_CHARS: usize = 80;
const URL_CHARS: usize = 90;
/// The download of every fetch of a page's text.
const FETCHES: &str = "fetches";

/// `/pages`; `?url=…` leads to what is stored of an address.
pub(super) async fn pages(asked: Asked) -> Result<Answer, Fault> {
    if let Some(url) = asked.query.get("url") {
        return Ok(Answer::redirect(&format!("/pages{}", query_of([("f.url", format!("={url}").as_str())]))));
    }
    let columns = vec![
        Column::text("digest", "Digest"),
        Column::text("title", "Title"),
        Column::text("url", "Address"),
        Column::number("status", "Status", ""),
        Column::text("content_type", "Type"),
        Column::text("language", "Language"),
        Column::number("depth", "Depth", ""),
        Column::number("fetch_ms", "Fetched in", "ms"),
        Column::time("fetched", "Fetched"),
        Column::text("error", "Error").hidden(),
        Column::text("run", "Run").hidden(),
    ];
    let table = Table::new("pages", "Stored pages", columns)
        .main()
        .empty("There is no page in this lake yet.", "webdancer crawl URL");
    let listing = Listing {
        table,
        sql:
            "SELECT digest, title, url, status, content_type, language, depth, fetch_ms, event_time AS fetched, error, \
              run_id AS run FROM pages"
                .to_string(),
        order: "\"fetched\" DESC",
        over: &[Kind::Page],
    };
    if let Some(rows) = listing.download(&asked).await? {
        return Ok(rows);
    }
    let mut page = Page::new("Stored pages", Nav::Data).crumb("Data", "/data");
    let shown = listing.show(&asked, &mut page, line).await?;
    page.body(shown);
    Ok(page.into())
}

fn line(row: &Map<String, Value>) -> Row {
    let maybe = |name: &str| Cell::maybe(text(row, name));
    let counted = |name: &str| row.get(name).map_or_else(Cell::missing, |_| Cell::count(count(row, name)));
    let digest = text(row, "digest");
    let cells = vec![
        digest.map_or_else(Cell::missing, Cell::id),
        said(text(row, "title"), TITLE_CHARS),
        said(text(row, "url"), URL_CHARS),
        counted("status"),
        maybe("content_type"),
        maybe("language"),
        counted("depth"),
        counted("fetch_ms"),
        Cell::time(text(row, "fetched").and_then(parsed_time)),
        said(text(row, "error"), TITLE_CHARS),
        maybe("run"),
    ];
    Row { href: digest.map(|digest| format!("/pages/{}", path_part(digest))), cells }
}

/// A stored page.
#[derive(Debug, Default, Clone, Deserialize, Serialize)]
#[serde(default)]
struct Stored {
    url: String,
    final_url: String,
    root_url: String,
    depth: i64,
    status: i64,
    content_type: Option<String>,
    title: Option<String>,
    text: Option<String>,
    links: Vec<String>,
    digest: String,
    language: Option<String>,
    fetch_ms: Option<i64>,
    event_time: String,
    run_id: Option<String>,
}

/// Another fetch of the same text, or a question that rests on it.
#[derive(Debug, Default, Clone, Deserialize, Serialize)]
#[serde(default)]
struct Beside {
    id: String,
    text: String,
}

/// `/pages/{digest}`
pub(super) async fn page(asked: Asked) -> Result<Answer, Fault> {
    let (app, digest) = (&asked.app, asked.part("digest"));
    let stored = stored(&asked).await?;
    let of = sql::text(digest);
    if asked.wants_rows(FETCHES) {
        let fetches = format!("SELECT * FROM pages WHERE digest = {of} ORDER BY event_time, event_id");
        return Answer::rows_of(&asked, FETCHES, &fetches).await;
    }
    let others = format!(
        "SELECT DISTINCT url AS id, CAST(event_time AS VARCHAR) AS text FROM pages WHERE digest = {of} ORDER BY text DESC LIMIT {BESIDE_MAX}"
    );
    let questions = format!(
        "SELECT DISTINCT q.qa_id AS id, q.question AS text FROM qa AS q WHERE array_has(q.evidence_page_digests, {of}){} \
         ORDER BY id LIMIT {BESIDE_MAX}",
        and_shown(app)
    );
    let links = sql::texts(stored.links.iter().take(LINKS_MAX).map(String::as_str));
    let known = format!(
        "SELECT url AS text, max(digest) AS id FROM pages WHERE url IN {links} AND digest IS NOT NULL GROUP BY url"
    );
    let (others, questions, known) =
        futures::try_join!(all::<Beside>(app, &others), all::<Beside>(app, &questions), all::<Beside>(app, &known))?;
    let title = stored.title.as_deref().filter(|title| !title.trim().is_empty()).unwrap_or(&stored.url);
    let mut page =
        Page::new(clipped(title, TITLE_CHARS), Nav::Data).crumb("Data", "/data").crumb("Stored pages", "/pages");
    page.data(json!({"page": stored, "fetches": others, "questions": questions}));
    page.body(html! {
        (about(&stored))
        h2 { "Text" }
        @match &stored.text {
            Some(text) => (block(text, SHOWN_CHARS_MAX, Some(&format!("/pages/{}/text", path_part(digest))))),
            None => p.remark { "nothing was kept of its text" },
        }
        @if !questions.is_empty() {
            h2 { "Questions that rest on it" }
            ul { @for question in &questions { li { a href={ "/questions/" (path_part(&question.id)) } { bdi { (Text(&question.text)) } } } } }
        }
        @if !stored.links.is_empty() {
            details.fold {
                summary { (stored.links.len()) " links" }
                ul { @for link in stored.links.iter().take(LINKS_MAX) { li {
                    bdi { (Text(link)) }
                    @if let Some(known) = known.iter().find(|known| known.text == *link) { " " a href={ "/pages/" (path_part(&known.id)) } { "stored page" } }
                } } }
                @if stored.links.len() > LINKS_MAX { p.remark { (stored.links.len() - LINKS_MAX) " more in the JSON" } }
            }
        }
        @if others.len() > 1 {
            details.fold {
                summary { "The same text was found " (others.len()) " times" }
                ul { @for other in &others { li { bdi { (Text(&other.id)) } " · " (moment(&other.text)) } } }
            }
        }
    });
    Ok(page.into())
}

fn about(stored: &Stored) -> maud::Markup {
    let address = |url: &str| html! { bdi { code { (Text(url)) } } " " (copy(url)) };
    let maybe = |text: Option<&str>| html! { @match text { Some(text) => (Text(text)), None => (MISSING) } };
    let mut rows = vec![("address", address(&stored.url))];
    if stored.final_url != stored.url {
        rows.push(("after redirects", address(&stored.final_url)));
    }
    rows.extend([
        ("digest", id(&stored.digest)),
        ("status", html! { (stored.status) }),
        ("type", maybe(stored.content_type.as_deref())),
        ("language", maybe(stored.language.as_deref())),
        ("found at", html! { "depth " (stored.depth) " from " bdi { (Text(&stored.root_url)) } }),
        ("fetched", html! { (moment(&stored.event_time)) @if let Some(ms) = stored.fetch_ms { " in " (duration_ms(ms as f64)) } }),
        ("run", html! { @match &stored.run_id { Some(run) => a href={ "/runs/" (path_part(run)) } { code { (short_id(run)) } }, None => (MISSING) } }),
    ]);
    let of = path_part(&stored.digest);
    html! { (facts(rows)) p { a href={ "/lineage/" (of) } { "Lineage" } " · " a href={ "/pages/" (of) "?format=csv" } { "CSV" } } }
}

/// `/pages/{digest}/text`: the whole text, as plain text.
pub(super) async fn whole(asked: Asked) -> Result<Answer, Fault> {
    let stored = stored(&asked).await?;
    let headers = [
        (CONTENT_TYPE, "text/plain; charset=utf-8"),
        (CACHE_CONTROL, "private, no-cache"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok(Answer::Other(Box::new((headers, stored.text.unwrap_or_default()).into_response())))
}

async fn stored(asked: &Asked) -> Result<Stored, Fault> {
    let digest = asked.part("digest");
    let sql = format!(
        "SELECT url, final_url, root_url, depth, status, content_type, title, text, links, digest, language, fetch_ms, \
           event_time, run_id \
         FROM pages WHERE digest = {} ORDER BY event_time DESC, event_id DESC LIMIT 1",
        sql::text(digest)
    );
    let found = first(&asked.app, &sql).await?;
    found.ok_or_else(|| Fault::Missing(format!("no page with the digest {digest} is stored")))
}
