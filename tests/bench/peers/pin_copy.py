"""DuckDB's way to a dataset with a hash: `pin_copy.py create|verify FILE QUERY`."""

import hashlib
import importlib.util
import pathlib
import sys

import duckdb

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import common


def copy(query, file):
    package = pathlib.Path(importlib.util.find_spec("duckdb_extension_delta").submodule_search_locations[0])
    db = duckdb.connect(config={"threads": common.threads(), "autoinstall_known_extensions": "false"})
    db.execute(f"LOAD '{package / 'extensions' / f'v{duckdb.__version__}' / 'delta.duckdb_extension'}'")
    db.execute(f"COPY ({query}) TO '{file}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)")


def sha256(file):
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def main():
    step, file, query = sys.argv[1:]
    if step == "create":
        copy(query, file)
        print(sha256(file))
        return
    again = f"{file}.again"
    copy(query, again)
    print("same" if sha256(again) == sha256(file) else "differs")


if __name__ == "__main__":
    main()
