//! JSON documents posted to a service of the operator's: events for another system, say.
//!
//! The address comes from the settings, so it may be a private one; redirects are not followed.

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use serde_json::Value;

use crate::secret::Secret;
use crate::tool::service::{Service, ServiceConfig, ServiceError};

/// Where documents are posted to.
#[derive(Debug)]
pub struct Post {
    service: Service,
    url: String,
}

impl Post {
    /// Posts to `url`; errors begin with `name`. A key is sent as a bearer's token.
    ///
    /// # Errors
    /// The key cannot be sent, or there is no HTTP client here.
    pub fn new(
        name: &'static str,
        url: &str,
        key: Option<Secret>,
        config: ServiceConfig,
    ) -> Result<Post, ServiceError> {
        let key = key.map(|key| (key, AUTHORIZATION, "Bearer "));
        Ok(Post { service: Service::new(name, url, config, key)?, url: url.to_string() })
    }

    /// Posts a document; returns when the service has taken it, after retries. `seed` spreads the waits between them.
    ///
    /// # Errors
    /// One line: the service could not be reached, failed, or refused it.
    pub async fn send(&self, seed: &str, document: &Value) -> Result<(), ServiceError> {
        let body = document.to_string();
        let request = |client: &reqwest::Client| {
            client.post(&self.url).header(CONTENT_TYPE, "application/json").body(body.clone())
        };
        let answer = self.service.ask(seed, request).await;
        match answer {
            Ok(answer) if answer.is_success() => Ok(()),
            Ok(answer) => Err(ServiceError(self.service.error(&self.service.reason(&answer)))),
            Err(no_answer) => Err(ServiceError(no_answer.reason())),
        }
    }
}
