"""Single-turn environments of Prime Intellect's `verifiers` package: a data set and a rubric."""

from __future__ import annotations

import json
import logging
import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.metadata import version
from typing import Any

from masa.errors import ConfigError, positive, require
from masa.plugins import made
from masa.tasks.curation import digest, is_held_out
from masa.tasks.sources import answer_of
from masa.tasks.templates import Templates, is_text
from masa.types import Prompt
from masa.verifiers.rubric import Rollouts, RubricScorer


@dataclass(frozen=True)
class HeldOutShare:
    """Held-out prompts of an environment without an evaluation set."""

    fraction: float
    """Share of the data."""

    def __post_init__(self) -> None:
        require(
            0 < self.fraction < 1,
            f"task.validation.fraction is {self.fraction}, it must lie in (0, 1)",
        )


@dataclass(frozen=True)
class EnvConfig:
    """The settings that determine the prompts."""

    environment: str
    arguments: str
    """Keyword arguments of its `load_environment`, as JSON."""
    held_out: HeldOutShare
    seed: int
    """Which prompts the fraction holds out."""


@dataclass(frozen=True)
class EnvPools:
    """The environment and its prompts; the columns of a prompt are its row in the data set."""

    environment: Any
    train: tuple[Prompt, ...]
    validation: tuple[Prompt, ...]
    report: Mapping[str, Any]


class EnvTask:
    """An environment's problems, scored by its rubric.

    The messages of a problem (system prompt, worked examples, question) become one text, `problem`:
    a prediction has to know what is asked as well. The environment is loaded at the first use.

    Args:
        templates: the texts around a problem.
        environment: its name, as for `verifiers.load_environment`: a module that is installed or
            in the working directory.
        arguments: keyword arguments of its `load_environment`.
        validation: `fraction`, the share of the data that is held out where the environment has no
            evaluation set.
        max_score: the largest score that its rubric can give.
        score_seconds: seconds in which the responses of one call of `verify` must be scored.
        seed: which prompts the fraction holds out.
    """

    def __init__(
        self,
        templates: Templates,
        environment: str,
        arguments: Mapping[str, Any] | None,
        validation: Mapping[str, Any],
        max_score: float,
        score_seconds: float,
        seed: int,
    ) -> None:
        positive("task.max_score", max_score)
        positive("task.score_seconds", score_seconds)
        self.templates = templates
        self.max_score = max_score
        self.score_seconds = score_seconds
        self.config = EnvConfig(
            environment,
            json.dumps(arguments or {}, sort_keys=True),
            made("task.validation", HeldOutShare, validation),
            seed,
        )

    @property
    def train(self) -> Sequence[Prompt]:
        """Problems of its data set that are not held out."""
        return self._pools.train

    @property
    def validation(self) -> Sequence[Prompt]:
        """Problems of its evaluation set, else of a share; none of their texts is in `train`."""
        return self._pools.validation

    @property
    def report(self) -> Mapping[str, Any]:
        """Source, rows read, and how many were left out for which reason."""
        return self._pools.report

    def verify(self, answers: Sequence[tuple[Prompt, str]]) -> list[float]:
        """Scores in [0, 1] of the environment's rubric; the responses to a prompt are a group.

        Raises:
            TrainingError: a reward function failed or did not end, or a score is out of range.
        """
        places: dict[str, list[int]] = {}
        for place, (prompt, _) in enumerate(answers):
            places.setdefault(prompt.id, []).append(place)
        groups = [
            Rollouts(answers[of_prompt[0]][0], [answers[i][1] for i in of_prompt])
            for of_prompt in places.values()
        ]
        scores = [0.0] * len(answers)
        for of_prompt, group in zip(places.values(), self._scorer.score(groups), strict=True):
            for place, score in zip(of_prompt, group, strict=True):
                scores[place] = score
        return scores

    def same(self, a: str, b: str) -> bool:
        """Not known: a rubric scores a response, and compares no two of them."""
        raise ConfigError(
            f"task.environment={self.config.environment}: a rubric cannot tell whether two "
            "responses give the same answer; choose another task where that is needed"
        )

    @cached_property
    def _pools(self) -> EnvPools:
        return read_environment(self.config)

    @cached_property
    def _scorer(self) -> RubricScorer:
        name, environment = self.config.environment, self._pools.environment
        return RubricScorer(name, environment, self.max_score, self.score_seconds)


# the check of a command line and its run need the same prompts
@lru_cache(maxsize=2)
def read_environment(config: EnvConfig) -> EnvPools:
    """Load an environment and make prompts of its rows.

    Raises:
        ConfigError: it cannot be loaded, is not single-turn, or has no prompt to train or to
            validate on.
    """
    where = f"task.environment={config.environment}"
    environment, train_rows, held_out_rows = _load(where, config)
    dropped: Counter[str] = Counter()
    ids: set[str] = set()
    # first, so that of two copies the one in the training data is dropped
    held_out = list(_prompts(where, config, held_out_rows, ids, dropped))
    prompts = list(_prompts(where, config, train_rows, ids, dropped))
    if not held_out_rows:
        fraction, seed = config.held_out.fraction, config.seed
        held_out = [p for p in prompts if is_held_out(p.problem, fraction, seed)]
        prompts = [p for p in prompts if not is_held_out(p.problem, fraction, seed)]
    read = len(ids) + dropped.total()
    for use, chosen in (("train", prompts), ("validate", held_out)):
        remedy = "" if use == "train" or held_out_rows else "; raise task.validation.fraction"
        require(bool(chosen), f"{where}: no prompt to {use} on, {read} rows read{remedy}")
    report = {
        "path": config.environment,
        "arguments": json.loads(config.arguments),
        "verifiers": version("verifiers"),
        "read": read,
        "dropped": dict(dropped),
    }
    return EnvPools(environment, tuple(prompts), tuple(held_out), report)


def _load(where: str, config: EnvConfig) -> tuple[Any, Sequence[Any], Sequence[Any]]:
    """The environment, the rows of its data set and of its evaluation set."""
    try:
        import datasets
        import verifiers
    except ImportError as error:
        raise ConfigError(
            f"task=env needs verifiers ({error}): pip install 'verifiers>=0.1.10,<0.1.11'"
        ) from error
    # the package has no handler of its own, and Python then writes warnings to stderr
    logging.getLogger("verifiers").addHandler(logging.NullHandler())
    datasets.disable_progress_bars()
    try:
        with _signal_handlers_kept():
            environment = verifiers.load_environment(
                config.environment, **json.loads(config.arguments)
            )
            train = environment.build_dataset()
            evaluation = environment.build_eval_dataset()
    # an environment is a program, which may raise anything
    except Exception as error:
        reason = error.__cause__ or error
        text = " ".join(f"{type(reason).__name__}: {reason}".split())
        raise ConfigError(
            f"{where} cannot be loaded ({text[:300]}): it must be a module with load_environment, "
            "installed or in the working directory"
        ) from error
    kind = type(environment).__name__
    require(
        isinstance(environment, verifiers.SingleTurnEnv),
        f"{where} is a {kind}: only single-turn environments can be trained on",
    )
    require(
        not environment.oai_tools,
        f"{where} uses tools: only environments without tools can be trained on",
    )
    require(train is not None, f"{where} has no data set to train on, only an evaluation set")
    return environment, train, [] if evaluation is None else evaluation


@contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Every environment installs handlers of its own, which end the process."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    kept = [signal.getsignal(number) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, kept, strict=True):
            signal.signal(number, handler)


def _prompts(
    where: str,
    config: EnvConfig,
    source: Sequence[Mapping[str, Any]],
    ids: set[str],
    dropped: Counter[str],
) -> Iterator[Prompt]:
    """Prompts of the rows whose ids are not in `ids`; adds to `ids` and `dropped`."""
    for number, row in enumerate(source):
        problem = _problem(f"{where}: row {number} of its data", row["prompt"])
        if not (is_text(problem) and problem.strip()):
            dropped["without a problem"] += 1
        elif (name := f"env/{config.environment}/{digest(problem)}") in ids:
            dropped["duplicate"] += 1
        else:
            ids.add(name)
            yield Prompt(name, problem, answer_of(row), columns=row)


def _problem(where: str, prompt: str | Sequence[Mapping[str, Any]]) -> str:
    """The messages of a prompt as one text, worked examples marked as such."""
    if isinstance(prompt, str):
        return prompt
    *before, last = [(message["role"], message["content"]) for message in prompt]
    for role, content in (*before, last):
        require(
            role in ("system", "user", "assistant") and isinstance(content, str),
            f"{where} has a message of {role} that is not text: only texts of system, user and "
            "assistant can be trained on",
        )
    require(last[0] == "user", f"{where}: its last message is of {last[0]}, it must be of user")
    marks = {"system": "", "user": "Example:\n", "assistant": "Answer:\n"}
    has_examples = any(role != "system" for role, _ in before)
    texts = [marks[role] + content for role, content in before]
    return "\n\n".join([*texts, ("Problem:\n" if has_examples else "") + last[1]])
