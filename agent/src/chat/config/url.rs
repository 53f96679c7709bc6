//! The URL of an endpoint, and the keys that some services want in it.

use std::fmt;

use serde::Deserialize;
use url::Url;

use super::EndpointConfig;
use crate::secret::{Secret, keys_in_url};

/// A base URL. Its `Debug` leaves out the query, in which some services want their key.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(transparent)]
pub struct BaseUrl(String);

impl<T: Into<String>> From<T> for BaseUrl {
    fn from(url: T) -> BaseUrl {
        BaseUrl(url.into())
    }
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.split(['?', '#']).next().unwrap_or_default();
        write!(f, "{shown:?}")
    }
}

impl EndpointConfig {
    /// Where completions are asked for.
    pub(in crate::chat) fn completions_url(&self) -> Result<Url, String> {
        if self.url.0.is_empty() {
            return Err("is missing: give the base URL, such as https://api.openai.com/v1".to_string());
        }
        let mut url = Url::parse(&self.url.0).map_err(|e| format!("is no URL: {e}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("must begin with http:// or https://".to_string());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must not hold a password: URLs end up in logs; use api_key_env or api_key_file".to_string());
        }
        let whole = url.path().trim_end_matches('/').ends_with("/chat/completions");
        if whole {
            return Err("must be the base URL, without /chat/completions".to_string());
        }
        let mut segments = url.path_segments_mut().map_err(|()| "has no path".to_string())?;
        segments.pop_if_empty().extend(["chat", "completions"]);
        drop(segments);
        Ok(url)
    }

    /// The base URL itself.
    pub(in crate::chat) fn base_url(&self) -> Result<Url, url::ParseError> {
        Url::parse(&self.url.0)
    }

    /// The keys that stand in it.
    pub(in crate::chat) fn keys_in_url(&self) -> Vec<Secret> {
        keys_in_url(&self.url.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(base: &str) -> Result<String, String> {
        EndpointConfig { url: base.into(), ..EndpointConfig::default() }.completions_url().map(String::from)
    }

    #[test]
    fn the_path_is_added_to_the_base_url() {
        assert_eq!(url("http://h:8000/v1").unwrap(), "http://h:8000/v1/chat/completions");
        assert_eq!(url("https://h/v1/").unwrap(), "https://h/v1/chat/completions");
        assert_eq!(url("https://h").unwrap(), "https://h/chat/completions");
        assert_eq!(url("https://h/o?api-version=1").unwrap(), "https://h/o/chat/completions?api-version=1");
    }
}
