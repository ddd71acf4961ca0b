"""A cutoff by the longest prediction instead of the mean."""

from collections.abc import Sequence
from dataclasses import dataclass

from masa.algorithm.cutoffs import Cutoff
from masa.types import MetaPrediction, Prompt


@dataclass
class LongestCutoff(Cutoff):
    """The longest predicted length times a margin."""

    margin: float = 1.5

    def tokens(self, prompt: Prompt, predictions: Sequence[MetaPrediction]) -> float | None:
        """The limit of one prompt; None where no length could be read."""
        lengths = [p.length for p in predictions if p.length is not None]
        return self.margin * max(lengths) if lengths else None
