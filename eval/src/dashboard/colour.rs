//! Colours of policies: eight that colour-blind people tell apart, one per policy, the same one on every page. Where there
//! are more policies, colours come again with another shape of dot and another dash of line.

use std::collections::HashMap;

use webdancer_schemas::kind::Kind;

use super::fault::Fault;
use super::state::Dashboard;

/// Which colour each policy has: by the order in which policies first appear in the lake, so that a new one changes none
/// of those before. Beyond eight a colour comes again in another shape, beyond 24 both; the name stands beside it everywhere.
#[derive(Debug, Default)]
pub struct Colours {
    numbers: HashMap<String, usize>,
}

impl Colours {
    /// The policies in the order of their colours.
    pub(super) fn of(policies: impl IntoIterator<Item = String>) -> Colours {
        let mut numbers = HashMap::new();
        for policy in policies {
            let next = numbers.len();
            numbers.entry(policy).or_insert(next);
        }
        Colours { numbers }
    }

    /// The classes of what is drawn for a policy: its colour, `k0` to `k7`, and beyond eight policies a shape, `s1` or `s2`;
    /// `k-none` of one that is not known.
    pub fn class(&self, policy: &str) -> &'static str {
        const CLASSES: [&str; 24] = [
            "k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7", "k0 s1", "k1 s1", "k2 s1", "k3 s1", "k4 s1", "k5 s1",
            "k6 s1", "k7 s1", "k0 s2", "k1 s2", "k2 s2", "k3 s2", "k4 s2", "k5 s2", "k6 s2", "k7 s2",
        ];
        self.numbers.get(policy).and_then(|number| CLASSES.get(number % CLASSES.len())).copied().unwrap_or("k-none")
    }
}

impl Dashboard {
    /// The colours of the policies, named as [attempts](crate::attempts::Attempt::policy) name them. A trainer's policies
    /// change with each step and have none of their own.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn colours(&self) -> Result<std::sync::Arc<Colours>, Fault> {
        let app = self.clone();
        let compute = async move {
            let batches = app.batches(FIRST_SEEN).await?;
            let rows = webdancer_query::output::objects(&batches)?;
            Ok(Colours::of(rows.iter().map(|row| {
                let text = |name: &str| row.get(name).and_then(|value| value.as_str());
                let version = row.get("policy_version").and_then(serde_json::Value::as_i64);
                crate::attempts::policy(text("policy_model"), version, text("policy_checkpoint_digest"))
            })))
        };
        Ok(self.memo("colours", &[Kind::Trajectory, Kind::Run], compute).await?.value)
    }
}

const FIRST_SEEN: &str = "SELECT policy_model, policy_version, policy_checkpoint_digest, min(event_time) AS first \
    FROM trajectories WHERE coalesce(run_id, '') NOT IN (SELECT run_id FROM run_state WHERE kind IN ('sft', 'dapo')) \
    GROUP BY policy_model, policy_version, policy_checkpoint_digest \
    ORDER BY first, policy_model, policy_version, policy_checkpoint_digest LIMIT 1000";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_policy_changes_no_colour() {
        let before = Colours::of(["a", "b"].map(str::to_string));
        let after = Colours::of(["a", "b", "a", "c"].map(str::to_string));
        assert_eq!((before.class("a"), before.class("b"), before.class("c")), ("k0", "k1", "k-none"));
        assert_eq!((after.class("a"), after.class("b"), after.class("c")), ("k0", "k1", "k2"));
        let many = Colours::of((0..25).map(|n| n.to_string()));
        let classes = ["7", "8", "15", "16", "24"].map(|policy| many.class(policy));
        assert_eq!(classes, ["k7", "k0 s1", "k7 s1", "k0 s2", "k0"]);
    }
}
