"""Errors that end a command in one line, and the checks that several modules share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import inf
from typing import Any


class ConfigError(ValueError):
    """A setting that cannot be used; the message is one line that says what to change."""


class TrainingError(RuntimeError):
    """A run cannot go on; the message is one line that says what to do about it."""

    nothing_changed = False
    """True where the run is as it was after its last update."""


class VerdictError(TrainingError):
    """No verdict, since what gives it did not start, failed, or gave no score: nothing can be said
    of the answer."""


@contextmanager
def changing_nothing() -> Iterator[None]:
    """Mark a TrainingError as one after which the run is as it was after its last update."""
    try:
        yield
    except TrainingError as error:
        error.nothing_changed = True
        raise


def require(holds: bool, message: str) -> None:
    """Raise ConfigError with `message` unless it holds."""
    if not holds:
        raise ConfigError(message)


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise ConfigError unless `value` is among `allowed`."""
    require(value in allowed, f"{name} is {value!r}, it must be one of {', '.join(allowed)}")


def not_negative(name: str, value: float) -> None:
    """Raise ConfigError unless `value` is a finite number >= 0."""
    require(0 <= value < inf, f"{name} is {value}, it must be >= 0 and finite")


def positive(name: str, value: float) -> None:
    """Raise ConfigError unless `value` is a finite number > 0."""
    require(0 < value < inf, f"{name} is {value}, it must be > 0 and finite")


def window_of(name: str, value: int, least: int = 1) -> None:
    """Raise ConfigError unless `value` is a number of newest outcomes that can be kept."""
    most = 1_000_000
    require(least <= value <= most, f"{name} is {value}, it must lie in [{least}, {most:,}]")


def seed_of(name: str, value: object) -> None:
    """Raise ConfigError unless `value` is a seed that every library takes."""
    require(
        type(value) is int and 0 <= value < 2**32,
        f"{name} is {value!r}, it must be an integer from 0 to 2**32 - 1",
    )


def engine_values(settings: Mapping[str, Any] | None) -> None:
    """Raise ConfigError for values of `engine.*` that no engine takes, whatever its class."""
    settings = settings or {}
    one_of("engine.dtype", settings.get("dtype", "float32"), ("float32", "bfloat16", "float16"))
    share = settings.get("gpu_memory_utilization", 1)
    is_number = isinstance(share, int | float) and not isinstance(share, bool)
    require(
        is_number and 0 < share <= 1,
        f"engine.gpu_memory_utilization is {share!r}, it must lie in (0, 1]",
    )
    for key in ("max_num_seqs", "kv_cache_gib", "threads", "tensor_parallel_size"):
        value = settings.get(key, 1)
        require(
            type(value) is int and value >= 1,
            f"engine.{key} is {value!r}, it must be an integer >= 1",
        )
