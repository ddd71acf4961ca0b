"""What the predictions about one problem say together."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from masa.types import MetaPrediction


@dataclass(frozen=True)
class PredictionSummary:
    """M predictions about one problem; None where none of them could be read."""

    pass_rate: float | None
    """Mean predicted pass rate, in [0, 1]."""
    pass_rate_std: float | None
    """Their population standard deviation."""
    mixed: float | None
    """Mean predicted probability that some solutions are right and some wrong."""
    length: float | None
    """Mean predicted length of a right solution (tokens)."""
    length_range: tuple[int, int] | None
    """The smallest and the largest of them."""
    notions: dict[str, int]
    """Predicted notions, and in how many of the M each comes; the most frequent first."""
    parsed: int
    """How many of the M could be read completely."""
    count: int
    """M."""
    tokens: int
    """Tokens sampled for them."""

    @property
    def parsed_share(self) -> float:
        """Share of the M that could be read completely."""
        return self.parsed / self.count


def summarise(predictions: Sequence[MetaPrediction], tokens: int) -> PredictionSummary:
    """The summary of M predictions that took so many tokens; each field of those that have it."""
    rates = [p.pass_rate for p in predictions if p.pass_rate is not None]
    mixed = [p.mixed for p in predictions if p.mixed is not None]
    lengths = [p.length for p in predictions if p.length is not None]
    notions = Counter(notion for p in predictions for notion in dict.fromkeys(p.notions or ()))
    return PredictionSummary(
        pass_rate=statistics.fmean(rates) if rates else None,
        pass_rate_std=statistics.pstdev(rates) if rates else None,
        mixed=statistics.fmean(mixed) if mixed else None,
        length=statistics.fmean(lengths) if lengths else None,
        length_range=(min(lengths), max(lengths)) if lengths else None,
        notions=dict(notions.most_common()),
        parsed=sum(p.parsed for p in predictions),
        count=len(predictions),
        tokens=tokens,
    )
