"""Settings of runs of before, read as those of now."""

from __future__ import annotations

from typing import Any


def as_of_now(settings: dict[str, Any]) -> dict[str, Any]:
    """Flat settings of a run by dotted key, also of one that `algorithm.meta.enabled` came after.

    M is left out where there are no predictions: then it changes nothing.
    """
    key = "algorithm.meta.group_size"
    enabled = settings.get("algorithm.meta.enabled")
    if enabled is None and key in settings:
        settings = settings | {"algorithm.meta.enabled": settings[key] > 0}
    elif enabled is None:
        return settings
    if not settings["algorithm.meta.enabled"]:
        settings = {name: value for name, value in settings.items() if name != key}
    return settings
