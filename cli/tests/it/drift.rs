//! Why scores change, runs that are made again, and where a score comes from: over a small site and models that read it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use webdancer_tests::stub_model::{Answer, StubModel};

use crate::lake::{PLACES, append, bridges, document, event, sql};
use crate::{text, webdancer};

/// Models by their names. `careful` and `twin` read a place's page and answer with what it says, as `curious` does, who asks it
/// for something else; `bold` reads it and says the same whatever it says; `lenient` judges, and lets pass whatever names a designer.
fn models(runtime: &Runtime, is_moody: Arc<AtomicBool>) -> StubModel {
    runtime.block_on(StubModel::scripted(move |asked, _| {
        let messages = asked.body["messages"].as_array().unwrap();
        let told = messages[1]["content"].as_str().unwrap();
        if asked.body["model"] == "lenient" {
            let case: Value = serde_json::from_str(told).unwrap();
            let names_one = PLACES.iter().any(|(_, designer, _)| case["given_answer"] == json!(designer));
            return Answer::says(if names_one { "Correct" } else { "Incorrect" });
        }
        let question = told.rsplit("User: ").next().unwrap();
        let (place, ..) = PLACES.into_iter().find(|(place, ..)| question.contains(place)).unwrap();
        if messages.len() == 2 {
            let goal = if asked.body["model"] == "curious" { "whose design it is" } else { "who designed it" };
            let call = json!({"name": "visit", "arguments": {"url": [page(place)], "goal": goal}});
            return Answer::says(format!("<think>\nI look.\n</think>\n<tool_call>\n{call}\n</tool_call>"));
        }
        let shown = messages.last().unwrap()["content"].as_str().unwrap();
        let read = shown.split("Evidence in page: \n").nth(1).and_then(|rest| rest.split(" designed").next());
        let answer = if asked.body["model"] == "bold" { "Ida Storm" } else { read.unwrap_or("unknown") };
        let mood = if is_moody.load(Ordering::Relaxed) { "Well" } else { "So" };
        Answer::says(format!(
            "<think>\n{mood}.\n</think>\n<answer>\n{}\n</answer>",
            answer.trim_start_matches(['#', ' '])
        ))
    }))
}

fn page(place: &str) -> String {
    format!("http://bridges.example/{place}")
}

/// The pages, and the same with all designers but one replaced.
const PAGES: &str = "SELECT url, text, digest FROM pages";
const EDITED: &str = "SELECT url, regexp_replace(text, '^(Marta Berg|Olaf Dahl|Rut Lindqvist|Per Holm)', 'Nobody') AS text, \
    digest FROM pages";
const FEW: &str = "SELECT url, text, digest FROM pages WHERE url LIKE '%Osby'";

/// A lake with the pins `pages`, `edited` and `few`, and a benchmark of five questions about the pages.
fn site(model: &StubModel) -> tempfile::TempDir {
    let endpoint = |name: &str| format!("[endpoints.{name}]\nurl = \"{}\"\nmodel = \"{name}\"\n", model.url());
    let endpoints: String = ["careful", "twin", "bold", "curious", "lenient"].map(endpoint).concat();
    let settings = format!(
        "[roles]\njudge = \"lenient\"\n{endpoints}[benchmarks.bridges]\nfile = \"bridges.jsonl\"\nquestion = \"q\"\n\
         answer = \"gold\"\nscorer = \"exact\"\njudge_style = \"match\"\nterms = \"Ours.\"\n"
    );
    let folder = bridges(&settings);
    let row = |(place, designer, _): (&str, &str, &str)| {
        json!({"q": format!("Who designed the bridge at {place}?"), "gold": designer}).to_string()
    };
    std::fs::write(folder.path().join("bridges.jsonl"), PLACES.map(row).join("\n")).unwrap();
    for (pin, query) in [("pages", PAGES), ("edited", EDITED), ("few", FEW)] {
        document(folder.path(), 0, &["pin", "create", pin, "--sql", query]);
    }
    folder
}

/// A run of a policy on a web, and its score.
fn run(folder: &Path, policy: &str, web: &str, more: &[&str]) -> (String, f64) {
    let (policy, judge) = (format!("endpoint:{policy}"), ["--judge", "none"]);
    let arguments = [&["eval", "run", "bridges", "--policy", &policy, "--web", web][..], &judge, more].concat();
    let made = document(folder, 0, &arguments);
    (made["run_id"].as_str().unwrap().to_string(), made["scores"]["pass_at_1"].as_f64().unwrap())
}

/// The parts of a change, those of nothing left out.
fn parts(drift: &Value) -> Vec<(&str, f64)> {
    let parts = drift["parts"].as_array().unwrap().iter();
    let part = |part: &'_ Value| part["difference"]["value"].as_f64().unwrap();
    parts
        .filter(|one| part(one).abs() > 1e-9)
        .map(|one| (one["cause"].as_str().unwrap(), (part(one) * 1e6).round() / 1e6))
        .collect()
}

#[test]
fn a_changed_score_is_the_webs_the_models_or_the_judges() {
    let runtime = Runtime::new().unwrap();
    let model = models(&runtime, Arc::default());
    let site = site(&model);
    let folder = site.path();
    let (first, score) = run(folder, "careful", "closed:pages", &[]);
    assert_eq!(score, 1.0);
    let (edited, score) = run(folder, "careful", "closed:edited", &[]);
    assert_eq!(score, 0.2);
    let (bold, score) = run(folder, "bold", "closed:pages", &[]);
    assert_eq!(score, 0.2);
    let (lenient, score) = run(folder, "bold", "closed:pages", &["--scorer", "judge"]);
    assert_eq!(score, 1.0);

    let asked = model.asked().len();
    for (after, differs, cause, due, changed) in [(&edited, "web", "web", -0.8, 4), (&bold, "policy", "model", -0.8, 0)]
    {
        let drift = document(folder, 0, &["eval", "drift", &first, after]);
        let compared = document(folder, 0, &["eval", "compare", &first, after]);
        assert_eq!(compared["split"]["parts"]["parts"], drift["parts"]);
        assert_eq!(compared["web"]["pages"], json!({"common": 5, "changed": changed}));
        assert_eq!((parts(&drift), &drift["work"]["differs"]), (vec![(cause, due)], &json!(differs)));
        assert_eq!((&drift["attributed_to"], &drift["interaction"]), (&json!([cause]), &Value::Null));
    }
    assert_eq!(model.asked().len(), asked, "what differs alone needs no further run");

    let in_force = "SELECT run_id, count(*) AS n, count(*) FILTER (WHERE correct) AS correct FROM evaluations \
        GROUP BY run_id ORDER BY run_id";
    let before = sql(folder, in_force);
    let told = text(&webdancer(folder, &["eval", "compare", &first, &edited], b"").stdout);
    assert!(told.contains("What changed Pass@1") && told.contains("points: by the web."), "{told}");
    assert!(told.contains("The web between them: 4 of 5 pages that both runs read had changed."), "{told}");
    let refused = webdancer(folder, &["eval", "compare", &bold, &lenient], b"");
    let due = format!("`webdancer eval drift {bold} {lenient}`");
    assert!(refused.status.code() == Some(2) && text(&refused.stderr).contains(&due), "{}", text(&refused.stderr));
    let planned = document(folder, 0, &["eval", "drift", &bold, &lenient, "--plan"]);
    assert_eq!((&planned["judgments"], &planned["attempts"]), (&json!(10), &json!(0)));
    for _ in 0..2 {
        let drift = document(folder, 0, &["eval", "drift", &bold, &lenient]);
        assert_eq!((parts(&drift), &drift["attributed_to"]), (vec![("judge", 0.8)], &json!(["judge"])));
    }
    assert_eq!(document(folder, 0, &["eval", "drift", &bold, &lenient, "--plan"])["judgments"], 0);
    // Both judges have judged both runs by now.
    let compared = document(folder, 0, &["eval", "compare", &bold, &lenient]);
    let by_judge = &compared["split"]["parts"]["parts"][0];
    assert_eq!((&by_judge["cause"], &by_judge["difference"]["value"]), (&json!("judge"), &json!(0.8)));
    assert!(compared["refused"].as_str().unwrap().contains("a difference would be the judges', too"), "{compared}");
    assert_eq!(compared.get("difference"), None);
    assert_eq!(sql(folder, in_force), before, "another judge's verdicts do not count");
}

#[test]
fn where_policy_and_web_differ_each_is_tried_on_the_others_in_runs_that_go_on() {
    let runtime = Runtime::new().unwrap();
    let model = models(&runtime, Arc::default());
    let site = site(&model);
    let folder = site.path();
    let (first, _) = run(folder, "careful", "closed:pages", &[]);
    let (twin, score) = run(folder, "twin", "closed:edited", &[]);
    assert_eq!(score, 0.2);
    let planned = document(folder, 0, &["eval", "drift", &first, &twin, "--plan"]);
    let work = ["attempts", "model_calls", "judgments"].map(|name| planned[name].as_u64().unwrap());
    assert_eq!((work, planned["runs"].as_array().unwrap().len()), ([10, 20, 10], 2));
    // To compare them makes nothing: it names the command that does.
    let command = format!("webdancer eval drift {first} {twin}");
    let missing = document(folder, 0, &["eval", "compare", &first, &twin])["split"]["missing"].take();
    assert_eq!((&missing["command"], &missing["attempts"]), (&json!(command), &json!(10)));
    let told = text(&webdancer(folder, &["eval", "compare", &first, &twin], b"").stdout);
    assert!(told.contains(&format!("Why the score changed: `{command}` tells (policy and web differ")), "{told}");
    // A budget ends it; the same command goes on.
    let output = webdancer(folder, &["eval", "drift", &first, &twin, "--max-tokens", "1", "--concurrency", "1"], b"");
    let told = text(&output.stderr);
    assert!(output.status.code() == Some(3) && told.contains("the same command goes on"), "{told}");
    let drift = document(folder, 0, &["eval", "drift", &first, &twin]);
    assert_eq!((parts(&drift), &drift["attributed_to"]), (vec![("web", -0.8)], &json!(["web"])));
    assert_eq!(drift["interaction"]["value"], 0.0);
    let asked = model.asked().len();
    let again = document(folder, 0, &["eval", "drift", &first, &twin]);
    assert_eq!((&again["parts"], model.asked().len()), (&drift["parts"], asked));
    assert_eq!(document(folder, 0, &["eval", "compare", &first, &twin])["split"]["parts"]["parts"], drift["parts"]);
    // They are runs like any other, of which it is known what they are for.
    let made = "SELECT state, parent_run, json_get_str(config, 'policy') AS policy FROM run_state \
        WHERE parent_run IS NOT NULL ORDER BY policy";
    let due = [("endpoint:careful", &first), ("endpoint:twin", &twin)];
    let due = due.map(|(policy, parent)| json!({"state": "finished", "parent_run": parent, "policy": policy}));
    assert_eq!(sql(folder, made), json!(due));

    // Whoever does not look at pages loses nothing by another web: half of the change is either's, and that is said.
    let (bold, _) = run(folder, "bold", "closed:edited", &[]);
    let mixed = document(folder, 0, &["eval", "drift", &first, &bold]);
    assert_eq!(parts(&mixed), [("model", -0.4), ("web", -0.4)]);
    assert_eq!(mixed["interaction"]["value"].as_f64().map(|value| (value * 1e6).round() / 1e6), Some(0.8));

    // A web that holds one page of five says nothing about a policy that asks for all.
    let (few, _) = run(folder, "bold", "closed:few", &[]);
    let output = webdancer(folder, &["eval", "drift", &first, &few], b"");
    let told = text(&output.stderr);
    assert!(output.status.code() == Some(2) && told.contains("missed 80.0 % of its calls"), "{told}");
    let refused = document(folder, 0, &["eval", "compare", &first, &few])["split"]["refused"].take();
    assert!(refused.as_str().unwrap().contains("missed 80.0 % of its calls"), "{refused}");
    // An endpoint that is another's now cannot stand for the run's policy.
    let settings = std::fs::read_to_string(folder.join("webdancer.toml")).unwrap();
    let gone = settings.replace("model = \"twin\"", "model = \"other\"");
    std::fs::write(folder.join("webdancer.toml"), gone).unwrap();
    let (other, _) = run(folder, "careful", "closed:few", &[]);
    let told = text(&webdancer(folder, &["eval", "drift", &twin, &other], b"").stderr);
    assert!(told.contains("endpoint twin has the model \"other\" now") && told.contains("--before-policy"), "{told}");
}

#[test]
fn a_policy_that_asks_a_recording_for_other_things_is_not_said_to_be_worse() {
    let runtime = Runtime::new().unwrap();
    let model = models(&runtime, Arc::default());
    let site = site(&model);
    let folder = site.path();
    let (first, _) = run(folder, "careful", "closed:pages", &[]);
    let recorded = format!("recorded:{first}");
    let (careful, score) = run(folder, "careful", &recorded, &[]);
    assert_eq!(score, 1.0);
    // Who asks the same is compared, and the misses are shown.
    let (bold, _) = run(folder, "bold", &recorded, &[]);
    let drift = document(folder, 0, &["eval", "drift", &careful, &bold]);
    let misses: Vec<&Value> = drift["cells"].as_array().unwrap().iter().map(|cell| &cell["misses"]).collect();
    assert_eq!((parts(&drift), misses), (vec![("model", -0.8)], vec![&json!({"calls": 5, "missed": 0}); 2]));
    let (curious, score) = run(folder, "curious", &recorded, &[]);
    assert_eq!(score, 0.0);
    let output = webdancer(folder, &["eval", "drift", &careful, &curious], b"");
    let told = text(&output.stderr);
    assert!(output.status.code() == Some(2) && told.contains("missed 100.0 % of its calls"), "{told}");
    let refused = document(folder, 0, &["eval", "compare", &careful, &curious])["split"]["refused"].take();
    assert!(refused.as_str().unwrap().contains("missed 100.0 % of its calls"), "{refused}");
    // What visits showed is a web that does not know of goals.
    let visited = format!("visited:{first}");
    let (careful, curious) = (run(folder, "careful", &visited, &[]).0, run(folder, "curious", &visited, &[]).0);
    let drift = document(folder, 0, &["eval", "drift", &careful, &curious]);
    assert_eq!(drift["cells"][1]["misses"], json!({"calls": 5, "missed": 0}));
}

#[test]
fn what_visits_showed_is_a_web_that_other_questions_find_pages_in() {
    let runtime = Runtime::new().unwrap();
    let model = models(&runtime, Arc::default());
    let site = site(&model);
    let folder = site.path();
    let (first, _) = run(folder, "careful", "closed:edited", &[]);
    let (again, score) = run(folder, "twin", &format!("visited:{first}"), &[]);
    assert_eq!(score, 0.2);
    let outcomes = format!("SELECT DISTINCT outcome FROM tool_calls WHERE run_id = '{again}'");
    assert_eq!(sql(folder, &outcomes), json!([{"outcome": "done"}]));
    let told =
        text(&webdancer(folder, &["sample", "--policy", "endpoint:twin", "--web", "visited:nobody"], b"").stderr);
    assert!(told.contains("--web visited:nobody: its trajectories visited no page"), "{told}");
}

#[test]
fn a_run_made_again_is_identical_or_it_is_said_where_and_why_it_is_not() {
    let runtime = Runtime::new().unwrap();
    let is_moody = Arc::new(AtomicBool::new(false));
    let model = models(&runtime, is_moody.clone());
    let site = site(&model);
    let folder = site.path();
    let (first, _) = run(folder, "careful", "closed:pages", &["--attempts", "2", "--seed", "7"]);
    let same = document(folder, 0, &["reproduce", &first]);
    assert_eq!((&same["attempts"]["attempts"], &same["attempts"]["identical"]), (&json!(10), &json!(10)));
    assert_eq!((&same["judged"], &same["judged_alike"], &same["identical"]), (&json!(10), &json!(10), &json!(true)));
    let seeds = "SELECT count(DISTINCT seed) AS seeds, count(*) AS n, count(DISTINCT system_prompt) AS prompts FROM trajectories";
    assert_eq!(sql(folder, seeds), json!([{"seeds": 10, "n": 20, "prompts": 1}]));

    let edited = document(folder, 3, &["reproduce", &first, "--web", "closed:edited"]);
    assert_eq!(edited["attempts"]["differing"], json!({"what the web answered": 8}));
    let one = &edited["attempts"]["first"][0];
    assert_eq!((&one["turn"], &one["what"]), (&json!(0), &json!("observation")));
    let few = document(folder, 3, &["reproduce", &first, "--web", "closed:few"]);
    assert_eq!(few["attempts"]["first"][0]["why"], "the web does not hold it");

    is_moody.store(true, Ordering::Relaxed);
    let output = webdancer(folder, &["reproduce", &first], b"");
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert!(told.contains("10 differ first in what the model wrote"), "{told}");
    assert!(
        told.contains("attempt 0, turn 1: what the model wrote: its endpoint does not say which weights"),
        "{told}"
    );

    let pin = document(folder, 0, &["reproduce", "edited"]);
    assert_eq!((&pin["recomputed"], &pin["identical"]), (&json!("identical"), &json!(true)));
    let told = text(&webdancer(folder, &["reproduce", "no-such"], b"").stderr);
    assert!(told.contains("no run in the tables has that id, and there is no pin"), "{told}");
}

#[test]
fn attempts_that_read_their_question_on_a_page_are_flagged_and_scored_apart() {
    let runtime = Runtime::new().unwrap();
    let model = models(&runtime, Arc::default());
    let site = site(&model);
    let folder = site.path();
    let leak =
        format!("Marta Berg designed, says this list: 1. Who designed the bridge at Lund? {}", "More. ".repeat(30));
    let page = json!({"url": page("Lund"), "final_url": page("Lund"), "root_url": page(""), "depth": 1, "status": 200,
        "text": leak, "digest": "leak"});
    append(folder, &[event("page", "leak", &page)]);
    let query = "SELECT url, text, digest FROM pages WHERE url NOT LIKE '%Lund' OR digest = 'leak'";
    document(folder, 0, &["pin", "create", "leaking", "--sql", query]);
    let (clean, _) = run(folder, "bold", "closed:pages", &[]);
    let (leaking, _) = run(folder, "careful", "closed:leaking", &[]);
    let report = document(folder, 0, &["eval", "report", "--run", &leaking]);
    let found = &report[0]["contamination"];
    assert_eq!((&found["checked"], found["flagged"].as_array().unwrap().len()), (&json!(5), 1));
    let flagged = &found["flagged"][0];
    assert_eq!((&flagged["leak"], &flagged["url"]), (&json!("question"), &page["url"]));
    assert_eq!((&found["contaminated"]["questions"], &found["clean"]["value"]), (&json!(1), &json!(1.0)));
    let report = document(folder, 0, &["eval", "report", "--run", &clean]);
    assert_eq!(report[0]["contamination"]["flagged"], json!([]));
    let shown = text(&webdancer(folder, &["eval", "report", "--run", &leaking], b"").stdout);
    assert!(shown.contains("Contamination: 1 of 5 attempts saw question or answer"), "{shown}");
    assert!(shown.contains("what stands elsewhere on another page is not found"), "{shown}");
    // The address that a gated question led to has its words, and a report is passed on.
    let of = format!(
        "SELECT qa_id, method, question, answer FROM qa WHERE qa_id = '{}'",
        flagged["qa_id"].as_str().unwrap()
    );
    let mut gated = sql(folder, &of)[0].clone();
    gated["attributes"] = json!({"benchmark": "bridges", "restricted": true});
    append(folder, &[event("qa", "gated", &gated)]);
    let report = document(folder, 0, &["eval", "report", "--run", &leaking]);
    assert_eq!(report[0]["contamination"]["flagged"][0]["url"], "(gated)");
}

#[test]
fn lineage_is_a_tree_for_people_a_graph_for_programs_and_events_for_others() {
    let runtime = Runtime::new().unwrap();
    let model = models(&runtime, Arc::default());
    let site = site(&model);
    let folder = site.path();
    let (first, _) = run(folder, "careful", "closed:pages", &[]);
    let shown = text(&webdancer(folder, &["lineage", &first], b"").stdout);
    for part in [
        &format!("run {first}  eval, finished, bridges, by endpoint:careful"),
        "was the web of it: pin",
        "made: trajectory",
        &format!("score {first}  5 of 5 attempts correct"),
        "counts in it: judgment",
        "was visited in it: page digest-Osby  http://bridges.example/Osby",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let graph = document(folder, 0, &["lineage", &page("Osby"), "--down", "6"]);
    let kinds: std::collections::BTreeSet<&str> =
        graph["nodes"].as_array().unwrap().iter().map(|node| node["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["judgment", "page", "pin", "run", "score", "trajectory"]);
    assert_eq!(graph["roots"], json!(["page:digest-Osby"]));
    let output = webdancer(folder, &["lineage", "nothing"], b"");
    assert!(text(&output.stderr).contains("nothing in the lake has the id \"nothing\""), "{}", text(&output.stderr));

    // Sent where the settings say, with the key, after a failure; and written.
    let receiver = runtime.block_on(StubModel::scripted(|_, number| match number {
        0 => Answer::status(503),
        _ => Answer::json(&json!({})),
    }));
    let settings = std::fs::read_to_string(folder.join("webdancer.toml")).unwrap();
    let url = receiver.url().trim_end_matches("/v1").to_string();
    std::fs::write(folder.join("key"), "a-secret-key").unwrap();
    let openlineage = format!(
        "[openlineage]\nurl = \"{url}\"\nendpoint = \"v1/chat/completions\"\nkey_file = \"key\"\nrequests = {{ backoff_ms = 1 }}\n"
    );
    std::fs::write(folder.join("webdancer.toml"), format!("{openlineage}{settings}")).unwrap();
    let output = webdancer(folder, &["lineage", "--openlineage", "--run", &first], b"");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let events: Vec<Value> = text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let types: Vec<&Value> = events.iter().map(|event| &event["eventType"]).collect();
    assert_eq!(types, [&json!("START"), &json!("COMPLETE")]);
    let asked = receiver.asked();
    let sent: Vec<&Value> = asked[1..].iter().map(|asked| &asked.body).collect();
    assert_eq!((sent, asked[1].uri.as_str()), (events.iter().collect(), "/v1/chat/completions"));
    assert_eq!(asked[1].header("authorization"), Some("Bearer a-secret-key"));
    let told = text(&webdancer(folder, &["lineage", "--openlineage", "--run", "nobody"], b"").stderr);
    assert!(told.contains("there is no run nobody"), "{told}");
}
