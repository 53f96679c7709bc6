//! A small lake about bridges, and commands upon it.

use std::path::Path;

use serde_json::{Value, json};

use crate::{text, webdancer};

/// Places with their bridges' designers, and what they may be described as.
pub(crate) const PLACES: [(&str, &str, &str); 5] = [
    ("Osby", "Ida Storm", "the town whose ferry sank in 1902"),
    ("Lund", "Marta Berg", "the town with two harbours"),
    ("Norre", "Olaf Dahl", "the town at the mouth of the river Ask"),
    ("Halden", "Rut Lindqvist", "the town that burnt twice"),
    ("Kestrel", "Per Holm", "the town named after a bird"),
];

/// A folder with these settings, whose lake has a page for each place.
pub(crate) fn bridges(settings: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("webdancer.toml"), settings).unwrap();
    let pages = PLACES.map(|(place, designer, _)| {
        let said = format!("{designer} designed the bridge at {place}. {}", "More is not told of it here. ".repeat(12));
        let url = format!("http://bridges.example/{place}");
        let data = json!({
            "url": url, "final_url": url, "root_url": "http://bridges.example/", "depth": 1, "status": 200,
            "title": format!("Bridge at {place}"), "text": said, "digest": format!("digest-{place}"),
        });
        event("page", place, &data)
    });
    append(folder.path(), &pages);
    folder
}

/// An event of a kind.
pub(crate) fn event(kind: &str, id: &str, data: &Value) -> String {
    let r#type = format!("webdancer.{kind}.v1");
    json!({"specversion": "1.0", "id": id, "source": "test", "type": r#type, "data": data}).to_string()
}

/// Appends events.
pub(crate) fn append(folder: &Path, events: &[String]) {
    let output = webdancer(folder, &["append"], events.join("\n").as_bytes());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

/// The result of a command that ends with this exit code.
pub(crate) fn document(folder: &Path, code: i32, arguments: &[&str]) -> Value {
    let output = webdancer(folder, &[&["--json"], arguments].concat(), b"");
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {}", text(&output.stderr)))
}

/// The rows of a query.
pub(crate) fn sql(folder: &Path, query: &str) -> Value {
    document(folder, 0, &["sql", query])
}
