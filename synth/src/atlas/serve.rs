//! The atlas over HTTP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE, HOST};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use percent_encoding::percent_decode_str;
use serde::Deserialize;

use super::entity::{Atlas, EntityKind};
use super::html::{escape, missing_page};
use super::search::Index;
use super::world::World;
use crate::site::Server;

const LIMIT_DEFAULT: usize = 10;
const LIMIT_MAX: usize = 50;

/// What the handlers share.
#[derive(Debug)]
struct Site {
    atlas: Atlas,
    index: Index,
}

/// The atlas of `world` as a site: `/`, a list and an article per entity, `/search?q=`, `/robots.txt`, `/sitemap.xml`.
///
/// `/search` takes `q`, `limit` (10 by default, at most 50) and `format=json`; it answers with JSON also where `Accept`
/// asks for it: `{"query", "total", "results": [{"title", "path", "snippet"}]}`, and with the members that a SearXNG
/// instance has (`number_of_results`; `url` and `content` of a result), so that what searches there searches here.
pub fn router(world: World) -> Router {
    let atlas = Atlas::new(world);
    let index = Index::new(&atlas);
    Router::new()
        .route("/", get(index_page))
        .route("/search", get(search))
        .route("/robots.txt", get(robots))
        .route("/sitemap.xml", get(sitemap))
        .fallback(get(page))
        .with_state(Arc::new(Site { atlas, index }))
}

/// Serves the atlas of `world` on `address`; port 0 takes a free port.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(world: World, address: SocketAddr) -> io::Result<Server> {
    Server::start(router(world), address).await
}

async fn index_page(State(site): State<Arc<Site>>) -> Html<String> {
    Html(site.atlas.index_page())
}

async fn page(State(site): State<Arc<Site>>, uri: Uri) -> Response {
    let path = percent_decode_str(uri.path()).decode_utf8_lossy();
    if let Some(kind) = EntityKind::ALL.into_iter().find(|kind| kind.list_path() == path) {
        return Html(site.atlas.list_page(kind)).into_response();
    }
    match site.atlas.at(&path) {
        Some(entity) => Html(site.atlas.entity_page(entity)).into_response(),
        None => (StatusCode::NOT_FOUND, Html(missing_page())).into_response(),
    }
}

#[derive(Debug, Deserialize)]
struct SearchQuery {
    #[serde(default)]
    q: String,
    limit: Option<usize>,
    #[serde(default)]
    format: String,
}

async fn search(State(site): State<Arc<Site>>, headers: HeaderMap, Query(query): Query<SearchQuery>) -> Response {
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT).min(LIMIT_MAX);
    let (total, hits) = site.index.search(&site.atlas, &query.q, limit);
    let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if query.format == "json" || accepted.contains("application/json") {
        let origin = origin(&headers);
        let results: Vec<_> = hits
            .iter()
            .map(|hit| {
                serde_json::json!({
                    "title": hit.title, "path": hit.path, "snippet": hit.snippet,
                    "url": format!("{origin}{}", hit.path), "content": hit.snippet,
                })
            })
            .collect();
        let answer = serde_json::json!({
            "query": query.q, "total": total, "number_of_results": total, "results": results,
        });
        return ([(CONTENT_TYPE, "application/json")], answer.to_string()).into_response();
    }
    Html(site.atlas.search_page(&query.q, total, &hits)).into_response()
}

async fn robots(headers: HeaderMap) -> String {
    format!("User-agent: *\nDisallow: /search\nSitemap: {}/sitemap.xml\n", origin(&headers))
}

async fn sitemap(State(site): State<Arc<Site>>, headers: HeaderMap) -> Response {
    let origin = origin(&headers);
    let lists = EntityKind::ALL.map(EntityKind::list_path);
    let paths = std::iter::once("/").chain(lists.iter().map(String::as_str));
    let paths = paths.chain(site.atlas.entities().iter().map(|entity| entity.path.as_str()));
    let urls: String =
        paths.map(|path| format!("<url><loc>{}</loc></url>\n", escape(&format!("{origin}{path}")))).collect();
    let xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<urlset \
         xmlns=\"http://www.sitemaps.org/schemas/sitemap/0.9\">\n{urls}</urlset>\n"
    );
    ([(CONTENT_TYPE, "application/xml")], xml).into_response()
}

/// The address the visitor used. A line break cannot be in a header, so it ends no line of robots.txt.
fn origin(headers: &HeaderMap) -> String {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    format!("http://{host}")
}
