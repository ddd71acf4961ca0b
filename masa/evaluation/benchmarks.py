"""Benchmarks: loaded questions, their prompt templates and their scorer."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from masa.errors import ConfigError, require
from masa.evaluation.eval_config import BenchmarkConfig, is_run, load_benchmark
from masa.evaluation.items import Item, make_items
from masa.evaluation.prompts import wrap
from masa.evaluation.scoring import (
    ChoiceScorer,
    LiteralScorer,
    MathScorer,
    NumberScorer,
    ProgramScorer,
    Scorer,
    TaskScorer,
)
from masa.plugins import escaped, refusing
from masa.run_config import run_config
from masa.tasks.build import build_task
from masa.tasks.sources import READERS, Row, Source
from masa.tasks.templates import Templates
from masa.types import Prompt

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Benchmark:
    """One benchmark, loaded."""

    name: str
    domain: str
    items: Sequence[Item]
    templates: Templates
    scorer: Scorer
    published: int
    """Published number of rows."""
    rows: int
    """Number of rows in the source."""
    rule: str = ""
    """Rule of making and judging questions: template, scorer and column of the options' labels."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """Source of the rows, and its revision or path."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Ids of rows that no answer could pass, and the reason; they are not in the score."""

    @property
    def prompts(self) -> list[Prompt]:
        """The questions."""
        return [item.prompt for item in self.items]

    def digests(self) -> dict[str, str]:
        """Per question a digest of its text, its gold answer, the instruction and the rule."""
        return {
            item.prompt.id: hashlib.blake2b(
                "\x1f".join(
                    [self.rule, self.templates.solution, item.prompt.problem, repr(item.gold)]
                ).encode(),
                digest_size=8,
            ).hexdigest()
            for item in self.items
        }

    def verify(self, answers: Sequence[tuple[Prompt, str]]) -> list[bool]:
        """Verdicts on (prompt, response) pairs; see `Task.verify`."""
        by_id = {item.prompt.id: item for item in self.items}
        verdicts = self.scorer.judge([(by_id[prompt.id], text) for prompt, text in answers])
        return [verdict.correct for verdict in verdicts]


def load_benchmarks(
    configs: Mapping[str, Any],
    templates: Templates,
    limit: int | None = None,
    allow_unsafe_execution: bool = False,
) -> list[Benchmark]:
    """Benchmarks of `conf/benchmark`.

    Args:
        configs: settings by name.
        templates: prompts of predictions and of mathematical problems.
        limit: only the first questions of each.
        allow_unsafe_execution: run generated programs where there is no sandbox.

    Raises:
        ConfigError: a source cannot be read, or programs would have to run without a sandbox.
    """
    return [
        _load(name, settings, templates, limit, allow_unsafe_execution)
        for name, settings in configs.items()
    ]


def check_benchmarks(configs: Mapping[str, Any]) -> None:
    """Raise ConfigError for settings that `load_benchmarks` would refuse."""
    for name, settings in configs.items():
        if "run" in settings:
            _task_of_run(name, settings)
        elif "task" not in settings:
            load_benchmark(name, settings)


def _load(
    name: str, settings: Mapping[str, Any], base: Templates, limit: int | None, unsafe: bool
) -> Benchmark:
    if "run" in settings:
        settings = {**settings, "task": _task_of_run(name, settings)}
    if "task" in settings:
        return _of_task(name, settings, limit)
    config = load_benchmark(name, settings)
    scorer = _scorer(config, unsafe)
    rows = _rows(config)
    items, left_out = make_items(config, rows)
    for item in items:
        try:
            scorer.check_gold(item)
        except ValueError as error:
            raise ConfigError(
                f"benchmark.{name}: question {item.prompt.id}: {error}; "
                f"benchmark.{name}.exclude=[{item.prompt.id}] leaves it out"
            ) from error
    for reason in left_out.values():
        _log.warning("left out of %s: %s", name, reason)
    wrapped = wrap(base, config.template, config.demonstrations)
    rule = f"{config.template} {config.scorer} {config.columns.get('labels')}"
    origin = {"source": config.source, "revision": config.revision}
    if config.path is not None:
        origin = {"source": config.source, "path": config.path}
    return Benchmark(
        name,
        config.domain,
        items[:limit],
        wrapped,
        scorer,
        published=config.size,
        rows=len(rows),
        rule=rule,
        origin=origin,
        left_out=left_out,
    )


def _rows(config: BenchmarkConfig) -> list[Row]:
    setting = f"benchmark.{config.name}"
    source = Source(
        config.path or config.source,
        config.split,
        config.subset,
        config.revision,
        tuple(config.files),
    )
    if config.path is not None and not source.is_local:
        raise ConfigError(f"{setting}.path={config.path}: it must end in {', '.join(READERS)}")
    try:
        rows = list(source.rows())
    except ConfigError as error:
        hint = f"or give a local file of the same columns: {setting}.path=FILE"
        if config.path is not None:
            hint = f"{setting}.path names it"
        elif config.gated:
            hint = (
                f"it is gated: accept its terms at https://huggingface.co/datasets/{config.source} "
                f"and run `hf auth login`, {hint}"
            )
        else:
            hint = f"check the connection, {hint}"
        raise ConfigError(f"{error}; {hint}") from error
    if not rows:
        raise ConfigError(f"{setting}: {source.path} holds no rows")
    return rows


SCORERS: dict[str, Callable[[], Scorer]] = {
    "math": MathScorer,
    "number": NumberScorer,
    "choice": ChoiceScorer,
    "literal": LiteralScorer,
}
"""By `scorer` of a benchmark; others run programs."""


def _scorer(config: BenchmarkConfig, unsafe: bool) -> Scorer:
    if config.scorer in SCORERS:
        return SCORERS[config.scorer]()
    return ProgramScorer(config.name, unsafe)


def _task_of_run(name: str, settings: Mapping[str, Any]) -> Any:
    """The node `task` of a run's config, with `changes`."""
    run, changes = settings["run"], settings.get("changes", {})
    unknown = sorted(set(settings) - {"run", "changes", "domain", "task"})
    require(not unknown, f"there is no setting benchmark.{name}.{', '.join(unknown)}")
    require(
        run is not None and is_run(str(run)),
        f"benchmark.{name}.run={run} is no run of masa-train or masa-sft: name the one whose "
        "held-out prompts are wanted",
    )
    task: Any = run_config(Path(run)).task
    if changes:
        task = OmegaConf.merge(task, escaped(changes))
        with refusing():
            build_task(task)
    return task


def _of_task(name: str, settings: Mapping[str, Any], limit: int | None) -> Benchmark:
    """The held-out prompts of a training task, with its own templates."""
    node = OmegaConf.create(escaped(settings["task"]))
    task = build_task(node)
    items = [Item(prompt, prompt.answer, prompt.id) for prompt in task.validation][:limit]
    count = len(task.validation)
    domain = str(settings.get("domain", name))
    origin = {"source": str(node._target_)}
    correct_at = node.get("correct_at", 1.0)
    scorer = TaskScorer(task, correct_at)
    judged = repr((correct_at, node.get("verifier"), task.templates))
    rule = f"task {hashlib.sha256(judged.encode()).hexdigest()[:16]}"
    return Benchmark(
        name, domain, items, task.templates, scorer, count, count, rule=rule, origin=origin
    )
