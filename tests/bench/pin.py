"""`make bench-pin`: a tenth of the trajectories made a dataset and verified, beside DuckDB's COPY and a hash of the file.

BENCH_ROWS is the number of trajectories in the lake (default 1,000,000), pinned from a hundredth and a tenth of it as
well; BENCH_ROUNDS how often each step is timed (default 5).
"""

import hashlib
import os
import shutil
import time

import common
import data

ROUNDS = int(os.environ.get("BENCH_ROUNDS", 5))
COLUMNS = "event_id, trajectory_id, qa_id, question, answer, turn_thought, turn_tool, turn_arguments, turn_observation"
# Every tenth trajectory, from all files.
SELECTION = f"SELECT {COLUMNS} FROM trajectories WHERE seed % 10 = 3 AND termination = 'answer'"
OUT = common.SCRATCH / "pin"


def webdancer(lake, *arguments):
    return common.measure([common.WEBDANCER, "--quiet", "--lake", lake, "pin", *arguments])


def create(lake):
    """Pins under a name of its own; what was pinned before is taken away, or there would be nothing left to do."""
    shutil.rmtree(lake / "pins", ignore_errors=True)
    return webdancer(lake, "create", f"bench-{time.time_ns()}", "--sql", SELECTION)


def verify(lake):
    name = next((lake / "pins" / "names").iterdir()).name
    sample = webdancer(lake, "verify", name)
    if "the same rows" not in sample.stdout:
        raise RuntimeError(f"the pin does not verify: {sample.stdout}")
    return sample


def peer(lake, step, order=""):
    OUT.mkdir(parents=True, exist_ok=True)
    query = SELECTION.replace("trajectories", f"delta_scan('{lake}/tables/trajectories')") + order
    return common.measure(data.peer("pin_copy.py", step, OUT / "pin.parquet", query))


def limit(lake):
    """The pin's files copied and hashed: seconds."""
    files = sorted((lake / "pins").glob("*/*.parquet"))
    begun = time.monotonic()
    for file in files:
        shutil.copyfile(file, OUT / "copy")
        with open(OUT / "copy", "rb") as copy:
            hashlib.file_digest(copy, "sha256")
    return time.monotonic() - begun, sum(file.stat().st_size for file in files)


def steps(lake):
    """Step -> contestant -> samples."""
    ordered = " ORDER BY event_id"
    with common.alone():
        made = common.in_turns(
            {
                "webdancer": lambda: create(lake),
                "DuckDB": lambda: peer(lake, "create"),
                "DuckDB, in order": lambda: peer(lake, "create", ordered),
            },
            ROUNDS,
        )
    with common.alone():
        verified = common.in_turns(
            {"webdancer": lambda: verify(lake), "DuckDB, in order": lambda: peer(lake, "verify", ordered)}, ROUNDS
        )
    return {"create": made, "verify": verified}


def row(step, name, samples, baseline):
    sample = sorted(samples, key=lambda sample: sample.wall_s)[len(samples) // 2]
    return [
        step, name, common.seconds(sample.wall_s), common.seconds(sample.cpu_s), f"{sample.rss_mib:,.0f} MiB",
        common.ratio(common.median(samples) / baseline),
    ]


def step_table(result):
    rows = []
    for step, contestants in result.items():
        baseline = common.median(contestants["DuckDB" if step == "create" else "DuckDB, in order"])
        rows += [row(step, name, samples, baseline) for name, samples in contestants.items()]
    return common.table(["step", "by", "wall", "processors", "peak memory", "to DuckDB"], rows)


def growth_table(results):
    rows = []
    for size, result in sorted(results.items()):
        times = [common.median(result[step][name]) for step in ("create", "verify") for name in ("webdancer", "DuckDB, in order")]
        rows.append([f"{size:,}", *map(common.seconds, times)])
    return common.table(["trajectories", "create", "DuckDB", "verify", "DuckDB"], rows)


TEXT = f"""
`{SELECTION}`

*webdancer* is `pin create`: the query planned so that the same rows give the same digest anywhere, its rows in a total
order, digested, written as Parquet (zstd 1), hashed, stored with fsync under a manifest, and the event that says so
appended and drained. *DuckDB* is `COPY (…) TO … (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)` and SHA-256 of
the file: rows as they come, or *in order* of `event_id`, which a dataset that can be made again needs. Both are whole
processes, with {common.threads()} threads, in memory of the page cache; medians of {ROUNDS} in turns.

*verify* is `pin verify`: every file hashed, its rows digested, and the query run again over the pinned versions. For
DuckDB it is the same COPY again to another file, and both files hashed and compared.
"""


def main():
    results = {}
    for size in sorted({max(1000, data.ROWS // 100), max(1000, data.ROWS // 10), data.ROWS}):
        lake = data.lake(size)
        common.say(f"{size:,} trajectories")
        results[size] = steps(lake)
        for step, contestants in results[size].items():
            shown = ", ".join(f"{name} {common.seconds(common.median(s))}" for name, s in contestants.items())
            common.say(f"{step}: {shown}")
    seconds, pinned_bytes = limit(lake)
    command = "make bench-pin" if data.ROWS == 1_000_000 else f"BENCH_ROWS={data.ROWS} make bench-pin"
    common.write_report(
        "pin",
        "Pinning a dataset, beside DuckDB's COPY",
        command,
        data.versions("duckdb"),
        [
            ("", TEXT),
            (f"A tenth of {data.ROWS:,} trajectories", step_table(results[data.ROWS])),
            (
                "Limit",
                f"Copying the pin's {pinned_bytes / 2**20:,.0f} MiB and hashing them takes {common.seconds(seconds)}.",
            ),
            ("As the data grows", growth_table(results)),
        ],
    )


if __name__ == "__main__":
    main()
