"""The LightningModule: the policy, its optimizers and the updates of each rollout."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import lightning as L
import torch
from torch.distributed.tensor import DTensor

from masa.algorithm.diagnostics import policy_statistics
from masa.algorithm.losses import total_loss
from masa.config import AlgorithmConfig, OptimizerConfig, StrategyConfig, TrainerConfig
from masa.errors import TrainingError
from masa.tracking.csv_logger import CsvLogger
from masa.training.collectives import max_over_ranks, sum_over_ranks, world_size
from masa.training.loading import model_size
from masa.training.logprobs import require_own_distribution, token_logprobs
from masa.training.lora import (
    base,
    has_adapter,
    in_adapter,
    merged,
    names_of_peft,
    without_adapter,
)
from masa.training.models import Shard
from masa.training.optimizer import build_adamw, build_schedule, with_state
from masa.training.sharding import free_gathered, full_parameters, set_gradient_sync, shard
from masa.types import Engine, MicroBatch, StepBatch, Update


class MasaModule(L.LightningModule):
    """GRPO with meta-alignment and behaviour cloning on a causal LM.

    Args:
        build_policy: builds the model, and places it with the function that it is given; called
            once per rank, and again for the KL reference.
        algorithm: losses and their coefficients.
        optimizer: AdamW and its schedule.
        trainer: length of the run, precision, and check of the weight sync.
        strategy: how parameters are sharded over ranks.
    """

    def __init__(
        self,
        build_policy: Callable[[Shard | None], torch.nn.Module],
        algorithm: AlgorithmConfig,
        optimizer: OptimizerConfig,
        trainer: TrainerConfig,
        strategy: StrategyConfig,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.build_policy = build_policy
        self.algorithm = algorithm
        self.optimizer = optimizer
        self.settings = trainer
        self.strategy = strategy
        self.policy: torch.nn.Module | None = None
        # in a list, so that the frozen reference is not in state_dict
        self._reference: list[torch.nn.Module] = []
        self.version = 0
        self._engine_has_base = False
        self._sync_checks_left = trainer.check_syncs
        self._distribution_checked = False
        self._nonfinite_in_a_row = 0
        self._timings: dict[str, float] = {}
        self._logging = 0.0

    def configure_model(self) -> None:
        """Build the policy, sharded over the ranks."""
        if self.policy is not None:
            return
        self.policy = self._on_devices()
        self._describe(self.policy)
        if self.algorithm.kl_beta > 0 and not has_adapter(self.policy):
            self._reference.append(self._on_devices().requires_grad_(False))

    def _on_devices(self) -> torch.nn.Module:
        mesh = self.device_mesh
        if mesh is None:
            return self.build_policy(None)
        precision, offload = self.settings.precision, self.strategy.cpu_offload
        return self.build_policy(lambda model: shard(model, mesh, precision, offload))

    def _describe(self, policy: torch.nn.Module) -> None:
        self.size = model_size(policy)
        config: Any = policy.config
        self.attention: str = config._attn_implementation

    @property
    def reference(self) -> torch.nn.Module | None:
        """The model of the KL term, None without that term or where the policy contains it."""
        return self._reference[0] if self._reference else None

    def configure_optimizers(self) -> Any:
        """The policy's AdamW with its schedule; a second one for separate behaviour cloning."""
        assert self.policy is not None
        parameters = [p for p in self.policy.parameters() if p.requires_grad]
        optimizers = [build_adamw(parameters, self.optimizer)]
        schedule = build_schedule(optimizers[0], self.optimizer, self.settings.max_rollouts)
        if self.algorithm.bc.mode == "separate":
            rate = self.algorithm.bc.learning_rate
            optimizers.append(build_adamw(parameters, self.optimizer, rate))
        return optimizers, [schedule]

    def on_fit_start(self) -> None:
        """Give sharded optimizers their state, before a checkpoint is read into it, and after
        Lightning has moved what there was to the device, parameters on the CPU or not. What is not
        sharded, it has moved itself, but for the reference, of which it does not know."""
        if self.device_mesh is None:
            for reference in self._reference:
                reference.to(self.device)
        else:
            for optimizer in self.trainer.optimizers:
                with_state(optimizer)

    def named_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Full parameters under their Hugging Face names, for the engine."""
        assert self.policy is not None
        return merged(full_parameters(self.policy), self.policy)

    def give_weights(self, engine: Engine) -> None:
        """Have the engine sample from the policy as it is now."""
        if getattr(engine, "lora_rank", None) is None:
            engine.load_weights(self.named_weights(), self.version)
            return
        policy: Any = self.policy
        if not self._engine_has_base:
            beside = full_parameters(policy, lambda name: not in_adapter(name))
            engine.load_weights(base(beside), self.version)
            self._engine_has_base = True
        adapter = full_parameters(policy, in_adapter)
        engine.load_adapter(policy.peft_config["default"], names_of_peft(adapter), self.version)

    def training_step(self, batch: StepBatch, batch_idx: int) -> dict[str, Any]:
        """All updates of one rollout; logs its metrics at step = rollout number."""
        started = time.perf_counter()
        self._timings = {}
        metrics: dict[str, float] = dict(batch.metrics)
        scheduler: Any = self.lr_schedulers()
        metrics["learning_rate"] = float(scheduler.get_last_lr()[0])
        metrics["nonfinite_updates"] = 0.0
        with self._explaining_out_of_memory():
            first = True
            for update in self._with_old_logprobs(batch.updates):
                if not update.empty:
                    self._check_distribution()
                    # on-policy only before the first step: later updates differ from the sampler
                    statistics = self._update(update, first)
                    first = False
                    metrics["nonfinite_updates"] += not statistics
                    metrics |= statistics
        scheduler.step()
        self.version += 1
        return self._log_step(batch, metrics, started)

    def _check_distribution(self) -> None:
        """At the first update: FSDP shards the root again in a backward pass alone."""
        assert self.policy is not None
        if not self._distribution_checked:
            require_own_distribution(self.policy, self.device)
            self._distribution_checked = True

    def _log_step(
        self, batch: StepBatch, metrics: dict[str, float], started: float
    ) -> dict[str, Any]:
        timings = dict(batch.timings)
        timings |= {f"timing_s/{name}": seconds for name, seconds in self._timings.items()}
        # of the previous rollout, as this one's row must be written first
        timings["timing_s/log"] = self._logging
        timings["timing_s/update"] = time.perf_counter() - started
        made = sum(timings.get(f"timing_s/{name}", 0.0) for name in ("rollout", "batch"))
        timings["timing_s/step"] = made + timings["timing_s/update"]
        tokens = metrics.get("completions/total_tokens", metrics.get("demonstrations/tokens", 0.0))
        timings["perf/throughput"] = tokens / timings["timing_s/step"]
        all_metrics = metrics | timings
        started = time.perf_counter()
        last = batch.step == self.settings.max_rollouts
        due = last or batch.step % self.settings.log_every == 0
        # what a run cost is summed over the rows of the files
        costs = "cost/tokens_total" in metrics
        for logger in self.loggers:
            if due or (costs and isinstance(logger, CsvLogger)):
                logger.log_metrics(all_metrics, step=batch.step)
        self._logging = time.perf_counter() - started
        return {"step": batch.step, "metrics": all_metrics}

    @contextmanager
    def _explaining_out_of_memory(self) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"out of memory in the update after rollout {self.version}: lower "
                f"trainer.micro_batch_tokens (it is {self.settings.micro_batch_tokens}), then "
                "resume with ckpt=auto"
            ) from error

    def _with_old_logprobs(self, updates: Sequence[Update]) -> list[Update]:
        """The updates, with the current policy's log-probs where a mismatch correction needs them.

        The first update is left out: its own forward pass computes them.
        """
        if self.algorithm.mismatch == "none":
            return list(updates)
        # extra updates are one and the same
        made: dict[int, Update] = {}
        for update in updates[1:]:
            if not update.cloning and id(update) not in made:
                batches = [self._with_old(batch) for batch in update]
                made[id(update)] = replace(update, micro_batches=batches)
        return [*updates[:1], *(made.get(id(update), update) for update in updates[1:])]

    @torch.no_grad()
    def _with_old(self, batch: MicroBatch) -> MicroBatch:
        assert self.policy is not None
        on_device = batch.to(self.device)
        logprobs, _ = token_logprobs(self.policy, on_device, self.algorithm.temperature)
        return replace(batch, old_logprobs=logprobs.to(batch.input_ids.device))

    def _update(self, update: Update, first: bool) -> dict[str, float]:
        """One optimizer step; skipped, without metrics, where it would not be finite."""
        optimizers = self.optimizers()
        optimizer = optimizers[update.cloning] if isinstance(optimizers, list) else optimizers
        optimizer.zero_grad()
        assert self.policy is not None
        totals = _Totals()
        with self._timed("forward_backward"):
            for number, micro_batch in enumerate(update, 1):
                set_gradient_sync(self.policy, number == len(update.micro_batches))
                totals.add(self._backward(micro_batch.to(self.device)))
            statistics = totals.over_ranks()
        with self._timed("optimizer"):
            return self._step(update, optimizer, statistics, first)

    def _step(
        self, update: Update, optimizer: Any, measured: dict[str, float], first: bool
    ) -> dict[str, float]:
        norm = torch.nn.utils.clip_grad_norm_(
            self.policy.parameters(),  # type: ignore[union-attr]
            self.optimizer.grad_clip,
        )
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        if self._skips_nonfinite(measured["loss"], float(norm)):
            optimizer.zero_grad()
            return {}
        if first:
            self._check_sync(measured)
        optimizer.step()
        # frees the gradients: the engine needs their memory until the next update
        optimizer.zero_grad()
        if update.cloning:
            return {"bc/loss": measured["loss/bc"], "bc/grad_norm": float(norm)}
        if update.extra:
            clipped = measured["clip_ratio/low_mean"] + measured["clip_ratio/high_mean"]
            return {"meta/extra_clip_ratio": clipped, "meta/extra_grad_norm": float(norm)}
        if not first:
            measured = {k: v for k, v in measured.items() if not k.startswith("sampling/")}
        return measured | {"grad_norm": float(norm)}

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._timings[name] = self._timings.get(name, 0.0) + time.perf_counter() - started

    def _skips_nonfinite(self, loss: float, norm: float) -> bool:
        """Whether loss or gradient norm of an update is not finite on any rank."""
        finite = math.isfinite(loss) and math.isfinite(norm)
        if not max_over_ranks(float(not finite)):
            self._nonfinite_in_a_row = 0
            return False
        self._nonfinite_in_a_row += 1
        if self._nonfinite_in_a_row >= self.settings.max_nonfinite_updates:
            raise TrainingError(
                f"{self._nonfinite_in_a_row} updates in a row had a loss or gradient that is not "
                f"finite (loss {loss:g}, gradient norm {norm:g}): start a new run from the weights "
                "of a checkpoint before them, with a lower optimizer.lr or "
                "trainer.precision=32-true"
            )
        return True

    def _backward(self, batch: MicroBatch) -> dict[str, torch.Tensor]:
        assert self.policy is not None
        logprobs, entropy = token_logprobs(
            self.policy,
            batch,
            self.algorithm.temperature,
            entropy_gradient=self.algorithm.entropy_coef > 0,
        )
        reference = self._reference_logprobs(batch) if self.algorithm.kl_beta > 0 else None
        loss, parts = total_loss(logprobs, batch, self.algorithm, reference, entropy)
        # FSDP averages gradients over ranks, the weights already divide by the global count
        self.manual_backward(loss * world_size())
        measured = policy_statistics(logprobs, entropy, batch, self.algorithm, reference)
        return measured | {f"loss/{name}": part for name, part in parts.items()}

    @torch.no_grad()
    def _reference_logprobs(self, batch: MicroBatch) -> torch.Tensor:
        assert self.policy is not None
        if self.reference is not None:
            logprobs = token_logprobs(self.reference, batch, self.algorithm.temperature)[0]
            free_gathered(self.reference)
            return logprobs
        # the base model is in memory already: no second copy
        with without_adapter(self.policy):
            return token_logprobs(self.policy, batch, self.algorithm.temperature)[0]

    def _check_sync(self, measured: dict[str, float]) -> None:
        if self._sync_checks_left <= 0 or "sampling/sampling_logp_difference/max" not in measured:
            return
        self._sync_checks_left -= 1
        for kind, setting in (("max", "logprob_tolerance"), ("mean", "logprob_mean_tolerance")):
            difference = measured[f"sampling/sampling_logp_difference/{kind}"]
            allowed = getattr(self.settings, setting)
            if not difference <= allowed:
                raise TrainingError(
                    f"after a weight sync engine and policy differ by {difference:.2g} nats "
                    f"({kind}) on the same tokens (trainer.{setting} is {allowed:g}): the engine "
                    "samples from other weights or another distribution than the policy's"
                )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the number of rollouts trained on, and of the newest updates skipped in a row."""
        checkpoint["masa_version"] = self.version
        checkpoint["masa_nonfinite_in_a_row"] = self._nonfinite_in_a_row

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Inverse of `on_save_checkpoint`; a finished run can be made longer."""
        self.version = checkpoint["masa_version"]
        self._nonfinite_in_a_row = checkpoint["masa_nonfinite_in_a_row"]
        # else Lightning takes the epoch for finished, whatever the loader's length is now
        checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["is_last_batch"] = False


class _Totals:
    """Sums and extremes over micro-batches and ranks, then means per token."""

    def __init__(self) -> None:
        self.measured: dict[str, list[torch.Tensor]] = {}

    def add(self, measured: dict[str, torch.Tensor]) -> None:
        # read at the end alone: the CPU does not wait for the device in between
        for name, tensor in measured.items():
            self.measured.setdefault(name, []).append(tensor.detach())

    def over_ranks(self) -> dict[str, float]:
        values = {name: torch.stack(each).tolist() for name, each in self.measured.items()}
        names = sorted(values.keys() - _EXTREMES.keys())
        sums = dict(zip(names, sum_over_ranks([sum(values[n]) for n in names]), strict=True))
        # of the negated values where the metric is a minimum
        largest = {
            name: max_over_ranks(max((sign * v for v in values.get(name, ())), default=-math.inf))
            for name, sign in _EXTREMES.items()
        }
        tokens = sums.pop("tokens")
        losses = {name: value for name, value in sums.items() if name.startswith("loss/")}
        result = losses | {"loss": math.fsum(losses.values())}
        if tokens:
            result |= {name: v / tokens for name, v in sums.items() if name not in losses}
            result |= {name: _EXTREMES[name] * value for name, value in largest.items()}
        return result


_EXTREMES = {
    "sampling/sampling_logp_difference/max": 1,
    "sampling/importance_sampling_ratio/max": 1,
    "sampling/importance_sampling_ratio/min": -1,
}
"""Metrics that are a maximum (1) or a minimum (-1) over tokens."""
