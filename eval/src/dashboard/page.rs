//! What every page shares: its frame, its forms, and how a handler becomes a route.
//!
//! A handler describes a [`Page`]; tables and charts that it [shows](Page::table) are kept by id, so that the same handler
//! gives the page, its JSON twin (`?format=json`), the CSV and Parquet of a table (`?format=csv&of=ID`) and the SVG of a
//! chart (`?format=svg&of=ID`).

use std::collections::HashMap;
use std::future::Future;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, LOCATION, VARY};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get};
use maud::{DOCTYPE, Markup, html};
use serde_json::{Map, Value, json};
use webdancer_query::output::{Format, Output, TableOptions};

use super::chart::Chart;
use super::fault::Fault;
use super::request::{Asked, Form, Query};
use super::state::{Dashboard, Running};
use super::table::Table;
use super::{assets, format};

/// Bytes of one download.
const DOWNLOAD_BYTES_MAX: u64 = 256 << 20;

/// The entries of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nav {
    /// Policies by benchmark.
    Leaderboard,
    /// Runs.
    Runs,
    /// Benchmarks and their trends.
    Benchmarks,
    /// Trajectories.
    Trajectories,
    /// Funnel, pools, questions, pages.
    Data,
    /// Training runs.
    Training,
    /// Pins.
    Pins,
    /// Schedules and their slots.
    Schedules,
    /// The SQL console.
    Sql,
}

impl Nav {
    /// Every entry with its name and address.
    const ALL: [(Nav, &'static str, &'static str); 9] = [
        (Nav::Leaderboard, "Leaderboard", "/"),
        (Nav::Runs, "Runs", "/runs"),
        (Nav::Benchmarks, "Benchmarks", "/benchmarks"),
        (Nav::Trajectories, "Trajectories", "/trajectories"),
        (Nav::Data, "Data", "/data"),
        (Nav::Training, "Training", "/training"),
        (Nav::Pins, "Pins", "/pins"),
        (Nav::Schedules, "Schedules", "/schedules"),
        (Nav::Sql, "SQL", "/sql"),
    ];
}

/// A page as its handler describes it.
#[derive(Debug)]
pub struct Page {
    title: String,
    nav: Option<Nav>,
    crumbs: Vec<(String, String)>,
    body: Markup,
    data: Value,
    tables: Vec<Table>,
    charts: Vec<Chart>,
    notes: Vec<String>,
}

impl Page {
    /// A page without a body yet.
    pub fn new(title: impl Into<String>, nav: Nav) -> Page {
        Page {
            title: title.into(),
            nav: Some(nav),
            crumbs: Vec::new(),
            body: html! {},
            data: Value::Null,
            tables: Vec::new(),
            charts: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// A page above this one, from the outermost to the nearest: its name and its address.
    #[must_use]
    pub fn crumb(mut self, name: impl Into<String>, address: impl Into<String>) -> Page {
        self.crumbs.push((name.into(), address.into()));
        self
    }

    /// What the page says as JSON. Without it the twin has the rows of its tables, by their ids.
    pub fn data(&mut self, data: Value) {
        self.data = data;
    }

    /// A line above the body that qualifies what is shown.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// That figures are those of a moment ago, where they are.
    pub fn behind(&mut self, behind: bool) {
        if behind {
            self.note("Newer events are being counted: these figures are of a moment ago. Reload to see the newest.");
        }
    }

    /// Shows a table, in the state that the query asks for, and gives its markup.
    ///
    /// # Errors
    /// When the query asks for what the table does not have.
    pub fn table(&mut self, mut table: Table, asked: &Asked) -> Result<Markup, Fault> {
        let shown = table.show(asked)?;
        self.tables.push(table);
        Ok(shown)
    }

    /// Shows a chart and gives its markup. Its table twin is beside it.
    pub fn chart(&mut self, chart: Chart, asked: &Asked) -> Markup {
        let shown = chart.show(asked);
        self.charts.push(chart);
        shown
    }

    /// The body; what tables and charts gave stands in it.
    pub fn body(&mut self, body: Markup) {
        self.body = body;
    }
}

/// What a handler gives.
#[derive(Debug)]
pub enum Answer {
    /// A page, in whatever form it was asked for.
    Page(Box<Page>),
    /// Rows to download: the form is that asked for, CSV, Parquet or JSON.
    Rows {
        /// Name of the file, without its end.
        name: String,
        /// The rows.
        rows: Box<Running>,
    },
    /// An answer of its own: a stream, a file, a redirection.
    Other(Box<Response>),
}

impl Answer {
    /// All rows of a statement, as a file named `of`: for a download that [`Asked::wants_rows`] found.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn rows_of(asked: &Asked, of: &str, sql: &str) -> Result<Answer, Fault> {
        let rows = asked.app.query(sql, asked.app.settings().download_rows_max).await?;
        Ok(Answer::Rows { name: of.to_string(), rows: Box::new(rows) })
    }

    /// Another address.
    pub fn redirect(address: &str) -> Answer {
        let mut response = StatusCode::SEE_OTHER.into_response();
        if let Ok(address) = HeaderValue::from_str(address) {
            response.headers_mut().insert(LOCATION, address);
        }
        Answer::Other(Box::new(response))
    }

    /// A file to download.
    pub fn file(name: &str, media: &'static str, bytes: Vec<u8>) -> Answer {
        Answer::Other(Box::new(file(name, media, bytes)))
    }
}

impl From<Page> for Answer {
    fn from(page: Page) -> Answer {
        Answer::Page(Box::new(page))
    }
}

/// A route that answers `GET` with what `handler` gives.
pub fn page<H, F>(handler: H) -> MethodRouter<Dashboard>
where
    H: Fn(Asked) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Answer, Fault>> + Send + 'static,
{
    type Parts = Result<Path<HashMap<String, String>>, PathRejection>;
    get(move |State(app): State<Dashboard>, parts: Parts, uri: Uri, headers: HeaderMap| {
        let handler = handler.clone();
        async move {
            let (app, parts) = (app.as_seen_by(&headers), parts.map(|Path(parts)| parts).unwrap_or_default());
            let asked = asked(app.clone(), parts, &uri, &headers);
            match asked {
                Err(fault) => told(&app, Form::Html, &uri, &fault).await,
                Ok(asked) => {
                    let form = asked.form;
                    let answered = match Box::pin(handler(asked.clone())).await {
                        Ok(answer) => respond(&asked, answer).await,
                        Err(fault) => Err(fault),
                    };
                    match answered {
                        Ok(response) => response,
                        Err(fault) => told(&app, form, &uri, &fault).await,
                    }
                }
            }
        }
    })
}

/// What stands where nothing is.
pub(super) async fn missing(State(app): State<Dashboard>, uri: Uri, headers: HeaderMap) -> Response {
    let form = asked(app.clone(), HashMap::new(), &uri, &headers).map_or(Form::Html, |asked| asked.form);
    told(&app, form, &uri, &Fault::Missing(format!("there is no page {}", format::clipped(uri.path(), 80)))).await
}

fn asked(app: Dashboard, parts: HashMap<String, String>, uri: &Uri, headers: &HeaderMap) -> Result<Asked, Fault> {
    let query = Query::parse(uri.query().unwrap_or_default())?;
    let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let form = match query.get("format") {
        Some(name) => name.parse()?,
        None if accepted.starts_with("application/json") => Form::Json,
        None => Form::Html,
    };
    Ok(Asked { app, address: uri.path().to_string(), query, form, parts })
}

async fn respond(asked: &Asked, answer: Answer) -> Result<Response, Fault> {
    let page = match answer {
        Answer::Page(page) => *page,
        Answer::Rows { name, rows } => return download(asked, &name, *rows).await,
        Answer::Other(response) => return Ok(*response),
    };
    match asked.form {
        Form::Html => Ok(frame(asked, &page).await),
        Form::Json => Ok(json_response(StatusCode::OK, &twin(page))),
        Form::Csv => {
            let table = table_of(asked, &page)?;
            Ok(file(&format!("{}.csv", table.id()), "text/csv; charset=utf-8", table.csv()?))
        }
        Form::Parquet => {
            let table = table_of(asked, &page)?;
            Ok(file(&format!("{}.parquet", table.id()), "application/vnd.apache.parquet", table.parquet()?))
        }
        Form::Svg => {
            let of = asked.query.get("of");
            let chart = page.charts.iter().find(|chart| of.is_none_or(|of| chart.id == of));
            let chart =
                chart.ok_or_else(|| Fault::Missing("this page has no such chart; `of` names it".to_string()))?;
            Ok(file(&format!("{}.svg", chart.id), "image/svg+xml", chart.file().into_bytes()))
        }
    }
}

/// The table that `of` names, of the page or of one of its charts; without a name the first.
fn table_of<'p>(asked: &Asked, page: &'p Page) -> Result<&'p Table, Fault> {
    let of = asked.query.get("of");
    let mut tables = page.tables.iter().chain(page.charts.iter().map(|chart| &chart.table));
    let found = tables.find(|table| of.is_none_or(|of| table.id() == of));
    found.ok_or_else(|| Fault::Missing("this page has no such table; `of` names it".to_string()))
}

fn twin(page: Page) -> Value {
    if !page.data.is_null() {
        return page.data;
    }
    let tables = page.tables.iter().chain(page.charts.iter().map(|chart| &chart.table));
    Value::Object(tables.map(|table| (table.id().to_string(), table.json())).collect::<Map<_, _>>())
}

async fn download(asked: &Asked, name: &str, mut running: Running) -> Result<Response, Fault> {
    use futures::StreamExt as _;
    let (format, end, media) = match asked.form {
        Form::Parquet => (Format::Parquet, "parquet", "application/vnd.apache.parquet"),
        Form::Json => (Format::Json, "json", "application/json"),
        _ => (Format::Csv, "csv", "text/csv; charset=utf-8"),
    };
    let rows = &mut running.rows;
    let mut output = Output::new(format, rows.schema(), Vec::new(), TableOptions::default())?;
    let mut bytes = 0;
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        bytes += batch.get_array_memory_size() as u64;
        if bytes > DOWNLOAD_BYTES_MAX {
            return Err(too_much());
        }
        output.write(&batch)?;
    }
    if rows.truncated() {
        return Err(too_much());
    }
    Ok(file(&format!("{name}.{end}"), media, output.finish()?))
}

fn too_much() -> Fault {
    Fault::Late("these are more rows than one download holds; filter them, or use `webdancer sql --format`".to_string())
}

fn file(name: &str, media: &'static str, bytes: Vec<u8>) -> Response {
    let safe: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect();
    let mut response = ([(CONTENT_TYPE, media), (CACHE_CONTROL, "private, no-cache")], bytes).into_response();
    if let Ok(disposition) = HeaderValue::from_str(&format!("attachment; filename=\"{safe}\"")) {
        response.headers_mut().insert(CONTENT_DISPOSITION, disposition);
    }
    response
}

fn json_response(status: StatusCode, value: &Value) -> Response {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "private, no-cache"), (VARY, "accept")];
    (status, headers, format!("{value}\n")).into_response()
}

/// A fault in the form that was asked for: what failed, and what to do.
async fn told(app: &Dashboard, form: Form, uri: &Uri, fault: &Fault) -> Response {
    let status = fault.status();
    if form != Form::Html {
        return json_response(status, &json!({"error": fault.to_string()}));
    }
    let title = match fault {
        Fault::Wrong(_) => "This address cannot be read",
        Fault::Missing(_) => "Not found",
        Fault::Denied { .. } => "Not shown",
        Fault::Late(_) => "Too slow",
        Fault::Failed { .. } => "Something failed",
    };
    let again = matches!(fault, Fault::Late(_) | Fault::Failed { .. });
    let body = html! {
        p.fault role="alert" { (fault.to_string()) }
        @if again { p { a href=(uri.path_and_query().map_or("/", |path| path.as_str())) { "Try again" } } }
        p { a href="/" { "Leaderboard" } " · " a href="/runs" { "Runs" } }
    };
    let page = Page { nav: None, body, ..Page::new(title, Nav::Leaderboard) };
    let asked = Asked {
        app: app.clone(),
        address: uri.path().to_string(),
        query: Query::default(),
        form,
        parts: HashMap::new(),
    };
    let mut response = frame(&asked, &page).await;
    *response.status_mut() = status;
    response
}

async fn frame(asked: &Asked, page: &Page) -> Response {
    let committed = asked.app.last_commit().await;
    let search = asked.query.get("q").filter(|_| asked.address == "/search").unwrap_or_default();
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (page.title) " · webdancer" }
                link rel="icon" href=(assets::ICON.address()) type="image/svg+xml";
                link rel="stylesheet" href=(assets::STYLE.address());
                script src=(assets::SCRIPT.address()) {}
            }
            body {
                a.skip href="#content" { "Skip to content" }
                header.top {
                    a.name href="/" { "webdancer" }
                    nav aria-label="Pages" {
                        @for (nav, name, address) in Nav::ALL {
                            a href=(address) aria-current=[(page.nav == Some(nav)).then_some("page")] { (name) }
                        }
                    }
                    form.search action="/search" role="search" {
                        input type="search" name="q" value=(search) placeholder="Any id, any question  ( / )"
                            aria-label="Search ids and questions" maxlength="400";
                    }
                    span.lake title=[committed.map(|at| format!("last commit {}", format::exact_time(at)))] {
                        (asked.app.settings().lake)
                        @if let Some(at) = committed { " · " time datetime=(format::exact_time(at)) { (format::time(at)) } }
                    }
                    button.theme type="button" data-theme-switch hidden { "Theme" }
                }
                main #content {
                    @if !page.crumbs.is_empty() {
                        nav.crumbs aria-label="Breadcrumb" {
                            @for (name, address) in &page.crumbs { a href=(address) { (name) } " / " }
                            span aria-current="page" { (page.title) }
                        }
                    }
                    h1 { (page.title) }
                    @for note in &page.notes { p.note { (note) } }
                    (page.body)
                }
                footer { a href=(asked.with("format", Some("json"))) { "JSON" } " · " kbd { "?" } " keys" }
                (keys())
            }
        }
    };
    let headers = [(CONTENT_TYPE, "text/html; charset=utf-8"), (CACHE_CONTROL, "private, no-cache"), (VARY, "accept")];
    (headers, markup.into_string()).into_response()
}

/// The list of keys that the script shows.
fn keys() -> Markup {
    let keys = [
        ("/", "search"),
        ("j k", "next and previous row"),
        ("Enter", "open the row"),
        ("[ ]", "previous and next attempt, or page of rows"),
        ("?", "this list"),
        ("Esc", "close"),
    ];
    html! {
        dialog #keys aria-label="Keys" {
            table { tbody { @for (key, what) in keys { tr { th scope="row" { kbd { (key) } } td { (what) } } } } }
            form method="dialog" { button { "Close" } }
        }
    }
}

/// An id in full with a button that copies it.
pub fn id(id: &str) -> Markup {
    html! { span.id { code { (id) } (copy(id)) } }
}

/// A button that copies a text; scripts show it.
pub fn copy(text: &str) -> Markup {
    html! { button.copy type="button" data-copy=(text) hidden aria-label={ "Copy " (format::clipped(text, 40)) } { "copy" } }
}

/// A command to type, with a button that copies it.
pub fn command(command: &str) -> Markup {
    html! { span.command { code { (command) } (copy(command)) } }
}

/// What stands where nothing is yet: a sentence and the command that fills it.
pub fn empty(sentence: &str, fill: &str) -> Markup {
    html! { div.empty { p { (sentence) } (command(fill)) } }
}

/// Names with their values, such as a run's settings.
pub fn facts<'a>(facts: impl IntoIterator<Item = (&'a str, Markup)>) -> Markup {
    html! { dl.facts { @for (name, value) in facts { div { dt { (name) } dd { (value) } } } } }
}
