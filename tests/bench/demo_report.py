"""`make demo-report`: the demo with several seeds, and what it says together.

Seeds draw first weights, orders, rollouts and attempts; worlds and questions are the same, so that arms are paired by
question. Values are pooled over seeds. Intervals are 95 %, by 10,000 bootstrap samples of entities: questions about one
country stand or fall together, and all seeds answer the same ones. They are of these runs: how much another seed would
change is seen in the differences by seed. BENCH_SEEDS (default 1,2,3), BENCH_ARGS (more arguments of `demo`), BENCH_FOLDER
(default demo-report; lakes that the same commit made with the same arguments are not made again).
"""

import collections
import json
import os
import pathlib
import random
import shutil
import subprocess

import common

SEEDS = [int(seed) for seed in os.environ.get("BENCH_SEEDS", "1,2,3").split(",")]
MORE = os.environ.get("BENCH_ARGS", "").split()
FOLDER = pathlib.Path(os.environ.get("BENCH_FOLDER", common.ROOT / "demo-report")).absolute()
WEBDANCER = pathlib.Path(os.environ.get("WEBDANCER_BIN", common.TARGET / "debug" / "webdancer"))
OUT = common.ROOT / "docs" / "results"
ARMS = ["base", "closed_book", "sft", "sft_more", "dapo"]
METRICS = {"pass_at_1": "Pass@1", "pass_at_3": "Pass@3", "maj_at_3": "Maj@3"}
# Of all questions and seeds, how many must have a score in every arm before anything is claimed.
COVERAGE_MIN = 0.98
# How much of DAPO's time the fine-tuning beside it must have had.
TIME_SHARE_MIN = 0.95
CLAIMS = [("dapo", "sft_more"), ("dapo", "sft"), ("sft_more", "sft"), ("sft", "base"), ("sft", "closed_book")]
SAMPLES = 10_000
# The demo's own scores, question by question, with the entity that a question is about.
QUERY = """
SELECT s.arm, s.qa_id, q.type, coalesce(q.attributes->>'cluster', s.qa_id) AS entity,
  pass_at_k(s.correct, 1) AS pass_at_1, pass_at_k(s.correct, 3) AS pass_at_3, maj_at_k(s.answer, s.correct, 3) AS maj_at_3
FROM (SELECT CASE run_id {arms} END AS arm, qa_id, answer, correct FROM evaluations WHERE run_id IN ({runs})) AS s
JOIN current_qa AS q ON q.qa_id = s.qa_id
GROUP BY s.arm, s.qa_id, q.type, q.attributes->>'cluster' ORDER BY s.arm, s.qa_id
"""


def demo(seed):
    """The summary of a demo, made now or before."""
    folder, summary = FOLDER / str(seed), FOLDER / f"{seed}.json"
    made_by = {"commit": common.commit(), "arguments": MORE}
    made = json.loads(summary.read_text()) if summary.exists() else {}
    if made.get("made_by") != made_by:
        FOLDER.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        common.say(f"the demo with seed {seed}, in {folder}")
        argv = [WEBDANCER, "--json", "demo", "--seed", seed, "--folder", folder, *MORE]
        with open(FOLDER / f"{seed}.log", "wb") as log:
            done = subprocess.run([str(part) for part in argv], stdout=subprocess.PIPE, stderr=log)
        if done.returncode:
            raise SystemExit(f"the demo with seed {seed} failed; see {FOLDER}/{seed}.log")
        made = {"made_by": made_by, "summary": json.loads(done.stdout)}
        summary.write_text(json.dumps(made))
    return made["summary"]


def scores(seed, summary):
    """The rows of the query, in one seed's lake."""
    runs = summary["evaluations"]
    sql = QUERY.format(arms=" ".join(f"WHEN '{run}' THEN '{arm}'" for arm, run in runs.items()),
                       runs=", ".join(f"'{run}'" for run in runs.values()))
    lake = FOLDER / str(seed) / "lake"
    argv = [WEBDANCER, "--quiet", "--lake", lake, "--log", "embedded", "sql", "--format", "json", sql]
    return json.loads(subprocess.run([str(part) for part in argv], stdout=subprocess.PIPE, check=True).stdout)


def interval(values, draws):
    """Mean of (entity, value) pairs, and its interval over bootstrap samples of entities."""
    of = collections.defaultdict(list)
    for entity, value in values:
        of[entity].append(value)
    parts = [(sum(part), len(part)) for part in of.values()]
    mean = sum(total for total, _ in parts) / sum(count for _, count in parts)
    means = []
    for _ in range(SAMPLES):
        drawn = draws.choices(parts, k=len(parts))
        means.append(sum(total for total, _ in drawn) / sum(count for _, count in drawn))
    means.sort()
    return mean, means[int(0.025 * SAMPLES)], means[int(0.975 * SAMPLES) - 1]


def percent(found):
    return "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * value for value in found))


def plot(by_arm, differences):
    """Bars of the arms and, beside them, differences with their intervals; no script, no font."""
    parts = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 330" width="900" height="330" '
             'font-family="system-ui, sans-serif" font-size="13" role="img">\n<title>Scores of the demo\'s policies</title>\n'
             '<rect width="100%" height="100%" fill="#ffffff"/>']
    colours = dict(zip(ARMS, ["#9a9a9a", "#c9a227", "#3465a4", "#4e8f4e", "#c4663a"]))
    y = lambda share: 260 - 200 * share
    for tick in range(0, 101, 25):
        parts.append(f'<line x1="46" x2="500" y1="{y(tick / 100):.0f}" y2="{y(tick / 100):.0f}" stroke="#dddddd"/>'
                     f'<text x="40" y="{y(tick / 100) + 4:.0f}" text-anchor="end" fill="#5a5a5a">{tick} %</text>')
    for at, (metric, title) in enumerate(METRICS.items()):
        for place, arm in enumerate(ARMS):
            mean, low, high = by_arm[arm, metric]
            x = 56 + 150 * at + 26 * place
            parts.append(f'<rect x="{x}" y="{y(mean):.1f}" width="22" height="{200 * mean:.1f}" fill="{colours[arm]}"/>'
                         f'<line x1="{x + 11}" x2="{x + 11}" y1="{y(low):.1f}" y2="{y(high):.1f}" stroke="#1a1a1a"/>')
        parts.append(f'<text x="{56 + 150 * at + 65}" y="280" text-anchor="middle" fill="#1a1a1a">{title}</text>')
    for place, arm in enumerate(ARMS):
        parts.append(f'<rect x="{46 + 100 * place}" y="300" width="12" height="12" fill="{colours[arm]}"/>'
                     f'<text x="{62 + 100 * place}" y="311" fill="#1a1a1a">{arm}</text>')
    shown = [(claim, differences[claim, "pass_at_1"]) for claim in CLAIMS[:3]]
    reach = max(0.05, *(abs(bound) for _, found in shown for bound in found)) * 1.1
    x = lambda share: 740 + 130 * share / reach
    parts.append('<text x="740" y="36" text-anchor="middle" fill="#1a1a1a">differences in Pass@1, points</text>'
                 '<line x1="740" x2="740" y1="50" y2="250" stroke="#bbbbbb"/>')
    for at, ((one, other), (mean, low, high)) in enumerate(shown):
        top = 85 + 60 * at
        parts.append(f'<text x="540" y="{top - 14}" fill="#1a1a1a">{one} − {other}: {100 * mean:+.1f}</text>'
                     f'<line x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{top}" y2="{top}" stroke="#1a1a1a"/>'
                     f'<circle cx="{x(mean):.1f}" cy="{top}" r="4" fill="{colours[one]}"/>')
    return "\n".join([*parts, "</svg>\n"])


def main():
    summaries = {seed: demo(seed) for seed in SEEDS}
    rows = {seed: scores(seed, summary) for seed, summary in summaries.items()}
    # (seed, question) → what is known of it.
    found = collections.defaultdict(dict)
    for seed, of_seed in rows.items():
        for row in of_seed:
            found[seed, row["qa_id"]][row["arm"]] = row
    # A question counts where every arm has an answer that could be judged.
    whole = [of for of in found.values()
             if len(of) == len(ARMS) and all(row[metric] is not None for row in of.values() for metric in METRICS)]
    draws = random.Random(0)
    by_arm = {(arm, metric): interval([(of[arm]["entity"], of[arm][metric]) for of in whole], draws)
              for arm in ARMS for metric in METRICS}
    differences = {((one, other), metric): interval(
        [(of[one]["entity"], of[one][metric] - of[other][metric]) for of in whole], draws)
        for one, other in CLAIMS for metric in METRICS}
    entities = {row["entity"] for of in whole for row in of.values()}
    questions = {row["qa_id"] for of in whole for row in of.values()}
    head = ["arm, %", *METRICS.values()]
    arms = common.table(head, [(arm, *(percent(by_arm[arm, metric]) for metric in METRICS)) for arm in ARMS])
    claims = common.table(["difference, points", *METRICS.values()], [
        (f"{one} − {other}", *(percent(differences[(one, other), metric]) for metric in METRICS)) for one, other in CLAIMS])
    types = sorted({row["type"] for of in whole for row in of.values()})
    mean_of = lambda arm, kept: 100 * sum(of[arm]["pass_at_1"] for of in kept) / max(1, len(kept))
    by_type = common.table(["Pass@1, %", *ARMS], [
        (kind, *(f"{mean_of(arm, [of for of in whole if of[arm]['type'] == kind]):.1f}" for arm in ARMS)) for kind in types])
    whole_of = lambda seed: [of for (of_seed, _), of in found.items() if of_seed == seed and of in whole]
    difference_of = lambda seed: interval(
        [(of["dapo"]["entity"], of["dapo"]["pass_at_1"] - of["sft_more"]["pass_at_1"]) for of in whole_of(seed)], draws)
    seconds = lambda run: [summary["training"][run]["seconds"] for summary in summaries.values()]
    of_seed = common.table(["Pass@1, %, and seconds", *ARMS, "dapo − sft_more", "SFT", "DAPO", "SFT continued"], [
        (f"seed {seed}", *(f"{100 * summary['pass_at_1'][arm]:.1f}" for arm in ARMS),
         percent(difference_of(seed)) if whole_of(seed) else "no question has all arms",
         *(f"{summary['training'][run]['seconds']:.0f} s" for run in ("sft", "dapo", "sft_more")))
        for seed, summary in summaries.items()])
    mean, low, high = differences[("dapo", "sft_more"), "pass_at_1"]
    asked = len(SEEDS) * len({qa for _, qa in found})
    coverage, time_share = len(whole) / max(1, asked), sum(seconds("sft_more")) / sum(seconds("dapo"))
    if coverage < COVERAGE_MIN:
        verdict = f"is not told: only {100 * coverage:.1f} % of questions have a score in every arm and seed"
    elif time_share < TIME_SHARE_MIN:
        verdict = f"is not told: fine-tuning went on for {100 * time_share:.0f} % of DAPO's time only"
    else:
        verdict = ("holds for these runs: its interval is above 0" if low > 0
                   else "does not hold: its interval reaches below 0")
    facts = common.machine() + [
        ("webdancer", common.commit()), ("seeds", ", ".join(map(str, SEEDS))),
        ("questions", f"{len(questions)} about the real countries, {len(entities)} entities, 3 attempts each, temperature 0.6, top-p 0.95"),
        ("coverage", f"{len(whole)} of {asked} questions and seeds have a score in every arm"),
        ("fine-tuning beside DAPO", f"{100 * time_share:.0f} % of its time"),
        ("made by", f"`{common.command('demo-report')}`"),
    ]
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "demo.svg").write_text(plot(by_arm, differences))
    text = "\n\n".join([
        "# The demo, with several seeds",
        "Arms of `webdancer demo`, pooled over seeds, with paired 95 % intervals clustered by entity "
        "(`tests/bench/demo_report.py` says how). *base* is the model before training, *closed_book* the fine-tuned one "
        "without tools, *sft_more* the fine-tuned one trained on for about as long as DAPO takes.",
        common.table(("", ""), facts).replace("---:", "---"),
        "![Scores and differences](demo.svg)",
        arms, claims,
        f"That DAPO helps more than as much further fine-tuning, {100 * mean:+.1f} points in Pass@1, {verdict}. "
        "Runs of one seed differ, too: see [The demo's learner](../training.md#the-demos-learner).",
        "## By type of question, and by seed", by_type, of_seed,
        "## The query", "Of one seed's lake; `webdancer demo` prints the runs of its arms.",
        f"```sql\n{QUERY.strip()}\n```",
    ])
    (OUT / "demo.md").write_text(text + "\n")
    common.say(f"wrote {OUT / 'demo.md'}")


if __name__ == "__main__":
    main()
