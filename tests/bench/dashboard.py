"""`make bench-dashboard`: every page over many runs, beside a plain SELECT of the same rows.

BENCH_ROWS is the number of trajectories (default 100,000) in 200 runs over 5 benchmarks (BENCH_RUNS); BENCH_ROUNDS how often
each page is asked (default 9). The lake is made of generated events, appended and drained as a team's are; the same numbers
give the same events. A page is asked over one connection kept open, without compression, to a server that has answered it
before; the SELECT is asked in a session of the shell that has answered it before, rows written as NDJSON.
"""

import datetime
import http.client
import json
import os
import random
import shutil
import subprocess
import time
import urllib.parse
import uuid

import common

ROWS = int(os.environ.get("BENCH_ROWS", 100_000))
RUNS = int(os.environ.get("BENCH_RUNS", 200))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", 9))
BENCHMARKS = ["gaia", "webwalkerqa", "browsecomp", "simpleqa", "xbench-deepsearch"]
POLICIES = 8
ATTEMPTS = 2
BUDGET_MS = 100
START = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
WORDS = "which river country capital border language currency older larger than the of in city page found answer".split()


def event(kind, data, run, minutes, rng):
    """A CloudEvent as the log takes it."""
    at = START + datetime.timedelta(minutes=minutes)
    return {
        "specversion": "1.0", "id": str(uuid.UUID(int=rng.getrandbits(128), version=4)), "source": "bench",
        "type": f"webdancer.{kind}.v1", "time": at.isoformat(), "runid": run, "data": data,
    }


def text(rng, words):
    return " ".join(rng.choices(WORDS, k=words))


def events():
    """All events of the lake, in the order of time."""
    rng = random.Random(1)
    questions = max(2, ROWS // RUNS // ATTEMPTS)
    asked = {}
    for name in BENCHMARKS:
        asked[name] = [f"{name}-{number:05}" for number in range(questions)]
        for number, qa_id in enumerate(asked[name]):
            attributes = {"benchmark": name, "level": 1 + number % 3, "root_url": f"https://site-{number // 2}.example/"}
            row = {"qa_id": qa_id, "method": "benchmark", "question": text(rng, 14) + "?", "answer": text(rng, 2)}
            yield event("qa", {**row, "language": "en", "attributes": attributes}, "bench", 0, rng)
    for number in range(RUNS):
        yield from run_events(number, BENCHMARKS[number % len(BENCHMARKS)], asked, rng)


def run_events(number, name, asked, rng):
    run, minutes, policy = f"run-{number:04}", number * 60, f"policy-{number % POLICIES}"
    config = {
        "benchmark": {"benchmark": name, "digest": name, "title": name}, "policy": f"endpoint:{policy}", "web": "live",
        "attempts": ATTEMPTS, "qa_ids": asked[name],
    }
    begun = {"kind": "eval", "config": config, "seed": number}
    yield event("run", {**begun, "state": "started"}, run, minutes, rng)
    skill = 0.25 + 0.4 * (number % POLICIES) / POLICIES
    for question, qa_id in enumerate(asked[name]):
        for attempt in range(ATTEMPTS):
            row = trajectory(run, policy, qa_id, attempt, rng)
            yield event("trajectory", row, run, minutes + 5, rng)
            verdict = "pass" if rng.random() < skill * (1.2 - question % 3 * 0.2) else "fail"
            judged = {"trajectory_id": row["trajectory_id"], "stage": "correctness", "verdict": verdict}
            yield event("judgment", {**judged, "judge": "gaia", "rule_version": 2, "rationale": text(rng, 20)}, run, minutes + 6, rng)
    yield event("run", {**begun, "state": "finished"}, run, minutes + 50, rng)


def trajectory(run, policy, qa_id, attempt, rng):
    turns = rng.randint(2, 6)
    calls = turns - 1
    return {
        "trajectory_id": str(uuid.UUID(int=rng.getrandbits(128), version=4)), "qa_id": qa_id, "policy_model": policy,
        "attempt": attempt, "answer": text(rng, 2), "termination": "answer", "n_turns": turns, "n_tool_calls": calls,
        "input_tokens": turns * 1500, "output_tokens": turns * 120, "turn_thought": [text(rng, 40) for _ in range(turns)],
        "turn_tool": ["search"] * calls + [None], "turn_arguments": ['{"query":["x"]}'] * calls + [None],
        "turn_observation": [text(rng, 120) for _ in range(calls)] + [None], "turn_outcome": ["done"] * calls + [None],
        "turn_ms": [rng.randint(500, 9000) for _ in range(turns)], "turn_observation_digest": [None] * turns,
        "turn_raw": [None] * turns,
    }


def lake():
    """The folder of the lake, made if it is not there."""
    folder = common.SCRATCH / f"dashboard-{ROWS}-{RUNS}"
    if (folder / "complete").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    common.say(f"making a lake of {ROWS:,} trajectories in {RUNS} runs")
    command = [common.WEBDANCER, "--quiet", "--lake", str(folder)]
    with common.alone():
        appending = subprocess.Popen([*command, "append"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        for one in events():
            appending.stdin.write(json.dumps(one) + "\n")
        appending.stdin.close()
        if appending.wait() != 0:
            raise RuntimeError("the events were not appended")
        common.measure([*command, "ingest", "--until-caught-up"])
        common.measure([*command, "maintain"])
    (folder / "complete").touch()
    return folder


# Each page with its address and a SELECT of the rows that it rests on: those of its list, or of its run.
SCORES = (
    "SELECT t.run_id, t.qa_id, t.attempt, j.verdict FROM trajectories AS t JOIN judgments AS j"
    " ON j.trajectory_id = t.trajectory_id"
)
PAGES = {
    "leaderboard": ("/", SCORES),
    "benchmarks": ("/benchmarks", SCORES),
    "trend": ("/benchmarks/gaia", f"{SCORES} WHERE t.run_id IN (SELECT run_id FROM runs WHERE config LIKE '%\"gaia\"%')"),
    "runs": ("/runs", "SELECT * FROM run_state ORDER BY started DESC LIMIT 50"),
    "runs, filtered and sorted": (
        "/runs?f.state=finished&sort=run_id&page=2",
        "SELECT * FROM run_state WHERE state = 'finished' ORDER BY run_id LIMIT 50 OFFSET 50",
    ),
    "run": ("/runs/run-0195", f"{SCORES} WHERE t.run_id = 'run-0195'"),
    "run as JSON": ("/runs/run-0195?format=json", f"{SCORES} WHERE t.run_id = 'run-0195'"),
    "compare": (
        "/compare?before=run-0155&after=run-0195",
        f"{SCORES} WHERE t.run_id IN ('run-0155', 'run-0195')",
    ),
    "schedules": ("/schedules", "SELECT * FROM slot_state ORDER BY slot_time DESC LIMIT 50"),
}


class Served:
    """A server of the lake, and one connection to it."""

    def __init__(self, folder):
        self.child = subprocess.Popen(
            [common.WEBDANCER, "--quiet", "--json", "--lake", str(folder), "serve", "--listen", "127.0.0.1:0", "--no-ingest"],
            stdout=subprocess.PIPE, text=True,
        )
        address = urllib.parse.urlsplit(json.loads(self.child.stdout.readline())["url"])
        self.connection = http.client.HTTPConnection(address.hostname, address.port, timeout=600)

    def ask(self, path):
        """Seconds to the last byte, and bytes."""
        begun = time.perf_counter()
        self.connection.request("GET", path)
        answer = self.connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {body[:400]!r}")
        return time.perf_counter() - begun, len(body)

    def packed(self, path):
        """Bytes of the page as browsers ask for it."""
        self.connection.request("GET", path, headers={"Accept-Encoding": "gzip"})
        return len(self.connection.getresponse().read())

    def close(self):
        self.child.terminate()
        self.child.wait()


class Shell:
    """A session of the shell. A statement's rows are counted once; then they are read to the last one."""

    END = "SELECT 'end' AS done"

    def __init__(self, folder):
        state = common.SCRATCH / "state"
        state.mkdir(parents=True, exist_ok=True)
        self.child = subprocess.Popen(
            [common.WEBDANCER, "--quiet", "--lake", str(folder), "sql", "--format", "ndjson", "--max-rows", "1000000"],
            env={**os.environ, "XDG_STATE_HOME": str(state)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        self.rows = {}

    def say(self, sql):
        self.child.stdin.write(sql + ";\n")
        self.child.stdin.flush()

    def count(self, sql):
        self.say(sql)
        self.say(self.END)
        rows = 0
        while self.child.stdout.readline() != '{"done":"end"}\n':
            rows += 1
            if self.child.poll() is not None:
                raise RuntimeError(f"the shell ended at {sql}")
        return rows

    def ask(self, sql):
        if sql not in self.rows:
            self.rows[sql] = self.count(sql)
        begun = time.perf_counter()
        self.say(sql)
        # No rows are no line to wait for.
        if self.rows[sql] == 0:
            self.say(self.END)
        for _ in range(max(1, self.rows[sql])):
            self.child.stdout.readline()
        return time.perf_counter() - begun

    def close(self):
        self.child.stdin.close()
        self.child.wait()


def times(folder):
    """Page -> (first seconds, median seconds, bytes, bytes packed, median seconds of the SELECT)."""
    served, shell = Served(folder), Shell(folder)
    try:
        result = {}
        for name, (path, sql) in PAGES.items():
            with common.alone():
                first, size = served.ask(path)
                taken = common.in_turns({"page": lambda: served.ask(path)[0], "rows": lambda: shell.ask(sql)}, ROUNDS)
            page, rows = common.median(taken["page"]), common.median(taken["rows"])
            result[name] = (first, page, size, served.packed(path), rows)
            common.say(f"{name}: first {common.seconds(first)}, then {common.seconds(page)}; rows {common.seconds(rows)}")
        return result
    finally:
        served.close()
        shell.close()


EQUAL = f"""
*first* is the page when nobody asked before, on a server just started; *page* the median of {ROUNDS} after that, in turns
with *SELECT*, the rows that the page rests on as the shell prints them. Figures are computed once for a state of the
tables: a page that was seen before reads what was kept. The budget of a page that was seen is {BUDGET_MS} ms.
"""


def main():
    result = times(lake())
    rows = [
        (
            name, common.seconds(first), common.seconds(page), common.seconds(select), common.ratio(page / select),
            f"{size / 1024:,.0f} KiB", f"{packed / 1024:,.0f} KiB", "yes" if page * 1000 <= BUDGET_MS else "**no**",
        )
        for name, (first, page, size, packed, select) in result.items()
    ]
    head = ["page", "first", "page", "SELECT", "page / SELECT", "size", "compressed", f"≤ {BUDGET_MS} ms"]
    common.write_report(
        "dashboard", "The dashboard's pages, beside a SELECT of their rows", common.command("bench-dashboard"),
        [("build", os.environ.get("BENCH_BUILD", "optimised"))],
        [("", EQUAL), (f"{ROWS:,} trajectories in {RUNS} runs", common.table(head, rows))],
    )


if __name__ == "__main__":
    main()
