"""Typed settings. Each is checked when built, so that an impossible value never reaches a GPU.

`conf/` holds the values, this file says which exist and what they mean; `load` joins the two.
"""

from __future__ import annotations

import re
from dataclasses import MISSING, dataclass, field, fields
from math import inf
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from masa.checks import ConfigError as ConfigError
from masa.checks import TrainingError as TrainingError
from masa.checks import one_of as _one_of
from masa.checks import require as _require
from masa.meta import MetaConfig as MetaConfig
from masa.objective import ObjectiveConfig
from masa.strategy import StrategyConfig as StrategyConfig

RENAMED = {
    "algorithm.meta.difficulty_base": "algorithm.meta.rewards.difficulty.base",
    "algorithm.meta.strict_length": "algorithm.meta.rewards.length.strict",
    **{
        f"algorithm.meta.{name}_weight": f"algorithm.meta.rewards.{name}.weight"
        for name in ("difficulty", "length", "notion")
    },
}
"""Settings of earlier versions, old name to new."""


@dataclass
class BCConfig:
    """Expert behaviour cloning (algorithm section 2)."""

    mode: str = "off"
    """off, joint (part of the policy's optimizer step) or separate (its own step and optimizer)."""
    coef: float = 0.1
    """beta_bc, weight of L_BC in a joint step."""
    min_notion_score: float = 0.2
    """Smallest notion score of an expert."""
    pool_size: int = 64
    """Sliding window: the newest expert meta-trajectories."""
    learning_rate: float = 1e-6
    """Learning rate of a separate step."""

    def __post_init__(self) -> None:
        _one_of("bc.mode", self.mode, ("off", "joint", "separate"))
        _require(self.coef >= 0, f"bc.coef is {self.coef}, it must be >= 0")
        _require(self.pool_size >= 1, f"bc.pool_size is {self.pool_size}, it must be >= 1")
        _require(0 < self.learning_rate < inf, "bc.learning_rate must be > 0 and finite")


@dataclass
class GateConfig:
    """Predictive gating (algorithm section 3.2)."""

    enabled: bool = False
    kind: str = "prediction"
    """prediction (the paper's), history (a prompt's own past outcomes) or combined."""
    sigma: float = 0.1
    """sigma_pg: the predicted pass rates agree where their standard deviation is below it."""
    tolerance: float = 1 / 16
    """How far from 0 or 1 the mean prediction may lie: half a unit of the 0..8 scale."""
    min_parsed: float = 0.5
    """Share of the M predictions that must have parsed."""
    audit_fraction: float = 0.05
    """Share of all prompts, drawn at random, that is rolled out at the full response limit whatever
    gate and cutoff say: unbiased truth about both."""
    min_precision: float = 0.0
    """The gate acts only while its measured precision is at least this; 0 asks for no proof."""
    count_skipped: bool = True
    """Skipped prompts count in the loss's mean like all without variance: README, Deviations."""
    revisit: float = 0.5
    """history: chance of a visit after each zero-variance outcome in a row, r of 1 - r ** z."""
    min_posterior: float = 0.9
    """combined: skip where zero variance is at least this probable."""

    def __post_init__(self) -> None:
        _one_of("gate.kind", self.kind, ("prediction", "history", "combined"))
        _require(self.sigma >= 0, f"gate.sigma is {self.sigma}, it must be >= 0")
        shares = ("tolerance", "min_parsed", "audit_fraction", "min_precision", "revisit")
        for name in (*shares, "min_posterior"):
            value = getattr(self, name)
            _require(0 <= value <= 1, f"gate.{name} is {value}, it must lie in [0, 1]")


@dataclass
class CutoffConfig:
    """Length cutoff (algorithm section 3.3)."""

    enabled: bool = False
    margin: float = 2.0
    """l_LC: the token limit is the mean predicted length times this."""
    max_lost: float = 1.0
    """The cutoff acts only while the measured share of correct answers it would lose is at most
    this; 1 asks for no proof."""

    def __post_init__(self) -> None:
        _require(self.margin > 0, f"cutoff.margin is {self.margin}, it must be > 0")
        _require(0 <= self.max_lost <= 1, "cutoff.max_lost must lie in [0, 1]")


@dataclass
class ControlConfig:
    """When predictions begin to steer the rollouts (algorithm section 3)."""

    start_step: int = 80
    """k: rollouts 1..k run in parallel, predictions steer from k + 1 on."""
    hint: bool = False
    """Append the predicted notions to the problem of the solution group."""
    window: int = 64
    """Newest verdicts from which precision and loss are measured."""
    min_evidence: int = 16
    """Verdicts needed before a measured requirement can be met."""

    def __post_init__(self) -> None:
        _require(self.start_step >= 0, f"control.start_step is {self.start_step}, it must be >= 0")
        _require(
            1 <= self.min_evidence <= self.window,
            "control.min_evidence must lie in [1, control.window]",
        )


@dataclass
class AlgorithmConfig(ObjectiveConfig):
    """GRPO with meta-alignment, behaviour cloning, gating and cutoff."""

    name: str = "masa"
    group_size: int = 16
    """G, solution rollouts per prompt."""
    prompt_limit: int = 2048
    """Largest prompt (tokens); problems that make a longer one are left out."""
    response_limit: int = 8192
    """Largest solution rollout (tokens)."""
    temperature: float = 1.0
    """Sampling temperature; anything but 1 samples from another policy than the one trained."""
    updates_per_rollout: int = 1
    """Optimizer steps per rollout; the prompts are split among them."""
    meta: MetaConfig = field(default_factory=MetaConfig)
    bc: BCConfig = field(default_factory=BCConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    cutoff: CutoffConfig = field(default_factory=CutoffConfig)
    control: ControlConfig = field(default_factory=ControlConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(
            self.group_size >= 2,
            f"algorithm.group_size is {self.group_size}, a group needs at least 2 rollouts",
        )
        _require(self.prompt_limit >= 1, "algorithm.prompt_limit must be >= 1")
        _require(self.response_limit >= 1, "algorithm.response_limit must be >= 1")
        _require(
            0 < self.temperature < inf,
            f"algorithm.temperature is {self.temperature}, it must be > 0 and finite",
        )
        _require(self.updates_per_rollout >= 1, "algorithm.updates_per_rollout must be >= 1")
        uses = {
            "gate.enabled": self.gate.enabled and self.gate.kind != "history",
            "cutoff.enabled": self.cutoff.enabled,
            "control.hint": self.control.hint,
            "bc.mode": self.bc.mode != "off",
        }
        for name, used in uses.items():
            _require(
                not used or self.meta.group_size > 0,
                f"algorithm.{name} needs predictions, but meta.group_size is 0",
            )
        _require(
            self.bc.mode == "off" or "notion" in self.meta.rewards,
            f"algorithm.bc.mode is {self.bc.mode}, which chooses by the reward notion: keep "
            "algorithm.meta.rewards.notion (weight=0 has it measured only)",
        )
        _require(
            self.meta.group_size == 0 or self.meta.min_length <= self.response_limit,
            f"meta.min_length {self.meta.min_length} is over response_limit {self.response_limit}",
        )

    @property
    def steers(self) -> bool:
        """True where predictions are to steer the rollouts after `control.start_step`."""
        return self.gate.enabled or self.cutoff.enabled or self.control.hint


@dataclass
class OptimizerConfig:
    """AdamW with linear warm-up to a constant learning rate."""

    lr: float = 1e-6
    weight_decay: float = 0.1
    warmup_steps: int = 20
    """Rollouts over which the learning rate rises."""
    grad_clip: float = 1.0
    """Largest global gradient norm."""

    def __post_init__(self) -> None:
        _require(0 < self.lr < inf, f"optimizer.lr is {self.lr}, it must be > 0 and finite")
        _require(self.weight_decay >= 0, "optimizer.weight_decay must be >= 0")
        _require(self.warmup_steps >= 0, "optimizer.warmup_steps must be >= 0")
        _require(self.grad_clip > 0, "optimizer.grad_clip must be > 0")


@dataclass
class TrainerConfig:
    """Length of the run, its validation and its layout on the machine."""

    max_rollouts: int = 314
    """Rollouts (steps of the algorithm) in the run."""
    prompts_per_rollout: int = 128
    val_every: int = 10
    """Rollouts between validations; one more comes before the first and after the last."""
    val_samples: int = 4
    """k of avg@k: solutions per held-out prompt."""
    val_meta_samples: int = 4
    """Meta predictions per held-out prompt; 0 leaves meta-alignment unmeasured."""
    checkpoint_every: int = 50
    """Rollouts between checkpoints; one more comes at the end. The newest two are kept."""
    keep_best: int = 1
    """Checkpoints that are kept beside them: those of the best val/accuracy."""
    micro_batch_tokens: int = 16384
    """Tokens per forward pass, padding included."""
    packing: str = "auto"
    """padded (a row per sample), packed (samples end to end, which needs attention of variable
    length to be fast), auto: packed where model.attn_implementation is such attention."""
    accelerator: str = "auto"
    """auto, cpu, gpu, cuda or mps."""
    precision: str = "32-true"
    """32-true, or bf16-mixed: parameters and their updates in float32, computed in bfloat16."""
    check_syncs: int = 3
    """Weight syncs after which engine and policy log-probs are compared, at start and resume."""
    logprob_tolerance: float = 1e-3
    """Largest difference of a token allowed there (nats)."""
    logprob_mean_tolerance: float = 1e-4
    """Largest mean difference over tokens allowed there (nats): what weights of another version
    show where rounding alone moves single tokens far."""
    max_nonfinite_updates: int = 5
    """Updates in a row whose loss or gradient is not finite, each skipped, that end the run."""

    def __post_init__(self) -> None:
        for name in (
            "max_rollouts",
            "prompts_per_rollout",
            "val_every",
            "val_samples",
            "checkpoint_every",
            "micro_batch_tokens",
            "max_nonfinite_updates",
        ):
            value = getattr(self, name)
            _require(value >= 1, f"trainer.{name} is {value}, it must be >= 1")
        _require(
            self.val_samples != 1, "trainer.val_samples is 1, a group needs at least 2 rollouts"
        )
        _require(
            self.val_meta_samples >= 0 and self.val_meta_samples != 1,
            f"trainer.val_meta_samples is {self.val_meta_samples}, it must be 0 or >= 2",
        )
        _require(self.logprob_tolerance > 0, "trainer.logprob_tolerance must be > 0")
        _require(self.logprob_mean_tolerance > 0, "trainer.logprob_mean_tolerance must be > 0")
        _one_of("trainer.packing", self.packing, ("auto", "padded", "packed"))
        _one_of("trainer.accelerator", self.accelerator, ("auto", "cpu", "gpu", "cuda", "mps"))
        _one_of("trainer.precision", self.precision, ("32-true", "bf16-mixed"))
        _require(self.keep_best >= 0, f"trainer.keep_best is {self.keep_best}, it must be >= 0")


@dataclass
class SweepConfig:
    """The sweep (`masa-train -m`) that a run is part of."""

    name: str | None = None
    """W&B groups by it."""
    resume: bool = False
    """Leave out jobs that are finished and go on with the others."""
    baseline: str | None = None
    """`algorithm.name` that `masa-report` compares the others with; null: grpo, or the first."""


@dataclass
class RunConfig:
    """One run of `masa-train`. Nodes of type Any are built by Hydra from their `_target_`."""

    algorithm: AlgorithmConfig
    optimizer: OptimizerConfig
    trainer: TrainerConfig
    strategy: StrategyConfig
    sweep: SweepConfig
    task: Any
    model: Any
    engine: Any
    logger: Any
    output_dir: str
    benchmark: Any = field(default_factory=dict)
    """Benchmarks of `conf/benchmark` that validation asks as well, by name."""
    seed: int = 0
    allow_unsafe_execution: bool = False
    """Run programs that a benchmark of `benchmark` asks for where there is no sandbox."""
    allow_special_tokens: bool = False
    """Read special tokens in a problem's text as such; else they are words like others."""
    ckpt: str | None = None
    """null: a new run; last: go on in `output_dir`; auto: go on where there is a checkpoint, else
    afresh; best: go back to the best of `output_dir`; a path: go on from that checkpoint."""
    name: str = "masa"

    def __post_init__(self) -> None:
        _require(
            type(self.seed) is int and self.seed >= 0,
            f"seed is {self.seed!r}, it must be an integer >= 0",
        )
        for name in ("allow_unsafe_execution", "allow_special_tokens"):
            value = getattr(self, name)
            _require(type(value) is bool, f"{name} is {value!r}, it must be true or false")
        for name in ("output_dir", "name", "ckpt"):
            value = getattr(self, name)
            is_text = isinstance(value, str) or (name == "ckpt" and value is None)
            _require(is_text, f"{name} is {value!r}, it must be a text")
        _require(
            not self.algorithm.steers
            or self.algorithm.control.start_step < self.trainer.max_rollouts,
            f"algorithm.control.start_step is {self.algorithm.control.start_step}, but the run has "
            f"only {self.trainer.max_rollouts} rollouts: control would never start",
        )
        shortest = self.algorithm.meta.min_length
        _require(
            self.trainer.val_meta_samples == 0 or shortest <= self.algorithm.response_limit,
            f"meta.min_length {shortest} is over response_limit {self.algorithm.response_limit}, "
            "but trainer.val_meta_samples asks for predictions",
        )
        world = self.strategy.world_size
        _require(
            self.ranks_per_engine >= 1 and world % self.ranks_per_engine == 0,
            f"engine.tensor_parallel_size is {self.ranks_per_engine}, it must divide the {world} "
            "devices",
        )
        _require(
            self.trainer.prompts_per_rollout % world == 0,
            f"trainer.prompts_per_rollout is {self.trainer.prompts_per_rollout}, it must be "
            f"divisible by the {world} devices",
        )
        _require(
            self.trainer.prompts_per_rollout // world >= self.algorithm.updates_per_rollout,
            "algorithm.updates_per_rollout is more than there are prompts per device",
        )

    @property
    def ranks_per_engine(self) -> int:
        """Devices over which one engine lies."""
        return int((self.engine or {}).get("tensor_parallel_size", 1))


def load(cfg: DictConfig) -> RunConfig:
    """Turn a composed Hydra config into checked settings.

    Raises:
        ConfigError: one line, for an unknown key, a value of the wrong type or an impossible one.
    """
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    plain.pop("hydra", None)
    known = {f.name for f in fields(RunConfig)}
    unknown = sorted(str(key) for key in plain if key not in known)
    _require(not unknown, f"unknown key {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    typed = {
        "algorithm": AlgorithmConfig,
        "optimizer": OptimizerConfig,
        "trainer": TrainerConfig,
        "strategy": StrategyConfig,
        "sweep": SweepConfig,
    }
    for key, schema in typed.items():
        given = plain.get(key) or {}
        _require(isinstance(given, dict), f"{key} is {given!r}, it must be a group of settings")
        defaults = OmegaConf.structured(schema)
        meta = given.get("meta")
        if key == "algorithm" and isinstance(meta, dict) and "rewards" in meta:
            defaults.meta.rewards = {}  # a merge would bring back those that were left out
        try:
            plain[key] = OmegaConf.to_object(OmegaConf.merge(defaults, given))
        except OmegaConfBaseException as error:
            message = new_name(f"{key}.{error.full_key}") or str(error).splitlines()[0]
            raise ConfigError(f"{key}: {message}") from error
    missing = sorted(
        f.name for f in fields(RunConfig) if f.default is MISSING and f.default_factory is MISSING
    )
    missing = [name for name in missing if name not in plain]
    _require(not missing, f"missing key {', '.join(missing)}")
    return RunConfig(**{str(key): value for key, value in plain.items()})


def new_name(text: str) -> str | None:
    """What a setting that the text names is called now; None where it names none of before."""
    for old, new in RENAMED.items():
        if re.search(rf"\b{re.escape(old)}\b", text):
            return f"{old} is called {new} now"
    return None


def conf_dir() -> Path:
    """The folder `conf/`: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"
