//! Pages, questions and their rewriting.

use crate::column::JsonText;
use crate::row::row;

row! {
    /// A page fetched by a crawl or a visit: raw material of CRAWLQA and of the closed web.
    Page by url {
        /// Canonical URL that was asked for.
        url: String,
        /// URL after redirects.
        final_url: String,
        /// URL the crawl started from.
        root_url: String,
        /// Links followed from the root; 0 is the root itself.
        depth: i32,
        /// HTTP status.
        status: i32,
        /// Media type without parameters, lower case.
        content_type: Option<String>,
        /// Title of the page.
        title: Option<String>,
        /// Main text as Markdown.
        text: Option<String>,
        /// Canonical URLs the page links to, in order, without repeats.
        #[serde(default)]
        links: Vec<String>,
        /// SHA-256 of the main text, hex: equal for equal content.
        digest: Option<String>,
        /// ISO 639-3 code of the main text's language, where it can be told.
        language: Option<String>,
        /// Milliseconds from request to the last byte.
        fetch_ms: Option<i64>,
        /// Why there is no text: time-out, too large, robots, unsupported type.
        error: Option<String>,
    }
}

row! {
    /// A question with its answer and where both came from.
    Qa by qa_id {
        /// Id of the question.
        qa_id: String,
        /// `crawlqa`, `e2hqa`, `benchmark` or `import`.
        method: String,
        /// The question.
        question: String,
        /// The gold answer.
        answer: String,
        /// Question type, such as count, multi-hop, intersection (paper section 2.1; Mintaka's types).
        #[serde(rename = "type")]
        r#type: Option<String>,
        /// ISO 639 code of the question's language.
        language: Option<String>,
        /// E2HQA rewrites so far: the difficulty.
        rewrites: Option<i32>,
        /// Entities from the root question's to the present one.
        #[serde(default)]
        entity_chain: Vec<String>,
        /// Digests of the pages the pair was made from.
        #[serde(default)]
        evidence_page_digests: Vec<String>,
        /// The question this one was rewritten from.
        parent_qa_id: Option<String>,
        /// Model or program that wrote it.
        generator: Option<String>,
        /// Fields of the imported file that have no column, such as tag or difficulty.
        attributes: Option<JsonText>,
    }
}

row! {
    /// One E2HQA step (paper section 2.1): an entity of the question replaced by a description of it.
    Rewrite by qa_id {
        /// The question that the step made.
        qa_id: String,
        /// Step, from 1.
        step: i32,
        /// Entity that was replaced.
        entity: String,
        /// Search query built for the entity.
        query: Option<String>,
        /// Digests of the pages that the description rests on.
        #[serde(default)]
        evidence_page_digests: Vec<String>,
        /// Description that replaces the entity.
        description: String,
        /// The question after the step.
        new_question: String,
        /// Whether the answer was checked to be unchanged.
        invariant: Option<bool>,
    }
}
