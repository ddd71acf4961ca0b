"""A component of the meta reward: short predicted lengths earn more, if they are possible."""

from masa.types import MetaPrediction, RolloutGroup


def brevity(prediction: MetaPrediction, group: RolloutGroup, tokens: int = 1000) -> float:
    """1 for a predicted length of 0, falling to 0 at `tokens`; 0 below the shortest solution."""
    if prediction.length is None or prediction.length < min(group.lengths):
        return 0.0
    return max(0.0, 1 - prediction.length / tokens)
