//! What a run's tokens cost: by the endpoint that acted.

use std::collections::BTreeMap;

use webdancer_agent::chat::{EndpointConfig, Prices};

use crate::run::Run;

/// What tokens cost, by the endpoints of the settings.
#[derive(Debug, Clone, Default)]
pub struct PriceList {
    /// Each endpoint's model, and its prices where it has any.
    endpoints: BTreeMap<String, (String, Option<Prices>)>,
}

impl PriceList {
    /// The prices of these endpoints.
    pub fn new(endpoints: &BTreeMap<String, EndpointConfig>) -> PriceList {
        let priced = |endpoint: &EndpointConfig| endpoint.price_input.is_some() || endpoint.price_output.is_some();
        let of = |endpoint: &EndpointConfig| (endpoint.model.clone(), priced(endpoint).then(|| endpoint.prices()));
        PriceList { endpoints: endpoints.iter().map(|(name, endpoint)| (name.clone(), of(endpoint))).collect() }
    }

    /// What the tokens of a model cost that acted as `policy`, such as `endpoint:qwen`. That endpoint's prices hold, while it
    /// still has the model. Of any other policy, an endpoint that the settings do not name, or none told, they are those of
    /// the model where all its endpoints agree: two providers have two prices.
    pub fn of(&self, policy: Option<&str>, model: &str) -> Option<Prices> {
        let acted = policy.and_then(|policy| self.endpoints.get(policy.strip_prefix("endpoint:")?));
        if let Some((_, prices)) = acted.filter(|(of, _)| of == model) {
            return *prices;
        }
        let mut known = self.endpoints.values().filter(|(of, _)| of == model).map(|(_, prices)| *prices);
        let first = known.next()?;
        first.filter(|_| known.all(|prices| prices == first))
    }

    /// What the tokens of a run cost, of the one model that it has, whatever its versions and checkpoints.
    pub fn of_run(&self, run: &Run) -> Option<Prices> {
        let [model] = run.models.as_slice() else { return None };
        self.of(run.told_policy.as_deref(), model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(endpoints: &[(&str, &str, Option<f64>)]) -> PriceList {
        let of = |model: &str, price_output| EndpointConfig {
            model: model.to_string(),
            price_output,
            ..EndpointConfig::default()
        };
        PriceList::new(&endpoints.iter().map(|(name, model, price)| ((*name).to_string(), of(model, *price))).collect())
    }

    #[test]
    fn the_endpoint_that_acted_has_the_price_and_a_model_only_where_its_endpoints_agree() {
        let prices = list(&[
            ("cheap", "qwen", Some(2.0)),
            ("dear", "qwen", Some(8.0)),
            ("ours", "qwen", None),
            ("a", "glm", Some(3.0)),
            ("b", "glm", Some(3.0)),
        ]);
        let output = |policy, model| prices.of(policy, model).map(|prices| prices.output);
        assert_eq!(
            [output(Some("endpoint:cheap"), "qwen"), output(Some("endpoint:dear"), "qwen")],
            [Some(2.0), Some(8.0)]
        );
        assert_eq!(output(Some("endpoint:ours"), "qwen"), None, "what the provider asks is not what ours costs");
        assert_eq!([output(None, "qwen"), output(Some("endpoint:gone"), "qwen")], [None, None]);
        assert_eq!([output(None, "glm"), output(Some("scripted"), "glm")], [Some(3.0), Some(3.0)]);
        // The endpoint has another model by now.
        assert_eq!([output(Some("endpoint:cheap"), "glm"), output(Some("endpoint:cheap"), "gpt")], [Some(3.0), None]);
    }
}
