//! Arguments of `webdancer synth`.

use clap::Subcommand;
use webdancer_synth::question::QuestionType;

#[derive(Debug, Subcommand)]
pub(crate) enum SynthCommand {
    /// Questions of every type from pages: counts, multi-hop, intersections, comparisons and more
    #[command(
        after_help = "Examples:\n  webdancer synth crawlqa --atlas                                     every question about the real countries\n  webdancer synth crawlqa --atlas --invent 7 --count 2000 --types count,multi-hop\n  webdancer synth crawlqa --sql \"SELECT * FROM pages WHERE root_url = 'https://docs.python.org/3/'\" --count 100   by models"
    )]
    Crawlqa(CrawlqaArgs),
    /// Simple questions made hard: one entity after another replaced by a description of it
    #[command(
        after_help = "Examples:\n  webdancer synth e2hqa --atlas --rewrites 3\n  webdancer synth e2hqa --sql \"SELECT * FROM current_qa WHERE type = 'generic'\" --pages python   by models"
    )]
    E2hqa(E2hqaArgs),
}

/// What questions are made from, drawn by and judged by.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct QuestionSource {
    /// The pages of the atlas: without a model, with answers that are proved
    #[arg(long, conflicts_with_all = ["sql", "pin"])]
    pub(crate) atlas: bool,
    /// The atlas of invented countries of this seed, in place of the real ones
    #[arg(long, value_name = "SEED", requires = "atlas")]
    pub(crate) invent: Option<u64>,
    /// The rows of this query, by models: columns of the table pages for crawlqa, of qa for e2hqa
    #[arg(long, value_name = "QUERY", conflicts_with = "pin")]
    pub(crate) sql: Option<String>,
    /// The rows of this pin, by models: pages for crawlqa, questions for e2hqa
    #[arg(long, value_name = "PIN")]
    pub(crate) pin: Option<String>,
    /// Seed of what is drawn; fewer questions of crawlqa are the first of more [default: 0]
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Who judges the answers that models give: exact, normalised, gaia, or the role of a model [default: funnel.judge]
    #[arg(long, value_name = "NAME|ROLE", conflicts_with = "atlas")]
    pub(crate) judge: Option<String>,
}

impl QuestionSource {
    /// Whether none is given.
    pub(crate) fn is_missing(&self) -> bool {
        !self.atlas && self.sql.is_none() && self.pin.is_none()
    }
}

#[derive(Debug, Default, clap::Args)]
pub(crate) struct CrawlqaArgs {
    #[command(flatten)]
    pub(crate) source: QuestionSource,
    /// How many questions [default: all there are about the atlas; synth.crawlqa.questions_max by models]
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<usize>,
    /// Only these types, comma-separated: count, multi-hop, intersection, comparative, superlative, ordinal, difference, yes-no
    #[arg(long, value_delimiter = ',', value_name = "TYPE")]
    pub(crate) types: Vec<QuestionType>,
    /// Walks along the links that models may try [default: synth.crawlqa.walks_max]
    #[arg(long, value_name = "N", conflicts_with = "atlas")]
    pub(crate) walks: Option<u64>,
}

#[derive(Debug, Default, clap::Args)]
pub(crate) struct E2hqaArgs {
    #[command(flatten)]
    pub(crate) source: QuestionSource,
    /// The pages of this pin, in which models look entities up [default: all of pages]
    #[arg(long, value_name = "PIN", conflicts_with = "atlas")]
    pub(crate) pages: Option<String>,
    /// Rewrites of each question, at most; each step is a question too
    #[arg(long, default_value_t = 4, value_name = "K", value_parser = clap::value_parser!(u8).range(0..=8))]
    pub(crate) rewrites: u8,
    /// How many questions to begin with [default: all there are]
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<usize>,
}
