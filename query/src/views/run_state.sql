-- Each run as its latest event left it (event_time, then event_id); what is told only once, such as the configuration,
-- is the last that was told.
SELECT
    run_id,
    last_value(kind ORDER BY event_time, event_id) AS kind,
    last_value(state ORDER BY event_time, event_id) AS state,
    min(event_time) AS started,
    max(event_time) AS updated,
    last_value(config ORDER BY event_time, event_id) FILTER (WHERE config IS NOT NULL) AS config,
    last_value(code_version ORDER BY event_time, event_id) FILTER (WHERE code_version IS NOT NULL) AS code_version,
    last_value(pin_id ORDER BY event_time, event_id) FILTER (WHERE pin_id IS NOT NULL) AS pin_id,
    last_value(seed ORDER BY event_time, event_id) FILTER (WHERE seed IS NOT NULL) AS seed,
    last_value(parent_run ORDER BY event_time, event_id) FILTER (WHERE parent_run IS NOT NULL) AS parent_run,
    last_value(artifacts ORDER BY event_time, event_id) AS artifacts,
    last_value(error ORDER BY event_time, event_id) AS error
FROM runs
WHERE run_id IS NOT NULL
GROUP BY run_id
