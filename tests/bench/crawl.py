"""`make bench-crawl`: the crawler beside scrapy and wget, on Debian's postgresql-doc-15 served on loopback.

BENCH_COPIES is how many times the manual's 1,169 pages are crawled at the larger size (default 10; 1 leaves it out);
BENCH_ROUNDS how often each contestant runs (default 5). The site is served by tests/examples/bench_site, in a process of its
own that is not measured; the limit is that program's other half, which gets the same files and throws them away.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import common

COPIES = int(os.environ.get("BENCH_COPIES", 10))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", 5))
CONNECTIONS = 16
MANUAL = pathlib.Path("/usr/share/doc/postgresql-doc-15/html")
EXAMPLE = pathlib.Path(common.WEBDANCER).parent / "examples" / "bench_site"
WORK = common.SCRATCH / "crawl-work"
PEERS = "tests/bench/requirements-crawl.txt"
# wget's status where a page was not there.
SERVER_SAID_NO = 8

OURS, SCRAPY, WGET, LIMIT = "webdancer crawl", "scrapy", "wget -r", "limit: got and thrown away"


def site(copies):
    """The folder of a site: the manual so many times, each with its number in headings and text of every page.

    Without the number the texts of all copies would be the same, and the crawler follows the links of one of them.
    """
    folder = common.SCRATCH / f"crawl-{copies}"
    if (folder / "complete").exists():
        return folder
    common.say(f"making {copies} copies of the manual")
    shutil.rmtree(folder, ignore_errors=True)
    for number in range(copies):
        copy = folder / str(number)
        copy.mkdir(parents=True)
        for page in sorted(MANUAL.glob("*.html")):
            text = page.read_text(encoding="utf-8", errors="surrogateescape")
            text = re.sub(r"(<(?:h[1-6]|p|dt|td)\b[^>]*>)", rf"\1Copy {number}. ", text)
            (copy / page.name).write_text(text, encoding="utf-8", errors="surrogateescape")
    links = "".join(f'<p><a href="{number}/index.html">Copy {number}</a></p>' for number in range(copies))
    (folder / "index.html").write_text(f"<html><body><h1>The manual</h1>{links}</body></html>")
    (folder / "complete").touch()
    return folder


def ours(url):
    """Pages that were recorded with a text, and the sample."""
    lake = common.emptied(WORK) / "lake"
    limits = ["--allow-private", "--depth", "100", "--max-pages", "10000000", "--connections", CONNECTIONS]
    arguments = ["--lake", lake, "--json", "--quiet", "crawl", f"{url}index.html", *limits]
    sample = common.measure([common.WEBDANCER, *arguments], env={"XDG_STATE_HOME": str(WORK / "state")})
    report = json.loads(sample.stdout)
    return report["pages"] - report["errors"], sample


def scrapy(url):
    out = common.emptied(WORK) / "pages.jsonl"
    spider = common.ROOT / "tests/bench/peers/scrapy_pages.py"
    sample = common.measure(
        [common.python(PEERS), spider, f"{url}index.html", CONNECTIONS, out], env={"PYTHONDONTWRITEBYTECODE": "1"}
    )
    # scrapy gets its start page once more where a page links to it.
    with open(out) as lines:
        return len({json.loads(line)["url"] for line in lines}), sample


def wget(url):
    folder = common.emptied(WORK)
    mirror = f"wget -r -l inf -A html -q -nH -e robots=off -P {folder} {url}index.html"
    command = f"{mirror}; rc=$?; test $rc -eq 0 -o $rc -eq {SERVER_SAID_NO}"
    sample = common.measure(["sh", "-c", command])
    return sum(1 for _ in folder.rglob("*.html")), sample


def limit(url, folder):
    sample = common.measure([EXAMPLE, "take", url.removeprefix("http://").rstrip("/"), folder, CONNECTIONS])
    return json.loads(sample.stdout)["pages"], sample


def crawled(copies):
    """name -> (pages, samples), and the bytes of the site."""
    folder = site(copies)
    size = sum(file.stat().st_size for file in folder.rglob("*.html"))
    with common.served(EXAMPLE, folder) as url:
        contestants = {
            OURS: lambda: ours(url),
            SCRAPY: lambda: scrapy(url),
            WGET: lambda: wget(url),
            LIMIT: lambda: limit(url, folder),
        }
        common.say(f"{copies} × the manual: who finds what")
        found = {name: run()[0] for name, run in contestants.items()}
        if len(set(found.values())) > 1:
            raise RuntimeError(f"they do not find the same pages: {found}")
        common.say(f"{found[OURS]:,} pages each; timing")
        results = common.in_turns(contestants, ROUNDS, warm_up=0)
    return {name: (runs[0][0], [sample for _, sample in runs]) for name, runs in results.items()}, size


def lines(results, size):
    """The table of one size."""
    rows = []
    for name, (pages, samples) in results.items():
        wall, cpu = common.median(samples), common.cpu_s(samples)
        rss = max(sample.rss_mib for sample in samples)
        rows.append(
            (name, f"{pages:,}", common.seconds(wall), f"{pages / wall:,.0f}", f"{size / wall / 2**20:,.0f} MiB/s")
            + (common.seconds(cpu), f"{pages / cpu:,.0f}", f"{rss:,.0f} MiB")
        )
    head = ("", "pages", "time", "pages/s", "read", "processor time", "pages/s a core", "peak memory")
    return common.table(head, rows)


def per_core(results, name):
    pages, samples = results[name]
    return pages / common.cpu_s(samples)


def per_second(results, name):
    pages, samples = results[name]
    return pages / common.median(samples)


def versions():
    scrapy_version = subprocess.check_output([common.python(PEERS), "-c", "import scrapy; print(scrapy.__version__)"], text=True)
    wget_version = subprocess.check_output(["wget", "--version"], text=True).split()[2]
    return [("scrapy", scrapy_version.strip()), ("wget", wget_version), ("rounds", ROUNDS)]


def main():
    for needed, way in [(MANUAL / "index.html", "postgresql-doc-15"), (shutil.which("wget"), "wget")]:
        if not needed or not pathlib.Path(needed).exists():
            sys.exit(f"bench: apt-get install {way}")
    sizes = [1] if COPIES == 1 else [1, COPIES]
    with common.alone():
        results = {copies: crawled(copies) for copies in sizes}
    sections = [
        (
            "",
            f"Each crawls the site from its start page until nothing is left, with {CONNECTIONS} connections (wget has one), no "
            f"delay and no robots.txt to obey, into an empty folder; medians of {ROUNDS} rounds, in turns. Processor time is the "
            "crawler's, not the server's, which runs on the same machine.",
        )
    ]
    for copies, (by_name, size) in results.items():
        sections.append((f"{copies} × the manual, {size / 2**20:,.0f} MiB", lines(by_name, size)))
    ratios = [
        (f"{copies} × the manual",)
        + tuple(
            common.ratio(measure(by_name, OURS) / measure(by_name, other))
            for measure in (per_core, per_second)
            for other in (SCRAPY, WGET, LIMIT)
        )
        for copies, (by_name, _) in results.items()
    ]
    head = ("ours ÷", "scrapy, a core", "wget, a core", "limit, a core", "scrapy, pages/s", "wget, pages/s", "limit, pages/s")
    reached = all(per_core(by_name, OURS) >= 5 * per_core(by_name, SCRAPY) for by_name, _ in results.values())
    goal = f"Goal: at least 5 times scrapy's pages a second and core: {'reached' if reached else 'not reached'}."
    sections.append(("Ratios", common.table(head, ratios) + "\n\n" + goal))
    sections.append(
        (
            "How the work was made equal",
            "All find the same pages, which is checked before anything is timed. They do not do the same with them: wget "
            "writes each page to a file; scrapy writes title, all text and links as lines of JSON, by the selectors of its "
            "tutorial; the crawler finds the main text of each page and makes Markdown of it, tells its language, takes its "
            "digest, appends it durably to the log and commits it to a table. The limit reads no links: it is told the paths.",
        )
    )
    common.write_report("crawl", "The crawler", common.command("bench-crawl"), versions(), sections)


if __name__ == "__main__":
    main()
