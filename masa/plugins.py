"""Functions and classes that a config names by `_target_`, of the package or of a user's module."""

from __future__ import annotations

import inspect
import logging
import math
import os
import re
import signal
import sys
import threading
import time
from asyncio import CancelledError
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import partial
from numbers import Real
from types import NoneType, UnionType
from typing import (
    Any,
    ClassVar,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from masa.errors import ConfigError, TrainingError, require
from masa.types import Prompt, RolloutGroup

# what Hydra logs there it raises as well
logging.getLogger("hydra.utils").disabled = True

F = TypeVar("F", bound=Callable[..., Any])
P = TypeVar("P", bound="Plugin")
T = TypeVar("T")


def import_from_working_directory() -> None:
    """Make modules of the working directory importable, which a console script does not see."""
    # last, so that a file there never replaces an installed module
    sys.path.append(os.getcwd())


def escaped(node: Any) -> Any:
    """Plain settings, for OmegaConf to take texts as they are: LaTeX has `${`, which a
    configuration takes for an interpolation."""
    if isinstance(node, Mapping):
        return {key: escaped(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [escaped(value) for value in node]
    if isinstance(node, str):
        return re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", node)
    return node


def built(node: Any, **further: Any) -> Any:
    """What Hydra makes of a node of a config or of plain settings, and of further arguments; texts
    are as they are, and lists and groups plain."""
    plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    # Hydra resolves a node, and once more what it takes from it
    return instantiate({"_convert_": "all", **escaped(escaped(plain))}, **further)


def checked_by(check: Callable[..., None]) -> Callable[[F], F]:
    """Decorator: before a run starts, `check` gets the settings that a config has for the function,
    and raises ValueError for one that cannot be."""

    def mark(function: F) -> F:
        function.check_settings = check  # type: ignore[attr-defined]
        return function

    return mark


@contextmanager
def refusing() -> Iterator[None]:
    """Raise ConfigError where Hydra cannot build a node of a config, with the reason alone."""
    try:
        yield
    except InstantiationException as error:
        cause = error.__cause__ or error
        raise ConfigError(" ".join(str(cause).split())) from error


def load_target(key: str, node: Any) -> Callable[..., Any]:
    """The class or function that `_target_` of `node` names.

    Args:
        key: dotted name of the node, for messages.
        node: `_target_` and settings.

    Raises:
        ConfigError: there is none.
    """
    require(
        isinstance(node, Mapping) and isinstance(node.get("_target_"), str),
        f"{key} is {node!r}, it must be {{_target_: MODULE.CLASS, ...}}",
    )
    target = node["_target_"]
    try:
        made_by: Callable[..., Any] = get_object(target)
    except (ImportError, ValueError) as error:
        raise _not_importable(key, target, error) from error
    require(callable(made_by), f"{key}: {target} is no class and no function")
    return made_by


def load_class(key: str, node: Any) -> type[Any]:
    """The class that `_target_` of `node` names; arguments and errors as of `load_target`."""
    made_by = load_target(key, node)
    if not inspect.isclass(made_by):
        raise ConfigError(f"{key}: {node['_target_']} is no class")
    return made_by


def made(key: str, cls: Callable[..., T], settings: Any) -> T:
    """An object of a class with annotated arguments, of a group of settings.

    Args:
        key: dotted name of the group, for messages.
        cls: the class.
        settings: its arguments by name.

    Raises:
        ConfigError: there are unknown or missing settings, or values of another type.
    """
    require(isinstance(settings, Mapping), f"{key} is {settings!r}, it must be a group of settings")
    check_types(key, cls, settings)
    try:
        inspect.signature(cls).bind(**settings)
    except TypeError as error:
        raise ConfigError(f"{key}: {error}") from error
    return cls(**settings)


def check_types(key: str, made_by: Callable[..., Any], settings: Mapping[str, Any]) -> None:
    """Raise ConfigError for values of another type than the arguments of a class or function are
    annotated with. Numbers, texts, lists, groups and null are told apart; other types are not."""
    try:
        hints = get_type_hints(made_by.__init__ if inspect.isclass(made_by) else made_by)
        parameters = inspect.signature(made_by).parameters
    # annotations of a user's module may be for a type checker alone, or mere comments
    except (NameError, SyntaxError, TypeError, ValueError, AttributeError):
        return
    for name, value in settings.items():
        known = name in hints and name in parameters
        # `limit: int = None` takes null
        require(
            not known or value is parameters[name].default or _fits(value, hints[name]),
            f"{key}.{name} is {value!r}, it must be {_in_words(hints.get(name))}",
        )


_WORDS: dict[Any, str] = {
    NoneType: "null",
    bool: "true or false",
    str: "a text",
    int: "an integer",
    float: "a number",
    Mapping: "a group of settings",
    Sequence: "a list",
}


def _in_words(hint: Any) -> str:
    origin = get_origin(hint) or hint
    if origin in (Union, UnionType):
        return " or ".join(map(_in_words, get_args(hint)))
    return _WORDS.get(origin, getattr(origin, "__name__", str(origin)))


def _fits(value: Any, hint: Any) -> bool:
    origin = get_origin(hint) or hint
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if origin in (Any, object) or not inspect.isclass(origin) or issubclass(origin, Enum):
        return True
    if origin is NoneType or value is None:
        return value is None and origin is NoneType
    if issubclass(origin, bool | str):
        return isinstance(value, origin)
    if issubclass(origin, int | float):
        return isinstance(value, origin | int) and not isinstance(value, bool)
    if issubclass(origin, Mapping):
        return isinstance(value, Mapping)
    if issubclass(origin, Sequence):
        return isinstance(value, list | tuple)
    return True


def load_function(
    key: str, node: Mapping[str, Any], arguments: tuple[str, ...], by_name: bool = False
) -> partial[Any]:
    """The function that `_target_` of `node` names, with the node's other settings filled in.

    Args:
        key: dotted name of the node, for messages.
        node: `_target_` and settings.
        arguments: what the function will be called with, in order.
        by_name: it will be called by name, with those of them that it takes.

    Raises:
        ConfigError: there is no such function, or it cannot be called so.
    """
    target = node["_target_"]
    try:
        checked = built({**node, "_partial_": True})
    except InstantiationException as error:
        raise _not_importable(key, target, error) from error
    # Hydra's own partial checks its list of targets at every call, for longer than a reward takes
    function = partial(checked.func, *checked.args, **checked.keywords)
    try:
        if by_name:
            inspect.signature(function).bind(**dict.fromkeys(taken(function, arguments)))
        else:
            signature = inspect.signature(function.func)
            signature.bind(*function.args, *arguments, **function.keywords)
        getattr(function.func, "check_settings", dict)(**function.keywords)
    except (TypeError, ValueError) as error:
        called = ", ".join([*arguments, *function.keywords])
        raise ConfigError(f"{key}: {target} cannot be called with ({called}): {error}") from error
    return function


def _not_importable(key: str, target: str, error: Exception) -> ConfigError:
    reason = " ".join(str(error.__cause__ or error).split())
    return ConfigError(
        f"{key}: {target} cannot be imported from the working directory {os.getcwd()} or what "
        f"is installed ({reason[:200]})"
    )


def taken(function: partial[Any], names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `names` that a function takes by name and has no setting for."""
    parameters = inspect.signature(function.func).parameters.values()
    known = {p.name for p in parameters}
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    free = [name for name in names if name not in function.keywords]
    return tuple(name for name in free if takes_all or name in known)


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
    arguments: tuple[str, ...]
    """What the function is called with."""

    @classmethod
    def from_entries(
        cls,
        group: str,
        entries: Mapping[str, Any],
        arguments: tuple[str, ...],
        by_name: bool = False,
    ) -> tuple[WeightedFunction, ...]:
        """The functions of a setting, by name; an entry that is null is left out.

        Args:
            group: dotted name of the setting.
            entries: by name `{_target_: MODULE.FUNCTION, weight: NUMBER, ...}`, with settings of
                the function.
            arguments: what the functions will be called with, in order.
            by_name: they will be called by name, with those of them that they take.

        Raises:
            ConfigError: a name, weight, function or setting cannot be used.
        """
        functions = []
        # in an order that does not depend on where an entry was added
        for name, entry in sorted(entries.items()):
            if entry is None:
                continue
            key = f"{group}.{name}"
            name = str(name)
            require(name.isidentifier(), f"{key}: a name has letters, digits and _, no digit first")
            require(
                isinstance(entry, Mapping) and isinstance(entry.get("_target_"), str),
                f"{key} is {entry!r}, it must be {{_target_: MODULE.FUNCTION, weight: NUMBER, "
                "...}; null leaves it out",
            )
            settings = dict(entry)
            require("weight" in settings, f"{key}.weight is missing, it must be a number >= 0")
            weight = settings.pop("weight")
            require(
                type(weight) in (int, float) and 0 <= weight < math.inf,
                f"{key}.weight is {weight!r}, it must be a finite number >= 0",
            )
            function = load_function(key, settings, arguments, by_name)
            own = taken(function, arguments) if by_name else arguments
            functions.append(cls(group, name, entry["_target_"], float(weight), function, own))
        return tuple(functions)

    def __call__(self, prompt: Prompt, *arguments: Any) -> float:
        """What the function returns for `arguments`, which are about `prompt`.

        Raises:
            TrainingError: the function failed, or returned no finite number.
        """
        where = f"{self.group}.{self.name}: {self.target}"
        returned = call(
            where,
            f"prompt {prompt.id}",
            self.function,
            *arguments,
            valid=is_finite,
            expected="a finite number",
        )
        return float(returned)


class Plugin:
    """What gates, cutoffs and prompt samplers have in common: they may learn from outcomes, and
    what they learn is a state."""

    required: ClassVar[str]
    """Name of the method that a subclass must write."""

    def observe(self, groups: Sequence[RolloutGroup]) -> None:
        """Learn from the outcomes of a step, the groups of all ranks."""

    def state_dict(self) -> dict[str, Any]:
        """Plain state for checkpoints."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""


def build_plugin(key: str, node: Any, base: type[P]) -> P:
    """An object of the class that `_target_` of `node` names, made with the node's other settings.

    Args:
        key: dotted name of the node, for messages.
        node: `_target_` and settings; where the class is a dataclass, its fields give their types.
        base: what the class must derive from; methods it overrides take the same arguments.

    Raises:
        ConfigError: there is no such class, or it cannot be made so.
    """
    cls = load_class(key, node)
    settings = dict(node)
    target = settings.pop("_target_")
    require(
        issubclass(cls, base),
        f"{key}: {target} must be a subclass of {base.__module__}.{base.__qualname__}",
    )
    require(
        getattr(cls, base.required) is not getattr(base, base.required),
        f"{key}: {target} has no method {base.required} of its own",
    )
    try:
        if "__dataclass_fields__" in vars(cls):
            typed: Any = OmegaConf.merge(OmegaConf.structured(cls), escaped(settings))
            given = {name: typed[name] for name in settings}
            settings = {
                name: OmegaConf.to_container(value, resolve=True)
                if OmegaConf.is_config(value)
                else value
                for name, value in given.items()
            }
        made: P = cls(**settings)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{key}.{error.full_key}: {str(error).splitlines()[0]}") from error
    except ConfigError as error:
        raise ConfigError(f"{key}.{error}") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{key}: {target} cannot be built: {error}") from error
    for name, method in inspect.getmembers(base, inspect.isfunction):
        arguments = list(inspect.signature(method).parameters)[1:]
        try:
            inspect.signature(getattr(made, name)).bind(*arguments)
        except TypeError as error:
            called = ", ".join(arguments)
            raise ConfigError(
                f"{key}: {target}.{name} cannot be called with ({called}): {error}"
            ) from error
    return made


def call(
    where: str,
    about: str,
    function: Callable[..., Any],
    *arguments: Any,
    valid: Callable[[Any], bool],
    expected: str,
) -> Any:
    """What a function of a plug-in returns.

    Args:
        where: its entry in the config, for messages.
        about: what it is called for, such as `prompt NAME`, for messages.
        function: takes `arguments`.
        valid: whether a returned value can be used.
        expected: what it must return, in words.

    Raises:
        TrainingError: it failed, or returned something else.
    """
    try:
        returned = function(*arguments)
        shown = f"{returned!r:.100}"
        problem = "" if valid(returned) else f"returned {shown}, it must return {expected}"
        cause = None
    # a function of a user may leave the program, and a client of its own may cancel it
    except (Exception, SystemExit, CancelledError) as error:
        problem = f"failed with {type(error).__name__}: {error}"
        cause = error
    if problem:
        text = " ".join(problem.split())
        raise TrainingError(
            f"{where}, {about}: it {text[:300]}; correct it, then resume with ckpt=auto"
        ) from cause
    return returned


def observe(where: str, plugin: Plugin, groups: Sequence[RolloutGroup]) -> None:
    """Have a plug-in learn from the outcomes of a step.

    Raises:
        TrainingError: it failed.
    """
    call(
        f"{where}: {type(plugin).__name__}.observe",
        "the outcomes of a rollout",
        plugin.observe,
        groups,
        valid=lambda returned: True,
        expected="nothing",
    )


@contextmanager
def time_limit(seconds: float, setting: str, grace: float = 0.0) -> Iterator[None]:
    """Raise TimeoutError in a block of the main thread that runs for longer.

    SIGALRM stays free, since verifiers of mathematics set alarms of their own. A thread's signals
    end a block that waits; a regular expression keeps other threads from running, and is ended by
    the signal of a timer that counts the processor's time. Both come each second, as code may take
    the exception for one of its own.

    Args:
        seconds: the limit.
        setting: dotted name of its setting, for the message.
        grace: seconds that the block has beyond the limit.
    """
    end = math.inf
    over = False
    done = threading.Event()

    def expire(number: int, frame: Any) -> None:
        nonlocal over
        if time.monotonic() >= end:
            over = True
            raise TimeoutError(f"it ran over {setting}={seconds:g}")

    def remind() -> None:
        pause = min(seconds + grace, threading.TIMEOUT_MAX)
        while not done.wait(pause):
            signal.pthread_kill(main, signal.SIGVTALRM)
            pause = 1.0

    main = threading.main_thread().ident or 0
    before = signal.signal(signal.SIGVTALRM, expire)
    reminder = threading.Thread(target=remind, daemon=True)
    end = time.monotonic() + seconds + grace
    reminder.start()
    signal.setitimer(signal.ITIMER_VIRTUAL, 1.0, 1.0)
    try:
        yield
    finally:
        end = math.inf
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        done.set()
        # a signal on its way must still find this handler
        reminder.join()
        signal.signal(signal.SIGVTALRM, before)
    if over:
        raise TimeoutError(f"it ran over {setting}={seconds:g}")


def is_finite(value: Any) -> bool:
    """True for a finite real number, NumPy's included."""
    return isinstance(value, Real) and math.isfinite(value)
