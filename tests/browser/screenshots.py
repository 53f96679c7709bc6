#!/usr/bin/env python3
"""Takes a picture of each page of the dashboard over a lake, as docs/images has them.

    screenshots.py --command WEBDANCER --lake LAKE FOLDER [--only NAME]

It works on a copy of the lake: there a schedule evaluates the scripted expert, with few mistakes and with many, on three
slots. Then it serves the copy on a free port of loopback, finds one id of each sort by SQL, opens the pages and writes a PNG
of each, with a palette in place of all colours where the machine has `pngquant`.
"""

import argparse
import contextlib
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from browser import context, launch

TOTAL_BYTES_MAX = 2 << 20
START_LIMIT_S = 60

SETTINGS = """
[[schedule]]
name = "nightly"
cron = "0 3 * * *"
policies = ["scripted:0.12", "scripted:0.03"]
benchmarks = ["atlas"]
attempts = 3
limit = 60
"""
SLOTS = 3

# Name of the picture, path with ids as the queries below name them, theme.
PAGES = [
    ("leaderboard", "/", "light"),
    ("benchmarks", "/benchmarks", "light"),
    ("benchmark", "/benchmarks/{benchmark}", "light"),
    ("runs", "/runs", "light"),
    ("run", "/runs/{run}", "light"),
    ("compare", "/compare?before={before}&after={run}", "light"),
    ("schedules", "/schedules", "light"),
    ("slot", "/schedules/{slot}", "light"),
    ("trajectories", "/trajectories", "light"),
    ("trajectory", "/trajectories/{trajectory}?turn=2", "light"),
    ("trajectory-dark", "/trajectories/{trajectory}?turn=2", "dark"),
    ("tokens", "/trajectories/{sampled}?view=tokens", "light"),
    ("difference", "/trajectories/{trajectory}?against={other}", "light"),
    ("data", "/data", "light"),
    ("questions", "/questions", "light"),
    ("question", "/questions/{question}", "light"),
    ("pages", "/pages", "light"),
    ("page", "/pages/{page}", "light"),
    ("training", "/training", "light"),
    ("training-run", "/training/{training}", "dark"),
    ("pins", "/pins", "light"),
    ("pin", "/pins/{pin}", "light"),
    ("sql", "/sql?chart=bars&sql=SELECT+method%2C+count(*)+AS+questions%0AFROM+current_qa%0AGROUP+BY+method%0AORDER+BY+questions+DESC", "light"),
    ("search", "/search?q=capital", "light"),
    ("lineage", "/lineage/{trajectory}?up=3&down=2", "light"),
]

# One of each sort: what there is most to see of.
IDS = {
    "trajectory": "SELECT max(trajectory_id) AS id FROM trajectories WHERE n_turns = (SELECT max(n_turns) FROM trajectories WHERE n_turns <= 9)",
    "other": "SELECT o.trajectory_id AS id FROM trajectories AS o JOIN trajectories AS t ON o.qa_id = t.qa_id AND o.trajectory_id <> t.trajectory_id "
    "WHERE t.trajectory_id = '{trajectory}' ORDER BY 1 LIMIT 1",
    "sampled": "SELECT max(trajectory_id) AS id FROM trajectories WHERE turn_completion_token_ids IS NOT NULL",
    "question": "SELECT qa_id AS id FROM trajectories WHERE trajectory_id = '{trajectory}'",
    "page": "SELECT max(digest) AS id FROM pages WHERE digest IS NOT NULL AND title IS NOT NULL",
    "run": "SELECT max(run_id) AS id FROM run_state WHERE state = 'finished' AND json_get_str(config, 'policy') = 'scripted:0.03'",
    "before": "SELECT max(run_id) AS id FROM run_state WHERE state = 'finished' AND json_get_str(config, 'policy') = 'scripted:0.12'",
    "slot": "SELECT max(slot_id) AS id FROM slot_state",
    "benchmark": "SELECT json_get_str(config, 'benchmark', 'benchmark') AS id FROM run_state WHERE kind = 'eval' ORDER BY started DESC LIMIT 1",
    "training": "SELECT max(r.run_id) AS id FROM run_state AS r JOIN metrics AS m ON m.run_id = r.run_id WHERE r.kind IN ('sft', 'dapo')",
    "pin": "SELECT last_value(name ORDER BY rows) AS id FROM pins",
}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def ids(command, lake):
    """Ids to put into paths, each by its name in `IDS`."""
    found = {}
    for name, query in IDS.items():
        statement = query.format(**found)
        told = subprocess.run([command, "sql", "--lake", lake, "--format", "ndjson", statement], check=True, capture_output=True)
        rows = [json.loads(line) for line in told.stdout.splitlines()]
        if not rows or not rows[0].get("id"):
            sys.exit(f"screenshots.py: the lake has no {name}: give that of a whole `make demo`")
        found[name] = rows[0]["id"]
    return found


def evaluated(command, lake, folder):
    """A copy of the lake in `folder`, with evaluations by a schedule."""
    copy, settings = folder / "lake", folder / "webdancer.toml"
    shutil.copytree(lake, copy)
    settings.write_text(SETTINGS)
    for _ in range(SLOTS):
        subprocess.run([command, "--quiet", "--lake", copy, "--config", settings, "eval", "schedule", "run-now", "nightly"], check=True)
    return copy


@contextlib.contextmanager
def served(command, lake):
    """The address of the dashboard, as a process that answers."""
    base = f"http://127.0.0.1:{free_port()}"
    server = subprocess.Popen([command, "serve", "--lake", lake, "--listen", urlsplit(base).netloc], stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + START_LIMIT_S
        while not answers(base):
            if time.monotonic() > end or server.poll() is not None:
                sys.exit("screenshots.py: the dashboard did not answer")
            time.sleep(0.2)
        yield base
    finally:
        server.terminate()
        server.wait()


def answers(base):
    try:
        urllib.request.urlopen(base, timeout=20).close()
        return True
    except OSError:
        return False


def take(browser, base, folder, found, only):
    for name, path, theme in PAGES:
        if only and name != only:
            continue
        window = context(browser, theme)
        page = window.new_page()
        try:
            response = page.goto(base + path.format(**found), wait_until="load")
            if response.status != 200:
                sys.exit(f"screenshots.py: {path} answers {response.status}")
            page.screenshot(path=folder / f"{name}.png")
        finally:
            window.close()


def shrink(folder):
    """Pages have few colours: a palette makes a picture a third as large."""
    if shutil.which("pngquant"):
        pictures = sorted(folder.glob("*.png"))
        subprocess.run(["pngquant", "--force", "--ext", ".png", "--speed", "1", "128", *pictures], check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--command", required=True)
    parser.add_argument("--lake", required=True)
    parser.add_argument("--only")
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    playwright, browser = launch()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            lake = evaluated(given.command, given.lake, Path(scratch))
            found = ids(given.command, lake)
            with served(given.command, lake) as base:
                take(browser, base, given.folder, found, given.only)
    finally:
        browser.close()
        playwright.stop()
    shrink(given.folder)
    total = sum(p.stat().st_size for p in given.folder.glob("*.png"))
    print(f"{len(list(given.folder.glob('*.png')))} pictures, {total} bytes in {given.folder}")
    if total > TOTAL_BYTES_MAX:
        sys.exit(f"screenshots.py: at most {TOTAL_BYTES_MAX} bytes are to be kept in the repository")


if __name__ == "__main__":
    main()
