//! The figures on pages are those of the library.

use serde_json::{Value, json};
use webdancer_eval::attempts;
use webdancer_eval::dashboard::export;
use webdancer_eval::report::{Options, report};
use webdancer_eval::run::runs;
use webdancer_eval::votes::RulesAlone;
use webdancer_query::QueryOptions;
use webdancer_query::output::{self, Format, TableOptions};
use webdancer_schemas::kind::Kind;

use super::lake::{Written, attempt, ended, question, started, two_runs, verdict};

#[tokio::test(flavor = "multi_thread")]
async fn a_runs_twin_is_its_report() {
    let lake = two_runs().await;
    let sql = attempts::sql("t.run_id = 'r2'");
    let rows = lake.engine().query(&sql, &QueryOptions::default()).await.unwrap().read_all().await.unwrap();
    let run = runs(attempts::read(&rows).unwrap()).remove(0);
    let ours = report(&run, &Options::default(), &RulesAlone);
    let twin = lake.browser().json("/runs/r2").await;
    assert_eq!(twin["report"], json!(ours));
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_and_report_count_the_same_votes() {
    let mut lake = Written::new();
    let given = [
        ("q1", ["1,000", "1000.0", "999"], [true, true, false]),
        ("q2", ["The Derby", "Derby!", "Oaks"], [true, true, false]),
        ("q3", ["I cannot tell", "Lund", "Osby"], [false, true, false]),
    ];
    lake.append(Kind::Qa, &given.map(|(id, ..)| question(id, "small", "What is it?", json!({})))).await;
    lake.append(Kind::Run, &[started("r1", "small", "endpoint:a", "live"), ended("r1", "finished")]).await;
    let each = || given.into_iter().flat_map(|(id, answers, right)| (0..).zip(answers.into_iter().zip(right)).map(move |of| (id, of)));
    let attempts = each().map(|(id, (number, (answer, _)))| {
        let mut attempt = attempt("r1", id, number, "alpha");
        attempt["answer"] = json!(answer);
        attempt
    });
    lake.append(Kind::Trajectory, &attempts.collect::<Vec<_>>()).await;
    let verdicts = each().map(|(id, (number, (answer, right)))| {
        let mut verdict = verdict("r1", id, number, right);
        verdict["criteria"] = json!(json!({"attempted": !answer.starts_with("I cannot")}).to_string());
        verdict
    });
    lake.append(Kind::Judgment, &verdicts.collect::<Vec<_>>()).await;
    let sql = "SELECT avg(vote) AS vote FROM (SELECT maj_at_k(CASE WHEN attempted IS NOT false THEN answer END, correct, 3) AS vote \
        FROM evaluations WHERE run_id = 'r1' GROUP BY qa_id)";
    let mut rows = lake.engine().query(sql, &QueryOptions::default()).await.unwrap();
    let told = output::write_result(&mut rows, Format::Json, Vec::new(), TableOptions::default()).await.unwrap();
    let told: Value = serde_json::from_slice(&told).unwrap();
    let twin = lake.browser().json("/runs/r1").await;
    let at_3 = twin["report"]["at_k"].as_array().unwrap().iter().find(|at| at["k"] == 3).unwrap();
    for vote in [&told[0]["vote"], &at_3["maj_at_k"]["value"]] {
        assert!((vote.as_f64().unwrap() - (1.0 + 1.0 + 0.5) / 3.0).abs() < 1e-12, "{vote}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exported_report_is_one_file_that_loads_nothing() {
    let lake = two_runs().await;
    let seen = lake.browser().get("/runs/r2?download=report").await;
    assert_eq!(seen.headers["content-disposition"], "attachment; filename=\"report-r2.html\"");
    let file = seen.text;
    assert!(
        file.contains("62.5 ± ") && file.contains("Pass@1 by level") && file.contains("2026-01-01T00:10:00Z"),
        "{file}"
    );
    assert!(file.contains("default-src 'none'"), "{file}");
    let linked = file.replace("http://www.w3.org/2000/svg", "");
    for load in ["<script", " src=", "href=\"http", "url(", "@import"] {
        assert!(!linked.contains(load), "{load}");
    }
    let nothing = export::reports(&[], "2026-01-01T00:00:00Z".parse().unwrap());
    assert!(nothing.contains("0 runs"), "{nothing}");
}
