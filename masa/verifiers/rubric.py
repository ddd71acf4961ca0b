"""Scores by the rubric of an environment of Prime Intellect's `verifiers` package.

Interface of verifiers 0.1.10, https://github.com/PrimeIntellect-ai/verifiers.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from masa.errors import TrainingError
from masa.plugins import time_limit
from masa.types import Prompt

LIMIT = "task.score_seconds"
ROUNDED = 9
"""Decimals of a score: weights of 0.7, 0.2 and 0.1 do not add up to 1 in floating point."""

_scored: ContextVar[str] = ContextVar("id of the prompt that is scored")


@dataclass(frozen=True)
class Rollouts:
    """The responses to one prompt, which group reward functions see together."""

    prompt: Prompt
    """Its columns are its row in the environment's data set."""
    responses: Sequence[str]


@dataclass
class RubricScorer:
    """The rubric of a single-turn environment.

    Args:
        name: of the environment, for messages.
        environment: a `verifiers.SingleTurnEnv`.
        max_score: the largest score that its rubric can give; scores are divided by it.
        seconds: limit on one call.
    """

    name: str
    environment: Any
    max_score: float
    seconds: float
    # judges keep their connections, which belong to an event loop
    _runner: asyncio.Runner = field(default_factory=asyncio.Runner, repr=False)
    _closing: bool = field(default=False, repr=False)

    def score(self, groups: Sequence[Rollouts]) -> list[list[float]]:
        """Scores in [0, 1] per group, in the order of its responses.

        Raises:
            TrainingError: a reward function failed or did not end, or a score is out of range.
        """
        try:
            states = self._run(groups)
        except _Failure as failure:
            raise self._error(
                failure.prompt_id, str(failure), failure.__cause__
            ) from failure.__cause__
        except TimeoutError as error:
            raise TrainingError(
                f"task.environment={self.name}: its rubric did not score "
                f"{sum(len(g.responses) for g in groups)} responses within "
                f"{LIMIT}={self.seconds:g}; raise it, then resume with ckpt=auto"
            ) from error
        return [
            [self._share(group.prompt.id, state) for state in of_group]
            for group, of_group in zip(groups, states, strict=True)
        ]

    def _run(self, groups: Sequence[Rollouts]) -> list[list[Any]]:
        try:
            with time_limit(self.seconds, LIMIT), _logged_failures_raised():
                return self._runner.run(self._score(groups))
        except BaseException:
            # ends what still runs
            self._closing = True
            self._runner.close()
            self._runner, self._closing = asyncio.Runner(), False
            raise

    async def _score(self, groups: Sequence[Rollouts]) -> list[list[Any]]:
        with self._left_once():
            return await asyncio.gather(*map(self._score_group, groups))
        return []

    async def _score_group(self, group: Rollouts) -> list[Any]:
        _scored.set(group.prompt.id)
        states: list[Any] = []
        try:
            with self._left_once():
                for response in group.responses:
                    states.append(await self._state(group.prompt.columns, response))
                await self.environment.rubric.score_group(states)
        # an environment is a program, which may raise anything
        except Exception as error:
            raise self._error(group.prompt.id, str(error), error) from error
        return states

    @contextmanager
    def _left_once(self) -> Iterator[None]:
        """A failure that has left the loop is not raised again in the tasks that wait for it."""
        try:
            yield
        except _Failure:
            if not self._closing:
                raise

    async def _state(self, row: Mapping[str, Any], response: str) -> Any:
        """The state that the environment would have after a model's `response`."""
        environment = self.environment
        state = await environment.init_state(row, client=None, model="", sampling_args=None)
        state = await environment.setup_state(state)
        chat = environment.message_type == "chat"
        step = {
            "prompt": state["prompt"],
            "completion": [{"role": "assistant", "content": response}] if chat else response,
            "response": None,
            "tokens": None,
            "reward": None,
            "advantage": None,
            "is_truncated": False,
            "trajectory_id": state["trajectory_id"],
            "extras": {},
        }
        await environment.add_trajectory_step(state, step)
        await environment.is_completed(state)
        await environment.render_completion(state)
        return state

    def _error(self, prompt_id: str, message: str, cause: BaseException | None) -> TrainingError:
        text = " ".join(f"{type(cause).__name__}: {message}".split())
        return TrainingError(
            f"task.environment={self.name}, prompt {prompt_id}: {text[:300]}; correct it, then "
            "resume with ckpt=auto"
        )

    def _share(self, prompt_id: str, state: Mapping[str, Any]) -> float:
        score = round(state["reward"] / self.max_score, ROUNDED)
        if not 0 <= score <= 1:  # also where it is no number
            parts = ", ".join(f"{name} {value:.6g}" for name, value in state["metrics"].items())
            raise TrainingError(
                f"task.environment={self.name}, prompt {prompt_id}: its rubric gives "
                f"{state['reward']:.6g} ({parts}), a score must lie in [0, task.max_score], here "
                f"{self.max_score:g}: set it to the largest score that the weights allow, or "
                "change the weights"
            )
        return float(score)


class _Failure(SystemExit):
    """A reward function failed.

    It leaves the event loop at once: after any other exception what is ready still runs, which may
    be a thousand more calls of a function that does not end.
    """

    def __init__(self, prompt_id: str, message: str) -> None:
        super().__init__(message)
        self.prompt_id = prompt_id


@contextmanager
def _logged_failures_raised() -> Iterator[None]:
    """A rubric logs a reward function that fails, and goes on with a score of 0: end there."""

    class Raise(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise _Failure(_scored.get(""), record.getMessage()) from sys.exc_info()[1]

    handler, logger = Raise(logging.ERROR), logging.getLogger("verifiers")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(min(logger.getEffectiveLevel(), logging.ERROR))
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
