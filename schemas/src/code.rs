//! The version of the code that runs, as runs and pins record it.

use std::sync::OnceLock;

static VERSION: OnceLock<String> = OnceLock::new();

/// Says once for the process which commit it was built from. Handed in by the command, as only that is built again when
/// the commit changes. Nothing, or an empty text, is a build outside git; later calls change nothing.
pub fn name_commit(commit: Option<&str>) {
    VERSION.get_or_init(|| version_of(commit));
}

/// `0.1.0+COMMIT`, with `-dirty` after it if files were changed since; `0.1.0` where nobody named the commit.
pub fn version() -> String {
    VERSION.get().cloned().unwrap_or_else(|| version_of(None))
}

fn version_of(commit: Option<&str>) -> String {
    let release = env!("CARGO_PKG_VERSION");
    match commit.filter(|commit| !commit.is_empty()) {
        Some(commit) => format!("{release}+{commit}"),
        None => release.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_names_the_commit_where_there_is_one() {
        assert_eq!(version_of(Some("3c2c975-dirty")), "0.1.0+3c2c975-dirty");
        assert_eq!(version_of(Some("")), "0.1.0");
        assert_eq!(version_of(None), "0.1.0");
    }
}
