"""Rows, files and bytes of a lake's tables, by delta-rs: `table_sizes.py LAKE`."""

import json
import pathlib
import sys

import deltalake


def main():
    tables = []
    for folder in sorted((pathlib.Path(sys.argv[1]) / "tables").iterdir()):
        files = deltalake.DeltaTable(str(folder)).get_add_actions(flatten=True)
        tables.append(
            {
                "name": folder.name,
                "rows": sum(files["num_records"].to_pylist()),
                "files": len(files["path"]),
                "bytes": sum(files["size_bytes"].to_pylist()),
            }
        )
    json.dump(tables, sys.stdout)


if __name__ == "__main__":
    main()
