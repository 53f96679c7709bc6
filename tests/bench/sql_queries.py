"""The twelve questions of `make bench-sql`, each as it is asked of us, of DuckDB and of Polars.

Where the texts are the same there is one. DuckDB has some of our views under the same names (DUCKDB_VIEWS), written as
its users write them. It has none of turns, since its `unnest` reads every list that a view names: its queries unnest the
lists that they need. pass_at_k, maj_at_k and max_ngram_count are functions of ours, and plain SQL there. Of several ways
to write a query, DuckDB's and Polars' are the fastest that we found.

`reads` names the columns that an answer depends on: reading them and nothing else is the limit that a query is compared
with.
"""

import dataclasses
import typing

# One of a hundred runs that sampled: 1 % of the trajectories.
RUN = "sample-042"
# DuckDB's way to a word and the nine after it.
NEXT_TEN = " || ' ' || ".join(f"lead(word, {i}) OVER w" for i in range(10))


@dataclasses.dataclass(frozen=True)
class Query:
    """`duckdb` is None where it is `ours`; `polars` gets the tables as lazy frames, None: it leaves this one out."""

    name: str
    asks: str
    reads: dict
    ours: str
    duckdb: str | None = None
    polars: typing.Callable | None = None


DUCKDB_VIEWS = {
    "current_judgments": """
        SELECT * EXCLUDE (stage, judged_stage), judged_stage AS stage
        FROM (
            SELECT *, stage = 'override' AS overridden,
                CASE WHEN stage = 'override' THEN coalesce(criteria->>'stage', 'correctness') ELSE stage END
                    AS judged_stage
            FROM judgments)
        QUALIFY row_number() OVER (
            PARTITION BY trajectory_id, judged_stage
            ORDER BY overridden DESC, CASE WHEN overridden THEN 0 ELSE rule_version END DESC, event_time DESC,
                event_id DESC) = 1""",
    "attempts": """
        SELECT * FROM trajectories
        QUALIFY row_number() OVER (PARTITION BY trajectory_id ORDER BY event_time DESC, event_id DESC) = 1""",
    "questions": """
        SELECT * FROM qa QUALIFY row_number() OVER (PARTITION BY qa_id ORDER BY event_time DESC, event_id DESC) = 1""",
    "evaluations": """
        SELECT t.trajectory_id, t.qa_id, q.method, q.type, t.answer,
            CASE WHEN t.termination = 'error' AND NOT j.overridden THEN NULL
                WHEN j.verdict = 'pass' THEN true WHEN j.verdict = 'fail' THEN false END AS correct
        FROM current_judgments j
        JOIN attempts t USING (trajectory_id)
        LEFT JOIN questions q ON q.qa_id = t.qa_id
        WHERE j.stage = 'correctness'""",
    "funnel": """
        WITH verdicts AS (
            SELECT trajectory_id,
                max(verdict) FILTER (stage = 'validity') AS validity,
                max(verdict) FILTER (stage = 'correctness') AS correctness,
                max(verdict) FILTER (stage = 'quality') AS quality
            FROM current_judgments GROUP BY trajectory_id)
        SELECT t.trajectory_id, q.method,
            CASE
                WHEN v.validity = 'fail' THEN 'validity'
                WHEN v.validity = 'error' THEN 'error'
                WHEN v.validity IS NULL THEN 'pending'
                WHEN v.correctness = 'fail' THEN 'correctness'
                WHEN v.correctness = 'error' THEN 'error'
                WHEN v.correctness IS NULL THEN 'pending'
                WHEN v.quality = 'fail' THEN 'quality'
                WHEN v.quality = 'error' THEN 'error'
                WHEN v.quality IS NULL THEN 'pending'
                ELSE 'accepted'
            END AS outcome
        FROM attempts t
        LEFT JOIN verdicts v USING (trajectory_id)
        LEFT JOIN questions q ON q.qa_id = t.qa_id""",
}


def current_judgments(t):
    """The view of the same name, in Polars; the tables' columns that no query asks for are left out."""
    import polars as pl

    overridden = pl.col("stage") == "override"
    named = pl.col("criteria").str.json_path_match("$.stage").fill_null("correctness")
    return (
        t.judgments.with_columns(overridden.alias("overridden"))
        .with_columns(
            pl.when("overridden").then(named).otherwise("stage").alias("stage"),
            pl.when("overridden").then(0).otherwise("rule_version").alias("rank"),
        )
        .sort("overridden", "rank", "event_time", "event_id", descending=True)
        .unique(["trajectory_id", "stage"], keep="first", maintain_order=False)
    )


def last(frame, key):
    """Rows as they were last recorded."""
    return frame.sort("event_time", "event_id", descending=True).unique(key, keep="first", maintain_order=False)


def evaluations(t):
    import polars as pl

    columns = ["trajectory_id", "qa_id", "answer", "termination", "event_time", "event_id"]
    attempts = last(t.trajectories.select(columns), "trajectory_id")
    is_out = (pl.col("termination") == "error") & ~pl.col("overridden")
    verdict = pl.col("verdict").replace_strict({"pass": True, "fail": False}, default=None)
    questions = last(t.qa.select("qa_id", "type", "attributes", "event_time", "event_id"), "qa_id")
    return (
        current_judgments(t)
        .filter(pl.col("stage") == "correctness")
        .select("trajectory_id", "verdict", "overridden")
        .join(attempts.select("trajectory_id", "qa_id", "answer", "termination"), on="trajectory_id")
        .join(questions.select("qa_id", "type", "attributes"), on="qa_id", how="left")
        .with_columns(pl.when(is_out).then(None).otherwise(verdict).alias("correct"))
    )


def calls(t, *columns):
    """Turns that called a tool: of each the named columns and, without `turn_`, those of the parallel lists."""
    import polars as pl

    lists = [column for column in columns if column.startswith("turn_")]
    return (
        t.trajectories.select(*columns)
        .explode(lists)
        .filter(pl.col("turn_tool").is_not_null())
        .rename({column: column.removeprefix("turn_") for column in lists})
    )


def polars_funnel(t):
    import polars as pl

    stages = ["validity", "correctness", "quality"]
    verdicts = (
        current_judgments(t)
        .group_by("trajectory_id")
        .agg([pl.col("verdict").filter(pl.col("stage") == stage).max().alias(stage) for stage in stages])
    )
    outcome = pl.lit("accepted")
    for stage in reversed(stages):
        outcome = (
            pl.when(pl.col(stage) == "fail")
            .then(pl.lit(stage))
            .when(pl.col(stage) == "error")
            .then(pl.lit("error"))
            .when(pl.col(stage).is_null())
            .then(pl.lit("pending"))
            .otherwise(outcome)
        )
    attempts = last(t.trajectories.select("trajectory_id", "qa_id", "event_time", "event_id"), "trajectory_id")
    questions = last(t.qa.select("qa_id", "method", "event_time", "event_id"), "qa_id").select("qa_id", "method")
    return (
        attempts.join(verdicts, on="trajectory_id", how="left")
        .join(questions, on="qa_id", how="left")
        .group_by("method", outcome.alias("outcome"))
        .len()
    )


def polars_pass_at_k(t):
    import polars as pl

    n, c = pl.col("n").cast(pl.Float64), pl.col("c").cast(pl.Float64)
    missed = n - c
    three = 1 - missed * (missed - 1) * (missed - 2) / (n * (n - 1) * (n - 2))
    level = pl.col("attributes").str.json_path_match("$.level").alias("level")
    return (
        evaluations(t)
        .group_by(level, "qa_id")
        .agg(pl.col("correct").count().alias("n"), pl.col("correct").sum().alias("c"))
        .group_by("level")
        .agg(
            pl.len().alias("questions"),
            pl.when(n >= 1).then(c / n).mean().alias("pass_at_1"),
            pl.when(n >= 3).then(pl.when(missed < 3).then(1.0).otherwise(three)).mean().alias("pass_at_3"),
        )
    )


def polars_majority(t):
    import polars as pl

    return (
        evaluations(t)
        .filter(pl.col("correct").is_not_null())
        .group_by("qa_id", "type", pl.col("answer").str.strip_chars().str.to_lowercase())
        .agg(pl.len().alias("votes"), pl.col("correct").mean().alias("value"))
        .group_by("qa_id", "type")
        .agg(
            pl.col("votes").sum().alias("n"),
            pl.col("value").filter(pl.col("votes") == pl.col("votes").max()).mean().alias("maj"),
        )
        .filter(pl.col("n") == 8)
        .group_by("type")
        .agg(pl.len().alias("questions"), pl.col("maj").mean())
    )


def polars_dedupe(t):
    import polars as pl

    return (
        calls(t, "turn_tool", "turn_observation_digest")
        .group_by("observation_digest")
        .len()
        .select(
            pl.len().alias("texts"),
            pl.col("len").sum().alias("calls"),
            pl.col("len").filter(pl.col("len") > 1).sum().alias("repeated"),
            pl.col("len").max().alias("most"),
        )
    )


def polars_json(t):
    import polars as pl

    query = pl.col("arguments").str.json_decode(pl.Struct({"query": pl.List(pl.String)})).struct.field("query")
    return (
        calls(t, "turn_tool", "turn_arguments")
        .filter(pl.col("tool") == "search")
        .select(query)
        .group_by(pl.col("query").list.len().alias("queries"))
        .agg(pl.len().alias("calls"), pl.col("query").list.first().n_unique().alias("different"))
    )


def polars_ngrams(t):
    import polars as pl

    return (
        t.trajectories.filter(pl.col("run_id") == RUN)
        .select("trajectory_id", pl.col("turn_thought").list.join(" ").str.split(" ").alias("gram"))
        .explode("gram")
        .select(
            "trajectory_id",
            pl.concat_str([pl.col("gram").shift(-i).over("trajectory_id") for i in range(10)], separator=" "),
        )
        .drop_nulls()
        .group_by("trajectory_id", "gram")
        .len()
        .group_by("trajectory_id")
        .agg(pl.col("len").max().alias("most"))
        .filter(pl.col("most") > 4)
    )


def polars_join(t):
    import polars as pl

    return (
        t.judgments.filter(pl.col("stage") == "correctness")
        .select("trajectory_id", "verdict", "score")
        .join(t.trajectories.select("trajectory_id", "qa_id", "termination", "output_tokens"), on="trajectory_id")
        .join(t.qa.select("qa_id", "method", "type"), on="qa_id")
        .group_by("method", "type", "termination", "verdict")
        .agg(pl.len().alias("n"), pl.col("output_tokens").mean().alias("tokens"), pl.col("score").mean())
    )


def polars_lineage(t):
    import polars as pl

    parents = t.qa.select("qa_id", "parent_qa_id").collect()
    level = parents.filter(pl.col("parent_qa_id").is_null()).select("qa_id", pl.col("qa_id").alias("root"))
    levels = []
    while len(level) > 0:
        levels.append(level.with_columns(pl.lit(len(levels)).alias("rewrites")))
        level = level.join(parents, left_on="qa_id", right_on="parent_qa_id").select(
            pl.col("qa_id_right").alias("qa_id"), "root"
        )
    roots = pl.concat(levels).lazy()
    return (
        t.trajectories.join(t.checkpoints, left_on="policy_checkpoint_digest", right_on="digest")
        .join(roots, on="qa_id")
        .group_by(pl.col("run_id_right").alias("trained_by"), "pin_id", "rewrites")
        .agg(pl.len().alias("trajectories"), pl.col("root").n_unique().alias("roots"))
    )


def polars_percentiles(t):
    import polars as pl

    def of(column):
        return [
            pl.col(column).quantile(q, interpolation="linear").alias(name)
            for q, name in ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"))
        ]

    tools = calls(t, "turn_tool", "turn_ms").group_by(pl.col("tool").alias("what")).agg(of("ms"))
    tokens = t.trajectories.group_by(pl.col("policy_model").alias("what")).agg(of("output_tokens"))
    return pl.concat([tools, tokens])


def polars_domains(t):
    import polars as pl

    address = pl.col("arguments").str.json_path_match("$.url[0]")
    return (
        calls(t, "turn_tool", "turn_arguments", "turn_observation")
        .filter(pl.col("tool") == "visit")
        .group_by(address.str.split("/").list.get(2, null_on_oob=True).alias("domain"))
        .agg(
            pl.len().alias("visits"),
            pl.col("observation").str.starts_with("[visit] failed").sum().alias("failed"),
        )
        .sort(pl.col("failed") / pl.col("visits"), "domain", descending=[True, False])
        .limit(20)
    )


def polars_time_travel(t):
    import polars as pl

    def counts(frame):
        return frame.filter(pl.col("stage") == "correctness").group_by("verdict").agg(pl.len().alias("n"))

    return counts(t.judgments_before).join(counts(t.judgments), on="verdict", suffix="_now")


JUDGED = ["event_id", "event_time", "trajectory_id", "stage", "verdict", "criteria", "rule_version"]
QUESTION = ["event_id", "event_time", "qa_id"]
ATTEMPT = ["event_id", "event_time", "trajectory_id", "qa_id", "termination"]

QUERIES = [
    Query(
        name="funnel",
        asks="how many trajectories came how far in the funnel, by the question's method",
        reads={"judgments": JUDGED, "trajectories": ATTEMPT, "qa": QUESTION + ["method"]},
        ours="SELECT method, outcome, count(*) AS n FROM funnel GROUP BY method, outcome",
        polars=polars_funnel,
    ),
    Query(
        name="pass at k",
        asks="pass@1 and pass@3 by level, unbiased",
        reads={"judgments": JUDGED, "trajectories": ATTEMPT, "qa": QUESTION + ["attributes"]},
        ours="""
            SELECT level, count(*) AS questions, avg(one) AS pass_at_1, avg(three) AS pass_at_3
            FROM (
                SELECT q.attributes->>'level' AS level, e.qa_id,
                    pass_at_k(e.correct, 1) AS one, pass_at_k(e.correct, 3) AS three
                FROM evaluations e JOIN qa q ON q.qa_id = e.qa_id
                GROUP BY level, e.qa_id)
            GROUP BY level""",
        duckdb="""
            SELECT level, count(*) AS questions, avg(CASE WHEN n >= 1 THEN c / n END) AS pass_at_1,
                avg(CASE WHEN n < 3 THEN NULL WHEN n - c < 3 THEN 1
                    ELSE 1 - (n - c) * (n - c - 1) * (n - c - 2) / (n * (n - 1) * (n - 2)) END) AS pass_at_3
            FROM (
                SELECT q.attributes->>'level' AS level, e.qa_id, count(e.correct) AS n, count_if(e.correct) AS c
                FROM evaluations e JOIN qa q ON q.qa_id = e.qa_id
                GROUP BY level, e.qa_id)
            GROUP BY level""",
        polars=polars_pass_at_k,
    ),
    Query(
        name="majority vote",
        asks="majority vote of all 8 attempts, by the question's type; ties count in part",
        reads={"judgments": JUDGED, "trajectories": ATTEMPT + ["answer"], "qa": QUESTION + ["type"]},
        ours="""
            SELECT type, count(*) AS questions, avg(maj) AS maj
            FROM (
                SELECT type, qa_id, maj_at_k(answer, correct, 8) AS maj
                FROM evaluations GROUP BY type, qa_id)
            WHERE maj IS NOT NULL
            GROUP BY type""",
        duckdb="""
            WITH votes AS (
                SELECT qa_id, type, lower(trim(answer)) AS answer, count(*) AS votes, avg(correct::INT) AS value
                FROM evaluations WHERE correct IS NOT NULL GROUP BY ALL),
            counted AS (
                SELECT *, sum(votes) OVER (PARTITION BY qa_id) AS n, max(votes) OVER (PARTITION BY qa_id) AS most
                FROM votes)
            SELECT type, count(*) AS questions, avg(maj) AS maj
            FROM (SELECT type, qa_id, avg(value) AS maj FROM counted WHERE n = 8 AND votes = most GROUP BY ALL)
            GROUP BY type""",
        polars=polars_majority,
    ),
    Query(
        name="dedupe by digest",
        asks="how many observations are texts seen before, by digest",
        reads={"trajectories": ["turn_tool", "turn_observation_digest"]},
        ours="""
            SELECT count(*) AS texts, sum(n) AS calls, sum(n) FILTER (WHERE n > 1) AS repeated, max(n) AS most
            FROM (SELECT observation_digest, count(*) AS n FROM tool_calls GROUP BY observation_digest)""",
        duckdb="""
            SELECT count(*) AS texts, sum(n) AS calls, sum(n) FILTER (WHERE n > 1) AS repeated, max(n) AS most
            FROM (
                SELECT observation_digest, count(*) AS n
                FROM (SELECT unnest(turn_tool) AS tool, unnest(turn_observation_digest) AS observation_digest
                    FROM trajectories)
                WHERE tool IS NOT NULL GROUP BY observation_digest)""",
        polars=polars_dedupe,
    ),
    Query(
        name="JSON arguments",
        asks="how many queries a search call has, and how many different first ones",
        reads={"trajectories": ["turn_tool", "turn_arguments"]},
        ours="""
            SELECT json_length(arguments, 'query') AS queries, count(*) AS calls,
                count(DISTINCT json_get_str(arguments, 'query', 0)) AS different
            FROM tool_calls WHERE tool = 'search' GROUP BY queries""",
        duckdb="""
            SELECT json_array_length(arguments, '$.query') AS queries, count(*) AS calls,
                count(DISTINCT arguments->>'$.query[0]') AS different
            FROM (SELECT unnest(turn_tool) AS tool, unnest(turn_arguments) AS arguments FROM trajectories)
            WHERE tool = 'search' GROUP BY queries""",
        polars=polars_json,
    ),
    Query(
        name="repeated 10-grams",
        asks="trajectories of one run that say the same ten words more than four times",
        reads={"trajectories": ["run_id", "trajectory_id", "turn_thought"]},
        ours=f"""
            SELECT trajectory_id, max_ngram_count(array_to_string(turn_thought, ' '), 10) AS most
            FROM trajectories
            WHERE run_id = '{RUN}' AND max_ngram_count(array_to_string(turn_thought, ' '), 10) > 4""",
        duckdb=f"""
            WITH thoughts AS (
                SELECT trajectory_id, string_split(array_to_string(turn_thought, ' '), ' ') AS words
                FROM trajectories WHERE run_id = '{RUN}'),
            words AS (
                SELECT trajectory_id, unnest(words) AS word, unnest(range(len(words))) AS position FROM thoughts),
            grams AS (
                SELECT trajectory_id, {NEXT_TEN} AS gram
                FROM words WINDOW w AS (PARTITION BY trajectory_id ORDER BY position))
            SELECT trajectory_id, max(n) AS most
            FROM (SELECT trajectory_id, gram, count(*) AS n FROM grams WHERE gram IS NOT NULL GROUP BY ALL)
            GROUP BY trajectory_id HAVING max(n) > 4""",
        polars=polars_ngrams,
    ),
    Query(
        name="three-way join",
        asks="verdicts beside method, type and ending, with mean tokens and score",
        reads={
            "judgments": ["trajectory_id", "stage", "verdict", "score"],
            "trajectories": ["trajectory_id", "qa_id", "termination", "output_tokens"],
            "qa": ["qa_id", "method", "type"],
        },
        ours="""
            SELECT q.method, q.type, t.termination, j.verdict, count(*) AS n, avg(t.output_tokens) AS tokens,
                avg(j.score) AS score
            FROM judgments j
            JOIN trajectories t ON t.trajectory_id = j.trajectory_id
            JOIN qa q ON q.qa_id = t.qa_id
            WHERE j.stage = 'correctness'
            GROUP BY q.method, q.type, t.termination, j.verdict""",
        polars=polars_join,
    ),
    Query(
        name="lineage",
        asks="by training run and pin: trajectories and root questions, rewrites followed back",
        reads={
            "trajectories": ["qa_id", "policy_checkpoint_digest"],
            "checkpoints": ["digest", "run_id", "pin_id"],
            "qa": ["qa_id", "parent_qa_id"],
        },
        ours="""
            WITH RECURSIVE roots AS (
                SELECT qa_id, qa_id AS root, 0 AS rewrites FROM qa WHERE parent_qa_id IS NULL
                UNION ALL
                SELECT q.qa_id, r.root, r.rewrites + 1 FROM qa q JOIN roots r ON q.parent_qa_id = r.qa_id)
            SELECT c.run_id AS trained_by, c.pin_id, r.rewrites, count(*) AS trajectories,
                count(DISTINCT r.root) AS roots
            FROM trajectories t
            JOIN checkpoints c ON c.digest = t.policy_checkpoint_digest
            JOIN roots r ON r.qa_id = t.qa_id
            GROUP BY c.run_id, c.pin_id, r.rewrites""",
        polars=polars_lineage,
    ),
    Query(
        name="percentiles",
        asks="median, 90th and 99th percentile of time by tool and of tokens by model, exact",
        reads={"trajectories": ["policy_model", "output_tokens", "turn_tool", "turn_ms"]},
        ours="""
            SELECT tool AS what, percentile_cont(0.5) WITHIN GROUP (ORDER BY ms) AS p50,
                percentile_cont(0.9) WITHIN GROUP (ORDER BY ms) AS p90,
                percentile_cont(0.99) WITHIN GROUP (ORDER BY ms) AS p99
            FROM tool_calls GROUP BY tool
            UNION ALL
            SELECT policy_model, percentile_cont(0.5) WITHIN GROUP (ORDER BY output_tokens),
                percentile_cont(0.9) WITHIN GROUP (ORDER BY output_tokens),
                percentile_cont(0.99) WITHIN GROUP (ORDER BY output_tokens)
            FROM trajectories GROUP BY policy_model""",
        duckdb="""
            SELECT what, p[1] AS p50, p[2] AS p90, p[3] AS p99
            FROM (
                SELECT tool AS what, quantile_cont(ms, [0.5, 0.9, 0.99]) AS p
                FROM (SELECT unnest(turn_tool) AS tool, unnest(turn_ms) AS ms FROM trajectories)
                WHERE tool IS NOT NULL GROUP BY tool
                UNION ALL
                SELECT policy_model, quantile_cont(output_tokens, [0.5, 0.9, 0.99])
                FROM trajectories GROUP BY policy_model)""",
        polars=polars_percentiles,
    ),
    Query(
        name="failing domains",
        asks="the 20 domains whose pages fail most often",
        reads={"trajectories": ["turn_tool", "turn_arguments", "turn_observation"]},
        ours="""
            SELECT split_part(json_get_str(arguments, 'url', 0), '/', 3) AS domain, count(*) AS visits,
                count(*) FILTER (WHERE starts_with(observation, '[visit] failed')) AS failed
            FROM tool_calls WHERE tool = 'visit'
            GROUP BY domain
            ORDER BY CAST(failed AS DOUBLE) / visits DESC, domain LIMIT 20""",
        duckdb="""
            SELECT split_part(arguments->>'$.url[0]', '/', 3) AS domain, count(*) AS visits,
                count(*) FILTER (WHERE starts_with(observation, '[visit] failed')) AS failed
            FROM (
                SELECT unnest(turn_tool) AS tool, unnest(turn_arguments) AS arguments,
                    unnest(turn_observation) AS observation
                FROM trajectories)
            WHERE tool = 'visit'
            GROUP BY domain
            ORDER BY failed / visits DESC, domain LIMIT 20""",
        polars=polars_domains,
    ),
    Query(
        name="time travel",
        asks="verdicts on correctness before and after a part was judged again",
        reads={"judgments_before": ["stage", "verdict"], "judgments": ["stage", "verdict"]},
        ours="""
            SELECT verdict, b.n, a.n AS n_now
            FROM (SELECT verdict, count(*) AS n FROM at('judgments', {before}) WHERE stage = 'correctness'
                GROUP BY verdict) b
            JOIN (SELECT verdict, count(*) AS n FROM judgments WHERE stage = 'correctness' GROUP BY verdict) a
                USING (verdict)""",
        duckdb="""
            SELECT verdict, b.n, a.n AS n_now
            FROM (SELECT verdict, count(*) AS n FROM judgments_before WHERE stage = 'correctness'
                GROUP BY verdict) b
            JOIN (SELECT verdict, count(*) AS n FROM judgments WHERE stage = 'correctness' GROUP BY verdict) a
                USING (verdict)""",
        polars=polars_time_travel,
    ),
    Query(
        name="sample with seed",
        asks="1,000 trajectories drawn by a seed, the same ones every time",
        reads={"trajectories": ["trajectory_id", "qa_id", "answer", "termination"]},
        ours="""
            SELECT trajectory_id, qa_id, answer FROM trajectories WHERE termination = 'answer'
            ORDER BY md5(trajectory_id || '42'), trajectory_id LIMIT 1000""",
    ),
]
