"""Files that are either complete or absent, even after a power cut."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from masa.errors import TrainingError

FULL = errno.ENOSPC, errno.EDQUOT, errno.EFBIG
RESUME = "checkpoints are untouched", "resume with ckpt=auto"
REPEAT = "what was sampled before is kept", "repeat the command"


@contextmanager
def atomic_write(final: Path, advice: tuple[str, str] = RESUME) -> Iterator[Path]:
    """Yield the path of a temporary file, which becomes `final` at the end.

    Args:
        final: the file.
        advice: what is safe where it cannot be written, and how to go on, for the message.

    Raises:
        TrainingError: the file cannot be written; `final` is as it was.
    """
    partial = final.with_name(f".{final.name}.partial")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        atomic_replace(partial, final)
    except OSError as error:
        partial.unlink(missing_ok=True)
        safe, then = advice
        remedy = "free space there" if error.errno in FULL else "see that it can be written"
        raise TrainingError(
            f"{final} could not be written ({error.strerror or error}); {safe}: {remedy}, then "
            f"{then}"
        ) from error


def atomic_replace(partial: Path, final: Path) -> None:
    """Rename a file or folder to `final`, once all of it is on the disk."""
    for path in (*partial.rglob("*"), partial):
        _sync(path)
    os.replace(partial, final)
    _sync(final.parent)


def _sync(path: Path) -> None:
    # Windows opens no folders
    if os.name != "nt" or path.is_file():
        descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
