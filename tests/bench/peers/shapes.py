"""The columns of the rows that the ingest benchmark sends, as (name, type) with types of Arrow's names."""

SHAPES = {
    "judgment": [
        ("trajectory_id", "string"),
        ("stage", "string"),
        ("verdict", "string"),
        ("score", "double"),
        ("judge", "string"),
        ("criteria", "struct"),
        ("rationale", "string"),
        ("rule_version", "int32"),
    ],
    "trajectory": [
        ("trajectory_id", "string"),
        ("qa_id", "string"),
        ("policy_model", "string"),
        ("attempt", "int32"),
        ("question", "string"),
        ("answer", "string"),
        ("termination", "string"),
        ("n_turns", "int32"),
        ("n_tool_calls", "int32"),
        ("turn_thought", "list"),
        ("turn_tool", "list"),
        ("turn_arguments", "list"),
        ("turn_observation", "list"),
        ("turn_observation_digest", "list"),
        ("turn_raw", "list"),
    ],
}
