-- The turns that called a tool, with the arguments as JSON text and what came back.
SELECT
    trajectory_id, qa_id, run_id, policy_model, attempt, event_time,
    turn, tool, arguments, observation, observation_digest, ms
FROM turns
WHERE tool IS NOT NULL
