//! From a document to title, main text, links and language.
//!
//! The main text is Markdown without link targets and images: targets are in the links, they differ between mirrors of
//! one text, and they would make equal content look different. A page that marks its main content (`<main>`, or one
//! `<article>`) is taken at its word; of others a readability heuristic finds the article; where that finds nothing,
//! the body stands, without navigation.

use std::collections::HashSet;

use dom_query::{Document, NodeRef};
use dom_smoothie::Readability;
use html5ever::tendril::TendrilSink as _;
use html5ever::tree_builder::TreeBuilderOpts;
use html5ever::{ParseOpts, parse_document};
use sha2::{Digest as _, Sha256};
use url::Url;

use super::url::canonical;

/// Deepest nesting of elements, as in browsers. Deeper trees make parsers quadratic and recursive readers overflow.
pub const NESTING_MAX: usize = 512;
/// Bytes of text whose language is looked at.
const LANGUAGE_BYTES: usize = 4096;
/// Bytes parsed between two looks at the nesting.
const CHUNK_BYTES: usize = 8 << 10;
/// Elements that never belong to the main text.
const NOT_TEXT: &[&str] =
    &["script", "style", "meta", "head", "noscript", "template", "iframe", "svg", "img", "form", "button"];
/// Elements around the main text.
const AROUND: &str = "nav, header, footer, aside, [role=navigation], [role=banner], [role=contentinfo], [role=search]";

/// What a page says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extract {
    /// `<title>`, else the first heading.
    pub title: Option<String>,
    /// Main text as Markdown; None where there is none.
    pub text: Option<String>,
    /// Canonical URLs linked to, in order, without repeats and without the page itself.
    pub links: Vec<Url>,
    /// The URL that the page gives as its canonical one.
    pub canonical: Option<Url>,
    /// SHA-256 of the main text, hex.
    pub digest: Option<String>,
    /// ISO 639-3 code of the main text's language, where it can be told.
    pub language: Option<String>,
}

/// Reads an HTML document that was found at `url`; at most `links_max` links.
///
/// # Errors
/// Elements nested deeper than [`NESTING_MAX`], said in words.
pub fn html(source: &str, url: &Url, links_max: usize) -> Result<Extract, String> {
    let document = parse(source)?;
    let base = document
        .select_single("base[href]")
        .attr("href")
        .and_then(|href| url.join(href.trim()).ok())
        .unwrap_or_else(|| url.clone());
    let links = links(&document, &base, url, links_max);
    let canonical_url = document
        .select_single("link[rel~=canonical][href]")
        .attr("href")
        .and_then(|href| base.join(href.trim()).ok())
        .and_then(|target| canonical(&target));
    let title =
        one_line(&document.select_single("title").text()).or_else(|| one_line(&document.select_single("h1").text()));
    Ok(Extract { title, links, canonical: canonical_url, ..of_text(main_text(document, source)) })
}

/// Reads plain text or, with the first heading as its title, Markdown. Links in it are not followed.
pub fn plain(source: &str, markdown: bool) -> Extract {
    let heading = source.lines().find_map(|line| line.strip_prefix("# "));
    Extract { title: heading.filter(|_| markdown).and_then(one_line), ..of_text(source.to_string()) }
}

/// SHA-256, hex.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn of_text(text: String) -> Extract {
    let text = clean(&text);
    if text.is_empty() {
        return Extract::default();
    }
    Extract {
        digest: Some(sha256_hex(text.as_bytes())),
        language: language(&text),
        text: Some(text),
        ..Extract::default()
    }
}

/// Without control characters, space at the ends of lines, and more than one empty line at once.
fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut empty = 0;
    for line in text.lines() {
        let start = out.len();
        out.extend(line.chars().filter(|c| *c == '\t' || !c.is_control()));
        // Two spaces at the end of a line are Markdown's line break; a break says the same.
        out.truncate(start + out[start..].trim_end().len());
        empty = if out.len() == start { empty + 1 } else { 0 };
        if empty < 2 {
            out.push('\n');
        }
    }
    out.trim_matches('\n').trim_end().to_string()
}

fn one_line(text: &str) -> Option<String> {
    let visible: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let line = visible.split_whitespace().collect::<Vec<_>>().join(" ");
    (!line.is_empty()).then_some(line)
}

fn language(text: &str) -> Option<String> {
    let info = whatlang::detect(&text[..text.floor_char_boundary(LANGUAGE_BYTES)])?;
    info.is_reliable().then(|| info.lang().code().to_string())
}

/// Parses in pieces, so that a document made to nest without end is given up while it is still cheap.
fn parse(source: &str) -> Result<Document, String> {
    let too_deep = || format!("elements are nested more than {NESTING_MAX} deep");
    let options = ParseOpts {
        tree_builder: TreeBuilderOpts { scripting_enabled: false, ..TreeBuilderOpts::default() },
        ..ParseOpts::default()
    };
    let mut parser = parse_document(Document::default(), options);
    let mut rest = source;
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(rest.ceil_char_boundary(CHUNK_BYTES));
        parser.process(chunk.into());
        rest = after;
        let open = std::iter::successors(Some(parser.tokenizer.sink.sink.root()), NodeRef::last_child);
        if open.take(NESTING_MAX + 1).count() > NESTING_MAX {
            return Err(too_deep());
        }
    }
    let document = parser.finish();
    if nesting(&document) > NESTING_MAX { Err(too_deep()) } else { Ok(document) }
}

fn nesting(document: &Document) -> usize {
    let mut deepest = 0;
    let mut depth = 0;
    let mut node = document.root();
    loop {
        deepest = deepest.max(depth);
        if let Some(child) = node.first_child() {
            node = child;
            depth += 1;
            continue;
        }
        loop {
            if let Some(sibling) = node.next_sibling() {
                node = sibling;
                break;
            }
            match node.parent() {
                Some(parent) => node = parent,
                None => return deepest,
            }
            depth -= 1;
        }
    }
}

fn links(document: &Document, base: &Url, url: &Url, links_max: usize) -> Vec<Url> {
    let mut seen = HashSet::new();
    if let Some(own) = canonical(url) {
        seen.insert(own);
    }
    let targets = document.select("a[href], area[href]");
    let targets = targets.nodes().iter().filter_map(|node| {
        let href = node.attr("href")?;
        canonical(&base.join(href.trim()).ok()?)
    });
    targets.filter(|target| seen.insert(target.clone())).take(links_max).collect()
}

fn main_text(document: Document, source: &str) -> String {
    if let Some(text) = marked_text(&document) {
        return text;
    }
    let mut readability = Readability { doc: document, doc_url: None, config: dom_smoothie::Config::default() };
    readability.config.disable_json_ld = true;
    if readability.parse().is_ok() {
        let found = readability.doc.select_single("#readability-page-1");
        if let Some(text) = found.nodes().first().map(markdown).filter(|text| !text.trim().is_empty()) {
            return text;
        }
    }
    // The heuristic has changed its document.
    let document = Document::from(source);
    document.select(AROUND).remove();
    document.body().map(|body| markdown(&body)).unwrap_or_default()
}

/// The text of the one element that is marked as the main content.
fn marked_text(document: &Document) -> Option<String> {
    let main = document.select("main, [role=main]");
    let articles;
    let node = match main.nodes() {
        [node] => node,
        [] => {
            articles = document.select("article");
            let [node] = articles.nodes() else { return None };
            node
        }
        _ => return None,
    };
    node.find(&["nav"]).iter().for_each(NodeRef::remove_from_parent);
    Some(markdown(node)).filter(|text| !text.trim().is_empty())
}

fn markdown(node: &NodeRef<'_>) -> String {
    node.strip_elements(&["a"]);
    node.md(Some(NOT_TEXT)).to_string()
}
