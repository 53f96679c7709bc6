//! Which questions a closed web can answer: those whose evidence it holds.
//!
//! A question names the pages that it rests on by the digests of their texts, which do not depend on where they are
//! served. So questions about one world are told from those about another by the pages alone.

use std::collections::HashSet;

use crate::columns::{query, strings};
use crate::context::Context;
use crate::failure::Failure;

/// What a web holds, where that is known.
#[derive(Debug)]
pub(crate) struct WebTexts(Option<HashSet<String>>);

/// A column of questions for [`WebTexts::hold`]: the digests of a question's evidence, with spaces between.
pub(crate) const EVIDENCE: &str = "array_to_string(evidence_page_digests, ' ')";

impl WebTexts {
    /// The texts of a web, as a plan of acting names it. Not known of a web that is live or recorded, nor of a pin
    /// without digests.
    pub(crate) async fn of(context: &Context, web: &str) -> Result<WebTexts, Failure> {
        let Some(("closed", pin)) = web.split_once(':') else { return Ok(WebTexts(None)) };
        let first = query(context, &format!("SELECT * FROM pin('{pin}') LIMIT 1")).await?;
        if first.first().is_none_or(|batch| batch.column_by_name("digest").is_none()) {
            return Ok(WebTexts(None));
        }
        let mut texts = HashSet::new();
        for batch in &query(context, &format!("SELECT digest FROM pin('{pin}') WHERE digest IS NOT NULL")).await? {
            texts.extend(strings(batch, "digest")?.iter().flatten().map(str::to_string));
        }
        Ok(WebTexts(Some(texts)))
    }

    /// Whether the web has all the evidence of a question, as far as both are known.
    pub(crate) fn hold(&self, evidence: &str) -> bool {
        let Some(texts) = &self.0 else { return true };
        evidence.split_whitespace().all(|digest| texts.contains(digest))
    }
}
