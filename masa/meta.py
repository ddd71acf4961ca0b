"""Settings of the meta group: predictions before solving, and what rewards them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from math import inf, isfinite, nan
from numbers import Real
from typing import TYPE_CHECKING, Any

from masa.checks import TrainingError, require
from masa.plugins import load_function

if TYPE_CHECKING:  # PyTorch comes with them
    from masa.types import MetaPrediction, RolloutGroup


def paper_rewards() -> dict[str, Any]:
    """The components of the paper, as `MetaConfig.rewards`."""
    functions = "masa.algorithm.meta_rewards"
    return {
        "difficulty": {"_target_": f"{functions}.difficulty", "weight": 1.0, "base": 0.01},
        "length": {"_target_": f"{functions}.length", "weight": 1.0, "strict": False},
        "notion": {"_target_": f"{functions}.notion", "weight": 1.0},
    }


@dataclass(frozen=True)
class Component:
    """A component of the meta reward: `function(prediction, group)` and its weight in the mean."""

    name: str
    target: str
    """Module and name of the function."""
    weight: float
    function: partial[Any]

    @classmethod
    def from_entry(cls, name: str, entry: Any) -> Component:
        """A component from its entry in `MetaConfig.rewards`.

        Raises:
            ConfigError: name, weight, function or settings cannot be used.
        """
        key = f"algorithm.meta.rewards.{name}"
        require(name.isidentifier(), f"{key}: a name has letters, digits and _, no digit first")
        require(
            isinstance(entry, Mapping) and isinstance(entry.get("_target_"), str),
            f"{key} is {entry!r}, it must be {{_target_: MODULE.FUNCTION, weight: NUMBER, ...}}; "
            f"~{key} leaves it out",
        )
        settings = dict(entry)
        require("weight" in settings, f"{key}.weight is missing, it must be a number >= 0")
        weight = settings.pop("weight")
        require(
            type(weight) in (int, float) and 0 <= weight < inf,
            f"{key}.weight is {weight!r}, it must be a finite number >= 0",
        )
        function = load_function(key, settings, ("prediction", "group"))
        return cls(name, entry["_target_"], float(weight), function)

    def __call__(self, prediction: MetaPrediction, group: RolloutGroup) -> float:
        """The reward of one prediction, given the outcome of its prompt.

        Raises:
            TrainingError: the function failed, or returned no finite number.
        """
        where = f"algorithm.meta.rewards.{self.name}: {self.target}"
        remedy = "correct it, then go on with ckpt=auto"
        try:
            returned = self.function(prediction, group)
            value = float(returned) if isinstance(returned, Real) else nan
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise TrainingError(
                f"{where} failed on prompt {group.prompt.id} ({reason[:200]}): {remedy}"
            ) from error
        if not isfinite(value):
            shown = " ".join(repr(returned).split())
            raise TrainingError(
                f"{where} returned {shown[:100]} for prompt {group.prompt.id}, it must return a "
                f"finite number: {remedy}"
            )
        return value


@dataclass
class MetaConfig:
    """The meta group: predict before solving (algorithm section 1)."""

    group_size: int = 8
    """M, meta rollouts per prompt; 0 leaves the meta objective out."""
    coef: float = 1.0
    """Weight of the meta objective in the loss; 0 samples predictions without training them."""
    rewards: dict[str, Any] = field(default_factory=paper_rewards)
    """Components of r_meta by name: `_target_`, a function of (prediction, group) and of its other
    settings; `weight` in the mean, where 0 has it measured only."""
    min_length: int = 128
    """Smallest solution length that may be predicted (tokens)."""
    response_limit: int = 8192
    """Largest meta rollout (tokens)."""

    def __post_init__(self) -> None:
        require(self.group_size >= 0, f"meta.group_size is {self.group_size}, it must be >= 0")
        require(
            self.group_size != 1,
            "meta.group_size is 1, a group of one has no advantage: use 0 or >= 2",
        )
        require(self.coef >= 0, f"meta.coef is {self.coef}, it must be >= 0")
        require(self.min_length >= 1, f"meta.min_length is {self.min_length}, it must be >= 1")
        require(self.response_limit >= 1, "meta.response_limit must be >= 1")
        # in an order that does not depend on where a component was added
        self.components = tuple(
            Component.from_entry(name, entry) for name, entry in sorted(self.rewards.items())
        )
        require(
            sum(component.weight for component in self.components) > 0,
            "algorithm.meta.rewards.*.weight are all 0: use meta.group_size=0 to leave the meta "
            "objective out",
        )
