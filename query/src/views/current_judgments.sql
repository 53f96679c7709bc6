-- What holds for each trajectory and stage: the verdict of the highest rule version, of those the latest (event_time,
-- then event_id). An override wins over any judge; of several the latest. It is for the stage that its criteria name
-- ({"stage": "quality"}), for correctness if they name none.
WITH verdicts AS (
    SELECT
        *,
        stage = 'override' AS overridden,
        -- The inner CASE keeps the JSON of all other judgments from being read.
        CASE
            WHEN stage = 'override'
                THEN coalesce(json_get_str(CASE WHEN stage = 'override' THEN criteria END, 'stage'), 'correctness')
            ELSE stage
        END AS judged_stage
    FROM judgments
),
ranked AS (
    SELECT
        *,
        row_number() OVER (
            PARTITION BY trajectory_id, judged_stage
            ORDER BY
                overridden DESC,
                CASE WHEN overridden THEN 0 ELSE rule_version END DESC,
                event_time DESC,
                event_id DESC
        ) AS position
    FROM verdicts
)
SELECT
    trajectory_id, judged_stage AS stage, verdict, score, judge, criteria, rationale, rule_version, overridden,
    run_id, event_id, event_time, source
FROM ranked
WHERE position = 1
