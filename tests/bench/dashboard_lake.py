"""The events of the lake that `dashboard.py` measures over: the same numbers give the same events.

Benchmarks and their runs, as a team leaves them behind; a web of 2,000 pages and questions made from it, whose attempts went
through the funnel; a training run; a schedule; and one trajectory of 1,000 turns and 10 MB.
"""

import datetime
import hashlib
import random
import uuid

BENCHMARKS = ["gaia", "webwalkerqa", "browsecomp", "simpleqa", "xbench-deepsearch"]
POLICIES = 8
ATTEMPTS = 2
SITES = 20
PAGES_A_SITE = 100
# Of the web, and as many attempts at each as at a benchmark's.
SYNTHESISED = 1_000
STEPS = 2_000
SLOTS = 200
LONG_TURNS = 1_000
LONG_WORDS_A_TURN = 1_700
LONG = "00000000-0000-4000-8000-000000001000"
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


def events(rows, runs):
    """All events of a lake with so many trajectories of benchmarks, and some."""
    rng = random.Random(1)
    questions = max(2, rows // runs // ATTEMPTS)
    asked = {}
    for name in BENCHMARKS:
        asked[name] = [f"{name}-{number:05}" for number in range(questions)]
        for number, qa_id in enumerate(asked[name]):
            attributes = {"benchmark": name, "level": 1 + number % 3, "root_url": f"https://site-{number // 2}.example/"}
            row = {"qa_id": qa_id, "method": "benchmark", "question": text(rng, 14) + "?", "answer": text(rng, 2)}
            yield event("qa", {**row, "language": "en", "attributes": attributes}, "bench", 0, rng)
    yield from pages(rng)
    yield from synthesised(rng)
    yield from training(rng)
    yield from slots(rng)
    for number in range(runs):
        yield from run_events(number, BENCHMARKS[number % len(BENCHMARKS)], asked, rng)


def pages(rng):
    """Sites that were crawled, each page linked with its site's first."""
    for site in range(SITES):
        root = f"https://site-{site}.example/"
        for number in range(PAGES_A_SITE):
            url = f"{root}{number or ''}"
            row = {
                "url": url, "final_url": url, "root_url": root, "depth": min(number, 1), "status": 200, "title": text(rng, 4),
                "text": text(rng, 400), "digest": hashlib.sha256(url.encode()).hexdigest(),
            }
            yield event("page", row, "crawl", 0, rng)


def synthesised(rng):
    """Questions made from the pages, and what the funnel said of the attempts at them."""
    for number in range(SYNTHESISED):
        qa_id = f"crawled-{number:05}"
        row = {"qa_id": qa_id, "method": "crawlqa", "question": text(rng, 14) + "?", "answer": text(rng, 2), "language": "en"}
        yield event("qa", row, "synth", 1, rng)
        for attempt in range(ATTEMPTS):
            row = trajectory("sample", "expert", qa_id, attempt, rng)
            yield event("trajectory", row, "sample", 2, rng)
            for stage in ("validity", "correctness", "quality"):
                passed = rng.random() < 0.7
                judged = {"trajectory_id": row["trajectory_id"], "stage": stage, "verdict": "pass" if passed else "fail"}
                yield event("judgment", {**judged, "judge": "rules", "rule_version": 1, "criteria": {"reason": "format"}}, "filter", 3, rng)
                if not passed:
                    break
    yield event("trajectory", long(rng), "sample", 4, rng)


def long(rng):
    """A trajectory of many turns with long observations."""
    turns, calls = LONG_TURNS, LONG_TURNS - 1
    read = text(rng, LONG_WORDS_A_TURN)
    return {
        **trajectory("sample", "expert", "crawled-00000", ATTEMPTS, rng), "trajectory_id": LONG, "n_turns": turns,
        "n_tool_calls": calls, "turn_thought": [text(rng, 40) for _ in range(turns)], "turn_tool": ["search"] * calls + [None],
        "turn_arguments": ['{"query":["x"]}'] * calls + [None], "turn_observation": [f"{turn} {read}" for turn in range(calls)] + [None],
        "turn_outcome": ["done"] * calls + [None], "turn_ms": [1_000] * turns, "turn_observation_digest": [None] * turns,
        "turn_raw": [None] * turns,
    }


def slots(rng):
    """A schedule's slots, each with a cell."""
    for number in range(SLOTS):
        at = (START + datetime.timedelta(hours=number)).isoformat()
        slot = {"slot_id": f"slot-{number:04}", "schedule": "hourly", "slot_time": at, "holder": "bench"}
        cell = {**slot, "policy": "endpoint:policy-0", "benchmark": "gaia"}
        for state, row in (("queued", slot), ("claimed", slot), ("started", cell), ("finished", cell), ("finished", slot)):
            yield event("slot", {**row, "state": state}, f"slot-run-{number:04}", 60 * number + 1, rng)


def training(rng):
    """A run of reinforcement with its curves."""
    begun = {"kind": "dapo", "config": {"preset": "demo"}, "seed": 1}
    yield event("run", {**begun, "state": "started"}, "training", 1, rng)
    for step in range(1, STEPS + 1):
        for name in ("policy_loss", "reward", "entropy", "grad_norm", "written_tokens"):
            yield event("metric", {"name": name, "step": step, "value": rng.random()}, "training", 1 + step / 60, rng)
    yield event("run", {**begun, "state": "finished"}, "training", 50, rng)


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
