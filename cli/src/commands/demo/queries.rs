//! Queries that a team asks first, and their answers for people.

use webdancer_query::output::Format;
use webdancer_query::{QueryEngine, QueryOptions};

use crate::commands::sql;
use crate::failure::Failure;
use crate::output;

/// Question and query.
pub(super) const QUERIES: &[(&str, &str)] = &[
    (
        "Which pages of the crawl link most?",
        "SELECT title, depth, cardinality(links) AS links, length(text) AS characters FROM pages \
         ORDER BY links DESC, title LIMIT 5",
    ),
    (
        "Which tools do the trajectories call, and with what?",
        "SELECT tool, count(*) AS calls, min(arguments) AS example FROM tool_calls GROUP BY tool ORDER BY calls DESC",
    ),
    (
        "Which questions are hard? Pass@k by method and rewrites",
        "SELECT method, rewrites, count(*) AS questions, round(avg(p1), 2) AS pass_at_1, round(avg(p3), 2) AS pass_at_3 \
         FROM (SELECT q.method, q.rewrites, pass_at_k(e.correct, 1) AS p1, pass_at_k(e.correct, 3) AS p3 \
               FROM evaluations e JOIN current_qa q ON q.qa_id = e.qa_id GROUP BY q.qa_id, q.method, q.rewrites) \
         GROUP BY method, rewrites ORDER BY method, rewrites",
    ),
    (
        "From one page to one accepted trajectory",
        "SELECT p.title AS page, q.question, q.answer, t.n_tool_calls AS calls, r.reward \
         FROM (SELECT qa_id, question, answer, unnest(evidence_page_digests) AS digest FROM current_qa) q \
         JOIN pages p ON p.digest = q.digest JOIN sft_pool t ON t.qa_id = q.qa_id \
         JOIN current_rewards r ON r.trajectory_id = t.trajectory_id ORDER BY p.title, q.question, t.trajectory_id LIMIT 3",
    ),
];

/// The query and its rows, on standard error.
pub(super) async fn show(engine: &QueryEngine, title: &str, query: &str, quiet: bool) -> Result<(), Failure> {
    let shown: Box<dyn std::io::Write + Send> =
        if quiet { Box::new(std::io::sink()) } else { Box::new(output::AboveBars) };
    if !quiet {
        output::note(&format!("\n   {title}\n   {}", query.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    let rows = sql::answer(engine, query, &QueryOptions::default(), Format::Table, shown).await?;
    match rows.rows {
        0 => Err(Failure::failed(format!("the demo's query gave no rows: {query}"))),
        _ => Ok(()),
    }
}
