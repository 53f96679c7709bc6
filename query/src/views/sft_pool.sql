-- Trajectories to fine-tune on: accepted by the whole funnel, not restricted, and not over a benchmark's question. That
-- a forced answer is left out is decided by the funnel's quality rules, unless they are told otherwise.
WITH accepted AS (
    SELECT trajectory_id
    FROM funnel
    WHERE outcome = 'accepted'
        AND NOT restricted
        AND method IS DISTINCT FROM 'benchmark'
)
SELECT t.*
FROM current_trajectories AS t
LEFT SEMI JOIN accepted AS a ON a.trajectory_id = t.trajectory_id
