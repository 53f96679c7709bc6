//! Judges that compare texts.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Case, Decision, Gaia, Judge, normalise};

/// The judge `exact`: equality, white space at the ends aside.
#[derive(Debug, Clone, Copy, Default)]
pub struct Exact;

/// The judge `normalised`: equality of [normal forms](normalise). Answers without letters and digits are compared as
/// `exact` does.
#[derive(Debug, Clone, Copy, Default)]
pub struct Normalised;

/// The judge by rules that has this name: `exact`, `normalised` or `gaia`.
pub fn by_name(name: &str) -> Option<Arc<dyn Judge>> {
    Some(match name {
        "exact" => Arc::new(Exact),
        "normalised" => Arc::new(Normalised),
        "gaia" => Arc::new(Gaia),
        _ => return None,
    })
}

#[async_trait]
impl Judge for Exact {
    fn name(&self) -> &str {
        "exact"
    }

    fn rule_version(&self) -> i32 {
        1
    }

    async fn judge(&self, case: &Case<'_>) -> Decision {
        case.settled().unwrap_or_else(|| decide(case.answer.trim() == case.gold.trim(), "the texts"))
    }
}

#[async_trait]
impl Judge for Normalised {
    fn name(&self) -> &str {
        "normalised"
    }

    fn rule_version(&self) -> i32 {
        1
    }

    async fn judge(&self, case: &Case<'_>) -> Decision {
        if let Some(settled) = case.settled() {
            return settled;
        }
        let (answer, gold) = (normalise(case.answer), normalise(case.gold));
        if answer.is_empty() || gold.is_empty() {
            return decide(case.answer.trim() == case.gold.trim(), "the texts");
        }
        decide(answer == gold, "the normal forms")
    }
}

fn decide(equal: bool, what: &str) -> Decision {
    if equal { Decision::pass(format!("{what} are equal")) } else { Decision::fail(format!("{what} differ")) }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    async fn verdict(judge: &str, gold: &str, answer: &str) -> Option<Verdict> {
        let case = Case { question: "?", gold, answer };
        Some(by_name(judge)?.judge(&case).await.verdict)
    }

    #[tokio::test]
    async fn each_judge_compares_by_its_own_rule() {
        let cases = [
            // gold, answer, exact, normalised, gaia
            ("Paris", " Paris\n", true, true, true),
            ("Paris", "paris", false, true, true),
            ("The Derby", "derby", false, true, false),
            ("sea gull", "seagull", false, false, true),
            ("1,000", "1000", false, true, false),
            ("1000", "1,000", false, true, true),
            ("17", "17.0", false, false, true),
            ("Paris", "Lyon", false, false, false),
            ("", "Paris", false, false, false),
            ("?!", "?!", true, true, true),
            ("?!", "...", false, false, true),
        ];
        for (gold, answer, exact, normalised, gaia) in cases {
            for (judge, passes) in [("exact", exact), ("normalised", normalised), ("gaia", gaia)] {
                let due = if passes { Verdict::Pass } else { Verdict::Fail };
                assert_eq!(verdict(judge, gold, answer).await, Some(due), "{judge}: {answer:?} for {gold:?}");
            }
        }
    }

    #[tokio::test]
    async fn no_answer_fails_whatever_the_gold() {
        for judge in ["exact", "normalised", "gaia"] {
            for gold in ["", " ", "inf", "."] {
                assert_eq!(verdict(judge, gold, " \n").await, Some(Verdict::Fail), "{judge} {gold:?}");
            }
        }
        assert_eq!(verdict("model", "x", "x").await, None);
    }
}
