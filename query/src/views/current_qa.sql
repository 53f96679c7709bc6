-- Each question once: where one was recorded more than once, as it was recorded last (event_time, then event_id).
WITH ranked AS (
    SELECT *, row_number() OVER (PARTITION BY qa_id ORDER BY event_time DESC, event_id DESC) AS position
    FROM qa
)
SELECT * EXCLUDE (position) FROM ranked WHERE position = 1
