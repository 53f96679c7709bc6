"""`make bench-dashboard`: every page over many runs, beside a plain SELECT of the same rows.

BENCH_ROWS is the number of trajectories (default 100,000) in 200 runs over 5 benchmarks (BENCH_RUNS, at least 50);
BENCH_ROUNDS how often each page is asked (default 9). The lake is made of generated events (dashboard_lake.py), appended and
drained as a team's are. A page is asked over one connection kept open, without compression, to a server that has answered it
before; the SELECT is asked in a session of the shell that has answered it before, rows written as NDJSON.
"""

import http.client
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.parse

import common
import dashboard_lake
from dashboard_lake import LONG, POLICIES

ROWS = int(os.environ.get("BENCH_ROWS", 100_000))
RUNS = int(os.environ.get("BENCH_RUNS", 200))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", 9))
BUDGET_MS = 100


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
        for one in dashboard_lake.events(ROWS, RUNS):
            appending.stdin.write(json.dumps(one) + "\n")
        appending.stdin.close()
        if appending.wait() != 0:
            raise RuntimeError("the events were not appended")
        common.measure([*command, "ingest", "--until-caught-up"])
        common.measure([*command, "maintain"])
        common.measure([*command, "pin", "create", PIN, "--sql", PINNED])
    (folder / "complete").touch()
    return folder


# The last run of the benchmark `gaia`, and an earlier one by the same policy.
RUN = f"run-{(RUNS - 1) // 5 * 5:04}"
BEFORE = f"run-{(RUNS - 1) // 5 * 5 - 5 * POLICIES:04}"
PIN = "answers"
PINNED = f"SELECT * FROM trajectories WHERE run_id = '{RUN}'"

SCORES = (
    "SELECT t.run_id, t.qa_id, t.attempt, j.verdict FROM trajectories AS t JOIN judgments AS j"
    " ON j.trajectory_id = t.trajectory_id AND j.stage = 'correctness'"
)
LISTED = (
    "SELECT trajectory_id, event_time, run_id, policy_model, qa_id, attempt, termination, n_turns, n_tool_calls, output_tokens"
    " FROM current_trajectories"
)
METRICS = "SELECT name, step, value FROM metrics WHERE run_id = 'training'"
COUNTED = "SELECT policy_model, count(*) AS attempts, avg(n_turns) AS turns FROM trajectories GROUP BY policy_model"
# Each page with its address and a SELECT of the rows that it rests on: those of its list, or of its run.
PAGES = {
    "leaderboard": ("/", SCORES),
    "benchmarks": ("/benchmarks", SCORES),
    "trend": ("/benchmarks/gaia", f"{SCORES} WHERE t.run_id IN (SELECT run_id FROM runs WHERE config LIKE '%\"gaia\"%')"),
    "runs": ("/runs", "SELECT * FROM run_state ORDER BY started DESC LIMIT 50"),
    "runs, filtered and sorted": (
        "/runs?f.state=finished&sort=run_id&page=2",
        "SELECT * FROM run_state WHERE state = 'finished' ORDER BY run_id LIMIT 50 OFFSET 50",
    ),
    "run": (f"/runs/{RUN}", f"{SCORES} WHERE t.run_id = '{RUN}'"),
    "run as JSON": (f"/runs/{RUN}?format=json", f"{SCORES} WHERE t.run_id = '{RUN}'"),
    "compare": (f"/compare?before={BEFORE}&after={RUN}", f"{SCORES} WHERE t.run_id IN ('{BEFORE}', '{RUN}')"),
    "schedules": ("/schedules", "SELECT * FROM slot_state ORDER BY slot_time DESC LIMIT 50"),
    "slot": ("/schedules/slot-0007", "SELECT * FROM slots WHERE slot_id = 'slot-0007' ORDER BY event_time"),
    "trajectories": ("/trajectories", f"{LISTED} ORDER BY event_time DESC LIMIT 50"),
    "trajectories, filtered and sorted": (
        "/trajectories?f.policy=%3Dpolicy-3&sort=turns&page=2",
        f"{LISTED} WHERE policy_model = 'policy-3' ORDER BY n_turns LIMIT 50 OFFSET 50",
    ),
    "trajectory": ("/trajectories/{trajectory}", "SELECT * FROM trajectories WHERE trajectory_id = '{trajectory}'"),
    "trajectory of 1,000 turns, 10 MB": (
        f"/trajectories/{LONG}?turn=900", f"SELECT * FROM trajectories WHERE trajectory_id = '{LONG}'",
    ),
    "data": ("/data", "SELECT method, outcome, stage, reason, count(*) AS n FROM funnel GROUP BY method, outcome, stage, reason"),
    "questions": ("/questions", "SELECT qa_id, question, answer, method FROM current_qa ORDER BY event_time DESC LIMIT 50"),
    "question": ("/questions/gaia-00001", f"{SCORES} WHERE t.qa_id = 'gaia-00001'"),
    "pages": ("/pages", "SELECT url, title, status, digest FROM pages ORDER BY event_time DESC LIMIT 50"),
    "page": ("/pages/{page}", "SELECT * FROM pages WHERE digest = '{page}'"),
    "training": ("/training", METRICS),
    "training run": ("/training/training", METRICS),
    "pins": ("/pins", "SELECT * FROM pins"),
    "pin": (f"/pins/{PIN}", f"SELECT * FROM pin('{PIN}') LIMIT 50"),
    "statement": ("/sql?sql=" + urllib.parse.quote_plus(COUNTED), COUNTED),
    "search": ("/search?q=capital", "SELECT qa_id, question FROM qa WHERE question LIKE '%capital%' LIMIT 50"),
    "lineage": ("/lineage/{trajectory}", "SELECT * FROM trajectories WHERE trajectory_id = '{trajectory}'"),
}

# What stands for the names in braces above.
IDS = {
    "trajectory": f"SELECT max(trajectory_id) AS id FROM trajectories WHERE run_id = '{RUN}'",
    "page": "SELECT max(digest) AS id FROM pages",
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

    def again(self):
        """Over a new connection: the server closes one that nobody asks over for some seconds."""
        self.connection.close()

    def ask(self, path):
        """Seconds to the last byte, and bytes. RuntimeError where the page fails."""
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
            [common.WEBDANCER, "--quiet", "--lake", str(folder), "sql", "--no-drain", "--format", "ndjson", "--max-rows", "1000000"],
            env={**os.environ, "XDG_STATE_HOME": str(state)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        self.rows = {}

    def say(self, sql):
        self.child.stdin.write(sql + ";\n")
        self.child.stdin.flush()

    def value(self, sql):
        """The one value of a statement with one row."""
        self.say(sql)
        return json.loads(self.child.stdout.readline())["id"]

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
    """Page -> (first seconds, median seconds, bytes, bytes packed, median seconds of the SELECT), or why it failed."""
    served, shell = Served(folder), Shell(folder)
    try:
        ids = {name: shell.value(sql) for name, sql in IDS.items()}
        result = {}
        for name, (path, sql) in PAGES.items():
            try:
                result[name] = measured(name, served, shell, path.format(**ids), sql.format(**ids))
            except RuntimeError as failure:
                result[name] = str(failure)
                common.say(f"{name}: {failure}")
        return result
    finally:
        served.close()
        shell.close()


def measured(name, served, shell, path, sql):
    with common.alone():
        served.again()
        first, size = served.ask(path)
        taken = common.in_turns({"page": lambda: served.ask(path)[0], "rows": lambda: shell.ask(sql)}, ROUNDS)
        packed = served.packed(path)
    page, rows = common.median(taken["page"]), common.median(taken["rows"])
    common.say(f"{name}: first {common.seconds(first)}, then {common.seconds(page)}; rows {common.seconds(rows)}")
    return first, page, size, packed, rows


def line(name, found):
    """A row of the table."""
    if isinstance(found, str):
        return (name, "–", "–", "–", "–", "–", "–", f"**no**: {found}")
    first, page, size, packed, select = found
    return (
        name, common.seconds(first), common.seconds(page), common.seconds(select), common.ratio(page / select),
        f"{size / 1024:,.0f} KiB", f"{packed / 1024:,.0f} KiB", "yes" if page * 1000 <= BUDGET_MS else "**no**",
    )


EQUAL = f"""
*first* is the page when nobody asked for it before; the pages are asked in this order, and what one of them computed others
find: the leaderboard's is that of a server just started. *page* is the median of {ROUNDS} after that, in turns with *SELECT*,
the rows that the page rests on as the shell prints them. Scores, lineages and the lengths of lists are computed once for a
state of the tables: a page that was seen before reads what was kept; rows of lists and single trajectories, questions and pages
are read each time. The budget of a page that was seen is {BUDGET_MS} ms.
"""


def main():
    if RUNS < 50:
        sys.exit("bench: BENCH_RUNS is at least 50")
    result = times(lake())
    head = ["page", "first", "page", "SELECT", "page / SELECT", "size", "compressed", f"≤ {BUDGET_MS} ms"]
    common.write_report(
        "dashboard", "The dashboard's pages, beside a SELECT of their rows", common.command("bench-dashboard"),
        [("build", os.environ.get("BENCH_BUILD", "optimised"))],
        [("", EQUAL), (f"{ROWS:,} trajectories in {RUNS} runs", common.table(head, [line(*one) for one in result.items()]))],
    )
    if any(isinstance(found, str) for found in result.values()):
        sys.exit("bench: a page failed; its row says how")


if __name__ == "__main__":
    main()
