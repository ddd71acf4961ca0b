"""Functions that a config names by `_target_`, of the package or of a user's own module."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import inf, isfinite, nan
from numbers import Real
from typing import Any, TypeVar

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from masa.errors import ConfigError, TrainingError, require

F = TypeVar("F", bound=Callable[..., Any])


def import_from_working_directory() -> None:
    """Have modules of the working directory import: a console script does not see them."""
    # last, so that a file there never replaces an installed module
    sys.path.append(os.getcwd())


def checked_by(check: Callable[..., None]) -> Callable[[F], F]:
    """Decorator: before a run starts, `check` gets the settings that a config has for the function,
    and raises ValueError for one that cannot be."""

    def mark(function: F) -> F:
        function.check_settings = check  # type: ignore[attr-defined]
        return function

    return mark


def load_function(key: str, node: Mapping[str, Any], arguments: tuple[str, ...]) -> partial[Any]:
    """The function that `_target_` of `node` names, with the node's other settings filled in.

    Args:
        key: dotted name of the node, for messages.
        node: `_target_` and settings.
        arguments: what the function will be called with, in order.

    Raises:
        ConfigError: there is no such function, or it cannot be called so.
    """
    target = node["_target_"]
    try:
        function = instantiate({"_convert_": "all", **node, "_partial_": True})
    except InstantiationException as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise ConfigError(
            f"{key}: {target} cannot be imported from the working directory {os.getcwd()} or what "
            f"is installed ({reason[:200]})"
        ) from error
    try:
        signature = inspect.signature(function.func)
        signature.bind(*function.args, *arguments, **function.keywords)
        getattr(function.func, "check_settings", dict)(**function.keywords)
    except (TypeError, ValueError) as error:
        called = ", ".join([*arguments, *function.keywords])
        raise ConfigError(f"{key}: {target} cannot be called with ({called}): {error}") from error
    return function  # type: ignore[no-any-return]


@dataclass(frozen=True)
class WeightedFunction:
    """A function that returns a number, and its weight among others: one entry of a config."""

    group: str
    """Dotted name of the setting that holds the entries."""
    name: str
    target: str
    """Module and name of the function."""
    weight: float
    function: partial[Any]

    @classmethod
    def from_entry(
        cls, group: str, name: str, entry: Any, arguments: tuple[str, ...]
    ) -> WeightedFunction:
        """The function of an entry `{_target_: MODULE.FUNCTION, weight: NUMBER, ...}`.

        Args:
            group: dotted name of the setting that holds it.
            name: its own.
            entry: the rest of it are the function's own settings.
            arguments: what the function will be called with, in order.

        Raises:
            ConfigError: name, weight, function or settings cannot be used.
        """
        key = f"{group}.{name}"
        require(name.isidentifier(), f"{key}: a name has letters, digits and _, no digit first")
        require(
            isinstance(entry, Mapping) and isinstance(entry.get("_target_"), str),
            f"{key} is {entry!r}, it must be {{_target_: MODULE.FUNCTION, weight: NUMBER, ...}}; "
            f"~{key} leaves it out",
        )
        settings = dict(entry)
        require("weight" in settings, f"{key}.weight is missing, it must be a number >= 0")
        weight = settings.pop("weight")
        require(
            type(weight) in (int, float) and 0 <= weight < inf,
            f"{key}.weight is {weight!r}, it must be a finite number >= 0",
        )
        function = load_function(key, settings, arguments)
        return cls(group, name, entry["_target_"], float(weight), function)

    def __call__(self, prompt_id: str, *arguments: Any) -> float:
        """What the function returns for `arguments`, which are about the prompt of that id.

        Raises:
            TrainingError: the function failed, or returned no finite number.
        """
        where = f"{self.group}.{self.name}: {self.target}"
        remedy = "correct it, then go on with ckpt=auto"
        try:
            returned = self.function(*arguments)
            value = float(returned) if isinstance(returned, Real) else nan
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise TrainingError(
                f"{where} failed on prompt {prompt_id} ({reason[:200]}): {remedy}"
            ) from error
        if not isfinite(value):
            shown = " ".join(repr(returned).split())
            raise TrainingError(
                f"{where} returned {shown[:100]} for prompt {prompt_id}, it must return a "
                f"finite number: {remedy}"
            )
        return value
