//! Recorded and closed webs.

use std::sync::Arc;

use arrow::array::{ArrayRef, LargeStringArray, ListBuilder, StringArray, StringBuilder, StringViewArray};
use arrow::record_batch::RecordBatch;
use serde_json::{Value, json};
use webdancer_agent::index::PageIndex;
use webdancer_agent::tool::{Observation, ObservationLimits, Outcome, Source, Web};
use webdancer_agent::web::{Closed, Recorded, batches};
use webdancer_schemas::rows::{Page, Trajectory};

async fn call(web: &dyn Web, tool: &str, arguments: Value) -> Observation {
    web.call(tool, &arguments.to_string()).await
}

const DRAVA: &str = "A Google search for 'Drava' found 1 results:\n\n## Web Results\n1. [Drava](https://a.example/)";
const MURA: &str = "A Google search for 'the Mura' found 0 results:\n\nNothing.\n=======\nis a line of it";
const PAGE: &str = "The useful information in https://A.example:443/#top for user goal Its length as follows: \n\n\
    Evidence in page: \n725 km\n\nSummary: \nLong.";
const GONE: &str = "The useful information in https://gone.example/ for user goal any as follows: \n\n\
    Evidence in page: \nThe page could not be read: status 404.\n\nSummary: \nNothing.";

fn trajectory() -> Trajectory {
    let turns = [
        ("search", r#"{"query": ["Drava", "the  Mura"]}"#, format!("{DRAVA}\n=======\n{MURA}\n"), "done"),
        ("visit", r#"{"goal": "Its length", "url": ["https://A.example:443/#top"]}"#, format!("{PAGE}\n"), "done"),
        ("convert", r#"{"value": 725, "to": "miles"}"#, "450".to_string(), "done"),
        ("search", r#"{"query": ["broken"]}"#, "no answer".to_string(), "outage"),
        ("search", r#"{"query": ["Drava"]}"#, "another answer, later".to_string(), "done"),
        ("visit", r#"{"goal": "any", "url": ["https://gone.example/"]}"#, format!("{GONE}\n"), "unreachable"),
    ];
    let list = |of: fn(&(&str, &str, String, &str)) -> String| turns.iter().map(|turn| Some(of(turn))).collect();
    Trajectory {
        turn_tool: list(|turn| turn.0.to_string()),
        turn_arguments: list(|turn| turn.1.to_string()),
        turn_observation: list(|turn| turn.2.clone()),
        turn_outcome: Some(list(|turn| turn.3.to_string())),
        turn_source_urls: Some(sources("https://a.example/", "https://a.example/")),
        turn_source_digests: Some(sources("d1", "d2")),
        ..Trajectory::default()
    }
}

/// What the first two calls were answered from.
fn sources(first: &str, second: &str) -> Vec<Option<Vec<String>>> {
    let of = |source: &str| Some(vec![source.to_string()]);
    vec![of(first), of(second), None, None, None, None]
}

fn digests(sources: &[Source]) -> Vec<&str> {
    sources.iter().map(|source| source.digest.as_str()).collect()
}

fn recorded() -> Recorded {
    let mut web = Recorded::new("run-7", ObservationLimits::default());
    web.add(&trajectory());
    web
}

fn batch(row: &Trajectory) -> RecordBatch {
    let list = |values: &[Option<String>]| -> ArrayRef {
        let mut builder = ListBuilder::new(StringBuilder::new());
        builder.append_value(values.iter().cloned());
        Arc::new(builder.finish())
    };
    let nested = |values: &Option<Vec<Option<Vec<String>>>>| -> ArrayRef {
        let mut builder = ListBuilder::new(ListBuilder::new(StringBuilder::new()));
        let inner = |texts: &Option<Vec<String>>| Some(texts.clone()?.into_iter().map(Some).collect::<Vec<_>>());
        builder.append_value(values.as_ref().unwrap().iter().map(inner));
        Arc::new(builder.finish())
    };
    RecordBatch::try_from_iter([
        ("turn_tool", list(&row.turn_tool)),
        ("turn_arguments", list(&row.turn_arguments)),
        ("turn_observation", list(&row.turn_observation)),
        ("turn_outcome", list(row.turn_outcome.as_deref().unwrap())),
        ("turn_source_urls", nested(&row.turn_source_urls)),
        ("turn_source_digests", nested(&row.turn_source_digests)),
    ])
    .unwrap()
}

#[tokio::test]
async fn a_recorded_call_is_matched_by_its_normalised_arguments() {
    let mut of_batches = Recorded::new("run-7", ObservationLimits::default());
    of_batches.add_batch(&batch(&trajectory())).unwrap();
    for web in [recorded(), of_batches] {
        assert_eq!((web.name(), web.len()), ("recorded:run-7", 5));
        for (tool, arguments, expected, sources) in [
            // Whole.
            ("search", json!({"query": ["drava", "The Mura "]}), format!("{DRAVA}\n=======\n{MURA}\n"), vec!["d1"]),
            ("visit", json!({"url": "https://a.example/", "goal": " its LENGTH"}), format!("{PAGE}\n"), vec!["d2"]),
            ("convert", json!({"to": "Miles", "value": 725}), "450".to_string(), vec![]),
            // Parts of calls, in any order; a line of equals signs in one is its own.
            ("search", json!({"query": ["the mura", "Drava"]}), format!("{MURA}\n=======\n{DRAVA}\n"), vec!["d1"]),
            ("search", json!({"query": "the Mura"}), format!("{MURA}\n"), vec![]),
        ] {
            let found = call(&web, tool, arguments.clone()).await;
            assert_eq!((found.text, found.outcome), (expected, Outcome::Done), "{tool} {arguments}");
            assert_eq!(digests(&found.sources), sources, "{tool} {arguments}");
        }
        // What could not be had cannot be had again.
        for arguments in [
            json!({"url": ["https://gone.example/"], "goal": "any"}),
            json!({"url": ["https://gone.example/", "https://gone.example/#again"], "goal": "any"}),
        ] {
            assert_eq!(call(&web, "visit", arguments).await.outcome, Outcome::Unreachable);
        }
        // A call of its own goes before a part of another.
        assert_eq!(call(&web, "search", json!({"query": ["Drava"]})).await.text, "another answer, later");
    }
}

#[tokio::test]
async fn a_miss_is_said_and_counted() {
    let web = recorded();
    for (tool, arguments, expected) in [
        (
            "search",
            json!({"query": ["Sava", "the Mura"]}),
            format!(
                "A Google search for 'Sava' found no answer: the recorded web does not hold this query.\n=======\n{MURA}\n"
            ),
        ),
        (
            "visit",
            json!({"url": ["https://a.example/"], "goal": "its source"}),
            "The useful information in https://a.example/ for user goal its source as follows: \n\nEvidence in page: \n\
             The recorded web does not hold this page for this goal.\n\nSummary: \nNothing is known about this page. Try \
             another one.\n"
                .to_string(),
        ),
        ("convert", json!({"value": 1, "to": "miles"}), "The recorded web holds no such call.\n".to_string()),
        // What was recorded while the tool was down is no observation.
        (
            "search",
            json!({"query": ["broken"]}),
            "A Google search for 'broken' found no answer: the recorded web does not hold this query.\n".to_string(),
        ),
    ] {
        let found = call(&web, tool, arguments.clone()).await;
        assert_eq!((found.text, found.outcome), (expected, Outcome::Miss), "{tool} {arguments}");
    }
    for (tool, arguments, expected) in [
        ("calculate", "{}", "There is no tool \"calculate\". The tools are: search, visit, convert.\n"),
        (
            "search",
            "{\"query\"",
            "The call of search is not valid. The arguments are no JSON object: EOF while parsing an object at line 1 column 8.\n",
        ),
        (
            "visit",
            "{\"url\": [1]}",
            "The call of visit is not valid. The array \"url\" holds a number: give strings only.\n",
        ),
    ] {
        let found = web.call(tool, arguments).await;
        assert_eq!(found, Observation::new(expected, Outcome::Invalid));
    }
    let calls = web.calls();
    assert_eq!((calls["search"].miss, calls["search"].invalid, calls["search"].done), (2, 1, 0));
    assert_eq!((calls["visit"].miss, calls["convert"].miss, calls["(unknown)"].invalid), (1, 1, 1));
}

fn page(url: &str, title: &str, text: &str) -> Page {
    Page {
        url: format!("http://atlas.example/{url}"),
        final_url: format!("http://atlas.example/{url}"),
        title: Some(title.to_string()),
        text: Some(text.to_string()),
        ..Page::default()
    }
}

fn pages() -> Vec<Page> {
    vec![
        page("drava", "Drava", "The Drava is a river. It flows through Maribor and joins the Danube."),
        page("maribor", "Maribor", "Maribor is a city in Slovenia. It lies on the Drava."),
        page("mirror/drava", "Drava (mirror)", "The Drava is a river. It flows through Maribor and joins the Danube."),
        Page {
            final_url: "http://atlas.example/drava".to_string(),
            ..page("moved", "Drava", "The Drava is a river. It flows through Maribor and joins the Danube.")
        },
        Page { text: None, error: Some("status 404".to_string()), ..page("gone", "", "") },
        page("beijing", "北京", "北京是中华人民共和国的首都。"),
        page("cote", "Côte d'Ivoire", "Its capital is Yamoussoukro."),
        page("same-1", "Twin", "Of equal worth."),
        page("same-2", "Twin", "Of equal worth, too."),
        page("drava", "Drava, again", "A later row of the same URL."),
    ]
}

fn closed(index: PageIndex) -> Closed {
    Closed::new("0123abcd", Arc::new(index), None, &ObservationLimits::default())
}

#[tokio::test]
async fn a_closed_web_searches_and_reads_its_pages() {
    let web = closed(PageIndex::in_memory(pages()).unwrap());
    assert_eq!(web.name(), "closed:0123abcd");
    let found = call(&web, "search", json!({"query": ["Which river flows through Maribor?"]})).await;
    assert_eq!(
        found.text,
        "A Google search for 'Which river flows through Maribor?' found 2 results:\n\n## Web Results\n\
         1. [Drava](http://atlas.example/drava)\n\nThe Drava is a river. It flows through Maribor and joins the Danube.\n\n\
         2. [Maribor](http://atlas.example/maribor)\n\nMaribor is a city in Slovenia. It lies on the Drava.\n"
    );
    let visit = |url: &str| json!({"url": [url], "goal": "Which river does the Drava join?"});
    // The page, its mirror, what redirected to it, and another spelling of its URL.
    for url in ["drava", "mirror/drava", "moved", "drava#history"] {
        let found = call(&web, "visit", visit(&format!("http://ATLAS.example/{url}"))).await;
        assert_eq!(found.outcome, Outcome::Done, "{url}");
        assert_eq!(
            found.text,
            format!(
                "The useful information in http://ATLAS.example/{url} for user goal Which river does the Drava join? as \
                 follows: \n\nEvidence in page: \n# Drava\n\nThe Drava is a river. It flows through Maribor and joins the \
                 Danube.\n\nSummary: \nThe Drava is a river.\n"
            )
        );
    }
    for (url, reason) in [("gone", "status 404"), ("other", "there is no page at this URL")] {
        let found = call(&web, "visit", visit(&format!("http://atlas.example/{url}"))).await;
        assert_eq!(found.outcome, Outcome::Unreachable);
        assert!(found.text.contains(&format!("The page could not be read: {reason}.")), "{}", found.text);
    }
    assert_eq!((web.calls()["visit"].done, web.calls()["visit"].unreachable), (4, 2));
}

#[test]
fn queries_find_pages_by_stem_accent_and_script() {
    let index = PageIndex::in_memory(pages()).unwrap();
    let urls = |query: &str| -> Vec<String> {
        let hits = index.find(query, 10).unwrap();
        hits.into_iter().map(|hit| hit.url.trim_start_matches("http://atlas.example/").to_string()).collect()
    };
    assert_eq!(urls("cities"), ["maribor"]);
    assert_eq!(urls("cote d'ivoire"), ["cote"]);
    assert_eq!(urls("中国的首都北京"), ["beijing"]);
    // Of equal worth: in the order of the pages.
    assert_eq!(urls("twins"), ["same-1", "same-2"]);
    assert_eq!(urls("Drava")[0], "drava");
    for query in ["", "?!", "quantum", "\"", "*", "\0"] {
        assert_eq!(urls(query), Vec::<String>::new(), "{query}");
    }
    // There is no syntax that could be got wrong.
    assert_eq!(urls("url:drava AND (+\"Drava~2\"^9 OR *)")[0], "drava");
    assert_eq!(index.find("Drava", 0).unwrap(), []);
}

#[test]
fn an_index_in_a_folder_is_made_once() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("indexes/0123abcd");
    let made = PageIndex::in_folder(&at, || Ok(pages())).unwrap();
    let opened = PageIndex::in_folder(&at, || panic!("it is there")).unwrap();
    let in_memory = PageIndex::in_memory(pages()).unwrap();
    for query in ["river Drava", "capital", "北京"] {
        let expected = in_memory.find(query, 10).unwrap();
        assert_eq!(made.find(query, 10).unwrap(), expected);
        assert_eq!(opened.find(query, 10).unwrap(), expected);
    }
    assert_eq!(std::fs::read_dir(folder.path().join("indexes")).unwrap().count(), 1, "nothing but the index is left");
    // A build that fails leaves nothing that would pass for an index.
    let broken = folder.path().join("indexes/broken");
    PageIndex::in_folder(&broken, no_pages).unwrap_err();
    assert!(!broken.exists());
    std::fs::create_dir(&broken).unwrap();
    assert!(PageIndex::in_folder(&broken, || Ok(pages())).is_err());
}

fn no_pages() -> Result<Vec<Page>, webdancer_agent::index::IndexError> {
    PageIndex::in_folder(std::path::Path::new("/dev/null/index"), || Ok(Vec::new())).map(|_| Vec::new())
}

#[test]
fn pages_are_read_from_batches_of_any_string_type() {
    let expected = vec![
        Page { url: "http://a.example/".to_string(), text: Some("text".to_string()), ..Page::default() },
        Page { url: "http://b.example/".to_string(), error: Some("status 404".to_string()), ..Page::default() },
    ];
    let urls = ["http://a.example/", "http://b.example/"];
    let texts = [Some("text"), None];
    let errors: ArrayRef = Arc::new(StringArray::from(vec![None, Some("status 404")]));
    let columns: [(ArrayRef, ArrayRef); 2] = [
        (Arc::new(StringViewArray::from_iter_values(urls)), Arc::new(StringViewArray::from_iter(texts))),
        (Arc::new(LargeStringArray::from_iter_values(urls)), Arc::new(LargeStringArray::from_iter(texts))),
    ];
    for (url, text) in columns {
        let batch = RecordBatch::try_from_iter([("url", url), ("text", text), ("error", errors.clone())]).unwrap();
        assert_eq!(batches::pages(&batch), Ok(expected.clone()));
    }
    let batch = RecordBatch::try_from_iter([("url", errors)]).unwrap();
    let error = batches::pages(&batch).unwrap_err().to_string();
    assert_eq!(error, "column text: is missing; select the table's columns as they are");
}

#[tokio::test]
async fn a_part_of_a_recorded_call_has_its_own_sources_alone() {
    let (first, second) = ("https://x.example/A", "https://x.example/A_B");
    let page = |url: &str| {
        format!(
            "The useful information in {url} for user goal g as follows: \n\nEvidence in page: \nSee {second} and \
             {first}.\n\nSummary: \nBoth."
        )
    };
    let found = |query: &str, url: &str| {
        format!("A Google search for '{query}' found 1 results:\n\n## Web Results\n1. [T]({url})")
    };
    let one = |text: String| vec![Some(text)];
    let both = |one: &str, other: &str| Some(vec![Some(vec![one.to_string(), other.to_string()])]);
    let mut web = Recorded::new("r", ObservationLimits::default());
    web.add(&Trajectory {
        turn_tool: one("visit".to_string()),
        turn_arguments: one(json!({"url": [first, second], "goal": "g"}).to_string()),
        turn_observation: one(format!("{}\n=======\n{}\n", page(first), page(second))),
        turn_source_urls: both(first, second),
        turn_source_digests: both("d1", "d2"),
        ..Trajectory::default()
    });
    web.add(&Trajectory {
        turn_tool: one("search".to_string()),
        turn_arguments: one(json!({"query": ["one", "two"]}).to_string()),
        turn_observation: one(format!("{}\n=======\n{}\n", found("one", first), found("two", second))),
        turn_source_urls: both(first, second),
        turn_source_digests: both("r1", "r2"),
        ..Trajectory::default()
    });
    for (tool, arguments, due) in [
        ("visit", json!({"url": [first], "goal": "g"}), vec!["d1"]),
        ("visit", json!({"url": [second], "goal": "g"}), vec!["d2"]),
        ("visit", json!({"url": [second, first], "goal": "g"}), vec!["d2", "d1"]),
        ("search", json!({"query": ["one"]}), vec!["r1"]),
        ("search", json!({"query": ["two"]}), vec!["r2"]),
    ] {
        let found = call(&web, tool, arguments.clone()).await;
        assert_eq!((found.outcome, digests(&found.sources)), (Outcome::Done, due), "{tool} {arguments}");
    }
}

#[tokio::test]
async fn a_page_made_of_excerpts_is_no_page_that_can_be_known_again() {
    let page = Page {
        url: "https://x.example/A".to_string(),
        final_url: "https://x.example/A".to_string(),
        text: Some("The Drava.".to_string()),
        ..Page::default()
    };
    let pages = Arc::new(PageIndex::in_memory([page]).unwrap());
    let limits = ObservationLimits::default();
    let closed = Closed::new("d", pages.clone(), None, &limits);
    for (web, due) in [(closed, 1), (Closed::visited("r", pages, &limits), 0)] {
        let found = call(&web, "visit", json!({"url": ["https://x.example/A"], "goal": "g"})).await;
        assert_eq!((found.outcome, found.sources.len()), (Outcome::Done, due), "{}", web.name());
    }
}
