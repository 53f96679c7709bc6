"""`make bench-sql`: twelve questions to a lake of trajectories, ours beside DuckDB and Polars.

BENCH_ROWS is the number of trajectories (default 1,000,000), asked at a hundredth and a tenth of it as well; BENCH_ROUNDS
how often each query is timed (default 5). All engines read the same Delta tables. Their answers are compared before
anything is timed.
"""

import json
import math
import os
import subprocess

import common
import data
from sql_queries import QUERIES

ROUNDS = int(os.environ.get("BENCH_ROUNDS", 5))
ENGINES = ["ours", "DuckDB", "Polars", "scan"]


class Ours:
    """A script that our command reads as it comes; times are those it logs after each answer."""

    def __init__(self, lake):
        self.before = data.judgments_before(lake)
        state = common.SCRATCH / "state"
        state.mkdir(parents=True, exist_ok=True)
        self.answers = open(state / f"answers-{os.getpid()}", "w+b")
        self.child = subprocess.Popen(
            [common.WEBDANCER, "-v", "--lake", str(lake), "sql", "--format", "ndjson", "--max-rows", "1000000"],
            env={**os.environ, "XDG_STATE_HOME": str(state)},
            stdin=subprocess.PIPE, stdout=self.answers, stderr=subprocess.PIPE, text=True,
        )

    def ask(self, query):
        start = self.answers.seek(0, os.SEEK_END)
        self.child.stdin.write(one_line(query, self.before) + "\n")
        self.child.stdin.flush()
        told = []
        while " answered rows=" not in (said := self.child.stderr.readline()):
            told.append(said)
            if not said:
                raise RuntimeError(f"{query.name}: webdancer said: {''.join(told)}")
        self.answers.seek(start)
        rows = [tuple(json.loads(line).values()) for line in self.answers]
        return float(said.split("seconds=")[1]), rows

    def close(self):
        self.child.stdin.close()
        self.child.wait()
        self.answers.close()
        os.unlink(self.answers.name)


class Peer:
    """A session of peers/sql_session.py."""

    def __init__(self, engine, lake):
        self.child = subprocess.Popen(
            peer(engine, lake), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=peer_environment()
        )

    def ask(self, query):
        self.child.stdin.write(f"{QUERIES.index(query)}\n")
        self.child.stdin.flush()
        answer = json.loads(self.child.stdout.readline())
        if "error" in answer:
            raise RuntimeError(f"{query.name}: {answer['error']}")
        return answer["seconds"], [tuple(row) for row in answer["rows"]]

    def close(self):
        self.child.stdin.close()
        self.child.wait()


def peer(engine, lake, *more):
    return data.peer("sql_session.py", engine, lake, *more)


def peer_environment():
    return {**os.environ, "POLARS_MAX_THREADS": str(common.threads())}


def one_line(query, before):
    return " ".join(query.ours.replace("{before}", str(before)).split()) + ";"


def takes_part(engine, query):
    return engine != "Polars" or query.polars is not None


def ordered(rows):
    """Rows in an order of their own: no query but one asks for any, and that one breaks ties."""
    return sorted(rows, key=lambda row: [f"{v:.6g}" if isinstance(v, float) else str(v) for v in row])


def same(ours, theirs):
    def equal(a, b):
        if isinstance(a, (int, float)) and isinstance(b, (int, float)):
            return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)
        return a == b

    return len(ours) == len(theirs) and all(
        len(a) == len(b) and all(map(equal, a, b)) for a, b in zip(ordered(ours), ordered(theirs))
    )


def compare(sessions, query):
    """Asks every engine once and fails where answers differ. Returns the number of rows."""
    answers = {name: session.ask(query)[1] for name, session in sessions.items() if takes_part(name, query)}
    for name, rows in answers.items():
        if name != "scan" and not same(answers["ours"], rows):
            raise RuntimeError(
                f"{query.name}: {name} answers otherwise:\n{ordered(rows)[:5]}\nours:\n{ordered(answers['ours'])[:5]}"
            )
    return len(answers["ours"])


def times(lake):
    """Median seconds: query name -> engine -> seconds, all in sessions that have answered each query before."""
    sessions = {"ours": Ours(lake)}
    sessions |= {name: Peer(name.lower(), lake) for name in ENGINES[1:]}
    result = {}
    for query in QUERIES:
        with common.alone():
            rows = compare(sessions, query)
            asked = {
                name: (lambda session=session: session.ask(query)[0])
                for name, session in sessions.items()
                if takes_part(name, query)
            }
            taken = common.in_turns(asked, ROUNDS, warm_up=0)
        result[query.name] = {name: common.median(values) for name, values in taken.items()}
        shown = ", ".join(f"{name} {common.seconds(value)}" for name, value in result[query.name].items())
        common.say(f"{query.name}: {rows} rows; {shown}")
    for session in sessions.values():
        session.close()
    return result


def whole_processes(lake):
    """Processes that answer all queries once, from start to end: engine -> samples."""
    before = data.judgments_before(lake)
    script = "".join(one_line(query, before) + "\n" for query in QUERIES)
    state = {"XDG_STATE_HOME": str(common.SCRATCH / "state")}
    ours = [common.WEBDANCER, "--quiet", "--lake", lake, "sql", "--format", "ndjson", "--max-rows", "1000000"]
    contestants = {
        "ours": lambda: common.measure(ours, env=state, stdin=script),
        "DuckDB": lambda: common.measure(peer("duckdb", lake, "--once"), env=peer_environment()),
        "Polars": lambda: common.measure(peer("polars", lake, "--once"), env=peer_environment()),
    }
    with common.alone():
        return common.in_turns(contestants, rounds=3, warm_up=0)


def query_table(result):
    def row(query):
        taken = result[query.name]
        cells = [common.seconds(taken[name]) if name in taken else "–" for name in ENGINES]
        return [f"{query.name}: {query.asks}", *cells, common.ratio(taken["ours"] / taken["DuckDB"])]

    ratios = [taken["ours"] / taken["DuckDB"] for taken in result.values()]
    mean = ["**geometric mean**", "", "", "", "", f"**{common.ratio(common.geometric_mean(ratios))}**"]
    return common.table(["query", *ENGINES, "ours / DuckDB"], [row(query) for query in QUERIES] + [mean])


def growth_table(results):
    sizes = sorted(results)
    head = ["query"] + [f"{size:,}: ours, DuckDB" for size in sizes]
    rows = [
        [query.name]
        + [
            ", ".join(common.seconds(results[size][query.name][name]) for name in ("ours", "DuckDB"))
            for size in sizes
        ]
        for query in QUERIES
    ]
    ratios = lambda size: [taken["ours"] / taken["DuckDB"] for taken in results[size].values()]
    mean = ["**geometric mean, ours / DuckDB**"] + [
        common.ratio(common.geometric_mean(ratios(size))) for size in sizes
    ]
    return common.table(head, rows + [mean])


def process_table(processes):
    def row(name, samples):
        best = sorted(samples, key=lambda sample: sample.wall_s)[len(samples) // 2]
        return [name, common.seconds(best.wall_s), common.seconds(best.cpu_s), f"{best.rss_mib:,.0f} MiB"]

    return common.table(
        ["engine", "wall", "processors", "peak memory"], [row(name, samples) for name, samples in processes.items()]
    )


EQUAL = f"""
All read the same Delta tables with {common.threads()} threads, in memory of the page cache, each in a session that has
answered the query before; DuckDB through its own `delta_scan` with its Parquet metadata cache on, Polars through
`scan_delta` and its streaming engine. Times are medians of {ROUNDS}, taken in turns, from the query's text to the last
row: ours as the shell prints them (rows written as NDJSON), the peers' around execute and fetch in their process. DuckDB
has our views under the same names, written with QUALIFY. Answers were compared before: equal up to order, floats within
10⁻⁹. The texts are in `tests/bench/sql_queries.py`.

*scan* is the limit: PyArrow reading the columns that the query depends on and dropping them. An engine can be below it,
where it skips what statistics rule out or stops early. "–": left out, as Polars has no MD5 to draw the sample by.
"""


def main():
    results = {}
    for size in sorted({max(1000, data.ROWS // 100), max(1000, data.ROWS // 10), data.ROWS}):
        lake = data.lake(size)
        common.say(f"{size:,} trajectories")
        results[size] = times(lake)
    common.say("whole processes")
    processes = whole_processes(lake)
    command = "make bench-sql" if data.ROWS == 1_000_000 else f"BENCH_ROWS={data.ROWS} make bench-sql"
    common.write_report(
        "sql",
        "SQL over trajectories, beside DuckDB and Polars",
        command,
        data.versions("duckdb", "polars", "deltalake", "pyarrow"),
        [
            ("", EQUAL),
            (f"Twelve queries, {data.ROWS:,} trajectories", query_table(results[data.ROWS])),
            ("As the data grows", growth_table(results)),
            (
                "Whole processes",
                "A process from start to end that answers all twelve once (Polars eleven); median of 3.\n\n"
                + process_table(processes),
            ),
            ("Data", common.table(["table", "rows", "files", "bytes"], data.sizes(lake))),
        ],
    )


if __name__ == "__main__":
    main()
