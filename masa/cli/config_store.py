"""The defaults of all settings, as Hydra sees them: out of the dataclasses, where each stands once.

`conf/` holds what differs from them. Importing this module is what registers them, and the resolver
that `conf/` names directories with.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from masa.algorithm.cutoffs import MeanLengthCutoff, QuantileCutoff
from masa.algorithm.gates import (
    CombinedGate,
    CountsGate,
    HistoryGate,
    JudgedGate,
    PredictionGate,
)
from masa.algorithm.value_gate import ValueGate
from masa.config import (
    AlgorithmConfig,
    CutoffConfig,
    GateConfig,
    OptimizerConfig,
    RunConfig,
    SftConfig,
    StrategyConfig,
    TaskConfig,
    TrainerConfig,
)
from masa.evaluation.eval_config import EvaluationConfig
from masa.inference.inference_config import PolicyConfig, PredictConfig, SolveConfig
from masa.inference.policies import (
    AdaptiveConsistencyPolicy,
    CombinedPolicy,
    PredictedPolicy,
    UniformPolicy,
)
from masa.rollout.outcome_samplers import DpsSampler, GresoSampler, MoppsSampler
from masa.rollout.samplers import ShuffledEpochs

NAME_LENGTH = 80
"""Characters of a directory's name that say what a command changed."""

# used in conf/sweep/samplers.yaml
OmegaConf.register_new_resolver("class_of", lambda target: target.rpartition(".")[2], replace=True)
# used in conf/sft.yaml
OmegaConf.register_new_resolver("share_of", lambda share, n: round(share * n), replace=True)


_STORE: Any = ConfigStore.instance()
# Hydra copies all of it 200 times for --help, and copies what it takes out of it anyway
_STORE.__deepcopy__ = lambda memo: _STORE


def conf_dir() -> Path:
    """The folder `conf/`: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def defaults(schema: type, *without: str) -> dict[str, Any]:
    """Settings of a dataclass that have a default, but those named."""
    settings: Any = OmegaConf.to_container(OmegaConf.structured(schema))
    return {name: v for name, v in settings.items() if v != "???" and name not in without}


def plugin(cls: type, schema: type | None = None, **settings: Any) -> dict[str, Any]:
    """A node with `_target_`: what the framework asks of it, its own settings, and other values."""
    node = {"_target_": f"{cls.__module__}.{cls.__qualname__}"}
    return node | (defaults(schema, "settings") if schema else {}) | defaults(cls) | settings


def store(group: str | None, name: str, node: dict[str, Any], package: str | None = None) -> None:
    """One option of a config group, or a config of its own."""
    _STORE.store(name=name, node=node, group=group, package=package)


def changes(overrides: str) -> str:
    """Overrides as the end of a directory's name: `optimizer.lr=1e-3,seed=1` -> `_lr-1e-3_seed-1`.

    What file systems or shells take badly becomes a hyphen; a long name ends in a digest.
    """
    parts = [re.sub(r"^[^=]*\.", "", part) for part in overrides.split(",")]
    name = "".join("_" + re.sub(r"[^\w.]+", "-", part).strip("-") for part in parts if part)
    if len(name) <= NAME_LENGTH:
        return name
    digest = hashlib.sha256(overrides.encode()).hexdigest()[:8]
    return f"{name[: NAME_LENGTH - 9]}-{digest}"


OmegaConf.register_new_resolver("changes", changes, replace=True)


_parts = {
    "task": defaults(TaskConfig, "settings"),
    # not in the presets: these come after a task's settings, and override them
    "algorithm": defaults(AlgorithmConfig, "gate", "cutoff"),
}
store(None, "run", defaults(RunConfig) | _parts)
store(None, "fine_tuning", defaults(SftConfig) | _parts)
store(None, "evaluation", defaults(EvaluationConfig))
store(None, "prediction", defaults(PredictConfig))
store(None, "solving", defaults(SolveConfig, "solve"))
store("optimizer", "adamw", defaults(OptimizerConfig))
store("trainer", "default", defaults(TrainerConfig))
store("strategy", "single", defaults(StrategyConfig))
store("sampler", "shuffled_epochs", plugin(ShuffledEpochs))
store("sampler", "greso", plugin(GresoSampler))
store("sampler", "mopps", plugin(MoppsSampler))
store("sampler", "dps", plugin(DpsSampler))
store("cutoff", "mean_length", plugin(MeanLengthCutoff, CutoffConfig), "algorithm.cutoff")
store("cutoff", "quantile", plugin(QuantileCutoff, CutoffConfig), "algorithm.cutoff")
for policy_name, policy in {
    "uniform": UniformPolicy,
    "adaptive_consistency": AdaptiveConsistencyPolicy,
    "predicted": PredictedPolicy,
    "combined": CombinedPolicy,
}.items():
    store("solve", policy_name, plugin(policy, PolicyConfig))
store("solve", "custom", {"_target_": "???", **defaults(PolicyConfig, "settings")})
store("gate", "prediction", plugin(PredictionGate, GateConfig), "algorithm.gate")
store("gate", "judged", plugin(JudgedGate, GateConfig), "algorithm.gate")
store("gate", "history", plugin(HistoryGate, GateConfig), "algorithm.gate")
store("gate", "counts", plugin(CountsGate, GateConfig), "algorithm.gate")
store(
    "gate",
    "value",
    plugin(
        ValueGate,
        GateConfig,
        group_size="${algorithm.group_size}",
        window="${algorithm.control.window}",
        min_evidence="${algorithm.control.min_evidence}",
    ),
    "algorithm.gate",
)
store(
    "gate",
    "combined",
    plugin(
        CombinedGate,
        GateConfig,
        window="${algorithm.control.window}",
        min_evidence="${algorithm.control.min_evidence}",
    ),
    "algorithm.gate",
)
