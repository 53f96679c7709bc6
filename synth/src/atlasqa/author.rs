//! From a form to a question that is fit to be asked.
//!
//! A form becomes a question only if the table gives it exactly one answer, it has clear words that do not hold the
//! answer, and its plan, followed over the text of the pages, finds that very answer. So every question can be answered
//! by reading pages, and its evidence is what was read.

use super::facts::{Answer, Facts};
use super::form::Form;
use super::pages::{Evidence, Pages, Reader};
use super::plan::Plan;
use super::wording::Wording;
use crate::atlas::{Atlas, Entity};
use crate::question::{QuestionType, leaks};
use webdancer_agent::published;

/// Most articles that a plan may read: more would be a test of patience.
pub const EVIDENCE_MAX: usize = 12;
/// Longest question, in characters.
pub const QUESTION_CHARS_MAX: usize = 400;

/// A question with its answer and how to find it.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Its id; see [`qa_id`].
    pub qa_id: String,
    /// Its type.
    pub kind: QuestionType,
    /// Its text.
    pub text: String,
    /// The answer: a name, a number in digits, yes or no.
    pub answer: String,
    /// What it asks.
    pub form: Form,
    /// How to find the answer.
    pub plan: Plan,
    /// The pages that the plan reads, in order.
    pub evidence: Vec<Evidence>,
}

/// Why a form is no question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unfit {
    /// The table gives no answer, or several.
    NoUniqueAnswer,
    /// The answer's name is that of another entity too.
    AmbiguousAnswer,
    /// There are no clear words for it.
    NoClearWords,
    /// It is longer than [`QUESTION_CHARS_MAX`].
    TooLong,
    /// The answer stands in the question.
    Leak,
    /// No articles lead to the answer, or more than [`EVIDENCE_MAX`] would have to be read.
    NoPlan,
    /// The pages do not say what the table says.
    NotInPages,
}

/// The id of a question: of its text alone for the real countries; in an invented world also of the world, since the
/// same words ask something else there.
pub fn qa_id(world: &str, question: &str) -> String {
    if world == REAL { published::qa_id(question) } else { published::qa_id(&format!("{world}\n{question}")) }
}

/// The name of the real world in questions.
pub const REAL: &str = "real";

/// Makes questions about an atlas.
#[derive(Debug)]
pub struct Author<'a> {
    atlas: &'a Atlas,
    world: String,
    facts: Facts<'a>,
    wording: Wording<'a>,
    pages: &'a Pages,
    reader: Reader<'a>,
}

impl<'a> Author<'a> {
    /// An author for `atlas` with its `pages`; `invented` is the seed of an invented world.
    pub fn new(atlas: &'a Atlas, pages: &'a Pages, invented: Option<u64>) -> Author<'a> {
        let world = invented.map_or_else(|| REAL.to_string(), |seed| format!("invented:{seed}"));
        let (facts, wording, reader) = (Facts::new(atlas), Wording::new(atlas), Reader::new(pages));
        Author { atlas, world, facts, wording, pages, reader }
    }

    /// The atlas.
    pub fn atlas(&self) -> &'a Atlas {
        self.atlas
    }

    /// The world's name in questions: `real` or `invented:<seed>`.
    pub fn world(&self) -> &str {
        &self.world
    }

    /// The facts.
    pub fn facts(&self) -> Facts<'a> {
        self.facts
    }

    /// The words.
    pub fn wording(&self) -> Wording<'a> {
        self.wording
    }

    /// The pages.
    pub fn pages(&self) -> &'a Pages {
        self.pages
    }

    /// The question that a form asks.
    ///
    /// # Errors
    /// Why it is unfit.
    pub fn ask(&mut self, kind: QuestionType, form: &Form) -> Result<Question, Unfit> {
        let answer = match self.facts.answer(form).ok_or(Unfit::NoUniqueAnswer)? {
            Answer::Entity(id) => self.atlas.get(id).and_then(unambiguous).ok_or(Unfit::AmbiguousAnswer)?,
            Answer::Number(number) => number.to_string(),
            Answer::YesNo(yes) => if yes { "yes" } else { "no" }.to_string(),
        };
        let text = self.wording.question(form).ok_or(Unfit::NoClearWords)?;
        if text.chars().count() > QUESTION_CHARS_MAX {
            return Err(Unfit::TooLong);
        }
        if leaks(&text, &answer) {
            return Err(Unfit::Leak);
        }
        let plan = Plan::of(self.atlas, form).ok_or(Unfit::NoPlan)?;
        self.reader.take_opened();
        let found = plan.follow(&mut self.reader).map_err(|_| Unfit::NotInPages)?;
        let evidence: Vec<Evidence> =
            self.reader.take_opened().iter().filter_map(|title| self.pages.evidence(title).cloned()).collect();
        if found != [answer.as_str()] {
            return Err(Unfit::NotInPages);
        }
        if evidence.is_empty() || evidence.len() > EVIDENCE_MAX {
            return Err(Unfit::NoPlan);
        }
        Ok(Question { qa_id: qa_id(&self.world, &text), kind, text, answer, form: form.clone(), plan, evidence })
    }
}

/// The name, unless an addition had to tell the title from another's.
fn unambiguous(entity: &Entity) -> Option<String> {
    (entity.title == entity.name).then(|| entity.name.clone())
}
