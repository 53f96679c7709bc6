"""`make bench-funnel`: the funnel's rules over a million trajectories, beside DuckDB doing what of them SQL can.

BENCH_ROWS is the number of trajectories (default 1,000,000); BENCH_ROUNDS how often each contestant runs (default 5). Both
read the same Parquet files, made once by tests/examples/bench_funnel, and need not agree on anything but the result: how
many trajectories end for which reason. That is compared before anything is timed.

DuckDB gets the rules twice: without the 10-grams over all trajectories, and with them over the first BENCH_NGRAM_ROWS
(default 20,000) of the same seed, beside ours over the same ones. Rates are per row; both are linear in the rows. The
10-grams are lists, zipped from the words and the words shifted by one to nine: a lambda that slices the words copies all
of them for each 10-gram, and grouping unnested 10-grams needs more memory than most machines have.
"""

import json
import os
import sys

import common

ROWS = int(os.environ.get("BENCH_ROWS", 1_000_000))
NGRAM_ROWS = min(ROWS, int(os.environ.get("BENCH_NGRAM_ROWS", 20_000)))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", 5))
PEERS = "tests/bench/requirements.txt"
SEED = 1
EXAMPLE = common.TARGET / "debug" / "examples" / "bench_funnel"

# What a turn that its parts do not render back to must look like, as far as a regular expression can tell.
TURN = r"(?s)^\s*<think>.*</think>\s*<(tool_call|answer)>.*</(tool_call|answer)>\s*$"
REASONS = f"""
    CASE
        WHEN termination = 'error' THEN 'attempt_failed'
        WHEN termination IN ('calls', 'tokens', 'time') THEN 'out_of_budget'
        WHEN coalesce(len(turn_thought), 0) = 0 THEN 'no_turns'
        WHEN len(turn_tool) <> len(turn_thought) OR len(turn_arguments) <> len(turn_thought)
            OR len(turn_raw) <> len(turn_thought) OR len(turn_observation_digest) <> len(turn_thought)
            THEN 'unequal_lists'
        WHEN len(list_filter(turn_raw, raw -> NOT regexp_matches(raw, '{TURN}'))) > 0 THEN 'not_in_format'
        WHEN len(list_filter(turn_thought, thought -> thought IS NULL OR contains(thought, '</think>'))) > 0
            THEN 'not_in_format'
        WHEN len(list_filter(turn_arguments,
                arguments -> arguments IS NOT NULL
                    AND json_type(CASE WHEN json_valid(arguments) THEN arguments END) IS DISTINCT FROM 'OBJECT')) > 0
            THEN 'bad_arguments'
        WHEN len(list_filter(turn_tool[:-2], tool -> tool IS NULL)) > 0 THEN 'early_answer'
        WHEN len(list_filter(turn_observation_digest[:-2], digest -> digest IS NULL)) > 0 THEN 'no_observation'
        WHEN turn_tool[-1] IS NOT NULL OR coalesce(trim(answer), '') = '' THEN 'no_answer'
        WHEN termination = 'forced' THEN 'forced_answer'
        WHEN NOT list_has_all(['search', 'visit'], list_filter(turn_tool, tool -> tool IS NOT NULL)) THEN 'unknown_tool'
        WHEN len(list_filter(turn_thought, thought -> contains(thought, 'tool_response>'))) > 0
            OR contains(answer, 'tool_response>') THEN 'simulated_observation'
        WHEN len(list_filter(turn_tool, tool -> tool IS NOT NULL)) + 1 < 2 THEN 'too_few_actions'
        {{repetition}}
        ELSE 'accepted'
    END"""
# The segments are told apart by words that no n-gram can hold, as none may span two of them.
SHIFTED = ", ".join(f"words[{shift}:]" for shift in range(1, 11))
GRAM = ", ".join(f"zipped[{word}]" for word in range(1, 11))
REPETITION = f"""
        WHEN list_max(map_values(list_histogram(list_filter(
            list_transform(list_zip({SHIFTED})[:len(words) - 9], zipped -> concat_ws(' ', {GRAM})),
            gram -> NOT contains(gram, chr(1)))))) > 4
            THEN 'repetition'"""
WORDS = """
    string_split(
        array_to_string(
            list_concat(turn_thought, list_filter(turn_arguments, arguments -> arguments IS NOT NULL), [answer]),
            ' ' || chr(1) || ' '),
        ' ') AS words"""


def query(files, repetition):
    """The counts by reason, as SQL."""
    reasons = REASONS.format(repetition=REPETITION if repetition else "")
    columns = f"*, {WORDS}" if repetition else "*"
    return f"""
        SELECT reason, count(*) AS n
        FROM (SELECT {reasons} AS reason FROM (SELECT {columns} FROM read_parquet({files!r})))
        GROUP BY reason"""


def duckdb_main(files, repetition):
    """What the peer's process does."""
    import duckdb

    session = duckdb.connect()
    session.execute(f"SET threads = {common.threads()}")
    counts = dict(session.execute(query(files, repetition)).fetchall())
    print(json.dumps({"rows": sum(counts.values()), "reasons": counts, "version": duckdb.__version__}))


def data(rows):
    """The folder of Parquet files of so many trajectories, made if it is not there; fewer are the first of more."""
    folder = common.SCRATCH / f"funnel-{rows}"
    if not (folder / "complete").exists():
        common.say(f"making {rows:,} trajectories")
        common.measure([EXAMPLE, "make", folder, rows, SEED])
        (folder / "complete").touch()
    return folder


def ours(folder):
    return common.measure([EXAMPLE, "rules", folder, common.threads()])


def duckdb(folder, repetition):
    files = sorted(str(file) for file in folder.glob("*.parquet"))
    rules = "all" if repetition else "simple"
    environment = {"PYTHONDONTWRITEBYTECODE": "1"}
    return common.measure([common.python(PEERS), __file__, "peer", json.dumps(files), rules], env=environment)


def reasons(sample):
    """How many ended for which reason."""
    return json.loads(sample.stdout)["reasons"]


def without_repetition(counts):
    """Counts as if nothing were too repetitive: it is the last rule."""
    rest = {reason: n for reason, n in counts.items() if reason != "repetition"}
    rest["accepted"] = rest.get("accepted", 0) + counts.get("repetition", 0)
    return rest


def check(name, ours_counts, theirs):
    if ours_counts != theirs:
        raise RuntimeError(f"{name} ends trajectories otherwise:\n{theirs}\nours:\n{ours_counts}")


def main():
    everything, part = data(ROWS), data(NGRAM_ROWS)
    ours_all, ours_part = reasons(ours(everything)), reasons(ours(part))
    check("DuckDB without 10-grams", without_repetition(ours_all), reasons(duckdb(everything, False)))
    peer = duckdb(part, True)
    check("DuckDB", ours_part, reasons(peer))
    common.say("all agree; timing")
    some = f"{NGRAM_ROWS:,} of them"
    results = common.in_turns(
        {
            "ours, all rules": lambda: ours(everything),
            "DuckDB, without 10-grams": lambda: duckdb(everything, False),
            f"ours, all rules, {some}": lambda: ours(part),
            f"DuckDB, all rules, {some}": lambda: duckdb(part, True),
        },
        ROUNDS,
    )
    rows = {name: json.loads(samples[0].stdout)["rows"] for name, samples in results.items()}
    lines = []
    for name, samples in results.items():
        wall = common.median(samples)
        cpu = common.cpu_s(samples)
        rss = max(sample.rss_mib for sample in samples)
        lines.append(
            (name, f"{rows[name]:,}", common.seconds(wall), f"{rows[name] / wall:,.0f}", common.seconds(cpu), f"{rss:,.0f} MiB")
        )
    rate = {name: rows[name] / common.median(samples) for name, samples in results.items()}
    ratios = [
        ("all rules, beside DuckDB without the 10-grams", common.ratio(rate["ours, all rules"] / rate["DuckDB, without 10-grams"])),
        (
            f"all rules on both sides, over {some}",
            common.ratio(rate[f"ours, all rules, {some}"] / rate[f"DuckDB, all rules, {some}"]),
        ),
    ]
    ended = sorted(ours_all.items(), key=lambda item: -item[1])
    common.write_report(
        "funnel",
        "The funnel's rules",
        common.command("bench-funnel"),
        [("DuckDB", json.loads(peer.stdout)["version"]), ("trajectories", f"{ROWS:,}, seed {SEED}"), ("rounds", ROUNDS), common.BUILD],
        [
            ("", table_of(lines)),
            ("Ratios of rows per second", common.table(("", "ours ÷ DuckDB"), ratios)),
            (
                "What was found",
                "Counts by reason, on which both agree before anything is timed.\n\n"
                + common.table(("reason", "trajectories"), [(reason, f"{n:,}") for reason, n in ended]),
            ),
            (
                "How the work was made equal",
                "Both read the same Parquet files (zstd, row groups of 8,192) from the page cache, only the columns that the "
                "rules need, with as many threads, start to end of the process. DuckDB checks turns that are kept as raw text "
                "with a regular expression, we with the parser. The 10-grams of SQL are those of words parted by one space; they "
                f"take DuckDB so long that both do them over the first {NGRAM_ROWS:,} trajectories apart, and the rates are per "
                "row. Over so few, starting the process counts for more on our side than on its.",
            ),
        ],
    )


def table_of(lines):
    return common.table(("", "trajectories", "time", "rows/s", "processor time", "peak memory"), lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["peer"]:
        duckdb_main(json.loads(sys.argv[2]), sys.argv[3] == "all")
    else:
        main()
