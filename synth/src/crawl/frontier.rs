//! What is to be fetched: breadth first, one depth after the other.
//!
//! A depth is fetched completely before the next begins, and the next is put in the order of the pages that link to it
//! and of the links on them. So the order in which answers arrive decides nothing: the same site gives the same pages
//! at the same depths, also where a limit cuts, and also after a kill. Of equal pages at one depth, though, the links
//! of the one that arrived first are followed.

use std::collections::{HashMap, HashSet};

use sha2::{Digest as _, Sha256};
use url::Url;

use super::config::Sites;
use super::journal::Entry;
use super::report::{CrawlReport, Skip};

/// A URL to fetch.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) url: Url,
    /// Index of the root it was reached from.
    pub(super) root: u32,
}

/// 128 bits of SHA-256: a seen URL costs 16 bytes, and nobody can make two collide.
type Key = u128;

/// A URL for the next depth, and its place there: position of the first page that links to it, place on that page.
#[derive(Debug)]
struct Candidate {
    order: (u32, u32),
    item: Item,
}

/// The frontier and everything already seen.
#[derive(Debug)]
pub(super) struct Frontier {
    depth: u32,
    depth_max: u32,
    candidates_max: usize,
    sites: Sites,
    items: Vec<Item>,
    done: Vec<bool>,
    waiting: u64,
    positions: HashMap<Key, u32>,
    seen: HashSet<Key>,
    digests: HashSet<Key>,
    candidates: HashMap<Key, Candidate>,
    /// Counts so far.
    pub(super) report: CrawlReport,
}

impl Frontier {
    pub(super) fn new(roots: &[Url], sites: Sites, depth_max: u32, candidates_max: usize) -> Frontier {
        let mut frontier = Frontier {
            depth: 0,
            depth_max,
            candidates_max,
            sites,
            items: Vec::new(),
            done: Vec::new(),
            waiting: 0,
            positions: HashMap::new(),
            seen: HashSet::new(),
            digests: HashSet::new(),
            candidates: HashMap::new(),
            report: CrawlReport::default(),
        };
        let items = (0..).zip(roots).map(|(root, url)| Item { url: url.clone(), root });
        frontier.begin(items.collect());
        frontier
    }

    pub(super) fn depth(&self) -> u32 {
        self.depth
    }

    pub(super) fn sites(&self) -> &Sites {
        &self.sites
    }

    /// URLs of this depth that are not done.
    pub(super) fn waiting(&self) -> u64 {
        self.waiting
    }

    /// URLs known for the next depth.
    pub(super) fn queued(&self) -> u64 {
        self.candidates.len() as u64
    }

    /// The URLs of this depth that are not done, with their positions.
    pub(super) fn pending(&self) -> Vec<(u32, Item)> {
        let pending = (0..).zip(&self.items).zip(&self.done).filter(|(_, done)| !**done);
        pending.map(|((position, item), _)| (position, item.clone())).collect()
    }

    /// Takes `links` apart into those that are new and in scope, and the number of those out of scope.
    pub(super) fn sort_out(&self, links: &[Url], moved_to: Option<&Url>) -> (Vec<String>, u64) {
        let mut sites = self.sites.clone();
        if let Some(url) = moved_to {
            sites.add(url);
        }
        let (inside, outside): (Vec<&Url>, Vec<&Url>) = links.iter().partition(|link| sites.contain(link));
        let new = inside.into_iter().filter(|link| !self.seen.contains(&key(link.as_str())));
        (new.map(Url::to_string).collect(), outside.len() as u64)
    }

    /// Takes over a URL that is done.
    pub(super) fn finish(&mut self, position: u32, entry: &Entry) {
        let Some(root) = self.items.get(position as usize).map(|item| item.root) else { return };
        self.mark(position);
        self.report.count(entry);
        self.report.skip_many(Skip::OutOfScope, entry.out_of_scope);
        if let Some(url) = entry.moved_to.as_deref().and_then(|url| Url::parse(url).ok()) {
            self.sites.add(&url);
        }
        if entry.digest.as_deref().is_some_and(|digest| !self.digests.insert(key(digest))) {
            self.report.duplicates += 1;
            return;
        }
        if self.depth >= self.depth_max {
            self.report.skip_many(Skip::Depth, entry.links.len() as u64);
            return;
        }
        for (place, link) in (0..).zip(&entry.links) {
            self.consider((position, place), root, link);
        }
    }

    /// Takes over a URL that is not fetched.
    pub(super) fn skip(&mut self, position: u32, reason: Skip) {
        self.mark(position);
        self.report.skip_many(reason, 1);
    }

    fn mark(&mut self, position: u32) {
        if let Some(done) = self.done.get_mut(position as usize).filter(|done| !**done) {
            *done = true;
            self.waiting -= 1;
        }
    }

    /// The position of a URL that a journal names, after going on to its depth.
    pub(super) fn locate(&mut self, url: &str, depth: u32) -> Option<u32> {
        while self.depth < depth {
            if !self.advance() {
                return None;
            }
        }
        self.positions.get(&key(url)).copied()
    }

    /// Goes on to the next depth; false when there is none.
    pub(super) fn advance(&mut self) -> bool {
        let mut next: Vec<Candidate> = std::mem::take(&mut self.candidates).into_values().collect();
        if next.is_empty() {
            return false;
        }
        next.sort_unstable_by_key(|candidate| candidate.order);
        self.depth += 1;
        self.begin(next.into_iter().map(|candidate| candidate.item).collect());
        true
    }

    fn begin(&mut self, items: Vec<Item>) {
        self.positions = (0..).zip(&items).map(|(position, item)| (key(item.url.as_str()), position)).collect();
        self.seen.extend(self.positions.keys());
        self.done = vec![false; items.len()];
        self.waiting = items.len() as u64;
        self.items = items;
    }

    fn consider(&mut self, order: (u32, u32), root: u32, link: &str) {
        let key = key(link);
        if self.seen.contains(&key) {
            return;
        }
        if let Some(candidate) = self.candidates.get_mut(&key) {
            if order < candidate.order {
                candidate.order = order;
                candidate.item.root = root;
            }
        } else if self.candidates.len() >= self.candidates_max {
            self.report.skip_many(Skip::FrontierFull, 1);
        } else if let Ok(url) = Url::parse(link) {
            self.candidates.insert(key, Candidate { order, item: Item { url, root } });
        }
    }
}

fn key(text: &str) -> Key {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(16).fold(0, |key, byte| (key << 8) | Key::from(*byte))
}
