-- The turns that called a tool, with the arguments as JSON text, what came back, and how the call went (`outcome`: `done`,
-- `invalid`, `miss`, `unreachable`, `outage`; null where nothing says, as of imports and of calls that were not carried out).
-- `ms` is the whole turn's, `tool_ms` the call's. `source_urls` and `source_digests` list the pages that a visit read, or the
-- results that a search found, with the SHA-256 of each: equal digests are equal content, whatever of it was shown.
SELECT
    trajectory_id, qa_id, run_id, policy_model, attempt, event_time,
    turn, tool, arguments, observation, observation_digest, outcome, ms, tool_ms, source_urls, source_digests
FROM turns
WHERE tool IS NOT NULL
