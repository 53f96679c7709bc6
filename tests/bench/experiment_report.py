"""`make experiment-report RESULTS="FILE …"`: what experiments came to, as pages in docs/results, from their results.json.

Arms are pooled over seeds and paired by seed and question. Intervals are 95 %, by bootstrap samples of clusters, as in
`make demo-report`: questions about one entity stand or fall together, and all seeds answer the same ones. What people wrote
under the heading "What it says" of a page as it was is kept.
"""

import collections
import html
import json
import pathlib
import random
import sys

import common
from demo_report import interval, percent

OUT = common.ROOT / "docs" / "results"
COLOURS = ["#9a9a9a", "#3465a4", "#c4663a", "#4e8f4e", "#c9a227", "#75507b", "#2aa198", "#a40000", "#6c6c6c", "#8f5902"]
SAYS = "## What it says"


def pass_at_k(judged, correct, k):
    """1 − C(n − c, k) / C(n, k), as a product; None with fewer than k attempts."""
    if judged < k:
        return None
    wrong = 1.0
    for drawn in range(k):
        wrong *= max(0, judged - correct - drawn) / (judged - drawn)
    return 1 - wrong


def questions(results, k):
    """(arm, seed) → question → (cluster, Pass@k), of the arms that are done."""
    stages = {stage["id"]: stage for stage in results["stages"]}
    found = {}
    for arm in results["arms"]:
        evaluated = [stages[id] for id in arm["stages"] if stages[id]["run"] == "evaluate"]
        if arm["state"] == "done" and evaluated:
            values = {of["qa_id"]: (of["cluster"], pass_at_k(of["judged"], of["correct"], k)) for of in evaluated[-1]["questions"]}
            found[arm["arm"], arm["seed"]] = {qa: value for qa, value in values.items() if value[1] is not None}
    return found


def pooled(found, arm, draws):
    values = [value for (name, _), of in found.items() if name == arm for value in of.values()]
    return interval(values, draws) if values else None


def difference(found, arm, first, draws):
    values = [(cluster, value - found[first, seed][qa][1])
              for (name, seed), of in found.items() if name == arm and (first, seed) in found
              for qa, (cluster, value) in of.items() if qa in found[first, seed]]
    return interval(values, draws) if values else None


def curve(results, arm, metric):
    """Mean over seeds of a metric, by step, from the last stage of an arm that told it."""
    stages = {stage["id"]: stage for stage in results["stages"]}
    by_step = collections.defaultdict(list)
    for one in results["arms"]:
        told = [stages[id]["curves"][metric] for id in one["stages"] if one["arm"] == arm and metric in stages[id]["curves"]]
        for step, value in told[-1] if told else []:
            by_step[step].append(value)
    most = max(map(len, by_step.values()), default=0)
    # Where fewer seeds came to, a mean would jump.
    return [(step, sum(values) / len(values)) for step, values in sorted(by_step.items()) if len(values) == most]


def plot(results, arms, bars, curves):
    """Bars of Pass@k with intervals, and a panel for each curve; no script, no font."""
    height = 330 + 20 * len(arms)
    panels = [metric for metric in curves if any(len(of) > 1 for of in curves[metric].values())]
    width = 480 + 300 * len(panels)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-8 0 {width + 8} {height}" width="{width + 8}" height="{height}" '
             f'font-family="system-ui, sans-serif" font-size="13" role="img">\n<title>{html.escape(results["title"])}</title>\n'
             '<rect x="-8" width="100%" height="100%" fill="#ffffff"/>']
    colour = {arm: COLOURS[at % len(COLOURS)] for at, arm in enumerate(arms)}
    y = lambda share: 260 - 200 * share
    for tick in range(0, 101, 25):
        parts.append(f'<line x1="46" x2="440" y1="{y(tick / 100):.0f}" y2="{y(tick / 100):.0f}" stroke="#dddddd"/>'
                     f'<text x="40" y="{y(tick / 100) + 4:.0f}" text-anchor="end" fill="#5a5a5a">{tick} %</text>')
    room = 390 / max(1, len(bars))
    for at, (k, of) in enumerate(bars.items()):
        step = (room - 16) / len(arms)
        for place, arm in enumerate(arms):
            if of[arm]:
                mean, low, high = of[arm]
                x = 50 + room * at + step * place
                parts.append(f'<rect x="{x:.1f}" y="{y(mean):.1f}" width="{0.85 * step:.1f}" height="{200 * mean:.1f}" fill="{colour[arm]}"/>'
                             f'<line x1="{x + 0.42 * step:.1f}" x2="{x + 0.42 * step:.1f}" y1="{y(low):.1f}" y2="{y(high):.1f}" stroke="#1a1a1a"/>')
        parts.append(f'<text x="{50 + room * (at + 0.5):.0f}" y="280" text-anchor="middle" fill="#1a1a1a">Pass@{k}</text>')
    for at, metric in enumerate(panels):
        points = [point for of in curves[metric].values() for point in of]
        (left, right), (low, high) = ((min(axis), max(axis)) for axis in zip(*points))
        x0, across, up = 500 + 300 * at, max(right - left, 1), max(high - low, 1e-9)
        parts.append(f'<text x="{x0 + 120}" y="36" text-anchor="middle" fill="#1a1a1a">{metric}</text>'
                     f'<path d="M{x0} 60V260H{x0 + 240}" fill="none" stroke="#bbbbbb"/>'
                     f'<text x="{x0 - 4}" y="64" text-anchor="end" fill="#5a5a5a">{high:.3g}</text>'
                     f'<text x="{x0 - 4}" y="260" text-anchor="end" fill="#5a5a5a">{low:.3g}</text>'
                     f'<text x="{x0 + 240}" y="280" text-anchor="end" fill="#5a5a5a">step {right}</text>')
        for arm, of in curves[metric].items():
            line = " ".join(f"{x0 + 240 * (step - left) / across:.1f},{260 - 200 * (value - low) / up:.1f}" for step, value in of)
            parts.append(f'<polyline points="{line}" fill="none" stroke="{colour[arm]}" stroke-width="1.5"/>')
    for place, arm in enumerate(arms):
        parts.append(f'<rect x="46" y="{304 + 20 * place}" width="12" height="12" fill="{colour[arm]}"/>'
                     f'<text x="64" y="{315 + 20 * place}" fill="#1a1a1a">{arm}</text>')
    return "\n".join([*parts, "</svg>\n"])


def report(path):
    results = json.loads(path.read_text())
    arms = list(dict.fromkeys(arm["arm"] for arm in results["arms"]))
    ks = sorted(int(name.removeprefix("pass_at_")) for name in results["metrics"] if name.startswith("pass_at_"))
    found = {k: questions(results, k) for k in ks}
    draws = random.Random(0)
    bars = {k: {arm: pooled(found[k], arm, draws) for arm in arms} for k in ks}
    shown = lambda value: percent(value) if value else "–"
    seeds = {arm: sum(one["state"] == "done" for one in results["arms"] if one["arm"] == arm) for arm in arms}
    scores = common.table(["arm, %", "seeds", *(f"Pass@{k}" for k in ks)],
                          [(arm, seeds[arm], *(shown(bars[k][arm]) for k in ks)) for arm in arms])
    gains = common.table([f"less {arms[0]}, points", *(f"Pass@{k}" for k in ks)],
                         [(arm, *(shown(difference(found[k], arm, arms[0], draws)) for k in ks)) for arm in arms[1:]])
    incomplete = [f"- {one['arm']}, seed {one['seed']}: {one['reason']}" for one in results["arms"] if one["state"] != "done"]
    curves = {metric: {arm: of for arm in arms if (of := curve(results, arm, metric))} for metric in results["curves"]}
    name, preset = results["name"], results.get("preset")
    more = (f" --preset {preset}" if preset else "") + " --quick" * results["quick"]
    facts = [("program", f"webdancer-train {results['program']['version']}, SHA-256 {results['program']['sha256'][:16]}, libtorch {results['program']['libtorch']}"),
             ("device", results["device"]), ("time", f"{results['seconds']:.0f} s"),
             ("made by", f"`webdancer-train experiment experiments/{name}.toml --pins PINS --out OUT{more}`")]
    page = OUT / f"{name}.md"
    says = page.read_text().partition(SAYS)[2].strip() if page.exists() else ""
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{name}.svg").write_text(plot(results, arms, bars, curves))
    parts = [f"# {results['title']}", results["question"], common.table(("", ""), facts).replace("---:", "---"),
             f"![Pass@k and curves]({name}.svg)", scores, gains if arms[1:] else "",
             "Pooled over seeds; intervals are 95 %, clustered by entity, differences paired by seed and question "
             "(`tests/bench/experiment_report.py`).",
             *(["## Incomplete", "\n".join(incomplete)] if incomplete else []), SAYS, says]
    page.write_text("\n\n".join(part for part in parts if part) + "\n")
    common.say(f"wrote {page.relative_to(common.ROOT)}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit("give the results.json of experiments")
    for argument in sys.argv[1:]:
        report(pathlib.Path(argument))
