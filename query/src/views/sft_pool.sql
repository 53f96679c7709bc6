-- Trajectories to fine-tune on: accepted by the whole funnel, ended by the policy itself (a forced answer is left
-- out), not restricted, and not over a benchmark's question.
WITH accepted AS (
    SELECT trajectory_id
    FROM funnel
    WHERE outcome = 'accepted'
        AND termination <> 'forced'
        AND NOT restricted
        AND method IS DISTINCT FROM 'benchmark'
)
SELECT t.*
FROM current_trajectories AS t
LEFT SEMI JOIN accepted AS a ON a.trajectory_id = t.trajectory_id
