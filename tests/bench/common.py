"""What the benchmarks share: commands measured, contestants run in turns, the machine described, a report written.

Standard library only. The drivers import this module and nothing large: Linux counts the memory of whoever starts a
child towards the child's peak, so the peers are imported in processes of their own.
"""

import contextlib
import dataclasses
import fcntl
import functools
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", pathlib.Path.home() / ".cache/webdancer/target"))
# The command, as `make release` builds it.
WEBDANCER = os.environ.get("WEBDANCER_BIN", str(TARGET / "release" / "webdancer"))
# How what DataFusion takes no part in is built: see `optimised` in the Makefile.
BUILD = ("build", "development; webdancer's own crates and the hot dependencies at level 3")
# Data, results and peers of the benchmarks; may be deleted at any time.
SCRATCH = TARGET / "bench"


@dataclasses.dataclass(frozen=True)
class Sample:
    """One run of a command with all its children."""

    wall_s: float
    cpu_s: float
    rss_mib: float
    stdout: str = ""


def say(text):
    """Progress, for whoever waits."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def measure(argv, env=None, stdin=None, cwd=None):
    """Runs a command to its end. Seconds of the clock and of the processors, peak memory of its largest process.

    `env` adds to the environment; `stdin` is text. Raises RuntimeError, with what it said, when the command fails.
    """
    argv = [str(part) for part in argv]
    log = SCRATCH / "log"
    log.mkdir(parents=True, exist_ok=True)
    out, err, given = (log / f"{os.getpid()}.{name}" for name in ("stdout", "stderr", "stdin"))
    given.write_text(stdin or "")
    with open(out, "wb") as stdout, open(err, "wb") as stderr, open(given, "rb") as source:
        begun = time.monotonic()
        child = subprocess.Popen(
            argv, env={**os.environ, **(env or {})}, cwd=cwd, stdin=source, stdout=stdout, stderr=stderr
        )
        _, status, used = os.wait4(child.pid, 0)
        wall_s = time.monotonic() - begun
        child.returncode = os.waitstatus_to_exitcode(status)
    said = err.read_text(errors="replace")
    text = out.read_text(errors="replace")
    for file in (out, err, given):
        file.unlink()
    if child.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)} ended with {child.returncode}:\n{said[-4000:]}")
    return Sample(wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, text)


def in_turns(contestants, rounds, warm_up=1):
    """Calls each contestant once a round, in an order that turns by one from round to round.

    `contestants`: name -> function. Returns name -> what the function returned in each round, the first `warm_up`
    rounds left out.
    """
    names = list(contestants)
    results = {name: [] for name in names}
    for number in range(warm_up + rounds):
        for shift in range(len(names)):
            name = names[(number + shift) % len(names)]
            result = contestants[name]()
            if number >= warm_up:
                results[name].append(result)
    return results


@contextlib.contextmanager
def alone():
    """Holds the lock file that BENCH_LOCK names, if it names one: for machines where builds take the same lock."""
    path = os.environ.get("BENCH_LOCK")
    with open(path, "a") if path else contextlib.nullcontext() as lock:
        if lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def served(program, what):
    """Starts `program serve WHAT` in a process of its own. Gives the URL that it says, and ends it afterwards."""
    server = subprocess.Popen([program, "serve", str(what)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield server.stdout.readline().strip()
    finally:
        server.stdin.close()
        server.wait()


@functools.cache
def python(requirements):
    """The python that has the packages which a file of the repository names."""
    return subprocess.check_output([ROOT / "deploy/py-env", ROOT / requirements], text=True).strip()


def emptied(folder):
    """The folder, with nothing in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def cpu_s(samples):
    """The median of the processor seconds; of an even number the upper one."""
    return sorted(sample.cpu_s for sample in samples)[len(samples) // 2]


def median(values):
    """The median; of samples, their wall seconds'."""
    return statistics.median(value.wall_s if isinstance(value, Sample) else value for value in values)


def geometric_mean(values):
    """The geometric mean: what ratios are averaged by."""
    return statistics.geometric_mean(values)


def seconds(value):
    """A time for a table cell: three digits that count."""
    if value >= 1:
        return f"{value:.2f} s"
    return f"{value * 1000:.3g} ms" if value < 0.1 else f"{value * 1000:.0f} ms"


def ratio(value):
    """A ratio for a table cell."""
    return f"{value:.2f}×"


def table(head, rows):
    """A Markdown table; columns after the first are right-aligned."""
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in [head, rule, *rows])


def machine(folder=SCRATCH):
    """What it ran on: (name, value) pairs. `folder` is where the data lies."""
    folder.mkdir(parents=True, exist_ok=True)
    kind = subprocess.run(["stat", "-f", "-c", "%T", str(folder)], capture_output=True, text=True).stdout.strip()
    return [
        ("processor", f"{_field('/proc/cpuinfo', 'model name') or platform.machine()}, {threads()} cores"),
        ("memory", f"{int((_field('/proc/meminfo', 'MemTotal') or '0').split()[0]) / 2**20:.0f} GiB"),
        ("system", f"{platform.system()} {platform.release()}, data on {kind}"),
    ]


def threads():
    """Processors this process may use."""
    return len(os.sched_getaffinity(0))


def command(name):
    """How this run is made again: the environment that makes it other than the default, and the target."""
    given = [f"{key}={value}" for key, value in sorted(os.environ.items()) if key.startswith("BENCH_")]
    return " ".join([*given, "make", name])


def commit():
    """The commit the sources are at, and whether they were changed since."""
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=10"], cwd=ROOT, capture_output=True, text=True
        )
    except FileNotFoundError:
        # A bare machine has no git.
        return "unknown"
    return said.stdout.strip() or "unknown"


def write_report(name, title, command, versions, sections):
    """Writes docs/benchmarks/NAME.md: title, machine, versions and command, then the sections.

    `versions`: (name, value) pairs; `sections`: (heading, Markdown) pairs, an empty heading continues the head. What
    people wrote under the heading "Notes" of the file as it was is kept at its end.
    """
    facts = machine() + [("webdancer", commit())] + list(versions) + [("made by", f"`{command}`")]
    parts = [f"# {title}", table(("", ""), facts).replace("---:", "---")]
    for heading, text in sections:
        if heading:
            parts.append(f"## {heading}")
        parts.append(text.strip())
    path = ROOT / "docs" / "benchmarks" / f"{name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        _, heading, notes = path.read_text().partition("\n## Notes\n")
        parts.extend([heading.strip(), notes.strip()] if heading else [])
    path.write_text("\n\n".join(parts) + "\n")
    say(f"wrote {path.relative_to(ROOT)}")


def _field(path, name):
    for line in pathlib.Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None
