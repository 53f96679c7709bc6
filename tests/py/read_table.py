#!/usr/bin/env python3
"""Reads one Delta table with three engines and prints what each of them saw, as JSON.

    read_table.py URI --sum COLUMN [--id event_id] [--offset log_offset] [--engine NAME ...]

URI is a local path, a file:// URI or an s3:// URI. For S3 the environment names the store: AWS_ENDPOINT_URL (plain
http is allowed), AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION; addresses are path-style.

    {"uri": ..., "sum_column": ..., "agree": true, "engines": {
        "duckdb":    {"version": ..., "rows": 3, "distinct_ids": 3, "min_offset": 0, "max_offset": 2, "sum": 6},
        "polars":    {...},
        "deltalake": {...}}}

An engine that fails has {"version": ..., "error": ...} instead. A decimal sum is a string; a sum over no rows is null.
Exit status: 0 when all engines agree, 1 when one failed or they differ, 2 for wrong arguments.

DuckDB reads with its own delta_scan. The delta and httpfs extensions come from the packages in requirements.txt and are
loaded from there by path; DuckDB checks their signatures and is kept from downloading any.
"""

import argparse
import decimal
import importlib.metadata
import importlib.util
import json
import math
import os
import pathlib
import sys
import urllib.parse

FIGURES = ("rows", "distinct_ids", "min_offset", "max_offset", "sum")


def is_s3(uri):
    return uri.startswith(("s3://", "s3a://"))


def local_path(uri):
    if uri.startswith("file://"):
        return urllib.parse.unquote(urllib.parse.urlsplit(uri).path)
    return os.path.abspath(uri)


def endpoint():
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def storage_options():
    """What delta-rs and Polars are told of the store."""
    options = {
        "aws_region": os.environ.get("AWS_REGION", "us-east-1"),
        "aws_virtual_hosted_style_request": "false",
    }
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        if os.environ.get(name):
            options[name.lower()] = os.environ[name]
    if endpoint():
        options["aws_endpoint_url"] = endpoint()
        options["aws_allow_http"] = str(endpoint().startswith("http://")).lower()
    return options


def extension(name):
    package = importlib.util.find_spec(f"duckdb_extension_{name}")
    if package is None:
        raise RuntimeError(f"the package duckdb_extension_{name} is not installed")
    folder = pathlib.Path(package.submodule_search_locations[0])
    version = importlib.metadata.version("duckdb")
    file = folder / "extensions" / f"v{version}" / f"{name}.duckdb_extension"
    if not file.is_file():
        raise RuntimeError(f"the package duckdb_extension_{name} has no extension for DuckDB {version}")
    return str(file)


def read_duckdb(uri, args):
    import duckdb

    def quoted(text):
        return "'" + text.replace("'", "''") + "'"

    def name(text):
        return '"' + text.replace('"', '""') + '"'

    db = duckdb.connect(
        config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
    )
    if is_s3(uri):
        db.execute(f"LOAD {quoted(extension('httpfs'))}")
    db.execute(f"LOAD {quoted(extension('delta'))}")
    if is_s3(uri):
        secret = {
            "KEY_ID": os.environ.get("AWS_ACCESS_KEY_ID"),
            "SECRET": os.environ.get("AWS_SECRET_ACCESS_KEY"),
            "SESSION_TOKEN": os.environ.get("AWS_SESSION_TOKEN"),
            "REGION": os.environ.get("AWS_REGION", "us-east-1"),
            "URL_STYLE": "path",
        }
        fields = ["TYPE s3"] + [f"{key} {quoted(value)}" for key, value in secret.items() if value]
        if endpoint():
            parts = urllib.parse.urlsplit(endpoint())
            fields.append(f"ENDPOINT {quoted(parts.netloc + parts.path.rstrip('/'))}")
            fields.append(f"USE_SSL {str(parts.scheme != 'http').lower()}")
        db.execute(f"CREATE SECRET store ({', '.join(fields)})")
    offset = name(args.offset)
    return db.execute(
        f"SELECT count(*), count(DISTINCT {name(args.id)}), min({offset}), max({offset}), sum({name(args.sum)}) "
        f"FROM delta_scan({quoted(uri)})"
    ).fetchone()


def read_polars(uri, args):
    import polars as pl

    options = storage_options() if is_s3(uri) else None
    table = pl.scan_delta(uri, storage_options=options)
    column = pl.col(args.sum)
    if table.collect_schema()[args.sum].is_integer():
        # Polars adds 32- and 64-bit integers in their own width
        column = column.cast(pl.Int128)
    return (
        table.select(
            pl.len().alias("rows"),
            pl.col(args.id).drop_nulls().n_unique().alias("distinct_ids"),
            pl.col(args.offset).min().alias("min_offset"),
            pl.col(args.offset).max().alias("max_offset"),
            # SQL's sum of no values is null; Polars says 0
            pl.when(column.count() > 0).then(column.sum()).alias("sum"),
        )
        .collect()
        .row(0)
    )


def read_deltalake(uri, args):
    import pyarrow as pa
    import pyarrow.compute as pc
    from deltalake import DeltaTable

    options = storage_options() if is_s3(uri) else None
    table = DeltaTable(uri, storage_options=options).to_pyarrow_table(
        columns=list(dict.fromkeys((args.id, args.offset, args.sum)))
    )
    offsets = pc.min_max(table[args.offset])
    column = table[args.sum]
    if pa.types.is_integer(column.type):
        # 64-bit sums would wrap
        total = pc.sum(column.cast(pa.decimal128(38, 0))).as_py()
        total = None if total is None else int(total)
    else:
        total = pc.sum(column).as_py()
    return (
        table.num_rows,
        pc.count_distinct(table[args.id], mode="only_valid").as_py(),
        offsets["min"].as_py(),
        offsets["max"].as_py(),
        total,
    )


ENGINES = {"duckdb": read_duckdb, "polars": read_polars, "deltalake": read_deltalake}


def plain(value):
    """A figure as JSON can hold it: decimals and anything else that is not a number become text."""
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, decimal.Decimal):
        text = format(value, "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    return str(value)


def same(a, b):
    if "error" in a or "error" in b:
        return False
    for figure in FIGURES:
        x, y = a[figure], b[figure]
        if isinstance(x, float) and isinstance(y, float):
            # the engines add in different orders
            if not math.isclose(x, y, rel_tol=1e-9, abs_tol=1e-12):
                return False
        elif x != y:
            return False
    return True


def main():
    parser = argparse.ArgumentParser(description="Reads one Delta table with DuckDB, Polars and delta-rs.")
    parser.add_argument("uri")
    parser.add_argument("--sum", required=True, metavar="COLUMN", help="the numeric column to add up")
    parser.add_argument("--id", default="event_id", metavar="COLUMN", help="its distinct values are counted")
    parser.add_argument("--offset", default="log_offset", metavar="COLUMN", help="its least and greatest are reported")
    parser.add_argument("--engine", action="append", choices=list(ENGINES), help="only this one; may be repeated")
    args = parser.parse_args()

    uri = args.uri.replace("s3a://", "s3://", 1) if is_s3(args.uri) else local_path(args.uri)
    engines = {}
    for name in args.engine or ENGINES:
        seen = {"version": importlib.metadata.version(name)}
        try:
            seen.update(zip(FIGURES, map(plain, ENGINES[name](uri, args)), strict=True))
        except Exception as error:
            # DuckDB and Polars append backtraces and context
            seen["error"] = f"{type(error).__name__}: {error}".split("\n", 1)[0]
        engines[name] = seen
    first = next(iter(engines.values()))
    agree = all(same(first, other) for other in engines.values())
    json.dump(
        {"uri": args.uri, "sum_column": args.sum, "agree": agree, "engines": engines}, sys.stdout, indent=2
    )
    print()
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
