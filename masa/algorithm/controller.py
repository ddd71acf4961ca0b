"""What predictions decide: which prompts are skipped, and where solutions are stopped.

Gate and cutoff start in shadow mode: their decisions are recorded and measured, not enforced. Each
becomes active for itself, after `control.start_step` and while what is measured says that it is
good enough. Hints become active after `control.start_step`.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from masa.algorithm.adaptive import AdaptiveTolerance
from masa.algorithm.alarm import Alarm, kind_of
from masa.algorithm.cutoffs import Cutoff
from masa.algorithm.gates import Gate, PredictionGate
from masa.algorithm.sliding_accuracy import SlidingAccuracy
from masa.algorithm.sliding_gain import SlidingGain
from masa.config import AlgorithmConfig
from masa.errors import ConfigError, require
from masa.plugins import build_plugin, call, is_finite, observe
from masa.seeding import uniform
from masa.types import MetaPrediction, Prompt, PromptPlan, RolloutGroup

STATE = ("gate", "cutoff", "gate_precision", "gate_gain", "cutoff_kept", "alarm", "skips")
"""What the controller keeps in a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """What is active in one step; the rest is in shadow mode."""

    step: int
    gate_active: bool
    cutoff_active: bool
    hints_active: bool

    @property
    def predicts_first(self) -> bool:
        """True where solutions depend on predictions, which are therefore sampled first."""
        return self.gate_active or self.cutoff_active or self.hints_active


class Controller:
    """Gate, cutoff and hints of a run, and how good gate and cutoff are measured to be.

    Args:
        config: the algorithm.
        seed: run seed of the audit and of the gate's own draws.

    Raises:
        ConfigError: gate or cutoff cannot be built, or need predictions that are not sampled.
    """

    def __init__(self, config: AlgorithmConfig, seed: int) -> None:
        self.config = config
        self.seed = seed
        self.gate = build_plugin("algorithm.gate", config.gate.settings, Gate)
        self.cutoff = build_plugin("algorithm.cutoff", config.cutoff.settings, Cutoff)
        require(
            not (config.gate.enabled and self.gate.needs_mixed) or config.meta.predict_mixed,
            f"algorithm.gate.enabled: {type(self.gate).__name__} goes by a field that predictions "
            "are not asked for: set algorithm.meta.predict_mixed=true",
        )
        for name, plugin, enabled, audits in (
            ("gate", self.gate, config.gate.enabled, config.control.audits_each_kind),
            ("cutoff", self.cutoff, config.cutoff.enabled, False),
        ):
            if not enabled:
                continue
            require(
                config.meta.enabled or not plugin.needs_predictions,
                f"algorithm.{name}.enabled needs predictions, but meta.enabled is false",
            )
            require(
                config.control.audit_fraction > 0 or audits or not plugin.needs_audits,
                f"algorithm.control.audit_fraction is 0, and without audits algorithm.{name}: "
                f"{type(plugin).__name__} never learns of what it leaves out: set it above 0",
            )
        window, minimum = config.control.window, config.control.min_evidence
        self.gate_precision = SlidingAccuracy(window, minimum)
        """Of the gate: did the prompts that it would skip have zero variance?"""
        self.gate_gain = SlidingGain(4 * window, minimum)
        """Of the gate: signal kept over solution tokens kept."""
        self.cutoff_kept = SlidingAccuracy(window, minimum)
        """Of the cutoff: did the correct solutions end before its limit?"""
        self.alarm = Alarm(config.control.alarm, minimum)
        """Kinds of prompts that are let through, as they are not what the gate takes them for."""
        self.adaptive: AdaptiveTolerance | None = None
        """Chooses settings of the gate."""
        if config.control.adaptive:
            if not isinstance(self.gate, PredictionGate):
                raise ConfigError(
                    "algorithm.control.adaptive chooses settings of gate=prediction, but "
                    f"the gate is {type(self.gate).__name__}"
                )
            target = config.control.target_loss
            self.adaptive = AdaptiveTolerance(self.gate, target, 4 * window, minimum)
        self.skips = SlidingAccuracy(window, minimum)
        """Share of prompts that the gate would skip."""
        self.recent: deque[tuple[str, bool]] = deque(maxlen=config.meta.recent)
        """The newest outcomes, which predictions are shown: see `Recent`."""

    def require_columns(self, prompts: Sequence[Prompt]) -> None:
        """Raise ConfigError where the gate goes by columns that the pool's prompts lack."""
        if self.gate.past is not None:
            self.gate.past.require_columns(prompts)

    def phase(self, step: int) -> Phase:
        """What is active in rollout `step`; nothing in 0, which is validation."""
        config = self.config
        started = step > config.control.start_step
        return Phase(
            step=step,
            gate_active=started and config.gate.enabled and self.gate_proved,
            cutoff_active=started and config.cutoff.enabled and self.cutoff_proved,
            hints_active=started and config.control.hint,
        )

    @property
    def gate_proved(self) -> bool:
        """True where the gate's measured precision reaches `gate.min_precision` and its measured
        gain, less a standard error, is above `gate.min_gain`."""
        precise = self.gate_precision.at_least(self.config.gate.min_precision)
        return precise and self.gate_gain.above(self.config.gate.min_gain)

    @property
    def gate_lacks(self) -> str:
        """The evidence without which the gate cannot act, and how to need less, for a console line;
        empty where there is enough."""
        needs, minimum = self.config.gate, self.config.control.min_evidence
        needed = f"algorithm.control.min_evidence={minimum} are needed: lower that"
        sooner = "let the gate skip sooner with its own settings"
        verdicts, mixed, skips = self.gate_gain.evidence
        if self.gate.lacks:
            return self.gate.lacks
        if needs.min_precision > 0 and (seen := len(self.gate_precision)) < minimum:
            return f"{seen} prompts that it would skip have been rolled out and {needed}, {sooner}"
        if needs.min_gain > 0 and verdicts < minimum:
            audits = "raise algorithm.control.audit_fraction"
            return f"its gain is measured on {verdicts} prompts and {needed}, {audits}"
        if needs.min_gain > 0 and not (mixed and skips):
            return (
                f"its gain is not known: of the {verdicts} newest prompts {mixed} are mixed, and "
                f"it would skip {skips}: {sooner if mixed else 'choose problems in between'}"
            )
        return ""

    @property
    def cutoff_proved(self) -> bool:
        """True where the measured share of correct answers lost is at most `cutoff.max_lost`."""
        return self.cutoff_kept.at_least(1 - self.config.cutoff.max_lost)

    def extra_updates(self, step: int) -> int:
        """Optimizer steps on the meta rollouts alone after rollout `step`, by `meta.extra_updates`
        and its ends."""
        meta = self.config.meta
        over = meta.extra_until is not None and step > meta.extra_until
        enough = meta.extra_until_precision
        reached = enough is not None and self.gate_precision.at_least(enough)
        return 0 if over or reached else meta.extra_updates

    def decide(
        self, prompt: Prompt, predictions: Sequence[MetaPrediction], phase: Phase
    ) -> PromptPlan:
        """How to roll out one prompt. Audited prompts are drawn at random, whatever is predicted,
        and rolled out in full: they measure gate and cutoff without bias. Of the others that would
        be skipped, some are rolled out in full as well: revisits."""
        config = self.config
        enforced = phase.gate_active or phase.cutoff_active
        # sampling the other predictions must not change what is decided by the first
        deciding = predictions[: config.meta.first]
        would_skip = self._would_skip(prompt, deciding, phase.step)
        cutoff_tokens = self._token_limit(prompt, predictions)
        kind = kind_of(self.gate.expected_pass_rate(prompt, deciding)) if would_skip else ""
        acts = phase.gate_active and would_skip and kind not in self.alarm.raised
        draw = uniform(self.seed, phase.step, prompt.id, "audit")
        audit_share = config.control.audit_fraction
        full_share = max(audit_share, self._revisits(kind)) if acts else audit_share
        audited = enforced and draw < audit_share
        revisited = acts and not audited and draw < full_share
        # a gate that does not act is measured by all that it would skip, in full
        measured = config.gate.enabled and would_skip and not acts
        exempt = audited or revisited or measured or not enforced
        skipped = acts and not audited and not revisited
        full = exempt or not phase.cutoff_active
        # what is rolled out in full whether it is drawn or not
        certain = measured or not enforced or not (phase.cutoff_active or would_skip)
        return PromptPlan(
            would_skip=would_skip,
            gate_active=phase.gate_active,
            cutoff_tokens=cutoff_tokens,
            cutoff_active=phase.cutoff_active,
            audited=audited,
            exempt_from_cutoff=exempt,
            max_tokens=0 if skipped else config.response_limit if full else cutoff_tokens,
            skip_kind=kind,
            revisited=revisited,
            full_probability=1.0 if certain else full_share,
        )

    def _revisits(self, kind: str) -> float:
        """Share of what is skipped of a kind that is rolled out all the same."""
        control = self.config.control
        of_kind = {"trivial": control.audit_trivial, "hopeless": control.audit_hopeless}
        share = self.skips.mean
        # NaN before the first step
        beyond = 1 - control.max_skipped / (share if share > 0 else 1.0)
        return max(of_kind.get(kind, 0.0), beyond)

    def _would_skip(self, prompt: Prompt, predictions: Sequence[MetaPrediction], step: int) -> bool:
        return bool(
            call(
                f"algorithm.gate: {type(self.gate).__name__}.skips",
                f"prompt {prompt.id}",
                self.gate.skips,
                prompt,
                predictions,
                # the gate's own draw; revisits are drawn with the audits
                uniform(self.seed, step, prompt.id, "revisit"),
                valid=lambda value: value in (True, False),
                expected="True or False",
            )
        )

    def _token_limit(self, prompt: Prompt, predictions: Sequence[MetaPrediction]) -> int:
        longest = self.config.response_limit
        tokens = call(
            f"algorithm.cutoff: {type(self.cutoff).__name__}.tokens",
            f"prompt {prompt.id}",
            self.cutoff.tokens,
            prompt,
            predictions,
            valid=lambda value: value is None or (is_finite(value) and value > 0),
            expected="a finite number above 0, or None",
        )
        if tokens is None:
            return longest
        return min(max(math.ceil(float(tokens)), self.config.meta.min_length), longest)

    def observe(self, groups: Sequence[RolloutGroup]) -> None:
        """Measure gate and cutoff on a step's outcomes, over all ranks, and let them learn."""
        self.gate_precision.add(group.zero_variance for group in groups if group.skip_evidence)
        self.gate_gain.add(groups)
        self.skips.add(group.plan.would_skip for group in groups)
        self.alarm.add(groups)
        self.recent.extend((g.prompt.problem, g.mixed) for g in groups if g.uncensored)
        for group in groups:
            lengths = zip(group.lengths, group.correct, strict=True)
            kept = [length <= group.plan.cutoff_tokens for length, right in lengths if right]
            if group.cutoff_evidence and kept:
                self.cutoff_kept.add([statistics.fmean(kept)])
        # a gate learns from what it decides by
        seen = [replace(g, predictions=g.predictions[: self.config.meta.first]) for g in groups]
        observe("algorithm.gate", self.gate, seen)
        if self.adaptive is not None:
            self.adaptive.add(seen)
        observe("algorithm.cutoff", self.cutoff, groups)

    def state_dict(self) -> dict[str, Any]:
        """Plain state for checkpoints."""
        state: dict[str, Any] = {name: getattr(self, name).state_dict() for name in STATE}
        state["recent"] = list(self.recent)
        return state | ({"adaptive": self.adaptive.state_dict()} if self.adaptive else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        for name in STATE:
            getattr(self, name).load_state_dict(state[name])
        self.recent.clear()
        self.recent.extend(map(tuple, state["recent"]))
        if self.adaptive is not None:
            self.adaptive.load_state_dict(state["adaptive"])

    def metrics(self) -> dict[str, float]:
        """Whether the gate lacks evidence, and its settings that were chosen."""
        metrics = {}
        if self.config.gate.enabled:
            metrics["health/gate_starved"] = float(bool(self.gate_lacks))
        if self.adaptive is not None:
            chosen = self.adaptive.gate
            metrics |= {"gate/sigma": chosen.sigma, "gate/tolerance": chosen.tolerance}
        return metrics


def hinted(predictions: Sequence[MetaPrediction]) -> tuple[str, ...]:
    """Notions that at least half of the parsed predictions name, in order of first mention."""
    named = [dict.fromkeys(p.notions) for p in predictions if p.notions is not None]
    counts = Counter(notion for notions in named for notion in notions)
    return tuple(notion for notion, count in counts.items() if 2 * count >= len(named))
