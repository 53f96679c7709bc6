//! The figures on pages are those of the library.

use std::error::Error;
use std::time::Duration;

use serde_json::{Value, json};
use webdancer_eval::attempts;
use webdancer_eval::contamination;
use webdancer_eval::dashboard::{Settings, export};
use webdancer_eval::report::{Options, Report, report};
use webdancer_eval::run::runs;
use webdancer_eval::votes::RulesAlone;
use webdancer_query::QueryOptions;
use webdancer_query::output::{self, Format, TableOptions};
use webdancer_schemas::kind::Kind;

use super::lake::{Written, attempt, ended, question, settings, started, two_runs, verdict};

#[tokio::test(flavor = "multi_thread")]
async fn a_runs_twin_is_its_report() {
    let mut lake = two_runs().await;
    // One attempt saw the answer and went on, and its question stood on the page.
    let mut seen = attempt("r2", "q2", 2, "beta");
    let call = json!({"url": ["http://x.example/list"], "goal": "look"}).to_string();
    let shown = "The useful information in http://x.example/list for user goal look as follows: \n\nEvidence in page: \n\
        Asked was: in which year was the bridge at Lund built? It is gold.\n\nSummary: \nIt is gold.\n\n";
    for (name, list) in [
        ("turn_tool", json!(["visit", "search", null])),
        ("turn_arguments", json!([call, "{}", null])),
        ("turn_observation", json!([shown, "nothing", null])),
    ] {
        seen[name] = list;
    }
    let text = "In which year was the bridge at Lund built?";
    lake.append(Kind::Qa, &[question("q2", "small", text, json!({"level": 1}))]).await;
    lake.append(Kind::Trajectory, &[seen]).await;
    lake.append(Kind::Judgment, &[verdict("r2", "q2", 2, false)]).await;
    let engine = lake.engine();
    let options = QueryOptions::default();
    let rows = async |sql: &str| engine.query(sql, &options).await.unwrap().read_all().await.unwrap();
    let sql = attempts::sql_with_over_action("t.run_id = 'r2'");
    let run = runs(attempts::read(&rows(&sql).await).unwrap()).remove(0);
    let (asked, within) = (&engine, &options);
    let stream = |sql: String| async move { Ok::<_, Box<dyn Error>>(asked.query(&sql, within).await?) };
    let looked = contamination::look(&run, stream).await.unwrap().unwrap();
    let pages = contamination::look_at_pages(&run, stream).await.unwrap();
    assert_eq!(pages, []);
    let looked = looked.with_pages(&pages);
    let found = contamination::contamination(&run, looked, &Options::default());
    let ours = Report { contamination: Some(found), ..report(&run, &Options::default(), &RulesAlone) };
    let browser = lake.browser();
    let twin = browser.json("/runs/r2").await;
    assert_eq!(twin["report"], json!(ours));
    let (found, over) = (&twin["report"]["contamination"], &twin["report"]["effort"]["over_action"]);
    assert_eq!(
        (&found["checked"], &found["contaminated"]["value"], &found["clean"]["value"]),
        (&json!(9), &json!(0.0), &json!(0.625))
    );
    assert_eq!(
        found["flagged"],
        json!([{"trajectory_id": "r2-q2-2", "qa_id": "q2", "url": "http://x.example/list", "leak": "question"}])
    );
    assert_eq!((&over["seen"], &over["acted"], &over["calls"]), (&json!(1), &json!(1), &json!(1)));
    let page = browser.page("/runs/r2").await;
    for told in [
        "Contamination: 1 of 9 attempts saw question or answer",
        "attempts that went on after it",
        "http://x.example/list",
        "in the whole of those that the lake has as they were read",
    ] {
        assert!(page.contains(told), "{told} is not in {page}");
    }
    let csv = browser.page("/runs/r2?format=csv&of=flagged").await;
    assert_eq!(csv, "trajectory_id,qa_id,leak,url\nr2-q2-2,q2,question,http://x.example/list\n");
    // A page that would have to wait says so, and has what is there.
    let hasty = lake.browser_with(Settings { patience: Duration::ZERO, ..settings() });
    let page = hasty.page("/runs/r2").await;
    assert!(page.contains("observations are being read") && page.contains("What it took"), "{page}");
    let file = hasty.page("/runs/r2?download=report").await;
    assert!(
        file.contains("Contamination: 1 of 9") && file.contains("what stands elsewhere on another page is not found"),
        "{file}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_found_anywhere_on_a_page_that_the_lake_has_as_it_was_read() {
    let mut lake = two_runs().await;
    let text = "In which year was the bridge at Lund built?";
    lake.append(Kind::Qa, &[question("q2", "small", text, json!({"level": 1}))]).await;
    let page = |digest: &str, text: &str, hour: u32| {
        json!({"url": "http://x.example/list", "final_url": "http://x.example/list", "root_url": "http://x.example/",
            "depth": 0, "status": 200, "digest": digest, "text": text, "event_time": format!("2026-01-01T{hour:02}:00:00Z")})
    };
    let asking = format!("Bridges. Lists of them. Asked was: {text}");
    // Fetched twice with the question, then without it.
    let pages = [page("asking", &asking, 1), page("asking", &asking, 2), page("silent", "Bridges.", 3)];
    let read = |number: i64, tool: &str, digest: &str| {
        let mut row = attempt("r2", "q2", number, "beta");
        for (name, list) in [
            ("turn_tool", json!([tool, null])),
            ("turn_arguments", json!(["{}", null])),
            ("turn_observation", json!(["An excerpt.", null])),
            ("turn_source_urls", json!([["http://x.example/list"], null])),
            ("turn_source_digests", json!([[digest], null])),
        ] {
            row[name] = list;
        }
        row
    };
    // Those that read it otherwise, that found it without reading it, and that read what the lake does not have.
    let others = [read(3, "visit", "silent"), read(4, "search", "asking"), read(5, "visit", "unknown")];
    lake.append(Kind::Trajectory, &[read(2, "visit", "asking")]).await;
    lake.append(Kind::Trajectory, &others).await;
    let verdicts: Vec<Value> = (2..6).map(|number| verdict("r2", "q2", number, true)).collect();
    lake.append(Kind::Judgment, &verdicts).await;
    // A page is looked through when it comes, also after a run was looked at.
    let browser = lake.browser();
    let flagged = async || browser.json("/runs/r2").await["report"]["contamination"]["flagged"].clone();
    assert_eq!(flagged().await, json!([]));
    lake.append(Kind::Page, &pages).await;
    assert_eq!(flagged().await[0]["trajectory_id"], json!("r2-q2-2"));
    let (engine, options) = (lake.engine(), QueryOptions::default());
    let sql = attempts::sql("t.run_id = 'r2'");
    let batches = engine.query(&sql, &options).await.unwrap().read_all().await.unwrap();
    let run = runs(attempts::read(&batches).unwrap()).remove(0);
    let (asked, within) = (&engine, &options);
    let stream = |sql: String| async move { Ok::<_, Box<dyn Error>>(asked.query(&sql, within).await?) };
    let looked = contamination::look(&run, stream).await.unwrap().unwrap();
    assert_eq!((looked.checked, looked.flagged.len(), looked.whole_pages), (12, 0, false));
    let looked = looked.with_pages(&contamination::look_at_pages(&run, stream).await.unwrap());
    assert!(looked.whole_pages);
    assert_eq!(
        json!(looked.flagged),
        json!([{"trajectory_id": "r2-q2-2", "qa_id": "q2", "url": "http://x.example/list", "leak": "question"}])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_has_its_own_observations_where_another_source_gave_its_event_the_same_id() {
    let mut lake = Written::new();
    let of = |run: &str| {
        let mut row = attempt(run, "q1", 0, "alpha");
        row["event_id"] = json!("00000000-0000-7000-8000-0000000000aa");
        row["source"] = json!(run);
        row["turn_observation"] = json!([run, null]);
        row
    };
    lake.append(Kind::Trajectory, &[of("r1"), of("r2")]).await;
    let engine = lake.engine();
    let condition = "t.run_id = 'r1'";
    for sql in [attempts::sql_with_over_action(condition), contamination::sql(condition)] {
        let batches = engine.query(&sql, &QueryOptions::default()).await.unwrap().read_all().await.unwrap();
        assert_eq!(batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), 1, "{sql}");
    }
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
    let each = || {
        given
            .into_iter()
            .flat_map(|(id, answers, right)| (0..).zip(answers.into_iter().zip(right)).map(move |of| (id, of)))
    };
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
