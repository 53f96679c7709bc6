"""The lakes that `make bench-sql` and `make bench-pin` read: made once by tests/examples/bench_data, then kept."""

import json
import os
import pathlib
import shutil

import common

SEED = 1
# Trajectories at full scale.
ROWS = int(os.environ.get("BENCH_ROWS", 1_000_000))


def lake(trajectories):
    """The folder of a lake with so many trajectories, made if it is not there."""
    folder = common.SCRATCH / f"lake-{trajectories}"
    if (folder / "bench.json").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    common.say(f"making a lake of {trajectories:,} trajectories")
    maker = pathlib.Path(common.WEBDANCER).parent / "examples" / "bench_data"
    with common.alone():
        made = common.measure([maker, folder, trajectories, SEED])
    common.say(f"made {folder} in {made.wall_s:.0f} s")
    return folder


def judgments_before(folder):
    """The version of its judgments before a part was judged again."""
    return json.loads((folder / "bench.json").read_text())["judgments_before"]


def sizes(folder):
    """Of each table: name, files, bytes of its newest version, by deltalake."""
    import deltalake

    def size(table):
        files = deltalake.DeltaTable(str(table)).get_add_actions(flatten=True)
        table_bytes = sum(files["size_bytes"].to_pylist())
        rows = sum(files["num_records"].to_pylist())
        return table.name, f"{rows:,}", len(files["path"]), f"{table_bytes / 2**20:,.1f} MiB"

    return [size(table) for table in sorted((folder / "tables").iterdir())]


def version(package):
    """The installed version of a peer."""
    import importlib.metadata

    return importlib.metadata.version(package)
