-- What holds for each trajectory and stage: the verdict of the highest rule version, of those the latest (event_time,
-- then event_id). In force is the version that the funnel's last run judged the stage by: where it went back to old
-- parameters, its verdicts of higher versions hold only where there is no other. An override wins over any judge; of
-- several the latest. It is for the stage that its criteria name ({"stage": "quality"}), for correctness if they name none.
WITH in_force AS (
    SELECT
        last_value(validity ORDER BY event_time, event_id) FILTER (WHERE validity IS NOT NULL) AS validity,
        last_value(correctness ORDER BY event_time, event_id) FILTER (WHERE correctness IS NOT NULL) AS correctness,
        last_value(quality ORDER BY event_time, event_id) FILTER (WHERE quality IS NOT NULL) AS quality
    FROM (
        SELECT
            event_time,
            event_id,
            json_get_int(config, 'validity', 'rule_version') AS validity,
            json_get_int(config, 'correctness', 'rule_version') AS correctness,
            json_get_int(config, 'quality', 'rule_version') AS quality
        FROM runs
        WHERE kind = 'filter' AND source = 'webdancer/filter'
    )
),
verdicts AS (
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
        v.*,
        row_number() OVER (
            PARTITION BY v.trajectory_id, v.judged_stage
            ORDER BY
                v.overridden DESC,
                coalesce(
                    v.source = 'webdancer/filter' AND v.rule_version > CASE v.stage
                        WHEN 'validity' THEN f.validity
                        WHEN 'correctness' THEN f.correctness
                        WHEN 'quality' THEN f.quality
                    END,
                    false
                ),
                CASE WHEN v.overridden THEN 0 ELSE v.rule_version END DESC,
                v.event_time DESC,
                v.event_id DESC
        ) AS position
    FROM verdicts AS v
    CROSS JOIN in_force AS f
)
SELECT
    trajectory_id, judged_stage AS stage, verdict, score, judge, criteria, rationale, rule_version, overridden,
    run_id, event_id, event_time, source
FROM ranked
WHERE position = 1
