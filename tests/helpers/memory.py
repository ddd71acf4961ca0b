"""Memory of this process, as Linux counts it (bytes)."""

from pathlib import Path


def resident() -> int:
    """Now."""
    return _status("VmRSS")


def peak() -> int:
    """The most so far."""
    return _status("VmHWM")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
