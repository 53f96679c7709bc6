-- One row per assistant turn of every trajectory, from its parallel lists; `turn` counts from 0. There are as many as
-- `n_turns` says, or as `turn_tool` has where that is more; the other lists are cut or filled up with nulls to that.
-- Token ids and log-probabilities stay in `trajectories`: unnesting them would read them for every query here.
WITH counted AS (
    SELECT *, CAST(greatest(n_turns, coalesce(array_length(turn_tool), 0)) AS BIGINT) AS turns FROM trajectories
)
SELECT
    trajectory_id,
    qa_id,
    run_id,
    policy_model,
    attempt,
    event_time,
    unnest(range(0, turns)) AS turn,
    unnest(array_resize(turn_thought, turns)) AS thought,
    unnest(array_resize(turn_tool, turns)) AS tool,
    unnest(array_resize(turn_arguments, turns)) AS arguments,
    unnest(array_resize(turn_observation, turns)) AS observation,
    unnest(array_resize(turn_observation_digest, turns)) AS observation_digest,
    unnest(array_resize(turn_policy_version, turns)) AS policy_version,
    unnest(array_resize(turn_ms, turns)) AS ms,
    unnest(array_resize(turn_outcome, turns)) AS outcome,
    unnest(array_resize(turn_input_tokens, turns)) AS input_tokens,
    unnest(array_resize(turn_output_tokens, turns)) AS output_tokens,
    unnest(array_resize(turn_tool_ms, turns)) AS tool_ms,
    unnest(array_resize(turn_source_urls, turns)) AS source_urls,
    unnest(array_resize(turn_source_digests, turns)) AS source_digests
FROM counted
