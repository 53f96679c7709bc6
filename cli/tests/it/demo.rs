//! `webdancer demo`: every stage has something to do, and leaves what the next one takes.

use serde_json::{Value, json};

use crate::lake::sql;
use crate::{text, webdancer};

#[test]
fn the_demo_goes_from_pages_to_pinned_pools() {
    let folder = tempfile::tempdir().unwrap();
    let output = webdancer(folder.path(), &["--json", "--quiet", "demo", "--folder", "d"], b"");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let number = |path: &str| report.pointer(path).and_then(Value::as_u64).unwrap();
    assert_eq!(number("/questions/crawlqa"), 120);
    let questions = 120 + number("/questions/e2hqa");
    assert!(questions > 180, "{report}");
    assert_eq!(number("/trajectories"), 3 * questions);
    // Beside those that were sampled there are eight of the published format, over ten questions.
    assert_eq!((number("/tables/trajectories"), number("/tables/qa")), (3 * questions + 8, questions + 10));
    assert_eq!((number("/tables/rewards"), number("/tables/dead_letters")), (3 * questions + 8, 0));

    std::fs::write(folder.path().join("webdancer.toml"), "[lake]\nuri = \"d/lake\"\n").unwrap();
    let one = |query: &str| sql(folder.path(), query)[0]["n"].as_i64().unwrap();
    let pools = "SELECT count(*) AS n FROM pin('demo-sft') s JOIN pin('demo-rl') r ON r.qa_id = s.qa_id";
    assert_eq!(one(pools), 0);
    // Two of five attempts make a mistake: some questions are left, most are not.
    let left = one("SELECT count(*) AS n FROM pin('demo-rl')");
    assert!((5..60).contains(&left), "{left}");
    let accepted = "SELECT count(DISTINCT qa_id) AS n FROM pin('demo-sft') WHERE qa_id IN (SELECT qa_id FROM qa)";
    assert!(one(accepted) > 60);
    // Each pool is over an invented world of its own: nothing is trained on what is there to evaluate.
    for (pin, world) in [("demo-sft", "invented:1"), ("demo-rl", "invented:2")] {
        let worlds = format!(
            "SELECT DISTINCT q.attributes->>'world' AS world FROM pin('{pin}') p JOIN current_qa q ON q.qa_id = p.qa_id"
        );
        assert_eq!(sql(folder.path(), &worlds), json!([{ "world": world }]));
    }
    let reasons = sql(folder.path(), "SELECT DISTINCT reason FROM funnel WHERE reason IS NOT NULL ORDER BY reason");
    for reason in ["bad_arguments", "repetition", "too_few_actions", "unknown_tool", "wrong_answer"] {
        assert!(reasons.as_array().unwrap().contains(&json!({ "reason": reason })), "{reason}: {reasons}");
    }
}
