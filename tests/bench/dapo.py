"""`make bench-dapo`: a DAPO step on a processor, beside a plain loop in PyTorch; and where the time of a whole run goes.

First the step alone, rollout and update: the demo's learner and a larger model (made by transformers, fp32), the same
prompts, samples and lengths, the same threads, in turns; BENCH_ROUNDS is how often each contestant runs (default 5).
Then `train dapo` itself on the lake of `make demo` (BENCH_DEMO_LAKE, default demo-lake/lake; left out where there is none):
episodes with tools and judge, updates, events, checkpoints. Its metrics say what share is no model's work.
"""

import json
import os
import pathlib

import common
import train

ROUNDS = int(os.environ.get("BENCH_ROUNDS", 5))
EXAMPLE = pathlib.Path(os.environ.get("BENCH_DAPO", common.TARGET / "debug" / "examples" / "bench_dapo"))
WEBDANCER = common.TARGET / "debug" / "webdancer"
PEER = common.ROOT / "tests/bench/peers/dapo_torch.py"
LAKE = pathlib.Path(os.environ.get("BENCH_DEMO_LAKE", common.ROOT / "demo-lake" / "lake")).absolute()
# model, prompts, group, tokens of a prompt, new tokens, steps
WORK = [("0.9M", 16, 8, 256, 64, 3), ("22M", 4, 8, 256, 64, 1)]
# Rounds of the whole run; the first is not counted.
RUN_ROUNDS = int(os.environ.get("BENCH_RUN_ROUNDS", 6))
CONFIG = f"""preset = "demo"
seed = 7
[groups]
temperature = 0.6
[checkpoints]
every_steps = 0
[schedule]
steps_max = {2 * RUN_ROUNDS}
"""
METRICS = ["time.round", "time.rollout", "time.model", "time.update", "time.idle", "time.tools", "rollout_tokens"]


def step_rows():
    peer = [train.python(), PEER]
    rows = []
    for name, *sizes in WORK:
        folder = train.model(name)
        prompts, group, length, new, _ = sizes
        what = f"{name}, {prompts} × {group} of {length} + {new}"
        common.say(what)
        contestants = {"ours": lambda: train.said([EXAMPLE, folder, *sizes]), "peer": lambda: train.said([*peer, folder, *sizes])}
        results = common.in_turns(contestants, ROUNDS)
        for part, seconds in [
            ("rollout", lambda r: r["rollout"]), ("update", lambda r: r["update"]),
            ("step", lambda r: r["rollout"] + r["update"]),
        ]:
            ours, theirs = (common.median([r["tokens"] / seconds(r) for r in results[key]]) for key in ("ours", "peer"))
            rows.append((f"{part}, {what}", f"{ours:,.0f}", f"{theirs:,.0f}", common.ratio(ours / theirs)))
            common.say(" | ".join(rows[-1]))
    return rows


def webdancer(*arguments):
    argv = [WEBDANCER, "--json", "--quiet", "--lake", LAKE, "--log", "embedded", *arguments]
    return json.loads(common.measure(argv).stdout)


def run_rows():
    """Means over the rounds of a run but the first."""
    config = common.SCRATCH / "dapo.toml"
    config.write_text(CONFIG)
    sft = webdancer("sql", "SELECT c.digest, c.run_id, c.step FROM checkpoints c JOIN run_state r ON r.run_id = c.run_id "
                           "WHERE r.kind = 'sft' ORDER BY c.run_id, c.step DESC LIMIT 1")[0]["digest"]
    run = webdancer("train", "dapo", "--pin", "demo-rl", "--web", "closed:demo-pages-rl", "--init", sft, "--config", config)
    names = ", ".join(f"'{name}'" for name in METRICS)
    found = webdancer("sql", f"SELECT name, sum(value) AS total FROM metrics WHERE run_id = '{run['run_id']}' AND step > 1 "
                             f"AND name IN ({names}) GROUP BY name")
    total = {row["name"]: row["total"] for row in found}
    whole = total["time.round"]
    outside = whole - total["time.model"] - total["time.update"]
    share = lambda seconds: f"{100 * seconds / whole:.1f} %"
    return [
        ("rollout tokens a second", f"{total['rollout_tokens'] / total['time.rollout']:,.0f}"),
        ("model, writing", share(total["time.model"])), ("model, updates", share(total["time.update"])),
        ("outside the model", share(outside)), ("of it waiting for tools", share(total["time.idle"])),
        ("calls of tools, beside the model", share(total["time.tools"])),
    ]


def main():
    with common.alone():
        measured()


def measured():
    head = ("tokens written, a second", "webdancer-train", "plain loop", "ours : theirs")
    sections = [("The step alone, medians of rounds in turns", common.table(head, step_rows()))]
    if LAKE.exists():
        sections.append((f"Where the time of `train dapo` goes, on the lake of `make demo`, {RUN_ROUNDS - 1} rounds",
                         common.table(("of a round", "share"), run_rows())))
    common.write_report(
        "dapo", "DAPO on a processor", common.command("bench-dapo"),
        [("torch, transformers", train.versions()), ("rounds", ROUNDS), common.BUILD], sections,
    )


if __name__ == "__main__":
    main()
