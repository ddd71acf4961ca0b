"""Generated problems of reasoning-gym: logic, games, arithmetic, graphs. Needs no download."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from masa.errors import ConfigError, require
from masa.plugins import made
from masa.tasks.curation import digest, is_held_out
from masa.tasks.demonstrations import Demonstrated, chosen, final_answer
from masa.tasks.sources import answer_of
from masa.tasks.templates import Templates
from masa.tasks.worked_solutions import WORKED, is_answered
from masa.types import Prompt
from masa.verifiers import gym_answers

HELD_OUT = 0.1
"""Share of all problems that may only serve for validation."""
TRIES = 20
"""Draws per problem, before a data set counts as too small."""


@dataclass(frozen=True)
class Part:
    """One data set of the gym with one difficulty; several parts of one set are a curriculum."""

    name: str
    weight: float = 1.0
    """Share of the problems, relative to the weights of the other parts."""
    level: int = 0
    """Accuracy is reported per level."""
    parameters: str = "{}"
    """The data set's own settings, as JSON."""


@dataclass(frozen=True)
class GymConfig:
    """The settings that determine the prompts."""

    parts: tuple[Part, ...]
    train_size: int
    validation_size: int
    seed: int

    def __post_init__(self) -> None:
        require(bool(self.parts), "task.datasets is empty: name at least one, [{name: chain_sum}]")
        for part in self.parts:
            if part.name in gym_answers.REFUSED:
                raise ConfigError(
                    f"task.datasets: {part.name} is refused, {gym_answers.REFUSED[part.name]}"
                )
            require(part.weight > 0, f"task.datasets: the weight of {part.name} must be > 0")
            own = {"seed", "size"} & set(json.loads(part.parameters))
            require(
                not own,
                f"task.datasets: params of {part.name} may not have {', '.join(sorted(own))}: "
                "task.seed, task.train_size and task.validation_size say it",
            )
        for name in ("train_size", "validation_size"):
            size = getattr(self, name)
            require(
                size >= len(self.parts),
                f"task.{name} is {size}, there are {len(self.parts)} parts in task.datasets",
            )


@dataclass
class GymPools:
    """The prompts, and the origin of each in the gym: (data set, parameters, index)."""

    train: list[Prompt] = field(default_factory=list)
    validation: list[Prompt] = field(default_factory=list)
    origin: dict[str, tuple[str, str, int]] = field(default_factory=dict)
    duplicates: int = 0
    wrong: int = 0
    """Problems whose answer in the gym is not the true one."""


class GymTask:
    """Problems of reasoning-gym, judged by its scorers; only full marks are correct.

    Args:
        templates: the texts around a problem.
        datasets: per part `name`, and optionally `weight`, `level` and `params`.
        train_size, validation_size: problems, over all parts.
        seed: which problems are drawn.
    """

    def __init__(
        self,
        templates: Templates,
        datasets: Sequence[Mapping[str, Any]],
        train_size: int,
        validation_size: int,
        seed: int,
    ) -> None:
        self.templates = templates
        self.config = GymConfig(
            tuple(map(_parsed_part, datasets)), train_size, validation_size, seed
        )

    @property
    def train(self) -> Sequence[Prompt]:
        """The training pool, the parts one after the other."""
        return self._pools.train

    @property
    def validation(self) -> Sequence[Prompt]:
        """Held-out problems; none of their texts is in `train`."""
        return self._pools.validation

    @property
    def report(self) -> Mapping[str, Any]:
        """The parts, and how many problems were left out for which reason."""
        parts = [vars(part) for part in self.config.parts]
        return {
            "path": "reasoning-gym",
            "parts": parts,
            "dropped": {
                "duplicate": self._pools.duplicates,
                "with a wrong answer": self._pools.wrong,
            },
        }

    def verify(self, answers: Sequence[tuple[Prompt, str]]) -> list[bool]:
        """True where the gym's scorer gives full marks, within limits of time and memory."""
        origin = self._pools.origin
        return gym_answers.verify_batch([(*origin[prompt.id], text) for prompt, text in answers])

    def same(self, a: str, b: str) -> bool:
        """The gym's scorers compare a response with a problem, never two responses.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "task=gym cannot tell whether two answers are the same: the scorers of reasoning-gym "
            "compare a response with a problem"
        )

    def demonstrations(self, count: int, seed: int) -> Demonstrated:
        """Worked solutions to the problems of `train` whose data set has them.

        Raises:
            ConfigError: no part has them.
        """
        solutions = []
        for prompt in self.train:
            name, settings, index = self._pools.origin[prompt.id]
            if name in WORKED:
                entry = gym_answers.create(name, settings)[index]
                answer = final_answer(str(entry["answer"]), self.templates)
                solutions.append((prompt, f"{WORKED[name](entry)}\n\n{answer}"))
        if not solutions:
            raise ConfigError(
                "no data set of task.datasets has worked solutions: those of "
                f"{', '.join(sorted(WORKED))} have them; else use sft.source=self"
            )
        missing = {"without a solution": len(self.train) - len(solutions)}
        return Demonstrated(chosen(solutions, count, seed), missing)

    @cached_property
    def _pools(self) -> GymPools:
        return generate(self.config)


# the check of a command line and its run need the same prompts
@lru_cache(maxsize=2)
def generate(config: GymConfig) -> GymPools:
    """Draw the problems of every part, each text once, held-out ones separately.

    Raises:
        ConfigError: the gym is not installed, has no such data set or setting, or has too few
            different problems.
    """
    try:
        import reasoning_gym
    except ImportError as error:
        raise ConfigError(
            f"task=gym needs reasoning-gym ({error}): pip install 'reasoning-gym>=0.1.25,<0.2'"
        ) from error
    names = sorted(reasoning_gym.factory.DATASETS)
    pools = GymPools()
    digests: set[str] = set()
    total = sum(part.weight for part in config.parts)
    for number, part in enumerate(config.parts):
        similar = difflib.get_close_matches(part.name, names, 3) or names[:3]
        require(
            part.name in names,
            f"task.datasets: reasoning-gym has no {part.name}; it has {', '.join(similar)}, ...",
        )
        share = part.weight / total
        train = max(1, round(config.train_size * share))
        validation = max(1, round(config.validation_size * share))
        size = TRIES * (train + round(validation / HELD_OUT))
        settings = json.loads(part.parameters) | {"seed": config.seed + number, "size": size}
        _draw(part, json.dumps(settings, sort_keys=True), train, validation, digests, pools)
    return pools


def _draw(
    part: Part, settings: str, train: int, validation: int, digests: set[str], pools: GymPools
) -> None:
    try:
        dataset = gym_answers.create(part.name, settings)
    except (AssertionError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split()) or "impossible params"
        raise ConfigError(f"task.datasets: {part.name} refuses its params: {reason}") from error
    missing = {"train": train, "validation": validation}
    for index in range(len(dataset)):
        if not any(missing.values()):
            return
        try:
            entry = dataset[index]
        # of any kind, where the gym looks at its params no earlier
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ConfigError(
                f"task.datasets: {part.name} fails with its params: {reason}"
            ) from error
        if not is_answered(part.name, entry):
            pools.wrong += 1
            continue
        problem = str(entry["question"])
        key = digest(problem)
        side = "validation" if is_held_out(problem, HELD_OUT, 0) else "train"
        if key in digests:
            pools.duplicates += 1
        elif missing[side]:
            digests.add(key)
            missing[side] -= 1
            prompt = Prompt(f"gym/{part.name}/{key}", problem, answer_of(entry), part.level)
            getattr(pools, side).append(prompt)
            pools.origin[prompt.id] = (part.name, settings, index)
    require(
        not any(missing.values()),
        f"task.datasets: {part.name} has too few different problems for {train} to train on and "
        f"{validation} to validate on: lower task.train_size, or widen its params",
    )


def _parsed_part(entry: Any) -> Part:
    known = {"name", "weight", "level", "params"}
    require(
        isinstance(entry, Mapping) and "name" in entry and set(entry) <= known,
        f"task.datasets: {entry} is no part; it may have name, weight, level and params",
    )
    settings = {key: entry[key] for key in ("name", "weight", "level") if key in entry}
    settings["parameters"] = json.dumps(entry.get("params", {}), sort_keys=True)
    return made("task.datasets", Part, settings)
