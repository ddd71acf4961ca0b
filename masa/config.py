"""Typed settings. Each is checked when built, so that an impossible value never reaches a GPU.

The dataclasses hold defaults and meanings, `conf/` holds what differs; `load` joins the two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from math import isfinite
from typing import Any, ClassVar, TypeVar, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from masa.errors import (
    ConfigError,
    engine_values,
    not_negative,
    one_of,
    positive,
    require,
    seed_of,
    window_of,
)
from masa.plugins import WeightedFunction, escaped

RENAMED = {
    "model.warmstart.steps": "model.warmstart.sft.steps",
    "model.warmstart.tokens_per_step": "model.warmstart.sft.batch_size",
    "model.warmstart.learning_rate": "model.warmstart.optimizer.lr",
    "algorithm.gate.kind": "gate",
    "algorithm.gate.audit_fraction": "algorithm.control.audit_fraction",
    "algorithm.gate.count_skipped": "algorithm.control.count_skipped",
    "algorithm.meta.difficulty_base": "algorithm.meta.rewards.difficulty.base",
    "algorithm.meta.strict_length": "algorithm.meta.rewards.length.strict",
    **{
        f"algorithm.meta.{name}_weight": f"algorithm.meta.rewards.{name}.weight"
        for name in ("difficulty", "length", "notion")
    },
}
"""Settings of earlier versions, old name to new."""
RENAMED_OPTIONS = {
    "engine/replay": "engine/gold_answers",
    "sweep/base": "sweep/difficulty_base",
    "sweep/families": "sweep/architectures",
}
"""Options of groups, likewise."""


ADVANTAGES = ("grpo", "dr_grpo", "rloo")
MIXED_REWARD = "masa.algorithm.meta_rewards.mixed"
"""The component that needs `MetaConfig.predict_mixed`."""


def paper_rewards() -> dict[str, Any]:
    """The components of the paper, as `MetaConfig.rewards`."""
    functions = "masa.algorithm.meta_rewards"
    return {
        "difficulty": {"_target_": f"{functions}.difficulty", "weight": 1.0, "base": 0.01},
        "length": {"_target_": f"{functions}.length", "weight": 1.0, "strict": False},
        "notion": {"_target_": f"{functions}.notion", "weight": 1.0},
    }


@dataclass
class MetaConfig:
    """The meta group: predict before solving."""

    enabled: bool = True
    """False: training neither samples predictions nor learns from them, whatever the other settings
    are. Validations sample `trainer.val_meta_samples` of them in any case."""
    group_size: int = 8
    """M, predictions per prompt; 1 needs coef=0."""
    first: int | None = None
    """While the gate is active, it decides by this many of the M predictions, and the others are
    sampled only for prompts that it lets through; in shadow mode it decides by them as well. null:
    by all M."""
    coef: float = 1.0
    """Weight of the meta objective in the loss; 0 samples predictions without training them."""
    rewards: dict[str, Any] = field(default_factory=paper_rewards)
    """Components of r_meta by name: `_target_`, a function of (prediction, group) and of its other
    settings; `weight` in the mean, where 0 has it measured only. null leaves one out."""
    min_length: int = 128
    """Smallest solution length that may be predicted (tokens)."""
    response_limit: int = 8192
    """Largest prediction (tokens)."""
    predict_mixed: bool = False
    """Predictions have a further field `mixed`: the probability, in percent, that some of the G
    solutions are right and some wrong."""
    recent: int = 0
    """Newest outcomes that q_meta shows, as many as `algorithm.prompt_limit` leaves room for:
    problems of the run's own rollouts, and whether their groups were mixed; 0: none."""
    advantage: str | None = None
    """Advantages of predictions, as algorithm.advantage, which null stands for. Where rewards are a
    proper score, dividing by the standard deviation makes them improper: of two predictions the
    better one gets the same advantage however little better it is, so that the more frequent
    outcome is predicted as certain."""
    extra_updates: int = 0
    """Further optimizer steps per rollout on its predictions alone, after the ordinary ones, with
    the same optimizer, loss, clipping and coefficient; 0: none. They carry its momentum on, which
    is mostly of the solutions."""
    extra_until: int | None = None
    """The last rollout that has them; null: no end."""
    extra_until_precision: float | None = None
    """They pause while the gate's measured precision is at least this; null: never."""

    def __post_init__(self) -> None:
        require(
            self.group_size >= 1,
            f"meta.group_size is {self.group_size}, it must be >= 1: algorithm.meta.enabled=false "
            "leaves predictions out",
        )
        require(
            self.group_size > 1 or self.coef == 0 or not self.enabled,
            "meta.group_size is 1, a group of one has no advantage: use >= 2, or meta.coef=0",
        )
        require(
            self.first is None or 1 <= self.first <= self.group_size,
            f"meta.first is {self.first}, it must lie in [1, meta.group_size], or be null",
        )
        not_negative("meta.coef", self.coef)
        require(self.min_length >= 1, f"meta.min_length is {self.min_length}, it must be >= 1")
        require(self.response_limit >= 1, "meta.response_limit must be >= 1")
        require(
            self.extra_updates >= 0, f"meta.extra_updates is {self.extra_updates}, it must be >= 0"
        )
        require(
            self.extra_updates == 0 or (self.coef > 0 and self.enabled),
            "meta.extra_updates trains predictions, but meta.coef is 0 or meta.enabled is false",
        )
        require(
            self.extra_until is None or self.extra_until >= 1,
            f"meta.extra_until is {self.extra_until}, it must be >= 1 or null",
        )
        require(
            self.extra_until_precision is None or 0 < self.extra_until_precision <= 1,
            f"meta.extra_until_precision is {self.extra_until_precision}, it must lie in (0, 1] or "
            "be null",
        )
        if self.advantage is not None:
            one_of("algorithm.meta.advantage", self.advantage, ADVANTAGES)
        window_of("meta.recent", self.recent, least=0)
        require(
            self.predict_mixed or not self.recent,
            f"meta.recent={self.recent} shows whether groups were mixed, which predictions are not "
            "asked for: set algorithm.meta.predict_mixed=true",
        )
        key = "algorithm.meta.rewards"
        self.components = WeightedFunction.from_entries(key, self.rewards, ("prediction", "group"))
        require(
            sum(component.weight for component in self.components) > 0,
            "algorithm.meta.rewards.*.weight are all 0: use meta.enabled=false to leave the meta "
            "objective out",
        )
        scored = [c.name for c in self.components if c.target == MIXED_REWARD]
        require(
            self.predict_mixed or not scored,
            f"{key}.{'/'.join(scored)} scores a field that predictions are not asked for: set "
            "algorithm.meta.predict_mixed=true",
        )

    @property
    def predictions(self) -> int:
        """Predictions of a prompt: M, or 0."""
        return self.group_size if self.enabled else 0


@dataclass
class BCConfig:
    """Expert behaviour cloning."""

    mode: str = "off"
    """off, joint (part of the policy's optimizer step) or separate (its own step and optimizer)."""
    coef: float = 0.1
    """beta_bc, weight of L_BC in a joint step."""
    target: str = "overwritten"
    """What is cloned per prompt. overwritten: the prediction with the best notion score, its
    numbers replaced by the truth; best: the one with the best r_meta, as it was sampled; outcome:
    one that says what came out, reasoning and numbers in the form of the task's demonstrations."""
    min_notion_score: float = 0.2
    """Smallest notion score of an overwritten expert."""
    min_reward: float = 0.8
    """Smallest r_meta of a best one."""
    pool_size: int = 64
    """Newest expert meta-trajectories that are cloned (joint), or as many as there have to be for a
    step (separate)."""
    learning_rate: float = 1e-6
    """Learning rate of a separate step."""

    def __post_init__(self) -> None:
        one_of("bc.mode", self.mode, ("off", "joint", "separate"))
        one_of("bc.target", self.target, ("overwritten", "best", "outcome"))
        not_negative("bc.coef", self.coef)
        for name in ("min_notion_score", "min_reward"):
            value = getattr(self, name)
            require(isfinite(value), f"bc.{name} is {value}, it must be a finite number")
        window_of("bc.pool_size", self.pool_size)
        positive("bc.learning_rate", self.learning_rate)


@dataclass
class GateConfig:
    """Which prompts are skipped. In a config the gate's own settings stand beside these."""

    enabled: bool = False
    """False keeps the gate in shadow mode: its decisions are recorded, not enforced."""
    min_precision: float = 0.0
    """The gate is active only while its measured precision is at least this; 0: whatever it
    is."""
    min_gain: float = 0.0
    """The gate is active only while its measured gain, less a standard error, is above this: the
    share of mixed groups that it keeps over the share of solution tokens. Above 1 it pays; 0:
    whatever it is."""
    settings: dict[str, Any] = field(
        default_factory=lambda: {"_target_": "masa.algorithm.gates.PredictionGate"}
    )
    """`_target_`, a subclass of `masa.algorithm.gates.Gate`, and its own settings."""

    def __post_init__(self) -> None:
        require(
            0 <= self.min_precision <= 1,
            f"gate.min_precision is {self.min_precision}, it must lie in [0, 1]",
        )
        not_negative("gate.min_gain", self.min_gain)


@dataclass
class CutoffConfig:
    """Where solutions are stopped. In a config the cutoff's own settings stand beside these."""

    enabled: bool = False
    """False keeps the cutoff in shadow mode: its limits are recorded, not enforced."""
    max_lost: float = 1.0
    """The cutoff is active only while the measured share of correct answers it would lose is at
    most this; 1: whatever it is."""
    settings: dict[str, Any] = field(
        default_factory=lambda: {"_target_": "masa.algorithm.cutoffs.MeanLengthCutoff"}
    )
    """`_target_`, a subclass of `masa.algorithm.cutoffs.Cutoff`, and its own settings."""

    def __post_init__(self) -> None:
        require(0 <= self.max_lost <= 1, "cutoff.max_lost must lie in [0, 1]")


@dataclass
class ControlConfig:
    """When predictions begin to steer the rollouts, and how that is measured."""

    start_step: int = 80
    """k: gate, cutoff and hints are in shadow mode in rollouts 1..k, and may be active from k + 1
    on."""
    hint: bool = False
    """Append the predicted notions to the problem of the solution group."""
    audit_fraction: float = 0.05
    """Share of all prompts, drawn at random, that is rolled out at the full response limit whatever
    gate and cutoff decide: unbiased truth about both."""
    audit_trivial: float = 0.0
    """Share of the prompts skipped as trivial that is rolled out in full all the same, where it is
    more than audit_fraction: cheap, and what keeps a mastered skill and shows its loss."""
    audit_hopeless: float = 0.0
    """The same of prompts skipped as hopeless, which shows what has become learnable."""
    alarm: float = 1.0
    """Prompts skipped as trivial should have a mean pass rate near 1, as hopeless near 0. A kind is
    no longer skipped while the newest min_evidence of it that were rolled out all the same are
    further off than this, by a standard error; 1 is off. It is about all prompts of a kind: what
    changes for one value of gate.key alone, the gate itself lets through."""
    max_skipped: float = 1.0
    """Largest share of prompts that is skipped in the long run; the excess is rolled out in full,
    drawn at random."""
    adaptive: bool = False
    """Choose sigma and tolerance of gate=prediction while the run goes on: the largest saving whose
    loss, audited and by a standard error, is at most target_loss."""
    target_loss: float = 0.05
    """Largest share of the mixed groups that adaptive settings may have the gate skip."""
    window: int = 64
    """Newest outcomes from which precision and loss are measured."""
    min_evidence: int = 16
    """Outcomes needed before a measured requirement can be met."""
    count_skipped: bool = True
    """Skipped prompts count in the loss's mean like all without variance."""

    def __post_init__(self) -> None:
        require(self.start_step >= 0, f"control.start_step is {self.start_step}, it must be >= 0")
        for name in (
            "audit_fraction",
            "audit_trivial",
            "audit_hopeless",
            "alarm",
            "max_skipped",
            "target_loss",
        ):
            value = getattr(self, name)
            require(0 <= value <= 1, f"control.{name} is {value}, it must lie in [0, 1]")
        window_of("control.window", self.window)
        require(
            1 <= self.min_evidence <= self.window,
            "control.min_evidence must lie in [1, control.window]",
        )

    @property
    def audits_each_kind(self) -> bool:
        """True where some of all that is skipped is rolled out in full whatever audit_fraction."""
        return self.audit_trivial > 0 and self.audit_hopeless > 0


@dataclass
class SelectionConfig:
    """What takes the place of skipped prompts."""

    refill: bool = False
    """While the gate is active, further prompts are drawn and decided until
    trainer.prompts_per_rollout are let through. false, as in the paper: a skipped prompt leaves its
    place empty."""
    max_draws: int = 4
    """Draws of trainer.prompts_per_rollout prompts that a refilled rollout may take, its first
    included; with dynamic sampling each of its batches."""
    max_tokens: int | None = None
    """No further prompt is drawn once a rollout is expected to sample this many tokens: its
    predictions so far, and for each solution the cutoff's limit; with dynamic sampling one of its
    batches. null: no such bound."""

    def __post_init__(self) -> None:
        require(
            self.max_draws >= 1,
            f"selection.max_draws is {self.max_draws}, it must be >= 1",
        )
        require(
            self.max_tokens is None or self.max_tokens >= 1,
            f"selection.max_tokens is {self.max_tokens}, it must be >= 1 or null",
        )


@dataclass
class ObjectiveConfig:
    """Advantages, policy loss and what goes into it."""

    advantage: str = "grpo"
    """grpo, dr_grpo (no division by the standard deviation) or rloo (mean of the others)."""
    loss: str = "dapo"
    """grpo, dapo, dr_grpo, gspo or cispo: see masa/algorithm/losses.py."""
    eps_low: float = 0.2
    """See eps_high."""
    eps_high: float = 0.28
    """The probability ratio is clipped to [1 - eps_low, 1 + eps_high]; eps_low = 1 is no bound."""
    dual_clip: float = 10.0
    """Bound on the loss of a token with negative advantage, in units of `|A|`."""
    kl_beta: float = 0.0
    """Weight of the k3 estimate of KL(policy || initial policy); 0 keeps no reference model."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus on policy tokens; 0 computes no gradient of the entropy."""
    token_mean: str = "separate"
    """What the loss averages over (tokens or sequences). separate: each objective over its own;
    joint: solution and meta over all of theirs."""
    mask_overlong: bool = False
    """Completions that a token limit cut give no gradient; they still count in group and mean."""
    overlong_buffer: float = 0.0
    """Soft overlong penalty (DAPO): share of response_limit, at its end, over which the penalty on
    a solution rises linearly; 0 is off. The paper's 4096 of 20480 tokens are 0.2."""
    overlong_penalty: float = 0.5
    """The penalty at response_limit. DAPO's 1 on rewards of -1 and 1 is 0.5 on 0 and 1."""
    dynamic_sampling: int = 0
    """DAPO's dynamic sampling: solutions are trained on in groups of mixed verdicts alone, and up
    to this many further batches of prompts are rolled out until there are
    trainer.prompts_per_rollout such groups; 0 is off."""
    mismatch: str = "none"
    """Correction for engine log-probs that differ from the trainer's, by their ratio. none; tis:
    ratio truncated to the bounds, per token; icepop: ratio, 0 outside the bounds, per token;
    seq_mask: the same with the ratio of the whole sequence."""
    mismatch_low: float = 0.0
    """See mismatch_high."""
    mismatch_high: float = 2.0
    """Bounds of that ratio; mismatch_low = 0 is none. IcePop proposes 0.5 and 5."""

    def __post_init__(self) -> None:
        one_of("algorithm.advantage", self.advantage, ADVANTAGES)
        one_of("algorithm.loss", self.loss, ("grpo", "dapo", "dr_grpo", "gspo", "cispo"))
        require(0 <= self.eps_low <= 1, "algorithm.eps_low must lie in [0, 1]")
        require(self.eps_high >= 0, "algorithm.eps_high must be >= 0")
        require(self.dual_clip > 1, "algorithm.dual_clip must be > 1")
        for name in ("kl_beta", "entropy_coef", "overlong_penalty"):
            not_negative(f"algorithm.{name}", getattr(self, name))
        require(
            0 <= self.overlong_buffer <= 1,
            f"algorithm.overlong_buffer is {self.overlong_buffer}, it is a share of response_limit "
            "and must lie in [0, 1]",
        )
        require(self.dynamic_sampling >= 0, "algorithm.dynamic_sampling must be >= 0")
        one_of("algorithm.mismatch", self.mismatch, ("none", "tis", "icepop", "seq_mask"))
        require(
            0 <= self.mismatch_low <= 1 <= self.mismatch_high,
            f"algorithm.mismatch_low is {self.mismatch_low} and mismatch_high is "
            f"{self.mismatch_high}, they must enclose 1",
        )
        one_of("algorithm.token_mean", self.token_mean, ("separate", "joint"))


@dataclass
class AlgorithmConfig(ObjectiveConfig):
    """GRPO with meta-alignment, behaviour cloning, gating and cutoff."""

    name: str = "masa"
    """Name of the method in directories and reports."""
    group_size: int = 16
    """G, solutions per prompt."""
    prompt_limit: int = 2048
    """Largest prompt (tokens); problems that make a longer one are left out."""
    response_limit: int = 8192
    """Largest solution (tokens)."""
    temperature: float = 1.0
    """Sampling temperature; what learns is the policy at that temperature."""
    updates_per_rollout: int = 1
    """Optimizer steps per rollout; the prompts are split among them."""
    meta: MetaConfig = field(default_factory=MetaConfig)
    bc: BCConfig = field(default_factory=BCConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    cutoff: CutoffConfig = field(default_factory=CutoffConfig)
    control: ControlConfig = field(default_factory=ControlConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.group_size >= 2,
            f"algorithm.group_size is {self.group_size}, a group needs at least 2 solutions",
        )
        require(self.prompt_limit >= 1, "algorithm.prompt_limit must be >= 1")
        require(self.response_limit >= 1, "algorithm.response_limit must be >= 1")
        positive("algorithm.temperature", self.temperature)
        require(self.updates_per_rollout >= 1, "algorithm.updates_per_rollout must be >= 1")
        uses = {
            "control.hint": self.control.hint,
            "bc.mode": self.bc.mode != "off",
        }
        require(
            self.gate.enabled or not self.selection.refill,
            "algorithm.selection.refill replaces skipped prompts, but gate.enabled is false",
        )
        for name, used in uses.items():
            require(
                not used or self.meta.enabled,
                f"algorithm.{name} needs predictions, but meta.enabled is false",
            )
        require(
            self.bc.mode == "off"
            or self.bc.target != "overwritten"
            or "notion" in (component.name for component in self.meta.components),
            f"algorithm.bc.mode is {self.bc.mode}, which chooses by the reward notion: keep "
            "algorithm.meta.rewards.notion (weight=0 has it measured only), or set bc.target=best",
        )
        require(
            not self.meta.enabled or self.meta.min_length <= self.response_limit,
            f"meta.min_length {self.meta.min_length} is over response_limit {self.response_limit}",
        )

    @property
    def steers(self) -> bool:
        """True where predictions are to steer the rollouts after `control.start_step`."""
        return self.gate.enabled or self.cutoff.enabled or self.control.hint


@dataclass
class TaskConfig:
    """How solutions are rewarded. In a config the task's own settings stand beside these."""

    correct_at: float = 1.0
    """A solution is correct from this score on, where the task scores in [0, 1]; pass rates,
    variance, meta rewards and experts go by that alone, the advantage by the score."""
    rewards: dict[str, Any] = field(default_factory=dict)
    """Further rewards of a solution by name, added to its score: `_target_`, a function with the
    signature of TRL's `reward_funcs`; `weight` in the sum, where 0 has it measured only; and other
    settings of the function."""
    reward_format: str = "auto"
    """What these functions get as prompts and completions. text; messages: chat messages; auto:
    messages where the tokenizer has a chat template."""
    reward_seconds: float = 600.0
    """Time limit of each of them for the solutions of a rollout (seconds)."""
    settings: dict[str, Any] = field(default_factory=dict)
    """`_target_`, a class like `masa.tasks.base.Task`, and its own settings."""

    def __post_init__(self) -> None:
        require(
            0 < self.correct_at <= 1,
            f"task.correct_at is {self.correct_at}, it must lie in (0, 1]",
        )
        one_of("task.reward_format", self.reward_format, ("auto", "text", "messages"))
        positive("task.reward_seconds", self.reward_seconds)


@dataclass
class OptimizerConfig:
    """AdamW, with linear warm-up of the learning rate."""

    lr: float = 1e-6
    """Learning rate after the warm-up."""
    weight_decay: float = 0.1
    """Of AdamW."""
    beta1: float = 0.9
    """Decay of AdamW's mean of gradients."""
    beta2: float = 0.999
    """Decay of AdamW's mean of squared gradients."""
    schedule: str = "constant"
    """Learning rate after the warm-up: constant, linear or cosine. The last two fall to zero over
    the run, so that its length cannot change on resume."""
    warmup_steps: int = 20
    """Rollouts over which the learning rate rises."""
    grad_clip: float = 1.0
    """Largest global gradient norm."""

    def __post_init__(self) -> None:
        positive("optimizer.lr", self.lr)
        not_negative("optimizer.weight_decay", self.weight_decay)
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            require(0 <= value < 1, f"optimizer.{name} is {value}, it must lie in [0, 1)")
        one_of("optimizer.schedule", self.schedule, ("constant", "linear", "cosine"))
        require(self.warmup_steps >= 0, "optimizer.warmup_steps must be >= 0")
        require(self.grad_clip > 0, "optimizer.grad_clip must be > 0")


@dataclass
class TrainerConfig:
    """Length of the run, its validation and its layout on the machine."""

    max_rollouts: int = 314
    """Rollouts (steps of the algorithm) in the run."""
    prompts_per_rollout: int = 128
    """Prompts of a rollout, over all devices."""
    val_every: int = 10
    """Rollouts between validations; one more comes before the first and after the last."""
    val_samples: int = 4
    """k of avg@k: solutions per held-out prompt."""
    val_meta_samples: int = 4
    """Meta predictions per held-out prompt; 0 leaves meta-alignment unmeasured."""
    checkpoint_every: int = 50
    """Rollouts between checkpoints; one more comes at the end. The newest two are kept."""
    log_every: int = 1
    """Rollouts between what W&B and TensorBoard get; the last is among it. metrics.csv has all
    rollouts of masa-train, and of masa-sft the same steps."""
    report: bool = True
    """Write the report of the run at its end; masa-train alone has one."""
    show_every: int = 0
    """Rollouts between tables of some completions and predictions on the console, and in W&B; 0
    shows none."""
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
    record_tokens: bool = False
    """Keep token ids and log-probs of all completions in the parquet files, so that the run can be
    played once more (engine=recorded)."""
    max_nonfinite_updates: int = 5
    """Updates in a row whose loss or gradient is not finite, each skipped, that end the run."""

    def __post_init__(self) -> None:
        for name in (
            "max_rollouts",
            "prompts_per_rollout",
            "val_every",
            "checkpoint_every",
            "log_every",
            "micro_batch_tokens",
            "max_nonfinite_updates",
        ):
            value = getattr(self, name)
            require(value >= 1, f"trainer.{name} is {value}, it must be >= 1")
        require(self.show_every >= 0, f"trainer.show_every is {self.show_every}, it must be >= 0")
        require(
            self.val_samples >= 2,
            f"trainer.val_samples is {self.val_samples}, a group needs at least 2 solutions",
        )
        require(
            self.val_meta_samples >= 0 and self.val_meta_samples != 1,
            f"trainer.val_meta_samples is {self.val_meta_samples}, it must be 0 or >= 2",
        )
        require(self.logprob_tolerance > 0, "trainer.logprob_tolerance must be > 0")
        require(self.logprob_mean_tolerance > 0, "trainer.logprob_mean_tolerance must be > 0")
        one_of("trainer.packing", self.packing, ("auto", "padded", "packed"))
        one_of("trainer.accelerator", self.accelerator, ("auto", "cpu", "gpu", "cuda", "mps"))
        one_of("trainer.precision", self.precision, ("32-true", "bf16-mixed"))
        require(self.keep_best >= 0, f"trainer.keep_best is {self.keep_best}, it must be >= 0")


@dataclass
class StrategyConfig:
    """How the policy lies on the devices."""

    name: str = "single"
    """single (one device), fsdp (FSDP2 over all devices) or ddp (a whole copy of the parameters on
    each device)."""
    devices: int = 1
    """Devices per node."""
    num_nodes: int = 1
    """Nodes, each with `devices` devices."""
    fsdp_size: int | None = None
    """Devices that hold one copy of the parameters between them; null: all. With fewer, copies are
    kept equal by an all-reduce (hybrid sharding), best one copy per node."""
    cpu_offload: bool = False
    """Keep parameters, gradients and optimizer state in CPU memory (ddp and fsdp)."""

    def __post_init__(self) -> None:
        one_of("strategy.name", self.name, ("single", "fsdp", "ddp"))
        require(self.devices >= 1, "strategy.devices must be >= 1")
        require(self.num_nodes >= 1, "strategy.num_nodes must be >= 1")
        require(
            self.distributed or self.devices * self.num_nodes == 1,
            f"strategy=single is one device, not {self.devices * self.num_nodes}: use fsdp",
        )
        require(
            self.name == "fsdp" or self.fsdp_size is None, "strategy.fsdp_size needs strategy=fsdp"
        )
        require(
            self.distributed or not self.cpu_offload,
            "strategy.cpu_offload needs strategy=fsdp or ddp",
        )
        require(
            self.shards >= 1 and self.world_size % self.shards == 0,
            f"strategy.fsdp_size is {self.fsdp_size}, it must divide the {self.world_size} devices",
        )

    @property
    def distributed(self) -> bool:
        """True where there is a process per device, each with parameters under FSDP2."""
        return self.name != "single"

    @property
    def world_size(self) -> int:
        """Devices of all nodes."""
        return self.devices * self.num_nodes

    @property
    def shards(self) -> int:
        """Devices that hold one copy of the parameters."""
        if self.name == "ddp":
            return 1
        return self.world_size if self.fsdp_size is None else self.fsdp_size


@dataclass
class SweepConfig:
    """The sweep (`masa-train -m`) that a run is part of."""

    name: str | None = None
    """W&B groups by it."""
    resume: bool = False
    """Leave out jobs that are finished and resume the others."""
    baseline: str | None = None
    """`algorithm.name` that `masa-report` compares the others with; null: grpo, or the first."""


@dataclass(kw_only=True)
class FitConfig:
    """What `masa-train` and `masa-sft` share. Nodes of type Any are built by Hydra from their
    `_target_`."""

    unit: ClassVar[str] = "step"
    """What a step of the run is called."""
    algorithm: AlgorithmConfig
    optimizer: OptimizerConfig
    trainer: TrainerConfig
    strategy: StrategyConfig
    task: TaskConfig
    model: Any
    engine: Any
    logger: Any
    output_dir: str
    sweep: SweepConfig = field(default_factory=SweepConfig)
    seed: int = 0
    """Of prompts, samples, audits, the gate's draws, and the order of demonstrations."""
    allow_special_tokens: bool = False
    """Read special tokens in a problem's text as such; else they are words like others."""
    ckpt: str | None = None
    """null: a new run; last: resume in `output_dir`; auto: resume where there is a checkpoint, else
    afresh; best: go back to the best of `output_dir`; a path: resume from that checkpoint."""
    name: str = "masa"
    """Name of the experiment, a part of the default run directory."""

    def __post_init__(self) -> None:
        seed_of("seed", self.seed)
        engine_values(self.engine)
        for name in ("allow_unsafe_execution", "allow_special_tokens", "plan"):
            value = getattr(self, name, False)
            require(type(value) is bool, f"{name} is {value!r}, it must be true or false")
        for name in ("output_dir", "name", "ckpt"):
            value = getattr(self, name)
            is_text = isinstance(value, str) or (name == "ckpt" and value is None)
            require(is_text, f"{name} is {value!r}, it must be a text")
        warmup = self.optimizer.warmup_steps
        require(
            self.optimizer.schedule == "constant" or warmup < self.trainer.max_rollouts,
            f"optimizer.warmup_steps is {warmup}, but the run has only {self.trainer.max_rollouts} "
            f"{self.unit}s: the {self.optimizer.schedule} schedule would never start",
        )
        shortest = self.algorithm.meta.min_length
        require(
            self.trainer.val_meta_samples == 0 or shortest <= self.algorithm.response_limit,
            f"meta.min_length {shortest} is over response_limit {self.algorithm.response_limit}, "
            "but trainer.val_meta_samples asks for predictions",
        )
        world = self.strategy.world_size
        require(
            world % self.ranks_per_engine == 0,
            f"engine.tensor_parallel_size is {self.ranks_per_engine}, it must divide the {world} "
            "devices",
        )

    @property
    def uses_engine(self) -> bool:
        """Whether the run samples."""
        return True

    @property
    def response_limits(self) -> dict[str, int]:
        """Tokens of the longest responses, by setting: predictions count where any are sampled."""
        limits = {"algorithm.response_limit": self.algorithm.response_limit}
        if self.algorithm.meta.enabled or self.trainer.val_meta_samples > 0:
            limits["algorithm.meta.response_limit"] = self.algorithm.meta.response_limit
        return limits

    @property
    def ranks_per_engine(self) -> int:
        """Devices over which one engine lies."""
        return int((self.engine or {}).get("tensor_parallel_size", 1))


@dataclass(kw_only=True)
class RunConfig(FitConfig):
    """One run of `masa-train`."""

    unit: ClassVar[str] = "rollout"
    sampler: Any
    benchmark: Any = field(default_factory=dict)
    """Benchmarks of `conf/benchmark` that validation asks as well, by name."""
    allow_unsafe_execution: bool = False
    """Run programs that a benchmark of `benchmark` asks for where there is no sandbox."""
    plan: bool = False
    """Print the memory per device and the tokens per step that the run would take, and end."""

    def __post_init__(self) -> None:
        super().__post_init__()
        gate, cutoff, control = (getattr(self.algorithm, n) for n in ("gate", "cutoff", "control"))
        # of kept prompts the cutoff leaves audits alone uncut
        weighed = control.audits_each_kind and not cutoff.enabled
        measured = {
            "gate.min_precision": gate.enabled and gate.min_precision > 0,
            "gate.min_gain": gate.enabled and gate.min_gain > 0 and not weighed,
            "control.adaptive": gate.enabled and control.adaptive and not weighed,
            "control.alarm": gate.enabled and control.alarm < 1 and not control.audits_each_kind,
            "cutoff.max_lost": cutoff.enabled and cutoff.max_lost < 1,
        }
        needing = [name for name, needed in measured.items() if needed]
        require(
            not needing or control.audit_fraction > 0,
            "algorithm.control.audit_fraction is 0, and without audits there is no evidence for "
            f"{' and '.join(needing)}: set it above 0, or leave out what needs it",
        )
        require(
            not self.algorithm.steers
            or self.algorithm.control.start_step < self.trainer.max_rollouts,
            f"algorithm.control.start_step is {self.algorithm.control.start_step}, but the run has "
            f"only {self.trainer.max_rollouts} rollouts: control would never start",
        )
        world = self.strategy.world_size
        require(
            self.trainer.prompts_per_rollout % world == 0,
            f"trainer.prompts_per_rollout is {self.trainer.prompts_per_rollout}, it must be "
            f"divisible by the {world} devices",
        )
        require(
            self.trainer.prompts_per_rollout // world >= self.algorithm.updates_per_rollout,
            "algorithm.updates_per_rollout is more than there are prompts per device",
        )
        taken = sorted({"train", "val", "meta", "unseen"} & set(self.benchmark or {}))
        require(
            not taken,
            f"a benchmark cannot be called {', '.join(taken)}: files or metrics of the run's own "
            "problems are called so",
        )


@dataclass
class DemonstrationConfig:
    """What `masa-sft` learns from."""

    source: str = "task"
    """Where solutions come from. task: of its data or its own; self: the model's own samples that
    the verifier accepts."""
    steps: int = 500
    """Optimizer steps of the run."""
    batch_size: int = 32
    """Demonstrations per step, over all devices."""
    limit: int | None = None
    """Solutions to learn from at most; null: one for each demonstration of the run."""
    hinted: float = 0.1
    """Share of the solutions whose prompt has a hint of random notions."""
    predictions: float = 0.15
    """Share of the demonstrations that are predictions, whose numbers and notions are random."""
    mixed_predictions: float | None = None
    """Share of the predictions that have the field `mixed` of `algorithm.meta.predict_mixed`, and
    the prompt that asks for it; null: all where that is true, else none."""
    lengths: str = "demonstrations"
    """What predicted lengths are drawn from, whatever the problem: demonstrations (the lengths of
    the solutions within the range that may be predicted; where that is less than half of them,
    uniform) or uniform (that range, even in the logarithm)."""
    notions: list[str] = field(default_factory=list)
    """What notions are drawn from; empty: a list of the task's, else frequent words of all the
    solutions. Those that stand in the problem are left out."""
    samples: int = 4
    """Solutions that source=self samples per prompt."""
    keep: int = 1
    """Accepted ones of them that are learned from at most, per prompt."""
    held_out: int = 64
    """Demonstrations that are left out of the training, for val/loss; 0: none."""
    table: bool = False
    """Sample the held-out prompts at the end, trainer.val_samples each, and print accuracy and
    predictions per level."""

    def __post_init__(self) -> None:
        one_of("sft.source", self.source, ("task", "self"))
        one_of("sft.lengths", self.lengths, ("demonstrations", "uniform"))
        for name in ("steps", "batch_size", "samples", "keep"):
            value = getattr(self, name)
            require(value >= 1, f"sft.{name} is {value}, it must be >= 1")
        require(
            self.limit is None or self.limit >= 1, f"sft.limit is {self.limit}, it must be >= 1"
        )
        require(self.held_out >= 0, f"sft.held_out is {self.held_out}, it must be >= 0")
        for name in ("hinted", "predictions", "mixed_predictions"):
            share = getattr(self, name)
            require(
                share is None or 0 <= share <= 1, f"sft.{name} is {share}, it must lie in [0, 1]"
            )


@dataclass(kw_only=True)
class SftConfig(FitConfig):
    """One run of `masa-sft`."""

    sft: DemonstrationConfig = field(default_factory=DemonstrationConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.sft.source == "task" or self.ranks_per_engine == 1,
            "sft.source=self samples on one device: set engine.tensor_parallel_size=1",
        )
        require(
            not self.sft.table or self.strategy.world_size == 1,
            f"sft.table samples on one device, not {self.strategy.world_size}: set sft.table=false",
        )
        require(
            self.trainer.max_rollouts == self.sft.steps,
            f"trainer.max_rollouts is {self.trainer.max_rollouts}, but the length of masa-sft is "
            f"sft.steps={self.sft.steps}: set that alone",
        )

    @property
    def uses_engine(self) -> bool:
        """Whether the run samples."""
        return self.sft.table or self.sft.source == "self"

    @property
    def response_limits(self) -> dict[str, int]:
        """As of a run; predictions are sampled for the table alone."""
        limits = super().response_limits
        if not self.sft.table or self.trainer.val_meta_samples == 0:
            limits.pop("algorithm.meta.response_limit", None)
        return limits


T = TypeVar("T", bound=FitConfig)


def load(cfg: DictConfig) -> RunConfig:
    """Turn a composed Hydra config of `masa-train` into checked settings.

    Raises:
        ConfigError: as `load_as`.
    """
    return load_as(RunConfig, cfg)


def load_as(schema: type[T], cfg: DictConfig) -> T:
    """Turn a composed Hydra config into checked settings.

    Raises:
        ConfigError: one line, for an unknown key, a value of the wrong type or an impossible one.
    """
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    plain.pop("hydra", None)
    names = {f.name for f in fields(schema)}
    unknown = sorted(str(key) for key in plain if key not in names)
    require(not unknown, f"unknown key {', '.join(unknown)}; known are {', '.join(sorted(names))}")
    unset = sorted(key for key in OmegaConf.missing_keys(cfg) if not key.startswith("hydra."))
    require(not unset, f"{', '.join(unset)}: there is no default, give a value")
    for key in _dotted_keys(plain):
        renamed = new_name(key)
        require(not renamed, str(renamed))
    hints = get_type_hints(schema)
    for key in (f.name for f in fields(schema) if is_dataclass(hints[f.name])):
        group = hints[key]
        section = plain.get(key) or {}
        require(isinstance(section, dict), f"{key} is {section!r}, it must be a group of settings")
        defaults = OmegaConf.structured(group)
        if key == "algorithm":
            section, defaults = _with_plugins(section, defaults)
        if key == "task":
            section = with_settings(section, group)
        try:
            plain[key] = OmegaConf.to_object(OmegaConf.merge(defaults, escaped(section)))
        except OmegaConfBaseException as error:
            message = new_name(f"{key}.{error.full_key}") or str(error).splitlines()[0]
            raise ConfigError(f"{key}: {message}") from error
    missing = sorted(
        f.name
        for f in fields(schema)
        if f.default is MISSING and f.default_factory is MISSING and f.name not in plain
    )
    require(not missing, f"missing key {', '.join(missing)}")
    return schema(**{str(key): value for key, value in plain.items()})


def _dotted_keys(node: dict[Any, Any], prefix: str = "") -> Iterator[str]:
    for name, value in node.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _dotted_keys(value, f"{prefix}{name}.")


def _with_plugins(section: dict[str, Any], defaults: Any) -> tuple[dict[str, Any], Any]:
    """The algorithm's settings with those of gate and cutoff under `settings`, and defaults
    without the plug-ins that it names itself, which a merge would bring back."""
    section = dict(section)
    for name, schema in (("gate", GateConfig), ("cutoff", CutoffConfig)):
        node = section.get(name)
        if isinstance(node, dict) and "_target_" in node:
            section[name] = with_settings(node, schema)
            defaults[name].settings = {}
    if "rewards" in (section.get("meta") or {}):
        defaults.meta.rewards = {}
    return section, defaults


def with_settings(node: dict[str, Any], schema: type) -> dict[str, Any]:
    """A node's settings with those that `schema` does not have under `settings`."""
    own = {f.name for f in fields(schema)} - {"settings"}
    rest = {key: value for key, value in node.items() if key not in own}
    return {key: value for key, value in node.items() if key in own} | {"settings": rest}


def new_name(text: str) -> str | None:
    """What a setting or option that the text names is called now; None where it names none of
    before."""
    for old, new in (RENAMED | RENAMED_OPTIONS).items():
        if re.search(rf"\b{re.escape(old)}\b", text):
            return f"{old} is called {new} now"
    return None
