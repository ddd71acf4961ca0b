"""The engine of recorded completions: the rollouts of a run once more, without a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import OmegaConf

from masa.errors import ConfigError, TrainingError
from masa.rollout_columns import FILES, TOKENS
from masa.run_config import run_config
from masa.seeding import derive_seed
from masa.types import Completion, Request

if TYPE_CHECKING:
    import torch


class Recording:
    """The rollouts of a run with `trainer.record_tokens=true`.

    Args:
        run: run directory.
    """

    def __init__(self, run: Path | str) -> None:
        self.run = Path(run).expanduser()

    def path(self, split: str, step: int) -> Path:
        """File of a rollout, or of the validation after it."""
        return self.run / "rollouts" / f"{split}-{step:06d}.parquet"

    def has(self, split: str, step: int) -> bool:
        """True where that file is there, with its tokens.

        Raises:
            ConfigError: it cannot be read.
        """
        path = self.path(split, step)
        try:
            return path.is_file() and set(TOKENS.names) <= set(pq.read_schema(path).names)
        except (pa.ArrowInvalid, OSError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"{path} cannot be read ({reason[:200]})") from error

    @property
    def rollouts(self) -> int:
        """Rollouts recorded without a gap, from the first."""
        step = 0
        while self.has("train", step + 1):
            step += 1
        return step


class RecordedEngine:
    """Completes as a run did, each prompt and seed with the tokens that were sampled for them.

    A shorter limit cuts a completion, as it would have cut the sampling.

    Args:
        run: directory of a run with `trainer.record_tokens=true`.
        model_path, eos_token_ids, max_model_len, temperature, dtype, trust_remote_code: unused
            here; other engines need them.
    """

    def __init__(
        self,
        run: str,
        model_path: Path,
        eos_token_ids: Sequence[int],
        max_model_len: int,
        temperature: float = 1.0,
        dtype: str = "float32",
        trust_remote_code: bool = False,
    ) -> None:
        self.recording = Recording(run)
        config = run_config(self.recording.run)
        self.seed: int = OmegaConf.select(config, "seed", default=0)
        self.version = -1
        self._completions: dict[tuple[int, bytes], Completion] = {}
        self._prompts: set[str] = set()
        self._samples = 0

    @staticmethod
    def check_available() -> None:
        """The engine is always available."""

    def load_weights(self, named: Iterator[tuple[str, torch.Tensor]], version: int) -> None:
        """Read what the policy of this version sampled; there are no weights."""
        if version == self.version:
            return
        self.version = version
        self._completions, self._prompts, self._samples = {}, set(), 0
        for path in sorted((self.recording.run / "rollouts").glob(FILES)):
            split, _, number = path.stem.rpartition("-")
            of_version = int(number) == (version + 1 if split == "train" else version)
            if of_version and self.recording.has(split, int(number)):
                # validation samples with the same seeds at every step
                self._read(path, version + 1 if split == "train" else 0)

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """See `Engine.generate`.

        Raises:
            TrainingError: a completion is not in the recording, or ends there before its limit.
        """
        return [[self._completion(request, seed) for seed in request.seeds] for request in requests]

    def sleep(self) -> None:
        """See `Engine.sleep`."""

    def wake(self) -> None:
        """See `Engine.wake`."""

    def close(self) -> None:
        """See `Engine.close`."""

    def _read(self, path: Path, step: int) -> None:
        names = ["prompt_id", "kind", "sample", "finish_reason"]
        table = pq.read_table(path, columns=[*names, *TOKENS.names])
        of_rows = [table[name].to_pylist() for name in names]
        arrays = [_arrays(table[name]) for name in TOKENS.names]
        for prompt_id, kind, sample, reason, prompt_ids, token_ids, logprobs in zip(
            *of_rows, *arrays, strict=True
        ):
            self._prompts.add(prompt_id)
            self._samples = max(self._samples, sample + 1)
            if kind != "none":
                seed = derive_seed(self.seed, step, prompt_id, kind, sample)
                self._completions[seed, prompt_ids.tobytes()] = Completion(
                    token_ids, logprobs, reason == "stop", self.version
                )

    def _completion(self, request: Request, seed: int) -> Completion:
        completion = self._completions.get((seed, request.prompt_ids.tobytes()))
        limit = request.max_tokens
        if completion is None:
            raise TrainingError(self._missing(request, seed))
        length = len(completion.token_ids)
        if length > limit:
            return replace(
                completion,
                token_ids=completion.token_ids[:limit],
                logprobs=completion.logprobs[:limit],
                finished=False,
            )
        if length < limit and not completion.finished:
            raise TrainingError(
                f"{self._where(request, seed)} was stopped after {length} tokens in "
                f"{self.recording.run}, and may have {limit} now: only shorter limits can be played"
            )
        return completion

    def _missing(self, request: Request, seed: int) -> str:
        where, run = self._where(request, seed), self.recording.run
        if any(seed == recorded for recorded, _ in self._completions):
            return f"{where} has another text than in {run}: templates, hints or problems differ"
        if request.prompt_id in self._prompts:
            return (
                f"{where} was skipped in {run}, and is rolled out now: a gate that skips less can "
                "only be played on a run that skipped nothing (algorithm.gate.enabled=false)"
            )
        return (
            f"{where} is not in {run}: task, sampler, algorithm.dynamic_sampling or "
            "algorithm.selection differ"
        )

    def _where(self, request: Request, seed: int) -> str:
        of_training = {
            derive_seed(self.seed, self.version + 1, request.prompt_id, kind, i)
            for kind in ("meta", "solution")
            for i in range(max(self._samples, len(request.seeds)))
        }
        rollout = f"rollout {self.version + 1}"
        if seed not in of_training:
            rollout = f"the validation after rollout {self.version}"
        return f"prompt {request.prompt_id} of {rollout}"


def _arrays(column: pa.ChunkedArray) -> list[np.ndarray[Any, Any]]:
    """The lists of a column; null is an empty one."""
    lists = column.combine_chunks()
    values = lists.values.to_numpy()
    return [values[start:end] for start, end in pairwise(lists.offsets.to_numpy())]
