//! What every HTTP client here does in one way: waits, bounded reading, errors in words.

use std::error::Error as _;
use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use sha2::{Digest as _, Sha256};

/// Wait before try `tries` + 1: `first_ms` doubled each time, half of it spread by `seed`, so that many clients are not
/// in step.
pub(crate) fn backoff(first_ms: u64, seed: &str, tries: u32) -> Duration {
    let full = first_ms.saturating_mul(1 << tries.min(16));
    let digest = Sha256::new().chain_update(seed).chain_update(tries.to_be_bytes()).finalize();
    let spread = u64::from(digest.first().copied().unwrap_or_default());
    Duration::from_millis(full / 2 + full / 2 * spread / 255)
}

/// Up to `bytes_max` bytes of the decoded body, and whether there is more.
pub(crate) async fn read(response: &mut reqwest::Response, bytes_max: usize) -> Result<(Vec<u8>, bool), String> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                let room = bytes_max - body.len();
                body.extend_from_slice(chunk.get(..chunk.len().min(room)).unwrap_or_default());
                if chunk.len() > room {
                    return Ok((body, true));
                }
            }
            Ok(None) => return Ok((body, false)),
            Err(error) => return Err(format!("the body broke off: {}", describe(&error.without_url()))),
        }
    }
}

/// `Retry-After`: seconds or a date (RFC 9110 section 10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::parse_from_rfc2822(value).ok()?.with_timezone(&Utc);
    (date - Utc::now()).to_std().ok()
}

/// An error with its causes.
pub(crate) fn describe(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
