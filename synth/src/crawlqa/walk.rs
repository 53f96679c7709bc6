//! Which pages a question is written from: short walks along the links of a crawl.

use std::collections::HashMap;
use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use sha2::{Digest as _, Sha256};
use webdancer_schemas::digest::hex;
use webdancer_schemas::rows::Page;

use crate::atlasqa::below;

/// Shortest text that a page must have, in characters: less says nothing worth asking for.
const TEXT_CHARS_MIN: usize = 200;

/// Crawled pages with the links between them.
#[derive(Debug)]
pub struct PageGraph {
    pages: Vec<Arc<Page>>,
    /// By page: the pages it links to.
    links: Vec<Vec<usize>>,
}

impl PageGraph {
    /// The graph of `pages`. Left out are pages without text worth reading, and repeats of a URL or a text: the first
    /// counts.
    pub fn new(pages: impl IntoIterator<Item = Page>) -> PageGraph {
        let mut kept: Vec<Arc<Page>> = Vec::new();
        let mut by_url: HashMap<String, usize> = HashMap::new();
        let mut by_digest: HashMap<String, usize> = HashMap::new();
        for page in pages {
            let Some(digest) = page.digest.clone().filter(|_| page.error.is_none()) else { continue };
            if page.text.as_deref().is_none_or(|text| text.chars().take(TEXT_CHARS_MIN).count() < TEXT_CHARS_MIN) {
                continue;
            }
            let place = *by_digest.entry(digest).or_insert(kept.len());
            by_url.entry(page.url.clone()).or_insert(place);
            by_url.entry(page.final_url.clone()).or_insert(place);
            if place == kept.len() {
                kept.push(Arc::new(page));
            }
        }
        let places = |(place, page): (usize, &Arc<Page>)| {
            let mut places: Vec<usize> = page.links.iter().filter_map(|link| by_url.get(link).copied()).collect();
            places.sort_unstable();
            places.dedup();
            places.retain(|other| *other != place);
            places
        };
        let links = kept.iter().enumerate().map(places).collect();
        PageGraph { pages: kept, links }
    }

    /// Pages in the graph.
    pub fn len(&self) -> usize {
        self.pages.len()
    }

    /// Whether no page is worth reading.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// The pages.
    pub fn pages(&self) -> &[Arc<Page>] {
        &self.pages
    }

    /// SHA-256 of the addresses and texts of the pages, hex.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for page in &self.pages {
            for part in [page.url.as_str(), page.digest.as_deref().unwrap_or_default()] {
                hash.update(part.as_bytes());
                hash.update([0]);
            }
        }
        hex(hash.finalize())
    }

    /// Walk `number` of a seed: `at_least` to `at_most` pages, each linked to from one before it. Walks do not depend on
    /// each other. None where the graph has no such walk from where this one begins.
    pub fn walk(&self, seed: u64, number: u64, at_least: usize, at_most: usize) -> Option<Vec<Arc<Page>>> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(number);
        if self.pages.is_empty() || at_most == 0 {
            return None;
        }
        let mut path = vec![below(self.pages.len(), &mut random)];
        let length = at_least.max(1) + below((at_most + 1).saturating_sub(at_least.max(1)).max(1), &mut random);
        while path.len() < length {
            let onward = path.iter().filter_map(|place| self.links.get(*place)).flatten();
            let mut onward: Vec<usize> = onward.copied().filter(|place| !path.contains(place)).collect();
            onward.sort_unstable();
            onward.dedup();
            let Some(next) = onward.get(below(onward.len().max(1), &mut random)) else { break };
            path.push(*next);
        }
        (path.len() >= at_least).then(|| path.iter().filter_map(|place| self.pages.get(*place).cloned()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(name: &str, links: &[&str]) -> Page {
        Page {
            url: format!("http://h/{name}"),
            final_url: format!("http://h/{name}"),
            text: Some(format!("{name} ").repeat(200)),
            digest: Some(format!("digest of {name}")),
            links: links.iter().map(|link| format!("http://h/{link}")).collect(),
            ..Page::default()
        }
    }

    #[test]
    fn walks_follow_links_and_depend_on_seed_and_number_alone() {
        let graph = PageGraph::new([page("a", &["b", "x"]), page("b", &["a", "c"]), page("c", &[]), page("d", &["d"])]);
        assert_eq!(graph.len(), 4);
        let names = |number| -> Vec<String> {
            let walk = graph.walk(7, number, 1, 3).unwrap();
            walk.iter().map(|page| page.url.clone()).collect()
        };
        for number in 0..50 {
            let walk = names(number);
            assert_eq!(walk, names(number));
            for (place, url) in walk.iter().enumerate().skip(1) {
                let earlier = graph.pages.iter().filter(|page| walk[..place].contains(&page.url));
                assert!(earlier.flat_map(|page| &page.links).any(|link| link == url), "{walk:?}");
            }
        }
        assert!((0..50).any(|number| names(number).len() == 3));
        assert_eq!((0..50).filter_map(|number| graph.walk(7, number, 2, 3)).filter(|walk| walk.len() < 2).count(), 0);
    }

    #[test]
    fn pages_that_say_nothing_or_the_same_are_left_out() {
        let failed = Page { error: Some("timeout".to_string()), ..page("f", &[]) };
        let short = Page { text: Some("little".to_string()), ..page("s", &[]) };
        let mirror = Page { digest: Some("digest of a".to_string()), ..page("m", &[]) };
        let graph = PageGraph::new([page("a", &["b"]), failed, short, mirror, page("b", &["m"])]);
        assert_eq!(graph.len(), 2);
        // A link to the mirror is a link to what it mirrors.
        assert_eq!(graph.links, [vec![1], vec![0]]);
        assert!(PageGraph::new([]).walk(1, 1, 1, 3).is_none());
    }
}
