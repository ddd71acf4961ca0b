"""What predictions decide: which prompts are skipped, where rollouts are cut off, which are hinted.

Gate and cutoff start in shadow mode: their decisions are recorded and measured, not enforced. Each
becomes active for itself, after `control.start_step` and while what is measured says that it is
good enough. Hints become active after `control.start_step`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from masa.algorithm.cutoff import LengthCutoff
from masa.algorithm.gates import Gate, build_gate
from masa.config import AlgorithmConfig
from masa.seeding import uniform
from masa.types import MetaPrediction, Prompt, PromptPlan, RolloutGroup


@dataclass(frozen=True, kw_only=True)
class Phase:
    """What is active in one step; the rest is in shadow mode."""

    step: int
    gate: bool
    cutoff: bool
    hints: bool

    @property
    def predicts_first(self) -> bool:
        """True where solutions depend on predictions, which are therefore sampled first."""
        return self.gate or self.cutoff or self.hints


class Controller:
    """Gate, cutoff and hints of a run.

    Args:
        config: the algorithm.
        seed: run seed of the audit and of the gate's own draws.
    """

    def __init__(self, config: AlgorithmConfig, seed: int) -> None:
        self.config = config
        self.seed = seed
        self.gate: Gate = build_gate(config.gate, config.control, seed)
        self.cutoff = LengthCutoff(config)

    def phase(self, step: int) -> Phase:
        """What is active in rollout `step`; nothing in 0, which is validation."""
        config = self.config
        started = step > config.control.start_step
        return Phase(
            step=step,
            gate=started and config.gate.enabled and self.gate.ready,
            cutoff=started and config.cutoff.enabled and self.cutoff.ready,
            hints=started and config.control.hint,
        )

    def decide(
        self, prompt: Prompt, predictions: Sequence[MetaPrediction], phase: Phase
    ) -> PromptPlan:
        """How to roll out one prompt. Audited prompts are drawn independently of everything else,
        and rolled out in full: they measure gate and cutoff without bias."""
        config = self.config
        enforced = phase.gate or phase.cutoff
        would_skip = self.gate.skips(prompt, predictions, phase.step)
        cutoff_tokens = self.cutoff.limit(predictions) if predictions else config.response_limit
        drawn = uniform(self.seed, phase.step, prompt.id, "audit") < config.gate.audit_fraction
        audited = drawn and enforced
        # a gate in shadow mode is measured by all that it would skip, in full
        measured = config.gate.enabled and would_skip and not phase.gate
        exempt = audited or measured or not enforced
        skipped = phase.gate and would_skip and not audited
        full = exempt or not phase.cutoff
        return PromptPlan(
            would_skip=would_skip,
            gate_active=phase.gate,
            cutoff_tokens=cutoff_tokens,
            cutoff_active=phase.cutoff,
            audited=audited,
            exempt_from_cutoff=exempt,
            max_tokens=0 if skipped else config.response_limit if full else cutoff_tokens,
        )

    def observe(self, groups: Sequence[RolloutGroup]) -> None:
        """Measure gate and cutoff on a step's outcomes, over all ranks."""
        self.gate.observe(groups)
        self.cutoff.observe(groups)

    def state_dict(self) -> dict[str, Any]:
        """Plain state for checkpoints."""
        return {"gate": self.gate.state_dict(), "cutoff": self.cutoff.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.gate.load_state_dict(state["gate"])
        self.cutoff.load_state_dict(state["cutoff"])


def hinted(predictions: Sequence[MetaPrediction]) -> tuple[str, ...]:
    """Notions that at least half of the parsed predictions name, in order of first mention."""
    named = [dict.fromkeys(p.notions) for p in predictions if p.notions is not None]
    counts: dict[str, int] = {}
    for notions in named:
        for notion in notions:
            counts[notion] = counts.get(notion, 0) + 1
    return tuple(notion for notion, count in counts.items() if 2 * count >= len(named))
