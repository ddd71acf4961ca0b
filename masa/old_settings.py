"""Settings of runs of before, read as those of now."""

from __future__ import annotations

from typing import Any


def as_of_now(settings: dict[str, Any]) -> dict[str, Any]:
    """Flat settings of a run by dotted key, also of one that samplers or `algorithm.meta.enabled`
    came after.

    M is left out where there are no predictions: then it changes nothing.
    """
    settings = {"sampler._target_": "masa.rollout.samplers.ShuffledEpochs"} | settings
    m, enabled = "algorithm.meta.group_size", "algorithm.meta.enabled"
    if m not in settings:
        return settings
    now = {enabled: settings[m] > 0} | settings
    return now if now[enabled] else {name: value for name, value in now.items() if name != m}
