"""Functions that a config names by `_target_`, of the package or of a user's own module."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from masa.checks import ConfigError

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
