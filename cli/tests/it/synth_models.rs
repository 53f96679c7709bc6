//! `webdancer synth` by models, over HTTP: from pages to questions, and from those to harder ones.

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use webdancer_tests::stub_model::{Answer, Asked, StubModel};

use crate::lake::{PLACES, append, bridges, document, event, sql};
use crate::{text, webdancer};

/// Plays the writer and the reader: knows nothing but what it is shown.
fn reply(asked: &Asked) -> Value {
    let said = asked.last_message();
    let instructions = asked.body["messages"][0]["content"].as_str().unwrap();
    let line = |mark: &str| said.lines().rev().find_map(|line| line.strip_prefix(mark)).unwrap_or_default();
    let of = |text: &str| PLACES.into_iter().find(|(place, _, told)| text.contains(place) || text.contains(told));
    if said.contains("Type: GENERIC") {
        // Behind the pages stand examples, about places of the same names.
        let (place, designer, _) = of(said.split("Type: ").next().unwrap()).unwrap();
        let question = format!("Who designed the bridge that stands at {place}?");
        return json!({"question": question, "answer": designer, "chain": [place, designer], "pages": [1]});
    }
    let (question, described) = (line("Question: "), line("Description: "));
    if instructions.contains("Name one entity") {
        let named = PLACES.into_iter().find(|(place, ..)| question.contains(place));
        return json!({"entity": named.map(|(place, ..)| place), "query": format!("bridge at {question}")});
    }
    if instructions.contains("Write a description") {
        let (place, _, told) = of(line("Entity: ")).unwrap();
        return json!({"description": told, "question": question.replace(place, told)});
    }
    let known = of(if described.is_empty() { question } else { described });
    let answer = match known {
        Some((place, ..)) if !described.is_empty() => place,
        Some((_, designer, _)) if said.contains(designer) => designer,
        _ => "unknown",
    };
    json!({"answer": answer})
}

/// A lake with pages, and settings whose models are `model`.
fn site(model: &StubModel, further: &str) -> tempfile::TempDir {
    bridges(&format!(
        "[endpoints.stub]\nurl = \"{}\"\nmodel = \"stub\"\nprice_output = 1000000.0\nprice_input = 0.0\n\
         [roles]\nsynthesiser = \"stub\"\n[synth.crawlqa]\nconcurrency = 2\n{further}",
        model.url()
    ))
}

fn model(runtime: &Runtime) -> StubModel {
    runtime.block_on(StubModel::scripted(|asked, _| Answer::says(reply(asked).to_string())))
}

const CRAWLQA: [&str; 6] = ["synth", "crawlqa", "--sql", "SELECT * FROM pages", "--types", "generic"];

#[test]
fn models_write_questions_from_pages_and_go_on_where_they_stopped() {
    let runtime = Runtime::new().unwrap();
    let model = model(&runtime);
    let folder = site(&model, "");
    let folder = folder.path();
    let crawlqa = |count: &str| document(folder, 0, &[&CRAWLQA[..], &["--walks", "300", "--count", count]].concat());

    let first = crawlqa("2");
    assert_eq!(
        (&first["questions"], &first["pages"], &first["accepted"]),
        (&json!(2), &json!(5), &json!({"generic": 2}))
    );
    let spent = &first["spent"];
    assert_eq!(spent["cost"].as_f64().unwrap(), spent["output_tokens"].as_f64().unwrap());
    assert!(spent["answers"].as_u64().unwrap() >= 2 + 2 * 3 + 2 * 3, "{spent}");
    let rows =
        sql(folder, "SELECT question, answer, generator, evidence_page_digests[1] AS page, run_id FROM qa LIMIT 1");
    let (place, designer, _) = PLACES.into_iter().find(|(_, name, _)| rows[0]["answer"] == *name).unwrap();
    assert_eq!(rows[0]["question"], format!("Who designed the bridge that stands at {place}?"), "{designer}");
    assert_eq!((&rows[0]["page"], &rows[0]["generator"]), (&json!(format!("digest-{place}")), &json!("stub")));
    assert_eq!(rows[0]["run_id"], first["run_id"]);

    let second = crawlqa("5");
    assert_eq!((&second["questions"], &second["done_before"]), (&json!(3), &json!(2)));
    assert_eq!(second["run_id"], first["run_id"]);
    assert!(second["walks"].as_u64().unwrap() + first["walks"].as_u64().unwrap() <= 300);
    assert_eq!(
        sql(folder, "SELECT count(DISTINCT answer) AS n, count(*) AS rows FROM qa"),
        json!([{"n": 5, "rows": 5}])
    );
    let asked = model.asked().len();
    let third = crawlqa("5");
    assert_eq!((&third["questions"], &third["done_before"]), (&json!(0), &json!(5)));
    assert_eq!(model.asked().len(), asked, "nobody is asked when there is nothing to do");
    let states =
        sql(folder, "SELECT state, count(*) AS n FROM runs WHERE kind = 'crawlqa' GROUP BY state ORDER BY state");
    assert_eq!(states, json!([{"state": "finished", "n": 3}, {"state": "started", "n": 3}]));
}

#[test]
fn models_rewrite_questions_whose_answers_stay() {
    let runtime = Runtime::new().unwrap();
    let model = model(&runtime);
    let folder = site(&model, "");
    let folder = folder.path();
    document(folder, 0, &[&CRAWLQA[..], &["--walks", "300", "--count", "3"]].concat());
    let roots = "SELECT * FROM current_qa WHERE method = 'crawlqa'";
    let e2hqa = ["synth", "e2hqa", "--rewrites", "2", "--sql", roots];
    let report = document(folder, 0, &e2hqa);
    assert_eq!((&report["roots"], &report["questions"]), (&json!(3), &json!(3)));
    assert_eq!((&report["chains_by_rewrites"], &report["stopped"]), (&json!({"1": 3}), &json!({"no_entity_left": 3})));
    let rows = sql(
        folder,
        "SELECT r.entity, r.description, q.question, q.answer = p.answer AS same, q.rewrites \
         FROM rewrites r JOIN qa q ON q.qa_id = r.qa_id JOIN qa p ON p.qa_id = q.parent_qa_id WHERE r.invariant",
    );
    assert_eq!(rows.as_array().unwrap().len(), 3);
    for row in rows.as_array().unwrap() {
        let (_, _, told) = PLACES.into_iter().find(|(place, ..)| row["entity"] == *place).unwrap();
        assert_eq!(row["question"], format!("Who designed the bridge that stands at {told}?"));
        assert_eq!((&row["description"], &row["same"], &row["rewrites"]), (&json!(told), &json!(true), &json!(1)));
    }
    let asked = model.asked().len();
    let again = document(folder, 0, &e2hqa);
    assert_eq!(
        (&again["roots"], &again["done_before"], again["run_id"].clone()),
        (&json!(0), &json!(3), report["run_id"].clone())
    );
    assert_eq!(model.asked().len(), asked);
    // What the run made itself is no root of it: it would never end.
    let made = "SELECT * FROM current_qa WHERE method = 'e2hqa'";
    let own = document(folder, 0, &["synth", "e2hqa", "--rewrites", "2", "--sql", made]);
    assert_eq!((&own["roots"], &own["done_before"], &own["run_id"]), (&json!(0), &json!(0), &report["run_id"]));
    assert_eq!(model.asked().len(), asked);
    // For another run it is. Nothing is left in it that could be described: that is found out once.
    let new = ["synth", "e2hqa", "--rewrites", "3", "--sql", made];
    let report = document(folder, 0, &new);
    assert_eq!((&report["roots"], &report["stopped"]), (&json!(3), &json!({"no_entity_left": 3})));
    let asked = model.asked().len();
    let again = document(folder, 0, &new);
    assert_eq!((&again["roots"], &again["done_before"]), (&json!(0), &json!(3)));
    assert_eq!(model.asked().len(), asked);
}

#[test]
fn a_chain_that_was_cut_short_goes_on_and_questions_without_an_entity_are_no_roots() {
    let runtime = Runtime::new().unwrap();
    let model = model(&runtime);
    let folder = site(&model, "");
    let folder = folder.path();
    let question = |id: &str, kind: &str, question: &str, answer: &str| json!({"qa_id": id, "method": "import", "question": question, "answer": answer, "type": kind});
    let osby = question("root", "generic", "Who designed the bridge of the first ferry?", "Ida Storm");
    append(
        folder,
        &[
            event("qa", "1", &osby),
            event("qa", "2", &question("yes", "yes-no", "Is the bridge at Lund old?", "yes")),
            event("qa", "3", &question("many", "count", "How many bridges stand at Lund?", "2")),
        ],
    );
    let all = "SELECT * FROM current_qa";
    let e2hqa = ["synth", "e2hqa", "--rewrites", "2", "--sql", all];
    let output = webdancer(folder, &[&["--json"], &e2hqa[..]].concat(), b"");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["roots"], &report["stopped"]), (&json!(1), &json!({"no_entity_left": 1})), "{report}");
    assert!(text(&output.stderr).contains("2 questions are left out: yes, no, a count"), "{}", text(&output.stderr));
    // A chain of this run as a budget leaves it: one rewrite, and no end.
    let of_run = |event: String, parent: &str| {
        let mut event: Value = serde_json::from_str(&event).unwrap();
        event["runid"] = report["run_id"].clone();
        event["parents"] = json!(parent);
        event.to_string()
    };
    let begun = question("cut", "generic", "Who designed the bridge in the town of Ida?", "Ida Storm");
    let step = json!({"qa_id": "cut-1", "step": 1, "entity": "the town of Ida", "description": "Osby", "invariant": true,
                      "new_question": "Who designed the bridge at Osby?"});
    let mut made = question("cut-1", "generic", "Who designed the bridge at Osby?", "Ida Storm");
    made["rewrites"] = json!(1);
    made["attributes"] = json!({"root_qa_id": "cut"});
    append(
        folder,
        &[
            event("qa", "4", &begun),
            of_run(event("rewrite", "5", &step), "cut"),
            of_run(event("qa", "6", &made), "cut"),
            // Recorded again since, by nobody's run: its id follows from its words.
            event("qa", "7", &made),
        ],
    );
    let report = document(folder, 0, &e2hqa);
    assert_eq!((&report["roots"], &report["questions"], &report["done_before"]), (&json!(1), &json!(1), &json!(1)));
    assert_eq!((&report["chains_by_rewrites"], &report["stopped"]), (&json!({"2": 1}), &json!({"enough": 1})));
    let rows = sql(
        folder,
        "SELECT r.step, r.entity, q.question, q.rewrites, q.parent_qa_id, q.attributes->>'root_qa_id' AS root \
         FROM rewrites r JOIN qa q ON q.qa_id = r.qa_id WHERE r.step = 2",
    );
    assert_eq!(
        rows,
        json!([{"step": 2, "entity": "Osby", "rewrites": 2, "parent_qa_id": "cut-1", "root": "cut",
                "question": "Who designed the bridge at the town whose ferry sank in 1902?"}])
    );
    let again = document(folder, 0, &e2hqa);
    // Of the lake's four questions two are the run's own: no chains of their own.
    assert_eq!((&again["roots"], &again["done_before"]), (&json!(0), &json!(2)));
    // A rewrite without its question is no chain that is done.
    let mut lost = step.clone();
    lost["qa_id"] = json!("lost-1");
    let begun = question("lost", "generic", "Who designed the bridge that Ida forgot?", "Ida Storm");
    append(folder, &[event("qa", "8", &begun), of_run(event("rewrite", "9", &lost), "lost")]);
    let output = webdancer(folder, &[&["--json"], &e2hqa[..]].concat(), b"");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["roots"], &report["done_before"]), (&json!(0), &json!(2)));
    let told = "1 chains cannot go on: the lake lacks their last question, such as lost-1";
    assert!(text(&output.stderr).contains(told), "{}", text(&output.stderr));
}

#[test]
fn a_spent_budget_ends_cleanly_and_says_what_was_spent() {
    let runtime = Runtime::new().unwrap();
    let model = model(&runtime);
    let folder = site(&model, "[budget]\ntokens = 400\n");
    let folder = folder.path();
    let report = document(folder, 3, &[&CRAWLQA[..], &["--walks", "300", "--count", "5"]].concat());
    assert_eq!(report["budget_spent"], true);
    let output = webdancer(folder, &[&CRAWLQA[..], &["--count", "5"]].concat(), b"");
    assert_eq!(output.status.code(), Some(3));
    let told = text(&output.stderr);
    assert!(told.contains("the budget is spent (") && told.contains(" tokens read, "), "{told}");
    let state = sql(folder, "SELECT state, error FROM run_state WHERE kind = 'crawlqa'");
    assert_eq!(state, json!([{"state": "stopped", "error": "the budget is spent"}]));
}

#[test]
fn what_models_need_and_lack_is_said() {
    let runtime = Runtime::new().unwrap();
    let model = model(&runtime);
    let folder = site(&model, "");
    let folder = folder.path();
    std::fs::write(folder.join("none.toml"), "").unwrap();
    let reader = "[roles]\nsynthesiser = \"stub\"\n[endpoints.stub]\nurl = \"http://127.0.0.1:9\"\nmodel = \"stub\"\n\
                  [synth]\nreader = \"nobody\"\n";
    std::fs::write(folder.join("reader.toml"), reader).unwrap();
    std::fs::write(folder.join("never.toml"), "[synth.crawlqa.with_evidence]\ncalls = 4\nright = 5\n").unwrap();
    std::fs::write(folder.join("naught.toml"), "[synth.e2hqa]\npages_max = 0\n").unwrap();
    let cases: [(&[&str], &str); 9] = [
        (
            &["--config", "never.toml", "synth", "crawlqa", "--sql", "SELECT * FROM pages"],
            "synth.crawlqa: with_evidence must have calls from 1",
        ),
        (
            &["--config", "naught.toml", "synth", "e2hqa", "--sql", "SELECT * FROM qa"],
            "synth.e2hqa: pages_max must be at least 1",
        ),
        (
            &["--config", "reader.toml", "synth", "crawlqa", "--sql", "SELECT * FROM pages"],
            "synth.reader: no model plays the role \"nobody\"; roles: agent, ",
        ),
        (
            &["--config", "none.toml", "synth", "crawlqa", "--sql", "SELECT * FROM pages"],
            "roles.synthesiser: is missing",
        ),
        (&["synth", "crawlqa", "--sql", "SELECT * FROM pages WHERE false"], "no page has a text"),
        (&["synth", "crawlqa", "--sql", "SELECT url FROM pages"], "the pages: missing field `final_url`"),
        (&["synth", "crawlqa", "--pin", "nothing"], "there is no pin \"nothing\""),
        (&["synth", "e2hqa", "--sql", "SELECT * FROM qa"], "there are no questions to rewrite"),
        (
            &["synth", "crawlqa", "--sql", "SELECT * FROM pages", "--judge", "nobody"],
            "no model plays the role \"nobody\"",
        ),
    ];
    for (arguments, part) in cases {
        let output = webdancer(folder, arguments, b"");
        assert!(matches!(output.status.code(), Some(1 | 2)), "{arguments:?}");
        assert!(text(&output.stderr).contains(part), "{arguments:?}: {}", text(&output.stderr));
    }
    assert!(model.asked().is_empty());
}
