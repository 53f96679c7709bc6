//! What the funnel is to look at: SQL.
//!
//! Narrow columns decide which trajectories are due; only theirs are read whole.

use arrow::array::AsArray as _;
use arrow::datatypes::Int64Type;
use webdancer_query::{QueryEngine, QueryOptions, literal};
use webdancer_synth::funnel::{COLUMNS, Funnel, OBSERVATIONS, SOURCE, Stage, StageRules};

use super::versions::{Version, Versions};
use crate::failure::Failure;

/// How many trajectories are due.
pub(super) fn count(funnel: &Funnel, versions: &Versions) -> String {
    format!("{} SELECT count(*) FROM due", with_due(funnel, versions))
}

/// The trajectories that are due, with what is known of them: what [`webdancer_synth::funnel::Attempts`] reads.
pub(super) fn rows(funnel: &Funnel, versions: &Versions) -> String {
    let observations = funnel.reads_observations().then_some(OBSERVATIONS);
    let columns = COLUMNS.into_iter().chain(observations).map(|column| format!("t.{column}"));
    let (opinions, opinion) = match funnel.critic_digest().filter(|_| funnel.asks(Stage::Quality)) {
        None => (String::new(), ""),
        Some(digest) => (
            // Opinions are kept when other parameters of the stage change.
            format!(
                ", opinions AS (SELECT trajectory_id, \
                   last_value(json_get_json(criteria, 'opinion') ORDER BY event_time, event_id) AS opinion \
                 FROM judgments \
                 WHERE stage = 'quality' AND json_get_str(criteria, 'opinion', 'digest') = {} \
                 GROUP BY trajectory_id)",
                literal::text(digest)
            ),
            ", o.opinion",
        ),
    };
    let join = if opinion.is_empty() { "" } else { "LEFT JOIN opinions AS o ON o.trajectory_id = d.trajectory_id" };
    format!(
        "{}{opinions} \
         SELECT {}, coalesce(d.question, t.question) AS question, d.gold, d.golds, d.validity, d.correctness, d.quality, \
           d.correctness_errors, d.correctness_verdicts, d.quality_errors{opinion} \
         FROM due AS d {join} JOIN trajectories AS t ON t.event_id = d.event_id AND t.source = d.source",
        with_due(funnel, versions),
        columns.collect::<Vec<_>>().join(", "),
    )
}

/// Valid trajectories whose correctness nobody can judge, for want of a gold answer.
pub(super) const WITHOUT_GOLD: &str = "SELECT count(*) FROM funnel AS f LEFT ANTI JOIN qa AS q ON q.qa_id = f.qa_id \
    WHERE f.validity = 'pass' AND f.correctness IS NULL AND NOT f.restricted";

/// Which trajectories are due. Benchmarks are evaluated, not trained on: they and gated questions are left out.
///
/// A verdict need not be given again if it is an override; or of the version that the stage's rules have; or if it holds,
/// where somebody else gave it under as high a version, or the stage is not asked for. One of correctness only if the
/// gold answer is still the one it was judged by.
fn with_due(funnel: &Funnel, versions: &Versions) -> String {
    let [correctness, quality] = [Stage::Correctness, Stage::Quality].map(|stage| judged_by(versions, stage));
    let any = Stage::ALL.map(|stage| judged_by(versions, stage)).join(" OR ");
    let held = Stage::ALL.into_iter().filter(|stage| versions.of(*stage) == Version::Held);
    let held: String = held.map(|stage| format!(" OR stage = '{stage}'")).collect();
    let foreign = funnel.rules_asked().map(|rules| {
        let StageRules { stage, version, .. } = rules;
        format!(" OR (source <> '{SOURCE}' AND stage = '{stage}' AND rule_version >= {version})")
    });
    let foreign: String = foreign.collect();
    format!(
        "WITH questions AS (
            SELECT qa_id, method, question, answer AS gold, json_get_json(attributes, 'answers') AS golds,
                left(encode(sha256(concat(answer, chr(10), json_get_json(attributes, 'answers'))), 'hex'), 16)
                    AS gold_digest
            FROM current_qa
        ),
        verdicts AS (
            SELECT trajectory_id, stage, verdict, json_get_str(criteria, 'gold') AS gold, overridden, rule_version,
                event_time, event_id
            FROM current_judgments
            WHERE verdict <> 'error' AND (overridden{held}{foreign})
            UNION ALL
            SELECT trajectory_id, stage, verdict, json_get_str(criteria, 'gold') AS gold, false AS overridden,
                rule_version, event_time, event_id
            FROM judgments
            WHERE verdict <> 'error' AND ({any})
        ),
        latest AS (
            SELECT *, row_number() OVER (
                PARTITION BY trajectory_id, stage
                ORDER BY overridden DESC, CASE WHEN overridden THEN 0 ELSE rule_version END DESC, event_time DESC,
                    event_id DESC) AS position
            FROM verdicts
        ),
        known AS (
            SELECT trajectory_id,
                max(CASE WHEN stage = 'validity' THEN verdict END) AS validity,
                max(CASE WHEN stage = 'correctness' THEN verdict END) AS correctness,
                max(CASE WHEN stage = 'correctness' AND NOT overridden THEN gold END) AS gold_digest,
                max(CASE WHEN stage = 'quality' THEN verdict END) AS quality
            FROM latest
            WHERE position = 1
            GROUP BY trajectory_id
        ),
        given AS (
            SELECT trajectory_id,
                count(*) FILTER (WHERE verdict = 'error' AND {correctness}) AS correctness_errors,
                count(*) FILTER (WHERE verdict <> 'error' AND {correctness}) AS correctness_verdicts,
                count(*) FILTER (WHERE verdict = 'error' AND {quality}) AS quality_errors
            FROM judgments
            WHERE {correctness} OR {quality}
            GROUP BY trajectory_id
        ),
        candidates AS (
            SELECT t.trajectory_id, t.event_id, t.source, coalesce(trim(t.answer), '') <> '' AS answered,
                q.question, q.gold, q.golds, k.validity,
                CASE WHEN coalesce(k.gold_digest = q.gold_digest, true) THEN k.correctness END AS correctness,
                k.quality, g.correctness_errors, g.correctness_verdicts, g.quality_errors
            FROM current_trajectories AS t
            LEFT JOIN questions AS q ON q.qa_id = t.qa_id
            LEFT JOIN known AS k ON k.trajectory_id = t.trajectory_id
            LEFT JOIN given AS g ON g.trajectory_id = t.trajectory_id
            WHERE NOT coalesce(t.restricted, false) AND (q.method IS DISTINCT FROM 'benchmark')
        ),
        due AS (SELECT * FROM candidates WHERE {due})",
        due = due(funnel),
    )
}

/// Whether a judgment was given by the rules that a stage has in this run.
fn judged_by(versions: &Versions, stage: Stage) -> String {
    match versions.of(stage) {
        Version::Has(version) => format!("(source = '{SOURCE}' AND stage = '{stage}' AND rule_version = {version})"),
        Version::Held | Version::New => "false".to_string(),
    }
}

/// What is due at any of the stages asked for. A verdict that a stage is still to give may be a pass.
fn due(funnel: &Funnel) -> String {
    let may_pass = |stage: Stage| match funnel.asks(stage) {
        true => format!("({stage} = 'pass' OR {stage} IS NULL)"),
        false => format!("{stage} = 'pass'"),
    };
    let (valid, correct) = (may_pass(Stage::Validity), may_pass(Stage::Correctness));
    let judged_anyway = if funnel.asks_of_invalid() { " OR (answered AND validity = 'fail')" } else { "" };
    let parts = Stage::ALL.into_iter().filter(|stage| funnel.asks(*stage)).map(|stage| match stage {
        Stage::Validity => "validity IS NULL".to_string(),
        Stage::Correctness => format!("(correctness IS NULL AND gold IS NOT NULL AND ({valid}{judged_anyway}))"),
        Stage::Quality => {
            format!("(quality IS NULL AND {valid} AND {correct} AND (correctness IS NOT NULL OR gold IS NOT NULL))")
        }
    });
    parts.collect::<Vec<_>>().join(" OR ")
}

/// The one number that a query gives.
pub(super) async fn number(engine: &QueryEngine, sql: &str) -> Result<i64, Failure> {
    let batches = engine.query(sql, &QueryOptions::default()).await?.read_all().await?;
    let number = batches.first().and_then(|batch| {
        let column = arrow::compute::cast(batch.columns().first()?, &arrow::datatypes::DataType::Int64).ok()?;
        column.as_primitive_opt::<Int64Type>()?.values().first().copied()
    });
    Ok(number.unwrap_or(0))
}
