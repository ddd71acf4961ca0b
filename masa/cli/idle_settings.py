"""Settings of a command that others leave without effect, such as `algorithm.bc.coef` where nothing
is cloned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from masa.config import AlgorithmConfig

CLONING = "bc.coef bc.target bc.min_notion_score bc.min_reward bc.pool_size bc.learning_rate"
EXTRA = "meta.extra_until meta.extra_until_precision"
GATING = (
    "gate.min_precision gate.min_gain control.audit_trivial control.audit_hopeless "
    "control.alarm control.max_skipped control.count_skipped"
)


def idle_settings(overrides: Sequence[str], algorithm: AlgorithmConfig) -> Iterator[str]:
    """A line for each override that changes nothing.

    Args:
        overrides: of the command line, as Hydra gives them.
        algorithm: what they made of it.
    """
    causes = {
        f"algorithm.{name}": cause
        for cause, (idle, names) in _causes(algorithm).items()
        if idle
        for name in names.split()
    }
    for override in overrides:
        key = override.lstrip("+").partition("=")[0]
        if key in causes:
            yield f"{override} changes nothing, as {causes[key]}"


def _causes(algorithm: AlgorithmConfig) -> dict[str, tuple[bool, str]]:
    """What may leave settings without effect: whether it does, and which; the last one counts."""
    bc, meta = algorithm.bc, algorithm.meta
    return {
        f"algorithm.bc.mode is {bc.mode}": (
            bc.mode != "separate",
            CLONING if bc.mode == "off" else "bc.learning_rate",
        ),
        "algorithm.bc.mode is separate": (bc.mode == "separate", "bc.coef"),
        f"algorithm.bc.target is {bc.target}": (
            bc.mode != "off",
            {"overwritten": "bc.min_reward", "best": "bc.min_notion_score"}.get(
                bc.target, "bc.min_reward bc.min_notion_score"
            ),
        ),
        "algorithm.meta.extra_updates is 0": (meta.extra_updates == 0, EXTRA),
        "algorithm.meta.coef is 0": (meta.coef == 0, f"{EXTRA} token_mean"),
        "algorithm.meta.enabled is false": (
            not meta.enabled,
            f"{EXTRA} token_mean meta.coef meta.group_size",
        ),
        "algorithm.control.adaptive is false": (
            not algorithm.control.adaptive,
            "control.target_loss",
        ),
        "algorithm.gate.enabled is false": (not algorithm.gate.enabled, GATING),
        "algorithm.cutoff.enabled is false": (not algorithm.cutoff.enabled, "cutoff.max_lost"),
        "neither gate, cutoff nor hints are on": (
            not algorithm.steers,
            "control.start_step control.audit_fraction",
        ),
        "algorithm.selection.refill is false": (
            not algorithm.selection.refill,
            "selection.max_tokens selection.max_draws",
        ),
        f"algorithm.dynamic_sampling is {algorithm.dynamic_sampling}": (
            algorithm.dynamic_sampling > 0,
            "control.count_skipped",
        ),
        "algorithm.loss is cispo": (algorithm.loss == "cispo", "dual_clip"),
        "algorithm.bc.coef is 0": (
            bc.mode == "joint" and bc.coef == 0,
            "bc.target bc.pool_size bc.min_notion_score bc.min_reward",
        ),
        "algorithm.overlong_buffer is 0": (algorithm.overlong_buffer == 0, "overlong_penalty"),
        "algorithm.mismatch is none": (
            algorithm.mismatch == "none",
            "mismatch_low mismatch_high",
        ),
    }
