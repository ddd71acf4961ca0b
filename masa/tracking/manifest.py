"""The manifest of a checkpoint, `step-N.json`: its facts and the digests of its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from masa import __version__
from masa.tracking.files import atomic_replace


@dataclass(frozen=True)
class Manifest:
    """Facts about a checkpoint that can be read without loading it."""

    step: int
    """Rollouts trained on."""
    accuracy: float | None
    """val/accuracy of this policy, None where it was not validated."""
    parameters: Mapping[str, Sequence[int]]
    """Shape of each of the policy's parameters."""
    sha256: Mapping[str, str]
    """Digest of each file, by its path relative to the manifest."""
    version: str = __version__
    """Of the masa that wrote it."""


def manifest_path(checkpoint: Path) -> Path:
    """`step-N.json` of `step-N.ckpt`."""
    return checkpoint.with_suffix(".json")


def write_manifest(manifest: Manifest, checkpoint: Path) -> None:
    """Write a manifest that is either complete or absent."""
    partial = checkpoint.with_suffix(".tmp")
    partial.write_text(json.dumps(asdict(manifest)))
    atomic_replace(partial, manifest_path(checkpoint))


def read_manifest(checkpoint: Path) -> Manifest | None:
    """None where there is no readable one."""
    try:
        # the first version wrote no version
        return Manifest(**{"version": "0.1.0", **json.loads(manifest_path(checkpoint).read_text())})
    except (OSError, ValueError, TypeError):
        return None


def digests(saved: Path, name: str) -> dict[str, str]:
    """SHA-256 of a checkpoint's file, or of every file in its folder, under the name `name`."""
    files = sorted(path for path in saved.rglob("*") if path.is_file()) or [saved]
    names = [(Path(name) / path.relative_to(saved)).as_posix() for path in files]
    with ThreadPoolExecutor() as pool:
        return dict(zip(names, pool.map(_digest, files), strict=True))


def damage(checkpoint: Path) -> str | None:
    """How a checkpoint differs from its manifest; None where it does not."""
    manifest = read_manifest(checkpoint)
    if manifest is None:
        return f"{manifest_path(checkpoint).name} beside it is missing or unreadable"
    actual = digests(checkpoint, checkpoint.name)
    for name, digest in manifest.sha256.items():
        if name not in actual:
            return f"{name} is missing"
        if actual[name] != digest:
            return f"{name} is not as it was written"
    return None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
