//! The formats, as written.

use std::io::{ErrorKind, Write};

use arrow::array::{AsArray as _, RecordBatchReader as _};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use webdancer_query::output::{Format, TableOptions, objects, write_result};
use webdancer_query::{QueryEngine, QueryError, QueryOptions};

use crate::support::Memory;

const SQL: &str = "SELECT * FROM (VALUES
    (1, 'plain', 0.5, [1, NULL], named_struct('a', 'x'), TIMESTAMP '2026-01-02T03:04:05Z', true),
    (2, 'quote \" comma, line
break', NULL, NULL, NULL, NULL, false)
) AS t (n, text, share, list, object, time, flag) ORDER BY n";

async fn written(engine: &QueryEngine, sql: &str, format: &str) -> Vec<u8> {
    let mut result = engine.query(sql, &QueryOptions::default()).await.unwrap();
    write_result(&mut result, format.parse().unwrap(), Vec::new(), TableOptions::default()).await.unwrap()
}

async fn text(sql: &str, format: &str) -> String {
    String::from_utf8(written(&Memory::default().engine(), sql, format).await).unwrap()
}

#[tokio::test]
async fn csv_quotes_and_shows_lists_as_json() {
    assert_eq!(
        text(SQL, "csv").await,
        "n,text,share,list,object,time,flag\n\
         1,plain,0.5,\"[1,null]\",\"{\"\"a\"\":\"\"x\"\"}\",2026-01-02T03:04:05,true\n\
         2,\"quote \"\" comma, line\nbreak\",,,,,false\n"
    );
}

#[tokio::test]
async fn json_is_one_document_and_ndjson_one_per_line() {
    let lines = text(SQL, "ndjson").await;
    let rows: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        rows[0],
        serde_json::json!({"n": 1, "text": "plain", "share": 0.5, "list": [1, null], "object": {"a": "x"},
                           "time": "2026-01-02T03:04:05", "flag": true})
    );
    assert_eq!(rows[1]["text"], "quote \" comma, line\nbreak");
    // Null columns are there.
    assert!(rows[1].as_object().unwrap().contains_key("list"));
    let document: Vec<serde_json::Value> = serde_json::from_str(&text(SQL, "json").await).unwrap();
    assert_eq!(document, rows);
    // Rows that are read have what rows that are written have.
    let engine = Memory::default().engine();
    let batches = engine.query(SQL, &QueryOptions::default()).await.unwrap().read_all().await.unwrap();
    assert_eq!(serde_json::json!(objects(&batches).unwrap()), serde_json::json!(rows));
    assert!(objects(&[]).unwrap().is_empty());
}

#[tokio::test]
async fn parquet_reads_back() {
    let bytes = written(&Memory::default().engine(), SQL, "parquet").await;
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).unwrap().build().unwrap();
    let names: Vec<String> = reader.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["n", "text", "share", "list", "object", "time", "flag"]);
    assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 2);
}

#[tokio::test]
async fn intervals_are_text_in_parquet_as_elsewhere() {
    let sql = "SELECT INTERVAL '1 month 2 days' AS i, [INTERVAL '3 seconds'] AS list";
    let bytes = written(&Memory::default().engine(), sql, "parquet").await;
    let mut rows = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).unwrap().build().unwrap();
    let batch = rows.next().unwrap().unwrap();
    assert_eq!(batch.column(0).as_string::<i32>().value(0), "1 mons 2 days");
    assert_eq!(batch.column(1).as_list::<i32>().value(0).as_string::<i32>().value(0), "3.000000000 secs");
}

#[tokio::test]
async fn the_table_is_aligned() {
    assert_eq!(
        text("SELECT * FROM (VALUES ('a', 1), ('long name', 1000), (NULL, NULL)) AS t (name, n)", "table").await,
        "name          n\n\
         ─────────  ────\n\
         a             1\n\
         long name  1000\n\
         null       null\n"
    );
}

#[tokio::test]
async fn a_cell_without_a_value_shows_what_it_is_told_to() {
    let engine = Memory::default().engine();
    let mut result =
        engine.query("SELECT NULL AS a, [NULL] AS b, '' AS c, 1 AS d", &QueryOptions::default()).await.unwrap();
    let options = TableOptions { null: "", ..TableOptions::default() };
    let text = write_result(&mut result, Format::Table, Vec::new(), options).await.unwrap();
    assert_eq!(String::from_utf8(text).unwrap(), "a  b   c  d\n─  ──  ─  ─\n   []     1\n");
}

/// Takes so many bytes, and fails then.
struct Failing(usize, ErrorKind);

impl Write for Failing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let taken = bytes.len().min(self.0);
        self.0 -= taken;
        if taken == 0 { Err(std::io::Error::new(self.1, "no more")) } else { Ok(taken) }
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn what_the_writer_fails_with_is_told_as_such_in_every_format() {
    let engine = Memory::default().engine();
    for (name, format) in Format::ALL {
        for bytes in [0, 3, 20_000] {
            for (kind, gone) in [(ErrorKind::BrokenPipe, true), (ErrorKind::StorageFull, false)] {
                let sql = "SELECT value, md5(value::TEXT) FROM generate_series(1, 20000)";
                let mut result = engine.query(sql, &QueryOptions::default()).await.unwrap();
                let written =
                    write_result(&mut result, *format, Failing(bytes, kind), TableOptions::default()).await.map(drop);
                let error = written.unwrap_err();
                assert!(matches!(error, QueryError::Failed { .. }), "{name}: {error:?}");
                assert_eq!(error.to_string(), "writing the result: no more", "{name}");
                assert_eq!(error.is_reader_gone(), gone, "{name}");
            }
        }
    }
}

#[tokio::test]
async fn a_result_without_rows_is_valid_in_every_format() {
    let sql = "SELECT qa_id, rewrites FROM qa";
    assert_eq!(text(sql, "table").await, "qa_id  rewrites\n─────  ────────\n");
    assert_eq!(text(sql, "csv").await, "qa_id,rewrites\n");
    assert_eq!(text(sql, "json").await, "[]\n");
    assert_eq!(text(sql, "ndjson").await, "");
    let bytes = written(&Memory::default().engine(), sql, "parquet").await;
    assert_eq!(
        ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).unwrap().build().unwrap().count(),
        0
    );
}

#[tokio::test]
async fn formats_have_names() {
    for (name, format) in Format::ALL {
        assert_eq!(name.parse::<Format>().unwrap(), *format);
        assert_eq!(format.to_string(), *name);
    }
    assert!("xml".parse::<Format>().unwrap_err().to_string().contains("known are table, csv, json, ndjson, parquet"));
}
