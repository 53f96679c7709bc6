-- How far each trajectory came in the funnel: the current verdict of each stage, and `outcome`: `accepted`, the first
-- stage that it failed (`validity`, `correctness`, `quality`), `error` where a judge failed before any stage rejected
-- it, or `pending` where a stage has not been judged yet. `stage` is where it stopped, null if it was accepted, and
-- `reason` why, as the judgment's criteria name it. `method` is that of the question; of an imported trajectory it is
-- `import`, whatever else comes to the same question later. Counts: SELECT outcome, count(*) FROM funnel GROUP BY outcome.
WITH verdicts AS (
    SELECT
        trajectory_id,
        max(CASE WHEN stage = 'validity' THEN verdict END) AS validity,
        max(CASE WHEN stage = 'correctness' THEN verdict END) AS correctness,
        max(CASE WHEN stage = 'quality' THEN verdict END) AS quality,
        max(CASE WHEN stage = 'validity' THEN json_get_str(criteria, 'reason') END) AS validity_reason,
        max(CASE WHEN stage = 'correctness' THEN json_get_str(criteria, 'reason') END) AS correctness_reason,
        max(CASE WHEN stage = 'quality' THEN json_get_str(criteria, 'reason') END) AS quality_reason
    FROM current_judgments
    GROUP BY trajectory_id
)
SELECT
    t.trajectory_id,
    t.qa_id,
    t.run_id,
    t.policy_model,
    t.attempt,
    CASE WHEN t.source = 'webdancer/import' AND q.method IS DISTINCT FROM 'benchmark' THEN 'import' ELSE q.method END
        AS method,
    t.termination,
    coalesce(t.restricted, false) AS restricted,
    v.validity,
    v.correctness,
    v.quality,
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
    END AS outcome,
    CASE
        WHEN v.validity IS DISTINCT FROM 'pass' THEN 'validity'
        WHEN v.correctness IS DISTINCT FROM 'pass' THEN 'correctness'
        WHEN v.quality IS DISTINCT FROM 'pass' THEN 'quality'
    END AS stage,
    CASE
        WHEN v.validity IS DISTINCT FROM 'pass' THEN v.validity_reason
        WHEN v.correctness IS DISTINCT FROM 'pass' THEN v.correctness_reason
        WHEN v.quality IS DISTINCT FROM 'pass' THEN v.quality_reason
    END AS reason,
    t.event_time
FROM current_trajectories AS t
LEFT JOIN verdicts AS v ON v.trajectory_id = t.trajectory_id
LEFT JOIN current_qa AS q ON q.qa_id = t.qa_id
