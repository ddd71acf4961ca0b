"""Benchmarks ready to be asked: questions, what is said around them, and who judges."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from masa.errors import ConfigError
from masa.evaluation.config import BenchmarkConfig, load_benchmark
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
from masa.tasks.base import Task
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
    """Rows it should have."""
    rows: int
    """Rows it has."""
    rule: str = ""
    """How questions are made and judged: template, scorer and where options have their labels."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """Where the rows come from: source, and its revision or path."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Ids of rows that no answer could pass, and why; they are not in the score."""

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
        """Verdicts on (prompt, text) pairs, as a task's."""
        by_id = {item.prompt.id: item for item in self.items}
        judged = self.scorer.judge([(by_id[prompt.id], text) for prompt, text in answers])
        return [verdict.correct for verdict in judged]


def load_benchmarks(
    configs: Mapping[str, Any],
    templates: Templates,
    limit: int | None = None,
    allow_unsafe_execution: bool = False,
) -> list[Benchmark]:
    """Benchmarks of `conf/benchmark`.

    Args:
        configs: settings by name.
        templates: how predictions and mathematical answers are asked for.
        limit: only the first questions of each.
        allow_unsafe_execution: run generated programs where there is no sandbox.

    Raises:
        ConfigError: a source cannot be read, or programs would have to run without a sandbox.
    """
    return [
        _load(name, plain, templates, limit, allow_unsafe_execution)
        for name, plain in configs.items()
    ]


def check_benchmarks(configs: Mapping[str, Any]) -> None:
    """What `load_benchmarks` would refuse without reading a source."""
    for name, plain in configs.items():
        if "task" not in plain:
            load_benchmark(name, plain)


def _load(
    name: str, plain: Mapping[str, Any], base: Templates, limit: int | None, unsafe: bool
) -> Benchmark:
    if "task" in plain:
        return _of_task(name, plain, limit)
    config = load_benchmark(name, plain)
    scorer = _scorer(config, unsafe)
    rows = _rows(config)
    items, left_out = make_items(config, rows)
    for item in items:
        try:
            scorer.check(item)
        except ValueError as error:
            raise ConfigError(
                f"benchmark.{name}: question {item.prompt.id}: {error}; "
                f"benchmark.{name}.exclude=[{item.prompt.id}] leaves it out"
            ) from error
    for reason in left_out.values():
        _log.warning("left out of %s: %s", name, reason)
    said = wrap(base, config.template, config.demonstrations)
    rule = f"{config.template} {config.scorer} {config.columns.get('labels')}"
    origin = {"source": config.source, "revision": config.revision}
    if config.path is not None:
        origin = {"source": config.source, "path": config.path}
    return Benchmark(
        name,
        config.domain,
        items[:limit],
        said,
        scorer,
        published=config.size,
        rows=len(rows),
        rule=rule,
        origin=origin,
        left_out=left_out,
    )


def _rows(config: BenchmarkConfig) -> list[Row]:
    where = f"benchmark.{config.name}"
    source = Source(
        config.path or config.source,
        config.split,
        config.subset,
        config.revision,
        tuple(config.files),
    )
    if config.path is not None and not source.is_local:
        raise ConfigError(f"{where}.path={config.path}: it must end in {', '.join(READERS)}")
    try:
        rows = list(source.rows())
    except ConfigError as error:
        hint = f"or give a local file of the same columns: {where}.path=FILE"
        if config.path is not None:
            hint = f"{where}.path names it"
        elif config.gated:
            hint = (
                f"it is gated: accept its terms at https://huggingface.co/datasets/{config.source} "
                f"and run `hf auth login`, {hint}"
            )
        else:
            hint = f"look at the connection, {hint}"
        raise ConfigError(f"{error}; {hint}") from error
    if not rows:
        raise ConfigError(f"{where}: {source.path} holds no rows")
    return rows


def _scorer(config: BenchmarkConfig, unsafe: bool) -> Scorer:
    if config.scorer == "math":
        return MathScorer()
    if config.scorer == "number":
        return NumberScorer()
    if config.scorer == "choice":
        return ChoiceScorer()
    if config.scorer == "literal":
        return LiteralScorer()
    return ProgramScorer(config.name, unsafe)


def _of_task(name: str, plain: Mapping[str, Any], limit: int | None) -> Benchmark:
    """The held-out prompts of a training task."""
    from hydra.utils import instantiate

    task: Task = instantiate(plain["task"])
    items = [Item(prompt, prompt.answer, prompt.id) for prompt in task.validation][:limit]
    count = len(task.validation)
    domain = str(plain.get("domain", name))
    origin = {"source": str(plain["task"]["_target_"])}
    scorer = TaskScorer(task)
    return Benchmark(
        name, domain, items, task.templates, scorer, count, count, rule="task", origin=origin
    )
