"""bench-ingest: a Kafka topic into a committed Delta table, beside other ways to do it.

Environment: BENCH_GB (payload of each topic, default 2), BENCH_ROUNDS (3), BENCH_GROWTH_ROWS (10,000,000).
"""

import json
import os
import shutil
import subprocess

import broker
import common

GB = float(os.environ.get("BENCH_GB", "2"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
GROWTH_ROWS = int(os.environ.get("BENCH_GROWTH_ROWS", "10000000"))
BENCH = common.TARGET / "release" / "examples" / "bench"
PEERS = common.ROOT / "tests" / "bench" / "peers"
SCRATCH = common.SCRATCH / "ingest"
BROKERS = broker.ADDRESS
# Bytes of `data` of one event, and events decoded for the limit.
BYTES = {"judgment": 790, "trajectory": 21_000}
LIMIT_EVENTS = {"judgment": 200_000, "trajectory": 10_000}
TABLES = {"judgment": "judgments", "trajectory": "trajectories", "metric": "metrics"}


def script(*argv):
    """Output of a script of the repository."""
    return subprocess.run(argv, cwd=common.ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def fill(shape, count):
    """Appends `count` events to the topic of `shape`, by the command."""
    common.say(f"filling the topic of {TABLES[shape]} with {count:,} events")
    events = [BENCH, "events", shape, str(count)]
    append = [common.WEBDANCER, "--lake", SCRATCH / "append", "--log", f"kafka://{BROKERS}", "-q", "append"]
    with subprocess.Popen(events, stdout=subprocess.PIPE) as source:
        subprocess.run(append, stdin=source.stdout, stdout=subprocess.DEVNULL, check=True)
    if source.returncode != 0:
        raise RuntimeError("the generator failed")


def ingest(lake, shape):
    argv = [common.WEBDANCER, "--lake", lake, "--log", f"kafka://{BROKERS}", "-q"]
    return common.measure(argv + ["ingest", "--until-caught-up", "--kinds", shape])


def rows_of(table, python):
    """Rows of a Delta table, as delta-rs reads it."""
    code = "import sys, deltalake; print(deltalake.DeltaTable(sys.argv[1]).to_pyarrow_dataset().count_rows())"
    return int(common.measure([python, "-c", code, table]).stdout)


def contestants(shape, count, python, jars):
    """Name -> a function that empties its table, fills it and checks the number of rows."""
    topic = f"webdancer.{shape}"

    def fresh(name):
        table = SCRATCH / name
        for folder in (table, SCRATCH / f"{name}-checkpoint"):
            shutil.rmtree(folder, ignore_errors=True)
        return table

    def checked(name, table, sample):
        rows = rows_of(table, python)
        if rows != count:
            raise RuntimeError(f"{name} has {rows} rows of {count}")
        common.say(f"{shape}: {name}: {sample.wall_s:.1f} s, {sample.cpu_s:.1f} CPU-s, {sample.rss_mib:.0f} MiB")
        return sample

    def ours():
        lake = fresh("ours")
        return checked("webdancer", lake / "tables" / TABLES[shape], ingest(lake, shape))

    def value_consumer():
        table = fresh("values")
        return checked("values", table, common.measure([BENCH, "value-consumer", BROKERS, topic, str(count), shape, table]))

    def python_consumer():
        table = fresh("python")
        argv = [python, PEERS / "python_consumer.py", BROKERS, topic, str(count), shape, table]
        return checked("python", table, common.measure(argv))

    def spark():
        table = fresh("spark")
        argv = [python, PEERS / "spark_stream.py", BROKERS, topic, shape, table, jars]
        return checked("spark", table, common.measure(argv))

    def discard():
        return common.measure([BENCH, "discard", BROKERS, topic, str(count)])

    return {
        "webdancer ingest": ours,
        "design of kafka-delta-ingest": value_consumer,
        "Python consumer, delta-rs": python_consumer,
        "Spark Structured Streaming": spark,
        "librdkafka, thrown away": discard,
    }


def limit(shape):
    """CPU-seconds per GB to decode and write in memory."""
    rows = SCRATCH / "rows.ndjson"
    with open(rows, "wb") as out:
        subprocess.run([BENCH, "events", shape, str(LIMIT_EVENTS[shape]), "--rows"], stdout=out, check=True)
    said = json.loads(common.measure([BENCH, "decode-write", shape, rows]).stdout)
    rows.unlink()
    gigabytes = said["bytes"] / 1e9
    return said["bytes"] / said["events"], said["decode_cpu_s"] / gigabytes, said["write_cpu_s"] / gigabytes


def throughput(shape, python, jars):
    """One section: all contestants on one topic."""
    bytes_per_event, decode, write = limit(shape)
    count = int(GB * 1e9 / bytes_per_event)
    fill(shape, count)
    results = common.in_turns(contestants(shape, count, python, jars), ROUNDS, warm_up=0)
    gigabytes = count * bytes_per_event / 1e9
    cpu = {name: common.median([sample.cpu_s for sample in samples]) / gigabytes for name, samples in results.items()}
    wall = {name: common.median(samples) for name, samples in results.items()}
    ours = "webdancer ingest"
    rows = []
    for name, samples in results.items():
        peer = "" if name == ours or "librdkafka" in name else common.ratio(wall[name] / wall[ours])
        rss = max(sample.rss_mib for sample in samples)
        rows.append(
            (name, f"{count / wall[name]:,.0f}", f"{gigabytes / wall[name] * 1000:.0f}", f"{cpu[name]:.2f}", f"{rss:.0f}", peer)
        )
    rows.append(("arrow-json and Parquet (zstd 1) in memory", "", "", f"{decode + write:.2f}", "", ""))
    floor = decode + write + cpu["librdkafka, thrown away"]
    goal = 1.25 * (decode + write) + cpu["librdkafka, thrown away"]
    best = min(wall[name] for name in wall if name != ours and "librdkafka" not in name)
    head = ("", "events/s", "MB/s", "CPU-s per GB", "peak MiB", "webdancer is faster by")
    text = common.table(head, rows) + f"""

{count:,} events of {bytes_per_event:,.0f} bytes of `data`, {gigabytes:.1f} GB, 4 partitions; medians of {ROUNDS} rounds.
In memory: decoding {decode:.2f}, writing {write:.2f} CPU-s per GB.

- CPU: {cpu[ours]:.2f} per GB; decode, write and librdkafka alone take {floor:.2f}: {common.ratio(cpu[ours] / floor)}. Goal:
  1.25 × decode and write, plus librdkafka = {goal:.2f}: {"reached" if cpu[ours] <= goal else "not reached"}.
- Speed: {common.ratio(best / wall[ours])} the best peer's events/s. Goal 3×: {"reached" if best / wall[ours] >= 3 else "not reached"}."""
    return f"{shape.capitalize()} events", text


def growth():
    """Commits, opening and ingestion as the table grows."""
    rows, batch = [], 500_000
    fill("metric", batch)
    for factor in (100, 10, 1):
        size, commits = GROWTH_ROWS // factor, 10_000 // factor
        common.say(f"growing a table to {size:,} rows in {commits:,} commits")
        grown = SCRATCH / f"grown-{factor}"
        said = json.loads(
            common.measure([BENCH, "grow", grown, "--rows", str(size), "--commits", str(commits)]).stdout
        )
        samples = []
        for _ in range(ROUNDS):
            lake = SCRATCH / "growing"
            shutil.rmtree(lake, ignore_errors=True)
            shutil.copytree(grown, lake)
            samples.append(ingest(lake, "metric"))
        rows.append(
            (
                f"{size:,} rows, {commits:,} commits",
                f"{said['commit_p50_ms']:.1f} ms",
                f"{said['open_ms']:.0f} ms",
                f"{batch / common.median(samples):,.0f}",
                f"{common.median([sample.cpu_s for sample in samples]):.2f} s",
                f"{max(sample.rss_mib for sample in samples):.0f}",
            )
        )
    head = ("table", "one commit of 1,000 rows, median", "open", "events/s", "CPU of the whole ingest", "peak MiB")
    text = common.table(head, rows) + f"""

One commit: by a writer that has the table open. The last three columns: `webdancer ingest` of a topic of {batch:,} small
events, whole process, started on that table."""
    return "As the table grows", text


def main():
    shutil.rmtree(SCRATCH, ignore_errors=True)
    SCRATCH.mkdir(parents=True)
    python = common.python("tests/bench/requirements-ingest.txt")
    jars = common.SCRATCH / "spark-jars"
    if not jars.is_dir():
        common.say("fetching Spark's connectors with Maven")
        part = common.SCRATCH / "spark-jars.part"
        script(
            *("mvn", "-q", "-B", "-Dstyle.color=never", "-f", "tests/bench/peers/spark.xml"),
            *("dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={part}"),
        )
        part.rename(jars)
    with broker.Broker(SCRATCH / "kafka"):
        sections = [throughput(shape, python, jars) for shape in ("judgment", "trajectory")]
        sections.append(growth())
    shutil.rmtree(SCRATCH)
    versions = script(
        python,
        "-c",
        "import importlib.metadata as m; print(*(f'{p} {m.version(p)}' for p in"
        " ('pyspark', 'confluent-kafka', 'deltalake', 'pyarrow')), sep=', ')",
    )
    how = """Every contestant reads the same topic of a real broker (Apache Kafka 4.3.1 on the same machine, one
process, zstd) from its beginning into an empty table on the same disk; the number of rows is checked afterwards. The
time is that of the whole process, its start included; the broker's own CPU is not counted but takes its share of the
machine from all alike. webdancer writes all columns of the envelope, looks every event's id up, and syncs; the others do
not. The peers write what their authors write by default: kafka-delta-ingest's design is 5,000 messages a batch and
128 MiB a file with delta-rs's JSON writer (its last release does not build with the present libraries, so
`tests/examples/bench/value_consumer.rs` follows its documentation); the Python consumer commits every 64 MiB;
Spark runs `availableNow` with all cores."""
    sections.insert(0, ("", how))
    common.write_report("ingest", "Kafka to table", common.command("bench-ingest"), [("peers", versions)], sections)


main()
