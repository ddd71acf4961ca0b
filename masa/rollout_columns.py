"""Columns of the rollout tables that a run writes and the analysis reads."""

import pyarrow as pa

SCHEMA = pa.schema(
    [
        ("step", pa.int32()),
        ("split", pa.string()),
        ("prompt_id", pa.string()),
        ("level", pa.int64()),
        ("kind", pa.string()),
        ("sample", pa.int16()),
        ("problem", pa.string()),
        ("answer", pa.string()),
        ("text", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("tokens", pa.int32()),
        ("reward", pa.float64()),
        ("advantage", pa.float64()),
        ("score", pa.float64()),
        ("correct", pa.bool_()),
        ("finish_reason", pa.string()),
        ("max_tokens", pa.int32()),
        ("predicted_pass_rate", pa.float64()),
        ("predicted_length", pa.int32()),
        ("predicted_notions", pa.list_(pa.string())),
        ("predicted_mixed", pa.float64()),
        ("parse_error", pa.string()),
        ("meta_rewards", pa.map_(pa.string(), pa.float64())),
        ("task_rewards", pa.map_(pa.string(), pa.float64())),
        ("would_skip", pa.bool_()),
        ("gate_active", pa.bool_()),
        ("cutoff_tokens", pa.int32()),
        ("cutoff_active", pa.bool_()),
        ("audited", pa.bool_()),
        ("revisited", pa.bool_()),
        ("skip_kind", pa.string()),
        ("full_probability", pa.float64()),
        ("gate_evidence", pa.bool_()),
        ("skip_evidence", pa.bool_()),
        ("cutoff_evidence", pa.bool_()),
        ("evidence_weight", pa.float64()),
        ("skipped", pa.bool_()),
        ("kept", pa.bool_()),
        ("version", pa.int32()),
    ]
)
"""One row per completion. Null: no verdict (meta), no prediction (solution), no truth (reward).

A prompt that was skipped without one, as a gate by history does, has a row of the kind `none`.
"""


TOKENS = pa.schema(
    [
        ("prompt_ids", pa.list_(pa.int32())),
        ("token_ids", pa.list_(pa.int32())),
        ("logprobs", pa.list_(pa.float32())),
    ]
)
"""Further columns of a run with `trainer.record_tokens=true`: what `engine=recorded` plays."""

FILES = f"*-{6 * '[0-9]'}.parquet"
"""Pattern of the names of rollout files, `<split>-<step>.parquet`."""

ADDED = ("revisited", "skip_kind", "full_probability")
"""Columns that runs of before may lack: read as null, flags as false."""

TEXTS = ("problem", "answer", "text", "predicted_notions", "parse_error")
"""Columns that are long, and needed for few rows at a time."""
FLAGS = tuple(
    field.name for field in SCHEMA if field.type == pa.bool_() and field.name != "correct"
)
"""Decisions about a prompt, the same in all its rows; never null."""
