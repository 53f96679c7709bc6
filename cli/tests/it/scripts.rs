//! `sql` without a terminal: several statements, from an argument, a file and standard input.

use crate::{text, webdancer};

#[test]
fn a_script_ends_with_its_first_failure_and_names_the_line() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("lake")).unwrap();
    let run = |arguments: &[&str], script: &str| {
        let output = webdancer(folder.path(), &[&["sql"], arguments].concat(), script.as_bytes());
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let good = "SELECT 'a;\nb' AS x; -- one; two\n\\f ndjson\nSELECT 1 AS n; SELECT\n 2 AS n;\nSELECT 3 AS n";
    let (code, out, told) = run(&[], good);
    assert_eq!((code, told.as_str()), (Some(0), ""));
    assert_eq!(out, "x\n\"a;\nb\"\n{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n");
    for (script, code, out, message) in [
        ("SELECT 1 AS n;\n\nSELECT\nnothing;\nSELECT 2 AS n;\n", 2, "n\n1\n", "line 3: "),
        (
            "SELECT 1 AS n;\nSELECT 1/0 AS m;\nSELECT 2 AS n;\n",
            1,
            "n\n1\n",
            "line 2: running the query: Divide by zero",
        ),
        ("SELECT 1 AS n;\nDROP TABLE qa;", 2, "n\n1\n", "line 2: refused: DROP TABLE"),
        ("\n\\f nonsense\nSELECT 1;", 2, "", "line 2: "),
        ("\\nonsense\n", 2, "", "line 1: \\nonsense is no command"),
        ("SELECT 1 AS n;\nSELECT 'open;\nSELECT 2;\n", 2, "n\n1\n", "line 2: SQL syntax: Unterminated string"),
    ] {
        let (ended, printed, told) = run(&[], script);
        assert_eq!((ended, printed.as_str()), (Some(code), out), "{script}: {told}");
        assert!(told.starts_with(&format!("webdancer: {message}")) && told.lines().count() == 1, "{script}: {told}");
    }
    let cut = run(&["--max-rows", "1"], "SELECT 1 AS n;\nVALUES (1), (2);\nSELECT 2;");
    assert_eq!((cut.0, cut.1.as_str()), (Some(3), "n\n1\ncolumn1\n1\n"));
    assert!(cut.2.starts_with("webdancer: line 2: the result was cut at 1 rows"), "{}", cut.2);
    assert_eq!(run(&["--output", "f"], "SELECT 1 AS n; SELECT 2 AS n").0, Some(0));
    assert_eq!(std::fs::read_to_string(folder.path().join("f")).unwrap(), "n\n1\nn\n2\n");
    // Cut in the middle of a character or not, what is too long is said to be.
    for begin in ["SELECT '", "SELECT  '"] {
        let long = run(&[], &format!("{begin}{}';", "é".repeat(200_000)));
        assert_eq!((long.0, long.1.as_str()), (Some(1), ""));
        assert!(long.2.contains("the statement has more than 262144 bytes"), "{}", long.2);
    }
}

#[test]
fn statements_are_answered_alike_from_an_argument_a_file_and_standard_input() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("lake")).unwrap();
    for (format, script, code, out, message) in [
        ("csv", "SELECT 1 AS n; SELECT 2 AS m", 0, "n\n1\nm\n2\n", ""),
        ("json", "SELECT 1 AS n", 0, "[{\"n\":1}]\n", ""),
        ("json", "SELECT 1 AS n;\nSELECT 2 AS m;", 0, "[\n[{\"n\":1}]\n,\n[{\"m\":2}]\n]\n", ""),
        ("json", "SELECT 1 AS n;\nSELECT m", 2, "[\n[{\"n\":1}]\n]\n", "line 2: "),
        ("json", "SELECT n; SELECT 1", 2, "[]\n", "line 1: "),
        ("json", "/* nothing */", 0, "[]\n", ""),
        ("json", "SELECT 1 AS n;\n\\f csv\nSELECT 2", 2, "[\n[{\"n\":1}]\n]\n", "line 2: json is for a whole script"),
        ("csv", "\\f json\nSELECT 2", 2, "", "line 1: json is for a whole script"),
        ("parquet", "SELECT 1; SELECT 2", 2, "", "2 statements, and Parquet is one file"),
        ("csv", "SELECT 1/0 AS n; SELECT 1", 1, "", "line 1: running the query: Divide by zero"),
    ] {
        std::fs::write(folder.path().join("f.sql"), script).unwrap();
        for (arguments, input) in [(&[script][..], ""), (&["-f", "f.sql"], ""), (&[], script)] {
            let output =
                webdancer(folder.path(), &[&["sql", "--format", format], arguments].concat(), input.as_bytes());
            let told = text(&output.stderr);
            assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(code), out), "{script}: {told}");
            let expected = if message.is_empty() { String::new() } else { format!("webdancer: {message}") };
            assert!(told.starts_with(&expected) && told.is_empty() == message.is_empty(), "{script}: {told}");
        }
    }
    let one = webdancer(folder.path(), &["sql", "SELECT nothing"], b"");
    assert!(text(&one.stderr).starts_with("webdancer: SELECT nothing") || !text(&one.stderr).contains("line 1"));
}
