//! Rows of gated benchmarks, left out of what a reader without the right to them may query.
//!
//! The tables themselves are narrowed, so that views, `at(…)` and joins have no way around it. A pin is narrowed where its
//! rows say of themselves that they are restricted, by the rule of exports, and refused where they may be and do not say.

use datafusion::arrow::datatypes::{DataType, Schema};
use webdancer_schemas::kind::Kind;

/// The name under which a pin's rows stand in [`of_pin`].
pub(crate) const PINNED: &str = "pinned";

/// What is left of a table for such a reader, as SQL over it; None where all of it is. The judgments' statement reads
/// `trajectories`, too.
pub(crate) fn of_table(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Trajectory => Some("SELECT * FROM trajectories WHERE NOT coalesce(restricted, false)"),
        Kind::Qa => Some("SELECT * FROM qa WHERE NOT coalesce(json_get_bool(attributes, 'restricted'), false)"),
        // A judge's reasons repeat the answer. One table may be ahead of the other: then the judgment itself says it. The
        // inner CASE keeps the JSON of all others from being read.
        Kind::Judgment => Some(
            "SELECT j.* FROM judgments AS j LEFT ANTI JOIN (SELECT trajectory_id FROM trajectories WHERE restricted) AS g \
             ON g.trajectory_id = j.trajectory_id \
             WHERE NOT coalesce(CASE WHEN strpos(j.criteria, '\"restricted\"') > 0 \
               THEN json_get_bool(j.criteria, 'restricted') END, false)",
        ),
        // Raw bytes of whatever was rejected.
        Kind::DeadLetter => Some("SELECT * FROM dead_letters WHERE false"),
        _ => None,
    }
}

/// Whether the rows of a pin say of themselves which came from gated ones of this table. A question's attributes tell
/// nothing of an attempt, and nothing tells of raw bytes.
pub(crate) fn is_told(schema: &Schema, table: Kind) -> bool {
    match table {
        Kind::Trajectory | Kind::Judgment => is_flagged(schema),
        Kind::Qa => is_flagged(schema) || has_attributes(schema),
        table => of_table(table).is_none(),
    }
}

fn is_flagged(schema: &Schema) -> bool {
    schema.field_with_name("restricted").is_ok_and(|field| *field.data_type() == DataType::Boolean)
}

fn has_attributes(schema: &Schema) -> bool {
    schema.field_with_name("attributes").is_ok_and(|field| *field.data_type() == DataType::Utf8)
}

/// What is left of a pin's rows; None where they have no column that tells.
pub(crate) fn of_pin(schema: &Schema) -> Option<String> {
    let flagged = is_flagged(schema).then_some("NOT coalesce(restricted, false)");
    let attributes = has_attributes(schema).then_some("NOT coalesce(json_get_bool(attributes, 'restricted'), false)");
    let conditions: Vec<&str> = flagged.into_iter().chain(attributes).collect();
    (!conditions.is_empty()).then(|| format!("SELECT * FROM {PINNED} WHERE {}", conditions.join(" AND ")))
}
