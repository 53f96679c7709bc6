-- Questions to train on by reinforcement: all without a trajectory in `sft_pool`, so that both are disjoint by
-- question; benchmarks are left out. `attempts` and `correct` count what was sampled so far: the paper's pool is
-- attempts > 0, and 0 < correct < attempts are those worth a group.
WITH sampled AS (
    SELECT
        qa_id,
        count(*) AS attempts,
        count(*) FILTER (WHERE correctness = 'pass') AS correct
    FROM funnel
    GROUP BY qa_id
)
SELECT
    q.*,
    coalesce(s.attempts, 0) AS attempts,
    coalesce(s.correct, 0) AS correct
FROM current_qa AS q
LEFT JOIN sampled AS s ON s.qa_id = q.qa_id
LEFT ANTI JOIN sft_pool AS p ON p.qa_id = q.qa_id
WHERE q.method <> 'benchmark'
