"""A peer's session over the same Delta tables: `sql_session.py ENGINE LAKE`, a query's number per line on standard input.

Answers each with a line of JSON: {"seconds": …, "rows": […], "columns": […]} or {"error": …}. Times are from the text of
the query to all rows as Python values. `scan` is no engine but the limit: it reads the columns that a query depends on
with PyArrow and drops them, without any work on them. With `--once` all queries run after each other, then it ends.
"""

import importlib.util
import json
import pathlib
import sys
import time
import types

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import common
import sql_queries

TABLES = ["trajectories", "judgments", "qa", "checkpoints"]


def duckdb_session(lake, before):
    import duckdb

    package = pathlib.Path(importlib.util.find_spec("duckdb_extension_delta").submodule_search_locations[0])
    db = duckdb.connect(config={"threads": common.threads(), "autoinstall_known_extensions": "false"})
    db.execute(f"LOAD '{package / 'extensions' / f'v{duckdb.__version__}' / 'delta.duckdb_extension'}'")
    db.execute("SET parquet_metadata_cache = true")
    for table in TABLES:
        db.execute(f"CREATE VIEW {table} AS SELECT * FROM delta_scan('{lake}/tables/{table}')")
    db.execute(
        f"CREATE VIEW judgments_before AS SELECT * FROM delta_scan('{lake}/tables/judgments', version = {before})"
    )
    for name, text in sql_queries.DUCKDB_VIEWS.items():
        db.execute(f"CREATE VIEW {name} AS {text}")

    def run(query):
        answer = db.execute(query.duckdb or query.ours)
        return [column[0] for column in answer.description], answer.fetchall()

    return run


def polars_session(lake, before):
    import polars as pl

    tables = types.SimpleNamespace(
        **{table: pl.scan_delta(f"{lake}/tables/{table}") for table in TABLES},
        judgments_before=pl.scan_delta(f"{lake}/tables/judgments", version=before),
    )

    def run(query):
        frame = query.polars(tables).collect(engine="streaming")
        return frame.columns, frame.rows()

    return run


def scan_session(lake, before):
    import deltalake
    import pyarrow
    import pyarrow.parquet

    pyarrow.set_cpu_count(common.threads())
    files = {table: deltalake.DeltaTable(f"{lake}/tables/{table}").file_uris() for table in TABLES}
    files["judgments_before"] = deltalake.DeltaTable(f"{lake}/tables/judgments", version=before).file_uris()

    def run(query):
        rows = 0
        for table, columns in query.reads.items():
            for file in files[table]:
                with pyarrow.parquet.ParquetFile(file.removeprefix("file://"), memory_map=True) as parquet:
                    for batch in parquet.iter_batches(65536, columns=columns, use_threads=True):
                        rows += batch.num_rows
        return ["rows"], [(rows,)]

    return run


def main():
    engine, lake = sys.argv[1:3]
    before = json.loads((pathlib.Path(lake) / "bench.json").read_text())["judgments_before"]
    run = {"duckdb": duckdb_session, "polars": polars_session, "scan": scan_session}[engine](lake, before)
    if "--once" in sys.argv:
        for query in sql_queries.QUERIES:
            if engine != "polars" or query.polars:
                run(query)
        return
    for line in sys.stdin:
        query = sql_queries.QUERIES[int(line)]
        begun = time.monotonic()
        try:
            columns, rows = run(query)
            answer = {"seconds": time.monotonic() - begun, "columns": columns, "rows": rows}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer, default=float), flush=True)


if __name__ == "__main__":
    main()
