//! Training runs and their curves, out of the metrics that trainers told.

use std::collections::BTreeMap;

use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use webdancer_query::gated;
use webdancer_schemas::kind::Kind;

use super::read::{all, count, first, number, said, text};
use super::trajectory::moment;
use crate::dashboard::chart::{Chart, Lines, Marker, Point, Series, Unit};
use crate::dashboard::fault::Fault;
use crate::dashboard::format::{MISSING, parsed_time, quantity, short_id};
use crate::dashboard::page::{Answer, Nav, Page, facts, id};
use crate::dashboard::request::{Asked, path_part};
use crate::dashboard::sql;
use crate::dashboard::state::Dashboard;
use crate::dashboard::table::{Cell, Column, Table};

/// Runs whose curves are drawn into one chart.
const RUNS_MAX: usize = 8;
/// Points of a curve: more steps are drawn by their means.
const POINTS_MAX: u64 = 600;
/// Runs listed, samples and checkpoints shown.
const ROWS_MAX: usize = 500;
const SAMPLES_MAX: usize = 50;
const CLASSES: [&str; RUNS_MAX] = ["k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7"];

/// A chart of curves that belong together, by the names that trainers give their metrics.
struct Curves {
    id: &'static str,
    title: &'static str,
    unit: Unit,
    names: &'static [&'static str],
}

/// What is drawn, in order. Other metrics are in the table below.
const CURVES: [Curves; 12] = [
    Curves { id: "loss", title: "Loss", unit: Unit::Level("nat"), names: &["loss", "policy_loss"] },
    Curves { id: "validation", title: "Validation loss", unit: Unit::Level("nat"), names: &["validation_loss"] },
    Curves { id: "reward", title: "Reward", unit: Unit::Level(""), names: &["reward", "validation_reward"] },
    Curves { id: "accuracy", title: "Answers and format", unit: Unit::Share, names: &["accuracy", "format"] },
    Curves {
        id: "length",
        title: "Written tokens per episode",
        unit: Unit::Number("tokens"),
        names: &["written_tokens"],
    },
    Curves { id: "turns", title: "Turns per episode", unit: Unit::Number("turns"), names: &["turns"] },
    Curves { id: "entropy", title: "Entropy", unit: Unit::Number("nat"), names: &["entropy"] },
    Curves {
        id: "clip",
        title: "Clipped tokens",
        unit: Unit::Share,
        names: &["clip_fraction.low", "clip_fraction.high", "clip_fraction.dual"],
    },
    Curves {
        id: "kl",
        title: "Divergence",
        unit: Unit::Level("nat"),
        names: &["policy_kl", "mismatch.kl", "reference_kl"],
    },
    Curves { id: "discarded", title: "Discarded groups", unit: Unit::Share, names: &["discarded_groups"] },
    Curves { id: "gradient", title: "Gradient norm", unit: Unit::Number(""), names: &["grad_norm"] },
    Curves { id: "speed", title: "Tokens per second", unit: Unit::Number("token/s"), names: &["tokens_per_second"] },
];

const RUNS: &str = "SELECT r.run_id, r.kind, r.state, r.started, r.updated, r.pin_id, r.error, m.steps, m.loss, m.reward \
    FROM run_state AS r \
    LEFT JOIN (SELECT run_id, max(step) AS steps, \
        last_value(value ORDER BY step, event_time) FILTER (WHERE name IN ('loss', 'policy_loss')) AS loss, \
        last_value(value ORDER BY step, event_time) FILTER (WHERE name = 'reward') AS reward \
      FROM metrics GROUP BY run_id) AS m ON m.run_id = r.run_id \
    WHERE r.kind IN ('sft', 'dapo') ORDER BY r.started DESC, r.run_id LIMIT 500";

/// `/training?run=ID&run=ID`: without runs the newest that has metrics.
pub(super) async fn training(asked: Asked) -> Result<Answer, Fault> {
    let own = asked.app.clone();
    let computed = asked.app.memo("training", &[Kind::Run, Kind::Metric], async move { own.rows(RUNS).await }).await?;
    let mut page = Page::new("Training", Nav::Training);
    page.behind(computed.behind);
    let mut chosen: Vec<String> = asked.query.all("run").map(str::to_string).collect();
    if chosen.len() > RUNS_MAX {
        return Err(Fault::Wrong(format!("run: at most {RUNS_MAX} runs are drawn together")));
    }
    if chosen.is_empty() {
        let newest = computed.value.iter().find(|row| row.contains_key("steps"));
        chosen.extend(newest.and_then(|row| text(row, "run_id")).map(str::to_string));
    }
    let table = page.table(runs_table(&computed.value), &asked)?;
    let charts = charts(&asked, &mut page, &chosen, &[]).await?;
    page.body(html! {
        (table)
        @if !chosen.is_empty() {
            h2 { "Curves of " @for (at, run) in chosen.iter().enumerate() { @if at > 0 { ", " } a href={ "/training/" (path_part(run)) } { code { (short_id(run)) } } } }
            @if computed.value.len() > 1 { (chooser(&computed.value, &chosen)) }
            (charts)
        }
    });
    Ok(page.into())
}

fn runs_table(rows: &[Map<String, Value>]) -> Table {
    let columns = vec![
        Column::text("run_id", "Run"),
        Column::text("kind", "Kind"),
        Column::text("state", "State"),
        Column::time("started", "Started"),
        Column::number("steps", "Steps", ""),
        Column::number("loss", "Last loss", "nat"),
        Column::number("reward", "Last reward", ""),
        Column::text("pin_id", "Data"),
        Column::text("error", "Error"),
    ];
    let mut table = Table::new("runs", "Training runs", columns)
        .main()
        .sql(RUNS)
        .empty("Nothing has been trained from this lake yet.", "webdancer train sft --pin NAME --config FILE");
    for row in rows {
        let run = text(row, "run_id").unwrap_or_default();
        let cells = vec![
            Cell::id(run),
            Cell::maybe(text(row, "kind")),
            Cell::maybe(text(row, "state")),
            Cell::time(text(row, "started").and_then(parsed_time)),
            row.get("steps").map_or_else(Cell::missing, |_| Cell::count(count(row, "steps"))),
            Cell::number(number(row, "loss"), 4),
            Cell::number(number(row, "reward"), 3),
            text(row, "pin_id").map_or_else(Cell::missing, |pin| {
                Cell::new(pin, short_id(pin)).hinted(pin).linked(format!("/pins/{}", path_part(pin)))
            }),
            said(text(row, "error"), 60),
        ];
        table.row(Some(format!("/training/{}", path_part(run))), cells);
    }
    table
}

/// Boxes to choose runs by, whose curves are then drawn together.
fn chooser(rows: &[Map<String, Value>], chosen: &[String]) -> Markup {
    html! {
        form.chooser method="get" action="/training" {
            fieldset {
                legend { "Compare up to " (RUNS_MAX) " runs" }
                @for run in rows.iter().filter_map(|row| text(row, "run_id")).take(40) {
                    label { input type="checkbox" name="run" value=(run) checked[chosen.iter().any(|known| known == run)]; " " code { (short_id(run)) } } " "
                }
                button type="submit" { "Draw" }
            }
        }
    }
}

/// A run as its page shows it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Run {
    kind: String,
    state: String,
    started: String,
    updated: String,
    config: Option<String>,
    code_version: Option<String>,
    pin_id: Option<String>,
    seed: Option<i64>,
    parent_run: Option<String>,
    error: Option<String>,
}

/// A checkpoint.
#[derive(Debug, Default, Deserialize, serde::Serialize)]
#[serde(default)]
struct Checkpoint {
    digest: String,
    step: i64,
    uri: String,
    base_model: Option<String>,
    event_time: String,
}

/// `/training/{id}`
pub(super) async fn run(asked: Asked) -> Result<Answer, Fault> {
    let (app, run_id) = (&asked.app, asked.part("id"));
    let of = sql::text(run_id);
    let one = format!(
        "SELECT kind, state, started, updated, config, code_version, pin_id, seed, parent_run, error FROM run_state WHERE run_id = {of}"
    );
    let found: Option<Run> = first(app, &one).await?;
    let run = found.ok_or_else(|| Fault::Missing(format!("there is no run {run_id}")))?;
    let checkpoints = format!(
        "SELECT digest, step, uri, base_model, event_time FROM checkpoints WHERE run_id = {of} ORDER BY step, event_time LIMIT {ROWS_MAX}"
    );
    let samples = samples_sql(run_id, app.restricted());
    let (checkpoints, samples_rows) = futures::try_join!(all::<Checkpoint>(app, &checkpoints), app.rows(&samples))?;
    let mut page =
        Page::new(format!("Training run {}", short_id(run_id)), Nav::Training).crumb("Training", "/training");
    let markers: Vec<Marker> = checkpoints
        .iter()
        .map(|checkpoint| Marker {
            x: checkpoint.step as f64,
            label: format!("checkpoint {}", short_id(&checkpoint.digest)),
        })
        .collect();
    let charts = charts(&asked, &mut page, &[run_id.to_string()], &markers).await?;
    let checkpoints = page.table(checkpoints_table(&checkpoints), &asked)?;
    let samples = page.table(samples_table(&samples_rows, &samples), &asked)?;
    let others = page.table(others(app, run_id).await?, &asked)?;
    page.body(html! {
        (about(run_id, &run))
        h2 { "Curves" } (charts)
        h2 { "Checkpoints" } (checkpoints)
        @if !samples_rows.is_empty() { h2 { "Samples" } (samples) }
        h2 { "Every metric" } (others)
    });
    Ok(page.into())
}

fn about(run_id: &str, run: &Run) -> Markup {
    let link = |to: &str, id: Option<&str>| match id {
        Some(id) => html! { a href={ (to) (path_part(id)) } { code { (short_id(id)) } } },
        None => html! { (MISSING) },
    };
    html! {
        (facts([
            ("id", id(run_id)),
            ("kind", html! { (run.kind) }),
            ("state", html! { (run.state) @if let Some(error) = &run.error { " " span.error { "! " (crate::dashboard::text::Text(error)) } } }),
            ("started", moment(&run.started)),
            ("last told", moment(&run.updated)),
            ("data", link("/pins/", run.pin_id.as_deref())),
            ("parent", link("/training/", run.parent_run.as_deref())),
            ("seed", html! { @match run.seed { Some(seed) => (seed), None => (MISSING) } }),
            ("code", html! { (run.code_version.as_deref().unwrap_or(MISSING)) }),
        ]))
        @if let Some(config) = &run.config {
            details.fold { summary { "Configuration" } (crate::dashboard::text::block(&pretty(config), 40_000, None)) }
        }
        p { a href={ "/runs/" (path_part(run_id)) } { "The run" } " · " a href={ "/lineage/" (path_part(run_id)) } { "Lineage" } }
    }
}

fn pretty(json: &str) -> String {
    let parsed = serde_json::from_str::<Value>(json).and_then(|value| serde_json::to_string_pretty(&value));
    parsed.unwrap_or_else(|_| json.to_string())
}

/// A value of a metric: the mean of the steps that one point stands for.
#[derive(Debug, Clone, Deserialize)]
struct Measured {
    run_id: String,
    name: String,
    step: f64,
    value: f64,
}

/// The curves of runs, those that have any value, as small multiples.
async fn charts(asked: &Asked, page: &mut Page, runs: &[String], markers: &[Marker]) -> Result<Markup, Fault> {
    if runs.is_empty() {
        return Ok(html! {});
    }
    let sql = curves_sql(&asked.app, runs).await?;
    let measured: Vec<Measured> = all(&asked.app, &sql).await?;
    let mut by_name: BTreeMap<(&str, &str), Vec<Point>> = BTreeMap::new();
    for value in &measured {
        let point =
            Point { x: value.step, value: value.value, hint: format!("step {}", value.step), ..Point::default() };
        by_name.entry((value.name.as_str(), value.run_id.as_str())).or_default().push(point);
    }
    let mut shown = Vec::new();
    for curves in &CURVES {
        let series = series(curves, runs, &by_name);
        let n: usize = series.iter().map(|series| series.points.len()).sum();
        if n == 0 {
            continue;
        }
        let lines = Lines { x: Some("step"), unit: curves.unit, series, markers: markers.to_vec() };
        let caption = format!("{} by step (n = {n} points)", curves.title);
        shown.push(page.chart(Chart::lines(curves.id, &caption, &lines).sql(&sql), asked));
    }
    Ok(html! {
        @if shown.is_empty() { p.remark { "No metric has been told yet." } }
        div.multiples { @for chart in &shown { (chart) } }
    })
}

/// A line for each run and metric: colours tell runs apart, or metrics where there is one run.
fn series(curves: &Curves, runs: &[String], by_name: &BTreeMap<(&str, &str), Vec<Point>>) -> Vec<Series> {
    let mut series = Vec::new();
    for (run_at, run) in runs.iter().enumerate() {
        for (name_at, name) in curves.names.iter().enumerate() {
            let Some(points) = by_name.get(&(*name, run.as_str())) else { continue };
            let at = if runs.len() == 1 { name_at } else { run_at };
            let label = match (runs.len(), curves.names.len()) {
                (1, _) => (*name).to_string(),
                (_, 1) => short_id(run),
                _ => format!("{} {name}", short_id(run)),
            };
            let class = CLASSES.get(at).copied().unwrap_or("k-none");
            series.push(Series { name: label, class, points: points.clone() });
        }
    }
    series
}

/// Values of the metrics drawn: of very many steps the mean of those next to one another.
async fn curves_sql(app: &Dashboard, runs: &[String]) -> Result<String, Fault> {
    let runs = sql::texts(runs.iter().map(String::as_str));
    let last = app.rows(&format!("SELECT max(step) AS steps FROM metrics WHERE run_id IN {runs}")).await?;
    let steps = last.first().map_or(0, |row| count(row, "steps"));
    let per_point = (steps / POINTS_MAX).max(1);
    let names = sql::texts(CURVES.iter().flat_map(|curves| curves.names.iter().copied()));
    Ok(format!(
        "SELECT run_id, name, min(step) AS step, avg(value) AS value FROM metrics \
         WHERE run_id IN {runs} AND name IN {names} GROUP BY run_id, name, step / {per_point} ORDER BY run_id, name, step"
    ))
}

fn checkpoints_table(checkpoints: &[Checkpoint]) -> Table {
    let columns = vec![
        Column::text("digest", "Digest"),
        Column::number("step", "Step", ""),
        Column::text("uri", "Where"),
        Column::text("base_model", "Base model"),
        Column::time("event_time", "Saved"),
    ];
    let mut table = Table::new("checkpoints", "Checkpoints", columns)
        .empty("No checkpoint has been saved yet.", "webdancer train sft …");
    for checkpoint in checkpoints {
        let cells = vec![
            Cell::id(&checkpoint.digest),
            Cell::count(u64::try_from(checkpoint.step).unwrap_or(0)),
            said(Some(&checkpoint.uri), 80),
            Cell::maybe(checkpoint.base_model.as_deref()),
            Cell::time(parsed_time(&checkpoint.event_time)),
        ];
        table.row(Some(format!("/lineage/{}", path_part(&checkpoint.digest))), cells);
    }
    table
}

/// The newest attempts that the run made: what a policy under training writes.
fn samples_sql(run_id: &str, restricted: bool) -> String {
    let gated = match restricted {
        true => String::new(),
        false => format!(" AND NOT coalesce(t.restricted, false) AND {}", gated::is_open("t")),
    };
    let of = sql::text(run_id);
    format!(
        "SELECT t.trajectory_id, t.policy_version, t.question, t.answer, t.termination, t.n_turns, t.output_tokens, r.reward \
         FROM trajectories AS t \
         LEFT JOIN (SELECT trajectory_id, max(reward) AS reward FROM rewards WHERE run_id = {of} GROUP BY trajectory_id) AS r \
           ON r.trajectory_id = t.trajectory_id \
         WHERE t.run_id = {of}{gated} ORDER BY t.policy_version DESC, t.event_time DESC, t.trajectory_id LIMIT {SAMPLES_MAX}"
    )
}

fn samples_table(rows: &[Map<String, Value>], sql: &str) -> Table {
    let columns = vec![
        Column::text("trajectory_id", "Trajectory"),
        Column::number("policy_version", "Policy version", ""),
        Column::number("reward", "Reward", ""),
        Column::text("question", "Question"),
        Column::text("answer", "Answer"),
        Column::text("termination", "Ended by"),
        Column::number("n_turns", "Turns", ""),
        Column::number("output_tokens", "Written", "tokens"),
    ];
    let mut table = Table::new("samples", "The newest attempts of this run", columns).main().sql(sql);
    for row in rows {
        let id = text(row, "trajectory_id").unwrap_or_default();
        let counted = |name: &str| row.get(name).map_or_else(Cell::missing, |_| Cell::count(count(row, name)));
        let cells = vec![
            Cell::id(id),
            counted("policy_version"),
            Cell::number(number(row, "reward"), 3),
            said(text(row, "question"), 90),
            said(text(row, "answer"), 60),
            Cell::maybe(text(row, "termination")),
            counted("n_turns"),
            counted("output_tokens"),
        ];
        table.row(Some(format!("/trajectories/{}", path_part(id))), cells);
    }
    table
}

/// First, last, lowest and highest value of every metric of a run.
async fn others(app: &Dashboard, run_id: &str) -> Result<Table, Fault> {
    let sql = format!(
        "SELECT name, max(unit) AS unit, count(*) AS n, first_value(value ORDER BY step, event_time) AS first, \
           last_value(value ORDER BY step, event_time) AS last, min(value) AS low, max(value) AS high \
         FROM metrics WHERE run_id = {} GROUP BY name ORDER BY name LIMIT {ROWS_MAX}",
        sql::text(run_id)
    );
    let columns = vec![
        Column::text("name", "Metric"),
        Column::text("unit", "Unit"),
        Column::number("n", "Values", ""),
        Column::number("first", "First", ""),
        Column::number("last", "Last", ""),
        Column::number("low", "Lowest", ""),
        Column::number("high", "Highest", ""),
    ];
    let mut table = Table::new("metrics", "Metrics of this run", columns)
        .sql(&sql)
        .empty("No metric has been told yet.", "webdancer train sft --pin NAME --config FILE");
    for row in app.rows(&sql).await? {
        let value = |name: &str| {
            number(&row, name)
                .map_or_else(Cell::missing, |value| Cell::new(json!(value), shown(value)).hinted(value.to_string()))
        };
        let cells = vec![
            Cell::maybe(text(&row, "name")),
            Cell::maybe(text(&row, "unit")),
            Cell::count(count(&row, "n")),
            value("first"),
            value("last"),
            value("low"),
            value("high"),
        ];
        table.row(None, cells);
    }
    Ok(table)
}

/// A value whose size is not known beforehand: four significant decimals below 100, its magnitude above.
fn shown(value: f64) -> String {
    if value != 0.0 && value.abs() < 0.001 {
        format!("{value:.2e}")
    } else if value.abs() < 100.0 {
        format!("{value:.4}")
    } else {
        quantity(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_by_their_size() {
        assert_eq!([0.0, 0.000_2, 2.5, 123_456.0].map(shown), ["0.0000", "2.00e-4", "2.5000", "123.5 k"]);
    }

    #[test]
    fn lines_of_one_run_are_told_apart_by_metric_and_of_several_by_run() {
        let points = |x| vec![Point { x, value: 1.0, ..Point::default() }];
        let by_name = BTreeMap::from([
            (("loss", "run-a"), points(1.0)),
            (("policy_loss", "run-a"), points(2.0)),
            (("loss", "run-b"), points(3.0)),
        ]);
        let names = |runs: &[&str]| -> Vec<(String, &'static str)> {
            let runs: Vec<String> = runs.iter().map(|run| (*run).to_string()).collect();
            series(&CURVES[0], &runs, &by_name).into_iter().map(|series| (series.name, series.class)).collect()
        };
        assert_eq!(names(&["run-a"]), [("loss".to_string(), "k0"), ("policy_loss".to_string(), "k1")]);
        assert_eq!(
            names(&["run-b", "run-a"]),
            [
                ("run-b loss".to_string(), "k0"),
                ("run-a loss".to_string(), "k1"),
                ("run-a policy_loss".to_string(), "k1")
            ]
        );
    }
}
