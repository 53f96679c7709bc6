//! What of the web differed between two runs, as their calls recorded it: whatever a page's excerpt showed, its digest is of
//! all of it.

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::DataType;
use serde::Serialize;
use webdancer_query::literal;

use crate::attempts::{RowsError, as_type, integers};

/// What both runs asked the web for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Shared {
    /// Asked for by both.
    pub common: u64,
    /// Of these, what no two calls of the two runs were given alike.
    pub changed: u64,
}

/// What of the web is known to differ between two runs. Nothing of trajectories without digests of what their calls read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct WebChange {
    /// Pages, by URL: the same where the digest of the text is.
    pub pages: Shared,
    /// Searches, by the arguments as written: the same where the results are, in their order.
    pub searches: Shared,
}

/// The query for what of the web differed from one run to another. A search that found nothing has no digests: it counts
/// where other calls of its trajectory have some.
pub fn sql(before: &str, after: &str) -> String {
    let (before, after) = (literal::text(before), literal::text(after));
    let counted = |of: &str| {
        format!(
            "SELECT count(DISTINCT a.asked) AS common, count(DISTINCT a.asked) FILTER (WHERE a.given = b.given) AS alike \
             FROM {of} AS a JOIN {of} AS b ON a.asked = b.asked WHERE a.run_id = {before} AND b.run_id = {after}"
        )
    };
    format!(
        "WITH calls AS ( \
           SELECT run_id, tool, arguments, source_urls, source_digests, outcome FROM tool_calls \
           WHERE run_id IN ({before}, {after}) AND trajectory_id IN ( \
             SELECT trajectory_id FROM trajectories \
             WHERE run_id IN ({before}, {after}) AND turn_source_digests IS NOT NULL) \
         ), pages AS ( \
           SELECT DISTINCT run_id, asked, given FROM ( \
             SELECT run_id, unnest(source_urls) AS asked, unnest(source_digests) AS given FROM calls WHERE tool = 'visit') \
         ), searches AS ( \
           SELECT DISTINCT run_id, arguments AS asked, coalesce(array_to_string(source_digests, ' '), '') AS given \
           FROM calls WHERE tool = 'search' AND outcome = 'done' \
         ) \
         SELECT p.common AS pages, p.alike AS pages_alike, s.common AS searches, s.alike AS searches_alike \
         FROM ({}) AS p CROSS JOIN ({}) AS s",
        counted("pages"),
        counted("searches")
    )
}

/// What the row of [`sql`] says.
///
/// # Errors
/// A column is missing or of another type.
pub fn read(batches: &[RecordBatch]) -> Result<WebChange, RowsError> {
    let Some(batch) = batches.iter().find(|batch| batch.num_rows() > 0) else { return Ok(WebChange::default()) };
    let count = |name| -> Result<u64, RowsError> {
        let column: Int64Array = integers(&as_type(batch, name, &DataType::Int64)?, name)?;
        Ok(u64::try_from(column.value(0)).unwrap_or(0))
    };
    let shared = |common, alike| -> Result<Shared, RowsError> {
        let (common, alike) = (count(common)?, count(alike)?);
        Ok(Shared { common, changed: common.saturating_sub(alike) })
    };
    Ok(WebChange { pages: shared("pages", "pages_alike")?, searches: shared("searches", "searches_alike")? })
}

impl WebChange {
    /// In a sentence; None where both runs read and searched nothing in common.
    pub fn sentence(&self) -> Option<String> {
        let told = |Shared { common, changed }: Shared, what: &str, how: &str| {
            (common > 0).then(|| format!("{changed} of {common} {what} {how}"))
        };
        let pages = told(self.pages, "pages that both runs read", "had changed");
        let searches = told(self.searches, "searches that both made", "found something else");
        let both: Vec<String> = pages.into_iter().chain(searches).collect();
        (!both.is_empty()).then(|| format!("The web between them: {}.", both.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_both_runs_asked_for_is_told_in_a_sentence() {
        let mut change =
            WebChange { pages: Shared { common: 12, changed: 3 }, searches: Shared { common: 5, changed: 0 } };
        assert_eq!(
            change.sentence().unwrap(),
            "The web between them: 3 of 12 pages that both runs read had changed; 0 of 5 searches that both made found \
             something else."
        );
        change.pages = Shared::default();
        assert_eq!(
            change.sentence().unwrap(),
            "The web between them: 0 of 5 searches that both made found something else."
        );
        assert_eq!(WebChange::default().sentence(), None);
    }
}
