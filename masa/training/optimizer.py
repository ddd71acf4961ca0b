"""AdamW and its learning rate."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from masa.config import OptimizerConfig


def build_adamw(
    parameters: Iterable[torch.nn.Parameter], config: OptimizerConfig, lr: float | None = None
) -> torch.optim.AdamW:
    """AdamW over `parameters`; `lr` stands in for the config's."""
    return torch.optim.AdamW(
        parameters,
        lr=config.lr if lr is None else lr,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
        fused=True,
    )


def with_state(optimizer: torch.optim.Optimizer) -> None:
    """Give each parameter the state that AdamW starts from at its first step.

    A sharded checkpoint is read into the state that is there. Torch would make it then by a step of
    rate 0, which counts as one, and makes none for a checkpoint that is saved before the first.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }


def build_schedule(optimizer: torch.optim.Optimizer, config: OptimizerConfig, steps: int) -> Any:
    """The rates that `config` names, for a run of `steps` steps: constant, or as of transformers.

    transformers counts steps from 0, so its first step of a warm-up has the rate 0 and changes
    nothing. Here step n, from 1, has its rate of n in a run of `steps` + 1: the warm-up ends at
    step `warmup_steps`, and a decay would be at 0 in the step after the last.
    """
    if config.schedule == "constant":
        warmup = max(1, config.warmup_steps)
        return LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / warmup))

    # it imports PEFT, which takes half a second
    from transformers import get_scheduler

    from_zero: Any = get_scheduler(config.schedule, optimizer, config.warmup_steps, steps + 1)
    factor = from_zero.lr_lambdas[0]
    return LambdaLR(optimizer, lambda step: factor(step + 1))
