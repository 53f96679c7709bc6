//! The questions of the lake, and one of them: its answer, where it comes from, and every attempt at it.

use maud::html;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use webdancer_query::gated;
use webdancer_schemas::kind::Kind;

use super::read::{all, and_shown, count, first, said, text};
use super::trajectory::{moment, sign};
use crate::dashboard::fault::Fault;
use crate::dashboard::format::{MISSING, parsed_time, short_id};
use crate::dashboard::page::{Answer, Nav, Page, facts, id};
use crate::dashboard::request::{Asked, path_part};
use crate::dashboard::sql;
use crate::dashboard::table::{Cell, Column, Listing, Row, Table};
use crate::dashboard::text::{SHOWN_CHARS_MAX, Text, block};

/// Attempts, rewritings, evidence of one question that are shown.
const ROWS_MAX: usize = 500;
const QUESTION_CHARS: usize = 120;
const ANSWER_CHARS: usize = 60;

/// `/questions`
pub(super) async fn questions(asked: Asked) -> Result<Answer, Fault> {
    let shown = |column: &str| match asked.app.restricted() {
        true => format!("q.{column}"),
        false => format!("CASE WHEN g.qa_id IS NULL THEN q.{column} END AS {column}"),
    };
    let listing = Listing {
        table: table(),
        sql: format!(
            "SELECT q.qa_id, q.event_time AS recorded, q.method, q.type, q.language, q.rewrites, {}, {}, q.generator, \
               q.run_id AS run, CAST(coalesce(array_length(q.evidence_page_digests), 0) AS BIGINT) AS evidence \
             FROM current_qa AS q {}",
            shown("question"),
            shown("answer"),
            gated::joined_to("q"),
        ),
        order: "\"recorded\" DESC",
        over: &[Kind::Qa],
    };
    if let Some(rows) = listing.download(&asked).await? {
        return Ok(rows);
    }
    let mut page = Page::new("Questions", Nav::Data).crumb("Data", "/data");
    let shown = listing.show(&asked, &mut page, line).await?;
    page.body(shown);
    Ok(page.into())
}

fn table() -> Table {
    let columns = vec![
        Column::text("qa_id", "Question id"),
        Column::text("question", "Question"),
        Column::text("answer", "Gold"),
        Column::text("method", "Method"),
        Column::text("type", "Type"),
        Column::text("language", "Language"),
        Column::number("rewrites", "Rewrites", ""),
        Column::number("evidence", "Evidence", "pages"),
        Column::time("recorded", "Recorded"),
        Column::text("generator", "Generator").hidden(),
        Column::text("run", "Run").hidden(),
    ];
    Table::new("questions", "Questions", columns)
        .main()
        .empty("There is no question in this lake yet.", "webdancer synth crawlqa …")
}

fn line(row: &Map<String, Value>) -> Row {
    let qa_id = text(row, "qa_id").unwrap_or_default();
    let maybe = |name: &str| Cell::maybe(text(row, name));
    let cells = vec![
        Cell::id(qa_id),
        said(text(row, "question"), QUESTION_CHARS),
        said(text(row, "answer"), ANSWER_CHARS),
        maybe("method"),
        maybe("type"),
        maybe("language"),
        row.get("rewrites").map_or_else(Cell::missing, |_| Cell::count(count(row, "rewrites"))),
        Cell::count(count(row, "evidence")),
        Cell::time(text(row, "recorded").and_then(parsed_time)),
        maybe("generator"),
        maybe("run"),
    ];
    Row { href: Some(format!("/questions/{}", path_part(qa_id))), cells }
}

/// A question in full.
#[derive(Debug, Default, Clone, Deserialize, Serialize)]
#[serde(default)]
struct Question {
    qa_id: String,
    event_time: String,
    method: String,
    question: Option<String>,
    answer: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    language: Option<String>,
    rewrites: Option<i64>,
    entity_chain: Vec<String>,
    evidence_page_digests: Vec<String>,
    parent_qa_id: Option<String>,
    generator: Option<String>,
    attributes: Option<String>,
    run_id: Option<String>,
    restricted: bool,
}

/// A step by which it was made from its parent.
#[derive(Debug, Default, Clone, Deserialize, Serialize)]
#[serde(default)]
struct Rewriting {
    step: i64,
    entity: String,
    description: String,
    new_question: String,
    invariant: Option<bool>,
}

/// A question made from it.
#[derive(Debug, Default, Clone, Deserialize, Serialize)]
#[serde(default)]
struct Child {
    qa_id: String,
    question: String,
}

/// A stored page.
#[derive(Debug, Default, Clone, Deserialize, Serialize)]
#[serde(default)]
struct Evidence {
    digest: String,
    url: String,
    title: Option<String>,
}

/// `/questions/{id}`
pub(super) async fn question(asked: Asked) -> Result<Answer, Fault> {
    let (app, qa_id) = (&asked.app, asked.part("id"));
    let id_text = sql::text(qa_id);
    let one = format!(
        "SELECT q.*, g.qa_id IS NOT NULL AS restricted FROM qa AS q {} \
         WHERE q.qa_id = {id_text} ORDER BY q.event_time DESC, q.event_id DESC LIMIT 1",
        gated::joined_to("q")
    );
    let rewritings = format!(
        "SELECT DISTINCT step, entity, description, new_question, invariant FROM rewrites WHERE qa_id = {id_text} \
         ORDER BY step LIMIT {ROWS_MAX}"
    );
    let children = format!(
        "SELECT DISTINCT q.qa_id, q.question FROM qa AS q WHERE q.parent_qa_id = {id_text}{} \
         ORDER BY qa_id LIMIT {ROWS_MAX}",
        and_shown(app)
    );
    let tried = format!(
        "SELECT DISTINCT trajectory_id, run_id, attempt FROM trajectories WHERE qa_id = {id_text} \
         ORDER BY run_id, attempt, trajectory_id LIMIT {ROWS_MAX}"
    );
    let (found, rewritings, children, tried) = futures::try_join!(
        first::<Question>(app, &one),
        all::<Rewriting>(app, &rewritings),
        all::<Child>(app, &children),
        app.rows(&tried),
    )?;
    let question = found.ok_or_else(|| Fault::Missing(format!("there is no question {qa_id}")))?;
    if question.restricted && !app.restricted() {
        return Err(Fault::restricted(format!("question {qa_id}")));
    }
    let digests = sql::texts(question.evidence_page_digests.iter().take(ROWS_MAX).map(String::as_str));
    let evidence = format!(
        "SELECT digest, min(url) AS url, min(title) AS title FROM pages WHERE digest IN {digests} GROUP BY digest ORDER BY digest"
    );
    let tried = sql::texts(tried.iter().filter_map(|row| text(row, "trajectory_id")));
    let attempts = attempts_sql(qa_id, &tried, app.restricted());
    let (evidence, rows) = futures::try_join!(all::<Evidence>(app, &evidence), app.rows(&attempts),)?;
    let mut page = Page::new(format!("Question {}", short_id(qa_id)), Nav::Data)
        .crumb("Data", "/data")
        .crumb("Questions", "/questions");
    let attempts = page.table(attempts_table(&rows, &attempts), &asked)?;
    page.data(json!({
        "question": question, "rewrites": rewritings, "children": children, "evidence": evidence, "attempts": rows,
    }));
    page.body(html! {
        (block(question.question.as_deref().unwrap_or_default(), SHOWN_CHARS_MAX, None))
        h2 { "Gold" }
        (block(question.answer.as_deref().unwrap_or_default(), SHOWN_CHARS_MAX, None))
        h2 { "Attempts" }
        (attempts)
        h2 { "Origin" }
        (origin(&question))
        @if !question.evidence_page_digests.is_empty() {
            h2 { "Evidence" }
            ul { @for digest in question.evidence_page_digests.iter().take(ROWS_MAX) {
                @let page = evidence.iter().find(|page| page.digest == *digest);
                li { a href={ "/pages/" (path_part(digest)) } title=(digest) {
                    @match page { Some(page) => (Text(page.title.as_deref().unwrap_or(&page.url))), None => code { (short_id(digest)) } }
                } }
            } }
        }
        @if !rewritings.is_empty() {
            h2 { "Rewriting" }
            ol { @for step in &rewritings { li value=(step.step) {
                "“" (Text(&step.entity)) "” became “" (Text(&step.description)) "”"
                @if step.invariant == Some(false) { " " span.error { "! the answer changed" } }
                (block(&step.new_question, SHOWN_CHARS_MAX, None))
            } } }
        }
        @if !children.is_empty() {
            h2 { "Made from it" }
            ul { @for child in &children { li { a href={ "/questions/" (path_part(&child.qa_id)) } { (Text(&child.question)) } } } }
        }
    });
    Ok(page.into())
}

fn origin(question: &Question) -> maud::Markup {
    let maybe = |text: Option<&str>| html! { @match text { Some(text) => (Text(text)), None => (MISSING) } };
    let link = |to: &str, id: Option<&str>| match id {
        Some(id) => html! { a href={ (to) (path_part(id)) } { code { (id) } } },
        None => html! { (MISSING) },
    };
    html! {
        (facts([
            ("id", id(&question.qa_id)),
            ("method", html! { (question.method) }),
            ("type", maybe(question.kind.as_deref())),
            ("language", maybe(question.language.as_deref())),
            ("rewrites", html! { @match question.rewrites { Some(n) => (n), None => (MISSING) } }),
            ("entities", html! { (Text(&question.entity_chain.join(" → "))) }),
            ("made from", link("/questions/", question.parent_qa_id.as_deref())),
            ("generator", maybe(question.generator.as_deref())),
            ("run", link("/runs/", question.run_id.as_deref())),
            ("recorded", moment(&question.event_time)),
            ("attributes", html! { code { (maybe(question.attributes.as_deref())) } }),
        ]))
        p { a href={ "/lineage/" (path_part(&question.qa_id)) } { "Lineage" } }
    }
}

/// The attempts at a question among the trajectories `tried`. Named one by one they are looked up before views rank what was
/// recorded again; by their question alone every trajectory of the lake would be ranked.
fn attempts_sql(qa_id: &str, tried: &str, restricted: bool) -> String {
    let id = sql::text(qa_id);
    // An attempt may be gated where its question is not: another benchmark asks the same.
    let answer = match restricted {
        true => "t.answer",
        false => "CASE WHEN NOT coalesce(t.restricted, false) THEN t.answer END AS answer",
    };
    format!(
        "SELECT t.trajectory_id, t.event_time, t.run_id, t.policy_model, t.attempt, t.termination, t.n_turns, {answer}, j.verdict \
         FROM (SELECT * FROM current_trajectories WHERE trajectory_id IN {tried} AND qa_id = {id}) AS t \
         LEFT JOIN (SELECT trajectory_id, verdict FROM current_judgments WHERE stage = 'correctness' \
           AND trajectory_id IN {tried}) AS j ON j.trajectory_id = t.trajectory_id \
         ORDER BY t.run_id, t.attempt, t.trajectory_id LIMIT {ROWS_MAX}"
    )
}

fn attempts_table(rows: &[Map<String, Value>], sql: &str) -> Table {
    let columns = vec![
        Column::text("trajectory_id", "Trajectory"),
        Column::text("policy_model", "Policy"),
        Column::number("attempt", "Attempt", ""),
        Column::text("verdict", "Verdict"),
        Column::text("answer", "Answer"),
        Column::text("termination", "Ended by"),
        Column::number("n_turns", "Turns", ""),
        Column::text("run_id", "Run"),
        Column::time("event_time", "Recorded"),
    ];
    let mut table = Table::new("attempts", "Attempts at this question", columns)
        .main()
        .sql(sql)
        .empty("Nobody has tried this question yet.", "webdancer sample --policy … --web …");
    for row in rows {
        let id = text(row, "trajectory_id").unwrap_or_default();
        let run = text(row, "run_id");
        let cells = vec![
            Cell::id(id),
            Cell::maybe(text(row, "policy_model")),
            Cell::count(count(row, "attempt")),
            text(row, "verdict").map_or_else(Cell::missing, |verdict| Cell::marked(verdict, sign(verdict))),
            said(text(row, "answer"), ANSWER_CHARS),
            Cell::maybe(text(row, "termination")),
            Cell::count(count(row, "n_turns")),
            run.map_or_else(Cell::missing, |run| {
                Cell::new(run, short_id(run)).hinted(run).linked(format!("/runs/{}", path_part(run)))
            }),
            Cell::time(text(row, "event_time").and_then(parsed_time)),
        ];
        table.row(Some(format!("/trajectories/{}", path_part(id))), cells);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_named_before_a_view_ranks_them() {
        let sql = attempts_sql("q'1", "('t1', 't2')", true);
        assert!(
            sql.contains("FROM current_trajectories WHERE trajectory_id IN ('t1', 't2') AND qa_id = 'q''1'"),
            "{sql}"
        );
        assert!(sql.contains("WHERE stage = 'correctness' AND trajectory_id IN ('t1', 't2')) AS j"), "{sql}");
    }
}
