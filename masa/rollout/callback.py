"""The rollout callback: owns the engine and the weight sync, and turns prompts into a batch."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import lightning as L
from tqdm import tqdm

from masa.algorithm.controller import Controller
from masa.algorithm.expert import ExpertPool, Write, expert_of
from masa.algorithm.step import (
    RolloutContext,
    Verify,
    collect,
    keep_mixed,
    metas_alone,
    training_samples,
)
from masa.algorithm.task_rewards import TaskRewards
from masa.config import RunConfig
from masa.errors import TrainingError, changing_nothing
from masa.plugins import Plugin, observe
from masa.rollout.health import RunHealth
from masa.rollout.loader import Draws
from masa.rollout.packing import padding_share, rank_update, real_tokens
from masa.rollout.refill import refilled
from masa.rollout.samplers import PromptSampler
from masa.tasks.templates import PromptRenderer
from masa.tracking import records
from masa.tracking.console_tables import rollout_tables
from masa.tracking.cost import CostMeter
from masa.tracking.loggers import WandbLogger
from masa.tracking.metrics import rollout_metrics
from masa.training.checkpoint import require_plain
from masa.training.collectives import (
    interleave_over_ranks,
    share_work,
    sum_over_ranks,
    world_size,
)
from masa.training.module import MasaModule
from masa.training.random_state import random_state, set_random_state
from masa.training.stopping import StopSignal
from masa.types import Completion, Engine, Prompt, Request, RolloutGroup, Sample, StepBatch, Update

T = TypeVar("T")


class RolloutCallback(L.Callback):
    """Callable as `rollout(prompts, step, draw)`: sync weights, roll out, reward, pack.

    Args:
        config: of the run.
        prompts: the training pool.
        renderer: templates over the tokenizer.
        verify: scores of (prompt, text) pairs.
        task_rewards: further rewards of solutions in training.
        write: writes predictions that came true; see masa/algorithm/expert.py.
        sampler: chose the prompts, and learns from their outcomes.
        build_engine: makes the engine, once per rank, when the fit starts.
        stop: cuts a rollout short.
    """

    def __init__(
        self,
        config: RunConfig,
        prompts: Sequence[Prompt],
        renderer: PromptRenderer,
        verify: Verify,
        task_rewards: TaskRewards,
        write: Write,
        sampler: PromptSampler,
        build_engine: Callable[[], Engine],
        stop: StopSignal,
    ) -> None:
        self.algorithm = config.algorithm
        self.settings = config.trainer
        self.seed = config.seed
        self.correct_at = config.task.correct_at
        self.output_dir = Path(config.output_dir)
        self.ranks_per_engine = config.ranks_per_engine
        """Ranks over which one engine lies; they roll out the same prompts."""
        self.prompts = {prompt.id: prompt for prompt in prompts}
        self.renderer = renderer
        self.verify = verify
        self.task_rewards = task_rewards
        self.write = write
        self.sampler = sampler
        self.build_engine = build_engine
        self.stop = stop
        self.controller = Controller(config.algorithm, config.seed)
        self.pool = ExpertPool(config.algorithm.bc)
        self.cost = CostMeter()
        self.health = RunHealth(config.algorithm, config.trainer.max_rollouts)
        self.engine: Engine | None = None
        self._has_state = False
        self.records = records.RecordWriter()
        self._writing = 0.0
        self._timings: dict[str, float] = {}

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Build the engine, once the policy has its place on the device."""
        assert isinstance(pl_module, MasaModule)
        self.module = pl_module
        self.is_writer = trainer.is_global_zero
        if self.engine is None:
            # vLLM seeds the generators that a task may draw from
            state = random_state()
            self.engine = self.build_engine()
            set_random_state(state)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Delete rollouts that were made after the checkpoint, before the run was resumed."""
        if self.is_writer:
            records.drop_after(self.output_dir / "rollouts", self.module.version)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Have the rollouts on disk before a validation or checkpoint, whose callbacks follow."""
        started = time.perf_counter()
        self.records.wait()
        self._writing = time.perf_counter() - started

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Have the rollouts on disk before the checkpoint of a run that was stopped."""
        try:
            self.records.wait()
        except TrainingError as error:
            print(error, file=sys.stderr)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Free the engine, also where the fit failed."""
        if self.engine is not None:
            self.engine.close()
            self.engine = None
        self.records.wait()

    def __call__(self, prompts: Sequence[Prompt], step: int, draw: Draws) -> StepBatch:
        """Roll out `prompts`, this rank's share of rollout `step`, from the current policy.

        `draw` gives further prompts where refill or dynamic sampling asks for them.
        """
        self._timings = {}
        with self._timed("rollout"):
            groups = [
                replace(group, prompt=self.prompts[group.prompt.id])
                for group in self.roll_out(prompts, self.context(step), draw, step, "train")
            ]
            metrics = rollout_metrics(
                groups,
                self.algorithm.meta.response_limit,
                controlled=self.algorithm.gate.enabled or self.algorithm.cutoff.enabled,
                penalized=self.algorithm.overlong_buffer > 0,
            )
            metrics |= self.controller.metrics()
            self._learn_from(groups, step)
            target = self.settings.prompts_per_rollout
            # with those first that are trained on, so that each update has as many of them
            ordered = groups
            if self.algorithm.selection.refill:
                metrics["selection/drawn"] = float(len(groups))
                metrics["selection/kept"] = float(sum(not group.skipped for group in groups))
                metrics["selection/draws"] = float(draw.made)
                ordered = sorted(ordered, key=lambda group: group.skipped)
            if self.algorithm.dynamic_sampling:
                metrics["dynamic_sampling/extra_prompts"] = float(len(groups) - target)
                metrics["dynamic_sampling/kept_prompts"] = float(sum(g.kept for g in groups))
                ordered = sorted(ordered, key=lambda group: not group.kept)
            with self._timed("pack"):
                updates = self._updates(ordered, step)
            metrics |= self._costs(groups, updates)
            if self.algorithm.bc.mode != "off":
                metrics["bc/pool_size"] = float(len(self.pool))
            padding = padding_share(updates)
            if not math.isnan(padding):
                metrics["padding_share"] = sum_over_ranks([padding])[0] / world_size()
        timings = {f"timing_s/{name}": seconds for name, seconds in self._timings.items()}
        # of the previous rollout, as this one is written while the policy trains on it
        timings["timing_s/write"] = self._writing
        return StepBatch(step, updates, metrics, timings)

    def _learn_from(self, groups: Sequence[RolloutGroup], step: int) -> None:
        """What later rollouts are decided with, and experts to clone."""
        self.controller.observe(groups)
        observe("sampler", self.sampler, groups)
        if not self._has_state:
            # what could not be saved is refused now, not at the first checkpoint
            self.state_dict()
            self._has_state = True
        if self.is_writer:
            self.health.observe(groups, step, self.controller.gate_lacks)
            self._show(groups, step)
        if self.algorithm.bc.mode != "off":
            experts = [
                expert_of(group, self.algorithm.bc, self.renderer.rewrite, self.write)
                for group in groups
            ]
            self.pool.add(expert for expert in experts if expert is not None)

    def context(self, step: int) -> RolloutContext:
        """What a rollout of the task's prompts is made with; see `RolloutContext.step`."""
        return RolloutContext(
            renderer=self.renderer,
            generate=self._generate,
            verify=self.verify,
            controller=self.controller,
            config=self.algorithm,
            step=step,
            seed=self.seed,
            correct_at=self.correct_at,
            task_rewards=self.task_rewards,
        )

    @changing_nothing()
    def roll_out(
        self,
        prompts: Sequence[Prompt],
        context: RolloutContext,
        draw: Draws,
        step: int,
        split: str,
    ) -> list[RolloutGroup]:
        """Groups of all ranks, in the order of the prompts before they were split over the ranks.

        Refill draws further prompts until enough are let through, dynamic sampling until enough
        groups are mixed. The engine samples from the policy as it is now. The rollouts are being
        written to `rollouts/<split>-<step>.parquet` until `records.wait` returns.

        Raises:
            TrainingError: engine, verifier or a reward failed; the run is as it was before.
        """
        assert self.engine is not None
        with self._timed("weight_sync"), self._engine_at_work():
            self.engine.wake()
            self.module.give_weights(self.engine)
        context = replace(context, verify=self._timed("verify")(context.verify))
        config, places = context.config, self.settings.prompts_per_rollout

        def collected(prompts: Sequence[Prompt]) -> list[RolloutGroup]:
            if config.selection.refill and context.phase.gate_active:
                return refilled(prompts, draw, places, context, self._gathered)
            return self._gathered(collect(prompts, context))

        groups = collected(prompts)
        # every rank holds the groups of all, so all ranks draw equally often
        for _ in range(config.dynamic_sampling):
            if sum(group.mixed for group in groups) >= places:
                break
            groups += collected(draw())
        if config.dynamic_sampling:
            groups = keep_mixed(groups, places)
        with self._engine_at_work():
            self.engine.sleep()
        if self.is_writer:
            path = self.output_dir / "rollouts" / f"{split}-{step:06d}.parquet"
            self.records.write(
                groups, step, split, config.meta.response_limit, path, self.settings.record_tokens
            )
        return groups

    def _gathered(self, items: Sequence[T]) -> list[T]:
        """Those of all ranks, in the order of the prompts before they were split over the ranks."""
        with self._timed("gather"):
            return interleave_over_ranks(items, self.ranks_per_engine)

    def _generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Completions of this rank's requests, whichever engine samples them."""
        loads = [request.expected_tokens for request in requests]
        return share_work(requests, loads, self._sample, self.ranks_per_engine)

    def _sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        assert self.engine is not None
        with self._timed("generate"), self._engine_at_work(), self.stop.interruptible():
            return self.engine.generate(requests)

    def _show(self, groups: Sequence[RolloutGroup], step: int) -> None:
        """Tables of every `show_every`-th rollout, on the console above the bar and in W&B."""
        if not self.settings.show_every or step % self.settings.show_every:
            return
        tqdm.write(rollout_tables(groups, step))
        for logger in self.module.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_tables(groups, step, "train")

    def _updates(self, groups: Sequence[RolloutGroup], step: int) -> list[Update]:
        """This rank's share of the policy updates, prompts split evenly among them, of a separate
        cloning step when due, and of further steps on the meta rollouts alone."""
        cloned = list(self.pool.take())
        separate = self.algorithm.bc.mode == "separate"
        count = self.algorithm.updates_per_rollout
        updates = []
        for i in range(count):
            samples = training_samples(groups[i::count], self.algorithm)
            if not separate:
                samples += cloned
            updates.append(self._update(samples))
        if separate and cloned:
            updates.append(replace(self._update(cloned), cloning=True))
        extra = self.controller.extra_updates(step)
        if extra:
            metas = metas_alone(training_samples(groups, self.algorithm), self.algorithm)
            updates += [replace(self._update(metas), extra=True)] * extra
        return updates

    def _update(self, samples: Sequence[Sample]) -> Update:
        return rank_update(samples, self.module, self.renderer.pad_token_id)

    def _costs(self, groups: Sequence[RolloutGroup], updates: Sequence[Update]) -> dict[str, float]:
        trained = round(sum_over_ranks([real_tokens(updates)])[0])
        sampled = self.cost.add(groups, trained)
        costs = self.cost.metrics(self.module.size, self.algorithm.kl_beta > 0)
        return {"completions/total_tokens": float(sampled)} | costs

    @contextmanager
    def _engine_at_work(self) -> Iterator[None]:
        try:
            yield
        except TrainingError:
            raise
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise TrainingError(
                f"the engine failed after rollout {self.module.version} ({reason[:300]}); log.txt "
                "has the traceback: resume with ckpt=auto"
            ) from error

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._timings[name] = self._timings.get(name, 0.0) + time.perf_counter() - started

    def state_dict(self) -> dict[str, Any]:
        """What the next rollout depends on beside policy and step; the same on all ranks.

        Raises:
            TrainingError: a plug-in's state could not be read again.
        """
        plugins: dict[str, Plugin] = {
            "sampler": self.sampler,
            "algorithm.gate": self.controller.gate,
            "algorithm.cutoff": self.controller.cutoff,
        }
        for key, plugin in plugins.items():
            require_plain(f"{key}: {type(plugin).__name__}.state_dict", plugin.state_dict())
        return {
            "controller": self.controller.state_dict(),
            "sampler": self.sampler.state_dict(),
            "pool": self.pool.state_dict(),
            "tokens": dict(self.cost.tokens),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.controller.load_state_dict(state_dict["controller"])
        self.sampler.load_state_dict(state_dict["sampler"])
        self.pool.load_state_dict(state_dict["pool"])
        self.cost.tokens = dict(state_dict["tokens"])
