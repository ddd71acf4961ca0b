"""The DataModule: streams prompts through the rollout callback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L

from masa.plugins import call
from masa.rollout.loader import Rollout, RolloutLoader
from masa.rollout.samplers import PromptSampler
from masa.types import Prompt


class MasaDataModule(L.LightningDataModule):
    """Training prompts of a task as a stream of rollouts.

    Args:
        prompts: the training pool.
        sampler: chooses among them.
        rollout: the rollout callback.
        prompts_per_rollout: prompts per step, over all ranks.
        max_rollouts: steps of the run.
        seed: run seed.
        ranks_per_engine: ranks over which one engine lies; they roll out the same prompts.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        sampler: PromptSampler,
        rollout: Rollout,
        prompts_per_rollout: int,
        max_rollouts: int,
        seed: int,
        ranks_per_engine: int = 1,
    ) -> None:
        super().__init__()
        self.prompts = prompts
        self.by_id = {prompt.id: prompt for prompt in prompts}
        self.sampler = sampler
        self.prompts_per_rollout = prompts_per_rollout
        self.seed = seed
        self.rollout = rollout
        self.max_rollouts = max_rollouts
        self.ranks_per_engine = ranks_per_engine

    def train_dataloader(self) -> RolloutLoader:
        """One batch per rollout."""
        assert self.trainer is not None
        return RolloutLoader(
            self.draw,
            self.rollout,
            self.max_rollouts,
            self.trainer.global_rank // self.ranks_per_engine,
            self.trainer.world_size // self.ranks_per_engine,
        )

    def draw(self, number: int) -> list[Prompt]:
        """The prompts of a draw, over all ranks.

        Raises:
            TrainingError: the sampler failed, or did not draw as many distinct prompts as asked.
        """
        count = self.prompts_per_rollout
        drawn: list[Prompt] = call(
            f"sampler: {type(self.sampler).__name__}.draw",
            f"draw {number}",
            self.sampler.draw,
            self.prompts,
            count,
            number,
            self.seed,
            valid=lambda prompts: (
                len(prompts) == len({prompt.id for prompt in prompts}) == count
                and all(self.by_id.get(prompt.id) == prompt for prompt in prompts)
            ),
            expected=f"{count} prompts of the pool, none twice",
        )
        return drawn

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        """Leave the batch where it is: micro-batches travel one at a time."""
        return batch
