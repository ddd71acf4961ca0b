"""Rollouts as rows of a parquet table: one row per completion, for analysis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from masa.rollout_columns import FILES, SCHEMA, TOKENS
from masa.tracking.files import atomic_write
from masa.types import Completion, RolloutGroup, TokenIds


def rows(
    groups: Iterable[RolloutGroup],
    step: int,
    split: str,
    meta_limit: int,
    record_tokens: bool = False,
) -> list[dict[str, Any]]:
    """All completions of the groups, solutions after predictions, as rows of `SCHEMA`, and the
    prompts without any. With `record_tokens` also the columns `TOKENS`."""
    table = []
    for group in groups:
        common = {
            "step": step,
            "split": split,
            "prompt_id": group.prompt.id,
            "level": group.prompt.level,
            "problem": group.prompt.problem,
            "answer": group.prompt.answer,
            "would_skip": group.plan.would_skip,
            "gate_active": group.plan.gate_active,
            "cutoff_tokens": group.plan.cutoff_tokens,
            "cutoff_active": group.plan.cutoff_active,
            "audited": group.plan.audited,
            "revisited": group.plan.revisited,
            "skip_kind": group.plan.skip_kind,
            "full_probability": group.plan.full_probability,
            "gate_evidence": group.gate_evidence,
            "skip_evidence": group.skip_evidence,
            "cutoff_evidence": group.cutoff_evidence,
            "evidence_weight": group.evidence_weight,
            "skipped": group.skipped,
            "kept": group.kept,
        }
        for i, (completion, prediction) in enumerate(
            zip(group.meta, group.predictions, strict=True)
        ):
            row = common | _completion(completion, i, "meta", meta_limit)
            if record_tokens:
                row |= _tokens(group.meta_prompt_ids, completion)
            row |= {
                "prompt_tokens": len(group.meta_prompt_ids),
                "predicted_pass_rate": prediction.pass_rate,
                "predicted_length": prediction.length,
                "predicted_notions": prediction.notions,
                "predicted_mixed": prediction.mixed,
                "parse_error": prediction.error,
            }
            if group.meta_rewards:
                row |= {"meta_rewards": list(group.meta_scores[i].items())}
                row |= {"reward": group.meta_rewards[i], "advantage": group.meta_advantages[i]}
            table.append(row)
        for i, (completion, correct) in enumerate(zip(group.solutions, group.correct, strict=True)):
            row = common | _completion(completion, i, "solution", group.plan.max_tokens)
            if record_tokens:
                row |= _tokens(group.solution_prompt_ids, completion)
            row |= {
                "prompt_tokens": len(group.solution_prompt_ids),
                "score": group.scores[i],
                "correct": correct,
                "task_rewards": list(group.task_rewards[i].items()) or None,
                "reward": group.solution_rewards[i],
                "advantage": group.solution_advantages[i],
            }
            table.append(row)
        if not group.meta and not group.solutions:
            table.append(common | {"kind": "none", "sample": 0, "prompt_tokens": 0, "tokens": 0})
    return table


def _completion(completion: Completion, sample: int, kind: str, limit: int) -> dict[str, Any]:
    return {
        "kind": kind,
        "sample": sample,
        "text": completion.text,
        "tokens": len(completion.token_ids),
        "finish_reason": "stop" if completion.finished else "length",
        "max_tokens": limit,
        "version": completion.version,
    }


def _tokens(prompt_ids: TokenIds, completion: Completion) -> dict[str, Any]:
    values = (prompt_ids, completion.token_ids, completion.logprobs)
    return dict(zip(TOKENS.names, values, strict=True))


def write(table: Sequence[dict[str, Any]], path: Path, record_tokens: bool = False) -> None:
    """Write rows to a parquet file that is either complete or absent.

    Raises:
        TrainingError: the file cannot be written.
    """
    schema = pa.schema([*SCHEMA, *TOKENS]) if record_tokens else SCHEMA
    # a dictionary of completions has an entry for each row
    repeated = [name for name in SCHEMA.names if name != "text"]
    with atomic_write(path) as partial:
        pq.write_table(
            pa.Table.from_pylist(list(table), schema),
            partial,
            compression="zstd",
            use_dictionary=repeated,
        )


class RecordWriter:
    """Writes rollouts in a thread beside the training, one file at a time."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rollouts")
        self._pending: Future[None] | None = None

    def write(
        self,
        groups: Sequence[RolloutGroup],
        step: int,
        split: str,
        meta_limit: int,
        path: Path,
        record_tokens: bool = False,
    ) -> None:
        """Begin to write `rows` of the groups to a file, once the file before is on disk.

        Raises:
            TrainingError: that one could not be written.
        """
        self.wait()

        def work() -> None:
            write(rows(groups, step, split, meta_limit, record_tokens), path, record_tokens)

        self._pending = self._thread.submit(work)

    def wait(self) -> None:
        """Return once all files are on disk.

        Raises:
            TrainingError: the file could not be written.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()


def drop_after(directory: Path, step: int) -> None:
    """Delete the rollouts after `step`, where a stopped run resumes."""
    for path in directory.glob(FILES):
        if int(path.stem.rpartition("-")[2]) > step:
            path.unlink()
