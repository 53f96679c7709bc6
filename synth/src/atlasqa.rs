//! Questions about an atlas, without any model: CRAWLQA and E2HQA whose answers can be proved.
//!
//! Data flow: [`candidates`] lists what can be asked of a world as [`form`]s, expressions over the table of countries;
//! [`facts`] finds the one answer of a form, [`wording`] its English, [`plan`] the look-ups that find the answer by
//! search and visit. An [`Author`] keeps a form only if the plan, followed over the text of the [`pages`], gives the
//! table's answer. [`crawlqa`] selects by type and seed; a [`Rewriter`] replaces entities by descriptions (E2HQA);
//! [`events`] appends both.

mod author;
mod candidates;
mod catalogue;
pub mod events;
pub mod facts;
pub mod form;
pub mod pages;
pub mod plan;
pub mod reading;
mod rewriting;
mod selection;
pub mod wording;

pub use author::{Author, EVIDENCE_MAX, QUESTION_CHARS_MAX, Question, REAL, Unfit, qa_id};
pub use candidates::candidates;
pub use pages::{Evidence, PageError, Pages};
pub use plan::Plan;
pub use rewriting::{Chain, REWRITES_MAX, RewriteStep, Rewriter, Stop};
pub use selection::{Selection, Tally, crawlqa};
pub(crate) use selection::{below, shuffle};
