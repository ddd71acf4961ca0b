"""The DataModule: streams prompts through the rollout callback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L

from masa.rollout.loader import PromptSampler, Rollout, RolloutLoader
from masa.types import Prompt


class MasaDataModule(L.LightningDataModule):
    """Training prompts of a task as a stream of rollouts.

    Args:
        prompts: the training pool.
        rollout: the rollout callback.
        prompts_per_rollout: prompts per step, over all ranks.
        max_rollouts: steps of the run.
        seed: run seed.
        ranks_per_engine: ranks over which one engine lies; they roll out the same prompts.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        rollout: Rollout,
        prompts_per_rollout: int,
        max_rollouts: int,
        seed: int,
        ranks_per_engine: int = 1,
    ) -> None:
        super().__init__()
        self.sampler = PromptSampler(prompts, prompts_per_rollout, seed)
        self.rollout = rollout
        self.max_rollouts = max_rollouts
        self.ranks_per_engine = ranks_per_engine

    def train_dataloader(self) -> RolloutLoader:
        """One batch per rollout."""
        assert self.trainer is not None
        return RolloutLoader(
            self.sampler,
            self.rollout,
            self.max_rollouts,
            self.trainer.global_rank // self.ranks_per_engine,
            self.trainer.world_size // self.ranks_per_engine,
        )

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        """Leave the batch where it is: micro-batches travel one at a time."""
        return batch
