"""Files that are complete or not there, also after a power cut."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from masa.errors import TrainingError


@contextmanager
def atomic_write(partial: Path, final: Path) -> Iterator[None]:
    """Write `partial`, which then becomes `final`.

    Raises:
        TrainingError: the disk does not take it; `final` is as it was.
    """
    try:
        yield
        atomic_replace(partial, final)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise TrainingError(
            f"{final} could not be written ({error.strerror or error}); checkpoints are untouched: "
            "free space there, then go on with ckpt=auto"
        ) from error


def atomic_replace(partial: Path, final: Path) -> None:
    """Give a file or folder that was written as `partial` its name, once it is on the disk."""
    for path in (*partial.rglob("*"), partial):
        _to_disk(path)
    os.replace(partial, final)
    _to_disk(final.parent)


def _to_disk(path: Path) -> None:
    # Windows opens no folders
    if os.name != "nt" or path.is_file():
        descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
