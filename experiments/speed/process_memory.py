"""Memory of this process, as Linux counts it (GiB).

The peak is of `/proc/self/status`: `getrusage` starts a new program at its parent's peak.
"""

from pathlib import Path

GIB = 2**30


def resident() -> float:
    """Now."""
    return _status("VmRSS")


def peak() -> float:
    """The most so far."""
    return _status("VmHWM")


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / GIB for line in lines if line.startswith(f"{name}:"))
