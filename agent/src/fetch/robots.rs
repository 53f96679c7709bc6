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
/// Origins remembered; beyond, all are forgotten and read again when needed.
const ORIGINS_MAX: usize = 4096;

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
pub(super) struct Known(Mutex<HashMap<String, Arc<OnceCell<Robots>>>>);

impl Known {
    /// The cell of an origin: whoever needs it first fills it, the others wait.
    pub(super) fn origin(&self, url: &Url) -> Arc<OnceCell<Robots>> {
        let mut known = self.0.lock();
        if known.len() >= ORIGINS_MAX {
            known.clear();
        }
        known.entry(url.origin().ascii_serialization()).or_default().clone()
    }
}
