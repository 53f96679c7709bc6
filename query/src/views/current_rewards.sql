-- The reward that holds for each trajectory: the one for the current judgment of its answer; of several the latest
-- (event_time, then event_id). A reward names its judgment in its criteria ({"judgment": "…"}); without one it is for an
-- answer that nobody judged. Where the judge failed at last, or no reward is for what it says now, there is none.
WITH ranked AS (
    SELECT
        r.*,
        row_number() OVER (
            PARTITION BY r.trajectory_id
            ORDER BY r.event_time DESC, r.event_id DESC
        ) AS position
    FROM rewards AS r
    LEFT JOIN current_judgments AS j ON j.trajectory_id = r.trajectory_id AND j.stage = 'correctness'
    WHERE coalesce(json_get_str(r.criteria, 'judgment'), '') = coalesce(j.event_id, '')
)
SELECT * EXCLUDE (position)
FROM ranked
WHERE position = 1
