"""Paths on the command line: a path is a path, whatever characters it holds.

Hydra's grammar takes a comma for a sweep, brackets for a list, `=`, quotes and letters beyond ASCII
for mistakes, and `12` or `true` for no text at all.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.types import Quote, QuotedString

from masa.cli.config_store import conf_dir
from masa.errors import ConfigError

_PATH = re.compile(
    r"(?!.+\.rewards\.\w+$)(.+\.)?(path|answers|(\w+_)?(sub)?dir)|engine\.run|(model\.|sweep\.)?name|ckpt"
)
"""Settings that hold a path, or a part of one; a reward's own name is the user's."""
_SWEPT_NEVER = re.compile(r"hydra\..*dir")
_PLAIN = re.compile(r"(?!(null|true|false|nan|inf)$)[A-Za-z_./][\w./-]*", re.ASCII | re.IGNORECASE)
"""Values that Hydra reads as the text they are."""


def is_multirun(argv: Sequence[str]) -> bool:
    """True where the command line asks for a sweep."""
    return bool({"-m", "--multirun"} & set(argv))


def quoted(value: str) -> str:
    """A text as Hydra's grammar wants it."""
    return QuotedString(value, Quote.single).with_quotes()


def path_arguments(argv: Sequence[str]) -> list[str]:
    """A command line with its paths quoted for Hydra, and ~ arguments for the home directory.

    What is quoted already stays, and so does null, unless there is such a path. In a sweep `a,b`
    is two values, unless there is a path of that name. `model` may be a folder, of model=hub.
    `--config-dir` becomes the setting of the same effect, which checks and sweeps know as well.

    Raises:
        ConfigError: a path is empty, or one that exists holds `${`, which a configuration never
            takes for text; --config-dir names no folder.
    """
    sweep = is_multirun(argv)
    arguments = []
    rest = iter(argv)
    for argument in rest:
        key, equals, value = argument.partition("=")
        if key in ("--config-dir", "-cd"):
            arguments.append(f"hydra.searchpath=[{_folder(value if equals else next(rest, ''))}]")
            continue
        preset = conf_dir() / "model" / f"{value}.yaml"
        if key == "model" and os.path.exists(value) and not os.path.isfile(preset):
            arguments.append("model=hub")
            key = "model.name"
        if equals and _PATH.fullmatch(key.lstrip("+")):
            if not value:
                raise ConfigError(f"{key} is empty: name one, or leave the setting out")
            whole = not sweep or os.path.exists(value) or _SWEPT_NEVER.fullmatch(key.lstrip("+"))
            parts = [value] if whole else value.split(",")
            argument = f"{key}={','.join(quoted_path(part, not whole) for part in parts)}"
        arguments.append(argument)
    return arguments


def _folder(path: str) -> str:
    folder = os.path.abspath(expanded(path))
    if not path or not os.path.isdir(folder):
        raise ConfigError(f"--config-dir={path}: there is no such folder")
    return quoted(f"file://{folder}")


def expanded(path: str) -> str:
    """A path as it is where it exists, else with ~ as the home directory."""
    return path if os.path.exists(path) else os.path.expanduser(path)


def quoted_path(path: str, only_existing: bool = False) -> str:
    """A path as Hydra's grammar wants it, for `path_arguments`.

    Args:
        path: as it was typed.
        only_existing: leave what is not there as it is.
    """
    if not os.path.exists(path):
        inner = path[1:-1] if path[:1] == path[-1:] and path[:1] in ("'", '"') else ""
        if inner and not os.path.exists(inner):
            return path
        # in quotes without escapes, as Lightning starts its ranks
        path = inner or os.path.expanduser(path)
    if os.path.exists(path):
        if "${" in path:
            raise ConfigError(f"{path}: a configuration takes ${{ for an interpolation: rename it")
    elif only_existing or path.lower() == "null":
        return path
    return path if _PLAIN.fullmatch(path) else quoted(path)


def make_directory(directory: Path, setting: str) -> None:
    """Make a directory where it is missing.

    Raises:
        ConfigError: it cannot be made, or no file in it.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise ConfigError(
            f"{setting}={directory} cannot be written to ({error.strerror or error}): choose "
            "another directory"
        ) from error
