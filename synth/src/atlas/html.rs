//! Articles as pages.

use super::article::{Article, Inline, Paragraph};
use super::entity::{Atlas, Entity, EntityId, EntityKind};
use super::search::Hit;

/// Name of the site.
pub(super) const SITE: &str = "Atlas";

impl Atlas {
    /// The page of an entity.
    pub(crate) fn entity_page(&self, entity: &Entity) -> String {
        let article = self.article(entity);
        let kind = entity.kind;
        let trail = format!(
            "<p class=\"trail\"><a href=\"/\">{SITE}</a> › <a href=\"{}\">{}</a></p>",
            kind.list_path(),
            kind.plural()
        );
        page(&article.title, &trail, &self.article_html(&article), "")
    }

    /// The first page: the lists and the regions.
    pub(super) fn index_page(&self) -> String {
        let count = |kind| self.of_kind(kind).len();
        let lists = EntityKind::ALL
            .map(|kind| format!("<li><a href=\"{}\">{}</a>: {}</li>\n", kind.list_path(), kind.plural(), count(kind)));
        let regions = self.of_kind(EntityKind::Region);
        let body = format!(
            "<h1>{SITE}</h1>\n<p>An encyclopaedia of {} countries and territories: where they lie, their capitals, \
             languages, currencies and neighbours.</p>\n<h2>Contents</h2>\n<ul>\n{}</ul>\n<h2>Regions</h2>\n{}",
            count(EntityKind::Country),
            lists.concat(),
            self.list_html(&regions)
        );
        page(SITE, "", &body, "")
    }

    /// The list of a kind.
    pub(super) fn list_page(&self, kind: EntityKind) -> String {
        let entities = self.of_kind(kind);
        let body = format!(
            "<h1>{}</h1>\n<p>The {} of the atlas, {} in all, by name.</p>\n{}",
            kind.plural(),
            kind.plural().to_lowercase(),
            entities.len(),
            self.list_html(&entities)
        );
        page(kind.plural(), &format!("<p class=\"trail\"><a href=\"/\">{SITE}</a></p>"), &body, "")
    }

    /// Results of a search.
    pub(super) fn search_page(&self, query: &str, total: usize, hits: &[Hit]) -> String {
        let items: String = hits
            .iter()
            .map(|hit| {
                let (path, title, snippet) = (escape(&hit.path), escape(&hit.title), escape(&hit.snippet));
                format!("<li><a href=\"{path}\">{title}</a><br>{snippet}</li>\n")
            })
            .collect();
        let body = format!(
            "<h1>Search</h1>\n<p>{total} results for “{}”.</p>\n<ol class=\"results\">\n{items}</ol>",
            escape(query)
        );
        page(&format!("Search: {query}"), "", &body, "<meta name=\"robots\" content=\"noindex\">\n")
    }

    /// The entities of a kind, by name.
    pub(super) fn of_kind(&self, kind: EntityKind) -> Vec<EntityId> {
        let ids = (0..).map(EntityId).zip(self.entities());
        ids.filter(|(_, entity)| entity.kind == kind).map(|(id, _)| id).collect()
    }

    fn article_html(&self, article: &Article) -> String {
        let mut html = format!("<article>\n<h1>{}</h1>\n", escape(&article.title));
        for paragraph in article.paragraphs.iter().filter(|paragraph| !paragraph.is_empty()) {
            html.push_str(&format!("<p>{}</p>\n", self.inline_html(paragraph)));
        }
        html.push_str("<h2>Facts</h2>\n<table>\n<tr><th>Fact</th><th>Value</th></tr>\n");
        for fact in &article.facts {
            html.push_str(&format!("<tr><th>{}</th><td>{}</td></tr>\n", fact.name, self.inline_html(&fact.value)));
        }
        html.push_str("</table>\n");
        for (heading, entities) in &article.lists {
            html.push_str(&format!("<h2>{heading}</h2>\n{}", self.list_html(entities)));
        }
        html.push_str("</article>");
        html
    }

    fn list_html(&self, entities: &[EntityId]) -> String {
        let items: String = entities.iter().map(|id| format!("<li>{}</li>\n", self.link(*id))).collect();
        format!("<ul>\n{items}</ul>\n")
    }

    fn inline_html(&self, paragraph: &Paragraph) -> String {
        let parts = paragraph.iter().map(|inline| match inline {
            Inline::Text(text) => escape(text),
            Inline::Link(id) => self.link(*id),
        });
        parts.collect()
    }

    fn link(&self, id: EntityId) -> String {
        let link = |entity: &Entity| format!("<a href=\"{}\">{}</a>", escape(&entity.path), escape(&entity.title));
        self.get(id).map(link).unwrap_or_default()
    }
}

/// The page that says that there is none.
pub(super) fn missing_page() -> String {
    page("Not found", "", "<h1>Not found</h1>\n<p>There is no such page.</p>", "")
}

/// Text for HTML and XML, in attributes too.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(c),
        }
    }
    out
}

fn page(title: &str, trail: &str, main: &str, head: &str) -> String {
    let menu = EntityKind::ALL.map(|kind| format!("<a href=\"{}\">{}</a>\n", kind.list_path(), kind.plural()));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{}</title>\n{head}</head>\n\
         <body>\n<header>\n<a href=\"/\">{SITE}</a>\n<form action=\"/search\" role=\"search\"><input name=\"q\" \
         aria-label=\"Search\"><button>Search</button></form>\n</header>\n<nav>\n{}</nav>\n{trail}\n<main>\n{main}\n\
         </main>\n<footer>\n<p>Made from a table of countries.</p>\n</footer>\n</body>\n</html>\n",
        escape(title),
        menu.concat()
    )
}
