"""Typed settings of `masa-eval`: `conf/evaluate.yaml` and `conf/benchmark/*.yaml`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from masa.errors import ConfigError, engine_values, not_negative, one_of, positive, require, seed_of
from masa.plugins import escaped
from masa.run_config import run_config

T = TypeVar("T")

COLUMNS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "math": (("question", "answer"), ()),
    "number": (("question", "answer"), ("unit",)),
    "choice": (("question", "options", "answer"), ("context", "labels")),
    "function": (("question",), ("examples", "solution")),
    "program": (("question",), ("starter",)),
    "output": (("code", "input", "answer"), ()),
}
"""Per template the required and the optional columns; `id` and `group` are optional for all."""
SCORERS = {
    "math": ("math",),
    "number": ("number",),
    "choice": ("choice",),
    "function": ("mbpp", "humaneval"),
    "program": ("livecodebench",),
    "output": ("literal",),
}
"""Per template the scorers that can judge it."""


@dataclass
class BenchmarkConfig:
    """One benchmark: source, meaning of the columns, and scorer."""

    name: str
    """Its key under `benchmark`."""
    domain: str
    """math, logic, science or code: benchmarks of one domain share a macro-average."""
    source: str
    """Hugging Face data set, or address of a JSON file."""
    size: int
    """Published number of rows; another number is marked beside the score."""
    template: str
    """How a question is asked: math, number, choice, function, program or output."""
    scorer: str
    """What judges the answers; each template has its own."""
    columns: dict[str, Any]
    """Names of the template -> the source's columns. `a.b` is a nested column, `a | b` the first
    that exists; options may be a list of columns, one per option. Tests of code are read from the
    columns as published."""
    subset: str | None = None
    """Configuration of the data set, where it has several."""
    split: str = "test"
    """Split of the data set."""
    revision: str = "main"
    """Branch, tag or commit of the data set."""
    files: list[str] = field(default_factory=list)
    """Files to read from the data set's repository, where `datasets` cannot load it."""
    path: str | None = None
    """Local file of the same columns (.json, .jsonl, .parquet, .csv) instead of the source."""
    gated: bool = False
    """The source's terms must be accepted before a download."""
    shuffle: bool = False
    """Shuffle the options, by a seed per item."""
    exclude: list[str] = field(default_factory=list)
    """Questions left out of the score: an id, or a text that occurs in the question alone."""
    demonstrations: str = ""
    """Solved examples before every question."""

    def __post_init__(self) -> None:
        where = f"benchmark.{self.name}"
        one_of(f"{where}.template", self.template, tuple(COLUMNS))
        scorers = SCORERS[self.template]
        require(
            self.scorer in scorers,
            f"{where}.scorer is {self.scorer!r}, with template {self.template} it must be "
            f"{' or '.join(scorers)}",
        )
        needed, usable = COLUMNS[self.template]
        missing = [name for name in needed if not self.columns.get(name)]
        require(not missing, f"{where}.columns names no {', '.join(missing)}")
        unknown = sorted(set(self.columns) - {*needed, *usable, "id", "group"})
        require(not unknown, f"{where}.columns: template {self.template} has no use for {unknown}")
        require(self.size >= 1, f"{where}.size is {self.size}, it must be >= 1")


@dataclass
class EvaluationConfig:
    """Settings of sampling and of the report. Nodes of type Any are built by Hydra."""

    output_dir: str
    model: Any
    engine: Any
    templates: Any
    """Prompts of predictions and of mathematical problems."""
    benchmark: dict[str, Any]
    n: int = 32
    """Solutions per question."""
    k: list[int] = field(default_factory=lambda: [1, 8])
    """pass@k is reported for each."""
    temperature: float = 0.6
    """Sampling temperature."""
    max_tokens: int = 16384
    """Largest solution (tokens); the default for a run of masa-train is its own setting."""
    seed: int = 0
    """Of the samples."""
    limit: int | None = None
    """Only the first questions of every benchmark, for a trial."""
    batch: int = 128
    """Completions between two saves: at most these are lost when the process is killed."""
    meta: bool = False
    """Also sample predictions and report their calibration."""
    meta_samples: int = 8
    """M, predictions per question."""
    meta_max_tokens: int = 8192
    """Largest prediction (tokens); default as for `max_tokens`."""
    min_length: int = 128
    """Smallest solution length that may be predicted (tokens); default as for `max_tokens`."""
    predict_mixed: bool = False
    """Ask for the field `mixed` as well (`algorithm.meta.predict_mixed`); default as for
    `max_tokens`, and false for any other model."""
    group_size: int = 16
    """G: that field is the probability that of G solutions some are right and some wrong; default
    as for `max_tokens`."""
    sigma: float = 0.1
    """The gate whose precision and recall are reported."""
    min_mixed: float = 0.12
    """A gate by the field `mixed` whose precision and recall are reported: it skips where the mean
    prediction is below this."""
    allow_unsafe_execution: bool = False
    """Run generated programs where there is no sandbox."""
    allow_special_tokens: bool = False
    """Read special tokens in a question's text as such; else as ordinary text."""
    solve: dict[str, Any] = field(default_factory=dict)
    """Policies of `masa-solve` to compare at equal tokens, on the same samples."""
    compare: list[str] = field(default_factory=list)
    """Two evaluation directories to compare instead of sampling."""

    def __post_init__(self) -> None:
        if self.compare:
            require(
                len(self.compare) == 2, f"compare takes two directories, not {len(self.compare)}"
            )
            return
        for name in ("n", "max_tokens", "batch", "meta_max_tokens", "min_length", "group_size"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}, it must be >= 1")
        require(
            self.limit is None or self.limit >= 1, f"limit is {self.limit}, it must be >= 1 or null"
        )
        seed_of("seed", self.seed)
        engine_values(self.engine)
        positive("temperature", self.temperature)
        require(len(self.k) > 0 and min(self.k) >= 1, f"k is {self.k}, it must list numbers >= 1")
        require(len({*self.k}) == len(self.k), f"k is {self.k}, it must list each number once")
        require(
            max(self.k) <= self.n,
            f"pass@{max(self.k)} needs n >= {max(self.k)} samples per question, n is {self.n}",
        )
        not_negative("sigma", self.sigma)
        require(0 <= self.min_mixed <= 1, f"min_mixed is {self.min_mixed}, it must lie in [0, 1]")
        if self.meta:
            require(
                self.n >= 2 and self.meta_samples >= 2,
                "meta=true compares groups: it needs n >= 2 and meta_samples >= 2",
            )
            require(
                self.min_length <= self.max_tokens,
                f"min_length {self.min_length} is over max_tokens {self.max_tokens}",
            )
            require(
                self.mixed_of is None or 2 <= self.mixed_of <= self.n,
                f"predict_mixed is about groups of group_size={self.group_size} solutions, which "
                f"must lie in [2, n], and n is {self.n}: set n or predict_mixed=false",
            )
        require(
            bool(self.benchmark), "name what to evaluate, as in benchmark=aime25,math500 or math"
        )

    @property
    def mixed_of(self) -> int | None:
        """G, where predictions are asked for the field `mixed`; else None."""
        return self.group_size if self.meta and self.predict_mixed else None


def is_run(model: str) -> bool:
    """True where `model` is the directory of a run."""
    # pathlib would raise for a name that is too long
    folder = os.path.expanduser(model)
    is_model = os.path.isfile(os.path.join(folder, "config.json"))
    return not is_model and os.path.isfile(os.path.join(folder, "config.yaml"))


def of_run(model: str | None, setting: str, default: int) -> int:
    """A setting of the evaluated run, a number or true or false; `default` where the model is no
    run, or one of before there was the setting."""
    if model is None or not is_run(model):
        return default
    cfg = run_config(Path(model))
    if "algorithm" not in cfg:
        raise ConfigError(f"{model}/config.yaml has no algorithm: it is no run of masa-train")
    return type(default)(OmegaConf.select(cfg, setting, default=default))


def file_name(model: str | None) -> str:
    """A model's name as a folder name: the last two parts of a path, or the hub id."""
    parts = [part for part in str(model or "no-model").split("/") if part not in ("", ".", "..")]
    return re.sub(r"[^\w.-]", "_", "--".join(parts[-2:]))


# used in conf/evaluate.yaml
OmegaConf.register_new_resolver("of_run", of_run, replace=True)
OmegaConf.register_new_resolver("file_name", file_name, replace=True)


def load(cfg: DictConfig) -> EvaluationConfig:
    """Settings of `masa-eval`; ConfigError as for `load_settings`."""
    return load_settings(EvaluationConfig, cfg)


def load_settings(schema: type[T], cfg: DictConfig) -> T:
    """Turn a composed Hydra config into checked settings.

    Raises:
        ConfigError: one line with the setting to change.
    """
    settings = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(settings, dict)
    return typed(schema, {str(k): v for k, v in settings.items() if k != "hydra"}, "")


def load_benchmark(name: str, settings: Mapping[str, Any]) -> BenchmarkConfig:
    """Settings of one benchmark; ConfigError as for `load`."""
    return typed(BenchmarkConfig, {"name": name, **settings}, f"benchmark.{name}.")


def typed(schema: type[T], settings: Mapping[str, Any], prefix: str) -> T:
    """A dataclass of plain settings, which messages name with a prefix; ConfigError as above."""
    declared: Any = fields(schema)  # type: ignore[arg-type]
    by_name = {f.name: f for f in declared}
    unknown = sorted(set(settings) - set(by_name))
    require(not unknown, f"there is no setting {prefix}{', '.join(unknown)}")
    needed = [
        name
        for name, f in by_name.items()
        if f.default is MISSING and f.default_factory is MISSING and name not in settings
    ]
    require(not needed, f"missing setting {prefix}{', '.join(needed)}")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), escaped(settings))
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{prefix}{str(error).splitlines()[0]}") from error
    assert isinstance(config, schema)
    return config
