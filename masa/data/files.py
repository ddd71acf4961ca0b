"""Files that are complete or not there, also after a power cut."""

from __future__ import annotations

import os
from pathlib import Path


def publish(partial: Path, final: Path) -> None:
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
