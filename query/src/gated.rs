//! Rows of gated benchmarks, left out of what a reader without the right to them may query.
//!
//! The tables themselves are narrowed, so that views, `at(…)` and joins have no way around it. A trajectory is gated where it
//! says so, and where its question does, whoever recorded it; a verdict, where its trajectory is or it says so. What says so
//! is read as it is now, whatever version the rows are of. A pin is narrowed by the same rule where its rows have the columns
//! for it, and refused where they may be gated and do not say.

use datafusion::arrow::datatypes::{DataType, Schema};
use webdancer_schemas::kind::Kind;

/// The name under which a pin's rows stand in [`of_pin`].
pub(crate) const PINNED: &str = "pinned";

/// The questions that are gated, as SQL over `qa`: a column `qa_id`, each once. What of a question was told in several rows is
/// gated if one of them says so.
// The inner CASE keeps the JSON of all others from being read.
pub const QUESTIONS: &str = "SELECT DISTINCT qa_id FROM qa WHERE coalesce(CASE WHEN strpos(attributes, '\"restricted\"') > 0 \
    THEN json_get_bool(attributes, 'restricted') END, false)";

/// What is left of a table for such a reader, as SQL over it and those that [tell](told_by) of it; None where all of it is.
pub(crate) fn of_table(kind: Kind) -> Option<String> {
    Some(match kind {
        Kind::Trajectory => format!(
            "SELECT t.* FROM trajectories AS t LEFT ANTI JOIN ({QUESTIONS}) AS q ON q.qa_id = t.qa_id \
             WHERE NOT coalesce(t.restricted, false)"
        ),
        Kind::Qa => "SELECT * FROM qa WHERE NOT coalesce(json_get_bool(attributes, 'restricted'), false)".to_string(),
        // A judge's reasons repeat the answer. One table may be ahead of the other: then the judgment itself says it. The
        // inner CASE keeps the JSON of all others from being read.
        Kind::Judgment => format!(
            "SELECT j.* FROM judgments AS j LEFT ANTI JOIN \
               (SELECT t.trajectory_id FROM trajectories AS t LEFT JOIN ({QUESTIONS}) AS q ON q.qa_id = t.qa_id \
                WHERE t.restricted OR q.qa_id IS NOT NULL) AS g \
             ON g.trajectory_id = j.trajectory_id \
             WHERE NOT coalesce(CASE WHEN strpos(j.criteria, '\"restricted\"') > 0 \
               THEN json_get_bool(j.criteria, 'restricted') END, false)"
        ),
        // Raw bytes of whatever was rejected.
        Kind::DeadLetter => "SELECT * FROM dead_letters WHERE false".to_string(),
        _ => return None,
    })
}

/// The other tables that say which rows of a table are gated.
pub(crate) fn told_by(kind: Kind) -> &'static [Kind] {
    match kind {
        Kind::Trajectory => &[Kind::Qa],
        Kind::Judgment => &[Kind::Trajectory, Kind::Qa],
        _ => &[],
    }
}

/// The rows of a table that must not be among those that a pin was made of, as SQL over the table: what is left is harmless,
/// or the pin's rows say of themselves what it is. None where all of it is either.
///
/// A question's attributes tell nothing of an attempt, and nothing tells of raw bytes. The flag of an attempt tells of the
/// attempt alone: of its question tells its `qa_id`.
pub(crate) fn untold(schema: &Schema, table: Kind) -> Option<String> {
    match table {
        Kind::Trajectory if is_flagged(schema) && has_text(schema, "qa_id") => None,
        Kind::Trajectory if is_flagged(schema) => Some(format!(
            "SELECT t.* FROM trajectories AS t LEFT JOIN ({QUESTIONS}) AS q ON q.qa_id = t.qa_id \
             WHERE t.restricted OR q.qa_id IS NULL"
        )),
        Kind::Judgment if is_flagged(schema) => None,
        Kind::Qa if is_flagged(schema) || has_text(schema, "attributes") => None,
        table => of_table(table),
    }
}

fn is_flagged(schema: &Schema) -> bool {
    schema.field_with_name("restricted").is_ok_and(|field| *field.data_type() == DataType::Boolean)
}

fn has_text(schema: &Schema, name: &str) -> bool {
    schema.field_with_name(name).is_ok_and(|field| *field.data_type() == DataType::Utf8)
}

/// What is left of a pin's rows, as SQL over them and `qa`; None where they have no column that tells.
pub(crate) fn of_pin(schema: &Schema) -> Option<String> {
    let asked = has_text(schema, "qa_id");
    let join = if asked { format!(" LEFT ANTI JOIN ({QUESTIONS}) AS q ON q.qa_id = p.qa_id") } else { String::new() };
    let says_nothing = said_by(schema);
    let condition = says_nothing.as_ref().map(|nothing| format!(" WHERE {nothing}")).unwrap_or_default();
    (asked || says_nothing.is_some()).then(|| format!("SELECT p.* FROM {PINNED} AS p{join}{condition}"))
}

/// The rows of a pin that are gated by their question and do not say so, as SQL over `qa`: exports, which go by what rows say
/// of themselves, must not have any. None where there is no telling. `pinned` is what the rows are selected from.
pub(crate) fn unsaid(schema: &Schema, pinned: &str) -> Option<String> {
    let condition = said_by(schema).map(|nothing| format!(" WHERE {nothing}")).unwrap_or_default();
    has_text(schema, "qa_id").then(|| {
        format!("SELECT p.qa_id FROM {pinned} AS p LEFT SEMI JOIN ({QUESTIONS}) AS q ON q.qa_id = p.qa_id{condition}")
    })
}

/// That a row `p` of a pin does not say that it is gated; None where rows say nothing.
fn said_by(schema: &Schema) -> Option<String> {
    let flagged = is_flagged(schema).then_some("NOT coalesce(p.restricted, false)");
    let attributes =
        has_text(schema, "attributes").then_some("NOT coalesce(json_get_bool(p.attributes, 'restricted'), false)");
    let conditions: Vec<&str> = flagged.into_iter().chain(attributes).collect();
    (!conditions.is_empty()).then(|| conditions.join(" AND "))
}
