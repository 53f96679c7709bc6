//! The list of trajectories: filters by run, policy, ending, verdict and whatever else is a column.

use std::collections::HashMap;
use std::sync::Arc;

use maud::html;
use serde_json::{Map, Value};
use webdancer_query::gated;
use webdancer_schemas::kind::Kind;

use super::read::{count, number, said, text};
use super::trajectory::sign;
use crate::dashboard::fault::Fault;
use crate::dashboard::format::parsed_time;
use crate::dashboard::page::{Answer, Nav, Page};
use crate::dashboard::request::{Asked, Form, path_part};
use crate::dashboard::state::Dashboard;
use crate::dashboard::table::{Cell, Column, Listing, Row, Table};

/// Characters of a question in a row.
const QUESTION_CHARS: usize = 90;
/// Verdicts that are kept to be shown beside trajectories.
const VERDICTS_MAX: u64 = 1_000_000;

/// `/trajectories`
pub(super) async fn trajectories(asked: Asked) -> Result<Answer, Fault> {
    let by_verdict = needs_verdicts(&asked);
    let listing = Listing {
        table: table(),
        sql: statement(asked.app.restricted(), by_verdict),
        order: "\"recorded\" DESC",
        over: &[Kind::Trajectory, Kind::Qa, Kind::Judgment, Kind::Run],
    };
    if let Some(rows) = listing.download(&asked).await? {
        return Ok(rows);
    }
    let (verdicts, behind) = match by_verdict {
        true => (Arc::default(), false),
        false => verdicts(&asked.app).await?,
    };
    let mut page = Page::new("Trajectories", Nav::Trajectories);
    page.behind(behind);
    let shown = listing.show(&asked, &mut page, |row| line(row, &verdicts)).await?;
    page.body(html! {
        p.remark { "A filter matches what contains it; " code { "=text" } " what is it. Numbers take " code { ">5" } ", " code { "1..5" } "." }
        (shown)
    });
    Ok(page.into())
}

fn table() -> Table {
    let columns = vec![
        Column::text("trajectory", "Trajectory"),
        Column::time("recorded", "Recorded"),
        Column::text("run", "Run"),
        Column::text("policy", "Policy"),
        Column::text("question", "Question"),
        Column::number("attempt", "Attempt", ""),
        Column::text("verdict", "Verdict"),
        Column::text("ended_by", "Ended by"),
        Column::number("turns", "Turns", ""),
        Column::number("tool_calls", "Tool calls", ""),
        Column::number("tokens_written", "Written", "tokens"),
        Column::number("tokens_read", "Read", "tokens").on_demand(),
        Column::number("policy_version", "Policy version", "").on_demand(),
        Column::text("checkpoint", "Checkpoint").on_demand(),
        Column::text("answer", "Answer").on_demand(),
        Column::text("qa_id", "Question id").on_demand(),
    ];
    Table::new("trajectories", "Trajectories", columns)
        .main()
        .empty("There is no trajectory in this lake yet.", "webdancer sample --policy … --web …")
}

/// The rows. A verdict costs a look at all judgments: it is joined where rows are chosen or ordered by it.
fn statement(restricted: bool, by_verdict: bool) -> String {
    let gated = |column: &str| match restricted {
        true => format!("t.{column}"),
        false => format!("CASE WHEN NOT coalesce(t.restricted, false) AND g.qa_id IS NULL THEN t.{column} END"),
    };
    // An attempt may not say that its question is gated.
    let by_question = match restricted {
        true => String::new(),
        false => format!(" {}", gated::joined_to("t")),
    };
    let (verdict, join) = match by_verdict {
        true => (
            "j.verdict",
            " LEFT JOIN (SELECT trajectory_id, verdict FROM current_judgments WHERE stage = 'correctness') AS j ON j.trajectory_id = t.trajectory_id",
        ),
        false => ("CAST(NULL AS VARCHAR)", ""),
    };
    format!(
        "SELECT t.trajectory_id AS trajectory, t.event_time AS recorded, t.run_id AS run, t.policy_model AS policy, \
           {} AS question, t.attempt, {verdict} AS verdict, t.termination AS ended_by, t.n_turns AS turns, \
           t.n_tool_calls AS tool_calls, t.output_tokens AS tokens_written, t.input_tokens AS tokens_read, \
           t.policy_version, t.policy_checkpoint_digest AS checkpoint, {} AS answer, t.qa_id \
         FROM current_trajectories AS t{by_question}{join}",
        gated("question"),
        gated("answer"),
    )
}

/// Whether rows are chosen or ordered by verdict, or leave as a file that has it.
fn needs_verdicts(asked: &Asked) -> bool {
    let sorted = asked.query.get("sort").is_some_and(|sort| sort.trim_start_matches('-') == "verdict");
    sorted || asked.query.get("f.verdict").is_some() || asked.form != Form::Html
}

type Verdicts = HashMap<String, String>;

/// The verdict on each answer that has one, as of the judgments that there are.
async fn verdicts(app: &Dashboard) -> Result<(Arc<Verdicts>, bool), Fault> {
    let own = app.clone();
    let compute = async move {
        let sql = format!(
            "SELECT trajectory_id, verdict FROM current_judgments WHERE stage = 'correctness' LIMIT {VERDICTS_MAX}"
        );
        let rows = own.rows(&sql).await?;
        let pair = |row: &Map<String, Value>| {
            Some((text(row, "trajectory_id")?.to_string(), text(row, "verdict")?.to_string()))
        };
        Ok(rows.iter().filter_map(pair).collect::<Verdicts>())
    };
    let computed = app.memo("verdicts of trajectories", &[Kind::Judgment, Kind::Run], compute).await?;
    Ok((computed.value, computed.behind))
}

fn line(row: &Map<String, Value>, verdicts: &Verdicts) -> Row {
    let id = text(row, "trajectory").unwrap_or_default();
    let maybe = |name: &str| Cell::maybe(text(row, name));
    let counted = |name: &str| number(row, name).map_or_else(Cell::missing, |_| Cell::count(count(row, name)));
    let verdict = text(row, "verdict").or_else(|| verdicts.get(id).map(String::as_str));
    let cells = vec![
        Cell::id(id),
        Cell::time(text(row, "recorded").and_then(parsed_time)),
        text(row, "run").map_or_else(Cell::missing, |run| {
            Cell::new(run, crate::dashboard::format::short_id(run))
                .hinted(run)
                .linked(format!("/runs/{}", path_part(run)))
        }),
        maybe("policy"),
        said(text(row, "question"), QUESTION_CHARS),
        Cell::count(count(row, "attempt")),
        verdict.map_or_else(Cell::missing, |verdict| Cell::marked(verdict, sign(verdict))),
        maybe("ended_by"),
        counted("turns"),
        counted("tool_calls"),
        counted("tokens_written"),
        counted("tokens_read"),
        counted("policy_version"),
        maybe("checkpoint"),
        said(text(row, "answer"), QUESTION_CHARS),
        text(row, "qa_id")
            .map_or_else(Cell::missing, |qa| Cell::text(qa).linked(format!("/questions/{}", path_part(qa)))),
    ];
    Row { href: Some(format!("/trajectories/{}", path_part(id))), cells }
}
