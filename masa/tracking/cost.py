"""The cost of training so far, in tokens and in floating-point operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from masa.types import RolloutGroup


@dataclass(frozen=True)
class ModelSize:
    """Parameters of the policy that a token is multiplied with: all but a look-up table."""

    parameters: int
    """N: all of them; an input embedding counts where it is the output head as well."""
    trained: int
    """Those of them with a gradient (fewer than N with LoRA)."""


@dataclass
class CostMeter:
    """Totals over all ranks, cumulative; validation is left out."""

    tokens: dict[str, int] = field(
        default_factory=lambda: {"solution": 0, "meta": 0, "prompt": 0, "trained": 0}
    )
    """`solution` and `meta`: sampled tokens; `prompt`: read before them, once per group;
    `trained`: in an update, prompts and cloned trajectories included."""

    def add(self, groups: Sequence[RolloutGroup], trained: int) -> int:
        """Count one step; returns the tokens it sampled.

        Args:
            groups: the step's groups, of all ranks.
            trained: tokens of all sequences in its updates.
        """
        solution = sum(len(c.token_ids) for g in groups for c in g.solutions)
        meta = sum(len(c.token_ids) for g in groups for c in g.meta)
        self.tokens["solution"] += solution
        self.tokens["meta"] += meta
        self.tokens["prompt"] += sum(
            bool(g.meta) * len(g.meta_prompt_ids) + bool(g.solutions) * len(g.solution_prompt_ids)
            for g in groups
        )
        self.tokens["trained"] += trained
        return solution + meta

    def flops(self, size: ModelSize, reference: bool) -> float:
        """FLOPs so far: 2 N per token read or sampled; per trained token 2 N forward, 2 N for the
        gradient of its activations and 2 per trained parameter (6 N where all are trained), and
        2 N more where there is a KL reference. Attention over earlier tokens is left out.

        Source: Kaplan et al., arXiv 2001.08361, section 2.1.
        """
        forward = 2 * size.parameters
        sampled = self.tokens["solution"] + self.tokens["meta"] + self.tokens["prompt"]
        per_trained = 2 * forward + 2 * size.trained + reference * forward
        return float(forward * sampled + per_trained * self.tokens["trained"])

    def metrics(self, size: ModelSize, reference: bool) -> dict[str, float]:
        """The totals as metrics `cost/*`."""
        return {
            "cost/tokens_solution": float(self.tokens["solution"]),
            "cost/tokens_meta": float(self.tokens["meta"]),
            "cost/tokens_prompt": float(self.tokens["prompt"]),
            "cost/tokens_trained": float(self.tokens["trained"]),
            "cost/tokens_total": float(self.tokens["solution"] + self.tokens["meta"]),
            "cost/flops": self.flops(size, reference),
            "cost/parameters": float(size.parameters),
        }
