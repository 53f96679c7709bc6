//! The SQL console: one statement over the lake, its rows as table and chart, and queries kept under a name.
//!
//! The engine refuses whatever does not only read, and holds every statement to its limits. The statement stands in the
//! address, so that a result can be sent as a link. Rows of gated benchmarks are not there unless the server shows them.

use axum::extract::State;
use axum::http::header::{HOST, LOCATION, ORIGIN};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, post};
use bytes::Bytes;
use maud::{Markup, html};
use serde_json::{Map, Value, json};
use webdancer_query::output::objects;
use webdancer_query::saved::{self, SavedQuery};

use super::read::said;
use crate::dashboard::chart::{Bar, Chart, Lines, Point, Series, Unit};
use crate::dashboard::fault::Fault;
use crate::dashboard::format::{self, parsed_time};
use crate::dashboard::page::{Answer, Nav, Page};
use crate::dashboard::request::{Asked, Form, Query, query_of};
use crate::dashboard::state::Dashboard;
use crate::dashboard::table::{Cell, Column, Table};

/// Rows of a result that a page has; a download has more.
const ROWS_MAX: u64 = 1_000;
/// Characters of a cell.
const CELL_CHARS: usize = 200;
/// Bars and lines of a chart.
const BARS_MAX: usize = 40;
const LINES_MAX: usize = 8;
const CLASSES: [&str; LINES_MAX] = ["k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7"];

/// Statements to begin with.
const EXAMPLES: [(&str, &str); 6] = [
    ("Tables and views", "SHOW TABLES"),
    (
        "Accuracy by policy",
        "SELECT policy_model, count(*) AS attempts, avg(CAST(correct AS DOUBLE)) AS accuracy\nFROM evaluations\nGROUP BY policy_model\nORDER BY accuracy DESC",
    ),
    (
        "The funnel",
        "SELECT method, outcome, count(*) AS n\nFROM funnel\nGROUP BY method, outcome\nORDER BY method, n DESC",
    ),
    (
        "Tool calls that brought nothing",
        "SELECT tool, outcome, count(*) AS n\nFROM tool_calls\nWHERE outcome <> 'done'\nGROUP BY tool, outcome\nORDER BY n DESC",
    ),
    (
        "Turns by how the attempt ended",
        "SELECT termination, n_turns, count(*) AS n\nFROM current_trajectories\nGROUP BY termination, n_turns\nORDER BY n_turns",
    ),
    (
        "Loss of the newest training run",
        "SELECT step, value AS loss\nFROM metrics\nWHERE name IN ('loss', 'policy_loss') AND run_id = (SELECT max(run_id) FROM metrics)\nORDER BY step",
    ),
];

/// How a result is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drawn {
    Nothing,
    Lines,
    Bars,
}

impl Drawn {
    const ALL: [(Drawn, &'static str, &'static str); 3] =
        [(Drawn::Nothing, "none", "no chart"), (Drawn::Lines, "lines", "lines"), (Drawn::Bars, "bars", "bars")];

    fn of(name: Option<&str>) -> Result<Drawn, Fault> {
        let Some(name) = name else { return Ok(Drawn::Nothing) };
        let found = Drawn::ALL.iter().find(|(_, known, _)| *known == name).map(|(drawn, ..)| *drawn);
        found.ok_or_else(|| Fault::Wrong("chart: give none, lines or bars".to_string()))
    }
}

/// `/sql?sql=…&chart=lines|bars`, `/sql?saved=NAME&version=N`
pub(super) async fn console(asked: Asked) -> Result<Answer, Fault> {
    let store = asked.app.engine().catalog();
    let version = asked.query.parsed("version", "a number from 1")?;
    let opened = match asked.query.get("saved") {
        Some(name) => Some(saved::find(store, name, version).await?),
        None => None,
    };
    let statement = asked.query.get("sql").or(opened.as_ref().map(|saved| saved.sql.as_str()));
    // Browsers send line breaks as two characters.
    let statement = statement.map(|sql| sql.replace("\r\n", "\n"));
    let drawn = Drawn::of(asked.query.get("chart").or(opened.as_ref().and_then(|saved| saved.chart.as_deref())))?;
    if let Some(sql) = &statement
        && matches!(asked.form, Form::Csv | Form::Parquet)
        && asked.query.get("of").is_none_or(|of| of == "result")
    {
        let rows = asked.app.query_of_reader(sql, asked.app.settings().download_rows_max).await?;
        return Ok(Answer::Rows { name: "result".to_string(), rows: Box::new(rows) });
    }
    let mut page = Page::new("SQL", Nav::Sql);
    let kept = saved::list(store).await?;
    let result = match &statement {
        Some(sql) => Some(run(&asked, &mut page, sql, drawn).await),
        None => None,
    };
    let result = match (result, asked.form) {
        (Some(Err(fault)), Form::Html) if matches!(fault, Fault::Wrong(_) | Fault::Late(_) | Fault::Missing(_)) => {
            // A statement is tried until it is right: what is wrong with it stands beside it.
            Some(html! { p.fault role="alert" { (fault.to_string()) } })
        }
        (Some(result), _) => Some(result?),
        (None, _) => None,
    };
    page.body(html! {
        div.console {
            (editor(statement.as_deref().unwrap_or_default(), drawn, opened.as_ref()))
            (shelf(&kept))
        }
        @if let Some(result) = result { (result) }
        (limits(&asked.app))
    });
    Ok(page.into())
}

async fn run(asked: &Asked, page: &mut Page, sql: &str, drawn: Drawn) -> Result<Markup, Fault> {
    let mut running = asked.app.query_of_reader(sql, ROWS_MAX).await?;
    let result = &mut running.rows;
    let schema = result.schema();
    let batches = result.read_all().await?;
    let rows = objects(&batches)?;
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let columns = schema.fields().iter().map(|field| match field.data_type().is_numeric() {
        true => Column::number(field.name(), field.name(), ""),
        false => Column::text(field.name(), field.name()),
    });
    let mut table = Table::new("result", "Result", columns.collect()).main();
    for row in &rows {
        table.row(None, names.iter().map(|name| cell(row.get(*name))).collect());
    }
    let chart = chart(drawn, &names, &rows)?.map(|chart| page.chart(chart.sql(sql), asked));
    page.data(json!({"sql": sql, "columns": names, "rows": rows, "cut": result.truncated()}));
    let shown = page.table(table, asked)?;
    Ok(html! {
        @if result.truncated() { p.remark { "The first " (ROWS_MAX) " rows; a download has up to " (format::count(asked.app.settings().download_rows_max)) "." } }
        @if let Some(chart) = chart { (chart) }
        (shown)
    })
}

fn cell(value: Option<&Value>) -> Cell {
    match value {
        None | Some(Value::Null) => Cell::missing(),
        Some(Value::String(text)) => said(Some(text), CELL_CHARS),
        Some(Value::Number(number)) => Cell::new(number.clone(), number.to_string()),
        Some(other) => {
            let text = other.to_string();
            Cell::new(other.clone(), format::clipped(&text, CELL_CHARS)).hinted(format::clipped(&text, 2_000))
        }
    }
}

/// The first column across, numbers up: of lines each further column of numbers is one, of bars the first.
fn chart(drawn: Drawn, names: &[&str], rows: &[Map<String, Value>]) -> Result<Option<Chart>, Fault> {
    let numeric = |name: &str| rows.iter().any(|row| row.get(name).is_some_and(Value::is_number));
    let (Some(across), values) = (names.first(), names.iter().skip(1).copied().filter(|name| numeric(name))) else {
        return Ok(None);
    };
    let values: Vec<&str> = values.take(LINES_MAX).collect();
    let Some(up) = values.first() else {
        return match drawn {
            Drawn::Nothing => Ok(None),
            _ => Err(Fault::Wrong("a chart needs a column of numbers after the first".to_string())),
        };
    };
    let caption = format!("{} by {across} (n = {} rows)", values.join(", "), rows.len());
    Ok(match drawn {
        Drawn::Nothing => None,
        Drawn::Bars => Some(Chart::bars("chart", &caption, Unit::Number(""), &bars(across, up, rows))),
        Drawn::Lines => Some(lines(&caption, across, &values, rows)?),
    })
}

fn bars(across: &str, up: &str, rows: &[Map<String, Value>]) -> Vec<Bar> {
    let bar = |row: &Map<String, Value>| {
        let label = row.get(across).map_or_else(|| format::MISSING.to_string(), shown);
        let to = row.get(up)?.as_f64()?;
        Some(Bar { label: format::clipped(&label, 32), class: "k0", from: 0.0, to, hint: label, href: None })
    };
    rows.iter().filter_map(bar).take(BARS_MAX).collect()
}

fn lines(caption: &str, across: &str, values: &[&str], rows: &[Map<String, Value>]) -> Result<Chart, Fault> {
    let is_time = rows.iter().any(|row| row.get(across).and_then(Value::as_str).and_then(parsed_time).is_some());
    let place = |row: &Map<String, Value>| match row.get(across)? {
        Value::String(text) => parsed_time(text).map(|at| at.timestamp_millis() as f64),
        value => value.as_f64(),
    };
    let series: Vec<Series> = values
        .iter()
        .zip(CLASSES)
        .map(|(name, class)| {
            let point = |row: &Map<String, Value>| {
                let hint = row.get(across).map(shown).unwrap_or_default();
                Some(Point { x: place(row)?, value: row.get(*name)?.as_f64()?, hint, ..Point::default() })
            };
            let mut points: Vec<Point> = rows.iter().filter_map(point).collect();
            points.sort_by(|a, b| a.x.total_cmp(&b.x));
            Series { name: (*name).to_string(), class, points }
        })
        .collect();
    if series.iter().all(|series| series.points.is_empty()) {
        return Err(Fault::Wrong(format!("lines need numbers or times in the first column; {across} has none")));
    }
    let x = if is_time { None } else { Some("first column") };
    Ok(Chart::lines("chart", caption, &Lines { x, unit: Unit::Level(""), series, markers: Vec::new() }))
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_string)
}

fn editor(sql: &str, drawn: Drawn, opened: Option<&SavedQuery>) -> Markup {
    let lines = sql.lines().count().clamp(6, 24);
    html! {
        div.editor {
            @if let Some(saved) = opened {
                p { "Saved query " b { (saved.name) } ", version " (saved.version) ", of " time datetime=(format::exact_time(saved.saved)) { (format::time(saved.saved)) } }
            }
            form #statement method="get" action="/sql" {
                label { span.hidden { "Statement" } textarea name="sql" rows=(lines) cols="100" spellcheck="false" aria-label="SQL statement" maxlength="60000" { (sql) } }
                p {
                    label { "Chart " select name="chart" { @for (of, name, title) in Drawn::ALL { option value=(name) selected[of == drawn] { (title) } } } }
                    " " button type="submit" { "Run" }
                }
            }
            form.save method="post" action="/sql/saved" {
                input type="hidden" name="sql" value=(sql);
                input type="hidden" name="chart" value=(name_of(drawn));
                label { "Save what was run as " input name="name" required maxlength="64" pattern="[A-Za-z0-9_\\-][A-Za-z0-9._\\-]*" value=[opened.map(|saved| saved.name.as_str())]; }
                " " button type="submit" disabled[sql.is_empty()] { "Save" }
            }
        }
    }
}

fn name_of(drawn: Drawn) -> &'static str {
    Drawn::ALL.iter().find(|(of, ..)| *of == drawn).map_or("none", |(_, name, _)| *name)
}

/// Saved queries, and examples.
fn shelf(kept: &[(String, u32)]) -> Markup {
    html! {
        aside.shelf aria-label="Saved queries and examples" {
            h2 { "Saved" }
            @if kept.is_empty() { p.remark { "None yet: run a statement, then save it." } }
            ul { @for (name, version) in kept {
                li { a href={ "/sql" (query_of([("saved", name.as_str())])) } { (name) }
                    @if *version > 1 { " " small { "version " (version) " ("
                        a href={ "/sql" (query_of([("saved", name.as_str()), ("version", &(version - 1).to_string())])) } { "before" } ")" } } }
            } }
            h2 { "Examples" }
            ul { @for (title, sql) in EXAMPLES { li { a href={ "/sql" (query_of([("sql", sql)])) } { (title) } } } }
        }
    }
}

fn limits(app: &Dashboard) -> Markup {
    let limits = app.engine().limits();
    let seconds = app.settings().query_time.min(limits.timeout).as_secs();
    html! {
        p.remark {
            "Statements only read. Each has " (seconds) " s, " (format::quantity(limits.memory_bytes as f64)) "B of memory, and rows up to "
            (ROWS_MAX) " here, " (format::count(app.settings().download_rows_max)) " in a download. "
            @if !app.restricted() { "A " (Fault::restricted("row of a gated benchmark").to_string()) "." }
        }
    }
}

/// `POST /sql/saved`: a form with name, sql and chart.
pub(super) fn save() -> MethodRouter<Dashboard> {
    post(|State(app): State<Dashboard>, headers: HeaderMap, body: Bytes| async move {
        match keep(&app, &headers, &body).await {
            Ok(saved) => {
                let address = format!("/sql{}", query_of([("saved", saved.name.as_str())]));
                let mut response = StatusCode::SEE_OTHER.into_response();
                if let Ok(address) = HeaderValue::from_str(&address) {
                    response.headers_mut().insert(LOCATION, address);
                }
                response
            }
            Err(fault) => told(&fault),
        }
    })
}

async fn keep(app: &Dashboard, headers: &HeaderMap, body: &Bytes) -> Result<SavedQuery, Fault> {
    if !is_from_here(headers) {
        return Err(Fault::Wrong("queries are saved from the console's own page".to_string()));
    }
    let text = std::str::from_utf8(body).map_err(|_| Fault::Wrong("the form is not UTF-8".to_string()))?;
    let form = Query::parse(text)?;
    let (name, sql) = (form.get("name").unwrap_or_default(), form.get("sql").unwrap_or_default());
    let chart = form.get("chart").filter(|chart| *chart != "none");
    Drawn::of(chart)?;
    // Browsers send line breaks as two characters.
    let sql = sql.replace("\r\n", "\n");
    Ok(saved::save(app.engine().catalog(), name, &sql, chart, chrono::Utc::now()).await?)
}

/// Whether a form was sent by a page of this server, or by no page at all.
fn is_from_here(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    match (text(ORIGIN), text(HOST)) {
        (None, _) => true,
        (Some(origin), Some(host)) => origin.split_once("://").is_some_and(|(_, of)| of == host),
        (Some(_), None) => false,
    }
}

fn told(fault: &Fault) -> Response {
    (fault.status(), format!("{fault}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(value: Value) -> Vec<Map<String, Value>> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_form_of_another_site_is_refused() {
        let headers = |origin: Option<&'static str>| {
            let mut headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("localhost:7000"))]);
            headers.extend(origin.map(|origin| (ORIGIN, HeaderValue::from_static(origin))));
            headers
        };
        assert!(is_from_here(&headers(None)) && is_from_here(&headers(Some("http://localhost:7000"))));
        assert!(!is_from_here(&headers(Some("http://evil.example"))) && !is_from_here(&headers(Some("null"))));
    }

    #[test]
    fn bars_are_the_first_numbers_by_the_first_column() {
        let rows = rows(json!([{"a": "x", "t": "y", "n": 3}, {"a": null, "n": 4.5}, {"a": "z"}]));
        let bars: Vec<(String, f64)> = bars("a", "n", &rows).into_iter().map(|bar| (bar.label, bar.to)).collect();
        assert_eq!(bars, [("x".to_string(), 3.0), ("null".to_string(), 4.5)]);
    }

    #[test]
    fn a_chart_that_cannot_be_drawn_says_why() {
        let none = rows(json!([{"a": "x", "b": "y"}]));
        let told = |drawn| chart(drawn, &["a", "b"], &none).unwrap_err().to_string();
        assert_eq!(told(Drawn::Bars), "a chart needs a column of numbers after the first");
        let words = rows(json!([{"a": "x", "b": 1}]));
        assert!(
            chart(Drawn::Lines, &["a", "b"], &words)
                .unwrap_err()
                .to_string()
                .starts_with("lines need numbers or times")
        );
        assert!(chart(Drawn::Bars, &["a", "b"], &words).unwrap().is_some());
        assert!(chart(Drawn::Nothing, &["a", "b"], &none).unwrap().is_none());
    }
}
