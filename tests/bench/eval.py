"""`make bench-eval`: evaluation runs beside inspect_ai, against one stub model server.

BENCH_QUESTIONS is the number of questions (default 1,000), each attempted three times; BENCH_ROUNDS how often each
contestant runs (default 5); BENCH_LATE_MS the delay of the slow server (default 200; 0 leaves it out); BENCH_GROWTH how
much larger a run of ours alone is beside the first (default 10; 1 leaves it out). The server is tests/examples/bench_model,
in a process of its own that is not measured; the limit is that program's other half, which asks it as often over as many
connections and throws the answers away.

Both read the same questions from JSONL, ask once for each attempt, 64 at a time, score the answer by text, and record every
attempt with its messages on disk: ours as events in the lake's log, fsynced, and then in its tables; inspect_ai's in its
log file. Whether both scored every attempt, and alike, is checked before anything is timed.
"""

import json
import os
import statistics
import subprocess

import common

QUESTIONS = int(os.environ.get("BENCH_QUESTIONS", 1_000))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", 5))
LATE_MS = int(os.environ.get("BENCH_LATE_MS", 200))
GROWTH = int(os.environ.get("BENCH_GROWTH", 10))
ATTEMPTS = 3
CONNECTIONS = 64
EXAMPLE = common.TARGET / "release" / "examples" / "bench_model"
WORK = common.SCRATCH / "eval-work"
PEERS = "tests/bench/requirements-eval.txt"

OURS, INSPECT, LIMIT = "webdancer eval run", "inspect_ai", "limit: asked and thrown away"


def questions(count):
    """The file of so many questions. Every second one is answered right by the server, which says the same to all."""
    file = common.SCRATCH / f"eval-{count}.jsonl"
    if not file.exists():
        rows = ({"q": f"Which town has gate number {i}?", "gold": "Velm" if i % 2 else f"Town {i}"} for i in range(count))
        partial = file.with_suffix(".partial")
        partial.write_text("".join(json.dumps(row) + "\n" for row in rows))
        partial.rename(file)
    return file


PAGE = {
    "url": "http://gate.example/", "final_url": "http://gate.example/", "root_url": "http://gate.example/", "depth": 0,
    "status": 200, "title": "Gates", "text": "Of gates nothing is told here.", "digest": "gate",
}


def lake(url):
    """A folder with settings for the stub, and a lake with a web of one page: what a run needs, and does not use."""
    folder = common.emptied(WORK)
    settings = (
        f'[endpoints.stub]\nurl = "{url}"\nmodel = "stub"\nconcurrency = {CONNECTIONS}\n'
        '[benchmarks.gates]\nquestion = "q"\nanswer = "gold"\nscorer = "normalised"\n'
    )
    (folder / "webdancer.toml").write_text(settings)
    event = {
        "specversion": "1.0", "id": "gate", "source": "bench", "type": "webdancer.page.v1", "data": PAGE,
        "time": "2026-01-01T00:00:00Z",
    }
    command(["append", "--quiet"], folder, stdin=json.dumps(event) + "\n")
    command(["pin", "create", "web", "--sql", "SELECT url, title, text FROM pages"], folder)
    return folder


def command(arguments, folder, stdin=None):
    state = {"XDG_STATE_HOME": str(folder / "state")}
    argv = [common.WEBDANCER, "--quiet", "--json", "--lake", folder / "lake", *arguments]
    return common.measure(argv, env=state, stdin=stdin, cwd=folder)


def ours(url, count):
    """Attempts scored, score, and the sample."""
    folder = lake(url)
    arguments = ["eval", "run", "gates", "--file", questions(count), "--policy", "endpoint:stub", "--web", "closed:web"]
    arguments += ["--attempts", ATTEMPTS, "--concurrency", CONNECTIONS, "--judge", "none"]
    sample = command(arguments, folder)
    scores = json.loads(sample.stdout)["scores"]
    return scores["judged"], scores["pass_at_1"], sample


def inspect(url, count):
    folder = common.emptied(WORK)
    peer = common.ROOT / "tests/bench/peers/inspect_eval.py"
    argv = [common.python(PEERS), peer, questions(count), ATTEMPTS, CONNECTIONS, url, folder]
    sample = common.measure(argv, env={"PYTHONDONTWRITEBYTECODE": "1"}, cwd=folder)
    told = json.loads(sample.stdout.strip().splitlines()[-1])
    return told["samples"], told["score"], sample


def limit(url, count):
    sample = common.measure([EXAMPLE, "ask", url, count * ATTEMPTS, CONNECTIONS])
    return json.loads(sample.stdout)["requests"], None, sample


def timed(late_ms):
    """name -> samples."""
    with common.served(EXAMPLE, late_ms) as url:
        contestants = {
            OURS: lambda: ours(url, QUESTIONS),
            INSPECT: lambda: inspect(url, QUESTIONS),
            LIMIT: lambda: limit(url, QUESTIONS),
        }
        common.say(f"answers after {late_ms} ms: whether all score alike")
        found = {name: run() for name, run in contestants.items()}
        scored = {name: (count, score) for name, (count, score, _) in found.items() if name != LIMIT}
        if len({count for count, _ in scored.values()} | {QUESTIONS * ATTEMPTS}) > 1:
            raise RuntimeError(f"not every attempt is scored: {scored}")
        if max(score for _, score in scored.values()) - min(score for _, score in scored.values()) > 1e-9:
            raise RuntimeError(f"they do not score alike: {scored}")
        common.say(f"{scored[OURS][0]:,} attempts each, {scored[OURS][1]:.1%} right; timing")
        results = common.in_turns(contestants, ROUNDS, warm_up=0)
    return {name: [sample for _, _, sample in runs] for name, runs in results.items()}


def while_asking(samples):
    """Median seconds from the first attempt's begin to the last one's record: ours without its start and the scores' queries."""
    return statistics.median(json.loads(sample.stdout)["sampled"]["elapsed_ms"] / 1000 for sample in samples)


def lines(results, attempts, late_ms):
    """The table of one delay."""
    ideal_s = attempts * late_ms / 1000 / CONNECTIONS
    rows = []
    for name, samples in results.items():
        wall, cpu = common.median(samples), common.cpu_s(samples)
        row = [name, common.seconds(wall), f"{attempts / wall:,.0f}"]
        row += [f"{ideal_s / wall:.1%}"] if late_ms else []
        row += [f"{1000 * cpu / attempts:.2f} ms", f"{max(sample.rss_mib for sample in samples):,.0f} MiB"]
        rows.append(row)
        if name == OURS and late_ms:
            asking = while_asking(samples)
            rows.append(["— while attempts are made", common.seconds(asking), f"{attempts / asking:,.0f}", f"{ideal_s / asking:.1%}", "", ""])
    share = ["of the ideal"] if late_ms else []
    return common.table(["", "time", "attempts/s", *share, "processor time an attempt", "peak memory"], rows)


def growth():
    """Ours alone, at the first size and at the larger."""
    rows = []
    with common.served(EXAMPLE, 0) as url:
        for count in (QUESTIONS, QUESTIONS * GROWTH):
            _, _, sample = ours(url, count)
            attempts = count * ATTEMPTS
            rate, cpu = attempts / sample.wall_s, 1000 * sample.cpu_s / attempts
            rows.append((f"{attempts:,}", common.seconds(sample.wall_s), f"{rate:,.0f}", f"{cpu:.2f} ms", f"{sample.rss_mib:,.0f} MiB"))
    return common.table(("attempts", "time", "attempts/s", "processor time an attempt", "peak memory"), rows)


def versions():
    code = "import importlib.metadata as m; print(m.version('inspect_ai'), m.version('openai'))"
    said = subprocess.check_output([common.python(PEERS), "-c", code], text=True).split()
    return [("inspect_ai", said[0]), ("openai", said[1]), ("rounds", ROUNDS), ("build", "optimised")]


def main():
    attempts = QUESTIONS * ATTEMPTS
    with common.alone():
        at_once = timed(0)
        late = timed(LATE_MS) if LATE_MS else None
        grown = growth() if GROWTH > 1 else None
    wall = {name: common.median(samples) for name, samples in at_once.items()}
    times = wall[INSPECT] / wall[OURS]
    sections = [
        (
            "",
            f"{QUESTIONS:,} questions, {ATTEMPTS} attempts at each, {CONNECTIONS} at a time; medians of {ROUNDS} rounds, in turns. Both ask "
            "the same server, a process of its own on the same machine, once for each attempt, and record every attempt with its "
            "messages. Times are of whole processes, from the start to the scores: imports, the lake's commits and the queries of "
            "the scores count. inspect_ai sends a short system message, ours the standard prompt with its tools.",
        ),
        ("Answers at once", lines(at_once, attempts, 0)),
    ]
    goals = [f"At least 10 times inspect_ai's attempts a second: {'reached' if times >= 10 else 'not reached'}, {common.ratio(times)}."]
    if late:
        ideal_s = attempts * LATE_MS / 1000 / CONNECTIONS
        share, asking = ideal_s / common.median(late[OURS]), ideal_s / while_asking(late[OURS])
        sections.append((f"Answers after {LATE_MS} ms", lines(late, attempts, LATE_MS)))
        goals.append(f"At least 98 % of the ideal at {LATE_MS} ms: {'reached' if share >= 0.98 else 'not reached'} by the whole process, {share:.1%}; {'reached' if asking >= 0.98 else 'not reached'} while attempts are made, {asking:.1%}.")
    if grown:
        sections.append((f"{GROWTH} times as many, ours alone, one run each", grown))
    sections.append(("Goals", " ".join(goals)))
    common.write_report("eval", "Evaluation runs beside inspect_ai", common.command("bench-eval"), versions(), sections)


if __name__ == "__main__":
    main()
