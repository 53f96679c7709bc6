//! What the settings of this machine decide of how an agent acts, beside what its plan says.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use webdancer_agent::chat::{EndpointConfig, ModelRole};
use webdancer_agent::tool::summary::prompt_digest;
use webdancer_schemas::digest::sha256_hex;

use super::ActingPlan;
use crate::config::Config;

/// Settings that change what an agent writes or sees, as a run keeps them: no keys, no headers, no addresses. What is absent
/// adds nothing, or takes no part in a run on this web.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ActingSettings {
    /// The model of the policy's endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) model: Option<String>,
    /// What the policy's endpoint adds to requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint: Option<Value>,
    /// Who sums up the pages that are visited: its model, what its endpoint adds, the prompt's digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) summariser: Option<Value>,
    /// The search engine and the reader of the live web.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) services: Option<Value>,
}

impl ActingSettings {
    /// As the settings are now.
    pub(crate) fn of(config: &Config, policy: &str, web: &str) -> ActingSettings {
        let endpoint = policy.strip_prefix("endpoint:").and_then(|name| config.endpoints.get(name));
        let is_summed_up = web == "live" || web.starts_with("closed:");
        let summariser = config.roles.endpoint(ModelRole::Summariser).and_then(|name| config.endpoints.get(name));
        let summariser = summariser
            .filter(|_| is_summed_up)
            .map(|endpoint| json!({"model": endpoint.model, "adds": added(endpoint), "prompt": prompt_digest()}));
        let (search, visit) = (&config.web.search, &config.web.visit);
        let services = (web == "live").then(|| {
            json!({
                "engine": search.engine, "country": search.country, "language": search.language,
                "reader": visit.reader,
            })
        });
        let model = endpoint.map(|endpoint| endpoint.model.clone());
        ActingSettings { model, endpoint: endpoint.and_then(added), summariser, services }
    }

    /// What is another now, in words.
    fn changed(&self, now: &ActingSettings) -> Option<String> {
        let model = |of: &ActingSettings| of.model.clone().map(Value::from);
        let parts = [
            ("the policy's model is", &model(self), &model(now)),
            ("the policy's endpoint adds", &self.endpoint, &now.endpoint),
            ("the summariser is", &self.summariser, &now.summariser),
            ("the live web's services are", &self.services, &now.services),
        ];
        let (what, then, now) = parts.into_iter().find(|(_, then, now)| then != now)?;
        let text = |value: &Option<Value>| value.as_ref().map_or_else(|| "nothing".to_string(), Value::to_string);
        Some(format!("{what} {} now, {} before", text(now), text(then)))
    }
}

impl ActingPlan {
    /// What of its settings is another now than when the plan was made, in words. None for a plan that kept none.
    pub(crate) fn settings_changed(&self, config: &Config) -> Option<String> {
        self.settings.as_ref()?.changed(&ActingSettings::of(config, &self.policy, &self.web))
    }

    /// Another policy acts in place of the one that did: what the settings say of it is as it is now.
    pub(crate) fn act_by(&mut self, config: &Config, policy: &str) {
        self.policy = policy.to_string();
        let now = ActingSettings::of(config, policy, &self.web);
        if let Some(settings) = &mut self.settings {
            (settings.model, settings.endpoint) = (now.model, now.endpoint);
        }
    }

    /// Keeps the settings as they are now.
    pub(crate) fn keep_settings(&mut self, config: &Config) {
        self.settings = Some(ActingSettings::of(config, &self.policy, &self.web));
    }
}

/// What the settings of an endpoint add to a request; None where they add nothing. Of `body` the SHA-256: it may hold what
/// nobody else is to read.
fn added(endpoint: &EndpointConfig) -> Option<Value> {
    let mut added = Map::new();
    if let Ok(Value::Object(sampling)) = serde_json::to_value(endpoint.sampling) {
        added.extend(sampling);
    }
    added.extend(endpoint.max_tokens.map(|max| ("max_tokens".to_string(), json!(max))));
    if !endpoint.body.is_empty() {
        added.insert("body_sha256".to_string(), json!(sha256_hex(json!(endpoint.body).to_string().as_bytes())));
    }
    if !endpoint.omit.is_empty() {
        added.insert("omit".to_string(), json!(endpoint.omit));
    }
    (!added.is_empty()).then_some(Value::Object(added))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(settings: &str) -> Config {
        toml::from_str(settings).unwrap()
    }

    const ENDPOINT: &str = "[endpoints.a]\nurl = \"http://a.example/v1\"\nmodel = \"m\"\n";

    #[test]
    fn what_an_endpoint_adds_is_kept_without_what_may_be_secret() {
        let of = |more: &str| ActingSettings::of(&config(&format!("{ENDPOINT}{more}")), "endpoint:a", "closed:d");
        assert_eq!(of(""), ActingSettings { model: Some("m".to_string()), ..ActingSettings::default() });
        let kept = of("max_tokens = 9\nsampling.temperature = 1.0\nomit = [\"stop\"]\nbody.user = \"SECRET\"\n\
                       headers.x-key = \"SECRET\"\n");
        let endpoint = kept.endpoint.clone().unwrap();
        assert_eq!(endpoint["temperature"], json!(1.0));
        assert_eq!((&endpoint["max_tokens"], &endpoint["omit"]), (&json!(9), &json!(["stop"])));
        assert_eq!(endpoint["body_sha256"].as_str().map(str::len), Some(64));
        assert!(!json!(kept).to_string().contains("SECRET"), "{kept:?}");
        let changed = of("").changed(&of("max_tokens = 9\n"));
        assert_eq!(changed.as_deref(), Some("the policy's endpoint adds {\"max_tokens\":9} now, nothing before"));
        assert_eq!(kept.changed(&kept), None);
        let other = ActingSettings { model: Some("n".to_string()), ..kept.clone() };
        assert_eq!(kept.changed(&other).as_deref(), Some("the policy's model is \"n\" now, \"m\" before"));
    }

    #[test]
    fn summariser_and_services_are_kept_of_webs_that_they_take_part_in() {
        let config = config(&format!("{ENDPOINT}[roles]\nsummariser = \"a\"\n[web.search]\nlanguage = \"en\"\n"));
        let of = |web| ActingSettings::of(&config, "scripted", web);
        let live = of("live");
        assert_eq!((live.endpoint, &live.summariser.unwrap()["model"]), (None, &json!("m")));
        assert_eq!(
            live.services,
            Some(json!({"engine": "serper", "country": null, "language": "en", "reader": "direct"}))
        );
        assert!(of("closed:d").summariser.is_some() && of("closed:d").services.is_none());
        assert_eq!((of("recorded:r"), of("none")), (ActingSettings::default(), ActingSettings::default()));
    }
}
