"""How pass rates are distributed over prompts, from a few solutions of each.

A prompt with 0 right of 8 need not have the pass rate 0. What counts of right answers say is a
mixture of binomials; its distribution over pass rates is fitted by maximum likelihood on a grid
(Kiefer & Wolfowitz 1956), by expectation maximization (Laird 1978). Some hundred iterations from an
even start are enough, more only sharpen it into points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike

from masa.statistics import Floats

_ITERATIONS = 500
_HALF = np.geomspace(0.001, 0.5, 25)
RATES: Floats = np.unique(np.concatenate([[0.0], _HALF, 1 - _HALF, [1.0]]))
"""The pass rates that a prompt may have [J]: fine near 0 and 1, where groups stop being mixed."""
MIN_KEPT = 0.75
"""Smallest share of mixed groups that a gate by value keeps, as is `gate=value`'s default."""


@dataclass(frozen=True)
class Mixture:
    """Prompts by pass rate."""

    prompts: Floats
    """Share of the prompts that have each of `RATES`, [J]."""
    tokens: Floats
    """Share of the solution tokens that these cost, [J]."""
    group_size: int
    """G, solutions per prompt."""

    @property
    def mixed(self) -> Floats:
        """Share of the prompts that have each of `RATES` and a mixed group, [J]."""
        chance = 1 - RATES**self.group_size - (1 - RATES) ** self.group_size
        return self.prompts * chance

    def best_gate(self, overhead: float) -> dict[str, float]:
        """The gate that knows each pass rate and skips by the probability of a mixed group over its
        tokens, at the threshold that makes a mixed group cheapest and keeps `MIN_KEPT` of them.

        Returns:
            `precision` (NaN where it skips nothing), `recall`, `mixed_groups_kept`, `tokens_kept`
            and `cheaper`, how many times cheaper a mixed group is.
        """
        # expected groups by falling value, and what keeping all down to there keeps
        order = np.argsort(-self.mixed / np.maximum(self.tokens, 1e-300), kind="stable")
        signal, tokens, constant = (
            np.cumsum(part[order]) for part in (self.mixed, self.tokens, self.prompts - self.mixed)
        )
        every = signal[-1]
        # of one pass rate a part may be skipped, so that exactly the smallest share is kept
        least = MIN_KEPT * every
        enough = signal > least
        kept = np.append(least, signal[enough])
        cost = np.append(np.interp(least, signal, tokens), tokens[enough])
        best = int(np.argmax(kept / (cost + overhead)))
        left = np.append(np.interp(least, signal, constant), constant[enough])[best]
        skipped = (constant[-1] - left, every - kept[best])
        nothing = sum(skipped) <= 0
        return {
            "precision": np.nan if nothing else skipped[0] / sum(skipped),
            "recall": skipped[0] / constant[-1] if constant[-1] > 0 else np.nan,
            "mixed_groups_kept": kept[best] / every,
            "tokens_kept": cost[best],
            "cheaper": kept[best] / every / (cost[best] + overhead),
        }

    def highest_precision(self, recall: float) -> float:
        """Of a gate that knows each pass rate, at a recall of zero variance."""
        constant = self.prompts - self.mixed
        order = np.argsort(self.mixed / np.maximum(self.prompts, 1e-300), kind="stable")
        hits, misses = np.cumsum(constant[order]), np.cumsum(self.mixed[order])
        wanted = recall * hits[-1]
        return float(wanted / (wanted + np.interp(wanted, hits, misses)))


def fit(
    right: ArrayLike, solutions: ArrayLike, prompts: Floats, tokens: Floats, group_size: int
) -> list[Mixture]:
    """Fitted to counts, one mixture per row of weights.

    Args:
        right: correct solutions of each kind of prompt, [K].
        solutions: solutions of each, [K].
        prompts: how many prompts of each kind there are, [B, K].
        tokens: what their solutions took, [B, K]. Given the counts, they say nothing more about the
            pass rate.
        group_size: G of the mixtures.
    """
    likelihood = scipy.stats.binom.pmf(
        np.asarray(right)[:, None], np.asarray(solutions)[:, None], RATES
    )
    prompts = prompts / prompts.sum(axis=1, keepdims=True)
    tokens = tokens / tokens.sum(axis=1, keepdims=True)
    weights = np.full((len(prompts), len(RATES)), 1 / len(RATES))

    def posterior(of_kinds: Floats) -> Floats:
        expected = np.maximum(weights @ likelihood.T, 1e-300)
        shares: Floats = weights * (of_kinds / expected @ likelihood)
        return shares

    for _ in range(_ITERATIONS):
        weights = posterior(prompts)
    return [Mixture(*parts, group_size) for parts in zip(weights, posterior(tokens), strict=True)]
