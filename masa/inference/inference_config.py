"""Typed settings of `masa-predict` and `masa-solve`, and of policies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from masa.errors import engine_values, one_of, positive, require, seed_of

VERIFIERS = ("math", "choice")


@dataclass
class PolicyConfig:
    """How much is spent on a problem. In a config the policy's own settings stand beside these."""

    abstain: float = 0.0
    """A problem stays unanswered where the confidence in its answer is below this."""
    meta_samples: int = 2
    """M, predictions per problem, of a policy that goes by predictions."""
    settings: dict[str, Any] = field(
        default_factory=lambda: {"_target_": "masa.inference.policies.CombinedPolicy"}
    )
    """`_target_`, a subclass of `masa.inference.policies.Policy`, and its own settings."""

    def __post_init__(self) -> None:
        require(0 <= self.abstain <= 1, f"solve.abstain is {self.abstain}, it must lie in [0, 1]")
        require(
            self.meta_samples >= 1, f"solve.meta_samples is {self.meta_samples}, it must be >= 1"
        )


@dataclass
class InferenceConfig:
    """Settings that `masa-predict` and `masa-solve` share. Nodes of type Any are built by Hydra."""

    output_dir: str
    model: Any
    engine: Any
    templates: Any
    """Prompts for a model that is no run; a run has those of its task."""
    problems: str | None = None
    """A file (.jsonl, .json, .parquet, .csv, or .txt with a problem per line), `-` for standard
    input, or the text of one problem."""
    column: str = "problem"
    """Column of a file that has the problems."""
    out: str | None = None
    """File for the results (.jsonl, .csv or .parquet), or `-` for JSON lines on standard output;
    null prints a table."""
    temperature: float = 1.0
    """Sampling temperature; the default for a run of masa-train is its own setting."""
    max_tokens: int = 16384
    """Largest solution (tokens); default as for `temperature`."""
    meta_max_tokens: int = 8192
    """Largest prediction (tokens); default as for `temperature`."""
    min_length: int = 128
    """Smallest solution length that may be predicted (tokens); default as for `temperature`."""
    predict_mixed: bool = False
    """Ask for the field `mixed` as well; default as for `temperature`."""
    group_size: int = 16
    """G: that field is the probability that of G solutions some are right and some wrong; default
    as for `temperature`."""
    seed: int = 0
    """Of the samples."""
    batch: int = 128
    """Completions between two saves: at most these are lost when the process is killed."""
    allow_special_tokens: bool = False
    """Read special tokens in a problem's text as such; else as ordinary text."""

    def __post_init__(self) -> None:
        names = ("max_tokens", "meta_max_tokens", "min_length", "group_size", "batch")
        for name in names:
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}, it must be >= 1")
        positive("temperature", self.temperature)
        seed_of("seed", self.seed)
        engine_values(self.engine)
        require(
            self.min_length <= self.max_tokens,
            f"min_length {self.min_length} is over max_tokens {self.max_tokens}",
        )

    @property
    def mixed_of(self) -> int | None:
        """G, where predictions are asked for the field `mixed`; else None."""
        return self.group_size if self.predict_mixed else None


@dataclass
class PredictConfig(InferenceConfig):
    """Settings of `masa-predict`."""

    meta_samples: int = 8
    """M, predictions per problem."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.meta_samples >= 1, f"meta_samples is {self.meta_samples}, it must be >= 1")


@dataclass
class SolveConfig(InferenceConfig):
    """Settings of `masa-solve`."""

    solve: Any = None
    """The policy; see `PolicyConfig`."""
    budget: int | None = None
    """Tokens per problem, on average over the problems and those of predictions included, that are
    never exceeded; null: as many as the policy wants."""
    verifier: str = "math"
    """What holds two answers equal, of a model that is no run: math (the last \\boxed{}) or choice
    (a letter)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("verifier", self.verifier, VERIFIERS)
        require(
            self.budget is None or self.budget >= 1, f"budget is {self.budget}, it must be >= 1"
        )
