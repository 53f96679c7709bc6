//! Search: any id, or part of one, and the text of questions.

use maud::html;
use serde::Deserialize;

use super::read::{all, and_shown, said};
use crate::dashboard::fault::Fault;
use crate::dashboard::page::{Answer, Nav, Page};
use crate::dashboard::request::{Asked, Form, path_part};
use crate::dashboard::sql;
use crate::dashboard::table::{Cell, Column, Table};

/// Hits of each sort.
const HITS_MAX: usize = 20;
/// Characters of what is searched for.
const CHARS_MAX: usize = 400;
/// Characters of an id from which its beginning is enough.
const PREFIX_MIN: usize = 4;

/// Something found.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Hit {
    id: String,
    kind: String,
    said: Option<String>,
}

/// A sort of thing that has ids: its name, the statement's table and column, what is said of it, where it leads.
struct Sort {
    kind: &'static str,
    table: &'static str,
    id: &'static str,
    said: &'static str,
    page: &'static str,
}

const SORTS: [Sort; 8] = [
    Sort {
        kind: "trajectory",
        table: "trajectories",
        id: "trajectory_id",
        said: "policy_model",
        page: "/trajectories/",
    },
    Sort { kind: "question", table: "qa", id: "qa_id", said: "method", page: "/questions/" },
    Sort { kind: "run", table: "runs", id: "run_id", said: "kind", page: "/runs/" },
    Sort { kind: "pin", table: "pins", id: "digest", said: "name", page: "/pins/" },
    Sort { kind: "pin", table: "pins", id: "name", said: "digest", page: "/pins/" },
    Sort { kind: "checkpoint", table: "checkpoints", id: "digest", said: "uri", page: "/lineage/" },
    Sort { kind: "page", table: "pages", id: "digest", said: "url", page: "/pages/" },
    Sort { kind: "judgment", table: "judgments", id: "event_id", said: "verdict", page: "/lineage/" },
];

/// `/search?q=…`
pub(super) async fn search(asked: Asked) -> Result<Answer, Fault> {
    let wanted = asked.query.get("q").map(str::trim).unwrap_or_default();
    if wanted.chars().count() > CHARS_MAX {
        return Err(Fault::Wrong(format!("q: at most {CHARS_MAX} characters are searched for")));
    }
    let mut page = Page::new("Search", Nav::Trajectories);
    if wanted.is_empty() {
        page.body(html! { p.empty { "Give an id, the beginning of one, or words of a question." } });
        return Ok(page.into());
    }
    let (hits, questions) = futures::try_join!(ids(&asked, wanted), questions(&asked, wanted))?;
    // A whole id leads there at once.
    if let [only] = hits.iter().filter(|hit| hit.id == wanted).collect::<Vec<_>>().as_slice()
        && asked.form == Form::Html
    {
        return Ok(Answer::redirect(&address(only)));
    }
    let columns = vec![Column::text("id", "Id"), Column::text("kind", "What"), Column::text("said", "Of it")];
    let mut table = Table::new("hits", format!("What “{wanted}” finds"), columns).main();
    for hit in hits.iter().chain(&questions) {
        let cells = vec![Cell::id(&hit.id), Cell::text(hit.kind.as_str()), said(hit.said.as_deref(), 160)];
        table.row(Some(address(hit)), cells);
    }
    let found = !table.is_empty();
    let shown = page.table(table, &asked)?;
    page.body(html! {
        @if found { (shown) } @else { p.empty { "Nothing in this lake has an id that begins so, and no question has these words." } }
        @if hits.len() >= HITS_MAX || questions.len() >= HITS_MAX { p.remark { "Of each sort at most " (HITS_MAX) " are shown: give more of it." } }
    });
    Ok(page.into())
}

fn address(hit: &Hit) -> String {
    let page = SORTS.iter().find(|sort| sort.kind == hit.kind).map_or("/lineage/", |sort| sort.page);
    format!("{page}{}", path_part(&hit.id))
}

/// What has this id, or one that begins so.
async fn ids(asked: &Asked, wanted: &str) -> Result<Vec<Hit>, Fault> {
    if wanted.contains(char::is_whitespace) {
        return Ok(Vec::new());
    }
    let queries = SORTS.iter().map(|sort| {
        let Sort { kind, table, id, said, .. } = sort;
        let of = sql::text(wanted);
        // Ids are compared as ranges: files whose ids all lie elsewhere are not read.
        let meets = match wanted.chars().count() >= PREFIX_MIN {
            true => format!("{id} >= {of} AND starts_with({id}, {of})"),
            false => format!("{id} = {of}"),
        };
        let sql = format!(
            "SELECT {id} AS id, '{kind}' AS kind, max(CAST({said} AS VARCHAR)) AS said FROM {table} WHERE {meets} \
             GROUP BY {id} ORDER BY {id} LIMIT {HITS_MAX}"
        );
        async move { all::<Hit>(&asked.app, &sql).await }
    });
    Ok(futures::future::try_join_all(queries).await?.into_iter().flatten().collect())
}

/// Questions that have these words one after the other, whatever their case.
async fn questions(asked: &Asked, wanted: &str) -> Result<Vec<Hit>, Fault> {
    let sql = format!(
        "SELECT q.qa_id AS id, 'question' AS kind, max(q.question) AS said FROM qa AS q \
         WHERE strpos(lower(q.question), {}) > 0{} GROUP BY q.qa_id ORDER BY q.qa_id LIMIT {HITS_MAX}",
        sql::text(&wanted.to_lowercase()),
        and_shown(&asked.app),
    );
    all(&asked.app, &sql).await
}
