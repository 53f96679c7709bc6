-- One row per assistant turn of every trajectory, from its parallel lists; `turn` counts from 0.
-- Token ids and log-probabilities stay in `trajectories`: unnesting them would read them for every query here.
SELECT
    trajectory_id,
    qa_id,
    run_id,
    policy_model,
    attempt,
    event_time,
    unnest(range(0, CAST(greatest(
        n_turns, coalesce(array_length(turn_thought), 0), coalesce(array_length(turn_tool), 0)
    ) AS BIGINT))) AS turn,
    unnest(turn_thought) AS thought,
    unnest(turn_tool) AS tool,
    unnest(turn_arguments) AS arguments,
    unnest(turn_observation) AS observation,
    unnest(turn_observation_digest) AS observation_digest,
    unnest(turn_policy_version) AS policy_version,
    unnest(turn_ms) AS ms
FROM trajectories
