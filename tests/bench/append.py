"""bench-append: durable appends of one event each by 1, 10 and 100 producers at once, beside SQLite and Kafka.

Environment: BENCH_SECONDS (of each run, default 3), BENCH_ROUNDS (3).
"""

import json
import os
import shutil
import sqlite3
import sys

import broker
import common

SECONDS = float(os.environ.get("BENCH_SECONDS", "3"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
PRODUCERS = (1, 10, 100)
BYTES = 1024
BENCH = common.TARGET / "release" / "examples" / "bench"
SQLITE = common.ROOT / "tests" / "bench" / "peers" / "sqlite_append.py"
SCRATCH = common.SCRATCH / "append"


def contestants(producers):
    load = ["--producers", str(producers), "--seconds", str(SECONDS), "--bytes", str(BYTES)]

    def run(argv):
        return json.loads(common.measure(argv).stdout)

    def embedded():
        shutil.rmtree(SCRATCH / "log", ignore_errors=True)
        return run([BENCH, "append", SCRATCH / "log", *load])

    def sqlite(connections):
        def inserted():
            for file in SCRATCH.glob("events.db*"):
                file.unlink()
            file = SCRATCH / "events.db"
            return run([sys.executable, SQLITE, file, str(producers), str(SECONDS), str(BYTES), connections])

        return inserted

    def kafka(prefix):
        return lambda: run([BENCH, "append-kafka", f"kafka://{broker.ADDRESS}", "--prefix", prefix, *load])

    return {
        "embedded log": embedded,
        "SQLite, a connection each": sqlite("each"),
        "SQLite, one connection behind a lock": sqlite("shared"),
        "Kafka, acks=all": kafka("cached."),
        "Kafka, acks=all, flush.messages=1": kafka("synced."),
    }


def main():
    shutil.rmtree(SCRATCH, ignore_errors=True)
    SCRATCH.mkdir(parents=True)
    with broker.Broker(SCRATCH / "kafka") as kafka:
        kafka.create_topic("cached.judgment")
        kafka.create_topic("synced.judgment", flush_messages=1)
        results = {producers: common.in_turns(contestants(producers), ROUNDS, warm_up=0) for producers in PRODUCERS}
    fsync = [BENCH, "fsync", SCRATCH, "--seconds", str(SECONDS), "--bytes", str(BYTES)]
    syncs = common.median([json.loads(common.measure(fsync).stdout)["per_s"] for _ in range(ROUNDS)])
    shutil.rmtree(SCRATCH)
    rates = {
        producers: {name: common.median([run["per_s"] for run in runs]) for name, runs in of.items()}
        for producers, of in results.items()
    }
    names = list(next(iter(rates.values())))
    rows = [(name, *(f"{rates[producers][name]:,.0f}" for producers in PRODUCERS)) for name in names]
    rows.append(("limit: syncs a second × producers", *(f"{syncs * producers:,.0f}" for producers in PRODUCERS)))
    ratios = [
        (f"embedded log ÷ {name}", *(common.ratio(rates[p][names[0]] / rates[p][name]) for p in PRODUCERS))
        for name in names[1:]
    ]
    waits = [
        (f"{share} of the waits, embedded log", *(
            f"{common.median([run[key] for run in results[p][names[0]]]):.2f} ms" for p in PRODUCERS
        ))
        for share, key in (("half", "p50_ms"), ("99 %", "p99_ms"))
    ]
    head = ("events/s acknowledged", *(f"{producers} producers" if producers > 1 else "1 producer" for producers in PRODUCERS))
    reached = all(rates[p][names[0]] >= max(rate for name, rate in rates[p].items() if "SQLite" in name) for p in PRODUCERS if p >= 10)
    text = f"""Each producer appends one event of {BYTES:,} bytes and waits until it is durable, for {SECONDS:g} s; medians of
{ROUNDS} rounds, in turns, on the same disk. The embedded log's and Kafka's producers are tasks of one process that share
one log, as in a service; SQLite's (WAL, synchronous=FULL) are threads. Kafka with acks=all does not sync: its broker
acknowledges what the page cache holds. With flush.messages=1 it syncs each batch, as the other two do.

{common.table(head, rows)}

{common.table(("", *head[1:]), ratios + waits)}

Goal: at least SQLite's events/s at 10 producers and more: {"reached" if reached else "not reached"}. The disk synced
{syncs:,.0f} writes of {BYTES:,} bytes a second; a group of all that wait needs one sync."""
    common.write_report(
        "append", "Durable appends", common.command("bench-append"), [("SQLite", sqlite3.sqlite_version)], [("", text)]
    )


main()
