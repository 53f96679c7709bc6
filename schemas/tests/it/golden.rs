//! Files under `schemas/json` and `schemas/golden` are generated; `UPDATE_GOLDEN=1 cargo test -p webdancer-schemas`
//! writes them. A change that breaks the last release's columns fails even then.

use std::path::PathBuf;

use webdancer_schemas::compat;
use webdancer_schemas::json_schema::event_schema;
use webdancer_schemas::kind::Kind;
use webdancer_schemas::table::table_schema;
use webdancer_schemas::wire::parse_structured;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &PathBuf) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}; see golden.rs", path.display()))
}

/// Compares with the file, or writes it under `UPDATE_GOLDEN`.
fn golden(path: PathBuf, now: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, now).unwrap();
    }
    assert_eq!(read(&path), now, "{} is out of date; UPDATE_GOLDEN=1 writes it", path.display());
}

#[test]
fn json_schemas_are_those_generated_from_the_rows() {
    for kind in Kind::ALL {
        let text = serde_json::to_string_pretty(&event_schema(*kind)).unwrap() + "\n";
        golden(root().join(format!("json/{}.v{}.json", kind.name(), kind.major())), &text);
    }
}

#[test]
fn tables_stay_readable_by_the_columns_of_the_last_release() {
    for kind in Kind::ALL {
        let path = root().join(format!("golden/v{}/{}.columns", kind.major(), kind.table()));
        let now = compat::describe(&table_schema(*kind));
        if path.exists() {
            assert_eq!(compat::check(&read(&path), &now), Vec::<String>::new(), "table {}", kind.table());
        }
        golden(path, &now);
    }
}

#[test]
fn events_written_by_every_release_still_parse_and_fit_their_row() {
    for kind in Kind::ALL {
        let path = root().join(format!("golden/v{}/{}.event.json", kind.major(), kind.name()));
        let text = read(&path);
        let (envelope, data) = parse_structured(text.as_bytes()).unwrap_or_else(|e| panic!("{kind}: {e}"));
        assert_eq!(envelope.kind, *kind);
        kind.check_row(data.get()).unwrap_or_else(|e| panic!("{kind}: {e}"));
    }
}

#[test]
fn every_column_is_documented_and_of_a_type_delta_has() {
    for kind in Kind::ALL {
        for field in table_schema(*kind).fields() {
            assert!(!field.metadata()[webdancer_schemas::column::DOC].is_empty(), "{kind}.{}", field.name());
        }
        let schema = table_schema(*kind);
        let names: std::collections::BTreeSet<_> = schema.fields().iter().map(|f| f.name()).collect();
        assert_eq!(names.len(), schema.fields().len(), "{kind} has a column twice");
    }
}
