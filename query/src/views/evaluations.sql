-- One row per trajectory with a current correctness judgment, beside its question. `correct` is null where the judge
-- failed, and where an endpoint or a tool was out (`termination` is error) unless a person overrode that: a failure is
-- never a wrong answer, and pass_at_k, cons and maj_at_k leave it out. `attempted` is false where the judge holds that the
-- answer declines to give one, null where it does not say. A question or trajectory that was recorded twice
-- counts once, as last recorded.
SELECT
    t.trajectory_id,
    t.qa_id,
    t.run_id,
    t.policy_model,
    t.policy_checkpoint_digest,
    t.policy_version,
    t.attempt,
    q.method,
    q.type,
    q.language,
    q.question,
    q.answer AS gold_answer,
    t.answer,
    t.termination,
    t.n_turns,
    t.n_tool_calls,
    t.input_tokens,
    t.output_tokens,
    coalesce(t.restricted, false) AS restricted,
    j.verdict,
    CASE
        WHEN t.termination = 'error' AND NOT j.overridden THEN NULL
        WHEN j.verdict = 'pass' THEN true
        WHEN j.verdict = 'fail' THEN false
    END AS correct,
    json_get_bool(j.criteria, 'attempted') AS attempted,
    j.score,
    j.judge,
    j.rule_version,
    j.overridden,
    j.rationale,
    j.run_id AS judge_run_id,
    t.event_time
FROM current_judgments AS j
JOIN current_trajectories AS t ON t.trajectory_id = j.trajectory_id
LEFT JOIN current_qa AS q ON q.qa_id = t.qa_id
WHERE j.stage = 'correctness'
