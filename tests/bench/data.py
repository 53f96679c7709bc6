"""The lakes that `make bench-sql` and `make bench-pin` read: made once by tests/examples/bench_data, then kept."""

import functools
import json
import os
import pathlib
import shutil
import subprocess

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


@functools.cache
def peers_python():
    """The Python that the peers are installed for."""
    environment = {**os.environ, "WEBDANCER_CACHE": str(common.TARGET / "bench-env")}
    requirements = str(common.ROOT / "tests/bench/requirements.txt")
    made = subprocess.run(
        [common.ROOT / "deploy/py-env", requirements], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return made.stdout.strip()


def peer(script, *arguments):
    """The command that runs a script of tests/bench/peers."""
    return [peers_python(), "-B", str(common.ROOT / "tests/bench/peers" / script), *map(str, arguments)]


def versions(*packages):
    """The peers' versions: (name, version) pairs."""
    listed = (common.ROOT / "tests/bench/requirements.txt").read_text().split()
    pinned = dict(line.split("==") for line in listed if "==" in line)
    return [(package, pinned[package]) for package in packages]


def sizes(folder):
    """Of each table: name, rows, files and bytes of its newest version."""
    said = subprocess.run(peer("table_sizes.py", folder), stdout=subprocess.PIPE, text=True, check=True).stdout
    return [
        (table["name"], f"{table['rows']:,}", table["files"], f"{table['bytes'] / 2**20:,.1f} MiB")
        for table in json.loads(said)
    ]
