//! robots.txt (RFC 9309).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use texting_robots::Robot;
use tokio::sync::OnceCell;
use url::Url;

/// Our name in robots.txt.
pub(super) const PRODUCT: &str = "webdancer";
/// Bytes of robots.txt that are read: RFC 9309 section 2.5 asks for at least 500 KiB.
pub(super) const ROBOTS_BYTES_MAX: usize = 500 << 10;
/// Patterns that end in `$`. Each becomes a regular expression, and their compilation a way to keep us busy.
const ENDED_PATTERNS_MAX: usize = 1_000;
/// Origins remembered, and the bytes of their robots.txt; beyond, all are forgotten and read again when needed.
const ORIGINS_MAX: usize = 4_096;
const BYTES_MAX: usize = 8 << 20;

/// What a site allows.
#[derive(Debug)]
pub(super) enum Robots {
    /// It has rules.
    Rules(Box<Robot>),
    /// It has none: robots.txt does not exist (any 4xx).
    None,
    /// They could not be read (5xx, no connection): nothing is allowed, and why.
    Unreachable(String),
}

/// What robots.txt says about one URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may be fetched.
    Allowed,
    /// It may not.
    Disallowed,
    /// robots.txt could not be read, for this reason: it may not.
    Unreachable(String),
}

impl Robots {
    pub(super) fn parse(bytes: &[u8]) -> Robots {
        if bytes.split(|byte| *byte == b'\n').filter(|line| line.contains(&b'$')).count() > ENDED_PATTERNS_MAX {
            return Robots::Unreachable(format!("more than {ENDED_PATTERNS_MAX} of its patterns hold a $"));
        }
        match Robot::new(PRODUCT, bytes) {
            Ok(robot) => Robots::Rules(Box::new(robot)),
            // The parser skips lines it does not know, so this is no robots.txt at all.
            Err(_) => Robots::None,
        }
    }

    pub(super) fn verdict(&self, url: &Url) -> Verdict {
        match self {
            Robots::Rules(robot) if !robot.allowed(url.as_str()) => Verdict::Disallowed,
            Robots::Rules(_) | Robots::None => Verdict::Allowed,
            Robots::Unreachable(reason) => Verdict::Unreachable(reason.clone()),
        }
    }

    /// `Crawl-delay`, at most `max`.
    pub(super) fn delay(&self, max: Duration) -> Option<Duration> {
        let Robots::Rules(robot) = self else { return None };
        let seconds = robot.delay.filter(|seconds| seconds.is_finite() && *seconds > 0.0)?;
        Some(Duration::from_secs_f32(seconds.min(max.as_secs_f32())))
    }
}

impl Verdict {
    /// Why not, where not.
    pub fn refusal(&self) -> Option<String> {
        match self {
            Verdict::Allowed => None,
            Verdict::Disallowed => Some("robots.txt disallows it".to_string()),
            Verdict::Unreachable(reason) => Some(format!("robots.txt could not be read: {reason}")),
        }
    }
}

/// What is known of each origin.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<Origins>);

#[derive(Debug, Default)]
struct Origins {
    cells: HashMap<String, Arc<OnceCell<Robots>>>,
    bytes: usize,
}

impl Known {
    /// The cell of an origin: whoever needs it first fills it, the others wait.
    pub(super) fn origin(&self, url: &Url) -> Arc<OnceCell<Robots>> {
        let mut known = self.0.lock();
        if known.cells.len() >= ORIGINS_MAX {
            *known = Origins::default();
        }
        known.cells.entry(url.origin().ascii_serialization()).or_default().clone()
    }

    /// Counts what is kept of an origin's robots.txt.
    pub(super) fn count(&self, bytes: usize) {
        let mut known = self.0.lock();
        known.bytes += bytes;
        if known.bytes > BYTES_MAX {
            *known = Origins::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn patterns_that_are_dear_are_not_compiled_without_end() {
        let rules = |count: usize| format!("User-agent: *\n{}", "Disallow: /*a*b*$\n".repeat(count));
        assert_eq!(Robots::parse(rules(1_000).as_bytes()).verdict(&url("http://a.example/acb")), Verdict::Disallowed);
        assert_eq!(
            Robots::parse(rules(1_001).as_bytes()).verdict(&url("http://a.example/")),
            Verdict::Unreachable("more than 1000 of its patterns hold a $".to_string())
        );
    }

    #[test]
    fn what_is_known_is_forgotten_when_it_becomes_too_much() {
        let known = Known::default();
        let first = known.origin(&url("http://a.example/x"));
        assert!(Arc::ptr_eq(&first, &known.origin(&url("http://a.example/y"))));
        known.count(BYTES_MAX);
        assert!(Arc::ptr_eq(&first, &known.origin(&url("http://a.example/y"))));
        known.count(1);
        let second = known.origin(&url("http://a.example/y"));
        assert!(!Arc::ptr_eq(&first, &second));
        (0..ORIGINS_MAX).for_each(|number| drop(known.origin(&url(&format!("http://{number}.example/")))));
        assert!(!Arc::ptr_eq(&second, &known.origin(&url("http://a.example/y"))));
    }
}
