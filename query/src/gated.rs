//! Rows of gated benchmarks, left out of what a reader without the right to them may query.
//!
//! The tables themselves are narrowed, so that views, `at(…)` and joins have no way around it. A question is gated where one
//! of its rows says so, whichever; a trajectory where it says so, and where its question does, whoever recorded it; a verdict,
//! where its trajectory is or it says so. What says so is read as it is now, whatever version the rows are of. A pin is
//! narrowed by the same rule where its rows have the columns for it, and refused where they may be gated and do not say.

use datafusion::arrow::datatypes::{DataType, Schema};
use webdancer_schemas::kind::Kind;

/// The name under which the rows that are to be narrowed stand, a table's or a pin's. Those that tell of them have their own:
/// an older version of `qa` is narrowed by `qa` as it is now.
pub(crate) const NARROWED: &str = "narrowed";

/// That a column of JSON says of its row that it is gated. The inner CASE keeps the JSON of all others from being read.
macro_rules! says_so {
    ($column:literal) => {
        concat!(
            "coalesce(CASE WHEN strpos(",
            $column,
            ", '\"restricted\"') > 0 THEN json_get_bool(",
            $column,
            ", 'restricted') END, false)"
        )
    };
}

/// The questions that are gated, as SQL over `qa`: a column `qa_id`, each once. What of a question was told in several rows is
/// gated if one of them says so.
pub const QUESTIONS: &str = concat!("SELECT DISTINCT qa_id FROM qa WHERE ", says_so!("attributes"));

/// What joins the [gated questions](QUESTIONS) to rows of an alias with a `qa_id`: `g.qa_id` is null where theirs is open.
pub fn joined_to(alias: &str) -> String {
    format!("LEFT JOIN ({QUESTIONS}) AS g ON g.qa_id = {alias}.qa_id")
}

/// The condition that the question of an alias's `qa_id` is open.
pub fn is_open(alias: &str) -> String {
    format!("NOT EXISTS (SELECT g.qa_id FROM ({QUESTIONS}) AS g WHERE g.qa_id = {alias}.qa_id)")
}

/// The trajectories that are gated, as SQL over `trajectories` and `qa`: a column `trajectory_id`, each once.
pub(crate) fn trajectories() -> String {
    let join = joined_to("t");
    format!("SELECT DISTINCT t.trajectory_id FROM trajectories AS t {join} WHERE t.restricted OR g.qa_id IS NOT NULL")
}

/// What is left of a table for such a reader, as SQL over [its rows](NARROWED) and the tables that [tell](told_by) of it; None
/// where all of it is.
pub(crate) fn of_table(kind: Kind) -> Option<String> {
    let of_questions = |says_so: &str| {
        format!(
            "SELECT t.* FROM {NARROWED} AS t LEFT ANTI JOIN ({QUESTIONS}) AS q ON q.qa_id = t.qa_id WHERE NOT {says_so}"
        )
    };
    Some(match kind {
        Kind::Trajectory => of_questions("coalesce(t.restricted, false)"),
        Kind::Qa => of_questions(says_so!("t.attributes")),
        // A judge's reasons repeat the answer. One table may be ahead of the other: then the judgment itself says it.
        Kind::Judgment => format!(
            "SELECT j.* FROM {NARROWED} AS j LEFT ANTI JOIN ({}) AS r ON r.trajectory_id = j.trajectory_id WHERE NOT {}",
            trajectories(),
            says_so!("j.criteria")
        ),
        // Raw bytes of whatever was rejected.
        Kind::DeadLetter => format!("SELECT * FROM {NARROWED} WHERE false"),
        _ => return None,
    })
}

/// The tables that say which rows of a table are gated.
pub(crate) fn told_by(kind: Kind) -> &'static [Kind] {
    match kind {
        Kind::Trajectory | Kind::Qa => &[Kind::Qa],
        Kind::Judgment => &[Kind::Trajectory, Kind::Qa],
        _ => &[],
    }
}

/// The rows of a table that must not be among those that a pin was made of, as SQL over [them](NARROWED) and what tells of
/// them: what is left is harmless, or the pin's rows say of themselves what it is. None where all of it is either.
///
/// A question's attributes tell nothing of an attempt, and nothing tells of raw bytes. The flag of an attempt tells of the
/// attempt alone: of its question tells its `qa_id`, and of a verdict on it both together.
pub(crate) fn untold(schema: &Schema, table: Kind) -> Option<String> {
    let unless_silent = |says_so: &str| {
        Some(format!("SELECT t.* FROM {NARROWED} AS t {} WHERE {says_so} OR g.qa_id IS NULL", joined_to("t")))
    };
    let (is_flagged, is_asked) = (is_flagged(schema), has_text(schema, "qa_id"));
    match table {
        Kind::Trajectory | Kind::Qa | Kind::Judgment if is_flagged && is_asked => None,
        Kind::Trajectory if is_flagged => unless_silent("t.restricted"),
        Kind::Qa if has_text(schema, "attributes") && is_asked => None,
        Kind::Qa if has_text(schema, "attributes") => unless_silent(says_so!("t.attributes")),
        Kind::Judgment if is_judged(schema) => None,
        table => of_table(table),
    }
}

fn is_flagged(schema: &Schema) -> bool {
    schema.field_with_name("restricted").is_ok_and(|field| *field.data_type() == DataType::Boolean)
}

/// Whether rows name a trajectory beside what was judged of it.
fn is_judged(schema: &Schema) -> bool {
    has_text(schema, "criteria") && has_text(schema, "trajectory_id")
}

fn has_text(schema: &Schema, name: &str) -> bool {
    schema.field_with_name(name).is_ok_and(|field| *field.data_type() == DataType::Utf8)
}

/// What is left of a pin's rows, as SQL over [them](NARROWED), `trajectories` and `qa`; None where they have no column that
/// tells.
pub(crate) fn of_pin(schema: &Schema) -> Option<String> {
    let (told, silent) = (told_of(schema), silent(schema));
    if told.is_empty() && silent.is_none() {
        return None;
    }
    let joins: String = told.iter().map(|told| format!(" LEFT ANTI JOIN {told}")).collect();
    Some(format!("SELECT p.* FROM {NARROWED} AS p{joins} WHERE {}", silent.as_deref().unwrap_or("true")))
}

/// The rows of a pin that are gated by their question or their trajectory and do not say so, as SQL: exports, which go by what
/// rows say of themselves, must not have any. None where there is no telling. `pinned` is what the rows are selected from.
pub(crate) fn unsaid(schema: &Schema, pinned: &str) -> Option<String> {
    let told = told_of(schema);
    if told.is_empty() {
        return None;
    }
    let joins: String = told.iter().map(|told| format!(" LEFT JOIN {told}")).collect();
    let is_gated: Vec<String> = told.iter().map(|told| format!("{}.id IS NOT NULL", told.alias)).collect();
    let silent = silent(schema).unwrap_or_else(|| "true".to_string());
    Some(format!("SELECT 1 AS one FROM {pinned} AS p{joins} WHERE ({}) AND {silent}", is_gated.join(" OR ")))
}

/// Gated ids, joined to the rows `p` of a pin by a column of theirs.
struct Told {
    alias: &'static str,
    /// SQL with a column `id`, each once.
    ids: String,
    /// What of a row is such an id.
    key: &'static str,
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Told { alias, ids, key } = self;
        write!(f, "({ids}) AS {alias} ON {alias}.id = {key}")
    }
}

/// What tells of a pin's rows by their ids.
fn told_of(schema: &Schema) -> Vec<Told> {
    let ids = format!("SELECT qa_id AS id FROM ({QUESTIONS})");
    let asked = has_text(schema, "qa_id").then(|| match is_flagged(schema) {
        // A question without an attempt, or a verdict ahead of its trajectory, has neither flag nor id where they are joined to
        // it: what may be gated and cannot tell is taken for gated.
        true => Told {
            alias: "q",
            ids: format!("{ids} UNION SELECT '' AS id FROM ({QUESTIONS})"),
            key: "coalesce(p.qa_id, '')",
        },
        false => Told { alias: "q", ids, key: "p.qa_id" },
    });
    let judged = is_judged(schema).then(|| Told {
        alias: "j",
        ids: format!("SELECT trajectory_id AS id FROM ({})", trajectories()),
        key: "p.trajectory_id",
    });
    asked.into_iter().chain(judged).collect()
}

/// That a row `p` of a pin does not say that it is gated; None where rows say nothing.
fn silent(schema: &Schema) -> Option<String> {
    let flag = is_flagged(schema).then_some("NOT coalesce(p.restricted, false)");
    let attributes = has_text(schema, "attributes").then_some(concat!("NOT ", says_so!("p.attributes")));
    let criteria = has_text(schema, "criteria").then_some(concat!("NOT ", says_so!("p.criteria")));
    let conditions: Vec<&str> = flag.into_iter().chain(attributes).chain(criteria).collect();
    (!conditions.is_empty()).then(|| conditions.join(" AND "))
}
